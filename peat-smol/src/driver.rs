//! The one task: it owns the sockets, the endpoint and all connections, and does one thing behind the other.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::Stream;
use peat_node::proto::ConnId;
use peat_node::transport::queue::{Receiver, queue};
use peat_node::transport::{Dial, Outgoing, Port, limits};

use crate::connections::Connections;
use crate::counters::Counters;
use crate::options::{BindError, Options};
use crate::socket::{Sockets, reachable};

/// What the node wants done that one turn takes in; the rest waits for the next.
const OUTGOING: usize = 256;

/// Turns before the executor gets a chance to run something else.
const TURNS: usize = 8;

/// How often the machine's addresses are looked up where a socket listens on all of them.
const INTERFACES: Duration = Duration::from_secs(15);

/// Time for telling all peers that this endpoint closes, at most: three times the wait for an answer at a round trip of
/// 250 ms or so (RFC 9000, 10.2).
const CLOSING: Duration = Duration::from_secs(3);

/// Time for an address to be found on the local networks when nothing else is known of a peer.
const LOOKING: Duration = Duration::from_secs(3);

/// The task.
pub(crate) struct Driver {
    port: Port,
    options: Options,
    sockets: Sockets,
    connections: Connections,
    #[cfg(feature = "discovery")]
    discovery: Option<crate::discovery::Discovery>,
    inputs: Inputs,
    state: State,
    /// When the machine's addresses are looked up next.
    interfaces: Instant,
    listening: Vec<SocketAddr>,
    timer: Timer,
    armed: Option<Instant>,
    counters: Arc<Counters>,
}

/// Where wishes come from.
struct Inputs {
    outgoing: Receiver<(ConnId, Outgoing)>,
    dial: Pin<Box<dyn Future<Output = Option<Dial>> + Send>>,
    stop: flume::r#async::RecvStream<'static, ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// The node has closed; its connections say farewell with its own codes until then.
    Farewell(Instant),
    /// Nothing new is begun; what is left ends by itself until then.
    Closing(Instant),
}

impl Driver {
    /// Binds the sockets and tells the node where they listen.
    pub(crate) fn bind(
        port: Port,
        options: Options,
        stop: flume::Receiver<()>,
        counters: Arc<Counters>,
    ) -> Result<Self, BindError> {
        let sockets = Sockets::bind(&options.listen, options.segmentation_offload)?;
        // Unbounded as a channel; what the core puts in is bounded by each connection's window and receive credit.
        let (sender, outgoing) = queue();
        let connections = Connections::new(&port, &options, sockets.may_fragment(), sender, counters.clone())?;
        let inputs = Inputs { outgoing, dial: next_dial(&port), stop: stop.into_stream() };
        let now = Instant::now();
        let mut driver = Self {
            port,
            options,
            sockets,
            connections,
            #[cfg(feature = "discovery")]
            discovery: None,
            inputs,
            state: State::Serving,
            interfaces: now,
            listening: Vec::new(),
            timer: Timer::never(),
            armed: None,
            counters,
        };
        driver.announce(now);
        #[cfg(feature = "discovery")]
        if driver.options.discovery {
            let found = crate::discovery::Discovery::start(driver.connections.id(), &driver.listening);
            driver.discovery = Some(found.map_err(BindError::Discovery)?);
        }
        #[cfg(not(feature = "discovery"))]
        if driver.options.discovery {
            return Err(BindError::Discovery("built without it".to_owned()));
        }
        Ok(driver)
    }

