//! Runs that once failed, each named after the bug that it holds down. Most came out of the shrinker: what their steps have in
//! common with the bug's cause is chance and timing.

use peat_tests::legacy::{Dialect, Family};
use peat_tests::world::Step::{
    Advance, Connect, Crash, Cut, Delete, Deliver, Disconnect, Drop, Duplicate, Edit, Evict, FailLoads, FailWrites,
    Heal, Open, Partition, Reboot, Squeeze,
};
use peat_tests::world::{Fault, Fielded, Habit, Profile, Setup, Step, Topology, World, run};

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

fn nothing_is_violated(setup: Setup, steps: &[Step]) {
    assert_eq!(run(&setup, steps).violation, None);
}

/// A merge by a late worker found its exchange ended, because both sides had been level meanwhile, and began one that
/// never spoke.
#[test]
fn a_merge_that_ends_behind_its_exchange_is_answered() {
    nothing_is_violated(
        Setup { inline: 400, job: 2_000_000, ..Setup::quiet(2, 3, 1) },
        &[
            Edit { node: 2, doc: 0, kind: 6, value: 2_549_660_646 },
            Edit { node: 2, doc: 0, kind: 6, value: 1_450_452_493 },
            Edit { node: 0, doc: 0, kind: 5, value: 3_973_443_503 },
        ],
    );
}

/// A document that could not be loaded was taken for unreadable and never offered again.
#[test]
fn a_document_that_could_not_be_loaded_once_is_offered_again() {
    nothing_is_violated(
        Setup {
            datagram: 100,
            profile: Profile { loss: 2_244, duplicate: 670, ..Profile::SATELLITE },
            cache: 30_000,
            window: (0, 1),
            lazy: 2_000,
            disk: 100_000,
            ..Setup::quiet(141, 3, 10)
        },
        &[
            Advance { ms: 2_003 },
            Edit { node: 0, doc: 9, kind: 2, value: 2_830_616_284 },
            Advance { ms: 228 },
            Edit { node: 2, doc: 4, kind: 0, value: 350_634_432 },
            Advance { ms: 162 },
            FailLoads { node: 0, count: 194 },
            Advance { ms: 181 },
            Edit { node: 0, doc: 7, kind: 2, value: 3_690_515_747 },
            Advance { ms: 3_546 },
        ],
    );
}

/// Whoever waited for a document that could not be loaded was not told, and waited for ever.
#[test]
fn who_waits_for_a_document_learns_that_it_cannot_be_loaded() {
    nothing_is_violated(
        Setup {
            topology: Topology::Ring,
            datagram: 100,
            profile: Profile { loss: 4_617, ..Profile::WIFI },
            cache: 0,
            lazy: 200_000,
            ..Setup::quiet(21, 3, 1)
        },
        &[
            Advance { ms: 274 },
            Open { node: 1, doc: 0 },
            Advance { ms: 273 },
            Edit { node: 0, doc: 0, kind: 11, value: 179_294_794 },
            Advance { ms: 637 },
            Edit { node: 1, doc: 0, kind: 8, value: 3_324_841_188 },
            Edit { node: 0, doc: 0, kind: 1, value: 4_229_746_265 },
            Advance { ms: 405 },
            Edit { node: 1, doc: 0, kind: 5, value: 4_284_063_083 },
            Advance { ms: 318 },
            FailLoads { node: 2, count: 59 },
            Advance { ms: 633 },
        ],
    );
}

/// A frame that had been made and did not fit went before more important classes, and was not charged.
#[test]
fn a_frame_that_did_not_fit_waits_for_its_turn() {
    nothing_is_violated(
        Setup {
            profile: Profile { reset: 129, ..Profile::LAN },
            frame: 1_024,
            lazy: 200_000,
            ..Setup::quiet(39, 3, 10)
        },
        &[
            Edit { node: 1, doc: 0, kind: 8, value: 3_010_283_863 },
            Advance { ms: 184 },
            Edit { node: 0, doc: 1, kind: 9, value: 1_218_185_108 },
            Edit { node: 0, doc: 0, kind: 3, value: 16_934_061 },
            Edit { node: 0, doc: 1, kind: 9, value: 203_284_508 },
        ],
    );
}

/// Making a frame asked for a saved form, and the drain ended before it was made.
#[test]
fn a_drain_ends_when_what_its_frames_asked_for_is_done() {
    nothing_is_violated(
        Setup {
            datagram: 100,
            profile: Profile { loss: 1_093, ..Profile::LAN },
            cache: 30_000,
            ..Setup::quiet(5, 3, 10)
        },
        &[
            Advance { ms: 19 },
            Edit { node: 2, doc: 2, kind: 9, value: 3_859_179_888 },
            Edit { node: 2, doc: 7, kind: 3, value: 1_840_554_327 },
            Edit { node: 1, doc: 3, kind: 3, value: 3_517_904_752 },
            Advance { ms: 620 },
        ],
    );
}

