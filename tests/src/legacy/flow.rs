//! Flow control of one peer, as coded (wire.md 11).

use std::collections::BTreeMap;
use std::time::Duration;

use peat_proto::Time;

/// Tokens that the bucket holds, and holds at first.
const TOKENS: u64 = 100;

/// Tokens that come with every [`REFILL`].
const REFILLED: u64 = 10;
const REFILL: Duration = Duration::from_millis(100);

/// Silence after a successful initiation of a document.
pub(super) const COOLDOWN: Duration = Duration::from_millis(100);

/// Failures in a row that open the breaker.
pub(super) const FAILURES: u32 = 5;

/// Time until an open breaker may be half-open.
const OPEN: Duration = Duration::from_secs(5);

/// Successes in a row that close a half-open breaker.
const SUCCESSES: u32 = 2;

/// One token for each document sync that is initiated; replies, batches and markers cost none.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    tokens: u64,
    filled: Time,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub(super) fn new(now: Time) -> Self {
        Self { tokens: TOKENS, filled: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let steps = now.since(self.filled).as_micros() / REFILL.as_micros();
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.tokens = TOKENS.min(self.tokens.saturating_add(steps.saturating_mul(REFILLED)));
        self.filled += REFILL * u32::try_from(steps).unwrap_or(u32::MAX);
        let taken = self.tokens > 0;
        self.tokens -= u64::from(taken);
        taken
    }

    /// Puts one back that was taken for nothing.
    pub(super) fn give_back(&mut self) {
        self.tokens = TOKENS.min(self.tokens + 1);
    }
}

/// Documents that were sent a moment ago. Entries are never removed, because nobody calls the clean-up.
#[derive(Debug, Clone, Default)]
pub(super) struct Cooldown(BTreeMap<String, Time>);

impl Cooldown {
    /// When a document may be sent again; `None` if it may now.
    #[must_use]
    pub(super) fn until(&self, now: Time, key: &str) -> Option<Time> {
        self.0.get(key).map(|sent| *sent + COOLDOWN).filter(|until| *until > now)
    }

    /// It was sent.
    pub(super) fn start(&mut self, now: Time, key: &str) {
        self.0.insert(key.to_owned(), now);
    }
}

/// Cuts a peer off after five failures in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Closed, after so many failures in a row.
    #[default]
    Closed,
    /// Some failures in a row, fewer than five.
    Failing(u32),
    /// Open since then.
    Open(Time),
    /// Half-open, after so many successes.
    HalfOpen(u32),
}

impl Breaker {
    /// Whether nothing may be initiated. FLOW-1: the step to half-open is taken only when a new error is reported, and
    /// while the breaker is open nothing is tried that could fail; `by_time` is what it should be.
    pub(super) fn is_open(&mut self, now: Time, by_time: bool) -> bool {
        match self {
            Self::Open(since) if by_time && now.since(*since) >= OPEN => {
                *self = Self::HalfOpen(0);
                false
            }
            Self::Open(_) => true,
            _ => false,
        }
    }

    /// Something failed.
    pub(super) fn failure(&mut self, now: Time) {
        *self = match self {
            Self::Closed => Self::Failing(1),
            Self::Failing(before) if *before + 1 < FAILURES => Self::Failing(*before + 1),
            Self::Failing(_) | Self::HalfOpen(_) => Self::Open(now),
            Self::Open(since) if now.since(*since) >= OPEN => Self::HalfOpen(0),
            Self::Open(since) => Self::Open(*since),
        };
    }

    /// Something succeeded.
    pub(super) fn success(&mut self) {
        *self = match self {
            Self::Closed | Self::Failing(_) => Self::Closed,
            Self::Open(since) => Self::Open(*since),
            Self::HalfOpen(before) if *before + 1 < SUCCESSES => Self::HalfOpen(*before + 1),
            Self::HalfOpen(_) => Self::Closed,
        };
    }
}

/// All of it. None of it is forgotten when a connection ends.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// The rate.
    pub(super) bucket: Bucket,
    /// Per document.
    pub(super) cooldown: Cooldown,
    /// Per peer.
    pub(super) breaker: Breaker,
}

impl Flow {
    /// Of a peer that is new.
    #[must_use]
    pub(super) fn new(now: Time) -> Self {
        Self { bucket: Bucket::new(now), cooldown: Cooldown::default(), breaker: Breaker::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    #[test]
    fn a_burst_of_a_hundred_and_then_a_hundred_a_second() {
        let mut bucket = Bucket::new(Time::ZERO);
        let taken = |bucket: &mut Bucket, now| (0..1_000).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Time::ZERO), 100);
        assert_eq!(taken(&mut bucket, at(99)), 0);
        assert_eq!(taken(&mut bucket, at(1_000)), 100);
        assert_eq!(taken(&mut bucket, at(1_250)), 20);
    }

    #[test]
    fn an_open_breaker_stays_open_for_ever_unless_time_drives_it() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(!breaker.is_open(at(0), false));
            breaker.failure(at(0));
        }
        assert!(breaker.is_open(at(3_600_000), false));
        assert!(!breaker.clone().is_open(at(5_000), true));
        breaker.success();
        assert!(breaker.is_open(at(3_600_000), false));
        // An error from elsewhere, such as a reply that fails, is what it waits for.
        breaker.failure(at(5_000));
        assert!(!breaker.is_open(at(5_000), false));
        breaker.success();
        breaker.success();
        assert_eq!(breaker, Breaker::Closed);
    }

    #[test]
    fn a_success_between_failures_keeps_the_breaker_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            (0..FAILURES - 1).for_each(|_| breaker.failure(at(0)));
            breaker.success();
        }
        assert!(!breaker.is_open(at(0), false));
    }
}
