//! Reading from the front of a buffer, all or nothing.

use automerge::ChangeHash;
use bytes::{Buf, Bytes};

/// The first `len` bytes, sharing the buffer.
pub(super) fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

pub(super) fn take_array<const N: usize>(bytes: &mut Bytes) -> Option<[u8; N]> {
    let array = *bytes.first_chunk()?;
    bytes.advance(N);
    Some(array)
}

pub(super) fn take_u8(bytes: &mut Bytes) -> Option<u8> {
    take_array(bytes).map(u8::from_be_bytes)
}

pub(super) fn take_u16(bytes: &mut Bytes) -> Option<u16> {
    take_array(bytes).map(u16::from_be_bytes)
}

pub(super) fn take_u32(bytes: &mut Bytes) -> Option<u32> {
    take_array(bytes).map(u32::from_be_bytes)
}

pub(super) fn take_u64(bytes: &mut Bytes) -> Option<u64> {
    take_array(bytes).map(u64::from_be_bytes)
}

pub(super) fn take_hash(bytes: &mut Bytes) -> Option<ChangeHash> {
    take_array(bytes).map(ChangeHash)
}
