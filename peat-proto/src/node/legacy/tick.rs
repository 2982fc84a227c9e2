//! Deadlines of connections with legacy peers.

use std::time::Duration;

use crate::id::{ConnId, DocId, StreamId};
use crate::io::{CloseCode, Event, Lane, Role};
use crate::node::{Node, Reason, earlier};
use crate::peer::legacy::{Conn, Phase, Turn};
use crate::time::Time;
use crate::wire::v0::Heartbeat;

/// Longest time after which a document that was given up is tried again.
const PARKED: Duration = Duration::from_secs(300);

/// Bytes of heartbeats that may be in flight beyond the window.
const CONTROL_BYTES: usize = 1 << 10;

impl Node {
    /// The earliest deadline of all connections with legacy peers.
    pub(in crate::node) fn legacy_deadline(&self) -> Option<(Time, Reason)> {
        self.legacy.conns.values().fold(None, |first, conn| earlier(first, self.legacy_deadline_of(conn)))
    }

    fn legacy_deadline_of(&self, conn: &Conn) -> Option<(Time, Reason)> {
        let id = conn.id;
        let frame = conn.frames_since().map(|(_, since)| since).min();
        let frame = frame.map(|since| (since + self.config.frame_deadline, Reason::Frame(id)));
        let state = match &conn.phase {
            Phase::Proving(handshake) => handshake.deadline().map(|time| (time, Reason::Hello(id))),
            Phase::Serving => {
                let exchange = conn.timers.first().map(|(time, _)| (*time, Reason::Exchange(id)));
                let cooled = conn.cooling.first().map(|(time, _)| (*time, Reason::Exchange(id)));
                // Without credit a push waits for what was sent, not for time.
                let pushes = conn.has_pushes() && conn.window.is_open();
                let refill = (pushes && conn.breaker.allows() && conn.bucket.is_empty()).then(|| conn.bucket.next());
                let breaker = conn.breaker.until().filter(|_| pushes);
                let rest = conn.push.as_ref().and_then(|push| push.rests).filter(|_| pushes && conn.may_push());
                let waits = [refill, breaker, rest].into_iter().flatten().min().map(|time| (time, Reason::Push(id)));
                let pulse = Some((conn.pulse.deadline(), Reason::Pulse(id)));
                let renewal = conn.renewal().map(|time| (time, Reason::Pulse(id)));
                earlier(earlier(earlier(exchange, cooled), renewal), earlier(waits, pulse))
            }
        };
        earlier(frame, state)
    }

    /// Does what has become due.
    pub(in crate::node) fn legacy_tick(&mut self) {
        let ids: Vec<ConnId> = self.legacy.conns.keys().copied().collect();
        for id in ids {
            self.legacy_tick_frames(id);
            self.legacy_tick_conn(id);
        }
    }

    fn legacy_tick_frames(&mut self, id: ConnId) {
        let (now, limit) = (self.now.mono, self.config.frame_deadline);
        let Some(conn) = self.legacy.conns.get(&id) else { return };
        let late: Vec<StreamId> =
            conn.frames_since().filter(|(_, since)| *since + limit <= now).map(|(stream, _)| stream).collect();
        for stream in late {
            self.stats.legacy.frames_late += 1;
            self.legacy_shut(id, stream, CloseCode::FrameDeadline);
        }
    }

    fn legacy_tick_conn(&mut self, id: ConnId) {
        let now = self.now.mono;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        if let Phase::Proving(handshake) = &mut conn.phase {
            let step = handshake.timeout(now);
            if step.verdict.is_some() {
                self.legacy_prove(id, StreamId::new(0, Role::Dialled, true), |_| step);
            }
            return;
        }
        if !conn.held.is_empty() {
            // Its streams wait for credit that we hold back, and its heartbeats behind them.
            conn.pulse.excuse(now);
        }
        if conn.pulse.is_dead(now) {
            self.stats.legacy.given_up += 1;
            return self.legacy_close(id, CloseCode::Normal);
        }
        if conn.renewal().is_some_and(|due| due <= now) {
            self.stats.legacy.renewed += 1;
            return self.legacy_close(id, CloseCode::Normal);
        }
        conn.breaker.tick(now);
        conn.bucket.refill(now);
        let turn = conn.pulse.tick(now);
        if conn.pulse.beats(now) && conn.window.is_open_for_control(CONTROL_BYTES) {
            self.stats.legacy.heartbeats_sent += 1;
            conn.control.push_back((Lane::Pulse, Heartbeat { sent_ms: self.now.unix_ms }.encode()));
        }
        self.legacy_turned(id, turn);
        self.legacy_tick_cooled(id);
        self.legacy_tick_exchanges(id);
    }

