//! Symbols: what stands for a document and its state, and ranges of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::formation::Formation;

/// Decides all symbols. Only nodes with the same key can compare sketches and ranges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SetKey([u8; 32]);

impl SetKey {
    /// The key of nodes that share no secret. Whoever wants to may then make documents whose symbols collide; that costs
    /// bytes and never correctness.
    #[must_use]
    pub fn public() -> Self {
        Self(blake3::derive_key("peat 2026 public set key v1", &[]))
    }

    /// The key of the members of a formation.
    #[must_use]
    pub fn of_formation(formation: &Formation) -> Self {
        Self(blake3::derive_key("peat 2026 formation set key v1", &formation.root()))
    }

    /// Names the key without telling it.
    #[must_use]
    pub fn id(&self) -> [u8; 8] {
        first_8(&blake3::derive_key("peat 2026 set key id v1", &self.0))
    }

    /// The first 8 bytes of a keyed hash.
    pub(super) fn tag(&self, bytes: &[u8]) -> u64 {
        u64::from_be_bytes(first_8(blake3::keyed_hash(&self.0, bytes).as_bytes()))
    }
}

impl fmt::Debug for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetKey(..)")
    }
}

fn first_8(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

/// 16 bytes that stand for a document and what is offered of it.
///
/// The first half depends on the name alone: two symbols with equal first halves are two states of one document, so a
/// difference tells what changed from what is missing before anything is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Symbol {
    /// Keyed hash of the name.
    pub(super) name: u64,
    /// Keyed hash of name, incarnation, and heads or marker.
    pub(super) state: u64,
}

impl Symbol {
    /// As on the wire, most significant byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (name, state) = bytes.split_at_mut(8);
        name.copy_from_slice(&self.name.to_be_bytes());
        state.copy_from_slice(&self.state.to_be_bytes());
        bytes
    }

    /// Reads [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self { name: (number >> 64) as u64, state: number as u64 }
    }

    /// The keyed hash of the document's name.
    #[must_use]
    pub fn name(&self) -> u64 {
        self.name
    }

    /// Whether both are states of one document.
    #[must_use]
    pub fn is_same_document(&self, other: &Self) -> bool {
        self.name == other.name
    }

    pub(super) fn xor(self, other: Self) -> Self {
        Self { name: self.name ^ other.name, state: self.state ^ other.state }
    }

    /// The `depth`-th hexadecimal digit; `depth` is below 32.
    pub(super) fn digit(&self, depth: u8) -> usize {
        let half = if depth < 16 { self.name } else { self.state };
        ((half >> (60 - 4 * u32::from(depth % 16))) & 15) as usize
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{:016x}", self.name, self.state)
    }
}

/// All symbols that begin with the same hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Prefix {
    /// The lowest symbol.
    first: Symbol,
    digits: u8,
}

impl Prefix {
    /// Digits of a symbol.
    pub const MAX_DIGITS: u8 = 32;

    /// All symbols.
    pub const ALL: Self = Self { first: Symbol { name: 0, state: 0 }, digits: 0 };

    /// The symbols that share the first `digits` digits of `symbol`; `None` above [`Self::MAX_DIGITS`].
    #[must_use]
    pub fn new(symbol: Symbol, digits: u8) -> Option<Self> {
        if digits > Self::MAX_DIGITS {
            return None;
        }
        let bits = 4 * u32::from(digits);
        let number = u128::from_be_bytes(symbol.to_bytes());
        let kept = number.checked_shr(128 - bits).unwrap_or(0);
        let first = Symbol::from_bytes(kept.checked_shl(128 - bits).unwrap_or(0).to_be_bytes());
        Some(Self { first, digits })
    }

    /// The lowest symbol of the range.
    #[must_use]
    pub fn first(&self) -> Symbol {
        self.first
    }

    /// How many digits all symbols of the range share.
    #[must_use]
    pub fn digits(&self) -> u8 {
        self.digits
    }

    /// Whether the symbol lies in the range.
    #[must_use]
    pub fn contains(&self, symbol: &Symbol) -> bool {
        Self::new(*symbol, self.digits) == Some(*self)
    }

    /// The sixteenth of the range whose next digit is `digit`; `None` for a single symbol.
    pub(super) fn child(&self, digit: u8) -> Option<Self> {
        if self.digits >= Self::MAX_DIGITS {
            return None;
        }
        let shift = 124 - 4 * u32::from(self.digits);
        let number = u128::from_be_bytes(self.first.to_bytes()) | (u128::from(digit & 15) << shift);
        Some(Self { first: Symbol::from_bytes(number.to_be_bytes()), digits: self.digits + 1 })
    }
}

/// In what two sets differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Documents of which both have a state, and not the same: ours.
    pub changed: Vec<Symbol>,
    /// Documents that only we have.
    pub ours: Vec<Symbol>,
    /// Documents that only they have.
    pub theirs: Vec<Symbol>,
}

impl Difference {
    /// Keeps only these symbols.
    pub fn retain(&mut self, keeps: impl Fn(&Symbol) -> bool) {
        for symbols in [&mut self.changed, &mut self.ours, &mut self.theirs] {
            symbols.retain(&keeps);
        }
    }

    /// Sorts out which symbols that only one side has belong to documents that both have.
    #[must_use]
    pub fn of(ours: Vec<Symbol>, theirs: Vec<Symbol>) -> Self {
        let mut names: BTreeMap<u64, bool> = theirs.iter().map(|symbol| (symbol.name, false)).collect();
        let mut difference = Self::default();
        for symbol in ours {
            match names.get_mut(&symbol.name) {
                None => difference.ours.push(symbol),
                Some(shared) => {
                    *shared = true;
                    difference.changed.push(symbol);
                }
            }
        }
        difference.theirs = theirs.into_iter().filter(|symbol| names.get(&symbol.name) == Some(&false)).collect();
        difference
    }

    /// Documents in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changed.len() + self.ours.len() + self.theirs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
