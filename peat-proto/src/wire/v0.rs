//! The wire of legacy peers, `cap/automerge/1`.

mod assembler;
mod auth;
mod batch;
mod delta;
mod frame;

pub use assembler::{Assembler, Caps, Incoming};
pub use auth::{AuthError, Dialect, Handshake, Step};
pub use batch::{Batch, BatchBuilder, BatchError, Body, Entry, EntryError, RawEntry};
pub use delta::{Delta, DeltaError, Have, Version};
pub use frame::{Frame, FrameError, Key, Label, MessageType, Payload, TooLong, encode_frame};
