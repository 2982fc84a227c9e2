//! An adapter on loopback, whose node is played by the test.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use iroh::SecretKey;
use iroh::endpoint::{Connection, Endpoint, presets};
use peat_iroh::Iroh;
use peat_node::PeerId;
use peat_node::proto::{ConnId, Lane, Link, StreamId, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::queue::Sender;
use peat_node::transport::{Dial, Outgoing, Port};
use peat_smol::Udp;

/// Which adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Iroh,
    Udp,
}

pub(crate) fn peer(seed: u8) -> PeerId {
    PeerId(*SecretKey::from_bytes(&[seed; 32]).public().as_bytes())
}

/// Fails the test rather than hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    let outcome = tokio::time::timeout(limit, future).await;
    outcome.expect("it should be done long before this")
}

/// What a test varies of both adapters.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) handshake_timeout: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        Self { listen, handshake_timeout: Duration::from_secs(20) }
    }
}

/// A running adapter.
pub(crate) enum Adapter {
    Iroh(Iroh),
    Udp(Udp),
}

impl Adapter {
    pub(crate) async fn bind(kind: Kind, port: Port, setting: Setting) -> Result<Self, String> {
        let Setting { listen, handshake_timeout } = setting;
        match kind {
            Kind::Iroh => {
                let options = peat_iroh::Options { listen, handshake_timeout, ..Default::default() };
                Iroh::bind(port, options).await.map(Self::Iroh).map_err(|error| error.to_string())
            }
            Kind::Udp => {
                let options = peat_smol::Options { listen, handshake_timeout, ..Default::default() };
                Udp::spawn(port, options).map(Self::Udp).map_err(|error| error.to_string())
            }
        }
    }

    /// Without a runtime.
    pub(crate) fn spawn(kind: Kind, port: Port, listen: Vec<SocketAddr>) -> Self {
        match kind {
            Kind::Iroh => {
                let options = peat_iroh::Options { listen, ..Default::default() };
                Self::Iroh(Iroh::spawn(port, options).expect("loopback is there"))
            }
            Kind::Udp => {
                let options = peat_smol::Options { listen, ..Default::default() };
                Self::Udp(Udp::spawn(port, options).expect("loopback is there"))
            }
        }
    }

    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        match self {
            Self::Iroh(iroh) => iroh.addrs(),
            Self::Udp(udp) => udp.addrs(),
        }
    }

    pub(crate) fn close_blocking(self) {
        match self {
            Self::Iroh(iroh) => iroh.close_blocking(),
            Self::Udp(udp) => udp.close_blocking(),
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Iroh(iroh) => iroh.close().await,
            Self::Udp(udp) => udp.close().await,
        }
    }
}

/// An adapter, and the test in the place of its node.
pub(crate) struct Side {
    pub(crate) id: PeerId,
    pub(crate) adapter: Adapter,
    pub(crate) bench: Bench,
}

impl Side {
    pub(crate) async fn new(kind: Kind, seed: u8) -> Self {
        Self::bound(kind, seed, &Wire::ALL, Setting::default()).await
    }

    pub(crate) async fn speaking(kind: Kind, seed: u8, wires: &[Wire]) -> Self {
        Self::bound(kind, seed, wires, Setting::default()).await
    }

    pub(crate) async fn with(kind: Kind, seed: u8, setting: Setting) -> Self {
        Self::bound(kind, seed, &Wire::ALL, setting).await
    }

    async fn bound(kind: Kind, seed: u8, wires: &[Wire], setting: Setting) -> Self {
        let (port, bench) = Bench::new([seed; 32], wires);
        let adapter = Adapter::bind(kind, port, setting).await.expect("loopback is there");
        Self { id: peer(seed), adapter, bench }
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
    pub(crate) outgoing: Sender<(ConnId, Outgoing)>,
}

impl Conn {
    pub(crate) fn tell(&self, outgoing: Outgoing) {
        self.outgoing.send((self.id, outgoing)).expect("the adapter is up");
    }

    pub(crate) fn send(&self, lane: Lane, frame: impl Into<Bytes>) {
        let frame = frame.into();
        self.tell(Outgoing::Frame { lane, frame });
    }
}

/// Two connected sides, the dialling one first.
pub(crate) async fn pair(dialler: Kind, listener: Kind) -> ((Side, Conn), (Side, Conn)) {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    dialler.dial(listener.id, listener.adapter.addrs().to_vec());
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    ((dialler, dialled), (listener, accepted))
}

/// A peer that speaks QUIC as it likes, connected to a side.
pub(crate) async fn rogue(side: &Side) -> (Endpoint, Connection, Conn) {
    let endpoint = bare(9).await;
    let id = iroh::EndpointId::from_bytes(side.id.as_bytes()).expect("a key");
    let addrs = side.adapter.addrs().iter().copied();
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
