//! What a peer may not do for what it is: said with a reason, or not offered at all; both sides settle.

mod world;

use std::time::Duration;

use peat_proto::policy::Direction;
use peat_proto::policy::kin::{Family, Kin, Kins};
use peat_proto::{Config, Event, Formation, FormationId, FormationSecret, Input, Refusal};
use world::{World, peer};

/// A parent and its child. The parent, or both, let only parents write orders.
fn family(both_know: bool) -> World {
    let config = |other: usize, kin: Kin, knows: bool| {
        let mut config = Config::default();
        config.admission.open = true;
        config.family = Family { kin: [(peer(other), kin)].into(), others: Kin::Other };
        let mut policy = config.policy.of_collection("orders");
        policy.direction = Direction::Broadcast;
        policy.write = knows.then(|| Kins::new(&[Kin::Parent]));
        config.policy.set("orders", policy);
        config.policy.set("notes", {
            let mut notes = policy;
            notes.write = None;
            notes
        });
        config
    };
    World::of(vec![config(1, Kin::Child, true), config(0, Kin::Parent, both_know)])
}

/// The child has so many orders and a note, and meets its parent.
fn with_orders(mut world: World, count: i64) -> World {
    for n in 0..count {
        world.put(1, &format!("orders:own{n}"), "x", n);
    }
    world.put(1, "notes:1", "x", 8);
    world.run();
    world.connect(1, 0);
    world
}

fn refusals(world: &World, n: usize) -> usize {
    let events = world.hosts[n].events.iter();
    events.filter(|event| matches!(event, Event::Refused { reason: Refusal::NotAllowed, .. })).count()
}

fn assert_settled(world: &mut World) {
    world.pass(Duration::from_secs(3600));
    assert!(world.hosts[0].node.level(&peer(1)) && world.hosts[1].node.level(&peer(0)), "level in what may flow");
    let before = world.crossings.len();
    world.pass(Duration::from_secs(36_000));
    assert_eq!(world.crossings.len(), before, "silence");
}

#[test]
fn what_a_role_may_not_write_is_refused_with_a_reason_and_both_settle() {
    let mut world = family(false);
    world.put(1, "orders:1", "x", 1);
    world.put(1, "notes:1", "x", 2);
    world.put(0, "orders:2", "x", 3);
    world.run();
    world.connect(1, 0);
    assert_settled(&mut world);
    assert_eq!(world.get(0, "orders:1", "x"), None, "it is not taken");
    assert_eq!((world.get(0, "notes:1", "x"), world.get(1, "orders:2", "x")), (Some(2), Some(3)));
    assert_eq!(refusals(&world, 0), 1);
    let told = world.hosts[1]
        .events
        .iter()
        .filter(|event| matches!(event, Event::Declined { reason: Refusal::NotAllowed, .. }));
    assert_eq!(told.count(), 1, "the writer is told why");
    let peers = world.hosts[0].node.stats().peers;
    assert_eq!(peers.first().map(|peer| peer.left_out), Some(1));
}

/// Far more than can be left out one by one.
#[test]
fn what_both_know_that_a_role_may_not_write_is_not_compared_at_all() {
    let mut world = family(true);
    for n in 0..2000 {
        world.put(1, &format!("orders:own{n}"), "x", n);
    }
    world.put(0, "orders:1", "x", 7);
    world.put(1, "notes:1", "x", 8);
    world.run();
    world.connect(1, 0);
    assert_settled(&mut world);
    assert_eq!((world.get(1, "orders:1", "x"), world.get(0, "notes:1", "x")), (Some(7), Some(8)));
    assert_eq!(world.hosts[0].node.documents("orders:").len(), 1);
    assert_eq!(refusals(&world, 0), 0);
    assert!(world.crossings.len() < 100, "{} frames", world.crossings.len());
}

/// One side does not know of the other's rule, and there is more than can be left out: comparing goes on, ever more rarely.
#[test]
fn more_refusals_than_can_be_left_out_become_rare_and_are_shown() {
    let mut world = with_orders(family(false), 1500);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.get(0, "notes:1", "x"), Some(8), "the rest flows");
    assert!(!world.hosts[0].node.level(&peer(1)), "they are not level");
    let peers = world.hosts[0].node.stats().peers;
    assert_eq!(peers.first().map(|peer| peer.left_out), Some(1024), "for what is refused");
    let before = world.crossings.len();
    world.pass(Duration::from_secs(36_000));
    let frames = world.crossings.len() - before;
    assert!(frames < 36_000 / 480 * 160, "{frames} frames in ten hours");
}

