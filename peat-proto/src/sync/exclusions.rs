//! Documents that one of the two sides refused: both leave them out of what they compare, until either copy moves.

use std::collections::{BTreeMap, BTreeSet};

use crate::doc::scopes::{Scope, ScopeMask, Sum};
use crate::id::DocId;
use crate::reconcile::{Item, Symbol};
use crate::time::Time;

/// What is left out of one connection's comparison, with its sums and deadlines kept current.
#[derive(Debug, Default)]
pub(crate) struct Exclusions {
    documents: BTreeMap<DocId, Excluded>,
    /// What is left out of each scope.
    sums: BTreeMap<Scope, Sum>,
    /// When documents are tried again.
    timers: BTreeSet<(Time, DocId)>,
}

/// A document that one side refused.
#[derive(Debug)]
struct Excluded {
    /// What we offer of it.
    offered: Option<(Scope, Item)>,
    /// The other side said that it refuses.
    declined: bool,
    /// When it is tried again.
    again: Option<Time>,
}

impl Exclusions {
    /// Most documents. Default 1,024, of about 300 B; what is beyond them keeps the sides from being level.
    pub(crate) const MOST: usize = 1024;

    /// Whether there is room for no more.
    pub(crate) fn is_full(&self) -> bool {
        self.documents.len() >= Self::MOST
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.documents.len()
    }

    /// Leaves a document out that we refuse, with what we offer of it; until one of the two sides moves, or `again`: the
    /// other side may not have heard of the refusal, or may count the document as equal since.
    pub(crate) fn refuse(&mut self, doc: &DocId, offered: Option<(Scope, Item)>, again: Option<Time>) {
        // Who refuses each other's try again all the same.
        let before = self.documents.get(doc);
        let (declined, known) = before.map_or((false, None), |before| (before.declined, before.again));
        let again = known.or(again);
        self.exclude(doc, Excluded { offered, declined, again });
    }

    /// Leaves a document out that the other side refuses, with what we offer of it; until one of the two moves, or `again`.
    pub(crate) fn decline(&mut self, doc: &DocId, offered: Option<(Scope, Item)>, again: Option<Time>) {
        self.exclude(doc, Excluded { offered, declined: true, again });
    }

    fn exclude(&mut self, doc: &DocId, excluded: Excluded) {
        self.include(doc);
        if self.documents.len() >= Self::MOST {
            return;
        }
        if let Some((scope, item)) = &excluded.offered {
            let sum = self.sums.entry(*scope).or_default();
            *sum = sum.plus(Sum::of(item));
        }
        self.timers.extend(excluded.again.map(|again| (again, doc.clone())));
        self.documents.insert(doc.clone(), excluded);
    }

    /// Counts a document again; whether it was left out.
    pub(crate) fn include(&mut self, doc: &DocId) -> bool {
        let Some(excluded) = self.documents.remove(doc) else { return false };
        if let Some((scope, item)) = &excluded.offered
            && let Some(sum) = self.sums.get_mut(scope)
        {
            *sum = sum.minus(Sum::of(item));
        }
        if let Some(again) = excluded.again {
            self.timers.remove(&(again, doc.clone()));
        }
        true
    }

    /// Counts all again.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When the next document is tried again.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(again, _)| *again)
    }

    /// A document that is to be tried again by now.
    pub(crate) fn due(&self, now: Time) -> Option<&DocId> {
        self.timers.first().filter(|(again, _)| *again <= now).map(|(_, doc)| doc)
    }

    /// All documents that are left out.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &DocId> {
        self.documents.keys()
    }

    pub(crate) fn contains(&self, doc: &DocId) -> bool {
        self.documents.contains_key(doc)
    }

    /// Whether a document is left out that the other side refused.
    pub(crate) fn is_declined(&self, doc: &DocId) -> bool {
        self.documents.get(doc).is_some_and(|excluded| excluded.declined)
    }

    /// What is left out of these scopes, in brief.
    pub(crate) fn sum(&self, mask: ScopeMask) -> Sum {
        let sums = self.sums.iter().filter(|(scope, _)| mask.contains(**scope));
        sums.fold(Sum::default(), |sum, (_, more)| sum.plus(*more))
    }

    /// The elements that are left out of these scopes; none if there are more than `most`.
    pub(crate) fn symbols(&self, mask: ScopeMask, most: usize) -> Option<Vec<Symbol>> {
        if self.sum(mask).count > most as u64 {
            return None;
        }
        let items = self.documents.values().filter_map(|excluded| excluded.offered.as_ref());
        Some(items.filter(|(scope, _)| mask.contains(*scope)).map(|(_, item)| item.symbol).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::heads::Heads;
    use crate::policy::Table;
    use crate::reconcile::{SetKey, State};
    use crate::rng::Rng;
    use automerge::ChangeHash;

    fn item(doc: &DocId, byte: u8) -> Item {
        Item::new(&SetKey::public(), doc, 0, State::Heads(&Heads::new(vec![ChangeHash([byte; 32])])))
    }

    /// Sums and timers that are kept are those that a walk over all would find, whatever was done.
    #[test]
    fn what_is_kept_is_what_a_walk_finds() {
        let scopes: Vec<Scope> = Scope::all(&Table::default()).into_iter().collect();
        let mut rng = Rng::new([3; 32]);
        let mut exclusions = Exclusions::default();
        for _ in 0..20_000 {
            let number = rng.below(2 * Exclusions::MOST as u64);
            let doc = DocId::new(&format!("notes:{number}")).expect("a valid name");
            let scope = scopes[rng.below(scopes.len() as u64) as usize];
            let offered = (rng.below(4) > 0).then(|| (scope, item(&doc, rng.below(3) as u8)));
            let again = (rng.below(2) == 0).then(|| Time::ZERO + Duration::from_secs(rng.below(100)));
            match rng.below(4) {
                0 => exclusions.refuse(&doc, offered, again),
                1 | 2 => exclusions.decline(&doc, offered, again),
                _ => assert_eq!(exclusions.contains(&doc), exclusions.include(&doc)),
            }
            if rng.below(100) == 0 {
                check(&exclusions, &scopes);
            }
        }
        assert_eq!(exclusions.len(), Exclusions::MOST, "it was full");
        while let Some(doc) = exclusions.due(Time::ZERO + Duration::from_secs(100)).cloned() {
            assert!(exclusions.include(&doc));
        }
        assert_eq!(exclusions.deadline(), None);
        check(&exclusions, &scopes);
    }

    fn check(exclusions: &Exclusions, scopes: &[Scope]) {
        let all = exclusions.documents.values();
        assert_eq!(exclusions.deadline(), all.clone().filter_map(|excluded| excluded.again).min());
        assert_eq!(exclusions.timers.len(), all.clone().filter(|excluded| excluded.again.is_some()).count());
        for scope in scopes {
            let items = all.clone().filter_map(|excluded| excluded.offered.as_ref()).filter(|(at, _)| at == scope);
            let walked = items.fold(Sum::default(), |sum, (_, item)| sum.plus(Sum::of(item)));
            assert_eq!(exclusions.sum(ScopeMask::of(*scope)), walked);
        }
    }
}
