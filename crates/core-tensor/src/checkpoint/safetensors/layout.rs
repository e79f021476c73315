//! Where each tensor lies in a safetensors file.

use indexmap::IndexMap;
use tch::Kind;

/// The file's own map of strings.
pub type Metadata = IndexMap<String, String>;

/// The header's key for [`Metadata`]; no tensor may be called so.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// The header's length comes first, in eight little-endian bytes.
pub(super) const LENGTH_BYTES: u64 = 8;

/// The longest header the format allows.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;

/// Kind, shape and place of one tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The kind of its elements.
    pub kind: Kind,
    /// Its shape; empty for a scalar.
    pub shape: Vec<i64>,
    /// First byte, counted from the end of the header.
    pub begin: u64,
    /// One past the last byte.
    pub end: u64,
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::Double, "F64"),
    (Kind::Int64, "I64"),
    (Kind::Float, "F32"),
    (Kind::Int, "I32"),
    (Kind::Half, "F16"),
    (Kind::BFloat16, "BF16"),
    (Kind::Int16, "I16"),
    (Kind::Int8, "I8"),
    (Kind::Uint8, "U8"),
    (Kind::Bool, "BOOL"),
];

/// The format's name for a kind, or nothing when it has none.
pub(super) fn name_of(kind: Kind) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

/// The kind of that name, or nothing when libtorch has none.
pub(super) fn kind_of(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
}

/// Bytes of a tensor, or nothing when its shape does not fit an address space.
///
/// Zero-length dimensions do not excuse the others: `[0, 2⁶², 4]` has no bytes, but no strides either.
pub(super) fn byte_length(kind: Kind, shape: &[i64]) -> Option<u64> {
    let mut elements = 1_i64;
    for &dimension in shape {
        if dimension < 0 {
            return None;
        }
        elements = elements.checked_mul(dimension.max(1))?;
    }
    let bytes = elements.checked_mul(kind.elt_size_in_bytes() as i64)?;
    Some(if shape.contains(&0) { 0 } else { bytes as u64 })
}
