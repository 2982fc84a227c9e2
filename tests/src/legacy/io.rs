//! What goes into a legacy peer and what comes out of it.

use bytes::Bytes;
use peat_proto::{ConnId, PeerId, Role, StreamId};

/// Something that happened to it.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection with ALPN `cap/automerge/1` is up.
    Connected {
        /// Never used before.
        conn: ConnId,
        /// Proven by TLS.
        peer: PeerId,
        /// Who dialled.
        role: Role,
    },
    /// A connection is gone.
    Disconnected {
        /// Which.
        conn: ConnId,
    },
    /// A dial came to nothing.
    DialFailed {
        /// Whom.
        peer: PeerId,
    },
    /// Bytes that the other side wrote on a stream, in order.
    Received {
        /// On which connection.
        conn: ConnId,
        /// By QUIC's numbers (RFC 9000, 2.1), whoever opened it.
        stream: StreamId,
        /// What arrived; may be empty with `fin`.
        bytes: Bytes,
        /// Whether the other side has finished its half.
        fin: bool,
    },
    /// The other side has reset its half of a stream.
    Reset {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
    },
    /// The other side reads no more of a stream.
    Stopped {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
    },
    /// A stream that this peer opened is over on both halves: another one may be opened. Of use where
    /// [`Config::streams`](super::Config::streams) is set.
    Released {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
    },
    /// The deadline of `timeout` has come.
    Timeout,
}

/// Something that it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a stream and write on it. Streams must be opened in the order of these outputs: their numbers count on it.
    Open {
        /// On which connection.
        conn: ConnId,
        /// By QUIC's numbers.
        stream: StreamId,
        /// Empty: the other side does not see the stream yet.
        bytes: Bytes,
        /// Finish the sending half.
        fin: bool,
        /// Stop the receiving half with code 0.
        stop: bool,
    },
    /// Write on the sending half of a bidirectional stream.
    Write {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
        /// May be empty with `fin`.
        bytes: Bytes,
        /// Finish the half.
        fin: bool,
    },
    /// Stop the receiving half of a stream with code 0.
    Stop {
        /// On which connection.
        conn: ConnId,
        /// Which.
        stream: StreamId,
    },
    /// Close the connection; the peer has forgotten it.
    Close {
        /// Which.
        conn: ConnId,
        /// An application code of wire.md 1.
        code: u32,
    },
    /// Connect to this peer.
    Dial {
        /// Whom.
        peer: PeerId,
    },
}
