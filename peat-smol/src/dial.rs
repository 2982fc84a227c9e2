//! Dials under way: the addresses of a peer are tried one behind the other, and the first that answers wins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peat_node::PeerId;
use peat_node::transport::Dial;

/// Time after which the next address is tried as well (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Most addresses of one dial: as many as a node remembers, and as many that were found on the local networks.
const MAX_ADDRS: usize = 16;

/// The dials under way, one for each peer. `A` names an attempt at one address.
#[derive(Debug)]
pub(crate) struct Dials<A> {
    dials: BTreeMap<PeerId, Attempts<A>>,
}

#[derive(Debug)]
struct Attempts<A> {
    /// Those that have been or will be tried.
    addrs: Vec<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    running: BTreeSet<A>,
    /// When the next address is tried.
    next: Instant,
    /// When it has failed if nothing is left to try.
    patience: Instant,
    deadline: Instant,
}

/// What is to be done for dials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<A> {
    /// Try to reach the peer here; answered by [`Dials::started`] if that can be begun.
    Try(PeerId, SocketAddr),
    /// Nobody answered: give these attempts up.
    Failed(PeerId, BTreeSet<A>),
}

impl<A: Ord + Copy> Dials<A> {
    pub(crate) fn new() -> Self {
        Self { dials: BTreeMap::new() }
    }

    /// Begins a dial, unless there is one to this peer. With nothing to try it waits so long for an address to be found.
    pub(crate) fn begin(&mut self, dial: Dial, now: Instant, limit: Duration, patience: Duration) {
        self.dials.entry(dial.peer).or_insert(Attempts {
            addrs: Vec::new(),
            waiting: VecDeque::new(),
            running: BTreeSet::new(),
            next: now,
            patience: now + patience,
            deadline: now + limit,
        });
        self.found(dial.peer, dial.addrs);
    }

    /// More addresses of a peer; ignored unless it is being dialled.
    pub(crate) fn found(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = SocketAddr>) {
        let Some(dial) = self.dials.get_mut(&peer) else { return };
        for addr in addrs {
            if dial.addrs.len() < MAX_ADDRS && !dial.addrs.contains(&addr) {
                dial.addrs.push(addr);
                dial.waiting.push_back(addr);
            }
        }
    }

    /// The next thing to do.
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step<A>> {
        let due = self.dials.iter_mut().find(|(_, dial)| dial.due().is_some_and(|due| due <= now));
        let (&peer, dial) = due?;
        if dial.deadline > now
            && let Some(addr) = dial.waiting.pop_front()
        {
            dial.next = now + STAGGER;
            return Some(Step::Try(peer, addr));
        }
        let running = self.dials.remove(&peer).map(|dial| dial.running).unwrap_or_default();
        Some(Step::Failed(peer, running))
    }

    pub(crate) fn started(&mut self, peer: &PeerId, attempt: A) {
        if let Some(dial) = self.dials.get_mut(peer) {
            dial.running.insert(attempt);
        }
    }

    /// An attempt came to nothing: the next address is tried at once.
    pub(crate) fn failed(&mut self, attempt: A, now: Instant) {
        let dial = self.dials.values_mut().find(|dial| dial.running.contains(&attempt));
        if let Some(dial) = dial {
            dial.running.remove(&attempt);
            dial.next = dial.next.min(now);
        }
    }

    /// An attempt reached the peer: the others, to be given up. `None` if the dial had ended.
    pub(crate) fn reached(&mut self, peer: &PeerId, attempt: A) -> Option<BTreeSet<A>> {
        let dial = self.dials.get(peer)?;
        if !dial.running.contains(&attempt) {
            return None;
        }
        let mut others = self.dials.remove(peer)?.running;
        others.remove(&attempt);
        Some(others)
    }

    /// The peers that are being dialled, all given up.
    pub(crate) fn clear(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.dials).into_keys().collect()
    }

    /// When [`Self::step`] has something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.dials.values().filter_map(Attempts::due).min()
    }
}

impl<A> Attempts<A> {
    fn due(&self) -> Option<Instant> {
        let next = if !self.waiting.is_empty() {
            self.next
        } else if self.running.is_empty() {
            self.patience.max(self.next)
        } else {
            self.deadline
        };
        Some(next.min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([7; 32]);
    const LIMIT: Duration = Duration::from_secs(30);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn begin(dials: &mut Dials<u8>, addrs: Vec<SocketAddr>, now: Instant) {
        dials.begin(Dial { peer: PEER, addrs }, now, LIMIT, Duration::ZERO);
    }

    #[test]
    fn addresses_are_tried_in_order_with_a_head_start_for_the_first() {
        let (mut dials, now) = (Dials::new(), Instant::now());
        begin(&mut dials, vec![addr(1), addr(2), addr(1), addr(3)], now);
        assert_eq!(dials.step(now), Some(Step::Try(PEER, addr(1))));
        dials.started(&PEER, 1);
        assert_eq!(dials.step(now), None);
        assert_eq!(dials.deadline(), Some(now + STAGGER));
        assert_eq!(dials.step(now + STAGGER), Some(Step::Try(PEER, addr(2))));
        dials.started(&PEER, 2);
        dials.failed(2, now + STAGGER);
        assert_eq!(dials.step(now + STAGGER), Some(Step::Try(PEER, addr(3))), "a failure is no reason to wait");
        dials.started(&PEER, 3);
        assert_eq!(dials.reached(&PEER, 3), Some(BTreeSet::from([1])));
        assert_eq!(dials.reached(&PEER, 1), None, "one wins");
        assert_eq!(dials.deadline(), None);
    }

    #[test]
    fn a_dial_fails_at_once_with_nothing_to_try_and_in_time_into_silence() {
        let (mut dials, now) = (Dials::<u8>::new(), Instant::now());
        begin(&mut dials, Vec::new(), now);
        assert_eq!(dials.step(now), Some(Step::Failed(PEER, BTreeSet::new())));
        begin(&mut dials, vec![addr(1)], now);
        begin(&mut dials, vec![addr(2)], now);
        assert_eq!(dials.step(now), Some(Step::Try(PEER, addr(1))));
        dials.started(&PEER, 1);
        assert_eq!(dials.step(now + STAGGER), Some(Step::Try(PEER, addr(2))), "a second wish adds its addresses");
        dials.started(&PEER, 2);
        assert_eq!(dials.step(now + LIMIT - STAGGER), None);
        assert_eq!(dials.step(now + LIMIT), Some(Step::Failed(PEER, BTreeSet::from([1, 2]))));
    }

    #[test]
    fn an_address_that_is_found_later_is_tried_too() {
        let (mut dials, now) = (Dials::<u8>::new(), Instant::now());
        dials.found(PEER, [addr(1)]);
        dials.begin(Dial { peer: PEER, addrs: Vec::new() }, now, LIMIT, LIMIT / 10);
        assert_eq!(dials.step(now), None);
        dials.found(PEER, [addr(1)]);
        assert_eq!(dials.step(now), Some(Step::Try(PEER, addr(1))));
    }
}
