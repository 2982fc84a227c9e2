//! Adapters on loopback, whose nodes are played by the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use iroh::SecretKey;
use iroh::endpoint::{Endpoint, presets};
use peat_iroh::{Iroh, Options};
use peat_node::PeerId;
use peat_node::proto::Wire;
use peat_node::transport::Dial;
use peat_node::transport::bench::{Bench, Seen};

pub(crate) fn peer(seed: u8) -> PeerId {
    PeerId(*SecretKey::from_bytes(&[seed; 32]).public().as_bytes())
}

pub(crate) fn loopback() -> Options {
    Options { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Options::default() }
}

/// Fails the test rather than hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    let outcome = tokio::time::timeout(limit, future).await;
    outcome.expect("it should be done long before this")
}

/// An adapter, and the test in the place of its node.
pub(crate) struct Side {
    pub(crate) id: PeerId,
    pub(crate) iroh: Iroh,
    pub(crate) bench: Bench,
}

impl Side {
    pub(crate) async fn new(seed: u8) -> Self {
        let (port, bench) = Bench::new([seed; 32], &Wire::ALL);
        let iroh = Iroh::bind(port, loopback()).await.expect("loopback is there");
        Self { id: peer(seed), iroh, bench }
    }

    pub(crate) fn dial(&self, peer: PeerId, addrs: Vec<SocketAddr>) {
        self.bench.dial(Dial { peer, addrs });
    }

    pub(crate) async fn next(&self) -> Seen {
        within(self.bench.next()).await
    }
}

/// Two connected sides, the dialling one first.
pub(crate) async fn pair() -> (Side, Side) {
    let (dialler, listener) = (Side::new(1).await, Side::new(2).await);
    dialler.dial(listener.id, listener.iroh.addrs().to_vec());
    for side in [&dialler, &listener] {
        assert!(matches!(side.next().await, Seen::Connected { .. }));
    }
    (dialler, listener)
}

/// An iroh endpoint on loopback, offline.
pub(crate) async fn bare(seed: u8) -> Endpoint {
    let builder =
        Endpoint::builder(presets::Minimal).clear_ip_transports().secret_key(SecretKey::from_bytes(&[seed; 32]));
    let builder = builder.bind_addr((Ipv4Addr::LOCALHOST, 0));
    let bound = builder.expect("a valid address").bind().await;
    bound.expect("loopback is there")
}
