//! Exchange of documents, one by one (wire.md 5.1, 5.2, 10, 11).

use std::time::Duration;

use peat_proto::{ConnId, PeerId};

use super::config::Family;
use super::flow::Flow;
use super::frame::{Bad, Frame, kind};
use super::library::Library;
use super::peer::{LegacyPeer, Task};
use super::policy::{self, Mode};
use super::streams::Failure;

/// What a write on a stream takes at most; the specification has no number. Within it a sync state may grow stale.
pub(super) const WRITE: Duration = Duration::from_millis(1);

/// Between two pushes of one document by task A (9).
const TASK_A: Duration = Duration::from_secs(2);

/// A sync state whose message is being written.
#[derive(Debug)]
pub(super) struct Unsaved<L: Library> {
    pub(super) conn: ConnId,
    of: (String, PeerId),
    state: L::State,
}

impl<L: Library> LegacyPeer<L> {
    /// A delta has arrived (5.1).
    pub(super) fn delta(&mut self, from: PeerId, key: &str, message: &[u8], size: u64) -> Result<(), Bad> {
        if self.is_guarded(key) {
            return Ok(());
        }
        if !L::is_message(message) {
            return Err(Bad::Automerge);
        }
        self.stats.bytes_received += size;
        let of = (key.to_owned(), from);
        let mut doc = self.store.doc(key).cloned().unwrap_or_else(L::empty);
        let mut state = self.states.get(&of).cloned().unwrap_or_default();
        let before = self.heads(key);
        L::receive(&mut doc, &mut state, message)?;
        let reply = L::generate(&doc, &mut state);
        let moved = L::heads(&doc) != before;
        if moved || self.config.warts.empty_documents || self.store.doc(key).is_some() {
            self.store.put(key, doc);
        }
        // Step 4, before the reply is sent: should that fail, the state says that it was.
        self.states.insert(of, if reply.is_some() { state } else { L::shared(&state) });
        if let Some(reply) = reply {
            let sent = self.send(from, &Frame::new(kind::DELTA, key, reply));
            self.report(from, sent.is_ok());
        }
        self.received_change(key, from, moved);
        Ok(())
    }

    /// A snapshot has arrived (5.2). It is never answered.
    pub(super) fn snapshot(&mut self, from: PeerId, key: &str, saved: &[u8], size: u64) -> Result<(), Bad> {
        if self.is_guarded(key) {
            return Ok(());
        }
        self.stats.bytes_received += size;
        let received = L::load(saved)?;
        let before = self.heads(key);
        let doc = match self.store.doc(key).cloned() {
            Some(mut doc) => {
                L::merge(&mut doc, &received)?;
                doc
            }
            None => received,
        };
        let moved = L::heads(&doc) != before;
        self.store.put(key, doc);
        self.received_change(key, from, moved);
        Ok(())
    }

    /// Pushes all documents and the markers to a peer (9).
    pub(super) fn push_all(&mut self, peer: PeerId) {
        self.push_documents(peer);
        self.push_markers(peer);
    }

    /// Pushes all documents to a peer: by class, then those that travel as snapshots, then by key (10.3).
    pub(super) fn push_documents(&mut self, peer: PeerId) {
        let rank = |key: &String| (self.config.names.class(key), self.config.mode(key) == Mode::FullHistory);
        let mut keys: Vec<String> = self.store.keys().cloned().collect();
        keys.sort_by_key(rank);
        for key in keys {
            drop(self.initiate(peer, &key));
        }
    }

    /// Sends a document to a peer of its own accord. A failure is counted and forgotten (11).
    pub(super) fn initiate(&mut self, peer: PeerId, key: &str) -> Result<(), Failure> {
        let outcome = self.try_initiate(peer, key);
        let warts = self.config.warts;
        match outcome {
            Ok(()) => {
                let now = self.now.mono;
                self.flow(peer).cooldown.start(now, key);
                self.report(peer, true);
            }
            Err(Failure::Silent) if warts.silence_fails => self.report(peer, false),
            Err(Failure::Missing) if warts.deletes_fail => self.report(peer, false),
            Err(Failure::Offline | Failure::Oversized) => self.report(peer, false),
            // Refused before anything was tried.
            Err(_) => {}
        }
        outcome
    }

