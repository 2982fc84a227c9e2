//! Who the two sides are, what they prove, and what they send each other.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::BodyError;
use super::frame::{Frame, Kind};
use crate::wire::kit::{put_uleb, take, take_array, take_u8, take_uleb};

/// The first frame in both directions. Its layout is the same in every version.
///
/// `least u8 | newest u8 | nonce, 32 bytes | boot | abilities | largest document | fields`, each field
/// `tag | length | bytes` in ascending order of tags: a field of an unknown odd tag is skipped, one of an unknown even tag
/// ends the connection. Version 1 defines no field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that the sender speaks.
    pub least: u8,
    /// The newest version that the sender speaks.
    pub newest: u8,
    /// Never used before.
    pub nonce: [u8; 32],
    /// The boot number of the sender; grows after every end that was not clean.
    pub boot: u64,
    /// What the sender can do, bit by bit; unknown bits say nothing.
    pub abilities: u64,
    /// Bytes of the largest document that the sender takes in pieces.
    pub largest: u64,
}

impl Hello {
    /// The one version so far.
    pub const VERSION: u8 = 1;

    /// The sender takes compressed entries.
    pub const PACKED: u64 = 1;

    /// The newest version that both speak.
    #[must_use]
    pub fn common_version(&self, other: &Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.least.max(other.least)).then_some(newest)
    }

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let hello = Self {
            least: take_u8(body).ok_or(BodyError::Truncated)?,
            newest: take_u8(body).ok_or(BodyError::Truncated)?,
            nonce: take_array(body).ok_or(BodyError::Truncated)?,
            boot: take_uleb(body)?,
            abilities: take_uleb(body)?,
            largest: take_uleb(body)?,
        };
        skip_fields(body)?;
        Ok(hello)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(self.least);
        body.put_u8(self.newest);
        body.put_slice(&self.nonce);
        put_uleb(&mut body, self.boot);
        put_uleb(&mut body, self.abilities);
        put_uleb(&mut body, self.largest);
        body.freeze()
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        Frame::encode(Kind::Hello, &self.encode())
    }
}

/// How a node proves that it may sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Method {
    /// It knows the secret of the formation.
    Formation = 1,
    /// It knows an invitation that the other side gave out, or that it gave out itself.
    Invitation = 2,
}

/// The answer to the other side's greeting, in both directions.
///
/// For each method, in ascending order: `method u8 | code, 32 bytes`. Unknown methods are skipped. It may be empty: a side
/// that knows the other by its id asks for no proof.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// By the secret of the formation.
    pub formation: Option<[u8; 32]>,
    /// By an invitation.
    pub invitation: Option<[u8; 32]>,
}

impl Proof {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let (mut proof, mut last) = (Self::default(), 0);
        while !body.is_empty() {
            let method = take_u8(body).ok_or(BodyError::Truncated)?;
            let code = take_array(body).ok_or(BodyError::Truncated)?;
            if method <= last {
                return Err(BodyError::Order);
            }
            last = method;
            match method {
                method if method == Method::Formation as u8 => proof.formation = Some(code),
                method if method == Method::Invitation as u8 => proof.invitation = Some(code),
                _ => {}
            }
        }
        Ok(proof)
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::new();
        for (method, code) in [(Method::Formation, self.formation), (Method::Invitation, self.invitation)] {
            if let Some(code) = code {
                body.put_u8(method as u8);
                body.put_slice(&code);
            }
        }
        Frame::encode(Kind::Proof, &body)
    }
}

/// What the sender sends and takes on this connection; said again when that changes.
///
/// `generation | key, 8 bytes | count | scopes | fields`, each scope `id, 8 bytes | flags u8` in ascending order: bit 0, the
/// sender sends it; bit 1, it takes it. Fields as in [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// Grows with every change, from 1.
    pub generation: u64,
    /// Names the key of the sender's symbols.
    pub key: [u8; 8],
    /// At most [`Self::MAX_SCOPES`], by ascending id.
    pub scopes: Vec<Scope>,
}

/// A set of collections that are sent alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Made of the definition of the set.
    pub id: [u8; 8],
    /// The sender sends its documents.
    pub sends: bool,
    /// The sender takes its documents.
    pub takes: bool,
}

impl Terms {
    /// Most scopes of a node: each of four directions with each of sixteen sets of those from whom it is taken.
    pub const MAX_SCOPES: usize = 64;

    const SENDS: u8 = 1;
    const TAKES: u8 = 2;

    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(mut body: Bytes) -> Result<Self, BodyError> {
        let body = &mut body;
        let generation = take_uleb(body)?;
        let key = take_array(body).ok_or(BodyError::Truncated)?;
        let count = take_uleb(body)?;
        if count > Self::MAX_SCOPES as u64 {
            return Err(BodyError::TooMany);
        }
        let mut scopes: Vec<Scope> = Vec::new();
        for _ in 0..count {
            let id = take_array(body).ok_or(BodyError::Truncated)?;
            let flags = take_u8(body).ok_or(BodyError::Truncated)?;
            if flags & !(Self::SENDS | Self::TAKES) != 0 {
                return Err(BodyError::Undefined);
            }
            if scopes.last().is_some_and(|last| last.id >= id) {
                return Err(BodyError::Order);
            }
            scopes.push(Scope { id, sends: flags & Self::SENDS != 0, takes: flags & Self::TAKES != 0 });
        }
        skip_fields(body)?;
        Ok(Self { generation, key, scopes })
    }

    /// The frame. Scopes beyond [`Self::MAX_SCOPES`] are left out.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let scopes = self.scopes.get(..Self::MAX_SCOPES).unwrap_or(&self.scopes);
        let mut body = BytesMut::new();
        put_uleb(&mut body, self.generation);
        body.put_slice(&self.key);
        put_uleb(&mut body, scopes.len());
        for scope in scopes {
            body.put_slice(&scope.id);
            body.put_u8((u8::from(scope.sends) * Self::SENDS) | (u8::from(scope.takes) * Self::TAKES));
        }
        Frame::encode(Kind::Terms, &body)
    }
}

/// Passes over the fields of a later version.
fn skip_fields(body: &mut Bytes) -> Result<(), BodyError> {
    let mut last = None;
    while !body.is_empty() {
        let tag = take_uleb(body)?;
        let len = usize::try_from(take_uleb(body)?).map_err(|_| BodyError::Truncated)?;
        take(body, len).ok_or(BodyError::Truncated)?;
        if last.is_some_and(|last| last >= tag) {
            return Err(BodyError::Order);
        }
        last = Some(tag);
        if tag % 2 == 0 {
            return Err(BodyError::Unknown { tag });
        }
    }
    Ok(())
}
