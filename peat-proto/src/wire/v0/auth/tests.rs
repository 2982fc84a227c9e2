use super::*;
use crate::FormationSecret;

const BOTH: [Dialect; 2] = [Dialect::M, Dialect::P];

/// Nonce, key and answer of the worked example of the specification: formation `alpha`, secret 32 times 0x42.
const CHALLENGED: Nonce = {
    let mut nonce = [0; 32];
    let mut byte = 0;
    while byte < 32 {
        nonce[byte as usize] = byte;
        byte += 1;
    }
    nonce
};
const DERIVED: &str = "20091899a0352531f9eb9c81b08c2f7ecc083c4a472887d8fa6b1e9269566686";
const ANSWERED: &str = "aa141ee969be027f5e2d6079b37b21b11776def1dfb77333966b5f4e72531fed";

fn formation(id: &str, secret: u8) -> Formation {
    let id = FormationId::new(id).expect("a valid name");
    Formation { id, secret: FormationSecret::from_bytes(&[secret; 32]).expect("a secret") }
}

fn alpha() -> Formation {
    formation("alpha", 0x42)
}

fn at(secs: u64) -> Time {
    Time::ZERO + Duration::from_secs(secs)
}

fn dial(dialect: Dialect, formation: &Formation) -> (Handshake, Bytes) {
    Handshake::dialled(dialect, formation, at(0))
}

fn accept(dialect: Dialect, formation: &Formation) -> Handshake {
    Handshake::accepted(dialect, formation, CHALLENGED, at(0))
}

/// Everything that each side wrote, step by step, and the verdicts of dialler and acceptor.
fn converse(
    dialect: Dialect,
    ours: &Formation,
    theirs: &Formation,
) -> (Vec<String>, [Option<Result<(), AuthError>>; 2]) {
    let (mut dialler, opening) = dial(dialect, ours);
    let mut acceptor = accept(dialect, theirs);
    let mut written = vec![hex::encode(&opening)];
    let mut verdicts = [None, None];
    let mut step = Step { send: opening, ..Step::default() };
    for turn in 0.. {
        let reader = if turn % 2 == 0 { &mut acceptor } else { &mut dialler };
        step = reader.received(at(1), &step.send, step.fin);
        written.push(hex::encode(&step.send));
        if let Some(verdict) = step.verdict {
            verdicts[1 - turn % 2] = Some(verdict);
        }
        if step.send.is_empty() {
            break;
        }
    }
    (written, verdicts)
}

#[test]
fn the_worked_example_byte_for_byte() {
    assert_eq!(hex::encode(Key::new(&alpha()).0), DERIVED);
    let challenge = format!("0500616c706861{}", hex::encode(CHALLENGED));
    let (written, verdicts) = converse(Dialect::M, &alpha(), &alpha());
    assert_eq!(written, ["20000000", &format!("27000000{challenge}"), ANSWERED, "01", ""]);
    assert_eq!(verdicts, [Some(Ok(())); 2]);
    let (written, verdicts) = converse(Dialect::P, &alpha(), &alpha());
    assert_eq!(written, ["0500616c706861", &challenge, ANSWERED, "01", ""]);
    assert_eq!(verdicts, [Some(Ok(())); 2]);
}

#[test]
fn auth_1_both_sides_agree_however_the_bytes_are_cut() {
    for dialect in BOTH {
        let (mut dialler, opening) = dial(dialect, &alpha());
        let mut acceptor = accept(dialect, &alpha());
        let mut verdicts = Vec::new();
        let mut sent = opening.to_vec();
        for turn in 0..4 {
            let reader = if turn % 2 == 0 { &mut acceptor } else { &mut dialler };
            let mut answer = Vec::new();
            for byte in sent {
                let step = reader.received(at(1), &[byte], false);
                answer.extend_from_slice(&step.send);
                verdicts.extend(step.verdict);
            }
            sent = answer;
        }
        assert_eq!(verdicts, [Ok(()), Ok(())], "{dialect:?}");
        assert_eq!((dialler.deadline(), acceptor.deadline()), (None, None));
    }
}

