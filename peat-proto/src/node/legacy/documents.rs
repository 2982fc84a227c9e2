//! What a legacy peer says about documents, and what follows from it.

use bytes::Bytes;

use crate::doc::Buried;
use crate::doc::inbox::{Incoming, Payload, Source};
use crate::heads::Heads;
use crate::id::{ConnId, DocId};
use crate::io::{Event, Refusal};
use crate::marker::Marker;
use crate::node::Node;
use crate::peer::legacy::Stage;
use crate::policy::Policy;
use crate::policy::kin::{spreads, takes};
use crate::request::SyncOutcome;
use crate::sync::legacy::{Exchange, Terms};
use crate::time::Time;
use crate::wire::v0::{Delta, Tombstone, heads_of};

impl Node {
    /// The other side named its heads, and perhaps sent changes.
    pub(super) fn legacy_heard(&mut self, id: ConnId, doc: &DocId, delta: Delta, hops: Option<u8>) {
        let policy = self.docs.policy().of(doc);
        let class = policy.class;
        let (most, now) = (self.config.max_exchanges, self.now.mono);
        let document = self.docs.get(doc);
        let ours = document.map_or(Heads::NONE, |document| document.offered.clone());
        let slot = document.map(|document| document.slot);
        let is_secret = self.docs.is_marked(doc) && !self.legacy_terms(id, doc).sends;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        // Automerge says with every message what it can; we say so only where we say nothing else.
        conn.is_fielded |= !delta.tail.is_empty() && !delta.heads.is_empty();
        if let Some(slot) = slot {
            let asks = !delta.have.is_empty() || !delta.need.is_empty();
            let equal = delta.changes.is_empty() && Heads::new(delta.heads.clone()) == ours;
            let certain = conn.exchanges.get(doc).is_none_or(Exchange::is_certain);
            if equal && certain && (!asks || conn.assurances.are_enough(&slot, now)) {
                conn.end_exchange(class, doc);
                conn.equal.insert(slot);
                return;
            }
            conn.equal.remove(slot);
        }
        let docs = &self.docs;
        let blank = Exchange::unknown();
        let names = conn.exchanges.get(doc).unwrap_or(&blank).names_after(&delta);
        let has_room = conn.has_room_for(doc, names, |doc| docs.class(doc))
            && conn.exchange(doc, |doc| docs.class(doc), most, Exchange::unknown).is_some();
        let heard = |exchange: &mut Exchange| {
            exchange.came = hops.or(exchange.came);
            exchange.heard(&delta, &ours)
        };
        let Some(may_answer) = has_room.then(|| conn.follow(doc, heard)).flatten() else {
            self.stats.legacy.crowded += 1;
            conn.has_lost = true;
            return;
        };
        conn.trim_timer(doc);
        if delta.changes.is_empty() {
            // What is not taken, and a deletion that is not told, keep the two unequal, and it has an answer to every word. It
            // may have one even of a document that neither has.
            let agrees = takes(policy.writers(), conn.kin) && !is_secret;
            let enough = match slot {
                Some(slot) => !agrees && conn.assurances.are_enough(&slot, now),
                None => delta.heads.is_empty() && conn.denials.are_enough(doc, now),
            };
            if enough {
                conn.hush(class, doc);
            } else if may_answer {
                conn.enqueue(class, doc);
            }
            return;
        }
        let changes = delta.changes.iter().cloned().chain(conn.orphans.of(doc)).collect();
        conn.orphans.keep(doc, &delta.changes);
        let source = Source::Peer(id, conn.peer);
        let allowed = self.legacy_may_write(id, &policy);
        if let Err(reason) =
            allowed.and_then(|()| self.docs.deliver(doc, Incoming { source, payload: Payload::Changes(changes) }))
        {
            self.stats.refused += 1;
            self.legacy_turned_away(id, doc, reason);
        }
    }

