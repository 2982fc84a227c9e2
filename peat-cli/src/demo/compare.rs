//! Reading two stores back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use peat_node::proto::Listing;
use peat_node::proto::automerge::{Automerge, ChangeHash};
use peat_node::{DocId, Node, Options};
use serde_json::Value;

use crate::failure::{Code, Failure};

/// What two stores have in common. Nothing of it comes from what the nodes said about themselves while they ran.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Documents that are in both.
    pub(super) documents: u64,
    /// Changes that are in both.
    pub(super) updates: u64,
    /// Documents that are not in both with equal heads, equal history and equal content.
    pub(super) unequal: Vec<String>,
}

/// A document as a store holds it.
struct Held {
    listing: Listing,
    heads: Vec<ChangeHash>,
    changes: BTreeSet<ChangeHash>,
    content: Value,
}

impl Comparison {
    pub(super) fn of(a: &Path, b: &Path) -> Result<Self, Failure> {
        let (a, mut b) = (read(a)?, read(b)?);
        let mut found = Self { documents: 0, updates: 0, unequal: Vec::new() };
        for (doc, in_a) in &a {
            let Some(in_b) = b.remove(doc) else {
                found.unequal.push(doc.to_string());
                continue;
            };
            found.documents += 1;
            found.updates += in_a.changes.intersection(&in_b.changes).count() as u64;
            if !in_a.equals(&in_b) {
                found.unequal.push(doc.to_string());
            }
        }
        found.unequal.extend(b.into_keys().map(|doc| doc.to_string()));
        Ok(found)
    }
}

impl Held {
    fn equals(&self, other: &Self) -> bool {
        self.heads == other.heads
            && self.listing.heads == other.listing.heads
            && self.changes == other.changes
            && self.content == other.content
    }
}

/// Every document of the store in `dir`.
fn read(dir: &Path) -> Result<BTreeMap<DocId, Held>, Failure> {
    let node = Node::open(dir, Options::default()).map_err(|error| Failure::open(dir, &error))?;
    let mut documents = BTreeMap::new();
    for listing in node.list("").wait()? {
        let doc = listing.doc.clone();
        let gone = || Failure::unknown_key(doc.as_str());
        let saved = node.export(&doc).wait()?.ok_or_else(gone)?;
        let content = node.get(&doc).wait()?.ok_or_else(gone)?;
        let automerge = Automerge::load(&saved).map_err(|error| {
            Failure::new(Code::Document, format!("{doc} cannot be read: {error}"), "please report this")
        })?;
        let mut heads = automerge.get_heads();
        heads.sort_unstable();
        let changes = automerge.get_changes(&[]).iter().map(|change| change.hash()).collect();
        documents.insert(doc, Held { listing, heads, changes, content });
    }
    node.close().wait()?;
    Ok(documents)
}
