//! Incoming streams.

use crate::time::Time;
use crate::wire::Assembler;

/// One incoming stream: bytes that are not yet a whole frame, and since when.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    /// When the first byte of the frame under way arrived.
    pub(crate) since: Option<Time>,
}
