//! Datagrams of strangers: whatever they are, the state they leave is bounded and peers are served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError};
use peat_node::proto::policy::Class;
use peat_node::proto::{CloseCode, Lane, Link, PeerId, Wire};
use peat_node::transport::bench::Seen;
use peat_node::transport::{Outgoing, limits};
use peat_node::{Node, Options};

use crate::path::Path;
use crate::side::{Adapter, Conn, Kind, Setting, Side, bare, pair, rogue, within};

crate::over_kinds! {
    a_flood_of_first_packets_leaves_bounded_state_and_peers_served,
    garbage_and_mangled_packets_harm_nobody,
    many_silent_peers_keep_no_caller_out,
    streams_that_end_count_until_the_node_has_taken_what_they_brought,
    of_streams_without_a_byte_a_busy_node_has_a_bounded_number_to_hear_of,
    who_opens_streams_without_a_byte_is_sent_away_and_peers_are_served,
}

crate::over_pairs! {
    replayed_packets_of_a_live_connection_harm_nobody,
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("loopback is there")
}

/// A frame goes from one side to the other and back.
async fn served(near: (&Side, &Conn), far: (&Side, &Conn), word: &'static str) {
    for ((from, sender), (to, receiver)) in [(near, far), (far, near)] {
        sender.send(Lane::Class(Class::Normal), word);
        let mut heard = Vec::new();
        while heard.len() < word.len() {
            match to.next().await {
                Seen::Received { stream, bytes, .. } => {
                    heard.extend_from_slice(&bytes);
                    receiver.tell(Outgoing::Credit { stream, bytes: bytes.len() });
                }
                Seen::Sent { .. } => {}
                // Callers of the flood that came through.
                Seen::Connected { .. } | Seen::Disconnected { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(heard, word.as_bytes());
        assert!(matches!(from.next().await, Seen::Sent { .. }));
    }
}

/// The first packets that `count` dials to a node would send, caught on their way.
pub(crate) async fn first_packets(to: PeerId, count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("loopback is there");
    let id = iroh::EndpointId::from_bytes(to.as_bytes()).expect("a key");
    let addr = iroh::EndpointAddr::new(id).with_ip_addr(sink.local_addr().expect("bound"));
    let endpoint = bare(8).await;
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let connecting = tokio::spawn({
            let (endpoint, addr) = (endpoint.clone(), addr.clone());
            async move { endpoint.connect(addr, Wire::V1.alpn()).await.map(drop) }
        });
        // A packet of an earlier attempt may come again; each attempt has its own connection id, behind the version.
        loop {
            let mut packet = vec![0; 2048];
            let length = within(sink.recv(&mut packet)).await.expect("bound");
            packet.truncate(length);
            let id = |packet: &[u8]| packet[5..14].to_vec();
            if packet[0] & 0x80 != 0 && packets.iter().all(|it| id(it) != id(&packet)) {
                packets.push(packet);
                break;
            }
        }
        connecting.abort();
    }
    endpoint.close().await;
    packets
}

/// A node that looks for more silent peers than it may have connections took no caller any more.
async fn many_silent_peers_keep_no_caller_out(kind: Kind) {
    let silent = socket();
    let nowhere = silent.local_addr().expect("bound");
    let seeker = Side::new(kind, 1).await;
    for peer in 0..limits::MAX_CONNECTIONS as u64 + 10 {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&peer.to_be_bytes());
        let id = *iroh::SecretKey::from_bytes(&seed).public().as_bytes();
        seeker.dial(PeerId(id), vec![nowhere]);
    }
    // The last of them is on its way once a packet of each has come.
    let mut callers = BTreeSet::new();
    let mut packet = [0; 2048];
    while callers.len() <= limits::MAX_CONNECTIONS {
        let (length, _) = silent.recv_from(&mut packet).expect("bound");
        if length > 14 && packet[0] & 0x80 != 0 {
            callers.insert(packet[5..14].to_vec());
        }
    }
    let caller = Side::new(Kind::Udp, 2).await;
    caller.dial(seeker.id, seeker.adapter.addrs().to_vec());
    let (called, calling) = (caller.connected().await, seeker.connected().await);
    served((&caller, &called), (&seeker, &calling), "here").await;
}

async fn a_flood_of_first_packets_leaves_bounded_state_and_peers_served(kind: Kind) {
    let ((dialler, dialled), (listener, accepted)) = pair(Kind::Udp, kind).await;
    let target = listener.adapter.addrs()[0];
    let packets = first_packets(listener.id, 100).await;
    // As many callers as packets, and then the same under other connection ids and from other ports: the keys follow from
    // the id, so those cost a decryption and no more.
    let sockets: Vec<UdpSocket> = packets.iter().map(|_| socket()).collect();
    let words = ["one", "two", "three", "four", "five"];
    for round in 0_u8..100 {
        for (at, (socket, packet)) in sockets.iter().zip(&packets).enumerate() {
            let mut packet = packet.clone();
            packet[6] ^= round;
            let socket = if round == 0 { socket } else { &sockets[(at + usize::from(round)) % sockets.len()] };
            let _ = socket.send_to(&packet, target);
        }
        // While it lasts, and not only when it is over.
        if round % 20 == 10 {
            served((&dialler, &dialled), (&listener, &accepted), words[usize::from(round / 20)]).await;
        }
        if let Adapter::Udp(udp) = &listener.adapter {
            let stats = udp.stats();
            // From half the room on, callers prove their address before anything is kept of them.
            assert!(stats.handshakes <= limits::MAX_HANDSHAKES as u64 / 2, "{stats:?}");
            assert!(stats.connections <= 2 + limits::MAX_HANDSHAKES as u64 / 2, "{stats:?}");
        }
    }
    if let Adapter::Udp(udp) = &listener.adapter {
        let stats = udp.stats();
        assert!(stats.retried > 0, "callers had to prove their address: {stats:?}");
    }
    // Who proves its address gets in.
    let endpoint = bare(9).await;
    let id = iroh::EndpointId::from_bytes(listener.id.as_bytes()).expect("a key");
    let addr = iroh::EndpointAddr::new(id).with_ip_addr(target);
    within(endpoint.connect(addr, Wire::V1.alpn())).await.expect("served");
    endpoint.close().await;
}

/// Sends what a stranger could make up, and a real packet with every kind of damage.
pub(crate) fn mangle(target: SocketAddr, first: &[u8]) {
    let socket = socket();
    let send = |packet: &[u8]| drop(socket.send_to(packet, target));
    send(&[]);
    for length in [1, 2, 7, 20, 21, 1199, 1200, 1201, 9000, 65_000] {
        for fill in [0x00, 0x40, 0x80, 0xc0, 0xff] {
            send(&vec![fill; length]);
        }
    }
    for cut in (0..first.len()).step_by(7) {
        send(&first[..cut]);
    }
    for at in 0..64.min(first.len()) {
        let mut packet = first.to_vec();
        packet[at] ^= 0xff;
        send(&packet);
    }
    send(&[first, first].concat());
    (0..100).for_each(|_| send(first));
}

async fn garbage_and_mangled_packets_harm_nobody(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    let first = first_packets(side.id, 1).await.remove(0);
    mangle(side.adapter.addrs()[0], &first);
    // The connection that was there lives, and does what it did.
    let mut stream = within(connection.open_uni()).await.expect("room for streams");
    stream.write_all(b"still here").await.expect("connected");
    match side.next().await {
        Seen::Received { conn: on, bytes, .. } => assert_eq!((on, &bytes[..]), (conn.id, &b"still here"[..])),
        other => panic!("unexpected {other:?}"),
    }
    if let Adapter::Udp(udp) = &side.adapter {
        let stats = udp.stats();
        assert!(stats.connections <= 2 + limits::MAX_HANDSHAKES as u64, "{stats:?}");
    }
}

/// Everything that two ends say to each other from the first packet on, handshake included, comes again: from the address
/// that it came from, and from those of strangers.
async fn replayed_packets_of_a_live_connection_harm_nobody(dialler: Kind, listener: Kind) {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    let path = Path::to(listener.adapter.addrs()[0]);
    dialler.dial(listener.id, vec![path.addr]);
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    let (near, far) = ((&dialler, &dialled), (&listener, &accepted));
    served(near, far, "before").await;
    // Two iroh nodes may have found another way by now, and what they said at first is enough.
    let caught = path.caught.lock().expect("no panic").clone();
    // The dialler's second flight cannot be in its first packet; what the listener says of the handshake fits into one.
    for (packets, flights) in caught.iter().zip([2, 1]) {
        let long = packets.iter().filter(|packet| packet[0] & 0x80 != 0).count();
        assert!((flights..packets.len()).contains(&long), "{long} of {} are of the handshake", packets.len());
    }
    let strangers = [socket(), socket(), socket()];
    for (round, word) in (0..).zip(["one", "two", "three", "four", "five"]) {
        path.again.store(20, Ordering::SeqCst);
        for (side, packets) in [&listener, &dialler].into_iter().zip(&caught) {
            let target = side.adapter.addrs()[0];
            for packet in packets {
                strangers.iter().for_each(|socket| drop(socket.send_to(packet, target)));
            }
        }
        // On the connection that there was.
        served(near, far, word).await;
        for (side, packets) in [&listener, &dialler].into_iter().zip(&caught) {
            if let Adapter::Udp(udp) = &side.adapter {
                let stats = udp.stats();
                assert!(stats.handshakes <= 1 && stats.connections <= 2, "{stats:?}");
                let bytes: usize = packets.iter().map(Vec::len).sum();
                assert!(stats.bytes_received > (round + 2) * bytes as u64, "they did not come: {stats:?}");
            }
        }
    }
}

/// Each ends long before its credit is used up, and the node takes nothing for a while.
async fn streams_that_end_count_until_the_node_has_taken_what_they_brought(kind: Kind) {
    const STREAMS: usize = 150;
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    let flood = tokio::spawn({
        let connection = connection.clone();
        async move {
            for _ in 0..STREAMS {
                let mut stream = connection.open_uni().await.expect("room for streams");
                stream.write_all(&[7; 32 << 10]).await.expect("connected");
                stream.finish().expect("still open");
            }
        }
    });
    let most = 2 * limits::MAX_STREAMS as usize;
    let (mut waiting, mut ended, mut rounds) = (BTreeMap::new(), 0, 0);
    while ended < STREAMS {
        match tokio::time::timeout(Duration::from_millis(300), side.bench.next()).await {
            Ok(Seen::Received { stream, bytes, fin, .. }) => {
                *waiting.entry(stream).or_insert(0) += bytes.len();
                ended += usize::from(fin);
                assert!(waiting.len() <= most, "{} streams at once", waiting.len());
            }
            Ok(other) => panic!("unexpected {other:?}"),
            Err(_) => {
                rounds += 1;
                assert!(!waiting.is_empty(), "nothing is owed and nothing comes");
                for (stream, bytes) in std::mem::take(&mut waiting) {
                    conn.tell(Outgoing::Credit { stream, bytes });
                }
            }
        }
    }
    assert!(rounds >= STREAMS / most, "{rounds} pauses");
    flood.await.expect("no panic");
}

/// Opens streams and ends or resets them at once, until the other side has enough of it or says nothing more; how many.
async fn empty_streams(connection: Connection) -> u32 {
    for number in 0..8 * Link::MAX_EMPTY_STREAMS {
        // Nothing can be waited for where no further stream is granted.
        let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_secs(2), connection.open_uni()).await else {
            return number;
        };
        // Fails only where the connection has been closed meanwhile.
        let _ = if number % 2 == 0 { stream.finish() } else { stream.reset(7_u32.into()) };
    }
    8 * Link::MAX_EMPTY_STREAMS
}

