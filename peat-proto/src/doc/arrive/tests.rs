#![allow(clippy::disallowed_methods, reason = "documents of others are made as Automerge makes them")]

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ROOT};

use super::*;
use crate::config::Config;
use crate::id::{Boot, ConnId, PeerId};
use crate::time::{Now, Time};

const PEER: PeerId = PeerId([2; 32]);
const CONN: ConnId = ConnId(1);

/// What one bomb expands to; it arrives in less than a hundredth.
const BOMB: usize = 256 << 10;

/// Documents of which each may expand to four bombs, and no more.
fn docs() -> Docs {
    let mut config = Config::default();
    config.admit.expanded = 4 * BOMB + (8 << 10);
    let mut docs = Docs::new(&config, Boot { store: [1; 16], number: 1 }.actor(&PeerId([1; 32])));
    docs.note_time(Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 });
    docs
}

fn name(number: usize) -> DocId {
    DocId::new(&format!("notes:{number:03}")).expect("valid")
}

/// A change that builds on nothing, and sets `key` to a very long text of one letter.
fn bomb(key: usize) -> Bytes {
    let mut doc = Automerge::new().with_actor(ActorId::from(key.to_be_bytes()));
    let mut transaction = doc.transaction();
    transaction.put(ROOT, format!("{key}"), "a".repeat(BOMB)).expect("a put");
    transaction.commit();
    let bytes = doc.get_last_local_change().expect("it was just made").bytes().to_vec();
    assert!(bytes.len() < BOMB / 100, "{}", bytes.len());
    bytes.into()
}

fn deliver(docs: &mut Docs, doc: &DocId, payload: Payload) {
    docs.deliver(doc, Incoming { source: Source::Peer(CONN, PEER), payload }).expect("there is room");
}

/// Works until there is nothing left to do here, and runs the jobs too if it is to; what came of it.
fn work(docs: &mut Docs, jobs: &mut Vec<Job>, run: bool) -> Vec<Result<(), Refusal>> {
    let mut outcomes = Vec::new();
    loop {
        while docs.settle() {}
        for effect in std::mem::take(&mut docs.effects) {
            match effect {
                Effect::Work(job) => jobs.push(job),
                Effect::Answered { outcome, .. } => outcomes.push(outcome),
                _ => {}
            }
        }
        docs.check().expect("the invariants hold");
        match jobs.pop() {
            Some(job) if run => docs.worked(job.run()),
            Some(job) => {
                jobs.push(job);
                return outcomes;
            }
            None => return outcomes,
        }
    }
}

fn extent(docs: &Docs, doc: &DocId) -> usize {
    docs.get(doc).and_then(Document::live).map_or(0, |live| live.extent.bytes())
}

#[test]
fn the_chunks_of_one_word_share_the_limits_and_its_sender_is_refused() {
    let mut docs = docs();
    let word: Vec<Bytes> = (0..64).map(bomb).collect();
    deliver(&mut docs, &name(0), Payload::Changes(word.clone()));
    assert_eq!(work(&mut docs, &mut Vec::new(), true), [Err(Refusal::TooLarge)]);
    assert_eq!((docs.stats.too_large, docs.stats.refused, docs.received), (1, 1, 0));
    assert!(docs.get(&name(0)).is_none(), "nothing of it was taken");
    // The same behind each other in one chunk, and as few as are within the limits.
    deliver(&mut docs, &name(0), Payload::Saved(word.concat().into()));
    assert_eq!(work(&mut docs, &mut Vec::new(), true), [Err(Refusal::TooLarge)]);
    deliver(&mut docs, &name(0), Payload::Changes(word[..4].to_vec()));
    assert_eq!(work(&mut docs, &mut Vec::new(), true), [Ok(())]);
}

