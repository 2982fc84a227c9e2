//! Streams of the legacy wire: bidirectional ones, and ones for a single frame.

use bytes::Bytes;
use peat_proto::{ConnId, Input, Lane, StreamId, Time, Wire};

use super::link::{Stalled, chance};
use super::net::Packet;
use super::verdict::Fault;
use super::{Happening, World};
use crate::legacy;

/// What one end writes on a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Half {
    /// The lane of a node that opened it.
    lane: Option<Lane>,
    /// When its newest packet leaves the send buffer.
    departs: Time,
    /// When its newest packet arrives: none overtakes another.
    newest: Time,
    /// It was finished.
    fin: bool,
    /// Nothing more of it arrives.
    broken: bool,
    /// Its end has arrived, or never will.
    over: bool,
    /// This end does not read what comes back.
    unread: bool,
}

impl World {
    /// What two members speak with each other.
    pub(crate) fn wire(&self, from: usize, to: usize) -> Wire {
        let legacy =
            self.is_veteran(from) || self.is_veteran(to) || self.net.legacy.contains(&(from.min(to), from.max(to)));
        if legacy { Wire::V0 } else { Wire::V1 }
    }

    /// A node sends a frame on a stream of its own, or the first words of its dialogue.
    pub(crate) fn send_once(&mut self, conn: ConnId, lane: Lane, frame: Bytes) {
        let Some(end) = self.net.ends.get_mut(&conn) else { return };
        let bidirectional = lane != Lane::Pulse;
        let opened = &mut end.opened[usize::from(bidirectional)];
        let stream = StreamId::new(*opened, end.role, bidirectional);
        *opened += 1;
        self.open_stream(conn, stream, Some(lane), matches!(lane, Lane::Once(_)));
        self.write_stream(conn, stream, frame, lane != Lane::Dialogue);
    }

    pub(crate) fn open_stream(&mut self, conn: ConnId, stream: StreamId, lane: Option<Lane>, unread: bool) {
        if let Some(end) = self.net.ends.get_mut(&conn) {
            end.halves.insert(stream, Half { lane, unread, ..Half::default() });
        }
    }

    /// Writes on a stream. Behind its end nothing goes out, and what nobody has written on is not seen.
    pub(crate) fn write_stream(&mut self, conn: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let now = self.now();
        let Some(end) = self.net.ends.get_mut(&conn) else { return };
        let half = end.halves.entry(stream).or_default();
        let ended = half.fin;
        half.fin |= fin;
        if ended {
            self.depart(conn, now, bytes.len());
        } else if fin || !bytes.is_empty() {
            self.carry_stream(conn, stream, bytes, fin);
        }
    }

    /// Puts bytes on their way.
    pub(crate) fn carry_stream(&mut self, conn: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        let now = self.now();
        let Some(end) = self.net.ends.get(&conn) else { return };
        let (other, from, to, role) = (end.other, end.member, end.peer, end.role);
        let path = self.net.path(from, to);
        if path.cut {
            path.stalled.push_back((conn, Stalled::Bytes(stream, bytes, fin)));
            return;
        }
        let profile = path.profile;
        let fate = path.carry(now, bytes.len(), &mut self.rng, &mut self.fired);
        self.depart(conn, fate.departs, bytes.len());
        if chance(&mut self.rng, profile.hangup) {
            return self.lose_connection(conn);
        }
        let opens = stream.opener() == role;
        let Some(half) = self.net.ends.get_mut(&conn).and_then(|end| end.halves.get_mut(&stream)) else { return };
        let (lane, broken) = (half.lane, half.broken);
        half.departs = fate.departs;
        half.newest = half.newest.max(fate.arrives.unwrap_or(now));
        let at = half.newest;
        if !broken {
            let lane = lane.unwrap_or(Lane::Dialogue);
            let packet = self.net.post(Packet { to: other, lane, stream, bytes, fin });
            self.heap.at(at, Happening::Arrive { packet });
        }
        // The handshake and its like are not lost but with their connection.
        if opens && lane != Some(Lane::Dialogue) && fin && chance(&mut self.rng, profile.reset) {
            self.break_stream(conn, stream);
        }
    }

    fn depart(&mut self, conn: ConnId, at: Time, bytes: usize) {
        if bytes > 0 {
            self.heap.at(at, Happening::Departed { conn, bytes });
        }
    }

