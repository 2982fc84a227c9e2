//! What leaves on a connection: made when it can be sent, from what holds then.

use std::ops::Bound;

use bytes::Bytes;

use super::Node;
use crate::doc::View;
use crate::doc::document::Offer;
use crate::doc::scopes::Scope;
use crate::id::{ConnId, DocId};
use crate::io::{Lane, Output};
use crate::peer::connection::{CONTROL_BYTES, Conn};
use crate::policy::Class;
use crate::request::SyncOutcome;
use crate::sync::backlog::Backlog;
use crate::sync::exchange::{Exchange, Message, Rights, Room, Step};
use crate::sync::pieces::Transfer;
use crate::wire::v1::{Body, EntriesBuilder, Entry, Form, Hello, Refused, Saved, Word};

/// Documents that a list passes over in one go without finding one to name.
const LIST_STEP: usize = 1024;

/// Exchanges that a push to an empty peer keeps under way: their documents are loaded and sent meanwhile.
const PUSH_AHEAD: usize = 128;

/// Bytes of entries from which on they are compressed: less gains nothing.
const WORTH_PACKING: usize = 1 << 10;

/// How much larger than a frame entries may be that compress well.
const MAX_RATIO: usize = 4;

/// Bytes that the head of an entry takes beside its name and a piece.
const PIECE_HEAD: usize = 64;

/// The smallest piece, unless it is the last: 1 KiB, so that heads stay below a tenth. Smaller wholes are not divided.
const PIECE_MIN: usize = 1 << 10;

impl Node {
    /// The next frame that has credit, if any: connections in turn, within one the most important class whose share is
    /// not used up.
    pub(super) fn next_frame(&mut self) -> Option<Output> {
        let mut id = self.turn;
        for _ in 0..self.conns.len() {
            id = self.behind(id)?;
            let Some((lane, frame, data)) = self.frame_for(id) else { continue };
            self.turn = id;
            let conn = self.conns.get_mut(&id)?;
            conn.rested = None;
            conn.window.send(self.now.mono, frame.len(), lane == Lane::Control);
            for traffic in [&mut conn.traffic, &mut self.stats.traffic] {
                traffic.frames_sent += 1;
                traffic.bytes_sent += frame.len() as u64;
                traffic.data_sent += u64::from(data);
            }
            return Some(Output::Send { conn: id, lane, frame });
        }
        None
    }

    /// The connection behind this one, the first behind the last.
    fn behind(&self, id: ConnId) -> Option<ConnId> {
        let behind = (Bound::Excluded(id), Bound::Unbounded);
        let next = self.conns.range(behind).next().or_else(|| self.conns.first_key_value());
        next.map(|(id, _)| *id)
    }

    /// Exchanges that a push keeps under way.
    pub(super) fn push_ahead(&self) -> usize {
        PUSH_AHEAD.min(self.config.max_exchanges)
    }

    fn frame_for(&mut self, id: ConnId) -> Option<(Lane, Bytes, bool)> {
        let conn = self.conns.get_mut(&id)?;
        let serving = conn.is_serving();
        if conn.window.is_open_for_control(CONTROL_BYTES) {
            if let Some(frame) = conn.control.pop_front() {
                return Some((Lane::Control, frame, false));
            }
            if serving {
                if conn.says_summary(self.now.mono) && self.docs.scopes.is_complete() {
                    let ours = self.ours(self.conns.get(&id)?);
                    let summary = self.conns.get_mut(&id)?.survey.say(&ours);
                    return Some((Lane::Control, summary.frame(), false));
                }
                self.pursue(id);
                if let Some(frame) = self.compare_frame(id) {
                    return Some((Lane::Control, frame, false));
                }
            }
        }
        if !serving || !self.conns.get(&id)?.window.is_open() {
            return None;
        }
        loop {
            self.pursue(id);
            let most = self.push_ahead();
            let conn = self.conns.get_mut(&id)?;
            let class = conn.deficits.pick(|class| conn.has_work(class, most))?;
            if let Some((frame, data)) = self.class_frame(id, class) {
                let conn = self.conns.get_mut(&id)?;
                let waits: Vec<Class> = Class::ALL.into_iter().filter(|class| conn.has_work(*class, most)).collect();
                conn.deficits.charge(&self.docs.policy().shares(), class, frame.len(), |class| waits.contains(&class));
                return Some((Lane::Class(class), frame, data));
            }
        }
    }

