//! Batches: applied one entry after another, and broadcast through persistent channels (wire.md 3, 3.1, 5.4, 9, 10.1).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peat_proto::{ConnId, PeerId, StreamId};

use super::documents::WRITE;
use super::frame::{Bad, Batch, Frame, TTL, kind};
use super::library::Library;
use super::peer::{LegacyPeer, Task};
use super::policy::{Mode, Way};
use super::streams::Own;

/// What task B waits for at most, and how many documents it waits for (9).
const TASK_B: Duration = Duration::from_millis(50);
const BATCH: usize = 20;

/// Before each attempt of a broken channel, and how many fail before it is closed for good (3.1).
const RECONNECT: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 3;

/// Silence of the other side that breaks a channel (3.1).
const SILENCE: Duration = Duration::from_secs(30);

/// A batch that is being applied.
#[derive(Debug)]
pub(super) struct Run {
    from: PeerId,
    entries: VecDeque<Frame>,
}

/// One bidirectional stream per peer that task B keeps open.
#[derive(Debug)]
pub(super) struct Channel {
    /// Counts breaks: timers of an earlier stream are void.
    epoch: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Connected { conn: ConnId, stream: StreamId, read: Vec<u8> },
    Reconnecting { failed: u32 },
    Closed,
}

impl<L: Library> LegacyPeer<L> {
    /// A batch has arrived. Nobody looks at its id, time and hops.
    pub(super) fn batch(
        &mut self,
        conn: ConnId,
        stream: StreamId,
        from: PeerId,
        payload: &[u8],
        size: u64,
    ) -> Result<(), Bad> {
        let batch = Batch::decode(payload, !self.config.warts.bad_entry_fails_all)?;
        self.stats.bytes_received += size;
        self.runs.insert((conn, stream), Run { from, entries: batch.entries.into() });
        self.after(Duration::ZERO, Task::Next(conn, stream));
        Ok(())
    }

    /// Applies the next entry. STREAM-6: the one behind it waits until its answer has left.
    pub(super) fn apply_next(&mut self, conn: ConnId, stream: StreamId) {
        let Some(run) = self.runs.get_mut(&(conn, stream)) else { return };
        let from = run.from;
        let Some(entry) = run.entries.pop_front() else {
            self.runs.remove(&(conn, stream));
            self.dealt_with(conn, stream, Vec::new());
            return self.read(conn, stream);
        };
        let before = self.stats.sent.clone();
        let size = entry.payload.len() as u64;
        let outcome = match entry.kind {
            kind::DELTA => self.delta(from, &entry.key, &entry.payload, size),
            kind::SNAPSHOT => self.snapshot(from, &entry.key, &entry.payload, size),
            kind::TOMBSTONE => self.tombstone(from, &entry.payload, size, false),
            // Decoded, and ignored with a warning (4.2).
            _ => Ok(()),
        };
        if let Err(bad) = outcome {
            self.refused(from, bad);
        }
        let answered = self.config.warts.serial && self.stats.sent != before;
        let wait = if answered { self.moment(WRITE) } else { Duration::ZERO };
        self.after(wait, Task::Next(conn, stream));
    }

    /// Documents as one batch: snapshots, and for full history a message from an empty state, which merely starts an
    /// exchange (5.4). Missing documents are left out, and markers are not consulted.
    pub(super) fn batch_of(&mut self, keys: &[String], id: u64) -> Batch {
        let mut entries = Vec::new();
        for key in keys {
            let Some(doc) = self.store.doc(key) else { continue };
            if self.config.mode(key) != Mode::FullHistory {
                entries.push(Frame::new(kind::SNAPSHOT, key, L::save(doc)));
            } else if let Some(message) = L::generate(doc, &mut L::State::default()) {
                entries.push(Frame::new(kind::DELTA, key, message));
            }
            if self.config.warts.forgets {
                self.forget_states(key);
            }
        }
        Batch { id, created_ms: self.now.unix_ms, ttl: TTL, entries }
    }

    /// The id of a batch that is built from a list of documents (5.4).
    pub(super) fn next_batch_id(&mut self) -> u64 {
        self.batch_id += 1;
        self.batch_id
    }

    /// Task B notes a change, and who it came from.
    pub(super) fn collect_change(&mut self, key: &str, origin: Option<PeerId>) {
        if self.collected.is_empty() {
            self.after(TASK_B, Task::Flush);
        }
        self.collected.insert(key.to_owned(), origin);
        if self.collected.len() >= BATCH {
            self.flush();
        }
    }

    /// Task B sends what it has collected: to all as one batch, or by direction in the order of 10.1.
    pub(super) fn flush(&mut self) {
        let collected = std::mem::take(&mut self.collected);
        if collected.is_empty() {
            return;
        }
        let Some(kin) = self.config.kin.clone() else {
            let id = self.next_batch_id();
            let all = self.peers.keys().copied().collect();
            return self.broadcast(id, collected.into_iter().collect(), all);
        };
        let mut parts: BTreeMap<Way, Vec<_>> = BTreeMap::new();
        for (key, origin) in collected {
            parts.entry(self.config.names.way(&key)).or_default().push((key, origin));
        }
        for (way, keys) in parts {
            let targets = match way {
                Way::Upward => kin.parent.into_iter().collect(),
                Way::Downward => kin.children.iter().copied().collect(),
                Way::Lateral => kin.siblings.iter().copied().collect(),
                Way::Broadcast => self.peers.keys().copied().collect(),
            };
            self.broadcast(0, keys, targets);
        }
    }

