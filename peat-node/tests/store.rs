//! Stores held to the contract, and the redb store on a disk that fills up, loses writes and is cut off.

use std::collections::BTreeMap;
use std::sync::mpsc;

use peat_node::proto::store::{Batch, Entry, Op, Record, StoreCommand, StoreFault, Stored};
use peat_node::proto::{Heads, Rng, Seq};
use peat_node::store::conformance::{self, Subject};
use peat_node::store::disk::DiskStore;
use peat_node::store::memory::MemoryStore;
use peat_node::store::thread::{StoreThread, execute};
use peat_node::store::{OpenFault, Store};
use peat_node::{DocId, PeerId};

mod faulty;
use faulty::FaultyDisk;

struct Memory(MemoryStore);

impl Subject for Memory {
    fn run(&mut self, commands: Vec<StoreCommand>) -> Vec<Stored> {
        run(&mut self.0, commands)
    }
    fn entries(&mut self) -> Vec<Entry> {
        self.0.entries().expect("memory can be read")
    }
    fn reopen(&mut self) -> bool {
        false
    }
    fn crash(&mut self, _: Vec<StoreCommand>, _: u64) -> Option<(Vec<Stored>, bool)> {
        None
    }
}

#[test]
fn memory_store_keeps_the_contract() {
    conformance::run(|| Memory(MemoryStore::default()));
}

struct OnFile {
    dir: tempfile::TempDir,
    store: Option<Box<DiskStore>>,
}

impl OnFile {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = DiskStore::create(&dir.path().join("store")).expect("creates");
        let store = Some(Box::new(store));
        Self { dir, store }
    }
    fn store(&mut self) -> &mut DiskStore {
        self.store.as_mut().expect("open")
    }
}

impl Subject for OnFile {
    fn run(&mut self, commands: Vec<StoreCommand>) -> Vec<Stored> {
        run(self.store(), commands)
    }
    fn entries(&mut self) -> Vec<Entry> {
        self.store().entries().expect("the file can be read")
    }
    fn reopen(&mut self) -> bool {
        self.store.take().expect("open").close().expect("closes");
        let store = DiskStore::open(&self.dir.path().join("store")).expect("opens");
        self.store = Some(Box::new(store));
        true
    }
    fn crash(&mut self, _: Vec<StoreCommand>, _: u64) -> Option<(Vec<Stored>, bool)> {
        None
    }
}

#[test]
fn disk_store_keeps_the_contract_on_a_file() {
    conformance::run(OnFile::new);
}

struct OnFaultyDisk {
    disk: FaultyDisk,
    store: DiskStore,
}

impl OnFaultyDisk {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let store = open(&disk);
        Self { disk, store }
    }
}

impl Subject for OnFaultyDisk {
    fn run(&mut self, commands: Vec<StoreCommand>) -> Vec<Stored> {
        run(&mut self.store, commands)
    }
    fn entries(&mut self) -> Vec<Entry> {
        self.store.entries().expect("the disk can be read")
    }
    fn reopen(&mut self) -> bool {
        let elsewhere = open(&FaultyDisk::default());
        let closing = std::mem::replace(&mut self.store, elsewhere);
        Box::new(closing).close().expect("closes");
        self.store = open(&self.disk);
        true
    }
    fn crash(&mut self, commands: Vec<StoreCommand>, steps: u64) -> Option<(Vec<Stored>, bool)> {
        self.disk.set(|disk| disk.steps_left = Some(steps));
        let mut answers = Vec::new();
        execute(&mut self.store, commands, |answer| {
            // What is said after the power is gone reaches nobody.
            if !self.disk.is_cut() {
                answers.push(answer);
            }
        });
        let cut = self.disk.is_cut();
        self.disk = self.disk.after_power_cut(steps);
        self.store = open(&self.disk);
        Some((answers, cut))
    }
}

#[test]
fn disk_store_keeps_the_contract_when_the_power_is_cut() {
    conformance::run(OnFaultyDisk::new);
}

/// The thread owns its store, so a second one that is told the same says what the first must hold.
struct Threaded {
    thread: StoreThread,
    answers: mpsc::Receiver<Stored>,
    twin: MemoryStore,
}

