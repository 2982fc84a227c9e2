//! One connection: announced to the node, and pumped until it ends.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::task::Poll;

use iroh::TransportAddr;
use iroh::endpoint::{Connection, ConnectionError, Path};
use peat_node::PeerId;
use peat_node::proto::{CloseCode, ConnId, Link, Role, Wire};
use peat_node::transport::queue::{Receiver, queue};
use peat_node::transport::session::Session;
use peat_node::transport::{BINDING_LABEL, Outgoing, Port};
use tracing::debug;

use crate::streams::{Open, Polled};

/// Announces a connection to the node; the future moves its bytes until it ends. `None` if TLS gives no binding or
/// agreed on a protocol that was not offered.
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
    // Unbounded as a channel; what the core puts in is bounded by the connection's window and receive credit.
    let (sender, outgoing) = queue();
    let conn = port.connected(peer, addr, link, &sender);
    Some(run(connection, Session::new(conn, role), outgoing))
}

fn socket_addr(path: &Path<'_>) -> Option<SocketAddr> {
    match path.remote_addr() {
        TransportAddr::Ip(addr) => Some(*addr),
        _ => None,
    }
}

/// Moves bytes until either side closes or anything fails. The node is told when it is done.
async fn run(connection: Connection, mut session: Session, mut outgoing: Receiver<(ConnId, Outgoing)>) {
    let mut open = Open::new(connection.clone());
    let code = poll_fn(|cx| {
        while let Poll::Ready(next) = outgoing.poll_recv(cx) {
            let Some((_, next)) = next else { return Poll::Ready(CloseCode::Normal) };
            if let Some(code) = session.take(next, &mut Polled { open: &mut open, cx }) {
                return Poll::Ready(code);
            }
        }
        session.pump(&mut Polled { open: &mut open, cx });
        let lost = open.poll_lost(cx).map(|error| debug!("the connection ended: {error}"));
        if lost.is_ready() {
            // What came before counts.
            session.pump(&mut Polled { open: &mut open, cx });
        }
        lost.map(|()| CloseCode::Normal)
    });
    let code = code.await;
    if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason() {
        session.conn().closed(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX));
    }
    // Says nothing where the connection is closed already.
    connection.close(code.code().into(), &[]);
}
