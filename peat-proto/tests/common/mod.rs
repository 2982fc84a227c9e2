//! The golden vectors, and what this implementation makes of them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::disallowed_methods, reason = "documents are loaded as Automerge does, whatever the actor")]

pub mod heap;

use automerge::Automerge;
use automerge::transaction::Transactable;
use bytes::Bytes;
use peat_proto::admit::admit;
use peat_proto::config::AdmitLimits;
use peat_proto::wire::v0::negentropy::{self, ItemId, Responder};
use peat_proto::wire::v0::{
    Assembler, Batch, Body, Caps, Delta, Entry, Frame, FrameError, Incoming, Label, MessageType, Payload, Tombstone,
    TombstoneBatch, encode_frame,
};
use peat_proto::{Config, DocId};
use serde_json::Value;

/// One golden vector.
#[derive(Debug, Clone)]
pub struct Vector(Value);

impl Vector {
    pub fn all() -> Vec<Self> {
        let json = include_str!("../data/vectors.json");
        let Ok(Value::Array(vectors)) = serde_json::from_str(json) else {
            panic!("vectors.json is an array");
        };
        assert_eq!(vectors.len(), 250);
        vectors.into_iter().map(Self).collect()
    }

    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    pub fn number(&self, field: &str) -> Option<u64> {
        self.0[field].as_u64()
    }

    pub fn list(&self, field: &str) -> Vec<Self> {
        let list = self.0[field].as_array().cloned().unwrap_or_default();
        list.into_iter().map(Self).collect()
    }

    pub fn object(&self, field: &str) -> Self {
        Self(self.0[field].clone())
    }

    pub fn name(&self) -> &str {
        self.text("name")
    }

    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    pub fn is(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or_default()
    }

    pub fn has(&self, field: &str) -> bool {
        !self.0[field].is_null()
    }

    pub fn hex(&self, field: &str) -> Bytes {
        hex::decode(self.text(field)).expect("vectors hold hexadecimal digits").into()
    }

    /// The bytes of the vector, built where the file leaves them out.
    pub fn bytes(&self) -> Bytes {
        if self.is("hex_truncated") {
            let doc = DocId::new("docs:bomb").expect("a valid name");
            let payload = deflate_bomb();
            let payload = Payload::new(&payload).expect("a short payload");
            return encode_frame(Label::Snapshot(&doc), payload);
        }
        let bytes = self.hex("hex");
        assert_eq!(Some(bytes.len() as u64), self.number("len"));
        bytes
    }

    /// The verdict of a correct implementation.
    pub fn expect(&self) -> &str {
        match self.text("expect") {
            "" => "accept",
            expect => expect,
        }
    }
}

/// A saved document of about 97 kB with one string of 10^8 letters.
pub fn deflate_bomb() -> Vec<u8> {
    let mut doc = Automerge::new();
    let mut edit = doc.transaction();
    edit.put(automerge::ROOT, "bomb", "a".repeat(100_000_000)).expect("a put to the root");
    edit.commit();
    doc.save()
}

pub fn caps() -> Caps {
    Caps::v0(&Config::default())
}

/// Everything on one stream, and how it ended: `None` while it is open.
pub fn assemble(bytes: Bytes, fin: bool) -> (Vec<Incoming>, Option<Result<(), FrameError>>) {
    let mut assembler = Assembler::new();
    assembler.push(bytes);
    let mut incoming = Vec::new();
    loop {
        match assembler.next(&caps()) {
            Ok(Some(next)) => incoming.push(next),
            Err(error) => return (incoming, Some(Err(error))),
            Ok(None) if fin => return (incoming, Some(assembler.finish())),
            Ok(None) if assembler.is_mid_frame() => return (incoming, None),
            Ok(None) => return (incoming, Some(Ok(()))),
        }
    }
}

