//! Limits and times that are the same on every transport, each with its unit and where it comes from.

use std::time::Duration;

use peat_proto::{Lane, Wire};

/// Incoming handshakes under way; more are refused before anything is computed for them. From half of it on, a caller
/// must first prove that its address is its own.
pub const MAX_HANDSHAKES: usize = 64;

/// Connections, those of strangers included. Twice what the core keeps by default, so that it is the core that chooses
/// who gives way; callers are refused only while it cannot keep up.
pub const MAX_CONNECTIONS: usize = 512;

/// Incoming streams of one connection, of either kind: six lanes, and room for their successors. As many as the core
/// follows. No more are taken in while as many that are over wait for the node: what a connection makes it hold is bounded
/// by twice as many times [`STREAM_CREDIT`], 8 MiB, and on the old wire, with streams of both kinds, by 12 MiB.
pub const MAX_STREAMS: u32 = 16;

/// Incoming bidirectional streams of one connection. Only the old wire has any; where it is not offered, a peer that
/// opens one breaks QUIC.
#[must_use]
pub fn max_bidirectional(wires: &[Wire]) -> u32 {
    if wires.contains(&Wire::V0) { MAX_STREAMS } else { 0 }
}

/// Receive credit that every incoming stream starts with, in bytes. An adapter stops reading a stream whose credit is
/// used up, until [`Outgoing::Credit`](super::Outgoing::Credit) adds to it. 256 KiB: 4 frames of the usual size, 1 s of
/// a 2 Mbit/s link.
pub const STREAM_CREDIT: usize = 256 << 10;

/// Bytes of one incoming stream that QUIC holds while the core gives no credit, on top of the credit itself. 256 KiB:
/// as much as our own [`SEND_WINDOW`] can have on its way, so that the window never slows a willing reader.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes of all incoming streams of one connection that QUIC holds. One stream window per lane: the lanes of all classes
/// may stall, and control still flows. It is also all that a stranger's streams can make us hold, unless the operator set a rate
/// that needs a larger window for one of them.
pub const RECEIVE_WINDOW: u32 = Lane::LASTING.len() as u32 * STREAM_WINDOW;

/// Bytes on their way to a peer, written and not acknowledged, unless the options say otherwise. 256 KiB is 20 Mbit/s at
/// 100 ms of round trip. A frame never waits for a less urgent one in there, but for the earlier ones of its own lane:
/// on a slow link it should be about twice rate times round trip.
pub const SEND_WINDOW: u32 = 256 << 10;

/// Most bytes that are handed on at once, and the memory that one of them can keep. 64 KiB: a frame of the usual size.
pub const READ_BYTES: usize = 64 << 10;

/// Time in which a connection must be up, unless the options say otherwise. 20 s: with a fifth of the packets lost each
/// way at 200 ms of round trip, connecting took under 4 s, with two fifths lost up to 17 s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Silence after which a connection is lost. 30 s: above the outages of 16 to 24 s that QUIC was seen to bridge.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence after which a packet is sent that asks for an answer; three may be lost before a path counts as idle.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Time that connections have to say farewell with the core's own codes once the node has closed.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// What becomes of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Its handshake begins.
    Accept,
    /// It must first prove that its address is its own; nothing is kept of it.
    Retry,
    /// There are too many already; nothing is computed for it.
    Refuse,
}

impl Caller {
    /// With so many handshakes of callers under way and so many connections that callers count against.
    #[must_use]
    pub fn admit(handshakes: usize, connections: usize, proven_address: bool) -> Self {
        if handshakes >= MAX_HANDSHAKES || connections >= MAX_CONNECTIONS {
            Self::Refuse
        } else if handshakes >= MAX_HANDSHAKES / 2 && !proven_address {
            Self::Retry
        } else {
            Self::Accept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_prove_their_address_in_a_crowd_and_are_turned_away_from_a_full_house() {
        assert_eq!(Caller::admit(MAX_HANDSHAKES / 2 - 1, MAX_CONNECTIONS - 1, false), Caller::Accept);
        assert_eq!(Caller::admit(MAX_HANDSHAKES / 2, 0, false), Caller::Retry);
        assert_eq!(Caller::admit(MAX_HANDSHAKES - 1, 0, true), Caller::Accept);
        assert_eq!(Caller::admit(MAX_HANDSHAKES, 0, true), Caller::Refuse);
        assert_eq!(Caller::admit(0, MAX_CONNECTIONS, true), Caller::Refuse);
    }
}
