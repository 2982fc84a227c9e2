//! The state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use automerge::Automerge;
use automerge::transaction::Transaction;

use crate::config::Config;
use crate::doc::history::Brought;
use crate::doc::{Docs, Effect};
use crate::error::EditError;
use crate::heads::Heads;
use crate::id::{Boot, ConnId, DocId, EditId, PeerId};
use crate::io::{Event, Input, Output};
use crate::marker::Marker;
use crate::peer::connection::Conn;
use crate::peer::dial::Wanted;
use crate::reconcile::Digest;
use crate::rng::Rng;
use crate::stats::Stats;
use crate::store::{Entry, StoreCommand, Stored};
use crate::sync::pieces::{Assemblies, Interrupted};
use crate::time::{Now, Time};
use crate::wire::v1::Packer;

mod check;
mod greet;
mod legacy;
mod pieces;
mod receive;
mod rules;
mod send;
mod survey;
mod sync_now;
mod talk;
mod terms;
mod tick;

use legacy::LegacyPeers;
use sync_now::Requests;
pub use tick::Reason;

/// A node of the mesh, as a pure state machine.
///
/// # The driver's contract
///
/// Methods are of three kinds. *Inputs*, [`handle`](Self::handle) and [`edit`](Self::edit), move time and change state.
/// *Drains*, [`poll`](Self::poll), hand out effects. All others only look.
///
/// 1. After any number of inputs, call `poll` until it is `None`, and do what each [`Output`] says, in order.
/// 2. Then sleep until the next input, or until [`timeout`](Self::timeout), and give [`Input::Timeout`]. A drained node's
///    deadline lies ahead of the last `Now`.
/// 3. `Now::mono` never goes back; if it does, the largest value seen counts.
///
/// `handle` cannot fail: a bad peer is closed, and what the environment could not do comes back as an event. Spurious
/// inputs (unknown connections, late answers, early timeouts) are ignored.
#[derive(Debug)]
pub struct Node {
    config: Config,
    /// Makes nonces unpredictable.
    secret: [u8; 32],
    local: PeerId,
    boot: u64,
    now: Now,
    rng: Rng,
    docs: Docs,
    conns: BTreeMap<ConnId, Conn>,
    legacy: LegacyPeers,
    wanted: Wanted,
    requests: Requests,
    /// Peers that were let in by invitation or because they were wanted, and are remembered in the store.
    admitted: BTreeSet<PeerId>,
    /// Whom each invitation has let in since the start.
    guests: BTreeMap<usize, BTreeSet<PeerId>>,
    /// Whether deadlines have been looked at since the last input.
    ticked: bool,
    /// The connection that sent last: the next one is served first.
    turn: ConnId,
    /// The digest of what each peer last sent in full of what only it sends.
    inward: BTreeMap<PeerId, Digest>,
    /// What arrives in pieces.
    assemblies: Assemblies,
    interrupted: Interrupted,
    packer: Packer,
    /// When the scopes go on being made anew.
    rebuild_due: Option<Time>,
    /// Bytes of partly received frames, of all connections.
    receiving: usize,
    out: Outputs,
    stats: Stats,
}

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

/// Outputs that wait, one queue for each kind, in the order in which they are given out. Frames are not among them: they
/// are made when they can be sent.
#[derive(Debug, Default)]
struct Outputs {
    disconnects: VecDeque<Output>,
    stops: VecDeque<Output>,
    stores: VecDeque<Output>,
    works: VecDeque<Output>,
    events: VecDeque<Output>,
    dials: VecDeque<Output>,
    credits: VecDeque<Output>,
    replies: VecDeque<Output>,
}

