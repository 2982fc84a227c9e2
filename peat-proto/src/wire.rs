//! Bytes: frames on a stream, and what they carry.
//!
//! [`v0`] is what legacy peers speak, [`v1`] what Peat nodes speak among themselves. Every decoder checks counts and lengths against the bytes that are there before it reserves
//! memory: none allocates more than 4 times its input and 64 KiB. Payloads are slices of what was received.

mod kit;
pub mod v0;
pub mod v1;

pub use v0::{
    Assembler, Batch, BatchBuilder, BatchError, Body, Caps, Delta, DeltaError, Entry, EntryError, Frame, FrameError,
    Have, Incoming, Key, Label, MessageType, Payload, RawEntry, TooLong, Version, encode_frame,
};
