//! The commands that read and write single documents.

use std::io::Read;
use std::path::Path;

use data_encoding::BASE64;
use peat_node::DocId;
use serde_json::{Value, json};

use crate::access::{self, unexpected};
use crate::args::ExportFormat;
use crate::control::{Answer, Request};
use crate::failure::{Code, Failure};
use crate::output::Output;

/// Most bytes of JSON that `put` reads from standard input.
const MAX_JSON: u64 = 16 << 20;

pub(crate) fn put(dir: &Path, key: &DocId, json: &str, output: &mut Output) -> Result<(), Failure> {
    let read;
    let text = if json == "-" {
        read = standard_input()?;
        &read
    } else {
        json
    };
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Failure::new(Code::BadJson, format!("not JSON: {error}"), "give an object, as in '{\"speed\": 12}'")
    })?;
    if !value.is_object() {
        return Err(Failure::new(
            Code::BadJson,
            "the JSON is not an object",
            "give an object, as in '{\"speed\": 12}'",
        ));
    }
    access::with(dir, |access| access.call(Request::Put { key: key.to_string(), value }))?;
    if output.is_json() {
        output.json_line(&json!({ "key": key.as_str() }))?;
    }
    Ok(())
}

pub(crate) fn get(dir: &Path, key: &DocId, output: &mut Output) -> Result<(), Failure> {
    let value = document(dir, key)?;
    output.data(format_args!("{value:#}"), &json!({ "key": key.as_str(), "value": value }))
}

pub(crate) fn export(dir: &Path, key: &DocId, format: ExportFormat, output: &mut Output) -> Result<(), Failure> {
    match format {
        ExportFormat::Json => {
            let value = document(dir, key)?;
            let object = json!({ "key": key.as_str(), "format": "json", "value": value });
            output.data(&value, &object)
        }
        ExportFormat::Automerge => {
            let bytes = saved(dir, key)?;
            if output.is_json() {
                let base64 = BASE64.encode(&bytes);
                return output.json_line(&json!({ "key": key.as_str(), "format": "automerge", "base64": base64 }));
            }
            output.bytes(&bytes)
        }
    }
}

pub(crate) fn ls(dir: &Path, prefix: &str, output: &mut Output) -> Result<(), Failure> {
    access::with(dir, |access| {
        let mut after = None;
        loop {
            let request = Request::List { prefix: prefix.to_owned(), after: after.take() };
            let Answer::Page(page) = access.call(request)? else {
                return Err(unexpected());
            };
            for entry in &page.entries {
                output.data(&entry.key, entry)?;
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    })
}

fn document(dir: &Path, key: &DocId) -> Result<Value, Failure> {
    match access::with(dir, |access| access.call(Request::Get { key: key.to_string() }))? {
        Answer::Document { value } => Ok(value),
        _ => Err(unexpected()),
    }
}

fn saved(dir: &Path, key: &DocId) -> Result<Vec<u8>, Failure> {
    match access::with(dir, |access| access.call(Request::Export { key: key.to_string() }))? {
        Answer::Bytes { bytes } => Ok(bytes.0),
        _ => Err(unexpected()),
    }
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let mut from = std::io::stdin().lock().take(MAX_JSON + 1);
    from.read_to_string(&mut text).map_err(|error| Failure::file(Path::new("standard input"), &error))?;
    if text.len() as u64 > MAX_JSON {
        return Err(Failure::new(
            Code::TooLarge,
            format!("standard input holds more than {} MiB", MAX_JSON >> 20),
            "split the value over several documents",
        ));
    }
    Ok(text)
}
