//! Every golden vector gets the verdict that it asks for, and what is valid is written as it was read.

mod common;

use std::collections::BTreeMap;

use automerge::sync::Message;
use bytes::Bytes;
use common::*;
use peat_proto::wire::v0::negentropy::{Responder, answer_frame, item_of};
use peat_proto::wire::v0::{
    Batch, BatchBuilder, Delta, EntryError, Frame, Heartbeat, Incoming, Label, MessageType, Payload, RawEntry,
    Tombstone, TombstoneBatch, TombstoneBatchBuilder, encode_frame,
};
use peat_proto::{BadDocId, DocId, Spread, Text};

fn vectors(kind: &str) -> Vec<Vector> {
    let mut vectors = Vector::all();
    vectors.retain(|vector| vector.kind() == kind);
    assert!(!vectors.is_empty(), "there are vectors of kind {kind}");
    vectors
}

fn named(kind: &str, name: &str) -> Vector {
    let found = vectors(kind).into_iter().find(|vector| vector.name() == name);
    found.unwrap_or_else(|| panic!("{name} is in the file"))
}

fn expect_verdict(vector: &Vector, verdict: &str) {
    assert_eq!(verdict, vector.expect(), "{}", vector.name());
}

fn only_frame(bytes: Bytes) -> Frame {
    let (incoming, _) = assemble(bytes, true);
    let [Incoming::Frame(frame)] = incoming.as_slice() else { panic!("not one frame: {incoming:?}") };
    frame.clone()
}

#[test]
fn the_file_has_these_kinds_and_each_has_its_test() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for vector in Vector::all() {
        *counts.entry(vector.kind().to_owned()).or_default() += 1;
    }
    let expected = [
        ("automerge_doc", 13),
        ("automerge_message", 25),
        ("channel_stream", 2),
        ("heartbeat", 2),
        ("negentropy_message", 18),
        ("stream_frame", 54),
        ("sync_batch", 27),
        ("sync_entry", 36),
        ("tombstone", 54),
        ("tombstone_batch", 19),
    ];
    assert!(counts.iter().map(|(kind, count)| (kind.as_str(), *count)).eq(expected), "{counts:?}");
}

#[test]
fn streams_of_frames() {
    for vector in vectors("stream_frame") {
        // Captured replies are whole streams, whether or not that was noted down.
        let fin = vector.is("finished") || !vector.has("finished") && vector.is("valid");
        let verdict = judge_stream(vector.bytes(), fin);
        match vector.name() {
            // Legacy peers say nothing here; what they should say is in `negentropy_is_answered`.
            "frame_negentropy_reply_2_docs_vs_empty" => assert_eq!(verdict, "ignore"),
            // The second message of a dialogue that we did not begin.
            "frame_negentropy_reply_2_docs_vs_200" => assert_eq!(verdict, "skip_frame"),
            // Refused without waiting, even while the stream is open.
            _ => expect_verdict(&vector, verdict),
        }
    }
}

#[test]
fn frames_hold_what_was_put_in_and_are_encoded_to_the_same_bytes() {
    let mut encoded = 0;
    for vector in vectors("stream_frame").iter().filter(|vector| vector.is("valid") && vector.has("doc_key")) {
        let bytes = vector.bytes();
        let frame = only_frame(bytes.clone());
        assert_eq!(frame.key.as_str(), vector.text("doc_key"));
        assert_eq!(Some(frame.kind.code().into()), vector.number("msg_type"));
        assert_eq!(frame.payload, vector.hex("payload_hex"));
        let again = match frame.kind {
            MessageType::Delta => {
                let delta = Delta::decode(frame.payload.clone()).expect("a valid delta");
                delta.frame(&frame.doc().expect("a valid name")).expect("a short delta")
            }
            MessageType::Snapshot => {
                let payload = Payload::new(&frame.payload).expect("a short payload");
                encode_frame(Label::Snapshot(&frame.doc().expect("a valid name")), payload)
            }
            MessageType::Tombstone => Tombstone::take(&mut frame.payload.clone()).expect("a valid tombstone").frame(),
            MessageType::Tombstones => rebuilt_tombstones(&frame.payload).frame(),
            MessageType::Batch => rebuilt_batch(&frame.payload).frame(),
            MessageType::NegentropyResponse => answer_frame(&frame.payload),
            // Never ours to send.
            MessageType::NegentropyInit => continue,
        };
        assert_eq!(again, bytes, "{}", vector.name());
        encoded += 1;
    }
    assert_eq!(encoded, 7);
}

