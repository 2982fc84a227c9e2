//! Whole nodes, in a program without a runtime: one list of scenarios over every pair of adapters, and in the simulator
//! where it knows what they are about. Each ends in the same documents and with the same counts of faults, whatever carried it.

use std::net::{Ipv4Addr, SocketAddr};

use peat_node::proto::{CloseCode, Refusal, Rng, Stats, SyncOutcome, Wire};
use peat_node::{DocId, LevelError, Node, Options, Rules, Ticket};
use serde_json::{Value, json};

use crate::side::{self, Adapter, Kind};
use crate::stage::{Stage, doc};

crate::over_stages! {
    two_nodes_live_a_day_together: Friends(2),
    a_peer_that_comes_back_at_its_address_is_found_again: Friends(2),
    a_peer_that_comes_back_elsewhere_is_met_again_by_its_own_dial: Friends(2),
    two_that_restart_one_after_the_other_go_on_with_what_they_had: Housed(2),
    a_peer_that_restarts_elsewhere_is_met_again_by_its_own_dial: Housed(2),
    what_a_role_may_not_do_is_refused_with_the_same_code: Friends(2),
    a_ticket_with_another_id_leads_nowhere: Friends(2),
    garbage_that_strangers_throw_at_a_node_is_nobodys_fault: Friends(2),
    what_is_urgent_overtakes_a_backlog: Friends(2),
    sixty_four_nodes_around_one_end_with_the_same: Friends(65),
    members_of_two_formations_refuse_each_other: Formations(&[1, 2]),
    members_of_one_formation_need_no_invitation: Formations(&[1, 1]),
    a_caller_of_a_later_version_is_told_that_there_is_none_in_common: Called(2),
    a_caller_without_a_protocol_in_common_gets_no_connection: Friends(2),
}

crate::over_pairs! {
    plain
    who_is_not_invited_is_refused_on_both_sides_and_gets_nothing,
}

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Sync, edits by either side, a large document, deletion, a lost link and the way back.
fn two_nodes_live_a_day_together(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    for n in 0..50 {
        stage.put(a, &format!("notes:a{n}"), json!({"n": n, "of": "a"}));
        stage.put(b, &format!("notes:b{n}"), json!({"n": n, "of": "b"}));
    }
    let large = json!({"text": noise(1, 3 << 20)});
    stage.put(a, "notes:large", large.clone());
    stage.join(b, a);
    stage.await_level(b, a);
    assert_eq!(stage.listed(a).len(), 101);
    assert_eq!(stage.listed(a), stage.listed(b));
    assert_eq!(stage.get(b, "notes:large"), Some(large));

    // An edit of either side, dialling or dialled, reaches the other.
    stage.put(a, "notes:a0", json!({"edited": "by a"}));
    stage.await_value(b, "notes:a0", Some(&json!({"edited": "by a"})));
    stage.put(b, "notes:a0", json!({"edited": "by b"}));
    stage.await_value(a, "notes:a0", Some(&json!({"edited": "by b"})));
    stage.put(b, "tracks:1", json!({"n": 1}));
    stage.await_value(a, "tracks:1", Some(&json!({"n": 1})));
    // Softly, by a field; and for good, by a marker.
    stage.delete(b, "notes:a1");
    stage.await_value(a, "notes:a1", None);
    stage.delete(a, "tracks:1");
    stage.await_value(b, "tracks:1", None);

    // The link goes, both write on, the link comes back.
    stage.unplug(a);
    stage.put(a, "notes:a2", json!({"alone": "a"}));
    stage.put(b, "notes:b2", json!({"alone": "b"}));
    stage.plug(a);
    stage.await_value(b, "notes:a2", Some(&json!({"alone": "a"})));
    stage.await_value(a, "notes:b2", Some(&json!({"alone": "b"})));
    stage.await_level(b, a);
    assert_eq!(stage.listed(a), stage.listed(b));
    assert_eq!(stage.listed(a).len(), 100);
    // What is gone is said again; a marker has no answer.
    for (node, other) in [(a, b), (b, a)] {
        let outcomes = stage.compare(node, other);
        let (gone, there): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(name, _)| name == "tracks:1");
        assert_eq!(gone, [("tracks:1".to_owned(), SyncOutcome::Sent)]);
        assert!(there.len() == 101 && there.iter().all(|(_, it)| *it == SyncOutcome::Equal), "{there:?}");
    }
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

