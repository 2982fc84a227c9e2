//! What holds for untrusted Automerge bytes, from the walk over them to the restart of a node that took them in.

use std::collections::{BTreeMap, VecDeque};

use automerge::ROOT;
use automerge::transaction::Transactable;
use bytes::Bytes;
use peat_proto::admit::Admitted;
use peat_proto::config::AdmitLimits;
use peat_proto::store::{Entry, Op, Record, StoreCommand, Stored};
use peat_proto::wire::v1::{Body, EntriesBuilder, Entry as Said, Hello, Proof, Saved, Word};
use peat_proto::{
    Boot, Config, ConnId, DocId, Event, Input, Link, Node, Now, Output, PeerId, Role, StreamId, Time, Wire,
};

use super::seal::{sealed, with_heads};
use super::within;

/// Automerge chunks, as a file to import, a snapshot and a delta bring them to a node.
///
/// Whatever they are, the node works on, in bounded memory; what the walk refuses is refused; and what was taken in
/// opens again after a restart. Lengths, checksums and heads are mended first.
pub fn admit(input: &[u8]) -> bool {
    let limits = limits();
    let chunks = sealed(input);
    let walk = |chunks: &[u8]| peat_proto::admit::admit(chunks, &limits);
    let allowed = 4 * chunks.len() + (64 << 10) + 48 * count(limits.changes) + 64 * count(limits.actors);
    let mut admitted = within(allowed, || walk(&chunks));
    let chunks = if admitted.is_ok() { with_heads(chunks) } else { chunks };
    if admitted.is_ok() {
        admitted = walk(&chunks);
    }
    if let Ok(admitted) = admitted {
        assert!(admitted.expanded <= limits.expanded && admitted.operations <= limits.operations, "{admitted:?}");
        assert!(admitted.actors <= limits.actors && admitted.changes <= limits.changes, "{admitted:?}");
    }

    let chunks = Bytes::from(chunks);
    let mut host = Host::new();
    host.greet();
    let taken = within(memory(&admitted.unwrap_or_default()) + 16 * chunks.len(), || host.bring(&chunks));
    assert!(admitted.is_ok() || taken == 0, "{taken} of 3 took in what the walk refused: {admitted:?}");
    host.edit(&doc("own:2"));
    host.restart();
    taken > 0
}

/// What taking chunks in three times may cost beside their own size, by what the walk counted in them. For each operation 1 KiB:
/// Automerge holds 620 B while it applies a change, and 810 B while it fails to. For each change 4 KiB, as it is parsed, applied,
/// listed and stored; 16 B for each byte of values or text, which are in the saved form, in the changes made from it and in
/// those that wait for the disk. What is refused costs no more than the node itself and a small document: 512 KiB.
fn memory(admitted: &Admitted) -> usize {
    let counted = 1024 * count(admitted.operations) + 4096 * count(admitted.changes);
    (512 << 10) + counted + 16 * (admitted.expanded + count(admitted.text))
}

/// A thirtieth of what a node admits, so that a search comes across every limit.
fn limits() -> AdmitLimits {
    let mut limits = AdmitLimits::default();
    limits.expanded = 1 << 20;
    limits.operations = 1 << 16;
    limits.actors = 64;
    limits.changes = 1 << 12;
    limits
}

fn count(limit: u64) -> usize {
    usize::try_from(limit).expect("a small limit")
}

fn doc(name: &str) -> DocId {
    DocId::new(name).expect("a valid name")
}

const CONN: ConnId = ConnId(1);
const PEER: PeerId = PeerId([2; 32]);

/// A node with a disk that never fails, and one peer.
struct Host {
    node: Node,
    now: Now,
    records: BTreeMap<DocId, Record>,
    chunks: BTreeMap<DocId, Vec<Bytes>>,
    events: Vec<Event>,
    streams: u64,
}

impl Host {
    fn new() -> Self {
        let now = Now { mono: Time::ZERO, unix_ms: 1_700_000_000_000 };
        let node = start(1, [], now);
        Self { node, now, records: BTreeMap::new(), chunks: BTreeMap::new(), events: Vec::new(), streams: 0 }
    }

    fn greet(&mut self) {
        let link = Link { role: Role::Accepted, wire: Wire::V1, reliable: true, binding: [0; 32], rtt: None };
        self.input(Input::Connected { conn: CONN, peer: PEER, link });
        let hello = Hello { least: 1, newest: 1, nonce: [1; 32], boot: 1, abilities: 0, largest: 1 << 24 };
        self.receive(hello.frame());
        self.receive(Proof::default().frame());
        assert!(self.events.iter().any(|event| matches!(event, Event::Up { .. })), "{:?}", self.events);
    }

