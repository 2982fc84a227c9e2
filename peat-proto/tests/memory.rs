//! Whatever arrives: no panic, and no more memory than 4 times the input and 64 KiB.

mod common;

use automerge::transaction::Transactable;
use bytes::Bytes;
use common::heap::{Counting, peak};
use common::*;
use peat_proto::Refusal;
use peat_proto::admit::admit;
use peat_proto::config::AdmitLimits;
use peat_proto::wire::v0::{
    Assembler, Batch, Body, Delta, Entry, Heartbeat, Incoming, MessageType, RawEntry, Tombstone, TombstoneBatch,
};

#[global_allocator]
static HEAP: Counting = Counting;

const OVERHEAD: usize = 64 << 10;

/// Decodes as deep as this crate's own code goes; returns how much of it was sound.
fn decode(kind: &str, bytes: Bytes) -> usize {
    match kind {
        "stream_frame" | "channel_stream" => {
            let (incoming, _) = assemble(bytes, true);
            incoming.into_iter().map(decode_incoming).sum()
        }
        "sync_entry" => {
            let mut rest = bytes;
            let entry = RawEntry::read(&mut rest);
            usize::from(entry.is_ok_and(|entry| entry.validate().is_ok()))
        }
        "sync_batch" => decode_batch(bytes),
        "automerge_message" => decode_delta(bytes),
        "automerge_doc" => usize::from(is_admitted(&bytes)),
        "tombstone" => usize::from(Tombstone::take(&mut bytes.clone()).is_ok()),
        "tombstone_batch" => decode_tombstones(bytes),
        "heartbeat" => usize::from(Heartbeat::decode(&bytes).is_ok()),
        "negentropy_message" => usize::from(judge_negentropy(bytes) == "accept"),
        kind => panic!("nothing decodes {kind}"),
    }
}

fn decode_incoming(incoming: Incoming) -> usize {
    let Incoming::Frame(frame) = incoming else {
        return 0;
    };
    match frame.kind {
        MessageType::Delta => decode_delta(frame.payload),
        MessageType::Snapshot => usize::from(is_admitted(&frame.payload)),
        MessageType::Batch => decode_batch(frame.payload),
        MessageType::Tombstone => usize::from(Tombstone::take(&mut frame.payload.clone()).is_ok()),
        MessageType::Tombstones => decode_tombstones(frame.payload),
        MessageType::NegentropyInit | MessageType::NegentropyResponse => {
            usize::from(judge_negentropy(frame.payload) == "accept")
        }
    }
}

fn decode_batch(payload: Bytes) -> usize {
    let Ok(batch) = Batch::decode(payload) else {
        return 0;
    };
    let entries = batch.entries().flatten();
    1 + entries
        .map(|entry| match entry {
            Entry::Document { body: Body::Delta(payload), .. } => decode_delta(payload),
            Entry::Document { body: Body::Snapshot(payload), .. } => usize::from(is_admitted(&payload)),
            Entry::Tombstone(_) => 1,
        })
        .sum::<usize>()
}

fn decode_tombstones(payload: Bytes) -> usize {
    let Ok(batch) = TombstoneBatch::decode(payload) else {
        return 0;
    };
    1 + batch.elements().flatten().count()
}

fn decode_delta(payload: Bytes) -> usize {
    let Ok(delta) = Delta::decode(payload) else {
        return 0;
    };
    1 + delta.changes.iter().filter(|chunks| is_admitted(chunks)).count()
}

fn decode_within_bounds(vector: &Vector, bytes: Bytes) -> usize {
    let len = bytes.len();
    let (sound, peak) = peak(|| decode(vector.kind(), bytes));
    assert!(peak <= 4 * len + OVERHEAD, "{} of {len} bytes needed {peak}", vector.name());
    sound
}

