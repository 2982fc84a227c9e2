//! Which documents stay in memory.

use std::collections::BTreeMap;

use crate::doc::document::Live;
use crate::id::DocId;

/// The loaded documents in the order of their last use, and what they weigh.
#[derive(Debug)]
pub(crate) struct Cache {
    budget: usize,
    bytes: usize,
    clock: u64,
    order: BTreeMap<u64, (DocId, usize)>,
    /// Those that must stay until they are saved, likewise: looking at them again and again would cost in proportion to
    /// what a slow disk has before it.
    held: BTreeMap<u64, (DocId, usize)>,
    held_bytes: usize,
}

impl Cache {
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, bytes: 0, clock: 0, order: BTreeMap::new(), held: BTreeMap::new(), held_bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len() + self.held.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a document that came into memory.
    pub(crate) fn insert(&mut self, doc: &DocId, live: &mut Live) {
        self.clock += 1;
        live.used = self.clock;
        self.bytes = self.bytes.saturating_add(live.memory);
        self.order.insert(live.used, (doc.clone(), live.memory));
    }

    /// Stops counting a document that leaves memory.
    pub(crate) fn remove(&mut self, live: &Live) {
        let entry = self.order.remove(&live.used).or_else(|| self.unhold(live));
        if let Some((_, memory)) = entry {
            self.bytes = self.bytes.saturating_sub(memory);
        }
    }

    /// Offers a document for eviction again: it has been saved.
    pub(crate) fn release(&mut self, live: &Live) {
        if let Some(entry) = self.unhold(live) {
            self.order.insert(live.used, entry);
        }
    }

    fn unhold(&mut self, live: &Live) -> Option<(DocId, usize)> {
        let entry = self.held.remove(&live.used)?;
        self.held_bytes = self.held_bytes.saturating_sub(entry.1);
        Some(entry)
    }

    /// Bytes of documents that would have been let go of, but for the disk.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Notes a use, and the document's weight now.
    pub(crate) fn touch(&mut self, doc: &DocId, live: &mut Live) {
        self.remove(live);
        self.insert(doc, live);
    }

    /// Sets the budget in bytes; answers the one before.
    pub(crate) fn set_budget(&mut self, budget: usize) -> usize {
        std::mem::replace(&mut self.budget, budget)
    }

    pub(crate) fn is_within_budget(&self) -> bool {
        self.bytes <= self.budget
    }

    /// The loaded documents.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &DocId> {
        self.order.values().chain(self.held.values()).map(|(doc, _)| doc)
    }

    /// Whether the sum is that of its parts.
    pub(crate) fn is_consistent(&self) -> bool {
        let sum = |entries: &BTreeMap<u64, (DocId, usize)>| entries.values().map(|(_, memory)| memory).sum::<usize>();
        self.held_bytes == sum(&self.held) && self.bytes == sum(&self.order) + self.held_bytes
    }

    /// Offers the documents that were used longest ago to `let_go`, until the budget holds. It frees the document, holds it
    /// until it is [released](Self::release), or makes the number it is given the document's last use: one that somebody
    /// needs goes to the back. Each document is offered once at most.
    pub(crate) fn shrink(&mut self, mut let_go: impl FnMut(&DocId, u64) -> Verdict) {
        let end = self.clock;
        while self.bytes > self.budget {
            let Some((used, (doc, memory))) = self.order.pop_first() else { return };
            if used > end {
                self.order.insert(used, (doc, memory));
                return;
            }
            self.clock += 1;
            match let_go(&doc, self.clock) {
                Verdict::Freed => self.bytes = self.bytes.saturating_sub(memory),
                Verdict::Held => {
                    self.held_bytes += memory;
                    self.held.insert(used, (doc, memory));
                }
                Verdict::Stays => {
                    self.order.insert(self.clock, (doc, memory));
                }
            }
        }
    }
}

/// What became of a document that was offered for eviction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Freed,
    Held,
    Stays,
}
