//! `peat/sync/1`, byte for byte.

#[allow(unreachable_pub, reason = "shared with other test binaries")]
#[path = "common/heap.rs"]
mod heap;
#[path = "common/v1.rs"]
mod v1;

use automerge::ChangeHash;
use bytes::Bytes;
use heap::{Counting, peak};
use peat_proto::reconcile::{Answer, Cell, Prefix, Share, Symbol};
use peat_proto::wire::v1::{
    Ask, Assembler, Body, BodyError, Caps, Cells, Entries, EntriesBuilder, Entry, EntryError, Form, Frame, FrameError,
    Held, Hello, Incoming, Kind, Packed, Packer, Piece, Ping, Pong, Proof, Pull, Refused, Saved, Scope, Shares,
    Subject, Summary, Terms, Total, Want, Word,
};
use peat_proto::{DocId, Heads, Rng, automerge};
use sha2::{Digest, Sha256};

#[global_allocator]
static HEAP: Counting = Counting;

/// Name and bytes of one frame, in hexadecimal digits: `name digits` a line.
const VECTORS: &str = include_str!("data/v1-vectors.txt");

fn hash(byte: u8) -> ChangeHash {
    ChangeHash([byte; 32])
}

fn heads(bytes: &[u8]) -> Heads {
    Heads::new(bytes.iter().map(|byte| hash(*byte)).collect())
}

fn symbol(byte: u8) -> Symbol {
    Symbol::from_bytes([byte; 16])
}

fn entries(bodies: Vec<Body>) -> Bytes {
    let mut builder = EntriesBuilder::new(usize::MAX);
    for (number, body) in bodies.into_iter().enumerate() {
        let doc = DocId::new(&format!("notes:{number}")).expect("a valid name");
        assert!(builder.push(&Entry { doc, body }));
    }
    builder.frame()
}

fn saved(bytes: Bytes, answer: bool) -> Body {
    Body::Saved(Saved { answer, bytes })
}

fn word(word: Word) -> Body {
    Body::Word(word)
}

/// The smallest chunk that is a change by its layout, with the checksum that it must have.
fn small_change() -> Bytes {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&Sha256::digest([1, 0])[..4]);
    chunk.extend_from_slice(&[1, 0]);
    chunk.into()
}

