//! Carries a [`Port`] over plain UDP sockets: QUIC between Ed25519 keys, without tokio.
//!
//! [`Udp::bind`] hands out the endpoint as a future for whatever executor the program has, [`Udp::spawn`] runs it on a
//! thread of its own for programs that have none. Nothing is contacted but the peers that the node asks for, unless
//! [`Options::discovery`] is switched on. A node on this transport and one on iroh are peers like any others.
//!
//! One task owns the sockets, the QUIC endpoint and all connections. There are no locks and no channels inside; two lead
//! in, for what the node wants done and whom it wants dialled.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

#[cfg(test)]
mod clock;
mod congestion;
mod connection;
mod connections;
mod counters;
mod dial;
#[cfg(feature = "discovery")]
mod discovery;
mod driver;
mod liveness;
mod options;
mod quic;
mod socket;
mod streams;
#[cfg(test)]
mod thin;
#[cfg(test)]
mod throughput;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use peat_node::transport::Port;

use counters::Counters;
use driver::Driver;

pub use counters::{Meter, Stats};
pub use options::{BadCongestion, BindError, Congestion, Options, Profile};

/// An endpoint that serves a node. Dropping it closes it in the background; [`Udp::close`] also waits for that.
#[derive(Debug)]
pub struct Udp {
    addrs: Vec<SocketAddr>,
    counters: Arc<Counters>,
    /// Dropped to make the endpoint close.
    stop: flume::Sender<()>,
    /// Fails once the endpoint has closed.
    closed: flume::Receiver<()>,
}

impl Udp {
    /// Binds an endpoint that serves `port` as long as the future is polled, until closed or until the node closes. When
    /// this returns, the node's tickets carry the endpoint's addresses.
    ///
    /// # Errors
    /// [`BindError`] says which option or resource is at fault.
    pub fn bind(port: Port, options: Options) -> Result<(Self, impl Future<Output = ()> + Send + 'static), BindError> {
        let (stop, stopped) = flume::bounded(0);
        let (closing, closed) = flume::bounded(0);
        let counters = Arc::<Counters>::default();
        let driver = Driver::bind(port, options, stopped, counters.clone())?;
        let udp = Self { addrs: driver.addrs(), counters, stop, closed };
        let task = async move {
            driver.run().await;
            drop(closing);
        };
        Ok((udp, task))
    }

    /// Like [`Self::bind`], on a thread that lives as long as the endpoint.
    ///
    /// # Errors
    /// [`BindError`] says which option or resource is at fault.
    pub fn spawn(port: Port, options: Options) -> Result<Self, BindError> {
        let (udp, task) = Self::bind(port, options)?;
        thread::Builder::new().name("peat-udp".into()).spawn(move || async_io::block_on(task))?;
        Ok(udp)
    }

    /// The addresses of the sockets, with the ports that the system chose.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What the endpoint has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// The same for whoever does not hold the endpoint.
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter(self.counters.clone())
    }

    /// Closes all connections and waits until the peers know, at most about 3 s.
    pub async fn close(self) {
        drop(self.stop);
        let _ = self.closed.recv_async().await;
    }

    /// Like [`Self::close`], for a thread that runs no async code.
    pub fn close_blocking(self) {
        drop(self.stop);
        let _ = self.closed.recv();
    }
}
