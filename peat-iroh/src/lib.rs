//! Carries a [`Port`] over iroh: QUIC between Ed25519 keys, on tokio.
//!
//! [`Iroh::bind`] serves on the caller's tokio runtime, [`Iroh::spawn`] on a thread of its own for programs that have
//! none. Nothing is contacted but the peers that the node asks for: relays, address lookup and port mapping are off
//! until [`Options`] switches them on.

#![deny(missing_docs)]

mod connection;
mod endpoint;
mod streams;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use peat_node::transport::{Port, limits};
use tokio::sync::oneshot;

/// An endpoint that serves a node. Dropping it closes it in the background; [`Iroh::close`] also waits for that.
#[derive(Debug)]
pub struct Iroh {
    addrs: Vec<SocketAddr>,
    /// Dropped to make the endpoint close.
    stop: oneshot::Sender<()>,
    /// Fails once the endpoint has closed.
    closed: oneshot::Receiver<()>,
}

/// How to bind.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; at most one address per family. Default `0.0.0.0:0` and `[::]:0`, of which the second may fail
    /// on a machine without IPv6.
    pub listen: Vec<SocketAddr>,
    /// Servers that carry the (encrypted) packets of two nodes that cannot reach each other. Default off.
    pub relay: Relay,
    /// Whether to publish this node's addresses at n0's public DNS and look up those of others there. Default no.
    pub lookup: bool,
    /// Whether to ask the router for an open port. Takes effect only with a relay, from which iroh learns that it is
    /// behind a router at all. Default no.
    pub port_mapper: bool,
    /// Time in which a connection must be up. Default [`limits::HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// Bytes on their way to a peer, written and not acknowledged. Default [`limits::SEND_WINDOW`].
    pub send_window: u32,
}

/// Whether to use relays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Relay {
    /// None: peers must reach each other.
    #[default]
    Off,
    /// The public relays of n0.
    Public,
    /// These, as URLs.
    Urls(Vec<String>),
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address of [`Options::listen`] cannot be used.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        reason: String,
    },
    /// An entry of [`Relay::Urls`] is not a URL.
    #[error("`{0}` is not the URL of a relay")]
    Relay(String),
    /// The sockets could not be opened.
    #[error("the endpoint cannot be opened: {0}")]
    Endpoint(String),
    /// The thread or its runtime could not be started.
    #[error("the transport's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            relay: Relay::Off,
            lookup: false,
            port_mapper: false,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            send_window: limits::SEND_WINDOW,
        }
    }
}

impl Iroh {
    /// Serves `port` on the tokio runtime that this is called on, until closed or until the node closes. When this
    /// returns, the node's tickets carry the endpoint's addresses.
    ///
    /// # Errors
    /// [`BindError`] says which option or resource is at fault.
    pub async fn bind(port: Port, options: Options) -> Result<Self, BindError> {
        let endpoint = endpoint::bind(&port, &options).await?;
        endpoint::announce(&endpoint, &port).await;
        let (stop, stopped) = oneshot::channel();
        let (closing, closed) = oneshot::channel();
        let iroh = Self { addrs: endpoint.bound_sockets(), stop, closed };
        tokio::spawn(async move {
            endpoint::serve(endpoint, port, options, stopped).await;
            drop(closing);
        });
        Ok(iroh)
    }

    /// Like [`Self::bind`], on a runtime of two workers that lives as long as the endpoint. Blocks until bound.
    ///
    /// # Errors
    /// [`BindError`] says which option or resource is at fault.
    pub fn spawn(port: Port, options: Options) -> Result<Self, BindError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("peat-iroh")
            .enable_all()
            .build()?;
        let (answer, bound) = std::sync::mpsc::sync_channel(1);
        // A runtime may not be dropped on a thread that runs async code; this one is dropped where it was driven.
        let thread = thread::Builder::new().name("peat-iroh".into());
        thread.spawn(move || {
            let (closing, closed) = oneshot::channel();
            match runtime.block_on(Self::bind(port, options)) {
                Err(error) => drop(answer.send(Err(error))),
                Ok(iroh) => {
                    let inner = iroh.closed;
                    drop(answer.send(Ok(Self { closed, ..iroh })));
                    let _ = runtime.block_on(inner);
                }
            }
            drop(runtime);
            drop(closing);
        })?;
        bound.recv().map_err(|_| std::io::Error::other("the thread died"))?
    }

    /// The addresses of the sockets, with the ports that the system chose.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Closes all connections and waits until the peers know, at most about 3 s. Needs no particular runtime.
    pub async fn close(self) {
        drop(self.stop);
        let _ = self.closed.await;
    }

    /// Like [`Self::close`], for a thread that runs no async code.
    ///
    /// # Panics
    /// When called from async code.
    pub fn close_blocking(self) {
        drop(self.stop);
        let _ = self.closed.blocking_recv();
    }
}
