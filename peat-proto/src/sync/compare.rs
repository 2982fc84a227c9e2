//! Comparing two sets over a connection: who asks, who answers, and what is said again.
//!
//! ```text
//!   asking side                     answering side
//!   Pull cells 0..48    ─────────►  freezes its set
//!                       ◄─────────  Cells
//!   Pull 48..72 …       ─────────►
//!                       ◄─────────  Cells               until they decode
//!   or Ask for ranges   ─────────►
//!                       ◄─────────  Shares              for what is too much for a sketch
//! ```
//!
//! Every message may be lost, doubled or overtaken: what is not answered is asked again, and answers are remembered nowhere.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::reconcile::{Decoder, Difference, Frozen, MAX_CELLS, Prefix, Progress, Ranges, SymbolSet, answer};
use crate::time::Time;
use crate::wire::v1::{Ask, Cells, Pull, Shares, Subject};

/// Symbols by which two sets differ at least, from which on no sketch is tried.
const TOO_MANY: u64 = 5000;

/// Time for which a frozen set is kept, however slowly its cells are pulled; then ranges are left to the asking side. 2 min:
/// the 200 KB of a whole sketch at 14 kbit/s.
const MOST_FROZEN: Duration = Duration::from_secs(120);

/// Time between two sets that one peer may have frozen, each of which the next write copies, with 192 KiB for each scope.
/// 250 ms, as between two summaries.
const BETWEEN_FREEZES: Duration = Duration::from_millis(250);

/// Sets that it may have frozen in a row before that counts.
const FREEZES_AHEAD: u32 = 4;

/// The asking side of one comparison.
#[derive(Debug)]
pub(crate) struct Asking {
    subject: Subject,
    epoch: u64,
    way: Way,
    /// When what was asked is asked again; kept by the owner.
    pub(crate) deadline: Option<Time>,
    /// How often it was asked in vain, in a row.
    pub(crate) tries: u32,
}

#[derive(Debug)]
enum Way {
    /// Cells have been asked for up to this one.
    Sketch(Decoder, u32),
    Ranges(Ranges, VecDeque<Prefix>),
}

/// What an answer came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// Nothing was learned.
    Nothing,
    /// So much was found, and there may be more.
    Found(Difference),
    /// The sketch did not decode.
    Failed,
    /// No set answers like this.
    Invalid,
}

impl Asking {
    /// Compares the asked side's set of `theirs` elements with what was frozen of ours, by sketch unless it differs by too
    /// much.
    pub(crate) fn new(subject: Subject, epoch: u64, ours: Frozen, theirs: u64) -> Self {
        if ours.symbols().abs_diff(theirs) > TOO_MANY {
            return Self::by_ranges(subject, epoch);
        }
        let way = Way::Sketch(Decoder::new(ours, theirs), 0);
        Self { subject, epoch, way, deadline: None, tries: 0 }
    }

    /// Compares by ranges from the start.
    pub(crate) fn by_ranges(subject: Subject, epoch: u64) -> Self {
        let ranges = if subject == Subject::OneWay { Ranges::one_way() } else { Ranges::default() };
        let way = Way::Ranges(ranges, VecDeque::new());
        Self { subject, epoch, way, deadline: None, tries: 0 }
    }

    pub(crate) fn subject(&self) -> Subject {
        self.subject
    }

    /// The next question, if one is due. None while answers are awaited, or while there is work to do first.
    pub(crate) fn say(&mut self) -> Option<Bytes> {
        match &mut self.way {
            Way::Sketch(decoder, asked) => {
                if decoder.len() < *asked {
                    return None;
                }
                let Range { start: from, end: to } = decoder.next();
                *asked = to;
                let limit = decoder.limit();
                Some(Pull { subject: self.subject, epoch: self.epoch, limit, from, to }.frame())
            }
            Way::Ranges(ranges, again) => {
                let mut next: Vec<Prefix> = again.drain(..).collect();
                next.extend(ranges.ask());
                next.truncate(Ask::MAX_RANGES);
                (!next.is_empty()).then(|| Ask { subject: self.subject, ranges: next }.frame())
            }
        }
    }

    /// Whether all has been asked and answered.
    pub(crate) fn is_done(&self) -> bool {
        matches!(&self.way, Way::Ranges(ranges, _) if ranges.is_done())
    }

    /// Nothing came: ask again.
    pub(crate) fn repeat(&mut self) {
        self.tries = self.tries.saturating_add(1);
        match &mut self.way {
            Way::Sketch(decoder, asked) => *asked = decoder.len(),
            Way::Ranges(ranges, again) => *again = ranges.unanswered().into(),
        }
    }

    /// Takes in cells. After [`Heard::Found`] a sketch is done.
    pub(crate) fn heard_cells(&mut self, cells: &Cells) -> Heard {
        let Way::Sketch(decoder, asked) = &mut self.way else { return Heard::Nothing };
        if cells.epoch != self.epoch {
            return Heard::Nothing;
        }
        if cells.cells.is_empty() {
            return Heard::Failed;
        }
        if cells.from != decoder.len() || cells.from >= *asked {
            return Heard::Nothing;
        }
        self.tries = 0;
        match decoder.extend(&cells.cells) {
            Progress::More => Heard::Nothing,
            Progress::Done(difference) => Heard::Found(difference),
            Progress::Failed => Heard::Failed,
        }
    }

