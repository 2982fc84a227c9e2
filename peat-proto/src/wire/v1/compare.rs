//! Comparing sets of documents: summaries, sketches and ranges.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::BodyError;
use super::frame::{Frame, Kind};
use crate::reconcile::{Answer, Cell, MAX_CELLS, Prefix, Share, Symbol};
use crate::wire::kit::{put_uleb, take_array, take_u8, take_u32, take_uleb};

/// Which sets are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Subject {
    /// The scopes that go both ways: the sum of the sender's against the sum of the receiver's.
    Shared = 0,
    /// The scopes that only the asked side sends.
    OneWay = 1,
}

/// What the sender has in all. Equal summaries on both sides mean that nothing is to be exchanged.
///
/// `generation | heard | flags u8 | shared count | shared digest, 32 bytes`, with flag bit 2 `seen, 8 bytes`, with flag bit 0
/// `one-way count | one-way digest, 32 bytes`, with flag bit 1 `complete, 8 bytes`. When all scopes go both ways, 40 bytes as
/// the first frame and 48 as a later one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Of the sender's terms under which this is said.
    pub generation: u64,
    /// Of the newest terms that the sender had from the receiver; 0 for none.
    pub heard: u64,
    /// Elements and digest of the scopes that go both ways.
    pub shared: Total,
    /// The [mark](Self::mark) of the summary that the sender last had from the receiver; zeros before.
    pub seen: [u8; 8],
    /// Elements and digest of the scopes that go from the sender to the receiver only; absent if there are none.
    pub one_way: Option<Total>,
    /// The first bytes of the receiver's one-way digest of which the sender has everything; zeros if it has nothing of it.
    pub complete: Option<[u8; 8]>,
}

/// A set in brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How many elements there are.
    pub count: u64,
    /// What judges equality.
    pub digest: [u8; 32],
}

impl Summary {
    /// What [`Self::complete`] says of a side that has nothing.
    pub const NOTHING: [u8; 8] = [0; 8];

    const ONE_WAY: u8 = 1;
    const COMPLETE: u8 = 2;
    const SEEN: u8 = 4;
    const UNSEEN: [u8; 8] = [0; 8];

    /// Names what a summary says its sender has: under which terms, how much of what, and all of which.
    #[must_use]
    pub fn mark(&self) -> [u8; 8] {
        let mut body = BytesMut::new();
        put_uleb(&mut body, self.generation);
        self.shared.put(&mut body);
        if let Some(one_way) = &self.one_way {
            one_way.put(&mut body);
        }
        // A side that has come to have everything is to be heard saying so.
        if let Some(complete) = &self.complete {
            body.put_slice(complete);
        }
        let mut mark = [0; 8];
        blake3::Hasher::new_derive_key("peat 2026 summary v1").update(&body).finalize_xof().fill(&mut mark);
        mark
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let (generation, heard) = (take_uleb(body)?, take_uleb(body)?);
        let flags = take_u8(body).ok_or(BodyError::Truncated)?;
        if flags & !(Self::ONE_WAY | Self::COMPLETE | Self::SEEN) != 0 {
            return Err(BodyError::Undefined);
        }
        let shared = Total::take(body)?;
        let seen = if flags & Self::SEEN == 0 {
            Self::UNSEEN
        } else {
            // Nothing seen has one form.
            let seen = take_array(body).ok_or(BodyError::Truncated)?;
            if seen == Self::UNSEEN { Err(BodyError::Undefined)? } else { seen }
        };
        let one_way = if flags & Self::ONE_WAY == 0 { None } else { Some(Total::take(body)?) };
        let complete =
            if flags & Self::COMPLETE == 0 { None } else { Some(take_array(body).ok_or(BodyError::Truncated)?) };
        expect_end(body)?;
        Ok(Self { generation, heard, shared, seen, one_way, complete })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(128);
        put_uleb(&mut body, self.generation);
        put_uleb(&mut body, self.heard);
        let sees = self.seen != Self::UNSEEN;
        let flags = (u8::from(self.one_way.is_some()) * Self::ONE_WAY)
            | (u8::from(self.complete.is_some()) * Self::COMPLETE)
            | (u8::from(sees) * Self::SEEN);
        body.put_u8(flags);
        self.shared.put(&mut body);
        if sees {
            body.put_slice(&self.seen);
        }
        if let Some(one_way) = &self.one_way {
            one_way.put(&mut body);
        }
        if let Some(complete) = &self.complete {
            body.put_slice(complete);
        }
        Frame::encode(Kind::Summary, &body)
    }
}

impl Total {
    /// What of a digest suffices to recognise it.
    #[must_use]
    pub fn brief(&self) -> [u8; 8] {
        let mut brief = [0; 8];
        brief.copy_from_slice(&self.digest[..8]);
        brief
    }

    fn take(body: &mut Bytes) -> Result<Self, BodyError> {
        Ok(Self { count: take_uleb(body)?, digest: take_array(body).ok_or(BodyError::Truncated)? })
    }

