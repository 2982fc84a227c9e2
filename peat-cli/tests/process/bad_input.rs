//! Every mistake ends with what happened, what to do, an exit code, and nothing written.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use peat_node::{Node, Options};

use crate::harness::{command, node, peat, peat_json, run, serve, temporary};

#[test]
fn malformed_json_and_keys_write_nothing() {
    let dir = node();
    for serving in [false, true] {
        let serve = serving.then(|| serve(dir.path(), &[]));
        for (args, code) in [
            (["put", "notes:a", "{"], "bad_json"),
            (["put", "notes:a", "{} {}"], "bad_json"),
            (["put", "notes:a", "[1]"], "bad_json"),
            (["put", "notes:a", ""], "bad_json"),
            (["put", "nocolon", "{}"], "usage"),
            (["put", ":a", "{}"], "usage"),
            (["put", "tombstones:a", "{}"], "usage"),
        ] {
            peat(dir.path(), args).failed(2);
            assert_eq!(peat_json(dir.path(), args).error(2)["code"], code, "{args:?}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert_ne!(peat(dir.path(), ["put", "notes:a", &deep]).code, Some(0));
        let not_utf8 = run(command(dir.path(), ["put", "notes:a", "-"]), b"{\"a\":\"\xff\"}");
        not_utf8.failed(2);
        assert_eq!(peat(dir.path(), ["ls"]).ok(), "");
        if let Some(serve) = serve {
            serve.stop();
        }
    }
}

#[test]
fn an_unknown_document_is_not_found() {
    let dir = node();
    for args in [&["get", "notes:a"][..], &["export", "notes:a"], &["export", "notes:a", "--format", "automerge"]] {
        peat(dir.path(), args).failed(3);
        let error = peat_json(dir.path(), args).error(3);
        assert_eq!((&error["code"], &error["retryable"]), (&"unknown_key".into(), &false.into()));
    }
}

#[test]
fn a_directory_without_a_node_is_said_to_be_one_and_left_alone() {
    let dir = temporary();
    for args in [&["id"][..], &["ls"], &["get", "notes:a"], &["put", "notes:a", "{}"], &["status"], &["ticket"]] {
        peat(dir.path(), args).failed(3);
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
    assert_eq!(peat_json(&dir.path().join("nowhere"), ["ls"]).error(3)["code"], "not_initialised");
}

#[test]
fn a_locked_directory_is_said_to_be_locked() {
    let dir = node();
    let holder = Node::open(dir.path(), Options::default()).expect("opens");
    for args in [&["ls"][..], &["put", "notes:a", "{}"], &["serve", "--listen", "127.0.0.1:0"]] {
        peat(dir.path(), args).failed(4);
        let error = peat_json(dir.path(), args).error(4);
        assert_eq!((&error["code"], &error["retryable"]), (&"locked".into(), &true.into()));
    }
    holder.close().wait().expect("closes");
    assert_eq!(peat(dir.path(), ["ls"]).ok(), "");
}

#[test]
fn a_damaged_store_is_said_to_be_one_and_left_alone() {
    for content in ["", "not a store"] {
        let dir = node();
        let store = dir.path().join("peat.redb");
        std::fs::write(&store, content).expect("written");
        for args in [&["ls"][..], &["put", "notes:a", "{\"n\":1}"], &["serve", "--listen", "127.0.0.1:0"]] {
            let error = peat_json(dir.path(), args).error(6);
            assert_eq!((&error["code"], &error["retryable"]), (&"store".into(), &false.into()));
            assert!(error["hint"].as_str().expect("text").contains("backup"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&store).expect("readable"), content);
    }
}

#[test]
fn a_second_serve_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let dir = temporary();
    let first = serve(dir.path(), &[]);
    peat(dir.path(), ["serve", "--listen", "127.0.0.1:0"]).failed(4);
    assert_eq!(peat(dir.path(), ["id"]).ok(), first.id);
    first.stop();
}

#[test]
fn wrong_arguments_are_two_lines_or_one_object() {
    let dir = temporary();
    for args in
        [&["frobnicate"][..], &["get"], &[], &["get", "a:b", "--nonsense"], &["sync", "peatxyz"], &["sync", "hello"]]
    {
        let plain = peat(dir.path(), args);
        plain.failed(2);
        assert_eq!(plain.stderr.lines().count(), 2, "{}", plain.stderr);
        assert_eq!(peat_json(dir.path(), args).error(2)["code"], "usage", "{args:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let home = temporary();
    let mut init = Command::new(env!("CARGO_BIN_EXE_peat"));
    init.args(["init", "--json"])
        .env("PEAT_DIR", "")
        .env("PEAT_LOG", "")
        .env("NO_COLOR", "")
        .env("HOME", home.path())
        .env("XDG_DATA_HOME", "");
    let dir = run(init, b"").json()["dir"].as_str().expect("a path").to_owned();
    assert!(Path::new(&dir).starts_with(home.path()), "{dir}");
    let mut id = Command::new(env!("CARGO_BIN_EXE_peat"));
    id.arg("id").env("PEAT_DIR", &dir);
    assert_eq!(run(id, b"").ok(), peat(Path::new(&dir), ["id"]).ok());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = node();
    let lines: String = (0..2000).map(|n| format!("{{\"key\":\"t:{n}\",\"value\":{{\"n\":{n}}}}}\n")).collect();
    run(command(dir.path(), ["import", "-", "--format", "jsonl"]), lines.as_bytes());
    let mut ls = command(dir.path(), ["ls", "--json"]);
    ls.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ls.spawn().expect("starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

/// A file system of 4 MiB, taken away when the test ends.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = temporary();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path()).output();
        match mount {
            Ok(mount) if mount.status.success() => Some(Self(dir)),
            _ => None,
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_refuses_the_write_and_keeps_what_was_acknowledged() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: a small file system can only be mounted by root");
        return;
    };
    for serving in [false, true] {
        let dir = disk.0.path().join(if serving { "serving" } else { "alone" });
        peat(&dir, ["init"]).ok();
        let serve = serving.then(|| serve(&dir, &[]));
        let mut acknowledged = 0;
        let refused = loop {
            // Text that does not compress.
            let text: String = (0_u64..6_000)
                .map(|n| format!("{:016x}", (n + acknowledged * 6_000 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .collect();
            let put = command(&dir, ["put", &format!("t:{acknowledged}"), "-", "--json"]);
            let ended = run(put, format!("{{\"n\":{acknowledged},\"text\":\"{text}\"}}").as_bytes());
            if ended.code != Some(0) {
                break ended;
            }
            acknowledged += 1;
            assert!(acknowledged < 100, "10 MB do not fit into 4 MiB");
        };
        assert_eq!(refused.error(6)["code"], "disk_full");
        if let Some(serve) = serve {
            let (status, _, stderr) = serve.end_by("TERM");
            assert!(status.code().is_some(), "no crash: {stderr}");
        }
        // Nothing but space was missing: what was acknowledged is there, the refused document is not.
        let dir = on_a_larger_disk(&dir);
        let wanted: BTreeSet<_> = (0..acknowledged).map(|n| format!("t:{n}")).collect();
        let listed: BTreeSet<_> = peat(dir.path(), ["ls"]).ok().lines().map(str::to_owned).collect();
        assert_eq!(listed, wanted);
        for key in wanted {
            assert_eq!(format!("t:{}", peat(dir.path(), ["get", &key]).json()["n"]), key);
        }
        std::fs::remove_dir_all(disk.0.path().join(if serving { "serving" } else { "alone" })).expect("removed");
    }
}

/// A copy of a data directory where there is space.
#[cfg(target_os = "linux")]
fn on_a_larger_disk(from: &Path) -> tempfile::TempDir {
    let to = temporary();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status();
    assert!(copied.expect("cp runs").success());
    to
}
