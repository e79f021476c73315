//! Columns cut into at most 255 bins.

use ndarray::ArrayView2;
use rayon::prelude::*;

/// Largest number of bins of a column.
const MOST: usize = 255;

/// Binned table, column by column, with the thresholds between bins.
pub(super) struct Bins {
    rows: usize,
    /// `[columns][rows]`
    codes: Vec<u8>,
    /// Thresholds of each column: values up to `thresholds[b]` fall into bins 0..=b.
    thresholds: Vec<Vec<f32>>,
}

impl Bins {
    pub(super) fn new(x: ArrayView2<f32>) -> Self {
        let rows = x.nrows();
        let mut codes = vec![0u8; rows * x.ncols()];
        let thresholds = codes
            .par_chunks_exact_mut(rows)
            .enumerate()
            .map(|(j, codes)| {
                let column = x.column(j);
                let thresholds = cut(column.to_vec());
                for (code, &value) in codes.iter_mut().zip(column) {
                    *code = thresholds.partition_point(|&t| t < value) as u8;
                }
                thresholds
            })
            .collect();
        Self { rows, codes, thresholds }
    }

    pub(super) fn columns(&self) -> usize {
        self.thresholds.len()
    }

    pub(super) fn column(&self, j: usize) -> &[u8] {
        &self.codes[j * self.rows..(j + 1) * self.rows]
    }

    pub(super) fn threshold(&self, j: usize, bin: usize) -> f32 {
        self.thresholds[j][bin]
    }
}

/// Thresholds half-way between neighbouring distinct values; between quantiles when there are too many.
fn cut(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_unstable_by(f32::total_cmp);
    let all = values.clone();
    values.dedup();
    if values.len() > MOST {
        values = (0..MOST).map(|i| all[(i * (all.len() - 1)) / (MOST - 1)]).collect();
        values.dedup();
    }
    values
        .windows(2)
        .map(|pair| {
            let middle = pair[0] + (pair[1] - pair[0]) / 2.0;
            // Rounding must not push the threshold onto the upper value.
            if middle < pair[1] { middle } else { pair[0] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_and_thresholds_agree(values in proptest::collection::vec(-1e3f32..1e3, 1..600)) {
            let x = ndarray::Array2::from_shape_vec((values.len(), 1), values.clone())?;
            let bins = Bins::new(x.view());
            for (&value, &code) in values.iter().zip(bins.column(0)) {
                let code = usize::from(code);
                prop_assert!(code == 0 || value > bins.threshold(0, code - 1));
                prop_assert!(code >= bins.thresholds[0].len() || value <= bins.threshold(0, code));
            }
        }
    }
}
