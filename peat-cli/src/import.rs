//! `peat import`: rows of a file become documents.

mod rows;
mod source;

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use peat_node::DocId;
use serde::Serialize;

use crate::access::{self, Access};
use crate::args::{ImportArgs, ImportFormat};
use crate::control::{Blob, MAX_IN_FLIGHT, Request};
use crate::failure::{Code, Failure};
use crate::output::Output;

pub(crate) use rows::{Row, csv};

/// Bytes of rows that are under way. Together with [`MAX_IN_FLIGHT`] it bounds what a file with huge rows can hold.
const MAX_BYTES_IN_FLIGHT: usize = 16 << 20;

/// Largest saved Automerge file, in bytes: what a node admits.
const MAX_AUTOMERGE: u64 = 32 << 20;

/// What an import came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) imported: u64,
    pub(crate) failed: u64,
}

pub(crate) fn run(dir: &Path, args: &ImportArgs, output: &mut Output) -> Result<(), Failure> {
    let format = match args.format {
        Some(format) => format,
        None => format_of(&args.file)?,
    };
    let bar = if output.is_json() { ProgressBar::hidden() } else { progress(&args.file) };
    let source = bar.wrap_read(source::open(&args.file)?);
    let source = source::unpacked(source).map_err(|error| Failure::file(&args.file, &error))?;
    let imported = access::with(dir, |access| match format {
        ImportFormat::Csv => {
            let (collection, key) =
                (required(args.collection.as_ref(), "--collection")?, required(args.key.as_ref(), "--key")?);
            import(access, csv(source, collection, key)?, &bar, output)
        }
        ImportFormat::Jsonl => {
            let place = match (&args.collection, &args.key) {
                (None, None) => None,
                (collection, key) => {
                    Some((required(collection.as_ref(), "--collection")?, required(key.as_ref(), "--key")?))
                }
            };
            import(access, rows::json_lines(source, place), &bar, output)
        }
        ImportFormat::Automerge => document(access, source, args),
    });
    bar.finish_and_clear();
    let summary = imported?;
    output.data(
        format_args!("{} rows, {} imported, {} failed", summary.rows, summary.imported, summary.failed),
        &summary,
    )?;
    if summary.failed == 0 {
        return Ok(());
    }
    Err(Failure::new(
        Code::RowsFailed,
        format!("{} of {} rows could not be imported", summary.failed, summary.rows),
        "mend those rows and import the file again; rows that are there already change nothing",
    ))
}

/// Sends rows to the node, many at a time, and counts what came of them.
///
/// `settled` is told of every row that has its outcome, in order, with the number of its line.
///
/// # Errors
/// What ends the import as a whole: a source that cannot be read on, a store that refuses. What was acknowledged before is durable.
pub(crate) fn pump(
    access: &mut Access,
    rows: impl Iterator<Item = Row>,
    mut settled: impl FnMut(u64, Result<(), &Failure>),
) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let mut under_way = UnderWay::default();
    for row in rows {
        let request = match row.request {
            Ok(request) => request,
            Err(failure) if failure.code.is_of_one_row() => {
                // Rows before it first, so that reports come in the order of the file.
                while under_way.settle(access, &mut summary, &mut settled)? {}
                summary.count(&Err(()));
                settled(row.line, Err(&failure));
                continue;
            }
            Err(failure) => {
                while under_way.settle(access, &mut summary, &mut settled)? {}
                return Err(failure);
            }
        };
        while under_way.is_full(row.bytes) && under_way.settle(access, &mut summary, &mut settled)? {}
        access.send(request)?;
        under_way.push(row.line, row.bytes);
    }
    while under_way.settle(access, &mut summary, &mut settled)? {}
    Ok(summary)
}

