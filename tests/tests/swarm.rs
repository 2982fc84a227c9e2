//! Seeds by the hundred: every one a fleet with faults of its own.

use std::process::Command;

use peat_tests::world::{Mix, Setup, Step, Topology, World, run_until, walk};

#[test]
fn swarms_of_faults_violate_nothing() {
    let mix = Mix { steps: 120, ..Mix::default() };
    for seed in 0..150 {
        let (setup, steps) = walk(seed, &mix);
        let verdict = run_until(&setup, &steps, mix.steps);
        assert!(verdict.is_ok() && verdict.steps == mix.steps, "{verdict}");
    }
}

#[test]
fn larger_fleets_violate_nothing() {
    let mix = Mix { nodes: 6, docs: 20, steps: 200, ..Mix::default() };
    for seed in 0..6 {
        let (setup, steps) = walk(seed, &mix);
        let verdict = run_until(&setup, &steps, mix.steps);
        assert!(verdict.is_ok() && verdict.steps == mix.steps, "{verdict}");
    }
}

#[test]
fn a_seed_names_one_run_in_this_process() {
    let mix = Mix::default();
    for seed in 500..510 {
        let (setup, steps) = walk(seed, &mix);
        let (once, again) = (run_until(&setup, &steps, mix.steps), run_until(&setup, &steps, mix.steps));
        assert_eq!(once, again, "seed {seed}");
        assert!(once.frames > 0, "seed {seed} did nothing");
    }
    let trace = |seed| {
        let (setup, steps) = walk(seed, &mix);
        run_until(&setup, &steps, mix.steps).trace
    };
    assert_ne!(trace(500), trace(501));
}

#[test]
fn a_seed_names_one_run_in_every_process() {
    let sim = || {
        let args = ["--seed", "42", "--nodes", "5", "--docs", "50", "--steps", "300", "--loss", "0.3"];
        let more = ["--crash", "0.01", "--partition", "0.02", "--json"];
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).args(more).output().expect("sim runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (once, again) = (sim(), sim());
    assert!(once.contains("\"trace\":\""), "{once}");
    assert_eq!(once, again);
}

/// The same writes with and without a cache end in the same content. (Hashes differ only where time does, so the writes
/// are given room to finish one by one.)
#[test]
fn a_cache_of_nothing_ends_in_the_same_heads() {
    let end = |cache: usize| {
        let setup = Setup { cache, topology: Topology::Line, ..Setup::quiet(9, 4, 8) };
        let mut world = World::new(setup);
        for n in 0..120_u32 {
            let [node, kind] = [n % 4, n % 9].map(|small| u8::try_from(small).expect("small"));
            world.apply(Step::Edit { node, doc: u16::try_from(n % 7).expect("small"), kind, value: n });
            world.apply(Step::Advance { ms: 1_000 });
        }
        world.heal();
        assert_eq!(world.violation(), None);
        let documents = world.node(3).expect("it runs").documents("");
        documents.into_iter().map(|listing| (listing.doc, listing.heads)).collect::<Vec<_>>()
    };
    let with = end(64 << 20);
    assert_eq!(with.len(), 7);
    assert_eq!(with, end(0));
}
