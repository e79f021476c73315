//! What a classifier is worth: clean, attacked, and on shifted images.

use crate::Metrics;
use contrast::attack::{Apgd, Attack, AutoAttack, Ball, Goal, MaskingConfig, Pgd, gradient_masking};
use core_tensor::data::{Dataset, Samples};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// What is measured; part of a run's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measure {
    /// Test images that are attacked, others for every seed until all have been; clean accuracy is over all.
    pub(super) attacked: usize,
    /// Linf budgets.
    pub(super) budgets: Vec<f64>,
    /// Steps of PGD, each of a quarter of the budget, from one random start; the last iterate counts.
    pub(super) steps: usize,
    /// What the model was not trained against.
    pub(super) shifts: Vec<Shift>,
}

/// A change of the attacked images that no training saw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shift {
    /// PGD within a Euclidean ball.
    L2(f64),
    /// Gaussian noise of this deviation, clipped.
    Noise(f64),
    /// The mean of 3 × 3 pixels.
    Blur,
    /// Differences from the image's mean, multiplied.
    Contrast(f64),
    /// A constant, added and clipped.
    Brightness(f64),
}

impl Shift {
    /// For metrics and tables.
    pub(super) fn name(self) -> String {
        match self {
            Self::L2(radius) => format!("L2 {radius}"),
            Self::Noise(deviation) => format!("noise {deviation}"),
            Self::Blur => "blur 3 × 3".into(),
            Self::Contrast(factor) => format!("contrast × {factor}"),
            Self::Brightness(added) => format!("brightness + {added}"),
        }
    }
}

/// A classifier with the images it is tried on.
pub(super) struct Subject<'a> {
    pub(super) logits: &'a dyn Fn(&Tensor) -> Tensor,
    pub(super) measure: &'a Measure,
    /// The first attacked image.
    first: usize,
    all: Tensor,
    labels: Tensor,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        logits: &'a dyn Fn(&Tensor) -> Tensor,
        measure: &'a Measure,
        test: &Dataset,
        seed: u64,
        device: Device,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(measure.attacked <= test.len(), "{} test images, {} asked for", test.len(), measure.attacked);
        let first = first_attacked(seed, measure.attacked, test.len());
        // Bytes stay bytes until a block of them is used.
        Ok(Self {
            logits,
            measure,
            first,
            all: test.images().to_device(device),
            labels: test.labels().to_device(device),
        })
    }

    /// Images in `[0, 1]` and labels of a block of those that are attacked.
    pub(super) fn attacked(&self, start: usize, count: usize) -> (Tensor, Tensor) {
        self.block(self.first + start, count)
    }

    /// Images in `[0, 1]` and labels of a block of the test images.
    pub(super) fn block(&self, start: usize, count: usize) -> (Tensor, Tensor) {
        let (start, count) = (start as i64, count as i64);
        let images = self.all.narrow(0, start, count).to_kind(Kind::Float) / 255.0;
        (images, self.labels.narrow(0, start, count))
    }

    /// Accuracy (%) on all test images.
    pub(super) fn clean(&self) -> f64 {
        let total = self.all.size()[0] as usize;
        let mut correct = 0;
        for start in (0..total).step_by(500) {
            let (images, labels) = self.block(start, 500.min(total - start));
            correct += self.hits(&images, &labels).sum(Kind::Int64).int64_value(&[]);
        }
        100.0 * correct as f64 / total as f64
    }

    fn hits(&self, images: &Tensor, labels: &Tensor) -> Tensor {
        no_grad(|| (self.logits)(images)).argmax(1, false).eq_tensor(labels)
    }

    /// Accuracy (%) on the attacked images, made by `attacked` from a block of images and their labels.
    fn accuracy(&self, mut changed: impl FnMut(&Tensor, &Tensor) -> anyhow::Result<Tensor>) -> anyhow::Result<f64> {
        let total = self.measure.attacked;
        let mut correct = 0;
        for start in (0..total).step_by(100) {
            let (images, labels) = self.attacked(start, 100.min(total - start));
            let changed = changed(&images, &labels)?;
            correct += self.hits(&changed, &labels).sum(Kind::Int64).int64_value(&[]);
        }
        Ok(100.0 * correct as f64 / total as f64)
    }

    /// Robust accuracy (%) under an attack: the share of examples that it does not get misclassified.
    pub(super) fn robust(&self, attack: &dyn Attack, images: usize, seed: u64) -> anyhow::Result<f64> {
        let model = |images: &Tensor| (self.logits)(images);
        let total = images.min(self.measure.attacked);
        let mut standing = 0.0;
        for start in (0..total).step_by(100) {
            let count = 100.min(total - start);
            let (images, labels) = self.attacked(start, count);
            let found = attack.run(&model, &images, &Goal::untargeted(&labels), seed)?;
            standing += found.survivors() * count as f64;
        }
        Ok(100.0 * standing / total as f64)
    }

    fn shifted(&self, shift: Shift, seed: u64) -> anyhow::Result<f64> {
        let mut rng = generator(seed, Purpose::Noise, 1);
        match shift {
            Shift::L2(radius) => {
                let attack = Pgd::new(Ball::l2(radius)).with_steps(self.measure.steps);
                self.robust(&attack, self.measure.attacked, seed)
            }
            Shift::Noise(deviation) => self.accuracy(|images, _| {
                let noise: Vec<f32> = (0..images.numel()).map(|_| normal(&mut rng)).collect();
                let noise = Tensor::from_slice(&noise).view_as(images).to_device(images.device());
                Ok((images + noise * deviation).clamp(0.0, 1.0))
            }),
            Shift::Blur => self.accuracy(|images, _| Ok(images.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None))),
            Shift::Contrast(factor) => self.accuracy(|images, _| {
                let mean = images.mean_dim([1, 2, 3].as_slice(), true, Kind::Float);
                Ok((images - &mean) * factor + mean)
            }),
            Shift::Brightness(added) => self.accuracy(|images, _| Ok((images + added).clamp(0.0, 1.0))),
        }
    }
}

