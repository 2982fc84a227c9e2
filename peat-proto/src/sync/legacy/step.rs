//! What is said next about a document.

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash, ReadDoc};
use bytes::Bytes;

use super::{Exchange, MAX_COMMON, Message, Question, Rung, Step, Terms, Word};
use crate::doc::document::{Document, Live};
use crate::doc::{View, history};
use crate::heads::Heads;
use crate::wire::v0::{Bloom, Delta, Have, Version};

/// The capabilities that Automerge announces: both message versions.
const BOTH_VERSIONS: Bytes = Bytes::from_static(&[2, 1, 2]);

impl Exchange {
    /// Decides what to do, and assumes that it is done.
    pub(crate) fn step(&mut self, view: &View<'_>, terms: &Terms) -> Step {
        let none = Heads::NONE;
        let ours = match view {
            View::Unreadable | View::Buried(None) => return Step::Hopeless,
            View::Buried(Some(marker)) if terms.sends => {
                return Step::SayAndSettle(Message::Tombstone((*marker).clone()));
            }
            // Its marker does not go there: all that can be said, to who asks, is that there is nothing.
            View::Buried(Some(_)) => return self.settle(&none),
            View::Absent => &none,
            View::Cold(document) | View::Stored(document, _) | View::Live(document, _) => &document.offered,
        };
        // A whole ladder in vain: a fielded peer that holds both for equal answers nothing. What it forgot comes with its next
        // connection.
        self.owes &= self.rung != Rung::Parked;
        let unaware = self.theirs.as_ref().is_none_or(|theirs| theirs == ours);
        if self.owes && unaware && terms.takes {
            // Nothing tells us of it any more: who pushed it believes that we have it, and does not push it again.
            return match ours.is_empty() {
                _ if self.is_waiting() => Step::Wait,
                true => self.ask_everything(ours),
                false => self.ask(ours, Question::Opening, opening(ours), Vec::new()),
            };
        }
        let initiates = std::mem::take(&mut self.initiates);
        let Some(theirs) = self.theirs.clone() else {
            return match view {
                _ if self.is_waiting() || self.is_parked() => Step::Wait,
                _ if ours.is_empty() || !terms.sends => Step::Hopeless,
                _ if terms.snapshots && self.changed && self.rung == Rung::Normal => push(view),
                _ => match self.rung {
                    // Silence may mean that both are equal, and that the first answer was lost.
                    Rung::Normal | Rung::Reset | Rung::Last => {
                        self.ask(ours, Question::Opening, opening(ours), Vec::new())
                    }
                    Rung::Snapshot => self.snapshot(ours, view, terms),
                    Rung::Parked => self.park(ours),
                },
            };
        };
        if theirs == *ours && self.named.is_empty() {
            return self.settle(ours);
        }
        if self.parked.as_ref() == Some(ours) {
            return Step::Wait;
        }
        match self.rung {
            Rung::Parked => return self.park(ours),
            Rung::Snapshot if terms.sends && !ours.is_empty() && !self.is_waiting() => {
                return self.snapshot(ours, view, terms);
            }
            Rung::Snapshot if !self.is_waiting() => return self.park(ours),
            Rung::Last if !self.is_waiting() => return self.ask(ours, Question::Opening, opening(ours), Vec::new()),
            Rung::Reset if terms.takes && !self.is_waiting() => return self.ask_everything(ours),
            Rung::Normal | Rung::Reset | Rung::Snapshot | Rung::Last => {}
        }
        if ours.is_empty() {
            return match terms.takes {
                false => Step::Hopeless,
                true if self.is_waiting() => Step::Wait,
                true => self.ask_everything(ours),
            };
        }
        match view {
            View::Live(document, live) => self.compare(document, live, &theirs, terms, initiates),
            _ if self.is_waiting() && !self.asked && self.ahead == ours.as_slice() => Step::Wait,
            _ => {
                self.initiates = initiates;
                Step::NeedContent
            }
        }
    }

