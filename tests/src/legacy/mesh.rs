//! A small network of legacy peers alone, on virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peat_proto::{ConnId, Now, PeerId, Rng, Role, StreamId, Time};

use super::config::Family;
use super::io::{Input, Output};
use super::member::Member;

/// Unix time at which a mesh begins, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

/// Peers, and what is on its way between them.
#[derive(Debug)]
pub struct Mesh {
    /// The peers, by their numbers.
    pub members: Vec<Member>,
    /// One way between any two, for the first byte of a stream; bytes of one stream never overtake each other.
    pub latency: Duration,
    /// Of 10,000 streams that are opened, so many are reset and never seen.
    pub loss: u64,
    /// Everything that was written, in the order of writing.
    pub said: Vec<Said>,
    now: Time,
    ends: BTreeMap<ConnId, End>,
    halves: BTreeMap<(ConnId, StreamId), Half>,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    rng: Rng,
}

/// Bytes that a peer wrote on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at: Time,
    /// Who.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// On which stream of their connection.
    pub stream: StreamId,
    /// Whether the stream was opened for them.
    pub opens: bool,
    /// What.
    pub bytes: Bytes,
    /// Whether the half was finished behind them.
    pub fin: bool,
}

#[derive(Debug, Clone, Copy)]
struct End {
    member: usize,
    other: ConnId,
    role: Role,
}

/// One direction of a stream, by the end that writes.
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    /// No byte arrives before the one in front of it.
    newest: Time,
    /// Nothing of it arrives.
    lost: bool,
    /// Finished or stopped.
    over: bool,
}

#[derive(Debug)]
enum Event {
    Input(usize, Input),
    Dial(usize, PeerId),
}

