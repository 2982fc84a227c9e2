//! The store contract of [`peat_proto::store`] as executable tests, for every store there is.
//!
//! A store is tested through the commands that the core gives and the answers that it takes, so that a store thread, a
//! plain [`Store`](super::Store) and the simulator's store can all be held to the same clauses.

use std::collections::BTreeSet;

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, Facts, Kind, Op, Record, StoreCommand, StoreFault, Stored};
use peat_proto::{DocId, Heads, LoadId, Marker, PeerId, Seq, Spread, Text};

/// A store under test.
pub trait Subject {
    /// Gives all these commands in order, and returns all answers in the order in which they came.
    fn run(&mut self, commands: Vec<StoreCommand>) -> Vec<Stored>;

    /// What a node would be told if it started now.
    fn entries(&mut self) -> Vec<Entry>;

    /// Closes the store cleanly and opens it again. `false`, without doing so, for a store that keeps nothing.
    fn reopen(&mut self) -> bool;

    /// Gives the commands, cuts the power after `steps` steps of whatever the store does, and opens what is left.
    /// Returns the answers that came before the cut, and whether it came before all were done; `None`, without doing
    /// anything, for a store that cannot be cut.
    fn crash(&mut self, commands: Vec<StoreCommand>, steps: u64) -> Option<(Vec<Stored>, bool)>;
}

/// Holds stores that `make` creates, empty, to every clause.
///
/// # Panics
/// A clause is broken; the message says which.
pub fn run<S: Subject>(mut make: impl FnMut() -> S) {
    appended_chunks_load_in_order(&mut make());
    replace_leaves_one_chunk(&mut make());
    a_load_sees_every_write_before_it_and_none_after(&mut make());
    every_command_is_answered_once_and_writes_in_order(&mut make());
    a_document_without_chunks_is_missing(&mut make());
    a_failed_batch_leaves_nothing(&mut make());
    a_batch_after_a_failed_one_is_its_own(&mut make());
    a_wrong_chunk_count_is_refused(&mut make());
    a_buried_document_leaves_its_record_and_a_removed_one_nothing(&mut make());
    peers_are_admitted_and_forgotten(&mut make());
    entries_are_what_was_written(&mut make());
    many_documents_all_stay(&mut make());
    a_crash_leaves_a_prefix_that_covers_what_was_durable(&mut make);
}

fn appended_chunks_load_in_order(store: &mut impl Subject) {
    let chunks: Vec<Bytes> = (0..20).map(|n| chunk(n, 10 * usize::from(n))).collect();
    let appends = (1..).zip(&chunks).map(|(n, chunk)| {
        let op = Op::Append { doc: doc("a:1"), record: record(n), chunk: chunk.clone() };
        write(u64::from(n), vec![op])
    });
    durable(store, appends.collect());
    assert_eq!(load(store, "a:1"), Ok(chunks), "chunks in order");
    assert_eq!(load(store, "a:10"), Err(StoreFault::Missing), "a name is not a prefix");
}

fn replace_leaves_one_chunk(store: &mut impl Subject) {
    durable(
        store,
        vec![
            write(1, vec![append("a:1", 1, b"x"), append("b:1", 1, b"neighbour")]),
            write(2, vec![append("a:1", 2, b"y")]),
            write(3, vec![replace("a:1", b"z")]),
            write(4, vec![replace("a:2", b"replaced without a predecessor")]),
        ],
    );
    assert_eq!(load(store, "a:1"), Ok(vec![Bytes::from_static(b"z")]));
    assert_eq!(load(store, "b:1").map(|chunks| chunks.len()), Ok(1));
    assert_eq!(load(store, "a:2").map(|chunks| chunks.len()), Ok(1));
    durable(store, vec![write(5, vec![append("a:1", 2, b"after")])]);
    let expected = [&b"z"[..], b"after"].map(Bytes::from_static);
    assert_eq!(load(store, "a:1"), Ok(expected.to_vec()));
}

fn a_load_sees_every_write_before_it_and_none_after(store: &mut impl Subject) {
    let load = |load| StoreCommand::Load { load: LoadId(load), doc: doc("a:1") };
    let answers = store.run(vec![
        load(0),
        write(1, vec![append("a:1", 1, b"1")]),
        load(1),
        write(2, vec![append("b:1", 1, b"elsewhere")]),
        write(3, vec![append("a:1", 2, b"2")]),
        load(2),
        write(4, vec![replace("a:1", b"3")]),
        load(3),
    ]);
    let seen = |id| {
        answers.iter().find_map(|answer| match answer {
            Stored::Loaded { load, chunks } if *load == LoadId(id) => Some(chunks.concat()),
            _ => None,
        })
    };
    assert!(
        answers
            .iter()
            .any(|answer| matches!(answer, Stored::LoadFailed { load: LoadId(0), fault: StoreFault::Missing })),
        "a load before the first write: {answers:?}"
    );
    assert_eq!(seen(1).as_deref(), Some(&b"1"[..]));
    assert_eq!(seen(2).as_deref(), Some(&b"12"[..]));
    assert_eq!(seen(3).as_deref(), Some(&b"3"[..]));
}

