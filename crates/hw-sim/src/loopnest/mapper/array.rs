//! Which loops are spread over the array, and what is left of them.

use super::mapping::{Bound, Factors, MAX_LEVELS};
use super::problem::Problem;
use crate::loopnest::Dim;

impl Problem<'_> {
    /// Candidate loops and bounds of one axis: as much as fits, for each loop that is worth spreading.
    fn axis(&self, side: u64) -> Vec<(Dim, u64)> {
        let mut choices: Vec<(Dim, u64)> = [Dim::K, Dim::C, Dim::Y, Dim::X, Dim::R, Dim::N]
            .into_iter()
            .filter(|&dim| self.sizes[dim as usize] > 1)
            .map(|dim| (dim, self.sizes[dim as usize].min(side)))
            .collect();
        if choices.is_empty() {
            choices.push((Dim::K, 1));
        }
        choices
    }

    /// Iterations left of each loop once the array is filled.
    pub(super) fn remaining(&self, rows: (Dim, u64), cols: (Dim, u64)) -> [u64; 7] {
        let mut left = self.sizes;
        for (dim, bound) in [rows, cols] {
            left[dim as usize] = left[dim as usize].div_ceil(bound);
        }
        left
    }

    pub(super) fn trivial(&self) -> Factors {
        let busiest = |rows: (Dim, u64), cols: (Dim, u64)| self.remaining(rows, cols).iter().product::<u64>();
        let pairs = self.pairs();
        let (rows, cols) =
            pairs.into_iter().min_by_key(|&(rows, cols)| busiest(rows, cols)).unwrap_or(((Dim::K, 1), (Dim::K, 1)));
        let mut temporal = [[1; 7]; MAX_LEVELS];
        temporal[0] = self.remaining(rows, cols);
        Factors { temporal, order: [0; MAX_LEVELS], rows, cols }
    }

    pub(super) fn pairs(&self) -> Vec<(Bound, Bound)> {
        let (rows, cols) = (self.axis(self.engine.rows), self.axis(self.engine.cols));
        let mut pairs: Vec<_> = rows.iter().flat_map(|&row| cols.iter().map(move |&col| (row, col))).collect();
        pairs.retain(|&((a, _), (b, _))| a != b || self.sizes[a as usize] == 1);
        if pairs.is_empty() {
            // One loop alone is worth spreading: it takes the rows, or what is left of it the columns.
            pairs.extend(rows.iter().map(|&row| (row, (Dim::K, 1))));
            pairs.extend(cols.iter().map(|&col| ((Dim::K, 1), col)));
        }
        pairs
    }
}
