//! Fleets that are large, sparse or on bad paths.

use peat_tests::world::{Fault, Habit, Profile, Setup, Step, Topology, World};

/// One edit, and what it cost once everybody has it.
fn spread(setup: Setup) -> (World, u64) {
    let mut world = World::new(setup);
    world.converge();
    let before = world.totals().data;
    world.apply(Step::Edit { node: 0, doc: 0, kind: 0, value: 1 });
    world.converge();
    assert_eq!(world.violation(), None);
    let data = world.totals().data - before;
    (world, data)
}

#[test]
fn one_edit_travels_the_length_of_a_line_of_fifty() {
    let (world, data) = spread(Setup { topology: Topology::Line, ..Setup::quiet(1, 50, 1) });
    assert_eq!(world.node(49).expect("it runs").documents("").len(), 1);
    assert_eq!(data, 49, "each hop carries it once");
}

#[test]
fn one_edit_crosses_each_link_of_a_graph_of_fifty_at_most_once_each_way() {
    let setup = Setup {
        topology: Topology::Random(6),
        profile: Profile { loss: 100, ..Profile::LAN },
        ..Setup::quiet(2, 50, 1)
    };
    let (world, data) = spread(setup);
    assert!((49..=300).contains(&data), "{data} data frames on 300 directed links");
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

/// The number that the project promises; run with `cargo test --release -p peat-tests -- --ignored --nocapture`.
#[test]
#[ignore = "a minute of work; `just sim-volume` and CI's slow tier run it"]
fn one_edit_reaches_a_thousand_nodes() {
    let begun = std::time::Instant::now();
    let profile = Profile { loss: 100, ..Profile::LAN };
    let (world, data) = spread(Setup { topology: Topology::Random(6), profile, ..Setup::quiet(3, 1_000, 1) });
    let totals = world.totals();
    println!("{data} data frames, {} frames in all, {:?}", totals.frames, begun.elapsed());
    assert!(data <= 6_000, "{data} data frames on 6,000 directed links");
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
