//! `peat sync`: connect once, end when both sides hold the same; or compare with a connected peer now.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use peat_node::{Node, Options, PeerId, SyncOutcome, Synced, Ticket};
use serde_json::json;

use crate::access::{Access, parse, unexpected};
use crate::args::SyncArgs;
use crate::control::{Answer, Client, Request, Status, SyncedNow, Unequal};
use crate::failure::{Code, Failure};
use crate::net::Network;
use crate::output::Output;

/// Time for telling the peer that this was all.
const FAREWELL: Duration = Duration::from_secs(1);

/// Documents that are listed one by one; of more, only how many there are is said.
const MOST_LISTED: usize = 10_000;

pub(crate) fn run(dir: &Path, args: &SyncArgs, output: &mut Output) -> Result<(), Failure> {
    let target = args.target.as_deref().unwrap_or_default();
    if let Some(peer) = args.peer {
        return now(dir, peer, target, args.timeout, output);
    }
    let ticket: Ticket = parse(target)?;
    let status = match Client::connect(dir)? {
        Some(client) => level(&mut Access::Serving(client), &ticket, args)?,
        None => once(dir, &ticket, args)?,
    };
    let peer = ticket.peer.to_string();
    let documents = status.documents;
    output.data(
        format_args!("equal with {peer}: {documents} documents"),
        &json!({ "peer": peer, "level": true, "documents": documents, "traffic": status.traffic }),
    )
}

/// Has the running node compare documents with a peer, and shows what came of it.
fn now(dir: &Path, peer: PeerId, prefix: &str, timeout: Duration, output: &mut Output) -> Result<(), Failure> {
    let Some(mut client) = Client::connect(dir)? else {
        return Err(Failure::new(
            Code::NotServing,
            "no `peat serve` runs on this data directory",
            "start it, or synchronise once with the peer's ticket",
        ));
    };
    let peer = peer.to_string();
    client.send(&Request::SyncNow { peer: peer.clone(), prefix: prefix.to_owned(), timeout })?;
    let Answer::Synced(synced) = client.receive()? else { return Err(unexpected()) };
    let counts: Vec<_> = synced.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let counts = if counts.is_empty() { "no documents".to_owned() } else { counts.join(", ") };
    if output.is_json() {
        output.json_line(&json!({ "peer": peer, "counts": synced.counts, "documents": synced.rest }))?;
    } else {
        for Unequal { key, outcome, reason } in &synced.rest {
            let reason = reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            output.data(format_args!("{key}\t{outcome}{reason}"), &())?;
        }
        output.data(format_args!("{peer}: {counts}"), &())?;
    }
    let has = |outcome: SyncOutcome| synced.counts.contains_key(outcome.name());
    if has(SyncOutcome::Unreachable) {
        return Err(Failure::new(
            Code::Unreachable,
            format!("{peer} is not connected"),
            "see `peat status`, and join it with its ticket",
        ));
    }
    if has(SyncOutcome::Unfinished) {
        return Err(Failure::new(
            Code::Timeout,
            format!("some documents had no outcome within {} s", timeout.as_secs_f64()),
            "run the command again, or give it more time with --timeout",
        ));
    }
    if synced.counts.contains_key("refused") {
        return Err(Failure::new(
            Code::Refused,
            "some documents are not taken as they are",
            "see the reasons above, and the policy of their collections",
        ));
    }
    Ok(())
}

/// Counts outcomes, and keeps the first of those that are not equal.
pub(crate) fn summary(outcomes: &[Synced]) -> SyncedNow {
    let mut counts = BTreeMap::new();
    for synced in outcomes {
        *counts.entry(synced.outcome.name().to_owned()).or_default() += 1;
    }
    let rest = outcomes.iter().filter(|synced| synced.outcome != SyncOutcome::Equal).take(MOST_LISTED);
    let rest = rest.map(|synced| Unequal {
        key: synced.doc.to_string(),
        outcome: synced.outcome.name().to_owned(),
        reason: match synced.outcome {
            SyncOutcome::Refused(reason) => Some(reason.to_string()),
            _ => None,
        },
    });
    SyncedNow { counts, rest: rest.collect() }
}

/// Opens the node for the time of one synchronisation.
fn once(dir: &Path, ticket: &Ticket, args: &SyncArgs) -> Result<Status, Failure> {
    Node::init(dir).map_err(|error| Failure::open(dir, &error))?;
    let node = Node::open(dir, Options::default()).map_err(|error| Failure::open(dir, &error))?;
    let network = Network::attach(&node, &args.network);
    let mut access = Access::opened(node);
    let synced = network.and_then(|network| Ok((level(&mut access, ticket, args)?, network)));
    let closed = access.close();
    let (status, network) = synced?;
    network.close(Instant::now() + FAREWELL);
    closed.map(|()| status)
}

fn level(access: &mut Access, ticket: &Ticket, args: &SyncArgs) -> Result<Status, Failure> {
    access.call(Request::sync(ticket, args.timeout))?;
    match access.call(Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(Failure::new(Code::Busy, "the running `peat serve` gave no status", "run the command again")),
    }
}
