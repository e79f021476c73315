//! Adaptive polyphase sampling: the one of four subsampled grids that is largest, so that a shift does not matter.

use super::blur::{BlurConfig, BlurPadding, BlurPool2d};
use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Kind, Tensor, nn, no_grad};

/// How one of the four grids is chosen (Chaman and Dokmanić, *Truly shift-invariant convolutional neural networks*, arXiv
/// 2011.14214).
///
/// Exact invariance to circular shifts needs circular padding in every convolution and pool, even sides at every level,
/// the same choice on the shortcut of a residual block, and global average pooling before the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApsConfig {
    /// The norm that is compared. Default 2.
    pub norm: ApsNorm,
    /// A binomial blur of this side, circularly padded, before the chosen grid is taken; the choice itself is made on the
    /// map before blurring, as the published CIFAR networks do. Default 1, no blur.
    pub blur: usize,
    /// What happens to odd sides. Default refuse.
    pub odd: OddSides,
}

/// A norm over all channels and positions of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApsNorm {
    /// Sum of magnitudes.
    One,
    /// Root of the sum of squares.
    Two,
    /// Largest magnitude.
    Infinity,
}

/// What happens to odd sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OddSides {
    /// An error: invariance would be lost.
    Refuse,
    /// One circular row or column is added at the end, as published. Not exact.
    PadCircularly,
}

impl Default for ApsConfig {
    fn default() -> Self {
        Self { norm: ApsNorm::Two, blur: 1, odd: OddSides::Refuse }
    }
}

/// Which grid was chosen, a number from 0 to 3 a sample; shared with the pools that must follow.
pub(super) type Choice = Arc<Mutex<Option<Tensor>>>;

/// Polyphase sampling with stride 2.
#[derive(Debug)]
pub struct ApsPool2d {
    config: ApsConfig,
    smooth: Option<BlurPool2d>,
    choice: Choice,
    follows: bool,
}

impl ApsPool2d {
    /// A pool that chooses for itself.
    ///
    /// # Errors
    /// A blur outside 1 to 7.
    pub fn new(channels: i64, config: ApsConfig) -> Result<Self> {
        let blur = BlurConfig { kernel: config.blur, padding: BlurPadding::Circular, stride: 1 };
        let smooth = BlurPool2d::new(channels, blur)?;
        let smooth = (config.blur > 1).then_some(smooth);
        Ok(Self { config, smooth, choice: Choice::default(), follows: false })
    }

    /// A pool for another map of the same size (the shortcut of a residual block) that takes the grid which `self` chose
    /// last.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn follower(&self, channels: i64) -> Result<Self> {
        let follower = Self::new(channels, self.config)?;
        Ok(Self { choice: self.choice.clone(), follows: true, ..follower })
    }

    /// The chosen quarter of `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// A map that is not four-dimensional, odd sides unless they may be padded, and a follower that has nothing to follow
    /// or another batch size.
    pub fn pool(&self, input: &Tensor) -> Result<Tensor> {
        let input = even(input, self.config.odd)?;
        let batch = input.size()[0];
        let mut shared = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        let chosen = if self.follows {
            let chosen = shared.as_ref().filter(|chosen| chosen.size() == [batch]);
            let found = || "none for this batch".to_owned();
            chosen.ok_or_else(|| Error::shape("choice to follow", format!("[{batch}]"), found()))?.shallow_clone()
        } else {
            let chosen = first_largest(&component_norms(&input, self.config.norm)?)?;
            *shared = Some(chosen.shallow_clone());
            chosen
        };
        drop(shared);
        let map = match &self.smooth {
            Some(smooth) => smooth.pool(&input)?,
            None => input,
        };
        let stacked = Tensor::f_stack(&components(&map)?, 1)?;
        let rows = Tensor::f_arange(batch, (Kind::Int64, map.device()))?;
        Ok(stacked.f_index(&[Some(rows), Some(chosen)])?)
    }

    /// Per sample, how far the largest norm is ahead of the second, relative to the largest: where it is below the rounding
    /// of a sum (about 1e-6), a shift may change the choice.
    ///
    /// # Errors
    /// As [`pool`](Self::pool).
    pub fn relative_margin(&self, input: &Tensor) -> Result<Tensor> {
        let norms = component_norms(&even(input, self.config.odd)?, self.config.norm)?;
        let (best, _) = norms.f_topk(2, 1, true, true)?;
        let (first, second) = (best.f_select(1, 0)?, best.f_select(1, 1)?);
        Ok((&first - second) / first.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)
    }
}

