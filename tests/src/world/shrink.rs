//! Making a failing run small.

use std::fmt::Write;

use super::heal::run;
use super::link::Profile;
use super::setup::{Setup, Topology};
use super::step::Step;
use super::verdict::{Verdict, Violation};

/// Leaves out and simplifies what it can as long as the run still fails in the same way: steps, halves of them first and
/// then ever smaller parts (delta debugging, Zeller and Hildebrandt 2002), pauses between them, and what makes the setup
/// differ from a quiet world. Runs at most `budget` worlds.
#[must_use]
pub fn shrink(setup: &Setup, steps: &[Step], verdict: &Verdict, budget: usize) -> (Setup, Vec<Step>) {
    let Some(first) = &verdict.violation else { return (setup.clone(), steps.to_vec()) };
    let reached = steps.get(..=verdict.steps).unwrap_or(steps);
    let steps = reached.iter().map(|step| step.plain(setup)).collect();
    let mut search = Search { first, left: budget, setup: setup.clone(), steps };
    while search.leave_out() | search.join_pauses() | search.simplify() {}
    let steps = search.steps.iter().map(|step| step.plain(&search.setup)).collect();
    (search.setup, steps)
}

/// The smallest failing run so far.
struct Search<'a> {
    first: &'a Violation,
    left: usize,
    setup: Setup,
    steps: Vec<Step>,
}

impl Search<'_> {
    /// Takes a smaller run if it fails in the same way.
    fn attempt(&mut self, setup: &Setup, steps: &[Step]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let fails = run(setup, steps).violation.is_some_and(|found| found.resembles(self.first));
        if fails {
            (self.setup, self.steps) = (setup.clone(), steps.to_vec());
        }
        fails
    }

    fn leave_out(&mut self) -> bool {
        let before = self.steps.len();
        let setup = self.setup.clone();
        let mut part = before.div_ceil(2).max(1);
        loop {
            let mut from = 0;
            let begun = self.steps.len();
            while from < self.steps.len() && self.left > 0 {
                let mut without = self.steps.clone();
                without.drain(from..(from + part).min(without.len()));
                if !self.attempt(&setup, &without) {
                    from += part;
                }
            }
            if self.left == 0 || (part == 1 && self.steps.len() == begun) {
                return self.steps.len() < before;
            }
            part = part.div_ceil(2).max(1);
        }
    }

    fn join_pauses(&mut self) -> bool {
        let before = self.steps.len();
        let setup = self.setup.clone();
        let mut at = 0;
        while let Some([one, two]) = self.steps.get(at..at + 2) {
            let joined = match (one, two) {
                (Step::Advance { ms: one }, Step::Advance { ms: two }) => one.checked_add(*two),
                _ => None,
            };
            let mut shorter = self.steps.clone();
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
        self.steps.len() < before
    }

    fn simplify(&mut self) -> bool {
        let mut simpler = false;
        for change in SIMPLER {
            let mut setup = self.setup.clone();
            change(&mut setup);
            let steps = self.steps.clone();
            simpler |= setup != self.setup && self.attempt(&setup, &steps);
        }
        simpler
    }
}

/// What may be simpler about a setup: each makes it more like [`Setup::quiet`], and none can be made twice.
const SIMPLER: &[fn(&mut Setup)] = &[
    |setup| setup.hostile.clear(),
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
            | Self::FieldedRestart { .. } => {}
        }
        plain
    }
}

/// The run as a test to paste into `tests/tests/regressions.rs`.
#[must_use]
pub fn as_test(setup: &Setup, steps: &[Step], violation: &Violation) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "/// {violation}");
    let _ = writeln!(text, "#[test]\nfn name_it_after_the_bug() {{");
    let _ = writeln!(text, "    use peat_tests::world::{{Habit::*, Profile, Setup, Step::*, Topology::*, run}};");
    let _ = writeln!(text, "    let setup = {};", in_words(setup));
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
    let Setup { hostile, fielded, .. } = setup;
    let Setup { cache, frame, window, undurable, inline, job, lazy, disk, skew, stormy, .. } = setup;
    vec![
        ("topology", format!("{topology:?}")),
        ("datagram", format!("{datagram:?}")),
        ("legacy", format!("{legacy:?}")),
        ("proof", format!("{proof:?}")),
        ("profile", profile_in_words(profile)),
        ("formations", format!("vec!{formations:?}")),
        ("hostile", format!("vec!{hostile:?}")),
        ("fielded", format!("vec!{fielded:?}")),
        ("cache", format!("{cache:?}")),
        ("frame", format!("{frame:?}")),
        ("window", format!("{window:?}")),
        ("undurable", format!("{undurable:?}")),
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
    use super::*;

    #[test]
    fn a_setup_is_written_as_what_makes_it_special() {
        let quiet = Setup::quiet(7, 3, 10);
        assert_eq!(in_words(&quiet), "Setup { ..Setup::quiet(7, 3, 10) }");
        let lossy = Setup { cache: 0, profile: Profile { loss: 210, ..Profile::WIFI }, ..quiet };
        let words = "Setup { profile: Profile { loss: 210, ..Profile::WIFI }, cache: 0, ..Setup::quiet(7, 3, 10) }";
        assert_eq!(in_words(&lossy), words);
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
