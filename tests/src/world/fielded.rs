//! Members that are fielded peers of the legacy wire.

use bytes::Bytes;
use peat_proto::automerge::ChangeHash;
use peat_proto::wire::Delta;
use peat_proto::{ConnId, DocId, Lane, Now, PeerId, Time, Wire};

use super::host::EPOCH;
use super::setup::{Setup, peer};
use super::verdict::Fault;
use super::{Happening, World};
use crate::legacy::{
    self, Bad, Batch, Config, Dialect, Family, Field, Frame, Input, Library, Member, Output, Tombstone, V07,
    decode_all, kind,
};

/// What kind of fielded peer a member is. With everything else it is as fielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fielded {
    /// Which of the two families.
    pub family: Family,
    /// With Automerge 0.7; otherwise with 0.12.
    pub old: bool,
    /// A release that keeps one stream open, checks markers before it sends, and has a logical clock.
    pub later: bool,
    /// Keeps its documents over a restart, and its markers at all.
    pub disk: bool,
    /// Dials the nodes that it is linked with, where its family does; otherwise they dial it.
    pub dials: bool,
}

/// Frames that nodes have sent on the legacy wire.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LegacyFrames {
    /// To other nodes, heartbeats not counted.
    pub(crate) to_nodes: u64,
    /// To fielded peers, with changes or a whole document.
    pub(crate) data_to_fielded: u64,
    /// To fielded peers, with anything else.
    pub(crate) answers_to_fielded: u64,
    /// Heartbeats to anybody.
    pub(crate) heartbeats: u64,
}

/// A member of that kind.
#[derive(Debug)]
pub(crate) struct Veteran {
    pub(crate) kind: Fielded,
    pub(crate) member: Member,
    alarm: Option<Time>,
    skew: i64,
    restarts: u64,
}

impl Fielded {
    /// One of the kinds, by a number.
    #[must_use]
    pub fn drawn(number: u64) -> Self {
        let bit = |at: u32| number >> at & 1 == 1;
        let family = if bit(0) { Family::HostRuntime } else { Family::NodeBinary };
        Self { family, old: bit(1), later: bit(2), disk: !(bit(3) && bit(4)), dials: bit(5) }
    }

    /// The same kind where membership is proven like this: each dialect is that of one family.
    pub(crate) fn proving(self, proof: Option<Dialect>) -> Self {
        match proof {
            Some(Dialect::M) => Self { family: Family::NodeBinary, ..self },
            Some(Dialect::P) => Self { family: Family::HostRuntime, ..self },
            None => self,
        }
    }

    /// Whether it is the one that dials.
    pub(crate) fn dials(self) -> bool {
        self.dials && self.family == Family::HostRuntime
    }

    fn config(self, setup: &Setup, dials: Vec<PeerId>) -> Config {
        let mut config = match self.family {
            Family::NodeBinary => Config::node_binary(),
            Family::HostRuntime => Config::host_runtime(),
        };
        if self.later {
            config = Config { names: config.names, ..config.later() };
        }
        // Documents of a world grow beyond the burst of the default link, and are then never sent.
        config.bandwidth = None;
        config.streams = Some(100);
        config.auth = setup.fielded_auth();
        config.disk = self.disk;
        config.dials = dials;
        config
    }
}

impl Veteran {
    pub(crate) fn new(setup: &Setup, number: usize, kind: Fielded, dials: Vec<usize>, skew: i64) -> Self {
        let at = clock(Time::ZERO, skew);
        let make = if kind.old { Member::v07 } else { Member::v12 };
        let dials = dials.into_iter().map(peer).collect();
        let member = make(peer(setup.first_fielded() + number), kind.config(setup, dials), setup.seed, at);
        Self { kind, member, alarm: None, skew, restarts: 0 }
    }
}

