//! Documents exchanged with a peer that runs `automerge::sync::State` by the rules of fielded ones.

use std::time::Duration;

use automerge::ROOT;
use automerge::sync::State;
use automerge::transaction::Transactable;
use peat_proto::config::Auth;
use peat_proto::wire::v0::{Delta, Label, MessageType};
use peat_proto::{Event, Input, Lane, Role};

use crate::SECOND;
use crate::fielded::*;

/// A node that met a peer; both have these values of `notes:1`, written one after the other.
fn met(ours: i64, theirs: i64) -> (Stage, Fielded) {
    let mut stage = Stage::new(config(peat_proto::config::Auth::Admission));
    for value in 0..ours {
        stage.put("notes:1", "ours", value);
    }
    let mut peer = Fielded::default();
    for value in 0..theirs {
        peer.put("notes:1", "theirs", value);
    }
    stage.connect(CONN, Role::Accepted);
    (stage, peer)
}

#[test]
fn both_sides_become_equal_whoever_has_what() {
    for (ours, theirs) in [(0, 0), (1, 0), (0, 1), (1, 1), (40, 0), (0, 40), (40, 40), (3, 200), (200, 3)] {
        let (mut stage, mut peer) = met(ours, theirs);
        if let Some(opening) = peer.poll("notes:1").filter(|_| theirs > 0) {
            stage.feed(&opening);
        }
        let crossed = stage.converse(&mut peer, |_| true);
        stage.assert_equal(&mut peer, "notes:1");
        assert_eq!(stage.get("notes:1", "theirs").is_some(), theirs > 0);
        assert_eq!(peer.get("notes:1", "ours").is_some(), ours > 0);
        assert!(crossed <= 8, "{ours} and {theirs} changes took {crossed} messages");
        assert_eq!(stage.node.stats().legacy.parked, 0);
    }
}

#[test]
fn equal_documents_cost_one_short_message_each_way() {
    let (mut stage, mut peer) = met(40, 0);
    stage.converse(&mut peer, |_| true);
    stage.input(Input::Disconnected { conn: CONN, code: None });
    peer.states.clear();
    let before = stage.node.stats().traffic.bytes_sent;
    stage.connect(peat_proto::ConnId(2), Role::Accepted);
    let (_, opening) = stage.sent.pop_front().expect("an opening");
    assert!(opening.len() < 100, "no filter of the whole history");
    let answers = peer.receive(&decode(&opening));
    assert_eq!(answers.len(), 1);
    assert!(answers[0].len() < 100);
    assert_eq!(stage.node.stats().traffic.bytes_sent - before, opening.len() as u64);
}

#[test]
fn an_edit_is_one_message_with_one_change_whatever_the_history() {
    let (mut stage, mut peer) = met(300, 0);
    stage.converse(&mut peer, |_| true);
    stage.pass(SECOND);
    stage.put("notes:1", "ours", -1);
    let frames = stage.take_frames();
    let [frame] = frames.as_slice() else { panic!("one message, not {}", frames.len()) };
    let delta = Delta::decode(frame.payload.clone()).expect("a delta");
    assert_eq!(delta.changes.len(), 1);
    assert!(frame.payload.len() < 300, "{} bytes", frame.payload.len());
    for answer in peer.receive(frame) {
        stage.feed(&answer);
    }
    stage.converse(&mut peer, |_| true);
    stage.assert_equal(&mut peer, "notes:1");
    assert_eq!(peer.get("notes:1", "ours"), Some(-1));
}

#[test]
fn their_edits_arrive_and_both_fall_silent() {
    let (mut stage, mut peer) = met(10, 10);
    stage.converse(&mut peer, |_| true);
    for value in 0..20 {
        peer.put("notes:1", "theirs", 1000 + value);
        let said = peer.poll("notes:1").expect("news");
        stage.feed(&said);
        let crossed = stage.converse(&mut peer, |_| true);
        assert!(crossed <= 4, "{crossed} messages for one edit");
        stage.assert_equal(&mut peer, "notes:1");
    }
    stage.pass(60 * SECOND);
    assert!(stage.take_frames().is_empty());
}

#[test]
fn delta_13_no_single_lost_message_keeps_them_apart() {
    // Every message of the node is lost once, then every two in a row. A filter errs by what it is made of, so by who wrote:
    // of author 63's it hides a change, and then losing the question and the snapshot behind it is losing all there is.
    let authors = [0, 63].into_iter().chain(1..8);
    for (author, lost, first) in
        authors.flat_map(|it| (1..3).flat_map(move |lost| (0..8).map(move |first| (it, lost, first))))
    {
        let mut stage = Stage::new(config(peat_proto::config::Auth::Admission));
        let mut peer = Fielded { author, ..Fielded::default() };
        for value in 0..20 {
            stage.put("notes:1", "ours", value);
            peer.put("notes:1", "theirs", value);
        }
        stage.connect(CONN, Role::Accepted);
        let mut count = 0;
        let mut arrives = |_: &_| {
            count += 1;
            !(first..first + lost).contains(&(count - 1))
        };
        stage.converse(&mut peer, &mut arrives);
        stage.pass_with(120 * SECOND, |stage| {
            stage.converse(&mut peer, &mut arrives);
        });
        stage.assert_equal(&mut peer, "notes:1");
        assert_eq!((stage.get("notes:1", "theirs"), peer.get("notes:1", "ours")), (Some(19), Some(19)));
    }
}

