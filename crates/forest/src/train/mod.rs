//! Training all trees together: two matrix products and a recursion a step, no framework.
//!
//! Trees are spread over threads; every tree's arithmetic is sequential, so the number of threads changes nothing.

mod closed_form;
pub(crate) mod pass;
mod tree;

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::error::{ForestError, Result};
use crate::params::{Augment, LeafUpdate, Leafness, Loss, SoftForestParams};
use crate::train::tree::{Step, TreeTrainer, output_loss};
use crate::tree::Tree;

/// Streams of the seed, so that what is drawn for one purpose never depends on another.
#[derive(Clone, Copy)]
enum Stream {
    Tree = 0,
    Order = 1,
    Augment = 2,
    Bag = 3,
    Mask = 4,
    Split = 5,
}

fn generator(seed: u64, stream: Stream, index: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((stream as u64) << 48) | index as u64);
    rng
}

/// What is to be predicted.
pub(crate) enum Targets {
    /// Class numbers.
    Classes(Vec<usize>),
    /// Values `[rows, outputs]`.
    Values(Array2<f32>),
}

impl Targets {
    pub(crate) fn is_classes(&self) -> bool {
        matches!(self, Self::Classes(_))
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Targets {
        match self {
            Self::Classes(labels) => Targets::Classes(rows.iter().map(|&r| labels[r]).collect()),
            Self::Values(values) => Targets::Values(values.select(ndarray::Axis(0), rows)),
        }
    }
}

/// A training set as the trees see it.
pub(crate) struct TrainingSet<'a> {
    /// Unscaled inputs `[rows, inputs]`.
    pub(crate) x: ArrayView2<'a, f32>,
    pub(crate) targets: Targets,
    /// Weight of each row; mean 1.
    pub(crate) weights: Vec<f32>,
    /// Weight of each row in each tree `[trees, rows]`, on top of `weights`.
    pub(crate) tree_weights: Option<Array2<u8>>,
    /// Number of forests that the trees make, as many trees each: the joint loss is that of each forest's mean.
    pub(crate) forests: usize,
}

/// What one epoch did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Training loss: mean over samples, mean over trees.
    pub loss: f64,
    /// Score on the held-out rows: accuracy, or R^2 for regression (the negative sum of squared errors where held-out targets
    /// do not vary, as one row's never do). `None` without early stopping.
    pub validation: Option<f64>,
    /// Expected number of nodes of a tree, averaged over the trees.
    pub expected_nodes: f32,
}

/// What a call of [`train`] did.
pub(crate) struct Training {
    pub(crate) history: Vec<Epoch>,
    /// Inverse temperature of the epoch that the trees are of; the first one's when there was none.
    pub(crate) inverse_temperature: f32,
}

/// Fresh trees. Tree t depends on the seed and on t alone.
pub(crate) fn fresh_trees(params: &SoftForestParams, inputs: usize, outputs: usize) -> Vec<Tree> {
    (0..params.trees)
        .map(|t| Tree::random(params, inputs, outputs, &mut generator(params.seed, Stream::Tree, t)))
        .collect()
}

/// Splits rows at random for early stopping: (training rows, held-out rows).
pub(crate) fn holdout(rows: usize, fraction: f32, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut generator(seed, Stream::Split, 0));
    let held = ((rows as f64 * f64::from(fraction)).round() as usize).clamp(1, rows.max(2) - 1);
    let training = order.split_off(held.min(order.len()));
    (training, order)
}

/// One call's plan.
pub(crate) struct Plan<'a> {
    pub(crate) epochs: usize,
    /// Rows to train on.
    pub(crate) rows: Vec<usize>,
    /// Rate at the first step, as a multiple of the configured one.
    pub(crate) rate_factor: f32,
    /// Whether the rate decays to 0 by a cosine.
    pub(crate) decay: bool,
    pub(crate) learn_shape: bool,
    /// Inverse temperatures of the first and the last epoch.
    pub(crate) inverse_temperature: [f32; 2],
    /// Number of epochs trained before: moves the random streams on.
    pub(crate) first_epoch: usize,
    /// Which bags are drawn: those of one fit are the same throughout, those of later rows are others. Augmentations of later
    /// rows are others, too.
    pub(crate) bag: usize,
    /// Scores trees on held-out rows; higher is better. Training stops when it has not risen for the patience, and goes back
    /// to the best trees.
    #[allow(clippy::type_complexity)]
    pub(crate) validate: Option<(usize, Box<dyn Fn(&[Tree], f32) -> Result<f64> + Sync + 'a>)>,
}

