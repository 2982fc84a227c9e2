//! Tombstones, directions, and what batches are passed on as.

use std::collections::BTreeSet;

use automerge::ROOT;
use automerge::transaction::Transactable;
use peat_proto::config::Auth;
use peat_proto::policy::Deletion;
use peat_proto::policy::kin::{Family, Kin};
use peat_proto::wire::v0::{
    Batch, BatchBuilder, Body, Entry, Label, MessageType, Tombstone, TombstoneBatch, TombstoneBatchBuilder,
};
use peat_proto::{ConnId, Event, Input, Marker, PeerId, Refusal, Role, Spread, Text};

use crate::SECOND;
use crate::fielded::*;

#[test]
fn deletions_reach_every_peer_once_as_a_marker_of_their_own() {
    let mut stage = Stage::serving();
    let mut peer = Fielded::default();
    stage.put("tracks:1", "x", 1);
    stage.converse(&mut peer, |_| true);
    stage.delete("tracks:1", Some("dup"));
    let frames = stage.take_frames();
    let [tombstone] = frames.as_slice() else { panic!("one frame, not {}", frames.len()) };
    assert_eq!((tombstone.kind, tombstone.key.as_str()), (MessageType::Tombstone, "tombstones:tracks:1"));
    let said = Tombstone::take(&mut tombstone.payload.clone()).expect("a good tombstone");
    assert_eq!(said.reason.as_ref().map(Text::as_str), Some("dup"));
    assert_eq!(said.by.as_ref().map(|by| by.as_str().to_owned()), Some(NODE.to_string()));
    // A new peer is told of it when it connects, in a batch, and of nothing else.
    stage.input(Input::Disconnected { conn: CONN, code: None });
    stage.connect(ConnId(2), Role::Accepted);
    let frames = stage.take_frames();
    let [batch] = frames.as_slice() else { panic!("one frame, not {}", frames.len()) };
    assert_eq!((batch.kind, batch.key.as_str()), (MessageType::Tombstones, "tombstones:batch"));
    // The same set comes back every five seconds: nothing follows.
    for _ in 0..20 {
        stage.feed(&frame(Label::Tombstones, &batch.payload));
        stage.pass(5 * SECOND);
    }
    assert!(stage.take_frames().is_empty());
}

fn tombstone(name: &str, lamport: u64, spread: Spread) -> Tombstone {
    let marker = Marker {
        incarnation: 0,
        lamport,
        by: Text::new("node-a").expect("a short name"),
        at_ms: u64::MAX,
        reason: None,
        spread,
    };
    Tombstone::of(&doc(name), &marker)
}

#[test]
fn del_3_and_del_5_a_marker_is_taken_however_it_comes_and_the_greatest_stands() {
    let singles = |stage: &mut Stage, it: &Tombstone| {
        stage.feed(&it.frame());
    };
    let batched = |stage: &mut Stage, it: &Tombstone| {
        let mut batch = TombstoneBatchBuilder::new(4096);
        assert!(batch.push(it));
        stage.feed(&batch.frame());
    };
    let entry = |stage: &mut Stage, it: &Tombstone| {
        let mut batch = BatchBuilder::new(1, 2, 5, 4096);
        assert!(batch.push(&Entry::Tombstone(it.clone())));
        stage.feed(&batch.frame());
    };
    for way in [&singles as &dyn Fn(&mut Stage, &Tombstone), &batched, &entry] {
        let mut stage = Stage::serving();
        stage.put("tracks:1", "x", 1);
        stage.pass(SECOND);
        for (lamport, stands) in [(5, 5), (3, 5), (9, 9), (9, 9)] {
            way(&mut stage, &tombstone("tracks:1", lamport, Spread::SystemWide));
            let deleted = stage.node.deleted("");
            let [(_, Some(marker))] = deleted.as_slice() else { panic!("one marker: {deleted:?}") };
            assert_eq!((marker.lamport, marker.spread), (stands, Spread::SystemWide));
        }
        assert_eq!(stage.names(), [""; 0]);
        assert_eq!(stage.node.stats().legacy.tombstones_received, 4);
        assert_eq!(stage.node.stats().markers_received, 2);
    }
}

#[test]
fn del_2_and_del_4_what_is_deleted_is_refused_answered_with_the_marker_and_never_offered() {
    let mut stage = Stage::serving();
    stage.put("tracks:1", "x", 1);
    stage.pass(SECOND);
    stage.delete("tracks:1", None);
    stage.pass(SECOND);
    stage.take_frames();
    let mut peer = Fielded::default();
    peer.put("tracks:1", "x", 2);
    let saved = peer.docs.get_mut("tracks:1").expect("it is there").save();
    stage.feed(&frame(Label::Snapshot(&doc("tracks:1")), &saved));
    stage.feed(&peer.poll("tracks:1").expect("an opening"));
    assert_eq!(stage.names(), [""; 0]);
    let refusals = stage.events.iter().filter(|event| matches!(event, Event::Refused { reason: Refusal::Deleted, .. }));
    assert_eq!(refusals.count(), 1, "the snapshot");
    let frames = stage.take_frames();
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame.kind == MessageType::Tombstone));
}

