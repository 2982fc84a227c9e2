//! Which scopes go which way on a connection, and what we have in them.

use super::Node;
use crate::doc::document::Offer;
use crate::doc::scopes::{Scope, ScopeMask};
use crate::id::{ConnId, DocId};
use crate::peer::connection::Conn;
use crate::policy::kin::Kin;
use crate::reconcile::Item;
use crate::sync::survey::Ours;
use crate::sync::terms::Offered;
use crate::wire::v1::Terms;

/// Peers of which it is remembered what they sent in full: 1,024 of 64 B.
const MAX_REMEMBERED: usize = 1024;

impl Node {
    /// What goes which way to such a peer.
    fn offered(&self, kin: Option<Kin>) -> Vec<Offered> {
        let table = self.docs.policy();
        let offered =
            |scope: Scope| Offered { scope, id: scope.id(table), sends: scope.sends(kin), takes: scope.takes(kin) };
        Scope::all(table).into_iter().map(offered).collect()
    }

    /// Tells our terms, if they are new.
    pub(super) fn say_terms(&mut self, id: ConnId) {
        let Some(kin) = self.conns.get(&id).map(|conn| conn.kin) else { return };
        let offered = self.offered(kin);
        let key = self.docs.scopes.key_id();
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.survey.dealings.set_ours(key, &offered) {
            conn.survey.restart(now);
            conn.survey.told = None;
            self.repeat_terms(id);
        }
    }

    /// Tells our terms, and again while theirs are not heard on a link that may lose either.
    pub(super) fn repeat_terms(&mut self, id: ConnId) {
        let (now, wait) = (self.now.mono, self.config.retry_min);
        let again = now + wait;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.survey.dealings.ours().generation == 0 {
            return;
        }
        // Two sides that answer each other's terms with their own would never stop.
        if !conn.link.reliable && conn.survey.told.is_some_and(|told| now < told + wait / 2) {
            return;
        }
        conn.survey.told = Some(now);
        let frame = conn.survey.dealings.ours().frame();
        if !conn.control.contains(&frame) {
            conn.control.push_back(frame);
        }
        if !conn.survey.is_open() {
            conn.survey.due = (!conn.link.reliable).then_some(again);
        }
    }

    /// The other side told its terms.
    pub(super) fn heard_terms(&mut self, id: ConnId, terms: Terms) {
        let Some(kin) = self.conns.get(&id).map(|conn| conn.kin) else { return };
        let offered = self.offered(kin);
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.survey.dealings.heard(terms, &offered) {
            conn.survey.restart(now);
        } else if !conn.link.reliable && !conn.survey.has_heard() {
            // They tell them again because they have not heard ours.
            self.repeat_terms(id);
        }
    }

    /// What we have, for the other side of a connection.
    pub(super) fn ours(&self, conn: &Conn) -> Ours {
        let plan = conn.survey.plan();
        let sum = |mask: ScopeMask| self.docs.scopes.sum(mask).minus(conn.survey.excluded.sum(mask));
        Ours { shared: sum(plan.shared), outward: sum(plan.outward), inward: self.docs.scopes.sum(plan.inward) }
    }

    /// What is offered of a document, as an element of its scope.
    pub(super) fn item(&self, doc: &DocId) -> Option<(Scope, Item)> {
        let offer = self.docs.get(doc).map_or(Offer::Nothing, crate::doc::document::Document::offer);
        self.docs.scopes.item(self.docs.policy(), doc, offer)
    }

    /// The scope of a document, offered or not.
    pub(super) fn scope(&self, doc: &DocId) -> Scope {
        let policy = self.docs.policy().of(doc);
        let offer = self.docs.get(doc).map_or(Offer::Nothing, crate::doc::document::Document::offer);
        Scope::of(offer, &policy).unwrap_or(Scope::of_documents(&policy))
    }

    /// Whether what is offered of a document goes to the other side, as far as both have said.
    pub(super) fn goes_to(&self, conn: &Conn, doc: &DocId) -> bool {
        let (plan, scope) = (conn.survey.plan(), self.scope(doc));
        plan.shared.contains(scope) || plan.outward.contains(scope)
    }

    /// Keeps in mind what a peer sent in full, for the next connection.
    pub(super) fn remember_inward(&mut self, conn: &Conn) {
        let Some(model) = conn.survey.remember() else { return };
        if self.inward.len() >= MAX_REMEMBERED && !self.inward.contains_key(&conn.peer) {
            self.inward.pop_first();
        }
        self.inward.insert(conn.peer, model);
    }
}
