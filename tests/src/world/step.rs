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
    /// Does one thing, then checks what must hold after it. Answers whether there was something to do it to: nobody edits at
    /// a host that is down, and what is cut is not cut again.
    pub fn apply(&mut self, step: Step) -> bool {
        if self.violation.is_some() {
            return false;
        }
        let took = self.take(step);
        self.check();
        took.is_some()
    }

    /// `None` if nothing is there for it.
    fn take(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Edit { node, doc, kind, value } => {
                let (member, doc) = (self.any_that_runs(node)?, self.setup.doc(doc.into()));
                self.edit(member, &doc, Plan { kind, value });
            }
            Step::Delete { node, doc } => {
                let (member, doc) = (self.any_that_runs(node)?, self.setup.doc(doc.into()));
                self.delete(member, &doc);
            }
            Step::Open { node, doc } => {
                let (member, doc) = (self.any_that_runs(node)?, self.setup.doc(doc.into()));
                self.open(member, &doc);
            }
            Step::Close { node, doc } => {
                let member = self.any(node);
                // What an edit waits for is closed behind it.
                let host = &self.hosts[member];
                let open: Vec<_> = host.opens.keys().filter(|doc| !host.plans.contains_key(*doc)).cloned().collect();
                self.close(member, open.get(usize::from(doc) % open.len().max(1))?);
            }
            Step::Deliver { packet } => {
                let (id, packet) = self.packet(packet)?;
                let same = |other: &Packet| other.to == packet.to && other.stream == packet.stream;
                let first = self.net.packets.iter().find(|(_, other)| same(other)).map(|(id, _)| *id);
                self.arrive(first.unwrap_or(id));
            }
            Step::Drop { packet } => {
                let (id, packet) = self.packet(packet)?;
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
            Step::Duplicate { packet } => {
                let (_, packet) = self.packet(packet).filter(|(_, it)| it.fin && !self.net.is_legacy(it))?;
                self.fired.count(Fault::Duplicate);
                let stream = self.net.fresh_stream();
                let again = self.net.post(Packet { stream, ..packet });
                self.arrive(again);
            }
            Step::Advance { ms } => self.pass(1_000 * u64::from(ms)),
            Step::Commit { node } => {
                let member = self.any(node);
                let paused = std::mem::take(&mut self.hosts[member].disk.paused);
                return (self.commit(member) || paused).then_some(());
            }
            Step::Pause { node } => {
                let member = self.any(node);
                let paused = std::mem::replace(&mut self.hosts[member].disk.paused, true);
                (!paused).then(|| self.fired.count(Fault::DiskPause))?;
            }
            Step::FailWrites { node, count } => {
                let (member, count) = (self.any(node), u32::from(count % 6));
                let before = std::mem::replace(&mut self.hosts[member].disk.failing_writes, count);
                return (before != count).then_some(());
            }
            Step::FailLoads { node, count } => {
                let (member, count) = (self.any(node), u32::from(count % 6));
                let before = std::mem::replace(&mut self.hosts[member].disk.failing_loads, count);
                return (before != count).then_some(());
            }
            Step::Crash { node, keep } => {
                let member = self.any_that_runs(node)?;
                self.crash(member, usize::from(keep % 3));
            }
            Step::Restart { node } => {
                let member = self.any(node);
                (!self.is_up(member)).then(|| self.start(member, false))?;
            }
            Step::Reboot { node } => {
                let member = self.any(node);
                return self.reboot(member).then_some(());
            }
            Step::Cut { from, to } => {
                let (from, to) = self.pair(from, to)?;
                return self.cut(from, to).then_some(());
            }
            Step::Partition { side } => return self.divide(side).then_some(()),
            Step::Heal => {
                let cut = self.net.cut_paths();
                cut.first()?;
                for (from, to) in cut {
                    self.mend(from, to);
                }
            }
            Step::Connect { from, to } => {
                let (from, to) = self.pair(from, to)?;
                let up = self.is_up(from) && self.is_up(to);
                (up && !self.net.is_cut(from, to) && !self.net.is_cut(to, from)).then(|| self.connect(from, to))?;
            }
            Step::Disconnect { conn } => {
                let conns: Vec<_> = self.net.ends.keys().copied().collect();
                self.lose_connection(*conns.get(usize::from(conn) % conns.len().max(1))?);
            }
            Step::Squeeze { from, to, ms } => {
                let (from, to) = self.pair(from, to)?;
                self.fired.count(Fault::Squeeze);
                let until = after(self.now(), 1_000 * u64::from(ms));
                self.net.path(from, to).squeezed = until;
            }
            Step::Evict { node } => {
                let member = self.any(node);
                // Between drains only: what waits for the next one is still in use.
                let host = &mut self.hosts[member];
                host.node.as_mut().filter(|_| !host.dirty)?.evict();
                self.fired.count(Fault::Evict);
            }
            Step::FieldedEdit { peer, doc, value } => {
                let (member, doc) = (self.any_fielded(peer)?, self.setup.doc(doc.into()));
                self.veteran_edit(member, &doc, value);
            }
            Step::FieldedDelete { peer, doc } => {
                let (member, doc) = (self.any_fielded(peer)?, self.setup.doc(doc.into()));
                return self.veteran_delete(member, &doc).then_some(());
            }
            Step::FieldedForge { peer, doc, value } => {
                let (member, doc) = (self.any_fielded(peer)?, self.setup.doc(doc.into()));
                self.veteran_forge(member, &doc, value);
            }
            Step::FieldedRestart { peer } => {
                let member = self.any_fielded(peer)?;
                self.restart_veteran(member);
            }
            Step::Clock { node, seconds } => {
                let member = self.any(node);
                self.hosts[member].skew += 1_000 * i64::from(seconds);
                self.fired.count(Fault::ClockJump);
                return (seconds != 0).then_some(());
            }
        }
        Some(())
    }

    /// One of the honest members.
    fn any(&self, node: u8) -> usize {
        usize::from(node) % self.hosts.len()
    }

    /// The same, if its host is up.
    fn any_that_runs(&self, node: u8) -> Option<usize> {
        Some(self.any(node)).filter(|member| self.is_up(*member))
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

    /// Cuts whoever is on one side off from the others; false if they are.
    fn divide(&mut self, side: u32) -> bool {
        let on = |member: usize| side >> (member % 32) & 1;
        let mut cuts = 0;
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                cuts += usize::from(on(from) != on(to) && self.cut(from, to));
            }
        }
        self.fired.count_if(Fault::Partition, cuts > 0);
        cuts > 0
    }
}