impl Subject for Threaded {
    fn run(&mut self, commands: Vec<StoreCommand>) -> Vec<Stored> {
        let count = commands.len();
        run(&mut self.twin, commands.clone());
        for command in commands {
            self.thread.send(command).expect("the thread runs");
        }
        let answers = (0..count).map(|_| self.answers.recv().expect("an answer"));
        answers.collect()
    }
    fn entries(&mut self) -> Vec<Entry> {
        self.twin.entries().expect("memory can be read")
    }
    fn reopen(&mut self) -> bool {
        false
    }
    fn crash(&mut self, _: Vec<StoreCommand>, _: u64) -> Option<(Vec<Stored>, bool)> {
        None
    }
}

#[test]
fn store_thread_keeps_the_contract() {
    conformance::run(|| {
        let (thread, answers) = spawn(Box::new(MemoryStore::default()));
        Threaded { thread, answers, twin: MemoryStore::default() }
    });
}

#[test]
fn closing_the_thread_answers_everything_and_closes_the_store() {
    let disk = FaultyDisk::default();
    let (thread, answers) = spawn(Box::new(open(&disk)));
    for n in 1..=200 {
        let command = StoreCommand::Write(batch(n, vec![append("a:1", n, 100)]));
        thread.send(command).expect("the thread runs");
    }
    assert_eq!(thread.close(), Ok(()));
    let durable = answers.iter().map(|answer| match answer {
        Stored::Durable { seq } => seq.0,
        other => panic!("{other:?}"),
    });
    assert!(durable.eq(1..=200), "all, in order, before the end");
    assert_eq!(count(&mut open(&disk), "a:1"), Ok(200));
}

#[test]
fn a_group_of_batches_costs_one_fsync() {
    let disk = FaultyDisk::default();
    let mut store = open(&disk);
    let first = batch(1, vec![append("a:1", 1, 100)]);
    store.apply(&[first]).expect("writes");
    let before = disk.syncs();
    let group = (2..=40).map(|n| batch(n, vec![append("a:1", n, 100)]));
    store.apply(&group.collect::<Vec<_>>()).expect("writes");
    assert_eq!(disk.syncs() - before, 1);
}

/// For disks of several sizes: fill one, read, make room, go on without opening anything by hand.
#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    for pages in (20..120).step_by(7) {
        let disk = FaultyDisk::default();
        let mut store = open(&disk);
        let room = disk.pages_used() + pages;
        disk.set(|disk| disk.capacity = Some(room));
        let next = |n| [batch(n, vec![append("a:1", n, 10_000)])];
        let mut written = 0;
        let fault = loop {
            match store.apply(&next(written + 1)) {
                Ok(()) => written += 1,
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, StoreFault::Full, "{pages} pages");
        assert!(written > 0, "{pages} pages");
        let kept = |store: &mut DiskStore| count(store, "a:1").expect("reads go on");
        assert_eq!(kept(&mut store), written, "{pages} pages: nothing of the rest");
        assert_eq!(store.apply(&next(written + 1)), Err(StoreFault::Full));
        let mut after = open(&disk.after_power_cut(pages as u64));
        assert_eq!(kept(&mut after), written, "{pages} pages: power cut");

        disk.heal();
        assert_eq!(store.apply(&next(written + 1)), Ok(()), "{pages} pages: room");
        assert_eq!(kept(&mut store), written + 1);
        let mut after = open(&disk.after_power_cut(pages as u64));
        assert_eq!(kept(&mut after), written + 1, "{pages} pages: power cut");
    }
}

/// After a failed fsync the disk has some of the pages, and the cache pretends to have all of them.
#[test]
fn a_failed_fsync_fails_the_write_and_loses_nothing_acknowledged() {
    for seed in 0..40 {
        let disk = FaultyDisk::seeded(seed);
        let mut store = open(&disk);
        for n in 1..=5 {
            let ops = vec![append("a:1", n, 3000), replace(&format!("b:{n}"), 500)];
            store.apply(&[batch(n, ops)]).expect("writes");
        }
        disk.set(|disk| disk.sync_fails = true);
        let refused = [batch(6, vec![append("a:1", 6, 3000), replace("b:6", 9)])];
        for _ in 0..2 {
            assert_eq!(store.apply(&refused), Err(StoreFault::Io));
            assert_eq!(count(&mut store, "a:1"), Ok(5), "reads go on");
            assert_eq!(store.load(&doc("b:6")), Err(StoreFault::Missing));
        }
        disk.heal();
        assert_eq!(store.apply(&refused), Ok(()), "the same batch, accepted");
        for cut in 0..3 {
            let mut after = open(&disk.after_power_cut(cut));
            assert_eq!(count(&mut after, "a:1"), Ok(6), "what the disk itself has");
            assert_eq!(contents(&mut after).len(), 7);
        }
    }
}

