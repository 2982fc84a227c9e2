//! The heads of what a disk holds, read off its sealed chunks without building the document.

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use peat_proto::Heads;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM: usize = 4;
const DOCUMENT: u8 = 0;

/// The heads of stored chunks: from a saved document's own list and from what each change behind it follows, with all
/// seals checked. `None` where that tells nothing for certain, which is where the document has to be loaded.
pub(crate) fn frontier(chunks: &[Bytes]) -> Option<Heads> {
    let mut heads = Heads::NONE;
    for (at, chunk) in chunks.iter().enumerate() {
        let mut rest = chunk.as_ref();
        while !rest.is_empty() {
            let sealed = Sealed::take(&mut rest)?;
            if sealed.kind == DOCUMENT {
                let first = at == 0 && heads.is_empty();
                heads = sealed.heads().filter(|_| first)?;
            } else {
                let change = Change::try_from(sealed.whole).ok()?;
                // The seal is of what a deflated change inflates to, so it begins its hash.
                if change.hash().0[..CHECKSUM] != *sealed.checksum {
                    return None;
                }
                heads = heads.advanced([(change.hash(), change.deps())]);
            }
        }
    }
    Some(heads)
}

/// The heads of stored chunks by loading them.
pub(crate) fn loaded(chunks: &[Bytes]) -> Result<Automerge, String> {
    Automerge::load(&chunks.concat()).map_err(|error| error.to_string())
}

/// One Automerge chunk: `magic | checksum | kind u8 | length LEB128 | body`.
struct Sealed<'a> {
    whole: &'a [u8],
    checksum: &'a [u8],
    kind: u8,
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let start = *bytes;
        let (checksum, labelled) = start.strip_prefix(&MAGIC)?.split_at_checked(CHECKSUM)?;
        let (&kind, mut rest) = labelled.split_first()?;
        let len = take_number(&mut rest)?;
        let (body, rest) = rest.split_at_checked(len)?;
        *bytes = rest;
        Some(Self { whole: &start[..start.len() - rest.len()], checksum, kind, body })
    }

    /// The heads that a saved document names: behind its actors, each with its length in front.
    fn heads(&self) -> Option<Heads> {
        let labelled = self.whole.get(MAGIC.len() + CHECKSUM..)?;
        if Sha256::digest(labelled)[..CHECKSUM] != *self.checksum {
            return None;
        }
        let mut body = self.body;
        for _ in 0..take_number(&mut body)? {
            let len = take_number(&mut body)?;
            body = body.get(len..)?;
        }
        let count = take_number(&mut body)?;
        let hashes = body.get(..count.checked_mul(32)?)?.as_chunks::<32>().0;
        Some(Heads::new(hashes.iter().map(|hash| ChangeHash(*hash)).collect()))
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::transaction::Transactable;
    use automerge::{AutomergeError, ROOT};

    fn edit(doc: &mut Automerge, key: &str, value: &str) -> Bytes {
        doc.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, key, value)).expect("an edit");
        let change = doc.get_last_local_change().expect("it changed something");
        Bytes::copy_from_slice(change.raw_bytes())
    }

    #[test]
    fn chunks_of_every_kind_have_the_heads_of_the_document_that_they_load_as() {
        let mut one = Automerge::new();
        let mut chunks = vec![edit(&mut one, "a", "small"), edit(&mut one, "b", &"large ".repeat(200))];
        let mut two = one.fork();
        chunks.push(edit(&mut one, "c", "left"));
        chunks.push(edit(&mut two, "c", "right"));
        one.merge(&mut two).expect("they are of one origin");
        assert_eq!(one.get_heads().len(), 2);
        let saved = Bytes::from(one.save());
        let behind = edit(&mut one, "d", "joined");
        for chunks in [chunks.clone(), vec![chunks.concat().into()], vec![saved.clone()], vec![saved, behind]] {
            let heads = Heads::new(loaded(&chunks).expect("sound").get_heads());
            assert_eq!(frontier(&chunks), Some(heads));
        }
    }

    #[test]
    fn a_bent_bit_tells_nothing() {
        let mut doc = Automerge::new();
        let change = edit(&mut doc, "a", "small");
        for sound in [change, doc.save().into()] {
            let heads = Some(Heads::new(doc.get_heads()));
            for bit in 0..sound.len() * 8 {
                let mut bent = sound.to_vec();
                bent[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(frontier(&[bent.into()]), heads, "bit {bit}");
            }
        }
    }
}
