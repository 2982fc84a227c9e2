//! UDP sockets that never wait: what cannot be sent now is kept, what has come is taken in batches.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Async;
use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket as Raw, Type};

use crate::options::BindError;

/// Buffers that one system call fills, each with a train of packets from one sender or a single packet.
const SLOTS: usize = 4;

/// Bytes of a buffer: the largest train that the system puts together.
const SLOT: usize = 64 << 10;

/// System calls that take packets, per socket and turn.
const CALLS: usize = 8;

/// Packets of a train that the system splits (GSO). Longer ones overflow the queues of shaped links.
const TRAIN: usize = 10;

/// What is asked of the system for a socket's queues, in bytes; it may give less. 10 ms at 1.6 Gbit/s.
const QUEUE: usize = 2 << 20;

/// Bytes of UDP payload that every path must carry in one piece (RFC 9000, 14). What is larger tests what a path carries.
const LEAST_MTU: usize = 1_200;

/// Rest after a receive error that is not about a packet, so that it cannot keep the task busy.
const REST: Duration = Duration::from_millis(100);

/// All sockets of an endpoint.
pub(crate) struct Sockets {
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
    offload: bool,
    /// Packets that the system did not take; lost packets to QUIC.
    pub(crate) unsent: u64,
    /// Those of them that are too large for the link, though no larger than QUIC needs.
    pub(crate) oversized: u64,
    /// Bytes of packets, as UDP carries them.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// Which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId(usize);

/// A packet that came in.
pub(crate) struct Packet {
    pub(crate) socket: SocketId,
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<std::net::IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) data: BytesMut,
}

struct Socket {
    io: Async<UdpSocket>,
    state: UdpSocketState,
    addr: SocketAddr,
    /// What the system had no room for.
    stuck: Option<(Transmit, Vec<u8>)>,
    resting: Option<Instant>,
}

impl Sockets {
    /// Binds all addresses. The one that listens on every IPv6 address may fail, if another does not.
    pub(crate) fn bind(addrs: &[SocketAddr], offload: bool) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for &addr in addrs {
            match Socket::bind(addr) {
                Ok(socket) => sockets.push(socket),
                Err(_) if addr.is_ipv6() && addr.ip().is_unspecified() && addrs.len() > 1 => {}
                Err(error) => return Err(BindError::Listen { addr, error }),
            }
        }
        if sockets.is_empty() {
            return Err(BindError::Nowhere);
        }
        let buffer = vec![0; SLOTS * SLOT];
        Ok(Self { sockets, buffer, offload, unsent: 0, oversized: 0, bytes_sent: 0, bytes_received: 0 })
    }

    /// Where they listen, with the ports that the system chose.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.addr).collect()
    }

    /// Whether packets may be split on their way, so that their largest size cannot be found out.
    pub(crate) fn may_fragment(&self) -> bool {
        self.sockets.iter().any(|socket| socket.state.may_fragment())
    }

    /// The socket from which this address is best dialled.
    pub(crate) fn towards(&self, peer: SocketAddr) -> Option<SocketId> {
        let fits = |socket: &Socket| {
            let ip = socket.addr.ip();
            match ip.is_ipv4() == peer.is_ipv4() {
                false => 0,
                true if ip.is_unspecified() || ip.is_loopback() == peer.ip().is_loopback() => 2,
                true => 1,
            }
        };
        let best = self.sockets.iter().enumerate().map(|(at, socket)| (fits(socket), at));
        // The first of equals.
        let best = best.max_by_key(|(fit, at)| (*fit, std::cmp::Reverse(*at)));
        best.filter(|(fit, _)| *fit > 0).map(|(_, at)| SocketId(at))
    }

    /// The longest train that may be sent at once.
    pub(crate) fn train(&self, socket: SocketId) -> usize {
        match self.sockets.get(socket.0) {
            Some(socket) if self.offload => socket.state.max_gso_segments().min(TRAIN),
            _ => 1,
        }
    }

    /// Whether what is sent now leaves at once.
    pub(crate) fn is_clear(&self, socket: SocketId) -> bool {
        self.sockets.get(socket.0).is_some_and(|socket| socket.stuck.is_none())
    }

    /// Sends packets. They are lost where the system refuses them or others are stuck: QUIC sees to that.
    pub(crate) fn send(&mut self, socket: SocketId, transmit: Transmit, contents: &[u8]) {
        let Some(socket) = self.sockets.get_mut(socket.0) else { return };
        let contents = contents.get(..transmit.size).unwrap_or(contents);
        let sent = match socket.stuck {
            Some(_) => false,
            None => match socket.send(&transmit, contents) {
                Ok(()) => {
                    self.bytes_sent += contents.len() as u64;
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.stuck = Some((transmit, contents.to_vec()));
                    true
                }
                Err(error) => {
                    tracing::trace!(%error, to = %transmit.destination, "not sent");
                    if is_too_narrow(&error, transmit.segment_size.unwrap_or(transmit.size)) {
                        self.too_narrow(&transmit);
                    }
                    false
                }
            },
        };
        self.unsent += u64::from(!sent);
    }

    /// Neither QUIC nor anything above it can mend that; whoever runs the node can.
    fn too_narrow(&mut self, transmit: &Transmit) {
        if self.oversized == 0 {
            let to = transmit.destination;
            tracing::warn!(%to, "the link carries less than the {LEAST_MTU} bytes of UDP payload that QUIC needs: raise its MTU");
        }
        self.oversized += 1;
    }

    /// Sends what is stuck as far as possible, and sees that the task is woken for the rest. True if a socket got clear.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut cleared = false;
        for socket in &mut self.sockets {
            while let Some((transmit, contents)) = socket.stuck.take() {
                match socket.send(&transmit, &contents) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        socket.stuck = Some((transmit, contents));
                        if socket.io.poll_writable(cx).is_pending() {
                            break;
                        }
                    }
                    Ok(()) => {
                        self.bytes_sent += contents.len() as u64;
                        cleared = true;
                    }
                    Err(_) => {
                        self.unsent += 1;
                        cleared = true;
                    }
                }
            }
        }
        cleared
    }

    /// Takes packets that have come, and sees that the task is woken for later ones. True if more may be there already.
    pub(crate) fn receive(&mut self, cx: &mut Context<'_>, now: Instant, mut take: impl FnMut(Packet)) -> bool {
        let mut more = false;
        for (at, socket) in self.sockets.iter_mut().enumerate() {
            if socket.resting.is_some_and(|until| until > now) {
                continue;
            }
            socket.resting = None;
            more |= socket.receive(cx, now, &mut self.buffer, |meta, data| {
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                self.bytes_received += data.len() as u64;
                take(Packet { socket: SocketId(at), from: meta.addr, to: meta.dst_ip, ecn, data });
            });
        }
        more
    }

    /// When a socket that rests must be looked at again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sockets.iter().filter_map(|socket| socket.resting).min()
    }
}

