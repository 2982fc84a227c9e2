//! All symbols of one scope.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::cell::Cell;
use super::item::Item;
use super::sketch::Sketch;
use super::symbol::{Prefix, Symbol};
use super::tree::{Share, Tree};

/// A digest of a set: the sum of the hashes of its elements, so that it follows every change in constant time.
///
/// Four lanes of 64 bits, added with wrap-around. Equal sets have equal digests; sets that differ by chance collide with
/// probability 2^-256. It judges equality between admitted members and is no defence against one who forges hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u64; 4]);

impl Digest {
    pub(super) fn of(hash: &[u8; 32]) -> Self {
        Self::from_bytes(*hash)
    }

    /// The digest of the union of disjoint sets.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }

    /// The digest of what is left without a part of it.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.each(other, u64::wrapping_sub)
    }

    fn each(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut lanes = self.0;
        for (lane, word) in lanes.iter_mut().zip(other.0) {
            *lane = combine(*lane, word);
        }
        Self(lanes)
    }

    /// The lanes in order, each most significant byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (out, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            out.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }

    /// Reads [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(bytes.chunks_exact(8)) {
            *lane = bytes.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        }
        Self(lanes)
    }
}

/// The symbols of one scope, each with whatever leads back to its document.
#[derive(Debug)]
pub struct SymbolSet<V> {
    tree: Tree<V>,
    sketch: Sketch,
    digest: Digest,
}

impl<V> Default for SymbolSet<V> {
    fn default() -> Self {
        Self { tree: Tree::default(), sketch: Sketch::default(), digest: Digest::default() }
    }
}

impl<V> SymbolSet<V> {
    /// Adds an element that is not there. Of two documents whose symbols collide, which takes 2^64 attempts to bring about,
    /// only one is found by sketch or range; both count in the digest.
    pub fn insert(&mut self, item: &Item, value: V) {
        self.digest = self.digest.plus(item.digest);
        if self.tree.insert(item.symbol, value) {
            self.sketch.toggle(item.symbol, 1);
            self.widen(Sketch::wanted(self.tree.len()));
        }
    }

    /// Takes away an element that is there.
    pub fn remove(&mut self, item: &Item) {
        self.digest = self.digest.minus(item.digest);
        if self.tree.remove(&item.symbol).is_some() {
            self.sketch.toggle(item.symbol, -1);
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tree.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What decides whether two sets are equal.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What leads back to the document of a symbol.
    #[must_use]
    pub fn get(&self, symbol: &Symbol) -> Option<&V> {
        self.tree.get(symbol)
    }

    /// Our state of the document that `symbol` is a state of.
    #[must_use]
    pub fn same_document(&self, symbol: &Symbol) -> Option<(&Symbol, &V)> {
        let name = Prefix::new(*symbol, Prefix::MAX_DIGITS / 2)?;
        let mut found = None;
        self.tree.walk(&name, None, |symbol, value| {
            found = Some((symbol, value));
            ControlFlow::Break(())
        });
        found
    }

    /// The share of a range, in as many steps as the range has digits and at most 128 more.
    #[must_use]
    pub fn share(&self, prefix: &Prefix) -> Share {
        self.tree.share(prefix)
    }

    /// At most `most` elements of a range in order, those behind a symbol only if one is given.
    #[must_use]
    pub fn list(&self, prefix: &Prefix, behind: Option<Symbol>, most: usize) -> Vec<(Symbol, &V)> {
        let mut listed = Vec::new();
        if most > 0 {
            self.tree.walk(prefix, behind, |symbol, value| {
                listed.push((*symbol, value));
                if listed.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        listed
    }

    /// Entries that were looked at so far.
    #[cfg(test)]
    pub(super) fn visited(&self) -> u64 {
        self.tree.visited.get()
    }

    /// The cells as they are now; at least `cells` of them.
    pub(crate) fn freeze(&mut self, cells: u32) -> Arc<Vec<Cell>> {
        self.widen(cells);
        self.sketch.freeze()
    }

    /// Only sets of fewer than 4,096 elements ever have more cells to come, so this takes at most 2 ms.
    fn widen(&mut self, cells: u32) {
        let tree = &self.tree;
        self.sketch.widen(cells, |visit| {
            tree.walk(&Prefix::ALL, None, |symbol, _| {
                visit(symbol);
                ControlFlow::Continue(())
            });
        });
    }
}