    /// The other side sent a saved document.
    pub(super) fn legacy_heard_snapshot(&mut self, id: ConnId, doc: &DocId, bytes: Bytes, hops: Option<u8>) {
        let policy = self.docs.policy().of(doc);
        let most = self.config.max_exchanges;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if let Some(document) = self.docs.get(doc) {
            // Legacy peers push the same again and again: what says that it is what we have need not be parsed.
            if heads_of(&bytes).is_some_and(|heads| heads == document.offered) {
                conn.end_exchange(policy.class, doc);
                conn.equal.insert(document.slot);
                self.stats.legacy.snapshots_known += 1;
                return;
            }
            conn.equal.remove(document.slot);
        }
        let docs = &self.docs;
        if let Some(exchange) = conn.exchange(doc, |doc| docs.class(doc), most, Exchange::unknown) {
            exchange.came = hops.or(exchange.came);
        }
        let source = Source::Peer(id, conn.peer);
        let allowed = self.legacy_may_write(id, &policy);
        if let Err(reason) =
            allowed.and_then(|()| self.docs.deliver(doc, Incoming { source, payload: Payload::Saved(bytes) }))
        {
            self.stats.refused += 1;
            self.legacy_turned_away(id, doc, reason);
        }
    }

    /// What a peer sent has been applied or refused.
    pub(in crate::node) fn legacy_answered(
        &mut self,
        id: ConnId,
        doc: &DocId,
        outcome: Result<(), Refusal>,
        heads: Option<Heads>,
    ) {
        let class = self.docs.class(doc);
        match outcome {
            Ok(()) | Err(Refusal::MissingChanges) => {
                let (most, now) = (self.config.max_exchanges, self.now.mono);
                let ours = self.docs.get(doc).map(|document| document.offered.clone()).unwrap_or_default();
                let docs = &self.docs;
                let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
                let Some(exchange) = conn.exchange(doc, |doc| docs.class(doc), most, Exchange::unknown) else { return };
                exchange.applied(&ours);
                if let Some(heads) = heads {
                    // Who pushes snapshots hears of what it lacks by a push.
                    exchange.initiates |= heads != ours;
                    if conn.has_room_for(doc, heads.len(), |doc| docs.class(doc)) {
                        conn.follow(doc, |exchange| exchange.heard_snapshot(heads));
                    }
                }
                let initiates = conn.exchanges.get(doc).is_some_and(|exchange| exchange.initiates);
                conn.trim_timer(doc);
                match docs.get(doc).filter(|_| initiates) {
                    Some(document) => {
                        let waits = conn.enqueue_push(class, doc, document.slot, now);
                        self.stats.legacy.deferred_cooldown += u64::from(waits);
                    }
                    None => conn.enqueue(class, doc),
                }
            }
            Err(reason) => self.legacy_turned_away(id, doc, reason),
        }
    }

    /// Leaves a document alone that this peer's changes cannot be applied to, until the peer says something new of it.
    fn legacy_turned_away(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        let class = self.docs.class(doc);
        let slot = self.docs.get(doc).map(|document| document.slot);
        let ours = self.docs.get(doc).map(|document| document.offered.clone()).unwrap_or_default();
        let now = self.now.mono;
        let (parked, later) = (self.legacy_parked(), self.legacy_jitter(self.config.retry_max));
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if reason == Refusal::Busy {
            // It is asked for again when there is time.
            if let Some(exchange) = conn.exchanges.get_mut(doc) {
                exchange.put_off();
                conn.set_timer(doc, self.now.mono + later);
            }
            return;
        }
        conn.orphans.remove(doc);
        conn.watch.note(doc, SyncOutcome::Refused(reason));
        // It answers every word with what is not taken, as long as there are words.
        let enough = slot.is_some_and(|slot| conn.assurances.are_enough(&slot, now));
        match conn.exchanges.get_mut(doc) {
            Some(_) if matches!(reason, Refusal::Deleted | Refusal::NotAllowed) && enough => conn.hush(class, doc),
            // A peer that does not know of the deletion is told, and one that may not write hears what there is.
            Some(_) if matches!(reason, Refusal::Deleted | Refusal::NotAllowed) => conn.enqueue(class, doc),
            Some(exchange) => {
                exchange.give_up(&ours);
                conn.watch.end(doc);
                conn.set_timer(doc, self.now.mono + parked);
            }
            None => {}
        }
        let peer = conn.peer;
        self.event(Event::Refused { peer, doc: doc.clone(), reason });
    }

