//! `peat import`, straight into the store and through a `serve`.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::{Ended, command, node, peat, peat_json, run, serve, temporary};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/adsb-10min.csv.gz");

const CSV: &str = "\
id,name,height,speed,ground,code
a,Ä 1,100,1.5,true,007
b,,-3,2.0,false,1e3
c,short
,no id,1,1.0,true,1
a,Ä 2,,1.5,true,007
";

fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("written");
    path
}

fn import(dir: &Path, file: &Path) -> Ended {
    peat(dir, ["import", file.to_str().expect("UTF-8"), "--collection", "t", "--key", "id"])
}

fn get(dir: &Path, key: &str) -> Value {
    peat(dir, ["get", key]).json()
}

/// The file of [`CSV`] has been imported.
fn check_csv(dir: &Path, ended: &Ended) {
    ended.failed(7);
    assert_eq!(ended.text(), "5 rows, 3 imported, 2 failed");
    let lines: Vec<_> = ended.stderr.lines().take(2).map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(lines, ["line 4", "line 5"], "{}", ended.stderr);
    assert_eq!(
        get(dir, "t:a"),
        json!({"id": "a", "name": "Ä 2", "speed": 1.5, "ground": true, "code": "007"}),
        "the last row of a document wins, and an empty cell removes the field"
    );
    assert_eq!(get(dir, "t:b"), json!({"id": "b", "height": -3, "speed": 2.0, "ground": false, "code": "1e3"}));
    assert_eq!(peat(dir, ["ls"]).ok(), "t:a\nt:b");
}

#[test]
fn csv_rows_become_documents_and_bad_rows_are_named() {
    let (dir, files) = (node(), temporary());
    check_csv(dir.path(), &import(dir.path(), &file(files.path(), "a.csv", CSV.as_bytes())));
}

#[test]
fn csv_through_a_serve_is_the_same() {
    let (dir, files) = (node(), temporary());
    let serve = serve(dir.path(), &[]);
    check_csv(dir.path(), &import(dir.path(), &file(files.path(), "a.csv", CSV.as_bytes())));
    serve.stop();
}

#[test]
fn gzip_is_recognised_in_files_and_on_standard_input() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(CSV.as_bytes()).expect("packed");
    let packed = packed.finish().expect("packed");
    let (dir, files) = (node(), temporary());
    check_csv(dir.path(), &import(dir.path(), &file(files.path(), "a.csv.gz", &packed)));
    let other = node();
    let from_stdin = command(other.path(), ["import", "-", "--format", "csv", "--collection", "t", "--key", "id"]);
    check_csv(other.path(), &run(from_stdin, &packed));
}

#[test]
fn importing_a_file_again_changes_nothing() {
    let (dir, files) = (node(), temporary());
    let csv = file(files.path(), "a.csv", b"id,n\na,1\nb,2\n");
    import(dir.path(), &csv).ok();
    let before = peat_json(dir.path(), ["ls"]);
    assert_eq!(import(dir.path(), &csv).ok(), "2 rows, 2 imported, 0 failed");
    let heads = |ended: &Ended| -> Vec<Value> {
        let entry = |line| serde_json::from_str::<Value>(line).expect("JSON")["heads"].clone();
        ended.ok().lines().map(entry).collect()
    };
    assert_eq!(heads(&before), heads(&peat_json(dir.path(), ["ls"])));
}

