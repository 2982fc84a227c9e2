//! policy show and set, and the rules that serve is started with.

use std::fs;

use serde_json::json;

use crate::harness::{node, peat, peat_json, serve};

#[test]
fn a_setting_takes_effect_on_the_running_node_and_lasts() {
    let dir = node();
    let serve = serve(dir.path(), &[]);
    peat(dir.path(), ["put", "notes:a", r#"{"x":1}"#]).ok();
    peat(dir.path(), ["policy", "set", "notes", "deletion=immutable", "class=high"]).ok();
    assert_eq!(peat_json(dir.path(), ["rm", "notes:a"]).error(1)["code"], json!("kept"));
    peat(dir.path(), ["policy", "set", "notes", "deletion=tombstone"]).ok();
    peat(dir.path(), ["rm", "notes:a"]).ok();
    peat(dir.path(), ["put", "notes:a", r#"{"x":2}"#]).failed(1);
    serve.stop();
    let shown = peat(dir.path(), ["policy", "show", "notes"]);
    assert!(shown.ok().contains("class = \"high\"\n") && shown.ok().contains("deletion = \"tombstone\"\n"));
    // Without a running serve, too.
    peat(dir.path(), ["policy", "set", "*", "ttl=36h"]).ok();
    assert!(peat(dir.path(), ["policy", "show", "*"]).ok().contains("ttl = \"36h\""));
}

#[test]
fn shares_and_hierarchy_are_set_on_the_running_node() {
    let dir = node();
    let serve = serve(dir.path(), &[]);
    peat(dir.path(), ["policy", "set", "shares", "critical=50", "high=20"]).ok();
    let parent = "ab".repeat(32);
    peat(dir.path(), ["policy", "set", "hierarchy", &format!("parents={parent}"), "role=hub"]).ok();
    peat(dir.path(), ["policy", "set", "shares", "critical=90"]).failed(2);
    let shown = |section| peat(dir.path(), ["policy", "show", section]).ok().to_owned();
    assert!(shown("shares").contains("critical = 50\nhigh = 20\n"), "{}", shown("shares"));
    assert!(shown("hierarchy").contains(&format!("parents = [\"{parent}\"]")));
    assert!(shown("hierarchy").contains("others = \"child\""));
    serve.stop();
    assert!(shown("shares").contains("critical = 50\n"), "it lasts");
}

#[test]
fn a_bad_setting_changes_nothing() {
    let dir = node();
    let before = peat(dir.path(), ["policy", "show"]).ok().to_owned();
    let error = peat_json(dir.path(), ["policy", "set", "notes", "class=high", "mode=fast"]).error(2);
    assert_eq!(error["code"], json!("bad_policy"));
    peat(dir.path(), ["policy", "set", "notes", "class"]).failed(2);
    assert_eq!(peat(dir.path(), ["policy", "show"]).ok(), before);
}

#[test]
fn serve_takes_its_policy_and_place_from_the_command_line_and_keeps_them() {
    let dir = node();
    let file = dir.path().join("mine.toml");
    fs::write(&file, "[collections.notes]\nttl = \"3h\"\n").expect("written");
    let parent = "ab".repeat(32);
    let file = file.to_str().expect("UTF-8").to_owned();
    serve(dir.path(), &["--policy", &file, "--role", "leaf", "--parent", &parent]).stop();
    let shown = peat(dir.path(), ["policy", "show"]).ok().to_owned();
    assert!(shown.contains("ttl = \"3h\""));
    assert!(shown.contains(&format!("parents = [\"{parent}\"]")), "{shown}");
    serve(dir.path(), &["--role", "hub"]).stop();
    assert!(peat(dir.path(), ["policy", "show"]).ok().contains("others = \"child\""));

    fs::write(dir.path().join("bad.toml"), "[collections.notes]\nttl = 5").expect("written");
    let bad = dir.path().join("bad.toml").to_str().expect("UTF-8").to_owned();
    peat(dir.path(), ["serve", "--policy", &bad]).failed(2);
    assert_eq!(peat(dir.path(), ["policy", "show"]).ok().matches("ttl = \"3h\"").count(), 1, "the old one goes on");

    fs::write(dir.path().join("policy.toml"), "[collections").expect("written");
    assert_eq!(peat_json(dir.path(), ["ls"]).error(2)["code"], json!("bad_policy"));
}
