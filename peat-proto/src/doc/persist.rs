//! What is on its way to the store: one batch at a time, made of everything that waits when the last one is done.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::document::{Live, Phase, Unsaved};
use super::{Docs, Effect, history};
use crate::id::{DocId, EditId, PeerId, Seq};
use crate::io::Event;
use crate::store::{Batch, Op, Record, StoreFault};
use crate::time::Time;

/// Bytes after which a batch is full: 4 MiB, 40 ms of a disk at 100 MB/s, eight times its fsync.
const BATCH_BYTES: usize = 4 << 20;

/// Chunks of a document after which it is saved anew as one. Appended changes cost 10 to 30 times the compact form.
const MAX_CHUNKS: u32 = 64;

/// The queue of what is unsaved, and the batch under way.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: VecDeque<DocId>,
    /// Operations that concern no content; they go first.
    others: Vec<Op>,
    last: u64,
    state: State,
    /// Set by a failed batch, cleared by a durable one; with the number of failures in a row.
    trouble: Option<(StoreFault, u32)>,
    retry_min: Duration,
    retry_max: Duration,
}

#[derive(Debug)]
enum State {
    Idle,
    Writing(Flight),
    /// The last batch failed; what it carried waits in the queue again.
    Failed {
        until: Time,
    },
}

#[derive(Debug)]
struct Flight {
    seq: Seq,
    docs: Vec<Carried>,
    others: Vec<Op>,
}

/// One document of a batch.
#[derive(Debug)]
struct Carried {
    doc: DocId,
    /// The changes that were not durable before this batch.
    unsaved: Bytes,
    edit: Option<EditId>,
    received: usize,
    record: Record,
    replaced: bool,
}

impl Writer {
    pub(crate) fn new(retry_min: Duration, retry_max: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            others: Vec::new(),
            last: 0,
            state: State::Idle,
            trouble: None,
            retry_min,
            retry_max,
        }
    }

    /// Has the document written with the next batch.
    pub(crate) fn enqueue(&mut self, doc: &DocId, unsaved: &mut Unsaved) {
        if !std::mem::replace(&mut unsaved.queued, true) {
            self.queue.push_back(doc.clone());
        }
    }

    /// Has an operation run that concerns no content, with the next batch and before what is enqueued.
    pub(crate) fn run(&mut self, op: Op) {
        self.others.push(op);
    }

    /// Whether edits are refused, because the store failed and has not recovered.
    pub(crate) fn refusing(&self) -> Option<StoreFault> {
        self.trouble.map(|(fault, _)| fault)
    }

    /// The changes that the batch under way carries for this document.
    pub(crate) fn carried(&self, doc: &DocId) -> Option<Bytes> {
        match &self.state {
            State::Writing(flight) => {
                flight.docs.iter().find(|carried| carried.doc == *doc).map(|carried| carried.unsaved.clone())
            }
            State::Idle | State::Failed { .. } => None,
        }
    }

    /// Whether the document waits for a batch.
    pub(crate) fn awaits(&self, doc: &DocId) -> bool {
        self.queue.contains(doc)
    }

    /// Whether no document waits twice.
    pub(crate) fn is_distinct(&self) -> bool {
        self.queue.iter().collect::<std::collections::BTreeSet<_>>().len() == self.queue.len()
    }

    /// Received bytes that the batch under way carries.
    pub(crate) fn carried_bytes(&self) -> usize {
        match &self.state {
            State::Writing(flight) => flight.docs.iter().map(|carried| carried.received).sum(),
            State::Idle | State::Failed { .. } => 0,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Failed { until } => Some(*until),
            State::Idle | State::Writing(_) => None,
        }
    }
}

impl Docs {
    pub(crate) fn write_deadline(&self) -> Option<Time> {
        self.writer.deadline()
    }

    /// Writes down that a peer may sync; answered by `Effect::Admitted`.
    pub(crate) fn admit_peer(&mut self, peer: PeerId) {
        let is_known = |op: &Op| matches!(op, Op::Admit { peer: known } if *known == peer);
        let under_way = match &self.writer.state {
            State::Writing(flight) => flight.others.iter().any(is_known),
            State::Idle | State::Failed { .. } => false,
        };
        if !under_way && !self.writer.others.iter().any(is_known) {
            self.writer.others.push(Op::Admit { peer });
        }
    }

    /// Writes down that a peer may not sync any more, whatever was about to be written.
    pub(crate) fn forget_peer(&mut self, peer: PeerId) {
        self.writer.others.retain(|op| !matches!(op, Op::Admit { peer: known } if *known == peer));
        self.writer.others.push(Op::Forget { peer });
    }