#[test]
fn delta_13_no_lost_answer_keeps_them_apart_either() {
    for lost in 0..6 {
        let (mut stage, mut peer) = met(20, 20);
        let mut count = 0;
        let mut carry = |stage: &mut Stage| {
            while let Some((lane, bytes)) = stage.sent.pop_front() {
                if !matches!(lane, Lane::Once(_)) {
                    continue;
                }
                for answer in peer.receive(&decode(&bytes)) {
                    if count != lost {
                        stage.feed(&answer);
                    }
                    count += 1;
                }
            }
        };
        carry(&mut stage);
        stage.pass_with(120 * SECOND, &mut carry);
        stage.assert_equal(&mut peer, "notes:1");
        assert_eq!(stage.get("notes:1", "theirs"), Some(19), "answer {lost} was lost");
    }
}

#[test]
fn a_peer_that_never_answers_is_asked_three_times_gets_a_snapshot_and_then_peace() {
    let (mut stage, _) = met(5, 0);
    stage.pass(60 * SECOND);
    let said: Vec<_> = stage.take_frames().iter().flat_map(contents).collect();
    let kinds: Vec<_> = said.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [MessageType::Delta, MessageType::Delta, MessageType::Snapshot, MessageType::Delta]);
    assert_eq!(stage.node.stats().legacy.parked, 1);
}

/// The times at which a node says something of a document to a peer that never answers.
fn said_in_vain(seed: u8, span: Duration) -> Vec<Duration> {
    let mut stage = Stage::seeded(config(peat_proto::config::Auth::Admission), seed);
    stage.put("notes:1", "x", 1);
    stage.connect(CONN, Role::Accepted);
    let mut said = Vec::new();
    stage.pass_with(span, |stage| {
        let now = stage.now.mono.since(peat_proto::Time::ZERO);
        if !stage.take_frames().is_empty() {
            said.push(now);
        }
    });
    said
}

#[test]
fn what_is_not_answered_is_said_again_ever_more_rarely_and_for_ever() {
    let said = said_in_vain(1, 3600 * SECOND);
    let waits: Vec<Duration> = said.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let within = |wait: Duration, least: u32| (least * SECOND..=least * SECOND * 5 / 4).contains(&wait);
    assert!(within(waits[0], 5) && within(waits[1], 10), "{waits:?}");
    // Then it is parked, and tried again with what was learnt.
    assert!((50 * SECOND..=63 * SECOND).contains(&waits[2]), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > 300 * SECOND), "{waits:?}");
    assert!(said.last().is_some_and(|last| *last > 3000 * SECOND), "{said:?}");
    assert_eq!(said, said_in_vain(1, 3600 * SECOND), "a function of the seed");
    assert_ne!(said, said_in_vain(2, 3600 * SECOND), "and not the same for everybody");
}

#[test]
fn a_parked_document_goes_on_when_either_side_moves() {
    for ours in [true, false] {
        // A peer that answers everything with what it had: it takes nothing in.
        let (mut stage, mut peer) = met(5, 5);
        let stubborn = peer.poll("notes:1").expect("an opening");
        stage.feed(&stubborn);
        stage.pass_with(60 * SECOND, |stage| {
            if !stage.take_frames().is_empty() {
                stage.feed(&stubborn);
            }
        });
        assert_eq!(stage.node.stats().legacy.parked, 1);
        assert!(stage.take_frames().is_empty(), "peace");
        peer.states.clear();
        if ours {
            stage.put("notes:1", "ours", 77);
        } else {
            peer.put("notes:1", "theirs", 77);
            stage.feed(&peer.poll("notes:1").expect("news"));
        }
        stage.converse(&mut peer, |_| true);
        stage.assert_equal(&mut peer, "notes:1");
    }
}

