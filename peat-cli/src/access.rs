//! One way to a node, whether this process opened its store or a running `serve` did.

use std::collections::VecDeque;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use peat_node::proto::CloseCode;
use peat_node::proto::automerge::transaction::{Transactable, Transaction};
use peat_node::proto::automerge::{AutomergeError, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use peat_node::{DocId, LevelError, Node, OpenError, Options, PeerId, Ticket, Which};
use peat_smol::Meter;

use crate::control::{Answer, Blob, Cell, Client, Entry, Outcome, Page, Request};
use crate::failure::{Code, Failure};
use crate::{policy, rm, status, sync, wait};

/// A request that has been handed to the node; calling it waits for the outcome.
pub(crate) type Started = Box<dyn FnOnce() -> Outcome + Send>;

/// A way to a node. Requests are carried out in the order of [`Access::send`] and answered in the same order; up to
/// [`MAX_IN_FLIGHT`](crate::control::MAX_IN_FLIGHT) may be under way, and become durable together.
pub(crate) enum Access {
    /// Nobody else has the store: it is open in this process.
    Opened { node: Node, started: VecDeque<Started> },
    /// A `serve` has the store.
    Serving(Client),
}

impl Access {
    /// A way to the node that lives in `dir`.
    pub(crate) fn to(dir: &Path) -> Result<Self, Failure> {
        if let Some(client) = Client::connect(dir)? {
            return Ok(Self::Serving(client));
        }
        match Node::open(dir, Options::default()) {
            Ok(node) => Ok(Self::opened(node)),
            // A `serve` may have started, and locked the store, since we looked.
            Err(OpenError::Locked) => match Client::connect(dir)? {
                Some(client) => Ok(Self::Serving(client)),
                None => Err(Failure::open(dir, &OpenError::Locked)),
            },
            Err(error) => Err(Failure::open(dir, &error)),
        }
    }

    pub(crate) fn opened(node: Node) -> Self {
        Self::Opened { node, started: VecDeque::new() }
    }

    pub(crate) fn is_serving(&self) -> bool {
        matches!(self, Self::Serving(_))
    }

    /// Hands a request to the node.
    pub(crate) fn send(&mut self, request: Request) -> Result<(), Failure> {
        match self {
            Self::Opened { node, started } => started.push_back(start(node, None, request)),
            Self::Serving(client) => client.send(&request)?,
        }
        Ok(())
    }

    /// The outcome of the oldest request that has none yet.
    pub(crate) fn receive(&mut self) -> Outcome {
        match self {
            Self::Opened { started, .. } => match started.pop_front() {
                Some(started) => started(),
                None => Err(unexpected()),
            },
            Self::Serving(client) => client.receive(),
        }
    }

    pub(crate) fn call(&mut self, request: Request) -> Outcome {
        self.send(request)?;
        self.receive()
    }

    /// Ends the access; a store that was opened here is closed cleanly.
    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Opened { node, .. } => Ok(node.close().wait()?),
            Self::Serving(_) => Ok(()),
        }
    }
}

/// Runs a command on the node in `dir` and closes the access, whatever came of it.
pub(crate) fn with<T>(dir: &Path, command: impl FnOnce(&mut Access) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut access = Access::to(dir)?;
    let done = command(&mut access);
    let closed = access.close();
    let value = done?;
    closed.map(|()| value)
}

/// An answer of a kind that the request cannot have.
pub(crate) fn unexpected() -> Failure {
    Failure::new(
        Code::Busy,
        "the running `peat serve` gave an answer that was not asked for",
        "restart it with this version of peat",
    )
}

/// Hands a request to an open node, whose endpoint on plain UDP counts in `udp`. Never waits; what it returns does.
pub(crate) fn start(node: &Node, udp: Option<&Meter>, request: Request) -> Started {
    match begin(node, udp, request) {
        Ok(started) => started,
        Err(failure) => Box::new(move || Err(failure)),
    }
}

