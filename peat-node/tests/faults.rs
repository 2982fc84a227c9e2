//! A node whose disk fills up or fails: writes are refused, reads go on, and everything works again without a restart
//! once the disk does.

#[allow(dead_code, reason = "shared with other test programs")]
mod common;
#[allow(dead_code, reason = "shared with other test programs")]
mod faulty;

use std::thread;
use std::time::{Duration, Instant};

use common::Network;
use faulty::FaultyDisk;
use peat_node::proto::store::StoreFault;
use peat_node::store::disk::DiskStore;
use peat_node::{DocId, Identity, Node, Options, ReadError, WriteError};
use serde_json::{Value, json};

/// Far longer than anything here takes; reached only by a fault.
const LONG: Duration = Duration::from_secs(30);

fn doc(n: usize) -> DocId {
    DocId::new(&format!("notes:{n}")).expect("a valid name")
}

fn value(n: usize) -> Value {
    json!({"n": n, "text": n.to_string().repeat(2000)})
}

/// A node on this disk. It keeps no document in memory, so that reads go to the disk.
fn node(disk: &FaultyDisk, boot: u64) -> Node {
    let mut identity = Identity::random();
    identity.boot.number = boot;
    let mut options = Options::default();
    options.config.cache_bytes = 0;
    let store = DiskStore::with_backend(disk.clone()).expect("the store opens");
    Node::with_store(identity, Box::new(store), options).expect("the node opens")
}

/// Writes documents until the disk refuses one; how many were acknowledged, and the fault.
fn write_until_refused(node: &Node, mut next: usize) -> (usize, StoreFault) {
    loop {
        match node.put(&doc(next), value(next)).wait() {
            Ok(()) => next += 1,
            Err(WriteError::Store(fault)) => return (next, fault),
            Err(other) => panic!("{other}"),
        }
        assert!(next < 5000, "the disk was to refuse");
    }
}

