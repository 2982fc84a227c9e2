//! Synchronisation at the application's request: a cursor over the documents for each peer, and the exchanges that it
//! has begun.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::Node;
use crate::check::Violation;
use crate::doc::document::Offer;
use crate::id::{ConnId, DocId, PeerId};
use crate::io::Event;
use crate::policy::Class;
use crate::request::{SyncId, SyncOutcome, SyncRequest, Which};
use crate::time::Time;

/// Documents that are begun or decided between two inputs, over all requests: about 1 ms of work.
const STEP: usize = 256;

/// Exchanges that one request keeps under way with one peer.
const AHEAD: usize = 256;

/// When a request goes on that had to stop for other work.
const PAUSE: Duration = Duration::from_millis(1);

/// All requests that have not ended.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<SyncId, Request>,
    /// What may still be done before the next input.
    budget: usize,
}

#[derive(Debug)]
struct Request {
    which: Which,
    deadline: Time,
    peers: BTreeMap<PeerId, Progress>,
}

/// How far a request has come with one peer.
#[derive(Debug, Default)]
struct Progress {
    /// On which connection; `None` before the first and after its loss.
    conn: Option<ConnId>,
    cursor: Cursor,
    /// Documents that were begun and have no outcome.
    pending: BTreeSet<DocId>,
}

/// A place among the documents of a request.
#[derive(Debug)]
enum Cursor {
    /// Behind so many of the named documents.
    Named(usize),
    /// Behind a name in a class.
    Behind(Class, Option<DocId>),
    End,
}

/// What comes of looking at one document.
enum Begun {
    Now(SyncOutcome),
    Exchange,
}

impl Default for Cursor {
    fn default() -> Self {
        Self::Behind(Class::Critical, None)
    }
}

impl Requests {
    /// An input came: there is time again.
    pub(super) fn refresh(&mut self) {
        self.budget = STEP;
    }

    /// When the next request ends, or goes on after a pause.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        if self.budget == 0 && !self.open.is_empty() {
            return Some(now + PAUSE);
        }
        self.open.values().map(|request| request.deadline).min()
    }
}

impl Node {
    pub(super) fn sync_now(&mut self, request: SyncRequest) {
        let SyncRequest { id, which, peer, within } = request;
        if self.requests.open.len() >= self.config.max_syncs || self.requests.open.contains_key(&id) {
            self.stats.syncs_refused += 1;
            return self.event(Event::SyncRefused { sync: id });
        }
        self.stats.syncs += 1;
        let peers = match peer {
            Some(peer) => BTreeSet::from([peer]),
            None => {
                let own = self.conns.values().filter(|conn| conn.is_serving()).map(|conn| conn.peer);
                let legacy = self.legacy.conns.values().filter(|conn| conn.is_serving()).map(|conn| conn.peer);
                own.chain(legacy).chain(self.wanted.peers()).collect()
            }
        };
        let start = |_: &PeerId| match which {
            Which::Documents(_) => Progress { cursor: Cursor::Named(0), ..Progress::default() },
            Which::Prefix(_) => Progress::default(),
        };
        let peers = peers.into_iter().map(|peer| (peer, start(&peer))).collect();
        self.requests.open.insert(id, Request { which, deadline: self.now.mono + within, peers });
    }

    /// Goes on with all requests as far as there is room and time. True if that may have led to something.
    pub(super) fn pursue_requests(&mut self) -> bool {
        if self.requests.open.is_empty() {
            return false;
        }
        self.collect_outcomes();
        let mut went_on = false;
        let ids: Vec<SyncId> = self.requests.open.keys().copied().collect();
        for id in ids {
            // It is put back unless it has ended.
            let Some(mut request) = self.requests.open.remove(&id) else { continue };
            let late = request.deadline <= self.now.mono;
            for (peer, progress) in &mut request.peers {
                went_on |= self.pursue_request(id, *peer, &request.which, progress, late);
            }
            request.peers.retain(|_, progress| !progress.is_done());
            if request.peers.is_empty() {
                self.event(Event::SyncEnded { sync: id });
                went_on = true;
            } else {
                self.requests.open.insert(id, request);
            }
        }
        went_on
    }

