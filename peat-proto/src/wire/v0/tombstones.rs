//! Batches of tombstones.
//!
//! `u32 count | (u32 length | tombstone)`

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Label, Payload, encode_frame};
use super::tombstone::{Tombstone, TombstoneError};
use crate::wire::kit::{take, take_u32};

/// A received batch of tombstones.
///
/// Its layout is sound; the tombstones are looked at one by one by [`TombstoneBatch::elements`], so that a bad one costs
/// itself and not its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneBatch {
    /// Bytes behind the last element, and behind the tombstones within theirs. They are ignored, and to be counted.
    pub trailing: usize,
    count: u32,
    elements: Bytes,
}

impl TombstoneBatch {
    /// Bytes before the first element.
    const HEADER: usize = 4;

    /// Bytes of an element besides its tombstone.
    const PREFIX: usize = 4;

    /// Shortest element.
    const MIN_ELEMENT: usize = Self::PREFIX + Tombstone::MIN_LEN;

    /// Reads the payload.
    ///
    /// # Errors
    /// [`TombstoneBatchError`] when the layout is broken; then nothing of the batch can be used.
    pub fn decode(mut payload: Bytes) -> Result<Self, TombstoneBatchError> {
        let count = take_u32(&mut payload).ok_or(TombstoneBatchError::Truncated)?;
        if u64::from(count) > (payload.len() / Self::MIN_ELEMENT) as u64 {
            return Err(TombstoneBatchError::TooManyElements { count });
        }
        let mut rest = payload.clone();
        let mut slack = 0;
        for _ in 0..count {
            slack += Tombstone::slack(take_element(&mut rest).ok_or(TombstoneBatchError::Truncated)?);
        }
        let elements = payload.split_to(payload.len() - rest.len());
        Ok(Self { trailing: rest.len() + slack, count, elements })
    }

    /// How many elements there are, bad ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements in order, each with its own verdict.
    pub fn elements(&self) -> impl Iterator<Item = Result<Tombstone, TombstoneError>> + use<> {
        let mut rest = self.elements.clone();
        std::iter::from_fn(move || Some(Tombstone::take(&mut take_element(&mut rest)?)))
    }
}

fn take_element(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(take_u32(bytes)?).ok()?;
    take(bytes, len)
}

/// Fills a batch up to a size.
#[derive(Debug)]
pub struct TombstoneBatchBuilder {
    payload: BytesMut,
    count: u32,
    budget: usize,
}

impl TombstoneBatchBuilder {
    /// An empty batch whose frame shall have at most `budget` bytes, at least enough for one tombstone of any size and at
    /// most what a frame can say.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        let least = TombstoneBatch::HEADER + TombstoneBatch::PREFIX + Tombstone::MAX_LEN;
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        let budget = budget.saturating_sub(Label::Tombstones.header_len()).clamp(least, most);
        let mut payload = BytesMut::new();
        payload.put_u32(0);
        Self { payload, count: 0, budget }
    }

    /// Appends a tombstone if it fits; whether it did. The first always does.
    #[must_use]
    pub fn push(&mut self, tombstone: &Tombstone) -> bool {
        const { assert!(Tombstone::MAX_LEN <= u16::MAX as usize) };
        let len = tombstone.encoded_len();
        if TombstoneBatch::PREFIX + len > self.budget - self.payload.len() {
            return false;
        }
        self.payload.put_u32(len as u32);
        tombstone.put(&mut self.payload);
        // An element has 29 bytes at least, so the count stays far below what the payload's length allows.
        self.count += 1;
        true
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        if let Some(count) = self.payload.first_chunk_mut() {
            *count = self.count.to_be_bytes();
        }
        self.payload.freeze()
    }

    /// The frame.
    #[must_use]
    pub fn frame(self) -> Bytes {
        encode_frame(Label::Tombstones, Payload::within_budget(&self.finish()))
    }
}

/// Why nothing of a batch of tombstones can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TombstoneBatchError {
    /// It ends before its last element does.
    #[error("the batch of tombstones is truncated")]
    Truncated,
    /// The bytes cannot hold so many elements.
    #[error("the batch announces {count} tombstones, more than its bytes can hold")]
    TooManyElements {
        /// As announced.
        count: u32,
    },
}
