use super::*;

const SETTLE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// What the other side says that sends us this much and takes nothing.
fn sending(one_way: Total) -> Summary {
    let shared = total(Sum::default());
    Summary { generation: 0, heard: 0, shared, seen: [0; 8], one_way: Some(one_way), complete: None }
}

/// A comparison of what the other side sends us, of which it said that it has `told`, ends: it was about `compared`.
fn after_comparing(told: u64, compared: u64) -> Survey {
    let theirs = Total { count: told, digest: [7; 32] };
    let mut survey = Survey { got: Some(sending(theirs)), ..Survey::default() };
    survey.ask(Asking::by_ranges(Subject::OneWay, 1));
    survey.compares(Subject::OneWay, compared);
    survey.asking = None;
    survey.rest(&Ours::default(), Time::ZERO, SETTLE, LONGEST);
    survey
}

#[test]
fn a_sketch_of_another_set_than_was_told_of_proves_nothing() {
    let ours = Ours::default();
    assert!(after_comparing(2, 2).is_level(&ours), "all of it is there");
    assert!(!after_comparing(2, 1).is_level(&ours), "one was left out of what was compared");
}

#[test]
fn what_was_found_and_is_not_there_keeps_a_comparison_from_proving_anything() {
    let theirs = Total { count: 2, digest: [7; 32] };
    let mut survey = Survey { got: Some(sending(theirs)), ..Survey::default() };
    survey.ask(Asking::by_ranges(Subject::OneWay, 1));
    survey.asking = None;
    survey.spoil();
    survey.rest(&Ours::default(), Time::ZERO, SETTLE, LONGEST);
    assert!(!survey.is_level(&Ours::default()));
}

#[test]
fn a_side_that_says_again_that_it_has_nothing_is_sent_everything_once_in_a_while() {
    let mut survey = Survey::default();
    assert!(survey.may_push_anew(Time::ZERO, LONGEST));
    let soon = Time::ZERO + (LONGEST - Duration::from_micros(1));
    assert!(!survey.may_push_anew(soon, LONGEST), "a few bytes ask for it");
    assert!(survey.may_push_anew(Time::ZERO + LONGEST, LONGEST));
}
