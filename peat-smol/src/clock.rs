//! Connections on a clock of the test's own: what happens in a minute of silence takes no minute.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peat_node::PeerId;
use peat_node::proto::policy::Class;
use peat_node::proto::{ConnId, Lane, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::queue::{Receiver, queue};
use peat_node::transport::{Dial, Outgoing};

use crate::connections::Connections;
use crate::counters::{Counters, Stats};
use crate::options::{Congestion, Options, Profile};
use crate::socket::Sockets;
use crate::tls::Identity;

const SECOND: Duration = Duration::from_secs(1);

/// An endpoint without its task: real sockets, and turns when the test says so.
struct End {
    connections: Connections,
    sockets: Sockets,
    outgoing: Receiver<(ConnId, Outgoing)>,
    bench: Bench,
    counters: Arc<Counters>,
}

impl End {
    fn new(seed: u8, listen: SocketAddr, options: &Options) -> Self {
        let (port, bench) = Bench::new([seed; 32], &[Wire::V1]);
        let (sender, outgoing) = queue();
        let counters = Arc::<Counters>::default();
        let connections = Connections::new(&port, options, false, sender, counters.clone()).expect("a key");
        let sockets = Sockets::bind(&[listen], true).expect("loopback");
        Self { connections, sockets, outgoing, bench, counters }
    }

    fn addr(&self) -> SocketAddr {
        self.sockets.addrs()[0]
    }

    /// Does once what can be done at this time; true if packets came.
    fn turn(&mut self, now: Instant) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut packets = Vec::new();
        self.sockets.receive(&mut cx, now, |packet| packets.push(packet));
        let came = !packets.is_empty();
        for packet in packets {
            self.connections.packet(packet, true, &mut self.sockets, now);
        }
        while let Some((conn, outgoing)) = self.outgoing.try_recv() {
            self.connections.take(conn, outgoing, now);
        }
        self.connections.expire(&mut self.sockets, now);
        self.connections.drive(&mut self.sockets, now);
        came
    }

    /// Packets that have come and that it takes no notice of.
    fn arrived(&mut self, now: Instant) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut arrived = 0;
        loop {
            let before = arrived;
            self.sockets.receive(&mut cx, now, |_| arrived += 1);
            if arrived == before {
                return arrived;
            }
        }
    }

    /// What the node has been told.
    fn seen(&self) -> Option<Seen> {
        match pin!(self.bench.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(seen) => Some(seen),
            Poll::Pending => None,
        }
    }

    fn is_lost(&self) -> bool {
        std::iter::from_fn(|| self.seen()).any(|it| matches!(it, Seen::Disconnected { .. }))
    }

    fn stats(&self) -> Stats {
        self.counters.stats()
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn id(seed: u8) -> PeerId {
    Identity::new([seed; 32], Vec::new()).expect("a key").id
}

/// Lets the clock run until then, from one thing that is due to the next; answers when something was sent.
fn run(ends: &mut [&mut End], now: &mut Instant, until: Instant) -> Vec<Instant> {
    let mut sent = Vec::new();
    loop {
        let before = total(ends);
        // A packet on loopback is there as soon as it is sent.
        loop {
            let before = total(ends);
            let came = ends.iter_mut().map(|end| end.turn(*now)).fold(false, |any, came| any | came);
            if !came && total(ends) == before {
                break;
            }
        }
        sent.extend((total(ends) > before).then_some(*now));
        let due = ends.iter().filter_map(|end| end.connections.deadline()).min();
        match due {
            Some(due) if due <= until => *now = due.max(*now),
            _ => break,
        }
    }
    *now = until;
    sent
}

/// Bytes that all of them have sent.
fn total(ends: &[&mut End]) -> u64 {
    ends.iter().map(|end| end.sockets.bytes_sent).sum()
}

/// Two ends and a connection between them, with all said that there is to say at first.
fn pair(options: &Options, now: &mut Instant) -> [End; 2] {
    let [mut near, mut far] = [1, 2].map(|seed| End::new(seed, loopback(), options));
    let dial = Dial { peer: id(2), addrs: vec![far.addr()] };
    near.connections.dial(dial, *now, 10 * SECOND, Duration::ZERO);
    let until = *now + 2 * SECOND;
    run(&mut [&mut near, &mut far], now, until);
    [near, far]
}

fn of(profile: Profile) -> Options {
    Options { profile, ..Options::default() }
}

/// Has the node of an end say this, as soon as its connection is there.
fn say(end: &End, frames: impl IntoIterator<Item = Bytes>) {
    let Some(Seen::Connected { conn, outgoing, .. }) = end.seen() else { panic!("not connected") };
    for frame in frames {
        let lane = Lane::Class(Class::Normal);
        outgoing.send((conn, Outgoing::Frame { lane, frame })).expect("up");
    }
}

/// Seconds between tests of a quiet connection, between probes of a silent peer, and until it is lost.
const PROFILES: [(Profile, u32, u32, u32); 2] = [(Profile::Broad, 5, 1, 30), (Profile::Thin, 20, 5, 60)];

#[test]
fn a_quiet_connection_is_tested_as_seldom_as_its_profile_says_and_lives() {
    for (profile, keep_alive, _, _) in PROFILES {
        let mut now = Instant::now();
        let [mut near, mut far] = pair(&of(profile), &mut now);
        let until = now + 300 * SECOND;
        let mut times = run(&mut [&mut near, &mut far], &mut now, until);
        times.dedup_by(|later, earlier| *later - *earlier < SECOND);
        let apart = times.windows(2).map(|pair| pair[1] - pair[0]);
        let fits = |apart: Duration| (keep_alive * SECOND..(keep_alive + 1) * SECOND).contains(&apart);
        assert!(times.len() >= 14 && apart.clone().all(fits), "{profile:?}: {:?}", apart.collect::<Vec<_>>());
        assert_eq!([near.stats().probes, far.stats().probes], [0, 0], "an answered test is no silence");
        assert!(!near.is_lost() && !far.is_lost(), "{profile:?}");
    }
}

/// That a packet left at each of so many probes, which are this far apart, and that they are what was counted.
fn assert_probed(near: &End, sent: &[Instant], asked: Instant, apart: Duration, probes: u32) {
    assert_eq!(near.stats().probes, u64::from(probes));
    for probe in 1..=probes {
        let due = asked + probe * apart;
        assert!(sent.iter().any(|at| (due..due + SECOND / 10).contains(at)), "no packet left for probe {probe}");
    }
}

/// Whether there was little to say to it, or more than may be on its way at once.
#[test]
fn a_silent_peer_is_probed_as_often_as_its_profile_says_and_lost_in_time() {
    for (profile, _, probe, idle) in PROFILES {
        for frames in [vec![Bytes::from_static(b"anybody there?")], vec![Bytes::from(vec![7; 64 << 10]); 64]] {
            let mut now = Instant::now();
            let [mut near, mut far] = pair(&of(profile), &mut now);
            let asked = now;
            say(&near, frames);
            let almost = asked + (idle - 2) * SECOND;
            let sent = run(&mut [&mut near], &mut now, almost);
            let probes = (idle - 2) / probe;
            assert_probed(&near, &sent, asked, probe * SECOND, probes);
            let arrived = far.arrived(now);
            assert!(arrived > probes as usize, "{profile:?}: {arrived} packets came");
            assert!(!near.is_lost(), "{profile:?}");
            run(&mut [&mut near], &mut now, almost + 4 * SECOND);
            assert!(near.is_lost(), "{profile:?}");
        }
    }
}

/// Nobody answers its address, and then the peer does: the next probe finds it.
#[test]
fn a_peer_that_is_dialled_is_probed_as_often_until_it_answers() {
    for (profile, _, probe, _) in PROFILES {
        let now = &mut Instant::now();
        let [mut near, mut far] = [1, 2].map(|seed| End::new(seed, loopback(), &of(profile)));
        let asked = *now;
        near.connections.dial(Dial { peer: id(2), addrs: vec![far.addr()] }, asked, 60 * SECOND, Duration::ZERO);
        let until = asked + 12 * SECOND + SECOND / 2;
        let sent = run(&mut [&mut near], now, until);
        let probes = 12 / probe;
        assert_probed(&near, &sent, asked, probe * SECOND, probes);
        let arrived = far.arrived(*now);
        assert!(arrived > probes as usize, "{profile:?}: {arrived} packets came");
        let next = asked + (probes + 1) * probe * SECOND + SECOND / 10;
        run(&mut [&mut near, &mut far], now, next);
        assert!(matches!(near.seen(), Some(Seen::Connected { .. })), "{profile:?}");
    }
}

/// A turn leaves nothing that could be sent: another one without a reason sends no more.
#[test]
fn what_the_endpoint_answers_is_sent_in_the_same_turn() {
    let now = Instant::now();
    let [mut near, mut far] = [1, 2].map(|seed| End::new(seed, loopback(), &Options::default()));
    near.connections.dial(Dial { peer: id(2), addrs: vec![far.addr()] }, now, 10 * SECOND, Duration::ZERO);
    let mut came = true;
    while came {
        came = false;
        for end in [&mut near, &mut far] {
            came |= end.turn(now);
            let sent = end.sockets.bytes_sent;
            end.connections.touch_all();
            end.connections.drive(&mut end.sockets, now);
            assert_eq!(end.sockets.bytes_sent, sent);
        }
    }
}

/// It forgot everything, and has its key and its address.
#[test]
fn a_restarted_peer_says_at_once_that_it_has_forgotten_a_connection() {
    let mut now = Instant::now();
    let [mut near, far] = pair(&Options::default(), &mut now);
    let addr = far.addr();
    drop(far);
    let mut restarted = End::new(2, addr, &Options::default());
    say(&near, [Bytes::from_static(b"anybody there?")]);
    let until = now + SECOND / 10;
    run(&mut [&mut near, &mut restarted], &mut now, until);
    assert!(near.is_lost());
}

/// The far node takes nothing, so that what leaves is what the windows hold: of the stream, of what is not acknowledged, and
/// of what is read ahead.
#[test]
fn what_may_be_on_its_way_follows_a_provisioned_rate() {
    let sent = |congestion| {
        let (options, mut now) = (Options { congestion, ..Options::default() }, Instant::now());
        let [mut near, mut far] = pair(&options, &mut now);
        say(&near, vec![Bytes::from(vec![7; 64 << 10]); 128]);
        let until = now + 10 * SECOND;
        run(&mut [&mut near, &mut far], &mut now, until);
        let sent = std::iter::from_fn(|| near.seen()).map(|seen| match seen {
            Seen::Sent { bytes, .. } => bytes,
            other => panic!("unexpected {other:?}"),
        });
        sent.sum::<usize>()
    };
    let (narrow, wide) = (sent(Congestion::Cubic), sent(Congestion::Fixed { bits_per_second: 100_000_000 }));
    assert!(narrow <= 3 * (256 << 10), "{narrow} bytes");
    assert!(wide >= 4 << 20, "{wide} bytes");
}
