//! Frames, batches and heartbeats as a legacy peer writes and reads them (wire.md 4, 5.3, 5.4, 8).

use std::fmt;

/// Type bytes (4.2).
pub mod kind {
    /// One Automerge sync message.
    pub const DELTA: u8 = 0x00;
    /// One saved document.
    pub const SNAPSHOT: u8 = 0x01;
    /// Never sent; ignored inside a batch, an error outside.
    pub const WINDOWED: u8 = 0x02;
    /// One deletion marker.
    pub const TOMBSTONE: u8 = 0x04;
    /// Many of them.
    pub const TOMBSTONE_BATCH: u8 = 0x05;
    /// Never sent; taken as an empty 0x05.
    pub const ACK: u8 = 0x06;
    /// Entries of mixed type.
    pub const BATCH: u8 = 0x07;
    /// The opening of a reconciliation.
    pub const NEGENTROPY: u8 = 0x08;
    /// Its answers.
    pub const NEGENTROPY_REPLY: u8 = 0x09;
}

use kind::{ACK, BATCH, DELTA, NEGENTROPY, NEGENTROPY_REPLY, SNAPSHOT, TOMBSTONE, TOMBSTONE_BATCH, WINDOWED};

/// Key of a batch (4.1).
pub const BATCH_KEY: &str = "batch";
/// Key of a reconciliation message (4.1).
pub const NEGENTROPY_KEY: &str = "_negentropy";

/// Hops that a batch may take; written, and read by nobody (5.4).
pub const TTL: u8 = 5;

/// A reservation that the allocator of a real machine refuses, which ends the process. By the vectors it lies between
/// 19.2 GB and 56 GB (17.5).
const ALLOCATOR: u64 = 32 << 30;

/// What a legacy peer reserves for each announced entry of a batch, in bytes (5.4).
const ENTRY_RESERVE: u64 = 56;

/// Why a legacy decoder refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// More bytes were announced than there are.
    Truncated,
    /// A string is not UTF-8.
    Utf8,
    /// A type that does not belong here.
    Kind(u8),
    /// A direction above 3 (6.1).
    Direction(u8),
    /// The announced count asks for more memory than there is: the process aborts.
    Abort,
    /// A document or sync message that Automerge refuses.
    Automerge,
    /// A reconciliation message that its library refuses.
    Negentropy,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Bad {}

/// A frame, and an entry of a batch, which has the same layout (4, 5.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// `collection:id`, or a name of 4.1.
    pub key: String,
    /// The type byte.
    pub kind: u8,
    /// What the type says.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of this type.
    #[must_use]
    pub fn new(kind: u8, key: &str, payload: Vec<u8>) -> Self {
        Self { key: key.to_owned(), kind, payload }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        7 + self.key.len() + self.payload.len()
    }

    /// The bytes. Like the original it wraps a length that does not fit and writes all bytes behind it (5.3).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        put_text(&mut out, &self.key);
        out.push(self.kind);
        out.extend_from_slice(&(self.payload.len() as u32).to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    /// The frame at the start of a stream and its length; `None` while it is not complete. A type that is not legal is
    /// refused only after its payload has been read (4).
    pub fn read(stream: &[u8]) -> Result<Option<(Self, usize)>, Bad> {
        let mut input = Input(stream);
        let Ok(len) = input.u16() else { return Ok(None) };
        let Ok(key) = input.take(len.into()) else { return Ok(None) };
        let key = text(key)?;
        let (Ok(kind), Ok(len)) = (input.u8(), input.u32()) else { return Ok(None) };
        let Ok(payload) = input.take(len as usize) else { return Ok(None) };
        let legal = matches!(
            kind,
            DELTA | SNAPSHOT | TOMBSTONE | TOMBSTONE_BATCH | ACK | BATCH | NEGENTROPY | NEGENTROPY_REPLY
        );
        if !legal {
            return Err(Bad::Kind(kind));
        }
        let frame = Self { key, kind, payload: payload.to_vec() };
        Ok(Some((frame, stream.len() - input.0.len())))
    }

    /// An entry of a batch and its length; other types are legal than outside (4.2).
    pub fn read_entry(bytes: &[u8]) -> Result<(Self, usize), Bad> {
        if bytes.len() < 7 {
            return Err(Bad::Truncated);
        }
        let mut input = Input(bytes);
        let key = input.text()?;
        let kind = input.u8()?;
        if !matches!(kind, DELTA | SNAPSHOT | WINDOWED | TOMBSTONE | TOMBSTONE_BATCH | ACK | BATCH) {
            return Err(Bad::Kind(kind));
        }
        let len = input.u32()?;
        let payload = input.take(len as usize)?.to_vec();
        Ok((Self { key, kind, payload }, bytes.len() - input.0.len()))
    }
}

/// The payload of type 0x07 (5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// A counter per process, or 0.
    pub id: u64,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Hops left.
    pub ttl: u8,
    /// In the order in which they are applied.
    pub entries: Vec<Frame>,
}

impl Batch {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        out.push(self.ttl);
        out.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.encode());
        }
        out
    }

    /// The frame that carries it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::new(BATCH, BATCH_KEY, self.encode())
    }

    /// One bad entry fails all; bytes behind the last one are ignored. `lenient` is what it should be: a bad entry whose
    /// length is intact costs itself.
    pub fn decode(payload: &[u8], lenient: bool) -> Result<Self, Bad> {
        let mut input = Input(payload);
        let (id, created_ms, ttl, count) = (input.u64()?, input.u64()?, input.u8()?, input.u32()?);
        reserve(count, ENTRY_RESERVE)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            match Frame::read_entry(input.0) {
                Ok((entry, used)) => {
                    input.take(used)?;
                    entries.push(entry);
                }
                Err(Bad::Kind(_) | Bad::Utf8) if lenient => {
                    let key = input.u16()?;
                    input.take(usize::from(key) + 1)?;
                    let payload = input.u32()?;
                    input.take(payload as usize)?;
                }
                Err(bad) => return Err(bad),
            }
        }
        Ok(Self { id, created_ms, ttl, entries })
    }
}

/// All of a heartbeat's stream (8).
#[must_use]
pub fn heartbeat(unix_ms: u64) -> Vec<u8> {
    let mut out = vec![0x01];
    out.extend_from_slice(&unix_ms.to_be_bytes());
    out
}

/// The time in a heartbeat; `None` while it is not complete.
pub fn read_heartbeat(stream: &[u8]) -> Result<Option<u64>, Bad> {
    match stream.first() {
        None => Ok(None),
        Some(0x01) => Ok(Input(&stream[1..]).u64().ok()),
        Some(other) => Err(Bad::Kind(*other)),
    }
}

/// Fails as an allocator would that is asked for `count` elements of `size` bytes.
pub(super) fn reserve(count: u32, size: u64) -> Result<(), Bad> {
    if u64::from(count) * size > ALLOCATOR { Err(Bad::Abort) } else { Ok(()) }
}

/// A `u16` length and the bytes. The length wraps (5.3, 6.1).
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn text(bytes: &[u8]) -> Result<String, Bad> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Bad::Utf8)
}

/// What is left to decode.
#[derive(Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Bad::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Bad::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Bad> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Bad> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Bad> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Bad> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, Bad> {
        let len = self.u16()?;
        text(self.take(len.into())?)
    }
}