    /// One frame of one class: what its exchanges have to say, then the list, then a piece of what is large.
    fn class_frame(&mut self, id: ConnId, class: Class) -> Option<(Bytes, bool)> {
        let conn = self.conns.get_mut(&id)?;
        let target = conn.window.frame_bytes(self.config.frame_bytes);
        let packs = conn.handshake.peer().is_some_and(|hello| hello.abilities & Hello::PACKED != 0);
        let budget = if packs { target * conn.ratio.clamp(16, 16 * MAX_RATIO) / 16 } else { target };
        let moving = conn.transfers.contains_key(&class);
        // What is large shares the frame with what is not.
        let room = if moving { budget / 2 } else { budget };
        let mut filling = Filling { builder: EntriesBuilder::new(usize::MAX), limit: budget, data: false };
        if let Some(entry) = conn.overhang.remove(&class) {
            if self.docs.is_marked(&entry.doc) && !matches!(entry.body, Body::Marker(_)) {
                // It has been deleted since, and is not said to be alive.
                conn.enqueue(class, &entry.doc);
            } else {
                filling.data = true;
                filling.append(&entry);
            }
        }
        while filling.builder.body().len() < room {
            let Some(doc) = self.conns.get_mut(&id)?.dequeue(class) else { break };
            if let Some(entry) = self.receipt(id, &doc) {
                filling.append(&entry);
            }
            let Some((body, data)) = self.speak(id, class, &doc, target) else { continue };
            let entry = Entry { doc, body };
            if !filling.push(&entry) {
                // It goes first in the next frame.
                self.conns.get_mut(&id)?.overhang.insert(class, entry);
                break;
            }
            filling.data |= data;
            if let Body::Word(Word { asks: true, .. }) = entry.body
                && let Some(remains) = self.remains(id, &entry.doc)
            {
                filling.append(&remains);
            }
        }
        if filling.builder.body().len() < room && !self.conns.get(&id)?.overhang.contains_key(&class) {
            self.list(id, class, room, &mut filling);
        }
        self.add_piece(id, class, target, &mut filling);
        self.close_frame(id, packs, filling)
    }

    fn close_frame(&mut self, id: ConnId, packs: bool, filling: Filling) -> Option<(Bytes, bool)> {
        if filling.builder.is_empty() {
            return None;
        }
        let body = filling.builder.body();
        if packs && body.len() >= WORTH_PACKING {
            let packed = self.packer.pack(body);
            let ratio = packed.as_ref().map_or(16, |frame| body.len() * 16 / frame.len().max(1));
            if let Some(conn) = self.conns.get_mut(&id) {
                // Down at once, up halfway: too much in a frame is worse than too little.
                conn.ratio = if ratio < conn.ratio { ratio } else { (conn.ratio + ratio) / 2 };
            }
            if let Some(frame) = packed {
                return Some((frame, filling.data));
            }
        }
        Some((filling.builder.frame(), filling.data))
    }

    /// What one exchange says now, if anything.
    fn speak(&mut self, id: ConnId, class: Class, doc: &DocId, target: usize) -> Option<(Body, bool)> {
        let conn = self.conns.get(&id)?;
        if conn.transfers.get(&class).is_some_and(|(moving, _)| moving == doc) {
            if !self.docs.is_marked(doc) {
                return self.speak_beside(id, class, doc);
            }
            // It was deleted meanwhile: that is said in place of the rest.
            self.conns.get_mut(&id)?.end_transfer(class);
        }
        let conn = self.conns.get(&id)?;
        let rights = self.rights(conn, doc);
        let largest = conn.handshake.peer().map_or(0, |hello| hello.largest);
        let largest = self.config.max_snapshot.min(usize::try_from(largest).unwrap_or(usize::MAX));
        let conn = self.conns.get_mut(&id)?;
        let keeps = conn.backlogs.len() < Backlog::DOCUMENTS || conn.backlogs.contains(doc);
        let backlog = if keeps { Backlog::BYTES } else { 0 };
        let exchange = conn.exchanges.get_mut(doc)?;
        let view = self.docs.view(doc);
        let is_copy = matches!(view, View::Stored(..));
        let step = exchange.step(&view, rights, Room { frame: target, largest, backlog });
        self.stats.walks += exchange.take_walks();
        let keeps = exchange.backlog() > 0;
        if is_copy {
            self.docs.drop_copy(doc);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.recount(doc);
            if keeps {
                conn.backlogs.insert(doc.clone())
            } else {
                conn.backlogs.remove(doc)
            };
        }
        match step {
            Step::Settled => self.settle_exchange(id, class, doc),
            Step::SayAndSettle(message) => {
                if let Some((form, whole)) = large(&message, target) {
                    self.transfer(id, class, doc, form, whole);
                    return None;
                }
                self.settle_exchange(id, class, doc);
                return Some(body_of(message));
            }
            Step::SayAndEnd(message) => {
                let conn = self.conns.get_mut(&id)?;
                if let Message::Marker(_) = message {
                    conn.watch.note(doc, SyncOutcome::Sent);
                }
                conn.end_exchange(class, doc);
                return Some(body_of(message));
            }
            Step::Done => self.conns.get_mut(&id)?.end_exchange(class, doc),
            Step::Say { message, expects, more } => {
                self.docs.touch(doc);
                if let Some((form, whole)) = large(&message, target) {
                    self.transfer(id, class, doc, form, whole);
                    // What is asked beside it does not wait for it.
                    return match message {
                        Message::Word(word) if word.asks => {
                            Some((Body::Word(Word { changes: Vec::new(), ..word }), false))
                        }
                        _ => None,
                    };
                }
                self.expect_answer(id, doc, expects);
                if more {
                    self.conns.get_mut(&id)?.enqueue(class, doc);
                }
                return Some(body_of(message));
            }
            Step::Wait => {}
            Step::NeedContent => self.docs.await_content(doc, id),
            Step::NeedStored => self.docs.await_stored(doc, id),
            Step::NeedSaved => self.docs.await_saved(doc, id),
            Step::Hopeless => {
                let conn = self.conns.get_mut(&id)?;
                conn.end_exchange(class, doc);
                conn.survey.spoil();
            }
        }
        None
    }

