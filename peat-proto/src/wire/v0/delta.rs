//! Deltas: messages of the Automerge sync protocol.
//!
//! ```text
//!   version   0x42 changes one by one, 0x43 changes or a whole document in one piece
//!   heads     count | hashes        of the sender
//!   need      count | hashes        that the sender asks for
//!   have      count | (count | hashes | length | Bloom filter)
//!   changes   count | (length | Automerge chunks)
//!   tail      nothing, or length | flags, and whatever later versions append
//! ```
//!
//! Counts and lengths are LEB128, hashes 32 bytes.

use automerge::ChangeHash;
use bytes::{BufMut, Bytes, BytesMut};

use super::bloom::Bloom;
use super::frame::{Label, Payload, TooLong, encode_frame};

use crate::id::DocId;
use crate::wire::kit::{BadNumber, put_uleb, take, take_hash, take_u8, take_uleb, uleb_len};

/// A message of the Automerge sync protocol. Chunks and filters share the payload that they were read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    /// How `changes` are to be read.
    pub version: Version,
    /// The newest changes that the sender has.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for.
    pub need: Vec<ChangeHash>,
    /// What the sender has, roughly; [`Delta::MAX_HAVES`] at most.
    pub have: Vec<Have>,
    /// Automerge chunks, unchecked: see [`admit`](crate::admit::admit).
    pub changes: Vec<Bytes>,
    /// What stands behind the changes: empty, or flags with their length, and whatever follows them.
    pub tail: Bytes,
}

/// The first byte of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Version {
    /// Each of the changes is one change.
    #[default]
    V1 = 0x42,
    /// Each of the changes may be any number of chunks, whole documents included.
    V2 = 0x43,
}

/// What a peer has beyond what both had before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Have {
    /// The heads that both had.
    pub last_sync: Vec<ChangeHash>,
    /// A filter of the changes since.
    pub bloom: Bloom,
}

impl Delta {
    /// Most summaries in one message; Automerge sends one.
    pub const MAX_HAVES: usize = 64;

    /// Shortest Automerge chunk: magic, checksum, type and length.
    const MIN_CHUNK: usize = 10;

    /// Reads the payload of a delta.
    ///
    /// # Errors
    /// [`DeltaError`]; nothing of the message can be used.
    pub fn decode(mut payload: Bytes) -> Result<Self, DeltaError> {
        let payload = &mut payload;
        let version = match take_u8(payload).ok_or(DeltaError::Truncated)? {
            0x42 => Version::V1,
            0x43 => Version::V2,
            found => return Err(DeltaError::Version { found }),
        };
        let heads = take_hashes(payload)?;
        let need = take_hashes(payload)?;
        let have = take_haves(payload)?;
        let changes = take_changes(payload)?;
        let tail = payload.clone();
        if !payload.is_empty() {
            take_prefixed(payload)?;
        }
        Ok(Self { version, heads, need, have, changes, tail })
    }

    /// Writes the payload. What [`Delta::decode`] read comes out as the same bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        out.put_u8(self.version as u8);
        put_hashes(&mut out, &self.heads);
        put_hashes(&mut out, &self.need);
        put_uleb(&mut out, self.have.len());
        for have in &self.have {
            put_hashes(&mut out, &have.last_sync);
            put_prefixed(&mut out, have.bloom.as_bytes());
        }
        put_uleb(&mut out, self.changes.len());
        for change in &self.changes {
            put_prefixed(&mut out, change);
        }
        out.put_slice(&self.tail);
        out.freeze()
    }

    /// Bytes that [`Delta::encode`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let haves = self.have.iter().map(|have| hashes_len(&have.last_sync) + prefixed_len(have.bloom.as_bytes()));
        let changes = self.changes.iter().map(|change| prefixed_len(change));
        1 + hashes_len(&self.heads)
            + hashes_len(&self.need)
            + uleb_len(self.have.len())
            + haves.sum::<usize>()
            + uleb_len(self.changes.len())
            + changes.sum::<usize>()
            + self.tail.len()
    }

    /// The frame for this document.
    ///
    /// # Errors
    /// [`TooLong`] when the message has more bytes than a frame can say.
    pub fn frame(&self, doc: &DocId) -> Result<Bytes, TooLong> {
        let payload = self.encode();
        Ok(encode_frame(Label::Delta(doc), Payload::new(&payload)?))
    }
}

