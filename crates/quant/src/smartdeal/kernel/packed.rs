//! The form that the kernels read: kept rows only, one 32-bit word each.
//!
//! ```text
//! bit 31 … 23   sign and exponent of the first coefficient, exactly the top nine bits of its f32
//! bit 22 … 14   of the second
//! bit 13 … 5    of the third
//! bit  4 … 0    zero rows skipped before this one; a longer run is broken by a word without coefficients
//! ```
//!
//! A coefficient is turned into a float by one shift and one mask, for all three at once: powers of two need no table.

use rayon::prelude::*;

use crate::smartdeal::{SdLayer, decode_coefficient};

/// A layer of three columns, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) words: Vec<u32>,
    /// Ends of the blocks in `words`, filter by filter.
    pub(super) block_ends: Vec<usize>,
    /// Bases as `[4·k + j]`, the fourth of each row and the last four zero.
    pub(super) bases: Vec<[f32; 16]>,
    pub(super) blocks_per_filter: usize,
    pub(super) block_rows: usize,
}

/// Longest run of zero rows that a word can hold.
const LONGEST_RUN: usize = 31;

impl Packed {
    pub(super) fn new(layer: &SdLayer) -> Self {
        let layout = layer.layout();
        let basis = layer.basis().to_floats();
        let bases = basis.chunks_exact(9).map(|b| {
            let mut padded = [0.0; 16];
            for k in 0..3 {
                padded[4 * k..4 * k + 3].copy_from_slice(&b[3 * k..3 * k + 3]);
            }
            padded
        });
        let (mut words, mut block_ends) = (Vec::new(), Vec::with_capacity(layout.blocks()));
        for filter in layer.codes().chunks(layout.filter_entries().max(1)) {
            for block in 0..layout.blocks_per_filter() {
                let rows = layout.block_range(block);
                pack_block(&filter[rows.start * 3..rows.end * 3], &mut words);
                block_ends.push(words.len());
            }
        }
        Self {
            words,
            block_ends,
            bases: bases.collect(),
            blocks_per_filter: layout.blocks_per_filter(),
            block_rows: layout.block_rows,
        }
    }

    /// Bytes that a product reads besides its input.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.words[..]) + size_of_val(&self.block_ends[..]) + size_of_val(&self.bases[..])
    }

    /// The blocks of a filter: first row, words, basis.
    #[inline]
    pub(super) fn blocks(&self, filter: usize) -> impl Iterator<Item = (usize, &[u32], &[f32; 16])> {
        let first = filter * self.blocks_per_filter;
        (0..self.blocks_per_filter).map(move |block| {
            let start = if first + block == 0 { 0 } else { self.block_ends[first + block - 1] };
            let words = &self.words[start..self.block_ends[first + block]];
            (block * self.block_rows, words, &self.bases[first + block])
        })
    }

    fn filters(&self) -> usize {
        self.block_ends.len().checked_div(self.blocks_per_filter).unwrap_or(0)
    }

    /// Rebuilds the kept rows' weights, columns beyond `filter_len` zeroed.
    pub(super) fn expand(&self, filter_len: usize) -> Rows {
        let filters: Vec<(Vec<u32>, Vec<f32>)> = (0..self.filters())
            .into_par_iter()
            .map(|filter| {
                let (mut rows, mut weights) = (Vec::new(), Vec::new());
                for (first, words, basis) in self.blocks(filter) {
                    let mut next = first;
                    for word in words {
                        let row = next + (word & 31) as usize;
                        next = row + 1;
                        let [c0, c1, c2] = coefficients(*word);
                        if (c0, c1, c2) == (0.0, 0.0, 0.0) {
                            continue;
                        }
                        rows.push(row as u32);
                        for j in 0..3 {
                            let weight = c0 * basis[j] + c1 * basis[4 + j] + c2 * basis[8 + j];
                            weights.push(if 3 * row + j < filter_len { weight } else { 0.0 });
                        }
                    }
                }
                (rows, weights)
            })
            .collect();
        Rows::from_filters(filters, 3)
    }
}

/// The three coefficients of a word.
#[inline(always)]
pub(super) fn coefficients(word: u32) -> [f32; 3] {
    [0, 9, 18].map(|shift| f32::from_bits((word << shift) & 0xff80_0000))
}

fn pack_block(codes: &[i8], words: &mut Vec<u32>) {
    let mut run = 0;
    for row in codes.as_chunks::<3>().0 {
        if *row == [0; 3] {
            run += 1;
            continue;
        }
        while run > LONGEST_RUN {
            words.push(LONGEST_RUN as u32);
            run -= LONGEST_RUN + 1;
        }
        let top = |k: usize| decode_coefficient(row[k]).to_bits() >> 23;
        words.push(top(0) << 23 | top(1) << 14 | top(2) << 5 | run as u32);
        run = 0;
    }
}

/// Kept rows with their weights: what products with many columns read.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) columns: usize,
    /// Row numbers within a filter, filter by filter.
    pub(super) rows: Vec<u32>,
    /// Weights of those rows, `columns` each.
    pub(super) weights: Vec<f32>,
    /// Ends of the filters in `rows`.
    pub(super) ends: Vec<usize>,
}

impl Rows {
    /// The kept rows of a layer of any number of columns.
    pub(super) fn of_layer(layer: &SdLayer) -> Self {
        let layout = layer.layout();
        let (columns, len) = (layout.columns, layer.shape().filter_len());
        let rebuilt = layer.rebuild();
        let filters = layer.codes().chunks(layout.filter_entries().max(1)).enumerate().map(|(filter, codes)| {
            let weight = |i: usize| if i < len { rebuilt[filter * len + i] } else { 0.0 };
            let kept = codes.chunks_exact(columns).enumerate().filter(|(_, row)| row.iter().any(|c| *c != 0));
            let rows: Vec<u32> = kept.map(|(row, _)| row as u32).collect();
            let weights =
                rows.iter().flat_map(|r| (0..columns).map(move |j| *r as usize * columns + j)).map(weight).collect();
            (rows, weights)
        });
        Self::from_filters(filters.collect(), columns)
    }

    fn from_filters(filters: Vec<(Vec<u32>, Vec<f32>)>, columns: usize) -> Self {
        let mut all = Self { columns, rows: Vec::new(), weights: Vec::new(), ends: Vec::with_capacity(filters.len()) };
        for (rows, weights) in filters {
            all.rows.extend(rows);
            all.weights.extend(weights);
            all.ends.push(all.rows.len());
        }
        all
    }

    /// A filter's rows and weights.
    #[inline]
    pub(super) fn filter(&self, filter: usize) -> (&[u32], &[f32]) {
        let range = (if filter == 0 { 0 } else { self.ends[filter - 1] })..self.ends[filter];
        (&self.rows[range.clone()], &self.weights[range.start * self.columns..range.end * self.columns])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_take_words_without_coefficients() {
        // 32 zero rows, one row, 31 zero rows, one row.
        let mut codes = vec![0i8; 65 * 3];
        codes[32 * 3..33 * 3].copy_from_slice(&[64, 0, -65]);
        codes[64 * 3..].copy_from_slice(&[0, 63, 0]);
        let mut words = Vec::new();
        pack_block(&codes, &mut words);
        assert_eq!(words.iter().map(|w| w & 31).collect::<Vec<_>>(), [31, 0, 31]);
        assert_eq!(
            words.iter().map(|w| coefficients(*w)).collect::<Vec<_>>(),
            [[0.0, 0.0, 0.0], [1.0, 0.0, -2.0], [0.0, 0.5, 0.0]]
        );
    }
}
