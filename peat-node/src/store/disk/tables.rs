//! What the tables hold, read and written.

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, Op, Record, StoreFault};
use peat_proto::{Boot, DocId, PeerId};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::FORMAT;
use crate::store::OpenFault;

const DOCUMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("documents");
const CHUNKS: TableDefinition<'_, (&[u8], u32), &[u8]> = TableDefinition::new("chunks");
const PEERS: TableDefinition<'_, [u8; 32], ()> = TableDefinition::new("peers");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file failed; it may have to be opened anew.
    File(redb::Error),
    /// The file is well, and what it holds is not, or does not fit what was asked.
    Content(OpenFault),
}

/// What the store knows about itself, apart from its format. Integers are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// `boot`: the last boot, as 16 bytes of store instance and its number; absent before the first.
    pub(crate) boot: Option<Boot>,
    /// `closed`: 16 random bytes of the last clean close.
    pub(crate) closed: Option<[u8; 16]>,
    /// `commits`: how many there were; tells after a failed commit whether it took place.
    pub(super) commits: u64,
}

impl Meta {
    /// As it is after the next commit.
    pub(super) fn next(self) -> Self {
        Self { commits: self.commits.saturating_add(1), ..self }
    }

    /// `None` if the database is new.
    pub(super) fn read(db: &Database) -> Result<Option<Self>, Failure> {
        let transaction = db.begin_read()?;
        let table = match transaction.open_table(META) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => {
                return match transaction.list_tables()?.next() {
                    None => Ok(None),
                    Some(_) => Err(OpenFault::Meta("format").into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        match required(&table, "format").map(u32::from_be_bytes)? {
            FORMAT => {}
            found => return Err(OpenFault::Version { found }.into()),
        }
        Ok(Some(Self {
            boot: field(&table, "boot")?.map(decode_boot).transpose()?,
            closed: field(&table, "closed")?,
            commits: required(&table, "commits").map(u64::from_be_bytes)?,
        }))
    }

    fn write(&self, table: &mut Table<'_, &[u8], &[u8]>) -> Result<(), Failure> {
        let mut put = |name: &str, value: &[u8]| table.insert(name.as_bytes(), value).map(drop);
        put("format", &FORMAT.to_be_bytes())?;
        put("commits", &self.commits.to_be_bytes())?;
        if let Some(boot) = self.boot {
            put("boot", &[&boot.store[..], &boot.number.to_be_bytes()].concat())?;
        }
        if let Some(closed) = self.closed {
            put("closed", &closed)?;
        }
        Ok(())
    }
}

/// Makes a new database a store.
pub(super) fn create(db: &Database) -> Result<Meta, Failure> {
    let meta = Meta::default();
    write(db, &[], &meta)?;
    Ok(meta)
}

/// Writes all batches and `meta` in one durable transaction.
pub(super) fn write(db: &Database, batches: &[Batch], meta: &Meta) -> Result<(), Failure> {
    let transaction = db.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        for op in batches.iter().flat_map(|batch| &batch.ops) {
            tables.run(op)?;
        }
        meta.write(&mut transaction.open_table(META)?)?;
    }
    Ok(transaction.commit()?)
}

pub(super) fn entries(db: &Database) -> Result<Vec<Entry>, Failure> {
    let transaction = db.begin_read()?;
    let mut entries = Vec::new();
    for row in transaction.open_table(DOCUMENTS)?.iter()? {
        let (key, record) = row?;
        entries.push(decode_document(key.value(), record.value())?);
    }
    for row in transaction.open_table(PEERS)?.iter()? {
        entries.push(Entry::Peer(PeerId(row?.0.value())));
    }
    Ok(entries)
}

pub(super) fn load(db: &Database, doc: &DocId) -> Result<Vec<Bytes>, Failure> {
    let transaction = db.begin_read()?;
    let key = doc.as_str().as_bytes();
    let expected = count(&transaction.open_table(DOCUMENTS)?, key)?;
    let mut chunks = Vec::new();
    let all = (key, 0)..=(key, u32::MAX);
    for row in transaction.open_table(CHUNKS)?.range(all)? {
        let (at, chunk) = row?;
        if usize::try_from(at.value().1) != Ok(chunks.len()) {
            return Err(StoreFault::Damaged.into());
        }
        chunks.push(Bytes::copy_from_slice(chunk.value()));
    }
    if chunks.is_empty() {
        Err(StoreFault::Missing.into())
    } else if usize::try_from(expected) != Ok(chunks.len()) {
        Err(StoreFault::Damaged.into())
    } else {
        Ok(chunks)
    }
}

struct Tables<'t> {
    documents: Table<'t, &'static [u8], &'static [u8]>,
    chunks: Table<'t, (&'static [u8], u32), &'static [u8]>,
    peers: Table<'t, [u8; 32], ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        Ok(Self {
            documents: transaction.open_table(DOCUMENTS)?,
            chunks: transaction.open_table(CHUNKS)?,
            peers: transaction.open_table(PEERS)?,
        })
    }

    fn run(&mut self, op: &Op) -> Result<(), Failure> {
        match op {
            Op::Append { doc, record, chunk } => {
                let before = count(&self.documents, doc.as_str().as_bytes())?;
                self.put(doc, before, record, chunk)
            }
            Op::Replace { doc, record, chunk } => {
                let key = doc.as_str().as_bytes();
                let all = (key, 0)..=(key, u32::MAX);
                self.chunks.retain_in(all, |_, _| false)?;
                self.put(doc, 0, record, chunk)
            }
            Op::Admit { peer } => {
                self.peers.insert(peer.0, ())?;
                Ok(())
            }
            Op::Forget { peer } => {
                self.peers.remove(peer.0)?;
                Ok(())
            }
        }
    }

    /// Puts a chunk behind the `before` others.
    fn put(&mut self, doc: &DocId, before: u32, record: &Record, chunk: &[u8]) -> Result<(), Failure> {
        if before.checked_add(1) != Some(record.chunks) {
            return Err(StoreFault::Damaged.into());
        }
        let key = doc.as_str().as_bytes();
        self.chunks.insert((key, before), chunk)?;
        self.documents.insert(key, record.encode().as_slice())?;
        Ok(())
    }
}

