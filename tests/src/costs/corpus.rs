//! Documents to sync, made from a seed or from recorded positions.

use std::io::Read;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, ROOT};
use flate2::read::GzDecoder;
use peat_node::store::Store;
use peat_proto::store::{Batch, Entry, Op, Record};
use peat_proto::{DocId, Heads, Rng, Seq};

/// Documents with their content.
#[derive(Debug, Default)]
pub struct Corpus {
    /// Name, content, and the content saved.
    pub documents: Vec<(DocId, Automerge, bytes::Bytes)>,
}

impl Corpus {
    /// Puts all of it into a store, a thousand to a commit.
    pub fn store(&self, store: &mut dyn Store) {
        for (n, documents) in self.documents.chunks(1000).enumerate() {
            store.apply(&[batch(n as u64 + 1, documents)]).expect("a store that can be written");
        }
    }

    /// What the saved documents take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.documents.iter().map(|(_, _, saved)| saved.len() as u64).sum()
    }
}

/// One batch that stores these documents.
pub(super) fn batch(seq: u64, documents: &[(DocId, Automerge, bytes::Bytes)]) -> Batch {
    let op = |(doc, content, saved): &(DocId, Automerge, bytes::Bytes)| {
        let record = Record::automerge(Heads::new(content.get_heads()), saved.len() as u64, 1);
        Op::Replace { doc: doc.clone(), record, chunk: saved.clone() }
    };
    Batch { seq: Seq(seq), ops: documents.iter().map(op).collect() }
}

/// Records of documents whose content nobody has: enough to compare sets, and seen at once if one of them is loaded.
#[must_use]
pub(super) fn records(prefix: &str, numbers: impl IntoIterator<Item = usize>, seed: u64) -> Vec<Entry> {
    let mut rng = rng(seed);
    let record = |n: usize| {
        let mut hash = [0; 32];
        hash.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&rng.draw().to_be_bytes()));
        let heads = Heads::new(vec![ChangeHash(hash)]);
        Entry::Document { doc: name(prefix, n), record: Record::automerge(heads, 300, 1) }
    };
    numbers.into_iter().map(record).collect()
}

/// Documents of ten fields, each written by one of four authors in one change: three texts, four whole numbers, a
/// fraction, a truth value and one of a few words.
#[must_use]
pub fn fields(prefix: &str, numbers: impl IntoIterator<Item = usize>, seed: u64) -> Corpus {
    let mut rng = rng(seed);
    let documents = numbers.into_iter().map(|n| {
        let author = rng.below(4) as u8;
        make(name(prefix, n), author, |tx| {
            let kinds = ["truck", "boat", "drone", "sensor", "relay", "team"];
            let states = ["ready", "moving", "waiting", "lost"];
            tx.put(ROOT, "kind", kinds[rng.below(6) as usize])?;
            tx.put(ROOT, "callsign", format!("{}{:03}", ["alpha", "bravo", "delta"][rng.below(3) as usize], n % 1000))?;
            tx.put(ROOT, "note", ["", "needs fuel", "on the way", "radio check at noon"][rng.below(4) as usize])?;
            tx.put(ROOT, "state", states[rng.below(4) as usize])?;
            tx.put(ROOT, "lat_e5", 4_700_000 + rng.below(100_000) as i64)?;
            tx.put(ROOT, "lon_e5", 800_000 + rng.below(100_000) as i64)?;
            tx.put(ROOT, "heading", rng.below(360) as i64)?;
            tx.put(ROOT, "battery", rng.below(101) as i64)?;
            tx.put(ROOT, "speed", rng.below(400) as f64 / 10.0)?;
            tx.put(ROOT, "manned", rng.below(2) == 0)
        })
    });
    Corpus { documents: documents.collect() }
}

/// One document per aircraft of ten recorded minutes, at its last position. See the README beside the data for its licence.
#[must_use]
pub fn aircraft() -> Corpus {
    let recorded = include_bytes!("../../../peat-cli/data/adsb-10min.csv.gz");
    let mut csv = String::new();
    GzDecoder::new(recorded.as_slice()).read_to_string(&mut csv).expect("a text");
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let id = columns.iter().position(|column| *column == "icao24").expect("aircraft have ids");
    let mut last = std::collections::BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        last.insert(fields[id], fields);
    }
    let documents = last.into_iter().map(|(aircraft, fields)| {
        let doc = DocId::new(&format!("tracks:{aircraft}")).expect("a valid name");
        make(doc, 0, |tx| columns.iter().zip(&fields).try_for_each(|(column, field)| tx.put(ROOT, *column, *field)))
    });
    Corpus { documents: documents.collect() }
}

fn make(
    doc: DocId,
    author: u8,
    f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> (DocId, Automerge, bytes::Bytes) {
    let mut actor = [author; 24];
    actor[0] = 0xA0;
    let mut content = Automerge::new().with_actor(ActorId::from(actor.as_slice()));
    let written =
        content.transact_with::<_, _, AutomergeError, _>(|()| CommitOptions::default().with_time(1_700_000_000), f);
    written.expect("a document");
    let saved = content.save().into();
    (doc, content, saved)
}

pub(super) fn name(prefix: &str, n: usize) -> DocId {
    DocId::new(&format!("{prefix}:{n:07}")).expect("a valid name")
}

fn rng(seed: u64) -> Rng {
    let mut bytes = [0xC0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    Rng::new(bytes)
}
