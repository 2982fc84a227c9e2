//! The application's handle.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use automerge::transaction::Transaction;
use automerge::{Automerge, AutomergeError};
use ed25519_dalek::SigningKey;
use peat_proto::store::{Entry, StoreFault};
use peat_proto::{self as proto, Boot, Config, DocId, Heads, Invitation, Listing, Marker, PeerId, Stats, Which, Wire};
use serde_json::Value;

use crate::address::AddressBook;
use crate::dir::{self, Dir};
use crate::driver::{Clock, Closing, Driver, State};
use crate::error::{DeleteError, LevelError, OpenError, ReadError, RulesError, SyncError, WriteError};
use crate::inbox::{Inbox, Message};
use crate::json;
use crate::pending::{Pending, Permits, Reply, pending};
use crate::request::{Delete, Edit, Import, Read, Request};
use crate::rules::Rules;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::thread::StoreThread;
use crate::subscription::{Subscription, subscription};
use crate::sync::Synced;
use crate::ticket::Ticket;
use crate::transport::queue::queue;
use crate::transport::{Hub, Port};
use crate::workers::Workers;

/// The application's handle on a running node. Cheap to clone; usable from any thread and any async runtime.
///
/// Requests for one document are done in the order in which they were made on one thread: a `get` after a `put` sees
/// it. A write is answered when it survives a crash. At most [`Node::MAX_REQUESTS`] requests are under way; a call
/// beyond that blocks until one has been answered.
///
/// Dropping the last handle closes the node and waits until it is closed, like [`Node::close`].
///
/// ```
/// use peat_node::{DocId, Node, Options};
/// use serde_json::json;
///
/// let node = Node::in_memory(Options::default());
/// let doc = DocId::new("notes:1")?;
/// node.put(&doc, json!({"title": "first light"})).wait()?;
/// assert_eq!(node.get(&doc).wait()?, Some(json!({"title": "first light"})));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Node(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    id: PeerId,
    hub: Arc<Hub>,
    /// What goes into tickets; none when everybody is let in.
    invitation: Option<Invitation>,
    permits: Permits,
    /// Where rules are kept.
    dir: Mutex<Option<PathBuf>>,
    closing: Closing,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How to open a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The core's limits. Its policy and family are those of `rules`. When `admission` names no invitation, and does not let everybody in, the node
    /// issues one of its own, draws it once and keeps it in its data directory.
    pub config: Config,
    /// What the node does with which collection, and for whom. Default: what [`Node::set_rules`] left in the data directory,
    /// or else what `config` says.
    pub rules: Option<Rules>,
    /// What connections may speak. Default V1 alone.
    pub wires: Vec<Wire>,
}

/// Who a node is, for [`Node::with_store`]. [`Node::open`] keeps it in the data directory.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The Ed25519 seed of the node's key.
    pub secret: [u8; 32],
    /// The secret that admits its bearer.
    pub invitation: Invitation,
    /// Which actor the node edits as. Automerge never recovers from an actor that repeats itself, so no two runs may
    /// have the same boot, unless the store was closed cleanly in between and nothing has touched it since. It must be
    /// durable before the node is started.
    pub boot: Boot,
}

/// A connection that is wanted for a time: see [`Node::visit`].
#[derive(Debug)]
pub struct Visit {
    peer: PeerId,
    inbox: Inbox,
}

/// A deleted document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its name.
    pub doc: DocId,
    /// What stands in its place; none where it was deleted softly, so that a [`Node::put`] brings it back.
    pub marker: Option<Marker>,
}

impl Node {
    /// Most requests of all clones of a handle that are under way: 4,096, of about 300 B each apart from what they carry.
    pub const MAX_REQUESTS: usize = 4096;

    /// Creates the key and an empty store in `dir`. A node that lives there already is left alone and its id returned.
    ///
    /// # Errors
    /// [`OpenError`] if that is not possible; nothing that was there is changed.
    pub fn init(dir: &Path) -> Result<PeerId, OpenError> {
        Dir::init(dir)
    }

