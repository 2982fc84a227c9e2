//! Peers that this node wants to be connected to, for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Invitation, PeerId};
use crate::rng::Rng;
use crate::time::Time;

/// The wanted peers. A lost one is dialled again after an exponential backoff with jitter (half of it fixed, half drawn),
/// which never gives up and starts afresh after a connection over which documents flowed. The wait counts from the
/// beginning of a dial: one that was under way for longer than that, because nobody answered, is followed by the next at
/// once, so that a transport which tests the silence finds a peer that comes back as soon as it does.
#[derive(Debug)]
pub(crate) struct Wanted {
    peers: BTreeMap<PeerId, Want>,
    min: Duration,
    max: Duration,
}

#[derive(Debug)]
struct Want {
    invitation: Option<Invitation>,
    state: State,
    tries: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Due(Time),
    /// Since when.
    Dialling(Time),
    Connected,
}

impl Wanted {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { peers: BTreeMap::new(), min, max }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    pub(crate) fn invitation(&self, peer: &PeerId) -> Option<Invitation> {
        self.peers.get(peer).and_then(|want| want.invitation)
    }

    /// Wants a peer; a new invitation takes the place of an old one.
    pub(crate) fn want(&mut self, peer: PeerId, invitation: Option<Invitation>, connected: bool, now: Time) {
        let state = if connected { State::Connected } else { State::Due(now) };
        let want = self.peers.entry(peer).or_insert(Want { invitation: None, state, tries: 0 });
        want.invitation = invitation.or(want.invitation);
    }

    pub(crate) fn unwant(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    pub(crate) fn connected(&mut self, peer: &PeerId) {
        if let Some(want) = self.peers.get_mut(peer) {
            want.state = State::Connected;
        }
    }

    /// Documents flow: the next loss starts with the shortest wait.
    pub(crate) fn served(&mut self, peer: &PeerId) {
        if let Some(want) = self.peers.get_mut(peer) {
            want.tries = 0;
        }
    }

    /// A dial came to nothing.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Time, rng: &mut Rng) {
        if let Some(State::Dialling(since)) = self.peers.get(peer).map(|want| &want.state) {
            let since = *since;
            self.wait(peer, since, now, rng);
        }
    }

    /// The last connection is gone.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Time, rng: &mut Rng) {
        self.wait(peer, now, now, rng);
    }

    fn wait(&mut self, peer: &PeerId, since: Time, now: Time, rng: &mut Rng) {
        let Some(want) = self.peers.get_mut(peer) else { return };
        let wait = self.min.saturating_mul(1 << want.tries.min(16)).min(self.max);
        want.tries = want.tries.saturating_add(1);
        let half = u64::try_from(wait.as_micros() / 2).unwrap_or(u64::MAX);
        let due = since + Duration::from_micros(half + rng.below(half.max(1)));
        want.state = State::Due(due.max(now));
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let due = self.peers.values().filter_map(|want| match want.state {
            State::Due(at) => Some(at),
            State::Dialling(_) | State::Connected => None,
        });
        due.min()
    }

    /// A peer whose time to be dialled has come; it counts as being dialled from here on.
    pub(crate) fn next_due(&mut self, now: Time) -> Option<PeerId> {
        let due = self.peers.iter_mut().find(|(_, want)| matches!(want.state, State::Due(at) if at <= now));
        due.map(|(peer, want)| {
            want.state = State::Dialling(now);
            *peer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_peer_is_dialled_ever_more_rarely_and_never_given_up() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut wanted = Wanted::new(min, max);
        let mut rng = Rng::new([1; 32]);
        let peer = PeerId([9; 32]);
        let mut now = Time::ZERO;
        wanted.want(peer, None, false, now);
        let mut wait = Duration::ZERO;
        for _ in 0..100 {
            assert_eq!(wanted.next_due(now), Some(peer));
            assert_eq!(wanted.next_due(now), None, "one dial at a time");
            wanted.failed(&peer, now, &mut rng);
            wanted.failed(&peer, now, &mut rng);
            let due = wanted.deadline().expect("a wait");
            wait = due.since(now);
            assert!(wait <= max && wait >= min / 2);
            now = due;
        }
        assert!(wait >= max / 2);
        // Silence that took longer than the wait is followed by the next dial at once.
        assert_eq!(wanted.next_due(now), Some(peer));
        now += max;
        wanted.failed(&peer, now, &mut rng);
        assert_eq!(wanted.next_due(now), Some(peer));
        wanted.served(&peer);
        wanted.lost(&peer, now, &mut rng);
        assert!(wanted.deadline().expect("a wait").since(now) <= min);
    }
}
