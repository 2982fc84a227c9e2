//! What holds for everything that arrives on `peat/sync/1`.

use bytes::Bytes;
use peat_proto::reconcile::{Cell, Decoder, Frozen, Item, Prefix, Progress, Ranges, SetKey, State, SymbolSet};
use peat_proto::wire::v1::{
    Assembler, Caps, Cells, Entries, Frame, FrameError, Handshake, Hello, Incoming, Kind, Packed, Secrets, Shares,
};
use peat_proto::{DocId, Formation, FormationId, FormationSecret, Heads, Link, PeerId, Role, Wire, automerge};

use super::{within, within_bounds};

#[path = "../../../peat-proto/tests/common/v1.rs"]
mod read;

/// A stream: `pieces u8 | length u8 of each piece | bytes`. However it is cut into pieces, the same frames come out, and
/// each is written as it was read.
pub fn v1_frames(input: &[u8]) -> bool {
    let Some((&pieces, rest)) = input.split_first() else { return false };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(pieces)) else { return false };
    let stream = Bytes::copy_from_slice(stream);
    let mut whole = Vec::new();
    let end = frames(&stream, &[], |next| whole.push(next));
    let mut pieced = Vec::new();
    assert_eq!(frames(&stream, cuts, |next| pieced.push(next)), end, "the end depends on the pieces {cuts:?}");
    assert_eq!(pieced, whole, "frames depend on the pieces {cuts:?}");
    assert_eq!(within_bounds(&stream, || frames(&stream, cuts, drop)), end);

    let mut rest = &stream[..];
    for next in &whole {
        let len = match next {
            Incoming::Frame(frame) => Frame::encoded_len(frame.body.len()),
            Incoming::Skipped { bytes, .. } => usize::try_from(*bytes).expect("no more than there is"),
        };
        let (bytes, behind) = rest.split_at_checked(len).expect("no more is read than there is");
        if let Incoming::Frame(Frame { kind, body }) = next {
            assert!(bytes.ends_with(body), "the body stands at the end");
            body_of(*kind, body.clone(), Some(bytes));
        }
        rest = behind;
    }
    match end {
        Ok(()) => assert!(rest.is_empty(), "{} bytes are neither read nor missed", rest.len()),
        Err(FrameError::Truncated { received }) => assert_eq!(received, rest.len() as u64),
        Err(_) => {}
    }
    end.is_ok() && !whole.is_empty()
}

/// A body: `kind u8 | bytes`. What is read is written as the same bytes, and reading stays within bounds.
pub fn v1_body(input: &[u8]) -> bool {
    let Some((code, body)) = input.split_first() else { return false };
    let Some(kind) = Kind::from_code(*code) else { return false };
    body_of(kind, Bytes::copy_from_slice(body), None)
}

fn body_of(kind: Kind, body: Bytes, frame: Option<&[u8]>) -> bool {
    let limit = match kind {
        Kind::Packed => (64 << 10) + (Packed::MAX_RATIO + 8) * body.len() + (64 << 10),
        _ => 4 * body.len() + (64 << 10),
    };
    let found = match kind {
        // A node takes in one entry at a time: all of them at once are only for what follows.
        Kind::Entries => within(limit, || Entries::decode(body.clone()).map(|entries| entries.each().for_each(drop)))
            .and_then(|()| read::read(kind, body.clone())),
        _ => within(limit, || read::read(kind, body.clone())),
    };
    let Ok(found) = found else { return false };
    let Some(written) = read::written(&found) else { return true };
    let (again, rewritten) = only_frame(&written);
    assert_eq!(again, kind, "written as another kind");
    // What only a later version understands is skipped and not written again: what is left is read as the same.
    if matches!(kind, Kind::Proof | Kind::Hello | Kind::Terms) {
        assert!(rewritten.len() <= body.len(), "longer than what was read: {found:?}");
        assert_eq!(read::read(kind, rewritten).as_ref(), Ok(&found), "read otherwise than written");
    } else {
        assert_eq!(rewritten, body, "written otherwise than read: {found:?}");
        assert!(frame.is_none_or(|frame| frame == written));
    }
    true
}

/// The one frame that these bytes are.
fn only_frame(bytes: &Bytes) -> (Kind, Bytes) {
    let mut assembler = Assembler::new();
    assembler.push(bytes.clone());
    let Ok(Some(Incoming::Frame(Frame { kind, body }))) = assembler.next(&Caps::PEER) else {
        panic!("what is written is read as a frame");
    };
    assert!(!assembler.is_mid_frame(), "more than one frame");
    (kind, body)
}