/// One frame of every kind, with every option in it.
fn samples() -> Vec<(&'static str, Bytes)> {
    let hello = Hello { least: 1, newest: 1, nonce: [7; 32], boot: 300, abilities: Hello::PACKED, largest: 16 << 20 };
    let total = |count, byte| Total { count, digest: [byte; 32] };
    let summary =
        Summary { generation: 1, heard: 2, shared: total(100_000, 1), seen: [2; 8], one_way: None, complete: None };
    let full = Summary { one_way: Some(total(5, 3)), complete: Some([4; 8]), ..summary.clone() };
    let scope = |byte, sends, takes| Scope { id: [byte; 8], sends, takes };
    let cell = |byte, count| Cell { sum: symbol(byte), check: 0x0102_0304, count };
    let range = |digits| Prefix::new(symbol(0x5a), digits).expect("32 at most");
    let mut shares: Box<[Share; 16]> = Box::default();
    shares[3] = Share { sum: symbol(9), count: 200 };
    let (heads, change) = (heads, Bytes::from_static(&[0x85, 0x6f, 0x4a, 0x83, 1, 2, 3, 4, 1, 0]));
    vec![
        ("hello", hello.frame()),
        ("proof_none", Proof::default().frame()),
        ("proof_formation", Proof { formation: Some([1; 32]), invitation: None }.frame()),
        ("proof_both", Proof { formation: Some([1; 32]), invitation: Some([2; 32]) }.frame()),
        (
            "terms",
            Terms {
                generation: 1,
                key: [9; 8],
                scopes: vec![scope(1, true, true), scope(2, true, false), scope(3, false, true)],
            }
            .frame(),
        ),
        ("summary_first", Summary { seen: [0; 8], ..summary.clone() }.frame()),
        ("summary", summary.frame()),
        ("summary_one_way", full.frame()),
        ("pull", Pull { subject: Subject::OneWay, epoch: 3, limit: 8192, from: 48, to: 72 }.frame()),
        (
            "cells",
            Cells { epoch: 3, symbols: 1000, from: 0, cells: vec![cell(1, 1000), cell(2, 700), cell(3, -2)] }.frame(),
        ),
        ("cells_gone", Cells { epoch: 3, symbols: 0, from: 48, cells: Vec::new() }.frame()),
        ("want", Want { symbols: vec![symbol(1), symbol(2)] }.frame()),
        ("ask", Ask { subject: Subject::Shared, ranges: vec![Prefix::ALL, range(1), range(2), range(32)] }.frame()),
        (
            "shares",
            Shares {
                subject: Subject::Shared,
                answers: vec![
                    (Prefix::ALL, Answer::Shares(shares)),
                    (range(3), Answer::Symbols(vec![symbol(1), symbol(2)])),
                    (range(4), Answer::Symbols(Vec::new())),
                ],
            }
            .frame(),
        ),
        ("word_heads", entries(vec![word(Word { heads: heads(&[1, 2]), ..Word::default() })])),
        ("word_nothing", entries(vec![word(Word { asks: true, ..Word::default() })])),
        (
            "word_question",
            entries(vec![word(Word {
                heads: heads(&[1]),
                asks: true,
                need: heads(&[2, 3]),
                samples: vec![hash(9), hash(4)],
                changes: Vec::new(),
            })]),
        ),
        (
            "word_changes",
            entries(vec![word(Word {
                heads: heads(&[1]),
                changes: vec![change.clone(), change.clone()],
                ..Word::default()
            })]),
        ),
        (
            "word_last",
            entries(vec![word(Word {
                heads: Heads::new(vec![ChangeHash(Sha256::digest([1, 0]).into())]),
                asks: true,
                need: heads(&[2]),
                changes: vec![change.clone(), small_change()],
                ..Word::default()
            })]),
        ),
        ("saved", entries(vec![saved(change.clone(), true), saved(change.clone(), false)])),
        ("marker", entries(vec![Body::Marker(Bytes::from_static(b"marker"))])),
        ("refused", entries(vec![Body::Refused(Refused { reason: 2, heads: heads(&[1]) })])),
        (
            "piece",
            entries(vec![Body::Piece(Piece {
                id: [5; 16],
                form: Form::Changes,
                whole: 70_000,
                offset: 300,
                bytes: change,
            })]),
        ),
        ("held", entries(vec![Body::Held(Held { id: [5; 16], bytes: 300 })])),
        (
            "several",
            entries(vec![
                word(Word::default()),
                saved(Bytes::from_static(b"x"), true),
                word(Word { asks: true, ..Word::default() }),
            ]),
        ),
        ("ping", Ping { number: 300 }.frame()),
        ("pong", Pong { number: 300 }.frame()),
    ]
}

fn frame(bytes: &Bytes) -> Frame {
    let mut assembler = Assembler::new();
    assembler.push(bytes.clone());
    match assembler.next(&Caps::PEER) {
        Ok(Some(Incoming::Frame(frame))) => {
            assembler.finish().expect("one whole frame");
            frame
        }
        other => panic!("no frame but {other:?}"),
    }
}

#[test]
fn golden_vectors_are_written_as_they_stand_and_read_back() {
    let lines: Vec<String> = samples().iter().map(|(name, bytes)| format!("{name} {}", hex::encode(bytes))).collect();
    let golden: Vec<&str> = VECTORS.lines().collect();
    assert!(lines == golden, "these bytes are on the wire now:\n{}", lines.join("\n"));
    for line in golden {
        let (name, digits) = line.split_once(' ').expect("name and digits");
        let bytes = Bytes::from(hex::decode(digits).expect("hexadecimal digits"));
        let Frame { kind, body } = frame(&bytes);
        let read = v1::read(kind, body).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(v1::written(&read), Some(bytes), "{name}");
    }
    let kinds: Vec<Kind> = samples().iter().map(|(_, bytes)| frame(bytes).kind).collect();
    assert!(Kind::ALL.iter().all(|kind| *kind == Kind::Packed || kinds.contains(kind)), "every kind has a vector");
}

/// Zstandard may compress otherwise in a later version; what it wrote once must be read for ever.
#[test]
fn a_packed_vector_is_read_for_ever() {
    let golden = VECTORS_PACKED.trim();
    let bytes = Bytes::from(hex::decode(golden).expect("hexadecimal digits"));
    let Frame { kind, body } = frame(&bytes);
    assert_eq!(kind, Kind::Packed);
    let entries = Packer::new().unpack(body).expect("packed entries");
    assert_eq!(entries.each().collect::<Result<Vec<_>, _>>().map(|entries| entries.len()), Ok(20));
}

const VECTORS_PACKED: &str = include_str!("data/v1-packed.txt");

fn twenty() -> EntriesBuilder {
    let mut builder = EntriesBuilder::new(usize::MAX);
    for number in 0..20 {
        let doc = DocId::new(&format!("notes:{number}")).expect("a valid name");
        let body = saved(Bytes::from(format!("a document with the number {number}")), false);
        assert!(builder.push(&Entry { doc, body }));
    }
    builder
}

