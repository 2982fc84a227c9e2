//! All documents: the index of every known one, the cache of loaded ones, and what is on its way to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use automerge::{ActorId, Automerge};
use bytes::Bytes;

use crate::config::Config;
use crate::heads::Heads;
use crate::id::{ConnId, DocId, LoadId, PeerId};
use crate::io::{Event, Refusal};
use crate::job::Job;
use crate::marker::Marker;
use crate::policy::{Class, Table};
use crate::reconcile::SetKey;
use crate::stats::Stats;
use crate::store::{Kind, Record};

mod arrive;
mod bury;
mod cache;
mod check;
pub(crate) mod document;
mod edit;
mod extent;
pub(crate) mod history;
pub(crate) mod inbox;
mod lifetime;
mod load;
mod persist;
pub(crate) mod scopes;

pub(crate) use bury::Buried;
use cache::{Cache, Verdict};
use document::{Document, Live, Offer, Phase};
use history::Brought;
use inbox::Incoming;
use lifetime::Calendar;
use persist::Writer;
use scopes::{Scope, Scopes};

/// Documents that may be on their way into memory at once, parsing included: 64 of 64 KiB are 4 MiB.
const MAX_LOADS: usize = 64;

/// Merges that workers may have at once, each of no more than [`AdmitLimits`](crate::config::AdmitLimits) expand to: as many as
/// there are workers.
const MAX_MERGES: usize = 4;

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
        brought: Brought,
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
    /// Its content is not in memory, but the bytes that the store has of it are; [`Docs::await_stored`] brought them.
    Stored(&'a Document, &'a Bytes),
    /// A later version wrote it.
    Unreadable,
    /// It was deleted; `None` while our own marker may not leave.
    Buried(Option<&'a Marker>),
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
    /// They only want the bytes that the store has.
    copiers: BTreeSet<ConnId>,
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
    /// Slots of documents that never came to be.
    free_slots: Vec<u32>,
    existing: u64,
    markers: u64,
    most_markers: u64,
    /// The newest Lamport time of any marker.
    lamport: u64,
    calendar: Calendar,
    /// Unix milliseconds, as of the last call that took the time.
    now_ms: u64,
    pub(crate) scopes: Scopes,
    attention: BTreeMap<DocId, Attention>,
    /// Documents with an inbox whose content is in memory, or that have none yet.
    ready: BTreeSet<DocId>,
    /// Documents with an inbox that waits until more of what was merged is durable, or until a worker is free.
    stalled: BTreeSet<DocId>,
    /// Merges that workers have.
    merging: usize,
    loads: BTreeMap<LoadId, DocId>,
    /// Loaded, and being parsed by a worker.
    parsing: BTreeSet<DocId>,
    /// Deleted documents with a job under way.
    idle_jobs: BTreeSet<DocId>,
    to_load: VecDeque<DocId>,
    /// What the store has of documents that are on their way to a peer unparsed.
    copies: BTreeMap<DocId, Bytes>,
    copied_bytes: usize,
    next_load: u64,
    next_edit: u64,
    cache: Cache,
    /// An empty document, so that the next one to be born needs no other: to make and free it costs a tenth of loading a small one.
    blank: Option<Box<Automerge>>,
    writer: Writer,
    /// Bytes received and not yet durable.
    received: usize,
    /// Of these, the bytes that are not merged yet.
    waiting: usize,
    /// Above so many of them, what peers send is refused.
    most_received: usize,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) stats: Stats,
}

