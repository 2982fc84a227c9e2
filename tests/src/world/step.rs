//! What can be done to a world.

use super::World;
use super::host::Plan;
use super::link::after;
use super::net::Packet;
use super::verdict::Fault;

/// One thing that is done to a world. Every argument is taken modulo what exists, so any list of steps is valid and a
/// list that was shortened stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An application changes a document, in the way that `kind` says.
    Edit {
        /// Whose.
        node: u8,
        /// Which.
        doc: u16,
        /// How.
        kind: u8,
        /// With what.
        value: u32,
    },
    /// An application deletes a document, in the way of its collection. To write it again is an Edit like others.
    Delete {
        /// Whose.
        node: u8,
        /// Which.
        doc: u16,
    },
    /// An application keeps a document in memory.
    Open {
        /// Whose.
        node: u8,
        /// Which.
        doc: u16,
    },
    /// An application lets go of one of the documents that it keeps in memory.
    Close {
        /// Whose.
        node: u8,
        /// Which of them.
        doc: u16,
    },
    /// A packet arrives now; on an ordered link the next of its lane.
    Deliver {
        /// Which of those on their way.
        packet: u16,
    },
    /// A datagram is lost; on an ordered link its stream is reset.
    Drop {
        /// Which of those on their way.
        packet: u16,
    },
    /// A datagram arrives once more.
    Duplicate {
        /// Which of those on their way.
        packet: u16,
    },
    /// Time passes.
    Advance {
        /// So much, in milliseconds.
        ms: u16,
    },
    /// The disk syncs now; a paused one goes on.
    Commit {
        /// Whose.
        node: u8,
    },
    /// The disk stands still.
    Pause {
        /// Whose.
        node: u8,
    },
    /// The next writes fail.
    FailWrites {
        /// Whose.
        node: u8,
        /// How many.
        count: u8,
    },
    /// The next loads fail.
    FailLoads {
        /// Whose.
        node: u8,
        /// How many.
        count: u8,
    },
    /// Power off. The host comes back within 20 seconds.
    Crash {
        /// Whose.
        node: u8,
        /// So many of the batches that were not durable survive at most.
        keep: u8,
    },
    /// A crashed host comes back now.
    Restart {
        /// Which.
        node: u8,
    },
    /// A clean close and a new start, if everything is saved.
    Reboot {
        /// Which.
        node: u8,
    },
    /// One direction between two members goes dead.
    Cut {
        /// From whom.
        from: u8,
        /// To whom.
        to: u8,
    },
    /// The fleet is divided into two.
    Partition {
        /// One bit for each node.
        side: u32,
    },
    /// All cuts are mended.
    Heal,
    /// One more connection.
    Connect {
        /// Who dials.
        from: u8,
        /// Whom.
        to: u8,
    },
    /// A connection is lost.
    Disconnect {
        /// Which of those that exist.
        conn: u8,
    },
    /// One direction becomes narrow: 4 kB/s.
    Squeeze {
        /// From whom.
        from: u8,
        /// To whom.
        to: u8,
        /// For how long, in milliseconds.
        ms: u16,
    },
    /// The cache lets go of everything that it may.
    Evict {
        /// Whose.
        node: u8,
    },
    /// An application at a fielded peer changes a document.
    FieldedEdit {
        /// Whose.
        peer: u8,
        /// Which.
        doc: u16,
        /// With what.
        value: u32,
    },
    /// An application at a fielded peer deletes a document, in the way of its collection. Void like Delete.
    FieldedDelete {
        /// Whose.
        peer: u8,
        /// Which.
        doc: u16,
    },
    /// A fielded peer says of a document that it was deleted, by anybody and at any time, and keeps no marker itself.
    FieldedForge {
        /// Which.
        peer: u8,
        /// Of which document.
        doc: u16,
        /// With which clocks.
        value: u32,
    },
    /// The process of a fielded peer ends without a word and starts again.
    FieldedRestart {
        /// Which.
        peer: u8,
    },
    /// The wall clock jumps.
    Clock {
        /// Whose.
        node: u8,
        /// By so many seconds.
        seconds: i16,
    },
}

