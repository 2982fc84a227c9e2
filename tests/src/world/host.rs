//! One honest member: a real node, its disk, and the application in front of it.

use std::collections::BTreeMap;

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use peat_proto::{Boot, Config, DocId, Node, Now, PeerId, SyncOutcome, Time};

use super::disk::Disk;

/// The Unix time at which every world begins, in milliseconds.
pub(crate) const EPOCH: i64 = 1_700_000_000_000;

/// An edit that its application has decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: u8,
    pub(crate) value: u32,
}

/// What an application wants done to a document that is not in memory yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Edit(Plan),
    Delete,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) peer: PeerId,
    /// `None` after a crash, until the restart.
    pub(crate) node: Option<Node>,
    pub(crate) disk: Disk,
    /// Counts boots of the simulation: what was under way for an earlier life is void.
    pub(crate) life: u64,
    pub(crate) boot: Boot,
    /// How far the wall clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// The newest time that the node was told.
    pub(crate) told: Time,
    /// The deadline that an alarm is set for.
    pub(crate) alarm: Option<Time>,
    /// A drain is due.
    pub(crate) dirty: bool,
    /// Something happened to the node since it was last checked.
    pub(crate) unchecked: bool,
    /// Jobs out with a worker.
    pub(crate) jobs: u64,
    /// Writes of the running node failed.
    pub(crate) refused_writes: bool,
    /// What waits for its document.
    pub(crate) plans: BTreeMap<DocId, Vec<Wish>>,
    /// Opens that were given and not taken back.
    pub(crate) opens: BTreeMap<DocId, u32>,
    /// Documents whose `Opened` came in this drain.
    pub(crate) opened: Vec<DocId>,
    /// The last code with which a connection with each peer was closed, and whether the peer did it.
    pub(crate) farewells: BTreeMap<PeerId, (u32, bool)>,
    /// What requests to compare documents have come to.
    pub(crate) synced: Vec<(DocId, SyncOutcome)>,
}

impl Host {
    pub(crate) fn new(member: usize, skew: i64) -> Self {
        let mut store = [7; 16];
        store[..8].copy_from_slice(&(member as u64).to_be_bytes());
        Self {
            peer: super::setup::peer(member),
            node: None,
            disk: Disk::default(),
            life: 0,
            boot: Boot { store, number: 0 },
            skew,
            told: Time::ZERO,
            alarm: None,
            dirty: false,
            unchecked: false,
            jobs: 0,
            refused_writes: false,
            plans: BTreeMap::new(),
            opens: BTreeMap::new(),
            opened: Vec::new(),
            farewells: BTreeMap::new(),
            synced: Vec::new(),
        }
    }

    /// What this host's clocks say.
    pub(crate) fn clock(&self, mono: Time) -> Now {
        let millis = i64::try_from(mono.as_micros() / 1000).unwrap_or(i64::MAX);
        let wall = EPOCH.saturating_add(millis).saturating_add(self.skew);
        Now { mono, unix_ms: u64::try_from(wall).unwrap_or(0) }
    }

    /// Starts the node from what the disk holds. A clean start goes on as the same actor.
    pub(crate) fn start(&mut self, config: Config, seed: u64, mono: Time, clean: bool) {
        self.life += 1;
        self.boot.number += u64::from(!clean || self.boot.number == 0);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.life.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.peer.0[8..16]);
        let now = self.clock(mono);
        self.node = Some(Node::new(config, self.peer, self.boot, bytes, self.disk.entries(), now));
        (self.told, self.alarm, self.dirty, self.refused_writes) = (mono, None, true, false);
    }

    /// Ends the node: nothing but the disk remains.
    pub(crate) fn stop(&mut self) {
        self.node = None;
        self.life += 1;
        (self.alarm, self.dirty, self.jobs) = (None, false, 0);
        self.plans.clear();
        self.opens.clear();
        self.opened.clear();
    }
}

/// Why an edit changed nothing on purpose.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The application thought better of it.
    Regretted,
    Automerge(AutomergeError),
}

impl From<AutomergeError> for Abort {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(error)
    }
}

/// Ways in which applications change documents.
pub(crate) const KINDS: u8 = 12;

/// Changes a document in one of the ways that applications do.
pub(crate) fn perform(tx: &mut Transaction<'_>, plan: Plan) -> Result<(), Abort> {
    let Plan { kind, value } = plan;
    let key = format!("k{}", value % 4);
    match kind % KINDS {
        0..=3 => tx.put(ROOT, key, i64::from(value))?,
        4 | 5 => {
            let text = object(tx, "text", ObjType::Text)?;
            let len = tx.length(&text);
            let at = value as usize % (len + 1);
            let cut = isize::from(at < len && value % 3 == 0);
            tx.splice_text(&text, at, cut, &format!("{value:x}"))?;
        }
        6 => {
            let list = object(tx, "list", ObjType::List)?;
            let len = tx.length(&list);
            tx.insert(&list, len, u64::from(value))?;
        }
        7 => {
            let there = tx.get(ROOT, &key)?;
            if there.is_some() {
                tx.delete(ROOT, key)?;
            }
        }
        8 => match tx.get(ROOT, "count")? {
            Some(_) => tx.increment(ROOT, "count", i64::from(value % 9))?,
            None => tx.put(ROOT, "count", ScalarValue::counter(1))?,
        },
        9 => {
            let mut rng = peat_proto::Rng::new([(value % 251) as u8; 32]);
            let len = value % 97 * (value % 43);
            let blob: Vec<u8> = (0..len).map(|_| rng.draw().to_be_bytes()[0]).collect();
            tx.put(ROOT, "blob", blob)?;
        }
        10 => {
            tx.put(ROOT, key, "never")?;
            return Err(Abort::Regretted);
        }
        // A transaction that changes nothing.
        _ => {}
    }
    Ok(())
}

/// The object under a key of the root, created if there is none.
fn object(tx: &mut Transaction<'_>, key: &str, kind: ObjType) -> Result<automerge::ObjId, AutomergeError> {
    match tx.get(ROOT, key)? {
        Some((Value::Object(found), id)) if found == kind => Ok(id),
        _ => tx.put_object(ROOT, key, kind),
    }
}
