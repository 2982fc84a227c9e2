//! Lines of bounded length.

use std::io::{self, BufRead, ErrorKind, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_LINE;

/// The next line as a value; `None` at the end of the stream.
///
/// # Errors
/// `InvalidData` for a line that is too long, cut short, or not such a value.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if !read_bounded(from, &mut line, MAX_LINE)? {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Writes a value as one line and does not flush.
///
/// # Errors
/// `InvalidData` for a value whose line would be too long; nothing is written then.
pub(super) fn write(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    if line.len() >= MAX_LINE {
        return Err(ErrorKind::FileTooLarge.into());
    }
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads one line without its end into `line`; false at the end of the stream. Memory grows with what arrives.
fn read_bounded(from: &mut impl BufRead, line: &mut Vec<u8>, max: usize) -> io::Result<bool> {
    loop {
        let available = match from.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return if line.is_empty() { Ok(false) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let (part, used) = match end {
            Some(end) => (available.get(..end).unwrap_or_default(), end + 1),
            None => (available, available.len()),
        };
        if line.len() + part.len() > max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        line.extend_from_slice(part);
        from.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn lines(input: &[u8], max: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut input = BufReader::with_capacity(3, input);
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if !read_bounded(&mut input, &mut line, max)? {
                return Ok(lines);
            }
            lines.push(line);
        }
    }

    #[test]
    fn lines_are_found_whatever_the_buffer() {
        let found = lines(b"one\n\ntwo three\n", 9).expect("within the bound");
        assert_eq!(found, [b"one".to_vec(), b"".to_vec(), b"two three".to_vec()]);
    }

    #[test]
    fn a_line_beyond_the_bound_is_refused_before_it_is_held() {
        let error = lines(b"123456789\n", 8).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_line_without_its_end_is_not_taken_for_whole() {
        let error = lines(b"one\ntw", 9).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
