//! Merging what came in, and telling everyone what came of it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::document::{Document, Live, Phase};
use super::history::{self, Brought, Merged, Report};
use super::inbox::{Incoming, Payload, Portion, Source};
use super::{Docs, Effect, MAX_MERGES, persist};
use crate::config::AdmitLimits;
use crate::heads::Heads;
use crate::id::DocId;
use crate::io::{Event, Origin, Refusal};
use crate::job::{Done, Job, Outcome, Work};
use crate::store::StoreFault;

impl Docs {
    /// Whether neither work waits nor anybody is to be told of any.
    pub(crate) fn is_settled(&self) -> bool {
        self.effects.is_empty() && self.ready.is_empty()
    }

    /// Does one piece of waiting work; false when there is none.
    pub(crate) fn settle(&mut self) -> bool {
        let resumed = if self.may_resume() { self.stalled.pop_first() } else { None };
        let Some(doc) = resumed.or_else(|| self.ready.pop_first()) else { return false };
        let (room, inline) = (self.has_room(), inline(&self.limits));
        let class = self.class(&doc).index();
        let there = |document: &Document| matches!(document.phase, Phase::Live(_)) || document.awaits_birth();
        if !self.classes[class].get(&doc).is_some_and(there) {
            return true;
        }
        let Some(attention) = self.attention.get_mut(&doc) else { return true };
        let restores = attention.inbox.first().is_some_and(|first| first.source == Source::Restore);
        let mut incoming = Vec::new();
        if room || restores {
            incoming = std::mem::take(&mut attention.inbox);
        } else if !attention.inbox.is_empty() {
            self.stalled.insert(doc.clone());
        }
        if restores {
            // What comes back counts differently from what is new: one after the other.
            attention.inbox = incoming.split_off(1);
        }
        if incoming.is_empty() {
            self.save_if_asked(doc);
            return true;
        }
        self.begin(&doc);
        let Some(document) = self.classes[class].get_mut(&doc) else { return true };
        let Phase::Live(mut live) = std::mem::replace(&mut document.phase, Phase::Busy) else { return true };
        let size: u64 = incoming.iter().map(|incoming| incoming.payload.len() as u64).sum();
        if document.bytes.max(size) <= self.merge_inline && live.extent.bytes() <= inline.expanded {
            let portion = Portion::of(incoming, &inline);
            if portion.is_all() {
                self.cache.remove(&live);
                let merged = live.merge(portion, &self.limits);
                self.conclude(doc, live, merged);
                return true;
            }
            incoming = portion.into_inbox();
        }
        if self.merging >= MAX_MERGES && !restores {
            document.phase = Phase::Live(live);
            self.attention.entry(doc.clone()).or_default().inbox = incoming;
            self.stalled.insert(doc);
        } else {
            self.merging += 1;
            self.cache.remove(&live);
            let work = Work::Merge { live, incoming, limits: self.limits };
            self.effects.push_back(Effect::Work(Job::new(doc, work)));
        }
        true
    }

    /// Prepares a saved form, if somebody asked for one and the content is in memory.
    fn save_if_asked(&mut self, doc: DocId) {
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        let Phase::Live(_) = document.phase else { return };
        if !self.attention.get_mut(&doc).is_some_and(|attention| std::mem::take(&mut attention.save)) {
            return;
        }
        let Phase::Live(mut live) = std::mem::replace(&mut document.phase, Phase::Busy) else { return };
        self.cache.remove(&live);
        self.stats.saves += 1;
        let (at, whole) = (document.offered.clone(), document.local().is_empty());
        if document.bytes > self.merge_inline {
            self.effects.push_back(Effect::Work(Job::new(doc, Work::Save { live, at, whole })));
        } else {
            live.prepare(at, whole);
            self.become_live(doc, live);
        }
    }

    /// Whether more may be merged: so much of it waits for the disk, with its values expanded, and no more.
    fn has_room(&self) -> bool {
        self.received.saturating_sub(self.waiting) <= self.most_received
    }

    /// Whether what stalled may go on.
    pub(super) fn may_resume(&self) -> bool {
        self.has_room() && self.merging < MAX_MERGES
    }

    /// Counts what waits to be merged.
    pub(super) fn note_arrival(&mut self, incoming: &Incoming) {
        self.received += incoming.cost();
        self.waiting += incoming.cost();
    }

