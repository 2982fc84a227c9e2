//! What can go wrong, by the call that it goes wrong in.

use std::io;
use std::path::Path;

use peat_proto as proto;
use peat_proto::Refusal;
use peat_proto::store::StoreFault;

use crate::json::TooDeep;
use crate::rules::BadRules;
use crate::store::OpenFault;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("another process uses this data directory")]
    Locked,
    /// There is no key.
    #[error("no node lives here")]
    NotInitialised,
    /// The permissions of the key or the invitation let group or others in.
    #[error("the key file or the invitation can be read by others")]
    KeyExposed,
    /// The file of this name is missing, or not what a node writes there.
    #[error("the file `{0}` is missing or damaged")]
    Damaged(&'static str),
    /// The policy file says something that means nothing.
    #[error("the policy file cannot be used: {0}")]
    Rules(#[from] BadRules),
    /// The file system refused.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The store is damaged, from another version, or cannot be read.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] OpenFault),
}

/// Why a write was not done, or is not known to be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<E> {
    /// The disk refused this write, or an earlier one. If it was this one, it stays in memory and is written again
    /// until the store accepts it; it is lost if the node stops first.
    #[error("the store refuses writes: {0}")]
    Store(StoreFault),
    /// The stored document could not be loaded; nothing was changed.
    #[error("the document cannot be read: {0}")]
    Unreadable(StoreFault),
    /// The bytes to import were not applied.
    #[error("the changes were refused: {0}")]
    Refused(Refusal),
    /// The document was deleted, and its collection keeps it so; nothing was changed.
    #[error("the document is deleted")]
    Deleted,
    /// More than fits into one message to a peer; nothing was changed.
    #[error("the edit is too large")]
    TooLarge,
    /// Only an object can be the root of a document.
    #[error("the value is not a JSON object")]
    NotAnObject,
    /// The JSON value is nested too deeply; nothing was changed.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// Automerge did not take the JSON value; nothing was changed.
    #[error("the value cannot be stored: {0}")]
    Value(String),
    /// The node has closed. Unknown whether the write was done, if it had been begun.
    #[error("the node is closed")]
    Closed,
    /// The closure returned this error; nothing was changed.
    #[error(transparent)]
    Aborted(E),
}

/// Why a document was not deleted, or is not known to be durably so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// There is nothing that could be deleted, or the policy keeps it.
    #[error(transparent)]
    Refused(proto::DeleteError),
    /// The disk refused this write, or an earlier one, or does not let the document be read. If it was this one, it is
    /// written again until the store accepts it; it is lost if the node stops first.
    #[error("the store refuses: {0}")]
    Store(StoreFault),
    /// The node has closed.
    #[error("the node is closed")]
    Closed,
}

/// Why the rules were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// They could not be written.
    #[error("the policy file cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Why a document could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The stored document could not be loaded.
    #[error("the document cannot be read: {0}")]
    Store(StoreFault),
    /// The document is nested too deeply for JSON; [`Node::export`](crate::Node::export) still works.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// The node has closed.
    #[error("the node is closed")]
    Closed,
}

/// Why a peer is not level with this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// The connection was closed for a reason that does not pass by itself.
    #[error("{} refused the connection with code {code}", if *by_peer { "the peer" } else { "this node" })]
    Refused {
        /// The code as it was sent: [`NotAdmitted`](proto::CloseCode::NotAdmitted) or [`Version`](proto::CloseCode::Version).
        code: u32,
        /// Whether the peer closed it, and not this node.
        by_peer: bool,
    },
    /// The node has closed.
    #[error("the node is closed")]
    Closed,
}

/// Why a request to compare documents was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// As many as may be are under way: [`Config::max_syncs`](proto::Config::max_syncs).
    #[error("too many requests to synchronise are under way")]
    Busy,
    /// The node has closed.
    #[error("the node is closed")]
    Closed,
}

/// The same error, with the file it concerns in its text.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
