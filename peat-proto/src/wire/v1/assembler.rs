//! From the bytes of a stream to frames.

use bytes::{Buf, Bytes};

use super::error::FrameError;
use super::frame::{Frame, Kind};
use crate::wire::kit::Pieces;

/// Longest bodies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Of what is said before anything is proven, and of pings.
    pub greeting: usize,
    /// Of terms and of everything that compares sets.
    pub control: usize,
    /// Of entries.
    pub entries: usize,
}

impl Caps {
    /// 1 KiB for a greeting: ours have fewer than 100 bytes, the rest is for successors. 16 KiB for a comparison, as much as
    /// control frames may have in flight. 1 MiB for entries: ours have 64 KiB, and what is larger travels in pieces.
    pub const PEER: Self = Self { greeting: 1 << 10, control: 16 << 10, entries: 1 << 20 };

    /// Before the other side is admitted: nothing but greetings.
    pub const STRANGER: Self = Self { greeting: 1 << 10, control: 0, entries: 0 };

    fn body(&self, kind: Kind) -> usize {
        match kind {
            Kind::Hello | Kind::Proof | Kind::Ping | Kind::Pong => self.greeting,
            Kind::Terms | Kind::Summary | Kind::Pull | Kind::Cells | Kind::Want | Kind::Ask | Kind::Shares => {
                self.control
            }
            Kind::Entries | Kind::Packed => self.entries,
        }
    }
}

/// What a stream brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame.
    Frame(Frame),
    /// An optional frame of an unknown type; its body was discarded as it came in.
    Skipped {
        /// The number of its type.
        code: u8,
        /// Bytes of the whole frame.
        bytes: u64,
    },
}

/// Cuts one incoming stream into frames, however its bytes are split.
///
/// Give it what arrives with [`push`](Self::push), then call [`next`](Self::next) until it has none.
#[derive(Debug, Default)]
pub struct Assembler {
    pieces: Pieces,
    /// Of the frame under way; its bytes are still in `pieces`.
    header: Option<Header>,
    skip: Option<Skip>,
}

/// What stands before the body.
#[derive(Debug, Clone, Copy)]
struct Header {
    /// Its own bytes: length and type.
    len: usize,
    code: u8,
    body: usize,
}

/// A frame that is being discarded.
#[derive(Debug, Clone, Copy)]
struct Skip {
    code: u8,
    bytes: u64,
    left: u64,
}

impl Assembler {
    /// An assembler at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what arrived.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// The next frame, or `None` until more arrives.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes that show the fault are there. It comes again at every further call.
    pub fn next(&mut self, caps: &Caps) -> Result<Option<Incoming>, FrameError> {
        if self.skip.is_some() {
            return Ok(self.discard());
        }
        let Some(header) = self.header()? else { return Ok(None) };
        let Some(kind) = Kind::from_code(header.code) else {
            if header.code & Kind::OPTIONAL == 0 {
                return Err(FrameError::Unknown { code: header.code });
            }
            let bytes = (header.len + header.body) as u64;
            self.header = None;
            self.skip = Some(Skip { code: header.code, bytes, left: bytes });
            return Ok(self.discard());
        };
        let limit = caps.body(kind);
        if header.body > limit {
            return Err(FrameError::TooLong { kind, len: header.body, limit });
        }
        let Some(mut body) = self.pieces.take(header.len + header.body) else { return Ok(None) };
        body.advance(header.len);
        self.header = None;
        Ok(Some(Incoming::Frame(Frame { kind, body })))
    }

    /// Bytes held: of the frame under way, and of what `next` has not come to.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.pieces.len()
    }

    /// Whether a frame has begun and is not complete.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.skip.is_some() || self.buffered() > 0
    }

    /// Says whether the stream may end here; to be asked once `next` has no more.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] in the middle of a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if !self.is_mid_frame() {
            return Ok(());
        }
        let skipped = self.skip.map_or(0, |skip| skip.bytes - skip.left);
        Err(FrameError::Truncated { received: skipped + self.buffered() as u64 })
    }

    /// The header of the frame under way, once it is complete.
    fn header(&mut self) -> Result<Option<Header>, FrameError> {
        /// Length bytes: four hold 28 bits.
        const LONGEST: usize = 4;
        while self.header.is_none() {
            let front = self.pieces.front();
            let digits = front.iter().take(LONGEST).take_while(|byte| **byte >= 0x80).count();
            if digits == LONGEST {
                return Err(FrameError::Length);
            }
            let Some((code, length)) = front.get(digits + 1).zip(front.get(..=digits)) else {
                if !self.pieces.gather(front.len() + 1) {
                    return Ok(None);
                }
                continue;
            };
            let value = length.iter().rev().fold(0, |value, byte| (value << 7) | usize::from(byte & 0x7f));
            let overlong = digits > 0 && length.last() == Some(&0);
            if value == 0 || overlong {
                return Err(FrameError::Length);
            }
            self.header = Some(Header { len: digits + 2, code: *code, body: value - 1 });
        }
        Ok(self.header)
    }

    /// Drops bytes of the frame to skip; reports it once all are gone.
    fn discard(&mut self) -> Option<Incoming> {
        let skip = self.skip.as_mut()?;
        skip.left -= self.pieces.discard(skip.left);
        if skip.left > 0 {
            return None;
        }
        let Skip { code, bytes, .. } = *skip;
        self.skip = None;
        Some(Incoming::Skipped { code, bytes })
    }
}

#[cfg(test)]
mod tests;
