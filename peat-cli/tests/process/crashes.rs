//! A serving node, killed again and again while it is written to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use peat_node::proto::Rng;
use serde_json::{Value, json};

use crate::control::Control;
use crate::harness::{Guard, command, serve, serve_on, temporary};

/// Rounds of an ordinary test run; `PEAT_CRASH_ROUNDS` asks for more.
const ROUNDS: u64 = 20;
/// Programs that write at the same time.
const WRITERS: u64 = 3;
/// Documents of each of them in one round.
const DOCUMENTS: u64 = 4;
/// Writes of each that are under way.
const WINDOW: u64 = 16;

/// The numbers that a document was told, and how many of them were acknowledged as durable.
#[derive(Debug, Default)]
struct Written {
    sent: u64,
    acknowledged: u64,
}

#[test]
fn no_acknowledged_write_is_lost_by_a_kill_and_sync_resumes() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (rounds, seed) = (number("PEAT_CRASH_ROUNDS", ROUNDS), number("PEAT_SEED", 1));
    println!("PEAT_CRASH_ROUNDS={rounds} PEAT_SEED={seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = Rng::new(key);

    let (dir, other_dir) = (temporary(), temporary());
    let mut serving = serve(dir.path(), &[]);
    let addr = serving.addr();
    let other = serve(other_dir.path(), &["--join", &serving.ticket]);
    let mut at_other = Control::connect(&other.dir).expect("serves");
    let mut all: BTreeMap<String, Written> = BTreeMap::new();
    let mut unanswered = 0;
    for round in 0..rounds {
        let written = write_until_killed(round, rng.draw(), dir.path(), || {
            thread::sleep(Duration::from_micros(rng.below(300_000)));
            serving.kill();
        });
        // The next start may meet the same end.
        while rng.below(4) == 0 {
            start_and_kill(dir.path(), Duration::from_micros(rng.below(100_000)));
        }
        // It dials at once. The other would notice the loss only when the dead connection has been silent for long.
        serving = serve_on(&addr, dir.path(), &["--join", &other.ticket]);
        let mut here = Control::connect(dir.path()).expect("serves");
        check(round, &written, &mut here);
        here.level_with(&other.id);
        at_other.level_with(&serving.id);
        check(round, &written, &mut at_other);
        unanswered += written.values().map(|written| written.sent - written.acknowledged).sum::<u64>();
        all.extend(written);
    }

    let mut here = Control::connect(dir.path()).expect("serves");
    check(rounds, &all, &mut here);
    check(rounds, &all, &mut at_other);
    let acknowledged: u64 = all.values().map(|written| written.acknowledged).sum();
    println!("{acknowledged} writes acknowledged, {unanswered} cut off");
    assert!(acknowledged > rounds * WRITERS && unanswered > rounds, "the node was killed at work");
    serving.end();
    other.end();
}

/// Runs the writers, and `kill` beside them, until all have lost the node.
fn write_until_killed(round: u64, seed: u64, dir: &Path, kill: impl FnOnce()) -> BTreeMap<String, Written> {
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let control = Control::connect(dir).expect("serves");
                scope.spawn(move || write(control, round, writer, seed))
            })
            .collect();
        kill();
        writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
    })
}

/// Tells documents number after number, each in a field of its own, until the node is gone.
fn write(mut control: Control, round: u64, writer: u64, seed: u64) -> BTreeMap<String, Written> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    key[8..16].copy_from_slice(&writer.to_be_bytes());
    let mut rng = Rng::new(key);
    let name = |document: u64| format!("load:{round:03}-{writer}-{document}");
    let mut written: BTreeMap<_, _> = (0..DOCUMENTS).map(|document| (name(document), Written::default())).collect();
    let mut under_way = std::collections::VecDeque::new();
    loop {
        if under_way.len() as u64 == WINDOW {
            let document: String = under_way.pop_front().expect("under way");
            match control.receive() {
                Ok(outcome) => {
                    outcome.expect("the write is taken");
                    written.get_mut(&document).expect("known").acknowledged += 1;
                }
                Err(_) => return written,
            }
        }
        let document = name(rng.below(DOCUMENTS));
        let told = written.get_mut(&document).expect("known");
        // Mostly small, sometimes as large as several pages of the store.
        let size = if rng.below(16) == 0 { rng.below(40_000) } else { rng.below(100) };
        let fields = json!([[format!("n{}", told.sent), text(&mut rng, size)]]);
        told.sent += 1;
        let request = json!({"op": "set", "key": document, "fields": fields});
        // Answers that were given before the end are still there to be read.
        let _ = control.send(&request).and_then(|()| control.flush());
        under_way.push_back(document);
    }
}

/// Text that does not compress.
fn text(rng: &mut Rng, bytes: u64) -> String {
    let mut text = String::new();
    while (text.len() as u64) < bytes {
        write!(text, "{:016x}", rng.draw()).expect("a string takes text");
    }
    text
}

/// Starts a node and kills it before it says anything.
fn start_and_kill(dir: &Path, after: Duration) {
    let mut command = command(dir, ["serve", "--listen", "127.0.0.1:0"]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let child = Guard(command.spawn().expect("peat starts"));
    thread::sleep(after);
    drop(child);
}

/// Every acknowledged number must be there. Those that were cut off may be, as far as they were sent and without a gap.
#[track_caller]
fn check(round: u64, written: &BTreeMap<String, Written>, at: &mut Control) {
    for (key, Written { sent, acknowledged }) in written {
        if *acknowledged == 0 {
            continue;
        }
        let answer = at.call(&json!({"op": "get", "key": key}));
        let fields = answer["value"].as_object().expect("an object");
        let found = fields.len() as u64;
        let whole = (0..found).all(|n| fields.get(&format!("n{n}")).is_some_and(Value::is_string));
        assert!(
            whole && (*acknowledged..=*sent).contains(&found),
            "round {round}, {key}: {found} writes found, {acknowledged} acknowledged, {sent} sent"
        );
    }
}
