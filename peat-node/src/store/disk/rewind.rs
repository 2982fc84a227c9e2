//! The file below redb, with a way back to its last durable state.
//!
//! redb refuses all work after the first I/O error and wants to be opened anew. Its file is copy-on-write: a commit
//! writes into free pages, and only the header at the start of the file says which pages count. So the header of the last
//! successful sync names a whole and durable state for as long as no later sync succeeds, and writing it back undoes a
//! commit of which nobody can say how much reached the disk. Trusting the newer header instead would be wrong even if it
//! reads well: after a failed fsync, Linux keeps pages in its cache as clean that the disk never got.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// The header is the first 320 bytes; redb never shares a page of 4 KiB between it and data.
const PAGE: usize = 4096;

/// redb owns its backend and closes it with the database; this one is shared, to be opened again.
#[derive(Debug, Clone)]
pub(super) struct Rewind(Arc<Disk>);

#[derive(Debug)]
struct Disk {
    below: Box<dyn StorageBackend>,
    header: Mutex<Header>,
}

/// The first page, as far as it was ever written.
#[derive(Debug)]
struct Header {
    written: Vec<u8>,
    synced: Vec<u8>,
}

impl Rewind {
    pub(super) fn new(below: impl StorageBackend) -> io::Result<Self> {
        let len = usize::try_from(below.len()?).unwrap_or(PAGE).min(PAGE);
        let mut synced = vec![0; len];
        below.read(0, &mut synced)?;
        let header = Header { written: synced.clone(), synced };
        Ok(Self(Arc::new(Disk { below: Box::new(below), header: Mutex::new(header) })))
    }

    /// Makes the state of the last successful sync the state of the file, durably. The database must be closed.
    pub(super) fn rewind(&self) -> io::Result<()> {
        let mut header = self.header();
        if header.synced.is_empty() {
            self.0.below.set_len(0)?;
        } else {
            self.0.below.write(0, &header.synced)?;
        }
        self.0.below.sync_data()?;
        header.written = header.synced.clone();
        Ok(())
    }

    fn header(&self) -> MutexGuard<'_, Header> {
        // Both pages are replaced whole, so a panic elsewhere leaves nothing half done.
        self.0.header.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Rewind {
    fn len(&self) -> io::Result<u64> {
        self.0.below.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.below.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.below.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.below.sync_data()?;
        let mut header = self.header();
        header.synced = header.written.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.below.write(offset, data)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start < PAGE {
            let end = start.saturating_add(data.len()).min(PAGE);
            let mut header = self.header();
            let len = header.written.len().max(end);
            header.written.resize(len, 0);
            if let Some(place) = header.written.get_mut(start..end) {
                place.copy_from_slice(&data[..end - start]);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.below.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.below.unlock_range(start, end)
    }
}

/// The last durable state for reading while the disk accepts no writes. What redb writes in order to open it stays in
/// memory: the header, and a few pages when it closes.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Rewind,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    pub(super) fn new(below: Rewind) -> io::Result<Self> {
        let overlay = Self { above: Mutex::new(Above { len: below.len()?, pages: BTreeMap::new() }), below };
        let header = overlay.below.header().synced.clone();
        overlay.write(0, &header)?;
        Ok(overlay)
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as it is below; zeros where the file has ended.
    fn page_below(&self, page: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut bytes = Box::new([0; PAGE]);
        let start = page.saturating_mul(PAGE as u64);
        let rest = self.below.len()?.saturating_sub(start);
        let len = usize::try_from(rest).unwrap_or(PAGE).min(PAGE);
        self.below.read(start, &mut bytes[..len])?;
        Ok(bytes)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > above.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, part) in pages(offset, out.len()) {
            let out = &mut out[part];
            match above.pages.get(&page) {
                Some(bytes) => out.copy_from_slice(&bytes[within]),
                None => out.copy_from_slice(&self.page_below(page)?[within]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.above().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        for (page, within, part) in pages(offset, data.len()) {
            let mut bytes = match above.pages.remove(&page) {
                Some(bytes) => bytes,
                None => self.page_below(page)?,
            };
            bytes[within].copy_from_slice(&data[part]);
            above.pages.insert(page, bytes);
        }
        above.len = above.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

/// Cuts `len` bytes at `offset` into pages: the page, the range within it, the range of the bytes.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let take = (PAGE - start).min(len - done);
        let part = done..done + take;
        done += take;
        Some((at / PAGE as u64, start..start + take, part))
    })
}
