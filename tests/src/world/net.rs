//! Connections and what is on its way between their ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use peat_proto::{ConnId, Lane, Role, StreamId, Time, Wire};

use super::link::{Path, Profile};
use super::streams::Half;

/// Bytes of receive credit of one end; an ordered link delivers no more until some were consumed.
const CREDIT: usize = 4 << 10;

/// Names a packet; they are numbered in the order of sending.
pub(crate) type PacketId = u64;

/// Bytes on their way.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) to: ConnId,
    pub(crate) lane: Lane,
    pub(crate) stream: StreamId,
    pub(crate) bytes: Bytes,
    pub(crate) fin: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) member: usize,
    pub(crate) peer: usize,
    pub(crate) other: ConnId,
    pub(crate) role: Role,
    pub(crate) wire: Wire,
    pub(crate) reliable: bool,
    /// Streams of the legacy wire that this end has opened: unidirectional, bidirectional.
    pub(crate) opened: [u64; 2],
    /// What it writes on such streams.
    pub(crate) halves: BTreeMap<StreamId, Half>,
    /// The stream that each lane sends on; `None` before its first frame.
    streams: [Option<StreamId>; 6],
    /// Lanes whose stream was reset, which this end does not know yet.
    broken: [bool; 6],
    /// When the newest packet of each lane arrives: none may overtake it.
    pub(crate) newest: [Time; 6],
    /// Bytes delivered to this end and not consumed: by stream, and in all. On the legacy wire streams are many.
    unconsumed: BTreeMap<StreamId, usize>,
    /// The same of streams that were reset.
    excused: BTreeMap<StreamId, usize>,
    owed: usize,
    /// Packets that wait for credit.
    pub(crate) parked: VecDeque<PacketId>,
}

#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) ends: BTreeMap<ConnId, End>,
    pub(crate) packets: BTreeMap<PacketId, Packet>,
    /// Pairs, lower number first, whose connections carry datagrams.
    pub(crate) datagram: BTreeSet<(usize, usize)>,
    /// Pairs, lower number first, that speak the legacy wire with each other.
    pub(crate) legacy: BTreeSet<(usize, usize)>,
    /// Members that are no longer where the others look for them.
    pub(crate) hidden: BTreeSet<usize>,
    paths: BTreeMap<(usize, usize), Path>,
    profile: Profile,
    next_conn: u64,
    next_stream: u64,
    next_packet: PacketId,
}

