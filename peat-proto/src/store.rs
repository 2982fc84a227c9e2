//! What the core asks of the store, and what the store answers.
//!
//! # The executor's contract
//!
//! 1. Commands run in the order in which [`poll`](crate::Node::poll) gave them out.
//! 2. A load sees every write before it, durable or not.
//! 3. A batch is all or nothing. After a crash the surviving batches are a prefix of those written.
//! 4. `Durable { seq }` says that this batch and every one before it survive a crash.
//! 5. After `WriteFailed { seq }` nothing of that batch exists. (The core has one batch under way at a time.)
//! 6. Every command is answered once, with its own kind of answer; answers to loads may overtake answers to writes.
//!
//! `peat_node::store::conformance` holds this as executable tests.

use bytes::Bytes;

use crate::heads::Heads;
use crate::id::{DocId, LoadId, PeerId, Seq};
use crate::marker::Marker;

mod record;
pub use record::{BadRecord, Facts, Kind, Record};

/// A task for the store.
#[derive(Debug, Clone)]
pub enum StoreCommand {
    /// Read all chunks of a document, in the order in which they were appended. A document without chunks, a deleted one
    /// too, answers [`StoreFault::Missing`].
    Load {
        /// Names the answer.
        load: LoadId,
        /// Which document.
        doc: DocId,
    },
    /// Write a batch.
    Write(Batch),
}

/// Operations that become durable together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Consecutive from 1.
    pub seq: Seq,
    /// In order; at most one per document.
    pub ops: Vec<Op>,
}

/// One operation of a [`Batch`].
#[derive(Debug, Clone)]
pub enum Op {
    /// Adds one chunk behind the document's others and replaces its record.
    Append {
        /// Which document.
        doc: DocId,
        /// The record as it is afterwards; its `chunks` counts this chunk too.
        record: Record,
        /// Automerge change chunks.
        chunk: Bytes,
    },
    /// Replaces all chunks of the document by this one and replaces its record.
    Replace {
        /// Which document.
        doc: DocId,
        /// The record as it is afterwards; its `chunks` is 1.
        record: Record,
        /// A saved Automerge document, or change chunks.
        chunk: Bytes,
    },
    /// Removes all chunks of the document, if there are any, and replaces its record, so that marker and removal are one.
    Bury {
        /// Which document.
        doc: DocId,
        /// The record as it is afterwards, of a marker; its `chunks` is 0.
        record: Record,
    },
    /// Removes the record and all chunks of the document, if there are any.
    Remove {
        /// Which document.
        doc: DocId,
    },
    /// Remembers that this peer may sync.
    Admit {
        /// Whom.
        peer: PeerId,
    },
    /// Forgets that this peer may sync.
    Forget {
        /// Whom.
        peer: PeerId,
    },
}

/// What a store holds when a node starts, apart from the chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A document's record.
    Document {
        /// Its name.
        doc: DocId,
        /// Its record.
        record: Record,
    },
    /// A peer that was admitted.
    Peer(PeerId),
}

/// An answer of the store.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The chunks of a document.
    Loaded {
        /// The load that this answers.
        load: LoadId,
        /// In the order of appending.
        chunks: Vec<Bytes>,
    },
    /// The chunks could not be read. Nothing follows from this about the document's existence.
    LoadFailed {
        /// The load that this answers.
        load: LoadId,
        /// Why.
        fault: StoreFault,
    },
    /// This batch and every one before it survive a crash.
    Durable {
        /// The newest batch that is safe.
        seq: Seq,
    },
    /// Nothing of this batch was written.
    WriteFailed {
        /// Which batch.
        seq: Seq,
        /// Why.
        fault: StoreFault,
    },
}

/// Why the environment could not store or load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// No space is left.
    #[error("the disk is full")]
    Full,
    /// The device or file system refused.
    #[error("the disk does not answer")]
    Io,
    /// What is stored cannot be understood.
    #[error("the stored bytes are damaged")]
    Damaged,
    /// A document that has a record has no chunks.
    #[error("the stored document is missing")]
    Missing,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl Op {
    /// The document that this operation concerns, if it concerns one.
    #[must_use]
    pub fn doc(&self) -> Option<&DocId> {
        match self {
            Self::Append { doc, .. } | Self::Replace { doc, .. } | Self::Bury { doc, .. } | Self::Remove { doc } => {
                Some(doc)
            }
            Self::Admit { .. } | Self::Forget { .. } => None,
        }
    }

    /// Bytes of the chunk that this operation writes.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        match self {
            Self::Append { chunk, .. } | Self::Replace { chunk, .. } => chunk.len(),
            Self::Bury { .. } | Self::Remove { .. } | Self::Admit { .. } | Self::Forget { .. } => 0,
        }
    }
}

impl Record {
    /// The record of an Automerge document that no other member has acknowledged.
    #[must_use]
    pub fn automerge(heads: Heads, bytes: u64, chunks: u32) -> Self {
        Self { kind: Kind::Automerge, heads, bytes, chunks, shared: None, facts: Facts::default() }
    }

    /// The record of a deleted document.
    #[must_use]
    pub fn marker(marker: Marker, shared: Option<u64>) -> Self {
        let kind = Kind::Marker(Box::new(marker));
        Self { kind, heads: Heads::NONE, bytes: 0, chunks: 0, shared, facts: Facts::default() }
    }
}
