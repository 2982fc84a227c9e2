//! Tombstones: that a document was deleted.
//!
//! ```text
//!   tombstone   text collection | text id | u64 deleted at | u64 Lamport | text deleted by | text reason | u8 direction
//!   text        u16 length | UTF-8
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Label, Payload, encode_frame};
use super::text::{BadText, put_text, take_text};
use crate::id::{BadDocId, DocId};
use crate::marker::{Marker, Spread, Text};
use crate::wire::kit::{take, take_u8, take_u16, take_u64};

/// That a document was deleted, by whom and when. The encoding is at most [`Tombstone::MAX_LEN`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The collection of the document. As received: may be anything, see [`Tombstone::doc`].
    pub collection: Option<Text<{ DocId::MAX_LEN }>>,
    /// The id of the document within its collection. As received: may be anything.
    pub id: Option<Text<{ DocId::MAX_LEN }>>,
    /// When, in Unix milliseconds by the deleter's clock. Shown, never compared with a clock.
    pub deleted_at_ms: u64,
    /// The deleter's Lamport clock. Older releases count from zero in every process.
    pub lamport: u64,
    /// The deleter's name.
    pub by: Option<Text<{ Tombstone::MAX_BY }>>,
    /// Why, if somebody said so.
    pub reason: Option<Text<{ Tombstone::MAX_REASON }>>,
    /// Where to it is passed on.
    pub spread: Spread,
}

impl Tombstone {
    /// Longest name of a deleter, in bytes. Legacy peers use host names, of which DNS allows 253, and 64 hexadecimal digits.
    pub const MAX_BY: usize = 256;

    /// Longest reason, in bytes: a paragraph. It stays in memory for as long as the tombstone does.
    pub const MAX_REASON: usize = 1024;

    /// Shortest tombstone, in bytes: every text is empty.
    pub const MIN_LEN: usize = 25;

    /// Longest tombstone, in bytes: 2,329.
    pub const MAX_LEN: usize = Self::MIN_LEN + 2 * DocId::MAX_LEN + Self::MAX_BY + Self::MAX_REASON;

    /// The tombstone that says what this marker says.
    #[must_use]
    pub fn of(doc: &DocId, marker: &Marker) -> Self {
        Self {
            collection: Text::new(doc.collection()),
            id: Text::new(doc.id()),
            deleted_at_ms: marker.at_ms,
            lamport: marker.lamport,
            by: Text::new(marker.by.as_str()),
            reason: marker.reason.as_ref().and_then(|reason| Text::new(reason.as_str())),
            spread: match marker.spread {
                Spread::Bidirectional => usual(doc.collection()),
                other => other,
            },
        }
    }

    /// The marker that says what this tombstone says, as far as a marker has room. A deleter without a name is `?`.
    #[must_use]
    pub fn marker(&self) -> Marker {
        let by = self.by.as_ref().and_then(|by| Text::clipped(by.as_str()));
        Marker {
            // The wire knows one life of a name only.
            incarnation: 0,
            lamport: self.lamport,
            by: by.unwrap_or_else(Text::unnamed),
            at_ms: self.deleted_at_ms,
            reason: self.reason.as_ref().and_then(|reason| Text::clipped(reason.as_str())),
            // What legacy peers say of every deletion in a collection says nothing of this one.
            spread: if self.spread == usual(text(self.collection.as_ref())) {
                Spread::Bidirectional
            } else {
                self.spread
            },
        }
    }

    /// The document that was deleted.
    ///
    /// A collection with a colon in it takes the colon and what follows as part of the id: legacy peers keep both under
    /// the same name too.
    ///
    /// # Errors
    /// [`BadDocId`] when there can be no such document.
    pub fn doc(&self) -> Result<DocId, BadDocId> {
        DocId::new(&self.name())
    }