    /// What is said of a document that is being sent in pieces: all of them first, and then their answer. But they may be
    /// sending it too, and wait for ours.
    fn speak_beside(&mut self, id: ConnId, class: Class, doc: &DocId) -> Option<(Body, bool)> {
        let ours = &self.docs.get(doc)?.offered;
        match self.conns.get_mut(&id)?.exchanges.get_mut(doc)?.answer(ours) {
            Step::Settled => {
                self.settle_exchange(id, class, doc);
                None
            }
            Step::SayAndSettle(message) => {
                self.settle_exchange(id, class, doc);
                Some(body_of(message))
            }
            Step::Say { message, .. } => Some(body_of(message)),
            _ => None,
        }
    }

    /// Which way changes of a document may go.
    fn rights(&self, conn: &Conn, doc: &DocId) -> Rights {
        let (plan, scope) = (conn.survey.plan(), self.scope(doc));
        let (shared, policy) = (plan.shared.contains(scope), self.docs.policy().of(doc));
        Rights {
            sends: shared || plan.outward.contains(scope),
            takes: (shared || plan.inward.contains(scope)) && self.may_take(conn.id, &policy).is_ok(),
        }
    }

    /// Sets the deadline for an answer, if there is to be one.
    fn expect_answer(&mut self, id: ConnId, doc: &DocId, expects: bool) {
        let Some(conn) = self.conns.get(&id) else { return };
        let tries = conn.exchanges.get(doc).map_or(0, |exchange| exchange.tries);
        let deadline = expects.then(|| self.now.mono + self.patience(conn, tries));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.set_deadline(doc, deadline);
        }
    }

    /// Begins to send a whole in pieces, or waits for its turn.
    fn transfer(&mut self, id: ConnId, class: Class, doc: &DocId, form: Form, whole: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.transfers.contains_key(&class) {
            if let Some(exchange) = conn.exchanges.get_mut(doc) {
                exchange.take_back();
            }
            conn.set_deadline(doc, None);
            conn.deferred.entry(class).or_default().insert(doc.clone());
            return;
        }
        let mut transfer = Transfer::new(form, whole);
        if let Some(held) = conn.exchanges.get(doc).and_then(|exchange| exchange.held) {
            transfer.heard(&held);
        }
        conn.transfers.insert(class, (doc.clone(), transfer));
        self.expect_answer(id, doc, true);
    }

    /// The next piece of what is large, as far as there is room for it.
    fn add_piece(&mut self, id: ConnId, class: Class, target: usize, filling: &mut Filling) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some((doc, transfer)) = conn.transfers.get_mut(&class) else { return };
        let doc = doc.clone();
        if self.docs.is_marked(&doc) {
            conn.end_transfer(class);
            return conn.enqueue(class, &doc);
        }
        let room = target.saturating_sub(filling.builder.body().len()).max(target / 2);
        let most = room.saturating_sub(PIECE_HEAD + doc.as_str().len()).max(PIECE_MIN);
        let Some(piece) = transfer.next(most) else { return };
        let done = transfer.is_sent();
        filling.data = true;
        filling.append(&Entry { doc: doc.clone(), body: Body::Piece(piece) });
        self.expect_answer(id, &doc, true);
        if let Some(conn) = self.conns.get_mut(&id)
            && done
            && conn.link.reliable
        {
            conn.end_transfer(class);
            // There may be more than was in the whole.
            conn.enqueue(class, &doc);
        }
    }

    fn settle_exchange(&mut self, id: ConnId, class: Class, doc: &DocId) {
        let slot = self.docs.get(doc).map(|document| document.slot);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.end_exchange(class, doc);
            if let Some(slot) = slot {
                conn.equal.insert(slot);
            }
        }
    }

    /// Names what we have of documents that the other side may not have, from where the list stopped.
    fn list(&mut self, id: ConnId, class: Class, room: usize, filling: &mut Filling) {
        let (most, push_ahead) = (self.config.max_exchanges, self.push_ahead());
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(mut listing) = conn.survey.listing.take() else { return };
        let mut steps = 0;
        let mut begun = Vec::new();
        if listing.waits(class) {
            let behind = listing.behind(class).cloned();
            let mut rest = self.docs.after(class, behind.as_ref());
            loop {
                if filling.builder.body().len() >= room || steps >= LIST_STEP {
                    break;
                }
                if !listing.push.is_empty() && conn.exchanges.len() + begun.len() >= push_ahead {
                    break;
                }
                let Some((doc, document)) = rest.next() else {
                    listing.finish(class);
                    break;
                };
                steps += 1;
                let scope = Scope::of(document.offer(), &self.docs.policy().of(doc));
                let known = conn.equal.contains(document.slot) || conn.exchanges.contains_key(doc);
                let pushed = scope.is_some_and(|scope| listing.push.contains(scope));
                let named = scope.is_some_and(|scope| listing.names.contains(scope));
                if !known && !conn.survey.excluded.contains(doc) {
                    if pushed {
                        begun.push(doc.clone());
                    } else if named
                        && let Some(body) = statement(document.offer())
                        && !filling.push(&Entry { doc: doc.clone(), body })
                    {
                        break;
                    }
                }
                listing.advance(class, doc.clone());
            }
        }
        let quiet = conn.link.reliable;
        for doc in begun {
            let cut_off = self.interrupted.take(conn.peer, &doc);
            let begin = || if cut_off { Exchange::unknown() } else { Exchange::push(quiet) };
            if conn.exchange(&doc, most, begin).is_some() {
                conn.enqueue(class, &doc);
            }
        }
        if !listing.is_done() {
            conn.survey.listing = Some(listing);
        }
    }
}

