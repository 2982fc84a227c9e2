//! All connections of an endpoint, and the dials and handshakes that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_node::PeerId;
use peat_node::proto::{CloseCode, ConnId};
use peat_node::transport::limits::Caller;
use peat_node::transport::queue::Sender;
use peat_node::transport::session::Session;
use peat_node::transport::{Dial, Outgoing, Port};
use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, Incoming};

use crate::congestion::Gate;
use crate::connection::{Connection, Phase, Turn};
use crate::counters::{Counters, count};
use crate::dial::{Dials, Step};
use crate::options::{BindError, Options, Profile};
use crate::quic::Quic;
use crate::socket::{Packet, SocketId, Sockets};
use crate::tls;

pub(crate) struct Connections {
    port: Port,
    quic: Quic,
    endpoint: Endpoint,
    all: BTreeMap<ConnectionHandle, Connection>,
    /// Those that the node knows.
    known: BTreeMap<ConnId, ConnectionHandle>,
    /// Where the node puts what it wants done.
    outgoing: Sender<(ConnId, Outgoing)>,
    dials: Dials<ConnectionHandle>,
    /// Those to which something happened.
    touched: BTreeSet<ConnectionHandle>,
    deadlines: Deadlines,
    gate: Gate,
    profile: Profile,
    /// What a caller has to say who it is.
    handshake: Duration,
    /// Where packets are put together.
    packets: Vec<u8>,
    counters: Arc<Counters>,
}

/// What is due for connections, and when.
#[derive(Default)]
struct Deadlines {
    queue: BTreeSet<(Instant, ConnectionHandle)>,
    of: BTreeMap<ConnectionHandle, Instant>,
}

impl Connections {
    pub(crate) fn new(
        port: &Port,
        options: &Options,
        may_fragment: bool,
        outgoing: Sender<(ConnId, Outgoing)>,
        counters: Arc<Counters>,
    ) -> Result<Self, BindError> {
        let gate = Gate::default();
        let quic = Quic::new(port, options, gate.clone())?;
        Ok(Self {
            port: port.clone(),
            endpoint: quic.endpoint(may_fragment)?,
            quic,
            all: BTreeMap::new(),
            known: BTreeMap::new(),
            outgoing,
            dials: Dials::new(),
            touched: BTreeSet::new(),
            deadlines: Deadlines::default(),
            gate,
            profile: options.profile,
            handshake: options.handshake_timeout,
            packets: Vec::new(),
            counters,
        })
    }

    #[cfg(feature = "discovery")]
    pub(crate) fn id(&self) -> PeerId {
        self.quic.id()
    }

    /// Takes in a packet. Callers are served only if `serving`.
    pub(crate) fn packet(&mut self, packet: Packet, serving: bool, sockets: &mut Sockets, now: Instant) {
        let Packet { socket, from, to, ecn, data } = packet;
        self.packets.clear();
        match self.endpoint.handle(now, from, to, ecn, data, &mut self.packets) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.all.get_mut(&handle) {
                    connection.quic.handle_event(event);
                    if connection.quic.remote_address() == from {
                        connection.socket = socket;
                    }
                    self.touched.insert(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.caller(incoming, serving, socket, sockets, now),
            Some(DatagramEvent::Response(transmit)) => sockets.send(socket, transmit, &self.packets),
            None => {}
        }
    }

    /// Accepts a caller, unless there are too many already. Nothing is kept of those that are turned away.
    fn caller(&mut self, incoming: Incoming, serving: bool, socket: SocketId, sockets: &mut Sockets, now: Instant) {
        let proven = incoming.remote_address_validated();
        match Caller::admit(self.handshakes(), self.guests(), proven) {
            Caller::Accept if serving => {}
            Caller::Retry if serving => {
                count(&self.counters.retried);
                // Fails only where the address is validated.
                if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.packets) {
                    sockets.send(socket, transmit, &self.packets);
                }
                return;
            }
            _ => {
                count(&self.counters.refused);
                let transmit = self.endpoint.refuse(incoming, &mut self.packets);
                return sockets.send(socket, transmit, &self.packets);
            }
        }
        match self.endpoint.accept(incoming, now, &mut self.packets, None) {
            Ok((handle, quic)) => {
                count(&self.counters.accepted);
                let phase = Phase::Accepting(now + self.handshake);
                self.all.insert(handle, Connection::new(quic, phase, socket, self.profile.probe()));
                self.touched.insert(handle);
            }
            Err(error) => {
                tracing::debug!(error = %error.cause, "a caller was turned away");
                if let Some(transmit) = error.response {
                    sockets.send(socket, transmit, &self.packets);
                }
            }
        }
    }

