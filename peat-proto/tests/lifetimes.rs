//! How long documents last: soft deletion, time to live, and what is collected when.
#![allow(clippy::disallowed_methods, reason = "an author that is no node")]

mod common;
mod world;

use std::time::Duration;

use peat_proto::automerge::transaction::Transactable;
use peat_proto::automerge::{Automerge, AutomergeError, ROOT};
use peat_proto::policy::{Class, Policy, Table};
use peat_proto::store::Kind;
use peat_proto::{Config, DeleteError, DocId, Event, Input, Marker};
use world::World;

const DAY: Duration = Duration::from_secs(86_400);

fn world(collection: &str, change: impl Fn(&mut Policy)) -> World {
    let mut config = Config::default();
    config.admission.open = true;
    let mut policy = config.policy.of_collection(collection);
    change(&mut policy);
    config.policy.set(collection, policy);
    World::new(1, &config)
}

fn delete(world: &mut World, doc: &str, reason: Option<&str>) -> Result<(), DeleteError> {
    let doc = DocId::new(doc).expect("valid");
    world.hosts[0].node.handle(world.now, Input::Open { doc: doc.clone() });
    world.run();
    let outcome = world.hosts[0].node.delete(world.now, &doc, reason).map(drop);
    world.hosts[0].node.handle(world.now, Input::Close { doc });
    world.run();
    outcome
}

fn listed(world: &World) -> Vec<String> {
    world.hosts[0].node.documents("").iter().map(|listing| listing.doc.to_string()).collect()
}

fn deleted(world: &World) -> Vec<(DocId, Option<Marker>)> {
    world.hosts[0].node.deleted("")
}

fn stored(world: &World, doc: &str) -> Option<Kind> {
    let doc = DocId::new(doc).expect("valid");
    world.hosts[0].disk.records.get(&doc).map(|record| record.kind.clone())
}

#[test]
fn a_softly_deleted_document_is_hidden_comes_back_by_an_edit_and_ends_as_a_marker() {
    let mut world = world("notes", |_| {});
    world.put(0, "notes:1", "x", 1);
    world.run();
    delete(&mut world, "notes:1", Some("dup")).expect("it is there");
    assert_eq!(listed(&world), [""; 0]);
    assert_eq!(deleted(&world).len(), 1);
    assert_eq!(delete(&mut world, "notes:1", None), Err(DeleteError::Deleted));
    assert_eq!(world.get(0, "notes:1", "x"), Some(1), "its content is still there");

    // Without another change a marker takes its place after seven days, at the next round.
    world.pass(DAY * 7 - Duration::from_secs(1));
    assert_eq!(stored(&world, "notes:1"), Some(Kind::Automerge));
    world.pass(Duration::from_secs(302));
    assert!(matches!(stored(&world, "notes:1"), Some(Kind::Marker(_))));
    assert!(matches!(deleted(&world).as_slice(), [(_, Some(marker))] if marker.lamport == 0));
    assert_eq!(world.get(0, "notes:1", "x"), None);
    assert_eq!(world.hosts[0].node.stats().markers, 1);
}

#[test]
fn a_tombstone_collection_forgets_the_content_at_once_and_refuses_writes() {
    let mut world = world("nodes", |_| {});
    world.put(0, "nodes:1", "x", 1);
    world.run();
    delete(&mut world, "nodes:1", None).expect("it is there");
    assert!(matches!(stored(&world, "nodes:1"), Some(Kind::Marker(_))));
    assert!(world.hosts[0].events.iter().any(|event| matches!(event, Event::Deleted { .. })));
    let doc = DocId::new("nodes:1").expect("valid");
    assert!(!world.hosts[0].node.contains(&doc));
    world.pass(DAY * 400);
    assert!(matches!(stored(&world, "nodes:1"), Some(Kind::Marker(_))), "for ever");
}

