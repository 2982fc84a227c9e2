//! The wire of legacy peers, `cap/automerge/1`.

mod assembler;
mod auth;
mod batch;
mod bloom;
mod delta;
mod frame;
mod heartbeat;
pub mod negentropy;
mod snapshot;
mod text;
mod tombstone;
mod tombstones;

pub use assembler::{Assembler, Caps, Incoming};
pub use auth::{AuthError, Dialect, Handshake, Step};
pub use batch::{Batch, BatchBuilder, BatchError, Body, Entry, EntryError, RawEntry};
pub use bloom::Bloom;
pub use delta::{Delta, DeltaError, Have, Version};
pub use frame::{Frame, FrameError, Key, Label, MessageType, Payload, TooLong, Unread, encode_frame};
pub use heartbeat::{Heartbeat, HeartbeatError};
pub use snapshot::heads_of;
pub use text::BadText;
pub use tombstone::{Field, Tombstone, TombstoneError};
pub use tombstones::{TombstoneBatch, TombstoneBatchBuilder, TombstoneBatchError};
