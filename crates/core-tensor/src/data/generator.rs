//! Procedural images: ten classes of shapes and textures under changing position, size, angle, contrast and noise.
//!
//! They stand in for a published set that is not at hand. Lightness alone does not tell the classes apart and every shape
//! turns freely, so a linear classifier stays well behind a convolutional net.

use std::f32::consts::{PI, TAU};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Dataset, ImageShape, Splits};
use crate::seed::{Purpose, derive, generator};
use crate::{Error, Result};

/// Draws labelled images of ten kinds: disc, ring, square, triangle, star, cross, crescent, stripes, checks, dots.
///
/// An image depends on the seed and its position alone: more images, or another number of threads, change none of them.
///
/// ```
/// use core_tensor::data::ShapeGenerator;
///
/// let sets = ShapeGenerator::fashion_mnist().splits(200, 100, 0)?;
/// assert_eq!(sets.train.images().size(), [200, 1, 28, 28]);
/// assert_eq!(sets.test.origin(), "generated shapes, stand-in for Fashion-MNIST");
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeGenerator {
    /// 1 for grey, 3 for red, green, blue.
    pub channels: usize,
    /// `[height, width]`, 8 to 1024 each.
    pub size: [usize; 2],
    /// Standard deviation of the noise added to each value, as a share of the full range, 0 to 1.
    pub noise: f32,
    /// What the set stands in for; becomes part of its origin.
    pub stands_in_for: String,
}

/// The classes, in the order of their numbers.
const CLASSES: [&str; 10] =
    ["disc", "ring", "square", "triangle", "star", "cross", "crescent", "stripes", "checks", "dots"];

impl ShapeGenerator {
    /// 28 × 28, grey.
    pub fn fashion_mnist() -> Self {
        Self { channels: 1, size: [28, 28], noise: NOISE, stands_in_for: "Fashion-MNIST".to_owned() }
    }

    /// 32 × 32, colour.
    pub fn cifar10() -> Self {
        Self { channels: 3, size: [32, 32], noise: NOISE, stands_in_for: "CIFAR-10".to_owned() }
    }

    /// # Errors
    /// A setting outside its range.
    pub fn validate(&self) -> Result<()> {
        if self.channels != 1 && self.channels != 3 {
            return Err(Error::setting("channels", "1 or 3", self.channels));
        }
        if let Some(side) = self.size.iter().find(|side| !(8..=1024).contains(*side)) {
            return Err(Error::setting("size", "sides of 8 to 1024", side));
        }
        if !(0.0..=1.0).contains(&self.noise) {
            return Err(Error::setting("noise", "0 to 1", self.noise));
        }
        Ok(())
    }

    /// Training and test images from streams of their own. Classes come in turn, so every prefix is balanced.
    ///
    /// # Errors
    /// A setting outside its range, or a count of 0.
    pub fn splits(&self, train: usize, test: usize, seed: u64) -> Result<Splits> {
        Ok(Splits { train: self.generate(train, seed, 0)?, test: self.generate(test, seed, 1)? })
    }