impl nn::Module for ApsPool2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        self.pool(input).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn even(input: &Tensor, odd: OddSides) -> Result<Tensor> {
    let size = input.size();
    let &[_, _, height, width] = size.as_slice() else {
        let found = format!("{size:?}");
        return Err(Error::shape("input of polyphase sampling", "[batch, channels, height, width]", found));
    };
    if height % 2 == 0 && width % 2 == 0 {
        return Ok(input.shallow_clone());
    }
    match odd {
        OddSides::Refuse => Err(Error::OddSide { found: [height, width] }),
        OddSides::PadCircularly => Ok(input.f_pad([0, width % 2, 0, height % 2], "circular", None)?),
    }
}

/// The four grids in the published order: rows and columns from (0, 0), (1, 0), (0, 1), (1, 1).
fn components(map: &Tensor) -> Result<Vec<Tensor>> {
    let take = |(row, column): (i64, i64)| Ok(map.f_slice(2, row, None, 2)?.f_slice(3, column, None, 2)?);
    [(0, 0), (1, 0), (0, 1), (1, 1)].into_iter().map(take).collect()
}

/// `[batch, 4]`.
fn component_norms(map: &Tensor, norm: ApsNorm) -> Result<Tensor> {
    let axes = [1_i64, 2, 3].as_slice();
    no_grad(|| {
        // Squares of half-precision numbers above 255 are infinite, and infinities are all equal.
        let map = if map.kind() == Kind::Double { map.shallow_clone() } else { map.f_to_kind(Kind::Float)? };
        let norms = components(&map)?.into_iter().map(|component| {
            Ok(match norm {
                ApsNorm::One => component.f_abs()?.f_sum_dim_intlist(axes, false, map.kind())?,
                ApsNorm::Two => component.f_square()?.f_sum_dim_intlist(axes, false, map.kind())?.f_sqrt()?,
                ApsNorm::Infinity => component.f_abs()?.f_amax(axes, false)?,
            })
        });
        Ok(Tensor::f_stack(&norms.collect::<Result<Vec<_>>>()?, 1)?)
    })
}

