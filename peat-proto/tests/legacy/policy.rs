//! Every setting of the policy has an effect at once, on a node that runs.

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ScalarValue};
use peat_proto::config::Auth;
use peat_proto::policy::kin::{Family, Kin, Kins};
use peat_proto::policy::{Class, Deletion, Direction, Mode, Policy, Shares};
use peat_proto::wire::v0::{BatchBuilder, Body, Entry, Label, MessageType, Tombstone};
use peat_proto::{ConnId, Input, Lane, Marker, PeerId, Reason, Role, Spread, Text};

use crate::SECOND;
use crate::fielded::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A change of the policy of `notes`, what is looked at, and what is seen before and after.
struct Case {
    change: fn(&mut Policy),
    look: fn(&mut Stage) -> String,
    before: &'static str,
    after: &'static str,
}

/// What leaves when a document is written: type and lane.
fn written(stage: &mut Stage) -> String {
    stage.put("notes:seen", "x", 2);
    let sent: Vec<String> =
        stage.sent.iter().map(|(lane, frame)| format!("{:?} {lane:?}", decode(frame).kind)).collect();
    sent.join(", ")
}

/// What leaves when a document is deleted.
fn deleted(stage: &mut Stage) -> String {
    stage.delete("notes:seen", None);
    let frames = stage.take_frames();
    frames.iter().map(|frame| format!("{:?}", frame.kind)).collect()
}

/// What there is two hours after a document was deleted.
fn remembered(stage: &mut Stage) -> String {
    stage.delete("notes:seen", None);
    stage.pass(2 * HOUR);
    format!("{} markers", stage.node.stats().markers)
}

/// What there is after two hours.
fn left(stage: &mut Stage) -> String {
    stage.pass(2 * HOUR);
    stage.names().join(" ")
}

/// What becomes of a document that the peer sends.
fn taken(stage: &mut Stage) -> String {
    stage.feed(&frame(Label::Snapshot(&doc("notes:theirs")), &Fielded::default_with("notes:theirs", 1)));
    stage.names().join(" ")
}

/// What becomes of a document that the peer deletes.
fn buried(stage: &mut Stage) -> String {
    let by = Text::new("somebody").expect("a short name");
    let marker = Marker { incarnation: 0, lamport: 9, by, at_ms: 1, reason: None, spread: Spread::Bidirectional };
    stage.feed(&Tombstone::of(&doc("notes:seen"), &marker).frame());
    stage.names().join(" ")
}

#[test]
fn every_key_of_a_collection_has_an_effect_on_the_running_node() {
    let cases: [Case; 9] = [
        Case {
            change: |policy| policy.class = Class::Critical,
            look: written,
            before: "Delta Once(Bulk)",
            after: "Delta Once(Critical)",
        },
        Case {
            change: |policy| policy.mode = Mode::Latest,
            look: written,
            before: "Delta Once(Bulk)",
            after: "Snapshot Once(Bulk)",
        },
        Case {
            change: |policy| policy.mode = Mode::Windowed(60),
            look: written,
            before: "Delta Once(Bulk)",
            after: "Snapshot Once(Bulk)",
        },
        Case {
            change: |policy| policy.direction = Direction::Upward,
            look: written,
            before: "Delta Once(Bulk)",
            after: "",
        },
        Case {
            change: |policy| policy.deletion = Deletion::Tombstone { retention: HOUR },
            look: deleted,
            before: "Delta",
            after: "Tombstone",
        },
        Case {
            change: |policy| policy.deletion = Deletion::Soft { retention: HOUR },
            look: remembered,
            before: "0 markers",
            after: "1 markers",
        },
        Case { change: |policy| policy.ttl = Some(HOUR), look: left, before: "notes:seen", after: "" },
        Case {
            change: |policy| policy.write = Some(Kins::new(&[Kin::Parent])),
            look: taken,
            before: "notes:seen notes:theirs",
            after: "notes:seen",
        },
        Case { change: |policy| policy.delete = Some(Kins::NONE), look: buried, before: "", after: "notes:seen" },
    ];
    for (number, Case { change, look, before, after }) in cases.into_iter().enumerate() {
        for changed in [false, true] {
            let mut config = config(Auth::Admission);
            config.family = Family { kin: [(PEER, Kin::Child)].into(), others: Kin::Other };
            let (mut stage, mut peer) = (Stage::serving_with(config), Fielded::default());
            stage.put("notes:seen", "x", 1);
            stage.converse(&mut peer, |_| true);
            stage.pass(SECOND);
            if changed {
                let mut table = stage.node.policy().clone();
                let mut policy = table.of_collection("notes");
                change(&mut policy);
                table.set("notes", policy);
                stage.input(Input::Policy(Box::new(table)));
                stage.pass(SECOND);
            }
            stage.sent.clear();
            assert_eq!(look(&mut stage), if changed { after } else { before }, "case {number}, changed: {changed}");
        }
    }
}

