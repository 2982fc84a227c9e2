//! `peat rm` and `peat ls --deleted`.

use std::path::Path;

use peat_node::{Deleted, DocId};
use serde_json::json;

use crate::access::{self, unexpected};
use crate::control::{Answer, Buried, Grave, Request};
use crate::failure::Failure;
use crate::output::Output;

/// Entries of one page: 10,000 of at most 1.3 kB.
const PAGE: usize = 10_000;

pub(crate) fn rm(dir: &Path, key: &DocId, reason: Option<String>, output: &mut Output) -> Result<(), Failure> {
    access::with(dir, |access| access.call(Request::Delete { key: key.to_string(), reason }))?;
    if output.is_json() {
        output.json_line(&json!({ "key": key.as_str(), "deleted": true }))?;
    }
    Ok(())
}

pub(crate) fn ls(dir: &Path, prefix: &str, output: &mut Output) -> Result<(), Failure> {
    access::with(dir, |access| {
        let mut after = None;
        loop {
            let request = Request::Deleted { prefix: prefix.to_owned(), after: after.take() };
            let Answer::Buried(page) = access.call(request)? else {
                return Err(unexpected());
            };
            for grave in &page.entries {
                output.data(&grave.key, grave)?;
            }
            after = page.entries.last().map(|grave| grave.key.clone());
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    })
}

/// Fills one page with what lies behind `after`.
pub(crate) fn page(deleted: Vec<Deleted>, after: Option<&str>) -> Buried {
    let mut behind = deleted.into_iter().filter(|one| after.is_none_or(|after| one.doc.as_str() > after));
    let entries: Vec<Grave> = behind.by_ref().take(PAGE).map(Grave::from).collect();
    Buried { entries, more: behind.next().is_some() }
}

impl From<Deleted> for Grave {
    fn from(Deleted { doc, marker }: Deleted) -> Self {
        let key = doc.to_string();
        match marker {
            None => Self { key, soft: true, by: None, at_ms: None, reason: None },
            Some(marker) => Self {
                key,
                soft: false,
                by: Some(marker.by.to_string()),
                at_ms: Some(marker.at_ms),
                reason: marker.reason.map(|reason| reason.to_string()),
            },
        }
    }
}