#[test]
fn a_document_lives_as_long_as_it_is_refreshed_and_then_goes_once_and_for_all() {
    const TTL: u64 = 600;
    let mut world = world("beacons", |_| {});
    assert_eq!(Table::default().of_collection("beacons").class, Class::Normal);
    for n in 0..10 * TTL / 60 {
        world.put(0, "beacons:1", "x", i64::try_from(n).expect("small"));
        world.pass(Duration::from_secs(60));
        assert_eq!(listed(&world), ["beacons:1"]);
    }
    assert_eq!(delete(&mut world, "beacons:1", None), Err(DeleteError::Expires));
    world.pass(Duration::from_secs(TTL));
    assert_eq!(listed(&world), [""; 0]);
    let expired = world.hosts[0].events.iter().filter(|event| matches!(event, Event::Expired { .. }));
    assert_eq!(expired.count(), 1);
    assert!(stored(&world, "beacons:1").is_some(), "others may still have a use for it");
    world.pass(Duration::from_secs(600 + 300));
    assert_eq!(stored(&world, "beacons:1"), None);
    assert_eq!(world.hosts[0].node.stats().collected, 1);
    world.hosts[0].node.check().expect("the invariants hold");
}

#[test]
fn a_lapsed_document_lives_again_with_its_next_change() {
    let mut world = world("beacons", |_| {});
    world.put(0, "beacons:1", "x", 1);
    world.pass(Duration::from_secs(700));
    assert_eq!(listed(&world), [""; 0]);
    world.put(0, "beacons:1", "x", 2);
    world.run();
    assert_eq!(listed(&world), ["beacons:1"]);
    world.hosts[0].node.check().expect("the invariants hold");
    world.pass(Duration::from_secs(500));
    assert_eq!(listed(&world), ["beacons:1"]);
}

#[test]
fn a_new_policy_takes_effect_on_what_is_there() {
    let mut world = world("beacons", |_| {});
    world.put(0, "beacons:1", "x", 1);
    world.pass(Duration::from_secs(700));
    assert_eq!(listed(&world), [""; 0]);
    let mut table = Table::default();
    let mut policy = table.of_collection("beacons");
    (policy.ttl, policy.class) = (None, Class::Critical);
    table.set("beacons", policy);
    world.hosts[0].node.handle(world.now, Input::Policy(Box::new(table)));
    world.run();
    assert_eq!(listed(&world), ["beacons:1"]);
    world.hosts[0].node.check().expect("the invariants hold");
    world.hosts[0].node.handle(world.now, Input::Policy(Box::default()));
    world.pass(Duration::from_millis(10));
    assert_eq!(listed(&world), [""; 0]);
    world.hosts[0].node.check().expect("the invariants hold");
}

#[test]
fn clocks_that_step_move_no_timer_back_and_nothing_panics() {
    let mut world = world("beacons", |_| {});
    world.put(0, "beacons:1", "x", 1);
    world.run();
    let start = world.now.unix_ms;
    for unix_ms in [0, u64::MAX, start] {
        world.now.unix_ms = unix_ms;
        world.hosts[0].node.handle(world.now, Input::Timeout);
        world.run();
    }
    // In the year u64::MAX it was over.
    assert_eq!(listed(&world), [""; 0]);
    world.put(0, "beacons:1", "x", 2);
    world.run();
    assert_eq!(listed(&world), ["beacons:1"]);
}

#[test]
fn a_document_whose_author_has_no_clock_has_no_end() {
    let mut world = world("beacons", |_| {});
    let doc = DocId::new("beacons:1").expect("valid");
    let mut content = Automerge::new();
    content.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "x", 1)).expect("a change");
    world.hosts[0].node.handle(world.now, Input::Change { doc, changes: content.save().into() });
    world.pass(DAY);
    assert_eq!(listed(&world), ["beacons:1"]);
    world.put(0, "beacons:1", "x", 2);
    world.pass(Duration::from_secs(700));
    assert_eq!(listed(&world), [""; 0], "ours has one");
}
