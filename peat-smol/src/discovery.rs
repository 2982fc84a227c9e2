//! Finding peers on the local networks by multicast DNS-SD (RFC 6763). What is found is not trusted: an address, under
//! which somebody may or may not be able to prove the key that was asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use data_encoding::BASE32_NOPAD;
use futures_lite::Stream;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use peat_node::PeerId;

/// The service's type.
const TYPE: &str = "_peat._udp.local.";

/// Digits of a node's id in the name of its service: a DNS label has room for 63 characters.
const DIGITS: usize = 52;

/// Most nodes that are remembered. A flood of announcements displaces the one that was seen least recently, but none that
/// was ever asked for.
const MAX_NODES: usize = 256;

/// Most addresses of one node.
const MAX_ADDRS: usize = 8;

/// Announces this node, and remembers who else is announced. The daemon has a thread of its own.
pub(crate) struct Discovery {
    daemon: ServiceDaemon,
    /// Absent when the daemon is gone.
    events: Option<flume::r#async::RecvStream<'static, ServiceEvent>>,
    own: PeerId,
    found: Found,
}

/// What was heard of other nodes.
#[derive(Default)]
struct Found {
    nodes: BTreeMap<PeerId, Sighting>,
    /// How often somebody was seen.
    seen: u64,
}

#[derive(Default)]
struct Sighting {
    /// The newest first.
    addrs: Vec<SocketAddr>,
    last: u64,
    wanted: bool,
}

impl Discovery {
    pub(crate) fn start(own: PeerId, listening: &[SocketAddr]) -> Result<Self, String> {
        let daemon = ServiceDaemon::new().map_err(|error| error.to_string())?;
        let events = daemon.browse(TYPE).map_err(|error| error.to_string())?.into_stream();
        let discovery = Self { daemon, events: Some(events), own, found: Found::default() };
        discovery.announce(listening);
        Ok(discovery)
    }

    /// Announces these addresses; a service has one port, so each port is one.
    pub(crate) fn announce(&self, listening: &[SocketAddr]) {
        let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
        listening.iter().for_each(|addr| ports.entry(addr.port()).or_default().push(addr.ip()));
        for (port, ips) in ports {
            let name = format!("{}-{port}", label(&self.own));
            let info = ServiceInfo::new(TYPE, &name, &format!("{name}.local."), &ips[..], port, None);
            if let Err(error) = info.and_then(|info| self.daemon.register(info)) {
                tracing::warn!(%error, "not announced on the local networks");
            }
        }
    }

    /// Where a node was last seen, which is kept from here on.
    pub(crate) fn addrs(&mut self, peer: &PeerId) -> Vec<SocketAddr> {
        self.found.want(peer)
    }