    /// The other side says that a document was deleted.
    pub(super) fn legacy_tombstone(&mut self, id: ConnId, tombstone: &Tombstone, hops: Option<u8>) {
        self.stats.legacy.tombstones_received += 1;
        let Ok(doc) = tombstone.doc() else {
            self.stats.refused += 1;
            return;
        };
        let policy = self.docs.policy().of(&doc);
        let Some(conn) = self.legacy.conns.get(&id) else { return };
        let (peer, kin) = (conn.peer, conn.kin);
        if !takes(policy.deleters(), kin) {
            return self.legacy_refused(id, &doc, Refusal::NotAllowed);
        }
        let sent = tombstone.marker();
        match self.docs.bury(&doc, sent.clone(), id, peer) {
            Ok(Buried::Laid) => {
                if let (Some(hops), Some(conn)) = (hops, self.legacy.conns.get_mut(&id)) {
                    conn.buried.insert(doc.clone(), hops);
                }
            }
            Ok(Buried::Known) => {}
            Err(reason) => return self.legacy_refused(id, &doc, reason),
        }
        // Another Peat node takes the greater of two markers, which may be ours. A fielded peer keeps the first for ever, and sends it
        // again and again.
        let document = self.docs.get(&doc);
        let ours_is_greater = document
            .and_then(|document| document.marker())
            .is_some_and(|ours| *ours > sent && passes(&policy, Some(ours), kin));
        let slot = document.map(|document| document.slot);
        let (most, docs) = (self.config.max_exchanges, &self.docs);
        let (Some(slot), Some(conn)) = (slot, self.legacy.conns.get_mut(&id)) else { return };
        conn.end_exchange(policy.class, &doc);
        conn.equal.insert(slot);
        if ours_is_greater
            && !conn.is_fielded
            && conn.exchange(&doc, |doc| docs.class(doc), most, Exchange::unknown).is_some()
        {
            conn.equal.remove(slot);
            conn.enqueue(policy.class, &doc);
        }
    }

    /// What may leave of a document moved on: every other legacy peer hears of it.
    pub(in crate::node) fn legacy_moved(&mut self, doc: &DocId, before: &Heads, sources: &[ConnId]) {
        let policy = self.docs.policy().of(doc);
        let Some(document) = self.docs.get(doc) else { return };
        let (slot, marker) = (document.slot, document.marker().cloned());
        let came = sources.iter().filter_map(|id| {
            let conn = self.legacy.conns.get_mut(id)?;
            conn.buried.remove(doc).or_else(|| conn.exchanges.get(doc)?.came)
        });
        let hops = came.min();
        let (most, now) = (self.config.max_exchanges, self.now.mono);
        let docs = &self.docs;
        for conn in self.legacy.conns.values_mut().filter(|conn| conn.is_serving()) {
            // Who sent the change is answered on its own account.
            if sources.contains(&conn.id) {
                if marker.is_none() {
                    conn.equal.remove(slot);
                }
                continue;
            }
            if !conn.exchanges.contains_key(doc) {
                if !passes(&policy, marker.as_ref(), conn.kin) {
                    continue;
                }
                let Some(basis) = conn.basis(doc, policy.class, stage(&policy, marker.as_ref()), slot, before) else {
                    continue;
                };
                if conn.exchange(doc, |doc| docs.class(doc), most, || basis).is_none() {
                    continue;
                }
            }
            conn.equal.remove(slot);
            if let Some(exchange) = conn.exchanges.get_mut(doc) {
                exchange.moved();
                exchange.hops = hops.or(exchange.hops);
                conn.trim_timer(doc);
            }
            if marker.is_some() {
                conn.enqueue(policy.class, doc);
            } else {
                let waits = conn.enqueue_push(policy.class, doc, slot, now);
                self.stats.legacy.deferred_cooldown += u64::from(waits);
            }
        }
    }

