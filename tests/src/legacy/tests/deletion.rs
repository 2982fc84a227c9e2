//! Deletion between models.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A line of host runtimes, all connected to the middle one.
fn line(config: &Config) -> Mesh {
    let mut mesh = Mesh::new(5);
    for number in 1..=3 {
        mesh.join(Member::v07(id(number), config.clone(), 1, mesh.clock()));
    }
    mesh.connect(0, 1);
    mesh.connect(1, 2);
    for key in ["tracks:a", "docs:b", "commands:c"] {
        mesh.with(0, |it, now| it.put(now, key, "f", Some(&Field::Int(1))));
    }
    mesh.run(SECOND);
    assert!(mesh.agree(&[0, 1, 2]));
    mesh
}

fn marker(collection: &str, name: &str, lamport: u64, direction: Direction) -> Tombstone {
    Tombstone {
        collection: collection.to_owned(),
        id: name.to_owned(),
        deleted_at_ms: EPOCH,
        lamport,
        by: "somebody".to_owned(),
        reason: Some("because".to_owned()),
        direction,
    }
}

/// A stream with this frame arrives at a member, from another one.
fn inject(mesh: &mut Mesh, to: usize, frame: &Frame) {
    let conn = *mesh.connections().first().expect("a connection");
    // The dialler's connection of the first pair; a stream number that nobody has used.
    let stream = StreamId(4_001);
    let bytes = Bytes::from(frame.encode());
    assert_eq!(to, 0, "the first connection is the first member's");
    mesh.with(to, |it, now| it.handle(now, Input::Received { conn, stream, bytes, fin: true }));
}

#[test]
fn a_delete_travels_as_the_whole_set_and_stops_at_the_neighbours() {
    let mut mesh = line(&Config::host_runtime());
    let since = mesh.said.len();
    mesh.with(0, |it, now| it.delete(now, "tracks:a", Some("gone")));
    mesh.run(MINUTE / 2);
    assert!(!mesh.members[0].documents().contains(&"tracks:a".to_owned()));
    assert!(!mesh.members[1].documents().contains(&"tracks:a".to_owned()));
    // DEL-5: it came in a batch, and is not sent on until the next connection.
    assert_eq!(mesh.members[2].markers().len(), 0);
    assert!(mesh.members[2].documents().contains(&"tracks:a".to_owned()));
    let sent = frames(&mesh, 0, kind::TOMBSTONE_BATCH, since);
    let [sent] = sent.as_slice() else { panic!("one batch, not {sent:?}") };
    let sent = decode_all(&sent.payload).expect("markers");
    assert_eq!((sent.len(), sent[0].lamport, sent[0].reason.as_deref()), (1, 1, Some("gone")));
    assert!(mesh.until(2 * MINUTE, |mesh| mesh.members[2].markers().len() == 1), "recycled connections send all");
}

#[test]
fn a_single_marker_is_sent_on_to_all_but_its_source() {
    let mut mesh = Mesh::new(5);
    for number in 1..=4 {
        mesh.join(Member::v07(id(number), Config::host_runtime(), 1, mesh.clock()));
    }
    for to in 1..=3 {
        mesh.connect(0, to);
    }
    mesh.run(SECOND);
    let since = mesh.said.len();
    let system_wide = marker("tracks", "a", 9, Direction::SystemWide);
    inject(&mut mesh, 0, &system_wide.frame());
    mesh.run(SECOND);
    let on: Vec<_> = frames(&mesh, 0, kind::TOMBSTONE, since);
    assert_eq!(on, [system_wide.frame(), system_wide.frame()]);
    // Neighbours send it on too, but have nobody to send it to; the source hears nothing.
    assert_eq!([1, 2, 3].map(|member: usize| mesh.members[member].markers().len()), [0, 1, 1]);
    // DEL-5: said again, the direction is another.
    let again = mesh.said.len();
    mesh.with(0, |it, now| it.push(now, id(2)));
    mesh.run(SECOND);
    let again = frames(&mesh, 0, kind::TOMBSTONE_BATCH, again);
    assert_eq!(decode_all(&again[0].payload).expect("markers")[0].direction, Direction::Bidirectional);
}

