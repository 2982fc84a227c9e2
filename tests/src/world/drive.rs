//! The driver of every node: inputs in, outputs out, as the contract of `peat_proto::Node` says.

use peat_proto::store::{StoreCommand, StoreFault, Stored};
use peat_proto::{ConnId, EditError, Event, Input, Lane, Output, Time};

use super::host::{Abort, Plan, Wish, perform};
use super::link::after;
use super::model::Carried;
use super::setup::peer;
use super::verdict::Fault;
use super::{Happening, World};

/// Silence after which a transport gives a connection up, in microseconds.
pub(crate) const IDLE: u64 = 10_000_000;

impl World {
    /// Switches a host on.
    pub(crate) fn start(&mut self, member: usize, clean: bool) {
        let (now, config, seed) = (self.now(), self.setup.config_of(member), self.setup.seed);
        self.trace.note(now, member as u64, 10, &[]);
        let host = &mut self.hosts[member];
        host.start(config, seed, now, clean);
        let wants: Vec<usize> = self.links.iter().filter(|(a, _)| *a == member).map(|(_, b)| *b).collect();
        let wants = wants.into_iter().chain(self.setup.dialled_veterans(member));
        for other in wants.collect::<Vec<_>>() {
            self.input(member, Input::Want { peer: peer(other), invitation: None });
        }
        self.drain(member);
    }

    /// Gives one input to a node, and drains it now or soon.
    pub(crate) fn input(&mut self, member: usize, input: Input) {
        let now = self.now();
        let host = &mut self.hosts[member];
        let clock = host.clock(now);
        let Some(node) = &mut host.node else { return };
        node.handle(clock, input);
        host.told = now;
        self.soon(member);
    }

    /// An input for whoever has this end of a connection.
    pub(crate) fn tell(&mut self, conn: ConnId, input: Input) {
        if let Some(member) = self.net.ends.get(&conn).map(|end| end.member)
            && member < self.setup.nodes
        {
            self.input(member, input);
        }
    }

    pub(crate) fn soon(&mut self, member: usize) {
        if self.setup.lazy == 0 {
            return self.drain(member);
        }
        if !std::mem::replace(&mut self.hosts[member].dirty, true) {
            let wait = self.rng.below(u64::from(self.setup.lazy));
            let life = self.hosts[member].life;
            self.heap.after(wait, Happening::Drain { member, life });
        }
    }

    /// Does what the node wants done, until it wants no more; then checks it and sets its alarm.
    pub(crate) fn drain(&mut self, member: usize) {
        (self.hosts[member].dirty, self.hosts[member].unchecked) = (false, true);
        let mut polls = 0_u32;
        loop {
            while let Some(output) = self.hosts[member].node.as_mut().and_then(peat_proto::Node::poll) {
                polls += 1;
                self.output(member, output);
                if polls > 100_000 {
                    return self.violated(Some(member), "a drain does not end");
                }
            }
            let opened = std::mem::take(&mut self.hosts[member].opened);
            if opened.is_empty() {
                break;
            }
            for doc in opened {
                for wish in self.hosts[member].plans.remove(&doc).unwrap_or_default() {
                    match wish {
                        Wish::Edit(plan) => self.edit(member, &doc, plan),
                        Wish::Delete => self.delete(member, &doc),
                    }
                    self.close(member, &doc);
                }
            }
        }
        let deadline = self.hosts[member].node.as_ref().and_then(peat_proto::Node::timeout_reason);
        self.check_deadline(member, deadline);
        self.set_alarm(member, deadline.map(|(due, _)| due));
    }

    fn set_alarm(&mut self, member: usize, due: Option<Time>) {
        let host = &mut self.hosts[member];
        if due != host.alarm {
            host.alarm = due;
            if let Some(at) = due {
                self.heap.at(at, Happening::Alarm { member, at });
            }
        }
    }

