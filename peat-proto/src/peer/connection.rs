//! One connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::heads::Heads;
use crate::id::{ConnId, DocId, PeerId, StreamId};
use crate::io::Link;
use crate::peer::bits::Bits;
use crate::peer::deficits::Deficits;
use crate::peer::streams::Stream;
use crate::peer::watch::Watch;
use crate::peer::window::Window;
use crate::policy::Class;
use crate::policy::kin::Kin;
use crate::stats::{Credential, PeerStats, Traffic};
use crate::sync::exchange::{Exchange, named_bytes};
use crate::sync::pieces::Transfer;
use crate::sync::survey::Survey;
use crate::time::Time;
use crate::wire::v1::{Entry, Handshake, Held};

/// Control frames that may be in flight beyond the window, in bytes.
pub(crate) const CONTROL_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerId,
    pub(crate) link: Link,
    /// What the other side is in our hierarchy; `None` where there is none.
    pub(crate) kin: Option<Kin>,
    pub(crate) phase: Phase,
    /// What the other side was let in by, once it is.
    pub(crate) credential: Option<Credential>,
    pub(crate) handshake: Handshake,
    /// The other side's boot, once it has said it.
    pub(crate) boot: Option<u64>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// Streams of the other side that were over before anything had arrived.
    empty: u32,
    /// Receive credit that is held back while too much is not durable.
    pub(crate) held: BTreeMap<StreamId, usize>,
    pub(crate) window: Window,
    pub(crate) deficits: Deficits,
    /// Control frames that wait; a handful.
    pub(crate) control: VecDeque<Bytes>,
    /// Entries that were made and did not fit behind their predecessors; each goes when its class is next.
    pub(crate) overhang: BTreeMap<Class, Entry>,
    /// What is too large for a frame and is on its way out: one of each class.
    pub(crate) transfers: BTreeMap<Class, (DocId, Transfer)>,
    /// How much is held of what arrives in pieces, where the other side is to be told.
    pub(crate) receipts: BTreeMap<DocId, Held>,
    /// Documents that wait for the transfer of their class to end.
    pub(crate) deferred: BTreeMap<Class, BTreeSet<DocId>>,
    /// Documents of which changes are kept between two frames; at most [`Backlog::DOCUMENTS`].
    ///
    /// [`Backlog::DOCUMENTS`]: crate::sync::backlog::Backlog::DOCUMENTS
    pub(crate) backlogs: BTreeSet<DocId>,
    /// How well this connection's entries are compressed, in sixteenths: what they were by what they became.
    pub(crate) ratio: usize,
    /// When the ping that is not answered was sent.
    pub(crate) pinged: Option<Time>,
    /// The state of all documents at which there was nothing to say; until one of the two moves.
    pub(crate) rested: Option<u64>,
    /// Documents whose copies are equal on both sides.
    pub(crate) equal: Bits,
    /// Documents that are followed one by one because they differ, or may.
    pub(crate) exchanges: BTreeMap<DocId, Exchange>,
    /// What those that were found by comparing are expected to take in memory, in bytes.
    pub(crate) expected: u64,
    /// Bytes that they keep of what the other side named; about [`Self::MAX_NAMED`] at most.
    pub(crate) named: usize,
    /// Which of them have something to say: intents, not bytes.
    pub(crate) queues: [BTreeMap<u64, DocId>; 5],
    pub(crate) next_age: u64,
    /// Deadlines of the exchanges.
    pub(crate) timers: BTreeSet<(Time, DocId)>,
    pub(crate) survey: Survey,
    /// Documents that somebody waits for.
    pub(crate) watch: Watch,
    pub(crate) traffic: Traffic,
}

/// How far the two sides know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The other side has not said who it is.
    Greeting { deadline: Time, again: Option<Time> },
    /// Its admission is being written down.
    Admitting { deadline: Time },
    /// Documents flow.
    Serving,
}

impl Conn {
    /// Bytes of heads and samples that exchanges keep beyond the first eight hashes of each. 1 MiB: 33 documents with as many
    /// heads as there may be at once, or 2,300, which is what fits half of the cache, with the samples of most. Without it they
    /// could come to 134 MB for a connection. What does not fit is not heard, and found again by a later comparison. What both
    /// turn out to have may exceed it, by 2 KiB for each document of ours.
    pub(crate) const MAX_NAMED: usize = 1 << 20;

