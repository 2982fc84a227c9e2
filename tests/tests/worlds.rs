//! Lists of steps that shrink: what proptest finds is committed beside it.

use peat_tests::world::{Habit, Profile, Setup, Step, Topology, run};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, doc, packet) = (any::<u8>, any::<u16>, any::<u16>);
    let step = prop_oneof![
        12 => (node(), doc(), any::<u8>(), any::<u32>())
            .prop_map(|(node, doc, kind, value)| Step::Edit { node, doc, kind, value }),
        12 => (0..400_u16).prop_map(|ms| Step::Advance { ms }),
        1 => (0..40_000_u16).prop_map(|ms| Step::Advance { ms }),
        1 => (node(), doc()).prop_map(|(node, doc)| Step::Open { node, doc }),
        1 => (node(), doc()).prop_map(|(node, doc)| Step::Close { node, doc }),
        3 => packet().prop_map(|packet| Step::Deliver { packet }),
        2 => packet().prop_map(|packet| Step::Drop { packet }),
        2 => packet().prop_map(|packet| Step::Duplicate { packet }),
        1 => node().prop_map(|node| Step::Commit { node }),
        1 => node().prop_map(|node| Step::Pause { node }),
        1 => (node(), any::<u8>()).prop_map(|(node, count)| Step::FailWrites { node, count }),
        1 => (node(), any::<u8>()).prop_map(|(node, count)| Step::FailLoads { node, count }),
        1 => (node(), any::<u8>()).prop_map(|(node, keep)| Step::Crash { node, keep }),
        1 => node().prop_map(|node| Step::Restart { node }),
        1 => node().prop_map(|node| Step::Reboot { node }),
        1 => (node(), node()).prop_map(|(from, to)| Step::Cut { from, to }),
        1 => any::<u32>().prop_map(|side| Step::Partition { side }),
        1 => Just(Step::Heal),
        1 => (node(), node()).prop_map(|(from, to)| Step::Connect { from, to }),
        1 => any::<u8>().prop_map(|conn| Step::Disconnect { conn }),
        1 => (node(), node(), 0..5_000_u16).prop_map(|(from, to, ms)| Step::Squeeze { from, to, ms }),
        1 => node().prop_map(|node| Step::Evict { node }),
        1 => (node(), -3_600..3_600_i16).prop_map(|(node, seconds)| Step::Clock { node, seconds }),
    ];
    prop::collection::vec(step, 1..150)
}

fn setup() -> impl Strategy<Value = Setup> {
    let topology = prop_oneof![Just(Topology::Full), Just(Topology::Line), Just(Topology::Star)];
    let profile = (0..4_usize, 0..3_000_u16, 0..1_000_u16, 0..300_u16, 0..100_u16).prop_map(
        |(preset, loss, duplicate, reset, hangup)| {
            let preset = Profile::PRESETS[preset];
            Profile { loss, duplicate, reorder: duplicate, reset, hangup, ..preset }
        },
    );
    let hostile = prop::collection::vec(prop::sample::select(Habit::ALL.to_vec()), 0..2);
    let budgets = (
        prop::sample::select(vec![0_usize, 30_000, 64 << 20]),
        prop::sample::select(vec![200_usize, 64 << 10]),
        prop::sample::select(vec![(0_usize, 1_usize), (8 << 10, 4 << 20)]),
        prop::sample::select(vec![0_usize, 400, 64 << 10]),
    );
    let delays = (prop::sample::select(vec![0_u32, 50_000]), prop::sample::select(vec![0_u32, 5_000]));
    (any::<u64>(), 2..5_usize, topology, prop::sample::select(vec![0_u8, 50, 100]), profile, hostile, budgets, delays)
        .prop_map(|(seed, nodes, topology, datagram, profile, hostile, budgets, delays)| {
            let (cache, frame, window, inline) = budgets;
            let (job, lazy) = delays;
            Setup {
                topology,
                datagram,
                profile,
                hostile,
                cache,
                frame,
                window,
                inline,
                job,
                lazy,
                ..Setup::quiet(seed, nodes, 6)
            }
        })
}

/// The same lists in every run, so that a red build is red for everybody. `PROPTEST_RNG_SEED` and `PROPTEST_CASES` search
/// elsewhere.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("proptest-regressions/worlds.txt"))),
        ..ProptestConfig::default()
    };
    let is_set = |name| std::env::var_os(name).is_some();
    if !is_set("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(1);
    }
    if !is_set("PROPTEST_CASES") {
        config.cases = 60;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_list_of_steps_violates_anything((setup, steps) in (setup(), steps())) {
        let verdict = run(&setup, &steps);
        prop_assert!(verdict.is_ok(), "{}", verdict);
    }
}
