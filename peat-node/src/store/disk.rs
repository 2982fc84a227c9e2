//! The store on disk: one redb file.
//!
//! | table       | key                      | value                                                       |
//! |-------------|--------------------------|-------------------------------------------------------------|
//! | `documents` | document name            | bytes of its [`Record`](peat_proto::store::Record)          |
//! | `chunks`    | document name, index u32 | Automerge bytes                                             |
//! | `peers`     | 32-byte peer id          | nothing                                                     |
//! | `meta`      | name                     | `format`, `commits`, `boot`, `closed`: see the type `Meta`  |
//!
//! A commit costs one fsync. After any I/O error redb wants its file opened anew; the store does that by itself, so that
//! writes work again as soon as the disk does, and reads go on meanwhile from the last durable state.

mod rewind;
mod tables;

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use peat_proto::store::{Batch, Entry, StoreFault};
use peat_proto::{Boot, DocId};
use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use self::rewind::{Overlay, Rewind};
pub(crate) use self::tables::Meta;
use self::tables::{Failure, Reader};
use super::{OpenFault, Store};

/// The format of the tables. A store of another format is refused.
pub const FORMAT: u32 = 1;

/// Bytes of pages that redb keeps in memory. Small, because the core has a cache of documents above this one.
const CACHE: usize = 16 << 20;

/// Keeps everything in one file.
pub struct DiskStore {
    disk: Rewind,
    state: State,
    /// Of the state; none after a commit.
    reader: Option<Reader>,
    meta: Meta,
    /// Written as [`Meta::closed`] by a clean close.
    mark: Option<[u8; 16]>,
}

enum State {
    Open(Database),
    /// The disk accepts no writes. Reads see the last durable state.
    ReadOnly(Database),
    /// The disk allows no reads either.
    Down,
}

impl DiskStore {
    /// Opens the store in this file.
    ///
    /// # Errors
    /// [`StoreFault::Missing`] if there is no such file or it is empty; [`OpenFault`] if it is not a store of this
    /// version or cannot be read.
    pub fn open(path: &Path) -> Result<Self, OpenFault> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreFault::Missing,
            _ => fault(&error.into()),
        })?;
        if file.metadata().map_err(|error| fault(&error.into()))?.len() == 0 {
            return Err(StoreFault::Missing.into());
        }
        let backend = FileBackend::new(file).map_err(|error| fault(&error.into()))?;
        Self::with_backend(backend)
    }

    /// Creates a store in a new file.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, OpenFault> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|error| fault(&error.into()))?;
        let backend = FileBackend::new(file).map_err(|error| fault(&error.into()))?;
        Self::with_backend(backend)
    }

    /// Opens the store on these bytes, or creates one if there are none.
    ///
    /// After a fault the backend is closed and used again: its `close` must release locks and nothing else.
    ///
    /// # Errors
    /// [`OpenFault`] if the bytes are not a store of this version or cannot be read.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, OpenFault> {
        let disk = Rewind::new(backend).map_err(|error| fault(&error.into()))?;
        let state = State::Open(database(disk.clone())?);
        let mut store = Self { disk, state, reader: None, meta: Meta::default(), mark: None };
        match store.read(Meta::read)? {
            Some(meta) => store.meta = meta,
            None => store.commit(&[], Meta::default())?,
        }
        Ok(store)
    }

    /// What the store knows about itself.
    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    /// Makes this boot durable. A clean close will leave `mark` in [`Meta::closed`].
    pub(crate) fn begin(&mut self, boot: Boot, mark: [u8; 16]) -> Result<(), StoreFault> {
        self.mark = Some(mark);
        if self.meta.boot == Some(boot) {
            return Ok(());
        }
        let boot = Some(boot);
        self.commit(&[], Meta { boot, ..self.meta })
    }

    /// One transaction, whose outcome is known when this returns.
    fn commit(&mut self, batches: &[Batch], meta: Meta) -> Result<(), StoreFault> {
        self.reader = None;
        if !matches!(self.state, State::Open(_)) {
            self.reopen()?;
        }
        let State::Open(db) = &self.state else {
            return Err(StoreFault::Io);
        };
        let meta = meta.next();
        match guarded(|| tables::write(db, batches, &meta)) {
            Ok(()) => {}
            Err(Failure::Content(fault)) => return Err(fault.into()),
            Err(Failure::File(error)) => {
                let fault = fault(&error);
                // Both outcomes are of use: a file that can be written again, and one that can be read.
                let _ = self.reopen();
                // redb also fails when it cannot shorten the file *after* a commit.
                if self.read(Meta::read) != Ok(Some(meta)) {
                    return Err(fault);
                }
            }
        }
        self.meta = meta;
        Ok(())
    }

    /// Runs `f` on the open file; after an I/O error once more, on the file opened anew.
    fn read<T>(&mut self, f: impl Fn(&Database) -> Result<T, Failure>) -> Result<T, OpenFault> {
        match self.state.readable().map(|db| guarded(|| f(db))) {
            None => {}
            Some(Err(Failure::File(error))) if !matches!(error, redb::Error::Corrupted(_)) => {
                fault(&error);
            }
            Some(outcome) => return Ok(outcome?),
        }
        let reopened = self.reopen();
        match self.state.readable() {
            Some(db) => Ok(guarded(|| f(db))?),
            None => Err(reopened.err().unwrap_or(StoreFault::Io).into()),
        }
    }

    /// Drops the database, which may write.
    fn shut(&mut self) {
        self.reader = None;
        let state = std::mem::replace(&mut self.state, State::Down);
        let _ = guarded(|| {
            drop(state);
            Ok(())
        });
    }

    /// Goes back to the last durable state and opens it, for reading only if need be.
    fn reopen(&mut self) -> Result<(), StoreFault> {
        if let State::Open(_) = self.state {
            self.shut();
        }
        let rewound = self.disk.rewind().map_err(|error| fault(&error.into()));
        match rewound.and_then(|()| database(self.disk.clone())) {
            Ok(db) => {
                self.shut();
                self.state = State::Open(db);
                Ok(())
            }
            Err(fault) => {
                if let State::Down = self.state {
                    let overlay = Overlay::new(self.disk.clone()).ok();
                    if let Some(Ok(db)) = overlay.map(database) {
                        self.state = State::ReadOnly(db);
                    }
                }
                Err(fault)
            }
        }
    }
}