fn rebuilt_batch(payload: &Bytes) -> BatchBuilder {
    let batch = Batch::decode(payload.clone()).expect("a valid batch");
    let mut builder = BatchBuilder::new(batch.id, batch.created_ms, batch.ttl, 1 << 20);
    for entry in batch.entries() {
        assert!(builder.push(&entry.expect("a valid entry")));
    }
    builder
}

fn rebuilt_tombstones(payload: &Bytes) -> TombstoneBatchBuilder {
    let batch = TombstoneBatch::decode(payload.clone()).expect("a valid batch");
    let mut builder = TombstoneBatchBuilder::new(1 << 20);
    for tombstone in batch.elements() {
        assert!(builder.push(&tombstone.expect("a valid tombstone")));
    }
    builder
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
        let entry = raw.validate();
        if let (true, Ok(entry)) = (vector.is("valid"), &entry) {
            let mut builder = BatchBuilder::new(0, 0, 0, 1 << 20);
            assert!(builder.push(entry));
            assert_eq!(builder.finish().slice(Batch::HEADER..), vector.bytes(), "{}", vector.name());
        }
        let verdict = match vector.name() {
            // Intact bytes that are refused one layer up.
            "sync_entry_windowed_history"
            | "sync_entry_tombstone_batch"
            | "sync_entry_tombstone_ack"
            | "sync_entry_sync_batch"
            | "sync_entry_empty_key_empty_payload"
            | "sync_entry_no_colon_key"
            | "sync_entry_max_key_65535" => {
                assert!(entry.is_err());
                "accept"
            }
            _ if entry.is_err() => "skip_entry",
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
        ("sync_entry_tombstone_batch", EntryError::Type { code: 5 }),
        ("sync_entry_tombstone_ack", EntryError::Type { code: 6 }),
        ("sync_entry_sync_batch", EntryError::Type { code: 7 }),
        ("bad_sync_entry_type_ff", EntryError::Type { code: 0xff }),
    ];
    for (name, error) in cases {
        let mut bytes = named("sync_entry", name).bytes();
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
        for (raw, expected) in batch.raw_entries().zip(&entries) {
            assert_eq!(raw.key, expected.text("doc_key").as_bytes());
            assert_eq!(Some(raw.code.into()), expected.number("sync_type"));
            assert_eq!(raw.payload, expected.hex("payload_hex"));
        }
        assert_eq!(rebuilt_batch(&bytes).finish(), bytes, "{}", vector.name());
    }
}

#[test]
fn a_bad_entry_costs_itself_and_not_its_neighbours() {
    let usable = |name: &str| {
        let batch = Batch::decode(named("sync_batch", name).bytes()).expect("its layout is sound");
        batch.entries().map(|entry| entry.map(|_| ())).collect::<Vec<_>>()
    };
    assert_eq!(usable("bad_sync_batch_bad_utf8_entry_key"), [Err(EntryError::KeyNotUtf8)]);
    assert_eq!(usable("bad_sync_batch_first_entry_type_08"), [Err(EntryError::Type { code: 8 }), Ok(()), Ok(())]);
}

/// Checks a tombstone against the fields of a vector.
fn check_fields(tombstone: &Tombstone, fields: &Vector, name: &str) {
    assert_eq!(text(&tombstone.collection), fields.text("collection"), "{name}");
    assert_eq!(text(&tombstone.id), fields.text("document_id"), "{name}");
    assert_eq!(Some(tombstone.deleted_at_ms), fields.number("deleted_at_ms"), "{name}");
    assert_eq!(Some(tombstone.lamport), fields.number("lamport"), "{name}");
    assert_eq!(text(&tombstone.by), fields.text("deleted_by"), "{name}");
    // No reason and an empty one are the same on the wire.
    assert_eq!(text(&tombstone.reason), fields.text("reason"), "{name}");
    let spread = match fields.text("direction") {
        "Bidirectional" => Spread::Bidirectional,
        "UpOnly" => Spread::Upward,
        "DownOnly" => Spread::Downward,
        "SystemWide" => Spread::SystemWide,
        direction => panic!("{name}: {direction}"),
    };
    assert_eq!(tombstone.spread, spread, "{name}");
}

fn text<const MAX: usize>(text: &Option<Text<MAX>>) -> &str {
    text.as_ref().map_or("", Text::as_str)
}

