//! Carlini and Wagner's attack for the least Euclidean perturbation.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::loss::margin;
use super::rows::broadcast;
use super::run::{Adversarial, Attack, Subject, in_parts};
use super::{Ball, Error, Goal, Loss, Norm, Result};

/// How an image is kept inside the box while Adam moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// `x = (tanh w + 1) / 2` of the box, the paper's. A pixel that starts at an end of the box has no gradient and all but
    /// stays there.
    Tanh,
    /// The image itself, clipped after every step. Moves pixels off the ends of the box, where most of a drawing's are.
    Clipped,
}

/// The L2 attack of Carlini and Wagner 2017 (arXiv 1608.04644): Adam on `|x' − x|² + c · max(z_y − max_{j ≠ y} z_j, −κ)`, with
/// a binary search over `c` for every example; the nearest success is kept.
///
/// Success is one within the ball, which must be of norm L2; for the least perturbation of any size take a radius as large
/// as the box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CwL2 {
    /// What the attacker may do.
    pub ball: Ball,
    /// How far the wrong class must lead, κ. The paper's 0 by default.
    pub confidence: f64,
    /// Adam steps for a value of `c`. 1000 by default.
    pub steps: usize,
    /// Adam's learning rate. The paper's 0.01 by default.
    pub learning_rate: f64,
    /// Values of `c` tried. The paper's 9 by default.
    pub search_steps: usize,
    /// The first `c`, multiplied by 10 until one succeeds. 0.001 by default.
    pub initial_constant: f64,
    /// What Adam moves. The paper's [`Variable::Tanh`] by default.
    pub variable: Variable,
}

impl CwL2 {
    /// The paper's settings within a budget.
    pub fn new(radius: f64) -> Self {
        Self {
            ball: Ball::l2(radius),
            confidence: 0.0,
            steps: 1000,
            learning_rate: 0.01,
            search_steps: 9,
            initial_constant: 1e-3,
            variable: Variable::Tanh,
        }
    }

    /// Moves the image itself, clipped.
    pub fn clipped(self) -> Self {
        Self { variable: Variable::Clipped, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.ball.validate()?;
        if self.ball.norm != Norm::L2 {
            return Err(Error::setting("norm", "l2", self.ball.norm.name()));
        }
        for (setting, value) in [("steps", self.steps), ("search_steps", self.search_steps)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", value));
            }
        }
        for (setting, value) in [("learning_rate", self.learning_rate), ("initial_constant", self.initial_constant)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::setting(setting, "a finite number above 0", value));
            }
        }
        if !(self.confidence >= 0.0 && self.confidence.is_finite()) {
            return Err(Error::setting("confidence", "a finite number of at least 0", self.confidence));
        }
        Ok(())
    }

    /// `max(z_y − max_{j ≠ y} z_j, −κ)`; with a target `max(max_{j ≠ t} z_j − z_t, −κ)`.
    fn hinge(&self, logits: &Tensor, goal: &Goal) -> Tensor {
        let lead = match goal {
            Goal::Untargeted { labels } => margin(logits, labels),
            Goal::Targeted { targets, .. } => -margin(logits, targets),
        };
        lead.clamp_min(-self.confidence)
    }

    fn image_of(&self, variable: &Tensor) -> Tensor {
        match self.variable {
            Variable::Tanh => (variable.tanh() + 1.0) * (0.5 * (self.ball.high - self.ball.low)) + self.ball.low,
            Variable::Clipped => variable.shallow_clone(),
        }
    }

    /// One descent with fixed constants `[batch]`; writes nearer successes into `best`.
    fn descend(
        &self,
        subject: &Subject,
        images: &Tensor,
        goal: &Goal,
        constants: &Tensor,
        best: &mut Best,
    ) -> Result<Tensor> {
        let width = self.ball.high - self.ball.low;
        let mut variable = match self.variable {
            // Shrunk a little towards the middle, so that the ends of the box have a finite pre-image.
            Variable::Tanh => ((images - self.ball.low) / width * 2.0 - 1.0).g_mul_scalar(0.999_999).atanh(),
            Variable::Clipped => images.copy(),
        };
        let (mut first, mut second) = (variable.zeros_like(), variable.zeros_like());
        let constant = broadcast(constants, images.dim());
        let mut succeeded = Tensor::zeros_like(constants).to_kind(Kind::Bool);
        for step in 0..=self.steps {
            let image = self.image_of(&variable);
            let change = &image - images;
            let evaluation = subject.evaluate(&image, step, |logits| Ok(self.hinge(logits, goal)))?;
            let distance = self.ball.norm.size(&change);
            let fooled = goal.reached(&evaluation.logits).logical_and(&evaluation.loss.le(1e-12 - self.confidence));
            succeeded = succeeded.logical_or(&fooled);
            best.take(&image, &distance, &fooled);
            if step == self.steps {
                break;
            }
            let mut slope = change * 2.0 + evaluation.gradient * &constant;
            if self.variable == Variable::Tanh {
                slope = slope * (1.0 - variable.tanh().square()) * (0.5 * width);
            }
            // Adam with the usual decay rates.
            first = first * 0.9 + &slope * 0.1;
            second = second * 0.999 + slope.square() * 0.001;
            let time = step as i32 + 1;
            let (unbiased, scale) = (&first / (1.0 - 0.9_f64.powi(time)), &second / (1.0 - 0.999_f64.powi(time)));
            variable -= unbiased / (scale.sqrt() + 1e-8) * self.learning_rate;
            if self.variable == Variable::Clipped {
                let _ = variable.clamp_(self.ball.low, self.ball.high);
            }
        }
        Ok(succeeded)
    }
}

