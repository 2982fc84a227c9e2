//! Reading from the front of a buffer, all or nothing, and writing numbers of variable length.

use automerge::ChangeHash;
use bytes::{Buf, BufMut, Bytes, BytesMut};

mod pieces;

pub(super) use pieces::Pieces;

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

/// Why a number of variable length cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadNumber {
    /// It ends too early.
    Truncated,
    /// It is too large or not in its shortest form.
    Malformed,
}

/// A number in LEB128: seven bits in a byte, the lowest first.
pub(super) fn take_uleb(bytes: &mut Bytes) -> Result<u64, BadNumber> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(bytes).ok_or(BadNumber::Truncated)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let overlong = byte == 0 && shift > 0;
            let too_large = shift == 63 && byte > 1;
            if overlong || too_large {
                return Err(BadNumber::Malformed);
            }
            return Ok(value);
        }
    }
    Err(BadNumber::Malformed)
}

pub(super) fn put_uleb(out: &mut BytesMut, number: impl Into<Number>) {
    let Number(mut rest) = number.into();
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A number that [`put_uleb`] writes.
pub(super) struct Number(u64);

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        // No platform has a larger one.
        Self(number as u64)
    }
}

/// Bytes that [`put_uleb`] writes.
pub(super) fn uleb_len(number: impl Into<Number>) -> usize {
    let bits = u64::BITS - number.into().0.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}
