//! One restart of APGD, for all examples that stand.

use tch::{Kind, Tensor};

use super::Apgd;
use crate::attack::rows::broadcast;
use crate::attack::run::{Adversarial, Evaluation, Standing, Subject, any, places_of};
use crate::attack::{Goal, Norm, Result};

/// The result so far, of the whole batch.
pub(super) struct Found {
    pub(super) images: Tensor,
    pub(super) success: Tensor,
    loss: Tensor,
}

impl Found {
    pub(super) fn new(images: &Tensor) -> Self {
        let count = images.size()[0];
        Self {
            images: images.copy(),
            success: Tensor::zeros([count], (Kind::Bool, images.device())),
            loss: Tensor::full([count], f64::NEG_INFINITY, (images.kind(), images.device())),
        }
    }

    /// Examples that are wrong to begin with are fooled by no change at all.
    pub(super) fn start(&mut self, reached: Tensor) {
        self.success = reached;
    }

    pub(super) fn forget_losses(&mut self) {
        let _ = self.loss.fill_(f64::NEG_INFINITY);
    }

    pub(super) fn finish(self, subject: &Subject, clean: &Tensor, norm: Norm) -> Adversarial {
        subject.finish(clean, self.images, self.success, Some(self.loss), norm)
    }
}

/// One restart under way.
pub(super) struct Climber<'a> {
    pub(super) config: &'a Apgd,
    pub(super) subject: &'a Subject<'a>,
    /// Whether to fool an example is success: not in a ball wider than the attack's own.
    pub(super) count_success: bool,
    /// L1: the start is random or given, so what it moved says nothing about how many pixels a step should move.
    pub(super) fresh: bool,
}

/// What a climb knows of every example that stands.
struct State {
    clean: Tensor,
    bounds: Option<(Tensor, Tensor)>,
    point: Tensor,
    previous: Tensor,
    gradient: Tensor,
    loss: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    best_loss: Tensor,
    /// The step size, `[batch]`.
    eta: Tensor,
    /// How often the loss rose since the last check-point.
    rises: Tensor,
    /// Whether the step was reduced at the last check-point, and the best loss then.
    reduced: Tensor,
    best_then: Tensor,
    /// L1: the share of pixels that a step moves, and how many the best point had moved at the last check-point.
    share: Tensor,
    support: Tensor,
}

impl State {
    fn keep(&mut self, stay: &Tensor) {
        let all = [
            &mut self.clean,
            &mut self.point,
            &mut self.previous,
            &mut self.gradient,
            &mut self.loss,
            &mut self.best,
            &mut self.best_gradient,
            &mut self.best_loss,
            &mut self.eta,
            &mut self.rises,
            &mut self.reduced,
            &mut self.best_then,
            &mut self.share,
            &mut self.support,
        ];
        let bounds = self.bounds.iter_mut().flat_map(|(low, high)| [low, high]);
        all.into_iter().chain(bounds).for_each(|tensor| *tensor = tensor.index_select(0, stay));
    }
}

