//! The checks of the rig are shown to fail: each is given one violation, and must report it by its name.

use automerge::ChangeHash;
use bytes::Bytes;
use peat_proto::policy::Class;
use peat_proto::{EditId, Lane, Reason, Time};

use super::heal::{run, run_with};
use super::setup::{Habit, Setup, Topology};
use super::step::Step;
use super::{Fault, Happening, Verdict, World};

const EDIT: Step = Step::Edit { node: 0, doc: 0, kind: 0, value: 1 };

/// Two nodes, and a document that both have.
fn pair() -> World {
    let mut world = World::new(Setup::quiet(1, 2, 4));
    world.apply(EDIT);
    world.converge();
    assert_eq!(world.violation(), None);
    world
}

/// Node 0 dials node 1 once more, after so many microseconds: the two greet each other, and fall silent again.
fn greet_after(world: &mut World, micros: u64) {
    let life = world.hosts[0].life;
    world.heap.after(micros, Happening::Dialled { from: 0, life, to: 1 });
}

fn reports(world: &World, words: &str) {
    let found = world.violation().unwrap_or_else(|| panic!("nothing was reported, least of all {words:?}"));
    assert!(found.what.contains(words), "{found}, and not {words:?}");
}

fn says(verdict: &Verdict, words: &str) {
    let found = verdict.violation.as_ref().unwrap_or_else(|| panic!("nothing was reported, least of all {words:?}"));
    assert!(found.what.contains(words), "{found}, and not {words:?}");
    assert!(!verdict.is_ok());
}

#[test]
fn a_document_that_one_node_lacks_is_reported() {
    let verdict = run(&Setup { topology: Topology::Apart, ..Setup::quiet(1, 2, 1) }, &[EDIT]);
    says(&verdict, "not equal after healing, for 150 s: node 1 has 0 documents, node 0 has 1");
}

#[test]
fn what_hostile_members_are_there_for_reaches_the_nodes() {
    let setup = Setup { hostile: vec![Habit::Oversized, Habit::Bomb], ..Setup::quiet(1, 2, 4) };
    let mut world = World::new(setup);
    for fault in [Fault::Oversized, Fault::Vast, Fault::Unfinished, Fault::Bomb, Fault::PackedBomb] {
        assert_eq!(world.fired.of(fault), 0, "{fault:?} before anybody spoke");
    }
    world.pass(120_000_000);
    for fault in [Fault::Oversized, Fault::Vast, Fault::Unfinished, Fault::Bomb, Fault::PackedBomb] {
        assert!(world.fired.of(fault) > 0, "{fault:?} never arrived");
    }
    assert_eq!(world.violation(), None);
    let stats = world.node(0).expect("it runs").stats();
    assert!(stats.refused > 0 && stats.closed > 0, "they were believed: {stats:?}");
}

#[test]
fn a_frame_that_is_filled_beyond_its_size_is_reported() {
    let filled = |frame| {
        let mut world = World::new(Setup { lazy: 50_000, ..Setup::quiet(1, 2, 20) });
        world.pass(1_000_000);
        world.setup.frame = frame;
        // Four documents of one class, with blobs of 4 KiB.
        for n in 0..4 {
            world.apply(Step::Edit { node: 0, doc: 5 * n, kind: 9, value: 4_171 * (u32::from(n) + 1) - 1 });
        }
        world.converge();
        world
    };
    assert_eq!(filled(16 << 10).violation(), None);
    reports(&filled(8), "frames are filled up to 8");
}

#[test]
fn nodes_that_go_on_talking_are_reported() {
    let mut world = pair();
    let settling = world.settling();
    greet_after(&mut world, settling + 1_000_000);
    world.check_silence();
    reports(&world, "frames in ten minutes in which nothing happened");
}

#[test]
fn an_edit_that_costs_too_much_is_reported() {
    let mut world = pair();
    for second in 1..20 {
        greet_after(&mut world, second * 5_000_000);
    }
    world.check_cost_of_an_edit();
    reports(&world, "one edit cost");
}

#[test]
fn a_frame_out_of_turn_is_reported() {
    let mut world = World::new(Setup { window: (0, 1), ..Setup::quiet(1, 2, 4) });
    world.pass(1_000_000);
    // Commands and cells, which do not leave.
    world.cut(0, 1);
    for doc in [0, 1, 0, 1] {
        world.apply(Step::Edit { node: 0, doc, kind: 0, value: doc.into() });
        world.pass(50_000);
    }
    let conn = world.net.between(0, 1)[0];
    let waiting = world.node(0).expect("it runs").waiting(conn);
    assert!(waiting.iter().any(|class| *class < Class::Low), "nothing waits");
    let frame = Bytes::from_static(&[0; 100]);
    let outcome = world.is_its_turn(0, conn, Lane::Class(Class::Low), &frame);
    assert!(outcome.is_err_and(|words| words.contains("Low went before")));
    let mut idle = pair();
    let conn = idle.net.between(0, 1)[0];
    assert_eq!(idle.is_its_turn(0, conn, Lane::Class(Class::Low), &frame), Ok(()));
}

#[test]
fn a_write_that_was_promised_and_is_missing_is_reported() {
    let promise = |doc: usize| {
        let lie = |world: &mut World| {
            let doc = world.setup.doc(doc);
            world.model.promise(&doc, ChangeHash([1; 32]));
        };
        run_with(&Setup::quiet(1, 2, 4), &[EDIT], 1, lie)
    };
    says(&promise(0), "was acknowledged as durable and is missing");
    says(&promise(1), "was acknowledged as durable and is missing");
}

#[test]
fn a_write_that_a_crash_lost_and_that_lives_on_is_reported() {
    let lie = |world: &mut World| {
        world.pass(1_000_000);
        let doc = world.setup.doc(0);
        let heads = world.node(0).and_then(|node| node.documents("").pop()).expect("it has one").heads;
        world.model.edited(0, &doc, EditId(9), heads.as_slice()[0]);
        world.model.crashed(0);
    };
    says(&run_with(&Setup::quiet(1, 2, 4), &[EDIT], 1, lie), "was lost in a crash and lives on elsewhere");
}

#[test]
fn a_panic_is_reported() {
    says(&run_with(&Setup::quiet(1, 2, 1), &[EDIT], 1, |_| panic!("planted")), "a panic: planted");
}

#[test]
fn an_error_in_the_log_is_reported() {
    let mut world = pair();
    tracing::error!(target: "peat_proto", "planted");
    world.apply(Step::Heal);
    reports(&world, "an error was logged");
}

#[test]
fn a_node_that_would_spin_is_reported() {
    let mut world = pair();
    world.check_deadline(0, Some((Time::ZERO, Reason::Hello(peat_proto::ConnId(0)))));
    reports(&world, "it would spin");
}

#[test]
fn a_node_above_its_budget_is_reported() {
    let mut world = pair();
    world.apply(Step::Pause { node: 1 });
    for value in 0..30 {
        world.apply(Step::Edit { node: 0, doc: 0, kind: 0, value });
    }
    world.pass(1_000_000);
    world.check();
    assert_eq!(world.violation(), None);
    // As if the budget had been nothing, and no frame had ever been seen.
    (world.setup.undurable, world.checks) = (0, super::check::Checks::default());
    world.hosts[1].unchecked = true;
    world.check();
    reports(&world, "bytes are not durable; 1024 at most");
}
