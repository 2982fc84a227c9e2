//! What a world is made of.

use std::time::Duration;

use peat_proto::config::{Auth, Legacy};
use peat_proto::policy::Class;
use peat_proto::{Config, DocId, Formation, FormationId, FormationSecret, PeerId, wire};

use super::fielded::Fielded;
use super::link::Profile;
use crate::legacy::{self, Dialect, Family};

/// The formation of every world whose members prove themselves.
const FORMATION: &str = "peat";
const SECRET: [u8; 32] = [0x42; 32];

/// Everything that decides a world besides its steps. The same setup and steps give the same run for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Feeds all chance of the world and its nodes.
    pub seed: u64,
    /// Honest nodes.
    pub nodes: usize,
    /// Documents that edits choose among.
    pub docs: usize,
    /// Who wants to be connected to whom.
    pub topology: Topology,
    /// Of every hundred links, so many are datagram links; the others are ordered and reliable.
    pub datagram: u8,
    /// Of every hundred links between nodes, so many speak the legacy wire; the others speak our own.
    pub legacy: u8,
    /// How membership is proven on the legacy wire, by everybody; by its id alone without.
    pub proof: Option<Dialect>,
    /// What every path is like.
    pub profile: Profile,
    /// By number, of which formation each node is: those of the same secret are of the same. Without any, all members are
    /// on everybody's list.
    pub formations: Vec<u8>,
    /// By number, where each node stands in a hierarchy, the highest at 0. Without any there is none.
    pub ranks: Vec<u8>,
    /// Hostile members, each connected to every honest node.
    pub hostile: Vec<Habit>,
    /// Fielded peers of the legacy wire, each linked with some of the nodes.
    pub fielded: Vec<Fielded>,
    /// Budget of every cache, in bytes.
    pub cache: usize,
    /// The size that frames are filled up to, in bytes.
    pub frame: usize,
    /// Bounds of the send windows, in bytes.
    pub window: (usize, usize),
    /// Bytes of received changes that may wait for the disk until receive credit pauses.
    pub undurable: usize,
    /// Bytes of partly received frames.
    pub receive: usize,
    /// Bytes of documents that arrive in pieces and are not whole yet.
    pub pieces: usize,
    /// Documents that differ from one peer and are followed one by one.
    pub exchanges: usize,
    /// Sets that are kept frozen for others to compare with.
    pub sketches: usize,
    /// Saved bytes above which documents are loaded, merged and saved by workers.
    pub inline: usize,
    /// Longest time that a worker takes, in microseconds; 0 runs jobs at once.
    pub job: u32,
    /// Longest time between an input and the drain behind it, in microseconds; 0 drains at once.
    pub lazy: u32,
    /// Longest time of a disk operation, in microseconds.
    pub disk: u32,
    /// Largest skew of a wall clock, in milliseconds.
    pub skew: u32,
    /// The paths keep their faults while the fleet heals.
    pub stormy: bool,
}

/// A graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// Nobody with anybody, until a script says so.
    Apart,
    /// Everybody with everybody.
    Full,
    /// Each with the next.
    Line,
    /// Each with the next, the last with the first.
    Ring,
    /// All with the first.
    Star,
    /// A ring, and random links up to this mean degree.
    Random(u8),
}

/// How a hostile member behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Habit {
    /// Random bytes.
    Garbage,
    /// A stranger that is not admitted and sends all the same.
    Stranger,
    /// Frames without end, well formed and pointless.
    Flood,
    /// Never reads.
    SlowRead,
    /// Names heads that nobody has, and asks for everything.
    LyingHeads,
    /// Says again what it heard.
    Replay,
    /// Announces and sends more than is allowed.
    Oversized,
    /// Documents that expand beyond all measure.
    Bomb,
    /// Says of everything that it was deleted, by anybody and at any time. It is a member, so its word counts where policy lets
    /// it; a [`Self::Stranger`] says the same, and its does not.
    Forger,
    /// Speaks later versions of our wire, and not ours.
    Later,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Garbage,
        Self::Stranger,
        Self::Flood,
        Self::SlowRead,
        Self::LyingHeads,
        Self::Replay,
        Self::Oversized,
        Self::Bomb,
        Self::Forger,
        Self::Later,
    ];
}

impl Setup {
    /// A quiet world: reliable cables, default budgets, nothing late.
    #[must_use]
    pub fn quiet(seed: u64, nodes: usize, docs: usize) -> Self {
        Self {
            seed,
            nodes,
            docs,
            topology: Topology::Full,
            datagram: 0,
            legacy: 0,
            proof: None,
            profile: Profile::LAN,
            formations: Vec::new(),
            ranks: Vec::new(),
            hostile: Vec::new(),
            fielded: Vec::new(),
            cache: 64 << 20,
            frame: 64 << 10,
            window: (8 << 10, 4 << 20),
            undurable: 16 << 20,
            receive: 32 << 20,
            pieces: 32 << 20,
            exchanges: 4096,
            sketches: 32,
            inline: 64 << 10,
            job: 0,
            lazy: 0,
            disk: 2_000,
            skew: 0,
            stormy: false,
        }
    }

    /// The configuration of an honest node.
    pub(crate) fn config_of(&self, member: usize) -> Config {
        let mut config = self.config();
        config.family = self.family_of(member);
        if let Some(secret) = self.formations.get(member) {
            let id = FormationId::new(FORMATION).expect("a valid name");
            let secret = FormationSecret::from_bytes(&[*secret; 32]).expect("it is not empty");
            config.admission.allow.clear();
            config.admission.formation = Some(Formation { id, secret });
        }
        config
    }

