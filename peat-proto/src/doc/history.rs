//! Automerge documents as histories: parsing, merging, and asking what a frontier lacks. The one file that makes
//! `Automerge` values, so that each has its actor set.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Automerge, Change, ChangeHash, LoadOptions, ROOT, ReadDoc, TextEncoding};
use bytes::Bytes;

use super::extent::{Extent, weight};
use super::inbox::{Incoming, Payload, Portion, Source};
use crate::admit::Admitted;
use crate::config::AdmitLimits;
use crate::heads::Heads;
use crate::id::EditId;
use crate::io::Refusal;
use crate::store::{Facts, Record};

/// What a merge did.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// The new changes in causal order, with their dependencies.
    pub(crate) added: Vec<(ChangeHash, Vec<ChangeHash>)>,
    /// Their bytes, as they go into the store.
    pub(crate) bytes: Vec<u8>,
    pub(crate) reports: Vec<Report>,
    /// What is left to the next merge.
    pub(crate) rest: Vec<Incoming>,
    /// Automerge failed in the middle: the document may not be used any more.
    pub(crate) broken: bool,
    /// The empty document in whose place a whole one was put.
    pub(crate) blank: Option<Box<Automerge>>,
}

/// What became of one [`Incoming`].
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) source: Source,
    /// How many of its changes were new and how many known, or why none was applied.
    pub(crate) outcome: Result<(u64, u64), Refusal>,
    pub(crate) brought: Brought,
    /// Bytes of the payload.
    pub(crate) size: usize,
}

/// Which history a payload is of: whoever sent it has that.
#[derive(Debug, Default)]
pub(crate) enum Brought {
    #[default]
    Unknown,
    /// A saved document with these heads.
    Whole(Heads),
    /// Changes up to these.
    UpTo(Heads),
}

impl Brought {
    /// Heads that it names.
    pub(crate) fn hashes(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Whole(heads) | Self::UpTo(heads) => heads.len(),
        }
    }
}

/// An empty document that writes as `actor`.
pub(crate) fn blank(actor: &ActorId) -> Automerge {
    Automerge::new_with_encoding(TextEncoding::platform_default()).with_actor(actor.clone())
}

/// Parses chunks of our own store.
pub(crate) fn parse(chunks: &[Bytes], actor: &ActorId) -> Option<Automerge> {
    let joined;
    let bytes = match chunks {
        [one] => one.as_ref(),
        several => {
            joined = several.concat();
            joined.as_slice()
        }
    };
    let doc = catch_unwind(|| Automerge::load_with_options(bytes, LoadOptions::new())).ok()?.ok()?;
    Some(doc.with_actor(actor.clone()))
}

/// Saves the part of the history that lies behind `at`; all of it without.
pub(crate) fn save(doc: &Automerge, at: Option<&Heads>) -> Vec<u8> {
    match at {
        None => doc.save(),
        Some(heads) => doc.fork_at(heads.as_slice()).map_or_else(|_| Vec::new(), |fork| fork.save()),
    }
}

/// The document without what came after `heads`.
pub(crate) fn rolled_back(doc: &Automerge, heads: &[ChangeHash], actor: &ActorId) -> Option<Automerge> {
    let mut fork = doc.fork_at(heads).ok()?;
    fork.set_actor(actor.clone());
    Some(fork)
}

/// What the content says about its age and end.
pub(crate) fn facts(doc: &Automerge) -> Facts {
    let times =
        doc.get_heads().into_iter().filter_map(|head| doc.get_change_meta_by_hash(&head)).map(|meta| meta.timestamp);
    // Authors without a clock write 0, fielded nodes among them: such a head has no age.
    let newest = times.filter_map(|time| u64::try_from(time).ok()).filter(|time| *time > 0).max();
    let deleted = match doc.get(ROOT, Facts::DELETED) {
        Ok(Some((value, _))) => value.as_bool().unwrap_or_default(),
        Ok(None) | Err(_) => false,
    };
    Facts { newest, deleted }
}