    /// The next node that is seen, with all addresses that are known of it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(PeerId, Vec<SocketAddr>)> {
        while let Some(events) = &mut self.events {
            match Pin::new(events).poll_next(cx) {
                Poll::Ready(Some(ServiceEvent::ServiceResolved(service))) => {
                    if let Some(found) = self.note(&service) {
                        return Poll::Ready(found);
                    }
                }
                Poll::Ready(Some(ServiceEvent::ServiceRemoved(_, name))) => self.removed(&name),
                Poll::Ready(Some(_)) => {}
                // The daemon ends a browse whose events pile up.
                Poll::Ready(None) => {
                    let again = self.daemon.browse(TYPE);
                    let again = again.inspect_err(|error| tracing::warn!(%error, "no longer looking for peers"));
                    self.events = again.ok().map(flume::Receiver::into_stream);
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn note(&mut self, service: &ResolvedService) -> Option<(PeerId, Vec<SocketAddr>)> {
        let (peer, _) = named(&service.fullname)?;
        if peer == self.own {
            return None;
        }
        let ips = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let usable = ips.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        let addrs = self.found.see(peer, usable.map(|ip| SocketAddr::new(ip, service.port)))?;
        Some((peer, addrs))
    }

    fn removed(&mut self, fullname: &str) {
        if let Some((peer, port)) = named(fullname) {
            self.found.leave(&peer, port);
        }
    }
}

impl Found {
    /// `None` if there is no room, because everybody is wanted.
    fn see(&mut self, peer: PeerId, addrs: impl Iterator<Item = SocketAddr>) -> Option<Vec<SocketAddr>> {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&peer) {
            let unwanted = self.nodes.iter().filter(|(_, it)| !it.wanted);
            let oldest = *unwanted.min_by_key(|(_, it)| it.last)?.0;
            self.nodes.remove(&oldest);
        }
        self.seen += 1;
        let known = self.nodes.entry(peer).or_default();
        known.last = self.seen;
        for addr in addrs {
            known.addrs.retain(|old| *old != addr);
            known.addrs.insert(0, addr);
        }
        known.addrs.truncate(MAX_ADDRS);
        Some(known.addrs.clone())
    }

    fn want(&mut self, peer: &PeerId) -> Vec<SocketAddr> {
        let Some(known) = self.nodes.get_mut(peer) else { return Vec::new() };
        known.wanted = true;
        known.addrs.clone()
    }

    /// A service is said to be gone. Anybody can say so: where a wanted node was is still worth a try.
    fn leave(&mut self, peer: &PeerId, port: u16) {
        if let Some(known) = self.nodes.get_mut(peer)
            && !known.wanted
        {
            known.addrs.retain(|addr| addr.port() != port);
            if known.addrs.is_empty() {
                self.nodes.remove(peer);
            }
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // It takes its leave on the networks by itself; an error means that it is gone already.
        let _ = self.daemon.shutdown();
    }
}

fn label(peer: &PeerId) -> String {
    BASE32_NOPAD.encode(peer.as_bytes()).to_ascii_lowercase()
}

/// Whose service has this name, and at which port.
fn named(fullname: &str) -> Option<(PeerId, u16)> {
    let digits = fullname.get(..DIGITS)?.to_ascii_uppercase();
    let id = BASE32_NOPAD.decode(digits.as_bytes()).ok()?;
    let port = fullname.get(DIGITS..)?.strip_prefix('-')?.split('.').next()?.parse().ok()?;
    Some((PeerId(id.try_into().ok()?), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_says_whose_it_is() {
        let peer = PeerId([0xa5; 32]);
        let label = label(&peer);
        assert_eq!(label.len(), DIGITS);
        assert_eq!(named(&format!("{label}-65535.{TYPE}")), Some((peer, 65_535)));
        let far = format!("{label}-65536.{TYPE}");
        for bad in ["", "printer._peat._udp.local.", &label, &far, &label[1..], &"ä".repeat(40), &"1".repeat(60)] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_flood_of_announcements_neither_hides_newcomers_nor_displaces_whom_somebody_wants() {
        let (mut found, wanted) = (Found::default(), PeerId([1; 32]));
        let addr = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        found.see(wanted, [addr(1)].into_iter());
        assert_eq!(found.want(&wanted), [addr(1)]);
        for n in 0..1_000_u16 {
            let mut id = [2; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            assert_eq!(found.see(PeerId(id), [addr(n)].into_iter()), Some(vec![addr(n)]));
            assert!(found.nodes.len() <= MAX_NODES);
        }
        assert_eq!(found.want(&wanted), [addr(1)]);
        found.leave(&wanted, 1);
        assert_eq!(found.want(&wanted), [addr(1)], "a farewell can be forged");
    }

    #[test]
    fn a_service_that_takes_its_leave_is_forgotten() {
        let (mut found, peer) = (Found::default(), PeerId([1; 32]));
        let addr = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        found.see(peer, [addr(1), addr(2)].into_iter());
        found.leave(&peer, 1);
        assert_eq!(found.nodes[&peer].addrs, [addr(2)]);
        found.leave(&peer, 2);
        assert!(found.nodes.is_empty());
    }
}