#[test]
fn auth_4_what_may_not_be_deleted_from_remote_is_not() {
    let mut stage = Stage::serving();
    for name in ["certificates:1", "revocations:1"] {
        stage.put(name, "x", 1);
        stage.feed(&tombstone(name, 1, Spread::SystemWide).frame());
    }
    assert_eq!(stage.names(), ["certificates:1", "revocations:1"]);
    let refused =
        stage.events.iter().filter(|event| matches!(event, Event::Refused { reason: Refusal::NotAllowed, .. }));
    assert_eq!(refused.count(), 2);
}

#[test]
fn route_3_and_auth_3_directions_hold_for_what_is_sent_and_for_what_is_taken() {
    // Direction of `commands` is down, of `nodes` up, of `notes` everywhere.
    for (kin, sent, taken) in [
        (Kin::Parent, ["nodes:own", "notes:own"], ["commands:it", "notes:it"]),
        (Kin::Child, ["commands:own", "notes:own"], ["nodes:it", "notes:it"]),
    ] {
        let mut config = config(Auth::Admission);
        config.family = Family { kin: [(PEER, kin)].into(), others: Kin::Other };
        let mut stage = Stage::serving_with(config);
        for collection in ["commands", "nodes", "notes"] {
            stage.put(&format!("{collection}:own"), "x", 1);
            let name = format!("{collection}:it");
            stage.feed(&frame(Label::Snapshot(&doc(&name)), &Fielded::default_with(&name, 2)));
        }
        stage.pass(SECOND);
        let said: BTreeSet<String> = stage.take_frames().iter().flat_map(contents).map(|(_, name, _)| name).collect();
        assert!(said.iter().filter(|name| name.ends_with("own")).eq(sent.iter()), "to a {kin:?}: {said:?}");
        let names: BTreeSet<String> = stage.names().into_iter().filter(|name| name.ends_with("it")).collect();
        assert!(names.iter().eq(taken.iter()), "from a {kin:?}: {names:?}");
    }
}

#[test]
fn route_2_batches_are_numbered_by_boot_and_what_is_passed_on_has_one_hop_less() {
    let other = PeerId([7; 32]);
    let mut stage = Stage::serving();
    stage.input(Input::Connected { conn: ConnId(2), peer: other, link: link(Role::Accepted) });
    stage.pass(SECOND);
    stage.sent.clear();
    for (ttl, passed) in [(5, 4), (1, 0), (0, 0)] {
        let name = format!("notes:{ttl}");
        let mut batch = BatchBuilder::new(77, 1, ttl, 4096);
        let body = Body::Snapshot(Fielded::default_with(&name, 1).into());
        assert!(batch.push(&Entry::Document { doc: doc(&name), body }));
        stage.feed(&batch.frame());
        assert_eq!(stage.get(&name, "x"), Some(1), "applied whatever the hops");
        let frames = stage.take_frames();
        let batches = frames.iter().filter(|frame| frame.kind == MessageType::Batch);
        let batches: Vec<_> = batches.map(|frame| Batch::decode(frame.payload.clone()).expect("good")).collect();
        let [batch] = batches.as_slice() else { panic!("one batch, not {}", batches.len()) };
        assert_eq!((batch.ttl, batch.id >> 32), (passed, 1));
        assert_ne!(batch.id, 77, "our own state in a batch of ours");
        stage.pass(SECOND);
        stage.sent.clear();
    }
}

