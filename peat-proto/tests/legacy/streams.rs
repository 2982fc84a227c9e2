//! Verdicts on what arrives, reconciliation, liveness, limits and counters.

use std::time::Duration;

use peat_proto::config::{Auth, Legacy};
use peat_proto::wire::v0::negentropy::item_of;
use peat_proto::wire::v0::{BatchBuilder, Body, Delta, Entry, Label, MessageType, TombstoneBatch};
use peat_proto::{BreakerState, CloseCode, Contact, Credential, Event, Input, Lane, Link, Role, StreamId, Wire};

use crate::SECOND;
use crate::common::Vector;
use crate::fielded::*;

#[test]
fn every_golden_stream_gets_its_verdict_from_a_node_and_harms_nothing() {
    let mut judged = 0;
    for vector in Vector::all().iter().filter(|vector| matches!(vector.kind(), "stream_frame" | "channel_stream")) {
        if vector.name() == "channel_receive_loop_format" {
            continue;
        }
        let mut stage = Stage::serving();
        stage.put("docs:doc-000001", "x", 1);
        stage.put("docs:doc-1", "x", 1);
        stage.pass_in_silence(SECOND);
        stage.take_frames();
        let fin = vector.is("finished") || !vector.has("finished") && vector.is("valid");
        let stream = stage.stream();
        let before = stage.node.stats();
        stage.feed_on(stream, &vector.bytes(), fin);
        let seen = stage.node.stats();
        let refused =
            (seen.refused - before.refused) + (seen.malformed - before.malformed) + (seen.truncated - before.truncated);
        let verdict = match () {
            () if seen.skipped > before.skipped => "skip_frame",
            () if seen.entries_skipped > before.entries_skipped => "skip_entry",
            () if refused > 0
                && seen.traffic.frames_received > before.traffic.frames_received
                && seen.malformed + seen.truncated > 0 =>
            {
                "accept_first"
            }
            () if refused > 0 => "reject",
            () if !fin && seen.traffic.frames_received == before.traffic.frames_received => "reject_deadline",
            () if vector.bytes().is_empty() => "ignore",
            () => "accept",
        };
        let expected = match (vector.name(), vector.expect()) {
            ("frame_negentropy_reply_2_docs_vs_empty", _) => "ignore",
            // The second message of a dialogue that this peer did not begin.
            ("frame_negentropy_reply_2_docs_vs_200", _) => "skip_frame",
            // An entry that is sound and whose payload is not: refused for its document.
            ("odd_frame_batch_bad_entry_then_good", _) => "reject",
            (_, expected) => expected,
        };
        assert_eq!(verdict, expected, "{}", vector.name());
        assert!(stage.closed.is_empty(), "{}: the connection lives on", vector.name());
        if expected == "reject_deadline" {
            stage.pass(31 * SECOND);
            assert_eq!(stage.node.stats().legacy.frames_late, 1);
        }
        // Every stream that is over was ended on our side, once; an open one lives on.
        let ends = stage.replies.iter().filter(|(replied, _, fin)| *replied == stream && *fin).count();
        assert_eq!(ends, usize::from(fin || matches!(expected, "reject" | "reject_deadline")), "{}", vector.name());
        // Other streams go on.
        let saved = Fielded::default_with("docs:after", 3);
        stage.feed(&frame(Label::Snapshot(&doc("docs:after")), &saved));
        assert_eq!(stage.get("docs:after", "x"), Some(3), "{}", vector.name());
        judged += 1;
    }
    assert_eq!(judged, 55);
}

#[test]
fn stream_1_every_frame_of_a_stream_is_read_and_one_goes_out_on_each() {
    let mut stage = Stage::serving();
    let stream = stage.stream();
    for n in 0..20 {
        let name = format!("notes:{n}");
        stage.feed_on(stream, &frame(Label::Snapshot(&doc(&name)), &Fielded::default_with(&name, n)), false);
        assert_eq!(stage.get(&name, "x"), Some(n));
    }
    stage.pass(3600 * SECOND);
    stage.feed_on(stream, &frame(Label::Snapshot(&doc("notes:late")), &Fielded::default_with("notes:late", 5)), true);
    assert_eq!(stage.get("notes:late", "x"), Some(5), "idle is no fault");
    for n in 0..200 {
        stage.put(&format!("notes:own-{n}"), "x", n);
    }
    stage.pass(5 * SECOND);
    assert!(!stage.sent.is_empty());
    for (lane, bytes) in &stage.sent {
        if matches!(lane, Lane::Once(_)) {
            decode(bytes);
        }
    }
}

