//! What must hold after healing.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::Automerge;
use peat_proto::store::Kind;
use peat_proto::{DocId, Heads};

use super::frontier::{frontier, loaded};
use super::host::Plan;
use super::link::Profile;
use super::step::Step;
use super::verdict::{Verdict, Violation};
use super::{Setup, World};

/// Virtual time in which a healed fleet must be equal, in microseconds: what waits longest, one after the other. A transport
/// notices a dead connection after 10 s and tells within one more; the dial behind it waits 30 s (`dial_max`), a greeting 10 s
/// (`hello_deadline`); what was refused for a reason that may pass is tried again after 60 s, and what went unanswered after
/// 30 s (`retry_max`). All links wait at the same time, so more hops add next to nothing: 9 s are left for them.
const PATIENCE: u64 = 150_000_000;

/// What the legacy wire adds: four words in vain, 30 s each and a quarter of it for jitter; a document that was given up rests
/// for 300 s, with its jitter 375 s; and what a fielded peer does not know to be lost comes with the next connection, which is
/// 300 s away at most.
const PATIENCE_LEGACY: u64 = 825_000_000;

/// Faults that go on have no such bound: an hour.
const PATIENCE_STORMY: u64 = 3_600_000_000;

/// Virtual time in which what was lost before the healing may still cut a fielded peer off: five polls without an answer, 5 s
/// apart, on a connection that the node replaces when it is a minute old.
const AFTERMATH: u64 = 60_000_000;

/// How often that is looked at. Legacy peers send heartbeats every five seconds: what keeps step with them would find a
/// node that has just heard one each time.
const SLICE: u64 = 4_700_000;

/// Virtual time after which a fleet that is equal must be silent, and for which it is then listened to.
const SETTLING: u64 = 120_000_000;

/// The same with fielded peers or the legacy wire, on which what was refused is tried again after five minutes and a quarter
/// more for jitter, and a word that is lost then once more after 30 s, with its jitter 37.5 s.
const SETTLING_LEGACY: u64 = 412_500_000;
const SILENCE: u64 = 600_000_000;

/// Time between two polls of a fielded peer, in microseconds, and between two heartbeats.
const POLL: u64 = 5_000_000;

/// Frames that answer a fielded peer that asks for a document.
const ANSWERS_PER_POLL: u64 = 4;

/// Frames that one edit may cost each directed link: the change, its receipt, and the digests of both sides.
const FRAMES_PER_EDIT: u64 = 8;

/// The same in a hierarchy: who has written to what it takes one way compares the sets after an edit, and asks about each
/// document of which it has more.
const FRAMES_PER_EDIT_RANKED: u64 = 16;

/// Runs a setup and its steps, heals the world and judges it.
#[must_use]
pub fn run(setup: &Setup, steps: &[Step]) -> Verdict {
    run_until(setup, steps, usize::MAX)
}

/// The same, with as many of the steps only as it takes until so many found something to do.
#[must_use]
pub fn run_until(setup: &Setup, steps: &[Step], enough: usize) -> Verdict {
    run_with(setup, steps, enough, |_| ())
}

/// The same, with something done to the world before it is healed.
pub(super) fn run_with(setup: &Setup, steps: &[Step], enough: usize, before: impl FnOnce(&mut World)) -> Verdict {
    let seed = setup.seed;
    let (mut tried, mut applied) = (0, 0);
    let mut world = World::new(setup.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in steps {
            if applied >= enough {
                break;
            }
            tried += 1;
            applied += usize::from(world.apply(*step));
            if world.violation.is_some() {
                return;
            }
        }
        before(&mut world);
        world.heal();
    }));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        world.violated(None, format!("a panic: {}", text.unwrap_or("without a text")));
    }
    let totals = world.totals();
    Verdict {
        seed,
        tried,
        steps: applied,
        edits: totals.edits,
        elapsed: world.now(),
        frames: totals.frames,
        bytes: totals.bytes,
        trace: world.trace(),
        fired: world.fired.clone(),
        violation: world.violation,
    }
}

impl World {
    /// Ends all faults and waits until the fleet is as it must be; what is not is a violation.
    pub fn heal(&mut self) {
        self.calm();
        self.converge();
        self.check_documents();
        if self.violation.is_some() || self.setup.stormy {
            return;
        }
        self.check_silence();
        self.check_cost_of_an_edit();
        self.check_without_cache();
    }

    /// Ends all faults: paths and disks work, crashed hosts come back, hostile members leave.
    pub fn calm(&mut self) {
        self.besieged = false;
        for member in self.hosts.len()..self.setup.first_fielded() {
            for conn in self.net.of(member) {
                self.hang_up(conn, None);
            }
        }
        if !self.setup.stormy {
            self.net.set_profiles(Profile::calm);
        }
        for (from, to) in self.net.cut_paths() {
            self.mend(from, to);
        }
        for member in 0..self.hosts.len() {
            let disk = &mut self.hosts[member].disk;
            (disk.paused, disk.failing_writes, disk.failing_loads) = (false, 0, 0);
            if self.hosts[member].node.is_none() {
                self.start(member, false);
            }
            self.commit(member);
            // What an edit waits for is closed behind it.
            let host = &self.hosts[member];
            let idle: Vec<DocId> = host.opens.keys().filter(|doc| !host.plans.contains_key(*doc)).cloned().collect();
            for doc in idle {
                while self.hosts[member].opens.contains_key(&doc) {
                    self.close(member, &doc);
                }
            }
        }
        self.calm_veterans();
    }

