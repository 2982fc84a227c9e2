//! Deadlines.

use std::time::Duration;

use super::{Node, earlier};
use crate::id::{ConnId, DocId};
use crate::io::{CloseCode, Output};
use crate::peer::connection::{CONTROL_BYTES, Conn, Phase};
use crate::sync::exchange::Exchange;
use crate::time::Time;

/// Time for others between two steps of making sets anew, which take 4 ms each.
const REBUILD_PAUSE: Duration = Duration::from_millis(5);

/// How often something is said without an answer before it is left to the next survey.
const MAX_TRIES: u32 = 4;

/// Whose deadline [`Node::timeout`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// A connection that has not said who it is.
    Hello(ConnId),
    /// A greeting that is said again on a link that may lose it.
    Greeting(ConnId),
    /// A frame that is not complete.
    Frame(ConnId),
    /// A document that an answer is awaited for.
    Exchange(ConnId),
    /// A document that the other side did not take for a reason that may have passed.
    Declined(ConnId),
    /// The comparison of whole document sets.
    Survey(ConnId),
    /// A push to a legacy peer that waits for leave.
    Push(ConnId),
    /// A heartbeat to a legacy peer, or the lack of one from it.
    Pulse(ConnId),
    /// A request to compare documents that ends, or goes on.
    Request,
    /// A wanted peer that is to be dialled.
    Dial,
    /// Sets that are made anew, under another policy.
    Rebuild,
    /// A failed write that is tried again.
    Write,
    /// A document whose time is over.
    Age,
}

impl Node {
    /// When [`Input::Timeout`](crate::Input::Timeout) is due; `None` while nothing is waited for.
    #[must_use]
    pub fn timeout(&self) -> Option<Time> {
        self.timeout_reason().map(|(time, _)| time)
    }

    /// The deadline, and whose it is.
    #[must_use]
    pub fn timeout_reason(&self) -> Option<(Time, Reason)> {
        let own = earlier(
            self.wanted.deadline().map(|time| (time, Reason::Dial)),
            self.docs.write_deadline().map(|time| (time, Reason::Write)),
        );
        let own = earlier(own, self.rebuild_due.map(|time| (time, Reason::Rebuild)));
        let own = earlier(own, self.docs.age_deadline(self.now).map(|time| (time, Reason::Age)));
        let own = earlier(own, self.requests.deadline(self.now.mono).map(|time| (time, Reason::Request)));
        let own = earlier(own, self.legacy_deadline());
        self.conns.values().fold(own, |first, conn| earlier(first, self.deadline_of(conn)))
    }

    fn deadline_of(&self, conn: &Conn) -> Option<(Time, Reason)> {
        let frame = conn.frame_deadline(self.config.frame_deadline).map(|late| (late, Reason::Frame(conn.id)));
        let state = match conn.phase {
            Phase::Greeting { deadline, again } => {
                earlier(Some((deadline, Reason::Hello(conn.id))), again.map(|again| (again, Reason::Greeting(conn.id))))
            }
            Phase::Admitting { deadline } => Some((deadline, Reason::Hello(conn.id))),
            Phase::Serving => {
                let exchange = conn.timers.first().map(|(time, _)| (*time, Reason::Exchange(conn.id)));
                let asking = conn.survey.asking.as_ref().and_then(|asking| asking.deadline);
                let asking = asking.map(|due| (due, Reason::Survey(conn.id)));
                let frozen = conn.survey.answering.deadline().map(|due| (due, Reason::Survey(conn.id)));
                let asking = earlier(asking, frozen);
                let retry = conn.survey.excluded.deadline().map(|due| (due, Reason::Declined(conn.id)));
                let asking = earlier(asking, retry);
                // Without credit a summary waits for what was sent, and while scopes are made anew for these; not for time.
                let may = !conn.survey.is_open() || self.docs.scopes.is_complete();
                let due = conn.survey.due.filter(|_| may && conn.window.is_open_for_control(CONTROL_BYTES));
                earlier(earlier(exchange, asking), due.map(|due| (due, Reason::Survey(conn.id))))
            }
        };
        earlier(frame, state)
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self) {
        self.release_credit();
        self.docs.age();
        let now = self.now.mono;
        if !self.docs.scopes.is_complete() && self.rebuild_due.is_none_or(|due| due <= now) {
            self.rebuild_due = self.docs.rebuild().then(|| now + REBUILD_PAUSE);
        }
        while let Some(peer) = self.wanted.next_due(now) {
            self.out.dials.push_back(Output::Dial { peer });
        }
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in conns {
            self.tick_conn(id, now);
        }
        self.legacy_tick();
    }

