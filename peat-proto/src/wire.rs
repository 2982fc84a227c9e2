//! Bytes: frames on a stream, and the payloads that they carry.
//!
//! ```text
//!   payload    sync message (delta) | saved document (snapshot) | batch | greeting, digest (control)
//!   frame      u16 key length | key | u8 type | u32 payload length | payload
//!   stream     frames, one behind the other
//! ```
//!
//! Integers are big-endian. The layout is the one that legacy peers speak; the two control frames exist only between
//! Peat nodes. Every decoder checks counts and lengths against the bytes that are there before it reserves memory:
//! none allocates more than 4 times its input and 64 KiB. Payloads are slices of what was received.

mod assembler;
mod batch;
mod control;
mod delta;
mod frame;
mod take;

pub use assembler::{Assembler, Caps, Incoming};
pub use batch::{Batch, BatchBuilder, BatchError, Body, Entry, EntryError, RawEntry};
pub use control::{ControlError, Hello, Summary};
pub use delta::{Delta, DeltaError, Have, Version};
pub use frame::{Frame, FrameError, Key, Label, MessageType, Payload, TooLong, encode_frame};