#[test]
fn limit_1_more_streams_than_allowed_are_turned_away_and_the_rest_go_on() {
    let mut stage = Stage::serving();
    let open: Vec<StreamId> = (0..300).map(|_| stage.stream()).collect();
    for stream in &open {
        stage.feed_on(*stream, &[0, 10, b'n'], false);
    }
    assert_eq!(stage.stopped.len(), 300 - 256);
    assert!(stage.stopped.iter().all(|(_, code)| *code == CloseCode::Exhausted));
    assert!(stage.node.stats().receive_bytes <= 256 * 3);
    stage.pass(31 * SECOND);
    assert_eq!(stage.node.stats().legacy.frames_late, 256);
    assert_eq!(stage.node.stats().receive_bytes, 0);
    assert!(stage.closed.is_empty());
}

#[test]
fn streams_that_bring_nothing_end_the_connection_when_there_are_too_many() {
    let mut stage = Stage::serving();
    for number in 1..Link::MAX_EMPTY_STREAMS {
        let stream = stage.stream();
        if number % 2 == 0 {
            stage.feed_on(stream, &[], true);
        } else {
            stage.input(Input::Reset { conn: CONN, stream });
        }
    }
    assert!(stage.closed.is_empty());
    let stream = stage.stream();
    stage.feed_on(stream, &[], true);
    assert_eq!(stage.closed, [(CONN, CloseCode::Exhausted)]);
    assert_eq!(stage.node.stats().closed, 1);
}

#[test]
fn recon_3_a_question_is_answered_on_its_stream_and_no_other_is_asked() {
    let mut stage = Stage::serving();
    for n in 0..3 {
        stage.put(&format!("notes:{n}"), "x", n);
    }
    stage.delete("notes:2", None);
    let stream = stage.stream();
    let question = frame(Label::NegentropyResponse, &[0x61, 0, 0, 2, 0]);
    let question = [&question[..13], &[8], &question[14..]].concat();
    stage.feed_on(stream, &question, false);
    let (_, answer, fin) = stage.replies.iter().find(|(on, ..)| *on == stream).expect("an answer").clone();
    assert!(!fin, "the stream stays open for the next message");
    let answer = decode(&answer);
    assert_eq!((answer.kind, answer.key.as_str()), (MessageType::NegentropyResponse, "_negentropy"));
    let mut ids: Vec<_> = (0..3).map(|n| item_of(&doc(&format!("notes:{n}")))).collect();
    ids.sort_unstable();
    assert_eq!(answer.payload[..5], [0x61, 0, 0, 2, 3]);
    assert_eq!(answer.payload[5..], ids.concat());
    // Sixteen messages are answered on it; a second question elsewhere is not, nor one too soon.
    for n in 1..17 {
        stage.feed_on(stream, &frame(Label::NegentropyResponse, &[0x61]), false);
        let answers = stage.replies.iter().filter(|(on, bytes, _)| *on == stream && !bytes.is_empty()).count();
        assert_eq!(answers, (n + 1).min(16));
    }
    let stream = stage.stream();
    stage.feed_on(stream, &question, false);
    assert!(stage.stopped.iter().any(|(on, _)| *on == stream));
    assert_eq!(stage.node.stats().legacy.questions_unanswered, 1);
    stage.pass(SECOND);
    let stream = stage.stream();
    stage.feed_on(stream, &question, true);
    let ended = stage.replies.iter().filter(|(on, _, fin)| *on == stream && *fin).count();
    assert_eq!(ended, 1);
    assert_eq!(stage.node.stats().legacy.answers, 17);
}

