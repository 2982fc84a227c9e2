//! The peer: its parts, its time, and what is done to it from outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use peat_proto::{ConnId, Now, PeerId, Rng, StreamId, Time};

use super::batches::{Channel, Run};
use super::config::{Config, Family};
use super::connection::Conn;
use super::documents::Unsaved;
use super::flow::Flow;
use super::io::{Input, Output};
use super::library::{Field, Head, Library};
use super::reconciliation::Session;
use super::store::Store;
use super::tombstone::Tombstone;

/// Between two heartbeats of the host runtime (8).
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Between two runs of the collection of markers (11).
const COLLECTION: Duration = Duration::from_secs(300);

/// A fielded peer.
#[derive(Debug)]
pub struct LegacyPeer<L: Library> {
    pub(super) id: PeerId,
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) rng: Rng,
    pub(super) store: Store<L>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    /// The one connection of each peer that frames are sent on (1).
    pub(super) peers: BTreeMap<PeerId, ConnId>,
    pub(super) states: BTreeMap<(String, PeerId), L::State>,
    pub(super) unsaved: BTreeMap<u64, Unsaved<L>>,
    pub(super) flows: BTreeMap<PeerId, Flow>,
    /// Batches that are being applied.
    pub(super) runs: BTreeMap<(ConnId, StreamId), Run>,
    /// When task A last pushed a document.
    pub(super) pushed: BTreeMap<String, Time>,
    /// What task B collects, with who it came from.
    pub(super) collected: BTreeMap<String, Option<PeerId>>,
    pub(super) channels: BTreeMap<PeerId, Channel>,
    pub(super) sessions: BTreeMap<PeerId, Session>,
    /// Peers to which a heartbeat was sent: only theirs count (8).
    pub(super) hearts: BTreeSet<PeerId>,
    pub(super) lamport: u64,
    pub(super) batch_id: u64,
    pub(super) outputs: VecDeque<Output>,
    pub(super) stats: Stats,
    pub(super) aborted: bool,
    actor: [u8; 16],
    tasks: BTreeMap<(Time, u64), Task>,
    scheduled: u64,
}

/// What a peer counts. All but `bytes_received`, which the original counts too, is for tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// As the original counts them: a batch once, and the payloads of its entries again (STAT-1).
    pub bytes_received: u64,
    /// Frames sent, by type.
    pub sent: BTreeMap<u8, u64>,
    /// Frames that were read, by type.
    pub received: BTreeMap<u8, u64>,
    /// Length of the payload of the last delta that was sent.
    pub last_delta: usize,
    /// What could not be read.
    pub malformed: u64,
    /// Deltas and snapshots for deleted documents, dropped in silence.
    pub guarded: u64,
    /// Pushes with nothing to say.
    pub silent: u64,
    /// Pushes without a token.
    pub limited: u64,
    /// Pushes within the cooldown.
    pub cooled: u64,
    /// Pushes that an open breaker refused.
    pub cut_off: u64,
    /// Pushes of documents above the burst of their class.
    pub oversized: u64,
    /// Changes that task A skipped.
    pub skipped: u64,
    /// Batches that a channel took and did not deliver.
    pub lost: u64,
    /// Messages for peers without a connection.
    pub offline: u64,
    /// Heartbeats sent and counted.
    pub heartbeats: (u64, u64),
    /// Connections that proved nothing.
    pub refused: u64,
    /// Reconciliations that came to their end, and those that failed.
    pub reconciled: (u64, u64),
}

/// What will happen by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// A step of the authentication takes too long.
    Overdue(ConnId),
    /// The host runtime begins to read streams.
    Accept(ConnId),
    /// It pushes all documents to a new connection.
    Push(ConnId),
    /// It sends its markers.
    Markers(ConnId),
    /// It closes a connection that it dialled, to dial anew.
    Recycle(ConnId),
    /// Stays connected.
    Dial(PeerId),
    /// The node binary's poll.
    Poll,
    /// The host runtime's heartbeat.
    Heartbeat,
    /// The observers of a change wake up; the change came from there.
    Changed(String, Option<PeerId>),
    /// A push that was put off, where the wart is off.
    Deferred(PeerId, String),
    /// Task A's push that was put off, where the wart is off.
    Trailing(String),
    /// Task B's 50 ms are over.
    Flush,
    /// A sync state is stored.
    Keep(u64),
    /// The next entry of a batch.
    Next(ConnId, StreamId),
    /// A channel tries again.
    Reconnect(PeerId, u64),
    /// A channel has been silent.
    Idle(PeerId, u64),
    /// A document's time is over.
    Expire(String),
    /// Old markers are collected.
    Collect,
}

