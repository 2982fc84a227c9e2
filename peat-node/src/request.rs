//! The application's requests for single documents: their order, and the wait for documents and for the disk.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use automerge::Automerge;
use automerge::transaction::Transaction;
use bytes::Bytes;
use peat_proto::store::StoreFault;
use peat_proto::{self as proto, DocId, EditError, EditId, Heads, Input, Node, Now, Refusal};

use crate::error::{DeleteError, ReadError, WriteError};
use crate::pending::Reply;

/// Something that the application wants of one document.
pub(crate) trait Request: Send {
    /// Does it, if the document is in memory.
    fn attempt(&mut self, core: &mut Node, now: Now, doc: &DocId) -> Progress;

    /// What an import came to.
    fn imported(&mut self, _outcome: Result<Heads, Refusal>) {}

    /// Gives the application its answer.
    fn answer(self: Box<Self>, outcome: Result<(), Failure>);
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It can be answered.
    Done,
    /// It wrote this edit: it can be answered when that is durable.
    Written(EditId),
    /// It wrote nothing because nothing differed.
    Unchanged,
    /// The document must be brought into memory first; then try again.
    Cold,
    /// The core has the bytes to import and says what became of them.
    Importing,
}

/// Why a request that was begun comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The document could not be loaded.
    Unreadable(StoreFault),
    /// The write failed.
    NotDurable(StoreFault),
}

/// All requests that are not yet answered.
#[derive(Default)]
pub(crate) struct Requests {
    /// Documents whose next request waits for the core. Requests for one document keep their order.
    queues: BTreeMap<DocId, Queue>,
    /// Requests whose edits wait for the disk, the oldest first.
    written: BTreeMap<DocId, VecDeque<Written>>,
}

/// A request, and the edit whose durability answers it.
struct Written {
    edit: EditId,
    request: Box<dyn Request>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Request>>,
    /// How often the document was opened for the requests.
    opens: usize,
    importing: bool,
}

impl Requests {
    /// Whether every request has been answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.written.is_empty()
    }

    /// Does the request, behind the earlier ones for this document.
    pub(crate) fn submit(&mut self, core: &mut Node, now: Now, doc: &DocId, request: Box<dyn Request>) {
        let idle = !self.queues.contains_key(doc);
        let queue = self.queues.entry(doc.clone()).or_default();
        queue.waiting.push_back(request);
        if idle {
            self.go_on(core, now, doc);
        }
    }

    /// The document is in memory.
    pub(crate) fn opened(&mut self, core: &mut Node, now: Now, doc: &DocId) {
        if self.queues.get(doc).is_some_and(|queue| !queue.importing) {
            self.go_on(core, now, doc);
        }
    }

    /// The document could not be loaded: everything that waits for it fails.
    pub(crate) fn open_failed(&mut self, core: &mut Node, now: Now, doc: &DocId, fault: StoreFault) {
        let Some(queue) = self.queues.get_mut(doc) else {
            return;
        };
        queue.opens = 0;
        if queue.importing {
            return;
        }
        for request in queue.waiting.drain(..) {
            request.answer(Err(Failure::Unreadable(fault)));
        }
        self.go_on(core, now, doc);
    }

    /// The core has dealt with the bytes to import.
    pub(crate) fn imported(
        &mut self,
        core: &mut Node,
        now: Now,
        doc: &DocId,
        outcome: Result<Heads, Refusal>,
        edit: EditId,
    ) {
        let Some(queue) = self.queues.get_mut(doc).filter(|queue| queue.importing) else {
            return;
        };
        queue.importing = false;
        if let Some(mut request) = queue.waiting.pop_front() {
            let refused = outcome.is_err();
            request.imported(outcome);
            if refused {
                request.answer(Ok(()));
            } else {
                self.await_disk(doc, edit, request);
            }
        }
        self.go_on(core, now, doc);
    }

    /// Edits of the document up to this one are durable.
    pub(crate) fn durable(&mut self, doc: &DocId, edit: EditId) {
        self.settle(doc, edit, Ok(()));
    }

    /// Edits of the document up to this one were not written.
    pub(crate) fn not_durable(&mut self, doc: &DocId, edit: EditId, fault: StoreFault) {
        self.settle(doc, edit, Err(Failure::NotDurable(fault)));
    }

    /// Nothing waits to be written: every edit is durable.
    pub(crate) fn all_durable(&mut self) {
        for written in std::mem::take(&mut self.written).into_values().flatten() {
            written.request.answer(Ok(()));
        }
    }

    /// Does what waits for the document, until it is cold or busy or nothing is left.
    fn go_on(&mut self, core: &mut Node, now: Now, doc: &DocId) {
        while let Some(queue) = self.queues.get_mut(doc) {
            let Some(mut request) = queue.waiting.pop_front() else {
                for _ in 0..queue.opens {
                    core.handle(now, Input::Close { doc: doc.clone() });
                }
                self.queues.remove(doc);
                return;
            };
            match request.attempt(core, now, doc) {
                Progress::Done => request.answer(Ok(())),
                Progress::Written(edit) => self.await_disk(doc, edit, request),
                Progress::Unchanged => self.await_earlier(doc, request),
                Progress::Cold => {
                    queue.waiting.push_front(request);
                    queue.opens += 1;
                    core.handle(now, Input::Open { doc: doc.clone() });
                    return;
                }
                Progress::Importing => {
                    queue.waiting.push_front(request);
                    queue.importing = true;
                    return;
                }
            }
        }
    }

    fn await_disk(&mut self, doc: &DocId, edit: EditId, request: Box<dyn Request>) {
        let written = self.written.entry(doc.clone()).or_default();
        written.push_back(Written { edit, request });
    }

    /// A write that changed nothing is as durable as the writes that it found.
    fn await_earlier(&mut self, doc: &DocId, request: Box<dyn Request>) {
        let earlier = self.written.get_mut(doc);
        match earlier.and_then(|written| Some((written.back()?.edit, written))) {
            Some((edit, written)) => written.push_back(Written { edit, request }),
            None => request.answer(Ok(())),
        }
    }

    fn settle(&mut self, doc: &DocId, edit: EditId, outcome: Result<(), Failure>) {
        let btree_map::Entry::Occupied(mut written) = self.written.entry(doc.clone()) else {
            return;
        };
        while written.get().front().is_some_and(|oldest| oldest.edit <= edit) {
            if let Some(oldest) = written.get_mut().pop_front() {
                oldest.request.answer(outcome);
            }
        }
        if written.get().is_empty() {
            written.remove();
        }
    }
}

