//! Frames that are larger than any may be, and bytes that expand beyond all measure.

use std::io::Write;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use peat_proto::wire::v1::Kind;
use sha2::{Digest, Sha256};

/// Bytes of a document that no frame takes: half as much again as the 1 MiB that entries may have.
const LARGE: usize = 3 << 19;

/// Its name.
const OVERSIZED: &str = "notes:large";

/// Bytes that a deflated bomb expands to: a quarter more than admission expands.
const EXPANDED: usize = 40 << 20;

/// Bytes that a compressed frame expands to: as many as its entries may have.
pub(crate) const UNPACKED: usize = 1 << 20;

/// The code of an entry that holds a saved document.
const SAVED: u8 = 2;

/// A frame with the whole of a saved document that is larger than a frame may be.
pub(crate) fn oversized() -> Bytes {
    static FRAME: LazyLock<Bytes> = LazyLock::new(|| {
        let mut content = BytesMut::new();
        put_length(&mut content, OVERSIZED.len());
        content.put_slice(OVERSIZED.as_bytes());
        content.put_bytes(0, 1 + LARGE);
        let mut entry = BytesMut::new();
        entry.put_u8(SAVED);
        put_length(&mut entry, content.len());
        entry.put_slice(&content);
        frame(Kind::Entries, &entry)
    });
    FRAME.clone()
}

/// A saved document whose one operation column says "2^40 times the same".
pub(crate) fn run() -> Bytes {
    const CONTENTS: &[u8] = &[
        1, 1, 7, 0, // one actor, no heads
        0, // no change columns
        1, 0x42, 8, // one operation column (action), of 8 bytes
        0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 0, // a run of 2^40
    ];
    chunk(0, CONTENTS)
}

/// A saved document whose one operation column, of values, is deflated and vast.
pub(crate) fn column() -> Bytes {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let values = deflated(&[]);
        let mut contents = BytesMut::from(&[1, 1, 7, 0, 0, 1, 0x5f][..]);
        put_length(&mut contents, values.len());
        contents.put_slice(&values);
        chunk(0, &contents)
    });
    DOCUMENT.clone()
}

/// A change that is deflated, and vast behind its columns, of which there are none.
pub(crate) fn change() -> Bytes {
    const HEAD: &[u8] = &[
        0, 1, 7, // follows nothing, by one actor
        1, 1, 0, 0, // its first change, from operation 1 on, at time 0, without a message
        0, 0, // no other actors, no columns
    ];
    static CHANGE: LazyLock<Bytes> = LazyLock::new(|| chunk(2, &deflated(HEAD)));
    CHANGE.clone()
}

/// A frame of compressed entries that says how many bytes they become.
pub(crate) fn packed(says: usize) -> Bytes {
    let mut body = BytesMut::new();
    put_length(&mut body, says);
    body.put_slice(&COMPRESSED);
    frame(Kind::Packed, &body)
}

/// A few bytes and many zeros, deflated to 40 KiB.
fn deflated(head: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(head).and_then(|()| encoder.write_all(&vec![0; EXPANDED])).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

static COMPRESSED: LazyLock<Vec<u8>> =
    LazyLock::new(|| zstd::bulk::compress(&[0; UNPACKED], 3).expect("memory takes it"));

/// An Automerge chunk: of kind 0 it is a document, of kind 2 a deflated change.
fn chunk(kind: u8, contents: &[u8]) -> Bytes {
    let mut sealed = BytesMut::new();
    sealed.put_u8(kind);
    put_length(&mut sealed, contents.len());
    sealed.put_slice(contents);
    let mut chunk = BytesMut::new();
    chunk.put_slice(&[0x85, 0x6f, 0x4a, 0x83]);
    chunk.put_slice(&Sha256::digest(&sealed)[..4]);
    chunk.put_slice(&sealed);
    chunk.freeze()
}

fn frame(kind: Kind, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    put_length(&mut frame, 1 + body.len());
    frame.put_u8(kind.code());
    frame.put_slice(body);
    frame.freeze()
}

/// LEB128.
fn put_length(to: &mut BytesMut, mut len: usize) {
    while len >= 0x80 {
        to.put_u8((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    to.put_u8(len as u8);
}

#[cfg(test)]
mod tests {
    use peat_proto::admit::admit;
    use peat_proto::config::AdmitLimits;
    use peat_proto::wire::v1::{
        Assembler, Body, BodyError, Caps, Entries, Entry, Frame, FrameError, Incoming, Packer, Saved,
    };
    use peat_proto::{DocId, Refusal};

    use super::*;

    fn read(bytes: Bytes, caps: &Caps) -> Result<Frame, FrameError> {
        let mut assembler = Assembler::new();
        assembler.push(bytes);
        match assembler.next(caps)? {
            Some(Incoming::Frame(frame)) => Ok(frame),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_oversized_document_is_refused_for_its_size_alone() {
        let refused = read(oversized(), &Caps::PEER);
        assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{refused:?}");
        let frame = read(oversized(), &Caps { entries: 2 << 20, ..Caps::PEER }).expect("a frame");
        let entries: Vec<_> = Entries::decode(frame.body).expect("entries").each().collect();
        let (doc, bytes) = (DocId::new(OVERSIZED).expect("a valid name"), vec![0; LARGE].into());
        assert_eq!(entries, [Ok(Entry { doc, body: Body::Saved(Saved { answer: true, bytes }) })]);
    }

    #[test]
    fn compressed_entries_are_refused_before_and_while_they_expand() {
        let refused = |says, error| {
            let frame = read(packed(says), &Caps::PEER).expect("a frame");
            assert_eq!(Packer::new().unpack(frame.body).err(), Some(error), "says {says} bytes");
        };
        refused(UNPACKED, BodyError::TooMany);
        refused(200, BodyError::Compression);
    }

    #[test]
    fn every_bomb_is_refused_for_what_it_expands_to_and_not_for_its_layout() {
        let limits = AdmitLimits::default();
        for bomb in [run(), column(), change()] {
            assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
            assert_eq!(admit(&bomb, &limits), Err(Refusal::TooLarge));
        }
    }
}
