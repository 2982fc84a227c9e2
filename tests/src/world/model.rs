//! What must be true of the writes, kept apart from the code under test: it follows what the disk did and what was
//! acknowledged, and never asks a node.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ChangeHash};
use peat_proto::store::{Batch, Op};
use peat_proto::{DocId, EditId};

use super::said::{Said, State};

/// A change of a document. Two documents that begin alike may share a hash.
pub(crate) type Write = (DocId, ChangeHash);

/// One local edit of the life of a node that still runs.
#[derive(Debug)]
struct Written {
    edit: EditId,
    write: Write,
}

/// One local deletion of the life of a node that still runs.
#[derive(Debug)]
struct Deleted {
    edit: EditId,
    doc: DocId,
}

/// The writes and deletions of one member.
#[derive(Debug, Default)]
struct Author {
    /// Not durable: may not leave, may not be acknowledged, and is gone after a crash.
    volatile: BTreeSet<Write>,
    /// Not acknowledged, of the life that runs now.
    unacknowledged: Vec<Written>,
    /// Deletions of its own that are not durable: the same holds of them.
    dying: BTreeSet<DocId>,
    /// Those that are not acknowledged.
    undone: Vec<Deleted>,
    /// Deleted on its disk: deleted here for ever, and never spoken of as alive.
    buried: BTreeSet<DocId>,
}

/// What a batch carries of what the model follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Carried {
    pub(crate) writes: Vec<Write>,
    pub(crate) buried: Vec<DocId>,
}

/// The expected state of a fleet.
#[derive(Debug, Default)]
pub(crate) struct Model {
    authors: Vec<Author>,
    /// Acknowledged as durable, and by whom, where that was a node: present for ever, unless the document is deleted.
    promised: BTreeMap<Write, Option<usize>>,
    /// Lost in a crash before they were durable: never seen again.
    lost: BTreeSet<Write>,
    /// Deleted by somebody who may do so, and known beyond it: may be deleted anywhere.
    released: BTreeSet<DocId>,
}

impl Model {
    pub(crate) fn new(members: usize) -> Self {
        Self { authors: (0..members).map(|_| Author::default()).collect(), ..Self::default() }
    }

    /// A local edit was accepted.
    pub(crate) fn edited(&mut self, member: usize, doc: &DocId, edit: EditId, hash: ChangeHash) {
        let author = &mut self.authors[member];
        let write = (doc.clone(), hash);
        author.volatile.insert(write.clone());
        author.unacknowledged.push(Written { edit, write });
    }

    /// A local deletion by a marker was accepted.
    pub(crate) fn deleted(&mut self, member: usize, doc: &DocId, edit: EditId) {
        let author = &mut self.authors[member];
        author.dying.insert(doc.clone());
        author.undone.push(Deleted { edit, doc: doc.clone() });
    }

    /// Somebody who may do so says to the fleet that a document is deleted.
    pub(crate) fn released(&mut self, doc: &DocId) {
        self.released.insert(doc.clone());
    }

    /// What a batch carries; an error if nobody can tell.
    pub(crate) fn carried(&self, member: usize, batch: &Batch) -> Result<Carried, String> {
        let volatile = &self.authors[member].volatile;
        let mut carried = Carried::default();
        for op in &batch.ops {
            match op {
                Op::Append { doc, chunk, .. } | Op::Replace { doc, chunk, .. } => {
                    let candidates = volatile.iter().filter(|(of, _)| of == doc).map(|(_, hash)| *hash);
                    let found = contained(chunk, candidates).map_err(|error| format!("{doc} to the disk: {error}"))?;
                    carried.writes.extend(found.into_iter().map(|hash| (doc.clone(), hash)));
                }
                Op::Bury { doc, .. } => carried.buried.push(doc.clone()),
                Op::Remove { .. } | Op::Admit { .. } | Op::Forget { .. } => {}
            }
        }
        Ok(carried)
    }

    /// The disk has made this durable.
    pub(crate) fn durable(&mut self, member: usize, carried: &Carried) {
        let author = &mut self.authors[member];
        for write in &carried.writes {
            author.volatile.remove(write);
        }
        for doc in &carried.buried {
            if author.dying.remove(doc) {
                self.released.insert(doc.clone());
            }
            author.buried.insert(doc.clone());
        }
    }

    /// A node told its application that an edit survives a crash, or is overtaken by a deletion that does; an error if
    /// neither is so.
    pub(crate) fn acknowledged(&mut self, member: usize, doc: &DocId, edit: EditId) -> Result<(), String> {
        let author = &mut self.authors[member];
        let early = || Err(format!("edit {} of {doc} was acknowledged and is not durable", edit.0));
        let is_buried = author.buried.contains(doc);
        let done = |deleted: &mut Deleted| deleted.doc == *doc && deleted.edit <= edit;
        if author.undone.extract_if(.., done).count() > 0 && !is_buried {
            return early();
        }
        let done = |written: &mut Written| written.write.0 == *doc && written.edit <= edit;
        for written in author.unacknowledged.extract_if(.., done) {
            if !author.volatile.contains(&written.write) {
                self.promised.insert(written.write, Some(member));
            } else if is_buried {
                author.volatile.remove(&written.write);
            } else {
                return early();
            }
        }
        Ok(())
    }

