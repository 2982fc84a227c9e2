//! What becomes of the bytes on streams (wire.md 3).

use peat_proto::{ConnId, PeerId, StreamId};

use super::config::Family;
use super::frame::{Bad, Frame, kind, read_heartbeat};
use super::io::Output;
use super::library::Library;
use super::peer::LegacyPeer;

/// A stream that the other side opened.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    read: Vec<u8>,
    fin: bool,
    /// A frame of it is being dealt with.
    busy: bool,
    /// Whatever still comes is dropped.
    done: bool,
}

/// A stream of ours on which something is to come back.
#[derive(Debug)]
pub(super) enum Own {
    Handshake,
    /// A persistent channel (3).
    Channel,
    /// An interactive reconciliation.
    Reconciliation(Vec<u8>),
}

/// Why a message was not sent. None of it is tried again (11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Offline,
    Silent,
    Missing,
    Limited,
    Cooling,
    CutOff,
    Oversized,
}

impl<L: Library> LegacyPeer<L> {
    pub(super) fn received(&mut self, id: ConnId, stream: StreamId, bytes: &[u8], fin: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (role, peer) = (conn.role, conn.peer);
        if stream.opener() == role {
            match conn.own.get_mut(&stream) {
                Some(Own::Handshake) => self.prove(id, stream, bytes, fin),
                Some(Own::Channel) => self.channel_received(peer, bytes, fin),
                Some(Own::Reconciliation(read)) => {
                    read.extend_from_slice(bytes);
                    self.reconciliation_received(id, stream, fin);
                }
                None => {}
            }
        } else if stream == StreamId(0) && self.config.auth.is_some() {
            // The first bidirectional stream of the dialler belongs to the handshake.
            if self.is_proving(id) {
                self.prove(id, stream, bytes, fin);
            }
        } else {
            let inbound = conn.inbound.entry(stream).or_default();
            inbound.fin |= fin;
            if !inbound.done {
                inbound.read.extend_from_slice(bytes);
            }
            if conn.accepting {
                self.read(id, stream);
            }
        }
    }

    pub(super) fn reset(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (role, peer) = (conn.role, conn.peer);
        if stream.opener() != role {
            if let Some(inbound) = conn.inbound.get_mut(&stream).filter(|inbound| !inbound.done) {
                (inbound.done, inbound.fin) = (true, true);
                self.stats.malformed += 1;
                self.write(id, stream, Vec::new(), true);
            }
            return;
        }
        match conn.own.get(&stream) {
            Some(Own::Handshake) => self.prove(id, stream, &[], true),
            Some(Own::Channel) => self.channel_received(peer, &[], true),
            Some(Own::Reconciliation(_)) => self.reconciliation_received(id, stream, true),
            None => {}
        }
    }

    /// The other side reads no more. It says so with code 0 after every frame, so only a stream that was to stay matters.
    pub(super) fn stopped(&mut self, id: ConnId, stream: StreamId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let peer = conn.peer;
        if conn.writer == Some(stream) {
            conn.writer = None;
            self.write(id, stream, Vec::new(), true);
        } else if matches!(conn.own.get(&stream), Some(Own::Channel)) {
            self.channel_received(peer, &[], true);
        }
    }

    /// Reads what has come on a stream of the other side.
    pub(super) fn read(&mut self, id: ConnId, stream: StreamId) {
        if !stream.is_bidirectional() {
            return self.read_heartbeat(id, stream);
        }
        loop {
            let one = self.config.warts.one_frame_per_stream;
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let peer = conn.peer;
            let Some(inbound) = conn.inbound.get_mut(&stream).filter(|inbound| !inbound.done && !inbound.busy) else {
                return;
            };
            match Frame::read(&inbound.read) {
                Ok(Some((frame, used))) => {
                    inbound.read.drain(..used);
                    inbound.busy = true;
                    let fin = inbound.fin;
                    if one && !fin {
                        // The receiving half is dropped before the frame is dealt with, the sending half behind it.
                        self.outputs.push_back(Output::Stop { conn: id, stream });
                    }
                    *self.stats.received.entry(frame.kind).or_default() += 1;
                    let reply = self.frame(id, stream, peer, frame);
                    if self.aborted {
                        return;
                    }
                    if let Some(reply) = reply {
                        self.dealt_with(id, stream, reply);
                    }
                }
                Ok(None) if inbound.fin => {
                    let cut = one || !inbound.read.is_empty();
                    self.stats.malformed += u64::from(cut);
                    return self.end(id, stream);
                }
                Ok(None) => return,
                Err(_) => {
                    self.stats.malformed += 1;
                    return self.end(id, stream);
                }
            }
        }
    }

