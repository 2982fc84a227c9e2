//! What is said about documents, and what follows from it.

use bytes::Bytes;

use super::Node;
use crate::doc::document::{Document, Offer};
use crate::doc::history::{self, Brought};
use crate::doc::inbox::{Incoming, Payload, Source};
use crate::doc::{Buried, View};
use crate::heads::Heads;
use crate::id::{ConnId, DocId};
use crate::io::{Event, Refusal};
use crate::marker::Marker;
use crate::policy::kin::takes;
use crate::reconcile::Item;
use crate::request::SyncOutcome;
use crate::sync::exchange::Exchange;
use crate::time::Time;
use crate::wire::v1::{Refused, Saved, Word};

impl Node {
    /// The other side named its heads, and perhaps sent changes.
    pub(super) fn heard(&mut self, id: ConnId, doc: &DocId, word: &Word) {
        let class = self.docs.class(doc);
        let most = self.config.max_exchanges;
        let document = self.docs.get(doc);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let is_news = !word.changes.is_empty() || word.asks;
        if let Some(document) = document
            && !is_news
            && document.offered == word.heads
            && document.marker().is_none()
        {
            // The common case of a receipt: nothing to remember but the fact.
            conn.end_exchange(class, doc);
            conn.equal.insert(document.slot);
            return;
        }
        if let Some(document) = document {
            conn.equal.remove(document.slot);
        }
        conn.survey.excluded.include(doc);
        if !conn.has_room(word.heads.len() + word.samples.len()) {
            // As if it had been lost.
            self.stats.unheard += 1;
            return;
        }
        // Who asks has lost count, and says how much it has; other words do not begin pieces anew.
        if word.asks || conn.has_sent(class, doc) {
            conn.interrupt(class, doc);
        }
        let waited = conn.exchanges.get(doc).and_then(|exchange| exchange.deadline);
        let known = conn.exchange(doc, most, Exchange::unknown).map(|exchange| {
            exchange.heard(word);
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
        conn.recount(doc);
        if word.changes.is_empty() {
            return conn.enqueue(class, doc);
        }
        if known.is_none() {
            // Nobody would answer; a later survey brings it again.
            self.stats.refused += 1;
            return;
        }
        self.take_in(id, doc, Payload::Changes(word.changes.clone()));
    }

    /// The other side sent a whole document.
    pub(super) fn heard_whole(&mut self, id: ConnId, doc: &DocId, saved: Saved) {
        let most = self.config.max_exchanges;
        let slot = self.docs.get(doc).map(|document| document.slot);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(slot) = slot {
            conn.equal.remove(slot);
        }
        conn.survey.excluded.include(doc);
        let Some(exchange) = conn.exchange(doc, most, Exchange::unknown) else {
            // Nobody would answer; a later survey brings it again.
            self.stats.refused += 1;
            return;
        };
        exchange.heard_whole(saved.answer);
        self.take_in(id, doc, Payload::Saved(saved.bytes));
    }

    /// Hands what a peer sent to the documents, if it may send that.
    pub(super) fn take_in(&mut self, id: ConnId, doc: &DocId, payload: Payload) {
        let Some(conn) = self.conns.get(&id) else { return };
        let source = Source::Peer(id, conn.peer);
        let allowed = self.may_take(id, &self.docs.policy().of(doc));
        if let Err(reason) = allowed.and_then(|()| self.docs.deliver(doc, Incoming { source, payload })) {
            self.turned_away(id, doc, reason);
        }
    }

    /// The other side deleted a document.
    pub(super) fn heard_marker(&mut self, id: ConnId, doc: &DocId, marker: &Bytes) {
        let class = self.docs.class(doc);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (peer, kin) = (conn.peer, conn.kin);
        conn.survey.excluded.include(doc);
        let Some(marker) = Marker::decode(marker) else { return self.deny(id, doc, Refusal::Invalid) };
        if !takes(self.docs.policy().of(doc).deleters(), kin) {
            return self.deny(id, doc, Refusal::NotAllowed);
        }
        match self.docs.bury(doc, marker.clone(), id, peer) {
            Err(reason) => self.deny(id, doc, reason),
            Ok(Buried::Laid) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.end_exchange(class, doc);
                }
            }
            Ok(Buried::Known) => {
                let same = self.docs.get(doc).and_then(Document::marker) == Some(&marker);
                let slot = self.docs.get(doc).map(|document| document.slot);
                let most = self.config.max_exchanges;
                let Some(conn) = self.conns.get_mut(&id) else { return };
                if let Some(slot) = slot.filter(|_| !same) {
                    conn.equal.remove(slot);
                }
                conn.end_exchange(class, doc);
                // Ours is the later one.
                if !same && conn.exchange(doc, most, Exchange::unknown).is_some() {
                    conn.enqueue(class, doc);
                }
            }
        }
    }

    /// The other side does not take what we sent.
    pub(super) fn heard_refused(&mut self, id: ConnId, doc: &DocId, refused: &Refused) {
        let class = self.docs.class(doc);
        let item = self.item(doc);
        let current = match self.docs.get(doc).map(Document::offer) {
            Some(Offer::Heads(heads)) => *heads == refused.heads || refused.heads.is_empty(),
            Some(Offer::Marker(_)) => true,
            Some(Offer::Nothing) | None => false,
        };
        let reason = Refusal::from_code(refused.reason);
        let again = self.tried_again(reason);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !current || conn.survey.excluded.is_declined(doc) {
            // About what has been overtaken, or said again.
            return;
        }
        conn.watch.note(doc, SyncOutcome::Refused(reason));
        conn.end_exchange(class, doc);
        conn.survey.excluded.decline(doc, item, again);
        let peer = conn.peer;
        self.stats.declined += 1;
        self.event(Event::Declined { peer, doc: doc.clone(), reason });
    }

