//! N:M structured sparsity of the filter matrix: of each M consecutive window elements the first N are kept.

use serde::{Deserialize, Serialize};

use crate::error::HwError;

/// Keep `n` of every `m` window elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NmRatio {
    /// Kept elements of a block, 1 to `m`.
    pub n: u64,
    /// Elements of a block.
    pub m: u64,
}

/// How a pruned filter is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SparseFormat {
    /// Compressed sparse rows: a value and a column index an element, a pointer a row.
    Csr,
    /// Compressed sparse columns: a value and a row index an element, a pointer a column.
    Csc,
    /// Values, each with its position in the block in `⌈log₂ m⌉` bits.
    EllpackBlock,
}

/// Words that a filter matrix takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SparseStorage {
    /// Dense words.
    pub dense: f64,
    /// Values and indices.
    pub compressed: f64,
    /// Indices alone.
    pub metadata: f64,
}

impl NmRatio {
    /// Checks `1 ≤ n ≤ m`.
    ///
    /// # Errors
    /// The ratio, when it keeps nothing or more than there is.
    pub fn validate(self, layer: &str) -> Result<(), HwError> {
        if self.n == 0 || self.n > self.m {
            let thing = format!("layer `{layer}`");
            return Err(HwError::field(thing, "sparsity", "n:m with 1 ≤ n ≤ m", format!("{}:{}", self.n, self.m)));
        }
        Ok(())
    }

    /// Window elements left of `k`: `⌊k/m⌋·n + min(k mod m, n)`. None where `m` is 0, which
    /// [`validate`](Self::validate) refuses.
    pub fn kept(self, k: u64) -> u64 {
        if self.m == 0 {
            return 0;
        }
        (k / self.m).saturating_mul(self.n).saturating_add((k % self.m).min(self.n))
    }

    /// The window element that the `index`-th kept one was.
    pub(crate) fn position(self, index: u64) -> u64 {
        (index / self.n) * self.m + index % self.n
    }

    /// Words of a `k × filters` matrix in a format, 32-bit words.
    pub fn storage(self, format: SparseFormat, k: u64, filters: u64) -> SparseStorage {
        let dense = k as f64 * filters as f64;
        let values = self.kept(k) as f64 * filters as f64;
        let metadata = match format {
            SparseFormat::Csr => values + k as f64 + 1.0,
            SparseFormat::Csc => values + filters as f64 + 1.0,
            SparseFormat::EllpackBlock => {
                values * f64::from(self.m.checked_next_power_of_two().map_or(64, u64::trailing_zeros)) / 32.0
            }
        };
        SparseStorage { dense, compressed: values + metadata, metadata }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_four_of_288_by_64_is_stored_as_counted_by_hand() {
        let ratio = NmRatio { n: 1, m: 4 };
        assert_eq!(ratio.kept(288), 72);
        // 72·64 = 4608 values: twice that, plus 289 row or 65 column pointers.
        assert_eq!(ratio.storage(SparseFormat::Csr, 288, 64).compressed, 9505.0);
        assert_eq!(ratio.storage(SparseFormat::Csc, 288, 64).compressed, 9281.0);
        assert_eq!(ratio.storage(SparseFormat::EllpackBlock, 288, 64).compressed, 4608.0 + 4608.0 * 2.0 / 32.0);
    }

    #[test]
    fn a_partial_last_block_keeps_its_first_elements() {
        let ratio = NmRatio { n: 2, m: 4 };
        assert_eq!([4, 5, 6, 7, 8].map(|k| ratio.kept(k)), [2, 3, 4, 4, 4]);
        assert_eq!([0, 1, 2, 3].map(|index| ratio.position(index)), [0, 1, 4, 5]);
    }

    #[test]
    fn impossible_ratios_are_refused() {
        assert!(NmRatio { n: 5, m: 4 }.validate("l").is_err());
        assert!(NmRatio { n: 0, m: 0 }.validate("l").is_err());
        // Asked all the same, they give a number.
        assert_eq!(NmRatio { n: 1, m: 0 }.kept(8), 0);
        assert_eq!(NmRatio { n: 1, m: 0 }.storage(SparseFormat::EllpackBlock, 8, 4).compressed, 0.0);
        assert_eq!(NmRatio { n: u64::MAX, m: 1 }.kept(8), u64::MAX);
    }
}
