//! Who stands where in a hierarchy, and what may pass between whom.

use std::collections::BTreeMap;

use super::Direction;
use crate::id::PeerId;
use crate::marker::Spread;

/// What a peer is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kin {
    /// Above this node.
    Parent = 0,
    /// Below it.
    Child = 1,
    /// Beside it.
    Sibling = 2,
    /// None of these.
    Other = 3,
}

/// A set of [`Kin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kins(u8);

/// This node's place in a hierarchy. Without any kin there is no hierarchy, and everything may pass between everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// What each named peer is.
    pub kin: BTreeMap<PeerId, Kin>,
    /// What all others are.
    pub others: Kin,
}

impl Kin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Parent, Self::Child, Self::Sibling, Self::Other];
}

impl Kins {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// Everybody.
    pub const ALL: Self = Self(0b1111);

    /// These.
    #[must_use]
    pub fn new(kins: &[Kin]) -> Self {
        Self(kins.iter().fold(0, |set, kin| set | (1 << *kin as u8)))
    }

    /// A bit for each, the first of [`Kin::ALL`] lowest.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn contains(self, kin: Kin) -> bool {
        self.0 & (1 << kin as u8) != 0
    }

    /// From whom documents of a collection of this direction come.
    #[must_use]
    pub fn sending(direction: Direction) -> Self {
        match direction {
            Direction::Upward => Self::new(&[Kin::Child]),
            Direction::Downward => Self::new(&[Kin::Parent]),
            Direction::Lateral => Self::new(&[Kin::Sibling]),
            Direction::Broadcast => Self::ALL,
        }
    }

    /// To whom documents of a collection of this direction go.
    #[must_use]
    pub fn receiving(direction: Direction) -> Self {
        match direction {
            Direction::Upward => Self::new(&[Kin::Parent]),
            Direction::Downward => Self::new(&[Kin::Child]),
            Direction::Lateral => Self::new(&[Kin::Sibling]),
            Direction::Broadcast => Self::ALL,
        }
    }
}

impl Default for Family {
    fn default() -> Self {
        Self { kin: BTreeMap::new(), others: Kin::Other }
    }
}

impl Family {
    /// What a peer is; `None` where there is no hierarchy.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Option<Kin> {
        if self.kin.is_empty() && self.others == Kin::Other {
            return None;
        }
        Some(self.kin.get(peer).copied().unwrap_or(self.others))
    }
}

/// Whether documents of a collection of this direction are sent to such a peer.
#[must_use]
pub fn sends(direction: Direction, kin: Option<Kin>) -> bool {
    kin.is_none_or(|kin| Kins::receiving(direction).contains(kin))
}

/// Whether something from such a peer is taken, where these are allowed.
///
/// Without a hierarchy everybody may do what at least one place in it may do.
#[must_use]
pub fn takes(allowed: Kins, kin: Option<Kin>) -> bool {
    kin.map_or(allowed != Kins::NONE, |kin| allowed.contains(kin))
}

/// Whether a deletion is sent to such a peer: where its own spread and the collection's direction allow it.
#[must_use]
pub fn spreads(spread: Spread, direction: Direction, kin: Option<Kin>) -> bool {
    let Some(kin) = kin else { return true };
    match spread {
        Spread::SystemWide => true,
        Spread::Bidirectional => Kins::receiving(direction).contains(kin),
        Spread::Upward => kin == Kin::Parent,
        Spread::Downward => kin == Kin::Child,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_sends_the_other_takes_and_nothing_else() {
        let seen_from_there = |kin| match kin {
            Kin::Parent => Kin::Child,
            Kin::Child => Kin::Parent,
            Kin::Sibling | Kin::Other => kin,
        };
        for direction in [Direction::Upward, Direction::Downward, Direction::Lateral, Direction::Broadcast] {
            for kin in Kin::ALL {
                let taken = takes(Kins::sending(direction), Some(seen_from_there(kin)));
                assert_eq!(sends(direction, Some(kin)), taken, "{direction:?} to {kin:?}");
            }
        }
    }

    #[test]
    fn without_a_hierarchy_everything_passes_but_what_nobody_may_do() {
        let family = Family::default();
        let stranger = PeerId([1; 32]);
        assert_eq!(family.of(&stranger), None);
        assert!(sends(Direction::Upward, None) && takes(Kins::sending(Direction::Downward), None));
        assert!(!takes(Kins::NONE, None));
        let hub = Family { others: Kin::Child, ..Family::default() };
        assert_eq!(hub.of(&stranger), Some(Kin::Child));
        let leaf = Family { kin: BTreeMap::from([(PeerId([2; 32]), Kin::Parent)]), ..Family::default() };
        assert_eq!(leaf.of(&stranger), Some(Kin::Other));
    }

    #[test]
    fn a_deletion_goes_where_its_spread_and_the_direction_let_it() {
        assert!(spreads(Spread::SystemWide, Direction::Upward, Some(Kin::Other)));
        assert!(spreads(Spread::Bidirectional, Direction::Upward, Some(Kin::Parent)));
        assert!(!spreads(Spread::Bidirectional, Direction::Upward, Some(Kin::Child)));
        assert!(!spreads(Spread::Downward, Direction::Broadcast, Some(Kin::Parent)));
    }
}