fn every_command_is_answered_once_and_writes_in_order(store: &mut impl Subject) {
    let mut commands = Vec::new();
    for n in 1..=50 {
        commands.push(write(n, vec![replace(&format!("a:{n}"), b"x")]));
        commands.push(StoreCommand::Load { load: LoadId(n), doc: doc(&format!("a:{}", n / 2 + 1)) });
    }
    let answers = store.run(commands);
    let written: Vec<u64> = answers.iter().filter_map(durable_seq).collect();
    assert_eq!(written, (1..=50).collect::<Vec<_>>(), "durable, in order");
    let loaded = answers.iter().filter_map(|answer| match answer {
        Stored::Loaded { load, .. } => Some(load.0),
        _ => None,
    });
    let mut loaded: Vec<u64> = loaded.collect();
    loaded.sort_unstable();
    assert_eq!(loaded, (1..=50).collect::<Vec<_>>(), "each load once");
    assert_eq!(answers.len(), 100, "and nothing else");
}

fn a_document_without_chunks_is_missing(store: &mut impl Subject) {
    assert_eq!(load(store, "a:1"), Err(StoreFault::Missing));
    assert!(store.entries().is_empty(), "a load creates nothing");
}

fn a_failed_batch_leaves_nothing(store: &mut impl Subject) {
    durable(store, vec![write(1, vec![append("a:1", 1, b"before")])]);
    let before = entries(store);
    let answers = store.run(vec![write(
        2,
        vec![
            replace("a:1", b"lost"),
            replace("a:2", b"lost"),
            Op::Admit { peer: peer(1) },
            append("a:3", 7, b"impossible"),
        ],
    )]);
    assert!(failed(&answers, 2), "{answers:?}");
    assert_eq!(entries(store), before, "nothing of the batch exists");
    assert_eq!(load(store, "a:1"), Ok(vec![Bytes::from_static(b"before")]));
    assert_eq!(load(store, "a:2"), Err(StoreFault::Missing));
}

fn a_batch_after_a_failed_one_is_its_own(store: &mut impl Subject) {
    let answers = store.run(vec![
        write(1, vec![append("a:1", 1, b"good")]),
        write(2, vec![append("a:1", 9, b"impossible")]),
        write(3, vec![append("a:2", 1, b"good")]),
    ]);
    let written: Vec<u64> = answers.iter().filter_map(durable_seq).collect();
    assert_eq!(written, [1, 3], "{answers:?}");
    assert!(failed(&answers, 2), "{answers:?}");
    assert_eq!(load(store, "a:1").map(|chunks| chunks.len()), Ok(1));
    assert_eq!(load(store, "a:2").map(|chunks| chunks.len()), Ok(1));
}

fn a_wrong_chunk_count_is_refused(store: &mut impl Subject) {
    durable(store, vec![write(1, vec![append("a:1", 1, b"x")])]);
    let replaced_by_two = Op::Replace { doc: doc("a:1"), record: record(2), chunk: Bytes::from_static(b"y") };
    let wrong = [
        append("a:1", 0, b"y"),
        append("a:1", 1, b"y"),
        append("a:1", 3, b"y"),
        append("a:2", 0, b"y"),
        append("a:2", 2, b"y"),
        replaced_by_two,
    ];
    for (seq, op) in (2..).zip(wrong) {
        let answers = store.run(vec![write(seq, vec![op.clone()])]);
        assert!(failed(&answers, seq), "{op:?}: {answers:?}");
    }
    assert_eq!(load(store, "a:1").map(|chunks| chunks.concat()), Ok(b"x".to_vec()));
    assert_eq!(load(store, "a:2"), Err(StoreFault::Missing));
}

