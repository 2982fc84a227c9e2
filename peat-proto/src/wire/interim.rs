//! Control frames of the interim wire between Peat nodes: the greeting and the digest.

use bytes::Bytes;

use super::kit::{take_array, take_u8, take_u64};
use super::v0::{Label, Payload, encode_frame};
use crate::id::Invitation;

/// The first frame on the control lane, in both directions.
///
/// `version u8 | boot u64 | flags u8 | invitation, 32 bytes, with flag 1`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The boot number of the sender; grows after every end that was not clean.
    pub boot: u64,
    /// The secret that the sender was invited with.
    pub invitation: Option<Invitation>,
}

impl Hello {
    /// The one version of the control lane.
    pub const VERSION: u8 = 0;

    const INVITATION: u8 = 1;
    const FIXED: usize = 10;

    /// Reads the payload.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn decode(mut payload: Bytes) -> Result<Self, ControlError> {
        let payload = &mut payload;
        let version = take_u8(payload).ok_or(ControlError::Truncated)?;
        if version != Self::VERSION {
            return Err(ControlError::Version { version });
        }
        let boot = take_u64(payload).ok_or(ControlError::Truncated)?;
        let invitation = match take_u8(payload).ok_or(ControlError::Truncated)? {
            0 => None,
            Self::INVITATION => {
                let secret = take_array(payload).ok_or(ControlError::Truncated)?;
                Some(Invitation(secret))
            }
            flags => return Err(ControlError::Flags { flags }),
        };
        expect_end(payload)?;
        Ok(Self { boot, invitation })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = self.boot.to_be_bytes();
        let flags = self.invitation.map_or(0, |_| Self::INVITATION);
        let fixed = [Self::VERSION, b0, b1, b2, b3, b4, b5, b6, b7, flags];
        let Some(invitation) = &self.invitation else {
            return encode_frame(Label::Hello, Payload::short(&fixed));
        };
        let mut payload = [0; Self::FIXED + 32];
        let (start, secret) = payload.split_at_mut(Self::FIXED);
        start.copy_from_slice(&fixed);
        secret.copy_from_slice(&invitation.0);
        encode_frame(Label::Hello, Payload::short(&payload))
    }
}

/// What the sender offers, condensed: equal summaries mean equal document sets.
///
/// `documents u64 | digest, 32 bytes | seen, 32 bytes, if there is one`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many documents the sender offers to the receiver.
    pub documents: u64,
    /// Digest of their names and heads.
    pub digest: [u8; 32],
    /// The digest of the newest summary that the sender had from the receiver; `None` before the first. (Zeros would say
    /// something else: they are the digest of nothing.)
    pub seen: Option<[u8; 32]>,
}

impl Summary {
    const UNSEEN: usize = 40;
    const LEN: usize = 72;

    /// Reads the payload.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn decode(mut payload: Bytes) -> Result<Self, ControlError> {
        let payload = &mut payload;
        let documents = take_u64(payload).ok_or(ControlError::Truncated)?;
        let digest = take_array(payload).ok_or(ControlError::Truncated)?;
        let seen = match payload.is_empty() {
            true => None,
            false => Some(take_array(payload).ok_or(ControlError::Truncated)?),
        };
        expect_end(payload)?;
        Ok(Self { documents, digest, seen })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut unseen = [0; Self::UNSEEN];
        let (documents, digest) = unseen.split_at_mut(8);
        documents.copy_from_slice(&self.documents.to_be_bytes());
        digest.copy_from_slice(&self.digest);
        let Some(seen) = &self.seen else {
            return encode_frame(Label::Summary, Payload::short(&unseen));
        };
        let mut payload = [0; Self::LEN];
        let (start, end) = payload.split_at_mut(Self::UNSEEN);
        start.copy_from_slice(&unseen);
        end.copy_from_slice(seen);
        encode_frame(Label::Summary, Payload::short(&payload))
    }
}

/// Why a control payload cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It is too short.
    #[error("the control payload is truncated")]
    Truncated,
    /// It is too long.
    #[error("{bytes} bytes behind the control payload")]
    Trailing {
        /// Too many by.
        bytes: usize,
    },
    /// The sender speaks a version that this node does not.
    #[error("version {version} of the control lane is unknown")]
    Version {
        /// Its number.
        version: u8,
    },
    /// Flags that this version does not define.
    #[error("unknown flags {flags:#010b}")]
    Flags {
        /// All of them.
        flags: u8,
    },
}

fn expect_end(rest: &Bytes) -> Result<(), ControlError> {
    match rest.len() {
        0 => Ok(()),
        bytes => Err(ControlError::Trailing { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Assembler, Caps, Incoming, MessageType};

    fn payload(frame: Bytes, kind: MessageType) -> Bytes {
        let mut assembler = Assembler::new();
        assembler.push(frame);
        let incoming = assembler.next(&Caps::new(&crate::Config::default()));
        let Ok(Some(Incoming::Frame(frame))) = incoming else {
            panic!("no frame but {incoming:?}");
        };
        assert_eq!((frame.key.as_str(), frame.kind), ("_peat", kind));
        assembler.finish().expect("one whole frame");
        frame.payload
    }

    #[test]
    fn hello_survives_the_wire_and_nothing_but_itself_is_accepted() {
        for invitation in [None, Some(Invitation([7; 32]))] {
            let hello = Hello { boot: u64::MAX - 1, invitation };
            let payload = payload(hello.frame(), MessageType::Hello);
            assert_eq!(Hello::decode(payload.clone()), Ok(hello));
            for cut in 0..payload.len() {
                assert_eq!(Hello::decode(payload.slice(..cut)), Err(ControlError::Truncated));
            }
            let longer = [&payload[..], &[0]].concat();
            assert_eq!(Hello::decode(longer.into()), Err(ControlError::Trailing { bytes: 1 }));
        }
    }

    #[test]
    fn hello_of_another_version_or_with_unknown_flags_is_refused() {
        let hello = Hello { boot: 1, invitation: None };
        let payload = payload(hello.frame(), MessageType::Hello);
        let mut newer = payload.to_vec();
        newer[0] = 1;
        assert_eq!(Hello::decode(newer.into()), Err(ControlError::Version { version: 1 }));
        for bit in 1..8 {
            let mut flagged = payload.to_vec();
            flagged[9] |= 1 << bit;
            assert_eq!(Hello::decode(flagged.into()), Err(ControlError::Flags { flags: 1 << bit }));
        }
    }

    #[test]
    fn summary_survives_the_wire_and_nothing_but_itself_is_accepted() {
        let summary = Summary { documents: 3, digest: [1; 32], seen: Some([2; 32]) };
        let first = Summary { seen: None, ..summary.clone() };
        let seen = payload(summary.frame(), MessageType::Summary);
        let unseen = payload(first.frame(), MessageType::Summary);
        assert_eq!((unseen.len(), seen.len()), (40, 72));
        assert_eq!(unseen, seen[..40]);
        assert_eq!(Summary::decode(seen.clone()), Ok(summary));
        assert_eq!(Summary::decode(unseen), Ok(first));
        for cut in (0..seen.len()).filter(|cut| *cut != 40) {
            assert_eq!(Summary::decode(seen.slice(..cut)), Err(ControlError::Truncated));
        }
        let longer = [&seen[..], &[0]].concat();
        assert_eq!(Summary::decode(longer.into()), Err(ControlError::Trailing { bytes: 1 }));
    }
}
