//! What goes into a node and what comes out of it.

use std::time::Duration;

use bytes::Bytes;

use crate::id::{ConnId, DocId, Invitation, PeerId, StreamId};
use crate::job::{Done, Job};
use crate::policy::kin::Family;
use crate::policy::{Class, Table};
use crate::request::SyncRequest;
use crate::store::{StoreCommand, Stored};

mod event;
mod refusal;

pub use event::{Event, Origin};
pub use refusal::Refusal;

/// Everything that can happen to a node. Exhaustive on purpose: a new input must be thought about by every driver.
#[derive(Debug)]
pub enum Input {
    /// A transport connection is up and its peer's key is proven. `conn` was never used before.
    Connected {
        /// Names the connection from here on.
        conn: ConnId,
        /// The proven key of the other side.
        peer: PeerId,
        /// What the connection is like.
        link: Link,
    },
    /// A connection is gone. Spurious calls, for connections that the node closed itself, are ignored.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// The application code with which the other side closed it, if it did.
        code: Option<u32>,
    },
    /// Bytes of an incoming stream, in order. On a datagram link each datagram is a stream of its own, with `fin`.
    Received {
        /// On which connection.
        conn: ConnId,
        /// On which of its streams.
        stream: StreamId,
        /// What arrived; may be empty with `fin`.
        bytes: Bytes,
        /// Whether the stream ended here, as its sender meant it to.
        fin: bool,
    },
    /// An incoming stream ended without its sender's consent. What it had begun is dropped.
    Reset {
        /// On which connection.
        conn: ConnId,
        /// Which of its streams.
        stream: StreamId,
    },
    /// The other side stopped reading a lane, or its stream broke: what was sent on it may not have arrived. The lane's
    /// next frame opens a new stream. Of a [`Lane::Once`] it is said only if the frame could not be handed over whole: a
    /// peer that has read what it wanted and then stops is as it should be.
    Stopped {
        /// On which connection.
        conn: ConnId,
        /// Which lane.
        lane: Lane,
    },
    /// So many bytes of frames and replies have left the transport's send buffer, or are lost with their stream. More
    /// than were handed out is taken as all.
    Sent {
        /// On which connection.
        conn: ConnId,
        /// Bytes of whole frames or replies.
        bytes: usize,
    },
    /// An answer of the store. Answers to unknown requests are ignored.
    Stored(Stored),
    /// A job that the node gave out has been run.
    Worked(Done),
    /// Brings Automerge bytes (saved documents or change chunks) into a document, as a file import does. The outcome
    /// comes as [`Event::Imported`]. The bytes are held to the same limits as a peer's.
    Change {
        /// Which document.
        doc: DocId,
        /// What to apply.
        changes: Bytes,
    },
    /// Keeps a document in memory until [`Input::Close`]; answered by [`Event::Opened`] or [`Event::OpenFailed`].
    /// Opens are counted, and a document that does not exist yet opens empty.
    Open {
        /// Which document.
        doc: DocId,
    },
    /// Takes back one [`Input::Open`]. Ignored for a document that is not open.
    Close {
        /// Which document.
        doc: DocId,
    },
    /// Stay connected to this peer, for ever: dial it, admit it, and dial it again after every loss.
    Want {
        /// Whom.
        peer: PeerId,
        /// The invitation to show it.
        invitation: Option<Invitation>,
    },
    /// Takes back [`Input::Want`]; an existing connection stays.
    Unwant {
        /// Whom.
        peer: PeerId,
    },
    /// A dial that [`Output::Dial`] asked for came to nothing. Ignored when no dial is under way.
    DialFailed {
        /// Whom.
        peer: PeerId,
    },
    /// Compares documents with peers now; each outcome comes as [`Event::Synced`], and then [`Event::SyncEnded`].
    SyncNow(SyncRequest),
    /// Puts another policy in the place of the one before. Costs time in proportion to the number of documents.
    Policy(Box<Table>),
    /// Puts another place in the hierarchy in the place of the one before.
    Family(Family),
    /// Removes a peer's admission and closes its connections.
    Forget {
        /// Whom.
        peer: PeerId,
    },
    /// The deadline of [`Node::timeout`](crate::Node::timeout) has come. Calling early or late does no harm.
    Timeout,
}

/// Everything that a node wants done. Exhaustive on purpose: a new output must break every driver's match.
///
/// [`Node::poll`](crate::Node::poll) gives them out in the order of the variants, frames last.
#[derive(Debug)]
pub enum Output {
    /// Close this connection with an application code. The node has already forgotten it.
    Disconnect {
        /// Which.
        conn: ConnId,
        /// What to tell the other side.
        code: CloseCode,
    },
    /// Stop reading this stream. Its sending half, if it has one, is not touched.
    StopStream {
        /// On which connection.
        conn: ConnId,
        /// Which of its streams.
        stream: StreamId,
        /// What to tell the other side.
        code: CloseCode,
    },
    /// A task for the store, in order; see [`crate::store`] for the contract.
    Store(StoreCommand),
    /// A pure computation for a worker; its result comes back as [`Input::Worked`]. A lost job is a crash.
    Work(Job),
    /// Something that the application may want to know.
    Event(Event),
    /// Connect to this peer; answered by [`Input::Connected`] or [`Input::DialFailed`]. At most one is under way per peer.
    Dial {
        /// Whom.
        peer: PeerId,
    },
    /// So many bytes of this stream have been dealt with: its sender may be given that much more credit.
    Consumed {
        /// On which connection.
        conn: ConnId,
        /// On which of its streams.
        stream: StreamId,
        /// Bytes, never more in total than were received.
        bytes: usize,
    },
    /// Write on the sending half of a bidirectional stream, behind what was written there before. Every bidirectional
    /// stream that brought something gets a reply with `fin`, unless it is gone before; what comes behind that is to be
    /// dropped.
    Reply {
        /// On which connection.
        conn: ConnId,
        /// On which of the streams that brought something.
        stream: StreamId,
        /// What to write; may be empty with `fin`.
        bytes: Bytes,
        /// Whether nothing follows: finish the half.
        fin: bool,
    },
    /// Send one whole frame on this lane, behind the lane's earlier frames.
    Send {
        /// On which connection.
        conn: ConnId,
        /// On which lane.
        lane: Lane,
        /// The frame, header included.
        frame: Bytes,
    },
}