impl Plan<'_> {
    /// Number of a step among all that a model ever makes, for what is drawn anew at each: within a fit (bag 0) in order,
    /// then 2^24 for each call after it, however many steps those have.
    fn serial(&self, epoch: usize, steps_an_epoch: usize, step: usize) -> usize {
        ((self.bag % (1 << 24)) << 24) + (self.first_epoch - self.bag + epoch) * steps_an_epoch + step
    }
}

/// Trains `trees` in place. After an error they are gone.
pub(crate) fn train(
    trees: &mut Vec<Tree>,
    set: &TrainingSet,
    encoder: &Encoder,
    params: &SoftForestParams,
    plan: &Plan,
) -> Result<Training> {
    let mut trainers: Vec<TreeTrainer> = std::mem::take(trees)
        .into_iter()
        .enumerate()
        .map(|(t, tree)| {
            let mask = feature_mask(params, t, tree.inputs);
            TreeTrainer::new(tree, params, mask)
        })
        .collect();
    let bags = tree_weights(set, params, plan.bag, trainers.len());
    let steps_an_epoch = plan.rows.len().div_ceil(params.batch);
    // Any number of epochs is fine where early stopping ends them: none is multiplied or allocated for as it is.
    let total_steps = steps_an_epoch.saturating_mul(plan.epochs).max(1) as f32;
    let mut history = Vec::new();
    let mut best: Option<(f64, usize, Vec<Tree>)> = None;
    let mut inverse_temperature = plan.inverse_temperature[0];
    let mut batch = Array2::zeros((params.batch.min(plan.rows.len()), encoder.inputs()));
    for epoch in 0..plan.epochs {
        let mut order = plan.rows.clone();
        order.shuffle(&mut generator(params.seed, Stream::Order, plan.first_epoch + epoch));
        let beta = annealed(plan.inverse_temperature, epoch, plan.epochs);
        inverse_temperature = beta;
        let mut loss = 0.0;
        for (index, rows) in order.chunks(params.batch).enumerate() {
            if batch.nrows() != rows.len() {
                batch = Array2::zeros((rows.len(), encoder.inputs()));
            }
            let serial = plan.serial(epoch, steps_an_epoch, index);
            gather(set.x, rows, encoder, params, serial, &mut batch);
            let progress = (epoch * steps_an_epoch + index) as f32 / total_steps;
            let cosine = 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
            let step = Step {
                rate: params.optimiser.rate * plan.rate_factor * if plan.decay { cosine } else { 1.0 },
                inverse_temperature: beta,
                progress,
                learn_shape: plan.learn_shape,
                // The closed form is one of distributions: values have only their gradient.
                learn_responses: params.leaf_update == LeafUpdate::Gradient || !set.targets.is_classes(),
            };
            let batch_loss = one_step(
                &mut trainers,
                batch.view(),
                &set.targets.select(rows),
                &RowWeights::new(set, bags.as_ref(), rows),
                params,
                step,
            );
            if !batch_loss.is_finite() {
                return Err(ForestError::Diverged { epoch, step: index, loss: batch_loss });
            }
            loss += batch_loss;
        }
        if let (LeafUpdate::ClosedForm { rounds, leafness }, Targets::Classes(labels)) =
            (params.leaf_update, &set.targets)
        {
            let leafness = leafness && plan.learn_shape && learns_shape(params);
            let data = closed_form::Data {
                x: set.x.view(),
                labels,
                weights: &set.weights,
                tree_weights: bags.as_ref(),
                rows: &plan.rows,
            };
            closed_form::update(&mut trainers, &data, encoder, params, beta, rounds, leafness);
        }
        let expected: f32 = trainers.iter().map(|t| t.tree.topology.expected_sizes(&t.tree.leafness)[0]).sum();
        let mut validation = None;
        if let Some((patience, score)) = &plan.validate {
            let now: Vec<Tree> = trainers.iter().map(|t| t.tree.clone()).collect();
            let value = score(&now, beta)?;
            validation = Some(value);
            if best.as_ref().is_none_or(|(top, ..)| value > *top) {
                best = Some((value, epoch, now));
            }
            history.push(Epoch {
                loss: loss / (plan.rows.len() * trainers.len()) as f64,
                validation,
                expected_nodes: expected / trainers.len() as f32,
            });
            if best.as_ref().is_some_and(|(_, at, _)| epoch - at > *patience) {
                break;
            }
            continue;
        }
        history.push(Epoch {
            loss: loss / (plan.rows.len() * trainers.len()) as f64,
            validation,
            expected_nodes: expected / trainers.len() as f32,
        });
    }
    *trees = match best {
        Some((_, epoch, trees)) => {
            inverse_temperature = annealed(plan.inverse_temperature, epoch, plan.epochs);
            trees
        }
        None => trainers.into_iter().map(|t| t.tree).collect(),
    };
    Ok(Training { history, inverse_temperature })
}

