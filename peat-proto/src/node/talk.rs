//! What is said about documents, and what follows from it.

use bytes::Bytes;

use super::Node;
use crate::doc::history::{Incoming, Payload, Source};
use crate::heads::Heads;
use crate::id::{ConnId, DocId};
use crate::io::{Event, Refusal};
use crate::policy::kin::sends;
use crate::request::SyncOutcome;
use crate::sync::exchange::Exchange;
use crate::wire::{Delta, Summary};

impl Node {
    /// The other side named its heads, and perhaps sent changes.
    pub(super) fn heard(&mut self, id: ConnId, doc: &DocId, delta: Delta) {
        let class = self.docs.class(doc);
        let most = self.config.max_exchanges;
        let allowed = self.may_take(id, &self.docs.policy().of(doc));
        let document = self.docs.get(doc);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let is_news = !delta.changes.is_empty() || !delta.have.is_empty();
        if let Some(document) = document
            && !is_news
            && document.offered == Heads::new(delta.heads.clone())
        {
            // The common case of a list between equal sets: nothing to remember but the fact.
            conn.end_exchange(class, doc);
            conn.equal.insert(document.slot);
            return;
        }
        if let Some(document) = document {
            conn.equal.remove(document.slot);
        }
        let waited = conn.exchanges.get(doc).and_then(|exchange| exchange.deadline);
        let known = conn.exchange(doc, most, Exchange::unknown).map(|exchange| {
            exchange.heard(&delta);
            exchange.deadline
        });
        if let Some(deadline) = known
            && deadline != waited
        {
            // The exchange cleared its deadline; the timer goes with it.
            if let Some(exchange) = conn.exchanges.get_mut(doc) {
                exchange.deadline = waited;
            }
            conn.set_deadline(doc, deadline);
        }
        let source = Source::Peer(id, conn.peer);
        if delta.changes.is_empty() {
            conn.enqueue(class, doc);
        } else if let Err(reason) =
            allowed.and_then(|()| self.docs.deliver(doc, Incoming { source, payload: Payload::Changes(delta.changes) }))
        {
            self.turned_away(id, doc, reason);
        }
    }

    /// The other side sent a saved document.
    pub(super) fn heard_snapshot(&mut self, id: ConnId, doc: &DocId, bytes: Bytes) {
        let most = self.config.max_exchanges;
        let slot = self.docs.get(doc).map(|document| document.slot);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(slot) = slot {
            conn.equal.remove(slot);
        }
        let _ = conn.exchange(doc, most, Exchange::unknown);
        let source = Source::Peer(id, conn.peer);
        let allowed = self.may_take(id, &self.docs.policy().of(doc));
        let delivered =
            allowed.and_then(|()| self.docs.deliver(doc, Incoming { source, payload: Payload::Saved(bytes) }));
        if let Err(reason) = delivered {
            self.turned_away(id, doc, reason);
        }
    }

    /// What a peer sent has been applied or refused.
    pub(super) fn answered(&mut self, id: ConnId, doc: &DocId, outcome: Result<(), Refusal>, heads: Option<Heads>) {
        match outcome {
            Ok(()) | Err(Refusal::MissingChanges) => {
                let class = self.docs.class(doc);
                let most = self.config.max_exchanges;
                let slot = self.docs.get(doc).map(|document| document.slot);
                let Some(conn) = self.conns.get_mut(&id) else { return };
                if let Some(slot) = slot {
                    conn.equal.remove(slot);
                }
                // It may have ended meanwhile, for instance because both sides were level before this was applied.
                if let Some(exchange) = conn.exchange(doc, most, Exchange::unknown) {
                    if heads.is_some() {
                        exchange.heard_snapshot(heads);
                    }
                    conn.enqueue(class, doc);
                }
            }
            Err(reason) => self.turned_away(id, doc, reason),
        }
    }

    /// Lets a peer wait whose changes cannot be taken in now: what it asked for is answered with what is said next.
    fn put_off(&mut self, id: ConnId, doc: &DocId) {
        let Some(conn) = self.conns.get(&id) else { return };
        let later = self.now.mono + self.patience(conn, 0);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.set_deadline(doc, Some(later));
            self.stats.refused += 1;
        }
    }

    /// Leaves a document alone that this peer's changes cannot be applied to; the next survey comes back to it, ever more
    /// rarely.
    fn turned_away(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        if reason == Refusal::Busy {
            return self.put_off(id, doc);
        }
        let class = self.docs.class(doc);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.watch.note(doc, SyncOutcome::Refused(reason));
            conn.end_exchange(class, doc);
            let peer = conn.peer;
            self.event(Event::Refused { peer, doc: doc.clone(), reason });
        }
    }

    /// What may leave of a document moved on: every other connection hears of it.
    pub(super) fn moved(&mut self, doc: &DocId, before: &Heads, sources: &[ConnId]) {
        let class = self.docs.class(doc);
        let Some(slot) = self.docs.get(doc).map(|document| document.slot) else { return };
        let most = self.config.max_exchanges;
        let direction = self.docs.policy().of(doc).direction;
        for conn in self.conns.values_mut() {
            // Even before it serves the other side may have said that both are equal.
            let were_equal = conn.equal.remove(slot);
            if !sends(direction, conn.kin) || !conn.is_serving() {
                continue;
            }
            // Who sent the change is answered on its own account.
            if sources.contains(&conn.id) {
                continue;
            }
            if !conn.exchanges.contains_key(doc) {
                let Some(basis) = conn.basis(doc, class, were_equal, before) else { continue };
                if conn.exchange(doc, most, || basis).is_none() {
                    continue;
                }
            }
            conn.enqueue(class, doc);
        }
    }

    /// The other side said what it has in all.
    pub(super) fn summarised(&mut self, id: ConnId, summary: Summary) {
        let digest = self.docs.digest();
        let slots = self.docs.slots();
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let busy = conn.is_busy();
        conn.survey.heard(summary, &digest, now, busy);
        if conn.survey.is_level(&digest) {
            conn.equal.fill(slots);
            let docs: Vec<DocId> = conn.exchanges.keys().cloned().collect();
            for doc in docs {
                conn.end_exchange(self.docs.class(&doc), &doc);
            }
        }
        self.note_level(id, &digest);
    }

    /// Reports the passage from different to equal.
    pub(super) fn note_level(&mut self, id: ConnId, digest: &[u8; 32]) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let level = conn.is_serving() && conn.survey.is_level(digest);
        if level != std::mem::replace(&mut conn.survey.level, level) && level {
            let peer = conn.peer;
            self.event(Event::Level { peer });
        }
    }
}
