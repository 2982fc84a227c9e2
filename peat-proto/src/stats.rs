//! What a node counts and what it holds.

mod legacy;

use crate::id::{ConnId, PeerId};
use crate::io::{Role, Wire};
use crate::wire::v0::Dialect;

pub use legacy::{BreakerState, Contact, LegacyPeer, LegacyStats, ModeTraffic};

/// A snapshot of all counters and gauges. Counters only grow in the life of a node.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Documents in the index.
    pub documents: u64,
    /// Deleted documents that are remembered.
    pub markers: u64,
    /// Documents in memory.
    pub loaded: u64,
    /// Estimated bytes of documents in memory.
    pub cache_bytes: usize,
    /// Peers that are remembered because they were let in once.
    pub remembered: u64,
    /// How many may be: [`Config::max_admitted`](crate::Config::max_admitted).
    pub max_admitted: u64,
    /// Peers that were let in by the invitation that let in most, since the node was opened.
    pub guests: u64,
    /// How many each may let in: [`Config::max_guests`](crate::Config::max_guests).
    pub max_guests: u64,
    /// Peers that proved themselves when as many were remembered as may be: members and dialled ones were let in all the same,
    /// invited ones were not.
    pub unremembered: u64,
    /// Peers that came by an invitation that had let in as many as it may, and were refused.
    pub uninvited: u64,
    /// Bytes of partly received frames, of all connections.
    pub receive_bytes: usize,
    /// Bytes of documents that arrive in pieces and are not whole yet.
    pub piece_bytes: usize,
    /// Bytes of received changes that are not yet durable.
    pub undurable_bytes: usize,
    /// Local edits that changed something.
    pub edits: u64,
    /// Documents that were deleted here, softly deleted ones not counted.
    pub deletions: u64,
    /// Markers that a peer sent and that stand now.
    pub markers_received: u64,
    /// Documents whose time to live was over.
    pub lapsed: u64,
    /// Documents removed after their time, and softly deleted ones that a marker took the place of.
    pub collected: u64,
    /// Changes applied that a peer sent and that were new.
    pub changes_applied: u64,
    /// Changes received that were known already.
    pub changes_known: u64,
    /// Received document payloads that were refused.
    pub refused: u64,
    /// Of those, the ones that are too large, or would be once expanded.
    pub too_large: u64,
    /// Words that were not heard, because too much of what this peer named is kept already.
    pub unheard: u64,
    /// Wholes put together from pieces that were not what the sender had announced; refused as invalid.
    pub forged: u64,
    /// Sent documents that a peer did not take.
    pub declined: u64,
    /// Frames cut short by the end of their stream.
    pub truncated: u64,
    /// Datagrams that could not be read.
    pub malformed: u64,
    /// Batches with bytes behind their last entry.
    pub trailing: u64,
    /// Incoming streams stopped because there were too many.
    pub stopped: u64,
    /// Frames that were skipped: types that are unknown or not for this wire.
    pub skipped: u64,
    /// Entries of batches that were skipped, their neighbours applied.
    pub entries_skipped: u64,
    /// Connections closed through the other side's fault, strangers included.
    pub closed: u64,
    /// Store commands that failed.
    pub store_faults: u64,
    /// Documents left alone because the store could not load them.
    pub quarantined: u64,
    /// Loads asked of the store.
    pub loads: u64,
    /// Batches written.
    pub batches: u64,
    /// Whole saves of a document, for compaction or a snapshot.
    pub saves: u64,
    /// Documents evicted from the cache.
    pub evictions: u64,
    /// Times that what a peer lacks was collected in a walk over a document's whole history.
    pub walks: u64,
    /// Things said again because no answer came.
    pub retries: u64,
    /// Requests to compare documents now.
    pub syncs: u64,
    /// Of those, the ones that were refused because too many were under way.
    pub syncs_refused: u64,
    /// What legacy peers, past ones included, have to do with.
    pub legacy: LegacyStats,
    /// Totals over all connections, past ones included.
    pub traffic: Traffic,
    /// The connections that exist now, ordered by id.
    pub peers: Vec<PeerStats>,
}

