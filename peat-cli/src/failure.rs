//! What can go wrong, as the operator sees it: a stable code, what happened, what to do, and the exit code.

use std::fmt;
use std::process::ExitCode;

use peat_node::proto;
use peat_node::proto::store::StoreFault;
use peat_node::rules::BadRules;
use peat_node::store::OpenFault;
use peat_node::{DeleteError, OpenError, ReadError, WriteError};
use serde::{Deserialize, Serialize};

/// One thing that went wrong: `message` says what, `hint` what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// The stable name of a failure, as `--json` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    Usage,
    BadKey,
    BadJson,
    BadFile,
    BadPolicy,
    BadRow,
    UnknownKey,
    NotInitialised,
    NotServing,
    Locked,
    Unreachable,
    Refused,
    Timeout,
    DiskFull,
    Store,
    KeyExposed,
    Document,
    Deleted,
    Kept,
    TooLarge,
    RowsFailed,
    Unequal,
    Busy,
    Closed,
    Network,
    Output,
    Interrupted,
    /// Whoever read standard output has gone. Not an error: nobody is left to tell.
    BrokenPipe,
}

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Locked = 4,
    Peer = 5,
    Store = 6,
    Rows = 7,
    Interrupted = 130,
}

impl Exit {
    /// Every exit code and what it says. The documentation of `--help` is made from this.
    const TABLE: [(Self, &str); 9] = [
        (Self::Success, "done"),
        (Self::Failure, "failed for a reason of its own, see the message"),
        (Self::Usage, "wrong arguments, key, ticket, JSON or file"),
        (Self::NotFound, "no such document, no node in the directory, no running serve"),
        (Self::Locked, "another process uses the data directory"),
        (Self::Peer, "a peer refused, could not be reached, or was not equal in time"),
        (Self::Store, "the store or the disk refused"),
        (Self::Rows, "the import ended, and some rows could not be imported"),
        (Self::Interrupted, "interrupted by a signal"),
    ];

    /// The table as `--help` shows it.
    pub(crate) fn help() -> String {
        let rows = Self::TABLE.map(|(exit, text)| format!("  {:<4} {text}", exit as u8));
        format!("Exit codes:\n{}", rows.join("\n"))
    }
}

