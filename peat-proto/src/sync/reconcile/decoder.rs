//! From cells to the symbols in which two sets differ.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cell::{Cell, Indices, MAX_CELLS, spread};
use super::frozen::Frozen;
use super::symbol::{Difference, Symbol};

/// Cells that are asked for first: 1 KB, enough for about 25 differences.
const FIRST: u32 = 48;

/// Cells of which not one in the second half is empty tell of more than 5,000 differences.
const HOPELESS: u32 = 2048;

/// Takes in the other side's cells block by block, until what is left of the difference is nothing.
///
/// Work and memory are bounded whatever the cells say: no more symbols are peeled than there are cells.
#[derive(Debug)]
pub struct Decoder {
    ours: Frozen,
    /// Cells to ask for first.
    first: u32,
    /// How many more symbols we have.
    surplus: f64,
    /// What is left of ours minus theirs.
    cells: Vec<Cell>,
    peeled: Vec<Peeled>,
}

/// A symbol that was found and taken out of all cells so far.
#[derive(Debug)]
struct Peeled {
    symbol: Symbol,
    check: u32,
    sign: i32,
    /// The cells to come that it is part of.
    rest: Indices,
}

/// How far a decoder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More cells are needed.
    More,
    /// All that was different when both sides froze their sets.
    Done(Difference),
    /// The difference is too large, or the cells are not those of a set.
    Failed,
}

impl Decoder {
    /// A decoder without cells, of a set against one of `theirs` symbols.
    #[must_use]
    pub fn new(ours: Frozen, theirs: u64) -> Self {
        // At least so many symbols differ.
        let differ = u32::try_from(ours.symbols().abs_diff(theirs)).unwrap_or(MAX_CELLS).min(MAX_CELLS);
        let surplus = ours.symbols() as f64 - theirs as f64;
        Self { ours, first: FIRST.max(differ + differ / 2), surplus, cells: Vec::new(), peeled: Vec::new() }
    }

    /// The cells to ask for: no more than seem to be missing, and at least a quarter of those there are, so that it ends.
    #[must_use]
    pub fn next(&self) -> Range<u32> {
        let have = self.len();
        let least = have + (have / 4).max(8);
        let to = match self.estimate() {
            _ if have == 0 => self.first,
            Some(all) => all.clamp(least, have + (have / 2).max(8)),
            // From few cells it is known within a fifth, and what was not needed is not given back.
            None if have < 4 * FIRST => (self.rough_estimate() / 4 * 3).max(least).min(HOPELESS.max(least)),
            None => self.rough_estimate().max(least).min(HOPELESS.max(least)),
        };
        have..to.min(self.ours.len())
    }

    /// Takes in the cells that follow those it has.
    pub fn extend(&mut self, theirs: &[Cell]) -> Progress {
        let from = self.cells.len();
        let room = self.ours.len().saturating_sub(self.len()) as usize;
        for (theirs, index) in theirs.iter().take(room).zip(self.len()..) {
            self.cells.push(self.ours.cell(index).minus(*theirs));
        }
        for peeled in &mut self.peeled {
            peeled.take_out(&mut self.cells, |_| {});
        }
        let mut waiting: Vec<usize> = (from..self.cells.len()).collect();
        while let Some(at) = waiting.pop() {
            let Some((symbol, sign)) = self.cells.get(at).and_then(Cell::single) else { continue };
            let (check, rest) = spread(symbol);
            if rest.take_while(|index| *index as usize <= at).last() != Some(at as u32) {
                continue;
            }
            if self.peeled.len() >= self.cells.len() {
                return Progress::Failed;
            }
            let mut peeled = Peeled { symbol, check, sign, rest };
            peeled.take_out(&mut self.cells, |at| waiting.push(at));
            self.peeled.push(peeled);
        }
        if self.cells.first().is_some_and(Cell::is_empty) {
            return self.difference().map_or(Progress::Failed, Progress::Done);
        }
        let full = self.len() >= self.ours.len();
        if full || self.is_hopeless() { Progress::Failed } else { Progress::More }
    }

    /// Cells that it takes in at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.ours.len()
    }

    /// Cells taken in.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.cells.len()).unwrap_or(u32::MAX)
    }

    /// Whether no cell has been taken in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// What was peeled, if nothing is left and no symbol counts other than once.
    fn difference(&self) -> Option<Difference> {
        if !self.cells.iter().all(Cell::is_empty) {
            return None;
        }
        let mut counts: BTreeMap<Symbol, i32> = BTreeMap::new();
        for peeled in &self.peeled {
            *counts.entry(peeled.symbol).or_default() += peeled.sign;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (symbol, count) in counts {
            match count {
                1 => ours.push(symbol),
                -1 => theirs.push(symbol),
                _ => return None,
            }
        }
        Some(Difference::of(ours, theirs))
    }

    /// The empty ones among the newer half of the cells, and how many these are.
    fn empty(&self) -> (usize, usize) {
        let newer = self.cells.get(self.cells.len() / 2..).unwrap_or_default();
        (newer.iter().filter(|cell| cell.is_empty()).count(), newer.len())
    }

    fn is_hopeless(&self) -> bool {
        self.len() >= HOPELESS && self.peeled.is_empty() && self.empty().0 == 0
    }

    /// How many cells it takes in all, if the empty ones tell.
    ///
    /// In a cell of the newer half a remaining symbol is with probability 2.77 / m on average (2 ln 2 / (m / 2)), so of d
    /// symbols e^(-2.77 d / m) leave it empty. About 1.4 cells find a symbol.
    fn estimate(&self) -> Option<u32> {
        let (empty, all) = self.empty();
        if empty * 7 < all || all == 0 {
            return None;
        }
        let (empty, all) = (empty as f64, all as f64);
        // The logarithm of all / empty by its series, which is within 1 % from 1 to 7 and the same on every machine.
        let t = (all - empty) / (all + empty);
        let logarithm = 2.0 * t * (1.0 + t * t * (1.0 / 3.0 + t * t * (0.2 + t * t / 7.0)));
        let remaining = logarithm * self.cells.len() as f64 / 2.77;
        Some((1.4 * (remaining + self.peeled.len() as f64)) as u32 + 8)
    }

    /// The same where hardly a cell is empty, by how the counts scatter.
    ///
    /// A symbol is in cell i with probability p = 2 / (2 + i), and counts up or down by whose it is. Of d symbols, s more ours than
    /// theirs, the count is s p on average, with a variance of d p (1 - p): each cell tells d, and n cells within d (2 / n)^0.5.
    fn rough_estimate(&self) -> u32 {
        let surplus = self.surplus - f64::from(self.peeled.iter().map(|peeled| peeled.sign).sum::<i32>());
        let told = self.cells.iter().enumerate().skip(1).map(|(index, cell)| {
            let p = 2.0 / (2.0 + index as f64);
            let apart = f64::from(cell.count) - surplus * p;
            apart * apart / (p * (1.0 - p))
        });
        let remaining = told.sum::<f64>() / self.cells.len().saturating_sub(1).max(1) as f64;
        (1.4 * (remaining + self.peeled.len() as f64)) as u32
    }
}

impl Peeled {
    /// Takes the symbol out of the cells that it has not been taken out of; tells which then hold a single one.
    fn take_out(&mut self, cells: &mut [Cell], mut single: impl FnMut(usize)) {
        while let Some(cell) = cells.get_mut(self.rest.peek() as usize) {
            cell.toggle(self.symbol, self.check, -self.sign);
            if cell.single().is_some() {
                single(self.rest.peek() as usize);
            }
            self.rest.next();
        }
    }
}
