//! Every stream that is not a lasting lane: what the other side opens, and streams for a single frame.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use iroh::endpoint::{Connection, ReadError, RecvStream, SendStream, WriteError};
use peat_node::proto::{CloseCode, Lane, StreamId};
use peat_node::transport::{Conn, STREAM_CREDIT};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Most bytes that are read at once, and the size of each stream's buffer. 16 KiB: about eleven packets.
const READ_BYTES: usize = 16 << 10;

/// The tasks of these streams, and the ways to reach them. All of them end with the connection.
pub(super) struct Streams {
    connection: Connection,
    conn: Arc<Conn>,
    tasks: JoinSet<End>,
    grants: BTreeMap<StreamId, watch::Sender<Grant>>,
    replies: BTreeMap<StreamId, mpsc::UnboundedSender<Reply>>,
}

/// What a task was for.
enum End {
    Read(StreamId),
    Replied(StreamId),
    Opened(Box<Option<(SendStream, RecvStream)>>),
    Sent,
}

/// How far a stream may be read.
#[derive(Debug, Clone, Copy)]
struct Grant {
    /// Bytes from the start of the stream.
    limit: u64,
    /// Read no further, and tell the sender so.
    stop: Option<CloseCode>,
}

struct Reply {
    bytes: Bytes,
    fin: bool,
}

impl Streams {
    pub(super) fn new(connection: Connection, conn: Arc<Conn>) -> Self {
        Self { connection, conn, tasks: JoinSet::new(), grants: BTreeMap::new(), replies: BTreeMap::new() }
    }

    /// Reads a stream, and writes replies on its other half if it has one.
    pub(super) fn accept(&mut self, half: Option<SendStream>, stream: RecvStream) {
        let id = StreamId(stream.id().into());
        let (sender, grants) = watch::channel(Grant { limit: STREAM_CREDIT as u64, stop: None });
        self.grants.insert(id, sender);
        let conn = self.conn.clone();
        self.tasks.spawn(async move {
            read(stream, id, &conn, grants).await;
            End::Read(id)
        });
        if let Some(half) = half {
            let (sender, replies) = mpsc::unbounded_channel();
            self.replies.insert(id, sender);
            let conn = self.conn.clone();
            self.tasks.spawn(async move {
                reply(half, replies, &conn).await;
                End::Replied(id)
            });
        }
    }

    /// Opens a stream for a frame. That may take until the other side allows one more, and holds up nothing else.
    pub(super) fn send(&mut self, lane: Lane, frame: Bytes) {
        let (connection, conn) = (self.connection.clone(), self.conn.clone());
        self.tasks.spawn(async move {
            let length = frame.len();
            let (sent, opened) = match lane {
                Lane::Dialogue => {
                    dialogue(&connection, frame).await.map_or((false, None), |halves| (true, Some(halves)))
                }
                Lane::Pulse => (pulse(&connection, frame).await.is_some(), None),
                Lane::Once(_) | Lane::Control | Lane::Class(_) => {
                    (once(&connection, lane, frame).await.is_some(), None)
                }
            };
            if !sent {
                conn.stopped(lane);
            }
            conn.sent(length);
            if lane == Lane::Dialogue { End::Opened(Box::new(opened)) } else { End::Sent }
        });
    }

    pub(super) fn reply(&mut self, stream: StreamId, bytes: Bytes, fin: bool) {
        let length = bytes.len();
        let taken = self.replies.get(&stream).is_some_and(|replies| replies.send(Reply { bytes, fin }).is_ok());
        if !taken {
            self.conn.sent(length);
        }
    }

    /// Lets so many bytes more be read from a stream, if it has not ended.
    pub(super) fn grant(&mut self, stream: StreamId, bytes: usize) {
        if let Some(sender) = self.grants.get(&stream) {
            sender.send_modify(|grant| grant.limit += bytes as u64);
        }
    }

    /// Stops reading a stream, if it has not ended.
    pub(super) fn stop(&mut self, stream: StreamId, code: CloseCode) {
        if let Some(sender) = self.grants.get(&stream) {
            sender.send_modify(|grant| grant.stop = Some(code));
        }
    }

    /// Waits for the next task to end, and forgets it. Never resolves while there is none.
    pub(super) async fn tidy(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(End::Read(id))) => drop(self.grants.remove(&id)),
            Some(Ok(End::Replied(id))) => drop(self.replies.remove(&id)),
            Some(Ok(End::Opened(halves))) => {
                if let Some((half, stream)) = *halves {
                    self.accept(Some(half), stream);
                }
            }
            Some(Ok(End::Sent) | Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    pub(super) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// One frame on a bidirectional stream of its own, whose other half nobody reads.
async fn once(connection: &Connection, lane: Lane, frame: Bytes) -> Option<()> {
    let (mut half, mut unread) = connection.open_bi().await.ok()?;
    let urgency = i32::try_from(lane.index()).unwrap_or(i32::MAX);
    // The priority of a stream that was stopped or lost is no matter: writing tells which.
    let _ = half.set_priority(-urgency);
    half.write_chunk(frame).await.ok()?;
    // Both fail only where the other side has stopped or finished already.
    let _ = half.finish();
    let _ = unread.stop(0_u32.into());
    Some(())
}

async fn pulse(connection: &Connection, frame: Bytes) -> Option<()> {
    let mut half = connection.open_uni().await.ok()?;
    half.write_chunk(frame).await.ok()?;
    half.finish().ok()
}

async fn dialogue(connection: &Connection, frame: Bytes) -> Option<(SendStream, RecvStream)> {
    let (mut half, stream) = connection.open_bi().await.ok()?;
    half.write_chunk(frame).await.ok()?;
    Some((half, stream))
}

/// Writes replies until one is the last, or nobody reads them any more.
async fn reply(mut half: SendStream, mut replies: mpsc::UnboundedReceiver<Reply>, conn: &Conn) {
    while let Some(Reply { bytes, fin }) = replies.recv().await {
        let length = bytes.len();
        let written = if length == 0 { Ok(()) } else { half.write_chunk(bytes).await };
        conn.sent(length);
        if fin {
            // Fails only where the other side does not want it.
            let _ = half.finish();
            return;
        }
        if let Err(WriteError::ConnectionLost(_)) = written {
            return;
        }
    }
}

/// Hands a stream's bytes to the node as far as they are granted, until it ends, is reset or stopped.
async fn read(mut stream: RecvStream, id: StreamId, conn: &Conn, mut grants: watch::Receiver<Grant>) {
    // Read into a buffer and copied to size: a chunk taken from QUIC as it is would keep its whole packet alive.
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    loop {
        let Grant { limit, stop } = *grants.borrow_and_update();
        if let Some(code) = stop {
            // Fails only where the stream has ended already.
            let _ = stream.stop(code.code().into());
            return;
        }
        let room = usize::try_from(limit - total).unwrap_or(READ_BYTES);
        let buffer = &mut buffer[..room.min(READ_BYTES)];
        let outcome = tokio::select! {
            biased;
            changed = grants.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            outcome = stream.read(buffer), if room > 0 => outcome,
        };
        match outcome {
            Ok(Some(length)) => {
                total += length as u64;
                conn.received(id, Bytes::copy_from_slice(&buffer[..length]), false);
            }
            Ok(None) => return conn.received(id, Bytes::new(), true),
            Err(ReadError::Reset(_)) => return conn.reset(id),
            // The connection is lost, which its own task sees too.
            Err(_) => return,
        }
    }
}
