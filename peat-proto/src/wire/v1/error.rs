//! What can be wrong with received bytes.

use super::frame::Kind;
use crate::id::BadDocId;
use crate::wire::kit::BadNumber;

/// Why a stream has no further frame. Where the next one begins is lost, or must not be read: the stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is not a number below 2^28 in its shortest form, or 0.
    #[error("the length of a frame is malformed")]
    Length,
    /// The body is longer than its type allows.
    #[error("a {kind:?} of {len} bytes; at most {limit} are allowed")]
    TooLong {
        /// What it would have been.
        kind: Kind,
        /// As announced.
        len: usize,
        /// In bytes.
        limit: usize,
    },
    /// A type that this version does not know and may not skip.
    #[error("type {code:#04x} is unknown and not optional")]
    Unknown {
        /// Its number.
        code: u8,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {received} bytes of it")]
    Truncated {
        /// Bytes of the frame that had arrived.
        received: u64,
    },
}

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It ends too early, or a count or length says more than is there.
    #[error("the body is truncated")]
    Truncated,
    /// It goes on behind its last field.
    #[error("{bytes} bytes behind the body")]
    Trailing {
        /// Too many by.
        bytes: usize,
    },
    /// A number is too large for its field or not in its shortest form.
    #[error("a number of the body is malformed")]
    Number,
    /// Flags or a code that this version does not define.
    #[error("the body has undefined flags or codes")]
    Undefined,
    /// Elements are not in ascending order, or one occurs twice.
    #[error("elements of the body are out of order")]
    Order,
    /// More elements than allowed.
    #[error("the body has too many elements")]
    TooMany,
    /// The head is left out, and the last change does not tell it: see [`Word`](super::Word).
    #[error("the last change does not tell the head")]
    Head,
    /// A field that this version does not know and may not skip.
    #[error("field {tag} is unknown and not optional")]
    Unknown {
        /// Its number.
        tag: u64,
    },
    /// Compressed bytes that are not what they claim.
    #[error("the compressed body is damaged")]
    Compression,
}

/// Why one entry is not used. Its neighbours are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// A kind that this version does not know and may skip.
    #[error("kind {code:#04x} is unknown and optional")]
    Skipped {
        /// Its number.
        code: u8,
    },
    /// A kind that this version does not know and may not skip.
    #[error("kind {code:#04x} is unknown and not optional")]
    Unknown {
        /// Its number.
        code: u8,
    },
    /// The name is not UTF-8.
    #[error("the name is not UTF-8")]
    NameNotUtf8,
    /// The name names no document.
    #[error(transparent)]
    Name(#[from] BadDocId),
    /// What follows the name cannot be read.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl From<BadNumber> for BodyError {
    fn from(bad: BadNumber) -> Self {
        match bad {
            BadNumber::Truncated => Self::Truncated,
            BadNumber::Malformed => Self::Number,
        }
    }
}
