//! One frame: length, type and body.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::kit::{put_uleb, uleb_len};

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Hello`](super::Hello): who greets, and what it can.
    Hello = 0x01,
    /// [`Proof`](super::Proof): what it proves.
    Proof = 0x02,
    /// [`Terms`](super::Terms): what it sends and takes.
    Terms = 0x03,
    /// [`Summary`](super::Summary): what it has in all.
    Summary = 0x04,
    /// [`Pull`](super::Pull): asks for cells of a sketch.
    Pull = 0x05,
    /// [`Cells`](super::Cells) of a sketch.
    Cells = 0x06,
    /// [`Want`](super::Want): asks for documents by symbol.
    Want = 0x07,
    /// [`Ask`](super::Ask): asks for ranges.
    Ask = 0x08,
    /// [`Shares`](super::Shares): what it has in ranges.
    Shares = 0x09,
    /// [`Entries`](super::Entries) for documents.
    Entries = 0x10,
    /// [`Packed`](super::Packed): the same, compressed.
    Packed = 0x11,
    /// [`Ping`](super::Ping): asks for a sign of life.
    Ping = 0x80,
    /// [`Pong`](super::Pong): gives it.
    Pong = 0x81,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Hello,
        Self::Proof,
        Self::Terms,
        Self::Summary,
        Self::Pull,
        Self::Cells,
        Self::Want,
        Self::Ask,
        Self::Shares,
        Self::Entries,
        Self::Packed,
        Self::Ping,
        Self::Pong,
    ];

    /// Set in the numbers of types that may be skipped.
    pub const OPTIONAL: u8 = 0x80;

    /// The type of this number, if it is one that this version knows.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A received frame. Its body is not looked into yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// At most as long as [`Caps`](super::Caps) allow.
    pub body: Bytes,
}

impl Frame {
    /// What a length must stay below.
    pub(super) const MAX_LENGTH: usize = 1 << 28;

    /// The bytes of this frame, whose body has fewer than 2^28 - 1.
    #[must_use]
    pub(super) fn encode(kind: Kind, body: &[u8]) -> Bytes {
        debug_assert!(body.len() + 1 < Self::MAX_LENGTH, "encoders keep to a budget");
        let length = body.len() + 1;
        let mut frame = BytesMut::with_capacity(uleb_len(length) + length);
        put_uleb(&mut frame, length);
        frame.put_u8(kind.code());
        frame.put_slice(body);
        frame.freeze()
    }

    /// Bytes of a frame with a body of so many.
    #[must_use]
    pub fn encoded_len(body: usize) -> usize {
        let length = body.saturating_add(1);
        uleb_len(length).saturating_add(length)
    }
}
