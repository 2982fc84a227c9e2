//! One frame: header and payload.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

use super::tombstone::Tombstone;
use crate::id::{BadDocId, DocId};

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A message of the Automerge sync protocol, for the document that the key names.
    Delta = 0x00,
    /// A saved document.
    Snapshot = 0x01,
    /// That a document was deleted.
    Tombstone = 0x04,
    /// That many were.
    Tombstones = 0x05,
    /// Entries for several documents.
    Batch = 0x07,
    /// The first message of negentropy, which we only receive.
    NegentropyInit = 0x08,
    /// Any other message of negentropy.
    NegentropyResponse = 0x09,
}

impl MessageType {
    /// The type of this number, if it is one that this version reads.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x00 => Some(Self::Delta),
            0x01 => Some(Self::Snapshot),
            0x04 => Some(Self::Tombstone),
            0x05 => Some(Self::Tombstones),
            0x07 => Some(Self::Batch),
            0x08 => Some(Self::NegentropyInit),
            0x09 => Some(Self::NegentropyResponse),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// What a frame is that is not read, by the number of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// 0x02, a windowed history. Nobody sends it.
    Windowed,
    /// 0x03, reserved. Nobody sends it.
    Reserved,
    /// 0x06, that tombstones arrived. Its payload is not defined, and it says nothing that is relied on.
    Ack,
    /// 0x0a, for the documents that reconciliation showed to be missing. Its payload was never defined.
    Request,
    /// Any other.
    Unknown,
}

impl Unread {
    /// The type of this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0x02 => Self::Windowed,
            0x03 => Self::Reserved,
            0x06 => Self::Ack,
            0x0a => Self::Request,
            _ => Self::Unknown,
        }
    }
}

/// The key of a received frame: any UTF-8, shared with the buffer that it arrived in.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Bytes);

impl Key {
    /// Checks that the bytes are UTF-8.
    pub(super) fn new(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).ok()?;
        Some(Self(bytes))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when it was made; checking again is cheaper than a copy.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A received frame. Its payload is not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Names the document of a delta or snapshot; says nothing for other types.
    pub key: Key,
    /// What the payload is.
    pub kind: MessageType,
    /// At most as long as [`Caps`](super::Caps) allow.
    pub payload: Bytes,
}

impl Frame {
    /// The document that a delta or snapshot is for.
    ///
    /// # Errors
    /// [`BadDocId`] when the key names none, as that of other types.
    pub fn doc(&self) -> Result<DocId, BadDocId> {
        DocId::new(&self.key)
    }
}

/// What stands before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key_len: usize,
    pub(super) code: u8,
    pub(super) payload_len: u32,
}

/// Outcome of looking for a header at the front of some bytes.
pub(super) enum Parsed {
    Whole(Header),
    /// So many bytes in all are needed to go on.
    Needs(usize),
}

impl Header {
    const KEY_LEN: usize = 2;
    /// Bytes of a header besides its key.
    pub(super) const FIXED: usize = 7;

    /// Reads a header; a key longer than `max_key` or not UTF-8 is an error as soon as it can be seen.
    pub(super) fn parse(bytes: &[u8], max_key: usize) -> Result<Parsed, FrameError> {
        let Some((&key_len, rest)) = bytes.split_first_chunk() else {
            return Ok(Parsed::Needs(Self::KEY_LEN));
        };
        let key_len = usize::from(u16::from_be_bytes(key_len));
        if key_len > max_key {
            return Err(FrameError::KeyTooLong { len: key_len, limit: max_key });
        }
        let fields = rest.split_at_checked(key_len).and_then(|(key, rest)| {
            let (&[code], rest) = rest.split_first_chunk()?;
            Some((key, code, rest.first_chunk()?))
        });
        let Some((key, code, payload_len)) = fields else {
            return Ok(Parsed::Needs(Self::FIXED + key_len));
        };
        std::str::from_utf8(key).map_err(|_| FrameError::KeyNotUtf8)?;
        Ok(Parsed::Whole(Self { key_len, code, payload_len: u32::from_be_bytes(*payload_len) }))
    }

    /// Bytes up to the payload.
    pub(super) fn len(&self) -> usize {
        Self::FIXED + self.key_len
    }
}