/// Whether fielded peers can read a frame, with all that is in it.
fn is_readable(bytes: &[u8]) -> Result<(), String> {
    let bad = |bad: Bad| format!("a frame that no fielded peer would read: {bad}");
    let (frame, used) = Frame::read(bytes).map_err(bad)?.ok_or("half a frame")?;
    if used != bytes.len() {
        return Err(format!("{} bytes behind a frame", bytes.len() - used));
    }
    match frame.kind {
        kind::DELTA if !V07::is_message(&frame.payload) => Err("a delta that Automerge 0.7 does not read".to_owned()),
        kind::SNAPSHOT if V07::load(&frame.payload).is_err() || frame.payload.is_empty() => {
            Err("a snapshot that Automerge 0.7 does not load".to_owned())
        }
        kind::DELTA | kind::SNAPSHOT => Ok(()),
        kind::TOMBSTONE => Tombstone::decode(&frame.payload).map(drop).map_err(bad),
        kind::TOMBSTONE_BATCH => decode_all(&frame.payload).map(drop).map_err(bad),
        kind::BATCH => {
            let batch = Batch::decode(&frame.payload, false).map_err(bad)?;
            let usable = |entry: &Frame| matches!(entry.kind, kind::DELTA | kind::SNAPSHOT | kind::TOMBSTONE);
            match batch.entries.iter().find(|entry| !usable(entry)) {
                Some(entry) => Err(format!("a batch entry of type {:#04x}, which fielded peers ignore", entry.kind)),
                None => batch.entries.iter().try_for_each(|entry| is_readable(&entry.encode())),
            }
        }
        kind::NEGENTROPY_REPLY => Ok(()),
        other => Err(format!("a frame of type {other:#04x}")),
    }
}

/// Whether a frame moves content: changes or a whole document.
fn carries_data(bytes: &[u8]) -> bool {
    let Ok(Some((frame, _))) = Frame::read(bytes) else { return false };
    let moves = |frame: &Frame| match frame.kind {
        kind::SNAPSHOT => true,
        kind::DELTA => Delta::decode(frame.payload.clone().into()).is_ok_and(|delta| !delta.changes.is_empty()),
        _ => false,
    };
    match frame.kind {
        kind::BATCH => Batch::decode(&frame.payload, false).is_ok_and(|batch| batch.entries.iter().any(moves)),
        _ => moves(&frame),
    }
}

fn clock(mono: Time, skew: i64) -> Now {
    let millis = i64::try_from(mono.as_micros() / 1000).unwrap_or(i64::MAX);
    let wall = EPOCH.saturating_add(millis).saturating_add(skew);
    Now { mono, unix_ms: u64::try_from(wall).unwrap_or(0) }
}

impl World {
    /// A fielded member.
    #[must_use]
    pub fn fielded(&self, member: usize) -> Option<&Member> {
        self.veterans.get(member.checked_sub(self.setup.first_fielded())?).map(|veteran| &veteran.member)
    }

    /// Gives one input to a fielded member, and does what it then wants done.
    pub(crate) fn veteran_input(&mut self, member: usize, input: Input) {
        self.with_veteran(member, |it, now| it.handle(now, input));
    }

    /// Does something to a fielded member, then what it wants done.
    pub(crate) fn with_veteran(&mut self, member: usize, act: impl FnOnce(&mut Member, Now)) {
        let now = self.now();
        let index = member - self.setup.first_fielded();
        let Some(veteran) = self.veterans.get_mut(index) else { return };
        let at = clock(now, veteran.skew);
        act(&mut veteran.member, at);
        while let Some(output) = self.veterans[index].member.poll() {
            self.veteran_output(member, output);
        }
        let veteran = &mut self.veterans[index];
        if veteran.member.is_aborted() {
            return self.violated(Some(member), "the legacy process ran out of memory");
        }
        let due = veteran.member.timeout();
        if due != veteran.alarm {
            veteran.alarm = due;
            if let Some(at) = due {
                self.heap.at(at, Happening::Alarm { member, at });
            }
        }
    }

    pub(crate) fn veteran_alarm(&mut self, member: usize, at: Time) {
        let index = member - self.setup.first_fielded();
        if self.veterans[index].alarm == Some(at) {
            self.veterans[index].alarm = None;
            self.trace.note(self.heap.now(), member as u64, 1, &[]);
            self.veteran_input(member, Input::Timeout);
        }
    }

    fn veteran_output(&mut self, member: usize, output: Output) {
        match output {
            Output::Open { conn, stream, bytes, fin, stop } => {
                self.trace.note(self.now(), conn.0, 16, &bytes);
                self.note_frame(bytes.len());
                self.open_stream(conn, stream, None, stop);
                self.write_stream(conn, stream, bytes, fin);
            }
            Output::Write { conn, stream, bytes, fin } => {
                self.trace.note(self.now(), conn.0, 17, &bytes);
                self.note_frame(bytes.len());
                self.write_stream(conn, stream, bytes, fin);
            }
            Output::Stop { conn, stream } => self.stop_stream(conn, stream),
            Output::Close { conn, code } => self.hang_up(conn, Some(code)),
            Output::Dial { peer } => {
                let to = super::setup::member(&peer);
                let wait = 2 * u64::from(self.net.path(member, to).profile.latency) + 1;
                let life = self.life(member);
                self.heap.after(wait, Happening::Dialled { from: member, life, to });
            }
        }
    }

