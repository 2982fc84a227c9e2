//! Where scenarios play: real nodes on real sockets, or simulated ones on virtual time. What happens, and what comes of it, is
//! the same.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use peat_node::proto::wire::v1::Hello;
use peat_node::proto::{Formation, FormationId, FormationSecret, Lane, Stats, SyncOutcome, Which, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::{Dial, Outgoing};
use peat_node::{DocId, LevelError, Node, Options, Rules, Ticket};
use peat_tests::world::{Habit, Profile, Setup, Topology, World};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::hostile::{first_packets, mangle};
use crate::path::Path;
use crate::side::{Adapter, Kind, peer};

/// Longest wait for anything, in real or in virtual time.
const LIMIT: Duration = Duration::from_secs(60);

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Who takes part.
#[derive(Clone, Copy)]
pub(crate) enum Cast {
    /// So many that let each other in.
    Friends(usize),
    /// One of each formation, told by its secret; nobody invites.
    Formations(&'static [u8]),
    /// Friends, whom somebody may call who is none.
    Called(usize),
    /// Friends, who keep what they have while they are off.
    Housed(usize),
}

/// Nodes by number. Node 0 is dialled, and all others dial.
pub(crate) trait Stage {
    /// Makes a document equal to an object of numbers, texts and truth values; durable when this returns.
    fn put(&mut self, node: usize, name: &str, value: Value);
    /// `None` if there is no such document.
    fn get(&mut self, node: usize, name: &str) -> Option<Value>;
    fn delete(&mut self, node: usize, name: &str);
    /// Names and heads of all documents.
    fn listed(&mut self, node: usize) -> Vec<(String, String)>;
    fn stats(&mut self, node: usize) -> Stats;
    /// What a node does with which collection from here on, and for whom.
    fn govern(&mut self, node: usize, rules: Rules);
    /// Compares all documents of a node with another's now: what came of each, by name.
    fn compare(&mut self, node: usize, other: usize) -> Vec<(String, SyncOutcome)>;
    /// Waits until a node knows that another does not let it in: with which code the other closed.
    fn await_refusal(&mut self, node: usize, other: usize) -> u32;
    /// Somebody calls a node, offers these wires, and greets with versions of our own that are after ours: with which code
    /// the node closes the connection; `None` if there is none in the first place.
    fn call(&mut self, node: usize, offers: &[Wire]) -> Option<u32>;
    /// A node stays connected with another from here on.
    fn join(&mut self, node: usize, other: usize);
    /// Nobody reaches a node any more.
    fn unplug(&mut self, node: usize);
    /// A node that nobody reaches closes, and begins again with what it kept.
    fn restart(&mut self, node: usize);
    /// A node is back, where it was.
    fn plug(&mut self, node: usize);
    /// A node is back where nobody looks for it.
    fn plug_elsewhere(&mut self, node: usize);
    /// A node looks for somebody at the address of another, who has another key; it has failed once before this returns.
    fn seek_nobody(&mut self, node: usize, other: usize);
    /// Strangers throw at a node what belongs to no connection.
    fn pelt(&mut self, node: usize);
    /// With whom a node is connected.
    fn peers(&mut self, node: usize) -> Vec<usize>;
    /// Waits until a node holds this.
    fn await_value(&mut self, node: usize, name: &str, value: Option<&Value>);
    /// Waits until a node says that it is level with another.
    fn await_level(&mut self, node: usize, other: usize);

    /// How often something went wrong, by what.
    fn faults(&mut self, node: usize) -> [u64; 8] {
        let stats = self.stats(node);
        [
            stats.refused,
            stats.malformed,
            stats.truncated,
            stats.trailing,
            stats.skipped,
            stats.closed,
            stats.store_faults,
            stats.quarantined,
        ]
    }
}

pub(crate) fn doc(name: &str) -> DocId {
    DocId::new(name).expect("a valid name")
}

/// Whole nodes over an adapter each.
pub(crate) struct Sockets {
    members: Vec<Member>,
    /// Whether tickets let their bearers in.
    invites: bool,
    /// On what those call who are no members.
    caller: Kind,
    /// At addresses that were left.
    silent: Vec<UdpSocket>,
}

struct Member {
    node: Node,
    /// What lasts of it.
    home: Option<TempDir>,
    kind: Kind,
    /// Where it listened last.
    addr: SocketAddr,
    adapter: Option<Adapter>,
}

impl Sockets {
    pub(crate) fn new(cast: Cast, dialler: Kind, listener: Kind) -> Self {
        let member = |n: usize| {
            let mut options = Options::default();
            if let Cast::Formations(secrets) = cast {
                let id = FormationId::new("field").expect("a valid name");
                let secret = FormationSecret::from_bytes(&[secrets[n]; 32]).expect("a secret");
                options.config.admission.formation = Some(Formation { id, secret });
            }
            let home = matches!(cast, Cast::Housed(_)).then(|| tempfile::tempdir().expect("a directory"));
            let node = match &home {
                Some(home) => {
                    Node::init(home.path()).expect("an empty directory");
                    Node::open(home.path(), options).expect("what was just made")
                }
                None => Node::in_memory(options),
            };
            let kind = if n == 0 { listener } else { dialler };
            let adapter = Adapter::spawn(kind, node.attach("test"), vec![ANY.into()]);
            Member { node, home, kind, addr: adapter.addrs()[0], adapter: Some(adapter) }
        };
        let members = (0..cast.count()).map(member).collect();
        Self { members, invites: !matches!(cast, Cast::Formations(_)), caller: dialler, silent: Vec::new() }
    }
}

impl Cast {
    fn count(self) -> usize {
        match self {
            Self::Friends(nodes) | Self::Called(nodes) | Self::Housed(nodes) => nodes,
            Self::Formations(secrets) => secrets.len(),
        }
    }
}

impl Stage for Sockets {
    fn put(&mut self, node: usize, name: &str, value: Value) {
        self.members[node].node.put(&doc(name), value).wait().expect("durable");
    }

    fn get(&mut self, node: usize, name: &str) -> Option<Value> {
        self.members[node].node.get(&doc(name)).wait().expect("readable")
    }

    fn delete(&mut self, node: usize, name: &str) {
        self.members[node].node.delete(&doc(name), None).wait().expect("durable");
    }

    fn listed(&mut self, node: usize) -> Vec<(String, String)> {
        let listed = self.members[node].node.list("").wait().expect("listed");
        listed.into_iter().map(|it| (it.doc.to_string(), format!("{:?}", it.heads))).collect()
    }

    fn stats(&mut self, node: usize) -> Stats {
        self.members[node].node.stats().wait().expect("open")
    }

    fn govern(&mut self, node: usize, rules: Rules) {
        self.members[node].node.set_rules(rules).expect("written");
    }

    fn compare(&mut self, node: usize, other: usize) -> Vec<(String, SyncOutcome)> {
        let other = self.members[other].node.id();
        let synced = self.members[node].node.sync_now(Which::Prefix(String::new()), Some(&other), LIMIT);
        let synced = synced.wait().expect("one request at a time");
        synced.into_iter().map(|it| (it.doc.to_string(), it.outcome)).collect()
    }

    fn await_refusal(&mut self, node: usize, other: usize) -> u32 {
        let other = self.members[other].node.id();
        match self.members[node].node.level_with(&other).wait() {
            Err(LevelError::Refused { code, by_peer: true }) => code,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn call(&mut self, node: usize, offers: &[Wire]) -> Option<u32> {
        let (port, bench) = Bench::new([9; 32], offers);
        let _adapter = Adapter::spawn(self.caller, port, vec![ANY.into()]);
        let member = &self.members[node];
        bench.dial(Dial { peer: member.node.id(), addrs: vec![member.addr] });
        // As long as somebody holds its end, the adapter keeps the connection.
        let mut held = None;
        loop {
            match pollster::block_on(bench.next()) {
                Seen::Connected { conn, outgoing, .. } => {
                    let hello = Hello { least: 2, newest: 3, nonce: [1; 32], boot: 1, abilities: 0, largest: 1 << 20 };
                    let greeting = Outgoing::Frame { lane: Lane::Control, frame: hello.frame() };
                    held.insert(outgoing).send((conn, greeting)).expect("the adapter is up");
                }
                Seen::DialFailed { .. } => return None,
                Seen::Disconnected { code, .. } => return Some(code.expect("closed by the node")),
                // How the streams end says nothing more.
                _ => {}
            }
        }
    }

    fn join(&mut self, node: usize, other: usize) {
        let ticket = self.members[other].node.ticket();
        let invitation = ticket.invitation.filter(|_| self.invites);
        self.members[node].node.join(&Ticket { invitation, ..ticket });
    }

    fn unplug(&mut self, node: usize) {
        self.members[node].adapter.take().expect("plugged in").close_blocking();
    }

    fn restart(&mut self, node: usize) {
        let member = &mut self.members[node];
        assert!(member.adapter.is_none(), "still plugged in");
        let home = member.home.as_ref().expect("a node with a home").path();
        member.node.close().wait().expect("closed");
        let before = member.node.id();
        member.node = Node::open(home, Options::default()).expect("closed before");
        assert_eq!(member.node.id(), before);
    }

    fn plug(&mut self, node: usize) {
        let member = &mut self.members[node];
        member.adapter = Some(Adapter::spawn(member.kind, member.node.attach("test"), vec![member.addr]));
    }

    fn plug_elsewhere(&mut self, node: usize) {
        let member = &mut self.members[node];
        // Silence, where the node was.
        self.silent.push(UdpSocket::bind(member.addr).expect("free since the node left"));
        let adapter = Adapter::spawn(member.kind, member.node.attach("test"), vec![ANY.into()]);
        (member.addr, member.adapter) = (adapter.addrs()[0], Some(adapter));
    }

    fn seek_nobody(&mut self, node: usize, other: usize) {
        let ticket = self.members[other].node.ticket();
        let path = Path::to(self.members[other].addr);
        self.members[node].node.join(&Ticket { peer: peer(7), addrs: vec![path.addr], ..ticket });
        path.attempted.recv_timeout(LIMIT).expect("another attempt, once the first has failed");
    }

    fn pelt(&mut self, node: usize) {
        let member = &self.members[node];
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let first = runtime.block_on(first_packets(member.node.id(), 1)).remove(0);
        mangle(member.addr, &first);
    }

    fn peers(&mut self, node: usize) -> Vec<usize> {
        let number = |peer| self.members.iter().position(|it| it.node.id() == peer).expect("a member");
        self.members[node].node.stats().wait().expect("open").peers.iter().map(|it| number(it.peer)).collect()
    }

    fn await_value(&mut self, node: usize, name: &str, value: Option<&Value>) {
        let mut changes = self.members[node].node.subscribe(name);
        let end = Instant::now() + LIMIT;
        while self.get(node, name).as_ref() != value {
            let left = end.saturating_duration_since(Instant::now());
            assert!(changes.next_timeout(left).is_some(), "{name} did not become {value:?}");
        }
    }

    fn await_level(&mut self, node: usize, other: usize) {
        let other = self.members[other].node.id();
        self.members[node].node.level_with(&other).wait().expect("both live");
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Adapters are dropped where they are: each would wait until its peers can have heard of the end.
        self.members.iter().for_each(|member| member.node.close().wait().expect("closed"));
    }
}

/// Simulated nodes.
pub(crate) struct Simulated {
    world: World,
    cast: Cast,
    /// Who is to stay connected with whom, which their applications know after a restart too.
    joined: Vec<(usize, usize)>,
}

impl Simulated {
    pub(crate) fn new(cast: Cast) -> Self {
        let formations = match cast {
            Cast::Friends(_) | Cast::Called(_) | Cast::Housed(_) => Vec::new(),
            Cast::Formations(secrets) => secrets.to_vec(),
        };
        // A slower cable than loopback is, so that what waits for it can be seen waiting.
        let profile = Profile { rate: 4_000_000, ..Profile::LAN };
        let hostile = if let Cast::Called(_) = cast { vec![Habit::Later] } else { Vec::new() };
        let quiet = Setup::quiet(7, cast.count(), 1);
        let world = World::new(Setup { topology: Topology::Apart, profile, formations, hostile, ..quiet });
        Self { world, cast, joined: Vec::new() }
    }
}

impl Simulated {
    /// With which code a connection between these was closed; it must have been by the right one.
    fn await_farewell(&mut self, node: usize, other: usize, by_other: bool) -> u32 {
        let end = self.world.now() + LIMIT;
        loop {
            match self.world.farewell(node, other) {
                Some((code, by)) if by == by_other => return code,
                Some(farewell) => panic!("closed by the wrong side: {farewell:?}"),
                None => assert!(self.world.now() < end, "not closed within a virtual minute"),
            }
            self.world.pass(10_000);
        }
    }
}

impl Stage for Simulated {
    fn put(&mut self, node: usize, name: &str, value: Value) {
        let Value::Object(fields) = value else { panic!("an object") };
        self.world.write(node, &doc(name), |tx| {
            let stale: Vec<String> = tx.keys(ROOT).filter(|key| !fields.contains_key(key)).collect();
            stale.into_iter().try_for_each(|key| tx.delete(ROOT, key))?;
            fields.iter().try_for_each(|(key, value)| match value {
                Value::Number(number) => tx.put(ROOT, key, number.as_i64().expect("a whole number")),
                Value::String(text) => tx.put(ROOT, key, text.as_str()),
                Value::Bool(truth) => tx.put(ROOT, key, *truth),
                other => panic!("no field of this kind: {other}"),
            })
        });
    }

    fn get(&mut self, node: usize, name: &str) -> Option<Value> {
        self.world.read(node, &doc(name), |content| {
            let field = |key: &String| {
                let (value, _) = content.get(ROOT, key).expect("readable").expect("a key that is there");
                let value = match value.as_scalar().expect("a scalar") {
                    automerge::ScalarValue::Int(number) => Value::from(*number),
                    automerge::ScalarValue::Str(text) => Value::from(text.to_string()),
                    automerge::ScalarValue::Boolean(truth) => Value::from(*truth),
                    other => panic!("no field of this kind: {other:?}"),
                };
                (key.clone(), value)
            };
            let keys: Vec<String> = content.keys(ROOT).collect();
            Value::Object(keys.iter().map(field).collect::<Map<_, _>>())
        })
    }

    fn delete(&mut self, node: usize, name: &str) {
        self.world.remove(node, &doc(name));
    }

    fn listed(&mut self, node: usize) -> Vec<(String, String)> {
        self.world.listed(node).into_iter().map(|it| (it.doc.to_string(), format!("{:?}", it.heads))).collect()
    }

    fn stats(&mut self, node: usize) -> Stats {
        self.world.node(node).expect("up").stats()
    }

    fn govern(&mut self, node: usize, rules: Rules) {
        self.world.govern(node, rules.table, rules.family);
    }

    fn compare(&mut self, node: usize, other: usize) -> Vec<(String, SyncOutcome)> {
        let limit = u64::try_from(LIMIT.as_micros()).expect("a minute");
        let synced = self.world.compare(node, other, limit);
        synced.into_iter().map(|(doc, outcome)| (doc.to_string(), outcome)).collect()
    }

    fn await_refusal(&mut self, node: usize, other: usize) -> u32 {
        self.await_farewell(node, other, true)
    }

    fn call(&mut self, node: usize, offers: &[Wire]) -> Option<u32> {
        let caller = self.cast.count();
        self.world.call(caller, node, offers).then(|| self.await_farewell(node, caller, false))
    }

    fn join(&mut self, node: usize, other: usize) {
        self.joined.push((node, other));
        self.world.join(node, other);
    }

    fn unplug(&mut self, node: usize) {
        self.world.unplug(node);
    }

    fn restart(&mut self, node: usize) {
        self.world.restart(node);
        let joined = self.joined.iter().filter(|(from, _)| *from == node);
        joined.for_each(|(from, to)| self.world.join(*from, *to));
    }

    fn plug(&mut self, node: usize) {
        self.world.plug(node);
    }

    fn plug_elsewhere(&mut self, node: usize) {
        self.world.plug(node);
        self.world.hide(node);
    }

    fn seek_nobody(&mut self, node: usize, other: usize) {
        assert!(self.world.seek(node, other), "not called");
    }

    fn pelt(&mut self, node: usize) {
        self.world.pelt(node);
    }

    fn peers(&mut self, node: usize) -> Vec<usize> {
        let nodes = self.cast.count();
        let number = |peer| (0..nodes).find(|it| World::peer(*it) == peer).expect("a member");
        self.stats(node).peers.iter().map(|it| number(it.peer)).collect()
    }

    fn await_value(&mut self, node: usize, name: &str, value: Option<&Value>) {
        let end = self.world.now() + LIMIT;
        while self.get(node, name).as_ref() != value {
            assert!(self.world.now() < end, "{name} did not become {value:?} within a virtual minute");
            assert!(self.world.violation().is_none(), "{:?}", self.world.violation());
            self.world.pass(10_000);
        }
    }

    fn await_level(&mut self, node: usize, other: usize) {
        let end = self.world.now() + LIMIT;
        while !self.world.is_level(node, other) {
            assert!(self.world.now() < end, "not level after a virtual minute");
            assert!(self.world.violation().is_none(), "{:?}", self.world.violation());
            self.world.pass(10_000);
        }
    }
}