#[test]
fn directions_have_a_meaning_only_with_a_router() {
    for (kin, expected) in [
        (None, [true, true]),
        (Some(Kin { parent: Some(id(3)), children: [id(4)].into(), ..Kin::default() }), [true, false]),
    ] {
        let mut mesh = Mesh::new(5);
        for number in 1..=4 {
            let kin = kin.clone().filter(|_| number == 1);
            mesh.join(Member::v07(id(number), Config { kin, ..Config::host_runtime() }, 1, mesh.clock()));
        }
        for to in 1..=3 {
            mesh.connect(0, to);
        }
        mesh.run(SECOND);
        inject(&mut mesh, 0, &marker("cells", "a", 9, Direction::Up).frame());
        mesh.run(SECOND);
        assert_eq!([2, 3].map(|member: usize| mesh.members[member].markers().len() == 1), expected);
    }
}

#[test]
fn the_first_marker_wins_whatever_a_later_one_says() {
    for wins in [true, false] {
        let mut config = Config::node_binary();
        config.warts.first_marker_wins = wins;
        let mut bench = Bench::<V07>::new(config);
        for lamport in [5, 9, 7] {
            bench.feed(&marker("nodes", "a", lamport, Direction::Bidirectional).frame().encode(), true);
        }
        let kept: Vec<_> = bench.peer.markers().map(|marker| marker.lamport).collect();
        assert_eq!(kept, [if wins { 5 } else { 9 }]);
    }
}

#[test]
fn what_comes_for_a_deleted_document_is_dropped_in_silence() {
    let mut bench = Bench::<V12>::new(Config::node_binary());
    let mut other = LegacyPeer::<V12>::new(id(1), Config::node_binary(), 3, now(0));
    for key in ["tracks:a", "docs:b"] {
        other.put(now(0), key, "f", Some(&Field::Int(1)));
    }
    let snapshot = Frame::new(kind::SNAPSHOT, "tracks:a", V12::save(other.doc("tracks:a").expect("a document")));
    let opening = V12::generate(other.doc("docs:b").expect("a document"), &mut Default::default());
    let delta = Frame::new(kind::DELTA, "docs:b", opening.expect("an opening"));
    for name in [("tracks", "a"), ("docs", "b")] {
        bench.feed(&marker(name.0, name.1, 1, Direction::Bidirectional).frame().encode(), true);
    }
    bench.drain();
    for frame in [&snapshot, &delta] {
        let stream = bench.feed(&frame.encode(), true);
        let end = Output::Write { conn: Bench::<V12>::CONN, stream, bytes: Bytes::new(), fin: true };
        assert_eq!(bench.drain(), [end]);
    }
    assert_eq!((bench.peer.documents().count(), bench.peer.stats().guarded), (0, 2));
}

#[test]
fn what_an_application_writes_to_a_deleted_document_is_pushed_and_dropped_for_ever() {
    let mut mesh = pair(Config::node_binary(), Config::node_binary());
    for member in [0, 1] {
        mesh.with(member, |it, now| it.bury(now, "tracks:a", None));
    }
    mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(1))));
    let since = mesh.said.len();
    mesh.run(MINUTE);
    assert_eq!(mesh.members[0].documents(), ["tracks:a"]);
    assert_eq!(mesh.members[1].documents(), [""; 0]);
    assert_eq!(frames(&mesh, 0, kind::SNAPSHOT, since).len(), 12);
    assert_eq!(mesh.members[1].stats().guarded, 12);
}

#[test]
fn from_rc_32_on_a_deleted_document_is_not_pushed() {
    let config = Config { persistent: false, ..Config::node_binary().later() };
    let mut mesh = pair(config.clone(), config);
    mesh.with(0, |it, now| it.bury(now, "tracks:a", None));
    mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(1))));
    mesh.run(MINUTE);
    assert_eq!(frames(&mesh, 0, kind::SNAPSHOT, 0), []);
}