/// Why a delta cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// It ends too early, or a count or length says more than is there.
    #[error("the sync message is truncated")]
    Truncated,
    /// The first byte is unknown.
    #[error("{found:#04x} does not begin a sync message")]
    Version {
        /// That byte.
        found: u8,
    },
    /// A number is too large or not in its shortest form.
    #[error("a number of the sync message is malformed")]
    Number,
    /// More summaries than [`Delta::MAX_HAVES`].
    #[error("the sync message has {count} summaries; at most {} are allowed", Delta::MAX_HAVES)]
    TooManyHaves {
        /// As announced.
        count: u64,
    },
    /// A Bloom filter that Automerge could not use.
    #[error("a Bloom filter of the sync message is malformed")]
    Bloom,
    /// An element of the list of changes is too short to be a chunk.
    #[error("a change of the sync message has only {len} bytes")]
    ChangeTooShort {
        /// Its bytes.
        len: usize,
    },
}

impl From<BadNumber> for DeltaError {
    fn from(number: BadNumber) -> Self {
        match number {
            BadNumber::Truncated => Self::Truncated,
            BadNumber::Malformed => Self::Number,
        }
    }
}

fn take_hashes(bytes: &mut Bytes) -> Result<Vec<ChangeHash>, DeltaError> {
    let count = take_count(bytes, size_of::<ChangeHash>())?;
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        hashes.push(take_hash(bytes).ok_or(DeltaError::Truncated)?);
    }
    Ok(hashes)
}

fn take_haves(bytes: &mut Bytes) -> Result<Vec<Have>, DeltaError> {
    let count = take_uleb(bytes)?;
    if count > Delta::MAX_HAVES as u64 {
        return Err(DeltaError::TooManyHaves { count });
    }
    (0..count)
        .map(|_| {
            let last_sync = take_hashes(bytes)?;
            let bloom = Bloom::read(take_prefixed(bytes)?)?;
            Ok(Have { last_sync, bloom })
        })
        .collect()
}

fn take_changes(bytes: &mut Bytes) -> Result<Vec<Bytes>, DeltaError> {
    let count = take_count(bytes, 1 + Delta::MIN_CHUNK)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let change = take_prefixed(bytes)?;
        if change.len() < Delta::MIN_CHUNK {
            return Err(DeltaError::ChangeTooShort { len: change.len() });
        }
        changes.push(change);
    }
    Ok(changes)
}

/// A count of things of at least `size` bytes each, as far as they can be there.
fn take_count(bytes: &mut Bytes, size: usize) -> Result<usize, DeltaError> {
    let count = take_len(bytes)?;
    if count > bytes.len() / size {
        return Err(DeltaError::Truncated);
    }
    Ok(count)
}

fn take_prefixed(bytes: &mut Bytes) -> Result<Bytes, DeltaError> {
    let len = take_len(bytes)?;
    take(bytes, len).ok_or(DeltaError::Truncated)
}

fn take_len(bytes: &mut Bytes) -> Result<usize, DeltaError> {
    usize::try_from(take_uleb(bytes)?).map_err(|_| DeltaError::Truncated)
}

fn put_hashes(out: &mut BytesMut, hashes: &[ChangeHash]) {
    put_uleb(out, hashes.len());
    for hash in hashes {
        out.put_slice(&hash.0);
    }
}

fn put_prefixed(out: &mut BytesMut, bytes: &[u8]) {
    put_uleb(out, bytes.len());
    out.put_slice(bytes);
}

fn hashes_len(hashes: &[ChangeHash]) -> usize {
    uleb_len(hashes.len()) + size_of_val(hashes)
}

fn prefixed_len(bytes: &[u8]) -> usize {
    uleb_len(bytes.len()) + bytes.len()
}

#[cfg(test)]
mod tests;
