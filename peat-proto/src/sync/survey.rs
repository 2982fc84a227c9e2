//! What the two sides of a connection have in all: whether it is the same, and who finds out what differs.
//!
//! ```text
//!   Terms   ─►  which scopes go both ways, and which one way
//!   Summary ─►  equal: level, and nothing more is said
//!               one side has nothing: the other sends it all, the important first
//!               else: the side that was dialled asks (sketch, then ranges) for what goes both ways, and the side that
//!               takes asks for what goes one way; without a common key both list names and heads
//! ```
//!
//! When nothing is left to exchange, and some time has passed, summaries are compared again.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::doc::scopes::{ScopeMask, Sum};
use crate::id::DocId;
use crate::io::Role;
use crate::policy::Class;
use crate::reconcile::{Difference, Digest, Item, Symbol};
use crate::sync::compare::{Answering, Asking};
use crate::sync::exclusions::Exclusions;
use crate::sync::terms::{Dealings, Plan};
use crate::time::Time;
use crate::wire::v1::{Subject, Summary, Total};

/// Sketches that may fail in a row before ranges are asked for.
const MAX_FAILURES: u32 = 2;

/// How much rarer comparisons become while more is refused than can be left out: every 8 min in place of 30 s.
const CROWDED: u32 = 16;

/// Symbols that wait to become exchanges. What is found beyond that is found again by the next comparison.
const MAX_FOUND: usize = 16 << 10;

/// One connection's view of the two sets.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) dealings: Dealings,
    /// What the other side last said.
    got: Option<Summary>,
    /// The mark of what it was last told.
    said: Option<[u8; 8]>,
    /// When our terms were last told.
    pub(crate) told: Option<Time>,
    /// When it is told again.
    pub(crate) due: Option<Time>,
    pub(crate) listing: Option<Listing>,
    pub(crate) asking: Option<Asking>,
    pub(crate) answering: Answering,
    /// Documents that differ and are not exchanged yet.
    found: VecDeque<Found>,
    /// Which of them the other side does not have: it may ask for the same again.
    missing: BTreeSet<Symbol>,
    /// What only they have, to be asked for.
    wants: VecDeque<Symbol>,
    inward: Inward,
    pub(crate) excluded: Exclusions,
    /// The last event said that both sides are level.
    pub(crate) level: bool,
    /// Rounds that ended in difference, in a row.
    rounds: u32,
    epoch: u64,
    /// Sketches that failed, in a row.
    failures: u32,
    /// When everything was last sent anew, equal or not.
    anew: Option<Time>,
}

/// A document of ours that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// They have another state of it.
    Changed(Symbol),
    /// They do not have it.
    Missing(Symbol),
}

/// What we know of what they send us only.
#[derive(Debug, Default)]
struct Inward {
    /// The digest of what we had from them in full, as far as we can follow it.
    model: Option<Digest>,
    /// The model is only what we had from anybody when the connection began.
    presumed: bool,
    /// What a comparison under way is about.
    target: Option<Total>,
    /// Asked for, and not there yet.
    awaited: BTreeSet<Symbol>,
    /// Something of it could not be had.
    spoiled: bool,
}

/// What we have, for the other side of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ours {
    pub(crate) shared: Sum,
    pub(crate) outward: Sum,
    /// Of the scopes that they only send; others may have sent it.
    pub(crate) inward: Sum,
}

/// What is to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Start {
    /// To send all of.
    pub(crate) push: ScopeMask,
    /// To list by name.
    pub(crate) names: ScopeMask,
    /// To ask about.
    pub(crate) ask: Option<Subject>,
    /// The other side said the same before: what it was sent did not count there.
    pub(crate) again: bool,
}

/// A list of documents under way: a cursor over the index, so that no backlog is held in memory.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// For each class, the last document listed; `None` for a class that has not begun.
    behind: [Option<DocId>; 5],
    done: [bool; 5],
    /// Scopes of which the other side has nothing at all: contents are sent at once.
    pub(crate) push: ScopeMask,
    /// Scopes of which names and heads are listed.
    pub(crate) names: ScopeMask,
}

impl Survey {
    pub(crate) fn plan(&self) -> Plan {
        self.dealings.plan()
    }