    /// Pushes a document to one peer once more at that time, whatever it is believed to have.
    pub(super) fn legacy_push_again(&mut self, id: ConnId, doc: &DocId, at: Time) {
        let policy = self.docs.policy().of(doc);
        let most = self.config.max_exchanges;
        let Some(document) = self.docs.get(doc) else { return };
        let (slot, marker) = (document.slot, document.marker());
        let docs = &self.docs;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if !conn.is_serving() || !passes(&policy, marker, conn.kin) {
            return;
        }
        conn.equal.remove(slot);
        if let Some(exchange) = conn.exchange(doc, |doc| docs.class(doc), most, Exchange::unknown) {
            exchange.say_again();
            conn.trim_timer(doc);
            conn.cooling.insert((at, doc.clone()));
        }
    }

    /// What an exchange waited for may be there now.
    pub(in crate::node) fn legacy_woken(&mut self, id: ConnId, doc: &DocId) {
        let class = self.docs.class(doc);
        if let Some(conn) = self.legacy.conns.get_mut(&id) {
            conn.enqueue(class, doc);
        }
    }

    /// What an exchange waited for cannot be had now.
    pub(in crate::node) fn legacy_denied(&mut self, id: ConnId, doc: &DocId) {
        let ours = self.docs.get(doc).map(|document| document.offered.clone()).unwrap_or_default();
        let later = self.now.mono + self.legacy_parked();
        if let Some(conn) = self.legacy.conns.get_mut(&id)
            && let Some(exchange) = conn.exchanges.get_mut(doc)
        {
            exchange.give_up(&ours);
            conn.watch.end(doc);
            conn.set_timer(doc, later);
        }
    }

    /// What may pass between this node and a peer of a document.
    pub(in crate::node) fn legacy_terms(&self, id: ConnId, doc: &DocId) -> Terms {
        let policy = self.docs.policy().of(doc);
        let kin = self.legacy.conns.get(&id).and_then(|conn| conn.kin);
        let marker = self.docs.get(doc).and_then(crate::doc::document::Document::marker);
        Terms {
            sends: passes(&policy, marker, kin),
            takes: takes(policy.writers(), kin),
            snapshots: policy.mode.is_snapshot(),
            piece: PIECE.min(self.config.max_delta),
            largest: self.config.max_snapshot,
        }
    }

    fn legacy_may_write(&self, id: ConnId, policy: &Policy) -> Result<(), Refusal> {
        let kin = self.legacy.conns.get(&id).and_then(|conn| conn.kin);
        if takes(policy.writers(), kin) { Ok(()) } else { Err(Refusal::NotAllowed) }
    }
}

/// Bytes of changes in one message, unless a single change is larger: 256 KiB. Larger ones cost more when they must be
/// said again, smaller ones are answered more often.
const PIECE: usize = 256 << 10;

/// Whether a document, or its marker, goes to such a peer.
pub(super) fn passes(policy: &Policy, marker: Option<&Marker>, kin: Option<crate::policy::kin::Kin>) -> bool {
    match marker {
        Some(marker) => spreads(marker.spread, policy.direction, kin),
        None => crate::policy::kin::sends(policy.direction, kin),
    }
}

/// The stage of the push that such a document belongs to.
pub(super) fn stage(policy: &Policy, marker: Option<&Marker>) -> Stage {
    match marker {
        Some(_) => Stage::Markers,
        None if policy.mode.is_snapshot() => Stage::Snapshots,
        None => Stage::Histories,
    }
}
