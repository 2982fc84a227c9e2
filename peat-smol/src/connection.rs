//! One connection, from its first packet until QUIC has forgotten it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peat_node::PeerId;
use peat_node::proto::{CloseCode, Link, Role, Wire};
use peat_node::transport::session::Session;
use peat_node::transport::{BINDING_LABEL, Outgoing};
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection as Quic, ConnectionError, Event, Side, VarInt};
use rustls::pki_types::CertificateDer;

use crate::congestion::Gate;
use crate::liveness::Liveness;
use crate::socket::{SocketId, Sockets};
use crate::streams::StreamsOf;
use crate::tls;

/// Trains of packets that one connection may send before others have their turn.
const TRAINS: usize = 16;

/// A connection and what it is for.
pub(crate) struct Connection {
    pub(crate) quic: Quic,
    pub(crate) phase: Phase,
    /// Where its packets come in, and leave.
    pub(crate) socket: SocketId,
    liveness: Liveness,
    /// Until then the end of the handshake waits for the node's first word.
    held: Option<Instant>,
}

/// How far it has come.
pub(crate) enum Phase {
    /// On its way to a peer.
    Dialling,
    /// A caller, which must have said who it is by then.
    Accepting(Instant),
    /// The node knows of it. A session is large, and rare besides handshakes.
    Up(Box<Session>),
    /// Only QUIC still cares.
    Closing,
}

/// What its driver must see to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The peer has proven its key.
    Connected,
    /// It is over, with the code that the other side gave.
    Lost(Option<u32>),
}

impl Connection {
    pub(crate) fn new(quic: Quic, phase: Phase, socket: SocketId, probe: Duration) -> Self {
        Self { quic, phase, socket, liveness: Liveness::new(probe), held: None }
    }

    /// Takes in what has happened to the connection.
    pub(crate) fn events(&mut self) -> Option<Turn> {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => return Some(Turn::Connected),
                Event::ConnectionLost { reason } => {
                    tracing::debug!(%reason, peer = %self.quic.remote_address(), "connection lost");
                    // What came before counts.
                    self.pump();
                    return Some(Turn::Lost(code(&reason)));
                }
                // The session looks at all streams.
                Event::Stream(_) => {}
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        self.pump();
        None
    }

    fn pump(&mut self) {
        if let Phase::Up(session) = &mut self.phase {
            session.pump(&mut StreamsOf(&mut self.quic));
        }
    }

    /// Whom it has reached, and what the connection is like; `None` if TLS did not agree on what it must.
    pub(crate) fn link(&self) -> Option<(PeerId, SocketAddr, Link)> {
        let tls = self.quic.crypto_session();
        let agreed = tls.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let wire = Wire::of_alpn(&agreed.protocol?)?;
        let keys = tls.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let peer = tls::peer(keys.first()?).ok()?;
        let mut binding = [0; 32];
        tls.export_keying_material(&mut binding, BINDING_LABEL, &[]).ok()?;
        let role = match self.quic.side() {
            Side::Client => Role::Dialled,
            Side::Server => Role::Accepted,
        };
        let rtt = Some(self.quic.rtt());
        Some((peer, self.quic.remote_address(), Link { role, wire, reliable: true, binding, rtt }))
    }

    /// Sends nothing until the node wants something sent or this time has come, whichever is first.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.held = Some(until);
    }

    /// Does what the node wants done.
    pub(crate) fn take(&mut self, outgoing: Outgoing, now: Instant) {
        self.held = None;
        if let Phase::Up(session) = &mut self.phase
            && let Some(code) = session.take(outgoing, &mut StreamsOf(&mut self.quic))
        {
            self.close(code, now);
        }
    }

    /// Says farewell; the node is told that the connection is gone.
    pub(crate) fn close(&mut self, code: CloseCode, now: Instant) {
        if !matches!(self.phase, Phase::Closing) {
            (self.phase, self.held) = (Phase::Closing, None);
            self.quic.close(now, VarInt::from_u32(code.code()), bytes::Bytes::new());
        }
    }

    /// The next time at which something is due.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Accepting(deadline) => Some(deadline),
            Phase::Dialling | Phase::Up(_) => self.liveness.deadline(),
            Phase::Closing => None,
        };
        [own, self.held, self.quic.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what has become due. A test of the other side's silence passes `gate`, whatever is on its way; true if one
    /// has left.
    pub(crate) fn expire(&mut self, now: Instant, sockets: &mut Sockets, gate: &Gate) -> bool {
        self.quic.handle_timeout(now);
        match self.phase {
            Phase::Accepting(deadline) if deadline <= now => self.close(CloseCode::Normal, now),
            Phase::Dialling | Phase::Up(_) if self.liveness.is_due(now) => {
                self.quic.ping();
                let mut packets = Vec::new();
                let transmit = gate.opened(|| self.quic.poll_transmit(now, 1, &mut packets));
                let sent = transmit.is_some();
                if let Some(transmit) = transmit {
                    sockets.send(self.socket, transmit, &packets);
                }
                return sent;
            }
            _ => {}
        }
        false
    }

    /// Sends what may be sent. True if there may be more.
    pub(crate) fn transmit(&mut self, now: Instant, sockets: &mut Sockets, packets: &mut Vec<u8>) -> bool {
        if self.held.is_some_and(|until| now < until) {
            return false;
        }
        self.held = None;
        let mut more = true;
        for _ in 0..TRAINS {
            if !sockets.is_clear(self.socket) {
                break;
            }
            packets.clear();
            let Some(transmit) = self.quic.poll_transmit(now, sockets.train(self.socket), packets) else {
                more = false;
                break;
            };
            sockets.send(self.socket, transmit, packets);
        }
        self.liveness.update(&self.quic.stats(), now);
        more
    }
}

/// The application's code with which the other side closed a connection.
fn code(reason: &ConnectionError) -> Option<u32> {
    match reason {
        ConnectionError::ApplicationClosed(close) => {
            Some(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX))
        }
        _ => None,
    }
}
