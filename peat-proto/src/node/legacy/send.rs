//! What leaves for legacy peers: made when it can be sent, from what holds then.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::documents::{passes, stage};
use crate::doc::document::Offer;
use crate::id::{ConnId, DocId};
use crate::io::{Lane, Output};
use crate::node::Node;
use crate::peer::legacy::{Made, Push, Stage};
use crate::policy::Class;
use crate::request::SyncOutcome;
use crate::sync::legacy::{Exchange, Message, Step};
use crate::wire::v0::{Batch, BatchBuilder, Body, Entry, Tombstone, TombstoneBatchBuilder};

/// Documents that a push passes over in one go, some 100 us, and what it leaves to others when it found nothing to say of
/// them: a change of policy with everything equal walks over all documents three times.
const PUSH_STEP: usize = 1024;
const PUSH_REST: Duration = Duration::from_millis(1);

/// Exchanges that a push keeps under way: their documents are loaded, sent and answered meanwhile.
const PUSH_AHEAD: usize = 512;

/// Entries of one frame and what they add up to.
#[derive(Default)]
struct Filling {
    entries: Vec<Entry>,
    bytes: usize,
    data: bool,
    /// The fewest hops that any of them may still travel; `None` if none is passed on for a batch.
    hops: Option<u8>,
}

impl Filling {
    fn of(Made { entry, hops, data }: Made) -> Self {
        Self { bytes: entry.encoded_len(), entries: vec![entry], data, hops }
    }
}

impl Node {
    /// The next frame that has credit, if any: connections in turn, within one the most important class whose share is
    /// not used up.
    pub(in crate::node) fn legacy_next_frame(&mut self) -> Option<Output> {
        let turn = self.legacy.turn;
        let mut order: Vec<ConnId> =
            self.legacy.conns.range((Bound::Excluded(turn), Bound::Unbounded)).map(|(id, _)| *id).collect();
        order.extend(self.legacy.conns.range(..=turn).map(|(id, _)| *id));
        order.into_iter().find_map(|id| {
            let (lane, frame, data) = self.legacy_frame_for(id)?;
            self.legacy.turn = id;
            let conn = self.legacy.conns.get_mut(&id)?;
            let control = !matches!(lane, Lane::Once(_));
            conn.window.send(self.now.mono, frame.len(), control);
            for traffic in [&mut conn.traffic, &mut self.stats.traffic] {
                traffic.frames_sent += 1;
                traffic.bytes_sent += frame.len() as u64;
                traffic.data_sent += u64::from(data);
            }
            self.stats.legacy.frames_sent += 1;
            Some(Output::Send { conn: id, lane, frame })
        })
    }

    pub(in crate::node) fn legacy_ahead(&self) -> usize {
        PUSH_AHEAD.min(self.config.max_exchanges)
    }

    fn legacy_frame_for(&mut self, id: ConnId) -> Option<(Lane, Bytes, bool)> {
        let now = self.now.mono;
        let conn = self.legacy.conns.get_mut(&id)?;
        if let Some((lane, frame)) = conn.control.pop_front() {
            return Some((lane, frame, false));
        }
        if !conn.is_serving() || !conn.window.is_open() {
            return None;
        }
        conn.make_up(self.config.max_exchanges);
        loop {
            let ahead = self.legacy_ahead();
            let conn = self.legacy.conns.get_mut(&id)?;
            conn.bucket.refill(now);
            if let Some(push) = &mut conn.push {
                push.go_on(now);
            }
            if conn.has_pushes() && conn.bucket.misses() {
                self.stats.legacy.deferred_bucket += 1;
            }
            let class = conn.deficits.pick(|class| conn.has_work(class, ahead))?;
            if let Some((frame, data)) = self.legacy_class_frame(id, class) {
                let conn = self.legacy.conns.get_mut(&id)?;
                let waits: Vec<Class> = Class::ALL.into_iter().filter(|class| conn.has_work(*class, ahead)).collect();
                conn.deficits.charge(&self.docs.policy().shares(), class, frame.len(), |class| waits.contains(&class));
                return Some((Lane::Once(class), frame, data));
            }
        }
    }

    /// One frame of one class: answers, then what is said of our own accord, then the push of everything.
    fn legacy_class_frame(&mut self, id: ConnId, class: Class) -> Option<(Bytes, bool)> {
        let conn = self.legacy.conns.get_mut(&id)?;
        while let Some(made) = conn.next_made(class) {
            match &made.entry {
                // It has been deleted since, and is not said to be alive.
                Entry::Document { doc, .. } if self.docs.is_marked(doc) => conn.enqueue(class, doc),
                Entry::Document { .. } | Entry::Tombstone(_) => return self.legacy_pack(Filling::of(made)),
            }
        }
        let target = conn.window.frame_bytes(self.config.frame_bytes);
        let mut filling = Filling::default();
        for pushes in [false, true] {
            while filling.bytes < target {
                let conn = self.legacy.conns.get_mut(&id)?;
                if pushes && !conn.may_push() {
                    break;
                }
                let Some(doc) = conn.dequeue(class, pushes) else { break };
                let hops = conn.exchanges.get(&doc).and_then(|exchange| exchange.hops);
                let Some(message) = self.legacy_speak(id, class, &doc) else { continue };
                if pushes {
                    let conn = self.legacy.conns.get_mut(&id)?;
                    conn.bucket.take();
                    conn.breaker.pushed();
                }
                self.legacy_fill((id, class), &doc, message, hops, target, &mut filling);
            }
        }
        if filling.bytes == 0 {
            let conn = self.legacy.conns.get_mut(&id)?;
            if !conn.overhang.contains_key(&class) && conn.may_push() {
                return self.legacy_push(id, class, target);
            }
        }
        self.legacy_pack(filling)
    }