impl Climber<'_> {
    pub(super) fn climb(
        &self,
        mut standing: Standing,
        clean: &Tensor,
        mut goal: Goal,
        mut direction: Goal,
        start: Tensor,
        found: &mut Found,
    ) -> Result<()> {
        let steps = self.config.steps;
        let (mut state, logits) = self.begin(clean, start, &direction)?;
        let mut reached = goal.reached(&logits);
        let checkpoints = self.config.checkpoints();
        let mut last_checkpoint = 0;
        for step in 0..=steps {
            if self.count_success && any(&reached) {
                write(found, &standing, &state.point, &reached, &state.loss, true);
                // A random model may have been fooled by luck: what fools it for good is farther up.
                if !self.subject.is_random() {
                    let stay = standing.drop(&reached);
                    if standing.len() == 0 {
                        return Ok(());
                    }
                    state.keep(&stay);
                    goal = goal.select(&stay);
                    direction = direction.select(&stay);
                }
            }
            if checkpoints.contains(&step) {
                self.review(&mut state, step - last_checkpoint);
                last_checkpoint = step;
            }
            if step == steps {
                break;
            }
            reached = goal.reached(&self.advance(&mut state, &direction, step)?);
        }
        // Only of a random model has any that stands been fooled.
        let still = standing.rows(&found.success).logical_not();
        let better = state.best_loss.gt_tensor(&standing.rows(&found.loss)).logical_and(&still);
        write(found, &standing, &state.best, &better, &state.best_loss, false);
        Ok(())
    }

    fn begin(&self, clean: &Tensor, start: Tensor, direction: &Goal) -> Result<(State, Tensor)> {
        let ball = self.config.ball;
        let count = clean.size()[0];
        let evaluation = self.evaluate(&start, direction, 0)?;
        let value = |value: f64| Tensor::full([count], value, (clean.kind(), clean.device()));
        let eta = value(if ball.norm == Norm::L1 { ball.radius } else { 2.0 * ball.radius });
        let width = (clean.numel() as i64 / count) as f64;
        let (moved, share) = if self.fresh {
            (Tensor::full([count], width, (Kind::Double, clean.device())), value(0.2))
        } else {
            let moved = support(&(&start - clean));
            let share = share_of(&moved, width, clean.kind());
            (moved, share)
        };
        let state = State {
            clean: clean.shallow_clone(),
            bounds: if ball.norm == Norm::Linf { Some(ball.bounds(clean)?) } else { None },
            previous: start.shallow_clone(),
            best: start.shallow_clone(),
            point: start,
            best_gradient: evaluation.gradient.shallow_clone(),
            gradient: evaluation.gradient,
            best_loss: evaluation.loss.shallow_clone(),
            best_then: evaluation.loss.shallow_clone(),
            loss: evaluation.loss,
            eta,
            rises: Tensor::zeros([count], (Kind::Int64, clean.device())),
            reduced: Tensor::ones([count], (Kind::Bool, clean.device())),
            share,
            support: moved,
        };
        Ok((state, evaluation.logits))
    }

    fn evaluate(&self, point: &Tensor, direction: &Goal, step: usize) -> Result<Evaluation> {
        let loss = |logits: &Tensor| self.config.loss.values(logits, direction, logits);
        let mut first = self.subject.evaluate(point, step, loss)?;
        for _ in 1..self.config.passes {
            let next = self.subject.evaluate(point, step, loss)?;
            // Not in place: a gradient may be one number spread over all pixels, and a loss a column of the logits.
            first.gradient = &first.gradient + &next.gradient;
            first.loss = &first.loss + &next.loss;
        }
        if self.config.passes > 1 {
            let share = 1.0 / self.config.passes as f64;
            first.gradient = first.gradient.g_mul_scalar_(share);
            first.loss = first.loss.g_mul_scalar_(share);
        }
        Ok(first)
    }

    /// `x + a (u − x) + (1 − a)(x − previous)` with `u` one projected step of size η, projected again; `a` is 0.75, and 1
    /// in the first step. In the L1 ball just `u`.
    fn next_point(&self, state: &State, step: usize) -> Result<Tensor> {
        let ball = self.config.ball;
        let project = |moved: Tensor| match &state.bounds {
            Some((low, high)) => Ok(moved.clamp_tensor(Some(low), Some(high))),
            None => ball.project(&state.clean, &moved),
        };
        let eta = broadcast(&state.eta, state.clean.dim());
        let along = if ball.norm == Norm::L1 {
            sparse_direction(&state.gradient, &state.share)
        } else {
            ball.direction(&state.gradient, &state.point)
        };
        let stepped = project(&state.point + along * eta)?;
        if ball.norm == Norm::L1 || step == 0 {
            return Ok(stepped);
        }
        let inertia = &state.point - &state.previous;
        project((stepped - &state.point) * 0.75 + inertia * 0.25 + &state.point)
    }

    /// One step: goes to the next point, and keeps it as the best where its loss is the highest so far. The logits there.
    fn advance(&self, state: &mut State, direction: &Goal, step: usize) -> Result<Tensor> {
        let next = self.next_point(state, step)?;
        state.previous = std::mem::replace(&mut state.point, next);
        let evaluation = self.evaluate(&state.point, direction, step + 1)?;
        let _ = state.rises.g_add_(&evaluation.loss.gt_tensor(&state.loss).to_kind(Kind::Int64));
        let better = evaluation.loss.gt_tensor(&state.best_loss);
        let mask = broadcast(&better, state.clean.dim());
        state.best = state.point.where_self(&mask, &state.best);
        state.best_gradient = evaluation.gradient.where_self(&mask, &state.best_gradient);
        state.best_loss = evaluation.loss.where_self(&better, &state.best_loss);
        state.loss = evaluation.loss;
        state.gradient = evaluation.gradient;
        Ok(evaluation.logits)
    }

    /// A check-point: halves the step where the loss oscillates or has not grown, and goes back to the best point there.
    fn review(&self, state: &mut State, window: usize) {
        let reset = if self.config.ball.norm == Norm::L1 {
            let radius = self.config.ball.radius;
            let moved = support(&(&state.best - &state.clean));
            let width = (state.clean.numel() as i64 / state.clean.size()[0]) as f64;
            let shrunk = (&moved / &state.support).lt(0.95);
            let reduced = (&state.eta / 1.5).clamp(radius / 10.0, radius);
            state.eta = reduced.masked_fill(&shrunk, radius);
            state.share = share_of(&moved, width, state.clean.kind());
            state.support = moved;
            shrunk
        } else {
            let oscillates = state.rises.le(self.config.rho * window as f64);
            let stuck = state.reduced.logical_not().logical_and(&state.best_then.ge_tensor(&state.best_loss));
            let reduced = oscillates.logical_or(&stuck);
            state.eta = (&state.eta * 0.5).where_self(&reduced, &state.eta);
            state.reduced = reduced.shallow_clone();
            state.best_then = state.best_loss.shallow_clone();
            reduced
        };
        let _ = state.rises.zero_();
        let mask = broadcast(&reset, state.clean.dim());
        state.point = state.best.where_self(&mask, &state.point);
        state.gradient = state.best_gradient.where_self(&mask, &state.gradient);
    }
}