    fn output(&mut self, member: usize, output: Output) {
        let now = self.now();
        match output {
            Output::Disconnect { conn, code } => self.hang_up(conn, Some(code.code())),
            // Of the lasting streams none has an end of its own to stop.
            Output::StopStream { conn, stream, .. } => self.stop_stream(conn, stream),
            Output::Store(command) => self.store(member, command),
            Output::Work(job) => {
                let host = &mut self.hosts[member];
                if self.setup.job == 0 {
                    let done = job.run();
                    let clock = host.clock(now);
                    if let Some(node) = &mut host.node {
                        node.handle(clock, Input::Worked(done));
                        host.told = now;
                    }
                } else {
                    host.jobs += 1;
                    let life = host.life;
                    self.fired.count(Fault::LateJob);
                    let wait = self.rng.below(u64::from(self.setup.job));
                    self.heap.after(wait, Happening::Worked { member, life, job: Box::new(job) });
                }
            }
            Output::Event(event) => self.event(member, event),
            Output::Dial { peer } => {
                let to = super::setup::member(&peer);
                let wait = 2 * u64::from(self.net.path(member, to).profile.latency) + 1;
                let life = self.hosts[member].life;
                self.heap.after(wait, Happening::Dialled { from: member, life, to });
            }
            Output::Consumed { conn, stream, bytes } => {
                let outcome = self.net.consumed(conn, stream, bytes);
                self.expect(Some(member), outcome);
                if self.net.ends.get(&conn).is_some_and(|end| !end.parked.is_empty()) {
                    self.heap.after(0, Happening::Credit { conn });
                }
            }
            Output::Reply { conn, stream, bytes, fin } => {
                self.trace.note(now, conn.0, 19, &bytes);
                self.write_stream(conn, stream, bytes, fin);
            }
            Output::Send { conn, lane: lane @ (Lane::Once(_) | Lane::Pulse | Lane::Dialogue), frame } => {
                self.trace.note(now, conn.0, 26, &frame);
                self.check_legacy_frame(member, conn, lane, &frame);
                self.send_once(conn, lane, frame);
            }
            Output::Send { conn, lane, frame } => {
                self.trace.note(now, conn.0, 20 + lane.index() as u8, &frame);
                self.check_frame(member, conn, lane, &frame);
                self.past.control += u64::from(lane == Lane::Control);
                self.transmit(conn, lane, frame);
            }
        }
    }

    fn event(&mut self, member: usize, event: Event) {
        match event {
            Event::Durable { doc, edit } => {
                let outcome = self.model.acknowledged(member, &doc, edit);
                self.expect(Some(member), outcome);
            }
            Event::Deleted { doc, .. } if !self.model.may_be_deleted(member, &doc) => {
                self.violated(Some(member), format!("{doc} is said to be deleted, and nobody deleted it"));
            }
            Event::Opened { doc } => self.hosts[member].opened.push(doc),
            Event::OpenFailed { doc, .. } => {
                self.hosts[member].opens.remove(&doc);
                self.hosts[member].plans.remove(&doc);
            }
            Event::Closed { peer, code, by_peer } => {
                self.hosts[member].farewells.insert(peer, (code, by_peer));
            }
            Event::Synced { doc, outcome, .. } => self.hosts[member].synced.push((doc, outcome)),
            _ => {}
        }
    }

    /// Brings a document into memory for an application.
    pub(crate) fn open(&mut self, member: usize, doc: &peat_proto::DocId) {
        *self.hosts[member].opens.entry(doc.clone()).or_default() += 1;
        self.input(member, Input::Open { doc: doc.clone() });
    }

    /// Takes one open back.
    pub(crate) fn close(&mut self, member: usize, doc: &peat_proto::DocId) {
        let Some(opens) = self.hosts[member].opens.get_mut(doc) else { return };
        *opens -= 1;
        if *opens == 0 {
            self.hosts[member].opens.remove(doc);
        }
        self.input(member, Input::Close { doc: doc.clone() });
    }

    /// Edits a document, now or when it is in memory.
    pub(crate) fn edit(&mut self, member: usize, doc: &peat_proto::DocId, plan: Plan) {
        let now = self.now();
        let host = &mut self.hosts[member];
        let clock = host.clock(now);
        let Some(node) = &mut host.node else { return };
        host.told = now;
        let before = node.last_edit();
        match node.edit(clock, doc, |tx| perform(tx, plan)) {
            Ok(()) => {
                let edit = node.last_edit();
                if self.model.is_buried(member, doc) {
                    return self.violated(Some(member), format!("a write of {doc} was taken, which is deleted"));
                }
                if edit != before {
                    // It follows from all heads that there were.
                    let heads = node.doc(doc).map(|content| content.get_heads()).unwrap_or_default();
                    let [hash] = heads[..] else {
                        return self.violated(Some(member), format!("an edit of {doc} left {} heads", heads.len()));
                    };
                    self.trace.note(now, member as u64, 11, &hash.0);
                    self.model.edited(member, doc, edit, hash);
                }
            }
            Err(EditError::Aborted(Abort::Regretted)) => {
                self.fired.count(Fault::Abort);
                if node.last_edit() != before {
                    return self.violated(Some(member), format!("an edit of {doc} was rolled back and counts"));
                }
            }
            Err(EditError::Aborted(Abort::Automerge(error))) => {
                return self.violated(Some(member), format!("Automerge refused an edit of {doc}: {error:?}"));
            }
            Err(EditError::NotLoaded | EditError::Busy | EditError::Unreadable) => {
                host.plans.entry(doc.clone()).or_default().push(Wish::Edit(plan));
                return self.open(member, doc);
            }
            Err(EditError::Deleted) => return self.write_refused(member, doc),
            // Said to the application, which may try again.
            Err(EditError::Store(_)) if host.refused_writes => {}
            Err(error) => return self.violated(Some(member), format!("an edit of {doc}: {error:?}")),
        }
        self.soon(member);
    }

