//! One node and a legacy peer that the test plays: no time passes and nothing is lost unless a test says so.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "a peer that is no node")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use bytes::Bytes;
use peat_proto::config::{Auth, Legacy};
use peat_proto::store::{Entry, Op, StoreCommand, Stored};
use peat_proto::wire::v0::{
    Assembler, Batch, Body, Caps, Entry as BatchEntry, Frame, Heartbeat, Incoming, Label, MessageType, Payload,
    Tombstone, encode_frame,
};
use peat_proto::{
    Boot, CloseCode, Config, ConnId, DocId, Event, Input, Lane, Link, Node, Now, Output, PeerId, Role, StreamId, Time,
    Wire,
};

pub const CONN: ConnId = ConnId(1);
pub const PEER: PeerId = PeerId([9; 32]);
pub const NODE: PeerId = PeerId([5; 32]);

/// The node's side of everything.
pub struct Stage {
    pub node: Node,
    pub now: Now,
    pub events: Vec<Event>,
    /// What the node sent and nobody has looked at.
    pub sent: VecDeque<(Lane, Bytes)>,
    /// On which connection each frame went that was ever sent.
    pub addressed: Vec<(ConnId, Bytes)>,
    pub replies: Vec<(StreamId, Bytes, bool)>,
    pub stopped: Vec<(StreamId, CloseCode)>,
    pub closed: Vec<(ConnId, CloseCode)>,
    pub dials: usize,
    pub loads: usize,
    /// The connection on which the peer speaks.
    pub conn: ConnId,
    /// Whether every drain is followed by a look at the node's invariants.
    pub checks: bool,
    /// Whether what is sent never leaves.
    pub stalls: bool,
    /// Whether the disk takes its time: nothing that is written becomes durable.
    pub paused: bool,
    silent: bool,
    chunks: BTreeMap<DocId, Vec<Bytes>>,
    next_stream: u64,
}

pub fn config(auth: Auth) -> Config {
    let mut config = Config::default();
    config.admission.open = true;
    config.legacy = Some(Legacy::new(auth));
    config
}

pub fn doc(name: &str) -> DocId {
    DocId::new(name).expect("a valid name")
}

pub fn link(role: Role) -> Link {
    Link { role, wire: Wire::V0, reliable: true, binding: [0; 32], rtt: None }
}

impl Stage {
    pub fn new(config: Config) -> Self {
        Self::seeded(config, 1)
    }

    pub fn seeded(config: Config, seed: u8) -> Self {
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let boot = Boot { store: [1; 16], number: 1 };
        let node = Node::new(config, NODE, boot, [seed; 32], Vec::<Entry>::new(), now);
        Self {
            node,
            now,
            events: Vec::new(),
            sent: VecDeque::new(),
            addressed: Vec::new(),
            replies: Vec::new(),
            stopped: Vec::new(),
            closed: Vec::new(),
            dials: 0,
            loads: 0,
            conn: CONN,
            checks: true,
            stalls: false,
            paused: false,
            silent: false,
            chunks: BTreeMap::new(),
            next_stream: 1,
        }
    }

    /// A node to which documents flow from and to a peer that needs no proof.
    pub fn serving() -> Self {
        Self::serving_with(config(Auth::Admission))
    }

    pub fn serving_with(config: Config) -> Self {
        let mut stage = Self::new(config);
        stage.connect(CONN, Role::Accepted);
        stage
    }

    pub fn connect(&mut self, conn: ConnId, role: Role) {
        self.conn = conn;
        self.input(Input::Connected { conn, peer: PEER, link: link(role) });
    }

    pub fn input(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    /// Frames of the peer, on a stream of their own.
    pub fn feed(&mut self, frames: &[u8]) -> StreamId {
        let stream = self.stream();
        self.feed_on(stream, frames, true);
        stream
    }

    /// The next bidirectional stream of the peer.
    pub fn stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId::new(self.next_stream, Role::Dialled, true)
    }

