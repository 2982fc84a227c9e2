//! A peer of either Automerge version, for fleets that have both.

use std::collections::BTreeMap;

use peat_proto::{Now, PeerId, Time};

use super::config::Config;
use super::io::{Input, Output};
use super::library::{Field, Head, V07, V12};
use super::peer::{LegacyPeer, Stats};
use super::tombstone::Tombstone;

/// See [`LegacyPeer`] for what each function does.
#[derive(Debug)]
pub enum Member {
    /// With Automerge 0.7.
    V07(LegacyPeer<V07>),
    /// With Automerge 0.12.
    V12(LegacyPeer<V12>),
}

macro_rules! each {
    ($of:ident, $peer:ident => $do:expr) => {
        match $of {
            Self::V07($peer) => $do,
            Self::V12($peer) => $do,
        }
    };
}

impl Member {
    /// A peer with Automerge 0.7, as fielded.
    #[must_use]
    pub fn v07(id: PeerId, config: Config, seed: u64, now: Now) -> Self {
        Self::V07(LegacyPeer::new(id, config, seed, now))
    }

    /// A peer with Automerge 0.12.
    #[must_use]
    pub fn v12(id: PeerId, config: Config, seed: u64, now: Now) -> Self {
        Self::V12(LegacyPeer::new(id, config, seed, now))
    }

    /// Something happens.
    pub fn handle(&mut self, now: Now, input: Input) {
        each!(self, peer => peer.handle(now, input));
    }

    /// The next thing that it does.
    pub fn poll(&mut self) -> Option<Output> {
        each!(self, peer => peer.poll())
    }

    /// When it next wants [`Input::Timeout`].
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        each!(self, peer => peer.timeout())
    }

    /// The process ends and starts again.
    pub fn restart(&mut self, seed: u64, now: Now) {
        each!(self, peer => peer.restart(seed, now));
    }

    /// Sets a field of a document, or removes it.
    pub fn put(&mut self, now: Now, key: &str, field: &str, value: Option<&Field>) {
        each!(self, peer => peer.put(now, key, field, value));
    }

    /// Deletes a document in the way of its collection.
    pub fn delete(&mut self, now: Now, key: &str, reason: Option<&str>) {
        each!(self, peer => peer.delete(now, key, reason));
    }

    /// Deletes a document with a marker.
    pub fn bury(&mut self, now: Now, key: &str, reason: Option<&str>) {
        each!(self, peer => peer.bury(now, key, reason));
    }

    /// Sends a marker to a peer and keeps none.
    pub fn forge(&mut self, now: Now, to: PeerId, marker: &Tombstone) {
        each!(self, peer => peer.forge(now, to, marker));
    }

    /// Pushes all documents and markers to a peer.
    pub fn push(&mut self, now: Now, to: PeerId) {
        each!(self, peer => peer.push(now, to));
    }

    /// Starts a reconciliation.
    pub fn reconcile(&mut self, now: Now, with: PeerId, fire_and_forget: bool) {
        each!(self, peer => peer.reconcile(now, with, fire_and_forget));
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> PeerId {
        each!(self, peer => peer.id())
    }

    /// What kind of peer it is.
    #[must_use]
    pub fn config(&self) -> &Config {
        each!(self, peer => peer.config())
    }

    /// What it counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        each!(self, peer => peer.stats())
    }

    /// Whether its process has ended by itself.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        each!(self, peer => peer.is_aborted())
    }

    /// Whether it initiates nothing towards this peer any more.
    #[must_use]
    pub fn is_cut_off(&self, other: &PeerId) -> bool {
        each!(self, peer => peer.is_cut_off(other))
    }

    /// Whom it can send to.
    #[must_use]
    pub fn connected_to(&self) -> Vec<PeerId> {
        each!(self, peer => peer.connected_to().copied().collect())
    }

    /// The keys of all documents, empty ones included.
    #[must_use]
    pub fn documents(&self) -> Vec<String> {
        each!(self, peer => peer.documents().map(str::to_owned).collect())
    }

    /// The heads of a document.
    #[must_use]
    pub fn heads(&self, key: &str) -> Vec<Head> {
        each!(self, peer => peer.heads(key))
    }

    /// The scalars of a document's root map.
    #[must_use]
    pub fn fields(&self, key: &str) -> BTreeMap<String, Field> {
        each!(self, peer => peer.fields(key))
    }

    /// All markers.
    #[must_use]
    pub fn markers(&self) -> Vec<&Tombstone> {
        each!(self, peer => peer.markers().collect())
    }
}
