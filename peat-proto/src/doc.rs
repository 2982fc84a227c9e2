//! All documents: the index of every known one, the cache of loaded ones, and what is on its way to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{ActorId, Automerge};
use bytes::Bytes;

use crate::config::Config;
use crate::error::EditError;
use crate::heads::Heads;
use crate::id::{ConnId, DocId, EditId, LoadId, PeerId};
use crate::io::{Event, Origin, Refusal};
use crate::job::{Done, Job, Outcome, Work};
use crate::policy::{Class, Table};
use crate::stats::Stats;
use crate::store::{Kind, Record, StoreFault};
use crate::time::Now;

mod cache;
mod check;
mod digest;
pub(crate) mod document;
pub(crate) mod history;
mod persist;

use cache::Cache;
use digest::SetDigest;
use document::{Document, Live, LocalChange, Phase};
use history::{Incoming, Merged, Payload, Report, Source};
use persist::Writer;

/// Loads that may be under way at once: 64 documents of 64 KiB are 4 MiB.
const MAX_LOADS: usize = 64;

/// What happened to documents that the rest of the node must hear of.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The offered frontier moved. `sources` brought the changes and need not be told.
    Moved {
        doc: DocId,
        before: Heads,
        sources: Vec<ConnId>,
    },
    /// What a peer sent has been dealt with.
    Answered {
        conn: ConnId,
        doc: DocId,
        outcome: Result<(), Refusal>,
        heads: Option<Heads>,
    },
    /// What this connection waited for may be there now.
    Wake {
        conn: ConnId,
        doc: DocId,
    },
    /// What this connection waited for cannot be had now.
    Denied {
        conn: ConnId,
        doc: DocId,
    },
    /// This peer's admission is durable.
    Admitted(PeerId),
    Load(LoadId, DocId),
    Work(Job),
    Event(Event),
}

/// A document as the exchange sees it.
pub(crate) enum View<'a> {
    /// There is no such document.
    Absent,
    /// Content is not in memory; [`Docs::await_content`] brings it.
    Cold(&'a Document),
    /// A later version wrote it.
    Unreadable,
    Live(&'a Document, &'a Live),
}

/// Who waits for a document.
#[derive(Debug, Default)]
struct Attention {
    opens: u32,
    /// Opens that have not been answered.
    opening: bool,
    inbox: Vec<Incoming>,
    waiters: BTreeSet<ConnId>,
    /// A saved form is wanted.
    save: bool,
}

#[derive(Debug)]
pub(crate) struct Docs {
    policy: Table,
    limits: crate::config::AdmitLimits,
    load_inline: u64,
    merge_inline: u64,
    actor: ActorId,
    /// The index, by class and then by name: the order in which backlogs are sent.
    classes: [BTreeMap<DocId, Document>; 5],
    next_slot: u32,
    existing: u64,
    digest: SetDigest,
    attention: BTreeMap<DocId, Attention>,
    /// Documents with an inbox whose content is in memory.
    ready: BTreeSet<DocId>,
    loads: BTreeMap<LoadId, DocId>,
    to_load: VecDeque<DocId>,
    next_load: u64,
    next_edit: u64,
    cache: Cache,
    writer: Writer,
    /// Bytes received and not yet durable.
    received: usize,
    /// Above so many of them, what peers send is refused.
    most_received: usize,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) stats: Stats,
}