impl Code {
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::BrokenPipe => Exit::Success,
            Self::Usage | Self::BadKey | Self::BadJson | Self::BadFile | Self::BadPolicy | Self::BadRow => Exit::Usage,
            Self::UnknownKey | Self::NotInitialised | Self::NotServing => Exit::NotFound,
            Self::Locked => Exit::Locked,
            Self::Unreachable | Self::Refused | Self::Timeout => Exit::Peer,
            Self::DiskFull | Self::Store | Self::KeyExposed => Exit::Store,
            Self::RowsFailed => Exit::Rows,
            Self::Interrupted => Exit::Interrupted,
            Self::Document
            | Self::Deleted
            | Self::Kept
            | Self::TooLarge
            | Self::Unequal
            | Self::Busy
            | Self::Closed
            | Self::Network
            | Self::Output => Exit::Failure,
        }
    }

    /// Whether the same command may succeed later without anything being changed in it.
    pub(crate) const fn retryable(self) -> bool {
        matches!(
            self,
            Self::Locked
                | Self::Unreachable
                | Self::Timeout
                | Self::DiskFull
                | Self::Busy
                | Self::Closed
                | Self::Network
                | Self::Interrupted
        )
    }

    /// Whether the fault lies in one row or document, so that an import goes on with the next.
    pub(crate) const fn is_of_one_row(self) -> bool {
        matches!(self, Self::BadKey | Self::BadJson | Self::BadRow | Self::Document | Self::Deleted | Self::TooLarge)
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl fmt::Display, hint: impl Into<String>) -> Self {
        // A message is one line, whatever the library below had to say.
        let message = message.to_string();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { code, message, hint: hint.into() }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code.exit() as u8)
    }

    pub(crate) fn unknown_key(key: &str) -> Self {
        Self::new(
            Code::UnknownKey,
            format!("there is no document {key}"),
            "`peat ls` shows the documents that are here",
        )
    }

    /// Why the node in `dir` could not be opened.
    pub(crate) fn open(dir: &std::path::Path, error: &OpenError) -> Self {
        let (code, hint) = match error {
            OpenError::Store(OpenFault::Store(fault)) => of_store(*fault),
            OpenError::Store(OpenFault::Version { .. }) => {
                (Code::Store, "use the version of peat that wrote it, or choose another --dir")
            }
            OpenError::Damaged(_) | OpenError::Store(_) => of_store(StoreFault::Damaged),
            OpenError::Rules(_) => {
                (Code::BadPolicy, "mend `policy.toml` there, or remove it to go back to the default")
            }
            OpenError::Locked => (Code::Locked, "wait until that process has ended, or choose another --dir"),
            OpenError::NotInitialised => (Code::NotInitialised, "run `peat init` first, or choose another --dir"),
            OpenError::KeyExposed => (Code::KeyExposed, "run `chmod 600` on the key file if nobody has copied it"),
            OpenError::Io(error) if is_full(error) => (Code::DiskFull, "free some space and run the command again"),
            _ => (Code::Store, "check the directory's permissions and its disk, or choose another --dir"),
        };
        Self::new(code, format!("{}: {error}", dir.display()), hint)
    }

    /// Why a document was not deleted.
    pub(crate) fn delete(key: &str, error: &DeleteError) -> Self {
        use proto::DeleteError::{Deleted, Expires, Immutable, NotFound};
        match error {
            DeleteError::Refused(NotFound) => Self::unknown_key(key),
            DeleteError::Refused(Deleted) => Self::new(
                Code::Deleted,
                format!("{key} is deleted already"),
                "`peat ls --deleted` shows by whom and why",
            ),
            DeleteError::Refused(Expires | Immutable) => Self::new(
                Code::Kept,
                format!("{key}: {error}"),
                "see `peat policy show`, and change it with `peat policy set`",
            ),
            DeleteError::Refused(_) => Self::new(Code::Document, format!("{key}: {error}"), "see `peat status`"),
            DeleteError::Store(fault) => (*fault).into(),
            _ => StoreFault::Closed.into(),
        }
    }

    /// Why a text is not a policy.
    pub(crate) fn rules(error: &BadRules) -> Self {
        Self::new(Code::BadPolicy, error, "`peat policy show` prints a whole one; docs/operations.md explains it")
    }

    /// Why a file could not be read.
    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Code::BadFile,
            format!("{} cannot be read: {error}", path.display()),
            "check the file's name and permissions",
        )
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\nhint: {}", self.message, self.hint)
    }
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        let (code, hint) = of_store(fault);
        Self::new(code, fault, hint)
    }
}

fn of_store(fault: StoreFault) -> (Code, &'static str) {
    match fault {
        StoreFault::Full => (Code::DiskFull, "free some space and run the command again"),
        StoreFault::Closed => (Code::Closed, "run the command again"),
        StoreFault::Damaged | StoreFault::Missing => {
            (Code::Store, "restore the data directory from a backup, or sync into a new one")
        }
        _ => (Code::Store, "check the disk, then run the command again"),
    }
}

impl<E: fmt::Display> From<WriteError<E>> for Failure {
    fn from(error: WriteError<E>) -> Self {
        match error {
            WriteError::Store(fault) | WriteError::Unreadable(fault) => fault.into(),
            WriteError::TooLarge => Self::new(Code::TooLarge, error, "split the value over several documents"),
            WriteError::Deleted => Self::new(Code::Deleted, error, "its collection keeps it so; choose another key"),
            WriteError::NotAnObject => Self::new(Code::BadJson, error, "give an object, as in '{\"speed\": 12}'"),
            WriteError::Closed => StoreFault::Closed.into(),
            WriteError::TooDeep(_) | WriteError::Value(_) => Self::new(Code::BadJson, error, "give a flatter object"),
            _ => Self::new(Code::Document, error, "look at the document with `peat get`"),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(fault) => fault.into(),
            ReadError::TooDeep(_) => {
                Self::new(Code::Document, error, "take it as it is with `peat export KEY --format automerge`")
            }
            _ => StoreFault::Closed.into(),
        }
    }
}
