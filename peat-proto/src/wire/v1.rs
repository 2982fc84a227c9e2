//! The wire that Peat nodes speak among themselves, `peat/sync/1`.
//!
//! ```text
//!   entry      what is said about one document: heads, question, changes, saved document, marker, refusal, piece
//!   body       greeting | comparison of sets | entries, plain or compressed | ping
//!   frame      LEB128 length of what follows | u8 type | body
//!   stream     frames, one behind the other
//! ```
//!
//! Types with bit 7 set are optional: who does not know one skips it. An unknown type without it ends the connection. All
//! numbers are LEB128 in their shortest form unless a width is given; those are big-endian. Every value has one form.

mod assembler;
mod chunk;
mod compare;
mod entry;
mod error;
mod frame;
mod greet;
mod handshake;
mod packed;
mod pulse;

pub use assembler::{Assembler, Caps, Incoming};
pub use compare::{Ask, Cells, Pull, Shares, Subject, Summary, Total, Want};
pub use entry::{Body, Entries, EntriesBuilder, Entry, Form, Held, Piece, Refused, Saved, Word};
pub use error::{BodyError, EntryError, FrameError};
pub use frame::{Frame, Kind};
pub use greet::{Hello, Method, Proof, Scope, Terms};
pub use handshake::{Handshake, HandshakeError, Proven, Secrets};
pub use packed::{Packed, Packer};
pub use pulse::{Ping, Pong};
