//! Counting the bits of a layer, to the bit.

use serde::{Deserialize, Serialize};

use super::{LayerStats, SdLayer};
use crate::{Error, Result};

/// How the positions of non-zero coefficients are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexScheme {
    /// One bit a coefficient; codes of the non-zeros follow. The published accounting.
    Bitmap,
    /// One bit a row of coefficients; kept rows are stored whole, with a code for zero. Best when whole vectors
    /// are zero.
    RowBitmap,
    /// Every stored code carries the count of zeros before it in `run_bits` bits; a longer run is broken by a
    /// stored zero.
    Rlc {
        /// 1 to 16.
        run_bits: u8,
    },
    /// Per filter a 32-bit end offset; per non-zero its position within the filter.
    Csr,
}

/// The bits of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Storage {
    /// Coefficient codes.
    pub coefficient_bits: u64,
    /// Where the non-zeros are.
    pub index_bits: u64,
    /// The bases.
    pub basis_bits: u64,
    /// The same weights at 32 bits each.
    pub dense_bits: u64,
}

impl Storage {
    /// Bits of the compressed form: coefficients, index, basis.
    pub fn total_bits(&self) -> u64 {
        self.coefficient_bits + self.index_bits + self.basis_bits
    }

    /// `32·N_W / bits`; infinite for weights that take no bits, 1 for no weights.
    pub fn compression_ratio(&self) -> f64 {
        if self.dense_bits == 0 && self.total_bits() == 0 {
            return 1.0;
        }
        self.dense_bits as f64 / self.total_bits() as f64
    }
}

impl std::iter::Sum for Storage {
    fn sum<I: Iterator<Item = Self>>(layers: I) -> Self {
        layers.fold(Self::default(), |a, b| Self {
            coefficient_bits: a.coefficient_bits + b.coefficient_bits,
            index_bits: a.index_bits + b.index_bits,
            basis_bits: a.basis_bits + b.basis_bits,
            dense_bits: a.dense_bits + b.dense_bits,
        })
    }
}

/// Bits of a non-zero's code: its magnitude among `magnitudes`, and a sign.
pub fn nonzero_code_bits(magnitudes: usize) -> u32 {
    if magnitudes == 0 { 0 } else { magnitudes.next_power_of_two().trailing_zeros() + 1 }
}

/// Bits of a code that may also be zero.
pub fn code_bits_with_zero(magnitudes: usize) -> u32 {
    (2 * magnitudes + 1).next_power_of_two().trailing_zeros()
}

/// Bits of a code under `scheme`.
pub(crate) fn code_bits(scheme: IndexScheme, magnitudes: usize) -> u32 {
    match scheme {
        IndexScheme::Bitmap | IndexScheme::Csr => nonzero_code_bits(magnitudes),
        IndexScheme::RowBitmap | IndexScheme::Rlc { .. } => code_bits_with_zero(magnitudes),
    }
}

/// Bits that tell the `entries` positions of a filter apart.
pub(crate) fn position_bits(entries: usize) -> u32 {
    usize::BITS - entries.saturating_sub(1).leading_zeros()
}

/// Counts the bits of a layer under an index scheme; the `.sdz` writer's sections are exactly that long.
///
/// ```
/// use quant::smartdeal::{storage, DecomposeConfig, IndexScheme, LayerShape, SdLayer};
/// let weights: Vec<f32> = (0..4 * 192).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let shape = LayerShape::Linear { out_features: 4, in_features: 192 };
/// let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.02))?.with_basis_bits(8)?;
/// let bits = storage(&layer, IndexScheme::Bitmap)?;
/// assert_eq!(bits.index_bits, 4 * 192);
/// assert_eq!(bits.basis_bits, 4 * 9 * 8);
/// # Ok::<(), quant::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for `run_bits` outside 1 to 16.
pub fn storage(layer: &SdLayer, scheme: IndexScheme) -> Result<Storage> {
    storage_given(layer, scheme, &layer.stats())
}

fn storage_given(layer: &SdLayer, scheme: IndexScheme, stats: &LayerStats) -> Result<Storage> {
    validate(scheme)?;
    let codes = u64::from(code_bits(scheme, stats.magnitudes));
    let (entries, rows, non_zeros) = (stats.entries as u64, stats.rows as u64, stats.non_zeros as u64);
    let (coefficient_bits, index_bits) = match scheme {
        IndexScheme::Bitmap => (non_zeros * codes, entries),
        IndexScheme::RowBitmap => {
            let kept = rows - stats.zero_rows as u64;
            (kept * layer.layout().columns as u64 * codes, rows)
        }
        IndexScheme::Rlc { run_bits } => {
            let stored = rlc_stored(layer.codes(), run_bits);
            (stored * codes, stored * u64::from(run_bits))
        }
        IndexScheme::Csr => {
            let filters = layer.shape().filters() as u64;
            let position = u64::from(position_bits(layer.layout().filter_entries()));
            (non_zeros * codes, filters * 32 + non_zeros * position)
        }
    };
    Ok(Storage {
        coefficient_bits,
        index_bits,
        basis_bits: layer.basis().len() as u64 * u64::from(layer.basis().bits()),
        dense_bits: layer.shape().weights() as u64 * 32,
    })
}

