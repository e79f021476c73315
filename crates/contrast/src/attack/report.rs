//! What one can say of a model's robustness after several attacks.

use std::time::Instant;

use core_tensor::seed::{Purpose, derive};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::classifier::Classifier;
use super::masking::{Check, MaskingConfig, gradient_masking};
use super::run::{Adversarial, Subject, each_once};
use super::smoothing::two_sided_binomial;
use super::{Attack, Ball, Error, Goal, Result, Square};

/// So many of so many examples right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Examples still classified as labelled.
    pub correct: usize,
    /// All examples.
    pub of: usize,
}

impl Accuracy {
    /// Counts the true entries.
    pub fn of(standing: &[bool]) -> Self {
        Self { correct: standing.iter().filter(|standing| **standing).count(), of: standing.len() }
    }

    /// In `[0, 1]`; 0 of no examples.
    pub fn share(&self) -> f64 {
        self.correct as f64 / self.of.max(1) as f64
    }

    /// The 95 % interval of Wilson 1927; of no examples everything from 0 to 1. Two models on the same examples may differ
    /// where their intervals overlap: [`paired`] compares them example by example.
    pub fn interval(&self) -> (f64, f64) {
        if self.of == 0 {
            return (0.0, 1.0);
        }
        let (n, p, z) = (self.of as f64, self.share(), 1.959_963_984_540_054_f64);
        let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        (centre - half, centre + half)
    }
}

/// Two models compared on the same examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Examples that only the first withstood.
    pub only_first: usize,
    /// Examples that only the second withstood.
    pub only_second: usize,
    /// How likely the two counts are to be at least so far apart if neither model is better: McNemar's test, exact and
    /// two-sided. 1 where there is none.
    pub p: f64,
}

/// Compares two models, or two attacks on one, by what stood of the same examples in the same order, such as two
/// [`AttackOutcome::standing`]. Examples that both withstood, or neither, say nothing of the difference.
///
/// # Errors
/// [`Error::Setting`] unless there are as many entries of one as of the other.
pub fn paired(first: &[bool], second: &[bool]) -> Result<Paired> {
    if first.len() != second.len() {
        let found = format!("{} beside {}", second.len(), first.len());
        return Err(Error::setting("examples of the second", "as many as of the first", found));
    }
    let only =
        |this: &[bool], other: &[bool]| this.iter().zip(other).filter(|(this, other)| **this && !**other).count();
    let (only_first, only_second) = (only(first, second), only(second, first));
    let p = two_sided_binomial(only_first as u64, (only_first + only_second) as u64);
    Ok(Paired { only_first, only_second, p })
}

/// One attack's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackOutcome {
    /// The attack's name.
    pub attack: String,
    /// The attack with all its settings, as its `Debug` writes it: to be read, not parsed. Empty in reports of before it was
    /// stored.
    #[serde(default)]
    pub settings: String,
    /// Its budget.
    pub ball: Ball,
    /// Robust accuracy: examples right on the clean image and on the attack's. A random model is asked once more there,
    /// since success at one of an attack's many looks may be luck.
    pub robust: Accuracy,
    /// Robust accuracy of each class.
    pub per_class: Vec<Accuracy>,
    /// Which examples stood.
    pub standing: Vec<bool>,
    /// Size of each perturbation.
    pub distance: Vec<f64>,
    /// Images that went forward through the model.
    pub forward: u64,
    /// Images that went backward through it.
    pub backward: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// A point of a curve of robust accuracy over budgets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The attack, with its name at its own budget.
    pub attack: String,
    /// The attack's place in [`RobustnessReport::attacks`], where others may have its name. None in reports of before it was
    /// stored.
    #[serde(default)]
    pub place: Option<usize>,
    /// The budget.
    pub radius: f64,
    /// Robust accuracy. An example that a smaller budget broke stays broken.
    pub robust: Accuracy,
}

/// Robustness of one model on one set of examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RobustnessReport {
    /// The seed that everything random was derived from. 0 in reports of before it was stored.
    #[serde(default)]
    pub seed: u64,
    /// Accuracy on clean images.
    pub clean: Accuracy,
    /// Clean accuracy of each class.
    pub clean_per_class: Vec<Accuracy>,
    /// Every attack, in the order given.
    pub attacks: Vec<AttackOutcome>,
    /// Examples that stood against every attack: the mean over examples of the worst over attacks, not the worst of means.
    pub worst: Accuracy,
    /// The same for each class.
    pub worst_per_class: Vec<Accuracy>,
    /// Robust accuracy over budgets, attack by attack.
    pub curves: Vec<CurvePoint>,
    /// The looks for masked gradients, if asked for.
    pub masking: Vec<Check>,
    /// What is legal but probably not meant, each once: of the attacks, at their own budgets and the curve's; of the looks.
    pub warnings: Vec<String>,
}