    /// Opens the node that lives in `dir`, and locks the directory until it is closed. Starts the threads.
    ///
    /// ```no_run
    /// # use peat_node::{Node, Options};
    /// # use std::path::Path;
    /// let dir = Path::new("/var/lib/peat");
    /// Node::init(dir)?;
    /// let node = Node::open(dir, Options::default())?;
    /// println!("{}", node.id());
    /// # Ok::<(), peat_node::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way. Nothing is repaired by guessing.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        let mut options = options;
        let (dir, mut store) = Dir::open(dir)?;
        if options.rules.is_none() {
            options.rules = dir::read_rules(dir.path())?;
        }
        let book = AddressBook::open(dir.path())?;
        let entries = store.entries()?;
        let identity = Identity { secret: dir.seed(), invitation: dir.invitation(), boot: dir.boot() };
        let home = Home { store: Box::new(store), dir: Some(dir), book };
        Ok(Self::start(identity, home, entries, options)?)
    }

    /// A node that keeps nothing, under a new identity.
    ///
    /// # Panics
    /// If the operating system gives no randomness or no thread.
    #[must_use]
    pub fn in_memory(options: Options) -> Self {
        let store = Box::<MemoryStore>::default();
        Self::with_store(Identity::random(), store, options).expect("the operating system gives a few threads")
    }

    /// A node on a store of the caller's. Which peers it joined, and where they were, it does not keep.
    ///
    /// # Errors
    /// [`OpenError`] if the store cannot be read or the operating system gives no thread.
    pub fn with_store(identity: Identity, mut store: Box<dyn Store>, options: Options) -> Result<Self, OpenError> {
        let entries = store.entries()?;
        let home = Home { store, dir: None, book: AddressBook::default() };
        Ok(Self::start(identity, home, entries, options)?)
    }

    /// The node's id: its public key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// Makes the document's root equal to this JSON object (keys that it lacks are deleted, equal values left alone;
    /// see [`crate::json`]). Done when durable. An empty object creates no document.
    pub fn put(&self, doc: &DocId, value: Value) -> Pending<Result<(), WriteError<Infallible>>> {
        let refused = json::check_depth(&value).err().map(WriteError::TooDeep);
        let object = match (refused, value) {
            (Some(error), _) => Err(error),
            (None, Value::Object(object)) => Ok(object),
            (None, _) => Err(WriteError::NotAnObject),
        };
        match object {
            Ok(object) => {
                let edit = move |tx: &mut Transaction<'_>| json::write(tx, &object);
                let refuse = |error: AutomergeError| WriteError::Value(error.to_string());
                self.request(doc, write_closed, |reply| Edit::new(edit, refuse, reply))
            }
            Err(error) => {
                let (reply, answer) = pending(write_closed);
                reply.send(Err(error));
                answer
            }
        }
    }

    /// Runs `f` on a transaction: committed on `Ok`, rolled back on `Err` or panic. Done when durable; at once when it
    /// changes nothing and no earlier write to the document is still on its way to the disk.
    ///
    /// `f` runs on the node's own thread: it must be quick, and must not wait for this node. If it panics, nothing is
    /// changed, and the panic goes on where the answer is awaited.
    pub fn edit<R, E, F>(&self, doc: &DocId, f: F) -> Pending<Result<R, WriteError<E>>>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<R, E> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        self.request(doc, write_closed, |reply| Edit::new(f, WriteError::Aborted, reply))
    }

    /// The document as JSON (see [`crate::json`]), with what is not yet durable; `None` if there is no such document.
    pub fn get(&self, doc: &DocId) -> Pending<Result<Option<Value>, ReadError>> {
        let read = |document: &Automerge| Ok(json::read(document)?);
        self.request(doc, read_closed, |reply| Read::new(read, reply))
    }

    /// The document as saved Automerge bytes; `None` if there is no such document.
    pub fn export(&self, doc: &DocId) -> Pending<Result<Option<Vec<u8>>, ReadError>> {
        let save = |document: &Automerge| Ok(document.save());
        self.request(doc, read_closed, |reply| Read::new(save, reply))
    }

    /// Merges saved Automerge bytes into a document; answers its heads. Done when durable.
    pub fn import(&self, doc: &DocId, bytes: Vec<u8>) -> Pending<Result<Heads, WriteError<Infallible>>> {
        self.request(doc, write_closed, |reply| Import::new(bytes.into(), reply))
    }

    /// Deletes a document the way its collection does (see [`Rules`]), and has that travel. Done when durable.
    ///
    /// In collections that delete softly the document only gets a field `_deleted`: it is not listed and not got any more, and
    /// a [`Node::put`] brings it back. In the others a marker takes its place for ever, and writes to it are refused.
    pub fn delete(&self, doc: &DocId, reason: Option<&str>) -> Pending<Result<(), DeleteError>> {
        let reason = reason.map(str::to_owned);
        self.request(doc, || Err(DeleteError::Closed), |reply| Delete::new(reason, reply))
    }

    /// The deleted documents whose key starts with `prefix`, in key order.
    pub fn deleted(&self, prefix: &str) -> Pending<Result<Vec<Deleted>, ReadError>> {
        let prefix = prefix.to_owned();
        self.ask(read_closed, |reply| Message::Deleted { prefix, reply })
    }

    /// What the node does with which collection, and for whom; `None` once it has closed.
    pub fn rules(&self) -> Pending<Option<Rules>> {
        self.ask(|| None, Message::Rules)
    }

    /// Goes over to these rules, and keeps them over restarts where the node has a data directory: waits for the disk.
    ///
    /// # Errors
    /// They could not be written; the old ones go on.
    pub fn set_rules(&self, rules: Rules) -> Result<(), RulesError> {
        // One writer at a time, so that the file and the running node agree.
        let dir = self.0.dir.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*dir {
            dir::write_rules(dir, &rules)?;
        }
        self.0.hub.inbox.send(Message::SetRules(Box::new(rules)));
        Ok(())
    }

    /// The documents whose key starts with `prefix`, in key order; deleted ones are not among them.
    pub fn list(&self, prefix: &str) -> Pending<Result<Vec<Listing>, ReadError>> {
        let prefix = prefix.to_owned();
        self.ask(read_closed, |reply| Message::List { prefix, reply })
    }

    /// Changes from now on of documents whose key starts with `prefix`, own changes included.
    #[must_use]
    pub fn subscribe(&self, prefix: &str) -> Subscription {
        let (feed, changes) = subscription(prefix);
        self.0.hub.inbox.send(Message::Subscribe(feed));
        changes
    }

    /// What the node counts and holds; `None` once it has closed.
    pub fn stats(&self) -> Pending<Option<Stats>> {
        self.ask(|| None, Message::Stats)
    }

    /// Stay connected to the ticket's node, for ever: over restarts, too, where the node has a data directory.
    pub fn join(&self, ticket: &Ticket) {
        self.0.hub.inbox.send(Message::Join(ticket.clone()));
    }

    /// Connects to the ticket's node until the answer is dropped, and does not remember to join it.
    #[must_use = "the peer is wanted until this is dropped"]
    pub fn visit(&self, ticket: &Ticket) -> Visit {
        let inbox = self.0.hub.inbox.clone();
        inbox.send(Message::Visit(ticket.clone()));
        Visit { peer: ticket.peer, inbox }
    }

    /// Takes back [`Node::join`]: the peer is not dialled any more. A connection that exists stays, and so does the
    /// peer's admission: it may still connect.
    pub fn part(&self, peer: &PeerId) {
        self.0.hub.inbox.send(Message::Part(*peer));
    }

    /// Stop redialling, and forget that the peer was admitted and where it was. Its connections are closed.
    pub fn forget(&self, peer: &PeerId) {
        self.0.hub.inbox.send(Message::Forget(*peer));
    }

    /// Done when this node's document set and the connected peer's are proven equal. Waits for as long as the peer is
    /// away; a peer that refuses from here on is a [`LevelError::Refused`].
    pub fn level_with(&self, peer: &PeerId) -> Pending<Result<(), LevelError>> {
        let (reply, answer) = pending(|| Err(LevelError::Closed));
        let peer = *peer;
        self.0.hub.inbox.send(Message::Level { peer, reply });
        answer
    }

    /// Compares documents with a peer, or with all that are connected or wanted, now: whatever they are believed to have is
    /// forgotten, and no cooldown holds a document back. The answer has one entry for each document and peer; it comes when
    /// all have an outcome, and after `within` at the latest.
    ///
    /// What else limits a connection still does, so many documents take their time.
    pub fn sync_now(
        &self,
        which: Which,
        peer: Option<&PeerId>,
        within: Duration,
    ) -> Pending<Result<Vec<Synced>, SyncError>> {
        let peer = peer.copied();
        self.ask(|| Err(SyncError::Closed), |answer| Message::SyncNow { which, peer, within, answer })
    }

    /// This node's ticket: its id, the addresses of its transports, its invitation.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        let mut addrs = self.0.hub.addrs();
        addrs.truncate(Ticket::MAX_ADDRS);
        Ticket { peer: self.0.id, addrs, invitation: self.0.invitation }
    }

    /// A port for one more transport. Dials go to the transport that was attached first, then to the others.
    #[must_use]
    pub fn attach(&self, transport: &'static str) -> Port {
        Port::attach(self.0.hub.clone(), transport)
    }

    /// Closes all connections, waits until everything written is durable, marks the store as cleanly closed, and lets
    /// go of the data directory. Requests made before are still done; later ones answer `Closed`. Closing again
    /// answers the same.
    ///
    /// Where the disk refuses, its fault is the answer; edits that were answered as not durable are then lost.
    pub fn close(&self) -> Pending<Result<(), StoreFault>> {
        let (reply, answer) = pending(|| Err(StoreFault::Closed));
        self.0.closing.wait(reply);
        self.0.hub.inbox.send(Message::Close);
        answer
    }

    fn request<T, Q>(&self, doc: &DocId, closed: fn() -> T, request: impl FnOnce(Reply<T>) -> Q) -> Pending<T>
    where
        T: 'static,
        Q: Request + 'static,
    {
        let doc = doc.clone();
        self.ask(closed, |reply| Message::Request(doc, Box::new(request(reply))))
    }

    fn ask<T: 'static>(&self, closed: fn() -> T, message: impl FnOnce(Reply<T>) -> Message) -> Pending<T> {
        let (reply, answer) = pending(closed);
        let reply = reply.holding(self.0.permits.take());
        self.0.hub.inbox.send(message(reply));
        answer
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { config: Config::default(), rules: None, wires: vec![Wire::V1] }
    }
}

