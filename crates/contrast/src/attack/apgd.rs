//! APGD: projected ascent that chooses its own steps.

mod climb;

use climb::{Climber, Found};
use core_tensor::seed::{Purpose, derive};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::classifier::Classifier;
use super::run::{Adversarial, Attack, Standing, Subject, in_parts, in_placed_parts};
use super::streams::Streams;
use super::{Ball, Error, Goal, Loss, Norm, Result};

/// Auto-PGD (Croce and Hein 2020, arXiv 2003.01690, algorithm 1): momentum, a step that is halved where the loss has
/// stopped rising, and restarts from the best point. In the L1 ball the sparse variant of Croce and Hein 2021
/// (arXiv 2103.01208).
///
/// An example that is fooled at any iterate is done and costs no more passes; that changes no result of a model that is not
/// random. Of one that is, where one look may be luck, the climb goes on, and the last iterate that fooled is kept, as by the
/// authors' code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Apgd {
    /// What the attacker may do.
    pub ball: Ball,
    /// What is maximised. Cross-entropy by default; the paper's other one is [`Loss::Dlr`].
    pub loss: Loss,
    /// Steps of a restart. The paper's 100 by default.
    pub steps: usize,
    /// Restarts, each on what still stands. 1 by default.
    pub restarts: usize,
    /// The step is halved at a check-point unless the loss rose in more than this share of the steps since the last one.
    /// The paper's ρ, 0.75 by default.
    pub rho: f64,
    /// Gradients averaged a step, for a model that is random; AutoAttack's `rand` takes 20. 1 by default.
    pub passes: usize,
}

impl Apgd {
    /// The paper's settings with cross-entropy.
    pub fn new(ball: Ball) -> Self {
        Self { ball, loss: Loss::CrossEntropy, steps: 100, restarts: 1, rho: 0.75, passes: 1 }
    }

    /// The paper's settings with the difference of logits ratio.
    pub fn dlr(ball: Ball) -> Self {
        Self { loss: Loss::Dlr, ..Self::new(ball) }
    }

    /// Other number of steps.
    pub fn with_steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// Other number of restarts.
    pub fn with_restarts(self, restarts: usize) -> Self {
        Self { restarts, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.ball.validate()?;
        for (setting, value) in [("steps", self.steps), ("restarts", self.restarts), ("passes", self.passes)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", value));
            }
        }
        if !(0.0..=1.0).contains(&self.rho) {
            return Err(Error::setting("rho", "in [0, 1]", self.rho));
        }
        // The logits of the clean images, which it compares with, are not at hand during a climb.
        if self.loss == Loss::KullbackLeibler {
            return Err(Error::setting("loss", "any but KullbackLeibler, which Pgd maximises", "KullbackLeibler"));
        }
        Ok(())
    }

    /// The steps after which the step size is looked at: after 0.22 of all, then in intervals that shrink by 0.03 down to
    /// 0.06 of all (section 3.1), each of whole steps, as in the reference code. In the L1 ball every 0.04 of all.
    pub fn checkpoints(&self) -> Vec<usize> {
        let share = |hundredths: usize| (hundredths * self.steps / 100).max(1);
        let mut interval = if self.ball.norm == Norm::L1 { share(4) } else { share(22) };
        let mut at = interval;
        let mut all = Vec::new();
        while at <= self.steps {
            all.push(at);
            if self.ball.norm != Norm::L1 {
                interval = interval.saturating_sub(share(3)).max(share(6));
            }
            at += interval;
        }
        all
    }