    /// Whether anything of ours may be said about: both sides have said their terms.
    pub(crate) fn is_open(&self) -> bool {
        self.dealings.heard_generation() > 0 && self.dealings.ours().generation > 0
    }

    /// Whether documents flow: the other side has said what it has.
    pub(crate) fn has_heard(&self) -> bool {
        self.got.is_some()
    }

    /// How many documents they have in what goes both ways.
    pub(crate) fn their_count(&self, subject: Subject) -> u64 {
        let got = self.got.as_ref();
        match subject {
            Subject::Shared => got.map_or(0, |got| got.shared.count),
            Subject::OneWay => got.and_then(|got| got.one_way).map_or(0, |total| total.count),
        }
    }

    /// Whether something is being found out or waits to be exchanged.
    pub(crate) fn is_busy(&self) -> bool {
        self.listing.is_some() || self.asking.is_some() || !self.found.is_empty() || !self.wants.is_empty()
    }

    /// Whether both sides have the same of what they share, and each has all of what the other only sends.
    pub(crate) fn is_level(&self, ours: &Ours) -> bool {
        let Some(got) = &self.got else { return false };
        got.shared == total(ours.shared) && !self.lacks_inward(got) && !Self::lacks_outward(got, ours)
    }

    fn lacks_inward(&self, got: &Summary) -> bool {
        let theirs = got.one_way.filter(|theirs| theirs.count > 0);
        theirs.is_some_and(|theirs| self.inward.model.map(Digest::to_bytes) != Some(theirs.digest))
    }

    fn lacks_outward(got: &Summary, ours: &Ours) -> bool {
        ours.outward.count > 0 && got.complete != Some(total(ours.outward).brief())
    }

    /// Whether each side is known to know that both are level.
    fn is_proven(&self, ours: &Ours) -> bool {
        self.is_level(ours) && self.said == Some(self.summary(ours).mark())
    }

    fn summary(&self, ours: &Ours) -> Summary {
        let theirs = self.got.as_ref().and_then(|got| got.one_way).is_some_and(|theirs| theirs.count > 0);
        let complete = self.inward.model.filter(|_| theirs || ours.inward.count > 0).map(|model| {
            let had = Total { count: 0, digest: model.to_bytes() };
            if model == Digest::default() { Summary::NOTHING } else { had.brief() }
        });
        Summary {
            generation: self.dealings.ours().generation,
            heard: self.dealings.heard_generation(),
            shared: total(ours.shared),
            seen: self.got.as_ref().map_or([0; 8], Summary::mark),
            one_way: (ours.outward.count > 0).then(|| total(ours.outward)),
            complete,
        }
    }

    /// What to say of us now.
    pub(crate) fn say(&mut self, ours: &Ours) -> Summary {
        self.due = None;
        if ours.inward.count > 0 {
            self.inward.presume(ours.inward);
        }
        let summary = self.summary(ours);
        self.said = Some(summary.mark());
        summary
    }

    /// The terms of one side changed: everything is compared anew.
    pub(crate) fn restart(&mut self, now: Time) {
        (self.got, self.said) = (None, None);
        (self.listing, self.asking) = (None, None);
        self.found.clear();
        self.missing.clear();
        self.wants.clear();
        self.excluded.clear();
        self.inward.target = None;
        self.due = Some(now);
    }

    /// Whether a summary is about the terms that both sides have last told each other.
    pub(crate) fn is_current(&self, summary: &Summary) -> bool {
        let generations = (self.dealings.heard_generation(), self.dealings.ours().generation);
        (summary.generation, summary.heard) == generations
    }

