//! Runs that once failed, each named after the bug that it holds down.

use peat_tests::world::{Mix, Setup, Step, Topology, World, run, walk};

/// New documents and edits waited for the next comparison of digests, ever more rarely made, until the two sets had been
/// equal once: a fleet that was written to from the start took 14 s to agree on a quiet cable.
#[test]
fn what_is_written_before_the_first_equality_travels_at_once() {
    for cache in [64 << 20, 0] {
        let mut world = World::new(Setup { cache, topology: Topology::Line, ..Setup::quiet(9, 4, 8) });
        for n in 0..14_u8 {
            world.apply(Step::Edit { node: n % 4, doc: u16::from(n % 7), kind: n % 9, value: u32::from(n) });
            world.apply(Step::Advance { ms: 1_000 });
            let heads = |node: usize| {
                let documents = world.node(node).expect("it runs").documents("");
                documents.into_iter().map(|listing| (listing.doc, listing.heads)).collect::<Vec<_>>()
            };
            assert!((1..4).all(|node| heads(node) == heads(0)), "after {n} writes, with a cache of {cache}");
        }
        assert_eq!(world.violation(), None);
    }
}

/// Seeds of the walk that found a bug, as long as the walk means the same.
fn seeds(seeds: &[u64]) {
    for seed in seeds {
        let (setup, steps) = walk(*seed, &Mix::default());
        let verdict = run(&setup, &steps);
        assert!(verdict.is_ok(), "{verdict}");
    }
}
