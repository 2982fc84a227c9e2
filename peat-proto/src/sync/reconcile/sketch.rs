//! The sketch of one set.

use std::sync::Arc;

use super::cell::{Cell, MAX_CELLS, spread};
use super::symbol::Symbol;

/// The first cells of a set, kept current.
///
/// A symbol is part of 17 cells of 8,192, so a change costs 17 steps however large the set is. Whoever froze the cells
/// keeps them as they were; the next change after that copies them once.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    cells: Arc<Vec<Cell>>,
}

impl Sketch {
    /// Cells that are worth keeping for a set of so many symbols: what more could not find a difference within it.
    /// At least 64, at most 24 bytes x 8,192 = 192 KiB.
    pub(super) fn wanted(symbols: u64) -> u32 {
        let twice = symbols.saturating_mul(2).clamp(64, u64::from(MAX_CELLS));
        u32::try_from(twice).unwrap_or(MAX_CELLS).next_power_of_two()
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.cells.len()).unwrap_or(MAX_CELLS)
    }

    /// Adds a symbol once, or takes it away.
    pub(super) fn toggle(&mut self, symbol: Symbol, by: i32) {
        let (check, indices) = spread(symbol);
        let cells = Arc::make_mut(&mut self.cells);
        for index in indices {
            let Some(cell) = cells.get_mut(index as usize) else { return };
            cell.toggle(symbol, check, by);
        }
    }

    /// Grows to so many cells, given all symbols.
    pub(super) fn widen(&mut self, cells: u32, mut each: impl FnMut(&mut dyn FnMut(&Symbol))) {
        let from = self.len();
        let cells = cells.min(MAX_CELLS);
        if cells <= from {
            return;
        }
        let kept = Arc::make_mut(&mut self.cells);
        kept.resize(cells as usize, Cell::default());
        each(&mut |symbol| {
            let (check, indices) = spread(*symbol);
            for index in indices.skip_while(|index| *index < from) {
                let Some(cell) = kept.get_mut(index as usize) else { return };
                cell.toggle(*symbol, check, 1);
            }
        });
    }

    pub(super) fn freeze(&self) -> Arc<Vec<Cell>> {
        Arc::clone(&self.cells)
    }
}
