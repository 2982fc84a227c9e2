//! Two nodes of one process, connected by a transport that moves bytes in odd pieces.

mod common;

use std::convert::Infallible;
use std::thread;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ROOT, ReadDoc};
use common::Network;
use peat_node::proto::{CloseCode, Listing};
use peat_node::{
    Change, DocId, Heads, LevelError, Node, Options, Origin, PeerId, ReadError, Subscription, SyncError, SyncOutcome,
    Synced, Which, WriteError,
};
use serde_json::{Value, json};

/// Far longer than anything here takes; reached only by a fault.
const LONG: Duration = Duration::from_secs(30);

fn doc(name: &str) -> DocId {
    DocId::new(name).expect("a valid name")
}

fn get(node: &Node, name: &str) -> Option<Value> {
    node.get(&doc(name)).wait().expect("readable")
}

fn put(node: &Node, name: &str, value: Value) {
    node.put(&doc(name), value).wait().expect("durable");
}

fn heads(node: &Node) -> Vec<(DocId, Heads)> {
    let listed = node.list("").wait().expect("listed");
    let heads = |listing: Listing| (listing.doc, listing.heads);
    listed.into_iter().map(heads).collect()
}

/// Two nodes on one network, the first dialling the second.
fn pair() -> (Network, Node, Node) {
    let network = Network::default();
    let (a, b) = (Node::in_memory(Options::default()), Node::in_memory(Options::default()));
    network.attach(&a);
    network.attach(&b);
    a.join(&b.ticket());
    (network, a, b)
}

/// Waits, change by change, until both nodes hold the same heads.
fn await_equal(a: &Node, b: &Node) {
    let (mut at_a, mut at_b) = (a.subscribe(""), b.subscribe(""));
    let next = |changes: &mut Subscription| changes.next_timeout(Duration::from_millis(50));
    for _ in 0..200 {
        if heads(a) == heads(b) {
            return;
        }
        next(&mut at_a);
        next(&mut at_b);
    }
    let stats = |node: &Node| node.stats().wait();
    panic!("not equal: {:?} and {:?}\n{:#?}\n{:#?}", heads(a), heads(b), stats(a), stats(b));
}

#[test]
fn one_node_puts_gets_edits_and_lists() {
    let node = Node::in_memory(Options::default());
    assert_eq!(get(&node, "notes:1"), None);
    put(&node, "notes:1", json!({"title": "first", "tags": ["a", "b"]}));
    put(&node, "other:1", json!({"n": 1}));
    assert_eq!(get(&node, "notes:1"), Some(json!({"title": "first", "tags": ["a", "b"]})));

    let edited = node.edit(&doc("notes:1"), |tx| {
        tx.put(ROOT, "title", "second")?;
        Ok::<_, AutomergeError>(tx.length(ROOT))
    });
    assert_eq!(edited.wait().expect("durable"), 2);
    assert_eq!(get(&node, "notes:1"), Some(json!({"title": "second", "tags": ["a", "b"]})));

    let listed = node.list("notes:").wait().expect("listed");
    assert_eq!(listed.iter().map(|it| it.doc.as_str()).collect::<Vec<_>>(), ["notes:1"]);
    assert_eq!(node.close().wait(), Ok(()));
}

#[test]
fn a_failed_or_panicking_closure_changes_nothing_and_the_node_goes_on() {
    let node = Node::in_memory(Options::default());
    put(&node, "notes:1", json!({"n": 1}));
    let before = heads(&node);

    let refused = node.edit(&doc("notes:1"), |tx| {
        tx.put(ROOT, "n", 2).map_err(|_| "automerge")?;
        Err::<(), _>("changed my mind")
    });
    assert_eq!(refused.wait(), Err(WriteError::Aborted("changed my mind")));

    let panics = node.edit(&doc("notes:1"), |tx| -> Result<(), Infallible> {
        tx.put(ROOT, "n", 3).expect("a map takes a key");
        panic!("on purpose");
    });
    let payload = thread::spawn(move || panics.wait()).join().expect_err("panics here");
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));

    assert_eq!(heads(&node), before);
    assert_eq!(get(&node, "notes:1"), Some(json!({"n": 1})));
    put(&node, "notes:1", json!({"n": 4}));
    assert_eq!(get(&node, "notes:1"), Some(json!({"n": 4})));
}