/// The nearest successes so far.
struct Best {
    images: Tensor,
    /// In double precision; infinite where there is none.
    distance: Tensor,
}

impl Best {
    fn take(&mut self, images: &Tensor, distance: &Tensor, fooled: &Tensor) {
        let nearer = fooled.logical_and(&distance.lt_tensor(&self.distance));
        self.images = images.where_self(&broadcast(&nearer, images.dim()), &self.images);
        self.distance = distance.where_self(&nearer, &self.distance);
    }
}

impl Attack for CwL2 {
    fn name(&self) -> String {
        match self.variable {
            Variable::Tanh => "cw-l2".to_owned(),
            Variable::Clipped => "cw-clipped-l2".to_owned(),
        }
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

    /// The seed is not used: nothing here is random.
    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, _seed: u64) -> Result<Adversarial> {
        self.validate()?;
        in_parts(model, &self.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal))
    }
}

impl CwL2 {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal) -> Result<Adversarial> {
        Loss::Margin.check_classes(subject.classes(), goal.targets().is_some())?;
        let options = (images.kind(), images.device());
        let count = images.size()[0];
        let mut best = Best {
            images: images.copy(),
            distance: Tensor::full([count], f64::INFINITY, (Kind::Double, images.device())),
        };
        // Where the goal is reached by no change at all, nothing is nearer.
        best.take(images, &best.distance.zeros_like(), &goal.reached(&subject.logits(images, 0)?));
        let mut constants = Tensor::full([count], self.initial_constant, options);
        let mut low = Tensor::zeros([count], options);
        let mut high = Tensor::full([count], f64::INFINITY, options);
        for _ in 0..self.search_steps {
            let succeeded = self.descend(subject, images, goal, &constants, &mut best)?;
            high = high.minimum(&constants).where_self(&succeeded, &high);
            low = low.where_self(&succeeded, &low.maximum(&constants));
            let middle = (&low + &high) * 0.5;
            constants = middle.where_self(&high.isfinite(), &(&constants * 10.0));
        }
        let success = best.distance.le(self.ball.radius);
        let found = best.images.where_self(&broadcast(&success, images.dim()), images);
        Ok(subject.finish(images, found, success, None, Norm::L2))
    }
}