    /// Attacks what stands; writes the fooled, and for the others the point of highest loss, into `found`.
    ///
    /// `goal` says what counts as success, `direction` what the loss aims at.
    fn restart(
        &self,
        subject: &Subject,
        images: &Tensor,
        goal: &Goal,
        direction: &Goal,
        start: StartingPoint,
        found: &mut Found,
    ) -> Result<()> {
        let standing = Standing::without(&found.success);
        if standing.len() == 0 {
            return Ok(());
        }
        let places = Vec::<i64>::try_from(standing.places().to_device(tch::Device::Cpu))?;
        let clean = standing.rows(images);
        let (goal, direction) = (goal.select(standing.places()), direction.select(standing.places()));
        let (start, given) = match start {
            StartingPoint::Random(streams) => (starting_point(&self.ball, &clean, &streams.select(&places))?, false),
            StartingPoint::Given(points) => (standing.rows(points), true),
        };
        // The wider balls around an L1 ball would leave a given start, and count no success there.
        if self.ball.norm != Norm::L1 || given {
            let climber = Climber { config: self, subject, count_success: true, fresh: given };
            return climber.climb(standing, &clean, goal, direction, start, found);
        }
        // The L1 ball is approached from outside: through balls of three and two times the radius. Success there counts
        // for nothing, so the stages write into a result of their own.
        let mut point = start;
        let steps = [3 * self.steps / 10, 3 * self.steps / 10, self.steps - 2 * (3 * self.steps / 10)];
        for (factor, steps) in [(3.0, steps[0]), (2.0, steps[1])] {
            if steps == 0 {
                continue;
            }
            let stage = Self { ball: self.ball.with_radius(factor * self.ball.radius), steps, ..self.clone() };
            point = stage.ball.project(&clean, &point)?;
            let mut wider = Found::new(&clean);
            let all = Standing::all(clean.size()[0], clean.device());
            let climber = Climber { config: &stage, subject, count_success: false, fresh: factor == 3.0 };
            climber.climb(all, &clean, goal.shallow_clone(), direction.shallow_clone(), point, &mut wider)?;
            point = wider.images;
        }
        let last = Self { steps: steps[2], ..self.clone() };
        let point = self.ball.project(&clean, &point)?;
        let climber = Climber { config: &last, subject, count_success: true, fresh: false };
        climber.climb(standing, &clean, goal, direction, point, found)
    }

    /// As [`Attack::run`], with the first restart from `start`, of the images' shape and kind: what another attack found, or
    /// the examples of another model. It is projected into ball and box first. In the L1 ball that restart does without
    /// the wider balls of the sparse variant. Further restarts begin at random points.
    ///
    /// # Errors
    /// As [`Attack::run`]; a start of another shape or kind than the images.
    pub fn run_from(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        start: &Tensor,
        goal: &Goal,
        seed: u64,
    ) -> Result<Adversarial> {
        self.validate()?;
        self.ball.check_images(images)?;
        let start = self.ball.start_at(&images.detach(), start)?;
        self.attack(model, images, Some(&start), goal, seed)
    }

    fn attack(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        start: Option<&Tensor>,
        goal: &Goal,
        seed: u64,
    ) -> Result<Adversarial> {
        in_placed_parts(model, &self.ball, images, goal, |subject, images, goal, place| {
            self.loss.check_classes(subject.classes(), goal.targets().is_some())?;
            let start = start.map(|start| start.narrow(0, place, images.size()[0]));
            let mut found = Found::new(images);
            for restart in 0..self.restarts {
                let streams = Streams::new(derive(seed, Purpose::Noise, restart as u64), images)?;
                let from = match &start {
                    Some(start) if restart == 0 => StartingPoint::Given(start),
                    _ => StartingPoint::Random(&streams),
                };
                self.restart(subject, images, goal, goal, from, &mut found)?;
            }
            Ok(found.finish(subject, images, self.ball.norm))
        })
    }
}

