//! The life of a connection (wire.md 1, 2, 9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use peat_proto::{ConnId, PeerId, Role, StreamId, Time};

use super::auth::{Handshake, Outcome, Progress};
use super::config::Family;
use super::io::Output;
use super::library::Library;
use super::peer::{LegacyPeer, Task};
use super::streams::{Inbound, Own};

/// When the host runtime pushes to a new connection and begins to read from it, when its markers follow, and when it
/// pushes again (9).
const FIRST_PUSH: Duration = Duration::from_millis(50);
const MARKERS: Duration = Duration::from_millis(100);
const SECOND_PUSH: Duration = Duration::from_millis(500);

/// Between two looks at who is not connected and should be. The specification has no number; its fallback poll has this one.
const REDIAL: Duration = Duration::from_secs(5);

/// Close codes (1).
const NORMAL: u32 = 0;
const NOT_AUTHENTICATED: u32 = 1;

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) peer: PeerId,
    pub(super) role: Role,
    /// `None` once it has proven itself.
    proving: Option<Handshake>,
    /// When the present step of the handshake is overdue.
    deadline: Option<Time>,
    /// Whether streams of the other side are read.
    pub(super) accepting: bool,
    pub(super) inbound: BTreeMap<StreamId, Inbound>,
    pub(super) own: BTreeMap<StreamId, Own>,
    /// Streams that were opened, by kind: bidirectional, unidirectional.
    pub(super) opened: [u64; 2],
    /// Those of them that are not over.
    pub(super) open: [BTreeSet<StreamId>; 2],
    /// What waits for a stream to be over.
    pub(super) waiting: [VecDeque<Output>; 2],
    /// The long-lived stream of rc.25.
    pub(super) writer: Option<StreamId>,
}

