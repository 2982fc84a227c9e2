//! Hierarchies: who may see what, and who must in the end.

use std::collections::BTreeSet;

use peat_proto::DocId;
use peat_proto::policy::kin::{Family, Kin};
use peat_proto::policy::{Direction, Table};
use peat_proto::store::Kind;
use peat_proto::{Marker, Spread};

use super::World;
use super::frontier::loaded;
use super::said::{Said, State};
use super::setup::{Setup, peer};

impl Setup {
    /// Whether the nodes stand above and below each other.
    pub(crate) fn is_ranked(&self) -> bool {
        !self.ranks.is_empty()
    }

    /// Where a node stands; the highest is 0. Hostile members stand nowhere.
    fn rank(&self, member: usize) -> Option<u8> {
        self.ranks.get(member).copied().filter(|_| member < self.nodes)
    }

    /// A node's place: what each other node is to it.
    pub(crate) fn family_of(&self, member: usize) -> Family {
        let Some(own) = self.rank(member) else { return Family::default() };
        let kin = |other: usize| {
            self.rank(other).map_or(Kin::Other, |rank| match rank.cmp(&own) {
                std::cmp::Ordering::Less => Kin::Parent,
                std::cmp::Ordering::Equal => Kin::Sibling,
                std::cmp::Ordering::Greater => Kin::Child,
            })
        };
        let others = (0..self.nodes).filter(|other| *other != member);
        Family { kin: others.map(|other| (peer(other), kin(other))).collect(), others: Kin::Other }
    }

    /// Where there is a hierarchy, something flows each way in it.
    pub(crate) fn direct(&self, table: &mut Table) {
        if self.is_ranked() {
            let mut policy = table.of_collection("notes");
            policy.direction = Direction::Upward;
            table.set("notes", policy);
        }
    }

    /// Whether what a member has of a document may go to another one.
    pub(crate) fn flows(&self, from: usize, to: usize, doc: &DocId) -> bool {
        self.passes(direction(doc), from, to)
    }

    /// Whether a deletion may go there, and is taken.
    fn deletion_flows(&self, from: usize, to: usize, doc: &DocId, marker: &Marker) -> bool {
        let spread = match marker.spread {
            Spread::Bidirectional => direction(doc),
            Spread::Upward => Direction::Upward,
            Spread::Downward => Direction::Downward,
            Spread::SystemWide => Direction::Broadcast,
        };
        self.passes(spread, from, to) && self.flows(from, to, doc)
    }

    /// The rule of the directions, written down a second time.
    fn passes(&self, direction: Direction, from: usize, to: usize) -> bool {
        let (Some(from), Some(to)) = (self.rank(from), self.rank(to)) else {
            return !self.is_ranked() || direction == Direction::Broadcast;
        };
        match direction {
            Direction::Upward => to < from,
            Direction::Downward => from < to,
            Direction::Lateral => from == to,
            Direction::Broadcast => true,
        }
    }
}

/// What worlds with a hierarchy have as the direction of a document.
fn direction(doc: &DocId) -> Direction {
    match doc.collection() {
        "commands" => Direction::Downward,
        "cells" => Direction::Lateral,
        "notes" => Direction::Upward,
        _ => Direction::Broadcast,
    }
}

impl World {
    /// Nothing is said of a document to whoever may not see it, and nothing of it is sent against its direction.
    pub(crate) fn check_sight(&self, member: usize, other: usize, said: &[Said]) -> Result<(), String> {
        if !self.setup.is_ranked() {
            return Ok(());
        }
        for Said { doc, state, named, carried, piece, .. } in said {
            let (goes, comes) = (self.setup.flows(member, other, doc), self.setup.flows(other, member, doc));
            if !goes && (!carried.is_empty() || piece.is_some()) {
                return Err(format!("what {doc} holds is sent to node {other}, which may not see it"));
            }
            // That it has never heard of it everybody may say.
            if !goes && !comes && *state == State::Alive && !named.is_empty() {
                return Err(format!("heads of {doc} are named to node {other}, which may not know of it"));
            }
        }
        Ok(())
    }

    /// Whether what this author wrote may be seen at a member. (By whatever way: directions have no loops.)
    pub(crate) fn may_see(&self, author: usize, member: usize, doc: &DocId) -> bool {
        author == member || self.setup.flows(author, member, doc)
    }