    /// Takes a tombstone off the front. What is left behind one is ignored, and to be counted.
    ///
    /// # Errors
    /// [`TombstoneError`] when it cannot be used.
    pub fn take(bytes: &mut Bytes) -> Result<Self, TombstoneError> {
        let bad = |field| move |error| TombstoneError::Text { field, error };
        Ok(Self {
            collection: take_text(bytes).map_err(bad(Field::Collection))?,
            id: take_text(bytes).map_err(bad(Field::Id))?,
            deleted_at_ms: take_u64(bytes).ok_or(TombstoneError::Truncated)?,
            lamport: take_u64(bytes).ok_or(TombstoneError::Truncated)?,
            by: take_text(bytes).map_err(bad(Field::By))?,
            reason: take_text(bytes).map_err(bad(Field::Reason))?,
            spread: take_spread(bytes)?,
        })
    }

    /// Writes the payload. What [`Tombstone::take`] took comes out as the same bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.put(&mut out);
        out.freeze()
    }

    /// Bytes that [`Tombstone::encode`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Self::MIN_LEN + self.name_len() + text(self.by.as_ref()).len() + text(self.reason.as_ref()).len()
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        encode_frame(Label::Tombstone(self), Payload::within_budget(&self.encode()))
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        put_text(out, self.collection.as_ref());
        put_text(out, self.id.as_ref());
        out.put_u64(self.deleted_at_ms);
        out.put_u64(self.lamport);
        put_text(out, self.by.as_ref());
        put_text(out, self.reason.as_ref());
        out.put_u8(self.spread as u8);
    }

    /// `collection:id`, whatever they are.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", text(self.collection.as_ref()), text(self.id.as_ref()))
    }

    /// Bytes of collection and id.
    pub(super) fn name_len(&self) -> usize {
        text(self.collection.as_ref()).len() + text(self.id.as_ref()).len()
    }

    /// Bytes behind the tombstone at the front, by its lengths alone; none if it is cut short.
    pub(super) fn slack(mut bytes: Bytes) -> usize {
        let bytes = &mut bytes;
        let skip_text = |bytes: &mut Bytes| take_u16(bytes).and_then(|len| take(bytes, len.into()));
        let walk = |bytes: &mut Bytes| {
            skip_text(bytes)?;
            skip_text(bytes)?;
            take(bytes, 16)?;
            skip_text(bytes)?;
            skip_text(bytes)?;
            take_u8(bytes)
        };
        walk(bytes).map_or(0, |_| bytes.len())
    }
}

fn text<const MAX: usize>(text: Option<&Text<MAX>>) -> &str {
    text.map_or("", Text::as_str)
}

/// The direction that legacy peers give to deletions in a collection, whichever way its documents go.
fn usual(collection: &str) -> Spread {
    match collection {
        "cells" | "contact_reports" | "contact-reports" => Spread::Upward,
        "commands" => Spread::Downward,
        _ => Spread::Bidirectional,
    }
}

fn take_spread(bytes: &mut Bytes) -> Result<Spread, TombstoneError> {
    let code = take_u8(bytes).ok_or(TombstoneError::Truncated)?;
    Spread::from_code(code).ok_or(TombstoneError::Spread { code })
}

/// Why a tombstone cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TombstoneError {
    /// It ends too early.
    #[error("the tombstone is truncated")]
    Truncated,
    /// One of its texts is none, or too long.
    #[error("the {field} of the tombstone: {error}")]
    Text {
        /// Which.
        field: Field,
        /// What is wrong with it.
        error: BadText,
    },
    /// A direction that is not defined.
    #[error("tombstones have no direction {code}")]
    Spread {
        /// Its number.
        code: u8,
    },
}

/// A text of a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The collection.
    Collection,
    /// The document's id.
    Id,
    /// Who deleted it.
    By,
    /// Why.
    Reason,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Collection => "collection",
            Self::Id => "id",
            Self::By => "deleter",
            Self::Reason => "reason",
        })
    }
}

#[cfg(test)]
mod tests;
