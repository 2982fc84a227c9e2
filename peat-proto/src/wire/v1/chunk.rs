//! Automerge's chunks, as far as words need to know them.

use automerge::ChangeHash;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::wire::kit::{take_array, take_uleb};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// The type of a change that is not deflated.
const CHANGE: u8 = 1;

/// Bytes of a change up to which its hash is computed: of a larger one 32 bytes are less than a hundredth.
pub(super) const MAX_HASHED: usize = 4 << 10;

/// The hash of a change, if it is one chunk of that type and no more than [`MAX_HASHED`], and its checksum fits.
///
/// `magic, 4 bytes | checksum, 4 bytes | type u8 | length | content`: the hash is SHA-256 from the type on, the checksum its
/// beginning.
pub(super) fn hash(chunk: &Bytes) -> Option<ChangeHash> {
    if chunk.len() > MAX_HASHED {
        return None;
    }
    let mut rest = chunk.clone();
    if take_array(&mut rest)? != MAGIC {
        return None;
    }
    let checksum: [u8; 4] = take_array(&mut rest)?;
    let hashed = rest.clone();
    let [kind] = take_array(&mut rest)?;
    let len = take_uleb(&mut rest).ok()?;
    if kind != CHANGE || len != rest.len() as u64 {
        return None;
    }
    let hash = ChangeHash(Sha256::digest(&hashed).into());
    hash.0.starts_with(&checksum).then_some(hash)
}
