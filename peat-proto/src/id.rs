//! Names: peers, documents, connections, streams and requests.

use std::fmt;
use std::sync::Arc;

use crate::io::Role;

/// A node of the mesh: its 32-byte Ed25519 public key, authenticated by the transport.
///
/// The core never verifies a key; it trusts the [`Link`](crate::Link) that the driver hands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).ok()?;
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of a document: `collection:id`, validated once, cheap to clone.
///
/// The collection is everything before the first colon and decides the document's policy; the id is everything after
/// it and may contain colons itself. A `DocId` can always be encoded on both wires.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId(Arc<str>);

impl DocId {
    /// Longest name, in bytes of UTF-8. Legacy peers allow 65,535; nobody needs a name longer than a line, and an
    /// index entry must stay small.
    pub const MAX_LEN: usize = 512;

    /// Collections that the wire uses for its own traffic and that a document may not have.
    pub const RESERVED: [&'static str; 3] = ["tombstones", "batch", "_negentropy"];

    /// Validates a name.
    ///
    /// # Errors
    /// [`BadDocId`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, BadDocId> {
        if name.len() > Self::MAX_LEN {
            return Err(BadDocId::TooLong { len: name.len() });
        }
        if name.chars().any(char::is_control) {
            return Err(BadDocId::ControlCharacter);
        }
        match name.split_once(':') {
            None => Err(BadDocId::NoColon),
            Some(("", _)) => Err(BadDocId::EmptyCollection),
            Some((_, "")) => Err(BadDocId::EmptyId),
            Some((collection, _)) if Self::RESERVED.contains(&collection) => Err(BadDocId::Reserved),
            Some(_) => Ok(Self(name.into())),
        }
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first colon; never empty.
    #[must_use]
    pub fn collection(&self) -> &str {
        self.0.split_once(':').map_or("", |(collection, _)| collection)
    }

    /// The part after the first colon; never empty.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, id)| id)
    }
}

impl std::str::FromStr for DocId {
    type Err = BadDocId;
    fn from_str(name: &str) -> Result<Self, BadDocId> {
        Self::new(name)
    }
}

impl std::borrow::Borrow<str> for DocId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the name of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDocId {
    /// There is no colon between collection and id.
    #[error("a key is `collection:id`; there is no colon")]
    NoColon,
    /// Nothing stands before the colon.
    #[error("the collection before the colon is empty")]
    EmptyCollection,
    /// Nothing stands after the colon.
    #[error("the id after the colon is empty")]
    EmptyId,
    /// Longer than [`DocId::MAX_LEN`] bytes.
    #[error("the key has {len} bytes; at most {} are allowed", DocId::MAX_LEN)]
    TooLong {
        /// Bytes of the name.
        len: usize,
    },
    /// A control character (Unicode category Cc) occurs.
    #[error("the key contains a control character")]
    ControlCharacter,
    /// The collection is one of [`DocId::RESERVED`].
    #[error("the collection is reserved for the protocol")]
    Reserved,
}

/// One connection. The driver draws ids from a counter and never uses one twice in the life of a [`Node`](crate::Node).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One stream of a connection, numbered as QUIC does (RFC 9000, 2.1): bit 0 is set if the accepting side opened it, bit 1
/// if only its opener writes. Never used twice within the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The `index`th stream of its kind.
    #[must_use]
    pub const fn new(index: u64, opener: Role, bidirectional: bool) -> Self {
        let accepted = matches!(opener, Role::Accepted) as u64;
        Self((index << 2) | ((!bidirectional as u64) << 1) | accepted)
    }

    /// Which side of the connection opened it.
    #[must_use]
    pub const fn opener(self) -> Role {
        if self.0 & 1 == 0 { Role::Dialled } else { Role::Accepted }
    }

    /// Whether both sides write on it.
    #[must_use]
    pub const fn is_bidirectional(self) -> bool {
        self.0 & 2 == 0
    }
}

/// A load that the core asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// A batch that the core wrote; consecutive from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A local edit, numbered from 1 in the life of a [`Node`](crate::Node).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EditId(pub u64);

/// A secret that admits its bearer to the node that issued it; it travels inside that node's tickets.
///
/// Shown only inside a connection that is pinned to the issuer's key, compared in constant time, never printed.
#[derive(Clone, Copy)]
pub struct Invitation(pub [u8; 32]);

impl PartialEq for Invitation {
    fn eq(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for Invitation {}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation(..)")
    }
}

/// Which actor a node edits as: one store, one boot.
///
/// The driver makes the number durable *before* it builds the node. After a clean close the number stays, so that a
/// thousand short-lived processes write as one actor; after a crash, a restore or a copy it grows or the store's
/// instance changes, because Automerge never recovers from an actor that repeats a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Drawn at random when the store is created, and again when it is found to be a copy.
    pub store: [u8; 16],
    /// Counts the boots that may not share an actor; from 1.
    pub number: u64,
}

impl Boot {
    /// The Automerge actor of this boot: 16 bytes of BLAKE3 over peer, store instance and number.
    #[must_use]
    pub fn actor(&self, peer: &PeerId) -> automerge::ActorId {
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 automerge actor v1");
        hasher.update(&peer.0).update(&self.store).update(&self.number.to_be_bytes());
        let mut actor = [0; 16];
        hasher.finalize_xof().fill(&mut actor);
        automerge::ActorId::from(actor)
    }
}
