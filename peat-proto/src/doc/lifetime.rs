//! How long documents last: time to live, soft deletion, and the removal of what is over.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::{Document, Phase};
use super::{Docs, Effect};
use crate::id::DocId;
use crate::io::{Event, Origin};
use crate::marker::{Marker, Spread, Text};
use crate::policy::{Deletion, Policy};
use crate::store::{Facts, Op};
use crate::time::{Now, Time};

/// How far the clocks of two nodes are assumed to differ, in seconds: what is over here is still taken from others, and
/// kept, for so long. 10 minutes.
pub(crate) const SKEW: u64 = 600;

/// Documents are collected at full multiples of this many seconds, so that many go at once. 300 s, as in fielded nodes.
const ROUND: u64 = 300;

/// Documents that one call looks at: 500, as fielded nodes do per collection and run; about 2 ms.
const STEP: usize = 500;

/// When which document's time is over, or a lapsed one is collected, in Unix seconds. One entry for each document that
/// has an end, of about 40 B.
#[derive(Debug, Default)]
pub(crate) struct Calendar(BTreeSet<(u64, DocId)>);

/// What is to be done about a document, and when, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its time to live is over: it leaves everybody's sight.
    Lapse(u64),
    /// It is removed.
    Collect(u64),
    /// It was deleted softly, and a marker takes its place.
    Bury(u64),
}

impl Fate {
    fn at(self) -> u64 {
        match self {
            Self::Lapse(at) | Self::Collect(at) | Self::Bury(at) => at,
        }
    }
}

/// What awaits a document with this policy and these facts: a function of its content, the same everywhere.
fn fate(policy: &Policy, facts: Facts, lapsed: bool) -> Option<Fate> {
    let newest = facts.newest?;
    let round = |at: u64| at.div_ceil(ROUND).saturating_mul(ROUND);
    let ends = |after: Duration| newest.saturating_add(after.as_secs());
    let lapse = policy
        .ttl
        .map(|ttl| if lapsed { Fate::Collect(round(ends(ttl).saturating_add(SKEW))) } else { Fate::Lapse(ends(ttl)) });
    let bury = match policy.deletion {
        Deletion::Soft { retention } if facts.deleted => Some(Fate::Bury(round(ends(retention)))),
        _ => None,
    };
    [lapse, bury].into_iter().flatten().min_by_key(|fate| fate.at())
}

impl Docs {
    /// Whether a document with these facts is so long over that it is not taken from anybody any more.
    pub(super) fn is_over(&self, doc: &DocId, facts: Facts) -> bool {
        let ends = self.policy.of(doc).ttl.zip(facts.newest).map(|(ttl, newest)| newest.saturating_add(ttl.as_secs()));
        ends.is_some_and(|ends| ends.saturating_add(SKEW) < self.now_s())
    }

    /// Notes what the content says now; a document whose time was over may live again.
    pub(super) fn note_facts(&mut self, doc: &DocId, facts: Facts) {
        let policy = self.policy.of(doc);
        let now = self.now_s();
        let class = policy.class.index();
        let Some(document) = self.classes[class].get_mut(doc) else { return };
        if document.facts == facts && !document.lapsed {
            return;
        }
        if let Some(fate) = fate(&policy, document.facts, document.lapsed) {
            self.calendar.0.remove(&(fate.at(), doc.clone()));
        }
        document.facts = facts;
        let lapsed = document.lapsed && matches!(fate(&policy, facts, false), Some(Fate::Lapse(at)) if at <= now);
        let revived = std::mem::replace(&mut document.lapsed, lapsed) && !lapsed;
        if let Some(fate) = fate(&policy, facts, lapsed) {
            self.calendar.0.insert((fate.at(), doc.clone()));
        }
        if revived {
            self.revive(doc);
        }
    }

    /// Puts a document on an empty calendar, under a policy that may be new; it may live again.
    pub(super) fn renew(&mut self, doc: &DocId) {
        let policy = self.policy.of(doc);
        let now = self.now_s();
        let Some(document) = self.get_mut(doc) else { return };
        let lapsed =
            document.lapsed && matches!(fate(&policy, document.facts, false), Some(Fate::Lapse(at)) if at <= now);
        let revived = std::mem::replace(&mut document.lapsed, lapsed) && !lapsed;
        self.note_fate(doc);
        if revived {
            self.revive(doc);
        }
    }

    fn revive(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if let Some(document) = self.classes[class].get(doc) {
            self.existing += u64::from(document.exists());
            self.scopes.insert(&self.policy, doc, document.offer());
        }
    }