impl Socket {
    fn bind(addr: SocketAddr) -> io::Result<Self> {
        let raw = Raw::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        // The system gives what it may.
        let _ = raw.set_recv_buffer_size(QUEUE).and(raw.set_send_buffer_size(QUEUE));
        raw.bind(&addr.into())?;
        let socket = UdpSocket::from(raw);
        let state = UdpSocketState::new((&socket).into())?;
        let addr = socket.local_addr()?;
        Ok(Self { io: Async::new(socket)?, state, addr, stuck: None, resting: None })
    }

    fn send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        let mut datagrams = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let socket = self.io.get_ref();
        match self.state.try_send(socket.into(), &datagrams) {
            // The address that the peer knows may be gone from this machine; any other is better than none.
            Err(error) if transmit.src_ip.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
                datagrams.src_ip = None;
                self.state.try_send(socket.into(), &datagrams)
            }
            sent => sent,
        }
    }

    /// Takes some batches; true if it stopped for their number and not because nothing was left.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buffer: &mut [u8],
        mut take: impl FnMut(&RecvMeta, BytesMut),
    ) -> bool {
        let mut metas = [RecvMeta::default(); SLOTS];
        for _ in 0..CALLS {
            let mut slots = buffer.chunks_exact_mut(SLOT);
            let mut slots: [IoSliceMut<'_>; SLOTS] =
                std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
            match self.state.recv(self.io.get_ref().into(), &mut slots, &mut metas) {
                Ok(count) => {
                    for (meta, slot) in metas.iter().zip(&slots).take(count) {
                        split(meta, slot, &mut take);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.io.poll_readable(cx) {
                    Poll::Pending => return false,
                    // Word of what was taken just now, or something new.
                    Poll::Ready(_) => {}
                },
                // An ICMP message about a packet of ours to one peer says nothing of the others'.
                Err(error) if is_about_a_packet(error.kind()) => {
                    tracing::trace!(%error, addr = %self.addr, "a packet of ours came to nothing");
                }
                // Nothing that another try would mend.
                Err(error) => {
                    tracing::debug!(%error, addr = %self.addr, "receiving failed");
                    self.resting = Some(now + REST);
                    return false;
                }
            }
        }
        true
    }
}

/// Whether an error on sending a packet of this size says that the link carries less than QUIC needs.
fn is_too_narrow(error: &io::Error, size: usize) -> bool {
    #[cfg(unix)]
    const TOO_LARGE: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
    // WSAEMSGSIZE.
    #[cfg(not(unix))]
    const TOO_LARGE: i32 = 10_040;
    size <= LEAST_MTU && error.raw_os_error() == Some(TOO_LARGE)
}

/// Whether an error on receiving tells the fate of a packet that was sent earlier.
fn is_about_a_packet(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, PermissionDenied,
    };
    matches!(
        kind,
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable | PermissionDenied
    )
}

/// Splits a train into its packets.
fn split(meta: &RecvMeta, slot: &[u8], take: &mut impl FnMut(&RecvMeta, BytesMut)) {
    let train = &slot[..meta.len.min(slot.len())];
    if train.is_empty() || meta.stride == 0 {
        return;
    }
    // One allocation for all of them; none outlives the turn.
    let mut train = BytesMut::from(train);
    while !train.is_empty() {
        let packet = train.split_to(meta.stride.min(train.len()));
        take(meta, packet);
    }
}

/// The addresses under which `listening` ones can be reached: specific ones as they are, and those of all interfaces for
/// one that listens everywhere. Loopback only where there is nothing else: on any other machine it would lead to whoever
/// listens on the same port there.
pub(crate) fn reachable(listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let (everywhere, mut addrs): (Vec<_>, Vec<_>) = listening.iter().partition(|addr| addr.ip().is_unspecified());
    if everywhere.is_empty() {
        return addrs;
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    // A link-local address means nothing without its interface, which no ticket carries.
    let found = interfaces.iter().filter(|it| it.is_oper_up() && !it.is_link_local()).map(if_addrs::Interface::ip);
    let (local, remote): (Vec<_>, Vec<_>) = found.partition(std::net::IpAddr::is_loopback);
    let usable = if remote.is_empty() && addrs.is_empty() { local } else { remote };
    for addr in &everywhere {
        let ips = usable.iter().filter(|ip| ip.is_ipv4() == addr.is_ipv4());
        addrs.extend(ips.map(|ip| SocketAddr::new(*ip, addr.port())));
    }
    if addrs.is_empty() {
        let loopback = everywhere.iter().filter(|addr| addr.is_ipv4());
        addrs.extend(loopback.map(|addr| SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port()))));
    }
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_is_split_by_its_stride() {
        let mut meta = RecvMeta::default();
        (meta.len, meta.stride) = (10, 4);
        let mut packets = Vec::new();
        split(&meta, b"aaaabbbbccrest", &mut |_, data| packets.push(data));
        assert_eq!(packets, [&b"aaaa"[..], b"bbbb", b"cc"]);
        meta.stride = 0;
        split(&meta, b"nothing", &mut |_, _| panic!("no packet has no length"));
    }

    /// As where a route is gone, a firewall says no, or an address is none of this machine's network.
    #[test]
    fn a_packet_that_the_system_refuses_is_counted_and_the_next_one_leaves() {
        let there = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let mut sockets = Sockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()], true).expect("loopback is there");
        let packet =
            |destination: SocketAddr, size| Transmit { destination, ecn: None, size, segment_size: None, src_ip: None };
        // No permission to broadcast; no way from loopback to anywhere else.
        let refused = [[255, 255, 255, 255], [192, 0, 2, 1]].map(|ip| SocketAddr::from((ip, 9)));
        for (at, to) in refused.into_iter().enumerate() {
            sockets.send(SocketId(0), packet(to, 3), b"one");
            assert_eq!(sockets.unsent, 1 + at as u64);
            assert!(sockets.is_clear(SocketId(0)), "nothing waits for what will not come");
        }
        sockets.send(SocketId(0), packet(there.local_addr().expect("bound"), 3), b"two");
        let mut buffer = [0; 8];
        assert_eq!(there.recv(&mut buffer).map(|length| &buffer[..length]).expect("it came"), b"two");
        assert_eq!((sockets.unsent, sockets.oversized), (2, 0));
    }

    #[test]
    fn only_a_link_that_is_too_narrow_for_any_packet_of_quic_is_said_to_be() {
        let too_large = rustix::io::Errno::MSGSIZE.into();
        assert!(is_too_narrow(&too_large, 1_200));
        assert!(!is_too_narrow(&too_large, 1_201), "a test of what the path carries");
        assert!(!is_too_narrow(&io::ErrorKind::PermissionDenied.into(), 1_200));
    }

    #[test]
    fn without_offload_every_packet_leaves_alone() {
        let listen: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let train = |offload| {
            let sockets = Sockets::bind(&[listen], offload).expect("loopback is there");
            sockets.train(SocketId(0))
        };
        assert_eq!(train(false), 1);
        assert!((1..=TRAIN).contains(&train(true)));
    }

    #[test]
    fn a_socket_that_listens_everywhere_can_be_reached_somewhere() {
        let fixed = SocketAddr::from(([192, 0, 2, 1], 7));
        let addrs = reachable(&[fixed, (Ipv4Addr::UNSPECIFIED, 9).into()]);
        assert!(addrs.contains(&fixed));
        assert!(addrs.iter().all(|addr| !addr.ip().is_unspecified()));
        assert!(!reachable(&[(Ipv4Addr::UNSPECIFIED, 9).into()]).is_empty());
    }
}
