//! Cells, and which of them a symbol is part of.

use super::symbol::Symbol;

/// Most cells of a sketch. They find about 6,000 differences, at 172 KB; beyond that ranges are cheaper.
pub const MAX_CELLS: u32 = 8192;

/// What the symbols of one place of a sketch add up to.
///
/// Cells are linear: the cells of two disjoint sets, added, are those of their union, and one set's minus another's are
/// those of the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    /// All symbols, by exclusive or.
    pub sum: Symbol,
    /// All their checks, by exclusive or.
    pub check: u32,
    /// How many there are; in a difference, how many more of ours.
    pub count: i32,
}

impl Cell {
    /// Adds a symbol once, or takes it away.
    pub(super) fn toggle(&mut self, symbol: Symbol, check: u32, by: i32) {
        self.sum = self.sum.xor(symbol);
        self.check ^= check;
        self.count = self.count.wrapping_add(by);
    }

    /// The sum of two cells.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let count = self.count.wrapping_add(other.count);
        Self { sum: self.sum.xor(other.sum), check: self.check ^ other.check, count }
    }

    /// The difference of two cells.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { count: other.count.wrapping_neg(), ..other })
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The one symbol in the cell, with its sign, if there seems to be just one.
    pub(super) fn single(&self) -> Option<(Symbol, i32)> {
        let single = self.count.unsigned_abs() == 1 && self.check == spread(self.sum).0;
        single.then_some((self.sum, self.count))
    }
}

/// A hash of the symbol that exclusive or does not carry through, and the cells that the symbol is part of.
pub(super) fn spread(symbol: Symbol) -> (u32, Indices) {
    let state = mix(mix(symbol.name) ^ symbol.state);
    ((mix(state) >> 32) as u32, Indices { state, next: 0 })
}

/// The cells that a symbol is part of, in ascending order: the first, and cell `i` with probability 1 / (1 + i / 2).
///
/// Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM 2024, section 4.2: from one index to the next
/// by inverting the distribution of the gap. The chance that no cell up to `j` follows cell `i` is
/// `(i + 1)(i + 2) / ((j + 1)(j + 2))`, so a uniform draw `u` leads to the first `j` for which this falls to `u` or below.
/// In whole numbers, so that it is the same on every machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Indices {
    /// State of a SplitMix64 generator (Steele, Lea and Flood 2014).
    state: u64,
    next: u32,
}

impl Indices {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The next index, which stays the next one; [`MAX_CELLS`] when there is none.
    pub(super) fn peek(&self) -> u32 {
        self.next
    }

    /// The index behind `here`, which is below [`MAX_CELLS`].
    fn behind(&mut self, here: u32) -> u32 {
        const END: u64 = (MAX_CELLS as u64 + 1) * (MAX_CELLS as u64 + 2);
        self.state = self.state.wrapping_add(Self::GAMMA);
        let draw = (mix(self.state) >> 32) + 1;
        let here = u64::from(here);
        // Both factors are at most 8,193, so the product stays below 2^59.
        let least = (((here + 1) * (here + 2)) << 32).div_ceil(draw);
        if least > END {
            return MAX_CELLS;
        }
        // The first j with (j + 1)(j + 2) >= least, that is with (2j + 3)^2 >= 4 least + 1; the root has 14 bits.
        let next = ((4 * least as u32).isqrt() - 1) / 2;
        next.max(here as u32 + 1)
    }
}

impl Iterator for Indices {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let index = self.next;
        if index >= MAX_CELLS {
            return None;
        }
        self.next = self.behind(index);
        Some(index)
    }
}

/// The finalizer of SplitMix64 (Stafford's variant 13 of MurmurHash3's).
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_symbol_is_in_a_cell_as_often_as_it_should_be() {
        const SYMBOLS: u32 = 20_000;
        let mut rng = Rng::new([3; 32]);
        let mut hits = vec![0_u32; MAX_CELLS as usize];
        let mut visits = 0;
        for _ in 0..SYMBOLS {
            let symbol = Symbol { name: rng.draw(), state: rng.draw() };
            let indices: Vec<u32> = spread(symbol).1.collect();
            assert!(indices.is_sorted_by(|a, b| a < b));
            visits += indices.len();
            indices.iter().for_each(|index| hits[*index as usize] += 1);
        }
        assert_eq!(hits[0], SYMBOLS);
        for index in [1_u32, 2, 3, 10, 100] {
            let expected = f64::from(SYMBOLS) / (1.0 + f64::from(index) / 2.0);
            let off = (f64::from(hits[index as usize]) - expected).abs() / expected.sqrt();
            assert!(off < 4.0, "cell {index}: {} instead of {expected}, {off} deviations", hits[index as usize]);
        }
        let tail: u32 = hits[4096..].iter().sum();
        let expected = f64::from(SYMBOLS) * 2.0 * 2_f64.ln();
        assert!((f64::from(tail) / expected - 1.0).abs() < 0.02, "{tail} instead of {expected}");
        let mean = visits as f64 / f64::from(SYMBOLS);
        assert!(mean < 18.0, "{mean} cells for each symbol");
    }

    #[test]
    fn the_indices_of_a_symbol_never_change() {
        let symbol = Symbol { name: 1, state: 2 };
        let indices: Vec<u32> = spread(symbol).1.collect();
        assert_eq!(indices, GOLDEN_INDICES, "the wire depends on them");
        assert_eq!(spread(symbol).0, GOLDEN_CHECK);
    }

    const GOLDEN_INDICES: [u32; 18] = [0, 1, 3, 5, 7, 9, 19, 45, 59, 112, 154, 172, 218, 298, 397, 1217, 1377, 2669];
    const GOLDEN_CHECK: u32 = 3_628_103_075;
}