    /// Lets time pass until all nodes are equal and say so.
    pub fn converge(&mut self) {
        let begun = self.now().as_micros();
        let patience = self.patience();
        while self.violation.is_none() {
            self.pass(SLICE);
            if self.now().as_micros() <= begun + AFTERMATH {
                self.calm_veterans();
            }
            let Some(missing) = self.is_unequal() else { break };
            if self.now().as_micros() > begun + patience {
                self.violated(None, format!("not equal after healing, for {} s: {missing}", patience / 1_000_000));
            }
        }
        self.check();
    }

    /// What keeps the fleet from being equal; `None` once it is, and every node knows it.
    #[must_use]
    pub fn is_unequal(&self) -> Option<String> {
        let reference = self.records(0);
        for (member, host) in self.hosts.iter().enumerate() {
            let Some(node) = &host.node else { return Some(format!("node {member} is down")) };
            if !host.plans.is_empty() {
                return Some(format!("node {member} has edits that wait for {:?}", host.plans.keys().next()));
            }
            if !node.is_saved() || host.dirty || host.jobs > 0 {
                return Some(format!("node {member} is not saved"));
            }
            if self.setup.is_ranked() {
                continue;
            }
            let records = self.records(member);
            if records != reference {
                let differs = records.iter().zip(&reference).find(|(ours, theirs)| ours != theirs);
                let (ours, theirs) = (records.len(), reference.len());
                return Some(format!("node {member} has {ours} documents, node 0 has {theirs}; first {differs:?}"));
            }
        }
        let unequal = self.links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).find_map(|(a, b)| {
            let level = self.node(a).is_some_and(|node| node.level(&World::peer(b)));
            (!level).then(|| format!("node {a} does not know that node {b} is level"))
        });
        if self.setup.is_ranked() {
            return self.unseen().or(unequal);
        }
        unequal.or_else(|| self.undone_deletion()).or_else(|| self.unequal_veteran(&reference))
    }

    /// The documents of a node's disk, softly deleted ones included.
    pub(super) fn records(&self, member: usize) -> Vec<(DocId, Heads)> {
        let documents = self.hosts[member].disk.documents().filter(|(_, kept)| kept.record.kind == Kind::Automerge);
        documents.map(|(doc, kept)| (doc.clone(), kept.record.heads.clone())).collect()
    }

    pub(super) fn listing(&self, member: usize) -> Vec<(DocId, Heads)> {
        let documents = self.node(member).map(|node| node.documents("")).unwrap_or_default();
        documents.into_iter().map(|listing| (listing.doc, listing.heads)).collect()
    }

    /// Every node's disk holds every promised write, and what its index says.
    pub fn check_documents(&mut self) {
        if self.violation.is_some() {
            return;
        }
        for member in 0..self.hosts.len() {
            let outcome = self.verify_disk(member);
            self.expect(Some(member), outcome);
        }
        // In a hierarchy each node has documents of its own; without one all have the same.
        let members = if self.setup.is_ranked() { self.hosts.len() } else { 1 };
        for member in 0..members {
            let listed: BTreeSet<DocId> = self.records(member).into_iter().map(|(doc, _)| doc).collect();
            let deleted = self.model.buried_anywhere();
            let missing = |doc: &DocId| !listed.contains(doc) && !deleted.contains(doc);
            let missing = (0..self.setup.docs).map(|doc| self.setup.doc(doc)).filter(missing);
            let outcome = missing.map(|doc| self.verify(member, &doc, None)).find(Result::is_err);
            self.expect(Some(member), outcome.unwrap_or(Ok(())));
        }
    }

    /// Whether a member's document holds what it must and nothing that it may not.
    fn verify(&self, member: usize, doc: &DocId, content: Option<&Automerge>) -> Result<(), String> {
        let ranked = self.setup.is_ranked();
        // A deletion that somebody made up may go where the document does not, and keep from there what was written elsewhere.
        let stopped = ranked && self.model.buried_anywhere().contains(doc);
        let must = |author| !ranked || !stopped && self.must_see(author, member, doc);
        self.model.verify(doc, content, must, |author| !ranked || self.may_see(author, member, doc))
    }

    /// The disk of a node that saved everything holds the heads that its index names. Loading is what costs, so each world
    /// loads the documents of one member, the next world those of the next; all have the same heads, so what one has the
    /// others have, but in a hierarchy. Their heads are read off their chunks.
    fn verify_disk(&self, member: usize) -> Result<(), String> {
        let loads = self.setup.is_ranked() || member as u64 == self.setup.seed % self.hosts.len() as u64;
        let listing = self.listing(member);
        let disk = &self.hosts[member].disk;
        let shown =
            disk.documents().filter(|(_, kept)| kept.record.kind == Kind::Automerge && !kept.record.facts.deleted);
        let shown: Vec<_> = shown.map(|(doc, kept)| (doc.clone(), kept.record.heads.clone())).collect();
        if shown != listing {
            return Err("the index and the disk's records differ".to_owned());
        }
        self.verify_markers(member)?;
        for (doc, kept) in disk.documents().filter(|(_, kept)| kept.record.kind == Kind::Automerge) {
            let bytes: usize = kept.chunks.iter().map(bytes::Bytes::len).sum();
            if (bytes as u64, kept.chunks.len()) != (kept.record.bytes, kept.record.chunks as usize) {
                return Err(format!("the record of {doc} does not count its chunks"));
            }
            if !loads && frontier(&kept.chunks).as_ref() == Some(&kept.record.heads) {
                continue;
            }
            let content = loaded(&kept.chunks).map_err(|error| format!("the disk holds {doc} damaged: {error}"))?;
            if Heads::new(content.get_heads()) != kept.record.heads {
                return Err(format!("the chunks of {doc} are not what its record says"));
            }
            self.verify(member, doc, Some(&content))?;
        }
        Ok(())
    }

    /// An equal fleet falls silent, but for heartbeats on the legacy wire and answers to fielded peers: these ask for every
    /// document every five seconds, and some come anew every minute. Nothing is sent to them that they have.
    pub(super) fn check_silence(&mut self) {
        self.pass(self.settling());
        let (before, frames) = (self.said, self.totals().frames);
        self.pass(SILENCE);
        let (after, frames) = (self.said, self.totals().frames - frames);
        let frames = frames + after.to_nodes - before.to_nodes;
        if frames > 0 {
            self.violated(None, format!("{frames} frames in ten minutes in which nothing happened"));
        }
        let data = after.data_to_fielded - before.data_to_fielded;
        if data > 0 {
            self.violated(None, format!("{data} frames with data to fielded peers in which nothing happened"));
        }
        let links: u64 = (0..self.setup.fielded.len()).map(|it| self.setup.links_of_fielded(it).count() as u64).sum();
        let most = links * (SILENCE / POLL) * (ANSWERS_PER_POLL * self.setup.docs as u64 + 1);
        let answers = after.answers_to_fielded - before.answers_to_fielded;
        if answers > most {
            self.violated(None, format!("{answers} answers to fielded peers while nothing happened; {most} at most"));
        }
        // Fielded peers dial anew every minute: which connections there are at this moment says little.
        let ends = links + 2 * self.net.legacy.len() as u64;
        let (beats, most) = (after.heartbeats - before.heartbeats, ends * (SILENCE / POLL + 1));
        if beats > most {
            self.violated(None, format!("{beats} heartbeats in ten minutes; {most} at most"));
        }
    }

    pub(super) fn settling(&self) -> u64 {
        if self.has_legacy() { SETTLING_LEGACY } else { SETTLING }
    }

    fn patience(&self) -> u64 {
        if self.setup.stormy {
            return PATIENCE_STORMY;
        }
        PATIENCE + if self.has_legacy() { PATIENCE_LEGACY } else { 0 }
    }

    fn has_legacy(&self) -> bool {
        self.setup.legacy > 0 || !self.setup.fielded.is_empty()
    }

    /// One edit reaches everybody, and costs a bounded number of frames.
    pub(super) fn check_cost_of_an_edit(&mut self) {
        if self.violation.is_some() {
            return;
        }
        // One that is not deleted; a forger may have left none.
        let mut docs = (0..self.setup.docs).map(|doc| self.setup.doc(doc));
        let Some(doc) = docs.find(|doc| !self.model.buried_anywhere().contains(doc)) else { return };
        let (before, said) = (self.totals(), self.said.to_nodes);
        self.edit(0, &doc, Plan { kind: 0, value: 77 });
        self.converge();
        self.pass(self.settling());
        let after = self.totals();
        // Connections beside the wanted ones carry their share too.
        let ends = self.net.ends.len() as u64;
        let frames = after.frames - before.frames + self.said.to_nodes - said;
        let each = if self.setup.is_ranked() { FRAMES_PER_EDIT_RANKED } else { FRAMES_PER_EDIT };
        let most = each * ends;
        if after.edits != before.edits + 1 {
            self.violated(Some(0), "a healed node refused an edit");
        } else if frames > most {
            self.violated(None, format!("one edit cost {frames} frames; {most} at most on {ends} directed links"));
        }
    }
}

impl Violation {
    /// Whether two runs failed in the same way: the same words, whatever the numbers in them.
    #[must_use]
    pub fn resembles(&self, other: &Self) -> bool {
        let words = |text: &str| text.chars().filter(|char| char.is_alphabetic()).take(24).collect::<String>();
        words(&self.what) == words(&other.what)
    }
}
