//! `peat serve`: a node that runs until it is told to stop.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peat_node::{Node, Options};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::ServeArgs;
use crate::control::Server;
use crate::failure::{Code, Failure};
use crate::net::Network;
use crate::output::Output;
use crate::{formation, policy, wait};

/// Time for closing connections and the store. Together with the rest of the shutdown it stays below 2 s, after which
/// service managers and people lose patience; what is durable by then is safe whatever happens.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

pub(crate) fn run(dir: &Path, args: &ServeArgs, output: &mut Output) -> Result<(), Failure> {
    // Before anything that has to be undone.
    let stop = stop_requests(args.tied)?;
    Node::init(dir).map_err(|error| Failure::open(dir, &error))?;
    let mut options = Options::default();
    options.config.admission.open = args.open;
    options.config.admission.allow.clone_from(&args.allow);
    formation::join(&args.formation, &mut options)?;
    let node = Node::open(dir, options).map_err(|error| Failure::open(dir, &error))?;
    policy::adopt(&node, args)?;
    let served = serve(dir, args, &node, output, &stop);
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let closed = wait::until(deadline, node.close());
    served?.close(deadline);
    match closed {
        Some(closed) => Ok(closed?),
        None => Err(Failure::new(
            Code::Store,
            format!("the store was not closed within {} ms", CLOSE_TIMEOUT.as_millis()),
            "nothing acknowledged is lost; check the disk if this happens again",
        )),
    }
}

/// Serves until asked to stop; what is left to close is the node, and then its network.
fn serve(
    dir: &Path,
    args: &ServeArgs,
    node: &Node,
    output: &mut Output,
    stop: &mpsc::Receiver<()>,
) -> Result<Network, Failure> {
    let network = Network::attach(node, &args.network)?;
    let _server = Server::start(dir, node, network.udp()).map_err(|error| {
        Failure::new(
            Code::Store,
            format!("no socket can be made in {}: {error}", dir.display()),
            "choose a data directory on a local disk, with a shorter path",
        )
    })?;
    for ticket in &args.join {
        node.join(ticket);
    }
    announce(dir, node, output)?;
    // An error means that nobody can ask any more; then there is nothing left to wait for.
    let _ = stop.recv();
    Ok(network)
}

fn announce(dir: &Path, node: &Node, output: &mut Output) -> Result<(), Failure> {
    let ticket = node.ticket();
    output.note(format_args!("peat {} in {}", node.id(), dir.display()));
    for addr in &ticket.addrs {
        output.note(format_args!("listening on {addr}"));
    }
    output.note("join this node from another machine with:");
    output.data(
        format_args!("peat serve --join {ticket}"),
        &json!({
            "id": node.id().to_string(),
            "dir": dir,
            "listen": ticket.addrs,
            "ticket": ticket.to_string(),
        }),
    )?;
    output.flush()
}

/// Where requests to stop arrive: signals, and the end of standard input for a tied process.
fn stop_requests(tied: bool) -> Result<mpsc::Receiver<()>, Failure> {
    let (ask, stop) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(no_signals)?;
    let ask_by_signal = ask.clone();
    thread::spawn(move || {
        for _ in &mut signals {
            if ask_by_signal.send(()).is_err() {
                return;
            }
        }
    });
    if tied {
        thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = ask.send(());
        });
    }
    Ok(stop)
}

fn no_signals(error: io::Error) -> Failure {
    Failure::new(Code::Network, format!("signals cannot be received: {error}"), "run the command again")
}
