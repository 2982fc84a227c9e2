//! What is too large for one frame: sent in pieces, put together again, and gone on with on the next connection.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::id::{DocId, PeerId};
use crate::wire::v1::{Form, Held, Piece};

/// One whole on its way out.
#[derive(Debug)]
pub(crate) struct Transfer {
    id: [u8; 16],
    form: Form,
    whole: Bytes,
    /// Bytes sent so far.
    sent: usize,
    /// Bytes that the other side is known to have.
    held: usize,
}

impl Transfer {
    pub(crate) fn new(form: Form, whole: Bytes) -> Self {
        Self { id: Piece::id_of(&whole), form, whole, sent: 0, held: 0 }
    }

    /// The next piece, of at most `most` bytes and at least one.
    pub(crate) fn next(&mut self, most: usize) -> Option<Piece> {
        let end = self.sent.saturating_add(most.max(1)).min(self.whole.len());
        if self.sent >= end {
            return None;
        }
        let (id, form, whole) = (self.id, self.form, self.whole.len() as u64);
        let piece = Piece { id, form, whole, offset: self.sent as u64, bytes: self.whole.slice(self.sent..end) };
        self.sent = end;
        Some(piece)
    }

    /// Whether all has been sent, though perhaps not received.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent >= self.whole.len()
    }

    /// Takes in what the other side has; whether that is more than was known. What it has from before is not sent again.
    pub(crate) fn heard(&mut self, held: &Held) -> bool {
        let bytes = usize::try_from(held.bytes).unwrap_or(usize::MAX);
        if held.id != self.id || bytes <= self.held || bytes > self.whole.len() {
            return false;
        }
        self.held = bytes;
        self.sent = self.sent.max(bytes);
        true
    }

    /// Begins again behind what the other side has.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.held;
    }
}

/// Wholes whose way out was cut off with their connection. Who may have a part of one is asked before it is sent again.
#[derive(Debug, Default)]
pub(crate) struct Interrupted(BTreeSet<(PeerId, DocId)>);

impl Interrupted {
    /// Documents that are remembered: 1,024 of at most 0.5 KiB. Of one that is forgotten what was sent is sent again.
    const MOST: usize = 1024;

    pub(crate) fn note(&mut self, peer: PeerId, doc: DocId) {
        if self.0.len() >= Self::MOST {
            self.0.pop_first();
        }
        self.0.insert((peer, doc));
    }

    /// Whether a whole of this document was cut off on its way there; told once.
    pub(crate) fn take(&mut self, peer: PeerId, doc: &DocId) -> bool {
        self.0.remove(&(peer, doc.clone()))
    }

    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.0.retain(|(of, _)| *of != peer);
    }
}

/// Wholes that are being put together, of all peers, within a budget. They outlive their connections.
#[derive(Debug)]
pub(crate) struct Assemblies {
    parts: BTreeMap<(PeerId, DocId), Assembly>,
    /// The one first that was longest without a new piece.
    order: BTreeMap<u64, (PeerId, DocId)>,
    budget: usize,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Assembly {
    id: [u8; 16],
    form: Form,
    whole: u64,
    /// From the beginning, without a gap.
    front: Vec<u8>,
    /// What came before its turn, by offset.
    ahead: BTreeMap<u64, Box<[u8]>>,
    /// What these take.
    waiting: usize,
    used: u64,
}

/// What became of a piece.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    /// It was the last one.
    Whole(Form, Bytes),
    /// More must come. `news`: it was the next one.
    Part { held: Held, news: bool },
    /// It was the last one, and what they make is not what their id names: all of them are dropped.
    Forged,
}

impl Assemblies {
    /// Holds at most so many bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { parts: BTreeMap::new(), order: BTreeMap::new(), budget, bytes: 0, clock: 0 }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the bytes are counted right and within the budget.
    pub(crate) fn check(&self, budget: usize) -> bool {
        let bytes: usize = self.parts.values().map(Assembly::bytes).sum();
        bytes == self.bytes && bytes <= budget && self.order.len() == self.parts.len()
    }

    /// What is held of a document from a peer, to be told to it.
    pub(crate) fn held(&self, peer: PeerId, doc: &DocId) -> Option<Held> {
        let assembly = self.parts.get(&(peer, doc.clone()))?;
        (!assembly.front.is_empty()).then(|| assembly.held())
    }

