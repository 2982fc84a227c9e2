//! The resident part of a stored document, and its bytes.

use automerge::ChangeHash;

use crate::heads::Heads;

/// What the index keeps of a stored document; about 80 bytes on disk.
///
/// Layout, integers big-endian: version `1`, kind, flags (bit 0: a fence follows), chunks `u32`, bytes `u64`,
/// fence `u64` if flagged, head count `u16`, then 32 bytes per head in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the chunks are.
    pub kind: Kind,
    /// The frontier of the stored history.
    pub heads: Heads,
    /// Bytes of all chunks together.
    pub bytes: u64,
    /// How many chunks there are.
    pub chunks: u32,
    /// The last fence at which another member acknowledged the document. Reserved for deletion with proof; carried
    /// through unchanged.
    pub shared: Option<u64>,
}

/// What the chunks of a document are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Automerge bytes: a saved document and change chunks after it.
    Automerge,
    /// Written by a later version: kept, never read as a document, never overwritten. Never 1.
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
}

const VERSION: u8 = 1;
const AUTOMERGE: u8 = 1;
const FENCED: u8 = 1;

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
        out.push(match self.kind {
            Kind::Automerge => AUTOMERGE,
            Kind::Other(kind) => kind,
        });
        out.push(if self.shared.is_some() { FENCED } else { 0 });
        out.extend(self.chunks.to_be_bytes());
        out.extend(self.bytes.to_be_bytes());
        if let Some(fence) = self.shared {
            out.extend(fence.to_be_bytes());
        }
        out.extend(u16::try_from(heads.len()).unwrap_or(u16::MAX).to_be_bytes());
        for head in heads {
            out.extend(head.0);
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
        if flags & !FENCED != 0 {
            return Err(BadRecord::Flags(flags));
        }
        let chunks = u32::from_be_bytes(take(&mut input)?);
        let stored = u64::from_be_bytes(take(&mut input)?);
        let shared = if flags & FENCED == 0 { None } else { Some(u64::from_be_bytes(take(&mut input)?)) };
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
        if !input.is_empty() {
            return Err(BadRecord::Long(input.len()));
        }
        let kind = if kind == AUTOMERGE { Kind::Automerge } else { Kind::Other(kind) };
        Ok(Self { kind, heads: Heads::new(heads), bytes: stored, chunks, shared })
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

    fn record(heads: usize, shared: Option<u64>) -> Record {
        let heads = (0..heads).map(|n| ChangeHash([u8::try_from(n).expect("small"); 32])).collect();
        Record { kind: Kind::Automerge, heads: Heads::new(heads), bytes: 77, chunks: 3, shared }
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