fn begin(node: &Node, udp: Option<&Meter>, request: Request) -> Result<Started, Failure> {
    Ok(match request {
        Request::Put { key, value } => {
            let pending = node.put(&doc(&key)?, value);
            Box::new(move || done(pending.wait()))
        }
        Request::Set { key, fields } => {
            let pending = node.edit(&doc(&key)?, move |tx| set(tx, &fields));
            Box::new(move || done(pending.wait()))
        }
        Request::Merge { key, bytes } => {
            let pending = node.import(&doc(&key)?, bytes.0);
            Box::new(move || done(pending.wait()))
        }
        Request::Get { key } => {
            let pending = node.get(&doc(&key)?);
            Box::new(move || {
                let value = pending.wait()?.ok_or_else(|| Failure::unknown_key(&key))?;
                Ok(Answer::Document { value })
            })
        }
        Request::Export { key } => {
            let pending = node.export(&doc(&key)?);
            Box::new(move || {
                let bytes = pending.wait()?.ok_or_else(|| Failure::unknown_key(&key))?;
                Ok(Answer::Bytes { bytes: Blob(bytes) })
            })
        }
        Request::List { prefix, after } => {
            let pending = node.list(&prefix);
            Box::new(move || {
                let behind = |key: &str| after.as_deref().is_none_or(|after| key > after);
                let listings = pending.wait()?.into_iter().filter(|listing| behind(listing.doc.as_str()));
                Ok(Answer::Page(page(listings.map(Entry::from))))
            })
        }
        Request::Delete { key, reason } => {
            let pending = node.delete(&doc(&key)?, reason.as_deref());
            Box::new(move || pending.wait().map(|()| Answer::Done).map_err(|error| Failure::delete(&key, &error)))
        }
        Request::Deleted { prefix, after } => {
            let pending = node.deleted(&prefix);
            Box::new(move || Ok(Answer::Buried(rm::page(pending.wait()?, after.as_deref()))))
        }
        Request::Rules => {
            let pending = node.rules();
            Box::new(move || {
                let rules = pending.wait().ok_or(peat_node::ReadError::Closed)?;
                Ok(Answer::Rules { text: rules.to_toml() })
            })
        }
        Request::SetRules { section, settings } => {
            let node = node.clone();
            Box::new(move || policy::change(&node, &section, &settings).map(|()| Answer::Done))
        }
        Request::Status => {
            let (node, stats, rules, udp) = (node.clone(), node.stats(), node.rules(), udp.map(Meter::stats));
            Box::new(move || {
                let stats = stats.wait().ok_or(peat_node::ReadError::Closed)?;
                let rules = rules.wait().ok_or(peat_node::ReadError::Closed)?;
                Ok(Answer::Status(Box::new(status::of(&node, &stats, udp.as_ref(), &rules))))
            })
        }
        Request::Ticket => {
            let ticket = node.ticket().to_string();
            Box::new(move || Ok(Answer::Ticket { ticket }))
        }
        Request::Sync { ticket, timeout } => {
            let ticket: Ticket = parse(&ticket)?;
            if ticket.peer == node.id() {
                return Err(Failure::new(
                    Code::Usage,
                    "this is the node's own ticket",
                    "use it on the other machine, or with another --dir",
                ));
            }
            let visit = node.visit(&ticket);
            let level = level(node, ticket.peer, timeout);
            Box::new(move || {
                let outcome = level();
                drop(visit);
                outcome
            })
        }
        Request::SyncNow { peer, prefix, timeout } => {
            let pending = node.sync_now(Which::Prefix(prefix), Some(&id(&peer)?), timeout);
            Box::new(move || {
                let outcomes = pending.wait().map_err(|error| {
                    Failure::new(Code::Busy, error.to_string(), "run the command again when the others have ended")
                })?;
                Ok(Answer::Synced(sync::summary(&outcomes)))
            })
        }
        Request::Level { peer, timeout } => level(node, id(&peer)?, timeout),
    })
}

fn done<T, E: Into<Failure>>(outcome: Result<T, E>) -> Outcome {
    outcome.map(|_| Answer::Done).map_err(Into::into)
}

fn doc(key: &str) -> Result<DocId, Failure> {
    DocId::new(key).map_err(|error| {
        Failure::new(Code::BadKey, format!("{key:?} is not a key: {error}"), "a key is `collection:id`")
    })
}

fn id(text: &str) -> Result<PeerId, Failure> {
    PeerId::from_hex(text).ok_or_else(|| Failure::new(Code::Usage, "not the id of a node", "see `peat status`"))
}

pub(crate) fn parse<T: std::str::FromStr<Err: Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| {
        Failure::new(Code::Usage, format!("not a ticket: {error}"), "copy the whole line that `peat serve` printed")
    })
}

