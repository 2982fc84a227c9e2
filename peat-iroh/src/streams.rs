//! A connection's streams, as the session of `peat-node` wants them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{
    Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError,
};
use peat_node::proto::StreamId;
use peat_node::transport::session::{Read, Streams, Written};

/// Most bytes that are taken out of their packets at once. 16 KiB: about eleven packets.
const SCRATCH: usize = 16 << 10;

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Halves = (Option<SendStream>, Option<RecvStream>);

/// The open streams of a connection, and the waits for more.
pub(crate) struct Open {
    connection: Connection,
    sending: BTreeMap<StreamId, Sending>,
    receiving: BTreeMap<StreamId, RecvStream>,
    accepting: [Waiting<Result<Halves, ConnectionError>>; 2],
    opening: [Option<Waiting<Result<Halves, ConnectionError>>>; 2],
    closed: Waiting<ConnectionError>,
    scratch: Box<[u8]>,
    lost: Option<ConnectionError>,
}

struct Sending {
    stream: SendStream,
    /// Resolves when the other side stops reading.
    stopped: Waiting<Result<Option<VarInt>, StoppedError>>,
}

/// The streams while a task is polled, which will be woken when they can go on.
pub(crate) struct Polled<'a, 'b> {
    pub(crate) open: &'a mut Open,
    pub(crate) cx: &'a mut Context<'b>,
}

impl Open {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            accepting: [false, true].map(|bidirectional| accept(connection.clone(), bidirectional)),
            opening: [None, None],
            closed: Box::pin(closed(connection.clone())),
            connection,
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            scratch: vec![0; SCRATCH].into(),
            lost: None,
        }
    }

    /// Why the connection is lost, if it is; wakes the task when it is.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<&ConnectionError> {
        // Streams are not always waited for, and say so only where they are.
        if self.lost.is_none()
            && let Poll::Ready(error) = self.closed.as_mut().poll(cx)
        {
            self.lost = Some(error);
        }
        self.lost.as_ref().map_or(Poll::Pending, Poll::Ready)
    }

    /// What is written goes so many steps behind the most urgent.
    fn insert(&mut self, (sending, receiving): Halves, urgency: usize) -> Option<StreamId> {
        let of = sending.as_ref().map(|half| StreamId(half.id().into()));
        if let Some((id, stream)) = of.zip(sending) {
            set_urgency(&stream, urgency);
            let stopped = Box::pin(stream.stopped());
            self.sending.insert(id, Sending { stream, stopped });
        }
        let id = receiving.as_ref().map(|half| StreamId(half.id().into()));
        if let Some((id, stream)) = id.zip(receiving) {
            self.receiving.insert(id, stream);
        }
        of.or(id)
    }

    fn lose(&mut self, error: ConnectionError) {
        self.lost.get_or_insert(error);
    }
}

impl Streams for Polled<'_, '_> {
    fn open(&mut self, bidirectional: bool, urgency: usize) -> Option<StreamId> {
        let connection = &self.open.connection;
        let waiting = &mut self.open.opening[usize::from(bidirectional)];
        let halves = waiting.get_or_insert_with(|| open(connection.clone(), bidirectional)).as_mut().poll(self.cx);
        let Poll::Ready(halves) = halves else { return None };
        *waiting = None;
        match halves {
            Ok(halves) => self.open.insert(halves, urgency),
            Err(error) => {
                self.open.lose(error);
                None
            }
        }
    }

    fn defer(&mut self, stream: StreamId, urgency: usize) {
        if let Some(sending) = self.open.sending.get(&stream) {
            set_urgency(&sending.stream, urgency);
        }
    }

