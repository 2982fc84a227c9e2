//! rm and ls --deleted: the same with and without a running `serve`.

use std::path::Path;

use serde_json::json;

use crate::harness::{node, peat, peat_json, serve};

fn deletes(dir: &Path) {
    for key in ["notes:a", "notes:b", "nodes:a"] {
        peat(dir, ["put", key, r#"{"x":1}"#]).ok();
    }
    peat(dir, ["rm", "notes:a", "--reason", "dup"]).ok();
    assert_eq!(
        peat_json(dir, ["rm", "nodes:a", "--reason", "gone"]).json(),
        json!({"key": "nodes:a", "deleted": true})
    );
    assert_eq!(peat(dir, ["ls"]).ok(), "notes:b");
    assert_eq!(peat(dir, ["ls", "--deleted"]).ok(), "nodes:a\nnotes:a");
    let grave = peat_json(dir, ["ls", "--deleted", "nodes:"]).json();
    assert_eq!((&grave["reason"], &grave["soft"]), (&json!("gone"), &json!(false)));
    assert_eq!(grave["by"], json!(peat(dir, ["id"]).ok()));
    peat(dir, ["get", "notes:a"]).failed(3);
    peat(dir, ["get", "nodes:a"]).failed(3);
    peat(dir, ["rm", "notes:unknown"]).failed(3);
    peat(dir, ["rm", "notes:a"]).failed(1);

    // What was deleted softly comes back with a put, what has a tombstone does not.
    peat(dir, ["put", "notes:a", r#"{"x":2}"#]).ok();
    assert_eq!(peat(dir, ["get", "notes:a"]).json(), json!({"x": 2}));
    assert_eq!(peat_json(dir, ["put", "nodes:a", r#"{"x":2}"#]).error(1)["code"], json!("deleted"));
    assert_eq!(peat(dir, ["ls", "--deleted"]).ok(), "nodes:a");
    assert_eq!(peat_json(dir, ["status"]).json()["markers"], json!(1));

    // Beacons go by themselves.
    peat(dir, ["put", "beacons:a", r#"{"x":1}"#]).ok();
    assert_eq!(peat_json(dir, ["rm", "beacons:a"]).error(1)["code"], json!("kept"));
    assert_eq!(peat(dir, ["get", "beacons:a"]).json(), json!({"x": 1}));
}

#[test]
fn what_was_deleted_stays_so_in_the_next_process() {
    let dir = node();
    deletes(dir.path());
}

#[test]
fn deleting_through_a_serve_is_the_same_and_lasts() {
    let dir = node();
    let serve = serve(dir.path(), &[]);
    deletes(dir.path());
    serve.stop();
    assert_eq!(peat(dir.path(), ["ls", "--deleted"]).ok(), "nodes:a");
    peat(dir.path(), ["put", "nodes:a", r#"{"x":3}"#]).failed(1);
}
