//! Deletion in worlds: by applications at nodes and at fielded peers, and what must hold of it.

use std::collections::BTreeSet;

use peat_proto::automerge::ChangeHash;
use peat_proto::policy::{Deletion, Table};
use peat_proto::store::Kind;
use peat_proto::{DeleteError, DocId, Marker};

use super::World;
use super::host::Wish;
use super::setup::Setup;
use super::verdict::Fault;
use crate::legacy::{Direction, Tombstone};

/// How documents of a collection are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Marker,
    Soft,
    Never,
}

impl Setup {
    /// The policy of deletion in worlds: as fielded, and one collection that nobody may delete from.
    pub(crate) fn deletion_policy(&self, table: &mut Table) {
        let mut policy = table.of_collection("low");
        policy.deletion = Deletion::Immutable;
        table.set("low", policy);
    }
}

fn way(doc: &DocId) -> Way {
    match doc.collection() {
        "cells" | "tracks" => Way::Marker,
        "low" => Way::Never,
        _ => Way::Soft,
    }
}

impl World {
    /// An application deletes a document, now or when it is in memory.
    pub(crate) fn delete(&mut self, member: usize, doc: &DocId) {
        let now = self.now();
        let host = &mut self.hosts[member];
        let clock = host.clock(now);
        let Some(node) = &mut host.node else { return };
        host.told = now;
        let (way, existed) = (way(doc), node.contains(doc));
        let was_deleted = node.is_deleted(doc);
        match (way, node.delete(clock, doc, Some("over"))) {
            (Way::Marker, Ok(edit)) => {
                self.fired.count(Fault::Delete);
                self.trace.note(now, member as u64, 27, doc.as_str().as_bytes());
                self.model.deleted(member, doc, edit);
            }
            (Way::Soft, Ok(edit)) => {
                self.fired.count(Fault::Delete);
                let heads = node.doc(doc).map(|content| content.get_heads()).unwrap_or_default();
                let [hash] = heads[..] else {
                    return self.violated(Some(member), format!("a deletion of {doc} left {} heads", heads.len()));
                };
                self.trace.note(now, member as u64, 27, &hash.0);
                self.model.edited(member, doc, edit, hash);
            }
            (Way::Never, Err(DeleteError::Immutable)) => self.fired.count(Fault::Refused),
            (Way::Marker | Way::Soft, Err(DeleteError::Deleted)) if was_deleted => self.fired.count(Fault::Refused),
            (Way::Marker | Way::Soft, Err(DeleteError::NotFound)) if !existed => {}
            (Way::Soft, Err(DeleteError::NotLoaded | DeleteError::Busy | DeleteError::Unreadable)) => {
                host.plans.entry(doc.clone()).or_default().push(Wish::Delete);
                return self.open(member, doc);
            }
            (_, Err(DeleteError::Store(_))) if host.refused_writes => {}
            (_, outcome) => {
                return self.violated(Some(member), format!("a deletion of {doc}: {outcome:?}"));
            }
        }
        self.soon(member);
    }

    /// A member that may say so says that a document is deleted. That it made it up nobody can tell; where policy forbids it,
    /// the document stays.
    pub(crate) fn forged(&mut self, doc: &DocId) {
        if way(doc) != Way::Never {
            self.model.released(doc);
        }
    }

    /// A write was refused because its document is deleted.
    pub(crate) fn write_refused(&mut self, member: usize, doc: &DocId) {
        self.fired.count(Fault::Refused);
        if !self.model.may_be_deleted(member, doc) {
            self.violated(Some(member), format!("a write of {doc} is refused, and nobody deleted it"));
        }
    }

    /// An application at a fielded member deletes a document, in the way of its collection. Nobody deletes what is not there:
    /// false.
    pub(crate) fn veteran_delete(&mut self, member: usize, doc: &DocId) -> bool {
        let key = doc.as_str().to_owned();
        let softly = way(doc) != Way::Marker;
        let Some(before) = self.fielded(member).map(|it| it.heads(&key)).filter(|heads| !heads.is_empty()) else {
            return false;
        };
        self.fired.count(Fault::FieldedDelete);
        if !softly {
            self.model.released(doc);
        }
        self.with_veteran(member, |it, now| it.delete(now, &key, Some("over")));
        if !softly && self.fielded(member).is_some_and(|it| it.markers().iter().all(|marker| marker.key() != key)) {
            self.dropped.insert((member, doc.clone()));
        }
        let heads = self.fielded(member).map(|it| it.heads(&key)).unwrap_or_default();
        if let (true, [head]) = (softly && heads != before, &heads[..]) {
            self.promise_of_veteran(member, doc, ChangeHash(*head));
        }
        true
    }

