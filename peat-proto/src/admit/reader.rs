//! Reads bytes that are plain or deflated, without ever holding the inflated whole.

use flate2::{Decompress, FlushDecompress, Status};

use crate::io::Refusal;

/// Inflates into one fixed buffer and counts what comes out; reused for every stream of a walk.
pub(super) struct Inflater {
    /// Made for the first deflated stream, of which a small change has none: it costs 50 KiB.
    state: Option<Decompress>,
    buffer: Box<[u8]>,
    at: usize,
    filled: usize,
    ended: bool,
    expanded: usize,
    limit: usize,
}

impl Inflater {
    /// Large enough to amortise a call of the decompressor, small enough to stay in the cache.
    const BUFFER: usize = 8 << 10;

    pub(super) fn new(limit: usize) -> Self {
        Self { state: None, buffer: Box::default(), at: 0, filled: 0, ended: false, expanded: 0, limit }
    }

    /// Bytes counted so far.
    pub(super) fn expanded(&self) -> usize {
        self.expanded
    }

    /// Counts bytes that need no inflating.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.expanded = self.expanded.saturating_add(bytes);
        if self.expanded > self.limit {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn restart(&mut self) {
        match &mut self.state {
            Some(state) => state.reset(false),
            None => {
                self.state = Some(Decompress::new(false));
                self.buffer = vec![0; Self::BUFFER].into();
            }
        }
        self.at = 0;
        self.filled = 0;
        self.ended = false;
    }

    /// What is inflated and not yet read; empty only at the end of the stream.
    fn ready(&mut self, packed: &mut &[u8]) -> Result<&[u8], Refusal> {
        while self.at == self.filled && !self.ended {
            let Some(state) = &mut self.state else { break };
            let (read, written) = (state.total_in(), state.total_out());
            let status =
                state.decompress(packed, &mut self.buffer, FlushDecompress::None).map_err(|_| Refusal::Invalid)?;
            let read = (state.total_in() - read) as usize;
            let written = (state.total_out() - written) as usize;
            *packed = packed.get(read..).unwrap_or_default();
            self.at = 0;
            self.filled = written;
            self.ended = status == Status::StreamEnd;
            if !self.ended && read == 0 && written == 0 {
                return Err(Refusal::Invalid);
            }
            self.spend(written)?;
        }
        Ok(self.buffer.get(self.at..self.filled).unwrap_or_default())
    }
}

/// A cursor over plain or deflated bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    inflater: Option<&'a mut Inflater>,
    /// Bytes that may still be read; a window into a stream ends before the stream does.
    left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, inflater: None, left: bytes.len() }
    }

    pub(super) fn deflated(packed: &'a [u8], inflater: &'a mut Inflater) -> Self {
        inflater.restart();
        Self { bytes: packed, inflater: Some(inflater), left: usize::MAX }
    }

    /// Bytes that may still be read; of deflated ones outside of a window, more than there are.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Whether everything has been read.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Refusal> {
        Ok(self.left == 0 || self.ready()?.is_empty())
    }

    /// At the end: no byte of the input may be left over.
    pub(super) fn finish(mut self) -> Result<(), Refusal> {
        if self.is_at_end()? && self.bytes.is_empty() {
            return Ok(());
        }
        Err(Refusal::Invalid)
    }

    /// Lets `read` read exactly the next `len` bytes.
    pub(super) fn window<R>(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut Self) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let after = self.left.checked_sub(len).ok_or(Refusal::Invalid)?;
        self.left = len;
        let result = read(self)?;
        if self.left != 0 {
            return Err(Refusal::Invalid);
        }
        self.left = after;
        Ok(result)
    }

    /// Splits off plain bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Refusal::Invalid)?;
        self.bytes = rest;
        self.left = self.left.saturating_sub(len);
        Ok(taken)
    }

    /// The plain bytes that are left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn byte(&mut self) -> Result<u8, Refusal> {
        if self.left == 0 {
            return Err(Refusal::Invalid);
        }
        let byte = *self.ready()?.first().ok_or(Refusal::Invalid)?;
        self.advance(1);
        Ok(byte)
    }

    pub(super) fn skip(&mut self, mut bytes: usize) -> Result<(), Refusal> {
        if bytes > self.left {
            return Err(Refusal::Invalid);
        }
        while bytes > 0 {
            let step = self.ready()?.len().min(bytes);
            if step == 0 {
                return Err(Refusal::Invalid);
            }
            self.advance(step);
            bytes -= step;
        }
        Ok(())
    }

    /// Fills `buffer` from the input.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<(), Refusal> {
        buffer.iter_mut().try_for_each(|byte| {
            *byte = self.byte()?;
            Ok(())
        })
    }

    /// Skips to the end and says how many bytes that were.
    pub(super) fn skip_rest(&mut self) -> Result<u64, Refusal> {
        let mut skipped = 0;
        while !self.is_at_end()? {
            let step = self.ready()?.len().min(self.left);
            self.advance(step);
            skipped += step as u64;
        }
        Ok(skipped)
    }

    /// An unsigned LEB128 number, in its shortest form.
    pub(super) fn uleb(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let overlong = byte == 0 && shift > 0;
                let too_large = shift == 63 && byte > 1;
                if overlong || too_large {
                    return Err(Refusal::Invalid);
                }
                return Ok(value);
            }
        }
        Err(Refusal::Invalid)
    }

    /// An unsigned LEB128 number that counts or measures something in memory.
    pub(super) fn length(&mut self) -> Result<usize, Refusal> {
        usize::try_from(self.uleb()?).map_err(|_| Refusal::Invalid)
    }

    /// A signed LEB128 number.
    pub(super) fn sleb(&mut self) -> Result<i64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if shift == 63 && byte != 0 && byte != 0x7f {
                    return Err(Refusal::Invalid);
                }
                if shift < 57 && byte & 0x40 != 0 {
                    value |= -1 << (shift + 7);
                }
                return Ok(value);
            }
        }
        Err(Refusal::Invalid)
    }

    fn ready(&mut self) -> Result<&[u8], Refusal> {
        match &mut self.inflater {
            None => Ok(self.bytes),
            Some(inflater) => inflater.ready(&mut self.bytes),
        }
    }

    /// Moves past bytes of [`Self::ready`].
    fn advance(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        match &mut self.inflater {
            None => self.bytes = self.bytes.get(bytes..).unwrap_or_default(),
            Some(inflater) => inflater.at += bytes,
        }
    }
}
