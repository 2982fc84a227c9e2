//! The store's own thread: it takes commands, commits what has queued up together, and answers.

use std::io;
use std::thread::JoinHandle;

use flume::{Receiver, Sender};
use peat_proto::store::{Batch, StoreCommand, StoreFault, Stored};

use super::Store;

/// Most commands that one drain takes. More than the core ever has under way; keeps the memory of a commit bounded if
/// somebody else writes.
const DRAIN: usize = 1024;

/// A running store. Dropped without [`StoreThread::close`], it finishes what was sent and is not marked clean.
#[derive(Debug)]
pub struct StoreThread {
    /// Unbounded, because the loop must never wait for the disk. The core bounds it: one batch under way, and at most
    /// one load per document that it is waiting for.
    requests: Sender<Request>,
    thread: JoinHandle<Result<(), StoreFault>>,
}

#[derive(Debug)]
enum Request {
    Run(StoreCommand),
    Close,
}

impl StoreThread {
    /// Gives the store a thread. `answer` is called there once per command and must not wait for this store.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn spawn(store: Box<dyn Store>, answer: impl FnMut(Stored) + Send + 'static) -> io::Result<Self> {
        let (requests, received) = flume::unbounded();
        let thread =
            std::thread::Builder::new().name("peat-store".to_owned()).spawn(move || serve(store, &received, answer))?;
        Ok(Self { requests, thread })
    }

    /// Hands a command over. Never waits.
    ///
    /// # Errors
    /// [`StoreFault::Closed`] if the thread has ended, which it does not before [`Self::close`].
    pub fn send(&self, command: StoreCommand) -> Result<(), StoreFault> {
        self.requests.send(Request::Run(command)).map_err(|_| StoreFault::Closed)
    }

    /// Finishes and answers everything that was sent, marks the store as cleanly closed, and ends the thread.
    ///
    /// # Errors
    /// The store could not be closed cleanly. What was answered as durable still is.
    pub fn close(self) -> Result<(), StoreFault> {
        self.requests.send(Request::Close).map_err(|_| StoreFault::Closed)?;
        self.thread.join().unwrap_or(Err(StoreFault::Closed))
    }
}

/// Runs commands in order and answers each once. Writes that follow one another share one commit; a load waits only for
/// writes to its own document.
pub fn execute(
    store: &mut dyn Store,
    commands: impl IntoIterator<Item = StoreCommand>,
    mut answer: impl FnMut(Stored),
) {
    let mut group: Vec<Batch> = Vec::new();
    for command in commands {
        match command {
            StoreCommand::Write(batch) => group.push(batch),
            StoreCommand::Load { load, doc } => {
                let writes = |batch: &Batch| batch.ops.iter().any(|op| op.doc() == Some(&doc));
                if group.iter().any(writes) {
                    commit(store, std::mem::take(&mut group), &mut answer);
                }
                answer(match store.load(&doc) {
                    Ok(chunks) => Stored::Loaded { load, chunks },
                    Err(fault) => Stored::LoadFailed { load, fault },
                });
            }
        }
    }
    commit(store, group, &mut answer);
}

/// Commits a group. If that fails, each batch on its own, until the disk itself refuses: then the rest is not tried.
fn commit(store: &mut dyn Store, group: Vec<Batch>, answer: &mut impl FnMut(Stored)) {
    if group.is_empty() {
        return;
    }
    let together = store.apply(&group);
    let alone = group.len() == 1;
    let mut refused = None;
    for batch in group {
        let seq = batch.seq;
        let outcome = match (together, refused) {
            (Ok(()), _) => Ok(()),
            (Err(fault), _) if alone => Err(fault),
            (Err(_), Some(fault)) => Err(fault),
            (Err(_), None) => store.apply(&[batch]),
        };
        answer(match outcome {
            Ok(()) => Stored::Durable { seq },
            Err(fault) => {
                if fault != StoreFault::Damaged {
                    refused = Some(fault);
                }
                Stored::WriteFailed { seq, fault }
            }
        });
    }
}

/// Until closed, or until nobody can send any more.
fn serve(
    mut store: Box<dyn Store>,
    requests: &Receiver<Request>,
    mut answer: impl FnMut(Stored),
) -> Result<(), StoreFault> {
    let mut closing = false;
    while !closing {
        let Ok(first) = requests.recv() else {
            return Ok(());
        };
        let mut commands = Vec::new();
        for request in std::iter::once(first).chain(requests.try_iter().take(DRAIN)) {
            match request {
                Request::Run(command) => commands.push(command),
                Request::Close => {
                    closing = true;
                    break;
                }
            }
        }
        execute(store.as_mut(), commands, &mut answer);
    }
    store.close()
}