/// The node tries the disk again by itself; until it has, it refuses what is new.
fn write_when_healed(node: &Node, n: usize) {
    let since = Instant::now();
    while let Err(error) = node.put(&doc(n), value(n)).wait() {
        assert!(matches!(error, WriteError::Store(_)), "{error}");
        assert!(since.elapsed() < LONG, "it does not recover: {error}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_holds(node: &Node, count: usize) {
    for n in 0..count {
        assert_eq!(node.get(&doc(n)).wait(), Ok(Some(value(n))), "document {n} of {count}");
    }
}

/// What another process would find after the power was cut now.
#[track_caller]
fn assert_survives(disk: &FaultyDisk, count: usize) {
    for cut in 0..3 {
        assert_holds(&node(&disk.after_power_cut(cut), 2 + cut), count);
    }
}

/// Waits until `b` has what `a` has. `a` knows that, and what `b` knows may be of yesterday.
#[track_caller]
fn level(a: &Node, b: &Node) {
    let (done, waited) = flume::bounded(1);
    let level = a.level_with(&b.id());
    thread::spawn(move || done.send(level.wait()));
    let outcome = waited.recv_timeout(LONG);
    let stats = |node: &Node| node.stats().wait();
    assert_eq!(outcome, Ok(Ok(())), "{:#?}{:#?}", stats(a), stats(b));
}

fn refuses_and_recovers(break_disk: impl Fn(&FaultyDisk), expected: StoreFault) {
    let disk = FaultyDisk::seeded(7);
    let a = node(&disk, 1);
    let network = Network::default();
    let b = Node::in_memory(Options::default());
    network.attach(&a);
    network.attach(&b);
    b.join(&a.ticket());
    for n in 0..20 {
        a.put(&doc(n), value(n)).wait().expect("durable");
    }
    level(&a, &b);

    break_disk(&disk);
    let (acknowledged, fault) = write_until_refused(&a, 20);
    assert_eq!(fault, expected);
    assert_holds(&a, acknowledged);
    assert_survives(&disk, acknowledged);
    // Nothing more is taken in, and nothing that is not durable leaves the node.
    let again = a.put(&doc(acknowledged + 1), value(0)).wait();
    assert!(matches!(again, Err(WriteError::Store(_))), "{again:?}");
    thread::sleep(Duration::from_millis(300));
    let at_b = b.list("").wait().expect("listed");
    assert!(at_b.len() <= acknowledged, "{} of {acknowledged}", at_b.len());
    assert!(a.stats().wait().expect("open").store_faults > 0);

    disk.heal();
    write_when_healed(&a, acknowledged + 2);
    // The refused write was tried again until the disk took it.
    assert_holds(&a, acknowledged + 1);
    assert_survives(&disk, acknowledged + 1);
    level(&a, &b);
    assert_holds(&b, acknowledged + 1);
    assert_eq!(b.get(&doc(acknowledged + 1)).wait(), Ok(None), "it was refused before anything was changed");
    assert_eq!(b.get(&doc(acknowledged + 2)).wait(), Ok(Some(value(acknowledged + 2))));
    assert_eq!(a.close().wait(), Ok(()));
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    for room in [30, 100] {
        let fill = |disk: &FaultyDisk| {
            let capacity = disk.pages_used() + room;
            disk.set(|disk| disk.capacity = Some(capacity));
        };
        refuses_and_recovers(fill, StoreFault::Full);
    }
}

#[test]
fn a_disk_that_does_not_sync_refuses_writes_serves_reads_and_recovers() {
    refuses_and_recovers(|disk| disk.set(|disk| disk.sync_fails = true), StoreFault::Io);
}

#[test]
fn a_disk_that_fails_once_costs_one_write_at_most() {
    for steps in 0..12 {
        let disk = FaultyDisk::seeded(steps);
        let a = node(&disk, 1);
        a.put(&doc(0), value(0)).wait().expect("durable");
        disk.set(|disk| disk.steps_to_fault = Some(steps));
        let (mut written, mut refused) = (1, 0);
        for n in 1..10 {
            match a.put(&doc(n), value(n)).wait() {
                Ok(()) => written += 1,
                Err(WriteError::Store(fault)) => {
                    assert_eq!(fault, StoreFault::Io);
                    refused += 1;
                    write_when_healed(&a, n);
                    written += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(refused <= 1, "{refused} refused");
        assert_holds(&a, written);
        assert_survives(&disk, written);
    }
}

#[test]
fn a_document_that_cannot_be_read_is_an_error_and_never_absent() {
    let disk = FaultyDisk::seeded(3);
    let a = node(&disk, 1);
    // More than redb's cache holds.
    let large = json!({"text": "x".repeat(100_000)});
    let writes: Vec<_> = (0..300).map(|n| a.put(&doc(n), json!({"n": n, "text": noise(n)}))).collect();
    writes.into_iter().for_each(|write| write.wait().expect("durable"));
    disk.set(|disk| disk.read_fails = true);
    let mut failed = 0;
    for n in 0..300 {
        match a.get(&doc(n)).wait() {
            Ok(Some(found)) => assert_eq!(found["n"], n),
            Ok(None) => panic!("document {n} is said not to exist"),
            Err(error) => {
                assert_eq!(error, ReadError::Store(StoreFault::Io));
                // Nor is it overwritten by somebody who takes it for absent.
                let put = a.put(&doc(n), large.clone()).wait();
                assert_eq!(put, Err(WriteError::Unreadable(StoreFault::Io)));
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "the fault was met");
    disk.heal();
    for n in 0..300 {
        assert_eq!(a.get(&doc(n)).wait().expect("readable").expect("there")["n"], n);
    }
    a.put(&doc(0), json!({"n": 0})).wait().expect("writes work");
}

/// 100 kB that do not compress.
fn noise(seed: usize) -> String {
    let mut rng = peat_node::proto::Rng::new([u8::try_from(seed % 251).expect("small"); 32]);
    (0..6_250).map(|_| format!("{:016x}", rng.draw())).collect()
}
