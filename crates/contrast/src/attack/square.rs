//! Square: random search that asks for logits only.

use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::ball::{ALLOWED, SHRUNK};
use super::classifier::Classifier;
use super::projection::onto_l1_ball_and_box;
use super::rows::{from_rows, rounded, to_rows};
use super::run::{Adversarial, Attack, Subject, in_parts};
use super::streams::Streams;
use super::{Ball, Error, Goal, Loss, Norm, Result};

/// The square attack (Andriushchenko et al. 2020, arXiv 1912.00049; in L1 after Croce and Hein 2021, arXiv 2103.01208):
/// a random square of the image changes at a time, and the change stays if the loss rises. Needs no gradient, so it does
/// not care whether gradients are masked.
///
/// Two differences from the authors' code, both in the attacker's favour: every example has windows of its own, and
/// a window can lie anywhere, the last row and column included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Square {
    /// What the attacker may do.
    pub ball: Ball,
    /// Queries an image, at least 1. AutoAttack's 5000 by default.
    pub queries: usize,
    /// Share of the image that the first windows cover. The paper's p = 0.8 by default.
    pub share: f64,
    /// Whether the windows shrink in proportion to `queries`, as in the stand-alone attack, rather than after fixed
    /// numbers of queries, as in AutoAttack. False by default.
    pub rescale: bool,
    /// What is to rise. The margin by default.
    pub loss: Loss,
}

impl Square {
    /// AutoAttack's settings.
    pub fn new(ball: Ball) -> Self {
        Self { ball, queries: 5000, share: 0.8, rescale: false, loss: Loss::Margin }
    }

    /// Other number of queries.
    pub fn with_queries(self, queries: usize) -> Self {
        Self { queries, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.ball.validate()?;
        if self.queries == 0 {
            return Err(Error::setting("queries", "at least 1", self.queries));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(Error::setting("share", "in (0, 1]", self.share));
        }
        Ok(())
    }

    /// The side of the window at a query, for images of `height × width`.
    pub fn side(&self, query: usize, height: usize, width: usize) -> usize {
        let query = if self.rescale { query * 10_000 / self.queries } else { query };
        let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|&&after| query > after).count();
        let share = self.share / f64::from(1 << halvings);
        ((share * (height * width) as f64).sqrt().round() as usize).max(1)
    }
}

/// Channels, height, width; a batch of vectors is a batch of one row of pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

/// One example under attack.
struct Searcher {
    place: usize,
    /// Whether the model sees single precision.
    single: bool,
    rng: ChaCha8Rng,
    clean: Vec<f64>,
    now: Vec<f64>,
    proposal: Vec<f64>,
    /// Where the proposal may differ from `now`.
    window: Vec<Range<usize>>,
    /// Where it has been taken back since it was last put into the batch.
    restored: Vec<Range<usize>>,
    loss: f64,
}

impl Attack for Square {
    fn name(&self) -> String {
        format!("square-{}", self.ball.norm.name())
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

    /// The ball's, and of images that are not square: the side of a window comes from the image's area, so far from
    /// square it is cut by the shorter edge and covers less than its share.
    fn advice(&self, images: &Tensor) -> Vec<String> {
        let cut = match self.shape(images) {
            Ok(Shape { height, width, .. }) if height != width => {
                Some(format!("windows of the square attack on {height} × {width} images are cut to the shorter edge"))
            }
            _ => None,
        };
        self.ball.advice().into_iter().chain(cut).collect()
    }

    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.validate()?;
        in_parts(model, &self.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal, seed))
    }
}

