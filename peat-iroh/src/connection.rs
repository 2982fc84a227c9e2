//! One connection: a writer for the lanes, a reader for every incoming stream.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use flume::Receiver;
use iroh::TransportAddr;
use iroh::endpoint::{Connection, ConnectionError, Path, ReadError, RecvStream, SendStream, WriteError};
use peat_node::PeerId;
use peat_node::proto::{CloseCode, Lane, Link, Role, StreamId};
use peat_node::transport::{BINDING_LABEL, Outgoing, Port, STREAM_CREDIT, Wire};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

/// Most bytes that are read at once, and the size of each stream's buffer. 16 KiB: about eleven packets, and
/// 256 KiB for all streams of a connection.
const READ_BYTES: usize = 16 << 10;

/// Announces a connection to the node; the future moves its bytes until it ends. `None` if TLS gives no binding.
pub(crate) fn announce(
    port: &Port,
    connection: Connection,
    role: Role,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let mut binding = [0; 32];
    let exported = connection.export_keying_material(&mut binding, BINDING_LABEL, &[]);
    if exported.is_err() {
        debug!("TLS exports no channel binding");
        return None;
    }
    let peer = PeerId(*connection.remote_id().as_bytes());
    let (addr, rtt) = {
        let paths = connection.paths();
        let path = paths.iter().find(Path::is_selected);
        let path = path.or_else(|| paths.iter().next());
        (path.as_ref().and_then(socket_addr), path.map(|it| it.rtt()))
    };
    let link = Link { role, reliable: true, binding, rtt };
    let (wire, outgoing) = port.connected(peer, addr, link);
    Some(run(connection, Arc::new(wire), outgoing))
}

fn socket_addr(path: &Path<'_>) -> Option<SocketAddr> {
    match path.remote_addr() {
        TransportAddr::Ip(addr) => Some(*addr),
        _ => None,
    }
}

/// Moves bytes until either side closes or anything fails. All tasks have ended, and the wire is dropped, when it is done.
async fn run(connection: Connection, wire: Arc<Wire>, outgoing: Receiver<Outgoing>) {
    let (lanes, queues) = lanes();
    let mut writer = std::pin::pin!(write(connection.clone(), queues, wire.clone()));
    let mut readers = JoinSet::new();
    let mut grants = BTreeMap::new();
    let code = loop {
        tokio::select! {
            next = outgoing.recv_async() => match next {
                Ok(Outgoing::Frame { lane, frame }) => {
                    if let Some(lane) = lanes.get(lane.index()) {
                        // Fails only when the writer has ended, which ends the connection too.
                        let _ = lane.send(frame);
                    }
                }
                Ok(Outgoing::Credit { stream, bytes }) => grant(&grants, stream, |it| it.limit += bytes as u64),
                Ok(Outgoing::Stop { stream, code }) => grant(&grants, stream, |it| it.stop = Some(code)),
                Ok(Outgoing::Close { code }) => break code,
                Err(flume::RecvError::Disconnected) => break CloseCode::Normal,
            },
            error = &mut writer => {
                debug!("writing failed: {error}");
                break CloseCode::Normal;
            }
            accepted = connection.accept_uni() => match accepted {
                Ok(stream) => {
                    let id = StreamId(stream.id().index());
                    let (sender, receiver) = watch::channel(Grant::default());
                    grants.insert(id, sender);
                    let wire = wire.clone();
                    readers.spawn(async move {
                        read(stream, id, wire, receiver).await;
                        id
                    });
                }
                Err(error) => {
                    debug!("the connection ended: {error}");
                    break CloseCode::Normal;
                }
            },
            Some(Ok(ended)) = readers.join_next() => drop(grants.remove(&ended)),
        }
    };
    if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() {
        wire.closed(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX));
    }
    // Says nothing where the connection is closed already.
    connection.close(code.code().into(), &[]);
    readers.shutdown().await;
}

/// How far a stream may be read.
#[derive(Debug, Clone, Copy)]
struct Grant {
    /// Bytes from the start of the stream.
    limit: u64,
    /// Read no further, and tell the sender so.
    stop: Option<CloseCode>,
}

impl Default for Grant {
    fn default() -> Self {
        Self { limit: STREAM_CREDIT as u64, stop: None }
    }
}

/// Changes the grant of a stream, if it has not ended.
fn grant(grants: &BTreeMap<StreamId, watch::Sender<Grant>>, stream: StreamId, change: impl FnOnce(&mut Grant)) {
    if let Some(sender) = grants.get(&stream) {
        sender.send_modify(change);
    }
}

/// Hands a stream's bytes to the node as far as they are granted, until it ends, is reset or stopped.
async fn read(mut stream: RecvStream, id: StreamId, wire: Arc<Wire>, mut grants: watch::Receiver<Grant>) {
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
                wire.received(id, Bytes::copy_from_slice(&buffer[..length]), false);
            }
            Ok(None) => return wire.received(id, Bytes::new(), true),
            Err(ReadError::Reset(_)) => return wire.reset(id),
            // The connection is lost, which its own task sees too.
            Err(_) => return,
        }
    }
}

type Queue = mpsc::UnboundedReceiver<Bytes>;

/// The two ends of a queue per lane. What they hold is bounded by the core, which counts a frame until it is written.
fn lanes() -> (Vec<mpsc::UnboundedSender<Bytes>>, Vec<(Lane, Queue)>) {
    let queues = Lane::ALL.into_iter().map(|lane| {
        let (sender, queue) = mpsc::unbounded_channel();
        (sender, (lane, queue))
    });
    queues.unzip()
}

/// Writes all lanes, until the connection is lost.
///
/// One task polls them in the order of their urgency: when an acknowledgement frees some of the send window that bulk
/// has filled, the most urgent frame gets it. Within the window, stream priorities keep that order.
async fn write(connection: Connection, queues: Vec<(Lane, Queue)>, wire: Arc<Wire>) -> ConnectionError {
    let lanes = queues.into_iter();
    let lanes = lanes.map(|(lane, queue)| Box::pin(write_lane(&connection, lane, queue, &wire)));
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
    wire: &Wire,
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
                    wire.stopped(lane);
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
                wire.stopped(lane);
            }
        }
        // A frame that a stop cut off has left the send buffer too.
        wire.sent(length);
    }
}
