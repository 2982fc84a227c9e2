//! Reconciliation as coded: what wire.md 7.5 says of it.

use super::super::negentropy::Side;
use super::*;

fn quiet(proper: bool) -> Config {
    let mut config = Config { poll: Duration::from_secs(86_400), ..Config::node_binary() };
    (config.warts.answers_as_initiator, config.warts.items_are_new) = (!proper, !proper);
    config
}

/// A mesh in which the first member has `first` documents and the second `second` of its own beside `common` ones.
fn sets(proper: bool, common: usize, first: usize, second: usize) -> Mesh {
    let mut mesh = pair(quiet(proper), quiet(proper));
    for (members, count, name) in
        [(vec![0, 1], common, "common"), (vec![0], first, "first"), (vec![1], second, "second")]
    {
        for number in 0..count {
            for member in &members {
                let key = format!("tracks:{name}-{number}");
                mesh.with(*member, |it, now| it.put(now, &key, "f", Some(&Field::Int(1))));
            }
        }
    }
    mesh
}

fn reconcile(mesh: &mut Mesh, fire_and_forget: bool) {
    mesh.with(0, |it, now| it.reconcile(now, id(2), fire_and_forget));
    mesh.run(10 * SECOND);
}

#[test]
fn identical_sets_end_in_a_failure_of_who_asked() {
    let mut mesh = sets(false, 5, 0, 0);
    reconcile(&mut mesh, false);
    assert_eq!(mesh.members[0].stats().reconciled, (0, 1));
    assert_eq!(mesh.members[1].stats().reconciled, (1, 0));
}

#[test]
fn below_32_documents_only_the_acceptors_own_move() {
    let mut mesh = sets(false, 5, 3, 4);
    reconcile(&mut mesh, false);
    assert_eq!(mesh.members[0].documents().len(), 12);
    assert_eq!(mesh.members[1].documents().len(), 9);
    assert_eq!(mesh.members[0].stats().reconciled, (0, 1));
}

#[test]
fn from_32_documents_up_only_the_initiators_own_move() {
    let mut mesh = sets(false, 40, 2, 2);
    reconcile(&mut mesh, false);
    assert_eq!(mesh.members[0].documents().len(), 42);
    assert_eq!(mesh.members[1].documents().len(), 44);
    assert_eq!(mesh.members[0].stats().reconciled, (1, 0));
}

#[test]
fn other_clocks_make_all_of_32_documents_differ_and_none_of_31() {
    for (count, differ) in [(31, 0), (32, 32), (100, 100)] {
        let keys: Vec<String> = (0..count).map(|number| format!("tracks:{number}")).collect();
        let side = |second| Side::new(keys.iter().map(|key| (key.as_str(), second))).expect("a side");
        let (mut initiator, mut responder) = (side(1_700_000_000), side(1_700_000_001));
        let mut message = Some(initiator.initiate().expect("an opening"));
        let (mut have, mut need, mut rounds) = (0, 0, 0);
        while let Some(said) = message {
            let answer = responder.reconcile(&said).expect("an answer").next.expect("a responder always answers");
            let step = initiator.reconcile(&answer).expect("a step");
            (have, need, rounds) = (have + step.have.len(), need + step.need, rounds + 1);
            message = step.next;
        }
        assert_eq!((have, need), (differ, differ));
        assert!(rounds <= 3);
    }
}

#[test]
fn a_changed_document_is_not_found() {
    let mut mesh = sets(false, 5, 0, 1);
    mesh.with(1, |it, now| it.put(now, "tracks:common-0", "f", Some(&Field::Int(2))));
    reconcile(&mut mesh, false);
    assert_eq!(mesh.members[0].fields("tracks:common-0")["f"], Field::Int(1));
    assert_eq!(mesh.members[0].documents().len(), 6);
}

#[test]
fn fire_and_forget_closes_the_way_of_its_only_answer() {
    let mut mesh = sets(false, 40, 2, 2);
    reconcile(&mut mesh, true);
    assert_eq!((mesh.members[0].documents().len(), mesh.members[1].documents().len()), (42, 42));
}

#[test]
fn against_a_proper_responder_the_initiator_pushes_what_is_missing() {
    for (common, first, second) in [(5, 3, 2), (100, 3, 2), (0, 40, 0)] {
        let mut mesh = sets(true, common, first, second);
        reconcile(&mut mesh, false);
        let expected = common + first + second;
        assert_eq!(mesh.members[1].documents().len(), expected, "{common}");
        assert_eq!(mesh.members[0].documents().len(), expected - second);
        assert_eq!(mesh.members[0].stats().reconciled, (1, 0));
    }
}
