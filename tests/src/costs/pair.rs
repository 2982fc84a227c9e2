//! Two nodes, their stores, and the frames between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use automerge::transaction::Transaction;
use automerge::{AutomergeError, ChangeHash, ReadDoc};
use bytes::Bytes as Frame;
use peat_node::store::memory::MemoryStore;
use peat_node::store::{Store, thread::execute};
use peat_node::transport::STREAM_CREDIT;
use peat_proto::store::{Entry as Held, StoreCommand};
use peat_proto::{
    Boot, Config, ConnId, DocId, Input, Lane, Link, Node, Now, Output, PeerId, Role, StreamId, Time, Wire,
};

use super::meter::{Count, Meter, Sent};

/// One node and where it keeps its documents.
#[derive(Debug)]
pub struct Side {
    /// The node.
    pub node: Node,
    store: Box<dyn Store>,
    /// What the store has been asked and not done yet.
    commands: Vec<StoreCommand>,
    /// The longest chain of answers that led to what it last received, in frames.
    depth: u64,
    /// Bytes that it was sent on each stream and gave no credit back for.
    owing: BTreeMap<StreamId, usize>,
}

/// Two nodes that meet.
#[derive(Debug)]
pub struct Pair {
    /// The side that dials, and the side that is dialled.
    pub sides: [Side; 2],
    now: Now,
    frames: VecDeque<(usize, Lane, Frame, u64)>,
    connections: u64,
    /// What was sent and not counted yet.
    sent: Vec<Sent>,
    count: Count,
}

impl Side {
    fn new(number: u8, config: &Config, mut store: Box<dyn Store>, more: Vec<Held>, now: Now) -> Self {
        let boot = Boot { store: [number; 16], number: 1 };
        let entries = store.entries().expect("a store that can be read").into_iter().chain(more);
        let node = Node::new(config.clone(), peer(number), boot, [number; 32], entries, now);
        Self { node, store, commands: Vec::new(), depth: 0, owing: BTreeMap::new() }
    }
}

impl Pair {
    /// Two nodes that have in their memory what these say, and `known` besides: documents of which the store has nothing but
    /// the record.
    #[must_use]
    pub fn new(configs: &[Config; 2], known: [Vec<Held>; 2]) -> Self {
        let stores = || -> Box<dyn Store> { Box::new(MemoryStore::default()) };
        Self::with_stores(configs, [stores(), stores()], known)
    }

    /// The same upon given stores.
    #[must_use]
    pub fn with_stores(configs: &[Config; 2], stores: [Box<dyn Store>; 2], known: [Vec<Held>; 2]) -> Self {
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let ([here, there], [more, others]) = (stores, known);
        let sides = [Side::new(1, &configs[0], here, more, now), Side::new(2, &configs[1], there, others, now)];
        let (frames, sent, count) = (VecDeque::new(), Vec::new(), Count::default());
        let mut pair = Self { sides, now, frames, connections: 0, sent, count };
        pair.pass(Duration::from_secs(1));
        pair
    }

    /// Connects both, and runs until nothing is left to say.
    pub fn meet(&mut self) {
        self.connect();
        self.pass(Duration::from_secs(60));
    }

    /// Connects both, and lets them say what they can say without waiting.
    pub fn connect(&mut self) {
        self.connections += 1;
        (self.sent, self.count) = (Vec::new(), Count::default());
        let conn = ConnId(self.connections);
        for (n, role) in [Role::Dialled, Role::Accepted].into_iter().enumerate() {
            let side = &mut self.sides[n];
            side.depth = 0;
            side.owing.clear();
            let link = Link { role, wire: Wire::V1, reliable: true, binding: [0; 32], rtt: None };
            side.node.handle(self.now, Input::Connected { conn, peer: peer(2 - n as u8), link });
        }
    }

    /// The link breaks.
    pub fn part(&mut self) {
        self.frames.clear();
        let conn = ConnId(self.connections);
        for side in &mut self.sides {
            side.node.handle(self.now, Input::Disconnected { conn, code: None });
        }
        self.pass(Duration::from_secs(1));
    }

    /// Counts from here on.
    pub fn restart_meter(&mut self) {
        self.look_into();
        self.count.restart();
        self.sides.iter_mut().for_each(|side| side.depth = 0);
    }

    /// What crossed since the count began. Only here are frames looked into: that is no part of what it takes to sync.
    #[must_use]
    pub fn meter(&mut self) -> Meter {
        self.look_into();
        self.count.meter()
    }

    fn look_into(&mut self) {
        self.sent.drain(..).for_each(|sent| self.count.add(&sent));
    }

    /// Changes a document on one side, loading it first, and makes it durable; nothing crosses yet.
    pub fn edit(
        &mut self,
        side: usize,
        doc: &DocId,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) {
        let now = self.now;
        self.sides[side].node.handle(now, Input::Open { doc: doc.clone() });
        self.settle(side);
        self.sides[side].node.edit(now, doc, f).expect("an edit");
        self.sides[side].node.handle(now, Input::Close { doc: doc.clone() });
        self.settle(side);
    }

