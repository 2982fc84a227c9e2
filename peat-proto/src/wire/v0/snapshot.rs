//! What a saved document says of itself.

use automerge::ChangeHash;
use bytes::Bytes;

use crate::heads::Heads;
use crate::store::Record;
use crate::wire::kit::{take, take_array, take_hash, take_u8, take_uleb};

/// The heads in the header of a saved document; `None` if it is anything but one chunk that has some.
///
/// They are the sender's word and nothing more: the checksum is not looked at, and whether the changes lead there shows
/// only when the document is loaded. Layout: magic | checksum | kind | length | actors | heads | …
#[must_use]
pub fn heads_of(saved: &Bytes) -> Option<Heads> {
    const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
    const DOCUMENT: u8 = 0;
    let mut rest = saved.clone();
    let rest = &mut rest;
    if take_array(rest)? != MAGIC {
        return None;
    }
    let _checksum: [u8; 4] = take_array(rest)?;
    let kind = take_u8(rest)?;
    if kind != DOCUMENT || take_len(rest)? != rest.len() {
        return None;
    }
    for _ in 0..take_len(rest)? {
        let actor = take_len(rest)?;
        take(rest, actor)?;
    }
    let count = take_len(rest)?;
    if count > Record::MAX_HEADS {
        return None;
    }
    let heads: Option<Vec<ChangeHash>> = (0..count).map(|_| take_hash(rest)).collect();
    heads.filter(|heads| !heads.is_empty()).map(Heads::new)
}

fn take_len(bytes: &mut Bytes) -> Option<usize> {
    usize::try_from(take_uleb(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    use super::*;

    #[test]
    fn the_header_names_the_heads_that_the_document_has() {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "a", 1).expect("a put to the root");
        let mut fork = doc.fork();
        doc.put(ROOT, "a", 2).expect("a put to the root");
        fork.put(ROOT, "a", 3).expect("a put to the root");
        doc.merge(&mut fork).expect("a fork");
        for saved in [doc.save(), doc.save_nocompress()] {
            let saved = Bytes::from(saved);
            assert_eq!(heads_of(&saved), Some(Heads::new(doc.get_heads())));
            for cut in 0..saved.len() {
                assert_eq!(heads_of(&saved.slice(..cut)), None, "cut at {cut}");
            }
            assert_eq!(heads_of(&Bytes::from([&saved[..], &saved].concat())), None, "two chunks");
        }
        assert_eq!(heads_of(&Bytes::from(AutoCommit::new().save())), None, "without changes");
        let change = doc.get_last_local_change().expect("a change").raw_bytes().to_vec();
        assert_eq!(heads_of(&Bytes::from(change)), None, "a change is no document");
    }
}
