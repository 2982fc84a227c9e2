//! The data directory: who the node is, and what it holds.
//!
//! | file         | content                                                                            |
//! |--------------|------------------------------------------------------------------------------------|
//! | `key`        | Ed25519 seed, 64 hexadecimal digits; readable by the owner alone                   |
//! | `invitation` | secret that admits its bearer, likewise; a new one is drawn when it was deleted    |
//! | `peat.redb`  | the store                                                                          |
//! | `policy.toml` | the node's [`Rules`], where they are not the default ones                         |
//! | `lock`       | locked by the process that uses the directory                                      |
//! | `closed`     | left by a clean close, see below                                                   |
//!
//! # Which actor a boot edits as
//!
//! Automerge never recovers from an actor that repeats a sequence number. So a boot goes on as the last one only if it is
//! certain that nothing happened to the store in between: the last process closed it, its mark `closed` carries the
//! random nonce of the store's last commit, and device, inode and change time of `peat.redb` are those that the closing
//! process saw. A copy has another inode, and a file that was overwritten has another change time, which no tool can set
//! back. In every other case the boot gets the next number *and* a new random store instance, durable before anybody can
//! edit: after a restore, the next number alone may have been used before.
//!
//! What this cannot see is a whole file system put back to an earlier moment, as snapshots of virtual machines do it,
//! when that moment lies between a clean close and the next open.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::SigningKey;
use peat_proto::store::StoreFault;
use peat_proto::{Boot, Invitation, PeerId};

use crate::error::{OpenError, at};
use crate::file;
use crate::rules::Rules;
use crate::store::disk::{DiskStore, Meta};
use crate::store::{OpenFault, Store};

const KEY: &str = "key";
const INVITATION: &str = "invitation";
const STORE: &str = "peat.redb";
const LOCK: &str = "lock";
const CLOSED: &str = "closed";
const RULES: &str = "policy.toml";

/// Largest policy file, in bytes: some 5,000 collections.
const MAX_RULES: u64 = 1 << 20;

/// A data directory that this process alone uses, until this is dropped.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    key: SigningKey,
    invitation: Invitation,
    boot: Boot,
    mark: [u8; 16],
    _lock: File,
}

impl Dir {
    /// Creates the key, the invitation and an empty store, and the directory where there is none. A node that lives there
    /// already is left alone.
    ///
    /// # Errors
    /// [`OpenError::Locked`], [`OpenError::KeyExposed`] or [`OpenError::Damaged`] for a node that lives there already;
    /// [`OpenError::Io`] if something cannot be written.
    pub fn init(path: &Path) -> Result<PeerId, OpenError> {
        create_dir(path).map_err(at(path))?;
        let _lock = lock(path)?;
        if let Some(seed) = read_secret(path, KEY)? {
            return Ok(peer(&SigningKey::from_bytes(&seed)));
        }
        // The key comes last: a directory that has one has all.
        if !path.join(STORE).try_exists().map_err(at(path))? {
            create_store(path)?;
        }
        read_or_draw_invitation(path)?;
        let seed = random()?;
        write_secret(path, KEY, &seed)?;
        Ok(peer(&SigningKey::from_bytes(&seed)))
    }

    /// Locks the directory and opens what lives there. The boot is durable when this returns.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is created or repaired for a node that lacks a part.
    pub fn open(path: &Path) -> Result<(Self, DiskStore), OpenError> {
        // First, so that nothing is left in a directory where no node lives.
        if !path.join(KEY).try_exists().map_err(at(path))? {
            return Err(OpenError::NotInitialised);
        }
        let lock = lock(path)?;
        let seed = read_secret(path, KEY)?.ok_or(OpenError::NotInitialised)?;
        let invitation = Invitation(read_or_draw_invitation(path)?);

        // Before redb opens the file, for that alone changes it.
        let identity = Identity::of(&path.join(STORE));
        let closed = take_mark(path)?;
        let mut store = match DiskStore::open(&path.join(STORE)) {
            Err(OpenFault::Store(StoreFault::Missing)) => return Err(OpenError::Damaged(STORE)),
            store => store?,
        };
        let boot = next_boot(store.meta(), identity, closed)?;
        let mark = random()?;
        store.begin(boot, mark).map_err(OpenFault::from)?;

        let dir =
            Self { path: path.to_owned(), key: SigningKey::from_bytes(&seed), invitation, boot, mark, _lock: lock };
        Ok((dir, store))
    }

    /// Who the node is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        peer(&self.key)
    }

    /// The Ed25519 seed, for a transport that proves the key.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The secret that admits its bearer.
    #[must_use]
    pub fn invitation(&self) -> Invitation {
        self.invitation
    }

    /// Which actor the node edits as.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the mark of a clean close and unlocks the directory. To be called when the store has been closed without
    /// error; a mark that is left earlier does not count.
    ///
    /// # Errors
    /// The mark could not be written. The next boot gets a new actor; nothing else is lost.
    pub fn close(self) -> Result<(), OpenError> {
        let Some(identity) = Identity::of(&self.path.join(STORE)) else {
            return Ok(());
        };
        let mark = Mark { nonce: self.mark, identity };
        // Not synced: a mark that is lost or torn in a power cut only costs an actor.
        let path = self.path.join(CLOSED);
        Ok(fs::write(&path, mark.encode()).map_err(at(&path))?)
    }
}

