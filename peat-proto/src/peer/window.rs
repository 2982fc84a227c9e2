//! How much of what was sent may still be on its way.

use std::time::Duration;

use crate::time::Time;

/// The window of a path that has not been measured, in bytes.
const START: usize = 64 << 10;

/// Below this rate, in bytes a second (2 Mbit/s), frames are kept four times smaller.
const SLOW: u64 = 250_000;

/// Bytes in flight, and how many there may be: twice the measured bandwidth-delay product, so that one half fills the
/// path while the other half is being told of.
#[derive(Debug)]
pub(crate) struct Window {
    in_flight: usize,
    /// The most that was in flight when a document's frame went, since nothing was.
    largest: usize,
    size: usize,
    min: usize,
    max: usize,
    rtt: Duration,
    /// Bytes that left since `since`, while the window was never empty.
    left: usize,
    since: Option<Time>,
    /// Bytes a second, smoothed over about eight measurements; 0 until the first.
    rate: u64,
}

impl Window {
    /// A window of at least `min` and at most `max` bytes; the least counts where they contradict.
    pub(crate) fn new(rtt: Option<Duration>, min: usize, max: usize) -> Self {
        let rtt = rtt.unwrap_or(Duration::from_millis(100)).max(Duration::from_millis(10));
        let max = max.max(min);
        Self { in_flight: 0, largest: 0, size: START.clamp(min, max), min, max, rtt, left: 0, since: None, rate: 0 }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Takes in a measurement of the round trip, which may be longer than the path's own while much is in flight.
    pub(crate) fn note_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.clamp(Duration::from_millis(10), Duration::from_secs(10));
    }

    /// Whether a frame may go. One frame may always be in flight, however large.
    pub(crate) fn is_open(&self) -> bool {
        self.in_flight == 0 || self.in_flight < self.size
    }

    /// Whether a control frame may go: beside whatever is in flight, a frame larger than the window included.
    pub(crate) fn is_open_for_control(&self, extra: usize) -> bool {
        self.in_flight < self.size.max(self.largest).saturating_add(extra)
    }

    /// The size that frames are filled up to.
    pub(crate) fn frame_bytes(&self, configured: usize) -> usize {
        let slow = self.rate > 0 && self.rate < SLOW;
        if slow { configured / 4 } else { configured }
    }

    pub(crate) fn send(&mut self, now: Time, bytes: usize, control: bool) {
        self.in_flight += bytes;
        if !control {
            self.largest = self.largest.max(self.in_flight);
        }
        if self.since.is_none() {
            (self.since, self.left) = (Some(now), 0);
        }
    }

    /// Bytes left the send buffer. More than were in flight counts as all of them.
    pub(crate) fn sent(&mut self, now: Time, bytes: usize) {
        let bytes = bytes.min(self.in_flight);
        self.in_flight -= bytes;
        self.left += bytes;
        if self.in_flight == 0 {
            self.largest = 0;
        }
        let Some(since) = self.since else { return };
        let span = now.since(since);
        // A round trip or a whole window tells the rate; less says little, and an idle path says nothing.
        if span >= self.rtt || self.left >= self.size {
            let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(100);
            let sample = (self.left as u64).saturating_mul(1_000_000) / micros;
            self.rate = if self.rate == 0 { sample } else { (self.rate * 7 + sample) / 8 };
            // A path that gave back everything could have carried more: grow by what it carried at most twofold.
            let product = self.rate.saturating_mul(u64::try_from(self.rtt.as_micros()).unwrap_or(u64::MAX)) / 500_000;
            let product = usize::try_from(product).unwrap_or(self.max);
            self.size = product.clamp(self.size / 2, self.size.saturating_mul(2)).clamp(self.min, self.max);
            self.since = if self.in_flight == 0 { None } else { Some(now) };
            self.left = 0;
        } else if self.in_flight == 0 {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: usize = 8 << 10;
    const MAX: usize = 4 << 20;

    #[test]
    fn the_window_follows_the_path_between_its_bounds() {
        for (bytes_per_second, low, high) in [(32_000_u64, MIN, 16 << 10), (100_000_000, 2 << 20, MAX)] {
            let mut window = Window::new(Some(Duration::from_millis(100)), MIN, MAX);
            let mut now = Time::ZERO;
            for _ in 0..4000 {
                while window.is_open() {
                    window.send(now, 4096, false);
                }
                now += Duration::from_micros(4096 * 1_000_000 / bytes_per_second);
                window.sent(now, 4096);
            }
            assert!((low..=high).contains(&window.size()), "{bytes_per_second} B/s: {}", window.size());
        }
    }

    #[test]
    fn one_frame_of_any_size_may_always_go() {
        let mut window = Window::new(None, MIN, MAX);
        window.send(Time::ZERO, 100 << 20, false);
        assert!(!window.is_open());
        window.sent(Time::ZERO, usize::MAX);
        assert_eq!(window.in_flight(), 0);
        assert!(window.is_open());
    }
}
