//! Rows of CSV files and lines of JSON, as requests.

use std::cell::Cell as Shared;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::rc::Rc;

use peat_node::DocId;
use serde_json::Value;

use crate::control::{Cell, Request};
use crate::failure::{Code, Failure};

/// Longest row, in bytes; the largest payload that travels between nodes. It stops a file whose quote never closes.
const MAX_ROW: u64 = 16 << 20;

/// One row of a file: the number of its first line, and what is to be done or why it cannot be read.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) line: u64,
    /// About how much memory it takes.
    pub(crate) bytes: usize,
    pub(crate) request: Result<Request, Failure>,
}

/// The rows of a CSV file with a header; each sets the fields of the document `collection:<key column>`.
///
/// # Errors
/// A header that cannot be read, names a column twice, or lacks the key column.
pub(crate) fn csv<R: Read>(
    source: R,
    collection: &str,
    key: &str,
) -> Result<impl Iterator<Item = Row> + use<R>, Failure> {
    let (bounded, since) = Bounded::new(source);
    let mut reader = csv::ReaderBuilder::new().from_reader(bounded);
    let header = reader.headers().map_err(|error| bad_header(format!("the header cannot be read: {error}")))?.clone();
    let names: Vec<String> = header.iter().map(str::to_owned).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(n, name)| names.iter().take(n).find(|one| *one == name)) {
        return Err(bad_header(format!("the column {twice:?} is there twice")));
    }
    let key_column = names
        .iter()
        .position(|name| name == key)
        .ok_or_else(|| bad_header(format!("there is no column {key:?}; the columns are {}", names.join(", "))))?;
    let collection = collection.to_owned();
    let mut record = csv::ByteRecord::new();
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        since.set(0);
        let request = match reader.read_byte_record(&mut record) {
            Ok(false) => return None,
            Ok(true) => fields(&record, &names, &collection, key_column),
            Err(error) => {
                let failure = unreadable(error);
                ended = !failure.code.is_of_one_row();
                Err(failure)
            }
        };
        let line = record.position().or_else(|| Some(reader.position())).map_or(0, csv::Position::line);
        Some(Row { line, bytes: record.as_slice().len(), request })
    }))
}

fn fields(record: &csv::ByteRecord, names: &[String], collection: &str, key_column: usize) -> Result<Request, Failure> {
    let mut key = None;
    let mut fields = Vec::with_capacity(names.len());
    for (column, (bytes, name)) in record.iter().zip(names).enumerate() {
        let text = std::str::from_utf8(bytes).map_err(|_| bad_row(format!("the column {name:?} is not UTF-8")))?;
        let cell = if column == key_column {
            key = Some(document(collection, text)?);
            Cell::Text(text.to_owned())
        } else {
            cell(text)
        };
        fields.push((name.clone(), cell));
    }
    let key = key.ok_or_else(|| bad_row("the key column is missing".to_owned()))?;
    Ok(Request::Set { key, fields })
}

