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

/// Most nodes that are remembered; of a flood of announcements the rest is not heard.
const MAX_NODES: usize = 256;

/// Most addresses of one node.
const MAX_ADDRS: usize = 8;

/// Announces this node, and remembers who else is announced. The daemon has a thread of its own.
pub(crate) struct Discovery {
    daemon: ServiceDaemon,
    events: flume::r#async::RecvStream<'static, ServiceEvent>,
    own: PeerId,
    found: BTreeMap<PeerId, Vec<SocketAddr>>,
}

impl Discovery {
    pub(crate) fn start(own: PeerId, listening: &[SocketAddr]) -> Result<Self, String> {
        let daemon = ServiceDaemon::new().map_err(|error| error.to_string())?;
        let events = daemon.browse(TYPE).map_err(|error| error.to_string())?.into_stream();
        let discovery = Self { daemon, events, own, found: BTreeMap::new() };
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

    /// Where a node was last seen.
    pub(crate) fn addrs(&self, peer: &PeerId) -> Vec<SocketAddr> {
        self.found.get(peer).cloned().unwrap_or_default()
    }

    /// The next node that is seen, with all addresses that are known of it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(PeerId, Vec<SocketAddr>)> {
        loop {
            let event = match Pin::new(&mut self.events).poll_next(cx) {
                Poll::Ready(Some(event)) => event,
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
            if let ServiceEvent::ServiceResolved(service) = event
                && let Some(found) = self.note(&service)
            {
                return Poll::Ready(found);
            }
        }
    }

    fn note(&mut self, service: &ResolvedService) -> Option<(PeerId, Vec<SocketAddr>)> {
        let peer = named(&service.fullname)?;
        if peer == self.own || self.found.len() >= MAX_NODES && !self.found.contains_key(&peer) {
            return None;
        }
        let ips = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let usable = ips.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        let known = self.found.entry(peer).or_default();
        for addr in usable.map(|ip| SocketAddr::new(ip, service.port)) {
            known.retain(|old| *old != addr);
            known.insert(0, addr);
        }
        known.truncate(MAX_ADDRS);
        Some((peer, known.clone()))
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

/// Whose service has this name.
fn named(fullname: &str) -> Option<PeerId> {
    let digits = fullname.get(..DIGITS)?.to_ascii_uppercase();
    let id = BASE32_NOPAD.decode(digits.as_bytes()).ok()?;
    id.try_into().ok().map(PeerId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_says_whose_it_is() {
        let peer = PeerId([0xa5; 32]);
        let label = label(&peer);
        assert_eq!(label.len(), DIGITS);
        assert_eq!(named(&format!("{label}-65535.{TYPE}")), Some(peer));
        for bad in ["", "printer._peat._udp.local.", &label[1..], &"ä".repeat(40), &"1".repeat(60)] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }
}
