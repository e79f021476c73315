//! FAB: the nearest point on the other side of the decision boundary.

use core_tensor::seed::{Purpose, derive};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::apgd::nearest_classes;
use super::classifier::Classifier;
use super::loss::of_class;
use super::projection::onto_hyperplane_and_box;
use super::rows::{broadcast, rounded, to_rows};
use super::run::{Adversarial, Attack, Subject, in_parts};
use super::streams::Streams;
use super::{Ball, Error, Goal, Norm, Result};

/// The fast adaptive boundary attack (Croce and Hein 2020, arXiv 1907.02044): the boundary of a class is linearised, the
/// iterate projected onto it within the box, and the result pulled towards the clean image. Which class is up to
/// [`Fab::aim`].
///
/// It looks for the least perturbation; success is one within the ball. For the least perturbation of any size take a
/// radius as large as the box and [`Fab::minimising`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fab {
    /// What the attacker may do.
    pub ball: Ball,
    /// Iterations for a class. 100 by default.
    pub steps: usize,
    /// Which boundaries the iterates go to. Those of [`Aim::Classes`] by default.
    #[serde(default)]
    pub aim: Aim,
    /// For [`Aim::Classes`] how many classes, at most all but the label. AutoAttack's 9 by default.
    pub targets: usize,
    /// Runs (for a class, where classes are tried one by one): the first from the image, the others from random points. 1 by
    /// default.
    pub restarts: usize,
    /// The largest pull towards the projection of the clean image. The paper's 0.1 by default.
    pub alpha_max: f64,
    /// How far a step overshoots the boundary, at least 1. The paper's 1.05 by default.
    pub eta: f64,
    /// The share of the perturbation that is kept once it fools the model. The paper's 0.9 by default.
    pub beta: f64,
    /// Whether an example is left alone once it is fooled within the ball. True by default: success is all a robust
    /// accuracy asks for.
    pub stop_inside: bool,
}

/// Which boundaries the iterates of [`Fab`] go to, where the goal names no class itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// The boundary of one class, for each of the [`Fab::targets`] classes that the clean image comes closest to: the targeted
    /// form, a pass forward and one backward a step and class.
    #[default]
    Classes,
    /// At every step the nearest of all linearised boundaries, as the paper has it: a pass forward and one backward for every
    /// class a step.
    Nearest,
}

impl Fab {
    /// AutoAttack's settings of the targeted form.
    pub fn new(ball: Ball) -> Self {
        Self {
            ball,
            steps: 100,
            aim: Aim::Classes,
            targets: 9,
            restarts: 1,
            alpha_max: 0.1,
            eta: 1.05,
            beta: 0.9,
            stop_inside: true,
        }
    }

    /// The paper's untargeted form, [`Aim::Nearest`].
    pub fn untargeted(ball: Ball) -> Self {
        Self { aim: Aim::Nearest, ..Self::new(ball) }
    }

