//! Where scenarios play: real nodes on real sockets, or simulated ones on virtual time. What happens, and what comes of it, is
//! the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use peat_node::proto::Stats;
use peat_node::{DocId, Node};
use peat_tests::world::{Profile, Setup, Topology, World};
use serde_json::{Map, Value};

use crate::side::{Adapter, Kind};

/// Longest wait for anything, in real or in virtual time.
const LIMIT: Duration = Duration::from_secs(60);

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

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
    /// A node stays connected with another from here on.
    fn join(&mut self, node: usize, other: usize);
    /// Nobody reaches a node any more.
    fn unplug(&mut self, node: usize);
    /// A node is back, where it was.
    fn plug(&mut self, node: usize);
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
pub(crate) struct Sockets(Vec<Member>);

struct Member {
    node: Node,
    kind: Kind,
    /// Where it listened last.
    addr: SocketAddr,
    adapter: Option<Adapter>,
}

impl Sockets {
    pub(crate) fn new(nodes: usize, dialler: Kind, listener: Kind) -> Self {
        let member = |n: usize| {
            let node = Node::in_memory(peat_node::Options::default());
            let kind = if n == 0 { listener } else { dialler };
            let adapter = Adapter::spawn(kind, node.attach("test"), vec![ANY.into()]);
            Member { node, kind, addr: adapter.addrs()[0], adapter: Some(adapter) }
        };
        Self((0..nodes).map(member).collect())
    }
}

impl Stage for Sockets {
    fn put(&mut self, node: usize, name: &str, value: Value) {
        self.0[node].node.put(&doc(name), value).wait().expect("durable");
    }

    fn get(&mut self, node: usize, name: &str) -> Option<Value> {
        self.0[node].node.get(&doc(name)).wait().expect("readable")
    }

    fn delete(&mut self, node: usize, name: &str) {
        self.0[node].node.delete(&doc(name), None).wait().expect("durable");
    }

    fn listed(&mut self, node: usize) -> Vec<(String, String)> {
        let listed = self.0[node].node.list("").wait().expect("listed");
        listed.into_iter().map(|it| (it.doc.to_string(), format!("{:?}", it.heads))).collect()
    }

    fn stats(&mut self, node: usize) -> Stats {
        self.0[node].node.stats().wait().expect("open")
    }

    fn join(&mut self, node: usize, other: usize) {
        let ticket = self.0[other].node.ticket();
        self.0[node].node.join(&ticket);
    }

    fn unplug(&mut self, node: usize) {
        self.0[node].adapter.take().expect("plugged in").close_blocking();
    }

    fn plug(&mut self, node: usize) {
        let member = &mut self.0[node];
        member.adapter = Some(Adapter::spawn(member.kind, member.node.attach("test"), vec![member.addr]));
    }

    fn await_value(&mut self, node: usize, name: &str, value: Option<&Value>) {
        let mut changes = self.0[node].node.subscribe(name);
        let end = Instant::now() + LIMIT;
        while self.get(node, name).as_ref() != value {
            let left = end.saturating_duration_since(Instant::now());
            assert!(changes.next_timeout(left).is_some(), "{name} did not become {value:?}");
        }
    }

    fn await_level(&mut self, node: usize, other: usize) {
        let other = self.0[other].node.id();
        self.0[node].node.level_with(&other).wait().expect("both live");
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Adapters are dropped where they are: each would wait until its peers can have heard of the end.
        self.0.iter().for_each(|member| member.node.close().wait().expect("closed"));
    }
}

/// Simulated nodes.
pub(crate) struct Simulated(World);

impl Simulated {
    pub(crate) fn new(nodes: usize) -> Self {
        // A slower cable than loopback is, so that what waits for it can be seen waiting.
        let profile = Profile { rate: 4_000_000, ..Profile::LAN };
        Self(World::new(Setup { topology: Topology::Apart, profile, ..Setup::quiet(7, nodes, 0) }))
    }
}

impl Stage for Simulated {
    fn put(&mut self, node: usize, name: &str, value: Value) {
        let Value::Object(fields) = value else { panic!("an object") };
        self.0.write(node, &doc(name), |tx| {
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
        self.0.read(node, &doc(name), |content| {
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
        self.0.remove(node, &doc(name));
    }

    fn listed(&mut self, node: usize) -> Vec<(String, String)> {
        self.0.listed(node).into_iter().map(|it| (it.doc.to_string(), format!("{:?}", it.heads))).collect()
    }

    fn stats(&mut self, node: usize) -> Stats {
        self.0.node(node).expect("up").stats()
    }

    fn join(&mut self, node: usize, other: usize) {
        self.0.join(node, other);
    }

    fn unplug(&mut self, node: usize) {
        self.0.unplug(node);
    }

    fn plug(&mut self, node: usize) {
        self.0.plug(node);
    }

    fn await_value(&mut self, node: usize, name: &str, value: Option<&Value>) {
        let end = self.0.now() + LIMIT;
        while self.get(node, name).as_ref() != value {
            assert!(self.0.now() < end, "{name} did not become {value:?} within a virtual minute");
            assert!(self.0.violation().is_none(), "{:?}", self.0.violation());
            self.0.pass(10_000);
        }
    }

    fn await_level(&mut self, node: usize, other: usize) {
        let end = self.0.now() + LIMIT;
        while !self.0.is_level(node, other) {
            assert!(self.0.now() < end, "not level after a virtual minute");
            assert!(self.0.violation().is_none(), "{:?}", self.0.violation());
            self.0.pass(10_000);
        }
    }
}
