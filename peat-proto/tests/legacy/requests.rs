//! Synchronisation at the application's request.

use std::collections::BTreeMap;
use std::time::Duration;

use peat_proto::config::Auth;
use peat_proto::policy::Direction;
use peat_proto::policy::kin::{Family, Kin, Kins};
use peat_proto::wire::v0::{Label, MessageType};
use peat_proto::{Event, Input, PeerId, Refusal, Role, SyncId, SyncOutcome, SyncRequest, Which};

use crate::SECOND;
use crate::fielded::*;

fn request(stage: &mut Stage, id: u64, which: Which, peer: Option<PeerId>) {
    let request = SyncRequest { id: SyncId(id), which, peer, within: 60 * SECOND };
    stage.input(Input::SyncNow(request));
}

fn named(names: &[&str]) -> Which {
    Which::Documents(names.iter().map(|name| doc(name)).collect())
}

/// What a request came to so far, by document; each must have had one outcome.
fn outcomes(stage: &Stage, id: u64) -> BTreeMap<String, SyncOutcome> {
    let mut found = BTreeMap::new();
    for event in &stage.events {
        if let Event::Synced { sync: SyncId(of), peer, doc, outcome } = event
            && *of == id
        {
            assert_eq!(*peer, PEER);
            assert!(found.insert(doc.to_string(), *outcome).is_none(), "one outcome for {doc}");
        }
    }
    found
}

fn has_ended(stage: &Stage, id: u64) -> bool {
    stage.events.contains(&Event::SyncEnded { sync: SyncId(id) })
}

#[test]
fn a_document_that_both_have_is_asked_about_and_found_equal() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.converse_for(&mut peer, SECOND);
    stage.assert_equal(&mut peer, "notes:1");
    request(&mut stage, 1, named(&["notes:1"]), Some(PEER));
    assert!(!has_ended(&stage, 1), "the peer has not spoken");
    let crossed = stage.converse_for(&mut peer, SECOND);
    assert!((2..=4).contains(&crossed), "{crossed} messages");
    assert_eq!(outcomes(&stage, 1), BTreeMap::from([("notes:1".to_owned(), SyncOutcome::Equal)]));
    assert!(has_ended(&stage, 1));
}

#[test]
fn what_was_assumed_of_a_peer_is_forgotten_and_what_it_lost_is_sent_again() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.put("tracks:1", "x", 1);
    stage.converse_for(&mut peer, SECOND);
    peer = Fielded::default();
    assert_eq!(stage.converse_for(&mut peer, 60 * SECOND), 0, "nothing tells the node that the peer lost all");
    request(&mut stage, 1, Which::Prefix(String::new()), None);
    stage.converse_for(&mut peer, SECOND);
    assert_eq!((peer.get("notes:1", "x"), peer.get("tracks:1", "x")), (Some(1), Some(1)));
    assert!(outcomes(&stage, 1).values().all(|outcome| *outcome == SyncOutcome::Equal));
    assert!(has_ended(&stage, 1));
}

#[test]
fn the_cooldown_of_a_document_is_lifted() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.converse(&mut peer, |_| true);
    stage.put("notes:1", "x", 2);
    assert_eq!(stage.converse(&mut peer, |_| true), 0, "the second edit waits for its cooldown");
    request(&mut stage, 1, named(&["notes:1"]), Some(PEER));
    stage.converse(&mut peer, |_| true);
    assert_eq!(peer.get("notes:1", "x"), Some(2));
    assert!(has_ended(&stage, 1), "without time having passed");
}

#[test]
fn a_document_that_was_given_up_is_tried_again_and_what_nobody_answers_ends_unfinished() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.pass(60 * SECOND);
    assert_eq!(stage.node.stats().legacy.parked, 1);
    stage.sent.clear();
    request(&mut stage, 1, named(&["notes:1"]), Some(PEER));
    stage.pass(61 * SECOND);
    assert_eq!(outcomes(&stage, 1)["notes:1"], SyncOutcome::Unfinished);
    assert!(has_ended(&stage, 1));
    stage.sent.clear();
    request(&mut stage, 2, named(&["notes:1"]), Some(PEER));
    stage.converse_for(&mut peer, SECOND);
    assert_eq!(outcomes(&stage, 2)["notes:1"], SyncOutcome::Equal);
}

