//! A store on a simulated disk: batches that are written and not yet durable, and what a crash leaves of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, Op, Record};
use peat_proto::{DocId, PeerId, Seq};

use super::model::Carried;

/// One stored document.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) record: Record,
    pub(crate) chunks: Vec<Bytes>,
}

/// A batch that is written and not durable, with what it carries of the model.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    pub(crate) carries: Carried,
}

/// The durable state, and what has been written after it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    docs: BTreeMap<DocId, Kept>,
    peers: BTreeSet<PeerId>,
    pending: VecDeque<Pending>,
    /// Nothing becomes durable and nothing is answered.
    pub(crate) paused: bool,
    /// So many writes will fail.
    pub(crate) failing_writes: u32,
    /// So many loads will fail.
    pub(crate) failing_loads: u32,
}

impl Disk {
    /// What a node starts from.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let docs =
            self.docs.iter().map(|(doc, kept)| Entry::Document { doc: doc.clone(), record: kept.record.clone() });
        docs.chain(self.peers.iter().copied().map(Entry::Peer)).collect()
    }

    /// The chunks of a document as a load sees them: behind every write, durable or not.
    pub(crate) fn load(&self, doc: &DocId) -> Option<Vec<Bytes>> {
        let mut chunks = self.docs.get(doc).map(|kept| kept.chunks.clone()).filter(|chunks| !chunks.is_empty());
        for op in self.pending.iter().flat_map(|pending| &pending.batch.ops) {
            match op {
                Op::Append { doc: of, chunk, .. } if of == doc => chunks.get_or_insert_default().push(chunk.clone()),
                Op::Replace { doc: of, chunk, .. } if of == doc => chunks = Some(vec![chunk.clone()]),
                Op::Bury { doc: of, .. } | Op::Remove { doc: of } if of == doc => chunks = None,
                _ => {}
            }
        }
        chunks
    }

    /// Loses the end of a document, as disks do that nobody notices.
    #[cfg(test)]
    pub(crate) fn damage(&mut self, doc: &DocId) {
        if let Some(chunk) = self.docs.get_mut(doc).and_then(|kept| kept.chunks.last_mut()) {
            chunk.truncate(chunk.len() - 1);
        }
    }

    /// Writes a batch; it is durable after [`Self::commit`].
    pub(crate) fn write(&mut self, batch: Batch, carries: Carried) {
        self.pending.push_back(Pending { batch, carries });
    }

    /// Makes everything durable: the newest batch, and what all of them carry.
    pub(crate) fn commit(&mut self) -> Option<(Seq, Carried)> {
        self.commit_first(self.pending.len())
    }

    /// Loses power: at most `keep` of the batches that were not durable survive. Answers what the survivors carry, and
    /// how many batches are lost.
    pub(crate) fn crash(&mut self, keep: usize) -> (Carried, usize) {
        let kept = self.commit_first(keep).map(|(_, carries)| carries).unwrap_or_default();
        let lost = self.pending.len();
        self.pending.clear();
        self.paused = false;
        (kept, lost)
    }

    pub(crate) fn documents(&self) -> impl Iterator<Item = (&DocId, &Kept)> {
        self.docs.iter()
    }

    fn commit_first(&mut self, count: usize) -> Option<(Seq, Carried)> {
        let mut newest = None;
        let mut carried = Carried::default();
        for _ in 0..count {
            let Some(Pending { batch, carries }) = self.pending.pop_front() else { break };
            newest = Some(batch.seq);
            carried.writes.extend(carries.writes);
            carried.buried.extend(carries.buried);
            for op in batch.ops {
                self.keep(op);
            }
        }
        newest.map(|seq| (seq, carried))
    }

    fn keep(&mut self, op: Op) {
        match op {
            Op::Append { doc, record, chunk } => {
                let kept = self.docs.entry(doc).or_insert_with(|| Kept { record: record.clone(), chunks: Vec::new() });
                kept.chunks.push(chunk);
                kept.record = record;
            }
            Op::Replace { doc, record, chunk } => {
                self.docs.insert(doc, Kept { record, chunks: vec![chunk] });
            }
            Op::Bury { doc, record } => {
                self.docs.insert(doc, Kept { record, chunks: Vec::new() });
            }
            Op::Remove { doc } => {
                self.docs.remove(&doc);
            }
            Op::Admit { peer } => {
                self.peers.insert(peer);
            }
            Op::Forget { peer } => {
                self.peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peat_proto::Heads;

    fn append(seq: u64, chunk: &'static [u8]) -> Batch {
        let doc = DocId::new("a:1").expect("valid");
        let record = Record::automerge(Heads::NONE, 1, u32::try_from(seq).expect("small"));
        Batch { seq: Seq(seq), ops: vec![Op::Append { doc, record, chunk: Bytes::from_static(chunk) }] }
    }

    #[test]
    fn a_load_sees_every_write_and_a_crash_keeps_a_prefix() {
        let doc = DocId::new("a:1").expect("valid");
        let mut disk = Disk::default();
        disk.write(append(1, b"one"), Carried::default());
        disk.write(append(2, b"two"), Carried::default());
        assert_eq!(disk.load(&doc).map(|chunks| chunks.len()), Some(2));
        assert_eq!(disk.entries(), []);
        assert_eq!(disk.crash(1), (Carried::default(), 1));
        assert_eq!(disk.load(&doc), Some(vec![Bytes::from_static(b"one")]));
        assert_eq!(disk.entries().len(), 1);
        disk.write(append(1, b"three"), Carried::default());
        assert_eq!(disk.commit(), Some((Seq(1), Carried::default())));
        assert_eq!(disk.commit(), None);
    }
}
