//! Connections coming and going, and who is let in.

use std::time::Duration;

use bytes::Bytes;

use super::Node;
use crate::id::{ConnId, Invitation, PeerId};
use crate::io::{CloseCode, Event, Link, Output, Role, Wire};
use crate::peer::connection::{Conn, Phase};
use crate::peer::window::Window;
use crate::stats::Credential;
use crate::wire::v1::{Handshake, HandshakeError, Hello, Secrets};

impl Node {
    pub(super) fn connected(&mut self, id: ConnId, peer: PeerId, link: Link) {
        if link.wire == Wire::V0 {
            return self.legacy_connected(id, peer, link);
        }
        if self.conns.contains_key(&id) {
            return;
        }
        if self.conns.len() + self.legacy.len() >= self.config.max_connections {
            let stranger = self.conns.values().find(|conn| !conn.is_serving()).map(|conn| conn.id);
            match stranger {
                Some(stranger) => self.close_conn(stranger, CloseCode::Exhausted),
                None => {
                    self.wanted.failed(&peer, self.now.mono, &mut self.rng);
                    let code = CloseCode::Exhausted;
                    self.out.disconnects.push_back(Output::Disconnect { conn: id, code });
                    return;
                }
            }
        }
        self.wanted.connected(&peer);
        let deadline = self.now.mono + self.config.hello_deadline;
        let again = (!link.reliable).then(|| self.now.mono + self.config.retry_min);
        let window = Window::new(link.rtt, self.config.window_min, self.config.window_max);
        let hello = Hello {
            least: Hello::VERSION,
            newest: Hello::VERSION,
            nonce: self.nonce(id),
            boot: self.boot,
            abilities: Hello::PACKED,
            largest: self.config.max_snapshot as u64,
        };
        let handshake = Handshake::new(&link, self.local, peer, self.secrets(&peer, link.role), hello);
        let mut conn = Conn::new(id, peer, link, Phase::Greeting { deadline, again }, window, handshake);
        conn.kin = self.kin(&peer);
        conn.control.push_back(conn.handshake.hello());
        self.conns.insert(id, conn);
    }

    pub(super) fn disconnected(&mut self, id: ConnId, code: Option<u32>) {
        let Some(conn) = self.drop_conn(id) else { return };
        if let Some(code) =
            code.filter(|code| *code != CloseCode::Normal.code() && *code != CloseCode::Duplicate.code())
        {
            self.event(Event::Closed { peer: conn.peer, code, by_peer: true });
        }
    }

    /// Closes a connection for a reason that the other side is told.
    pub(super) fn close_conn(&mut self, id: ConnId, code: CloseCode) {
        let Some(conn) = self.drop_conn(id) else { return };
        self.out.disconnects.push_back(Output::Disconnect { conn: id, code });
        if !matches!(code, CloseCode::Normal | CloseCode::Duplicate) {
            self.stats.closed += 1;
            self.event(Event::Closed { peer: conn.peer, code: code.code(), by_peer: false });
        }
    }

    pub(super) fn want(&mut self, peer: PeerId, invitation: Option<Invitation>) {
        if peer == self.local {
            return;
        }
        let connected = self.has_conn(&peer);
        self.wanted.want(peer, invitation, connected, self.now.mono);
    }

    pub(super) fn forget(&mut self, peer: PeerId) {
        self.wanted.unwant(&peer);
        self.admitted.remove(&peer);
        self.inward.remove(&peer);
        self.assemblies.forget(peer, None);
        self.interrupted.forget(peer);
        self.docs.forget_peer(peer);
        for id in self.conns_of(&peer) {
            self.close_conn(id, CloseCode::NotAdmitted);
        }
        for id in self.legacy.of(&peer) {
            self.legacy_close(id, CloseCode::NotAdmitted);
        }
    }

    /// A greeting arrived.
    pub(super) fn greeted(&mut self, id: ConnId, body: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Err(error) = conn.handshake.heard_hello(body) {
            return self.handshake_failed(id, &error);
        }
        let Some(boot) = conn.handshake.peer().map(|hello| hello.boot) else { return };
        let first = conn.boot.replace(boot).is_none();
        let peer = conn.peer;
        if first && !self.resolve_duplicates(id, peer) {
            return;
        }
        // Said again: our proof may have been lost.
        self.prove(id);
    }