fn a_buried_document_leaves_its_record_and_a_removed_one_nothing(store: &mut impl Subject) {
    durable(
        store,
        vec![write(1, vec![append("a:1", 1, b"x"), append("a:2", 1, b"x"), append("a:10", 1, b"neighbour")])],
    );
    durable(store, vec![write(2, vec![append("a:1", 2, b"y"), append("a:2", 2, b"y")])]);
    let load = |load, name| StoreCommand::Load { load: LoadId(load), doc: doc(name) };
    let ops = vec![bury("a:1"), Op::Remove { doc: doc("a:2") }, bury("never:1"), Op::Remove { doc: doc("never:2") }];
    let answers = store.run(vec![write(3, ops), load(1, "a:1"), load(2, "a:2"), load(3, "never:1")]);
    let missing =
        answers.iter().filter(|answer| matches!(answer, Stored::LoadFailed { fault: StoreFault::Missing, .. }));
    assert_eq!(missing.count(), 3, "loads behind the burial find nothing: {answers:?}");
    let marked = |name| Entry::Document { doc: doc(name), record: marker() };
    let neighbour = Entry::Document { doc: doc("a:10"), record: record(1) };
    let expected = sorted(vec![marked("a:1"), marked("never:1"), neighbour]);
    assert_eq!(entries(store), expected);
    if store.reopen() {
        assert_eq!(entries(store), expected, "reopened");
    }
    // Both names can be written again, from the first chunk on.
    durable(store, vec![write(4, vec![append("a:1", 1, b"new"), append("a:2", 1, b"new")])]);
    assert_eq!(self::load(store, "a:1").map(|chunks| chunks.concat()), Ok(b"new".to_vec()));
    let with_chunks = Op::Bury { doc: doc("a:10"), record: record(1) };
    let answers = store.run(vec![write(5, vec![with_chunks])]);
    assert!(failed(&answers, 5), "{answers:?}");
}

fn peers_are_admitted_and_forgotten(store: &mut impl Subject) {
    let admit = |n| Op::Admit { peer: peer(n) };
    let forget = |n| Op::Forget { peer: peer(n) };
    durable(
        store,
        vec![
            write(1, vec![admit(1), admit(2), admit(1)]),
            write(2, vec![forget(1), forget(9)]),
            write(3, vec![admit(3), forget(3), admit(4)]),
        ],
    );
    let expected = [Entry::Peer(peer(2)), Entry::Peer(peer(4))];
    assert_eq!(entries(store), sorted(expected.to_vec()));
    if store.reopen() {
        assert_eq!(entries(store), sorted(expected.to_vec()), "reopened");
    }
}

fn entries_are_what_was_written(store: &mut impl Subject) {
    let heads = [[9; 32], [3; 32], [200; 32]].map(peat_proto::automerge::ChangeHash);
    let rich = Record {
        kind: Kind::Automerge,
        heads: Heads::new(heads.to_vec()),
        bytes: u64::MAX,
        chunks: 1,
        shared: Some(7),
        facts: Facts { newest: Some(u64::MAX), deleted: true },
    };
    let foreign = Record { kind: Kind::Other(250), ..rich.clone() };
    let name = "ü:long/".to_owned() + &"x".repeat(500);
    let written = [("a:1", &rich), (name.as_str(), &foreign)];
    let ops = written.map(|(name, record)| Op::Replace {
        doc: doc(name),
        record: record.clone(),
        chunk: Bytes::from_static(b"\0\xff"),
    });
    durable(store, vec![write(1, ops.to_vec())]);
    let expected = written.map(|(name, record)| Entry::Document { doc: doc(name), record: record.clone() });
    let expected = sorted(expected.to_vec());
    assert_eq!(entries(store), expected, "unknown kinds and fences survive");
    if store.reopen() {
        assert_eq!(entries(store), expected, "reopened");
        let chunks = load(store, &name).map(|chunks| chunks.concat());
        assert_eq!(chunks, Ok(b"\0\xff".to_vec()), "reopened");
    }
}

fn many_documents_all_stay(store: &mut impl Subject) {
    const DOCUMENTS: usize = 20_000;
    let ops = (0..DOCUMENTS).map(|n| replace(&format!("a:{n}"), &n.to_be_bytes()));
    durable(store, vec![write(1, ops.collect())]);
    assert_eq!(store.entries().len(), DOCUMENTS);
    for n in [0, DOCUMENTS / 2, DOCUMENTS - 1] {
        let chunks = load(store, &format!("a:{n}")).map(|chunks| chunks.concat());
        assert_eq!(chunks, Ok(n.to_be_bytes().to_vec()));
    }
}

