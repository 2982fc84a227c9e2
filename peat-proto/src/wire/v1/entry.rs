//! What is said about documents, several of them in a frame.

use automerge::ChangeHash;
use bytes::{BufMut, Bytes, BytesMut};

use super::chunk;
use super::error::{BodyError, EntryError};
use super::frame::{Frame, Kind as FrameKind};
use crate::heads::Heads;
use crate::id::DocId;
use crate::store::Record;
use crate::wire::kit::{put_uleb, take, take_array, take_hash, take_u8, take_uleb, uleb_len};

/// What is said about one document.
///
/// `kind u8 | length | name length | name | what the kind says`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which document.
    pub doc: DocId,
    /// What.
    pub body: Body,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Heads, a question, changes.
    Word(Word),
    /// A whole document.
    Saved(Saved),
    /// The document is deleted, by a marker as the store keeps it.
    Marker(Bytes),
    /// What was sent of it is not taken.
    Refused(Refused),
    /// A part of what is too large for one frame.
    Piece(Piece),
    /// So much of such a whole is there.
    Held(Held),
}

/// The sender's heads; perhaps a question; perhaps changes.
///
/// `flags u8 | heads`, then as flagged: bit 0, an answer is asked for; bit 1, `need`; bit 2, `samples`; bit 3, changes, each
/// `length | bytes`, to the end. With bit 4 no heads stand there: the only one is the last change. A list of hashes is
/// `count | 32 bytes each`; heads and needs ascend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The frontier of what the sender offers.
    pub heads: Heads,
    /// Whether an answer is asked for.
    pub asks: bool,
    /// Heads of the receiver that the sender does not have.
    pub need: Heads,
    /// Changes that the sender has; at most [`Self::MAX_SAMPLES`].
    pub samples: Vec<ChangeHash>,
    /// Changes that the receiver lacks, each one chunk, in causal order, unchecked: see [`admit`](crate::admit::admit).
    pub changes: Vec<Bytes>,
}

/// A saved document, or all of its changes, one chunk behind the other.
///
/// `flags u8 | bytes`; bit 0, no answer is wanted if it is taken and nothing else is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Whether an answer is wanted in any case. Who sends many at once compares summaries afterwards instead.
    pub answer: bool,
    /// Unchecked: see [`admit`](crate::admit::admit). Never empty.
    pub bytes: Bytes,
}

/// Changes or a saved document that was not taken.
///
/// `reason | heads`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why; the number of a [`Refusal`](crate::Refusal), or one that a later version gave.
    pub reason: u64,
    /// The heads that the receiver had named with it.
    pub heads: Heads,
}

/// A part of a saved document, or of changes, that is too large for one frame.
///
/// `id, 16 bytes | form u8 | whole | offset | bytes`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Digest of the whole, so that parts from different connections fit together.
    pub id: [u8; 16],
    /// What the whole is.
    pub form: Form,
    /// Bytes of the whole.
    pub whole: u64,
    /// Where the part begins.
    pub offset: u64,
    /// The part; not empty, and within the whole.
    pub bytes: Bytes,
}

/// What pieces make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Form {
    /// A saved document.
    Saved = 0,
    /// Change chunks, one behind the other.
    Changes = 1,
}

/// How much of a whole the sender has of it, from its beginning. `id, 16 bytes | bytes`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// That of the pieces.
    pub id: [u8; 16],
    /// Bytes without a gap.
    pub bytes: u64,
}

impl Piece {
    /// The name of a whole.
    #[must_use]
    pub fn id_of(whole: &[u8]) -> [u8; 16] {
        let mut id = [0; 16];
        blake3::Hasher::new_derive_key("peat 2026 pieces v1").update(whole).finalize_xof().fill(&mut id);
        id
    }
}

impl Word {
    /// Most samples. Ours have 11.
    pub const MAX_SAMPLES: usize = 64;

    const ASKS: u8 = 1;
    const NEED: u8 = 2;
    const SAMPLES: u8 = 4;
    const CHANGES: u8 = 8;
    const LAST: u8 = 16;
    const ALL: u8 = 31;
}

/// The number of a kind of entry; bit 7 as in the type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Word = 0x01,
    Saved = 0x02,
    Marker = 0x03,
    Refused = 0x04,
    Piece = 0x05,
    Held = 0x06,
}

impl Entry {
    /// Bytes in a frame.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let content = self.content_len();
        1 + uleb_len(content) + content
    }

    fn content_len(&self) -> usize {
        let name = self.doc.as_str().len();
        uleb_len(name) + name + self.body.len()
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.body.kind() as u8);
        put_uleb(out, self.content_len());
        let name = self.doc.as_str().as_bytes();
        put_uleb(out, name.len());
        out.put_slice(name);
        self.body.put(out);
    }
}