#[test]
fn another_place_of_a_peer_has_an_effect_on_the_running_node() {
    let names = |stage: &mut Stage| {
        let said = stage.take_frames();
        let said = said.iter().flat_map(contents).map(|(_, name, _)| name);
        said.collect::<Vec<_>>().join(" ")
    };
    let mut stage = Stage::new(config(Auth::Admission));
    for collection in ["commands", "nodes", "cells"] {
        stage.put(&format!("{collection}:1"), "x", 1);
    }
    for (kin, flows) in [(Kin::Parent, "nodes:1"), (Kin::Child, "commands:1"), (Kin::Sibling, "cells:1")] {
        let family = Family { kin: [(PEER, kin)].into(), others: Kin::Other };
        stage.input(Input::Family(Family { kin: [(PEER, Kin::Other)].into(), others: Kin::Child }));
        stage.connect(ConnId(kin as u64 + 10), Role::Accepted);
        assert_eq!(names(&mut stage), "", "nothing but broadcasts goes to others");
        stage.input(Input::Family(family));
        assert_eq!(names(&mut stage), flows);
        stage.input(Input::Disconnected { conn: stage.conn, code: None });
    }
}

/// A saved document that does not compress, of about so many bytes.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mix = |n: u64| {
        (n.wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    let words = (1..=bytes as u64 / 4).flat_map(|n| ((mix(n) >> 29) as u32).to_be_bytes());
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "x", ScalarValue::Bytes(words.collect())).expect("a put to the root");
    doc.save()
}

#[test]
fn what_one_batch_brought_is_passed_on_in_the_order_of_the_classes() {
    let mut stage = Stage::serving();
    stage.input(Input::Connected { conn: ConnId(2), peer: PeerId([7; 32]), link: link(Role::Accepted) });
    stage.pass(SECOND);
    stage.sent.clear();
    let mut table = stage.node.policy().clone();
    for (collection, class) in ["e", "d", "c", "b", "a"].into_iter().zip(Class::ALL) {
        let mut policy = table.otherwise();
        (policy.class, policy.mode) = (class, Mode::Latest);
        table.set(collection, policy);
    }
    stage.input(Input::Policy(Box::new(table)));
    let mut batch = BatchBuilder::new(77, 1, 5, 1 << 20);
    for name in ["a:1", "c:1", "e:1", "b:1", "d:1", "a:2", "e:2"] {
        let body = Body::Snapshot(Fielded::default_with(name, 1).into());
        assert!(batch.push(&Entry::Document { doc: doc(name), body }));
    }
    stage.feed(&batch.frame());
    let passed: Vec<_> = stage.sent.iter().filter(|(_, bytes)| decode(bytes).kind == MessageType::Batch).collect();
    let lanes: Vec<Lane> = passed.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(lanes, Class::ALL.map(Lane::Once));
    let names = passed.iter().map(|(_, bytes)| contents(&decode(bytes)).len());
    assert_eq!(names.collect::<Vec<_>>(), [2, 1, 1, 1, 2]);
}

/// A change of policy walks over all documents three times to tell what the peer was not told; the node does other things
/// meanwhile.
#[test]
fn a_walk_over_documents_that_are_equal_leaves_time_to_others() {
    let mut stage = Stage::serving();
    stage.checks = false;
    let count = 4000;
    for batch in 0..count / 100 {
        let mut entries = BatchBuilder::new(batch, 1, 5, 1 << 20);
        for n in 0..100 {
            let doc = doc(&format!("notes:{}", 100 * batch + n));
            let body = Body::Snapshot(Fielded::default_with(doc.as_str(), 1).into());
            assert!(entries.push(&Entry::Document { doc, body }));
        }
        stage.feed(&entries.frame());
    }
    stage.pass(SECOND);
    let stats = stage.node.stats();
    assert_eq!((stats.documents, stats.peers[0].behind), (count, 0));
    stage.sent.clear();
    let mut table = stage.node.policy().clone();
    let mut policy = table.otherwise();
    policy.direction = Direction::Lateral;
    table.set("others", policy);
    stage.input(Input::Policy(Box::new(table)));
    let mut rests = 0;
    // Sets are made anew meanwhile, at the same pace.
    while let Some((due, Reason::Push(_) | Reason::Rebuild)) = stage.node.timeout_reason() {
        rests += 1;
        assert_eq!(due.since(stage.now.mono), Duration::from_millis(1));
        stage.now.mono = due;
        stage.input(Input::Timeout);
    }
    assert_eq!(rests, 3 * (count / 1024), "three stages");
    assert!(stage.sent.is_empty(), "nothing is told twice: {:?}", stage.sent);
}