#[test]
fn a_store_without_a_disk_forgets_markers_and_a_neighbour_brings_the_document_back() {
    let memory = Config { disk: false, ..Config::node_binary() };
    let mut mesh = pair(memory.clone(), memory);
    mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(1))));
    assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1])));
    mesh.with(0, |it, now| it.bury(now, "tracks:a", None));
    assert_eq!((mesh.members[0].documents().len(), mesh.members[0].markers().len()), (0, 0));
    assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1])));
    assert_eq!(mesh.members[0].documents(), ["tracks:a"]);
}

#[test]
fn collections_are_deleted_in_their_own_ways() {
    let mut mesh = pair(Config::node_binary(), Config::node_binary());
    for key in ["nodes:a", "commands:b"] {
        mesh.with(0, |it, now| it.put(now, key, "f", Some(&Field::Int(1))));
        mesh.with(0, |it, now| it.delete(now, key, None));
    }
    assert_eq!(mesh.members[0].documents(), ["commands:b"]);
    assert_eq!(mesh.members[0].fields("commands:b")["_deleted"], Field::Bool(true));
    let markers: Vec<_> = mesh.members[0].markers().into_iter().map(Tombstone::key).collect();
    assert_eq!(markers, ["nodes:a"]);
}

#[test]
fn markers_are_forgotten_by_their_authors_time() {
    let mut bench = Bench::<V07>::new(Config::node_binary());
    for (name, age) in [("young", 0_u64), ("old", 3_600_000), ("future", u64::MAX)] {
        let at = if age == u64::MAX { age } else { EPOCH - age };
        let tombstone = Tombstone { deleted_at_ms: at, ..marker("tracks", name, 1, Direction::Bidirectional) };
        bench.feed(&tombstone.frame().encode(), true);
    }
    bench.feed(&marker("docs", "b", 1, Direction::Bidirectional).frame().encode(), true);
    bench.now = now(300_000);
    bench.peer.handle(bench.now, Input::Timeout);
    let keys = |bench: &Bench<V07>| bench.peer.markers().map(Tombstone::key).collect::<Vec<_>>();
    assert_eq!(keys(&bench), ["docs:b", "tracks:future", "tracks:young"]);
    bench.now = now(HOUR.as_millis() as u64 + 300_000);
    bench.peer.handle(bench.now, Input::Timeout);
    assert_eq!(keys(&bench), ["docs:b", "tracks:future"]);
}

#[test]
fn a_logical_clock_starts_again_with_the_process_unless_it_is_of_rc_28() {
    for forgets in [true, false] {
        let mut config = Config::node_binary();
        config.warts.forgets_lamport = forgets;
        let mut bench = Bench::<V07>::new(config);
        bench.feed(&marker("nodes", "a", 41, Direction::Bidirectional).frame().encode(), true);
        bench.peer.restart(2, bench.now);
        bench.peer.bury(bench.now, "nodes:b", None);
        let newest = bench.peer.markers().find(|marker| marker.id == "b").map(|marker| marker.lamport);
        assert_eq!(newest, Some(if forgets { 1 } else { 42 }));
    }
}

#[test]
fn a_received_document_expires_by_its_oldest_timer_where_that_is_switched_on() {
    let mut bench = Bench::<V07>::new(Config { expires: true, ..Config::node_binary() });
    let mut other = LegacyPeer::<V07>::new(id(1), Config::node_binary(), 3, now(0));
    other.put(now(0), "beacons:a", "f", Some(&Field::Int(1)));
    let saved = V07::save(other.doc("beacons:a").expect("a document"));
    for minute in [0, 9] {
        bench.now = now(minute * 60_000);
        bench.feed(&Frame::new(kind::SNAPSHOT, "beacons:a", saved.clone()).encode(), true);
    }
    bench.now = now(600_000);
    bench.peer.handle(bench.now, Input::Timeout);
    assert_eq!(bench.peer.documents().count(), 0);
}