    /// Begins to dial; `patience` is for an address to be found when none is known.
    pub(crate) fn dial(&mut self, dial: Dial, now: Instant, limit: Duration, patience: Duration) {
        if dial.peer == self.quic.id() {
            return self.port.dial_failed(dial.peer);
        }
        self.dials.begin(dial, now, limit, patience);
    }

    /// Addresses of a peer were found.
    #[cfg(feature = "discovery")]
    pub(crate) fn found(&mut self, peer: PeerId, addrs: Vec<SocketAddr>) {
        self.dials.found(peer, addrs);
    }

    /// Does what the node wants done for a connection.
    pub(crate) fn take(&mut self, conn: ConnId, outgoing: Outgoing, now: Instant) {
        if let Some(handle) = self.known.get(&conn)
            && let Some(connection) = self.all.get_mut(handle)
        {
            connection.take(outgoing, now);
            self.touched.insert(*handle);
        }
    }

    /// Does what has become due.
    pub(crate) fn expire(&mut self, sockets: &mut Sockets, now: Instant) {
        while let Some(handle) = self.deadlines.pop(now) {
            if let Some(connection) = self.all.get_mut(&handle) {
                if connection.expire(now, sockets, &self.gate) {
                    count(&self.counters.probes);
                }
                self.touched.insert(handle);
            }
        }
        while let Some(step) = self.dials.step(now) {
            match step {
                Step::Try(peer, addr) => self.attempt(peer, addr, sockets, now),
                Step::Failed(peer, attempts) => {
                    self.give_up(attempts, now);
                    self.port.dial_failed(peer);
                }
            }
        }
    }

    fn attempt(&mut self, peer: PeerId, addr: SocketAddr, sockets: &Sockets, now: Instant) {
        let begun = sockets.towards(addr).and_then(|socket| {
            let config = self.quic.client(peer).ok()?;
            let connected = self.endpoint.connect(now, config, addr, tls::NOBODY);
            let (handle, quic) = connected.inspect_err(|error| tracing::debug!(%error, %addr, "not dialled")).ok()?;
            self.all.insert(handle, Connection::new(quic, Phase::Dialling, socket, self.profile.probe()));
            Some(handle)
        });
        if let Some(handle) = begun {
            self.dials.started(&peer, handle);
            self.touched.insert(handle);
        }
    }

    fn give_up(&mut self, attempts: BTreeSet<ConnectionHandle>, now: Instant) {
        for handle in attempts {
            if let Some(connection) = self.all.get_mut(&handle) {
                connection.close(CloseCode::Normal, now);
                self.touched.insert(handle);
            }
        }
    }

    /// Goes on with every connection to which something happened. True if some have more to do at once.
    pub(crate) fn drive(&mut self, sockets: &mut Sockets, now: Instant) -> bool {
        let mut more = BTreeSet::new();
        while let Some(handle) = self.touched.pop_first() {
            if self.drive_one(handle, sockets, now) {
                more.insert(handle);
            }
        }
        let clear = more.iter().any(|handle| self.all.get(handle).is_some_and(|it| sockets.is_clear(it.socket)));
        self.touched = more;
        self.counters.handshakes.store(self.handshakes() as u64, std::sync::atomic::Ordering::Relaxed);
        self.counters.connections.store(self.all.len() as u64, std::sync::atomic::Ordering::Relaxed);
        clear
    }

    /// True if the connection has more to send.
    fn drive_one(&mut self, handle: ConnectionHandle, sockets: &mut Sockets, now: Instant) -> bool {
        loop {
            let Some(connection) = self.all.get_mut(&handle) else { return false };
            match connection.events() {
                Some(Turn::Connected) => self.connected(handle, now),
                Some(Turn::Lost(code)) => self.lost(handle, code, now),
                None => break,
            }
        }
        if let Some(Phase::Closing) = self.all.get(&handle).map(|connection| &connection.phase) {
            // The node has closed it since.
            self.known.retain(|_, known| *known != handle);
        }
        let more = loop {
            // What the endpoint answers may have to be sent, and what was sent may concern the endpoint.
            self.forward(handle);
            let Some(connection) = self.all.get_mut(&handle) else { return false };
            let more = connection.transmit(now, sockets, &mut self.packets);
            if !self.forward(handle) {
                break more;
            }
        };
        let Some(connection) = self.all.get_mut(&handle) else { return false };
        let deadline = connection.deadline();
        self.deadlines.set(handle, deadline);
        more
    }

