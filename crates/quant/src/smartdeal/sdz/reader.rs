//! Reading a file record by record.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};

use super::bytes::{Cursor, Parsed};
use super::{DENSE, DenseTensor, END, LAYER, Record, SDZ_MAGIC, SDZ_VERSION, payload};
use crate::{Error, Result};

/// Reads records from any stream. Every byte is checked before it is believed: damage gives an error that says
/// where, never a wrong weight.
#[derive(Debug)]
pub struct SdzReader<R: Read> {
    stream: R,
    offset: u64,
    names: HashSet<String>,
    ended: bool,
}

/// Slack behind a body, so that bits can be looked at in whole words.
const SLACK: usize = 8;

impl<R: Read> SdzReader<R> {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another kind of file or reserved bytes in use; [`Error::Version`] for a version that is
    /// not known; [`Error::Checksum`]; [`Error::Truncated`] for fewer than 12 bytes; [`Error::Stream`] for a stream
    /// that refuses.
    pub fn new(stream: R) -> Result<Self> {
        let mut reader = Self { stream, offset: 0, names: HashSet::new(), ended: false };
        let header: [u8; 12] = reader.array("header")?;
        if header[..4] != SDZ_MAGIC {
            return Err(Error::Malformed { offset: 0, reason: "not an .sdz file".into() });
        }
        reader.check("header", 0, &header[..8], &header[8..])?;
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version > SDZ_VERSION || version == 0 {
            return Err(Error::Version { found: version, supported: SDZ_VERSION });
        }
        if header[6..8] != [0; 2] {
            return Err(Error::Malformed { offset: 6, reason: "reserved bytes are not zero".into() });
        }
        Ok(reader)
    }

    /// The next record and its name, `None` after the last.
    ///
    /// # Errors
    /// [`Error::Truncated`] for a record that ends too early, or where the end record is missing; [`Error::Checksum`];
    /// [`Error::Malformed`] for what no writer writes: an unknown kind, a name twice, contents that contradict one
    /// another, bytes after the end; [`Error::Stream`] for a stream that refuses.
    pub fn next_record(&mut self) -> Result<Option<(String, Record)>> {
        if self.ended {
            return Ok(None);
        }
        let start = self.offset;
        let frame: [u8; 16] = self.array("record header")?;
        self.check("record header", start, &frame[..12], &frame[12..])?;
        let mut length = [0; 8];
        length.copy_from_slice(&frame[4..12]);
        let body = self.body(u64::from_le_bytes(length))?;
        let malformed = |reason: String| Error::Malformed { offset: start, reason };
        if frame[1..4] != [0; 3] {
            return Err(malformed("reserved bytes are not zero".into()));
        }
        let length = body.len() - SLACK;
        if frame[0] == END {
            self.end(&body[..length]).map_err(malformed)?;
            return Ok(None);
        }
        let (name, at) = parse_name(&body[..length]).map_err(malformed)?;
        if !self.names.insert(name.clone()) {
            return Err(malformed(format!("a second record `{name}`")));
        }
        let record = match frame[0] {
            LAYER => payload::decode(&body[at..], length - at).map(Record::Layer),
            DENSE => parse_dense(&body[at..length]).map(Record::Dense),
            kind => Err(format!("record of unknown kind {kind}")),
        };
        Ok(Some((name, record.map_err(malformed)?)))
    }

    fn end(&mut self, body: &[u8]) -> Parsed<()> {
        let mut cursor = Cursor::new(body);
        let count = cursor.u64()?;
        if cursor.len() != 0 || count != self.names.len() as u64 {
            return Err(format!("end record counts {count} records, {} were read", self.names.len()));
        }
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {
                self.ended = true;
                Ok(())
            }
            Ok(_) => Err("bytes after the end record".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A body, its checksum verified, with slack behind it.
    fn body(&mut self, length: u64) -> Result<Vec<u8>> {
        let start = self.offset;
        let mut body = Vec::new();
        // The length is not believed further than bytes actually come.
        let expected = usize::try_from(length.min(1 << 26)).unwrap_or(0);
        body.reserve_exact(expected + SLACK);
        let read = self.stream.by_ref().take(length).read_to_end(&mut body)?;
        self.offset += read as u64;
        if (read as u64) < length {
            return Err(Error::Truncated { offset: self.offset, what: "record" });
        }
        let checksum: [u8; 4] = self.array("checksum of a record")?;
        self.check("record", start, &body, &checksum)?;
        body.extend([0; SLACK]);
        Ok(body)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        let mut read = 0;
        while read < N {
            match self.stream.read(&mut array[read..]) {
                Ok(0) => return Err(Error::Truncated { offset: self.offset + read as u64, what }),
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += N as u64;
        Ok(array)
    }

    fn check(&self, what: &'static str, offset: u64, bytes: &[u8], checksum: &[u8]) -> Result<()> {
        let expected = checksum.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        let found = crc32fast::hash(bytes);
        if expected == found { Ok(()) } else { Err(Error::Checksum { what, offset, expected, found }) }
    }
}

fn parse_name(body: &[u8]) -> Parsed<(String, usize)> {
    let mut cursor = Cursor::new(body);
    let length = usize::from(cursor.u16()?);
    let name = std::str::from_utf8(cursor.take(length)?).map_err(|e| format!("name is not UTF-8: {e}"))?;
    Ok((name.into(), 2 + length))
}

fn parse_dense(body: &[u8]) -> Parsed<DenseTensor> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u8()?;
    let dims: Vec<usize> = (0..count).map(|_| cursor.u32()).collect::<Parsed<_>>()?;
    let values = dims.iter().try_fold(4usize, |n, d| n.checked_mul(*d)).filter(|bytes| *bytes == cursor.len());
    let bytes = values.ok_or_else(|| format!("{} bytes of values for dimensions {dims:?}", cursor.len()))?;
    let values = cursor.take(bytes)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Ok(DenseTensor { dims, values })
}