#[test]
fn messages_that_overtake_each_other_do_no_harm() {
    let mut author = automerge::AutoCommit::new();
    author.put(ROOT, "theirs", 0).expect("a put to the root");
    let before = author.save();
    // Three edits, each on top of the one before and each in a message of its own.
    let mut said = Vec::new();
    for value in 1..=3 {
        let heads = author.get_heads();
        author.put(ROOT, "theirs", value).expect("a put to the root");
        author.commit();
        let changes = author.get_changes(&heads).iter().map(|change| change.raw_bytes().to_vec().into()).collect();
        let delta = Delta { heads: author.get_heads(), changes, ..Delta::default() };
        said.push(frame(Label::Delta(&doc("notes:1")), &delta.encode()));
    }
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut stage = Stage::serving();
        stage.feed(&frame(Label::Snapshot(&doc("notes:1")), &before));
        stage.sent.clear();
        for index in order {
            stage.feed(&said[index]);
        }
        assert_eq!(stage.get("notes:1", "theirs"), Some(3), "{order:?}");
        let frames = stage.take_frames();
        let asks = |frame: &peat_proto::wire::v0::Frame| {
            !Delta::decode(frame.payload.clone()).expect("a delta").have.is_empty()
        };
        let questions = frames.iter().filter(|frame| asks(frame)).count();
        assert!(questions <= 2, "{questions} questions in the order {order:?}");
    }
}

#[test]
fn delta_6_a_message_without_changes_creates_no_document_and_asks_for_them() {
    let (mut stage, mut peer) = met(0, 3);
    stage.feed(&peer.poll("notes:1").expect("an opening"));
    assert_eq!(stage.names(), [""; 0]);
    let frames = stage.take_frames();
    let [question] = frames.as_slice() else { panic!("one question, not {}", frames.len()) };
    let delta = Delta::decode(question.payload.clone()).expect("a delta");
    assert!(delta.heads.is_empty() && delta.have.len() == 1, "asks for everything");
    for answer in peer.receive(question) {
        stage.feed(&answer);
    }
    assert_eq!(stage.get("notes:1", "theirs"), Some(2));
}

#[test]
fn delta_2_a_poll_of_an_equal_document_is_answered_and_ends_there() {
    let (mut stage, mut peer) = met(3, 0);
    stage.converse(&mut peer, |_| true);
    for _ in 0..20 {
        stage.pass(5 * SECOND);
        stage.sent.clear();
        let poll = peer.poll("notes:1").expect("a peer that was answered can poll again");
        stage.feed(&poll);
        assert_eq!(stage.converse(&mut peer, |_| true), 1, "one answer, and nothing to that");
    }
}

#[test]
fn what_is_not_durable_does_not_leave_on_this_wire_either() {
    let (mut stage, mut peer) = met(2, 0);
    stage.converse(&mut peer, |_| true);
    let doc = doc("notes:1");
    stage.input(Input::Open { doc: doc.clone() });
    let now = stage.now;
    stage.node.edit(now, &doc, |tx| tx.put(automerge::ROOT, "ours", 9)).expect("an edit");
    // The store has not answered: the peer asks meanwhile.
    let mut held = Vec::new();
    peer.states.insert("notes:1".to_owned(), State::new());
    let poll = peer.poll("notes:1").expect("a poll");
    let stream = stage.stream();
    stage.node.handle(now, Input::Received { conn: CONN, stream, bytes: poll, fin: true });
    while let Some(output) = stage.node.poll() {
        match output {
            peat_proto::Output::Send { frame, .. } => held.push(decode(&frame)),
            peat_proto::Output::Store(_) | peat_proto::Output::Event(_) => {}
            _ => {}
        }
    }
    let heads = peer.heads("notes:1");
    for frame in held {
        let delta = Delta::decode(frame.payload).expect("a delta");
        assert_eq!((delta.heads, delta.changes.len()), (heads.clone(), 0));
    }
}

#[test]
fn flow_6_the_last_of_many_edits_arrives_after_three_messages_at_most() {
    let (mut stage, mut peer) = met(2, 0);
    stage.converse(&mut peer, |_| true);
    stage.pass(SECOND);
    let mut said = 0;
    for value in 0..50 {
        stage.put("notes:1", "ours", value);
        stage.pass(Duration::from_millis(2));
        said += stage.sent.len();
        stage.converse(&mut peer, |_| true);
    }
    stage.pass_with(SECOND, |stage| {
        said += stage.sent.iter().filter(|(lane, _)| matches!(lane, Lane::Once(_))).count();
        stage.converse(&mut peer, |_| true);
    });
    assert_eq!(peer.get("notes:1", "ours"), Some(49));
    assert!(stage.node.stats().legacy.deferred_cooldown > 0);
    // Each is acknowledged, and the acknowledgement is answered.
    let data = stage.node.stats().peers[0].traffic.data_sent;
    assert!(data <= 4, "{data} messages with changes, {said} in all");
}

