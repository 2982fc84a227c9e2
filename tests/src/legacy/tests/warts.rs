//! What is wrong with a fielded peer, and that each switch turns it off.

use super::*;

/// A node binary that polls an hour from now.
fn quiet() -> Config {
    Config { poll: Duration::from_secs(36_000), ..Config::node_binary() }
}

#[test]
fn a_quiet_document_cuts_a_peer_off_until_the_process_is_restarted() {
    // The other side answers, and never asks.
    let mut mesh = pair(Config::node_binary(), quiet());
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    mesh.run(10 * SECOND);
    assert!(mesh.agree(&[0, 1]));
    assert!(!mesh.members[0].is_cut_off(&id(2)));
    // Two polls say something, the next five fail.
    mesh.run(30 * SECOND);
    assert!(mesh.members[0].is_cut_off(&id(2)));
    mesh.with(0, |it, now| it.put(now, "docs:new", "f", Some(&Field::Int(1))));
    mesh.run(10 * MINUTE);
    assert!(!mesh.agree(&[0, 1]));
    // A new connection changes nothing.
    let conn = mesh.connections()[0];
    mesh.lose(conn);
    mesh.connect(0, 1);
    mesh.run(MINUTE);
    assert!(!mesh.agree(&[0, 1]));
    mesh.restart(0, 9);
    mesh.connect(0, 1);
    assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1])));
}

#[test]
fn with_five_documents_the_side_that_had_the_last_word_is_cut_off_by_its_next_poll() {
    // It waits for an answer to that word: each of its polls is silent until the other side polls.
    for (count, cut) in [(4, false), (5, true)] {
        let mut mesh = pair(Config::node_binary(), Config::node_binary());
        for number in 0..count {
            mesh.with(0, |it, now| it.put(now, &format!("docs:{number}"), "f", Some(&Field::Int(1))));
        }
        mesh.run(20 * MINUTE);
        let states = [mesh.members[0].is_cut_off(&id(2)), mesh.members[1].is_cut_off(&id(1))];
        assert_eq!(states.contains(&true), cut, "{count}: {states:?}");
    }
}

/// What a better neighbour can do about it: never leave the last word to the other side.
#[test]
fn who_answers_every_message_is_never_cut_off_and_does_not_talk_for_ever() {
    for answers in [true, false] {
        let mut bench = Bench::<V07>::new(Config::node_binary());
        for number in 0..9 {
            bench.peer.put(bench.now, &format!("docs:{number}"), "f", Some(&Field::Int(1)));
        }
        let mut docs = std::collections::BTreeMap::new();
        let (mut messages, mut ready) = (0, Vec::new());
        for millis in (0..600_000).step_by(100) {
            bench.now = now(millis);
            bench.peer.handle(bench.now, Input::Timeout);
            // Not within the moment that the message takes to be written, or it would be undone (DELTA-1).
            for answer in std::mem::take(&mut ready) {
                bench.feed(&Frame::encode(&answer), true);
            }
            while let Some(output) = bench.peer.poll() {
                let Some(frame) = opened(&output).filter(|frame| frame.kind == kind::DELTA) else { continue };
                messages += 1;
                let (doc, state) =
                    docs.entry(frame.key.clone()).or_insert_with(|| (V12::empty(), <V12 as Library>::State::default()));
                V12::receive(doc, state, &frame.payload).expect("a sync message");
                let answer = V12::generate(doc, state).or_else(|| {
                    // Nothing is left to say: the heads once more, as after a reconnection.
                    let mut fresh = V12::shared(state);
                    V12::generate(doc, &mut fresh).filter(|_| answers)
                });
                ready.extend(answer.map(|answer| Frame::new(kind::DELTA, &frame.key, answer)));
            }
        }
        assert_eq!(bench.peer.is_cut_off(&id(1)), !answers);
        // 120 polls of nine documents, and a second message now and then.
        assert!(messages < 120 * 9 * 2, "{messages}");
        assert!(!answers || messages >= 119 * 9, "{messages}");
    }
}

#[test]
fn a_breaker_that_time_drives_and_a_silence_that_is_no_failure_cut_nobody_off() {
    for switch in [0, 1] {
        let mut config = Config::node_binary();
        match switch {
            0 => config.warts.breaker_stays_open = false,
            _ => config.warts.silence_fails = false,
        }
        let mut mesh = pair(config, quiet());
        for number in 0..9 {
            mesh.with(0, |it, now| it.put(now, &format!("docs:{number}"), "f", Some(&Field::Int(1))));
        }
        mesh.run(MINUTE);
        // Ahead of the quiet ones, or the half-open breaker would try those first.
        mesh.with(0, |it, now| it.put(now, "commands:new", "f", Some(&Field::Int(1))));
        assert!(mesh.until(MINUTE, |mesh| mesh.agree(&[0, 1])), "{switch}");
    }
}

