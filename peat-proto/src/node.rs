//! The state machine.

use automerge::Automerge;
use automerge::transaction::Transaction;

use crate::config::Config;
use crate::error::EditError;
use crate::heads::Heads;
use crate::id::{Boot, DocId, EditId, PeerId};
use crate::io::{Input, Output};
use crate::stats::Stats;
use crate::store::Entry;
use crate::time::{Now, Time};

/// A node of the mesh as a pure state machine. SKELETON: the bodies land next; the signatures are final.
#[derive(Debug)]
pub struct Node;

/// One document of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub doc: DocId,
    /// Its heads, own undurable changes included.
    pub heads: Heads,
    /// Bytes in the store.
    pub bytes: u64,
}

#[allow(unused_variables, clippy::unimplemented, missing_docs)]
impl Node {
    pub fn new(
        config: Config,
        local: PeerId,
        boot: Boot,
        seed: [u8; 32],
        entries: impl IntoIterator<Item = Entry>,
        now: Now,
    ) -> Self {
        unimplemented!()
    }
    pub fn handle(&mut self, now: Now, input: Input) {
        unimplemented!()
    }
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        unimplemented!()
    }
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        unimplemented!()
    }
    /// `NotLoaded` for a document that exists and is cold: `Input::Open` it, wait for `Event::Opened`, edit, `Input::Close`.
    /// A document that does not exist is created by its first edit that changes something.
    pub fn edit<R, E>(
        &mut self,
        now: Now,
        doc: &DocId,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, EditError<E>> {
        unimplemented!()
    }
    /// The number of the newest local edit that changed something; compare with `Event::Durable`.
    #[must_use]
    pub fn last_edit(&self) -> EditId {
        unimplemented!()
    }
    /// None: unknown, or not loaded now (see `contains`).
    #[must_use]
    pub fn doc(&self, doc: &DocId) -> Option<&Automerge> {
        unimplemented!()
    }
    /// Whether the index knows the document.
    #[must_use]
    pub fn contains(&self, doc: &DocId) -> bool {
        unimplemented!()
    }
    /// The documents whose name starts with `prefix`, in the order of their names.
    #[must_use]
    pub fn documents(&self, prefix: &str) -> Vec<Listing> {
        unimplemented!()
    }
    /// Whether the document sets of this node and a connected, admitted peer are proven equal.
    #[must_use]
    pub fn level(&self, peer: &PeerId) -> bool {
        unimplemented!()
    }
    #[must_use]
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
}