    /// Takes in what the other side said; `busy` while documents are being exchanged.
    pub(crate) fn heard(&mut self, summary: Summary, ours: &Ours, role: Role, now: Time, busy: bool) -> Start {
        if !self.is_current(&summary) {
            return Start::default();
        }
        let repeated = self.got.as_ref() == Some(&summary);
        let first = self.got.replace(summary).is_none();
        if first {
            self.inward.presume(ours.inward);
        }
        if self.got.as_ref().and_then(|got| got.one_way) == Some(total(ours.inward)) {
            self.inward.confirm(ours.inward.digest);
        }
        let mark = self.summary(ours).mark();
        let Some(got) = &self.got else { return Start::default() };
        if got.seen != mark && (self.said != Some(mark) || repeated) {
            self.due = Some(now);
        }
        if self.is_level(ours) {
            (self.rounds, self.failures) = (0, 0);
            // A comparison that is dropped says nothing of what it was about.
            (self.listing, self.asking, self.inward.target) = (None, None, None);
            return Start::default();
        }
        if busy || self.is_busy() { Start::default() } else { Start { again: repeated, ..self.start(ours, role) } }
    }

    fn start(&self, ours: &Ours, role: Role) -> Start {
        let (plan, mut start) = (self.plan(), Start::default());
        let Some(got) = &self.got else { return start };
        if got.shared != total(ours.shared) && ours.shared.count > 0 {
            if got.shared.count == 0 {
                start.push = plan.shared;
            } else if !plan.keyed {
                start.names = plan.shared;
            } else if role == Role::Accepted {
                start.ask = Some(Subject::Shared);
            }
        }
        if Self::lacks_outward(got, ours) {
            if got.complete == Some(Summary::NOTHING) {
                start.push = start.push.plus(plan.outward);
            } else if !plan.keyed {
                start.names = start.names.plus(plan.outward);
            }
        }
        // What we have by now did not come from them: what they send of it moves nothing here, and would not be followed.
        let pushed = self.inward.model == Some(Digest::default()) && ours.inward.count == 0;
        if start.ask.is_none() && plan.keyed && self.lacks_inward(got) && !pushed {
            start.ask = Some(Subject::OneWay);
        }
        start
    }

    /// Whether a sketch may be tried for the next comparison, and the number of it.
    pub(crate) fn next_epoch(&mut self) -> (u64, bool) {
        self.epoch += 1;
        (self.epoch, self.failures < MAX_FAILURES)
    }

    /// A comparison begins.
    pub(crate) fn ask(&mut self, asking: Asking) {
        if asking.subject() == Subject::OneWay {
            self.inward.target = self.got.as_ref().and_then(|got| got.one_way);
            (self.inward.spoiled, self.inward.awaited) = (false, BTreeSet::new());
        }
        self.asking = Some(asking);
    }

    /// The other side compares a set of so many. One that is not the set that it told of says nothing about that.
    pub(crate) fn compares(&mut self, subject: Subject, count: u64) {
        let told = self.inward.target.is_some_and(|target| target.count == count);
        self.inward.spoiled |= subject == Subject::OneWay && !told;
    }

    /// Whether everything may be sent once more, what counts as equal too, to a side that says again that it has nothing: once
    /// in `longest`, for a few bytes ask for it.
    pub(crate) fn may_push_anew(&mut self, now: Time, longest: Duration) -> bool {
        let may = self.anew.is_none_or(|before| now.since(before) >= longest);
        if may {
            self.anew = Some(now);
        }
        may
    }

    /// A sketch did not decode.
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Takes in what a comparison found, as far as there is room.
    pub(crate) fn found(&mut self, subject: Subject, difference: Difference) {
        let mut found: Vec<Found> = difference.changed.into_iter().map(Found::Changed).collect();
        if subject == Subject::Shared {
            found.extend(difference.ours.into_iter().map(Found::Missing));
        }
        let lost = found.len() + difference.theirs.len() > MAX_FOUND - self.backlog();
        self.inward.spoiled |= lost && subject == Subject::OneWay;
        for found in found.into_iter().take(MAX_FOUND - self.backlog()) {
            self.note_found(found);
        }
        let mut theirs = difference.theirs;
        theirs.truncate(MAX_FOUND - self.backlog());
        if subject == Subject::OneWay {
            self.inward.awaited.extend(theirs.iter().copied());
        }
        self.wants.extend(theirs);
    }

    /// Takes in what they ask for.
    pub(crate) fn wanted(&mut self, symbols: Vec<Symbol>) {
        for symbol in symbols {
            if self.backlog() < MAX_FOUND {
                self.note_found(Found::Missing(symbol));
            }
        }
    }

