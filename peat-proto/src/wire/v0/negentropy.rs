//! Negentropy, protocol V1: the answering side.
//!
//! ```text
//!   message     0x61 | range, range …
//!   range       bound | varint mode | body
//!   bound       varint timestamp | varint length | prefix of an id
//!   body        mode 0: nothing (skip)    1: fingerprint, 16 bytes    2: varint count | ids of 32 bytes
//! ```
//!
//! Varints are base 128, the highest group first. A bound's timestamp is 0 for infinity, else 1 more than its distance
//! from the timestamp before it in the message. A range reaches from the bound before it, inclusive, to its own,
//! exclusive, over items in the order of timestamp and id. Ids say which documents exist, not what is in them: that is
//! all that legacy peers compare. We answer whoever asks, and never ask.
//!
//! **Dates.** A legacy initiator dates all of its items with its own clock at the moment it asks, so against items with
//! dates of their own nothing would ever match. [`date_of`] finds that moment in the first message; given to all of our
//! items, it leaves the ids to be compared.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::frame::{Label, Payload, encode_frame};
use crate::id::DocId;
use crate::wire::kit::{take, take_array, take_u8};

/// What stands for a document: SHA-256 of its name.
pub type ItemId = [u8; 32];

/// The item of a document.
#[must_use]
pub fn item_of(doc: &DocId) -> ItemId {
    Sha256::digest(doc.as_str()).into()
}

/// The timestamp of the first bound that has one: the moment at which a legacy initiator asked.
///
/// Without such a bound it has fewer than 32 items, and sent all of their ids in one list, which is compared without any
/// timestamps.
///
/// # Errors
/// [`NegentropyError`] when the message cannot be answered.
pub fn date_of(message: Bytes) -> Result<Option<u64>, NegentropyError> {
    let mut ranges = Ranges::new(message)?;
    while let Some(range) = ranges.next()? {
        if range.bound.timestamp != INFINITY {
            return Ok(Some(range.bound.timestamp));
        }
    }
    Ok(None)
}

/// Answers one initiator: one message for each of its messages.
///
/// The work for a message is in proportion to its size and the number of items. An answer has at most 32 bytes for each
/// item, 1 KiB for every 32 of them, and three times the message.
#[derive(Debug)]
pub struct Responder {
    /// In order.
    items: Vec<Item>,
    rounds: u32,
}

impl Responder {
    /// Most items: 65,536. They take 2.6 MB, and an answer that lists them all 2.1 MB.
    pub const MAX_ITEMS: usize = 1 << 16;

    /// Most messages that are answered. Splitting by 16 comes to lists of fewer than 32 ids after 4 of them.
    pub const MAX_ROUNDS: u32 = 16;

    /// A responder that has these items, each with its timestamp, at most [`Self::MAX_ITEMS`].
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = (u64, ItemId)>) -> Self {
        let items = items.into_iter().take(Self::MAX_ITEMS);
        let mut items: Vec<Item> = items.map(|(timestamp, id)| Item { timestamp, id }).collect();
        items.sort_unstable();
        items.dedup();
        Self { items, rounds: 0 }
    }

    /// Answers a message.
    ///
    /// # Errors
    /// [`NegentropyError`]; there is no answer then.
    pub fn answer(&mut self, message: Bytes) -> Result<Bytes, NegentropyError> {
        if self.rounds == Self::MAX_ROUNDS {
            return Err(NegentropyError::TooManyRounds);
        }
        self.rounds += 1;
        let mut answer = Answer::new();
        let mut ranges = Ranges::new(message)?;
        let mut lower = 0;
        while let Some(Range { bound, body }) = ranges.next()? {
            let upper =
                lower + self.items.get(lower..).map_or(0, |rest| rest.partition_point(|item| bound.is_above(item)));
            let ours = self.items.get(lower..upper).unwrap_or_default();
            match body {
                Body::Skip => answer.skip(bound),
                Body::Fingerprint(theirs) if theirs == fingerprint(ours) => answer.skip(bound),
                Body::Fingerprint(_) => answer.split(bound, ours),
                // What the initiator has of it is its business; we say what we have.
                Body::Ids => answer.list(bound, ours),
            }
            lower = upper;
        }
        Ok(answer.out.freeze())
    }
}

/// The frame of an answer.
#[must_use]
pub fn answer_frame(answer: &Bytes) -> Bytes {
    encode_frame(Label::NegentropyResponse, Payload::within_budget(answer))
}