    /// Takes in a piece, whose whole is within what is accepted.
    pub(crate) fn take(&mut self, peer: PeerId, doc: &DocId, piece: Piece) -> Taken {
        self.clock += 1;
        let id = piece.id;
        let key = (peer, doc.clone());
        if self.parts.get(&key).is_some_and(|known| known.id != piece.id || known.whole != piece.whole) {
            self.drop_part(&key);
        }
        let before = self.parts.get(&key).map_or(0, Assembly::bytes);
        let assembly = self.parts.entry(key.clone()).or_insert_with(|| Assembly {
            id: piece.id,
            form: piece.form,
            whole: piece.whole,
            front: Vec::new(),
            ahead: BTreeMap::new(),
            waiting: 0,
            used: 0,
        });
        self.order.remove(&assembly.used);
        self.order.insert(self.clock, key.clone());
        assembly.used = self.clock;
        let front = assembly.front.len();
        assembly.add(piece.offset, &piece.bytes);
        let news = assembly.front.len() > front;
        self.bytes = (self.bytes + assembly.bytes()).saturating_sub(before);
        if assembly.front.len() as u64 >= assembly.whole {
            let form = assembly.form;
            let whole = self.drop_part(&key).map(|assembly| assembly.front).unwrap_or_default();
            // 16 MiB take 10 ms.
            return if Piece::id_of(&whole) == id { Taken::Whole(form, whole.into()) } else { Taken::Forged };
        }
        let held = assembly.held();
        self.shrink();
        Taken::Part { held, news }
    }

    /// Lets go of what was longest without a new piece, down to the budget.
    fn shrink(&mut self) {
        while self.bytes > self.budget
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.drop_part(&oldest);
        }
    }

    fn drop_part(&mut self, key: &(PeerId, DocId)) -> Option<Assembly> {
        let assembly = self.parts.remove(key)?;
        self.order.remove(&assembly.used);
        self.bytes = self.bytes.saturating_sub(assembly.bytes());
        Some(assembly)
    }

    /// Forgets what is held of a document, or of all of them, from a peer.
    pub(crate) fn forget(&mut self, peer: PeerId, doc: Option<&DocId>) {
        let gone: Vec<_> = match doc {
            Some(doc) => vec![(peer, doc.clone())],
            None => self.parts.keys().filter(|(from, _)| *from == peer).cloned().collect(),
        };
        for key in gone {
            self.drop_part(&key);
        }
    }
}

impl Assembly {
    /// What an assembly takes beside its bytes: 1 KiB, for a name of at most 512 B, which is kept twice, and the tables.
    const OVERHEAD: usize = 1 << 10;

    /// What a piece that waits takes beside its bytes.
    const ENTRY: usize = 64;

    fn bytes(&self) -> usize {
        Self::OVERHEAD + self.front.len() + self.waiting
    }

    fn held(&self) -> Held {
        Held { id: self.id, bytes: self.front.len() as u64 }
    }

