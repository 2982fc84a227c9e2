//! Writes the inputs from which fuzzing starts into `corpus/`: the golden vectors, and samples of what has none.
//! Run it in `fuzz/`: `cargo run --example seed`.

use std::fs;
use std::io;
use std::path::Path;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Automerge, ChangeHash, ObjType, ROOT, ReadDoc, ScalarValue};
use peat_node::Ticket;
use peat_proto::reconcile::{Frozen, Item, Ranges, SetKey, State, SymbolSet, answer};
use peat_proto::store::Record;
use peat_proto::wire::Delta;
use peat_proto::wire::v1::{Cells, Shares, Subject};
use peat_proto::{DocId, Heads, Invitation, PeerId, Rng};
use serde_json::Value;

/// Longer vectors teach nothing that a short one does not.
const LONGEST: usize = 4096;

fn main() -> io::Result<()> {
    vectors()?;
    handshakes()?;
    questions()?;
    v1()?;
    compared()?;
    records()?;
    tickets()?;
    worlds()?;
    documents()
}

fn write(law: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(law);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), input)
}

fn vectors() -> io::Result<()> {
    let json = include_str!("../../peat-proto/tests/data/vectors.json");
    let vectors: Vec<Value> = serde_json::from_str(json).expect("the vectors are an array");
    for vector in &vectors {
        let text = |field: &str| vector[field].as_str().unwrap_or_default();
        let bytes = hex::decode(text("hex")).expect("hexadecimal digits");
        if bytes.is_empty() || bytes.len() > LONGEST {
            continue;
        }
        let name = text("name");
        match text("kind") {
            "stream_frame" | "channel_stream" => {
                write("frames", name, &[&[1, 0][..], &bytes].concat())?;
                write("frames", &format!("{name}_in_pieces"), &[&[0, 3, 1, 2, 9][..], &bytes].concat())?;
            }
            "sync_batch" => write("batch", name, &bytes)?,
            "sync_entry" => {
                let header = [&[0; 17][..], &1_u32.to_be_bytes()].concat();
                write("batch", name, &[&header[..], &bytes].concat())?;
            }
            "automerge_message" => {
                write("delta", name, &bytes)?;
                let chunks = Delta::decode(bytes.into()).map(|delta| delta.changes.concat()).unwrap_or_default();
                write("admit", name, &chunks)?;
            }
            "automerge_doc" => write("admit", name, &bytes)?,
            "tombstone" => write("tombstone", name, &bytes)?,
            "tombstone_batch" => write("tombstones", name, &bytes)?,
            "negentropy_message" => {
                let len = u16::try_from(bytes.len()).expect("a short message").to_be_bytes();
                let message = [&len[..], &bytes].concat();
                write("negentropy", name, &[&[0, 40][..], &message].concat())?;
                write("negentropy", &format!("{name}_again"), &[&[4, 0][..], &message, &message].concat())?;
            }
            // Of one fixed length.
            "heartbeat" => {}
            kind => panic!("no law takes {kind}"),
        }
    }
    Ok(())
}

/// Messages without an answer: another protocol, and one cut short.
fn questions() -> io::Result<()> {
    write("negentropy", "garbage", &[0, 40, 0, 2, 0xff, 0])?;
    write("negentropy", "cut", &[0, 40, 0, 4, 0x61, 0, 0, 1])
}

/// Whole conversations, and such as take a wrong turn at each step.
fn handshakes() -> io::Result<()> {
    for law in ["auth_m", "auth_p"] {
        for role in [0, 1] {
            write(law, &format!("member_{role}"), &[role, 254, 254])?;
            write(law, &format!("late_{role}"), &[role, 254, 253])?;
            write(law, &format!("silent_{role}"), &[role, 253])?;
            write(law, &format!("stranger_{role}"), &[&[role, 254, 32][..], &[9; 32]].concat())?;
            write(law, &format!("cut_{role}"), &[role, 254, 255])?;
        }
        // The worked example, piece by piece.
        let id = [&[5, 0][..], b"alpha"].concat();
        let answer = hex::decode("aa141ee969be027f5e2d6079b37b21b11776def1dfb77333966b5f4e72531fed");
        let answer = answer.expect("hexadecimal digits");
        let challenge = [&id[..], &(0..32).collect::<Vec<u8>>()].concat();
        write(law, "accepted_p", &[&[0, 3][..], &id[..3], &[4], &id[3..], &[32], &answer].concat())?;
        write(law, "accepted_m", &[&[0, 4, 32, 0, 0, 0, 32][..], &answer].concat())?;
        write(law, "dialled_p", &[&[1, 39][..], &challenge, &[1, 1]].concat())?;
        write(law, "dialled_m", &[&[1, 43, 39, 0, 0, 0][..], &challenge, &[1, 1]].concat())?;
    }
    Ok(())
}