impl Identity {
    /// A node that never was before.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    #[must_use]
    pub fn random() -> Self {
        Self { secret: random(), invitation: Invitation(random()), boot: Boot { store: random(), number: 1 } }
    }
}

/// Where a node keeps what it knows.
struct Home {
    store: Box<dyn Store>,
    dir: Option<Dir>,
    book: AddressBook,
}

impl Node {
    /// Starts the threads around a store and what was read from it.
    fn start(identity: Identity, home: Home, entries: Vec<Entry>, options: Options) -> io::Result<Self> {
        let key = SigningKey::from_bytes(&identity.secret);
        let id = PeerId(key.verifying_key().to_bytes());
        let mut config = options.config;
        if let Some(rules) = options.rules {
            (config.policy, config.family) = (rules.table, rules.family);
        }
        let admission = &mut config.admission;
        if !admission.open && admission.invitations.is_empty() {
            admission.invitations.push(identity.invitation);
        }
        let invitation = admission.invitations.first().copied();

        let path = home.dir.as_ref().map(|dir| dir.path().to_owned());
        let (sender, messages) = queue();
        let inbox = Inbox(sender);
        let clock = Clock::start();
        let core = proto::Node::new(config, id, identity.boot, random(), entries, clock.now());
        let answers = inbox.clone();
        let store = StoreThread::spawn(home.store, move |answer| {
            answers.send(Message::Stored(answer));
        })?;
        let closing = Closing::default();
        let driver = Driver {
            core,
            clock,
            messages,
            store,
            workers: Workers::start(&inbox)?,
            book: home.book,
            dir: home.dir,
            state: State::default(),
            closing: closing.clone(),
        };
        let thread = thread::Builder::new().name("peat-loop".to_owned()).spawn(move || driver.run())?;
        Ok(Self(Arc::new(Handle {
            id,
            hub: Arc::new(Hub::new(inbox, identity.secret, options.wires)),
            invitation,
            permits: Permits::new(Self::MAX_REQUESTS),
            dir: Mutex::new(path),
            closing,
            thread: Mutex::new(Some(thread)),
        })))
    }
}

/// # Panics
/// If the operating system gives no randomness: nothing safe can be done without.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.inbox.send(Message::Leave(self.peer));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hub.inbox.send(Message::Close);
        let thread = self.thread.get_mut();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may have been inside a closure that the loop has just run; it cannot wait for itself.
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // A panic of the loop was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn write_closed<T, E>() -> Result<T, WriteError<E>> {
    Err(WriteError::Closed)
}

fn read_closed<T>() -> Result<T, ReadError> {
    Err(ReadError::Closed)
}
