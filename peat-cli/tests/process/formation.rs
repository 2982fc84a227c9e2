//! Serving peat-mesh nodes: two nodes on the old wire, members of one formation or not.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{eventually, node, peat, peat_json, serve};

fn secret(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let file = dir.join("secret");
    fs::write(&file, text).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
    }
    file
}

/// A node, and the arguments with which it serves the formation `alpha` on the old wire.
fn member(secret_text: &str, auth: &str) -> (TempDir, Vec<String>) {
    let dir = node();
    let file = secret(dir.path(), secret_text, 0o600);
    let args = ["--wire", "v0", "--auth", auth, "--formation", "alpha", "--secret-file"];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.push(file.to_str().expect("UTF-8").to_owned());
    (dir, args)
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn members_of_a_formation_sync_on_the_old_wire_in_both_dialects() {
    const SECRET: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n";
    for auth in ["p", "m"] {
        let ((a, args_a), (b, mut args_b)) = (member(SECRET, auth), member(SECRET, auth));
        peat(a.path(), ["put", "notes:a", r#"{"from":"a"}"#]).ok();
        peat(b.path(), ["put", "tracks:b", r#"{"from":"b"}"#]).ok();
        let first = serve(a.path(), &borrowed(&args_a));
        args_b.extend(["--join".to_owned(), first.ticket.clone()]);
        let second = serve(b.path(), &borrowed(&args_b));
        eventually(|| peat(b.path(), ["get", "notes:a"]).code == Some(0));
        eventually(|| peat(a.path(), ["get", "tracks:b"]).code == Some(0));
        let status = peat_json(b.path(), ["status"]).json();
        let shown = ["wire", "auth", "partition", "breaker"].map(|field| status["peers"][0][field].clone());
        assert_eq!(json!(shown), json!(["v0", auth, "connected", "closed"]));
        assert!(status["peers"][0]["window"].as_u64() > Some(0));
        assert_eq!(status["modes"]["tracks"], json!({"set": "latest", "v0": "snapshot", "v1": "full"}));
        assert_eq!(status["modes"]["*"], json!({"set": "full", "v0": "full", "v1": "full"}));
        let counted = |name: &str| status["counters"][name].as_u64();
        assert!(counted("legacy_full_bytes_received") > Some(0) && counted("legacy_snapshot_bytes_sent") > Some(0));
        let text = peat(b.path(), ["status"]).ok().to_owned();
        assert!(text.lines().any(|line| line.starts_with("snapshot ") && line.contains("tracks")), "{text}");
        let compared = peat_json(b.path(), ["sync", "--peer", &first.id]).json();
        assert_eq!(compared["counts"], json!({"equal": 2}));
        // What is deleted on one side goes on the other, softly and with a tombstone.
        peat(b.path(), ["rm", "notes:a"]).ok();
        peat(a.path(), ["rm", "tracks:b"]).ok();
        eventually(|| peat(a.path(), ["ls", "--deleted"]).text() == "notes:a\ntracks:b");
        eventually(|| peat(b.path(), ["ls", "--deleted"]).text() == "notes:a\ntracks:b");
        second.stop();
        first.stop();
    }
}

#[test]
fn who_has_another_secret_gets_nothing() {
    let ((a, args_a), (b, mut args_b)) = (member("QkI=", "p"), member("QkM=", "p"));
    peat(a.path(), ["put", "notes:a", r#"{"from":"a"}"#]).ok();
    let first = serve(a.path(), &borrowed(&args_a));
    args_b.extend(["--join".to_owned(), first.ticket.clone()]);
    let second = serve(b.path(), &borrowed(&args_b));
    eventually(|| peat_json(a.path(), ["status"]).json()["counters"]["legacy_strangers"].as_u64() > Some(0));
    assert_eq!(peat(b.path(), ["ls"]).ok(), "");
    second.stop();
    first.stop();
}

#[test]
fn a_formation_needs_its_secret_and_the_old_wire_a_formation_or_a_word() {
    let dir = node();
    let serving = |args: &[&str]| peat_json(dir.path(), ["serve"].iter().chain(args).copied());
    assert_eq!(serving(&["--wire", "v0"]).error(2)["code"], json!("usage"));
    assert_eq!(serving(&["--formation", "alpha"]).error(2)["code"], json!("usage"));
    let file = secret(dir.path(), "not base64!", 0o600).to_str().expect("UTF-8").to_owned();
    assert_eq!(serving(&["--formation", "alpha", "--secret-file", &file]).error(2)["code"], json!("usage"));
    let file = secret(dir.path(), "QkI=", 0o644).to_str().expect("UTF-8").to_owned();
    assert_eq!(serving(&["--formation", "alpha", "--secret-file", &file]).error(6)["code"], json!("key_exposed"));
    // Only with a word that says so.
    serve(dir.path(), &["--wire", "both", "--auth", "off"]).stop();
}
