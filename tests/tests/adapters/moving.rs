//! Addresses: both families, and one that changes while a connection lives.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;

use peat_node::proto::policy::Class;
use peat_node::proto::{CloseCode, Lane};
use peat_node::transport::Outgoing;
use peat_node::transport::bench::Seen;

use crate::path::Path;
use crate::side::{Conn, Kind, Setting, Side};

crate::over_pairs! {
    a_connection_outlives_a_new_address_of_the_dialling_side,
    both_families_and_several_addresses_are_served_at_once,
}

/// Says this to the other side, and waits until it is heard.
async fn say(from: &Conn, to: (&Side, &Conn), word: &'static str) {
    from.send(Lane::Class(Class::Normal), word);
    let mut heard = Vec::new();
    while heard.len() < word.len() {
        match to.0.next().await {
            Seen::Received { conn, stream, bytes, .. } => {
                assert_eq!(conn, to.1.id, "it is the same connection");
                heard.extend_from_slice(&bytes);
                to.1.tell(Outgoing::Credit { stream, bytes: bytes.len() });
            }
            Seen::Sent { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(heard, word.as_bytes());
}

async fn a_connection_outlives_a_new_address_of_the_dialling_side(dialler: Kind, listener: Kind) {
    let (dialler, listener) = (Side::new(dialler, 1).await, Side::new(listener, 2).await);
    let path = Path::to(listener.adapter.addrs()[0]);
    dialler.dial(listener.id, vec![path.addr]);
    let (dialled, accepted) = (dialler.connected().await, listener.connected().await);
    say(&dialled, (&listener, &accepted), "before").await;
    say(&accepted, (&dialler, &dialled), "before").await;
    for word in ["after the first", "after the second"] {
        path.moved.store(true, Ordering::SeqCst);
        say(&dialled, (&listener, &accepted), word).await;
        say(&accepted, (&dialler, &dialled), word).await;
    }
}

/// The next connection; the one before may be ending.
async fn next_connection(side: &Side) -> Conn {
    loop {
        match side.next().await {
            Seen::Connected { conn, peer, addr, link, outgoing } => {
                return Conn { id: conn, peer, addr, link, outgoing };
            }
            Seen::Sent { .. } | Seen::Disconnected { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

async fn both_families_and_several_addresses_are_served_at_once(dialler: Kind, listener: Kind) {
    let loopbacks: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
    if UdpSocket::bind(loopbacks[1]).is_err() {
        // Past the capture of a test that succeeds.
        writeln!(std::io::stderr(), "SKIPPED: this machine has no IPv6").expect("somebody listens");
        return;
    }
    let setting = || Setting { listen: loopbacks.to_vec(), ..Setting::default() };
    let picky = dialler == Kind::Iroh;
    let (dialler, listener) = (Side::with(dialler, 1, setting()).await, Side::with(listener, 2, setting()).await);
    let addrs = listener.adapter.addrs().to_vec();
    assert_eq!(addrs.len(), 2);
    for addr in addrs {
        dialler.dial(listener.id, vec![addr]);
        let (dialled, accepted) = (next_connection(&dialler).await, next_connection(&listener).await);
        // iroh remembers others of the peer, and takes which it likes.
        assert!(picky || dialled.addr == Some(addr));
        say(&dialled, (&listener, &accepted), "there").await;
        say(&accepted, (&dialler, &dialled), "and back").await;
        dialled.tell(Outgoing::Close { code: CloseCode::Normal });
    }
}
