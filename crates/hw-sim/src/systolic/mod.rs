//! Systolic arrays: the closed forms of cycles, utilisation and SRAM accesses.
//!
//! A layer is a matrix product `[M, K] × [K, N]` (M output pixels, N filters, K window elements). A dataflow lays
//! two of the three sizes over rows and columns and streams the third:
//!
//! | dataflow | rows carry | columns carry | streamed T | cycles a fold |
//! |---|---|---|---|---|
//! | output stationary | M | N | K | `K + R + C − 2` |
//! | weight stationary | K | N | M | `2R + C + M − 2` |
//! | input stationary | K | M | N | `2R + C + N − 2` |
//!
//! The larger matrix is cut into `⌈rows/R⌉·⌈columns/C⌉` folds that all take the same time, edge folds included
//! (Samajdar et al., arXiv 1811.02883; the output-stationary form is that of releases 2 and 3 of their simulator,
//! where the results leave while the next operands enter).

mod emulation;
mod sparsity;

pub use emulation::{Emulation, Operands, ReadStream, WriteStream, emulate};
pub use sparsity::{NmRatio, SparseFormat, SparseStorage};

use serde::{Deserialize, Serialize};

use crate::error::{HwError, narrow};

/// Which operand stays in the array while the others stream through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dataflow {
    /// Each processing element accumulates one output.
    #[serde(rename = "os", alias = "output_stationary")]
    OutputStationary,
    /// Each processing element holds one weight.
    #[serde(rename = "ws", alias = "weight_stationary")]
    WeightStationary,
    /// Each processing element holds one input.
    #[serde(rename = "is", alias = "input_stationary")]
    InputStationary,
}

impl Dataflow {
    /// All three, in the order that reports list them.
    pub const ALL: [Self; 3] = [Self::OutputStationary, Self::WeightStationary, Self::InputStationary];

    /// `os`, `ws` or `is`.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::OutputStationary => "os",
            Self::WeightStationary => "ws",
            Self::InputStationary => "is",
        }
    }
}

/// How an output-stationary array hands out its results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OsDrain {
    /// Results leave while the next fold's operands enter: `K + R + C − 2` cycles (SCALE-Sim 2 and 3).
    #[default]
    Overlapped,
    /// Results are shifted out afterwards: `2R + C + K − 2` cycles (the 2018 paper, for every dataflow).
    Paper,
}

/// A matrix product `[m, k] × [k, n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemm {
    /// Rows of the input: output pixels.
    pub m: u64,
    /// Columns of the weight: filters.
    pub n: u64,
    /// The contracted size: window elements.
    pub k: u64,
}

/// A grid of multiply-accumulate units with one dataflow.
///
/// ```
/// use hw_sim::systolic::{Dataflow, Gemm, SystolicArray};
///
/// let array = SystolicArray::new(16, 16, Dataflow::OutputStationary);
/// let cost = array.cost("fc", Gemm { m: 100, n: 50, k: 70 })?;
/// assert_eq!(cost.cycles, 7 * 4 * (70 + 16 + 16 - 2)); // folds × (K + R + C − 2)
/// # Ok::<(), hw_sim::HwError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystolicArray {
    /// Rows of processing elements, 1 to 65 536.
    pub rows: u64,
    /// Columns of processing elements, 1 to 65 536.
    pub cols: u64,
    /// What stays and what streams.
    pub dataflow: Dataflow,
    /// When output-stationary results leave.
    #[serde(default)]
    pub drain: OsDrain,
}

/// What one matrix product costs on a [`SystolicArray`], in cycles and words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SystolicCost {
    /// Folds along the rows and along the columns.
    pub folds: [u64; 2],
    /// Cycles of every fold, fill and drain included.
    pub cycles_per_fold: u64,
    /// `folds · cycles_per_fold`.
    pub cycles: u64,
    /// Multiply-accumulates done.
    pub macs: u64,
    /// Share of processing elements that get work, averaged over folds, in `[0, 1]`.
    pub mapping_efficiency: f64,
    /// MACs over `cycles · R · C`, in `[0, 1]`.
    pub utilisation: f64,
    /// Input words read from SRAM.
    pub input_reads: u64,
    /// Weight words read from SRAM.
    pub weight_reads: u64,
    /// Output words, partial sums included, written to SRAM.
    pub output_writes: u64,
    /// Partial sums read back from SRAM: every write of an output but its first needs one.
    pub partial_sum_reads: u64,
}

/// Largest array side that is accepted.
pub const MAX_SIDE: u64 = 1 << 16;

impl SystolicArray {
    /// An array with the default drain.
    pub fn new(rows: u64, cols: u64, dataflow: Dataflow) -> Self {
        Self { rows, cols, dataflow, drain: OsDrain::default() }
    }

