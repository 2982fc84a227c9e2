//! The seam between a node and its transports: what every adapter gives and takes.
//!
//! An adapter only opens, accepts and moves bytes. It holds a [`Port`], takes [`Dial`]s from it, and announces each
//! connection (dialled or accepted) with [`Port::connected`]. From then on it feeds the connection's [`Wire`] with
//! what arrives, and does what the wire's [`Outgoing`] queue says. Framing, admission, lanes, credit, duplicates and
//! redialling are the core's.

use std::net::SocketAddr;

use bytes::Bytes;
use peat_proto::{CloseCode, ConnId, Lane, Link, PeerId, StreamId};

/// ALPN of the interim wire: long-lived unidirectional streams, one per lane and direction, opened by the sender when
/// the lane first has something to say; frames of the V0 layout follow each other on it.
pub const ALPN: &[u8] = b"peat/dev/0";

/// Receive credit that every incoming stream starts with, in bytes. An adapter stops reading a stream whose credit is
/// used up, until [`Outgoing::Credit`] adds to it. 256 KiB: 4 frames of the usual size, 1 s of a 2 Mbit/s link.
pub const STREAM_CREDIT: usize = 256 << 10;

/// Label under which an adapter exports the 32-byte channel binding from TLS (RFC 8446, 7.5), with an empty context.
pub const BINDING_LABEL: &[u8] = b"EXPORTER-peat-channel-binding";

/// Something to do for one connection, in order.
#[derive(Debug)]
pub enum Outgoing {
    /// Write this frame on the lane's stream, opening it if need be; then report [`Wire::sent`] with its length.
    Frame {
        /// Which lane; a lower [`Lane::index`] is more urgent.
        lane: Lane,
        /// The whole frame.
        frame: Bytes,
    },
    /// Read so many bytes more from this stream.
    Credit {
        /// Which incoming stream.
        stream: StreamId,
        /// Bytes.
        bytes: usize,
    },
    /// Stop reading this stream and tell its sender why.
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

/// An adapter's end of the node. Cheap to clone. SKELETON: bodies land with the loop; the signatures are final.
#[derive(Debug, Clone)]
pub struct Port;

/// One announced connection. Dropping it reports the connection as gone.
#[derive(Debug)]
pub struct Wire;

#[allow(unused_variables, clippy::unimplemented, missing_docs)]
impl Port {
    /// The node's Ed25519 secret key (32-byte seed), for the transport's TLS.
    pub fn secret(&self) -> [u8; 32] {
        unimplemented!()
    }
    /// The next wish for a connection; `None` once the node has closed.
    pub async fn dial(&self) -> Option<Dial> {
        unimplemented!()
    }
    /// A dial came to nothing.
    pub fn dial_failed(&self, peer: PeerId) {
        unimplemented!()
    }
    /// The addresses under which this transport can be reached now; replaces its earlier word. They go into tickets.
    pub fn listening(&self, addrs: Vec<SocketAddr>) {
        unimplemented!()
    }
    /// A connection is up and `peer`'s key proven. Never blocks.
    pub fn connected(&self, peer: PeerId, addr: Option<SocketAddr>, link: Link) -> (Wire, flume::Receiver<Outgoing>) {
        unimplemented!()
    }
}

#[allow(unused_variables, clippy::unimplemented, missing_docs)]
impl Wire {
    pub fn id(&self) -> ConnId {
        unimplemented!()
    }
    /// Bytes of an incoming stream, in order; `fin` when its sender ended it. Never blocks: credit bounds it.
    pub fn received(&self, stream: StreamId, bytes: Bytes, fin: bool) {
        unimplemented!()
    }
    /// An incoming stream was reset.
    pub fn reset(&self, stream: StreamId) {
        unimplemented!()
    }
    /// So many bytes of frames have left the transport's send buffer (or been accepted into a bounded one).
    pub fn sent(&self, bytes: usize) {
        unimplemented!()
    }
}
