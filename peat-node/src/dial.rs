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
