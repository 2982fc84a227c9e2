//! Two and more nodes on one thread, moved by hand: what the exchange promises in the quiet case, frame by frame.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use bytes::Bytes;
use peat_proto::store::{Entry, Op, Record, StoreCommand, Stored};
use peat_proto::{
    Boot, Config, ConnId, DocId, Event, Input, Lane, Link, Node, Now, Output, PeerId, Role, StreamId, Time,
};

/// A frame that crossed, as the test sees it.
#[derive(Debug, Clone)]
struct Crossing {
    from: usize,
    lane: Lane,
    bytes: usize,
}

#[derive(Default)]
struct Disk {
    records: BTreeMap<DocId, Record>,
    chunks: BTreeMap<DocId, Vec<Bytes>>,
    peers: Vec<PeerId>,
}

struct Host {
    node: Node,
    disk: Disk,
    events: Vec<Event>,
    answers: VecDeque<Stored>,
}

struct World {
    now: Now,
    hosts: Vec<Host>,
    /// Connection id on one side, with host and id on the other.
    ends: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    wire: VecDeque<(usize, ConnId, Lane, Bytes)>,
    crossings: Vec<Crossing>,
    next_conn: u64,
    next_stream: u64,
}

impl World {
    fn new(nodes: usize, config: &Config) -> Self {
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let host = |n: usize| {
            let boot = Boot { store: [u8::try_from(n).expect("few"); 16], number: 1 };
            let node = Node::new(config.clone(), peer(n), boot, [1; 32], Vec::<Entry>::new(), now);
            Host { node, disk: Disk::default(), events: Vec::new(), answers: VecDeque::new() }
        };
        Self {
            now,
            hosts: (0..nodes).map(host).collect(),
            ends: BTreeMap::new(),
            wire: VecDeque::new(),
            crossings: Vec::new(),
            next_conn: 0,
            next_stream: 0,
        }
    }

    fn open(nodes: usize) -> Self {
        let mut config = Config::default();
        config.admission.open = true;
        Self::new(nodes, &config)
    }

    fn connect(&mut self, a: usize, b: usize) -> (ConnId, ConnId) {
        let (here, there) = (ConnId(self.next_conn), ConnId(self.next_conn + 1));
        self.next_conn += 2;
        self.ends.insert((a, here), (b, there));
        self.ends.insert((b, there), (a, here));
        let link = |role| Link { role, reliable: true, binding: [0; 32], rtt: None };
        let now = self.now;
        self.hosts[a].node.handle(now, Input::Connected { conn: here, peer: peer(b), link: link(Role::Dialled) });
        self.hosts[b].node.handle(now, Input::Connected { conn: there, peer: peer(a), link: link(Role::Accepted) });
        (here, there)
    }

