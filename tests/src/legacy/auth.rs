//! Both authentication dialects, both roles (wire.md 2.1 to 2.3).

use std::time::Duration;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use peat_proto::Role;
use sha2::Sha256;

use super::frame::Input;

/// Time that each step may take, the responder's wait for the first bytes of dialect P excepted.
pub(super) const STEP: Duration = Duration::from_secs(30);

/// The longest challenge that a connector of dialect M reads, in bytes.
const CHALLENGE_MAX: u32 = 1_024;

/// The longest answer that an acceptor of dialect M reads, in bytes.
const ANSWER_MAX: u32 = 256;

/// Who may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formation {
    /// Its name; `peat` for the node binary.
    pub id: String,
    key: [u8; 32],
}

/// How membership is proven. Nothing on the wire says which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The node binary.
    M,
    /// The host runtime.
    P,
}

/// What came of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// To write on the stream.
    pub write: Vec<u8>,
    /// How it ended, if it did; the writing half is finished then.
    pub outcome: Option<Outcome>,
}

/// The end of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Proven.
    Accepted,
    /// The connection is closed with code 1.
    Refused,
}

/// One side of one handshake, on the first bidirectional stream of the connection.
#[derive(Debug, Clone)]
pub struct Handshake {
    dialect: Dialect,
    step: Step,
    formation: Formation,
    received: Vec<u8>,
    /// AUTH-1: a connector of dialect M writes nothing until it has read something.
    mute: bool,
}

/// What is awaited next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Acceptor: that the stream appears.
    Stream([u8; 32]),
    /// Acceptor of P: the connector's formation id.
    Name([u8; 32]),
    /// Acceptor: the answer.
    Answer([u8; 32]),
    /// Connector.
    Challenge,
    /// Connector.
    Verdict,
    Done,
}

impl Formation {
    /// A formation with a shared secret.
    #[must_use]
    pub fn new(id: &str, secret: &[u8; 32]) -> Self {
        let mut key = [0; 32];
        let derived = Hkdf::<Sha256>::new(Some(id.as_bytes()), secret).expand(b"peat-protocol-v1-formation", &mut key);
        derived.expect("32 bytes are within HKDF's reach");
        Self { id: id.to_owned(), key }
    }

    /// The proof for a nonce.
    #[must_use]
    pub fn answer(&self, nonce: &[u8; 32]) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length of key");
        mac.chain_update(nonce).chain_update(self.id.as_bytes()).finalize().into_bytes().into()
    }

    /// `u16 LE id length ‖ id ‖ nonce`.
    #[must_use]
    pub fn challenge(&self, nonce: &[u8; 32]) -> Vec<u8> {
        [&self.name()[..], nonce].concat()
    }

    /// `u16 LE length ‖ id`.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        [&(self.id.len() as u16).to_le_bytes()[..], self.id.as_bytes()].concat()
    }
}

impl Handshake {
    /// A side of a handshake. The nonce is the acceptor's.
    #[must_use]
    pub fn new(dialect: Dialect, role: Role, formation: Formation, nonce: [u8; 32], mute: bool) -> Self {
        let step = match role {
            Role::Dialled => Step::Challenge,
            Role::Accepted => Step::Stream(nonce),
        };
        Self { dialect, step, formation, received: Vec::new(), mute }
    }

    /// What a connector writes when it opens the stream; nothing at all makes the stream invisible to the other side.
    #[must_use]
    pub fn opening(&self) -> Option<Vec<u8>> {
        match (self.step, self.dialect) {
            (Step::Challenge, Dialect::P) => Some(self.formation.name()),
            (Step::Challenge, Dialect::M) if self.mute => Some(Vec::new()),
            // 2.2: the constant length prefix of step 3, written early.
            (Step::Challenge, Dialect::M) => Some(32_u32.to_le_bytes().to_vec()),
            _ => None,
        }
    }

