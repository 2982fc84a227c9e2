//! Paths: what becomes of a frame between two members.

use std::collections::VecDeque;

use peat_proto::{ConnId, Lane, Rng, StreamId, Time};

use bytes::Bytes;

use super::verdict::{Fault, Fired};

/// What one direction between two members is like. Chances are parts in 10,000, per frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Shortest time of travel, in microseconds.
    pub latency: u32,
    /// Added to it, up to this many microseconds.
    pub jitter: u32,
    /// Random loss.
    pub loss: u16,
    /// Chance that a burst of losses begins.
    pub burst: u16,
    /// Chance that a datagram arrives twice.
    pub duplicate: u16,
    /// Chance that a datagram is overtaken by those behind it.
    pub reorder: u16,
    /// Bytes a second; 0 is without limit.
    pub rate: u32,
    /// Bytes that wait for a datagram link; more are dropped.
    pub queue: u32,
    /// Chance that a stream of a reliable link is reset.
    pub reset: u16,
    /// Chance that a reliable connection is lost.
    pub hangup: u16,
}

impl Profile {
    /// A cable.
    pub const LAN: Self = Self {
        latency: 300,
        jitter: 50,
        loss: 0,
        burst: 0,
        duplicate: 0,
        reorder: 0,
        rate: 100_000_000,
        queue: 1 << 20,
        reset: 0,
        hangup: 0,
    };

    /// A crowded room.
    pub const WIFI: Self = Self {
        latency: 2_000,
        jitter: 8_000,
        loss: 100,
        burst: 20,
        reorder: 50,
        duplicate: 10,
        rate: 3_000_000,
        queue: 256 << 10,
        ..Self::LAN
    };

    /// A geostationary hop.
    pub const SATELLITE: Self =
        Self { latency: 280_000, jitter: 20_000, loss: 100, rate: 125_000, queue: 128 << 10, ..Self::LAN };

    /// A radio with 256 kbit/s.
    pub const TACTICAL: Self =
        Self { latency: 80_000, jitter: 60_000, loss: 500, burst: 50, rate: 32_000, queue: 32 << 10, ..Self::LAN };

    /// The presets.
    pub const PRESETS: [Self; 4] = [Self::LAN, Self::WIFI, Self::SATELLITE, Self::TACTICAL];

    /// The same path without faults.
    #[must_use]
    pub fn calm(self) -> Self {
        Self { loss: 0, burst: 0, duplicate: 0, reorder: 0, reset: 0, hangup: 0, ..self }
    }
}

/// Bytes a second of a squeezed path.
const SQUEEZED: u64 = 4_000;

/// One direction between two members.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) profile: Profile,
    pub(crate) cut: bool,
    /// How often it was cut.
    pub(crate) cuts: u64,
    pub(crate) squeezed: Time,
    /// What waits behind a cut, of reliable connections.
    pub(crate) stalled: VecDeque<(ConnId, Stalled)>,
    busy: Time,
    bursting: bool,
}

/// What waits behind a cut.
#[derive(Debug)]
pub(crate) enum Stalled {
    /// A frame of a lasting lane.
    Frame(Lane, Bytes),
    /// Bytes of a stream of the legacy wire, and whether they end it.
    Bytes(StreamId, Bytes, bool),
}

/// When a frame leaves the sender's buffer, and when it arrives, if it does.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) departs: Time,
    pub(crate) arrives: Option<Time>,
    pub(crate) again: Option<Time>,
}