impl<L: Library> LegacyPeer<L> {
    /// A process that has just been started on an empty store. All chance comes from `seed` and `id`.
    #[must_use]
    pub fn new(id: PeerId, config: Config, seed: u64, now: Now) -> Self {
        let store = Store::new(config.disk);
        Self::start(id, config, seed, now, store)
    }

    /// The process ends and starts again: its connections are gone without a word, and only what a disk holds is left.
    pub fn restart(&mut self, seed: u64, now: Now) {
        let mut store = std::mem::replace(&mut self.store, Store::new(false));
        store.reopen();
        *self = Self::start(self.id, self.config.clone(), seed, now, store);
    }

    fn start(id: PeerId, config: Config, seed: u64, now: Now, store: Store<L>) -> Self {
        let mut bytes = id.0;
        for (byte, salt) in bytes[16..].iter_mut().zip(seed.to_be_bytes()) {
            *byte ^= salt;
        }
        let mut rng = Rng::new(bytes);
        // rc.28: the clock is persisted; the newest stored marker stands for it.
        let learned = store.markers().map(|marker| marker.lamport).max().unwrap_or(0);
        let mut peer = Self {
            id,
            now,
            store,
            actor: actor(&mut rng),
            rng,
            conns: BTreeMap::new(),
            peers: BTreeMap::new(),
            states: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            flows: BTreeMap::new(),
            runs: BTreeMap::new(),
            pushed: BTreeMap::new(),
            collected: BTreeMap::new(),
            channels: BTreeMap::new(),
            sessions: BTreeMap::new(),
            hearts: BTreeSet::new(),
            lamport: if config.warts.forgets_lamport { 0 } else { learned },
            batch_id: 0,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            aborted: false,
            tasks: BTreeMap::new(),
            scheduled: 0,
            config,
        };
        let (period, first) = match peer.config.family {
            Family::NodeBinary => (peer.config.poll, Task::Poll),
            Family::HostRuntime => (HEARTBEAT, Task::Heartbeat),
        };
        let phase = peer.moment(period);
        peer.after(phase, first);
        if peer.config.collects {
            peer.after(COLLECTION, Task::Collect);
        }
        for other in peer.config.dials.clone() {
            peer.after(Duration::ZERO, Task::Dial(other));
        }
        peer.run();
        peer
    }

