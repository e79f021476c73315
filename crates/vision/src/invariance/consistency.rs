//! How often a classifier changes its mind.

use super::{Error, Result, ShiftGrid};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Changes over all pairs of positions one step apart, along rows and columns (Azulay and Weiss, *Why do deep convolutional
/// networks generalize so poorly to small image transformations?*, JMLR 20, 2019; their protocols embed or crop, ours is the
/// grid).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Share of pairs whose top-1 class differs.
    pub top1_change: f64,
    /// Mean absolute change of a probability.
    pub mean_absolute_change: f64,
}

impl Neighbours {
    pub(super) fn over(grid: &ShiftGrid, classes: &[i64], probability: &[f64]) -> Self {
        let (mut changed, mut change, mut pairs) = (0_usize, 0.0, 0_usize);
        for (a, b) in grid.neighbours() {
            changed += usize::from(classes[a] != classes[b]);
            change += (probability[a] - probability[b]).abs();
            pairs += 1;
        }
        let pairs = pairs.max(1) as f64;
        Self { top1_change: changed as f64 / pairs, mean_absolute_change: change / pairs }
    }
}

/// Changes of class along rows, a row on average.
pub(super) fn flips(grid: &ShiftGrid, classes: &[i64]) -> f64 {
    let changes = |row: &[i64]| row.windows(2).filter(|pair| pair[0] != pair[1]).count();
    classes.chunks_exact(grid.columns()).map(changes).sum::<usize>() as f64 / grid.rows() as f64
}

/// Zhang's consistency: share of images with equal top-1 class in two random crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropConsistency {
    /// Side of a crop; 224 of images of 256 as published.
    pub crop: i64,
    /// Offsets are drawn from `0..range` on both axes; 32 as published.
    pub range: i64,
    /// Passes over the images; 5 as published.
    pub passes: u64,
    /// Images that share a pair of offsets; 8 in the published examples.
    pub batch: i64,
}

impl Default for CropConsistency {
    fn default() -> Self {
        Self { crop: 224, range: 32, passes: 5, batch: 8 }
    }
}

impl CropConsistency {
    /// Images of 32 × 32 padded by 4 on each side beforehand: crops of 32 at offsets 0 to 8.
    pub fn small() -> Self {
        Self { crop: 32, range: 9, passes: 5, batch: 8 }
    }

    /// The share, 0 to 1. `classify` gives logits `[batch, classes]`.
    ///
    /// # Errors
    /// Images that are not `[count, channels, height, width]` and large enough, empty settings, logits that are not
    /// finite or not one row an image, and those of `classify`.
    pub fn measure(
        &self,
        images: &Tensor,
        classify: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
        seed: u64,
    ) -> Result<f64> {
        if self.crop < 1 || self.range < 1 || self.passes < 1 || self.batch < 1 {
            return Err(Error::setting("crop consistency", "numbers of at least 1", format!("{self:?}")));
        }
        let size = images.size();
        let needed = self.crop.saturating_add(self.range - 1);
        if size.len() != 4 || size[0] < 1 || size[2] < needed || size[3] < needed {
            let expected = format!("[count, channels, {needed} or more, {needed} or more]");
            return Err(Error::shape("images for crops", expected, format!("{size:?}")));
        }
        let mut answers = Answers::default();
        for pass in 0..self.passes {
            let mut rng = generator(seed, Purpose::Noise, pass);
            for start in (0..size[0]).step_by(self.batch as usize) {
                let some = images.f_narrow(0, start, self.batch.min(size[0] - start))?;
                let mut top = || {
                    let [row, column] = [0; 2].map(|_| rng.random_range(0..self.range));
                    let crop = some.f_narrow(2, row, self.crop)?.f_narrow(3, column, self.crop)?.f_contiguous()?;
                    answers.top1(&classify(&crop)?, &some)
                };
                let (first, second) = (top()?, top()?);
                answers.compare(&first, &second)?;
            }
        }
        Ok(answers.equal()? / (size[0] * self.passes as i64) as f64)
    }
}

/// What circular rolls change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RollChange {
    /// Share of images and rolls with the top-1 class of the image at rest, 0 to 1.
    pub agreement: f64,
    /// The largest absolute change of a logit.
    pub largest: f64,
}