/// Writes the rows that are true in `chosen`.
fn write(found: &mut Found, standing: &Standing, images: &Tensor, chosen: &Tensor, loss: &Tensor, success: bool) {
    let chosen = places_of(chosen);
    let places = standing.places().index_select(0, &chosen);
    let _ = found.images.index_copy_(0, &places, &images.index_select(0, &chosen));
    let _ = found.loss.index_copy_(0, &places, &loss.index_select(0, &chosen));
    if success {
        let _ = found.success.index_fill_(0, &places, 1);
    }
}

/// How many values of every example are not 0, `[batch]`, in double precision.
fn support(perturbation: &Tensor) -> Tensor {
    perturbation.flatten(1, -1).ne(0.0).to_kind(Kind::Double).sum_dim_intlist([1].as_slice(), false, Kind::Double)
}

/// The share of pixels that the next steps move: two thirds of those that the best point has moved, at least one.
fn share_of(support: &Tensor, width: f64, kind: Kind) -> Tensor {
    (support / (1.5 * width)).clamp(1.0 / width, 1.0).to_kind(kind)
}

/// The signs of the largest entries, a `share` of all, divided by their number.
fn sparse_direction(gradient: &Tensor, share: &Tensor) -> Tensor {
    let rows = gradient.flatten(1, -1);
    let width = rows.size()[1];
    let sizes = rows.abs();
    let (sorted, _) = sizes.sort(1, false);
    let free: Tensor = 1.0 - share;
    let place = (free * width as f64).clamp(0.0, (width - 1) as f64).to_kind(Kind::Int64);
    let threshold = sorted.gather(1, &place.unsqueeze(1), false);
    let signs = rows.sign() * sizes.ge_tensor(&threshold).to_kind(rows.kind());
    let count = signs.abs().sum_dim_intlist([1].as_slice(), true, rows.kind()).clamp_min(1.0);
    (signs / count).reshape(gradient.size())
}

#[cfg(test)]
mod tests;