    fn compare(&mut self, document: &Document, live: &Live, theirs: &Heads, terms: &Terms, initiates: bool) -> Step {
        let (ours, doc) = (&document.offered, &live.doc);
        let held: BTreeSet<ChangeHash> = document.local().iter().map(|change| change.hash).collect();
        let shown = |hash: &ChangeHash| !held.contains(hash) && history::knows(doc, hash);
        let named = theirs.as_slice().iter().copied().chain(std::mem::take(&mut self.named));
        let (known, mut unknown): (Vec<_>, Vec<_>) = named.partition(shown);
        self.named = unknown.iter().filter(|hash| !theirs.contains(hash)).copied().collect();
        unknown.truncate(MAX_COMMON);
        let mut hints = std::mem::take(&mut self.hints);
        hints.retain(shown);
        self.confirm(hints);
        self.confirm(known);
        let behind = terms.takes && !unknown.is_empty();
        let mut base = self.common.clone();
        base.extend(self.ahead.iter().filter(|hash| shown(hash)));
        let strangers = base.is_empty() && !theirs.is_empty();
        if behind && strangers {
            // They may have all of ours: let them say it before all is sent.
            return self.ask_for(ours, doc, &held, unknown);
        }
        let covered = !terms.sends || ours.as_slice().iter().all(|head| base.contains(head));
        let mut missing = if covered { Vec::new() } else { doc.get_changes(&base) };
        missing.retain(|change| !held.contains(&change.hash()));
        if missing.is_empty() {
            let wanted: Vec<_> =
                std::mem::take(&mut self.need).into_iter().filter(|hash| terms.sends && shown(hash)).collect();
            if !wanted.is_empty() && !self.is_waiting() {
                missing = wanted.iter().filter_map(|hash| doc.get_change_by_hash(hash)).collect();
            }
        }
        if !behind && ours.as_slice().iter().all(|head| self.common.contains(head)) {
            // It said that it has all of ours, and we have all that it named: what it named last was overtaken.
            return self.settle(ours);
        }
        if missing.is_empty() {
            self.asked = false;
            return match (behind, self.is_waiting()) {
                (_, true) => Step::Wait,
                (true, false) => self.ask_for(ours, doc, &held, unknown),
                // What is not sent does not count as equal: it may be sent one day.
                (false, false) if !terms.sends => Step::Hopeless,
                // They have, or will have, all of ours, and named heads that lie behind them.
                (false, false) => self.ask(ours, Question::Opening, opening(ours), Vec::new()),
            };
        }
        let total = doc.stats().num_changes;
        let many = missing.len() > 4 && (missing.len() as u64).saturating_mul(3) > total;
        if many || (terms.snapshots && initiates) {
            match &live.prepared {
                Some((at, saved)) if at == ours && saved.len() <= terms.largest => {
                    let saved = saved.clone();
                    if terms.snapshots && initiates && !behind {
                        return Step::SayAndSettle(Message::Snapshot(saved));
                    }
                    let have = if behind { self.have_for(ours, doc, &held) } else { opening(ours) };
                    let delta = Delta {
                        version: Version::V2,
                        heads: ours.as_slice().to_vec(),
                        need: unknown,
                        have: vec![have],
                        changes: vec![saved],
                        tail: Bytes::new(),
                    };
                    return self.data(delta, ours.as_slice().to_vec(), false);
                }
                Some((at, _)) if at == ours => {}
                Some(_) | None => {
                    self.initiates = initiates;
                    return Step::NeedSaved;
                }
            }
        }
        let mut frontier = Heads::new(base);
        let (mut changes, mut size) = (Vec::new(), 0);
        for change in &missing {
            let bytes = change.raw_bytes();
            if size > 0 && size + bytes.len() > terms.piece {
                break;
            }
            size += bytes.len();
            frontier = frontier.advanced([(change.hash(), change.deps())]);
            changes.push(Bytes::copy_from_slice(bytes));
        }
        let more = changes.len() < missing.len();
        // Heads of which a part is still to come would have them ask for it.
        let heads = if more { frontier } else { ours.clone() };
        let have = if behind { self.have_for(ours, doc, &held) } else { opening(&heads) };
        let ahead = heads.as_slice().to_vec();
        let need = if behind { unknown } else { Vec::new() };
        self.data(Delta { heads: ahead.clone(), need, have: vec![have], changes, ..Delta::default() }, ahead, more)
    }

    /// Ends the exchange, with a word that says so if one is awaited.
    fn settle(&mut self, ours: &Heads) -> Step {
        if self.asked { Step::SayAndSettle(Message::Delta(statement(ours))) } else { Step::Settled }
    }

    fn data(&mut self, delta: Delta, ahead: Vec<ChangeHash>, more: bool) -> Step {
        self.awaiting = Some(Word::Data);
        self.asked = false;
        self.ahead = ahead;
        self.initiates |= more;
        Step::Say { message: Message::Delta(delta), more }
    }

