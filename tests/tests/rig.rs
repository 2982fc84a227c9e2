//! What the rig prints for a failed run is a test as it stands.

use peat_proto::Time;
use peat_tests::legacy::{Dialect, Family};
use peat_tests::world::{Fielded, Habit, Profile, Setup, Step, Topology, Violation, as_test};

/// Compiles the text, so that it names everything that it uses, and nothing else.
mod pasted {
    include!("rig/pasted.in");
}

#[test]
fn a_failed_run_is_printed_as_a_test_that_compiles_as_it_stands() {
    let fielded = Fielded { family: Family::NodeBinary, old: true, later: false, disk: true, dials: false };
    let setup = Setup {
        topology: Topology::Ring,
        proof: Some(Dialect::M),
        profile: Profile { loss: 210, ..Profile::WIFI },
        hostile: vec![Habit::Flood],
        fielded: vec![fielded],
        cache: 0,
        ..Setup::quiet(7, 3, 4)
    };
    let steps = [
        Step::Edit { node: 0, doc: 1, kind: 0, value: 5 },
        Step::FieldedEdit { peer: 0, doc: 2, value: 6 },
        Step::Advance { ms: 900 },
    ];
    let violation =
        Violation { at: Time::from_micros(1_000_000), member: Some(1), what: "planted\nin lines".to_owned() };
    assert_eq!(as_test(&setup, &steps, &violation), include_str!("rig/pasted.in"));
}

#[test]
fn a_printed_test_imports_no_more_than_it_uses() {
    let violation = Violation { at: Time::ZERO, member: None, what: "planted".to_owned() };
    let text = as_test(&Setup::quiet(1, 2, 3), &[], &violation);
    assert!(text.contains("    use peat_tests::world::{Setup, run};\n"), "{text}");
    assert!(!text.contains("legacy"), "{text}");
}
