//! A socket between a dialler and a listener, through which every packet goes.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Most packets that are kept, of each direction.
const KEPT: usize = 1000;

/// An address translator, as long as the test runs.
pub(crate) struct Path {
    /// What to dial.
    pub(crate) addr: SocketAddr,
    /// Set to take another port towards the listener with the next packet.
    pub(crate) moved: Arc<AtomicBool>,
    /// While set, what the dialler sends waits in the socket.
    pub(crate) held: Arc<AtomicBool>,
    /// What went through first: to the listener, and to the dialler.
    pub(crate) caught: Arc<Mutex<[Vec<Vec<u8>>; 2]>>,
    /// How often everything that was caught goes through once more, from where it came.
    pub(crate) again: Arc<AtomicUsize>,
    /// Says so when the dialler tries a second time.
    pub(crate) attempted: Receiver<()>,
}

impl Path {
    pub(crate) fn to(listener: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
        let addr = inside.local_addr().expect("bound");
        let (moved, held) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (moves, holds) = (moved.clone(), held.clone());
        let (caught, again) = (Arc::<Mutex<[Vec<Vec<u8>>; 2]>>::default(), Arc::<AtomicUsize>::default());
        let (catches, replayed, repeats) = (caught.clone(), caught.clone(), again.clone());
        let catch = move |direction: usize, packet: &[u8]| {
            let caught = &mut catches.lock().expect("no panic")[direction];
            if caught.len() < KEPT {
                caught.push(packet.to_vec());
            }
        };
        let (attempts, attempted) = sync_channel(1);
        thread::spawn(move || {
            let outside = || {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback is there");
                socket.set_nonblocking(true).expect("a socket");
                socket
            };
            let turn = Duration::from_millis(1);
            inside.set_read_timeout(Some(turn)).expect("a valid time");
            let (mut socket, mut dialler, mut packet) = (outside(), None, vec![0; 65_536]);
            let mut callers = BTreeSet::new();
            loop {
                for _ in 0..repeats.swap(0, Ordering::SeqCst) {
                    let [to_listener, to_dialler] = replayed.lock().expect("no panic").clone();
                    to_listener.iter().for_each(|packet| drop(socket.send_to(packet, listener)));
                    let dialler = dialler.expect("it spoke first");
                    to_dialler.iter().for_each(|packet| drop(inside.send_to(packet, dialler)));
                }
                if holds.load(Ordering::SeqCst) {
                    thread::sleep(turn);
                } else if let Ok((length, from)) = inside.recv_from(&mut packet) {
                    dialler = Some(from);
                    if moves.swap(false, Ordering::SeqCst) {
                        socket = outside();
                    }
                    let _ = socket.send_to(&packet[..length], listener);
                    catch(0, &packet[..length]);
                    callers.extend(caller(&packet[..length]));
                    if callers.len() > 1 {
                        // The first is enough, and not everybody waits for it.
                        let _ = attempts.try_send(());
                    }
                }
                while let Ok(length) = socket.recv(&mut packet) {
                    let _ = inside.send_to(&packet[..length], dialler.expect("it spoke first"));
                    catch(1, &packet[..length]);
                }
            }
        });
        Self { addr, moved, held, caught, again, attempted }
    }
}

/// The name that a dialler gives itself in a first packet (RFC 9000, 17.2.2): another one for each attempt, and the same in
/// all packets of one.
fn caller(packet: &[u8]) -> Option<Vec<u8>> {
    // Form and type; then the version, and two names behind their lengths.
    let first = packet.first()? & 0xb0 == 0x80;
    let to = usize::from(*packet.get(5)?);
    let from = usize::from(*packet.get(6 + to)?);
    packet.get(7 + to..7 + to + from).filter(|_| first).map(<[u8]>::to_vec)
}