    /// Takes in what they have in ranges.
    pub(crate) fn heard_shares<V>(&mut self, sets: &[&SymbolSet<V>], shares: Shares) -> Heard {
        let Way::Ranges(ranges, _) = &mut self.way else { return Heard::Nothing };
        if shares.subject != self.subject {
            return Heard::Nothing;
        }
        for (prefix, answer) in shares.answers {
            if !ranges.heard(sets, prefix, answer) {
                return Heard::Invalid;
            }
        }
        self.tries = 0;
        Heard::Nothing
    }

    /// Compares one of the ranges that were answered for; `None` when there is none.
    pub(crate) fn work<V>(&mut self, sets: &[&SymbolSet<V>]) -> Option<Difference> {
        match &mut self.way {
            Way::Ranges(ranges, _) if ranges.has_work() => Some(ranges.work(sets)),
            Way::Ranges(..) | Way::Sketch(..) => None,
        }
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.way {
            Way::Sketch(decoder, asked) => decoder.len() < *asked,
            Way::Ranges(ranges, _) => !ranges.unanswered().is_empty(),
        }
    }
}

/// The answering side: what was asked and is not answered yet. Answers are made when they can be sent.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    sketch: Option<Sketched>,
    ranges: VecDeque<(Subject, Prefix)>,
    /// An epoch whose sketch is not there.
    gone: Option<u64>,
    newest: u64,
    /// When as many sets will have been due as were frozen.
    paid: Time,
}

#[derive(Debug)]
struct Sketched {
    epoch: u64,
    frozen: Frozen,
    /// When it is let go of.
    until: Time,
    /// Cells that are to be told.
    due: Range<u32>,
}

impl Answering {
    /// Takes in a question for cells. `freeze` freezes the sets of a subject for so many cells, or refuses to.
    pub(crate) fn heard_pull(&mut self, pull: &Pull, now: Time, freeze: impl FnOnce(Subject, u32) -> Option<Frozen>) {
        if pull.epoch < self.newest {
            return;
        }
        if pull.epoch > self.newest {
            self.newest = pull.epoch;
            self.sketch = None;
            if pull.from == 0 && self.paid <= now + BETWEEN_FREEZES * FREEZES_AHEAD {
                let frozen = freeze(pull.subject, pull.limit.min(MAX_CELLS));
                let until = now + MOST_FROZEN;
                self.sketch = frozen.map(|frozen| Sketched { epoch: pull.epoch, frozen, until, due: 0..0 });
                self.paid = self.paid.max(now) + BETWEEN_FREEZES;
            }
        }
        match &mut self.sketch {
            Some(sketch) => sketch.due = pull.from..pull.to.min(sketch.frozen.len()),
            None => self.gone = Some(pull.epoch),
        }
    }

    /// Takes in a question for ranges; as many are remembered as one side may ask for.
    pub(crate) fn heard_ask(&mut self, ask: Ask) {
        for range in ask.ranges {
            let asked = (ask.subject, range);
            if self.ranges.len() < 2 * Ask::MAX_RANGES && !self.ranges.contains(&asked) {
                self.ranges.push_back(asked);
            }
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.gone.is_some()
            || !self.ranges.is_empty()
            || self.sketch.as_ref().is_some_and(|sketch| !sketch.due.is_empty())
    }

    /// Whether a frozen set is kept.
    pub(crate) fn is_frozen(&self) -> bool {
        self.sketch.is_some()
    }

    /// When what is frozen is let go of.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.sketch.as_ref().map(|sketch| sketch.until)
    }

    /// Lets go of what was frozen for too long.
    pub(crate) fn tick(&mut self, now: Time) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.thaw();
        }
    }

    /// Lets go of what was frozen.
    pub(crate) fn thaw(&mut self) {
        self.sketch = None;
    }

    /// The next answer, of at most 8 KiB. `sets` gives the sets of a subject.
    pub(crate) fn say<'a, V: 'a>(&mut self, sets: impl Fn(Subject) -> Vec<&'a SymbolSet<V>>) -> Option<Bytes> {
        if let Some(epoch) = self.gone.take() {
            return Some(Cells { epoch, symbols: 0, from: 0, cells: Vec::new() }.frame());
        }
        if let Some(sketch) = self.sketch.as_mut().filter(|sketch| !sketch.due.is_empty()) {
            let from = sketch.due.start;
            let to = sketch.due.end.min(from + Cells::PER_FRAME);
            sketch.due.start = to;
            let cells = (from..to).map(|index| sketch.frozen.cell(index)).collect();
            return Some(Cells { epoch: sketch.epoch, symbols: sketch.frozen.symbols(), from, cells }.frame());
        }
        let (subject, _) = *self.ranges.front()?;
        let sets = sets(subject);
        let mut answers = Vec::new();
        while answers.len() < Shares::PER_FRAME
            && let Some((_, range)) = self.ranges.front().filter(|(other, _)| *other == subject)
        {
            answers.push((*range, answer(&sets, range)));
            self.ranges.pop_front();
        }
        Some(Shares { subject, answers }.frame())
    }
}

#[cfg(test)]
mod tests;
