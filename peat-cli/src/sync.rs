//! `peat sync`: connect once, end when both sides hold the same.

use std::path::Path;
use std::time::{Duration, Instant};

use peat_node::{Node, Options};
use serde_json::json;

use crate::access::Access;
use crate::args::SyncArgs;
use crate::control::{Answer, Client, Request, Status};
use crate::failure::{Code, Failure};
use crate::net::Network;
use crate::output::Output;

/// Time for telling the peer that this was all.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) fn run(dir: &Path, args: &SyncArgs, output: &mut Output) -> Result<(), Failure> {
    let status = match Client::connect(dir)? {
        Some(client) => level(&mut Access::Serving(client), args)?,
        None => once(dir, args)?,
    };
    let peer = args.ticket.peer.to_string();
    let documents = status.documents;
    output.data(
        format_args!("equal with {peer}: {documents} documents"),
        &json!({ "peer": peer, "level": true, "documents": documents, "traffic": status.traffic }),
    )
}

/// Opens the node for the time of one synchronisation.
fn once(dir: &Path, args: &SyncArgs) -> Result<Status, Failure> {
    Node::init(dir).map_err(|error| Failure::open(dir, &error))?;
    let node = Node::open(dir, Options::default()).map_err(|error| Failure::open(dir, &error))?;
    let network = Network::attach(&node, &args.network);
    let mut access = Access::opened(node);
    let synced = network.and_then(|network| Ok((level(&mut access, args)?, network)));
    let closed = access.close();
    let (status, network) = synced?;
    network.close(Instant::now() + FAREWELL);
    closed.map(|()| status)
}

fn level(access: &mut Access, args: &SyncArgs) -> Result<Status, Failure> {
    access.call(Request::sync(&args.ticket, args.timeout))?;
    match access.call(Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(Failure::new(Code::Busy, "the running `peat serve` gave no status", "run the command again")),
    }
}