/// Whether the history contains this change.
pub(crate) fn knows(doc: &Automerge, hash: &ChangeHash) -> bool {
    doc.get_change_meta_by_hash(hash).is_some()
}

/// Hashes that tell another replica how much of the history this one has: the frontier's ancestors at distances 1, 2,
/// 4 … along first parents. A replica that lags by n changes recognises one at most 2n back. The walk ends after
/// 8,192 steps (4 ms).
pub(crate) fn sample(doc: &Automerge, from: &Heads) -> Vec<ChangeHash> {
    const STEPS: u32 = 8192;
    let mut hashes = Vec::new();
    let mut cursor = from.as_slice().first().copied();
    for step in 1..=STEPS {
        let parents = cursor.and_then(|hash| doc.get_change_meta_by_hash(&hash)).map(|meta| meta.deps);
        cursor = parents.and_then(|deps| deps.iter().min().copied());
        match cursor {
            Some(hash) if step.is_power_of_two() => hashes.push(hash),
            Some(_) => {}
            None => break,
        }
    }
    hashes
}

/// Merges what arrived for a document, in one application: applying costs in proportion to the history, so batching is what
/// makes it cheap. Refused input leaves the document as it was and costs its neighbours nothing. `extent` is the document's,
/// and follows.
pub(crate) fn merge(doc: &mut Automerge, extent: &mut Extent, portion: Portion, limits: &AdmitLimits) -> Merged {
    let Portion { mut taken, rest } = portion;
    let mut merged = Merged { rest, ..Merged::default() };
    if doc.get_heads().is_empty()
        && let [(Incoming { payload: Payload::Saved(_), .. }, _)] = taken.as_slice()
        && let Some((Incoming { source, payload: Payload::Saved(bytes) }, verdict)) = taken.pop()
    {
        merged.adopt(doc, extent, source, &bytes, verdict, limits);
        return merged;
    }
    // What comes back after a failed merge was admitted before, or is our own.
    let restores = taken.iter().any(|(incoming, _)| incoming.source == Source::Restore);
    let limits = if restores { &AdmitLimits::NONE } else { limits };
    let mut chosen = BTreeSet::new();
    let mut groups: Vec<Vec<Change>> = Vec::new();
    for (Incoming { source, payload }, verdict) in taken {
        let size = payload.len();
        let mut group = Vec::new();
        // Automerge may panic on what the walk admits.
        let parsed = catch_unwind(AssertUnwindSafe(|| verdict.and_then(|_| changes_of(doc, payload))));
        let (outcome, brought) = match parsed.unwrap_or(Err(Refusal::Invalid)) {
            Ok(Parsed { changes, brought, known }) => {
                let outcome = choose(doc, changes, &mut group, &mut chosen, limits);
                (outcome.map(|(new, seen)| (new, seen + known)), brought)
            }
            Err(refusal) => (Err(refusal), Brought::Unknown),
        };
        groups.push(group);
        merged.reports.push(Report { source, outcome, brought, size });
    }
    let joint: Vec<Change> = groups.iter().flatten().cloned().collect();
    if joint.is_empty()
        || !matches!(
            merged.apply(doc, extent, joint, limits),
            Err(Refusal::Invalid | Refusal::TooLarge | Refusal::TooManyHeads)
        )
    {
        return merged;
    }
    // Somebody's changes cannot be applied: each source stands for itself.
    let mut chosen = BTreeSet::new();
    for (at, group) in groups.into_iter().enumerate() {
        if merged.broken || group.is_empty() {
            continue;
        }
        let mut alone = Vec::new();
        let outcome = choose(doc, group, &mut alone, &mut chosen, limits).and_then(|outcome| {
            if alone.is_empty() { Ok(outcome) } else { merged.apply(doc, extent, alone, limits).map(|()| outcome) }
        });
        if let (Err(refusal), Some(report)) = (outcome, merged.reports.get_mut(at)) {
            report.outcome = Err(refusal);
        }
    }
    merged
}