/// A document that nobody had written stayed in the index when its last reader was gone.
#[test]
fn a_document_that_nobody_wrote_goes_with_its_last_reader() {
    nothing_is_violated(
        Setup {
            hostile: vec![Habit::Replay, Habit::LyingHeads],
            lazy: 2_000,
            disk: 100_000,
            ..Setup::quiet(55, 2, 10)
        },
        &[
            Edit { node: 1, doc: 2, kind: 5, value: 1_014_120_091 },
            Open { node: 0, doc: 0 },
            Advance { ms: 264 },
            Edit { node: 1, doc: 5, kind: 5, value: 3_559_861_969 },
            Advance { ms: 16_291 },
        ],
    );
}

/// A compaction by a late worker found nothing left to be written, and the document counted as unsaved for ever.
#[test]
fn a_compaction_that_comes_too_late_leaves_nothing_unsaved() {
    let edit = |node, kind, value| Edit { node, doc: 0, kind, value };
    nothing_is_violated(
        Setup {
            profile: Profile { burst: 0, reset: 280, hangup: 35, ..Profile::TACTICAL },
            undurable: 2_000,
            inline: 0,
            job: 2_000_000,
            lazy: 2_000,
            disk: 5_000,
            stormy: true,
            ..Setup::quiet(165, 3, 1)
        },
        &[
            Advance { ms: 669 },
            edit(2, 3, 3_116_007_277),
            edit(1, 5, 1_398_100_134),
            edit(0, 5, 3_990_361_356),
            Advance { ms: 115 },
            edit(2, 5, 1_005_043_178),
            Advance { ms: 94 },
            edit(1, 7, 1_201_069_033),
            edit(2, 6, 2_429_095_777),
            edit(2, 2, 994_217_418),
            Advance { ms: 14_627 },
            edit(0, 3, 4_247_661_103),
            edit(0, 8, 3_321_095_722),
            edit(2, 9, 2_592_982_417),
            edit(1, 8, 3_569_191_993),
            edit(1, 1, 1_812_878_698),
            Advance { ms: 208 },
            edit(2, 9, 2_450_823_484),
            edit(1, 8, 1_395_776_045),
            edit(1, 5, 1_903_060_756),
            edit(2, 9, 1_907_908_008),
            edit(1, 8, 3_423_227_895),
            edit(2, 0, 3_048_646_415),
            edit(0, 3, 2_182_528_418),
            edit(1, 4, 270_565_641),
            edit(2, 4, 2_387_349_864),
        ],
    );
}

/// A document whose batch failed went into the queue although it stood there already, and its second turn acknowledged
/// what was not durable.
#[test]
fn a_document_waits_once_to_be_written() {
    nothing_is_violated(
        Setup { profile: Profile::WIFI.calm(), ..Setup::quiet(58, 2, 1) },
        &[
            Advance { ms: 28 },
            Edit { node: 0, doc: 0, kind: 0, value: 832_759_542 },
            FailWrites { node: 1, count: 92 },
            Disconnect { conn: 133 },
            Edit { node: 0, doc: 0, kind: 7, value: 520_455_106 },
            Advance { ms: 206 },
        ],
    );
}

/// An exchange that began when a late merge was done left its document counted as equal on both sides. When the words that
/// followed were lost, neither side ever named the document again.
#[test]
fn a_document_that_is_asked_about_does_not_count_as_equal() {
    nothing_is_violated(
        Setup {
            profile: Profile { loss: 4_771, duplicate: 0, reorder: 0, ..Profile::WIFI },
            lazy: 2_000,
            disk: 500,
            ..Setup::quiet(36, 3, 1)
        },
        &[
            Edit { node: 1, doc: 0, kind: 1, value: 2_125_398_274 },
            Advance { ms: 679 },
            Edit { node: 0, doc: 0, kind: 6, value: 3_014_669_054 },
            Advance { ms: 104 },
        ],
    );
}

/// What a peer had refused for a while, and what was left out of the comparison for it, counted as equal when the rest was;
/// the exchange about it began beside that.
#[test]
fn what_was_refused_for_a_while_does_not_count_as_equal() {
    nothing_is_violated(
        Setup { cache: 0, ..Setup::quiet(1063, 2, 1) },
        &[
            Edit { node: 0, doc: 0, kind: 6, value: 4_027_519_919 },
            FailLoads { node: 1, count: 15 },
            Advance { ms: 108 },
            Edit { node: 0, doc: 0, kind: 1, value: 687_555_355 },
            Advance { ms: 60_187 },
        ],
    );
}