/// A closure on a transaction. `refuse` turns its error into the application's.
pub(crate) struct Edit<F, R, E: 'static, A: 'static>
where
    R: 'static,
{
    edit: Option<F>,
    refuse: fn(A) -> WriteError<E>,
    outcome: Option<thread::Result<Result<R, WriteError<E>>>>,
    reply: Reply<Result<R, WriteError<E>>>,
}

/// Why a closure's changes were rolled back.
enum Rollback<A> {
    Error(A),
    Panic(Box<dyn std::any::Any + Send>),
}

impl<F, R, E, A> Edit<F, R, E, A> {
    pub(crate) fn new(edit: F, refuse: fn(A) -> WriteError<E>, reply: Reply<Result<R, WriteError<E>>>) -> Self {
        Self { edit: Some(edit), refuse, outcome: None, reply }
    }
}

impl<F, R, E, A> Request for Edit<F, R, E, A>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<R, A> + Send,
    R: Send + 'static,
    E: Send + 'static,
    A: Send + 'static,
{
    fn attempt(&mut self, core: &mut Node, now: Now, doc: &DocId) -> Progress {
        let before = core.last_edit();
        let edit = &mut self.edit;
        // The transaction is rolled back when this returns an error, so a panic leaves nothing half-done behind.
        let outcome = core.edit(now, doc, |tx| {
            let run = edit.take().map(|edit| catch_unwind(AssertUnwindSafe(|| edit(tx))));
            match run {
                Some(Ok(Ok(value))) => Ok(Some(value)),
                Some(Ok(Err(error))) => Err(Rollback::Error(error)),
                Some(Err(payload)) => Err(Rollback::Panic(payload)),
                None => Ok(None),
            }
        });
        let after = core.last_edit();
        let refused = match outcome {
            Ok(value) => {
                self.outcome = value.map(|value| Ok(Ok(value)));
                return if after > before { Progress::Written(after) } else { Progress::Unchanged };
            }
            // Opening an unreadable document tries to load it again, and says why that fails.
            Err(EditError::NotLoaded | EditError::Busy | EditError::Unreadable) => {
                return Progress::Cold;
            }
            Err(EditError::Aborted(Rollback::Panic(payload))) => {
                self.outcome = Some(Err(payload));
                return Progress::Done;
            }
            Err(EditError::Aborted(Rollback::Error(error))) => (self.refuse)(error),
            Err(EditError::Store(fault)) => WriteError::Store(fault),
            Err(EditError::TooLarge) => WriteError::TooLarge,
            Err(EditError::Deleted) => WriteError::Deleted,
            Err(_) => WriteError::Unreadable(StoreFault::Damaged),
        };
        self.outcome = Some(Ok(Err(refused)));
        Progress::Done
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        match (outcome, self.outcome) {
            (Ok(()), Some(outcome)) => self.reply.finish(outcome),
            // Unanswered means closed; not reached, because only an attempt leads here.
            (Ok(()), None) => {}
            (Err(failure), _) => self.reply.send(Err(failure.into())),
        }
    }
}

