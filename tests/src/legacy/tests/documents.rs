//! Documents between two models.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A node binary that polls only when it is told to.
fn quiet() -> Config {
    Config { poll: DAY, ..Config::node_binary() }
}

/// A host runtime without the two warts that keep it busy for ever.
fn calm() -> Config {
    let mut config = Config::host_runtime();
    (config.warts.echoes, config.warts.announces_nothing) = (false, false);
    config
}

fn push(mesh: &mut Mesh, from: usize) -> Vec<usize> {
    let since = mesh.said.len();
    let to = mesh.members[1 - from].id();
    mesh.with(from, |member, now| member.push(now, to));
    mesh.run(SECOND);
    let sizes = |from| frames(mesh, from, kind::DELTA, since).into_iter().map(|frame| frame.payload.len());
    sizes(0).chain(sizes(1)).collect()
}

#[test]
fn a_first_exchange_has_four_messages_then_a_poll_has_one_of_74_bytes_then_there_is_silence() {
    for asks in [0, 1] {
        let mut mesh = pair(quiet(), quiet());
        for number in 0..3 {
            mesh.with(asks, |it, now| it.put(now, "docs:a", &format!("k{number}"), Some(&Field::Int(number))));
        }
        let other = 1 - asks;
        assert_eq!(push(&mut mesh, asks).len(), 4);
        assert!(mesh.agree(&[0, 1]));
        assert_eq!(mesh.members[other].fields("docs:a").len(), 3);

        assert_eq!(push(&mut mesh, asks), [74]);
        for _ in 0..3 {
            assert_eq!(push(&mut mesh, asks), [0; 0]);
        }
        assert_eq!(mesh.members[asks].stats().silent, 3);

        // Until the other side asks: then each has one message again.
        assert_eq!(push(&mut mesh, other), [74]);
        assert_eq!(push(&mut mesh, asks), [74]);
        assert_eq!(push(&mut mesh, other), [74]);
    }
}

#[test]
fn changes_on_both_sides_come_together() {
    let mut mesh = pair(quiet(), quiet());
    for (member, field) in [(0, "a"), (1, "b"), (0, "c")] {
        mesh.with(member, |it, now| it.put(now, "docs:a", field, Some(&text(field))));
        push(&mut mesh, member);
    }
    mesh.with(1, |it, now| it.put(now, "docs:a", "a", None));
    push(&mut mesh, 1);
    assert!(mesh.agree(&[0, 1]));
    assert_eq!(mesh.members[0].fields("docs:a").keys().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn snapshots_are_merged_and_never_answered() {
    let mut mesh = pair(quiet(), quiet());
    for member in [0, 1] {
        mesh.with(member, |it, now| it.put(now, "tracks:a", &format!("m{member}"), Some(&Field::Bool(true))));
    }
    push(&mut mesh, 0);
    assert_eq!(mesh.members[1].fields("tracks:a").len(), 2);
    assert_eq!(mesh.members[0].fields("tracks:a").len(), 1);
    assert_eq!(mesh.said.iter().filter(|said| said.opens).count(), 1);
    push(&mut mesh, 1);
    assert!(mesh.agree(&[0, 1]));
    // Once more and as large, whether or not it is needed.
    push(&mut mesh, 1);
    assert_eq!(frames(&mesh, 1, kind::SNAPSHOT, 0).len(), 2);
}

#[test]
fn node_binaries_come_together_by_polling() {
    let mut mesh = pair(Config::node_binary(), Config::node_binary());
    for (member, key) in [(0, "docs:a"), (1, "docs:b"), (0, "beacons:c"), (1, "docs:a"), (1, "beacons:c")] {
        mesh.with(member, |it, now| it.put(now, key, &format!("m{member}"), Some(&Field::Int(1))));
    }
    assert!(mesh.until(12 * SECOND, |mesh| mesh.agree(&[0, 1])));
    assert_eq!(mesh.members[0].documents(), ["beacons:c", "docs:a", "docs:b"]);
    mesh.with(0, |it, now| it.put(now, "docs:b", "more", Some(&Field::Int(2))));
    assert!(!mesh.agree(&[0, 1]));
    assert!(mesh.until(12 * SECOND, |mesh| mesh.agree(&[0, 1])));
}

#[test]
fn host_runtimes_come_together_at_connect_and_at_every_change() {
    let mut mesh = pair(calm(), calm());
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    mesh.with(1, |it, now| it.put(now, "cells:b", "f", Some(&Field::Int(1))));
    assert!(mesh.until(SECOND, |mesh| mesh.agree(&[0, 1])));
    assert_eq!(mesh.members[1].documents().len(), 2);
    mesh.run(2 * SECOND);
    mesh.with(1, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(2))));
    assert!(mesh.until(SECOND / 10, |mesh| mesh.agree(&[0, 1])));
    assert_eq!(mesh.members[0].fields("docs:a")["f"], Field::Int(2));
}

#[test]
fn a_batch_starts_an_exchange_and_carries_snapshots() {
    let mut mesh = pair(calm(), calm());
    mesh.run(SECOND);
    for key in ["docs:a", "tracks:b"] {
        mesh.with(0, |it, now| it.put(now, key, "f", Some(&Field::Int(1))));
    }
    mesh.run(SECOND);
    let batches = frames(&mesh, 0, kind::BATCH, 0);
    let [batch] = batches.as_slice() else { panic!("one batch, not {batches:?}") };
    let batch = Batch::decode(&batch.payload, false).expect("a batch");
    let entries: Vec<_> = batch.entries.iter().map(|entry| (entry.kind, entry.key.as_str())).collect();
    assert_eq!((batch.id, batch.ttl), (1, 5));
    assert_eq!(entries, [(kind::DELTA, "docs:a"), (kind::SNAPSHOT, "tracks:b")]);
    assert!(mesh.agree(&[0, 1]));
}

