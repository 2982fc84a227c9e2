//! What Automerge writes is admitted; what would make it allocate without bound is not.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the core is pure; its tests measure time and load documents as Automerge does"
)]

use std::io::Write;
use std::time::Instant;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Automerge, ObjType, ROOT, ReadDoc, ScalarValue};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use peat_proto::admit::{Admitted, admit};
use peat_proto::config::AdmitLimits;
use peat_proto::{Refusal, Rng};

fn walk(bytes: &[u8]) -> Result<Admitted, Refusal> {
    admit(bytes, &AdmitLimits::default())
}

/// A document with everything that Automerge knows, edited by several actors at once.
fn document(seed: u64) -> AutoCommit {
    let mut rng = Rng::new([seed as u8; 32]);
    let mut docs: Vec<AutoCommit> = Vec::new();
    let mut doc = AutoCommit::new().with_actor(ActorId::from([0, seed as u8]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).expect("a put");
    let list = doc.put_object(ROOT, "list", ObjType::List).expect("a put");
    doc.put(ROOT, "counter", ScalarValue::counter(3)).expect("a put");
    doc.commit();
    for actor in 1..4 {
        docs.push(doc.fork().with_actor(ActorId::from([actor, seed as u8])));
    }
    for step in 0..120 {
        let which = below(&mut rng, 3);
        let doc = &mut docs[which];
        let len = doc.length(&text);
        let at = below(&mut rng, len + 1);
        match below(&mut rng, 12) {
            0..4 => doc.splice_text(&text, at, 0, "söme text"),
            4 if len > 3 => doc.splice_text(&text, at.min(len - 3), 3, "x"),
            5 if len > 3 => {
                let mark = Mark::new("bold".to_owned(), true, 0, len - 1);
                doc.mark(&text, mark, ExpandMark::Both)
            }
            6 if len > 3 => doc.unmark(&text, "bold", 1, len - 1, ExpandMark::None),
            7 => doc.increment(ROOT, "counter", -7),
            8 => doc.insert(&list, 0, ScalarValue::Bytes(vec![step; 300])),
            9 if doc.length(&list) > 1 => doc.delete(&list, 0),
            10 => doc.insert_object(&list, 0, ObjType::Map).map(|_| ()),
            _ => {
                let values = [
                    ScalarValue::Null,
                    ScalarValue::Boolean(step % 2 == 0),
                    ScalarValue::Int(i64::MIN),
                    ScalarValue::Uint(u64::MAX),
                    ScalarValue::F64(0.5),
                    ScalarValue::Timestamp(-1),
                    ScalarValue::Str("r".repeat(step.into()).into()),
                ];
                let value = values[below(&mut rng, values.len())].clone();
                doc.put(ROOT, format!("key {}", step % 5), value)
            }
        }
        .expect("a valid edit");
        if step % 3 == 0 {
            let message = format!("step {step}");
            let options =
                automerge::transaction::CommitOptions::default().with_message(message).with_time(i64::from(step) - 60);
            doc.commit_with(options);
        }
        if step % 10 == 9 {
            let from = below(&mut rng, 3);
            let mut other = docs[from].fork();
            docs[which].merge(&mut other).expect("a merge");
        }
    }
    for mut other in docs {
        doc.merge(&mut other).expect("a merge");
    }
    doc.empty_change(automerge::transaction::CommitOptions::default());
    doc
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

#[test]
fn everything_that_automerge_saves() {
    for seed in 0..16 {
        let mut doc = document(seed);
        let changes = doc.get_changes(&[]);
        let operations: usize = changes.iter().map(|change| change.len()).sum();
        for saved in [doc.save(), doc.save_nocompress()] {
            let admitted = walk(&saved).expect("Automerge wrote it");
            assert_eq!(admitted.changes, changes.len() as u64);
            assert_eq!(admitted.actors, 4);
            assert_eq!(admitted.chunks, 1);
            assert!(admitted.operations >= operations as u64);
            assert!(admitted.operations <= 2 * operations as u64);
        }
        let middle = changes[changes.len() / 2].hash();
        let after = doc.save_after(&[middle]);
        let admitted = walk(&after).expect("Automerge wrote it");
        assert_eq!(admitted.chunks as u64, admitted.changes);
        assert!(admitted.changes > 1);

        let all: Vec<u8> = changes.iter().flat_map(|c| c.raw_bytes().to_vec()).collect();
        let admitted = walk(&all).expect("Automerge wrote it");
        assert_eq!(admitted.changes, changes.len() as u64);
        assert_eq!(admitted.expanded, {
            let bodies = changes.iter().map(|change| body_len(change.raw_bytes()));
            bodies.sum::<usize>()
        });
        let packed: Vec<u8> = changes.iter().flat_map(|change| change.clone().bytes().to_vec()).collect();
        assert!(packed.len() < all.len(), "some changes are compressed");
        assert_eq!(walk(&packed), Ok(admitted));
        assert!(walk(&[doc.save(), after].concat()).is_ok());
    }
}

/// Bytes of a chunk behind its header.
fn body_len(chunk: &[u8]) -> usize {
    let mut rest = chunk[9..].iter();
    let prefix = 1 + rest.by_ref().take_while(|byte| **byte >= 0x80).count();
    chunk.len() - 9 - prefix
}

#[test]
fn documents_without_changes_or_operations() {
    let mut doc = AutoCommit::new();
    assert_eq!(walk(&doc.save()).map(|admitted| (admitted.changes, admitted.operations)), Ok((0, 0)));
    doc.empty_change(automerge::transaction::CommitOptions::default());
    for saved in [doc.save(), doc.save_after(&[])] {
        assert_eq!(walk(&saved).map(|admitted| (admitted.changes, admitted.operations)), Ok((1, 0)));
    }
}

#[test]
fn a_text_of_260_000_changes_is_walked_in_a_fraction_of_its_load_time() {
    let path = "/work/shared/data/automerge-paper.automerge";
    let Ok(saved) = std::fs::read(path) else {
        eprintln!("SKIPPED: {path} is not on this machine");
        return;
    };
    let started = Instant::now();
    let admitted = walk(&saved).expect("Automerge wrote it");
    let walked = started.elapsed();
    assert_eq!(admitted.changes, 259_779);
    let started = Instant::now();
    let doc = Automerge::load(&saved).expect("a saved document");
    let loaded = started.elapsed();
    println!("{admitted:?}: walked in {walked:?}, loaded in {loaded:?}");

    let changes = doc.save_after(&[]);
    let started = Instant::now();
    let admitted = walk(&changes).expect("Automerge wrote it");
    println!("{admitted:?}: walked in {:?}", started.elapsed());
    assert_eq!(admitted.changes, 259_779);
}

#[test]
fn truncations_are_refused_at_every_byte() {
    let mut doc = document(1);
    let first = doc.get_changes(&[])[0].raw_bytes().to_vec();
    for saved in [doc.save(), doc.save_nocompress(), first] {
        for cut in 0..saved.len() {
            assert_eq!(walk(&saved[..cut]), Err(Refusal::Invalid), "cut at {cut}");
        }
        assert!(walk(&saved).is_ok());
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut doc = document(2);
    for saved in [doc.save(), doc.save_nocompress(), doc.save_after(&[])] {
        for at in 0..saved.len() {
            for flip in [0xff, 0x01, 0x40, 0x80] {
                let mut saved = saved.clone();
                saved[at] ^= flip;
                let Ok(admitted) = walk(&saved) else { continue };
                assert!(admitted.operations <= AdmitLimits::default().operations);
            }
        }
    }
}

#[test]
fn garbage_is_refused() {
    let mut rng = Rng::new([9; 32]);
    for len in 0..2_000 {
        let garbage: Vec<u8> = (0..len).map(|_| rng.draw() as u8).collect();
        assert_eq!(walk(&garbage), Err(Refusal::Invalid));
        for kind in 0..5 {
            assert!(walk(&chunk(kind, &garbage)).is_err(), "{garbage:?}");
        }
    }
}

#[test]
fn limits_hold_at_their_exact_value() {
    let saved = document(3).save();
    let admitted = walk(&saved).expect("Automerge wrote it");
    let exact = || {
        let mut limits = AdmitLimits::default();
        limits.changes = admitted.changes;
        limits.operations = admitted.operations;
        limits.actors = admitted.actors;
        limits.expanded = admitted.expanded;
        limits
    };
    assert_eq!(admit(&saved, &exact()), Ok(admitted));
    let lower: [fn(&mut AdmitLimits); 4] = [
        |limits| limits.changes -= 1,
        |limits| limits.operations -= 1,
        |limits| limits.actors -= 1,
        |limits| limits.expanded -= 1,
    ];
    for lower in lower {
        let mut limits = exact();
        lower(&mut limits);
        assert_eq!(admit(&saved, &limits), Err(Refusal::TooLarge));
    }
    // Limits are for all chunks together.
    let twice = [&saved[..], &saved].concat();
    assert_eq!(admit(&twice, &exact()), Err(Refusal::TooLarge));
}

#[test]
fn bundles_are_refused() {
    let mut doc = document(4);
    let hashes: Vec<_> = doc.get_changes(&[]).iter().map(|c| c.hash()).collect();
    let doc = Automerge::load(&doc.save()).expect("a saved document");
    let bundle = doc.bundle(hashes).expect("a bundle of known changes");
    assert_eq!(walk(bundle.bytes()), Err(Refusal::Invalid));
}

// Hand-made chunks. Checksums are Automerge's affair.

fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind];
    chunk.extend(uleb(body.len() as u64));
    chunk.extend(body);
    chunk
}

fn uleb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A run of `count` times the value that `bytes` encode.
fn run(count: u64, bytes: &[u8]) -> Vec<u8> {
    // The sign bit of a positive number is clear.
    let mut run = uleb(count);
    if run.last().is_some_and(|last| last & 0x40 != 0) {
        *run.last_mut().expect("it has a last byte") |= 0x80;
        run.push(0);
    }
    run.extend(bytes);
    run
}

type Columns<'a> = &'a [(u64, Vec<u8>)];

fn table(columns: Columns<'_>) -> Vec<u8> {
    let mut table = uleb(columns.len() as u64);
    for (specification, data) in columns {
        table.extend(uleb(*specification));
        table.extend(uleb(data.len() as u64));
    }
    table
}

fn data(columns: Columns<'_>) -> Vec<u8> {
    columns.iter().flat_map(|(_, data)| data.clone()).collect()
}

/// A saved document with one actor and no heads.
fn saved(changes: Columns<'_>, operations: Columns<'_>) -> Vec<u8> {
    let parts = [vec![1, 1, 0xaa, 0], table(changes), table(operations), data(changes), data(operations)];
    chunk(0, &parts.concat())
}

/// A change by one actor.
fn change_body(operations: Columns<'_>) -> Vec<u8> {
    let fixed = vec![0, 1, 0xaa, 1, 1, 0, 0, 0];
    [fixed, table(operations), data(operations)].concat()
}

fn change(operations: Columns<'_>) -> Vec<u8> {
    chunk(1, &change_body(operations))
}

const HUGE: u64 = 1 << 60;

/// The change columns of `count` changes with one operation each, in a line if `deps`, else side by side.
fn changes(count: u64, deps: bool) -> Vec<(u64, Vec<u8>)> {
    let max_op = if deps { run(count, &[1]) } else { [run(1, &[1]), run(count - 1, &[0])].concat() };
    let mut columns = vec![(0x01, run(count, &[0])), (0x03, run(count, &[1])), (0x13, max_op)];
    if deps {
        columns.push((0x40, [run(1, &[0]), run(count - 1, &[1])].concat()));
        columns.push((0x43, [run(1, &[0]), run(count - 2, &[1])].concat()));
    } else {
        columns.push((0x40, run(count, &[0])));
    }
    columns
}

/// The operation columns of `count` operations on the key that `key` encodes.
fn operations(count: u64, key: &[u8]) -> Vec<(u64, Vec<u8>)> {
    vec![
        (0x15, run(count, key)),
        (0x21, run(count, &[0])),
        (0x23, run(count, &[1])),
        (0x42, run(count, &[1])),
        (0x80, run(count, &[0])),
    ]
}

#[test]
fn hand_made_chunks_are_sound_before_they_are_spoilt() {
    let admitted = walk(&saved(&changes(9, true), &operations(9, b"\x01k")));
    assert_eq!(admitted.map(|a| (a.changes, a.operations)), Ok((9, 9)));
    let admitted = walk(&saved(&changes(9, false), &operations(9, b"\x01k")));
    assert_eq!(admitted.map(|a| (a.changes, a.operations)), Ok((9, 9)));
    let admitted = walk(&change(&[(0x42, run(3, &[1])), (0x70, run(3, &[0]))]));
    assert_eq!(admitted.map(|a| (a.changes, a.operations)), Ok((1, 3)));
}

#[test]
fn runs_of_2_to_the_60_items_are_refused() {
    let nulls = [vec![0], uleb(HUGE)].concat();
    let one = changes(2, false);
    let bombs = [
        saved(&[(0x01, run(HUGE, &[0]))], &[]),
        saved(&[(0x13, run(HUGE, &[0]))], &[]),
        saved(&[(0x35, nulls.clone())], &[]),
        saved(&[(0x40, run(1, &uleb(HUGE)))], &[]),
        saved(&one, &[(0x21, run(HUGE, &[0]))]),
        saved(&one, &[(0x15, run(HUGE, b"\x01k"))]),
        saved(&one, &[(0x34, uleb(HUGE))]),
        saved(&one, &[(0x34, [uleb(u64::MAX), uleb(u64::MAX)].concat())]),
        saved(&one, &[(0x80, run(1, &uleb(HUGE)))]),
        saved(&one, &[(0x80, run(1 << 20, &uleb(1 << 44)))]),
        saved(&one, &[(0xf2, run(HUGE, &[0]))]),
        change(&[(0x42, run(HUGE, &[1]))]),
        change(&[(0x42, nulls)]),
        change(&[(0x70, run(1, &uleb(HUGE)))]),
        change(&[(0x34, uleb(HUGE))]),
        change(&[(0x71, run(HUGE, &[0]))]),
        change(&[(0x13, run(HUGE, &[0]))]),
    ];
    for (number, bomb) in bombs.iter().enumerate() {
        assert_eq!(walk(bomb), Err(Refusal::TooLarge), "bomb {number}");
    }
}

#[test]
fn tables_that_the_bytes_cannot_hold_are_refused() {
    for count in [2, 1000, 16_384, HUGE, u64::MAX] {
        let actors = chunk(0, &[uleb(count), vec![1, 0xaa]].concat());
        let heads = chunk(0, &[vec![0], uleb(count), vec![0; 40]].concat());
        let columns = chunk(0, &[vec![0, 0], uleb(count), vec![0x01, 0]].concat());
        let deps = chunk(1, &[uleb(count), vec![0; 40]].concat());
        let others = [vec![0, 1, 0xaa, 1, 1, 0, 0], uleb(count), vec![1, 0xbb]].concat();
        for bomb in [actors, heads, columns, deps, chunk(1, &others)] {
            assert_eq!(walk(&bomb), Err(Refusal::Invalid), "{count}");
        }
    }
    let count = AdmitLimits::default().actors + 1;
    let mut actors = uleb(count);
    for actor in 0..count {
        actors.push(8);
        actors.extend(actor.to_be_bytes());
    }
    actors.extend([0, 0, 0]);
    assert_eq!(walk(&chunk(0, &actors)), Err(Refusal::TooLarge));
}

#[test]
fn numbers_that_automerge_takes_on_trust_are_checked() {
    let with = |columns: Vec<(u64, Vec<u8>)>, specification, data: Vec<u8>| {
        let mut columns = columns;
        columns.retain(|(other, _)| *other != specification);
        columns.push((specification, data));
        columns.sort_by_key(|(specification, _)| *specification);
        columns
    };
    let ops = || operations(3, b"\x01k");
    let line = || changes(3, true);
    let cases = [
        ("an actor beyond the table", saved(&line(), &with(ops(), 0x21, run(3, &[1])))),
        ("a change without a sequence number", saved(&with(line(), 0x03, vec![0, 3]), &ops())),
        ("no actor", saved(&with(line(), 0x01, vec![0, 3]), &ops())),
        ("a change without room", saved(&with(line(), 0x13, run(3, &uleb(1 << 29))), &ops())),
        ("a number below zero", saved(&with(line(), 0x13, run(3, &[0x7f])), &ops())),
        ("a dependency on a later change", saved(&with(line(), 0x43, run(2, &[1])), &ops())),
        ("too few dependencies", saved(&with(line(), 0x43, run(1, &[0])), &ops())),
        ("a change smaller than its dependencies", saved(&with(line(), 0x13, vec![0x7d, 5, 0x7f, 0]), &ops())),
        ("more values than rows", saved(&line(), &with(ops(), 0x34, vec![4]))),
        ("values longer than their bytes", saved(&line(), &with(ops(), 0x56, run(3, &[0x16])))),
        ("bytes without lengths", saved(&line(), &with(ops(), 0x57, vec![1, 2, 3]))),
        ("more in a group than it says", saved(&line(), &with(ops(), 0x81, run(1, &[0])))),
        ("an empty run", saved(&line(), &with(ops(), 0x15, vec![0, 0]))),
        ("an empty run of booleans", saved(&line(), &with(ops(), 0x34, vec![1, 0, 1]))),
        (
            "a literal run of i64::MIN",
            change(&[(0x42, vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f])]),
        ),
        ("columns out of order", change(&[(0x42, run(3, &[1])), (0x34, vec![3])])),
        ("a column twice", change(&[(0x42, run(3, &[1])), (0x42, run(3, &[1]))])),
        ("a deflated column in a change", change(&[(0x4a, run(3, &[1]))])),
    ];
    for (what, bytes) in cases {
        assert_eq!(walk(&bytes), Err(Refusal::Invalid), "{what}");
    }
}

