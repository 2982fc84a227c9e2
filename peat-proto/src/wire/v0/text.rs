//! Short texts in messages: `u16 length | UTF-8`. One without bytes is none.

use bytes::{BufMut, Bytes, BytesMut};

use crate::marker::Text;
use crate::wire::kit::{take, take_u16};

/// Takes a text off the front. It holds its own bytes and keeps no frame alive.
pub(super) fn take_text<const MAX: usize>(bytes: &mut Bytes) -> Result<Option<Text<MAX>>, BadText> {
    let len = usize::from(take_u16(bytes).ok_or(BadText::Truncated)?);
    let bytes = take(bytes, len).ok_or(BadText::Truncated)?;
    if len > MAX {
        return Err(BadText::TooLong { len, limit: MAX });
    }
    Ok(Text::new(std::str::from_utf8(&bytes).map_err(|_| BadText::NotUtf8)?))
}

/// Writes what [`take_text`] reads.
pub(super) fn put_text<const MAX: usize>(out: &mut BytesMut, text: Option<&Text<MAX>>) {
    const { assert!(MAX <= u16::MAX as usize) };
    let text = text.map_or("", Text::as_str);
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// Why bytes are not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadText {
    /// The message ends before the text does.
    #[error("cut short")]
    Truncated,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Longer than it may be.
    #[error("{len} bytes; at most {limit} are allowed")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// In bytes.
        limit: usize,
    },
}
