//! Incoming streams.

use std::time::Duration;

use crate::time::Time;
use crate::wire::v1::Assembler;

/// A frame that grows by this much has not stalled.
const PROGRESS: usize = 64 << 10;

/// Frame deadlines that a frame may take in all, however steadily it grows. 4: two minutes, in which the largest frame
/// asks for 70 kbit/s; frames for slower links are smaller.
const MOST_DEADLINES: u32 = 4;

/// One incoming stream: bytes that are not yet a whole frame, and since when.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    /// When the first byte of the frame under way arrived.
    began: Option<Time>,
    /// When it, or its last 64 KiB, arrived.
    since: Option<Time>,
    /// Bytes of the frame under way that arrived since then.
    progress: usize,
    /// What the node's receive budget counts of this stream.
    pub(crate) counted: usize,
}

impl Stream {
    /// Notes what arrived: the deadline of the frame under way starts with its first byte, and anew with each 64 KiB.
    pub(crate) fn note(&mut self, bytes: usize, now: Time) {
        if !self.assembler.is_mid_frame() {
            return self.completed();
        }
        self.progress += bytes;
        self.began.get_or_insert(now);
        if self.since.is_none() || self.progress >= PROGRESS {
            (self.since, self.progress) = (Some(now), 0);
        }
    }

    /// A frame is whole: the next one has all of its time.
    pub(crate) fn completed(&mut self) {
        (self.began, self.since, self.progress) = (None, None, 0);
    }

    /// Begins the time of the frame under way anew, after a pause that was ours.
    pub(crate) fn resume(&mut self, now: Time) {
        if self.since.is_some() {
            (self.began, self.since) = (Some(now), Some(now));
        }
    }

    /// When the frame under way is too late, of which each 64 KiB may take so long.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Time> {
        let (began, since) = (self.began?, self.since?);
        Some((since + limit).min(began + limit.saturating_mul(MOST_DEADLINES)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_frame_that_grows_a_little_in_time_again_and_again_is_too_late_in_the_end() {
        let limit = Duration::from_secs(30);
        let mut stream = Stream::default();
        // The header of a frame of 1 MiB.
        stream.assembler.push(Bytes::from_static(&[0x81, 0x80, 0x40, 0x10]));
        let _ = stream.assembler.next(&crate::wire::v1::Caps::PEER).expect("a header");
        let mut now = Time::ZERO;
        stream.note(4, now);
        let mut kept = 0;
        while stream.deadline(limit).is_some_and(|deadline| now < deadline) {
            now += Duration::from_secs(29);
            stream.note(PROGRESS, now);
            kept += 1;
        }
        assert!(kept <= 5, "it lived through {kept} deadlines");
        assert_eq!(stream.deadline(limit), Some(Time::ZERO + limit * MOST_DEADLINES));
        stream.resume(now);
        assert_eq!(stream.deadline(limit), Some(now + limit));
        stream.completed();
        assert_eq!(stream.deadline(limit), None);
    }
}
