//! What the rows may come to.

use std::fmt;

use super::meter::Meter;
use super::timed::FirstSync;

/// Bytes each way to learn that nothing differs.
pub const LEVEL: u64 = 128;

/// Half round trips for that.
pub const LEVEL_TRIPS: u64 = 2;

/// Bytes to find and to name ten changed documents, both ways.
pub const TEN: u64 = 4_000;

/// Bytes to find and to name a thousand.
pub const THOUSAND: u64 = 160_000;

/// Bytes in which ten thousand small documents arrive.
pub const TEN_THOUSAND: u64 = 1_000_000;

/// Times the floor that this takes of the processor, in optimised code.
pub const PROCESSOR: f64 = 1.5;

/// Bytes of the frame that brings an edit to a level peer: one and a half of the change alone, and 40.
#[must_use]
pub fn edit_frame(change: u64) -> u64 {
    (3 * change + 80) / 2
}

/// Holds what was measured to its bounds, and remembers what exceeded them.
#[derive(Debug, Default)]
pub struct Judge {
    held: usize,
    excesses: Vec<Excess>,
}

/// What cost more than it may.
#[derive(Debug, Clone, PartialEq)]
pub struct Excess {
    row: String,
    measured: f64,
    bound: f64,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, may be {}", self.row, self.measured, self.bound)
    }
}

impl Judge {
    /// An edit to a level peer, of so many documents, whose change alone has so many bytes.
    pub fn edit(&mut self, count: usize, meter: &Meter, change: u64) {
        self.bytes(format!("edit among {count}, bytes"), meter.bytes[0].documents, edit_frame(change));
        self.bytes(format!("edit among {count}, frames with data"), meter.data, 1);
    }

    /// Two nodes that are equal in what they share.
    pub fn level(&mut self, row: &str, count: usize, meter: &Meter) {
        for (way, bytes) in ["there", "back"].into_iter().zip(meter.bytes) {
            self.bytes(format!("{row} of {count}, bytes {way}"), bytes.finding() + bytes.documents, LEVEL);
        }
        self.bytes(format!("{row} of {count}, half round trips"), meter.half_trips, LEVEL_TRIPS);
    }

    /// Two nodes of whose documents so many differ.
    pub fn changed(&mut self, changes: usize, count: usize, meter: &Meter) {
        let bound = if changes <= 10 { TEN } else { THOUSAND };
        self.bytes(format!("{changes} changed of {count}, bytes to find and name"), meter.finding(), bound);
    }

    /// A first sync of ten thousand small documents.
    pub fn first(&mut self, sync: &FirstSync) {
        self.bytes("first sync, bytes".into(), sync.bytes, TEN_THOUSAND);
        self.hold("first sync, times the floor".into(), sync.ratio(), PROCESSOR);
    }

    /// How many costs were held to a bound, or what exceeded its own.
    ///
    /// # Errors
    /// Every excess, in order.
    pub fn verdict(self) -> Result<usize, Vec<Excess>> {
        if self.excesses.is_empty() { Ok(self.held) } else { Err(self.excesses) }
    }

    fn bytes(&mut self, row: String, measured: u64, bound: u64) {
        self.hold(row, measured as f64, bound as f64);
    }

    /// What cannot be compared, as a ratio to nothing, exceeds every bound.
    fn hold(&mut self, row: String, measured: f64, bound: f64) {
        self.held += 1;
        if measured.partial_cmp(&bound).is_none_or(|order| order.is_gt()) {
            self.excesses.push(Excess { row, measured, bound });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::costs::Bytes;

    fn meter(control: [u64; 2], documents: u64, naming: u64) -> Meter {
        let bytes = control.map(|control| Bytes { control, documents, naming, ..Bytes::default() });
        Meter { bytes, data: 1, half_trips: 2, ..Meter::default() }
    }

    fn sync(bytes: u64, time: u64, floor: u64) -> FirstSync {
        let (time, floor) = (Duration::from_millis(time), Duration::from_millis(floor));
        FirstSync { bytes, floor_bytes: 0, time, floor }
    }

    fn excesses(f: impl FnOnce(&mut Judge)) -> usize {
        let mut judge = Judge::default();
        f(&mut judge);
        judge.verdict().map_or_else(|excesses| excesses.len(), |_| 0)
    }

    #[test]
    fn what_is_at_its_bound_passes_and_one_more_does_not() {
        assert_eq!(excesses(|judge| judge.edit(1, &meter([0; 2], 241, 0), 134)), 0);
        assert_eq!(excesses(|judge| judge.edit(1, &meter([0; 2], 242, 0), 134)), 1);
        assert_eq!(excesses(|judge| judge.edit(1, &Meter { data: 2, ..meter([0; 2], 241, 0) }, 134)), 1);
        assert_eq!(excesses(|judge| judge.level("equal", 1, &meter([128; 2], 0, 0))), 0);
        assert_eq!(excesses(|judge| judge.level("equal", 1, &meter([128, 129], 0, 0))), 1);
        assert_eq!(excesses(|judge| judge.level("equal", 1, &meter([128; 2], 1, 0))), 2, "no document is named");
        assert_eq!(excesses(|judge| judge.level("equal", 1, &Meter { half_trips: 3, ..meter([1; 2], 0, 0) })), 1);
        assert_eq!(excesses(|judge| judge.changed(10, 1, &meter([1_000; 2], 9_000, 1_000))), 0);
        assert_eq!(excesses(|judge| judge.changed(10, 1, &meter([1_000, 1_001], 9_000, 1_000))), 1);
        assert_eq!(excesses(|judge| judge.changed(1_000, 1, &meter([80_000; 2], 9_000, 0))), 0);
        assert_eq!(excesses(|judge| judge.changed(1_000, 1, &meter([80_000; 2], 9_000, 1))), 1);
        assert_eq!(excesses(|judge| judge.first(&sync(1_000_000, 150, 100))), 0);
        assert_eq!(excesses(|judge| judge.first(&sync(1_000_001, 151, 100))), 2);
    }

    #[test]
    fn a_ratio_to_nothing_is_too_much() {
        assert_eq!(excesses(|judge| judge.first(&sync(1, 0, 0))), 1);
        assert_eq!(excesses(|judge| judge.first(&sync(1, 1, 0))), 1);
    }

    #[test]
    fn every_excess_is_named_and_what_holds_is_counted() {
        let mut judge = Judge::default();
        judge.changed(10, 100_000, &meter([2_000; 2], 0, 0));
        judge.changed(1_000, 100_000, &meter([80_000; 2], 0, 0));
        assert_eq!(judge.verdict(), Ok(2));
        let mut judge = Judge::default();
        judge.changed(10, 100_000, &meter([2_000, 2_001], 0, 0));
        judge.changed(1_000, 100_000, &meter([80_001; 2], 0, 0));
        let said: Vec<String> = judge.verdict().expect_err("both are too much").iter().map(Excess::to_string).collect();
        let naming = "bytes to find and name";
        let [ten, thousand] = [format!("10 changed of 100000, {naming}"), format!("1000 changed of 100000, {naming}")];
        assert_eq!(said, [format!("{ten}: 4001, may be 4000"), format!("{thousand}: 160002, may be 160000")]);
    }
}
