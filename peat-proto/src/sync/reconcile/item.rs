//! What a set consists of.

use super::set::Digest;
use super::symbol::{SetKey, Symbol};
use crate::heads::Heads;
use crate::id::DocId;

/// What is offered of a document.
#[derive(Debug, Clone, Copy)]
pub enum State<'a> {
    /// A history, by its newest changes.
    Heads(&'a Heads),
    /// A deletion, by its marker as it stands on the wire.
    Marker(&'a [u8]),
}

/// One element of a set: the symbol that finds it and the digest that judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Under the set key.
    pub symbol: Symbol,
    /// The same whatever the key.
    pub(super) digest: Digest,
}

impl Item {
    /// What it adds to the digest of a set.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Item {
    /// The element for a document in this incarnation and state.
    #[must_use]
    pub fn new(key: &SetKey, doc: &DocId, incarnation: u64, state: State<'_>) -> Self {
        let name = doc.as_str().as_bytes();
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 set item v1");
        // A name has at most 512 bytes.
        hasher.update(&(name.len() as u64).to_be_bytes()).update(name).update(&incarnation.to_be_bytes());
        match state {
            State::Heads(heads) => {
                hasher.update(&[0]);
                heads.as_slice().iter().for_each(|head| {
                    hasher.update(&head.0);
                });
            }
            State::Marker(marker) => {
                hasher.update(&[1]).update(marker);
            }
        }
        let hash = *hasher.finalize().as_bytes();
        Self { symbol: Symbol { name: key.tag(name), state: key.tag(&hash) }, digest: Digest::of(&hash) }
    }
}
