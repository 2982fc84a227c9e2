//! The invariants of connections with legacy peers.

use crate::check::Violation;
use crate::node::Node;
use crate::peer::legacy::Conn;
use crate::policy::Class;
use crate::sync::legacy::Exchange;

impl Node {
    pub(in crate::node) fn check_legacy(&self) -> Result<(), Violation> {
        self.legacy.conns.values().try_for_each(|conn| self.check_legacy_conn(conn))
    }

    /// Bytes of partly received frames.
    pub(in crate::node) fn legacy_buffered(&self) -> usize {
        let inlets = self.legacy.conns.values().flat_map(|conn| conn.inlets.values());
        inlets.map(|inlet| inlet.assembler.buffered()).sum()
    }

    fn check_legacy_conn(&self, conn: &Conn) -> Result<(), Violation> {
        let rule = |holds, rule| Violation::of_conn(holds, rule, conn.id, None);
        let most = self.config.legacy.as_ref().map_or(0, |legacy| legacy.max_streams);
        rule(conn.exchanges.len() <= self.config.max_exchanges, "exchanges stay within their number")?;
        let names = conn.exchanges.values().map(Exchange::names).sum::<usize>();
        rule(conn.names == names, "names are counted")?;
        rule(conn.inlets.len() <= most, "streams stay within their number")?;
        rule(conn.is_serving() || conn.exchanges.is_empty(), "documents flow only to the admitted")?;
        rule(conn.equal.len() <= u64::from(self.docs.slots()), "equal documents are known documents")?;
        // A bucket full, and what it is filled up with meanwhile.
        let pushes = self.config.legacy.as_ref().map_or(0, |legacy| {
            u64::from(legacy.pushes_per_second.max(10)).saturating_mul(legacy.cooldown.as_secs().saturating_add(2))
        });
        rule(conn.cooldown.len() as u64 <= pushes, "cooldowns are forgotten")?;
        for class in Class::ALL {
            for (age, doc) in conn.answers[class.index()].iter().chain(&conn.pushes[class.index()]) {
                let queued = conn.exchanges.get(doc).and_then(|exchange| exchange.queued);
                let holds = queued == Some(*age) && self.docs.class(doc) == class;
                Violation::of_conn(holds, "what is queued is an exchange", conn.id, Some(doc))?;
            }
        }
        for (time, doc) in &conn.timers {
            let holds = conn.due.get(doc) == Some(time) && conn.exchanges.contains_key(doc);
            Violation::of_conn(holds, "a timer belongs to an exchange", conn.id, Some(doc))?;
        }
        rule(conn.timers.len() == conn.due.len(), "an exchange has one timer at most")?;
        for (doc, exchange) in &conn.exchanges {
            let rule = |holds, rule| Violation::of_conn(holds, rule, conn.id, Some(doc));
            let class = self.docs.class(doc).index();
            let stands = |age| [&conn.answers, &conn.pushes].iter().any(|queues| queues[class].get(&age) == Some(doc));
            rule(exchange.queued.is_none_or(stands), "a queued exchange stands in a queue")?;
            let timed = conn.due.contains_key(doc);
            rule(timed || !(exchange.is_waiting() || exchange.is_parked()), "who waits has a timer")?;
            let cools = conn.cooling.iter().any(|(_, cooling)| cooling == doc);
            let awaits = exchange.queued.is_some() || timed || cools;
            rule(awaits || self.docs.attends(doc, conn.id), "an exchange waits for something that will come")?;
        }
        Ok(())
    }
}