    /// Something happens.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        if self.aborted {
            return;
        }
        match input {
            Input::Connected { conn, peer, role } => self.connected(conn, peer, role),
            Input::Disconnected { conn } => self.disconnected(conn),
            Input::DialFailed { .. } | Input::Timeout => {}
            Input::Received { conn, stream, bytes, fin } => self.received(conn, stream, &bytes, fin),
            Input::Reset { conn, stream } => self.reset(conn, stream),
            Input::Stopped { conn, stream } => self.stopped(conn, stream),
            Input::Released { conn, stream } => self.released(conn, stream),
        }
        self.run();
    }

    /// The next thing that it does; `None` once there is nothing left to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When it next wants [`Input::Timeout`].
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        self.tasks.first_key_value().map(|((due, _), _)| *due).filter(|_| !self.aborted)
    }

    /// An application sets a field of a document, or removes it. Nobody looks whether the document is deleted.
    pub fn put(&mut self, now: Now, key: &str, field: &str, value: Option<&Field>) {
        self.now = now;
        let actor = if self.config.warts.new_actor_per_edit { actor(&mut self.rng) } else { self.actor };
        let mut doc = self.store.doc(key).cloned().unwrap_or_else(L::empty);
        L::put(&mut doc, actor, field, value);
        self.store.put(key, doc);
        self.edited(key);
        self.run();
    }

    /// An application deletes a document in the way of its collection (10.5): with a marker, or softly by a field.
    pub fn delete(&mut self, now: Now, key: &str, reason: Option<&str>) {
        if self.config.names.marker_ttl(key).is_some() {
            self.bury(now, key, reason);
        } else if self.store.doc(key).is_some() {
            self.put(now, key, "_deleted", Some(&Field::Bool(true)));
        }
    }

    /// An application deletes a document with a marker, whatever its collection.
    pub fn bury(&mut self, now: Now, key: &str, reason: Option<&str>) {
        self.now = now;
        self.deleted(key, reason);
        self.run();
    }

    /// Sends a marker to a peer and keeps none, as no fielded peer does.
    pub fn forge(&mut self, now: Now, to: PeerId, marker: &Tombstone) {
        self.now = now;
        self.forged(to, marker);
        self.run();
    }

    /// Pushes all documents and markers to a peer, as at connect.
    pub fn push(&mut self, now: Now, peer: PeerId) {
        self.now = now;
        self.push_all(peer);
        self.run();
    }

    /// Starts a reconciliation, which no program does by itself (7.5). A fire-and-forget one stops the half on which the
    /// answer would come.
    pub fn reconcile(&mut self, now: Now, peer: PeerId, fire_and_forget: bool) {
        self.now = now;
        self.initiate_reconciliation(peer, fire_and_forget);
        self.run();
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// What kind of peer it is.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whether its process has ended by itself, for want of memory (17.5).
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// Whether it initiates nothing towards this peer any more.
    #[must_use]
    pub fn is_cut_off(&self, peer: &PeerId) -> bool {
        let by_time = !self.config.warts.breaker_stays_open;
        self.flows.get(peer).is_some_and(|flow| flow.breaker.clone().is_open(self.now.mono, by_time))
    }

    /// Whom it can send to.
    pub fn connected_to(&self) -> impl Iterator<Item = &PeerId> {
        self.peers.keys()
    }

    /// The keys of all documents, empty ones included.
    pub fn documents(&self) -> impl Iterator<Item = &str> {
        self.store.keys().map(String::as_str)
    }

    /// A document.
    #[must_use]
    pub fn doc(&self, key: &str) -> Option<&L::Doc> {
        self.store.doc(key)
    }

    /// The heads of a document; none of one that is empty or not there.
    #[must_use]
    pub fn heads(&self, key: &str) -> Vec<Head> {
        self.store.doc(key).map(L::heads).unwrap_or_default()
    }

    /// The scalars of a document's root map.
    #[must_use]
    pub fn fields(&self, key: &str) -> BTreeMap<String, Field> {
        self.store.doc(key).map(L::fields).unwrap_or_default()
    }

    /// All markers in the order of their documents' keys.
    pub fn markers(&self) -> impl Iterator<Item = &Tombstone> {
        self.store.markers()
    }

    /// Has something happen so much later.
    pub(super) fn after(&mut self, wait: Duration, task: Task) {
        self.scheduled += 1;
        self.tasks.insert((self.now.mono + wait, self.scheduled), task);
    }

    /// A time below a bound, for what takes its time.
    pub(super) fn moment(&mut self, below: Duration) -> Duration {
        let micros = u64::try_from(below.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.below(micros))
    }

    fn run(&mut self) {
        while let Some(entry) = self.tasks.first_entry().filter(|entry| entry.key().0 <= self.now.mono) {
            let task = entry.remove();
            self.perform(task);
            if self.aborted {
                self.outputs.clear();
                return;
            }
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Overdue(conn) => self.overdue(conn),
            Task::Accept(conn) => self.accept(conn),
            Task::Push(conn) => {
                if let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) {
                    self.push_documents(peer);
                }
            }
            Task::Markers(conn) => {
                if let Some(peer) = self.conns.get(&conn).map(|conn| conn.peer) {
                    self.push_markers(peer);
                }
            }
            Task::Recycle(conn) => self.recycle(conn),
            Task::Dial(peer) => self.dial(peer),
            Task::Poll => {
                self.after(self.config.poll, Task::Poll);
                if !self.is_stuck() {
                    for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                        self.push_all(peer);
                    }
                }
            }
            Task::Heartbeat => {
                self.after(HEARTBEAT, Task::Heartbeat);
                if !self.is_stuck() {
                    self.beat();
                }
            }
            Task::Changed(key, origin) => self.changed(&key, origin),
            Task::Deferred(peer, key) => drop(self.initiate(peer, &key)),
            Task::Trailing(key) => self.push_change(&key, None),
            Task::Flush => self.flush(),
            Task::Keep(ticket) => self.keep(ticket),
            Task::Next(conn, stream) => self.apply_next(conn, stream),
            Task::Reconnect(peer, epoch) => self.reconnect_channel(peer, epoch),
            Task::Idle(peer, epoch) => self.idle_channel(peer, epoch),
            Task::Expire(key) => drop(self.store.remove(&key)),
            Task::Collect => {
                self.after(COLLECTION, Task::Collect);
                self.collect();
            }
        }
    }

    /// STREAM-7: the loop that serves all peers waits for ever once one of them lets no more streams be opened.
    fn is_stuck(&self) -> bool {
        self.conns.values().any(Conn::is_blocked)
    }
}

fn actor(rng: &mut Rng) -> [u8; 16] {
    let mut actor = [0; 16];
    actor[..8].copy_from_slice(&rng.draw().to_be_bytes());
    actor[8..].copy_from_slice(&rng.draw().to_be_bytes());
    actor
}
