//! How sparse a layer is.

use serde::{Deserialize, Serialize};

use super::SdLayer;
use crate::smartdeal::LayerShape;

/// How sparse a layer is, and how many magnitudes its coefficients take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    /// Coefficients, padding included.
    pub entries: usize,
    /// Non-zero coefficients.
    pub non_zeros: usize,
    /// Coefficient rows ("vectors").
    pub rows: usize,
    /// Rows without a non-zero.
    pub zero_rows: usize,
    /// Input channels (or input features, where a row of three counts as one) that no filter reads.
    pub zero_channels: usize,
    /// Distinct non-zero magnitudes: `K`.
    pub magnitudes: usize,
}

impl LayerStats {
    /// Zeros among the coefficients; 0 where there are none.
    pub fn element_sparsity(&self) -> f64 {
        if self.entries == 0 { 0.0 } else { 1.0 - ratio(self.non_zeros, self.entries) }
    }

    /// Zero rows among the rows; 0 where there are none.
    pub fn vector_sparsity(&self) -> f64 {
        ratio(self.zero_rows, self.rows)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl SdLayer {
    /// Counts zeros, zero rows, zero channels and magnitudes.
    pub fn stats(&self) -> LayerStats {
        let columns = self.layout.columns;
        let kernel_rows = match self.shape() {
            LayerShape::Conv { kernel: [height, width], .. } if width > 1 => height,
            _ => 1,
        };
        let mut row_in_use = vec![false; self.layout.rows];
        let (mut non_zeros, mut zero_rows) = (0, 0);
        for (row, codes) in self.codes.chunks_exact(columns).enumerate() {
            let count = codes.iter().filter(|c| **c != 0).count();
            non_zeros += count;
            zero_rows += usize::from(count == 0);
            row_in_use[row % self.layout.rows] |= count > 0;
        }
        let zero_channels = row_in_use.chunks(kernel_rows).filter(|rows| rows.iter().all(|in_use| !in_use)).count();
        LayerStats {
            entries: self.codes.len(),
            non_zeros,
            rows: self.layout.total_rows(),
            zero_rows,
            zero_channels,
            magnitudes: self.exponents().len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::DecomposeConfig;

    #[test]
    fn statistics_count_rows_and_channels() {
        // One filter of two channels, 3 × 3: only the first channel's middle row is in use.
        let shape = LayerShape::Conv { out_channels: 1, in_channels: 2, kernel: [3, 3] };
        let mut weights = vec![0f32; 18];
        weights[3..6].copy_from_slice(&[0.5, 0.0, -0.25]);
        let stats = SdLayer::decompose(&weights, shape, &DecomposeConfig::default()).unwrap().stats();
        assert_eq!((stats.entries, stats.rows, stats.zero_rows, stats.zero_channels), (18, 6, 5, 1));
        // A single row of rank one: its two coefficients stand for themselves.
        assert_eq!((stats.non_zeros, stats.magnitudes), (2, 2));
        assert_eq!(LayerStats { entries: 0, non_zeros: 0, ..stats }.element_sparsity(), 0.0);
    }
}