    /// Nothing goes back to where it came from, if anybody has noted that (16, before rc.28).
    fn broadcast(&mut self, id: u64, changes: Vec<(String, Option<PeerId>)>, targets: Vec<PeerId>) {
        for peer in targets {
            let keys = changes.iter().filter(|(_, origin)| *origin != Some(peer));
            let keys: Vec<String> = keys.map(|(key, _)| key.clone()).collect();
            let batch = self.batch_of(&keys, id);
            if batch.entries.is_empty() {
                continue;
            }
            if self.config.persistent {
                drop(self.send(peer, &batch.frame()));
            } else if self.config.warts.channels {
                self.send_in_channel(peer, batch.frame());
            }
        }
    }

    /// Writes on the channel of a peer. What a broken one is given counts as sent and is lost (STREAM-2).
    fn send_in_channel(&mut self, peer: PeerId, frame: Frame) {
        let conn = self.peers.get(&peer).copied();
        let bytes = frame.encode();
        match self.channels.get(&peer).map(|channel| &channel.state) {
            None => {
                let Some(conn) = conn else { return };
                self.open_channel(peer, conn, 0, bytes);
                *self.stats.sent.entry(frame.kind).or_default() += 1;
            }
            Some(State::Connected { conn, stream, .. }) => {
                let (conn, stream) = (*conn, *stream);
                self.write(conn, stream, bytes, false);
                *self.stats.sent.entry(frame.kind).or_default() += 1;
            }
            Some(State::Reconnecting { .. } | State::Closed) => self.stats.lost += 1,
        }
    }

    fn open_channel(&mut self, peer: PeerId, conn: ConnId, epoch: u64, bytes: Vec<u8>) {
        let Some(stream) = self.open(conn, false, bytes, false, false, Some(Own::Channel)) else { return };
        self.channels.insert(peer, Channel { epoch, state: State::Connected { conn, stream, read: Vec::new() } });
        self.after(SILENCE, Task::Idle(peer, epoch));
    }

    /// Bytes that come back on a channel. Its opener expects `0x07 ‖ u32 length ‖ batch` and skips, byte by byte, what
    /// does not begin so (3).
    pub(super) fn channel_received(&mut self, peer: PeerId, bytes: &[u8], fin: bool) {
        let Some(channel) = self.channels.get_mut(&peer) else { return };
        let State::Connected { conn, stream, read } = &mut channel.state else { return };
        let (conn, stream) = (*conn, *stream);
        read.extend_from_slice(bytes);
        let mut payloads = Vec::new();
        loop {
            let skipped = read.iter().position(|byte| *byte == kind::BATCH).unwrap_or(read.len());
            read.drain(..skipped);
            let Some(len) = read.get(1..5).and_then(|len| len.try_into().ok()).map(u32::from_be_bytes) else { break };
            let end = 5 + len as usize;
            if read.len() < end {
                break;
            }
            payloads.push(read.drain(..end).skip(5).collect::<Vec<u8>>());
        }
        for payload in payloads {
            if let Err(bad) = self.batch(conn, stream, peer, &payload, 0) {
                self.refused(peer, bad);
            }
        }
        if fin {
            self.break_channel(peer);
        } else if !bytes.is_empty() {
            self.renew_channel(peer);
        }
    }

    /// A read has succeeded: the next one has 30 s again.
    fn renew_channel(&mut self, peer: PeerId) {
        let Some(channel) = self.channels.get_mut(&peer) else { return };
        channel.epoch += 1;
        let epoch = channel.epoch;
        self.after(SILENCE, Task::Idle(peer, epoch));
    }

    fn break_channel(&mut self, peer: PeerId) {
        let Some(channel) = self.channels.get_mut(&peer) else { return };
        channel.epoch += 1;
        let epoch = channel.epoch;
        let broken = std::mem::replace(&mut channel.state, State::Reconnecting { failed: 0 });
        if let State::Connected { conn, stream, .. } = broken {
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.own.remove(&stream);
            }
            self.write(conn, stream, Vec::new(), true);
        }
        self.after(RECONNECT, Task::Reconnect(peer, epoch));
    }

    /// The connection that a channel ran over is gone.
    pub(super) fn lose_channel(&mut self, gone: ConnId) {
        let of = |channel: &Channel| matches!(channel.state, State::Connected { conn, .. } if conn == gone);
        let lost: Vec<PeerId> =
            self.channels.iter().filter(|(_, channel)| of(channel)).map(|(peer, _)| *peer).collect();
        for peer in lost {
            self.break_channel(peer);
        }
    }

    pub(super) fn idle_channel(&mut self, peer: PeerId, epoch: u64) {
        if self.channels.get(&peer).is_some_and(|channel| channel.epoch == epoch) {
            self.break_channel(peer);
        }
    }

    pub(super) fn reconnect_channel(&mut self, peer: PeerId, epoch: u64) {
        let conn = self.peers.get(&peer).copied().filter(|conn| self.conns.contains_key(conn));
        let Some(channel) = self.channels.get_mut(&peer).filter(|channel| channel.epoch == epoch) else { return };
        let State::Reconnecting { failed } = &mut channel.state else { return };
        match conn {
            Some(conn) => self.open_channel(peer, conn, epoch + 1, Vec::new()),
            None if *failed + 1 == ATTEMPTS => channel.state = State::Closed,
            None => {
                *failed += 1;
                self.after(RECONNECT, Task::Reconnect(peer, epoch));
            }
        }
    }
}
