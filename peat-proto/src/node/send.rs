//! What leaves on a connection: made when it can be sent, from what holds then.

use std::ops::Bound;

use bytes::Bytes;

use super::Node;
use crate::doc::View;
use crate::doc::document::Offer;
use crate::id::{ConnId, DocId};
use crate::io::{Lane, Output};
use crate::peer::connection::CONTROL_BYTES;
use crate::policy::Class;
use crate::policy::kin::sends;
use crate::sync::exchange::{Exchange, Message, Step, statement};
use crate::wire::{Batch, BatchBuilder, Body, Entry};

/// Documents that a list passes over in one go without finding one to name.
const LIST_STEP: usize = 1024;

/// Exchanges that a push to an empty peer keeps under way: their documents are loaded and sent meanwhile.
const PUSH_AHEAD: usize = 128;

/// Entries of one frame and what they add up to.
#[derive(Default)]
struct Filling {
    entries: Vec<Entry>,
    bytes: usize,
    data: bool,
}

impl Node {
    /// The next frame that has credit, if any: connections in turn, within one the most important class whose share is
    /// not used up.
    pub(super) fn next_frame(&mut self) -> Option<Output> {
        let mut id = self.turn;
        for _ in 0..self.conns.len() {
            id = self.behind(id)?;
            let Some((lane, frame, data)) = self.frame_for(id) else { continue };
            self.turn = id;
            let conn = self.conns.get_mut(&id)?;
            conn.window.send(self.now.mono, frame.len(), lane == Lane::Control);
            for traffic in [&mut conn.traffic, &mut self.stats.traffic] {
                traffic.frames_sent += 1;
                traffic.bytes_sent += frame.len() as u64;
                traffic.data_sent += u64::from(data);
            }
            return Some(Output::Send { conn: id, lane, frame });
        }
        None
    }

    /// The connection behind this one, the first behind the last.
    fn behind(&self, id: ConnId) -> Option<ConnId> {
        let behind = (Bound::Excluded(id), Bound::Unbounded);
        let next = self.conns.range(behind).next().or_else(|| self.conns.first_key_value());
        next.map(|(id, _)| *id)
    }

    /// Exchanges that a push keeps under way.
    pub(super) fn push_ahead(&self) -> usize {
        PUSH_AHEAD.min(self.config.max_exchanges)
    }

    fn frame_for(&mut self, id: ConnId) -> Option<(Lane, Bytes, bool)> {
        let conn = self.conns.get_mut(&id)?;
        if conn.window.is_open_for_control(CONTROL_BYTES) {
            if let Some(frame) = conn.control.pop_front() {
                return Some((Lane::Control, frame, false));
            }
            if conn.is_serving() && conn.survey.due.is_some_and(|due| due <= self.now.mono) {
                let summary = conn.survey.say(self.docs.count(), self.docs.digest());
                return Some((Lane::Control, summary.frame(), false));
            }
        }
        if !conn.is_serving() || !conn.window.is_open() {
            return None;
        }
        loop {
            let most = self.push_ahead();
            let conn = self.conns.get_mut(&id)?;
            let class = conn.deficits.pick(|class| conn.has_work(class, most))?;
            if let Some((frame, data)) = self.class_frame(id, class) {
                let conn = self.conns.get_mut(&id)?;
                let waits: Vec<Class> = Class::ALL.into_iter().filter(|class| conn.has_work(*class, most)).collect();
                conn.deficits.charge(&self.docs.policy().shares(), class, frame.len(), |class| waits.contains(&class));
                return Some((Lane::Class(class), frame, data));
            }
        }
    }

    /// One frame of one class: what its exchanges have to say, then the list.
    fn class_frame(&mut self, id: ConnId, class: Class) -> Option<(Bytes, bool)> {
        let conn = self.conns.get_mut(&id)?;
        if let Some(frame) = conn.overhang.remove(&class) {
            return Some((frame, true));
        }
        let target = conn.window.frame_bytes(self.config.frame_bytes);
        let mut filling = Filling::default();
        while filling.bytes < target {
            let Some(doc) = self.conns.get_mut(&id)?.dequeue(class) else { break };
            let Some((body, data)) = self.speak(id, class, &doc, target) else { continue };
            let entry = Entry::Document { doc, body };
            let len = entry.encoded_len();
            if len > target && !filling.entries.is_empty() {
                // Too large to share a frame: it goes next.
                let frame = entry.frame().ok()?;
                self.conns.get_mut(&id)?.overhang.insert(class, frame);
                break;
            }
            filling.bytes += len;
            filling.data |= data;
            filling.entries.push(entry);
        }
        if filling.bytes < target {
            self.list(id, class, target, &mut filling);
        }
        self.pack(filling)
    }