/// What two nodes speak on a connection; the transport agrees on it by ALPN.
///
/// A dialler offers every wire that it may speak in one handshake, and the other side takes the last of [`Self::ALL`]
/// that it speaks too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wire {
    /// That of fielded peat-mesh nodes: a stream for each frame.
    V0,
    /// Our own: long-lived streams, one per lane.
    V1,
}

impl Wire {
    /// All wires, the best last.
    pub const ALL: [Self; 2] = [Self::V0, Self::V1];

    /// Its protocol name in TLS (RFC 7301).
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::V0 => b"cap/automerge/1",
            Self::V1 => b"peat/sync/1",
        }
    }

    /// The wire of this protocol name.
    #[must_use]
    pub fn of_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|wire| wire.alpn() == alpn)
    }
}

/// What a connection is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Which side dialled.
    pub role: Role,
    /// What was agreed to be spoken.
    pub wire: Wire,
    /// Whether frames of one lane arrive whole and in order until the stream or connection ends. Without this a frame
    /// is a datagram that may be lost, doubled or overtaken.
    pub reliable: bool,
    /// Key material exported from the transport's TLS session, equal on both sides and on no other connection.
    pub binding: [u8; 32],
    /// The transport's estimate of the round-trip time; 100 ms is assumed without one.
    pub rtt: Option<Duration>,
}

impl Link {
    /// Streams that the other side may end or reset on one connection before anything has arrived on them; with the last of
    /// them the connection is closed ([`CloseCode::Exhausted`]). They cost their sender no credit. 1,024: who speaks either
    /// wire has none but those that it gave up at once, or whose only data was lost before a reset, and a busy node has at most 0.1 MB of word of them to read.
    pub const MAX_EMPTY_STREAMS: u32 = 1024;
}

/// Which side of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// This node dialled.
    Dialled,
    /// The other side dialled.
    Accepted,
}

/// How frames travel within a connection. A document always travels on the lane of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Greeting and digests, on a long-lived unidirectional stream: ahead of every class, and never held back by them.
    Control,
    /// Documents of one class, in order, on a long-lived unidirectional stream.
    Class(Class),
    /// Documents of one class, each frame on a bidirectional stream of its own: written, finished, and the receiving half
    /// stopped with code 0. Several are under way at once, and none waits for another. Only on [`Wire::V0`].
    Once(Class),
    /// Signs of life, each on a unidirectional stream of its own: written and finished. Only on [`Wire::V0`].
    Pulse,
    /// One bidirectional stream for the whole connection, opened by the first frame. What the other side writes on it
    /// arrives under the stream's id, to which later words are a [`Output::Reply`]. Only on [`Wire::V0`].
    Dialogue,
}

impl Lane {
    /// The lanes that are one long-lived stream, the most urgent first.
    pub const LASTING: [Self; 6] = [
        Self::Control,
        Self::Class(Class::Critical),
        Self::Class(Class::High),
        Self::Class(Class::Normal),
        Self::Class(Class::Low),
        Self::Class(Class::Bulk),
    ];

    /// How many steps behind the most urgent; its position for those of [`Self::LASTING`]. A transport's stream priority
    /// is the negative of it.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Control | Self::Pulse | Self::Dialogue => 0,
            Self::Class(class) | Self::Once(class) => class as usize,
        }
    }
}

/// Why a connection or stream was closed, as told to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum CloseCode {
    /// The node is stopping, or no longer wants the connection.
    Normal = 0,
    /// This peer has not been admitted.
    NotAdmitted = 1,
    /// A second connection between the same two nodes; the other one goes on. Legacy peers close the connections that they
    /// dialled with 100 and 101, and those that they accepted with 102 and 103; we say by that which of the two it was.
    Duplicate = 100,
    /// The same, of one that a newer connection takes the place of.
    Replaced = 101,
    /// As 100, where the newer one was accepted.
    DuplicateInbound = 102,
    /// As 101, where the newer one was accepted.
    ReplacedInbound = 103,
    /// Where frames begin is lost: a bad header, key or length on a long-lived stream.
    BadFrame = 200,
    /// A frame larger than its type allows.
    TooLarge = 201,
    /// A frame was not complete in time.
    FrameDeadline = 202,
    /// The other side did not greet in time.
    HelloDeadline = 203,
    /// A frame that is not allowed at this point.
    Unexpected = 204,
    /// Too many streams, connections or bytes.
    Exhausted = 205,
    /// The other side speaks a version that this node does not.
    Version = 206,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Whether this number says goodbye and nothing else: the node stops, or another connection goes on.
    pub(crate) const fn is_goodbye(code: u32) -> bool {
        code == Self::Normal as u32 || (code >= Self::Duplicate as u32 && code <= Self::ReplacedInbound as u32)
    }
}
