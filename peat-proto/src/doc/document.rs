//! One document of the index.

use std::collections::BTreeSet;

use automerge::{ActorId, Automerge, ChangeHash};
use bytes::Bytes;

use crate::config::AdmitLimits;
use crate::doc::extent::Extent;
use crate::doc::history::{self, Merged};
use crate::doc::inbox::Portion;
use crate::heads::Heads;
use crate::id::EditId;
use crate::marker::Marker;
use crate::store::{Facts, Kind, Record};

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
    /// What the content says about its age and end; moves with the heads.
    pub(crate) facts: Facts,
    /// Its time is over: not offered and not shown, and soon collected.
    pub(crate) lapsed: bool,
    pub(crate) phase: Phase,
    /// Only while something is not yet durable.
    pub(crate) unsaved: Option<Box<Unsaved>>,
}

/// Where the document's content is.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// In the store; of a document that is not known, nowhere yet.
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
    /// Nowhere: the document was deleted.
    Buried,
}

/// What leaves of a document when peers compare what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer<'a> {
    Nothing,
    Heads(&'a Heads),
    Marker(&'a Marker),
}

/// A document in memory.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) doc: Automerge,
    pub(crate) extent: Extent,
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
    /// The document's marker is our own and not durable: it may not leave, and what was offered before still is.
    pub(crate) own_marker: bool,
}

/// A change that may not leave: an own one that is not durable, or one that builds on it.
#[derive(Debug)]
pub(crate) struct LocalChange {
    pub(crate) edit: EditId,
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
}

impl<'a> Offer<'a> {
    /// These heads; nothing without any.
    pub(crate) fn of(heads: &'a Heads) -> Self {
        if heads.is_empty() { Self::Nothing } else { Self::Heads(heads) }
    }
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
        Self::around_blank(history::blank(actor))
    }

    /// An empty document that was not used.
    pub(crate) fn around_blank(doc: Automerge) -> Self {
        Self::around(doc, Extent::default(), 0)
    }

    /// Parses the chunks of the store; `None` when they are damaged.
    pub(crate) fn load(chunks: &[Bytes], actor: &ActorId) -> Option<Self> {
        let compact = chunks.first().map_or(0, |chunk| chunk.len() as u64);
        let doc = history::parse(chunks, actor)?;
        let extent = Extent::of_chunks(chunks.iter().map(Bytes::as_ref));
        Some(Self::around(doc, extent, compact))
    }

    fn around(doc: Automerge, extent: Extent, compact: u64) -> Self {
        let memory = extent.memory(&doc);
        Self { doc, extent, memory, used: 0, compact, prepared: None }
    }

    /// Merges what arrived.
    pub(crate) fn merge(&mut self, portion: Portion, limits: &AdmitLimits) -> Merged {
        let merged = history::merge(&mut self.doc, &mut self.extent, portion, limits);
        self.memory = self.extent.memory(&self.doc);
        merged
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
            facts: Facts::default(),
            lapsed: false,
            phase: Phase::Cold,
            unsaved: None,
        }
    }

    pub(crate) fn stored(slot: u32, record: Record) -> Self {
        Self {
            offered: record.heads,
            slot,
            bytes: record.bytes,
            chunks: record.chunks,
            shared: record.shared,
            facts: record.facts,
            lapsed: false,
            phase: if matches!(record.kind, Kind::Marker(_)) { Phase::Buried } else { Phase::Cold },
            kind: record.kind,
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

    /// Whether there is such a document for the application: from its first change on, and until its time is over.
    pub(crate) fn exists(&self) -> bool {
        !self.lapsed && self.marker().is_none() && self.is_known()
    }

    /// Whether anything is known of it: content, or that it was deleted.
    pub(crate) fn is_known(&self) -> bool {
        !self.offered.is_empty() || !self.local().is_empty() || self.chunks > 0 || self.marker().is_some()
    }

    /// Whether something came for a document that nothing else is known of: neither memory nor store have content.
    pub(crate) fn awaits_birth(&self) -> bool {
        matches!(self.phase, Phase::Cold) && !self.is_known()
    }

    /// Whether it was deleted, softly or not.
    pub(crate) fn is_deleted(&self) -> bool {
        self.marker().is_some() || (self.facts.deleted && !self.lapsed)
    }

    /// What stands in its place since it was deleted.
    pub(crate) fn marker(&self) -> Option<&Marker> {
        match &self.kind {
            Kind::Marker(marker) => Some(marker),
            Kind::Automerge | Kind::Other(_) => None,
        }
    }

    /// What peers may know of it.
    pub(crate) fn offer(&self) -> Offer<'_> {
        let held = self.unsaved.as_ref().is_some_and(|unsaved| unsaved.own_marker);
        match self.marker() {
            Some(marker) if !held => Offer::Marker(marker),
            _ if self.lapsed => Offer::Nothing,
            _ => Offer::of(&self.offered),
        }
    }

    /// Whether what the store has is as good as a saved form: one chunk, or very few bytes.
    pub(crate) fn is_compact(&self) -> bool {
        const SMALL: u64 = 2 << 10;
        const LARGE: u64 = 64 << 10;
        self.is_clean() && self.bytes <= if self.chunks == 1 { LARGE } else { SMALL }
    }

    /// Whether its memory may be given up.
    pub(crate) fn is_clean(&self) -> bool {
        self.unsaved.is_none()
    }
}
