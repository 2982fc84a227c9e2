//! What syncing costs: two nodes on one thread with a link between them that takes no time and loses nothing, every frame
//! counted by what it is for; beside them what fielded peers and Automerge alone need for the same.

mod corpus;
mod fielded;
mod floor;
mod judge;
mod meter;
mod pair;
mod rows;
mod timed;

pub use corpus::{Corpus, aircraft, fields};
pub use fielded::{Crossed, edit_of_fielded, exchange_of_fielded, reconciliation_of_fielded};
pub use floor::{DIGEST, first_sync_floor, naming_floor};
pub use judge::{Excess, Judge, LEVEL, LEVEL_TRIPS, PROCESSOR, TEN, TEN_THOUSAND, THOUSAND, edit_frame};
pub use meter::{Bytes, Meter};
pub use pair::{Pair, Side};
pub use rows::{changed, edit, equal, first_sync, hub_and_leaf, restarted_hub_and_leaf};
pub use timed::{FirstSync, timed};
