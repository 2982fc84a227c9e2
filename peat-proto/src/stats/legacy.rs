//! Counters and states of dealings with legacy peers.

use crate::time::Time;

/// What a node counts of its dealings with legacy peers. Every outcome moves one counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LegacyStats {
    /// Connections closed because membership was not proven, or not believed.
    pub strangers: u64,
    /// Frames, replies and heartbeats that were sent; part of the totals.
    pub frames_sent: u64,
    /// Messages of the Automerge sync protocol that were sent.
    pub deltas_sent: u64,
    /// Messages of the Automerge sync protocol that came, refused ones included.
    pub deltas_received: u64,
    /// Whole documents that were sent.
    pub snapshots_sent: u64,
    /// Whole documents that came, refused ones included.
    pub snapshots_received: u64,
    /// Of those, the ones that named the heads that were there already, and were not looked at further.
    pub snapshots_known: u64,
    /// Batches that were sent; what is in them counts too.
    pub batches_sent: u64,
    /// Batches that came and could be read; what is in them counts too.
    pub batches_received: u64,
    /// Tombstones that were sent.
    pub tombstones_sent: u64,
    /// Tombstones that came and could be read.
    pub tombstones_received: u64,
    /// Heartbeats that were sent.
    pub heartbeats_sent: u64,
    /// Heartbeats that came.
    pub heartbeats_received: u64,
    /// Times that a peer was lost.
    pub partitions: u64,
    /// Connections that were begun anew because nothing came on them.
    pub given_up: u64,
    /// Connections that were begun anew because of their age.
    pub renewed: u64,
    /// Questions about the set of documents.
    pub questions: u64,
    /// Of those, the ones that got no answer: too many, too soon, or about too many documents.
    pub questions_unanswered: u64,
    /// Messages that answered them, several to one question.
    pub answers: u64,
    /// Times that a document was given up for a while.
    pub parked: u64,
    /// Messages that were passed over because too many documents were followed.
    pub crowded: u64,
    /// Frames that could not be handed over.
    pub frames_failed: u64,
    /// Streams given up because a frame on them was not complete in time.
    pub frames_late: u64,
    /// Times that pushes to a peer were suspended.
    pub breaker_opened: u64,
    /// Pushes that waited because the document had just been pushed.
    pub deferred_cooldown: u64,
    /// Times that pushes waited because a second's worth of them had been used up.
    pub deferred_bucket: u64,
    /// Acknowledgements of tombstones that came. They say nothing, and are counted among what was skipped.
    pub acks_received: u64,
    /// Windowed histories that were refused: nobody sends them. Counted among what was skipped, like the next two.
    pub windowed_refused: u64,
    /// Frames of the reserved type that were refused.
    pub reserved_refused: u64,
    /// Requests for documents that were refused: their payload was never defined.
    pub requests_refused: u64,
    /// What moved of collections that travel with their full history.
    pub full: ModeTraffic,
    /// What moved of collections that are pushed as snapshots.
    pub snapshot: ModeTraffic,
}

/// Messages about documents of one mode, and their bytes: parts of the totals. Nothing is counted for the frames and
/// batches that carry them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModeTraffic {
    /// Deltas and snapshots that were sent.
    pub messages_sent: u64,
    /// Their payloads, in bytes.
    pub bytes_sent: u64,
    /// Deltas and snapshots that came, refused ones included.
    pub messages_received: u64,
    /// Their payloads, in bytes.
    pub bytes_received: u64,
}

impl ModeTraffic {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.messages_sent += 1;
        self.bytes_sent += bytes as u64;
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.messages_received += 1;
        self.bytes_received += bytes as u64;
    }
}

impl LegacyStats {
    /// The traffic of collections that fielded peers push as snapshots, or of the others.
    pub(crate) fn of_mode(&mut self, snapshots: bool) -> &mut ModeTraffic {
        if snapshots { &mut self.snapshot } else { &mut self.full }
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 38] {
        let &Self {
            strangers,
            frames_sent,
            deltas_sent,
            deltas_received,
            snapshots_sent,
            snapshots_received,
            snapshots_known,
            batches_sent,
            batches_received,
            tombstones_sent,
            tombstones_received,
            heartbeats_sent,
            heartbeats_received,
            partitions,
            given_up,
            renewed,
            questions,
            questions_unanswered,
            answers,
            parked,
            crowded,
            frames_failed,
            frames_late,
            breaker_opened,
            deferred_cooldown,
            deferred_bucket,
            acks_received,
            windowed_refused,
            reserved_refused,
            requests_refused,
            full,
            snapshot,
        } = self;
        [
            ("legacy_strangers", strangers),
            ("legacy_frames_sent", frames_sent),
            ("legacy_deltas_sent", deltas_sent),
            ("legacy_deltas_received", deltas_received),
            ("legacy_snapshots_sent", snapshots_sent),
            ("legacy_snapshots_received", snapshots_received),
            ("legacy_snapshots_known", snapshots_known),
            ("legacy_batches_sent", batches_sent),
            ("legacy_batches_received", batches_received),
            ("legacy_tombstones_sent", tombstones_sent),
            ("legacy_tombstones_received", tombstones_received),
            ("legacy_heartbeats_sent", heartbeats_sent),
            ("legacy_heartbeats_received", heartbeats_received),
            ("legacy_partitions", partitions),
            ("legacy_given_up", given_up),
            ("legacy_renewed", renewed),
            ("legacy_questions", questions),
            ("legacy_questions_unanswered", questions_unanswered),
            ("legacy_answers", answers),
            ("legacy_parked", parked),
            ("legacy_crowded", crowded),
            ("legacy_frames_failed", frames_failed),
            ("legacy_frames_late", frames_late),
            ("legacy_breaker_opened", breaker_opened),
            ("legacy_deferred_cooldown", deferred_cooldown),
            ("legacy_deferred_bucket", deferred_bucket),
            ("legacy_acks_received", acks_received),
            ("legacy_windowed_refused", windowed_refused),
            ("legacy_reserved_refused", reserved_refused),
            ("legacy_requests_refused", requests_refused),
            ("legacy_full_messages_sent", full.messages_sent),
            ("legacy_full_bytes_sent", full.bytes_sent),
            ("legacy_full_messages_received", full.messages_received),
            ("legacy_full_bytes_received", full.bytes_received),
            ("legacy_snapshot_messages_sent", snapshot.messages_sent),
            ("legacy_snapshot_bytes_sent", snapshot.bytes_sent),
            ("legacy_snapshot_messages_received", snapshot.messages_received),
            ("legacy_snapshot_bytes_received", snapshot.bytes_received),
        ]
    }
}

/// What is particular to a connection with a legacy peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LegacyPeer {
    /// Whether it is heard of.
    pub contact: Contact,
    /// Whether documents are pushed to it.
    pub breaker: BreakerState,
    /// Documents that were given up for a while.
    pub parked: u64,
}

/// Whether a legacy peer is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It is.
    Connected,
    /// Nothing was heard of it for too long, or heartbeats to it failed.
    Partitioned,
    /// It gave a sign of life after that; a second one is awaited.
    Recovering,
}

/// Whether documents are pushed to a legacy peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// Too much failed in a row: not until then.
    Open {
        /// When one push is let through.
        until: Time,
    },
    /// One at a time, whose fate decides.
    HalfOpen,
}
