//! Sets as they were at one moment.

use std::sync::Arc;

use super::cell::{Cell, MAX_CELLS};
use super::set::SymbolSet;
use super::sketch::Sketch;
use super::symbol::Symbol;

/// The cells of the union of disjoint sets, as they were when it was made.
#[derive(Debug, Clone, Default)]
pub struct Frozen {
    parts: Vec<Arc<Vec<Cell>>>,
    symbols: u64,
    cells: u32,
}

impl Frozen {
    /// Freezes sets of which a difference of up to `symbols` symbols is to be found; their sketches grow if they are
    /// too short for that.
    #[must_use]
    pub fn of<'a, V: 'a>(sets: impl IntoIterator<Item = &'a mut SymbolSet<V>>, symbols: u64) -> Self {
        Self::with_cells(sets, Self::cells_for(symbols))
    }

    /// Freezes the first `cells` cells, at most [`MAX_CELLS`].
    #[must_use]
    pub fn with_cells<'a, V: 'a>(sets: impl IntoIterator<Item = &'a mut SymbolSet<V>>, cells: u32) -> Self {
        let cells = cells.min(MAX_CELLS);
        let mut frozen = Self { parts: Vec::new(), symbols: 0, cells };
        for set in sets {
            frozen.symbols += set.len();
            if !set.is_empty() {
                frozen.parts.push(set.freeze(cells));
            }
        }
        frozen
    }

    /// The same without some of the symbols.
    #[must_use]
    pub fn without(mut self, symbols: &[Symbol]) -> Self {
        if symbols.is_empty() {
            return self;
        }
        let mut sketch = Sketch::default();
        sketch.widen(self.cells, |_| {});
        for symbol in symbols {
            sketch.toggle(*symbol, -1);
        }
        self.symbols = self.symbols.saturating_sub(symbols.len() as u64);
        self.parts.push(sketch.freeze());
        self
    }

    /// Most cells that a difference of so many symbols is worth: twice as many, and 64.
    #[must_use]
    pub fn cells_for(symbols: u64) -> u32 {
        let cells = symbols.saturating_mul(2).saturating_add(64).min(u64::from(MAX_CELLS));
        u32::try_from(cells).unwrap_or(MAX_CELLS)
    }

    /// Symbols in the sets.
    #[must_use]
    pub fn symbols(&self) -> u64 {
        self.symbols
    }

    /// How many cells there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.cells
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells == 0
    }

    /// One cell; empty behind the last.
    #[must_use]
    pub fn cell(&self, index: u32) -> Cell {
        let parts = self.parts.iter().filter_map(|part| part.get(index as usize));
        parts.fold(Cell::default(), |sum, cell| sum.plus(*cell))
    }
}
