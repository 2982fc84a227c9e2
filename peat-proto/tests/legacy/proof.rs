//! Membership is proven before anything else, and one of several connections goes on.

use std::time::Duration;

use peat_proto::config::Auth;
use peat_proto::wire::v0::{Delta, Dialect, Label};
use peat_proto::{CloseCode, ConnId, Event, Formation, FormationId, FormationSecret, Input, Lane, Role, StreamId};

use crate::SECOND;
use crate::fielded::*;

const FIRST: StreamId = StreamId::new(0, Role::Dialled, true);

fn formation(secret: u8) -> Formation {
    let secret = FormationSecret::from_bytes(&[secret; 32]).expect("a secret");
    Formation { id: FormationId::new("alpha").expect("a name"), secret }
}

fn proof(dialect: Dialect, secret: u8) -> peat_proto::Config {
    let mut config = config(Auth::Proof { dialect, formation: formation(secret) });
    config.admission.open = false;
    config
}

fn serves(stage: &Stage) -> bool {
    stage.events.iter().any(|event| matches!(event, Event::Up { .. }))
}

/// Two nodes prove themselves to each other over one stream; both stages afterwards.
fn handshake(dialect: Dialect, secrets: [u8; 2]) -> [Stage; 2] {
    let mut dialler = Stage::new(proof(dialect, secrets[0]));
    let mut acceptor = Stage::new(proof(dialect, secrets[1]));
    dialler.connect(CONN, Role::Dialled);
    acceptor.connect(CONN, Role::Accepted);
    let (lane, opening) = dialler.sent.pop_front().expect("the dialler speaks first");
    assert_eq!(lane, Lane::Dialogue);
    acceptor.feed_on(FIRST, &opening, false);
    for _ in 0..4 {
        for (stream, bytes, fin) in std::mem::take(&mut acceptor.replies) {
            dialler.feed_on(stream, &bytes, fin);
        }
        for (stream, bytes, fin) in std::mem::take(&mut dialler.replies) {
            acceptor.feed_on(stream, &bytes, fin);
        }
    }
    [dialler, acceptor]
}

#[test]
fn auth_1_both_dialects_prove_membership_in_both_roles() {
    for dialect in [Dialect::M, Dialect::P] {
        let stages = handshake(dialect, [1, 1]);
        assert!(stages.iter().all(serves), "{dialect:?}");
        assert!(stages.iter().all(|stage| stage.closed.is_empty()));
    }
}

#[test]
fn a_wrong_secret_ends_the_connection_with_code_1_before_anything_is_said() {
    for dialect in [Dialect::M, Dialect::P] {
        let [dialler, acceptor] = handshake(dialect, [1, 2]);
        assert_eq!(acceptor.closed, [(CONN, CloseCode::NotAdmitted)]);
        assert_eq!(acceptor.node.stats().legacy.strangers, 1);
        assert!(!serves(&dialler) && !serves(&acceptor));
        assert!(acceptor.sent.is_empty() && dialler.sent.is_empty());
    }
}

#[test]
fn whoever_says_nothing_for_thirty_seconds_is_closed() {
    for role in [Role::Dialled, Role::Accepted] {
        let mut stage = Stage::new(proof(Dialect::M, 1));
        stage.connect(CONN, role);
        stage.pass_in_silence(Duration::from_secs(29));
        assert!(stage.closed.is_empty());
        stage.pass_in_silence(SECOND);
        assert_eq!(stage.closed, [(CONN, CloseCode::NotAdmitted)]);
    }
}

