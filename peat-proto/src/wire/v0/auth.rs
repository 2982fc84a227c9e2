//! The proof of membership with which a connection begins, on the first bidirectional stream of the side that dialled.
//!
//! ```text
//!   dialect M   dialler                              acceptor
//!               u32 LE 32 ──────────────────────────►            makes the stream visible
//!                         ◄────────────────────────── u32 LE n | u16 LE length | formation | nonce
//!               answer, 32 bytes ───────────────────►
//!                         ◄────────────────────────── verdict u8
//!   dialect P
//!               u16 LE length | formation ──────────►
//!                         ◄────────────────────────── u16 LE length | formation | nonce
//!               answer, 32 bytes ───────────────────►
//!                         ◄────────────────────────── verdict u8
//! ```
//!
//! The answer is HMAC-SHA256 over nonce and formation, under a key that HKDF-SHA256 makes of the shared secret. Nothing
//! on the wire tells the dialects apart: which one is spoken is configuration. Only the dialler proves anything, and a
//! stranger in the middle can pass the proof on: this is as good as legacy peers have it, and no better.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::formation::{Formation, FormationId};
use crate::time::Time;

/// Which of the two exchanges is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// That of the node binary.
    M,
    /// That of the host runtime.
    P,
}

/// One side of the exchange: bytes in, bytes out, a verdict in the end.
#[derive(Debug)]
pub struct Handshake {
    dialect: Dialect,
    formation: FormationId,
    key: Key,
    state: State,
    /// Bytes of the step under way; [`Self::MAX_STEP`] at most.
    received: BytesMut,
    deadline: Time,
}

/// What a handshake wants done after something has happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// To be written on the handshake's stream; may be empty.
    pub send: Bytes,
    /// Whether our half of the stream ends here.
    pub fin: bool,
    /// The outcome, said once: whether the other side is a member, as far as this side can tell.
    pub verdict: Option<Result<(), AuthError>>,
}

/// Why a connection is closed before anything was synced on it, with
/// [`CloseCode::NotAdmitted`](crate::CloseCode::NotAdmitted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The other side does not accept our answer.
    #[error("the other side refused our proof")]
    Refused,
    /// The other side's answer was made with another secret.
    #[error("the other side does not know the secret")]
    WrongAnswer,
    /// The other side belongs to another formation.
    #[error("the other side belongs to another formation")]
    WrongFormation,
    /// A step is longer than it may be, or came before its turn.
    #[error("a step of the handshake is too long")]
    TooLong,
    /// A step is shorter than it must be, or the stream ended within one.
    #[error("a step of the handshake is cut short")]
    Truncated,
    /// A step was not complete in time.
    #[error("a step of the handshake took more than {} s", Handshake::STEP_TIME.as_secs())]
    TimedOut,
}

/// What is awaited.
#[derive(Debug)]
enum State {
    /// Accepted, M: the first byte.
    Stream {
        nonce: Nonce,
    },
    /// Accepted, P: the formation.
    Formation {
        nonce: Nonce,
    },
    /// Accepted: the answer to the challenge.
    Answer {
        nonce: Nonce,
    },
    /// Dialled: the challenge.
    Challenge,
    /// Dialled: the verdict on our answer.
    Verdict,
    Done,
}

/// Number used once; unpredictable, for whoever knows it in advance can collect the answer in advance.
type Nonce = [u8; NONCE];

/// Bytes of a length in dialect M.
const PREFIX: usize = 4;
const NONCE: usize = 32;
const ANSWER: usize = 32;
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 0;

impl Handshake {
    /// Time for each step, as legacy peers give.
    pub const STEP_TIME: Duration = Duration::from_secs(30);

    /// Longest challenge in dialect M, without its length.
    const MAX_CHALLENGE: usize = 1024;

    /// Longest answer in dialect M, without its length. Bytes behind the first 32 say nothing.
    const MAX_ANSWER: usize = 256;

    /// Longest step of all: M's challenge and its length.
    const MAX_STEP: usize = PREFIX + Self::MAX_CHALLENGE;

    /// Begins as the side that dialled; the bytes open the stream, at once.
    #[must_use]
    pub fn dialled(dialect: Dialect, formation: &Formation, now: Time) -> (Self, Bytes) {
        let handshake = Self::new(dialect, formation, State::Challenge, now);
        let mut opening = BytesMut::new();
        match dialect {
            // A legacy dialler would wait here for a challenge, on a stream that the other side cannot see.
            Dialect::M => opening.put_u32_le(ANSWER as u32),
            Dialect::P => handshake.put_formation(&mut opening),
        }
        (handshake, opening.freeze())
    }

