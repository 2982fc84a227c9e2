//! Content coming into memory, and who waits for it.

use bytes::Bytes;

use super::document::{Document, Live, Phase};
use super::history::{Brought, Report};
use super::{Docs, Effect, MAX_LOADS};
use crate::id::{ConnId, DocId, LoadId};
use crate::io::{Event, Refusal};
use crate::job::{Job, Work};
use crate::store::{Kind, StoreFault};

impl Docs {
    /// Calls `Wake` for this connection once the document's content is in memory.
    pub(crate) fn await_content(&mut self, doc: &DocId, conn: ConnId) {
        self.attention.entry(doc.clone()).or_default().waiters.insert(conn);
        self.fetch(doc);
    }

    /// Calls `Wake` for this connection once a saved form is prepared.
    pub(crate) fn await_saved(&mut self, doc: &DocId, conn: ConnId) {
        let attention = self.attention.entry(doc.clone()).or_default();
        attention.waiters.insert(conn);
        attention.save = true;
        self.ready.insert(doc.clone());
    }

    /// Calls `Wake` for this connection once the bytes that the store has of a cold document are in memory.
    pub(crate) fn await_stored(&mut self, doc: &DocId, conn: ConnId) {
        self.attention.entry(doc.clone()).or_default().copiers.insert(conn);
        self.fetch(doc);
    }

    /// Lets go of the bytes that the store has of a document.
    pub(crate) fn drop_copy(&mut self, doc: &DocId) {
        if let Some(copy) = self.copies.remove(doc) {
            self.copied_bytes = self.copied_bytes.saturating_sub(copy.len());
        }
    }

    /// Forgets what a connection waited for.
    pub(crate) fn disregard(&mut self, conn: ConnId) {
        let mut idle = Vec::new();
        self.attention.retain(|doc, attention| {
            let waited = attention.waiters.remove(&conn) | attention.copiers.remove(&conn);
            if waited && attention.is_idle() {
                idle.push(doc.clone());
            }
            !attention.is_idle()
        });
        for doc in idle {
            self.drop_unborn(&doc);
        }
    }

    pub(crate) fn open(&mut self, doc: &DocId) {
        if self.get(doc).is_some_and(|document| matches!(document.kind, Kind::Other(_))) {
            self.effects.push_back(Effect::Event(Event::OpenFailed { doc: doc.clone(), fault: StoreFault::Damaged }));
            return;
        }
        let attention = self.attention.entry(doc.clone()).or_default();
        attention.opens += 1;
        attention.opening = true;
        match self.get(doc).map(|document| &document.phase) {
            None | Some(Phase::Live(_) | Phase::Buried) => self.announce_open(doc),
            Some(_) => self.fetch(doc),
        }
    }

    pub(crate) fn close(&mut self, doc: &DocId) {
        if let Some(attention) = self.attention.get_mut(doc) {
            attention.opens = attention.opens.saturating_sub(1);
            if attention.is_idle() {
                self.attention.remove(doc);
                self.drop_unborn(doc);
            }
        }
    }

    pub(crate) fn loaded(&mut self, load: LoadId, chunks: Vec<Bytes>) {
        let Some(doc) = self.loads.remove(&load) else { return };
        if !matches!(self.get(&doc).map(|document| &document.phase), Some(Phase::Loading)) {
            // It was deleted meanwhile.
            return self.start_loads();
        }
        if self.copy_out(&doc, &chunks) {
            return self.start_loads();
        }
        let size: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if size > self.load_inline {
            if let Some(document) = self.get_mut(&doc) {
                document.phase = Phase::Busy;
            }
            // It keeps its place among the loads until a worker has parsed it.
            self.parsing.insert(doc.clone());
            let work = Work::Load { chunks, actor: self.actor.clone() };
            self.effects.push_back(Effect::Work(Job::new(doc, work)));
        } else {
            self.start_loads();
            match Live::load(&chunks, &self.actor) {
                Some(live) => self.become_live(doc, Box::new(live)),
                None => self.quarantine(doc, StoreFault::Damaged),
            }
        }
    }

