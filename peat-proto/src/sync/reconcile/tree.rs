//! Symbols in order, with the sum of every range at hand.

use std::ops::ControlFlow;

use super::symbol::{Prefix, Symbol};

/// Entries of a leaf; one more divides it into sixteen.
const LEAF: usize = 128;

/// Entries down to which a divided range becomes a leaf again.
const MERGE: usize = 32;

/// The symbols of a range, added up: fingerprint and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Both halves of all symbols, each added modulo 2^64.
    pub sum: Symbol,
    /// How many there are.
    pub count: u64,
}

impl Share {
    /// The share of the union of two disjoint sets.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = Symbol {
            name: self.sum.name.wrapping_add(other.sum.name),
            state: self.sum.state.wrapping_add(other.sum.state),
        };
        Self { sum, count: self.count.wrapping_add(other.count) }
    }

    fn minus(self, symbol: Symbol) -> Self {
        let sum =
            Symbol { name: self.sum.name.wrapping_sub(symbol.name), state: self.sum.state.wrapping_sub(symbol.state) };
        Self { sum, count: self.count.wrapping_sub(1) }
    }

    fn of(symbol: Symbol) -> Self {
        Self { sum: symbol, count: 1 }
    }
}

/// A radix tree over the hexadecimal digits of symbols. Symbols are uniform, so its leaves are evenly filled and a range
/// is found in as many steps as it has digits; whoever forges symbols makes it at most 32 deep.
///
/// 33 to 50 bytes for each symbol with 16 bytes of value.
#[derive(Debug)]
pub(super) struct Tree<V> {
    root: Node<V>,
    /// Entries that were looked at, for tests of what a comparison costs.
    #[cfg(test)]
    pub(super) visited: std::cell::Cell<u64>,
}

#[derive(Debug)]
struct Node<V> {
    share: Share,
    body: Body<V>,
}

#[derive(Debug)]
enum Body<V> {
    /// In ascending order.
    Leaf(Vec<(Symbol, V)>),
    Inner(Box<[Node<V>; 16]>),
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            #[cfg(test)]
            visited: std::cell::Cell::default(),
        }
    }
}

impl<V> Tree<V> {
    pub(super) fn len(&self) -> u64 {
        self.root.share.count
    }

    pub(super) fn get(&self, symbol: &Symbol) -> Option<&V> {
        let (mut node, mut depth) = (&self.root, 0);
        loop {
            match &node.body {
                Body::Leaf(entries) => {
                    self.visit(1);
                    let at = entries.binary_search_by_key(symbol, |(known, _)| *known).ok()?;
                    return entries.get(at).map(|(_, value)| value);
                }
                Body::Inner(children) => {
                    node = &children[symbol.digit(depth)];
                    depth += 1;
                }
            }
        }
    }

    /// False, and nothing changes, if the symbol is there.
    pub(super) fn insert(&mut self, symbol: Symbol, value: V) -> bool {
        self.root.insert(symbol, value, 0)
    }

    /// The value, if the symbol was there.
    pub(super) fn remove(&mut self, symbol: &Symbol) -> Option<V> {
        self.root.remove(symbol, 0)
    }

    pub(super) fn share(&self, prefix: &Prefix) -> Share {
        let (mut node, mut depth) = (&self.root, 0);
        while depth < prefix.digits() {
            match &node.body {
                Body::Leaf(entries) => {
                    self.visit(entries.len() as u64);
                    let inside = entries.iter().filter(|(symbol, _)| prefix.contains(symbol));
                    return inside.fold(Share::default(), |share, (symbol, _)| share.plus(Share::of(*symbol)));
                }
                Body::Inner(children) => {
                    node = &children[prefix.first().digit(depth)];
                    depth += 1;
                }
            }
        }
        node.share
    }

