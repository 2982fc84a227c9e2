//! What syncing costs, beside what fielded peers and Automerge alone need for the same, in one run: `just bench`, or
//! `just bench equal` for one table. Each situation at one, four and sixteen times the documents, with the exponent of growth:
//! 0 where the cost does not depend on their number, 1 where it is in proportion.
//!
//! Times are processor time of this thread, both sides together. What is above the bound that is promised is said at the end, and
//! the exit code is 1 then, and 2 for a table that does not exist.

use std::process::ExitCode;
use std::time::Duration;

use peat_tests::costs::{
    self, Corpus, Crossed, DIGEST, FirstSync, Judge, Meter, Pair, aircraft, edit_of_fielded, exchange_of_fielded,
    fields, naming_floor, reconciliation_of_fielded, timed,
};

/// Prints one table, and has its costs judged.
type Table = fn(&mut Judge);

fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let tables: [(&str, Table); 5] =
        [("edit", edit), ("equal", equal), ("changed", changed), ("hub", hub), ("first", first)];
    let mut judge = Judge::default();
    let mut printed = 0;
    for (name, table) in tables {
        if wanted.as_ref().is_none_or(|wanted| name == wanted) {
            table(&mut judge);
            printed += 1;
        }
    }
    if printed == 0 {
        eprintln!("no such table; there are {}", tables.map(|(name, _)| name).join(", "));
        return ExitCode::from(2);
    }
    match judge.verdict() {
        Ok(held) => {
            eprintln!("{held} costs are within their bounds");
            ExitCode::SUCCESS
        }
        Err(excesses) => {
            excesses.iter().for_each(|excess| eprintln!("too much: {excess}"));
            ExitCode::FAILURE
        }
    }
}

const EQUAL_FLOOR: &str = "floor: bytes of a digest each way";

/// One, four and sixteen times.
const SCALE: [usize; 3] = [1, 4, 16];

fn edit(judge: &mut Judge) {
    println!("\n## One field of a document of ten, to a peer that was level\n");
    header(&[
        "documents",
        "bytes",
        "floor: the change alone",
        "frames",
        "half round trips",
        "fielded: bytes",
        "fielded: frames",
    ]);
    let (fielded, raw) = edit_of_fielded(&fields("units", [0], 2));
    let mut growth = Growth::default();
    for count in SCALE.map(|scale| scale * 1_000) {
        let (meter, change) = costs::edit(count);
        judge.edit(count, &meter, change);
        let first = meter.bytes[0].documents;
        row(&[
            count.to_string(),
            format!("{first} there, {} in all", meter.all()),
            change.to_string(),
            format!("{} with data, {} in all", meter.data, meter.frames),
            meter.half_trips.to_string(),
            format!("{} (change {raw})", fielded.bytes),
            fielded.frames.to_string(),
        ]);
        growth.note(count, meter.all() as f64);
    }
    println!("\nGrowth of bytes: {growth}.");
}

fn equal(judge: &mut Judge) {
    println!("\n## Equal sets meet again\n");
    reconciliation_header(EQUAL_FLOOR, "negentropy: bytes");
    let (mut bytes, mut time) = (Growth::default(), Growth::default());
    for count in [10_000, 40_000, 160_000, 1_000_000] {
        let (meter, cpu) = met(&mut costs::equal(count));
        judge.level("equal sets", count, &meter);
        let fielded = reconciliation_of_fielded(count);
        reconciliation_row(count, &meter, cpu, 2 * DIGEST, fielded.bytes);
        if count <= 160_000 {
            bytes.note(count, meter.finding() as f64);
            time.note(count, cpu.as_secs_f64());
        }
    }
    println!("\nGrowth up to 160,000 of bytes: {bytes}; of processor time: {time}.");
}

fn changed(judge: &mut Judge) {
    for changes in [10, 1_000] {
        println!("\n## {changes} documents changed meanwhile\n");
        let floor = "floor: bytes of the bare names";
        reconciliation_header(floor, "fielded: bytes (one message of `automerge::sync` each way per document)");
        let each = exchange_of_fielded(&fields("units", 0..100, 2), false);
        let (mut bytes, mut time) = (Growth::default(), Growth::default());
        for count in [25_000, 100_000, 400_000] {
            let (meter, cpu) = met(&mut costs::changed(count, changes));
            judge.changed(changes, count, &meter);
            let fielded = each.bytes * count as u64 / 100;
            reconciliation_row(count, &meter, cpu, naming_floor(changes), fielded);
            bytes.note(count, meter.finding() as f64);
            time.note(count, cpu.as_secs_f64());
        }
        println!("\nGrowth of bytes: {bytes}; of processor time: {time}.");
    }
}

