//! put, get, ls, export: the same with and without a running `serve`.

use std::path::Path;

use peat_node::proto::automerge::{Automerge, ReadDoc};
use serde_json::json;

use crate::harness::{Ended, command, node, peat, peat_json, run, serve, temporary};

/// Every command that only reads, plain and as JSON.
fn everything_read(dir: &Path) -> Vec<Ended> {
    let mut outcomes = Vec::new();
    for args in [
        &["id"][..],
        &["ls"],
        &["ls", "notes:"],
        &["ls", "nothing"],
        &["get", "notes:a"],
        &["get", "notes:unknown"],
        &["export", "notes:a"],
        &["export", "notes:a", "--format", "automerge"],
        &["export", "notes:unknown", "--format", "automerge"],
    ] {
        outcomes.push(peat(dir, args));
        outcomes.push(peat_json(dir, args));
    }
    outcomes
}

#[test]
fn what_was_put_is_there_in_the_next_process() {
    let dir = node();
    peat(dir.path(), ["put", "notes:a", r#"{"text":"hé","n":[1,2.5,true,null,{"x":-1}]}"#]).ok();
    let value = json!({"text": "hé", "n": [1, 2.5, true, null, {"x": -1}]});
    assert_eq!(peat(dir.path(), ["get", "notes:a"]).json(), value);
    assert_eq!(peat_json(dir.path(), ["get", "notes:a"]).json(), json!({"key": "notes:a", "value": value}));
    assert_eq!(peat(dir.path(), ["export", "notes:a", "--format", "json"]).json(), value);
}

#[test]
fn reading_through_a_serve_prints_the_same_bytes() {
    let dir = node();
    for (key, value) in [
        ("notes:a", r#"{"n":0.1,"big":18446744073709551615}"#),
        ("notes:b", r#"{"n":null}"#),
        ("other:c", r#"{"x":1}"#),
    ] {
        peat(dir.path(), ["put", key, value]).ok();
    }
    let alone = everything_read(dir.path());
    let serve = serve(dir.path(), &[]);
    let through = everything_read(dir.path());
    serve.stop();
    assert_eq!(alone, through);
    assert!(alone.iter().any(|ended| ended.code == Some(0)) && alone.iter().any(|ended| ended.code == Some(3)));
}

#[test]
fn writing_through_a_serve_lasts() {
    let dir = temporary();
    let serving = serve(dir.path(), &[]);
    serving.peat(["put", "notes:a", r#"{"n":1}"#]).ok();
    let mut from_stdin = command(dir.path(), ["put", "notes:b", "-"]);
    from_stdin.arg("--json");
    assert_eq!(run(from_stdin, br#"{"n":2}"#).json(), json!({"key": "notes:b"}));
    serving.stop();
    assert_eq!(peat(dir.path(), ["ls"]).ok(), "notes:a\nnotes:b");
    assert_eq!(peat(dir.path(), ["get", "notes:b"]).json(), json!({"n": 2}));
}

#[test]
fn putting_what_is_there_already_is_no_change() {
    let dir = node();
    peat(dir.path(), ["put", "notes:a", r#"{"n":1,"t":"x"}"#]).ok();
    let before = peat_json(dir.path(), ["ls"]);
    peat(dir.path(), ["put", "notes:a", r#"{"t":"x","n":1}"#]).ok();
    assert_eq!(peat_json(dir.path(), ["ls"]).json()["heads"], before.json()["heads"]);
    peat(dir.path(), ["put", "notes:a", r#"{"n":1}"#]).ok();
    assert_ne!(peat_json(dir.path(), ["ls"]).json()["heads"], before.json()["heads"]);
    assert_eq!(peat(dir.path(), ["get", "notes:a"]).json(), json!({"n": 1}), "a key that is not put is deleted");
}

#[test]
fn an_exported_history_can_be_imported_elsewhere() {
    let (dir, other) = (node(), node());
    for n in 0..3 {
        peat(dir.path(), ["put", "notes:a", &format!("{{\"n\":{n}}}")]).ok();
    }
    let saved = peat(dir.path(), ["export", "notes:a", "--format", "automerge"]);
    saved_has_three_changes(&saved.stdout);
    let file = other.path().join("a.automerge");
    std::fs::write(&file, &saved.stdout).expect("written");
    peat(other.path(), ["import", file.to_str().expect("UTF-8"), "--collection", "notes"]).ok();
    let heads = |dir: &Path| peat_json(dir, ["ls"]).json()["heads"].clone();
    assert_eq!(heads(dir.path()), heads(other.path()));
    assert_eq!(peat(other.path(), ["get", "notes:a"]).json(), json!({"n": 2}));
}

fn saved_has_three_changes(saved: &[u8]) {
    let doc = Automerge::load(saved).expect("an Automerge document");
    assert_eq!(doc.get_changes(&[]).len(), 3);
    assert_eq!(doc.length(peat_node::proto::automerge::ROOT), 1);
}

#[test]
fn a_thousand_documents_are_listed_in_key_order() {
    let dir = node();
    let lines: String = (0..1000).rev().map(|n| format!("{{\"id\":\"{n:04}\"}}\n")).collect();
    let import = command(dir.path(), ["import", "-", "--format", "jsonl", "--collection", "t", "--key", "id"]);
    run(import, lines.as_bytes()).ok();
    let wanted: Vec<_> = (0..1000).map(|n| format!("t:{n:04}")).collect();
    assert_eq!(peat(dir.path(), ["ls"]).ok().lines().collect::<Vec<_>>(), wanted);
    assert_eq!(peat(dir.path(), ["ls", "t:099"]).ok().lines().count(), 10);
}
