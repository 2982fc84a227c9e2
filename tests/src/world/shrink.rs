//! Making a failing run small.

use std::fmt::Write;

use super::heal::run;
use super::link::Profile;
use super::setup::{Setup, Topology};
use super::step::Step;
use super::verdict::{Verdict, Violation};

/// Leaves out and simplifies what it can as long as the run still fails in the same way: steps, halves of them first and
/// then ever smaller parts (delta debugging, Zeller and Hildebrandt 2002), pauses between them, and what makes the setup
/// differ from a quiet world. Runs at most `budget` worlds. Answers what the smallest run violates; `None` if nothing failed.
#[must_use]
pub fn shrink(setup: &Setup, steps: &[Step], verdict: &Verdict, budget: usize) -> Option<Shrunken> {
    shrink_by(run, setup, steps, verdict, budget)
}

/// A failed run, made small.
#[derive(Debug)]
pub struct Shrunken {
    /// What is left of its setup.
    pub setup: Setup,
    /// What is left of its steps.
    pub steps: Vec<Step>,
    /// What these violate.
    pub violation: Violation,
}

/// The same for any judge.
fn shrink_by(
    judge: impl Fn(&Setup, &[Step]) -> Verdict,
    setup: &Setup,
    steps: &[Step],
    verdict: &Verdict,
    budget: usize,
) -> Option<Shrunken> {
    let violation = verdict.violation.clone()?;
    let reached = steps.get(..verdict.tried).unwrap_or(steps);
    let steps = reached.iter().map(|step| step.plain(setup)).collect();
    let smallest = Shrunken { setup: setup.clone(), steps, violation };
    let mut search = Search { judge, left: budget, smallest };
    while search.leave_out() | search.join_pauses() | search.simplify() {}
    let mut smallest = search.smallest;
    smallest.steps = smallest.steps.iter().map(|step| step.plain(&smallest.setup)).collect();
    Some(smallest)
}

struct Search<J> {
    judge: J,
    /// Worlds that may still be run.
    left: usize,
    /// The smallest failing run so far.
    smallest: Shrunken,
}

impl<J: Fn(&Setup, &[Step]) -> Verdict> Search<J> {
    /// Takes a smaller run if it fails in the same way.
    fn attempt(&mut self, setup: &Setup, steps: &[Step]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let found = (self.judge)(setup, steps).violation.filter(|found| found.resembles(&self.smallest.violation));
        let Some(violation) = found else { return false };
        self.smallest = Shrunken { setup: setup.clone(), steps: steps.to_vec(), violation };
        true
    }

    fn leave_out(&mut self) -> bool {
        let before = self.smallest.steps.len();
        let setup = self.smallest.setup.clone();
        let mut part = before.div_ceil(2).max(1);
        loop {
            let mut from = 0;
            let begun = self.smallest.steps.len();
            while from < self.smallest.steps.len() && self.left > 0 {
                let mut without = self.smallest.steps.clone();
                without.drain(from..(from + part).min(without.len()));
                if !self.attempt(&setup, &without) {
                    from += part;
                }
            }
            if self.left == 0 || (part == 1 && self.smallest.steps.len() == begun) {
                return self.smallest.steps.len() < before;
            }
            part = part.div_ceil(2).max(1);
        }
    }

    fn join_pauses(&mut self) -> bool {
        let before = self.smallest.steps.len();
        let setup = self.smallest.setup.clone();
        let mut at = 0;
        while let Some([one, two]) = self.smallest.steps.get(at..at + 2) {
            let joined = match (one, two) {
                (Step::Advance { ms: one }, Step::Advance { ms: two }) => one.checked_add(*two),
                _ => None,
            };
            let mut shorter = self.smallest.steps.clone();
            shorter.remove(at);
            match joined {
                Some(ms) => {
                    shorter[at] = Step::Advance { ms };
                    if !self.attempt(&setup, &shorter) {
                        at += 1;
                    }
                }
                None => at += 1,
            }
        }
        self.smallest.steps.len() < before
    }