    /// Puts a message into the frame under way, or into one of its own that goes next.
    fn legacy_fill(
        &mut self,
        (id, class): (ConnId, Class),
        doc: &DocId,
        message: Message,
        hops: Option<u8>,
        target: usize,
        filling: &mut Filling,
    ) {
        let (entry, data) = match message {
            Message::Tombstone(marker) => (Entry::Tombstone(Tombstone::of(doc, &marker)), false),
            Message::Snapshot(saved) => (Entry::Document { doc: doc.clone(), body: Body::Snapshot(saved) }, true),
            Message::Delta(delta) => {
                let body = Body::Delta(delta.encode());
                (Entry::Document { doc: doc.clone(), body }, !delta.changes.is_empty())
            }
        };
        // Of tombstones, legacy peers pass on only what comes alone.
        let alone = matches!(entry, Entry::Tombstone(_)) && hops.is_none();
        let len = entry.encoded_len();
        if alone || (len > target && !filling.entries.is_empty()) {
            // It shares no frame: it goes next.
            if let Some(conn) = self.legacy.conns.get_mut(&id) {
                conn.overhang.entry(class).or_default().push_back(Made { entry, hops, data });
            }
            return;
        }
        filling.data |= data;
        filling.bytes += len;
        filling.hops = filling.hops.into_iter().chain(hops).min();
        filling.entries.push(entry);
    }

    /// One document goes alone; several, and what is passed on for a batch, go in a batch. What no batch has room for goes
    /// alone all the same.
    fn legacy_pack(&mut self, filling: Filling) -> Option<(Bytes, bool)> {
        for entry in &filling.entries {
            match entry {
                Entry::Document { doc, body: Body::Delta(payload) } => {
                    self.stats.legacy.deltas_sent += 1;
                    self.legacy_mode(doc).sent(payload.len());
                }
                Entry::Document { doc, body: Body::Snapshot(payload) } => {
                    self.stats.legacy.snapshots_sent += 1;
                    self.legacy_mode(doc).sent(payload.len());
                }
                Entry::Tombstone(_) => self.stats.legacy.tombstones_sent += 1,
            }
        }
        let fits = Batch::HEADER + filling.bytes <= self.config.max_batch;
        match (filling.entries.as_slice(), filling.hops.filter(|_| fits)) {
            ([], _) => None,
            ([entry], None) => Some((entry.frame().ok()?, filling.data)),
            (entries, hops) => {
                self.legacy.next_batch = self.legacy.next_batch.wrapping_add(1);
                let id = self.legacy.boot << 32 | u64::from(self.legacy.next_batch);
                let most = filling.bytes + Batch::HEADER + 64;
                let mut batch = BatchBuilder::new(id, self.now.unix_ms, hops.unwrap_or(Batch::DEFAULT_TTL), most);
                let all = entries.iter().all(|entry| batch.push(entry));
                debug_assert!(all, "a batch has room for what was counted");
                self.stats.legacy.batches_sent += 1;
                Some((batch.frame(), filling.data))
            }
        }
    }

    /// What one exchange says now, if anything.
    fn legacy_speak(&mut self, id: ConnId, class: Class, doc: &DocId) -> Option<Message> {
        let terms = self.legacy_terms(id, doc);
        let wait = self.legacy_wait(id, doc);
        let rest = self.legacy_rest_of(id, doc);
        let cooldown = self.config.legacy.as_ref().map(|legacy| legacy.cooldown).unwrap_or_default();
        let slot = self.docs.get(doc).map(|document| document.slot);
        let conn = self.legacy.conns.get_mut(&id)?;
        let initiates = conn.exchanges.get(doc)?.initiates;
        let view = self.docs.view(doc);
        let step = conn.follow(doc, |exchange| exchange.step(&view, &terms))?;
        if initiates && let (Step::Say { .. } | Step::SayAndSettle(_), Some(slot)) = (&step, slot) {
            conn.cooldown.begin(slot, self.now.mono, self.now.mono + cooldown);
        }
        match step {
            Step::Settled => {
                self.legacy_settle(id, class, doc);
                None
            }
            Step::SayAndSettle(message) => {
                match (&message, slot) {
                    (Message::Delta(_), Some(slot)) => conn.assurances.note(&slot, self.now.mono),
                    (Message::Delta(_), None) => conn.denials.note(doc, self.now.mono),
                    (Message::Snapshot(_) | Message::Tombstone(_), _) => {
                        conn.watch.note(doc, SyncOutcome::Sent);
                        conn.note_unsure(class, doc);
                    }
                }
                self.legacy_settle(id, class, doc);
                self.docs.touch(doc);
                Some(message)
            }
            Step::Say { message, more } => {
                let deadline = self.now.mono + wait;
                let conn = self.legacy.conns.get_mut(&id)?;
                conn.set_timer(doc, deadline);
                if more {
                    conn.enqueue(class, doc);
                }
                self.docs.touch(doc);
                Some(message)
            }
            Step::Wait => None,
            Step::Park => {
                self.stats.legacy.parked += 1;
                conn.watch.end(doc);
                conn.set_timer(doc, self.now.mono + rest);
                None
            }
            Step::NeedContent => {
                self.docs.await_content(doc, id);
                None
            }
            Step::NeedSaved => {
                self.docs.await_saved(doc, id);
                None
            }
            Step::Hopeless => {
                conn.end_exchange(class, doc);
                None
            }
        }
    }

