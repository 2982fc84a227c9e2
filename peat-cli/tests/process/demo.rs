//! `peat demo` as a newcomer runs it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Guard, run, signal_to, temporary};

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

/// Processes whose command line names this directory.
#[cfg(target_os = "linux")]
fn processes_on(dir: &Path) -> usize {
    let dir = dir.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("readable").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(dir.len()).any(|part| part == dir)).count()
}

/// Starts the demo, lets it come as far as two running nodes, and ends it by this signal.
#[cfg(target_os = "linux")]
fn interrupted_by(signal: &str) -> (ExitStatus, tempfile::TempDir) {
    let tmp = temporary();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peat"));
    command.arg("demo").env("TMPDIR", tmp.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Guard(command.spawn().expect("starts"));
    let stderr = BufReader::new(child.0.stderr.take().expect("piped"));
    let importing = stderr.lines().map_while(Result::ok).find(|line| line.starts_with("importing"));
    assert!(importing.is_some(), "the demo comes as far as the import");
    assert_eq!(processes_on(tmp.path()), 2);
    signal_to(child.0.id(), signal);
    let status = child.0.wait().expect("ends");
    let limit = Instant::now() + Duration::from_secs(20);
    while processes_on(tmp.path()) > 0 {
        assert!(Instant::now() < limit, "a node outlives the demo");
        std::thread::sleep(Duration::from_millis(20));
    }
    (status, tmp)
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_demo_takes_its_nodes_and_stores_with_it() {
    for signal in ["INT", "TERM"] {
        let (status, tmp) = interrupted_by(signal);
        assert_eq!(status.code(), Some(130), "{signal}");
        assert_eq!(std::fs::read_dir(tmp.path()).expect("readable").count(), 0, "{signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_demo_leaves_no_node_running() {
    let (status, _tmp) = interrupted_by("KILL");
    assert_eq!(status.code(), None);
}
