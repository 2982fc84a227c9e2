//! What applications read at the nodes, with a cache and without one.

use std::collections::BTreeMap;

use automerge::hydrate::Value;
use peat_proto::{DocId, Heads};

use super::World;

/// What an application reads of a document.
type Content = (Heads, Value);

/// Virtual time after which it is looked whether documents are in memory, in microseconds, and how often: a load takes 2.3 s
/// at most, with a disk that takes 0.1 s, a worker that takes 2 s and a drain that is 0.2 s late.
const LOOK: u64 = 50_000;
const LOOKS: usize = 100;

/// Reading everything at every node twice takes a tenth of a world's time: one seed in so many does.
const READERS: u64 = 4;

impl World {
    /// The same state with a cache of nothing: the index, and in a part of the worlds what applications read at every node.
    pub(super) fn check_without_cache(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let members = 0..self.hosts.len();
        let listings: Vec<_> = members.clone().map(|member| self.listing(member)).collect();
        // In a hierarchy each node reads something else.
        let readers = if self.setup.is_ranked() { members.end } else { 1 };
        let reads = self.setup.seed.is_multiple_of(READERS);
        let contents: Option<Vec<_>> = reads.then(|| (0..readers).map(|member| self.contents(member)).collect());
        self.setup.cache = 0;
        for member in 0..self.hosts.len() {
            self.reboot_patiently(member);
        }
        self.converge();
        if self.violation.is_none() && !members.map(|member| self.listing(member)).eq(listings) {
            self.violated(None, "without a cache the state is another");
        }
        let Some(contents) = contents else { return };
        for member in 0..self.hosts.len() {
            let uncached = self.contents(member);
            self.expect(Some(member), same(&contents[member % readers], &uncached));
        }
        self.check();
    }

    /// Opens every document of a node, softly deleted ones too, reads it and closes it again.
    fn contents(&mut self, member: usize) -> BTreeMap<DocId, Content> {
        let docs: Vec<DocId> = self.records(member).into_iter().map(|(doc, _)| doc).collect();
        for doc in &docs {
            self.open(member, doc);
        }
        for _ in 0..LOOKS {
            if docs.iter().all(|doc| self.node(member).is_some_and(|node| node.doc(doc).is_some())) {
                break;
            }
            self.pass(LOOK);
        }
        let mut contents = BTreeMap::new();
        for doc in docs {
            match self.node(member).and_then(|node| node.doc(&doc)) {
                Some(content) => {
                    let read = (Heads::new(content.get_heads()), content.hydrate(None));
                    contents.insert(doc.clone(), read);
                }
                None => self.violated(Some(member), format!("{doc} does not open")),
            }
            self.close(member, &doc);
        }
        contents
    }

    /// Reboots a node of a healed fleet. A fielded peer may be pushing something just now: whoever closes a node first does
    /// what it wants done.
    fn reboot_patiently(&mut self, member: usize) {
        let tries = if self.setup.fielded.is_empty() { 1 } else { 25 };
        self.drain(member);
        let mut rebooted = self.reboot(member);
        for _ in 1..tries {
            if !rebooted {
                self.pass(470_000);
                self.drain(member);
                rebooted = self.reboot(member);
            }
        }
        if let Some(why) = self.unsaved(member).filter(|_| !rebooted) {
            self.violated(Some(member), format!("a healed node is not saved: {why}"));
        }
    }
}

/// Whether the same was read twice.
fn same(one: &BTreeMap<DocId, Content>, other: &BTreeMap<DocId, Content>) -> Result<(), String> {
    match one.iter().zip(other).find(|(one, other)| one != other) {
        Some(((doc, _), _)) => Err(format!("without a cache {doc} reads as another")),
        None if one.len() != other.len() => Err(format!("{} documents instead of {}", other.len(), one.len())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::setup::Setup;
    use super::super::step::Step;
    use super::*;

    fn edit(value: u32) -> Step {
        Step::Edit { node: 0, doc: 0, kind: 0, value }
    }

    /// Two nodes, and a document that both have.
    fn pair() -> World {
        let mut world = World::new(Setup::quiet(READERS, 2, 4));
        world.apply(edit(1));
        world.converge();
        assert_eq!(world.violation(), None);
        world
    }

    #[test]
    fn a_document_that_only_the_index_still_has_is_reported_without_a_cache() {
        let mut sound = pair();
        sound.check_without_cache();
        assert_eq!(sound.violation(), None);
        let mut world = pair();
        let doc = world.setup.doc(0);
        world.hosts[1].disk.damage(&doc);
        world.check_without_cache();
        let found = world.violation().expect("nothing was reported");
        assert!(found.what.contains("does not open") && found.member == Some(1), "{found}");
    }

    #[test]
    fn a_document_that_reads_as_another_is_reported() {
        let mut world = pair();
        let before = world.contents(0);
        assert_eq!((before.len(), same(&before, &world.contents(1))), (1, Ok(())));
        world.apply(edit(2));
        world.converge();
        let words = same(&before, &world.contents(1)).expect_err("it was edited");
        assert!(words.contains("reads as another"), "{words}");
        assert!(same(&before, &BTreeMap::new()).is_err());
    }
}