    /// A fielded member tells the nodes that a document is deleted, of which it may never have heard. (Other fielded peers
    /// would believe it whatever the policy.)
    pub(crate) fn veteran_forge(&mut self, member: usize, doc: &DocId, value: u32) {
        let any = |value: u32| [0, 1, u64::from(value), u64::MAX - 1, u64::MAX][value as usize % 5];
        let marker = Tombstone {
            collection: doc.collection().to_owned(),
            id: doc.as_str()[doc.collection().len() + 1..].to_owned(),
            deleted_at_ms: any(value / 5),
            lamport: any(value),
            by: ["0", "somebody else", "~"][value as usize / 25 % 3].to_owned(),
            reason: None,
            direction: if (value / 75).is_multiple_of(2) { Direction::Bidirectional } else { Direction::SystemWide },
        };
        self.fired.count(Fault::FieldedForgery);
        self.forged(doc);
        for node in self.setup.links_of_fielded(member - self.setup.first_fielded()) {
            self.with_veteran(member, |it, now| it.forge(now, Self::peer(node), &marker));
        }
    }

    /// Whatever a member has promised to be deleted is, and nothing else.
    pub(crate) fn check_deletions(&self, member: usize) -> Result<(), String> {
        let Some(node) = &self.hosts[member].node else { return Ok(()) };
        if let Some(doc) = self.model.buried(member).find(|doc| node.contains(doc) || !node.is_deleted(doc)) {
            return Err(format!("{doc} was deleted for ever, and lives"));
        }
        let deleted = node.deleted("").into_iter().filter(|(_, marker)| marker.is_some());
        for (doc, _) in deleted {
            if !self.model.may_be_deleted(member, &doc) {
                return Err(format!("{doc} is deleted, and nobody deleted it"));
            }
        }
        Ok(())
    }

    /// The disk of a node that saved everything holds the markers that its index names, and nothing beside them.
    pub(crate) fn verify_markers(&self, member: usize) -> Result<(), String> {
        let marked = self.hosts[member].disk.documents().filter_map(|(doc, kept)| match &kept.record.kind {
            Kind::Marker(marker) => Some((doc, &**marker, kept.chunks.len())),
            _ => None,
        });
        let marked: Vec<_> = marked.collect();
        if let Some((doc, ..)) = marked.iter().find(|(.., chunks)| *chunks > 0) {
            return Err(format!("the disk holds {doc} beside its marker"));
        }
        let markers = self.markers(member);
        if !marked.iter().map(|(doc, marker, _)| (*doc, *marker)).eq(markers.iter().map(|(doc, marker)| (doc, marker)))
        {
            return Err("the index and the disk's markers differ".to_owned());
        }
        Ok(())
    }

    /// The deletions that a node knows of, soft ones left out.
    pub(crate) fn markers(&self, member: usize) -> Vec<(DocId, Marker)> {
        let deleted = self.node(member).map(|node| node.deleted("")).unwrap_or_default();
        deleted.into_iter().filter_map(|(doc, marker)| Some((doc, marker?))).collect()
    }

    /// A deletion that did not reach everybody: a node that does not know of it, or a fielded peer that still has the document
    /// without having been told.
    pub(crate) fn undone_deletion(&self) -> Option<String> {
        let reference = self.markers(0);
        for member in 0..self.hosts.len() {
            let markers = self.markers(member);
            if markers != reference {
                let differs = markers.iter().zip(&reference).find(|(ours, theirs)| ours != theirs);
                let (ours, theirs) = (markers.len(), reference.len());
                return Some(format!("node {member} knows {ours} deletions, node 0 {theirs}; first {differs:?}"));
            }
        }
        let known: BTreeSet<&DocId> = reference.iter().map(|(doc, _)| doc).collect();
        if let Some(doc) = self.model.buried_anywhere().difference(&known).next() {
            return Some(format!("{doc} was deleted for ever, and not everywhere"));
        }
        known.into_iter().find_map(|doc| self.survivor(doc))
    }

    /// A fielded peer that has a deleted document. Who made it anew behind its marker keeps it and spreads it: nobody can tell
    /// such a peer anything, and nobody knows when it forgets its marker, which it does by a clock that may be days off.
    fn survivor(&self, doc: &DocId) -> Option<String> {
        let key = doc.as_str();
        let members = self.setup.all_fielded().filter_map(|member| Some((member, self.fielded(member)?)));
        let having: Vec<_> = members.filter(|(_, it)| !it.heads(key).is_empty()).collect();
        let relapsed = |member: usize| self.relapsed.contains(&(member, doc.clone()));
        if having.iter().any(|(at, it)| relapsed(*at) || it.markers().iter().any(|marker| marker.key() == key)) {
            return None;
        }
        having.first().map(|(member, _)| format!("fielded peer {member} has {key}, which was deleted"))
    }
}