fn a_peer_that_comes_back_at_its_address_is_found_again(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.join(b, a);
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    stage.unplug(a);
    stage.put(a, "notes:1", json!({"n": 2}));
    stage.plug(a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 2})));
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// What the others remember leads nowhere; so it is the moved one that finds them.
fn a_peer_that_comes_back_elsewhere_is_met_again_by_its_own_dial(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.join(b, a);
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    stage.join(a, b);
    stage.unplug(a);
    stage.put(a, "notes:1", json!({"n": 2}));
    stage.plug_elsewhere(a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 2})));
    stage.put(b, "notes:2", json!({"n": 3}));
    stage.await_value(a, "notes:2", Some(&json!({"n": 3})));
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// Documents, and whom to stay connected with, whether the side that dials restarts or the one that is dialled.
fn two_that_restart_one_after_the_other_go_on_with_what_they_had(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.put(b, "tracks:1", json!({"n": 1}));
    stage.join(b, a);
    stage.await_level(b, a);
    stage.await_value(a, "tracks:1", Some(&json!({"n": 1})));
    stage.delete(b, "tracks:1");
    stage.await_value(a, "tracks:1", None);
    for (round, (node, other)) in [(a, b), (b, a)].into_iter().enumerate() {
        let round = round + 2;
        let before = stage.listed(node);
        stage.unplug(node);
        stage.restart(node);
        assert_eq!(stage.listed(node), before);
        stage.put(node, &format!("notes:of-{node}"), json!({"alone": round}));
        stage.put(other, "notes:1", json!({"n": round}));
        stage.plug(node);
        stage.await_value(other, &format!("notes:of-{node}"), Some(&json!({"alone": round})));
        stage.await_value(node, "notes:1", Some(&json!({"n": round})));
        stage.await_level(b, a);
        assert_eq!(stage.listed(a), stage.listed(b));
    }
    assert_eq!(stage.listed(a).len(), 3);
    assert_eq!((stage.get(a, "tracks:1"), stage.get(b, "tracks:1")), (None, None));
    let equal = |name: &str| (name.to_owned(), SyncOutcome::Equal);
    for (node, other) in [(a, b), (b, a)] {
        let mut outcomes = stage.compare(node, other);
        outcomes.sort();
        let gone = ("tracks:1".to_owned(), SyncOutcome::Sent);
        assert_eq!(outcomes, [equal("notes:1"), equal("notes:of-0"), equal("notes:of-1"), gone]);
    }
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// It remembers where the other one is, and that it is wanted.
fn a_peer_that_restarts_elsewhere_is_met_again_by_its_own_dial(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.join(b, a);
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    stage.join(a, b);
    stage.await_level(a, b);
    stage.unplug(a);
    stage.restart(a);
    stage.put(a, "notes:1", json!({"n": 2}));
    stage.put(b, "notes:2", json!({"n": 3}));
    stage.plug_elsewhere(a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 2})));
    stage.await_value(a, "notes:2", Some(&json!({"n": 3})));
    stage.await_level(b, a);
    assert_eq!(stage.listed(a), stage.listed(b));
    assert_eq!(stage.listed(a).len(), 2);
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// The parent alone knows what its child may not do. Both settle, and say the same of each document from either side.
fn what_a_role_may_not_do_is_refused_with_the_same_code(stage: &mut dyn Stage) {
    let [parent, child] = [0, 1];
    let both = "[collections.orders]\ndirection = \"broadcast\"\nWRITE\n\
                [collections.cells]\ndirection = \"broadcast\"\ndeletion = \"tombstone\"\nDELETE\n";
    let strict = both.replace("WRITE", "write = [\"parent\"]").replace("DELETE", "delete = [\"parent\"]");
    let lax = both.replace("WRITE", "").replace("DELETE", "");
    for (node, others, collections) in [(parent, "child", strict), (child, "parent", lax)] {
        let rules = Rules::parse(&format!("[hierarchy]\nothers = \"{others}\"\n{collections}"));
        stage.govern(node, rules.expect("a policy"));
    }
    stage.put(parent, "cells:1", json!({"n": 1}));
    stage.put(parent, "orders:down", json!({"n": 1}));
    stage.join(child, parent);
    stage.await_value(child, "cells:1", Some(&json!({"n": 1})));
    stage.await_value(child, "orders:down", Some(&json!({"n": 1})));
    stage.await_level(child, parent);

    stage.put(child, "orders:up", json!({"n": 2}));
    stage.delete(child, "cells:1");
    stage.put(child, "notes:up", json!({"n": 2}));
    stage.await_value(parent, "notes:up", Some(&json!({"n": 2})));
    stage.await_level(child, parent);
    stage.await_level(parent, child);
    assert_eq!((stage.get(parent, "orders:up"), stage.get(parent, "cells:1")), (None, Some(json!({"n": 1}))));
    assert_eq!((stage.get(child, "orders:up"), stage.get(child, "cells:1")), (Some(json!({"n": 2})), None));
    assert_eq!((stage.stats(parent).declined, stage.stats(child).declined), (0, 2));

    let refused = Refusal::NotAllowed;
    assert_eq!(refused.code(), 10);
    let outcome = |name: &str, outcome| (name.to_owned(), outcome);
    let [equal, not_allowed] = [SyncOutcome::Equal, SyncOutcome::Refused(refused)];
    let both = [outcome("notes:up", equal), outcome("orders:down", equal)];
    // A marker is said again, and has no answer.
    let own = [&[outcome("cells:1", SyncOutcome::Sent)], &both[..], &[outcome("orders:up", not_allowed)]].concat();
    let theirs = [&[outcome("cells:1", not_allowed)], &both[..]].concat();
    for (node, other, expected) in [(child, parent, own), (parent, child, theirs)] {
        let mut outcomes = stage.compare(node, other);
        outcomes.sort();
        assert_eq!(outcomes, expected);
    }
    assert_eq!((stage.faults(parent), stage.faults(child)), ([0; 8], [0; 8]));
}