impl Node {
    /// A node that starts from what its store holds.
    ///
    /// `boot` is durable already; `seed` decides all jitter and nothing else; `entries` are all that the store has, in any
    /// order, and a document named twice counts once.
    pub fn new(
        config: Config,
        local: PeerId,
        boot: Boot,
        seed: [u8; 32],
        entries: impl IntoIterator<Item = Entry>,
        now: Now,
    ) -> Self {
        let mut config = config;
        // Waits of nothing would never end.
        let least = Duration::from_millis(1);
        config.settle = config.settle.max(least);
        config.retry_min = config.retry_min.max(least);
        config.dial_min = config.dial_min.max(least);
        let legacy = LegacyPeers::new(&config, &boot, &seed);
        let mut docs = Docs::new(&config, boot.actor(&local));
        let mut admitted = BTreeSet::new();
        for entry in entries {
            match entry {
                Entry::Document { doc, record } if docs.get(&doc).is_none() => docs.restore(doc, record),
                Entry::Document { .. } => {}
                Entry::Peer(peer) => {
                    admitted.insert(peer);
                }
            }
        }
        Self {
            requests: Requests::default(),
            secret: blake3::derive_key("peat 2026 node secret v1", &seed),
            assemblies: Assemblies::new(config.piece_budget),
            interrupted: Interrupted::default(),
            packer: Packer::new(),
            inward: BTreeMap::new(),
            rebuild_due: None,
            wanted: Wanted::new(config.dial_min, config.dial_max),
            config,
            local,
            boot: boot.number,
            now,
            rng: Rng::new(seed),
            docs,
            conns: BTreeMap::new(),
            legacy,
            admitted,
            guests: BTreeMap::new(),
            ticked: false,
            turn: ConnId(0),
            receiving: 0,
            out: Outputs::default(),
            stats: Stats::default(),
        }
    }

