//! The Bloom filter of the Automerge sync protocol.
//!
//! `nothing, or entries | bits per entry | probes | bits`, numbers in LEB128. An empty filter holds nothing.

use automerge::ChangeHash;
use bytes::{BufMut, Bytes, BytesMut};

use super::delta::DeltaError;
use crate::wire::kit::{put_uleb, take_uleb};

/// A set of change hashes that says yes to all of its members and to one stranger in a hundred. Shares the payload
/// that it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bloom(Bytes);

/// The parts of a filter that holds something.
struct Parts {
    probes: u32,
    bits: Bytes,
}

impl Bloom {
    /// Bits for each hash, and probes: one stranger in a hundred passes. Both are Automerge's; the wire carries them.
    const BITS_PER_ENTRY: usize = 10;
    const PROBES: u32 = 7;

    /// Most probes of a received filter.
    const MAX_PROBES: u64 = 64;

    /// A filter of these changes, of 10 bits for each.
    #[must_use]
    pub fn of(hashes: &[ChangeHash]) -> Self {
        let Ok(entries) = u32::try_from(hashes.len()) else {
            // More than every other limit allows; a filter that holds nothing has the peer send more, never less.
            return Self::default();
        };
        if entries == 0 {
            return Self::default();
        }
        let mut bits = vec![0_u8; (hashes.len() * Self::BITS_PER_ENTRY).div_ceil(8)];
        for hash in hashes {
            for probe in probes(hash, Self::PROBES, bits.len()) {
                if let Some(byte) = bits.get_mut(probe / 8) {
                    *byte |= 1 << (probe % 8);
                }
            }
        }
        let mut out = BytesMut::with_capacity(7 + bits.len());
        put_uleb(&mut out, hashes.len());
        put_uleb(&mut out, Self::BITS_PER_ENTRY);
        put_uleb(&mut out, Self::PROBES as usize);
        out.put_slice(&bits);
        Self(out.freeze())
    }

    /// Whether the filter says that it holds this change.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        let Ok(Some(Parts { probes: count, bits })) = Self::parts(self.0.clone()) else { return false };
        probes(hash, count, bits.len())
            .all(|probe| bits.get(probe / 8).is_some_and(|byte| byte & (1 << (probe % 8)) != 0))
    }

    /// Checks that the bytes are a filter that Automerge could use: it divides by the number of bits and makes room for
    /// all probes.
    pub(super) fn read(bytes: Bytes) -> Result<Self, DeltaError> {
        Self::parts(bytes.clone())?;
        Ok(Self(bytes))
    }

    /// The encoded filter.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn parts(mut bytes: Bytes) -> Result<Option<Parts>, DeltaError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let entries = take_uleb(&mut bytes)?;
        let bits_per_entry = take_uleb(&mut bytes)?;
        let probes = take_uleb(&mut bytes)?;
        let in_range = [entries, bits_per_entry].iter().all(|&number| u32::try_from(number).is_ok());
        let len = entries.saturating_mul(bits_per_entry).div_ceil(8);
        let usable = entries == 0 || (len > 0 && probes > 0);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !in_range || !usable || probes > Self::MAX_PROBES || len > bytes.len() {
            return Err(DeltaError::Bloom);
        }
        bytes.truncate(len);
        let probes = u32::try_from(probes).map_err(|_| DeltaError::Bloom)?;
        Ok((entries > 0).then_some(Parts { probes, bits: bytes }))
    }
}

/// The bits that stand for a hash in a filter of so many bytes: triple hashing (Dillinger and Manolios, 2004), of the
/// first twelve bytes.
fn probes(hash: &ChangeHash, count: u32, len: usize) -> impl Iterator<Item = usize> + use<> {
    let modulo = (len as u64).saturating_mul(8).max(1);
    let word = |at: usize| {
        let bytes = hash.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        u64::from(u32::from_le_bytes(bytes)) % modulo
    };
    let (mut x, mut y, z) = (word(0), word(4), word(8));
    (0..count).map(move |_| {
        let probe = x;
        x = (x + y) % modulo;
        y = (y + z) % modulo;
        usize::try_from(probe).unwrap_or(usize::MAX)
    })
}