    fn generate(&self, count: usize, seed: u64, stream: u64) -> Result<Dataset> {
        self.validate()?;
        let [height, width] = self.size;
        let shape = ImageShape::new(self.channels, height, width);
        let values = self.channels * height * width;
        let bytes = count.checked_mul(values).filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| Error::setting("count", "a set that fits in memory", count))?;
        let mut pixels = vec![0; bytes];
        let seed = derive(seed, Purpose::Data, stream);
        pixels.par_chunks_exact_mut(values).enumerate().for_each(|(position, pixels)| {
            let mut rng = generator(seed, Purpose::Data, position as u64);
            self.draw(CLASSES[position % CLASSES.len()], &mut rng, pixels);
        });
        let labels = (0..count).map(|position| (position % CLASSES.len()) as i64).collect();
        let classes = CLASSES.map(str::to_owned).to_vec();
        Dataset::new(pixels, shape, labels, classes, format!("generated shapes, stand-in for {}", self.stands_in_for))
    }

    fn draw(&self, class: &str, rng: &mut ChaCha8Rng, pixels: &mut [u8]) {
        let [height, width] = self.size;
        let pose = Pose::draw(self.size, rng);
        let paint = Paint::draw(self.channels, rng);
        for (channel, plane) in pixels.chunks_exact_mut(height * width).enumerate() {
            for (row, line) in plane.chunks_exact_mut(width).enumerate() {
                for (column, pixel) in line.iter_mut().enumerate() {
                    let at = pose.local([row as f32 + 0.5, column as f32 + 0.5]);
                    // The distance to the edge, in pixels, gives the share of the pixel that is covered.
                    let cover = (0.5 - distance(class, at, &pose) * pose.radius).clamp(0.0, 1.0);
                    let slope = paint.slope[0] * (row as f32 / height as f32 - 0.5)
                        + paint.slope[1] * (column as f32 / width as f32 - 0.5);
                    let [ground, figure] = [paint.ground[channel] + slope, paint.figure[channel]];
                    let value = ground + cover * (figure - ground) + self.noise * bell(rng);
                    // Saturates outside 0 to 255.
                    *pixel = (255.0 * value).round() as u8;
                }
            }
        }
    }
}

/// Calibrated so that a small convolutional net has something left to learn after an epoch.
const NOISE: f32 = 0.12;

/// Where a figure is, how large, and how turned.
struct Pose {
    centre: [f32; 2],
    /// Half the figure's extent, in pixels.
    radius: f32,
    turn: [f32; 2],
    /// Two numbers in `[0, 1)` for what a class leaves open: line widths, the period and phase of a texture.
    free: [f32; 2],
}

impl Pose {
    fn draw([height, width]: [usize; 2], rng: &mut ChaCha8Rng) -> Self {
        let half = height.min(width) as f32 / 2.0;
        let radius = half * rng.random_range(0.45..0.85);
        let mut place = |side: usize| side as f32 / 2.0 + rng.random_range(-1.0..1.0) * 0.6 * (half - radius);
        let centre = [place(height), place(width)];
        let angle = rng.random_range(0.0..TAU);
        Self { centre, radius, turn: [angle.cos(), angle.sin()], free: [rng.random(), rng.random()] }
    }

    /// A pixel in the figure's own frame, where its extent is 1.
    fn local(&self, [row, column]: [f32; 2]) -> [f32; 2] {
        let [y, x] = [(row - self.centre[0]) / self.radius, (column - self.centre[1]) / self.radius];
        [self.turn[0] * x + self.turn[1] * y, self.turn[0] * y - self.turn[1] * x]
    }
}

/// Lightness or colour of figure and ground.
struct Paint {
    ground: [f32; 3],
    figure: [f32; 3],
    /// Change of the ground from top to bottom and from left to right.
    slope: [f32; 2],
}

impl Paint {
    fn draw(channels: usize, rng: &mut ChaCha8Rng) -> Self {
        let contrast = rng.random_range(0.3..0.7_f32);
        let dark = rng.random_range(0.0..1.0 - contrast);
        // A figure is usually lighter than its ground, so that the mean image of a class says something.
        let (ground, figure) = if rng.random_bool(0.9) { (dark, dark + contrast) } else { (dark + contrast, dark) };
        let tint = if channels == 1 { 0.0 } else { 0.25 };
        let mut colour = |lightness: f32| [(); 3].map(|()| lightness + tint * rng.random_range(-1.0..1.0_f32));
        let (ground, figure) = (colour(ground), colour(figure));
        Self { ground, figure, slope: [rng.random_range(-0.2..0.2), rng.random_range(-0.2..0.2)] }
    }
}

