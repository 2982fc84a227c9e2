//! What goes which way on one connection, as both sides have said.

use crate::doc::scopes::{Scope, ScopeMask};
use crate::wire::v1;

/// The terms of both sides, and what follows from them.
#[derive(Debug, Default)]
pub(crate) struct Dealings {
    ours: v1::Terms,
    theirs: Option<v1::Terms>,
    plan: Plan,
}

/// Which scopes go which way. Those that neither side sends the other are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Both ways, by the same definition on both sides: compared as one sum.
    pub(crate) shared: ScopeMask,
    /// From us to them only.
    pub(crate) outward: ScopeMask,
    /// From them to us only, as far as we define scopes as they do.
    pub(crate) inward: ScopeMask,
    /// Both sides make symbols with the same key.
    pub(crate) keyed: bool,
}

/// One scope as this node has it on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    pub(crate) scope: Scope,
    pub(crate) id: [u8; 8],
    pub(crate) sends: bool,
    pub(crate) takes: bool,
}

impl Dealings {
    /// Takes over our own terms; whether they are new, and to be told.
    pub(crate) fn set_ours(&mut self, key: [u8; 8], offered: &[Offered]) -> bool {
        let mut scopes: Vec<v1::Scope> = offered
            .iter()
            .filter(|offered| offered.sends || offered.takes)
            .map(|offered| v1::Scope { id: offered.id, sends: offered.sends, takes: offered.takes })
            .collect();
        scopes.sort_unstable();
        scopes.dedup_by_key(|scope| scope.id);
        if self.ours.generation > 0 && self.ours.key == key && self.ours.scopes == scopes {
            return false;
        }
        self.ours = v1::Terms { generation: self.ours.generation + 1, key, scopes };
        self.replan(offered);
        true
    }

    /// Takes in theirs; whether they are new.
    pub(crate) fn heard(&mut self, terms: v1::Terms, offered: &[Offered]) -> bool {
        let newer = self.theirs.as_ref().is_none_or(|known| known.generation < terms.generation);
        if newer {
            self.theirs = Some(terms);
            self.replan(offered);
        }
        newer
    }

    pub(crate) fn ours(&self) -> &v1::Terms {
        &self.ours
    }

    /// The generation of theirs; 0 while none were heard.
    pub(crate) fn heard_generation(&self) -> u64 {
        self.theirs.as_ref().map_or(0, |theirs| theirs.generation)
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    fn replan(&mut self, offered: &[Offered]) {
        self.plan = Plan::default();
        let Some(theirs) = &self.theirs else { return };
        self.plan.keyed = theirs.key == self.ours.key;
        for own in offered {
            match theirs.scopes.iter().find(|scope| scope.id == own.id) {
                Some(scope) if own.sends && own.takes && scope.sends && scope.takes => {
                    self.plan.shared.insert(own.scope)
                }
                Some(scope) => {
                    if own.sends && scope.takes {
                        self.plan.outward.insert(own.scope);
                    }
                    if own.takes && scope.sends {
                        self.plan.inward.insert(own.scope);
                    }
                }
                // They divide collections otherwise: what we send they judge one by one.
                None if own.sends => self.plan.outward.insert(own.scope),
                None => {}
            }
        }
        let strange = theirs.scopes.iter().any(|scope| scope.sends && offered.iter().all(|own| own.id != scope.id));
        if strange {
            // What they send of a scope that we do not know may be of any of ours.
            self.plan.inward = ScopeMask::ALL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Table;

    /// Upward, downward, lateral, broadcast.
    fn scopes() -> Vec<Scope> {
        Scope::all(&Table::uniform(Table::default().otherwise())).into_iter().collect()
    }

    fn offered(ids: [u8; 4], sends: [bool; 4], takes: [bool; 4]) -> Vec<Offered> {
        let scopes = scopes().into_iter().zip(ids).zip(sends.into_iter().zip(takes));
        scopes.map(|((scope, id), (sends, takes))| Offered { scope, id: [id; 8], sends, takes }).collect()
    }

    fn agree(ours: &[Offered], theirs: &[Offered]) -> [Plan; 2] {
        let (mut a, mut b) = (Dealings::default(), Dealings::default());
        assert!(a.set_ours([1; 8], ours) && b.set_ours([1; 8], theirs));
        assert!(!a.set_ours([1; 8], ours), "nothing new");
        assert!(a.heard(b.ours().clone(), ours) && b.heard(a.ours().clone(), theirs));
        assert!(!a.heard(b.ours().clone(), ours), "said again");
        [a.plan(), b.plan()]
    }

    fn mask(wanted: &[usize]) -> ScopeMask {
        let mut mask = ScopeMask::default();
        wanted.iter().for_each(|at| mask.insert(scopes()[*at]));
        mask
    }

    #[test]
    fn without_a_hierarchy_everything_is_shared() {
        let all = offered([1, 2, 3, 4], [true; 4], [true; 4]);
        for plan in agree(&all, &all) {
            assert_eq!(plan, Plan { shared: mask(&[0, 1, 2, 3]), keyed: true, ..Plan::default() });
        }
    }

    #[test]
    fn parent_and_child_share_what_goes_both_ways_and_the_rest_goes_one_way() {
        // Upward, downward, lateral, broadcast.
        let child = offered([1, 2, 3, 4], [true, false, false, true], [false, true, false, true]);
        let parent = offered([1, 2, 3, 4], [false, true, false, true], [true, false, false, true]);
        let [child, parent] = agree(&child, &parent);
        assert_eq!((child.shared, parent.shared), (mask(&[3]), mask(&[3])));
        assert_eq!((child.outward, child.inward), (mask(&[0]), mask(&[1])));
        assert_eq!((parent.outward, parent.inward), (mask(&[1]), mask(&[0])));
    }

    #[test]
    fn scopes_that_are_divided_otherwise_are_sent_and_judged_one_by_one() {
        let ours = offered([1, 2, 3, 4], [true; 4], [true; 4]);
        let theirs = offered([1, 2, 9, 8], [true; 4], [true; 4]);
        let [ours, theirs] = agree(&ours, &theirs);
        for plan in [ours, theirs] {
            assert_eq!((plan.shared, plan.outward, plan.inward), (mask(&[0, 1]), mask(&[2, 3]), ScopeMask::ALL));
        }
    }
}
