//! Signs of life, ours and the peer's.

use std::time::Duration;

use crate::stats::Contact;
use crate::time::Time;

/// Heartbeats, and whether the peer is still there. The numbers are those of legacy peers.
#[derive(Debug)]
pub(crate) struct Pulse {
    every: Duration,
    patience: Duration,
    /// When the next heartbeat goes.
    next: Time,
    begun: Time,
    /// When the peer last gave a sign, if it ever has.
    heard: Option<Time>,
    /// Heartbeats sent since the peer last sent one.
    unheard: u32,
    /// Heartbeats in a row that did not go out.
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Partitioned,
    /// So many signs since.
    Recovering(u32),
}

/// What became of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Lost,
    Found,
}

/// Heartbeats for a peer that never sends any: a minute of them. One family of legacy peers does not accept the streams
/// that they come on, and QUIC lets 100 of them be open.
const UNHEARD: u32 = 12;

/// Failures in a row that mean a partition.
const FAILURES: u32 = 3;

/// Times the patience after which a silent connection is given up. Legacy peers begin theirs anew every minute too.
const DEAD: u32 = 4;

/// Signs that end one.
const SIGNS: u32 = 2;

impl Pulse {
    pub(crate) fn new(every: Duration, patience: Duration, now: Time) -> Self {
        Self { every, patience, next: now + every, begun: now, heard: None, unheard: 0, failures: 0, state: State::Up }
    }

    /// Whether a heartbeat is due; the next one is counted from now.
    pub(crate) fn beats(&mut self, now: Time) -> bool {
        if self.next > now {
            return false;
        }
        self.next = now + self.every;
        let beats = self.unheard < UNHEARD;
        self.unheard += u32::from(beats);
        beats
    }

    /// The peer gave a sign of life: a heartbeat, or anything else.
    pub(crate) fn heard(&mut self, now: Time, heartbeat: bool) -> Option<Turn> {
        self.heard = Some(now);
        self.failures = 0;
        if heartbeat {
            self.unheard = 0;
        }
        self.state = match self.state {
            State::Up => return None,
            State::Partitioned => State::Recovering(1),
            State::Recovering(signs) if signs + 1 >= SIGNS => State::Up,
            State::Recovering(signs) => State::Recovering(signs + 1),
        };
        (self.state == State::Up).then_some(Turn::Found)
    }

    /// Nothing was read of the peer for a reason of our own: its silence counts from now.
    pub(crate) fn excuse(&mut self, now: Time) {
        self.begun = now;
        self.heard = self.heard.map(|_| now);
    }

    /// A heartbeat did not go out.
    pub(crate) fn failed(&mut self) -> Option<Turn> {
        self.failures += 1;
        self.lose(self.failures >= FAILURES)
    }

    /// Looks at the time. Silence says nothing of a peer that never said anything.
    pub(crate) fn tick(&mut self, now: Time) -> Option<Turn> {
        self.lose(self.heard.is_some_and(|heard| now.since(heard) >= self.patience))
    }

    fn lose(&mut self, lost: bool) -> Option<Turn> {
        if !lost || self.state == State::Partitioned {
            return None;
        }
        let was_up = self.state == State::Up;
        self.state = State::Partitioned;
        was_up.then_some(Turn::Lost)
    }

    /// Whether the connection is to be begun anew. One family of legacy peers forgets a connection when another one of the
    /// same peer ends, and then never says anything on it; who has nothing to say looks the same, and loses nothing.
    pub(crate) fn is_dead(&self, now: Time) -> bool {
        self.dies() <= now
    }

    fn dies(&self) -> Time {
        self.heard.unwrap_or(self.begun) + self.patience.saturating_mul(DEAD)
    }

    /// When there is something to do next.
    pub(crate) fn deadline(&self) -> Time {
        let silence = self.heard.filter(|_| self.state != State::Partitioned).map(|heard| heard + self.patience);
        let last = self.next.min(self.dies());
        silence.map_or(last, |silence| silence.min(last))
    }

    /// As it is shown.
    pub(crate) fn contact(&self) -> Contact {
        match self.state {
            State::Up => Contact::Connected,
            State::Partitioned => Contact::Partitioned,
            State::Recovering(_) => Contact::Recovering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn pulse() -> Pulse {
        Pulse::new(Duration::from_secs(5), Duration::from_secs(15), at(0))
    }

    #[test]
    fn live_1_a_partition_is_noticed_in_time_and_ends_with_the_second_sign() {
        let mut pulse = pulse();
        assert_eq!(pulse.heard(at(1), false), None);
        assert_eq!(pulse.tick(at(15)), None);
        assert_eq!((pulse.tick(at(16)), pulse.tick(at(17))), (Some(Turn::Lost), None));
        assert_eq!(pulse.contact(), Contact::Partitioned);
        assert_eq!(pulse.heard(at(20), true), None);
        assert_eq!(pulse.contact(), Contact::Recovering);
        assert_eq!(pulse.heard(at(21), false), Some(Turn::Found));
        assert_eq!(pulse.contact(), Contact::Connected);
    }

    #[test]
    fn live_1_three_failures_in_a_row_are_a_partition() {
        let mut pulse = pulse();
        assert_eq!((pulse.failed(), pulse.failed()), (None, None));
        pulse.heard(at(1), false);
        assert_eq!((pulse.failed(), pulse.failed(), pulse.failed()), (None, None, Some(Turn::Lost)));
    }

    #[test]
    fn a_peer_that_never_said_anything_is_not_missed_but_tried_anew() {
        let mut pulse = pulse();
        assert_eq!(pulse.tick(at(1000)), None);
        assert_eq!(pulse.deadline(), at(5));
        assert!(!pulse.is_dead(at(59)) && pulse.is_dead(at(60)));
        pulse.heard(at(59), false);
        assert!(!pulse.is_dead(at(118)) && pulse.is_dead(at(119)));
    }

    #[test]
    fn stream_7_a_peer_that_sends_no_heartbeats_gets_a_minute_of_them() {
        let mut pulse = pulse();
        let beats = (1..10_000).filter(|n| pulse.beats(at(5 * n))).count();
        assert_eq!(beats, 12);
        pulse.heard(at(49_998), true);
        assert!(!pulse.beats(at(49_999)), "not due");
        assert!(pulse.beats(at(50_000)));
    }

    #[test]
    fn nothing_is_due_after_it_was_done() {
        let mut pulse = pulse();
        pulse.heard(at(0), false);
        for now in (0..60).map(at) {
            pulse.beats(now);
            pulse.tick(now);
            assert!(pulse.deadline() > now && !pulse.is_dead(now));
        }
        assert!(pulse.is_dead(at(60)), "and then it ends");
    }
}
