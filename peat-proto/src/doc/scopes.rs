//! What is offered, by where it may go: what two nodes compare.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Docs;
use super::document::Offer;
use crate::heads::Heads;
use crate::id::DocId;
use crate::marker::{Marker, Spread};
use crate::policy::kin::{self, Kin, Kins};
use crate::policy::{Class, Direction, Policy, Table};
use crate::reconcile::{Digest, Frozen, Item, SetKey, State, Symbol, SymbolSet};

/// Documents that go the same way in a hierarchy and are taken from the same peers, and deletions likewise. So what one side
/// would refuse for who the other is takes no part in what they compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scope {
    direction: Direction,
    /// From whom it is taken.
    from: Kins,
}

/// Some of the scopes: a bit for each of four directions and sixteen sets of kin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScopeMask(u64);

/// The elements of some scopes in brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) digest: Digest,
}

/// A set of symbols for each scope. It follows every change of what is offered in constant time.
#[derive(Debug)]
pub(crate) struct Scopes {
    key: SetKey,
    /// Those that were ever not empty.
    sets: BTreeMap<Scope, SymbolSet<DocId>>,
    progress: Progress,
    /// Counts the changes.
    version: u64,
}

/// How much of the index the sets hold: all of it, or, while they are made anew, what was come to so far.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Complete,
    /// Up to this document, in the order of classes and names.
    UpTo(Option<(Class, DocId)>),
}

impl Scope {
    /// All that a table makes, but those that nothing is taken of from anybody. At most 60.
    pub(crate) fn all(table: &Table) -> BTreeSet<Self> {
        let directions = [Direction::Upward, Direction::Downward, Direction::Lateral, Direction::Broadcast];
        // Deletions may go any way, whatever the collections do.
        let mut all: BTreeSet<Self> = directions.into_iter().map(Self::unruled).collect();
        for policy in table.rows().map(|(_, policy)| policy).chain([table.otherwise()]) {
            all.extend([Self::of_documents(&policy), Self::of_deletions(&policy)]);
        }
        all.retain(|scope| scope.from != Kins::NONE);
        all
    }

    /// Whether it is sent to such a peer.
    pub(crate) fn sends(self, kin: Option<Kin>) -> bool {
        kin::sends(self.direction, kin)
    }

    /// Whether it is taken from such a peer.
    pub(crate) fn takes(self, kin: Option<Kin>) -> bool {
        kin::takes(self.from, kin)
    }

    /// Where an offer of such a collection belongs; nowhere if it is none.
    pub(crate) fn of(offer: Offer<'_>, policy: &Policy) -> Option<Self> {
        match offer {
            Offer::Nothing => None,
            Offer::Heads(_) => Some(Self::of_documents(policy)),
            Offer::Marker(marker) => Some(Self::of_marker(marker, policy)),
        }
    }

    /// Where documents of a collection belong.
    pub(crate) fn of_documents(policy: &Policy) -> Self {
        Self { direction: policy.direction, from: policy.writers() }
    }

    /// Where deletions in a collection belong that go its own way.
    fn of_deletions(policy: &Policy) -> Self {
        Self { direction: policy.direction, from: policy.deleters() }
    }

    /// Where a marker belongs: a deletion may travel another way than the collection does.
    fn of_marker(marker: &Marker, policy: &Policy) -> Self {
        let direction = match marker.spread {
            Spread::Bidirectional => policy.direction,
            Spread::Upward => Direction::Upward,
            Spread::Downward => Direction::Downward,
            Spread::SystemWide => Direction::Broadcast,
        };
        if direction == policy.direction { Self::of_deletions(policy) } else { Self::unruled(direction) }
    }

    fn unruled(direction: Direction) -> Self {
        Self { direction, from: Kins::sending(direction) }
    }