impl Store for DiskStore {
    fn entries(&mut self) -> Result<Vec<Entry>, OpenFault> {
        self.read(tables::entries)
    }

    fn load(&mut self, doc: &DocId) -> Result<Vec<Bytes>, StoreFault> {
        if let Some(reader) = &self.reader {
            match guarded(|| reader.load(doc)) {
                Err(Failure::File(_)) => self.reader = None,
                outcome => return Ok(outcome.map_err(OpenFault::from)?),
            }
        }
        let (reader, outcome) = self.read(|db| {
            let reader = Reader::open(db)?;
            match reader.load(doc) {
                Ok(chunks) => Ok((reader, Ok(chunks))),
                Err(Failure::Content(fault)) => Ok((reader, Err(fault))),
                Err(failure) => Err(failure),
            }
        })?;
        self.reader = Some(reader);
        Ok(outcome?)
    }

    fn apply(&mut self, batches: &[Batch]) -> Result<(), StoreFault> {
        self.commit(batches, self.meta)
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreFault> {
        let closed = self.mark;
        self.commit(&[], Meta { closed, ..self.meta })?;
        match std::mem::replace(&mut self.state, State::Down) {
            State::Open(db) => {
                let close = || db.close().map_err(|error| Failure::File(error.into()));
                Ok(guarded(close).map_err(OpenFault::from)?)
            }
            State::ReadOnly(_) | State::Down => Err(StoreFault::Io),
        }
    }
}

impl State {
    fn readable(&self) -> Option<&Database> {
        match self {
            Self::Open(db) | Self::ReadOnly(db) => Some(db),
            Self::Down => None,
        }
    }
}

impl From<Failure> for OpenFault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::File(error) => fault(&error).into(),
            Failure::Content(fault) => fault,
        }
    }
}

impl From<OpenFault> for StoreFault {
    fn from(fault: OpenFault) -> Self {
        match fault {
            OpenFault::Store(fault) => fault,
            _ => Self::Damaged,
        }
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Opens a database, creating it in an empty file.
fn database(backend: impl StorageBackend) -> Result<Database, StoreFault> {
    let open = || {
        redb::Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(backend)
            .map_err(|error| Failure::File(error.into()))
    };
    Ok(guarded(open).map_err(OpenFault::from)?)
}

/// redb may panic on a file that was altered behind its back. To Peat that is a damaged file like any other.
fn guarded<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
        let what = "redb panicked".to_owned();
        Err(Failure::File(redb::Error::Corrupted(what)))
    })
}

/// The core's word for this error; the log has redb's.
fn fault(error: &redb::Error) -> StoreFault {
    use io::ErrorKind::{InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
    tracing::warn!(%error, "the store's file failed");
    match error {
        redb::Error::Io(error) => match error.kind() {
            StorageFull | QuotaExceeded => StoreFault::Full,
            InvalidData | UnexpectedEof => StoreFault::Damaged,
            _ => StoreFault::Io,
        },
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => StoreFault::Damaged,
        redb::Error::ValueTooLarge(_) => StoreFault::Full,
        _ => StoreFault::Io,
    }
}
