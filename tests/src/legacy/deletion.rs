//! Deletion (wire.md 6.4, 10.5, 11).

use std::time::Duration;

use peat_proto::PeerId;

use super::frame::Bad;
use super::library::Library;
use super::peer::{LegacyPeer, Task};
use super::policy;
use super::tombstone::{Direction, Tombstone, batch_frame, decode_all};

/// Markers that one collection looks at, the first in key order (DEL-8).
const SCANNED: usize = 1_000;

impl<L: Library> LegacyPeer<L> {
    /// A marker has arrived, as a frame of its own or as an entry of a batch.
    pub(super) fn tombstone(&mut self, from: PeerId, payload: &[u8], size: u64, single: bool) -> Result<(), Bad> {
        let tombstone = Tombstone::decode(payload)?;
        self.stats.bytes_received += size;
        self.apply(from, tombstone, single);
        Ok(())
    }

    /// A batch of markers has arrived.
    pub(super) fn tombstones(&mut self, from: PeerId, payload: &[u8], size: u64) -> Result<(), Bad> {
        let tombstones = decode_all(payload)?;
        self.stats.bytes_received += size;
        for tombstone in tombstones {
            self.apply(from, tombstone, false);
        }
        Ok(())
    }

    fn apply(&mut self, from: PeerId, tombstone: Tombstone, single: bool) {
        let warts = self.config.warts;
        let wins =
            |old: &Tombstone| !warts.first_marker_wins && (old.lamport, &old.by) < (tombstone.lamport, &tombstone.by);
        if self.store.marker(&tombstone.key()).is_some_and(|old| !wins(old)) {
            return;
        }
        if !warts.forgets_lamport {
            self.lamport = self.lamport.max(tombstone.lamport);
        }
        self.remove(tombstone.clone(), Some(from));
        if single || !warts.keeps_batched_markers {
            self.relay(from, &tombstone);
        }
    }

    /// Stores the marker, then removes the document: two transactions (DEL-1).
    fn remove(&mut self, marker: Tombstone, origin: Option<PeerId>) {
        let key = marker.key();
        self.store.bury(marker);
        if self.store.remove(&key) {
            self.after(Duration::ZERO, Task::Changed(key, origin));
        }
    }

    /// To everybody but the source, by the direction that the marker came with.
    fn relay(&mut self, from: PeerId, tombstone: &Tombstone) {
        let all = || self.peers.keys().copied().collect::<Vec<_>>();
        let targets = match (&self.config.kin, tombstone.direction) {
            (Some(kin), Direction::Up) => kin.parent.into_iter().collect(),
            (Some(kin), Direction::Down) => kin.children.iter().copied().collect(),
            _ => all(),
        };
        for peer in targets.into_iter().filter(|peer| *peer != from) {
            drop(self.send(peer, &tombstone.frame()));
        }
    }

    /// The application deletes: the marker, then the whole set to everybody.
    pub(super) fn deleted(&mut self, key: &str, reason: Option<&str>) {
        let Some((collection, id)) = policy::split(key) else { return };
        // Fielded peers are release builds: a forged clock wraps.
        self.lamport = self.lamport.wrapping_add(1);
        let marker = Tombstone {
            collection: collection.to_owned(),
            id: id.to_owned(),
            deleted_at_ms: self.now.unix_ms,
            lamport: self.lamport,
            by: self.id.0.iter().map(|byte| format!("{byte:02x}")).collect(),
            reason: reason.map(str::to_owned),
            direction: Direction::of(collection),
        };
        if self.config.warts.first_marker_wins && self.store.marker(key).is_some() {
            self.store.remove(key);
        } else {
            self.remove(marker, None);
        }
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.push_markers(peer);
        }
    }

    /// What was forged goes out twice, alone and in a batch. What is said twice happens once.
    pub(super) fn forged(&mut self, peer: PeerId, marker: &Tombstone) {
        for frame in [marker.frame(), batch_frame(std::slice::from_ref(marker))] {
            drop(self.send(peer, &frame));
        }
    }

    /// The entire set, whatever the directions; nothing if it is empty.
    pub(super) fn push_markers(&mut self, peer: PeerId) {
        let fresh = |marker: &Tombstone| match self.config.warts.forgets_direction {
            true => Tombstone { direction: Direction::of(&marker.collection), ..marker.clone() },
            false => marker.clone(),
        };
        let markers: Vec<Tombstone> = self.store.markers().map(fresh).collect();
        if !markers.is_empty() {
            drop(self.send(peer, &batch_frame(&markers)));
        }
    }

    /// Markers are forgotten by the time that their author gave, in the collections that delete by marker.
    pub(super) fn collect(&mut self) {
        let now = self.now.unix_ms;
        let old = |marker: &&Tombstone| {
            let ttl = self.config.names.marker_ttl(&marker.collection);
            ttl.is_some_and(|ttl| marker.deleted_at_ms.saturating_add(ttl.as_millis() as u64) < now)
        };
        let old: Vec<String> = self.store.markers().take(SCANNED).filter(old).map(Tombstone::key).collect();
        for key in old {
            self.store.exhume(&key);
        }
    }
}
