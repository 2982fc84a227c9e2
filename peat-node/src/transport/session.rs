//! What every QUIC adapter does with the streams of one connection, whatever library moves the packets.
//!
//! A [`Session`] takes what the node wants done, and is pumped whenever the library may have got further. It writes
//! frames on their lanes, the most urgent first, reads as far as there is credit, and tells the node what came of it.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use peat_proto::policy::Class;
use peat_proto::{CloseCode, Lane, Link, Role, StreamId};

use super::limits::{MAX_STREAMS, READ_BYTES, STREAM_CREDIT};
use super::{Conn, Outgoing};

/// The lane whose urgency long replies on the streams of the other side have: the least, because only answers about whole
/// sets are long. Where they and its frames wait for room, they go first.
const REPLIES: Lane = Lane::Class(Class::Bulk);

/// Bytes of the longest reply that goes before everything else: greetings and verdicts, of 200 B at most, for which the other
/// side waits before it does anything.
const SHORT_REPLY: usize = 1 << 10;

/// A connection's streams, as a QUIC library offers them. No call waits: what cannot go on now says so, and the adapter
/// pumps the session again once it may.
pub trait Streams {
    /// Opens a stream whose data goes `urgency` steps behind the most urgent; `None` until the other side allows one more.
    fn open(&mut self, bidirectional: bool, urgency: usize) -> Option<StreamId>;

    /// The next stream that the other side has opened. What is replied on it is most urgent, unless [`Self::defer`] says
    /// otherwise.
    fn accept(&mut self) -> Option<StreamId>;

    /// What this side has written on a stream and will write goes `urgency` steps behind the most urgent.
    fn defer(&mut self, stream: StreamId, urgency: usize);

    /// Takes as much off the front of `bytes` as the send buffer has room for.
    fn write(&mut self, stream: StreamId, bytes: &mut Bytes) -> Written;

    /// Ends what this side writes on a stream; it is not named again but for reading.
    fn finish(&mut self, stream: StreamId);

    /// Whether the other side has stopped reading a stream; if so, it is not named again but for reading.
    fn is_stopped(&mut self, stream: StreamId) -> bool;

    /// Appends at most `most` bytes of a stream, copied out of their packets so that they keep nothing else in memory.
    fn read(&mut self, stream: StreamId, most: usize, bytes: &mut BytesMut) -> Read;

    /// Stops reading a stream, and tells its sender why.
    fn stop(&mut self, stream: StreamId, code: u32);
}

/// What writing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of it is in the send buffer.
    All,
    /// The rest must wait.
    Blocked,
    /// The other side has stopped reading, or the stream is gone.
    Broken,
}

/// What reading came to, behind the bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// As much as was asked for was there.
    More,
    /// No more has come yet.
    Blocked,
    /// The sender has ended the stream.
    End,
    /// The stream was reset.
    Reset,
    /// The connection is lost, or the stream was stopped.
    Gone,
}

/// The streams of one connection, and what waits for them. What waits is bounded by the core, which counts frames and
/// replies until they are sent.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    role: Role,
    lasting: [Lasting; Lane::LASTING.len()],
    /// Frames with a stream of their own, by urgency and age.
    singles: BTreeMap<(usize, u64), Single>,
    /// Frames that have had a stream of their own.
    next_single: u64,
    replies: BTreeMap<StreamId, VecDeque<Reply>>,
    incoming: BTreeMap<StreamId, Incoming>,
    /// Streams of the other side that were over before anything had come.
    empty: u32,
    /// Bytes that the node has not taken of each incoming stream that is over.
    ended: BTreeMap<StreamId, usize>,
    /// Where incoming bytes are put together. Those that were handed on share its memory until it is full.
    buffer: BytesMut,
}

/// A lane that is one long-lived stream, opened by the first frame and again by the first after a stop.
#[derive(Debug, Default)]
struct Lasting {
    stream: Option<StreamId>,
    frames: VecDeque<Frame>,
}

#[derive(Debug)]
struct Single {
    lane: Lane,
    stream: Option<StreamId>,
    frame: Frame,
}

