//! Finding out which documents differ, on the interim wire: digests of the whole sets first, a list of heads if they
//! differ, digests again when the dust has settled.

use std::time::Duration;

use crate::id::DocId;
use crate::policy::Class;
use crate::time::Time;
use crate::wire::Summary;

/// One connection's view of the two document sets.
#[derive(Debug)]
pub(crate) struct Survey {
    /// What the other side last said.
    pub(crate) got: Option<Summary>,
    /// The digest that it was last told.
    said: Option<[u8; 32]>,
    /// When it is told again.
    pub(crate) due: Option<Time>,
    pub(crate) listing: Option<Listing>,
    /// Digests were equal once, or all of ours was listed: since then the other side is told of everything that is new.
    pub(crate) surveyed: bool,
    /// The last event said that both sides are level.
    pub(crate) level: bool,
    /// Rounds that ended in difference, in a row.
    rounds: u32,
}

/// The list of heads under way: a cursor over the index, so that no backlog is held in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// For each class, the last document listed; `None` for a class that has not begun.
    behind: [Option<DocId>; 5],
    done: [bool; 5],
    /// The other side has nothing at all: send data at once.
    pub(crate) push: bool,
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self { got: None, said: None, due: None, listing: None, surveyed: false, level: false, rounds: 0 }
    }

    /// Whether the other side last had the same set as we have now.
    pub(crate) fn is_level(&self, ours: &[u8; 32]) -> bool {
        self.got.as_ref().is_some_and(|got| got.digest == *ours)
    }

    /// Whether each side is known to know that both are equal.
    fn is_proven(&self, ours: &[u8; 32]) -> bool {
        self.is_level(ours) && self.said.as_ref() == Some(ours)
    }

    /// The digest to say now.
    pub(crate) fn say(&mut self, documents: u64, digest: [u8; 32]) -> Summary {
        self.due = None;
        self.said = Some(digest);
        Summary { documents, digest, seen: self.got.as_ref().map(|got| got.digest) }
    }

    /// Takes in what the other side said; `busy` while documents are being exchanged.
    pub(crate) fn heard(&mut self, summary: Summary, ours: &[u8; 32], now: Time, busy: bool) {
        let repeated = self.got.as_ref() == Some(&summary);
        let unseen = summary.seen.as_ref() != Some(ours);
        if unseen && (self.said.as_ref() != Some(ours) || repeated) {
            self.due = Some(now);
        }
        if summary.digest == *ours {
            self.surveyed = true;
            self.rounds = 0;
            self.listing = None;
        } else if !busy && self.listing.is_none() {
            self.listing = Some(Listing { push: summary.documents == 0, ..Listing::default() });
        }
        self.got = Some(summary);
    }

    /// Nothing is left to exchange: compare digests again after a while, ever more rarely while they differ.
    pub(crate) fn rest(&mut self, ours: &[u8; 32], now: Time, settle: Duration, longest: Duration) {
        if self.due.is_none() && !self.is_proven(ours) {
            let wait = if self.said.as_ref() == Some(ours) {
                self.rounds = self.rounds.saturating_add(1);
                settle.saturating_mul(4).saturating_mul(1 << self.rounds.min(16)).min(longest)
            } else {
                self.rounds = 0;
                settle
            };
            self.due = Some(now + wait);
        } else if self.is_proven(ours) {
            self.due = None;
        }
    }

    /// Something may have been lost on the way here: say what we have, soon.
    pub(crate) fn doubt(&mut self, now: Time, settle: Duration) {
        self.said = None;
        self.due = Some(self.due.map_or(now + settle, |due| due.min(now + settle)));
    }
}

impl Listing {
    pub(crate) fn waits(&self, class: Class) -> bool {
        !self.done[class.index()]
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.iter().all(|done| *done)
    }

    pub(crate) fn behind(&self, class: Class) -> Option<&DocId> {
        self.behind[class.index()].as_ref()
    }

    pub(crate) fn advance(&mut self, class: Class, to: DocId) {
        self.behind[class.index()] = Some(to);
    }

    pub(crate) fn finish(&mut self, class: Class) {
        self.done[class.index()] = true;
    }
}
