//! The bases of a layer, written and read.

use super::Sections;
use crate::smartdeal::Basis;
use crate::smartdeal::sdz::bits::BitWriter;
use crate::smartdeal::sdz::bytes::Parsed;

pub(super) fn encode_basis(basis: &Basis, mut out: Vec<u8>) -> Vec<u8> {
    match basis {
        Basis::Float(values) => {
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            out
        }
        Basis::Fixed { bits, values, .. } => {
            let top = (1i32 << (bits - 1)) - 1;
            let mut writer = BitWriter::onto(out);
            for value in values {
                writer.push((i32::from(*value) + top) as u64, u32::from(*bits));
            }
            writer.finish()
        }
    }
}

pub(super) fn decode_basis(count: usize, bits: u8, scale: f32, body: Sections<'_>) -> Parsed<Basis> {
    let width = u32::from(bits);
    if !(2..=16).contains(&bits) && bits != 32 {
        return Err(format!("basis of {bits} bits"));
    }
    let (section, rest) = body.split(count as u64 * u64::from(width), "basis")?;
    if rest.len != 0 {
        return Err(format!("{} bytes after the basis", rest.len));
    }
    let raw = (0..count as u64).map(|i| section.get(i * u64::from(width), width));
    if bits == 32 {
        if scale.to_bits() != 1f32.to_bits() {
            return Err("a floating-point basis has no scale".into());
        }
        return Ok(Basis::Float(raw.map(|v| f32::from_bits(v as u32)).collect()));
    }
    if !(scale.is_finite() && scale > 0.0) {
        return Err(format!("scale of the basis is {scale}"));
    }
    let top = (1i32 << (bits - 1)) - 1;
    let values: Vec<i16> = raw.map(|v| (v as i32 - top) as i16).collect();
    if values.iter().any(|v| i32::from(*v) > top) {
        return Err("a basis entry is beyond full scale".into());
    }
    Ok(Basis::Fixed { bits, scale, values })
}