/// Waits until this node and `peer` are proven equal.
fn level(node: &Node, peer: PeerId, timeout: Duration) -> Started {
    let deadline = Instant::now() + timeout;
    let (node, pending) = (node.clone(), node.level_with(&peer));
    Box::new(move || match wait::until(deadline, pending) {
        Some(Ok(())) => Ok(Answer::Done),
        Some(Err(error)) => Err(not_level(&node, &peer, error)),
        None => Err(why_not_level(&node, &peer, timeout)),
    })
}

fn not_level(node: &Node, peer: &PeerId, error: LevelError) -> Failure {
    let LevelError::Refused { code, by_peer } = error else {
        return peat_node::ReadError::Closed.into();
    };
    if code == CloseCode::Version.code() {
        return Failure::new(
            Code::Refused,
            format!("{peer} and this node speak different versions of the protocol"),
            "bring the older of both up to date",
        );
    }
    if by_peer {
        Failure::new(
            Code::Refused,
            format!("{peer} does not let this node in"),
            format!("ask its operator for a fresh ticket, or for `--allow {}`", node.id()),
        )
    } else {
        Failure::new(
            Code::Refused,
            format!("this node does not let {peer} in"),
            "let it in with `peat serve --allow ID`, or join it with its ticket",
        )
    }
}

/// What the statistics say about a peer that did not become level in time.
fn why_not_level(node: &Node, peer: &PeerId, timeout: Duration) -> Failure {
    let Some(stats) = node.stats().wait() else {
        return peat_node::ReadError::Closed.into();
    };
    let seconds = timeout.as_secs_f64();
    let connection = stats.peers.iter().filter(|one| one.peer == *peer).max_by_key(|one| one.admitted);
    match connection {
        Some(one) if one.admitted => Failure::new(
            Code::Timeout,
            format!("{} documents still differed from {peer} after {seconds} s", one.behind),
            "run the command again, or give it more time with --timeout",
        ),
        Some(_) => Failure::new(
            Code::Timeout,
            format!("{peer} was reached and did not answer within {seconds} s"),
            "run the command again, or give it more time with --timeout",
        ),
        None => Failure::new(
            Code::Unreachable,
            format!("{peer} could not be reached within {seconds} s"),
            "check that `peat serve` runs there, that the ticket is its newest, and the network between",
        ),
    }
}

/// Fills one page: up to 10,000 entries and about 8 MiB.
fn page(mut entries: impl Iterator<Item = Entry>) -> Page {
    const MAX_ENTRIES: usize = 10_000;
    const MAX_BYTES: usize = 8 << 20;
    let mut page = Page { entries: Vec::new(), more: false };
    let mut bytes = 0;
    for entry in &mut entries {
        bytes += entry.key.len() + 67 * entry.heads.len() + 64;
        page.entries.push(entry);
        if page.entries.len() == MAX_ENTRIES || bytes >= MAX_BYTES {
            page.more = true;
            break;
        }
    }
    page
}

impl From<peat_node::proto::Listing> for Entry {
    fn from(listing: peat_node::proto::Listing) -> Self {
        let heads = listing.heads.as_slice().iter().map(ToString::to_string).collect();
        Self { key: listing.doc.to_string(), bytes: listing.bytes, heads }
    }
}

/// Sets fields of the root; a field that has the value already is left alone, so that nothing changed is no change.
fn set(tx: &mut Transaction<'_>, fields: &[(String, Cell)]) -> Result<(), AutomergeError> {
    for (name, cell) in fields {
        let current = tx.get(ROOT, name.as_str())?;
        let Some(wanted) = cell.scalar() else {
            if current.is_some() {
                tx.delete(ROOT, name.as_str())?;
            }
            continue;
        };
        match current {
            Some((Value::Scalar(scalar), _)) if *scalar == wanted => {}
            Some((Value::Object(ObjType::Text), text)) if wanted.is_str() => {
                let wanted = wanted.as_str().unwrap_or_default();
                if tx.text(&text)? != wanted {
                    tx.update_text(&text, wanted)?;
                }
            }
            _ => tx.put(ROOT, name.as_str(), wanted)?,
        }
    }
    Ok(())
}

impl Cell {
    fn scalar(&self) -> Option<ScalarValue> {
        Some(match self {
            Self::Empty => return None,
            Self::Bool(value) => ScalarValue::Boolean(*value),
            Self::Int(value) => ScalarValue::Int(*value),
            Self::Uint(value) => ScalarValue::Uint(*value),
            Self::Float(value) => ScalarValue::F64(*value),
            Self::Text(text) => ScalarValue::Str(text.as_str().into()),
        })
    }
}
