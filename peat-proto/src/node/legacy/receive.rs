//! What arrives from a legacy peer.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::doc::document::Offer;
use crate::id::{ConnId, DocId, StreamId};
use crate::io::{CloseCode, Lane, Output, Refusal, Role};
use crate::node::Node;
use crate::peer::legacy::Phase;
use crate::policy::Class;
use crate::store::Record;
use crate::wire::v0::negentropy::{Responder, answer_frame, date_of, item_of};
use crate::wire::v0::{
    Batch, Body, Delta, Entry, Frame, Heartbeat, Incoming, MessageType, Tombstone, TombstoneBatch, Unread,
};

/// Time between two questions about the whole set of documents, each of which costs up to 10 ms.
const BETWEEN_QUESTIONS: std::time::Duration = std::time::Duration::from_secs(1);

/// Bytes of answers to such questions that may wait to leave beside what else is in flight; the last may exceed it. An answer
/// with all names takes 2 MB, and who asks need not read it.
const UNREAD_ANSWERS: usize = 64 << 10;

/// Wait before something is said again that could not be handed over; twice as long for each failure in a row. As legacy
/// peers mean to.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_millis(100);

impl Node {
    pub(in crate::node) fn legacy_received(&mut self, id: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let now = self.now.mono;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let len = bytes.len();
        conn.traffic.bytes_received += len as u64;
        self.stats.traffic.bytes_received += len as u64;
        if len == 0 && fin && conn.ended_empty(stream) {
            return self.legacy_close(id, CloseCode::Exhausted);
        }
        // A heartbeat is a sign once it is whole.
        if len > 0 && stream.is_bidirectional() {
            let turn = conn.pulse.heard(now, false);
            self.legacy_turned(id, turn);
        }
        let first = StreamId::new(0, Role::Dialled, true);
        let Some(conn) = self.legacy.conns.get(&id) else { return };
        match (&conn.phase, conn.link.role) {
            (Phase::Proving(_), _) if stream == first => {
                self.legacy_consume(id, stream, len);
                self.legacy_prove(id, stream, |handshake| handshake.received(now, &bytes, fin));
            }
            // It may hear the verdict that we have not heard yet.
            (Phase::Proving(_), Role::Dialled) => self.legacy_take(id, stream, bytes, fin, true),
            (Phase::Proving(_), Role::Accepted) => {
                self.stats.stopped += 1;
                self.legacy_shut(id, stream, CloseCode::Unexpected);
            }
            (Phase::Serving, _) if stream == first && self.legacy_proves() => self.legacy_consume(id, stream, len),
            (Phase::Serving, _) => self.legacy_take(id, stream, bytes, fin, false),
        }
    }

    fn legacy_proves(&self) -> bool {
        let auth = self.config.legacy.as_ref().map(|legacy| &legacy.auth);
        matches!(auth, Some(crate::config::Auth::Proof { .. }))
    }

    /// Takes in what arrived on a stream of frames or heartbeats; `holds` if it is not looked at yet.
    fn legacy_take(&mut self, id: ConnId, stream: StreamId, bytes: Bytes, fin: bool, holds: bool) {
        let most = self.config.legacy.as_ref().map_or(0, |legacy| legacy.max_streams);
        let pause = holds || self.docs.is_behind(1);
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if conn.is_shut(stream) {
            // Its credit is not given back, so it cannot go on for long.
            return;
        }
        if !conn.inlets.contains_key(&stream) && conn.inlets.len() >= most {
            // Its credit is not given back, so it cannot go on for long even if it ignores this.
            self.stats.stopped += 1;
            return self.legacy_shut(id, stream, CloseCode::Exhausted);
        }
        let inlet = conn.inlets.entry(stream).or_default();
        let len = bytes.len();
        if stream.is_bidirectional() {
            inlet.assembler.push(bytes);
        } else if !inlet.beat(&bytes) {
            self.stats.malformed += 1;
            return self.legacy_shut(id, stream, CloseCode::BadFrame);
        }
        self.legacy_count(id, stream);
        if !holds && self.legacy_read(id, stream).is_break() {
            return;
        }
        let now = self.now.mono;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let Some(inlet) = conn.inlets.get_mut(&stream) else { return };
        inlet.note(len, now);
        inlet.ended |= fin;
        if pause {
            *conn.held.entry(stream).or_default() += len;
        } else {
            self.legacy_consume(id, stream, len);
        }
        self.bound_receiving(None);
        if fin && !holds {
            self.legacy_ended(id, stream);
        }
    }