impl Net {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            ends: BTreeMap::new(),
            packets: BTreeMap::new(),
            datagram: BTreeSet::new(),
            legacy: BTreeSet::new(),
            hidden: BTreeSet::new(),
            paths: BTreeMap::new(),
            profile,
            next_conn: 0,
            next_stream: 0,
            next_packet: 0,
        }
    }

    /// The path from one member to another.
    pub(crate) fn path(&mut self, from: usize, to: usize) -> &mut Path {
        let profile = self.profile;
        self.paths.entry((from, to)).or_insert_with(|| Path::new(profile))
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.paths.get(&(from, to)).is_some_and(|path| path.cut)
    }

    /// All paths that were used, and what those to come will be like.
    pub(crate) fn set_profiles(&mut self, change: impl Fn(Profile) -> Profile) {
        self.profile = change(self.profile);
        for path in self.paths.values_mut() {
            path.become_like(change(path.profile));
        }
    }

    pub(crate) fn cut_paths(&self) -> Vec<(usize, usize)> {
        self.paths.iter().filter(|(_, path)| path.cut).map(|(pair, _)| *pair).collect()
    }

    /// Two ends of a new connection.
    pub(crate) fn connect(&mut self, a: usize, b: usize, wire: Wire) -> (ConnId, ConnId) {
        let (here, there) = (ConnId(self.next_conn), ConnId(self.next_conn + 1));
        self.next_conn += 2;
        let reliable = wire == Wire::V0 || !self.datagram.contains(&(a.min(b), a.max(b)));
        for (id, member, peer, other, role) in [(here, a, b, there, Role::Dialled), (there, b, a, here, Role::Accepted)]
        {
            let end = End {
                member,
                peer,
                other,
                role,
                wire,
                reliable,
                opened: [0; 2],
                halves: BTreeMap::new(),
                streams: [None; 6],
                broken: [false; 6],
                newest: [Time::ZERO; 6],
                unconsumed: BTreeMap::new(),
                excused: BTreeMap::new(),
                owed: 0,
                parked: VecDeque::new(),
            };
            self.ends.insert(id, end);
        }
        (here, there)
    }

    /// The ends that one member has of connections with another.
    pub(crate) fn between(&self, member: usize, peer: usize) -> Vec<ConnId> {
        let ends = self.ends.iter().filter(|(_, end)| end.member == member && end.peer == peer);
        ends.map(|(id, _)| *id).collect()
    }

    /// The ends of a member.
    pub(crate) fn of(&self, member: usize) -> Vec<ConnId> {
        self.ends.iter().filter(|(_, end)| end.member == member).map(|(id, _)| *id).collect()
    }

    /// Forgets one end and what is on its way to it.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<End> {
        let end = self.ends.remove(&conn)?;
        self.packets.retain(|_, packet| packet.to != conn);
        if let Some(path) = self.paths.get_mut(&(end.member, end.peer)) {
            path.stalled.retain(|(of, _)| *of != conn);
        }
        Some(end)
    }

    /// The stream of a lane; `None` while what is sent on it goes nowhere.
    pub(crate) fn stream(&mut self, conn: ConnId, lane: Lane) -> Option<StreamId> {
        let end = self.ends.get_mut(&conn)?;
        if end.broken[lane.index()] {
            return None;
        }
        let slot = &mut end.streams[lane.index()];
        if slot.is_none() {
            self.next_stream += 1;
            *slot = Some(StreamId::new(self.next_stream, Role::Dialled, false));
        }
        *slot
    }

    /// A stream of its own, for a datagram.
    pub(crate) fn fresh_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId::new(self.next_stream, Role::Dialled, false)
    }

    pub(crate) fn post(&mut self, packet: Packet) -> PacketId {
        self.next_packet += 1;
        self.packets.insert(self.next_packet, packet);
        self.next_packet
    }

    /// Breaks the stream of a lane: what is on its way is gone. Answers the receiving end and its stream.
    pub(crate) fn break_stream(&mut self, conn: ConnId, lane: Lane) -> Option<(ConnId, StreamId)> {
        let end = self.ends.get_mut(&conn)?;
        let stream = end.streams[lane.index()].take()?;
        end.broken[lane.index()] = true;
        let other = end.other;
        self.packets.retain(|_, packet| packet.stream != stream);
        Some((other, stream))
    }

    /// The sender knows that its stream is gone: the next frame opens another.
    pub(crate) fn mend(&mut self, conn: ConnId, lane: Lane) {
        if let Some(end) = self.ends.get_mut(&conn) {
            end.broken[lane.index()] = false;
        }
    }

    /// Whether what this packet is part of carries the legacy wire.
    pub(crate) fn is_legacy(&self, packet: &Packet) -> bool {
        self.ends.get(&packet.to).is_some_and(|end| end.wire == Wire::V0)
    }

    /// Whether an ordered link may deliver to this end.
    pub(crate) fn has_credit(&self, conn: ConnId) -> bool {
        self.ends.get(&conn).is_some_and(|end| end.owed < CREDIT)
    }

    /// Notes bytes that were delivered on an ordered link.
    pub(crate) fn delivered(&mut self, conn: ConnId, stream: StreamId, bytes: usize) {
        if let Some(end) = self.ends.get_mut(&conn).filter(|end| end.reliable) {
            *end.unconsumed.entry(stream).or_default() += bytes;
            end.owed += bytes;
        }
    }

    /// Gives credit back; an error if more is given than was taken.
    pub(crate) fn consumed(&mut self, conn: ConnId, stream: StreamId, bytes: usize) -> Result<(), String> {
        let Some(end) = self.ends.get_mut(&conn).filter(|end| end.reliable) else { return Ok(()) };
        let excused = end.excused.entry(stream).or_default();
        let counts = bytes.saturating_sub(*excused);
        *excused = excused.saturating_sub(bytes);
        let owed = end.unconsumed.entry(stream).or_default();
        *owed = owed.checked_sub(counts).ok_or("more credit was given back than was taken")?;
        end.owed -= counts;
        Ok(())
    }

    /// A stream was reset: nobody waits for its credit any more. What a node held of it comes back all the same, while
    /// who was not told of the reset may go on.
    pub(crate) fn forget_stream(&mut self, conn: ConnId, stream: StreamId) {
        if let Some(end) = self.ends.get_mut(&conn) {
            let left = end.unconsumed.remove(&stream).unwrap_or_default();
            end.owed -= left;
            *end.excused.entry(stream).or_default() += left;
        }
    }
}
