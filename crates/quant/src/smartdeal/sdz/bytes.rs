//! Fields of whole bytes, one after another.

use crate::{Error, Result};

/// Why a body cannot be understood; the reader adds where it was.
pub(super) type Parsed<T> = std::result::Result<T, String>;

pub(super) fn put_u32(out: &mut Vec<u8>, value: usize, what: &'static str) -> Result<()> {
    let value = u32::try_from(value).map_err(|_| Error::Shape {
        what: what.into(),
        expected: "less than 2^32".into(),
        found: value.to_string(),
    })?;
    out.extend(value.to_le_bytes());
    Ok(())
}

/// Bytes read one after another.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("record ends too early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Parsed<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Parsed<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn f32(&mut self) -> Parsed<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}