    /// Goes on for a smaller perturbation after one inside the ball is found.
    pub fn minimising(self) -> Self {
        Self { stop_inside: false, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.ball.validate()?;
        for (setting, value) in [("steps", self.steps), ("targets", self.targets), ("restarts", self.restarts)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", value));
            }
        }
        for (setting, value) in [("alpha_max", self.alpha_max), ("beta", self.beta)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::setting(setting, "in [0, 1]", value));
            }
        }
        if !(self.eta >= 1.0 && self.eta.is_finite()) {
            return Err(Error::setting("eta", "a finite number of at least 1", self.eta));
        }
        Ok(())
    }

    /// All iterations towards one class of every example, `targets` of the whole batch, or towards the nearest one at each
    /// step.
    fn approach(
        &self,
        subject: &Subject,
        walkers: &mut [Walker],
        like: &Tensor,
        goal: &Goal,
        targets: Option<&Tensor>,
    ) -> Result<()> {
        let mut active: Vec<&mut Walker> = walkers.iter_mut().filter(|w| !self.is_done(w)).collect();
        for step in 0..self.steps {
            if active.is_empty() {
                return Ok(());
            }
            let point = batch_of(&active, like);
            let places = Tensor::from_slice(&active.iter().map(|w| w.place as i64).collect::<Vec<_>>());
            let places = places.to_device(like.device());
            let labels = goal.labels().index_select(0, &places);
            let (differences, normals) = match targets {
                Some(targets) => {
                    let targets = targets.index_select(0, &places);
                    let difference = |logits: &Tensor| Ok(of_class(logits, &targets) - of_class(logits, &labels));
                    let evaluation = subject.evaluate(&point, step, difference)?;
                    (evaluation.loss, evaluation.gradient)
                }
                None => self.nearest(subject, &point, &labels, step)?,
            };
            let differences = Vec::<f64>::try_from(differences.to_kind(Kind::Double).to_device(tch::Device::Cpu))?;
            let (normals, width) = to_rows(&normals)?;
            let single = like.kind() == Kind::Float;
            let little = active.len() * width < LITTLE;
            let step_one = |((walker, normal), &d): ((&mut &mut Walker, &[f64]), &f64)| {
                walker.step(self, normal, d, single);
            };
            if little {
                active.iter_mut().zip(normals.chunks(width)).zip(&differences).for_each(step_one);
            } else {
                active.par_iter_mut().zip(normals.par_chunks(width)).zip(&differences).for_each(step_one);
            }
            let logits = subject.logits(&batch_of(&active, like), step)?;
            let goal = goal.select(&places);
            let reached = Vec::<bool>::try_from(goal.reached(&logits).to_device(tch::Device::Cpu))?;
            for (walker, _) in active.iter_mut().zip(&reached).filter(|(_, reached)| **reached) {
                walker.keep(self, single);
            }
            active.retain(|walker| !self.is_done(walker));
        }
        Ok(())
    }

    /// Of every example the class `c` whose linearised boundary is nearest in the ball's norm, by `|z_c − z_y|` over the dual
    /// norm of its gradient: the difference `z_c − z_y`, `[batch]`, and its gradient.
    fn nearest(&self, subject: &Subject, point: &Tensor, labels: &Tensor, step: usize) -> Result<(Tensor, Tensor)> {
        let dual = match self.ball.norm {
            Norm::Linf => Norm::L1,
            Norm::L2 => Norm::L2,
            Norm::L1 => Norm::Linf,
        };
        let mut least = Tensor::full([point.size()[0]], f64::INFINITY, (Kind::Double, point.device()));
        let (mut difference, mut normal) = (least.zeros_like(), point.zeros_like());
        subject.differences(point, labels, step, |class, found, gradient| {
            let distance = found.abs() / (dual.size(gradient) + 1e-12);
            let nearer = distance.lt_tensor(&least).logical_and(&labels.ne(class));
            least = distance.where_self(&nearer, &least);
            difference = found.where_self(&nearer, &difference);
            normal = gradient.where_self(&broadcast(&nearer, point.dim()), &normal);
        })?;
        Ok((difference, normal))
    }

    fn is_done(&self, walker: &Walker) -> bool {
        self.stop_inside && walker.best_size <= self.ball.radius
    }
}

/// A batch of fewer values is not worth handing to other threads, while libtorch's still wait for their next operation.
const LITTLE: usize = 1 << 17;

/// One example on its way.
struct Walker {
    place: usize,
    clean: Vec<f64>,
    point: Vec<f64>,
    best: Vec<f64>,
    best_size: f64,
}

impl Walker {
    /// Projects the iterate and the clean image onto the linearised boundary `d + normal · (z − point) = 0` and goes to a
    /// mixture of both, a little beyond.
    fn step(&mut self, config: &Fab, normal: &[f64], difference: f64, single: bool) {
        let (ball, width) = (&config.ball, self.point.len());
        let offset = self.point.iter().zip(normal).map(|(x, w)| x * w).sum::<f64>() - difference;
        let mut from_point = vec![0.0; width];
        let mut from_clean = vec![0.0; width];
        let limits = (ball.low, ball.high);
        onto_hyperplane_and_box(ball.norm, &self.point, normal, offset, limits, &mut from_point);
        onto_hyperplane_and_box(ball.norm, &self.clean, normal, offset, limits, &mut from_clean);
        let (near, far) = (size(ball.norm, &from_point).max(1e-8), size(ball.norm, &from_clean).max(1e-8));
        let alpha = (near / (near + far)).min(config.alpha_max);
        for i in 0..width {
            let forward = self.point[i] + config.eta * from_point[i];
            let home = self.clean[i] + config.eta * from_clean[i];
            let mixed = (forward * (1.0 - alpha) + home * alpha).clamp(ball.low, ball.high);
            // The iterate is kept in the images' own precision.
            self.point[i] = rounded(mixed, single);
        }
    }

