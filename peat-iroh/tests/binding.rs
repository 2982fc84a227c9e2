//! What is iroh's own about binding; what holds for every adapter stands with the tests of all of them.

mod common;

use std::net::{SocketAddr, UdpSocket};

use common::{loopback, peer, within};
use peat_iroh::{BindError, Iroh, Options, Relay};
use peat_node::proto::Wire;
use peat_node::transport::Dial;
use peat_node::transport::bench::{Bench, Seen};

/// An address that takes packets and never answers, for as long as the socket lives.
fn silence() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
    let addr = socket.local_addr().expect("bound");
    (socket, addr)
}

#[test]
fn a_program_without_a_runtime_can_serve_and_close() {
    let (port, bench) = Bench::new([1; 32], &Wire::ALL);
    let iroh = Iroh::spawn(port, loopback()).expect("loopback is there");
    let (other_port, other) = Bench::new([2; 32], &Wire::ALL);
    let listener = Iroh::spawn(other_port, loopback()).expect("loopback is there");
    let addrs = listener.addrs().to_vec();
    bench.dial(Dial { peer: peer(2), addrs });
    let next = |bench: &Bench| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(within(bench.next()))
    };
    assert!(matches!(next(&bench), Seen::Connected { peer: it, .. } if it == peer(2)));
    iroh.close_blocking();
    assert!(matches!(next(&other), Seen::Connected { peer: it, .. } if it == peer(1)));
    assert!(matches!(next(&other), Seen::Disconnected { .. }));
    // Dropping closes too, in the background.
    drop(listener);
    assert!(matches!(next(&other), Seen::Detached));
}

#[tokio::test]
async fn what_cannot_be_bound_is_named() {
    let (_socket, taken) = silence();
    let refused = |options| async { Iroh::bind(Bench::new([1; 32], &Wire::ALL).0, options).await.err() };
    let error = refused(Options { listen: vec![taken], ..loopback() }).await;
    assert!(matches!(error, Some(BindError::Endpoint(_))));
    let relay = Relay::Urls(vec!["no url".into()]);
    let error = refused(Options { relay, ..loopback() }).await;
    assert!(matches!(error, Some(BindError::Relay(url)) if url == "no url"));
    let second = SocketAddr::from(([127, 0, 0, 2], 0));
    let mut listen = loopback().listen;
    listen.push(second);
    let error = refused(Options { listen, ..loopback() }).await;
    assert!(matches!(error, Some(BindError::Listen { addr, .. }) if addr == second));
}
