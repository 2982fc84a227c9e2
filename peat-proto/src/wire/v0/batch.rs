//! Batches: entries for several documents in one frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Header, Label, MessageType, Payload, TooLong, encode_frame, put_frame};
use super::tombstone::{Tombstone, TombstoneError};
use crate::id::{BadDocId, DocId};
use crate::wire::kit::{take, take_u8, take_u16, take_u32, take_u64};

/// A received batch.
///
/// Its layout is sound; its entries are looked at one by one by [`Batch::entries`], so that a bad one costs itself and
/// not its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number given by the sender; legacy peers mostly send 0 and nobody reads it.
    pub id: u64,
    /// When it was made, in Unix milliseconds by the sender's clock.
    pub created_ms: u64,
    /// Hops that it may travel; nobody reads it, and a batch with 0 is applied like any other.
    pub ttl: u8,
    /// Bytes behind the last entry, and behind the tombstones within theirs. They are ignored, and to be counted.
    pub trailing: usize,
    count: u32,
    entries: Bytes,
}

impl Batch {
    /// Hops that our batches may travel, as legacy peers send.
    pub const DEFAULT_TTL: u8 = 5;

    /// Bytes before the first entry.
    pub const HEADER: usize = 21;

    /// Reads the payload of a batch frame.
    ///
    /// # Errors
    /// [`BatchError`] when the layout is broken; then nothing of the batch can be used.
    pub fn decode(mut payload: Bytes) -> Result<Self, BatchError> {
        let payload = &mut payload;
        let id = take_u64(payload).ok_or(BatchError::Truncated)?;
        let created_ms = take_u64(payload).ok_or(BatchError::Truncated)?;
        let ttl = take_u8(payload).ok_or(BatchError::Truncated)?;
        let count = take_u32(payload).ok_or(BatchError::Truncated)?;
        if u64::from(count) > (payload.len() / Header::FIXED) as u64 {
            return Err(BatchError::TooManyEntries { count });
        }
        let mut rest = payload.clone();
        let mut slack = 0;
        for _ in 0..count {
            let entry = RawEntry::read(&mut rest)?;
            if entry.code == MessageType::Tombstone.code() {
                slack += Tombstone::slack(entry.payload);
            }
        }
        let entries = payload.split_to(payload.len() - rest.len());
        Ok(Self { id, created_ms, ttl, trailing: rest.len() + slack, count, entries })
    }

    /// How many entries there are, bad ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in order, each with its own verdict.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, EntryError>> + use<> {
        self.raw_entries().map(RawEntry::validate)
    }

    /// The entries in order, as they stand.
    pub fn raw_entries(&self) -> impl Iterator<Item = RawEntry> + use<> {
        let mut rest = self.entries.clone();
        std::iter::from_fn(move || RawEntry::read(&mut rest).ok())
    }
}

/// A valid entry: nothing else has a place in a batch, and a legacy peer throws away the whole of one that has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Something for a document.
    Document {
        /// Which.
        doc: DocId,
        /// What.
        body: Body,
    },
    /// A tombstone.
    Tombstone(Tombstone),
}

/// What an entry has for a document. Payloads are not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A message of the Automerge sync protocol.
    Delta(Bytes),
    /// A saved document.
    Snapshot(Bytes),
}

impl Entry {
    /// Bytes in a batch.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let payload = match self {
            Self::Document { body: Body::Delta(payload) | Body::Snapshot(payload), .. } => payload.len(),
            Self::Tombstone(tombstone) => tombstone.encoded_len(),
        };
        self.label().header_len() + payload
    }

    /// The entry as a frame of its own, outside of any batch.
    ///
    /// # Errors
    /// [`TooLong`] when its payload has more bytes than a frame can say.
    pub fn frame(&self) -> Result<Bytes, TooLong> {
        Ok(encode_frame(self.label(), Payload::new(&self.payload())?))
    }

    fn label(&self) -> Label<'_> {
        match self {
            Self::Document { doc, body: Body::Delta(_) } => Label::Delta(doc),
            Self::Document { doc, body: Body::Snapshot(_) } => Label::Snapshot(doc),
            Self::Tombstone(tombstone) => Label::Tombstone(tombstone),
        }
    }

    fn payload(&self) -> Bytes {
        match self {
            Self::Document { body: Body::Delta(payload) | Body::Snapshot(payload), .. } => payload.clone(),
            Self::Tombstone(tombstone) => tombstone.encode(),
        }
    }
}

