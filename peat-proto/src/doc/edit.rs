//! Changes coming in: local edits, imports, and what peers deliver.

use automerge::transaction::{CommitOptions, Transaction};
use bytes::Bytes;

use super::document::{Document, Live, LocalChange, Phase};
use super::extent::weight;
use super::history;
use super::inbox::{Incoming, Payload, Source};
use super::{Docs, Effect};
use crate::error::EditError;
use crate::id::{DocId, EditId};
use crate::io::{Event, Origin, Refusal};
use crate::store::Kind;
use crate::time::Now;

impl Docs {
    /// Runs a transaction; see [`Node::edit`](crate::Node::edit).
    pub(crate) fn edit<R, E>(
        &mut self,
        now: Now,
        doc: &DocId,
        largest: usize,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<R, EditError<E>> {
        if let Some(fault) = self.writer.refusing() {
            return Err(EditError::Store(fault));
        }
        let actor = self.actor.clone();
        let class = self.class(doc).index();
        let mut fresh = None;
        self.begin(doc);
        let live = match self.classes[class].get_mut(doc) {
            None => fresh.insert(Live::blank(&actor)),
            Some(document) if document.marker().is_some() => return Err(EditError::Deleted),
            Some(document) if document.kind != Kind::Automerge => return Err(EditError::Unreadable),
            Some(document) => match &mut document.phase {
                Phase::Live(live) => live.as_mut(),
                Phase::Busy => return Err(EditError::Busy),
                Phase::Cold | Phase::Loading => return Err(EditError::NotLoaded),
                Phase::Quarantined | Phase::Buried => return Err(EditError::Unreadable),
            },
        };
        let before = live.doc.get_heads();
        let mut transaction = live.doc.transaction();
        // Dropping the transaction, on an error or on a panic in `f`, rolls it back.
        let value = f(&mut transaction).map_err(EditError::Aborted)?;
        let seconds = i64::try_from(now.unix_ms / 1000).unwrap_or(i64::MAX);
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(seconds));
        let Some(hash) = hash else { return Ok(value) };
        let Some(change) = live.doc.get_last_local_change().filter(|change| change.hash() == hash) else {
            return Ok(value);
        };
        if change.raw_bytes().len() > largest {
            if let Some(doc) = history::rolled_back(&live.doc, &before, &actor) {
                live.doc = doc;
            }
            return Err(EditError::TooLarge);
        }
        live.memory = live.memory.saturating_add(100 + change.raw_bytes().len());
        live.extent.grow(weight(&change));
        let facts = history::facts(&live.doc);
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        self.stats.edits += 1;
        if let Some(live) = fresh {
            self.admit_new(doc, Phase::Live(Box::new(live)));
        }
        let (hash, deps, bytes) = (change.hash(), change.deps().to_vec(), change.raw_bytes());
        if let Some(document) = self.classes[class].get_mut(doc) {
            let existed = document.exists();
            let unsaved = document.unsaved.get_or_insert_default();
            unsaved.bytes.extend_from_slice(bytes);
            unsaved.local.push(LocalChange { edit, hash, deps });
            unsaved.edit = Some(edit);
            self.writer.enqueue(doc, unsaved);
            self.existing += u64::from(!existed && document.exists());
            let heads = document.heads();
            self.effects.push_back(Effect::Event(Event::Changed { doc: doc.clone(), origin: Origin::Local, heads }));
        }
        self.note_facts(doc, facts);
        self.touch(doc);
        Ok(value)
    }

    pub(crate) fn last_edit(&self) -> EditId {
        EditId(self.next_edit)
    }

    /// Takes what an application imports; answered by `Event::Imported`.
    pub(crate) fn import(&mut self, doc: &DocId, changes: Bytes) {
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        let source = Source::Import(edit);
        if let Err(refusal) = self.deliver(doc, Incoming { source, payload: Payload::Saved(changes) }) {
            let event = Event::Imported { doc: doc.clone(), outcome: Err(refusal), edit };
            self.effects.push_back(Effect::Event(event));
        }
    }

    /// Queues changes for a document; the outcome comes as `Effect::Answered` or `Event::Imported`.
    pub(crate) fn deliver(&mut self, doc: &DocId, incoming: Incoming) -> Result<(), Refusal> {
        match self.get(doc) {
            Some(document) if document.marker().is_some() => return Err(Refusal::Deleted),
            Some(document) if document.kind != Kind::Automerge => return Err(Refusal::Foreign),
            // Datagrams know no credit, and every new connection brings its own.
            _ if self.received > self.most_received && matches!(incoming.source, Source::Peer(..)) => {
                return Err(Refusal::Busy);
            }
            Some(_) => {}
            None => self.admit_new(doc, Phase::Cold),
        }
        self.note_arrival(&incoming);
        self.attention.entry(doc.clone()).or_default().inbox.push(incoming);
        self.fetch(doc);
        Ok(())
    }

    /// Gives a document that has no content yet a blank one, which takes 12 kB: only when somebody works on it.
    pub(super) fn begin(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if let Some(document) = self.classes[class].get_mut(doc)
            && document.awaits_birth()
        {
            let blank = self.blank.take();
            let mut live = Box::new(blank.map_or_else(|| Live::blank(&self.actor), |blank| Live::around_blank(*blank)));
            self.cache.insert(doc, &mut live);
            document.phase = Phase::Live(live);
        }
    }

    pub(super) fn admit_new(&mut self, doc: &DocId, phase: Phase) {
        let mut document = Document::unborn(self.draw_slot());
        document.phase = phase;
        if let Phase::Live(live) = &mut document.phase {
            self.cache.insert(doc, live);
        }
        self.classes[self.class(doc).index()].insert(doc.clone(), document);
    }

    pub(super) fn drop_unborn(&mut self, doc: &DocId) {
        let class = self.class(doc).index();
        if self.attention.get(doc).is_some_and(|attention| attention.opens == 0 && attention.inbox.is_empty()) {
            self.attention.remove(doc);
        }
        let stays = |document: &Document| document.is_known() || matches!(document.phase, Phase::Busy);
        if self.attention.contains_key(doc) || self.get(doc).is_none_or(stays) {
            return;
        }
        let removed = self.classes[class].remove(doc);
        if let Some(Document { slot, phase, .. }) = removed {
            self.free_slots.push(slot);
            if let Phase::Live(live) = phase {
                self.cache.remove(&live);
            }
        }
    }
}
