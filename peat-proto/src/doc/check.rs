//! The invariants of the index, the cache and what is on its way to the store.

use std::collections::BTreeMap;

use super::document::{Document, Phase};
use super::inbox::Incoming;
use super::scopes::{Scope, ScopeMask, Sum};
use super::{Attention, Docs};
use crate::check::Violation;
use crate::heads::Heads;
use crate::id::{ConnId, DocId};

impl Docs {
    /// Checks what holds between drains.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        Violation::of_node(self.effects.is_empty() && self.ready.is_empty(), "a drained node has no work left")?;
        let (mut existing, mut markers, mut live, mut slots) = (0, 0, 0, Vec::new());
        let mut sums: BTreeMap<Scope, Sum> = BTreeMap::new();
        for (doc, document) in self.classes.iter().flatten() {
            self.check_document(doc, document)?;
            if let Some((scope, item)) = self.scopes.item(&self.policy, doc, document.offer()) {
                let sum = sums.entry(scope).or_default();
                *sum = sum.plus(Sum::of(&item));
                let found = self.scopes.find(ScopeMask::of(scope), &item.symbol) == Some(doc);
                Violation::of_doc(found || !self.scopes.is_complete(), "what is offered is in its scope", doc)?;
            }
            existing += u64::from(document.exists());
            markers += u64::from(document.marker().is_some());
            live += usize::from(document.live().is_some());
            slots.push(document.slot);
        }
        Violation::of_node(self.writer.is_distinct(), "no document waits twice to be written")?;
        let whole = sums.values().fold(Sum::default(), |whole, sum| whole.plus(*sum));
        let follow = sums.iter().all(|(scope, sum)| self.scopes.sum(ScopeMask::of(*scope)) == *sum);
        let follow = follow && self.scopes.sum(ScopeMask::ALL) == whole;
        Violation::of_node(follow || !self.scopes.is_complete(), "the scopes follow the documents")?;
        Violation::of_node(existing == self.existing, "existing documents are counted")?;
        Violation::of_node(markers == self.markers, "markers are counted")?;
        Violation::of_node(live == self.cache.len(), "the cache knows every loaded document")?;
        Violation::of_node(slots.iter().all(|slot| *slot < self.next_slot), "slots are drawn")?;
        slots.sort_unstable();
        Violation::of_node(slots.is_sorted_by(|a, b| a < b), "no slot is used twice")?;
        let phase = |doc| self.get(doc).map(|document| &document.phase);
        for doc in &self.to_load {
            let loading = matches!(phase(doc), Some(Phase::Loading));
            Violation::of_doc(loading, "only a loading document waits to be loaded", doc)?;
        }
        for doc in self.loads.values() {
            // It may be deleted before it is loaded.
            let loading = matches!(phase(doc), Some(Phase::Loading | Phase::Buried));
            Violation::of_doc(loading, "only a loading document is loaded", doc)?;
        }
        Violation::of_node(
            self.stalled.is_empty() || !self.may_resume(),
            "what waits for room goes on when there is some",
        )?;
        self.check_received()?;
        self.check_cache()
    }

    /// Whether something is under way for this document that will wake this connection's exchange.
    pub(crate) fn attends(&self, doc: &DocId, conn: ConnId) -> bool {
        let busy = self.get(doc).is_some_and(|document| matches!(document.phase, Phase::Busy));
        let attention = self.attention.get(doc);
        let waits = |attention: &Attention| attention.waiters.contains(&conn) || attention.copiers.contains(&conn);
        busy || self.idle_jobs.contains(doc)
            || attention.is_some_and(|attention| waits(attention) || !attention.inbox.is_empty())
    }

    /// Evicts everything that may be.
    pub(crate) fn evict_all(&mut self) {
        let budget = self.cache.set_budget(0);
        self.evict();
        self.cache.set_budget(budget);
    }

    fn check_document(&self, doc: &DocId, document: &Document) -> Result<(), Violation> {
        let rule = |holds, rule| Violation::of_doc(holds, rule, doc);
        let attention = self.attention.get(doc);
        let inbox = attention.is_some_and(|attention| !attention.inbox.is_empty()) && !self.stalled.contains(doc);
        match &document.phase {
            Phase::Cold | Phase::Quarantined => rule(!inbox, "what arrived is worked on or answered")?,
            Phase::Loading => {
                let mut awaited = self.loads.values().chain(&self.to_load);
                rule(awaited.any(|awaited| awaited == doc), "a loading document is asked of the store")?;
            }
            Phase::Busy => {}
            Phase::Buried => {
                rule(!inbox && !self.stalled.contains(doc), "what arrives for a deleted document is answered")?;
                let bare = document
                    .unsaved
                    .as_ref()
                    .is_none_or(|unsaved| unsaved.bytes.is_empty() && unsaved.local.is_empty());
                rule(bare, "nothing is left of a deleted document")?;
            }
            Phase::Live(live) => {
                rule(!inbox, "what arrived is merged at once")?;
                rule(Heads::new(live.doc.get_heads()) == document.heads(), "heads are those of the content")?;
            }
        }
        if let Some(unsaved) = &document.unsaved {
            let under_way = unsaved.queued || self.writer.carried(doc).is_some();
            rule(under_way, "what is unsaved is on its way to the store")?;
            rule(unsaved.queued || unsaved.bytes.is_empty(), "unsaved bytes wait for a batch")?;
            rule(!unsaved.own_marker || document.marker().is_some(), "only a marker is held back as one")?;
            rule(!unsaved.queued || self.writer.awaits(doc), "a queued document stands in the queue")?;
        }
        let busy = matches!(document.phase, Phase::Busy);
        let buried = matches!(document.phase, Phase::Buried);
        rule(buried == document.marker().is_some(), "a deleted document is buried")?;
        rule(document.is_known() || busy || attention.is_some(), "an unborn document is waited for")
    }

    fn check_received(&self) -> Result<(), Violation> {
        let documents = || self.classes.iter().flat_map(|class| class.values());
        if !self.idle_jobs.is_empty() || documents().any(|document| matches!(document.phase, Phase::Busy)) {
            return Ok(());
        }
        let inboxes = self.attention.values().flat_map(|attention| &attention.inbox);
        let waiting: usize = inboxes.map(Incoming::cost).sum();
        let unsaved: usize =
            documents().filter_map(|document| document.unsaved.as_ref()).map(|unsaved| unsaved.received).sum();
        Violation::of_node(self.waiting == waiting, "bytes that are not merged yet are counted")?;
        let counted = waiting + unsaved + self.writer.carried_bytes();
        Violation::of_node(self.received == counted, "received bytes are counted until they are durable")
    }

    /// Above its budget the cache holds only what may not go.
    fn check_cache(&self) -> Result<(), Violation> {
        Violation::of_node(self.cache.is_consistent(), "the cache counts its bytes")?;
        if self.cache.is_within_budget() {
            return Ok(());
        }
        let pinned = |doc: &DocId| {
            self.attention.contains_key(doc) || self.get(doc).is_some_and(|document| !document.is_clean())
        };
        let loose = self.cache.documents().find(|doc| !pinned(doc));
        loose.map_or(Ok(()), |doc| Violation::of_doc(false, "the cache stays within its budget", doc))
    }
}
