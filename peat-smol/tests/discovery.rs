//! A peer on the same network is found by its id alone, if both sides want that.

use std::time::Duration;

use peat_node::{DocId, Node, Ticket};
use peat_smol::{Options, Udp};
use serde_json::json;

#[test]
fn a_peer_on_the_local_network_is_found_by_its_id() {
    let node = || {
        let node = Node::in_memory(peat_node::Options::default());
        let udp = Udp::spawn(node.attach("udp"), Options { discovery: true, ..Options::default() });
        (udp.expect("free ports, and a network that takes multicast"), node)
    };
    let ((_at_a, a), (_at_b, b)) = (node(), node());
    let doc = DocId::new("notes:1").expect("a valid name");
    b.put(&doc, json!({"found": true})).wait().expect("durable");
    let mut changes = a.subscribe("notes:");
    a.join(&Ticket { addrs: Vec::new(), ..b.ticket() });
    let change = changes.next_timeout(Duration::from_secs(30));
    assert_eq!(change.expect("the peer is found").doc, doc);
}