#[test]
fn what_cannot_be_a_document_is_refused() {
    let node = Node::in_memory(Options::default());
    let put = |value| node.put(&doc("notes:1"), value).wait();
    assert_eq!(put(json!([1])), Err(WriteError::NotAnObject));
    let deep = (0..100).fold(json!({}), |inner, _| json!({"k": inner}));
    assert!(matches!(put(deep), Err(WriteError::TooDeep(_))));
    let import = node.import(&doc("notes:1"), b"no Automerge".to_vec()).wait();
    assert!(matches!(import, Err(WriteError::Refused(_))), "{import:?}");
    assert_eq!(heads(&node), []);
}

#[test]
fn putting_the_same_again_makes_no_change() {
    let node = Node::in_memory(Options::default());
    let value = json!({"a": [1, {"b": null}], "c": "d"});
    put(&node, "notes:1", value.clone());
    let before = heads(&node);
    put(&node, "notes:1", value);
    assert_eq!(heads(&node), before);
}

#[test]
fn an_exported_document_can_be_imported_elsewhere_and_again() {
    let (a, b) = (Node::in_memory(Options::default()), Node::in_memory(Options::default()));
    put(&a, "notes:1", json!({"n": 1}));
    let bytes = a.export(&doc("notes:1")).wait().expect("readable").expect("there");
    let imported = b.import(&doc("notes:1"), bytes.clone()).wait().expect("durable");
    assert_eq!(heads(&b), [(doc("notes:1"), imported.clone())]);
    assert_eq!(heads(&b), heads(&a));
    // The second time nothing is written, and the answer comes all the same.
    assert_eq!(b.import(&doc("notes:1"), bytes).wait(), Ok(imported));
    assert_eq!(get(&b, "notes:1"), Some(json!({"n": 1})));
    assert_eq!(b.export(&doc("none:1")).wait(), Ok(None));
}

#[test]
fn requests_for_one_document_keep_their_order_when_it_is_cold() {
    let mut options = Options::default();
    options.config.cache_bytes = 0;
    let node = Node::in_memory(options);
    let docs: Vec<DocId> = (0..20).map(|n| doc(&format!("notes:{n}"))).collect();
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    for round in 0..20 {
        for doc in &docs {
            writes.push(node.put(doc, json!({"round": round})));
            reads.push((round, node.get(doc)));
        }
    }
    for (round, read) in reads {
        assert_eq!(read.wait(), Ok(Some(json!({"round": round}))));
    }
    for write in writes {
        assert_eq!(write.wait(), Ok(()));
    }
}

#[test]
fn documents_travel_and_subscribers_see_who_brought_them() {
    let (_network, a, b) = pair();
    let (mut at_a, mut at_b) = (a.subscribe("tracks:"), b.subscribe("tracks:"));
    put(&a, "notes:1", json!({}));
    put(&a, "tracks:1", json!({"alt": 1000}));

    let own = at_a.next_timeout(LONG).expect("a change");
    let received = at_b.next_timeout(LONG).expect("a change");
    assert_eq!((own.doc, own.origin), (doc("tracks:1"), Origin::Local));
    let Change { doc: name, origin, heads, deleted } = received;
    assert_eq!((name, origin, deleted), (doc("tracks:1"), Origin::Peer(a.id()), false));
    assert_eq!(heads, own.heads);
    assert_eq!(get(&b, "tracks:1"), Some(json!({"alt": 1000})));

    a.level_with(&b.id()).wait().expect("level");
    b.level_with(&a.id()).wait().expect("level");
    assert!(b.stats().wait().expect("open").traffic.bytes_received > 0);
}

#[test]
fn concurrent_edits_from_threads_and_async_code_end_equal() {
    let (network, a, b) = pair();
    let from_threads: Vec<_> = [&a, &b]
        .into_iter()
        .flat_map(|node| (0..2).map(move |n| (node.clone(), n)))
        .map(|(node, n)| {
            thread::spawn(move || {
                for round in 0..25 {
                    let key = format!("{}-{n}", node.id());
                    let edit = node.edit(&doc(&format!("notes:{}", round % 5)), move |tx| tx.put(ROOT, key, round));
                    edit.wait().expect("durable");
                }
            })
        })
        .collect();
    pollster::block_on(async {
        for round in 0..25 {
            let write = b.put(&doc(&format!("async:{}", round % 3)), json!({"round": round}));
            write.await.expect("durable");
            if round == 10 {
                network.cut();
            }
        }
        assert_eq!(b.get(&doc("async:0")).await, Ok(Some(json!({"round": 24}))));
    });
    for thread in from_threads {
        thread.join().expect("all edits were durable");
    }
    await_equal(&a, &b);
    assert_eq!(heads(&a).len(), 8);
    for n in 0..5 {
        let value = get(&a, &format!("notes:{n}")).expect("there");
        assert_eq!(value, get(&b, &format!("notes:{n}")).expect("there"));
        let last: Vec<_> = value.as_object().expect("an object").values().collect();
        assert_eq!(last, vec![&json!(20 + n); 4]);
    }
}