#[test]
fn live_1_heartbeats_go_every_five_seconds_and_silence_is_told() {
    let mut stage = Stage::serving();
    stage.beat();
    stage.sent.clear();
    stage.pass(20 * SECOND);
    let beats: Vec<_> = stage.sent.drain(..).filter(|(lane, _)| *lane == Lane::Pulse).collect();
    assert_eq!(beats.len(), 4);
    assert!(beats.iter().all(|(_, bytes)| bytes.len() == 9 && bytes[0] == 1));
    assert!(!stage.events.iter().any(|event| matches!(event, Event::Partitioned { .. })));
    stage.pass_in_silence(16 * SECOND);
    let told = |stage: &Stage| {
        let lost = stage.events.iter().filter(|event| matches!(event, Event::Partitioned { .. })).count();
        let found = stage.events.iter().filter(|event| matches!(event, Event::Recovered { .. })).count();
        (lost, found, stage.node.stats().peers[0].legacy.expect("a legacy peer").contact)
    };
    assert_eq!(told(&stage), (1, 0, Contact::Partitioned));
    stage.beat();
    assert_eq!(told(&stage), (1, 0, Contact::Recovering), "one sign is not enough");
    // Anything else is a sign too.
    stage.feed(&frame(Label::Delta(&doc("notes:1")), &Delta::default().encode()));
    assert_eq!(told(&stage), (1, 1, Contact::Connected));
    stage.pass_in_silence(61 * SECOND);
    assert_eq!(stage.closed, [(CONN, CloseCode::Normal)], "and then the connection is begun anew");
}

#[test]
fn stream_7_ten_thousand_heartbeats_to_a_peer_that_takes_none_stop_nothing() {
    let mut stage = Stage::serving();
    let mut beats = 0;
    for n in 0..500 {
        stage.feed(&frame(Label::Snapshot(&doc("notes:1")), &Fielded::default_with("notes:1", 1)));
        stage.pass_in_silence(10 * SECOND);
        beats += stage.sent.drain(..).filter(|(lane, _)| *lane == Lane::Pulse).count();
        if n == 499 {
            stage.put("notes:2", "x", 1);
            assert!(!stage.take_frames().is_empty(), "documents still go");
        }
    }
    assert_eq!(beats, 12);
}

#[test]
fn flow_1_and_flow_3_a_broken_link_suspends_pushes_and_time_alone_resumes_them() {
    for failures in 1..=20 {
        let mut stage = Stage::serving();
        stage.put("notes:1", "x", 1);
        let mut left = failures;
        let mut arrived = false;
        stage.pass_with(Duration::from_secs(120), |stage| {
            while let Some((lane, _)) = stage.sent.pop_front() {
                let Lane::Once(class) = lane else { continue };
                arrived |= left == 0;
                if left > 0 {
                    left -= 1;
                    stage.input(Input::Stopped { conn: CONN, lane: Lane::Once(class) });
                }
            }
        });
        assert!(arrived, "after {failures} failures, without a new change");
        assert_eq!(stage.node.stats().legacy.breaker_opened > 0, failures >= 5, "{failures} failures");
        assert!(stage.closed.is_empty());
    }
}

#[test]
fn a_breaker_is_seen_open_half_open_and_closed_again() {
    let mut stage = Stage::serving();
    stage.put("notes:1", "x", 1);
    let (mut left, mut seen) = (5, Vec::new());
    stage.pass_with(Duration::from_secs(60), |stage| {
        while let Some((lane, _)) = stage.sent.pop_front() {
            if matches!(lane, Lane::Once(_)) && left > 0 {
                left -= 1;
                stage.input(Input::Stopped { conn: CONN, lane });
            }
        }
        let state = match stage.node.stats().peers[0].legacy.expect("a legacy peer").breaker {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen => "half-open",
        };
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    });
    assert_eq!(seen, ["closed", "open", "half-open", "closed"]);
}

#[test]
fn what_cannot_be_handed_over_is_tried_again_later_each_time() {
    let mut stage = Stage::serving();
    stage.put("notes:1", "x", 1);
    let (mut failed, mut arrived) = (Vec::new(), None);
    stage.pass_with(4 * SECOND, |stage| {
        while let Some((lane, _)) = stage.sent.pop_front() {
            if matches!(lane, Lane::Once(_)) && failed.len() < 4 {
                failed.push(stage.now.mono);
                stage.input(Input::Stopped { conn: CONN, lane });
            } else if matches!(lane, Lane::Once(_)) {
                arrived = arrived.or(Some(stage.now.mono));
            }
        }
    });
    failed.extend(arrived);
    let waits: Vec<u128> = failed.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
    assert_eq!(waits.len(), 4, "four failures and then it goes");
    for (wait, least) in waits.iter().zip([100, 200, 400, 800]) {
        assert!((least..=least * 5 / 4).contains(wait), "{waits:?}");
    }
}

