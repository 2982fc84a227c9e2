//! Ten minutes of real air traffic, imported while each of two nodes is killed once.
//!
//! # How it is judged
//! The importer sends a row again unless its acknowledgement arrived. A row that became durable just before the kill is
//! therefore written twice, which nobody can tell from outside; but no row may be missing. So the history of every
//! document, change by change, must show the state of each of its rows, in the order of the file. As all rows differ from
//! the one before, that needs at least one change for each. Both stores must hold the same changes, heads and content.
//! And the history must be one line: a change that left its node and was lost there would make a fork.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;
use peat_node::proto::automerge::{Automerge, Change, ROOT, ReadDoc};
use peat_node::proto::{Heads, Rng};
use peat_node::{Node, Options};
use serde_json::{Map, Value, json};

use crate::control::Control;
use crate::harness::{Serve, serve, serve_on, temporary};

const SAMPLE: &[u8] = include_bytes!("../../data/adsb-10min.csv.gz");
const ROWS: usize = 18_683;
const DOCUMENTS: usize = 50;
/// Rows that are sent before the oldest of them is acknowledged.
const WINDOW: usize = 512;

/// A row of the sample: the document, and its fields without the empty ones.
struct Row {
    key: String,
    request: Value,
    state: Map<String, Value>,
}

/// Two processes; each is started again in the place where it was killed.
struct Pair {
    dirs: [tempfile::TempDir; 2],
    addrs: [String; 2],
    /// Whom to join after a restart: each dials the other, because that one notices a kill only by long silence.
    tickets: [String; 2],
    serving: [Option<Serve>; 2],
}

/// The import into one node, over its control socket.
struct Import<'a> {
    rows: &'a [Row],
    control: Control,
    sent: usize,
    acknowledged: usize,
}

#[test]
fn an_import_loses_nothing_though_both_nodes_are_killed_meanwhile() {
    let seed = std::env::var("PEAT_SEED").map_or(1, |seed| seed.parse().expect("PEAT_SEED is a number"));
    println!("PEAT_SEED={seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&u64::to_be_bytes(seed));
    let mut rng = Rng::new(key);
    let rows = sample();
    assert_eq!(rows.len(), ROWS);

    // Between the first quarter and the last: the nodes are at work, and not equal because rows are missing.
    let mut moment = || ROWS / 4 + usize::try_from(rng.below(ROWS as u64 / 2)).expect("small");
    let mut kills = [(moment(), 0), (moment(), 1)];
    kills.sort_unstable();
    let mut kills = VecDeque::from(kills);

    let began = std::time::Instant::now();
    let mut pair = Pair::start();
    let mut import = Import { rows: &rows, control: pair.control(0), sent: 0, acknowledged: 0 };
    while import.acknowledged < ROWS {
        import.go_on();
        while let Some((_, side)) = kills.pop_front_if(|(at, _)| *at <= import.acknowledged) {
            std::thread::sleep(Duration::from_micros(rng.below(20_000)));
            pair.kill(side);
            if side == 0 {
                import.hear_the_rest();
            }
            pair.restart(side);
            if side == 0 {
                import.resume(pair.control(0));
            }
        }
    }
    assert!(kills.is_empty(), "both were killed");

    println!("imported after {:?}", began.elapsed());
    let [a, b] = pair.serving.map(|serving| serving.expect("runs"));
    Control::connect(&a.dir).expect("serves").level_with(&b.id);
    Control::connect(&b.dir).expect("serves").level_with(&a.id);
    a.end();
    b.end();
    println!("equal after {:?}", began.elapsed());
    let [a, b] = pair.dirs;
    judge(&rows, &read(a.path()), &read(b.path()));
}

impl Pair {
    fn start() -> Self {
        let dirs = [temporary(), temporary()];
        let a = serve(dirs[0].path(), &[]);
        let b = serve(dirs[1].path(), &["--join", &a.ticket]);
        let tickets = [b.ticket.clone(), a.ticket.clone()];
        let addrs = [a.addr(), b.addr()];
        Self { dirs, addrs, tickets, serving: [Some(a), Some(b)] }
    }

    fn control(&self, side: usize) -> Control {
        Control::connect(self.dirs[side].path()).expect("serves")
    }

    fn kill(&mut self, side: usize) {
        self.serving[side].take().expect("runs").kill();
    }

    /// The same command again, as a service manager does it.
    fn restart(&mut self, side: usize) {
        let join = ["--join", &self.tickets[side]];
        self.serving[side] = Some(serve_on(&self.addrs[side], self.dirs[side].path(), &join));
    }
}

impl Import<'_> {
    /// Sends as many rows as may be under way, and waits for one acknowledgement.
    fn go_on(&mut self) {
        while let Some(row) = self.rows.get(self.sent).filter(|_| self.sent - self.acknowledged < WINDOW) {
            self.control.send(&row.request).expect("serve takes rows");
            self.sent += 1;
        }
        self.control.flush().expect("serve takes rows");
        let outcome = self.control.receive().expect("serve answers");
        outcome.expect("the row is imported");
        self.acknowledged += 1;
    }

    /// The node was killed. What it had said before counts.
    fn hear_the_rest(&mut self) {
        while let Ok(outcome) = self.control.receive() {
            outcome.expect("the row was imported");
            self.acknowledged += 1;
        }
    }

    /// Sends again what was not acknowledged.
    fn resume(&mut self, control: Control) {
        self.control = control;
        self.sent = self.acknowledged;
    }
}