    fn simplify(&mut self) -> bool {
        let mut simpler = false;
        for change in SIMPLER {
            let mut setup = self.smallest.setup.clone();
            change(&mut setup);
            let steps = self.smallest.steps.clone();
            simpler |= setup != self.smallest.setup && self.attempt(&setup, &steps);
        }
        simpler
    }
}

/// What may be simpler about a setup: each makes it more like [`Setup::quiet`], and none can be made twice.
const SIMPLER: &[fn(&mut Setup)] = &[
    |setup| setup.hostile.clear(),
    |setup| setup.ranks.clear(),
    |setup| setup.fielded.clear(),
    |setup| setup.legacy = 0,
    |setup| setup.proof = None,
    |setup| setup.profile = Profile::LAN,
    |setup| setup.profile = setup.profile.calm(),
    |setup| setup.profile.loss = 0,
    |setup| setup.profile.burst = 0,
    |setup| setup.profile.duplicate = 0,
    |setup| setup.profile.reorder = 0,
    |setup| setup.profile.reset = 0,
    |setup| setup.profile.hangup = 0,
    |setup| setup.datagram = 0,
    |setup| setup.nodes = setup.nodes.min(2),
    |setup| setup.docs = setup.docs.min(1),
    |setup| setup.topology = Topology::Full,
    |setup| setup.stormy = false,
    |setup| setup.skew = 0,
    |setup| setup.lazy = 0,
    |setup| setup.job = 0,
    |setup| setup.cache = quiet(setup).cache,
    |setup| setup.frame = quiet(setup).frame,
    |setup| setup.window = quiet(setup).window,
    |setup| setup.undurable = quiet(setup).undurable,
    |setup| setup.receive = quiet(setup).receive,
    |setup| setup.pieces = quiet(setup).pieces,
    |setup| setup.exchanges = quiet(setup).exchanges,
    |setup| setup.sketches = quiet(setup).sketches,
    |setup| setup.inline = quiet(setup).inline,
    |setup| setup.disk = quiet(setup).disk,
];

fn quiet(setup: &Setup) -> Setup {
    Setup::quiet(setup.seed, setup.nodes, setup.docs)
}

impl Step {
    /// The same step with its arguments already taken modulo what always exists.
    fn plain(self, setup: &Setup) -> Self {
        let node = |node: u8| u8::try_from(usize::from(node) % setup.nodes).unwrap_or(node);
        let other = |to: u8| u8::try_from(usize::from(to) % (setup.nodes - 1).max(1)).unwrap_or(to);
        let doc = |doc: u16| u16::try_from(usize::from(doc) % setup.docs.max(1)).unwrap_or(doc);
        let mut plain = self;
        match &mut plain {
            Self::Edit { node: at, doc: of, kind, .. } => {
                (*at, *of, *kind) = (node(*at), doc(*of), *kind % super::host::KINDS);
            }
            Self::Open { node: at, doc: of } | Self::Delete { node: at, doc: of } => (*at, *of) = (node(*at), doc(*of)),
            Self::Cut { from, to } | Self::Connect { from, to } | Self::Squeeze { from, to, .. } => {
                (*from, *to) = (node(*from), other(*to));
            }
            Self::Close { node: at, .. }
            | Self::Commit { node: at }
            | Self::Pause { node: at }
            | Self::FailWrites { node: at, .. }
            | Self::FailLoads { node: at, .. }
            | Self::Crash { node: at, .. }
            | Self::Restart { node: at }
            | Self::Reboot { node: at }
            | Self::Evict { node: at }
            | Self::Clock { node: at, .. } => *at = node(*at),
            Self::Deliver { .. }
            | Self::Drop { .. }
            | Self::Duplicate { .. }
            | Self::Advance { .. }
            | Self::Partition { .. }
            | Self::Heal
            | Self::Disconnect { .. }
            | Self::FieldedEdit { .. }
            | Self::FieldedDelete { .. }
            | Self::FieldedForge { .. }
            | Self::FieldedRestart { .. } => {}
        }
        plain
    }
}