    /// A fielded peer holds a change on its disk.
    pub(crate) fn promise(&mut self, doc: &DocId, hash: ChangeHash) {
        self.promised.insert((doc.clone(), hash), None);
    }

    /// A node crashed: what was not durable is lost.
    pub(crate) fn crashed(&mut self, member: usize) {
        let author = &mut self.authors[member];
        self.lost.append(&mut author.volatile);
        author.unacknowledged.clear();
        author.dying.clear();
        author.undone.clear();
    }

    /// A node closed cleanly with nothing left to write.
    pub(crate) fn closed(&mut self, member: usize) -> Result<(), String> {
        let author = &self.authors[member];
        let written = author.unacknowledged.iter().map(|written| (written.edit, &written.write.0));
        let waiting = written.chain(author.undone.iter().map(|deleted| (deleted.edit, &deleted.doc))).next();
        match waiting {
            Some((edit, doc)) => Err(format!("saved, but edit {} of {doc} was not acknowledged", edit.0)),
            None => Ok(()),
        }
    }

    /// Whether a document must be deleted at a member from now on.
    pub(crate) fn is_buried(&self, member: usize, doc: &DocId) -> bool {
        self.authors[member].buried.contains(doc)
    }

    /// The documents that must be deleted at a member.
    pub(crate) fn buried(&self, member: usize) -> impl Iterator<Item = &DocId> {
        self.authors[member].buried.iter()
    }

    /// The documents that some member has promised to be deleted: in the end they are deleted everywhere.
    pub(crate) fn buried_anywhere(&self) -> BTreeSet<&DocId> {
        self.authors.iter().flat_map(|author| &author.buried).collect()
    }

    /// Whether a document may be deleted at a member.
    pub(crate) fn may_be_deleted(&self, member: usize, doc: &DocId) -> bool {
        self.released.contains(doc) || self.authors[member].dying.contains(doc)
    }

    /// The strict gate: nothing of this member that is not durable may be in a frame, not even by name, and nothing of a
    /// document that is deleted on its disk.
    pub(crate) fn gate(&self, member: usize, frame: &[Said]) -> Result<(), String> {
        let author = &self.authors[member];
        for Said { doc, state, named, carried, .. } in frame {
            match state {
                // Until then it is as if it had not been deleted.
                State::Alive if author.buried.contains(doc) => {
                    return Err(format!("{doc} is deleted, and leaves as alive"));
                }
                State::Deleted if self.released.contains(doc) => {}
                State::Deleted if author.dying.contains(doc) => {
                    return Err(format!("the deletion of {doc} left before it was durable"));
                }
                State::Deleted => return Err(format!("{doc} is said to be deleted, and nobody deleted it")),
                State::Alive | State::Unsaid => {}
            }
            let candidates: BTreeSet<ChangeHash> =
                author.volatile.iter().filter(|(of, _)| of == doc).map(|(_, hash)| *hash).collect();
            if candidates.is_empty() {
                continue;
            }
            let named = named.iter().filter(|hash| candidates.contains(hash)).copied();
            let carried = carried.iter().map(|chunks| contained(chunks, candidates.iter().copied()));
            let carried =
                carried.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{doc} to a peer: {error}"))?;
            if let Some(hash) = named.chain(carried.into_iter().flatten()).next() {
                return Err(format!("{hash} of {doc} left before it was durable"));
            }
        }
        Ok(())
    }

    /// Whether a document holds everything that was promised of it, and nothing that was lost; of those who wrote it, what
    /// `must` be there, and nothing that may not be.
    pub(crate) fn verify(
        &self,
        doc: &DocId,
        content: Option<&Automerge>,
        must: impl Fn(usize) -> bool,
        may: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        let has = |hash: &ChangeHash| content.is_some_and(|content| content.get_change_meta_by_hash(hash).is_some());
        for ((_, hash), author) in self.promised.iter().filter(|((of, _), _)| of == doc) {
            match (has(hash), author) {
                (false, None) => return Err(format!("{hash} of {doc} was acknowledged as durable and is missing")),
                (false, Some(author)) if must(*author) => {
                    return Err(format!("{hash} of {doc} was acknowledged as durable and is missing"));
                }
                (true, Some(author)) if !may(*author) => {
                    return Err(format!(
                        "{hash} of {doc} is there, and was written by node {author}: it may not see it"
                    ));
                }
                _ => {}
            }
        }
        if let Some((_, hash)) = self.lost.iter().find(|(of, hash)| of == doc && has(hash)) {
            return Err(format!("{hash} of {doc} was lost in a crash and lives on elsewhere"));
        }
        Ok(())
    }
}

