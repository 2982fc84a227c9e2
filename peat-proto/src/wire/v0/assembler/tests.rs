use super::*;
use crate::id::DocId;
use crate::wire::{Label, Payload, encode_frame};

fn caps() -> Caps {
    Caps {
        key: DocId::MAX_LEN,
        delta: 16 << 20,
        snapshot: 100,
        batch: 50,
        tombstone: Some(60),
        tombstones: Some(70),
        negentropy: Some(80),
    }
}

fn doc() -> DocId {
    DocId::new("tracks:4ca7b3").expect("a valid name")
}

fn frame(payload: &[u8]) -> Bytes {
    let doc = doc();
    let payload = Payload::new(payload).expect("a short payload");
    encode_frame(Label::Delta(&doc), payload)
}

fn raw(key: &[u8], code: u8, len: u32, payload: &[u8]) -> Vec<u8> {
    let key_len = u16::try_from(key.len()).expect("a short key");
    let mut frame = key_len.to_be_bytes().to_vec();
    frame.extend(key);
    frame.push(code);
    frame.extend(len.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Everything that comes out of `pieces`, until an error.
fn assemble(pieces: &[&[u8]]) -> (Vec<Incoming>, Result<(), FrameError>) {
    let mut assembler = Assembler::new();
    let mut incoming = Vec::new();
    for piece in pieces {
        assembler.push(Bytes::copy_from_slice(piece));
        loop {
            match assembler.next(&caps()) {
                Ok(Some(next)) => incoming.push(next),
                Ok(None) => break,
                Err(error) => return (incoming, Err(error)),
            }
        }
    }
    (incoming, assembler.finish())
}

#[test]
fn any_split_of_the_stream_gives_the_same_frames() {
    let stream =
        [&frame(b"one")[..], &raw(b"k", 0x03, 5, b"skip!"), &frame(b""), &raw(b"", 0xff, 0, b""), &frame(b"three")]
            .concat();
    let whole = assemble(&[&stream]);
    assert_eq!(whole.0.len(), 5);
    assert_eq!(whole.1, Ok(()));
    assert_eq!(whole.0[1], Incoming::Skipped { code: 3, bytes: 13 });
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(assemble(&single), whole);
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(assemble(&pieces), whole, "split at {first} and {second}");
        }
    }
}

#[test]
fn a_frame_within_one_piece_is_not_copied() {
    let piece = Bytes::from([&frame(b"first")[..], &frame(b"second")].concat());
    let mut assembler = Assembler::new();
    assembler.push(piece.clone());
    for _ in 0..2 {
        let Ok(Some(Incoming::Frame(frame))) = assembler.next(&caps()) else {
            panic!("a frame is there");
        };
        assert!(piece.as_ptr_range().contains(&frame.payload.as_ptr()));
        assert_eq!(frame.doc(), Ok(doc()));
    }
    assert_eq!(assembler.buffered(), 0);
    assert!(!assembler.is_mid_frame());
}

#[test]
fn a_length_over_the_cap_is_refused_with_the_last_byte_of_the_header() {
    let cases = [
        (0x00, MessageType::Delta, 16 << 20),
        (0x01, MessageType::Snapshot, 100),
        (0x04, MessageType::Tombstone, 60),
        (0x05, MessageType::Tombstones, 70),
        (0x07, MessageType::Batch, 50),
        (0x08, MessageType::NegentropyInit, 80),
        (0x09, MessageType::NegentropyResponse, 80),
    ];
    for (code, kind, limit) in cases {
        for len in [limit as u32 + 1, u32::MAX] {
            let header = raw(b"a:b", code, len, b"");
            let (cut, rest) = header.split_at(header.len() - 1);
            assert_eq!(assemble(&[cut]).1, Err(FrameError::Truncated { received: cut.len() as u64 }));
            assert_eq!(assemble(&[cut, rest]), (vec![], Err(FrameError::PayloadTooLong { kind, len, limit })));
        }
        let mut assembler = Assembler::new();
        assembler.push(raw(b"a:b", code, limit as u32, b"").into());
        assert_eq!(assembler.next(&caps()), Ok(None));
    }
}

