//! The one channel into the loop.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
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
        outgoing: flume::Sender<(ConnId, Outgoing)>,
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

/// The sending end. Never blocks and is not bounded as a channel; each sender is bounded by itself: transports by
/// receive credit, store and workers by what the core has asked for, the application by its permits.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(Arc<RwLock<Option<flume::Sender<Message>>>>);

/// The loop's end. When it is dropped, what has not been taken is dropped too, and nothing more gets in: every answer
/// that somebody waits for then says that the node is closed.
pub(crate) struct Outlet {
    pub(crate) messages: flume::Receiver<Message>,
    inbox: Inbox,
}

pub(crate) fn inbox() -> (Inbox, Outlet) {
    let (sender, messages) = flume::unbounded();
    let inbox = Inbox(Arc::new(RwLock::new(Some(sender))));
    let outlet = Outlet { messages, inbox: inbox.clone() };
    (inbox, outlet)
}

impl Inbox {
    /// Hands a message to the loop; drops it when the loop has ended.
    pub(crate) fn send(&self, message: Message) {
        let sender = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            // The receiver outlives the sender: see `Outlet::drop`.
            let _ = sender.send(message);
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let sender = self.inbox.0.write();
        *sender.unwrap_or_else(PoisonError::into_inner) = None;
        // A channel keeps its content as long as either end lives; the senders' ends may live on in adapters.
        self.messages.drain().for_each(drop);
    }
}
