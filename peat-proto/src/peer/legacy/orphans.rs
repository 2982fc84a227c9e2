//! Changes that arrived before those that they build on: each message has a stream of its own, and streams overtake each
//! other.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::DocId;

/// Bytes that are kept, of all documents of a connection: 256 KiB. What is above is asked for again.
const MOST: usize = 256 << 10;

/// Copies of changes, so that no frame is kept alive for one of them.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    changes: BTreeMap<DocId, Vec<Bytes>>,
    bytes: usize,
}

impl Orphans {
    /// Keeps what arrived for a document until it is known whether it could be used, as far as there is room.
    pub(crate) fn keep(&mut self, doc: &DocId, changes: &[Bytes]) {
        let size: usize = changes.iter().map(Bytes::len).sum();
        if size > MOST - self.bytes {
            return self.remove(doc);
        }
        self.bytes += size;
        let copies = changes.iter().map(|change| Bytes::copy_from_slice(change));
        self.changes.entry(doc.clone()).or_default().extend(copies);
    }

    /// What was kept for a document; it stays kept.
    pub(crate) fn of(&self, doc: &DocId) -> impl Iterator<Item = Bytes> {
        self.changes.get(doc).into_iter().flatten().cloned()
    }

    pub(crate) fn remove(&mut self, doc: &DocId) {
        let removed = self.changes.remove(doc).unwrap_or_default();
        self.bytes -= removed.iter().map(Bytes::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_counted() {
        let mut orphans = Orphans::default();
        let doc = |n: u32| DocId::new(&format!("notes:{n}")).expect("a valid name");
        let change = Bytes::from(vec![1; 1000]);
        for n in 0..1000 {
            orphans.keep(&doc(n), std::slice::from_ref(&change));
        }
        assert_eq!((orphans.changes.len(), orphans.bytes), (262, 262_000));
        orphans.keep(&doc(0), std::slice::from_ref(&change));
        assert_eq!(orphans.of(&doc(0)).count(), 0, "what cannot be kept whole is not kept");
        orphans.keep(&doc(1), std::slice::from_ref(&change));
        assert_eq!(orphans.of(&doc(1)).count(), 2);
        (0..1000).for_each(|n| orphans.remove(&doc(n)));
        assert_eq!((orphans.changes.len(), orphans.bytes), (0, 0));
    }
}
