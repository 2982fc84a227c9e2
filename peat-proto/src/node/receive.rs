//! What arrives on a connection.

use bytes::Bytes;

use super::Node;
use crate::id::{ConnId, DocId, StreamId};
use crate::io::{CloseCode, Event, Lane, Output, Refusal};
use crate::peer::connection::Phase;
use crate::store::Record;
use crate::wire::{Batch, Body, ControlError, Delta, Entry, Frame, FrameError, Hello, Incoming, MessageType, Summary};

impl Node {
    pub(super) fn received(&mut self, id: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let most = self.config.max_streams;
        let pause = self.docs.undurable() > self.config.undurable_budget;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let len = bytes.len();
        conn.traffic.bytes_received += len as u64;
        self.stats.traffic.bytes_received += len as u64;
        // The credit of a stopped stream is not given back, so it cannot go on for long even if it ignores this.
        if stream.is_bidirectional() {
            self.stats.stopped += 1;
            self.out.stops.push_back(Output::StopStream { conn: id, stream, code: CloseCode::Unexpected });
            return self.out.replies.push_back(Output::Reply { conn: id, stream, bytes: Bytes::new(), fin: true });
        }
        if !conn.streams.contains_key(&stream) && conn.streams.len() >= most {
            self.stats.stopped += 1;
            return self.out.stops.push_back(Output::StopStream { conn: id, stream, code: CloseCode::Exhausted });
        }
        conn.streams.entry(stream).or_default().assembler.push(bytes);
        self.count(id, stream);
        let verdict = self.read_frames(id, stream);
        self.count(id, stream);
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(incoming) = conn.streams.get_mut(&stream) else { return };
        incoming.note(len, now);
        if pause {
            *conn.held.entry(stream).or_default() += len;
        } else if len > 0 {
            self.out.credits.push_back(Output::Consumed { conn: id, stream, bytes: len });
        }
        if let Err(error) = verdict {
            return self.framing_lost(id, stream, &error);
        }
        if self.receiving > self.config.receive_budget {
            return self.close_conn(id, CloseCode::Exhausted);
        }
        if fin {
            self.end_stream(id, stream);
        }
    }

    /// Brings the receive budget up to date with what a stream holds.
    fn count(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(incoming) = conn.streams.get_mut(&stream) else { return };
        let counted = std::mem::replace(&mut incoming.counted, incoming.assembler.buffered());
        self.receiving = self.receiving.saturating_sub(counted) + incoming.counted;
    }

    pub(super) fn reset(&mut self, id: ConnId, stream: StreamId) {
        self.end_stream(id, stream);
        let (now, settle) = (self.now.mono, self.config.settle);
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.is_serving()
        {
            conn.survey.doubt(now, settle);
        }
    }

    pub(super) fn end_stream(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.held.remove(&stream);
        if let Some(ended) = conn.streams.remove(&stream) {
            self.receiving = self.receiving.saturating_sub(ended.counted);
            if ended.assembler.is_mid_frame() {
                self.stats.truncated += 1;
            }
        }
    }

    /// Gives back the receive credit that was held while too much was not durable.
    pub(super) fn release_credit(&mut self) {
        if self.docs.undurable() > self.config.undurable_budget / 2 {
            return;
        }
        self.legacy_release_credit();
        for conn in self.conns.values_mut() {
            for (stream, bytes) in std::mem::take(&mut conn.held) {
                if let Some(paused) = conn.streams.get_mut(&stream)
                    && let Some(since) = &mut paused.since
                {
                    // The pause was ours.
                    *since = self.now.mono;
                }
                self.out.credits.push_back(Output::Consumed { conn: conn.id, stream, bytes });
            }
        }
    }