/// Share of images with equal top-1 class under two circular rolls, each coordinate uniform in `−max_shift..max_shift`, the upper
/// end left out as published with adaptive polyphase sampling (3 for CIFAR-10, 32 for ImageNet); one pair of rolls a batch.
///
/// # Errors
/// Images that are not `[count, channels, height, width]`, a shift or batch below 1, logits that are not finite or not
/// one row an image, and those of `classify`.
pub fn circular_consistency(
    images: &Tensor,
    max_shift: i64,
    batch: i64,
    classify: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    seed: u64,
) -> Result<f64> {
    let count = checked(images, max_shift.min(batch))?;
    let mut rng = generator(seed, Purpose::Noise, 0);
    let mut answers = Answers::default();
    for start in (0..count).step_by(batch as usize) {
        let some = images.f_narrow(0, start, batch.min(count - start))?;
        let mut top = || {
            let shift = [0; 2].map(|_| rng.random_range(-max_shift..max_shift));
            answers.top1(&classify(&some.f_roll(shift, [2, 3])?)?, &some)
        };
        let (first, second) = (top()?, top()?);
        answers.compare(&first, &second)?;
    }
    Ok(answers.equal()? / count as f64)
}

/// All `(2 · max_shift)²` rolls of `−max_shift..max_shift` against the image at rest, exhaustively.
///
/// # Errors
/// As [`circular_consistency`].
pub fn roll_change(
    images: &Tensor,
    max_shift: i64,
    batch: i64,
    classify: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
) -> Result<RollChange> {
    let count = checked(images, max_shift.min(batch))?;
    let (mut answers, mut changes) = (Answers::default(), Vec::new());
    for start in (0..count).step_by(batch as usize) {
        let some = images.f_narrow(0, start, batch.min(count - start))?;
        let still = classify(&some)?;
        let class = answers.top1(&still, &some)?;
        for row in -max_shift..max_shift {
            for column in -max_shift..max_shift {
                let moved = classify(&some.f_roll([row, column], [2, 3])?)?;
                let top = answers.top1(&moved, &some)?;
                answers.compare(&top, &class)?;
                changes.push(moved.f_sub(&still)?.f_abs()?.f_max()?);
            }
        }
    }
    let agreement = answers.equal()? / (count * 4 * max_shift * max_shift) as f64;
    Ok(RollChange { agreement, largest: Tensor::f_stack(&changes, 0)?.f_max()?.double_value(&[]) })
}

fn checked(images: &Tensor, smallest: i64) -> Result<i64> {
    let size = images.size();
    if size.len() != 4 || size[0] < 1 {
        let expected = "[count, channels, height, width], at least one";
        return Err(Error::shape("images for rolls", expected, format!("{size:?}")));
    }
    if smallest < 1 {
        return Err(Error::setting("shift and batch", "at least 1", smallest));
    }
    Ok(size[0])
}

/// Counts of a classifier's answers, a number a batch where its logits are: they are read once, at the end, so that a GPU is not
/// waited for in between.
#[derive(Default)]
struct Answers {
    equal: Vec<Tensor>,
    finite: Vec<Tensor>,
}

impl Answers {
    /// The class of each of these images.
    fn top1(&mut self, logits: &Tensor, images: &Tensor) -> Result<Tensor> {
        let (size, count) = (logits.size(), images.size()[0]);
        if size.len() != 2 || size[0] != count {
            return Err(Error::shape("logits", format!("[{count}, classes]"), format!("{size:?}")));
        }
        self.finite.push(logits.f_isfinite()?.f_all()?);
        Ok(logits.f_argmax(1, false)?)
    }

    fn compare(&mut self, first: &Tensor, second: &Tensor) -> Result<()> {
        self.equal.push(first.f_eq_tensor(second)?.f_sum(Kind::Int64)?);
        Ok(())
    }