    /// Lets time pass, and everything happen that is due.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        loop {
            self.run();
            let due = self.sides.iter().filter_map(|side| side.node.timeout()).min().filter(|due| *due <= end);
            let next = due.unwrap_or(end);
            let millis = |time: Time| time.as_micros() / 1000;
            self.now.unix_ms += millis(next) - millis(self.now.mono);
            self.now.mono = next;
            for side in &mut self.sides {
                side.node.handle(self.now, Input::Timeout);
            }
            if due.is_none() {
                return self.run();
            }
        }
    }

    /// Bytes of the newest change of a document.
    #[must_use]
    pub fn newest_change(&mut self, side: usize, doc: &DocId) -> u64 {
        let now = self.now;
        self.sides[side].node.handle(now, Input::Open { doc: doc.clone() });
        self.settle(side);
        let content = self.sides[side].node.doc(doc).expect("a document that is open");
        let head = content.get_heads()[0];
        let bytes = content.get_change_by_hash(&head).expect("its own head").raw_bytes().len();
        self.sides[side].node.handle(now, Input::Close { doc: doc.clone() });
        bytes as u64
    }

    /// Whether a side knows that both are equal.
    #[must_use]
    pub fn is_level(&self, side: usize) -> bool {
        self.sides[side].node.level(&peer(2 - side as u8))
    }

    /// Names and heads of a side's documents.
    #[must_use]
    pub fn heads(&self, side: usize) -> Vec<(DocId, Vec<ChangeHash>)> {
        let listings = self.sides[side].node.documents("");
        listings.into_iter().map(|it| (it.doc, it.heads.as_slice().to_vec())).collect()
    }

    /// Everything that needs no time to pass. The disks are slower than the link: they work when nothing is on its way.
    fn run(&mut self) {
        loop {
            self.drain(0);
            self.drain(1);
            let has_credit = |(from, lane, ..): &(usize, Lane, Frame, u64)| {
                self.sides[1 - from].owing.get(&stream(*from, *lane)).is_none_or(|owing| *owing < STREAM_CREDIT)
            };
            let next = self.frames.iter().position(has_credit);
            if let Some((from, lane, frame, depth)) = next.and_then(|next| self.frames.remove(next)) {
                self.deliver(from, lane, frame, depth);
            } else if !self.work(0) && !self.work(1) {
                return;
            }
        }
    }

    /// Lets one node and its store do all that they can do alone.
    fn settle(&mut self, n: usize) {
        self.drain(n);
        while self.work(n) {
            self.drain(n);
        }
    }

    /// Does what one node wants done, but for its store.
    fn drain(&mut self, n: usize) {
        while let Some(output) = self.sides[n].node.poll() {
            match output {
                Output::Send { lane, frame, .. } => self.send(n, lane, frame),
                Output::Store(command) => self.sides[n].commands.push(command),
                Output::Work(job) => self.sides[n].node.handle(self.now, Input::Worked(job.run())),
                Output::Disconnect { code, .. } => panic!("side {n} closes: {code:?}"),
                Output::Event(_) | Output::Dial { .. } | Output::StopStream { .. } | Output::Reply { .. } => {}
                Output::Consumed { stream, bytes, .. } => {
                    let owing = self.sides[n].owing.get_mut(&stream).expect("something came on it");
                    *owing -= bytes;
                }
            }
        }
    }

    /// Lets a store do what it was asked; whether there was anything.
    fn work(&mut self, n: usize) -> bool {
        let side = &mut self.sides[n];
        let commands = std::mem::take(&mut side.commands);
        let asked = !commands.is_empty();
        let mut answers = Vec::new();
        execute(&mut *side.store, commands, |answer| answers.push(answer));
        for answer in answers {
            side.node.handle(self.now, Input::Stored(answer));
        }
        asked
    }

    fn send(&mut self, from: usize, lane: Lane, frame: Frame) {
        let depth = self.sides[from].depth + 1;
        self.sent.push(Sent { from, lane, frame: frame.clone(), depth });
        self.frames.push_back((from, lane, frame, depth));
    }

    fn deliver(&mut self, from: usize, lane: Lane, bytes: Frame, depth: u64) {
        let conn = ConnId(self.connections);
        self.sides[from].node.handle(self.now, Input::Sent { conn, bytes: bytes.len() });
        let stream = stream(from, lane);
        let side = &mut self.sides[1 - from];
        *side.owing.entry(stream).or_default() += bytes.len();
        side.depth = side.depth.max(depth);
        side.node.handle(self.now, Input::Received { conn, stream, bytes, fin: false });
    }
}

/// The stream on which a side sends a lane.
fn stream(from: usize, lane: Lane) -> StreamId {
    let index = Lane::LASTING.iter().position(|it| *it == lane).expect("a lane that lasts") as u64;
    StreamId::new(index, if from == 0 { Role::Dialled } else { Role::Accepted }, false)
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}
