//! Two processes, one state.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use peat_node::Ticket;
use serde_json::json;

use crate::harness::{Ended, eventually, node, peat, peat_json, serve, temporary};

fn listed(dir: &Path) -> Vec<(String, String)> {
    let entry = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (entry["key"].to_string(), entry["heads"].to_string())
    };
    peat_json(dir, ["ls"]).ok().lines().map(entry).collect()
}

fn sync(dir: &Path, ticket: &str, more: &[&str]) -> Ended {
    peat_json(dir, ["sync", ticket].iter().chain(more))
}

#[test]
fn one_sync_makes_both_sides_equal() {
    let (a, b) = (temporary(), node());
    let serving = serve(a.path(), &[]);
    serving.peat(["put", "notes:a", r#"{"from":"a"}"#]).ok();
    peat(b.path(), ["put", "notes:b", r#"{"from":"b"}"#]).ok();
    let synced = sync(b.path(), &serving.ticket, &[]).json();
    assert_eq!(
        (&synced["level"], &synced["documents"], &synced["peer"]),
        (&true.into(), &2.into(), &serving.id.clone().into())
    );
    let of_a = listed(a.path());
    assert_eq!(of_a.len(), 2);
    assert_eq!(of_a, listed(b.path()));
    assert_eq!(serving.peat(["get", "notes:b"]).json(), json!({"from": "b"}));
    serving.stop();
    assert_eq!(peat(b.path(), ["get", "notes:a"]).json(), json!({"from": "a"}));
}

#[test]
fn a_ticket_leads_to_every_transport_from_every_transport() {
    let a = temporary();
    let serving = serve(a.path(), &["--transport", "both", "--listen-udp", "127.0.0.1:0"]);
    let ticket: Ticket = serving.ticket.parse().expect("our own ticket");
    assert_eq!(ticket.addrs.len(), 2);
    for (n, transport) in ["iroh", "udp", "both"].into_iter().enumerate() {
        // Each address alone, as if the other could not be reached.
        for (side, addr) in ticket.addrs.iter().enumerate() {
            let b = temporary();
            let ticket = Ticket { addrs: vec![*addr], ..ticket.clone() };
            let thin = ["--thin", "--congestion", "fixed:2M", "--no-offload"].iter().filter(|_| transport != "iroh");
            let more: Vec<&str> = ["--transport", transport].iter().chain(thin).copied().collect();
            serving.peat(["put", &format!("notes:{n}-{side}"), r#"{"here":true}"#]).ok();
            let synced = sync(b.path(), &ticket.to_string(), &more).json();
            assert_eq!(synced["documents"], 2 * n + side + 1);
        }
    }
    serving.stop();
}

#[test]
fn an_option_of_another_transport_is_refused_and_not_ignored() {
    let a = temporary();
    for (transport, option) in [
        ("iroh", &["--thin"][..]),
        ("iroh", &["--congestion", "fixed:2M"]),
        ("iroh", &["--no-offload"]),
        ("iroh", &["--local"]),
        ("udp", &["--relay"]),
        ("udp", &["--discovery"]),
        ("udp", &["--listen-udp", "127.0.0.1:0"]),
    ] {
        let args = [&["serve", "--transport", transport], option].concat();
        let ended = peat(a.path(), args);
        assert!(ended.failed(2).stderr.contains(option[0]), "{}", ended.stderr);
    }
}

#[test]
fn a_second_sync_needs_no_invitation_because_the_peer_is_remembered() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &[]);
    sync(b.path(), &serving.ticket, &[]).json();
    serving.peat(["put", "notes:a", r#"{"n":1}"#]).ok();
    sync(b.path(), &serving.ticket_without_invitation(), &[]).json();
    serving.stop();
    assert_eq!(peat(b.path(), ["get", "notes:a"]).json(), json!({"n": 1}));
}

#[test]
fn a_sync_does_not_join_for_ever_and_leaves_a_join_alone() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &[]);
    let peers = || std::fs::read_to_string(b.path().join("peers")).expect("an address book");
    sync(b.path(), &serving.ticket, &[]).json();
    assert!(peers().contains("\"wanted\": false"), "{}", peers());
    let joining = serve(b.path(), &["--join", &serving.ticket]);
    sync(b.path(), &serving.ticket, &[]).json();
    joining.stop();
    sync(b.path(), &serving.ticket, &[]).json();
    assert!(peers().contains("\"wanted\": true"), "{}", peers());
    serving.stop();
}

#[test]
fn two_serves_exchange_what_is_written_on_either() {
    let (a, b) = (temporary(), temporary());
    let first = serve(a.path(), &[]);
    let second = serve(b.path(), &["--join", &first.ticket]);
    first.peat(["put", "notes:x", r#"{"n":1}"#]).ok();
    second.peat(["put", "notes:y", r#"{"n":2}"#]).ok();
    // While a serve runs, sync waits until that one is level.
    sync(b.path(), &first.ticket, &[]).json();
    assert_eq!(listed(a.path()), listed(b.path()));
    assert_eq!(first.peat(["get", "notes:y"]).json(), json!({"n": 2}));
    assert_eq!(second.peat(["get", "notes:x"]).json(), json!({"n": 1}));
    let status = peat_json(a.path(), ["status"]).json();
    assert_eq!(status["peers"][0]["id"], second.id);
    second.stop();
    first.stop();
}

#[test]
fn status_tells_what_is_left_out_and_how_many_were_let_in_of_how_many() {
    let (a, b) = (node(), temporary());
    peat(a.path(), ["policy", "set", "orders", "write=parent"]).ok();
    // Without a place in a hierarchy everybody may write.
    let first = serve(a.path(), &["--role", "hub"]);
    let second = serve(b.path(), &["--join", &first.ticket]);
    second.peat(["put", "orders:y", r#"{"n":2}"#]).ok();
    eventually(|| peat_json(b.path(), ["status"]).json()["peers"][0]["left_out"] == 1);
    assert!(peat(b.path(), ["status"]).ok().contains("1 left out because refused"));
    let status = peat_json(a.path(), ["status"]).json();
    let shown = ["remembered", "max_admitted", "guests", "max_guests"].map(|field| status[field].clone());
    assert_eq!(json!(shown), json!([1, 4096, 1, 256]));
    let text = peat(a.path(), ["status"]).ok().to_owned();
    assert!(text.contains("admitted   1 remembered of 4096 at most, 1 by one invitation of 256\n"), "{text}");
    second.stop();
    first.stop();
}

#[test]
fn a_stranger_is_refused_and_told_so() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &[]);
    serving.peat(["put", "notes:secret", r#"{"n":1}"#]).ok();
    let stranger = serving.ticket_without_invitation();
    let started = Instant::now();
    let error = sync(b.path(), &stranger, &["--timeout", "60"]).error(5);
    assert_eq!((&error["code"], &error["retryable"]), (&"refused".into(), &false.into()));
    assert_eq!(peat(b.path(), ["ls"]).ok(), "", "a stranger learns nothing");
    let refused = peat(b.path(), ["sync", &stranger, "--timeout", "60"]);
    assert_eq!(refused.failed(5).stderr.lines().count(), 2, "{}", refused.stderr);
    // The same through a `serve` of the stranger's.
    let through = serve(b.path(), &[]);
    assert_eq!(sync(b.path(), &stranger, &["--timeout", "60"]).error(5)["code"], "refused");
    through.stop();
    assert!(started.elapsed() < Duration::from_secs(30), "at once: {:?}", started.elapsed());
    serving.stop();
    let id = peat(b.path(), ["id"]).ok().to_owned();
    let serving = serve(a.path(), &["--allow", &id]);
    sync(b.path(), &serving.ticket_without_invitation(), &[]).json();
    serving.stop();
    assert_eq!(peat(b.path(), ["ls"]).ok(), "notes:secret");
}

#[test]
fn an_open_node_lets_strangers_in() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &["--open"]);
    serving.peat(["put", "notes:public", r#"{"n":1}"#]).ok();
    let ticket: Ticket = serving.ticket.parse().expect("our own ticket");
    assert_eq!(ticket.invitation, None, "nobody needs one");
    sync(b.path(), &serving.ticket, &[]).json();
    serving.stop();
    assert_eq!(peat(b.path(), ["ls"]).ok(), "notes:public");
}

#[test]
fn a_peer_that_is_not_there_is_unreachable_within_the_timeout() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &[]);
    let mut ticket: Ticket = serving.ticket.parse().expect("our own ticket");
    serving.stop();
    // A port that stays silent, because we hold it.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    ticket.addrs = vec![silent.local_addr().expect("bound")];
    let started = Instant::now();
    let error = sync(b.path(), &ticket.to_string(), &["--timeout", "2"]).error(5);
    assert_eq!((&error["code"], &error["retryable"]), (&"unreachable".into(), &true.into()));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let (a, b, c) = (temporary(), temporary(), temporary());
    let (wanted, other) = (serve(a.path(), &[]), serve(c.path(), &["--open"]));
    other.peat(["put", "notes:false", "{\"n\":1}"]).ok();
    let mut ticket: Ticket = wanted.ticket.parse().expect("our own ticket");
    ticket.addrs = other.ticket.parse::<Ticket>().expect("our own ticket").addrs;
    let error = sync(b.path(), &ticket.to_string(), &["--timeout", "2"]).error(5);
    assert_eq!(error["code"], "unreachable");
    assert_eq!(peat(b.path(), ["ls"]).ok(), "");
    other.stop();
    wanted.stop();
}

#[test]
fn a_mistyped_ticket_is_refused_before_anything_is_made() {
    let (a, b) = (temporary(), temporary());
    let serving = serve(a.path(), &[]);
    let mut mistyped = serving.ticket.clone();
    let last = mistyped.pop().expect("not empty");
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    peat(b.path(), ["sync", &mistyped]).failed(2);
    serving.peat(["sync", &serving.ticket]).failed(2);
    peat(b.path(), ["serve", "--join", serving.ticket.get(..20).expect("long")]).failed(2);
    assert_eq!(std::fs::read_dir(b.path()).expect("readable").count(), 0);
    serving.stop();
}

#[test]
fn a_running_node_compares_with_a_connected_peer_at_once() {
    let (a, b) = (temporary(), temporary());
    let first = serve(a.path(), &[]);
    first.peat(["put", "notes:x", r#"{"n":1}"#]).ok();
    first.peat(["put", "tracks:y", r#"{"n":1}"#]).ok();
    let nobody = "00".repeat(32);
    assert_eq!(peat_json(b.path(), ["sync", "--peer", &nobody]).error(3)["code"], "not_serving");
    let second = serve(b.path(), &["--join", &first.ticket]);
    sync(b.path(), &first.ticket, &[]).json();
    let synced = peat_json(b.path(), ["sync", "--peer", &first.id]).json();
    assert_eq!(synced["counts"], json!({"equal": 2}));
    assert_eq!(synced["documents"], json!([]));
    let notes = peat_json(b.path(), ["sync", "--peer", &first.id, "notes:"]).json();
    assert_eq!(notes["counts"], json!({"equal": 1}));
    let away = peat_json(b.path(), ["sync", "--peer", &nobody]);
    assert_eq!(away.error(5)["code"], "unreachable");
    let said = String::from_utf8_lossy(&away.stdout);
    assert!(said.contains(r#""counts":{"unreachable":2}"#), "{said}");
    second.stop();
    first.stop();
}
