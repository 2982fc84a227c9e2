//! Bugs that were found and mended, each held down by its shortest scenario.
#![allow(clippy::disallowed_methods, reason = "documents made elsewhere have whatever actor they have")]

mod world;

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Author, Automerge, Change, ROOT};
use bytes::Bytes;
use peat_proto::wire::v1::{Body, EntriesBuilder, Entry, Word};
use peat_proto::{
    Config, ConnId, DocId, Event, Heads, Input, Invitation, Link, Output, Reason, Refusal, Role, StreamId, Wire,
};
use world::{World, peer};

fn doc() -> DocId {
    DocId::new("notes:1").expect("valid")
}

/// Two nodes that share `notes:1`, which is in memory on the first.
fn sharing() -> World {
    let mut world = World::open(2);
    world.put(0, "notes:1", "x", 1);
    world.connect(0, 1);
    world.pass(Duration::from_secs(30));
    world.assert_equal();
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Open { doc: doc() });
    world.run();
    world
}

/// The saved form of the first node's copy, with one more edit made elsewhere.
fn edited_elsewhere(world: &World) -> Bytes {
    let copy = world.hosts[0].node.doc(&doc()).expect("in memory").save();
    let mut other = Automerge::load(&copy).expect("our own");
    let mut tx = other.transaction();
    tx.put(ROOT, "imported", 1).expect("an edit");
    tx.commit();
    other.save().into()
}

fn change(base: Option<&[u8]>, actor: u8, key: &str) -> Change {
    let empty = Automerge::new();
    let mut other =
        base.map_or(empty, |base| Automerge::load(base).expect("our own")).with_actor(vec![actor; 16].into());
    let mut tx = other.transaction();
    tx.put(ROOT, key, 1).expect("an edit");
    tx.commit();
    other.get_last_local_change().expect("a change")
}

fn send(world: &mut World, conn: ConnId, stream: u64, changes: &[&Change]) {
    let word = Word {
        heads: Heads::new(changes.iter().map(|change| change.hash()).collect()),
        changes: changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect(),
        ..Word::default()
    };
    let mut frame = EntriesBuilder::new(1 << 20);
    assert!(frame.push(&Entry { doc: doc(), body: Body::Word(word) }));
    let bytes = frame.frame();
    let stream = StreamId::new((1 << 40) + stream, Role::Dialled, false);
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Received { conn, stream, bytes, fin: true });
}

#[test]
fn an_edit_behind_an_import_in_one_drain_becomes_durable_and_leaves() {
    let mut world = sharing();
    let changes = edited_elsewhere(&world);
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Change { doc: doc(), changes });
    world.hosts[0].node.edit(now, &doc(), |tx| tx.put(ROOT, "x", 2)).expect("an edit");
    let last = world.hosts[0].node.last_edit();
    world.pass(Duration::from_secs(60));
    let durable = |event: &Event| matches!(event, Event::Durable { edit, .. } if *edit >= last);
    assert!(world.hosts[0].events.iter().any(durable), "{:?}", world.hosts[0].events);
    assert_eq!(world.get(1, "notes:1", "x"), Some(2));
}

#[test]
fn an_import_on_top_of_an_edit_that_is_not_durable_waits_for_it() {
    let mut world = sharing();
    let now = world.now;
    world.hosts[0].node.edit(now, &doc(), |tx| tx.put(ROOT, "x", 2)).expect("an edit");
    world.drain(0);
    let changes = edited_elsewhere(&world);
    world.crossings.clear();
    world.hosts[0].node.handle(now, Input::Change { doc: doc(), changes });
    world.drain(0);
    assert!(world.crossings.is_empty(), "nothing leaves before it is durable: {:?}", world.crossings);
    world.pass(Duration::from_secs(60));
    world.assert_equal();
    assert_eq!(world.hosts[0].node.documents("")[0].heads.len(), 1, "the edit lies behind the import");
    world.hosts[0].node.check().expect("sound");
}

#[test]
fn changes_that_contradict_each_other_leave_the_key_usable() {
    let mut world = World::open(2);
    let (conn, _) = world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    let author = Author::from(b"someone".to_vec());
    let mut one = Automerge::new().with_author(Some(author));
    let mut tx = one.transaction();
    tx.put(ROOT, "x", 1).expect("an edit");
    tx.commit();
    let first = one.get_last_local_change().expect("a change");
    let mut two = Automerge::load(&one.save()).expect("our own").with_actor(one.get_actor().clone());
    let mut tx = two.transaction();
    tx.put(ROOT, "x", 2).expect("an edit");
    tx.commit();
    let mut again = two.get_last_local_change().expect("a change").decode();
    again.extra_bytes = first.extra_bytes().to_vec();
    send(&mut world, conn, 0, &[&first, &Change::from(again)]);
    world.run();
    send(&mut world, conn, 1, &[&change(None, 9, "good")]);
    world.run();
    let now = world.now;
    world.hosts[0].node.edit(now, &doc(), |tx| tx.put(ROOT, "y", 1)).expect("the document is not stuck");
    world.pass(Duration::from_secs(60));
    assert_eq!(world.hosts[0].node.stats().undurable_bytes, 0, "nothing is counted for ever");
    world.hosts[0].node.check().expect("sound");
}

