//! The names a tensor file needs, and what calling them means.

use tch::Kind;

/// A name the interpreter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`, called without arguments.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`: a view into a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that asks for gradients.
    RebuildParameter,
    /// `torch.FloatStorage` and its like, which only say a storage's kind.
    Storage(Kind),
}

impl Global {
    /// The global of this name, or nothing for any other.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", storage) => Self::Storage(match storage {
                "DoubleStorage" => Kind::Double,
                "FloatStorage" => Kind::Float,
                "HalfStorage" => Kind::Half,
                "BFloat16Storage" => Kind::BFloat16,
                "LongStorage" => Kind::Int64,
                "IntStorage" => Kind::Int,
                "ShortStorage" => Kind::Int16,
                "CharStorage" => Kind::Int8,
                "ByteStorage" => Kind::Uint8,
                "BoolStorage" => Kind::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}