impl RobustnessReport {
    /// Checks that failed.
    pub fn flags(&self) -> impl Iterator<Item = &Check> {
        self.masking.iter().filter(|check| check.passed == Some(false))
    }
}

/// Runs attacks on a model and reports.
pub struct Evaluator<'a> {
    model: &'a dyn Classifier,
    attacks: Vec<Box<dyn Attack>>,
    radii: Vec<f64>,
    masking: Option<(Ball, MaskingConfig)>,
    transfer: Option<&'a dyn Classifier>,
    batch: usize,
    seed: u64,
}

impl std::fmt::Debug for Evaluator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let attacks: Vec<_> = self.attacks.iter().map(|attack| attack.name()).collect();
        f.debug_struct("Evaluator").field("attacks", &attacks).field("radii", &self.radii).finish_non_exhaustive()
    }
}

impl<'a> Evaluator<'a> {
    /// Of a model, with a seed for everything random.
    pub fn new(model: &'a dyn Classifier, seed: u64) -> Self {
        Self { model, attacks: Vec::new(), radii: Vec::new(), masking: None, transfer: None, batch: 250, seed }
    }

    /// One more attack.
    pub fn attack(mut self, attack: impl Attack + 'static) -> Self {
        self.attacks.push(Box::new(attack));
        self
    }

    /// Draws a curve of every attack over these budgets.
    pub fn curve(self, radii: &[f64]) -> Self {
        let mut radii = radii.to_vec();
        radii.sort_by(f64::total_cmp);
        Self { radii, ..self }
    }

    /// Looks for masked gradients in `ball`.
    pub fn look_for_masking(self, ball: Ball, config: MaskingConfig) -> Self {
        Self { masking: Some((ball, config)), ..self }
    }

    /// A model trained without a defence, whose adversarial examples the model should withstand better than its own.
    pub fn transfer_from(self, undefended: &'a dyn Classifier) -> Self {
        Self { transfer: Some(undefended), ..self }
    }

    /// Images that go through the model at a time. 250 by default.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Runs everything on `images [batch, …]` with `labels [batch]`.
    ///
    /// # Errors
    /// As [`Attack::run`]; a setting of any attack, look or budget outside its range, and images outside any box,
    /// before the first attack runs.
    pub fn run(&self, images: &Tensor, labels: &Tensor) -> Result<RobustnessReport> {
        self.check(images)?;
        let goal = Goal::untargeted(labels);
        // Only its box matters here.
        let ball = self.attacks.first().map(|attack| attack.ball());
        let ball = ball.or(self.masking.as_ref().map(|(ball, _)| *ball)).unwrap_or(Ball::linf(0.0));
        let subject = Subject::new(self.model, &ball, images, &goal)?;
        let classes = subject.classes();
        let answers = Vec::<i64>::try_from(labels.to_device(Device::Cpu))?;
        let by_class = |standing: &[bool]| -> Vec<Accuracy> {
            let of_class = |class| answers.iter().zip(standing).filter(move |(label, _)| **label == class);
            let count = |class| {
                let flags: Vec<bool> = of_class(class).map(|(_, standing)| *standing).collect();
                Accuracy::of(&flags)
            };
            (0..classes).map(count).collect()
        };
        let mut clean = Vec::with_capacity(answers.len());
        for (x, y) in self.chunks(images, labels) {
            clean.extend(standing_of(&Goal::untargeted(&y).reached(&subject.logits(&x, 0)?))?);
        }
        let mut worst = clean.clone();
        let mut attacks = Vec::new();
        for (index, attack) in self.attacks.iter().enumerate() {
            let began = Instant::now();
            let seed = derive(self.seed, Purpose::Noise, index as u64);
            let (mut standing, mut distance) = (Vec::new(), Vec::new());
            let (mut forward, mut backward) = (0, 0);
            for (x, y) in self.chunks(images, labels) {
                let found = self.found(attack.as_ref(), &subject, &x, &Goal::untargeted(&y), seed)?;
                standing.extend(standing_of(&found.success)?);
                distance.extend(Vec::<f64>::try_from(found.distance.to_device(Device::Cpu))?);
                (forward, backward) = (forward + found.forward, backward + found.backward);
            }
            // A perturbation that happens to repair a wrong answer is no robustness.
            standing.iter_mut().zip(&clean).for_each(|(standing, &clean)| *standing &= clean);
            worst.iter_mut().zip(&standing).for_each(|(worst, &standing)| *worst &= standing);
            attacks.push(AttackOutcome {
                attack: attack.name(),
                settings: format!("{attack:?}"),
                ball: attack.ball(),
                robust: Accuracy::of(&standing),
                per_class: by_class(&standing),
                standing,
                distance,
                forward,
                backward,
                seconds: began.elapsed().as_secs_f64(),
            });
        }
        let masking = match &self.masking {
            Some((ball, config)) => {
                gradient_masking(self.model, self.transfer, images, labels, *ball, config, self.seed)?
            }
            None => Vec::new(),
        };
        Ok(RobustnessReport {
            seed: self.seed,
            clean: Accuracy::of(&clean),
            clean_per_class: by_class(&clean),
            worst: Accuracy::of(&worst),
            worst_per_class: by_class(&worst),
            curves: self.curves(&subject, images, labels, &clean)?,
            masking,
            warnings: self.warnings(images),
            attacks,
        })
    }

