//! What SmartDeal is measured against, at an equal number of bits: pruning with shared or uniform values, powers of two
//! without a basis; and pruning, quantisation and low rank, each alone.
//!
//! Every method gets a budget and spends as much of it as it can: the pruning methods keep as many of the largest
//! weights as fit, low rank takes the highest rank that fits, quantisation alone the widest codes. Nothing is
//! re-trained.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::layer::check_weights;
use super::storage::{nonzero_code_bits, rlc_stored};
use super::{Ladder, LayerShape};
use crate::{Error, Result};

/// A way to spend a bit budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// Magnitude pruning, then 2^`bits` shared values found by k-means (Deep Compression, without its entropy coder).
    PruneKMeans {
        /// 1 to 8.
        bits: u8,
    },
    /// Magnitude pruning, then symmetric uniform quantisation.
    PruneUniform {
        /// 2 to 8.
        bits: u8,
    },
    /// Magnitude pruning, then rounding to signed powers of two, no basis: the window ends at the largest weight.
    PrunePowersOfTwo {
        /// Code width with its sign, 2 to 6.
        bits: u8,
    },
    /// Magnitude pruning alone: what is kept has 32 bits.
    Prune,
    /// Symmetric uniform quantisation alone: every weight in codes of 2 to 16 bits, as wide as the budget pays for, and
    /// no index.
    Uniform,
    /// Truncated singular value decomposition of `[out, rest]`, its two factors in 8-bit fixed point.
    LowRank,
}

/// A layer's weights after a [`Baseline`], and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Approximation {
    /// Row-major, the layer's dimensions.
    pub weights: Vec<f32>,
    /// Values, index and tables.
    pub bits: u64,
}

impl Approximation {
    /// `‖W − W'‖_F / ‖W‖_F`; 0 for an all-zero layer.
    pub fn relative_error(&self, weights: &[f32]) -> f64 {
        let square = |v: f32| f64::from(v) * f64::from(v);
        let rest: f64 = weights.iter().zip(&self.weights).map(|(w, a)| square(w - a)).sum();
        let whole: f64 = weights.iter().copied().map(square).sum();
        if whole == 0.0 { 0.0 } else { (rest / whole).sqrt() }
    }
}

impl Baseline {
    /// Approximates a layer with at most `budget` bits.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotFinite`] for weights that do not fit the shape or are not finite;
    /// [`Error::Config`] for a code width outside its range, and for a budget that the method's table alone exceeds: 32
    /// bits a shared value, or 32 for the one scale. Low rank then gives zeros, which cost nothing, and so does
    /// quantisation alone below 2 bits a weight. [`Error::Torch`] for a decomposition that fails.
    pub fn approximate(self, weights: &[f32], shape: &LayerShape, budget: u64) -> Result<Approximation> {
        check_weights(weights, shape)?;
        let bits = match self {
            Self::LowRank => return low_rank(weights, shape, budget),
            Self::Uniform => return Ok(quantise(weights, budget)),
            Self::Prune => 32,
            Self::PruneKMeans { bits } => self.check_bits(bits, 1..=8, "1 to 8")?,
            Self::PruneUniform { bits } => self.check_bits(bits, 2..=8, "2 to 8")?,
            Self::PrunePowersOfTwo { bits } => self.check_bits(bits, 2..=6, "2 to 6")?,
        };
        // Tables: the shared values, or one scale.
        let table = match self {
            Self::PruneKMeans { .. } => 32u64 << bits,
            Self::Prune => 0,
            _ => SCALE_BITS,
        };
        let Some(rest) = budget.checked_sub(table) else {
            return Err(Error::Config {
                name: "budget",
                expected: "at least the bits of the method's table",
                found: format!("{budget} of {table} for {self:?}"),
            });
        };
        let (kept, cost) = keep_largest(weights, u64::from(bits), rest);
        let mut approximated = kept;
        match self {
            Self::PruneKMeans { .. } => share_values(&mut approximated, 1 << bits),
            Self::PruneUniform { .. } => round_uniformly(&mut approximated, bits),
            Self::Prune => {}
            _ => round_to_powers(&mut approximated, bits),
        }
        Ok(Approximation { weights: approximated, bits: cost + table })
    }

    fn check_bits(self, bits: u8, range: std::ops::RangeInclusive<u8>, expected: &'static str) -> Result<u8> {
        if range.contains(&bits) {
            return Ok(bits);
        }
        Err(Error::Config { name: "baseline bits", expected, found: format!("{self:?}") })
    }
}