#[derive(Debug)]
struct Incoming {
    /// Bytes that may still be read.
    room: usize,
    /// Nothing has come yet.
    is_empty: bool,
}

#[derive(Debug)]
struct Reply {
    frame: Frame,
    fin: bool,
}

/// Bytes on their way into the send buffer.
#[derive(Debug)]
struct Frame {
    length: usize,
    rest: Bytes,
}

impl Session {
    /// The session of an announced connection, on which side of it this is.
    #[must_use]
    pub fn new(conn: Conn, role: Role) -> Self {
        let lasting = Lane::LASTING.map(|_| Lasting::default());
        let (singles, replies) = (BTreeMap::new(), BTreeMap::new());
        let (incoming, ended) = (BTreeMap::new(), BTreeMap::new());
        let (next_single, empty, buffer) = (0, 0, BytesMut::new());
        Self { conn, role, lasting, singles, next_single, replies, incoming, empty, ended, buffer }
    }

    /// The node's end of the connection.
    #[must_use]
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Takes in what the node wants done; [`Self::pump`] carries it out. The code if that is to close the connection.
    pub fn take(&mut self, outgoing: Outgoing, streams: &mut impl Streams) -> Option<CloseCode> {
        match outgoing {
            Outgoing::Frame { lane: lane @ (Lane::Control | Lane::Class(_)), frame } => {
                self.lasting[lane.index()].frames.push_back(Frame::new(frame));
            }
            Outgoing::Frame { lane, frame } => {
                let single = Single { lane, stream: None, frame: Frame::new(frame) };
                self.singles.insert((lane.index(), self.next_single), single);
                self.next_single += 1;
            }
            Outgoing::Reply { stream, bytes, fin } => {
                if bytes.len() > SHORT_REPLY {
                    streams.defer(stream, REPLIES.index());
                }
                self.replies.entry(stream).or_default().push_back(Reply { frame: Frame::new(bytes), fin });
            }
            Outgoing::Credit { stream, bytes } => {
                if let Some(incoming) = self.incoming.get_mut(&stream) {
                    incoming.room += bytes;
                } else if let Some(left) = self.ended.get_mut(&stream) {
                    *left = left.saturating_sub(bytes);
                    if *left == 0 {
                        self.ended.remove(&stream);
                    }
                }
            }
            Outgoing::Stop { stream, code } => {
                self.ended.remove(&stream);
                if self.incoming.remove(&stream).is_some() {
                    streams.stop(stream, code.code());
                }
            }
            Outgoing::Close { code } => return Some(code),
        }
        None
    }

    /// Goes on with everything as far as the library lets it.
    pub fn pump(&mut self, streams: &mut impl Streams) {
        // With the last empty one that it may have, the node closes the connection.
        while self.ended.len() < MAX_STREAMS as usize
            && self.empty < Link::MAX_EMPTY_STREAMS
            && let Some(stream) = streams.accept()
        {
            self.incoming.insert(stream, Incoming::new());
        }
        self.write(streams);
        self.read(streams);
    }

    fn write(&mut self, streams: &mut impl Streams) {
        let conn = &self.conn;
        let is_long = |replies: &VecDeque<Reply>| replies.iter().any(|reply| reply.frame.length > SHORT_REPLY);
        self.replies.retain(|stream, replies| is_long(replies) || !flush(replies, *stream, streams, conn));
        for lane in Lane::LASTING {
            if lane == REPLIES {
                let conn = &self.conn;
                self.replies.retain(|stream, replies| !flush(replies, *stream, streams, conn));
            }
            self.lasting[lane.index()].write(lane, streams, &self.conn);
            self.write_singles(lane.index(), streams);
        }
    }