/// What a CSV cell means: nothing, a boolean, a plain decimal number, or text. `1e3`, `007` and `+1` are text, because
/// they are more often names than numbers.
fn cell(text: &str) -> Cell {
    match text {
        "" => return Cell::Empty,
        "true" => return Cell::Bool(true),
        "false" => return Cell::Bool(false),
        _ => {}
    }
    if !is_plain_number(text) {
        return Cell::Text(text.to_owned());
    }
    if text.contains('.') {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Cell::Float(number),
            _ => Cell::Text(text.to_owned()),
        };
    }
    if let Ok(number) = text.parse() {
        return Cell::Int(number);
    }
    text.parse().map_or_else(|_| Cell::Text(text.to_owned()), Cell::Uint)
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?`
fn is_plain_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

/// The lines of a file of JSON objects. With a place each replaces the document `collection:<key field>`; without one
/// each is `{"key": ..., "value": ...}`. Empty lines are skipped.
pub(crate) fn json_lines<R: Read>(source: R, place: Option<(&str, &str)>) -> impl Iterator<Item = Row> + use<R> {
    let place = place.map(|(collection, key)| (collection.to_owned(), key.to_owned()));
    let (bounded, since) = Bounded::new(source);
    let mut source = BufReader::new(bounded);
    let mut bytes = Vec::new();
    let mut line = 0;
    let mut ended = false;
    std::iter::from_fn(move || {
        loop {
            if ended {
                return None;
            }
            since.set(0);
            bytes.clear();
            line += 1;
            let request = match source.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.trim_ascii().is_empty() => continue,
                Ok(_) => object(&bytes, place.as_ref()),
                Err(error) => {
                    ended = true;
                    Err(cut_short(&error))
                }
            };
            return Some(Row { line, bytes: bytes.len(), request });
        }
    })
}

fn object(line: &[u8], place: Option<&(String, String)>) -> Result<Request, Failure> {
    let value: Value = serde_json::from_slice(line).map_err(|error| bad_row(format!("not JSON: {error}")))?;
    let Value::Object(mut object) = value else {
        return Err(bad_row("not a JSON object".to_owned()));
    };
    let Some((collection, key)) = place else {
        let (Some(Value::String(key)), Some(value)) = (object.remove("key"), object.remove("value")) else {
            return Err(bad_row("not of the form {\"key\": ..., \"value\": ...}".to_owned()));
        };
        let key = DocId::new(&key).map_err(|error| bad_row(error.to_string()))?;
        if !value.is_object() {
            return Err(bad_row("the value is not a JSON object".to_owned()));
        }
        return Ok(Request::Put { key: key.to_string(), value });
    };
    let id = match object.get(key) {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(_) => {
            return Err(bad_row(format!("the field {key:?} is neither text nor a number")));
        }
        None => return Err(bad_row(format!("there is no field {key:?}"))),
    };
    Ok(Request::Put { key: document(collection, &id)?, value: Value::Object(object) })
}

fn document(collection: &str, id: &str) -> Result<String, Failure> {
    let key = format!("{collection}:{id}");
    DocId::new(&key).map(|_| key).map_err(|error| bad_row(error.to_string()))
}

fn unreadable(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => cut_short(&error),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            bad_row(format!("{len} cells where the header has {expected_len}"))
        }
        other => bad_row(format!("{other:?}")),
    }
}

fn cut_short(error: &io::Error) -> Failure {
    Failure::new(
        Code::BadFile,
        format!("the file cannot be read further: {error}"),
        "mend the file and import it again; rows that are there already change nothing",
    )
}

fn bad_header(message: String) -> Failure {
    Failure::new(Code::BadFile, message, "the first line of a CSV file names its columns; choose one with --key")
}

fn bad_row(message: String) -> Failure {
    Failure::new(Code::BadRow, message, "mend the row and import the file again")
}

/// A reader that fails once more than [`MAX_ROW`] bytes were read since the count was last set to zero.
struct Bounded<R> {
    source: R,
    since: Rc<Shared<u64>>,
}

impl<R: Read> Bounded<R> {
    fn new(source: R) -> (Self, Rc<Shared<u64>>) {
        let since = Rc::new(Shared::new(0));
        (Self { source, since: Rc::clone(&since) }, since)
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.get() > MAX_ROW {
            let message = format!("a row is longer than {} MiB", MAX_ROW >> 20);
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        let read = self.source.read(buffer)?;
        self.since.set(self.since.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcomes(rows: impl Iterator<Item = Row>) -> Vec<(u64, Result<Request, String>)> {
        rows.map(|row| (row.line, row.request.map_err(|failure| failure.message))).collect()
    }

    #[test]
    fn cells_are_numbers_only_where_nothing_is_lost() {
        let text = |text: &str| Cell::Text(text.to_owned());
        for (given, wanted) in [
            ("", Cell::Empty),
            ("true", Cell::Bool(true)),
            ("TRUE", text("TRUE")),
            ("0", Cell::Int(0)),
            ("-12", Cell::Int(-12)),
            ("18446744073709551615", Cell::Uint(u64::MAX)),
            ("18446744073709551616", text("18446744073709551616")),
            ("12225.0", Cell::Float(12225.0)),
            ("-0.5", Cell::Float(-0.5)),
            ("007", text("007")),
            ("489e66", text("489e66")),
            ("+1", text("+1")),
            ("1.", text("1.")),
            (".5", text(".5")),
            ("NaN", text("NaN")),
            (" 1", text(" 1")),
        ] {
            assert_eq!(cell(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn a_bad_csv_row_is_named_by_its_line_and_the_rest_is_read() {
        let file = b"id,n\na,1\nb\n\"c\nd\",2\n\xff,3\ne,4\n,5\n";
        let rows = outcomes(csv(file.as_slice(), "t", "id").expect("a header"));
        let set = |key: &str, id: &str, n| {
            let fields = vec![("id".to_owned(), Cell::Text(id.to_owned())), ("n".to_owned(), Cell::Int(n))];
            Ok(Request::Set { key: key.to_owned(), fields })
        };
        assert_eq!(
            rows,
            [
                (2, set("t:a", "a", 1)),
                (3, Err("1 cells where the header has 2".to_owned())),
                (4, Err("the key contains a control character".to_owned())),
                (6, Err("the column \"id\" is not UTF-8".to_owned())),
                (7, set("t:e", "e", 4)),
                (8, Err("the id after the colon is empty".to_owned())),
            ]
        );
    }

    #[test]
    fn a_header_without_the_key_or_with_a_column_twice_is_refused() {
        for file in ["a,b\n1,2\n", "id,id\n1,2\n", ""] {
            let error = csv(file.as_bytes(), "t", "id").map(|_| ()).expect_err(file);
            assert_eq!(error.code, Code::BadFile, "{file:?}");
        }
    }

    #[test]
    fn a_bad_json_line_is_named_by_its_line_and_the_rest_is_read() {
        let file = b"{\"id\":\"a\",\"n\":1}\n\n{\"id\":\n[1]\n{\"n\":1}\n{\"id\":7}";
        let rows = outcomes(json_lines(file.as_slice(), Some(("t", "id"))));
        let lines: Vec<_> = rows.iter().map(|(line, request)| (*line, request.is_ok())).collect();
        assert_eq!(lines, [(1, true), (3, false), (4, false), (5, false), (6, true)]);
        assert_eq!(
            rows.last().map(|(_, request)| request.clone()),
            Some(Ok(Request::Put { key: "t:7".to_owned(), value: json!({"id": 7}) }))
        );
    }

    #[test]
    fn lines_that_name_their_key_need_no_arguments() {
        let file = b"{\"key\":\"t:a\",\"value\":{\"n\":1}}\n{\"key\":\"nocolon\",\"value\":{}}\n{\"key\":\"t:b\",\"value\":1}\n";
        let rows = outcomes(json_lines(file.as_slice(), None));
        assert!(matches!(rows.as_slice(), [(1, Ok(_)), (2, Err(_)), (3, Err(_))]), "{rows:?}");
    }

    #[test]
    fn a_quote_that_never_closes_ends_the_import_within_bounds() {
        let endless = io::repeat(b'x');
        let file = b"id\na\n\"".chain(endless);
        let rows = outcomes(csv(file, "t", "id").expect("a header"));
        assert!(
            matches!(rows.as_slice(), [(2, Ok(_)), (3, Err(message))] if message.contains("16 MiB")),
            "{:?}",
            rows.len()
        );
    }
}