    fn try_initiate(&mut self, peer: PeerId, key: &str) -> Result<(), Failure> {
        let now = self.now.mono;
        let warts = self.config.warts;
        let flow = self.flow(peer);
        if flow.breaker.is_open(now, !warts.breaker_stays_open) {
            self.stats.cut_off += 1;
            return Err(Failure::CutOff);
        }
        // The token is taken before the cooldown is looked at.
        if !flow.bucket.take(now) {
            self.stats.limited += 1;
            return Err(Failure::Limited);
        }
        if let Some(until) = flow.cooldown.until(now, key) {
            self.stats.cooled += 1;
            if !warts.drops_in_cooldown {
                self.flow(peer).bucket.give_back();
                self.after(until.since(now), Task::Deferred(peer, key.to_owned()));
            }
            return Err(Failure::Cooling);
        }
        if !warts.pushes_zombies && self.store.marker(key).is_some() {
            return Err(Failure::Cooling);
        }
        let Some(doc) = self.store.doc(key).cloned() else { return Err(Failure::Missing) };
        self.fits(key, &doc)?;
        if self.config.mode(key) != Mode::FullHistory {
            return self.send(peer, &Frame::new(kind::SNAPSHOT, key, L::save(&doc)));
        }
        let of = (key.to_owned(), peer);
        let mut state = self.states.get(&of).cloned().unwrap_or_default();
        let Some(message) = L::generate(&doc, &mut state) else {
            self.stats.silent += 1;
            return Err(Failure::Silent);
        };
        self.send(peer, &Frame::new(kind::DELTA, key, message))?;
        match self.peers.get(&peer).copied() {
            Some(conn) if warts.stores_stale_state => {
                let ticket = self.unsaved.last_key_value().map_or(0, |(ticket, _)| ticket + 1);
                self.unsaved.insert(ticket, Unsaved { conn, of, state });
                let wait = self.moment(WRITE);
                self.after(wait, Task::Keep(ticket));
            }
            _ => drop(self.states.insert(of, state)),
        }
        Ok(())
    }

    /// The message has left: its state replaces whatever has come in between.
    pub(super) fn keep(&mut self, ticket: u64) {
        if let Some(Unsaved { of, state, .. }) = self.unsaved.remove(&ticket) {
            self.states.insert(of, state);
        }
    }

    /// The whole document is weighed against the burst of its class, whatever the message weighs (10.4).
    fn fits(&mut self, key: &str, doc: &L::Doc) -> Result<(), Failure> {
        let Some(rate) = self.config.bandwidth else { return Ok(()) };
        let burst = rate / 8 * policy::burst_percent(self.config.names.class(key)) / 100;
        if L::save(doc).len() as u64 <= burst {
            return Ok(());
        }
        self.stats.oversized += 1;
        Err(Failure::Oversized)
    }

    /// The application has changed a document.
    pub(super) fn edited(&mut self, key: &str) {
        if self.config.warts.forgets {
            self.forget_states(key);
        }
        self.after(Duration::ZERO, Task::Changed(key.to_owned(), None));
    }

    /// What all peers have of a document is forgotten.
    pub(super) fn forget_states(&mut self, key: &str) {
        self.states.retain(|(of, _), _| of != key);
    }

    /// A received document has been stored.
    fn received_change(&mut self, key: &str, from: PeerId, moved: bool) {
        if moved || self.config.warts.announces_nothing {
            self.after(Duration::ZERO, Task::Changed(key.to_owned(), Some(from)));
        }
        let ttl = self.config.names.document_ttl(key).filter(|_| self.config.expires);
        // DEL-10: earlier timers of the same document go on.
        if let Some(ttl) = ttl {
            self.after(ttl, Task::Expire(key.to_owned()));
        }
    }

    /// The two tasks of the host runtime that each change wakes up (9). The node binary waits for its poll.
    pub(super) fn changed(&mut self, key: &str, origin: Option<PeerId>) {
        if self.config.family == Family::HostRuntime {
            let origin = origin.filter(|_| !self.config.warts.echoes);
            self.push_change(key, origin);
            self.collect_change(key, origin);
        }
    }

    /// Task A: at most once per 2 s and document, at the leading edge.
    pub(super) fn push_change(&mut self, key: &str, but: Option<PeerId>) {
        let now = self.now.mono;
        let again = self.pushed.get(key).map(|pushed| *pushed + TASK_A).filter(|again| *again > now);
        if let Some(again) = again {
            self.stats.skipped += 1;
            if !self.config.warts.leading_edge {
                self.after(again.since(now), Task::Trailing(key.to_owned()));
            }
            return;
        }
        self.pushed.insert(key.to_owned(), now);
        for peer in self.peers.keys().copied().filter(|peer| Some(*peer) != but).collect::<Vec<_>>() {
            drop(self.initiate(peer, key));
        }
    }

    /// Whether a document is deleted: what comes for it is dropped in silence. A key without a colon has no marker.
    fn is_guarded(&mut self, key: &str) -> bool {
        let guarded = policy::split(key).is_some() && self.store.marker(key).is_some();
        self.stats.guarded += u64::from(guarded);
        guarded
    }

    /// Tells the breaker of a peer how something went.
    pub(super) fn report(&mut self, peer: PeerId, success: bool) {
        let now = self.now.mono;
        let breaker = &mut self.flow(peer).breaker;
        if success { breaker.success() } else { breaker.failure(now) }
    }

    fn flow(&mut self, peer: PeerId) -> &mut Flow {
        let now = self.now.mono;
        self.flows.entry(peer).or_insert_with(|| Flow::new(now))
    }
}