    pub(crate) fn worked(&mut self, done: Done) {
        let Done { doc, outcome } = done;
        if !matches!(self.get(&doc).map(|document| &document.phase), Some(Phase::Busy)) {
            return self.worked_for_nothing(&doc, outcome);
        }
        if matches!(outcome, Outcome::Loaded(_)) {
            self.parsing.remove(&doc);
            self.start_loads();
        }
        match outcome {
            Outcome::Loaded(Some(live)) => self.become_live(doc, live),
            Outcome::Loaded(None) => self.quarantine(doc, StoreFault::Damaged),
            Outcome::Merged(live, merged) => {
                self.merging = self.merging.saturating_sub(1);
                self.conclude(doc, live, merged);
            }
            Outcome::Saved(live) => {
                // A prepared form that compacts what is stored is written in its place.
                let class = self.class(&doc).index();
                if let Some(document) = self.classes[class].get_mut(&doc)
                    && persist::is_due(document.chunks, document.bytes, &live)
                {
                    let unsaved = document.unsaved.get_or_insert_default();
                    self.writer.enqueue(&doc, unsaved);
                }
                self.become_live(doc, live);
            }
        }
    }

    /// Accounts for what a worker did with a document that was deleted meanwhile.
    fn worked_for_nothing(&mut self, doc: &DocId, outcome: Outcome) {
        self.idle_jobs.remove(doc);
        if let Outcome::Merged(_, merged) = outcome {
            self.merging = self.merging.saturating_sub(1);
            let rest = merged.rest.into_iter().map(|left| (left.source, left.payload.len()));
            let all = merged.reports.into_iter().map(|report| (report.source, report.size)).chain(rest);
            for (source, size) in all {
                let outcome = Err(Refusal::Deleted);
                self.answer(doc, Report { source, outcome, brought: Brought::Unknown, size });
            }
        }
        self.start_loads();
    }

    /// Puts a merged document back and tells everyone what came of it.
    pub(super) fn conclude(&mut self, doc: DocId, mut live: Box<Live>, merged: Merged) {
        let Merged { mut added, bytes, mut reports, rest, broken, blank } = merged;
        self.blank = blank.or(self.blank.take());
        if !rest.is_empty() {
            self.attention.entry(doc.clone()).or_default().inbox.splice(0..0, rest);
        }
        if broken {
            return self.reload(doc, reports);
        }
        let facts = history::facts(&live.doc);
        if !self.get(&doc).is_some_and(Document::is_known) && self.is_over(&doc, facts) {
            *live = Live::blank(&self.actor);
            added.clear();
            for report in reports.iter_mut().filter(|report| report.is_fresh()) {
                (report.outcome, report.brought) = (Err(Refusal::Expired), Brought::Unknown);
            }
        }
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        let existed = document.exists();
        let before = document.offered.clone();
        let mut sources = Vec::new();
        let mut origins = BTreeSet::new();
        for report in &reports {
            let (new, known) = report.outcome.unwrap_or_default();
            match report.source {
                Source::Peer(conn, peer) => {
                    self.stats.changes_applied += new;
                    self.stats.changes_known += known;
                    sources.push(conn);
                    if new > 0 {
                        origins.insert(Origin::Peer(peer));
                    }
                }
                Source::Import(_) if new > 0 => {
                    origins.insert(Origin::Local);
                }
                Source::Import(_) | Source::Restore => {}
            }
        }
        if !added.is_empty() {
            // What comes back after a failed merge was offered or held back before; neither changes by it.
            if !reports.iter().any(|report| report.source == Source::Restore) {
                let import = reports.iter().filter_map(Report::imported).max();
                let unsaved = document.unsaved.get_or_insert_default();
                unsaved.bytes.extend_from_slice(&bytes);
                let free = unsaved.hold_back(added, import);
                // What is held counts, not what it was compressed to.
                let counted: usize = reports.iter().filter(|report| report.is_fresh()).map(|report| report.size).sum();
                let more = bytes.len().saturating_sub(counted);
                unsaved.received += more;
                self.received += more;
                self.scopes.remove(&self.policy, &doc, document.offer());
                document.offered = before.advanced(free.iter().map(|(hash, deps)| (*hash, deps.as_slice())));
                self.scopes.insert(&self.policy, &doc, document.offer());
            }
            if let Some(unsaved) = &mut document.unsaved {
                self.writer.enqueue(&doc, unsaved);
            }
        }
        let moved = document.offered != before;
        let changed = !origins.is_empty();
        let heads = document.heads();
        self.existing += u64::from(!existed && document.exists());
        let known = document.is_known();
        if known {
            self.note_facts(&doc, facts);
        }
        for report in reports {
            self.answer(&doc, report);
        }
        if changed {
            for origin in origins {
                let event = Event::Changed { doc: doc.clone(), origin, heads: heads.clone() };
                self.effects.push_back(Effect::Event(event));
            }
        }
        if moved {
            self.effects.push_back(Effect::Moved { doc: doc.clone(), before, sources });
        }
        if known {
            self.become_live(doc, live);
        } else {
            self.become_live(doc.clone(), live);
            self.drop_unborn(&doc);
        }
    }