    /// Hands out what came of exchanges that have ended.
    fn collect_outcomes(&mut self) {
        let own = self.conns.iter_mut().map(|(id, conn)| (*id, conn.peer, &mut conn.watch));
        let legacy = self.legacy.conns.iter_mut().map(|(id, conn)| (*id, conn.peer, &mut conn.watch));
        let mut ended = Vec::new();
        for (id, peer, watch) in own.chain(legacy).filter(|(.., watch)| watch.has_ended()) {
            ended.extend(watch.take_ended().into_iter().map(|(doc, noted)| (id, peer, doc, noted)));
        }
        for (id, peer, doc, noted) in ended {
            let outcome = noted.unwrap_or_else(|| self.outcome_of(id, &doc));
            let waiting = self.requests.open.iter_mut().filter_map(|(sync, request)| {
                let progress = request.peers.get_mut(&peer).filter(|progress| progress.conn == Some(id))?;
                progress.pending.remove(&doc).then_some(*sync)
            });
            let waiting: Vec<SyncId> = waiting.collect();
            for sync in waiting {
                self.event(Event::Synced { sync, peer, doc: doc.clone(), outcome });
            }
        }
    }

    /// What the end of an exchange means of which nothing was noted.
    fn outcome_of(&self, id: ConnId, doc: &DocId) -> SyncOutcome {
        let slot = self.docs.get(doc).map(|document| document.slot);
        let own = self.conns.get(&id).map(|conn| &conn.equal);
        let equal = own.or_else(|| self.legacy.conns.get(&id).map(|conn| &conn.equal));
        match (slot, equal) {
            (Some(slot), Some(equal)) if equal.contains(slot) => SyncOutcome::Equal,
            _ => SyncOutcome::Unfinished,
        }
    }

    fn pursue_request(
        &mut self,
        sync: SyncId,
        peer: PeerId,
        which: &Which,
        progress: &mut Progress,
        late: bool,
    ) -> bool {
        let mut went_on = false;
        let conn = if late { None } else { self.serving_conn(&peer) };
        if conn != progress.conn || late {
            // Begun anew on another connection, or without an end.
            let begun = std::mem::take(&mut progress.pending);
            progress.conn = conn;
            for doc in begun {
                went_on = true;
                self.decide(sync, peer, doc, progress, late);
            }
        }
        while self.requests.budget > 0 && self.has_room(progress) {
            let Some(doc) = self.next_of(which, &mut progress.cursor) else { break };
            self.requests.budget -= 1;
            // Of all that there is, what may not leave is none of it.
            if matches!(which, Which::Documents(_)) || self.offered_slot(&doc).is_some() {
                went_on = true;
                self.decide(sync, peer, doc, progress, late);
            }
        }
        went_on
    }

    /// Begins an exchange about a document, or says at once what comes of it.
    fn decide(&mut self, sync: SyncId, peer: PeerId, doc: DocId, progress: &mut Progress, late: bool) {
        let begun = match progress.conn {
            _ if late => Begun::Now(SyncOutcome::Unfinished),
            None => Begun::Now(SyncOutcome::Unreachable),
            Some(id) if self.legacy.contains(id) => self.legacy_begin_again(id, &doc),
            Some(id) => self.begin_again(id, &doc),
        };
        match begun {
            Begun::Now(outcome) => self.event(Event::Synced { sync, peer, doc, outcome }),
            Begun::Exchange => drop(progress.pending.insert(doc)),
        }
    }

    fn begin_again(&mut self, id: ConnId, doc: &DocId) -> Begun {
        use crate::sync::exchange::Exchange;
        let Some(slot) = self.offered_slot(doc) else { return Begun::Now(SyncOutcome::Unknown) };
        let policy = self.docs.policy().of(doc);
        let sends = self.conns.get(&id).is_some_and(|conn| self.goes_to(conn, doc));
        if !sends && self.may_take(id, &policy).is_err() {
            return Begun::Now(SyncOutcome::NotRouted);
        }
        let most = self.config.max_exchanges;
        let Some(conn) = self.conns.get_mut(&id) else { return Begun::Now(SyncOutcome::Unreachable) };
        conn.equal.remove(slot);
        conn.survey.excluded.include(doc);
        conn.watch.forget(doc);
        conn.end_exchange(policy.class, doc);
        if conn.exchange(doc, most, Exchange::unknown).is_none() {
            return Begun::Now(SyncOutcome::Unfinished);
        }
        conn.watch.begin(doc);
        conn.enqueue(policy.class, doc);
        Begun::Exchange
    }

