//! Bringing one document to equal heads with a legacy peer, which runs `automerge::sync::State` and keeps it per
//! document and peer.
//!
//! That state cannot be used on our side: it cannot hold back what is not durable, and it stalls when a message is lost.
//! So we speak to it with messages of our own, and rely on these facts about it (Automerge 0.7 to 0.12):
//!
//! * It answers a message unless both sides' heads are equal and it has nothing to send. With unequal heads it answers
//!   every message: only what brings news may be answered, or there is no end.
//! * `have` decides what it sends: the changes behind `last_sync` that are not in the filter, unless it believes to have
//!   sent them. Without `have` it sends what `need` names and nothing else.
//! * A `last_sync` that it does not know has it answer with its heads alone (a *reset*): empty `have`, no changes.
//! * A message without heads makes it forget what it believes to have sent.
//! * A tail of capabilities allows it the second message version, with whole documents as one chunk.
//! * Two messages can overtake each other, for each has a stream of its own.
//!
//! ```text
//!   opening   heads, last_sync = our heads     who is equal says so, who is ahead sends what we lack, others reset
//!   data      the changes that they lack, and heads that show them
//!   question  as opening; if that was in vain with a filter of all that we have; if that was, without heads
//!   snapshot  the whole document, which is never answered
//! ```
//!
//! What is not answered in time climbs a ladder: said again, without heads, snapshot, and then the document is parked
//! until either side's heads move.

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash, ReadDoc};
use bytes::Bytes;

use crate::doc::document::{Document, Live};
use crate::doc::{View, history};
use crate::heads::Heads;
use crate::marker::Marker;
use crate::wire::v0::{Bloom, Delta, Have, Version};

/// Hashes that are remembered as common to both sides, and that are taken from a message; the newest are kept.
const MAX_COMMON: usize = 64;

/// The capabilities that Automerge announces: both message versions.
const BOTH_VERSIONS: Bytes = Bytes::from_static(&[2, 1, 2]);

/// What we know about the other side's copy of one document, while the two differ.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The heads that it last named.
    theirs: Option<Heads>,
    /// Changes that it is known to have, because it said so.
    common: Vec<ChangeHash>,
    /// Changes that it says it has, and that may be strange to us.
    hints: Vec<ChangeHash>,
    /// Changes that it asks for by name.
    need: Vec<ChangeHash>,
    /// The frontier that it will have when everything that was sent has arrived.
    ahead: Vec<ChangeHash>,
    /// It asked something that has not been answered.
    asked: bool,
    /// What an answer is awaited to.
    awaiting: Option<Word>,
    /// The last question, and our heads as it was asked.
    question: Option<(Question, Heads)>,
    rung: Rung,
    /// Both heads when the document was parked.
    parked: Option<(Heads, Option<Heads>)>,
    /// The place in the connection's queue, if it has something to say.
    pub(crate) queued: Option<u64>,
    /// What we have to say is our own initiative, not an answer.
    pub(crate) initiates: bool,
    /// Our heads moved since the exchange began.
    changed: bool,
    /// Hops that the batch may still travel that we pass this on for.
    pub(crate) hops: Option<u8>,
}

/// What was said last and expects an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Question(Question),
    Data,
    Snapshot,
    /// Nothing was said: there was no room for what it sent.
    Later,
}

/// How what we lack is asked for, each more costly than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    /// What is behind our heads?
    Opening,
    /// What is behind what we have in common, and not in this filter?
    Filter,
    /// What is there at all?
    Everything,
}

/// How far the ladder was climbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Rung {
    #[default]
    Normal,
    Reset,
    Snapshot,
    Parked,
}

/// What may pass, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Whether our changes go to this peer.
    pub(crate) sends: bool,
    /// Whether its changes are taken.
    pub(crate) takes: bool,
    /// Whether our own initiative is a snapshot, as legacy peers have it for this collection.
    pub(crate) snapshots: bool,
    /// Bytes of changes in one message, unless a single one is larger.
    pub(crate) piece: usize,
    /// Most bytes of a snapshot.
    pub(crate) largest: usize,
}

