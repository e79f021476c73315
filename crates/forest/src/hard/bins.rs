//! Columns cut into at most 255 bins.

use ndarray::ArrayView2;
use rayon::prelude::*;

/// Largest number of bins of a column.
const MOST: usize = 255;

/// Binned table with the thresholds between bins.
pub(super) struct Bins {
    /// `[columns][rows]`
    codes: Vec<u8>,
    /// The same as `[rows][columns]`.
    by_row: Vec<u8>,
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
        let mut by_row = vec![0u8; codes.len()];
        if rows > 0 {
            let columns = x.ncols().max(1);
            by_row.par_chunks_exact_mut(columns).enumerate().for_each(|(row, line)| {
                line.iter_mut().zip(codes.chunks_exact(rows)).for_each(|(code, column)| *code = column[row]);
            });
        }
        Self { codes, by_row, thresholds }
    }

    pub(super) fn columns(&self) -> usize {
        self.thresholds.len()
    }

    /// `[columns][rows]`
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The columns of some rows alone, as `[columns][chosen]`.
    pub(super) fn columns_of(&self, chosen: &[u32]) -> Vec<u8> {
        let columns = self.columns();
        let mut codes = vec![0u8; columns * chosen.len()];
        for (place, &row) in chosen.iter().enumerate() {
            let line = &self.by_row[row as usize * columns..][..columns];
            line.iter().zip(codes.chunks_exact_mut(chosen.len())).for_each(|(&code, column)| column[place] = code);
        }
        codes
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

    #[test]
    fn chosen_rows_have_the_codes_of_the_whole_table() {
        let x = ndarray::arr2(&[[1.0, 9.0, 4.0], [2.0, 8.0, 4.0], [3.0, 7.0, 5.0]]);
        let bins = Bins::new(x.view());
        assert_eq!(bins.codes(), [0, 1, 2, 2, 1, 0, 0, 0, 1]);
        // The third row, the first, and the third again.
        assert_eq!(bins.columns_of(&[2, 0, 2]), [2, 0, 2, 0, 2, 0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn codes_and_thresholds_agree(values in proptest::collection::vec(-1e3f32..1e3, 1..600)) {
            let x = ndarray::Array2::from_shape_vec((values.len(), 1), values.clone())?;
            let bins = Bins::new(x.view());
            for (&value, &code) in values.iter().zip(bins.codes()) {
                let code = usize::from(code);
                prop_assert!(code == 0 || value > bins.threshold(0, code - 1));
                prop_assert!(code >= bins.thresholds[0].len() || value <= bins.threshold(0, code));
            }
        }
    }
}
