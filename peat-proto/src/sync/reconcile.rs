//! Finding out in which documents two nodes differ, at a cost that follows the difference and not the sets.
//!
//! ```text
//!   Symbol     16 bytes that stand for (document, what is offered of it), under a key that both sides share
//!   SymbolSet  all symbols of one scope: a digest that judges, a sketch that finds, a tree that names
//!   Sketch     rateless invertible Bloom lookup table: about 1.4 cells of 21 bytes find one difference
//!   Decoder    own cells minus theirs, peeled until nothing is left
//!   Ranges     for what is too much for a sketch: fingerprints of ever smaller ranges, then lists of symbols
//! ```
//!
//! Nothing here decides whether two sets *are* equal: only the full digests of [`SymbolSet::digest`] do.

mod cell;
mod decoder;
mod frozen;
mod item;
mod ranges;
mod set;
mod sketch;
mod symbol;
mod tree;

pub use cell::{Cell, MAX_CELLS};
pub use decoder::{Decoder, Progress};
pub use frozen::Frozen;
pub use item::{Item, State};
pub use ranges::{Answer, Ranges, Share, answer};
pub use set::{Digest, SymbolSet};
pub use symbol::{Difference, Prefix, SetKey, Symbol};

#[cfg(test)]
mod tests;