/// An entry whose layout is sound and whose contents are unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// The key, not necessarily UTF-8; at most 65,535 bytes.
    pub key: Bytes,
    /// The number of the type.
    pub code: u8,
    /// The payload.
    pub payload: Bytes,
}

impl RawEntry {
    /// Takes the first entry off `bytes`.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] when the entry is longer than what is there.
    pub fn read(bytes: &mut Bytes) -> Result<Self, BatchError> {
        Self::take(bytes).ok_or(BatchError::Truncated)
    }

    /// Checks key and type.
    ///
    /// # Errors
    /// [`EntryError`] says why the entry cannot be used.
    pub fn validate(self) -> Result<Entry, EntryError> {
        let key = std::str::from_utf8(&self.key).map_err(|_| EntryError::KeyNotUtf8)?;
        let body = match MessageType::from_code(self.code) {
            Some(MessageType::Delta) => Body::Delta(self.payload),
            Some(MessageType::Snapshot) => Body::Snapshot(self.payload),
            // Its key says nothing.
            Some(MessageType::Tombstone) => {
                let mut payload = self.payload;
                return Ok(Entry::Tombstone(Tombstone::take(&mut payload)?));
            }
            _ => return Err(EntryError::Type { code: self.code }),
        };
        let doc = DocId::new(key)?;
        Ok(Entry::Document { doc, body })
    }

    fn take(bytes: &mut Bytes) -> Option<Self> {
        let key_len = take_u16(bytes)?;
        let key = take(bytes, key_len.into())?;
        let code = take_u8(bytes)?;
        let payload_len = take_u32(bytes)?;
        let payload = take(bytes, usize::try_from(payload_len).ok()?)?;
        Some(Self { key, code, payload })
    }
}

/// Fills a batch up to a size.
#[derive(Debug)]
pub struct BatchBuilder {
    payload: BytesMut,
    count: u32,
    budget: usize,
}

impl BatchBuilder {
    /// Where the count stands.
    const COUNT: std::ops::Range<usize> = 17..21;

    /// An empty batch whose frame shall have at most `budget` bytes, at least enough for no entries and at most what a
    /// frame can say.
    #[must_use]
    pub fn new(id: u64, created_ms: u64, ttl: u8, budget: usize) -> Self {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        let budget = budget.saturating_sub(Label::Batch.header_len()).clamp(Batch::HEADER, most);
        let mut payload = BytesMut::new();
        payload.put_u64(id);
        payload.put_u64(created_ms);
        payload.put_u8(ttl);
        payload.put_u32(0);
        Self { payload, count: 0, budget }
    }

    /// Appends an entry if it fits; whether it did.
    #[must_use]
    pub fn push(&mut self, entry: &Entry) -> bool {
        if entry.encoded_len() > self.budget - self.payload.len() {
            return false;
        }
        put_frame(&mut self.payload, entry.label(), Payload::within_budget(&entry.payload()));
        // An entry has 7 bytes at least, so the count stays far below what the payload's length allows.
        self.count += 1;
        true
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        if let Some(count) = self.payload.get_mut(Self::COUNT) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.payload.freeze()
    }

    /// The frame.
    #[must_use]
    pub fn frame(self) -> Bytes {
        let payload = self.finish();
        encode_frame(Label::Batch, Payload::within_budget(&payload))
    }
}

/// Why nothing of a batch can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It ends before its last entry does.
    #[error("the batch is truncated")]
    Truncated,
    /// The bytes cannot hold so many entries.
    #[error("the batch announces {count} entries, more than its bytes can hold")]
    TooManyEntries {
        /// As announced.
        count: u32,
    },
}

/// Why one entry of a batch is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The type is unknown or has no place in a batch.
    #[error("type {code:#04x} has no place in a batch")]
    Type {
        /// Its number.
        code: u8,
    },
    /// The key is not UTF-8.
    #[error("the key is not UTF-8")]
    KeyNotUtf8,
    /// The key names no document.
    #[error(transparent)]
    Key(#[from] BadDocId),
    /// The tombstone cannot be used.
    #[error(transparent)]
    Tombstone(#[from] TombstoneError),
}
