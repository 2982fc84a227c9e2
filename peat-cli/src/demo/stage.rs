//! Child processes that cannot outlive the demo, and their temporary stores.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tempfile::TempDir;

use crate::access::Access;
use crate::failure::{Code, Failure};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Holds the stores and the processes; dropping it kills and removes them. A process is also tied to the demo by its
/// standard input, so that it ends even when the demo is killed.
pub(super) struct Stage {
    stores: TempDir,
    children: Arc<Mutex<Vec<Child>>>,
    interrupted: Arc<AtomicBool>,
    signals: Handle,
}

/// A running `peat serve`.
pub(super) struct Process {
    pub(super) id: String,
    pub(super) ticket: String,
    dir: PathBuf,
    pid: u32,
    /// Told when the process has closed its standard output, which it does by ending.
    ended: Receiver<()>,
    children: Arc<Mutex<Vec<Child>>>,
}

/// The line that `peat serve --json` prints.
#[derive(Deserialize)]
struct Serving {
    id: String,
    ticket: String,
}

impl Stage {
    pub(super) fn new() -> Result<Self, Failure> {
        let stores = tempfile::Builder::new().prefix("peat-demo-").tempdir().map_err(|error| {
            Failure::new(Code::Store, format!("no temporary directory: {error}"), "free some space, or set TMPDIR")
        })?;
        let children = Arc::new(Mutex::new(Vec::new()));
        let interrupted = Arc::new(AtomicBool::new(false));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|error| broken(format!("signals cannot be received: {error}")))?;
        let handle = signals.handle();
        let (flag, to_kill) = (Arc::clone(&interrupted), Arc::clone(&children));
        thread::spawn(move || {
            for _ in &mut signals {
                flag.store(true, Ordering::SeqCst);
                // Whatever waits for a child now fails, and the demo takes itself down.
                kill_all(&to_kill);
            }
        });
        Ok(Self { stores, children, interrupted, signals: handle })
    }

    /// Runs the demo; a failure that a signal brought about is reported as that.
    pub(super) fn guard<T>(&self, play: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let played = play();
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(Failure::new(Code::Interrupted, "interrupted", "nothing is left behind; run it again"));
        }
        played
    }

    /// Starts a `peat serve` on a fresh store and waits until it serves.
    pub(super) fn serve(&self, name: &str, transport: &str, join: Option<&str>) -> Result<Process, Failure> {
        let dir = self.stores.path().join(name);
        let program = env::current_exe().map_err(|error| broken(format!("this program is not found: {error}")))?;
        let mut command = Command::new(program);
        command.arg("--dir").arg(&dir).args(["--json", "serve", "--tied", "--listen", "127.0.0.1:0"]);
        command.args(["--transport", transport]);
        if let Some(ticket) = join {
            command.args(["--join", ticket]);
        }
        // A group of its own: Ctrl-C reaches the demo first, which then decides.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let (pid, stdout) = {
            let mut children = lock(&self.children);
            if self.interrupted.load(Ordering::SeqCst) {
                return Err(broken("interrupted".to_owned()));
            }
            let spawned = command.spawn();
            let mut child = spawned.map_err(|error| broken(format!("`peat serve` does not start: {error}")))?;
            let (pid, stdout) = (child.id(), child.stdout.take());
            children.push(child);
            (pid, stdout)
        };
        let (line, ended) = follow(stdout)?;
        let serving: Serving = serde_json::from_str(&line)
            .map_err(|_| broken("`peat serve` ended before it could be reached".to_owned()))?;
        let children = Arc::clone(&self.children);
        Ok(Process { id: serving.id, ticket: serving.ticket, dir, pid, ended, children })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        kill_all(&self.children);
        self.signals.close();
    }
}

impl Process {
    /// A way to this node, over its socket.
    pub(super) fn access(&self) -> Result<Access, Failure> {
        let access = Access::to(&self.dir)?;
        if access.is_serving() { Ok(access) } else { Err(broken(format!("node {} has ended", self.id))) }
    }

    /// Asks the process to end, waits for that, and returns its store.
    pub(super) fn stop(self) -> Result<PathBuf, Failure> {
        let gone = || broken(format!("node {} has ended", self.id));
        let mut children = lock(&self.children);
        let child = children.iter_mut().find(|child| child.id() == self.pid).ok_or_else(gone)?;
        // It is tied to us by its standard input.
        drop(child.stdin.take());
        drop(children);
        if self.ended.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            return Err(broken(format!("node {} did not end within {STOP_TIMEOUT:?}", self.id)));
        }
        let mut children = lock(&self.children);
        let place = children.iter().position(|child| child.id() == self.pid).ok_or_else(gone)?;
        match children.swap_remove(place).wait() {
            Ok(status) if status.success() => Ok(self.dir),
            Ok(status) => Err(broken(format!("node {} ended with {status}", self.id))),
            Err(error) => Err(broken(format!("node {} is lost: {error}", self.id))),
        }
    }
}

/// The first line that a child prints, within [`START_TIMEOUT`], and where its end will be told. What else it prints is
/// read and dropped, so that it never blocks.
fn follow(stdout: Option<impl Read + Send + 'static>) -> Result<(String, Receiver<()>), Failure> {
    let stdout = stdout.ok_or_else(|| broken("`peat serve` has no standard output".to_owned()))?;
    let (tell, told) = mpsc::channel();
    let (tell_end, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = tell.send(line);
        let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        let _ = tell_end.send(());
    });
    match told.recv_timeout(START_TIMEOUT) {
        Ok(line) => Ok((line, ended)),
        Err(_) => Err(broken(format!("`peat serve` did not start within {START_TIMEOUT:?}"))),
    }
}

fn kill_all(children: &Mutex<Vec<Child>>) {
    for mut child in lock(children).drain(..) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(message: String) -> Failure {
    Failure::new(Code::Closed, message, "run the demo again, with PEAT_LOG=debug to see more")
}
