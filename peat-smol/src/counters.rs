//! What an endpoint counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shared by the task, which writes, and whoever looks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) oversized: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) probes: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// The counters and gauges of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Callers whose handshake was begun.
    pub accepted: u64,
    /// Callers that were asked to prove their address first.
    pub retried: u64,
    /// Callers that were turned away because there were too many.
    pub refused: u64,
    /// Packets that the system did not take.
    pub unsent: u64,
    /// Those of them that were too large for their link, though of no more than the 1,200 bytes that QUIC needs: where this
    /// is not 0, the MTU is too small.
    pub oversized: u64,
    /// Bytes of packets that have left, headers of IP and UDP not included.
    pub bytes_sent: u64,
    /// Bytes of packets that have come in, whoever sent them.
    pub bytes_received: u64,
    /// Packets that tested silent peers.
    pub probes: u64,
    /// Handshakes of callers under way, at most [`limits::MAX_HANDSHAKES`](peat_node::transport::limits::MAX_HANDSHAKES).
    pub handshakes: u64,
    /// Connections that QUIC knows, at most
    /// [`limits::MAX_CONNECTIONS`](peat_node::transport::limits::MAX_CONNECTIONS) and the dials.
    pub connections: u64,
}

/// Reads what an endpoint counts, as long as anybody wants to know. Cheap to clone; does not keep the endpoint open.
#[derive(Debug, Clone)]
pub struct Meter(pub(crate) Arc<Counters>);

impl Meter {
    /// What the endpoint has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl Stats {
    /// Every counter and gauge by its name.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 10] {
        // Taken apart completely, so that none is forgotten.
        let &Self {
            accepted,
            retried,
            refused,
            unsent,
            oversized,
            bytes_sent,
            bytes_received,
            probes,
            handshakes,
            connections,
        } = self;
        [
            ("accepted", accepted),
            ("retried", retried),
            ("refused", refused),
            ("unsent", unsent),
            ("oversized", oversized),
            ("bytes_sent", bytes_sent),
            ("bytes_received", bytes_received),
            ("probes", probes),
            ("handshakes", handshakes),
            ("connections", connections),
        ]
    }
}

impl Counters {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            accepted: self.accepted.load(Relaxed),
            retried: self.retried.load(Relaxed),
            refused: self.refused.load(Relaxed),
            unsent: self.unsent.load(Relaxed),
            oversized: self.oversized.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            probes: self.probes.load(Relaxed),
            handshakes: self.handshakes.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
