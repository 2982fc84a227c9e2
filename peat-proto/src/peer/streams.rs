//! Incoming streams.

use crate::time::Time;
use crate::wire::v1::Assembler;

/// One incoming stream: bytes that are not yet a whole frame, and since when.
/// A frame that grows by this much has not stalled.
const PROGRESS: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    /// When the first byte of the frame under way arrived, or its last 64 KiB had.
    pub(crate) since: Option<Time>,
    /// Bytes of the frame under way that arrived since then.
    pub(crate) progress: usize,
    /// What the node's receive budget counts of this stream.
    pub(crate) counted: usize,
}

impl Stream {
    /// Notes what arrived: the deadline of the frame under way starts with its first byte, and anew with each 64 KiB.
    pub(crate) fn note(&mut self, bytes: usize, now: Time) {
        if !self.assembler.is_mid_frame() {
            (self.since, self.progress) = (None, 0);
            return;
        }
        self.progress += bytes;
        if self.since.is_none() || self.progress >= PROGRESS {
            (self.since, self.progress) = (Some(now), 0);
        }
    }
}
