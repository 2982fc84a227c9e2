//! What fielded peers need for the same: `automerge::sync` one document at a time, in frames of the old wire, and
//! negentropy over the names of all documents.

use automerge_0_7::sync::{Message, State, SyncDoc};
use automerge_0_7::transaction::Transactable;
use automerge_0_7::{AutoCommit, ROOT};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use peat_proto::DocId;
use peat_proto::wire::v0::{Label, Payload, encode_frame};
use sha2::{Digest, Sha256};

use super::corpus::Corpus;

/// What crossed, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crossed {
    /// With the frames around it.
    pub bytes: u64,
    /// Messages.
    pub frames: u64,
}

impl Crossed {
    fn count(&mut self, doc: &DocId, message: &Message) {
        let message = message.clone().encode();
        let payload = Payload::new(&message).expect("a short message");
        self.bytes += encode_frame(Label::Delta(doc), payload).len() as u64;
        self.frames += 1;
    }
}

/// A one-field edit of the first document, to a peer that was level; and the bytes of its change alone.
#[must_use]
pub fn edit_of_fielded(corpus: &Corpus) -> (Crossed, u64) {
    let (doc, _, saved) = &corpus.documents[0];
    let (mut a, mut b) = (load(saved), load(saved));
    let mut states = (State::new(), State::new());
    talk(doc, &mut a, &mut b, &mut states);
    a.put(ROOT, "speed", 12.5).expect("a field");
    let change = a.get_last_local_change().expect("a change").raw_bytes().len() as u64;
    (talk(doc, &mut a, &mut b, &mut states), change)
}

/// All of a corpus, to a peer that has none of it (`empty`) or all of it.
#[must_use]
pub fn exchange_of_fielded(corpus: &Corpus, empty: bool) -> Crossed {
    let mut all = Crossed::default();
    for (doc, _, saved) in &corpus.documents {
        let mut theirs = if empty { AutoCommit::new() } else { load(saved) };
        let crossed = talk(doc, &mut load(saved), &mut theirs, &mut (State::new(), State::new()));
        all = Crossed { bytes: all.bytes + crossed.bytes, frames: all.frames + crossed.frames };
    }
    all
}

/// The reconciliation of two equal sets of so many names. It says nothing of what the documents hold.
#[must_use]
pub fn reconciliation_of_fielded(count: usize) -> Crossed {
    let side = || {
        let mut storage = NegentropyStorageVector::new();
        for n in 0..count {
            let id: [u8; 32] = Sha256::digest(format!("units:{n:07}").as_bytes()).into();
            storage.insert(0, Id::from_byte_array(id)).expect("room");
        }
        storage.seal().expect("not sealed yet");
        Negentropy::owned(storage, 0).expect("no limit is a limit")
    };
    let (mut a, mut b) = (side(), side());
    let mut crossed = Crossed::default();
    let mut message = Some(a.initiate().expect("not begun yet"));
    while let Some(asked) = message {
        let answer = b.reconcile(&asked).expect("a message");
        crossed = Crossed { bytes: crossed.bytes + (asked.len() + answer.len()) as u64, frames: crossed.frames + 2 };
        message = a.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new()).expect("a message");
    }
    crossed
}

fn load(saved: &[u8]) -> AutoCommit {
    AutoCommit::load(saved).expect("a document that a later version saved")
}

fn talk(doc: &DocId, a: &mut AutoCommit, b: &mut AutoCommit, states: &mut (State, State)) -> Crossed {
    let mut crossed = Crossed::default();
    loop {
        let there = a.sync().generate_sync_message(&mut states.0);
        if let Some(message) = &there {
            crossed.count(doc, message);
            b.sync().receive_sync_message(&mut states.1, message.clone()).expect("a message");
        }
        let back = b.sync().generate_sync_message(&mut states.1);
        if let Some(message) = &back {
            crossed.count(doc, message);
            a.sync().receive_sync_message(&mut states.0, message.clone()).expect("a message");
        }
        if there.is_none() && back.is_none() {
            return crossed;
        }
    }
}