/// redb shortens the file after a commit. When that fails it reports the commit as failed, though it is durable.
#[test]
fn a_write_that_took_place_is_not_reported_as_failed() {
    let disk = FaultyDisk::default();
    let mut store = open(&disk);
    let mut seq = 0;
    let mut write = |store: &mut DiskStore, op| {
        seq += 1;
        store.apply(&[batch(seq, vec![op])])
    };
    for n in 0..400 {
        write(&mut store, replace(&format!("a:{n}"), 40_000)).expect("the file grows");
    }
    disk.set(|disk| disk.shrink_fails = true);
    let mut appended = 0;
    while disk.shrinks_failed() < 3 {
        let freed = replace(&format!("a:{}", 399 - appended), 10);
        assert_eq!(write(&mut store, freed), Ok(()));
        appended += 1;
        assert_eq!(write(&mut store, append("b:1", appended, 10)), Ok(()));
        assert!(appended < 400, "redb did not try");
    }
    let mut after = open(&disk.after_power_cut(1));
    assert_eq!(count(&mut after, "b:1"), Ok(appended));
}

#[test]
fn a_read_error_is_an_error_and_passes() {
    let disk = FaultyDisk::default();
    let mut store = open(&disk);
    // More than redb's cache holds, so that reads reach the disk.
    let ops = (0..600).map(|n| replace(&format!("a:{n}"), 60_000));
    store.apply(&[batch(1, ops.collect())]).expect("writes");
    disk.set(|disk| disk.read_fails = true);
    let mut failed = 0;
    for n in (0..600).step_by(20) {
        match count(&mut store, &format!("a:{n}")) {
            Ok(chunks) => assert_eq!(chunks, 1),
            Err(fault) => {
                assert_eq!(fault, StoreFault::Io, "never `not there`");
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "the fault was met");
    assert_eq!(store.entries(), Err(OpenFault::Store(StoreFault::Io)));
    disk.heal();
    assert_eq!(contents(&mut store).len(), 600);
    let write = batch(2, vec![append("a:0", 2, 10)]);
    assert_eq!(store.apply(&[write]), Ok(()), "writes work again");
}

/// Random writes, faults and power cuts against a model.
#[test]
fn nothing_acknowledged_is_lost_under_random_faults() {
    let (mut failures, mut cuts) = (0, 0);
    for seed in 0..30_u8 {
        let mut rng = Rng::new([seed; 32]);
        let mut disk = FaultyDisk::seeded(u64::from(seed));
        let mut store = open(&disk);
        let mut model = BTreeMap::new();
        // A batch that failed may appear after a power cut if the disk has not recovered before it: the disk took it
        // and could not say so.
        let mut doubtful = None;
        for seq in 1..120 {
            let at = format!("seed {seed}, step {seq}");
            match rng.below(12) {
                0 => disk.set(|disk| disk.sync_fails = true),
                1 => disk.set(|disk| disk.capacity = Some(disk.pages_used())),
                2 => disk.set(|disk| disk.steps_to_fault = Some(rng.below(12))),
                3 => {
                    cuts += 1;
                    disk = disk.after_power_cut(rng.draw());
                    store = open(&disk);
                    let found = contents(&mut store);
                    match doubtful.take() {
                        Some(doubtful) if found == doubtful => model = doubtful,
                        _ => assert_eq!(found, model, "{at}: power cut"),
                    }
                }
                4 | 5 => disk.heal(),
                _ => {
                    let mut next = model.clone();
                    let ops = (0..=rng.below(3)).map(|n| random_op(&mut rng, n, &mut next)).collect();
                    match store.apply(&[batch(seq, ops)]) {
                        Ok(()) => {
                            model = next;
                            doubtful = None;
                        }
                        Err(fault) => {
                            assert_ne!(fault, StoreFault::Damaged, "{at}");
                            failures += 1;
                            doubtful = Some(next);
                        }
                    }
                    assert_eq!(contents(&mut store), model, "{at}");
                }
            }
        }
        disk.heal();
        let peer = PeerId([1; 32]);
        let healed = store.apply(&[batch(1000, vec![Op::Admit { peer }])]);
        assert_eq!(healed, Ok(()), "seed {seed}");
        assert_eq!(contents(&mut store), model, "seed {seed}");
    }
    assert!(failures > 100 && cuts > 100, "{failures} failures, {cuts} cuts");
}

fn random_op(rng: &mut Rng, n: u64, model: &mut BTreeMap<String, u64>) -> Op {
    let name = format!("d{n}:{}", rng.below(4));
    let size = usize::try_from(rng.below(9000)).expect("small");
    let chunks = model.entry(name.clone()).or_default();
    if rng.below(4) == 0 {
        *chunks = 1;
        replace(&name, size)
    } else {
        *chunks += 1;
        append(&name, *chunks, size)
    }
}

/// redb may panic on a file that was altered behind its back; a node must not.
#[test]
fn a_damaged_file_is_refused_or_read_and_never_panics() {
    let disk = FaultyDisk::default();
    let mut store = open(&disk);
    let ops = (0..40).map(|n| replace(&format!("a:{n}"), 300));
    store.apply(&[batch(1, ops.collect())]).expect("writes");
    Box::new(store).close().expect("closes");
    let mut rng = Rng::new([3; 32]);
    let mut refused = 0;
    for _ in 0..300 {
        let damaged = disk.after_power_cut(0);
        let end = if rng.below(3) == 0 { 320 } else { 1 << 16 };
        damaged.damage(rng.below(end), 1 << rng.below(8));
        let outcome = DiskStore::with_backend(damaged).and_then(|mut store| {
            let entries = store.entries()?;
            let _ = store.load(&doc("a:7"))?;
            store.apply(&[batch(2, vec![append("a:7", 2, 10)])])?;
            Ok(entries)
        });
        refused += u64::from(outcome.is_err());
    }
    assert!(refused > 10, "{refused} of 300 were found damaged");
}

fn open(disk: &FaultyDisk) -> DiskStore {
    DiskStore::with_backend(disk.clone()).expect("the store opens")
}

fn run(store: &mut dyn Store, commands: Vec<StoreCommand>) -> Vec<Stored> {
    let mut answers = Vec::new();
    execute(store, commands, |answer| answers.push(answer));
    answers
}

fn spawn(store: Box<dyn Store>) -> (StoreThread, mpsc::Receiver<Stored>) {
    let (send, answers) = mpsc::channel();
    let answer = move |answer| send.send(answer).expect("the test listens");
    let thread = StoreThread::spawn(store, answer).expect("a thread");
    (thread, answers)
}

fn count(store: &mut DiskStore, name: &str) -> Result<u64, StoreFault> {
    store.load(&doc(name)).map(|chunks| chunks.len() as u64)
}

/// Every document with the number of its chunks, all loaded.
fn contents(store: &mut DiskStore) -> BTreeMap<String, u64> {
    let entries = store.entries().expect("the store can be read");
    let documents = entries.into_iter().filter_map(|entry| match entry {
        Entry::Document { doc, .. } => {
            let chunks = count(store, doc.as_str()).expect("a record has its chunks");
            Some((doc.to_string(), chunks))
        }
        Entry::Peer(_) => None,
    });
    documents.collect()
}

fn doc(name: &str) -> DocId {
    DocId::new(name).expect("the name is valid")
}

fn batch(seq: u64, ops: Vec<Op>) -> Batch {
    let seq = Seq(seq);
    Batch { seq, ops }
}

fn append(name: &str, chunks: u64, size: usize) -> Op {
    let chunks = u32::try_from(chunks).expect("small");
    Op::Append { doc: doc(name), record: Record::automerge(Heads::default(), 0, chunks), chunk: vec![7; size].into() }
}

fn replace(name: &str, size: usize) -> Op {
    Op::Replace { doc: doc(name), record: Record::automerge(Heads::default(), 0, 1), chunk: vec![8; size].into() }
}
