//! The resident part of a stored document, and its bytes.

use automerge::ChangeHash;

use crate::heads::Heads;
use crate::marker::Marker;

/// What the index keeps of a stored document; about 90 bytes on disk.
///
/// Layout, integers big-endian: version `1`, kind, flags (1: a fence follows; 2: a time follows; 4: deleted softly), chunks
/// `u32`, bytes `u64`, fence `u64` and time `u64` if flagged, head count `u16`, 32 bytes per head in ascending order; behind
/// them, of a marker, its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the chunks are.
    pub kind: Kind,
    /// The frontier of the stored history; none of a marker.
    pub heads: Heads,
    /// Bytes of all chunks together.
    pub bytes: u64,
    /// How many chunks there are.
    pub chunks: u32,
    /// The last fence at which another member acknowledged the document. Reserved for deletion with proof; carried
    /// through unchanged.
    pub shared: Option<u64>,
    /// What the content says about its own age and end.
    pub facts: Facts,
}

/// What a document's content says about itself that decides how long it lives. The same for the same heads, everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Time of the newest of its heads, in Unix seconds as their authors wrote it; `None` if none of them wrote one, or while
    /// it has not been looked at. Without it a document has no end.
    pub newest: Option<u64>,
    /// Whether its root says `_deleted`.
    pub deleted: bool,
}

impl Facts {
    /// The field of the root that says, if it is true, that a document was deleted softly.
    pub const DELETED: &'static str = "_deleted";
}

/// What the chunks of a document are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Automerge bytes: a saved document and change chunks after it.
    Automerge,
    /// Nothing: the document was deleted.
    Marker(Box<Marker>),
    /// Written by a later version: kept, never read as a document, never overwritten. Never 1 or 3.
    Other(u8),
}

/// Why bytes are not a [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRecord {
    /// The record ends before its last field.
    #[error("the record is cut short")]
    Short,
    /// Bytes follow the last field.
    #[error("the record has {0} bytes too many")]
    Long(usize),
    /// A version that this build does not know.
    #[error("the record has version {0}; this build knows 1")]
    Version(u8),
    /// An undefined flag is set.
    #[error("the record has undefined flags {0:#04x}")]
    Flags(u8),
    /// The heads are not strictly ascending.
    #[error("the record's heads are not sorted")]
    Unsorted,
    /// More heads than a record can hold.
    #[error("the record has more than {} heads", Record::MAX_HEADS)]
    Heads,
    /// What follows is not a marker.
    #[error("the record's marker is damaged")]
    Marker,
}

const VERSION: u8 = 1;
const AUTOMERGE: u8 = 1;
const MARKER: u8 = 3;

const FENCED: u8 = 1;
const TIMED: u8 = 2;
const DELETED: u8 = 4;

impl Record {
    /// Most heads that a record can hold: 1,024 x 32 B = 32 KiB. Admission refuses changes that would leave more.
    pub const MAX_HEADS: usize = 1024;

    /// The bytes of this record. Heads beyond [`Self::MAX_HEADS`] cannot arise: admission refuses them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let heads = self.heads.as_slice();
        let heads = heads.get(..Self::MAX_HEADS).unwrap_or(heads);
        let mut out = Vec::with_capacity(25 + 32 * heads.len());
        out.push(VERSION);
        out.push(match &self.kind {
            Kind::Automerge => AUTOMERGE,
            Kind::Marker(_) => MARKER,
            Kind::Other(kind) => *kind,
        });
        let flag = |set, flag| if set { flag } else { 0 };
        out.push(
            flag(self.shared.is_some(), FENCED)
                | flag(self.facts.newest.is_some(), TIMED)
                | flag(self.facts.deleted, DELETED),
        );
        out.extend(self.chunks.to_be_bytes());
        out.extend(self.bytes.to_be_bytes());
        for number in [self.shared, self.facts.newest].into_iter().flatten() {
            out.extend(number.to_be_bytes());
        }
        out.extend(u16::try_from(heads.len()).unwrap_or(u16::MAX).to_be_bytes());
        for head in heads {
            out.extend(head.0);
        }
        if let Kind::Marker(marker) = &self.kind {
            out.extend(marker.encode());
        }
        out
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`BadRecord`] names the first rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut input = bytes;
        let [version, kind, flags] = take(&mut input)?;
        if version != VERSION {
            return Err(BadRecord::Version(version));
        }
        if flags & !(FENCED | TIMED | DELETED) != 0 {
            return Err(BadRecord::Flags(flags));
        }
        let chunks = u32::from_be_bytes(take(&mut input)?);
        let stored = u64::from_be_bytes(take(&mut input)?);
        let mut flagged =
            |flag| if flags & flag == 0 { Ok(None) } else { take(&mut input).map(|it| Some(u64::from_be_bytes(it))) };
        let shared = flagged(FENCED)?;
        let facts = Facts { newest: flagged(TIMED)?, deleted: flags & DELETED != 0 };
        let count = usize::from(u16::from_be_bytes(take(&mut input)?));
        if count > Self::MAX_HEADS {
            return Err(BadRecord::Heads);
        }
        if input.len() < count * 32 {
            return Err(BadRecord::Short);
        }
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            heads.push(ChangeHash(take(&mut input)?));
        }
        if !heads.is_sorted_by(|a, b| a < b) {
            return Err(BadRecord::Unsorted);
        }
        let kind = match kind {
            AUTOMERGE => Kind::Automerge,
            MARKER => {
                let marker = Marker::decode(std::mem::take(&mut input)).ok_or(BadRecord::Marker)?;
                Kind::Marker(Box::new(marker))
            }
            other => Kind::Other(other),
        };
        if !input.is_empty() {
            return Err(BadRecord::Long(input.len()));
        }
        Ok(Self { kind, heads: Heads::new(heads), bytes: stored, chunks, shared, facts })
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], BadRecord> {
    let (head, rest) = input.split_first_chunk().ok_or(BadRecord::Short)?;
    *input = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::{Spread, Text};

    fn record(heads: usize, shared: Option<u64>) -> Record {
        let heads = (0..heads).map(|n| ChangeHash([u8::try_from(n).expect("small"); 32])).collect();
        let facts = Facts { newest: shared.map(|fence| fence + 1), deleted: shared.is_some() };
        Record { kind: Kind::Automerge, heads: Heads::new(heads), bytes: 77, chunks: 3, shared, facts }
    }

    #[test]
    fn the_record_of_a_marker_reads_back_as_written_and_refuses_every_cut_and_tail() {
        let by = Text::new("node-a").expect("short");
        let marker = Marker { incarnation: 0, lamport: 9, by, at_ms: 7, reason: None, spread: Spread::SystemWide };
        let record = Record::marker(marker, Some(4));
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            assert!(matches!(Record::decode(&bytes[..cut]), Err(BadRecord::Short | BadRecord::Marker)));
        }
        assert_eq!(Record::decode(&[bytes.as_slice(), &[0]].concat()), Err(BadRecord::Marker));
    }

    #[test]
    fn a_record_reads_back_as_written_and_refuses_every_cut_and_tail() {
        for record in [record(0, None), record(1, Some(9)), record(5, None)] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Ok(record));
            for cut in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..cut]), Err(BadRecord::Short));
            }
            let long = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Record::decode(&long), Err(BadRecord::Long(1)));
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept() {
        let later = Record { kind: Kind::Other(9), ..record(1, None) };
        assert_eq!(Record::decode(&later.encode()), Ok(later));
    }
}
