//! Deletion: a marker in the place of a document, whatever was going on with it.

use super::document::{Offer, Phase};
use super::history::{Brought, Report};
use super::{Docs, Effect};
use crate::error::DeleteError;
use crate::heads::Heads;
use crate::id::{ConnId, DocId, EditId, PeerId};
use crate::io::{Event, Origin, Refusal};
use crate::marker::{Marker, Spread, Text};
use crate::policy::Deletion;
use crate::store::Kind;
use crate::time::Now;

/// What became of a marker that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buried {
    /// It stands now.
    Laid,
    /// The one that stands is the same or greater.
    Known,
}

impl Docs {
    /// Puts a marker of our own in the place of a document; see [`Node::delete`](crate::Node::delete). Collections that
    /// delete softly are not this function's business.
    pub(crate) fn delete(
        &mut self,
        now: Now,
        doc: &DocId,
        by: PeerId,
        reason: Option<&str>,
    ) -> Result<EditId, DeleteError> {
        if let Some(fault) = self.writer.refusing() {
            return Err(DeleteError::Store(fault));
        }
        let policy = self.policy.of(doc);
        match policy.deletion {
            Deletion::Tombstone { .. } | Deletion::Soft { .. } => {}
            Deletion::Implicit => return Err(DeleteError::Expires),
            Deletion::Immutable => return Err(DeleteError::Immutable),
        }
        match self.get(doc) {
            Some(document) if document.marker().is_some() => return Err(DeleteError::Deleted),
            Some(document) if matches!(document.kind, Kind::Other(_)) => return Err(DeleteError::Unreadable),
            Some(document) if document.exists() => {}
            Some(_) | None => return Err(DeleteError::NotFound),
        }
        if self.markers >= self.most_markers {
            return Err(DeleteError::Full);
        }
        let by = Text::clipped(&by.to_string()).ok_or(DeleteError::NotFound)?;
        let marker = Marker {
            incarnation: 0,
            lamport: self.lamport.saturating_add(1),
            by,
            at_ms: now.unix_ms,
            reason: reason.and_then(Text::clipped),
            spread: Spread::Bidirectional,
        };
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        self.stats.deletions += 1;
        self.lay(doc, marker, Origin::Local, true);
        if let Some(unsaved) = self.get_mut(doc).and_then(|document| document.unsaved.as_mut()) {
            unsaved.edit = Some(edit);
        }
        Ok(edit)
    }

    /// Takes in a marker that a peer sent. The greater of two stands, whichever came first.
    pub(crate) fn bury(&mut self, doc: &DocId, marker: Marker, conn: ConnId, peer: PeerId) -> Result<Buried, Refusal> {
        let standing = match self.get(doc) {
            Some(document) if matches!(document.kind, Kind::Other(_)) => return Err(Refusal::Foreign),
            Some(document) => document.marker(),
            None => None,
        };
        match standing {
            Some(standing) if *standing >= marker => return Ok(Buried::Known),
            // Nobody's word deletes here, on whichever wire it comes.
            None if self.policy.of(doc).deletion == Deletion::Immutable => return Err(Refusal::NotAllowed),
            None if self.markers >= self.most_markers => return Err(Refusal::Full),
            Some(_) | None => {}
        }
        if self.get(doc).is_none() {
            self.admit_new(doc, Phase::Buried);
        }
        self.stats.markers_received += 1;
        let before = self.lay(doc, marker, Origin::Peer(peer), false);
        self.effects.push_back(Effect::Moved { doc: doc.clone(), before, sources: vec![conn] });
        Ok(Buried::Laid)
    }

    /// Lets a marker stand for a document of the index from now on: what is in memory of it goes, what arrives for it is
    /// refused, and the store removes it. `own` markers leave only once they are durable. Answers the heads before.
    pub(super) fn lay(&mut self, doc: &DocId, marker: Marker, origin: Origin, own: bool) -> Heads {
        self.forget_fate(doc);
        let class = self.class(doc).index();
        let Some(document) = self.classes[class].get_mut(doc) else { return Heads::NONE };
        self.lamport = self.lamport.max(marker.lamport);
        let existed = document.exists();
        let was_marked = document.marker().is_some();
        self.existing -= u64::from(existed);
        self.markers += u64::from(!was_marked);
        let before = document.offered.clone();
        self.scopes.remove(&self.policy, doc, document.offer());
        document.kind = Kind::Marker(Box::new(marker));
        document.facts = crate::store::Facts::default();
        let phase = std::mem::replace(&mut document.phase, Phase::Buried);
        let unsaved = document.unsaved.get_or_insert_default();
        // What was not durable need not be any more; what is accounted for stays accounted for.
        unsaved.bytes = Vec::new();
        unsaved.local = Vec::new();
        unsaved.own_marker = own;
        self.writer.enqueue(doc, unsaved);
        if own {
            document.lapsed = false;
        } else {
            (document.offered, document.lapsed) = (Heads::NONE, false);
        }
        self.scopes.insert(&self.policy, doc, document.offer());
        match phase {
            Phase::Live(live) => self.cache.remove(&live),
            Phase::Busy => drop(self.idle_jobs.insert(doc.clone())),
            Phase::Cold | Phase::Loading | Phase::Quarantined | Phase::Buried => {}
        }
        self.parsing.remove(doc);
        self.drop_copy(doc);
        self.dismiss(doc);
        if existed {
            self.effects.push_back(Effect::Event(Event::Deleted { doc: doc.clone(), origin }));
        }
        before
    }

    /// The own marker of a document is durable: it may leave.
    pub(super) fn release_marker(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        let Some(document) = self.classes[class].get_mut(doc) else { return };
        let held = document.unsaved.take().is_some_and(|unsaved| unsaved.own_marker);
        if !held {
            return;
        }
        // Until now the heads were offered.
        self.scopes.remove(&self.policy, doc, Offer::of(&document.offered));
        let before = std::mem::take(&mut document.offered);
        self.scopes.insert(&self.policy, doc, document.offer());
        self.effects.push_back(Effect::Moved { doc: doc.clone(), before, sources: Vec::new() });
    }

    /// Answers everybody who waits for the content of a document that was deleted.
    fn dismiss(&mut self, doc: &DocId) {
        self.to_load.retain(|waiting| waiting != doc);
        let Some(mut attention) = self.attention.remove(doc) else { return };
        self.ready.remove(doc);
        self.stalled.remove(doc);
        if attention.opening {
            self.effects.push_back(Effect::Event(Event::Opened { doc: doc.clone() }));
        }
        let mut waiters = std::mem::take(&mut attention.waiters);
        waiters.append(&mut attention.copiers);
        for conn in waiters {
            self.effects.push_back(Effect::Wake { conn, doc: doc.clone() });
        }
        for incoming in std::mem::take(&mut attention.inbox) {
            let size = incoming.payload.len();
            let report =
                Report { source: incoming.source, outcome: Err(Refusal::Deleted), brought: Brought::Unknown, size };
            self.answer(doc, report);
        }
        if attention.opens > 0 {
            // They stay open, on nothing.
            (attention.opening, attention.save) = (false, false);
            self.attention.insert(doc.clone(), attention);
        }
    }
}

#[cfg(test)]
mod tests;