    fn put(&self, body: &mut BytesMut) {
        put_uleb(body, self.count);
        body.put_slice(&self.digest);
    }
}

/// Asks for cells `from..to` of a sketch that the receiver freezes for this. `subject u8 | epoch | limit | from | to`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Of which sets.
    pub subject: Subject,
    /// Grows with every comparison of the connection: a greater one makes the receiver freeze anew.
    pub epoch: u64,
    /// Cells that may be asked for in this epoch; at most [`MAX_CELLS`].
    pub limit: u32,
    /// The first cell.
    pub from: u32,
    /// The cell behind the last; above `from`, at most `limit`.
    pub to: u32,
}

impl Pull {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let subject = Subject::take(body)?;
        let epoch = take_uleb(body)?;
        let (limit, from, to) = (take_index(body)?, take_index(body)?, take_index(body)?);
        expect_end(body)?;
        if from < to && to <= limit { Ok(Self { subject, epoch, limit, from, to }) } else { Err(BodyError::Order) }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(self.subject as u8);
        put_uleb(&mut body, self.epoch);
        for index in [self.limit, self.from, self.to] {
            put_uleb(&mut body, u64::from(index));
        }
        Frame::encode(Kind::Pull, &body)
    }
}

/// Cells of a sketch. `epoch | symbols | from | cells`, each cell `sum, 16 bytes | check u32 | count`, the count as its zigzag
/// difference from what is to be expected. Without cells: the sketch of this epoch is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    /// That of the pull.
    pub epoch: u64,
    /// Symbols in the set.
    pub symbols: u64,
    /// Index of the first cell.
    pub from: u32,
    /// Consecutive.
    pub cells: Vec<Cell>,
}

impl Cells {
    /// Cells in a frame of at most 4 KiB, so that others get between.
    pub const PER_FRAME: u32 = 180;

    /// Bytes of the shortest cell.
    const SHORTEST: usize = 21;

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let (epoch, symbols) = (take_uleb(body)?, take_uleb(body)?);
        let from = take_index(body)?;
        let mut cells = Vec::with_capacity(body.len() / Self::SHORTEST);
        let mut index = from;
        while !body.is_empty() {
            if index >= MAX_CELLS {
                return Err(BodyError::TooMany);
            }
            let sum = Symbol::from_bytes(take_array(body).ok_or(BodyError::Truncated)?);
            let check = take_u32(body).ok_or(BodyError::Truncated)?;
            let off = unzigzag(take_uleb(body)?);
            let count = off.checked_add(expected(symbols, index)).and_then(|count| i32::try_from(count).ok());
            cells.push(Cell { sum, check, count: count.ok_or(BodyError::Number)? });
            index += 1;
        }
        Ok(Self { epoch, symbols, from, cells })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(16 + self.cells.len() * (Self::SHORTEST + 1));
        put_uleb(&mut body, self.epoch);
        put_uleb(&mut body, self.symbols);
        put_uleb(&mut body, u64::from(self.from));
        for (index, cell) in (self.from..).zip(&self.cells) {
            body.put_slice(&cell.sum.to_bytes());
            body.put_u32(cell.check);
            put_uleb(&mut body, zigzag(i64::from(cell.count).wrapping_sub(expected(self.symbols, index))));
        }
        Frame::encode(Kind::Cells, &body)
    }
}

/// How many of so many symbols are to be expected in a cell: one with probability 1 / (1 + index / 2).
fn expected(symbols: u64, index: u32) -> i64 {
    let symbols = symbols.min(i32::MAX as u64);
    i64::try_from(2 * symbols / (u64::from(index) + 2)).unwrap_or(i64::MAX)
}

/// Asks for documents that only the receiver has. Symbols of 16 bytes each, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// They stand for the documents.
    pub symbols: Vec<Symbol>,
}

impl Want {
    /// Symbols in a frame of at most 4 KiB.
    pub const PER_FRAME: usize = 255;

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let count = body.len() / SYMBOL;
        let symbols = take_symbols(&mut body, count)?;
        expect_end(&body)?;
        Ok(Self { symbols })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.symbols.len() * SYMBOL);
        self.symbols.iter().for_each(|symbol| body.put_slice(&symbol.to_bytes()));
        Frame::encode(Kind::Want, &body)
    }
}

/// Asks what the receiver has in ranges. `subject u8 | ranges`, each range `digits u8 | digits, two in a byte`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Of which sets.
    pub subject: Subject,
    /// At most [`Self::MAX_RANGES`].
    pub ranges: Vec<Prefix>,
}

impl Ask {
    /// Most ranges: what an asking side has under way. Their answers have 18 KB.
    pub const MAX_RANGES: usize = 64;

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let subject = Subject::take(body)?;
        let mut ranges = Vec::new();
        while !body.is_empty() {
            if ranges.len() >= Self::MAX_RANGES {
                return Err(BodyError::TooMany);
            }
            ranges.push(take_range(body)?);
        }
        Ok(Self { subject, ranges })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(self.subject as u8);
        self.ranges.iter().for_each(|range| put_range(&mut body, range));
        Frame::encode(Kind::Ask, &body)
    }
}