    /// Drains one node; frames go onto the wire, writes wait in `answers` until [`Self::store`].
    fn drain(&mut self, n: usize) {
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
                Output::StopStream { .. } | Output::Consumed { .. } | Output::Dial { .. } => {}
            }
        }
        let node = &self.hosts[n].node;
        assert!(node.timeout().is_none_or(|due| due > self.now.mono), "{:?} is due", node.timeout_reason());
    }

    fn store(&mut self, n: usize) {
        while let Some(answer) = self.hosts[n].answers.pop_front() {
            self.hosts[n].node.handle(self.now, Input::Stored(answer));
        }
    }

    fn deliver(&mut self, (from, conn, _lane, frame): (usize, ConnId, Lane, Bytes)) {
        let now = self.now;
        self.hosts[from].node.handle(now, Input::Sent { conn, bytes: frame.len() });
        if let Some((to, there)) = self.ends.get(&(from, conn)).copied() {
            self.next_stream += 1;
            let stream = StreamId(self.next_stream);
            self.hosts[to].node.handle(now, Input::Received { conn: there, stream, bytes: frame, fin: true });
        }
    }

    /// Runs everything that needs no time to pass.
    fn run(&mut self) {
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

    fn pass(&mut self, span: Duration) {
        let until = self.now.mono + span;
        loop {
            self.run();
            let due = self.hosts.iter().filter_map(|host| host.node.timeout()).min().filter(|due| *due <= until);
            self.now.mono = due.unwrap_or(until);
            for host in &mut self.hosts {
                host.node.handle(self.now, Input::Timeout);
            }
            if due.is_none() {
                self.run();
                return;
            }
        }
    }

    fn put(&mut self, n: usize, doc: &str, key: &str, value: i64) {
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

    fn get(&mut self, n: usize, doc: &str, key: &str) -> Option<i64> {
        let doc = DocId::new(doc).expect("valid");
        self.hosts[n].node.handle(self.now, Input::Open { doc: doc.clone() });
        self.run();
        let value = self.hosts[n].node.doc(&doc)?.get(ROOT, key).expect("readable")?.0.to_i64();
        self.hosts[n].node.handle(self.now, Input::Close { doc });
        value
    }

    fn assert_equal(&self) {
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

fn peer(n: usize) -> PeerId {
    PeerId([u8::try_from(n).expect("few") + 1; 32])
}

#[test]
fn a_document_written_before_the_connection_arrives_after_it() {
    let mut world = World::open(2);
    world.put(0, "notes:1", "x", 7);
    world.run();
    world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.get(1, "notes:1", "x"), Some(7));
    world.assert_equal();
    assert!(world.hosts[0].node.level(&peer(1)) && world.hosts[1].node.level(&peer(0)));
}

#[test]
fn an_edit_to_a_peer_whose_heads_are_known_is_one_data_frame_then_silence() {
    let mut world = World::open(2);
    world.connect(0, 1);
    for n in 0..3 {
        world.put(0, "notes:1", "x", n);
        world.pass(Duration::from_secs(60));
        world.assert_equal();
    }
    world.crossings.clear();
    world.put(0, "notes:1", "x", 99);
    world.run();
    let data: Vec<_> = world.crossings.iter().filter(|crossing| crossing.from == 0).collect();
    assert_eq!(data.len(), 1, "{data:?}");
    assert!(data[0].bytes < 250, "{data:?}");
    assert_eq!(world.get(1, "notes:1", "x"), Some(99));
    world.pass(Duration::from_secs(600));
    assert!(world.crossings.len() <= 6, "one edit, its receipt and the digests: {:?}", world.crossings);
    let quiet = world.crossings.len();
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.crossings.len(), quiet, "silence");
}

#[test]
fn concurrent_edits_meet_without_resending_history() {
    let mut world = World::open(2);
    world.connect(0, 1);
    for n in 0..50 {
        world.put(0, "notes:1", "x", n);
        world.pass(Duration::from_secs(1));
    }
    world.crossings.clear();
    world.put(0, "notes:1", "a", 1);
    world.put(1, "notes:1", "b", 2);
    world.pass(Duration::from_secs(30));
    world.assert_equal();
    let bytes: usize = world.crossings.iter().map(|crossing| crossing.bytes).sum();
    assert!(bytes < 1500, "{bytes} bytes for two edits: {:?}", world.crossings);
}

#[test]
fn own_changes_do_not_leave_before_they_are_durable() {
    let mut world = World::open(2);
    world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    world.crossings.clear();
    world.put(0, "notes:1", "x", 1);
    world.drain(0);
    assert!(world.crossings.is_empty(), "{:?}", world.crossings);
    assert_eq!(world.hosts[0].answers.len(), 1, "the write is under way");
    world.run();
    assert!(!world.crossings.is_empty());
    assert_eq!(world.get(1, "notes:1", "x"), Some(1));
}

#[test]
fn field_6_what_arrives_is_passed_on_and_not_sent_back() {
    let mut world = World::open(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.pass(Duration::from_secs(5));
    world.put(0, "notes:1", "x", 1);
    world.run();
    assert_eq!(world.get(2, "notes:1", "x"), Some(1));
    let data = world.hosts.iter().map(|host| host.node.stats().traffic.data_sent);
    assert_eq!(data.collect::<Vec<_>>(), [1, 1, 0], "{:?}", world.crossings);
}

#[test]
fn two_thousand_documents_reach_an_empty_peer_and_an_unequal_one() {
    let mut world = World::open(2);
    for n in 0..2000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.run();
    world.connect(0, 1);
    world.pass(Duration::from_secs(10));
    world.assert_equal();
    let mut world = World::open(2);
    for n in 0..2000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.put(1, "notes:extra", "x", 1);
    world.put(1, "notes:5", "y", 1);
    world.run();
    world.connect(1, 0);
    world.pass(Duration::from_secs(10));
    world.assert_equal();
    assert_eq!(world.hosts[1].node.documents("").len(), 2001);
}

#[test]
fn a_cache_of_nothing_changes_nothing() {
    let mut config = Config::default();
    config.admission.open = true;
    config.cache_bytes = 0;
    let mut world = World::new(2, &config);
    for n in 0..20 {
        world.put(0, &format!("notes:{n}"), "x", n);
        world.put(1, &format!("notes:{n}"), "y", n);
    }
    world.run();
    assert_eq!(world.hosts[0].node.stats().loaded, 0);
    world.connect(0, 1);
    world.pass(Duration::from_secs(20));
    world.put(0, "notes:3", "z", 5);
    world.pass(Duration::from_secs(20));
    world.assert_equal();
    assert_eq!(world.get(1, "notes:3", "z"), Some(5));
}

#[test]
fn a_stranger_is_refused_and_an_invitation_lets_in() {
    use peat_proto::{CloseCode, Invitation};
    let mut config = Config::default();
    let secret = Invitation([9; 32]);
    config.admission.invitations.push(secret);
    let mut world = World::new(2, &config);
    world.put(0, "notes:1", "x", 1);
    let now = world.now;
    world.hosts[1].node.handle(now, Input::Want { peer: peer(0), invitation: None });
    world.connect(1, 0);
    world.pass(Duration::from_secs(5));
    let refused = Event::Closed { peer: peer(0), code: CloseCode::NotAdmitted.code(), by_peer: true };
    assert!(world.hosts[1].events.contains(&refused), "{:?}", world.hosts[1].events);
    assert!(world.hosts[1].node.documents("").is_empty());
    let now = world.now;
    world.hosts[1].node.handle(now, Input::Want { peer: peer(0), invitation: Some(secret) });
    world.connect(1, 0);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.get(1, "notes:1", "x"), Some(1));
    assert_eq!(world.hosts[0].disk.peers, [peer(1)], "remembered before the first document is served");
}