#[test]
fn another_secret_is_refused_by_the_acceptor_and_told_to_the_dialler() {
    for dialect in BOTH {
        let (written, verdicts) = converse(dialect, &formation("alpha", 0x43), &alpha());
        assert_eq!(written.iter().rev().nth(1).map(String::as_str), Some("00"));
        assert_eq!(verdicts, [Some(Err(AuthError::Refused)), Some(Err(AuthError::WrongAnswer))]);
    }
}

#[test]
fn another_formation_is_refused_as_soon_as_it_is_named() {
    for other in ["beta", "alphb", "alphabet", "x"] {
        let other = formation(other, 0x42);
        let (_, verdicts) = converse(Dialect::M, &alpha(), &other);
        assert_eq!(verdicts, [Some(Err(AuthError::WrongFormation)), None]);
        let (_, verdicts) = converse(Dialect::P, &alpha(), &other);
        assert_eq!(verdicts, [None, Some(Err(AuthError::WrongFormation))]);
        // A legacy acceptor only logs it, and shows its own.
        let (mut dialler, _) = dial(Dialect::P, &alpha());
        let mut challenge = BytesMut::new();
        accept(Dialect::P, &other).put_formation(&mut challenge);
        challenge.put_slice(&CHALLENGED);
        let step = dialler.received(at(1), &challenge, false);
        assert_eq!(step.verdict, Some(Err(AuthError::WrongFormation)));
        assert!(step.send.is_empty(), "no answer for strangers");
    }
}

#[test]
fn every_step_has_thirty_seconds_however_slowly_it_comes() {
    for dialect in BOTH {
        let (mut dialler, opening) = dial(dialect, &alpha());
        let mut acceptor = accept(dialect, &alpha());
        assert_eq!(acceptor.deadline(), Some(at(30)));
        assert_eq!(acceptor.timeout(at(29)), Step::default());
        let challenge = acceptor.received(at(29), &opening, false).send;
        assert_eq!(acceptor.deadline(), Some(at(59)), "a step that is done gives time for the next");
        let answer = dialler.received(at(29), &challenge, false).send;
        assert_eq!(dialler.deadline(), Some(at(59)));
        let (last, most) = answer.split_last().expect("32 bytes");
        for (second, byte) in (29..).zip(most) {
            let step = acceptor.received(at(second), &[*byte], false);
            assert_eq!(step, Step::default());
        }
        for machine in [&mut dialler, &mut acceptor] {
            assert_eq!(machine.deadline(), Some(at(59)), "a trickle gains no time");
            let step = machine.timeout(at(59));
            assert_eq!(step.verdict, Some(Err(AuthError::TimedOut)));
            assert_eq!(machine.timeout(at(90)), Step::default(), "a verdict is said once");
        }
        let late = acceptor.received(at(60), &[*last], true);
        assert_eq!(late, Step::default(), "what comes too late changes nothing");
    }
}

#[test]
fn a_silent_stream_is_refused_in_time() {
    for dialect in BOTH {
        let mut acceptor = accept(dialect, &alpha());
        assert_eq!(acceptor.timeout(at(30)).verdict, Some(Err(AuthError::TimedOut)));
    }
}

/// A machine that awaits the step, the step itself, and whether more of it than is needed is allowed.
fn steps() -> Vec<(&'static str, Handshake, Vec<u8>)> {
    let mut steps = Vec::new();
    for dialect in BOTH {
        let (dialler, opening) = dial(dialect, &alpha());
        let mut challenger = accept(dialect, &alpha());
        let challenge = challenger.received(at(0), &opening, false).send;
        let (mut answerer, _) = dial(dialect, &alpha());
        let answer = answerer.received(at(0), &challenge, false).send;
        if dialect == Dialect::P {
            steps.push(("formation", accept(dialect, &alpha()), opening.to_vec()));
        }
        steps.push(("challenge", dialler, challenge.to_vec()));
        steps.push(("answer", challenger, answer.to_vec()));
        steps.push(("verdict", answerer, vec![ACCEPTED]));
    }
    steps
}

