//! What happened, for the application.

use crate::heads::Heads;
use crate::id::{ConnId, DocId, EditId, PeerId};
use crate::io::Refusal;
use crate::request::{SyncId, SyncOutcome};
use crate::store::StoreFault;

/// What happened, for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A document's heads moved. Reported once per drain, document and origin, and never when nothing changed.
    Changed {
        /// Which document.
        doc: DocId,
        /// Who brought the changes.
        origin: Origin,
        /// The heads afterwards, own undurable changes included.
        heads: Heads,
    },
    /// A document was deleted; of one that was deleted softly a change is reported instead.
    Deleted {
        /// Which document.
        doc: DocId,
        /// Who deleted it.
        origin: Origin,
    },
    /// A document's time to live is over: it is neither offered nor shown any more.
    Expired {
        /// Which document.
        doc: DocId,
    },
    /// The document of [`Input::Open`](crate::Input::Open) is in memory.
    Opened {
        /// Which document.
        doc: DocId,
    },
    /// The document of [`Input::Open`](crate::Input::Open) could not be brought into memory; it is not open.
    OpenFailed {
        /// Which document.
        doc: DocId,
        /// Why.
        fault: StoreFault,
    },
    /// What [`Input::Change`](crate::Input::Change) came to.
    Imported {
        /// Which document.
        doc: DocId,
        /// Heads afterwards, or why nothing was applied.
        outcome: Result<Heads, Refusal>,
        /// Becomes durable like a local edit of this number.
        edit: EditId,
    },
    /// All local edits of this document up to this one survive a crash, or are overtaken by its deletion, which does.
    Durable {
        /// Which document.
        doc: DocId,
        /// The newest edit that is safe.
        edit: EditId,
    },
    /// A write failed. The edits stay in memory and are written again until the store accepts them; new ones are
    /// refused until then.
    NotDurable {
        /// Which document.
        doc: DocId,
        /// The newest edit that is not safe.
        edit: EditId,
        /// Why.
        fault: StoreFault,
    },
    /// A peer was admitted and documents flow.
    Up {
        /// On which connection.
        conn: ConnId,
        /// Whom.
        peer: PeerId,
    },
    /// A connection over which documents flowed is gone.
    Down {
        /// Which connection.
        conn: ConnId,
        /// Whom.
        peer: PeerId,
    },
    /// The document sets of both sides are proven equal by their digests; said anew after each difference. Of a legacy
    /// peer: everything was said to it, and what can be answered was answered.
    Level {
        /// With whom.
        peer: PeerId,
    },
    /// Nothing was heard of a legacy peer for too long, or heartbeats to it failed. Its connection stays.
    Partitioned {
        /// Of whom.
        peer: PeerId,
    },
    /// A legacy peer that was lost gave signs of life again.
    Recovered {
        /// Who.
        peer: PeerId,
    },
    /// A connection was closed with a code that says more than goodbye.
    Closed {
        /// Whom.
        peer: PeerId,
        /// The [`CloseCode`](crate::CloseCode), or a number that a later version gave.
        code: u32,
        /// Whether the other side closed it.
        by_peer: bool,
    },
    /// A peer sent something for a document that was not applied. The document and the connection live on.
    Refused {
        /// Whom.
        peer: PeerId,
        /// Which document.
        doc: DocId,
        /// Why.
        reason: Refusal,
    },
    /// What an [`Input::SyncNow`](crate::Input::SyncNow) came to for one document and peer.
    Synced {
        /// Which request.
        sync: SyncId,
        /// With whom.
        peer: PeerId,
        /// Which document.
        doc: DocId,
        /// How the two stand.
        outcome: SyncOutcome,
    },
    /// Every document of an [`Input::SyncNow`](crate::Input::SyncNow) has had its outcome.
    SyncEnded {
        /// Which request.
        sync: SyncId,
    },
    /// Nothing was done about an [`Input::SyncNow`](crate::Input::SyncNow): [`Config::max_syncs`](crate::Config::max_syncs) are under way, or one
    /// of the same name.
    SyncRefused {
        /// Which request.
        sync: SyncId,
    },
    /// A peer does not take what was sent to it of a document. It is not sent again before something changes.
    Declined {
        /// Whom.
        peer: PeerId,
        /// Which document.
        doc: DocId,
        /// Why.
        reason: Refusal,
    },
    /// The store failed to load this document or holds it damaged; it is left alone until the load succeeds.
    Quarantined {
        /// Which document.
        doc: DocId,
        /// Why.
        fault: StoreFault,
    },
}

/// Who brought a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// This node's application.
    Local,
    /// A peer.
    Peer(PeerId),
}