    /// Begins as the side that accepted. The nonce is unpredictable and never used again.
    #[must_use]
    pub fn accepted(dialect: Dialect, formation: &Formation, nonce: [u8; 32], now: Time) -> Self {
        let state = match dialect {
            Dialect::M => State::Stream { nonce },
            Dialect::P => State::Formation { nonce },
        };
        Self::new(dialect, formation, state, now)
    }

    /// Takes in what arrived on the stream, and whether it ended there.
    #[must_use]
    pub fn received(&mut self, now: Time, bytes: &[u8], fin: bool) -> Step {
        if self.received.len() + bytes.len() > Self::MAX_STEP {
            return self.refuse(AuthError::TooLong);
        }
        self.received.extend_from_slice(bytes);
        let mut step = Step::default();
        if let State::Stream { nonce } = self.state {
            // Nobody knows the answer before the challenge.
            if self.received.len() > PREFIX {
                return self.refuse(AuthError::TooLong);
            }
            step.send = self.challenge(nonce, now);
        }
        let next = match self.state {
            State::Formation { nonce } => self.read_formation(nonce, now),
            State::Answer { nonce } => self.read_answer(&nonce),
            State::Challenge => self.read_challenge(now),
            State::Verdict => self.read_verdict(),
            State::Stream { .. } | State::Done => Ok(None),
        };
        match next {
            Ok(Some(next)) => step = next,
            Ok(None) => {}
            Err(error) => return self.refuse(error),
        }
        if fin && !matches!(self.state, State::Done) {
            return self.refuse(AuthError::Truncated);
        }
        step
    }

