//! What takes how much time of the processor.

use std::path::Path;
use std::time::Duration;

use peat_node::store::Store;
use peat_node::store::disk::DiskStore;

use super::corpus::Corpus;
use super::floor::first_sync_floor;
use super::rows::first_sync;

/// A first sync into an empty store on disk, beside its floor.
#[derive(Debug, Clone, Copy)]
pub struct FirstSync {
    /// Bytes that crossed, both ways.
    pub bytes: u64,
    /// What it cannot do without.
    pub floor_bytes: u64,
    /// Processor time of both sides and their stores.
    pub time: Duration,
    /// Of the floor.
    pub floor: Duration,
}

impl FirstSync {
    /// Runs both in turn so many times; the medians of their times.
    ///
    /// # Panics
    /// Never with at least one round, unless the sync fails.
    #[must_use]
    pub fn median(corpus: &Corpus, rounds: usize) -> Self {
        let mut rounds: Vec<Self> = (0..rounds).map(|_| Self::once(corpus)).collect();
        let middle = rounds.len() / 2;
        rounds.sort_by_key(|round| round.floor);
        let floor = rounds[middle].floor;
        rounds.sort_by_key(|round| round.time);
        Self { floor, ..rounds[middle] }
    }

    /// How many times the floor it took.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.time.as_secs_f64() / self.floor.as_secs_f64()
    }

    fn once(corpus: &Corpus) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (floor_bytes, floor) = timed(|| first_sync_floor(corpus, &mut *store(&dir.path().join("floor.redb"))));
        let stores = ["from", "to"].map(|side| store(&dir.path().join(format!("{side}.redb"))));
        let mut pair = first_sync(corpus, stores);
        let ((), time) = timed(|| pair.meet());
        assert_eq!(pair.heads(0), pair.heads(1), "everything has arrived");
        Self { bytes: pair.meter().all(), floor_bytes, time, floor }
    }
}

fn store(path: &Path) -> Box<dyn Store> {
    Box::new(DiskStore::create(path).expect("a store"))
}

/// The processor time of this thread that `f` takes.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begun = processor_time();
    let done = f();
    (done, processor_time().saturating_sub(begun))
}

#[cfg(target_os = "linux")]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap_or(0))
}

/// Elsewhere the time of day has to do.
#[cfg(not(target_os = "linux"))]
fn processor_time() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}