    fn legacy_settle(&mut self, id: ConnId, class: Class, doc: &DocId) {
        let slot = self.docs.get(doc).map(|document| document.slot);
        if let Some(conn) = self.legacy.conns.get_mut(&id) {
            conn.end_exchange(class, doc);
            if let Some(slot) = slot {
                conn.equal.insert(slot);
            }
        }
    }

    /// Goes on with the push of everything: a frame of markers, or exchanges that say something next.
    fn legacy_push(&mut self, id: ConnId, class: Class, target: usize) -> Option<(Bytes, bool)> {
        let conn = self.legacy.conns.get_mut(&id)?;
        let mut push = conn.push.take()?;
        let at = push.stage(class);
        let (frame, began) = if at == Stage::Markers {
            (self.legacy_push_markers(id, class, target, &mut push), 0)
        } else {
            (None, self.legacy_push_documents(id, class, &mut push))
        };
        let in_vain = frame.is_none() && began == 0 && push.stage(class) == at;
        push.rests = in_vain.then(|| self.now.mono + PUSH_REST);
        let conn = self.legacy.conns.get_mut(&id)?;
        if !push.is_done() {
            conn.push = Some(push);
        }
        frame.map(|frame| (frame, false))
    }

    fn legacy_push_markers(&mut self, id: ConnId, class: Class, target: usize, push: &mut Push) -> Option<Bytes> {
        let conn = self.legacy.conns.get_mut(&id)?;
        let behind = push.behind(class).cloned();
        let mut rest = self.docs.after(class, behind.as_ref());
        let mut batch = TombstoneBatchBuilder::new(target);
        for _ in 0..PUSH_STEP {
            let Some((doc, document)) = rest.next() else {
                push.finish_stage(class);
                break;
            };
            if let Offer::Marker(marker) = document.offer()
                && passes(&self.docs.policy().of(doc), Some(marker), conn.kin)
                && !conn.equal.contains(document.slot)
            {
                if !batch.push(&Tombstone::of(doc, marker)) {
                    break;
                }
                self.stats.legacy.tombstones_sent += 1;
                conn.equal.insert(document.slot);
                conn.note_unsure(class, doc);
            }
            push.advance(class, doc.clone());
        }
        if batch.is_empty() {
            return None;
        }
        conn.bucket.take();
        conn.breaker.pushed();
        Some(batch.frame())
    }

    /// Begins exchanges, and says how many.
    fn legacy_push_documents(&mut self, id: ConnId, class: Class, push: &mut Push) -> usize {
        let (most, ahead) = (self.config.max_exchanges, self.legacy_ahead());
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return 0 };
        let at = push.stage(class);
        let behind = push.behind(class).cloned();
        let mut rest = self.docs.after(class, behind.as_ref());
        let mut begun = Vec::new();
        for _ in 0..PUSH_STEP {
            if conn.exchanges.len() + begun.len() >= ahead {
                break;
            }
            let Some((doc, document)) = rest.next() else {
                push.finish_stage(class);
                break;
            };
            push.advance(class, doc.clone());
            let policy = self.docs.policy().of(doc);
            let due = matches!(document.offer(), Offer::Heads(_))
                && stage(&policy, None) == at
                && passes(&policy, None, conn.kin)
                && !conn.equal.contains(document.slot);
            if due && !conn.exchanges.contains_key(doc) {
                begun.push(doc.clone());
            }
        }
        let (docs, count) = (&self.docs, begun.len());
        for doc in begun {
            if let Some(exchange) = conn.exchange(&doc, |doc| docs.class(doc), most, Exchange::unknown) {
                exchange.initiates = true;
                conn.enqueue(class, &doc);
            }
        }
        count
    }

    /// So many bytes have left for a peer.
    pub(super) fn legacy_sent(&mut self, id: ConnId, bytes: usize) {
        let now = self.now.mono;
        if let Some(conn) = self.legacy.conns.get_mut(&id) {
            conn.sent(now, bytes);
        }
    }
}
