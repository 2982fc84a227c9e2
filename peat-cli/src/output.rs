//! Data to standard output, everything else to standard error; both plain or as JSON.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use serde::Serialize;
use serde_json::json;

use crate::failure::{Code, Failure};

/// Where a command writes. Standard output is buffered until [`Output::flush`].
pub(crate) struct Output {
    json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, stdout: BufWriter::new(io::stdout()) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One result: a line of text, or with `--json` one object on one line.
    pub(crate) fn data(&mut self, plain: impl Display, object: &impl Serialize) -> Result<(), Failure> {
        if self.json { self.json_line(object) } else { writeln!(self.stdout, "{plain}").map_err(unwritable) }
    }

    /// One object on one line, whether or not `--json` was given.
    pub(crate) fn json_line(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, object).map_err(|error| unwritable(error.into()))?;
        self.stdout.write_all(b"\n").map_err(unwritable)
    }

    /// Raw bytes, never to a terminal.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if io::stdout().is_terminal() {
            return Err(Failure::new(
                Code::Usage,
                "binary data is not written to a terminal",
                "send it to a file with `> FILE`, or use --json",
            ));
        }
        self.stdout.write_all(bytes).map_err(unwritable)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(unwritable)
    }

    /// A remark for a person; silent with `--json`.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.json {
            stderr_line(&text.to_string());
        }
    }

    /// What went wrong: two lines, or one JSON object.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.code == Code::BrokenPipe {
            return;
        }
        if self.json {
            stderr_line(&error_object(failure, None).to_string());
        } else {
            stderr_line(&failure.to_string());
        }
    }

    /// A row that was not imported.
    pub(crate) fn bad_row(&self, line: u64, failure: &Failure) {
        if self.json {
            stderr_line(&error_object(failure, Some(line)).to_string());
        } else {
            stderr_line(&format!("line {line}: {}", failure.message));
        }
    }
}

fn error_object(failure: &Failure, line: Option<u64>) -> serde_json::Value {
    let mut error = json!({
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "retryable": failure.code.retryable(),
    });
    if let (Some(line), Some(fields)) = (line, error.as_object_mut()) {
        fields.insert("line".to_owned(), line.into());
    }
    json!({ "error": error })
}

/// Writes to standard error as far as anybody listens; unlike `eprintln!` a closed one is no panic.
fn stderr_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn unwritable(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        return Failure::new(Code::BrokenPipe, error, "");
    }
    Failure::new(Code::Output, format!("standard output cannot be written: {error}"), "check where it is redirected to")
}