    /// Counts the lives of a member: what was under way for an earlier one is void.
    pub(crate) fn life(&self, member: usize) -> u64 {
        match self.hosts.get(member) {
            Some(host) => host.life,
            None => member.checked_sub(self.setup.first_fielded()).map_or(0, |index| self.veterans[index].restarts),
        }
    }

    /// The process of a fielded member ends without a word and starts again at once.
    pub(crate) fn restart_veteran(&mut self, member: usize) {
        self.fired.count(Fault::FieldedRestart);
        self.trace.note(self.now(), member as u64, 18, &[]);
        self.leave(member, None);
        let seed = self.setup.seed;
        let index = member - self.setup.first_fielded();
        self.veterans[index].restarts += 1;
        let restarts = self.veterans[index].restarts;
        self.with_veteran(member, |it, now| it.restart(seed ^ restarts << 32, now));
    }

    /// An application at a fielded member sets a field. What a disk holds is durable at once.
    pub(crate) fn veteran_edit(&mut self, member: usize, doc: &DocId, value: u32) {
        let key = doc.as_str().to_owned();
        let field = format!("f{}", value % 3);
        self.with_veteran(member, |it, now| it.put(now, &key, &field, Some(&Field::Int(value.into()))));
        if self.fielded(member).is_some_and(|it| it.markers().iter().any(|marker| marker.key() == key)) {
            self.relapsed.insert((member, doc.clone()));
        }
        let heads = self.veterans[member - self.setup.first_fielded()].member.heads(doc.as_str());
        if let [head] = heads[..] {
            self.promise_of_veteran(member, doc, ChangeHash(head));
        }
        self.fired.count(Fault::FieldedEdit);
    }

    /// What a fielded member with a disk wrote is there for ever.
    pub(crate) fn promise_of_veteran(&mut self, member: usize, doc: &DocId, hash: ChangeHash) {
        if self.veterans[member - self.setup.first_fielded()].kind.disk {
            self.model.promise(doc, hash);
        }
    }

    /// What an operator does about fielded members when all faults have ended: whoever they have cut off is started again,
    /// for nothing else helps (FLOW-1).
    pub(crate) fn calm_veterans(&mut self) {
        for member in self.setup.all_fielded() {
            let it = self.fielded(member).expect("it is one of them");
            if (0..self.setup.members()).any(|other| it.is_cut_off(&peer(other))) {
                self.restart_veteran(member);
            }
        }
    }

    /// What keeps fielded members from being equal to the nodes.
    pub(crate) fn unequal_veteran(&self, listing: &[(DocId, peat_proto::Heads)]) -> Option<String> {
        for member in self.setup.all_fielded() {
            let it = self.fielded(member)?;
            for (doc, heads) in listing {
                let theirs = it.heads(doc.as_str());
                if theirs.is_empty() && self.dropped.contains(&(member, doc.clone())) {
                    continue;
                }
                if !heads.as_slice().iter().map(|head| head.0).eq(theirs.iter().copied()) {
                    return Some(format!("fielded peer {member} has {} heads of {doc}: {heads:?}", theirs.len()));
                }
            }
            let known = |key: &str| {
                let deleted = DocId::new(key).is_ok_and(|doc| self.node(0).is_some_and(|node| node.is_deleted(&doc)));
                deleted || listing.iter().any(|(doc, _)| doc.as_str() == key)
            };
            let unknown = |key: &String| !it.heads(key).is_empty() && !known(key);
            if let Some(key) = it.documents().into_iter().find(unknown) {
                return Some(format!("only fielded peer {member} has {key}"));
            }
        }
        None
    }

