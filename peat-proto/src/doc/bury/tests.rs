use std::collections::BTreeSet;

use automerge::ROOT;
use automerge::transaction::Transactable;
use bytes::Bytes;

use super::*;
use crate::config::Config;
use crate::doc::inbox::{Incoming, Payload, Source};
use crate::doc::scopes::ScopeMask;
use crate::id::{Boot, Seq};
use crate::marker::Spread;
use crate::policy::{Deletion, Policy};
use crate::store::{Batch, Op};
use crate::time::Time;

const PEER: PeerId = PeerId([2; 32]);
const CONN: ConnId = ConnId(1);

fn now() -> Now {
    Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 }
}

fn name() -> DocId {
    DocId::new("nodes:1").expect("valid")
}

fn docs() -> Docs {
    let mut docs = Docs::new(&Config::default(), Boot { store: [1; 16], number: 1 }.actor(&PeerId([1; 32])));
    docs.note_time(now());
    docs
}

fn marker(lamport: u64, by: &str) -> Marker {
    let by = Text::new(by).expect("short");
    Marker { incarnation: 0, lamport, by, at_ms: 5, reason: None, spread: Spread::Bidirectional }
}

fn put(docs: &mut Docs, value: i64) {
    docs.edit(now(), &name(), 1 << 20, |tx| tx.put(ROOT, "x", value)).expect("an edit");
}

/// Writes what waits and says that it is durable.
fn write(docs: &mut Docs) -> Vec<Op> {
    let mut ops = Vec::new();
    while let Some(Batch { seq, ops: some }) = docs.flush(Time::ZERO) {
        ops.extend(some);
        docs.durable(seq);
    }
    ops
}

fn settle(docs: &mut Docs) -> Vec<Effect> {
    let mut effects = Vec::new();
    while docs.settle() {}
    effects.extend(docs.effects.drain(..));
    docs.check().expect("the invariants hold");
    effects
}

fn saved(value: i64) -> Bytes {
    let mut author = docs();
    put(&mut author, value);
    author.content(&name()).expect("it was just made").save().into()
}

#[test]
fn an_own_marker_leaves_only_once_it_is_durable() {
    let mut docs = docs();
    put(&mut docs, 1);
    write(&mut docs);
    settle(&mut docs);
    let before = docs.scopes.sum(ScopeMask::ALL).digest;
    docs.delete(now(), &name(), PeerId([1; 32]), Some("old")).expect("it is there");
    settle(&mut docs);
    assert_eq!(docs.scopes.sum(ScopeMask::ALL).digest, before);
    assert!(!docs.get(&name()).expect("known").exists());
    let ops = write(&mut docs);
    assert!(matches!(ops.as_slice(), [Op::Bury { record, .. }] if record.chunks == 0));
    assert_ne!(docs.scopes.sum(ScopeMask::ALL).digest, before);
    let moved = settle(&mut docs);
    assert!(moved.iter().any(|effect| matches!(effect, Effect::Moved { .. })));
    let standing = docs.get(&name()).and_then(crate::doc::document::Document::marker).cloned().expect("buried");
    assert_eq!((standing.lamport, standing.reason.as_ref().map(Text::as_str)), (1, Some("old")));
}

#[test]
fn every_order_of_two_deletions_and_an_update_ends_the_same() {
    let content = saved(7);
    let mut ends = BTreeSet::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut docs = docs();
        for what in order {
            match what {
                0 => assert!(docs.bury(&name(), marker(4, "zulu"), CONN, PEER).is_ok()),
                1 => assert!(docs.bury(&name(), marker(5, "alpha"), CONN, PEER).is_ok()),
                _ => {
                    let payload = Payload::Saved(content.clone());
                    let _ = docs.deliver(&name(), Incoming { source: Source::Peer(CONN, PEER), payload });
                }
            }
            settle(&mut docs);
        }
        write(&mut docs);
        settle(&mut docs);
        let document = docs.get(&name()).expect("known");
        ends.insert((docs.scopes.sum(ScopeMask::ALL).digest.to_bytes(), document.marker().cloned(), document.exists()));
        assert_eq!(docs.lamport, 5);
    }
    assert_eq!(ends.len(), 1);
    assert_eq!(ends.first().map(|(_, marker_, _)| marker_.clone()), Some(Some(marker(5, "alpha"))));
}

