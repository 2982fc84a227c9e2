//! `peat demo`: two processes keep 50 documents of real air traffic equal, over real QUIC, each with a store of its own.
//!
//! One node imports ten minutes of aircraft positions, one change per row. Meanwhile the other edits 20 of the same documents. Then
//! both processes are stopped, and their stores are read back and compared.

mod compare;
mod stage;

use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::access::{Access, unexpected};
use crate::args::DemoTransport;
use crate::control::{Answer, Cell, Request, Status, Traffic};
use crate::failure::{Code, Failure};
use crate::import::{self, Row, csv};
use crate::output::Output;
use compare::Comparison;
use stage::{Process, Stage};

/// Recorded aircraft positions; `data/README.md` says from where.
const SAMPLE: &[u8] = include_bytes!("../data/adsb-10min.csv.gz");

/// Edits that the second node makes.
const EDITS: usize = 200;

/// Documents that it makes them in.
const EDITED: usize = 20;

/// Longest time for both nodes to be level after the last edit.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(transport: DemoTransport, output: &mut Output) -> Result<(), Failure> {
    let stage = Stage::new()?;
    let report = stage.guard(|| play(&stage, transport, output))?;
    output.data(&report, &report)?;
    if report.converged {
        return Ok(());
    }
    Err(Failure::new(
        Code::Unequal,
        "the two stores are not equal",
        "please report this with the output of `peat demo --json`",
    ))
}

fn play(stage: &Stage, transport: DemoTransport, output: &Output) -> Result<Report, Failure> {
    let rows: Vec<Row> = csv(GzDecoder::new(SAMPLE), "tracks", "icao24")?.collect();
    let edited = first_documents(&rows, EDITED);
    output.note("starting two `peat serve` processes on loopback, with fresh stores");
    let [on_a, on_b] = match transport {
        DemoTransport::Iroh => ["iroh", "iroh"],
        DemoTransport::Udp => ["udp", "udp"],
        DemoTransport::Mixed => ["udp", "iroh"],
    };
    let a = stage.serve("a", on_a, None)?;
    let b = stage.serve("b", on_b, Some(&a.ticket))?;

    output.note(format_args!(
        "importing {} recorded aircraft positions into node A, and making {EDITS} edits on node B meanwhile",
        rows.len()
    ));
    let started = Instant::now();
    let (mut to_a, mut to_b) = (a.access()?, b.access()?);
    let total = rows.len();
    let bar = progress(total, output);
    let (pace, due) = mpsc::channel();
    let editing = thread::spawn(move || edit(&mut to_b, &edited, &due).map(|()| to_b));
    let mut settled = 0;
    let imported = import::pump(&mut to_a, rows.into_iter(), |_, _| {
        settled += 1;
        bar.inc(1);
        // The edits are spread evenly over the import: the next is due whenever another part of it is acknowledged.
        if settled * EDITS / total > (settled - 1) * EDITS / total {
            let _ = pace.send(());
        }
    });
    drop(pace);
    let edits = editing.join().unwrap_or_else(|_| Err(unexpected()));
    let (imported, mut to_b) = (imported?, edits?);
    bar.finish_and_clear();
    if imported.failed > 0 {
        return Err(Failure::new(
            Code::RowsFailed,
            format!("{} of {} rows of the sample were refused", imported.failed, imported.rows),
            "please report this",
        ));
    }

    output.note("waiting until both nodes hold the same");
    level(&mut to_a, &b)?;
    level(&mut to_b, &a)?;
    let elapsed = started.elapsed();
    let traffic = [status(&mut to_a)?.traffic, status(&mut to_b)?.traffic];
    drop((to_a, to_b));
    let (dir_a, dir_b) = (a.stop()?, b.stop()?);

    output.note("both processes have ended; comparing their stores");
    let comparison = Comparison::of(&dir_a, &dir_b)?;
    Ok(Report::new(&comparison, imported.imported, traffic, elapsed))
}

/// The documents of the first rows.
fn first_documents(rows: &[Row], count: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let keys = rows.iter().filter_map(|row| match &row.request {
        Ok(Request::Set { key, .. }) => Some(key),
        _ => None,
    });
    keys.filter(|key| seen.insert(*key)).take(count).cloned().collect()
}

