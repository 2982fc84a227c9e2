//! Whether the other side still answers.
//!
//! QUIC tests a silent path at doubling intervals (RFC 9002, 6.2.1), so that after an outage of 20 s the next test may
//! be another 20 s away. Here silence is tested at a fixed interval; the first answer shows QUIC what was lost.

use std::time::{Duration, Instant};

use quinn_proto::ConnectionStats;

/// What was asked of the other side, and when to ask again.
#[derive(Debug)]
pub(crate) struct Liveness {
    every: Duration,
    /// Acknowledgements that came.
    heard: u64,
    /// What had been sent that asks for one when the last came.
    answered: u64,
    next: Option<Instant>,
}

impl Liveness {
    /// Asks again after this time without an answer.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, heard: 0, answered: 0, next: None }
    }

    /// Takes note of what the connection has received and sent.
    pub(crate) fn update(&mut self, stats: &ConnectionStats, now: Instant) {
        self.note(stats.frame_rx.acks, asked(stats), now);
    }

    fn note(&mut self, heard: u64, asked: u64, now: Instant) {
        if heard != self.heard {
            (self.heard, self.answered, self.next) = (heard, asked, None);
        } else if asked > self.answered && self.next.is_none() {
            self.next = Some(now + self.every);
        }
    }

    /// When to ask again, if there is no answer before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it is time to ask again; counted as asked.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(now + self.every);
        }
        due
    }
}

/// Frames sent so far that ask for an acknowledgement; rare ones do not matter.
fn asked(stats: &ConnectionStats) -> u64 {
    let sent = &stats.frame_tx;
    sent.stream + sent.ping + sent.crypto + sent.reset_stream + sent.stop_sending + sent.max_data + sent.max_stream_data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_after_a_question_is_tested_at_a_fixed_interval_until_an_answer() {
        let (start, every) = (Instant::now(), Duration::from_secs(1));
        let mut liveness = Liveness::new(every);
        liveness.note(0, 0, start);
        assert_eq!(liveness.deadline(), None, "nothing was asked");
        liveness.note(0, 1, start);
        liveness.note(0, 5, start + every / 2);
        assert_eq!(liveness.deadline(), Some(start + every), "the first question counts");
        for round in 1..30 {
            let now = start + round * every;
            assert!(liveness.is_due(now) && !liveness.is_due(now));
            liveness.note(0, 5 + u64::from(round), now);
        }
        liveness.note(1, 40, start + 31 * every);
        assert_eq!(liveness.deadline(), None, "answered");
        liveness.note(1, 41, start + 31 * every);
        assert_eq!(liveness.deadline(), Some(start + 32 * every));
    }
}