fn sample() -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(GzDecoder::new(SAMPLE));
    let names = reader.headers().expect("a header").clone();
    let row = |record: csv::StringRecord| {
        let cells = || names.iter().zip(&record);
        let fields: Vec<Value> =
            cells().map(|(name, cell)| json!([name, (!cell.is_empty()).then_some(cell)])).collect();
        let state = cells().filter(|(_, cell)| !cell.is_empty()).map(|(name, cell)| (name.to_owned(), cell.into()));
        let key = format!("tracks:{}", &record[1]);
        Row { request: json!({"op": "set", "key": key, "fields": fields}), key, state: state.collect() }
    };
    reader.records().map(|record| row(record.expect("a row"))).collect()
}

/// A document as a store holds it, and its state after each of its changes.
#[derive(Debug, PartialEq)]
struct Held {
    heads: Heads,
    content: Value,
    changes: Vec<Change>,
}

/// Every document of the store in `dir`, by its key.
fn read(dir: &Path) -> BTreeMap<String, Held> {
    let node = Node::open(dir, Options::default()).expect("the store opens");
    let listed = node.list("").wait().expect("listed");
    let held = listed.into_iter().map(|listing| {
        let saved = node.export(&listing.doc).wait().expect("readable").expect("there");
        let content = node.get(&listing.doc).wait().expect("readable").expect("there");
        let mut changes = Automerge::load(&saved).expect("Automerge").get_changes(&[]);
        changes.sort_by_key(Change::max_op);
        (listing.doc.to_string(), Held { heads: listing.heads, content, changes })
    });
    held.collect()
}

fn judge(rows: &[Row], a: &BTreeMap<String, Held>, b: &BTreeMap<String, Held>) {
    assert_eq!(a.len(), DOCUMENTS);
    assert!(a.keys().eq(b.keys()));
    let mut changes = 0;
    for (key, held) in a {
        assert_eq!(held.heads, b[key].heads, "{key}");
        assert_eq!(held.content, b[key].content, "{key}");
        assert!(held.changes == b[key].changes, "{key}: other changes");
        changes += held.changes.len();

        let mut rows = rows.iter().filter(|row| row.key == *key);
        let mut next = rows.next();
        let mut last = None;
        let mut document = Automerge::new();
        for (at, change) in held.changes.iter().enumerate() {
            assert_eq!(change.deps().len(), at.min(1), "{key}: change {at} makes a fork");
            document.apply_changes([change.clone()]).expect("applies");
            if let Some(row) = next.filter(|row| state(&document) == row.state) {
                last = Some(row);
                next = rows.next();
            }
        }
        assert!(next.is_none(), "{key}: {} rows are missing", 1 + rows.count());
        assert_eq!(held.content, Value::Object(last.expect("a row").state.clone()), "{key}: not the last row");
    }
    println!("{changes} changes for {ROWS} rows");
    assert!(changes >= ROWS, "{changes} changes");
}

fn state(document: &Automerge) -> Map<String, Value> {
    let field = |item: peat_node::proto::automerge::iter::MapRangeItem<'_>| {
        (item.key.to_string(), Value::from(item.value.into_value().into_string().expect("text")))
    };
    document.map_range(ROOT, ..).map(field).collect()
}
