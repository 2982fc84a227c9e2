//! A connection's streams, as the session of `peat-node` wants them.

use bytes::{Bytes, BytesMut};
use peat_node::proto::StreamId;
use peat_node::transport::session::{Read, Streams, Written};
use quinn_proto::{Connection, Dir, ReadError, Side, StreamId as QuicId, VarInt, WriteError};

/// The streams of this connection.
pub(crate) struct StreamsOf<'a>(pub(crate) &'a mut Connection);

impl StreamsOf<'_> {
    /// Whether this side writes on a stream, and whether it reads it.
    fn directions(&self, id: QuicId) -> (bool, bool) {
        let (both, ours) = (id.dir() == Dir::Bi, id.initiator() == self.0.side());
        (both || ours, both || !ours)
    }

    /// What this side writes goes so many steps behind the most urgent.
    fn set_urgency(&mut self, id: QuicId, urgency: usize) {
        let urgency = i32::try_from(urgency).unwrap_or(i32::MAX);
        // Fails only where the stream is gone.
        let _ = self.0.send_stream(id).set_priority(-urgency);
    }

    /// What was not sent will not be, because nobody reads it.
    fn give_up(&mut self, id: QuicId) {
        // Fails only where the stream is forgotten already.
        let _ = self.0.send_stream(id).reset(VarInt::from_u32(0));
    }
}

impl Streams for StreamsOf<'_> {
    fn open(&mut self, bidirectional: bool, urgency: usize) -> Option<StreamId> {
        let dir = if bidirectional { Dir::Bi } else { Dir::Uni };
        let id = self.0.streams().open(dir)?;
        self.set_urgency(id, urgency);
        Some(StreamId(id.into()))
    }

    fn accept(&mut self) -> Option<StreamId> {
        let mut streams = self.0.streams();
        let id = streams.accept(Dir::Uni).or_else(|| streams.accept(Dir::Bi))?;
        if id.dir() == Dir::Bi {
            self.set_urgency(id, 0);
        }
        Some(StreamId(id.into()))
    }

    fn defer(&mut self, stream: StreamId, urgency: usize) {
        let id = quic(stream);
        if self.directions(id).0 {
            self.set_urgency(id, urgency);
        }
    }

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes) -> Written {
        let id = quic(stream);
        if !self.directions(id).0 {
            return Written::Broken;
        }
        while !bytes.is_empty() {
            let mut chunks = [std::mem::take(bytes)];
            let written = self.0.send_stream(id).write_chunks(&mut chunks);
            [*bytes] = chunks;
            match written {
                Ok(_) => {}
                Err(WriteError::Blocked) => return Written::Blocked,
                Err(WriteError::Stopped(_)) => {
                    self.give_up(id);
                    return Written::Broken;
                }
                Err(WriteError::ClosedStream) => return Written::Broken,
            }
        }
        Written::All
    }

    fn finish(&mut self, stream: StreamId) {
        let id = quic(stream);
        if self.directions(id).0 && self.0.send_stream(id).finish().is_err() {
            self.give_up(id);
        }
    }

    fn is_stopped(&mut self, stream: StreamId) -> bool {
        let id = quic(stream);
        let stopped = !self.directions(id).0 || !matches!(self.0.send_stream(id).stopped(), Ok(None));
        if stopped && self.directions(id).0 {
            self.give_up(id);
        }
        stopped
    }

    fn read(&mut self, stream: StreamId, most: usize, bytes: &mut BytesMut) -> Read {
        let id = quic(stream);
        if !self.directions(id).1 {
            return Read::Gone;
        }
        let mut incoming = self.0.recv_stream(id);
        let Ok(mut chunks) = incoming.read(true) else { return Read::Gone };
        let full = bytes.len() + most;
        let outcome = loop {
            if bytes.len() >= full {
                break Read::More;
            }
            match chunks.next(full - bytes.len()) {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => break Read::End,
                Err(ReadError::Blocked) => break Read::Blocked,
                Err(ReadError::Reset(_)) => break Read::Reset,
            }
        };
        // Whatever follows from it is sent with the rest of the turn.
        let _ = chunks.finalize();
        outcome
    }

    fn stop(&mut self, stream: StreamId, code: u32) {
        let id = quic(stream);
        if self.directions(id).1 {
            // Fails only where the stream has ended already.
            let _ = self.0.recv_stream(id).stop(VarInt::from_u32(code));
        }
    }
}

/// A stream's number is the same on both sides of the seam (RFC 9000, 2.1).
fn quic(stream: StreamId) -> QuicId {
    let side = if stream.0 & 1 == 0 { Side::Client } else { Side::Server };
    let dir = if stream.0 & 2 == 0 { Dir::Bi } else { Dir::Uni };
    QuicId::new(side, dir, stream.0 >> 2)
}
