//! The address book: which peers this node wants, where they were last reached, and the invitations to
//! show them.
//!
//! It lives in the file `peers` of the data directory, replaced atomically, readable by its owner alone because it
//! holds secrets. What cannot be read is an error and is never taken for an empty book.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use data_encoding::HEXLOWER;
use peat_proto::{Invitation, PeerId};
use serde_json::{Value, json};

use crate::error::{OpenError, at};
use crate::file;

/// Most peers that are remembered; of those that are not wanted, the one longest unused gives way.
pub(crate) const MAX_PEERS: usize = 1024;
/// Most addresses of one peer; the one longest unused gives way.
pub(crate) const MAX_ADDRS: usize = 8;

/// 1,024 peers of at most 700 bytes, and room for whitespace.
const MAX_FILE: u64 = 1 << 20;
const FILE: &str = "peers";
const VERSION: u64 = 1;

#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    /// The most recently used first.
    peers: Vec<Known>,
    saver: Option<Saver>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    peer: PeerId,
    wanted: bool,
    invitation: Option<Invitation>,
    /// The most recently used first.
    addrs: Vec<SocketAddr>,
}

impl AddressBook {
    /// Reads the book of a data directory; a new one is empty.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let mut book = match File::open(&path) {
            Ok(file) => Self::read(file, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(at(&path)(error).into()),
        };
        book.saver = Some(Saver::start(path)?);
        Ok(book)
    }

    /// The peers to stay connected to, with the invitations to show them.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (PeerId, Option<Invitation>)> {
        let wanted = self.peers.iter().filter(|known| known.wanted);
        wanted.map(|known| (known.peer, known.invitation))
    }

    /// Where a peer was last known to listen, the most recent first.
    pub(crate) fn addrs(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let known = self.peers.iter().find(|known| known.peer == *peer);
        known.map_or_else(Vec::new, |known| known.addrs.clone())
    }

    /// Remembers to stay connected to a peer, and where its ticket says that it listens.
    pub(crate) fn want(&mut self, peer: PeerId, addrs: &[SocketAddr], invitation: Option<Invitation>) {
        self.update(peer, |known| {
            known.wanted = true;
            known.invitation = invitation.or(known.invitation);
            addrs.iter().rev().for_each(|addr| known.prefer(*addr));
        });
    }

    /// Takes back [`Self::want`], and keeps the addresses.
    pub(crate) fn unwant(&mut self, peer: PeerId) {
        if self.is_wanted(&peer) {
            self.update(peer, |known| {
                known.wanted = false;
                known.invitation = None;
            });
        }
    }

    pub(crate) fn is_wanted(&self, peer: &PeerId) -> bool {
        self.peers.iter().any(|known| known.peer == *peer && known.wanted)
    }

    /// Remembers where a ticket says that a peer listens.
    pub(crate) fn located(&mut self, peer: PeerId, addrs: &[SocketAddr]) {
        self.update(peer, |known| addrs.iter().rev().for_each(|addr| known.prefer(*addr)));
    }

    /// Remembers where a dialled peer answered.
    pub(crate) fn reached(&mut self, peer: PeerId, addr: SocketAddr) {
        self.update(peer, |known| known.prefer(addr));
    }

    /// Forgets everything about a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        let before = self.peers.len();
        self.peers.retain(|known| known.peer != *peer);
        if self.peers.len() < before {
            self.save();
        }
    }

    fn update(&mut self, peer: PeerId, change: impl FnOnce(&mut Known)) {
        let at = self.peers.iter().position(|known| known.peer == peer);
        let old = at.map(|at| self.peers.remove(at));
        let mut new = old.clone().unwrap_or(Known { peer, wanted: false, invitation: None, addrs: Vec::new() });
        change(&mut new);
        let changed = old.as_ref() != Some(&new);
        self.peers.insert(0, new);
        if self.peers.len() > MAX_PEERS {
            let unwanted = self.peers.iter().rposition(|known| !known.wanted);
            self.peers.remove(unwanted.unwrap_or(MAX_PEERS));
        }
        if changed {
            self.save();
        }
    }

    fn save(&self) {
        if let Some(saver) = &self.saver {
            saver.save(self.text());
        }
    }

    fn text(&self) -> String {
        let hex = |invitation: &Invitation| HEXLOWER.encode(&invitation.0);
        let peers = self.peers.iter().map(|known| {
            json!({
                "id": known.peer.to_string(),
                "wanted": known.wanted,
                "invitation": known.invitation.as_ref().map(hex),
                "addrs": known.addrs.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
            })
        });
        let book = json!({
            "version": VERSION,
            "peers": peers.collect::<Vec<_>>(),
        });
        format!("{book:#}\n")
    }

    fn read(file: File, path: &Path) -> Result<Self, OpenError> {
        let mut text = Vec::new();
        let read = file.take(MAX_FILE + 1).read_to_end(&mut text);
        read.map_err(at(path))?;
        if text.len() as u64 > MAX_FILE {
            return Err(OpenError::Damaged(FILE));
        }
        Self::parse(&text).ok_or(OpenError::Damaged(FILE))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let book: Value = serde_json::from_slice(text).ok()?;
        if book.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let peers = book.get("peers")?.as_array()?;
        if peers.len() > MAX_PEERS {
            return None;
        }
        Some(Self { peers: peers.iter().map(Known::parse).collect::<Option<_>>()?, saver: None })
    }
}

impl Known {
    fn prefer(&mut self, addr: SocketAddr) {
        self.addrs.retain(|old| *old != addr);
        self.addrs.insert(0, addr);
        self.addrs.truncate(MAX_ADDRS);
    }