    pub(crate) fn new(
        id: ConnId,
        peer: PeerId,
        link: Link,
        phase: Phase,
        window: Window,
        handshake: Handshake,
    ) -> Self {
        Self {
            id,
            peer,
            link,
            kin: None,
            phase,
            credential: None,
            handshake,
            boot: None,
            streams: BTreeMap::new(),
            empty: 0,
            held: BTreeMap::new(),
            window,
            deficits: Deficits::default(),
            control: VecDeque::new(),
            overhang: BTreeMap::new(),
            transfers: BTreeMap::new(),
            deferred: BTreeMap::new(),
            receipts: BTreeMap::new(),
            backlogs: BTreeSet::new(),
            ratio: 16,
            pinged: None,
            rested: None,
            equal: Bits::default(),
            exchanges: BTreeMap::new(),
            expected: 0,
            named: 0,
            queues: Default::default(),
            next_age: 0,
            timers: BTreeSet::new(),
            watch: Watch::default(),
            survey: Survey::default(),
            traffic: Traffic::default(),
        }
    }

    /// Notes that a stream is over of which nothing was heard; true once there are too many.
    pub(crate) fn ended_empty(&mut self, stream: StreamId) -> bool {
        let theirs = stream.opener() != self.link.role && !self.streams.contains_key(&stream);
        self.empty += u32::from(theirs);
        self.empty >= Link::MAX_EMPTY_STREAMS
    }

