//! The loop: the one thread that owns the state machine.
//!
//! It takes what has come in (up to a bound, so that changes are batched), hands it to the core, carries out what the
//! core wants done, and sleeps until something comes in or the core's deadline has come. It never waits for the disk,
//! a worker, a transport or the application.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use peat_proto::store::{StoreCommand, StoreFault, Stored};
use peat_proto::{CloseCode, ConnId, Event, Heads, Input, Node, Now, Origin, Output, PeerId, Role, Time};

use crate::address::AddressBook;
use crate::dial::{Dials, Unreachable};
use crate::dir::Dir;
use crate::error::LevelError;
use crate::inbox::Message;
use crate::node::Deleted;
use crate::pending::Reply;
use crate::request::Requests;
use crate::rules::Rules;
use crate::store::thread::StoreThread;
use crate::subscription::{Change, Feed};
use crate::sync::{Synced, Syncs};
use crate::transport::Outgoing;
use crate::transport::queue::{Receiver, Sender};
use crate::workers::Workers;

/// Messages that are taken before the core is drained: enough to merge a burst of changes into one write.
const BATCH: usize = 256;
/// Time for which messages are taken before the core is drained; short against a disk's flush.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// Everything that a running node consists of.
pub(crate) struct Driver {
    pub(crate) core: Node,
    pub(crate) clock: Clock,
    pub(crate) messages: Receiver<Message>,
    pub(crate) store: StoreThread,
    pub(crate) workers: Workers,
    pub(crate) book: AddressBook,
    /// Locked as long as the store is open.
    pub(crate) dir: Option<Dir>,
    pub(crate) state: State,
    pub(crate) closing: Closing,
}

/// What the loop keeps besides.
#[derive(Default)]
pub(crate) struct State {
    connections: BTreeMap<ConnId, Sender<(ConnId, Outgoing)>>,
    dials: Dials,
    requests: Requests,
    feeds: Vec<Feed>,
    syncs: Syncs,
    levels: BTreeMap<PeerId, Vec<Reply<Result<(), LevelError>>>>,
    /// Peers that are wanted for a time, and by how many visits.
    visits: BTreeMap<PeerId, usize>,
    /// Writes that the store has not answered.
    writes: usize,
    /// Why the last write failed; none when it succeeded.
    fault: Option<StoreFault>,
    /// Jobs that the workers have not answered.
    jobs: usize,
    closing: bool,
    crashed: bool,
}

/// The driver's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

/// How the closing of a node stands; shared with the handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closing(Arc<Mutex<Closed>>);

#[derive(Debug)]
enum Closed {
    NotYet(Vec<Reply<Result<(), StoreFault>>>),
    With(Result<(), StoreFault>),
}

impl Driver {
    /// Runs until the node is closed.
    pub(crate) fn run(mut self) {
        let _unwinding = Unwinding(self.closing.clone());
        let wanted: Vec<_> = self.book.wanted().collect();
        for (peer, invitation) in wanted {
            self.input(Input::Want { peer, invitation });
        }
        self.drain();
        while !self.is_finished() {
            self.take();
            self.drain();
        }
        self.finish();
    }