impl Square {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.loss.check_classes(subject.classes(), goal.targets().is_some())?;
        let shape = self.shape(images)?;
        let streams = Streams::new(seed, images)?;
        let (pixels, width) = to_rows(images)?;
        let clean_logits = subject.logits(images, 0)?;
        let single = images.kind() == Kind::Float;
        let mut searchers: Vec<Searcher> = pixels
            .chunks(width)
            .enumerate()
            .map(|(place, row)| Searcher {
                place,
                single,
                rng: streams.generator(place, 0),
                clean: row.to_vec(),
                now: row.to_vec(),
                proposal: row.to_vec(),
                window: Vec::new(),
                restored: Vec::new(),
                loss: f64::NEG_INFINITY,
            })
            .collect();
        let mut found = pixels;
        let mut losses = vec![f64::NEG_INFINITY; images.size()[0] as usize];
        let mut success = vec![false; losses.len()];
        let reached = Vec::<bool>::try_from(goal.reached(&clean_logits).to_device(Device::Cpu))?;
        // Fooled by no change at all.
        searchers.retain(|searcher| {
            success[searcher.place] = reached[searcher.place];
            !success[searcher.place]
        });
        // A window of an Linf ball costs less than handing it to another thread.
        let parallel = self.ball.norm != Norm::Linf;
        each(&mut searchers, parallel, |searcher| searcher.begin(&self.ball, shape));
        let mut batch = Batch::default();
        // What depends on the examples that stand is gathered again only when one falls.
        let mut gathered: Option<(Goal, Tensor)> = None;
        for query in 0..=self.queries {
            if searchers.is_empty() {
                break;
            }
            if query > 0 {
                let side = self.side(query - 1, shape.height, shape.width);
                each(&mut searchers, parallel, |searcher| searcher.propose(&self.ball, shape, side));
            }
            let (goal_now, clean_now) = gathered.get_or_insert_with(|| {
                let places: Vec<i64> = searchers.iter().map(|searcher| searcher.place as i64).collect();
                let places = Tensor::from_slice(&places).to_device(images.device());
                (goal.select(&places), clean_logits.index_select(0, &places))
            });
            let logits = subject.logits(&batch.of(&mut searchers, images), query)?;
            let value = subject.loss_value(&logits, &self.loss, goal_now, clean_now)?;
            let value = Vec::<f64>::try_from(value.to_kind(Kind::Double).to_device(Device::Cpu))?;
            let reached = Vec::<bool>::try_from(goal_now.reached(&logits).to_device(Device::Cpu))?;
            for ((searcher, &value), &reached) in searchers.iter_mut().zip(&value).zip(&reached) {
                searcher.settle(value, reached);
            }
            if reached.contains(&true) || query == self.queries {
                let mut flags = reached.iter();
                searchers.retain(|searcher| {
                    let fooled = flags.next().copied().unwrap_or(false);
                    if fooled || query == self.queries {
                        found[searcher.place * width..][..width].copy_from_slice(&searcher.now);
                        losses[searcher.place] = searcher.loss;
                        success[searcher.place] = fooled;
                    }
                    !fooled
                });
                gathered = None;
            }
        }
        let moved = from_rows(&found, images);
        let (success, loss) = (Tensor::from_slice(&success), Tensor::from_slice(&losses).to_kind(images.kind()));
        let (success, loss) = (success.to_device(images.device()), loss.to_device(images.device()));
        Ok(subject.finish(images, moved, success, Some(loss), self.ball.norm))
    }

    /// # Errors
    /// [`Error::Images`] where windows cannot be laid out.
    pub(super) fn shape(&self, images: &Tensor) -> Result<Shape> {
        let shape = match images.size().as_slice() {
            [_, pixels] => Shape { channels: 1, height: 1, width: *pixels as usize },
            [_, channels, height, width] => {
                Shape { channels: *channels as usize, height: *height as usize, width: *width as usize }
            }
            other => {
                let expected = "[batch, channels, height, width] or [batch, pixels]".to_owned();
                return Err(Error::Images { expected, found: format!("{other:?}") });
            }
        };
        if self.ball.norm != Norm::Linf && shape.height.min(shape.width) < 3 {
            let expected = "images of at least 3 × 3 for the L2 and L1 square attack".to_owned();
            return Err(Error::Images { expected, found: format!("{:?}", images.size()) });
        }
        Ok(shape)
    }
}

fn each(searchers: &mut [Searcher], parallel: bool, change: impl Fn(&mut Searcher) + Sync + Send) {
    if parallel {
        searchers.par_iter_mut().for_each(change);
    } else {
        searchers.iter_mut().for_each(change);
    }
}

/// The proposals as the model wants them. From query to query only windows change, and only those are written.
#[derive(Default)]
struct Batch(Vec<f32>);

