//! Two and more nodes moved by hand: what the exchange promises in the quiet case, frame by frame.

mod world;

use std::time::Duration;

use peat_proto::{CloseCode, Config, Event, Formation, FormationId, FormationSecret, Input, Invitation};
use world::{World, peer};

#[test]
fn a_document_written_before_the_connection_arrives_after_it() {
    let mut world = World::open(2);
    world.put(0, "notes:1", "x", 7);
    world.run();
    world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.get(1, "notes:1", "x"), Some(7));
    world.assert_equal();
    assert!(world.hosts[0].node.level(&peer(1)) && world.hosts[1].node.level(&peer(0)));
}

#[test]
fn an_edit_to_a_peer_whose_heads_are_known_is_one_data_frame_then_silence() {
    let mut world = World::open(2);
    world.connect(0, 1);
    for n in 0..3 {
        world.put(0, "notes:1", "x", n);
        world.pass(Duration::from_secs(60));
        world.assert_equal();
    }
    world.crossings.clear();
    world.put(0, "notes:1", "x", 99);
    world.run();
    let data: Vec<_> = world.crossings.iter().filter(|crossing| crossing.from == 0).collect();
    assert_eq!(data.len(), 1, "{data:?}");
    assert!(data[0].bytes < 250, "{data:?}");
    assert_eq!(world.get(1, "notes:1", "x"), Some(99));
    world.pass(Duration::from_secs(600));
    assert!(world.crossings.len() <= 6, "one edit, its receipt and the digests: {:?}", world.crossings);
    let quiet = world.crossings.len();
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.crossings.len(), quiet, "silence");
}

#[test]
fn concurrent_edits_meet_without_resending_history() {
    let mut world = World::open(2);
    world.connect(0, 1);
    for n in 0..50 {
        world.put(0, "notes:1", "x", n);
        world.pass(Duration::from_secs(1));
    }
    world.crossings.clear();
    world.put(0, "notes:1", "a", 1);
    world.put(1, "notes:1", "b", 2);
    world.pass(Duration::from_secs(30));
    world.assert_equal();
    let bytes: usize = world.crossings.iter().map(|crossing| crossing.bytes).sum();
    assert!(bytes < 1500, "{bytes} bytes for two edits: {:?}", world.crossings);
}

#[test]
fn own_changes_do_not_leave_before_they_are_durable() {
    let mut world = World::open(2);
    world.connect(0, 1);
    world.pass(Duration::from_secs(5));
    world.crossings.clear();
    world.put(0, "notes:1", "x", 1);
    world.drain(0);
    assert!(world.crossings.is_empty(), "{:?}", world.crossings);
    assert_eq!(world.hosts[0].answers.len(), 1, "the write is under way");
    world.run();
    assert!(!world.crossings.is_empty());
    assert_eq!(world.get(1, "notes:1", "x"), Some(1));
}

#[test]
fn field_6_what_arrives_is_passed_on_and_not_sent_back() {
    let mut world = World::open(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.pass(Duration::from_secs(5));
    world.put(0, "notes:1", "x", 1);
    world.run();
    assert_eq!(world.get(2, "notes:1", "x"), Some(1));
    let data = world.hosts.iter().map(|host| host.node.stats().traffic.data_sent);
    assert_eq!(data.collect::<Vec<_>>(), [1, 1, 0], "{:?}", world.crossings);
}

#[test]
fn two_thousand_documents_reach_an_empty_peer_and_an_unequal_one() {
    let mut world = World::open(2);
    for n in 0..2000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.run();
    world.connect(0, 1);
    world.pass(Duration::from_secs(10));
    world.assert_equal();
    let mut world = World::open(2);
    for n in 0..2000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.put(1, "notes:extra", "x", 1);
    world.put(1, "notes:5", "y", 1);
    world.run();
    world.connect(1, 0);
    world.pass(Duration::from_secs(10));
    world.assert_equal();
    assert_eq!(world.hosts[1].node.documents("").len(), 2001);
}

#[test]
fn a_cache_of_nothing_changes_nothing() {
    let mut config = Config::default();
    config.admission.open = true;
    config.cache_bytes = 0;
    let mut world = World::new(2, &config);
    for n in 0..20 {
        world.put(0, &format!("notes:{n}"), "x", n);
        world.put(1, &format!("notes:{n}"), "y", n);
    }
    world.run();
    assert_eq!(world.hosts[0].node.stats().loaded, 0);
    world.connect(0, 1);
    world.pass(Duration::from_secs(20));
    world.put(0, "notes:3", "z", 5);
    world.pass(Duration::from_secs(20));
    world.assert_equal();
    assert_eq!(world.get(1, "notes:3", "z"), Some(5));
}

#[test]
fn a_stranger_is_refused_and_an_invitation_lets_in() {
    let mut config = Config::default();
    let secret = Invitation([9; 32]);
    config.admission.invitations.push(secret);
    let mut world = World::new(2, &config);
    world.put(0, "notes:1", "x", 1);
    let now = world.now;
    world.hosts[1].node.handle(now, Input::Want { peer: peer(0), invitation: None });
    world.connect(1, 0);
    world.pass(Duration::from_secs(5));
    let refused = Event::Closed { peer: peer(0), code: CloseCode::NotAdmitted.code(), by_peer: true };
    assert!(world.hosts[1].events.contains(&refused), "{:?}", world.hosts[1].events);
    assert!(world.hosts[1].node.documents("").is_empty());
    let now = world.now;
    world.hosts[1].node.handle(now, Input::Want { peer: peer(0), invitation: Some(secret) });
    world.connect(1, 0);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.get(1, "notes:1", "x"), Some(1));
    assert_eq!(world.hosts[0].disk.peers, [peer(1)], "remembered before the first document is served");
}

