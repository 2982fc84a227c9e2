//! Documents and markers of one peer. Every write is durable at once where there is a disk.

use std::collections::BTreeMap;

use super::library::Library;
use super::tombstone::Tombstone;

/// What a peer holds.
#[derive(Debug, Clone)]
pub(super) struct Store<L: Library> {
    docs: BTreeMap<String, L::Doc>,
    markers: BTreeMap<String, Tombstone>,
    disk: bool,
}

impl<L: Library> Store<L> {
    /// An empty one.
    #[must_use]
    pub(super) fn new(disk: bool) -> Self {
        Self { docs: BTreeMap::new(), markers: BTreeMap::new(), disk }
    }

    /// A document.
    #[must_use]
    pub(super) fn doc(&self, key: &str) -> Option<&L::Doc> {
        self.docs.get(key)
    }

    /// All keys in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.docs.keys()
    }

    /// Stores a document.
    pub(super) fn put(&mut self, key: &str, doc: L::Doc) {
        self.docs.insert(key.to_owned(), doc);
    }

    /// Removes a document.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        self.docs.remove(key).is_some()
    }

    /// The marker of a document.
    #[must_use]
    pub(super) fn marker(&self, key: &str) -> Option<&Tombstone> {
        self.markers.get(key)
    }

    /// All markers in the order of their documents' keys.
    pub(super) fn markers(&self) -> impl Iterator<Item = &Tombstone> {
        self.markers.values()
    }

    /// Stores a marker; a store without a disk discards it (wire.md 6.4).
    pub(super) fn bury(&mut self, marker: Tombstone) {
        if self.disk {
            self.markers.insert(marker.key(), marker);
        }
    }

    /// Forgets a marker.
    pub(super) fn exhume(&mut self, key: &str) {
        self.markers.remove(key);
    }

    /// What is left after the process has ended.
    pub(super) fn reopen(&mut self) {
        if !self.disk {
            self.docs.clear();
            self.markers.clear();
        }
    }
}
