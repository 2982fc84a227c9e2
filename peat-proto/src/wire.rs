//! Bytes: frames on a stream, and the payloads that they carry.
//!
//! ```text
//!   payload    sync message (delta) | saved document (snapshot) | batch | greeting, digest (interim)
//!   frame      u16 key length | key | u8 type | u32 payload length | payload
//!   stream     frames, one behind the other
//! ```
//!
//! Integers are big-endian. [`v0`] is the layout that legacy peers speak; the two interim control frames exist only
//! between Peat nodes. Every decoder checks counts and lengths against the bytes that are there before it reserves
//! memory: none allocates more than 4 times its input and 64 KiB. Payloads are slices of what was received.

mod interim;
mod kit;
pub mod v0;
pub mod v1;

pub use interim::{ControlError, Hello, Summary};
pub use v0::{
    Assembler, Batch, BatchBuilder, BatchError, Body, Caps, Delta, DeltaError, Entry, EntryError, Frame, FrameError,
    Have, Incoming, Key, Label, MessageType, Payload, RawEntry, TooLong, Version, encode_frame,
};
