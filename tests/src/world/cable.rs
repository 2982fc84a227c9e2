//! The transports of a world: dials, connections, and frames on their way.

use std::time::Duration;

use bytes::Bytes;
use peat_proto::{ConnId, Input, Lane, Link, Role, StreamId};

use super::drive::IDLE;
use super::hostile::Hostile;
use super::link::{Stalled, chance};
use super::net::{Packet, PacketId};
use super::setup::{Habit, peer};
use super::verdict::Fault;
use super::{Happening, World};
use crate::legacy;

impl World {
    /// A dial has come to its end.
    pub(crate) fn dialled(&mut self, from: usize, life: u64, to: usize) {
        if self.life(from) != life {
            return;
        }
        let there = self.is_up(to) && !self.net.hidden.contains(&to);
        if there && !self.net.is_cut(from, to) && !self.net.is_cut(to, from) {
            return self.connect(from, to);
        }
        self.fired.count(Fault::DialFailed);
        if self.is_veteran(from) {
            return self.veteran_input(from, legacy::Input::DialFailed { peer: peer(to) });
        }
        self.input(from, Input::DialFailed { peer: peer(to) });
    }

    /// Connects two members that are up.
    pub(crate) fn connect(&mut self, from: usize, to: usize) {
        if !self.net.between(from, to).is_empty() {
            self.fired.count(Fault::DuplicateConnection);
        }
        let wire = self.wire(from, to);
        let (here, there) = self.net.connect(from, to, wire);
        self.trace.note(self.now(), here.0, 13, &[]);
        let latency = self.net.path(from, to).profile.latency;
        let rtt = chance(&mut self.rng, 5_000).then(|| Duration::from_micros(2 * u64::from(latency)));
        let reliable = self.net.ends[&here].reliable;
        let mut binding = [0; 32];
        binding[..8].copy_from_slice(&here.0.to_be_bytes());
        for (conn, at, role) in [(here, from, Role::Dialled), (there, to, Role::Accepted)] {
            let other = peer(if at == from { to } else { from });
            let link = Link { role, wire, reliable, binding, rtt };
            if at < self.setup.nodes {
                self.input(at, Input::Connected { conn, peer: other, link });
            } else if self.is_veteran(at) {
                self.veteran_input(at, legacy::Input::Connected { conn, peer: other, role });
            } else {
                for (lane, bytes) in self.hostile[at - self.setup.nodes].greet() {
                    self.fired.count(Fault::Hostile);
                    self.transmit(conn, lane, bytes);
                }
            }
        }
    }

    /// One end closes its connection; the other learns of it later.
    pub(crate) fn hang_up(&mut self, conn: ConnId, code: Option<u32>) {
        let Some(end) = self.net.remove(conn) else { return };
        let path = self.net.path(end.member, end.peer);
        let wait = if path.cut { IDLE } else { u64::from(path.profile.latency + path.profile.jitter) + 1 };
        let code = if path.cut { None } else { code };
        self.heap.after(wait, Happening::Gone { conn: end.other, code });
    }

    /// Puts a frame on its way.
    pub(crate) fn transmit(&mut self, conn: ConnId, lane: Lane, frame: Bytes) {
        let now = self.now();
        let Some(end) = self.net.ends.get(&conn) else { return };
        let (other, reliable, from, to) = (end.other, end.reliable, end.member, end.peer);
        let deaf = self.setup.habit(to) == Some(Habit::SlowRead);
        let path = self.net.path(from, to);
        if !reliable {
            let fate = path.throw(now, frame.len(), &mut self.rng, &mut self.fired);
            self.heap.at(fate.departs, Happening::Departed { conn, bytes: frame.len() });
            for arrives in [fate.arrives, fate.again].into_iter().flatten() {
                let stream = self.net.fresh_stream();
                let packet = Packet { to: other, lane, stream, bytes: frame.clone(), fin: true };
                let packet = self.net.post(packet);
                self.heap.at(arrives, Happening::Arrive { packet });
            }
            return;
        }
        if path.cut || deaf {
            path.stalled.push_back((conn, Stalled::Frame(lane, frame)));
            return;
        }
        let profile = path.profile;
        let fate = path.carry(now, frame.len(), &mut self.rng, &mut self.fired);
        self.heap.at(fate.departs, Happening::Departed { conn, bytes: frame.len() });
        if chance(&mut self.rng, profile.hangup) {
            return self.lose_connection(conn);
        }
        // On a broken stream the sender speaks to nobody until it learns of it.
        let Some(stream) = self.net.stream(conn, lane) else { return };
        let Some(end) = self.net.ends.get_mut(&conn) else { return };
        let arrives = fate.arrives.unwrap_or(now).max(end.newest[lane.index()]);
        end.newest[lane.index()] = arrives;
        let packet = self.net.post(Packet { to: other, lane, stream, bytes: frame, fin: false });
        self.heap.at(arrives, Happening::Arrive { packet });
        if chance(&mut self.rng, profile.reset) {
            self.reset_stream(conn, lane);
        }
    }