/// The weights with as many of the largest kept as the budget pays for, and the bits of that: the cheaper of a bitmap
/// and four-bit run lengths.
fn keep_largest(weights: &[f32], bits: u64, budget: u64) -> (Vec<f32>, u64) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].abs().total_cmp(&weights[*a].abs()).then(a.cmp(b)));
    let keep = |count: usize| {
        let mut kept = vec![0f32; weights.len()];
        order[..count].iter().for_each(|i| kept[*i] = weights[*i]);
        kept
    };
    let cost = |kept: &[f32]| {
        let marks: Vec<i8> = kept.iter().map(|w| i8::from(*w != 0.0)).collect();
        let non_zeros = marks.iter().filter(|m| **m != 0).count() as u64;
        let bitmap = marks.len() as u64 + non_zeros * bits;
        bitmap.min(rlc_stored(&marks, 4) * (bits + 4))
    };
    // The most that fits: cost grows with what is kept, but for run lengths that need fewer breakers.
    let (mut low, mut high) = (0, weights.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        if cost(&keep(middle)) <= budget { low = middle } else { high = middle - 1 }
    }
    let kept = keep(low);
    let cost = cost(&kept);
    (kept, cost)
}

/// One-dimensional k-means over the non-zeros, centres first spread evenly over their range (Deep Compression's best).
fn share_values(weights: &mut [f32], clusters: usize) {
    let mut sorted: Vec<f64> = weights.iter().filter(|w| **w != 0.0).map(|w| f64::from(*w)).collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else { return };
    let mut sums = vec![0.0];
    sums.extend(sorted.iter().scan(0.0, |sum, v| {
        *sum += v;
        Some(*sum)
    }));
    let step = (high - low) / (clusters.max(2) - 1) as f64;
    let mut centres: Vec<f64> = (0..clusters).map(|i| low + step * i as f64).collect();
    for _ in 0..100 {
        // Centres stay sorted, so that a cluster is a run of the sorted values.
        let mut from = 0;
        let next: Vec<f64> = (0..clusters)
            .map(|i| {
                let to = match centres.get(i + 1) {
                    Some(right) => sorted.partition_point(|v| *v < (centres[i] + right) / 2.0).max(from),
                    None => sorted.len(),
                };
                let centre = if to > from { (sums[to] - sums[from]) / (to - from) as f64 } else { centres[i] };
                from = to;
                centre
            })
            .collect();
        if next == centres {
            break;
        }
        centres = next;
    }
    for weight in weights.iter_mut().filter(|w| **w != 0.0) {
        let value = f64::from(*weight);
        let right = centres.partition_point(|c| *c < value).min(clusters - 1);
        let left = right.saturating_sub(1);
        let nearest = if value - centres[left] < centres[right] - value { left } else { right };
        *weight = centres[nearest] as f32;
    }
}

/// Bits of a scale that a layer's weights share.
const SCALE_BITS: u64 = 32;
/// Widest code of quantisation alone: more of them change nothing that shows.
const WIDEST: u64 = 16;

/// Every weight in the widest codes that fit, none in fewer than two bits.
fn quantise(weights: &[f32], budget: u64) -> Approximation {
    let count = weights.len() as u64;
    let bits = budget.saturating_sub(SCALE_BITS).checked_div(count).unwrap_or(0).min(WIDEST);
    if bits < 2 {
        return Approximation { weights: vec![0.0; weights.len()], bits: 0 };
    }
    let mut rounded = weights.to_vec();
    round_uniformly(&mut rounded, bits as u8);
    Approximation { weights: rounded, bits: count * bits + SCALE_BITS }
}

fn round_uniformly(weights: &mut [f32], bits: u8) {
    let largest = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
    let top = ((1u32 << (bits - 1)) - 1) as f32;
    if largest > 0.0 {
        weights.iter_mut().for_each(|w| *w = (*w / largest * top).round() / top * largest);
    }
}

fn round_to_powers(weights: &mut [f32], bits: u8) {
    let largest = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
    let top = Ladder::new(-63, 63).project(f64::from(largest));
    // Nothing reaches up to the lowest rung there is.
    if top == 0.0 {
        weights.fill(0.0);
        return;
    }
    let p_max = top.log2() as i32;
    let rungs = 1i32 << (bits - 1);
    debug_assert!(nonzero_code_bits(rungs as usize) == u32::from(bits));
    let ladder = Ladder::new((p_max - rungs + 1).max(-63), p_max);
    weights.iter_mut().for_each(|w| *w = ladder.project(f64::from(*w)) as f32);
}

/// Bits of a stored factor entry.
const FACTOR_BITS: u64 = 8;