/// More than a sketch once left out one by one, and no more than may be left out at all.
#[test]
fn two_hundred_refusals_are_all_left_out() {
    let mut world = with_orders(family(false), 200);
    assert_settled(&mut world);
    assert_eq!(world.get(0, "notes:1", "x"), Some(8));
    let peers = world.hosts[0].node.stats().peers;
    assert_eq!(peers.first().map(|peer| peer.left_out), Some(200));
}

/// The same where the documents flow one way only.
#[test]
fn two_hundred_refusals_of_what_flows_one_way_are_all_left_out() {
    let mut configs = [0, 1].map(|n| {
        let mut config = Config::default();
        config.admission.open = true;
        let kin = if n == 0 { Kin::Child } else { Kin::Parent };
        config.family = Family { kin: [(peer(1 - n), kin)].into(), others: Kin::Other };
        let mut policy = config.policy.of_collection("orders");
        policy.direction = Direction::Upward;
        config.policy.set("orders", policy);
        config
    });
    // The parent alone knows that it takes none from its child.
    let mut strict = configs[0].policy.of_collection("orders");
    strict.write = Some(Kins::new(&[Kin::Sibling]));
    configs[0].policy.set("orders", strict);
    let mut world = World::of(configs.into());
    for n in 0..200 {
        world.put(1, &format!("orders:own{n}"), "x", n);
    }
    // So that it does not begin by being sent everything.
    world.put(0, "orders:of-the-parent", "x", 1);
    world.run();
    world.connect(1, 0);
    assert_settled(&mut world);
    assert_eq!(world.hosts[0].node.documents("orders:").len(), 1);
}

/// Scopes are made anew in steps of 2,048 documents. Until they are complete there is nothing to say, and nothing to do.
#[test]
fn a_new_policy_for_many_documents_takes_effect_while_a_peer_is_connected() {
    let mut world = World::open(2);
    for n in 0..5_000 {
        world.put(0, &format!("notes:{n}"), "x", n);
    }
    world.connect(0, 1);
    world.pass(Duration::from_secs(60));
    let mut table = world.hosts[0].node.policy().clone();
    let mut policy = table.of_collection("notes");
    policy.direction = Direction::Upward;
    table.set("notes", policy);
    let now = world.now;
    world.hosts[0].node.handle(now, Input::Policy(Box::new(table)));
    world.pass(Duration::from_secs(60));
    world.put(1, "orders:1", "x", 7);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.get(0, "orders:1", "x"), Some(7), "the node goes on");
}

/// A guest of a formation's member computes other elements than the member does, and so cannot know that it was told of
/// all that flows one way. It is told of it once.
#[test]
fn without_a_common_key_what_flows_one_way_is_listed_once() {
    let config = |other: usize, kin: Kin| {
        let mut config = Config::default();
        config.admission.open = true;
        config.family = Family { kin: [(peer(other), kin)].into(), others: Kin::Other };
        let mut policy = config.policy.of_collection("orders");
        policy.direction = Direction::Upward;
        config.policy.set("orders", policy);
        config
    };
    let mut member = config(1, Kin::Child);
    let (id, secret) = (FormationId::new("field"), FormationSecret::from_bytes(&[7; 32]));
    member.admission.formation = Some(Formation { id: id.expect("a valid name"), secret: secret.expect("a secret") });
    let mut world = World::of(vec![member, config(0, Kin::Parent)]);
    for n in 0..200 {
        world.put(1, &format!("orders:own{n}"), "x", n);
    }
    world.put(0, "orders:of-the-parent", "x", 1);
    world.run();
    world.connect(1, 0);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.hosts[0].node.documents("orders:").len(), 201);
    assert!(!world.hosts[0].node.level(&peer(1)), "nobody can know");
    let before = world.crossings.len();
    world.pass(Duration::from_secs(36_000));
    let bytes: usize = world.crossings[before..].iter().map(|crossing| crossing.bytes).sum();
    // Summaries of 100 B each way, every half minute; a list would be 12 kB each time.
    assert!(bytes < 36_000 / 30 * 2 * 150, "{bytes} bytes in ten hours");
    world.put(1, "orders:own7", "x", 8);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.get(0, "orders:own7", "x"), Some(8));
}
