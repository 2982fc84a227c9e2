//! Lanes that are one long-lived stream each.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError, SendStream, WriteError};
use peat_node::proto::Lane;
use peat_node::transport::Conn;
use tokio::sync::mpsc;

pub(super) type Queue = mpsc::UnboundedReceiver<Bytes>;

/// The two ends of a queue per lane. What they hold is bounded by the core, which counts a frame until it is written.
pub(super) fn queues() -> (Vec<mpsc::UnboundedSender<Bytes>>, Vec<(Lane, Queue)>) {
    let queues = Lane::LASTING.into_iter().map(|lane| {
        let (sender, queue) = mpsc::unbounded_channel();
        (sender, (lane, queue))
    });
    queues.unzip()
}

/// Writes all lanes, until the connection is lost.
///
/// One task polls them in the order of their urgency: when an acknowledgement frees some of the send window that bulk
/// has filled, the most urgent frame gets it. Within the window, stream priorities keep that order.
pub(super) async fn write(connection: Connection, queues: Vec<(Lane, Queue)>, conn: Arc<Conn>) -> ConnectionError {
    let lanes = queues.into_iter();
    let lanes = lanes.map(|(lane, queue)| Box::pin(write_lane(&connection, lane, queue, &conn)));
    let mut lanes: Vec<_> = lanes.collect();
    let failed = poll_fn(|cx| {
        for lane in &mut lanes {
            if let Poll::Ready(Err(error)) = lane.as_mut().poll(cx) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    });
    failed.await
}

/// Writes one lane's frames, one behind the other, on a stream that the first of them opens. Where the other side stops
/// the stream, the next frame opens another.
async fn write_lane(
    connection: &Connection,
    lane: Lane,
    mut queue: Queue,
    conn: &Conn,
) -> Result<Infallible, ConnectionError> {
    let urgency = i32::try_from(lane.index()).unwrap_or(i32::MAX);
    let mut open: Option<SendStream> = None;
    loop {
        let frame = match &open {
            None => queue.recv().await,
            Some(stream) => tokio::select! {
                biased;
                stopped = stream.stopped() => {
                    stopped.map_err(|_| ConnectionError::LocallyClosed)?;
                    open = None;
                    conn.stopped(lane);
                    continue;
                }
                frame = queue.recv() => frame,
            },
        };
        let frame = frame.ok_or(ConnectionError::LocallyClosed)?;
        let stream = match &mut open {
            Some(stream) => stream,
            None => open.insert(connection.open_uni().await?),
        };
        let length = frame.len();
        // The priority of a stream that was stopped or lost is no matter: writing tells which.
        let _ = stream.set_priority(-urgency);
        match stream.write_chunk(frame).await {
            Ok(()) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(error),
            Err(_) => {
                open = None;
                conn.stopped(lane);
            }
        }
        // A frame that a stop cut off has left the send buffer too.
        conn.sent(length);
    }
}