impl Docs {
    pub(crate) fn new(config: &Config, actor: ActorId) -> Self {
        let formation = config.admission.formation.as_ref();
        Self {
            policy: config.policy.clone(),
            limits: config.admit,
            load_inline: config.load_inline_bytes as u64,
            merge_inline: config.merge_inline_bytes as u64,
            actor,
            classes: Default::default(),
            next_slot: 0,
            existing: 0,
            markers: 0,
            most_markers: config.max_markers,
            lamport: 0,
            calendar: Calendar::default(),
            now_ms: 0,
            scopes: Scopes::new(formation.map_or_else(SetKey::public, SetKey::of_formation)),
            attention: BTreeMap::new(),
            ready: BTreeSet::new(),
            stalled: BTreeSet::new(),
            merging: 0,
            loads: BTreeMap::new(),
            parsing: BTreeSet::new(),
            free_slots: Vec::new(),
            idle_jobs: BTreeSet::new(),
            to_load: VecDeque::new(),
            copies: BTreeMap::new(),
            copied_bytes: 0,
            next_load: 0,
            next_edit: 0,
            cache: Cache::new(config.cache_bytes),
            blank: None,
            writer: Writer::new(config.retry_min, config.retry_max),
            received: 0,
            waiting: 0,
            most_received: config.undurable_budget.saturating_mul(2),
            effects: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes over a record of the store; at start only.
    pub(crate) fn restore(&mut self, doc: DocId, record: Record) {
        let document = Document::stored(self.draw_slot(), record);
        match document.marker() {
            Some(marker) => {
                self.markers += 1;
                self.lamport = self.lamport.max(marker.lamport);
            }
            None => self.existing += 1,
        }
        self.scopes.insert(&self.policy, &doc, document.offer());
        self.classes[self.class(&doc).index()].insert(doc.clone(), document);
        self.note_fate(&doc);
    }

    pub(crate) fn policy(&self) -> &Table {
        &self.policy
    }

    /// Goes over to another policy.
    pub(crate) fn set_policy(&mut self, policy: Table) {
        let ids = |table: &Table| Scope::all(table).into_iter().map(|scope| scope.id(table)).collect::<Vec<_>>();
        let same = ids(&self.policy) == ids(&policy);
        if !same || !self.scopes.is_complete() {
            self.scopes.restart();
        }
        self.policy = policy;
        self.calendar = Calendar::default();
        let all: Vec<_> = self.classes.iter_mut().flat_map(std::mem::take).collect();
        for (doc, document) in all {
            self.classes[self.class(&doc).index()].insert(doc.clone(), document);
            self.renew(&doc);
        }
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

    /// Whether a marker stands for this document, durable or not.
    pub(crate) fn is_marked(&self, doc: &DocId) -> bool {
        self.get(doc).is_some_and(|document| document.marker().is_some())
    }

    /// The documents of one class behind a name, in order.
    pub(crate) fn after(&self, class: Class, behind: Option<&DocId>) -> impl Iterator<Item = (&DocId, &Document)> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.classes[class.index()].range::<DocId, _>((from, Bound::Unbounded))
    }

    /// The documents of one class from a name on, in order.
    pub(crate) fn range(&self, class: Class, from: Bound<&str>) -> impl Iterator<Item = (&DocId, &Document)> {
        self.classes[class.index()].range::<str, _>((from, Bound::Unbounded))
    }

    /// Whatever is known under names that start with `prefix`, class by class.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a DocId, &'a Document)> {
        self.classes.iter().flat_map(move |class| {
            class
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(move |(doc, _)| doc.as_str().starts_with(prefix))
        })
    }

    /// Upper end of all slots drawn so far.
    pub(crate) fn slots(&self) -> u32 {
        self.next_slot
    }

    /// Whether more waits for the disk than one part in so many of what may: of received bytes, or of documents that stay in
    /// memory only for that. A small document takes 50 times the bytes that it came in.
    pub(crate) fn is_behind(&self, parts: usize) -> bool {
        self.received > self.most_received / 2 / parts || self.cache.held_bytes() > self.cache.budget() / parts
    }

    pub(crate) fn view(&self, doc: &DocId) -> View<'_> {
        match self.get(doc) {
            None => View::Absent,
            Some(document) if document.marker().is_some() => match document.offer() {
                Offer::Marker(marker) => View::Buried(Some(marker)),
                Offer::Nothing | Offer::Heads(_) => View::Buried(None),
            },
            Some(document) if document.kind != Kind::Automerge => View::Unreadable,
            Some(document) => match &document.phase {
                Phase::Live(live) if document.is_known() => View::Live(document, live),
                Phase::Live(_) | Phase::Buried => View::Absent,
                Phase::Cold if document.awaits_birth() => View::Absent,
                // To ask for a quarantined document is to try it again.
                Phase::Cold | Phase::Loading | Phase::Busy | Phase::Quarantined => match self.copies.get(doc) {
                    Some(bytes) if document.is_clean() => View::Stored(document, bytes),
                    Some(_) | None => View::Cold(document),
                },
            },
        }
    }

    pub(crate) fn touch(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if let Some(Phase::Live(live)) = self.classes[class].get_mut(doc).map(|document| &mut document.phase) {
            self.cache.touch(doc, live);
        }
    }

    pub(crate) fn content(&self, doc: &DocId) -> Option<&Automerge> {
        self.get(doc).filter(|document| document.exists()).and_then(Document::live).map(|live| &live.doc)
    }

    /// Lets go of the documents that were used longest ago, down to the budget.
    pub(crate) fn evict(&mut self) {
        let (classes, policy, attention) = (&mut self.classes, &self.policy, &self.attention);
        let mut evicted = 0;
        self.cache.shrink(|doc, used| {
            let Some(document) = classes[policy.of(doc).class.index()].get_mut(doc) else { return Verdict::Freed };
            if !document.is_clean() {
                return Verdict::Held;
            }
            if !attention.contains_key(doc) {
                document.phase = Phase::Cold;
                evicted += 1;
                return Verdict::Freed;
            }
            if let Phase::Live(live) = &mut document.phase {
                live.used = used;
            }
            Verdict::Stays
        });
        self.stats.evictions += evicted;
    }

    pub(crate) fn gauges(&self, stats: &mut Stats) {
        stats.documents = self.existing;
        stats.markers = self.markers;
        stats.loaded = self.cache.len() as u64;
        stats.cache_bytes = self.cache.bytes();
        stats.undurable_bytes = self.received;
    }

    /// A slot of its own. One that is used again is in no connection's set of equal documents by the time its document
    /// is born, because birth moves it.
    fn draw_slot(&mut self) -> u32 {
        self.free_slots.pop().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        })
    }
}

impl Attention {
    fn is_idle(&self) -> bool {
        self.opens == 0 && self.inbox.is_empty() && self.waiters.is_empty() && self.copiers.is_empty() && !self.save
    }
}
