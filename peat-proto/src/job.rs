//! Computations too long for the caller's thread: pure, and run wherever the driver likes.

use automerge::ActorId;
use bytes::Bytes;

use crate::config::AdmitLimits;
use crate::doc::document::Live;
use crate::doc::history::Merged;
use crate::doc::inbox::{Incoming, Portion};
use crate::heads::Heads;
use crate::id::DocId;

/// A computation that the core wants done by a worker: loading, merging or saving one big document.
///
/// The document is busy until [`Done`] comes back; a job that is lost leaves it so, which is why losing one counts as a
/// crash of the node.
#[derive(Debug)]
pub struct Job {
    doc: DocId,
    work: Work,
}

/// The result of a [`Job`].
#[derive(Debug)]
pub struct Done {
    pub(crate) doc: DocId,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Work {
    Load { chunks: Vec<Bytes>, actor: ActorId },
    Merge { live: Box<Live>, incoming: Vec<Incoming>, limits: AdmitLimits },
    Save { live: Box<Live>, at: Heads, whole: bool },
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Loaded(Option<Box<Live>>),
    Merged(Box<Live>, Merged),
    Saved(Box<Live>),
}

impl Job {
    pub(crate) fn new(doc: DocId, work: Work) -> Self {
        Self { doc, work }
    }

    /// Which document it is about.
    #[must_use]
    pub fn doc(&self) -> &DocId {
        &self.doc
    }

    /// Does the work, on any thread, in any order relative to other jobs. May take seconds.
    #[must_use]
    pub fn run(self) -> Done {
        let outcome = match self.work {
            Work::Load { chunks, actor } => Outcome::Loaded(Live::load(&chunks, &actor).map(Box::new)),
            Work::Merge { mut live, incoming, limits } => {
                let merged = live.merge(Portion::of(incoming, &limits), &limits);
                Outcome::Merged(live, merged)
            }
            Work::Save { mut live, at, whole } => {
                live.prepare(at, whole);
                Outcome::Saved(live)
            }
        };
        Done { doc: self.doc, outcome }
    }
}