    fn tick_conn(&mut self, id: ConnId, now: Time) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.frame_deadline(self.config.frame_deadline).is_some_and(|late| late <= now) {
            return self.close_conn(id, CloseCode::FrameDeadline);
        }
        match conn.phase {
            Phase::Greeting { deadline, .. } | Phase::Admitting { deadline } if deadline <= now => {
                self.close_conn(id, CloseCode::HelloDeadline);
            }
            Phase::Greeting { again: Some(again), .. } if again <= now => {
                self.greet_again(id, self.config.retry_min);
            }
            Phase::Greeting { .. } | Phase::Admitting { .. } => {}
            Phase::Serving => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.survey.answering.tick(now);
                }
                self.tick_exchanges(id, now);
                self.tick_asking(id, now);
                self.tick_terms(id, now);
                self.tick_declined(id, now);
            }
        }
    }

    /// What was refused for a reason that passes is offered again.
    fn tick_declined(&mut self, id: ConnId, now: Time) {
        let most = self.config.max_exchanges;
        while let Some(doc) = self.conns.get(&id).and_then(|conn| conn.survey.excluded.due(now)).cloned() {
            let class = self.docs.class(&doc);
            let slot = self.docs.get(&doc).map(|document| document.slot);
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if let Some(slot) = slot {
                conn.equal.remove(slot);
            }
            conn.survey.excluded.include(&doc);
            conn.rested = None;
            if conn.exchange(&doc, most, Exchange::unknown).is_some() {
                conn.enqueue(class, &doc);
            }
        }
    }

    fn tick_exchanges(&mut self, id: ConnId, now: Time) {
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            let Some((_, doc)) = conn.timers.first().filter(|(time, _)| *time <= now).cloned() else { return };
            let busy = conn.link.reliable && conn.window.in_flight() > 0;
            let patience = self.patience(conn, 0);
            let class = self.docs.class(&doc);
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if busy {
                // What was said has not even left: a slow path is no silence.
                conn.set_deadline(&doc, Some(now + patience));
                continue;
            }
            if let Some((moving, transfer)) = conn.transfers.get_mut(&class)
                && *moving == doc
            {
                let sent = transfer.is_sent();
                let tries = conn.exchanges.get(&doc).map_or(0, |exchange| exchange.tries);
                if sent && tries < MAX_TRIES {
                    conn.rewind(class);
                    if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                        exchange.tries += 1;
                    }
                } else if sent {
                    conn.end_exchange(class, &doc);
                    continue;
                }
                conn.set_deadline(&doc, Some(now + patience.saturating_mul(1 << tries.min(4))));
                continue;
            }
            conn.set_deadline(&doc, None);
            if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                exchange.give_up_waiting();
                self.stats.retries += 1;
                if exchange.tries >= MAX_TRIES {
                    conn.end_exchange(class, &doc);
                    conn.survey.spoil();
                } else {
                    conn.enqueue(class, &doc);
                }
            }
        }
    }

    /// The documents of one connection that are followed one by one.
    #[doc(hidden)]
    #[must_use]
    pub fn exchanging(&self, id: ConnId) -> Vec<DocId> {
        self.conns.get(&id).map(|conn| conn.exchanges.keys().cloned().collect()).unwrap_or_default()
    }
}