    /// Automerge failed in the middle of a merge: start again from the store, with what it does not hold yet.
    pub(super) fn reload(&mut self, doc: DocId, reports: Vec<Report>) {
        for report in reports {
            self.answer(&doc, report);
        }
        let Some(document) = self.get_mut(&doc) else { return };
        let unsaved = document.unsaved.as_ref().map(|unsaved| Bytes::copy_from_slice(&unsaved.bytes));
        let (known, stored) = (document.is_known(), document.chunks > 0);
        document.phase = Phase::Cold;
        let carried = self.writer.carried(&doc);
        if !stored && carried.is_none() {
            let live = Box::new(Live::blank(&self.actor));
            self.become_live(doc.clone(), live);
        }
        if !known {
            return self.drop_unborn(&doc);
        }
        // What a batch carries may yet fail: it comes back with the rest, and is known already if it did not.
        let bytes = Bytes::from([carried.unwrap_or_default(), unsaved.unwrap_or_default()].concat());
        if !bytes.is_empty() {
            let incoming = Incoming { source: Source::Restore, payload: Payload::Saved(bytes) };
            self.note_arrival(&incoming);
            self.attention.entry(doc.clone()).or_default().inbox.insert(0, incoming);
        }
        self.fetch(&doc);
    }

    /// Accounts for one report and passes it on to whoever sent the changes.
    pub(super) fn answer(&mut self, doc: &DocId, report: Report) {
        let Report { source, outcome, brought, size } = report;
        let fresh = outcome.is_ok_and(|(new, _)| new > 0);
        self.waiting = self.waiting.saturating_sub(size.saturating_add(Incoming::PLACE));
        self.received = self.received.saturating_sub(Incoming::PLACE);
        self.stats.too_large += u64::from(outcome == Err(Refusal::TooLarge));
        match self.get_mut(doc).and_then(|document| document.unsaved.as_mut()) {
            Some(unsaved) if fresh => unsaved.received += size,
            _ => self.received = self.received.saturating_sub(size),
        }
        match source {
            Source::Restore => {}
            Source::Peer(conn, _) => {
                self.stats.refused += u64::from(outcome.is_err());
                let outcome = outcome.map(|_| ());
                self.effects.push_back(Effect::Answered { conn, doc: doc.clone(), outcome, brought });
            }
            Source::Import(edit) => {
                let known = self.get(doc).map_or(Heads::NONE, Document::heads);
                let event = Event::Imported { doc: doc.clone(), outcome: outcome.map(|_| known), edit };
                self.effects.push_back(Effect::Event(event));
                match self.get_mut(doc).and_then(|document| document.unsaved.as_mut()) {
                    Some(unsaved) if outcome.is_ok() => unsaved.edit = unsaved.edit.max(Some(edit)),
                    None if outcome.is_ok() => {
                        self.effects.push_back(Effect::Event(Event::Durable { doc: doc.clone(), edit }));
                    }
                    Some(_) | None => {}
                }
            }
        }
    }
}

/// What may be merged on the caller's thread: 8,192 operations or changes at 2 us each, or 1 MiB, at 10 ns a byte to inflate
/// and hash.
fn inline(limits: &AdmitLimits) -> AdmitLimits {
    const SMALL: u64 = 1 << 13;
    AdmitLimits {
        expanded: limits.expanded.min(1 << 20),
        operations: limits.operations.min(SMALL),
        changes: limits.changes.min(SMALL),
        ..*limits
    }
}

#[cfg(test)]
mod tests;