/// Whether the settings let leafness move at all.
pub(crate) fn learns_shape(params: &SoftForestParams) -> bool {
    matches!(params.leafness, Leafness::Logit { .. } | Leafness::Clamped { .. })
}

/// Inverse temperature of an epoch on the geometric path from first to last.
fn annealed([first, last]: [f32; 2], epoch: usize, epochs: usize) -> f32 {
    if epochs < 2 {
        return last;
    }
    first * (last / first).powf(epoch as f32 / (epochs - 1) as f32)
}

/// Weights of a batch's rows, per tree.
struct RowWeights<'a> {
    shared: Vec<f32>,
    bags: Option<(&'a Array2<u8>, &'a [usize])>,
    /// Number of forests that the trees make.
    forests: usize,
}

impl<'a> RowWeights<'a> {
    fn new(set: &TrainingSet, bags: Option<&'a Array2<u8>>, rows: &'a [usize]) -> Self {
        let shared = rows.iter().map(|&r| set.weights[r]).collect();
        Self { shared, bags: bags.map(|b| (b, rows)), forests: set.forests }
    }

    /// How often a tree has each row.
    fn seen(&self, tree: usize) -> Vec<f32> {
        match self.bags {
            None => vec![1.0; self.shared.len()],
            Some((bags, rows)) => rows.iter().map(|&r| f32::from(bags[[tree, r]])).collect(),
        }
    }

    /// Part of each of some trees in their mean of a row, `[trees][batch]`: its weight over the sum of theirs. 0 throughout
    /// for a row that none of them sees.
    fn shares(&self, trees: Range<usize>) -> Vec<Vec<f32>> {
        let Some((bags, rows)) = self.bags else {
            return vec![vec![1.0 / trees.len() as f32; self.shared.len()]; trees.len()];
        };
        let weight = |tree: usize, row: usize| f32::from(bags[[tree, row]]);
        let totals: Vec<f32> = rows.iter().map(|&row| trees.clone().map(|tree| weight(tree, row)).sum()).collect();
        let share = |tree, (&row, &total): (&usize, &f32)| if total > 0.0 { weight(tree, row) / total } else { 0.0 };
        trees.map(|tree| rows.iter().zip(&totals).map(|place| share(tree, place)).collect()).collect()
    }
}

/// Forward, loss, backward and update of every tree; returns the loss summed over the batch and the trees.
fn one_step(
    trainers: &mut [TreeTrainer],
    x: ArrayView2<f32>,
    targets: &Targets,
    weights: &RowWeights,
    params: &SoftForestParams,
    step: Step,
) -> f64 {
    if params.loss == Loss::Joint {
        let size = trainers.len() / weights.forests;
        let losses: Vec<f64> = trainers
            .par_chunks_exact_mut(size)
            .enumerate()
            .map(|(forest, trainers)| {
                let trees = forest * size..(forest + 1) * size;
                joint_step(trainers, trees, x, targets, weights, params, step)
            })
            .collect();
        return losses.iter().sum();
    }
    let classification = targets.is_classes();
    let losses: Vec<f64> = trainers
        .par_iter_mut()
        .enumerate()
        .map(|(t, trainer)| {
            trainer.forward(x, params, classification, step.inverse_temperature);
            let seen = weights.seen(t);
            let own: Vec<f32> = weights.shared.iter().zip(&seen).map(|(w, s)| w * s).collect();
            let loss = trainer.own_loss(targets, &own, params);
            if loss.is_finite() {
                trainer.step(x, params, classification, step, &seen);
            }
            loss
        })
        .collect();
    losses.iter().sum()
}