/// Frames of our own wire, whole and in pieces; their bodies; greetings with proofs.
fn v1() -> io::Result<()> {
    let vectors = include_str!("../../peat-proto/tests/data/v1-vectors.txt");
    let packed = format!("packed {}", include_str!("../../peat-proto/tests/data/v1-packed.txt"));
    let mut bodies = Vec::new();
    for line in vectors.lines().chain([packed.trim()]) {
        let (name, digits) = line.split_once(' ').expect("name and digits");
        let frame = hex::decode(digits).expect("hexadecimal digits");
        write("v1_frames", name, &[&[0][..], &frame].concat())?;
        write("v1_frames", &format!("{name}_in_pieces"), &[&[3, 1, 2, 9][..], &frame, &[3, 0xfe, 1, 1]].concat())?;
        write("v1_frames", &format!("{name}_cut"), &[&[0][..], &frame[..frame.len() - 1]].concat())?;
        let header = frame.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let body = &frame[header..];
        write("v1_body", name, body)?;
        write("v1_body", &format!("{name}_cut"), &body[..body.len() - 1])?;
        bodies.push((name.to_owned(), body[1..].to_vec()));
    }
    let body = |wanted: &str| bodies.iter().find(|(name, _)| name == wanted).map(|(_, body)| body.clone());
    let hello = body("hello").expect("a vector");
    for proof in ["proof_none", "proof_formation", "proof_both"] {
        let proof_body = body(proof).expect("a vector");
        write("v1_handshake", proof, &[&[hello.len() as u8][..], &hello, &proof_body].concat())?;
        write("v1_handshake", &format!("{proof}_cut"), &[&[hello.len() as u8 - 1][..], &hello, &proof_body].concat())?;
    }
    Ok(())
}

/// What honest sides say when they compare sets: the laws' own sets against others.
fn compared() -> io::Result<()> {
    let set = |count: u32, state: u8| {
        let mut set = SymbolSet::default();
        for number in 0..count {
            let doc = DocId::new(&format!("notes:{number}")).expect("a valid name");
            let heads = Heads::new(vec![ChangeHash([if number % 7 == 0 { state } else { 1 }; 32])]);
            set.insert(&Item::new(&SetKey::public(), &doc, 0, State::Heads(&heads)), number);
        }
        set
    };
    for (name, count, state) in
        [("equal", 40, 1), ("fewer", 33, 1), ("more", 60, 1), ("changed", 40, 2), ("empty", 0, 1)]
    {
        let mut theirs = set(count, state);
        let symbols = theirs.len();
        let frozen = Frozen::of([&mut theirs], 40 + symbols);
        for cells in [frozen.len(), 4] {
            let cells = (0..cells).map(|index| frozen.cell(index)).collect();
            let frame = Cells { epoch: 1, symbols, from: 0, cells }.frame();
            let header = frame.iter().take_while(|byte| **byte >= 0x80).count() + 2;
            write("v1_sketch", &format!("{name}_{}", frame.len()), &frame[header..])?;
        }
    }
    for (name, count, state) in
        [("equal", 300, 1), ("fewer", 40, 1), ("more", 400, 1), ("changed", 300, 2), ("empty", 0, 1)]
    {
        let (ours, theirs) = (set(300, 1), set(count, state));
        let (mut ranges, mut input) = (Ranges::default(), Vec::new());
        loop {
            let asked = ranges.ask();
            if asked.is_empty() {
                break;
            }
            let answers: Vec<_> = asked.into_iter().map(|prefix| (prefix, answer(&[&theirs], &prefix))).collect();
            for (prefix, answer) in &answers {
                assert!(ranges.heard(&[&ours], *prefix, answer.clone()), "an honest answer");
                while ranges.has_work() {
                    let _ = ranges.work(&[&ours]);
                }
            }
            for answers in answers.chunks(Shares::PER_FRAME) {
                let frame = Shares { subject: Subject::Shared, answers: answers.to_vec() }.frame();
                let header = frame.iter().take_while(|byte| **byte >= 0x80).count() + 2;
                let len = u16::try_from(frame.len() - header).expect("at most 8 KiB");
                input.extend_from_slice(&len.to_be_bytes());
                input.extend_from_slice(&frame[header..]);
            }
        }
        write("v1_ranges", name, &input)?;
        write("v1_ranges", &format!("{name}_cut"), &input[..input.len() - 1])?;
    }
    Ok(())
}