/// Meanwhile the right one works, over the same address.
fn a_ticket_with_another_id_leads_nowhere(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.seek_nobody(b, a);
    assert_eq!(stage.get(b, "notes:1"), None);
    assert!(stage.stats(a).peers.is_empty() && stage.stats(b).peers.is_empty());
    stage.join(b, a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    assert_eq!(stage.peers(b), [a]);
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// Peers are served through it, over the connection that they had.
fn garbage_that_strangers_throw_at_a_node_is_nobodys_fault(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.join(b, a);
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    let conns = |stats: Stats| stats.peers.iter().map(|it| it.conn).collect::<Vec<_>>();
    let before = [a, b].map(|node| conns(stage.stats(node)));
    stage.pelt(a);
    stage.put(b, "notes:1", json!({"n": 2}));
    stage.await_value(a, "notes:1", Some(&json!({"n": 2})));
    stage.pelt(a);
    stage.put(a, "notes:1", json!({"n": 3}));
    stage.await_value(b, "notes:1", Some(&json!({"n": 3})));
    assert_eq!([a, b].map(|node| conns(stage.stats(node))), before);
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// A command is there while large documents of the least class are still on their way.
fn what_is_urgent_overtakes_a_backlog(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.join(b, a);
    stage.put(b, "notes:first", json!({"n": 0}));
    stage.await_value(a, "notes:first", Some(&json!({"n": 0})));
    stage.unplug(a);
    let bulk: Vec<String> = (0..16).map(|n| format!("notes:bulk{n}")).collect();
    for (n, name) in bulk.iter().enumerate() {
        stage.put(a, name, json!({"text": noise(n as u64, 256 << 10)}));
    }
    stage.put(a, "commands:now", json!({"go": true}));
    stage.plug(a);
    stage.await_value(b, "commands:now", Some(&json!({"go": true})));
    let behind = bulk.iter().filter(|name| stage.get(b, name).is_none()).count();
    assert!(behind >= bulk.len() / 2, "only {behind} of {} came later than the command", bulk.len());
    stage.await_level(b, a);
    assert_eq!(stage.listed(a), stage.listed(b));
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

/// Letters that do not compress much: ten of each number that is drawn.
fn noise(seed: u64, len: usize) -> String {
    let mut rng = Rng::new([seed as u8; 32]);
    let letters = |word: u64| (0..10).map(move |at| char::from(b'0' + (word >> (6 * at)) as u8 % 64));
    (0..=len / 10).flat_map(|_| letters(rng.draw())).take(len).collect()
}

fn sixty_four_nodes_around_one_end_with_the_same(stage: &mut dyn Stage) {
    for leaf in 1..=64 {
        stage.put(leaf, &format!("notes:{leaf}"), json!({"n": leaf}));
        stage.join(leaf, 0);
    }
    for n in 1..=64 {
        stage.await_value(0, &format!("notes:{n}"), Some(&json!({"n": n})));
    }
    stage.put(0, "notes:last", json!({"all": true}));
    for leaf in 1..=64 {
        stage.await_value(leaf, "notes:last", Some(&json!({"all": true})));
        (1..=64).for_each(|n| stage.await_value(leaf, &format!("notes:{n}"), Some(&json!({"n": n}))));
        assert_eq!(stage.faults(leaf), [0; 8]);
    }
    assert_eq!(stage.faults(0), [0; 8]);
}

/// The secrets differ, and so neither can prove anything to the other.
fn members_of_two_formations_refuse_each_other(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.put(a, "notes:1", json!({"secret": true}));
    stage.join(b, a);
    assert_eq!(stage.await_refusal(b, a), CloseCode::NotAdmitted.code());
    assert_eq!(stage.listed(b), []);
    assert_eq!(stage.faults(b), [0; 8], "a refusal is no fault of the other side");
    let closed = stage.stats(a).closed;
    assert!(closed > 0 && stage.faults(a).iter().sum::<u64>() == closed, "{:?}", stage.faults(a));
}

fn members_of_one_formation_need_no_invitation(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    stage.put(a, "notes:1", json!({"secret": true}));
    stage.join(b, a);
    stage.await_value(b, "notes:1", Some(&json!({"secret": true})));
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

fn a_caller_of_a_later_version_is_told_that_there_is_none_in_common(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    assert_eq!(stage.call(a, &Wire::ALL), Some(CloseCode::Version.code()));
    let closed = stage.stats(a).closed;
    assert!(closed > 0 && stage.faults(a).iter().sum::<u64>() == closed, "{:?}", stage.faults(a));
    // Friends are served all the same.
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.join(b, a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    assert_eq!(stage.faults(b)[..5], [0; 5]);
}

/// The nodes speak our own wire only.
fn a_caller_without_a_protocol_in_common_gets_no_connection(stage: &mut dyn Stage) {
    let [a, b] = [0, 1];
    assert_eq!(stage.call(a, &[Wire::V0]), None);
    assert!(stage.stats(a).peers.is_empty());
    stage.put(a, "notes:1", json!({"n": 1}));
    stage.join(b, a);
    stage.await_value(b, "notes:1", Some(&json!({"n": 1})));
    assert_eq!((stage.faults(a), stage.faults(b)), ([0; 8], [0; 8]));
}

fn serve(kind: Kind, node: &Node, listen: impl Into<SocketAddr>) -> Adapter {
    Adapter::spawn(kind, node.attach("test"), vec![listen.into()])
}

fn node() -> Node {
    Node::in_memory(Options::default())
}

fn put(node: &Node, name: &str, value: Value) {
    node.put(&doc(name), value).wait().expect("durable");
}

/// The documents that a node has.
fn listed(node: &Node) -> Vec<DocId> {
    node.list("").wait().expect("listed").into_iter().map(|it| it.doc).collect()
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
    use peat_node::proto::wire::v1::Hello;

    use super::*;

    crate::over_kinds! {
        a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document,
        a_peer_of_a_later_version_is_told_that_there_is_none_in_common,
        who_speaks_another_protocol_gets_no_connection,
    }

    async fn a_stranger_is_told_that_it_is_not_admitted_and_sees_no_document(kind: Kind) {
        let a = node();
        let at_a = Adapter::spawn(kind, a.attach("test"), vec![ANY.into()]);
        tokio::task::block_in_place(|| put(&a, "notes:1", json!({"secret": true})));
        let endpoint = side::bare(9).await;
        let connection = endpoint.connect(address(&a, &at_a), Wire::V1.alpn()).await.expect("anybody may knock");
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

    async fn a_peer_of_a_later_version_is_told_that_there_is_none_in_common(kind: Kind) {
        let a = node();
        let at_a = Adapter::spawn(kind, a.attach("test"), vec![ANY.into()]);
        let endpoint = side::bare(9).await;
        let connection = endpoint.connect(address(&a, &at_a), Wire::V1.alpn()).await.expect("anybody may knock");
        let later = Hello { least: 2, newest: 3, nonce: [1; 32], boot: 1, abilities: 0, largest: 1 << 20 };
        let mut stream = connection.open_uni().await.expect("a stream");
        stream.write_all(&later.frame()).await.expect("room");
        let closed = connection.closed().await;
        endpoint.close().await;
        let iroh::endpoint::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
        assert_eq!(close.error_code, CloseCode::Version.code().into());
        tokio::task::block_in_place(|| at_a.close_blocking());
    }

    async fn who_speaks_another_protocol_gets_no_connection(kind: Kind) {
        let a = node();
        let at_a = Adapter::spawn(kind, a.attach("test"), vec![ANY.into()]);
        let endpoint = side::bare(9).await;
        let refused = endpoint.connect(address(&a, &at_a), b"peat/sync/9").await;
        assert!(refused.is_err(), "there is no protocol in common");
        // The right one is served all the same.
        endpoint.connect(address(&a, &at_a), Wire::V1.alpn()).await.expect("anybody may knock");
        endpoint.close().await;
        tokio::task::block_in_place(|| at_a.close_blocking());
    }

    fn address(node: &Node, adapter: &Adapter) -> iroh::EndpointAddr {
        let id = iroh::EndpointId::from_bytes(node.id().as_bytes()).expect("a key");
        iroh::EndpointAddr::new(id).with_ip_addr(adapter.addrs()[0])
    }
}
