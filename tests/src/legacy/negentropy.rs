//! One side of a reconciliation: items by key, and what two sides differ by (wire.md 7.1 to 7.3).

use std::collections::BTreeMap;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use sha2::{Digest, Sha256};

use super::frame::Bad;

/// A side with its items, which are fixed when it is created.
#[derive(Debug)]
pub(super) struct Side {
    engine: Negentropy<'static, NegentropyStorageVector>,
    names: BTreeMap<[u8; 32], String>,
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Step {
    /// What to send back; `None` ends an initiator's part.
    pub(super) next: Option<Vec<u8>>,
    /// Keys of items that the other side lacks.
    pub(super) have: Vec<String>,
    /// How many items this side is said to lack. They are logged and no more; most have no local key (7.5).
    pub(super) need: usize,
}

/// The id of a document: of its key, not of its content (7.2).
#[must_use]
pub(super) fn item_id(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Side {
    /// Of these documents, each with a timestamp.
    pub(super) fn new<'a>(items: impl IntoIterator<Item = (&'a str, u64)>) -> Result<Self, Bad> {
        let mut storage = NegentropyStorageVector::new();
        let mut names = BTreeMap::new();
        for (key, timestamp) in items {
            let id = item_id(key);
            names.insert(id, key.to_owned());
            storage.insert(timestamp, Id::from_byte_array(id)).map_err(|_| Bad::Negentropy)?;
        }
        storage.seal().map_err(|_| Bad::Negentropy)?;
        let engine = Negentropy::owned(storage, 0).map_err(|_| Bad::Negentropy)?;
        Ok(Self { engine, names })
    }

    /// Becomes the initiator: the opening message.
    pub(super) fn initiate(&mut self) -> Result<Vec<u8>, Bad> {
        self.engine.initiate().map_err(|_| Bad::Negentropy)
    }

    /// Takes a message in.
    pub(super) fn reconcile(&mut self, message: &[u8]) -> Result<Step, Bad> {
        if !self.engine.is_initiator() {
            let next = self.engine.reconcile(message).map_err(|_| Bad::Negentropy)?;
            return Ok(Step { next: Some(next), ..Step::default() });
        }
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = self.engine.reconcile_with_ids(message, &mut have, &mut need).map_err(|_| Bad::Negentropy)?;
        let name = |id: &Id| self.names.get(&id.to_bytes()).cloned();
        Ok(Step { next, have: have.iter().filter_map(name).collect(), need: need.len() })
    }
}