#[test]
fn packed_entries_come_back_as_they_were() {
    let plain = twenty();
    let mut packer = Packer::new();
    let packed = packer.pack(plain.body()).expect("it is smaller");
    println!("{}", hex::encode(&packed));
    assert!(packed.len() < plain.frame().len() / 2);
    let Frame { kind, body } = frame(&packed);
    assert_eq!(kind, Kind::Packed);
    let entries = packer.unpack(body).expect("packed entries");
    assert_eq!(
        v1::read(Kind::Entries, Bytes::copy_from_slice(plain.body())).map(|read| match read {
            v1::Read::Entries(entries) => entries,
            _ => Vec::new(),
        }),
        Ok(entries.each().collect())
    );
    assert_eq!(packer.pack(b"too short to gain"), None);
    assert_eq!(packer.pack(&vec![0; Packed::MAX_RAW + 1]), None);
    let mut rng = Rng::new([1; 32]);
    let noise: Vec<u8> = (0..1000).map(|_| rng.draw() as u8).collect();
    assert_eq!(packer.pack(&noise), None, "noise does not get smaller");
}

#[test]
fn a_compressed_bomb_is_refused_before_it_is_expanded() {
    let mut packer = Packer::new();
    assert_eq!(packer.pack(&vec![0; 1 << 20]), None, "we send none");
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).expect("memory");
    // What it is, what it may be, and lies about it.
    for announced in [1 << 20, 64 << 10, 1, 0, u64::MAX] {
        let mut body = Vec::new();
        let mut rest: u64 = announced;
        while rest >= 0x80 {
            body.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        body.push(rest as u8);
        body.extend_from_slice(&bomb);
        let body = Bytes::from(body);
        let (outcome, held) = peak(|| packer.unpack(body.clone()));
        assert!(outcome.is_err(), "{announced} announced");
        assert!(held <= (64 << 10) + 33 * body.len(), "{held} bytes held for {announced} announced");
    }
}

/// Reads whatever the stream brings; returns how many frames were sound. Bounded memory is asserted.
fn sound(bytes: &[u8]) -> usize {
    let input = Bytes::copy_from_slice(bytes);
    let (count, held) = peak(|| {
        let mut assembler = Assembler::new();
        assembler.push(input.clone());
        let mut count = 0;
        while let Ok(Some(incoming)) = assembler.next(&Caps::PEER) {
            if let Incoming::Frame(Frame { kind, body }) = incoming
                && let Ok(read) = v1::read(kind, body)
            {
                count += 1;
                drop(read);
            }
        }
        count
    });
    assert!(held <= 4 * bytes.len() + (64 << 10), "{held} bytes held for {} received", bytes.len());
    count
}

