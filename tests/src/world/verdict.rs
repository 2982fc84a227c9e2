//! What came of a run.

use std::fmt;

use peat_proto::Time;
use serde_json::{Value, json};

/// Something that must not happen, and happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Virtual time.
    pub at: Time,
    /// Which member, where it is one.
    pub member: Option<usize>,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.6} s", self.at.as_micros() as f64 / 1e6)?;
        if let Some(member) = self.member {
            write!(f, ", node {member}")?;
        }
        write!(f, ": {}", self.what)
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything that a world can do to its nodes, and that a volume run must have done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

faults! {
    /// A datagram was lost.
    Loss,
    /// A burst of losses began.
    Burst,
    /// A datagram arrived twice.
    Duplicate,
    /// A datagram was overtaken.
    Reorder,
    /// A queue was full.
    TailDrop,
    /// A frame of a reliable link came late because its packets were lost.
    Retransmit,
    /// A stream of a reliable link was reset.
    StreamReset,
    /// A connection was lost.
    Hangup,
    /// One direction of a path was cut.
    Cut,
    /// The fleet was divided.
    Partition,
    /// A connection died of silence.
    IdleTimeout,
    /// A dial came to nothing.
    DialFailed,
    /// A second connection between the same two nodes.
    DuplicateConnection,
    /// A node crashed.
    Crash,
    /// A crash lost a write.
    LostWrite,
    /// A crash kept a write that nobody had been told of.
    KeptWrite,
    /// A job was lost in a crash.
    LostJob,
    /// A node closed cleanly and came back.
    Reboot,
    /// A write failed.
    WriteFailed,
    /// A load failed.
    LoadFailed,
    /// The disk stood still.
    DiskPause,
    /// A job took its time.
    LateJob,
    /// A path became narrow for a while.
    Squeeze,
    /// The cache was emptied.
    Evict,
    /// A wall clock jumped.
    ClockJump,
    /// An edit was rolled back.
    Abort,
    /// Receive credit ran out.
    NoCredit,
    /// A frame arrived in two pieces.
    Fragment,
    /// A hostile member spoke.
    Hostile,
    /// A member sent all of a document that is larger than a frame may be.
    Oversized,
    /// A member sent the beginning of a document that nobody has room for.
    Vast,
    /// A member sent a part of a document as large as may be, and never the rest.
    Unfinished,
    /// A member sent changes or a document that expand beyond all measure.
    Bomb,
    /// A member sent compressed entries that expand beyond their bound, or beyond what they say.
    PackedBomb,
    /// An application deleted a document.
    Delete,
    /// A write or deletion was refused, of a document that is deleted or may not be.
    Refused,
    /// A member said of a document that it was deleted, and nobody had.
    Forgery,
    /// An application at a fielded peer wrote.
    FieldedEdit,
    /// An application at a fielded peer deleted a document.
    FieldedDelete,
    /// A fielded peer said of a document that it was deleted, and nobody had.
    FieldedForgery,
    /// The process of a fielded peer was started again.
    FieldedRestart,
}

/// How often each fault fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired([u64; Fault::ALL.len()]);

impl Default for Fired {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Fired {
    /// Counts one.
    pub(crate) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Counts one if it happened.
    pub(crate) fn count_if(&mut self, fault: Fault, happened: bool) {
        self.0[fault as usize] += u64::from(happened);
    }

    /// How often this fault fired.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    /// The faults that never fired.
    pub fn never(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL.iter().copied().filter(|fault| self.of(*fault) == 0)
    }

    /// Names and counts.
    #[must_use]
    pub fn json(&self) -> Value {
        Fault::ALL.iter().map(|fault| (format!("{fault:?}"), json!(self.of(*fault)))).collect()
    }
}

/// What came of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Steps of the list that were tried, the last of which may have violated something.
    pub tried: usize,
    /// Those of them that found something to do.
    pub steps: usize,
    /// Local edits that changed something.
    pub edits: u64,
    /// Virtual time that passed.
    pub elapsed: Time,
    /// Frames that nodes sent.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Over everything that happened.
    pub trace: [u8; 32],
    /// How often each fault fired.
    pub fired: Fired,
    /// The first violation, if there was one.
    pub violation: Option<Violation>,
}

impl Verdict {
    /// Whether nothing was violated.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.violation.is_none()
    }

    /// The verdict as one object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "ok": self.is_ok(),
            "seed": self.seed,
            "steps": self.steps,
            "edits": self.edits,
            "virtual_seconds": self.elapsed.as_micros() as f64 / 1e6,
            "frames": self.frames,
            "bytes": self.bytes,
            "trace": hex(&self.trace),
            "violation": self.violation.as_ref().map(ToString::to_string),
            "faults": self.fired.json(),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_ok() { "ok" } else { "FAILED" };
        let seconds = self.elapsed.as_micros() as f64 / 1e6;
        write!(
            f,
            "{word} seed {} steps {} edits {} time {seconds:.3} s frames {} bytes {} trace {}",
            self.seed,
            self.steps,
            self.edits,
            self.frames,
            self.bytes,
            hex(&self.trace[..8]),
        )?;
        self.violation.as_ref().map_or(Ok(()), |violation| write!(f, "\n  {violation}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
