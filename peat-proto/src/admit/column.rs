//! Columns: runs of values, and what they add up to.

use super::history::History;
use super::reader::Reader;
use crate::io::Refusal;

/// What the values of a column are; the low three bits of its specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// How many values of the columns of the same id belong to each row.
    Group,
    Actor,
    Integer,
    Delta,
    Boolean,
    Text,
    /// Type and length of each row's bytes in the [`Kind::Value`] column of the same id.
    ValueMeta,
    Value,
}

/// One entry of a column table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) deflated: bool,
    /// Bytes as stored.
    pub(super) len: usize,
}

impl Column {
    const DEFLATED: u64 = 0b1000;

    pub(super) fn new(specification: u64, len: usize) -> Self {
        let kind = match specification & 0b111 {
            0 => Kind::Group,
            1 => Kind::Actor,
            2 => Kind::Integer,
            3 => Kind::Delta,
            4 => Kind::Boolean,
            5 => Kind::Text,
            6 => Kind::ValueMeta,
            _ => Kind::Value,
        };
        Self { id: specification >> 4, kind, deflated: specification & Self::DEFLATED != 0, len }
    }

    /// Columns of a table are in this order.
    pub(super) fn rank(&self) -> (u64, u8) {
        (self.id, self.kind as u8)
    }

    /// Reads the column to its end.
    pub(super) fn walk(&self, reader: &mut Reader<'_>, bounds: &mut Bounds<'_>) -> Result<Totals, Refusal> {
        let mut totals = Totals::default();
        match self.kind {
            Kind::Group => runs(reader, Reader::uleb, |value, count| {
                let value = value.ok_or(Refusal::Invalid)?;
                totals.add_items(count, bounds.rows)?;
                totals.add_sum(value, count, bounds.links)?;
                match &mut bounds.history {
                    Some(history) if self.id == History::DEPS => history.dep_counts(value, count),
                    _ => Ok(()),
                }
            })?,
            Kind::Actor => runs(reader, Reader::uleb, |value, count| {
                let in_table = value.map_or(bounds.history.is_none(), |actor| actor < bounds.actors);
                if !in_table {
                    return Err(Refusal::Invalid);
                }
                totals.add_items(count, bounds.items())
            })?,
            Kind::Integer => runs(reader, Reader::uleb, |_, count| totals.add_items(count, bounds.items()))?,
            Kind::Delta => self.walk_deltas(reader, bounds, &mut totals)?,
            Kind::Boolean => {
                // Runs of false and true take turns; only the first, of false, may be empty.
                if !reader.is_at_end()? {
                    totals.add_items(reader.uleb()?, bounds.rows)?;
                }
                while !reader.is_at_end()? {
                    match reader.uleb()? {
                        0 => return Err(Refusal::Invalid),
                        count => totals.add_items(count, bounds.rows)?,
                    }
                }
            }
            Kind::Text => runs(reader, skip_text, |len, count| {
                totals.add_items(count, bounds.items())?;
                let copies = count.min(bounds.copies);
                totals.add_sum(len.unwrap_or(0), copies, bounds.text)
            })?,
            Kind::ValueMeta => runs(reader, Reader::uleb, |value, count| {
                totals.add_items(count, bounds.items())?;
                totals.add_sum(value.ok_or(Refusal::Invalid)? >> 4, count, u64::MAX)
            })?,
            Kind::Value => totals.items = reader.skip_rest()?,
        }
        Ok(totals)
    }

    /// Differences between successive numbers. All but timestamps count operations or changes, in 32 bits.
    fn walk_deltas(
        &self,
        reader: &mut Reader<'_>,
        bounds: &mut Bounds<'_>,
        totals: &mut Totals,
    ) -> Result<(), Refusal> {
        let is_time = bounds.history.is_some() && self.id == History::TIME;
        let mut last = 0_i64;
        runs(reader, Reader::sleb, |step, count| {
            totals.add_items(count, bounds.items())?;
            let step = match step {
                // Automerge panics at a null in the table of changes.
                None if bounds.history.is_some() => return Err(Refusal::Invalid),
                Some(step) if !is_time => step,
                _ => return Ok(()),
            };
            let end = i64::try_from(count)
                .ok()
                .and_then(|count| step.checked_mul(count))
                .and_then(|distance| last.checked_add(distance))
                .ok_or(Refusal::Invalid)?;
            let first = last.checked_add(step).ok_or(Refusal::Invalid)?;
            if u32::try_from(first).is_err() || u32::try_from(end).is_err() {
                return Err(Refusal::Invalid);
            }
            last = end;
            match &mut bounds.history {
                Some(history) => history.numbers(self.id, first, step, count),
                None => Ok(()),
            }
        })
    }
}

/// What a column's values may come to.
pub(super) struct Bounds<'a> {
    /// Most rows.
    pub(super) rows: u64,
    /// Most values of the columns in a group.
    pub(super) links: u64,
    /// Size of the table that actor columns index.
    pub(super) actors: u64,
    /// How often Automerge may copy a text that stands in one run: once per change.
    pub(super) copies: u64,
    /// Most bytes of text, copies included.
    pub(super) text: u64,
    /// Where to keep the change columns of a saved document.
    pub(super) history: Option<&'a mut History>,
}

impl Bounds<'_> {
    /// Most items of a column that may or may not be in a group.
    fn items(&self) -> u64 {
        self.rows.max(self.links)
    }
}

/// What a column's values come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    /// Values, nulls included; bytes of a [`Kind::Value`] column.
    pub(super) items: u64,
    /// Sum of group sizes or of value lengths; bytes of text.
    pub(super) sum: u64,
}

impl Totals {
    fn add_items(&mut self, count: u64, limit: u64) -> Result<(), Refusal> {
        self.items = self.items.saturating_add(count);
        if self.items > limit {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn add_sum(&mut self, value: u64, count: u64, limit: u64) -> Result<(), Refusal> {
        self.sum = self.sum.saturating_add(value.saturating_mul(count));
        if self.sum > limit {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }
}

/// Reads run-length encoded values; `sink` gets each with its count, `None` for nulls.
fn runs<'a, T>(
    reader: &mut Reader<'a>,
    mut value: impl FnMut(&mut Reader<'a>) -> Result<T, Refusal>,
    mut sink: impl FnMut(Option<T>, u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    while !reader.is_at_end()? {
        let count = reader.sleb()?;
        match count {
            0 => match reader.uleb()? {
                0 => return Err(Refusal::Invalid),
                nulls => sink(None, nulls)?,
            },
            1.. => {
                let value = value(reader)?;
                sink(Some(value), count.unsigned_abs())?;
            }
            // Automerge negates the count.
            i64::MIN => return Err(Refusal::Invalid),
            _ => {
                for _ in 0..count.unsigned_abs() {
                    let value = value(reader)?;
                    sink(Some(value), 1)?;
                }
            }
        }
    }
    Ok(())
}

fn skip_text(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    let len = reader.length()?;
    reader.skip(len)?;
    Ok(len as u64)
}
