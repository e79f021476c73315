//! Files as lines of UTF-8, with errors that name the line.

use std::path::Path;

use super::{Place, TextError};
use crate::{Error, Result};

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io(path, "read"))
}

/// The lines of a file's bytes with their numbers from 1: without their ends (`\n`, `\r\n`), without a byte order mark.
/// A last line without an end counts, an empty one after the last end does not.
pub(super) fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> impl Iterator<Item = Result<(usize, &'a str)>> + 'a {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let all = if bytes.is_empty() { None } else { Some(bytes.split(|&byte| byte == b'\n')) };
    all.into_iter().flatten().enumerate().map(move |(position, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = str::from_utf8(line)
            .map_err(|error| TextError::NotUtf8 { place: Place::new(path, position + 1), byte: error.valid_up_to() })?;
        Ok((position + 1, text))
    })
}

/// A whole text, or the line with its first bad byte.
pub(super) fn text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        let start = good.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        TextError::NotUtf8 { place: Place::new(path, line), byte: good.len() - start }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Vec<(usize, String)> {
        lines(Path::new("f"), bytes).map(|line| line.map(|(number, text)| (number, text.to_owned())).unwrap()).collect()
    }

    #[test]
    fn ends_and_byte_order_marks_are_no_part_of_a_line() {
        let expected = vec![(1, "a".to_owned()), (2, String::new()), (3, "b".to_owned())];
        assert_eq!(of(b"a\n\nb\n"), expected);
        assert_eq!(of(b"a\n\nb"), expected);
        assert_eq!(of(b"\xef\xbb\xbfa\r\n\r\nb\r\n"), expected);
        assert!(of(b"").is_empty());
    }

    #[test]
    fn bad_utf_8_names_the_line_and_the_byte() {
        let bytes = b"fine\nab\xffcd\n";
        let found = lines(Path::new("f.tsv"), bytes).find_map(Result::err).unwrap().to_string();
        assert_eq!(found, "f.tsv:2: not UTF-8 from byte 2 of the line on");
        assert_eq!(text(Path::new("f.tsv"), bytes).unwrap_err().to_string(), found);
    }
}