impl Conn {
    /// Whether something waits for leave to open a stream.
    pub(super) fn is_blocked(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    fn initiator(&self, own: PeerId) -> PeerId {
        match self.role {
            Role::Dialled => own,
            Role::Accepted => self.peer,
        }
    }
}

impl<L: Library> LegacyPeer<L> {
    pub(super) fn connected(&mut self, id: ConnId, peer: PeerId, role: Role) {
        let conn = Conn {
            peer,
            role,
            proving: None,
            deadline: None,
            accepting: false,
            inbound: BTreeMap::new(),
            own: BTreeMap::new(),
            opened: [0; 2],
            open: [BTreeSet::new(), BTreeSet::new()],
            waiting: [VecDeque::new(), VecDeque::new()],
            writer: None,
        };
        if self.config.family == Family::HostRuntime && self.loses_to_another(&conn) {
            let code = if role == Role::Dialled { 101 } else { 103 };
            self.outputs.push_back(Output::Close { conn: id, code });
            return;
        }
        self.conns.insert(id, conn);
        let Some((dialect, formation)) = self.config.auth.clone() else { return self.ready(id) };
        let mut nonce = [0; 32];
        for chunk in nonce.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.rng.draw().to_be_bytes());
        }
        let handshake = Handshake::new(dialect, role, formation, nonce, self.config.warts.mute_connector);
        let opening = handshake.opening();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.proving = Some(handshake);
        }
        self.await_step(id);
        if let Some(opening) = opening {
            self.open(id, false, opening, false, false, Some(Own::Handshake));
        }
    }

    pub(super) fn disconnected(&mut self, id: ConnId) {
        if self.conns.contains_key(&id) {
            self.drop_connection(id);
        }
    }

    /// Decides between two connections with the same peer: the one that the lower id initiated survives, and of two with
    /// the same initiator the newer. (The specification names two codes for each path and not which of them is whose:
    /// here the first of each pair ends the older connection, the second the newer.)
    fn loses_to_another(&mut self, new: &Conn) -> bool {
        let same = self.conns.iter().find(|(_, conn)| conn.peer == new.peer);
        let Some((old, initiator)) = same.map(|(id, conn)| (*id, conn.initiator(self.id))) else { return false };
        if initiator < new.initiator(self.id) {
            return true;
        }
        let code = if new.role == Role::Dialled { 100 } else { 102 };
        self.close(old, code);
        false
    }

    /// Bytes on the stream of the handshake.
    pub(super) fn prove(&mut self, id: ConnId, stream: StreamId, bytes: &[u8], fin: bool) {
        let Some(handshake) = self.conns.get_mut(&id).and_then(|conn| conn.proving.as_mut()) else { return };
        let Progress { write, outcome } = handshake.receive(bytes, fin);
        let over = outcome.is_some();
        if over || !write.is_empty() {
            self.write(id, stream, write, over);
        }
        if over && !fin {
            self.outputs.push_back(Output::Stop { conn: id, stream });
        }
        match outcome {
            None => self.await_step(id),
            Some(Outcome::Refused) => self.refuse(id),
            Some(Outcome::Accepted) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    (conn.proving, conn.deadline) = (None, None);
                }
                self.ready(id);
            }
        }
    }

    /// Whether a handshake is under way.
    pub(super) fn is_proving(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.proving.is_some())
    }

    fn await_step(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let limit = conn.proving.as_ref().and_then(Handshake::limit);
        conn.deadline = limit.map(|limit| self.now.mono + limit);
        if let Some(limit) = limit {
            self.after(limit, Task::Overdue(id));
        }
    }

    pub(super) fn overdue(&mut self, id: ConnId) {
        let deadline = self.conns.get(&id).and_then(|conn| conn.deadline);
        if deadline.is_some_and(|deadline| deadline <= self.now.mono) {
            self.refuse(id);
        }
    }

    fn refuse(&mut self, id: ConnId) {
        self.stats.refused += 1;
        self.close(id, NOT_AUTHENTICATED);
    }

    /// The connection may be used.
    fn ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (peer, role) = (conn.peer, conn.role);
        self.peers.insert(peer, id);
        match self.config.family {
            Family::NodeBinary => {
                if role == Role::Accepted || !self.config.warts.deaf_dialler {
                    self.accept(id);
                }
            }
            Family::HostRuntime => {
                self.after(FIRST_PUSH, Task::Accept(id));
                if role == Role::Dialled || !self.config.warts.silent_acceptor {
                    self.after(FIRST_PUSH, Task::Push(id));
                    self.after(MARKERS, Task::Markers(id));
                    self.after(SECOND_PUSH, Task::Push(id));
                }
                if let Some(age) = self.config.recycle.filter(|_| role == Role::Dialled) {
                    self.after(age, Task::Recycle(id));
                }
            }
        }
    }

    /// Begins to read the streams of the other side, those that have waited first.
    pub(super) fn accept(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.accepting = true;
        for stream in conn.inbound.keys().copied().collect::<Vec<_>>() {
            self.read(id, stream);
        }
    }

    pub(super) fn recycle(&mut self, id: ConnId) {
        if let Some(peer) = self.conns.get(&id).map(|conn| conn.peer) {
            self.close(id, NORMAL);
            if !self.config.dials.contains(&peer) {
                self.outputs.push_back(Output::Dial { peer });
            }
        }
    }

    pub(super) fn dial(&mut self, peer: PeerId) {
        if self.conns.values().all(|conn| conn.peer != peer) {
            self.outputs.push_back(Output::Dial { peer });
        }
        self.after(REDIAL, Task::Dial(peer));
    }

    /// One heartbeat for everybody (8).
    pub(super) fn beat(&mut self) {
        for (peer, conn) in self.peers.clone() {
            self.hearts.insert(peer);
            self.stats.heartbeats.0 += 1;
            let beat = super::frame::heartbeat(self.now.unix_ms);
            self.open(conn, true, beat, true, false, None);
        }
    }

    pub(super) fn close(&mut self, id: ConnId, code: u32) {
        self.drop_connection(id);
        self.outputs.push_back(Output::Close { conn: id, code });
    }

    /// A connection is over, for whatever reason. STREAM-8: what is cleaned up is the peer's, not the connection's.
    fn drop_connection(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let peer = conn.peer;
        if self.config.warts.cleans_up_by_peer && conn.accepting || self.peers.get(&peer) == Some(&id) {
            self.peers.remove(&peer);
            self.states.retain(|(_, of), _| *of != peer);
        }
        self.unsaved.retain(|_, unsaved| unsaved.conn != id);
        self.lose_channel(id);
    }

    /// Opens a stream, now or once another one is over, and says what becomes of the bytes that come back on it.
    pub(super) fn open(
        &mut self,
        id: ConnId,
        uni: bool,
        bytes: Vec<u8>,
        fin: bool,
        stop: bool,
        own: Option<Own>,
    ) -> Option<StreamId> {
        let limit = self.config.streams.unwrap_or(u64::MAX);
        let conn = self.conns.get_mut(&id)?;
        let kind = usize::from(uni);
        let stream = StreamId::new(conn.opened[kind], conn.role, !uni);
        conn.opened[kind] += 1;
        if let Some(own) = own {
            conn.own.insert(stream, own);
        }
        let output = Output::Open { conn: id, stream, bytes: Bytes::from(bytes), fin, stop };
        if conn.open[kind].len() as u64 >= limit || !conn.waiting[kind].is_empty() {
            conn.waiting[kind].push_back(output);
        } else {
            if limit < u64::MAX {
                conn.open[kind].insert(stream);
            }
            self.outputs.push_back(output);
        }
        Some(stream)
    }

    /// Writes on a stream.
    pub(super) fn write(&mut self, id: ConnId, stream: StreamId, bytes: Vec<u8>, fin: bool) {
        let output = Output::Write { conn: id, stream, bytes: Bytes::from(bytes), fin };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let waiting = &mut conn.waiting[usize::from(!stream.is_bidirectional())];
        let waits = |output: &Output| matches!(output, Output::Open { stream: opened, .. } if *opened == stream);
        if waiting.iter().any(waits) {
            waiting.push_back(output);
        } else {
            self.outputs.push_back(output);
        }
    }

    /// A stream is over: what waited for it goes on.
    pub(super) fn released(&mut self, id: ConnId, stream: StreamId) {
        let limit = self.config.streams.unwrap_or(u64::MAX);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let kind = usize::from(!stream.is_bidirectional());
        conn.open[kind].remove(&stream);
        while let Some(output) = conn.waiting[kind].front() {
            if let Output::Open { stream, .. } = output {
                if conn.open[kind].len() as u64 >= limit {
                    break;
                }
                conn.open[kind].insert(*stream);
            }
            self.outputs.extend(conn.waiting[kind].pop_front());
        }
    }
}