    /// Where the sockets listen, with the ports that the system chose.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.sockets.addrs()
    }

    /// Serves until the node closes or `stop` ends, and until the peers know.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            let now = Instant::now();
            let busy = self.turn(cx, now);
            if matches!(self.state, State::Closing(_)) && self.connections.is_empty() {
                return Poll::Ready(());
            }
            if !busy && self.sleep(cx, now) {
                return Poll::Pending;
            }
        }
        // Others may want to run.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does everything once that can be done now; true if there is more.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        self.advance(cx, now);
        let (connections, serving) = (&mut self.connections, self.state == State::Serving);
        // Packets are answered through the same sockets, so they are taken first.
        let mut packets = Vec::new();
        let mut busy = self.sockets.receive(cx, now, |packet| packets.push(packet));
        for packet in packets {
            connections.packet(packet, serving, &mut self.sockets, now);
        }
        for left in (0..OUTGOING).rev() {
            match self.inputs.outgoing.poll_recv(cx) {
                Poll::Ready(Some((conn, outgoing))) => connections.take(conn, outgoing, now),
                Poll::Ready(None) | Poll::Pending => break,
            }
            busy |= left == 0;
        }
        connections.expire(&mut self.sockets, now);
        busy |= connections.drive(&mut self.sockets, now);
        busy |= self.sockets.flush(cx);
        self.counters.unsent.store(self.sockets.unsent, Relaxed);
        self.counters.oversized.store(self.sockets.oversized, Relaxed);
        self.counters.bytes_sent.store(self.sockets.bytes_sent, Relaxed);
        self.counters.bytes_received.store(self.sockets.bytes_received, Relaxed);
        busy
    }

    /// Takes wishes for dials, and moves on towards the end.
    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) {
        let stopped = Pin::new(&mut self.inputs.stop).poll_next(cx).is_ready();
        match self.state {
            State::Serving if stopped => self.close(now),
            State::Serving => {
                self.take_dials(cx, now);
                self.discover(cx);
                if self.interfaces <= now {
                    self.announce(now);
                }
            }
            State::Farewell(until) if stopped || until <= now || !self.connections.is_serving() => self.close(now),
            State::Farewell(_) => {}
            State::Closing(until) if until <= now => self.connections.forget(),
            State::Closing(_) => {}
        }
    }

    fn take_dials(&mut self, cx: &mut Context<'_>, now: Instant) {
        let patience = if self.options.discovery { LOOKING } else { Duration::ZERO };
        while let Poll::Ready(wish) = self.inputs.dial.as_mut().poll(cx) {
            let Some(dial) = wish else {
                self.state = State::Farewell(now + limits::FAREWELL);
                return;
            };
            self.inputs.dial = next_dial(&self.port);
            #[cfg(feature = "discovery")]
            let found = self.discovery.as_mut().map(|it| it.addrs(&dial.peer)).unwrap_or_default();
            #[cfg(feature = "discovery")]
            let dial = Dial { addrs: [dial.addrs, found].concat(), ..dial };
            self.connections.dial(dial, now, self.options.handshake_timeout, patience);
        }
    }

    #[cfg(feature = "discovery")]
    fn discover(&mut self, cx: &mut Context<'_>) {
        if let Some(discovery) = &mut self.discovery {
            while let Poll::Ready((peer, addrs)) = discovery.poll(cx) {
                self.connections.found(peer, addrs);
            }
        }
    }

    #[cfg(not(feature = "discovery"))]
    fn discover(&mut self, _: &mut Context<'_>) {}

    /// Says where this endpoint can be reached, if that has changed.
    fn announce(&mut self, now: Instant) {
        self.interfaces = now + INTERFACES;
        let addrs = reachable(&self.sockets.addrs());
        if addrs != self.listening {
            self.listening.clone_from(&addrs);
            #[cfg(feature = "discovery")]
            if let Some(discovery) = &self.discovery {
                discovery.announce(&addrs);
            }
            self.port.listening(addrs);
        }
    }

    fn close(&mut self, now: Instant) {
        self.state = State::Closing(now + CLOSING);
        self.port.listening(Vec::new());
        self.connections.close(now);
    }

    /// Arms the timer for the next thing that is due; true if that lies ahead.
    fn sleep(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let state = match self.state {
            State::Serving => self.interfaces,
            State::Farewell(until) | State::Closing(until) => until,
        };
        let due = [Some(state), self.connections.deadline(), self.sockets.deadline()].into_iter().flatten().min();
        let due = due.unwrap_or(state);
        if due <= now {
            return false;
        }
        // One that rings too early does no harm.
        if self.armed.is_none_or(|armed| armed > due || armed <= now) {
            self.timer.set_at(due);
            self.armed = Some(due);
        }
        let rang = Pin::new(&mut self.timer).poll(cx).is_ready();
        if rang {
            self.armed = None;
        }
        !rang
    }
}

fn next_dial(port: &Port) -> Pin<Box<dyn Future<Output = Option<Dial>> + Send>> {
    let port = port.clone();
    Box::pin(async move { port.dial().await })
}
