//! The heart of Peat: a pure, synchronous state machine that keeps Automerge documents equal across a mesh.
//!
//! A [`Node`] does no I/O, reads no clock, starts no thread and takes no lock. A *driver* owns it and moves things:
//!
//! ```text
//!   frames, store answers, edits, time  ──►  Node::handle, Node::edit
//!   store commands, jobs, events, frames ◄──  Node::poll, until None; then sleep until Node::timeout
//! ```
//!
//! The driver's contract stands on [`Node`]; the store's in [`store`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod admit;
pub mod check;
pub mod config;
mod doc;
mod error;
mod formation;
#[cfg(test)]
mod golden;
mod heads;
mod id;
mod io;
mod job;
mod marker;
mod node;
mod peer;
pub mod policy;
mod request;
mod rng;
mod stats;
pub mod store;
mod sync;
mod time;
pub mod wire;

pub use automerge;
pub use config::Config;
pub use error::{DeleteError, EditError};
pub use formation::{BadFormationId, BadSecret, Formation, FormationId, FormationSecret};
pub use heads::Heads;
pub use id::{BadDocId, Boot, ConnId, DocId, EditId, Invitation, LoadId, PeerId, Seq, StreamId};
pub use io::{CloseCode, Event, Input, Lane, Link, Origin, Output, Refusal, Role, Wire};
pub use job::{Done, Job};
pub use marker::{Marker, Spread, Text};
pub use node::{Listing, Node, Reason};
pub use request::{SyncId, SyncOutcome, SyncRequest, Which};
pub use rng::Rng;
pub use stats::{BreakerState, Contact, Credential, LegacyPeer, LegacyStats, ModeTraffic, PeerStats, Stats, Traffic};
pub use sync::reconcile;
pub use time::{Now, Time};
