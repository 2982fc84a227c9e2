//! Two whole nodes over loopback, in a program without a runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peat_iroh::{Iroh, Options};
use peat_node::proto::{CloseCode, Wire};
use peat_node::{DocId, Node};
use serde_json::{Value, json};

fn serve(node: &Node, listen: impl Into<SocketAddr>) -> Iroh {
    let options = Options { listen: vec![listen.into()], ..Options::default() };
    Iroh::spawn(node.attach("iroh"), options).expect("loopback is there")
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

#[test]
fn a_ticket_brings_two_nodes_to_the_same_documents_and_keeps_them_there() {
    let (a, b) = (Node::in_memory(peat_node::Options::default()), Node::in_memory(peat_node::Options::default()));
    let (at_a, at_b) = (serve(&a, ANY), serve(&b, ANY));
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

#[test]
fn a_peer_that_comes_back_at_its_address_is_found_again() {
    let (a, b) = (Node::in_memory(peat_node::Options::default()), Node::in_memory(peat_node::Options::default()));
    let at_a = serve(&a, ANY);
    let _at_b = serve(&b, ANY);
    b.join(&a.ticket());
    put(&a, "notes:1", json!({"n": 1}));
    await_value(&b, "notes:1", &json!({"n": 1}));
    let addr = at_a.addrs()[0];
    at_a.close_blocking();
    put(&a, "notes:1", json!({"n": 2}));
    let _again = serve(&a, addr);
    await_value(&b, "notes:1", &json!({"n": 2}));
}

#[test]
fn a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document() {
    let a = Node::in_memory(peat_node::Options::default());
    let at_a = serve(&a, ANY);
    put(&a, "notes:1", json!({"secret": true}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let closed = runtime.expect("a runtime").block_on(async {
        let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal).clear_ip_transports();
        let endpoint = builder.bind_addr(ANY).expect("a valid address").bind().await.expect("loopback is there");
        let id = iroh::EndpointId::from_bytes(a.id().as_bytes()).expect("a key");
        let addr = iroh::EndpointAddr::new(id).with_ip_addr(at_a.addrs()[0]);
        let connection = endpoint.connect(addr, Wire::V1.alpn()).await.expect("anybody may knock");
        let closed = connection.closed().await;
        endpoint.close().await;
        closed
    });
    match closed {
        iroh::endpoint::ConnectionError::ApplicationClosed(close) => {
            let codes = [CloseCode::NotAdmitted, CloseCode::HelloDeadline].map(|it| it.code().into());
            assert!(codes.contains(&close.error_code), "{close:?}");
        }
        other => panic!("expected a code, got {other:?}"),
    }
}
