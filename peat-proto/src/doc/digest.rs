//! One number for a whole set of documents.

use crate::doc::document::Offer;
use crate::id::DocId;

/// A digest of a set of documents with their heads or markers: the sum of their hashes, so that it follows every change in constant time.
///
/// Four lanes of 64 bits, added with wrap-around. Equal sets have equal digests; sets that differ by chance collide with
/// probability 2^-256. It judges equality between admitted members and is no defence against one who forges hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SetDigest([u64; 4]);

impl SetDigest {
    pub(crate) fn insert(&mut self, doc: &DocId, offer: Offer<'_>) {
        for (lane, word) in self.0.iter_mut().zip(words(doc, offer)) {
            *lane = lane.wrapping_add(word);
        }
    }

    pub(crate) fn remove(&mut self, doc: &DocId, offer: Offer<'_>) {
        for (lane, word) in self.0.iter_mut().zip(words(doc, offer)) {
            *lane = lane.wrapping_sub(word);
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (out, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            out.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }
}

/// What is not offered adds nothing.
fn words(doc: &DocId, offer: Offer<'_>) -> [u64; 4] {
    if offer == Offer::Nothing {
        return [0; 4];
    }
    let mut hasher = blake3::Hasher::new_derive_key("peat 2026 document set v1");
    hasher.update(&u64::try_from(doc.as_str().len()).unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(doc.as_str().as_bytes());
    match offer {
        Offer::Nothing => {}
        Offer::Heads(heads) => {
            for head in heads.as_slice() {
                hasher.update(&head.0);
            }
        }
        // Never as long as a whole number of heads: the length byte in front sees to it.
        Offer::Marker(marker) => {
            let bytes = marker.encode();
            hasher.update(&[1]).update(blake3::hash(&bytes).as_bytes());
        }
    }
    let hash = hasher.finalize();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *word = bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::Heads;
    use automerge::ChangeHash;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (a, b) = (DocId::new("a:1").expect("valid"), DocId::new("a:2").expect("valid"));
        let (x, y) = (Heads::new(vec![ChangeHash([1; 32])]), Heads::new(vec![ChangeHash([2; 32])]));
        let (x, y) = (Offer::Heads(&x), Offer::Heads(&y));
        let (mut one, mut two) = (SetDigest::default(), SetDigest::default());
        one.insert(&a, x);
        one.insert(&b, y);
        two.insert(&b, y);
        two.insert(&a, x);
        assert_eq!(one, two);
        two.remove(&b, y);
        two.insert(&b, x);
        assert_ne!(one, two);
        one.remove(&a, x);
        one.remove(&b, y);
        one.insert(&a, Offer::Nothing);
        assert_eq!(one, SetDigest::default());
    }
}
