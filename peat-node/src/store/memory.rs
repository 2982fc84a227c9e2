//! A store that lasts as long as the process.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, Op, Record, StoreFault};
use peat_proto::{DocId, PeerId};

use super::{OpenFault, Store};

/// Keeps everything in memory, and keeps all of it: nothing is ever evicted.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    documents: BTreeMap<DocId, Document>,
    peers: BTreeSet<PeerId>,
}

#[derive(Debug, Clone)]
struct Document {
    record: Record,
    chunks: Vec<Bytes>,
}

impl Store for MemoryStore {
    fn entries(&mut self) -> Result<Vec<Entry>, OpenFault> {
        let documents = self
            .documents
            .iter()
            .map(|(doc, document)| Entry::Document { doc: doc.clone(), record: document.record.clone() });
        Ok(documents.chain(self.peers.iter().copied().map(Entry::Peer)).collect())
    }

    fn load(&mut self, doc: &DocId) -> Result<Vec<Bytes>, StoreFault> {
        let chunks = self.documents.get(doc).map(|document| document.chunks.clone());
        chunks.filter(|chunks| !chunks.is_empty()).ok_or(StoreFault::Missing)
    }

    fn apply(&mut self, batches: &[Batch]) -> Result<(), StoreFault> {
        let ops = || batches.iter().flat_map(|batch| &batch.ops);
        self.check(ops())?;
        for op in ops() {
            self.run(op);
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreFault> {
        Ok(())
    }
}

impl MemoryStore {
    /// Refuses all operations before the first is run, so that nothing needs to be undone.
    fn check<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<(), StoreFault> {
        let mut counts = BTreeMap::new();
        for op in ops {
            let (doc, record, expected) = match op {
                Op::Append { doc, record, .. } => {
                    let before = counts.get(doc).copied().unwrap_or_else(|| self.count(doc));
                    (doc, record, before.checked_add(1))
                }
                Op::Replace { doc, record, .. } => (doc, record, Some(1)),
                Op::Bury { doc, record } => (doc, record, Some(0)),
                Op::Remove { doc } => {
                    counts.insert(doc, 0);
                    continue;
                }
                Op::Admit { .. } | Op::Forget { .. } => continue,
            };
            if expected != Some(record.chunks) {
                return Err(StoreFault::Damaged);
            }
            counts.insert(doc, record.chunks);
        }
        Ok(())
    }

    fn count(&self, doc: &DocId) -> u32 {
        self.documents.get(doc).map_or(0, |document| document.record.chunks)
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Append { doc, record, chunk } => {
                let document = self
                    .documents
                    .entry(doc.clone())
                    .or_insert_with(|| Document { record: record.clone(), chunks: Vec::new() });
                document.record = record.clone();
                document.chunks.push(chunk.clone());
            }
            Op::Replace { doc, record, chunk } => {
                let document = Document { record: record.clone(), chunks: vec![chunk.clone()] };
                self.documents.insert(doc.clone(), document);
            }
            Op::Bury { doc, record } => {
                let document = Document { record: record.clone(), chunks: Vec::new() };
                self.documents.insert(doc.clone(), document);
            }
            Op::Remove { doc } => {
                self.documents.remove(doc);
            }
            Op::Admit { peer } => {
                self.peers.insert(*peer);
            }
            Op::Forget { peer } => {
                self.peers.remove(peer);
            }
        }
    }
}