fn low_rank(weights: &[f32], shape: &LayerShape, budget: u64) -> Result<Approximation> {
    let (m, n) = (shape.filters(), shape.filter_len());
    // Two scales.
    let rank = budget.saturating_sub(64) / (FACTOR_BITS * (m + n).max(1) as u64);
    let rank = (rank as usize).min(m).min(n);
    if rank == 0 {
        return Ok(Approximation { weights: vec![0.0; weights.len()], bits: 0 });
    }
    let matrix = Tensor::f_from_slice(weights)?.f_view([m as i64, n as i64])?;
    let (u, s, v) = matrix.f_svd(true, true)?;
    let rank_i = rank as i64;
    // Each factor takes half of a singular value, so that both have the same scale.
    let root = s.f_narrow(0, 0, rank_i)?.f_sqrt()?;
    let left = f_round(&u.f_narrow(1, 0, rank_i)?.f_mul(&root)?)?;
    let right = f_round(&v.f_narrow(1, 0, rank_i)?.f_mul(&root)?)?;
    let rebuilt = left.f_matmul(&right.f_t_copy()?)?.f_flatten(0, 1)?;
    Ok(Approximation { weights: Vec::<f32>::try_from(rebuilt)?, bits: rank as u64 * (m + n) as u64 * FACTOR_BITS + 64 })
}