    /// The next batch, if one is due and none is under way.
    pub(crate) fn flush(&mut self, now: Time) -> Option<Batch> {
        match &self.writer.state {
            State::Idle => {}
            State::Failed { until } if *until <= now => {}
            State::Writing(_) | State::Failed { .. } => return None,
        }
        if self.writer.queue.is_empty() && self.writer.others.is_empty() {
            return None;
        }
        self.writer.last += 1;
        let seq = Seq(self.writer.last);
        let others = std::mem::take(&mut self.writer.others);
        let mut ops = others.clone();
        let mut docs = Vec::new();
        let mut size = 0;
        while size < BATCH_BYTES {
            let Some(doc) = self.writer.queue.pop_front() else { break };
            if let Some((carried, op)) = self.carry(&doc) {
                size += op.chunk_bytes();
                docs.push(carried);
                ops.push(op);
            }
        }
        if ops.is_empty() {
            self.writer.last -= 1;
            self.writer.state = State::Idle;
            self.writer.trouble = None;
            return None;
        }
        self.stats.batches += 1;
        self.writer.state = State::Writing(Flight { seq, docs, others });
        Some(Batch { seq, ops })
    }

    fn carry(&mut self, doc: &DocId) -> Option<(Carried, Op)> {
        let class = self.class(doc).index();
        let document = self.classes[class].get_mut(doc)?;
        let heads = document.heads();
        let marker = document.marker().cloned();
        let unsaved = document.unsaved.as_mut()?;
        unsaved.queued = false;
        if let Some(marker) = marker {
            let (edit, received) = (unsaved.edit, std::mem::take(&mut unsaved.received));
            let record = Record::marker(marker, document.shared);
            let (doc, unsaved) = (doc.clone(), Bytes::new());
            let carried = Carried { doc: doc.clone(), unsaved, edit, received, record: record.clone(), replaced: true };
            return Some((carried, Op::Bury { doc, record }));
        }
        let bytes = Bytes::from(std::mem::take(&mut unsaved.bytes));
        let (edit, received) = (unsaved.edit, std::mem::take(&mut unsaved.received));
        let total = document.bytes + bytes.len() as u64;
        let small = total <= self.merge_inline;
        let (chunk, replaced) = match &mut document.phase {
            // On a disk that refused something an append may fit where all anew does not.
            Phase::Live(live) if self.writer.trouble.is_none() && is_due(document.chunks, total, live) => {
                match &live.prepared {
                    Some((at, saved)) if *at == heads => (saved.clone(), true),
                    _ if small => {
                        self.stats.saves += 1;
                        (Bytes::from(history::save(&live.doc, None)), true)
                    }
                    _ => {
                        self.attention.entry(doc.clone()).or_default().save = true;
                        self.ready.insert(doc.clone());
                        (bytes.clone(), false)
                    }
                }
            }
            _ => (bytes.clone(), false),
        };
        if chunk.is_empty() {
            // Nothing is left to be written: a compaction that came too late.
            if unsaved.local.is_empty() {
                document.unsaved = None;
                document.live().into_iter().for_each(|live| self.cache.release(live));
                self.received = self.received.saturating_sub(received);
                if let Some(edit) = edit {
                    self.effects.push_back(Effect::Event(Event::Durable { doc: doc.clone(), edit }));
                }
            }
            return None;
        }
        let (stored, chunks) =
            if replaced { (chunk.len() as u64, 1) } else { (total, document.chunks.saturating_add(1)) };
        let (kind, shared, facts) = (document.kind.clone(), document.shared, document.facts);
        let record = Record { kind, heads, bytes: stored, chunks, shared, facts };
        let carried = Carried { doc: doc.clone(), unsaved: bytes, edit, received, record: record.clone(), replaced };
        let doc = doc.clone();
        let op = if replaced { Op::Replace { doc, record, chunk } } else { Op::Append { doc, record, chunk } };
        Some((carried, op))
    }

    /// A batch and all before it survive a crash: what it carried may leave.
    pub(crate) fn durable(&mut self, seq: Seq) {
        let State::Writing(flight) = &mut self.writer.state else { return };
        if flight.seq != seq {
            return;
        }
        let docs = std::mem::take(&mut flight.docs);
        let others = std::mem::take(&mut flight.others);
        self.writer.state = State::Idle;
        self.writer.trouble = None;
        for op in others {
            let forgotten =
                |peer| self.writer.others.iter().any(|op| matches!(op, Op::Forget { peer: gone } if *gone == peer));
            if let Op::Admit { peer } = op
                && !forgotten(peer)
            {
                self.effects.push_back(Effect::Admitted(peer));
            }
        }
        for carried in docs {
            self.settle_carried(carried);
        }
    }