    /// What holds of everything that a node says on the legacy wire: fielded peers can read it, all of it.
    pub(crate) fn check_legacy_frame(&mut self, member: usize, conn: ConnId, lane: Lane, bytes: &Bytes) {
        let sound = self.legacy_frame_is_sound(member, conn, lane, bytes);
        let outcome = sound.and_then(|()| self.is_its_turn(member, conn, lane, bytes));
        self.expect(Some(member), outcome);
        self.note_frame(bytes.len());
        let to_node = self.net.ends.get(&conn).is_some_and(|end| end.peer < self.setup.nodes);
        let count = match lane {
            Lane::Once(_) if to_node => &mut self.said.to_nodes,
            Lane::Once(_) if carries_data(bytes) => &mut self.said.data_to_fielded,
            Lane::Once(_) => &mut self.said.answers_to_fielded,
            Lane::Pulse => &mut self.said.heartbeats,
            Lane::Dialogue | Lane::Control | Lane::Class(_) => return,
        };
        *count += 1;
    }

    fn legacy_frame_is_sound(&self, member: usize, conn: ConnId, lane: Lane, bytes: &Bytes) -> Result<(), String> {
        let end = self.net.ends.get(&conn).ok_or("a frame on a connection that was closed")?;
        if end.wire != Wire::V0 {
            return Err(format!("{lane:?} on a wire that has none"));
        }
        match lane {
            // The handshake: its reader judges it.
            Lane::Dialogue => Ok(()),
            Lane::Pulse => match legacy::read_heartbeat(bytes) {
                Ok(Some(_)) if bytes.len() == 9 => Ok(()),
                other => Err(format!("no heartbeat: {other:?}")),
            },
            Lane::Once(_) => {
                is_readable(bytes)?;
                self.model.gate(member, &super::said::on_v0(bytes, &self.caps)?)
            }
            Lane::Control | Lane::Class(_) => Err(format!("{lane:?} on the legacy wire")),
        }
    }

    /// An end that a fielded member has of a connection.
    pub(crate) fn is_veteran(&self, member: usize) -> bool {
        member >= self.setup.first_fielded()
    }

    /// An input for the fielded member that has this end of a connection.
    pub(crate) fn tell_veteran(&mut self, conn: ConnId, input: Input) {
        if let Some(member) = self.net.ends.get(&conn).map(|end| end.member)
            && self.is_veteran(member)
        {
            self.veteran_input(member, input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Profile;
    use super::super::step::Step;
    use super::*;

    /// Three fielded peers in a line beside a node. They are members 1, 2 and 3, and of one generation: of what a later
    /// release writes on its one stream, an earlier one reads the first frame.
    fn line(seed: u64, profile: Profile) -> Setup {
        let later = seed.is_multiple_of(2);
        let kind = |old| Fielded { family: Family::HostRuntime, old, later, disk: true, dials: true };
        let fielded = vec![kind(true), kind(false), kind(true)];
        Setup { profile, fielded, ..Setup::quiet(seed, 1, 8) }
    }

    fn agree(world: &World) -> bool {
        let view = |member: usize| {
            let it = world.fielded(member).expect("it is one of them");
            it.documents().into_iter().map(|key| (it.heads(&key), key)).collect::<Vec<_>>()
        };
        view(1) == view(2) && view(2) == view(3) && !view(1).is_empty()
    }

    #[test]
    fn fielded_peers_come_together_over_simulated_links() {
        let faulty = Profile { loss: 300, reset: 300, hangup: 50, ..Profile::WIFI };
        for (seed, profile) in [(1, Profile::LAN), (2, Profile::SATELLITE), (3, faulty), (4, faulty)] {
            let mut world = World::new(line(seed, profile));
            for edit in 0..60 {
                world.apply(Step::FieldedEdit { peer: edit, doc: u16::from(edit) % 8, value: edit.into() });
                world.apply(Step::Advance { ms: 700 });
                if edit % 20 == 19 {
                    world.apply(Step::FieldedRestart { peer: edit / 20 });
                }
            }
            world.calm();
            let mut slices = 0;
            while !agree(&world) && slices < 200 {
                world.pass(5_000_000);
                slices += 1;
            }
            assert!(agree(&world), "{seed}");
            assert_eq!(world.violation(), None);
        }
    }

    #[test]
    fn a_world_with_fielded_peers_is_a_function_of_its_seed() {
        let trace = |seed| {
            let mut world = World::new(line(seed, Profile { reset: 300, ..Profile::WIFI }));
            for edit in 0..30 {
                world.apply(Step::FieldedEdit { peer: edit, doc: u16::from(edit) % 8, value: edit.into() });
                world.apply(Step::Advance { ms: 300 });
            }
            world.trace()
        };
        assert_eq!(trace(5), trace(5));
        assert_ne!(trace(5), trace(6));
    }
}