/// Where a restart begins.
#[derive(Clone, Copy)]
enum StartingPoint<'a> {
    /// At random points on the surface.
    Random(&'a Streams),
    /// At these points of ball and box, of the whole batch.
    Given(&'a Tensor),
}

impl Attack for Apgd {
    fn name(&self) -> String {
        let loss = match self.loss {
            Loss::CrossEntropy => "ce",
            Loss::Dlr => "dlr",
            Loss::Margin => "margin",
            Loss::KullbackLeibler => "kl",
            Loss::Custom(_) => "custom",
        };
        format!("apgd-{loss}-{}", self.ball.norm.name())
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn with_radius(&self, radius: f64) -> Box<dyn Attack> {
        Box::new(Self { ball: self.ball.with_radius(radius), ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.validate()?;
        self.attack(model, images, None, goal, seed)
    }
}

/// Targeted APGD as AutoAttack runs it: once for each of the classes that the clean image comes closest to, with the
/// targeted loss, each on what still stands. Any wrong class counts as success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApgdTargeted {
    /// The attack on one class; its loss is [`Loss::Dlr`] by default.
    pub apgd: Apgd,
    /// How many classes, at most all but the label. AutoAttack's 9 by default.
    pub targets: usize,
}

impl ApgdTargeted {
    /// AutoAttack's settings.
    pub fn new(ball: Ball) -> Self {
        Self { apgd: Apgd::dlr(ball), targets: 9 }
    }
}

impl Attack for ApgdTargeted {
    fn name(&self) -> String {
        self.apgd.name().replacen("apgd", "apgd-t", 1)
    }

    fn ball(&self) -> Ball {
        self.apgd.ball
    }

    fn with_radius(&self, radius: f64) -> Box<dyn Attack> {
        let ball = self.apgd.ball.with_radius(radius);
        Box::new(Self { apgd: Apgd { ball, ..self.apgd.clone() }, ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        self.apgd.validate()?;
        if self.targets == 0 {
            return Err(Error::setting("targets", "at least 1", self.targets));
        }
        Ok(())
    }

    /// A goal with targets of its own is attacked on those alone, as by [`Apgd`].
    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.check()?;
        if goal.targets().is_some() {
            return self.apgd.run(model, images, goal, seed);
        }
        in_parts(model, &self.apgd.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal, seed))
    }
}

impl ApgdTargeted {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.apgd.loss.check_classes(subject.classes(), true)?;
        let mut found = Found::new(images);
        let logits = subject.logits(images, 0)?;
        found.start(goal.reached(&logits));
        for (rank, targets) in nearest_classes(&logits, goal.labels(), self.targets).into_iter().enumerate() {
            let direction = Goal::targeted(goal.labels(), &targets);
            for restart in 0..self.apgd.restarts {
                let counter = (rank * self.apgd.restarts + restart) as u64;
                let streams = Streams::new(derive(seed, Purpose::Noise, counter), images)?;
                // Losses towards different classes cannot be compared: the best point of an earlier class is not kept.
                found.forget_losses();
                self.apgd.restart(subject, images, goal, &direction, StartingPoint::Random(&streams), &mut found)?;
            }
        }
        Ok(found.finish(subject, images, self.apgd.ball.norm))
    }
}

/// The wrong classes of every example from the largest logit down, the first `count` of them.
pub(crate) fn nearest_classes(logits: &Tensor, labels: &Tensor, count: usize) -> Vec<Tensor> {
    let wrong = logits.size()[1] - 1;
    let others = logits.scatter_value(1, &labels.unsqueeze(1), f64::NEG_INFINITY);
    let (_, order) = others.sort(1, true);
    (0..wrong.min(i64::try_from(count).unwrap_or(i64::MAX))).map(|rank| order.select(1, rank)).collect()
}

/// A random point on the surface: a random direction of the ball's largest size, cut by the box.
fn starting_point(ball: &Ball, images: &Tensor, streams: &Streams) -> Result<Tensor> {
    let (norm, radius) = (ball.norm, ball.radius);
    let noise = streams.fill(images, 0, |rng, row| match norm {
        Norm::Linf => {
            row.fill_with(|| rng.random_range(-1.0..=1.0));
            let largest = row.iter().fold(f64::MIN_POSITIVE, |a, b| a.max(b.abs()));
            row.iter_mut().for_each(|value| *value *= radius / largest);
        }
        // In L1 the Gaussian is projected, which leaves few pixels.
        Norm::L2 | Norm::L1 => {
            row.fill_with(|| StandardNormal.sample(rng));
            if norm == Norm::L2 {
                let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
                row.iter_mut().for_each(|value| *value *= radius / length);
            }
        }
    })?;
    ball.project(images, &(images + noise))
}