    fn legacy_begin_again(&mut self, id: ConnId, doc: &DocId) -> Begun {
        use crate::sync::legacy::Exchange;
        let Some(slot) = self.offered_slot(doc) else { return Begun::Now(SyncOutcome::Unknown) };
        let class = self.docs.class(doc);
        let terms = self.legacy_terms(id, doc);
        if !terms.sends && !terms.takes {
            return Begun::Now(SyncOutcome::NotRouted);
        }
        let (most, docs) = (self.config.max_exchanges, &self.docs);
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return Begun::Now(SyncOutcome::Unreachable) };
        conn.equal.remove(slot);
        conn.cooldown.lift(slot);
        conn.watch.forget(doc);
        conn.end_exchange(class, doc);
        let Some(exchange) = conn.exchange(doc, |doc| docs.class(doc), most, Exchange::unknown) else {
            return Begun::Now(SyncOutcome::Unfinished);
        };
        exchange.initiates = true;
        conn.watch.begin(doc);
        conn.enqueue(class, doc);
        Begun::Exchange
    }

    /// The slot of a document of which something may leave.
    fn offered_slot(&self, doc: &DocId) -> Option<u32> {
        self.docs.get(doc).filter(|document| document.offer() != Offer::Nothing).map(|document| document.slot)
    }

    /// The connection over which documents flow with a peer.
    fn serving_conn(&self, peer: &PeerId) -> Option<ConnId> {
        let own = self.conns.values().find(|conn| conn.peer == *peer && conn.is_serving()).map(|conn| conn.id);
        let legacy = || self.legacy.conns.values().find(|conn| conn.peer == *peer && conn.is_serving());
        own.or_else(|| legacy().map(|conn| conn.id))
    }

    /// Whether one more exchange may be begun for a request.
    fn has_room(&self, progress: &Progress) -> bool {
        let Some(id) = progress.conn else { return true };
        let own = self.conns.get(&id).map(|conn| conn.exchanges.len());
        let exchanges = own.or_else(|| self.legacy.conns.get(&id).map(|conn| conn.exchanges.len()));
        progress.pending.len() < AHEAD && exchanges.unwrap_or_default() < self.config.max_exchanges
    }

    /// The next document of a request; moves the cursor behind it.
    fn next_of(&self, which: &Which, cursor: &mut Cursor) -> Option<DocId> {
        match (which, &mut *cursor) {
            (Which::Documents(docs), Cursor::Named(at)) => {
                let doc = docs.get(*at).cloned();
                *at += 1;
                if doc.is_none() {
                    *cursor = Cursor::End;
                }
                doc
            }
            (Which::Prefix(prefix), Cursor::Behind(class, behind)) => {
                let (mut class, mut behind) = (*class, behind.take());
                loop {
                    let from = match &behind {
                        Some(doc) => Bound::Excluded(doc.as_str()),
                        None => Bound::Included(prefix.as_str()),
                    };
                    let found = self.docs.range(class, from).next();
                    if let Some((doc, _)) = found.filter(|(doc, _)| doc.as_str().starts_with(prefix.as_str())) {
                        *cursor = Cursor::Behind(class, Some(doc.clone()));
                        return Some(doc.clone());
                    }
                    let next = Class::ALL.into_iter().find(|next| next.index() == class.index() + 1);
                    let Some(next) = next else {
                        *cursor = Cursor::End;
                        return None;
                    };
                    (class, behind) = (next, None);
                }
            }
            _ => {
                *cursor = Cursor::End;
                None
            }
        }
    }

    pub(super) fn check_requests(&self) -> Result<(), Violation> {
        let rule = Violation::of_node;
        rule(self.requests.open.len() <= self.config.max_syncs, "requests stay within their number")?;
        for progress in self.requests.open.values().flat_map(|request| request.peers.values()) {
            rule(progress.pending.len() <= AHEAD, "what a request has begun stays within its number")?;
            let own = progress.conn.and_then(|id| self.conns.get(&id)).map(|conn| &conn.watch);
            let legacy = progress.conn.and_then(|id| self.legacy.conns.get(&id)).map(|conn| &conn.watch);
            let Some(watch) = own.or(legacy) else { continue };
            let watched = progress.pending.iter().all(|doc| watch.contains(doc));
            rule(watched, "what a request waits for is watched")?;
        }
        Ok(())
    }
}

impl Progress {
    fn is_done(&self) -> bool {
        matches!(self.cursor, Cursor::End) && self.pending.is_empty()
    }
}