/// Why a message is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegentropyError {
    /// It ends too early, or a count or length says more than is there.
    #[error("the negentropy message is truncated")]
    Truncated,
    /// The first byte is not that of a version.
    #[error("{found:#04x} does not begin a negentropy message")]
    Version {
        /// That byte.
        found: u8,
    },
    /// A number is too large.
    #[error("a number of the negentropy message is too large")]
    Number,
    /// The prefix of an id is longer than an id.
    #[error("a bound of the negentropy message has a prefix of {len} bytes")]
    Prefix {
        /// As announced.
        len: u64,
    },
    /// A range of a kind that is not defined.
    #[error("ranges of the negentropy message have no mode {mode}")]
    Mode {
        /// Its number.
        mode: u64,
    },
    /// More ranges than any honest message has.
    #[error("the negentropy message has more than {} ranges", Ranges::MOST)]
    TooManyRanges,
    /// More messages than [`Responder::MAX_ROUNDS`].
    #[error("more than {} negentropy messages on one stream", Responder::MAX_ROUNDS)]
    TooManyRounds,
}

const VERSION: u8 = 0x61;
const INFINITY: u64 = u64::MAX;
const BUCKETS: usize = 16;
const SKIP: u64 = 0;
const FINGERPRINT: u64 = 1;
const IDS: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    timestamp: u64,
    id: ItemId,
}

/// The end of a range: an item of which the rest of the id is zeros.
#[derive(Debug, Clone, Copy)]
struct Bound {
    timestamp: u64,
    id: ItemId,
    len: usize,
}

struct Range {
    bound: Bound,
    body: Body,
}

enum Body {
    Skip,
    Fingerprint([u8; 16]),
    Ids,
}

impl Bound {
    const LAST: Self = Self { timestamp: INFINITY, id: [0; 32], len: 0 };

    fn is_above(&self, item: &Item) -> bool {
        (item.timestamp, &item.id) < (self.timestamp, &self.id)
    }

    /// The shortest bound that lies behind one item and not behind the next.
    fn between(item: &Item, next: &Item) -> Self {
        if item.timestamp != next.timestamp {
            return Self { timestamp: next.timestamp, ..Self::LAST };
        }
        let common = item.id.iter().zip(&next.id).take_while(|(a, b)| a == b).count();
        let len = (common + 1).min(next.id.len());
        let mut id = [0; 32];
        id.iter_mut().zip(&next.id).take(len).for_each(|(to, from)| *to = *from);
        Self { timestamp: next.timestamp, id, len }
    }
}

/// The ranges of a received message, one after the other. Of those of other versions there are none.
struct Ranges {
    rest: Bytes,
    timestamp: u64,
    seen: usize,
}

impl Ranges {
    /// Most ranges of a message: 16 in the first, 16 times as many in each further one, and with 65,536 items on the other
    /// side lists after four.
    const MOST: usize = 1 << 13;

    /// Versions of the protocol begin a message with a byte of this upper half.
    const VERSIONS: std::ops::RangeInclusive<u8> = 0x60..=0x6f;

    fn new(mut message: Bytes) -> Result<Self, NegentropyError> {
        let version = take_u8(&mut message).ok_or(NegentropyError::Truncated)?;
        if !Self::VERSIONS.contains(&version) {
            return Err(NegentropyError::Version { found: version });
        }
        // The answer to another version names ours, and nothing else.
        let rest = if version == VERSION { message } else { Bytes::new() };
        Ok(Self { rest, timestamp: 0, seen: 0 })
    }

    fn next(&mut self) -> Result<Option<Range>, NegentropyError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.seen += 1;
        if self.seen > Self::MOST {
            return Err(NegentropyError::TooManyRanges);
        }
        let bound = self.bound()?;
        let body = match take_varint(&mut self.rest)? {
            SKIP => Body::Skip,
            FINGERPRINT => Body::Fingerprint(take_array(&mut self.rest).ok_or(NegentropyError::Truncated)?),
            IDS => {
                let count = take_varint(&mut self.rest)?;
                let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<ItemId>()));
                len.and_then(|len| take(&mut self.rest, len)).ok_or(NegentropyError::Truncated)?;
                Body::Ids
            }
            mode => return Err(NegentropyError::Mode { mode }),
        };
        Ok(Some(Range { bound, body }))
    }

    fn bound(&mut self) -> Result<Bound, NegentropyError> {
        let distance = take_varint(&mut self.rest)?;
        self.timestamp = distance.checked_sub(1).map_or(INFINITY, |distance| self.timestamp.saturating_add(distance));
        let len = take_varint(&mut self.rest)?;
        let mut id = [0; 32];
        let prefix = usize::try_from(len).ok().and_then(|len| id.get_mut(..len));
        let prefix = prefix.ok_or(NegentropyError::Prefix { len })?;
        let bytes = take(&mut self.rest, prefix.len()).ok_or(NegentropyError::Truncated)?;
        prefix.copy_from_slice(&bytes);
        Ok(Bound { timestamp: self.timestamp, id, len: bytes.len() })
    }
}

