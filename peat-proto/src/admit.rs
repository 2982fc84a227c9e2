//! Bounds what untrusted Automerge bytes expand to, before Automerge parses them.
//!
//! Automerge stores columns of run-length encoded, deflated values. A few bytes can announce 2^60 operations or inflate
//! to gigabytes, and Automerge allocates as it is told. [`admit`] walks the same bytes first: it inflates into one
//! fixed buffer, counts items through their run lengths, and checks whatever Automerge takes on trust when it sizes a
//! buffer or indexes a table. Nothing is kept of the contents.
//!
//! The walk is no substitute for Automerge's own checks: checksums, text and the meaning of operations are left to it.
//! Where the format is open, the walk is strict: it accepts what Automerge writes, in the order it writes it.

mod chunk;
mod column;
mod history;
mod reader;

use crate::config::AdmitLimits;
use crate::io::Refusal;
use chunk::Walk;

/// What admitted bytes expand to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Admitted {
    /// Changes in all chunks; one that occurs twice is counted twice.
    pub changes: u64,
    /// Rows of the operation columns, and links between operations. (In a saved document a deletion is only a link.)
    pub operations: u64,
    /// Different actors.
    pub actors: u64,
    /// Bytes of all columns and compressed changes after decompression.
    pub expanded: usize,
    /// Bytes of text, keys among it, counted as often as Automerge copies it: once for each change that has it.
    pub text: u64,
    /// Chunks: saved documents and single changes.
    pub chunks: usize,
}

/// Walks concatenated Automerge chunks, as `save`, `save_after` and sync messages hold them.
///
/// Takes time in proportion to the expanded size. Needs about 64 KiB, and 12 bytes for each change of a saved document.
///
/// # Errors
/// [`Refusal::TooLarge`] when a limit is exceeded, [`Refusal::Invalid`] when the layout is broken, contradicts itself
/// or is one that Automerge does not write; empty input is invalid. So are bundles: Automerge marks them experimental,
/// never syncs them, and reads them without validation.
pub fn admit(bytes: &[u8], limits: &AdmitLimits) -> Result<Admitted, Refusal> {
    admit_all([bytes], limits)
}

/// Walks the parts of one message, each like [`admit`]. The limits are for all of them together: otherwise many small parts
/// would expand to as many times the limits.
pub(crate) fn admit_all<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    limits: &AdmitLimits,
) -> Result<Admitted, Refusal> {
    let mut walk = Walk::new(limits);
    for part in parts {
        if part.is_empty() {
            return Err(Refusal::Invalid);
        }
        let mut rest = part;
        while !rest.is_empty() {
            rest = walk.chunk(rest)?;
        }
    }
    Ok(walk.admitted())
}

impl Admitted {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            changes: self.changes.saturating_add(other.changes),
            operations: self.operations.saturating_add(other.operations),
            actors: self.actors.saturating_add(other.actors),
            expanded: self.expanded.saturating_add(other.expanded),
            text: self.text.saturating_add(other.text),
            chunks: self.chunks.saturating_add(other.chunks),
        }
    }

    /// Whether no limit is exceeded. Actors of several messages may be the same ones: they are left to the document.
    pub(crate) fn is_within(&self, limits: &AdmitLimits) -> bool {
        self.expanded <= limits.expanded
            && self.text <= limits.expanded as u64
            && self.operations <= limits.operations
            && self.changes <= limits.changes
    }
}