    /// A frame is dealt with: what it is answered with on its own stream, and the end of that stream.
    pub(super) fn dealt_with(&mut self, id: ConnId, stream: StreamId, reply: Vec<u8>) {
        let one = self.config.warts.one_frame_per_stream;
        let Some(inbound) = self.conns.get_mut(&id).and_then(|conn| conn.inbound.get_mut(&stream)) else { return };
        inbound.busy = false;
        if one {
            inbound.done = true;
            inbound.read.clear();
            self.write(id, stream, reply, true);
        } else if !reply.is_empty() {
            self.write(id, stream, reply, false);
        }
    }

    /// Drops both halves.
    fn end(&mut self, id: ConnId, stream: StreamId) {
        let Some(inbound) = self.conns.get_mut(&id).and_then(|conn| conn.inbound.get_mut(&stream)) else { return };
        inbound.done = true;
        inbound.read.clear();
        if !inbound.fin {
            self.outputs.push_back(Output::Stop { conn: id, stream });
        }
        self.write(id, stream, Vec::new(), true);
    }

    /// The host runtime reads heartbeats; the node binary never accepts a unidirectional stream (8).
    fn read_heartbeat(&mut self, id: ConnId, stream: StreamId) {
        if self.config.family == Family::NodeBinary {
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let peer = conn.peer;
        let Some(inbound) = conn.inbound.get_mut(&stream).filter(|inbound| !inbound.done) else { return };
        let outcome = match read_heartbeat(&inbound.read) {
            Ok(None) if inbound.fin => Err(Bad::Truncated),
            Ok(None) => return,
            Ok(Some(_)) => Ok(()),
            Err(bad) => Err(bad),
        };
        inbound.done = true;
        if !inbound.fin {
            self.outputs.push_back(Output::Stop { conn: id, stream });
        }
        match outcome {
            Ok(()) => self.stats.heartbeats.1 += u64::from(self.hearts.contains(&peer)),
            Err(_) => self.stats.malformed += 1,
        }
    }

    /// Deals with a frame. Answers what is written on its stream before that ends; `None` if that is for later.
    fn frame(&mut self, id: ConnId, stream: StreamId, from: PeerId, frame: Frame) -> Option<Vec<u8>> {
        let size = frame.size() as u64;
        let outcome = match frame.kind {
            kind::DELTA => self.delta(from, &frame.key, &frame.payload, size),
            kind::SNAPSHOT => self.snapshot(from, &frame.key, &frame.payload, size),
            kind::TOMBSTONE => self.tombstone(from, &frame.payload, size, true),
            kind::TOMBSTONE_BATCH => self.tombstones(from, &frame.payload, size),
            // 6.3: as an empty batch of markers.
            kind::ACK => {
                self.stats.bytes_received += size;
                Ok(())
            }
            kind::BATCH => match self.batch(id, stream, from, &frame.payload, size) {
                Ok(()) => return None,
                Err(bad) => Err(bad),
            },
            kind::NEGENTROPY => match self.negentropy(from, &frame.payload) {
                Ok(reply) => return Some(reply),
                Err(bad) => Err(bad),
            },
            _ => match self.negentropy_reply(from, &frame.payload) {
                Ok(reply) => return Some(reply),
                Err(bad) => Err(bad),
            },
        };
        if let Err(bad) = outcome {
            self.refused(from, bad);
        }
        Some(Vec::new())
    }

    /// A message could not be read.
    pub(super) fn refused(&mut self, from: PeerId, bad: Bad) {
        self.stats.malformed += 1;
        match bad {
            Bad::Abort => self.aborted = true,
            // FIELD-3.
            Bad::Automerge if self.config.warts.bad_documents_fail => self.report(from, false),
            _ => {}
        }
    }

    /// Sends a frame to a peer: on a stream of its own, or on the long-lived one of rc.25.
    pub(super) fn send(&mut self, peer: PeerId, frame: &Frame) -> Result<(), Failure> {
        let Some(conn) = self.peers.get(&peer).copied().filter(|conn| self.conns.contains_key(conn)) else {
            self.stats.offline += 1;
            return Err(Failure::Offline);
        };
        *self.stats.sent.entry(frame.kind).or_default() += 1;
        if frame.kind == kind::DELTA {
            self.stats.last_delta = frame.payload.len();
        }
        let bytes = frame.encode();
        if !self.config.persistent {
            self.open(conn, false, bytes, true, true, None);
        } else if let Some(stream) = self.conns.get(&conn).and_then(|conn| conn.writer) {
            self.write(conn, stream, bytes, false);
        } else {
            let stream = self.open(conn, false, bytes, false, false, None);
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.writer = stream;
            }
        }
        Ok(())
    }
}