    fn read_frames(&mut self, id: ConnId, stream: StreamId) -> Result<(), FrameError> {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            let caps = if conn.is_serving() { &self.caps } else { &self.stranger_caps };
            let Some(incoming) = conn.streams.get_mut(&stream) else { return Ok(()) };
            match incoming.assembler.next(caps)? {
                None => return Ok(()),
                Some(Incoming::Skipped { .. }) => self.stats.skipped += 1,
                Some(Incoming::Frame(frame)) => {
                    (incoming.since, incoming.progress) = (None, 0);
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.traffic.frames_received += 1;
                    }
                    self.stats.traffic.frames_received += 1;
                    self.frame(id, frame);
                }
            }
        }
    }

    /// A lane on which frames cannot be told apart any more takes its connection with it; a datagram only itself.
    fn framing_lost(&mut self, id: ConnId, stream: StreamId, error: &FrameError) {
        let code = match error {
            FrameError::PayloadTooLong { .. } => CloseCode::TooLarge,
            _ => CloseCode::BadFrame,
        };
        match self.conns.get(&id) {
            Some(conn) if conn.link.reliable => self.close_conn(id, code),
            _ => {
                self.stats.malformed += 1;
                self.end_stream(id, stream);
            }
        }
    }

    /// A fault that ends a reliable connection, and costs a datagram link no more than the datagram.
    fn fault(&mut self, id: ConnId, code: CloseCode) {
        match self.conns.get(&id) {
            Some(conn) if conn.link.reliable => self.close_conn(id, code),
            _ => self.stats.malformed += 1,
        }
    }

    fn frame(&mut self, id: ConnId, frame: Frame) {
        let Some(conn) = self.conns.get(&id) else { return };
        let greeted = !matches!(conn.phase, Phase::Greeting { .. });
        let serving = conn.is_serving();
        match frame.kind {
            MessageType::Hello => match Hello::decode(frame.payload) {
                Ok(hello) => self.greeted(id, &hello),
                Err(ControlError::Version { .. }) => self.close_conn(id, CloseCode::Version),
                Err(_) => self.fault(id, CloseCode::BadFrame),
            },
            MessageType::Summary if greeted => match Summary::decode(frame.payload) {
                Ok(summary) => self.summarised(id, summary),
                Err(_) => self.fault(id, CloseCode::BadFrame),
            },
            MessageType::Delta if serving => match frame.doc() {
                Ok(doc) => self.delta(id, &doc, frame.payload),
                Err(_) => self.stats.refused += 1,
            },
            MessageType::Snapshot if serving => match frame.doc() {
                Ok(doc) => self.snapshot(id, &doc, frame.payload),
                Err(_) => self.stats.refused += 1,
            },
            MessageType::Batch if serving => self.batch(id, frame.payload),
            MessageType::Summary | MessageType::Delta | MessageType::Snapshot | MessageType::Batch => {
                self.fault(id, CloseCode::Unexpected);
            }
            MessageType::Tombstone
            | MessageType::Tombstones
            | MessageType::NegentropyInit
            | MessageType::NegentropyResponse => self.stats.skipped += 1,
        }
    }

    /// A bad entry costs itself; a batch whose layout is broken is refused whole.
    fn batch(&mut self, id: ConnId, payload: Bytes) {
        let Ok(batch) = Batch::decode(payload) else {
            self.stats.refused += 1;
            return;
        };
        if batch.trailing > 0 {
            self.stats.trailing += 1;
        }
        for entry in batch.entries() {
            match entry {
                Ok(Entry::Document { doc, body: Body::Delta(payload) }) => self.delta(id, &doc, payload),
                Ok(Entry::Document { doc, body: Body::Snapshot(payload) }) => self.snapshot(id, &doc, payload),
                Ok(Entry::Tombstone(_)) | Err(_) => self.stats.entries_skipped += 1,
            }
        }
    }

    fn delta(&mut self, id: ConnId, doc: &DocId, payload: Bytes) {
        match Delta::decode(payload) {
            Ok(delta) if delta.heads.len().max(delta.need.len()) > Record::MAX_HEADS => {
                self.refuse(id, doc, Refusal::TooManyHeads);
            }
            Ok(delta) => self.heard(id, doc, delta),
            Err(_) => self.refuse(id, doc, Refusal::Invalid),
        }
    }

    fn snapshot(&mut self, id: ConnId, doc: &DocId, payload: Bytes) {
        if payload.is_empty() {
            // Loads as an empty document, which is no document.
            return self.refuse(id, doc, Refusal::Invalid);
        }
        self.heard_snapshot(id, doc, payload);
    }

    /// Counts and reports a document payload that was not applied.
    pub(super) fn refuse(&mut self, id: ConnId, doc: &DocId, reason: Refusal) {
        self.stats.refused += 1;
        if let Some(peer) = self.conns.get(&id).map(|conn| conn.peer) {
            self.event(Event::Refused { peer, doc: doc.clone(), reason });
        }
    }

    /// What was sent on a lane may not have arrived: it is said again.
    pub(super) fn stopped(&mut self, id: ConnId, lane: Lane) {
        let (now, settle) = (self.now.mono, self.config.settle);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match lane {
            Lane::Control if conn.is_serving() => {
                conn.survey.doubt(now, settle);
                self.say_hello(id);
            }
            Lane::Control => self.greet_again(id, self.config.retry_min),
            // V1 has no others.
            Lane::Once(_) | Lane::Pulse | Lane::Dialogue => {}
            Lane::Class(class) => {
                let waiting = conn.exchanges.iter().filter(|(_, exchange)| exchange.is_waiting());
                let docs: Vec<DocId> =
                    waiting.map(|(doc, _)| doc.clone()).filter(|doc| self.docs.class(doc) == class).collect();
                for doc in docs {
                    conn.set_deadline(&doc, None);
                    if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                        exchange.give_up_waiting();
                    }
                    conn.enqueue(class, &doc);
                }
                conn.survey.doubt(now, settle);
            }
        }
    }
}
