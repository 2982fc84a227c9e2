//! `sim`: one simulated fleet, or a hundred thousand.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use mimalloc::MiMalloc;
use peat_tests::world::{Fault, Fired, Mix, Setup, Step, Verdict, as_test, run_until, shrink, walk};
use serde_json::json;

/// A sixth of a world's time goes into small allocations.
#[global_allocator]
static HEAP: MiMalloc = MiMalloc;

/// Worlds that a failing run may cost until its steps are as few as they get.
const SHRINKING: usize = 2_000;

/// Faults that never fired in so many seeds are a failure of the rig.
const VOLUME: u64 = 10_000;

/// Runs a fleet of real nodes on virtual time and judges it. Exits with 0, or with 1 on a violation.
#[derive(Debug, Parser)]
struct Args {
    /// Decides everything; with --count the first of many.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Honest nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Documents.
    #[arg(long, default_value_t = 10)]
    docs: usize,
    /// Fielded peers of the legacy wire.
    #[arg(long, default_value_t = 0)]
    fielded: usize,
    /// Of every hundred links between nodes, so many speak the legacy wire; drawn from the seed where there are fielded
    /// peers, if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    legacy: Option<u8>,
    /// Steps that find something to do.
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Loss on every path, 0 to 1; drawn from the seed if not given.
    #[arg(long)]
    loss: Option<f64>,
    /// Chance of a crash at every step; drawn from the seed if not given.
    #[arg(long)]
    crash: Option<f64>,
    /// Chance of a partition at every step; drawn from the seed if not given.
    #[arg(long)]
    partition: Option<f64>,
    /// Runs so many seeds on all cores.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.nodes == 0 || args.docs == 0 {
        eprintln!("error: a world has at least one node and one document");
        return ExitCode::from(2);
    }
    // A panic is a violation, reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let mix = Mix {
        nodes: args.nodes,
        docs: args.docs,
        fielded: args.fielded,
        legacy: args.legacy,
        steps: args.steps,
        loss: args.loss,
        crash: args.crash,
        partition: args.partition,
    };
    if args.count == 1 { one(&args, &mix) } else { many(&args, &mix) }
}

fn one(args: &Args, mix: &Mix) -> ExitCode {
    let (setup, steps) = walk(args.seed, mix);
    let verdict = run_until(&setup, &steps, mix.steps);
    if args.json {
        println!("{}", verdict.json());
    } else {
        println!("{verdict}");
    }
    explain(&setup, &steps, &verdict)
}

/// Prints the shrunken steps of a failed run.
fn explain(setup: &Setup, steps: &[Step], verdict: &Verdict) -> ExitCode {
    let Some(small) = shrink(setup, steps, verdict, SHRINKING) else { return ExitCode::SUCCESS };
    eprintln!("\n{}", as_test(&small.setup, &small.steps, &small.violation));
    ExitCode::FAILURE
}

/// A volume run stops after so many failed seeds.
const FAILURES: usize = 20;

/// What many runs came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    /// Steps of the lists, as far as they were tried; and those that found something to do, in all and in the world with the
    /// fewest.
    tried: u64,
    steps: u64,
    fewest: usize,
    edits: u64,
    frames: u64,
    bytes: u64,
    fired: Fired,
    first: Option<(Setup, Vec<Step>, Verdict)>,
    /// Seeds and violations.
    failures: Vec<Verdict>,
}

fn many(args: &Args, mix: &Mix) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(args.seed);
    let failures = AtomicUsize::new(0);
    let sum = Mutex::new(Sum::new());
    let end = args.seed.saturating_add(args.count);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut own = Sum::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.load(Ordering::Relaxed) >= FAILURES {
                        break;
                    }
                    let (setup, steps) = walk(seed, mix);
                    let verdict = run_until(&setup, &steps, mix.steps);
                    own.add(&verdict);
                    if !verdict.is_ok() {
                        failures.fetch_add(1, Ordering::Relaxed);
                        own.failures.push(verdict.clone());
                        own.first.get_or_insert((setup, steps, verdict));
                    }
                }
                sum.lock().expect("no thread panics with it").merge(own);
            });
        }
    });
    let sum = sum.into_inner().expect("all threads are done");
    let seconds = begun.elapsed().as_secs_f64();
    report(args, &sum, seconds)
}