    /// Takes a document off the calendar.
    pub(super) fn forget_fate(&mut self, doc: &DocId) {
        let policy = self.policy.of(doc);
        if let Some(document) = self.get(doc)
            && let Some(fate) = fate(&policy, document.facts, document.lapsed)
        {
            self.calendar.0.remove(&(fate.at(), doc.clone()));
        }
    }

    /// Puts a document on the calendar that has just come from the store.
    pub(super) fn note_fate(&mut self, doc: &DocId) {
        let policy = self.policy.of(doc);
        if let Some(document) = self.get(doc)
            && document.marker().is_none()
            && let Some(fate) = fate(&policy, document.facts, document.lapsed)
        {
            self.calendar.0.insert((fate.at(), doc.clone()));
        }
    }

    /// When [`Self::age`] has something to do; never at once.
    pub(crate) fn age_deadline(&self, now: Now) -> Option<Time> {
        let (at, _) = self.calendar.0.first()?;
        let wait = at.saturating_mul(1000).saturating_sub(now.unix_ms).max(1);
        Some(now.mono + Duration::from_millis(wait))
    }

    /// Takes the time.
    pub(crate) fn note_time(&mut self, now: Now) {
        self.now_ms = now.unix_ms;
    }

    /// Does what has become due.
    pub(crate) fn age(&mut self) {
        for _ in 0..STEP {
            let Some((_, doc)) = self.calendar.0.first().filter(|(at, _)| *at <= self.now_s()).cloned() else { return };
            let policy = self.policy.of(&doc);
            let fate = self.get(&doc).and_then(|document| fate(&policy, document.facts, document.lapsed));
            self.calendar.0.pop_first();
            match fate {
                // It was put off, and lives again.
                Some(fate) if fate.at() > self.now_s() => drop(self.calendar.0.insert((fate.at(), doc))),
                Some(Fate::Lapse(_)) => self.lapse(&doc),
                Some(Fate::Collect(_)) => self.collect(&doc),
                Some(Fate::Bury(_)) => self.inter(&doc),
                None => {}
            }
        }
    }

    fn lapse(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        let Some(document) = self.classes[class].get_mut(doc) else { return };
        self.scopes.remove(&self.policy, doc, document.offer());
        self.existing -= u64::from(document.exists());
        document.lapsed = true;
        self.stats.lapsed += 1;
        self.note_fate(doc);
        self.effects.push_back(Effect::Event(Event::Expired { doc: doc.clone() }));
    }

    /// Removes a lapsed document, unless somebody is at it; then the next round comes back to it.
    fn collect(&mut self, doc: &DocId) {
        if !self.is_idle(doc) {
            self.calendar.0.insert((self.now_s().saturating_add(ROUND), doc.clone()));
            return;
        }
        let class = self.class(doc).index();
        let Some(Document { slot, phase, .. }) = self.classes[class].remove(doc) else { return };
        if let Phase::Live(live) = phase {
            self.cache.remove(&live);
        }
        self.free_slots.push(slot);
        self.stats.collected += 1;
        self.writer.run(Op::Remove { doc: doc.clone() });
    }

    /// Puts a marker in the place of a softly deleted document. Every replica with the same heads makes the same one.
    fn inter(&mut self, doc: &DocId) {
        let Some(document) = self.get(doc) else { return };
        if !self.is_idle(doc) {
            self.calendar.0.insert((self.now_s().saturating_add(ROUND), doc.clone()));
            return;
        }
        let newest = document.facts.newest.unwrap_or_default();
        let by = document.offered.as_slice().first().map(|head| format!("{head}"));
        let Some(by) = by.as_deref().and_then(Text::clipped) else { return };
        let marker = Marker {
            incarnation: 0,
            lamport: 0,
            by,
            at_ms: newest.saturating_mul(1000),
            reason: None,
            spread: Spread::Bidirectional,
        };
        self.stats.collected += 1;
        self.lay(doc, marker, Origin::Local, false);
    }

    /// Whether nobody waits for a document and nothing of it waits to be written.
    fn is_idle(&self, doc: &DocId) -> bool {
        let moving = |document: &Document| matches!(document.phase, Phase::Busy | Phase::Loading);
        let document = self.get(doc);
        document.is_some_and(|document| document.is_clean() && !moving(document)) && !self.attention.contains_key(doc)
    }

    fn now_s(&self) -> u64 {
        self.now_ms / 1000
    }
}
