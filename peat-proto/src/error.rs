//! Local misuse, as typed results of the call that it happened in.

use crate::store::StoreFault;

/// Why [`Node::delete`](crate::Node::delete) deleted nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// There is no such document.
    #[error("there is no such document")]
    NotFound,
    /// It was deleted before.
    #[error("the document is deleted already")]
    Deleted,
    /// Its collection lets documents go by themselves: see [`Deletion::Implicit`](crate::policy::Deletion::Implicit).
    #[error("documents of this collection cannot be deleted; they go when their time is over")]
    Expires,
    /// Its collection keeps documents for ever.
    #[error("documents of this collection cannot be deleted")]
    Immutable,
    /// Its collection deletes softly, which is an edit, and the document is not in memory: give
    /// [`Input::Open`](crate::Input::Open) first.
    #[error("the document is not loaded")]
    NotLoaded,
    /// A worker has the document: try again after the next [`Event::Opened`](crate::Event::Opened) for it.
    #[error("the document is busy")]
    Busy,
    /// The stored document is of a kind that this version does not know, or cannot be read.
    #[error("the document cannot be read")]
    Unreadable,
    /// The last write failed; nothing is written until the store accepts writes again.
    #[error("the store refuses writes: {0}")]
    Store(StoreFault),
    /// There are as many markers as [`Config::max_markers`](crate::Config::max_markers) allows.
    #[error("the node remembers as many deletions as it may")]
    Full,
}

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
    /// The document was deleted.
    #[error("the document is deleted")]
    Deleted,
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
