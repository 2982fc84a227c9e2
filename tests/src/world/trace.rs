//! One hash over everything that happened.

use peat_proto::Time;

/// BLAKE3 over every event in its order. Two runs with the same hash were the same run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    /// Noted and not hashed: many blocks at once are several times cheaper than one by one.
    noted: Vec<u8>,
}

const BLOCKS: usize = 32 << 10;

impl Trace {
    /// Notes that something happened: when, where, what, and with which bytes.
    pub(crate) fn note(&mut self, at: Time, place: u64, what: u8, bytes: &[u8]) {
        let mut head = [0; 25];
        head[..8].copy_from_slice(&at.as_micros().to_le_bytes());
        head[8..16].copy_from_slice(&place.to_le_bytes());
        head[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        head[24] = what;
        self.noted.extend_from_slice(&head);
        self.noted.extend_from_slice(bytes);
        if self.noted.len() >= BLOCKS {
            self.hasher.update(&self.noted);
            self.noted.clear();
        }
    }

    /// The hash so far.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *self.hasher.clone().update(&self.noted).finalize().as_bytes()
    }
}
