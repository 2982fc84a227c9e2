//! What is too large for one frame.

use super::Node;
use crate::doc::inbox::Payload;
use crate::id::{ConnId, DocId};
use crate::io::Refusal;
use crate::sync::exchange::Exchange;
use crate::sync::pieces::Taken;
use crate::wire::v1::{Body, Entry, Form, Held, Piece};

impl Node {
    /// A piece arrived.
    pub(super) fn heard_piece(&mut self, id: ConnId, doc: &DocId, piece: Piece) {
        let class = self.docs.class(doc);
        let most = self.config.max_exchanges;
        if piece.whole > self.config.max_snapshot as u64 {
            return self.deny(id, doc, Refusal::TooLarge);
        }
        if let Err(reason) = self.may_take(id, &self.docs.policy().of(doc)) {
            return self.deny(id, doc, reason);
        }
        let document = self.docs.get(doc);
        let (slot, buried) = (document.map(|d| d.slot), document.is_some_and(|d| d.marker().is_some()));
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (peer, reliable) = (conn.peer, conn.link.reliable);
        if let Some(slot) = slot {
            conn.equal.remove(slot);
        }
        conn.survey.excluded.include(doc);
        if conn.exchange(doc, most, Exchange::unknown).is_none() {
            // Nobody would answer; a later survey brings it again.
            self.stats.refused += 1;
            return;
        }
        if buried {
            return conn.enqueue(class, doc);
        }
        match self.assemblies.take(peer, doc, piece) {
            Taken::Whole(form, bytes) => {
                if let Some(exchange) = self.conns.get_mut(&id).and_then(|conn| conn.exchanges.get_mut(doc)) {
                    exchange.heard_whole(true);
                }
                let payload = match form {
                    Form::Saved => Payload::Saved(bytes),
                    Form::Changes => Payload::Changes(vec![bytes]),
                };
                self.take_in(id, doc, payload);
            }
            Taken::Forged => {
                self.stats.forged += 1;
                self.deny(id, doc, Refusal::Invalid);
            }
            Taken::Part { held, news } => {
                let later = self.conns.get(&id).map(|conn| self.now.mono + self.patience(conn, 0));
                let Some(conn) = self.conns.get_mut(&id) else { return };
                // The rest is on its way; if it does not come, we say what we have.
                conn.set_deadline(doc, later);
                if !news || !reliable {
                    conn.receipts.insert(doc.clone(), held);
                    conn.enqueue(class, doc);
                }
            }
        }
    }

    /// The other side told how much of a whole it has.
    pub(super) fn heard_held(&mut self, id: ConnId, doc: &DocId, held: &Held) {
        let class = self.docs.class(doc);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(exchange) = conn.exchanges.get_mut(doc) {
            exchange.held = Some(*held);
        }
        let Some((moving, transfer)) = conn.transfers.get_mut(&class) else { return };
        if moving == doc && transfer.heard(held) {
            let later = self.conns.get(&id).map(|conn| self.now.mono + self.patience(conn, 0));
            if let Some(conn) = self.conns.get_mut(&id) {
                if let Some(exchange) = conn.exchanges.get_mut(doc) {
                    exchange.tries = 0;
                }
                conn.set_deadline(doc, later);
            }
        }
    }

    /// What an earlier connection brought of a document, to be told with a question for it.
    pub(super) fn remains(&self, id: ConnId, doc: &DocId) -> Option<Entry> {
        let held = self.assemblies.held(self.conns.get(&id)?.peer, doc)?;
        Some(Entry { doc: doc.clone(), body: Body::Held(held) })
    }

    /// What is to be told of a whole that is being put together, if something is.
    pub(super) fn receipt(&mut self, id: ConnId, doc: &DocId) -> Option<Entry> {
        let conn = self.conns.get_mut(&id)?;
        let held = conn.receipts.remove(doc)?;
        Some(Entry { doc: doc.clone(), body: Body::Held(held) })
    }
}