/// Signed distance from a point to the figure's edge, negative inside, in units of the figure's extent. Exact near the
/// edges, where it matters.
fn distance(class: &str, [x, y]: [f32; 2], pose: &Pose) -> f32 {
    let radius = x.hypot(y);
    let [first, second] = pose.free;
    match class {
        "disc" => radius - 0.9,
        "ring" => (radius - 0.72).abs() - (0.12 + 0.12 * first),
        "square" => x.abs().max(y.abs()) - 0.75,
        "triangle" => polygon([x, y], 3.0) - 0.5,
        "star" => {
            // The pentagram: edges at the angle that leaves every second corner of a pentagon out.
            let sector = TAU / 5.0;
            let angle = (y.atan2(x).rem_euclid(sector) - sector / 2.0).abs();
            let slant = PI / 10.0;
            // Distance to the edge from the outer corner, which lies at half a sector and radius 1.
            let (dx, dy) = (radius * (sector / 2.0 - angle).cos() - 1.0, radius * (sector / 2.0 - angle).sin());
            dx * slant.sin() + dy * slant.cos()
        }
        "cross" => {
            let width = 0.18 + 0.14 * first;
            let bar = |along: f32, across: f32| (along.abs() - 0.95).max(across.abs() - width);
            bar(x, y).min(bar(y, x))
        }
        "crescent" => {
            let bite = (x - 0.4 - 0.25 * first).hypot(y);
            (radius - 0.95).max(0.75 - bite)
        }
        // Textures fill the whole image; their period is a share of the extent that stays above four pixels at 28 × 28.
        "stripes" => wave(x, 0.55 + 0.3 * first, second),
        "checks" => {
            let period = 0.8 + 0.4 * first;
            let (a, b) = (wave(x, period, second), wave(y, period, second));
            // The product of two signs, with the nearer edge's distance.
            -(a * b).signum() * a.abs().min(b.abs())
        }
        // Only ten names reach this function, and dots are the last.
        _ => {
            let period = 0.6 + 0.25 * first;
            let cell = |at: f32, phase: f32| ((at / period + phase).rem_euclid(1.0) - 0.5) * period;
            cell(x, second).hypot(cell(y, first)) - 0.3 * period
        }
    }
}

/// Distance to the nearest side of a regular polygon whose sides' middles lie at radius 0; subtract the inner radius.
fn polygon([x, y]: [f32; 2], corners: f32) -> f32 {
    let sector = TAU / corners;
    let angle = (y.atan2(x) + sector / 2.0).rem_euclid(sector) - sector / 2.0;
    x.hypot(y) * angle.cos()
}

/// Distance to the nearest edge of stripes that fill half of each period, negative within one.
fn wave(at: f32, period: f32, phase: f32) -> f32 {
    (((at / period + phase).rem_euclid(1.0) - 0.5).abs() - 0.25) * period
}