    /// Waits for the first message or the core's deadline, then takes what else has come in.
    fn take(&mut self) {
        let deadline = self.core.timeout().map(|at| self.clock.instant(at));
        let mut next = self.messages.recv_until(deadline);
        let until = Instant::now() + BATCH_TIME;
        let mut left = BATCH;
        while let Some(message) = next {
            self.message(message);
            left -= 1;
            // Nothing is taken that is not also handled.
            let go_on = left > 0 && Instant::now() < until;
            next = if go_on { self.messages.try_recv() } else { None };
        }
        let now = self.clock.now();
        if self.core.timeout().is_some_and(|at| at <= now.mono) {
            self.core.handle(now, Input::Timeout);
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Stored(answer) => self.stored(answer),
            Message::Worked(done) => {
                self.state.jobs = self.state.jobs.saturating_sub(1);
                self.input(Input::Worked(done));
            }
            Message::Lost => {
                tracing::error!("a job was lost; the node stops");
                self.state.crashed = true;
            }
            Message::Transport(conn, input) => self.transport(conn, input),
            Message::Close => self.begin_closing(),
            // What comes in later is dropped, which answers that the node is closed.
            _ if self.state.closing => {}
            Message::Connected { conn, peer, addr, link, outgoing } => {
                if link.role == Role::Dialled {
                    self.state.dials.reached(&peer);
                    if let Some(addr) = addr {
                        self.book.reached(peer, addr);
                    }
                }
                self.state.connections.insert(conn, outgoing);
                self.input(Input::Connected { conn, peer, link });
            }
            Message::Attached { port, dials } => {
                let failed = self.state.dials.attach(port, dials, &self.book);
                self.unreachable(failed);
            }
            Message::Detached { port } => {
                let failed = self.state.dials.detach(port, &self.book);
                self.unreachable(failed);
            }
            Message::DialFailed { port, peer } => {
                let failed = self.state.dials.failed(port, peer, &self.book);
                self.unreachable(failed);
            }
            Message::Request(doc, request) => {
                let now = self.clock.now();
                let requests = &mut self.state.requests;
                requests.submit(&mut self.core, now, &doc, request);
            }
            Message::List { prefix, reply } => reply.send(Ok(self.core.documents(&prefix))),
            Message::Deleted { prefix, reply } => {
                let deleted = self.core.deleted(&prefix).into_iter();
                reply.send(Ok(deleted.map(|(doc, marker)| Deleted { doc, marker }).collect()));
            }
            Message::Rules(reply) => {
                let (table, family) = (self.core.policy().clone(), self.core.family().clone());
                reply.send(Some(Rules { table, family }));
            }
            Message::SetRules(rules) => {
                let Rules { table, family } = *rules;
                self.input(Input::Policy(Box::new(table)));
                self.input(Input::Family(family));
            }
            Message::Stats(reply) => reply.send(Some(self.core.stats())),
            Message::Subscribe(feed) => self.state.feeds.push(feed),
            Message::Level { peer, reply } => self.level(peer, reply),
            Message::SyncNow { which, peer, within, answer } => {
                let request = self.state.syncs.begin(which, peer, within, answer);
                self.input(Input::SyncNow(request));
            }
            Message::Join(ticket) => {
                let (peer, invitation) = (ticket.peer, ticket.invitation);
                self.book.want(peer, &ticket.addrs, invitation);
                self.input(Input::Want { peer, invitation });
            }
            Message::Part(peer) => {
                self.book.unwant(peer);
                self.unwant(peer);
            }
            Message::Visit(ticket) => {
                let (peer, invitation) = (ticket.peer, ticket.invitation);
                self.book.located(peer, &ticket.addrs);
                *self.state.visits.entry(peer).or_default() += 1;
                self.input(Input::Want { peer, invitation });
            }
            Message::Leave(peer) => {
                if let Some(visits) = self.state.visits.get_mut(&peer) {
                    *visits -= 1;
                }
                self.state.visits.retain(|_, visits| *visits > 0);
                self.unwant(peer);
            }
            Message::Forget(peer) => {
                self.book.forget(&peer);
                self.input(Input::Unwant { peer });
                self.input(Input::Forget { peer });
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
    }

    fn stored(&mut self, answer: Stored) {
        let written = match answer {
            Stored::Durable { .. } => Some(None),
            Stored::WriteFailed { fault, .. } => Some(Some(fault)),
            Stored::Loaded { .. } | Stored::LoadFailed { .. } => None,
        };
        if let Some(fault) = written {
            self.state.writes = self.state.writes.saturating_sub(1);
            self.state.fault = fault;
        }
        self.input(Input::Stored(answer));
    }

    /// What comes from connections that the core has closed already is dropped.
    fn transport(&mut self, conn: ConnId, input: Input) {
        let known = match input {
            Input::Disconnected { .. } => self.state.connections.remove(&conn).is_some(),
            _ => self.state.connections.contains_key(&conn),
        };
        if known {
            self.input(input);
        }
    }

    fn unreachable(&mut self, failed: impl IntoIterator<Item = Unreachable>) {
        for Unreachable(peer) in failed {
            self.input(Input::DialFailed { peer });
        }
    }

    /// Takes the wish for a peer back when nobody has it any more.
    fn unwant(&mut self, peer: PeerId) {
        if !self.book.is_wanted(&peer) && !self.state.visits.contains_key(&peer) {
            self.input(Input::Unwant { peer });
        }
    }

    fn level(&mut self, peer: PeerId, reply: Reply<Result<(), LevelError>>) {
        if self.core.level(&peer) {
            reply.send(Ok(()));
            return;
        }
        let waiting = self.state.levels.entry(peer).or_default();
        waiting.retain(Reply::is_awaited);
        waiting.push(reply);
    }

    /// Carries out everything that the core wants done.
    fn drain(&mut self) {
        loop {
            let mut events = Vec::new();
            while let Some(output) = self.core.poll() {
                self.output(output, &mut events);
            }
            if events.is_empty() {
                break;
            }
            events.into_iter().for_each(|event| self.event(event));
        }
        // An import of what is just being written has no write of its own to wait for.
        if self.core.is_saved() {
            self.state.requests.all_durable();
        }
    }

    fn output(&mut self, output: Output, events: &mut Vec<Event>) {
        match output {
            Output::Disconnect { conn, code } => {
                self.outgoing(conn, Outgoing::Close { code });
                self.state.connections.remove(&conn);
            }
            Output::StopStream { conn, stream, code } => {
                self.outgoing(conn, Outgoing::Stop { stream, code });
            }
            Output::Store(command) => {
                if let StoreCommand::Write(_) = command {
                    self.state.writes += 1;
                }
                if self.store.send(command).is_err() {
                    tracing::error!("the store's thread has ended; the node stops");
                    self.state.crashed = true;
                }
            }
            Output::Work(job) => {
                self.state.jobs += 1;
                self.workers.run(job);
            }
            Output::Event(event) => events.push(event),
            Output::Dial { peer } if !self.state.closing => {
                let failed = self.state.dials.dial(peer, &self.book);
                self.unreachable(failed);
            }
            Output::Dial { .. } => {}
            Output::Consumed { conn, stream, bytes } => self.outgoing(conn, Outgoing::Credit { stream, bytes }),
            Output::Reply { conn, stream, bytes, fin } => {
                self.outgoing(conn, Outgoing::Reply { stream, bytes, fin });
            }
            Output::Send { conn, lane, frame } => {
                self.outgoing(conn, Outgoing::Frame { lane, frame });
            }
        }
    }

    fn outgoing(&self, conn: ConnId, outgoing: Outgoing) {
        if let Some(queue) = self.state.connections.get(&conn) {
            // An adapter that has dropped its end is about to drop the wire, too.
            let _ = queue.send((conn, outgoing));
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.clock.now();
        let (core, requests) = (&mut self.core, &mut self.state.requests);
        match event {
            Event::Changed { doc, origin, heads } => {
                let deleted = core.is_deleted(&doc);
                let change = Change { doc, origin, heads, deleted };
                self.state.feeds.retain(|feed| feed.push(&change));
            }
            Event::Deleted { doc, origin } => {
                let change = Change { doc, origin, heads: Heads::NONE, deleted: true };
                self.state.feeds.retain(|feed| feed.push(&change));
            }
            // Nobody brought it about; it was to be expected from the document itself.
            Event::Expired { doc } => {
                let change = Change { doc, origin: Origin::Local, heads: Heads::NONE, deleted: true };
                self.state.feeds.retain(|feed| feed.push(&change));
            }
            Event::Opened { doc } => requests.opened(core, now, &doc),
            Event::OpenFailed { doc, fault } => requests.open_failed(core, now, &doc, fault),
            Event::Imported { doc, outcome, edit } => {
                requests.imported(core, now, &doc, outcome, edit);
            }
            Event::Durable { doc, edit } => requests.durable(&doc, edit),
            Event::NotDurable { doc, edit, fault } => {
                tracing::warn!(%doc, %fault, "not durable");
                requests.not_durable(&doc, edit, fault);
            }
            Event::Level { peer } => {
                let waiting = self.state.levels.remove(&peer).unwrap_or_default();
                waiting.into_iter().for_each(|reply| reply.send(Ok(())));
            }
            Event::Synced { sync, peer, doc, outcome } => {
                self.state.syncs.outcome(sync, Synced { peer, doc, outcome });
            }
            Event::SyncEnded { sync } => self.state.syncs.ended(sync),
            Event::SyncRefused { sync } => self.state.syncs.refused(sync),
            Event::Up { conn, peer } => tracing::info!(conn = conn.0, %peer, "up"),
            Event::Down { conn, peer } => tracing::info!(conn = conn.0, %peer, "down"),
            Event::Closed { peer, code, by_peer } => {
                tracing::warn!(%peer, code, by_peer, "connection closed");
                // Dialling again will not help, unless somebody does something about it.
                if [CloseCode::NotAdmitted.code(), CloseCode::Version.code()].contains(&code) {
                    let waiting = self.state.levels.remove(&peer).unwrap_or_default();
                    waiting.into_iter().for_each(|reply| reply.send(Err(LevelError::Refused { code, by_peer })));
                }
            }
            Event::Refused { peer, doc, reason } => tracing::warn!(%peer, %doc, %reason, "refused"),
            Event::Declined { peer, doc, reason } => tracing::warn!(%peer, %doc, %reason, "not taken by the peer"),
            Event::Quarantined { doc, fault } => tracing::warn!(%doc, %fault, "left alone"),
            other => tracing::debug!(?other, "event"),
        }
    }

    /// Takes no more work and lets go of all connections; what was begun goes on.
    fn begin_closing(&mut self) {
        if self.state.closing {
            return;
        }
        self.state.closing = true;
        self.state.dials = Dials::default();
        self.state.levels.clear();
        self.state.syncs.clear();
        for (conn, outgoing) in std::mem::take(&mut self.state.connections) {
            let code = CloseCode::Normal;
            let _ = outgoing.send((conn, Outgoing::Close { code }));
            self.input(Input::Disconnected { conn, code: None });
        }
    }

    /// Whether everything that was begun has come to an end, well or not.
    fn is_finished(&self) -> bool {
        let state = &self.state;
        let saved = state.writes == 0 && (state.fault.is_some() || self.core.is_saved());
        let idle = state.requests.is_empty() && state.jobs == 0 && saved;
        state.crashed || state.closing && idle
    }

    /// Ends the threads, and marks the directory as cleanly closed when everything in it is as it should be.
    fn finish(self) {
        let outcome = match self.state.fault {
            _ if self.state.crashed => Err(StoreFault::Closed),
            Some(fault) => Err(fault),
            None => Ok(()),
        };
        drop((self.messages, self.state, self.workers, self.book));
        let outcome = outcome.and(self.store.close());
        if let (Ok(()), Some(dir)) = (outcome, self.dir)
            && let Err(error) = dir.close()
        {
            tracing::warn!(%error, "not marked as cleanly closed");
        }
        self.closing.finish(outcome);
    }
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let micros = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = unix.map_or(0, |span| span.as_millis());
        Now { mono: Time::from_micros(micros), unix_ms: u64::try_from(millis).unwrap_or(u64::MAX) }
    }

    /// A day from now for what lies further ahead: waking too early does no harm.
    fn instant(self, time: Time) -> Instant {
        let ahead = time.since(self.now().mono);
        Instant::now() + ahead.min(Duration::from_secs(86_400))
    }
}

/// Answers those who wait for the end when the loop ends by a panic, which is a fault of ours.
struct Unwinding(Closing);

impl Drop for Unwinding {
    fn drop(&mut self) {
        self.0.finish(Err(StoreFault::Closed));
    }
}

impl Closing {
    /// Answers when the node has closed.
    pub(crate) fn wait(&self, reply: Reply<Result<(), StoreFault>>) {
        match &mut *self.lock() {
            Closed::NotYet(waiting) => waiting.push(reply),
            Closed::With(outcome) => reply.send(*outcome),
        }
    }

    /// The node has closed. Only the first word counts.
    pub(crate) fn finish(&self, outcome: Result<(), StoreFault>) {
        let mut closed = self.lock();
        if let Closed::NotYet(waiting) = &mut *closed {
            let waiting = std::mem::take(waiting);
            *closed = Closed::With(outcome);
            waiting.into_iter().for_each(|reply| reply.send(outcome));
        }
    }

    /// The lock guards a value that no panic leaves half-changed.
    fn lock(&self) -> MutexGuard<'_, Closed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Closed {
    fn default() -> Self {
        Self::NotYet(Vec::new())
    }
}