/// Symmetric 8-bit fixed point.
fn f_round(factor: &Tensor) -> Result<Tensor> {
    let scale = factor.f_abs()?.f_max()?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?.f_div_scalar(127.0)?;
    Ok(factor.f_div(&scale)?.f_round()?.f_mul(&scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{DecomposeConfig, IndexScheme, SdLayer, storage};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn random_weights(seed: u64, count: usize) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| ((0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0) * 0.06).collect()
    }

    const ALL: [Baseline; 6] = [
        Baseline::Prune,
        Baseline::Uniform,
        Baseline::PruneKMeans { bits: 4 },
        Baseline::PruneUniform { bits: 8 },
        Baseline::PrunePowersOfTwo { bits: 4 },
        Baseline::LowRank,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_baseline_overspends(seed in any::<u64>(), budget in 600u64..60_000) {
            let shape = LayerShape::Linear { out_features: 24, in_features: 60 };
            let weights = random_weights(seed, shape.weights());
            for baseline in ALL {
                let result = baseline.approximate(&weights, &shape, budget).unwrap();
                prop_assert!(result.bits <= budget, "{:?}: {} of {}", baseline, result.bits, budget);
                prop_assert!(result.relative_error(&weights) <= 1.0 + 1e-6);
            }
        }

        #[test]
        fn shared_values_are_few_and_each_weight_has_its_nearest(seed in any::<u64>(), bits in 1u32..6) {
            let weights = random_weights(seed, 300);
            let mut shared = weights.clone();
            share_values(&mut shared, 1 << bits);
            let mut values = shared.clone();
            values.sort_by(f32::total_cmp);
            values.dedup();
            prop_assert!(values.len() <= 1 << bits);
            for (w, s) in weights.iter().zip(&shared) {
                let nearest = values.iter().map(|v| (v - w).abs()).fold(f32::INFINITY, f32::min);
                prop_assert!((w - s).abs() <= nearest + 1e-6);
            }
        }
    }

    #[test]
    fn two_shared_values_of_two_clumps_are_their_means() {
        let mut weights = [0.9, 1.0, 1.1, -2.0, -2.2, 0.0];
        share_values(&mut weights, 2);
        let expected = [1.0, 1.0, 1.0, -2.1, -2.1, 0.0];
        assert!(weights.iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-6), "{weights:?}");
    }

    #[test]
    fn a_rank_one_layer_is_recovered_by_low_rank() {
        let shape = LayerShape::Linear { out_features: 6, in_features: 8 };
        let weights: Vec<f32> = (0..48).map(|i| (1 + i / 8) as f32 * (1 + i % 8) as f32).collect();
        // One rank: (6 + 8) · 8 + 64 bits. Rounding to 8 bits leaves at most one part in 127 a factor.
        let result = Baseline::LowRank.approximate(&weights, &shape, 14 * 8 + 64).unwrap();
        assert_eq!(result.bits, 176);
        assert!(result.relative_error(&weights) < 2.0 / 127.0);
        assert_eq!(Baseline::LowRank.approximate(&weights, &shape, 100).unwrap().bits, 0);
    }

    #[test]
    fn pruning_alone_keeps_values_as_they_are_and_quantising_alone_keeps_every_weight() {
        let shape = LayerShape::Linear { out_features: 1, in_features: 12 };
        let weights: Vec<f32> = (1..=12).map(|i| i as f32 / 12.0).collect();
        // Two survivors with their run lengths, 36 bits each: a bit less than with a bitmap. A third is a bit too many.
        let pruned = Baseline::Prune.approximate(&weights, &shape, 12 + 2 * 32 + 31).unwrap();
        assert_eq!((pruned.bits, &pruned.weights[10..]), (72, &weights[10..]));
        assert!(pruned.weights[..10].iter().all(|w| *w == 0.0));
        // Three bits a weight and a scale: thirds of the largest.
        for (budget, bits) in
            [(32 + 36, 32 + 36), (32 + 47, 32 + 36), (32 + 48, 32 + 48), (32 + 23, 0), (u64::MAX, 32 + 192)]
        {
            assert_eq!(Baseline::Uniform.approximate(&weights, &shape, budget).unwrap().bits, bits, "{budget}");
        }
        let thirds = Baseline::Uniform.approximate(&weights, &shape, 32 + 36).unwrap().weights;
        assert!(thirds.iter().zip(&weights).all(|(t, w)| (t * 3.0 - (w * 3.0).round()).abs() < 1e-6), "{thirds:?}");
        assert_eq!(thirds.iter().filter(|w| **w == 0.0).count(), 1);
        assert_eq!(Baseline::Uniform.approximate(&weights, &shape, 32 + 23).unwrap().weights, [0.0; 12]);
    }

    #[test]
    fn a_basis_beats_powers_of_two_alone_at_equal_bits() {
        // The claim the method rests on, on Gaussian 192 × 3 blocks with rows of correlation 0.8.
        let shape = LayerShape::Conv { out_channels: 8, in_channels: 64, kernel: [3, 3] };
        let mut weights = random_weights(5, shape.weights());
        for row in weights.chunks_mut(3) {
            let common: f32 = row.iter().sum::<f32>() / 3.0;
            row.iter_mut().for_each(|w| *w = 0.45 * *w + common * 1.5);
        }
        let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.03)).unwrap();
        let layer = layer.with_basis_bits(8).unwrap();
        let budget = storage(&layer, IndexScheme::Bitmap).unwrap().total_bits();
        let plain = Baseline::PrunePowersOfTwo { bits: 4 }.approximate(&weights, &shape, budget).unwrap();
        assert!(layer.relative_error(&weights).unwrap() < plain.relative_error(&weights));
    }

    #[test]
    fn a_budget_that_the_table_alone_exceeds_is_refused() {
        let shape = LayerShape::Linear { out_features: 8, in_features: 30 };
        let weights = random_weights(1, shape.weights());
        for (baseline, table) in [
            (Baseline::PruneKMeans { bits: 8 }, 8192),
            (Baseline::PruneKMeans { bits: 1 }, 64),
            (Baseline::PruneUniform { bits: 8 }, 32),
            (Baseline::PrunePowersOfTwo { bits: 4 }, 32),
        ] {
            let with = |budget| baseline.approximate(&weights, &shape, budget);
            assert!(matches!(with(table - 1), Err(Error::Config { name: "budget", .. })), "{baseline:?}");
            // The table fits, and no weight beside it.
            let least = with(table).unwrap();
            assert_eq!((least.bits, least.weights.iter().all(|w| *w == 0.0)), (table, true), "{baseline:?}");
        }
        let refused = Baseline::PruneKMeans { bits: 8 }.approximate(&weights, &shape, 1000).unwrap_err().to_string();
        let expected = "`budget`: expected at least the bits of the method's table, found 1000 of 8192";
        assert_eq!(refused, format!("{expected} for PruneKMeans {{ bits: 8 }}"));
    }

    #[test]
    fn weights_below_every_rung_become_zero() {
        let shape = LayerShape::Linear { out_features: 1, in_features: 9 };
        let result = Baseline::PrunePowersOfTwo { bits: 4 }.approximate(&[1e-20; 9], &shape, 1000).unwrap();
        assert_eq!(result.weights, [0.0; 9]);
    }

    #[test]
    fn widths_outside_the_range_are_refused() {
        let shape = LayerShape::Linear { out_features: 1, in_features: 3 };
        for baseline in [Baseline::PruneKMeans { bits: 9 }, Baseline::PruneUniform { bits: 1 }] {
            assert!(matches!(baseline.approximate(&[0.0; 3], &shape, 99), Err(Error::Config { .. })));
        }
        assert!(Baseline::LowRank.approximate(&[f32::NAN; 3], &shape, 99).is_err());
    }
}
