//! Fleets that are large, sparse or on bad paths.

use peat_tests::world::{Fault, Habit, Profile, Setup, Step, Topology, World};

/// What one edit cost until everybody had it and was silent again.
#[derive(Debug)]
struct Cost {
    /// Frames that carry changes.
    data: u64,
    /// Heads, receipts and whatever repairs.
    heads: u64,
    /// Comparisons of whole sets.
    control: u64,
    /// The most frames with changes that one side of a link sent.
    most: u64,
}

fn spread(setup: Setup) -> (World, Cost) {
    let mut world = World::new(setup);
    world.converge();
    world.apply(Step::Advance { ms: 60_000 });
    let (before, sent) = (world.totals(), world.data_frames().clone());
    world.apply(Step::Edit { node: 0, doc: 0, kind: 0, value: 1 });
    world.converge();
    world.apply(Step::Advance { ms: 60_000 });
    assert_eq!(world.violation(), None);
    let after = world.totals();
    let (data, control) = (after.data - before.data, after.control - before.control);
    let news = world.data_frames().iter().map(|(link, frames)| frames - sent.get(link).unwrap_or(&0));
    let most = news.max().unwrap_or_default();
    (world, Cost { data, control, most, heads: after.frames - before.frames - data - control })
}

#[test]
fn one_edit_travels_the_length_of_a_line_of_fifty() {
    let (world, cost) = spread(Setup { topology: Topology::Line, ..Setup::quiet(1, 50, 1) });
    assert_eq!(world.node(49).expect("it runs").documents("").len(), 1);
    assert_eq!((cost.data, cost.most), (49, 1), "each hop carries it once");
    assert!(cost.heads <= 49, "{cost:?}: each hop confirms it once");
}

#[test]
fn one_edit_crosses_each_link_of_a_graph_of_fifty_at_most_once_each_way() {
    let setup = Setup {
        topology: Topology::Random(6),
        profile: Profile { loss: 100, ..Profile::LAN },
        ..Setup::quiet(2, 50, 1)
    };
    let (world, cost) = spread(setup);
    assert!((49..=300).contains(&cost.data) && cost.heads <= 300, "{cost:?} on 300 directed links");
    assert_eq!(cost.most, 1, "none carries it twice");
    assert!((0..50).all(|node| world.node(node).is_some_and(|node| node.documents("").len() == 1)));
}

/// Datagrams of which every second is lost, for ever: healing leaves the paths as they are.
#[test]
fn half_of_all_datagrams_may_be_lost_for_ever() {
    let profile = Profile { loss: 5_000, duplicate: 1_000, reorder: 1_000, ..Profile::WIFI };
    for seed in 0..5 {
        let mut world = World::new(Setup { datagram: 100, profile, stormy: true, ..Setup::quiet(seed, 3, 10) });
        for n in 0..60_u32 {
            let small = |bound: u32| u8::try_from(n % bound).expect("small");
            world.apply(Step::Edit { node: small(3), doc: u16::from(small(10)), kind: small(9), value: n });
            world.apply(Step::Advance { ms: 50 });
        }
        world.heal();
        assert_eq!(world.violation(), None, "seed {seed}");
        assert!(world.fired().of(Fault::Loss) > 50, "seed {seed}");
    }
}

/// Each habit alone, against two honest nodes that go on working.
#[test]
fn hostile_members_keep_nobody_from_syncing() {
    for (seed, habit) in Habit::ALL.into_iter().enumerate() {
        let mut world = World::new(Setup { hostile: vec![habit, habit], ..Setup::quiet(seed as u64, 2, 5) });
        for n in 0..60_u32 {
            let small = |bound: u32| u8::try_from(n % bound).expect("small");
            world.apply(Step::Edit { node: small(2), doc: u16::from(small(5)), kind: small(7), value: n });
            world.apply(Step::Advance { ms: 500 });
        }
        assert_eq!(world.violation(), None, "{habit:?}");
        assert!(world.fired().of(Fault::Hostile) > 0, "{habit:?} never spoke");
        // Equal while the siege goes on, not only after it.
        for _ in 0..60 {
            if world.is_unequal().is_some() {
                world.apply(Step::Advance { ms: 1_000 });
            }
        }
        assert_eq!(world.is_unequal(), None, "{habit:?}");
        world.heal();
        assert_eq!(world.violation(), None, "{habit:?}");
    }
}

/// A random graph of degree 6: 6,000 directed links, of which each carries the change at most once, and as many words
/// about it at most.
#[test]
fn one_edit_reaches_a_thousand_nodes() {
    let cost = thousand(Profile { loss: 100, ..Profile::LAN });
    assert_eq!(cost.most, 1, "no side of a link says it twice");
    assert!(cost.data <= 6_000 && cost.heads <= 6_000, "{cost:?} on 6,000 directed links");
    assert!(cost.control <= 12_000, "{cost:?}: each side of a link says its new digest, and once more at most");
}

/// Every hundredth frame is lost with all that was under way on its stream, and said again.
#[test]
fn one_edit_reaches_a_thousand_nodes_through_resets() {
    let cost = thousand(Profile { reset: 100, ..Profile::LAN });
    assert!(cost.data <= 6_000 + 600 && cost.most <= 4, "{cost:?} on 6,000 directed links");
    assert!(cost.heads <= 7_000 && cost.control <= 14_000, "{cost:?}");
}

fn thousand(profile: Profile) -> Cost {
    let begun = std::time::Instant::now();
    let (world, cost) = spread(Setup { topology: Topology::Random(6), profile, ..Setup::quiet(3, 1_000, 1) });
    println!("{cost:?} in {:?}, the greeting of all neighbours included", begun.elapsed());
    assert!((0..1_000).all(|node| world.node(node).is_some_and(|node| node.documents("").len() == 1)));
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    cost
}
