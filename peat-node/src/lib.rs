//! A running node without a runtime: one loop thread that owns the state machine, one store thread, workers for big
//! documents, and [`Node`], the handle that applications hold.

mod address;
mod dial;
pub mod dir;
mod driver;
mod error;
mod file;
mod inbox;
pub mod json;
mod node;
mod pending;
mod request;
pub mod rules;
pub mod store;
mod subscription;
mod sync;
mod ticket;
pub mod transport;
mod workers;

pub use dir::Dir;
pub use error::{DeleteError, LevelError, OpenError, ReadError, RulesError, SyncError, WriteError};
pub use node::{Deleted, Identity, Node, Options, Visit};
pub use peat_proto::{self as proto, DocId, Heads, Origin, PeerId, SyncOutcome, Which};
pub use pending::Pending;
pub use rules::Rules;
pub use subscription::{Change, Subscription};
pub use sync::Synced;
pub use ticket::{BadTicket, Ticket};

/// The README's example, compiled as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
