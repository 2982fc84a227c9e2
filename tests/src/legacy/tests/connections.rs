//! Connections and authentication between models.

use super::*;

fn guarded(dialect: Dialect, secret: u8, config: Config) -> Config {
    Config { auth: Some((dialect, Formation::new("peat", &[secret; 32]))), ..config }
}

fn is_up(mesh: &Mesh) -> bool {
    mesh.members.iter().all(|member| member.connected_to().len() == 1)
}

#[test]
fn both_sides_prove_themselves_before_anything_else_is_said() {
    for (dialect, mut config) in [(Dialect::P, Config::host_runtime()), (Dialect::M, Config::node_binary())] {
        config.warts.mute_connector = false;
        config.warts.deaf_dialler = false;
        let config = guarded(dialect, 1, config);
        let mut mesh = pair(config.clone(), config);
        mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
        mesh.with(1, |it, now| it.put(now, "docs:b", "f", Some(&Field::Int(1))));
        assert!(mesh.until(SECOND, is_up), "{dialect:?}");
        let streams = |said: &[Said]| said.iter().filter(|said| said.stream == StreamId(0)).count();
        assert_eq!(streams(&mesh.said), mesh.said.len());
        assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1])), "{dialect:?}");
        assert_eq!(mesh.members[0].documents().len(), 2);
    }
}

#[test]
fn a_mute_connector_is_never_seen_and_both_give_up_after_30_seconds() {
    let config = guarded(Dialect::M, 1, Config::node_binary());
    let mut mesh = pair(config.clone(), config);
    mesh.run(Duration::from_millis(29_900));
    assert_eq!(mesh.connections().len(), 1);
    mesh.run(SECOND);
    assert_eq!(mesh.connections().len(), 0);
    assert!(mesh.members.iter().any(|member| member.stats().refused == 1));
    assert!(mesh.said.iter().all(|said| said.bytes.is_empty()));
}

#[test]
fn another_secret_is_refused_by_closing_with_code_1() {
    let mut acceptor = LegacyPeer::<V07>::new(id(2), guarded(Dialect::P, 1, Config::host_runtime()), 1, now(0));
    let conn = ConnId(1);
    acceptor.handle(now(0), Input::Connected { conn, peer: id(1), role: Role::Accepted });
    let wrong = Formation::new("peat", &[9; 32]);
    let mut initiator = Handshake::new(Dialect::P, Role::Dialled, wrong, [0; 32], false);
    let mut say = initiator.opening().expect("it opens");
    let mut outputs = Vec::new();
    for _ in 0..2 {
        let bytes = say.clone().into();
        acceptor.handle(now(1), Input::Received { conn, stream: StreamId(0), bytes, fin: false });
        while let Some(output) = acceptor.poll() {
            if let Output::Write { bytes, .. } = &output {
                say = initiator.receive(bytes, false).write;
            }
            outputs.push(output);
        }
    }
    assert_eq!(outputs.last(), Some(&Output::Close { conn, code: 1 }));
    assert_eq!(acceptor.connected_to().count(), 0);
}

#[test]
fn streams_that_come_before_the_proof_wait_for_it() {
    let mut config = guarded(Dialect::P, 1, Config::host_runtime());
    config.warts.announces_nothing = false;
    let mut acceptor = LegacyPeer::<V07>::new(id(2), config, 1, now(0));
    let conn = ConnId(1);
    acceptor.handle(now(0), Input::Connected { conn, peer: id(1), role: Role::Accepted });
    let bytes = Frame::new(kind::SNAPSHOT, "tracks:a", Vec::new()).encode().into();
    acceptor.handle(now(0), Input::Received { conn, stream: StreamId(4), bytes, fin: true });
    assert_eq!(acceptor.documents().count(), 0);
    let mut initiator = Handshake::new(Dialect::P, Role::Dialled, Formation::new("peat", &[1; 32]), [0; 32], false);
    let mut say = initiator.opening().expect("it opens");
    for _ in 0..2 {
        acceptor.handle(now(1), Input::Received { conn, stream: StreamId(0), bytes: say.into(), fin: false });
        let Some(Output::Write { bytes, .. }) = acceptor.poll() else { panic!("an answer") };
        say = initiator.receive(&bytes, false).write;
    }
    assert_eq!(acceptor.documents().count(), 0);
    acceptor.handle(now(51), Input::Timeout);
    assert_eq!(acceptor.documents().count(), 1);
}

