//! Connections coming and going, and who is let in.

use std::time::Duration;

use super::Node;
use crate::id::{ConnId, Invitation, PeerId};
use crate::io::{CloseCode, Event, Link, Output, Role, Wire};
use crate::peer::connection::{Conn, Phase};
use crate::peer::window::Window;
use crate::wire::Hello;

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
        let mut conn = Conn::new(id, peer, link, Phase::Greeting { deadline, again }, window);
        conn.kin = self.kin(&peer);
        conn.control.push_back(self.hello(&conn).frame());
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
        self.docs.forget_peer(peer);
        for id in self.conns_of(&peer) {
            self.close_conn(id, CloseCode::NotAdmitted);
        }
        for id in self.legacy.of(&peer) {
            self.legacy_close(id, CloseCode::NotAdmitted);
        }
    }

    /// A greeting arrived.
    pub(super) fn greeted(&mut self, id: ConnId, hello: &Hello) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.boot.replace(hello.boot).is_some() {
            // Said again: our answer may have been lost.
            if conn.is_serving() && !conn.link.reliable {
                conn.survey.due = Some(self.now.mono);
                // Who has said its digest has heard our greeting.
                if conn.survey.got.is_none() {
                    self.say_hello(id);
                }
            }
            return;
        }
        let peer = conn.peer;
        if !self.resolve_duplicates(id, peer) {
            return;
        }
        if self.config.admission.open || self.config.admission.allow.contains(&peer) || self.admitted.contains(&peer) {
            return self.serve(id);
        }
        let invited = hello.invitation.is_some_and(|shown| self.config.admission.invitations.contains(&shown));
        if !invited && !self.wanted.contains(&peer) {
            return self.close_conn(id, CloseCode::NotAdmitted);
        }
        // Written down before the first document is served.
        let deadline = self.now.mono + self.config.hello_deadline;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.phase = Phase::Admitting { deadline };
        }
        self.docs.admit_peer(peer);
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
        if let Some(Phase::Greeting { again, .. }) = self.conns.get_mut(&id).map(|conn| &mut conn.phase) {
            *again = Some(next);
        }
        self.say_hello(id);
    }

    /// Puts the greeting in front of everything else, unless it waits there already.
    pub(super) fn say_hello(&mut self, id: ConnId) {
        let Some(frame) = self.conns.get(&id).map(|conn| self.hello(conn).frame()) else { return };
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.control.is_empty()
        {
            conn.control.push_back(frame);
            self.stats.retries += 1;
        }
    }

    fn serve(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Serving;
        conn.survey.due = Some(self.now.mono);
        let peer = conn.peer;
        self.wanted.served(&peer);
        self.event(Event::Up { conn: id, peer });
        self.legacy_give_way(&peer);
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

    fn hello(&self, conn: &Conn) -> Hello {
        let invitation = match conn.link.role {
            Role::Dialled => self.wanted.invitation(&conn.peer),
            Role::Accepted => None,
        };
        Hello { boot: self.boot, invitation }
    }

    /// Forgets a connection and everything that hangs on it.
    fn drop_conn(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self.conns.remove(&id)?;
        let counted: usize = conn.streams.values().map(|stream| stream.counted).sum();
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
}