/// They cost no credit, and each is word of something to a node that need not have time for it.
async fn of_streams_without_a_byte_a_busy_node_has_a_bounded_number_to_hear_of(kind: Kind) {
    let side = Side::new(kind, 2).await;
    let (_endpoint, connection, conn) = rogue(&side).await;
    let opened = empty_streams(connection).await;
    assert!(opened >= Link::MAX_EMPTY_STREAMS, "only {opened} were granted");
    conn.tell(Outgoing::Close { code: CloseCode::Normal });
    let mut heard = 0;
    loop {
        match side.next().await {
            Seen::Received { bytes, fin: true, .. } if bytes.is_empty() => heard += 1,
            Seen::Reset { .. } => heard += 1,
            Seen::Disconnected { .. } => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    // Those that were open when the last came are heard of too.
    let most = Link::MAX_EMPTY_STREAMS + limits::MAX_STREAMS;
    assert!((Link::MAX_EMPTY_STREAMS..=most).contains(&heard), "{heard} of {opened}");
}

async fn who_opens_streams_without_a_byte_is_sent_away_and_peers_are_served(kind: Kind) {
    let mut options = Options::default();
    options.config.admission.open = true;
    let node = Node::in_memory(options);
    let adapter = Adapter::bind(kind, node.attach("test"), Setting::default()).await.expect("loopback is there");
    let id = iroh::EndpointId::from_bytes(node.id().as_bytes()).expect("a key");
    let addr = iroh::EndpointAddr::new(id).with_ip_addr(adapter.addrs()[0]);
    let endpoint = bare(9).await;
    let connection = within(endpoint.connect(addr, Wire::V1.alpn())).await.expect("everybody may knock");
    empty_streams(connection.clone()).await;
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, CloseCode::Exhausted.code().into());
        }
        other => panic!("expected a code, got {other:?}"),
    }
    endpoint.close().await;
    let peer = Node::in_memory(Options::default());
    let _peers = Adapter::bind(Kind::Udp, peer.attach("test"), Setting::default()).await.expect("loopback is there");
    peer.join(&node.ticket());
    tokio::task::block_in_place(|| {
        peer.level_with(&node.id()).wait().expect("served");
        assert_eq!(node.stats().wait().expect("open").closed, 1);
    });
}
