//! Every limit of a node, each with its unit, its default and the arithmetic behind it.

use std::time::Duration;

use crate::formation::Formation;
use crate::id::{Invitation, PeerId};
use crate::policy::Table;
use crate::policy::kin::Family;
use crate::wire::v0::Dialect;

/// The one configuration value of a [`Node`](crate::Node), fixed at construction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Per-collection policy at the start; [`Input::Policy`](crate::Input::Policy) changes it.
    pub policy: Table,
    /// This node's place in a hierarchy at the start; [`Input::Family`](crate::Input::Family) changes it.
    pub family: Family,
    /// Deletions that are remembered, which is for ever. Default 1 M, of about 250 B each with their names.
    pub max_markers: u64,
    /// Who may sync.
    pub admission: Admission,
    /// Peers that are remembered because they were let in once. Default 4,096, of about 100 B in memory and in the store. Beyond
    /// them those that were let in before stay, members of the formation and dialled peers are let in without being
    /// remembered, and bearers of an invitation are refused.
    pub max_admitted: usize,
    /// Peers that one invitation lets in, counted from the start of the node. Default 256: a ticket that got around lets no
    /// more in before somebody looks.
    pub max_guests: usize,
    /// Bytes of loaded documents that stay in memory. Default 64 MiB: about 4,300 small documents of 15 kB each.
    /// A document above the budget is loaded alone and let go at the end of the drain.
    pub cache_bytes: usize,
    /// Saved bytes above which a document is *loaded* by a worker. Default 4 KiB: the worst recorded text loads at
    /// 4 ms/KiB, so 16 ms at most on the caller's thread.
    pub load_inline_bytes: usize,
    /// Saved bytes above which a document is *merged and saved* by a worker. Default 64 KiB: applying to the worst
    /// recorded text costs 0.27 ms/KiB, so 18 ms at most on the caller's thread.
    pub merge_inline_bytes: usize,
    /// Bytes of partly received frames of all connections together. Default 32 MiB: two frames of the largest size. Above it
    /// the connections that hold most are closed; one on our own wire is at half of it, 16 streams of 1 MiB.
    pub receive_budget: usize,
    /// Bytes of documents that arrive in pieces and are not whole yet, of all connections and past ones. Default 32 MiB:
    /// two of the largest; what was longest without a new piece gives way.
    pub piece_budget: usize,
    /// Sets that are kept frozen for others to compare with, one per connection. Default 32, of 192 KiB at most for each
    /// scope in which documents move meanwhile: four, and with rules of who writes what 60 at most. Who asks beyond that is
    /// answered with ranges.
    pub max_sketches: usize,
    /// Bytes of received changes that are not yet durable, of all connections together. Default 16 MiB: about 3 s of a
    /// disk at 5 MB/s. Above it, receive credit pauses, and so it does while documents that only wait for the disk take as
    /// much memory as [`Config::cache_bytes`] allows for all others; above twice as many, what still comes is refused until a later
    /// survey brings it again. What waits to be merged counts for 1 KiB more, so that at most 32,768 payloads wait. What was
    /// merged counts as it is held, expanded, and above twice the budget no merge begins before some of it is durable: the most
    /// that one peer's compressed changes make wait is that and four merges, each within [`AdmitLimits`].
    pub undurable_budget: usize,
    /// Largest payload of a delta, in bytes. Default 16 MiB.
    pub max_delta: usize,
    /// Largest payload of a snapshot, in bytes. Default 16 MiB.
    pub max_snapshot: usize,
    /// Largest payload of a batch, in bytes. Default 16 MiB + 1 KiB: legacy peers put whole documents in them, and one of
    /// the largest size has room. Our own stay below two frames of `frame_bytes`, unless a single document is larger.
    pub max_batch: usize,
    /// Largest payload of a batch of tombstones, in bytes. Default 16 MiB: 200,000 of 80 B, for legacy peers send all that
    /// they have in one.
    pub max_tombstones: usize,
    /// The size that frames are filled up to, in bytes. Default 64 KiB: 2 s at 256 kbit/s is too long for one frame,
    /// so below 2 Mbit/s a quarter of it is used (0.5 s).
    pub frame_bytes: usize,
    /// Smallest send window of a connection, in bytes. Default 8 KiB: a quarter of a second at 256 kbit/s.
    pub window_min: usize,
    /// Largest send window of a connection, in bytes. Default 4 MiB: 300 Mbit/s at a round trip of 100 ms. One frame may
    /// always be in flight, whatever the window.
    pub window_max: usize,
    /// Time in which a frame must be complete after its first byte, or have grown by another 64 KiB. Default 30 s, which
    /// asks for no more than 17 kbit/s.
    pub frame_deadline: Duration,
    /// Time in which a connection must have said who it is. Default 10 s.
    pub hello_deadline: Duration,
    /// Documents that differ from one peer and are followed one by one, per connection. Default 4,096, of about 0.6 KiB each
    /// with eight hashes, and 1 MiB for what is named beyond that: 3.5 MiB for a peer that names as much as it can with short
    /// names, so 56 MiB for 16 such peers, and 900 MiB for as many as [`Config::max_connections`] allows. Of documents that this
    /// node has too 2 KiB more each may turn out to be common. Those beyond the number are found again by the next inventory.
    pub max_exchanges: usize,
    /// Requests to compare documents now that may be under way. Default 16; each keeps at most 256 documents per peer in
    /// mind.
    pub max_syncs: usize,
    /// Most connections. Default 256; the oldest that is not admitted gives way.
    pub max_connections: usize,
    /// Streams of one connection with a partial frame. Default 16: six lanes, and room for their successors.
    pub max_streams: usize,
    /// First wait before something unanswered is said again; doubles up to `retry_max`. Default 1 s.
    pub retry_min: Duration,
    /// Longest wait before something unanswered is said again. Default 30 s.
    pub retry_max: Duration,
    /// First wait before a lost peer is dialled again; doubles up to `dial_max`, with a jitter of half. Default 0.5 s.
    pub dial_min: Duration,
    /// Longest wait before a lost peer is dialled again. Default 30 s.
    pub dial_max: Duration,
    /// Quiet time after which two peers compare the digests of their document sets. Default 250 ms.
    pub settle: Duration,
    /// How to speak with legacy peers; not at all without.
    pub legacy: Option<Legacy>,
    /// What one peer's Automerge bytes may expand to.
    pub admit: AdmitLimits,
}

