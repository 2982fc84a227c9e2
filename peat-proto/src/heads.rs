//! Heads: the newest changes of a document, and how a frontier moves.

use automerge::ChangeHash;

/// A set of change hashes of which none is an ancestor of another: the frontier of a history.
///
/// Sorted, so that equal sets are equal values. One head, by far the most common case, takes no heap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Heads(Repr);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
enum Repr {
    #[default]
    None,
    One(ChangeHash),
    Many(Box<[ChangeHash]>),
}

impl Heads {
    /// The frontier of an empty history.
    pub const NONE: Self = Self(Repr::None);

    /// Sorts and removes duplicates; the caller vouches that none is an ancestor of another.
    #[must_use]
    pub fn new(mut hashes: Vec<ChangeHash>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        match *hashes.as_slice() {
            [] => Self(Repr::None),
            [one] => Self(Repr::One(one)),
            _ => Self(Repr::Many(hashes.into())),
        }
    }

    /// The hashes in order.
    #[must_use]
    pub fn as_slice(&self) -> &[ChangeHash] {
        match &self.0 {
            Repr::None => &[],
            Repr::One(hash) => std::slice::from_ref(hash),
            Repr::Many(hashes) => hashes,
        }
    }

    /// How many heads there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether the history is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Repr::None
    }

    /// Whether `hash` is one of the heads.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.as_slice().binary_search(hash).is_ok()
    }

    /// The frontier after changes, given as hash and dependencies, each of whose dependencies lies behind the frontier
    /// or earlier in the list, and none of which lies behind it already.
    #[must_use]
    pub fn advanced<'a>(&self, changes: impl IntoIterator<Item = (ChangeHash, &'a [ChangeHash])>) -> Self {
        let mut hashes = self.as_slice().to_vec();
        for (hash, deps) in changes {
            hashes.retain(|head| !deps.contains(head));
            hashes.push(hash);
        }
        Self::new(hashes)
    }
}

impl From<Vec<ChangeHash>> for Heads {
    fn from(hashes: Vec<ChangeHash>) -> Self {
        Self::new(hashes)
    }
}
