//! The invariants of connections, and what tests may do to a node.

use super::Node;
use crate::check::Violation;
use crate::id::ConnId;
use crate::peer::connection::Conn;
use crate::policy::Class;
use crate::sync::backlog::Backlog;

/// Control frames that may wait on one connection: a greeting, its repetition, and room to spare.
const MAX_CONTROL: usize = 8;

impl Node {
    /// Checks the structural invariants of a drained node. Costs time in proportion to what the node holds.
    ///
    /// # Errors
    /// [`Violation`] names the first rule that is broken.
    pub fn check(&self) -> Result<(), Violation> {
        self.docs.check()?;
        let buffered: usize =
            self.conns.values().flat_map(|conn| conn.streams.values()).map(|stream| stream.assembler.buffered()).sum();
        let buffered = buffered + self.legacy_buffered();
        Violation::of_node(self.receiving == buffered, "partial frames are counted")?;
        Violation::of_node(buffered <= self.config.receive_budget, "partial frames stay within their budget")?;
        let pieced = self.assemblies.check(self.config.piece_budget);
        Violation::of_node(pieced, "what comes in pieces is counted and stays within its budget")?;
        let frozen = self.conns.values().filter(|conn| conn.survey.answering.is_frozen()).count();
        Violation::of_node(frozen <= self.config.max_sketches, "frozen sets stay within their number")?;
        let conns = self.conns.len() + self.legacy.len();
        Violation::of_node(conns <= self.config.max_connections, "connections stay within their number")?;
        self.check_requests()?;
        self.check_legacy()?;
        self.conns.values().try_for_each(|conn| self.check_conn(conn))
    }

    fn check_conn(&self, conn: &Conn) -> Result<(), Violation> {
        let rule = |holds, rule| Violation::of_conn(holds, rule, conn.id, None);
        rule(conn.exchanges.len() <= self.config.max_exchanges, "exchanges stay within their number")?;
        let counted: usize = conn.exchanges.values().map(|exchange| exchange.counted).sum();
        rule(conn.named == counted, "what exchanges keep of what was named is counted")?;
        rule(conn.streams.len() <= self.config.max_streams, "streams stay within their number")?;
        rule(conn.control.len() <= MAX_CONTROL, "control frames do not pile up")?;
        rule(conn.is_serving() || conn.exchanges.is_empty(), "documents flow only to the admitted")?;
        rule(conn.equal.len() <= u64::from(self.docs.slots()), "equal documents are known documents")?;
        for class in Class::ALL {
            for (age, doc) in &conn.queues[class.index()] {
                let queued = conn.exchanges.get(doc).and_then(|exchange| exchange.queued);
                let holds = queued == Some(*age) && self.docs.class(doc) == class;
                Violation::of_conn(holds, "what is queued is an exchange", conn.id, Some(doc))?;
            }
        }
        for (class, (doc, _)) in &conn.transfers {
            let holds = conn.exchanges.get(doc).is_some_and(|exchange| exchange.is_waiting());
            Violation::of_conn(
                holds && self.docs.class(doc) == *class,
                "what is sent in pieces is an exchange",
                conn.id,
                Some(doc),
            )?;
        }
        let kept = |doc| conn.exchanges.get(doc).is_some_and(|exchange| exchange.backlog() <= Backlog::BYTES);
        rule(conn.backlogs.iter().all(kept), "what is kept between frames belongs to an exchange")?;
        let keeping = conn.exchanges.values().filter(|exchange| exchange.backlog() > 0).count();
        rule(keeping <= Backlog::DOCUMENTS, "few exchanges keep changes between frames")?;
        rule(conn.receipts.keys().all(|doc| conn.exchanges.contains_key(doc)), "receipts are about exchanges")?;
        for (time, doc) in &conn.timers {
            let deadline = conn.exchanges.get(doc).and_then(|exchange| exchange.deadline);
            Violation::of_conn(deadline == Some(*time), "a timer belongs to an exchange", conn.id, Some(doc))?;
        }
        for (doc, exchange) in &conn.exchanges {
            let rule = |holds, rule| Violation::of_conn(holds, rule, conn.id, Some(doc));
            let queue = &conn.queues[self.docs.class(doc).index()];
            let stands = exchange.queued.is_none_or(|age| queue.get(&age) == Some(doc));
            rule(stands, "a queued exchange stands in the queue")?;
            let timer = exchange.deadline.map(|time| (time, doc.clone()));
            rule(timer.is_none_or(|entry| conn.timers.contains(&entry)), "a deadline has a timer")?;
            let deferred = conn.deferred.get(&self.docs.class(doc)).is_some_and(|deferred| deferred.contains(doc));
            let awaits = exchange.queued.is_some() || exchange.is_waiting() || self.docs.attends(doc, conn.id);
            let awaits = awaits || (deferred && conn.transfers.contains_key(&self.docs.class(doc)));
            rule(awaits, "an exchange waits for something that will come")?;
            let born = self.docs.get(doc).filter(|document| !document.offered.is_empty());
            let equal = born.is_some_and(|document| conn.equal.contains(document.slot));
            rule(!equal, "what is followed one by one does not count as equal")?;
        }
        Ok(())
    }

    /// The classes that have something to say on a connection.
    #[doc(hidden)]
    #[must_use]
    pub fn waiting(&self, conn: ConnId) -> Vec<Class> {
        let queued = |class: &Class| match self.legacy.conns.get(&conn) {
            Some(legacy) => legacy.has_queued(*class),
            None => self.conns.get(&conn).is_some_and(|conn| conn.has_queued(*class)),
        };
        Class::ALL.into_iter().filter(queued).collect()
    }

    /// The classes that earn their share on a connection: they have something to say, or list what they have.
    #[doc(hidden)]
    #[must_use]
    pub fn earning(&self, conn: ConnId) -> Vec<Class> {
        let works = |class: &Class| match self.legacy.conns.get(&conn) {
            Some(legacy) => legacy.has_work(*class, self.legacy_ahead()),
            None => self.conns.get(&conn).is_some_and(|conn| conn.has_work(*class, self.push_ahead())),
        };
        Class::ALL.into_iter().filter(works).collect()
    }

    /// Lets go of every document that may be let go of.
    #[doc(hidden)]
    pub fn evict(&mut self) {
        self.docs.evict_all();
    }
}