impl Batch {
    fn of(&mut self, searchers: &mut [Searcher], like: &Tensor) -> Tensor {
        let mut shape = like.size();
        shape[0] = searchers.len() as i64;
        // Single precision is what nearly every model wants; double images stay double.
        let tensor = if like.kind() == Kind::Float {
            let width = searchers.first().map_or(0, |searcher| searcher.proposal.len());
            let fallen = self.0.len() != searchers.len() * width;
            if fallen {
                self.0.clear();
                self.0.extend(searchers.iter().flat_map(|s| &s.proposal).map(|&value| value as f32));
            }
            for (searcher, row) in searchers.iter().zip(self.0.chunks_exact_mut(width.max(1))) {
                for range in searcher.window.iter().chain(&searcher.restored).filter(|_| !fallen) {
                    for (value, proposed) in row[range.clone()].iter_mut().zip(&searcher.proposal[range.clone()]) {
                        *value = *proposed as f32;
                    }
                }
            }
            Tensor::from_slice(&self.0)
        } else {
            let values: Vec<f64> = searchers.iter().flat_map(|s| s.proposal.iter().copied()).collect();
            Tensor::from_slice(&values)
        };
        searchers.iter_mut().for_each(|searcher| searcher.restored.clear());
        tensor.reshape(shape).to_device(like.device())
    }
}

impl Searcher {
    /// Linf: vertical stripes. L2 and L1: a grid of bumps.
    fn begin(&mut self, ball: &Ball, shape: Shape) {
        let Shape { channels, height, width } = shape;
        let mut change = vec![0.0; self.clean.len()];
        if ball.norm == Norm::Linf {
            for channel in 0..channels {
                for column in 0..width {
                    let value = sign(&mut self.rng) * ball.radius;
                    for row in 0..height {
                        change[(channel * height + row) * width + column] = value;
                    }
                }
            }
        } else {
            let side = (height.min(width) / 5).max(1);
            let bump = bump(ball.norm, side, &mut self.rng);
            for top in (0..=height - side).step_by(side) {
                for left in (0..=width - side).step_by(side) {
                    for channel in 0..channels {
                        let sign = sign(&mut self.rng);
                        for (offset, value) in bump.iter().enumerate() {
                            let (row, column) = (top + offset / side, left + offset % side);
                            change[(channel * height + row) * width + column] = sign * value;
                        }
                    }
                }
            }
        }
        self.take(ball, change);
    }

    /// Takes the proposal if the loss has risen, and otherwise goes back to what was.
    fn settle(&mut self, loss: f64, reached: bool) {
        let Self { now, proposal, window, restored, .. } = self;
        if reached || loss > self.loss {
            self.loss = loss;
            window.iter().for_each(|range| now[range.clone()].copy_from_slice(&proposal[range.clone()]));
        } else {
            window.iter().for_each(|range| proposal[range.clone()].copy_from_slice(&now[range.clone()]));
            std::mem::swap(window, restored);
        }
    }

    /// The current image with another window.
    fn propose(&mut self, ball: &Ball, shape: Shape, side: usize) {
        let Shape { channels, height, width } = shape;
        if ball.norm == Norm::Linf {
            self.window.clear();
            let (rows, columns) = (side.min(height), side.min(width));
            let top = self.rng.random_range(0..=height - rows);
            let left = self.rng.random_range(0..=width - columns);
            for channel in 0..channels {
                let step = 2.0 * ball.radius * sign(&mut self.rng);
                for row in top..top + rows {
                    let at = (channel * height + row) * width + left;
                    self.window.push(at..at + columns);
                    for i in at..at + columns {
                        let (low, high) = (self.clean[i] - ball.radius, self.clean[i] + ball.radius);
                        self.proposal[i] = (self.now[i] + step).clamp(low, high).clamp(ball.low, ball.high);
                    }
                }
            }
            return;
        }
        // Mass is taken from one window and put into another.
        let largest = height.min(width);
        let side = (side.max(3) | 1).min(if largest % 2 == 1 { largest } else { largest - 1 });
        let mut corner = || (self.rng.random_range(0..=height - side), self.rng.random_range(0..=width - side));
        let (to, from) = (corner(), corner());
        let mut change: Vec<f64> = self.now.iter().zip(&self.clean).map(|(a, b)| a - b).collect();
        let bump = bump(ball.norm, side, &mut self.rng);
        let power = |value: f64| if ball.norm == Norm::L2 { value * value } else { value.abs() };
        let root = |value: f64| if ball.norm == Norm::L2 { value.sqrt() } else { value };
        let spare = (power(ball.radius) - change.iter().map(|&v| power(v)).sum::<f64>()).max(0.0) / channels as f64;
        let window = |corner: (usize, usize), channel: usize| {
            (0..side * side).map(move |i| (channel * height + corner.0 + i / side) * width + corner.1 + i % side)
        };
        for channel in 0..channels {
            let in_target: f64 = window(to, channel).map(|i| power(change[i])).sum();
            let old: Vec<f64> = window(to, channel).map(|i| change[i] / (1e-12 + root(in_target))).collect();
            let in_source: f64 = window(from, channel)
                .filter(|i| {
                    // Both windows count once where they overlap.
                    let (row, column) = ((i / width) % height, i % width);
                    !((to.0..to.0 + side).contains(&row) && (to.1..to.1 + side).contains(&column))
                })
                .map(|i| power(change[i]))
                .sum();
            let sign = sign(&mut self.rng);
            let mut fresh: Vec<f64> = bump.iter().zip(&old).map(|(new, old)| sign * new + old).collect();
            let length = 1e-12 + root(fresh.iter().map(|&v| power(v)).sum());
            let budget = root(spare + in_target + in_source);
            fresh.iter_mut().for_each(|value| *value *= budget / length);
            for i in window(from, channel) {
                change[i] = 0.0;
            }
            for (i, value) in window(to, channel).zip(fresh) {
                change[i] = value;
            }
        }
        self.take(ball, change);
    }

