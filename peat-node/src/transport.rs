//! The seam between a node and its transports: what every adapter gives and takes.
//!
//! An adapter only opens, accepts and moves bytes. It holds a [`Port`], takes [`Dial`]s from it, and announces each
//! connection (dialled or accepted) with [`Port::connected`]. From then on it feeds the [`Conn`] with what
//! arrives, and does what its [`Outgoing`] queue says. Framing, admission, lanes, credit, duplicates and
//! redialling are the core's.

#[doc(hidden)]
#[allow(missing_docs)]
pub mod bench;
pub mod limits;
pub mod queue;
pub mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use peat_proto::{CloseCode, ConnId, Input, Lane, Link, PeerId, StreamId, Wire};

use crate::inbox::{Inbox, Message};

use queue::Sender;

pub use limits::STREAM_CREDIT;

/// Label under which an adapter exports the 32-byte channel binding from TLS (RFC 8446, 7.5), with an empty context.
pub const BINDING_LABEL: &[u8] = b"EXPORTER-peat-channel-binding";

/// Dials that wait for one adapter. The core has one under way per peer; beyond this the next transport is asked.
const DIALS: usize = 1024;

/// Something to do for one connection, in order.
#[derive(Debug)]
pub enum Outgoing {
    /// Write this frame as its [`Lane`] says, then report [`Conn::sent`] with its length. Opening a stream for it must hold
    /// up nothing else.
    Frame {
        /// Which lane; a lower [`Lane::index`] is more urgent.
        lane: Lane,
        /// The whole frame.
        frame: Bytes,
    },
    /// Write on the sending half of this bidirectional stream, behind earlier replies, and finish it with `fin`; then
    /// report [`Conn::sent`] with the length. A half that has not been finished goes with its connection.
    Reply {
        /// Which stream.
        stream: StreamId,
        /// What to write.
        bytes: Bytes,
        /// Whether nothing follows.
        fin: bool,
    },
    /// So many bytes of this stream have been dealt with: read that many more. It may be over; until all of its bytes have been
    /// dealt with it counts among the streams that the other side may have open.
    Credit {
        /// Which incoming stream.
        stream: StreamId,
        /// Bytes.
        bytes: usize,
    },
    /// Stop reading this stream and tell its sender why. Its sending half goes on.
    Stop {
        /// Which incoming stream.
        stream: StreamId,
        /// Why.
        code: CloseCode,
    },
    /// Close the connection with this code. Nothing follows.
    Close {
        /// Why.
        code: CloseCode,
    },
}

/// A wish for a connection.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Whom; the transport must prove that it reached this key.
    pub peer: PeerId,
    /// Where it was last known to listen; may be empty when the transport can look addresses up.
    pub addrs: Vec<SocketAddr>,
}

/// An adapter's end of the node. Cheap to clone; does not keep the node open.
///
/// When the last clone is dropped, the transport's addresses leave the tickets, and its dials count as failed.
#[derive(Debug, Clone)]
pub struct Port(Arc<Socket>);

/// One announced connection. Dropping it reports the connection as gone.
#[derive(Debug)]
pub struct Conn {
    hub: Arc<Hub>,
    id: ConnId,
    /// With which code the other side closed it.
    code: OnceLock<u32>,
}

/// One attached transport, in the order of attaching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortId(u64);

/// What all transports and the application's handle share with the loop.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) inbox: Inbox,
    secret: [u8; 32],
    wires: Vec<Wire>,
    next_conn: AtomicU64,
    next_port: AtomicU64,
    listening: Mutex<BTreeMap<PortId, Vec<SocketAddr>>>,
}

#[derive(Debug)]
struct Socket {
    hub: Arc<Hub>,
    id: PortId,
    transport: &'static str,
    dials: flume::Receiver<Dial>,
}

#[cfg(test)]
impl PortId {
    pub(crate) fn numbered(number: u64) -> Self {
        Self(number)
    }
}

impl Port {
    /// Attaches one more transport. Its dials wait in a queue of [`DIALS`].
    pub(crate) fn attach(hub: Arc<Hub>, transport: &'static str) -> Self {
        let id = PortId(hub.next_port.fetch_add(1, Ordering::Relaxed));
        let (sender, dials) = flume::bounded(DIALS);
        hub.inbox.send(Message::Attached { port: id, dials: sender });
        Self(Arc::new(Socket { hub, id, transport, dials }))
    }