#[test]
fn the_shares_that_are_set_are_kept_while_two_classes_wait() {
    let part = |shares: Option<[u8; 5]>| {
        let mut config = config(Auth::Admission);
        config.legacy.as_mut().expect("it is on").pushes_per_second = 10_000;
        let mut stage = Stage::new(config);
        let kinds = ["alerts", "notes"];
        for n in 0..60 {
            for (offset, kind) in kinds.iter().enumerate() {
                let name = format!("{kind}:{n:02}");
                let changes = noise(2 * n + offset as u64, 16 << 10).into();
                stage.input(Input::Change { doc: doc(&name), changes });
            }
        }
        stage.connect(CONN, Role::Accepted);
        let mut peer = Fielded::default();
        if let Some(shares) = shares {
            let mut table = stage.node.policy().clone();
            table.set_shares(Shares::new(shares).expect("they fit"));
            stage.input(Input::Policy(Box::new(table)));
        }
        // It asks for everything at once: more waits than leaves in one frame.
        let openings = stage.take_frames();
        let asked: Vec<_> = openings.iter().flat_map(|opening| peer.receive(opening)).collect();
        for question in asked {
            let (stream, now) = (stage.stream(), stage.now);
            stage.node.handle(now, Input::Received { conn: CONN, stream, bytes: question, fin: true });
        }
        stage.drain();
        // As long as both wait: until one of them has sent all of its megabyte.
        let mut sent = [0; 2];
        for (lane, frame) in &stage.sent {
            let Lane::Once(class) = lane else { continue };
            sent[usize::from(*class == Class::Bulk)] += frame.len();
            if sent.iter().any(|bytes| *bytes > 800 << 10) {
                break;
            }
        }
        assert!(sent.iter().sum::<usize>() > 800 << 10, "{sent:?}");
        sent[1] * 100 / sent.iter().sum::<usize>()
    };
    let fielded = part(None);
    assert!(fielded <= 15, "the least important of 40 to 2 got {fielded} %");
    let set = part(Some([10, 20, 20, 20, 30]));
    assert!((65..=80).contains(&set), "three quarters were set, {set} % went");
}

#[test]
fn the_push_at_connect_begins_with_the_most_urgent_class_and_in_it_with_the_cheap_mode() {
    let mut config = config(Auth::Admission);
    for (collection, class, mode) in [
        ("a_late", Class::Low, Mode::Full),
        ("b_late", Class::Low, Mode::Latest),
        ("c_soon", Class::High, Mode::Full),
        ("d_soon", Class::High, Mode::Windowed(60)),
    ] {
        let mut policy = config.policy.of_collection(collection);
        (policy.class, policy.mode) = (class, mode);
        config.policy.set(collection, policy);
    }
    let mut stage = Stage::new(config);
    for n in 0..3 {
        for collection in ["a_late", "b_late", "c_soon", "d_soon"] {
            stage.put(&format!("{collection}:{n}"), "x", n);
        }
    }
    stage.connect(CONN, Role::Accepted);
    stage.pass(SECOND);
    let mut order: Vec<String> = Vec::new();
    for (_, name, _) in stage.take_frames().iter().flat_map(contents) {
        let collection = name.split(':').next().expect("a collection").to_owned();
        if order.last() != Some(&collection) {
            order.push(collection);
        }
    }
    // Between classes the shares decide when the next begins.
    let first = |collection: &str| order.iter().position(|it| it == collection).expect("it is pushed");
    assert_eq!(first("d_soon"), 0, "{order:?}");
    assert!(first("d_soon") < first("c_soon") && first("b_late") < first("a_late"), "{order:?}");
}
