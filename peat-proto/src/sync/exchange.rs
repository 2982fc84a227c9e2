//! Bringing one document to equal heads on both sides of one connection.
//!
//! Each message says what its sender has; nothing is assumed to have arrived until the other side says so. That makes
//! the exchange stateless in the sense that counts: any message may be lost, doubled or overtaken, and either side may
//! forget everything, without harm. (`automerge::sync::State` stalls after one lost message.)
//!
//! ```text
//!  heads equal ──────────────► settled, the exchange is forgotten
//!  they lack changes ────────► data: heads and the missing changes, or a snapshot; repeated until their heads say so
//!  we lack changes ──────────► question: heads, what we need, and samples of what we have
//!  they asked, or sent data ─► statement: heads
//!  it was deleted ───────────► its marker
//!  theirs was not taken ─────► a refusal, with the reason
//! ```

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash};
use bytes::{Bytes, BytesMut};

use crate::doc::View;
use crate::doc::document::{Document, Live};
use crate::doc::history::{self, Brought};
use crate::heads::Heads;
use crate::io::Refusal;
use crate::sync::backlog::Backlog;
use crate::time::Time;
use crate::wire::v1::{Held, Word};

/// Hashes that are remembered as common to both sides; the newest are kept.
const MAX_COMMON: usize = 64;

/// Of them, those that a question names beside its samples: with these at most 30, which is less than what is remembered.
const MAX_TOLD: usize = 16;

/// Changes up to which a whole document travels as its changes: a saved form is smaller only for more.
const FEW: usize = 4;

/// Hashes that an exchange keeps without being counted: the heads and samples of most documents.
const FREE: usize = 8;

/// What so many hashes count for, in bytes.
pub(crate) fn named_bytes(hashes: usize) -> usize {
    hashes.saturating_sub(FREE).saturating_mul(size_of::<ChangeHash>())
}

/// What one side knows about the other's copy of one document, while the two differ.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The heads that the other side last named.
    theirs: Option<Heads>,
    /// Changes that the other side is known to have, because it said so.
    common: Vec<ChangeHash>,
    /// Changes that it says it has, and that may be strange to us.
    hints: Vec<ChangeHash>,
    /// The frontier that it will have when everything that was sent has arrived. A hope, dropped at the deadline.
    ahead: Vec<ChangeHash>,
    /// It asked a question that has not been answered.
    asked: bool,
    /// It has said what it has beside its heads, or that it has nothing.
    shown: bool,
    /// It has been asked for that.
    asked_back: bool,
    /// It sent changes whose receipt has not been confirmed.
    owes: bool,
    /// Many documents are sent at once over a link that loses nothing: no answer is wanted.
    quiet: bool,
    /// What it sent is not taken, and it has not been told.
    refusing: Option<Refusal>,
    /// When what was said is said again.
    pub(crate) deadline: Option<Time>,
    /// How often it was said without an answer.
    pub(crate) tries: u32,
    /// The place in the connection's queue, if it has something to say.
    pub(crate) queued: Option<u64>,
    /// What the other side has of a whole that it is sent in pieces.
    pub(crate) held: Option<Held>,
    /// What it lacks and was not sent yet.
    backlog: Backlog,
    /// Walks over the history that were made since they were last counted.
    walks: u64,
    /// Samples of our history, and the heads that they were taken behind: who asks again and again costs one walk.
    sampled: Option<Box<(Heads, Vec<ChangeHash>)>>,
    /// What the document is expected to take in memory when the other side asks for it, in bytes.
    pub(crate) memory: u64,
    /// What the connection counts of [`Self::named`].
    pub(crate) counted: usize,
}

/// What one step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes of a frame.
    pub(crate) frame: usize,
    /// Bytes of the largest whole that the other side takes.
    pub(crate) largest: usize,
    /// Bytes of changes that may be kept for the next step.
    pub(crate) backlog: usize,
}

/// What an exchange does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Both sides are equal: forget the exchange.
    Settled,
    /// The last word; then as `Settled`.
    SayAndSettle(Message),
    /// Neither side will get more from the other: forget the exchange.
    Done,
    /// The last word; nothing is known of what comes of it.
    SayAndEnd(Message),
    /// Say this. With `more`, there is more to say at once; with `expects`, an answer must follow.
    Say { message: Message, expects: bool, more: bool },
    /// Nothing, until something arrives or the deadline passes.
    Wait,
    /// The document's content has to be in memory first.
    NeedContent,
    /// The document's stored bytes have to be in memory first.
    NeedStored,
    /// A saved form has to be prepared first.
    NeedSaved,
    /// There is nothing to be done about this document now.
    Hopeless,
}

