//! The other end of a [`Port`] without a node, so that the tests of an adapter see and say everything themselves.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use peat_proto::{ConnId, Input, Lane, Link, PeerId, StreamId, Wire};

use super::queue::{Receiver, Sender, queue};
use super::{Dial, Hub, Outgoing, Port};
use crate::inbox::{Inbox, Message};

/// What stands in for the node. Dropping it looks to the adapter like a node that has closed.
#[allow(missing_debug_implementations)]
pub struct Bench {
    hub: Arc<Hub>,
    messages: Mutex<Receiver<Message>>,
    dials: flume::Sender<Dial>,
}

/// What the adapter reports, in order.
#[derive(Debug)]
pub enum Seen {
    /// [`Port::connected`], with the sending end of the connection's queue.
    Connected { conn: ConnId, peer: PeerId, addr: Option<SocketAddr>, link: Link, outgoing: Sender<(ConnId, Outgoing)> },
    /// [`Conn::received`](super::Conn::received).
    Received { conn: ConnId, stream: StreamId, bytes: Bytes, fin: bool },
    /// [`Conn::reset`](super::Conn::reset).
    Reset { conn: ConnId, stream: StreamId },
    /// [`Conn::sent`](super::Conn::sent).
    Sent { conn: ConnId, bytes: usize },
    /// [`Conn::stopped`](super::Conn::stopped).
    Stopped { conn: ConnId, lane: Lane },
    /// The `Conn` was dropped, and [`Conn::closed`](super::Conn::closed) may have been called with this before.
    Disconnected { conn: ConnId, code: Option<u32> },
    /// [`Port::dial_failed`].
    DialFailed { peer: PeerId },
    /// The last clone of the port was dropped.
    Detached,
}

impl Bench {
    /// A port with this secret key that offers these wires, and its other end.
    #[must_use]
    pub fn new(secret: [u8; 32], wires: &[Wire]) -> (Port, Self) {
        let (inbox, mut messages) = queue();
        let hub = Arc::new(Hub::new(Inbox(inbox), secret, wires.to_vec()));
        let port = Port::attach(hub.clone(), "bench");
        let dials = match messages.try_recv() {
            Some(Message::Attached { dials, .. }) => dials,
            _ => unreachable!("attaching says so first"),
        };
        (port, Self { hub, messages: Mutex::new(messages), dials })
    }

    /// Asks the adapter for a connection.
    pub fn dial(&self, dial: Dial) {
        // Fails only when the adapter is gone, which `next` reports.
        let _ = self.dials.try_send(dial);
    }

    /// Where the adapter listens.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.hub.addrs()
    }

    /// Waits for the next report.
    pub async fn next(&self) -> Seen {
        let message = poll_fn(|cx| self.messages.lock().expect("no panic").poll_recv(cx)).await;
        match message.expect("the hub holds a sender") {
            Message::Connected { conn, peer, addr, link, outgoing } => {
                Seen::Connected { conn, peer, addr, link, outgoing }
            }
            Message::Transport(conn, Input::Received { stream, bytes, fin, .. }) => {
                Seen::Received { conn, stream, bytes, fin }
            }
            Message::Transport(conn, Input::Reset { stream, .. }) => Seen::Reset { conn, stream },
            Message::Transport(conn, Input::Sent { bytes, .. }) => Seen::Sent { conn, bytes },
            Message::Transport(conn, Input::Stopped { lane, .. }) => Seen::Stopped { conn, lane },
            Message::Transport(conn, Input::Disconnected { code, .. }) => Seen::Disconnected { conn, code },
            Message::DialFailed { peer, .. } => Seen::DialFailed { peer },
            Message::Detached { .. } => Seen::Detached,
            _ => unreachable!("no adapter says that"),
        }
    }
}