/// Merging saved Automerge bytes.
pub(crate) struct Import<E: 'static> {
    bytes: Bytes,
    outcome: Result<Heads, WriteError<E>>,
    reply: Reply<Result<Heads, WriteError<E>>>,
}

impl<E> Import<E> {
    pub(crate) fn new(bytes: Bytes, reply: Reply<Result<Heads, WriteError<E>>>) -> Self {
        Self { bytes, outcome: Err(WriteError::Closed), reply }
    }
}

impl<E: Send + 'static> Request for Import<E> {
    fn attempt(&mut self, core: &mut Node, now: Now, doc: &DocId) -> Progress {
        let changes = std::mem::take(&mut self.bytes);
        let doc = doc.clone();
        core.handle(now, Input::Change { doc, changes });
        Progress::Importing
    }

    fn imported(&mut self, outcome: Result<Heads, Refusal>) {
        self.outcome = outcome.map_err(WriteError::Refused);
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        self.reply.send(match outcome {
            Ok(()) => self.outcome,
            Err(failure) => Err(failure.into()),
        });
    }
}

/// Deleting a document.
pub(crate) struct Delete {
    reason: Option<String>,
    outcome: Result<(), DeleteError>,
    reply: Reply<Result<(), DeleteError>>,
}

impl Delete {
    pub(crate) fn new(reason: Option<String>, reply: Reply<Result<(), DeleteError>>) -> Self {
        Self { reason, outcome: Err(DeleteError::Closed), reply }
    }
}

impl Request for Delete {
    fn attempt(&mut self, core: &mut Node, now: Now, doc: &DocId) -> Progress {
        let deleted = core.delete(now, doc, self.reason.as_deref());
        self.outcome = match deleted {
            Ok(edit) => {
                self.outcome = Ok(());
                return Progress::Written(edit);
            }
            Err(proto::DeleteError::NotLoaded | proto::DeleteError::Busy) => return Progress::Cold,
            Err(proto::DeleteError::Store(fault)) => Err(DeleteError::Store(fault)),
            Err(error) => Err(DeleteError::Refused(error)),
        };
        Progress::Done
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        self.reply.send(match outcome {
            Ok(()) => self.outcome,
            Err(Failure::Unreadable(fault) | Failure::NotDurable(fault)) => Err(DeleteError::Store(fault)),
        });
    }
}

/// Reading the whole document.
pub(crate) struct Read<T: 'static> {
    read: fn(&Automerge) -> Result<T, ReadError>,
    outcome: Result<Option<T>, ReadError>,
    reply: Reply<Result<Option<T>, ReadError>>,
}

impl<T> Read<T> {
    pub(crate) fn new(
        read: fn(&Automerge) -> Result<T, ReadError>,
        reply: Reply<Result<Option<T>, ReadError>>,
    ) -> Self {
        Self { read, outcome: Err(ReadError::Closed), reply }
    }
}

impl<T: Send + 'static> Request for Read<T> {
    fn attempt(&mut self, core: &mut Node, _now: Now, doc: &DocId) -> Progress {
        self.outcome = match core.doc(doc) {
            _ if core.is_deleted(doc) => Ok(None),
            Some(document) => (self.read)(document).map(Some),
            None if core.contains(doc) => return Progress::Cold,
            None => Ok(None),
        };
        Progress::Done
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        self.reply.send(match outcome {
            Ok(()) => self.outcome,
            Err(Failure::Unreadable(fault) | Failure::NotDurable(fault)) => Err(ReadError::Store(fault)),
        });
    }
}

impl<E> From<Failure> for WriteError<E> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreadable(fault) => Self::Unreadable(fault),
            Failure::NotDurable(fault) => Self::Store(fault),
        }
    }
}