/// Which way changes of a document may go between the two sides. Heads and questions go both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    /// From us to them.
    pub(crate) sends: bool,
    /// From them to us.
    pub(crate) takes: bool,
}

#[derive(Debug)]
pub(crate) enum Message {
    Word(Word),
    /// A whole document; whether an answer is wanted.
    Whole(Bytes, bool),
    Marker(Bytes),
    Refused(Refusal, Heads),
}

impl Exchange {
    /// About a document of which the other side's copy is unknown.
    pub(crate) fn unknown() -> Self {
        Self::default()
    }

    /// About a document of which the other side has another state; it will take this much memory.
    pub(crate) fn changed(memory: u64) -> Self {
        Self { memory, ..Self::default() }
    }

    /// About a document of which the other side has just this.
    pub(crate) fn at(theirs: Heads) -> Self {
        Self { common: theirs.as_slice().to_vec(), theirs: Some(theirs), ..Self::default() }
    }

    /// About a document that the other side does not have. `quiet`: it need not say that it took it.
    pub(crate) fn push(quiet: bool) -> Self {
        Self { quiet, ..Self::at(Heads::NONE) }
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.deadline.is_some()
    }

    /// The heads that the other side last named.
    pub(crate) fn theirs(&self) -> Option<&Heads> {
        self.theirs.as_ref()
    }

    /// Takes in what the other side said.
    pub(crate) fn heard(&mut self, word: &Word) {
        if self.theirs.as_ref() != Some(&word.heads) {
            self.tries = 0;
            if self.ahead.is_empty() {
                // They moved; what was asked for is asked anew if it did not come with this.
                self.deadline = None;
            }
        }
        self.quiet = false;
        self.asked |= word.asks;
        self.owes |= !word.changes.is_empty();
        self.shown |= !word.samples.is_empty() || word.heads.is_empty();
        if word.need.as_slice().iter().any(|hash| self.common.contains(hash)) {
            // What was sent and wanted no answer was not kept there.
            self.common.clear();
        }
        self.hint(&word.samples);
        self.theirs = Some(word.heads.clone());
    }

    /// Takes in that a whole document arrived; whether an answer is wanted.
    pub(crate) fn heard_whole(&mut self, answer: bool) {
        self.owes |= answer;
    }

    /// Takes in what came of what arrived: they have all of it, and so have we.
    pub(crate) fn took(&mut self, brought: Brought) {
        match brought {
            Brought::Unknown => {}
            Brought::Whole(heads) => {
                self.hint(heads.as_slice());
                self.theirs.get_or_insert(heads);
            }
            Brought::UpTo(frontier) => self.hint(frontier.as_slice()),
        }
    }

    /// What the other side sent is not taken: that is said next.
    pub(crate) fn refuse(&mut self, reason: Refusal) {
        self.refusing = Some(reason);
    }

    /// What was to be said is not said yet.
    pub(crate) fn take_back(&mut self) {
        self.ahead.clear();
        self.backlog = Backlog::default();
    }

    /// Bytes that are kept of what the other side named, beyond what every exchange takes.
    pub(crate) fn named(&self) -> usize {
        named_bytes(self.theirs.as_ref().map_or(0, Heads::len) + self.hints.len() + self.common.len())
    }