/// Two nodes whose stores failed at the same time refused each other's changes; each left the document out until the other
/// would try again, and both counted as level.
#[test]
fn two_that_refuse_each_other_s_changes_for_a_while_try_again() {
    nothing_is_violated(
        Setup {
            topology: Topology::Star,
            datagram: 100,
            profile: Profile { loss: 0, duplicate: 177, reorder: 769, ..Profile::SATELLITE },
            frame: 200,
            window: (0, 1),
            lazy: 200_000,
            disk: 5000,
            ..Setup::quiet(1759, 3, 1)
        },
        &[
            Advance { ms: 85 },
            Cut { from: 1, to: 1 },
            Advance { ms: 680 },
            FailLoads { node: 1, count: 238 },
            Advance { ms: 182 },
            Heal,
            Advance { ms: 1456 },
            Edit { node: 2, doc: 0, kind: 1, value: 1_070_488_470 },
            Advance { ms: 193 },
            Cut { from: 1, to: 1 },
            Advance { ms: 10_614 },
            Heal,
            Squeeze { from: 0, to: 0, ms: 5242 },
            Advance { ms: 3667 },
            Edit { node: 0, doc: 0, kind: 0, value: 2_076_201_536 },
            Evict { node: 1 },
            Advance { ms: 55 },
            Evict { node: 2 },
            FailLoads { node: 2, count: 229 },
            Advance { ms: 5942 },
            Edit { node: 0, doc: 0, kind: 4, value: 2_974_034_478 },
            Edit { node: 2, doc: 0, kind: 0, value: 464_578_651 },
            Squeeze { from: 0, to: 1, ms: 7359 },
            Edit { node: 0, doc: 0, kind: 8, value: 1_447_863_068 },
            Advance { ms: 412 },
            Edit { node: 0, doc: 0, kind: 8, value: 1_943_120_474 },
            Advance { ms: 3284 },
            Edit { node: 2, doc: 0, kind: 9, value: 2_828_942_812 },
            Edit { node: 0, doc: 0, kind: 1, value: 1_348_564_707 },
            Advance { ms: 582 },
            FailLoads { node: 0, count: 173 },
            Advance { ms: 193 },
            Edit { node: 0, doc: 0, kind: 5, value: 784_966_044 },
            Advance { ms: 790 },
            Edit { node: 0, doc: 0, kind: 4, value: 324_129_409 },
            Advance { ms: 665 },
            Edit { node: 0, doc: 0, kind: 5, value: 1_391_914_977 },
            Edit { node: 0, doc: 0, kind: 5, value: 3_916_600_085 },
            Advance { ms: 259 },
            Evict { node: 2 },
            Advance { ms: 206 },
            FailLoads { node: 2, count: 8 },
            Edit { node: 2, doc: 0, kind: 11, value: 2_802_803_600 },
            Evict { node: 0 },
            Advance { ms: 10_724 },
        ],
    );
}

/// A connection that had come to rest heard a summary that had been overtaken, and stayed at rest, unequal for ever.
#[test]
fn a_summary_that_arrives_late_does_not_end_the_comparison() {
    nothing_is_violated(
        Setup {
            datagram: 50,
            profile: Profile { loss: 923, duplicate: 1663, reorder: 928, ..Profile::SATELLITE },
            cache: 0,
            inline: 400,
            lazy: 2000,
            disk: 500,
            ..Setup::quiet(2537, 3, 1)
        },
        &[
            Advance { ms: 5243 },
            Crash { node: 2, keep: 13 },
            Advance { ms: 25_184 },
            Edit { node: 1, doc: 0, kind: 6, value: 494_240_017 },
            Edit { node: 2, doc: 0, kind: 7, value: 1_838_948_188 },
            Advance { ms: 343 },
            Reboot { node: 0 },
            Advance { ms: 575 },
            Edit { node: 2, doc: 0, kind: 0, value: 1_039_909_853 },
            Advance { ms: 432 },
            Duplicate { packet: 12_246 },
            Advance { ms: 170 },
            Edit { node: 0, doc: 0, kind: 0, value: 2_388_051_927 },
            Advance { ms: 306 },
            Edit { node: 1, doc: 0, kind: 1, value: 2_327_394_084 },
            Advance { ms: 15_457 },
            Edit { node: 1, doc: 0, kind: 8, value: 3_724_099_999 },
            Advance { ms: 357 },
            Edit { node: 2, doc: 0, kind: 0, value: 1_731_119_615 },
            Advance { ms: 1220 },
            Edit { node: 1, doc: 0, kind: 0, value: 1_803_483_275 },
            Advance { ms: 250 },
            Duplicate { packet: 46_307 },
            Advance { ms: 16_728 },
            Edit { node: 1, doc: 0, kind: 1, value: 1_053_601_605 },
            Advance { ms: 663 },
            Edit { node: 1, doc: 0, kind: 4, value: 921_756_259 },
            Advance { ms: 11_223 },
            Crash { node: 1, keep: 87 },
            FailWrites { node: 1, count: 19 },
            Advance { ms: 1447 },
            Edit { node: 2, doc: 0, kind: 6, value: 642_937_233 },
            Advance { ms: 624 },
            Reboot { node: 2 },
            Advance { ms: 347 },
            Edit { node: 2, doc: 0, kind: 1, value: 1_798_062_179 },
            Advance { ms: 838 },
            Duplicate { packet: 53_256 },
            Edit { node: 0, doc: 0, kind: 6, value: 1_276_017_758 },
            Advance { ms: 506 },
            Duplicate { packet: 368 },
            Advance { ms: 430 },
            Duplicate { packet: 37_309 },
            Duplicate { packet: 18_375 },
            Advance { ms: 989 },
            Crash { node: 2, keep: 28 },
            Advance { ms: 18_089 },
            Duplicate { packet: 35_543 },
            Edit { node: 0, doc: 0, kind: 8, value: 3_082_649_581 },
            Advance { ms: 1085 },
            Edit { node: 2, doc: 0, kind: 2, value: 1_583_821_137 },
            Advance { ms: 289 },
        ],
    );
}