impl Docs {
    pub(crate) fn new(config: &Config, actor: ActorId) -> Self {
        Self {
            policy: config.policy.clone(),
            limits: config.admit,
            load_inline: config.load_inline_bytes as u64,
            merge_inline: config.merge_inline_bytes as u64,
            actor,
            classes: Default::default(),
            next_slot: 0,
            existing: 0,
            digest: SetDigest::default(),
            attention: BTreeMap::new(),
            ready: BTreeSet::new(),
            loads: BTreeMap::new(),
            to_load: VecDeque::new(),
            next_load: 0,
            next_edit: 0,
            cache: Cache::new(config.cache_bytes),
            writer: Writer::new(config.retry_min, config.retry_max),
            received: 0,
            most_received: config.undurable_budget.saturating_mul(2),
            effects: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes over a record of the store; at start only.
    pub(crate) fn restore(&mut self, doc: DocId, record: Record) {
        let document = Document::stored(self.draw_slot(), record);
        self.existing += 1;
        self.digest.insert(&doc, &document.offered);
        self.classes[self.class(&doc).index()].insert(doc, document);
    }

    pub(crate) fn class(&self, doc: &DocId) -> Class {
        self.policy.of(doc).class
    }

    pub(crate) fn get(&self, doc: &DocId) -> Option<&Document> {
        self.classes[self.class(doc).index()].get(doc)
    }

    fn get_mut(&mut self, doc: &DocId) -> Option<&mut Document> {
        let class = self.class(doc).index();
        self.classes[class].get_mut(doc)
    }

    /// The documents of one class behind a name, in order.
    pub(crate) fn after(&self, class: Class, behind: Option<&DocId>) -> impl Iterator<Item = (&DocId, &Document)> {
        use std::ops::Bound;
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.classes[class.index()].range::<DocId, _>((from, Bound::Unbounded))
    }

    /// The documents whose name starts with `prefix`, class by class.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a DocId, &'a Document)> {
        use std::ops::Bound;
        self.classes
            .iter()
            .flat_map(move |class| {
                class
                    .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                    .take_while(move |(doc, _)| doc.as_str().starts_with(prefix))
            })
            .filter(|(_, document)| document.exists())
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest.to_bytes()
    }

    /// How many documents exist.
    pub(crate) fn count(&self) -> u64 {
        self.existing
    }

    /// Upper end of all slots drawn so far.
    pub(crate) fn slots(&self) -> u32 {
        self.next_slot
    }

    /// Bytes received and not yet durable.
    pub(crate) fn undurable(&self) -> usize {
        self.received
    }

    pub(crate) fn view(&self, doc: &DocId) -> View<'_> {
        match self.get(doc) {
            None => View::Absent,
            Some(document) if document.kind != Kind::Automerge => View::Unreadable,
            Some(document) => match &document.phase {
                Phase::Live(live) if document.exists() => View::Live(document, live),
                Phase::Live(_) => View::Absent,
                // To ask for a quarantined document is to try it again.
                Phase::Cold | Phase::Loading | Phase::Busy | Phase::Quarantined => View::Cold(document),
            },
        }
    }

    /// Calls `Wake` for this connection once the document's content is in memory.
    pub(crate) fn await_content(&mut self, doc: &DocId, conn: ConnId) {
        self.attention.entry(doc.clone()).or_default().waiters.insert(conn);
        self.fetch(doc);
    }

    /// Calls `Wake` for this connection once a saved form is prepared.
    pub(crate) fn await_saved(&mut self, doc: &DocId, conn: ConnId) {
        let attention = self.attention.entry(doc.clone()).or_default();
        attention.waiters.insert(conn);
        attention.save = true;
        self.ready.insert(doc.clone());
    }

    /// Forgets what a connection waited for.
    pub(crate) fn disregard(&mut self, conn: ConnId) {
        let mut idle = Vec::new();
        self.attention.retain(|doc, attention| {
            if attention.waiters.remove(&conn) && attention.is_idle() {
                idle.push(doc.clone());
            }
            !attention.is_idle()
        });
        for doc in idle {
            self.drop_unborn(&doc);
        }
    }

    pub(crate) fn touch(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if let Some(Phase::Live(live)) = self.classes[class].get_mut(doc).map(|document| &mut document.phase) {
            self.cache.touch(doc, live);
        }
    }

    pub(crate) fn open(&mut self, doc: &DocId) {
        if self.get(doc).is_some_and(|document| document.kind != Kind::Automerge) {
            self.effects.push_back(Effect::Event(Event::OpenFailed { doc: doc.clone(), fault: StoreFault::Damaged }));
            return;
        }
        let attention = self.attention.entry(doc.clone()).or_default();
        attention.opens += 1;
        attention.opening = true;
        match self.get(doc).map(|document| &document.phase) {
            None | Some(Phase::Live(_)) => self.announce_open(doc),
            Some(_) => self.fetch(doc),
        }
    }

    pub(crate) fn close(&mut self, doc: &DocId) {
        if let Some(attention) = self.attention.get_mut(doc) {
            attention.opens = attention.opens.saturating_sub(1);
            if attention.is_idle() {
                self.attention.remove(doc);
                self.drop_unborn(doc);
            }
        }
    }

