//! A socket between a dialler and a listener, through which every packet goes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// An address translator, as long as the test runs.
pub(crate) struct Path {
    /// What to dial.
    pub(crate) addr: SocketAddr,
    /// Set to take another port towards the listener with the next packet.
    pub(crate) moved: Arc<AtomicBool>,
    /// While set, what the dialler sends waits in the socket.
    pub(crate) held: Arc<AtomicBool>,
    /// Says so when the listener has answered for the first time.
    pub(crate) answered: Receiver<()>,
}

impl Path {
    pub(crate) fn to(listener: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
        let addr = inside.local_addr().expect("bound");
        let (moved, held) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (moves, holds) = (moved.clone(), held.clone());
        let (answers, answered) = sync_channel(1);
        thread::spawn(move || {
            let outside = || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
                socket.set_nonblocking(true).expect("a socket");
                socket
            };
            let turn = Duration::from_millis(1);
            inside.set_read_timeout(Some(turn)).expect("a valid time");
            let (mut socket, mut dialler, mut packet) = (outside(), None, vec![0; 65_536]);
            loop {
                if holds.load(Ordering::SeqCst) {
                    thread::sleep(turn);
                } else if let Ok((length, from)) = inside.recv_from(&mut packet) {
                    dialler = Some(from);
                    if moves.swap(false, Ordering::SeqCst) {
                        socket = outside();
                    }
                    let _ = socket.send_to(&packet[..length], listener);
                }
                while let Ok(length) = socket.recv(&mut packet) {
                    let _ = inside.send_to(&packet[..length], dialler.expect("it spoke first"));
                    // The first is enough, and not everybody waits for it.
                    let _ = answers.try_send(());
                }
            }
        });
        Self { addr, moved, held, answered }
    }
}