    pub fn feed_on(&mut self, stream: StreamId, bytes: &[u8], fin: bool) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.input(Input::Received { conn: self.conn, stream, bytes, fin });
    }

    /// A unidirectional stream of the peer.
    pub fn feed_beat(&mut self, bytes: &[u8]) {
        self.next_stream += 1;
        let stream = StreamId::new(self.next_stream, Role::Dialled, false);
        self.feed_on(stream, bytes, true);
    }

    /// A heartbeat of the peer.
    pub fn beat(&mut self) {
        let beat = Heartbeat { sent_ms: self.now.unix_ms };
        self.feed_beat(&beat.encode());
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Disconnect { conn, code } => self.closed.push((conn, code)),
                Output::StopStream { stream, code, .. } => self.stopped.push((stream, code)),
                Output::Store(StoreCommand::Load { load, doc }) => {
                    self.loads += 1;
                    let chunks = self.chunks.get(&doc).cloned().expect("only stored documents are loaded");
                    self.node.handle(self.now, Input::Stored(Stored::Loaded { load, chunks }));
                }
                Output::Store(StoreCommand::Write(batch)) => {
                    for op in batch.ops {
                        match op {
                            Op::Append { doc, chunk, .. } => self.chunks.entry(doc).or_default().push(chunk),
                            Op::Replace { doc, chunk, .. } => drop(self.chunks.insert(doc, vec![chunk])),
                            Op::Bury { doc, .. } | Op::Remove { doc } => drop(self.chunks.remove(&doc)),
                            Op::Admit { .. } | Op::Forget { .. } => {}
                        }
                    }
                    if !self.paused {
                        self.node.handle(self.now, Input::Stored(Stored::Durable { seq: batch.seq }));
                    }
                }
                Output::Work(job) => self.node.handle(self.now, Input::Worked(job.run())),
                Output::Event(event) => self.events.push(event),
                Output::Dial { .. } => self.dials += 1,
                Output::Consumed { .. } => {}
                Output::Reply { conn, stream, bytes, fin } => {
                    let bytes_left = if self.stalls { 0 } else { bytes.len() };
                    self.node.handle(self.now, Input::Sent { conn, bytes: bytes_left });
                    self.replies.push((stream, bytes, fin));
                }
                Output::Send { conn, lane, frame } => {
                    let bytes_left = if self.stalls { 0 } else { frame.len() };
                    self.node.handle(self.now, Input::Sent { conn, bytes: bytes_left });
                    self.addressed.push((conn, frame.clone()));
                    self.sent.push_back((lane, frame));
                }
            }
        }
        let due = self.node.timeout();
        assert!(due.is_none_or(|due| due > self.now.mono), "{:?} is due", self.node.timeout_reason());
        if self.checks {
            self.node.check().expect("a drained node is in order");
        }
    }

    /// Lets time pass, deadline by deadline, in which the peer gives signs of life; whatever is sent stays in `sent`.
    pub fn pass(&mut self, span: Duration) {
        self.pass_with(span, |_| {});
    }

    /// The same, in which the peer gives none.
    pub fn pass_in_silence(&mut self, span: Duration) {
        self.silent = true;
        self.pass(span);
        self.silent = false;
    }

    pub fn pass_with(&mut self, span: Duration, mut act: impl FnMut(&mut Self)) {
        let until = self.now.mono + span;
        let mut beaten = self.now.mono;
        loop {
            if !self.silent && self.now.mono >= beaten + Duration::from_secs(5) {
                beaten = self.now.mono;
                self.beat();
            }
            act(self);
            let due = self.node.timeout().filter(|due| *due <= until);
            let next = due.unwrap_or(until);
            let millis = |time: Time| time.as_micros() / 1000;
            self.now.unix_ms += millis(next) - millis(self.now.mono);
            self.now.mono = next;
            self.input(Input::Timeout);
            if due.is_none() {
                return act(self);
            }
        }
    }

    pub fn put(&mut self, name: &str, key: &str, value: i64) {
        let doc = doc(name);
        self.input(Input::Open { doc: doc.clone() });
        self.node.edit(self.now, &doc, |tx| tx.put(ROOT, key, value)).expect("an edit");
        self.drain();
        self.input(Input::Close { doc });
    }

    pub fn get(&mut self, name: &str, key: &str) -> Option<i64> {
        let doc = doc(name);
        self.input(Input::Open { doc: doc.clone() });
        let value = self.node.doc(&doc)?.get(ROOT, key).expect("readable")?.0.as_i64();
        self.input(Input::Close { doc });
        value
    }

    pub fn delete(&mut self, name: &str, reason: Option<&str>) {
        let doc = doc(name);
        self.input(Input::Open { doc: doc.clone() });
        self.node.delete(self.now, &doc, reason).expect("it is there");
        self.drain();
        self.input(Input::Close { doc });
    }

    pub fn names(&self) -> Vec<String> {
        self.node.documents("").into_iter().map(|listing| listing.doc.to_string()).collect()
    }

    /// The frames that were sent on streams for documents.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        let sent = std::mem::take(&mut self.sent);
        sent.iter().filter(|(lane, _)| matches!(lane, Lane::Once(_))).map(|(_, frame)| decode(frame)).collect()
    }
}

