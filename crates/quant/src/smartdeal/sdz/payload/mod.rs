//! The body of a layer's record: shape, rungs, index, codes, basis.
//!
//! Here is what comes before the sections; the index and the codes have one module a direction, the basis has one.

mod basis;
mod decode_codes;
mod encode_codes;
mod symbols;

use super::bits::Bits;
use super::bytes::{Cursor, Parsed, put_u32};
use crate::smartdeal::storage::validate;
use crate::smartdeal::{Basis, IndexScheme, LayerShape, Layout, MAX_EXPONENT, SdLayer};
use crate::{Error, Result};
use basis::{decode_basis, encode_basis};
use decode_codes::decode_codes;
use encode_codes::encode_codes;

/// Most coefficients of one layer.
const MOST_ENTRIES: usize = 1 << 31;
/// Schemes that store nothing for zeros let a few bytes stand for any number of them. Up to this many are believed
/// whatever the size of the body, ...
const ALWAYS_READ: usize = 1 << 26;
/// ... and beyond that up to this many a byte: thirty times what a layer of zeros in this crate's own blocks comes to.
const MOST_PER_BYTE: usize = 1 << 18;

/// Appends a layer's body to `out`.
pub(super) fn encode(layer: &SdLayer, scheme: IndexScheme, mut out: Vec<u8>) -> Result<Vec<u8>> {
    validate(scheme)?;
    let layout = layer.layout();
    if layout.entries() > MOST_ENTRIES {
        return Err(Error::Shape {
            what: "layer to write".into(),
            expected: format!("at most {MOST_ENTRIES} coefficients"),
            found: layout.entries().to_string(),
        });
    }
    let exponents = layer.exponents();
    let (kind, run_bits) = match scheme {
        IndexScheme::Bitmap => (0u8, 0u8),
        IndexScheme::RowBitmap => (1, 0),
        IndexScheme::Rlc { run_bits } => (2, run_bits),
        IndexScheme::Csr => (3, 0),
    };
    let dims = layer.shape().dims();
    out.push(dims.len() as u8);
    for dim in &dims {
        put_u32(&mut out, *dim, "a dimension")?;
    }
    out.push(layout.columns as u8);
    put_u32(&mut out, layout.rows, "rows of a filter")?;
    put_u32(&mut out, layout.block_rows, "rows of a block")?;
    out.push(kind);
    out.push(run_bits);
    out.push(exponents.len() as u8);
    out.extend(exponents.iter().map(|p| *p as u8));
    let (basis_bits, scale) = match layer.basis() {
        Basis::Float(_) => (32, 1.0),
        Basis::Fixed { bits, scale, .. } => (*bits, *scale),
    };
    out.push(basis_bits);
    out.extend(scale.to_le_bytes());
    let out = encode_codes(layer, scheme, &exponents, out);
    Ok(encode_basis(layer.basis(), out))
}

/// Parses a layer's body. `padded` holds the body, which is `len` bytes long, and at least eight bytes more.
pub(super) fn decode(padded: &[u8], len: usize) -> Parsed<SdLayer> {
    let mut cursor = Cursor::new(&padded[..len]);
    let dimensions = cursor.u8()?;
    let dims: Vec<usize> = (0..dimensions).map(|_| cursor.u32()).collect::<Parsed<_>>()?;
    let shape = LayerShape::of_weight(&dims).ok_or_else(|| format!("{dimensions} dimensions, expected 2 or 4"))?;
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or("weight too large")?;
    let columns = usize::from(cursor.u8()?);
    let (rows, block_rows) = (cursor.u32()?, cursor.u32()?);
    let layout = Layout::checked(shape, rows, columns, block_rows).map_err(|e| e.to_string())?;
    let most = MOST_ENTRIES.min(ALWAYS_READ.max(len.saturating_mul(MOST_PER_BYTE)));
    if layout.entries() > most {
        return Err(format!("{} coefficients in {len} bytes, at most {most} are read", layout.entries()));
    }
    let scheme = match (cursor.u8()?, cursor.u8()?) {
        (0, 0) => IndexScheme::Bitmap,
        (1, 0) => IndexScheme::RowBitmap,
        (2, run_bits @ 1..=16) => IndexScheme::Rlc { run_bits },
        (3, 0) => IndexScheme::Csr,
        (kind, run_bits) => return Err(format!("index scheme {kind} with {run_bits} run bits")),
    };
    let count = usize::from(cursor.u8()?);
    let exponents: Vec<i8> = cursor.take(count)?.iter().map(|p| *p as i8).collect();
    let in_window = |p: &i8| i32::from(*p).abs() <= MAX_EXPONENT;
    if !exponents.is_sorted_by(|a, b| a < b) || !exponents.iter().all(in_window) {
        return Err("exponents do not ascend within -63 … 63".into());
    }
    let (basis_bits, scale) = (cursor.u8()?, cursor.f32()?);
    let stored = cursor.u64()?;
    let body = Sections { padded: &padded[len - cursor.len()..], len: cursor.len() };
    let (codes, body) = decode_codes(&layout, scheme, &exponents, stored, body)?;
    let basis = decode_basis(layout.blocks() * layout.basis_len(), basis_bits, scale, body)?;
    SdLayer::from_parts(layout, codes, basis).map_err(|e| e.to_string())
}

/// What is left of a body: `len` bytes and the slack behind them.
#[derive(Clone, Copy)]
struct Sections<'a> {
    padded: &'a [u8],
    len: usize,
}

impl<'a> Sections<'a> {
    /// Splits off a section of so many bits, whole bytes.
    fn split(self, bits: u64, what: &str) -> Parsed<(Bits<'a>, Self)> {
        let bytes = usize::try_from(bits.div_ceil(8)).ok().filter(|bytes| *bytes <= self.len);
        let bytes = bytes.ok_or_else(|| format!("{what} needs {bits} bits, {} bytes are left", self.len))?;
        let section = Bits::new(self.padded, bits).ok_or("record ends too early")?;
        if !section.padding_is_zero() {
            return Err(format!("bits after the {what} are not zero"));
        }
        Ok((section, Self { padded: &self.padded[bytes..], len: self.len - bytes }))
    }
}

/// Bytes of a layer's body before its sections.
#[cfg(test)]
pub(super) fn header_len(layer: &SdLayer) -> usize {
    1 + 4 * layer.shape().dims().len() + 1 + 8 + 2 + 1 + layer.exponents().len() + 5 + 8
}
