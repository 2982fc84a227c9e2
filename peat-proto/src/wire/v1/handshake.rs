//! The proof of membership with which a connection begins.
//!
//! ```text
//!   both sides at once   Hello  ──►            versions, nonce, boot, abilities
//!   on the other's       Proof  ──►            for each secret that the two may share: a code over everything so far
//! ```
//!
//! A code covers the channel binding of the TLS session, both identities, both roles, and both greetings as they were sent,
//! with nonces, versions and abilities in them. So it is of no use on another connection, to another peer, in the other
//! direction, at another time, or with greetings that were tampered with. It does not tell the secret.

use std::fmt;

use bytes::Bytes;

use super::error::BodyError;
use super::greet::{Hello, Method, Proof};
use crate::formation::Formation;
use crate::id::{Invitation, PeerId};
use crate::io::{CloseCode, Link, Role};

/// One side of the handshake: bodies in, frames out, what the other side proved in the end.
///
/// Frames may be lost, doubled or overtaken: what comes again is answered again, with the same bytes.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    binding: [u8; 32],
    local: PeerId,
    remote: PeerId,
    secrets: Secrets,
    hello: Hello,
    theirs: Option<Theirs>,
}

/// What a side may prove, or have proven to it.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    formation: Option<Key>,
    /// The dialler's own, or all that the acceptor gave out.
    invitations: Vec<Key>,
}

/// What the other side proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proven {
    /// It is a member of our formation.
    pub formation: bool,
    /// It was invited by us: by which of our invitations, in the order in which they were given.
    pub invitation: Option<usize>,
}

/// Why a handshake cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No version is spoken by both.
    #[error("the other side speaks versions {least} to {newest}")]
    Version {
        /// Its oldest.
        least: u8,
        /// Its newest.
        newest: u8,
    },
    /// A second greeting that is not the first.
    #[error("the other side greeted twice, and differently")]
    Changed,
    /// A proof before the greeting that it builds on.
    #[error("the other side proved before it greeted")]
    Early,
    /// A greeting or proof that cannot be read.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl HandshakeError {
    /// What the other side is told.
    #[must_use]
    pub const fn code(&self) -> CloseCode {
        match self {
            Self::Version { .. } | Self::Body(BodyError::Unknown { .. }) => CloseCode::Version,
            Self::Changed | Self::Early => CloseCode::Unexpected,
            Self::Body(_) => CloseCode::BadFrame,
        }
    }
}

/// The other side's greeting.
#[derive(Debug)]
struct Theirs {
    /// As it was sent.
    body: Bytes,
    hello: Hello,
    version: u8,
}

impl Secrets {
    /// A member of a formation, or of none, and the invitations: as a dialler the one that it was given, if any; as an
    /// acceptor all that it gave out.
    #[must_use]
    pub fn new<'a>(formation: Option<&Formation>, invitations: impl IntoIterator<Item = &'a Invitation>) -> Self {
        let formation =
            formation.map(|formation| Key(blake3::derive_key("peat 2026 formation proof v1", &formation.root())));
        let key = |invitation: &Invitation| Key(blake3::derive_key("peat 2026 invitation proof v1", &invitation.0));
        Self { formation, invitations: invitations.into_iter().map(key).collect() }
    }
}

impl Handshake {
    /// Begins on a connection. The greeting's nonce must never have been used.
    #[must_use]
    pub fn new(link: &Link, local: PeerId, remote: PeerId, secrets: Secrets, hello: Hello) -> Self {
        Self { role: link.role, binding: link.binding, local, remote, secrets, hello, theirs: None }
    }

    /// Our greeting: to be sent at once, and again while nothing is heard.
    #[must_use]
    pub fn hello(&self) -> Bytes {
        self.hello.frame()
    }

    /// The other side's greeting, once it has been heard.
    #[must_use]
    pub fn peer(&self) -> Option<&Hello> {
        self.theirs.as_ref().map(|theirs| &theirs.hello)
    }