/// Each batch appends to a common document and creates one of its own, so that a prefix can be told from anything else.
fn a_crash_leaves_a_prefix_that_covers_what_was_durable<S: Subject>(make: &mut impl FnMut() -> S) {
    const BATCHES: u32 = 12;
    let mut prefixes = BTreeSet::new();
    for steps in 0.. {
        let mut store = make();
        let batches = (1..=BATCHES).map(|n| {
            let own = replace(&format!("own:{n}"), &[0; 3000]);
            let log = append("log:1", n, &n.to_be_bytes());
            // A load between them, so that they are not all one commit.
            [write(u64::from(n), vec![own, log]), StoreCommand::Load { load: LoadId(u64::from(n)), doc: doc("log:1") }]
        });
        let Some((answers, cut)) = store.crash(batches.flatten().collect(), steps) else {
            return;
        };
        let acknowledged = answers.iter().filter_map(durable_seq).max().unwrap_or(0);
        let log = match load(&mut store, "log:1") {
            Ok(chunks) => chunks,
            Err(StoreFault::Missing) => Vec::new(),
            Err(fault) => panic!("cut after {steps} steps: {fault}"),
        };
        let expected = (1..=BATCHES).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()));
        let expected: Vec<Bytes> = expected.take(log.len()).collect();
        assert_eq!(log, expected, "cut after {steps} steps: a prefix");
        assert!(
            log.len() as u64 >= acknowledged,
            "cut after {steps} steps: {acknowledged} were durable, {} are left",
            log.len()
        );
        let own = (1..=BATCHES).filter(|n| load(&mut store, &format!("own:{n}")).is_ok());
        let own: Vec<u32> = own.collect();
        let whole: Vec<u32> = (1..=BATCHES).take(log.len()).collect();
        assert_eq!(own, whole, "cut after {steps} steps: batches are whole");
        let documents = own.len() + usize::from(!log.is_empty());
        assert_eq!(store.entries().len(), documents, "cut after {steps} steps");
        prefixes.insert(log.len());
        if !cut {
            break;
        }
    }
    assert!(prefixes.len() > 3, "the cuts fell on too few moments to show anything: {prefixes:?}");
}

fn doc(name: &str) -> DocId {
    DocId::new(name).expect("the name is valid")
}

fn peer(n: u8) -> PeerId {
    PeerId([n; 32])
}

fn chunk(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

fn record(chunks: u32) -> Record {
    Record::automerge(Heads::default(), 0, chunks)
}

fn append(name: &str, chunks: u32, bytes: &[u8]) -> Op {
    Op::Append { doc: doc(name), record: record(chunks), chunk: Bytes::copy_from_slice(bytes) }
}

fn replace(name: &str, bytes: &[u8]) -> Op {
    Op::Replace { doc: doc(name), record: record(1), chunk: Bytes::copy_from_slice(bytes) }
}

fn bury(name: &str) -> Op {
    Op::Bury { doc: doc(name), record: marker() }
}

fn marker() -> Record {
    let by = Text::new("somebody").expect("short");
    let marker =
        Marker { incarnation: 0, lamport: 1, by, at_ms: 2, reason: Text::new("why"), spread: Spread::Downward };
    Record::marker(marker, Some(3))
}

fn write(seq: u64, ops: Vec<Op>) -> StoreCommand {
    let seq = Seq(seq);
    StoreCommand::Write(Batch { seq, ops })
}

fn load(store: &mut impl Subject, name: &str) -> Result<Vec<Bytes>, StoreFault> {
    let command = StoreCommand::Load { load: LoadId(77), doc: doc(name) };
    let mut answers = store.run(vec![command]);
    match (answers.pop(), answers.is_empty()) {
        (Some(Stored::Loaded { load: LoadId(77), chunks }), true) => Ok(chunks),
        (Some(Stored::LoadFailed { load: LoadId(77), fault }), true) => Err(fault),
        other => panic!("a load was answered by {other:?}"),
    }
}

/// Runs writes that must all become durable.
fn durable(store: &mut impl Subject, writes: Vec<StoreCommand>) {
    let count = writes.len();
    let answers = store.run(writes);
    let durable = answers.iter().filter_map(durable_seq).count();
    assert_eq!((durable, answers.len()), (count, count), "{answers:?}");
}

fn durable_seq(answer: &Stored) -> Option<u64> {
    match answer {
        Stored::Durable { seq } => Some(seq.0),
        _ => None,
    }
}

/// Whether exactly this batch failed, and because it does not fit.
fn failed(answers: &[Stored], batch: u64) -> bool {
    let mut failures = answers.iter().filter_map(|answer| match answer {
        Stored::WriteFailed { seq, fault } => Some((seq.0, *fault)),
        _ => None,
    });
    failures.next() == Some((batch, StoreFault::Damaged)) && failures.next().is_none()
}

fn entries(store: &mut impl Subject) -> Vec<Entry> {
    sorted(store.entries())
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| match entry {
        Entry::Document { doc, .. } => (Some(doc.clone()), None),
        Entry::Peer(peer) => (None, Some(*peer)),
    });
    entries
}