#[test]
fn auth_6_before_the_proof_no_stream_is_handled_and_no_byte_of_a_document_leaves() {
    let mut stage = Stage::new(proof(Dialect::P, 1));
    stage.put("notes:1", "x", 1);
    stage.connect(CONN, Role::Accepted);
    let stream = StreamId::new(3, Role::Dialled, true);
    stage.feed_on(stream, &frame(Label::Delta(&doc("notes:2")), &Delta::default().encode()), true);
    stage.feed_beat(&[1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(stage.stopped.iter().any(|(stopped, code)| *stopped == stream && *code == CloseCode::Unexpected));
    assert!(stage.sent.is_empty());
    assert_eq!((stage.node.stats().legacy.deltas_received, stage.node.stats().legacy.heartbeats_received), (0, 0));
    assert_eq!(stage.names(), ["notes:1"]);
}

#[test]
fn what_overtakes_the_verdict_is_kept_for_after_it() {
    let mut dialler = Stage::new(proof(Dialect::P, 1));
    let mut acceptor = Stage::new(proof(Dialect::P, 1));
    let mut peer = Fielded::default();
    peer.put("notes:1", "x", 7);
    dialler.connect(CONN, Role::Dialled);
    acceptor.connect(CONN, Role::Accepted);
    let (_, opening) = dialler.sent.pop_front().expect("an opening");
    acceptor.feed_on(FIRST, &opening, false);
    let (_, challenge, _) = acceptor.replies.pop().expect("a challenge");
    dialler.feed_on(FIRST, &challenge, false);
    let (_, answer, _) = dialler.replies.pop().expect("an answer");
    acceptor.feed_on(FIRST, &answer, true);
    let (_, verdict, _) = acceptor.replies.pop().expect("a verdict");
    let saved = peer.docs.get_mut("notes:1").expect("it is there").save();
    let early = StreamId::new(0, Role::Accepted, true);
    dialler.feed_on(early, &frame(Label::Snapshot(&doc("notes:1")), &saved), true);
    assert_eq!(dialler.names(), [""; 0]);
    dialler.feed_on(FIRST, &verdict, true);
    assert_eq!(dialler.get("notes:1", "x"), Some(7));
    let ended = dialler.replies.iter().filter(|(stream, _, fin)| *stream == early && *fin).count();
    assert_eq!(ended, 1);
}

#[test]
fn without_proof_only_those_are_let_in_whom_the_admission_names() {
    let mut config = config(Auth::Admission);
    config.admission.open = false;
    let mut stage = Stage::new(config.clone());
    stage.connect(CONN, Role::Accepted);
    assert_eq!(stage.closed, [(CONN, CloseCode::NotAdmitted)]);
    config.admission.allow = vec![PEER];
    let mut stage = Stage::new(config.clone());
    stage.connect(CONN, Role::Accepted);
    assert!(serves(&stage) && stage.closed.is_empty());
    config.legacy = None;
    let mut stage = Stage::new(config);
    stage.connect(CONN, Role::Accepted);
    assert_eq!(stage.closed, [(CONN, CloseCode::Version)], "not spoken at all");
}

#[test]
fn of_two_connections_the_lower_ids_dial_or_the_newer_goes_on() {
    // NODE is below PEER, so what the node dialled survives.
    let second = ConnId(2);
    let cases = [
        (Role::Accepted, Role::Dialled, CONN, CloseCode::Replaced),
        (Role::Dialled, Role::Accepted, second, CloseCode::DuplicateInbound),
        (Role::Dialled, Role::Dialled, CONN, CloseCode::Replaced),
        (Role::Accepted, Role::Accepted, CONN, CloseCode::ReplacedInbound),
    ];
    for (first, then, loser, code) in cases {
        let mut stage = Stage::new(config(Auth::Admission));
        stage.connect(CONN, first);
        stage.connect(second, then);
        assert_eq!(stage.closed, [(loser, code)], "{first:?}, then {then:?}");
        let winner = if loser == CONN { second } else { CONN };
        // The late end of the loser touches nothing.
        stage.input(Input::Disconnected { conn: loser, code: Some(101) });
        stage.put("notes:1", "x", 1);
        stage.pass(SECOND);
        assert!(stage.sent.iter().any(|(lane, _)| matches!(lane, Lane::Once(_))), "{winner:?} goes on");
        assert_eq!(stage.node.stats().peers.len(), 1);
    }
}
