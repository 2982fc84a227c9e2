//! Dials: which transport is asked to reach which peer.

use std::collections::BTreeMap;

use peat_proto::PeerId;

use crate::address::AddressBook;
use crate::transport::{Dial, PortId};

/// The attached transports, and the dials under way. A dial goes to the transports in the order in which they were
/// attached, to the next when one fails; before the first transport is attached, it waits.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    ports: BTreeMap<PortId, flume::Sender<Dial>>,
    /// The transport that was asked last; none while there is none to ask.
    under_way: BTreeMap<PeerId, Option<PortId>>,
}

/// No transport could reach the peer.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Unreachable(pub(crate) PeerId);

impl Dials {
    pub(crate) fn attach(&mut self, port: PortId, dials: flume::Sender<Dial>, book: &AddressBook) -> Vec<Unreachable> {
        self.ports.insert(port, dials);
        self.go_on(None, book)
    }

    /// The dials that the transport had under way go to the next.
    pub(crate) fn detach(&mut self, port: PortId, book: &AddressBook) -> Vec<Unreachable> {
        self.ports.remove(&port);
        self.go_on(Some(port), book)
    }

    pub(crate) fn dial(&mut self, peer: PeerId, book: &AddressBook) -> Option<Unreachable> {
        self.ask(peer, None, book)
    }

    /// The transport could not reach the peer. Late word of a transport that is not asked any more is ignored.
    pub(crate) fn failed(&mut self, port: PortId, peer: PeerId, book: &AddressBook) -> Option<Unreachable> {
        if self.under_way.get(&peer) == Some(&Some(port)) { self.ask(peer, Some(port), book) } else { None }
    }

    pub(crate) fn reached(&mut self, peer: &PeerId) {
        self.under_way.remove(peer);
    }

    /// Asks anew for every dial that waits for `last`.
    fn go_on(&mut self, last: Option<PortId>, book: &AddressBook) -> Vec<Unreachable> {
        let waiting = self.under_way.iter().filter(|(_, asked)| **asked == last);
        let peers: Vec<PeerId> = waiting.map(|(peer, _)| *peer).collect();
        peers.into_iter().filter_map(|peer| self.ask(peer, last, book)).collect()
    }

    /// Asks the first transport behind `last` that takes the dial.
    fn ask(&mut self, peer: PeerId, last: Option<PortId>, book: &AddressBook) -> Option<Unreachable> {
        if self.ports.is_empty() && last.is_none() {
            self.under_way.insert(peer, None);
            return None;
        }
        let addrs = book.addrs(&peer);
        let taken = self.ports.iter().filter(|(port, _)| last.is_none_or(|last| **port > last)).find(|(_, dials)| {
            let addrs = addrs.clone();
            dials.try_send(Dial { peer, addrs }).is_ok()
        });
        if let Some((port, _)) = taken {
            self.under_way.insert(peer, Some(*port));
            None
        } else {
            self.under_way.remove(&peer);
            Some(Unreachable(peer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([5; 32]);

    fn port(dials: &mut Dials, id: u64, book: &AddressBook) -> (PortId, flume::Receiver<Dial>) {
        let (sender, receiver) = flume::bounded(1);
        let id = PortId::numbered(id);
        assert_eq!(dials.attach(id, sender, book), []);
        (id, receiver)
    }

    #[test]
    fn a_dial_goes_from_transport_to_transport_and_fails_behind_the_last() {
        let mut book = AddressBook::default();
        let addr = "192.0.2.1:1".parse().expect("an address");
        book.want(PEER, &[addr], None);
        let mut dials = Dials::default();
        let (first, at_first) = port(&mut dials, 1, &book);
        let (second, at_second) = port(&mut dials, 2, &book);

        assert_eq!(dials.dial(PEER, &book), None);
        assert_eq!(at_first.try_recv().expect("asked").addrs, [addr]);
        assert!(at_second.is_empty());
        assert_eq!(dials.failed(second, PEER, &book), None, "it was not asked");
        assert_eq!(dials.failed(first, PEER, &book), None);
        assert_eq!(at_second.try_recv().expect("asked").peer, PEER);
        assert_eq!(dials.failed(second, PEER, &book), Some(Unreachable(PEER)));
        assert_eq!(dials.failed(second, PEER, &book), None, "said once");
    }

    #[test]
    fn a_dial_waits_for_the_first_transport_and_passes_on_when_one_goes() {
        let book = AddressBook::default();
        let mut dials = Dials::default();
        assert_eq!(dials.dial(PEER, &book), None);
        let (first, at_first) = port(&mut dials, 1, &book);
        assert_eq!(at_first.try_recv().expect("asked").peer, PEER);
        let (second, at_second) = port(&mut dials, 2, &book);
        assert_eq!(dials.detach(first, &book), []);
        assert_eq!(at_second.try_recv().expect("asked").peer, PEER);
        assert_eq!(dials.detach(second, &book), [Unreachable(PEER)]);
    }

    #[test]
    fn a_transport_that_does_not_keep_up_is_passed_over() {
        let book = AddressBook::default();
        let mut dials = Dials::default();
        let (_, at_first) = port(&mut dials, 1, &book);
        let (_, at_second) = port(&mut dials, 2, &book);
        assert_eq!(dials.dial(PEER, &book), None);
        assert_eq!(dials.dial(PeerId([6; 32]), &book), None);
        assert_eq!(at_first.len(), 1);
        assert_eq!(at_second.try_recv().expect("asked").peer, PeerId([6; 32]));
    }
}