    /// Checks the sides.
    ///
    /// # Errors
    /// The side outside 1 to 65 536.
    pub fn validate(&self) -> Result<(), HwError> {
        for (field, side) in [("rows", self.rows), ("cols", self.cols)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(HwError::field("systolic array", field, format!("1 to {MAX_SIDE}"), side));
            }
        }
        Ok(())
    }

    /// Sizes laid over rows and columns, and the streamed size.
    pub fn layout(&self, gemm: Gemm) -> [u64; 3] {
        match self.dataflow {
            Dataflow::OutputStationary => [gemm.m, gemm.n, gemm.k],
            Dataflow::WeightStationary => [gemm.k, gemm.n, gemm.m],
            Dataflow::InputStationary => [gemm.k, gemm.m, gemm.n],
        }
    }

    /// Input and weight words that must be there before the first cycle: what stays, and a word for each row that is fed;
    /// where outputs stay, a word for each row and column. Of sides that [`validate`](Self::validate) refuses, at most
    /// `u64::MAX`.
    pub fn first_words(&self) -> [u64; 2] {
        let all = self.rows.saturating_mul(self.cols);
        match self.dataflow {
            Dataflow::OutputStationary => [self.rows, self.cols],
            Dataflow::WeightStationary => [self.rows, all],
            Dataflow::InputStationary => [all, self.rows],
        }
    }

    /// Cycles, utilisation and SRAM accesses of one matrix product.
    ///
    /// # Errors
    /// A zero size, a bad array, or a count past 64 bits; `layer` is named in it.
    pub fn cost(&self, layer: &str, gemm: Gemm) -> Result<SystolicCost, HwError> {
        self.validate()?;
        for (field, size) in [("M", gemm.m), ("N", gemm.n), ("K", gemm.k)] {
            if size == 0 {
                return Err(HwError::field(format!("layer `{layer}`"), field, "at least 1", size));
            }
        }
        let [down, across, streamed] = self.layout(gemm);
        let folds = [down.div_ceil(self.rows), across.div_ceil(self.cols)];
        let fill = match (self.dataflow, self.drain) {
            (Dataflow::OutputStationary, OsDrain::Overlapped) => self.rows + self.cols - 2,
            _ => 2 * self.rows + self.cols - 2,
        };
        let cycles_per_fold = narrow(u128::from(streamed) + u128::from(fill), layer, "cycles")?;
        let fold_count = u128::from(folds[0]) * u128::from(folds[1]);
        let wide = |a: u64, b: u64, c: u64, quantity| {
            let pair = u128::from(a) * u128::from(b);
            pair.checked_mul(u128::from(c))
                .ok_or_else(|| HwError::Overflow { layer: layer.to_owned(), quantity })
                .and_then(|value| narrow(value, layer, quantity))
        };
        let fold_count = narrow(fold_count, layer, "folds")?;
        let cycles = wide(fold_count, cycles_per_fold, 1, "cycles")?;
        let macs = wide(gemm.m, gemm.n, gemm.k, "MACs")?;
        let [input_repeat, weight_repeat, output_repeat] = match self.dataflow {
            Dataflow::OutputStationary => [folds[1], folds[0], 1],
            Dataflow::WeightStationary => [folds[1], 1, folds[0]],
            Dataflow::InputStationary => [1, folds[1], folds[0]],
        };
        let output_writes = wide(gemm.m, gemm.n, output_repeat, "SRAM writes")?;
        let elements = self.rows as f64 * self.cols as f64;
        Ok(SystolicCost {
            folds,
            cycles_per_fold,
            cycles,
            macs,
            mapping_efficiency: down as f64 * across as f64 / (fold_count as f64 * elements),
            utilisation: macs as f64 / (cycles as f64 * elements),
            input_reads: wide(gemm.m, gemm.k, input_repeat, "SRAM reads")?,
            weight_reads: wide(gemm.n, gemm.k, weight_repeat, "SRAM reads")?,
            output_writes,
            partial_sum_reads: output_writes - gemm.m * gemm.n,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GEMM: Gemm = Gemm { m: 100, n: 50, k: 70 };

    fn cost(rows: u64, cols: u64, dataflow: Dataflow, gemm: Gemm) -> SystolicCost {
        SystolicArray::new(rows, cols, dataflow).cost("layer", gemm).unwrap()
    }

    #[test]
    fn a_16_by_16_array_costs_what_the_hand_calculation_says() {
        // M = 100, N = 50, K = 70: os 7·4 folds × (70+30), ws 5·4 × (100+46), is 5·7 × (50+46).
        let os = cost(16, 16, Dataflow::OutputStationary, GEMM);
        assert_eq!((os.cycles, os.input_reads, os.weight_reads, os.output_writes), (2800, 28_000, 24_500, 5000));
        let ws = cost(16, 16, Dataflow::WeightStationary, GEMM);
        assert_eq!((ws.cycles, ws.input_reads, ws.weight_reads, ws.output_writes), (2920, 28_000, 3500, 25_000));
        let is = cost(16, 16, Dataflow::InputStationary, GEMM);
        assert_eq!((is.cycles, is.input_reads, is.weight_reads, is.output_writes), (3360, 7000, 24_500, 25_000));
        // rows · columns used over folds · 256: 5000/7168, 3500/5120, 7000/8960.
        for (found, exact) in [(os, 5000.0 / 7168.0), (ws, 3500.0 / 5120.0), (is, 7000.0 / 8960.0)] {
            assert!((found.mapping_efficiency - exact).abs() < 1e-15);
        }
        assert_eq!(ws.partial_sum_reads, 5000 * 4); // each of 5000 outputs is accumulated in 5 passes
    }

    #[test]
    fn one_mac_takes_one_pass_through_the_array() {
        let unit = Gemm { m: 1, n: 1, k: 1 };
        assert_eq!(cost(8, 5, Dataflow::OutputStationary, unit).cycles, 8 + 5 - 1);
        assert_eq!(cost(8, 5, Dataflow::WeightStationary, unit).cycles, 2 * 8 + 5 - 1);
        assert_eq!(cost(8, 5, Dataflow::InputStationary, unit).cycles, 2 * 8 + 5 - 1);
    }

    #[test]
    fn a_single_output_stationary_element_is_always_busy() {
        let os = cost(1, 1, Dataflow::OutputStationary, GEMM);
        assert_eq!(os.cycles, 100 * 50 * 70);
        assert!((os.utilisation - 1.0).abs() < 1e-15);
        // One MAC: os a cycle; ws and is load the element first, 2·1 + 1 + 1 − 2 = 2 cycles.
        let shares = Dataflow::ALL.map(|dataflow| cost(1, 1, dataflow, Gemm { m: 1, n: 1, k: 1 }).utilisation);
        assert_eq!(shares, [1.0, 0.5, 0.5]);
    }

    #[test]
    fn the_papers_drain_adds_one_array_height_to_output_stationary_folds() {
        let array = SystolicArray { drain: OsDrain::Paper, ..SystolicArray::new(16, 8, Dataflow::OutputStationary) };
        assert_eq!(array.cost("layer", GEMM).unwrap().cycles_per_fold, 2 * 16 + 8 + 70 - 2);
    }

    #[test]
    fn empty_sizes_and_arrays_are_refused_by_name() {
        let array = SystolicArray::new(8, 8, Dataflow::OutputStationary);
        let message = array.cost("fc", Gemm { m: 0, n: 1, k: 1 }).unwrap_err().to_string();
        assert!(message.contains("fc") && message.contains('M'), "{message}");
        assert!(SystolicArray::new(0, 8, Dataflow::OutputStationary).cost("fc", GEMM).is_err());
        let huge = Gemm { m: u64::MAX, n: u64::MAX, k: u64::MAX };
        assert!(matches!(array.cost("fc", huge), Err(HwError::Overflow { .. })));
        let wide = SystolicArray::new(2, u64::MAX, Dataflow::WeightStationary);
        assert_eq!(wide.first_words(), [2, u64::MAX]);
    }

    proptest! {
        #[test]
        fn cycles_and_traffic_respect_their_floors(rows in 1_u64..70, cols in 1_u64..70, m in 1_u64..400, n in 1_u64..400, k in 1_u64..400) {
            for dataflow in Dataflow::ALL {
                let found = cost(rows, cols, dataflow, Gemm { m, n, k });
                prop_assert!(found.cycles >= (m * n * k).div_ceil(rows * cols));
                prop_assert!(found.utilisation <= 1.0 && found.mapping_efficiency <= 1.0);
                prop_assert!(found.input_reads >= m * k && found.weight_reads >= n * k && found.output_writes >= m * n);
            }
        }

        #[test]
        fn transposing_the_product_and_the_array_changes_nothing(rows in 1_u64..40, cols in 1_u64..40, m in 1_u64..200, n in 1_u64..200, k in 1_u64..200) {
            let plain = cost(rows, cols, Dataflow::OutputStationary, Gemm { m, n, k });
            let turned = cost(cols, rows, Dataflow::OutputStationary, Gemm { m: n, n: m, k });
            prop_assert_eq!(plain.cycles, turned.cycles);
            let is = cost(rows, cols, Dataflow::InputStationary, Gemm { m, n, k });
            let ws = cost(rows, cols, Dataflow::WeightStationary, Gemm { m: n, n: m, k });
            prop_assert_eq!(is.cycles, ws.cycles);
        }

        #[test]
        fn any_sizes_give_a_cost_or_an_error(sizes in proptest::array::uniform5(any::<u64>())) {
            let [rows, cols, m, n, k] = sizes;
            for dataflow in Dataflow::ALL {
                let _ = SystolicArray::new(rows % 100_000, cols, dataflow).cost("x", Gemm { m, n, k });
                let _ = SystolicArray::new(rows % 65_536, cols % 65_536, dataflow).cost("x", Gemm { m: m % 9999, n, k: k % 77 });
            }
        }
    }
}
