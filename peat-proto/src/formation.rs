//! A formation: nodes that share a secret and sync with whoever proves that it holds it.

use std::fmt;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// Name and secret of a formation.
#[derive(Debug, Clone)]
pub struct Formation {
    /// Its name, which is no secret.
    pub id: FormationId,
    /// What its members share.
    pub secret: FormationSecret,
}

impl Formation {
    /// What the keys of our own wire are derived from: 32 bytes of name and secret.
    pub(crate) fn root(&self) -> [u8; 32] {
        let name = self.id.0.as_bytes();
        let mut hasher = blake3::Hasher::new_derive_key("peat 2026 formation v1");
        hasher.update(&(name.len() as u64).to_be_bytes()).update(name).update(&self.secret.0);
        *hasher.finalize().as_bytes()
    }
}

/// The name of a formation: any text that is not empty, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormationId(String);

impl FormationId {
    /// Longest name, in bytes of UTF-8: a legacy peer takes a challenge of 1,024 bytes, of which 34 are length and nonce.
    pub const MAX_LEN: usize = 990;

    /// Validates a name.
    ///
    /// # Errors
    /// [`BadFormationId`] says which rule it breaks.
    pub fn new(name: impl Into<String>) -> Result<Self, BadFormationId> {
        let name = name.into();
        match name.len() {
            0 => Err(BadFormationId::Empty),
            len if len > Self::MAX_LEN => Err(BadFormationId::TooLong { len }),
            _ => Ok(Self(name)),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Bytes of the name; at most [`Self::MAX_LEN`].
    pub(crate) fn encoded_len(&self) -> u16 {
        const { assert!(Self::MAX_LEN <= u16::MAX as usize) };
        self.0.len() as u16
    }
}

/// What the members of a formation share: 32 bytes. Never printed.
#[derive(Clone)]
pub struct FormationSecret([u8; 32]);

impl FormationSecret {
    /// The secret in these bytes: 32 are taken as they are, any other number is hashed by SHA-256, as legacy peers do.
    ///
    /// # Errors
    /// [`BadSecret::Empty`]: no bytes are nobody's secret.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSecret> {
        if bytes.is_empty() {
            return Err(BadSecret::Empty);
        }
        Ok(Self(bytes.try_into().unwrap_or_else(|_| Sha256::digest(bytes).into())))
    }

    /// The secret in a text: base64 in the standard alphabet with padding; white space around it does not count.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn from_base64(text: &str) -> Result<Self, BadSecret> {
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| BadSecret::NotBase64)?;
        Self::from_bytes(&bytes)
    }

    /// The bytes, to derive keys from.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for FormationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormationSecret(..)")
    }
}

/// Why a text is not the name of a formation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFormationId {
    /// It is empty.
    #[error("the name of a formation is empty")]
    Empty,
    /// Longer than [`FormationId::MAX_LEN`] bytes.
    #[error("the name of a formation has {len} bytes; at most {} are allowed", FormationId::MAX_LEN)]
    TooLong {
        /// Its bytes.
        len: usize,
    },
}

/// Why a text is not the secret of a formation. Says nothing about its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// It has no bytes.
    #[error("the secret of a formation is empty")]
    Empty,
    /// It is not base64.
    #[error("the secret of a formation is not base64 in the standard alphabet, with padding")]
    NotBase64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_32_bytes_is_taken_as_it_is_and_any_other_is_hashed() {
        let exact = FormationSecret::from_base64(" QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=\n").expect("base64");
        assert_eq!(exact.as_bytes(), &[0x42; 32]);
        for len in [1, 31, 33, 64] {
            let bytes = vec![0x42; len];
            let hashed = FormationSecret::from_base64(&BASE64.encode(&bytes)).expect("base64");
            assert_eq!(hashed.as_bytes(), Sha256::digest(&bytes).as_slice());
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_none_is_ever_printed() {
        assert_eq!(FormationSecret::from_base64(" \n").expect_err("empty"), BadSecret::Empty);
        for text in ["QkI", "QkI-", "Qk I=", "QkJ="] {
            assert_eq!(FormationSecret::from_base64(text).expect_err(text), BadSecret::NotBase64);
        }
        let secret = FormationSecret::from_bytes(&[0x42; 32]).expect("32 bytes");
        let formation = Formation { id: FormationId::new("alpha").expect("a name"), secret };
        let printed = format!("{formation:?}");
        assert!(printed.contains("alpha") && !printed.contains("66") && !printed.contains("42"), "{printed}");
    }

    #[test]
    fn a_name_has_one_to_990_bytes() {
        assert_eq!(FormationId::new(""), Err(BadFormationId::Empty));
        assert_eq!(FormationId::new("x".repeat(991)), Err(BadFormationId::TooLong { len: 991 }));
        let longest = FormationId::new("x".repeat(990)).expect("990 bytes");
        assert_eq!(longest.encoded_len(), 990);
    }
}
