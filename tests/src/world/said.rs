//! What frames say of documents, on either wire.

use std::collections::BTreeMap;

use automerge::ChangeHash;
use bytes::Bytes;
use peat_proto::DocId;
use peat_proto::wire::v1::{self, Kind, Packer, Piece};
use peat_proto::wire::{Assembler, Body, Caps, Delta, Entry, Frame, Incoming, MessageType};

use crate::legacy;

/// What a frame says of one document.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) doc: DocId,
    pub(crate) state: State,
    /// Changes that it names.
    pub(crate) named: Vec<ChangeHash>,
    /// Runs of Automerge chunks that it carries.
    pub(crate) carried: Vec<Bytes>,
    /// A part of what is too large for one frame.
    pub(crate) piece: Option<Piece>,
    /// Bytes that will be taken in at once: of what it carries, or of the whole that it carries a piece of.
    pub(crate) size: usize,
}

/// How a document is, by what a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Alive,
    Deleted,
    /// It answers something that the other side said.
    Unsaid,
}

/// Reads what a node handed to its transport on the legacy wire; an error if that is not exactly one frame within the caps.
pub(crate) fn on_v0(bytes: &Bytes, caps: &Caps) -> Result<Vec<Said>, String> {
    let mut assembler = Assembler::new();
    assembler.push(bytes.clone());
    let frame = match assembler.next(caps) {
        Ok(Some(Incoming::Frame(frame))) if !assembler.is_mid_frame() => frame,
        Ok(other) => return Err(format!("not one whole frame but {other:?}")),
        Err(error) => return Err(format!("a frame that no peer would read: {error}")),
    };
    match frame.kind {
        MessageType::Tombstone => Ok(vec![deleted(&legacy::Tombstone::decode(&frame.payload).map_err(bad)?)?]),
        MessageType::Tombstones => legacy::decode_all(&frame.payload).map_err(bad)?.iter().map(deleted).collect(),
        _ => documents(&frame),
    }
}

fn bad(bad: legacy::Bad) -> String {
    format!("a tombstone that no fielded peer would read: {bad}")
}

fn deleted(tombstone: &legacy::Tombstone) -> Result<Said, String> {
    let doc = DocId::new(&format!("{}:{}", tombstone.collection, tombstone.id));
    let doc = doc.map_err(|error| format!("a tombstone for no document: {error}"))?;
    Ok(Said { state: State::Deleted, ..Said::new(doc, Vec::new(), Vec::new()) })
}

fn said_on_v0(doc: DocId, body: Body) -> Result<Said, String> {
    match body {
        Body::Delta(payload) => {
            let delta = Delta::decode(payload).map_err(|error| format!("a delta for {doc}: {error}"))?;
            let samples = delta.have.iter().flat_map(|have| &have.last_sync);
            let named = delta.heads.iter().chain(&delta.need).chain(samples).copied().collect();
            Ok(Said::new(doc, named, delta.changes))
        }
        Body::Snapshot(payload) => Ok(Said::new(doc, Vec::new(), vec![payload])),
    }
}

fn documents(frame: &Frame) -> Result<Vec<Said>, String> {
    let doc = || frame.doc().map_err(|error| format!("a frame for no document: {error}"));
    match frame.kind {
        MessageType::Delta => Ok(vec![said_on_v0(doc()?, Body::Delta(frame.payload.clone()))?]),
        MessageType::Snapshot => Ok(vec![said_on_v0(doc()?, Body::Snapshot(frame.payload.clone()))?]),
        MessageType::Batch => {
            let batch = peat_proto::wire::Batch::decode(frame.payload.clone()).map_err(|error| error.to_string())?;
            let entries = batch.entries().map(|entry| match entry {
                Ok(Entry::Document { doc, body }) => said_on_v0(doc, body),
                // One that is passed on for a batch.
                Ok(Entry::Tombstone(tombstone)) => {
                    let doc = tombstone.doc().map_err(|error| format!("a tombstone for no document: {error}"))?;
                    Ok(Said { state: State::Deleted, ..Said::new(doc, Vec::new(), Vec::new()) })
                }
                Err(error) => Err(error.to_string()),
            });
            entries.collect()
        }
        _ => Ok(Vec::new()),
    }
}

