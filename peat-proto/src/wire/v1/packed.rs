//! Compressed entries.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use zstd::bulk::{Compressor, Decompressor};

use super::entry::Entries;
use super::error::BodyError;
use super::frame::{Frame, Kind};
use crate::wire::kit::{put_uleb, take_uleb};

/// [`Entries`], compressed by Zstandard (RFC 8878) in one piece. `length of the entries | compressed`
#[derive(Debug)]
pub struct Packed;

impl Packed {
    /// Bytes of the entries at most, whatever they are compressed to.
    pub const MAX_RAW: usize = 1 << 20;

    /// What is compressed better than this is refused. Documents reach 3 to 10.
    pub const MAX_RATIO: usize = 32;

    /// Bytes that may be reached however few they are compressed to.
    const FREE: usize = 64 << 10;
}

/// Compresses and decompresses; keeps what these need in memory, about 1.3 MB.
pub struct Packer {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
}

impl Packer {
    /// Zstandard's own default: 10,000 small documents become 0.8 MB in 20 ms, as with any level up to 6.
    const LEVEL: i32 = 3;

    /// Nothing is kept before the first use.
    #[must_use]
    pub const fn new() -> Self {
        Self { compressor: None, decompressor: None }
    }

    /// The frame for a body of entries, if it is smaller than the plain one.
    pub fn pack(&mut self, body: &[u8]) -> Option<Bytes> {
        if body.is_empty() || body.len() > Packed::MAX_RAW {
            return None;
        }
        if self.compressor.is_none() {
            self.compressor = Compressor::new(Self::LEVEL).ok();
        }
        let compressed = self.compressor.as_mut()?.compress(body).ok()?;
        let within = body.len() <= Packed::FREE + Packed::MAX_RATIO * compressed.len();
        let mut packed = BytesMut::with_capacity(4 + compressed.len());
        put_uleb(&mut packed, body.len());
        packed.put_slice(&compressed);
        (within && packed.len() < body.len()).then(|| Frame::encode(Kind::Packed, &packed))
    }

    /// Reads the body of a frame of [`Packed`].
    ///
    /// # Errors
    /// [`BodyError`]; nothing of it can be used.
    pub fn unpack(&mut self, mut body: Bytes) -> Result<Entries, BodyError> {
        let raw = take_uleb(&mut body)?;
        let most = Packed::MAX_RAW.min(Packed::FREE + Packed::MAX_RATIO * body.len());
        let raw = usize::try_from(raw).ok().filter(|raw| (1..=most).contains(raw)).ok_or(BodyError::TooMany)?;
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        let decompressor = self.decompressor.as_mut().ok_or(BodyError::Compression)?;
        let entries = decompressor.decompress(&body, raw).map_err(|_| BodyError::Compression)?;
        if entries.len() != raw {
            return Err(BodyError::Compression);
        }
        Entries::decode(entries.into())
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer")
    }
}
