//! Heartbeats: one on a unidirectional stream of its own.

use bytes::{BufMut, Bytes, BytesMut};

/// A sign of life. `0x01 | u64 Unix milliseconds`, and nothing behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's clock. Nobody relies on it.
    pub sent_ms: u64,
}

impl Heartbeat {
    /// Bytes of a heartbeat.
    pub const LEN: usize = 9;

    const KIND: u8 = 1;

    /// Reads all that came on the stream.
    ///
    /// # Errors
    /// [`HeartbeatError`] when it is anything else.
    pub fn decode(stream: &[u8]) -> Result<Self, HeartbeatError> {
        match stream {
            [Self::KIND, time @ ..] => match <[u8; 8]>::try_from(time) {
                Ok(time) => Ok(Self { sent_ms: u64::from_be_bytes(time) }),
                Err(_) => Err(HeartbeatError::Length { len: stream.len() }),
            },
            [] => Err(HeartbeatError::Length { len: 0 }),
            [kind, ..] => Err(HeartbeatError::Kind { kind: *kind }),
        }
    }

    /// Everything that goes on the stream.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::LEN);
        out.put_u8(Self::KIND);
        out.put_u64(self.sent_ms);
        out.freeze()
    }
}

/// Why what came on a unidirectional stream is no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatError {
    /// Not the length of one.
    #[error("a heartbeat has {} bytes, not {len}", Heartbeat::LEN)]
    Length {
        /// Bytes that came.
        len: usize,
    },
    /// Something else begins with this byte.
    #[error("{kind:#04x} does not begin a heartbeat")]
    Kind {
        /// That byte.
        kind: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_bytes_are_a_heartbeat_and_nothing_else_is() {
        let heartbeat = Heartbeat { sent_ms: 1_700_000_000_000 };
        let bytes = heartbeat.encode();
        assert_eq!(hex::encode(&bytes), "010000018bcfe56800");
        assert_eq!(Heartbeat::decode(&bytes), Ok(heartbeat));
        for len in 0..Heartbeat::LEN {
            assert_eq!(Heartbeat::decode(&bytes[..len]), Err(HeartbeatError::Length { len }));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Heartbeat::decode(&longer), Err(HeartbeatError::Length { len: 10 }));
        assert_eq!(Heartbeat::decode(&[0; 9]), Err(HeartbeatError::Kind { kind: 0 }));
    }
}