#[test]
fn a_lost_connection_is_dialled_again() {
    let (network, a, b) = pair();
    put(&a, "notes:1", json!({"n": 1}));
    await_equal(&a, &b);
    network.detach(&b);
    network.cut();
    put(&a, "notes:1", json!({"n": 2}));
    network.attach(&b);
    await_equal(&a, &b);
    assert_eq!(get(&b, "notes:1"), Some(json!({"n": 2})));
}

#[test]
fn a_stranger_gets_nothing() {
    let network = Network::default();
    let (a, b) = (Node::in_memory(Options::default()), Node::in_memory(Options::default()));
    network.attach(&a);
    network.attach(&b);
    put(&b, "notes:1", json!({"secret": true}));
    let mut changes = a.subscribe("");
    let mut ticket = b.ticket();
    ticket.invitation = None;
    a.join(&ticket);
    assert_eq!(changes.next_timeout(Duration::from_secs(2)), None);
    assert_eq!(heads(&a), []);
    assert!(a.stats().wait().expect("open").closed + b.stats().wait().expect("open").closed > 0);
}

#[test]
fn whoever_waits_to_be_level_with_a_node_that_refuses_is_told_so() {
    let network = Network::default();
    let (a, b) = (Node::in_memory(Options::default()), Node::in_memory(Options::default()));
    network.attach(&a);
    network.attach(&b);
    let mut ticket = b.ticket();
    ticket.invitation = None;
    a.join(&ticket);
    let code = CloseCode::NotAdmitted.code();
    let refused = a.level_with(&b.id()).wait();
    assert_eq!(refused, Err(LevelError::Refused { code, by_peer: true }));
    let refusing = b.level_with(&a.id()).wait();
    assert_eq!(refusing, Err(LevelError::Refused { code, by_peer: false }));
}

#[test]
fn a_peer_is_wanted_until_the_last_visit_ends_or_it_is_parted_from() {
    let network = Network::default();
    let (a, b) = (Node::in_memory(Options::default()), Node::in_memory(Options::default()));
    network.attach(&a);
    network.attach(&b);
    let dialled_again = |n: u64| {
        network.cut();
        put(&b, "notes:1", json!({"n": n}));
        let mut changes = a.subscribe("");
        while let Some(change) = changes.next_timeout(Duration::from_secs(3)) {
            if change.origin != Origin::Local && get(&a, "notes:1") == Some(json!({"n": n})) {
                return true;
            }
        }
        false
    };
    let (first, second) = (a.visit(&b.ticket()), a.visit(&b.ticket()));
    a.level_with(&b.id()).wait().expect("level");
    drop(first);
    assert!(dialled_again(1), "one visit is left");
    a.join(&b.ticket());
    drop(second);
    assert!(dialled_again(2), "it is joined");
    a.part(&b.id());
    put(&b, "notes:2", json!({}));
    a.level_with(&b.id()).wait().expect("the connection stays");
    assert!(!dialled_again(3), "nobody wants it");
}

#[test]
fn a_closed_node_answers_closed_and_ends_its_subscriptions() {
    let (_network, a, b) = pair();
    put(&a, "notes:1", json!({"n": 1}));
    await_equal(&a, &b);
    let mut changes = a.subscribe("");
    let level = a.level_with(&peat_node::PeerId([9; 32]));
    assert_eq!(a.close().wait(), Ok(()));
    assert_eq!(a.close().wait(), Ok(()));
    assert_eq!(changes.next(), None);
    assert_eq!(level.wait(), Err(LevelError::Closed));
    assert_eq!(a.put(&doc("notes:1"), json!({})).wait(), Err(WriteError::Closed));
    assert_eq!(a.get(&doc("notes:1")).wait(), Err(ReadError::Closed));
    assert_eq!(a.stats().wait().map(|stats| stats.documents), None);
}