/// Makes the edits, each when it is due: a remark on an aircraft, next to the fields that the import sets.
fn edit(access: &mut Access, keys: &[String], due: &Receiver<()>) -> Result<(), Failure> {
    for (number, key) in keys.iter().cycle().take(EDITS).enumerate() {
        // When the import has failed the channel is closed, and the edits do not matter.
        if due.recv().is_err() {
            return Ok(());
        }
        let remark = Cell::Text(format!("seen by the second observer, remark {}", number + 1));
        access.call(Request::Set { key: key.clone(), fields: vec![("remark".to_owned(), remark)] })?;
    }
    Ok(())
}

fn level(access: &mut Access, peer: &Process) -> Result<(), Failure> {
    access.call(Request::Level { peer: peer.id.clone(), timeout: LEVEL_TIMEOUT }).map(|_| ())
}

fn status(access: &mut Access) -> Result<Status, Failure> {
    match access.call(Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

fn progress(rows: usize, output: &Output) -> ProgressBar {
    if output.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} updates, {per_sec}");
    ProgressBar::new(rows as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What the demo came to. Frames and bytes are those on the wire between the nodes, as the first node counts them.
#[derive(Debug, Serialize)]
struct Report {
    /// Documents in both stores.
    documents: u64,
    /// Changes that are in both stores.
    updates: u64,
    /// Changes that were made: rows of the sample and edits.
    expected_updates: u64,
    /// Frames in both directions.
    frames: u64,
    bytes_sent: u64,
    bytes_received: u64,
    elapsed_ms: u64,
    /// Whether every document has equal heads and equal content in both stores, and nothing that was acknowledged is missing.
    converged: bool,
    /// Documents that are not equal in both stores.
    unequal: Vec<String>,
    nodes: [Traffic; 2],
}

impl Report {
    fn new(comparison: &Comparison, rows: u64, nodes: [Traffic; 2], elapsed: Duration) -> Self {
        let expected_updates = rows + EDITS as u64;
        let [first, _] = nodes;
        Self {
            documents: comparison.documents,
            updates: comparison.updates,
            expected_updates,
            frames: first.frames_sent + first.frames_received,
            bytes_sent: first.bytes_sent,
            bytes_received: first.bytes_received,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            converged: comparison.unequal.is_empty() && comparison.updates == expected_updates,
            unequal: comparison.unequal.clone(),
            nodes,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| format!("{} KiB", grouped(bytes / 1024));
        let seconds = Duration::from_millis(self.elapsed_ms).as_secs_f64();
        let rows = [
            ("documents", grouped(self.documents), ""),
            ("updates", grouped(self.updates), "changes that are in both stores"),
            ("frames", grouped(self.frames), "in both directions"),
            ("sent by A", kib(self.bytes_sent), "on the wire, frame headers included"),
            ("sent by B", kib(self.bytes_received), ""),
            ("time", format!("{seconds:.1} s"), "from the first row until both were level"),
            ("equal", if self.converged { "yes" } else { "NO" }.to_owned(), "heads and content of every document"),
        ];
        for (n, (name, value, remark)) in rows.iter().enumerate() {
            let line = format!("{name:<10}{value:>12}   {remark}");
            write!(f, "{}{}", if n == 0 { "" } else { "\n" }, line.trim_end())?;
        }
        if self.updates != self.expected_updates {
            write!(f, "\n{} updates were made", grouped(self.expected_updates))?;
        }
        self.unequal.iter().try_for_each(|key| write!(f, "\nnot equal: {key}"))
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_sample_is_read_without_a_bad_row() {
        let rows: Vec<Row> = csv(GzDecoder::new(SAMPLE), "tracks", "icao24").expect("a header").collect();
        assert_eq!(rows.len(), 18_683);
        assert!(rows.iter().all(|row| row.request.is_ok()));
        assert_eq!(first_documents(&rows, usize::MAX).len(), 50);
    }

    #[test]
    fn stores_that_lack_an_acknowledged_change_are_not_called_converged() {
        let report = |updates, unequal: &[&str]| {
            let unequal = unequal.iter().map(|key| (*key).to_owned()).collect();
            let comparison = Comparison { documents: 50, updates, unequal };
            Report::new(&comparison, 1000, [Traffic::default(); 2], Duration::ZERO).converged
        };
        assert!(report(1200, &[]));
        assert!(!report(1199, &[]), "a change is missing in both");
        assert!(!report(1200, &["tracks:a"]), "a document differs");
    }
}
