//! The bytes of a stream, in the pieces that they arrived in.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// What was received of a stream and not taken yet. What lies within one piece is shared; what does not is put together in
/// a buffer that grows with the bytes received, never by a length announced.
#[derive(Debug, Default)]
pub(in crate::wire) struct Pieces {
    /// Not looked at yet.
    pieces: VecDeque<Bytes>,
    /// The front, if it is not all in the first piece.
    partial: BytesMut,
}

impl Pieces {
    pub(in crate::wire) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pieces.push_back(bytes);
        }
    }

    pub(in crate::wire) fn len(&self) -> usize {
        self.partial.len() + self.pieces.iter().map(Bytes::len).sum::<usize>()
    }

    /// What is at the front in one piece; more of it after [`Self::gather`].
    pub(in crate::wire) fn front(&self) -> &[u8] {
        match self.pieces.front() {
            Some(piece) if self.partial.is_empty() => piece.as_ref(),
            _ => self.partial.as_ref(),
        }
    }

    /// Puts `len` bytes together at the front; whether there are so many.
    pub(in crate::wire) fn gather(&mut self, len: usize) -> bool {
        while self.partial.len() < len {
            let missing = len - self.partial.len();
            let Some(piece) = self.pieces.front_mut() else { return false };
            let bytes = piece.split_to(missing.min(piece.len()));
            // Doubling keeps the copying linear; `len` is only announced, so it bounds the growth and does not lead it.
            if self.partial.capacity() - self.partial.len() < bytes.len() {
                let room = missing.min(self.partial.len().max(bytes.len()));
                self.partial.reserve(room);
            }
            self.partial.extend_from_slice(&bytes);
            self.drop_empty();
        }
        true
    }

    /// Takes the first `len` bytes, once they are there.
    pub(in crate::wire) fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.partial.is_empty()
            && let Some(piece) = self.pieces.front_mut()
            && piece.len() >= len
        {
            let taken = piece.split_to(len);
            self.drop_empty();
            return Some(taken);
        }
        if !self.gather(len) {
            return None;
        }
        let taken = self.partial.split_to(len).freeze();
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        Some(taken)
    }

    /// Drops up to `most` bytes; how many there were.
    pub(in crate::wire) fn discard(&mut self, most: u64) -> u64 {
        let mut left = most;
        let own = left.min(self.partial.len() as u64);
        self.partial.advance(usize::try_from(own).unwrap_or(usize::MAX));
        left -= own;
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let step = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            piece.advance(step);
            left -= step as u64;
            self.drop_empty();
        }
        most - left
    }

    fn drop_empty(&mut self) {
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }
}
