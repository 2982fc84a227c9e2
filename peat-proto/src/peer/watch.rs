//! Documents of one connection that somebody waits for.

use std::collections::BTreeMap;

use crate::id::DocId;
use crate::request::SyncOutcome;

/// Empty unless a synchronisation was asked for, and at most as large as the exchanges that this began.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// With what is known already of the outcome.
    open: BTreeMap<DocId, Option<SyncOutcome>>,
    ended: Vec<(DocId, Option<SyncOutcome>)>,
}

impl Watch {
    pub(crate) fn begin(&mut self, doc: &DocId) {
        self.open.insert(doc.clone(), None);
    }

    /// The outcome is this, once the exchange has ended. The first word counts.
    pub(crate) fn note(&mut self, doc: &DocId, outcome: SyncOutcome) {
        if let Some(noted) = self.open.get_mut(doc) {
            noted.get_or_insert(outcome);
        }
    }

    /// The exchange has ended, or goes on without an end in sight.
    pub(crate) fn end(&mut self, doc: &DocId) {
        if let Some((doc, noted)) = self.open.remove_entry(doc) {
            self.ended.push((doc, noted));
        }
    }

    /// Nobody waits for this document any more.
    pub(crate) fn forget(&mut self, doc: &DocId) {
        self.open.remove(doc);
    }

    pub(crate) fn contains(&self, doc: &DocId) -> bool {
        self.open.contains_key(doc)
    }

    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(crate) fn take_ended(&mut self) -> Vec<(DocId, Option<SyncOutcome>)> {
        std::mem::take(&mut self.ended)
    }
}
