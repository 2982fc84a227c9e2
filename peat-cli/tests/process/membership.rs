//! Who is let in among Peat nodes: members of a formation, and nobody without a word.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Serve, eventually, node, peat, peat_json, serve};

/// Serves as a member of `formation`, which has this secret, and joins the node of another ticket if there is one.
fn member(dir: &Path, formation: &str, secret: &str, join: Option<&str>) -> Serve {
    let file = dir.join("secret");
    fs::write(&file, secret).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    }
    let mut args = vec!["--formation", formation, "--secret-file", file.to_str().expect("UTF-8")];
    args.extend(join.into_iter().flat_map(|ticket| ["--join", ticket]));
    serve(dir, &args)
}

/// The ticket without the invitation in it: where the node is, and who.
fn bare(ticket: &str) -> String {
    let mut ticket: peat_node::Ticket = ticket.parse().expect("a ticket");
    ticket.invitation = None;
    ticket.to_string()
}

fn nodes() -> (TempDir, TempDir) {
    let (a, b) = (node(), node());
    peat(a.path(), ["put", "notes:a", r#"{"from":"a"}"#]).ok();
    peat(b.path(), ["put", "tracks:b", r#"{"from":"b"}"#]).ok();
    (a, b)
}

#[test]
fn members_of_a_formation_let_each_other_in_without_an_invitation() {
    let (a, b) = nodes();
    let first = member(a.path(), "alpha", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n", None);
    let second =
        member(b.path(), "alpha", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n", Some(&bare(&first.ticket)));
    eventually(|| peat(b.path(), ["get", "notes:a"]).code == Some(0));
    eventually(|| peat(a.path(), ["get", "tracks:b"]).code == Some(0));
    let status = peat_json(a.path(), ["status"]).json();
    let shown = ["wire", "auth", "partition", "breaker"].map(|field| status["peers"][0][field].clone());
    assert_eq!(serde_json::json!(shown), serde_json::json!(["v1", "formation", null, null]));
    peat(b.path(), ["rm", "tracks:b"]).ok();
    eventually(|| peat(a.path(), ["ls", "--deleted"]).text() == "tracks:b");
    second.stop();
    first.stop();
}

#[test]
fn who_has_another_secret_or_another_name_for_it_is_refused() {
    for (formation, secret) in [("alpha", "QkM="), ("bravo", "QkI=")] {
        let (a, b) = nodes();
        let first = member(a.path(), "alpha", "QkI=", None);
        let second = member(b.path(), formation, secret, Some(&bare(&first.ticket)));
        eventually(|| peat_json(a.path(), ["status"]).json()["counters"]["closed"].as_u64() > Some(0));
        assert_eq!(peat(b.path(), ["ls"]).ok(), "tracks:b");
        assert_eq!(peat(a.path(), ["ls"]).ok(), "notes:a");
        second.stop();
        first.stop();
    }
}