    /// A proof arrived.
    pub(super) fn proven(&mut self, id: ConnId, body: Bytes) {
        let Some(conn) = self.conns.get(&id) else { return };
        let proven = match conn.handshake.heard_proof(body) {
            Ok(proven) => proven,
            Err(error) => return self.handshake_failed(id, &error),
        };
        if !matches!(conn.phase, Phase::Greeting { .. }) {
            return;
        }
        let peer = conn.peer;
        let admission = &self.config.admission;
        let named = admission.allow.contains(&peer) || self.admitted.contains(&peer);
        let credential = match () {
            () if proven.formation => Credential::Formation,
            () if proven.invitation.is_some() => Credential::Invitation,
            () if named || self.wanted.contains(&peer) => Credential::Id,
            () => Credential::Open,
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.credential = Some(credential);
        }
        if admission.open || named {
            return self.serve(id);
        }
        let vouched = proven.formation || self.wanted.contains(&peer);
        if !vouched && proven.invitation.is_none() {
            return self.close_conn(id, CloseCode::NotAdmitted);
        }
        if self.admissions() >= self.config.max_admitted {
            // Who proves membership, or is dialled by its id, can do so every time.
            self.stats.unremembered += 1;
            return if vouched { self.serve(id) } else { self.close_conn(id, CloseCode::NotAdmitted) };
        }
        if let Some(invitation) = proven.invitation.filter(|_| !vouched)
            && !self.use_invitation(invitation, peer)
        {
            self.stats.uninvited += 1;
            return self.close_conn(id, CloseCode::NotAdmitted);
        }
        // Written down before the first document is served.
        let deadline = self.now.mono + self.config.hello_deadline;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.phase = Phase::Admitting { deadline };
        }
        self.docs.admit_peer(peer);
    }

    /// Peers that are remembered, or about to be.
    fn admissions(&self) -> usize {
        let admitting = |conn: &&Conn| matches!(conn.phase, Phase::Admitting { .. });
        self.admitted.len() + self.conns.values().filter(admitting).count()
    }

    /// Whether one of our invitations lets this peer in: it has before, or there is room for one more.
    fn use_invitation(&mut self, invitation: usize, peer: PeerId) -> bool {
        let guests = self.guests.entry(invitation).or_default();
        if guests.len() >= self.config.max_guests && !guests.contains(&peer) {
            return false;
        }
        guests.insert(peer);
        true
    }

    pub(super) fn admission_is_durable(&mut self, peer: PeerId) {
        self.admitted.insert(peer);
        for id in self.conns_of(&peer) {
            if self.conns.get(&id).is_some_and(|conn| matches!(conn.phase, Phase::Admitting { .. })) {
                self.serve(id);
            }
        }
    }

    /// Says the greeting again, on a link that may have lost it.
    pub(super) fn greet_again(&mut self, id: ConnId, wait: Duration) {
        let next = self.now.mono + wait;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Phase::Greeting { again, .. } = &mut conn.phase {
            *again = Some(next);
        }
        self.say_hello(id);
        self.prove(id);
    }

    /// Puts the greeting in front of everything else, unless something waits there already.
    pub(super) fn say_hello(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.control.is_empty()
        {
            conn.control.push_back(conn.handshake.hello());
            self.stats.retries += 1;
        }
    }

    /// Proves who we are, once we know to whom.
    fn prove(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && let Some(proof) = conn.handshake.proof()
            && !conn.control.contains(&proof)
        {
            conn.control.push_back(proof);
        }
    }

    fn handshake_failed(&mut self, id: ConnId, error: &HandshakeError) {
        match self.conns.get(&id) {
            // A datagram may have been overtaken, or not be what it was.
            Some(conn) if !conn.link.reliable && !matches!(error, HandshakeError::Version { .. }) => {
                self.stats.malformed += 1;
            }
            _ => self.close_conn(id, error.code()),
        }
    }

    fn serve(&mut self, id: ConnId) {
        let model = self.conns.get(&id).and_then(|conn| self.inward.get(&conn.peer).copied());
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Serving;
        conn.survey.recall(model);
        let peer = conn.peer;
        self.wanted.served(&peer);
        self.event(Event::Up { conn: id, peer });
        self.legacy_give_way(&peer);
        self.say_terms(id);
    }

    /// Keeps one of several connections to the same peer; false if that is not this one.
    ///
    /// Of two that different sides dialled, the lower id's dial survives; of two that the same side dialled, the newer.
    /// Both sides see the same pair and so keep the same one. A connection to an earlier boot of the peer is dead.
    fn resolve_duplicates(&mut self, id: ConnId, peer: PeerId) -> bool {
        let Some((role, boot)) = self.conns.get(&id).map(|conn| (conn.link.role, conn.boot)) else { return false };
        let lower_dials = if self.local < peer { Role::Dialled } else { Role::Accepted };
        let greeted =
            |other: &ConnId| self.conns.get(other).and_then(|conn| conn.boot.map(|boot| (conn.link.role, boot)));
        let others: Vec<_> = self.conns_of(&peer).into_iter().filter(|other| *other != id).collect();
        for other in others {
            let Some((other_role, other_boot)) = greeted(&other) else { continue };
            let survives = boot != Some(other_boot) || role == other_role || role == lower_dials;
            self.close_conn(if survives { other } else { id }, CloseCode::Duplicate);
            if !survives {
                return false;
            }
            return self.resolve_duplicates(id, peer);
        }
        true
    }

    fn conns_of(&self, peer: &PeerId) -> Vec<ConnId> {
        self.conns.values().filter(|conn| conn.peer == *peer).map(|conn| conn.id).collect()
    }

    /// What we may prove to this peer, or have proven by it.
    fn secrets(&self, peer: &PeerId, role: Role) -> Secrets {
        let admission = &self.config.admission;
        match role {
            Role::Dialled => Secrets::new(admission.formation.as_ref(), &self.wanted.invitation(peer)),
            Role::Accepted => Secrets::new(admission.formation.as_ref(), &admission.invitations),
        }
    }

    /// Bytes that were never used before, in this boot or another.
    fn nonce(&mut self, id: ConnId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 nonce v1");
        hasher.update(&self.secret).update(&self.boot.to_be_bytes()).update(&id.0.to_be_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Forgets a connection and everything that hangs on it.
    fn drop_conn(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.conns.remove(&id)?;
        self.remember_inward(&conn);
        for (doc, _) in conn.transfers.values() {
            self.interrupted.note(conn.peer, doc.clone());
        }
        self.receiving = self.receiving.saturating_sub(conn.receiving());
        self.docs.disregard(id);
        if !self.has_conn(&conn.peer) {
            self.wanted.lost(&conn.peer, self.now.mono, &mut self.rng);
        }
        if conn.is_serving() {
            self.event(Event::Down { conn: id, peer: conn.peer });
        }
        Some(conn)
    }
}