    /// Makes a change the proposal: as large as the ball allows, inside the box.
    fn take(&mut self, ball: &Ball, mut change: Vec<f64>) {
        match ball.norm {
            Norm::Linf => {}
            Norm::L2 => {
                let length = change.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                change.iter_mut().for_each(|value| *value *= ball.radius / length);
            }
            Norm::L1 => {
                let length = change.iter().map(|v| v.abs()).sum::<f64>();
                if length < ball.radius {
                    change.iter_mut().for_each(|value| *value *= ball.radius / length.max(1e-12));
                }
                onto_l1_ball_and_box(&mut change, &self.clean, ball.radius, ball.low, ball.high);
            }
        }
        let size = self.put(ball, &change);
        // What rounding has added is taken back before the model is asked.
        if ball.norm != Norm::Linf && size > ball.radius * ALLOWED {
            let share = ball.radius / size * SHRUNK;
            change.iter_mut().for_each(|value| *value *= share);
            self.put(ball, &change);
        }
    }

    /// Makes a change the proposal, inside the box and in the precision that the model sees, and returns its L2 or L1 size.
    fn put(&mut self, ball: &Ball, change: &[f64]) -> f64 {
        self.window.clear();
        self.window.push(0..change.len());
        let mut sum = 0.0;
        for ((proposal, &clean), &change) in self.proposal.iter_mut().zip(&self.clean).zip(change) {
            *proposal = rounded((clean + change).clamp(ball.low, ball.high), self.single);
            let moved = (*proposal - clean).abs();
            sum += if ball.norm == Norm::L2 { moved * moved } else { moved };
        }
        if ball.norm == Norm::L2 { sum.sqrt() } else { sum }
    }
}

fn sign(rng: &mut ChaCha8Rng) -> f64 {
    if rng.random() { 1.0 } else { -1.0 }
}

/// Two opposite pyramids side by side, or one above the other, of size 1 (supplement of the paper, equation 2).
fn bump(norm: Norm, side: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut values = vec![0.0; side * side];
    let upper = side / 2;
    let mut pyramid = |top: usize, rows: usize, factor: f64| {
        let centre = (rows / 2, side / 2);
        for ring in 0..=centre.0.max(centre.1) {
            let height = 1.0 / ((ring + 1) * (ring + 1)) as f64;
            for row in centre.0.saturating_sub(ring)..(centre.0 + ring + 1).min(rows) {
                for column in centre.1.saturating_sub(ring)..(centre.1 + ring + 1).min(side) {
                    values[(top + row) * side + column] += factor * height;
                }
            }
        }
    };
    // Each half is of size 1 before the whole is: rings are sums of 1 / k².
    pyramid(0, upper, 1.0);
    pyramid(upper, side - upper, -1.0);
    for (start, end) in [(0, upper * side), (upper * side, side * side)] {
        normalise(norm, &mut values[start..end]);
    }
    normalise(norm, &mut values);
    if rng.random() {
        values = (0..side * side).map(|i| values[(i % side) * side + i / side]).collect();
    }
    values
}

fn normalise(norm: Norm, values: &mut [f64]) {
    let length = match norm {
        Norm::L2 => values.iter().map(|v| v * v).sum::<f64>().sqrt(),
        _ => values.iter().map(|v| v.abs()).sum(),
    };
    if length > 0.0 {
        values.iter_mut().for_each(|value| *value /= length);
    }
}
