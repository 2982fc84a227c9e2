//! Nodes on one thread, moved by hand: no time passes and nothing is lost unless a test says so.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use bytes::Bytes;
use peat_proto::store::{Entry, Op, Record, StoreCommand, Stored};
use peat_proto::{
    Boot, Config, ConnId, DocId, Event, Input, Lane, Link, Node, Now, Output, PeerId, Rng, Role, StreamId, Time, Wire,
};

/// A frame that crossed, as the test sees it.
#[derive(Debug, Clone)]
pub struct Crossing {
    pub from: usize,
    pub lane: Lane,
    pub bytes: usize,
}

#[derive(Default)]
pub struct Disk {
    pub records: BTreeMap<DocId, Record>,
    pub chunks: BTreeMap<DocId, Vec<Bytes>>,
    pub peers: Vec<PeerId>,
}

pub struct Host {
    pub node: Node,
    pub disk: Disk,
    pub events: Vec<Event>,
    pub answers: VecDeque<Stored>,
    /// Receive credit that it gave back, in bytes.
    pub consumed: usize,
}

pub struct World {
    pub now: Now,
    pub hosts: Vec<Host>,
    /// Connection id on one side, with host and id on the other.
    pub ends: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    pub wire: VecDeque<(usize, ConnId, Lane, Bytes)>,
    pub crossings: Vec<Crossing>,
    pub next_conn: u64,
    pub next_stream: u64,
    /// Percent of the frames on datagram links that are lost.
    pub loss: u64,
    pub rng: Rng,
}

impl World {
    pub fn new(nodes: usize, config: &Config) -> Self {
        Self::of(vec![config.clone(); nodes])
    }

    /// A node for each configuration.
    pub fn of(configs: Vec<Config>) -> Self {
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let host = |(n, config)| {
            let boot = Boot { store: [u8::try_from(n).expect("few"); 16], number: 1 };
            let node = Node::new(config, peer(n), boot, [1; 32], Vec::<Entry>::new(), now);
            Host { node, disk: Disk::default(), events: Vec::new(), answers: VecDeque::new(), consumed: 0 }
        };
        Self {
            now,
            hosts: configs.into_iter().enumerate().map(host).collect(),
            ends: BTreeMap::new(),
            wire: VecDeque::new(),
            crossings: Vec::new(),
            next_conn: 0,
            next_stream: 0,
            loss: 0,
            rng: Rng::new([1; 32]),
        }
    }

    pub fn open(nodes: usize) -> Self {
        let mut config = Config::default();
        config.admission.open = true;
        Self::new(nodes, &config)
    }

    pub fn connect(&mut self, a: usize, b: usize) -> (ConnId, ConnId) {
        self.connect_by(a, b, true)
    }

    /// Over a link that loses frames, or not.
    pub fn connect_by(&mut self, a: usize, b: usize, reliable: bool) -> (ConnId, ConnId) {
        let (here, there) = (ConnId(self.next_conn), ConnId(self.next_conn + 1));
        self.next_conn += 2;
        self.ends.insert((a, here), (b, there));
        self.ends.insert((b, there), (a, here));
        let link = |role| Link { role, wire: Wire::V1, reliable, binding: [0; 32], rtt: None };
        let now = self.now;
        self.hosts[a].node.handle(now, Input::Connected { conn: here, peer: peer(b), link: link(Role::Dialled) });
        self.hosts[b].node.handle(now, Input::Connected { conn: there, peer: peer(a), link: link(Role::Accepted) });
        (here, there)
    }

    /// Ends a connection, with what is on its way.
    pub fn cut(&mut self, n: usize, conn: ConnId) {
        let Some((other, there)) = self.ends.remove(&(n, conn)) else { return };
        self.ends.remove(&(other, there));
        self.hosts[n].node.handle(self.now, Input::Disconnected { conn, code: None });
        self.hosts[other].node.handle(self.now, Input::Disconnected { conn: there, code: None });
    }

