//! Every golden vector gets the verdict that it asks for.

mod common;

use automerge::sync::Message;
use bytes::Bytes;
use common::*;
use peat_proto::wire::{Batch, BatchBuilder, Delta, EntryError, Incoming, RawEntry};
use peat_proto::{BadDocId, DocId};

fn vectors(kind: &str) -> Vec<Vector> {
    let mut vectors = Vector::all();
    vectors.retain(|vector| vector.kind() == kind && !vector.is_left());
    assert!(!vectors.is_empty(), "there are vectors of kind {kind}");
    vectors
}

fn expect_verdict(vector: &Vector, verdict: &str) {
    assert_eq!(verdict, vector.expect(), "{}", vector.name());
}

#[test]
fn the_vectors_left_for_later_are_those_of_unread_types_and_no_others() {
    let listed: Vec<_> = include_str!("data/vectors-left.txt").lines().collect();
    let all = Vector::all();
    let left: Vec<_> = all.iter().filter(|vector| vector.is_left()).map(Vector::name).collect();
    assert_eq!(left, listed);
    let judged = ["sync_entry", "sync_batch", "automerge_message", "automerge_doc", "stream_frame", "channel_stream"];
    for vector in all.iter().filter(|vector| !vector.is_left()) {
        assert!(judged.contains(&vector.kind()), "{}", vector.name());
    }
}

#[test]
fn streams_of_frames() {
    for vector in vectors("stream_frame") {
        // Captured replies are whole streams, whether or not that was noted down.
        let fin = vector.is("finished") || !vector.has("finished") && vector.is("valid");
        let verdict = judge_stream(vector.bytes(), fin);
        // Refused without waiting, even while the stream is open.
        expect_verdict(&vector, verdict);
    }
}

#[test]
fn frames_hold_what_was_put_in_and_are_encoded_to_the_same_bytes() {
    let mut encoded = 0;
    for vector in vectors("stream_frame") {
        if !vector.is("valid") {
            continue;
        }
        let bytes = vector.bytes();
        let (incoming, _) = assemble(bytes.clone(), true);
        let [Incoming::Frame(frame)] = incoming.as_slice() else {
            panic!("{}: {incoming:?}", vector.name());
        };
        assert_eq!(frame.key.as_str(), vector.text("doc_key"));
        assert_eq!(Some(frame.kind.code().into()), vector.number("msg_type"));
        assert_eq!(frame.payload, vector.hex("payload_hex"));
        let again = match frame.kind.code() {
            0 => Delta::decode(frame.payload.clone())
                .expect("a valid delta")
                .frame(&frame.doc().expect("a valid name"))
                .expect("a short delta"),
            1 => peat_proto::wire::encode_frame(
                peat_proto::wire::Label::Snapshot(&frame.doc().expect("a valid name")),
                peat_proto::wire::Payload::new(&frame.payload).expect("a short payload"),
            ),
            _ => continue,
        };
        assert_eq!(again, bytes, "{}", vector.name());
        encoded += 1;
    }
    assert_eq!(encoded, 3);
}

#[test]
fn persistent_channels() {
    for vector in vectors("channel_stream") {
        let bytes = vector.bytes();
        // The opener of a channel expects batches without keys; we only ever write whole frames to it.
        if vector.name() == "channel_receive_loop_format" {
            let (head, batch) = bytes.split_at(5);
            let len = u32::try_from(batch.len()).expect("a short batch");
            assert_eq!(head, [&[0x07][..], &len.to_be_bytes()].concat());
            expect_verdict(&vector, judge_batch(bytes.slice(5..)));
            continue;
        }
        expect_verdict(&vector, judge_stream(bytes.clone(), vector.is("finished")));
        let (incoming, _) = assemble(bytes, vector.is("finished"));
        assert_eq!(incoming.len(), 2);
    }
}

#[test]
fn entries() {
    for vector in vectors("sync_entry") {
        if vector.expect() == "encode_error" {
            // A key too long for its length field cannot even be named.
            let len = vector.object("doc_key_repeat").number("count");
            let len = usize::try_from(len.expect("a count")).expect("a short key");
            assert_eq!(DocId::new(&"k".repeat(len)), Err(BadDocId::TooLong { len }));
            continue;
        }
        let mut bytes = vector.bytes();
        let Ok(raw) = RawEntry::read(&mut bytes) else {
            expect_verdict(&vector, "reject");
            continue;
        };
        if vector.is("valid") {
            assert_eq!(raw.key, vector.text("doc_key").as_bytes());
            assert_eq!(Some(raw.code.into()), vector.number("sync_type"));
            assert_eq!(raw.payload, vector.hex("payload_hex"));
            assert_eq!(bytes, Bytes::new());
        }
        let code = raw.code;
        let unusable = match (code, raw.validate()) {
            // Those of tombstones are intact and left for later.
            (4, Err(EntryError::Type { code: 4 })) => false,
            (_, entry) => entry.is_err(),
        };
        let verdict = match vector.name() {
            // Intact bytes that are refused one layer up.
            "sync_entry_windowed_history"
            | "sync_entry_sync_batch"
            | "sync_entry_empty_key_empty_payload"
            | "sync_entry_no_colon_key"
            | "sync_entry_max_key_65535" => {
                assert!(unusable);
                "accept"
            }
            _ if unusable => "skip_entry",
            _ if !bytes.is_empty() => "accept_trailing",
            _ => "accept",
        };
        expect_verdict(&vector, verdict);
    }
}