    /// Runs a transaction; see [`Node::edit`](crate::Node::edit).
    pub(crate) fn edit<R, E>(
        &mut self,
        now: Now,
        doc: &DocId,
        largest: usize,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, EditError<E>> {
        if let Some(fault) = self.writer.refusing() {
            return Err(EditError::Store(fault));
        }
        let actor = self.actor.clone();
        let class = self.class(doc).index();
        let mut fresh = None;
        let live = match self.classes[class].get_mut(doc) {
            None => fresh.insert(Live::blank(&actor)),
            Some(document) if document.kind != Kind::Automerge => return Err(EditError::Unreadable),
            Some(document) => match &mut document.phase {
                Phase::Live(live) => live.as_mut(),
                Phase::Busy => return Err(EditError::Busy),
                Phase::Cold | Phase::Loading => return Err(EditError::NotLoaded),
                Phase::Quarantined => return Err(EditError::Unreadable),
            },
        };
        let before = live.doc.get_heads();
        let mut transaction = live.doc.transaction();
        // Dropping the transaction, on an error or on a panic in `f`, rolls it back.
        let value = f(&mut transaction).map_err(EditError::Aborted)?;
        let seconds = i64::try_from(now.unix_ms / 1000).unwrap_or(i64::MAX);
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(seconds));
        let Some(hash) = hash else { return Ok(value) };
        let Some(change) = live.doc.get_last_local_change().filter(|change| change.hash() == hash) else {
            return Ok(value);
        };
        if change.raw_bytes().len() > largest {
            if let Some(doc) = history::rolled_back(&live.doc, &before, &actor) {
                live.doc = doc;
            }
            return Err(EditError::TooLarge);
        }
        live.memory = live.memory.saturating_add(100 + change.raw_bytes().len());
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        self.stats.edits += 1;
        if let Some(live) = fresh {
            self.admit_new(doc, Phase::Live(Box::new(live)));
        }
        let (hash, deps, bytes) = (change.hash(), change.deps().to_vec(), change.raw_bytes());
        if let Some(document) = self.classes[class].get_mut(doc) {
            let existed = document.exists();
            let unsaved = document.unsaved.get_or_insert_default();
            unsaved.bytes.extend_from_slice(bytes);
            unsaved.local.push(LocalChange { edit, hash, deps });
            unsaved.edit = Some(edit);
            self.writer.enqueue(doc, unsaved);
            self.existing += u64::from(!existed);
            let heads = document.heads();
            self.effects.push_back(Effect::Event(Event::Changed { doc: doc.clone(), origin: Origin::Local, heads }));
        }
        self.touch(doc);
        Ok(value)
    }

    pub(crate) fn last_edit(&self) -> EditId {
        EditId(self.next_edit)
    }

    pub(crate) fn content(&self, doc: &DocId) -> Option<&Automerge> {
        self.get(doc).filter(|document| document.exists()).and_then(Document::live).map(|live| &live.doc)
    }

    /// Takes what an application imports; answered by `Event::Imported`.
    pub(crate) fn import(&mut self, doc: &DocId, changes: Bytes) {
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        let source = Source::Import(edit);
        if let Err(refusal) = self.deliver(doc, Incoming { source, payload: Payload::Saved(changes) }) {
            let event = Event::Imported { doc: doc.clone(), outcome: Err(refusal), edit };
            self.effects.push_back(Effect::Event(event));
        }
    }

    /// Queues changes for a document; the outcome comes as `Effect::Answered` or `Event::Imported`.
    pub(crate) fn deliver(&mut self, doc: &DocId, incoming: Incoming) -> Result<(), Refusal> {
        match self.get(doc) {
            Some(document) if document.kind != Kind::Automerge => return Err(Refusal::Foreign),
            // Datagrams know no credit, and every new connection brings its own.
            _ if self.received > self.most_received && matches!(incoming.source, Source::Peer(..)) => {
                return Err(Refusal::Busy);
            }
            Some(_) => {}
            None => self.admit_new(doc, Phase::Live(Box::new(Live::blank(&self.actor)))),
        }
        self.received += incoming.payload.len();
        self.attention.entry(doc.clone()).or_default().inbox.push(incoming);
        self.fetch(doc);
        Ok(())
    }

    /// Whether neither work waits nor anybody is to be told of any.
    pub(crate) fn is_settled(&self) -> bool {
        self.effects.is_empty() && self.ready.is_empty()
    }

