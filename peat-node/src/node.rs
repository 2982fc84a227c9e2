//! The application's handle. SKELETON: bodies land next; the signatures are final.
#![allow(unused_variables, clippy::unimplemented, missing_docs)]

use std::convert::Infallible;
use std::path::Path;

use automerge::transaction::Transaction;
use peat_proto::{Config, DocId, Heads, Listing, PeerId, Refusal, Stats, store::StoreFault};

use crate::pending::Pending;
use crate::subscription::Subscription;
use crate::ticket::Ticket;
use crate::transport::Port;

/// The application's handle on a running node. Cheap to clone; usable from any thread and any async runtime.
#[derive(Debug, Clone)]
pub struct Node;

/// How to open a node.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    pub config: Config,
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("another process uses this data directory")]
    Locked,
    #[error("no node lives here")]
    NotInitialised,
    #[error("the key file can be read by others")]
    KeyExposed,
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] std::io::Error),
    #[error("the store is damaged or from another version: {0}")]
    Store(String),
}

/// Why a write was not done, or is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<E> {
    #[error("the store refuses writes: {0}")]
    Store(StoreFault),
    #[error("the document cannot be read: {0}")]
    Unreadable(StoreFault),
    #[error("the changes were refused: {0}")]
    Refused(Refusal),
    #[error("the edit is too large")]
    TooLarge,
    #[error("the value is not a JSON object")]
    NotAnObject,
    #[error("the node is closed")]
    Closed,
    #[error(transparent)]
    Aborted(E),
}

/// Why a document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error("the document cannot be read: {0}")]
    Store(StoreFault),
    #[error("the node is closed")]
    Closed,
}

impl Node {
    /// Creates the key and an empty store in `dir`. An existing node there is left alone and its id returned.
    pub fn init(dir: &Path) -> Result<PeerId, OpenError> {
        unimplemented!()
    }
    /// Opens the node that lives in `dir`, and locks the directory until it is closed. Starts the threads.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        unimplemented!()
    }
    /// A node that keeps nothing.
    pub fn in_memory(options: Options) -> Self {
        unimplemented!()
    }
    pub fn id(&self) -> PeerId {
        unimplemented!()
    }
    /// Makes the document's root equal to this JSON object (keys that it lacks are deleted, equal values left alone).
    /// Done when durable.
    pub fn put(
        &self,
        doc: &DocId,
        value: serde_json::Value,
    ) -> Pending<Result<(), WriteError<Infallible>>> {
        unimplemented!()
    }
    /// Runs `f` on a transaction: committed on `Ok`, rolled back on `Err` or panic. Done when durable.
    pub fn edit<R, E, F>(&self, doc: &DocId, f: F) -> Pending<Result<R, WriteError<E>>>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        unimplemented!()
    }
    /// The document as JSON; `None` if there is no such document.
    pub fn get(&self, doc: &DocId) -> Pending<Result<Option<serde_json::Value>, ReadError>> {
        unimplemented!()
    }
    /// The document as saved Automerge bytes; `None` if there is no such document.
    pub fn export(&self, doc: &DocId) -> Pending<Result<Option<Vec<u8>>, ReadError>> {
        unimplemented!()
    }
    /// Merges saved Automerge bytes into a document. Done when durable.
    pub fn import(
        &self,
        doc: &DocId,
        bytes: Vec<u8>,
    ) -> Pending<Result<Heads, WriteError<Infallible>>> {
        unimplemented!()
    }
    /// The documents whose key starts with `prefix`, in key order.
    pub fn list(&self, prefix: &str) -> Pending<Result<Vec<Listing>, ReadError>> {
        unimplemented!()
    }
    /// Changes from now on of documents whose key starts with `prefix`.
    pub fn subscribe(&self, prefix: &str) -> Subscription {
        unimplemented!()
    }
    pub fn stats(&self) -> Pending<Option<Stats>> {
        unimplemented!()
    }
    /// Stay connected to the ticket's node, for ever.
    pub fn join(&self, ticket: &Ticket) {
        unimplemented!()
    }
    /// Stop redialling, and forget that the peer was admitted.
    pub fn forget(&self, peer: &PeerId) {
        unimplemented!()
    }
    /// Done when this node's document set and the connected peer's are proven equal; `Err` if the node closes.
    pub fn level_with(&self, peer: &PeerId) -> Pending<Result<(), ReadError>> {
        unimplemented!()
    }
    /// This node's ticket: its id, the addresses of its transports, its invitation.
    pub fn ticket(&self) -> Ticket {
        unimplemented!()
    }
    /// A port for one more transport.
    pub fn attach(&self, transport: &'static str) -> Port {
        unimplemented!()
    }
    /// Writes what is unwritten, closes connections, marks the store as cleanly closed. Later calls answer `Closed`.
    pub fn close(&self) -> Pending<Result<(), StoreFault>> {
        unimplemented!()
    }
}
