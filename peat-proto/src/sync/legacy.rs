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
//! What is not answered in time climbs a ladder: without heads, snapshot, opening once more, and then the document is
//! parked until either side's heads move.

use automerge::ChangeHash;
use bytes::Bytes;

use crate::heads::Heads;
use crate::marker::Marker;
use crate::wire::v0::{Bloom, Delta, Have};

mod step;

/// Hashes that are remembered as common to both sides, and that are taken from a message; the newest are kept.
const MAX_COMMON: usize = 64;

/// What we know about the other side's copy of one document, while the two differ.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// The heads that it last named.
    theirs: Option<Heads>,
    /// Changes that it is known to have, because it said so.
    common: Vec<ChangeHash>,
    /// Changes that it says it has, and that may be strange to us.
    hints: Vec<ChangeHash>,
    /// Heads that it named before the last ones and that we do not have: messages overtake each other.
    named: Vec<ChangeHash>,
    /// Changes that it asks for by name.
    need: Vec<ChangeHash>,
    /// The frontier that it will have when everything that was sent has arrived.
    ahead: Vec<ChangeHash>,
    /// It asked something that has not been answered.
    asked: bool,
    /// Something that it sent was not taken in for want of room, and has not come again.
    owes: bool,
    /// What an answer is awaited to.
    awaiting: Option<Word>,
    /// The last question, and our heads as it was asked.
    question: Option<(Question, Heads)>,
    rung: Rung,
    /// Words in a row that went unanswered.
    tries: u32,
    /// How often the document was parked since something last moved.
    parks: u32,
    /// Our heads when the whole document was last sent by the ladder: the same is not sent twice.
    whole: Option<Heads>,
    /// Our heads when the document was parked; theirs have not moved since.
    parked: Option<Heads>,
    /// The place in the connection's queue, if it has something to say.
    pub(crate) queued: Option<u64>,
    /// What we have to say is our own initiative, not an answer.
    pub(crate) initiates: bool,
    /// Our heads moved since the exchange began.
    changed: bool,
    /// Hops that the last batch with news of this may still travel from here.
    pub(crate) came: Option<u8>,
    /// Hops that the batch may still travel that we pass this on for.
    pub(crate) hops: Option<u8>,
}

/// What was said last and expects an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Question(Question),
    Data,
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
    /// After the snapshot, which nobody answers.
    Last,
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

    /// Whether nothing that the other side named is missing here.
    pub(crate) fn is_certain(&self) -> bool {
        self.named.is_empty()
    }

    /// Words in a row that went unanswered.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// How often the document was parked since something last moved.
    pub(crate) fn parks(&self) -> u32 {
        self.parks
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Hashes that are kept because the other side named them.
    pub(crate) fn names(&self) -> usize {
        let theirs = self.theirs.as_ref().map_or(0, Heads::len);
        theirs + self.named.len() + self.hints.len() + self.need.len()
    }

    /// How many they are at most once this was heard.
    pub(crate) fn names_after(&self, delta: &Delta) -> usize {
        let theirs = self.theirs.as_ref().map_or(&[][..], Heads::as_slice);
        let before = if theirs == delta.heads { 0 } else { theirs.len() };
        let hints: usize = delta.have.iter().map(|have| have.last_sync.len()).sum();
        let short = [self.named.len() + before, hints, delta.need.len()];
        delta.heads.len() + short.iter().map(|len| len.min(&MAX_COMMON)).sum::<usize>()
    }

    /// Takes in what the other side said, given what we have. True if it may be answered: it is equal, or brought news.
    pub(crate) fn heard(&mut self, delta: &Delta, ours: &Heads) -> bool {
        let theirs = Heads::new(delta.heads.clone());
        let moved = self.theirs.as_ref() != Some(&theirs);
        let blank = |have: &Have| have.last_sync.is_empty() && have.bloom == Bloom::default();
        let resets = delta.changes.is_empty() && matches!(&*delta.have, [have] if blank(have));
        let brings = !delta.changes.is_empty();
        let news = moved || brings || (resets && self.awaiting == Some(Word::Question(Question::Opening)));
        // What crosses a question on its way is no answer to it.
        let answers = match self.awaiting {
            None => true,
            Some(Word::Question(Question::Opening)) => resets,
            Some(Word::Question(Question::Filter)) => resets && !self.common.is_empty(),
            Some(Word::Question(Question::Everything)) => moved,
            Some(Word::Data) => self.ahead.iter().all(|hash| theirs.contains(hash)),
            Some(Word::Later) => news,
        };
        if resets {
            // It may have forgotten what it had.
            self.common.clear();
        }
        let may_answer = news || theirs == *ours;
        if news {
            self.begin_anew();
        }
        if answers {
            self.stop_waiting();
        }
        let asks = !delta.have.is_empty() || !delta.changes.is_empty() || !delta.need.is_empty();
        self.asked |= may_answer && asks;
        if moved && let Some(before) = self.theirs.take() {
            self.named.extend(before.as_slice().iter().filter(|hash| !self.common.contains(hash)));
            let excess = self.named.len().saturating_sub(MAX_COMMON);
            self.named.drain(..excess);
        }
        self.hints = delta.have.iter().flat_map(|have| &have.last_sync).take(MAX_COMMON).copied().collect();
        self.need = delta.need.iter().take(MAX_COMMON).copied().collect();
        self.theirs = Some(theirs);
        may_answer
    }

    /// What the other side sent has been applied. If it got us further, it answered what we asked.
    pub(crate) fn applied(&mut self, ours: &Heads) {
        // What was taken in before there was no room is not what there was no room for.
        self.owes &= self.awaiting == Some(Word::Later);
        let further = self.question.as_ref().is_some_and(|(_, at)| at != ours);
        if further && matches!(self.awaiting, Some(Word::Question(_))) {
            self.stop_waiting();
        }
    }

    /// Takes in that a snapshot arrived, of a document with these heads. It asks for nothing.
    pub(crate) fn heard_snapshot(&mut self, theirs: Heads) {
        if self.theirs.as_ref() != Some(&theirs) {
            self.begin_anew();
            self.stop_waiting();
        }
        self.theirs = Some(theirs);
    }

    /// Our heads moved.
    pub(crate) fn moved(&mut self) {
        self.begin_anew();
        (self.initiates, self.changed) = (true, true);
    }

    /// What was said went unanswered: up the ladder.
    pub(crate) fn give_up_waiting(&mut self) {
        self.tries = self.tries.saturating_add(1);
        self.rung = match self.rung {
            rung if self.awaiting == Some(Word::Later) => rung,
            Rung::Normal => Rung::Reset,
            Rung::Reset => Rung::Snapshot,
            Rung::Snapshot | Rung::Last | Rung::Parked => Rung::Parked,
        };
        self.stop_waiting();
    }

    /// What the other side sent could not be taken in now: it is asked for again later.
    pub(crate) fn put_off(&mut self) {
        self.stop_waiting();
        self.owes = true;
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
        // What there was no room for while it was parked waits no longer either.
        self.stop_waiting();
        (self.rung, self.parked, self.question) = (Rung::Normal, None, None);
        self.initiates = true;
    }

    /// Something moved: the ladder is climbed from its foot, without patience learnt before.
    fn begin_anew(&mut self) {
        (self.rung, self.parked) = (Rung::Normal, None);
        (self.tries, self.parks) = (0, 0);
    }

    fn stop_waiting(&mut self) {
        self.awaiting = None;
        self.ahead.clear();
    }
}
