//! A world: real nodes, with nothing simulated but time, network and disk.
//!
//! A [`Setup`] and a list of [`Step`]s name a run for ever: all chance comes from the seed, and the trace hash of two such
//! runs is the same. Two generators make steps: [`walk`] draws a swarm of faults from a seed, for volume; a proptest
//! strategy beside the tests draws lists that shrink.

use std::collections::{BTreeMap, BTreeSet};

use peat_proto::store::Stored;
use peat_proto::wire::{self, Caps};
use peat_proto::{ConnId, DocId, Input, Job, Lane, Node, PeerId, Rng, StreamId, Time};

use fielded::{LegacyFrames, Veteran};
use heap::Heap;
use host::Host;
use hostile::Hostile;
use link::chance;
use model::Model;
use net::{Net, PacketId};
use trace::Trace;

mod bombs;
mod cable;
mod check;
mod contents;
mod deletion;
mod disk;
mod drive;
mod fielded;
mod frontier;
mod heal;
mod heap;
mod host;
mod hostile;
mod link;
mod log;
mod model;
mod net;
mod rank;
#[cfg(test)]
mod rig;
mod said;
mod script;
mod setup;
mod shrink;
mod step;
mod streams;
mod trace;
mod verdict;
mod walk;

pub use fielded::Fielded;
pub use heal::{run, run_until};
pub use link::Profile;
pub use setup::{Habit, Setup, Topology};
pub use shrink::{Shrunken, as_test, shrink};
pub use step::Step;
pub use verdict::{Fault, Fired, Verdict, Violation};
pub use walk::{Mix, walk};

/// A fleet and everything around it.
#[derive(Debug)]
pub struct World {
    pub(crate) setup: Setup,
    pub(crate) heap: Heap<Happening>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) hostile: Vec<Hostile>,
    pub(crate) veterans: Vec<Veteran>,
    pub(crate) net: Net,
    pub(crate) links: Vec<(usize, usize)>,
    pub(crate) rng: Rng,
    pub(crate) model: Model,
    pub(crate) trace: Trace,
    pub(crate) fired: Fired,
    pub(crate) caps: Caps,
    pub(crate) checks: check::Checks,
    pub(crate) said: LegacyFrames,
    pub(crate) violation: Option<Violation>,
    /// Documents that an application at a fielded peer made anew behind their markers.
    pub(crate) relapsed: BTreeSet<(usize, DocId)>,
    /// Documents that an application at a fielded peer without markers deleted: it tells nobody, and goes without them until
    /// somebody sends them again.
    pub(crate) dropped: BTreeSet<(usize, DocId)>,
    /// Hostile members speak.
    pub(crate) besieged: bool,
    /// Counters of lives that have ended.
    pub(crate) past: Totals,
}

/// Counters over the whole fleet and all lives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Frames handed to the network, but for those on the legacy wire.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames with changes or a snapshot.
    pub data: u64,
    /// Frames on the control lane: greetings and comparisons of whole sets.
    pub control: u64,
    /// Local edits that changed something.
    pub edits: u64,
}

/// What is going to happen. Whatever belongs to a life is void in a later one.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A node's deadline.
    Alarm { member: usize, at: Time },
    /// Outputs that were left waiting.
    Drain { member: usize, life: u64 },
    /// A packet reaches its end.
    Arrive { packet: PacketId },
    /// Receive credit was given back.
    Credit { conn: ConnId },
    /// Bytes have left a send buffer.
    Departed { conn: ConnId, bytes: usize },
    /// The writer of a stream of the legacy wire learns that nobody reads it any more.
    StreamStopped { conn: ConnId, stream: StreamId },
    /// A stream of the legacy wire is over, and its opener learns of it.
    Released { conn: ConnId, stream: StreamId },
    /// A connection's end learns that it is over.
    Gone { conn: ConnId, code: Option<u32> },
    /// The receiver of a stream learns that it was reset.
    Reset { conn: ConnId, stream: StreamId },
    /// The sender of a lane learns the same.
    Stopped { conn: ConnId, lane: Lane },
    /// A cut path has been silent for long.
    Silence { from: usize, to: usize, cut: u64 },
    /// A dial comes to its end.
    Dialled { from: usize, life: u64, to: usize },
    /// The disk has synced.
    Commit { member: usize, life: u64 },
    /// The disk answers.
    Answer { member: usize, life: u64, stored: Stored },
    /// A worker is done.
    Worked { member: usize, life: u64, job: Box<Job> },
    /// A crashed host comes back by itself.
    Restart { member: usize, life: u64 },
    /// A hostile member speaks.
    Act { member: usize },
}