/// Where a seed's attacked images begin: one seed's after another's, so that an interval over seeds covers the choice of images.
fn first_attacked(seed: u64, attacked: usize, total: usize) -> usize {
    let places = (total - attacked + 1) as u64;
    (seed.wrapping_mul(attacked as u64) % places) as usize
}

/// A normal deviate from two uniform ones (Box and Muller).
fn normal(rng: &mut impl Rng) -> f32 {
    let (radius, angle): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

/// The attack that robust accuracy is measured with.
pub(super) fn pgd(budget: f64, steps: usize) -> Pgd {
    Pgd::new(Ball::linf(budget)).with_steps(steps)
}

/// `name/clean`, `name/robust <budget>` for every budget and, if asked for, `name/<shift>`; in percent.
pub(super) fn measure(subject: &Subject, name: &str, shifts: bool, seed: u64) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::from([(format!("{name}/clean"), subject.clean())]);
    let settings = subject.measure;
    for &budget in &settings.budgets {
        let found = subject.robust(&pgd(budget, settings.steps), settings.attacked, seed)?;
        metrics.insert(robust_name(name, budget), found);
    }
    for &shift in settings.shifts.iter().filter(|_| shifts) {
        metrics.insert(format!("{name}/{}", shift.name()), subject.shifted(shift, seed)?);
    }
    Ok(metrics)
}

/// The metric of robust accuracy at a budget.
pub(super) fn robust_name(name: &str, budget: f64) -> String {
    format!("{name}/robust {budget:.4}")
}

/// The rung that is measured everywhere else, too.
pub(super) const PGD: &str = "ladder/PGD-20";
/// The strongest.
pub(super) const AUTO_ATTACK: &str = "ladder/AutoAttack";

/// Stronger and stronger attacks at the trained budget; part of a run's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ladder {
    /// So many of the attacked images.
    pub(super) images: usize,
    /// Whether the last rung is AutoAttack; APGD otherwise.
    pub(super) auto_attack: bool,
    /// So many of the attacked images to look for masked gradients on, in the network and in [`MASKED`] twins; 0 for no look.
    pub(super) masking: usize,
}

/// The metric of how many looks for masked gradients raise a flag about the network itself.
pub(super) const FLAGS: &str = "masking/network";
/// The same about twins whose gradients are masked: logits times 1,000, which round to certainty, and pixels rounded to four
/// levels.
pub(super) const MASKED: [&str; 2] = ["masking/logits × 1000", "masking/four levels"];

impl Ladder {
    /// Names of the metrics, from weak to strong.
    pub(super) fn rungs(self) -> Vec<&'static str> {
        let mut rungs = vec!["ladder/FGSM", PGD, "ladder/APGD-CE"];
        rungs.extend(self.auto_attack.then_some(AUTO_ATTACK));
        rungs
    }

    /// Flags of looks for masked gradients, if there are any.
    pub(super) fn look(self, subject: &Subject, budget: f64, seed: u64) -> anyhow::Result<Metrics> {
        if self.masking == 0 {
            return Ok(Metrics::new());
        }
        let (images, labels) = subject.attacked(0, self.masking);
        let flags = |model: &dyn Fn(&Tensor) -> Tensor| -> anyhow::Result<f64> {
            let (ball, config) = (Ball::linf(budget), MaskingConfig::default());
            let checks = gradient_masking(&model, None, &images, &labels, ball, &config, seed)?;
            Ok(checks.iter().filter(|check| check.passed == Some(false)).count() as f64)
        };
        let logits = subject.logits;
        let [scaled, rounded] = MASKED.map(str::to_owned);
        Ok(Metrics::from([
            (FLAGS.to_owned(), flags(&|images| logits(images))?),
            (scaled, flags(&|images| logits(images) * 1000.0)?),
            (rounded, flags(&|images| logits(&((images * 3.0).round() / 3.0)))?),
        ]))
    }

    /// Robust accuracy (%) on every rung.
    pub(super) fn climb(self, subject: &Subject, budget: f64, seed: u64) -> anyhow::Result<Metrics> {
        let ball = Ball::linf(budget);
        let attacks: [Box<dyn Attack>; 4] = [
            Box::new(Pgd::fgsm(ball)),
            Box::new(pgd(budget, 20)),
            Box::new(Apgd::new(ball)),
            Box::new(AutoAttack::standard(ball)),
        ];
        let found = self
            .rungs()
            .into_iter()
            .zip(attacks)
            .map(|(name, attack)| Ok((name.to_owned(), subject.robust(attack.as_ref(), self.images, seed)?)));
        found.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_attack_images_of_their_own() {
        assert_eq!([0, 1, 2, 4].map(|seed| first_attacked(seed, 1000, 10_000)), [0, 1000, 2000, 4000]);
        // The last place that holds a thousand is 9,000; after it the places begin anew.
        assert_eq!([9, 10].map(|seed| first_attacked(seed, 1000, 10_000)), [9000, 999]);
        assert_eq!([0, 7].map(|seed| first_attacked(seed, 10_000, 10_000)), [0, 0]);
        assert!(first_attacked(u64::MAX, 300, 10_000) <= 9700);
    }
}