impl Body {
    fn kind(&self) -> Kind {
        match self {
            Self::Word(_) => Kind::Word,
            Self::Saved(_) => Kind::Saved,
            Self::Marker(_) => Kind::Marker,
            Self::Refused(_) => Kind::Refused,
            Self::Piece(_) => Kind::Piece,
            Self::Held(_) => Kind::Held,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Word(word) => word.len(),
            Self::Saved(saved) => 1 + saved.bytes.len(),
            Self::Marker(bytes) => bytes.len(),
            Self::Refused(refused) => uleb_len(refused.reason) + hashes_len(refused.heads.as_slice()),
            Self::Piece(piece) => 17 + uleb_len(piece.whole) + uleb_len(piece.offset) + piece.bytes.len(),
            Self::Held(held) => 16 + uleb_len(held.bytes),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Word(word) => word.put(out),
            Self::Saved(saved) => {
                out.put_u8(u8::from(!saved.answer));
                out.put_slice(&saved.bytes);
            }
            Self::Marker(bytes) => out.put_slice(bytes),
            Self::Refused(refused) => {
                put_uleb(out, refused.reason);
                put_hashes(out, refused.heads.as_slice());
            }
            Self::Piece(piece) => {
                out.put_slice(&piece.id);
                out.put_u8(piece.form as u8);
                put_uleb(out, piece.whole);
                put_uleb(out, piece.offset);
                out.put_slice(&piece.bytes);
            }
            Self::Held(held) => {
                out.put_slice(&held.id);
                put_uleb(out, held.bytes);
            }
        }
    }

    fn take(code: u8, mut rest: Bytes) -> Result<Self, EntryError> {
        let rest = &mut rest;
        let body = match code {
            code if code == Kind::Word as u8 => Self::Word(Word::take(rest)?),
            code if code == Kind::Saved as u8 => {
                let answer = match take_u8(rest).ok_or(BodyError::Truncated)? {
                    0 => true,
                    1 => false,
                    _ => return Err(BodyError::Undefined.into()),
                };
                Self::Saved(Saved { answer, bytes: take_rest(rest)? })
            }
            code if code == Kind::Marker as u8 => Self::Marker(take_rest(rest)?),
            code if code == Kind::Refused as u8 => {
                let reason = take_uleb(rest).map_err(BodyError::from)?;
                Self::Refused(Refused { reason, heads: take_heads(rest)? })
            }
            code if code == Kind::Piece as u8 => Self::Piece(Piece::take(rest)?),
            code if code == Kind::Held as u8 => {
                let id = take_array(rest).ok_or(BodyError::Truncated)?;
                Self::Held(Held { id, bytes: take_uleb(rest).map_err(BodyError::from)? })
            }
            code if code & FrameKind::OPTIONAL != 0 => return Err(EntryError::Skipped { code }),
            code => return Err(EntryError::Unknown { code }),
        };
        if rest.is_empty() { Ok(body) } else { Err(BodyError::Trailing { bytes: rest.len() }.into()) }
    }
}

impl Word {
    fn flags(&self) -> u8 {
        let flag = |set: bool, bit| u8::from(set) * bit;
        flag(self.asks, Self::ASKS)
            | flag(!self.need.is_empty(), Self::NEED)
            | flag(!self.samples.is_empty(), Self::SAMPLES)
            | flag(!self.changes.is_empty(), Self::CHANGES)
            | flag(self.is_last(), Self::LAST)
    }

    /// Whether the only head is the last change, so that it need not be named.
    fn is_last(&self) -> bool {
        match (self.heads.as_slice(), self.changes.last()) {
            ([head], Some(change)) => chunk::hash(change) == Some(*head),
            _ => false,
        }
    }

    fn len(&self) -> usize {
        let list = |hashes: &[ChangeHash]| if hashes.is_empty() { 0 } else { hashes_len(hashes) };
        let changes = self.changes.iter().map(|change| uleb_len(change.len()) + change.len());
        let heads = if self.is_last() { 0 } else { hashes_len(self.heads.as_slice()) };
        1 + heads + list(self.need.as_slice()) + list(&self.samples) + changes.sum::<usize>()
    }

    fn put(&self, out: &mut BytesMut) {
        let flags = self.flags();
        out.put_u8(flags);
        if flags & Self::LAST == 0 {
            put_hashes(out, self.heads.as_slice());
        }
        for list in [self.need.as_slice(), &self.samples] {
            if !list.is_empty() {
                put_hashes(out, list);
            }
        }
        for change in &self.changes {
            put_uleb(out, change.len());
            out.put_slice(change);
        }
    }

    fn take(rest: &mut Bytes) -> Result<Self, BodyError> {
        let flags = take_u8(rest).ok_or(BodyError::Truncated)?;
        if flags & !Self::ALL != 0 {
            return Err(BodyError::Undefined);
        }
        let mut word = Self { asks: flags & Self::ASKS != 0, ..Self::default() };
        if flags & Self::LAST == 0 {
            word.heads = take_heads(rest)?;
        }
        if flags & Self::NEED != 0 {
            word.need = take_heads(rest)?;
        }
        if flags & Self::SAMPLES != 0 {
            word.samples = take_hashes(rest, Self::MAX_SAMPLES)?;
        }
        if flags & Self::CHANGES != 0 {
            while !rest.is_empty() {
                let len = usize::try_from(take_uleb(rest)?).map_err(|_| BodyError::Truncated)?;
                word.changes.push(take(rest, len).filter(|change| !change.is_empty()).ok_or(BodyError::Truncated)?);
            }
        }
        if flags & Self::LAST != 0 {
            let last = word.changes.last().and_then(chunk::hash);
            word.heads = Heads::new(vec![last.ok_or(BodyError::Head)?]);
        }
        // What is flagged is there, and what is not is not, so that a word has one form.
        if word.flags() == flags { Ok(word) } else { Err(BodyError::Undefined) }
    }
}

