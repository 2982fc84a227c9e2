//! What Automerge, zstd and the disk alone need.

use automerge::Automerge;
use peat_node::store::Store;

use super::corpus::{Corpus, batch, name};

/// Documents that share one compressed block and one commit.
const TOGETHER: usize = 1000;

/// Bytes of one digest, which is what it takes to tell that two sets are equal.
pub const DIGEST: u64 = 32;

/// Bytes of the bare names of so many documents: who differs in them has to be told at least that.
#[must_use]
pub fn naming_floor(documents: usize) -> u64 {
    (0..documents).map(|n| name("units", n).as_str().len() as u64).sum()
}

/// Moves a corpus by the shortest way: saves it, compresses it, expands it, loads it and commits it, a thousand documents
/// at a time. The compressed bytes.
pub fn first_sync_floor(corpus: &Corpus, store: &mut dyn Store) -> u64 {
    let mut crossed = 0;
    for (n, documents) in corpus.documents.chunks(TOGETHER).enumerate() {
        let mut block = Vec::new();
        let mut lengths = Vec::new();
        for (_, content, _) in documents {
            let saved = content.save();
            lengths.push(saved.len());
            block.extend(saved);
        }
        let packed = zstd::bulk::compress(&block, 3).expect("memory");
        crossed += packed.len() as u64;
        let expanded = zstd::bulk::decompress(&packed, block.len()).expect("what was compressed");
        let mut rest = expanded.as_slice();
        let arrived = documents.iter().zip(lengths).map(|((doc, ..), length)| {
            let (saved, behind) = rest.split_at(length);
            rest = behind;
            let content = Automerge::load(saved).expect("what was saved");
            (doc.clone(), content, bytes::Bytes::copy_from_slice(saved))
        });
        store.apply(&[batch(n as u64 + 1, &arrived.collect::<Vec<_>>())]).expect("a store that can be written");
    }
    crossed
}