/// What an exchange does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Both sides are equal: forget the exchange.
    Settled,
    /// The last word, then as `Settled`.
    SayAndSettle(Message),
    /// Say this; an answer is awaited. With `more`, there is more to say at once.
    Say { message: Message, more: bool },
    /// Nothing, until something arrives or the deadline passes.
    Wait,
    /// Nothing, until either side's heads move.
    Park,
    /// The document's content has to be in memory first.
    NeedContent,
    /// A saved form has to be prepared first.
    NeedSaved,
    /// There is nothing to be done about this document now.
    Hopeless,
}

#[derive(Debug)]
pub(crate) enum Message {
    Delta(Delta),
    Snapshot(Bytes),
    Tombstone(Marker),
}

impl Exchange {
    /// About a document of which the other side's copy is unknown.
    pub(crate) fn unknown() -> Self {
        Self::default()
    }

    /// About a document of which the other side has just this.
    pub(crate) fn at(theirs: Heads) -> Self {
        Self { common: theirs.as_slice().to_vec(), theirs: Some(theirs), ..Self::default() }
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        self.awaiting.is_some()
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Takes in what the other side said, given what we have. True if it may be answered: it is equal, or brought news.
    pub(crate) fn heard(&mut self, delta: &Delta, ours: &Heads) -> bool {
        let theirs = Heads::new(delta.heads.clone());
        let moved = self.theirs.as_ref() != Some(&theirs);
        let blank = |have: &Have| have.last_sync.is_empty() && have.bloom == Bloom::default();
        let resets = !theirs.is_empty() && delta.changes.is_empty() && matches!(&*delta.have, [have] if blank(have));
        let answers =
            matches!(self.awaiting, Some(Word::Question(_))) && (moved || resets || !delta.changes.is_empty());
        if resets {
            // It may have forgotten what it had.
            self.common.clear();
        }
        let news = moved || answers || !delta.changes.is_empty();
        let may_answer = news || theirs == *ours;
        if news {
            (self.rung, self.parked) = (Rung::Normal, None);
        }
        if answers || (news && self.ahead.is_empty()) {
            self.stop_waiting();
        }
        let asks = !delta.have.is_empty() || !delta.changes.is_empty() || !delta.need.is_empty();
        self.asked |= may_answer && asks;
        // What it named before it may have named behind this: messages overtake each other.
        let before = self.theirs.iter().flat_map(|heads| heads.as_slice().iter());
        let hints = delta.have.iter().flat_map(|have| &have.last_sync).chain(before);
        self.hints = hints.take(MAX_COMMON).copied().collect();
        self.need = delta.need.iter().take(MAX_COMMON).copied().collect();
        self.theirs = Some(theirs);
        may_answer
    }

    /// Takes in that a snapshot arrived, of a document with these heads. It asks for nothing.
    pub(crate) fn heard_snapshot(&mut self, theirs: Heads) {
        if self.theirs.as_ref() != Some(&theirs) {
            (self.rung, self.parked) = (Rung::Normal, None);
            self.stop_waiting();
        }
        self.theirs = Some(theirs);
    }

    /// Our heads moved.
    pub(crate) fn moved(&mut self) {
        (self.rung, self.parked) = (Rung::Normal, None);
        (self.initiates, self.changed) = (true, true);
    }

    /// What was said went unanswered: up the ladder.
    pub(crate) fn give_up_waiting(&mut self) {
        self.rung = match self.rung {
            rung if self.awaiting == Some(Word::Later) => rung,
            Rung::Normal => Rung::Reset,
            Rung::Reset => Rung::Snapshot,
            Rung::Snapshot | Rung::Parked => Rung::Parked,
        };
        self.stop_waiting();
    }

    /// What the other side sent could not be taken in now: it is asked for again later.
    pub(crate) fn put_off(&mut self) {
        self.stop_waiting();
        self.awaiting = Some(Word::Later);
    }

    /// What was said may not have arrived, through no fault of the other side: it is said again.
    pub(crate) fn say_again(&mut self) {
        self.stop_waiting();
        self.question = None;
        self.initiates = true;
    }

    /// Gives the document up until either side's heads move.
    pub(crate) fn give_up(&mut self, ours: &Heads) {
        self.stop_waiting();
        self.rung = Rung::Parked;
        let _ = self.park(ours);
    }

    /// Tries again what was given up.
    pub(crate) fn unpark(&mut self) {
        (self.rung, self.parked, self.question) = (Rung::Normal, None, None);
        self.initiates = true;
    }

    fn stop_waiting(&mut self) {
        self.awaiting = None;
        self.ahead.clear();
    }

    /// Decides what to do, and assumes that it is done.
    pub(crate) fn step(&mut self, view: &View<'_>, terms: &Terms) -> Step {
        let none = Heads::NONE;
        let ours = match view {
            View::Unreadable | View::Buried(None) => return Step::Hopeless,
            View::Buried(Some(marker)) => return Step::SayAndSettle(Message::Tombstone((*marker).clone())),
            View::Absent => &none,
            View::Cold(document) | View::Live(document, _) => &document.offered,
        };
        let initiates = std::mem::take(&mut self.initiates);
        let Some(theirs) = self.theirs.clone() else {
            return match view {
                _ if self.is_waiting() || self.is_parked() => Step::Wait,
                _ if ours.is_empty() || !terms.sends => Step::Hopeless,
                _ if terms.snapshots && self.changed && self.rung == Rung::Normal => push(view),
                _ => match self.rung {
                    // Silence may mean that both are equal, and that the first answer was lost.
                    Rung::Normal | Rung::Reset => self.ask(ours, Question::Opening, opening(ours), Vec::new()),
                    Rung::Snapshot => self.snapshot(view, terms),
                    Rung::Parked => self.park(ours),
                },
            };
        };
        if theirs == *ours {
            return if std::mem::take(&mut self.asked) {
                Step::SayAndSettle(Message::Delta(statement(ours)))
            } else {
                Step::Settled
            };
        }
        if self.parked.as_ref().is_some_and(|(mine, its)| mine == ours && its.as_ref() == Some(&theirs)) {
            return Step::Wait;
        }
        match self.rung {
            Rung::Parked => return self.park(ours),
            Rung::Snapshot if terms.sends && !ours.is_empty() && !self.is_waiting() => {
                return self.snapshot(view, terms);
            }
            Rung::Snapshot if !self.is_waiting() => return self.park(ours),
            Rung::Reset if terms.takes && !self.is_waiting() => return self.ask_everything(),
            Rung::Normal | Rung::Reset | Rung::Snapshot => {}
        }
        if ours.is_empty() {
            return match terms.takes {
                false => Step::Hopeless,
                true if self.is_waiting() => Step::Wait,
                true => self.ask_everything(),
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
        let (known, unknown): (Vec<_>, Vec<_>) = theirs.as_slice().iter().copied().partition(shown);
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
        if missing.is_empty() {
            self.asked = false;
            return match (behind, self.is_waiting()) {
                (_, true) => Step::Wait,
                (true, false) => self.ask_for(ours, doc, &held, unknown),
                (false, false) if !terms.sends => Step::Settled,
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
            Some(Question::Filter | Question::Everything) => self.ask_everything(),
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
    fn ask_everything(&mut self) -> Step {
        self.awaiting = Some(Word::Question(Question::Everything));
        // It takes us for empty until it is told otherwise.
        self.asked = true;
        let delta = Delta { have: vec![Have::default()], tail: BOTH_VERSIONS, ..Delta::default() };
        Step::Say { message: Message::Delta(delta), more: false }
    }

    /// Says the whole document, and waits for a word of the other side's own.
    fn snapshot(&mut self, view: &View<'_>, terms: &Terms) -> Step {
        match push(view) {
            Step::SayAndSettle(Message::Snapshot(saved)) if saved.len() <= terms.largest => {
                self.awaiting = Some(Word::Snapshot);
                Step::Say { message: Message::Snapshot(saved), more: false }
            }
            Step::SayAndSettle(_) => {
                self.rung = Rung::Parked;
                Step::Park
            }
            other => other,
        }
    }

    fn park(&mut self, ours: &Heads) -> Step {
        self.asked = false;
        self.parked = Some((ours.clone(), self.theirs.clone()));
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
pub(crate) fn statement(ours: &Heads) -> Delta {
    Delta { heads: ours.as_slice().to_vec(), ..Delta::default() }
}

/// Says that we have all that is behind these heads.
fn opening(heads: &Heads) -> Have {
    Have { last_sync: heads.as_slice().to_vec(), bloom: Bloom::default() }
}
