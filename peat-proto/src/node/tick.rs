//! Deadlines.

use super::{Node, earlier};
use crate::id::{ConnId, DocId};
use crate::io::{CloseCode, Output};
use crate::peer::connection::{CONTROL_BYTES, Conn, Phase};
use crate::time::Time;

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
        let own = earlier(own, self.docs.age_deadline(self.now).map(|time| (time, Reason::Age)));
        let own = earlier(own, self.requests.deadline(self.now.mono).map(|time| (time, Reason::Request)));
        let own = earlier(own, self.legacy_deadline());
        self.conns.values().fold(own, |first, conn| earlier(first, self.deadline_of(conn)))
    }

    fn deadline_of(&self, conn: &Conn) -> Option<(Time, Reason)> {
        let frame = conn.frames_since().min();
        let frame = frame.map(|since| (since + self.config.frame_deadline, Reason::Frame(conn.id)));
        let state = match conn.phase {
            Phase::Greeting { deadline, again } => {
                earlier(Some((deadline, Reason::Hello(conn.id))), again.map(|again| (again, Reason::Greeting(conn.id))))
            }
            Phase::Admitting { deadline } => Some((deadline, Reason::Hello(conn.id))),
            Phase::Serving => {
                let exchange = conn.timers.first().map(|(time, _)| (*time, Reason::Exchange(conn.id)));
                // Without credit the digest waits for what was sent, not for time.
                let due = conn.survey.due.filter(|_| conn.window.is_open_for_control(CONTROL_BYTES));
                earlier(exchange, due.map(|due| (due, Reason::Survey(conn.id))))
            }
        };
        earlier(frame, state)
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self) {
        self.release_credit();
        self.docs.age();
        let now = self.now.mono;
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
        let limit = self.config.frame_deadline;
        if conn.frames_since().any(|since| since + limit <= now) {
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
            Phase::Serving => self.tick_exchanges(id, now),
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
            conn.set_deadline(&doc, None);
            if let Some(exchange) = conn.exchanges.get_mut(&doc) {
                exchange.give_up_waiting();
                self.stats.retries += 1;
                if exchange.tries >= MAX_TRIES {
                    conn.end_exchange(class, &doc);
                } else {
                    conn.enqueue(class, &doc);
                }
            }
        }
    }

    /// Connections with nothing left to say compare digests. True if one of them has something to say at once.
    pub(super) fn rest(&mut self) -> bool {
        self.legacy_rest();
        let (now, settle, longest) = (self.now.mono, self.config.settle, self.config.retry_max);
        let digest = self.docs.digest();
        let idle: Vec<ConnId> =
            self.conns.values().filter(|conn| conn.is_serving() && !conn.is_busy()).map(|conn| conn.id).collect();
        let mut due = false;
        for id in idle {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.survey.rest(&digest, now, settle, longest);
                due |= conn.survey.due.is_some_and(|due| due <= now) && conn.window.is_open_for_control(CONTROL_BYTES);
            }
            self.note_level(id, &digest);
        }
        due || !self.out.is_empty()
    }

    /// The documents of one connection that are followed one by one.
    #[doc(hidden)]
    #[must_use]
    pub fn exchanging(&self, id: ConnId) -> Vec<DocId> {
        self.conns.get(&id).map(|conn| conn.exchanges.keys().cloned().collect()).unwrap_or_default()
    }
}