    fn add(&mut self, offset: u64, bytes: &[u8]) {
        let front = self.front.len() as u64;
        if offset > front {
            let known = self.ahead.get(&offset).map_or(0, |known| known.len() + Self::ENTRY);
            if known < bytes.len() + Self::ENTRY {
                self.waiting = self.waiting - known + bytes.len() + Self::ENTRY;
                // A copy: a slice would keep all of the frame that it came in.
                self.ahead.insert(offset, bytes.into());
            }
            return;
        }
        self.append(offset, bytes);
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= self.front.len() as u64) {
            let (offset, bytes) = next.remove_entry();
            self.waiting -= bytes.len() + Self::ENTRY;
            self.append(offset, &bytes);
        }
    }

    /// Adds what is new of bytes that begin within the front or at its end.
    fn append(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.front.len() as u64 - offset).unwrap_or(usize::MAX);
        self.front.extend_from_slice(bytes.get(known..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const PEER: PeerId = PeerId([1; 32]);

    fn doc(name: &str) -> DocId {
        DocId::new(name).expect("a valid name")
    }

    fn whole(len: usize) -> Bytes {
        let mut rng = Rng::new([9; 32]);
        (0..len).map(|_| rng.draw() as u8).collect()
    }

    #[test]
    fn the_budget_counts_what_small_pieces_take_and_not_only_their_bytes() {
        let budget = 64 << 10;
        let mut assemblies = Assemblies::new(budget);
        let frame = whole(1 << 20);
        for n in 0..1000_u64 {
            let piece = |offset, bytes| Piece { id: [7; 16], form: Form::Saved, whole: 1 << 20, offset, bytes };
            let at = usize::try_from(n).expect("small");
            assemblies.take(PEER, &doc(&format!("notes:{n}")), piece(0, frame.slice(at..=at)));
            assemblies.take(PEER, &doc("notes:ahead"), piece(2 * n + 2, frame.slice(at..=at)));
            assert!(assemblies.bytes() <= budget);
            assert!(assemblies.parts.len() <= budget / Assembly::OVERHEAD);
            assert_eq!(assemblies.parts.len(), assemblies.order.len());
            let counted: usize = assemblies.parts.values().map(Assembly::bytes).sum();
            assert_eq!(assemblies.bytes(), counted);
        }
        assemblies.forget(PEER, None);
        assert_eq!((assemblies.bytes(), assemblies.parts.len(), assemblies.order.len()), (0, 0, 0));
    }

    #[test]
    fn pieces_in_any_order_doubled_and_lost_make_the_whole() {
        for seed in 0..50 {
            let mut rng = Rng::new([seed; 32]);
            let whole = whole(10_000);
            let mut transfer = Transfer::new(Form::Saved, whole.clone());
            let mut assemblies = Assemblies::new(1 << 20);
            let mut passes = 0;
            'all: loop {
                passes += 1;
                assert!(passes < 200, "it does not end");
                let mut pieces: Vec<Piece> =
                    std::iter::from_fn(|| transfer.next(1 + rng.below(700) as usize)).collect();
                assert!(transfer.is_sent());
                pieces.retain(|_| rng.below(2) == 0);
                pieces.extend(pieces.first().cloned());
                for _ in 0..pieces.len() {
                    let (a, b) = (rng.below(pieces.len() as u64) as usize, rng.below(pieces.len() as u64) as usize);
                    pieces.swap(a, b);
                }
                for piece in pieces {
                    match assemblies.take(PEER, &doc("notes:1"), piece) {
                        Taken::Whole(form, bytes) => {
                            assert_eq!((form, bytes), (Form::Saved, whole.clone()));
                            break 'all;
                        }
                        Taken::Part { held, .. } => {
                            transfer.heard(&held);
                        }
                        Taken::Forged => panic!("what was sent is what was announced"),
                    }
                }
                transfer.rewind();
            }
            assert_eq!(assemblies.bytes(), 0, "what is whole is handed over");
        }
    }

    #[test]
    fn what_pieces_make_is_what_their_id_names_or_nothing() {
        let mut assemblies = Assemblies::new(1 << 20);
        for changed in 0..4 {
            let mut transfer = Transfer::new(Form::Saved, whole(4000));
            let mut last = None;
            for at in 0..4 {
                let mut piece = transfer.next(1000).expect("more");
                if at == changed {
                    piece.bytes = piece.bytes.iter().map(|byte| byte ^ 1).collect();
                }
                last = Some(assemblies.take(PEER, &doc("notes:1"), piece));
            }
            assert_eq!(last, Some(Taken::Forged));
            assert_eq!(assemblies.bytes(), 0, "nothing of it is kept");
        }
    }

    #[test]
    fn a_new_connection_goes_on_where_the_last_one_stopped() {
        let whole = whole(5000);
        let mut assemblies = Assemblies::new(1 << 20);
        let mut first = Transfer::new(Form::Saved, whole.clone());
        for _ in 0..3 {
            let piece = first.next(1000).expect("more");
            assemblies.take(PEER, &doc("notes:1"), piece);
        }
        let mut second = Transfer::new(Form::Saved, whole.clone());
        let held = assemblies.held(PEER, &doc("notes:1")).expect("a part");
        assert!(second.heard(&held));
        let piece = second.next(1000).expect("more");
        assert_eq!(piece.offset, 3000);
        assemblies.take(PEER, &doc("notes:1"), piece);
        let last = second.next(1000).expect("more");
        assert_eq!(assemblies.take(PEER, &doc("notes:1"), last), Taken::Whole(Form::Saved, whole));
        let other = Held { id: [0; 16], bytes: 4000 };
        let mut third = Transfer::new(Form::Saved, self::whole(5000));
        assert!(!third.heard(&other), "of another whole");
        assert!(!third.heard(&Held { id: third.id, bytes: 6000 }), "more than there is");
    }

    #[test]
    fn what_is_held_stays_within_the_budget_and_the_newest_stays() {
        let mut assemblies = Assemblies::new(10_000);
        for number in 0..100 {
            let mut transfer = Transfer::new(Form::Changes, whole(4000 + number));
            let piece = transfer.next(3000).expect("more");
            let name = doc(&format!("notes:{number}"));
            assert!(matches!(assemblies.take(PEER, &name, piece), Taken::Part { news: true, .. }));
            assert!(assemblies.bytes() <= 10_000);
            assert!(assemblies.held(PEER, &name).is_some());
        }
        assemblies.forget(PEER, Some(&doc("notes:99")));
        assert!(assemblies.held(PEER, &doc("notes:99")).is_none());
        assemblies.forget(PEER, None);
        assert_eq!(assemblies.bytes(), 0);
    }

    #[test]
    fn another_whole_takes_the_place_of_the_one_before() {
        let mut assemblies = Assemblies::new(1 << 20);
        for len in [3000, 2000] {
            let mut transfer = Transfer::new(Form::Saved, whole(len));
            assemblies.take(PEER, &doc("notes:1"), transfer.next(1500).expect("more"));
        }
        assert_eq!(assemblies.bytes(), Assembly::OVERHEAD + 1500);
    }
}
