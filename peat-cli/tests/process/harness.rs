//! Running `peat` and waiting for it. Every wait has a limit, and no process outlives its test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use peat_node::Ticket;
use serde_json::Value;
use tempfile::TempDir;

/// Far longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A data directory with a fresh node.
pub(crate) fn node() -> TempDir {
    let dir = temporary();
    peat(dir.path(), ["init"]).ok();
    dir
}

/// Runs `peat --dir DIR ARGS` to its end.
pub(crate) fn peat<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Ended {
    run(command(dir, args), b"")
}

/// The same with `--json`.
pub(crate) fn peat_json<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Ended {
    let mut command = command(dir, args);
    command.arg("--json");
    run(command, b"")
}

pub(crate) fn command<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peat"));
    command.env_remove("PEAT_DIR").env_remove("PEAT_LOG").arg("--dir").arg(dir).args(args);
    command
}

/// Runs a command to its end, or fails the test at the usual limit.
pub(crate) fn run(command: Command, input: &[u8]) -> Ended {
    run_within(LIMIT, command, input)
}

/// Runs a command to its end, or fails the test at the limit.
pub(crate) fn run_within(limit: Duration, mut command: Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(command.spawn().expect("peat starts"));
    let stdout = collect(child.0.stdout.take().expect("piped"));
    let stderr = collect(child.0.stderr.take().expect("piped"));
    // A command that does not read its input may have ended before it is written.
    let _ = child.0.stdin.take().expect("piped").write_all(input);
    let stdout = stdout.recv_timeout(limit).expect("peat ends in time");
    let stderr = stderr.recv_timeout(limit).expect("peat ends in time");
    let status = child.0.wait().expect("the exit status");
    Ended { code: status.code(), stdout, stderr: String::from_utf8(stderr).expect("UTF-8") }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = tell.send(bytes);
    });
    told
}

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.text()
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8").trim_end()
    }

    /// Standard output of a command that must have succeeded, as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.ok()).expect("one JSON value on standard output")
    }

    /// A command that must have failed with this exit code, saying in one line what and in one what to do.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout {:?} stderr {}", self.text(), self.stderr);
        let lines: Vec<_> = self.stderr.lines().collect();
        let last_two = lines.len().checked_sub(2).map(|from| &lines[from..]);
        let two = matches!(last_two, Some([what, hint]) if what.starts_with("error: ") && hint.starts_with("hint: "));
        assert!(two, "{}", self.stderr);
        self
    }

    /// The error object of a command with `--json` that must have failed with this exit code.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "stdout {:?} stderr {}", self.text(), self.stderr);
        let last = self.stderr.lines().last().expect("an error object");
        let mut object: Value = serde_json::from_str(last).expect("JSON on standard error");
        let error = object["error"].take();
        for field in ["code", "message", "hint"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {last}");
        }
        assert!(error["retryable"].is_boolean(), "{last}");
        error
    }
}