#[test]
fn each_document_gets_the_outcome_that_it_has() {
    let mut config = config(Auth::Admission);
    let mut upward = config.policy.of(&doc("up:1"));
    upward.direction = Direction::Upward;
    upward.write = Some(Kins::NONE);
    config.policy.set("up", upward);
    config.family = Family { kin: BTreeMap::from([(PEER, Kin::Child)]), ..Family::default() };
    let (mut stage, mut peer) = (Stage::serving_with(config), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.put("up:1", "x", 1);
    stage.put("tracks:gone", "x", 1);
    stage.converse_for(&mut peer, SECOND);
    stage.delete("tracks:gone", None);
    stage.converse_for(&mut peer, SECOND);
    request(&mut stage, 1, named(&["notes:1", "notes:none", "up:1", "tracks:gone"]), Some(PEER));
    stage.converse_for(&mut peer, SECOND);
    let found = outcomes(&stage, 1);
    assert_eq!(found["notes:1"], SyncOutcome::Equal);
    assert_eq!(found["notes:none"], SyncOutcome::Unknown);
    assert_eq!(found["up:1"], SyncOutcome::NotRouted);
    assert_eq!(found["tracks:gone"], SyncOutcome::Sent, "nobody confirms a tombstone");
    assert!(has_ended(&stage, 1));
}

#[test]
fn a_peer_whose_copy_is_not_taken_is_an_outcome_with_its_reason() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.converse_for(&mut peer, SECOND);
    request(&mut stage, 1, named(&["notes:1"]), Some(PEER));
    stage.feed(&frame(Label::Snapshot(&doc("notes:1")), b"no document"));
    assert_eq!(outcomes(&stage, 1)["notes:1"], SyncOutcome::Refused(Refusal::Invalid));
}

#[test]
fn a_lost_peer_is_unreachable_and_another_connection_takes_over() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    stage.put("notes:1", "x", 1);
    stage.converse_for(&mut peer, SECOND);
    request(&mut stage, 1, named(&["notes:1"]), Some(PEER));
    stage.sent.clear();
    stage.connect(peat_proto::ConnId(2), Role::Accepted);
    stage.converse_for(&mut peer, SECOND);
    assert_eq!(outcomes(&stage, 1)["notes:1"], SyncOutcome::Equal, "over the second connection");
    request(&mut stage, 2, named(&["notes:1"]), Some(PEER));
    stage.input(Input::Disconnected { conn: peat_proto::ConnId(2), code: None });
    assert_eq!(outcomes(&stage, 2)["notes:1"], SyncOutcome::Unreachable);
    request(&mut stage, 3, Which::Prefix("notes:".to_owned()), Some(PEER));
    assert_eq!(outcomes(&stage, 3)["notes:1"], SyncOutcome::Unreachable);
    assert!(has_ended(&stage, 2) && has_ended(&stage, 3));
}

#[test]
fn a_request_about_many_documents_is_worked_off_in_bounded_steps() {
    let mut config = config(Auth::Admission);
    if let Some(legacy) = &mut config.legacy {
        legacy.pushes_per_second = 100_000;
    }
    let (mut stage, mut peer) = (Stage::serving_with(config), Fielded::default());
    stage.checks = false;
    for n in 0..1000 {
        stage.put(&format!("notes:{n}"), "x", n);
    }
    stage.converse_for(&mut peer, 5 * SECOND);
    stage.checks = true;
    request(&mut stage, 1, Which::Prefix("notes:".to_owned()), Some(PEER));
    let begun = stage.take_frames().iter().map(|frame| contents(frame).len()).sum::<usize>();
    assert!((1..=256).contains(&begun), "{begun} documents at once");
    stage.converse_for(&mut peer, 30 * SECOND);
    // What was taken away above was lost, and is said again.
    let found = outcomes(&stage, 1);
    assert_eq!(found.len(), 1000);
    assert!(found.values().all(|outcome| *outcome == SyncOutcome::Equal));
    assert!(has_ended(&stage, 1));
}

#[test]
fn more_requests_than_the_limit_are_refused_and_counted() {
    let mut stage = Stage::serving();
    stage.put("notes:1", "x", 1);
    let most = peat_proto::Config::default().max_syncs as u64;
    for id in 0..=most {
        request(&mut stage, id, named(&["notes:1"]), Some(PEER));
    }
    assert!(stage.events.contains(&Event::SyncRefused { sync: SyncId(most) }));
    assert_eq!((stage.node.stats().syncs, stage.node.stats().syncs_refused), (most, 1));
    request(&mut stage, 0, named(&["notes:1"]), Some(PEER));
    assert_eq!(stage.node.stats().syncs_refused, 2, "a name that is in use");
    stage.pass(Duration::from_secs(120));
    assert!((0..most).all(|id| has_ended(&stage, id)));
}

#[test]
fn documents_are_asked_about_in_the_order_of_their_classes() {
    let (mut stage, mut peer) = (Stage::serving(), Fielded::default());
    let names = ["notes:1", "commands:1", "tracks:1"];
    names.iter().for_each(|name| stage.put(name, "x", 1));
    stage.converse_for(&mut peer, SECOND);
    request(&mut stage, 1, Which::Prefix(String::new()), Some(PEER));
    let frames = stage.take_frames();
    let asked: Vec<_> = frames.iter().flat_map(contents).map(|(kind, name, _)| (kind, name)).collect();
    let expected = ["commands:1", "tracks:1", "notes:1"].map(|name| (MessageType::Delta, name.to_owned()));
    assert_eq!(asked, expected);
}