    fn write_singles(&mut self, urgency: usize, streams: &mut impl Streams) {
        let (conn, incoming) = (&self.conn, &mut self.incoming);
        let mut done = Vec::new();
        for (key, single) in self.singles.range_mut((urgency, 0)..=(urgency, u64::MAX)) {
            let stream = match single.stream {
                Some(stream) => stream,
                None => match streams.open(single.lane != Lane::Pulse, urgency) {
                    Some(stream) => *single.stream.insert(stream),
                    None => break,
                },
            };
            let written = streams.write(stream, &mut single.frame.rest);
            match (written, single.lane) {
                (Written::Blocked, _) => continue,
                (Written::Broken, lane) => conn.stopped(lane),
                (Written::All, Lane::Dialogue) => drop(incoming.insert(stream, Incoming::new())),
                (Written::All, Lane::Pulse) => streams.finish(stream),
                (Written::All, _) => {
                    streams.finish(stream);
                    streams.stop(stream, 0);
                }
            }
            conn.sent(single.frame.length);
            done.push(*key);
        }
        done.iter().for_each(|key| drop(self.singles.remove(key)));
    }

    fn read(&mut self, streams: &mut impl Streams) {
        let (conn, buffer, ended) = (&self.conn, &mut self.buffer, &mut self.ended);
        let (role, empty) = (self.role, &mut self.empty);
        self.incoming.retain(|stream, Incoming { room, is_empty }| {
            while *room > 0 {
                if buffer.capacity() == 0 {
                    buffer.reserve(READ_BYTES);
                }
                let outcome = streams.read(*stream, buffer.capacity().min(*room), buffer);
                let bytes = buffer.split().freeze();
                *room = room.saturating_sub(bytes.len());
                *is_empty &= bytes.is_empty();
                let fin = outcome == Read::End;
                if fin || !bytes.is_empty() {
                    conn.received(*stream, bytes, fin);
                }
                match outcome {
                    Read::More => continue,
                    Read::Blocked => return true,
                    Read::Reset => conn.reset(*stream),
                    Read::End | Read::Gone => {}
                }
                let left = STREAM_CREDIT.saturating_sub(*room);
                if *is_empty && stream.opener() != role {
                    *empty += 1;
                } else if left > 0 {
                    ended.insert(*stream, left);
                }
                return false;
            }
            true
        });
    }
}

impl Lasting {
    fn write(&mut self, lane: Lane, streams: &mut impl Streams, conn: &Conn) {
        self.flush(lane, streams, conn);
        // Asked last, so that the library knows that this is waited for.
        while self.stream.is_some_and(|stream| streams.is_stopped(stream)) {
            self.stopped(lane, conn);
            self.flush(lane, streams, conn);
        }
    }

    fn flush(&mut self, lane: Lane, streams: &mut impl Streams, conn: &Conn) {
        while let Some(frame) = self.frames.front_mut() {
            let stream = match self.stream {
                Some(stream) => stream,
                None => match streams.open(false, lane.index()) {
                    Some(stream) => *self.stream.insert(stream),
                    None => return,
                },
            };
            match streams.write(stream, &mut frame.rest) {
                Written::All => {
                    conn.sent(frame.length);
                    self.frames.pop_front();
                }
                Written::Blocked => return,
                Written::Broken => self.stopped(lane, conn),
            }
        }
    }

    /// The stream is gone, and with it the frame that was begun.
    fn stopped(&mut self, lane: Lane, conn: &Conn) {
        self.stream = None;
        if self.frames.front().is_some_and(Frame::is_begun)
            && let Some(frame) = self.frames.pop_front()
        {
            conn.sent(frame.length);
        }
        conn.stopped(lane);
    }
}

impl Incoming {
    fn new() -> Self {
        Self { room: STREAM_CREDIT, is_empty: true }
    }
}

impl Frame {
    fn new(bytes: Bytes) -> Self {
        Self { length: bytes.len(), rest: bytes }
    }

    fn is_begun(&self) -> bool {
        self.rest.len() < self.length
    }
}

/// Writes replies until one is the last or must wait; true if none is left.
fn flush(replies: &mut VecDeque<Reply>, stream: StreamId, streams: &mut impl Streams, conn: &Conn) -> bool {
    while let Some(reply) = replies.front_mut() {
        let written = streams.write(stream, &mut reply.frame.rest);
        if written == Written::Blocked {
            return false;
        }
        conn.sent(reply.frame.length);
        if reply.fin && written == Written::All {
            streams.finish(stream);
        }
        replies.pop_front();
    }
    true
}