/// Rows that were sent and have no outcome yet, oldest first.
#[derive(Default)]
struct UnderWay {
    rows: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl UnderWay {
    fn is_full(&self, more: usize) -> bool {
        self.rows.len() >= MAX_IN_FLIGHT || self.bytes + more > MAX_BYTES_IN_FLIGHT
    }

    fn push(&mut self, line: u64, bytes: usize) {
        self.rows.push_back((line, bytes));
        self.bytes += bytes;
    }

    /// Waits for the outcome of the oldest row; false if there is none.
    fn settle(
        &mut self,
        access: &mut Access,
        summary: &mut Summary,
        settled: &mut impl FnMut(u64, Result<(), &Failure>),
    ) -> Result<bool, Failure> {
        let Some((line, bytes)) = self.rows.pop_front() else {
            return Ok(false);
        };
        self.bytes -= bytes;
        match access.receive() {
            Ok(_) => {
                summary.count(&Ok(()));
                settled(line, Ok(()));
            }
            Err(failure) if failure.code.is_of_one_row() => {
                summary.count(&Err(()));
                settled(line, Err(&failure));
            }
            Err(failure) => return Err(failure),
        }
        Ok(true)
    }
}

impl Summary {
    fn count(&mut self, outcome: &Result<(), ()>) {
        self.rows += 1;
        match outcome {
            Ok(()) => self.imported += 1,
            Err(()) => self.failed += 1,
        }
    }
}

fn import(
    access: &mut Access,
    rows: impl Iterator<Item = Row>,
    bar: &ProgressBar,
    output: &Output,
) -> Result<Summary, Failure> {
    pump(access, rows, |line, outcome| {
        if let Err(failure) = outcome {
            bar.suspend(|| output.bad_row(line, failure));
        }
    })
}

/// Merges a saved Automerge file into the document that the arguments name.
fn document(access: &mut Access, source: impl Read, args: &ImportArgs) -> Result<Summary, Failure> {
    let key = automerge_key(args)?;
    let mut bytes = Vec::new();
    source.take(MAX_AUTOMERGE + 1).read_to_end(&mut bytes).map_err(|error| Failure::file(&args.file, &error))?;
    if bytes.len() as u64 > MAX_AUTOMERGE {
        return Err(Failure::new(
            Code::TooLarge,
            format!("{} is larger than {} MiB", args.file.display(), MAX_AUTOMERGE >> 20),
            "a node does not admit documents of that size",
        ));
    }
    access.call(Request::Merge { key: key.to_string(), bytes: Blob(bytes) })?;
    Ok(Summary { rows: 1, imported: 1, failed: 0 })
}

fn automerge_key(args: &ImportArgs) -> Result<DocId, Failure> {
    let key = match (&args.collection, &args.key) {
        (Some(collection), Some(id)) => format!("{collection}:{id}"),
        (Some(collection), None) => format!("{collection}:{}", stem(&args.file)),
        (None, Some(key)) => key.clone(),
        (None, None) => return Err(missing("--collection")),
    };
    DocId::new(&key).map_err(|error| {
        Failure::new(
            Code::BadKey,
            format!("{key:?} is not a key: {error}"),
            "name the document with --collection and --key",
        )
    })
}

/// The file's name up to its first dot.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn format_of(file: &Path) -> Result<ImportFormat, Failure> {
    let mut name = PathBuf::from(file);
    if name.extension().is_some_and(|ending| ending == "gz") {
        name.set_extension("");
    }
    match name.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => Ok(ImportFormat::Csv),
        Some("jsonl" | "ndjson") => Ok(ImportFormat::Jsonl),
        Some("automerge") => Ok(ImportFormat::Automerge),
        _ => Err(Failure::new(
            Code::Usage,
            format!("what {} holds cannot be told from its name", file.display()),
            "say --format csv, jsonl or automerge",
        )),
    }
}

fn required<'a>(value: Option<&'a String>, name: &str) -> Result<&'a str, Failure> {
    value.map(String::as_str).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Failure {
    Failure::new(Code::Usage, format!("this import needs {name}"), "see `peat import --help`")
}

/// A bar over the bytes of the file; indicatif draws it only where standard error is a terminal.
fn progress(file: &Path) -> ProgressBar {
    let length = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|data| data.len());
    let Some(length) = length else {
        return ProgressBar::new_spinner();
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_the_name_below_gzip() {
        assert_eq!(format_of(Path::new("a.b/x.csv.gz")), Ok(ImportFormat::Csv));
        assert_eq!(format_of(Path::new("x.ndjson")), Ok(ImportFormat::Jsonl));
        assert_eq!(format_of(Path::new("x.automerge")), Ok(ImportFormat::Automerge));
        for unknown in ["-", "x", "x.gz", "x.json"] {
            assert_eq!(format_of(Path::new(unknown)).map_err(|f| f.code), Err(Code::Usage), "{unknown}");
        }
    }
}