#[test]
fn a_document_does_not_outgrow_the_limits_word_by_word() {
    let mut docs = docs();
    let mut outcomes = Vec::new();
    for key in 0..16 {
        deliver(&mut docs, &name(0), Payload::Changes(vec![bomb(key)]));
        outcomes.append(&mut work(&mut docs, &mut Vec::new(), true));
    }
    let (taken, refused) = outcomes.split_at(4);
    assert!(taken.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(refused.iter().all(|outcome| *outcome == Err(Refusal::TooLarge)), "{outcomes:?}");
    assert!(extent(&docs, &name(0)) <= docs.limits.expanded);
    assert_eq!(docs.stats.too_large, 12);
}

#[test]
fn many_small_changes_are_no_large_document() {
    let mut docs = docs();
    docs.limits.expanded = 4 << 10;
    let mut doc = Automerge::new();
    let mut changes = Vec::new();
    for value in 0..100 {
        let mut transaction = doc.transaction();
        transaction.put(ROOT, "x", value).expect("a put");
        transaction.commit();
        changes.push(doc.get_last_local_change().expect("it was just made").bytes().to_vec().into());
    }
    let bytes: usize = changes.iter().map(Bytes::len).sum();
    assert!(bytes > 2 * docs.limits.expanded, "they would be too large as they came");
    for change in changes {
        deliver(&mut docs, &name(0), Payload::Changes(vec![change]));
        assert_eq!(work(&mut docs, &mut Vec::new(), true), [Ok(())]);
    }
}

#[test]
fn an_inbox_is_merged_in_portions_that_are_within_the_limits() {
    let mut docs = docs();
    let incoming = |key| Incoming { source: Source::Peer(CONN, PEER), payload: Payload::Changes(vec![bomb(key)]) };
    let mut inbox: Vec<Incoming> = (0..10).map(incoming).collect();
    let mut sizes = Vec::new();
    while !inbox.is_empty() {
        let portion = Portion::of(inbox, &docs.limits);
        sizes.push(portion.taken.len());
        assert!(portion.taken.iter().all(|(_, verdict)| verdict.is_ok()));
        inbox = portion.rest;
    }
    assert_eq!(sizes, [4, 4, 2]);
    // Who sent less than the limits is not blamed for what others sent.
    for key in 0..10 {
        deliver(&mut docs, &name(0), Payload::Changes(vec![bomb(key % 4)]));
    }
    assert_eq!(work(&mut docs, &mut Vec::new(), true), [Ok(()); 10]);
}

#[test]
fn a_bomb_ends_its_portion_and_its_neighbours_are_taken() {
    let docs = docs();
    let incoming = |chunks| Incoming { source: Source::Peer(CONN, PEER), payload: Payload::Changes(chunks) };
    let inbox = vec![incoming(vec![bomb(0)]), incoming((0..64).map(bomb).collect()), incoming(vec![bomb(1)])];
    let portion = Portion::of(inbox, &docs.limits);
    let verdicts: Vec<_> = portion.taken.iter().map(|(_, verdict)| verdict.map(|admitted| admitted.chunks)).collect();
    assert_eq!(verdicts, [Ok(1), Err(Refusal::TooLarge)]);
    assert_eq!(portion.rest.len(), 1);
}

#[test]
fn what_is_merged_and_not_durable_is_bounded_as_it_is_held_and_not_as_it_came() {
    let mut docs = docs();
    docs.most_received = 2 << 20;
    for number in 0..100 {
        deliver(&mut docs, &name(number), Payload::Changes(vec![bomb(number)]));
    }
    assert!(docs.received < docs.most_received, "they came in less than they take");
    let mut answered = work(&mut docs, &mut Vec::new(), true).len();
    assert!(answered < 12, "{answered} were merged");
    let mut writes = 0;
    while answered < 100 {
        assert!(docs.received - docs.waiting <= docs.most_received + BOMB + (4 << 10), "{}", docs.received);
        let batch = docs.flush(Time::ZERO).expect("what was merged");
        docs.durable(batch.seq);
        answered += work(&mut docs, &mut Vec::new(), true).len();
        writes += 1;
    }
    assert!(writes >= 10, "{writes}");
    assert_eq!(docs.existing, 100, "none was lost, and none refused");
}

#[test]
fn no_more_is_merged_at_once_than_there_are_workers() {
    let mut docs = docs();
    docs.merge_inline = 0;
    for number in 0..10 {
        deliver(&mut docs, &name(number), Payload::Changes(vec![bomb(number)]));
    }
    let mut jobs = Vec::new();
    work(&mut docs, &mut jobs, false);
    assert_eq!((jobs.len(), docs.stalled.len()), (MAX_MERGES, 10 - MAX_MERGES));
    docs.worked(jobs.pop().expect("a job").run());
    work(&mut docs, &mut jobs, false);
    assert_eq!((jobs.len(), docs.existing), (MAX_MERGES, 1));
    work(&mut docs, &mut jobs, true);
    assert_eq!((docs.existing, docs.stalled.len(), docs.merging), (10, 0, 0));
}

#[test]
fn what_is_small_and_expands_to_much_is_merged_by_a_worker() {
    let mut docs = docs();
    docs.limits.expanded = 8 << 20;
    deliver(&mut docs, &name(0), Payload::Changes((0..3).map(bomb).collect()));
    deliver(&mut docs, &name(1), Payload::Changes((0..8).map(bomb).collect()));
    let mut jobs = Vec::new();
    let outcomes = work(&mut docs, &mut jobs, false);
    assert_eq!(outcomes, [Ok(())]);
    assert_eq!(jobs.iter().map(|job| job.doc().clone()).collect::<Vec<_>>(), [name(1)]);
    assert_eq!(work(&mut docs, &mut jobs, true), [Ok(())]);
}
