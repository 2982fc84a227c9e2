//! Connections with legacy peers: coming, proving, going. What differs from connections between Peat nodes is in this
//! folder; everything else is told of both kinds alike.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Node;
use crate::config::{Auth, Config};
use crate::id::{Boot, ConnId, DocId, PeerId, StreamId};
use crate::io::{CloseCode, Event, Input, Lane, Link, Output, Role};
use crate::peer::legacy::{Conn, Phase};
use crate::peer::window::Window;
use crate::stats::{Credential, ModeTraffic};
use crate::wire::v0::{AuthError, Caps, Handshake, Step};

mod check;
mod documents;
mod receive;
mod send;
mod tick;

/// All connections with legacy peers.
#[derive(Debug)]
pub(super) struct LegacyPeers {
    pub(super) conns: BTreeMap<ConnId, Conn>,
    caps: Caps,
    /// Makes nonces that nobody can foresee.
    secret: [u8; 32],
    /// Of this boot; the lower half of the ids of batches, whose upper half is the boot.
    next_batch: u32,
    boot: u64,
    /// The connection that sent last: the next one is served first.
    turn: ConnId,
}

impl LegacyPeers {
    pub(super) fn new(config: &Config, boot: &Boot, seed: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 legacy nonces v1");
        hasher.update(seed).update(&boot.store).update(&boot.number.to_be_bytes());
        let secret = *hasher.finalize().as_bytes();
        let caps = Caps::v0(config);
        Self { conns: BTreeMap::new(), caps, secret, next_batch: 0, boot: boot.number, turn: ConnId(0) }
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.conns.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether any connection is with this peer.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.conns.values().any(|conn| conn.peer == *peer)
    }

    pub(super) fn of(&self, peer: &PeerId) -> Vec<ConnId> {
        self.conns.values().filter(|conn| conn.peer == *peer).map(|conn| conn.id).collect()
    }

    fn nonce(&self, id: ConnId) -> [u8; 32] {
        *blake3::keyed_hash(&self.secret, &id.0.to_be_bytes()).as_bytes()
    }
}

impl Node {
    /// Takes what concerns a connection with a legacy peer; gives back everything else.
    pub(super) fn legacy_handle(&mut self, input: Input) -> Option<Input> {
        match input {
            Input::Disconnected { conn, code } if self.legacy.contains(conn) => self.legacy_disconnected(conn, code),
            Input::Received { conn, stream, bytes, fin } if self.legacy.contains(conn) => {
                self.legacy_received(conn, stream, bytes, fin);
            }
            Input::Reset { conn, stream } if self.legacy.contains(conn) => self.legacy_reset(conn, stream),
            Input::Stopped { conn, lane } if self.legacy.contains(conn) => self.legacy_stopped(conn, lane),
            Input::Sent { conn, bytes } if self.legacy.contains(conn) => self.legacy_sent(conn, bytes),
            other => return Some(other),
        }
        None
    }

    pub(super) fn legacy_connected(&mut self, id: ConnId, peer: PeerId, link: Link) {
        if self.legacy.contains(id) || self.conns.contains_key(&id) {
            return;
        }
        self.wanted.connected(&peer);
        let now = self.now.mono;
        let Some(legacy) = self.config.legacy.clone() else {
            // Not offered, so not agreed on.
            return self.legacy_refuse(id, &peer, CloseCode::Version);
        };
        if self.conns.len() + self.legacy.len() >= self.config.max_connections {
            let stranger = self.legacy.conns.values().find(|conn| !conn.is_serving()).map(|conn| conn.id);
            let Some(stranger) = stranger else { return self.legacy_refuse(id, &peer, CloseCode::Exhausted) };
            self.legacy_close(stranger, CloseCode::Exhausted);
        }
        let window = Window::new(link.rtt, self.config.window_min, self.config.window_max);
        let (phase, opening) = match &legacy.auth {
            Auth::Admission if !self.is_admitted(&peer) => {
                return self.legacy_refuse(id, &peer, CloseCode::NotAdmitted);
            }
            Auth::Admission => (None, None),
            Auth::Proof { dialect, formation } => match link.role {
                Role::Dialled => {
                    let (handshake, opening) = Handshake::dialled(*dialect, formation, now);
                    (Some(handshake), Some(opening))
                }
                Role::Accepted => (Some(Handshake::accepted(*dialect, formation, self.legacy.nonce(id), now)), None),
            },
        };
        let serves = phase.is_none();
        let phase = phase.map_or(Phase::Serving, |handshake| Phase::Proving(Box::new(handshake)));
        let credential = match &legacy.auth {
            Auth::Proof { dialect, .. } => Credential::Dialect(*dialect),
            Auth::Admission => Credential::Off,
        };
        let mut conn = Conn::new(id, peer, link, (phase, credential), window, &legacy, now);
        conn.kin = self.kin(&peer);
        conn.control.extend(opening.map(|opening| (Lane::Dialogue, opening)));
        self.legacy.conns.insert(id, conn);
        if serves {
            self.legacy_serve(id);
        }
    }

    pub(super) fn legacy_disconnected(&mut self, id: ConnId, code: Option<u32>) {
        let Some(conn) = self.legacy_drop(id) else { return };
        if let Some(code) = code.filter(|code| !CloseCode::is_goodbye(*code)) {
            self.event(Event::Closed { peer: conn.peer, code, by_peer: true });
        }
    }

    /// Closes a connection for a reason that the other side is told.
    pub(super) fn legacy_close(&mut self, id: ConnId, code: CloseCode) {
        let Some(conn) = self.legacy_drop(id) else { return };
        self.out.disconnects.push_back(Output::Disconnect { conn: id, code });
        if !CloseCode::is_goodbye(code.code()) {
            self.stats.closed += 1;
            self.event(Event::Closed { peer: conn.peer, code: code.code(), by_peer: false });
        }
    }