    /// The iterate fools the model: it is kept if it is nearer than the best, and the next one starts closer to the image.
    fn keep(&mut self, config: &Fab, single: bool) {
        let change: Vec<f64> = self.point.iter().zip(&self.clean).map(|(a, b)| a - b).collect();
        let size = size(config.ball.norm, &change);
        if size < self.best_size {
            self.best_size = size;
            self.best.clone_from(&self.point);
        }
        for (i, change) in change.iter().enumerate() {
            self.point[i] = rounded(self.clean[i] + config.beta * change, single);
        }
    }
}

fn size(norm: Norm, change: &[f64]) -> f64 {
    match norm {
        Norm::Linf => change.iter().fold(0.0, |a: f64, b| a.max(b.abs())),
        Norm::L2 => change.iter().map(|v| v * v).sum::<f64>().sqrt(),
        Norm::L1 => change.iter().map(|v| v.abs()).sum(),
    }
}

fn batch_of(walkers: &[&mut Walker], like: &Tensor) -> Tensor {
    let mut shape = like.size();
    shape[0] = walkers.len() as i64;
    let values = || walkers.iter().flat_map(|walker| &walker.point);
    let tensor = if like.kind() == Kind::Float {
        let mut single = Vec::with_capacity(like.numel());
        values().for_each(|&value| single.push(value as f32));
        Tensor::from_slice(&single)
    } else {
        Tensor::from_slice(&values().copied().collect::<Vec<f64>>())
    };
    tensor.reshape(shape).to_device(like.device())
}

impl Attack for Fab {
    fn name(&self) -> String {
        let form = match self.aim {
            Aim::Classes => "fab-t",
            Aim::Nearest => "fab",
        };
        format!("{form}-{}", self.ball.norm.name())
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
        in_parts(model, &self.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal, seed))
    }
}

impl Fab {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        let logits = subject.logits(images, 0)?;
        let reached = Vec::<bool>::try_from(goal.reached(&logits).to_device(tch::Device::Cpu))?;
        let classes = match (goal, self.aim) {
            (Goal::Targeted { targets, .. }, _) => vec![Some(targets.shallow_clone())],
            (Goal::Untargeted { labels }, Aim::Classes) => {
                nearest_classes(&logits, labels, self.targets).into_iter().map(Some).collect()
            }
            (Goal::Untargeted { .. }, Aim::Nearest) => vec![None],
        };
        let (pixels, width) = to_rows(images)?;
        let rows = pixels.chunks(width).zip(&reached).enumerate();
        let mut walkers: Vec<Walker> = rows
            .map(|(place, (row, &reached))| Walker {
                place,
                clean: row.to_vec(),
                point: row.to_vec(),
                best: row.to_vec(),
                // Where the goal is reached by no change at all, nothing is nearer.
                best_size: if reached { 0.0 } else { f64::INFINITY },
            })
            .collect();
        for (rank, targets) in classes.iter().enumerate() {
            for restart in 0..self.restarts {
                let starts = if restart == 0 {
                    pixels.clone()
                } else {
                    let streams = Streams::new(derive(seed, Purpose::Noise, rank as u64), images)?;
                    to_rows(&self.ball.random_point(images, &streams, restart as u64)?)?.0
                };
                for (walker, start) in walkers.iter_mut().zip(starts.chunks(width)) {
                    walker.point.copy_from_slice(start);
                }
                let mut moving: Vec<Walker> = Vec::new();
                let mut resting: Vec<Walker> = Vec::new();
                for walker in walkers.drain(..) {
                    if walker.best_size == 0.0 { resting.push(walker) } else { moving.push(walker) }
                }
                self.approach(subject, &mut moving, images, goal, targets.as_ref())?;
                walkers.extend(moving.into_iter().chain(resting));
                walkers.sort_unstable_by_key(|walker| walker.place);
            }
        }
        let success: Vec<bool> = walkers.iter().map(|walker| walker.best_size <= self.ball.radius).collect();
        let found: Vec<f64> = walkers
            .iter()
            .zip(&success)
            .flat_map(|(walker, &success)| if success { &walker.best } else { &walker.clean }.iter().copied())
            .collect();
        let found = super::rows::from_rows(&found, images);
        let success = Tensor::from_slice(&success).to_device(images.device());
        Ok(subject.finish(images, found, success, None, self.ball.norm))
    }
}
