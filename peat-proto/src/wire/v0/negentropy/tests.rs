use super::*;

fn ask(bytes: &[u8]) -> Result<Bytes, NegentropyError> {
    Responder::new((0..100).map(|n| (7, [n; 32]))).answer(Bytes::copy_from_slice(bytes))
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let huge = [0xff; 9];
    let cases: [(&[u8], NegentropyError); 12] = [
        (&[], NegentropyError::Truncated),
        (&[0xff, 0], NegentropyError::Version { found: 0xff }),
        (&[0x5f], NegentropyError::Version { found: 0x5f }),
        (&[0x61, 0], NegentropyError::Truncated),
        (&[0x61, 0, 0], NegentropyError::Truncated),
        (&[0x61, 0, 0, 1, 0, 0], NegentropyError::Truncated),
        (&[0x61, 0, 0, 2], NegentropyError::Truncated),
        (&[0x61, 0, 0, 2, 1], NegentropyError::Truncated),
        (&[0x61, 0, 0, 3], NegentropyError::Mode { mode: 3 }),
        (&[0x61, 1, 33], NegentropyError::Prefix { len: 33 }),
        (&[0x61, 1, 0x81, 0], NegentropyError::Prefix { len: 128 }),
        (&[0x61, 0x80], NegentropyError::Truncated),
    ];
    for (message, error) in cases {
        assert_eq!(ask(message), Err(error), "{message:02x?}");
    }
    // 64 bits fit, 65 do not.
    assert_eq!(take_varint(&mut [&[0x81][..], &huge[..8], &[0x7f]].concat().into()), Ok(u64::MAX));
    assert_eq!(take_varint(&mut [&[0x83][..], &huge[..8], &[0x7f]].concat().into()), Err(NegentropyError::Number));
    let counts = [&[0x61, 0, 0, 2, 0x81][..], &huge[..8], &[0x7f]].concat();
    assert_eq!(ask(&counts), Err(NegentropyError::Truncated));
}

#[test]
fn another_version_is_answered_with_ours_and_nothing_else() {
    for version in [0x60, 0x62, 0x6f] {
        assert_eq!(ask(&[version, 0xff, 0xff]).as_deref(), Ok(&[0x61][..]));
    }
}

#[test]
fn varints_survive_and_are_as_short_as_can_be() {
    for number in (0..64).map(|bit| 1 << bit).flat_map(|power: u64| [power - 1, power, power + 1]).chain([u64::MAX]) {
        let mut out = BytesMut::new();
        put_varint(&mut out, number);
        assert_eq!(out.len() as u32, (64 - number.leading_zeros()).div_ceil(7).max(1));
        assert_eq!(take_varint(&mut out.freeze()), Ok(number));
    }
}

#[test]
fn the_dialogue_and_its_messages_are_bounded() {
    let range = [0, 0, 0];
    let most = [&[0x61][..], &range.repeat(Ranges::MOST)].concat();
    assert_eq!(ask(&most).map(|answer| answer.len()), Ok(1));
    let more = [&most[..], &range].concat();
    assert_eq!(ask(&more), Err(NegentropyError::TooManyRanges));

    let mut responder = Responder::new([]);
    for _ in 0..Responder::MAX_ROUNDS {
        assert_eq!(responder.answer(Bytes::from_static(&[0x61])).as_deref(), Ok(&[0x61][..]));
    }
    assert_eq!(responder.answer(Bytes::from_static(&[0x61])), Err(NegentropyError::TooManyRounds));
    assert_eq!(Responder::new((0..70_000).map(|n| (n, [0; 32]))).items.len(), Responder::MAX_ITEMS);
}

#[test]
fn the_date_is_that_of_the_first_bound_that_has_one() {
    let date = |message: &'static [u8]| date_of(Bytes::from_static(message));
    assert_eq!(date(&[0x61]), Ok(None));
    assert_eq!(date(&[0x61, 0, 0, 2, 0]), Ok(None));
    assert_eq!(date(&[0x61, 0x86, 0xaa, 0xcf, 0xe2, 0x01, 1, 0x10, 0, 0, 0, 2, 0]), Ok(Some(1_700_000_000)));
    assert_eq!(date(&[0x61, 1, 0, 0, 1]), Ok(Some(0)));
    assert_eq!(date(&[0x61, 0, 0, 1]), Err(NegentropyError::Truncated));
}
