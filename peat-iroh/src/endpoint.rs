//! The endpoint: binds it, dials for the node, accepts, and keeps count of what is under way.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use iroh::address_lookup::{DnsAddressLookup, PkarrPublisher, PkarrResolver};
use iroh::endpoint::{
    BindOpts, Builder, ConnectOptions, Connection, Incoming, NetReportConfig, PortmapperConfig, QuicTransportConfig,
    presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, RelayUrl, SecretKey, Watcher};
use peat_node::PeerId;
use peat_node::proto::{Role, Wire};
use peat_node::transport::limits::{self, Caller};
use peat_node::transport::{Dial, Port};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::{BindError, Options, Relay, connection};

/// Time that iroh has to find the machine's addresses before the endpoint is used without them.
const INTERFACES: Duration = Duration::from_secs(2);

/// Binds as the options say, with the node's key.
pub(crate) async fn bind(port: &Port, options: &Options) -> Result<Endpoint, BindError> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&port.secret()))
        .alpns(port.alpns())
        .transport_config(quic(options, port.wires()))
        .relay_mode(relay_mode(&options.relay)?);
    builder = listen(builder, &options.listen)?;
    if !options.port_mapper {
        builder = builder.portmapper_config(PortmapperConfig::Disabled);
    }
    if options.relay == Relay::Off {
        builder = builder.net_report_config(NetReportConfig::minimal());
    }
    if options.lookup {
        builder = builder
            .address_lookup(PkarrPublisher::n0_dns())
            .address_lookup(PkarrResolver::n0_dns())
            .address_lookup(DnsAddressLookup::n0_dns());
    }
    let bound = builder.bind().await;
    bound.map_err(|error| BindError::Endpoint(format!("{error:#}")))
}

/// Says where the endpoint listens. Behind a wildcard address that is known only once the interfaces have been looked at.
pub(crate) async fn announce(endpoint: &Endpoint, port: &Port) {
    let mut watcher = endpoint.watch_addr();
    let mut addrs = reachable(endpoint, &watcher.get());
    let found = async {
        while addrs.is_empty() {
            let Ok(addr) = watcher.updated().await else { return };
            addrs = reachable(endpoint, &addr);
        }
    };
    let _ = timeout(INTERFACES, found).await;
    port.listening(addrs);
}

/// Does what the port asks and announces what arrives, until `stopped` resolves or the node closes; then closes the
/// endpoint and waits for all its tasks.
pub(crate) async fn serve(endpoint: Endpoint, port: Port, options: Options, mut stopped: oneshot::Receiver<()>) {
    let limit = options.handshake_timeout;
    let mut watcher = endpoint.watch_addr();
    port.listening(reachable(&endpoint, &watcher.get()));
    let mut dialling = BTreeSet::new();
    let mut dials = JoinSet::new();
    let mut handshakes = JoinSet::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            wish = port.dial() => {
                let Some(wish) = wish else {
                    let farewell = async { while connections.join_next().await.is_some() {} };
                    let _ = timeout(limits::FAREWELL, farewell).await;
                    break;
                };
                if dialling.insert(wish.peer) {
                    dials.spawn(dial(endpoint.clone(), wish, port.alpns(), limit));
                }
            }
            Some(Ok((peer, dialled))) = dials.join_next() => {
                dialling.remove(&peer);
                match dialled.and_then(|it| connection::announce(&port, it, Role::Dialled)) {
                    Some(run) => drop(connections.spawn(run)),
                    None => port.dial_failed(peer),
                }
            }
            Some(incoming) = endpoint.accept() => {
                if let Some(shake) = admit(incoming, handshakes.len(), connections.len(), limit) {
                    handshakes.spawn(shake);
                }
            }
            Some(Ok(accepted)) = handshakes.join_next() => {
                if let Some(run) = accepted.and_then(|it| connection::announce(&port, it, Role::Accepted)) {
                    connections.spawn(run);
                }
            }
            Some(_) = connections.join_next() => {}
            Ok(addr) = watcher.updated() => port.listening(reachable(&endpoint, &addr)),
        }
    }
    port.listening(Vec::new());
    endpoint.close().await;
    dialling.into_iter().for_each(|peer| port.dial_failed(peer));
    while connections.join_next().await.is_some() {}
}