/// The verdict on a stream of frames.
pub fn judge_stream(bytes: Bytes, fin: bool) -> &'static str {
    let (incoming, end) = assemble(bytes, fin);
    let frames: Vec<_> = incoming.iter().map(judge_incoming).collect();
    match (frames.as_slice(), end) {
        ([], Some(Ok(()))) => "ignore",
        ([], None) => "reject_deadline",
        ([], Some(Err(_))) => "reject",
        (["accept", ..], Some(Err(_))) => "accept_first",
        (frames, Some(Ok(()))) => frames.iter().find(|verdict| **verdict != "accept").unwrap_or(&"accept"),
        (frames, end) => panic!("{frames:?}, then {end:?}"),
    }
}

fn judge_incoming(incoming: &Incoming) -> &'static str {
    match incoming {
        Incoming::Skipped { .. } => "skip_frame",
        Incoming::Frame(frame) => judge_frame(frame),
    }
}

fn judge_frame(frame: &Frame) -> &'static str {
    let payload = frame.payload.clone();
    let body = match frame.kind {
        MessageType::Delta => Body::Delta(payload),
        MessageType::Snapshot => Body::Snapshot(payload),
        MessageType::Batch => return judge_batch(payload),
        MessageType::Tombstone => return judge_tombstone(payload),
        MessageType::Tombstones => return judge_tombstones(payload),
        MessageType::NegentropyInit => return judge_negentropy(payload),
        // Only behind a first message on its stream.
        MessageType::NegentropyResponse => return "skip_frame",
    };
    match frame.doc() {
        Ok(doc) => judge_entry(&Entry::Document { doc, body }),
        Err(_) => "reject",
    }
}

/// The verdict on the payload of a batch.
pub fn judge_batch(payload: Bytes) -> &'static str {
    let Ok(batch) = Batch::decode(payload) else {
        return "reject";
    };
    let usable = |entry: Result<Entry, _>| entry.is_ok_and(|entry| judge_entry(&entry) == "accept");
    if !batch.entries().all(usable) {
        return "skip_entry";
    }
    if batch.trailing > 0 {
        return "accept_trailing";
    }
    "accept"
}

/// The verdict on a tombstone.
pub fn judge_tombstone(mut payload: Bytes) -> &'static str {
    match Tombstone::take(&mut payload) {
        Ok(_) if !payload.is_empty() => "accept_trailing",
        Ok(_) => "accept",
        Err(_) => "reject",
    }
}

/// The verdict on a batch of tombstones.
pub fn judge_tombstones(payload: Bytes) -> &'static str {
    match TombstoneBatch::decode(payload) {
        Ok(batch) if batch.elements().any(|element| element.is_err()) => "skip_entry",
        Ok(batch) if batch.trailing > 0 => "accept_trailing",
        Ok(_) => "accept",
        Err(_) => "reject",
    }
}

/// The verdict on a first message of negentropy.
pub fn judge_negentropy(message: Bytes) -> &'static str {
    match answer(message, []) {
        Ok(_) => "accept",
        Err(_) => "reject",
    }
}

/// What a node with these items says to a first message.
pub fn answer<const N: usize>(message: Bytes, items: [ItemId; N]) -> Result<Bytes, negentropy::NegentropyError> {
    let date = negentropy::date_of(message.clone())?.unwrap_or_default();
    Responder::new(items.map(|id| (date, id))).answer(message)
}

/// The verdict on what is meant for one document.
fn judge_entry(entry: &Entry) -> &'static str {
    match entry {
        Entry::Document { body: Body::Delta(payload), .. } => judge_delta(payload.clone()),
        Entry::Document { body: Body::Snapshot(payload), .. } => judge_document(payload),
        Entry::Tombstone(_) => "accept",
    }
}

/// The verdict on the payload of a delta.
pub fn judge_delta(payload: Bytes) -> &'static str {
    match Delta::decode(payload) {
        Ok(delta) if delta.changes.iter().all(|chunks| is_admitted(chunks)) => "accept",
        _ => "reject",
    }
}

/// The verdict on a saved document.
pub fn judge_document(bytes: &[u8]) -> &'static str {
    if is_admitted(bytes) && Automerge::load(bytes).is_ok() {
        return "accept";
    }
    "reject"
}

pub fn is_admitted(bytes: &[u8]) -> bool {
    admit(bytes, &AdmitLimits::default()).is_ok()
}
