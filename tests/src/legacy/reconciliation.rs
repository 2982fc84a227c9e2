//! Reconciliation as coded, with the wrong roles (wire.md 7.3 to 7.5). No program starts one.

use peat_proto::{ConnId, PeerId, StreamId};

use super::frame::{Bad, Frame, NEGENTROPY_KEY, kind};
use super::library::Library;
use super::negentropy::{Side, Step};
use super::peer::LegacyPeer;
use super::streams::Own;

/// One per peer; the next local initiation overwrites it.
#[derive(Debug)]
pub(super) struct Session {
    side: Side,
    /// What the rounds so far have shown the other side to lack.
    have: Vec<String>,
}

impl<L: Library> LegacyPeer<L> {
    /// Opens a reconciliation (7.4, 1).
    pub(super) fn initiate_reconciliation(&mut self, peer: PeerId, fire_and_forget: bool) {
        let Some(conn) = self.peers.get(&peer).copied() else { return };
        let Ok(mut side) = self.side() else { return };
        let Ok(opening) = side.initiate() else { return };
        self.sessions.insert(peer, Session { side, have: Vec::new() });
        let frame = Frame::new(kind::NEGENTROPY, NEGENTROPY_KEY, opening);
        *self.stats.sent.entry(frame.kind).or_default() += 1;
        let (stays, own) = match fire_and_forget {
            true => (false, None),
            false => (true, Some(Own::Reconciliation(Vec::new()))),
        };
        self.open(conn, false, frame.encode(), !stays, !stays, own);
    }

    /// A 0x08 has arrived (7.4, 2). Answers what goes back on the same stream.
    pub(super) fn negentropy(&mut self, from: PeerId, message: &[u8]) -> Result<Vec<u8>, Bad> {
        let mut side = self.side()?;
        if self.config.warts.answers_as_initiator {
            // A second initiator, whose opening is thrown away.
            side.initiate()?;
        }
        self.sessions.insert(from, Session { side, have: Vec::new() });
        self.advance(from, message)
    }

    /// A 0x09 has arrived as the first frame of a stream (7.4, 5). Without a session a responder answers.
    pub(super) fn negentropy_reply(&mut self, from: PeerId, message: &[u8]) -> Result<Vec<u8>, Bad> {
        if !self.sessions.contains_key(&from) {
            let side = self.side()?;
            self.sessions.insert(from, Session { side, have: Vec::new() });
        }
        self.advance(from, message)
    }

    /// Something has come back on the stream of an own reconciliation (7.4, 3). Its type is not looked at.
    pub(super) fn reconciliation_received(&mut self, conn: ConnId, stream: StreamId, fin: bool) {
        let Some(of) = self.conns.get_mut(&conn) else { return };
        let peer = of.peer;
        let Some(Own::Reconciliation(read)) = of.own.get_mut(&stream) else { return };
        let reply = match Frame::read(read) {
            Ok(Some((frame, used))) => {
                read.drain(..used);
                self.advance(peer, &frame.payload).ok()
            }
            Ok(None) if !fin => return,
            _ => None,
        };
        match reply {
            Some(reply) if !reply.is_empty() => self.write(conn, stream, reply, false),
            over => {
                if over.is_none() {
                    self.stats.reconciled.1 += 1;
                }
                if let Some(of) = self.conns.get_mut(&conn) {
                    of.own.remove(&stream);
                }
                self.write(conn, stream, Vec::new(), true);
            }
        }
    }

    /// One round: the frame to answer with, or the end and the documents that the other side lacks as a batch (7.4, 4).
    fn advance(&mut self, peer: PeerId, message: &[u8]) -> Result<Vec<u8>, Bad> {
        let Some(session) = self.sessions.get_mut(&peer) else { return Ok(Vec::new()) };
        let Step { next, have, .. } = session.side.reconcile(message)?;
        session.have.extend(have);
        if let Some(next) = next {
            let frame = Frame::new(kind::NEGENTROPY_REPLY, NEGENTROPY_KEY, next);
            *self.stats.sent.entry(frame.kind).or_default() += 1;
            return Ok(frame.encode());
        }
        self.stats.reconciled.0 += 1;
        let have = self.sessions.remove(&peer).map(|session| session.have).unwrap_or_default();
        if !have.is_empty() {
            let id = self.next_batch_id();
            let batch = self.batch_of(&have, id);
            drop(self.send(peer, &batch.frame()));
        }
        Ok(Vec::new())
    }

    /// All documents as items. Each is as old as now (7.2), which is wrong.
    fn side(&self) -> Result<Side, Bad> {
        let now = if self.config.warts.items_are_new { self.now.unix_ms / 1_000 } else { 0 };
        Side::new(self.store.keys().map(|key| (key.as_str(), now)))
    }
}