#[test]
fn writes_made_before_closing_are_durable_and_found_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let id = Node::init(dir.path()).expect("a new node");
    let node = Node::open(dir.path(), Options::default()).expect("opens");
    assert_eq!(node.id(), id);
    assert!(matches!(Node::open(dir.path(), Options::default()), Err(peat_node::OpenError::Locked)));
    let writes: Vec<_> = (0..100).map(|n| node.put(&doc(&format!("notes:{n}")), json!({"n": n}))).collect();
    let invitation = node.ticket().invitation;
    assert_eq!(node.close().wait(), Ok(()));
    for write in writes {
        assert_eq!(write.wait(), Ok(()));
    }

    // The directory is free again, although a handle still exists.
    let again = Node::open(dir.path(), Options::default()).expect("opens again");
    assert_eq!(again.ticket().invitation, invitation);
    for n in 0..100 {
        let edit = again.edit(&doc(&format!("notes:{n}")), |tx| tx.put(ROOT, "again", true));
        edit.wait().expect("durable");
    }
    let before = heads(&again);
    drop(again);
    let last = Node::open(dir.path(), Options::default()).expect("dropping has closed it");
    assert_eq!(heads(&last), before);
    assert_eq!(get(&last, "notes:99"), Some(json!({"n": 99, "again": true})));
}

#[test]
fn a_restarted_node_dials_the_peers_that_it_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    Node::init(dir.path()).expect("a new node");
    let network = Network::default();
    let b = Node::in_memory(Options::default());
    network.attach(&b);
    let a = Node::open(dir.path(), Options::default()).expect("opens");
    network.attach(&a);
    a.join(&b.ticket());
    put(&b, "notes:1", json!({"n": 1}));
    await_equal(&a, &b);
    drop(a);
    put(&b, "notes:1", json!({"n": 2}));

    let a = Node::open(dir.path(), Options::default()).expect("opens again");
    network.attach(&a);
    await_equal(&a, &b);
    assert_eq!(get(&a, "notes:1"), Some(json!({"n": 2})));
    a.forget(&b.id());
    drop(a);
    let a = Node::open(dir.path(), Options::default()).expect("opens again");
    network.attach(&a);
    put(&b, "notes:1", json!({"n": 3}));
    let mut changes = a.subscribe("");
    assert_eq!(changes.next_timeout(Duration::from_secs(2)), None);
}

#[test]
fn importing_what_is_still_being_written_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    Node::init(dir.path()).expect("a new node");
    let node = Node::open(dir.path(), Options::default()).expect("opens");
    let source = Node::in_memory(Options::default());
    put(&source, "notes:1", json!({"n": 1}));
    let bytes = source.export(&doc("notes:1")).wait().expect("readable").expect("there");
    let imports: Vec<_> = (0..50).map(|_| node.import(&doc("notes:1"), bytes.clone())).collect();
    let (done, waited) = flume::bounded(1);
    thread::spawn(move || done.send(imports.into_iter().map(|import| import.wait()).collect::<Vec<_>>()));
    let answers = waited.recv_timeout(LONG).expect("every import is answered");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[test]
fn a_request_to_synchronise_is_answered_for_every_document_and_peer() {
    let (_network, a, b) = pair();
    put(&a, "notes:1", json!({"n": 1}));
    put(&b, "tracks:2", json!({"n": 2}));
    await_equal(&a, &b);
    let equal = |name: &str| Synced { peer: b.id(), doc: doc(name), outcome: SyncOutcome::Equal };
    let mut all = a.sync_now(Which::Prefix(String::new()), None, LONG).wait().expect("taken");
    all.sort_by(|a, b| a.doc.cmp(&b.doc));
    assert_eq!(all, [equal("notes:1"), equal("tracks:2")]);
    let named = Which::Documents(vec![doc("notes:1"), doc("notes:none")]);
    let named = a.sync_now(named, Some(&b.id()), LONG).wait().expect("taken");
    let mut outcomes: Vec<_> = named.into_iter().map(|synced| synced.outcome).collect();
    outcomes.sort();
    assert_eq!(outcomes, [SyncOutcome::Equal, SyncOutcome::Unknown]);
    let nobody = PeerId([7; 32]);
    let nobody = a.sync_now(Which::Prefix("notes:".to_owned()), Some(&nobody), LONG).wait().expect("taken");
    assert!(matches!(&*nobody, [Synced { outcome: SyncOutcome::Unreachable, .. }]), "{nobody:?}");
    a.close().wait().expect("closes");
    assert_eq!(a.sync_now(Which::Prefix(String::new()), None, LONG).wait(), Err(SyncError::Closed));
}
