//! How connections and endpoints begin and end.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use iroh::EndpointId;
use iroh::endpoint::{ApplicationClose, ConnectionError};
use peat_node::proto::CloseCode;
use peat_node::transport::bench::Seen;
use peat_node::transport::{Outgoing, limits};

use crate::side::{Kind, Setting, Side, pair, peer, rogue, within};

crate::over_pairs! {
    another_key_at_the_address_fails_the_dial_at_once,
    a_dead_address_does_not_keep_a_dial_from_the_right_one,
    closing_an_endpoint_tells_its_peers_and_its_node,
    a_socket_that_listens_everywhere_reports_addresses_that_can_be_dialled,
}

crate::over_kinds! {
    a_dial_without_address_or_to_a_broken_key_fails,
    a_dial_into_silence_fails_in_time_and_once_for_two_wishes,
    the_code_of_a_closed_connection_arrives_and_its_wire_is_dropped,
    the_code_with_which_a_peer_closes_is_reported,
    a_close_is_reported_while_no_more_streams_are_taken_in,
    a_node_that_closes_says_why_and_takes_its_endpoint_with_it,
}

/// An address that takes packets and never answers, for as long as the socket lives.
fn silence() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

async fn another_key_at_the_address_fails_the_dial_at_once(dialler: Kind, listener: Kind) {
    // Longer than this test waits.
    let setting = Setting { handshake_timeout: Duration::from_secs(60), ..Setting::default() };
    let (dialler, listener) = (Side::with(dialler, 1, setting).await, Side::new(listener, 2).await);
    dialler.dial(peer(3), listener.adapter.addrs().to_vec());
    assert!(matches!(dialler.next().await, Seen::DialFailed { peer: p } if p == peer(3)));
}

async fn a_dial_without_address_or_to_a_broken_key_fails(kind: Kind) {
    let dialler = Side::new(kind, 1).await;
    let broken = peat_node::PeerId([2; 32]);
    assert!(EndpointId::from_bytes(broken.as_bytes()).is_err());
    let (_socket, addr) = silence();
    for (whom, addrs) in [(peer(3), vec![]), (broken, vec![addr]), (dialler.id, vec![addr])] {
        dialler.dial(whom, addrs);
        assert!(matches!(dialler.next().await, Seen::DialFailed { peer } if peer == whom));
    }
}

async fn a_dial_into_silence_fails_in_time_and_once_for_two_wishes(kind: Kind) {
    let handshake_timeout = Duration::from_millis(500);
    let setting = Setting { handshake_timeout, ..Setting::default() };
    let dialler = Side::with(kind, 1, setting).await;
    let (_socket, addr) = silence();
    dialler.dial(peer(3), vec![addr]);
    dialler.dial(peer(3), vec![addr]);
    assert!(matches!(dialler.next().await, Seen::DialFailed { .. }));
    within(dialler.adapter.close()).await;
    assert!(matches!(within(dialler.bench.next()).await, Seen::Detached));
}

async fn a_dead_address_does_not_keep_a_dial_from_the_right_one(dialler: Kind, listener: Kind) {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    let (_socket, dead) = silence();
    dialler.dial(listener.id, [&[dead], listener.adapter.addrs()].concat());
    assert_eq!(dialler.connected().await.peer, listener.id);
}

async fn the_code_of_a_closed_connection_arrives_and_its_wire_is_dropped(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    conn.tell(Outgoing::Close { code: CloseCode::NotAdmitted });
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
            assert_eq!(error_code, CloseCode::NotAdmitted.code().into());
        }
        other => panic!("expected a code, got {other:?}"),
    }
    assert!(matches!(side.next().await, Seen::Disconnected { conn: id, code: None } if id == conn.id));
}

async fn the_code_with_which_a_peer_closes_is_reported(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    connection.close(7_u32.into(), b"");
    assert!(matches!(side.next().await, Seen::Disconnected { conn: id, code: Some(7) } if id == conn.id));
}

/// As many streams as there may be are over, and the node has taken nothing of what they brought.
async fn a_close_is_reported_while_no_more_streams_are_taken_in(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    for _ in 0..limits::MAX_STREAMS {
        let mut stream = within(connection.open_uni()).await.expect("room for streams");
        stream.write_all(b"x").await.expect("connected");
        stream.finish().expect("still open");
    }
    let mut ended = 0;
    while ended < limits::MAX_STREAMS {
        match side.next().await {
            Seen::Received { fin, .. } => ended += u32::from(fin),
            other => panic!("unexpected {other:?}"),
        }
    }
    connection.close(7_u32.into(), b"");
    assert!(matches!(side.next().await, Seen::Disconnected { conn: id, code: Some(7) } if id == conn.id));
}

async fn closing_an_endpoint_tells_its_peers_and_its_node(dialler: Kind, listener: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(dialler, listener).await;
    let address = dialler.adapter.addrs().to_vec();
    assert_eq!(dialler.bench.addrs(), address);
    within(dialler.adapter.close()).await;
    let gone = within(dialler.bench.next()).await;
    assert!(matches!(gone, Seen::Disconnected { conn, .. } if conn == dialled.id));
    assert!(matches!(within(dialler.bench.next()).await, Seen::Detached));
    assert!(dialler.bench.addrs().is_empty());
    assert!(matches!(listener.next().await, Seen::Disconnected { conn, .. } if conn == accepted.id));
}

async fn a_node_that_closes_says_why_and_takes_its_endpoint_with_it(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    conn.tell(Outgoing::Close { code: CloseCode::Exhausted });
    drop(side.bench);
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, CloseCode::Exhausted.code().into());
        }
        other => panic!("expected a code, got {other:?}"),
    }
    within(side.adapter.close()).await;
}

fn everywhere() -> Setting {
    Setting { listen: peat_smol::Options::default().listen, ..Setting::default() }
}

async fn a_socket_that_listens_everywhere_reports_addresses_that_can_be_dialled(dialler: Kind, listener: Kind) {
    let (dialler, listener) = (Side::with(dialler, 1, everywhere()).await, Side::with(listener, 2, everywhere()).await);
    let addrs = listener.bench.addrs();
    assert!(addrs.iter().all(|addr| !addr.ip().is_unspecified() && addr.port() != 0));
    dialler.dial(listener.id, addrs);
    assert_eq!(dialler.connected().await.peer, listener.id);
}
