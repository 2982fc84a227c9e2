//! Why a node's data directory could not be opened.

use std::io;
use std::path::Path;

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
    /// The file system refused.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The store is damaged, from another version, or cannot be read.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] OpenFault),
}

/// The same error, with the file it concerns in its text.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