    /// A stream breaks: its receiver may have got a part of the next frame, and both sides learn of it in their own time.
    pub(crate) fn reset_stream(&mut self, conn: ConnId, lane: Lane) {
        let first = self.net.ends.get(&conn).map(|end| end.other).and_then(|other| {
            let mut packets = self.net.packets.values();
            packets.find(|packet| packet.to == other && packet.lane == lane).cloned()
        });
        let Some((other, stream)) = self.net.break_stream(conn, lane) else { return };
        self.fired.count(Fault::StreamReset);
        if let Some(packet) = first.filter(|packet| packet.stream == stream && self.rng.below(2) == 0) {
            self.receive(other, stream, packet.bytes.slice(..packet.bytes.len() / 2), false);
        }
        let Some((from, to)) = self.net.ends.get(&conn).map(|end| (end.member, end.peer)) else { return };
        let latency = u64::from(self.net.path(from, to).profile.latency);
        let (soon, later) = (self.rng.below(latency + 1), latency + self.rng.below(latency + 1));
        self.heap.after(soon, Happening::Reset { conn: other, stream });
        self.heap.after(later, Happening::Stopped { conn, lane });
    }

    /// A connection is lost; each side learns of it in its own time.
    pub(crate) fn lose_connection(&mut self, conn: ConnId) {
        let Some(other) = self.net.ends.get(&conn).map(|end| end.other) else { return };
        self.fired.count(Fault::Hangup);
        for end in [conn, other] {
            let wait = self.rng.below(200_000);
            self.heap.after(wait, Happening::Gone { conn: end, code: None });
        }
    }

    /// Cuts one direction; transports notice after a while. False if it is cut.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> bool {
        let path = self.net.path(from, to);
        if std::mem::replace(&mut path.cut, true) {
            return false;
        }
        path.cuts += 1;
        let cut = path.cuts;
        self.fired.count(Fault::Cut);
        self.heap.after(IDLE, Happening::Silence { from, to, cut });
        true
    }

    /// Mends one direction: what waited goes on its way.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        let path = self.net.path(from, to);
        path.cut = false;
        for (conn, stalled) in std::mem::take(&mut path.stalled) {
            match stalled {
                Stalled::Frame(lane, frame) => self.transmit(conn, lane, frame),
                Stalled::Bytes(stream, bytes, fin) => self.carry_stream(conn, stream, bytes, fin),
            }
        }
    }

    /// A cut has lasted: the transports at both ends give their connections up.
    pub(crate) fn silence(&mut self, from: usize, to: usize, cut: u64) {
        let path = self.net.path(from, to);
        if !path.cut || path.cuts != cut {
            return;
        }
        for conn in self.net.between(from, to).into_iter().chain(self.net.between(to, from)) {
            self.fired.count(Fault::IdleTimeout);
            let wait = self.rng.below(1_000_000);
            self.heap.after(wait, Happening::Gone { conn, code: None });
        }
    }

    /// A packet reaches its end, if both still exist and there is credit.
    pub(crate) fn arrive(&mut self, id: PacketId) {
        let Some(to) = self.net.packets.get(&id).map(|packet| packet.to) else { return };
        let credit = self.net.has_credit(to);
        let Some(end) = self.net.ends.get_mut(&to) else { return };
        if end.reliable && (!credit || !end.parked.is_empty()) {
            end.parked.push_back(id);
            return self.fired.count(Fault::NoCredit);
        }
        self.deliver(id);
    }

    /// Credit was given back: what waited for it is delivered in its order.
    pub(crate) fn credit(&mut self, conn: ConnId) {
        while self.net.has_credit(conn) {
            let next = self.net.ends.get_mut(&conn).and_then(|end| end.parked.pop_front());
            let Some(next) = next else { return };
            self.deliver(next);
        }
    }

    fn deliver(&mut self, id: PacketId) {
        let Some(Packet { to, lane, stream, bytes, fin }) = self.net.packets.remove(&id) else { return };
        let Some((receiver, reliable)) = self.net.ends.get(&to).map(|end| (end.member, end.reliable)) else { return };
        if fin && reliable {
            self.stream_ended(to, stream);
        }
        if self.is_unread(to, stream) {
            return;
        }
        let sender = self.net.ends.get(&to).map(|end| end.peer);
        let habit = sender.and_then(|sender| self.setup.habit(sender));
        if let Some(fault) = habit.and_then(|habit| Hostile::fault(habit, &bytes)) {
            self.fired.count(fault);
        }
        if let Some(hostile) = receiver.checked_sub(self.setup.nodes).filter(|_| !self.is_veteran(receiver)) {
            return self.hostile[hostile].hear(lane, &bytes);
        }
        if reliable && bytes.len() > 1 && self.rng.below(16) == 0 {
            self.fired.count(Fault::Fragment);
            let cut = 1 + super::setup::draw(&mut self.rng, bytes.len() - 1);
            self.receive(to, stream, bytes.slice(..cut), false);
            return self.receive(to, stream, bytes.slice(cut..), fin);
        }
        self.receive(to, stream, bytes, fin);
    }

    pub(crate) fn receive(&mut self, conn: ConnId, stream: StreamId, bytes: Bytes, fin: bool) {
        self.trace.note(self.now(), conn.0, 14, &bytes);
        if self.net.ends.get(&conn).is_some_and(|end| self.is_veteran(end.member)) {
            return self.tell_veteran(conn, legacy::Input::Received { conn, stream, bytes, fin });
        }
        self.net.delivered(conn, stream, bytes.len());
        self.tell(conn, Input::Received { conn, stream, bytes, fin });
    }
}