    /// Keeps the bytes as they are, if nobody wants more; whether that is so.
    fn copy_out(&mut self, doc: &DocId, chunks: &[Bytes]) -> bool {
        /// Copies that are held at once: 4 MiB, some 15,000 small documents. Beyond it all are asked for anew.
        const MOST: usize = 4 << 20;
        let loading = self.get(doc).is_some_and(|document| matches!(document.phase, Phase::Loading));
        let Some(attention) = self.attention.get_mut(doc).filter(|_| loading) else { return false };
        let copiers = std::mem::take(&mut attention.copiers);
        if !attention.is_idle() {
            attention.waiters.extend(copiers);
            return false;
        }
        self.attention.remove(doc);
        if self.copied_bytes > MOST {
            self.copies.clear();
            self.copied_bytes = 0;
        }
        let copy = match chunks {
            [one] => one.clone(),
            several => several.concat().into(),
        };
        self.drop_copy(doc);
        self.copied_bytes += copy.len();
        self.copies.insert(doc.clone(), copy);
        if let Some(document) = self.get_mut(doc) {
            document.phase = Phase::Cold;
        }
        for conn in copiers {
            self.effects.push_back(Effect::Wake { conn, doc: doc.clone() });
        }
        true
    }

    pub(crate) fn load_failed(&mut self, load: LoadId, fault: StoreFault) {
        let Some(doc) = self.loads.remove(&load) else { return };
        self.stats.store_faults += 1;
        self.start_loads();
        if matches!(self.get(&doc).map(|document| &document.phase), Some(Phase::Loading)) {
            self.quarantine(doc, fault);
        }
    }

    /// Makes sure that content comes into memory, and is worked on once it is there.
    pub(super) fn fetch(&mut self, doc: &DocId) {
        if self.get(doc).is_some_and(Document::awaits_birth) {
            self.ready.insert(doc.clone());
            return;
        }
        match self.get_mut(doc).map(|document| &mut document.phase) {
            Some(phase @ (Phase::Cold | Phase::Quarantined)) => {
                *phase = Phase::Loading;
                self.to_load.push_back(doc.clone());
                self.start_loads();
            }
            Some(Phase::Live(_)) => {
                self.ready.insert(doc.clone());
            }
            Some(Phase::Loading | Phase::Busy | Phase::Buried) | None => {}
        }
    }

    pub(super) fn start_loads(&mut self) {
        while self.loads.len() + self.parsing.len() < MAX_LOADS {
            let Some(doc) = self.to_load.pop_front() else { return };
            self.next_load += 1;
            let load = LoadId(self.next_load);
            self.stats.loads += 1;
            self.loads.insert(load, doc.clone());
            self.effects.push_back(Effect::Load(load, doc));
        }
    }

    pub(super) fn become_live(&mut self, doc: DocId, mut live: Box<Live>) {
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        self.cache.insert(&doc, &mut live);
        document.phase = Phase::Live(live);
        self.drop_copy(&doc);
        self.announce_open(&doc);
        if let Some(attention) = self.attention.get_mut(&doc) {
            if !attention.inbox.is_empty() || attention.save {
                self.ready.insert(doc.clone());
            }
            let mut waiters = std::mem::take(&mut attention.waiters);
            waiters.append(&mut attention.copiers);
            for conn in waiters {
                self.effects.push_back(Effect::Wake { conn, doc: doc.clone() });
            }
            if attention.is_idle() {
                self.attention.remove(&doc);
            }
        }
    }

    pub(super) fn announce_open(&mut self, doc: &DocId) {
        if let Some(attention) = self.attention.get_mut(doc)
            && std::mem::take(&mut attention.opening)
        {
            self.effects.push_back(Effect::Event(Event::Opened { doc: doc.clone() }));
        }
    }

    pub(super) fn quarantine(&mut self, doc: DocId, fault: StoreFault) {
        if let Some(document) = self.get_mut(&doc) {
            document.phase = Phase::Quarantined;
        }
        self.stats.quarantined += 1;
        self.effects.push_back(Effect::Event(Event::Quarantined { doc: doc.clone(), fault }));
        let Some(mut attention) = self.attention.remove(&doc) else { return };
        if attention.opens > 0 {
            self.effects.push_back(Effect::Event(Event::OpenFailed { doc: doc.clone(), fault }));
        }
        let mut waiters = std::mem::take(&mut attention.waiters);
        waiters.append(&mut attention.copiers);
        for conn in waiters {
            self.effects.push_back(Effect::Denied { conn, doc: doc.clone() });
        }
        for incoming in std::mem::take(&mut attention.inbox) {
            let size = incoming.payload.len();
            let report =
                Report { source: incoming.source, outcome: Err(Refusal::Quarantined), brought: Brought::Unknown, size };
            self.answer(&doc, report);
        }
    }
}