#[test]
fn an_overlong_key_is_refused_with_its_length() {
    for len in [513, 65_535] {
        assert_eq!(assemble(&[&u16::to_be_bytes(len)]).1, Err(FrameError::KeyTooLong { len: len.into(), limit: 512 }));
    }
}

#[test]
fn an_error_is_repeated_and_never_passed_over() {
    let mut assembler = Assembler::new();
    assembler.push(raw(b"\xff:b", 0, 0, b"").into());
    for _ in 0..3 {
        assert_eq!(assembler.next(&caps()), Err(FrameError::KeyNotUtf8));
        assembler.push(frame(b"good"));
    }
}

#[test]
fn skipped_payloads_are_not_held() {
    let mut assembler = Assembler::new();
    assembler.push(raw(b"a:b", 0x02, 1 << 20, b"").into());
    assert_eq!(assembler.next(&caps()), Ok(None));
    for _ in 0..1023 {
        assembler.push(vec![0; 1024].into());
        assert_eq!(assembler.next(&caps()), Ok(None));
        assert_eq!(assembler.buffered(), 0);
        assert!(assembler.is_mid_frame());
    }
    assert_eq!(assembler.finish(), Err(FrameError::Truncated { received: 10 + 1023 * 1024 }));
    assembler.push([&[0; 1024][..], &frame(b"next")].concat().into());
    assert_eq!(assembler.next(&caps()), Ok(Some(Incoming::Skipped { code: 2, bytes: 10 + (1 << 20) })));
    assert!(matches!(assembler.next(&caps()), Ok(Some(Incoming::Frame(_)))));
    assert_eq!(assembler.finish(), Ok(()));
}

#[test]
fn types_are_skipped_where_they_do_not_exist() {
    let skipped = |caps: &Caps, code| {
        let mut assembler = Assembler::new();
        assembler.push(raw(b"_peat", code, 3, b"abc").into());
        let incoming = assembler.next(caps).expect("a sound header").expect("a whole frame");
        let skipped = Incoming::Skipped { code, bytes: 15 };
        assert!(incoming == skipped || matches!(incoming, Incoming::Frame(_)));
        incoming == skipped
    };
    let all = |caps: &Caps| (0..=u8::MAX).filter(|code| !skipped(caps, *code)).collect::<Vec<_>>();
    let config = Config::default();
    assert_eq!(all(&Caps::v0(&config)), [0x00, 0x01, 0x04, 0x05, 0x07, 0x08, 0x09]);
    let few = Caps { tombstone: None, tombstones: None, negentropy: None, ..Caps::v0(&config) };
    assert_eq!(all(&few), [0x00, 0x01, 0x07]);
}

#[test]
fn sixteen_mebibytes_in_small_pieces_are_copied_a_few_times_at_most() {
    let payload = vec![7; 16 << 20];
    let frame = frame(&payload);
    let mut assembler = Assembler::new();
    let mut moves = 0;
    let mut place = assembler.partial.as_ptr();
    let mut received = 0;
    for piece in frame.chunks(1024) {
        assert_eq!(assembler.next(&caps()), Ok(None));
        assembler.push(Bytes::copy_from_slice(piece));
        received += piece.len();
        assert_eq!(assembler.buffered(), received);
        if received < frame.len() {
            assert_eq!(assembler.next(&caps()), Ok(None));
            assert!(assembler.partial.capacity() <= 2 * received);
        }
        if place != assembler.partial.as_ptr() {
            place = assembler.partial.as_ptr();
            moves += 1;
        }
    }
    let Ok(Some(Incoming::Frame(frame))) = assembler.next(&caps()) else {
        panic!("the frame is complete");
    };
    assert!(frame.payload == payload);
    assert!(moves <= 20, "{moves} moves");
}