impl Merged {
    /// Applies changes that follow from what is known. After an error the document is as it was, unless it is broken.
    fn apply(
        &mut self,
        doc: &mut Automerge,
        extent: &mut Extent,
        batch: Vec<Change>,
        limits: &AdmitLimits,
    ) -> Result<(), Refusal> {
        use automerge::AutomergeError::{DuplicateAuthor, DuplicateSeqNumber};
        extent.room(doc, &batch, limits)?;
        match catch_unwind(AssertUnwindSafe(|| doc.apply_changes(batch.iter().cloned()))) {
            Ok(Ok(())) => {}
            // Refused by Automerge before anything was touched.
            Ok(Err(DuplicateSeqNumber(..) | DuplicateAuthor(..))) => return Err(Refusal::Invalid),
            Ok(Err(_)) | Err(_) => {
                self.broken = true;
                self.added.clear();
                for report in self.reports.iter_mut().filter(|report| report.is_fresh()) {
                    report.outcome = Err(Refusal::Invalid);
                }
                return Ok(());
            }
        }
        for change in &batch {
            self.bytes.extend_from_slice(change.raw_bytes());
            self.added.push((change.hash(), change.deps().to_vec()));
            extent.grow(weight(change));
        }
        Ok(())
    }

    /// Takes over a saved document whole, where there was nothing: no change is applied one by one.
    fn adopt(
        &mut self,
        doc: &mut Automerge,
        extent: &mut Extent,
        source: Source,
        bytes: &Bytes,
        verdict: Result<Admitted, Refusal>,
        limits: &AdmitLimits,
    ) {
        let trusted = source == Source::Restore;
        let outcome = verdict.and_then(|admitted| Ok((admitted, load_saved(bytes)?))).and_then(|(admitted, saved)| {
            if saved.get_heads().len() > Record::MAX_HEADS {
                Err(Refusal::TooManyHeads)
            } else if !trusted && has_giant(&saved, admitted, limits) {
                Err(Refusal::TooLarge)
            } else {
                Ok((admitted, saved))
            }
        });
        let (outcome, brought) = match outcome {
            Err(refusal) => (Err(refusal), Brought::Unknown),
            Ok((admitted, saved)) => {
                let heads = Heads::new(saved.get_heads());
                // Their dependencies lie behind them, and nothing else is the frontier.
                self.added = heads.as_slice().iter().map(|hash| (*hash, Vec::new())).collect();
                self.bytes = bytes.to_vec();
                let new = saved.stats().num_changes;
                *extent =
                    if trusted { Extent::of_chunks([bytes.as_ref()]) } else { Extent::exactly(admitted.expanded) };
                let actor = doc.get_actor().clone();
                let blank = std::mem::replace(doc, saved.with_actor(actor));
                // Without heads it may still hold changes that wait for others.
                self.blank = blank.is_empty().then(|| Box::new(blank));
                (Ok((new, 0)), Brought::Whole(heads))
            }
        };
        self.reports.push(Report { source, outcome, brought, size: bytes.len() });
    }
}

impl Report {
    /// Whether it brought something new.
    pub(crate) fn is_fresh(&self) -> bool {
        self.outcome.is_ok_and(|(new, _)| new > 0)
    }

    /// The number of the import that brought something new.
    pub(crate) fn imported(&self) -> Option<EditId> {
        match self.source {
            Source::Import(edit) if self.is_fresh() => Some(edit),
            Source::Import(_) | Source::Peer(..) | Source::Restore => None,
        }
    }
}

/// Whether one of its changes is too large to be passed on by itself; a saved form can only hide one by compression.
fn has_giant(saved: &Automerge, admitted: Admitted, limits: &AdmitLimits) -> bool {
    admitted.expanded > limits.change_bytes
        && saved.get_changes(&[]).iter().any(|change| change.raw_bytes().len() > limits.change_bytes)
}

/// Loads a saved document of which nothing is missing.
fn load_saved(bytes: &[u8]) -> Result<Automerge, Refusal> {
    let loaded = catch_unwind(|| Automerge::load_with_options(bytes, LoadOptions::new()));
    let Ok(Ok(saved)) = loaded else { return Err(Refusal::Invalid) };
    if saved.get_missing_deps(&[]).is_empty() { Ok(saved) } else { Err(Refusal::MissingChanges) }
}

