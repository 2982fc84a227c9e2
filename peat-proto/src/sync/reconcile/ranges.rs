//! Comparing ranges of symbols, where there is too much for a sketch.

use std::collections::BTreeSet;

use super::set::SymbolSet;
use super::symbol::{Difference, Prefix, Symbol};
pub use super::tree::Share;

/// Symbols up to which a range is listed: 512 B, as much as two of its divisions.
const LIST: usize = 32;

/// Ranges that are asked for at once. Their answers have 18 KB at most.
const ASKED: usize = 64;

/// Own symbols of a range up to which it is compared in one step.
const STEP: u64 = 256;

/// What one side has in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The shares of its sixteenths, in order.
    Shares(Box<[Share; 16]>),
    /// All of it, in ascending order.
    Symbols(Vec<Symbol>),
}

/// Answers for a range of the union of disjoint sets. Nothing is remembered of it.
#[must_use]
pub fn answer<V>(sets: &[&SymbolSet<V>], prefix: &Prefix) -> Answer {
    let count = share(sets, prefix).count;
    if count <= LIST as u64 {
        return Answer::Symbols(list(sets, prefix, LIST));
    }
    let mut shares: Box<[Share; 16]> = Box::default();
    for (digit, sixteenth) in (0..).zip(shares.iter_mut()) {
        match prefix.child(digit) {
            Some(child) => *sixteenth = share(sets, &child),
            // More than 32 sets with the same symbol: a document is in one of them, and symbols do not collide by chance.
            None => return Answer::Symbols(list(sets, prefix, LIST)),
        }
    }
    Answer::Shares(shares)
}

/// The asking side of a comparison by ranges: depth first, with a bounded number of ranges under way.
///
/// Sets may change meanwhile. What moves in a range that was compared already is left to the next comparison of digests.
#[derive(Debug)]
pub struct Ranges {
    /// To be asked for, the next one last.
    todo: Vec<Prefix>,
    asked: BTreeSet<Prefix>,
    /// Ranges of which all that they have is known, the next one last.
    known: Vec<(Prefix, Vec<Symbol>)>,
    /// Whether what only we have is of no interest.
    one_way: bool,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { todo: vec![Prefix::ALL], asked: BTreeSet::new(), known: Vec::new(), one_way: false }
    }
}

impl Ranges {
    /// Looks for what they have and we do not, and for nothing else: what it takes follows their set, however many others
    /// filled ours.
    #[must_use]
    pub fn one_way() -> Self {
        Self { one_way: true, ..Self::default() }
    }

    /// Whether everything has been compared.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.todo.is_empty() && self.asked.is_empty() && self.known.is_empty()
    }

    /// The next ranges to ask for: none while 64 are under way, or something is left for [`Self::work`].
    pub fn ask(&mut self) -> Vec<Prefix> {
        let mut next = Vec::new();
        while self.known.is_empty() && self.asked.len() < ASKED {
            let Some(prefix) = self.todo.pop() else { break };
            self.asked.insert(prefix);
            next.push(prefix);
        }
        next
    }

    /// What was asked for and not answered, to be asked again.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Prefix> {
        self.asked.iter().copied().collect()
    }

    /// Takes in an answer; one that was not asked for, or came before, is ignored. False if no set answers like this.
    #[must_use]
    pub fn heard<V>(&mut self, sets: &[&SymbolSet<V>], prefix: Prefix, answer: Answer) -> bool {
        if !self.asked.remove(&prefix) {
            return true;
        }
        match answer {
            Answer::Symbols(symbols) => {
                let sound = symbols.iter().all(|symbol| prefix.contains(symbol)) && symbols.is_sorted_by(|a, b| a < b);
                if sound {
                    self.learn(prefix, symbols);
                }
                sound
            }
            Answer::Shares(shares) => {
                let children = (0..).map_while(|digit| prefix.child(digit)).zip(*shares);
                let differing: Vec<_> = children.filter(|(child, theirs)| share(sets, child) != *theirs).collect();
                // Nothing of this range differs any more; or they count wrongly, and the digests will tell.
                for (child, theirs) in differing.into_iter().rev() {
                    if theirs.count == 0 {
                        self.learn(child, Vec::new());
                    } else {
                        self.todo.push(child);
                    }
                }
                prefix.digits() < Prefix::MAX_DIGITS
            }
        }
    }

    fn learn(&mut self, prefix: Prefix, theirs: Vec<Symbol>) {
        if !self.one_way || !theirs.is_empty() {
            self.known.push((prefix, theirs));
        }
    }

    /// Compares one range that is known, in a bounded step; empty when there is none, or nothing differs.
    pub fn work<V>(&mut self, sets: &[&SymbolSet<V>]) -> Difference {
        let Some((prefix, theirs)) = self.known.pop() else { return Difference::default() };
        if self.one_way {
            return lacking(sets, theirs);
        }
        if share(sets, &prefix).count > STEP
            && let Some(children) = (0..16).map(|digit| prefix.child(digit)).collect::<Option<Vec<_>>>()
        {
            for child in children.into_iter().rev() {
                let inside = theirs.iter().filter(|symbol| child.contains(symbol)).copied().collect();
                self.known.push((child, inside));
            }
            return Difference::default();
        }
        let ours: BTreeSet<Symbol> = list(sets, &prefix, STEP as usize).into_iter().collect();
        let theirs: BTreeSet<Symbol> = theirs.into_iter().collect();
        Difference::of(ours.difference(&theirs).copied().collect(), theirs.difference(&ours).copied().collect())
    }

    /// Whether [`Self::work`] has something to compare.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.known.is_empty()
    }
}

/// What we lack of theirs, looked up one by one: as many as an answer lists.
fn lacking<V>(sets: &[&SymbolSet<V>], theirs: Vec<Symbol>) -> Difference {
    let mut difference = Difference::default();
    for symbol in theirs {
        if sets.iter().any(|set| set.get(&symbol).is_some()) {
            continue;
        }
        match sets.iter().find_map(|set| set.same_document(&symbol)) {
            Some((ours, _)) => difference.changed.push(*ours),
            None => difference.theirs.push(symbol),
        }
    }
    difference
}

fn share<V>(sets: &[&SymbolSet<V>], prefix: &Prefix) -> Share {
    sets.iter().fold(Share::default(), |sum, set| sum.plus(set.share(prefix)))
}

fn list<V>(sets: &[&SymbolSet<V>], prefix: &Prefix, most: usize) -> Vec<Symbol> {
    let listed = sets.iter().flat_map(|set| set.list(prefix, None, most)).map(|(symbol, _)| symbol);
    let mut symbols: Vec<Symbol> = listed.collect();
    symbols.sort_unstable();
    symbols.truncate(most);
    symbols
}
