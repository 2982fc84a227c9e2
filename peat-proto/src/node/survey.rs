//! Comparing the sets of both sides, and turning what differs into exchanges.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Node;
use crate::doc::document::Document;
use crate::doc::scopes::ScopeMask;
use crate::id::{ConnId, DocId};
use crate::io::{CloseCode, Event};
use crate::peer::bits::Bits;
use crate::peer::connection::{Conn, Phase};
use crate::reconcile::{Frozen, SymbolSet};
use crate::sync::compare::{Asking, Heard};
use crate::sync::exchange::Exchange;
use crate::sync::survey::{Found, Listing, Ours, Start, Survey};
use crate::time::Time;
use crate::wire::v1::{Ask, Cells, Pull, Shares, Subject, Summary, Want};

/// How often a question is asked in vain before the next summary begins anew.
const MAX_TRIES: u32 = 8;

/// Symbols that wait to be exchanged while ranges go on being compared: as many as one range makes at most, and more.
const BACKLOG: usize = 1024;

/// Elements that are left out of a sketch one by one; with more of them excluded, ranges are compared.
const MAX_LEFT_OUT: usize = 64;

impl Node {
    /// The other side said what it has in all.
    pub(super) fn summarised(&mut self, id: ConnId, summary: Summary) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (ours, role, busy) = (self.ours(conn), conn.link.role, conn.is_busy());
        let slots = self.docs.slots();
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.survey.is_current(&summary) {
            // About terms that were lost or overtaken.
            if !conn.link.reliable {
                self.repeat_terms(id);
            }
            return;
        }
        // On a datagram link it may be an old one that was overtaken.
        conn.rested = None;
        let start = conn.survey.heard(summary, &ours, role, now, busy);
        if conn.survey.is_level(&ours) {
            conn.equal.fill(slots);
            for slot in
                conn.survey.excluded.documents().filter_map(|doc| self.docs.get(doc)).map(|document| document.slot)
            {
                conn.equal.remove(slot);
            }
            conn.survey.answering.thaw();
            let docs: Vec<DocId> = conn.exchanges.keys().cloned().collect();
            for doc in docs {
                conn.end_exchange(self.docs.class(&doc), &doc);
            }
        }
        self.begin(id, &start);
        self.note_level(id, &ours);
    }

    /// Begins what a summary called for.
    fn begin(&mut self, id: ConnId, start: &Start) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (now, longest) = (self.now.mono, self.config.retry_max);
        if !start.push.is_empty()
            && start.again
            && conn.window.in_flight() == 0
            && conn.survey.may_push_anew(now, longest)
        {
            // It has nothing still, so nothing is equal: what was, it has given up for a marker that does not come here.
            conn.equal = Bits::default();
        }
        if !start.push.is_empty() || !start.names.is_empty() {
            conn.survey.listing = Some(Listing::new(start));
        }
        let Some(subject) = start.ask.filter(|_| self.docs.scopes.is_complete()) else { return };
        let (epoch, sketch) = conn.survey.next_epoch();
        let mask = asked_mask(conn, subject);
        let left_out = conn.survey.excluded.symbols(mask, MAX_LEFT_OUT).filter(|_| sketch);
        let theirs = conn.survey.their_count(subject);
        let asking = if let Some(left_out) = left_out {
            let cells = Frozen::cells_for(self.docs.scopes.sum(mask).count.saturating_add(theirs));
            let frozen = self.docs.scopes.freeze(mask, cells).without(&left_out);
            Asking::new(subject, epoch, frozen, theirs)
        } else {
            Asking::by_ranges(subject, epoch)
        };
        conn.survey.ask(asking);
    }

    /// Cells are asked for.
    pub(super) fn heard_pull(&mut self, id: ConnId, pull: &Pull) {
        let frozen = self.conns.values().filter(|conn| conn.id != id && conn.survey.answering.is_frozen()).count();
        let room = frozen < self.config.max_sketches && self.docs.scopes.is_complete();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let plan = conn.survey.plan();
        let mask = |subject| if subject == Subject::Shared { plan.shared } else { plan.outward };
        let Survey { answering, excluded, .. } = &mut conn.survey;
        let scopes = &mut self.docs.scopes;
        answering.heard_pull(pull, self.now.mono, |subject, cells| {
            let left_out = excluded.symbols(mask(subject), MAX_LEFT_OUT).filter(|_| room)?;
            Some(scopes.freeze(mask(subject), cells).without(&left_out))
        });
    }

    /// Cells arrived.
    pub(super) fn heard_cells(&mut self, id: ConnId, cells: &Cells) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(asking) = &mut conn.survey.asking else { return };
        let subject = asking.subject();
        match asking.heard_cells(cells) {
            Heard::Nothing => self.rearm(id),
            Heard::Found(difference) => {
                conn.survey.compares(subject, cells.symbols);
                if difference.is_empty() {
                    // The summaries differ all the same.
                    conn.survey.failed();
                }
                conn.survey.asking = None;
                conn.survey.found(subject, difference);
            }
            Heard::Failed | Heard::Invalid => {
                conn.survey.failed();
                let (epoch, _) = conn.survey.next_epoch();
                conn.survey.ask(Asking::by_ranges(subject, epoch));
            }
        }
    }

    /// Ranges are asked for.
    pub(super) fn heard_ask(&mut self, id: ConnId, ask: Ask) {
        if let Some(conn) = self.conns.get_mut(&id)
            && self.docs.scopes.is_complete()
        {
            conn.survey.answering.heard_ask(ask);
        }
    }

    /// What they have in ranges arrived.
    pub(super) fn heard_shares(&mut self, id: ConnId, shares: Shares) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(asking) = &conn.survey.asking else { return };
        let sets = self.docs.scopes.sets(asked_mask(conn, asking.subject()));
        let Some(asking) = &mut conn.survey.asking else { return };
        match asking.heard_shares(&sets, shares) {
            Heard::Invalid => self.fault(id, CloseCode::BadFrame),
            Heard::Nothing | Heard::Found(_) | Heard::Failed => self.rearm(id),
        }
    }

    /// Documents are asked for.
    pub(super) fn heard_want(&mut self, id: ConnId, want: Want) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.survey.wanted(want.symbols);
        }
    }

    /// Goes on waiting for the rest of an answer, or stops.
    fn rearm(&mut self, id: ConnId) {
        let later = self.conns.get(&id).map(|conn| self.now.mono + self.patience(conn, 0));
        if let Some(asking) = self.conns.get_mut(&id).and_then(|conn| conn.survey.asking.as_mut()) {
            asking.deadline = later.filter(|_| asking.is_waiting());
        }
    }

    /// Compares ranges that are known, and begins exchanges of what was found, as far as there is room.
    pub(super) fn pursue(&mut self, id: ConnId) {
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            let Some(asking) = conn.survey.asking.as_ref().filter(|_| conn.survey.backlog() < BACKLOG) else { break };
            let subject = asking.subject();
            let sets = self.docs.scopes.sets(asked_mask(conn, subject));
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Some(asking) = &mut conn.survey.asking else { break };
            match asking.work(&sets) {
                Some(mut difference) => {
                    // Ranges are of everything; sums and sketches leave out what was refused.
                    let names = conn.survey.excluded.documents().map(|doc| self.docs.scopes.name(doc));
                    let names: BTreeSet<u64> = names.collect();
                    difference.retain(|symbol| !names.contains(&symbol.name()));
                    conn.survey.found(subject, difference);
                }
                None => {
                    if asking.is_done() {
                        conn.survey.asking = None;
                    }
                    break;
                }
            }
        }
        while let Some(next) = self.conns.get(&id).and_then(|conn| conn.survey.first_found())
            && self.may_begin(id, next)
            && let Some(found) = self.conns.get_mut(&id).and_then(|conn| conn.survey.next_found())
        {
            self.exchange_found(id, found);
        }
    }

    /// Whether what was found may be exchanged now. Each document that changed takes a round trip or two, and all of them
    /// together should; but they come into memory when the other side asks for them. What is only pushed waits for nothing.
    fn may_begin(&self, id: ConnId, found: Found) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        if conn.exchanges.len() < self.push_ahead() {
            return true;
        }
        let Found::Changed(symbol) = found else { return false };
        let document = self.docs.scopes.find(ScopeMask::ALL, &symbol).and_then(|doc| self.docs.get(doc));
        let memory = document.map_or(0, expected_memory);
        // Half of the cache, so that what is asked for is still there when it can be sent.
        let most = self.config.cache_bytes as u64 / 2;
        conn.exchanges.len() < self.config.max_exchanges && conn.expected.saturating_add(memory) <= most
    }

    fn exchange_found(&mut self, id: ConnId, found: Found) {
        let (Found::Changed(symbol) | Found::Missing(symbol)) = found;
        let changed = matches!(found, Found::Changed(_));
        let Some(doc) = self.docs.scopes.find(ScopeMask::ALL, &symbol).cloned() else {
            // Ours moved on since: that theirs is other than it was is for the next comparison to find.
            if let Some(conn) = self.conns.get_mut(&id).filter(|_| changed) {
                conn.survey.spoil();
            }
            return;
        };
        let class = self.docs.class(&doc);
        let (slot, memory) = self.docs.get(&doc).map(|it| (it.slot, expected_memory(it))).unzip();
        let most = self.config.max_exchanges;
        let goes = self.conns.get(&id).is_some_and(|conn| self.goes_to(conn, &doc));
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let begin = match found {
            Found::Changed(_) => Exchange::changed(memory.unwrap_or_default()),
            Found::Missing(_) if !goes => return,
            Found::Missing(_) if self.interrupted.take(conn.peer, &doc) => Exchange::unknown(),
            Found::Missing(_) => Exchange::push(conn.link.reliable),
        };
        if conn.survey.excluded.contains(&doc) {
            if changed {
                // The other side does not leave it out yet.
                conn.survey.spoil();
            }
            return;
        }
        if conn.exchanges.contains_key(&doc) {
            return;
        }
        if let Some(slot) = slot {
            conn.equal.remove(slot);
        }
        if conn.exchange(&doc, most, || begin).is_some() {
            conn.enqueue(class, &doc);
        }
    }

    /// The next control frame that a comparison has to send, if any.
    pub(super) fn compare_frame(&mut self, id: ConnId) -> Option<Bytes> {
        let conn = self.conns.get_mut(&id)?;
        let plan = conn.survey.plan();
        if conn.survey.answering.is_due() && self.docs.scopes.is_complete() {
            let scopes = &self.docs.scopes;
            let sets = |subject| -> Vec<&SymbolSet<DocId>> {
                scopes.sets(if subject == Subject::Shared { plan.shared } else { plan.outward })
            };
            return conn.survey.answering.say(sets);
        }
        if conn.survey.has_wants() {
            return Some(Want { symbols: conn.survey.next_wants(Want::PER_FRAME) }.frame());
        }
        let backlog = conn.survey.backlog();
        let asking = conn.survey.asking.as_mut().filter(|_| backlog < BACKLOG)?;
        let question = asking.say()?;
        let tries = asking.tries;
        let deadline = self.now.mono + self.patience(self.conns.get(&id)?, tries);
        if let Some(asking) = &mut self.conns.get_mut(&id)?.survey.asking {
            asking.deadline = Some(deadline);
        }
        Some(question)
    }

    /// A question went unanswered.
    pub(super) fn tick_asking(&mut self, id: ConnId, now: Time) {
        let Some(conn) = self.conns.get(&id) else { return };
        let deadline = conn.survey.asking.as_ref().and_then(|asking| asking.deadline);
        if deadline.is_none_or(|due| due > now) {
            return;
        }
        let busy = conn.link.reliable && conn.window.in_flight() > 0;
        let later = now + self.patience(conn, 0);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(asking) = &mut conn.survey.asking else { return };
        if busy {
            asking.deadline = Some(later);
        } else if asking.tries >= MAX_TRIES {
            conn.survey.asking = None;
            conn.survey.spoil();
        } else {
            asking.repeat();
            asking.deadline = None;
            self.stats.retries += 1;
        }
    }

    /// Nobody has told us terms yet.
    pub(super) fn tick_terms(&mut self, id: ConnId, now: Time) {
        if self
            .conns
            .get(&id)
            .is_some_and(|conn| !conn.survey.is_open() && conn.survey.due.is_some_and(|due| due <= now))
        {
            self.repeat_terms(id);
        }
    }

    /// Connections with nothing left to say compare summaries. True if one of them has something to say at once.
    pub(super) fn rest(&mut self) -> bool {
        self.legacy_rest();
        let (now, settle, longest) = (self.now.mono, self.config.settle, self.config.retry_max);
        let version = self.docs.scopes.version();
        let idle = |conn: &&Conn| {
            conn.is_serving() && conn.survey.is_open() && !conn.is_busy() && conn.rested != Some(version)
        };
        let idle: Vec<ConnId> = self.conns.values().filter(idle).map(|conn| conn.id).collect();
        let mut due = false;
        for id in idle {
            let Some(conn) = self.conns.get(&id) else { continue };
            let ours = self.ours(conn);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.survey.rest(&ours, now, settle, longest);
                // While scopes are made anew there is nothing to say.
                due |= conn.says_summary(now) && self.docs.scopes.is_complete();
                conn.rested = conn.survey.due.is_none().then_some(version);
            }
            self.note_level(id, &ours);
        }
        due || !self.out.is_empty()
    }

    /// Reports the passage from different to equal.
    fn note_level(&mut self, id: ConnId, ours: &Ours) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let level = conn.phase == Phase::Serving && conn.survey.is_level(ours);
        if level != std::mem::replace(&mut conn.survey.level, level) && level {
            let peer = conn.peer;
            self.event(Event::Level { peer });
        }
    }
}

/// What a document will take in memory, roughly, in bytes: 12 kB, and eight times its saved form (lessons, sizes).
fn expected_memory(document: &Document) -> u64 {
    document.bytes.saturating_mul(8).saturating_add(12_000)
}

/// The scopes that we ask about, as we have them.
fn asked_mask(conn: &Conn, subject: Subject) -> ScopeMask {
    let plan = conn.survey.plan();
    if subject == Subject::Shared { plan.shared } else { plan.inward }
}