    fn store(&mut self, member: usize, command: StoreCommand) {
        let wait = 1 + self.rng.below(u64::from(self.setup.disk));
        let host = &mut self.hosts[member];
        let life = host.life;
        match command {
            StoreCommand::Write(batch) if host.disk.failing_writes > 0 => {
                host.disk.failing_writes -= 1;
                host.refused_writes = true;
                self.fired.count(Fault::WriteFailed);
                let stored = Stored::WriteFailed { seq: batch.seq, fault: StoreFault::Full };
                self.heap.after(wait, Happening::Answer { member, life, stored });
            }
            StoreCommand::Write(batch) => {
                let carries = self.model.carried(member, &batch);
                let carries = carries.unwrap_or_else(|wrong| {
                    self.violated(Some(member), wrong);
                    Carried::default()
                });
                self.hosts[member].disk.write(batch, carries);
                self.heap.after(wait, Happening::Commit { member, life });
            }
            StoreCommand::Load { load, doc } => {
                let failed = |fault| Stored::LoadFailed { load, fault };
                let stored = if host.disk.failing_loads > 0 {
                    host.disk.failing_loads -= 1;
                    self.fired.count(Fault::LoadFailed);
                    failed(StoreFault::Io)
                } else {
                    match host.disk.load(&doc) {
                        Some(chunks) => Stored::Loaded { load, chunks },
                        None => {
                            self.violated(Some(member), format!("{doc} is loaded and was never written"));
                            failed(StoreFault::Missing)
                        }
                    }
                };
                self.heap.after(wait, Happening::Answer { member, life, stored });
            }
        }
    }

    /// Everything that is written becomes durable, and the node is told. False if nothing waits.
    pub(crate) fn commit(&mut self, member: usize) -> bool {
        let Some((seq, writes)) = self.hosts[member].disk.commit() else { return false };
        self.trace.note(self.now(), member as u64, 12, &seq.0.to_be_bytes());
        self.model.durable(member, &writes);
        self.input(member, Input::Stored(Stored::Durable { seq }));
        true
    }

    /// Power off: what was not durable is lost but for `keep` batches; the others learn of it later.
    pub(crate) fn crash(&mut self, member: usize, keep: usize) {
        let host = &mut self.hosts[member];
        let Some(node) = host.node.take() else { return };
        self.past = self.past.and(&node);
        self.fired.count(Fault::Crash);
        if host.jobs > 0 {
            self.fired.count(Fault::LostJob);
        }
        let (kept, lost) = host.disk.crash(keep);
        host.stop();
        self.trace.note(self.now(), member as u64, 15, &[]);
        self.fired.count_if(Fault::KeptWrite, kept != Carried::default());
        self.fired.count_if(Fault::LostWrite, lost > 0);
        self.model.durable(member, &kept);
        self.model.crashed(member);
        self.leave(member, None);
        let life = self.hosts[member].life;
        let wait = self.rng.below(20_000_000);
        self.heap.after(wait, Happening::Restart { member, life });
    }

    /// What keeps a member from closing cleanly just now.
    pub(crate) fn unsaved(&self, member: usize) -> Option<&'static str> {
        let host = &self.hosts[member];
        match &host.node {
            None => Some("it is down"),
            Some(node) if !node.is_saved() => Some("it has something to write"),
            Some(_) if host.jobs > 0 => Some("a worker is busy"),
            Some(_) if host.dirty => Some("a drain is due"),
            Some(_) => None,
        }
    }

    /// Closes cleanly and comes back as the same actor; false if something is not saved yet.
    pub(crate) fn reboot(&mut self, member: usize) -> bool {
        if self.unsaved(member).is_some() {
            return false;
        }
        let host = &mut self.hosts[member];
        if let Some(node) = host.node.take() {
            self.past = self.past.and(&node);
        }
        host.stop();
        self.fired.count(Fault::Reboot);
        let outcome = self.model.closed(member);
        self.expect(Some(member), outcome);
        self.leave(member, Some(0));
        self.start(member, true);
        true
    }

    /// Everything that a member was connected to is gone.
    pub(crate) fn leave(&mut self, member: usize, code: Option<u32>) {
        for conn in self.net.of(member) {
            let Some(end) = self.net.remove(conn) else { continue };
            let notices = code.is_some() || self.rng.below(2) == 0;
            let wait = if notices { self.rng.below(100_000) } else { IDLE };
            self.heap.at(after(self.now(), wait), Happening::Gone { conn: end.other, code });
        }
    }
}
