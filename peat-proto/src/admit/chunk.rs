//! Chunks: saved documents and changes.

use std::collections::BTreeSet;

use super::Admitted;
use super::column::{Bounds, Column, Kind, Totals};
use super::history::History;
use super::reader::{Inflater, Reader};
use crate::config::AdmitLimits;
use crate::io::Refusal;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHECKSUM: usize = 4;
const HASH: usize = 32;

/// More than four times what Automerge writes (16), so that a later version may add some.
const MAX_COLUMNS: usize = 64;
/// Bytes of an actor; Automerge draws 16.
const MAX_ACTOR: usize = 256;

/// The rows of change and operation tables are counted on one column of each, which must be there for every row.
const CHANGE_ACTOR: (u64, Kind) = (0, Kind::Actor);
const OPERATION_ACTOR: (u64, Kind) = (2, Kind::Actor);
const OPERATION_ACTION: (u64, Kind) = (4, Kind::Integer);

/// A walk over chunks.
pub(super) struct Walk<'a> {
    inflater: Inflater,
    tally: Tally<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(limits: &'a AdmitLimits) -> Self {
        Self {
            inflater: Inflater::new(limits.expanded),
            tally: Tally { limits, changes: 0, operations: 0, text: 0, chunks: 0, actors: BTreeSet::new() },
        }
    }

    pub(super) fn admitted(&self) -> Admitted {
        Admitted {
            changes: self.tally.changes,
            operations: self.tally.operations,
            actors: self.tally.actors.len() as u64,
            expanded: self.inflater.expanded(),
            text: self.tally.text,
            chunks: self.tally.chunks,
        }
    }

    /// Walks the first chunk of `bytes` and returns those behind it.
    pub(super) fn chunk<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Refusal> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Refusal::Invalid)?;
        let rest = rest.get(CHECKSUM..).ok_or(Refusal::Invalid)?;
        let (&kind, mut rest) = rest.split_first().ok_or(Refusal::Invalid)?;
        let body = take_prefixed(&mut rest)?;
        match kind {
            0 => self.document(body)?,
            1 => {
                self.inflater.spend(body.len())?;
                self.tally.change(Reader::plain(body))?;
            }
            2 => self.tally.change(Reader::deflated(body, &mut self.inflater))?,
            _ => return Err(Refusal::Invalid),
        }
        self.tally.chunks += 1;
        Ok(rest)
    }

    fn document(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let mut reader = Reader::plain(body);
        let actors = self.tally.actor_table(&mut reader)?;
        let heads = skip_hashes(&mut reader)?;
        let change_columns = columns(&mut reader)?;
        let operation_columns = columns(&mut reader)?;

        let mut history = History::default();
        let mut bounds = Bounds {
            rows: self.tally.changes_left(),
            copies: u64::MAX,
            history: Some(&mut history),
            ..self.tally.bounds(actors)
        };
        let table = self.table(&mut reader, &change_columns, &mut bounds)?;
        let changes = table.rows(CHANGE_ACTOR)?;
        self.tally.changes += changes;
        self.tally.text += table.text();

        let mut bounds = Bounds { copies: changes, ..self.tally.bounds(actors) };
        let table = self.table(&mut reader, &operation_columns, &mut bounds)?;
        let operations = self.tally.add_operations(&table, OPERATION_ACTOR)?;
        if history.operations(changes)? > operations.total() {
            return Err(Refusal::Invalid);
        }

        // The positions of the heads, which older versions leave out.
        if !reader.is_at_end()? {
            for _ in 0..heads {
                reader.uleb()?;
            }
        }
        reader.finish()
    }

    /// Walks the columns of a saved document's table, whose data are next in `reader`.
    fn table(
        &mut self,
        reader: &mut Reader<'_>,
        columns: &[Column],
        bounds: &mut Bounds<'_>,
    ) -> Result<Table, Refusal> {
        let mut table = Table::default();
        for &column in columns {
            let bytes = reader.take(column.len)?;
            let mut data = if column.deflated {
                Reader::deflated(bytes, &mut self.inflater)
            } else {
                self.inflater.spend(bytes.len())?;
                Reader::plain(bytes)
            };
            let totals = column.walk(&mut data, bounds)?;
            data.finish()?;
            table.push(column, totals);
        }
        Ok(table)
    }
}

/// What a walk has counted.
struct Tally<'a> {
    limits: &'a AdmitLimits,
    changes: u64,
    operations: u64,
    text: u64,
    chunks: usize,
    /// Digests of the actors seen.
    actors: BTreeSet<[u8; 16]>,
}

