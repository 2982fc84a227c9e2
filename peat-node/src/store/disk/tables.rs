//! What the tables hold, read and written.

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, Op, Record, StoreFault};
use peat_proto::{Boot, DocId, PeerId};
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

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

/// The documents as they were when it was opened. It keeps what it sees from being overwritten, so it is dropped before the
/// next commit; until then it spares each load the opening of the tables, half of what a small document takes to load.
pub(super) struct Reader {
    documents: ReadOnlyTable<&'static [u8], &'static [u8]>,
    chunks: ReadOnlyTable<(&'static [u8], u32), &'static [u8]>,
}

impl Reader {
    pub(super) fn open(db: &Database) -> Result<Self, Failure> {
        let transaction = db.begin_read()?;
        Ok(Self { documents: transaction.open_table(DOCUMENTS)?, chunks: transaction.open_table(CHUNKS)? })
    }

    pub(super) fn load(&self, doc: &DocId) -> Result<Vec<Bytes>, Failure> {
        let key = doc.as_str().as_bytes();
        let expected = count(&self.documents, key)?;
        let mut chunks = Vec::new();
        let all = (key, 0)..=(key, u32::MAX);
        for row in self.chunks.range(all)? {
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
                self.clear(doc)?;
                self.put(doc, 0, record, chunk)
            }
            Op::Bury { doc, record } if record.chunks == 0 => {
                self.clear(doc)?;
                self.documents.insert(doc.as_str().as_bytes(), record.encode().as_slice())?;
                Ok(())
            }
            Op::Bury { .. } => Err(StoreFault::Damaged.into()),
            Op::Remove { doc } => {
                self.clear(doc)?;
                self.documents.remove(doc.as_str().as_bytes())?;
                Ok(())
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

    /// Removes all chunks of a document.
    fn clear(&mut self, doc: &DocId) -> Result<(), Failure> {
        let key = doc.as_str().as_bytes();
        let all = (key, 0)..=(key, u32::MAX);
        Ok(self.chunks.retain_in(all, |_, _| false)?)
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

#[cfg(test)]
mod tests {
    use peat_proto::BadDocId;
    use peat_proto::store::BadRecord;
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A store with these rows behind its back.
    fn store(documents: &[(&[u8], &[u8])], chunks: &[(&[u8], u32)], meta: &[(&str, &[u8])]) -> Database {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).expect("creates");
        write(&db, &[], &Meta::default()).expect("writes");
        let transaction = db.begin_write().expect("begins");
        {
            let mut tables = Tables::open(&transaction).expect("opens");
            for (key, record) in documents {
                tables.documents.insert(*key, *record).expect("inserts");
            }
            for at in chunks {
                tables.chunks.insert(*at, b"x".as_slice()).expect("inserts");
            }
            let mut table = transaction.open_table(META).expect("opens");
            for (name, value) in meta {
                table.insert(name.as_bytes(), *value).expect("inserts");
            }
        }
        transaction.commit().expect("commits");
        db
    }

    fn content<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> OpenFault {
        match outcome {
            Err(Failure::Content(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    fn record(chunks: u32) -> Vec<u8> {
        Record::automerge(peat_proto::Heads::default(), 1, chunks).encode()
    }

    #[test]
    fn a_damaged_entry_is_named_and_not_skipped() {
        let doc = |name| DocId::new(name).expect("valid");
        let good = record(1);
        let cases: [(&[u8], &[u8], OpenFault); 3] = [
            (b"a:2", &good[..9], OpenFault::Record { doc: doc("a:2"), why: BadRecord::Short }),
            (b"no colon", &good, OpenFault::Key { key: "no colon".to_owned(), why: BadDocId::NoColon }),
            (b"a:\xff", &good, OpenFault::Utf8 { key: "a:\u{fffd}".to_owned() }),
        ];
        for (key, record, fault) in cases {
            let db = store(&[(b"a:1", &good), (key, record)], &[], &[]);
            assert_eq!(content(entries(&db)), fault);
        }
    }

    #[test]
    fn chunks_that_are_not_those_of_the_record_are_damage() {
        let doc = DocId::new("a:1").expect("valid");
        let load = |db: &Database| Reader::open(db).and_then(|reader| reader.load(&doc));
        let cases: [(u32, &[u32], StoreFault); 5] = [
            (2, &[0], StoreFault::Damaged),
            (1, &[0, 1], StoreFault::Damaged),
            (2, &[0, 2], StoreFault::Damaged),
            (1, &[1], StoreFault::Damaged),
            (2, &[], StoreFault::Missing),
        ];
        for (counted, indices, fault) in cases {
            let chunks: Vec<_> = indices.iter().map(|n| (&b"a:1"[..], *n)).collect();
            let db = store(&[(b"a:1", &record(counted))], &chunks, &[]);
            assert_eq!(content(load(&db)), fault.into(), "{indices:?}");
        }
        let orphan = store(&[], &[(b"a:1", 0)], &[]);
        assert_eq!(content(load(&orphan)), StoreFault::Damaged.into());
    }

    #[test]
    fn a_store_of_another_format_or_with_damaged_fields_is_refused() {
        let cases: [(&str, &[u8], OpenFault); 5] = [
            ("format", &[0, 0, 0, 2], OpenFault::Version { found: 2 }),
            ("format", &[1], OpenFault::Meta("format")),
            ("commits", &[0; 7], OpenFault::Meta("commits")),
            ("boot", &[0; 25], OpenFault::Meta("boot")),
            ("closed", &[], OpenFault::Meta("closed")),
        ];
        for (name, value, fault) in cases {
            let db = store(&[], &[], &[(name, value)]);
            assert_eq!(content(Meta::read(&db)), fault);
        }
    }

    #[test]
    fn what_the_store_knows_about_itself_reads_back() {
        let meta =
            Meta { boot: Some(Boot { store: [7; 16], number: u64::MAX - 1 }), closed: Some([9; 16]), commits: 1 << 40 };
        let db = store(&[], &[], &[]);
        write(&db, &[], &meta).expect("writes");
        assert_eq!(Meta::read(&db).expect("reads"), Some(meta));
    }
}