    /// Names the scope on the wire: equal for two nodes whose tables put the same collections into it.
    pub(crate) fn id(self, table: &Table) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 scope v2");
        let otherwise = self.part_of(&table.otherwise());
        hasher.update(&[self.direction as u8, self.from.bits(), otherwise]);
        // Of the collections with rules of their own, those that deviate from all others.
        let named: BTreeMap<String, u8> =
            table.rows().map(|(name, policy)| (name.replace('-', "_"), self.part_of(&policy))).collect();
        for (name, part) in named.iter().filter(|(_, part)| **part != otherwise) {
            hasher.update(&(name.len() as u64).to_be_bytes()).update(name.as_bytes()).update(&[*part]);
        }
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        id
    }

    /// What of a collection is in it: bit 0, its documents; bit 1, its deletions.
    fn part_of(self, policy: &Policy) -> u8 {
        u8::from(self == Self::of_documents(policy)) | u8::from(self == Self::of_deletions(policy)) << 1
    }

    fn index(self) -> u32 {
        self.direction as u32 * 16 + u32::from(self.from.bits())
    }
}

impl ScopeMask {
    pub(crate) const ALL: Self = Self(u64::MAX);

    pub(crate) fn insert(&mut self, scope: Scope) {
        self.0 |= 1 << scope.index();
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope.index()) != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn of(scope: Scope) -> Self {
        Self(1 << scope.index())
    }
}

impl Sum {
    /// One element.
    pub(crate) fn of(item: &Item) -> Self {
        Self { count: 1, digest: item.digest() }
    }

    /// Without what is left out.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self { count: self.count.saturating_sub(other.count), digest: self.digest.minus(other.digest) }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { count: self.count + other.count, digest: self.digest.plus(other.digest) }
    }
}

impl Scopes {
    pub(crate) fn new(key: SetKey) -> Self {
        Self { key, sets: BTreeMap::new(), progress: Progress::Complete, version: 0 }
    }

    /// Whether the sets hold all that is offered. Nothing can be compared while they do not.
    pub(crate) fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// Begins anew, under another table; [`Docs::rebuild`] goes on from there.
    pub(super) fn restart(&mut self) {
        self.version += 1;
        self.sets.clear();
        self.progress = Progress::UpTo(None);
    }

    /// Moves with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Names the key of the symbols.
    pub(crate) fn key_id(&self) -> [u8; 8] {
        self.key.id()
    }

    /// Counts what is offered of a document from now on.
    pub(super) fn insert(&mut self, table: &Table, doc: &DocId, offer: Offer<'_>) {
        if self.has_come_to(table, doc)
            && let Some((scope, item)) = self.item(table, doc, offer)
        {
            self.version += 1;
            self.sets.entry(scope).or_default().insert(&item, doc.clone());
        }
    }

    /// Counts it no more.
    pub(super) fn remove(&mut self, table: &Table, doc: &DocId, offer: Offer<'_>) {
        if self.has_come_to(table, doc)
            && let Some((scope, item)) = self.item(table, doc, offer)
            && let Some(set) = self.sets.get_mut(&scope)
        {
            self.version += 1;
            set.remove(&item);
        }
    }

    fn has_come_to(&self, table: &Table, doc: &DocId) -> bool {
        match &self.progress {
            Progress::Complete => true,
            Progress::UpTo(None) => false,
            Progress::UpTo(Some((class, last))) => (table.of(doc).class, doc) <= (*class, last),
        }
    }

    /// The element that an offer is, and its scope; none for what is not offered.
    pub(crate) fn item(&self, table: &Table, doc: &DocId, offer: Offer<'_>) -> Option<(Scope, Item)> {
        let scope = Scope::of(offer, &table.of(doc))?;
        let item = match offer {
            Offer::Nothing => return None,
            Offer::Heads(heads) => Item::new(&self.key, doc, 0, State::Heads(heads)),
            Offer::Marker(marker) => Item::new(&self.key, doc, marker.incarnation, State::Marker(&marker.encode())),
        };
        Some((scope, item))
    }

    /// The half of a document's symbols that is its name's, whatever its state.
    pub(crate) fn name(&self, doc: &DocId) -> u64 {
        Item::new(&self.key, doc, 0, State::Heads(&Heads::NONE)).symbol.name()
    }