/// The run as a test to paste into `tests/tests/regressions.rs`.
#[must_use]
pub fn as_test(setup: &Setup, steps: &[Step], violation: &Violation) -> String {
    let words = in_words(setup);
    let used = |named: &str, import: &'static str| words.contains(named).then_some(import);
    let legacy = [used("proof: ", "Dialect::*"), used("family: ", "Family::*")];
    let legacy = legacy.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let world = [
        used("fielded: ", "Fielded"),
        used("hostile: ", "Habit::*"),
        used("Profile", "Profile"),
        Some("Setup"),
        (!steps.is_empty()).then_some("Step::*"),
        used("topology: ", "Topology::*"),
        Some("run"),
    ];
    let world = world.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    for line in violation.to_string().lines() {
        let _ = writeln!(text, "/// {}", line.trim());
    }
    let _ = writeln!(text, "#[test]\nfn name_it_after_the_bug() {{");
    if !legacy.is_empty() {
        let _ = writeln!(text, "    use peat_tests::legacy::{{{legacy}}};");
    }
    let _ = writeln!(text, "    use peat_tests::world::{{{world}}};");
    let _ = writeln!(text, "    let setup = {words};");
    let _ = writeln!(text, "    let steps = [");
    for step in steps {
        let _ = writeln!(text, "        {step:?},");
    }
    let _ = writeln!(text, "    ];\n    assert_eq!(run(&setup, &steps).violation, None);\n}}");
    text
}

/// A setup by what makes it differ from a quiet world.
fn in_words(setup: &Setup) -> String {
    let (ours, theirs) = (fields(setup), fields(&quiet(setup)));
    let different = ours.into_iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
    let different: String = different.map(|((name, value), _)| format!("{name}: {value}, ")).collect();
    let Setup { seed, nodes, docs, .. } = setup;
    format!("Setup {{ {different}..Setup::quiet({seed}, {nodes}, {docs}) }}")
}

