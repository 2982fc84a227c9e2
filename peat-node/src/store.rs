//! Where documents stay: the synchronous executor of the store contract that stands in [`peat_proto::store`].
//!
//! A [`Store`] does one thing at a time; [`thread::StoreThread`] gives it a thread of its own and commits what has
//! queued up together. [`conformance`] holds the contract as executable tests, for these stores and for others.

use bytes::Bytes;
use peat_proto::store::{BadRecord, Batch, Entry, StoreFault};
use peat_proto::{BadDocId, DocId};

pub mod conformance;
pub mod disk;
pub mod memory;
pub mod thread;

/// Executes store commands. Every call is over when it returns: what `apply` accepted survives a crash. A store does not
/// panic.
pub trait Store: Send + std::fmt::Debug {
    /// All records and admitted peers, in no particular order.
    ///
    /// # Errors
    /// [`OpenFault`] if one of them cannot be read: nothing is skipped, for a document that seems not to exist would be
    /// overwritten.
    fn entries(&mut self) -> Result<Vec<Entry>, OpenFault>;

    /// The chunks of a document in the order in which they were appended.
    ///
    /// # Errors
    /// [`StoreFault::Missing`] if there are none; [`StoreFault::Damaged`] if they are not as many as the record says.
    fn load(&mut self, doc: &DocId) -> Result<Vec<Bytes>, StoreFault>;

    /// Writes all these batches, in order and with one durable commit, or none of them.
    ///
    /// # Errors
    /// Nothing was written. [`StoreFault::Damaged`] if the chunk count of a record is not the number of chunks that the
    /// document would have.
    fn apply(&mut self, batches: &[Batch]) -> Result<(), StoreFault>;

    /// Marks the store as cleanly closed, where that means anything, and lets go of it.
    ///
    /// # Errors
    /// Everything that was applied is still safe; only the mark is missing.
    fn close(self: Box<Self>) -> Result<(), StoreFault>;
}

/// Why a store cannot tell what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFault {
    /// The store as a whole cannot be read.
    #[error("{0}")]
    Store(#[from] StoreFault),
    /// Written by a version that this build does not know.
    #[error("the store has format {found}; this build knows {}", disk::FORMAT)]
    Version {
        /// The format that the store states.
        found: u32,
    },
    /// The store's own entry of this name is not what this build writes.
    #[error("the store's own entry `{0}` is damaged")]
    Meta(&'static str),
    /// A key that is not UTF-8.
    #[error("the key {key:?} is not text")]
    Utf8 {
        /// The key, with everything that is not UTF-8 replaced.
        key: String,
    },
    /// A key that is not the name of a document.
    #[error("the key {key:?} is not the name of a document: {why}")]
    Key {
        /// The key.
        key: String,
        /// Which rule it breaks.
        why: BadDocId,
    },
    /// The record of this document is damaged.
    #[error("the record of {doc} cannot be read: {why}")]
    Record {
        /// Whose record.
        doc: DocId,
        /// Which rule it breaks.
        why: BadRecord,
    },
}
