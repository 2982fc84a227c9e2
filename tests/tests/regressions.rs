//! Runs that once failed, each named after the bug that it holds down.

use peat_tests::world::{Mix, Profile, Setup, Step, Topology, World, run, walk};

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

/// "Nothing heard yet" was written as the digest of nothing. A node without documents took it for its own, believed that
/// the other side had heard it, and left a peer that had missed its first digest in the dark for ever.
#[test]
fn an_empty_node_says_its_digest_again_to_a_peer_that_missed_it() {
    for seed in 0..20 {
        let profile = Profile { loss: 3_000, ..Profile::LAN };
        let setup = Setup { datagram: 100, profile, ..Setup::quiet(seed, 2, 1) };
        let verdict = run(&setup, &[Step::Advance { ms: 20 }]);
        assert!(verdict.is_ok(), "{verdict}");
    }
}

/// Seeds of the walk that once failed, with what they failed by. They mean this for as long as the walk is the same.
#[test]
fn seeds_that_found_bugs_find_none() {
    const SEEDS: [(u64, &str); 9] = [
        (10, "a level survey ended the exchange that a late merge was to answer, and its successor never spoke"),
        (25, "a document that could not be loaded once was never offered again"),
        (30, "whoever waited for a document that could not be loaded waited for ever"),
        (37, "a frame that did not fit went before more important classes, and uncharged"),
        (40, "a drain ended with a document still to be saved"),
        (68, "a document that nobody had written stayed in the index after its last reader"),
        (77, "a compaction that came too late left the document unsaved for ever"),
        (1114, "a document waited twice to be written, and its second turn acknowledged what was not durable"),
        (1101, "a peer that was refused for want of room was forgotten, with the question that it had asked"),
    ];
    for (seed, bug) in SEEDS {
        let (setup, steps) = walk(seed, &Mix::default());
        let verdict = run(&setup, &steps);
        assert!(verdict.is_ok(), "{bug}: {verdict}");
    }
}
