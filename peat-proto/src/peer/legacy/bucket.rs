//! How fast documents are pushed to one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Time;

/// Token bucket (Turner 1986): a token for each document that is pushed. What finds no token waits.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: u32,
    size: u32,
    filled: Time,
    /// Somebody found it empty since it was last filled.
    missed: bool,
}

impl Bucket {
    /// Time between two refills. Legacy peers refill in these steps too.
    const STEP: Duration = Duration::from_millis(100);

    /// A full bucket of `size` tokens, at least one, which takes a second to fill.
    pub(crate) fn new(size: u32, now: Time) -> Self {
        let size = size.max(1);
        Self { tokens: size, size, filled: now, missed: false }
    }

    pub(crate) fn refill(&mut self, now: Time) {
        let steps = now.since(self.filled).as_micros() / Self::STEP.as_micros();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(steps.saturating_mul(self.size.div_ceil(10))).min(self.size);
        self.filled += Self::STEP.saturating_mul(steps);
        self.missed &= self.tokens == 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    pub(crate) fn take(&mut self) {
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// Somebody wants a token. True if there is none, and nobody found that out since the last refill.
    pub(crate) fn misses(&mut self) -> bool {
        self.tokens == 0 && !std::mem::replace(&mut self.missed, true)
    }

    /// When there are more tokens.
    pub(crate) fn next(&self) -> Time {
        self.filled + Self::STEP
    }
}

/// Documents that were pushed a moment ago: the next push of the same waits until the cooldown is over.
#[derive(Debug, Default)]
pub(crate) struct Cooldown {
    until: BTreeMap<u32, Time>,
    ends: BTreeSet<(Time, u32)>,
}

impl Cooldown {
    /// The document of this slot was pushed.
    pub(crate) fn begin(&mut self, slot: u32, now: Time, until: Time) {
        self.forget(now);
        if let Some(before) = self.until.insert(slot, until) {
            self.ends.remove(&(before, slot));
        }
        self.ends.insert((until, slot));
    }

    /// The document may be pushed at once.
    pub(crate) fn lift(&mut self, slot: u32) {
        if let Some(end) = self.until.remove(&slot) {
            self.ends.remove(&(end, slot));
        }
    }

    /// When the document may be pushed again, if it may not now.
    pub(crate) fn until(&mut self, slot: u32, now: Time) -> Option<Time> {
        self.forget(now);
        self.until.get(&slot).copied()
    }

    fn forget(&mut self, now: Time) {
        while let Some((end, slot)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, slot));
            self.until.remove(&slot);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }
}

/// How often the other side was told that a document is equal, within a while. Documents are named by their slots, or by
/// themselves where neither side has one.
#[derive(Debug)]
pub(crate) struct Assurances<K> {
    given: BTreeMap<K, (Time, u32)>,
    ends: BTreeSet<(Time, K)>,
    most: usize,
}

impl<K: Ord + Clone> Assurances<K> {
    /// How long they are counted. Legacy peers that poll do so every 5 s, and count a poll without an answer as a failure.
    const WHILE: Duration = Duration::from_secs(4);

    /// How many there may be. One family of legacy peers announces to everybody what it is told, news or not: without an
    /// end, what it announces would be answered, and announced again.
    const MOST: u32 = 4;

    /// Of so many documents at a time; more get none.
    pub(crate) fn new(most: usize) -> Self {
        Self { given: BTreeMap::new(), ends: BTreeSet::new(), most }
    }

    pub(crate) fn note(&mut self, doc: &K, now: Time) {
        self.forget(now);
        if let Some((_, count)) = self.given.get_mut(doc) {
            *count += 1;
        } else if self.given.len() < self.most {
            let end = now + Self::WHILE;
            self.given.insert(doc.clone(), (end, 1));
            self.ends.insert((end, doc.clone()));
        }
    }

    pub(crate) fn are_enough(&mut self, doc: &K, now: Time) -> bool {
        self.forget(now);
        self.given.get(doc).map_or(self.given.len() >= self.most, |(_, count)| *count >= Self::MOST)
    }

    fn forget(&mut self, now: Time) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            let Some((_, doc)) = self.ends.pop_first() else { return };
            self.given.remove(&doc);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn flow_5_a_thousand_pushes_take_nine_seconds_and_none_is_left_out() {
        let mut bucket = Bucket::new(100, at(0));
        let (mut now, mut pushed) = (at(0), 0);
        while pushed < 1000 {
            bucket.refill(now);
            if bucket.is_empty() {
                now = bucket.next();
                continue;
            }
            bucket.take();
            pushed += 1;
        }
        assert_eq!(now, at(9000));
    }

    #[test]
    fn tokens_come_in_time_and_no_more_than_there_is_room_for() {
        let mut bucket = Bucket::new(5, at(0));
        for _ in 0..9 {
            bucket.take();
        }
        assert!(bucket.is_empty());
        for (ms, tokens) in [(99, 0), (100, 1), (350, 3), (399, 3), (400, 4), (100_000, 5)] {
            bucket.refill(at(ms));
            assert_eq!(bucket.tokens, tokens, "after {ms} ms");
        }
        assert!(bucket.next() > at(100_000));
    }

    #[test]
    fn a_cooldown_ends_and_is_forgotten() {
        let mut cooldown = Cooldown::default();
        cooldown.begin(7, at(0), at(100));
        cooldown.begin(7, at(0), at(150));
        cooldown.begin(8, at(0), at(120));
        assert_eq!(cooldown.until(7, at(99)), Some(at(150)));
        assert_eq!(cooldown.until(9, at(99)), None);
        assert_eq!((cooldown.until(8, at(120)), cooldown.len()), (None, 1));
        assert_eq!((cooldown.until(7, at(150)), cooldown.len()), (None, 0));
        assert!(cooldown.ends.is_empty());
        for slot in 0..10_000 {
            cooldown.begin(slot, at(u64::from(slot)), at(u64::from(slot) + 50));
        }
        assert_eq!(cooldown.len(), 50, "nobody asks, and they are forgotten all the same");
    }

    #[test]
    fn delta_5_a_poll_is_always_answered_and_an_echo_is_not() {
        let mut assurances = Assurances::new(2);
        for poll in 0..100 {
            assert!(!assurances.are_enough(&7, at(5000 * poll)));
            assurances.note(&7, at(5000 * poll));
        }
        let mut assurances = Assurances::new(2);
        let answered = (0..1000).filter(|echo| {
            let (now, enough) = (at(50 * echo), assurances.are_enough(&7, at(50 * echo)));
            if !enough {
                assurances.note(&7, now);
            }
            !enough
        });
        assert_eq!(answered.count(), 4 * 13, "four in every four of 50 seconds");
        assert!(!assurances.are_enough(&8, at(50_000)));
        assurances.note(&8, at(50_000));
        assurances.note(&7, at(50_000));
        assurances.note(&9, at(50_000));
        assert!(assurances.are_enough(&9, at(50_000)), "no room for a third");
        assert!(!assurances.are_enough(&8, at(50_000)));
    }
}