#[test]
fn a_key_that_would_be_copied_into_every_change_is_counted_as_often() {
    let key = [uleb(1 << 20), vec![b'k'; 1 << 20]].concat();
    assert!(walk(&saved(&changes(9, true), &operations(9, &key))).is_ok());
    assert_eq!(walk(&saved(&changes(99, true), &operations(99, &key))), Err(Refusal::TooLarge));
}

#[test]
fn compressed_changes_are_inflated_within_bounds() {
    let body = change_body(&[(0x42, run(3, &[1])), (0x70, run(3, &[0]))]);
    let packed = deflate(&body);
    let admitted = walk(&chunk(2, &packed)).expect("a sound change");
    assert_eq!((admitted.operations, admitted.expanded), (3, body.len()));
    for cut in 0..packed.len() {
        assert_eq!(walk(&chunk(2, &packed[..cut])), Err(Refusal::Invalid));
    }
    let trailing = [&packed[..], &[0]].concat();
    assert_eq!(walk(&chunk(2, &trailing)), Err(Refusal::Invalid));
    // What follows the columns of a change may be anything, for example 100 MB of nothing.
    let bomb = deflate(&[body, vec![0; 100_000_000]].concat());
    assert_eq!(walk(&chunk(2, &bomb)), Err(Refusal::TooLarge));
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}
