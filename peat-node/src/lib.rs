//! A running node without a runtime: one loop thread that owns the state machine, one store thread, workers for big
//! documents, and [`Node`], the handle that applications hold.

pub mod dir;
mod error;
mod node;
pub mod store;
mod ticket;
pub mod transport;

pub use dir::Dir;
pub use error::OpenError;
pub use node::{Change, Node, Options, Pending, ReadError, Subscription, WriteError};
pub use peat_proto::{self as proto, DocId, Heads, Origin, PeerId};
pub use ticket::Ticket;

/// The README's example, compiled as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