    /// The version that is spoken, once it is known.
    #[must_use]
    pub fn version(&self) -> Option<u8> {
        self.theirs.as_ref().map(|theirs| theirs.version)
    }

    /// Takes in a greeting; the same one may come several times.
    ///
    /// # Errors
    /// [`HandshakeError`]: the connection is to be closed with its code.
    pub fn heard_hello(&mut self, body: Bytes) -> Result<(), HandshakeError> {
        if let Some(theirs) = &self.theirs {
            return if theirs.body == body { Ok(()) } else { Err(HandshakeError::Changed) };
        }
        let hello = Hello::decode(body.clone())?;
        let Some(version) = self.hello.common_version(&hello) else {
            return Err(HandshakeError::Version { least: hello.least, newest: hello.newest });
        };
        // A small body must not keep a large buffer alive.
        let body = Bytes::copy_from_slice(&body);
        self.theirs = Some(Theirs { body, hello, version });
        Ok(())
    }

    /// Our proof: to be sent once the other side's greeting is heard, and again while its proof is not; `None` before.
    #[must_use]
    pub fn proof(&self) -> Option<Bytes> {
        let theirs = self.theirs.as_ref()?;
        let code = |method, key: &Key| *self.code(theirs, method, self.role, key).as_bytes();
        let invitation = match self.role {
            Role::Dialled => self.secrets.invitations.first(),
            // Which one the dialler was given is not known yet, and it knows whom it dialled.
            Role::Accepted => None,
        };
        let proof = Proof {
            formation: self.secrets.formation.as_ref().map(|key| code(Method::Formation, key)),
            invitation: invitation.map(|key| code(Method::Invitation, key)),
        };
        Some(proof.frame())
    }

    /// Takes in a proof; the same one may come several times.
    ///
    /// # Errors
    /// [`HandshakeError`]: the connection is to be closed with its code. A code that does not fit is no error: it proves
    /// nothing.
    pub fn heard_proof(&self, body: Bytes) -> Result<Proven, HandshakeError> {
        let Some(theirs) = &self.theirs else { return Err(HandshakeError::Early) };
        let proof = Proof::decode(body)?;
        let prover = match self.role {
            Role::Dialled => Role::Accepted,
            Role::Accepted => Role::Dialled,
        };
        // Hashes are compared in constant time.
        let fits =
            |method, key: &Key, code: [u8; 32]| self.code(theirs, method, prover, key) == blake3::Hash::from(code);
        let formation = self.secrets.formation.as_ref().zip(proof.formation);
        let invited = |code| self.secrets.invitations.iter().position(|key| fits(Method::Invitation, key, code));
        Ok(Proven {
            formation: formation.is_some_and(|(key, code)| fits(Method::Formation, key, code)),
            invitation: proof.invitation.filter(|_| prover == Role::Dialled).and_then(invited),
        })
    }

    /// The code by which the side `prover` proves that it knows `key`.
    fn code(&self, theirs: &Theirs, method: Method, prover: Role, key: &Key) -> blake3::Hash {
        let own = self.hello.encode();
        let (dialler, acceptor, dialled, accepted) = match self.role {
            Role::Dialled => (&self.local, &self.remote, &own, &theirs.body),
            Role::Accepted => (&self.remote, &self.local, &theirs.body, &own),
        };
        let mut hasher = blake3::Hasher::new_keyed(&key.0);
        hasher.update(b"peat/sync/1").update(&[method as u8, prover as u8, theirs.version]);
        hasher.update(&self.binding).update(&dialler.0).update(&acceptor.0);
        for hello in [dialled, accepted] {
            hasher.update(&(hello.len() as u64).to_be_bytes()).update(hello);
        }
        hasher.finalize()
    }
}

/// The key of a proof. Never printed.
#[derive(Clone)]
struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests;