#[test]
fn tombstones() {
    for vector in vectors("tombstone") {
        let (bytes, name) = (vector.bytes(), vector.name());
        expect_verdict(&vector, judge_tombstone(bytes.clone()));
        let Ok(tombstone) = Tombstone::take(&mut bytes.clone()) else { continue };
        let encoded = tombstone.encode();
        assert_eq!(encoded.len(), tombstone.encoded_len());
        assert!(bytes.starts_with(&encoded), "{name}");
        if vector.is("valid") {
            assert_eq!(encoded, bytes, "{name}");
            check_fields(&tombstone, &vector.object("fields"), name);
        }
        let expected = match name {
            "tombstone_all_empty" => Err(BadDocId::EmptyCollection),
            _ => DocId::new(&[text(&tombstone.collection), text(&tombstone.id)].join(":")),
        };
        assert_eq!(tombstone.doc(), expected, "{name}");
        assert_eq!(tombstone.doc().is_ok(), name != "tombstone_all_empty");
    }
}

#[test]
fn batches_of_tombstones() {
    for vector in vectors("tombstone_batch") {
        let bytes = vector.bytes();
        expect_verdict(&vector, judge_tombstones(bytes.clone()));
        if vector.is("valid") {
            let batch = TombstoneBatch::decode(bytes.clone()).expect("it is valid");
            let fields = vector.list("tombstones");
            assert_eq!(batch.len(), fields.len());
            for (tombstone, fields) in batch.elements().zip(&fields) {
                check_fields(&tombstone.expect("it is valid"), fields, vector.name());
            }
            assert_eq!(rebuilt_tombstones(&bytes).finish(), bytes, "{}", vector.name());
        }
    }
}

#[test]
fn heartbeats() {
    for vector in vectors("heartbeat") {
        let heartbeat = Heartbeat::decode(&vector.bytes()).expect("it is valid");
        assert_eq!(Some(heartbeat.sent_ms), vector.number("timestamp_ms"));
        assert_eq!(heartbeat.encode(), vector.bytes());
    }
}

#[test]
fn negentropy_is_answered_as_a_proper_responder_does() {
    let mut answered = 0;
    for vector in vectors("negentropy_message") {
        let (name, n) = (vector.name(), vector.number("n").expect("a number of items"));
        assert!(vector.bytes().is_empty() || judge_negentropy(vector.bytes()) == "accept", "{name}");
        if name.starts_with("negentropy_init_") {
            let item = |i: u64| {
                let doc = DocId::new(&format!("docs:doc-{i:06}")).expect("a valid name");
                (1_700_000_000 + i, item_of(&doc))
            };
            let mut responder = Responder::new((0..n).filter(|i| i % 2 == 0).map(item));
            let answer = responder.answer(vector.bytes()).expect("a valid message");
            let expected = named("negentropy_message", &format!("negentropy_true_responder_{n}_items_even_half"));
            assert_eq!(answer, expected.bytes(), "{name}");
            answered += 1;
        }
    }
    assert_eq!(answered, 6);
}

#[test]
fn negentropy_is_answered_where_legacy_peers_are_silent() {
    let items = ["beacons:b-1", "docs:doc-1"].map(|name| item_of(&DocId::new(name).expect("a valid name")));
    let asked = |name: &str| only_frame(named("stream_frame", name).hex("request_hex")).payload;
    let reply = answer(asked("frame_negentropy_reply_2_docs_vs_empty"), items).expect("an answer");
    assert_eq!(reply.len(), 5 + 2 * 32, "both ids");
    // With dates of its own time, as the captured reply has them, two items stand behind all dates of the other side.
    let vector = named("stream_frame", "frame_negentropy_reply_2_docs_vs_200");
    let now = 1_795_335_297;
    let reply = Responder::new(items.map(|id| (now, id))).answer(asked(vector.name())).expect("an answer");
    assert_eq!(answer_frame(&reply), vector.bytes());
}

#[test]
fn a_batch_stays_within_its_budget() {
    let entry = peat_proto::wire::v0::Entry::Document {
        doc: DocId::new("a:b").expect("a valid name"),
        body: peat_proto::wire::v0::Body::Delta(Bytes::from_static(&[0; 20])),
    };
    assert_eq!(entry.encoded_len(), 30);
    // Header of the frame 12, of the batch 21, three entries and a byte too few for a fourth.
    let mut builder = BatchBuilder::new(1, 2, Batch::DEFAULT_TTL, 12 + 21 + 4 * 30 - 1);
    let fitted = (0..9).filter(|_| builder.push(&entry)).count();
    assert_eq!(fitted, 3);
    let frame = builder.frame();
    assert_eq!(frame.len(), 12 + 21 + 3 * 30);
    let batch = Batch::decode(only_frame(frame).payload).expect("we wrote it");
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