/// Nearly normal, of mean 0 and variance 1: the sum of four bytes of one random word.
fn bell(rng: &mut ChaCha8Rng) -> f32 {
    let bytes: u16 = rng.random::<u32>().to_le_bytes().iter().map(|&byte| u16::from(byte)).sum();
    // A byte has mean 127.5 and variance (256² − 1) / 12.
    (f32::from(bytes) - 510.0) / 147.801
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Kind, Tensor};

    fn still(class: &str, at: [f32; 2]) -> f32 {
        distance(class, at, &Pose { centre: [0.0; 2], radius: 1.0, turn: [1.0, 0.0], free: [0.0, 0.0] })
    }

    #[test]
    fn distances_vanish_on_the_edge_and_are_negative_inside() {
        // Points on each edge, worked out by hand.
        let edges = [
            ("disc", [0.0, 0.9]),
            ("ring", [0.84, 0.0]),
            ("ring", [0.0, -0.6]),
            ("square", [0.75, 0.3]),
            // The middle of a side at radius 1/2, and the corner at twice that, opposite.
            ("triangle", [0.5, 0.0]),
            ("triangle", [-1.0, 0.0]),
            ("star", [1.0, 0.0]),
            ("cross", [0.95, 0.1]),
            ("cross", [0.1, -0.95]),
            ("crescent", [-0.95, 0.0]),
            ("crescent", [-0.35, 0.0]),
            // Half of the period 0.55 is covered, centred where the phase is ½.
            ("stripes", [0.1375, 0.7]),
            ("checks", [0.2, 0.1]),
            ("dots", [0.3, 0.48]),
        ];
        for (class, at) in edges {
            // A few roundings of numbers up to 1.
            assert!(still(class, at).abs() < 1e-6, "{class} at {at:?}: {}", still(class, at));
        }
        let inside = [("disc", [0.0, 0.0]), ("square", [0.5, 0.5]), ("triangle", [0.0, 0.0]), ("star", [0.0, 0.0])];
        let outside = [("ring", [0.0, 0.0]), ("cross", [0.5, 0.5]), ("crescent", [0.4, 0.0]), ("star", [-1.0, 0.0])];
        assert!(inside.iter().all(|&(class, at)| still(class, at) < -0.2));
        assert!(outside.iter().all(|&(class, at)| still(class, at) > 0.2));
    }

    #[test]
    fn noise_has_mean_zero_and_variance_one() {
        let mut rng = generator(0, Purpose::Data, 0);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|_| f64::from(bell(&mut rng))).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / n as f64;
        // Standard errors are 0.0032 and at most 0.0045; four of them.
        assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.018, "{mean} {variance}");
    }

    /// Accuracy of least squares on ±1 targets, the best linear classifier in closed form.
    fn linear_accuracy(train: &Dataset, test: &Dataset) -> f64 {
        let features = |set: &Dataset| {
            let flat = set.images().to_kind(Kind::Float).view([set.targets().len() as i64, -1]) / 255.0;
            Tensor::cat(&[flat, Tensor::ones([set.targets().len() as i64, 1], (Kind::Float, tch::Device::Cpu))], 1)
        };
        let x = features(train);
        let y = train.labels().one_hot(10).to_kind(Kind::Float);
        let ridge = Tensor::eye(x.size()[1], (Kind::Float, tch::Device::Cpu)) * 10.0;
        let weights = Tensor::linalg_solve(&(x.tr().matmul(&x) + ridge), &x.tr().matmul(&y), true);
        let guess = features(test).matmul(&weights).argmax(1, false);
        guess.eq_tensor(&test.labels()).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }

    #[test]
    fn a_linear_classifier_does_better_than_chance_and_far_from_perfectly() {
        for generator in [ShapeGenerator::fashion_mnist(), ShapeGenerator::cifar10()] {
            let Splits { train, test } = generator.splits(4000, 1000, 0).unwrap();
            let accuracy = linear_accuracy(&train, &test);
            // Chance is 0.1 with a standard error of 0.0095 on 1000 images.
            assert!((0.15..0.8).contains(&accuracy), "{accuracy}");
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let base = ShapeGenerator::cifar10;
        let bad = [
            ShapeGenerator { channels: 2, ..base() },
            ShapeGenerator { size: [32, 7], ..base() },
            ShapeGenerator { size: [2000, 32], ..base() },
            ShapeGenerator { noise: f32::NAN, ..base() },
        ];
        for generator in bad {
            assert!(matches!(generator.splits(10, 10, 0), Err(Error::Setting { .. })), "{generator:?}");
        }
        assert!(base().splits(0, 10, 0).is_err());
        assert!(base().splits(usize::MAX, 10, 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn an_image_depends_on_the_seed_and_its_position_alone(seed: u64, threads in 1_usize..4) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let few = ShapeGenerator::cifar10().splits(11, 10, seed).unwrap();
            let many = pool.install(|| ShapeGenerator::cifar10().splits(30, 10, seed)).unwrap();
            let first = few.train.pixels();
            prop_assert_eq!(first, &many.train.pixels()[..first.len()]);
            prop_assert_eq!(few.test.pixels(), many.test.pixels());
            // Training and test images are different ones.
            prop_assert_ne!(&first[..few.test.pixels().len()], few.test.pixels());
            let other = ShapeGenerator::cifar10().splits(11, 10, seed.wrapping_add(1)).unwrap();
            prop_assert_ne!(few.train.pixels(), other.train.pixels());
        }

        #[test]
        fn classes_come_in_turn(count in 1_usize..40) {
            let set = ShapeGenerator::fashion_mnist().splits(count, 1, 0).unwrap().train;
            prop_assert!(set.targets().iter().enumerate().all(|(position, &label)| label == (position % 10) as i64));
        }
    }
}