/// Entries of one frame.
struct Filling {
    builder: EntriesBuilder,
    /// Bytes of all of them, unless there is only one.
    limit: usize,
    /// They carry changes or whole documents.
    data: bool,
}

impl Filling {
    /// Appends an entry if it fits, or is the first one; whether it did.
    #[must_use]
    fn push(&mut self, entry: &Entry) -> bool {
        let held = self.builder.body().len();
        (held == 0 || held + entry.encoded_len() <= self.limit) && self.builder.push(entry)
    }

    /// Appends what is small whatever the limit.
    fn append(&mut self, entry: &Entry) {
        let fits = self.builder.push(entry);
        debug_assert!(fits, "a frame takes 1 MiB, and its limit is far below");
    }
}

/// What is too large to share a frame with anything.
fn large(message: &Message, target: usize) -> Option<(Form, Bytes)> {
    let target = target.max(PIECE_MIN);
    match message {
        Message::Whole(whole, _) if whole.len() > target => Some((Form::Saved, whole.clone())),
        Message::Word(Word { changes, .. }) => match changes.as_slice() {
            [change] if change.len() > target => Some((Form::Changes, change.clone())),
            _ => None,
        },
        Message::Whole(..) | Message::Marker(_) | Message::Refused(..) => None,
    }
}

/// The body of an entry, and whether it carries changes or a whole document.
fn body_of(message: Message) -> (Body, bool) {
    match message {
        Message::Word(word) => {
            let data = !word.changes.is_empty();
            (Body::Word(word), data)
        }
        Message::Whole(bytes, answer) => (Body::Saved(Saved { answer, bytes }), true),
        Message::Marker(marker) => (Body::Marker(marker), true),
        Message::Refused(reason, heads) => (Body::Refused(Refused { reason: reason.code(), heads }), false),
    }
}

/// Says what we have, and wants no answer.
fn statement(offer: Offer<'_>) -> Option<Body> {
    match offer {
        Offer::Nothing => None,
        Offer::Heads(heads) => Some(Body::Word(Word { heads: heads.clone(), ..Word::default() })),
        Offer::Marker(marker) => Some(Body::Marker(marker.encode().into())),
    }
}