/// The one frame in these bytes.
pub fn decode(bytes: &Bytes) -> Frame {
    let mut assembler = Assembler::new();
    assembler.push(bytes.clone());
    let incoming = assembler.next(&Caps::v0(&Config::default())).expect("a good frame");
    assembler.finish().expect("one frame");
    match incoming {
        Some(Incoming::Frame(frame)) => frame,
        other => panic!("not a frame but {other:?}"),
    }
}

/// Type, document and payload of everything in a frame.
pub fn contents(frame: &Frame) -> Vec<(MessageType, String, Bytes)> {
    let name = |frame: &Frame| frame.key.as_str().to_owned();
    if frame.kind != MessageType::Batch {
        return vec![(frame.kind, name(frame), frame.payload.clone())];
    }
    let batch = Batch::decode(frame.payload.clone()).expect("a good batch");
    let entry = |entry| match entry {
        BatchEntry::Document { doc, body: Body::Delta(payload) } => (MessageType::Delta, doc.to_string(), payload),
        BatchEntry::Document { doc, body: Body::Snapshot(payload) } => {
            (MessageType::Snapshot, doc.to_string(), payload)
        }
        BatchEntry::Tombstone(tombstone) => (MessageType::Tombstone, String::new(), tombstone.encode()),
    };
    batch.entries().map(|it| entry(it.expect("a good entry"))).collect()
}

pub fn frame(label: Label<'_>, payload: &[u8]) -> Bytes {
    encode_frame(label, Payload::new(payload).expect("a short payload"))
}

/// A peer that runs `automerge::sync::State` by the rules of fielded ones.
#[derive(Default)]
pub struct Fielded {
    pub docs: BTreeMap<String, AutoCommit>,
    pub states: BTreeMap<String, State>,
    pub markers: BTreeSet<String>,
    /// Messages that it took in.
    pub taken: usize,
    /// Names the one author of its changes.
    pub author: u64,
}

/// An empty document of one author, so that every run is the same: filters err now and then, by what they are made of.
fn blank(author: u64) -> AutoCommit {
    let actor = [(9 + author).to_be_bytes(), [9; 8]].concat();
    AutoCommit::new().with_actor(ActorId::from(actor))
}

impl Fielded {
    pub fn put(&mut self, name: &str, key: &str, value: i64) {
        let doc = self.docs.entry(name.to_owned()).or_insert_with(|| blank(self.author));
        doc.put(ROOT, key, value).expect("a put to the root");
        doc.commit();
    }

    pub fn get(&self, name: &str, key: &str) -> Option<i64> {
        self.docs.get(name)?.get(ROOT, key).expect("readable")?.0.as_i64()
    }

    /// A saved document with one value.
    pub fn default_with(name: &str, value: i64) -> Vec<u8> {
        let mut peer = Self::default();
        peer.put(name, "x", value);
        peer.docs.get_mut(name).expect("it was just made").save()
    }

