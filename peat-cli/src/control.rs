//! How commands talk to a running `serve`: one JSON object per line, over a socket in the data directory.
//!
//! The server speaks first, with a [`Greeting`]. Then every [`Request`] is answered once, in order, with
//! `Result<Answer, Failure>`; a client may send many requests before it reads. The same requests are carried out
//! directly when no `serve` runs, so that both ways give the same.

mod client;
mod line;
mod server;
mod socket;

use std::collections::BTreeMap;
use std::time::Duration;

use peat_node::Ticket;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

pub(crate) use client::Client;
pub(crate) use server::Server;

/// Version of the control protocol. Command and `serve` are the same binary, except across an upgrade.
const VERSION: u32 = 1;

/// Longest line, in bytes. A document that a node admits is at most 32 MiB, which is 43 MiB in base64.
const MAX_LINE: usize = 64 << 20;

/// Requests of one client that are under way. What the client does not send before it has read answers is bounded by
/// the client; this bounds what a client can make `serve` hold.
pub(crate) const MAX_IN_FLIGHT: usize = 1024;

/// The first line that a server sends.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    peat: u32,
}

/// A task for a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Makes a document equal to a JSON object.
    Put { key: String, value: Value },
    /// Sets some fields of a document's root and leaves the others alone.
    Set { key: String, fields: Vec<(String, Cell)> },
    /// Merges saved Automerge bytes into a document.
    Merge { key: String, bytes: Blob },
    /// A document as JSON.
    Get { key: String },
    /// A document as saved Automerge bytes.
    Export { key: String },
    /// One page of the documents whose key starts with `prefix` and is greater than `after`.
    List { prefix: String, after: Option<String> },
    /// Deletes a document.
    Delete { key: String, reason: Option<String> },
    /// One page of the deleted documents, like `List`.
    Deleted { prefix: String, after: Option<String> },
    /// The node's rules, as a file.
    Rules,
    /// Changes one section of the policy: the shares, the hierarchy, or a collection.
    SetRules { section: String, settings: Vec<(String, String)> },
    /// Counters and connections.
    Status,
    /// The node's ticket.
    Ticket,
    /// Connect to the ticket's node, and wait until both are level.
    Sync { ticket: String, timeout: Duration },
    /// Compare documents whose keys start with `prefix` with a connected peer.
    SyncNow { peer: String, prefix: String, timeout: Duration },
    /// Wait until this node and a peer are level.
    Level { peer: String, timeout: Duration },
}

/// A scalar field; `Empty` removes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Empty,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
}

/// What came of a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Document { value: Value },
    Bytes { bytes: Blob },
    Page(Page),
    Buried(Buried),
    Rules { text: String },
    Status(Box<Status>),
    Ticket { ticket: String },
    Synced(SyncedNow),
}

/// Some documents in key order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether there may be more behind the last one.
    pub(crate) more: bool,
}

/// Some deleted documents in key order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Buried {
    pub(crate) entries: Vec<Grave>,
    /// Whether there may be more behind the last one.
    pub(crate) more: bool,
}

/// What came of comparing documents with a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SyncedNow {
    /// How many documents had each outcome.
    pub(crate) counts: BTreeMap<String, u64>,
    /// The first of those that did not end equal.
    pub(crate) rest: Vec<Unequal>,
}

/// A document that did not end equal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unequal {
    pub(crate) key: String,
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
}

/// One deleted document; without more than its key where it was deleted softly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grave {
    pub(crate) key: String,
    pub(crate) soft: bool,
    pub(crate) by: Option<String>,
    /// Unix milliseconds by the clock of whoever deleted it.
    pub(crate) at_ms: Option<u64>,
    pub(crate) reason: Option<String>,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Bytes in the store.
    pub(crate) bytes: u64,
    pub(crate) heads: Vec<String>,
}

