//! Synchronisation at the application's request, between Peat nodes.

mod world;

use std::time::Duration;

use peat_proto::{Event, Input, PeerId, SyncId, SyncOutcome, SyncRequest, Which};
use world::{World, peer};

fn request(world: &mut World, which: Which, peer: Option<PeerId>) {
    let request = SyncRequest { id: SyncId(1), which, peer, within: Duration::from_secs(60) };
    world.hosts[0].node.handle(world.now, Input::SyncNow(request));
    world.drain(0);
}

fn outcomes(world: &World) -> Vec<(PeerId, String, SyncOutcome)> {
    let events = world.hosts[0].events.iter();
    let mut found: Vec<_> = events
        .filter_map(|event| match event {
            Event::Synced { peer, doc, outcome, .. } => Some((*peer, doc.to_string(), *outcome)),
            _ => None,
        })
        .collect();
    found.sort();
    found
}

#[test]
fn documents_that_are_equal_already_are_asked_about_and_found_equal() {
    let mut world = World::open(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.put(0, "notes:1", "x", 1);
    world.put(1, "tracks:1", "x", 2);
    world.pass(Duration::from_secs(30));
    world.assert_equal();
    request(&mut world, Which::Prefix(String::new()), None);
    world.pass(Duration::from_secs(5));
    let expected: Vec<_> = [peer(1), peer(2)]
        .into_iter()
        .flat_map(|peer| ["notes:1", "tracks:1"].map(|name| (peer, name.to_owned(), SyncOutcome::Equal)))
        .collect();
    let mut expected = expected;
    expected.sort();
    assert_eq!(outcomes(&world), expected);
    assert!(world.hosts[0].events.contains(&Event::SyncEnded { sync: SyncId(1) }));
}

#[test]
fn a_peer_that_is_not_there_is_unreachable() {
    let mut world = World::open(2);
    world.put(0, "notes:1", "x", 1);
    world.run();
    request(&mut world, Which::Prefix("notes:".to_owned()), Some(peer(1)));
    assert_eq!(outcomes(&world), [(peer(1), "notes:1".to_owned(), SyncOutcome::Unreachable)]);
    assert!(world.hosts[0].events.contains(&Event::SyncEnded { sync: SyncId(1) }));
}

#[test]
fn a_request_while_an_edit_is_on_its_way_ends_equal() {
    let mut world = World::open(2);
    world.connect(0, 1);
    world.put(0, "notes:1", "x", 1);
    world.pass(Duration::from_secs(5));
    world.put(0, "notes:1", "x", 2);
    request(&mut world, Which::Prefix(String::new()), Some(peer(1)));
    world.pass(Duration::from_secs(30));
    assert_eq!(outcomes(&world), [(peer(1), "notes:1".to_owned(), SyncOutcome::Equal)]);
    assert_eq!(world.get(1, "notes:1", "x"), Some(2));
}