    /// Symbols that wait.
    pub(crate) fn backlog(&self) -> usize {
        self.found.len() + self.wants.len()
    }

    /// What [`Self::next_found`] gives next.
    pub(crate) fn first_found(&self) -> Option<Found> {
        self.found.front().copied()
    }

    /// The next document to exchange.
    pub(crate) fn next_found(&mut self) -> Option<Found> {
        let next = self.found.pop_front();
        if let Some(Found::Missing(symbol)) = &next {
            self.missing.remove(symbol);
        }
        next
    }

    fn note_found(&mut self, found: Found) {
        let is_new = match found {
            Found::Changed(_) => true,
            Found::Missing(symbol) => self.missing.insert(symbol),
        };
        if is_new {
            self.found.push_back(found);
        }
    }

    /// Symbols to ask for, at most so many, in ascending order.
    pub(crate) fn next_wants(&mut self, most: usize) -> Vec<Symbol> {
        let next = self.wants.drain(..most.min(self.wants.len()));
        let mut next: Vec<Symbol> = next.collect();
        next.sort_unstable();
        next.dedup();
        next
    }

    pub(crate) fn has_wants(&self) -> bool {
        !self.wants.is_empty()
    }

    /// Something of what they only send could not be had.
    pub(crate) fn spoil(&mut self) {
        self.inward.spoiled = true;
    }

    /// What they only send moved from one state to another that we have now.
    pub(crate) fn follow(&mut self, before: Option<&Item>, after: Option<&Item>) {
        if let Some(after) = after {
            self.inward.awaited.remove(&after.symbol);
        }
        let Some(model) = &mut self.inward.model else { return };
        if let Some(before) = before {
            *model = model.minus(before.digest());
        }
        if let Some(after) = after {
            *model = model.plus(after.digest());
        }
    }

    /// The digest of what we had from them in full, for the next connection.
    pub(crate) fn remember(&self) -> Option<Digest> {
        self.inward.model.filter(|model| *model != Digest::default() && !self.inward.presumed)
    }

    /// What an earlier connection remembers.
    pub(crate) fn recall(&mut self, model: Option<Digest>) {
        self.inward.model = model;
    }

    /// Nothing is left to exchange: compare summaries again after a while, ever more rarely while they differ.
    pub(crate) fn rest(&mut self, ours: &Ours, now: Time, settle: Duration, longest: Duration) {
        if let Some(target) = self.inward.target.take()
            && !self.inward.spoiled
            && self.inward.awaited.is_empty()
        {
            self.inward.confirm(Digest::from_bytes(target.digest));
        }
        // What is refused beyond what can be left out makes every comparison find the same: they become very rare.
        let longest = if self.excluded.is_full() { longest.saturating_mul(CROWDED) } else { longest };
        if self.is_proven(ours) {
            self.due = None;
        } else if self.due.is_none() {
            let wait = if self.said == Some(self.summary(ours).mark()) {
                self.rounds = self.rounds.saturating_add(1);
                settle.saturating_mul(4).saturating_mul(1 << self.rounds.min(16)).min(longest)
            } else {
                self.rounds = 0;
                settle
            };
            self.due = Some(now + wait);
        }
    }

    /// Something may have been lost on the way here: say what we have, soon.
    pub(crate) fn doubt(&mut self, now: Time, settle: Duration) {
        self.said = None;
        self.due = Some(self.due.map_or(now + settle, |due| due.min(now + settle)));
    }
}

impl Inward {
    /// Of whom nothing is remembered we have had what we have, whoever sent it: all of a set of theirs that is the same. So
    /// two that start anew and are equal need not compare.
    fn presume(&mut self, ours: Sum) {
        if self.model.is_none() {
            (self.model, self.presumed) = (Some(ours.digest), ours.count > 0);
        }
    }

    fn confirm(&mut self, model: Digest) {
        (self.model, self.presumed) = (Some(model), false);
    }
}

fn total(sum: Sum) -> Total {
    Total { count: sum.count, digest: sum.digest.to_bytes() }
}

impl Listing {
    pub(crate) fn new(start: &Start) -> Self {
        Self { behind: Default::default(), done: [false; 5], push: start.push, names: start.names }
    }

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

#[cfg(test)]
mod tests;
