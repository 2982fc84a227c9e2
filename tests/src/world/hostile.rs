//! Members that mean harm.

use automerge::ChangeHash;
use bytes::{BufMut, Bytes, BytesMut};
use peat_proto::reconcile::{Answer, Cell, MAX_CELLS, Prefix, Share, Symbol};
use peat_proto::wire::v1::{
    Ask, Assembler, Body, Caps, Cells, Entries, EntriesBuilder, Entry, Form, Frame, FrameError, Held, Hello, Incoming,
    Kind, Piece, Proof, Pull, Refused, Saved, Scope, Shares, Subject, Summary, Terms, Total, Want, Word,
};
use peat_proto::{DocId, Heads, Lane, Rng};

use super::bombs;
use super::setup::{Habit, draw};
use super::verdict::Fault;

/// Bytes of a document that nobody has room for.
const VAST: u64 = 1 << 40;

/// Frames that a replaying member remembers.
const MEMORY: usize = 64;

/// A member without a node.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) habit: Habit,
    rng: Rng,
    heard: Vec<(Lane, Bytes)>,
    /// What it said to be deleted since the last look.
    pub(crate) forged: Vec<DocId>,
}

/// Bytes that a hostile member puts on a lane.
pub(crate) type Spoken = (Lane, Bytes);

