//! What the wire promises while a connection lives: order per lane, urgency between lanes, bounds on both sides.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use peat_node::proto::policy::Class;
use peat_node::proto::{CloseCode, Lane, Role, StreamId, Wire};
use peat_node::transport::bench::Seen;
use peat_node::transport::{Outgoing, STREAM_CREDIT};

use crate::path::Path;
use crate::side::{Conn, Kind, Side, Streams, pair, rogue, total, within};

crate::over_pairs! {
    both_sides_learn_role_key_address_and_the_same_binding,
    a_second_connection_has_another_binding,
    frames_of_every_lane_arrive_in_order_in_both_directions,
    every_frame_is_reported_as_sent_once_and_with_its_length,
    the_largest_frame_arrives_whole,
    stalled_lanes_stop_at_their_credit_and_hold_up_no_other,
    critical_frames_overtake_bulk_that_was_queued_before_them,
    critical_frames_overtake_replies_that_were_queued_before_them,
    a_critical_frame_does_not_wait_for_room_behind_replies,
    a_short_reply_overtakes_documents_that_were_queued_before_it,
    a_frame_of_a_once_lane_has_a_stream_of_its_own_and_so_has_a_pulse,
    a_dialogue_goes_to_and_fro_on_one_stream,
    replies_count_as_sent_even_where_nobody_reads_them,
    the_acceptor_takes_the_best_wire_that_both_speak,
}

crate::over_kinds! {
    the_end_of_a_stream_is_told_from_its_reset,
    a_stopped_stream_tells_its_sender_the_code_and_is_read_no_further,
    a_lane_that_the_peer_stops_is_reported_and_goes_on_with_its_next_frame,
    surplus_and_bidirectional_streams_are_not_granted_and_do_no_harm,
}

const BULK: Lane = Lane::Class(Class::Bulk);
const CRITICAL: Lane = Lane::Class(Class::Critical);

async fn both_sides_learn_role_key_address_and_the_same_binding(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    assert_eq!((dialled.peer, accepted.peer), (listener.id, dialler.id));
    assert_eq!(dialled.link.role, Role::Dialled);
    assert_eq!(accepted.link.role, Role::Accepted);
    assert!(dialled.link.reliable && accepted.link.reliable);
    assert!(dialled.link.rtt.is_some() && accepted.link.rtt.is_some());
    assert_eq!(dialled.addr.as_slice(), listener.adapter.addrs());
    assert_eq!(accepted.addr.as_slice(), dialler.adapter.addrs());
    assert_eq!(dialled.link.binding, accepted.link.binding);
    assert_ne!(dialled.link.binding, [0; 32]);
}

async fn a_second_connection_has_another_binding(dialler: Kind, listener: Kind) {
    let ((dialler, first), (listener, _accepted)) = pair(dialler, listener).await;
    dialler.dial(listener.id, listener.adapter.addrs().to_vec());
    let second = dialler.connected().await;
    assert_ne!(first.id, second.id);
    assert_ne!(first.link.binding, second.link.binding);
}

/// Frames of a lane, of all sizes up to 4 KiB, each byte telling lane and position.
fn frames(lane: Lane) -> Vec<Vec<u8>> {
    let frame = |at: u8| vec![lane.index() as u8 * 40 + at; 1 + usize::from(at) * 105];
    (0..40).map(frame).collect()
}

fn everything() -> Vec<Vec<u8>> {
    let mut lanes: Vec<_> = Lane::LASTING.map(|lane| frames(lane).concat()).into();
    lanes.sort();
    lanes
}

fn by_content(streams: Streams) -> Vec<Vec<u8>> {
    let mut lanes: Vec<_> = streams.into_values().collect();
    lanes.sort();
    lanes
}

async fn frames_of_every_lane_arrive_in_order_in_both_directions(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    for at in 0..40 {
        for lane in Lane::LASTING {
            dialled.send(lane, frames(lane)[at].clone());
            accepted.send(lane, frames(lane)[at].clone());
        }
    }
    let size = everything().concat().len();
    let arrived = listener.collect(&accepted, |it| total(it) == size).await;
    assert_eq!(by_content(arrived), everything());
    let answered = dialler.collect(&dialled, |it| total(it) == size).await;
    assert_eq!(by_content(answered), everything());
}

