//! The one channel into the loop.

use std::net::SocketAddr;
use std::time::Duration;

use peat_proto::store::Stored;
use peat_proto::{ConnId, DocId, Done, Input, Link, Listing, PeerId, Stats, Which};

use crate::error::{LevelError, ReadError};
use crate::node::Deleted;
use crate::pending::Reply;
use crate::request::Request;
use crate::rules::Rules;
use crate::subscription::Feed;
use crate::sync::Answer;
use crate::ticket::Ticket;
use crate::transport::queue::Sender;
use crate::transport::{Dial, Outgoing, PortId};

/// Something for the loop to deal with.
pub(crate) enum Message {
    /// The store answers.
    Stored(Stored),
    /// A worker has run a job.
    Worked(Done),
    /// A worker could not finish a job, which counts as a crash.
    Lost,
    /// An adapter announces a connection.
    Connected {
        conn: ConnId,
        peer: PeerId,
        addr: Option<SocketAddr>,
        link: Link,
        outgoing: Sender<(ConnId, Outgoing)>,
    },
    /// Something happened on an announced connection.
    Transport(ConnId, Input),
    /// One more transport serves the node.
    Attached {
        port: PortId,
        dials: flume::Sender<Dial>,
    },
    /// A transport is gone.
    Detached {
        port: PortId,
    },
    /// A transport could not reach a peer.
    DialFailed {
        port: PortId,
        peer: PeerId,
    },
    /// A request of the application for one document.
    Request(DocId, Box<dyn Request>),
    /// The application's other wishes.
    List {
        prefix: String,
        reply: Reply<Result<Vec<Listing>, ReadError>>,
    },
    Deleted {
        prefix: String,
        reply: Reply<Result<Vec<Deleted>, ReadError>>,
    },
    Rules(Reply<Option<Rules>>),
    SetRules(Box<Rules>),
    Stats(Reply<Option<Stats>>),
    Subscribe(Feed),
    Level {
        peer: PeerId,
        reply: Reply<Result<(), LevelError>>,
    },
    SyncNow {
        which: Which,
        peer: Option<PeerId>,
        within: Duration,
        answer: Answer,
    },
    Join(Ticket),
    Part(PeerId),
    /// A visit begins, and ends.
    Visit(Ticket),
    Leave(PeerId),
    Forget(PeerId),
    Close,
}

/// The sending end. Never blocks; each sender is bounded by itself: transports by receive credit, store and workers by
/// what the core has asked for, the application by its permits. When the loop ends, what it has not taken is dropped:
/// every answer that somebody waits for then says that the node is closed.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(pub(crate) Sender<Message>);

impl Inbox {
    /// Hands a message to the loop; drops it when the loop has ended.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }
}