    /// What a peer sent has been applied or refused.
    pub(super) fn answered(&mut self, id: ConnId, doc: &DocId, outcome: Result<(), Refusal>, brought: Brought) {
        match outcome {
            Ok(()) | Err(Refusal::MissingChanges) => {
                let class = self.docs.class(doc);
                let most = self.config.max_exchanges;
                let slot = self.docs.get(doc).map(|document| document.slot);
                let Some(conn) = self.conns.get_mut(&id) else { return };
                if let Some(slot) = slot {
                    conn.equal.remove(slot);
                }
                let brought = if conn.has_room(brought.hashes()) { brought } else { Brought::Unknown };
                // It may have ended meanwhile, for instance because both sides were level before this was applied.
                if let Some(exchange) = conn.exchange(doc, most, Exchange::unknown) {
                    exchange.took(brought);
                    conn.recount(doc);
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

    /// Leaves a document alone that this peer's changes cannot be applied to, and tells it so.
    fn turned_away(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        match reason {
            Refusal::Busy => self.put_off(id, doc),
            // The answer to what comes for a deleted document is its marker.
            Refusal::Deleted => {
                let class = self.docs.class(doc);
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.interrupt(class, doc);
                    conn.set_deadline(doc, None);
                    conn.enqueue(class, doc);
                }
                self.report_refused(id, doc, reason);
            }
            _ => self.deny(id, doc, reason),
        }
    }

    /// Refuses what a peer sent of a document: both sides leave it out from here on, until one of them moves.
    pub(super) fn deny(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        let class = self.docs.class(doc);
        let item = self.item(doc);
        let slot = self.docs.get(doc).map(|document| document.slot);
        let (most, again) = (self.config.max_exchanges, self.tried_again(reason));
        if let Some(conn) = self.conns.get_mut(&id) {
            if let Some(slot) = slot {
                conn.equal.remove(slot);
            }
            conn.watch.note(doc, SyncOutcome::Refused(reason));
            if let Some(exchange) = conn.exchange(doc, most, Exchange::unknown) {
                exchange.refuse(reason);
                conn.interrupt(class, doc);
                conn.set_deadline(doc, None);
                conn.enqueue(class, doc);
            }
            conn.survey.excluded.refuse(doc, item, again);
            conn.survey.spoil();
        }
        self.report_refused(id, doc, reason);
    }

    /// When a document is tried again that was refused for a reason which may pass.
    fn tried_again(&self, reason: Refusal) -> Option<Time> {
        reason.may_pass().then(|| self.now.mono + self.config.retry_max.saturating_mul(2))
    }

    fn report_refused(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        if let Some(peer) = self.conns.get(&id).map(|conn| conn.peer) {
            self.event(Event::Refused { peer, doc: doc.clone(), reason });
        }
    }

    /// What may leave of a document moved on: every other connection hears of it.
    pub(super) fn moved(&mut self, doc: &DocId, before: &Heads, sources: &[ConnId]) {
        let class = self.docs.class(doc);
        let Some(slot) = self.docs.get(doc).map(|document| document.slot) else { return };
        let most = self.config.max_exchanges;
        let old = self.docs.scopes.item(self.docs.policy(), doc, Offer::of(before));
        let new = self.item(doc);
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.rested = None;
            conn.survey.excluded.include(doc);
            // Even before it serves the other side may have said that both are equal.
            let were_equal = conn.equal.remove(slot);
            // Who sent the change is answered on its own account.
            if sources.contains(&id) {
                let theirs = conn.exchanges.get(doc).and_then(Exchange::theirs).cloned();
                if theirs.as_ref().is_some_and(|theirs| !self.has(doc, theirs)) {
                    // The rest may be lost: only a comparison can say that it was all.
                    continue;
                }
                let theirs = theirs.and_then(|heads| {
                    self.docs.scopes.item(self.docs.policy(), doc, Offer::of(&heads)).map(|(_, item)| item)
                });
                self.follow(id, old.as_ref().map(|(_, item)| item), theirs.or(new.map(|(_, item)| item)).as_ref(), doc);
                continue;
            }
            let goes = self.conns.get(&id).is_some_and(|conn| self.goes_to(conn, doc));
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !goes || !conn.is_serving() || !conn.survey.has_heard() {
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

    /// Whether we have all that lies behind these heads.
    fn has(&self, doc: &DocId, heads: &Heads) -> bool {
        let mut heads = heads.as_slice().iter();
        match self.docs.view(doc) {
            View::Live(document, live) => {
                heads.all(|hash| document.offered.contains(hash) || history::knows(&live.doc, hash))
            }
            View::Stored(document, _) | View::Cold(document) => heads.all(|hash| document.offered.contains(hash)),
            View::Absent | View::Unreadable | View::Buried(_) => heads.len() == 0,
        }
    }

    /// Keeps up with what a peer only sends.
    fn follow(&mut self, id: ConnId, before: Option<&Item>, after: Option<&Item>, doc: &DocId) {
        let scope = self.scope(doc);
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.survey.plan().inward.contains(scope)
        {
            conn.survey.follow(before, after);
        }
    }
}
