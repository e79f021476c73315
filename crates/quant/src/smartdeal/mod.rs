//! SmartDeal.
mod baseline;
mod config;
mod decompose;
mod factory;
mod kernel;
mod ladder;
mod layer;
mod layout;
mod model;
mod prune;
mod sdz;
mod storage;
pub mod train;
mod workload;

pub use baseline::{Approximation, Baseline};
pub use config::{BlockRule, DecomposeConfig, Projection};
pub use decompose::{Factors, TraceStep, decompose, decompose_plain};
pub use factory::{CompressedFactory, load_network};
pub use kernel::{ConvGeometry, SdConv2dKernel, SdLinearKernel};
pub use ladder::{Ladder, MAX_EXPONENT, Tie, decode_coefficient, encode_coefficient};
pub use layer::{Basis, LayerStats, SdLayer};
pub use layout::{LayerShape, Layout};
pub use model::{CompressPolicy, CompressReport, Kernels, LayerReport, Undecomposable, compress, compress_tensors};
pub use prune::{VectorPruning, prune_vectors};
pub use sdz::{DenseTensor, Record, SDZ_MAGIC, SDZ_VERSION, SdzFile, SdzModel, SdzReader, SdzWriter};
pub use storage::{
    IndexScheme, Storage, code_bits_with_zero, nonzero_code_bits, require_code_bits, smallest_scheme, storage,
};
pub use workload::{HardwareStats, compressed_workload, hardware_stats};