#[test]
fn vectors_cut_at_every_offset() {
    let mut sound = 0;
    for vector in Vector::all().iter().filter(|v| v.is("valid")) {
        let bytes = vector.bytes();
        for cut in 0..=bytes.len() {
            sound += decode_within_bounds(vector, bytes.slice(..cut));
        }
    }
    assert!(sound > 80, "the uncut ones are sound, not just {sound}");
}

#[test]
fn vectors_with_every_byte_flipped() {
    for vector in Vector::all().iter().filter(|v| v.is("valid")) {
        let bytes = vector.bytes();
        for at in 0..bytes.len() {
            for flip in [0xff, 0x01, 0x80] {
                // A key of 65,535 letters adds nothing after its first few.
                if bytes.len() > 10_000 && (32..bytes.len() - 32).contains(&at) {
                    continue;
                }
                let mut bytes = bytes.to_vec();
                bytes[at] ^= flip;
                decode_within_bounds(vector, bytes.into());
            }
        }
    }
}

#[test]
fn malformed_vectors() {
    for vector in Vector::all().iter().filter(|v| !v.is("valid")) {
        if vector.expect() != "encode_error" {
            decode_within_bounds(vector, vector.bytes());
        }
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    let header = [&[0, 3][..], b"a:b", &[0x01, 0x01, 0, 0, 0], &[0; 100]].concat();
    let caps = caps();
    let ((), peak) = peak(|| {
        let mut assembler = Assembler::new();
        for byte in header {
            assembler.push(Bytes::copy_from_slice(&[byte]));
            assert_eq!(assembler.next(&caps), Ok(None));
        }
    });
    assert!(peak < 2048, "{peak}");
}

#[test]
fn batches_and_deltas_of_the_smallest_elements() {
    let entries = 100_000_u32;
    let mut batch = vec![0; 17];
    batch.extend(entries.to_be_bytes());
    batch.resize(batch.len() + 7 * entries as usize, 0);
    let batch = Bytes::from(batch);
    let (refused, used) = peak(|| {
        let batch = Batch::decode(batch).expect("its layout is sound");
        batch.entries().filter(Result::is_err).count()
    });
    assert_eq!(refused, 100_000);
    assert!(used < OVERHEAD, "{used}");

    let elements = 10_000_u32;
    let mut tombstones = elements.to_be_bytes().to_vec();
    for _ in 0..elements {
        tombstones.extend(25_u32.to_be_bytes());
        tombstones.extend([0; 25]);
    }
    let tombstones = Bytes::from(tombstones);
    let (sound, used) = peak(|| {
        let batch = TombstoneBatch::decode(tombstones).expect("its layout is sound");
        batch.elements().filter(Result::is_ok).count()
    });
    assert_eq!(sound, 10_000);
    assert!(used < OVERHEAD, "{used}");

    // One byte for each change that is announced.
    let delta = [&[0x42, 0, 0, 0, 0xa0, 0x8d, 0x06][..], &[0; 100_000]].concat();
    let delta = Bytes::from(delta);
    let (delta, used) = peak(|| Delta::decode(delta));
    assert!(delta.is_err());
    assert!(used < OVERHEAD, "{used}");
}

#[test]
fn a_deflate_bomb_is_refused_in_little_memory() {
    let bomb = deflate_bomb();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let limits = AdmitLimits::default();
    let (outcome, used) = peak(|| admit(&bomb, &limits));
    assert_eq!(outcome, Err(Refusal::TooLarge));
    assert!(used < OVERHEAD, "{used}");
}

#[test]
fn a_long_history_is_walked_in_little_memory() {
    let mut doc = automerge::AutoCommit::new();
    for n in 0..5_000 {
        doc.put(automerge::ROOT, "n", n).expect("a put to the root");
        doc.commit();
    }
    let saved = doc.save();
    let limits = AdmitLimits::default();
    let (admitted, used) = peak(|| admit(&saved, &limits));
    assert_eq!(admitted.map(|admitted| admitted.changes), Ok(5_000));
    // Twelve bytes a change, and as much again while a table grows.
    assert!(used < OVERHEAD + 24 * 5_000, "{used}");
}