    /// What is on its way on a stream is lost. Its receiver may have got a part. A node learns that the stream is over, as
    /// QUIC has it (RFC 9000, 19.4: a reset is sent until it is acknowledged); a fielded peer may drop whatever it received,
    /// and nobody learns of it, for nothing is acknowledged on this wire. Between nodes nothing is lost that has left the send
    /// buffer, and the sender of the rest is told.
    pub(crate) fn break_stream(&mut self, conn: ConnId, stream: StreamId) {
        let (now, nodes) = (self.now(), self.setup.nodes);
        let Some(end) = self.net.ends.get_mut(&conn) else { return };
        let (other, to_node, between_nodes) = (end.other, end.peer < nodes, end.member < nodes && end.peer < nodes);
        let Some(half) = end.halves.get_mut(&stream).filter(|half| !half.broken) else { return };
        if between_nodes && half.departs <= now {
            return;
        }
        (half.broken, half.over) = (true, true);
        let lane = half.lane;
        let mine = |packet: &Packet| packet.to == other && packet.stream == stream;
        let first = self.net.packets.iter().find(|(_, packet)| mine(packet)).map(|(id, _)| *id);
        let first = first.and_then(|id| self.net.packets.get(&id).cloned());
        self.net.packets.retain(|_, packet| !mine(packet));
        self.fired.count(Fault::StreamReset);
        let part = first.filter(|_| self.rng.below(2) == 0);
        if to_node || part.is_some() {
            self.heap.after(0, Happening::Reset { conn: other, stream });
        }
        if let Some(packet) = part {
            self.receive(other, stream, packet.bytes.slice(..packet.bytes.len() / 2), false);
        }
        if let Some(lane) = lane.filter(|_| between_nodes || self.rng.below(2) == 0) {
            let wait = if between_nodes { 0 } else { self.rng.below(200_000) };
            self.heap.after(wait, Happening::Stopped { conn, lane });
        }
        self.release(conn, stream);
    }

    /// An end reads no more of a stream, and its other end is told.
    pub(crate) fn stop_stream(&mut self, conn: ConnId, stream: StreamId) {
        let Some(end) = self.net.ends.get(&conn) else { return };
        let (other, from, to) = (end.other, end.member, end.peer);
        let Some(half) = self.net.ends.get_mut(&other).and_then(|end| end.halves.get_mut(&stream)) else { return };
        if std::mem::replace(&mut half.broken, true) {
            return;
        }
        half.over = true;
        self.net.packets.retain(|_, packet| packet.to != conn || packet.stream != stream);
        let latency = u64::from(self.net.path(from, to).profile.latency);
        self.heap.after(latency, Happening::StreamStopped { conn: other, stream });
        self.release(other, stream);
    }

    /// A fielded peer learns that its stream is read no more. To a node's transport that is no news once all was written.
    pub(crate) fn stream_stopped(&mut self, conn: ConnId, stream: StreamId) {
        let half = self.net.ends.get(&conn).and_then(|end| end.halves.get(&stream));
        let unfinished = half.filter(|half| !half.fin).and_then(|half| half.lane);
        match unfinished {
            Some(lane) => self.tell(conn, Input::Stopped { conn, lane }),
            None => self.tell_veteran(conn, legacy::Input::Stopped { conn, stream }),
        }
    }

    /// Whether both halves of a stream are over: the fielded peer that opened it may open another.
    fn release(&mut self, conn: ConnId, stream: StreamId) {
        let Some(end) = self.net.ends.get(&conn) else { return };
        let (opener, acceptor) = if stream.opener() == end.role { (conn, end.other) } else { (end.other, conn) };
        let over = |conn: ConnId| {
            let half = self.net.ends.get(&conn).and_then(|end| end.halves.get(&stream));
            half.is_some_and(|half| half.over)
        };
        if !over(opener) || stream.is_bidirectional() && !over(acceptor) {
            return;
        }
        let Some((from, to)) = self.net.ends.get(&acceptor).map(|end| (end.member, end.peer)) else { return };
        let latency = u64::from(self.net.path(from, to).profile.latency);
        self.heap.after(latency, Happening::Released { conn: opener, stream });
    }

    /// The end of a stream has arrived.
    pub(crate) fn stream_ended(&mut self, receiver: ConnId, stream: StreamId) {
        let Some(writer) = self.net.ends.get(&receiver).map(|end| end.other) else { return };
        if let Some(half) = self.net.ends.get_mut(&writer).and_then(|end| end.halves.get_mut(&stream)) {
            half.over = true;
            self.release(writer, stream);
        }
    }

    /// Both halves of a stream are over: its opener may open another. They are remembered, for whoever has not heard of the
    /// end writes on, and nothing of it arrives.
    pub(crate) fn released(&mut self, conn: ConnId, stream: StreamId) {
        let other = self.net.ends.get(&conn).map(|end| end.other);
        for end in [Some(conn), other].into_iter().flatten() {
            if let Some(half) = self.net.ends.get_mut(&end).and_then(|end| end.halves.get_mut(&stream)) {
                half.broken = true;
            }
        }
        self.tell_veteran(conn, legacy::Input::Released { conn, stream });
    }

    /// Whether an end is not to be given what comes on a stream.
    pub(crate) fn is_unread(&self, conn: ConnId, stream: StreamId) -> bool {
        let end = self.net.ends.get(&conn);
        end.is_some_and(|end| end.halves.get(&stream).is_some_and(|half| half.unread))
    }
}