#[test]
fn what_nobody_ever_sends_is_refused_by_its_name_and_harms_nothing() {
    let mut stage = Stage::serving();
    for (code, counter) in [
        (0x02, "legacy_windowed_refused"),
        (0x03, "legacy_reserved_refused"),
        (0x06, "legacy_acks_received"),
        (0x0a, "legacy_requests_refused"),
        (0x7f, "skipped"),
    ] {
        let mut bytes = frame(Label::Delta(&doc("notes:1")), &[1, 2, 3]).to_vec();
        bytes[2 + "notes:1".len()] = code;
        let count = |stage: &Stage, name: &str| {
            let counters = stage.node.stats().counters();
            counters.into_iter().find(|(counter, _)| *counter == name).expect("it is counted").1
        };
        let skipped = count(&stage, "skipped");
        stage.feed(&bytes);
        assert_eq!(count(&stage, "skipped"), skipped + 1, "type {code}");
        assert_eq!(count(&stage, counter), if code == 0x7f { 5 } else { 1 }, "type {code}");
        let name = format!("notes:after-{code}");
        stage.feed(&frame(Label::Snapshot(&doc(&name)), &Fielded::default_with(&name, 3)));
        assert_eq!(stage.get(&name, "x"), Some(3), "type {code}");
    }
    assert!(stage.closed.is_empty() && stage.node.stats().documents == 5);
}

#[test]
fn a_connection_says_what_it_speaks_and_how_it_was_let_in() {
    let stage = Stage::serving();
    let peer = &stage.node.stats().peers[0];
    assert_eq!((peer.wire, peer.credential), (Wire::V0, Some(Credential::Off)));
    assert!(peer.window > 0 && peer.in_flight == 0);
}

#[test]
fn stat_1_each_mode_counts_its_messages_and_bytes_both_ways() {
    let mut stage = Stage::serving();
    let mut peer = Fielded::default();
    stage.put("tracks:1", "x", 1);
    stage.put("notes:1", "x", 1);
    let mut sent = [0; 2];
    stage.converse(&mut peer, |frame| {
        for (_, name, payload) in contents(frame) {
            sent[usize::from(name.starts_with("tracks"))] += payload.len() as u64;
        }
        true
    });
    let snapshot = Fielded::default_with("tracks:2", 1);
    let before = stage.node.stats().legacy;
    stage.feed(&frame(Label::Snapshot(&doc("tracks:2")), &snapshot));
    let stats = stage.node.stats().legacy;
    let moved = stats.snapshot.bytes_received - before.snapshot.bytes_received;
    assert_eq!((moved, stats.full.bytes_received), (snapshot.len() as u64, before.full.bytes_received));
    assert_eq!([before.full.bytes_sent, before.snapshot.bytes_sent], sent);
    assert!(before.full.messages_sent > 0 && before.full.messages_received > 0);
    assert!(sent[0] + sent[1] < stage.node.stats().traffic.bytes_sent, "a part of the total");
}

#[test]
fn flow_2_a_poisoned_document_is_no_fault_of_its_peer() {
    let mut stage = Stage::serving();
    for n in 0..100 {
        let name = format!("notes:{n}");
        let payload = if n == 50 { b"garbage".to_vec() } else { Fielded::default_with(&name, n) };
        stage.feed(&frame(Label::Snapshot(&doc(&name)), &payload));
    }
    assert_eq!(stage.names().len(), 99);
    let stats = stage.node.stats();
    assert_eq!((stats.refused, stats.legacy.breaker_opened, stats.closed), (1, 0, 0));
    assert_eq!(stats.peers[0].legacy.expect("a legacy peer").breaker, BreakerState::Closed);
}

