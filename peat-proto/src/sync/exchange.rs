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
//! ```

use std::collections::BTreeSet;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::doc::document::{Document, Live};
use crate::doc::{View, history};
use crate::heads::Heads;
use crate::time::Time;
use crate::wire::{Delta, Have};

/// Hashes that are remembered as common to both sides; the newest are kept.
const MAX_COMMON: usize = 64;

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
    /// It sent changes whose receipt has not been confirmed.
    owes: bool,
    /// When what was said is said again.
    pub(crate) deadline: Option<Time>,
    /// How often it was said without an answer.
    pub(crate) tries: u32,
    /// The place in the connection's queue, if it has something to say.
    pub(crate) queued: Option<u64>,
}

/// What an exchange does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Both sides are equal: forget the exchange.
    Settled,
    /// The last word, then as `Settled`.
    SayAndSettle(Delta),
    /// Say this. With `more`, there is more to say at once; with `expects`, an answer must follow.
    Say { message: Message, expects: bool, more: bool },
    /// Nothing, until something arrives or the deadline passes.
    Wait,
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
        self.deadline.is_some()
    }

    /// Takes in what the other side said.
    pub(crate) fn heard(&mut self, delta: &Delta) {
        let theirs = Heads::new(delta.heads.clone());
        if self.theirs.as_ref() != Some(&theirs) {
            self.tries = 0;
            if self.ahead.is_empty() {
                // They moved; what was asked for is asked anew if it did not come with this.
                self.deadline = None;
            }
        }
        self.asked |= !delta.have.is_empty();
        self.owes |= !delta.changes.is_empty();
        self.hints = delta.have.iter().flat_map(|have| &have.last_sync).take(MAX_COMMON).copied().collect();
        self.theirs = Some(theirs);
    }

    /// Takes in that a snapshot arrived, of a document with these heads.
    pub(crate) fn heard_snapshot(&mut self, heads: Option<Heads>) {
        self.owes = true;
        if self.theirs.is_none() {
            self.theirs = heads;
        }
    }

    /// What was said went unanswered: forget what was hoped for.
    pub(crate) fn give_up_waiting(&mut self) {
        self.deadline = None;
        self.tries = self.tries.saturating_add(1);
        self.ahead.clear();
    }

    /// Decides what to do, and assumes that it is done.
    pub(crate) fn step(&mut self, view: &View<'_>, frame_bytes: usize, snapshot_bytes: usize) -> Step {
        let none = Heads::NONE;
        let ours = match view {
            View::Unreadable | View::Buried(_) => return Step::Hopeless,
            View::Absent => &none,
            View::Cold(document) | View::Live(document, _) => &document.offered,
        };
        let theirs = match self.theirs.clone() {
            Some(theirs) if theirs == *ours => return self.settle(ours),
            Some(theirs) => theirs,
            None if self.is_waiting() => return self.acknowledge(ours),
            None => return self.ask(ours, Vec::new(), Vec::new()),
        };
        match view {
            _ if ours.is_empty() && self.is_waiting() => self.acknowledge(ours),
            _ if ours.is_empty() => self.ask(ours, theirs.as_slice().to_vec(), Vec::new()),
            View::Live(document, live) => self.compare(document, live, &theirs, frame_bytes, snapshot_bytes),
            _ if self.is_waiting() && !self.asked && self.ahead == ours.as_slice() => self.acknowledge(ours),
            _ => Step::NeedContent,
        }
    }

    fn compare(
        &mut self,
        document: &Document,
        live: &Live,
        theirs: &Heads,
        frame_bytes: usize,
        snapshot_bytes: usize,
    ) -> Step {
        let (ours, doc) = (&document.offered, &live.doc);
        let held: BTreeSet<ChangeHash> = document.local().iter().map(|change| change.hash).collect();
        let unheld = |hash: &ChangeHash| !held.contains(hash);
        let shown = |hash: &ChangeHash| history::knows(doc, hash) && unheld(hash);
        let (known, unknown): (Vec<_>, Vec<_>) = theirs.as_slice().iter().copied().partition(shown);
        let mut hints = std::mem::take(&mut self.hints);
        hints.retain(shown);
        self.confirm(hints);
        self.confirm(known.into_iter().take(MAX_COMMON).collect());
        let mut base = self.common.clone();
        base.extend(self.ahead.iter().filter(|hash| history::knows(doc, hash)));
        let strangers = base.is_empty() && !theirs.is_empty();
        if strangers && !self.asked {
            // Nothing in common that we know of: let them say what they have before all of ours is sent.
            return if self.is_waiting() {
                self.acknowledge(ours)
            } else {
                self.ask(ours, unknown, history::sample(doc, ours))
            };
        }
        let covered = ours.as_slice().iter().all(|head| base.contains(head));
        let missing = if covered { Vec::new() } else { doc.get_changes(&base) };
        let missing: Vec<_> = missing.iter().filter(|change| unheld(&change.hash())).collect();
        if missing.is_empty() {
            return match (unknown.is_empty(), self.is_waiting()) {
                (_, true) => self.acknowledge(ours),
                (false, false) => self.ask(ours, unknown, history::sample(doc, ours)),
                // They have, or will have, all of ours, and named heads that lie behind them.
                (true, false) => self.ask(ours, Vec::new(), Vec::new()),
            };
        }
        let total = automerge::ReadDoc::stats(doc).num_changes;
        let most = missing.len() as u64;
        if most > 4 && most.saturating_mul(3) > total {
            match &live.prepared {
                Some((_, saved)) if saved.len() > snapshot_bytes => {}
                Some((at, saved)) if at == ours || self.ahead.is_empty() => {
                    self.ahead = at.as_slice().to_vec();
                    self.owes = false;
                    let more = at != ours;
                    return Step::Say { message: Message::Snapshot(saved.clone()), expects: true, more };
                }
                _ => return Step::NeedSaved,
            }
        }
        let mut frontier = Heads::new(base);
        let mut changes = Vec::new();
        let mut size = 0;
        for change in &missing {
            let bytes = change.raw_bytes();
            if size > 0 && size + bytes.len() > frame_bytes {
                break;
            }
            size += bytes.len();
            frontier = frontier.advanced([(change.hash(), change.deps())]);
            changes.push(Bytes::copy_from_slice(bytes));
        }
        let more = changes.len() < missing.len();
        self.ahead = if more { frontier.as_slice().to_vec() } else { ours.as_slice().to_vec() };
        let asks = !unknown.is_empty() && !self.is_waiting();
        let have = if asks { vec![have(history::sample(doc, ours))] } else { Vec::new() };
        (self.asked, self.owes) = (false, false);
        let delta = Delta { need: unknown, have, changes, ..statement(ours) };
        Step::Say { message: Message::Delta(delta), expects: true, more }
    }

    fn settle(&mut self, ours: &Heads) -> Step {
        if self.asked || self.owes { Step::SayAndSettle(statement(ours)) } else { Step::Settled }
    }

    /// Says our heads if the other side waits for them, and nothing otherwise.
    fn acknowledge(&mut self, ours: &Heads) -> Step {
        let due = self.owes || (self.asked && self.ahead.is_empty());
        (self.asked, self.owes) = (false, false);
        if due {
            Step::Say { message: Message::Delta(statement(ours)), expects: self.is_waiting(), more: false }
        } else {
            Step::Wait
        }
    }

    fn ask(&mut self, ours: &Heads, need: Vec<ChangeHash>, sample: Vec<ChangeHash>) -> Step {
        (self.asked, self.owes) = (false, false);
        let delta = Delta { need, have: vec![have(sample)], ..statement(ours) };
        Step::Say { message: Message::Delta(delta), expects: true, more: false }
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

/// A message that says what we have and wants no answer.
pub(crate) fn statement(ours: &Heads) -> Delta {
    Delta { heads: ours.as_slice().to_vec(), ..Delta::default() }
}

/// A list that is present asks for an answer, as in Automerge's own protocol; the filter stays empty.
fn have(sample: Vec<ChangeHash>) -> Have {
    Have { last_sync: sample, ..Have::default() }
}