/// The first of equal maxima, which `argmax` does not promise: as many places as come before the first maximum. A NaN is one,
/// so that a broken map stays broken.
fn first_largest(norms: &Tensor) -> Result<Tensor> {
    let largest = norms.f_amax([1_i64], true)?;
    let reached = norms.f_ge_tensor(&largest)?.f_logical_or(&norms.f_isnan()?)?.f_cumsum(1, Kind::Int64)?;
    Ok(reached.f_eq(0)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Device;

    fn aps() -> ApsPool2d {
        ApsPool2d::new(1, ApsConfig::default()).unwrap()
    }

    fn example() -> Tensor {
        let rows = [1_f32, 0., 2., 0., 0., 3., 0., 0., 0., 0., 1., 0., 0., 1., 0., 2.];
        Tensor::from_slice(&rows).view([1, 1, 4, 4])
    }

    fn picked(map: &Tensor) -> Vec<f32> {
        Vec::try_from(aps().pool(map).unwrap().contiguous().view([-1])).unwrap()
    }

    #[test]
    fn the_largest_grid_is_picked_whatever_the_roll() {
        // By hand; norms √6, 0, 0, √14.
        let norms = component_norms(&example(), ApsNorm::Two).unwrap();
        let expected = Tensor::from_slice(&[6_f32.sqrt(), 0.0, 0.0, 14_f32.sqrt()]).view([1, 4]);
        assert!((norms - expected).abs().max().double_value(&[]) < 1e-6);
        assert_eq!(picked(&example()), [3., 0., 1., 2.]);
        let rolled = |shift: [i64; 2]| picked(&example().roll(shift, [2, 3]));
        assert_eq!(rolled([1, 0]), [1., 2., 3., 0.]);
        assert_eq!(rolled([0, 1]), [0., 3., 2., 1.]);
        assert_eq!(rolled([1, 1]), [2., 1., 0., 3.]);
        assert_eq!(rolled([2, 0]), [1., 2., 3., 0.]);
    }

    #[test]
    fn ties_go_to_the_first() {
        let constant = Tensor::ones([1, 1, 4, 4], (Kind::Float, Device::Cpu));
        let norms = component_norms(&constant, ApsNorm::Two).unwrap();
        assert_eq!(Vec::<i64>::try_from(first_largest(&norms).unwrap()).unwrap(), [0]);
        assert_eq!(Vec::<f32>::try_from(aps().relative_margin(&constant).unwrap()).unwrap(), [0.0]);
        let broken = Tensor::from_slice(&[1.0, f32::NAN, 5., f32::NAN]).view([1, 4]);
        assert_eq!(Vec::<i64>::try_from(first_largest(&broken).unwrap()).unwrap(), [1]);
        let map = example();
        let _ = map.get(0).get(0).get(1).get(2).fill_(f64::NAN);
        assert!(picked(&map).iter().any(|value| value.is_nan()));
        let two = Tensor::from_slice(&[1_f32, 5., 5., 2.]).view([1, 4]);
        assert_eq!(Vec::<i64>::try_from(first_largest(&two).unwrap()).unwrap(), [1]);
    }

    #[test]
    fn large_numbers_of_half_precision_are_told_apart() {
        // Twice the squares of 300 and of 400 are above the largest number of half precision.
        let map = Tensor::zeros([1, 1, 4, 4], (Kind::Float, Device::Cpu));
        let grid = |row: i64, column: i64| map.slice(2, row, None, 2).slice(3, column, None, 2);
        let _ = (grid(0, 0).fill_(300.0), grid(1, 1).fill_(400.0));
        let picked = aps().pool(&map.to_kind(Kind::Half)).unwrap();
        assert_eq!((picked.kind(), picked.to_kind(Kind::Float)), (Kind::Half, grid(1, 1)));
    }

    #[test]
    fn doubles_are_told_apart_where_single_precision_has_no_room() {
        let map = Tensor::zeros([1, 1, 4, 4], (Kind::Double, Device::Cpu));
        let grid = |row: i64, column: i64| map.slice(2, row, None, 2).slice(3, column, None, 2);
        let _ = (grid(0, 0).fill_(1e20), grid(1, 1).fill_(3e20));
        assert_eq!(aps().pool(&map).unwrap(), grid(1, 1));
        // (3 − 1) / 3.
        let margin = aps().relative_margin(&map).unwrap().double_value(&[0]);
        assert!((margin - 2.0 / 3.0).abs() < 1e-12, "{margin}");
    }

    #[test]
    fn a_follower_takes_the_grid_that_was_chosen() {
        let (leader, other) = (aps(), Tensor::arange(32, (Kind::Float, Device::Cpu)).view([1, 2, 4, 4]));
        let follower = leader.follower(2).unwrap();
        assert!(follower.pool(&other).unwrap_err().to_string().contains("choice to follow"));
        let _ = leader.pool(&example()).unwrap();
        assert_eq!(follower.pool(&other).unwrap(), other.slice(2, 1, None, 2).slice(3, 1, None, 2));
    }

    #[test]
    fn odd_sides_are_refused_unless_padded() {
        let odd = Tensor::rand([1, 1, 5, 4], (Kind::Float, Device::Cpu));
        assert!(matches!(aps().pool(&odd), Err(Error::OddSide { found: [5, 4] })));
        let padded = ApsPool2d::new(1, ApsConfig { odd: OddSides::PadCircularly, ..ApsConfig::default() }).unwrap();
        assert_eq!(padded.pool(&odd).unwrap().size(), [1, 1, 3, 2]);
        assert!(aps().pool(&odd.get(0)).is_err());
    }

    #[test]
    fn gradients_reach_the_chosen_grid_alone() {
        let map = example().set_requires_grad(true);
        aps().pool(&map).unwrap().sum(Kind::Float).backward();
        let expected = Tensor::zeros([1, 1, 4, 4], (Kind::Float, Device::Cpu));
        let _ = expected.slice(2, 1, None, 2).slice(3, 1, None, 2).fill_(1.0);
        assert_eq!(map.grad(), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sums_do_not_change_under_rolls_and_batches_are_samples(
            values in prop::collection::vec(-9_i8..9, 2 * 2 * 6 * 8), rows in 0_i64..6, columns in 0_i64..8, norm in 0..3,
            blur in 1_usize..5,
        ) {
            let norm = [ApsNorm::One, ApsNorm::Two, ApsNorm::Infinity][norm as usize];
            let config = ApsConfig { norm, blur, ..ApsConfig::default() };
            let pool = ApsPool2d::new(2, config).unwrap();
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let map = Tensor::from_slice(&values).view([2, 2, 6, 8]);
            let both = pool.pool(&map).unwrap();
            for sample in 0..2 {
                prop_assert_eq!(pool.pool(&map.narrow(0, sample, 1)).unwrap(), both.narrow(0, sample, 1));
            }
            let margin = pool.relative_margin(&map).unwrap().min().double_value(&[]);
            // Small integers: norms are equal or differ by more than 1e-5 of themselves.
            if margin > 1e-5 {
                let total = |map: &Tensor| pool.pool(map).unwrap().sum_dim_intlist([2_i64, 3].as_slice(), false, Kind::Float);
                let gap = (total(&map) - total(&map.roll([rows, columns], [2, 3]))).abs().max().double_value(&[]);
                // Twelve numbers below 10 summed in another order.
                prop_assert!(gap < 1e-4, "{}", gap);
            }
        }
    }
}