#[test]
fn delta_9_a_peer_that_names_many_documents_costs_a_bounded_number_of_them() {
    let mut stage = Stage::serving();
    let mut heads = Delta { heads: vec![automerge::ChangeHash([1; 32])], ..Delta::default() };
    heads.have.push(Default::default());
    let payload = heads.encode();
    stage.checks = false;
    for n in 0..20_000 {
        stage.feed(&frame(Label::Delta(&doc(&format!("notes:{n}"))), &payload));
        stage.sent.clear();
    }
    let stats = stage.node.stats();
    assert_eq!((stats.documents, stats.legacy.crowded), (0, 20_000 - 4096));
    stage.input(Input::Disconnected { conn: CONN, code: None });
    assert_eq!(stage.node.stats().peers.len(), 0);
}

#[test]
fn delta_9_a_peer_that_names_a_thousand_heads_of_each_document_costs_a_bounded_number_of_them() {
    let mut stage = Stage::serving();
    let named = |n: u32| {
        let head = |at: u32| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(u64::from(n) << 32 | u64::from(at)).to_be_bytes());
            automerge::ChangeHash(hash)
        };
        let delta = Delta { heads: (0..1024).map(head).collect(), have: vec![Default::default()], ..Delta::default() };
        frame(Label::Delta(&doc(&format!("notes:{n}"))), &delta.encode())
    };
    for n in 0..100 {
        stage.feed(&named(n));
        stage.sent.clear();
    }
    assert_eq!(stage.node.stats().legacy.crowded, 100 - 64, "65,536 of them are kept");
    // Said of the same documents again, they take no more room.
    for n in 0..64 {
        stage.feed(&named(n));
        stage.sent.clear();
    }
    assert_eq!(stage.node.stats().legacy.crowded, 100 - 64);
    // There is room again when it says what is usual.
    for n in 0..64 {
        let delta = Delta { have: vec![Default::default()], ..Delta::default() };
        stage.feed(&frame(Label::Delta(&doc(&format!("notes:{n}"))), &delta.encode()));
    }
    stage.feed(&named(99));
    assert_eq!(stage.node.stats().legacy.crowded, 100 - 64);
}

/// While too much waits for the disk, its streams wait for credit, and in a transport its heartbeats behind them.
#[test]
fn the_silence_of_a_peer_that_is_not_read_does_not_count() {
    let mut settings = config(Auth::Admission);
    settings.undurable_budget = 1 << 10;
    let mut stage = Stage::serving_with(settings);
    stage.beat();
    stage.paused = true;
    for n in 0..12 {
        let name = format!("notes:{n}");
        stage.feed(&frame(Label::Snapshot(&doc(&name)), &Fielded::default_with(&name, n)));
    }
    stage.pass_in_silence(Duration::from_secs(300));
    let contact = |stage: &Stage| stage.node.stats().peers.first().and_then(|peer| peer.legacy).map(|it| it.contact);
    assert_eq!((contact(&stage), stage.closed.len()), (Some(Contact::Connected), 0));
    // The same silence counts where nothing is held back.
    stage.paused = false;
    let mut stage = Stage::serving();
    stage.beat();
    stage.pass_in_silence(Duration::from_secs(20));
    assert_eq!(contact(&stage), Some(Contact::Partitioned));
    stage.pass_in_silence(Duration::from_secs(280));
    assert_eq!(contact(&stage), None);
}

#[test]
fn stat_1_and_stat_2_every_outcome_moves_its_counter_and_bytes_count_once() {
    let mut stage = Stage::serving();
    let stats = |stage: &Stage| stage.node.stats();
    let mut batch = BatchBuilder::new(1, 2, 5, 1 << 16);
    for n in 0..3 {
        let name = format!("notes:{n}");
        let body = Body::Snapshot(Fielded::default_with(&name, n).into());
        assert!(batch.push(&Entry::Document { doc: doc(&name), body }));
    }
    let bytes = batch.frame();
    stage.feed(&bytes);
    let after = stats(&stage);
    assert_eq!(after.traffic.bytes_received, bytes.len() as u64, "not once more for each entry");
    assert_eq!((after.legacy.batches_received, after.legacy.snapshots_received), (1, 3));
    assert_eq!((after.traffic.frames_received, after.documents), (1, 3));
    let mut garbage = bytes.to_vec();
    garbage[12 + 20] = 9;
    stage.feed(&garbage);
    assert_eq!((stats(&stage).refused, stats(&stage).legacy.batches_received), (1, 1));
    let sent: usize = stage.sent.iter().map(|(_, frame)| frame.len()).sum();
    let replied: usize = stage.replies.iter().map(|(_, bytes, _)| bytes.len()).sum();
    assert_eq!(stats(&stage).traffic.bytes_sent, (sent + replied) as u64);
    let elements = TombstoneBatch::decode(bytes::Bytes::from_static(&[0, 0, 0, 0])).expect("an empty batch");
    assert!(elements.is_empty());
    stage.feed(&frame(Label::Tombstones, &[0, 0, 0, 0, 7]));
    assert_eq!(stats(&stage).trailing, 1);
    stage.beat();
    stage.feed_beat(&[2; 9]);
    assert_eq!((stats(&stage).legacy.heartbeats_received, stats(&stage).malformed), (1, 1));
}