/// How many chunks the document's record counts; none without a record.
fn count(documents: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<u32, Failure> {
    match documents.get(key)? {
        None => Ok(0),
        Some(record) => match Record::decode(record.value()) {
            Ok(record) => Ok(record.chunks),
            Err(_) => Err(StoreFault::Damaged.into()),
        },
    }
}

fn decode_document(key: &[u8], record: &[u8]) -> Result<Entry, OpenFault> {
    let name =
        std::str::from_utf8(key).map_err(|_| OpenFault::Utf8 { key: String::from_utf8_lossy(key).into_owned() })?;
    let doc = DocId::new(name).map_err(|why| OpenFault::Key { key: name.to_owned(), why })?;
    match Record::decode(record) {
        Ok(record) => Ok(Entry::Document { doc, record }),
        Err(why) => Err(OpenFault::Record { doc, why }),
    }
}

/// A field of [`Meta`]; an error if it has another length.
fn field<const N: usize>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &'static str,
) -> Result<Option<[u8; N]>, Failure> {
    match table.get(name.as_bytes())? {
        None => Ok(None),
        Some(bytes) => match bytes.value().try_into() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(OpenFault::Meta(name).into()),
        },
    }
}

fn required<const N: usize>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &'static str,
) -> Result<[u8; N], Failure> {
    field(table, name)?.ok_or_else(|| OpenFault::Meta(name).into())
}

fn decode_boot(bytes: [u8; 24]) -> Result<Boot, OpenFault> {
    let fault = || OpenFault::Meta("boot");
    let (store, number) = bytes.split_first_chunk().ok_or_else(fault)?;
    let number = number.try_into().map_err(|_| fault())?;
    Ok(Boot { store: *store, number: u64::from_be_bytes(number) })
}

impl From<OpenFault> for Failure {
    fn from(fault: OpenFault) -> Self {
        Self::Content(fault)
    }
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::Content(fault.into())
    }
}

macro_rules! file_failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::File(error.into())
            }
        })*
    };
}
file_failures!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);