    /// What is the same for every honest node.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.policy.set_class("low", Class::Low);
        // Clocks are skewed by more than documents may assume, and what must be there at the end must not be over.
        let rows: Vec<_> = config.policy.rows().map(|(name, policy)| (name.to_owned(), policy)).collect();
        for (name, mut policy) in rows {
            policy.ttl = None;
            config.policy.set(&name, policy);
        }
        self.deletion_policy(&mut config.policy);
        self.direct(&mut config.policy);
        config.admission.allow =
            (0..self.members()).filter(|member| self.habit(*member) != Some(Habit::Stranger)).map(peer).collect();
        if !self.fielded.is_empty() || self.legacy > 0 {
            config.legacy = Some(Legacy::new(self.auth()));
        }
        config.cache_bytes = self.cache;
        config.frame_bytes = self.frame;
        (config.window_min, config.window_max) = self.window;
        config.undurable_budget = self.undurable;
        (config.receive_budget, config.piece_budget) = (self.receive, self.pieces);
        (config.max_exchanges, config.max_sketches) = (self.exchanges, self.sketches);
        config.load_inline_bytes = self.inline / 4;
        config.merge_inline_bytes = self.inline;
        config.frame_deadline = Duration::from_secs(30);
        config
    }

    fn auth(&self) -> Auth {
        let Some(dialect) = self.proof else { return Auth::Admission };
        let dialect = match dialect {
            Dialect::M => wire::v0::Dialect::M,
            Dialect::P => wire::v0::Dialect::P,
        };
        let id = FormationId::new(FORMATION).expect("a valid name");
        let secret = FormationSecret::from_bytes(&SECRET).expect("it is not empty");
        Auth::Proof { dialect, formation: Formation { id, secret } }
    }

    /// How a fielded member proves its membership.
    pub(crate) fn fielded_auth(&self) -> Option<(Dialect, legacy::Formation)> {
        self.proof.map(|dialect| (dialect, legacy::Formation::new(FORMATION, &SECRET)))
    }

    /// The habit of a hostile member; honest nodes have none.
    pub(crate) fn habit(&self, member: usize) -> Option<Habit> {
        self.hostile.get(member.checked_sub(self.nodes)?).copied()
    }

    /// All members: nodes, hostile ones, fielded ones, in this order of their numbers.
    pub(crate) fn members(&self) -> usize {
        self.first_fielded() + self.fielded.len()
    }

    /// The number of the first fielded member.
    pub(crate) fn first_fielded(&self) -> usize {
        self.nodes + self.hostile.len()
    }

    /// The numbers of the fielded members.
    pub(crate) fn all_fielded(&self) -> std::ops::Range<usize> {
        self.first_fielded()..self.members()
    }

    /// The nodes that a fielded member is linked with: one always, each other one by a coin that the seed throws.
    pub(crate) fn links_of_fielded(&self, number: usize) -> impl Iterator<Item = usize> + use<> {
        let (seed, nodes) = (self.seed, self.nodes);
        (0..nodes).filter(move |node| {
            let coin = (seed ^ (number as u64) << 8 ^ *node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63;
            *node == number % nodes || coin == 1
        })
    }

    /// The fielded member that another one dials: the one before it, where its family dials at all.
    pub(crate) fn fielded_before(&self, number: usize) -> Option<usize> {
        let dials = self.fielded[number].family == Family::HostRuntime;
        (dials && number > 0).then(|| self.first_fielded() + number - 1)
    }

    /// The fielded members that a node is to dial.
    pub(crate) fn dialled_veterans(&self, node: usize) -> impl Iterator<Item = usize> {
        let linked = move |number: &usize| self.links_of_fielded(*number).any(|it| it == node);
        let numbers = (0..self.fielded.len()).filter(|number| !self.fielded[*number].dials());
        numbers.filter(linked).map(|number| self.first_fielded() + number)
    }

    /// The name of the `index`-th document, modulo what exists; the classes take turns.
    pub(crate) fn doc(&self, index: usize) -> DocId {
        const COLLECTIONS: [&str; 5] = ["commands", "cells", "tracks", "low", "notes"];
        let index = index % self.docs.max(1);
        DocId::new(&format!("{}:{index}", COLLECTIONS[index % COLLECTIONS.len()])).expect("a valid name")
    }

    /// The links that the fleet keeps up, each with the side that dials first.
    pub(crate) fn links(&self, rng: &mut peat_proto::Rng) -> Vec<(usize, usize)> {
        let n = self.nodes;
        let line = (1..n).map(|b| (b - 1, b));
        let closing = (n > 2).then_some((n.saturating_sub(1), 0));
        let mut links: Vec<(usize, usize)> = match self.topology {
            Topology::Apart => Vec::new(),
            Topology::Full => (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect(),
            Topology::Line => line.collect(),
            Topology::Ring => line.chain(closing).collect(),
            Topology::Star => (1..n).map(|b| (b, 0)).collect(),
            Topology::Random(degree) => {
                let mut links: Vec<_> = line.chain(closing).collect();
                let wanted = (n * usize::from(degree) / 2).min(n * n.saturating_sub(1) / 2);
                while links.len() < wanted {
                    let (a, b) = (draw(rng, n), draw(rng, n));
                    if a != b && !links.contains(&(a, b)) && !links.contains(&(b, a)) {
                        links.push((a, b));
                    }
                }
                links
            }
        };
        links.dedup();
        links
    }
}

/// An index below `bound`.
pub(crate) fn draw(rng: &mut peat_proto::Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}

/// The identity of a member. Their order is not that of their numbers.
pub(crate) fn peer(member: usize) -> PeerId {
    let mut id = [0; 32];
    let mixed = (member as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    id[8..16].copy_from_slice(&(member as u64).to_be_bytes());
    PeerId(id)
}

/// The member with this identity.
pub(crate) fn member(peer: &PeerId) -> usize {
    let number = peer.0[8..16].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}