    /// The entries of a range in order, those behind a symbol only if one is given, until `visit` breaks off.
    pub(super) fn walk<'a>(
        &'a self,
        prefix: &Prefix,
        behind: Option<Symbol>,
        mut visit: impl FnMut(&'a Symbol, &'a V) -> ControlFlow<()>,
    ) {
        let (mut node, mut depth) = (&self.root, 0);
        while depth < prefix.digits()
            && let Body::Inner(children) = &node.body
        {
            node = &children[prefix.first().digit(depth)];
            depth += 1;
        }
        let mut inside = |symbol, value| {
            self.visit(1);
            if prefix.contains(symbol) { visit(symbol, value) } else { ControlFlow::Continue(()) }
        };
        // What lies behind the range's own first symbol is all of the range.
        let behind = behind.filter(|behind| *behind >= prefix.first());
        let beyond = behind.is_some_and(|behind| !prefix.contains(&behind));
        if !beyond {
            let _ = node.walk(behind, depth, &mut inside);
        }
    }
}

impl<V> Tree<V> {
    #[cfg(test)]
    fn visit(&self, entries: u64) {
        self.visited.set(self.visited.get() + entries);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "counted in tests only")]
    fn visit(&self, _: u64) {}
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { share: Share::default(), body: Body::Leaf(Vec::new()) }
    }
}

impl<V> Node<V> {
    fn insert(&mut self, symbol: Symbol, value: V, depth: u8) -> bool {
        let inserted = match &mut self.body {
            Body::Inner(children) => children[symbol.digit(depth)].insert(symbol, value, depth + 1),
            Body::Leaf(entries) => match entries.binary_search_by_key(&symbol, |(known, _)| *known) {
                Ok(_) => false,
                Err(at) => {
                    if entries.len() == entries.capacity() {
                        // Doubling would leave a third of the index unused.
                        entries.reserve_exact(2 + entries.len() / 4);
                    }
                    entries.insert(at, (symbol, value));
                    true
                }
            },
        };
        if inserted {
            self.share = self.share.plus(Share::of(symbol));
            self.divide(depth);
        }
        inserted
    }

    fn divide(&mut self, depth: u8) {
        let Body::Leaf(entries) = &mut self.body else { return };
        if entries.len() <= LEAF || depth >= Prefix::MAX_DIGITS {
            return;
        }
        let mut children: Box<[Self; 16]> = Box::default();
        let mut rest = std::mem::take(entries).into_iter().peekable();
        for (digit, child) in children.iter_mut().enumerate() {
            let mut own = Vec::new();
            while let Some(entry) = rest.next_if(|(symbol, _)| symbol.digit(depth) == digit) {
                child.share = child.share.plus(Share::of(entry.0));
                own.push(entry);
            }
            own.shrink_to_fit();
            child.body = Body::Leaf(own);
        }
        self.body = Body::Inner(children);
    }

    fn remove(&mut self, symbol: &Symbol, depth: u8) -> Option<V> {
        let value = match &mut self.body {
            Body::Inner(children) => children[symbol.digit(depth)].remove(symbol, depth + 1)?,
            Body::Leaf(entries) => {
                let at = entries.binary_search_by_key(symbol, |(known, _)| *known).ok()?;
                entries.remove(at).1
            }
        };
        self.share = self.share.minus(*symbol);
        if matches!(self.body, Body::Inner(_)) && self.share.count <= MERGE as u64 {
            let mut entries = Vec::with_capacity(MERGE);
            std::mem::replace(&mut self.body, Body::Leaf(Vec::new())).drain_into(&mut entries);
            self.body = Body::Leaf(entries);
        }
        Some(value)
    }

    fn walk<'a>(
        &'a self,
        behind: Option<Symbol>,
        depth: u8,
        visit: &mut impl FnMut(&'a Symbol, &'a V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match &self.body {
            Body::Leaf(entries) => {
                let start = behind.map_or(0, |behind| entries.partition_point(|(symbol, _)| *symbol <= behind));
                entries.iter().skip(start).try_for_each(|(symbol, value)| visit(symbol, value))
            }
            Body::Inner(children) => {
                let start = behind.map_or(0, |behind| behind.digit(depth));
                for (digit, child) in children.iter().enumerate().skip(start) {
                    let behind = behind.filter(|_| digit == start);
                    child.walk(behind, depth + 1, visit)?;
                }
                ControlFlow::Continue(())
            }
        }
    }
}

impl<V> Body<V> {
    fn drain_into(self, entries: &mut Vec<(Symbol, V)>) {
        match self {
            Self::Leaf(mut own) => entries.append(&mut own),
            Self::Inner(children) => children.into_iter().for_each(|child| child.body.drain_into(entries)),
        }
    }
}