    /// How long the present step may take. The wait for the name in dialect P has no end (AUTH-7).
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        match self.step {
            Step::Name(_) | Step::Done => None,
            _ => Some(STEP),
        }
    }

    /// The stream has appeared, or bytes have arrived on it; `fin` ends it.
    pub fn receive(&mut self, bytes: &[u8], fin: bool) -> Progress {
        self.received.extend_from_slice(bytes);
        let mut progress = Progress::default();
        while self.step != Step::Done {
            match self.advance(&mut progress.write) {
                Some(true) => {}
                Some(false) => self.end(&mut progress, Outcome::Refused),
                None if fin => self.end(&mut progress, Outcome::Refused),
                None => break,
            }
            if self.step == Step::Done {
                progress.outcome.get_or_insert(Outcome::Accepted);
            }
        }
        progress
    }

    fn end(&mut self, progress: &mut Progress, outcome: Outcome) {
        self.step = Step::Done;
        progress.outcome = Some(outcome);
    }

    /// One step; `None` waits for more bytes, `false` refuses.
    fn advance(&mut self, write: &mut Vec<u8>) -> Option<bool> {
        match self.step {
            Step::Stream(nonce) => {
                self.step = match self.dialect {
                    Dialect::M => {
                        let challenge = self.formation.challenge(&nonce);
                        write.extend((challenge.len() as u32).to_le_bytes());
                        write.extend(challenge);
                        Step::Answer(nonce)
                    }
                    Dialect::P => Step::Name(nonce),
                };
            }
            // A name that differs is only logged.
            Step::Name(nonce) => {
                let len = self.peek(0)?;
                self.take(2 + usize::from(u16::from_le_bytes(len)))?;
                write.extend(self.formation.challenge(&nonce));
                self.step = Step::Answer(nonce);
            }
            Step::Answer(nonce) => {
                let answer = match self.dialect {
                    Dialect::M => {
                        let len = u32::from_le_bytes(self.peek(0)?);
                        if !(32..=ANSWER_MAX).contains(&len) {
                            return Some(false);
                        }
                        self.take(4 + len as usize)?.split_off(4)
                    }
                    Dialect::P => self.take(32)?,
                };
                let accepted = answer.starts_with(&self.formation.answer(&nonce));
                write.push(u8::from(accepted));
                if !accepted {
                    return Some(false);
                }
                self.step = Step::Done;
            }
            Step::Challenge => {
                let prefix = match self.dialect {
                    Dialect::M => {
                        let len = u32::from_le_bytes(self.peek(0)?);
                        if len > CHALLENGE_MAX {
                            return Some(false);
                        }
                        self.peek_len(4 + len as usize)?;
                        4
                    }
                    Dialect::P => 0,
                };
                let id = usize::from(u16::from_le_bytes(self.peek(prefix)?));
                let whole = match self.dialect {
                    Dialect::M => 4 + u32::from_le_bytes(self.peek(0)?) as usize,
                    Dialect::P => 2 + id + 32,
                };
                if whole < prefix + 2 {
                    return Some(false);
                }
                let body = self.take(whole)?.split_off(prefix + 2);
                let mut input = Input(&body);
                let (Ok(id), Ok(nonce)) = (input.take(id), input.take(32)) else { return Some(false) };
                if id != self.formation.id.as_bytes() {
                    return Some(false);
                }
                let answer = self.formation.answer(nonce.try_into().ok()?);
                if self.dialect == Dialect::M && self.mute {
                    write.extend(32_u32.to_le_bytes());
                }
                write.extend(answer);
                self.step = Step::Verdict;
            }
            Step::Verdict => {
                let verdict = self.take(1)?;
                if verdict != [1] {
                    return Some(false);
                }
                self.step = Step::Done;
            }
            Step::Done => {}
        }
        Some(true)
    }

    fn peek_len(&self, len: usize) -> Option<()> {
        (self.received.len() >= len).then_some(())
    }

    fn peek<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.received.get(at..at + N)?.try_into().ok()
    }

    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        self.peek_len(len)?;
        Some(self.received.drain(..len).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [0x42; 32];

    fn nonce() -> [u8; 32] {
        std::array::from_fn(|at| at as u8)
    }

    fn side(dialect: Dialect, role: Role, mute: bool) -> Handshake {
        Handshake::new(dialect, role, Formation::new("alpha", &SECRET), nonce(), mute)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const ANSWER: &str = "aa141ee969be027f5e2d6079b37b21b11776def1dfb77333966b5f4e72531fed";
    const CHALLENGE: &str = "0500616c706861000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_worked_example_of_dialect_m() {
        let mut acceptor = side(Dialect::M, Role::Accepted, true);
        let mut connector = side(Dialect::M, Role::Dialled, false);
        assert_eq!(hex(&connector.opening().expect("it opens")), "20000000");
        let challenge = acceptor.receive(&connector.opening().expect("it opens"), false);
        assert_eq!(hex(&challenge.write), format!("27000000{CHALLENGE}"));
        let answer = connector.receive(&challenge.write, false);
        assert_eq!(hex(&answer.write), ANSWER);
        let verdict = acceptor.receive(&answer.write, false);
        assert_eq!((verdict.write.as_slice(), verdict.outcome), ([1].as_slice(), Some(Outcome::Accepted)));
        assert_eq!(connector.receive(&verdict.write, true).outcome, Some(Outcome::Accepted));
    }

    #[test]
    fn the_worked_example_of_dialect_p_byte_by_byte() {
        let mut responder = side(Dialect::P, Role::Accepted, true);
        let mut initiator = side(Dialect::P, Role::Dialled, true);
        let opening = initiator.opening().expect("it opens");
        assert_eq!(hex(&opening), "0500616c706861");
        let feed = |to: &mut Handshake, bytes: &[u8]| {
            bytes.iter().fold(Progress::default(), |mut all, byte| {
                let next = to.receive(&[*byte], false);
                all.write.extend(next.write);
                all.outcome = all.outcome.or(next.outcome);
                all
            })
        };
        let challenge = feed(&mut responder, &opening);
        assert_eq!(hex(&challenge.write), CHALLENGE);
        let answer = feed(&mut initiator, &challenge.write);
        assert_eq!(hex(&answer.write), ANSWER);
        let verdict = feed(&mut responder, &answer.write);
        assert_eq!((hex(&verdict.write).as_str(), verdict.outcome), ("01", Some(Outcome::Accepted)));
        assert_eq!(feed(&mut initiator, &verdict.write).outcome, Some(Outcome::Accepted));
    }

    #[test]
    fn a_mute_connector_writes_its_prefix_with_the_answer() {
        let mut connector = side(Dialect::M, Role::Dialled, true);
        assert_eq!(connector.opening(), Some(Vec::new()));
        let mut acceptor = side(Dialect::M, Role::Accepted, true);
        let challenge = acceptor.receive(&[], false);
        assert_eq!(hex(&connector.receive(&challenge.write, false).write), format!("20000000{ANSWER}"));
    }

    #[test]
    fn a_wrong_key_and_a_wrong_name_are_refused() {
        for dialect in [Dialect::M, Dialect::P] {
            let mut acceptor = side(dialect, Role::Accepted, false);
            let wrong = Formation::new("alpha", &[7; 32]);
            let mut connector = Handshake::new(dialect, Role::Dialled, wrong, [0; 32], false);
            let challenge = acceptor.receive(&connector.opening().expect("it opens"), false);
            let answer = connector.receive(&challenge.write, false);
            let verdict = acceptor.receive(&answer.write, false);
            assert_eq!((verdict.write.as_slice(), verdict.outcome), ([0].as_slice(), Some(Outcome::Refused)));
            assert_eq!(connector.receive(&verdict.write, false).outcome, Some(Outcome::Refused));

            let other = Formation::new("beta", &SECRET);
            let mut connector = Handshake::new(dialect, Role::Dialled, other, [0; 32], false);
            assert_eq!(connector.receive(&challenge.write, false).outcome, Some(Outcome::Refused));
        }
    }

    #[test]
    fn lengths_out_of_range_and_early_ends_are_refused() {
        let mut acceptor = side(Dialect::M, Role::Accepted, false);
        assert_eq!(acceptor.receive(&257_u32.to_le_bytes(), false).outcome, Some(Outcome::Refused));
        let mut connector = side(Dialect::M, Role::Dialled, false);
        assert_eq!(connector.receive(&1_025_u32.to_le_bytes(), false).outcome, Some(Outcome::Refused));
        let mut responder = side(Dialect::P, Role::Accepted, false);
        assert_eq!(responder.receive(&[5], true).outcome, Some(Outcome::Refused));
    }
}
