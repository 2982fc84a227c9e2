//! Requests to compare documents with peers now, and what came of them.

use std::collections::BTreeMap;
use std::time::Duration;

use peat_proto::{DocId, PeerId, SyncId, SyncOutcome, SyncRequest, Which};

use crate::error::SyncError;
use crate::pending::Reply;

/// How one document stands with one peer, after a [`Node::sync_now`](crate::Node::sync_now).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// With whom.
    pub peer: PeerId,
    /// Which document.
    pub doc: DocId,
    /// How the two stand.
    pub outcome: SyncOutcome,
}

/// What a request is answered with.
pub(crate) type Answer = Reply<Result<Vec<Synced>, SyncError>>;

/// Requests that have not ended. What each has collected is as much as its caller asked for.
#[derive(Default)]
pub(crate) struct Syncs {
    open: BTreeMap<SyncId, (Vec<Synced>, Answer)>,
    next: u64,
}

impl Syncs {
    /// The request for the core.
    pub(crate) fn begin(
        &mut self,
        which: Which,
        peer: Option<PeerId>,
        within: Duration,
        answer: Answer,
    ) -> SyncRequest {
        self.next += 1;
        let id = SyncId(self.next);
        self.open.insert(id, (Vec::new(), answer));
        SyncRequest { id, which, peer, within }
    }

    pub(crate) fn outcome(&mut self, id: SyncId, synced: Synced) {
        if let Some((outcomes, answer)) = self.open.get_mut(&id)
            && answer.is_awaited()
        {
            outcomes.push(synced);
        }
    }

    pub(crate) fn ended(&mut self, id: SyncId) {
        if let Some((outcomes, answer)) = self.open.remove(&id) {
            answer.send(Ok(outcomes));
        }
    }

    pub(crate) fn refused(&mut self, id: SyncId) {
        if let Some((_, answer)) = self.open.remove(&id) {
            answer.send(Err(SyncError::Busy));
        }
    }

    /// The node closes: whoever waits is told so.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}