fn hub(judge: &mut Judge) {
    println!(
        "\n## A leaf and its hub, equal in what they share, each with more that the other has nothing to do with\n"
    );
    reconciliation_header(EQUAL_FLOOR, "negentropy over all: bytes");
    let mut bytes = Growth::default();
    for count in SCALE.map(|scale| scale * 25_000) {
        let (meter, cpu) = met(&mut costs::hub_and_leaf(count));
        judge.level("hub and leaf", count, &meter);
        let fielded = reconciliation_of_fielded(count + count / 10);
        reconciliation_row(count, &meter, cpu, 2 * DIGEST, fielded.bytes);
        bytes.note(count, meter.finding() as f64);
    }
    println!("\nGrowth of bytes: {bytes}.");
}

fn first(judge: &mut Judge) {
    println!("\n## First sync into an empty store on disk\n");
    header(&[
        "documents",
        "saved",
        "bytes",
        "ms",
        "floor: bytes",
        "floor: ms",
        "times the floor",
        "fielded: bytes",
        "fielded: frames",
    ]);
    let (mut bytes, mut time) = (Growth::default(), Growth::default());
    for count in SCALE.map(|scale| scale * 2_500) {
        let sync = first_row(&count.to_string(), &fields("units", 0..count, 7));
        if count == 10_000 {
            judge.first(&sync);
        }
        bytes.note(count, sync.bytes as f64);
        time.note(count, sync.time.as_secs_f64());
    }
    let aircraft = aircraft();
    first_row(&format!("{} aircraft", aircraft.documents.len()), &aircraft);
    println!("\nGrowth of bytes: {bytes}; of processor time: {time}.");
}

fn first_row(name: &str, corpus: &Corpus) -> FirstSync {
    let sync = FirstSync::median(corpus, 5);
    let FirstSync { bytes, floor_bytes, time: cpu, floor } = sync;
    let fielded: Crossed = exchange_of_fielded(corpus, true);
    row(&[
        name.to_owned(),
        corpus.bytes().to_string(),
        bytes.to_string(),
        millis(cpu),
        floor_bytes.to_string(),
        millis(floor),
        format!("{:.2}", sync.ratio()),
        fielded.bytes.to_string(),
        fielded.frames.to_string(),
    ]);
    sync
}

/// Lets both meet; what crossed, and the time that it took them.
fn met(pair: &mut Pair) -> (Meter, Duration) {
    let ((), time) = timed(|| pair.meet());
    let names = |side: usize| pair.heads(side).into_iter().filter(|(doc, _)| doc.collection() == "units");
    assert!(names(0).eq(names(1)), "both are equal in what they share");
    (pair.meter(), time)
}

fn reconciliation_header(floor: &str, fielded: &str) {
    header(&["documents", "bytes to find and name", "there", "back", "half round trips", "ms", floor, fielded]);
}

fn reconciliation_row(count: usize, meter: &Meter, cpu: Duration, floor: u64, fielded: u64) {
    let [there, back] = meter.bytes.map(|bytes| bytes.finding().to_string());
    let bytes = meter.finding().to_string();
    let (trips, floor, fielded) = (meter.half_trips.to_string(), floor.to_string(), fielded.to_string());
    row(&[count.to_string(), bytes, there, back, trips, millis(cpu), floor, fielded]);
}

fn header(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// How a cost grows with the number of documents: the slope between the first and the last point, both logarithmic.
#[derive(Default)]
struct Growth(Vec<(f64, f64)>);

impl Growth {
    fn note(&mut self, count: usize, cost: f64) {
        self.0.push((count as f64, cost.max(f64::MIN_POSITIVE)));
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => write!(f, "{:.2}", (last.1 / first.1).ln() / (last.0 / first.0).ln()),
            _ => write!(f, "unknown"),
        }
    }
}