    /// Reads what was held back until documents flow.
    pub(super) fn legacy_resume(&mut self, id: ConnId) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let held = std::mem::take(&mut conn.held);
        for (stream, len) in held {
            self.legacy_consume(id, stream, len);
            if self.legacy_read(id, stream).is_break() {
                continue;
            }
            let conn = self.legacy.conns.get(&id);
            if conn.and_then(|conn| conn.inlets.get(&stream)).is_some_and(|inlet| inlet.ended) {
                self.legacy_ended(id, stream);
            }
        }
    }

    /// Gives back the receive credit that was held while too much was not durable.
    pub(in crate::node) fn legacy_release_credit(&mut self) {
        let now = self.now.mono;
        for conn in self.legacy.conns.values_mut().filter(|conn| conn.is_serving()) {
            for (stream, bytes) in std::mem::take(&mut conn.held) {
                if let Some(inlet) = conn.inlets.get_mut(&stream) {
                    // The pause was ours.
                    inlet.restart(now);
                }
                self.out.credits.push_back(Output::Consumed { conn: conn.id, stream, bytes });
            }
        }
    }

    pub(super) fn legacy_consume(&mut self, id: ConnId, stream: StreamId, bytes: usize) {
        if bytes > 0 {
            self.out.credits.push_back(Output::Consumed { conn: id, stream, bytes });
        }
    }

    /// Brings the receive budget up to date with what a stream holds.
    fn legacy_count(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let Some(inlet) = conn.inlets.get_mut(&stream) else { return };
        let counted = std::mem::replace(&mut inlet.counted, inlet.assembler.buffered());
        self.receiving = self.receiving.saturating_sub(counted) + inlet.counted;
    }

    /// Deals with all whole frames of a stream; breaks when the stream, or the connection, is gone.
    fn legacy_read(&mut self, id: ConnId, stream: StreamId) -> ControlFlow<()> {
        loop {
            let caps = self.legacy.caps;
            let Some(conn) = self.legacy.conns.get_mut(&id) else { return ControlFlow::Break(()) };
            let Some(inlet) = conn.inlets.get_mut(&stream) else { return ControlFlow::Break(()) };
            let incoming = inlet.assembler.next(&caps);
            self.legacy_count(id, stream);
            match incoming {
                Ok(None) => return ControlFlow::Continue(()),
                Ok(Some(Incoming::Skipped { code, bytes })) => self.legacy_skipped(id, code, bytes),
                Ok(Some(Incoming::Frame(frame))) => {
                    if let Some(conn) = self.legacy.conns.get_mut(&id) {
                        conn.traffic.frames_received += 1;
                        if let Some(inlet) = conn.inlets.get_mut(&stream) {
                            inlet.complete();
                        }
                    }
                    self.stats.traffic.frames_received += 1;
                    self.legacy_frame(id, stream, frame);
                }
                Err(error) => {
                    // The stream is of no more use; its connection and the other streams are.
                    tracing::debug!(?id, ?stream, %error, "a stream of a legacy peer is given up");
                    self.stats.malformed += 1;
                    self.legacy_shut(id, stream, CloseCode::BadFrame);
                    return ControlFlow::Break(());
                }
            }
        }
    }

    /// Stops reading a stream, and ends our half of it.
    pub(super) fn legacy_shut(&mut self, id: ConnId, stream: StreamId, code: CloseCode) {
        self.out.stops.push_back(Output::StopStream { conn: id, stream, code });
        if let Some(conn) = self.legacy.conns.get_mut(&id) {
            conn.shut(stream);
        }
        self.legacy_forget(id, stream);
    }

    /// A stream ended as its sender meant it to.
    fn legacy_ended(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if let Some(inlet) = conn.inlets.get(&stream) {
            if inlet.assembler.is_mid_frame() {
                self.stats.truncated += 1;
            }
            if !stream.is_bidirectional() {
                match Heartbeat::decode(&inlet.beat) {
                    Ok(_) => {
                        self.stats.legacy.heartbeats_received += 1;
                        let turn = conn.pulse.heard(self.now.mono, true);
                        self.legacy_turned(id, turn);
                    }
                    Err(_) => self.stats.malformed += 1,
                }
            }
        }
        self.legacy_forget(id, stream);
    }

    /// Forgets an incoming stream; our half of a bidirectional one ends.
    pub(in crate::node) fn legacy_forget(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        // The credit that is held of it is given back in its time: until then it counts as open for the transport.
        if let Some(inlet) = conn.inlets.remove(&stream) {
            self.receiving = self.receiving.saturating_sub(inlet.counted);
        }
        if stream.is_bidirectional() {
            self.legacy_reply(id, stream, Bytes::new(), true);
        }
    }

    /// A stream broke. What it had begun is dropped; another Peat node sends it again.
    pub(in crate::node) fn legacy_reset(&mut self, id: ConnId, stream: StreamId) {
        let now = self.now.mono;
        let first = StreamId::new(0, Role::Dialled, true);
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if conn.ended_empty(stream) {
            return self.legacy_close(id, CloseCode::Exhausted);
        }
        if !conn.is_serving() && stream == first {
            return self.legacy_prove(id, stream, |handshake| handshake.received(now, &[], true));
        }
        conn.has_lost |= stream.is_bidirectional();
        self.legacy_forget(id, stream);
    }

    /// A frame that is not read passed by. Types that legacy peers have a name for are told apart.
    fn legacy_skipped(&mut self, id: ConnId, code: u8, bytes: u64) {
        self.stats.skipped += 1;
        let stats = &mut self.stats.legacy;
        match Unread::from_code(code) {
            Unread::Ack => stats.acks_received += 1,
            Unread::Windowed => stats.windowed_refused += 1,
            Unread::Reserved => stats.reserved_refused += 1,
            Unread::Request => stats.requests_refused += 1,
            Unread::Unknown => {}
        }
        let kind = Unread::from_code(code);
        tracing::debug!(?id, ?kind, code, bytes, "a frame of a legacy peer is not taken");
    }

    fn legacy_frame(&mut self, id: ConnId, stream: StreamId, frame: Frame) {
        match frame.kind {
            MessageType::Delta => match frame.doc() {
                Ok(doc) => self.legacy_delta(id, &doc, frame.payload, None),
                Err(_) => self.stats.refused += 1,
            },
            MessageType::Snapshot => match frame.doc() {
                Ok(doc) => self.legacy_snapshot(id, &doc, frame.payload, None),
                Err(_) => self.stats.refused += 1,
            },
            MessageType::Batch => self.legacy_batch(id, frame.payload),
            MessageType::Tombstone => {
                let mut payload = frame.payload;
                match Tombstone::take(&mut payload) {
                    Ok(tombstone) => {
                        self.stats.trailing += u64::from(!payload.is_empty());
                        self.legacy_tombstone(id, &tombstone, None);
                    }
                    Err(_) => self.stats.refused += 1,
                }
            }
            MessageType::Tombstones => self.legacy_tombstones(id, frame.payload),
            MessageType::NegentropyInit => self.legacy_question(id, stream, frame.payload),
            MessageType::NegentropyResponse => self.legacy_answer(id, stream, frame.payload),
        }
    }

    /// A bad entry costs itself; a batch whose layout is broken is refused whole.
    fn legacy_batch(&mut self, id: ConnId, payload: Bytes) {
        let Ok(batch) = Batch::decode(payload) else {
            self.stats.refused += 1;
            return;
        };
        self.stats.trailing += u64::from(batch.trailing > 0);
        self.stats.legacy.batches_received += 1;
        let hops = Some(batch.ttl.saturating_sub(1));
        for entry in batch.entries() {
            match entry {
                Ok(Entry::Document { doc, body: Body::Delta(payload) }) => self.legacy_delta(id, &doc, payload, hops),
                Ok(Entry::Document { doc, body: Body::Snapshot(payload) }) => {
                    self.legacy_snapshot(id, &doc, payload, hops);
                }
                Ok(Entry::Tombstone(tombstone)) => self.legacy_tombstone(id, &tombstone, hops),
                Err(_) => self.stats.entries_skipped += 1,
            }
        }
    }

    fn legacy_tombstones(&mut self, id: ConnId, payload: Bytes) {
        let Ok(batch) = TombstoneBatch::decode(payload) else {
            self.stats.refused += 1;
            return;
        };
        self.stats.trailing += u64::from(batch.trailing > 0);
        for tombstone in batch.elements() {
            match tombstone {
                Ok(tombstone) => self.legacy_tombstone(id, &tombstone, None),
                Err(_) => self.stats.entries_skipped += 1,
            }
        }
    }

    fn legacy_delta(&mut self, id: ConnId, doc: &DocId, payload: Bytes, hops: Option<u8>) {
        self.stats.legacy.deltas_received += 1;
        self.legacy_mode(doc).received(payload.len());
        match Delta::decode(payload) {
            Ok(delta) if delta.heads.len().max(delta.need.len()) > Record::MAX_HEADS => {
                self.legacy_refused(id, doc, Refusal::TooManyHeads);
            }
            Ok(delta) => self.legacy_heard(id, doc, delta, hops),
            Err(_) => self.legacy_refused(id, doc, Refusal::Invalid),
        }
    }

    fn legacy_snapshot(&mut self, id: ConnId, doc: &DocId, payload: Bytes, hops: Option<u8>) {
        self.stats.legacy.snapshots_received += 1;
        self.legacy_mode(doc).received(payload.len());
        if payload.is_empty() {
            // Loads as an empty document, which is no document.
            return self.legacy_refused(id, doc, Refusal::Invalid);
        }
        self.legacy_heard_snapshot(id, doc, payload, hops);
    }

    /// A peer asks which documents there are. The answer goes on the same stream; a second question on another stream, or
    /// one too soon, gets none.
    fn legacy_question(&mut self, id: ConnId, stream: StreamId, message: Bytes) {
        let now = self.now.mono;
        self.stats.legacy.questions += 1;
        let soon = |asked: Option<crate::time::Time>| asked.is_some_and(|asked| now.since(asked) < BETWEEN_QUESTIONS);
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let busy = conn.inlets.values().any(|inlet| inlet.responder.is_some()) || soon(conn.asked);
        if !busy {
            conn.asked = Some(now);
        }
        if busy || self.docs.with_prefix("").nth(Responder::MAX_ITEMS).is_some() {
            self.stats.legacy.questions_unanswered += 1;
            return self.legacy_shut(id, stream, CloseCode::Exhausted);
        }
        let Ok(date) = date_of(message.clone()) else {
            self.stats.refused += 1;
            return self.legacy_shut(id, stream, CloseCode::BadFrame);
        };
        // What was deleted counts as known: it is not to be sent either.
        let offered = self.docs.with_prefix("").filter(|(_, document)| document.offer() != Offer::Nothing);
        let items = offered.map(|(doc, _)| (date.unwrap_or_default(), item_of(doc)));
        let responder = Responder::new(items);
        if let Some(inlet) = conn.inlets.get_mut(&stream) {
            inlet.responder = Some(responder);
        }
        self.legacy_answer(id, stream, message);
    }

    /// Answers a message of a dialogue that a question began on this stream. Without one it is skipped.
    fn legacy_answer(&mut self, id: ConnId, stream: StreamId, message: Bytes) {
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let responder = conn.inlets.get_mut(&stream).and_then(|inlet| inlet.responder.as_mut());
        let Some(responder) = responder else {
            self.stats.skipped += 1;
            return;
        };
        if !conn.window.is_open_for_control(UNREAD_ANSWERS) {
            self.stats.legacy.questions_unanswered += 1;
            return self.legacy_shut(id, stream, CloseCode::Exhausted);
        }
        match responder.answer(message) {
            Ok(answer) => {
                self.stats.legacy.answers += 1;
                self.legacy_reply(id, stream, answer_frame(&answer), false);
            }
            Err(_) => {
                self.stats.refused += 1;
                self.legacy_shut(id, stream, CloseCode::BadFrame);
            }
        }
    }

    /// Counts and reports a document payload that was not applied.
    pub(super) fn legacy_refused(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        self.stats.refused += 1;
        if let Some(peer) = self.legacy.conns.get(&id).map(|conn| conn.peer) {
            self.event(crate::io::Event::Refused { peer, doc: doc.clone(), reason });
        }
    }

    /// What was sent on a lane may not have arrived: it is said again. This is what the breaker counts.
    pub(in crate::node) fn legacy_stopped(&mut self, id: ConnId, lane: Lane) {
        let now = self.now.mono;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        match lane {
            Lane::Pulse => {
                let turn = conn.pulse.failed();
                self.legacy_turned(id, turn);
            }
            // Without it nobody can be proven to be anybody; its deadline stands.
            Lane::Dialogue => {}
            Lane::Once(class) => {
                self.stats.legacy.frames_failed += 1;
                conn.spoilt = true;
                if conn.breaker.failed(now) {
                    self.stats.legacy.breaker_opened += 1;
                }
                self.legacy_say_again(id, class);
            }
            // This wire has no others.
            Lane::Control | Lane::Class(_) => {}
        }
    }

    /// Says everything of a class again that may not have arrived, in a while: the longer, the more fails.
    fn legacy_say_again(&mut self, id: ConnId, class: Class) {
        let failures = self.legacy.conns.get(&id).map_or(0, |conn| conn.breaker.failures());
        let wait = AFTER_FAILURE.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let at = self.now.mono + self.legacy_jitter(wait);
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        let waiting =
            conn.exchanges.iter().filter(|(doc, exchange)| exchange.is_waiting() && self.docs.class(doc) == class);
        let waiting: Vec<DocId> = waiting.map(|(doc, _)| doc.clone()).collect();
        for doc in waiting {
            if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                exchange.say_again();
            }
            conn.trim_timer(&doc);
            conn.cooling.insert((at, doc));
        }
        match conn.take_unsure(class) {
            Some(docs) => docs.iter().for_each(|doc| self.legacy_push_again(id, doc, at)),
            // Too much to know of each: the whole class once more.
            None => {
                let docs: Vec<DocId> = self.docs.after(class, None).map(|(doc, _)| doc.clone()).collect();
                docs.iter().for_each(|doc| self.legacy_push_again(id, doc, at));
            }
        }
    }
}