    fn pack(&mut self, filling: Filling) -> Option<(Bytes, bool)> {
        match filling.entries.as_slice() {
            [] => None,
            [entry] => Some((entry.frame().ok()?, filling.data)),
            entries => {
                self.next_batch += 1;
                let id = (self.boot << 40) | (self.next_batch & ((1 << 40) - 1));
                let most = self.config.max_batch.min(filling.bytes + Batch::HEADER + 64);
                let mut batch = BatchBuilder::new(id, self.now.unix_ms, Batch::DEFAULT_TTL, most);
                let all = entries.iter().all(|entry| batch.push(entry));
                debug_assert!(all, "a batch has room for what was counted");
                Some((batch.frame(), filling.data))
            }
        }
    }

    /// What one exchange says now, if anything.
    fn speak(&mut self, id: ConnId, class: Class, doc: &DocId, target: usize) -> Option<(Body, bool)> {
        let snapshot_bytes = self.config.max_snapshot;
        let sends = self.may_send(id, doc);
        let conn = self.conns.get_mut(&id)?;
        let view = if sends { self.docs.view(doc) } else { View::Unreadable };
        let step = conn.exchanges.get_mut(doc)?.step(&view, target, snapshot_bytes);
        match step {
            Step::Settled => {
                self.settle_exchange(id, class, doc);
                None
            }
            Step::SayAndSettle(delta) => {
                self.settle_exchange(id, class, doc);
                Some((Body::Delta(delta.encode()), false))
            }
            Step::Say { message, expects, more } => {
                let tries = conn.exchanges.get(doc).map_or(0, |exchange| exchange.tries);
                let conn = self.conns.get(&id)?;
                let deadline = expects.then(|| self.now.mono + self.patience(conn, tries));
                let conn = self.conns.get_mut(&id)?;
                conn.set_deadline(doc, deadline);
                if more {
                    conn.enqueue(class, doc);
                }
                self.docs.touch(doc);
                Some(match message {
                    Message::Snapshot(bytes) => (Body::Snapshot(bytes), true),
                    Message::Delta(delta) => {
                        let data = !delta.changes.is_empty();
                        (Body::Delta(delta.encode()), data)
                    }
                })
            }
            Step::Wait => None,
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

    fn settle_exchange(&mut self, id: ConnId, class: Class, doc: &DocId) {
        let slot = self.docs.get(doc).map(|document| document.slot);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.end_exchange(class, doc);
            if let Some(slot) = slot {
                conn.equal.insert(slot);
            }
        }
    }

    /// Names heads of documents that the other side may not have, from where the list stopped.
    fn list(&mut self, id: ConnId, class: Class, target: usize, filling: &mut Filling) {
        let (most, push_ahead) = (self.config.max_exchanges, self.push_ahead());
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(mut listing) = conn.survey.listing.take() else { return };
        let mut steps = 0;
        let mut begun = Vec::new();
        if listing.waits(class) {
            let behind = listing.behind(class).cloned();
            let mut rest = self.docs.after(class, behind.as_ref());
            loop {
                if filling.bytes >= target || steps >= LIST_STEP {
                    break;
                }
                if listing.push && conn.exchanges.len() + begun.len() >= push_ahead {
                    break;
                }
                let Some((doc, document)) = rest.next() else {
                    listing.finish(class);
                    break;
                };
                steps += 1;
                listing.advance(class, doc.clone());
                let sent = matches!(document.offer(), Offer::Heads(_))
                    && sends(self.docs.policy().of(doc).direction, conn.kin);
                if !sent || conn.equal.contains(document.slot) || conn.exchanges.contains_key(doc) {
                    continue;
                }
                if listing.push {
                    begun.push(doc.clone());
                } else {
                    let body = Body::Delta(statement(&document.offered).encode());
                    let entry = Entry::Document { doc: doc.clone(), body };
                    filling.bytes += entry.encoded_len();
                    filling.entries.push(entry);
                }
            }
        }
        for doc in begun {
            let begin = || Exchange::at(crate::heads::Heads::NONE);
            if conn.exchange(&doc, most, begin).is_some() {
                conn.enqueue(class, &doc);
            }
        }
        if listing.is_done() {
            conn.survey.surveyed = true;
        } else {
            conn.survey.listing = Some(listing);
        }
    }
}