impl Hostile {
    pub(crate) fn new(habit: Habit, seed: u64, member: usize) -> Self {
        let mut bytes = [0x5a; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        bytes[8..16].copy_from_slice(&(member as u64).to_be_bytes());
        Self { habit, rng: Rng::new(bytes), heard: Vec::new(), forged: Vec::new() }
    }

    /// How it greets.
    pub(crate) fn greet(&mut self) -> Vec<Spoken> {
        if self.habit == Habit::Garbage && self.rng.below(2) == 0 {
            return vec![(Lane::Control, self.noise(64))];
        }
        if self.habit == Habit::Later {
            return vec![(Lane::Control, later())];
        }
        let frames = [self.hello(), Proof::default().frame(), self.terms(), self.summary()];
        frames.map(|frame| (Lane::Control, frame)).into()
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

    /// The fault that a frame of such a member is, where it has a name, in the eyes of whoever gets all of it.
    pub(crate) fn fault(habit: Habit, frame: &Bytes) -> Option<Fault> {
        let mut assembler = Assembler::new();
        assembler.push(frame.clone());
        let next = assembler.next(&Caps::PEER);
        let (kind, body) = match (habit, next) {
            (Habit::Oversized, Err(FrameError::TooLong { .. })) if frame.len() > Caps::PEER.entries => {
                return Some(Fault::Oversized);
            }
            (Habit::Oversized | Habit::Bomb, Ok(Some(Incoming::Frame(Frame { kind, body })))) => (kind, body),
            _ => return None,
        };
        match (habit, kind) {
            (Habit::Bomb, Kind::Packed) => Some(Fault::PackedBomb),
            (Habit::Bomb, Kind::Entries) => Some(Fault::Bomb),
            (Habit::Oversized, Kind::Entries) => {
                let entries = Entries::decode(body).ok()?;
                entries.each().find_map(|entry| match entry.ok()?.body {
                    Body::Piece(Piece { whole: VAST, .. }) => Some(Fault::Vast),
                    Body::Piece(_) => Some(Fault::Unfinished),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    /// What it says now.
    pub(crate) fn act(&mut self, docs: &[DocId], plain: bool) -> Vec<Spoken> {
        let lane = Lane::LASTING[draw(&mut self.rng, Lane::LASTING.len())];
        let doc = &docs[draw(&mut self.rng, docs.len())];
        match self.habit {
            Habit::Garbage => {
                let len = draw(&mut self.rng, 300);
                vec![(lane, self.noise(len))]
            }
            Habit::Stranger if self.rng.below(2) == 0 => vec![(lane, self.forgery(doc, plain))],
            Habit::Stranger => vec![(lane, self.lie(doc))],
            Habit::Forger => {
                self.forged.push(doc.clone());
                let forgery = self.forgery(doc, plain);
                // What is said twice happens once.
                vec![(lane, forgery.clone()), (lane, forgery)]
            }
            Habit::Flood => {
                let one = |this: &mut Self| match this.rng.below(4) {
                    0 => (Lane::Control, this.hello()),
                    1 => (Lane::Control, this.summary()),
                    2 => (Lane::Control, this.comparison()),
                    _ => (lane, this.lie(doc)),
                };
                (0..20).map(|_| one(self)).collect()
            }
            Habit::SlowRead => vec![(lane, question(doc))],
            Habit::LyingHeads => {
                vec![(lane, self.lie(doc)), (Lane::Control, self.summary()), (Lane::Control, self.comparison())]
            }
            Habit::Replay if self.heard.is_empty() => Vec::new(),
            Habit::Replay => {
                let said = draw(&mut self.rng, self.heard.len());
                vec![self.heard[said].clone()]
            }
            Habit::Oversized => vec![(lane, self.oversized(doc))],
            Habit::Bomb => vec![(lane, self.bomb(doc))],
            Habit::Later => vec![(Lane::Control, later())],
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

    fn symbol(&mut self) -> Symbol {
        let (name, state) = (self.rng.draw(), self.rng.draw());
        Symbol::from_bytes(((u128::from(name) << 64) | u128::from(state)).to_be_bytes())
    }

    fn hello(&mut self) -> Bytes {
        let nonce = self.hash().0;
        Hello { least: 1, newest: 1, nonce, boot: self.rng.below(3), abilities: self.rng.draw(), largest: 1 << 20 }
            .frame()
    }

    fn terms(&mut self) -> Bytes {
        let mut key = [0; 8];
        key.copy_from_slice(&self.hash().0[..8]);
        let scope = Scope { id: key, sends: true, takes: true };
        Terms { generation: 1, key, scopes: vec![scope] }.frame()
    }

    fn summary(&mut self) -> Bytes {
        let total = |this: &mut Self| Total { count: this.rng.below(1000), digest: this.hash().0 };
        let (shared, one_way) = (total(self), (self.rng.below(2) == 0).then(|| total(self)));
        let complete = (self.rng.below(2) == 0).then_some(Summary::NOTHING);
        Summary { generation: 1, heard: 1, shared, seen: [9; 8], one_way, complete }.frame()
    }

    /// Questions and answers of a comparison that no set gives.
    fn comparison(&mut self) -> Bytes {
        let subject = if self.rng.below(2) == 0 { Subject::Shared } else { Subject::OneWay };
        let epoch = self.rng.below(4);
        match self.rng.below(5) {
            0 => {
                Pull { subject, epoch, limit: MAX_CELLS, from: 0, to: 1 + self.rng.below(u64::from(MAX_CELLS)) as u32 }
                    .frame()
            }
            1 => {
                let cell = |this: &mut Self| Cell { sum: this.symbol(), check: this.rng.draw() as u32, count: 1 };
                let cells = (0..self.rng.below(60)).map(|_| cell(self)).collect();
                Cells { epoch, symbols: self.rng.below(100), from: 0, cells }.frame()
            }
            2 => {
                let mut symbols: Vec<Symbol> = (0..self.rng.below(50)).map(|_| self.symbol()).collect();
                symbols.sort_unstable();
                Want { symbols }.frame()
            }
            3 => {
                let range = |this: &mut Self| Prefix::new(this.symbol(), this.rng.below(33) as u8).expect("32 at most");
                Ask { subject, ranges: (0..20).map(|_| range(self)).collect() }.frame()
            }
            _ => {
                let share = [(); 16].map(|()| Share { sum: self.symbol(), count: self.rng.below(9) });
                Shares { subject, answers: vec![(Prefix::ALL, Answer::Shares(Box::new(share)))] }.frame()
            }
        }
    }

    /// Heads that nobody has, refusals and pieces of nothing, now for a document that exists and now for one that does not.
    fn lie(&mut self, doc: &DocId) -> Bytes {
        let invented = DocId::new(&format!("{}:lie{}", doc.collection(), self.rng.below(50))).expect("a valid name");
        let doc = if self.rng.below(2) == 0 { doc } else { &invented };
        let heads = Heads::new(vec![self.hash()]);
        let body = match self.rng.below(8) {
            0 => Body::Refused(Refused { reason: self.rng.below(20), heads }),
            1 => Body::Held(Held { id: [7; 16], bytes: self.rng.below(1 << 20) }),
            2 => Body::Piece(Piece { id: [7; 16], form: Form::Saved, whole: 500, offset: 0, bytes: self.noise(100) }),
            3 => Body::Piece(Piece { id: [8; 16], form: Form::Changes, whole: 40, offset: 0, bytes: self.noise(40) }),
            _ => {
                let need = Heads::new(vec![self.hash()]);
                let changes = if self.rng.below(3) == 0 { vec![self.noise(40)] } else { Vec::new() };
                Body::Word(Word { heads, asks: self.rng.below(2) == 0, need, samples: vec![self.hash()], changes })
            }
        };
        entry(doc, body)
    }

    /// A deletion that nobody made: long ago or in times to come, by somebody else, and unless `plain` in a life that the name
    /// never had and in any direction.
    fn forgery(&mut self, doc: &DocId, plain: bool) -> Bytes {
        let any = |rng: &mut Rng| [0, 1, rng.below(1 << 40), u64::MAX - 1, u64::MAX][draw(rng, 5)];
        let (incarnation, lamport, at) = (any(&mut self.rng), any(&mut self.rng), any(&mut self.rng));
        let incarnation = if !plain && self.rng.below(2) == 0 { incarnation } else { 0 };
        let by = ["0", "somebody else", "~"][draw(&mut self.rng, 3)];
        let mut marker = BytesMut::new();
        for number in [incarnation, lamport, at] {
            marker.put_u64(number);
        }
        let spread = self.rng.below(4) as u8;
        marker.put_u8(if plain { spread / 2 * 3 } else { spread });
        marker.put_u8(by.len() as u8);
        marker.put_slice(by.as_bytes());
        marker.put_u16(0);
        entry(doc, Body::Marker(marker.freeze()))
    }

    fn oversized(&mut self, doc: &DocId) -> Bytes {
        let piece = |doc: &DocId, whole, offset, bytes| {
            entry(doc, Body::Piece(Piece { id: [6; 16], form: Form::Saved, whole, offset, bytes }))
        };
        match self.rng.below(5) {
            0 => bombs::oversized(),
            1 => piece(doc, VAST, 0, self.noise(1_000)),
            2 => {
                let part = format!("{}:part{}", doc.collection(), self.rng.below(50));
                let offset = self.rng.below(8 << 20);
                piece(&DocId::new(&part).expect("a valid name"), 16 << 20, offset, self.noise(20_000))
            }
            _ => {
                let mut frame = BytesMut::new();
                // Now more than is allowed, now as much as is allowed and never complete: 2^28 - 1 and 1 MiB.
                let length: &[u8] =
                    if self.rng.below(2) == 0 { &[0xff, 0xff, 0xff, 0x7f] } else { &[0x80, 0x80, 0x40] };
                frame.put_slice(length);
                frame.put_u8(Kind::Entries.code());
                frame.put_slice(doc.as_str().as_bytes());
                frame.put_slice(&self.noise(200));
                frame.freeze()
            }
        }
    }

    fn bomb(&mut self, doc: &DocId) -> Bytes {
        let saved = |bytes| entry(doc, Body::Saved(Saved { answer: true, bytes }));
        match self.rng.below(36) {
            // Those that inflate cost each node that hears them 32 MiB of inflating: rare, so that there are more worlds.
            0 => saved(bombs::column()),
            1 => entry(doc, Body::Word(Word { changes: vec![bombs::change()], ..Word::default() })),
            2..=21 => saved(bombs::run()),
            // As much as it says, in far fewer bytes than that takes; and more than it says.
            22..=28 => bombs::packed(bombs::UNPACKED),
            _ => bombs::packed(200),
        }
    }
}

fn entry(doc: &DocId, body: Body) -> Bytes {
    let mut frame = EntriesBuilder::new(1 << 18);
    assert!(frame.push(&Entry { doc: doc.clone(), body }), "short");
    frame.frame()
}

/// A greeting of versions after ours.
fn later() -> Bytes {
    Hello { least: 2, newest: 3, nonce: [1; 32], boot: 1, abilities: 0, largest: 1 << 20 }.frame()
}

/// Asks for everything of a document.
fn question(doc: &DocId) -> Bytes {
    entry(doc, Body::Word(Word { asks: true, ..Word::default() }))
}
