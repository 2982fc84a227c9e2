//! Members that mean harm.

use automerge::ChangeHash;
use bytes::{BufMut, Bytes, BytesMut};
use peat_proto::wire::{Delta, Have, Hello, Label, Payload, Summary, encode_frame};
use peat_proto::{DocId, Lane, Rng};

use super::setup::{Habit, draw};

/// Frames that a replaying member remembers.
const MEMORY: usize = 64;

/// A member without a node.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) habit: Habit,
    rng: Rng,
    heard: Vec<(Lane, Bytes)>,
}

/// Bytes that a hostile member puts on a lane.
pub(crate) type Word = (Lane, Bytes);

impl Hostile {
    pub(crate) fn new(habit: Habit, seed: u64, member: usize) -> Self {
        let mut bytes = [0x5a; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&(member as u64).to_be_bytes());
        Self { habit, rng: Rng::new(bytes), heard: Vec::new() }
    }

    /// How it greets.
    pub(crate) fn greet(&mut self) -> Vec<Word> {
        if self.habit == Habit::Garbage && self.rng.below(2) == 0 {
            return vec![(Lane::Control, self.noise(64))];
        }
        vec![(Lane::Control, Hello { boot: self.rng.below(3), invitation: None }.frame())]
    }

    /// It hears a frame.
    pub(crate) fn hear(&mut self, lane: Lane, bytes: &Bytes) {
        if self.habit == Habit::Replay {
            if self.heard.len() >= MEMORY {
                let oldest = draw(&mut self.rng, MEMORY);
                self.heard.swap_remove(oldest);
            }
            self.heard.push((lane, bytes.clone()));
        }
    }

    /// What it says now.
    pub(crate) fn act(&mut self, docs: &[DocId]) -> Vec<Word> {
        let lane = Lane::LASTING[draw(&mut self.rng, Lane::LASTING.len())];
        let doc = &docs[draw(&mut self.rng, docs.len())];
        match self.habit {
            Habit::Garbage => {
                let len = draw(&mut self.rng, 300);
                vec![(lane, self.noise(len))]
            }
            Habit::Stranger => vec![(lane, self.lie(doc))],
            Habit::Flood => {
                let one = |this: &mut Self| match this.rng.below(3) {
                    0 => (Lane::Control, Hello { boot: this.rng.draw(), invitation: None }.frame()),
                    1 => (Lane::Control, this.summary()),
                    _ => (lane, this.lie(doc)),
                };
                (0..20).map(|_| one(self)).collect()
            }
            Habit::SlowRead => vec![(lane, question(doc))],
            Habit::LyingHeads => vec![(lane, self.lie(doc)), (Lane::Control, self.summary())],
            Habit::Replay if self.heard.is_empty() => Vec::new(),
            Habit::Replay => {
                let said = draw(&mut self.rng, self.heard.len());
                vec![self.heard[said].clone()]
            }
            Habit::Oversized => vec![(lane, self.oversized(doc))],
            Habit::Bomb => vec![(lane, bomb(doc))],
        }
    }

    fn noise(&mut self, len: usize) -> Bytes {
        (0..len).map(|_| self.rng.draw().to_be_bytes()[0]).collect()
    }

    fn hash(&mut self) -> ChangeHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.rng.draw().to_be_bytes());
        ChangeHash(hash)
    }

    fn summary(&mut self) -> Bytes {
        Summary { documents: self.rng.below(1000), digest: self.hash().0, seen: Some(self.hash().0) }.frame()
    }

    /// Heads that nobody has, now for a document that exists and now for one that does not.
    fn lie(&mut self, doc: &DocId) -> Bytes {
        let invented = DocId::new(&format!("{}:lie{}", doc.collection(), self.rng.below(50))).expect("a valid name");
        let doc = if self.rng.below(2) == 0 { doc } else { &invented };
        let have = if self.rng.below(2) == 0 { vec![Have::default()] } else { Vec::new() };
        let junk = self.noise(40);
        let changes = if self.rng.below(3) == 0 { vec![junk] } else { Vec::new() };
        let delta = Delta { heads: vec![self.hash()], need: vec![self.hash()], have, changes, ..Delta::default() };
        delta.frame(doc).expect("short")
    }

    fn oversized(&mut self, doc: &DocId) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u16(u16::try_from(doc.as_str().len()).expect("short"));
        frame.put_slice(doc.as_str().as_bytes());
        frame.put_u8(self.rng.below(2) as u8);
        // Now more than is allowed, now as much as is allowed and never complete.
        frame.put_u32(if self.rng.below(2) == 0 { u32::MAX } else { 16 << 20 });
        frame.put_slice(&self.noise(200));
        frame.freeze()
    }
}

/// Asks for everything of a document.
fn question(doc: &DocId) -> Bytes {
    Delta { have: vec![Have::default()], ..Delta::default() }.frame(doc).expect("short")
}

/// A saved document whose one operation column says "2^40 times the same".
fn bomb(doc: &DocId) -> Bytes {
    const CONTENTS: &[u8] = &[
        1, 1, 7, 0, // one actor, no heads
        0, // no change columns
        1, 0x42, 8, // one operation column (action), of 8 bytes
        0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 0, // a run of 2^40
    ];
    let mut chunk = BytesMut::new();
    chunk.put_slice(&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 0]);
    chunk.put_u8(CONTENTS.len() as u8);
    chunk.put_slice(CONTENTS);
    encode_frame(Label::Snapshot(doc), Payload::new(&chunk).expect("short"))
}