    fn legacy_tick_cooled(&mut self, id: ConnId) {
        let now = self.now.mono;
        let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
        while let Some((time, doc)) = conn.cooling.first().filter(|(time, _)| *time <= now).cloned() {
            conn.cooling.remove(&(time, doc.clone()));
            let class = self.docs.class(&doc);
            conn.enqueue(class, &doc);
        }
    }

    fn legacy_tick_exchanges(&mut self, id: ConnId) {
        let now = self.now.mono;
        loop {
            let Some(conn) = self.legacy.conns.get(&id) else { return };
            let Some((_, doc)) = conn.timers.first().filter(|(time, _)| *time <= now).cloned() else { return };
            // What was said has not even left: a slow path is no silence.
            let busy = conn.window.in_flight() > 0;
            let patience = self.legacy_patience(id);
            let class = self.docs.class(&doc);
            let Some(conn) = self.legacy.conns.get_mut(&id) else { return };
            let Some(exchange) = conn.exchanges.get_mut(&doc) else { return };
            if exchange.is_parked() {
                exchange.unpark();
            } else if busy {
                conn.set_timer(&doc, now + patience);
                continue;
            } else {
                exchange.give_up_waiting();
                self.stats.retries += 1;
            }
            conn.clear_timer(&doc);
            conn.enqueue(class, &doc);
        }
    }

    /// How long the next word about a document waits for its answer: twice as long after each that got none.
    pub(super) fn legacy_wait(&mut self, id: ConnId, doc: &DocId) -> Duration {
        let patience = self.legacy_patience(id);
        let tries = self.legacy.conns.get(&id).and_then(|conn| Some(conn.exchanges.get(doc)?.tries()));
        let longest = self.config.retry_max.max(patience);
        let wait = patience.saturating_mul(1 << tries.unwrap_or_default().min(16)).min(longest);
        self.legacy_jitter(wait)
    }

    /// How long a document is left alone about which nothing was answered: silence may mean that all was lost, so twice as
    /// long each time.
    pub(super) fn legacy_rest_of(&mut self, id: ConnId, doc: &DocId) -> Duration {
        let parks = self.legacy.conns.get(&id).and_then(|conn| Some(conn.exchanges.get(doc)?.parks()));
        let wait = self.config.retry_max.saturating_mul(1 << parks.unwrap_or_default().min(16));
        self.legacy_jitter(wait.min(PARKED))
    }

    /// How long a document is left alone of which something was refused.
    pub(super) fn legacy_parked(&mut self) -> Duration {
        self.legacy_jitter(PARKED)
    }

    /// Up to a quarter more, so that what failed together is not tried again together.
    pub(super) fn legacy_jitter(&mut self, wait: Duration) -> Duration {
        let quarter = u64::try_from(wait.as_micros() / 4).unwrap_or(u64::MAX);
        wait + Duration::from_micros(self.rng.below(quarter))
    }

    /// How long a word waits for its first answer.
    fn legacy_patience(&self, id: ConnId) -> Duration {
        let rtt = self.legacy.conns.get(&id).map(|conn| conn.window.rtt()).unwrap_or_default();
        // A legacy peer answers the entries of a batch one after the other, each when the answer before has left.
        self.config.retry_min.saturating_mul(5).max(rtt.saturating_mul(8))
    }

    /// A peer was lost or found.
    pub(super) fn legacy_turned(&mut self, id: ConnId, turn: Option<Turn>) {
        let Some(peer) = self.legacy.conns.get(&id).map(|conn| conn.peer) else { return };
        match turn {
            Some(Turn::Lost) => {
                self.stats.legacy.partitions += 1;
                self.event(Event::Partitioned { peer });
            }
            Some(Turn::Found) => self.event(Event::Recovered { peer }),
            None => {}
        }
    }

    /// Reports that nothing is left to say to a peer, once after each time that there was.
    pub(in crate::node) fn legacy_rest(&mut self) {
        let quiet = |conn: &Conn| {
            let parked = conn.exchanges.values().all(crate::sync::legacy::Exchange::is_parked);
            conn.is_serving() && !conn.level && !conn.misses() && conn.push.is_none() && parked
        };
        let mut level = Vec::new();
        for conn in self.legacy.conns.values_mut().filter(|conn| quiet(conn)) {
            conn.level = true;
            level.push(conn.peer);
        }
        for peer in level {
            self.event(Event::Level { peer });
        }
    }
}