    /// What an attack finds. A random model is asked once more on its images, and that answer counts.
    fn found(
        &self,
        attack: &dyn Attack,
        subject: &Subject,
        images: &Tensor,
        goal: &Goal,
        seed: u64,
    ) -> Result<Adversarial> {
        let mut found = attack.run(self.model, images, goal, seed)?;
        if self.model.is_random() {
            found.success = goal.reached(&subject.logits(&found.images, 0)?);
            found.forward += images.size()[0] as u64;
        }
        Ok(found)
    }

    /// Refuses what would otherwise be refused only after earlier attacks have run, and take their results with it.
    fn check(&self, images: &Tensor) -> Result<()> {
        if self.batch == 0 {
            return Err(Error::setting("batch", "at least 1", self.batch));
        }
        for attack in &self.attacks {
            attack.check()?;
            attack.ball().check_images(images)?;
            self.radii.iter().try_for_each(|&radius| attack.with_radius(radius).check())?;
        }
        if let Some((ball, config)) = &self.masking {
            config.validate()?;
            ball.validate()?;
            ball.check_images(images)?;
        }
        Ok(())
    }

    fn warnings(&self, images: &Tensor) -> Vec<String> {
        let attacks = self.attacks.iter().flat_map(|attack| {
            let on_curve = self.radii.iter().flat_map(|&radius| attack.with_radius(radius).advice(images));
            attack.advice(images).into_iter().chain(on_curve)
        });
        // Of the looks' attacks this one has most to say.
        let looks = self.masking.iter().flat_map(|(ball, _)| Square::new(*ball).advice(images));
        each_once(attacks.chain(looks))
    }

    fn curves(&self, subject: &Subject, images: &Tensor, labels: &Tensor, clean: &[bool]) -> Result<Vec<CurvePoint>> {
        let mut points = Vec::new();
        for (index, attack) in self.attacks.iter().enumerate() {
            let seed = derive(self.seed, Purpose::Noise, index as u64);
            let mut standing = clean.to_vec();
            for &radius in &self.radii {
                let attack_here = attack.with_radius(radius);
                let places: Vec<i64> = (0..standing.len()).filter(|&i| standing[i]).map(|i| i as i64).collect();
                let selected = Tensor::from_slice(&places).to_device(images.device());
                let (x, y) = (images.index_select(0, &selected), labels.index_select(0, &selected));
                let mut still = Vec::with_capacity(places.len());
                for (x, y) in self.chunks(&x, &y) {
                    let found = self.found(attack_here.as_ref(), subject, &x, &Goal::untargeted(&y), seed)?;
                    still.extend(standing_of(&found.success)?);
                }
                places.iter().zip(still).for_each(|(&place, still)| standing[place as usize] = still);
                let (attack, robust) = (attack.name(), Accuracy::of(&standing));
                points.push(CurvePoint { attack, place: Some(index), radius, robust });
            }
        }
        Ok(points)
    }

    fn chunks(&self, images: &Tensor, labels: &Tensor) -> Vec<(Tensor, Tensor)> {
        chunks(images, labels, self.batch)
    }
}

/// The examples in groups of `batch`.
pub(crate) fn chunks(images: &Tensor, labels: &Tensor, batch: usize) -> Vec<(Tensor, Tensor)> {
    let count = images.size()[0];
    let starts = (0..count).step_by(batch.max(1));
    let batch = i64::try_from(batch.max(1)).unwrap_or(i64::MAX);
    let part = |start: i64| {
        let length = (count - start).min(batch);
        (images.narrow(0, start, length), labels.narrow(0, start, length))
    };
    starts.map(part).collect()
}

/// Which examples an attack has not fooled.
pub(crate) fn standing_of(success: &Tensor) -> Result<Vec<bool>> {
    Ok(Vec::<bool>::try_from(success.logical_not().to_device(Device::Cpu))?)
}