    /// When the step under way has taken too long; `None` once there is a verdict.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        (!matches!(self.state, State::Done)).then_some(self.deadline)
    }

    /// Looks at the time.
    #[must_use]
    pub fn timeout(&mut self, now: Time) -> Step {
        match self.deadline() {
            Some(deadline) if deadline <= now => self.refuse(AuthError::TimedOut),
            _ => Step::default(),
        }
    }

    fn new(dialect: Dialect, formation: &Formation, state: State, now: Time) -> Self {
        let deadline = now + Self::STEP_TIME;
        let key = Key::new(formation);
        Self { dialect, formation: formation.id.clone(), key, state, received: BytesMut::new(), deadline }
    }

    /// Accepted: shows the challenge, and awaits the answer.
    fn challenge(&mut self, nonce: Nonce, now: Time) -> Bytes {
        let mut body = BytesMut::new();
        self.put_formation(&mut body);
        body.put_slice(&nonce);
        let mut challenge = BytesMut::new();
        if self.dialect == Dialect::M {
            challenge.put_u32_le(body.len() as u32);
        }
        challenge.put_slice(&body);
        self.turn_to(State::Answer { nonce }, now);
        challenge.freeze()
    }

    fn read_formation(&mut self, nonce: Nonce, now: Time) -> Result<Option<Step>, AuthError> {
        let mut step = self.received.as_ref();
        if !self.is_ours(&mut step)? {
            return Ok(None);
        }
        expect_end(step)?;
        self.received.clear();
        let send = self.challenge(nonce, now);
        Ok(Some(Step { send, ..Step::default() }))
    }

    fn read_challenge(&mut self, now: Time) -> Result<Option<Step>, AuthError> {
        let mut body = self.received.as_ref();
        if self.dialect == Dialect::M {
            let mut step = body;
            let Some(prefixed) = take_prefixed(&mut step, 2 + NONCE, Self::MAX_CHALLENGE)? else { return Ok(None) };
            expect_end(step)?;
            body = prefixed;
        }
        let cut_short = || if self.dialect == Dialect::M { Err(AuthError::Truncated) } else { Ok(None) };
        if !self.is_ours(&mut body)? {
            return cut_short();
        }
        let Some((nonce, rest)) = body.split_first_chunk::<NONCE>() else { return cut_short() };
        if self.dialect == Dialect::P {
            expect_end(rest)?;
        }
        let answer = self.key.mac(nonce, &self.formation).finalize().into_bytes();
        let send = Bytes::copy_from_slice(&answer);
        self.turn_to(State::Verdict, now);
        self.received.clear();
        Ok(Some(Step { send, fin: true, verdict: None }))
    }

    fn read_answer(&mut self, nonce: &Nonce) -> Result<Option<Step>, AuthError> {
        let mut step = self.received.as_ref();
        let answer = match self.dialect {
            Dialect::M => take_prefixed(&mut step, ANSWER, Self::MAX_ANSWER)?,
            Dialect::P => step.split_off(..ANSWER),
        };
        let Some(answer) = answer.and_then(|answer| answer.first_chunk::<ANSWER>()) else { return Ok(None) };
        expect_end(step)?;
        let proof = self.key.mac(nonce, &self.formation);
        proof.verify_slice(answer).map_err(|_| AuthError::WrongAnswer)?;
        self.state = State::Done;
        Ok(Some(Step { send: Bytes::from_static(&[ACCEPTED]), fin: true, verdict: Some(Ok(())) }))
    }

    fn read_verdict(&mut self) -> Result<Option<Step>, AuthError> {
        match self.received.as_ref() {
            [] => Ok(None),
            [ACCEPTED] => {
                self.state = State::Done;
                Ok(Some(Step { verdict: Some(Ok(())), ..Step::default() }))
            }
            [_] => Err(AuthError::Refused),
            [..] => Err(AuthError::TooLong),
        }
    }

    /// Ends in failure; an acceptor that was to judge an answer says so.
    fn refuse(&mut self, error: AuthError) -> Step {
        let judges = matches!(self.state, State::Answer { .. });
        if matches!(self.state, State::Done) {
            return Step::default();
        }
        self.state = State::Done;
        let send = if judges { Bytes::from_static(&[REFUSED]) } else { Bytes::new() };
        Step { send, fin: true, verdict: Some(Err(error)) }
    }

    fn turn_to(&mut self, state: State, now: Time) {
        self.state = state;
        self.deadline = now + Self::STEP_TIME;
    }

    fn put_formation(&self, out: &mut BytesMut) {
        out.put_u16_le(self.formation.encoded_len());
        out.put_slice(self.formation.as_str().as_bytes());
    }

    /// Takes a formation off the front and checks that it is ours; false while it is not all there.
    fn is_ours(&self, bytes: &mut &[u8]) -> Result<bool, AuthError> {
        let ours = self.formation.as_str().as_bytes();
        let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(false) };
        if u16::from_le_bytes(*len) != self.formation.encoded_len() {
            return Err(AuthError::WrongFormation);
        }
        let (theirs, rest) = rest.split_at(ours.len().min(rest.len()));
        *bytes = rest;
        if !ours.starts_with(theirs) {
            return Err(AuthError::WrongFormation);
        }
        Ok(theirs.len() == ours.len())
    }
}

/// Takes `u32 LE length | bytes` off the front; `None` while it is not all there.
fn take_prefixed<'a>(bytes: &mut &'a [u8], least: usize, most: usize) -> Result<Option<&'a [u8]>, AuthError> {
    let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    if len > most {
        return Err(AuthError::TooLong);
    }
    if len < least {
        return Err(AuthError::Truncated);
    }
    let Some((body, rest)) = rest.split_at_checked(len) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(body))
}

/// Nothing may follow a step before it has been answered.
fn expect_end(rest: &[u8]) -> Result<(), AuthError> {
    if rest.is_empty() { Ok(()) } else { Err(AuthError::TooLong) }
}

/// The key of a formation, made of its secret. Never printed.
struct Key([u8; 32]);

impl Key {
    const INFO: &'static [u8] = b"peat-protocol-v1-formation";

    fn new(formation: &Formation) -> Self {
        let salt = formation.id.as_str().as_bytes();
        let mut key = [0; 32];
        let expanded = Hkdf::<Sha256>::new(Some(salt), formation.secret.as_bytes()).expand(Self::INFO, &mut key);
        debug_assert!(expanded.is_ok(), "32 bytes are one block, and HKDF gives 255 (RFC 5869, 2.3)");
        Self(key)
    }

    /// The MAC that answers a challenge.
    fn mac(&self, nonce: &Nonce, formation: &FormationId) -> Hmac<Sha256> {
        // A key shorter than a block is filled up with zeros (RFC 2104, 2).
        let mut block = [0; 64];
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(nonce);
        mac.update(formation.as_str().as_bytes());
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests;