impl World {
    /// A fleet that has just been switched on.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        log::listen();
        log::errors();
        let mut seed = [0x42; 32];
        seed[..8].copy_from_slice(&setup.seed.to_be_bytes());
        let mut rng = Rng::new(seed);
        let links = setup.links(&mut rng);
        let skewed = |rng: &mut Rng| rng.below(2 * u64::from(setup.skew) + 1) as i64 - i64::from(setup.skew);
        let hosts = (0..setup.nodes).map(|member| Host::new(member, skewed(&mut rng))).collect();
        let habits = setup.hostile.iter().enumerate();
        let hostile = habits.map(|(n, habit)| Hostile::new(*habit, setup.seed, setup.nodes + n)).collect();
        let fielded = setup.fielded.iter().enumerate();
        let veterans = fielded.map(|(number, kind)| {
            let dials = setup.links_of_fielded(number).filter(|_| kind.dials()).chain(setup.fielded_before(number));
            let dials = dials.collect();
            Veteran::new(&setup, number, *kind, dials, skewed(&mut rng))
        });
        let veterans = veterans.collect();
        let mut world = Self {
            caps: Caps::v0(&setup.config()),
            heap: Heap::new(),
            hosts,
            hostile,
            veterans,
            net: Net::new(setup.profile),
            links,
            rng,
            model: Model::new(setup.nodes),
            trace: Trace::default(),
            fired: Fired::default(),
            checks: check::Checks::default(),
            said: LegacyFrames::default(),
            violation: None,
            relapsed: BTreeSet::new(),
            dropped: BTreeSet::new(),
            besieged: true,
            past: Totals::default(),
            setup,
        };
        for link in 0..world.links.len() {
            let (a, b) = world.links[link];
            if chance(&mut world.rng, u16::from(world.setup.datagram) * 100) {
                world.net.datagram.insert((a.min(b), a.max(b)));
            }
            if chance(&mut world.rng, u16::from(world.setup.legacy) * 100) {
                world.net.legacy.insert((a.min(b), a.max(b)));
            }
        }
        for hostile in world.setup.nodes..world.setup.first_fielded() {
            for node in 0..world.setup.nodes {
                if chance(&mut world.rng, u16::from(world.setup.datagram) * 100) {
                    world.net.datagram.insert((node, hostile));
                }
            }
        }
        for member in 0..world.setup.nodes {
            world.start(member, false);
        }
        for member in world.setup.all_fielded() {
            world.with_veteran(member, |_, _| ());
        }
        for member in world.setup.nodes..world.setup.first_fielded() {
            world.heap.after(1_000, Happening::Act { member });
        }
        world
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.heap.now()
    }

    /// A running node.
    #[must_use]
    pub fn node(&self, member: usize) -> Option<&Node> {
        self.hosts.get(member)?.node.as_ref()
    }

    /// The identity of a member.
    #[must_use]
    pub fn peer(member: usize) -> PeerId {
        setup::peer(member)
    }

    /// The first violation, if there was one.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How often each fault fired.
    #[must_use]
    pub fn fired(&self) -> &Fired {
        &self.fired
    }

    /// The trace hash so far.
    #[must_use]
    pub fn trace(&self) -> [u8; 32] {
        self.trace.hash()
    }

    /// Frames with changes or documents that each node has sent to each other member over our own wire.
    #[must_use]
    pub fn data_frames(&self) -> &BTreeMap<(usize, usize), u64> {
        &self.checks.data
    }

    /// Counters over all nodes and lives.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.hosts.iter().filter_map(|host| host.node.as_ref()).fold(self.past, |totals, node| totals.and(node))
    }

    /// Lets so many microseconds pass.
    pub fn pass(&mut self, micros: u64) {
        let until = link::after(self.now(), micros);
        while self.violation.is_none() {
            let Some(happening) = self.heap.next(until) else { return };
            self.happen(happening);
        }
    }

    /// Notes a violation; the first one counts.
    pub(crate) fn violated(&mut self, member: Option<usize>, what: impl Into<String>) {
        let at = self.now();
        self.violation.get_or_insert_with(|| Violation { at, member, what: what.into() });
    }

    /// Notes the outcome of a check.
    pub(crate) fn expect(&mut self, member: Option<usize>, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.violated(member, what);
        }
    }

    pub(crate) fn is_up(&self, member: usize) -> bool {
        self.hosts.get(member).map_or(member < self.setup.members(), |host| host.node.is_some())
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now();
        match happening {
            Happening::Alarm { member, at } if self.is_veteran(member) => self.veteran_alarm(member, at),
            Happening::Alarm { member, at } => {
                if self.hosts[member].alarm == Some(at) {
                    self.hosts[member].alarm = None;
                    self.trace.note(now, member as u64, 1, &[]);
                    self.input(member, Input::Timeout);
                }
            }
            Happening::Drain { member, life } => {
                if self.hosts[member].life == life && self.hosts[member].dirty {
                    self.drain(member);
                }
            }
            Happening::Arrive { packet } => self.arrive(packet),
            Happening::Credit { conn } => self.credit(conn),
            Happening::Departed { conn, bytes } => self.tell(conn, Input::Sent { conn, bytes }),
            Happening::Gone { conn, code } => {
                self.trace.note(now, conn.0, 2, &[]);
                self.tell_veteran(conn, crate::legacy::Input::Disconnected { conn });
                self.tell(conn, Input::Disconnected { conn, code });
                self.net.remove(conn);
            }
            Happening::Reset { conn, stream } => {
                self.trace.note(now, conn.0, 3, &[]);
                self.net.forget_stream(conn, stream);
                self.tell_veteran(conn, crate::legacy::Input::Reset { conn, stream });
                self.tell(conn, Input::Reset { conn, stream });
            }
            Happening::StreamStopped { conn, stream } => self.stream_stopped(conn, stream),
            Happening::Released { conn, stream } => self.released(conn, stream),
            Happening::Stopped { conn, lane } => {
                self.net.mend(conn, lane);
                self.tell(conn, Input::Stopped { conn, lane });
            }
            Happening::Silence { from, to, cut } => self.silence(from, to, cut),
            Happening::Dialled { from, life, to } => self.dialled(from, life, to),
            Happening::Commit { member, life } => {
                if self.hosts[member].life == life && !self.hosts[member].disk.paused {
                    let _ = self.commit(member);
                }
            }
            Happening::Answer { member, life, stored } => {
                if self.hosts[member].life == life {
                    self.trace.note(now, member as u64, 4, &[]);
                    self.input(member, Input::Stored(stored));
                }
            }
            Happening::Worked { member, life, job } => {
                if self.hosts[member].life == life {
                    self.hosts[member].jobs -= 1;
                    self.trace.note(now, member as u64, 5, &[]);
                    let done = job.run();
                    self.input(member, Input::Worked(done));
                }
            }
            Happening::Restart { member, life } => {
                if self.hosts[member].life == life && self.hosts[member].node.is_none() {
                    self.start(member, false);
                }
            }
            Happening::Act { member } => self.act(member),
        }
    }

    /// What a hostile member does when its time has come.
    fn act(&mut self, member: usize) {
        if !self.besieged {
            return;
        }
        let nodes = self.setup.nodes;
        let docs: Vec<_> = (0..self.setup.docs).map(|doc| self.setup.doc(doc)).collect();
        // The legacy wire has no word for which life of a name ended, nor for a direction that is the usual one: over it such a
        // marker arrives as another one.
        let plain = self.setup.legacy > 0 || !self.setup.fielded.is_empty();
        for honest in 0..nodes {
            let conns = self.net.between(member, honest);
            match conns.first() {
                None if self.is_up(honest) && self.rng.below(4) == 0 => self.connect(member, honest),
                None => {}
                Some(conn) => {
                    let spoken = self.hostile[member - nodes].act(&docs, plain);
                    for doc in std::mem::take(&mut self.hostile[member - nodes].forged) {
                        self.fired.count(Fault::Forgery);
                        self.forged(&doc);
                    }
                    for (lane, bytes) in spoken {
                        self.fired.count(Fault::Hostile);
                        // What is larger than any frame may be is not taken in.
                        if bytes.len() <= wire::v1::Caps::PEER.entries {
                            self.note_frame(bytes.len());
                        }
                        self.transmit(*conn, lane, bytes);
                    }
                }
            }
        }
        let wait = 50_000 + self.rng.below(2_000_000);
        self.heap.after(wait, Happening::Act { member });
    }
}

impl Totals {
    fn and(self, node: &Node) -> Self {
        let stats = node.stats();
        Self {
            frames: self.frames + stats.traffic.frames_sent - stats.legacy.frames_sent,
            bytes: self.bytes + stats.traffic.bytes_sent,
            data: self.data + stats.traffic.data_sent,
            edits: self.edits + stats.edits,
            ..self
        }
    }
}