/// A profile by what makes it differ from a preset, the one that shares most with it.
fn profile_in_words(profile: &Profile) -> String {
    let list = |profile: &Profile| {
        let text = format!("{profile:?}");
        let fields = text.trim_start_matches("Profile { ").trim_end_matches(" }");
        fields.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let ours = list(profile);
    let differing = |preset: &Profile| {
        let pairs = ours.iter().zip(list(preset));
        pairs.filter(|(ours, theirs)| *ours != theirs).map(|(ours, _)| format!("{ours}, ")).collect::<Vec<_>>()
    };
    let presets = Profile::PRESETS.iter().zip(["LAN", "WIFI", "SATELLITE", "TACTICAL"]);
    let words = presets.map(|(preset, name)| (differing(preset), name)).min_by_key(|(fields, _)| fields.len());
    match words {
        Some((fields, name)) if fields.is_empty() => format!("Profile::{name}"),
        Some((fields, name)) => format!("Profile {{ {}..Profile::{name} }}", fields.concat()),
        None => format!("{profile:?}"),
    }
}

fn fields(setup: &Setup) -> Vec<(&'static str, String)> {
    let Setup { seed: _, nodes: _, docs: _, topology, datagram, legacy, proof, profile, formations, .. } = setup;
    let Setup { ranks, hostile, fielded, .. } = setup;
    let Setup { cache, frame, window, undurable, receive, pieces, exchanges, sketches, .. } = setup;
    let Setup { inline, job, lazy, disk, skew, stormy, .. } = setup;
    vec![
        ("topology", format!("{topology:?}")),
        ("datagram", format!("{datagram:?}")),
        ("legacy", format!("{legacy:?}")),
        ("proof", format!("{proof:?}")),
        ("profile", profile_in_words(profile)),
        ("formations", format!("vec!{formations:?}")),
        ("ranks", format!("vec!{ranks:?}")),
        ("hostile", format!("vec!{hostile:?}")),
        ("fielded", format!("vec!{fielded:?}")),
        ("cache", format!("{cache:?}")),
        ("frame", format!("{frame:?}")),
        ("window", format!("{window:?}")),
        ("undurable", format!("{undurable:?}")),
        ("receive", format!("{receive:?}")),
        ("pieces", format!("{pieces:?}")),
        ("exchanges", format!("{exchanges:?}")),
        ("sketches", format!("{sketches:?}")),
        ("inline", format!("{inline:?}")),
        ("job", format!("{job:?}")),
        ("lazy", format!("{lazy:?}")),
        ("disk", format!("{disk:?}")),
        ("skew", format!("{skew:?}")),
        ("stormy", format!("{stormy:?}")),
    ]
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use peat_proto::Time;

    use super::super::setup::Habit;
    use super::super::walk::{Mix, walk};
    use super::*;

    #[test]
    fn a_setup_is_written_as_what_makes_it_special() {
        let quiet = Setup::quiet(7, 3, 10);
        assert_eq!(in_words(&quiet), "Setup { ..Setup::quiet(7, 3, 10) }");
        let lossy = Setup { cache: 0, profile: Profile { loss: 210, ..Profile::WIFI }, ..quiet };
        let words = "Setup { profile: Profile { loss: 210, ..Profile::WIFI }, cache: 0, ..Setup::quiet(7, 3, 10) }";
        assert_eq!(in_words(&lossy), words);
    }

    /// A judge whom the second crash of node 1 upsets, in a world with hostile members, and says at which step.
    fn upset(setup: &Setup, steps: &[Step]) -> Verdict {
        let crashes =
            steps.iter().enumerate().filter(|(_, step)| matches!(step.plain(setup), Step::Crash { node: 1, .. }));
        let second = crashes.map(|(at, _)| at).nth(1).filter(|_| !setup.hostile.is_empty());
        let what = |at| format!("upset at step {at}");
        let violation = second.map(|at| Violation { at: Time::ZERO, member: Some(1), what: what(at) });
        let tried = second.map_or(steps.len(), |at| at + 1);
        Verdict { tried, violation, ..run(&Setup::quiet(1, 1, 1), &[]) }
    }

    #[test]
    fn a_planted_failure_shrinks_to_its_causes_and_keeps_its_violation() {
        let (setup, steps) = (0..)
            .map(|seed| walk(seed, &Mix::default()))
            .find(|(setup, steps)| {
                upset(setup, steps).violation.is_some_and(|it| it.what.len() > "upset at step 9".len())
            })
            .expect("some seed crashes node 1 twice");
        let verdict = upset(&setup, &steps);
        let shrunken = shrink_by(upset, &setup, &steps, &verdict, 2_000).expect("it failed");
        assert_eq!(shrunken.steps.len(), 2, "{:?}", shrunken.steps);
        assert_eq!(shrunken.violation.what, "upset at step 1");
        assert_eq!(upset(&shrunken.setup, &shrunken.steps).violation, Some(shrunken.violation));
        let simplest = Setup { hostile: setup.hostile, ..quiet(&shrunken.setup) };
        assert_eq!(in_words(&shrunken.setup), in_words(&simplest));
        assert_eq!((simplest.nodes, simplest.docs), (2, 1));
    }

    #[test]
    fn shrinking_stays_within_its_budget_and_answers_nothing_for_a_run_without_a_failure() {
        let (setup, steps) =
            (Setup { hostile: vec![Habit::Flood], ..Setup::quiet(1, 2, 1) }, [Step::Crash { node: 1, keep: 0 }; 8]);
        let runs = Cell::new(0);
        let judge = |setup: &Setup, steps: &[Step]| {
            runs.set(runs.get() + 1);
            upset(setup, steps)
        };
        let shrunken = shrink_by(judge, &setup, &steps, &upset(&setup, &steps), 3).expect("it failed");
        assert!(runs.get() <= 3 && shrunken.steps.len() >= 2);
        assert!(shrink_by(upset, &setup, &[], &upset(&setup, &[]), 3).is_none());
    }

    #[test]
    fn a_plain_step_does_the_same() {
        let setup = Setup::quiet(3, 3, 4);
        let steps = [
            Step::Edit { node: 200, doc: 1_001, kind: 250, value: 9 },
            Step::Cut { from: 77, to: 99 },
            Step::Advance { ms: 900 },
            Step::Crash { node: 100, keep: 1 },
            Step::Heal,
        ];
        let plain = steps.map(|step| step.plain(&setup));
        assert_ne!(plain, steps);
        assert_eq!(run(&setup, &plain).trace, run(&setup, &steps).trace);
    }
}