    /// Drains one node; frames go onto the wire, writes wait in `answers` until [`Self::store`].
    pub fn drain(&mut self, n: usize) {
        while let Some(output) = self.hosts[n].node.poll() {
            let host = &mut self.hosts[n];
            match output {
                Output::Send { conn, lane, frame } => {
                    self.crossings.push(Crossing { from: n, lane, bytes: frame.len() });
                    self.wire.push_back((n, conn, lane, frame));
                }
                Output::Event(event) => host.events.push(event),
                Output::Store(StoreCommand::Load { load, doc }) => {
                    let chunks = host.disk.chunks.get(&doc).cloned().expect("only stored documents are loaded");
                    host.answers.push_back(Stored::Loaded { load, chunks });
                }
                Output::Store(StoreCommand::Write(batch)) => {
                    for op in batch.ops {
                        match op {
                            Op::Append { doc, record, chunk } => {
                                host.disk.chunks.entry(doc.clone()).or_default().push(chunk);
                                host.disk.records.insert(doc, record);
                            }
                            Op::Replace { doc, record, chunk } => {
                                host.disk.chunks.insert(doc.clone(), vec![chunk]);
                                host.disk.records.insert(doc, record);
                            }
                            Op::Bury { doc, record } => {
                                host.disk.chunks.remove(&doc);
                                host.disk.records.insert(doc, record);
                            }
                            Op::Remove { doc } => {
                                host.disk.chunks.remove(&doc);
                                host.disk.records.remove(&doc);
                            }
                            Op::Admit { peer } => host.disk.peers.push(peer),
                            Op::Forget { .. } => {}
                        }
                    }
                    host.answers.push_back(Stored::Durable { seq: batch.seq });
                }
                Output::Work(job) => {
                    let done = job.run();
                    host.node.handle(self.now, Input::Worked(done));
                }
                Output::Disconnect { conn, code } => {
                    if let Some((other, there)) = self.ends.remove(&(n, conn)) {
                        self.ends.remove(&(other, there));
                        let code = Some(code.code());
                        self.hosts[other].node.handle(self.now, Input::Disconnected { conn: there, code });
                    }
                }
                Output::Consumed { bytes, .. } => host.consumed += bytes,
                Output::StopStream { .. } | Output::Reply { .. } | Output::Dial { .. } => {}
            }
        }
        let node = &self.hosts[n].node;
        assert!(node.timeout().is_none_or(|due| due > self.now.mono), "{:?} is due", node.timeout_reason());
    }

    pub fn store(&mut self, n: usize) {
        while let Some(answer) = self.hosts[n].answers.pop_front() {
            self.hosts[n].node.handle(self.now, Input::Stored(answer));
        }
    }

    pub fn deliver(&mut self, (from, conn, _lane, frame): (usize, ConnId, Lane, Bytes)) {
        let now = self.now;
        self.hosts[from].node.handle(now, Input::Sent { conn, bytes: frame.len() });
        if self.rng.below(100) < self.loss {
            return;
        }
        if let Some((to, there)) = self.ends.get(&(from, conn)).copied() {
            self.next_stream += 1;
            let stream = StreamId::new(self.next_stream, Role::Dialled, false);
            self.hosts[to].node.handle(now, Input::Received { conn: there, stream, bytes: frame, fin: true });
        }
    }

    /// Runs everything that needs no time to pass.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            for n in 0..self.hosts.len() {
                self.drain(n);
                self.store(n);
                self.drain(n);
            }
            match self.wire.pop_front() {
                Some(crossing) => self.deliver(crossing),
                None if self.hosts.iter().all(|host| host.answers.is_empty()) => return,
                None => {}
            }
        }
        panic!("the nodes never fall silent");
    }

    pub fn pass(&mut self, span: Duration) {
        let until = self.now.mono + span;
        loop {
            self.run();
            let due = self.hosts.iter().filter_map(|host| host.node.timeout()).min().filter(|due| *due <= until);
            let next = due.unwrap_or(until);
            // Both clocks start at a full millisecond, and move together.
            let millis = |time: Time| time.as_micros() / 1000;
            self.now.unix_ms = self.now.unix_ms.saturating_add(millis(next) - millis(self.now.mono));
            self.now.mono = next;
            for host in &mut self.hosts {
                host.node.handle(self.now, Input::Timeout);
            }
            if due.is_none() {
                self.run();
                return;
            }
        }
    }

    pub fn put(&mut self, n: usize, doc: &str, key: &str, value: i64) {
        let doc = DocId::new(doc).expect("valid");
        let now = self.now;
        if !self.hosts[n].node.contains(&doc) || self.hosts[n].node.doc(&doc).is_some() {
            self.hosts[n].node.edit(now, &doc, |tx| tx.put(ROOT, key, value)).expect("an edit");
            return;
        }
        self.hosts[n].node.handle(now, Input::Open { doc: doc.clone() });
        self.run();
        let now = self.now;
        self.hosts[n].node.edit(now, &doc, |tx| tx.put(ROOT, key, value)).expect("an edit");
        self.hosts[n].node.handle(now, Input::Close { doc });
    }

    pub fn get(&mut self, n: usize, doc: &str, key: &str) -> Option<i64> {
        let doc = DocId::new(doc).expect("valid");
        self.hosts[n].node.handle(self.now, Input::Open { doc: doc.clone() });
        self.run();
        let value = self.hosts[n].node.doc(&doc)?.get(ROOT, key).expect("readable")?.0.as_i64();
        self.hosts[n].node.handle(self.now, Input::Close { doc });
        value
    }

    pub fn assert_equal(&self) {
        let first = self.hosts[0].node.documents("");
        for host in &self.hosts[1..] {
            let heads: Vec<_> =
                host.node.documents("").into_iter().map(|listing| (listing.doc, listing.heads)).collect();
            assert_eq!(
                heads,
                first.iter().map(|listing| (listing.doc.clone(), listing.heads.clone())).collect::<Vec<_>>()
            );
        }
    }
}

pub fn peer(n: usize) -> PeerId {
    PeerId([u8::try_from(n).expect("few") + 1; 32])
}
