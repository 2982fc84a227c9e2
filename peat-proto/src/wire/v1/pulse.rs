//! Signs of life.

use bytes::{Bytes, BytesMut};

use super::error::BodyError;
use super::frame::{Frame, Kind};
use crate::wire::kit::{put_uleb, take_uleb};

/// Asks for a [`Pong`]. `number`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the answer.
    pub number: u64,
}

/// Answers a [`Ping`], at once. `number`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// That of the ping.
    pub number: u64,
}

impl Ping {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(body: Bytes) -> Result<Self, BodyError> {
        Ok(Self { number: number(body)? })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        frame(Kind::Ping, self.number)
    }
}

impl Pong {
    /// Reads the body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn decode(body: Bytes) -> Result<Self, BodyError> {
        Ok(Self { number: number(body)? })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        frame(Kind::Pong, self.number)
    }
}

fn number(mut body: Bytes) -> Result<u64, BodyError> {
    let number = take_uleb(&mut body)?;
    if body.is_empty() { Ok(number) } else { Err(BodyError::Trailing { bytes: body.len() }) }
}

fn frame(kind: Kind, number: u64) -> Bytes {
    let mut body = BytesMut::new();
    put_uleb(&mut body, number);
    Frame::encode(kind, &body)
}