/// What the sender has in ranges. `subject u8 | answers`, each answer `range | count`, and then, for a count of 0 to 254, so
/// many symbols in ascending order; for 255, the shares of the sixteenths: `count`, and unless that is 0 `sum, 16 bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Of which sets.
    pub subject: Subject,
    /// Each with the range that it answers for.
    pub answers: Vec<(Prefix, Answer)>,
}

impl Shares {
    /// Answers in a frame of at most 8 KiB.
    pub const PER_FRAME: usize = 14;

    /// Where a count of symbols would stand: shares follow.
    const DIVIDED: u64 = 255;

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let subject = Subject::take(body)?;
        let mut answers = Vec::new();
        while !body.is_empty() {
            if answers.len() >= Ask::MAX_RANGES {
                return Err(BodyError::TooMany);
            }
            let range = take_range(body)?;
            let answer = match take_uleb(body)? {
                Self::DIVIDED => {
                    let mut shares: Box<[Share; 16]> = Box::default();
                    for share in shares.iter_mut() {
                        share.count = take_uleb(body)?;
                        if share.count > 0 {
                            share.sum = Symbol::from_bytes(take_array(body).ok_or(BodyError::Truncated)?);
                        }
                    }
                    Answer::Shares(shares)
                }
                count if count < Self::DIVIDED => Answer::Symbols(take_symbols(body, count as usize)?),
                _ => return Err(BodyError::TooMany),
            };
            answers.push((range, answer));
        }
        Ok(Self { subject, answers })
    }

    /// The frame. Of more symbols than can be counted the lowest 254 are named.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(self.subject as u8);
        for (range, answer) in &self.answers {
            put_range(&mut body, range);
            match answer {
                Answer::Symbols(symbols) => {
                    let most = symbols.len().min(Self::DIVIDED as usize - 1);
                    put_uleb(&mut body, most);
                    symbols.iter().take(most).for_each(|symbol| body.put_slice(&symbol.to_bytes()));
                }
                Answer::Shares(shares) => {
                    put_uleb(&mut body, Self::DIVIDED);
                    for share in shares.iter() {
                        put_uleb(&mut body, share.count);
                        if share.count > 0 {
                            body.put_slice(&share.sum.to_bytes());
                        }
                    }
                }
            }
        }
        Frame::encode(Kind::Shares, &body)
    }
}

impl Subject {
    fn take(body: &mut Bytes) -> Result<Self, BodyError> {
        match take_u8(body).ok_or(BodyError::Truncated)? {
            0 => Ok(Self::Shared),
            1 => Ok(Self::OneWay),
            _ => Err(BodyError::Undefined),
        }
    }
}

const SYMBOL: usize = size_of::<Symbol>();

/// A position of a sketch, or the one behind the last.
fn take_index(body: &mut Bytes) -> Result<u32, BodyError> {
    let index = u32::try_from(take_uleb(body)?).map_err(|_| BodyError::Number)?;
    if index <= MAX_CELLS { Ok(index) } else { Err(BodyError::TooMany) }
}

fn take_symbols(body: &mut Bytes, count: usize) -> Result<Vec<Symbol>, BodyError> {
    if count > body.len() / SYMBOL {
        return Err(BodyError::Truncated);
    }
    let mut symbols = Vec::with_capacity(count);
    for _ in 0..count {
        symbols.push(Symbol::from_bytes(take_array(body).ok_or(BodyError::Truncated)?));
    }
    if symbols.is_sorted_by(|a, b| a < b) { Ok(symbols) } else { Err(BodyError::Order) }
}

fn take_range(body: &mut Bytes) -> Result<Prefix, BodyError> {
    let digits = take_u8(body).ok_or(BodyError::Truncated)?;
    let mut symbol = [0; SYMBOL];
    let held = symbol.get_mut(..usize::from(digits).div_ceil(2)).ok_or(BodyError::TooMany)?;
    for byte in held {
        *byte = take_u8(body).ok_or(BodyError::Truncated)?;
    }
    let symbol = Symbol::from_bytes(symbol);
    let range = Prefix::new(symbol, digits).ok_or(BodyError::TooMany)?;
    // The unused half of the last byte is 0.
    if range.first() == symbol { Ok(range) } else { Err(BodyError::Undefined) }
}

fn put_range(body: &mut BytesMut, range: &Prefix) {
    body.put_u8(range.digits());
    let digits = range.first().to_bytes();
    body.put_slice(digits.get(..usize::from(range.digits()).div_ceil(2)).unwrap_or(&digits));
}

fn expect_end(rest: &Bytes) -> Result<(), BodyError> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(BodyError::Trailing { bytes }),
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
