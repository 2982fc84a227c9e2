//! A `serve` and the commands that talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Serve, eventually, node, peat, peat_json, serve, serve_alone, temporary};

#[test]
fn it_says_last_how_the_other_side_joins() {
    let dir = temporary();
    let mut child = Command::new(env!("CARGO_BIN_EXE_peat"))
        .arg("--dir")
        .arg(dir.path())
        .args(["serve", "--tied", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("a line");
    let ticket = line.trim_end().strip_prefix("peat serve --join ").expect("the command to join").to_owned();
    assert_eq!(peat(dir.path(), ["ticket"]).ok(), ticket);
    // It is tied to us by its standard input.
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    assert!(child.wait().expect("ends").success());
}

#[test]
fn signals_end_it_well_and_soon() {
    for signal in ["TERM", "INT", "HUP"] {
        let dir = temporary();
        let serving = serve(dir.path(), &[]);
        serving.peat(["put", "notes:a", r#"{"n":1}"#]).ok();
        // A command that hangs on does not hold it up.
        let idle = UnixStream::connect(dir.path().join("control.sock")).expect("connects");
        let (status, took, stderr) = serving.end_by(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {stderr}");
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
        assert_eq!(stderr, "", "{signal}");
        assert!(!dir.path().join("control.sock").exists());
        drop(idle);
        assert_eq!(peat(dir.path(), ["get", "notes:a"]).json(), json!({"n": 1}));
    }
}

#[test]
fn after_a_kill_the_store_opens_and_serves_again() {
    let dir = temporary();
    let serving = serve(dir.path(), &[]);
    let id = serving.id.clone();
    serving.peat(["put", "notes:a", r#"{"n":1}"#]).ok();
    let (status, ..) = serving.end_by("KILL");
    assert_eq!(status.code(), None);
    assert!(dir.path().join("control.sock").exists(), "the socket is left behind");
    assert_eq!(peat(dir.path(), ["get", "notes:a"]).json(), json!({"n": 1}));
    let again = serve(dir.path(), &[]);
    assert_eq!(again.id, id);
    again.peat(["put", "notes:a", r#"{"n":2}"#]).ok();
    again.stop();
    assert_eq!(peat(dir.path(), ["get", "notes:a"]).json(), json!({"n": 2}));
}

#[test]
fn others_cannot_reach_the_socket() {
    let dir = temporary();
    let serving = serve(dir.path(), &[]);
    let socket = std::fs::metadata(dir.path().join("control.sock")).expect("is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(socket.uid(), std::fs::metadata(dir.path()).expect("is there").uid());
    serving.stop();
}

#[test]
fn a_long_path_can_be_served() {
    let dir = temporary();
    let long = dir.path().join("d".repeat(100)).join("e".repeat(100));
    let serving = serve(&long, &[]);
    serving.peat(["put", "notes:a", r#"{"n":1}"#]).ok();
    assert_eq!(peat_json(&long, ["status"]).json()["serving"], true);
    serving.stop();
}

#[test]
fn garbage_on_the_socket_is_answered_and_harms_nobody() {
    let dir = temporary();
    let serving = serve(dir.path(), &[]);
    let stream = UnixStream::connect(dir.path().join("control.sock")).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let mut answers = BufReader::new(stream.try_clone().expect("cloned"));
    let mut line = || -> Value {
        let mut line = String::new();
        answers.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(line(), json!({"Ok": {"peat": 1}}));
    (&stream)
        .write_all(
            b"garbage\n{\"op\":\"unknown\"}\n{\"op\":\"get\",\"key\":\"nocolon\"}\n\xff\xff\n{\"op\":\"status\"}\n",
        )
        .expect("written");
    assert_eq!(line()["Err"]["code"], "usage");
    assert_eq!(line()["Err"]["code"], "usage");
    assert_eq!(line()["Err"]["code"], "bad_key");
    assert_eq!(line()["Err"]["code"], "usage");
    assert_eq!(line()["Ok"]["documents"], 0);
    serving.peat(["put", "notes:a", "{\"n\":1}"]).ok();
    serving.stop();
}

#[test]
fn many_commands_at_once_are_all_served() {
    let dir = temporary();
    let serving = serve(dir.path(), &[]);
    thread::scope(|scope| {
        for n in 0..16 {
            let dir = dir.path();
            scope.spawn(move || {
                peat(dir, ["put", &format!("t:{n:02}"), &format!("{{\"n\":{n}}}")]).ok();
                assert_eq!(peat(dir, ["get", &format!("t:{n:02}")]).json(), json!({"n": n}));
            });
        }
    });
    assert_eq!(peat(dir.path(), ["ls"]).ok().lines().count(), 16);
    serving.stop();
}

/// Nothing that is sent fits, so that the peer is not reached, and whoever asks is told why.
#[test]
fn status_says_that_a_link_is_too_narrow() {
    let (far, near) = (node(), node());
    let peer = serve(far.path(), &["--transport", "udp"]);
    let Some(serving) = serve_alone(1200, near.path(), &["--transport", "udp", "--join", &peer.ticket]) else { return };
    let count = |of: &Serve, name: &str| peat_json(&of.dir, ["status"]).json()["counters"][name].as_u64();
    eventually(|| count(&serving, "udp_oversized").is_some_and(|count| count > 0));
    let status = serving.peat(["status"]);
    assert!(status.ok().contains("too narrow") && status.ok().contains("1,228 bytes"), "{}", status.ok());
    // Where there is no trouble nothing is said, and without the transport nothing counted.
    assert_eq!(count(&peer, "udp_oversized"), Some(0));
    assert!(!peer.peat(["status"]).ok().contains("too narrow"));
    peer.end();
    serving.end();
    let other = serve(far.path(), &["--transport", "iroh"]);
    assert_eq!(count(&other, "udp_oversized"), None);
    other.end();
}

#[test]
fn status_says_what_is_there() {
    let dir = node();
    peat(dir.path(), ["put", "notes:a", "{\"n\":1}"]).ok();
    let alone = peat_json(dir.path(), ["status"]).json();
    assert_eq!((&alone["serving"], &alone["documents"]), (&false.into(), &1.into()));
    assert_eq!(alone["id"], peat(dir.path(), ["id"]).ok());
    peat(dir.path(), ["ticket"]).failed(3);
    let serving = serve(dir.path(), &[]);
    let through = peat_json(dir.path(), ["status"]).json();
    assert_eq!((&through["serving"], &through["documents"], &through["id"]), (&true.into(), &1.into(), &alone["id"]));
    assert!(peat(dir.path(), ["status"]).ok().contains("documents  1"));
    serving.stop();
}
