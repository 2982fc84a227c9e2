//! Two adapters on loopback, whose nodes are played by the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use iroh::SecretKey;
use iroh::endpoint::{Connection, Endpoint, presets};
use peat_iroh::{Iroh, Options};
use peat_node::PeerId;
use peat_node::proto::{ConnId, Link, StreamId, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::{Dial, Outgoing};

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
        Self::with(seed, loopback()).await
    }

    pub(crate) async fn speaking(seed: u8, wires: &[Wire]) -> Self {
        Self::bound(seed, wires, loopback()).await
    }

    pub(crate) async fn with(seed: u8, options: Options) -> Self {
        Self::bound(seed, &Wire::ALL, options).await
    }

    async fn bound(seed: u8, wires: &[Wire], options: Options) -> Self {
        let (port, bench) = Bench::new([seed; 32], wires);
        let iroh = Iroh::bind(port, options).await.expect("loopback is there");
        let id = peer(seed);
        Self { id, iroh, bench }
    }

    pub(crate) fn dial(&self, peer: PeerId, addrs: Vec<SocketAddr>) {
        self.bench.dial(Dial { peer, addrs });
    }

    pub(crate) async fn next(&self) -> Seen {
        within(self.bench.next()).await
    }

    /// The next report, which must be a connection.
    pub(crate) async fn connected(&self) -> Conn {
        match self.next().await {
            Seen::Connected { conn, peer, addr, link, outgoing } => Conn { id: conn, peer, addr, link, outgoing },
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    /// Collects what streams bring, and grants as much again, until `done` likes what has come.
    pub(crate) async fn collect(&self, conn: &Conn, done: impl Fn(&Streams) -> bool) -> Streams {
        let mut streams = Streams::new();
        while !done(&streams) {
            match self.next().await {
                Seen::Received { stream, bytes, .. } => {
                    streams.entry(stream).or_default().extend_from_slice(&bytes);
                    let bytes = bytes.len();
                    conn.tell(Outgoing::Credit { stream, bytes });
                }
                Seen::Sent { .. } => {}
                other => panic!("expected bytes, got {other:?}"),
            }
        }
        streams
    }
}

pub(crate) type Streams = BTreeMap<StreamId, Vec<u8>>;

pub(crate) fn total(streams: &Streams) -> usize {
    streams.values().map(Vec::len).sum()
}

/// A connection as the test in the place of the node sees it.
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerId,
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) link: Link,
    pub(crate) outgoing: flume::Sender<Outgoing>,
}

impl Conn {
    pub(crate) fn tell(&self, outgoing: Outgoing) {
        self.outgoing.send(outgoing).expect("the connection is up");
    }

    pub(crate) fn send(&self, lane: peat_node::proto::Lane, frame: impl Into<Bytes>) {
        let frame = frame.into();
        self.tell(Outgoing::Frame { lane, frame });
    }
}

/// Two connected sides, the dialling one first.
pub(crate) async fn pair() -> ((Side, Conn), (Side, Conn)) {
    let (dialler, listener) = (Side::new(1).await, Side::new(2).await);
    dialler.dial(listener.id, listener.iroh.addrs().to_vec());
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    ((dialler, dialled), (listener, accepted))
}

/// A peer that speaks QUIC as it likes, connected to a side.
pub(crate) async fn rogue(side: &Side) -> (Endpoint, Connection, Conn) {
    let endpoint = bare(9).await;
    let id = iroh::EndpointId::from_bytes(side.id.as_bytes()).expect("a key");
    let addrs = side.iroh.addrs().iter().copied();
    let addr = addrs.fold(iroh::EndpointAddr::new(id), iroh::EndpointAddr::with_ip_addr);
    let connection = within(endpoint.connect(addr, Wire::V1.alpn())).await;
    let connection = connection.expect("the side accepts everybody");
    let conn = side.connected().await;
    (endpoint, connection, conn)
}

/// An iroh endpoint on loopback, offline.
pub(crate) async fn bare(seed: u8) -> Endpoint {
    let builder =
        Endpoint::builder(presets::Minimal).clear_ip_transports().secret_key(SecretKey::from_bytes(&[seed; 32]));
    let builder = builder.bind_addr((Ipv4Addr::LOCALHOST, 0));
    let bound = builder.expect("a valid address").bind().await;
    bound.expect("loopback is there")
}