    /// Asks for what we lack, in the cheapest way that was not in vain since our heads last moved.
    fn ask_for(
        &mut self,
        ours: &Heads,
        doc: &Automerge,
        held: &BTreeSet<ChangeHash>,
        unknown: Vec<ChangeHash>,
    ) -> Step {
        if self.is_waiting() {
            return Step::Wait;
        }
        let asked = self.question.as_ref().filter(|(_, at)| at == ours).map(|(question, _)| *question);
        match asked {
            Some(Question::Filter | Question::Everything) => self.ask_everything(ours),
            None if self.common.is_empty() => self.ask(ours, Question::Opening, opening(ours), unknown),
            None | Some(Question::Opening) => {
                let have = self.have_for(ours, doc, held);
                self.ask(ours, Question::Filter, have, unknown)
            }
        }
    }

    /// What we have, behind what both are known to have.
    fn have_for(&self, ours: &Heads, doc: &Automerge, held: &BTreeSet<ChangeHash>) -> Have {
        let mut last_sync = self.common.clone();
        last_sync.sort_unstable();
        if ours.as_slice() == last_sync {
            return opening(ours);
        }
        let mut hashes: Vec<ChangeHash> = doc.get_changes_meta(&last_sync).iter().map(|meta| meta.hash).collect();
        hashes.retain(|hash| !held.contains(hash));
        Have { last_sync, bloom: Bloom::of(&hashes) }
    }

    fn ask(&mut self, ours: &Heads, question: Question, have: Have, need: Vec<ChangeHash>) -> Step {
        self.question = Some((question, ours.clone()));
        self.awaiting = Some(Word::Question(question));
        self.asked = false;
        let delta = Delta { need, have: vec![have], ..statement(ours) };
        Step::Say { message: Message::Delta(delta), more: false }
    }

    /// Asks for all of it. As if we had nothing: so it forgets what it believes to have sent, and may send it whole.
    fn ask_everything(&mut self, ours: &Heads) -> Step {
        self.question = Some((Question::Everything, ours.clone()));
        self.awaiting = Some(Word::Question(Question::Everything));
        // It takes us for empty until it is told otherwise.
        self.asked = true;
        let delta = Delta { have: vec![Have::default()], tail: BOTH_VERSIONS, ..Delta::default() };
        Step::Say { message: Message::Delta(delta), more: false }
    }

    /// Says the whole document, and then asks what came of it.
    fn snapshot(&mut self, ours: &Heads, view: &View<'_>, terms: &Terms) -> Step {
        if self.whole.as_ref() == Some(ours) {
            self.rung = Rung::Last;
            return self.ask(ours, Question::Opening, opening(ours), Vec::new());
        }
        match push(view) {
            Step::SayAndSettle(Message::Snapshot(saved)) if saved.len() <= terms.largest => {
                (self.rung, self.initiates) = (Rung::Last, true);
                self.whole = Some(ours.clone());
                Step::Say { message: Message::Snapshot(saved), more: true }
            }
            Step::SayAndSettle(_) => {
                self.rung = Rung::Parked;
                Step::Park
            }
            other => other,
        }
    }

    pub(super) fn park(&mut self, ours: &Heads) -> Step {
        self.asked = false;
        self.parks = self.parks.saturating_add(1);
        self.parked = Some(ours.clone());
        Step::Park
    }

    /// Notes what the other side is known to have.
    fn confirm(&mut self, known: Vec<ChangeHash>) {
        for hash in known {
            if !self.common.contains(&hash) {
                self.common.push(hash);
            }
        }
        let excess = self.common.len().saturating_sub(MAX_COMMON);
        self.common.drain(..excess);
    }
}

/// The whole document as it may leave, said once.
fn push(view: &View<'_>) -> Step {
    match view {
        View::Live(document, live) => match &live.prepared {
            Some((at, saved)) if *at == document.offered => Step::SayAndSettle(Message::Snapshot(saved.clone())),
            Some(_) | None => Step::NeedSaved,
        },
        _ => Step::NeedContent,
    }
}

/// A message that says what we have and wants no answer.
fn statement(ours: &Heads) -> Delta {
    Delta { heads: ours.as_slice().to_vec(), ..Delta::default() }
}

/// Says that we have all that is behind these heads.
fn opening(heads: &Heads) -> Have {
    Have { last_sync: heads.as_slice().to_vec(), bloom: Bloom::default() }
}