impl Path {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            profile,
            cut: false,
            cuts: 0,
            squeezed: Time::ZERO,
            stalled: VecDeque::new(),
            busy: Time::ZERO,
            bursting: false,
        }
    }

    /// Is like this from now on; a burst of losses under way ends.
    pub(crate) fn become_like(&mut self, profile: Profile) {
        (self.profile, self.bursting) = (profile, false);
    }

    /// A frame on an ordered-reliable connection: losses make it late.
    pub(crate) fn carry(&mut self, now: Time, bytes: usize, rng: &mut Rng, fired: &mut Fired) -> Fate {
        let departs = self.serialise(now, bytes);
        let mut travel = self.travel(rng);
        for _ in 0..6 {
            if !self.loses(rng, fired) {
                break;
            }
            fired.count(Fault::Retransmit);
            travel += u64::from(self.profile.latency) * 2 + 10_000;
        }
        Fate { departs, arrives: Some(after(departs, travel)), again: None }
    }

    /// A datagram: lost, doubled and overtaken.
    pub(crate) fn throw(&mut self, now: Time, bytes: usize, rng: &mut Rng, fired: &mut Fired) -> Fate {
        let waiting = self.busy.as_micros().saturating_sub(now.as_micros()).saturating_mul(self.rate(now)) / 1_000_000;
        if waiting + bytes as u64 > u64::from(self.profile.queue) {
            fired.count(Fault::TailDrop);
            return Fate { departs: now, arrives: None, again: None };
        }
        let departs = self.serialise(now, bytes);
        if self.cut {
            return Fate { departs, arrives: None, again: None };
        }
        if self.loses(rng, fired) {
            fired.count(Fault::Loss);
            return Fate { departs, arrives: None, again: None };
        }
        let mut travel = self.travel(rng);
        if chance(rng, self.profile.reorder) {
            fired.count(Fault::Reorder);
            travel += u64::from(self.profile.latency) + 1_000;
        }
        let again = chance(rng, self.profile.duplicate).then(|| {
            fired.count(Fault::Duplicate);
            after(departs, self.travel(rng) + 1 + rng.below(100_000))
        });
        Fate { departs, arrives: Some(after(departs, travel)), again }
    }

    fn serialise(&mut self, now: Time, bytes: usize) -> Time {
        let rate = self.rate(now);
        let micros = (bytes as u64).saturating_mul(1_000_000).checked_div(rate).unwrap_or(0);
        self.busy = after(self.busy.max(now), micros);
        self.busy
    }

    fn rate(&self, now: Time) -> u64 {
        if now < self.squeezed { SQUEEZED } else { u64::from(self.profile.rate) }
    }

    fn travel(&self, rng: &mut Rng) -> u64 {
        u64::from(self.profile.latency) + rng.below(u64::from(self.profile.jitter) + 1)
    }

    /// Random loss, and the two states of Gilbert and Elliott: a burst takes 8 of 10 and ends after 5 on average.
    fn loses(&mut self, rng: &mut Rng, fired: &mut Fired) -> bool {
        if self.bursting {
            self.bursting = !chance(rng, 2_000);
            return chance(rng, 8_000);
        }
        if chance(rng, self.profile.burst) {
            fired.count(Fault::Burst);
            self.bursting = true;
        }
        chance(rng, self.profile.loss)
    }
}

/// True in so many of 10,000 draws; draws nothing for 0.
pub(crate) fn chance(rng: &mut Rng, parts: u16) -> bool {
    parts > 0 && rng.below(10_000) < u64::from(parts)
}

/// So many microseconds later.
pub(crate) fn after(time: Time, micros: u64) -> Time {
    Time::from_micros(time.as_micros().saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_datagrams_of_a_half_lossy_path_arrive() {
        let mut path = Path::new(Profile { loss: 5_000, rate: 0, queue: u32::MAX, ..Profile::LAN });
        let (mut rng, mut fired) = (Rng::new([1; 32]), Fired::default());
        let arrived =
            (0..10_000).filter(|_| path.throw(Time::ZERO, 100, &mut rng, &mut fired).arrives.is_some()).count();
        assert!((4_800..5_200).contains(&arrived), "{arrived}");
        assert_eq!(fired.of(Fault::Loss), 10_000 - arrived as u64);
    }

    #[test]
    fn a_narrow_path_delays_and_a_full_queue_drops() {
        let mut path = Path::new(Profile { loss: 0, burst: 0, jitter: 0, ..Profile::TACTICAL });
        let (mut rng, mut fired) = (Rng::new([1; 32]), Fired::default());
        let first = path.throw(Time::ZERO, 32_000, &mut rng, &mut fired);
        assert_eq!(first.departs, Time::from_micros(1_000_000));
        assert_eq!(first.arrives, Some(Time::from_micros(1_080_000)));
        let second = path.throw(Time::ZERO, 32_000, &mut rng, &mut fired);
        assert_eq!((second.arrives, fired.of(Fault::TailDrop)), (None, 1));
    }

    #[test]
    fn a_path_that_has_become_calm_loses_nothing_more() {
        let mut path = Path::new(Profile { burst: 10_000, ..Profile::LAN });
        let (mut rng, mut fired) = (Rng::new([1; 32]), Fired::default());
        let mut lost =
            |path: &mut Path| (0..100).any(|_| path.throw(Time::ZERO, 1, &mut rng, &mut fired).arrives.is_none());
        assert!(lost(&mut path) && path.bursting);
        path.become_like(path.profile.calm());
        assert!(!lost(&mut path));
    }
}