#[test]
fn a_csv_row_leaves_fields_alone_that_the_file_does_not_have() {
    let (dir, files) = (node(), temporary());
    peat(dir.path(), ["put", "t:a", r#"{"remark":"mine","n":0}"#]).ok();
    import(dir.path(), &file(files.path(), "a.csv", b"id,n\na,1\n")).ok();
    assert_eq!(get(dir.path(), "t:a"), json!({"remark": "mine", "n": 1, "id": "a"}));
}

#[test]
fn json_lines_replace_documents_and_bad_lines_are_named() {
    let lines = b"{\"id\":\"a\",\"x\":[1]}\nnot json\n\n[1]\n{\"x\":1}\n{\"id\":7}\n";
    for serving in [false, true] {
        let (dir, files) = (node(), temporary());
        let serve = serving.then(|| serve(dir.path(), &[]));
        let path = file(files.path(), "a.jsonl", lines);
        let args = ["import", path.to_str().expect("UTF-8"), "--collection", "t", "--key", "id"];
        let ended = peat_json(dir.path(), args);
        assert_eq!(ended.error(7)["code"], "rows_failed");
        let summary: Value = serde_json::from_str(ended.text()).expect("the summary");
        assert_eq!(summary, json!({"rows": 5, "imported": 2, "failed": 3}));
        let bad: Vec<_> =
            ended.stderr.lines().map(|line| serde_json::from_str::<Value>(line).expect("NDJSON")).collect();
        let lines: Vec<_> = bad.iter().filter_map(|error| error["error"]["line"].as_u64()).collect();
        assert_eq!(lines, [2, 4, 5]);
        assert_eq!(get(dir.path(), "t:a"), json!({"id": "a", "x": [1]}));
        assert_eq!(get(dir.path(), "t:7"), json!({"id": 7}));
        if let Some(serve) = serve {
            serve.stop();
        }
    }
}

#[test]
fn what_get_prints_as_json_can_be_imported() {
    let (dir, other, files) = (node(), node(), temporary());
    peat(dir.path(), ["put", "notes:a", r#"{"n":{"deep":[1,2]}}"#]).ok();
    let printed = peat_json(dir.path(), ["get", "notes:a"]);
    let path = file(files.path(), "dump.jsonl", &printed.stdout);
    peat(other.path(), ["import", path.to_str().expect("UTF-8")]).ok();
    assert_eq!(get(other.path(), "notes:a"), json!({"n": {"deep": [1, 2]}}));
}

#[test]
fn the_recorded_sample_is_imported_whole_through_a_serve_and_shares_commits() {
    let dir = temporary();
    let serve = serve(dir.path(), &[]);
    let ended = peat_json(dir.path(), ["import", SAMPLE, "--collection", "tracks", "--key", "icao24"]);
    assert_eq!(ended.json(), json!({"rows": 18_683, "imported": 18_683, "failed": 0}));
    let status = peat_json(dir.path(), ["status"]).json();
    assert_eq!(status["documents"], 50);
    assert_eq!(status["edits"], 18_683, "one change for each row");
    let batches = status["batches"].as_u64().expect("a number");
    assert!(batches < 18_683 / 5, "{batches} commits for 18,683 rows");
    serve.stop();
    assert_eq!(peat(dir.path(), ["ls", "tracks:"]).ok().lines().count(), 50);
}

#[test]
fn a_file_that_is_not_what_it_says_writes_nothing() {
    let (dir, files) = (node(), temporary());
    let garbage = file(files.path(), "x.automerge", b"\x85\x6f\x4a\x83 not a document");
    let ended = peat_json(dir.path(), ["import", garbage.to_str().expect("UTF-8"), "--collection", "t"]);
    assert_eq!(ended.error(1)["code"], "document");
    let no_key = file(files.path(), "x.csv", b"a,b\n1,2\n");
    import(dir.path(), &no_key).failed(2);
    let no_form = file(files.path(), "x.bin", b"1");
    import(dir.path(), &no_form).failed(2);
    import(dir.path(), Path::new("/nonexistent/x.csv")).failed(2);
    import(dir.path(), &files.path().join("")).failed(2);
    let mut cut = GzEncoder::new(Vec::new(), Compression::fast());
    cut.write_all(b"id,n\na,1\n").expect("packed");
    let cut = cut.finish().expect("packed");
    let cut = file(files.path(), "cut.csv.gz", cut.get(..cut.len() / 2).expect("shorter"));
    import(dir.path(), &cut).failed(2);
    assert_eq!(peat(dir.path(), ["ls"]).ok(), "");
}
