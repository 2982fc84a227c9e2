//! One incoming stream of a legacy peer.

use bytes::Bytes;

use crate::time::Time;
use crate::wire::v0::negentropy::Responder;
use crate::wire::v0::{Assembler, Heartbeat};

/// A frame that grows by this much has not stalled.
const PROGRESS: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Inlet {
    pub(crate) assembler: Assembler,
    /// Bytes of a heartbeat, on a unidirectional stream.
    pub(crate) beat: Vec<u8>,
    /// When the first byte of the frame under way arrived, or its last 64 KiB had.
    pub(crate) since: Option<Time>,
    progress: usize,
    /// What the node's receive budget counts of this stream.
    pub(crate) counted: usize,
    /// Answers the questions that come on this stream.
    pub(crate) responder: Option<Responder>,
    /// Its sender ended it, while it was held back.
    pub(crate) ended: bool,
}

impl Inlet {
    /// Takes in what arrived of a heartbeat; false if it is longer than one.
    pub(crate) fn beat(&mut self, bytes: &Bytes) -> bool {
        let fits = self.beat.len() + bytes.len() <= Heartbeat::LEN;
        if fits {
            self.beat.extend_from_slice(bytes);
        }
        fits
    }

    /// Notes what arrived: the deadline of the frame under way starts with its first byte, and anew with each 64 KiB.
    pub(crate) fn note(&mut self, bytes: usize, now: Time) {
        if !self.assembler.is_mid_frame() && self.beat.is_empty() {
            (self.since, self.progress) = (None, 0);
            return;
        }
        self.progress += bytes;
        if self.since.is_none() || self.progress >= PROGRESS {
            (self.since, self.progress) = (Some(now), 0);
        }
    }

    /// The frame under way has all of its time again.
    pub(crate) fn restart(&mut self, now: Time) {
        if let Some(since) = &mut self.since {
            *since = now;
        }
    }

    /// A frame is complete: the next one has all of its time.
    pub(crate) fn complete(&mut self) {
        (self.since, self.progress) = (None, 0);
    }
}
