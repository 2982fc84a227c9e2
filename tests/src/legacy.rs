//! A fielded peat-mesh peer, written from its wire specification alone ("wire.md", whose sections the comments name).
//!
//! It shares no code with `peat_proto::wire`: frames, batches, markers, heartbeats, authentication and reconciliation are
//! its own, and documents are exchanged with plain `automerge::sync::State`. It does what such peers do, what they do
//! wrong included; each wart is a switch of [`Warts`].
//!
//! [`LegacyPeer`] does no I/O: inputs, virtual time and a seed go in, outputs come out, and the same inputs give the same
//! outputs. It runs on the Automerge version of its [`Library`].

mod auth;
mod batches;
mod config;
mod connection;
mod deletion;
mod documents;
mod flow;
mod frame;
mod io;
mod library;
mod member;
mod mesh;
mod negentropy;
mod peer;
mod policy;
mod reconciliation;
mod store;
mod streams;
mod tombstone;

#[cfg(test)]
mod tests;

pub use auth::{Dialect, Formation, Handshake, Outcome, Progress};
pub use config::{Config, Family, Kin, Warts};
pub use frame::{BATCH_KEY, Bad, Batch, Frame, NEGENTROPY_KEY, TTL, heartbeat, kind, read_heartbeat};
pub use io::{Input, Output};
pub use library::{Field, Head, Library, V07, V12};
pub use member::Member;
pub use mesh::{Mesh, Said};
pub use peer::{LegacyPeer, Stats};
pub use policy::{Mode, Names, Way, collection};
pub use tombstone::{Direction, TOMBSTONES_KEY, Tombstone, batch_frame, decode_all, encode_all};