    pub(crate) fn sum(&self, mask: ScopeMask) -> Sum {
        let sums = self.sets(mask).into_iter().map(|set| Sum { count: set.len(), digest: set.digest() });
        sums.fold(Sum::default(), Sum::plus)
    }

    pub(crate) fn sets(&self, mask: ScopeMask) -> Vec<&SymbolSet<DocId>> {
        self.sets.iter().filter(|(scope, _)| mask.contains(**scope)).map(|(_, set)| set).collect()
    }

    /// Freezes the sketch of some scopes, of so many cells.
    pub(crate) fn freeze(&mut self, mask: ScopeMask, cells: u32) -> Frozen {
        let sets = self.sets.iter_mut().filter(|(scope, _)| mask.contains(**scope));
        Frozen::with_cells(sets.map(|(_, set)| set), cells)
    }

    /// The document that a symbol of these scopes stands for.
    pub(crate) fn find(&self, mask: ScopeMask, symbol: &Symbol) -> Option<&DocId> {
        self.sets(mask).into_iter().find_map(|set| set.get(symbol))
    }
}

impl Docs {
    /// Documents that one step of a rebuild takes in: 2,048, at 2 us each.
    const STEP: usize = 2048;

    /// Takes the next documents into the sets, if these are being made anew; whether there are more to come.
    pub(crate) fn rebuild(&mut self) -> bool {
        let Progress::UpTo(done) = &self.scopes.progress else { return false };
        let mut behind = done.clone();
        let mut steps = 0;
        for class in Class::ALL {
            let last = match &behind {
                Some((done, _)) if *done > class => continue,
                Some((done, last)) if *done == class => Some(last.clone()),
                Some(_) | None => None,
            };
            let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            for (doc, document) in self.classes[class.index()].range::<DocId, _>((from, Bound::Unbounded)) {
                if steps >= Self::STEP {
                    self.scopes.progress = Progress::UpTo(behind);
                    return true;
                }
                steps += 1;
                behind = Some((class, doc.clone()));
                if let Some((scope, item)) = self.scopes.item(&self.policy, doc, document.offer()) {
                    self.scopes.sets.entry(scope).or_default().insert(&item, doc.clone());
                }
            }
        }
        self.scopes.progress = Progress::Complete;
        self.scopes.version += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::Heads;
    use crate::marker::Text;
    use crate::policy::Policy;
    use automerge::ChangeHash;

    fn doc(name: &str) -> DocId {
        DocId::new(name).expect("a valid name")
    }

    fn heads(byte: u8) -> Heads {
        Heads::new(vec![ChangeHash([byte; 32])])
    }

    fn marker(spread: Spread) -> Marker {
        let by = Text::new("node-a").expect("short");
        Marker { incarnation: 0, lamport: 1, by, at_ms: 0, reason: None, spread }
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let table = Table::default();
        let (x, y) = (heads(1), heads(2));
        let mut one = Scopes::new(SetKey::public());
        let mut two = Scopes::new(SetKey::public());
        one.insert(&table, &doc("a:1"), Offer::Heads(&x));
        one.insert(&table, &doc("a:2"), Offer::Heads(&y));
        two.insert(&table, &doc("a:2"), Offer::Heads(&y));
        two.insert(&table, &doc("a:1"), Offer::Heads(&x));
        assert_eq!(one.sum(ScopeMask::ALL), two.sum(ScopeMask::ALL));
        two.remove(&table, &doc("a:2"), Offer::Heads(&y));
        two.insert(&table, &doc("a:2"), Offer::Heads(&x));
        assert_ne!(one.sum(ScopeMask::ALL), two.sum(ScopeMask::ALL));
        one.remove(&table, &doc("a:1"), Offer::Heads(&x));
        one.remove(&table, &doc("a:2"), Offer::Heads(&y));
        one.insert(&table, &doc("a:1"), Offer::Nothing);
        assert_eq!(one.sum(ScopeMask::ALL), Sum::default());
    }

    #[test]
    fn documents_and_markers_are_where_they_travel() {
        let table = Table::default();
        let mut scopes = Scopes::new(SetKey::public());
        scopes.insert(&table, &doc("nodes:1"), Offer::Heads(&heads(1)));
        scopes.insert(&table, &doc("commands:1"), Offer::Heads(&heads(1)));
        scopes.insert(&table, &doc("notes:1"), Offer::Heads(&heads(1)));
        scopes.insert(&table, &doc("cells:1"), Offer::Marker(&marker(Spread::Bidirectional)));
        scopes.insert(&table, &doc("cells:2"), Offer::Marker(&marker(Spread::Downward)));
        scopes.insert(&table, &doc("nodes:2"), Offer::Marker(&marker(Spread::SystemWide)));
        let directions = [Direction::Upward, Direction::Downward, Direction::Lateral, Direction::Broadcast];
        let counts = directions.map(|direction| scopes.sum(ScopeMask::of(Scope::unruled(direction))).count);
        assert_eq!(counts, [1, 2, 1, 2], "upward, downward, lateral, broadcast");
        assert_eq!(scopes.sum(ScopeMask::ALL).count, 6);
    }

    #[test]
    fn a_scope_is_named_after_the_collections_that_go_its_way() {
        let table = Table::default();
        let directions = [Direction::Upward, Direction::Downward, Direction::Lateral, Direction::Broadcast];
        let ids_of = |table: &Table| directions.map(|direction| Scope::unruled(direction).id(table));
        let ids = ids_of(&table);
        let mut other = table.clone();
        other.set_class("nodes", Class::Low);
        assert_eq!(ids_of(&other), ids, "the class does not matter");
        let lateral = Policy { direction: Direction::Lateral, ..table.otherwise() };
        other.set("my-notes", lateral);
        let changed = ids_of(&other);
        assert_eq!(changed[..2], ids[..2]);
        assert!(changed[2] != ids[2] && changed[3] != ids[3]);
        let mut spelled = table.clone();
        spelled.set("my_notes", lateral);
        assert_eq!(ids_of(&spelled), changed, "the spelling does not matter");
    }

    #[test]
    fn what_only_some_may_write_or_delete_is_a_scope_of_its_own() {
        let mut table = Table::default();
        let parents = Kins::new(&[Kin::Parent]);
        let ruled = Policy { direction: Direction::Broadcast, write: Some(parents), ..table.otherwise() };
        table.set("orders", ruled);
        table.set("kept", Policy { direction: Direction::Broadcast, delete: Some(Kins::NONE), ..table.otherwise() });
        let orders = Scope::of_documents(&ruled);
        assert!(Scope::all(&table).contains(&orders));
        assert!(orders.sends(Some(Kin::Parent)) && orders.takes(Some(Kin::Parent)) && !orders.takes(Some(Kin::Child)));
        assert!(Scope::all(&table).iter().all(|scope| scope.takes(None)), "what nobody may send is in none");
        let before = Scope::all(&Table::default());
        let changed: Vec<_> = before.iter().filter(|scope| scope.id(&table) != scope.id(&Table::default())).collect();
        assert_eq!(changed, [&Scope::unruled(Direction::Broadcast)], "the others are as they were");
        let mut all = Table::default();
        for bits in 0..16 {
            for (at, direction) in [Direction::Upward, Direction::Downward, Direction::Lateral, Direction::Broadcast]
                .into_iter()
                .enumerate()
            {
                let kins: Vec<Kin> = Kin::ALL.into_iter().filter(|kin| bits >> *kin as u8 & 1 == 1).collect();
                let policy = Policy { direction, write: Some(Kins::new(&kins)), ..all.otherwise() };
                all.set(&format!("c{bits}-{at}"), policy);
            }
        }
        let scopes = Scope::all(&all);
        assert_eq!(scopes.len(), 60);
        let distinct: BTreeSet<u32> = scopes.iter().map(|scope| scope.index()).collect();
        assert!(distinct.len() == 60 && distinct.last().is_some_and(|last| *last < 64));
    }
}