    /// Does one piece of waiting work; false when there is none.
    pub(crate) fn settle(&mut self) -> bool {
        let Some(doc) = self.ready.pop_first() else { return false };
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return true };
        let Phase::Live(_) = document.phase else { return true };
        let Some(attention) = self.attention.get_mut(&doc) else { return true };
        let mut incoming = std::mem::take(&mut attention.inbox);
        if incoming.first().is_some_and(|first| first.source == Source::Restore) {
            // What comes back counts differently from what is new: one after the other.
            attention.inbox = incoming.split_off(1);
        }
        let save = std::mem::take(&mut attention.save);
        let Phase::Live(mut live) = std::mem::replace(&mut document.phase, Phase::Busy) else { return true };
        let size: u64 = incoming.iter().map(|incoming| incoming.payload.len() as u64).sum();
        let large = document.bytes.max(size) > self.merge_inline;
        if !incoming.is_empty() {
            attention.save = save;
            if large {
                self.cache.remove(&live);
                let work = Work::Merge { live, incoming, limits: self.limits };
                self.effects.push_back(Effect::Work(Job::new(doc, work)));
            } else {
                self.cache.remove(&live);
                let merged = history::merge(&mut live.doc, incoming, &self.limits);
                self.conclude(doc, live, merged);
            }
        } else if save {
            self.cache.remove(&live);
            self.stats.saves += 1;
            let (at, whole) = (document.offered.clone(), document.local().is_empty());
            if large {
                self.effects.push_back(Effect::Work(Job::new(doc, Work::Save { live, at, whole })));
            } else {
                live.prepare(at, whole);
                self.become_live(doc, live);
            }
        } else {
            document.phase = Phase::Live(live);
        }
        true
    }

    pub(crate) fn loaded(&mut self, load: LoadId, chunks: Vec<Bytes>) {
        let Some(doc) = self.loads.remove(&load) else { return };
        self.start_loads();
        let size: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if size > self.load_inline {
            if let Some(document) = self.get_mut(&doc) {
                document.phase = Phase::Busy;
            }
            let work = Work::Load { chunks, actor: self.actor.clone() };
            self.effects.push_back(Effect::Work(Job::new(doc, work)));
        } else {
            match Live::load(&chunks, &self.actor) {
                Some(live) => self.become_live(doc, Box::new(live)),
                None => self.quarantine(doc, StoreFault::Damaged),
            }
        }
    }

    pub(crate) fn load_failed(&mut self, load: LoadId, fault: StoreFault) {
        let Some(doc) = self.loads.remove(&load) else { return };
        self.stats.store_faults += 1;
        self.start_loads();
        self.quarantine(doc, fault);
    }

    pub(crate) fn worked(&mut self, done: Done) {
        let Done { doc, outcome } = done;
        if !matches!(self.get(&doc).map(|document| &document.phase), Some(Phase::Busy)) {
            return;
        }
        match outcome {
            Outcome::Loaded(Some(live)) => self.become_live(doc, live),
            Outcome::Loaded(None) => self.quarantine(doc, StoreFault::Damaged),
            Outcome::Merged(live, merged) => self.conclude(doc, live, merged),
            Outcome::Saved(live) => {
                // A prepared form that compacts what is stored is written in its place.
                let class = self.class(&doc).index();
                if let Some(document) = self.classes[class].get_mut(&doc)
                    && persist::is_due(document.chunks, document.bytes, &live)
                {
                    let unsaved = document.unsaved.get_or_insert_default();
                    self.writer.enqueue(&doc, unsaved);
                }
                self.become_live(doc, live);
            }
        }
    }

    /// Lets go of the documents that were used longest ago, down to the budget.
    pub(crate) fn evict(&mut self) {
        let (classes, policy, attention) = (&mut self.classes, &self.policy, &self.attention);
        let mut evicted = 0;
        self.cache.shrink(|doc| {
            let document = classes[policy.of(doc).class.index()].get_mut(doc)?;
            if !document.is_clean() || attention.contains_key(doc) {
                return None;
            }
            match std::mem::take(&mut document.phase) {
                Phase::Live(live) => {
                    evicted += 1;
                    Some(live.memory)
                }
                phase => {
                    document.phase = phase;
                    None
                }
            }
        });
        self.stats.evictions += evicted;
    }

    pub(crate) fn gauges(&self, stats: &mut Stats) {
        stats.documents = self.existing;
        stats.loaded = self.cache.len() as u64;
        stats.cache_bytes = self.cache.bytes();
        stats.undurable_bytes = self.received;
    }

    fn draw_slot(&mut self) -> u32 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    fn admit_new(&mut self, doc: &DocId, phase: Phase) {
        let mut document = Document::unborn(self.draw_slot());
        document.phase = phase;
        if let Phase::Live(live) = &mut document.phase {
            self.cache.insert(doc, live);
        }
        self.classes[self.class(doc).index()].insert(doc.clone(), document);
    }

    /// Makes sure that content comes into memory, and is worked on once it is there.
    fn fetch(&mut self, doc: &DocId) {
        match self.get_mut(doc).map(|document| &mut document.phase) {
            Some(phase @ (Phase::Cold | Phase::Quarantined)) => {
                *phase = Phase::Loading;
                self.to_load.push_back(doc.clone());
                self.start_loads();
            }
            Some(Phase::Live(_)) => {
                self.ready.insert(doc.clone());
            }
            Some(Phase::Loading | Phase::Busy) | None => {}
        }
    }

    fn start_loads(&mut self) {
        while self.loads.len() < MAX_LOADS {
            let Some(doc) = self.to_load.pop_front() else { return };
            self.next_load += 1;
            let load = LoadId(self.next_load);
            self.stats.loads += 1;
            self.loads.insert(load, doc.clone());
            self.effects.push_back(Effect::Load(load, doc));
        }
    }

    fn become_live(&mut self, doc: DocId, mut live: Box<Live>) {
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        self.cache.insert(&doc, &mut live);
        document.phase = Phase::Live(live);
        self.announce_open(&doc);
        if let Some(attention) = self.attention.get_mut(&doc) {
            if !attention.inbox.is_empty() || attention.save {
                self.ready.insert(doc.clone());
            }
            for conn in std::mem::take(&mut attention.waiters) {
                self.effects.push_back(Effect::Wake { conn, doc: doc.clone() });
            }
            if attention.is_idle() {
                self.attention.remove(&doc);
            }
        }
    }

    fn announce_open(&mut self, doc: &DocId) {
        if let Some(attention) = self.attention.get_mut(doc)
            && std::mem::take(&mut attention.opening)
        {
            self.effects.push_back(Effect::Event(Event::Opened { doc: doc.clone() }));
        }
    }

    fn quarantine(&mut self, doc: DocId, fault: StoreFault) {
        if let Some(document) = self.get_mut(&doc) {
            document.phase = Phase::Quarantined;
        }
        self.stats.quarantined += 1;
        self.effects.push_back(Effect::Event(Event::Quarantined { doc: doc.clone(), fault }));
        let Some(mut attention) = self.attention.remove(&doc) else { return };
        if attention.opens > 0 {
            self.effects.push_back(Effect::Event(Event::OpenFailed { doc: doc.clone(), fault }));
        }
        for conn in std::mem::take(&mut attention.waiters) {
            self.effects.push_back(Effect::Denied { conn, doc: doc.clone() });
        }
        for incoming in std::mem::take(&mut attention.inbox) {
            let size = incoming.payload.len();
            let report = Report { source: incoming.source, outcome: Err(Refusal::Quarantined), heads: None, size };
            self.answer(&doc, report);
        }
    }

    /// Puts a merged document back and tells everyone what came of it.
    fn conclude(&mut self, doc: DocId, mut live: Box<Live>, merged: Merged) {
        let Merged { added, bytes, reports, broken } = merged;
        if broken {
            return self.reload(doc, reports);
        }
        live.memory = history::memory_of(&live.doc);
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        let existed = document.exists();
        let before = document.offered.clone();
        let mut sources = Vec::new();
        let mut origins = BTreeSet::new();
        for report in &reports {
            let (new, known) = report.outcome.unwrap_or_default();
            match report.source {
                Source::Peer(conn, peer) => {
                    self.stats.changes_applied += new;
                    self.stats.changes_known += known;
                    sources.push(conn);
                    if new > 0 {
                        origins.insert(Origin::Peer(peer));
                    }
                }
                Source::Import(_) if new > 0 => {
                    origins.insert(Origin::Local);
                }
                Source::Import(_) | Source::Restore => {}
            }
        }
        if !added.is_empty() {
            // What comes back after a failed merge was offered or held back before; neither changes by it.
            if !reports.iter().any(|report| report.source == Source::Restore) {
                document.offered = before.advanced(added.iter().map(|(hash, deps)| (*hash, deps.as_slice())));
                self.digest.remove(&doc, &before);
                self.digest.insert(&doc, &document.offered);
                let unsaved = document.unsaved.get_or_insert_default();
                unsaved.bytes.extend_from_slice(&bytes);
            }
            if let Some(unsaved) = &mut document.unsaved {
                self.writer.enqueue(&doc, unsaved);
            }
        }
        let moved = document.offered != before;
        let heads = document.heads();
        self.existing += u64::from(!existed && document.exists());
        let exists = document.exists();
        for report in reports {
            self.answer(&doc, report);
        }
        if moved {
            for origin in origins {
                let event = Event::Changed { doc: doc.clone(), origin, heads: heads.clone() };
                self.effects.push_back(Effect::Event(event));
            }
            self.effects.push_back(Effect::Moved { doc: doc.clone(), before, sources });
        }
        if exists {
            self.become_live(doc, live);
        } else {
            self.become_live(doc.clone(), live);
            self.drop_unborn(&doc);
        }
    }

    /// Automerge failed in the middle of a merge: start again from the store, with what it does not hold yet.
    fn reload(&mut self, doc: DocId, reports: Vec<Report>) {
        for report in reports {
            self.answer(&doc, report);
        }
        let Some(document) = self.get_mut(&doc) else { return };
        let unsaved = document.unsaved.as_ref().map(|unsaved| Bytes::copy_from_slice(&unsaved.bytes));
        if !document.exists() {
            self.drop_unborn(&doc);
            return;
        }
        let known = document.chunks > 0;
        document.phase = Phase::Cold;
        let stored = known || self.writer.carries(&doc);
        if !stored {
            let live = Box::new(Live::blank(&self.actor));
            self.become_live(doc.clone(), live);
        }
        if let Some(bytes) = unsaved.filter(|bytes| !bytes.is_empty()) {
            self.received += bytes.len();
            let incoming = Incoming { source: Source::Restore, payload: Payload::Saved(bytes) };
            self.attention.entry(doc.clone()).or_default().inbox.insert(0, incoming);
        }
        self.fetch(&doc);
    }

    fn drop_unborn(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if self.attention.get(doc).is_some_and(|attention| attention.opens == 0 && attention.inbox.is_empty()) {
            self.attention.remove(doc);
        }
        let stays = |document: &Document| document.exists() || matches!(document.phase, Phase::Busy);
        if self.attention.contains_key(doc) || self.get(doc).is_none_or(stays) {
            return;
        }
        if let Some(Document { phase: Phase::Live(live), .. }) = self.classes[class].remove(doc) {
            self.cache.remove(&live);
        }
    }

    /// Accounts for one report and passes it on to whoever sent the changes.
    fn answer(&mut self, doc: &DocId, report: Report) {
        let Report { source, outcome, heads, size } = report;
        let fresh = outcome.is_ok_and(|(new, _)| new > 0);
        match self.get_mut(doc).and_then(|document| document.unsaved.as_mut()) {
            Some(unsaved) if fresh => unsaved.received += size,
            _ => self.received = self.received.saturating_sub(size),
        }
        match source {
            Source::Restore => {}
            Source::Peer(conn, _) => {
                self.stats.refused += u64::from(outcome.is_err());
                let outcome = outcome.map(|_| ());
                self.effects.push_back(Effect::Answered { conn, doc: doc.clone(), outcome, heads });
            }
            Source::Import(edit) => {
                let known = self.get(doc).map_or(Heads::NONE, Document::heads);
                let event = Event::Imported { doc: doc.clone(), outcome: outcome.map(|_| known), edit };
                self.effects.push_back(Effect::Event(event));
                match self.get_mut(doc).and_then(|document| document.unsaved.as_mut()) {
                    Some(unsaved) => unsaved.edit = Some(edit),
                    None if outcome.is_ok() => {
                        self.effects.push_back(Effect::Event(Event::Durable { doc: doc.clone(), edit }));
                    }
                    None => {}
                }
            }
        }
    }
}

impl Attention {
    fn is_idle(&self) -> bool {
        self.opens == 0 && self.inbox.is_empty() && self.waiters.is_empty() && !self.save
    }
}