async fn dial(
    endpoint: Endpoint,
    wish: Dial,
    mut alpns: Vec<Vec<u8>>,
    limit: Duration,
) -> (PeerId, Option<Connection>) {
    let peer = wish.peer;
    let dialled = async {
        let id = EndpointId::from_bytes(peer.as_bytes()).map_err(|error| format!("{error:#}"))?;
        let addr = wish.addrs.into_iter();
        let addr = addr.fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr);
        let best = if alpns.is_empty() { Vec::new() } else { alpns.remove(0) };
        let others = ConnectOptions::new().with_additional_alpns(alpns);
        let connected = async {
            let connecting = endpoint.connect_with_opts(addr, &best, others).await;
            let connecting = connecting.map_err(|error| format!("{error:#}"))?;
            connecting.await.map_err(|error| format!("{error:#}"))
        };
        timeout(limit, connected).await.map_err(|_| "no answer in time".to_owned())?
    };
    let dialled: Result<_, String> = dialled.await;
    let dialled = dialled.inspect_err(|reason| debug!(%peer, reason, "dial failed"));
    (peer, dialled.ok())
}

/// The handshake of a caller, unless there are too many already.
fn admit(
    incoming: Incoming,
    handshakes: usize,
    connections: usize,
    limit: Duration,
) -> Option<impl Future<Output = Option<Connection>> + Send + use<>> {
    match Caller::admit(handshakes, connections, incoming.remote_addr_validated()) {
        Caller::Accept => {}
        Caller::Retry => {
            // Fails only where the address is validated.
            let _ = incoming.retry();
            return None;
        }
        Caller::Refuse => {
            incoming.refuse();
            return None;
        }
    }
    Some(async move {
        let accepted = timeout(limit, incoming).await.ok()?;
        let accepted = accepted.inspect_err(|error| debug!("a caller's handshake failed: {error:#}"));
        accepted.ok()
    })
}

/// Where others can reach this node: specific sockets as they are, and what iroh found for those that listen everywhere.
///
/// iroh lists the loopback address only where there is no other. That is right for tickets: on the machine itself the
/// others work as well, and on any other machine it would lead to whoever listens on the same port there.
fn reachable(endpoint: &Endpoint, found: &EndpointAddr) -> Vec<SocketAddr> {
    let bound = endpoint.bound_sockets().into_iter();
    let bound = bound.filter(|addr| !addr.ip().is_unspecified());
    let addrs: BTreeSet<_> = bound.chain(found.ip_addrs().copied()).collect();
    addrs.into_iter().collect()
}

fn quic(options: &Options, wires: &[Wire]) -> QuicTransportConfig {
    let config = QuicTransportConfig::builder()
        .max_concurrent_uni_streams(limits::MAX_STREAMS.into())
        .max_concurrent_bidi_streams(limits::max_bidirectional(wires).into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(limits::STREAM_WINDOW.into())
        .receive_window(limits::RECEIVE_WINDOW.into())
        .send_window(options.send_window.into())
        .keep_alive_interval(limits::KEEP_ALIVE);
    // Between two iroh nodes iroh's own 15 s per path, which cannot be raised, come first.
    match limits::IDLE_TIMEOUT.try_into() {
        Ok(timeout) => config.max_idle_timeout(Some(timeout)).build(),
        Err(_) => unreachable!("30 s is a QUIC integer"),
    }
}

fn relay_mode(relay: &Relay) -> Result<RelayMode, BindError> {
    let urls = match relay {
        Relay::Off => return Ok(RelayMode::Disabled),
        Relay::Public => return Ok(RelayMode::Default),
        Relay::Urls(urls) => urls.iter(),
    };
    let urls = urls.map(|url| url.parse().map_err(|_| BindError::Relay(url.clone())));
    let urls: Vec<RelayUrl> = urls.collect::<Result<_, _>>()?;
    Ok(RelayMode::custom(urls))
}

fn listen(builder: Builder, addrs: &[SocketAddr]) -> Result<Builder, BindError> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    addrs.iter().try_fold(builder.clear_ip_transports(), |builder, &addr| {
        let opts = BindOpts::default().set_is_required(addr != everywhere);
        builder
            .bind_addr_with_opts(addr, opts)
            .map_err(|error| BindError::Listen { addr, reason: format!("{error:#}") })
    })
}