    fn accept(&mut self) -> Option<StreamId> {
        for bidirectional in [false, true] {
            if self.open.lost.is_some() {
                return None;
            }
            let waiting = &mut self.open.accepting[usize::from(bidirectional)];
            match waiting.as_mut().poll(self.cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(halves)) => {
                    *waiting = accept(self.open.connection.clone(), bidirectional);
                    return self.open.insert(halves, 0);
                }
                Poll::Ready(Err(error)) => self.open.lose(error),
            }
        }
        None
    }

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes) -> Written {
        let Some(half) = self.open.sending.get_mut(&stream) else { return Written::Broken };
        while !bytes.is_empty() {
            let mut chunks = [std::mem::take(bytes)];
            let mut rest = &mut chunks[..];
            let written = pin!(half.stream.write_many_chunks(&mut rest)).poll(self.cx);
            // What was written whole is not in the rest any more.
            *bytes = rest.first_mut().map(std::mem::take).unwrap_or_default();
            match written {
                Poll::Pending => return Written::Blocked,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(WriteError::ConnectionLost(error))) => {
                    self.open.lose(error);
                    return Written::Blocked;
                }
                Poll::Ready(Err(_)) => {
                    self.open.sending.remove(&stream);
                    return Written::Broken;
                }
            }
        }
        Written::All
    }

    fn finish(&mut self, stream: StreamId) {
        if let Some(mut half) = self.open.sending.remove(&stream) {
            // Fails only where the other side does not want it.
            let _ = half.stream.finish();
        }
    }

    fn is_stopped(&mut self, stream: StreamId) -> bool {
        let Some(half) = self.open.sending.get_mut(&stream) else { return true };
        let stopped = half.stopped.as_mut().poll(self.cx).is_ready();
        if stopped {
            self.open.sending.remove(&stream);
        }
        stopped
    }

    fn read(&mut self, stream: StreamId, most: usize, bytes: &mut BytesMut) -> Read {
        let Some(half) = self.open.receiving.get_mut(&stream) else { return Read::Gone };
        let full = bytes.len() + most;
        let outcome = loop {
            let room = (full - bytes.len()).min(SCRATCH);
            if room == 0 {
                return Read::More;
            }
            match half.poll_read(self.cx, &mut self.open.scratch[..room]) {
                Poll::Pending => return Read::Blocked,
                Poll::Ready(Ok(0)) => break Read::End,
                Poll::Ready(Ok(length)) => bytes.extend_from_slice(&self.open.scratch[..length]),
                Poll::Ready(Err(ReadError::Reset(_))) => break Read::Reset,
                // The connection is lost, which is seen by itself.
                Poll::Ready(Err(_)) => break Read::Gone,
            }
        };
        self.open.receiving.remove(&stream);
        outcome
    }

    fn stop(&mut self, stream: StreamId, code: u32) {
        if let Some(mut half) = self.open.receiving.remove(&stream) {
            // Fails only where the stream has ended already.
            let _ = half.stop(code.into());
        }
    }
}

async fn closed(connection: Connection) -> ConnectionError {
    connection.closed().await
}

fn open(connection: Connection, bidirectional: bool) -> Waiting<Result<Halves, ConnectionError>> {
    Box::pin(async move {
        if bidirectional {
            connection.open_bi().await.map(|(sending, receiving)| (Some(sending), Some(receiving)))
        } else {
            connection.open_uni().await.map(|sending| (Some(sending), None))
        }
    })
}

fn accept(connection: Connection, bidirectional: bool) -> Waiting<Result<Halves, ConnectionError>> {
    Box::pin(async move {
        if bidirectional {
            connection.accept_bi().await.map(|(sending, receiving)| (Some(sending), Some(receiving)))
        } else {
            connection.accept_uni().await.map(|receiving| (None, Some(receiving)))
        }
    })
}

/// What is written on a stream goes so many steps behind the most urgent.
fn set_urgency(stream: &SendStream, urgency: usize) {
    let urgency = i32::try_from(urgency).unwrap_or(i32::MAX);
    // Fails only where the stream is gone.
    let _ = stream.set_priority(-urgency);
}
