//! What the adapter costs against a bare stream of the same library. Run by hand:
//! `cargo test --release -p peat-smol -- --ignored --nocapture throughput`.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use async_io::Timer;
use bytes::Bytes;
use futures_lite::future::block_on;
use peat_node::proto::policy::Class;
use peat_node::proto::{Lane, PeerId, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::{Dial, Outgoing};
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent, StreamId};

use crate::congestion::Gate;
use crate::quic::Quic;
use crate::socket::{SocketId, Sockets};
use crate::{Options, Udp, tls};

const FRAME: usize = 64 << 10;
const TOTAL: usize = 512 << 20;
/// Alternating runs of either kind, of which the medians count.
const ROUNDS: usize = 9;

fn options() -> Options {
    Options { listen: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Options::default() }
}

#[test]
#[ignore = "measures this machine; wants to be optimised and alone"]
fn the_adapter_is_as_fast_as_a_bare_stream() {
    let (mut rates, mut costs) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..ROUNDS {
        for (at, run) in [bare, adapter].into_iter().enumerate() {
            let before = ticks();
            rates[at].push(run());
            costs[at].push((ticks() - before) as f64 * 10.0 / (TOTAL as f64 / 1e6));
        }
    }
    let [bare, adapter] = rates.map(median);
    let [bare_cost, cost] = costs.map(median);
    eprintln!("bare {bare:.0} MB/s, adapter {adapter:.0} MB/s: {:.2}", adapter / bare);
    eprintln!("processor per MB: bare {bare_cost:.2} ms, adapter {cost:.2} ms: {:.2}", cost / bare_cost);
    assert!(adapter >= 0.9 * bare);
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Processor time of this process so far, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1.split(' ');
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// MB/s of frames through two adapters into a counting sink. Both ends wait as the loop of a node does: as a thread that
/// nothing but its queue wakes. (`async_io::block_on` would make them take turns at the sockets.)
fn adapter() -> f64 {
    let side = |seed| {
        let (port, bench) = Bench::new([seed; 32], &Wire::ALL);
        (Udp::spawn(port, options()).expect("loopback"), bench)
    };
    let ((_from, sender), (to, receiver)) = (side(1), side(2));
    let peer = id(2);
    sender.dial(Dial { peer, addrs: to.addrs().to_vec() });
    let sink = thread::spawn(move || {
        let (mut outgoing, mut total) = (None, 0);
        while total < TOTAL {
            match block_on(receiver.next()) {
                Seen::Connected { conn, outgoing: queue, .. } => outgoing = Some((conn, queue)),
                Seen::Received { stream, bytes, .. } => {
                    total += bytes.len();
                    let (conn, queue) = outgoing.as_ref().expect("connected first");
                    queue.send((*conn, Outgoing::Credit { stream, bytes: bytes.len() })).expect("up");
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    });
    let Seen::Connected { conn, outgoing, .. } = block_on(sender.next()) else { panic!("no connection") };
    let (began, frame) = (Instant::now(), Bytes::from(vec![7; FRAME]));
    let send = || outgoing.send((conn, Outgoing::Frame { lane: Lane::Class(Class::Bulk), frame: frame.clone() }));
    // What the core lets be in flight on a fast path.
    (0..(4 << 20) / FRAME).for_each(|_| send().expect("up"));
    for _ in (4 << 20) / FRAME..TOTAL / FRAME {
        let Seen::Sent { .. } = block_on(sender.next()) else { panic!("not sent") };
        send().expect("up");
    }
    sink.join().expect("no panic");
    TOTAL as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn id(seed: u8) -> PeerId {
    tls::Identity::new([seed; 32], Vec::new()).expect("a key").id
}

/// MB/s of one stream between two loops that do nothing else.
fn bare() -> f64 {
    let mut receiver = Side::new(2);
    let addr = receiver.sockets.addrs()[0];
    let sink = thread::spawn(move || receiver.run(0));
    let mut sender = Side::new(1);
    sender.connect(id(2), addr);
    let began = Instant::now();
    sender.run(TOTAL);
    sink.join().expect("no panic");
    TOTAL as f64 / 1e6 / began.elapsed().as_secs_f64()
}

struct Side {
    sockets: Sockets,
    quic: Quic,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, SocketId, Connection)>,
    stream: Option<StreamId>,
    read: usize,
    frame: Bytes,
    timer: Timer,
}

impl Side {
    fn new(seed: u8) -> Self {
        let (port, _) = Bench::new([seed; 32], &Wire::ALL);
        let sockets = Sockets::bind(&options().listen, true).expect("loopback");
        let quic = Quic::new(&port, &options(), Gate::default()).expect("a key");
        let endpoint = quic.endpoint(sockets.may_fragment()).expect("a key");
        let (frame, timer) = (Bytes::from(vec![7; FRAME]), Timer::never());
        Self { sockets, quic, endpoint, connection: None, stream: None, read: 0, frame, timer }
    }

    fn connect(&mut self, peer: PeerId, addr: SocketAddr) {
        let config = self.quic.client(peer).expect("a key");
        let (handle, connection) = self.endpoint.connect(Instant::now(), config, addr, tls::NOBODY).expect("begun");
        self.connection = Some((handle, self.sockets.towards(addr).expect("loopback"), connection));
    }

    /// Writes so many bytes, or reads until all have come.
    fn run(&mut self, mut left: usize) {
        let reads = left == 0;
        async_io::block_on(poll_fn(|cx| self.turn(cx, reads, &mut left)));
    }

    fn turn(&mut self, cx: &mut Context<'_>, reads: bool, left: &mut usize) -> Poll<()> {
        loop {
            let (now, mut packets, mut buffer) = (Instant::now(), Vec::new(), Vec::new());
            let mut more = self.sockets.receive(cx, now, |packet| packets.push(packet));
            for packet in packets {
                let socket = packet.socket;
                match self.endpoint.handle(now, packet.from, packet.to, packet.ecn, packet.data, &mut buffer) {
                    Some(DatagramEvent::ConnectionEvent(_, event)) => {
                        self.connection.as_mut().expect("known").2.handle_event(event);
                    }
                    Some(DatagramEvent::NewConnection(incoming)) => {
                        let (handle, connection) = self.endpoint.accept(incoming, now, &mut buffer, None).expect("ok");
                        self.connection = Some((handle, socket, connection));
                    }
                    Some(DatagramEvent::Response(_)) | None => {}
                }
            }
            let Some((handle, socket, connection)) = &mut self.connection else { return Poll::Pending };
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            while let Some(event) = connection.poll() {
                match event {
                    Event::Connected if !reads => self.stream = connection.streams().open(Dir::Uni),
                    Event::Stream(StreamEvent::Opened { .. }) => self.stream = connection.streams().accept(Dir::Uni),
                    _ => {}
                }
            }
            if let Some(stream) = self.stream {
                if reads {
                    let mut incoming = connection.recv_stream(stream);
                    let mut chunks = incoming.read(true).expect("open");
                    while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                        self.read += chunk.bytes.len();
                    }
                    let _ = chunks.finalize();
                } else {
                    while *left > 0 {
                        let mut chunk = [self.frame.slice(..FRAME.min(*left))];
                        let Ok(written) = connection.send_stream(stream).write_chunks(&mut chunk) else { break };
                        *left -= written.bytes;
                    }
                }
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(answer);
                }
            }
            buffer.clear();
            while self.sockets.is_clear(*socket)
                && let Some(transmit) = connection.poll_transmit(now, self.sockets.train(*socket), &mut buffer)
            {
                self.sockets.send(*socket, transmit, &buffer);
                buffer.clear();
            }
            more |= self.sockets.flush(cx);
            let sent = !reads && *left == 0 && connection.streams().send_streams() == 0;
            if self.read >= TOTAL || sent || !reads && *left == 0 && connection.is_closed() {
                connection.close(now, 0_u32.into(), Bytes::new());
                if let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
                    self.sockets.send(*socket, transmit, &buffer);
                }
                return Poll::Ready(());
            }
            if more {
                continue;
            }
            let Some(at) = connection.poll_timeout() else { return Poll::Pending };
            self.timer.set_at(at);
            if Pin::new(&mut self.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
