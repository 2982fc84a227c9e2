//! The serving end of the socket.

use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use peat_node::Node;
use peat_smol::Meter;

use super::socket::{self, Stream};
use super::{Greeting, MAX_IN_FLIGHT, Outcome, Request, VERSION, line};
use crate::access::{Started, start};
use crate::failure::{Code, Failure};

/// Most commands that are connected at a time; each costs two threads and at most one line of buffer.
const MAX_CLIENTS: usize = 32;

/// Answers commands until it is dropped; commands that are connected then get `Closed` from the node.
pub(crate) struct Server {
    dir: PathBuf,
}

impl Server {
    /// Starts to listen in `dir`, whose lock the caller holds. `udp` counts what the node's endpoint on plain UDP does.
    pub(crate) fn start(dir: &Path, node: &Node, udp: Option<Meter>) -> io::Result<Self> {
        let listener = socket::listen(dir)?;
        let node = node.clone();
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            let places = Arc::new(());
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => admit(stream, &node, udp.as_ref(), &places),
                    Err(error) => tracing::warn!(%error, "a command could not connect"),
                }
            }
        })?;
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        socket::remove(&self.dir);
    }
}

/// Serves one client on a thread of its own, if there is a place left. The place is held by counting references.
fn admit(mut stream: Stream, node: &Node, udp: Option<&Meter>, places: &Arc<()>) {
    let greeting = if Arc::strong_count(places) <= MAX_CLIENTS {
        Ok(Greeting { peat: VERSION })
    } else {
        Err(Failure::new(
            Code::Busy,
            format!("{MAX_CLIENTS} commands are connected to the running `peat serve`"),
            "wait until one of them has ended",
        ))
    };
    let welcome = greeting.is_ok();
    if line::write(&mut stream, &greeting).is_err() || !welcome {
        return;
    }
    let (node, udp, place) = (node.clone(), udp.cloned(), Arc::clone(places));
    let spawned = thread::Builder::new().name("command".to_owned()).spawn(move || {
        if let Err(error) = converse(stream, &node, udp.as_ref()) {
            tracing::debug!(%error, "a command went away");
        }
        drop(place);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "a command could not be served");
    }
}

/// Starts requests as they come, and answers them in order as they are done.
fn converse(stream: Stream, node: &Node, udp: Option<&Meter>) -> io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let (under_way, next) = mpsc::sync_channel::<Started>(MAX_IN_FLIGHT);
    let answering = thread::Builder::new().name("answers".to_owned()).spawn(move || answer(stream, &next))?;
    let ended = loop {
        let started = match line::read::<Request>(&mut from) {
            Ok(Some(request)) => start(node, udp, request),
            Ok(None) => break Ok(()),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let failure = Failure::new(Code::Usage, format!("not a request: {error}"), "update peat");
                Box::new(move || Err(failure))
            }
            Err(error) => break Err(error),
        };
        if under_way.send(started).is_err() {
            break Ok(());
        }
    };
    drop(under_way);
    let answered = answering.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()));
    ended.and(answered)
}

fn answer(stream: Stream, next: &Receiver<Started>) -> io::Result<()> {
    let mut to = BufWriter::new(stream);
    loop {
        // What is written waits in the buffer only while the next answer is already on its way.
        let started = match next.try_recv() {
            Ok(started) => started,
            Err(TryRecvError::Disconnected) => return to.flush(),
            Err(TryRecvError::Empty) => {
                to.flush()?;
                match next.recv() {
                    Ok(started) => started,
                    Err(_) => return Ok(()),
                }
            }
        };
        let outcome = started();
        match line::write(&mut to, &outcome) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                let failure: Outcome = Err(Failure::new(
                    Code::TooLarge,
                    "the document is too large for the control socket",
                    "stop `peat serve` and run the command again",
                ));
                line::write(&mut to, &failure)?;
            }
            written => written?,
        }
    }
}
