//! Whole nodes, in a program without a runtime: one list of scenarios over every pair of adapters. Each ends in the same documents
//! and with the same counts of faults, whatever carried it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use peat_node::proto::{CloseCode, Wire};
use peat_node::{DocId, LevelError, Node, Ticket};
use serde_json::{Value, json};

use crate::side::{self, Adapter, Kind};

crate::over_pairs! {
    plain
    two_nodes_live_a_day_together,
    a_peer_that_comes_back_at_its_address_is_found_again,
    a_peer_that_comes_back_elsewhere_is_met_again_by_its_own_dial,
    sixty_four_nodes_around_one_end_with_the_same,
    a_ticket_with_another_id_leads_nowhere,
    who_is_not_invited_is_refused_on_both_sides_and_gets_nothing,
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

fn serve(kind: Kind, node: &Node, listen: impl Into<SocketAddr>) -> Adapter {
    Adapter::spawn(kind, node.attach("test"), vec![listen.into()])
}

fn node() -> Node {
    Node::in_memory(peat_node::Options::default())
}

fn doc(name: &str) -> DocId {
    DocId::new(name).expect("a valid name")
}

fn put(node: &Node, name: &str, value: Value) {
    node.put(&doc(name), value).wait().expect("durable");
}

fn get(node: &Node, name: &str) -> Option<Value> {
    node.get(&doc(name)).wait().expect("readable")
}

/// Waits, change by change, until a node holds this.
fn await_value(node: &Node, name: &str, value: Option<&Value>) {
    let mut changes = node.subscribe(name);
    let end = Instant::now() + LIMIT;
    while get(node, name).as_ref() != value {
        let left = end.saturating_duration_since(Instant::now());
        assert!(changes.next_timeout(left).is_some(), "{name} did not become {value:?}");
    }
}

/// Names and heads of all documents.
fn listed(node: &Node) -> Vec<(String, String)> {
    let listed = node.list("").wait().expect("listed");
    listed.into_iter().map(|it| (it.doc.to_string(), format!("{:?}", it.heads))).collect()
}

/// How often something went wrong, by what.
fn faults(node: &Node) -> [u64; 8] {
    let stats = node.stats().wait().expect("open");
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

/// Sync, edits by either side, a large document, deletion, a lost link and the way back.
fn two_nodes_live_a_day_together(dialler: Kind, listener: Kind) {
    let (a, b) = (node(), node());
    let (at_a, at_b) = (serve(listener, &a, ANY), serve(dialler, &b, ANY));
    for n in 0..50 {
        put(&a, &format!("notes:a{n}"), json!({"n": n, "of": "a"}));
        put(&b, &format!("notes:b{n}"), json!({"n": n, "of": "b"}));
    }
    let large = json!({"text": "x".repeat(3 << 20)});
    put(&a, "notes:large", large.clone());
    b.join(&a.ticket());
    b.level_with(&a.id()).wait().expect("both live");
    assert_eq!(listed(&a).len(), 101);
    assert_eq!(listed(&a), listed(&b));
    assert_eq!(get(&b, "notes:large"), Some(large));

    // An edit of either side, dialling or dialled, reaches the other.
    put(&a, "notes:a0", json!({"edited": "by a"}));
    await_value(&b, "notes:a0", Some(&json!({"edited": "by a"})));
    put(&b, "notes:a0", json!({"edited": "by b"}));
    await_value(&a, "notes:a0", Some(&json!({"edited": "by b"})));
    b.delete(&doc("notes:a1"), None).wait().expect("durable");
    await_value(&a, "notes:a1", None);

    // The link goes, both write on, the link comes back.
    let addr = at_a.addrs()[0];
    at_a.close_blocking();
    put(&a, "notes:a2", json!({"alone": "a"}));
    put(&b, "notes:b2", json!({"alone": "b"}));
    let at_a = serve(listener, &a, addr);
    await_value(&b, "notes:a2", Some(&json!({"alone": "a"})));
    await_value(&a, "notes:b2", Some(&json!({"alone": "b"})));
    b.level_with(&a.id()).wait().expect("both live");
    assert_eq!(listed(&a), listed(&b));
    assert_eq!(listed(&a).len(), 100);
    assert_eq!((faults(&a), faults(&b)), ([0; 8], [0; 8]));

    a.close().wait().expect("closed");
    b.close().wait().expect("closed");
    at_a.close_blocking();
    at_b.close_blocking();
}

fn a_peer_that_comes_back_at_its_address_is_found_again(dialler: Kind, listener: Kind) {
    let (a, b) = (node(), node());
    let at_a = serve(listener, &a, ANY);
    let _at_b = serve(dialler, &b, ANY);
    b.join(&a.ticket());
    put(&a, "notes:1", json!({"n": 1}));
    await_value(&b, "notes:1", Some(&json!({"n": 1})));
    let addr = at_a.addrs()[0];
    at_a.close_blocking();
    put(&a, "notes:1", json!({"n": 2}));
    let _again = serve(listener, &a, addr);
    await_value(&b, "notes:1", Some(&json!({"n": 2})));
}

fn a_peer_that_comes_back_elsewhere_is_met_again_by_its_own_dial(dialler: Kind, listener: Kind) {
    let (a, b) = (node(), node());
    let at_a = serve(listener, &a, ANY);
    let _at_b = serve(dialler, &b, ANY);
    b.join(&a.ticket());
    put(&a, "notes:1", json!({"n": 1}));
    await_value(&b, "notes:1", Some(&json!({"n": 1})));
    a.join(&b.ticket());
    at_a.close_blocking();
    put(&a, "notes:1", json!({"n": 2}));
    // On another port: what the dialler remembers leads nowhere.
    let _elsewhere = serve(listener, &a, ANY);
    await_value(&b, "notes:1", Some(&json!({"n": 2})));
}

fn sixty_four_nodes_around_one_end_with_the_same(leaf: Kind, hub: Kind) {
    let (center, leaves): (Node, Vec<Node>) = (node(), (0..64).map(|_| node()).collect());
    let at_center = serve(hub, &center, ANY);
    let at_leaves: Vec<_> = leaves.iter().map(|leaf_node| serve(leaf, leaf_node, ANY)).collect();
    let ticket = center.ticket();
    for (n, leaf) in leaves.iter().enumerate() {
        put(leaf, &format!("notes:{n}"), json!({"n": n}));
        leaf.join(&ticket);
    }
    for n in 0..64 {
        await_value(&center, &format!("notes:{n}"), Some(&json!({"n": n})));
    }
    put(&center, "notes:last", json!({"all": true}));
    for leaf in &leaves {
        await_value(leaf, "notes:last", Some(&json!({"all": true})));
        (0..64).for_each(|n| await_value(leaf, &format!("notes:{n}"), Some(&json!({"n": n}))));
        assert_eq!(faults(leaf), [0; 8]);
    }
    assert_eq!(faults(&center), [0; 8]);
    at_leaves.into_iter().for_each(drop);
    drop(at_center);
}

fn a_ticket_with_another_id_leads_nowhere(dialler: Kind, listener: Kind) {
    let (a, b) = (node(), node());
    let _at_a = serve(listener, &a, ANY);
    let _at_b = serve(dialler, &b, ANY);
    put(&a, "notes:1", json!({"n": 1}));
    let stranger = node().id();
    b.join(&Ticket { peer: stranger, ..a.ticket() });
    // Meanwhile the right one works, over the same address.
    b.join(&a.ticket());
    await_value(&b, "notes:1", Some(&json!({"n": 1})));
    let stats = b.stats().wait().expect("open");
    assert!(stats.peers.iter().all(|conn| conn.peer == a.id()), "{:?}", stats.peers);
}

fn who_is_not_invited_is_refused_on_both_sides_and_gets_nothing(dialler: Kind, listener: Kind) {
    let (a, b) = (node(), node());
    let _at_a = serve(listener, &a, ANY);
    let _at_b = serve(dialler, &b, ANY);
    put(&a, "notes:1", json!({"secret": true}));
    let visit = b.visit(&Ticket { invitation: None, ..a.ticket() });
    let refused = b.level_with(&a.id()).wait();
    let code = CloseCode::NotAdmitted.code();
    assert!(matches!(refused, Err(LevelError::Refused { code: said, by_peer: true }) if said == code), "{refused:?}");
    drop(visit);
    assert_eq!(listed(&b), []);
    assert!(a.stats().wait().expect("open").closed > 0);
}

/// A peer that speaks QUIC and nothing else.
mod rogues {
    use super::*;
    crate::over_kinds! {
        a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document,
    }

    async fn a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document(kind: Kind) {
        let a = node();
        let at_a = Adapter::spawn(kind, a.attach("test"), vec![ANY.into()]);
        tokio::task::block_in_place(|| put(&a, "notes:1", json!({"secret": true})));
        let endpoint = side::bare(9).await;
        let id = iroh::EndpointId::from_bytes(a.id().as_bytes()).expect("a key");
        let addr = iroh::EndpointAddr::new(id).with_ip_addr(at_a.addrs()[0]);
        let connection = endpoint.connect(addr, Wire::V1.alpn()).await.expect("anybody may knock");
        let closed = connection.closed().await;
        endpoint.close().await;
        match closed {
            iroh::endpoint::ConnectionError::ApplicationClosed(close) => {
                let codes = [CloseCode::NotAdmitted, CloseCode::HelloDeadline].map(|it| it.code().into());
                assert!(codes.contains(&close.error_code), "{close:?}");
            }
            other => panic!("expected a code, got {other:?}"),
        }
        tokio::task::block_in_place(|| at_a.close_blocking());
    }
}