#[test]
fn one_source_of_bad_changes_does_not_cost_another_its_good_ones() {
    let mut world = World::open(3);
    world.put(0, "notes:1", "x", 1);
    world.run();
    let (good, _) = world.connect(0, 1);
    let (bad, _) = world.connect(0, 2);
    world.pass(Duration::from_secs(30));
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Open { doc: doc() });
    world.run();
    let base = world.hosts[0].node.doc(&doc()).expect("in memory").save();
    world.hosts[0].events.clear();
    send(&mut world, good, 0, &[&change(Some(&base), 1, "good")]);
    send(&mut world, bad, 1, &[&change(Some(&base), 2, "bad"), &change(Some(&base), 2, "worse")]);
    world.run();
    assert_eq!(world.get(0, "notes:1", "good"), Some(1));
    let refused = Event::Refused { peer: peer(2), doc: doc(), reason: Refusal::Invalid };
    assert!(world.hosts[0].events.contains(&refused), "{:?}", world.hosts[0].events);
    assert_eq!(world.hosts[0].node.stats().refused, 1);
}

#[test]
fn open_documents_do_not_keep_others_in_memory() {
    let mut config = Config::default();
    config.cache_bytes = 2 << 20;
    let mut world = World::new(1, &config);
    for n in 0..400 {
        world.put(0, &format!("notes:{n:04}"), "x", n);
        world.run();
    }
    for n in 0..64 {
        let doc = DocId::new(&format!("notes:{n:04}")).expect("valid");
        let now = world.now;
        world.hosts[0].node.handle(now, Input::Open { doc });
        world.run();
    }
    for n in 64..400 {
        world.get(0, &format!("notes:{n:04}"), "x");
        world.run();
    }
    let stats = world.hosts[0].node.stats();
    assert!(stats.cache_bytes <= 2 << 20, "{} bytes in {} documents", stats.cache_bytes, stats.loaded);
}

#[test]
fn a_peer_that_is_forgotten_while_it_is_admitted_stays_forgotten() {
    let mut config = Config::default();
    config.admission.invitations.push(Invitation([9; 32]));
    let mut world = World::new(2, &config);
    let now = world.now;
    world.hosts[1].node.handle(now, Input::Want { peer: peer(0), invitation: Some(Invitation([9; 32])) });
    world.connect(1, 0);
    while world.hosts[0].answers.is_empty() {
        (0..2).for_each(|n| world.drain(n));
        let next = world.wire.pop_front().expect("greetings and proofs");
        world.deliver(next);
        world.drain(0);
    }
    assert_eq!(world.hosts[0].answers.len(), 1, "the admission is being written");
    world.hosts[0].node.handle(now, Input::Forget { peer: peer(1) });
    world.run();
    world.hosts[0].events.clear();
    world.connect(0, 1);
    world.pass(Duration::from_secs(2));
    let up = |event: &Event| matches!(event, Event::Up { .. });
    assert!(!world.hosts[0].events.iter().any(up), "{:?}", world.hosts[0].events);
}

#[test]
fn a_dial_that_finds_the_node_full_is_made_again() {
    let mut config = Config::default();
    config.admission.open = true;
    config.max_connections = 1;
    let mut world = World::new(2, &config);
    world.connect(0, 1);
    world.pass(Duration::from_secs(1));
    let now = world.now;
    let node = &mut world.hosts[0].node;
    node.handle(now, Input::Want { peer: peer(2), invitation: None });
    let dialled = std::iter::from_fn(|| node.poll()).any(|output| matches!(output, Output::Dial { .. }));
    assert!(dialled);
    let link = Link { role: Role::Dialled, wire: Wire::V1, reliable: true, binding: [0; 32], rtt: None };
    node.handle(now, Input::Connected { conn: ConnId(999), peer: peer(2), link });
    let refused = std::iter::from_fn(|| node.poll()).any(|output| matches!(output, Output::Disconnect { .. }));
    assert!(refused);
    assert_eq!(node.timeout_reason().map(|(_, reason)| reason), Some(Reason::Dial));
}

#[test]
fn a_frame_that_closes_its_connection_leaves_the_budget_true() {
    let mut world = World::open(3);
    let (slow, _) = world.connect(0, 1);
    let (bad, _) = world.connect(0, 2);
    world.pass(Duration::from_secs(1));
    // A frame of entries, of 1,000,000 bytes, and its first half.
    let mut part = vec![0xc1, 0x84, 0x3d, 0x10];
    part.extend(vec![1; 500_000]);
    let now = world.now;
    let node = &mut world.hosts[0].node;
    node.handle(
        now,
        Input::Received {
            conn: slow,
            stream: StreamId::new(1 << 41, Role::Dialled, false),
            bytes: part.into(),
            fin: false,
        },
    );
    let before = node.stats().receive_bytes;
    assert!(before >= 500_000);
    // A type that may not be skipped, and much behind it.
    let mut later = vec![11, 0x7f];
    later.extend(vec![0; 400_000]);
    node.handle(
        now,
        Input::Received {
            conn: bad,
            stream: StreamId::new(1 << 42, Role::Dialled, false),
            bytes: later.into(),
            fin: false,
        },
    );
    assert_eq!(node.stats().receive_bytes, before);
}
