//! What the other side lacks of one document: collected in one walk over its history, and sent frame by frame.

use std::collections::{BTreeSet, VecDeque};

use automerge::{Change, ChangeHash};
use bytes::Bytes;

use crate::heads::Heads;

/// Changes in causal order that wait for room in a frame.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    changes: VecDeque<Missing>,
    hashes: BTreeSet<ChangeHash>,
    /// What they take.
    bytes: usize,
    /// Our heads when they were collected.
    upto: Heads,
    /// More was missing than is kept.
    cut: bool,
}

/// A change that the other side lacks.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) bytes: Bytes,
}

impl Backlog {
    /// What one document's backlog takes between two frames, at most. 512 KiB: eight full frames, or 32 on a slow link, for
    /// one walk.
    pub(crate) const BYTES: usize = 512 << 10;

    /// Documents of one connection that keep one; the others walk for each frame. Two: 1 MiB for a connection.
    pub(crate) const DOCUMENTS: usize = 2;

    /// What a change takes beside its bytes and dependencies.
    const ENTRY: usize = 160;

    /// Takes in what is missing below `ours`.
    pub(crate) fn collect(changes: impl IntoIterator<Item = Change>, ours: &Heads) -> Self {
        let mut backlog = Self { upto: ours.clone(), ..Self::default() };
        for change in changes {
            let (hash, deps) = (change.hash(), change.deps().to_vec());
            let missing = Missing { hash, deps, bytes: Bytes::copy_from_slice(change.raw_bytes()) };
            backlog.bytes += missing.size();
            backlog.hashes.insert(hash);
            backlog.changes.push_back(missing);
        }
        backlog
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this change waits in it.
    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        self.hashes.contains(hash)
    }

    /// The changes themselves, in order.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Missing> {
        self.changes.iter()
    }

    /// Takes out as many as fit a frame, and one at least.
    pub(crate) fn next_frame(&mut self, frame_bytes: usize) -> Vec<Missing> {
        let (mut next, mut size) = (Vec::new(), 0);
        while let Some(missing) = self.changes.pop_front() {
            size += missing.bytes.len();
            if size > frame_bytes && !next.is_empty() {
                self.changes.push_front(missing);
                break;
            }
            self.hashes.remove(&missing.hash);
            self.bytes -= missing.size();
            next.push(missing);
        }
        next
    }

    /// Lets go of what comes last, down to so many bytes.
    pub(crate) fn cut(&mut self, most: usize) {
        while self.bytes > most
            && let Some(missing) = self.changes.pop_back()
        {
            self.hashes.remove(&missing.hash);
            self.bytes -= missing.size();
            self.cut = true;
        }
    }

    /// Whether `ours` has nothing beyond what is in it, and was taken out of it.
    pub(crate) fn is_last(&self, ours: &Heads) -> bool {
        self.is_empty() && !self.cut && self.upto == *ours
    }
}

impl Missing {
    fn size(&self) -> usize {
        Backlog::ENTRY + self.bytes.len() + size_of_val(self.deps.as_slice())
    }
}