#[test]
fn beyond_a_hundred_documents_each_poll_serves_the_same_first_ones() {
    let mut mesh = pair(Config::node_binary(), quiet());
    for number in 0..150 {
        mesh.with(0, |it, now| it.put(now, &format!("tracks:{number:03}"), "f", Some(&Field::Int(1))));
    }
    mesh.run(MINUTE);
    assert_eq!(mesh.members[1].documents().len(), 100);
    assert_eq!(mesh.members[1].documents().last().map(String::as_str), Some("tracks:099"));
    assert!(mesh.members[0].stats().limited >= 500);
}

#[test]
fn a_change_within_the_cooldown_is_dropped_and_its_token_is_gone() {
    for drops in [true, false] {
        let mut config = quiet();
        config.warts.drops_in_cooldown = drops;
        let mut mesh = pair(config, quiet());
        for value in 1..=2 {
            mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(value))));
            mesh.with(0, |it, now| it.push(now, id(2)));
            mesh.run(Duration::from_millis(20));
        }
        mesh.run(SECOND);
        let newest = mesh.members[1].fields("tracks:a")["f"].clone();
        assert_eq!(newest, Field::Int(if drops { 1 } else { 2 }));
        assert_eq!(mesh.members[0].stats().cooled, 1);
    }
}

#[test]
fn a_change_within_two_seconds_of_the_last_push_is_not_pushed() {
    for leading in [true, false] {
        let mut config = Config::host_runtime();
        (config.warts.leading_edge, config.warts.channels) = (leading, false);
        let mut mesh = pair(config, quiet());
        mesh.run(SECOND);
        for value in 1..=2 {
            mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(value))));
            mesh.run(SECOND);
        }
        mesh.run(10 * SECOND);
        let newest = mesh.members[1].fields("tracks:a")["f"].clone();
        assert_eq!(newest, Field::Int(if leading { 1 } else { 2 }));
    }
}

#[test]
fn a_received_change_comes_back_and_over_one_long_lived_stream_it_does_so_for_ever() {
    for (persistent, echoes, expected) in [(false, true, 1..10), (false, false, 0..1), (true, true, 500..9_999)] {
        let mut config = Config { persistent, ..Config::host_runtime() };
        (config.warts.echoes, config.warts.one_frame_per_stream) = (echoes, !persistent);
        let mut mesh = pair(config.clone(), config);
        mesh.run(SECOND);
        mesh.with(0, |it, now| it.put(now, "tracks:a", "f", Some(&Field::Int(1))));
        mesh.run(MINUTE / 2);
        let received = &mesh.members[0].stats().received;
        let back: u64 = [kind::SNAPSHOT, kind::BATCH].iter().filter_map(|kind| received.get(kind)).sum();
        assert!(expected.contains(&back), "{back} of {expected:?}");
    }
}

#[test]
fn a_channel_breaks_with_its_first_message_and_what_it_is_given_then_is_lost() {
    let mut config = Config::host_runtime();
    config.warts.leading_edge = true;
    let mut mesh = pair(config, quiet());
    mesh.latency = Duration::from_millis(200);
    mesh.run(SECOND);
    // One batch every 60 ms: the first is read, those of one round trip behind it fall on a closed half, and the next
    // find the channel broken.
    for value in 0..10 {
        mesh.with(0, |it, now| it.put(now, &format!("tracks:{value}"), "f", Some(&Field::Int(value))));
        mesh.run(Duration::from_millis(60));
    }
    mesh.run(SECOND);
    let written = mesh.said.iter().filter(|said| said.from == 0 && said.stream.0 & 3 == 0 && !said.fin);
    let batches = written.filter(|said| said.bytes.starts_with(b"\0\x05batch\x07")).count();
    assert_eq!(mesh.members[1].stats().received[&kind::BATCH], 1);
    assert!(batches > 3, "{batches}");
    assert!(mesh.members[0].stats().lost > 0);
    // 500 ms later there is another stream.
    mesh.with(0, |it, now| it.put(now, "tracks:0", "f", Some(&Field::Int(99))));
    mesh.run(SECOND);
    assert_eq!(mesh.members[1].stats().received[&kind::BATCH], 2);
}

