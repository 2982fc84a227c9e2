//! From the bytes of a stream to frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{Frame, FrameError, Header, Key, Label, MessageType, Parsed};
use super::negentropy::{ItemId, Responder};
use crate::config::Config;

/// Longest keys and payloads, in bytes. Types without one do not exist on a stream, and are skipped like unknown ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Of a key of any type.
    pub key: usize,
    /// Of a delta's payload.
    pub delta: usize,
    /// Of a snapshot's payload.
    pub snapshot: usize,
    /// Of a batch's payload.
    pub batch: usize,
    /// Of a tombstone.
    pub tombstone: Option<usize>,
    /// Of a batch of tombstones.
    pub tombstones: Option<usize>,
    /// Of a negentropy message.
    pub negentropy: Option<usize>,
}

impl Caps {
    /// Longest tombstone with what may stand behind it: almost twice the longest that is used.
    pub const TOMBSTONE: usize = 4096;

    /// Longest negentropy message: lists of as many ids as a responder has items take half of it.
    pub const NEGENTROPY: usize = 2 * size_of::<ItemId>() * Responder::MAX_ITEMS;

    /// The caps of a configuration.
    #[must_use]
    pub fn v0(config: &Config) -> Self {
        Self {
            key: Label::MAX_KEY,
            delta: config.max_delta,
            snapshot: config.max_snapshot,
            batch: config.max_batch,
            tombstone: Some(Self::TOMBSTONE),
            tombstones: Some(config.max_tombstones),
            negentropy: Some(Self::NEGENTROPY),
        }
    }

    /// The longest payload of a type; `None` if its frames are skipped.
    fn payload(&self, kind: MessageType) -> Option<usize> {
        match kind {
            MessageType::Delta => Some(self.delta),
            MessageType::Snapshot => Some(self.snapshot),
            MessageType::Batch => Some(self.batch),
            MessageType::Tombstone => self.tombstone,
            MessageType::Tombstones => self.tombstones,
            MessageType::NegentropyInit | MessageType::NegentropyResponse => self.negentropy,
        }
    }
}

/// What a stream brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame.
    Frame(Frame),
    /// A frame of a type that is not read here; its payload was discarded as it came in.
    Skipped {
        /// The number of its type.
        code: u8,
        /// Bytes of the whole frame.
        bytes: u64,
    },
}

/// Cuts one incoming stream into frames, however its bytes are split.
///
/// Give it what arrives with [`push`](Self::push), then call [`next`](Self::next) until it has none. A frame within
/// one piece shares that piece; others are put together in a buffer that grows with the bytes received, never by the
/// length announced.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Received and not looked at yet.
    pieces: VecDeque<Bytes>,
    /// The frame under way, if it is not all in the first piece.
    partial: BytesMut,
    /// Of the frame under way.
    header: Option<Header>,
    skip: Option<Skip>,
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
        if !bytes.is_empty() {
            self.pieces.push_back(bytes);
        }
    }

    /// The next frame, or `None` until more arrives.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes that show the fault are there. It comes again at every further call.
    pub fn next(&mut self, caps: &Caps) -> Result<Option<Incoming>, FrameError> {
        if self.skip.is_some() {
            return Ok(self.discard());
        }
        let Some(header) = self.header(caps)? else {
            return Ok(None);
        };
        let known = MessageType::from_code(header.code).and_then(|kind| Some((kind, caps.payload(kind)?)));
        let Some((kind, limit)) = known else {
            self.begin_skipping(header);
            return Ok(self.discard());
        };
        let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        if len > limit {
            return Err(FrameError::PayloadTooLong { kind, len: header.payload_len, limit });
        }
        let Some(mut frame) = self.take(header.len().saturating_add(len)) else {
            return Ok(None);
        };
        self.header = None;
        let mut head = frame.split_to(header.len());
        head.advance(size_of::<u16>());
        let key = Key::new(head.split_to(header.key_len)).ok_or(FrameError::KeyNotUtf8)?;
        Ok(Some(Incoming::Frame(Frame { key, kind, payload: frame })))
    }

    /// Bytes held: of the frame under way, and of what `next` has not come to.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.pieces.iter().map(Bytes::len).sum::<usize>()
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
    fn header(&mut self, caps: &Caps) -> Result<Option<Header>, FrameError> {
        while self.header.is_none() {
            let front = match self.pieces.front() {
                Some(piece) if self.partial.is_empty() => piece.as_ref(),
                _ => self.partial.as_ref(),
            };
            match Header::parse(front, caps.key)? {
                Parsed::Whole(header) => self.header = Some(header),
                Parsed::Needs(len) => {
                    if !self.gather(len) {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(self.header)
    }

    /// Takes the frame under way, of `len` bytes, once it is complete.
    fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.partial.is_empty()
            && let Some(piece) = self.pieces.front_mut()
            && piece.len() >= len
        {
            let frame = piece.split_to(len);
            self.drop_empty_piece();
            return Some(frame);
        }
        self.gather(len).then(|| std::mem::take(&mut self.partial).freeze())
    }

    /// Moves bytes into `partial` until it has `len`; whether it has.
    fn gather(&mut self, len: usize) -> bool {
        while self.partial.len() < len {
            let missing = len - self.partial.len();
            let Some(piece) = self.pieces.front_mut() else {
                return false;
            };
            let bytes = piece.split_to(missing.min(piece.len()));
            // Doubling keeps the copying linear; `len` is only announced, so it bounds the growth and does not lead it.
            if self.partial.capacity() - self.partial.len() < bytes.len() {
                let room = missing.min(self.partial.len().max(bytes.len()));
                self.partial.reserve(room);
            }
            self.partial.extend_from_slice(&bytes);
            self.drop_empty_piece();
        }
        true
    }

    fn begin_skipping(&mut self, header: Header) {
        let bytes = header.len() as u64 + u64::from(header.payload_len);
        let held = self.partial.len() as u64;
        self.partial = BytesMut::new();
        self.header = None;
        self.skip = Some(Skip { code: header.code, bytes, left: bytes - held });
    }

    /// Drops bytes of the frame to skip; reports it once all are gone.
    fn discard(&mut self) -> Option<Incoming> {
        let skip = self.skip.as_mut()?;
        while skip.left > 0 {
            let piece = self.pieces.front_mut()?;
            let step = piece.len().min(usize::try_from(skip.left).unwrap_or(usize::MAX));
            piece.advance(step);
            skip.left -= step as u64;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        let Skip { code, bytes, .. } = *skip;
        self.skip = None;
        Some(Incoming::Skipped { code, bytes })
    }

    fn drop_empty_piece(&mut self) {
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