#[test]
fn route_2_tombstones_and_large_documents_are_passed_on_in_batches_too() {
    let mut stage = Stage::serving();
    stage.input(Input::Connected { conn: ConnId(2), peer: PeerId([7; 32]), link: link(Role::Accepted) });
    stage.put("tracks:dead", "x", 1);
    stage.pass(SECOND);
    stage.sent.clear();
    let mut large = automerge::AutoCommit::new();
    let noise: Vec<u8> = (0_u32..60_000).flat_map(|n| noise_of(n).to_be_bytes()).collect();
    large.put(ROOT, "x", automerge::ScalarValue::Bytes(noise)).expect("a put to the root");
    let large = large.save();
    assert!(large.len() > 200_000, "it compresses to {} bytes", large.len());
    let mut batch = BatchBuilder::new(77, 1, 5, 1 << 20);
    let small = |name| Fielded::default_with(name, 1);
    for (name, saved) in [("tracks:a", small("tracks:a")), ("tracks:large", large), ("tracks:z", small("tracks:z"))] {
        assert!(batch.push(&Entry::Document { doc: doc(name), body: Body::Snapshot(saved.into()) }));
    }
    assert!(batch.push(&Entry::Tombstone(tombstone("tracks:dead", 5, Spread::Bidirectional))));
    stage.feed(&batch.frame());
    let mut passed = BTreeSet::new();
    for frame in stage.take_frames() {
        let said = contents(&frame);
        let news = said.iter().filter(|(kind, ..)| *kind != MessageType::Delta);
        let news: Vec<String> = news.map(|(kind, name, _)| format!("{kind:?} {name}")).collect();
        if !news.is_empty() {
            assert_eq!(frame.kind, MessageType::Batch, "{news:?}");
            assert_eq!(Batch::decode(frame.payload.clone()).expect("a good batch").ttl, 4);
        }
        passed.extend(news);
    }
    let all = ["Snapshot tracks:a", "Snapshot tracks:large", "Snapshot tracks:z", "Tombstone "];
    assert!(passed.iter().eq(all.iter()), "{passed:?}");
}

/// Bytes that do not compress.
fn noise_of(n: u32) -> u32 {
    let mixed = u64::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

#[test]
fn a_tombstone_says_the_direction_that_fielded_peers_give_it_and_goes_where_its_collection_does() {
    for (collection, kin, says) in [
        ("nodes", Kin::Parent, Spread::Bidirectional),
        ("tracks", Kin::Sibling, Spread::Bidirectional),
        ("cells", Kin::Sibling, Spread::Upward),
        ("contact_reports", Kin::Sibling, Spread::Upward),
        ("contact-reports", Kin::Parent, Spread::Upward),
        ("commands", Kin::Child, Spread::Downward),
    ] {
        let mut config = config(Auth::Admission);
        let mut policy = config.policy.of_collection(collection);
        policy.deletion = Deletion::Tombstone { retention: SECOND };
        config.policy.set(collection, policy);
        config.family = Family { kin: [(PEER, kin)].into(), others: Kin::Other };
        let mut stage = Stage::serving_with(config);
        let name = format!("{collection}:1");
        stage.put(&name, "x", 1);
        stage.pass(SECOND);
        stage.take_frames();
        stage.delete(&name, None);
        let said: Vec<_> = stage.take_frames().iter().flat_map(contents).collect();
        let [(MessageType::Tombstone, _, payload)] = said.as_slice() else { panic!("{collection}: {said:?}") };
        let said = Tombstone::take(&mut payload.clone()).expect("a good tombstone");
        assert_eq!(said.spread, says, "{collection}");
        // Read back, it says no more than that.
        assert_eq!(said.marker().spread, Spread::Bidirectional, "{collection}");
    }
    let rare = tombstone("nodes:1", 1, Spread::Downward);
    assert_eq!(rare.marker().spread, Spread::Downward, "what is unusual is meant");
}

#[test]
fn what_may_flow_in_a_new_place_in_the_hierarchy_flows() {
    let mut config = config(Auth::Admission);
    config.family = Family { kin: [(PEER, Kin::Sibling)].into(), others: Kin::Other };
    let mut stage = Stage::serving_with(config);
    let mut peer = Fielded::default();
    stage.put("nodes:1", "x", 1);
    stage.put("nodes:dead", "x", 1);
    stage.delete("nodes:dead", None);
    // The peer has another version of one of them: an exchange that comes to nothing.
    peer.put("nodes:1", "y", 1);
    stage.feed(&peer.poll("nodes:1").expect("an opening"));
    stage.pass(600 * SECOND);
    stage.take_frames();
    let family = Family { kin: [(PEER, Kin::Parent)].into(), others: Kin::Other };
    stage.input(Input::Family(family));
    let crossed = stage.converse(&mut peer, |_| true);
    assert!(crossed < 20, "{crossed} messages: it has an answer to everything, for its own change is not taken");
    assert_eq!(peer.get("nodes:1", "x"), Some(1));
    assert!(peer.markers.contains("nodes:dead"));
}

#[test]
fn the_answer_to_what_came_in_a_batch_goes_to_its_sender_as_any_other() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    peer.put("notes:1", "x", 1);
    let opening = decode(&peer.poll("notes:1").expect("news"));
    let mut batch = BatchBuilder::new(77, 1, 5, 4096);
    assert!(batch.push(&Entry::Document { doc: doc("notes:1"), body: Body::Delta(opening.payload) }));
    stage.feed(&batch.frame());
    let frames = stage.take_frames();
    assert!(matches!(&*frames, [frame] if frame.kind == MessageType::Delta), "{frames:?}");
}