#[test]
fn a_step_cut_short_is_refused_wherever_it_is_cut() {
    let count = steps().len();
    for index in 0..count {
        let len = steps()[index].2.len();
        for cut in 0..len {
            let (name, mut machine, bytes) = steps().swap_remove(index);
            let step = machine.received(at(1), &bytes[..cut], true);
            assert_eq!(step.verdict, Some(Err(AuthError::Truncated)), "{name} cut at {cut}");
        }
        let (name, mut machine, bytes) = steps().swap_remove(index);
        assert_ne!(machine.received(at(1), &bytes, false), Step::default(), "{name} is whole");
    }
}

#[test]
fn a_step_with_more_behind_it_is_refused() {
    for (name, mut machine, mut bytes) in steps() {
        bytes.push(0);
        let step = machine.received(at(1), &bytes, false);
        assert_eq!(step.verdict, Some(Err(AuthError::TooLong)), "{name}");
    }
    let mut acceptor = accept(Dialect::M, &alpha());
    let early = [&[32, 0, 0, 0][..], &[0; 32]].concat();
    let step = acceptor.received(at(1), &early, false);
    assert_eq!(step.verdict, Some(Err(AuthError::TooLong)), "an answer before the challenge");
}

#[test]
fn dialect_m_takes_the_lengths_that_legacy_peers_take_and_no_others() {
    let (_, _, challenge) = steps().into_iter().find(|(name, ..)| *name == "challenge").expect("M's challenge");
    let body = &challenge[PREFIX..];
    for len in [39, 40, 1024] {
        let mut padded = body.to_vec();
        padded.resize(len, 0);
        let (mut dialler, _) = dial(Dialect::M, &alpha());
        let step = dialler.received(at(1), &[&(len as u32).to_le_bytes()[..], &padded].concat(), false);
        assert_eq!(hex::encode(&step.send), ANSWERED, "a challenge of {len} bytes");
        assert!(step.fin);
    }
    for (len, error) in [(1025, AuthError::TooLong), (u32::MAX, AuthError::TooLong), (33, AuthError::Truncated)] {
        let (mut dialler, _) = dial(Dialect::M, &alpha());
        assert_eq!(dialler.received(at(1), &len.to_le_bytes(), false).verdict, Some(Err(error)));
    }
    let answer = hex::decode(ANSWERED).expect("hexadecimal digits");
    for (len, verdict) in [
        (32, Ok(())),
        (33, Ok(())),
        (256, Ok(())),
        (31, Err(AuthError::Truncated)),
        (257, Err(AuthError::TooLong)),
        (u32::MAX, Err(AuthError::TooLong)),
    ] {
        let mut acceptor = accept(Dialect::M, &alpha());
        let mut step = acceptor.received(at(1), &len.to_le_bytes(), false);
        if step.verdict.is_none() {
            let mut padded = answer.clone();
            padded.resize(len as usize, 0);
            step = acceptor.received(at(1), &padded, false);
        }
        assert_eq!(step.verdict, Some(verdict), "an answer of {len} bytes");
        assert_eq!(step.send.as_ref(), [u8::from(verdict.is_ok())]);
    }
}

#[test]
fn any_verdict_but_one_is_a_refusal() {
    for byte in (0..=u8::MAX).filter(|byte| *byte != ACCEPTED) {
        for (name, mut machine, _) in steps() {
            if name == "verdict" {
                let step = machine.received(at(1), &[byte], true);
                assert_eq!(step.verdict, Some(Err(AuthError::Refused)));
            }
        }
    }
}

#[test]
fn a_flood_is_refused_before_it_is_held() {
    for (_, mut machine, _) in steps() {
        let step = machine.received(at(1), &vec![0x20; 1 << 20], false);
        assert!(matches!(step.verdict, Some(Err(_))));
        assert!(machine.received.capacity() <= 2 * Handshake::MAX_STEP);
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let (mut dialler, _) = dial(Dialect::P, &alpha());
    let challenge = accept(Dialect::P, &alpha()).challenge(CHALLENGED, at(0));
    let _ = dialler.received(at(1), &challenge, false);
    let printed = format!("{dialler:?}");
    assert!(printed.contains("Key(..)") && !printed.contains("32, 9, 24"), "{printed}");
}
