//! One connection: a writer for the lasting lanes, a task for every other stream.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use flume::Receiver;
use iroh::TransportAddr;
use iroh::endpoint::{Connection, ConnectionError, Path};
use peat_node::PeerId;
use peat_node::proto::{CloseCode, Lane, Link, Role, Wire};
use peat_node::transport::{BINDING_LABEL, Conn, Outgoing, Port};
use tracing::debug;

use streams::Streams;

mod lanes;
mod streams;

/// Announces a connection to the node; the future moves its bytes until it ends. `None` if TLS gives no binding or agreed on a
/// protocol that was not offered.
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
    let wire = Wire::of_alpn(connection.alpn())?;
    let peer = PeerId(*connection.remote_id().as_bytes());
    let (addr, rtt) = {
        let paths = connection.paths();
        let path = paths.iter().find(Path::is_selected);
        let path = path.or_else(|| paths.iter().next());
        (path.as_ref().and_then(socket_addr), path.map(|it| it.rtt()))
    };
    let link = Link { role, wire, reliable: true, binding, rtt };
    let (conn, outgoing) = port.connected(peer, addr, link);
    Some(run(connection, Arc::new(conn), outgoing))
}

fn socket_addr(path: &Path<'_>) -> Option<SocketAddr> {
    match path.remote_addr() {
        TransportAddr::Ip(addr) => Some(*addr),
        _ => None,
    }
}

/// Moves bytes until either side closes or anything fails. All tasks have ended, and the `Conn` is dropped, when it is done.
async fn run(connection: Connection, conn: Arc<Conn>, outgoing: Receiver<Outgoing>) {
    let (lanes, queues) = lanes::queues();
    let mut writer = std::pin::pin!(lanes::write(connection.clone(), queues, conn.clone()));
    let mut streams = Streams::new(connection.clone(), conn.clone());
    let code = loop {
        tokio::select! {
            next = outgoing.recv_async() => match next {
                Ok(Outgoing::Frame { lane: lane @ (Lane::Control | Lane::Class(_)), frame }) => {
                    if let Some(lane) = lanes.get(lane.index()) {
                        // Fails only when the writer has ended, which ends the connection too.
                        let _ = lane.send(frame);
                    }
                }
                Ok(Outgoing::Frame { lane, frame }) => streams.send(lane, frame),
                Ok(Outgoing::Reply { stream, bytes, fin }) => streams.reply(stream, bytes, fin),
                Ok(Outgoing::Credit { stream, bytes }) => streams.grant(stream, bytes),
                Ok(Outgoing::Stop { stream, code }) => streams.stop(stream, code),
                Ok(Outgoing::Close { code }) => break code,
                Err(flume::RecvError::Disconnected) => break CloseCode::Normal,
            },
            error = &mut writer => {
                debug!("writing failed: {error}");
                break CloseCode::Normal;
            }
            accepted = connection.accept_uni() => match accepted {
                Ok(stream) => streams.accept(None, stream),
                Err(error) => break ended(&error),
            },
            accepted = connection.accept_bi() => match accepted {
                Ok((half, stream)) => streams.accept(Some(half), stream),
                Err(error) => break ended(&error),
            },
            () = streams.tidy() => {}
        }
    };
    if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() {
        conn.closed(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX));
    }
    // Says nothing where the connection is closed already.
    connection.close(code.code().into(), &[]);
    streams.shutdown().await;
}

fn ended(error: &ConnectionError) -> CloseCode {
    debug!("the connection ended: {error}");
    CloseCode::Normal
}
