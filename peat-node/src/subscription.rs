//! Changes as they come, for one subscriber.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peat_proto::{DocId, Heads, Origin};

/// A document's heads moved, or it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which document.
    pub doc: DocId,
    /// Who brought the changes.
    pub origin: Origin,
    /// The heads afterwards, changes that are not yet durable included; none if there is no content any more.
    pub heads: Heads,
    /// Whether the document is deleted, or its time is over.
    pub deleted: bool,
}

/// Changes as they come: a blocking iterator, and [`Subscription::next_async`] for async code.
///
/// When the subscriber is more than [`Subscription::BACKLOG`] changes behind, the changes of one document are merged
/// into its newest; so every document that changed is reported with its latest heads, and what waits is bounded by the
/// number of documents. It ends when the node has closed.
pub struct Subscription {
    shared: Arc<Mutex<Backlog>>,
    wake: flume::Receiver<()>,
}

/// The node's end of a [`Subscription`].
pub(crate) struct Feed {
    prefix: String,
    shared: Arc<Mutex<Backlog>>,
    wake: flume::Sender<()>,
}

/// What a subscriber has not yet taken, in the order of arrival, and the newest entry of every document.
#[derive(Default)]
struct Backlog {
    next: u64,
    changes: BTreeMap<u64, Change>,
    newest: BTreeMap<DocId, u64>,
}

/// Both ends of a subscription to the documents whose key starts with `prefix`.
pub(crate) fn subscription(prefix: &str) -> (Feed, Subscription) {
    let shared = Arc::<Mutex<Backlog>>::default();
    let (wake, woken) = flume::bounded(1);
    let feed = Feed { prefix: prefix.to_owned(), shared: shared.clone(), wake };
    (feed, Subscription { shared, wake: woken })
}

impl Feed {
    /// Hands a change on if it concerns the subscriber. Never blocks. Answers whether anybody still listens.
    pub(crate) fn push(&self, change: &Change) -> bool {
        if change.doc.as_str().starts_with(&self.prefix) {
            lock(&self.shared).push(change.clone());
            // A full channel means that the subscriber has been woken already.
            let _ = self.wake.try_send(());
        }
        !self.wake.is_disconnected()
    }
}

impl Subscription {
    /// Changes that wait for a subscriber before those of one document are merged: 4,096, of about 200 B each.
    pub const BACKLOG: usize = 4096;

    /// The next change; `None` once the node has closed.
    pub async fn next_async(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.take() {
                return Some(change);
            }
            if self.wake.recv_async().await.is_err() {
                return self.take();
            }
        }
    }

    /// The next change, if it comes within `timeout` and the node does not close meanwhile.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Change> {
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return self.next();
        };
        loop {
            if let Some(change) = self.take() {
                return Some(change);
            }
            if self.wake.recv_deadline(deadline).is_err() {
                return self.take();
            }
        }
    }

    fn take(&mut self) -> Option<Change> {
        lock(&self.shared).pop()
    }
}

impl Iterator for Subscription {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.take() {
                return Some(change);
            }
            if self.wake.recv().is_err() {
                return self.take();
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Backlog {
    fn push(&mut self, change: Change) {
        let at = self.next;
        self.next += 1;
        let full = self.changes.len() >= Subscription::BACKLOG;
        match self.newest.entry(change.doc.clone()) {
            btree_map::Entry::Vacant(newest) => {
                newest.insert(at);
            }
            btree_map::Entry::Occupied(mut newest) => {
                let merged = newest.insert(at);
                if full {
                    self.changes.remove(&merged);
                }
            }
        }
        self.changes.insert(at, change);
    }

    fn pop(&mut self) -> Option<Change> {
        let (at, change) = self.changes.pop_first()?;
        if self.newest.get(&change.doc) == Some(&at) {
            self.newest.remove(&change.doc);
        }
        Some(change)
    }
}

/// The lock guards plain data that no panic leaves half-changed.
fn lock(shared: &Mutex<Backlog>) -> MutexGuard<'_, Backlog> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peat_proto::automerge::ChangeHash;

    use super::*;

    fn change(name: &str, n: u32) -> Change {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        Change {
            doc: DocId::new(name).expect("valid"),
            origin: Origin::Local,
            heads: Heads::new(vec![ChangeHash(hash)]),
            deleted: false,
        }
    }

    #[test]
    fn changes_arrive_in_order_and_only_those_asked_for() {
        let (feed, mut changes) = subscription("a:");
        assert!(feed.push(&change("a:1", 1)));
        assert!(feed.push(&change("b:1", 2)));
        assert!(feed.push(&change("a:1", 3)));
        assert_eq!(changes.next(), Some(change("a:1", 1)));
        assert_eq!(changes.next_timeout(Duration::ZERO), Some(change("a:1", 3)));
        assert_eq!(changes.next_timeout(Duration::ZERO), None);
    }

    #[test]
    fn what_waits_is_delivered_after_the_node_has_closed_and_then_it_ends() {
        let (feed, mut changes) = subscription("");
        feed.push(&change("a:1", 1));
        drop(feed);
        assert_eq!(pollster::block_on(changes.next_async()), Some(change("a:1", 1)));
        assert_eq!(pollster::block_on(changes.next_async()), None);
        assert_eq!(changes.next(), None);
    }

    #[test]
    fn a_slow_subscriber_gets_the_newest_heads_of_every_document_and_bounded_memory() {
        let (feed, changes) = subscription("");
        let documents = 10;
        for n in 0..100_000 {
            feed.push(&change(&format!("a:{}", n % documents), n));
        }
        drop(feed);
        let taken: Vec<Change> = changes.collect();
        assert!(taken.len() <= Subscription::BACKLOG, "{}", taken.len());
        let last: BTreeMap<DocId, Change> = taken.into_iter().map(|c| (c.doc.clone(), c)).collect();
        let expected: BTreeMap<DocId, Change> = (100_000 - documents..100_000)
            .map(|n| change(&format!("a:{}", n % documents), n))
            .map(|c| (c.doc.clone(), c))
            .collect();
        assert_eq!(last, expected);
    }

    #[test]
    fn a_dropped_subscription_is_noticed() {
        let (feed, changes) = subscription("");
        drop(changes);
        assert!(!feed.push(&change("a:1", 1)));
    }

    #[test]
    fn a_blocked_subscriber_is_woken() {
        let (feed, mut changes) = subscription("");
        let waiting = std::thread::spawn(move || changes.next());
        feed.push(&change("a:1", 1));
        assert_eq!(waiting.join().expect("woken"), Some(change("a:1", 1)));
    }
}
