//! What kind of legacy peer it is, and which of its warts it has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peat_proto::PeerId;

use super::auth::{Dialect, Formation};
use super::policy::{Mode, Names};

/// One peer. [`Config::node_binary`] and [`Config::host_runtime`] are the two families as fielded.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the two families.
    pub family: Family,
    /// How membership is proven; `None` runs open, as the shipped node did (AUTH-6).
    pub auth: Option<(Dialect, Formation)>,
    /// A store without a disk keeps no markers (6.4), and nothing over a restart.
    pub disk: bool,
    /// Release rc.25 and later: one long-lived stream for all frames to a peer, and several frames are read from one (16).
    pub persistent: bool,
    /// The spelling of collection names (16, rc.31).
    pub names: Names,
    /// Local changes of the modes (10.2).
    pub modes: BTreeMap<String, Mode>,
    /// Who is who, for the hierarchical batch path; without it every direction means all (10.1).
    pub kin: Option<Kin>,
    /// The link's rate in bit/s, which bounds what one document may weigh (10.4).
    pub bandwidth: Option<u64>,
    /// Between two polls of the node binary; 5 s (9).
    pub poll: Duration,
    /// The age at which the host runtime replaces a connection that it dialled; 60 s (1).
    pub recycle: Option<Duration>,
    /// Whether received documents expire by the default preset (10.6).
    pub expires: bool,
    /// Whether markers are collected by their time to live (10.5, 11).
    pub collects: bool,
    /// Whom it dials, and dials again after every loss.
    pub dials: Vec<PeerId>,
    /// Streams of one kind that may be unfinished in one direction (1); `None` leaves the bound to the transport.
    pub streams: Option<u64>,
    /// What is wrong with it.
    pub warts: Warts,
}

/// The two kinds of program that carry peat-mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// peat-mesh-node: polls every 5 s, accepts no unidirectional streams, sends no heartbeats, dials nobody.
    NodeBinary,
    /// The host runtime: pushes at connect and on change, heartbeats, batches.
    HostRuntime,
}

/// The neighbours in a hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kin {
    /// Above.
    pub parent: Option<PeerId>,
    /// Below.
    pub children: BTreeSet<PeerId>,
    /// Beside.
    pub siblings: BTreeSet<PeerId>,
}

/// Each is on where it is fielded; a test that wants a peer without it turns it off. The ids are those of the lessons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warts {
    /// STREAM-1: reads one frame of a stream and drops the rest.
    pub one_frame_per_stream: bool,
    /// AUTH-1: a connector of dialect M opens the stream and waits, unseen.
    pub mute_connector: bool,
    /// STREAM-9: a node binary that dials does not read what comes back.
    pub deaf_dialler: bool,
    /// STREAM-8: the end of any connection of a peer removes the newest one and clears its state.
    pub cleans_up_by_peer: bool,
    /// FIELD-5: the accepting side pushes nothing at connect.
    pub silent_acceptor: bool,
    /// STREAM-6: the entries of a batch are applied one by one, each waiting for its own reply to leave.
    pub serial: bool,
    /// DELTA-1: a sync state is stored when the message has left, over whatever has happened since it was made.
    pub stores_stale_state: bool,
    /// DELTA-2: nothing to send is a failure, and counts in the breaker.
    pub silence_fails: bool,
    /// DELTA-4: an edit and a batch make it forget what all peers have of the document.
    pub forgets: bool,
    /// DELTA-5: received changes go back to where they came from (until rc.27).
    pub echoes: bool,
    /// DELTA-5: a message that changes nothing is announced like a change.
    pub announces_nothing: bool,
    /// DELTA-6: a message without changes for an unknown key creates an empty document.
    pub empty_documents: bool,
    /// SNAP-2: every edit has an actor of its own.
    pub new_actor_per_edit: bool,
    /// DEL-2: documents are pushed whether or not they are deleted (until rc.31).
    pub pushes_zombies: bool,
    /// DEL-3: a marker that is there is never replaced.
    pub first_marker_wins: bool,
    /// DEL-3: the logical clock starts at 0 and learns nothing (until rc.27).
    pub forgets_lamport: bool,
    /// DEL-5: markers that arrive in a batch are not sent on.
    pub keeps_batched_markers: bool,
    /// DEL-5: a marker is sent again with the default direction of its collection.
    pub forgets_direction: bool,
    /// FIELD-2: the push of a document that was just deleted counts in the breaker (until rc.36).
    pub deletes_fail: bool,
    /// FIELD-3: a document that cannot be read counts in the breaker (until rc.37).
    pub bad_documents_fail: bool,
    /// LIMIT-5: one bad entry loses the whole batch.
    pub bad_entry_fails_all: bool,
    /// STRUCT-3: a change within 2 s of the last push of its document is not pushed.
    pub leading_edge: bool,
    /// FLOW-6: a change within the cooldown is dropped, and its token is gone.
    pub drops_in_cooldown: bool,
    /// FLOW-1: an open breaker stays open.
    pub breaker_stays_open: bool,
    /// STREAM-2: the channels of task B; without a manager they do not exist and its batches go nowhere.
    pub channels: bool,
    /// RECON-3: who answers a reconciliation acts as if it had begun one.
    pub answers_as_initiator: bool,
    /// RECON-1: an item is as old as the question.
    pub items_are_new: bool,
}