#[test]
fn of_two_connections_the_lower_initiators_survives() {
    for first in [0, 1] {
        let mut mesh = Mesh::new(1);
        for number in [1, 2] {
            mesh.join(Member::v07(id(number), Config::host_runtime(), 1, mesh.clock()));
        }
        mesh.connect(first, 1 - first);
        mesh.connect(1 - first, first);
        mesh.run(SECOND);
        assert_eq!(mesh.connections().len(), 1);
        assert!(is_up(&mesh));
    }
}

#[test]
fn the_end_of_a_duplicate_takes_the_newer_connection_with_it() {
    for by_peer in [true, false] {
        let mut config = Config::node_binary();
        config.warts.cleans_up_by_peer = by_peer;
        let mut bench = Bench::<V07>::new(config);
        let newer = ConnId(8);
        bench.peer.handle(bench.now, Input::Connected { conn: newer, peer: id(1), role: Role::Accepted });
        assert_eq!(bench.peer.connected_to().count(), 1);
        bench.peer.handle(bench.now, Input::Disconnected { conn: Bench::<V07>::CONN });
        assert_eq!(bench.peer.connected_to().count(), usize::from(!by_peer));
    }
}

#[test]
fn a_node_binary_that_dialled_does_not_read_what_comes_back() {
    let mut mesh = Mesh::new(1);
    for number in [1, 2] {
        mesh.join(Member::v07(id(number), Config::node_binary(), 1, mesh.clock()));
    }
    mesh.connect(0, 1);
    mesh.with(1, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(1))));
    mesh.with(0, |it, now| it.put(now, "tracks:b", "f", Some(&Field::Int(1))));
    mesh.run(MINUTE);
    assert_eq!(mesh.members[0].documents(), ["tracks:b"]);
    assert_eq!(mesh.members[1].documents(), ["tracks:a", "tracks:b"]);
}

#[test]
fn a_host_runtime_dials_again_and_replaces_its_connections_every_minute() {
    let mut mesh = Mesh::new(1);
    mesh.join(Member::v07(id(1), Config { dials: vec![id(2)], ..Config::host_runtime() }, 1, mesh.clock()));
    mesh.join(Member::v07(id(2), Config::host_runtime(), 1, mesh.clock()));
    mesh.with(0, |_, _| ());
    assert!(mesh.until(SECOND, is_up));
    let first = mesh.connections();
    mesh.run(Duration::from_secs(59));
    assert_eq!(mesh.connections(), first);
    mesh.run(10 * SECOND);
    assert_eq!(mesh.connections().len(), 1);
    assert_ne!(mesh.connections(), first);
    let conn = mesh.connections()[0];
    mesh.lose(conn);
    assert!(mesh.until(10 * SECOND, is_up));
}

#[test]
fn heartbeats_are_counted_by_whom_they_were_answered_with_heartbeats() {
    let mut mesh = pair(Config::host_runtime(), Config::host_runtime());
    mesh.run(MINUTE);
    for member in &mesh.members {
        let (sent, counted) = member.stats().heartbeats;
        assert_eq!(sent, 12);
        assert!((11..=12).contains(&counted), "{counted}");
    }
    let beats = mesh.said.iter().filter(|said| !said.stream.is_bidirectional());
    assert!(beats.clone().all(|said| said.fin && said.bytes.len() == 9 && said.bytes[0] == 1));
    assert_eq!(beats.count(), 24);
}