/// How to speak with legacy peers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Legacy {
    /// How membership is proven, both ways.
    pub auth: Auth,
    /// Incoming streams of one connection at once. Default 256: QUIC's default lets a peer open 100 of each kind, and every
    /// message is one.
    pub max_streams: usize,
    /// Documents that are pushed to one peer in a second, and the most that may be pushed at once. Default 100, as legacy
    /// peers do; answers do not count.
    pub pushes_per_second: u32,
    /// Time between two pushes of the same document to the same peer. Default 100 ms, as legacy peers do; what changes
    /// meanwhile goes at its end.
    pub cooldown: Duration,
    /// Time between two heartbeats. Default 5 s, as legacy peers do.
    pub heartbeat: Duration,
    /// Silence after which a peer counts as lost. Default 15 s, as with legacy peers.
    pub partition: Duration,
}

/// How membership is proven between legacy peers. Nothing on the wire tells which way the other side expects.
#[derive(Debug, Clone)]
pub enum Auth {
    /// By the secret of a formation. Whoever dials proves that it has it.
    Proof {
        /// In which dialect.
        dialect: Dialect,
        /// Of which formation.
        formation: Formation,
    },
    /// Not at all: only whom [`Admission`] lets in by its id takes part.
    Admission,
}

impl Legacy {
    /// Everything else as legacy peers have it.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self {
            auth,
            max_streams: 256,
            pushes_per_second: 100,
            cooldown: Duration::from_millis(100),
            heartbeat: Duration::from_secs(5),
            partition: Duration::from_secs(15),
        }
    }
}

/// Limits that untrusted Automerge bytes are held to before they are parsed: all chunks of one message together, all that is
/// merged into a document at once, and the document with what is merged.
///
/// What they amount to in memory, measured on Automerge 0.12 while changes are applied: 620 B for each operation, 1.3 kB for each
/// change, 8 B for each byte of values; of which 24 B, 100 B and 1 B stay. (Where it fails in the middle, 810 B.) So one merge at a limit takes 1.3 GB for its
/// operations or for its changes, and 260 MB for its values, and at most four are under way. The largest recorded text, of
/// 260,000 operations in as many changes, takes half a gigabyte if it comes change by change. Where that is too much, these limits
/// are to be lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdmitLimits {
    /// Bytes of all columns after decompression, and of all text, copies included. Default 32 MiB. (97,286 bytes can become 420 MB.)
    pub expanded: usize,
    /// Operations, counted through run lengths. Default 2 M, 8 times the largest recorded text.
    pub operations: u64,
    /// Actors. Default 16,384.
    pub actors: u64,
    /// Bytes of one change, uncompressed. Default 16 MiB less 64 KiB: it must fit a delta, with heads beside it, because a
    /// change cannot be divided.
    pub change_bytes: usize,
    /// Changes. Default 1 M, 4 times the largest recorded text.
    pub changes: u64,
}

/// Who may sync. Deny by default: without an entry here and without a remembered admission a peer is refused.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Admission {
    /// Lets everybody in. Never the default.
    pub open: bool,
    /// Ids that are let in because they were given.
    pub allow: Vec<PeerId>,
    /// Secrets that admit their bearer, who is then remembered by id.
    pub invitations: Vec<Invitation>,
    /// Lets in whoever proves that it is a member, and proves it to others.
    pub formation: Option<Formation>,
}

impl AdmitLimits {
    /// None: for what is our own.
    pub(crate) const NONE: Self = Self {
        expanded: usize::MAX,
        operations: u64::MAX,
        actors: u64::MAX,
        change_bytes: usize::MAX,
        changes: u64::MAX,
    };
}

impl Default for AdmitLimits {
    fn default() -> Self {
        Self {
            expanded: 32 << 20,
            operations: 2_000_000,
            actors: 16_384,
            change_bytes: (16 << 20) - (64 << 10),
            changes: 1_000_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Table::default(),
            family: Family::default(),
            max_markers: 1_000_000,
            admission: Admission::default(),
            max_admitted: 4096,
            max_guests: 256,
            cache_bytes: 64 << 20,
            load_inline_bytes: 4 << 10,
            merge_inline_bytes: 64 << 10,
            receive_budget: 32 << 20,
            piece_budget: 32 << 20,
            max_sketches: 32,
            undurable_budget: 16 << 20,
            max_delta: 16 << 20,
            max_snapshot: 16 << 20,
            max_batch: (16 << 20) + (1 << 10),
            max_tombstones: 16 << 20,
            frame_bytes: 64 << 10,
            window_min: 8 << 10,
            window_max: 4 << 20,
            frame_deadline: Duration::from_secs(30),
            hello_deadline: Duration::from_secs(10),
            max_exchanges: 4096,
            max_syncs: 16,
            max_connections: 256,
            max_streams: 16,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            dial_min: Duration::from_millis(500),
            dial_max: Duration::from_secs(30),
            settle: Duration::from_millis(250),
            legacy: None,
            admit: AdmitLimits::default(),
        }
    }
}