/// What a node holds, what it did since it was opened, and whom it is connected to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) id: String,
    pub(crate) serving: bool,
    pub(crate) documents: u64,
    /// Deleted documents that are remembered.
    pub(crate) markers: u64,
    pub(crate) loaded: u64,
    pub(crate) cache_bytes: u64,
    /// Peers that were let in once and stay admitted, and how many may be.
    pub(crate) remembered: u64,
    pub(crate) max_admitted: u64,
    /// Peers that were let in by the invitation that let in most since the node was opened, and how many each may let in.
    pub(crate) guests: u64,
    pub(crate) max_guests: u64,
    pub(crate) edits: u64,
    pub(crate) changes_applied: u64,
    /// Batches written to the store; changes that were under way together share one.
    pub(crate) batches: u64,
    pub(crate) refused: u64,
    pub(crate) store_faults: u64,
    pub(crate) quarantined: u64,
    pub(crate) traffic: Traffic,
    /// How the documents of each collection travel; `*` stands for those that are not named.
    pub(crate) modes: BTreeMap<String, Modes>,
    /// Every counter and gauge of the node, and those of its endpoint on plain UDP with `udp_` in front.
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) peers: Vec<Peer>,
}

/// Frames and their bytes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) frames_sent: u64,
    pub(crate) frames_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Frames sent that carried changes or a snapshot.
    pub(crate) data_sent: u64,
}

/// How the documents of a collection travel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Modes {
    /// What the policy says.
    pub(crate) set: String,
    /// What that comes to with peat-mesh nodes: `full`, or `snapshot` for all else.
    pub(crate) v0: String,
    /// What it comes to among Peat nodes: always `full`, so far.
    pub(crate) v1: String,
}

/// One connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) dialled: bool,
    pub(crate) admitted: bool,
    /// `v0` or `v1`.
    pub(crate) wire: String,
    /// What it was let in by, once it is: `id`, `open`, `invitation` or `formation`; of a peat-mesh node `p`, `m` or `off`.
    pub(crate) auth: Option<String>,
    pub(crate) level: bool,
    pub(crate) behind: u64,
    /// Documents that one side refused, and that both leave out of the comparison.
    pub(crate) left_out: u64,
    /// Of a peat-mesh node: `connected`; `partitioned`, when nothing was heard of it for too long; then `recovering`.
    pub(crate) partition: Option<String>,
    /// Of a peat-mesh node, whether documents are pushed to it: `closed`, they are; `open`, not after failures;
    /// `half_open`, one to try.
    pub(crate) breaker: Option<String>,
    /// Of a peat-mesh node: documents that were given up for a while.
    pub(crate) parked: u64,
    /// Bytes handed to the transport that have not left its send buffer.
    pub(crate) in_flight: u64,
    /// Bytes that may be in flight.
    pub(crate) window: u64,
    pub(crate) traffic: Traffic,
}

/// Bytes; base64 where they cross the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Request {
    pub(crate) fn sync(ticket: &Ticket, timeout: Duration) -> Self {
        Self::Sync { ticket: ticket.to_string(), timeout }
    }
}

/// What one request comes to.
pub(crate) type Outcome = Result<Answer, Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_request_reads_back_as_it_was_written() {
        let key = || "tracks:02a195".to_owned();
        let fields = [
            Cell::Empty,
            Cell::Bool(false),
            Cell::Int(-7),
            Cell::Uint(u64::MAX),
            Cell::Float(12225.0),
            Cell::Float(0.1 + 0.2),
            Cell::Text("1".to_owned()),
        ];
        let timeout = Duration::from_millis(1500);
        let requests = [
            Request::Put { key: key(), value: json!({"a": [1, 2.5, u64::MAX, null, "ü"]}) },
            Request::Set { key: key(), fields: fields.map(|cell| ("f".to_owned(), cell)).to_vec() },
            Request::Merge { key: key(), bytes: Blob(vec![0, 255, 10]) },
            Request::Get { key: key() },
            Request::Export { key: key() },
            Request::List { prefix: String::new(), after: Some(key()) },
            Request::Delete { key: key(), reason: Some("dup".to_owned()) },
            Request::Deleted { prefix: String::new(), after: None },
            Request::Rules,
            Request::SetRules { section: "*".to_owned(), settings: vec![("ttl".to_owned(), "1h".to_owned())] },
            Request::Status,
            Request::Ticket,
            Request::Sync { ticket: "peat".to_owned(), timeout },
            Request::SyncNow { peer: "00".to_owned(), prefix: key(), timeout },
            Request::Level { peer: "00".to_owned(), timeout },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).expect("serialises");
            assert!(!line.contains('\n'));
            let back: Request = serde_json::from_str(&line).expect("deserialises");
            assert_eq!(back, request);
        }
    }
}
