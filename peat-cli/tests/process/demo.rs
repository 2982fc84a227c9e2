//! `peat demo` as a newcomer runs it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{run, temporary};

fn demo() -> (Command, tempfile::TempDir) {
    let tmp = temporary();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peat"));
    command.args(["demo", "--json"]).env("TMPDIR", tmp.path());
    (command, tmp)
}

#[test]
fn the_demo_converges_and_leaves_nothing_behind() {
    let (command, tmp) = demo();
    let started = Instant::now();
    let ended = run(command, b"");
    let report = ended.json();
    assert_eq!(report["converged"], true);
    assert_eq!(report["documents"], 50);
    assert_eq!(report["updates"], 18_683 + 200);
    for count in ["frames", "bytes_sent", "bytes_received", "elapsed_ms"] {
        assert!(report[count].as_u64().is_some_and(|count| count > 0), "{count}");
    }
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(std::fs::read_dir(tmp.path()).expect("readable").count(), 0);
}