#[test]
fn the_limits_of_the_configuration_have_an_effect() {
    let mut config = config(Auth::Admission);
    config.legacy = Some({
        let mut legacy = Legacy::new(Auth::Admission);
        legacy.max_streams = 2;
        legacy.pushes_per_second = 10;
        legacy.heartbeat = SECOND;
        legacy.partition = 3 * SECOND;
        legacy
    });
    let mut stage = Stage::new(config);
    for n in 0..40 {
        stage.put(&format!("notes:{n:02}"), "x", n);
    }
    stage.connect(CONN, Role::Accepted);
    let said = |stage: &mut Stage| stage.take_frames().iter().flat_map(contents).count();
    assert_eq!(said(&mut stage), 10);
    stage.beat();
    stage.pass_in_silence(SECOND);
    assert_eq!(said(&mut stage), 10);
    let beats = stage.node.stats().legacy.heartbeats_sent;
    assert_eq!(beats, 1);
    for _ in 0..3 {
        let stream = stage.stream();
        stage.feed_on(stream, &[0], false);
    }
    assert_eq!(stage.node.stats().stopped, 1);
    stage.pass_in_silence(3 * SECOND);
    assert_eq!(stage.node.stats().legacy.partitions, 1);
}

/// Every question may ask for all names, and who asks need not read them: 34 MB could wait for each stream.
#[test]
fn a_question_is_answered_when_the_answers_before_it_have_left() {
    let mut stage = Stage::new(config(Auth::Admission));
    for n in 0..600 {
        stage.put(&format!("notes:{n}"), "x", n);
    }
    stage.connect(CONN, Role::Accepted);
    stage.pass(20 * SECOND);
    stage.stalls = true;
    let stream = stage.stream();
    let question = frame(Label::NegentropyResponse, &[0x61, 0, 0, 2, 0]);
    let question = [&question[..13], &[8], &question[14..]].concat();
    stage.feed_on(stream, &question, false);
    let mut asked = 1;
    while !stage.stopped.iter().any(|(on, _)| *on == stream) {
        asked += 1;
        assert!(asked < 16, "sixteen answers of 19 KB and nobody reads");
        stage.feed_on(stream, &frame(Label::NegentropyResponse, &[0x61, 0, 0, 2, 0]), false);
    }
    let answers: usize = stage.replies.iter().filter(|(on, ..)| *on == stream).map(|(_, bytes, _)| bytes.len()).sum();
    assert!((64 << 10..256 << 10).contains(&answers), "{answers} bytes");
    assert_eq!(stage.node.stats().legacy.questions_unanswered, 1);
}

/// Bytes that were on their way as a stream was given up began a new frame.
#[test]
fn what_comes_late_on_a_stream_that_was_given_up_is_not_read() {
    let mut stage = Stage::serving();
    let stream = stage.stream();
    stage.feed_on(stream, &[0xff; 64], false);
    assert!(stage.stopped.iter().any(|(on, _)| *on == stream));
    let good = frame(Label::Snapshot(&doc("notes:1")), &Fielded::default_with("notes:1", 2));
    stage.feed_on(stream, &good, false);
    stage.feed_on(stream, &[0xff; 64], true);
    assert_eq!(stage.names(), [""; 0]);
    assert_eq!(stage.node.stats().malformed, 1);
    // Another stream is read as ever.
    stage.feed(&good);
    assert_eq!(stage.names(), ["notes:1"]);
}
