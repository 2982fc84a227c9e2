//! One connection with a legacy peer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Legacy;
use crate::heads::Heads;
use crate::id::{ConnId, DocId, PeerId, StreamId};
use crate::io::{Lane, Link, Role};
use crate::peer::bits::Bits;
use crate::peer::deficits::Deficits;
use crate::peer::watch::Watch;
use crate::peer::window::Window;
use crate::policy::Class;
use crate::policy::kin::Kin;
use crate::stats::{Credential, LegacyPeer, PeerStats, Traffic};
use crate::sync::legacy::Exchange;
use crate::time::Time;
use crate::wire::v0::{Entry, Handshake};

mod breaker;
mod bucket;
mod inlet;
mod orphans;
mod pulse;
mod push;

pub(crate) use breaker::Breaker;
pub(crate) use bucket::{Assurances, Bucket, Cooldown};
pub(crate) use inlet::Inlet;
pub(crate) use orphans::Orphans;
pub(crate) use pulse::{Pulse, Turn};
pub(crate) use push::{Push, Stage};

/// Documents that were said without an answer being awaited, and may not have left: beyond so many, all of their class
/// are said again if one of their streams breaks.
const MOST_UNSURE: usize = 4096;

/// Documents that neither side has and that a peer is told so about, within a few seconds: names of up to 512 bytes.
const MOST_DENIED: usize = 1024;

/// Hashes that are kept because the other side named them, in all exchanges: 2 MiB, 16 for each of 4,096 documents. One
/// message may name a thousand heads.
const MOST_NAMES: usize = 65_536;

/// Streams that are remembered as stopped, the newest ones: their senders may not have heard of it. A number comes once.
const MOST_SHUT: usize = 256;

/// Age at which a connection that we dialled to a fielded peer is begun anew: all documents are compared then, some 100
/// bytes each. Theirs are a minute old; five times as much is what other things of theirs are given until the next try.
const RENEWAL: Duration = Duration::from_secs(300);

/// The same once something is known to be lost.
const RENEWAL_AFTER_LOSS: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerId,
    pub(crate) link: Link,
    /// What the other side is in our hierarchy; `None` where there is none.
    pub(crate) kin: Option<Kin>,
    pub(crate) phase: Phase,
    /// What the other side is let in by, once it is.
    pub(crate) credential: Credential,
    /// What waits on lanes of no class.
    pub(crate) control: VecDeque<(Lane, Bytes)>,
    pub(crate) inlets: BTreeMap<StreamId, Inlet>,
    /// Streams of the other side that were over before anything had arrived.
    empty: u32,
    /// Receive credit that is held back while too much is not durable, or before documents flow.
    pub(crate) held: BTreeMap<StreamId, usize>,
    pub(crate) window: Window,
    pub(crate) deficits: Deficits,
    pub(crate) bucket: Bucket,
    pub(crate) cooldown: Cooldown,
    pub(crate) assurances: Assurances<u32>,
    /// The same of documents that neither side has.
    pub(crate) denials: Assurances<DocId>,
    pub(crate) breaker: Breaker,
    pub(crate) pulse: Pulse,
    /// What was made and did not fit behind its predecessors; it goes when its class is next.
    pub(crate) overhang: BTreeMap<Class, VecDeque<Made>>,
    /// Documents of which the other side has what we have, as far as we can tell.
    pub(crate) equal: Bits,
    /// Documents that are followed one by one.
    pub(crate) exchanges: BTreeMap<DocId, Exchange>,
    /// Hashes that they keep because the other side named them.
    pub(crate) names: usize,
    /// Which of them have an answer to give, and which something of our own: intents, not bytes.
    pub(crate) answers: [BTreeMap<u64, DocId>; 5],
    pub(crate) pushes: [BTreeMap<u64, DocId>; 5],
    next_age: u64,
    /// When exchanges are looked at again, in both orders.
    pub(crate) timers: BTreeSet<(Time, DocId)>,
    pub(crate) due: BTreeMap<DocId, Time>,
    /// Pushes that wait for the end of a cooldown.
    pub(crate) cooling: BTreeSet<(Time, DocId)>,
    /// The push of everything, while it is under way.
    pub(crate) push: Option<Push>,
    /// Changes that came before those that they build on.
    pub(crate) orphans: Orphans,
    /// Hops that batches may still travel in which tombstones came that were not passed on yet.
    pub(crate) buried: BTreeMap<DocId, u8>,
    /// What was said since everything had left, and expects no answer; `None` if that is too much to remember.
    unsure: [Option<BTreeSet<DocId>>; 5],
    /// Something that was said since everything had left did not arrive.
    pub(crate) spoilt: bool,
    /// When the last question about the set of documents came.
    pub(crate) asked: Option<Time>,
    begun: Time,
    /// The other side runs Automerge's own sync, which forgets nothing that was lost while a connection lasts.
    pub(crate) is_fielded: bool,
    /// Something that it said on this connection was lost.
    pub(crate) has_lost: bool,
    /// There was no room to follow a document; everything is told anew when there is.
    missed: bool,
    /// Streams that are read no more.
    shut: BTreeSet<StreamId>,
    /// The last event said that nothing is left to say.
    pub(crate) level: bool,
    /// Documents that somebody waits for.
    pub(crate) watch: Watch,
    pub(crate) traffic: Traffic,
}