/// What a frame of ours is and whom it is for; decides type and key, so that none can contradict the other.
#[derive(Debug, Clone, Copy)]
pub enum Label<'a> {
    /// A delta for this document.
    Delta(&'a DocId),
    /// A snapshot of this document.
    Snapshot(&'a DocId),
    /// This tombstone.
    Tombstone(&'a Tombstone),
    /// A batch of tombstones.
    Tombstones,
    /// A batch.
    Batch,
    /// An answer of negentropy.
    NegentropyResponse,
}

impl Label<'_> {
    /// The type of the frame.
    #[must_use]
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::Delta(_) => MessageType::Delta,
            Self::Snapshot(_) => MessageType::Snapshot,
            Self::Tombstone(_) => MessageType::Tombstone,
            Self::Tombstones => MessageType::Tombstones,
            Self::Batch => MessageType::Batch,
            Self::NegentropyResponse => MessageType::NegentropyResponse,
        }
    }

    /// The key of the frame: at most [`Self::MAX_KEY`] bytes.
    #[must_use]
    pub fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Delta(doc) | Self::Snapshot(doc) => doc.as_str(),
            Self::Tombstone(it) => return Cow::Owned(format!("tombstones:{}", it.name())),
            Self::Tombstones => "tombstones:batch",
            Self::Batch => "batch",
            Self::NegentropyResponse => "_negentropy",
        })
    }

    /// Longest key that we write or read: that of a tombstone, whose document may be named in two parts of any length.
    pub const MAX_KEY: usize = "tombstones::".len() + 2 * DocId::MAX_LEN;

    /// Bytes of the header of such a frame.
    #[must_use]
    pub fn header_len(&self) -> usize {
        let key = match self {
            Self::Tombstone(it) => "tombstones::".len() + it.name_len(),
            _ => self.key().len(),
        };
        Header::FIXED + key
    }
}

/// Bytes that fit into a frame.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    bytes: &'a [u8],
    len: u32,
}

impl<'a> Payload<'a> {
    /// Checks that the length can be written.
    ///
    /// # Errors
    /// [`TooLong`] for more than 4,294,967,295 bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TooLong> {
        let len = u32::try_from(bytes.len()).map_err(|_| TooLong)?;
        Ok(Self { bytes, len })
    }

    /// A payload that was built within a budget of at most 4,294,967,295 bytes.
    pub(super) fn within_budget(bytes: &'a [u8]) -> Self {
        let len = bytes.len() as u32;
        Self { bytes, len }
    }
}

/// A payload is longer than a frame can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a payload has at most {} bytes", u32::MAX)]
pub struct TooLong;

/// Writes a frame.
#[must_use]
pub fn encode_frame(label: Label<'_>, payload: Payload<'_>) -> Bytes {
    let mut frame = BytesMut::with_capacity(label.header_len() + payload.bytes.len());
    put_frame(&mut frame, label, payload);
    frame.freeze()
}

/// Appends a frame, or an entry of a batch, which has the same layout.
pub(super) fn put_frame(out: &mut BytesMut, label: Label<'_>, payload: Payload<'_>) {
    const { assert!(Label::MAX_KEY <= u16::MAX as usize) };
    let key = label.key();
    out.put_u16(key.len() as u16);
    out.put_slice(key.as_bytes());
    out.put_u8(label.kind().code());
    out.put_u32(payload.len);
    out.put_slice(payload.bytes);
}

/// Why a stream has no further frame. Where the next one begins is lost: the stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The key is longer than allowed.
    #[error("a key of {len} bytes; at most {limit} are allowed")]
    KeyTooLong {
        /// As announced.
        len: usize,
        /// In bytes.
        limit: usize,
    },
    /// The key is not UTF-8.
    #[error("the key is not UTF-8")]
    KeyNotUtf8,
    /// The payload is longer than its type allows.
    #[error("a payload of {len} bytes for type {kind:?}; at most {limit} are allowed")]
    PayloadTooLong {
        /// What it would have been.
        kind: MessageType,
        /// As announced.
        len: u32,
        /// In bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {received} bytes of it")]
    Truncated {
        /// Bytes of the frame that had arrived.
        received: u64,
    },
}
