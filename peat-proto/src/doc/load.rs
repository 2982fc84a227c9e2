//! Content coming into memory, and who waits for it.

use bytes::Bytes;

use super::document::{Live, Phase};
use super::history::Report;
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

    /// Forgets what a connection waited for.
    pub(crate) fn disregard(&mut self, conn: ConnId) {
        let mut idle = Vec::new();
        self.attention.retain(|doc, attention| {
            if attention.waiters.remove(&conn) && attention.is_idle() {
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
        self.announce_open(&doc);
        if let Some(attention) = self.attention.get_mut(&doc) {
            if !attention.inbox.is_empty() || attention.save {
                self.ready.insert(doc.clone());
            }
            for conn in std::mem::take(&mut attention.waiters) {
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
        for conn in std::mem::take(&mut attention.waiters) {
            self.effects.push_back(Effect::Denied { conn, doc: doc.clone() });
        }
        for incoming in std::mem::take(&mut attention.inbox) {
            let size = incoming.payload.len();
            let report = Report { source: incoming.source, outcome: Err(Refusal::Quarantined), heads: None, size };
            self.answer(&doc, report);
        }
    }
}