/// The cheapest scheme for a layer.
///
/// # Errors
/// Only [`storage`]'s own, which the schemes that are tried never meet.
pub fn smallest_scheme(layer: &SdLayer) -> Result<IndexScheme> {
    const CANDIDATES: [IndexScheme; 5] = [
        IndexScheme::RowBitmap,
        IndexScheme::Bitmap,
        IndexScheme::Rlc { run_bits: 2 },
        IndexScheme::Rlc { run_bits: 4 },
        IndexScheme::Csr,
    ];
    let stats = layer.stats();
    let mut best = (u64::MAX, CANDIDATES[0]);
    for scheme in CANDIDATES {
        let bits = storage_given(layer, scheme, &stats)?.total_bits();
        if bits < best.0 {
            best = (bits, scheme);
        }
    }
    Ok(best.1)
}

/// Refuses a layer whose codes need more than `bits` under `scheme`: the check an accelerator with a fixed code
/// width makes.
///
/// # Errors
/// [`Error::CodeTooWide`].
pub fn require_code_bits(layer: &SdLayer, scheme: IndexScheme, bits: u32) -> Result<()> {
    let magnitudes = layer.exponents().len();
    let needed = code_bits(scheme, magnitudes);
    if needed > bits { Err(Error::CodeTooWide { magnitudes, needed, bits }) } else { Ok(()) }
}

pub(crate) fn validate(scheme: IndexScheme) -> Result<()> {
    match scheme {
        IndexScheme::Rlc { run_bits } if !(1..=16).contains(&run_bits) => {
            Err(Error::Config { name: "run_bits", expected: "1 to 16", found: run_bits.to_string() })
        }
        _ => Ok(()),
    }
}

/// Entries that run-length coding stores: the non-zeros and the zeros that break long runs. Zeros after the last
/// non-zero are not stored.
pub(crate) fn rlc_stored(codes: &[i8], run_bits: u8) -> u64 {
    let longest = (1u64 << run_bits) - 1;
    let (mut stored, mut run) = (0u64, 0u64);
    for code in codes {
        if *code == 0 {
            run += 1;
        } else {
            // A breaker stands for `longest` zeros before it and itself.
            stored += run / (longest + 1) + 1;
            run = 0;
        }
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{Basis, BlockRule, LayerShape, Layout};

    fn block(non_zeros: usize, magnitudes: i8) -> SdLayer {
        let shape = LayerShape::Conv { out_channels: 1, in_channels: 64, kernel: [3, 3] };
        let layout = Layout::new(shape, BlockRule::Reference).unwrap();
        let codes = (0..576).map(|i| if i < non_zeros { 60 + (i % magnitudes as usize) as i8 } else { 0 }).collect();
        SdLayer::from_parts(layout, codes, Basis::Fixed { bits: 8, scale: 0.01, values: vec![100; 9] }).unwrap()
    }

    #[test]
    fn the_published_accounting_of_one_block() {
        // 192 × 3, 4-bit codes (8 magnitudes), bitmap, 8-bit basis: nnz·4 + 576 + 72 against 18 432 dense bits.
        let bits = storage(&block(58, 8), IndexScheme::Bitmap).unwrap();
        assert_eq!((bits.coefficient_bits, bits.index_bits, bits.basis_bits), (58 * 4, 576, 72));
        assert_eq!(bits.dense_bits, 18_432);
        assert!((bits.compression_ratio() - 18_432.0 / 880.0).abs() < 1e-12);
        // The ceiling with no non-zero at all: 18 432 / (576 + 72).
        assert!((storage(&block(0, 1), IndexScheme::Bitmap).unwrap().compression_ratio() - 28.44).abs() < 0.01);
    }

    #[test]
    fn code_widths() {
        assert_eq!([0, 1, 2, 3, 8, 9, 14, 16].map(nonzero_code_bits), [0, 1, 2, 3, 4, 5, 5, 5]);
        assert_eq!([0, 1, 2, 3, 7, 8].map(code_bits_with_zero), [0, 2, 3, 3, 4, 5]);
        assert!(matches!(
            require_code_bits(&block(100, 9), IndexScheme::Bitmap, 4),
            Err(Error::CodeTooWide { magnitudes: 9, needed: 5, bits: 4 })
        ));
        assert!(require_code_bits(&block(100, 8), IndexScheme::Bitmap, 4).is_ok());
    }

    #[test]
    fn long_runs_are_broken_by_stored_zeros() {
        // Runs of 3 zeros fit two bits; 4 zeros need a breaker, 8 need two; what follows the last non-zero is free.
        let run = |zeros: usize| [vec![0i8; zeros], vec![5], vec![0; 9]].concat();
        assert_eq!([0, 3, 4, 7, 8].map(|zeros| rlc_stored(&run(zeros), 2)), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn rows_of_zeros_make_the_row_bitmap_the_smallest() {
        assert_eq!(smallest_scheme(&block(288, 7)).unwrap(), IndexScheme::RowBitmap);
    }

    #[test]
    fn run_widths_outside_the_range_are_refused() {
        assert!(matches!(
            storage(&block(3, 1), IndexScheme::Rlc { run_bits: 17 }),
            Err(Error::Config { name: "run_bits", .. })
        ));
        assert!(storage(&block(3, 1), IndexScheme::Rlc { run_bits: 0 }).is_err());
    }
}
