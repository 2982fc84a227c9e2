//! What a connection costs on the wire, in either profile.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_lite::future::block_on;
use peat_node::proto::policy::Class;
use peat_node::proto::{CloseCode, ConnId, Lane, Wire};
use peat_node::transport::bench::{Bench, Seen};
use peat_node::transport::queue::Sender;
use peat_node::transport::{Dial, Outgoing};

use crate::tls::Identity;
use crate::{Options, Profile, Udp};

/// Connect, 1 KiB and close, in bytes: three packets of 1,200, which handshakes are filled up to (RFC 9000, 14.1), the last
/// of them with the content; and 900 for the rest of it, connection ids, acknowledgements and farewells.
const BOUND: u64 = 3 * 1200 + 900;

/// As many as it takes to find out what size of packets loopback carries, in either direction.
const ROUND_TRIPS: usize = 16;

/// Of these the least counts: on a machine that stalls, something is said twice.
const TRIES: usize = 5;

#[test]
fn a_thin_connection_costs_little_and_does_not_look_for_larger_packets() {
    let least = |profile, round_trips| (0..TRIES).map(|_| cost(profile, round_trips)).min().expect("several");
    let [broad, thin] = [Profile::Broad, Profile::Thin].map(|profile| least(profile, 0));
    let [found, kept] = [Profile::Broad, Profile::Thin].map(|profile| least(profile, ROUND_TRIPS));
    eprintln!(
        "connect, 1 KiB, close: {broad} bytes, thin {thin}; with {ROUND_TRIPS} round trips: {found}, thin {kept}"
    );
    assert!(thin <= BOUND, "{thin} bytes");
    assert!(thin < broad && kept + 8_000 <= found, "{thin} {broad}, {kept} {found}");
}

struct End {
    udp: Udp,
    bench: Bench,
}

type Conn = (ConnId, Sender<(ConnId, Outgoing)>);

/// Bytes that leave the sockets of both ends for a connection, a frame of 1 KiB, so many round trips, and a close.
fn cost(profile: Profile, round_trips: usize) -> u64 {
    let [near, far] = [1, 2].map(|seed| End::new(seed, profile));
    let peer = Identity::new([2; 32], Vec::new()).expect("a key").id;
    near.bench.dial(Dial { peer, addrs: far.udp.addrs().to_vec() });
    let dialled = near.connected();
    say(&dialled, &[7; 1 << 10]);
    let accepted = far.connected();
    far.hear(1 << 10);
    for _ in 0..round_trips {
        say(&accepted, b"?");
        near.hear(1);
        say(&dialled, b"!");
        far.hear(1);
    }
    dialled.1.send((dialled.0, Outgoing::Close { code: CloseCode::Normal })).expect("up");
    for end in [&near, &far] {
        while !matches!(block_on(end.bench.next()), Seen::Disconnected { .. }) {}
    }
    // Until both have said and heard all that there is.
    let counters = [near, far].map(|End { udp, .. }| {
        let counters = udp.counters.clone();
        udp.close_blocking();
        counters
    });
    counters.map(|counters| counters.stats().bytes_sent).iter().sum()
}

fn say((conn, outgoing): &Conn, words: &'static [u8]) {
    let (lane, frame) = (Lane::Class(Class::Normal), Bytes::from_static(words));
    outgoing.send((*conn, Outgoing::Frame { lane, frame })).expect("up");
}

impl End {
    fn new(seed: u8, profile: Profile) -> Self {
        let (port, bench) = Bench::new([seed; 32], &[Wire::V1]);
        let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        let udp = Udp::spawn(port, Options { listen, profile, ..Options::default() }).expect("loopback");
        Self { udp, bench }
    }

    fn connected(&self) -> Conn {
        match block_on(self.bench.next()) {
            Seen::Connected { conn, outgoing, .. } => (conn, outgoing),
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    fn hear(&self, mut left: usize) {
        while left > 0 {
            match block_on(self.bench.next()) {
                Seen::Received { bytes, .. } => left -= bytes.len(),
                Seen::Sent { .. } => {}
                other => panic!("expected bytes, got {other:?}"),
            }
        }
    }
}
