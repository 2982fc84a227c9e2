//! Local misuse, as typed results of the call that it happened in.

use crate::store::StoreFault;

/// Why [`Node::edit`](crate::Node::edit) changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError<E> {
    /// The document exists and is not in memory: give [`Input::Open`](crate::Input::Open) first.
    #[error("the document is not loaded")]
    NotLoaded,
    /// A worker has the document: try again after the next [`Event::Opened`](crate::Event::Opened) for it.
    #[error("the document is busy")]
    Busy,
    /// The stored document is of a kind that this version does not know, or cannot be read.
    #[error("the document cannot be edited")]
    Unreadable,
    /// The last write failed; edits are refused until the store accepts writes again.
    #[error("the store refuses writes: {0}")]
    Store(StoreFault),
    /// The edit was larger than a frame may be; nothing of it was kept.
    #[error("the edit is too large to travel")]
    TooLarge,
    /// The closure returned this error, and its changes were rolled back.
    #[error(transparent)]
    Aborted(E),
}