impl Mesh {
    /// Nobody yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0x3c; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self {
            members: Vec::new(),
            latency: Duration::from_millis(5),
            loss: 0,
            said: Vec::new(),
            now: Time::ZERO,
            ends: BTreeMap::new(),
            halves: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: Rng::new(bytes),
        }
    }

    /// The clocks of all members.
    #[must_use]
    pub fn clock(&self) -> Now {
        Now { mono: self.now, unix_ms: EPOCH + self.now.as_micros() / 1_000 }
    }

    /// One more member; its number.
    pub fn join(&mut self, member: Member) -> usize {
        self.members.push(member);
        self.members.len() - 1
    }

    /// `from` dials `to`.
    pub fn connect(&mut self, from: usize, to: usize) -> (ConnId, ConnId) {
        self.sequence += 2;
        let (here, there) = (ConnId(self.sequence), ConnId(self.sequence + 1));
        self.sequence += 2;
        self.ends.insert(here, End { member: from, other: there, role: Role::Dialled });
        self.ends.insert(there, End { member: to, other: here, role: Role::Accepted });
        for (conn, role) in [(here, Role::Dialled), (there, Role::Accepted)] {
            let (member, other) = if role == Role::Dialled { (from, to) } else { (to, from) };
            let peer = self.members[other].id();
            self.give(member, Input::Connected { conn, peer, role });
        }
        (here, there)
    }

    /// A connection is lost; both sides learn of it now.
    pub fn lose(&mut self, conn: ConnId) {
        let Some(end) = self.ends.remove(&conn) else { return };
        let other = self.ends.remove(&end.other).map(|other| (other.member, end.other));
        for (member, conn) in other.into_iter().chain([(end.member, conn)]) {
            self.give(member, Input::Disconnected { conn });
        }
    }

    /// All connections that exist, by the end that dialled.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnId> {
        self.ends.iter().filter(|(_, end)| end.role == Role::Dialled).map(|(conn, _)| *conn).collect()
    }

    /// A member's process ends and starts again.
    pub fn restart(&mut self, member: usize, seed: u64) {
        let of: Vec<ConnId> = self.ends.iter().filter(|(_, end)| end.member == member).map(|(conn, _)| *conn).collect();
        for conn in of {
            self.lose(conn);
        }
        let clock = self.clock();
        self.members[member].restart(seed, clock);
        self.drain(member);
    }

    /// Something is done to a member.
    pub fn with<R>(&mut self, member: usize, act: impl FnOnce(&mut Member, Now) -> R) -> R {
        let clock = self.clock();
        let result = act(&mut self.members[member], clock);
        self.drain(member);
        result
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until something holds; false if it does not within `time`.
    pub fn until(&mut self, time: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if holds(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return holds(self);
            }
        }
    }

    /// Whether these members have the same documents with the same heads.
    #[must_use]
    pub fn agree(&self, members: &[usize]) -> bool {
        let view = |member: usize| {
            let member = &self.members[member];
            let keys = member.documents().into_iter();
            let heads = keys.map(|key| (member.heads(&key), key)).filter(|(heads, _)| !heads.is_empty());
            heads.collect::<Vec<_>>()
        };
        members.windows(2).all(|pair| view(pair[0]) == view(pair[1]))
    }

    /// The next event or alarm up to `end`.
    fn step(&mut self, end: Time) -> bool {
        let event = self.queue.first_key_value().map(|((at, _), _)| *at);
        let alarms = self.members.iter().enumerate();
        let alarm = alarms.filter_map(|(number, member)| member.timeout().map(|due| (due, number))).min();
        match (event, alarm) {
            (event, Some((due, member))) if due <= end && event.is_none_or(|at| due < at) => {
                self.now = self.now.max(due);
                self.give(member, Input::Timeout);
            }
            (Some(at), _) if at <= end => {
                self.now = self.now.max(at);
                match self.queue.pop_first() {
                    Some((_, Event::Input(member, input))) => self.arrive(member, input),
                    Some((_, Event::Dial(from, peer))) => match self.members.iter().position(|it| it.id() == peer) {
                        Some(to) => drop(self.connect(from, to)),
                        None => self.give(from, Input::DialFailed { peer }),
                    },
                    None => {}
                }
            }
            _ => return false,
        }
        true
    }

    fn arrive(&mut self, member: usize, input: Input) {
        let conn = match &input {
            Input::Received { conn, .. } | Input::Disconnected { conn } | Input::Stopped { conn, .. } => Some(*conn),
            Input::Released { conn, .. } | Input::Reset { conn, .. } => Some(*conn),
            _ => None,
        };
        if conn.is_none_or(|conn| self.ends.contains_key(&conn)) {
            self.give(member, input);
        }
    }

    fn give(&mut self, member: usize, input: Input) {
        let clock = self.clock();
        self.members[member].handle(clock, input);
        self.drain(member);
    }

    fn drain(&mut self, member: usize) {
        while let Some(output) = self.members[member].poll() {
            self.output(member, output);
        }
    }

    fn output(&mut self, member: usize, output: Output) {
        match output {
            Output::Open { conn, stream, bytes, fin, stop } => {
                let lost = self.loss > 0 && self.rng.below(10_000) < self.loss;
                self.halves.insert((conn, stream), Half { lost, ..Half::default() });
                self.send(conn, stream, bytes, fin, true);
                if stop {
                    self.stop(conn, stream);
                }
            }
            Output::Write { conn, stream, bytes, fin } => self.send(conn, stream, bytes, fin, false),
            Output::Stop { conn, stream } => self.stop(conn, stream),
            Output::Close { conn, .. } => {
                let Some(end) = self.ends.remove(&conn) else { return };
                self.later(end.other, |conn| Input::Disconnected { conn });
            }
            Output::Dial { peer } => {
                self.schedule(self.now + self.latency * 2, Event::Dial(member, peer));
            }
        }
    }

    fn send(&mut self, conn: ConnId, stream: StreamId, bytes: Bytes, fin: bool, opens: bool) {
        let Some(end) = self.ends.get(&conn).copied() else { return };
        let Some(to) = self.ends.get(&end.other).map(|other| other.member) else { return };
        self.said.push(Said { at: self.now, from: end.member, to, stream, opens, bytes: bytes.clone(), fin });
        let half = self.halves.entry((conn, stream)).or_default();
        half.over |= fin;
        let (lost, over) = (half.lost, half.over);
        half.newest = half.newest.max(self.now + self.latency);
        let at = half.newest;
        // A stream on which nothing was written is not seen by the other side.
        if !lost && (fin || !bytes.is_empty()) {
            let input = Input::Received { conn: end.other, stream, bytes, fin };
            self.schedule(at, Event::Input(to, input));
        }
        if over {
            self.release(conn, stream);
        }
    }

    /// The reader of a half stops it: its writer learns of it.
    fn stop(&mut self, conn: ConnId, stream: StreamId) {
        let Some(end) = self.ends.get(&conn).copied() else { return };
        self.halves.entry((end.other, stream)).or_default().over = true;
        self.later(end.other, |conn| Input::Stopped { conn, stream });
        self.release(conn, stream);
    }

    /// Gives a stream back to its opener once both halves are over. The node binary never takes in a unidirectional one.
    fn release(&mut self, conn: ConnId, stream: StreamId) {
        let Some(end) = self.ends.get(&conn).copied() else { return };
        let (opener, acceptor) = if stream.opener() == end.role { (conn, end.other) } else { (end.other, conn) };
        let over = |conn: ConnId| self.halves.get(&(conn, stream)).is_some_and(|half| half.over);
        let Some(reader) = self.ends.get(&acceptor).map(|end| &self.members[end.member]) else { return };
        let read = match stream.is_bidirectional() {
            true => over(acceptor),
            false => reader.config().family == Family::HostRuntime,
        };
        if over(opener) && read {
            self.later(opener, |conn| Input::Released { conn, stream });
        }
    }

    fn later(&mut self, conn: ConnId, input: impl FnOnce(ConnId) -> Input) {
        let Some(member) = self.ends.get(&conn).map(|end| end.member) else { return };
        self.schedule(self.now + self.latency, Event::Input(member, input(conn)));
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }
}