    /// The node's Ed25519 secret key (32-byte seed), for the transport's TLS.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.0.hub.secret
    }

    /// What connections may speak, the best first.
    #[must_use]
    pub fn wires(&self) -> &[Wire] {
        &self.0.hub.wires
    }

    /// What to offer in TLS, the best first.
    #[must_use]
    pub fn alpns(&self) -> Vec<Vec<u8>> {
        self.0.hub.wires.iter().map(|wire| wire.alpn().to_vec()).collect()
    }

    /// The next wish for a connection; `None` once the node has closed. Answer each with [`Port::connected`] or
    /// [`Port::dial_failed`].
    pub async fn dial(&self) -> Option<Dial> {
        self.0.dials.recv_async().await.ok()
    }

    /// A dial came to nothing. The next transport is asked, and the core is told when none is left.
    pub fn dial_failed(&self, peer: PeerId) {
        let port = self.0.id;
        self.0.hub.inbox.send(Message::DialFailed { port, peer });
    }

    /// The addresses under which this transport can be reached now; replaces its earlier word. They go into tickets.
    pub fn listening(&self, addrs: Vec<SocketAddr>) {
        tracing::info!(transport = self.0.transport, ?addrs, "listening");
        self.0.hub.listening().insert(self.0.id, addrs);
    }

    /// A connection is up and `peer`'s key proven. Never blocks.
    ///
    /// What is to be done for it goes into `outgoing`, under its name, and ends with [`Outgoing::Close`]. Once
    /// [`Self::dial`] says that the node has closed, close what is left. `addr` is where the peer was reached; it is
    /// remembered if this side dialled.
    #[must_use]
    pub fn connected(
        &self,
        peer: PeerId,
        addr: Option<SocketAddr>,
        link: Link,
        outgoing: &Sender<(ConnId, Outgoing)>,
    ) -> Conn {
        let hub = self.0.hub.clone();
        let id = ConnId(hub.next_conn.fetch_add(1, Ordering::Relaxed));
        let outgoing = outgoing.clone();
        hub.inbox.send(Message::Connected { conn: id, peer, addr, link, outgoing });
        Conn { hub, id, code: OnceLock::new() }
    }
}

impl Conn {
    /// The connection's name, in statistics and logs.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Bytes of an incoming stream, in order; `fin` when its sender ended it. Never blocks: credit bounds it.
    pub fn received(&self, stream: StreamId, bytes: Bytes, fin: bool) {
        let conn = self.id;
        self.tell(Input::Received { conn, stream, bytes, fin });
    }

    /// An incoming stream was reset.
    pub fn reset(&self, stream: StreamId) {
        let conn = self.id;
        self.tell(Input::Reset { conn, stream });
    }

    /// The other side stopped reading a lane, or its outgoing stream broke: what was sent on it may not have arrived. The
    /// lane's next frame opens a new stream. Of a [`Lane::Once`] only if its frame was not handed to QUIC whole.
    pub fn stopped(&self, lane: Lane) {
        let conn = self.id;
        self.tell(Input::Stopped { conn, lane });
    }

    /// The other side closed the connection with this application code. Takes effect when this is dropped.
    pub fn closed(&self, code: u32) {
        // Said twice, the first word counts.
        let _ = self.code.set(code);
    }

    /// So many bytes of frames and replies have left the transport's send buffer (or been accepted into a bounded one), or
    /// are lost with their stream.
    pub fn sent(&self, bytes: usize) {
        let conn = self.id;
        self.tell(Input::Sent { conn, bytes });
    }

    fn tell(&self, input: Input) {
        self.hub.inbox.send(Message::Transport(self.id, input));
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let (conn, code) = (self.id, self.code.get().copied());
        self.tell(Input::Disconnected { conn, code });
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.hub.listening().remove(&self.id);
        self.hub.inbox.send(Message::Detached { port: self.id });
    }
}

impl Hub {
    /// `wires` are what connections may speak, in any order.
    pub(crate) fn new(inbox: Inbox, secret: [u8; 32], mut wires: Vec<Wire>) -> Self {
        wires.sort_unstable_by(|a, b| b.cmp(a));
        wires.dedup();
        let (next_conn, next_port) = (AtomicU64::new(1), AtomicU64::new(1));
        Self { inbox, secret, wires, next_conn, next_port, listening: Mutex::default() }
    }

    /// The addresses of all transports, those of the first attached first.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.listening().values().flatten().copied().collect()
    }

    /// The lock guards a map that no panic leaves half-changed.
    fn listening(&self) -> MutexGuard<'_, BTreeMap<PortId, Vec<SocketAddr>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