/// Two nodes that sent each other the same document in pieces over datagrams both waited for the other's heads and said none
/// themselves: the pieces went to and fro for ever.
#[test]
fn two_that_send_each_other_a_document_in_pieces_come_to_an_end() {
    nothing_is_violated(
        Setup { topology: Topology::Star, datagram: 100, frame: 200, ..Setup::quiet(110_153, 3, 1) },
        &[
            Advance { ms: 447 },
            Edit { node: 1, doc: 0, kind: 6, value: 3_920_176_084 },
            Crash { node: 1, keep: 208 },
            Advance { ms: 441 },
            Edit { node: 0, doc: 0, kind: 1, value: 2_092_131_585 },
            Advance { ms: 19_227 },
            Edit { node: 1, doc: 0, kind: 9, value: 848_899_748 },
            Advance { ms: 43 },
            Edit { node: 2, doc: 0, kind: 1, value: 378_719_447 },
            Edit { node: 0, doc: 0, kind: 0, value: 3_919_748_795 },
            Partition { side: 3_375_026_985 },
            Edit { node: 1, doc: 0, kind: 0, value: 1_010_363_916 },
            Edit { node: 2, doc: 0, kind: 9, value: 3_205_281_099 },
            Advance { ms: 135 },
            Edit { node: 0, doc: 0, kind: 9, value: 1_105_605_390 },
            Crash { node: 2, keep: 181 },
            Edit { node: 1, doc: 0, kind: 1, value: 1_561_782_645 },
            Edit { node: 1, doc: 0, kind: 9, value: 2_243_980_481 },
            Edit { node: 1, doc: 0, kind: 0, value: 3_164_837_564 },
            Advance { ms: 13_107 },
            Edit { node: 1, doc: 0, kind: 2, value: 1_918_417_550 },
            Edit { node: 0, doc: 0, kind: 1, value: 806_616_437 },
            Edit { node: 0, doc: 0, kind: 2, value: 3_697_002_241 },
            Edit { node: 0, doc: 0, kind: 0, value: 1_230_563_444 },
            Connect { from: 1, to: 0 },
            Advance { ms: 3644 },
        ],
    );
}