    fn parse(entry: &Value) -> Option<Self> {
        let addrs = entry.get("addrs")?.as_array()?;
        if addrs.len() > MAX_ADDRS {
            return None;
        }
        let invitation = match entry.get("invitation")? {
            Value::Null => None,
            secret => Some(parse_invitation(secret)?),
        };
        let addrs = addrs.iter().map(|addr| addr.as_str()?.parse().ok());
        Some(Self {
            peer: PeerId::from_hex(entry.get("id")?.as_str()?)?,
            wanted: entry.get("wanted")?.as_bool()?,
            invitation,
            addrs: addrs.collect::<Option<_>>()?,
        })
    }
}

fn parse_invitation(value: &Value) -> Option<Invitation> {
    let bytes = HEXLOWER.decode(value.as_str()?.as_bytes()).ok()?;
    bytes.try_into().ok().map(Invitation)
}

/// Writes the newest text on a thread of its own, so that nothing waits for the disk. Dropping it waits for the last.
#[derive(Debug)]
struct Saver {
    newest: Arc<Mutex<Option<String>>>,
    wake: Option<flume::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Saver {
    fn start(path: PathBuf) -> io::Result<Self> {
        let newest = Arc::<Mutex<Option<String>>>::default();
        let (wake, woken) = flume::bounded(1);
        let shared = newest.clone();
        let thread = thread::Builder::new().name("peat-peers".to_owned()).spawn(move || {
            while let Ok(()) = woken.recv() {
                let text = lock(&shared).take();
                if let Some(Err(error)) = text.map(|text| file::replace(&path, &text)) {
                    tracing::warn!(%error, "the address book was not saved");
                }
            }
        })?;
        Ok(Self { newest, wake: Some(wake), thread: Some(thread) })
    }

    fn save(&self, text: String) {
        *lock(&self.newest) = Some(text);
        if let Some(wake) = &self.wake {
            // A full channel means that the thread is about to take the newest text.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The lock guards one value that is only ever replaced.
fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const THEIRS: Invitation = Invitation([2; 32]);

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn peer(n: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn a_reopened_book_knows_what_was_wanted_where_and_with_which_invitation() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut book = AddressBook::open(dir.path()).expect("a new book");
        book.want(peer(1), &[addr(1), addr(2)], Some(THEIRS));
        book.want(peer(2), &[], None);
        book.reached(peer(1), addr(3));
        book.want(peer(3), &[addr(9)], None);
        book.forget(&peer(3));
        book.want(peer(4), &[addr(4)], Some(THEIRS));
        book.unwant(peer(4));
        book.unwant(peer(5));
        book.located(peer(6), &[addr(6), addr(7)]);
        drop(book);

        let book = AddressBook::open(dir.path()).expect("the same book");
        assert_eq!(book.addrs(&peer(1)), [addr(3), addr(1), addr(2)]);
        assert_eq!((book.addrs(&peer(4)), book.addrs(&peer(6))), (vec![addr(4)], vec![addr(6), addr(7)]));
        assert_eq!(book.peers.len(), 4, "nobody else");
        let mut wanted: Vec<_> = book.wanted().collect();
        wanted.sort_by_key(|(peer, _)| *peer);
        assert_eq!(wanted, [(peer(1), Some(THEIRS)), (peer(2), None)]);
    }

    #[test]
    fn the_book_is_bounded_and_what_is_wanted_stays_longest() {
        let mut book = AddressBook::default();
        book.want(peer(0), &[], None);
        for n in 1..=2 * MAX_PEERS {
            book.reached(peer(n), addr(1));
        }
        assert_eq!(book.peers.len(), MAX_PEERS);
        assert_eq!(book.wanted().collect::<Vec<_>>(), [(peer(0), None)]);
        for port in 0..100 {
            book.reached(peer(0), addr(port));
        }
        let newest: Vec<_> = (92..100).rev().map(addr).collect();
        assert_eq!(book.addrs(&peer(0)), newest);
    }

    #[test]
    fn a_full_book_can_be_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut book = AddressBook::open(dir.path()).expect("a new book");
        let saver = book.saver.take();
        for n in 0..MAX_PEERS {
            let addrs: Vec<_> =
                (0..MAX_ADDRS).map(|port| SocketAddr::from(([0xfd00; 8], 60_000 + port as u16))).collect();
            book.want(peer(n), &addrs, Some(THEIRS));
        }
        book.saver = saver;
        book.save();
        let text = book.text();
        drop(book);
        let book = AddressBook::open(dir.path()).expect("readable");
        assert_eq!(book.text(), text);
    }

    #[test]
    fn a_damaged_book_is_an_error_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let mut book = AddressBook::open(dir.path()).expect("a new book");
        book.want(peer(1), &[addr(1)], None);
        drop(book);
        let whole = fs::read(&path).expect("written");
        let later = String::from_utf8_lossy(&whole).replace("\"version\": 1", "\"version\": 2");
        let cut = whole[..whole.len() - 3].to_vec();
        for damaged in [cut, later.into_bytes(), vec![0xff; 9], Vec::new()] {
            fs::write(&path, &damaged).expect("writable");
            let refused = AddressBook::open(dir.path());
            assert!(matches!(refused, Err(OpenError::Damaged(FILE))), "{refused:?}");
            assert_eq!(fs::read(&path).expect("still there"), damaged);
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_book() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let mut book = AddressBook::open(dir.path()).expect("a new book");
        book.want(peer(1), &[], Some(THEIRS));
        drop(book);
        let mode = fs::metadata(dir.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}