/// The greeting and the proof of a stranger: `length u8 | greeting | proof`. They are refused, or prove nothing.
pub fn v1_handshake(input: &[u8]) -> bool {
    let Some((&len, rest)) = input.split_first() else { return false };
    let Some((greeting, proof)) = rest.split_at_checked(usize::from(len)) else { return false };
    let (greeting, proof) = (Bytes::copy_from_slice(greeting), Bytes::copy_from_slice(proof));
    within_bounds(input, || {
        let secret = FormationSecret::from_bytes(&[7; 32]).expect("a secret");
        let formation = Formation { id: FormationId::new("alpha").expect("a name"), secret };
        let hello = Hello { least: 1, newest: 1, nonce: [1; 32], boot: 1, abilities: 0, largest: 1 << 20 };
        let link = Link { role: Role::Accepted, wire: Wire::V1, reliable: true, binding: [3; 32], rtt: None };
        let secrets = Secrets::new(Some(&formation), []);
        let mut handshake = Handshake::new(&link, PeerId([1; 32]), PeerId([2; 32]), secrets, hello);
        assert!(handshake.heard_proof(proof.clone()).is_err(), "a proof needs a greeting");
        if handshake.heard_hello(greeting.clone()).is_err() {
            return false;
        }
        handshake.heard_hello(greeting.clone()).expect("the same again");
        match handshake.heard_proof(proof.clone()) {
            Err(_) => false,
            Ok(proven) => {
                assert!(!proven.formation && proven.invitation.is_none(), "a stranger proved that it knows the secret");
                true
            }
        }
    })
}

/// Cells for the decoder, a body of [`Cells`]: it decides in bounded work.
pub fn v1_sketch(input: &[u8]) -> bool {
    let Ok(theirs) = Cells::decode(Bytes::copy_from_slice(input)) else { return false };
    let mut ours = documents(40);
    let symbols = 40 + theirs.symbols.min(100);
    within(512 << 10, || {
        let frozen = Frozen::of([&mut ours], symbols);
        let limit = frozen.len();
        let mut decoder = Decoder::new(frozen, theirs.symbols);
        let mut cells = theirs.cells.iter().copied().chain(std::iter::repeat(Cell::default()));
        loop {
            let range = decoder.next();
            assert!(range.start == decoder.len() && range.start < range.end && range.end <= limit, "{range:?}");
            let block: Vec<Cell> = cells.by_ref().take(range.len()).collect();
            match decoder.extend(&block) {
                Progress::More => {}
                Progress::Failed => return false,
                Progress::Done(difference) => {
                    assert!(difference.len() <= decoder.len() as usize, "more symbols than cells");
                    return true;
                }
            }
        }
    })
}

/// Answers about ranges, bodies of [`Shares`], each behind its length in two bytes: the comparison ends or waits, and holds
/// no more than it may.
pub fn v1_ranges(input: &[u8]) -> bool {
    let ours = documents(300);
    let sets = [&ours];
    within(4 * input.len() + (2 << 20), || {
        let (mut ranges, mut rest, mut sound) = (Ranges::default(), input, true);
        while let Some((len, behind)) = rest.split_first_chunk() {
            let Some((body, behind)) = behind.split_at_checked(u16::from_be_bytes(*len).into()) else { return false };
            rest = behind;
            assert!(ranges.ask().len() + ranges.unanswered().len() <= 128);
            let Ok(shares) = Shares::decode(Bytes::copy_from_slice(body)) else { return false };
            for (prefix, answer) in shares.answers {
                let asked = ranges.unanswered().contains(&prefix);
                let taken = ranges.heard(&sets, prefix, answer);
                assert!(taken || asked, "what was not asked for is ignored");
                sound &= taken && asked;
                while ranges.has_work() {
                    let difference = ranges.work(&sets);
                    assert!(difference.ours.iter().chain(&difference.changed).all(|symbol| ours.get(symbol).is_some()));
                }
            }
        }
        sound && input.len() > 2
    })
}

fn documents(count: u32) -> SymbolSet<u32> {
    let mut set = SymbolSet::default();
    for number in 0..count {
        let doc = DocId::new(&format!("notes:{number}")).expect("a valid name");
        let heads = Heads::new(vec![automerge::ChangeHash([1; 32])]);
        set.insert(&Item::new(&SetKey::public(), &doc, 0, State::Heads(&heads)), number);
    }
    assert!(set.share(&Prefix::ALL).count == u64::from(count));
    set
}

fn frames(stream: &Bytes, cuts: &[u8], mut seen: impl FnMut(Incoming)) -> Result<(), FrameError> {
    let mut assembler = Assembler::new();
    let mut rest = stream.clone();
    let lengths = cuts.iter().map(|&length| usize::from(length)).chain([usize::MAX]);
    for length in lengths {
        assembler.push(rest.split_to(length.min(rest.len())));
        loop {
            match assembler.next(&Caps::PEER) {
                Ok(Some(next)) => seen(next),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(assembler.next(&Caps::PEER), Err(error), "a lost stream stays lost");
                    return Err(error);
                }
            }
        }
        assert!(assembler.buffered() <= stream.len());
    }
    assembler.finish()
}
