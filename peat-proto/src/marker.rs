//! Deletion as data: what stays of a document that was deleted.

use std::fmt;

/// What stands in the place of a deleted document, for ever: a document that has one is never offered, never accepted
/// and never written, whatever arrives in whatever order.
///
/// Of two markers for one document the greater stands, by the order of the fields: so every replica keeps the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// Which life of the name was ended. Always 0 so far: an explicit recreation will begin the next one.
    pub incarnation: u64,
    /// Lamport time of the deletion: above that of every marker that its author knew.
    pub lamport: u64,
    /// Who deleted it: a peer id in hexadecimal digits, or what a fielded node calls itself. Not proven.
    pub by: Text<{ Marker::BY }>,
    /// When, in Unix milliseconds by the author's clock; shown, and never compared with ours.
    pub at_ms: u64,
    /// Why, if somebody said so.
    pub reason: Option<Text<{ Marker::REASON }>>,
    /// Where the deletion may travel.
    pub spread: Spread,
}

impl Marker {
    /// Longest name of an author, in bytes: twice a peer id.
    pub const BY: usize = 128;

    /// Longest reason, in bytes: a few lines. A million markers with such reasons are 0.5 GB, so it is no diary.
    pub const REASON: usize = 512;

    /// Most bytes of [`Self::encode`].
    #[cfg(test)]
    const MAX_ENCODED: usize = 8 + 8 + 8 + 1 + 1 + Self::BY + 2 + Self::REASON;

    /// `incarnation u64 | lamport u64 | at u64 | spread u8 | by: u8 length, bytes | reason: u16 length, bytes`, big-endian;
    /// a reason of length 0 is none.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let reason = self.reason.as_ref().map_or("", Text::as_str);
        let mut out = Vec::with_capacity(28 + self.by.as_str().len() + reason.len());
        out.extend(self.incarnation.to_be_bytes());
        out.extend(self.lamport.to_be_bytes());
        out.extend(self.at_ms.to_be_bytes());
        out.push(self.spread as u8);
        // Both lengths fit: the types bound them.
        out.push(u8::try_from(self.by.as_str().len()).unwrap_or(u8::MAX));
        out.extend(self.by.as_str().as_bytes());
        out.extend(u16::try_from(reason.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(reason.as_bytes());
        out
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let input = &mut bytes;
        let (incarnation, lamport, at_ms) = (take_u64(input)?, take_u64(input)?, take_u64(input)?);
        let [spread, by] = take(input)?;
        let by = Text::new(take_text(input, by.into())?)?;
        let reason = usize::from(u16::from_be_bytes(take(input)?));
        let reason = match take_text(input, reason)? {
            "" => None,
            reason => Some(Text::new(reason)?),
        };
        let marker = Self { incarnation, lamport, by, at_ms, reason, spread: Spread::from_code(spread)? };
        input.is_empty().then_some(marker)
    }
}

/// How far a deletion travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Spread {
    /// Wherever documents of the collection go.
    Bidirectional = 0,
    /// To parents only.
    Upward = 1,
    /// To children only.
    Downward = 2,
    /// To everybody, whatever the collection's direction.
    SystemWide = 3,
}

impl Spread {
    /// The spread of this number on the wire.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Bidirectional),
            1 => Some(Self::Upward),
            2 => Some(Self::Downward),
            3 => Some(Self::SystemWide),
            _ => None,
        }
    }
}

/// Text of at most `MAX` bytes, and at least one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(Box<str>);

impl<const MAX: usize> Text<MAX> {
    /// `None` for an empty text or one that is too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// As much of a text as fits; `None` for an empty one.
    #[must_use]
    pub fn clipped(text: &str) -> Option<Self> {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(text.get(..end)?)
    }

    /// Stands for a name that was not given: `?`.
    pub(crate) fn unnamed() -> Self {
        const { assert!(MAX > 0) };
        Self("?".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*head)
}

fn take_u64(input: &mut &[u8]) -> Option<u64> {
    take(input).map(u64::from_be_bytes)
}

fn take_text<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a str> {
    let (head, rest) = input.split_at_checked(len)?;
    *input = rest;
    std::str::from_utf8(head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(reason: Option<&str>) -> Marker {
        Marker {
            incarnation: 0,
            lamport: u64::MAX,
            by: Text::new("node-a").expect("short"),
            at_ms: 1_700_000_000_000,
            reason: reason.and_then(Text::new),
            spread: Spread::Upward,
        }
    }

    #[test]
    fn a_marker_reads_back_as_written_and_refuses_every_cut_and_tail() {
        for marker in [marker(None), marker(Some("dup")), marker(Some(&"ü".repeat(256)))] {
            let bytes = marker.encode();
            assert!(bytes.len() <= Marker::MAX_ENCODED);
            assert_eq!(Marker::decode(&bytes), Some(marker));
            for cut in 0..bytes.len() {
                assert_eq!(Marker::decode(&bytes[..cut]), None);
            }
            assert_eq!(Marker::decode(&[bytes.as_slice(), &[0]].concat()), None);
        }
    }

    #[test]
    fn the_later_deletion_stands_and_ties_are_broken_alike_everywhere() {
        let later = Marker { lamport: 8, ..marker(None) };
        let earlier = Marker { lamport: 7, by: Text::new("zulu").expect("short"), ..marker(None) };
        let rebirth = Marker { incarnation: 1, lamport: 0, ..marker(None) };
        assert!(earlier < later && later < rebirth);
        assert!(Marker { by: Text::new("node-b").expect("short"), ..later.clone() } > later);
    }

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(Text::<5>::clipped("aüüü").expect("something").as_str(), "aüü");
        assert_eq!(Text::<5>::clipped("aaüüü").expect("something").as_str(), "aaü");
        assert_eq!(Text::<5>::clipped(""), None);
        assert_eq!(Text::<1>::clipped("ü"), None);
    }
}
