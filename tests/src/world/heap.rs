//! The one virtual clock, and what is going to happen by it.

use std::collections::BTreeMap;

use peat_proto::Time;

/// Future events in the order of (time, sequence): what was scheduled first happens first.
#[derive(Debug)]
pub(crate) struct Heap<T> {
    now: Time,
    sequence: u64,
    queue: BTreeMap<(Time, u64), T>,
}

impl<T> Heap<T> {
    pub(crate) fn new() -> Self {
        Self { now: Time::ZERO, sequence: 0, queue: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Has something happen at `time`, or now if that has passed.
    pub(crate) fn at(&mut self, time: Time, what: T) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), what);
    }

    /// Has something happen so many microseconds from now.
    pub(crate) fn after(&mut self, micros: u64, what: T) {
        self.at(Time::from_micros(self.now.as_micros().saturating_add(micros)), what);
    }

    /// The next event up to `until`, to which the clock moves; without one the clock moves to `until`.
    pub(crate) fn next(&mut self, until: Time) -> Option<T> {
        match self.queue.first_entry() {
            Some(entry) if entry.key().0 <= until => {
                self.now = self.now.max(entry.key().0);
                Some(entry.remove())
            }
            _ => {
                self.now = self.now.max(until);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_happen_by_time_and_then_in_the_order_of_scheduling() {
        let mut heap = Heap::new();
        heap.after(20, 'c');
        heap.after(10, 'a');
        heap.after(10, 'b');
        let until = Time::from_micros(15);
        assert_eq!([heap.next(until), heap.next(until), heap.next(until)], [Some('a'), Some('b'), None]);
        assert_eq!(heap.now(), until);
        assert_eq!(heap.next(Time::from_micros(99)), Some('c'));
        assert_eq!(heap.now(), Time::from_micros(20));
    }
}