    /// How many images had equal classes. Refuses logits that were not finite.
    fn equal(self) -> Result<f64> {
        if Tensor::f_stack(&self.finite, 0)?.f_all()?.int64_value(&[]) == 0 {
            return Err(Error::shape("logits", "finite numbers", "NaN or infinity"));
        }
        Ok(Tensor::f_stack(&self.equal, 0)?.f_sum(Kind::Int64)?.int64_value(&[]) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn changes_between_neighbours_are_counted_by_hand() {
        // Classes 0 1 / 0 0: of four pairs two differ; probabilities .1 .3 / .1 .2: changes .2, .1, 0, .1.
        let grid = ShiftGrid::new([2, 2], [1, 1], 1).unwrap();
        let found = Neighbours::over(&grid, &[0, 1, 0, 0], &[0.1, 0.3, 0.1, 0.2]);
        assert_eq!(found.top1_change, 0.5);
        assert!((found.mean_absolute_change - 0.1).abs() < 1e-12);
        assert_eq!(flips(&grid, &[0, 1, 0, 0]), 0.5);
    }

    /// Says 1 where the first pixel of the image is bright.
    fn corner(images: &Tensor) -> Result<Tensor> {
        let first = images.select(3, 0).select(2, 0).select(1, 0);
        Ok(Tensor::stack(&[first.zeros_like() + 0.5, first], 1))
    }

    #[test]
    fn a_classifier_of_one_pixel_agrees_as_often_as_independent_draws_do() {
        // A quarter of the pixels is bright, so that two independent crops agree with probability (1/4)² + (3/4)² = .625;
        // 400 images of one offset pair each, five passes: standard error .011.
        let bright = Tensor::zeros([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        let _ = bright.slice(2, None, None, 2).slice(3, None, None, 2).fill_(1.0);
        let images = bright.repeat([400, 1, 1, 1]);
        let crops = CropConsistency { crop: 1, range: 8, passes: 5, batch: 1 };
        let found = crops.measure(&images, &mut |x| corner(x), 3).unwrap();
        assert!((found - 0.625).abs() < 0.04, "{found}");
        let rolls = circular_consistency(&images, 4, 1, &mut |x| corner(x), 3).unwrap();
        assert!((rolls - 0.625).abs() < 0.09, "{rolls}");
        // All 64 rolls: 16 keep the first pixel bright.
        let all = roll_change(&bright, 4, 8, &mut |x| corner(x)).unwrap();
        assert_eq!((all.agreement, all.largest), (0.25, 1.0));
    }

    #[test]
    fn a_classifier_of_the_mean_is_consistent_under_rolls() {
        let images = Tensor::rand([6, 1, 8, 8], (Kind::Float, Device::Cpu));
        let mut mean = |images: &Tensor| Ok(images.mean_dim([2_i64, 3].as_slice(), false, Kind::Float).repeat([1, 2]));
        assert_eq!(circular_consistency(&images, 3, 4, &mut mean, 0).unwrap(), 1.0);
        let all = roll_change(&images, 3, 4, &mut mean).unwrap();
        // Sums of 64 numbers below 1 in another order.
        assert!(all.agreement == 1.0 && all.largest < 1e-6);
    }

    #[test]
    fn what_cannot_be_cropped_or_rolled_is_refused() {
        let images = Tensor::zeros([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        let error = CropConsistency::default().measure(&images, &mut |x| corner(x), 0).unwrap_err();
        assert!(error.to_string().contains("255 or more"), "{error}");
        assert!(circular_consistency(&images, 0, 1, &mut |x| corner(x), 0).is_err());
        assert!(roll_change(&images.get(0), 1, 1, &mut |x| corner(x)).is_err());
        let mut broken = |images: &Tensor| corner(images).map(|logits| logits * f64::NAN);
        assert!(circular_consistency(&images, 1, 1, &mut broken, 0).unwrap_err().to_string().contains("finite"));
        let mut flat = |images: &Tensor| Ok(images.flatten(0, -1));
        assert!(roll_change(&images, 1, 1, &mut flat).unwrap_err().to_string().contains("logits"));
        // One answer for both images would count as one of them.
        let mut one = |images: &Tensor| corner(&images.narrow(0, 0, 1));
        let error = circular_consistency(&images, 1, 2, &mut one, 0).unwrap_err().to_string();
        assert_eq!(error, "logits: expected [2, classes], found [1, 2]");
        // Two classes at rest, three afterwards.
        let mut calls = 1;
        let mut wider = |images: &Tensor| {
            calls += 1;
            Ok(Tensor::zeros([images.size()[0], calls], (Kind::Float, Device::Cpu)))
        };
        assert!(matches!(roll_change(&images, 1, 2, &mut wider), Err(Error::Torch(_))));
        let endless = CropConsistency { crop: i64::MAX, ..CropConsistency::small() };
        assert!(matches!(endless.measure(&images, &mut |x| corner(x), 0), Err(Error::Shape { .. })));
        let none = CropConsistency { range: 0, ..CropConsistency::small() };
        assert!(matches!(none.measure(&images, &mut |x| corner(x), 0), Err(Error::Setting { .. })));
    }
}
