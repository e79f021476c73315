//! SmartDeal.
mod config;
mod decompose;
mod kernel;
mod ladder;
mod layer;
mod layout;
mod sdz;
mod storage;

pub use config::{BlockRule, DecomposeConfig, Projection};
pub use decompose::{Factors, TraceStep, decompose, decompose_plain};
pub use kernel::{ConvGeometry, SdConv2dKernel, SdLinearKernel};
pub use ladder::{Ladder, MAX_EXPONENT, Tie, decode_coefficient, encode_coefficient};
pub use layer::{Basis, LayerStats, SdLayer};
pub use layout::{LayerShape, Layout};
pub use sdz::{DenseTensor, Record, SDZ_MAGIC, SDZ_VERSION, SdzFile, SdzModel, SdzReader, SdzWriter};
pub use storage::{
    IndexScheme, Storage, code_bits_with_zero, nonzero_code_bits, require_code_bits, smallest_scheme, storage,
};