#[test]
fn a_channel_is_closed_for_good_after_three_attempts_without_a_connection() {
    let mut mesh = pair(Config::host_runtime(), Config::host_runtime());
    mesh.run(SECOND);
    mesh.with(0, |it, now| it.put(now, "docs:a", "f", Some(&Field::Int(1))));
    mesh.run(SECOND);
    let conn = mesh.connections()[0];
    mesh.lose(conn);
    mesh.run(10 * SECOND);
    mesh.connect(0, 1);
    mesh.run(SECOND);
    let before = mesh.members[0].stats().lost;
    mesh.with(0, |it, now| it.put(now, "docs:b", "f", Some(&Field::Int(1))));
    mesh.run(SECOND);
    assert!(mesh.members[0].stats().lost > before);
}

#[test]
fn with_the_long_lived_stream_of_rc_25_every_frame_arrives() {
    let config = Config { names: Names::Underscores, ..Config::host_runtime().later() };
    let mut mesh = pair(config.clone(), config);
    mesh.run(SECOND);
    for value in 0..10 {
        mesh.with(0, |it, now| it.put(now, &format!("docs:{value}"), "f", Some(&Field::Int(value))));
        mesh.run(Duration::from_millis(60));
    }
    assert!(mesh.until(10 * SECOND, |mesh| mesh.agree(&[0, 1])));
    assert_eq!(mesh.members[1].documents().len(), 10);
    let opened = mesh.said.iter().filter(|said| said.from == 0 && said.opens && said.stream.is_bidirectional()).count();
    assert_eq!(opened, 1);
}

#[test]
fn heartbeats_to_who_does_not_read_them_stop_everything_after_a_hundred() {
    let beating = Config { streams: Some(100), recycle: None, ..Config::host_runtime() };
    let mut mesh = pair(beating.clone(), Config::node_binary());
    mesh.run(10 * MINUTE);
    assert_eq!(mesh.said.iter().filter(|said| !said.stream.is_bidirectional()).count(), 100);
    assert_eq!(mesh.members[0].stats().heartbeats.0, 101);
    // Towards who reads them nothing stops.
    let mut mesh = pair(beating, Config::host_runtime());
    mesh.run(20 * MINUTE);
    assert!(mesh.members[0].stats().heartbeats.0 >= 239);
}

#[test]
fn a_document_above_the_burst_of_its_class_is_never_sent() {
    let mut mesh = pair(Config::node_binary(), quiet());
    let noise = |length: usize| {
        let mut rng = peat_proto::Rng::new([9; 32]);
        Field::Bytes((0..length).map(|_| rng.draw() as u8).collect())
    };
    // Bulk: 20 % of 125,000 bytes. Critical: 80 %.
    for (key, length) in [("docs:fits", 24_000), ("docs:large", 26_000), ("commands:fits", 26_000)] {
        mesh.with(0, |it, now| it.put(now, key, "data", Some(&noise(length))));
    }
    mesh.run(MINUTE);
    assert_eq!(mesh.members[1].documents(), ["commands:fits", "docs:fits"]);
    assert!(mesh.members[0].stats().oversized > 0);
}

#[test]
fn one_bad_entry_loses_its_whole_batch() {
    for fails in [true, false] {
        let mut config = Config::node_binary();
        config.warts.bad_entry_fails_all = fails;
        let mut bench = Bench::<V07>::new(config);
        let mut other = LegacyPeer::<V07>::new(id(1), Config::node_binary(), 3, now(0));
        other.put(now(0), "tracks:a", "f", Some(&Field::Int(1)));
        let saved = V07::save(other.doc("tracks:a").expect("a document"));
        let entries = vec![
            Frame::new(kind::NEGENTROPY, NEGENTROPY_KEY, vec![1, 2, 3]),
            Frame::new(kind::SNAPSHOT, "tracks:a", saved),
        ];
        let batch = Batch { id: 1, created_ms: EPOCH, ttl: 0, entries };
        bench.feed(&batch.frame().encode(), true);
        assert_eq!(bench.peer.documents().count(), usize::from(!fails));
        assert_eq!(bench.peer.stats().malformed, u64::from(fails));
    }
}

#[test]
fn an_actor_is_drawn_for_every_edit_or_once_per_process() {
    for new in [true, false] {
        let mut config = Config::node_binary();
        config.warts.new_actor_per_edit = new;
        let mut peer = LegacyPeer::<V12>::new(id(1), config, 3, now(0));
        for value in 0..300 {
            peer.put(now(value), "tracks:a", "f", Some(&Field::Int(value as i64)));
        }
        let saved = V12::save(peer.doc("tracks:a").expect("a document")).len();
        assert_eq!(saved > 4_000, new, "{saved}");
    }
}