#[test]
fn an_invitation_lets_in_so_many_and_who_was_let_in_stays() {
    let secrets = [Invitation([9; 32]), Invitation([8; 32])];
    let mut config = Config::default();
    config.admission.invitations.extend(secrets);
    (config.max_guests, config.max_admitted) = (2, 4);
    let mut world = World::new(7, &config);
    world.put(0, "notes:1", "x", 1);
    let mut come = |n: usize, secret: usize| {
        let now = world.now;
        world.hosts[n].node.handle(now, Input::Want { peer: peer(0), invitation: Some(secrets[secret]) });
        let (conn, _) = world.connect(n, 0);
        world.pass(Duration::from_secs(5));
        let is_in = world.hosts[n].node.documents("").len() == 1;
        world.cut(n, conn);
        let stats = world.hosts[0].node.stats();
        (is_in, stats.remembered, stats.uninvited, stats.unremembered)
    };
    assert_eq!(come(1, 0), (true, 1, 0, 0));
    assert_eq!(come(2, 0), (true, 2, 0, 0));
    assert_eq!(come(3, 0), (false, 2, 1, 0), "it has let in two");
    assert_eq!(come(1, 0), (true, 2, 1, 0), "who was let in stays");
    assert_eq!(come(4, 1), (true, 3, 1, 0), "another invitation");
    assert_eq!(come(5, 1), (true, 4, 1, 0));
    assert!(!come(6, 1).0);
    let stats = world.hosts[0].node.stats();
    assert_eq!((stats.guests, stats.max_guests, stats.max_admitted), (2, 2, 4));
    world.hosts[0].node.handle(world.now, Input::Forget { peer: peer(1) });
    world.run();
    assert_eq!(world.hosts[0].node.stats().remembered, 3);
}

/// As many are remembered as may be: members get in all the same.
#[test]
fn beyond_what_is_remembered_members_are_let_in_and_the_invited_are_not() {
    let formation = Formation {
        id: FormationId::new("alpha").expect("a name"),
        secret: FormationSecret::from_bytes(&[7; 32]).expect("a secret"),
    };
    let mut config = Config::default();
    config.admission.formation = Some(formation);
    config.admission.invitations.push(Invitation([9; 32]));
    config.max_admitted = 1;
    let mut guest = config.clone();
    guest.admission.formation = None;
    let mut world = World::of(vec![config.clone(), config.clone(), config, guest]);
    world.put(0, "notes:1", "x", 1);
    world.connect(1, 0);
    world.connect(2, 0);
    world.hosts[3].node.handle(world.now, Input::Want { peer: peer(0), invitation: Some(Invitation([9; 32])) });
    world.connect(3, 0);
    world.pass(Duration::from_secs(5));
    let has = |world: &World, n: usize| world.hosts[n].node.documents("").len();
    assert_eq!((has(&world, 1), has(&world, 2), has(&world, 3)), (1, 1, 0));
    let stats = world.hosts[0].node.stats();
    assert_eq!((stats.remembered, stats.unremembered), (1, 2));
}

/// A slow disk: what waits for it may take no more memory than the cache, and some of what is on its way.
#[test]
fn documents_that_only_wait_for_the_disk_hold_up_what_arrives() {
    let mut config = Config::default();
    config.admission.open = true;
    (config.cache_bytes, config.frame_bytes) = (1 << 20, 1 << 10);
    let mut world = World::new(2, &config);
    for n in 0..2_000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.run();
    world.connect(0, 1);
    // The disk of the second answers nothing while everything that has credit crosses.
    let (credit, mut sent, mut most) = (2 << 10, 0, 0);
    loop {
        world.drain(0);
        world.store(0);
        world.drain(0);
        world.drain(1);
        most = most.max(world.hosts[1].node.stats().cache_bytes);
        let has_credit = sent < world.hosts[1].consumed + credit;
        let Some(at) = world.wire.iter().position(|(from, ..)| *from == 1 || has_credit) else { break };
        let crossing = world.wire.remove(at).expect("it is there");
        sent += if crossing.0 == 0 { crossing.3.len() } else { 0 };
        world.deliver(crossing);
    }
    assert!(most > 1 << 20, "the cache was full");
    assert!(most < 6 << 20, "{most} bytes of documents with a cache of 1 MiB");
    world.run();
    world.pass(Duration::from_secs(60));
    assert_eq!(world.hosts[1].node.documents("").len(), 2_000);
    // Here every frame has a stream of its own, which has ended long since: its credit comes back all the same.
    let received = world.hosts[1].node.stats().traffic.bytes_received;
    assert_eq!(world.hosts[1].consumed as u64, received);
}