impl Warts {
    /// As fielded.
    pub const FIELDED: Self = Self {
        one_frame_per_stream: true,
        mute_connector: true,
        deaf_dialler: true,
        cleans_up_by_peer: true,
        silent_acceptor: false,
        serial: true,
        stores_stale_state: true,
        silence_fails: true,
        forgets: true,
        echoes: true,
        announces_nothing: true,
        empty_documents: true,
        new_actor_per_edit: true,
        pushes_zombies: true,
        first_marker_wins: true,
        forgets_lamport: true,
        keeps_batched_markers: true,
        forgets_direction: true,
        deletes_fail: true,
        bad_documents_fail: true,
        bad_entry_fails_all: true,
        leading_edge: true,
        drops_in_cooldown: true,
        breaker_stays_open: true,
        channels: true,
        answers_as_initiator: true,
        items_are_new: true,
    };
}

impl Config {
    /// The node binary of release 0.6.
    #[must_use]
    pub fn node_binary() -> Self {
        Self { family: Family::NodeBinary, bandwidth: Some(1_000_000), ..Self::host_runtime() }
    }

    /// The host runtime of around 0.9.0-rc.1.
    #[must_use]
    pub fn host_runtime() -> Self {
        Self {
            family: Family::HostRuntime,
            auth: None,
            disk: true,
            persistent: false,
            names: Names::Underscores,
            modes: BTreeMap::new(),
            kin: None,
            bandwidth: None,
            poll: Duration::from_secs(5),
            recycle: Some(Duration::from_secs(60)),
            expires: false,
            collects: true,
            dials: Vec::new(),
            streams: None,
            warts: Warts::FIELDED,
        }
    }

    /// The same from release rc.38 on: what the release notes name as mended is (16).
    #[must_use]
    pub fn later(mut self) -> Self {
        self.persistent = true;
        self.names = Names::Hyphens;
        self.warts.one_frame_per_stream = false;
        self.warts.echoes = false;
        self.warts.forgets_lamport = false;
        self.warts.pushes_zombies = false;
        self.warts.deletes_fail = false;
        self.warts.bad_documents_fail = false;
        self
    }

    /// How the documents of a collection travel.
    #[must_use]
    pub fn mode(&self, key: &str) -> Mode {
        let local = self.modes.get(super::policy::collection(key)).copied();
        local.unwrap_or_else(|| self.names.mode(key))
    }
}
