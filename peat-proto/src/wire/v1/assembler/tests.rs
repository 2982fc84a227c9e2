use super::*;
use crate::wire::v1::{Hello, Ping};

fn read(pieces: &[&[u8]], caps: &Caps) -> (Vec<Incoming>, Result<(), FrameError>) {
    let (mut assembler, mut incoming) = (Assembler::new(), Vec::new());
    for piece in pieces {
        assembler.push(Bytes::copy_from_slice(piece));
        loop {
            match assembler.next(caps) {
                Ok(Some(next)) => incoming.push(next),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(assembler.next(caps), Err(error), "a lost stream stays lost");
                    return (incoming, Err(error));
                }
            }
        }
    }
    (incoming, assembler.finish())
}

fn ping() -> Bytes {
    Ping { number: 300 }.frame()
}

/// A frame of any type with a body of zeros.
fn raw(code: u8, body: usize) -> Vec<u8> {
    let mut frame = bytes::BytesMut::new();
    crate::wire::kit::put_uleb(&mut frame, body + 1);
    [&frame[..], &[code], &vec![0; body]].concat()
}

#[test]
fn frames_come_out_whole_however_their_bytes_are_cut() {
    let stream = [&ping()[..], &raw(Kind::Entries.code(), 200), &raw(0xff, 300), &ping()].concat();
    let whole = read(&[&stream], &Caps::PEER);
    assert_eq!(whole.0.len(), 4);
    assert_eq!(whole.0[2], Incoming::Skipped { code: 0xff, bytes: 303 });
    assert_eq!(whole.1, Ok(()));
    for cut in 0..stream.len() {
        assert_eq!(read(&[&stream[..cut], &stream[cut..]], &Caps::PEER), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes, &Caps::PEER), whole);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated_and_one_that_never_began_is_not() {
    assert_eq!(read(&[], &Caps::PEER), (Vec::new(), Ok(())));
    for frame in [ping().to_vec(), raw(0x90, 200)] {
        for cut in 1..frame.len() {
            let (incoming, end) = read(&[&frame[..cut]], &Caps::PEER);
            assert_eq!((incoming.len(), end), (0, Err(FrameError::Truncated { received: cut as u64 })), "cut at {cut}");
        }
    }
}

#[test]
fn lengths_are_judged_by_type_before_the_body_is_there() {
    for kind in Kind::ALL {
        for caps in [Caps::PEER, Caps::STRANGER] {
            let limit = caps.body(kind);
            let (incoming, end) = read(&[&raw(kind.code(), limit)], &caps);
            assert_eq!((incoming.len(), end), (1, Ok(())), "{kind:?}");
            let over = raw(kind.code(), limit + 1);
            let error = FrameError::TooLong { kind, len: limit + 1, limit };
            assert_eq!(read(&[&over[..over.len() - limit - 1]], &caps), (Vec::new(), Err(error)));
        }
        assert_eq!(Kind::from_code(kind.code()), Some(kind));
    }
}

#[test]
fn unknown_types_are_skipped_if_optional_and_end_the_stream_if_not() {
    for code in 0..=u8::MAX {
        if Kind::from_code(code).is_some() {
            continue;
        }
        let (incoming, end) = read(&[&raw(code, 10), &ping()], &Caps::PEER);
        if code & Kind::OPTIONAL == 0 {
            assert_eq!((incoming.len(), end), (0, Err(FrameError::Unknown { code })));
        } else {
            assert_eq!((incoming.len(), end), (2, Ok(())));
            assert_eq!(incoming[0], Incoming::Skipped { code, bytes: 12 });
        }
    }
}

#[test]
fn a_length_has_one_form_and_at_most_28_bits() {
    for bad in [&[0, 1][..], &[0x80, 0, 1], &[0x82, 0x80, 0, 1], &[0x80, 0x80, 0x80, 0x80], &[0xff; 8]] {
        assert_eq!(read(&[bad], &Caps::PEER), (Vec::new(), Err(FrameError::Length)), "{bad:?}");
    }
    let longest = [&[0xff, 0xff, 0xff, 0x7f, 0xff][..], &[0; 100]].concat();
    let (incoming, end) = read(&[&longest], &Caps::PEER);
    assert_eq!((incoming.len(), end), (0, Err(FrameError::Truncated { received: 105 })));
    assert_eq!(Frame::encoded_len(126), 128);
    assert_eq!(Frame::encoded_len(127), 130);
}

#[test]
fn a_greeting_fits_where_strangers_are_heard() {
    let hello = Hello { least: 1, newest: 1, nonce: [7; 32], boot: u64::MAX, abilities: u64::MAX, largest: u64::MAX };
    let frame = hello.frame();
    let (incoming, end) = read(&[&frame], &Caps::STRANGER);
    let Ok([Incoming::Frame(frame)]) = <[Incoming; 1]>::try_from(incoming) else { panic!("one frame") };
    assert_eq!((frame.kind, Hello::decode(frame.body), end), (Kind::Hello, Ok(hello), Ok(())));
}