#[test]
fn a_deletion_in_the_middle_of_anything_leaves_nothing_behind() {
    // With an edit that is not durable, one that is being written, content on its way in, and a worker at it.
    let mut docs = docs();
    docs.merge_inline = 0;
    put(&mut docs, 1);
    let batch = docs.flush(Time::ZERO).expect("an edit to write");
    put(&mut docs, 2);
    let payload = Payload::Saved(saved(9));
    docs.deliver(&name(), Incoming { source: Source::Peer(CONN, PEER), payload }).expect("taken");
    docs.effects.clear();
    assert!(docs.settle());
    let work = docs.effects.drain(..).find_map(|effect| match effect {
        Effect::Work(job) => Some(job),
        _ => None,
    });
    let payload = Payload::Saved(saved(10));
    docs.deliver(&name(), Incoming { source: Source::Peer(CONN, PEER), payload }).expect("taken");
    docs.bury(&name(), marker(1, "a"), CONN, PEER).expect("laid");
    docs.durable(batch.seq);
    docs.worked(work.expect("a job").run());
    let effects = settle(&mut docs);
    let refused = |effect: &&Effect| matches!(effect, Effect::Answered { outcome: Err(Refusal::Deleted), .. });
    assert_eq!(effects.iter().filter(refused).count(), 2);
    let ops = write(&mut docs);
    assert!(matches!(ops.as_slice(), [Op::Bury { .. }]), "{ops:?}");
    settle(&mut docs);
    assert_eq!((docs.received, docs.existing, docs.markers), (0, 0, 1));
    assert!(docs.is_saved());
    let edit = docs.edit(now(), &name(), 1 << 20, |tx| tx.put(ROOT, "x", 3));
    assert!(matches!(edit, Err(crate::EditError::Deleted)));
}

#[test]
fn a_burial_that_could_not_be_written_is_written_again() {
    let mut docs = docs();
    put(&mut docs, 1);
    write(&mut docs);
    docs.delete(now(), &name(), PeerId([1; 32]), None).expect("it is there");
    let batch = docs.flush(Time::ZERO).expect("a burial");
    docs.write_failed(batch.seq, crate::store::StoreFault::Full, Time::ZERO);
    settle(&mut docs);
    let later = docs.write_deadline().expect("it will be tried again");
    let batch = docs.flush(later).expect("again");
    assert_eq!((batch.seq, batch.ops.len()), (Seq(3), 1));
    assert!(matches!(batch.ops[0], Op::Bury { .. }));
}

#[test]
fn nobodys_word_deletes_what_the_policy_keeps() {
    let mut docs = docs();
    put(&mut docs, 1);
    let mut policy = docs.policy().of(&name());
    policy.deletion = Deletion::Immutable;
    docs.policy.set(name().collection(), policy);
    let outcome = docs.bury(&name(), marker(u64::MAX, "a"), CONN, PEER);
    assert!(matches!(outcome, Err(Refusal::NotAllowed)));
    assert!(docs.get(&name()).is_some_and(|document| document.exists()));
    assert_eq!((docs.markers, docs.lamport), (0, 0), "nor does it move the clock");
}

#[test]
fn what_the_policy_keeps_is_not_deleted() {
    let mut docs = docs();
    put(&mut docs, 1);
    for (deletion, error) in [(Deletion::Implicit, DeleteError::Expires), (Deletion::Immutable, DeleteError::Immutable)]
    {
        let mut table = docs.policy().clone();
        table.set("nodes", Policy { deletion, ..table.of_collection("nodes") });
        docs.set_policy(table);
        assert_eq!(docs.delete(now(), &name(), PEER, None), Err(error));
    }
    let absent = DocId::new("cells:none").expect("valid");
    assert_eq!(docs.delete(now(), &absent, PEER, None), Err(DeleteError::NotFound));
}

#[test]
fn markers_are_remembered_up_to_their_bound_and_no_time_of_a_peer_matters() {
    let mut docs = docs();
    docs.most_markers = 2;
    for (n, at_ms) in [(1, 0), (2, u64::MAX)] {
        let doc = DocId::new(&format!("cells:{n}")).expect("valid");
        docs.bury(&doc, Marker { at_ms, lamport: u64::MAX, ..marker(1, "a") }, CONN, PEER).expect("room");
    }
    assert_eq!(docs.bury(&name(), marker(1, "a"), CONN, PEER), Err(Refusal::Full));
    write(&mut docs);
    settle(&mut docs);
    // The clock stands at its end, and deleting still works.
    put(&mut docs, 1);
    docs.most_markers = 3;
    docs.delete(now(), &name(), PEER, None).expect("it is there");
    write(&mut docs);
    settle(&mut docs);
}
