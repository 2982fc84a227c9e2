//! Synchronisation at the application's request.

use std::time::Duration;

use crate::id::{DocId, PeerId};
use crate::io::Refusal;

/// Names a [`SyncRequest`]; chosen by the driver, and free again after [`Event::SyncEnded`](crate::Event::SyncEnded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncId(pub u64);

/// Compare documents with peers now, whatever they are believed to have: what was assumed of them is forgotten, and no
/// cooldown holds the documents back. Order, shares and limits of what is sent stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// Names it in what is reported.
    pub id: SyncId,
    /// What to compare.
    pub which: Which,
    /// With whom; `None` for all peers that are connected or wanted.
    pub peer: Option<PeerId>,
    /// What has no outcome after so long is [`SyncOutcome::Unfinished`].
    pub within: Duration,
}

/// Some documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Just these.
    Documents(Vec<DocId>),
    /// All whose name starts with this, deleted ones that are remembered included; all there are if it is empty.
    Prefix(String),
}

/// What a [`SyncRequest`] came to, for one document and peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SyncOutcome {
    /// The peer said that it has just what this node has, perhaps after an exchange.
    Equal,
    /// The peer was sent what this node has, in a form that its wire has no answer to.
    Sent,
    /// What one side has is not taken by the other.
    Refused(Refusal),
    /// The policy lets this document pass neither to nor from this peer.
    NotRouted,
    /// There is no connection with the peer over which documents flow.
    Unreachable,
    /// There is no such document here that may leave.
    Unknown,
    /// No outcome in time, or this node could not read the document.
    Unfinished,
}

impl SyncOutcome {
    /// A name for it in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Sent => "sent",
            Self::Refused(_) => "refused",
            Self::NotRouted => "not_routed",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
            Self::Unfinished => "unfinished",
        }
    }
}