    /// Whether it must be there in the end: over the links that are wanted.
    pub(crate) fn must_see(&self, author: usize, member: usize, doc: &DocId) -> bool {
        let (mut reached, mut next) = (BTreeSet::from([author]), vec![author]);
        while let Some(from) = next.pop() {
            for (a, b) in self.links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
                if a == from && self.setup.flows(a, b, doc) && reached.insert(b) {
                    next.push(b);
                }
            }
        }
        reached.contains(&member)
    }

    /// What has not yet flowed where it must, over one of the links.
    pub(crate) fn unseen(&self) -> Option<String> {
        let both_ways = self.links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        both_ways.into_iter().find_map(|(from, to)| self.unseen_between(from, to))
    }

    fn unseen_between(&self, from: usize, to: usize) -> Option<String> {
        let there = &self.hosts[to].disk;
        for (doc, kept) in self.hosts[from].disk.documents() {
            let other = there.documents().find(|(other, _)| *other == doc).map(|(_, kept)| kept);
            let lacks = || Some(format!("node {to} lacks what node {from} has of {doc}"));
            match (&kept.record.kind, other.map(|other| (&other.record.kind, other))) {
                (Kind::Marker(marker), _) if !self.setup.deletion_flows(from, to, doc, marker) => {}
                (Kind::Automerge, _) if !self.setup.flows(from, to, doc) => {}
                // Deleted there: whatever comes is refused.
                (Kind::Marker(_) | Kind::Automerge, Some((Kind::Marker(_), _))) => {}
                (Kind::Automerge, Some((Kind::Automerge, other))) if other.record.heads == kept.record.heads => {}
                (Kind::Automerge, Some((Kind::Automerge, other))) => {
                    let Ok(content) = loaded(&other.chunks) else { return lacks() };
                    let has = |hash: &_| content.get_change_meta_by_hash(hash).is_some();
                    if !kept.record.heads.as_slice().iter().all(has) {
                        return lacks();
                    }
                }
                (Kind::Marker(_), _) | (Kind::Automerge, _) => return lacks(),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::heal::run;
    use super::super::setup::Habit;
    use super::super::step::Step;
    use super::super::verdict::Fault;
    use super::*;

    /// A node above two others.
    fn ranked() -> Setup {
        Setup { ranks: vec![0, 1, 1], ..Setup::quiet(1, 3, 10) }
    }

    #[test]
    fn in_a_hierarchy_everything_flows_where_it_may_and_nowhere_else() {
        let everywhere: Vec<_> = (0..3)
            .flat_map(|node| (0..5).map(move |doc| Step::Edit { node, doc, kind: 0, value: u32::from(node) }))
            .collect();
        assert_eq!(run(&ranked(), &everywhere).violation, None);
        let mut world = World::new(ranked());
        for (node, doc) in [(0, 0), (1, 4), (1, 1), (0, 2)] {
            assert!(world.apply(Step::Edit { node, doc, kind: 0, value: 1 }));
        }
        world.converge();
        assert_eq!(world.violation(), None);
        let has = |member: usize, doc| world.listing(member).iter().any(|(name, _)| *name == world.setup.doc(doc));
        let commands = [0, 1, 2].map(|member| has(member, 0));
        let cells = [0, 1, 2].map(|member| has(member, 1));
        let tracks = [0, 1, 2].map(|member| has(member, 2));
        let notes = [0, 1, 2].map(|member| has(member, 4));
        assert_eq!((commands, tracks), ([true; 3], [true; 3]), "an order goes down, a track everywhere");
        assert_eq!((cells, notes), ([false, true, true], [true, true, false]), "a cell stays beside, a note goes up");
    }

    #[test]
    fn who_stands_outside_of_the_hierarchy_learns_no_heads_of_it() {
        let setup = Setup { hostile: vec![Habit::LyingHeads, Habit::Flood], ..ranked() };
        let mut world = World::new(setup);
        for (node, doc) in [(0, 0), (1, 4), (1, 1), (0, 2)] {
            assert!(world.apply(Step::Edit { node, doc, kind: 0, value: 1 }));
        }
        world.pass(60_000_000);
        assert_eq!(world.violation(), None);
        assert!(world.fired.of(Fault::Hostile) > 1_000, "they ask for everything");
    }

    #[test]
    fn what_goes_where_it_may_not_is_reported() {
        let mut world = World::new(ranked());
        let doc = world.setup.doc(4);
        let carried = vec![bytes::Bytes::from_static(b"of a note")];
        let said = [Said { doc: doc.clone(), state: State::Alive, named: vec![], carried, piece: None, size: 9 }];
        assert_eq!(world.check_sight(1, 0, &said), Ok(()));
        let down = world.check_sight(0, 1, &said).expect_err("notes go up");
        assert!(down.contains("which may not see it"), "{down}");
        let named = vec![automerge::ChangeHash([1; 32])];
        let silent = [Said { doc, state: State::Alive, named, carried: vec![], piece: None, size: 0 }];
        assert_eq!(world.check_sight(0, 1, &silent), Ok(()), "it may ask for it");
        let beside = world.check_sight(2, 1, &silent).expect_err("nothing of it goes either way");
        assert!(beside.contains("which may not know of it"), "{beside}");
        // As if the notes had gone everywhere.
        world.apply(Step::Edit { node: 1, doc: 4, kind: 0, value: 1 });
        world.converge();
        assert_eq!(world.violation(), None);
        world.setup.ranks = vec![1, 1, 0];
        world.check_documents();
        let found = world.violation().expect("node 0 has a note of node 1, which stands beside it now");
        assert!(found.what.contains("may not see"), "{found}");
    }
}
