//! A disk in memory with a page cache, that can be full, refuse, forget and lose its power.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use peat_node::proto::Rng;
use redb::StorageBackend;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

/// What is wrong with the disk, and what it holds.
#[derive(Debug)]
pub(crate) struct State {
    /// Pages that fit; a file with holes takes a page when it is first written, as on ext4.
    pub(crate) capacity: Option<usize>,
    /// Every sync fails. Some of what was not synced reaches the disk and the rest never does, while the cache goes
    /// on to show all of it, as on Linux.
    pub(crate) sync_fails: bool,
    pub(crate) read_fails: bool,
    /// The file cannot be made shorter.
    pub(crate) shrink_fails: bool,
    /// Writes, changes of length and syncs until the power is cut.
    pub(crate) steps_left: Option<u64>,
    /// The same until one of them fails, once.
    pub(crate) steps_to_fault: Option<u64>,
    shrinks_failed: u64,
    cut: bool,
    syncs: u64,
    rng: Rng,
    cache: Vec<u8>,
    disk: Vec<u8>,
    allocated: BTreeSet<u64>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl FaultyDisk {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::holding(seed, Vec::new())
    }

    fn holding(seed: u64, bytes: Vec<u8>) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        Self(Arc::new(Mutex::new(State {
            capacity: None,
            sync_fails: false,
            read_fails: false,
            shrink_fails: false,
            steps_left: None,
            steps_to_fault: None,
            shrinks_failed: 0,
            cut: false,
            syncs: 0,
            rng: Rng::new(key),
            cache: bytes.clone(),
            disk: bytes.clone(),
            allocated: (0..(bytes.len() as u64).div_ceil(PAGE)).collect(),
            unsynced: Vec::new(),
        })))
    }

    pub(crate) fn set(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.state());
    }

    pub(crate) fn pages_used(&self) -> usize {
        self.state().pages_used()
    }

    pub(crate) fn heal(&self) {
        self.set(|state| {
            state.capacity = None;
            state.sync_fails = false;
            state.read_fails = false;
            state.shrink_fails = false;
            state.steps_to_fault = None;
        });
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state().cut
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(crate) fn shrinks_failed(&self) -> u64 {
        self.state().shrinks_failed
    }

    /// Flips bits of what is stored.
    pub(crate) fn damage(&self, position: u64, bits: u8) {
        let position = usize::try_from(position).expect("small");
        let mut state = self.state();
        if let Some(byte) = state.cache.get_mut(position) {
            *byte ^= bits;
        }
    }

    /// What a power cut would leave: what was synced, and any of the sectors that were not. This disk stays as it is.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.state();
        let mut disk = state.disk.clone();
        let mut rng = state.rng.clone();
        for _ in 0..seed % 7 {
            rng.draw();
        }
        some_of(&mut rng, &state.unsynced, &mut disk);
        drop(state);
        Self::holding(seed, disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with the lock held")
    }
}

impl State {
    pub(crate) fn pages_used(&self) -> usize {
        self.allocated.len()
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some(steps) = &mut self.steps_left {
            self.cut |= *steps == 0;
            *steps = steps.saturating_sub(1);
        }
        if self.cut {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match self.steps_to_fault.take() {
            Some(0) => Err(io::Error::other("a passing fault")),
            steps => {
                self.steps_to_fault = steps.map(|steps| steps - 1);
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cache);
        self.unsynced.push(change);
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(start, data) => {
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*start..end].copy_from_slice(data);
            }
            Self::Len(len) => bytes.resize(*len, 0),
        }
    }
}

/// Applies each change, or each sector of one, with even odds.
fn some_of(rng: &mut Rng, changes: &[Change], disk: &mut Vec<u8>) {
    for change in changes {
        match change {
            Change::Write(start, data) => {
                for (n, sector) in data.chunks(SECTOR).enumerate() {
                    if rng.below(2) == 0 {
                        Change::Write(start + n * SECTOR, sector.to_vec()).apply(disk);
                    }
                }
            }
            Change::Len(_) if rng.below(2) == 0 => change.apply(disk),
            Change::Len(_) => {}
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.read_fails || state.cut {
            return Err(io::Error::other("a bad sector"));
        }
        let start = usize::try_from(offset).expect("small");
        let bytes = state.cache.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if state.shrink_fails && len < state.cache.len() as u64 {
            state.shrinks_failed += 1;
            return Err(io::Error::other("the file cannot be made shorter"));
        }
        state.allocated.retain(|page| page * PAGE < len);
        state.change(Change::Len(usize::try_from(len).expect("small")));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        let stepped = state.step();
        if state.cut {
            return stepped;
        }
        let changes = std::mem::take(&mut state.unsynced);
        if state.sync_fails || stepped.is_err() {
            let State { rng, disk, .. } = &mut *state;
            some_of(rng, &changes, disk);
            return Err(io::Error::other("fsync failed"));
        }
        for change in changes {
            change.apply(&mut state.disk);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let pages = offset / PAGE..(offset + data.len() as u64).div_ceil(PAGE);
        let new = pages.filter(|page| !state.allocated.contains(page));
        let new: Vec<u64> = new.collect();
        let used = state.allocated.len() + new.len();
        if !new.is_empty() && state.capacity.is_some_and(|capacity| used > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.allocated.extend(new);
        let start = usize::try_from(offset).expect("small");
        state.change(Change::Write(start, data.to_vec()));
        Ok(())
    }
}
