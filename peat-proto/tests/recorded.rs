//! What people really typed, through two nodes.

mod world;

use std::io::Read;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Change, ChangeHash, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use peat_proto::wire::v1::{Assembler, Body, Caps, Entries, Frame, Incoming, Kind, Packer};
use peat_proto::{DocId, Event, Input, Node};
use world::World;

const PAPER: &[u8] = include_bytes!("data/automerge-paper.automerge");
const FRIENDS: &[u8] = include_bytes!("data/friendsforever.json.gz");

fn doc() -> DocId {
    DocId::new("texts:1").expect("valid")
}

fn text(node: &Node, doc: &DocId, key: &str) -> String {
    let content = node.doc(doc).expect("in memory");
    let (_, object) = content.get(ROOT, key).expect("readable").expect("a text");
    content.text(object).expect("readable")
}

/// Keeps the document in memory on both sides.
fn hold(world: &mut World, doc: &DocId) {
    for n in 0..2 {
        let now = world.now;
        world.hosts[n].node.handle(now, Input::Open { doc: doc.clone() });
    }
    world.run();
}

#[test]
fn a_paper_of_260_thousand_changes_arrives_whole_and_its_next_edit_is_one_small_message() {
    let mut world = World::open(2);
    let doc = doc();
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Change { doc: doc.clone(), changes: Bytes::from_static(PAPER) });
    world.run();
    let imported = |event: &Event| matches!(event, Event::Imported { outcome: Ok(_), .. });
    assert!(world.hosts[0].events.iter().any(imported), "{:?}", world.hosts[0].events);
    world.connect(0, 1);
    world.pass(Duration::from_secs(60));
    world.assert_equal();
    hold(&mut world, &doc);
    let original = text(&world.hosts[0].node, &doc, "text");
    assert_eq!(original.chars().count(), 104_852);
    assert!(text(&world.hosts[1].node, &doc, "text") == original, "the texts differ");

    world.crossings.clear();
    let now = world.now;
    let edit = world.hosts[0].node.edit(now, &doc, |tx| {
        let (_, object) = tx.get(ROOT, "text")?.expect("a text");
        tx.splice_text(object, 100, 3, "Peat")
    });
    edit.expect("an edit");
    world.run();
    let sent: Vec<_> = world.crossings.iter().filter(|crossing| crossing.from == 0).collect();
    assert!(sent.len() == 1 && sent[0].bytes < 1024, "{sent:?}");
    assert!(text(&world.hosts[1].node, &doc, "text") == text(&world.hosts[0].node, &doc, "text"), "the texts differ");
}

/// The trace says which transactions each writer had seen before each of its own. A node must hold exactly those, so the
/// frames towards it are held back and released one by one.
#[test]
fn two_people_typing_concurrently_end_with_what_they_ended_with() {
    let mut json = String::new();
    flate2::read::GzDecoder::new(FRIENDS).read_to_string(&mut json).expect("a gzip file");
    let trace: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let transactions = trace["txns"].as_array().expect("transactions");
    assert_eq!(transactions.len(), 26_078);

    let mut world = World::open(2);
    let doc = doc();
    let now = world.now;
    world.hosts[0].node.edit(now, &doc, |tx| tx.put_object(ROOT, "text", ObjType::Text)).expect("an edit");
    world.run();
    world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    hold(&mut world, &doc);

    let mut hashes: Vec<ChangeHash> = Vec::new();
    let mut authors: Vec<usize> = Vec::new();
    for transaction in transactions {
        let agent = usize::try_from(transaction["agent"].as_u64().expect("an agent")).expect("small");
        for parent in transaction["parents"].as_array().expect("parents") {
            let parent = usize::try_from(parent.as_u64().expect("an index")).expect("small");
            if authors[parent] != agent {
                release(&mut world, agent, &doc, &hashes[parent]);
            }
        }
        let patches = transaction["patches"].as_array().expect("patches");
        let now = world.now;
        let node = &mut world.hosts[agent].node;
        let edit = node.edit(now, &doc, |tx| {
            let (_, object) = tx.get(ROOT, "text")?.expect("a text");
            patches.iter().try_for_each(|patch| {
                let at = usize::try_from(patch[0].as_u64().expect("a position")).expect("small");
                let deleted = isize::try_from(patch[1].as_i64().expect("a count")).expect("small");
                tx.splice_text(&object, at, deleted, patch[2].as_str().expect("a text"))
            })
        });
        edit.expect("an edit");
        let own = node.doc(&doc).expect("in memory").get_heads();
        assert_eq!(own.len(), 1, "an own transaction joins everything seen");
        hashes.push(own[0]);
        authors.push(agent);
        settle(&mut world, agent);
    }
    world.run();
    world.pass(Duration::from_secs(60));
    world.assert_equal();
    let expected = trace["endContent"].as_str().expect("a text");
    for host in &world.hosts {
        assert!(text(&host.node, &doc, "text") == expected, "the text is not what they ended with");
    }
}

/// Writes all that a node has to write, and puts what it has to say onto the wire, without delivering.
fn settle(world: &mut World, n: usize) {
    world.drain(n);
    while !world.hosts[n].answers.is_empty() {
        world.store(n);
        world.drain(n);
    }
}

/// Delivers frames to `to`, in order, up to the one that brings this change, and no further.
fn release(world: &mut World, to: usize, doc: &DocId, wanted: &ChangeHash) {
    let has =
        |world: &World| world.hosts[to].node.doc(doc).is_some_and(|doc| doc.get_change_meta_by_hash(wanted).is_some());
    while !has(world) {
        let next = world.wire.iter().position(|crossing| crossing.0 != to);
        let crossing = next.and_then(|at| world.wire.remove(at)).expect("the change is on its way");
        let brings = newest_of(&crossing.3) == Some(*wanted);
        world.deliver(crossing);
        if brings {
            settle(world, to);
        }
    }
}

/// The last change that a frame carries.
fn newest_of(frame: &Bytes) -> Option<ChangeHash> {
    let mut assembler = Assembler::new();
    assembler.push(frame.clone());
    let Ok(Some(Incoming::Frame(Frame { kind, body }))) = assembler.next(&Caps::PEER) else { return None };
    let entries = match kind {
        Kind::Entries => Entries::decode(body).expect("our own entries"),
        Kind::Packed => Packer::new().unpack(body).expect("our own entries"),
        _ => return None,
    };
    let changes = entries.each().filter_map(|entry| match entry.expect("our own entry").body {
        Body::Word(word) => word.changes.last().cloned(),
        Body::Saved(saved) => Some(saved.bytes),
        _ => None,
    });
    let change = Change::try_from(changes.last()?.as_ref()).expect("our own change");
    Some(change.hash())
}