/// What shares no frame, and waits for its turn.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) entry: Entry,
    /// The hops that it may still travel, if it is passed on for a batch.
    pub(crate) hops: Option<u8>,
    /// Whether it moves content.
    pub(crate) data: bool,
}

/// How far the two sides know each other.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Membership is being proven.
    Proving(Box<Handshake>),
    /// Documents flow.
    Serving,
}

impl Conn {
    pub(crate) fn new(
        id: ConnId,
        peer: PeerId,
        link: Link,
        (phase, credential): (Phase, Credential),
        window: Window,
        limits: &Legacy,
        now: Time,
    ) -> Self {
        Self {
            id,
            peer,
            link,
            kin: None,
            phase,
            credential,
            control: VecDeque::new(),
            inlets: BTreeMap::new(),
            empty: 0,
            held: BTreeMap::new(),
            window,
            deficits: Deficits::default(),
            bucket: Bucket::new(limits.pushes_per_second, now),
            cooldown: Cooldown::default(),
            assurances: Assurances::new(usize::MAX),
            denials: Assurances::new(MOST_DENIED),
            breaker: Breaker::new(now),
            pulse: Pulse::new(limits.heartbeat, limits.partition, now),
            overhang: BTreeMap::new(),
            equal: Bits::default(),
            exchanges: BTreeMap::new(),
            names: 0,
            answers: Default::default(),
            pushes: Default::default(),
            next_age: 0,
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            cooling: BTreeSet::new(),
            push: None,
            orphans: Orphans::default(),
            buried: BTreeMap::new(),
            unsure: std::array::from_fn(|_| Some(BTreeSet::new())),
            spoilt: false,
            asked: None,
            begun: now,
            is_fielded: false,
            has_lost: false,
            missed: false,
            shut: BTreeSet::new(),
            level: false,
            watch: Watch::default(),
            traffic: Traffic::default(),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// When the connection is begun anew. What a fielded peer said and was lost, or it did not even say, it believes to have
    /// said as long as the connection lasts; between such peers the side that dialled begins anew every minute, and so
    /// nothing is missed for longer.
    pub(crate) fn renewal(&self) -> Option<Time> {
        let age = if self.has_lost { RENEWAL_AFTER_LOSS } else { RENEWAL };
        (self.is_fielded && self.link.role == Role::Dialled).then(|| self.begun + age)
    }

    /// Tells the other side of everything, or of everything that it has not been told of.
    pub(crate) fn begin_push(&mut self) {
        if self.is_serving() {
            self.push = Some(Push::default());
            self.level = false;
        }
    }

    /// Whether a document was left out for want of room, and the push has not begun that comes to it.
    pub(crate) fn misses(&self) -> bool {
        self.missed
    }

    /// Tells everything anew if something was left out, no push is under way, and there is room.
    pub(crate) fn make_up(&mut self, most: usize) {
        if self.missed && self.push.is_none() && self.exchanges.len() <= most / 2 && self.names <= MOST_NAMES / 2 {
            self.missed = false;
            self.begin_push();
        }
    }

    /// A stream is read no more.
    pub(crate) fn shut(&mut self, stream: StreamId) {
        if self.shut.len() >= MOST_SHUT {
            self.shut.pop_first();
        }
        self.shut.insert(stream);
    }

    /// Notes that a stream is over of which nothing was heard; true once there are too many.
    pub(crate) fn ended_empty(&mut self, stream: StreamId) -> bool {
        let heard = self.inlets.contains_key(&stream) || self.is_shut(stream);
        let theirs = stream.opener() != self.link.role && !heard;
        self.empty += u32::from(theirs);
        self.empty >= Link::MAX_EMPTY_STREAMS
    }

    /// Whether a stream is read no more.
    pub(crate) fn is_shut(&self, stream: StreamId) -> bool {
        self.shut.contains(&stream)
    }

    /// Other rules hold: what could not be agreed on under those before is forgotten, and everything is told anew that the
    /// other side has not been told of.
    pub(crate) fn reconsider(&mut self, class: impl Fn(&DocId) -> Class) {
        let parked = self.exchanges.iter().filter(|(_, exchange)| exchange.is_parked());
        for doc in parked.map(|(doc, _)| doc.clone()).collect::<Vec<_>>() {
            self.end_exchange(class(&doc), &doc);
        }
        self.begin_push();
    }

    /// Bytes of incomplete frames.
    pub(crate) fn receiving(&self) -> usize {
        self.inlets.values().map(|inlet| inlet.counted).sum()
    }

    /// Since when each incomplete frame waits for its rest. Streams that we hold up ourselves do not count.
    pub(crate) fn frames_since(&self) -> impl Iterator<Item = (StreamId, Time)> {
        let moving = self.inlets.iter().filter(|(id, _)| !self.held.contains_key(id));
        moving.filter_map(|(id, inlet)| Some((*id, inlet.since?)))
    }

    /// The exchange about a document, begun if there is room for one more. What is parked gives way.
    pub(crate) fn exchange(
        &mut self,
        doc: &DocId,
        class: impl Fn(&DocId) -> Class,
        most: usize,
        begin: impl FnOnce() -> Exchange,
    ) -> Option<&mut Exchange> {
        if self.exchanges.len() >= most && !self.exchanges.contains_key(doc) {
            self.missed = true;
            let parked = self.exchanges.iter().find(|(_, exchange)| exchange.is_parked());
            let parked = parked.map(|(doc, _)| doc.clone())?;
            self.end_exchange(class(&parked), &parked);
        }
        self.level = false;
        Some(self.exchanges.entry(doc.clone()).or_insert_with(|| {
            let exchange = begin();
            self.names += exchange.names();
            exchange
        }))
    }

    /// Whether an exchange may keep so many hashes that the other side names. What is parked gives way.
    pub(crate) fn has_room_for(&mut self, doc: &DocId, names: usize, class: impl Fn(&DocId) -> Class) -> bool {
        let without = |conn: &Self| conn.names.saturating_sub(conn.exchanges.get(doc).map_or(0, Exchange::names));
        if without(self) + names > MOST_NAMES {
            self.missed = true;
            let parked = self.exchanges.iter().filter(|(parked, exchange)| exchange.is_parked() && *parked != doc);
            for doc in parked.map(|(doc, _)| doc.clone()).collect::<Vec<_>>() {
                self.end_exchange(class(&doc), &doc);
            }
        }
        without(self) + names <= MOST_NAMES
    }

    /// Moves an exchange on, and keeps count of what it keeps.
    pub(crate) fn follow<T>(&mut self, doc: &DocId, step: impl FnOnce(&mut Exchange) -> T) -> Option<T> {
        let exchange = self.exchanges.get_mut(doc)?;
        let before = exchange.names();
        let outcome = step(exchange);
        self.names = (self.names + exchange.names()).saturating_sub(before);
        Some(outcome)
    }

    /// Puts an exchange into the queue for answers, or for pushes if it says something of its own accord.
    pub(crate) fn enqueue(&mut self, class: Class, doc: &DocId) {
        let Some(exchange) = self.exchanges.get_mut(doc) else { return };
        if let Some(age) = exchange.queued {
            if !exchange.initiates && self.pushes[class.index()].remove(&age).is_some() {
                self.answers[class.index()].insert(age, doc.clone());
            }
            return;
        }
        self.next_age += 1;
        exchange.queued = Some(self.next_age);
        let queues = if exchange.initiates { &mut self.pushes } else { &mut self.answers };
        queues[class.index()].insert(self.next_age, doc.clone());
    }

    /// Has an exchange pushed, at once or when its cooldown is over; true if it must wait.
    pub(crate) fn enqueue_push(&mut self, class: Class, doc: &DocId, slot: u32, now: Time) -> bool {
        match self.cooldown.until(slot, now) {
            Some(until) => self.cooling.insert((until, doc.clone())),
            None => {
                self.enqueue(class, doc);
                false
            }
        }
    }

    /// The longest-waiting exchange of a queue; it leaves it.
    pub(crate) fn dequeue(&mut self, class: Class, pushes: bool) -> Option<DocId> {
        let queues = if pushes { &mut self.pushes } else { &mut self.answers };
        let (_, doc) = queues[class.index()].pop_first()?;
        if let Some(exchange) = self.exchanges.get_mut(&doc) {
            exchange.queued = None;
        }
        Some(doc)
    }

    /// What of a class was made and goes next.
    pub(crate) fn next_made(&mut self, class: Class) -> Option<Made> {
        let waiting = self.overhang.get_mut(&class)?;
        let made = waiting.pop_front();
        if waiting.is_empty() {
            self.overhang.remove(&class);
        }
        made
    }

    /// Whether pushes may go now.
    pub(crate) fn may_push(&self) -> bool {
        self.breaker.allows() && !self.bucket.is_empty()
    }

    /// Whether something waits for leave to be pushed.
    pub(crate) fn has_pushes(&self) -> bool {
        self.pushes.iter().any(|queue| !queue.is_empty()) || self.push.is_some()
    }

    /// Whether a frame of this class can be made. A push waits while `ahead` exchanges are under way.
    pub(crate) fn has_work(&self, class: Class, ahead: usize) -> bool {
        let comes = self.push.as_ref().is_some_and(|push| push.waits(class) && self.exchanges.len() < ahead);
        self.has_queued(class) || (comes && self.may_push())
    }

    /// Whether something of this class waits to be said, the push of everything left aside.
    pub(crate) fn has_queued(&self, class: Class) -> bool {
        let pushes = self.may_push() && !self.pushes[class.index()].is_empty();
        self.overhang.contains_key(&class) || !self.answers[class.index()].is_empty() || pushes
    }

    /// Forgets an exchange and everything that hangs on it.
    pub(crate) fn end_exchange(&mut self, class: Class, doc: &DocId) {
        let Some(exchange) = self.exchanges.remove(doc) else { return };
        self.names = self.names.saturating_sub(exchange.names());
        self.watch.end(doc);
        if let Some(age) = exchange.queued {
            self.answers[class.index()].remove(&age);
            self.pushes[class.index()].remove(&age);
        }
        self.clear_timer(doc);
        self.orphans.remove(doc);
    }

    /// Leaves the last word to the other side, unless an answer is awaited.
    pub(crate) fn hush(&mut self, class: Class, doc: &DocId) {
        if self.exchanges.get(doc).is_some_and(|exchange| !exchange.is_waiting()) {
            self.end_exchange(class, doc);
        }
    }

    /// Sets when an exchange is looked at again.
    pub(crate) fn set_timer(&mut self, doc: &DocId, at: Time) {
        self.clear_timer(doc);
        if self.exchanges.contains_key(doc) {
            self.due.insert(doc.clone(), at);
            self.timers.insert((at, doc.clone()));
        }
    }

    pub(crate) fn clear_timer(&mut self, doc: &DocId) {
        if let Some(at) = self.due.remove(doc) {
            self.timers.remove(&(at, doc.clone()));
        }
    }

    /// Lets go of the timer of an exchange that waits for nothing any more.
    pub(crate) fn trim_timer(&mut self, doc: &DocId) {
        let waits = |exchange: &Exchange| exchange.is_waiting() || exchange.is_parked();
        if !self.exchanges.get(doc).is_some_and(waits) {
            self.clear_timer(doc);
        }
    }

    /// What the exchange about a document that just moved from `before` starts from; `None` when the push will come to
    /// it anyway.
    pub(crate) fn basis(
        &mut self,
        doc: &DocId,
        class: Class,
        stage: Stage,
        slot: u32,
        before: &Heads,
    ) -> Option<Exchange> {
        if self.equal.remove(slot) {
            return Some(Exchange::at(before.clone()));
        }
        match &self.push {
            Some(push) if push.comes_to(class, stage, doc) => None,
            Some(_) | None => Some(Exchange::unknown()),
        }
    }

    /// Notes that something was said of a document that nobody will confirm.
    pub(crate) fn note_unsure(&mut self, class: Class, doc: &DocId) {
        let unsure = &mut self.unsure[class.index()];
        match unsure {
            Some(docs) if docs.len() < MOST_UNSURE => drop(docs.insert(doc.clone())),
            Some(_) | None => *unsure = None,
        }
    }

    /// What of a class was said and may not have arrived, now that one of its streams broke; `None` for all of it.
    pub(crate) fn take_unsure(&mut self, class: Class) -> Option<BTreeSet<DocId>> {
        self.unsure[class.index()].replace(BTreeSet::new())
    }

    /// Bytes left the send buffer.
    pub(crate) fn sent(&mut self, now: Time, bytes: usize) {
        self.window.sent(now, bytes);
        if self.window.in_flight() > 0 {
            return;
        }
        if !std::mem::take(&mut self.spoilt) {
            self.breaker.succeeded(now);
        }
        for unsure in &mut self.unsure {
            match unsure {
                Some(docs) if docs.is_empty() => {}
                _ => *unsure = Some(BTreeSet::new()),
            }
        }
    }

    /// Puts what waits into the queues of the classes that documents have now.
    pub(crate) fn reclass(&mut self, class: impl Fn(&DocId) -> Class) {
        for queues in [&mut self.answers, &mut self.pushes] {
            let waiting = std::mem::take(queues);
            for (age, doc) in waiting.into_iter().flatten() {
                queues[class(&doc).index()].insert(age, doc);
            }
        }
    }

    pub(crate) fn stats(&self, documents: u64) -> PeerStats {
        let parked = self.exchanges.values().filter(|exchange| exchange.is_parked()).count();
        PeerStats {
            conn: self.id,
            peer: self.peer,
            role: self.link.role,
            wire: self.link.wire,
            credential: self.is_serving().then_some(self.credential),
            admitted: self.is_serving(),
            level: self.level,
            behind: documents.saturating_sub(self.equal.len()),
            left_out: 0,
            traffic: self.traffic,
            in_flight: self.window.in_flight(),
            window: self.window.size(),
            legacy: Some(LegacyPeer {
                contact: self.pulse.contact(),
                breaker: self.breaker.state(),
                parked: parked as u64,
            }),
        }
    }
}
