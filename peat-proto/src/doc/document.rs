//! One document of the index.

use std::collections::BTreeSet;

use automerge::{ActorId, Automerge, ChangeHash};
use bytes::Bytes;

use crate::doc::history;
use crate::heads::Heads;
use crate::id::EditId;
use crate::store::{Kind, Record};

/// What is resident of every known document: about 150 B and its name.
#[derive(Debug)]
pub(crate) struct Document {
    /// The frontier of everything that may leave: all received changes and the own durable ones.
    pub(crate) offered: Heads,
    /// Position in the bit sets of the connections; never used for another document.
    pub(crate) slot: u32,
    pub(crate) kind: Kind,
    /// What the store holds; moves when a write is durable.
    pub(crate) bytes: u64,
    pub(crate) chunks: u32,
    pub(crate) shared: Option<u64>,
    pub(crate) phase: Phase,
    /// Only while something is not yet durable.
    pub(crate) unsaved: Option<Box<Unsaved>>,
}

/// Where the document's content is.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// In the store.
    #[default]
    Cold,
    /// On its way from the store.
    Loading,
    /// In memory.
    Live(Box<Live>),
    /// With a worker.
    Busy,
    /// The store could not read it; tried again when it is next asked for.
    Quarantined,
}

/// A document in memory.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) doc: Automerge,
    /// Estimated bytes in memory.
    pub(crate) memory: usize,
    /// When it was last used, on the cache's own count.
    pub(crate) used: u64,
    /// Bytes of its newest compact form in the store.
    pub(crate) compact: u64,
    /// A saved form, with the frontier that it shows.
    pub(crate) prepared: Option<(Heads, Bytes)>,
}

/// What is not yet durable of a document.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Change chunks that no batch carries yet.
    pub(crate) bytes: Vec<u8>,
    /// Own changes that are not durable: they may not leave.
    pub(crate) local: Vec<LocalChange>,
    /// The newest edit or import among what is not durable.
    pub(crate) edit: Option<EditId>,
    /// Whether the document waits for the next batch.
    pub(crate) queued: bool,
    /// Bytes received from peers that count against the budget until they are durable.
    pub(crate) received: usize,
}

/// A change that may not leave: an own one that is not durable, or one that builds on it.
#[derive(Debug)]
pub(crate) struct LocalChange {
    pub(crate) edit: EditId,
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
}

impl Unsaved {
    /// Holds back what may not leave before it is durable: all of an import, and whatever builds on an own change that
    /// is not durable. Returns what may leave at once.
    pub(crate) fn hold_back(
        &mut self,
        added: Vec<(ChangeHash, Vec<ChangeHash>)>,
        import: Option<EditId>,
    ) -> Vec<(ChangeHash, Vec<ChangeHash>)> {
        let mut held: BTreeSet<ChangeHash> = self.local.iter().map(|change| change.hash).collect();
        if held.is_empty() && import.is_none() {
            return added;
        }
        let newest = self.local.last().map(|change| change.edit).max(import);
        let mut free = Vec::new();
        for (hash, deps) in added {
            match newest {
                Some(edit) if import.is_some() || deps.iter().any(|dep| held.contains(dep)) => {
                    held.insert(hash);
                    self.local.push(LocalChange { edit, hash, deps });
                }
                _ => free.push((hash, deps)),
            }
        }
        free
    }
}

impl Live {
    /// An empty document that writes as `actor`.
    pub(crate) fn blank(actor: &ActorId) -> Self {
        Self::around(history::blank(actor), 0)
    }

    /// Parses the chunks of the store; `None` when they are damaged.
    pub(crate) fn load(chunks: &[Bytes], actor: &ActorId) -> Option<Self> {
        let compact = chunks.first().map_or(0, |chunk| chunk.len() as u64);
        history::parse(chunks, actor).map(|doc| Self::around(doc, compact))
    }

    fn around(doc: Automerge, compact: u64) -> Self {
        let memory = history::memory_of(&doc);
        Self { doc, memory, used: 0, compact, prepared: None }
    }

    /// Keeps a saved form of the history behind `at`; `whole` says that this is all of it.
    pub(crate) fn prepare(&mut self, at: Heads, whole: bool) {
        let bytes = history::save(&self.doc, if whole { None } else { Some(&at) });
        if !bytes.is_empty() {
            self.prepared = Some((at, bytes.into()));
        }
    }
}

impl Document {
    /// A document that nothing is known of yet.
    pub(crate) fn unborn(slot: u32) -> Self {
        Self {
            offered: Heads::NONE,
            slot,
            kind: Kind::Automerge,
            bytes: 0,
            chunks: 0,
            shared: None,
            phase: Phase::Cold,
            unsaved: None,
        }
    }

    pub(crate) fn stored(slot: u32, record: Record) -> Self {
        Self {
            offered: record.heads,
            slot,
            kind: record.kind,
            bytes: record.bytes,
            chunks: record.chunks,
            shared: record.shared,
            phase: Phase::Cold,
            unsaved: None,
        }
    }

    pub(crate) fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    pub(crate) fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    /// Own changes that may not leave.
    pub(crate) fn local(&self) -> &[LocalChange] {
        self.unsaved.as_ref().map_or(&[], |unsaved| &unsaved.local)
    }

    /// The frontier that the application sees.
    pub(crate) fn heads(&self) -> Heads {
        let local = self.local().iter().map(|change| (change.hash, change.deps.as_slice()));
        if self.local().is_empty() { self.offered.clone() } else { self.offered.advanced(local) }
    }

    /// Whether there is anything of it: a document exists from its first change on.
    pub(crate) fn exists(&self) -> bool {
        !self.offered.is_empty() || !self.local().is_empty() || self.chunks > 0
    }

    /// Whether its memory may be given up.
    pub(crate) fn is_clean(&self) -> bool {
        self.unsaved.is_none()
    }
}