    /// Tells the endpoint what a connection needs of it, and brings the answers; true if there were any. Forgets a connection
    /// that is at its end.
    fn forward(&mut self, handle: ConnectionHandle) -> bool {
        let Some(connection) = self.all.get_mut(&handle) else { return false };
        let (mut drained, mut answered) = (false, false);
        while let Some(event) = connection.quic.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(handle, event) {
                connection.quic.handle_event(answer);
                answered = true;
            }
        }
        if drained {
            self.all.remove(&handle);
            self.deadlines.set(handle, None);
        }
        answered && !drained
    }

    /// The peer has proven its key: the node hears of the connection.
    fn connected(&mut self, handle: ConnectionHandle, now: Instant) {
        let Some(connection) = self.all.get_mut(&handle) else { return };
        if !matches!(connection.phase, Phase::Dialling | Phase::Accepting(_)) {
            // Given up in the turn in which its handshake was done.
            return;
        }
        let Some((peer, addr, link)) = connection.link() else {
            tracing::debug!("TLS did not agree on what it must");
            connection.close(CloseCode::Normal, now);
            return self.dials.failed(handle, now);
        };
        if let Phase::Dialling = connection.phase {
            let Some(others) = self.dials.reached(&peer, handle) else {
                return connection.close(CloseCode::Normal, now);
            };
            self.give_up(others, now);
        }
        let Some(connection) = self.all.get_mut(&handle) else { return };
        let role = link.role;
        let conn = self.port.connected(peer, Some(addr), link, &self.outgoing);
        self.known.insert(conn.id(), handle);
        connection.phase = Phase::Up(Box::new(Session::new(conn, role)));
        if let Some(wait) = self.profile.first_word() {
            connection.hold(now + wait);
        }
    }

    fn lost(&mut self, handle: ConnectionHandle, code: Option<u32>, now: Instant) {
        let Some(connection) = self.all.get_mut(&handle) else { return };
        match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::Dialling => self.dials.failed(handle, now),
            Phase::Up(session) => {
                if let Some(code) = code {
                    session.conn().closed(code);
                }
            }
            Phase::Accepting(_) | Phase::Closing => {}
        }
    }

    /// Ends all dials, and all connections if need be.
    pub(crate) fn close(&mut self, now: Instant) {
        for peer in self.dials.clear() {
            self.port.dial_failed(peer);
        }
        let all = self.all.keys().copied().collect();
        self.give_up(all, now);
    }

    /// Drops what has not ended by itself.
    pub(crate) fn forget(&mut self) {
        self.all.clear();
    }

    /// Whether the node still has connections.
    pub(crate) fn is_serving(&self) -> bool {
        self.all.values().any(|connection| matches!(connection.phase, Phase::Up(_)))
    }

    /// Whether QUIC has forgotten all connections.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The next time at which something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.deadlines.first(), self.dials.deadline()].into_iter().flatten().min()
    }

    /// Connections that callers count against: our own attempts to reach peers, which are bounded elsewhere, keep nobody out.
    fn guests(&self) -> usize {
        let counts = |connection: &&Connection| match connection.phase {
            Phase::Dialling => false,
            Phase::Accepting(_) | Phase::Up(_) => true,
            Phase::Closing => connection.quic.side().is_server(),
        };
        self.all.values().filter(counts).count()
    }

    /// As if something had happened to every connection.
    #[cfg(test)]
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.all.keys());
    }

    fn handshakes(&self) -> usize {
        self.all.values().filter(|connection| matches!(connection.phase, Phase::Accepting(_))).count()
    }
}

impl Deadlines {
    fn set(&mut self, handle: ConnectionHandle, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.of.insert(handle, at),
            None => self.of.remove(&handle),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.queue.remove(&(old, handle));
        }
        if let Some(at) = at {
            self.queue.insert((at, handle));
        }
    }

    fn pop(&mut self, now: Instant) -> Option<ConnectionHandle> {
        let (at, handle) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(handle, None);
        Some(handle)
    }

    fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}