impl Stats {
    /// Every counter and gauge of the node by its name, those of its connections not.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        // Taken apart completely, so that none is forgotten.
        let &Self {
            documents,
            markers,
            loaded,
            cache_bytes,
            remembered,
            max_admitted,
            guests,
            max_guests,
            unremembered,
            uninvited,
            receive_bytes,
            piece_bytes,
            undurable_bytes,
            edits,
            deletions,
            markers_received,
            lapsed,
            collected,
            changes_applied,
            changes_known,
            refused,
            too_large,
            unheard,
            forged,
            declined,
            truncated,
            malformed,
            trailing,
            stopped,
            skipped,
            entries_skipped,
            closed,
            store_faults,
            quarantined,
            loads,
            batches,
            saves,
            evictions,
            walks,
            retries,
            syncs,
            syncs_refused,
            ref legacy,
            ref traffic,
            peers: _,
        } = self;
        let own = [
            ("documents", documents),
            ("markers", markers),
            ("loaded", loaded),
            ("cache_bytes", cache_bytes as u64),
            ("remembered", remembered),
            ("max_admitted", max_admitted),
            ("guests", guests),
            ("max_guests", max_guests),
            ("unremembered", unremembered),
            ("uninvited", uninvited),
            ("receive_bytes", receive_bytes as u64),
            ("piece_bytes", piece_bytes as u64),
            ("undurable_bytes", undurable_bytes as u64),
            ("edits", edits),
            ("deletions", deletions),
            ("markers_received", markers_received),
            ("lapsed", lapsed),
            ("collected", collected),
            ("changes_applied", changes_applied),
            ("changes_known", changes_known),
            ("refused", refused),
            ("too_large", too_large),
            ("unheard", unheard),
            ("forged", forged),
            ("declined", declined),
            ("truncated", truncated),
            ("malformed", malformed),
            ("trailing", trailing),
            ("stopped", stopped),
            ("skipped", skipped),
            ("entries_skipped", entries_skipped),
            ("closed", closed),
            ("store_faults", store_faults),
            ("quarantined", quarantined),
            ("loads", loads),
            ("batches", batches),
            ("saves", saves),
            ("evictions", evictions),
            ("walks", walks),
            ("retries", retries),
            ("syncs", syncs),
            ("syncs_refused", syncs_refused),
        ];
        own.into_iter().chain(traffic.counters()).chain(legacy.counters()).collect()
    }

    /// Takes over the counters that the documents keep.
    pub(crate) fn add_documents(&mut self, docs: &Self) {
        self.edits = docs.edits;
        self.deletions = docs.deletions;
        self.markers_received = docs.markers_received;
        self.lapsed = docs.lapsed;
        self.collected = docs.collected;
        self.changes_applied = docs.changes_applied;
        self.changes_known = docs.changes_known;
        self.refused += docs.refused;
        self.too_large = docs.too_large;
        self.store_faults = docs.store_faults;
        self.quarantined = docs.quarantined;
        self.loads = docs.loads;
        self.batches = docs.batches;
        self.saves = docs.saves;
        self.evictions = docs.evictions;
    }
}

/// Frames and bytes, counted once, at the frame boundary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Frames handed to the transport.
    pub frames_sent: u64,
    /// Their bytes, headers included.
    pub bytes_sent: u64,
    /// Whole frames received.
    pub frames_received: u64,
    /// Bytes received, of partial frames too.
    pub bytes_received: u64,
    /// Frames sent that carried changes or a snapshot.
    pub data_sent: u64,
}

impl Traffic {
    fn counters(&self) -> [(&'static str, u64); 5] {
        let &Self { frames_sent, bytes_sent, frames_received, bytes_received, data_sent } = self;
        [
            ("frames_sent", frames_sent),
            ("bytes_sent", bytes_sent),
            ("frames_received", frames_received),
            ("bytes_received", bytes_received),
            ("data_sent", data_sent),
        ]
    }
}

/// What a peer was let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Its id, which was given, dialled or remembered.
    Id,
    /// Nothing: everybody is let in.
    Open,
    /// An invitation out of one of our tickets.
    Invitation,
    /// It proved that it is a member of our formation.
    Formation,
    /// The same, on the legacy wire.
    Dialect(Dialect),
    /// No proof is taken on the legacy wire; the admission let its id in.
    Off,
}

/// One connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerStats {
    /// Which.
    pub conn: ConnId,
    /// Whom.
    pub peer: PeerId,
    /// Which side dialled.
    pub role: Role,
    /// What is spoken.
    pub wire: Wire,
    /// What it was let in by, once it is.
    pub credential: Option<Credential>,
    /// Whether documents flow.
    pub admitted: bool,
    /// Whether both document sets are proven equal.
    pub level: bool,
    /// Documents that are known to differ or not known to be equal.
    pub behind: u64,
    /// Documents that one side refused, and that both leave out of the comparison. Being level says nothing of them.
    pub left_out: u64,
    /// Frames and bytes of this connection.
    pub traffic: Traffic,
    /// Bytes handed to the transport that have not left its send buffer.
    pub in_flight: usize,
    /// Bytes that may be in flight.
    pub window: usize,
    /// Of a legacy peer.
    pub legacy: Option<LegacyPeer>,
}