#[test]
fn unusable_entries_say_why() {
    let cases = [
        ("sync_entry_empty_key_empty_payload", EntryError::Key(BadDocId::NoColon)),
        ("sync_entry_no_colon_key", EntryError::Key(BadDocId::NoColon)),
        ("sync_entry_max_key_65535", EntryError::Key(BadDocId::TooLong { len: 65_535 })),
        ("sync_entry_windowed_history", EntryError::Type { code: 2 }),
        ("sync_entry_sync_batch", EntryError::Type { code: 7 }),
        ("bad_sync_entry_type_ff", EntryError::Type { code: 0xff }),
    ];
    let vectors = vectors("sync_entry");
    for (name, error) in cases {
        let vector = vectors.iter().find(|vector| vector.name() == name);
        let mut bytes = vector.expect("it is in the file").bytes();
        let raw = RawEntry::read(&mut bytes).expect("its layout is sound");
        assert_eq!(raw.validate(), Err(error), "{name}");
    }
}

#[test]
fn batches() {
    for vector in vectors("sync_batch") {
        let bytes = vector.bytes();
        expect_verdict(&vector, judge_batch(bytes.clone()));
        if !vector.is("valid") {
            continue;
        }
        let batch = Batch::decode(bytes.clone()).expect("it is valid");
        assert_eq!(Some(batch.id), vector.number("batch_id"));
        assert_eq!(Some(batch.created_ms), vector.number("created_at"));
        assert_eq!(Some(batch.ttl.into()), vector.number("ttl"));
        let entries = vector.list("entries");
        assert_eq!(batch.len(), entries.len());
        let mut builder = BatchBuilder::new(batch.id, batch.created_ms, batch.ttl, 1 << 20);
        let mut tombstones = 0;
        for ((raw, entry), expected) in batch.raw_entries().zip(batch.entries()).zip(&entries) {
            assert_eq!(raw.key, expected.text("doc_key").as_bytes());
            assert_eq!(Some(raw.code.into()), expected.number("sync_type"));
            assert_eq!(raw.payload, expected.hex("payload_hex"));
            match entry {
                Ok(entry) => assert!(builder.push(&entry)),
                Err(error) => {
                    assert_eq!(error, EntryError::Type { code: 4 });
                    tombstones += 1;
                }
            }
        }
        if tombstones == 0 {
            assert_eq!(builder.finish(), bytes, "{}", vector.name());
        }
    }
}

#[test]
fn a_bad_entry_costs_itself_and_not_its_neighbours() {
    let usable = |name: &str| {
        let vectors = vectors("sync_batch");
        let vector = vectors.iter().find(|vector| vector.name() == name);
        let bytes = vector.expect("it is in the file").bytes();
        let batch = Batch::decode(bytes).expect("its layout is sound");
        batch.entries().map(|entry| entry.map(|entry| entry.doc.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(usable("bad_sync_batch_bad_utf8_entry_key"), [Err(EntryError::KeyNotUtf8)]);
    assert_eq!(
        usable("bad_sync_batch_first_entry_type_08"),
        [Err(EntryError::Type { code: 8 }), Ok("beacons:b-1".to_owned()), Err(EntryError::Type { code: 4 }),]
    );
}

#[test]
fn a_batch_stays_within_its_budget() {
    let entry = peat_proto::wire::Entry {
        doc: DocId::new("a:b").expect("a valid name"),
        body: peat_proto::wire::Body::Delta(Bytes::from_static(&[0; 20])),
    };
    assert_eq!(entry.encoded_len(), 30);
    // Header of the frame 12, of the batch 21, three entries and a byte too few for a fourth.
    let mut builder = BatchBuilder::new(1, 2, Batch::DEFAULT_TTL, 12 + 21 + 4 * 30 - 1);
    let fitted = (0..9).filter(|_| builder.push(&entry)).count();
    assert_eq!(fitted, 3);
    let frame = builder.frame();
    assert_eq!(frame.len(), 12 + 21 + 3 * 30);
    let (incoming, _) = assemble(frame, true);
    let [Incoming::Frame(frame)] = incoming.as_slice() else {
        panic!("{incoming:?}");
    };
    let batch = Batch::decode(frame.payload.clone()).expect("we wrote it");
    assert!(batch.entries().eq(vec![Ok(entry); 3]));
}

#[test]
fn sync_messages() {
    for vector in vectors("automerge_message") {
        let bytes = vector.bytes();
        expect_verdict(&vector, judge_delta(bytes.clone()));
        let Ok(delta) = Delta::decode(bytes.clone()) else {
            assert!(Message::decode(&bytes).is_err(), "{}", vector.name());
            continue;
        };
        let message = Message::decode(&bytes).expect("Automerge reads what we read");
        assert_eq!(delta.heads, message.heads);
        assert_eq!(delta.need, message.need);
        let have = delta.have.iter().map(|have| &have.last_sync);
        assert!(have.eq(message.have.iter().map(|have| &have.last_sync)));
        let changes = delta.changes.iter().map(|chunks| &chunks[..]);
        assert!(changes.eq(message.changes.iter()));
        assert_eq!(Some(delta.changes.len() as u64), vector.number("changes"));
        assert_eq!(format!("{:?}", delta.version), vector.text("version"));
        assert_eq!(delta.encode(), bytes, "{}", vector.name());
    }
}

#[test]
fn saved_documents() {
    for vector in vectors("automerge_doc") {
        expect_verdict(&vector, judge_document(&vector.bytes()));
    }
}
