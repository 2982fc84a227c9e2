//! Leaving a peer alone that does not take what it is sent.

use std::time::Duration;

use crate::stats::BreakerState;
use crate::time::Time;

/// Circuit breaker (Nygard, Release It!, 2007). Opens when frames to a peer fail in a row, and lets one through from time
/// to time until they arrive again. Time alone moves it from open to half-open. What fails on our side, or within a
/// document, is not its business; a new connection has a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Frames flow. With the failures in a row, and when the first of them was.
    Closed { failures: u32, since: Time },
    /// No pushes until then.
    Open { until: Time },
    /// One push at a time, whose fate decides.
    HalfOpen { successes: u32, probing: bool },
}

/// When a breaker opens and closes; the numbers of legacy peers, whose window nobody reads.
const FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(5);
const SUCCESSES: u32 = 2;

impl Breaker {
    pub(crate) fn new(now: Time) -> Self {
        Self::Closed { failures: 0, since: now }
    }

    /// A frame to the peer did not arrive. True if the breaker opens.
    pub(crate) fn failed(&mut self, now: Time) -> bool {
        match self {
            Self::Closed { failures, since } => {
                if *failures == 0 || now.since(*since) > WINDOW {
                    (*failures, *since) = (0, now);
                }
                *failures += 1;
                if *failures < FAILURES {
                    return false;
                }
            }
            Self::HalfOpen { .. } => {}
            Self::Open { .. } => return false,
        }
        *self = Self::Open { until: now + OPEN };
        true
    }

    /// Everything that was sent has arrived, or the peer said something.
    pub(crate) fn succeeded(&mut self, now: Time) {
        match self {
            Self::Closed { failures, .. } => *failures = 0,
            Self::HalfOpen { successes, .. } if *successes + 1 >= SUCCESSES => *self = Self::new(now),
            Self::HalfOpen { successes, probing } => (*successes, *probing) = (*successes + 1, false),
            Self::Open { .. } => {}
        }
    }

    /// Looks at the time.
    pub(crate) fn tick(&mut self, now: Time) {
        if matches!(self, Self::Open { until } if *until <= now) {
            *self = Self::HalfOpen { successes: 0, probing: false };
        }
    }

    /// Whether a push may go.
    pub(crate) fn allows(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::HalfOpen { probing: false, .. })
    }

    /// A push goes.
    pub(crate) fn pushed(&mut self) {
        if let Self::HalfOpen { probing, .. } = self {
            *probing = true;
        }
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        match self {
            Self::Closed { failures, .. } => *failures,
            Self::Open { .. } | Self::HalfOpen { .. } => FAILURES,
        }
    }

    /// As it is shown.
    pub(crate) fn state(&self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::Open { until } => BreakerState::Open { until: *until },
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When the next push is let through, while it is open.
    pub(crate) fn until(&self) -> Option<Time> {
        match self {
            Self::Open { until } => Some(*until),
            Self::Closed { .. } | Self::HalfOpen { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn open(now: Time) -> Breaker {
        let mut breaker = Breaker::new(now);
        assert_eq!((0..5).filter(|_| breaker.failed(now)).count(), 1);
        breaker
    }

    #[test]
    fn flow_1_time_alone_lets_traffic_resume() {
        let mut breaker = open(at(0));
        assert_eq!(breaker.until(), Some(at(5000)));
        breaker.tick(at(4999));
        assert!(!breaker.allows());
        breaker.tick(at(5000));
        assert!(breaker.allows());
        breaker.pushed();
        assert!(!breaker.allows(), "one at a time");
        breaker.succeeded(at(5100));
        assert!(breaker.allows());
        breaker.pushed();
        breaker.succeeded(at(5200));
        assert_eq!(breaker, Breaker::new(at(5200)));
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let mut breaker = open(at(0));
        breaker.tick(at(5000));
        breaker.pushed();
        assert!(breaker.failed(at(6000)));
        assert_eq!(breaker.until(), Some(at(11_000)));
    }

    #[test]
    fn flow_2_only_failures_in_a_row_and_within_the_window_open_it() {
        let mut breaker = Breaker::new(at(0));
        for n in 0..100 {
            assert!(!breaker.failed(at(n * 2000)), "too far apart");
        }
        let mut breaker = Breaker::new(at(0));
        for n in 0..100 {
            assert!(!breaker.failed(at(n)));
            if n % 4 == 3 {
                breaker.succeeded(at(n));
            }
        }
        assert!(breaker.allows());
    }
}
