use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};

use super::*;

fn hash(byte: u8) -> ChangeHash {
    ChangeHash([byte; 32])
}

fn bloom(bytes: &'static [u8]) -> Bloom {
    Bloom::read(Bytes::from_static(bytes)).expect("a filter that can be used")
}

fn full() -> Delta {
    Delta {
        version: Version::V2,
        heads: vec![hash(1), hash(2)],
        need: vec![hash(3)],
        have: vec![Have { last_sync: vec![hash(4)], bloom: bloom(&[1, 10, 7, 0xff, 0xff]) }],
        changes: vec![Bytes::from(vec![9; 300])],
        tail: Bytes::from_static(&[2, 0x02, 0x80]),
    }
}

#[test]
fn what_is_written_is_read_back() {
    for delta in [Delta::default(), full()] {
        let bytes = delta.encode();
        assert_eq!(bytes.len(), delta.encoded_len());
        assert_eq!(Delta::decode(bytes), Ok(delta));
    }
}

#[test]
fn every_truncation_is_refused() {
    let delta = full();
    let bytes = delta.encode();
    let without_tail = bytes.len() - delta.tail.len();
    for cut in (0..bytes.len()).filter(|&cut| cut != without_tail) {
        assert!(Delta::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn filters_that_automerge_could_not_use_are_refused() {
    let cases: [&'static [u8]; 6] = [
        &[1, 0, 7],
        &[1, 10, 0, 0, 0],
        &[1, 10, 65, 0, 0],
        &[2, 10, 7, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f, 7],
        &[0x80, 0x80, 0x80, 0x80, 0x10, 0, 7],
    ];
    for bloom in cases {
        assert_eq!(Bloom::read(Bytes::from_static(bloom)), Err(DeltaError::Bloom));
        let head = [&[0x42, 0, 0, 1, 0, bloom.len() as u8][..], bloom, &[0]].concat();
        assert_eq!(Delta::decode(head.into()), Err(DeltaError::Bloom));
    }
}

#[test]
fn lists_of_small_things_are_bounded() {
    let mut delta = full();
    delta.have = vec![Have::default(); 65];
    assert_eq!(Delta::decode(delta.encode()), Err(DeltaError::TooManyHaves { count: 65 }));
    let mut delta = full();
    delta.changes.push(Bytes::from_static(&[0; 9]));
    assert_eq!(Delta::decode(delta.encode()), Err(DeltaError::ChangeTooShort { len: 9 }));
}

#[test]
fn automerge_and_this_codec_agree_on_a_whole_conversation() {
    let mut left = AutoCommit::new();
    left.put(ROOT, "name", "left").expect("a put to the root");
    let mut right = left.fork();
    for n in 0..40 {
        left.put(ROOT, "n", n).expect("a put to the root");
        left.commit();
        right.put(ROOT, "m", n).expect("a put to the root");
        right.commit();
    }
    let mut docs = [left, right];
    let mut states = [State::new(), State::new()];
    let mut messages = 0;
    loop {
        let mut silent = 0;
        for side in 0..2 {
            let Some(message) = docs[side].sync().generate_sync_message(&mut states[side]) else {
                silent += 1;
                continue;
            };
            messages += 1;
            let bytes = Bytes::from(message.clone().encode());
            let delta = Delta::decode(bytes.clone()).expect("Automerge wrote it");
            assert_eq!(delta.heads, message.heads);
            assert_eq!(delta.need, message.need);
            assert!(delta.changes.iter().map(|c| &c[..]).eq(message.changes.iter()));
            assert_eq!(delta.encode(), bytes);
            let other = 1 - side;
            let message = Message::decode(&delta.encode()).expect("it is the same");
            docs[other].sync().receive_sync_message(&mut states[other], message).expect("a valid message");
        }
        if silent == 2 {
            break;
        }
    }
    assert!(messages > 2);
    assert_eq!(docs[0].get_heads().len(), 2);
    let [mut left, mut right] = docs;
    assert_eq!(left.get_heads(), right.get_heads());
}

#[test]
fn a_filter_is_the_one_that_automerge_would_build_and_finds_what_automerge_finds() {
    let hashes: Vec<ChangeHash> =
        (0..300_u32).map(|n| ChangeHash(*blake3::hash(&n.to_be_bytes()).as_bytes())).collect();
    for count in [0, 1, 2, 7, 100, 200] {
        let (members, strangers) = hashes.split_at(count);
        let theirs = automerge::sync::BloomFilter::from_hashes(members.iter());
        let ours = Bloom::of(members);
        assert_eq!(ours.as_bytes(), theirs.to_bytes());
        assert_eq!(Bloom::read(theirs.to_bytes().into()), Ok(ours.clone()));
        assert!(members.iter().all(|hash| ours.contains(hash)));
        for hash in strangers {
            assert_eq!(ours.contains(hash), theirs.contains_hash(hash));
        }
        let passed = strangers.iter().filter(|hash| ours.contains(hash)).count();
        assert!(passed * 20 < strangers.len(), "{passed} of {} strangers pass", strangers.len());
    }
}