impl World {
    /// Does one thing, then checks what must hold after it.
    pub fn apply(&mut self, step: Step) {
        if self.violation.is_some() {
            return;
        }
        self.take(step);
        self.check();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Edit { node, doc, kind, value } => {
                let (member, doc) = (self.any(node), self.setup.doc(doc.into()));
                self.edit(member, &doc, Plan { kind, value });
            }
            Step::Delete { node, doc } => {
                let (member, doc) = (self.any(node), self.setup.doc(doc.into()));
                self.delete(member, &doc);
            }
            Step::Open { node, doc } => {
                let (member, doc) = (self.any(node), self.setup.doc(doc.into()));
                if self.hosts[member].node.is_some() {
                    self.open(member, &doc);
                }
            }
            Step::Close { node, doc } => {
                let member = self.any(node);
                // What an edit waits for is closed behind it.
                let host = &self.hosts[member];
                let open: Vec<_> = host.opens.keys().filter(|doc| !host.plans.contains_key(*doc)).cloned().collect();
                if let Some(doc) = open.get(usize::from(doc) % open.len().max(1)) {
                    self.close(member, doc);
                }
            }
            Step::Deliver { packet } => {
                if let Some((id, packet)) = self.packet(packet) {
                    let same = |other: &Packet| other.to == packet.to && other.stream == packet.stream;
                    let first = self.net.packets.iter().find(|(_, other)| same(other)).map(|(id, _)| *id);
                    self.arrive(first.unwrap_or(id));
                }
            }
            Step::Drop { packet } => {
                if let Some((id, packet)) = self.packet(packet) {
                    let sender = self.net.ends.get(&packet.to).map(|end| end.other);
                    match sender {
                        Some(sender) if self.net.is_legacy(&packet) => self.break_stream(sender, packet.stream),
                        Some(sender) if !packet.fin => self.reset_stream(sender, packet.lane),
                        _ => {
                            self.net.packets.remove(&id);
                            self.fired.count(Fault::Loss);
                        }
                    }
                }
            }
            Step::Duplicate { packet } => {
                if let Some((_, packet)) = self.packet(packet).filter(|(_, it)| it.fin && !self.net.is_legacy(it)) {
                    self.fired.count(Fault::Duplicate);
                    let stream = self.net.fresh_stream();
                    let again = self.net.post(Packet { stream, ..packet });
                    self.arrive(again);
                }
            }
            Step::Advance { ms } => self.pass(1_000 * u64::from(ms)),
            Step::Commit { node } => {
                let member = self.any(node);
                self.hosts[member].disk.paused = false;
                self.commit(member);
            }
            Step::Pause { node } => {
                let member = self.any(node);
                self.hosts[member].disk.paused = true;
                self.fired.count(Fault::DiskPause);
            }
            Step::FailWrites { node, count } => {
                let member = self.any(node);
                self.hosts[member].disk.failing_writes = u32::from(count % 6);
            }
            Step::FailLoads { node, count } => {
                let member = self.any(node);
                self.hosts[member].disk.failing_loads = u32::from(count % 6);
            }
            Step::Crash { node, keep } => {
                let member = self.any(node);
                self.crash(member, usize::from(keep % 3));
            }
            Step::Restart { node } => {
                let member = self.any(node);
                if self.hosts[member].node.is_none() {
                    self.start(member, false);
                }
            }
            Step::Reboot { node } => {
                let member = self.any(node);
                self.reboot(member);
            }
            Step::Cut { from, to } => {
                if let Some((from, to)) = self.pair(from, to) {
                    self.cut(from, to);
                }
            }
            Step::Partition { side } => self.divide(side),
            Step::Heal => {
                for (from, to) in self.net.cut_paths() {
                    self.mend(from, to);
                }
            }
            Step::Connect { from, to } => {
                if let Some((from, to)) = self.pair(from, to)
                    && self.is_up(from)
                    && self.is_up(to)
                    && !self.net.is_cut(from, to)
                    && !self.net.is_cut(to, from)
                {
                    self.connect(from, to);
                }
            }
            Step::Disconnect { conn } => {
                let conns: Vec<_> = self.net.ends.keys().copied().collect();
                if let Some(conn) = conns.get(usize::from(conn) % conns.len().max(1)) {
                    self.lose_connection(*conn);
                }
            }
            Step::Squeeze { from, to, ms } => {
                if let Some((from, to)) = self.pair(from, to) {
                    self.fired.count(Fault::Squeeze);
                    let until = after(self.now(), 1_000 * u64::from(ms));
                    self.net.path(from, to).squeezed = until;
                }
            }
            Step::Evict { node } => {
                let member = self.any(node);
                // Between drains only: what waits for the next one is still in use.
                let host = &mut self.hosts[member];
                if let Some(node) = host.node.as_mut().filter(|_| !host.dirty) {
                    node.evict();
                    self.fired.count(Fault::Evict);
                }
            }
            Step::FieldedEdit { peer, doc, value } => {
                if let Some(member) = self.any_fielded(peer) {
                    let doc = self.setup.doc(doc.into());
                    self.veteran_edit(member, &doc, value);
                }
            }
            Step::FieldedDelete { peer, doc } => {
                if let Some(member) = self.any_fielded(peer) {
                    let doc = self.setup.doc(doc.into());
                    self.veteran_delete(member, &doc);
                }
            }
            Step::FieldedForge { peer, doc, value } => {
                if let Some(member) = self.any_fielded(peer) {
                    let doc = self.setup.doc(doc.into());
                    self.veteran_forge(member, &doc, value);
                }
            }
            Step::FieldedRestart { peer } => {
                if let Some(member) = self.any_fielded(peer) {
                    self.restart_veteran(member);
                }
            }
            Step::Clock { node, seconds } => {
                let member = self.any(node);
                self.hosts[member].skew += 1_000 * i64::from(seconds);
                self.fired.count(Fault::ClockJump);
            }
        }
    }

    /// One of the honest members.
    fn any(&self, node: u8) -> usize {
        usize::from(node) % self.hosts.len()
    }

    /// One of the fielded members.
    fn any_fielded(&self, peer: u8) -> Option<usize> {
        let fielded = self.setup.all_fielded();
        (!fielded.is_empty()).then(|| fielded.start + usize::from(peer) % fielded.len())
    }

    /// Two different honest members.
    fn pair(&self, from: u8, to: u8) -> Option<(usize, usize)> {
        let nodes = self.hosts.len();
        let from = usize::from(from) % nodes;
        let behind = 1 + usize::from(to) % (nodes - 1).max(1);
        (nodes > 1).then(|| (from, (from + behind) % nodes))
    }

    /// One of the packets on their way.
    fn packet(&self, index: u16) -> Option<(u64, Packet)> {
        let index = usize::from(index) % self.net.packets.len().max(1);
        self.net.packets.iter().nth(index).map(|(id, packet)| (*id, packet.clone()))
    }

    fn divide(&mut self, side: u32) {
        self.fired.count(Fault::Partition);
        let on = |member: usize| side >> (member % 32) & 1;
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if on(from) != on(to) {
                    self.cut(from, to);
                }
            }
        }
    }
}