#[test]
fn every_vector_cut_anywhere_is_no_frame_and_flipped_anywhere_does_no_harm() {
    for (name, bytes) in samples() {
        for cut in 0..bytes.len() {
            assert_eq!(sound(&bytes[..cut]), 0, "{name} cut at {cut}");
            let mut assembler = Assembler::new();
            assembler.push(bytes.slice(..cut));
            assert_eq!(assembler.next(&Caps::PEER), Ok(None));
            let truncated = Err(FrameError::Truncated { received: cut as u64 });
            assert_eq!(assembler.finish(), if cut == 0 { Ok(()) } else { truncated });
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                sound(&flipped);
            }
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_refused_or_shorter_in_elements() {
    for (name, bytes) in samples() {
        let Frame { kind, body } = frame(&bytes);
        let whole = v1::read(kind, body.clone()).expect("a sample");
        for cut in 0..body.len() {
            match v1::read(kind, body.slice(..cut)) {
                Err(_) => {}
                Ok(read) => {
                    assert_ne!(read, whole, "{name} cut at {cut}");
                    let open = matches!(
                        kind,
                        Kind::Proof | Kind::Cells | Kind::Want | Kind::Ask | Kind::Shares | Kind::Entries
                    );
                    assert!(open, "{name} cut at {cut} reads as {read:?}");
                }
            }
        }
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_without_memory() {
    let mut rng = Rng::new([4; 32]);
    for kind in Kind::ALL {
        for _ in 0..2000 {
            let mut body: Vec<u8> = (0..rng.below(40)).map(|_| rng.draw() as u8).collect();
            // Large counts and lengths, somewhere.
            let at = rng.below(body.len() as u64 + 1) as usize;
            body.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f]);
            let frame = [&[body.len() as u8 + 1, kind.code()][..], &body].concat();
            sound(&frame);
        }
    }
}

/// DELTA: a one-field edit costs at most 1.5 times its raw change and 40 bytes, in one frame.
#[test]
#[allow(clippy::disallowed_methods, reason = "the actor is given")]
fn a_one_field_edit_costs_little_more_than_its_change() {
    use automerge::transaction::Transactable;
    use automerge::{ActorId, Automerge, ROOT};
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    let mut edit = doc.transaction();
    for field in 0..10 {
        edit.put(ROOT, format!("field_{field}"), field).expect("a valid edit");
    }
    edit.commit();
    let before = doc.get_heads();
    let mut edit = doc.transaction();
    edit.put(ROOT, "field_3", "a new value").expect("a valid edit");
    edit.commit();
    let changes = doc.get_changes(&before);
    let [change] = changes.as_slice() else { panic!("one change") };
    let raw = change.raw_bytes();
    let body = word(Word {
        heads: Heads::new(doc.get_heads()),
        changes: vec![Bytes::copy_from_slice(raw)],
        ..Word::default()
    });
    let mut builder = EntriesBuilder::new(64 << 10);
    let doc = DocId::new("contacts:0123456789").expect("a valid name");
    assert!(builder.push(&Entry { doc, body }));
    let frame = builder.frame().len();
    println!("raw change {} B, frame {frame} B", raw.len());
    assert!(2 * frame <= 3 * raw.len() + 80, "{frame} bytes for a change of {}", raw.len());
}

/// What a Word says of heads that its last change tells, and what it says otherwise.
#[test]
#[allow(clippy::disallowed_methods, reason = "the actor is given")]
fn the_only_head_is_left_out_where_the_last_change_tells_it() {
    use automerge::transaction::Transactable;
    use automerge::{ActorId, Automerge, ROOT, ReadDoc};
    let mut doc = Automerge::new().with_actor(ActorId::from([1; 16]));
    let edit = |doc: &mut Automerge, value: &str| {
        doc.transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "field", value)).expect("a valid edit");
        let head = doc.get_heads()[0];
        (head, Bytes::copy_from_slice(doc.get_change_by_hash(&head).expect("its head").raw_bytes()))
    };
    let changes = [edit(&mut doc, "one"), edit(&mut doc, "two"), edit(&mut doc, &"long".repeat(1024))];
    let [(first, one), (second, two), (third, large)] = changes;
    let said = |heads: &[ChangeHash], changes: &[&Bytes]| {
        let changes = changes.iter().copied().cloned().collect();
        Word { heads: Heads::new(heads.to_vec()), changes, ..Word::default() }
    };
    let named = |said: &Word| {
        let frame = entries(vec![word(said.clone())]);
        let Frame { body, .. } = self::frame(&frame);
        let read = Entries::decode(body).expect("entries").each().collect::<Result<Vec<_>, _>>().expect("a word");
        assert_eq!(read[0].body, word(said.clone()), "it comes back as it was");
        said.heads.as_slice().iter().all(|head| frame.windows(32).any(|window| window == head.0))
    };
    assert!(!named(&said(&[first], &[&one])) && !named(&said(&[second], &[&one, &two])), "the change tells it");
    assert!(named(&said(&[first], &[&one, &two])) && named(&said(&[first], &[&two])), "it tells another one");
    assert!(named(&said(&[first, second], &[&one, &two])) && named(&said(&[second], &[])), "not alone, or not there");
    assert!(named(&said(&[third], &[&two, &large])), "what is long is not hashed");

    let refused = |change: &[u8], flags: u8, heads: &[u8]| {
        let content = [&[7][..], b"notes:0", &[flags], heads, &[change.len() as u8], change].concat();
        let mut body = vec![1];
        match u8::try_from(content.len()).expect("a small entry") {
            len @ ..128 => body.push(len),
            len => body.extend([len, 1]),
        }
        body.extend(content);
        Entries::decode(body.into()).expect("one entry").each().next().expect("one entry").err()
    };
    assert_eq!(refused(&two, 24, &[]), None);
    let mut wrong = two.to_vec();
    wrong[4] ^= 1;
    assert_eq!(refused(&wrong, 24, &[]), Some(EntryError::Body(BodyError::Head)), "its checksum does not fit");
    assert_eq!(refused(&[&two[..], &[0]].concat(), 24, &[]), Some(EntryError::Body(BodyError::Head)), "more than one");
    let spelt = [&[1], &second.0[..]].concat();
    assert_eq!(refused(&two, 8, &spelt), Some(EntryError::Body(BodyError::Undefined)), "a word has one form");
}