async fn every_frame_is_reported_as_sent_once_and_with_its_length(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (_listener, _accepted)) = pair(dialler, listener).await;
    let lengths = [1, 1000, 70_000];
    for length in lengths {
        dialled.send(CRITICAL, vec![7; length]);
    }
    for length in lengths {
        match dialler.next().await {
            Seen::Sent { conn, bytes } => assert_eq!((conn, bytes), (dialled.id, length)),
            other => panic!("expected a report of what was sent, got {other:?}"),
        }
    }
}

async fn the_largest_frame_arrives_whole(dialler: Kind, listener: Kind) {
    let ((_dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    let frame: Vec<u8> = (0..16_usize << 20).map(|at| (at % 251) as u8).collect();
    dialled.send(BULK, frame.clone());
    let arrived = listener.collect(&accepted, |it| total(it) == frame.len()).await;
    assert!(by_content(arrived) == [frame]);
}

async fn stalled_lanes_stop_at_their_credit_and_hold_up_no_other(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    let classes = &Lane::LASTING[1..];
    for lane in classes {
        (0..64).for_each(|_| dialled.send(*lane, vec![lane.index() as u8; 64 << 10]));
    }
    let mut streams = Streams::new();
    let full = |it: &Streams| it.values().filter(|it| it.len() >= STREAM_CREDIT).count();
    while full(&streams) < classes.len() {
        if let Seen::Received { stream, bytes, .. } = listener.next().await {
            streams.entry(stream).or_default().extend_from_slice(&bytes);
        }
    }
    // All that QUIC holds for five lanes is full, but for its last update of each lane's window.
    let mut sent = 0;
    while sent < classes.len() * (STREAM_CREDIT + (192 << 10)) {
        match dialler.next().await {
            Seen::Sent { bytes, .. } => sent += bytes,
            other => panic!("unexpected {other:?}"),
        }
    }
    // Control still flows both ways.
    dialled.send(Lane::Control, "ping");
    accepted.send(Lane::Control, "pong");
    loop {
        match listener.next().await {
            Seen::Received { bytes, .. } if bytes == "ping" => break,
            Seen::Sent { .. } => {}
            other => panic!("read beyond the credit: {other:?}"),
        }
    }
    loop {
        match dialler.next().await {
            Seen::Sent { bytes, .. } => sent += bytes,
            Seen::Received { bytes, .. } if bytes == "pong" => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    // What is neither read nor with the sender's core is in QUIC: a window per stream.
    let windows = classes.len() * (STREAM_CREDIT + (256 << 10)) + "ping".len();
    assert!(sent <= windows, "{sent} bytes counted as sent, {windows} expected at most");
    assert!(streams.values().all(|it| it.len() == STREAM_CREDIT));

    // One lane's credit sets that lane free, and only that.
    let freed = *streams.keys().next().expect("five streams");
    accepted.tell(Outgoing::Credit { stream: freed, bytes: 64 * (64 << 10) });
    let mut arrived = STREAM_CREDIT;
    while arrived < 64 * (64 << 10) {
        match listener.next().await {
            Seen::Received { stream, bytes, .. } => {
                assert_eq!(stream, freed);
                arrived += bytes.len();
            }
            // The pong may be reported as sent only now.
            Seen::Sent { bytes, .. } if bytes == "pong".len() => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Two iroh nodes may find a way around the path that is held, and a starved machine may read one lane late: such a round
/// says nothing. Without urgency, bulk comes first in every round.
async fn critical_frames_overtake_bulk_that_was_queued_before_them(dialler: Kind, listener: Kind) {
    overtaken(dialler, listener, false).await;
}

/// On the old wire answers about whole sets go on the streams of whoever asked.
async fn critical_frames_overtake_replies_that_were_queued_before_them(dialler: Kind, listener: Kind) {
    overtaken(dialler, listener, true).await;
}

async fn overtaken(dialler: Kind, listener: Kind, replies: bool) {
    let (length, mut came_first) = (STREAM_CREDIT / 2, Vec::new());
    while came_first.len() < 5 && came_first.last().is_none_or(|bulk| *bulk >= length / 2) {
        came_first.push(bulk_before_critical(dialler, listener, replies, length).await);
    }
    assert!(came_first.last().is_some_and(|bulk| *bulk < length / 2), "{came_first:?} of {length} bytes came first");
}

/// A stream on which the other side asks something.
async fn asked((side, conn): (&Side, &Conn), by: &Conn) -> StreamId {
    by.send(Lane::Dialogue, "ask");
    let asked = side.collect(conn, |it| total(it) == 3).await;
    asked.into_keys().next().expect("one stream")
}

/// How many bytes of bulk arrive before the last critical one, of `length` of each: no more than a window, so that no
/// credit is needed. Only the first congestion window of bulk is on its way when the critical ones come.
async fn bulk_before_critical(dialler: Kind, listener: Kind, replies: bool, length: usize) -> usize {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    let path = Path::to(listener.adapter.addrs()[0]);
    dialler.dial(listener.id, vec![path.addr]);
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    let stream = if replies { Some(asked((&dialler, &dialled), &accepted).await) } else { None };
    path.held.store(true, Ordering::SeqCst);
    for (lane, content) in [(BULK, 0), (CRITICAL, 1)] {
        let bytes = vec![content; length];
        match stream {
            Some(stream) if lane == BULK => dialled.tell(Outgoing::Reply { stream, bytes: bytes.into(), fin: false }),
            _ => dialled.send(lane, bytes),
        }
        match dialler.next().await {
            Seen::Sent { bytes, .. } => assert_eq!(bytes, length),
            other => panic!("unexpected {other:?}"),
        }
    }
    path.held.store(false, Ordering::SeqCst);
    let mut arrived = [0, 0];
    while arrived[1] < length {
        if let Seen::Received { bytes, .. } = listener.next().await {
            arrived[usize::from(bytes[0])] += bytes.len();
        }
    }
    arrived[0]
}

/// The verdict on a proof is such a reply: the other side waits for it before it does anything, and not for long.
async fn a_short_reply_overtakes_documents_that_were_queued_before_it(dialler: Kind, listener: Kind) {
    let (length, mut came_first) = (STREAM_CREDIT / 2, Vec::new());
    while came_first.len() < 5 && came_first.last().is_none_or(|documents| *documents >= length / 2) {
        came_first.push(documents_before_reply(dialler, listener, length).await);
    }
    assert!(came_first.last().is_some_and(|it| *it < length / 2), "{came_first:?} of {length} bytes came first");
}

/// How many bytes of documents, of `length` that were queued before a reply of one byte, arrive before it.
async fn documents_before_reply(dialler: Kind, listener: Kind, length: usize) -> usize {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    let path = Path::to(listener.adapter.addrs()[0]);
    dialler.dial(listener.id, vec![path.addr]);
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    let stream = asked((&dialler, &dialled), &accepted).await;
    path.held.store(true, Ordering::SeqCst);
    dialled.send(CRITICAL, vec![0; length]);
    dialled.tell(Outgoing::Reply { stream, bytes: vec![1].into(), fin: false });
    let mut sent = 0;
    while sent < length + 1 {
        match dialler.next().await {
            Seen::Sent { bytes, .. } => sent += bytes,
            other => panic!("unexpected {other:?}"),
        }
    }
    path.held.store(false, Ordering::SeqCst);
    let mut documents = 0;
    loop {
        match listener.next().await {
            Seen::Received { bytes, .. } if bytes[0] == 1 => return documents,
            Seen::Received { bytes, .. } => documents += bytes.len(),
            _ => {}
        }
    }
}

/// The replies fill all that may be on its way, and more waits: the first room that there is goes to what is urgent.
async fn a_critical_frame_does_not_wait_for_room_behind_replies(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    let (streams, length) = (8, 2 << 20);
    for _ in 0..streams {
        let stream = asked((&listener, &accepted), &dialled).await;
        accepted.tell(Outgoing::Reply { stream, bytes: vec![0; length].into(), fin: true });
    }
    accepted.send(CRITICAL, "now");
    let arrived = dialler.collect(&dialled, |it| it.values().any(|bytes| bytes == b"now")).await;
    let (before, all) = (total(&arrived) - "now".len(), streams * length);
    assert!(before < all / 2, "{before} of {all} bytes came first");
}

async fn the_end_of_a_stream_is_told_from_its_reset(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    let mut ended = connection.open_uni().await.expect("room for streams");
    ended.write_all(b"whole").await.expect("connected");
    ended.finish().expect("still open");
    let (mut bytes, mut fin) = (Vec::new(), false);
    while !fin {
        match side.next().await {
            Seen::Received { conn: on, bytes: more, fin: end, .. } => {
                assert_eq!(on, conn.id);
                bytes.extend_from_slice(&more);
                fin = end;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(bytes, b"whole");

    let mut torn = connection.open_uni().await.expect("room for streams");
    torn.write_all(b"to").await.expect("connected");
    let first = match side.next().await {
        Seen::Received { stream, fin: false, .. } => stream,
        other => panic!("unexpected {other:?}"),
    };
    torn.reset(7_u32.into()).expect("still open");
    match side.next().await {
        Seen::Reset { conn: on, stream } => assert_eq!((on, stream), (conn.id, first)),
        other => panic!("unexpected {other:?}"),
    }
}

async fn a_stopped_stream_tells_its_sender_the_code_and_is_read_no_further(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    let mut stream = connection.open_uni().await.expect("room for streams");
    stream.write_all(b"x").await.expect("connected");
    let id = match side.next().await {
        Seen::Received { stream, .. } => stream,
        other => panic!("unexpected {other:?}"),
    };
    let code = CloseCode::TooLarge;
    conn.tell(Outgoing::Stop { stream: id, code });
    let stopped = within(stream.stopped()).await.expect("connected");
    assert_eq!(stopped, Some(code.code().into()));
    // The connection lives on.
    let mut other = connection.open_uni().await.expect("room for streams");
    other.write_all(b"y").await.expect("connected");
    match side.next().await {
        Seen::Received { stream, bytes, .. } => assert!(stream != id && bytes == "y"),
        other => panic!("unexpected {other:?}"),
    }
}

async fn a_lane_that_the_peer_stops_is_reported_and_goes_on_with_its_next_frame(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    for round in 0..20 {
        // Stopped while idle, and in the middle of a frame that is larger than all buffers on its way.
        let length = if round % 2 == 0 { 100 } else { 16 << 20 };
        conn.send(CRITICAL, vec![round; length]);
        let mut stream = within(connection.accept_uni()).await.expect("a lane");
        let mut bytes = [0; 100];
        within(stream.read_exact(&mut bytes)).await.expect("connected");
        assert_eq!(bytes, [round; 100]);
        stream.stop(CloseCode::TooLarge.code().into()).expect("still open");
        let mut reports = [side.next().await, side.next().await].map(|it| format!("{it:?}"));
        reports.sort();
        let id = conn.id;
        let stopped = Seen::Stopped { conn: id, lane: CRITICAL };
        let sent = Seen::Sent { conn: id, bytes: length };
        assert_eq!(reports, [sent, stopped].map(|it| format!("{it:?}")));
    }
}

async fn surplus_and_bidirectional_streams_are_not_granted_and_do_no_harm(kind: Kind) {
    let side = Side::speaking(kind, 2, &[Wire::V1]).await;
    let (_endpoint, connection, _conn) = rogue(&side).await;
    let bidirectional = tokio::spawn({
        let connection = connection.clone();
        async move { connection.open_bi().await.map(drop) }
    });
    let mut streams = Vec::new();
    for at in 0..16_u8 {
        let mut stream = within(connection.open_uni()).await.expect("room for streams");
        stream.write_all(&[at]).await.expect("connected");
        streams.push(stream);
        assert!(matches!(side.next().await, Seen::Received { bytes, .. } if bytes == vec![at]));
    }
    let surplus = tokio::spawn({
        let connection = connection.clone();
        async move { connection.open_uni().await.map(drop) }
    });
    // Datagrams are refused where they would be sent.
    assert!(connection.send_datagram("junk".into()).is_err());
    // A round trip later both still wait.
    let mut first = streams.swap_remove(0);
    first.write_all(b"still here").await.expect("connected");
    assert!(matches!(side.next().await, Seen::Received { bytes, .. } if bytes == "still here"));
    assert!(!bidirectional.is_finished() && !surplus.is_finished());
    // Streams that end make room for others; QUIC says so for several at once.
    first.finish().expect("still open");
    drop(streams);
    let opened = within(surplus).await.expect("no panic");
    assert!(opened.is_ok());
    assert!(!bidirectional.is_finished());
}

/// What streams brought until `fins` of them had ended.
async fn until_ended(side: &Side, fins: usize) -> (Streams, Vec<StreamId>) {
    let (mut streams, mut ended) = (Streams::new(), Vec::new());
    while ended.len() < fins {
        match side.next().await {
            Seen::Received { stream, bytes, fin, .. } => {
                streams.entry(stream).or_default().extend_from_slice(&bytes);
                if fin {
                    ended.push(stream);
                }
            }
            Seen::Sent { .. } => {}
            other => panic!("expected bytes, got {other:?}"),
        }
    }
    (streams, ended)
}

async fn a_frame_of_a_once_lane_has_a_stream_of_its_own_and_so_has_a_pulse(dialler: Kind, listener: Kind) {
    let ((_dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    dialled.send(Lane::Once(Class::Bulk), "one");
    dialled.send(Lane::Once(Class::Critical), "two");
    dialled.send(Lane::Pulse, "beat");
    let (streams, ended) = until_ended(&listener, 3).await;
    assert_eq!(ended.len(), streams.len());
    assert!(streams.keys().all(|stream| stream.opener() == Role::Dialled));
    for (stream, bytes) in &streams {
        assert_eq!(stream.is_bidirectional(), bytes != b"beat");
        // Nobody reads the other half; finishing it must do no harm.
        accepted.tell(Outgoing::Reply { stream: *stream, bytes: "unheard".into(), fin: true });
    }
    accepted.send(CRITICAL, "still up");
    let mut contents: Vec<_> = streams.into_values().collect();
    contents.sort();
    assert_eq!(contents, [b"beat".to_vec(), b"one".to_vec(), b"two".to_vec()]);
}

async fn a_dialogue_goes_to_and_fro_on_one_stream(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    dialled.send(Lane::Dialogue, "who");
    let heard = listener.collect(&accepted, |it| total(it) == 3).await;
    let (stream, words) = heard.into_iter().next().expect("one stream");
    assert_eq!((words.as_slice(), stream.opener(), stream.is_bidirectional()), (&b"who"[..], Role::Dialled, true));
    accepted.tell(Outgoing::Reply { stream, bytes: "me".into(), fin: false });
    let answer = dialler.collect(&dialled, |it| total(it) == 2).await;
    assert_eq!(answer, Streams::from([(stream, b"me".to_vec())]));
    dialled.tell(Outgoing::Reply { stream, bytes: "so?".into(), fin: true });
    let (streams, _) = until_ended(&listener, 1).await;
    assert_eq!(streams, Streams::from([(stream, b"so?".to_vec())]));
    accepted.tell(Outgoing::Reply { stream, bytes: Bytes::new(), fin: true });
    let (streams, _) = until_ended(&dialler, 1).await;
    assert_eq!(streams, Streams::from([(stream, Vec::new())]));
}

async fn replies_count_as_sent_even_where_nobody_reads_them(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (_listener, _accepted)) = pair(dialler, listener).await;
    let stream = StreamId::new(99, Role::Accepted, true);
    dialled.tell(Outgoing::Reply { stream, bytes: "hello?".into(), fin: true });
    match dialler.next().await {
        Seen::Sent { bytes, .. } => assert_eq!(bytes, 6),
        other => panic!("expected a report of what was sent, got {other:?}"),
    }
}

async fn the_acceptor_takes_the_best_wire_that_both_speak(dialler: Kind, listener: Kind) {
    for (offers, speaks, agreed) in [
        (&Wire::ALL[..], &Wire::ALL[..], Some(Wire::V1)),
        (&[Wire::V0], &Wire::ALL[..], Some(Wire::V0)),
        (&Wire::ALL[..], &[Wire::V0], Some(Wire::V0)),
        (&[Wire::V0], &[Wire::V1], None),
    ] {
        let dialler = Side::speaking(dialler, 1, offers).await;
        let listener = Side::speaking(listener, 2, speaks).await;
        dialler.dial(listener.id, listener.adapter.addrs().to_vec());
        match dialler.next().await {
            Seen::Connected { link, .. } => assert_eq!(Some(link.wire), agreed),
            Seen::DialFailed { .. } => assert_eq!(agreed, None),
            other => panic!("unexpected {other:?}"),
        }
    }
}