#[test]
fn flow_5_a_thousand_documents_arrive_within_eleven_seconds_each_once() {
    let mut stage = Stage::new(config(peat_proto::config::Auth::Admission));
    for n in 0..1000 {
        stage.put(&format!("notes:{n:04}"), "x", n);
    }
    stage.connect(CONN, Role::Accepted);
    let mut peer = Fielded::default();
    stage.converse_for(&mut peer, 11 * SECOND);
    let missing: Vec<_> = (0..1000).filter(|n| peer.get(&format!("notes:{n:04}"), "x") != Some(*n)).collect();
    assert_eq!(missing, [0_i64; 0]);
    let waits = stage.node.stats().legacy.deferred_bucket;
    assert!((9..=100).contains(&waits), "{waits} times, one for each refill at most");
    let sent = stage.node.stats().legacy.deltas_sent;
    assert!(sent <= 3 * 1000, "opening, data and assurance, not {sent} messages");
    assert!(stage.events.iter().any(|event| matches!(event, Event::Level { .. })));
}

#[test]
fn snapshot_modes_push_the_whole_document_after_each_change_and_only_then() {
    let mut stage = Stage::new(config(peat_proto::config::Auth::Admission));
    let mut peer = Fielded::default();
    stage.put("tracks:1", "x", 1);
    stage.connect(CONN, Role::Accepted);
    let kinds = |stage: &mut Stage| stage.take_frames().iter().map(|frame| frame.kind).collect::<Vec<_>>();
    let (_, opening) = stage.sent.front().expect("an opening").clone();
    assert_eq!(decode(&opening).kind, MessageType::Delta, "who has it already is spared the document");
    stage.converse(&mut peer, |_| true);
    stage.assert_equal(&mut peer, "tracks:1");
    stage.pass(SECOND);
    stage.sent.clear();
    stage.put("tracks:1", "x", 2);
    let sent = stage.sent.clone();
    assert_eq!(kinds(&mut stage), [MessageType::Snapshot]);
    stage.sent = sent;
    stage.converse(&mut peer, |_| true);
    stage.assert_equal(&mut peer, "tracks:1");
    // The same comes back, as fielded peers do: nothing follows from it.
    let saved = peer.docs.get_mut("tracks:1").expect("it has it").save();
    stage.feed(&frame(Label::Snapshot(&doc("tracks:1")), &saved));
    assert_eq!(kinds(&mut stage), []);
    assert_eq!(stage.node.stats().legacy.snapshots_known, 1);
    // What the peer lacks of it is pushed back.
    peer.put("tracks:1", "y", 1);
    stage.put("tracks:1", "x", 3);
    stage.sent.clear();
    stage.pass(SECOND);
    stage.sent.clear();
    let saved = peer.docs.get_mut("tracks:1").expect("it has it").save();
    stage.feed(&frame(Label::Snapshot(&doc("tracks:1")), &saved));
    stage.pass_with(SECOND, |stage| {
        stage.converse(&mut peer, |_| true);
    });
    stage.assert_equal(&mut peer, "tracks:1");
    assert_eq!((peer.get("tracks:1", "x"), stage.get("tracks:1", "y")), (Some(3), Some(1)));
}

#[test]
fn a_long_history_travels_whole_and_a_peer_with_most_of_it_gets_the_rest() {
    let (mut stage, mut peer) = met(400, 0);
    let mut largest = 0;
    stage.converse(&mut peer, |frame| {
        largest = largest.max(frame.payload.len());
        true
    });
    stage.assert_equal(&mut peer, "notes:1");
    assert!(largest < 400 * 30, "{largest} bytes: as one document, not as 400 changes");
    stage.input(Input::Disconnected { conn: CONN, code: None });
    for value in 0..10 {
        stage.put("notes:1", "ours", -value);
    }
    stage.connect(peat_proto::ConnId(2), Role::Accepted);
    peer.states.clear();
    let mut changes = 0;
    stage.converse(&mut peer, |frame| {
        changes += Delta::decode(frame.payload.clone()).expect("a delta").changes.len();
        true
    });
    stage.assert_equal(&mut peer, "notes:1");
    assert_eq!(changes, 10);
}

/// What was written while a connection followed as many documents as it may was said when the next connection was made.
#[test]
fn what_there_was_no_room_to_follow_is_said_when_there_is() {
    let mut config = config(Auth::Admission);
    config.max_exchanges = 8;
    let mut stage = Stage::serving_with(config);
    let mut peer = Fielded::default();
    stage.converse_for(&mut peer, SECOND);
    stage.events.clear();
    for n in 0..200 {
        stage.put(&format!("notes:{n}"), "x", n);
    }
    assert!(!stage.events.iter().any(|event| matches!(event, Event::Level { .. })), "most is still to be said");
    stage.converse_for(&mut peer, 60 * SECOND);
    assert_eq!(peer.docs.len(), 200);
    assert_eq!(peer.get("notes:199", "x"), Some(199));
    assert!(stage.events.iter().any(|event| matches!(event, Event::Level { .. })));
}