struct Parsed {
    changes: Vec<Change>,
    brought: Brought,
    known: u64,
}

/// Parses what was walked and admitted.
fn changes_of(doc: &Automerge, payload: Payload) -> Result<Parsed, Refusal> {
    match payload {
        Payload::Saved(bytes) => saved_changes(doc, &bytes),
        Payload::Changes(chunks) => {
            let mut parsed = Parsed { changes: Vec::new(), brought: Brought::Unknown, known: 0 };
            for chunk in chunks {
                match Change::try_from(chunk.as_ref()) {
                    Ok(change) => parsed.changes.push(change),
                    // Automerge's own second message version nests whole documents and runs of changes here.
                    Err(_) => {
                        let nested = saved_changes(doc, &chunk)?;
                        parsed.known += nested.known;
                        parsed.changes.extend(nested.changes);
                    }
                }
            }
            // Messages of a peer may overtake each other.
            parsed.changes = in_causal_order(parsed.changes);
            let deps: BTreeSet<_> = parsed.changes.iter().flat_map(Change::deps).copied().collect();
            let last = parsed.changes.iter().map(Change::hash).filter(|hash| !deps.contains(hash));
            parsed.brought = Brought::UpTo(Heads::new(last.collect()));
            Ok(parsed)
        }
    }
}

fn saved_changes(doc: &Automerge, bytes: &[u8]) -> Result<Parsed, Refusal> {
    let saved = load_saved(bytes)?;
    let changes = doc.get_changes_added(&saved);
    let total = saved.stats().num_changes;
    let known = total.saturating_sub(u64::try_from(changes.len()).unwrap_or(u64::MAX));
    Ok(Parsed { changes: in_causal_order(changes), brought: Brought::Whole(Heads::new(saved.get_heads())), known })
}

/// `get_changes_added` promises something close to a topological order; this makes it one.
fn in_causal_order(changes: Vec<Change>) -> Vec<Change> {
    let mut waiting: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
    if changes.iter().all(|change| {
        waiting.remove(&change.hash());
        !change.deps().iter().any(|dep| waiting.contains(dep))
    }) {
        return changes;
    }
    let mut by_hash: std::collections::BTreeMap<ChangeHash, Change> =
        changes.into_iter().map(|change| (change.hash(), change)).collect();
    let mut ordered = Vec::with_capacity(by_hash.len());
    while let Some(start) = by_hash.keys().next().copied() {
        let mut stack = vec![start];
        while let Some(hash) = stack.last().copied() {
            let open =
                by_hash.get(&hash).and_then(|change| change.deps().iter().find(|dep| by_hash.contains_key(*dep)));
            match open {
                Some(dep) => stack.push(*dep),
                None => {
                    stack.pop();
                    ordered.extend(by_hash.remove(&hash));
                }
            }
        }
    }
    ordered
}

/// Adds to the batch what is new and follows from what is known.
fn choose(
    doc: &Automerge,
    changes: Vec<Change>,
    batch: &mut Vec<Change>,
    chosen: &mut BTreeSet<ChangeHash>,
    limits: &AdmitLimits,
) -> Result<(u64, u64), Refusal> {
    let (mut new, mut known, mut orphans) = (0, 0, 0_u64);
    if changes.iter().any(|change| change.raw_bytes().len() > limits.change_bytes) {
        return Err(Refusal::TooLarge);
    }
    for change in changes {
        let hash = change.hash();
        if chosen.contains(&hash) || knows(doc, &hash) {
            known += 1;
        } else if change.deps().iter().all(|dep| chosen.contains(dep) || knows(doc, dep)) {
            chosen.insert(hash);
            batch.push(change);
            new += 1;
        } else {
            orphans += 1;
        }
    }
    // What stood on firm ground is applied even if the rest did not; the sender learns it from our heads.
    if new + known == 0 && orphans > 0 { Err(Refusal::MissingChanges) } else { Ok((new, known)) }
}