fn report(args: &Args, sum: &Sum, seconds: f64) -> ExitCode {
    let rate = sum.seeds as f64 / seconds.max(1e-9);
    let never: Vec<String> = sum.never(args.fielded).iter().map(|fault| format!("{fault:?}")).collect();
    let ok = sum.is_ok(args.fielded, args.steps);
    if args.json {
        let value = json!({
            "ok": ok, "seeds": sum.seeds, "steps": sum.steps, "fewest_steps": sum.fewest, "tried": sum.tried, "edits": sum.edits, "frames": sum.frames, "bytes": sum.bytes,
            "seconds": seconds, "seeds_per_second": rate, "faults": sum.fired.json(), "never": never,
            "violation": sum.first.as_ref().map(|(.., verdict)| verdict.json()),
        });
        println!("{value}");
    } else {
        println!(
            "{} seeds {} steps {} of {}, at least {} each; edits {} frames {} bytes {} in {seconds:.1} s: {rate:.0} seeds a \
             second",
            if ok { "ok" } else { "FAILED" },
            sum.seeds,
            sum.steps,
            sum.tried,
            sum.fewest,
            sum.edits,
            sum.frames,
            sum.bytes,
        );
        println!("faults {}", sum.fired.json());
        if !never.is_empty() {
            println!("never fired: {}", never.join(", "));
        }
        for verdict in &sum.failures {
            println!("{verdict}");
        }
    }
    if let Some((setup, steps, verdict)) = &sum.first {
        explain(setup, steps, verdict);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Sum {
    /// Before the first run.
    fn new() -> Self {
        Self { fewest: usize::MAX, ..Self::default() }
    }

    /// Whether no run violated anything, each had its steps, and the rig did what it can, once there were enough runs to say
    /// so.
    fn is_ok(&self, fielded: usize, steps: usize) -> bool {
        let dull = self.seeds >= VOLUME && !self.never(fielded).is_empty();
        self.failures.is_empty() && self.fewest >= steps && !dull
    }

    /// Faults that never fired, of those that can in worlds with so many fielded peers.
    fn never(&self, fielded: usize) -> Vec<Fault> {
        let possible = |fault: &Fault| match fault {
            Fault::FieldedEdit | Fault::FieldedRestart | Fault::FieldedDelete | Fault::FieldedForgery => fielded > 0,
            _ => true,
        };
        self.fired.never().filter(possible).collect()
    }

    fn add(&mut self, verdict: &Verdict) {
        self.seeds += 1;
        self.tried += verdict.tried as u64;
        self.steps += verdict.steps as u64;
        self.fewest = self.fewest.min(verdict.steps);
        self.edits += verdict.edits;
        self.frames += verdict.frames;
        self.bytes += verdict.bytes;
        self.fired.add(&verdict.fired);
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.tried += other.tried;
        self.steps += other.steps;
        self.fewest = self.fewest.min(other.fewest);
        self.edits += other.edits;
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.fired.add(&other.fired);
        self.failures.extend(other.failures);
        // The lowest seed is reported, whichever thread ran it.
        let earlier = |new: &(Setup, Vec<Step>, Verdict)| {
            self.first.as_ref().is_none_or(|(.., verdict)| new.2.seed < verdict.seed)
        };
        if let Some(new) = other.first.filter(earlier) {
            self.first = Some(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peat_tests::world::{Topology, run};

    #[test]
    fn a_violation_among_many_runs_is_a_failure() {
        let mut sum = Sum::new();
        sum.add(&run(&Setup::quiet(1, 1, 1), &[Step::Advance { ms: 1 }, Step::Heal]));
        assert!(sum.is_ok(0, 1));
        assert!(!sum.is_ok(0, 2), "there was nothing to heal");
        let apart = Setup { topology: Topology::Apart, ..Setup::quiet(1, 2, 1) };
        let verdict = run(&apart, &[Step::Edit { node: 0, doc: 0, kind: 0, value: 1 }]);
        assert!(!verdict.is_ok(), "two nodes that never meet");
        let mut other = Sum::new();
        other.add(&verdict);
        other.failures.push(verdict);
        sum.merge(other);
        assert!(!sum.is_ok(0, 1) && sum.seeds == 2);
    }

    #[test]
    fn a_fault_that_never_fired_is_a_failure_in_a_large_run_if_it_could() {
        let mut sum = Sum { seeds: VOLUME - 1, ..Sum::new() };
        assert!(sum.is_ok(1, 1), "too few runs to say so");
        sum.seeds = VOLUME;
        assert!(!sum.is_ok(0, 1));
        let theirs = [Fault::FieldedEdit, Fault::FieldedDelete, Fault::FieldedForgery, Fault::FieldedRestart];
        let never = sum.never(0);
        assert_eq!(never.len(), Fault::ALL.len() - theirs.len());
        assert!(theirs.iter().all(|fault| !never.contains(fault) && sum.never(1).contains(fault)));
    }
}
