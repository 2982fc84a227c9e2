//! What is too large for one frame: sent in pieces, put together again, and gone on with on the next connection.

use std::collections::BTreeMap;

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

/// Wholes that are being put together, of all peers, within a budget. They outlive their connections.
#[derive(Debug)]
pub(crate) struct Assemblies {
    parts: BTreeMap<(PeerId, DocId), Assembly>,
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
    ahead: BTreeMap<u64, Bytes>,
    used: u64,
}

/// What became of a piece.
#[derive(Debug, PartialEq)]
pub(crate) enum Taken {
    /// It was the last one.
    Whole(Form, Bytes),
    /// More must come. `news`: it was the next one.
    Part { held: Held, news: bool },
}

impl Assemblies {
    /// Holds at most so many bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self { parts: BTreeMap::new(), budget, bytes: 0, clock: 0 }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is held of a document from a peer, to be told to it.
    pub(crate) fn held(&self, peer: PeerId, doc: &DocId) -> Option<Held> {
        let assembly = self.parts.get(&(peer, doc.clone()))?;
        (!assembly.front.is_empty()).then(|| assembly.held())
    }

    /// Takes in a piece, whose whole is within what is accepted.
    pub(crate) fn take(&mut self, peer: PeerId, doc: &DocId, piece: Piece) -> Taken {
        self.clock += 1;
        let key = (peer, doc.clone());
        if self.parts.get(&key).is_some_and(|known| known.id != piece.id || known.whole != piece.whole) {
            self.drop_part(&key);
        }
        let assembly = self.parts.entry(key.clone()).or_insert_with(|| Assembly {
            id: piece.id,
            form: piece.form,
            whole: piece.whole,
            front: Vec::new(),
            ahead: BTreeMap::new(),
            used: 0,
        });
        assembly.used = self.clock;
        let before = assembly.bytes();
        let front = assembly.front.len();
        assembly.add(piece.offset, piece.bytes);
        let news = assembly.front.len() > front;
        self.bytes = (self.bytes + assembly.bytes()).saturating_sub(before);
        if assembly.front.len() as u64 >= assembly.whole {
            let form = assembly.form;
            let whole = self.drop_part(&key).map(|assembly| assembly.front).unwrap_or_default();
            return Taken::Whole(form, whole.into());
        }
        let held = assembly.held();
        self.shrink();
        Taken::Part { held, news }
    }

    /// Lets go of what was longest without a new piece, down to the budget.
    fn shrink(&mut self) {
        while self.bytes > self.budget {
            let oldest = self.parts.iter().min_by_key(|(_, assembly)| assembly.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.drop_part(&oldest);
        }
    }

    fn drop_part(&mut self, key: &(PeerId, DocId)) -> Option<Assembly> {
        let assembly = self.parts.remove(key)?;
        self.bytes = self.bytes.saturating_sub(assembly.bytes());
        Some(assembly)
    }

    /// Forgets what is held of a document, or of all of them, from a peer.
    pub(crate) fn forget(&mut self, peer: PeerId, doc: Option<&DocId>) {
        let gone = |(from, name): &(PeerId, DocId)| *from == peer && doc.is_none_or(|doc| doc == name);
        let gone: Vec<_> = self.parts.keys().filter(|key| gone(key)).cloned().collect();
        for key in gone {
            self.drop_part(&key);
        }
    }
}

impl Assembly {
    fn bytes(&self) -> usize {
        /// What an entry takes beside its bytes.
        const ENTRY: usize = 64;
        self.front.len() + self.ahead.values().map(|bytes| bytes.len() + ENTRY).sum::<usize>()
    }

    fn held(&self) -> Held {
        Held { id: self.id, bytes: self.front.len() as u64 }
    }

    fn add(&mut self, offset: u64, bytes: Bytes) {
        let front = self.front.len() as u64;
        if offset > front {
            let known = self.ahead.entry(offset).or_default();
            if known.len() < bytes.len() {
                *known = bytes;
            }
            return;
        }
        self.append(offset, &bytes);
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= self.front.len() as u64) {
            let (offset, bytes) = next.remove_entry();
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
                    }
                }
                transfer.rewind();
            }
            assert_eq!(assemblies.bytes(), 0, "what is whole is handed over");
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
        assert_eq!(assemblies.bytes(), 1500);
    }
}
