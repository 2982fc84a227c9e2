//! How much a history expands to, and may.

use automerge::{Automerge, Change, ReadDoc};

use crate::admit::{admit, admit_all};
use crate::config::AdmitLimits;
use crate::heads::Heads;
use crate::io::Refusal;
use crate::store::Record;

/// Bytes of a change that its number and its operations account for: header, hashes of two dependencies, author and the
/// names of columns.
const FRAME: usize = 128;

/// The bytes of a document's columns, at most. It is walked when it is loaded, and grows by what is applied; when that seems
/// too much, it is measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extent {
    bytes: usize,
    exact: bool,
}

impl Extent {
    /// Of chunks that our own store has.
    pub(crate) fn of_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]> + Clone) -> Self {
        let walked = admit_all(chunks.clone(), &AdmitLimits::NONE).map(|admitted| admitted.expanded);
        Self { bytes: walked.unwrap_or_else(|_| chunks.into_iter().map(<[u8]>::len).sum()), exact: false }
    }

    pub(crate) fn exactly(bytes: usize) -> Self {
        Self { bytes, exact: true }
    }

    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// A change of this [`weight`] was applied.
    pub(crate) fn grow(&mut self, weight: usize) {
        *self = Self { bytes: self.bytes.saturating_add(weight), exact: false };
    }

    /// Refuses a batch that would make the document larger than it may be.
    pub(crate) fn room(&mut self, doc: &Automerge, batch: &[Change], limits: &AdmitLimits) -> Result<(), Refusal> {
        let stats = doc.stats();
        let operations = batch.iter().fold(stats.num_ops, |sum, change| sum.saturating_add(change.len() as u64));
        let changes = stats.num_changes.saturating_add(batch.len() as u64);
        if operations > limits.operations || changes > limits.changes || stats.num_actors > limits.actors {
            return Err(Refusal::TooLarge);
        }
        let more = batch.iter().fold(0_usize, |sum, change| sum.saturating_add(weight(change)));
        let left = limits.expanded.checked_sub(more).ok_or(Refusal::TooLarge)?;
        if self.bytes > left {
            self.measure(doc);
        }
        if self.bytes > left {
            return Err(Refusal::TooLarge);
        }
        let added: Vec<_> = batch.iter().map(|change| (change.hash(), change.deps())).collect();
        let heads = Heads::new(doc.get_heads()).advanced(added);
        if heads.len() > Record::MAX_HEADS { Err(Refusal::TooManyHeads) } else { Ok(()) }
    }

    /// Saving costs in proportion to the history, like the merge for which it is done.
    fn measure(&mut self, doc: &Automerge) {
        if !self.exact
            && let Ok(admitted) = admit(&doc.save_nocompress(), &AdmitLimits::NONE)
        {
            *self = Self::exactly(admitted.expanded);
        }
    }

    /// What the document takes in memory, measured on Automerge 0.12: 12 kB for any document, 100 B per change and 24 B per
    /// operation (lessons, sizes), and its values.
    pub(crate) fn memory(self, doc: &Automerge) -> usize {
        let stats = doc.stats();
        let variable = stats.num_changes.saturating_mul(100).saturating_add(stats.num_ops.saturating_mul(24));
        self.bytes.saturating_add(12_000).saturating_add(usize::try_from(variable).unwrap_or(usize::MAX))
    }
}

/// What a change adds to an [`Extent`].
pub(crate) fn weight(change: &Change) -> usize {
    change.raw_bytes().len().saturating_sub(FRAME)
}
