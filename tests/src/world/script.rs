//! A world that is told what happens, as a scenario that real nodes play too. Needs a setup without faults.

use automerge::transaction::Transaction;
use automerge::{Automerge, AutomergeError};
use bytes::Bytes;
use peat_proto::policy::Table;
use peat_proto::policy::kin::Family;
use peat_proto::{ConnId, DocId, Input, Lane, Listing, Role, StreamId, SyncId, SyncOutcome, SyncRequest, Which, Wire};

use super::World;
use super::setup::peer;
use super::verdict::Fault;

/// Longer than any disk of a quiet world takes, in microseconds.
const MOMENT: u64 = 20_000;

impl World {
    /// Changes a document as an application does, loading it first, and waits until that is durable.
    ///
    /// # Panics
    /// If the node refuses.
    pub fn write(
        &mut self,
        member: usize,
        doc: &DocId,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) {
        self.open(member, doc);
        self.pass(MOMENT);
        let now = self.now();
        let host = &mut self.hosts[member];
        let clock = host.clock(now);
        let node = host.node.as_mut().expect("a member that is up");
        host.told = now;
        let before = node.last_edit();
        node.edit(clock, doc, f).expect("an edit");
        let edit = node.last_edit();
        if edit != before {
            let hash = node.doc(doc).expect("a document that is open").get_heads()[0];
            self.model.edited(member, doc, edit, hash);
        }
        self.close(member, doc);
        self.pass(MOMENT);
    }

    /// Deletes a document, and waits until that is durable.
    pub fn remove(&mut self, member: usize, doc: &DocId) {
        self.delete(member, doc);
        self.pass(MOMENT);
    }

    /// What a member holds of a document, loading it first; `None` if there is none, or it was deleted.
    pub fn read<R>(&mut self, member: usize, doc: &DocId, f: impl FnOnce(&Automerge) -> R) -> Option<R> {
        let node = self.node(member)?;
        if node.is_deleted(doc) || !node.contains(doc) {
            return None;
        }
        self.open(member, doc);
        self.pass(MOMENT);
        let read = self.node(member)?.doc(doc).map(f);
        self.close(member, doc);
        read
    }

    /// The living documents of a member.
    #[must_use]
    pub fn listed(&self, member: usize) -> Vec<Listing> {
        self.node(member).map(|node| node.documents("")).unwrap_or_default()
    }

    /// What a member does with which collection, and for whom, until it restarts.
    pub fn govern(&mut self, member: usize, table: Table, family: Family) {
        self.input(member, Input::Policy(Box::new(table)));
        self.input(member, Input::Family(family));
        self.pass(MOMENT);
    }

    /// A member closes cleanly, and begins again with what is on its disk. It has forgotten whom it was told to join.
    ///
    /// # Panics
    /// If it cannot close: something has been under way for longer than a moment.
    pub fn restart(&mut self, member: usize) {
        self.pass(MOMENT);
        assert!(self.reboot(member), "{:?}", self.unsaved(member));
        self.pass(MOMENT);
    }

    /// A member stays connected with another from here on.
    pub fn join(&mut self, from: usize, to: usize) {
        self.input(from, Input::Want { peer: peer(to), invitation: None });
        self.pass(MOMENT);
    }

    /// Somebody dials a node, which speaks our own wire alone, and offers these; whether a connection comes of it. If so,
    /// `from` must be a member.
    pub fn call(&mut self, from: usize, to: usize, offers: &[Wire]) -> bool {
        let agreed = offers.contains(&Wire::V1);
        if agreed {
            self.connect(from, to);
        }
        self.pass(MOMENT);
        agreed
    }

    /// Compares all documents of two members, as an application asks for it, and says what came of each in so many
    /// microseconds.
    pub fn compare(&mut self, member: usize, other: usize, within: u64) -> Vec<(DocId, SyncOutcome)> {
        let which = Which::Prefix(String::new());
        let within = std::time::Duration::from_micros(within);
        self.input(member, Input::SyncNow(SyncRequest { id: SyncId(0), which, peer: Some(peer(other)), within }));
        self.pass(u64::try_from(within.as_micros()).expect("it came from one") + MOMENT);
        std::mem::take(&mut self.hosts[member].synced)
    }

    /// The last code with which a connection between two members was closed, and whether the second did it.
    #[must_use]
    pub fn farewell(&self, member: usize, other: usize) -> Option<(u32, bool)> {
        self.hosts[member].farewells.get(&peer(other)).copied()
    }

    /// Breaks every connection of a member, and lets nobody reach it.
    pub fn unplug(&mut self, member: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != member) {
            self.cut(member, other);
            self.cut(other, member);
        }
        for conn in self.net.of(member) {
            self.lose_connection(conn);
        }
        self.pass(MOMENT);
    }

    /// Takes [`Self::unplug`] back.
    pub fn plug(&mut self, member: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != member) {
            self.mend(member, other);
            self.mend(other, member);
        }
    }

    /// From here on nobody finds a member where it was; it finds the others.
    pub fn hide(&mut self, member: usize) {
        self.net.hidden.insert(member);
    }

    /// A member looks for somebody at the address of another, who proves another key there: transports know that before
    /// either node hears of the other, and report a dial that failed. Whether it came to that.
    pub fn seek(&mut self, from: usize, to: usize) -> bool {
        let nobody = peer(self.setup.members());
        let (failed, reachable) = (self.fired.of(Fault::DialFailed), self.is_up(to));
        self.input(from, Input::Want { peer: nobody, invitation: None });
        self.pass(MOMENT);
        reachable && self.fired.of(Fault::DialFailed) > failed
    }

    /// A member is handed what belongs to no connection.
    pub fn pelt(&mut self, member: usize) {
        let (conn, stream) = (ConnId(u64::MAX), StreamId::new(0, Role::Dialled, false));
        for len in [0, 1, 7, 1_200, 65_000] {
            for fill in [0x00, 0x40, 0x80, 0xff] {
                let bytes = Bytes::from(vec![fill; len]);
                self.input(member, Input::Received { conn, stream, bytes, fin: fill == 0xff });
            }
        }
        self.input(member, Input::Reset { conn, stream });
        self.input(member, Input::Stopped { conn, lane: Lane::Control });
        self.input(member, Input::Disconnected { conn, code: Some(7) });
        self.pass(MOMENT);
    }

    /// Whether a member says that it and another are level.
    #[must_use]
    pub fn is_level(&self, member: usize, other: usize) -> bool {
        self.node(member).is_some_and(|node| node.level(&peer(other)))
    }
}