/// As [`one_step`] for the trees of one forest, of these numbers, whose mean the loss is of. A row in which none of them has
/// a part costs nothing.
fn joint_step(
    trainers: &mut [TreeTrainer],
    trees: Range<usize>,
    x: ArrayView2<f32>,
    targets: &Targets,
    weights: &RowWeights,
    params: &SoftForestParams,
    step: Step,
) -> f64 {
    let shares = weights.shares(trees.clone());
    let classification = targets.is_classes();
    trainers.par_iter_mut().for_each(|trainer| {
        trainer.forward(x, params, classification, step.inverse_temperature);
    });
    let batch = weights.shared.len();
    let mut mean = vec![0.0; trainers[0].output.len()];
    let mut seen = vec![0.0; batch];
    for (trainer, share) in trainers.iter().zip(&shares) {
        for (mean, output) in mean.chunks_exact_mut(batch).zip(trainer.output.chunks_exact(batch)) {
            mean.iter_mut().zip(output).zip(share).for_each(|((m, o), s)| *m += s * o);
        }
        let parts = seen.iter_mut().zip(share).zip(&weights.shared);
        parts.filter(|((_, s), _)| **s > 0.0).for_each(|((seen, _), w)| *seen = *w);
    }
    let mut upstream = vec![0.0; mean.len()];
    let loss = output_loss(&mean, targets, &seen, crate::params::Mix::Probabilities, 1.0, &mut upstream);
    if loss.is_finite() {
        trainers.par_iter_mut().zip(trees).zip(&shares).for_each(|((trainer, tree), share)| {
            let own: Vec<f32> =
                upstream.chunks_exact(batch).flat_map(|row| row.iter().zip(share).map(|(u, s)| u * s)).collect();
            trainer.take_upstream(&own, classification, params);
            trainer.step(x, params, classification, step, &weights.seen(tree));
        });
    }
    loss * trainers.len() as f64
}

fn tree_weights(set: &TrainingSet, params: &SoftForestParams, bag: usize, trees: usize) -> Option<Array2<u8>> {
    if !params.bagging {
        return set.tree_weights.clone();
    }
    let rows = set.x.nrows();
    let mut bags = Array2::zeros((trees, rows));
    for (t, mut weights) in bags.rows_mut().into_iter().enumerate() {
        let mut rng = generator(params.seed, Stream::Bag, (bag % (1 << 24)) << 24 | t);
        if let Ok(poisson) = Poisson::new(1.0f32) {
            weights.iter_mut().for_each(|b| *b = poisson.sample(&mut rng).min(255.0) as u8);
        }
    }
    if let Some(given) = &set.tree_weights {
        bags.zip_mut_with(given, |bag, &given| *bag = bag.saturating_mul(given));
    }
    Some(bags)
}

fn feature_mask(params: &SoftForestParams, tree: usize, inputs: usize) -> Option<Vec<f32>> {
    if params.feature_fraction >= 1.0 {
        return None;
    }
    let keep = ((inputs as f32 * params.feature_fraction).round() as usize).clamp(1, inputs);
    let mut order: Vec<usize> = (0..inputs).collect();
    order.shuffle(&mut generator(params.seed, Stream::Mask, tree));
    let mut mask = vec![0.0; inputs];
    order[..keep].iter().for_each(|&i| mask[i] = 1.0);
    Some(mask)
}

/// Fills `batch` with the given rows, augmented and scaled.
fn gather(
    x: ArrayView2<f32>,
    rows: &[usize],
    encoder: &Encoder,
    params: &SoftForestParams,
    serial: usize,
    batch: &mut Array2<f32>,
) {
    let width = batch.ncols();
    let Some(out) = batch.as_slice_mut() else {
        return;
    };
    let mut rng = generator(params.seed, Stream::Augment, serial);
    let moves: Vec<Option<Move>> =
        rows.iter().map(|_| params.augment.map(|augment| Move::draw(augment, &mut rng))).collect();
    out.par_chunks_exact_mut(width).zip(rows).zip(&moves).for_each(|((out, &row), moved)| {
        let source = x.row(row);
        let copy;
        let slice = match source.as_slice() {
            Some(slice) => slice,
            None => {
                copy = source.to_vec();
                &copy
            }
        };
        match moved {
            None => pass::normalise(slice, encoder.mean(), encoder.inverse_scale(), out),
            Some(moved) => {
                let image = moved.apply(slice);
                pass::normalise(&image, encoder.mean(), encoder.inverse_scale(), out);
            }
        }
    });
}

/// One drawn augmentation.
struct Move {
    augment: Augment,
    down: i64,
    right: i64,
    mirror: bool,
}

impl Move {
    fn draw(augment: Augment, rng: &mut impl Rng) -> Self {
        let shift = augment.shift as i64;
        Self {
            augment,
            down: rng.random_range(-shift..=shift),
            right: rng.random_range(-shift..=shift),
            mirror: augment.mirror && rng.random_bool(0.5),
        }
    }

    fn apply(&self, image: &[f32]) -> Vec<f32> {
        let (height, width) = (self.augment.height as i64, self.augment.width as i64);
        let mut out = vec![0.0; image.len()];
        for row in 0..height {
            for column in 0..width {
                let from_row = row - self.down;
                let mut from_column = column - self.right;
                if self.mirror {
                    from_column = width - 1 - from_column;
                }
                if (0..height).contains(&from_row) && (0..width).contains(&from_column) {
                    out[(row * width + column) as usize] = image[(from_row * width + from_column) as usize];
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
