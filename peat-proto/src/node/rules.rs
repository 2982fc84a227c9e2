//! Policy and hierarchy: what may pass, and deletion as the policy has it.

use automerge::ROOT;
use automerge::transaction::Transactable;

use super::Node;
use crate::error::{DeleteError, EditError};
use crate::id::{ConnId, DocId, EditId, PeerId};
use crate::io::Refusal;
use crate::policy::kin::{Family, Kin, takes};
use crate::policy::{Deletion, Policy, Table};
use crate::store::Facts;
use crate::time::Now;

/// Where a softly deleted document keeps the reason, if one was given.
const REASON: &str = "_deleted_reason";

impl Node {
    /// Deletes a document the way its collection does: a [`Marker`](crate::Marker) takes its place for ever, or its root
    /// gets a field `_deleted`. Becomes durable like an edit of the number that is returned, and leaves only then.
    ///
    /// `reason` is kept as far as it fits: see [`Marker::REASON`](crate::Marker::REASON).
    ///
    /// # Errors
    /// Nothing was deleted. [`DeleteError::NotLoaded`] and [`DeleteError::Busy`], only in collections that delete softly:
    /// give [`Input::Open`](crate::Input::Open), wait for [`Event::Opened`](crate::Event::Opened), delete, give
    /// [`Input::Close`](crate::Input::Close).
    pub fn delete(&mut self, now: Now, doc: &DocId, reason: Option<&str>) -> Result<EditId, DeleteError> {
        self.advance(now);
        let Deletion::Soft { .. } = self.docs.policy().of(doc).deletion else {
            return self.docs.delete(self.now, doc, self.local, reason);
        };
        match self.docs.get(doc) {
            Some(document) if document.marker().is_some() || document.facts.deleted => {
                return Err(DeleteError::Deleted);
            }
            Some(document) if document.exists() => {}
            Some(_) | None => return Err(DeleteError::NotFound),
        }
        let largest = self.config.admit.change_bytes;
        let edited = self.docs.edit(self.now, doc, largest, |tx| {
            tx.put(ROOT, Facts::DELETED, true)?;
            match reason {
                Some(reason) => tx.put(ROOT, REASON, reason),
                None => Ok(()),
            }
        });
        match edited {
            Ok(()) => Ok(self.docs.last_edit()),
            Err(EditError::NotLoaded) => Err(DeleteError::NotLoaded),
            Err(EditError::Busy) => Err(DeleteError::Busy),
            Err(EditError::Deleted) => Err(DeleteError::Deleted),
            Err(EditError::Store(fault)) => Err(DeleteError::Store(fault)),
            Err(EditError::Unreadable | EditError::TooLarge | EditError::Aborted::<automerge::AutomergeError>(_)) => {
                Err(DeleteError::Unreadable)
            }
        }
    }

    /// What holds for each collection.
    #[must_use]
    pub fn policy(&self) -> &Table {
        self.docs.policy()
    }

    /// This node's place in a hierarchy.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.config.family
    }

    /// Goes over to another policy. What may flow now and did not before is found by the next survey.
    pub(super) fn set_policy(&mut self, table: Table) {
        self.docs.set_policy(table);
        let docs = &self.docs;
        for conn in self.conns.values_mut() {
            conn.reclass(|doc| docs.class(doc));
        }
        for conn in self.legacy.conns.values_mut() {
            conn.reclass(|doc| docs.class(doc));
            conn.reconsider(|doc| docs.class(doc));
        }
        self.doubt_all();
    }

    /// Takes another place in the hierarchy. What may flow now and did not before flows.
    pub(super) fn set_family(&mut self, family: Family) {
        for conn in self.conns.values_mut() {
            conn.kin = family.of(&conn.peer);
        }
        let docs = &self.docs;
        for conn in self.legacy.conns.values_mut() {
            conn.kin = family.of(&conn.peer);
            conn.reconsider(|doc| docs.class(doc));
        }
        self.config.family = family;
        self.doubt_all();
    }

    fn doubt_all(&mut self) {
        let (now, settle) = (self.now.mono, self.config.settle);
        for conn in self.conns.values_mut().filter(|conn| conn.is_serving()) {
            conn.rested = None;
            conn.survey.doubt(now, settle);
        }
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            if self.conns.get(&id).is_some_and(|conn| conn.is_serving()) {
                self.say_terms(id);
            }
        }
    }

    pub(super) fn kin(&self, peer: &PeerId) -> Option<Kin> {
        self.config.family.of(peer)
    }

    /// Whether what arrives on this connection is taken.
    pub(super) fn may_take(&self, id: ConnId, policy: &Policy) -> Result<(), Refusal> {
        let kin = self.conns.get(&id).and_then(|conn| conn.kin);
        if takes(policy.writers(), kin) { Ok(()) } else { Err(Refusal::NotAllowed) }
    }
}