    /// Whether a summary is due now and may go.
    pub(crate) fn says_summary(&self, now: Time) -> bool {
        let due = self.survey.due.is_some_and(|due| due <= now);
        due && self.survey.is_open() && self.window.is_open_for_control(CONTROL_BYTES)
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// When the first of the incomplete frames is too late. Streams that we hold up ourselves do not count.
    pub(crate) fn frame_deadline(&self, limit: Duration) -> Option<Time> {
        let moving = self.streams.iter().filter(|(id, _)| !self.held.contains_key(id));
        moving.filter_map(|(_, stream)| stream.deadline(limit)).min()
    }

    /// Bytes of incomplete frames.
    pub(crate) fn receiving(&self) -> usize {
        self.streams.values().map(|stream| stream.counted).sum()
    }

    /// Whether documents are being exchanged or compared.
    pub(crate) fn is_busy(&self) -> bool {
        !self.exchanges.is_empty() || self.survey.is_busy() || self.survey.answering.is_due()
    }

    /// Puts an exchange into the queue, behind those of its class that wait already.
    pub(crate) fn enqueue(&mut self, class: Class, doc: &DocId) {
        let Some(exchange) = self.exchanges.get_mut(doc) else { return };
        if exchange.queued.is_none() {
            self.next_age += 1;
            exchange.queued = Some(self.next_age);
            self.queues[class.index()].insert(self.next_age, doc.clone());
        }
    }

    /// The longest-waiting exchange of a class; it leaves the queue.
    pub(crate) fn dequeue(&mut self, class: Class) -> Option<DocId> {
        let (_, doc) = self.queues[class.index()].pop_first()?;
        if let Some(exchange) = self.exchanges.get_mut(&doc) {
            exchange.queued = None;
        }
        Some(doc)
    }

    /// Puts what waits into the queues of the classes that documents have now. Transfers begin anew.
    pub(crate) fn reclass(&mut self, class: impl Fn(&DocId) -> Class) {
        let waiting = std::mem::take(&mut self.queues);
        for (age, doc) in waiting.into_iter().flatten() {
            self.queues[class(&doc).index()].insert(age, doc);
        }
        let moving: Vec<DocId> = std::mem::take(&mut self.transfers).into_values().map(|(doc, _)| doc).collect();
        let deferred = std::mem::take(&mut self.deferred);
        for doc in moving.into_iter().chain(deferred.into_values().flatten()) {
            self.set_deadline(&doc, None);
            if let Some(exchange) = self.exchanges.get_mut(&doc) {
                exchange.give_up_waiting();
            }
            self.enqueue(class(&doc), &doc);
        }
        for (_, entry) in std::mem::take(&mut self.overhang) {
            self.overhang.insert(class(&entry.doc), entry);
        }
    }

    /// Whether something of this class can be said.
    pub(crate) fn has_queued(&self, class: Class) -> bool {
        let transfers = self.transfers.get(&class).is_some_and(|(_, transfer)| !transfer.is_sent());
        transfers || self.overhang.contains_key(&class) || !self.queues[class.index()].is_empty()
    }

    /// Whether a frame of this class can be made: something is to be said, or the list goes on. A list that pushes contents
    /// waits while `push_ahead` exchanges are under way.
    pub(crate) fn has_work(&self, class: Class, push_ahead: usize) -> bool {
        let listing = self.survey.listing.as_ref();
        let lists = listing.is_some_and(|listing| {
            listing.waits(class) && (listing.push.is_empty() || self.exchanges.len() < push_ahead)
        });
        self.has_queued(class) || lists
    }

    /// Forgets an exchange and everything that hangs on it.
    pub(crate) fn end_exchange(&mut self, class: Class, doc: &DocId) {
        let Some(exchange) = self.exchanges.remove(doc) else { return };
        self.expected = self.expected.saturating_sub(exchange.memory);
        self.named = self.named.saturating_sub(exchange.counted);
        self.watch.end(doc);
        if let Some(age) = exchange.queued {
            self.queues[class.index()].remove(&age);
        }
        if let Some(deadline) = exchange.deadline {
            self.timers.remove(&(deadline, doc.clone()));
        }
        self.receipts.remove(doc);
        self.backlogs.remove(doc);
        if let Some(deferred) = self.deferred.get_mut(&class) {
            deferred.remove(doc);
        }
        self.interrupt(class, doc);
    }

    /// Whether all of a document that goes in pieces was sent, though perhaps not received.
    pub(crate) fn has_sent(&self, class: Class, doc: &DocId) -> bool {
        self.transfers.get(&class).is_some_and(|(moving, transfer)| moving == doc && transfer.is_sent())
    }

    /// Stops sending a document in pieces, if it is.
    pub(crate) fn interrupt(&mut self, class: Class, doc: &DocId) {
        if self.transfers.get(&class).is_some_and(|(moving, _)| moving == doc) {
            self.end_transfer(class);
        }
    }

    /// Forgets the transfer of a class; what waited for it has its turn.
    pub(crate) fn end_transfer(&mut self, class: Class) {
        self.transfers.remove(&class);
        for doc in self.deferred.remove(&class).unwrap_or_default() {
            self.enqueue(class, &doc);
        }
    }

    /// What was sent of the transfer of a class may be lost, beyond what the other side is known to have.
    pub(crate) fn rewind(&mut self, class: Class) {
        if let Some((_, transfer)) = self.transfers.get_mut(&class) {
            transfer.rewind();
        }
    }

    /// Sets or clears the deadline of an exchange.
    pub(crate) fn set_deadline(&mut self, doc: &DocId, deadline: Option<Time>) {
        let Some(exchange) = self.exchanges.get_mut(doc) else { return };
        if let Some(old) = std::mem::replace(&mut exchange.deadline, deadline) {
            self.timers.remove(&(old, doc.clone()));
        }
        if let Some(new) = deadline {
            self.timers.insert((new, doc.clone()));
        }
    }

    /// The exchange about a document, begun if there is room for one more.
    pub(crate) fn exchange(
        &mut self,
        doc: &DocId,
        most: usize,
        begin: impl FnOnce() -> Exchange,
    ) -> Option<&mut Exchange> {
        if self.exchanges.len() >= most && !self.exchanges.contains_key(doc) {
            return None;
        }
        let expected = &mut self.expected;
        Some(self.exchanges.entry(doc.clone()).or_insert_with(|| {
            let exchange = begin();
            *expected = expected.saturating_add(exchange.memory);
            exchange
        }))
    }

    /// Whether so many more hashes may be kept of what the other side names.
    pub(crate) fn has_room(&self, hashes: usize) -> bool {
        let more = named_bytes(hashes);
        more == 0 || self.named.saturating_add(more) <= Self::MAX_NAMED
    }

    /// Counts anew what an exchange keeps of what the other side named.
    pub(crate) fn recount(&mut self, doc: &DocId) {
        let Some(exchange) = self.exchanges.get_mut(doc) else { return };
        let named = exchange.named();
        let before = std::mem::replace(&mut exchange.counted, named);
        self.named = self.named.saturating_sub(before).saturating_add(named);
    }

    /// What the exchange about a document that just moved from `before` starts from; `None` when the survey will
    /// come to it anyway.
    pub(crate) fn basis(&self, doc: &DocId, class: Class, were_equal: bool, before: &Heads) -> Option<Exchange> {
        if were_equal {
            return Some(Exchange::at(before.clone()));
        }
        if let Some(listing) = &self.survey.listing {
            let passed = !listing.waits(class) || listing.behind(class).is_some_and(|behind| doc <= behind);
            return passed.then(Exchange::unknown);
        }
        Some(if before.is_empty() { Exchange::at(Heads::NONE) } else { Exchange::unknown() })
    }

    pub(crate) fn stats(&self, documents: u64) -> PeerStats {
        let behind = if self.survey.level { 0 } else { documents.saturating_sub(self.equal.len()) };
        PeerStats {
            conn: self.id,
            peer: self.peer,
            role: self.link.role,
            wire: self.link.wire,
            credential: self.credential.filter(|_| self.is_serving()),
            admitted: self.is_serving(),
            level: self.survey.level,
            behind,
            left_out: self.survey.excluded.len() as u64,
            traffic: self.traffic,
            in_flight: self.window.in_flight(),
            window: self.window.size(),
            legacy: None,
        }
    }
}