    /// What it says of a document on its own account, if anything.
    pub fn poll(&mut self, name: &str) -> Option<Bytes> {
        if self.markers.contains(name) {
            return None;
        }
        let state = self.states.entry(name.to_owned()).or_default();
        let message = self
            .docs
            .entry(name.to_owned())
            .or_insert_with(|| blank(self.author))
            .sync()
            .generate_sync_message(state)?;
        Some(frame(Label::Delta(&doc(name)), &message.encode()))
    }

    /// Takes in a frame; what it answers, each on a stream of its own.
    pub fn receive(&mut self, received: &Frame) -> Vec<Bytes> {
        let mut answers = Vec::new();
        for (kind, name, payload) in contents(received) {
            self.taken += 1;
            match kind {
                MessageType::Delta if self.markers.contains(&name) => {}
                MessageType::Delta => {
                    let message = Message::decode(&payload).expect("a message that Automerge reads");
                    let state = self.states.entry(name.clone()).or_default();
                    let document = self.docs.entry(name.clone()).or_insert_with(|| blank(self.author));
                    document.sync().receive_sync_message(state, message).expect("changes that Automerge takes");
                    match document.sync().generate_sync_message(state) {
                        Some(answer) => answers.push(frame(Label::Delta(&doc(&name)), &answer.encode())),
                        // Nothing but the shared heads is kept.
                        None => *state = State::decode(&state.encode()).expect("an encoded state"),
                    }
                }
                MessageType::Snapshot if self.markers.contains(&name) => {}
                MessageType::Snapshot => {
                    let mut saved = AutoCommit::load(&payload).expect("a document that Automerge loads");
                    self.docs.entry(name).or_insert_with(|| blank(self.author)).merge(&mut saved).expect("a merge");
                }
                MessageType::Tombstone => self.bury(&payload),
                MessageType::Tombstones => {
                    let batch = peat_proto::wire::v0::TombstoneBatch::decode(payload).expect("a good batch");
                    batch.elements().for_each(|it| self.bury(&it.expect("a good tombstone").encode()));
                }
                kind => panic!("legacy peers do not take {kind:?} there"),
            }
        }
        answers
    }

    fn bury(&mut self, payload: &Bytes) {
        let tombstone = Tombstone::take(&mut payload.clone()).expect("a good tombstone");
        let name = tombstone.doc().expect("a document").to_string();
        self.docs.remove(&name);
        self.markers.insert(name);
    }

    pub fn heads(&mut self, name: &str) -> Vec<automerge::ChangeHash> {
        let mut heads = self.docs.get_mut(name).map(AutoCommit::get_heads).unwrap_or_default();
        heads.sort_unstable();
        heads
    }
}

impl Stage {
    /// Carries frames both ways until neither side has anything to say; `arrives` decides about each frame of the node,
    /// true to let it through. Returns how many messages crossed.
    pub fn converse(&mut self, peer: &mut Fielded, mut arrives: impl FnMut(&Frame) -> bool) -> usize {
        let mut crossed = 0;
        while let Some((lane, bytes)) = self.sent.pop_front() {
            if !matches!(lane, Lane::Once(_)) {
                continue;
            }
            crossed += 1;
            assert!(crossed < 10_000, "they never fall silent");
            let frame = decode(&bytes);
            if arrives(&frame) {
                for answer in peer.receive(&frame) {
                    crossed += 1;
                    self.feed(&answer);
                }
            }
        }
        crossed
    }

    /// The same while time passes.
    pub fn converse_for(&mut self, peer: &mut Fielded, span: Duration) -> usize {
        let mut crossed = 0;
        self.pass_with(span, |stage| crossed += stage.converse(peer, |_| true));
        crossed
    }

    pub fn heads(&self, name: &str) -> Vec<automerge::ChangeHash> {
        let listed = self.node.documents(name);
        listed.first().map(|listing| listing.heads.as_slice().to_vec()).unwrap_or_default()
    }

    pub fn assert_equal(&self, peer: &mut Fielded, name: &str) {
        assert_eq!(self.heads(name), peer.heads(name), "{name}");
    }
}