/// An answer under way.
struct Answer {
    out: BytesMut,
    /// The timestamp of the last bound that was written.
    timestamp: u64,
    /// The end of ranges that need no answer, if they came last.
    skipped: Option<Bound>,
}

impl Answer {
    fn new() -> Self {
        Self { out: BytesMut::from(&[VERSION][..]), timestamp: 0, skipped: None }
    }

    fn skip(&mut self, bound: Bound) {
        self.skipped = Some(bound);
    }

    fn list(&mut self, bound: Bound, items: &[Item]) {
        self.range(bound, IDS);
        put_varint(&mut self.out, items.len() as u64);
        for item in items {
            self.out.put_slice(&item.id);
        }
    }

    /// Fewer than 32 items as a list, others as fingerprints of 16 parts, of which the first are larger by one.
    fn split(&mut self, bound: Bound, items: &[Item]) {
        if items.len() < 2 * BUCKETS {
            return self.list(bound, items);
        }
        let mut rest = items;
        for bucket in 0..BUCKETS {
            let (part, behind) = rest.split_at(rest.len().div_ceil(BUCKETS - bucket).min(rest.len()));
            let end = match (part.last(), behind.first()) {
                (Some(last), Some(next)) => Bound::between(last, next),
                _ => bound,
            };
            self.range(end, FINGERPRINT);
            self.out.put_slice(&fingerprint(part));
            rest = behind;
        }
    }

    fn range(&mut self, bound: Bound, mode: u64) {
        if let Some(skipped) = self.skipped.take() {
            self.bound(skipped);
            put_varint(&mut self.out, SKIP);
        }
        self.bound(bound);
        put_varint(&mut self.out, mode);
    }

    fn bound(&mut self, bound: Bound) {
        let distance = match bound.timestamp {
            INFINITY => 0,
            timestamp => timestamp.saturating_sub(self.timestamp).saturating_add(1),
        };
        self.timestamp = bound.timestamp;
        put_varint(&mut self.out, distance);
        put_varint(&mut self.out, bound.len as u64);
        self.out.put_slice(bound.id.get(..bound.len).unwrap_or_default());
    }
}

/// The first half of SHA-256 over the sum of the ids modulo 2^256, little-endian, and their number.
fn fingerprint(items: &[Item]) -> [u8; 16] {
    let mut sum = [0_u64; 4];
    for item in items {
        let mut carry = false;
        for (word, bytes) in sum.iter_mut().zip(item.id.as_chunks().0) {
            let (partial, over) = word.overflowing_add(u64::from_le_bytes(*bytes));
            let (total, more) = partial.overflowing_add(carry.into());
            (*word, carry) = (total, over || more);
        }
    }
    let mut input = BytesMut::with_capacity(42);
    for word in sum {
        input.put_u64_le(word);
    }
    put_varint(&mut input, items.len() as u64);
    let digest: [u8; 32] = Sha256::digest(&input).into();
    let mut half = [0; 16];
    half.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    half
}

fn take_varint(bytes: &mut Bytes) -> Result<u64, NegentropyError> {
    let mut value = 0_u64;
    loop {
        let byte = take_u8(bytes).ok_or(NegentropyError::Truncated)?;
        if value > u64::MAX >> 7 {
            return Err(NegentropyError::Number);
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Ok(value);
        }
    }
}

fn put_varint(out: &mut BytesMut, number: u64) {
    let groups = (u64::BITS - number.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let bits = (number >> (7 * group)) as u8 & 0x7f;
        out.put_u8(if group > 0 { bits | 0x80 } else { bits });
    }
}

#[cfg(test)]
mod tests;
