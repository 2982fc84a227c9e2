//! The local socket. Everything that a port to another system has to replace is in this file.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

pub(super) type Listener = UnixListener;
pub(super) type Stream = UnixStream;

const NAME: &str = "control.sock";

/// Listens in `dir`, in place of a socket that an earlier process left. The caller holds the directory's lock.
///
/// The socket is made in a directory of its own that only we can enter and is moved into place afterwards, so that at no time
/// another user could connect.
pub(super) fn listen(dir: &Path) -> io::Result<Listener> {
    let short = Short::of(dir)?;
    let private =
        tempfile::Builder::new().prefix(".control").permissions(Permissions::from_mode(0o700)).tempdir_in(dir)?;
    let name = private.path().file_name().map(PathBuf::from).unwrap_or_default();
    let fresh = name.join(NAME);
    let listener = UnixListener::bind(short.path(&fresh))?;
    fs::set_permissions(dir.join(&fresh), Permissions::from_mode(0o600))?;
    fs::rename(dir.join(&fresh), dir.join(NAME))?;
    Ok(listener)
}

/// Connects to whoever listens in `dir`; `None` if nobody does.
pub(super) fn connect(dir: &Path) -> io::Result<Option<Stream>> {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    let connected = Short::of(dir).and_then(|short| UnixStream::connect(short.path(Path::new(NAME))));
    match connected {
        Ok(stream) => Ok(Some(stream)),
        // A socket that nobody listens on was left by a process that was killed.
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the socket away, so that new commands open the store themselves once it is unlocked.
pub(super) fn remove(dir: &Path) {
    let _ = fs::remove_file(dir.join(NAME));
}

/// A way to name files in a directory that fits into a socket address (108 bytes on Linux, 104 elsewhere), whatever the
/// length of the directory's own path.
struct Short {
    base: PathBuf,
    /// Keeps the descriptor open that `base` names.
    _dir: Option<File>,
}

impl Short {
    /// What fits everywhere: 104, less the end of the string, a separator, and `.control123456/control.sock`.
    const MAX: usize = 104 - 1 - 1 - 27;

    fn of(dir: &Path) -> io::Result<Self> {
        if dir.as_os_str().len() <= Self::MAX {
            return Ok(Self { base: dir.to_owned(), _dir: None });
        }
        Self::by_descriptor(dir)
    }

    #[cfg(target_os = "linux")]
    fn by_descriptor(dir: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let open = File::open(dir)?;
        let base = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { base, _dir: Some(open) })
    }

    #[cfg(not(target_os = "linux"))]
    fn by_descriptor(dir: &Path) -> io::Result<Self> {
        // Where there is no such name, a data directory with a long path cannot be served.
        match fs::metadata(dir) {
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!("the path is longer than {} bytes", Self::MAX),
            )),
        }
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.base.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn round_trip(dir: &Path) {
        assert!(connect(dir).expect("no error").is_none(), "nobody listens yet");
        let listener = listen(dir).expect("listens");
        let mode = fs::metadata(dir.join(NAME)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = connect(dir).expect("no error").expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        client.write_all(b"x").expect("written");
        let mut byte = [0];
        server.read_exact(&mut byte).expect("read");
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_socket_is_private_and_reachable() {
        let dir = tempfile::tempdir().expect("temporary directory");
        round_trip(dir.path());
        let left: Vec<_> = fs::read_dir(dir.path()).expect("readable").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [NAME], "nothing else is left behind");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_beyond_the_limit_of_socket_addresses_works() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
        fs::create_dir_all(&deep).expect("created");
        round_trip(&deep);
    }

    #[test]
    fn a_socket_that_a_killed_process_left_counts_as_nobody_and_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        drop(listen(dir.path()).expect("listens"));
        round_trip(dir.path());
    }
}