impl Tally<'_> {
    fn change(&mut self, mut reader: Reader<'_>) -> Result<(), Refusal> {
        skip_hashes(&mut reader)?;
        self.actor(&mut reader)?;
        let _seq = reader.uleb()?;
        let first_operation = reader.uleb()?;
        let _time = reader.sleb()?;
        let message = reader.length()?;
        reader.skip(message)?;
        let actors = 1 + self.actor_table(&mut reader)?;
        let columns = columns(&mut reader)?;
        if columns.iter().any(|column| column.deflated) {
            return Err(Refusal::Invalid);
        }

        let mut bounds = self.bounds(actors);
        let mut table = Table::default();
        for column in columns {
            let totals = reader.window(column.len, |reader| column.walk(reader, &mut bounds))?;
            table.push(column, totals);
        }
        let rows = self.add_operations(&table, OPERATION_ACTION)?.rows;
        // Automerge numbers operations in 32 bits, from 1.
        let end = first_operation.checked_add(rows).ok_or(Refusal::Invalid)?;
        if first_operation == 0 || end > u64::from(u32::MAX) {
            return Err(Refusal::Invalid);
        }
        if self.changes_left() == 0 {
            return Err(Refusal::TooLarge);
        }
        self.changes += 1;
        // What stands behind the columns belongs to the change, whatever it is.
        reader.skip_rest()?;
        reader.finish()
    }

    /// Reads a table of actors; returns its length.
    fn actor_table(&mut self, reader: &mut Reader<'_>) -> Result<u64, Refusal> {
        let count = reader.length()?;
        if count > reader.left() {
            return Err(Refusal::Invalid);
        }
        if count as u64 > self.limits.actors {
            return Err(Refusal::TooLarge);
        }
        for _ in 0..count {
            self.actor(reader)?;
        }
        Ok(count as u64)
    }

    fn actor(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let len = reader.length()?;
        let mut buffer = [0; MAX_ACTOR];
        let actor = buffer.get_mut(..len).ok_or(Refusal::Invalid)?;
        reader.read(actor)?;
        let mut digest = [0; 16];
        blake3::Hasher::new().update(actor).finalize_xof().fill(&mut digest);
        self.actors.insert(digest);
        if self.actors.len() as u64 > self.limits.actors {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    /// Counts a table of operations and its text.
    fn add_operations(&mut self, table: &Table, key: (u64, Kind)) -> Result<Operations, Refusal> {
        let operations = Operations { rows: table.rows(key)?, links: table.links() };
        self.text += table.text();
        self.operations = self.operations.saturating_add(operations.total());
        if self.operations > self.limits.operations {
            return Err(Refusal::TooLarge);
        }
        Ok(operations)
    }

    fn changes_left(&self) -> u64 {
        self.limits.changes.saturating_sub(self.changes)
    }

    /// What the operations of one change may come to.
    fn bounds(&self, actors: u64) -> Bounds<'static> {
        let operations = self.limits.operations.saturating_sub(self.operations);
        Bounds {
            rows: operations,
            links: operations,
            actors,
            copies: 1,
            text: (self.limits.expanded as u64).saturating_sub(self.text),
            history: None,
        }
    }
}

/// The size of a table of operations.
struct Operations {
    rows: u64,
    links: u64,
}

impl Operations {
    fn total(&self) -> u64 {
        self.rows.saturating_add(self.links)
    }
}

/// The columns of one table after their walk.
#[derive(Default)]
struct Table(Vec<(Column, Totals)>);

impl Table {
    fn push(&mut self, column: Column, totals: Totals) {
        self.0.push((column, totals));
    }

    fn find(&self, id: u64, kind: Kind) -> Option<&Totals> {
        self.0.iter().find(|(column, _)| column.id == id && column.kind == kind).map(|(_, totals)| totals)
    }

    /// Counts the rows on the column `key`, and checks that no other column contradicts.
    fn rows(&self, (id, kind): (u64, Kind)) -> Result<u64, Refusal> {
        let rows = self.find(id, kind).map_or(0, |totals| totals.items);
        let fits = self.0.iter().all(|(column, totals)| {
            let group = self.find(column.id, Kind::Group);
            match (column.kind, group) {
                (Kind::Value, _) => self.find(column.id, Kind::ValueMeta).is_some_and(|meta| meta.sum <= totals.items),
                (Kind::ValueMeta, None) => {
                    let bytes = self.find(column.id, Kind::Value);
                    totals.items <= rows && totals.sum <= bytes.map_or(0, |bytes| bytes.items)
                }
                (Kind::Group, _) | (_, None) => totals.items <= rows,
                (_, Some(group)) => totals.items == group.sum,
            }
        });
        if fits { Ok(rows) } else { Err(Refusal::Invalid) }
    }

    /// Values in groups.
    fn links(&self) -> u64 {
        self.sum(Kind::Group)
    }

    /// Bytes of text, copies included.
    fn text(&self) -> u64 {
        self.sum(Kind::Text)
    }

    fn sum(&self, kind: Kind) -> u64 {
        self.0
            .iter()
            .filter(|(column, _)| column.kind == kind)
            .fold(0, |sum, (_, totals)| sum.saturating_add(totals.sum))
    }
}

/// Reads a table of columns: specifications and lengths, in ascending order.
fn columns(reader: &mut Reader<'_>) -> Result<Vec<Column>, Refusal> {
    let count = reader.length()?;
    if count > MAX_COLUMNS {
        return Err(Refusal::Invalid);
    }
    let mut columns: Vec<Column> = Vec::with_capacity(count);
    for _ in 0..count {
        let specification = u32::try_from(reader.uleb()?).map_err(|_| Refusal::Invalid)?;
        let column = Column::new(specification.into(), reader.length()?);
        if columns.last().is_some_and(|last| last.rank() >= column.rank()) {
            return Err(Refusal::Invalid);
        }
        columns.push(column);
    }
    Ok(columns)
}

/// Skips a list of hashes; returns its length.
fn skip_hashes(reader: &mut Reader<'_>) -> Result<usize, Refusal> {
    let count = reader.length()?;
    reader.skip(count.checked_mul(HASH).ok_or(Refusal::Invalid)?)?;
    Ok(count)
}

/// Splits off bytes that their length precedes.
fn take_prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let mut reader = Reader::plain(rest);
    let len = reader.length()?;
    let bytes = reader.take(len)?;
    *rest = reader.rest();
    Ok(bytes)
}
