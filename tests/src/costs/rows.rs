//! The situations whose costs are known.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transactable;
use peat_node::store::Store;
use peat_node::store::memory::MemoryStore;
use peat_proto::policy::kin::Kin;
use peat_proto::store::Entry;
use peat_proto::{Config, PeerId};

use super::corpus::{Corpus, fields, records};
use super::meter::Meter;
use super::pair::Pair;

/// Two nodes with so many equal documents that are not in memory, ready to meet.
#[must_use]
pub fn equal(count: usize) -> Pair {
    let known = records("units", 0..count, 1);
    Pair::new(&[open(), open()], [known.clone(), known])
}

/// The same, and on one side so many of them, evenly spread over the names, were edited meanwhile.
#[must_use]
pub fn changed(count: usize, changes: usize) -> Pair {
    let edited: BTreeSet<usize> = (0..changes).map(|n| n * count / changes).collect();
    let known = records("units", (0..count).filter(|n| !edited.contains(n)), 1);
    let corpus = fields("units", edited, 2);
    let stores = [in_memory(&corpus), in_memory(&corpus)];
    let mut pair = Pair::with_stores(&[open(), open()], stores, [known.clone(), known]);
    for (doc, ..) in &corpus.documents {
        pair.edit(0, doc, |tx| tx.put(ROOT, "heading", 361));
    }
    pair
}

/// A leaf and its hub, both just started, equal in so many documents that go both ways, as many that go from the leaf to the
/// hub, and as many that go the other way.
#[must_use]
pub fn restarted_hub_and_leaf(count: usize) -> Pair {
    let both = || ["units", "nodes", "commands"].map(|collection| records(collection, 0..count, 3)).concat();
    hierarchy([both(), both()])
}

/// A leaf and its hub, equal in a tenth of so many documents that go both ways. Besides, the hub has so many that go
/// upward only, and the leaf as many that go to its siblings only.
#[must_use]
pub fn hub_and_leaf(count: usize) -> Pair {
    let shared = records("units", 0..count / 10, 1);
    let beside = |collection| shared.iter().cloned().chain(records(collection, 0..count, 3)).collect();
    hierarchy([beside("cells"), beside("nodes")])
}

fn hierarchy(known: [Vec<Entry>; 2]) -> Pair {
    let (mut leaf, mut hub) = (open(), open());
    leaf.family.kin.insert(PeerId([2; 32]), Kin::Parent);
    hub.family.kin.insert(PeerId([1; 32]), Kin::Child);
    Pair::new(&[leaf, hub], known)
}

/// Two level nodes with so many documents of ten fields in their stores; then one field of one document changes. What
/// crossed, and the bytes of the change alone.
#[must_use]
pub fn edit(count: usize) -> (Meter, u64) {
    let known = records("units", 1..count, 1);
    let corpus = fields("units", [0], 2);
    let stores = [in_memory(&corpus), in_memory(&corpus)];
    let mut pair = Pair::with_stores(&[open(), open()], stores, [known.clone(), known]);
    pair.meet();
    pair.restart_meter();
    let doc = &corpus.documents[0].0;
    pair.edit(0, doc, |tx| tx.put(ROOT, "speed", 12.5));
    pair.pass(Duration::from_secs(60));
    (pair.meter(), pair.newest_change(0, doc))
}

/// A node with these documents in its store, and one with nothing in its own.
#[must_use]
pub fn first_sync(corpus: &Corpus, mut stores: [Box<dyn Store>; 2]) -> Pair {
    corpus.store(&mut *stores[0]);
    Pair::with_stores(&[open(), open()], stores, [Vec::new(), Vec::new()])
}

fn in_memory(corpus: &Corpus) -> Box<dyn Store> {
    let mut store = MemoryStore::default();
    corpus.store(&mut store);
    Box::new(store)
}

fn open() -> Config {
    let mut config = Config::default();
    config.admission.open = true;
    config
}
