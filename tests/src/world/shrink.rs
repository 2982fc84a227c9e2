//! Making a failing run small.

use std::fmt::Write;

use super::heal::run;
use super::step::Step;
use super::verdict::Violation;
use super::{Setup, Verdict};

/// Leaves out steps as long as the run still fails in the same way: halves first, then ever smaller parts (delta
/// debugging, Zeller and Hildebrandt 2002). Runs at most `budget` worlds.
#[must_use]
pub fn shrink(setup: &Setup, steps: &[Step], verdict: &Verdict, budget: usize) -> Vec<Step> {
    let Some(first) = &verdict.violation else { return steps.to_vec() };
    let fails = |steps: &[Step]| run(setup, steps).violation.is_some_and(|found: Violation| found.resembles(first));
    let mut kept = steps.get(..=verdict.steps).unwrap_or(steps).to_vec();
    let mut left = budget;
    let mut part = kept.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let before = kept.len();
        while from < kept.len() && left > 0 {
            let without: Vec<Step> = kept
                .iter()
                .enumerate()
                .filter(|(n, _)| !(from..from + part).contains(n))
                .map(|(_, step)| *step)
                .collect();
            left -= 1;
            if fails(&without) { kept = without } else { from += part }
        }
        if left == 0 || (part == 1 && kept.len() == before) {
            return kept;
        }
        part = part.div_ceil(2).max(1);
    }
}

/// The run as a test to paste into `tests/tests/regressions.rs`.
#[must_use]
pub fn as_test(setup: &Setup, steps: &[Step], violation: &Violation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "/// {violation}");
    let _ = writeln!(text, "#[test]\nfn name_it_after_the_bug() {{");
    let _ = writeln!(text, "    use peat_tests::world::{{Habit::*, Profile, Setup, Step::*, Topology::*, run}};");
    let setup = format!("{setup:?}").replace("hostile: [", "hostile: vec![");
    let _ = writeln!(text, "    let setup = {setup};");
    let _ = writeln!(text, "    let steps = [");
    for step in steps {
        let _ = writeln!(text, "        {step:?},");
    }
    let _ = writeln!(text, "    ];\n    assert_eq!(run(&setup, &steps).violation, None);\n}}");
    text
}