#[test]
fn a_router_splits_a_batch_by_direction_and_broadcast_goes_last() {
    let kin = Kin { parent: Some(id(2)), children: [id(2)].into(), siblings: [id(2)].into() };
    let mut mesh = pair(Config { kin: Some(kin), persistent: true, ..calm() }, quiet());
    mesh.run(SECOND);
    for key in ["alerts:a", "cells:b", "commands:c", "nodes:d", "docs:e"] {
        mesh.with(0, |it, now| it.put(now, key, "f", Some(&Field::Int(1))));
    }
    let since = mesh.said.len();
    mesh.run(Duration::from_millis(60));
    let batches = mesh.said[since..].iter().filter_map(|said| Frame::read(&said.bytes).ok().flatten());
    let batches = batches.filter(|(frame, _)| frame.kind == kind::BATCH);
    let batches: Vec<Batch> =
        batches.map(|(frame, _)| Batch::decode(&frame.payload, false).expect("a batch")).collect();
    let keys = |batch: &Batch| batch.entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>();
    assert_eq!(
        batches.iter().map(|batch| (batch.id, keys(batch))).collect::<Vec<_>>(),
        [
            (0, vec!["nodes:d".to_owned()]),
            (0, vec!["commands:c".to_owned()]),
            (0, vec!["cells:b".to_owned()]),
            (0, vec!["alerts:a".to_owned(), "docs:e".to_owned()]),
        ]
    );
}

#[test]
fn a_message_without_changes_makes_an_empty_document() {
    let mut mesh = pair(quiet(), quiet());
    mesh.with(1, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    // The opening arrives, and what it asks for does not.
    mesh.with(1, |it, now| it.push(now, id(1)));
    mesh.run(Duration::from_millis(6));
    assert_eq!(mesh.members[0].documents(), ["docs:a"]);
    assert_eq!(mesh.members[0].heads("docs:a"), [[0; 32]; 0]);
}

#[test]
fn a_lost_answer_stalls_an_exchange_until_the_connection_is_lost_too() {
    let mut config = Config::node_binary();
    config.warts.silence_fails = false;
    let mut mesh = pair(config.clone(), config);
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    assert!(mesh.until(12 * SECOND, |mesh| mesh.agree(&[0, 1])));
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(2))));
    // What the next poll says is lost, and so is all for a while: each side waits for the other.
    mesh.loss = 10_000;
    mesh.run(12 * SECOND);
    mesh.loss = 0;
    mesh.run(10 * MINUTE);
    assert!(!mesh.agree(&[0, 1]), "it stalls");
    let conn = mesh.connections()[0];
    mesh.lose(conn);
    mesh.connect(0, 1);
    assert!(mesh.until(30 * SECOND, |mesh| mesh.agree(&[0, 1])));
}

#[test]
fn a_state_that_is_stored_late_undoes_what_has_come_meanwhile() {
    let run = |stale: bool| {
        let mut config = quiet();
        config.warts.stores_stale_state = stale;
        let mut mesh = pair(config.clone(), config);
        mesh.latency = Duration::from_micros(10);
        mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
        push(&mut mesh, 0);
        // An answer came before the state of the question was stored: the next question is not made.
        push(&mut mesh, 0).len()
    };
    assert_eq!((run(false), run(true)), (1, 0));
}

#[test]
fn a_received_change_goes_on_to_others() {
    let mut mesh = Mesh::new(3);
    for number in 1..=3 {
        mesh.join(Member::v07(id(number), calm(), 1, mesh.clock()));
    }
    mesh.connect(0, 1);
    mesh.connect(1, 2);
    mesh.run(3 * SECOND);
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    assert!(mesh.until(3 * SECOND, |mesh| mesh.agree(&[0, 1, 2])));
    assert_eq!(mesh.members[2].documents(), ["docs:a"]);
}

/// Two of each version and of each family, all connected, with edits all the time.
fn fleet(seed: u64) -> Mesh {
    let mut mesh = Mesh::new(seed);
    for number in 0..4 {
        let mut config = if number < 2 { Config::node_binary() } else { Config::host_runtime() };
        (config.warts.breaker_stays_open, config.warts.deaf_dialler) = (false, false);
        let member = if number % 2 == 0 { Member::v07 } else { Member::v12 };
        mesh.join(member(id(number), config, seed, mesh.clock()));
    }
    for (from, to) in [(0, 1), (0, 2), (0, 3), (2, 1), (3, 1), (2, 3)] {
        mesh.connect(from, to);
    }
    for edit in 0..40 {
        let member = edit % 4;
        let key = ["docs:a", "tracks:b", "commands:c"][edit % 3];
        mesh.with(member, |it, now| it.put(now, key, &format!("m{member}"), Some(&Field::Int(edit as i64))));
        mesh.run(Duration::from_millis(300));
    }
    mesh
}

#[test]
fn a_fleet_of_both_versions_and_families_comes_together() {
    for seed in 0..4 {
        let mut mesh = fleet(seed);
        assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1, 2, 3])), "{seed}");
        assert_eq!(mesh.members[0].fields("docs:a").len(), 4);
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let (one, same, other) = (fleet(7), fleet(7), fleet(8));
    assert!(one.said == same.said);
    assert!(one.said != other.said);
}