/// The same boot again if the mark proves that nothing happened since, else one that was never used.
fn next_boot(meta: Meta, now: Option<Identity>, closed: Option<Mark>) -> io::Result<Boot> {
    if let (Some(boot), Some(now), Some(closed)) = (meta.boot, now, closed)
        && closed.identity == now
        && meta.closed == Some(closed.nonce)
    {
        return Ok(boot);
    }
    let last = meta.boot.map_or(0, |boot| boot.number);
    Ok(Boot { store: random()?, number: last.saturating_add(1) })
}

/// What a clean close leaves: `nonce device inode seconds nanoseconds`, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    nonce: [u8; 16],
    identity: Identity,
}

/// Tells a file from its copies, and from itself before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
    }

    /// Nothing here tells a restored file from the original: every boot gets an actor of its own.
    #[cfg(not(unix))]
    fn of(_: &Path) -> Option<Self> {
        None
    }
}

impl Mark {
    fn encode(&self) -> String {
        let Identity { device, inode, changed: (seconds, nanoseconds) } = self.identity;
        let nonce = HEXLOWER.encode(&self.nonce);
        format!("{nonce} {device} {inode} {seconds} {nanoseconds}\n")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut fields = text.strip_suffix('\n')?.split(' ');
        let nonce = HEXLOWER.decode(fields.next()?.as_bytes()).ok()?;
        let identity = Identity {
            device: fields.next()?.parse().ok()?,
            inode: fields.next()?.parse().ok()?,
            changed: (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?),
        };
        let nonce = nonce.try_into().ok()?;
        fields.next().is_none().then_some(Self { nonce, identity })
    }
}

/// Reads the mark and removes it durably: it must not count for the boot after this one.
fn take_mark(dir: &Path) -> io::Result<Option<Mark>> {
    let path = dir.join(CLOSED);
    let mut text = String::new();
    match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => {
            // A mark that cannot be read as text is none.
            let read = file.map_err(at(&path))?.take(256).read_to_string(&mut text);
            read.or_else(|error| match error.kind() {
                ErrorKind::InvalidData => Ok(0),
                _ => Err(at(&path)(error)),
            })?;
        }
    }
    fs::remove_file(&path).map_err(at(&path))?;
    sync_dir(dir)?;
    Ok(Mark::decode(&text))
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
        Err(TryLockError::Error(error)) => Err(at(&path)(error).into()),
    }
}

/// Creates the store under another name first, so that `peat.redb` is a store whenever it exists.
fn create_store(dir: &Path) -> Result<(), OpenError> {
    let draft = dir.join("peat.redb.new");
    remove_if_there(&draft)?;
    Store::close(Box::new(DiskStore::create(&draft)?)).map_err(OpenFault::from)?;
    fs::rename(&draft, dir.join(STORE)).map_err(at(&draft))?;
    Ok(sync_dir(dir)?)
}

fn read_or_draw_invitation(dir: &Path) -> Result<[u8; 32], OpenError> {
    if let Some(invitation) = read_secret(dir, INVITATION)? {
        return Ok(invitation);
    }
    let invitation = random()?;
    write_secret(dir, INVITATION, &invitation)?;
    Ok(invitation)
}

/// `None` if there is no such file.
fn read_secret(dir: &Path, name: &'static str) -> Result<Option<[u8; 32]>, OpenError> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at(&path))?,
    };
    if exposed(&file).map_err(at(&path))? {
        return Err(OpenError::KeyExposed);
    }
    let mut text = Vec::new();
    file.take(67).read_to_end(&mut text).map_err(at(&path))?;
    let digits = text.trim_ascii_end();
    let secret = HEXLOWER_PERMISSIVE.decode(digits).ok();
    match secret.and_then(|bytes| bytes.try_into().ok()) {
        Some(secret) => Ok(Some(secret)),
        None => Err(OpenError::Damaged(name)),
    }
}

/// Writes a file that is there whole or not at all.
fn write_secret(dir: &Path, name: &str, secret: &[u8; 32]) -> io::Result<()> {
    let path = dir.join(name);
    let draft = dir.join(format!("{name}.new"));
    remove_if_there(&draft)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft).map_err(at(&draft))?;
    let text = format!("{}\n", HEXLOWER.encode(secret));
    file.write_all(text.as_bytes()).map_err(at(&draft))?;
    file.sync_all().map_err(at(&draft))?;
    fs::rename(&draft, &path).map_err(at(&path))?;
    sync_dir(dir)
}

/// The node's rules, if there is a file of them.
pub(crate) fn read_rules(dir: &Path) -> Result<Option<Rules>, OpenError> {
    let path = dir.join(RULES);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at(&path))?,
    };
    let mut text = String::new();
    file.take(MAX_RULES).read_to_string(&mut text).map_err(at(&path))?;
    Ok(Some(Rules::parse(&text)?))
}

/// Makes these the node's rules, also after the next start.
pub(crate) fn write_rules(dir: &Path, rules: &Rules) -> io::Result<()> {
    let path = dir.join(RULES);
    file::replace(&path, &rules.to_toml()).map_err(at(&path))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn exposed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

/// Access is not a matter of mode bits here; the directory inherits that of the user's profile.
#[cfg(not(unix))]
fn exposed(_: &File) -> io::Result<bool> {
    Ok(false)
}

fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes names in the directory durable.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// A directory cannot be synced here.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn peer(key: &SigningKey) -> PeerId {
    PeerId(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests;
