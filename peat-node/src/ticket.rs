//! Tickets: who a node is, where it listens, and the invitation that lets the bearer in.

use std::net::SocketAddr;

use peat_proto::{Invitation, PeerId};

/// Everything that another node needs to join this one. Text form: `peat` + base32. SKELETON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whom to dial; the transport pins the connection to this key.
    pub peer: PeerId,
    /// Where it listens.
    pub addrs: Vec<SocketAddr>,
    /// The secret to show it.
    pub invitation: Option<Invitation>,
}