/// A running `peat serve`.
pub(crate) struct Serve {
    child: Guard,
    pub(crate) id: String,
    pub(crate) ticket: String,
    pub(crate) dir: PathBuf,
    ended: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

/// Starts `peat serve` on a free port of loopback and waits until it serves.
pub(crate) fn serve(dir: &Path, more: &[&str]) -> Serve {
    serve_on("127.0.0.1:0", dir, more)
}

/// Starts `peat serve` on this address and waits until it serves.
pub(crate) fn serve_on(listen: &str, dir: &Path, more: &[&str]) -> Serve {
    let mut command = command(dir, ["--json", "serve", "--listen", listen]);
    command.args(more);
    started(command, dir)
}

/// The same on a machine of its own, whose only link is loopback with this MTU; `None`, said loudly, where there can be none.
pub(crate) fn serve_alone(mtu: u32, dir: &Path, more: &[&str]) -> Option<Serve> {
    let alone = |script: &str| {
        let mut command = Command::new("unshare");
        let script = format!("ip link set lo mtu {mtu} up && {script}");
        command.args(["--net", "sh", "-c", &script, "sh"]);
        command
    };
    if !alone("true").output().is_ok_and(|it| it.status.success()) {
        // Past the capture of a test that succeeds.
        writeln!(std::io::stderr(), "SKIPPED: a link of its own needs root, unshare and iproute2").expect("read");
        return None;
    }
    let peat = command(dir, ["--json", "serve", "--listen", "127.0.0.1:0"]);
    let mut command = alone("exec \"$@\"");
    command.env_remove("PEAT_DIR").env_remove("PEAT_LOG").arg(peat.get_program()).args(peat.get_args()).args(more);
    Some(started(command, dir))
}

/// Waits until a `peat serve` serves.
fn started(mut command: Command, dir: &Path) -> Serve {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(command.spawn().expect("peat starts"));
    let mut stdout = BufReader::new(child.0.stdout.take().expect("piped"));
    let stderr = collect(child.0.stderr.take().expect("piped"));
    let (tell, told) = mpsc::channel();
    let (tell_end, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = tell.send(line);
        let mut rest = Vec::new();
        let _ = stdout.read_to_end(&mut rest);
        let _ = tell_end.send(rest);
    });
    let line = told.recv_timeout(LIMIT).expect("peat serve starts in time");
    let Ok(serving) = serde_json::from_str::<Value>(&line) else {
        let stderr = stderr.recv_timeout(LIMIT).expect("it ended");
        panic!("peat serve printed {line:?}: {}", String::from_utf8_lossy(&stderr));
    };
    let text = |field: &str| serving[field].as_str().expect("text").to_owned();
    Serve { child, id: text("id"), ticket: text("ticket"), dir: dir.to_owned(), ended, stderr }
}

impl Serve {
    pub(crate) fn peat<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        peat(&self.dir, args)
    }

    /// Where it listens, for a restart in the same place.
    pub(crate) fn addr(&self) -> String {
        let ticket: Ticket = self.ticket.parse().expect("our own ticket");
        ticket.addrs.first().expect("an address").to_string()
    }

    /// Ends it as a power cut or the kernel does, at any moment.
    pub(crate) fn kill(self) {
        let (status, ..) = self.end_by("KILL");
        assert_eq!(status.code(), None, "it ended by the signal");
    }

    /// The ticket without its invitation, as a stranger might guess it.
    pub(crate) fn ticket_without_invitation(&self) -> String {
        let mut ticket: Ticket = self.ticket.parse().expect("our own ticket");
        assert!(ticket.invitation.is_some(), "there is an invitation to cut out");
        ticket.invitation = None;
        ticket.to_string()
    }

    /// Sends a signal by name and waits for the end: the status, how long it took, and standard error.
    pub(crate) fn end_by(mut self, signal: &str) -> (ExitStatus, Duration, String) {
        let started = Instant::now();
        signal_to(self.child.0.id(), signal);
        self.ended.recv_timeout(LIMIT).expect("peat serve ends in time");
        let status = self.child.0.wait().expect("the exit status");
        let took = started.elapsed();
        let stderr = self.stderr.recv_timeout(LIMIT).expect("it has ended");
        (status, took, String::from_utf8_lossy(&stderr).into_owned())
    }

    /// Ends it as a service manager does, where how soon it ends is not what is tested: on a busy machine the time may be
    /// up before the store is closed, which loses nothing.
    #[track_caller]
    pub(crate) fn end(self) {
        let (status, _, stderr) = self.end_by("TERM");
        assert!(status.success() || stderr.contains("the store was not closed within"), "{status} {stderr}");
    }

    /// Ends it as a service manager does; it must end well.
    #[track_caller]
    pub(crate) fn stop(self) {
        let (status, took, stderr) = self.end_by("TERM");
        assert!(status.success(), "{status} {stderr}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

/// A test that fails shows what its nodes had to say.
impl Drop for Serve {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.child.0.kill();
            let stderr = self.stderr.recv_timeout(LIMIT).unwrap_or_default();
            eprintln!("peat serve in {}:\n{}", self.dir.display(), String::from_utf8_lossy(&stderr));
        }
    }
}

/// Asks again and again until it holds, or fails the test at the usual limit.
#[track_caller]
pub(crate) fn eventually(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "it should hold long before this");
    }
}

/// Sends a signal by name.
pub(crate) fn signal_to(pid: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.expect("kill runs").success());
}

/// Kills its process when the test ends early.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
