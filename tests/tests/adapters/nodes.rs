//! Two whole nodes over loopback, in a program without a runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peat_node::proto::{CloseCode, Wire};
use peat_node::{DocId, Node};
use serde_json::{Value, json};

use crate::side::{Adapter, Kind};

crate::over_pairs! {
    plain
    a_ticket_brings_two_nodes_to_the_same_documents_and_keeps_them_there,
    a_peer_that_comes_back_at_its_address_is_found_again,
}

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
fn await_value(node: &Node, name: &str, value: &Value) {
    let mut changes = node.subscribe(name);
    while get(node, name).as_ref() != Some(value) {
        let change = changes.next_timeout(Duration::from_secs(30));
        assert!(change.is_some(), "nothing came in time");
    }
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn a_ticket_brings_two_nodes_to_the_same_documents_and_keeps_them_there(dialler: Kind, listener: Kind) {
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
    let listed = |node: &Node| -> Vec<_> {
        let listed = node.list("").wait().expect("listed");
        listed.into_iter().map(|it| (it.doc, it.heads)).collect()
    };
    assert_eq!(listed(&a).len(), 101);
    assert_eq!(listed(&a), listed(&b));
    assert_eq!(get(&b, "notes:large"), Some(large));

    // An edit of either side, dialling or dialled, reaches the other.
    put(&a, "notes:a0", json!({"edited": "by a"}));
    await_value(&b, "notes:a0", &json!({"edited": "by a"}));
    put(&b, "notes:a0", json!({"edited": "by b"}));
    await_value(&a, "notes:a0", &json!({"edited": "by b"}));

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
    await_value(&b, "notes:1", &json!({"n": 1}));
    let addr = at_a.addrs()[0];
    at_a.close_blocking();
    put(&a, "notes:1", json!({"n": 2}));
    let _again = serve(listener, &a, addr);
    await_value(&b, "notes:1", &json!({"n": 2}));
}

crate::over_kinds! {
    a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document,
}

async fn a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document(kind: Kind) {
    let a = node();
    let at_a = serve(kind, &a, ANY);
    tokio::task::block_in_place(|| put(&a, "notes:1", json!({"secret": true})));
    let endpoint = crate::side::bare(9).await;
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