    fn settle_carried(&mut self, carried: Carried) {
        let Carried { doc, edit, received, record, replaced, .. } = carried;
        self.received = self.received.saturating_sub(received);
        let class = self.class(&doc).index();
        let Some(document) = self.classes[class].get_mut(&doc) else { return };
        (document.bytes, document.chunks) = (record.bytes, record.chunks);
        if document.marker().is_some() {
            // What it had before does not matter any more; of several markers the last one counts.
            let done = document.unsaved.as_ref().is_some_and(|unsaved| !unsaved.queued);
            if done {
                self.release_marker(&doc);
            }
            if let Some(edit) = edit {
                self.effects.push_back(Effect::Event(Event::Durable { doc, edit }));
            }
            return;
        }
        if replaced && let Some(live) = document.live_mut() {
            live.compact = record.bytes;
        }
        let Some(unsaved) = &mut document.unsaved else { return };
        let freed = unsaved.local.iter().take_while(|change| edit.is_some_and(|edit| change.edit <= edit)).count();
        let freed: Vec<_> = unsaved.local.drain(..freed).collect();
        let mut edit = edit;
        if unsaved.bytes.is_empty() && unsaved.local.is_empty() && !unsaved.queued {
            // An import of what was known already may have come in meanwhile: it is as safe as what it repeats.
            edit = edit.max(unsaved.edit);
            document.unsaved = None;
            document.live().into_iter().for_each(|live| self.cache.release(live));
        } else if unsaved.edit == edit {
            unsaved.edit = None;
        }
        if !freed.is_empty() {
            let before = document.offered.clone();
            self.scopes.remove(&self.policy, &doc, document.offer());
            document.offered = before.advanced(freed.iter().map(|change| (change.hash, change.deps.as_slice())));
            self.scopes.insert(&self.policy, &doc, document.offer());
            self.effects.push_back(Effect::Moved { doc: doc.clone(), before, sources: Vec::new() });
        }
        if let Some(edit) = edit {
            self.effects.push_back(Effect::Event(Event::Durable { doc, edit }));
        }
    }

    /// Nothing of a batch was written: it waits again, in front of what came later.
    pub(crate) fn write_failed(&mut self, seq: Seq, fault: StoreFault, now: Time) {
        let State::Writing(flight) = &mut self.writer.state else { return };
        if flight.seq != seq {
            return;
        }
        self.stats.store_faults += 1;
        let docs = std::mem::take(&mut flight.docs);
        let mut others = std::mem::take(&mut flight.others);
        let tries = self.writer.trouble.map_or(0, |(_, tries)| tries).saturating_add(1);
        let wait = self.writer.retry_min.saturating_mul(1 << (tries - 1).min(16)).min(self.writer.retry_max);
        self.writer.state = State::Failed { until: now + wait };
        self.writer.trouble = Some((fault, tries));
        others.append(&mut self.writer.others);
        self.writer.others = others;
        for carried in docs.into_iter().rev() {
            let Carried { doc, unsaved: bytes, edit, received, .. } = carried;
            let class = self.class(&doc).index();
            let Some(document) = self.classes[class].get_mut(&doc) else { continue };
            let deleted = document.marker().is_some();
            let unsaved = document.unsaved.get_or_insert_default();
            if !deleted {
                unsaved.bytes.splice(0..0, bytes);
            }
            unsaved.edit = unsaved.edit.max(edit);
            unsaved.received += received;
            if !std::mem::replace(&mut unsaved.queued, true) {
                self.writer.queue.push_front(doc.clone());
            }
            if let Some(edit) = unsaved.edit {
                self.effects.push_back(Effect::Event(Event::NotDurable { doc, edit, fault }));
            }
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_saved(&self) -> bool {
        matches!(self.writer.state, State::Idle) && self.writer.queue.is_empty() && self.writer.others.is_empty()
    }
}

/// Whether appended chunks have grown beyond what compaction costs: 64 of them, or as much as the compact form.
pub(super) fn is_due(chunks: u32, total: u64, live: &Live) -> bool {
    let compact = live.compact.max(4 << 10);
    chunks >= MAX_CHUNKS || (chunks > 0 && total > compact.saturating_mul(2))
}