/// Which of these changes a run of Automerge chunks contains; an error if it cannot be read.
fn contained(chunks: &[u8], candidates: impl IntoIterator<Item = ChangeHash>) -> Result<Vec<ChangeHash>, String> {
    let mut candidates = candidates.into_iter().peekable();
    if candidates.peek().is_none() {
        return Ok(Vec::new());
    }
    match checksums(chunks) {
        Some(sums) => Ok(candidates.filter(|hash| sums.iter().any(|sum| hash.0.starts_with(sum))).collect()),
        None => {
            let doc = Automerge::load(chunks)
                .map_err(|error| format!("{} bytes that nobody reads: {error}", chunks.len()))?;
            Ok(candidates.filter(|hash| doc.get_change_meta_by_hash(hash).is_some()).collect())
        }
    }
}

/// The checksums of a run of change chunks, which are the first four bytes of their hashes; `None` if there is anything
/// else among them. Layout: magic, 4 bytes; checksum, 4; type, 1; length, LEB128; contents.
fn checksums(mut chunks: &[u8]) -> Option<Vec<[u8; 4]>> {
    let mut sums = Vec::new();
    while !chunks.is_empty() {
        let (head, mut rest) = chunks.split_first_chunk::<9>()?;
        let [_, _, _, _, a, b, c, d, kind] = *head;
        if kind != 1 && kind != 2 {
            return None;
        }
        let mut len = 0_usize;
        for shift in (0..35).step_by(7) {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            len |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        sums.push([a, b, c, d]);
        chunks = rest.get(len..)?;
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::ROOT;
    use automerge::transaction::Transactable;
    use bytes::Bytes;
    use peat_proto::Heads;
    use peat_proto::wire::v1::{Body, EntriesBuilder, Entry, Saved, Word};

    use super::super::said::on_v1;

    fn document() -> (Automerge, ChangeHash) {
        let mut doc = Automerge::new();
        doc.transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "x", 1)).expect("a change");
        let hash = doc.get_heads()[0];
        (doc, hash)
    }

    #[test]
    fn a_change_is_found_in_chunks_and_in_saved_documents() {
        let (doc, hash) = document();
        let (_, other) = document();
        let mut changes = Vec::new();
        for change in doc.get_changes(&[]) {
            changes.extend_from_slice(change.raw_bytes());
        }
        assert_eq!(contained(&changes, [hash, other]), Ok(vec![hash]));
        assert_eq!(contained(&doc.save(), [hash, other]), Ok(vec![hash]));
        assert!(contained(&doc.save()[1..], [hash]).is_err(), "what is not readable is not nothing");
    }

    #[test]
    fn the_gate_sees_a_volatile_change_by_name_and_by_content() {
        let (doc, hash) = document();
        let name = DocId::new("a:1").expect("valid");
        let mut model = Model::new(1);
        model.edited(0, &name, EditId(1), hash);
        let changes = doc.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
        let named = Word { heads: Heads::new(vec![hash]), ..Word::default() };
        let carried = Word { changes, ..Word::default() };
        let whole = Saved { answer: true, bytes: doc.save().into() };
        for body in [Body::Word(named), Body::Word(carried), Body::Saved(whole)] {
            let mut frame = EntriesBuilder::new(4096);
            assert!(frame.push(&Entry { doc: name.clone(), body }));
            let (_, said) = on_v1(&frame.frame()).expect("a frame");
            assert!(model.gate(0, &said).is_err());
            model.durable(0, &Carried { writes: vec![(name.clone(), hash)], ..Carried::default() });
            assert_eq!(model.gate(0, &said), Ok(()));
            model.authors[0].volatile.insert((name.clone(), hash));
        }
        assert!(model.acknowledged(0, &name, EditId(1)).is_err());
    }

    #[test]
    fn the_gate_sees_a_deleted_document_and_a_deletion_that_is_not_durable() {
        let name = DocId::new("cells:1").expect("valid");
        let said = |body| {
            let mut frame = EntriesBuilder::new(4096);
            assert!(frame.push(&Entry { doc: name.clone(), body }));
            on_v1(&frame.frame()).expect("a frame").1
        };
        let alive = said(Body::Word(Word::default()));
        let dead = said(Body::Marker(Bytes::from_static(b"whatever it says")));
        let mut model = Model::new(2);
        assert_eq!(model.gate(0, &alive), Ok(()));
        assert!(model.gate(0, &dead).is_err(), "nobody deleted it");
        model.deleted(0, &name, EditId(1));
        assert!(model.gate(0, &alive).is_ok() && model.gate(0, &dead).is_err(), "it is not durable");
        assert!(model.acknowledged(0, &name, EditId(1)).is_err());
        model.deleted(0, &name, EditId(1));
        model.durable(0, &Carried { buried: vec![name.clone()], ..Carried::default() });
        assert_eq!(model.acknowledged(0, &name, EditId(1)), Ok(()));
        assert!(model.gate(0, &alive).is_err());
        assert_eq!(model.gate(0, &dead), Ok(()));
        assert!(model.may_be_deleted(1, &name) && !model.is_buried(1, &name));
    }
}