impl Piece {
    fn take(rest: &mut Bytes) -> Result<Self, BodyError> {
        let id = take_array(rest).ok_or(BodyError::Truncated)?;
        let form = match take_u8(rest).ok_or(BodyError::Truncated)? {
            0 => Form::Saved,
            1 => Form::Changes,
            _ => return Err(BodyError::Undefined),
        };
        let (whole, offset) = (take_uleb(rest)?, take_uleb(rest)?);
        let bytes = take_rest(rest)?;
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= whole);
        if fits { Ok(Self { id, form, whole, offset, bytes }) } else { Err(BodyError::Order) }
    }
}

/// The entries of a frame.
///
/// Their layout is sound; they are looked at one by one by [`Entries::each`], so that a bad one costs itself and not its
/// neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries(Bytes);

impl Entries {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`] when the layout is broken; then nothing of it can be used.
    pub fn decode(body: Bytes) -> Result<Self, BodyError> {
        let mut rest = body.clone();
        while !rest.is_empty() {
            take_raw(&mut rest)?;
        }
        Ok(Self(body))
    }

    /// The entries in order, each with its own verdict.
    pub fn each(&self) -> impl Iterator<Item = Result<Entry, EntryError>> + use<> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || {
            let (code, content) = take_raw(&mut rest).ok()?;
            Some(validate(code, content))
        })
    }
}

fn take_raw(rest: &mut Bytes) -> Result<(u8, Bytes), BodyError> {
    let code = take_u8(rest).ok_or(BodyError::Truncated)?;
    let len = usize::try_from(take_uleb(rest)?).map_err(|_| BodyError::Truncated)?;
    Ok((code, take(rest, len).ok_or(BodyError::Truncated)?))
}

fn validate(code: u8, mut content: Bytes) -> Result<Entry, EntryError> {
    let len = usize::try_from(take_uleb(&mut content).map_err(BodyError::from)?).map_err(|_| BodyError::Truncated)?;
    let name = take(&mut content, len).ok_or(BodyError::Truncated)?;
    let body = Body::take(code, content)?;
    let name = std::str::from_utf8(&name).map_err(|_| EntryError::NameNotUtf8)?;
    Ok(Entry { doc: DocId::new(name)?, body })
}

/// Fills a frame with entries up to a size.
#[derive(Debug)]
pub struct EntriesBuilder {
    body: BytesMut,
    budget: usize,
}

impl EntriesBuilder {
    /// Room for a body of at most `budget` bytes, and no more than [`Caps::PEER`](super::Caps::PEER) allows.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { body: BytesMut::new(), budget: budget.min(super::Caps::PEER.entries) }
    }

    /// Appends an entry if it fits; whether it did. The first one may be larger than the budget, up to what a frame takes.
    #[must_use]
    pub fn push(&mut self, entry: &Entry) -> bool {
        let most = if self.body.is_empty() { super::Caps::PEER.entries } else { self.budget };
        if entry.encoded_len() > most.saturating_sub(self.body.len()) {
            return false;
        }
        entry.put(&mut self.body);
        true
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The body so far.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        Frame::encode(FrameKind::Entries, &self.body)
    }
}

fn take_rest(rest: &mut Bytes) -> Result<Bytes, BodyError> {
    let bytes = rest.split_off(0);
    if bytes.is_empty() { Err(BodyError::Truncated) } else { Ok(bytes) }
}

fn take_heads(rest: &mut Bytes) -> Result<Heads, BodyError> {
    let hashes = take_hashes(rest, Record::MAX_HEADS)?;
    if hashes.is_sorted_by(|a, b| a < b) { Ok(Heads::new(hashes)) } else { Err(BodyError::Order) }
}

fn take_hashes(rest: &mut Bytes, most: usize) -> Result<Vec<ChangeHash>, BodyError> {
    let count = take_uleb(rest)?;
    if count > most as u64 {
        return Err(BodyError::TooMany);
    }
    let count = count as usize;
    if count > rest.len() / size_of::<ChangeHash>() {
        return Err(BodyError::Truncated);
    }
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        hashes.push(take_hash(rest).ok_or(BodyError::Truncated)?);
    }
    Ok(hashes)
}

fn put_hashes(out: &mut BytesMut, hashes: &[ChangeHash]) {
    put_uleb(out, hashes.len());
    hashes.iter().for_each(|hash| out.put_slice(&hash.0));
}

fn hashes_len(hashes: &[ChangeHash]) -> usize {
    uleb_len(hashes.len()) + size_of_val(hashes)
}
