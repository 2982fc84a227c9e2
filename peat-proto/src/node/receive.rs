//! What arrives on a connection.

use bytes::Bytes;

use super::Node;
use crate::id::{ConnId, DocId, StreamId};
use crate::io::{CloseCode, Lane, Output};
use crate::peer::bits::Bits;
use crate::peer::connection::{Conn, Phase};
use crate::wire::v1::{
    Ask, Body, BodyError, Caps, Cells, Entries, Entry, EntryError, Frame, FrameError, Incoming, Kind, Ping, Pong, Pull,
    Shares, Summary, Terms, Want,
};

/// Answers to pings that may wait.
const MAX_PONGS: usize = 4;

impl Node {
    pub(super) fn received(&mut self, id: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let most = self.config.max_streams;
        let pause = self.docs.is_behind(1);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let len = bytes.len();
        conn.traffic.bytes_received += len as u64;
        self.stats.traffic.bytes_received += len as u64;
        if len == 0 && fin && conn.ended_empty(stream) {
            return self.close_conn(id, CloseCode::Exhausted);
        }
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
        self.bound_receiving(Some(id));
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

    /// Holds partial frames to their budget: of one connection to half of it, of all by closing who holds most. Who has just
    /// sent a little need not be who fills it.
    pub(super) fn bound_receiving(&mut self, sender: Option<ConnId>) {
        let held = sender.and_then(|id| self.conns.get(&id)).map_or(0, Conn::receiving);
        if let Some(id) = sender.filter(|_| held > self.config.receive_budget / 2) {
            self.close_conn(id, CloseCode::Exhausted);
        }
        while self.receiving > self.config.receive_budget {
            let own = self.conns.values().map(|conn| (conn.receiving(), conn.id));
            let legacy = self.legacy.conns.values().map(|conn| (conn.receiving(), conn.id));
            let Some((_, largest)) = own.chain(legacy).max() else { return };
            if self.conns.contains_key(&largest) {
                self.close_conn(largest, CloseCode::Exhausted);
            } else {
                self.legacy_close(largest, CloseCode::Exhausted);
            }
        }
    }

    pub(super) fn reset(&mut self, id: ConnId, stream: StreamId) {
        if self.conns.get_mut(&id).is_some_and(|conn| conn.ended_empty(stream)) {
            return self.close_conn(id, CloseCode::Exhausted);
        }
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
        // The credit that is held of it is given back in its time: until then it counts as open for the transport.
        if let Some(ended) = conn.streams.remove(&stream) {
            self.receiving = self.receiving.saturating_sub(ended.counted);
            if ended.assembler.is_mid_frame() {
                self.stats.truncated += 1;
            }
        }
    }

    /// Gives back the receive credit that was held while too much was not durable.
    pub(super) fn release_credit(&mut self) {
        if self.docs.is_behind(2) {
            return;
        }
        self.legacy_release_credit();
        for conn in self.conns.values_mut() {
            for (stream, bytes) in std::mem::take(&mut conn.held) {
                if let Some(paused) = conn.streams.get_mut(&stream) {
                    paused.resume(self.now.mono);
                }
                self.out.credits.push_back(Output::Consumed { conn: conn.id, stream, bytes });
            }
        }
    }

    fn read_frames(&mut self, id: ConnId, stream: StreamId) -> Result<(), FrameError> {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
            let caps = match conn.phase {
                Phase::Greeting { .. } => Caps::STRANGER,
                Phase::Admitting { .. } => Caps { entries: 0, ..Caps::PEER },
                Phase::Serving => Caps::PEER,
            };
            let Some(incoming) = conn.streams.get_mut(&stream) else { return Ok(()) };
            match incoming.assembler.next(&caps)? {
                None => return Ok(()),
                Some(Incoming::Skipped { .. }) => self.stats.skipped += 1,
                Some(Incoming::Frame(frame)) => {
                    incoming.completed();
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
            FrameError::TooLong { .. } => CloseCode::TooLarge,
            FrameError::Unknown { .. } => CloseCode::Version,
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
    pub(super) fn fault(&mut self, id: ConnId, code: CloseCode) {
        match self.conns.get(&id) {
            Some(conn) if conn.link.reliable => self.close_conn(id, code),
            _ => self.stats.malformed += 1,
        }
    }

    fn frame(&mut self, id: ConnId, Frame { kind, body }: Frame) {
        let Some(conn) = self.conns.get(&id) else { return };
        let proven = !matches!(conn.phase, Phase::Greeting { .. });
        let outcome = match kind {
            Kind::Hello => return self.greeted(id, body),
            Kind::Proof => return self.proven(id, body),
            Kind::Ping => Ping::decode(body).map(|ping| self.pinged(id, ping)),
            Kind::Pong => Pong::decode(body).map(|pong| self.ponged(id, pong)),
            _ if !proven => return self.fault(id, CloseCode::Unexpected),
            Kind::Terms => Terms::decode(body).map(|terms| self.heard_terms(id, terms)),
            _ if !conn.is_serving() => return self.fault(id, CloseCode::Unexpected),
            Kind::Summary => Summary::decode(body).map(|summary| self.summarised(id, summary)),
            Kind::Pull => Pull::decode(body).map(|pull| self.heard_pull(id, &pull)),
            Kind::Cells => Cells::decode(body).map(|cells| self.heard_cells(id, &cells)),
            Kind::Want => Want::decode(body).map(|want| self.heard_want(id, want)),
            Kind::Ask => Ask::decode(body).map(|ask| self.heard_ask(id, ask)),
            Kind::Shares => Shares::decode(body).map(|shares| self.heard_shares(id, shares)),
            Kind::Entries => Entries::decode(body).map(|entries| self.entries(id, &entries)),
            Kind::Packed => self.packer.unpack(body).map(|entries| self.entries(id, &entries)),
        };
        match outcome {
            Ok(()) => {}
            // A field of a later version that must be understood.
            Err(BodyError::Unknown { .. }) => self.fault(id, CloseCode::Version),
            Err(_) => self.fault(id, CloseCode::BadFrame),
        }
    }

    /// A bad entry costs itself and not its neighbours; one of a later version that must be understood costs the
    /// connection.
    fn entries(&mut self, id: ConnId, entries: &Entries) {
        for entry in entries.each() {
            match entry {
                Ok(Entry { doc, body }) => self.entry(id, &doc, body),
                Err(EntryError::Unknown { .. }) => return self.fault(id, CloseCode::Version),
                Err(_) => self.stats.entries_skipped += 1,
            }
        }
    }

    fn entry(&mut self, id: ConnId, doc: &DocId, body: Body) {
        match body {
            Body::Word(word) => self.heard(id, doc, &word),
            Body::Saved(saved) => self.heard_whole(id, doc, saved),
            Body::Marker(marker) => self.heard_marker(id, doc, &marker),
            Body::Refused(refused) => self.heard_refused(id, doc, &refused),
            Body::Piece(piece) => self.heard_piece(id, doc, piece),
            Body::Held(held) => self.heard_held(id, doc, &held),
        }
    }

    fn pinged(&mut self, id: ConnId, ping: Ping) {
        let pong = Pong { number: ping.number }.frame();
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.control.contains(&pong)
            && conn.control.len() < MAX_PONGS
        {
            conn.control.push_back(pong);
        }
    }

    fn ponged(&mut self, id: ConnId, pong: Pong) {
        let now = self.now.mono;
        if let Some(conn) = self.conns.get_mut(&id)
            && let Some(sent) = conn.pinged.take().filter(|sent| sent.as_micros() == pong.number)
        {
            conn.window.note_rtt(now.since(sent));
        }
    }

    /// What was sent on a lane may not have arrived: it is said again.
    pub(super) fn stopped(&mut self, id: ConnId, lane: Lane) {
        let (now, settle) = (self.now.mono, self.config.settle);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match lane {
            Lane::Control if conn.is_serving() => {
                conn.survey.doubt(now, settle);
                if let Some(asking) = &mut conn.survey.asking {
                    asking.repeat();
                }
                self.repeat_terms(id);
            }
            Lane::Control => self.greet_again(id, self.config.retry_min),
            // V1 has no others.
            Lane::Once(_) | Lane::Pulse | Lane::Dialogue => {}
            Lane::Class(class) => {
                // What is sent in pieces begins again behind what is known to be there.
                conn.rewind(class);
                let moving = conn.transfers.get(&class).map(|(doc, _)| doc);
                let waiting =
                    conn.exchanges.iter().filter(|(doc, exchange)| exchange.is_waiting() && Some(*doc) != moving);
                let docs: Vec<DocId> =
                    waiting.map(|(doc, _)| doc.clone()).filter(|doc| self.docs.class(doc) == class).collect();
                for doc in docs {
                    conn.set_deadline(&doc, None);
                    if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                        exchange.give_up_waiting();
                    }
                    conn.enqueue(class, &doc);
                }
                // What was sent without waiting for an answer may be lost too.
                conn.equal = Bits::default();
                conn.survey.doubt(now, settle);
            }
        }
    }
}
