//! What must hold after every step.

use std::collections::BTreeMap;

use bytes::Bytes;
use peat_proto::policy::{Class, Shares};
use peat_proto::wire::v1::Kind;
use peat_proto::{ConnId, Lane, Node, Reason, Time, Wire};

use super::said::{self, Wholes};
use super::setup::Habit;
use super::{World, log};

/// What the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    shares: BTreeMap<ConnId, Credit>,
    wholes: Wholes,
    /// Frames with changes or documents that each node sent to each other member.
    pub(crate) data: BTreeMap<(usize, usize), u64>,
    /// Bytes of the most that a node or a fielded peer sent to be taken in at once.
    largest: usize,
}

/// The rule of the classes, written down a second time: each earns its share of what is sent while it waits, up to
/// 64 KiB, and whoever sends pays.
#[derive(Debug, Default)]
struct Credit([i64; 5]);

const CREDIT_CAP: i64 = (64 << 10) * 100;

/// Bytes of what an entry names beside what it carries: heads, samples and wishes of 32 B each, of which no world has more
/// than 128 at a time.
const NAMES: usize = 4 << 10;

/// Bytes of the largest control frame.
const CONTROL_FRAME: usize = 8 << 10;

/// What a class owes at most: 32 MiB.
const DEBT_CAP: i64 = (32 << 20) * 100;

impl World {
    /// The deadline of a drained node lies ahead.
    pub(crate) fn check_deadline(&mut self, member: usize, deadline: Option<(Time, Reason)>) {
        let told = self.hosts[member].told;
        if let Some((due, reason)) = deadline.filter(|(due, _)| *due <= told) {
            let late = told.since(due);
            self.violated(Some(member), format!("drained, and {reason:?} is due since {late:?}: it would spin"));
        }
    }

    /// What holds after every step.
    pub(crate) fn check(&mut self) {
        for member in 0..self.hosts.len() {
            let host = &self.hosts[member];
            let Some(node) = host.node.as_ref().filter(|_| host.unchecked && !host.dirty) else { continue };
            let outcome = self.check_node(node).and_then(|()| self.check_deletions(member));
            self.hosts[member].unchecked = false;
            self.expect(Some(member), outcome);
        }
        if log::errors() > 0 {
            self.violated(None, "an error was logged");
        }
    }

    fn check_node(&self, node: &Node) -> Result<(), String> {
        node.check().map_err(|violation| violation.to_string())?;
        let stats = node.stats();
        // What comes above twice the budget is refused; the last that was taken in may be as large as any frame was, and
        // deflated, and counts for 1 KiB more while it waits.
        let most = 2 * self.setup.undurable + 4 * self.checks.largest + (1 << 10);
        if stats.undurable_bytes > most {
            return Err(format!("{} bytes are not durable; {most} at most", stats.undurable_bytes));
        }
        // A frame leaves while there is room, and may be larger than the room.
        let most = self.setup.window.1 + self.largest_frame() + CONTROL_FRAME;
        if let Some(peer) = stats.peers.iter().find(|peer| peer.in_flight > most) {
            return Err(format!("{} bytes are in flight to {}; {most} at most", peer.in_flight, peer.peer));
        }
        if stats.documents > 0 && stats.quarantined > 0 && self.fired.of(super::Fault::LoadFailed) == 0 {
            return Err("a document is quarantined and no load failed".to_owned());
        }
        Ok(())
    }

    /// What holds of every frame that an honest node sends.
    pub(crate) fn check_frame(&mut self, member: usize, conn: ConnId, lane: Lane, bytes: &Bytes) {
        let outcome = self.frame_is_sound(member, conn, lane, bytes).and_then(|largest| {
            self.checks.largest = self.checks.largest.max(largest);
            self.is_its_turn(member, conn, lane, bytes)
        });
        self.expect(Some(member), outcome);
    }

    /// Somebody whose changes are taken sent a frame of so many bytes.
    pub(crate) fn note_frame(&mut self, bytes: usize) {
        self.checks.largest = self.checks.largest.max(bytes);
    }

    /// Answers how much of it will be taken in at once.
    fn frame_is_sound(&mut self, member: usize, conn: ConnId, lane: Lane, bytes: &Bytes) -> Result<usize, String> {
        let end = self.net.ends.get(&conn).ok_or("a frame on a connection that was closed")?;
        if end.wire != Wire::V1 {
            return Err(format!("{lane:?} on the legacy wire"));
        }
        let (kind, mut said) = said::on_v1(bytes)?;
        if said.iter().any(|said| !said.carried.is_empty() || said.piece.is_some()) {
            *self.checks.data.entry((member, end.peer)).or_default() += 1;
        }
        for said in &mut said {
            let Some(piece) = &said.piece else { continue };
            said.carried.extend(self.checks.wholes.complete(member, end.peer, &said.doc, piece));
        }
        if matches!(kind, Kind::Entries | Kind::Packed) == (lane == Lane::Control) {
            return Err(format!("{kind:?} on {lane:?}"));
        }
        if self.setup.habit(end.peer) == Some(Habit::Stranger) && !matches!(kind, Kind::Hello | Kind::Proof) {
            return Err(format!("{kind:?} to a stranger"));
        }
        // What is larger goes in pieces.
        let single = said.iter().map(|said| said.size).max().unwrap_or_default().min(self.setup.frame.max(1 << 10));
        let most = if lane == Lane::Control { CONTROL_FRAME } else { 2 * self.setup.frame + single + NAMES };
        if bytes.len() > most {
            return Err(format!("a {kind:?} of {} bytes; frames are filled up to {}", bytes.len(), self.setup.frame));
        }
        self.check_sight(member, end.peer, &said)?;
        self.model.gate(member, &said)?;
        Ok(said.iter().map(|said| said.size).max().unwrap_or_default())
    }

    /// Bytes of the largest frame with documents, for the size up to which frames are filled: an entry may stand above it,
    /// and what does not compress as well as what came before it takes twice as much.
    fn largest_frame(&self) -> usize {
        self.setup.frame.max(16 << 10) * 4
    }

    /// The most important class whose share is not used up goes first.
    pub(super) fn is_its_turn(&mut self, member: usize, conn: ConnId, lane: Lane, bytes: &Bytes) -> Result<(), String> {
        let (Lane::Class(sender) | Lane::Once(sender)) = lane else { return Ok(()) };
        let Some(node) = &self.hosts[member].node else { return Ok(()) };
        let waiting = node.waiting(conn);
        let shares = self.checks.shares.entry(conn).or_default();
        let passed_over = waiting.iter().find(|class| **class < sender && shares.0[class.index()] >= 0).copied();
        shares.charge(node.policy().shares(), sender, bytes.len(), &node.earning(conn));
        match passed_over {
            Some(class) => Err(format!("{sender:?} went before {class:?}, whose share was not used up")),
            None => Ok(()),
        }
    }
}

impl Credit {
    fn charge(&mut self, parts: Shares, sender: Class, bytes: usize, waiting: &[Class]) {
        let bytes = bytes as i64;
        let present = |class: &Class| *class == sender || waiting.contains(class);
        let total: u64 =
            Class::ALL.iter().filter(|class| present(class)).map(|class| u64::from(parts.of(*class))).sum();
        for class in Class::ALL.iter().filter(|class| present(class)) {
            let earned = bytes * 100 / total as i64 * i64::from(parts.of(*class));
            let paid = if *class == sender { bytes * 100 } else { 0 };
            let credit = &mut self.0[class.index()];
            *credit = ((*credit + earned).min(CREDIT_CAP) - paid).max(-DEBT_CAP);
        }
    }
}