/// Reads what a node handed to its transport on our own wire; an error if that is not exactly one frame that a peer reads.
pub(crate) fn on_v1(bytes: &Bytes) -> Result<(Kind, Vec<Said>), String> {
    let mut assembler = v1::Assembler::new();
    assembler.push(bytes.clone());
    let v1::Frame { kind, body } = match assembler.next(&v1::Caps::PEER) {
        Ok(Some(v1::Incoming::Frame(frame))) if !assembler.is_mid_frame() => frame,
        Ok(other) => return Err(format!("not one whole frame but {other:?}")),
        Err(error) => return Err(format!("a frame that no peer would read: {error}")),
    };
    let wrong = |error: v1::BodyError| format!("a {kind:?} that no peer would read: {error}");
    let entries = match kind {
        Kind::Entries => v1::Entries::decode(body).map_err(wrong)?,
        Kind::Packed => Packer::new().unpack(body).map_err(wrong)?,
        _ => return Ok((kind, Vec::new())),
    };
    let said = entries.each().map(|entry| entry.map(said_on_v1).map_err(|error| error.to_string()));
    Ok((kind, said.collect::<Result<_, _>>()?))
}

fn said_on_v1(v1::Entry { doc, body }: v1::Entry) -> Said {
    let state = match body {
        v1::Body::Word(_) | v1::Body::Saved(_) | v1::Body::Piece(_) => State::Alive,
        v1::Body::Marker(_) => State::Deleted,
        v1::Body::Refused(_) | v1::Body::Held(_) => State::Unsaid,
    };
    let piece = if let v1::Body::Piece(piece) = &body { Some(piece.clone()) } else { None };
    let whole = piece.as_ref().map_or(0, |piece| piece.whole);
    let (named, carried) = match body {
        v1::Body::Word(word) => {
            let named = word.heads.as_slice().iter().chain(word.need.as_slice()).chain(&word.samples);
            (named.copied().collect(), word.changes)
        }
        v1::Body::Saved(saved) => (Vec::new(), vec![saved.bytes]),
        v1::Body::Refused(refused) => (refused.heads.as_slice().to_vec(), Vec::new()),
        v1::Body::Marker(_) | v1::Body::Piece(_) | v1::Body::Held(_) => (Vec::new(), Vec::new()),
    };
    let said = Said::new(doc, named, carried);
    Said { state, piece, size: said.size.max(usize::try_from(whole).unwrap_or(usize::MAX)), ..said }
}

impl Said {
    fn new(doc: DocId, named: Vec<ChangeHash>, carried: Vec<Bytes>) -> Self {
        let size = carried.iter().map(Bytes::len).sum();
        Self { doc, state: State::Alive, named, carried, piece: None, size }
    }
}

/// What members have sent each other of wholes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Wholes(BTreeMap<(usize, usize, DocId), Whole>);

#[derive(Debug)]
struct Whole {
    id: [u8; 16],
    parts: BTreeMap<u64, Bytes>,
}

impl Wholes {
    /// Takes note of a piece; the whole once all of it was sent, in whatever order and over however many connections. A
    /// piece of another whole takes the place of what there was.
    pub(crate) fn complete(&mut self, from: usize, to: usize, doc: &DocId, piece: &Piece) -> Option<Bytes> {
        let new = || Whole { id: piece.id, parts: BTreeMap::new() };
        let whole = self.0.entry((from, to, doc.clone())).or_insert_with(new);
        if whole.id != piece.id {
            *whole = new();
        }
        whole.parts.insert(piece.offset, piece.bytes.clone());
        let mut bytes = Vec::new();
        for (offset, part) in &whole.parts {
            let known = bytes.len().checked_sub(usize::try_from(*offset).ok()?)?;
            bytes.extend_from_slice(part.get(known..).unwrap_or_default());
        }
        (bytes.len() as u64 == piece.whole).then(|| bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use peat_proto::wire::v1::Form;

    use super::*;

    #[test]
    fn a_whole_is_known_when_all_its_pieces_were_sent() {
        let (doc, mut wholes) = (DocId::new("a:1").expect("valid"), Wholes::default());
        let piece = |id, offset, bytes: &'static [u8]| Piece {
            id: [id; 16],
            form: Form::Saved,
            whole: 6,
            offset,
            bytes: bytes.into(),
        };
        assert_eq!(wholes.complete(0, 1, &doc, &piece(1, 4, b"ef")), None);
        assert_eq!(wholes.complete(0, 1, &doc, &piece(1, 0, b"abc")), None);
        assert_eq!(wholes.complete(0, 2, &doc, &piece(1, 3, b"def")), None, "another peer");
        assert_eq!(wholes.complete(0, 1, &doc, &piece(1, 2, b"cd")), Some(b"abcdef"[..].into()));
        assert_eq!(wholes.complete(0, 1, &doc, &piece(2, 2, b"cd")), None, "another whole");
    }
}
