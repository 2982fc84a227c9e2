//! What arrived for a document and is not merged yet. It is walked before anything of it is parsed.

use bytes::Bytes;

use crate::admit::{Admitted, admit_all};
use crate::config::AdmitLimits;
use crate::id::{ConnId, EditId, PeerId};
use crate::io::Refusal;

/// Changes for one document, and where they came from.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) source: Source,
    pub(crate) payload: Payload,
}

impl Incoming {
    /// What counts for the place of one that waits, in bytes: the document's entry in the index, its name, attention and
    /// inbox, and later the answer. Measured: 800 B with short names.
    pub(crate) const PLACE: usize = 1 << 10;

    /// Bytes that it counts for while it waits.
    pub(crate) fn cost(&self) -> usize {
        self.payload.len().saturating_add(Self::PLACE)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Peer(ConnId, PeerId),
    Import(EditId),
    /// Our own unsaved changes, brought back after a failed merge.
    Restore,
}

#[derive(Debug)]
pub(crate) enum Payload {
    /// Change chunks in causal order.
    Changes(Vec<Bytes>),
    /// A saved document, or saved document and change chunks behind each other.
    Saved(Bytes),
}

impl Payload {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Changes(chunks) => chunks.iter().map(Bytes::len).sum(),
            Self::Saved(bytes) => bytes.len(),
        }
    }
}

/// What one merge takes in: as much of an inbox, from its front, as expands to no more than the limits together.
#[derive(Debug)]
pub(crate) struct Portion {
    /// Each with what it expands to, or why nothing of it is parsed.
    pub(crate) taken: Vec<(Incoming, Result<Admitted, Refusal>)>,
    /// What is left to the next portion.
    pub(crate) rest: Vec<Incoming>,
}

impl Portion {
    /// Walks an inbox. What exceeds the limits alone is refused, whatever came with it, and ends the portion, for walking it
    /// took as long as may be; what exceeds them only together with its predecessors is left over.
    pub(crate) fn of(inbox: Vec<Incoming>, limits: &AdmitLimits) -> Self {
        let (mut taken, mut total) = (Vec::new(), Admitted::default());
        let mut inbox = inbox.into_iter();
        while let Some(next) = inbox.next() {
            let verdict = next.admit(limits);
            let sum = verdict.map(|more| total.plus(more));
            if sum.is_ok_and(|sum| !sum.is_within(limits)) && total.chunks > 0 {
                return Self { taken, rest: std::iter::once(next).chain(inbox).collect() };
            }
            taken.push((next, verdict));
            match sum {
                Ok(sum) => total = sum,
                Err(Refusal::TooLarge) => break,
                Err(_) => {}
            }
        }
        Self { taken, rest: inbox.collect() }
    }

    /// Whether it is all of the inbox, and nothing of it exceeded the limits.
    pub(crate) fn is_all(&self) -> bool {
        self.rest.is_empty() && self.taken.iter().all(|(_, verdict)| *verdict != Err(Refusal::TooLarge))
    }

    /// The inbox again.
    pub(crate) fn into_inbox(self) -> Vec<Incoming> {
        self.taken.into_iter().map(|(incoming, _)| incoming).chain(self.rest).collect()
    }
}

impl Incoming {
    /// What all of it expands to, however many chunks it is divided into.
    fn admit(&self, limits: &AdmitLimits) -> Result<Admitted, Refusal> {
        match &self.payload {
            // Ours, and admitted once.
            _ if self.source == Source::Restore => Ok(Admitted::default()),
            Payload::Changes(chunks) => admit_all(chunks.iter().map(Bytes::as_ref), limits),
            Payload::Saved(bytes) => admit_all([bytes.as_ref()], limits),
        }
    }
}
