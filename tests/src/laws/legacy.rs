//! What holds for the messages of legacy peers.

use std::time::Duration;

use bytes::Bytes;
use peat_proto::wire::v0::negentropy::{Responder, date_of};
use peat_proto::wire::v0::{Dialect, Handshake, Step, Tombstone, TombstoneBatch, TombstoneBatchBuilder};
use peat_proto::{Formation, FormationId, FormationSecret, Time};

use super::within;
use super::within_bounds;

/// A tombstone: what is used of it is written as it was read, and what is not is told by its lengths alone.
pub fn tombstone(input: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(input);
    let decoded = within_bounds(input, || {
        let mut rest = payload.clone();
        Tombstone::take(&mut rest).map(|tombstone| (tombstone, rest))
    });
    let Ok((tombstone, rest)) = decoded else { return false };
    let encoded = tombstone.encode();
    assert_eq!([&encoded[..], &rest].concat(), input);
    assert_eq!(encoded.len(), tombstone.encoded_len());
    assert!(encoded.len() <= Tombstone::MAX_LEN);
    assert!(tombstone.frame().ends_with(&encoded));
    true
}

/// A batch of tombstones: bad ones cost only themselves, and what is sound is written as it was read.
pub fn tombstones(input: &[u8]) -> bool {
    let payload = Bytes::copy_from_slice(input);
    let decoded = within_bounds(input, || {
        let batch = TombstoneBatch::decode(payload.clone())?;
        let sound = batch.elements().filter(Result::is_ok).count();
        Ok::<_, peat_proto::wire::v0::TombstoneBatchError>((batch, sound))
    });
    let Ok((batch, sound)) = decoded else { return false };
    let elements: Vec<_> = batch.elements().collect();
    assert_eq!(elements.len(), batch.len());
    assert_eq!(elements.is_empty(), batch.is_empty());
    let mut builder = TombstoneBatchBuilder::new(usize::MAX);
    for tombstone in elements.iter().flatten() {
        assert!(builder.push(tombstone), "a received tombstone fits into a frame");
    }
    let rebuilt = builder.finish();
    if sound == elements.len() {
        assert_eq!(rebuilt.len(), input.len() - batch.trailing);
        assert!(batch.trailing > 0 || rebuilt == input);
    }
    let again = TombstoneBatch::decode(rebuilt).expect("our own batch");
    assert!(again.elements().eq(elements.into_iter().flatten().map(Ok)));
    assert_eq!(again.trailing, 0);
    sound > 0
}

/// Messages on one stream of negentropy: `items u16 | (length u16 | message)`. Each is answered, at most 16 times, in
/// bounded memory, by an answer that itself can be answered.
pub fn negentropy(input: &[u8]) -> bool {
    let Some((count, mut rest)) = input.split_first_chunk() else { return false };
    let count = u64::from(u16::from_be_bytes(*count)) % 2048;
    let mut date = None;
    let mut responder = None;
    let mut answered = 0;
    while let Some((len, behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
        let (message, behind) = behind.split_at(len);
        rest = behind;
        let message = Bytes::copy_from_slice(message);
        let found = within_bounds(&message, || date_of(message.clone()));
        let date = *date.get_or_insert(found.unwrap_or_default().unwrap_or_default());
        let responder = responder.get_or_insert_with(|| Responder::new((0..count).map(|n| (date, item(n)))));
        // Of an answer, and of what it grew out of.
        let most = 4 * (3 * message.len() + 64 * item_count(count) + 1024);
        let Ok(answer) = within(most, || responder.answer(message)) else { continue };
        answered += 1;
        assert!(date_of(answer.clone()).is_ok(), "an answer that cannot be read: {answer:02x?}");
        let mut other = Responder::new((0..count / 2).map(|n| (date, item(n))));
        assert!(other.answer(answer).is_ok());
    }
    assert!(answered <= Responder::MAX_ROUNDS);
    answered > 0
}

fn item_count(count: u64) -> usize {
    usize::try_from(count).expect("a small number")
}

fn item(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_be_bytes()).as_bytes()
}

/// The handshake in dialect M.
pub fn auth_m(input: &[u8]) -> bool {
    auth(Dialect::M, input)
}

/// The handshake in dialect P.
pub fn auth_p(input: &[u8]) -> bool {
    auth(Dialect::P, input)
}

/// What one side of a handshake is told: `role u8 | (length u8 | bytes)`. Role 0 accepts, others dial; a length of 255
/// brings all of the rest and the end of the stream, one of 254 the right bytes of a member, and one of 253 lets 31 s
/// pass. However the bytes are cut, there is one verdict at most, in bounded memory, and none but a member is let in.
fn auth(dialect: Dialect, input: &[u8]) -> bool {
    let Some((role, mut rest)) = input.split_first() else { return false };
    let formation = Formation {
        id: FormationId::new("alpha").expect("a valid name"),
        secret: FormationSecret::from_bytes(&[0x42; 32]).expect("a secret"),
    };
    let mut now = Time::ZERO;
    let nonce = [7; 32];
    let (mut machine, mut member, mut owed) = match role {
        0 => {
            let (member, opening) = Handshake::dialled(dialect, &formation, now);
            (Handshake::accepted(dialect, &formation, nonce, now), member, opening)
        }
        _ => {
            let (machine, opening) = Handshake::dialled(dialect, &formation, now);
            let mut member = Handshake::accepted(dialect, &formation, nonce, now);
            let owed = member.received(now, &opening, false).send;
            (machine, member, owed)
        }
    };
    let mut told = Vec::new();
    let mut honest = true;
    let mut verdict = None;
    while let Some((&len, behind)) = rest.split_first() {
        let (bytes, fin) = match len {
            255 => (Bytes::copy_from_slice(std::mem::take(&mut rest).get(1..).unwrap_or_default()), true),
            254 => (std::mem::take(&mut owed), false),
            253 => (Bytes::new(), false),
            _ => (Bytes::copy_from_slice(&behind[..usize::from(len).min(behind.len())]), false),
        };
        if len < 253 {
            rest = &behind[bytes.len()..];
        } else if len < 255 {
            rest = behind;
        }
        honest &= len == 254 || bytes.is_empty();
        let step: Step = within_bounds(&bytes, || match len {
            253 => {
                now += Duration::from_secs(31);
                machine.timeout(now)
            }
            _ => machine.received(now, &bytes, fin),
        });
        told.extend_from_slice(&bytes);
        assert!(step.verdict.is_none() || verdict.is_none(), "two verdicts");
        assert!(verdict.is_none() || step == Step::default(), "something after the verdict: {step:?}");
        verdict = verdict.or(step.verdict);
        assert_eq!(machine.deadline().is_none(), verdict.is_some());
        if !step.send.is_empty() {
            owed = member.received(now, &step.send, false).send;
        }
    }
    // An acceptor lets in who answered its challenge; a dialler believes the verdict, which anybody can say.
    if *role == 0 && verdict == Some(Ok(())) && !honest {
        let answer =
            Handshake::dialled(dialect, &formation, now).0.received(now, &challenge(dialect, &formation), false);
        assert!(told.windows(32).any(|window| window == answer.send), "let in without an answer");
    }
    verdict == Some(Ok(()))
}

/// What the acceptor asks.
fn challenge(dialect: Dialect, formation: &Formation) -> Bytes {
    let opening = Handshake::dialled(dialect, formation, Time::ZERO).1;
    Handshake::accepted(dialect, formation, [7; 32], Time::ZERO).received(Time::ZERO, &opening, false).send
}