    /// Brings the chunks to three documents in three ways; says how many took something in.
    fn bring(&mut self, chunks: &Bytes) -> usize {
        let (imported, snapshot, delta) = (doc("own:1"), doc("peer:snapshot"), doc("peer:delta"));
        self.edit(&imported);
        self.input(Input::Change { doc: imported.clone(), changes: chunks.clone() });
        let outcomes = self.events.iter().filter_map(|event| match event {
            Event::Imported { outcome, .. } => Some(outcome.is_ok()),
            _ => None,
        });
        let outcomes: Vec<_> = outcomes.collect();
        let [taken] = outcomes[..] else { panic!("one import has {} outcomes", outcomes.len()) };

        let saved = Body::Saved(Saved { answer: true, bytes: chunks.clone() });
        let word = Body::Word(Word { changes: vec![chunks.clone()], ..Word::default() });
        for (doc, body) in [(&snapshot, saved), (&delta, word)] {
            let mut frame = EntriesBuilder::new(usize::MAX);
            assert!(frame.push(&Said { doc: doc.clone(), body }), "a short message");
            self.receive(frame.frame());
        }
        let came = [snapshot, delta].iter().filter(|doc| self.records.contains_key(*doc)).count();
        came + usize::from(taken)
    }

    fn edit(&mut self, doc: &DocId) {
        self.input(Input::Open { doc: doc.clone() });
        self.node.edit(self.now, doc, |edit| edit.put(ROOT, "mine", 1)).expect("an open document can be edited");
        self.drain();
        self.input(Input::Close { doc: doc.clone() });
        assert!(self.records.contains_key(doc), "the edit is stored");
    }

    /// Starts a new node on the same disk and opens everything.
    fn restart(&mut self) {
        let entries = self.records.iter();
        let entries = entries.map(|(doc, record)| Entry::Document { doc: doc.clone(), record: record.clone() });
        self.node = start(2, entries, self.now);
        let records = self.records.clone();
        for (doc, record) in records {
            self.input(Input::Open { doc: doc.clone() });
            let content = self.node.doc(&doc).unwrap_or_else(|| panic!("{doc} was stored and does not open"));
            assert_eq!(peat_proto::Heads::new(content.get_heads()), record.heads, "{doc}");
            self.input(Input::Close { doc });
        }
    }

    fn receive(&mut self, bytes: Bytes) {
        self.streams += 1;
        self.input(Input::Received {
            conn: CONN,
            stream: StreamId::new(self.streams, Role::Dialled, false),
            bytes,
            fin: true,
        });
    }

    fn input(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.node.poll() {
                match output {
                    Output::Store(command) => answers.push_back(Input::Stored(self.store(command))),
                    Output::Work(job) => answers.push_back(Input::Worked(job.run())),
                    Output::Send { conn, frame, .. } => answers.push_back(Input::Sent { conn, bytes: frame.len() }),
                    Output::Event(event) => self.events.push(event),
                    Output::Disconnect { code, .. } => panic!("well-formed frames ended the connection: {code:?}"),
                    Output::StopStream { .. }
                    | Output::Consumed { .. }
                    | Output::Reply { .. }
                    | Output::Dial { .. } => {}
                }
            }
            let Some(answer) = answers.pop_front() else { return };
            self.node.handle(self.now, answer);
        }
    }

    fn store(&mut self, command: StoreCommand) -> Stored {
        let batch = match command {
            StoreCommand::Load { load, doc } => {
                let chunks = self.chunks.get(&doc).cloned().expect("only stored documents are loaded");
                return Stored::Loaded { load, chunks };
            }
            StoreCommand::Write(batch) => batch,
        };
        for op in batch.ops {
            match op {
                Op::Append { doc, record, chunk } => {
                    self.chunks.entry(doc.clone()).or_default().push(chunk);
                    self.records.insert(doc, record);
                }
                Op::Replace { doc, record, chunk } => {
                    self.chunks.insert(doc.clone(), vec![chunk]);
                    self.records.insert(doc, record);
                }
                Op::Bury { .. } | Op::Remove { .. } | Op::Admit { .. } | Op::Forget { .. } => {}
            }
        }
        Stored::Durable { seq: batch.seq }
    }
}

/// A node that lets everybody in.
fn start(number: u64, entries: impl IntoIterator<Item = Entry>, now: Now) -> Node {
    let mut config = Config::default();
    config.admission.open = true;
    config.admit = limits();
    Node::new(config, PeerId([1; 32]), Boot { store: [3; 16], number }, [4; 32], entries, now)
}
