//! A network inside the process: what an adapter does, without sockets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use bytes::Bytes;
use peat_node::Node;
use peat_node::proto::{ConnId, Link, PeerId, Role, StreamId, Wire};
use peat_node::transport::queue::{Receiver, queue};
use peat_node::transport::{Conn, Outgoing, Port, STREAM_CREDIT};

/// Sizes of the pieces into which frames are cut, so that frames and pieces never agree.
const PIECES: [usize; 5] = [1, 3, 1013, 7, 4099];

/// Nodes that can reach one another.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ports: Mutex<BTreeMap<PeerId, Port>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    next: AtomicU64,
}

/// Both ends of a connection; side 0 dialled.
struct Connection {
    wires: [Mutex<Option<Conn>>; 2],
    credit: [Mutex<BTreeMap<StreamId, usize>>; 2],
    changed: [Condvar; 2],
    down: AtomicBool,
}

impl Network {
    /// Attaches a node and serves its dials until it closes.
    pub(crate) fn attach(&self, node: &Node) {
        let (id, port) = (node.id(), node.attach("test"));
        let ports = &self.0.ports;
        ports.lock().expect("no panic").insert(id, port.clone());
        let network = self.clone();
        thread::spawn(move || {
            while let Some(dial) = pollster::block_on(port.dial()) {
                let other = network.0.ports.lock().expect("no panic");
                match other.get(&dial.peer).cloned() {
                    Some(other) => network.connect((id, &port), (dial.peer, &other)),
                    None => port.dial_failed(dial.peer),
                }
            }
        });
    }

    /// Takes a node off the network; later dials to it fail.
    pub(crate) fn detach(&self, node: &Node) {
        self.0.ports.lock().expect("no panic").remove(&node.id());
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        let connections = std::mem::take(&mut *self.0.connections.lock().expect("no panic"));
        connections.iter().for_each(|connection| connection.close());
    }

    fn connect(&self, dialler: (PeerId, &Port), listener: (PeerId, &Port)) {
        let mut binding = [7; 32];
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        binding[..8].copy_from_slice(&number.to_be_bytes());
        let link = |role| Link { role, wire: Wire::V1, reliable: true, binding, rtt: None };
        let ((to_near, from_near), (to_far, from_far)) = (queue(), queue());
        let near = dialler.1.connected(listener.0, None, link(Role::Dialled), &to_near);
        let far = listener.1.connected(dialler.0, None, link(Role::Accepted), &to_far);
        let connection = Arc::new(Connection {
            wires: [Mutex::new(Some(near)), Mutex::new(Some(far))],
            credit: Default::default(),
            changed: Default::default(),
            down: AtomicBool::new(false),
        });
        let connections = &self.0.connections;
        connections.lock().expect("no panic").push(connection.clone());
        for (side, queue) in [(0, from_near), (1, from_far)] {
            let connection = connection.clone();
            thread::spawn(move || connection.pump(side, queue));
        }
    }
}

impl Connection {
    /// Does what one side's node wants done.
    fn pump(&self, side: usize, mut queue: Receiver<(ConnId, Outgoing)>) {
        while let Some((_, outgoing)) = queue.recv_until(None) {
            match outgoing {
                Outgoing::Frame { lane, frame } => {
                    let opener = if side == 0 { Role::Dialled } else { Role::Accepted };
                    let (stream, len) = (StreamId::new(lane.index() as u64, opener, false), frame.len());
                    self.carry(side, stream, frame);
                    self.with_wire(side, |wire| wire.sent(len));
                }
                Outgoing::Reply { .. } => panic!("there is no bidirectional stream"),
                // Receive credit of this side is send credit of the other.
                Outgoing::Credit { stream, bytes } => self.grant(1 - side, stream, bytes),
                Outgoing::Stop { stream, .. } => self.grant(1 - side, stream, usize::MAX / 2),
                Outgoing::Close { code } => {
                    self.with_wire(1 - side, |wire| wire.closed(code.code()));
                    break;
                }
            }
        }
        self.close();
    }

    /// Carries a frame to the other side in odd pieces, as far as its credit allows.
    fn carry(&self, side: usize, stream: StreamId, mut frame: Bytes) {
        for piece in PIECES.iter().cycle() {
            if frame.is_empty() || !self.spend(side, stream, (*piece).min(frame.len())) {
                return;
            }
            let bytes = frame.split_to((*piece).min(frame.len()));
            self.with_wire(1 - side, |wire| wire.received(stream, bytes, false));
        }
    }

    fn grant(&self, side: usize, stream: StreamId, bytes: usize) {
        let mut credit = self.credit[side].lock().expect("no panic");
        let left = credit.entry(stream).or_insert(STREAM_CREDIT);
        *left = left.saturating_add(bytes);
        self.changed[side].notify_all();
    }

    /// Waits for credit; false when the connection is down.
    fn spend(&self, side: usize, stream: StreamId, bytes: usize) -> bool {
        let credit = self.credit[side].lock().expect("no panic");
        let starved = |credit: &mut BTreeMap<StreamId, usize>| {
            let left = *credit.entry(stream).or_insert(STREAM_CREDIT);
            left < bytes && !self.down.load(Ordering::SeqCst)
        };
        let mut credit = self.changed[side].wait_while(credit, starved).expect("no panic");
        match credit.get_mut(&stream) {
            Some(left) if *left >= bytes => *left -= bytes,
            _ => return false,
        }
        true
    }

    fn with_wire(&self, side: usize, f: impl FnOnce(&Conn)) {
        if let Some(wire) = &*self.wires[side].lock().expect("no panic") {
            f(wire);
        }
    }

    fn close(&self) {
        for side in 0..2 {
            *self.wires[side].lock().expect("no panic") = None;
            // The flag moves under each lock, so that nobody starts to wait without seeing it.
            let _credit = self.credit[side].lock().expect("no panic");
            self.down.store(true, Ordering::SeqCst);
            self.changed[side].notify_all();
        }
    }
}