    /// Takes in one thing that happened. Its effects come out of [`poll`](Self::poll).
    pub fn handle(&mut self, now: Now, input: Input) {
        self.advance(now);
        let Some(input) = self.legacy_handle(input) else { return };
        match input {
            Input::Connected { conn, peer, link } => self.connected(conn, peer, link),
            Input::Disconnected { conn, code } => self.disconnected(conn, code),
            Input::Received { conn, stream, bytes, fin } => self.received(conn, stream, bytes, fin),
            Input::Reset { conn, stream } => self.reset(conn, stream),
            Input::Stopped { conn, lane } => self.stopped(conn, lane),
            Input::Sent { conn, bytes } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.window.sent(self.now.mono, bytes);
                }
            }
            Input::Stored(Stored::Loaded { load, chunks }) => self.docs.loaded(load, chunks),
            Input::Stored(Stored::LoadFailed { load, fault }) => self.docs.load_failed(load, fault),
            Input::Stored(Stored::Durable { seq }) => self.docs.durable(seq),
            Input::Stored(Stored::WriteFailed { seq, fault }) => self.docs.write_failed(seq, fault, self.now.mono),
            Input::Worked(done) => self.docs.worked(done),
            Input::Change { doc, changes } => self.docs.import(&doc, changes),
            Input::Open { doc } => self.docs.open(&doc),
            Input::Close { doc } => self.docs.close(&doc),
            Input::Want { peer, invitation } => self.want(peer, invitation),
            Input::Unwant { peer } => self.wanted.unwant(&peer),
            Input::DialFailed { peer } => self.wanted.failed(&peer, self.now.mono, &mut self.rng),
            Input::Forget { peer } => self.forget(peer),
            Input::SyncNow(request) => self.sync_now(request),
            Input::Policy(table) => self.set_policy(*table),
            Input::Family(family) => self.set_family(family),
            Input::Timeout => {}
        }
    }

    /// The next effect; `None` when there is none until the next input.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        if !std::mem::replace(&mut self.ticked, true) {
            self.tick();
        }
        loop {
            while let Some(effect) = self.docs.effects.pop_front() {
                self.apply(effect);
            }
            if let Some(output) = self.out.pop() {
                return Some(output);
            }
            if self.docs.settle() {
                continue;
            }
            if let Some(batch) = self.docs.flush(self.now.mono) {
                return Some(Output::Store(StoreCommand::Write(batch)));
            }
            if self.pursue_requests() {
                continue;
            }
            if let Some(frame) = self.next_frame() {
                return Some(frame);
            }
            if let Some(frame) = self.legacy_next_frame() {
                return Some(frame);
            }
            // Making a frame may have asked for content that is in memory, or for a saved form.
            if self.docs.is_settled() && self.out.is_empty() && !self.rest() {
                self.docs.evict();
                return None;
            }
        }
    }

    /// Changes a document in one transaction, which becomes one change, or none if nothing differs.
    ///
    /// A document that does not exist is created by its first edit that changes something. The change leaves this node
    /// once it is durable, which [`Event::Durable`] reports; its number is [`last_edit`](Self::last_edit).
    ///
    /// # Errors
    /// Nothing was changed. [`EditError::NotLoaded`] and [`EditError::Busy`]: give [`Input::Open`], wait for
    /// [`Event::Opened`], edit, give [`Input::Close`]. An error of `f`, or a panic in it, rolls the transaction back.
    pub fn edit<R, E>(
        &mut self,
        now: Now,
        doc: &DocId,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, EditError<E>> {
        self.advance(now);
        let largest = self.config.admit.change_bytes;
        self.docs.edit(self.now, doc, largest, f)
    }

    /// The number of the newest local edit or import; 0 before the first.
    #[must_use]
    pub fn last_edit(&self) -> EditId {
        self.docs.last_edit()
    }

    /// A document's content; `None` if there is no such document, or if it is not in memory now.
    #[must_use]
    pub fn doc(&self, doc: &DocId) -> Option<&Automerge> {
        self.docs.content(doc)
    }

    /// Whether there is such a document, softly deleted ones included.
    #[must_use]
    pub fn contains(&self, doc: &DocId) -> bool {
        self.docs.get(doc).is_some_and(crate::doc::document::Document::exists)
    }

    /// Whether this document was deleted, softly or not.
    #[must_use]
    pub fn is_deleted(&self, doc: &DocId) -> bool {
        self.docs.get(doc).is_some_and(crate::doc::document::Document::is_deleted)
    }

    /// The deleted documents whose name starts with `prefix`, in the order of their names: those with a marker, and those
    /// that were deleted softly, without.
    #[must_use]
    pub fn deleted(&self, prefix: &str) -> Vec<(DocId, Option<Marker>)> {
        let deleted = self.docs.with_prefix(prefix).filter(|(_, document)| document.is_deleted());
        let mut found: Vec<_> = deleted.map(|(doc, document)| (doc.clone(), document.marker().cloned())).collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// The documents whose name starts with `prefix`, in the order of their names. Deleted ones, softly too, are not among
    /// them.
    #[must_use]
    pub fn documents(&self, prefix: &str) -> Vec<Listing> {
        let listing = |(doc, document): (&DocId, &crate::doc::document::Document)| Listing {
            doc: doc.clone(),
            heads: document.heads(),
            bytes: document.bytes,
        };
        let alive = self.docs.with_prefix(prefix).filter(|(_, document)| document.exists() && !document.is_deleted());
        let mut found: Vec<Listing> = alive.map(listing).collect();
        found.sort_by(|a, b| a.doc.cmp(&b.doc));
        found
    }

    /// Whether the document sets of this node and of a connected, admitted peer are proven equal.
    #[must_use]
    pub fn level(&self, peer: &PeerId) -> bool {
        if self.legacy.conns.values().any(|conn| conn.peer == *peer && conn.level) {
            return true;
        }
        let mut conns = self.conns.values().filter(|conn| conn.peer == *peer && conn.is_serving());
        conns.any(|conn| conn.survey.is_level(&self.ours(conn)))
    }

    /// Whether nothing waits to be written to the store.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.docs.is_saved()
    }

    /// All counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        stats.add_documents(&self.docs.stats);
        self.docs.gauges(&mut stats);
        stats.receive_bytes = self.receiving;
        stats.remembered = self.admitted.len() as u64;
        stats.guests = self.guests.values().map(BTreeSet::len).max().unwrap_or_default() as u64;
        (stats.max_admitted, stats.max_guests) = (self.config.max_admitted as u64, self.config.max_guests as u64);
        stats.piece_bytes = self.assemblies.bytes();
        stats.peers = self.conns.values().map(|conn| conn.stats(stats.documents)).collect();
        stats.peers.extend(self.legacy.conns.values().map(|conn| conn.stats(stats.documents)));
        stats.peers.sort_by_key(|peer| peer.conn);
        stats
    }

    fn advance(&mut self, now: Now) {
        self.now = Now { mono: now.mono.max(self.now.mono), unix_ms: now.unix_ms };
        self.docs.note_time(self.now);
        self.ticked = false;
        self.requests.refresh();
    }

    /// Passes on what happened to documents.
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Moved { doc, before, sources } => {
                self.moved(&doc, &before, &sources);
                self.legacy_moved(&doc, &before, &sources);
            }
            Effect::Answered { conn, doc, outcome, brought } if self.legacy.contains(conn) => {
                let heads = if let Brought::Whole(heads) = brought { Some(heads) } else { None };
                self.legacy_answered(conn, &doc, outcome, heads);
            }
            Effect::Wake { conn, doc } if self.legacy.contains(conn) => self.legacy_woken(conn, &doc),
            Effect::Denied { conn, doc } if self.legacy.contains(conn) => self.legacy_denied(conn, &doc),
            Effect::Answered { conn, doc, outcome, brought } => self.answered(conn, &doc, outcome, brought),
            Effect::Wake { conn, doc } => {
                let class = self.docs.class(&doc);
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.enqueue(class, &doc);
                }
            }
            Effect::Denied { conn, doc } => {
                // The next survey comes back to it, ever more rarely.
                let class = self.docs.class(&doc);
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.end_exchange(class, &doc);
                    conn.survey.spoil();
                }
            }
            Effect::Admitted(peer) => self.admission_is_durable(peer),
            Effect::Load(load, doc) => self.out.stores.push_back(Output::Store(StoreCommand::Load { load, doc })),
            Effect::Work(job) => self.out.works.push_back(Output::Work(job)),
            Effect::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: Event) {
        self.out.events.push_back(Output::Event(event));
    }

    /// How long an unanswered word waits before it is said again.
    fn patience(&self, conn: &Conn, tries: u32) -> Duration {
        let base = if conn.link.reliable {
            // Nothing is lost here but with its stream, which is reported.
            self.config.retry_min.saturating_mul(10)
        } else {
            self.config.retry_min.max(conn.window.rtt().saturating_mul(3))
        };
        base.saturating_mul(1 << tries.min(8)).min(self.config.retry_max.max(base))
    }
}

impl Outputs {
    fn pop(&mut self) -> Option<Output> {
        let queues = [
            &mut self.disconnects,
            &mut self.stops,
            &mut self.stores,
            &mut self.works,
            &mut self.events,
            &mut self.dials,
            &mut self.credits,
            &mut self.replies,
        ];
        queues.into_iter().find_map(VecDeque::pop_front)
    }

    fn is_empty(&self) -> bool {
        let queues = [
            &self.disconnects,
            &self.stops,
            &self.stores,
            &self.works,
            &self.events,
            &self.dials,
            &self.credits,
            &self.replies,
        ];
        queues.into_iter().all(VecDeque::is_empty)
    }
}

/// The earlier of two deadlines.
fn earlier(a: Option<(Time, Reason)>, b: Option<(Time, Reason)>) -> Option<(Time, Reason)> {
    [a, b].into_iter().flatten().min_by_key(|(time, _)| *time)
}