/// Only a loading document is loaded: one that was deleted before its load was answered is none.
#[test]
fn a_document_is_deleted_while_it_is_loaded() {
    let setup = Setup { cache: 0, ..Setup::quiet(254, 2, 10) };
    let steps = [
        Edit { node: 1, doc: 2, kind: 3, value: 785155231 },
        Advance { ms: 11002 },
        Edit { node: 0, doc: 2, kind: 0, value: 3248065398 },
        Delete { node: 0, doc: 2 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Received bytes are counted until they are durable, those that a worker has when their document is deleted too.
#[test]
fn a_document_is_deleted_while_a_worker_has_it() {
    let setup = Setup { inline: 0, job: 2000000, ..Setup::quiet(1444, 2, 10) };
    let steps = [
        Edit { node: 0, doc: 1, kind: 0, value: 1122772900 },
        Advance { ms: 16221 },
        Edit { node: 1, doc: 1, kind: 8, value: 4126061916 },
        Advance { ms: 65 },
        Delete { node: 0, doc: 1 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
    let setup = Setup { seed: 3625, ..setup };
    let steps = [
        Edit { node: 0, doc: 1, kind: 1, value: 687559451 },
        Advance { ms: 9467 },
        Edit { node: 0, doc: 1, kind: 1, value: 1413745268 },
        Advance { ms: 189 },
        Delete { node: 1, doc: 1 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Who refused a document because its own copy could not be loaded left it out for ever, when the other side counted it as
/// equal since: one said that it had nothing, the other that there was nothing to send.
#[test]
fn what_was_refused_for_a_while_is_counted_again_by_who_refused_it() {
    let profile = Profile { loss: 4597, burst: 0, duplicate: 1813, reorder: 1816, ..Profile::TACTICAL };
    let setup = Setup { datagram: 100, profile, cache: 0, lazy: 2000, ..Setup::quiet(706_307, 3, 1) };
    let steps = [
        Advance { ms: 14_186 },
        Partition { side: 2_453_911_555 },
        Advance { ms: 344 },
        Connect { from: 0, to: 0 },
        Advance { ms: 522 },
        Connect { from: 1, to: 1 },
        Advance { ms: 367 },
        Edit { node: 2, doc: 0, kind: 4, value: 725_467_127 },
        Advance { ms: 14_561 },
        Connect { from: 0, to: 0 },
        FailLoads { node: 2, count: 183 },
        FailLoads { node: 1, count: 71 },
        Heal,
        Advance { ms: 481 },
        Connect { from: 2, to: 0 },
        Connect { from: 1, to: 0 },
        Advance { ms: 427 },
        Connect { from: 0, to: 1 },
        Edit { node: 2, doc: 0, kind: 9, value: 858_900_412 },
        Advance { ms: 583 },
        Duplicate { packet: 56_203 },
        Advance { ms: 1_798 },
        Partition { side: 2_289_391_459 },
        Advance { ms: 510 },
        Heal,
        Advance { ms: 491 },
        Connect { from: 2, to: 1 },
        Advance { ms: 19_120 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A snapshot of a document that was not known came while there was no room, and was to be asked for later: but of what is not
/// there nothing was asked, and who had sent it did not send it again.
#[test]
fn what_came_when_there_was_no_room_is_asked_for_on_the_legacy_wire() {
    let fielded = vec![Fielded { family: Family::NodeBinary, old: false, later: false, disk: true, dials: false }];
    let setup = Setup { legacy: 100, fielded, undurable: 500, ..Setup::quiet(10240, 3, 10) };
    let steps = [
        Step::FieldedEdit { peer: 24, doc: 26002, value: 3737389525 },
        Step::FieldedEdit { peer: 192, doc: 47176, value: 3884814321 },
        FailWrites { node: 1, count: 238 },
        Step::FieldedEdit { peer: 44, doc: 62275, value: 1178421006 },
        Edit { node: 0, doc: 0, kind: 2, value: 350644317 },
        Advance { ms: 189 },
        FailWrites { node: 1, count: 166 },
        Step::FieldedEdit { peer: 230, doc: 4849, value: 765399920 },
        Advance { ms: 14030 },
        Edit { node: 2, doc: 0, kind: 8, value: 556702455 },
        Step::FieldedEdit { peer: 52, doc: 52559, value: 3272604187 },
        Advance { ms: 224 },
        Edit { node: 0, doc: 0, kind: 5, value: 1849076366 },
        Step::FieldedEdit { peer: 242, doc: 53549, value: 2733461210 },
        Advance { ms: 737 },
        Step::FieldedEdit { peer: 28, doc: 59457, value: 546278258 },
        Step::FieldedEdit { peer: 85, doc: 30675, value: 2248839748 },
        Reboot { node: 0 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A fielded peer that keeps quiet about its last edits, because it made them soon after others, told a node that had dialled it
/// of them when they were next edited or never. Between such peers a connection is a minute old at most.
#[test]
fn what_a_fielded_peer_does_not_say_comes_with_a_new_connection() {
    let fielded = vec![Fielded { family: Family::HostRuntime, old: false, later: false, disk: true, dials: false }];
    let setup = Setup { datagram: 50, legacy: 30, proof: Some(Dialect::P), fielded, ..Setup::quiet(3130, 3, 10) };
    let steps = [
        Step::FieldedEdit { peer: 16, doc: 47067, value: 81057025 },
        Step::FieldedEdit { peer: 138, doc: 47135, value: 4256345294 },
        Advance { ms: 82 },
        Step::FieldedRestart { peer: 22 },
        Advance { ms: 365 },
        Edit { node: 1, doc: 1, kind: 4, value: 3132108051 },
        Advance { ms: 284 },
        Step::FieldedEdit { peer: 196, doc: 25048, value: 1655559388 },
        Advance { ms: 550 },
        Step::FieldedEdit { peer: 112, doc: 19287, value: 1351430449 },
        Advance { ms: 424 },
        Step::FieldedEdit { peer: 41, doc: 34232, value: 2218765116 },
        Advance { ms: 30 },
        Crash { node: 0, keep: 110 },
        Advance { ms: 18864 },
        Step::FieldedEdit { peer: 214, doc: 15778, value: 2153902193 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A member said that a document was deleted which nobody may delete, and on our own wire it was believed.
#[test]
fn nobodys_word_deletes_what_may_not_be_deleted() {
    for seed in 0..4 {
        let mut world =
            World::new(Setup { hostile: vec![Habit::Forger, Habit::Stranger], ..Setup::quiet(seed, 2, 10) });
        for doc in 0..10 {
            world.apply(Step::Edit { node: 0, doc, kind: 0, value: 1 });
        }
        (0..60).for_each(|_| world.pass(1_000_000));
        world.heal();
        assert_eq!(world.violation(), None);
        assert!(world.fired().of(Fault::Forgery) > 20);
        let node = world.node(1).expect("it runs");
        assert_eq!(node.documents("low:").len(), 2);
        assert!(node.deleted("cells:").len() == 2, "where it may, a member's word counts");
    }
}

/// While a worker was at one snapshot there was no room for the next, and when the first was taken in both were forgotten.
#[test]
fn what_there_was_no_room_for_is_not_taken_for_what_came_before_it() {
    let fielded = vec![Fielded { family: Family::NodeBinary, old: false, later: true, disk: false, dials: true }];
    let setup = Setup { topology: Topology::Star, legacy: 30, fielded, ..Setup::quiet(20141, 3, 10) };
    let setup = Setup { undurable: 500, inline: 400, job: 2_000_000, ..setup };
    let steps = [
        Edit { node: 1, doc: 2, kind: 5, value: 964_118_185 },
        Edit { node: 0, doc: 1, kind: 9, value: 647_121_303 },
        Advance { ms: 150 },
        Edit { node: 0, doc: 1, kind: 6, value: 4_274_728_715 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A document was sent that wanted no answer, and the disk of who received it failed. That it asked for it by name changed nothing:
/// it was held for known there until the sets of documents were compared again, minutes later.
#[test]
fn what_is_asked_for_by_name_is_not_held_for_known() {
    let setup = Setup {
        topology: Topology::Star,
        profile: Profile::SATELLITE,
        undurable: 500,
        inline: 400,
        job: 20000,
        ..Setup::quiet(841472, 3, 10)
    };
    let steps = [
        Edit { node: 2, doc: 8, kind: 9, value: 184671771 },
        Step::Pause { node: 0 },
        FailWrites { node: 1, count: 11 },
        Edit { node: 1, doc: 1, kind: 3, value: 85281730 },
        Step::Pause { node: 2 },
        Advance { ms: 13974 },
        FailWrites { node: 1, count: 170 },
        Cut { from: 1, to: 1 },
        Edit { node: 0, doc: 9, kind: 9, value: 3975439113 },
        Edit { node: 0, doc: 1, kind: 4, value: 3000571906 },
        Edit { node: 2, doc: 6, kind: 9, value: 2581880472 },
        Advance { ms: 18896 },
        Edit { node: 2, doc: 1, kind: 6, value: 2613879023 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A document that an application had created and lost again was on everybody's lips: fielded peers asked about it, were told
/// that there is nothing, announced that to everybody, and asked again, 150 times a second.
#[test]
fn of_a_document_that_nobody_has_there_is_no_endless_talk() {
    use peat_tests::legacy::Family::HostRuntime;
    let setup = Setup {
        fielded: vec![
            Fielded { family: HostRuntime, old: true, later: false, disk: false, dials: false },
            Fielded { family: HostRuntime, old: true, later: false, disk: false, dials: false },
            Fielded { family: HostRuntime, old: true, later: true, disk: true, dials: true },
        ],
        ..Setup::quiet(880123, 2, 1)
    };
    let steps = [
        Advance { ms: 27 },
        Step::FieldedEdit { peer: 82, doc: 20003, value: 3011454299 },
        Step::FieldedRestart { peer: 139 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A document was given up, then there was no room for what a peer sent of it; when the first was over, it waited for the end
/// of the second, and nothing told it.
#[test]
fn what_was_given_up_and_put_off_is_tried_again() {
    use peat_tests::legacy::Family::{HostRuntime, NodeBinary};
    use peat_tests::world::Step::FieldedEdit;
    let setup = Setup {
        legacy: 100,
        fielded: vec![
            Fielded { family: HostRuntime, old: true, later: true, disk: false, dials: true },
            Fielded { family: NodeBinary, old: true, later: false, disk: true, dials: false },
        ],
        undurable: 2000,
        ..Setup::quiet(870090, 3, 10)
    };
    let steps = [
        Advance { ms: 386 },
        Edit { node: 2, doc: 1, kind: 2, value: 4124517536 },
        Advance { ms: 510 },
        FailWrites { node: 2, count: 34 },
        Advance { ms: 295 },
        FieldedEdit { peer: 114, doc: 14485, value: 3778964948 },
        Advance { ms: 336 },
        FieldedEdit { peer: 19, doc: 42031, value: 539213718 },
        FailLoads { node: 2, count: 16 },
        Advance { ms: 859 },
        FieldedEdit { peer: 164, doc: 20921, value: 4200106898 },
        Evict { node: 2 },
        Edit { node: 1, doc: 2, kind: 9, value: 1686197095 },
        Advance { ms: 997 },
        Edit { node: 0, doc: 2, kind: 8, value: 830529389 },
        Advance { ms: 538 },
        FieldedEdit { peer: 176, doc: 6852, value: 1915899050 },
        Advance { ms: 485 },
        Edit { node: 0, doc: 2, kind: 4, value: 70842781 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// It went on losing what little was said, and one edit cost 49 frames instead of 32 at most.
#[test]
fn a_burst_of_losses_ends_when_its_path_is_calmed() {
    let setup = Setup {
        topology: Topology::Line,
        datagram: 100,
        profile: Profile::TACTICAL,
        disk: 100000,
        ..Setup::quiet(2095075, 3, 1)
    };
    let steps = [
        FailWrites { node: 2, count: 88 },
        Advance { ms: 387 },
        Deliver { packet: 50691 },
        FailWrites { node: 1, count: 61 },
        Advance { ms: 7714 },
        FailWrites { node: 0, count: 249 },
        Disconnect { conn: 46 },
        Edit { node: 0, doc: 0, kind: 1, value: 904652546 },
        Advance { ms: 8188 },
        Edit { node: 0, doc: 0, kind: 5, value: 2551304666 },
        Advance { ms: 158 },
        Partition { side: 3339623762 },
        Advance { ms: 480 },
        Heal,
        Advance { ms: 556 },
        Drop { packet: 36581 },
        Advance { ms: 1567 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// What was held of a stream that was reset meanwhile was never given back, and nothing more arrived on the connection.
#[test]
fn credit_that_is_held_of_a_broken_stream_is_given_back() {
    let setup = Setup { undurable: 4000, ..Setup::quiet(5000193, 3, 1) };
    let steps = [
        Edit { node: 2, doc: 0, kind: 3, value: 233798225 },
        FailWrites { node: 2, count: 101 },
        Advance { ms: 967 },
        Edit { node: 0, doc: 0, kind: 9, value: 4050099393 },
        Advance { ms: 543 },
        Drop { packet: 34613 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// It was on its way in pieces when it was deleted; who asked beside them was told that there was nothing.
#[test]
fn what_is_deleted_while_it_is_sent_in_pieces_is_said_to_be_deleted() {
    let setup = Setup {
        topology: Topology::Ring,
        profile: Profile { reset: 295, hangup: 54, ..Profile::TACTICAL },
        hostile: vec![Habit::Garbage],
        frame: 1024,
        window: (0, 300),
        sketches: 0,
        inline: 400,
        job: 2000000,
        disk: 5000,
        ..Setup::quiet(7010175, 3, 10)
    };
    let steps = [
        Edit { node: 1, doc: 0, kind: 9, value: 3326042554 },
        Edit { node: 0, doc: 2, kind: 0, value: 2702695409 },
        Edit { node: 2, doc: 1, kind: 4, value: 850709843 },
        Edit { node: 2, doc: 2, kind: 8, value: 2834529071 },
        Advance { ms: 95 },
        Edit { node: 2, doc: 1, kind: 2, value: 3130224383 },
        Advance { ms: 373 },
        Deliver { packet: 64675 },
        Advance { ms: 29514 },
        Edit { node: 2, doc: 1, kind: 8, value: 1657330549 },
        Edit { node: 2, doc: 2, kind: 9, value: 2432076648 },
        Advance { ms: 261 },
        Edit { node: 0, doc: 2, kind: 9, value: 4125391039 },
        Edit { node: 2, doc: 2, kind: 1, value: 58739247 },
        Squeeze { from: 0, to: 0, ms: 5509 },
        Advance { ms: 457 },
        Deliver { packet: 53469 },
        Advance { ms: 41 },
        Edit { node: 0, doc: 0, kind: 1, value: 3979061315 },
        Advance { ms: 93 },
        Edit { node: 0, doc: 0, kind: 1, value: 862541645 },
        Edit { node: 2, doc: 1, kind: 9, value: 523776621 },
        Advance { ms: 870 },
        Delete { node: 2, doc: 1 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A node in a hierarchy wrote to a document, and the node above it had the same document sent by another: what it got then
/// moved nothing and was not followed, and neither side asked, for the one waited to be sent what the other had sent.
#[test]
fn what_is_sent_one_way_and_was_there_already_is_known_to_have_come() {
    let setup = Setup { ranks: vec![1, 0, 2], ..Setup::quiet(500079, 3, 1) };
    let steps = [
        Advance { ms: 92 },
        Edit { node: 1, doc: 0, kind: 0, value: 1699071482 },
        Edit { node: 2, doc: 0, kind: 6, value: 930010736 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Who only sends a document does not know the heads of who only takes it, once that has written to it: it asked again and
/// again whether all had come.
#[test]
fn who_takes_a_document_one_way_says_what_of_it_has_come() {
    let setup = Setup { ranks: vec![1, 0, 2], ..Setup::quiet(500079, 3, 10) };
    let steps = [
        Edit { node: 2, doc: 9, kind: 3, value: 1532258611 },
        Edit { node: 1, doc: 0, kind: 6, value: 212834443 },
        Advance { ms: 101 },
        Edit { node: 0, doc: 9, kind: 5, value: 2532223121 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// A document that was found to differ moved on before it was spoken of, and everything of the other side's set counted as
/// there without it.
#[test]
fn what_moved_on_since_it_was_found_to_differ_one_way_is_not_held_for_there() {
    let profile = Profile { loss: 0, burst: 0, ..Profile::TACTICAL };
    let setup = Setup { profile, ranks: vec![0, 2, 0], ..Setup::quiet(501537, 2, 1) };
    let steps = [
        Advance { ms: 215 },
        Edit { node: 0, doc: 0, kind: 5, value: 1730246369 },
        Advance { ms: 201 },
        Edit { node: 1, doc: 0, kind: 4, value: 1884252094 },
        Advance { ms: 296 },
        Edit { node: 1, doc: 0, kind: 2, value: 2293116108 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Of two frames with changes one came, and then the connection was lost: with the one, everything that its heads stand for
/// counted as there, on the next connection too.
#[test]
fn a_part_of_what_is_sent_one_way_does_not_count_as_all_of_it() {
    let setup = Setup {
        profile: Profile::SATELLITE.calm(),
        ranks: vec![0, 1],
        frame: 200,
        lazy: 1_000,
        ..Setup::quiet(1, 2, 1)
    };
    let edit = |value| Edit { node: 0, doc: 0, kind: 0, value };
    let steps = [
        Advance { ms: 3_000 },
        edit(1),
        Advance { ms: 5_000 },
        edit(2),
        edit(3),
        edit(4),
        edit(5),
        Advance { ms: 20 },
        Deliver { packet: 0 },
        Disconnect { conn: 0 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Who sends a document in pieces does not name its heads: who takes it one way, and has written to it, was asked for no more
/// and asked for ever.
#[test]
fn what_is_sent_one_way_in_pieces_is_known_to_have_come() {
    let profile = Profile { loss: 0, ..Profile::SATELLITE };
    let setup = Setup { profile, ranks: vec![1, 0, 2], frame: 1024, ..Setup::quiet(3002821, 3, 1) };
    let steps = [
        Advance { ms: 14264 },
        Edit { node: 1, doc: 0, kind: 9, value: 2372332472 },
        Advance { ms: 187 },
        Edit { node: 0, doc: 0, kind: 8, value: 3451929225 },
        Advance { ms: 278 },
        Edit { node: 2, doc: 0, kind: 6, value: 748978618 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}

/// Its marker took a document out of what one side has to send, and the other went on counting it as equal: it had nothing to
/// send to a side that had nothing, and neither asked.
#[test]
fn what_counted_as_equal_is_sent_to_a_side_that_has_nothing_any_more() {
    let profile = Profile { reset: 208, ..Profile::LAN };
    let hostile = vec![Habit::Forger, Habit::Flood];
    let setup = Setup { profile, ranks: vec![2, 2, 0], hostile, ..Setup::quiet(3001185, 3, 10) };
    assert_eq!(run(&setup, &[Advance { ms: 38422 }]).violation, None);
}

/// A comparison was dropped because the other side left out what had been refused; and everything that its Summary had counted
/// before, the refused document too, counted as there.
#[test]
fn a_comparison_that_was_dropped_proves_nothing() {
    let profile = Profile { hangup: 20, ..Profile::SATELLITE };
    let budgets = Setup { cache: 0, inline: 0, job: 20000, lazy: 2000, disk: 500, ..Setup::quiet(3000176, 3, 10) };
    let setup = Setup { datagram: 50, profile, ranks: vec![2, 1, 2], ..budgets };
    let steps = [
        Advance { ms: 18664 },
        Edit { node: 1, doc: 5, kind: 1, value: 276787198 },
        Advance { ms: 278 },
        Edit { node: 1, doc: 2, kind: 6, value: 2533445731 },
        FailLoads { node: 0, count: 86 },
        Advance { ms: 210 },
        Deliver { packet: 16099 },
        Drop { packet: 2753 },
        Advance { ms: 12 },
        Edit { node: 2, doc: 9, kind: 5, value: 1315617016 },
        Deliver { packet: 56365 },
        Edit { node: 1, doc: 5, kind: 1, value: 4022371984 },
        Crash { node: 0, keep: 157 },
        Advance { ms: 16254 },
        Disconnect { conn: 75 },
    ];
    assert_eq!(run(&setup, &steps).violation, None);
}