    /// Refuses a connection before anything is known of it.
    fn legacy_refuse(&mut self, id: ConnId, peer: &PeerId, code: CloseCode) {
        self.stats.closed += 1;
        if !self.has_conn(peer) {
            self.wanted.lost(peer, self.now.mono, &mut self.rng);
        }
        self.out.disconnects.push_back(Output::Disconnect { conn: id, code });
    }

    /// Forgets a connection and everything that hangs on it.
    fn legacy_drop(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.legacy.conns.remove(&id)?;
        let counted: usize = conn.inlets.values().map(|inlet| inlet.counted).sum();
        self.receiving = self.receiving.saturating_sub(counted);
        self.docs.disregard(id);
        if !self.has_conn(&conn.peer) {
            self.wanted.lost(&conn.peer, self.now.mono, &mut self.rng);
        }
        if conn.is_serving() {
            self.event(Event::Down { conn: id, peer: conn.peer });
        }
        Some(conn)
    }

    /// Whether a stranger would be let in by its id alone.
    fn is_admitted(&self, peer: &PeerId) -> bool {
        let admission = &self.config.admission;
        admission.open || admission.allow.contains(peer) || self.admitted.contains(peer) || self.wanted.contains(peer)
    }

    /// Whether there is any connection with this peer.
    pub(super) fn has_conn(&self, peer: &PeerId) -> bool {
        self.legacy.has(peer) || self.conns.values().any(|conn| conn.peer == *peer)
    }

    /// Something happened to the handshake on this stream.
    fn legacy_prove(&mut self, id: ConnId, stream: StreamId, step: impl FnOnce(&mut Handshake) -> Step) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let Phase::Proving(handshake) = &mut conn.phase else { return };
        let Step { send, fin, verdict } = step(handshake);
        match verdict {
            Some(Err(error)) => return self.legacy_stranger(id, error),
            Some(Ok(())) | None if fin || !send.is_empty() => self.legacy_reply(id, stream, send, fin),
            Some(Ok(())) | None => {}
        }
        if verdict.is_some() {
            self.legacy_serve(id);
        }
    }

    /// The other side proved nothing, or does not believe us.
    fn legacy_stranger(&mut self, id: ConnId, error: AuthError) {
        tracing::debug!(?id, %error, "a legacy peer is not let in");
        self.stats.legacy.strangers += 1;
        self.legacy_close(id, CloseCode::NotAdmitted);
    }

    fn legacy_serve(&mut self, id: ConnId) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        conn.phase = Phase::Serving;
        let peer = conn.peer;
        if !self.legacy_resolve(id, peer) {
            return;
        }
        if let Some(conn) = self.legacy.conns.get_mut(&id) {
            conn.begin_push();
        }
        self.wanted.served(&peer);
        self.event(Event::Up { conn: id, peer });
        self.legacy_resume(id);
    }

    /// Keeps one of several connections to the same peer; false if that is not this one, which serves as of now.
    ///
    /// A connection between Peat nodes is better than this. Of two that different sides dialled, the lower id's dial
    /// survives; of two that the same side dialled, the newer.
    fn legacy_resolve(&mut self, id: ConnId, peer: PeerId) -> bool {
        let Some(role) = self.legacy.conns.get(&id).map(|conn| conn.link.role) else { return false };
        let lower_dials = if self.local < peer { Role::Dialled } else { Role::Accepted };
        let (new, old) = match role {
            Role::Dialled => (CloseCode::Duplicate, CloseCode::Replaced),
            Role::Accepted => (CloseCode::DuplicateInbound, CloseCode::ReplacedInbound),
        };
        let better = self.conns.values().any(|conn| conn.peer == peer && conn.is_serving());
        let others: Vec<_> = self.legacy.of(&peer).into_iter().filter(|other| *other != id).collect();
        for other in others {
            let Some(conn) = self.legacy.conns.get(&other).filter(|conn| conn.is_serving()) else { continue };
            if !better && conn.link.role != role && role != lower_dials {
                self.legacy_close_unserved(id, new);
                return false;
            }
            self.legacy_close(other, old);
        }
        if better {
            self.legacy_close_unserved(id, new);
        }
        !better
    }

    /// Closes a connection that was never said to be up.
    fn legacy_close_unserved(&mut self, id: ConnId, code: CloseCode) {
        if let Some(conn) = self.legacy.conns.remove(&id) {
            self.receiving = self.receiving.saturating_sub(conn.receiving());
            self.out.disconnects.push_back(Output::Disconnect { conn: id, code });
        }
    }

    /// Ends the connections of a peer with which there is a better one.
    pub(super) fn legacy_give_way(&mut self, peer: &PeerId) {
        for id in self.legacy.of(peer) {
            self.legacy_close(id, CloseCode::Replaced);
        }
    }

    /// What is counted of the mode of a document's collection.
    fn legacy_mode(&mut self, doc: &DocId) -> &mut ModeTraffic {
        let snapshots = self.docs.policy().of(doc).mode.is_snapshot();
        self.stats.legacy.of_mode(snapshots)
    }

    /// Writes on the sending half of a bidirectional stream.
    fn legacy_reply(&mut self, id: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if !bytes.is_empty() {
            conn.window.send(self.now.mono, bytes.len(), true);
            for traffic in [&mut conn.traffic, &mut self.stats.traffic] {
                traffic.frames_sent += 1;
                traffic.bytes_sent += bytes.len() as u64;
            }
            self.stats.legacy.frames_sent += 1;
        }
        self.out.replies.push_back(Output::Reply { conn: id, stream, bytes, fin });
    }
}