/// Whoever asked about a deleted document was told of its deletion, wherever deletions of its collection go.
#[test]
fn a_deletion_is_told_to_nobody_whom_its_direction_leaves_out() {
    let mut config = config(Auth::Admission);
    let mut policy = config.policy.of_collection("nodes");
    policy.deletion = Deletion::Tombstone { retention: SECOND };
    config.policy.set("nodes", policy);
    config.family = Family { kin: [(PEER, Kin::Child)].into(), others: Kin::Other };
    let mut stage = Stage::serving_with(config);
    let mut peer = Fielded::default();
    peer.put("nodes:1", "y", 1);
    stage.put("nodes:1", "x", 1);
    stage.delete("nodes:1", None);
    stage.feed(&tombstone("nodes:1", 0, Spread::Bidirectional).frame());
    let mut answers = 0;
    for _ in 0..20 {
        stage.feed(&peer.poll("nodes:1").expect("it has something to say"));
        // An echo: it has an answer to every word.
        stage.converse(&mut peer, |frame| {
            assert_eq!(frame.kind, MessageType::Delta, "{frame:?}");
            answers += 1;
            true
        });
        stage.pass(5 * SECOND);
        peer.states.clear();
    }
    assert!((20..=20 * 6).contains(&answers), "{answers} answers to 20 polls");
    assert_eq!(stage.names(), [""; 0]);
    assert!(peer.markers.is_empty());
}

/// A batch of more markers than there is room for exchanges was passed on in part.
#[test]
fn a_flood_of_deletions_is_passed_on_to_the_last() {
    let mut config = config(Auth::Admission);
    config.max_exchanges = 8;
    let mut stage = Stage::serving_with(config);
    stage.input(Input::Connected { conn: ConnId(2), peer: PeerId([7; 32]), link: link(Role::Accepted) });
    stage.pass(SECOND);
    stage.sent.clear();
    let mut batch = TombstoneBatchBuilder::new(1 << 20);
    for n in 0..500 {
        assert!(batch.push(&tombstone(&format!("tracks:{n}"), 1, Spread::Bidirectional)));
    }
    stage.feed(&batch.frame());
    stage.pass(20 * SECOND);
    let said = stage.take_frames();
    let mut told = BTreeSet::new();
    for frame in &said {
        match frame.kind {
            MessageType::Tombstone => {
                told.insert(Tombstone::take(&mut frame.payload.clone()).expect("good").doc().expect("a name"));
            }
            MessageType::Tombstones => {
                let batch = TombstoneBatch::decode(frame.payload.clone()).expect("good");
                told.extend(batch.elements().map(|it| it.expect("good").doc().expect("a name")));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.len(), 500);
}

#[test]
fn a_marker_is_passed_on_by_its_direction_and_not_to_whom_it_came_from() {
    let third = PeerId([7; 32]);
    let all = [
        (Kin::Parent, Spread::Upward, true),
        (Kin::Child, Spread::Upward, false),
        (Kin::Child, Spread::Downward, true),
        (Kin::Parent, Spread::Downward, false),
        (Kin::Sibling, Spread::Bidirectional, true),
        (Kin::Child, Spread::SystemWide, true),
    ];
    for ((kin, spread, passes), batched) in all.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut config = config(Auth::Admission);
        let mut policy = config.policy.of_collection("notes");
        policy.deletion = Deletion::Tombstone { retention: SECOND };
        config.policy.set("notes", policy);
        config.family = Family { kin: [(third, kin)].into(), others: Kin::Other };
        let mut stage = Stage::serving_with(config);
        stage.input(Input::Connected { conn: ConnId(2), peer: third, link: link(Role::Accepted) });
        stage.put("notes:1", "x", 1);
        stage.pass(SECOND);
        stage.addressed.clear();
        let marker = tombstone("notes:1", 5, spread);
        if batched {
            let mut batch = TombstoneBatchBuilder::new(4096);
            assert!(batch.push(&marker));
            stage.feed(&batch.frame());
        } else {
            stage.feed(&marker.frame());
        }
        stage.pass(SECOND);
        let told: Vec<ConnId> =
            stage.addressed.iter().filter(|(_, bytes)| bytes.len() > 9).map(|(to, _)| *to).collect();
        let expected: &[ConnId] = if passes { &[ConnId(2)] } else { &[] };
        assert_eq!(told, expected, "{spread:?} to a {kin:?}, batched: {batched}");
        assert_eq!(stage.names(), [""; 0]);
    }
}