fn records() -> io::Result<()> {
    for count in 0..3 {
        let heads = (0..count).map(|head| ChangeHash([head; 32])).collect();
        let mut record = Record::automerge(Heads::new(heads), 1000, 2);
        write("record", &format!("heads_{count}"), &record.encode())?;
        record.shared = Some(9);
        write("record", &format!("shared_heads_{count}"), &record.encode())?;
    }
    Ok(())
}

fn tickets() -> io::Result<()> {
    let addrs = vec!["192.0.2.7:4040".parse().expect("an address"), "[2001:db8::1]:65535".parse().expect("an address")];
    let ticket = Ticket { peer: PeerId([0xab; 32]), addrs, invitation: Some(Invitation([3; 32])) };
    write("ticket", "text", ticket.to_string().as_bytes())?;
    // The same as the law takes it, and the smallest.
    let body = [&[1][..], &[0xab; 32]].concat();
    write("ticket", "smallest", &body)?;
    let items = [&[1, 32][..], &[3; 32], &[2, 6, 192, 0, 2, 7, 15, 200], &[3, 18], &[9; 18]].concat();
    write("ticket", "items", &[&body[..], &items].concat())
}

/// Random steps in many worlds, and a world in which nothing happens.
fn worlds() -> io::Result<()> {
    let mut rng = Rng::new([5; 32]);
    for seed in 0..40_u8 {
        let steps: Vec<u8> = (0..8 * 40).map(|_| rng.draw() as u8).collect();
        write("world", &format!("steps_{seed}"), &[&[0, seed, 2][..], &steps].concat())?;
    }
    write("world", "nothing", &[0, 0, 2])
}

/// Documents with one of everything, compressed and not, as a whole and as changes.
fn documents() -> io::Result<()> {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    everything(&mut doc).expect("valid edits");
    let mut other = doc.fork().with_actor(ActorId::from([2; 16]));
    other.put(ROOT, "conflict", 1).expect("a valid edit");
    doc.put(ROOT, "conflict", "two").expect("a valid edit");
    doc.merge(&mut other).expect("a fork");
    write("admit", "everything", &doc.save())?;
    write("admit", "everything_plain", &doc.save_nocompress())?;
    write("admit", "everything_changes", &doc.save_after(&[]))?;
    for (number, change) in doc.get_changes(&[]).iter().enumerate() {
        write("admit", &format!("change_{number}"), change.raw_bytes())?;
    }

    let mut long = Automerge::new().with_actor(ActorId::from([3; 16]));
    let mut edit = long.transaction();
    let text = edit.put_object(ROOT, "text", ObjType::Text).expect("a valid edit");
    edit.splice_text(&text, 0, 0, &"peat ".repeat(200)).expect("a valid edit");
    edit.commit();
    write("admit", "deflated", &long.save())?;
    let mut change = long.get_changes(&[]).pop().expect("one change");
    write("admit", "deflated_change", &change.bytes())
}

fn everything(doc: &mut AutoCommit) -> Result<(), automerge::AutomergeError> {
    let list = doc.put_object(ROOT, "list", ObjType::List)?;
    let values = [
        ScalarValue::Null,
        ScalarValue::Boolean(true),
        ScalarValue::Int(-5),
        ScalarValue::Uint(5),
        ScalarValue::F64(0.5),
        ScalarValue::Timestamp(1_700_000_000_000),
        ScalarValue::Bytes(vec![1, 2, 3]),
        ScalarValue::counter(4),
    ];
    for (index, value) in values.into_iter().enumerate() {
        doc.insert(&list, index, value)?;
    }
    doc.commit();
    doc.increment(&list, 7, 3)?;
    doc.delete(&list, 0)?;
    doc.commit();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    doc.splice_text(&text, 0, 0, "heather and peat")?;
    let bold = Mark::new("bold".to_owned(), true, 2, 7);
    doc.mark(&text, bold, ExpandMark::Both)?;
    doc.splice_text(&text, 3, 2, "å∂")?;
    let map = doc.put_object(ROOT, "map", ObjType::Map)?;
    for key in ["a", "b", "c"] {
        doc.put(&map, key, doc.length(&list) as i64)?;
    }
    doc.delete(&map, "b")?;
    doc.commit();
    Ok(())
}