    /// Bytes of changes that are kept for the next step.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.bytes()
    }

    /// Walks over the history since this was last asked.
    pub(crate) fn take_walks(&mut self) -> u64 {
        std::mem::take(&mut self.walks)
    }

    /// What was said went unanswered: forget what was hoped for.
    pub(crate) fn give_up_waiting(&mut self) {
        self.deadline = None;
        self.tries = self.tries.saturating_add(1);
        self.take_back();
    }

    /// Decides what to do, and assumes that it is done.
    pub(crate) fn step(&mut self, view: &View<'_>, rights: Rights, room: Room) -> Step {
        if let Some(reason) = self.refusing.take() {
            return Step::SayAndEnd(Message::Refused(reason, self.theirs.clone().unwrap_or_default()));
        }
        let none = Heads::NONE;
        let ours = match view {
            // An own marker says so itself once it may leave.
            View::Unreadable | View::Buried(None) => return Step::Hopeless,
            // Its marker does not go there: all that can be said is that it is gone here.
            View::Buried(Some(_)) if !rights.sends => {
                let theirs = self.theirs.clone().unwrap_or_default();
                return Step::SayAndEnd(Message::Refused(Refusal::Deleted, theirs));
            }
            View::Buried(Some(marker)) => return Step::SayAndEnd(Message::Marker(marker.encode().into())),
            // Not even our heads are theirs to know.
            _ if !rights.sends && !rights.takes => {
                let theirs = self.theirs.clone().unwrap_or_default();
                let refused = Message::Refused(Refusal::NotAllowed, theirs);
                return if self.asked || self.owes { Step::SayAndEnd(refused) } else { Step::Done };
            }
            View::Absent => &none,
            View::Cold(document) | View::Stored(document, _) | View::Live(document, _) => &document.offered,
        };
        let theirs = match self.theirs.clone() {
            Some(theirs) if theirs == *ours => return self.settle(ours),
            Some(theirs) => theirs,
            None if self.is_waiting() => return self.acknowledge(ours),
            None => {
                let had = self.had(ours);
                return self.ask(ours, Heads::NONE, had);
            }
        };
        match view {
            _ if ours.is_empty() && self.is_waiting() => self.acknowledge(ours),
            _ if ours.is_empty() && !rights.takes => self.end(ours),
            _ if ours.is_empty() => self.ask(ours, theirs, Vec::new()),
            _ if theirs.is_empty() && !rights.sends => self.end(ours),
            View::Live(document, live) => self.compare(document, live, &theirs, rights, room),
            _ if self.is_waiting() && !self.asked && self.ahead == ours.as_slice() => self.acknowledge(ours),
            View::Stored(_, bytes) if theirs.is_empty() && bytes.len() <= room.largest => {
                self.say_whole(ours.as_slice(), (*bytes).clone(), false)
            }
            View::Cold(document) if theirs.is_empty() && document.is_compact() => Step::NeedStored,
            _ => Step::NeedContent,
        }
    }

    fn compare(&mut self, document: &Document, live: &Live, theirs: &Heads, rights: Rights, room: Room) -> Step {
        let (ours, doc) = (&document.offered, &live.doc);
        let held: BTreeSet<ChangeHash> = document.local().iter().map(|change| change.hash).collect();
        let unheld = |hash: &ChangeHash| !held.contains(hash);
        let shown = |hash: &ChangeHash| history::knows(doc, hash) && unheld(hash);
        let (known, unknown): (Vec<_>, Vec<_>) = theirs.as_slice().iter().copied().partition(shown);
        // What may not be taken is not asked for.
        let strange = !unknown.is_empty();
        let unknown = if rights.takes { Heads::new(unknown) } else { Heads::NONE };
        let mut hints = std::mem::take(&mut self.hints);
        hints.retain(shown);
        if hints.iter().chain(&known).any(|hash| self.backlog.contains(hash)) {
            // They had it from elsewhere.
            self.backlog = Backlog::default();
        }
        let news = self.confirm(hints);
        if self.confirm(known.into_iter().take(MAX_COMMON).collect()) || news {
            // What is sent next begins further on.
            self.tries = 0;
        }
        let mut base = self.common.clone();
        base.extend(self.ahead.iter().filter(|hash| history::knows(doc, hash)));
        let strangers = base.is_empty() && !theirs.is_empty();
        // Nothing in common that we know of: let them say what they have before all of ours is sent. A question without samples
        // comes of a document that was not in memory; one with a short history has none to give, and is asked once.
        let hidden = rights.sends && !self.shown && !self.asked_back;
        if strangers && (!self.asked || hidden) {
            if self.is_waiting() && !self.asked {
                return self.acknowledge(ours);
            }
            self.asked_back = true;
            let samples = self.samples(doc, ours);
            return self.ask(ours, unknown, samples);
        }
        let covered = ours.as_slice().iter().all(|head| base.contains(head));
        if covered || !rights.sends {
            self.backlog = Backlog::default();
        } else if self.backlog.is_empty()
            && let Some(step) = self.collect(document, live, &base, room)
        {
            return step;
        }
        if self.backlog.is_empty() {
            return match (unknown.is_empty(), self.is_waiting()) {
                (_, true) => self.acknowledge(ours),
                (false, false) => {
                    let samples = self.samples(doc, ours);
                    self.ask(ours, unknown, samples)
                }
                (true, false) if strange || !rights.sends => self.end(ours),
                // They have, or will have, all of ours, and named heads that lie behind them.
                (true, false) => self.ask(ours, Heads::NONE, Vec::new()),
            };
        }
        let mut frontier = Heads::new(base);
        let mut changes = Vec::new();
        for missing in self.backlog.next_frame(room.frame) {
            frontier = frontier.advanced([(missing.hash, missing.deps.as_slice())]);
            changes.push(missing.bytes);
        }
        let more = !self.backlog.is_last(ours);
        self.backlog.cut(room.backlog);
        self.ahead = if more { frontier.as_slice().to_vec() } else { ours.as_slice().to_vec() };
        let asks = !unknown.is_empty() && !self.is_waiting();
        let samples = if asks { self.samples(doc, ours) } else { Vec::new() };
        (self.asked, self.owes) = (false, false);
        let word = Word { heads: ours.clone(), asks, need: unknown, samples, changes };
        Step::Say { message: Message::Word(word), expects: true, more }
    }

    /// Collects what lies behind `base`; or says, or asks for, a whole document in its place.
    fn collect(&mut self, document: &Document, live: &Live, base: &[ChangeHash], room: Room) -> Option<Step> {
        let (ours, doc) = (&document.offered, &live.doc);
        let held: BTreeSet<ChangeHash> = document.local().iter().map(|change| change.hash).collect();
        // Names cost what is missing; the changes themselves cost a walk over the whole history.
        let missing = doc.get_changes_meta(base).into_iter().map(|meta| meta.hash).filter(|hash| !held.contains(hash));
        let missing: Vec<ChangeHash> = missing.collect();
        let total = automerge::ReadDoc::stats(doc).num_changes;
        if missing.len() > FEW && (missing.len() as u64).saturating_mul(3) > total {
            // An older saved form will do to begin with, if it brings anything.
            let brings = |at: &Heads| missing.iter().any(|hash| at.contains(hash));
            match &live.prepared {
                Some((_, saved)) if saved.len() > room.largest => {}
                Some((at, saved)) if at == ours || (self.ahead.is_empty() && brings(at)) => {
                    return Some(self.say_whole(at.as_slice(), saved.clone(), at != ours));
                }
                _ => return Some(Step::NeedSaved),
            }
        }
        if missing.is_empty() {
            return None;
        }
        self.walks += 1;
        let changes = doc.get_changes(base).into_iter().filter(|change| !held.contains(&change.hash()));
        self.backlog = Backlog::collect(changes, ours);
        let size: usize = self.backlog.changes().map(|change| change.bytes.len()).sum();
        let is_new = base.is_empty() && self.theirs.as_ref().is_some_and(Heads::is_empty);
        if is_new && missing.len() <= FEW && size <= room.frame {
            let mut whole = BytesMut::with_capacity(size);
            std::mem::take(&mut self.backlog).changes().for_each(|change| whole.extend_from_slice(&change.bytes));
            return Some(self.say_whole(ours.as_slice(), whole.freeze(), false));
        }
        None
    }

    /// Sends all that there is, of the history behind `at`.
    fn say_whole(&mut self, at: &[ChangeHash], whole: Bytes, more: bool) -> Step {
        self.ahead = at.to_vec();
        self.owes = false;
        if self.quiet && !more {
            return Step::SayAndSettle(Message::Whole(whole, false));
        }
        Step::Say { message: Message::Whole(whole, true), expects: true, more }
    }

    fn settle(&mut self, ours: &Heads) -> Step {
        if self.asked || self.owes { Step::SayAndSettle(self.statement(ours)) } else { Step::Settled }
    }

    /// Neither side may give the other what it lacks, or there is nothing.
    fn end(&mut self, ours: &Heads) -> Step {
        if self.asked || self.owes { Step::SayAndEnd(self.statement(ours)) } else { Step::Done }
    }

    /// Says our heads if the other side waits for them, and nothing otherwise.
    fn acknowledge(&mut self, ours: &Heads) -> Step {
        let due = self.owes || (self.asked && self.ahead.is_empty());
        (self.asked, self.owes) = (false, false);
        if due {
            Step::Say { message: self.statement(ours), expects: self.is_waiting(), more: false }
        } else {
            Step::Wait
        }
    }

    /// Answers what arrived while something is on its way that takes several frames.
    pub(crate) fn answer(&mut self, ours: &Heads) -> Step {
        if self.theirs.as_ref() == Some(ours) {
            return self.settle(ours);
        }
        if std::mem::take(&mut self.owes) {
            Step::Say { message: self.statement(ours), expects: true, more: false }
        } else {
            Step::Wait
        }
    }

    /// What says what we have and wants no answer.
    fn statement(&self, ours: &Heads) -> Message {
        Message::Word(Word { heads: ours.clone(), samples: self.had(ours), ..Word::default() })
    }

    /// What is known of theirs to lie behind our heads: whoever takes nothing from us does not know those. Before they name
    /// their heads it is what they sent.
    fn had(&self, ours: &Heads) -> Vec<ChangeHash> {
        let (named, known) = match &self.theirs {
            Some(theirs) => (theirs.as_slice(), &self.common),
            None => (&self.hints[..], &self.hints),
        };
        named.iter().filter(|hash| known.contains(hash) && !ours.contains(hash)).copied().collect()
    }

    fn ask(&mut self, ours: &Heads, need: Heads, samples: Vec<ChangeHash>) -> Step {
        (self.asked, self.owes) = (false, false);
        let word = Word { heads: ours.clone(), asks: true, need, samples, changes: Vec::new() };
        Step::Say { message: Message::Word(word), expects: true, more: false }
    }

    /// What tells the other side how much of the history we have: ancestors of our heads, and what we know that it has, as
    /// far as it went. So what it sends again and again, because all that it knows of ours lies further back, gets shorter
    /// each time.
    fn samples(&mut self, doc: &Automerge, ours: &Heads) -> Vec<ChangeHash> {
        let before = self.sampled.take().filter(|before| before.0 == *ours);
        let sampled = before.unwrap_or_else(|| Box::new((ours.clone(), history::sample(doc, ours))));
        let mut samples = self.sampled.insert(sampled).1.clone();
        let newest = self.common.len().saturating_sub(MAX_TOLD);
        samples.extend(self.common.iter().skip(newest).filter(|hash| !ours.contains(hash)));
        samples.sort_unstable();
        samples.dedup();
        samples
    }

    /// Notes what the other side says that it has.
    fn hint(&mut self, hashes: &[ChangeHash]) {
        let news = hashes.iter().take(MAX_COMMON).filter(|hash| !self.hints.contains(hash)).copied();
        self.hints.extend(news.collect::<Vec<_>>());
        let excess = self.hints.len().saturating_sub(MAX_COMMON);
        self.hints.drain(..excess);
    }

    /// Notes what the other side is known to have; whether that is news.
    fn confirm(&mut self, known: Vec<ChangeHash>) -> bool {
        let before = self.common.len();
        for hash in known {
            if !self.common.contains(&hash) {
                self.common.push(hash);
            }
        }
        let news = self.common.len() > before;
        let excess = self.common.len().saturating_sub(MAX_COMMON);
        self.common.drain(..excess);
        news
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use automerge::ROOT;
    use automerge::transaction::Transactable;

    use super::*;

    /// Two branches of which a sample shows one: whoever had the other already got it again from its start, every time.
    #[test]
    fn a_question_names_what_came_last_though_it_was_known() {
        let edit = |doc: &mut Automerge, value: i64| {
            doc.transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "n", value)).expect("an edit");
            doc.get_heads()
        };
        let mut doc = Automerge::new();
        edit(&mut doc, 0);
        let mut other = doc.fork();
        let branches =
            [(1..9).map(|n| edit(&mut doc, n)).collect::<Vec<_>>(), (1..9).map(|n| edit(&mut other, n)).collect()];
        doc.merge(&mut other).expect("one origin");
        edit(&mut doc, 9);
        let ours = Heads::new(doc.get_heads());
        let sample = history::sample(&doc, &ours);
        let shown = |branch: &&Vec<Vec<ChangeHash>>| branch.iter().flatten().any(|hash| sample.contains(hash));
        let hidden = branches.iter().find(|branch| !shown(branch)).expect("one branch is sampled");

        let mut exchange = Exchange::unknown();
        for frontier in &hidden[2..5] {
            exchange.took(Brought::UpTo(Heads::new(frontier.clone())));
            let hints = std::mem::take(&mut exchange.hints);
            assert!(exchange.confirm(hints), "news");
            let named = exchange.samples(&doc, &ours);
            assert!(frontier.iter().all(|hash| named.contains(hash)), "what is sent next begins behind it");
        }
        assert_eq!(exchange.theirs(), None, "that they have more is not excluded");
    }
}
