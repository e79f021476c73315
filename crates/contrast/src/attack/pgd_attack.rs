//! [`Pgd`] against a classifier.

use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::run::{Adversarial, Attack, Evaluation, Standing, Subject, any, in_parts, places_of};
use super::streams::Streams;
use super::{Ball, Goal, Pgd, Result, Start};

impl Attack for Pgd {
    fn name(&self) -> String {
        let norm = self.ball.norm.name();
        let method = match (self.steps, self.start, self.momentum > 0.0) {
            (_, _, true) => format!("mi-fgsm-{}", self.steps),
            (1, Start::Image, _) => "fgsm".to_owned(),
            (_, Start::Image, _) => format!("bim-{}", self.steps),
            (_, Start::Random | Start::Nearby, _) => format!("pgd-{}", self.steps),
        };
        let restarts = if self.restarts > 1 { format!("x{}", self.restarts) } else { String::new() };
        format!("{method}{restarts}-{norm}")
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn with_radius(&self, radius: f64) -> Box<dyn Attack> {
        let step_size = if self.ball.radius > 0.0 { self.step_size * radius / self.ball.radius } else { radius / 4.0 };
        Box::new(Self { ball: self.ball.with_radius(radius), step_size, ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.validate()?;
        in_parts(model, &self.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal, seed))
    }
}

impl Pgd {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.loss.check_classes(subject.classes(), goal.targets().is_some())?;
        let clean = match self.loss {
            super::Loss::KullbackLeibler => subject.logits(images, 0)?,
            // Nothing reads them.
            _ => Tensor::zeros([images.size()[0], subject.classes()], (images.kind(), images.device())),
        };
        let streams = Streams::new(seed, images)?;
        let mut found = Found::new(images);
        for restart in 0..self.restarts {
            // Later restarts need not look at what is fooled: one success is enough.
            let standing = if restart == 0 {
                Standing::all(images.size()[0], images.device())
            } else {
                Standing::without(&found.success)
            };
            if standing.len() == 0 {
                break;
            }
            self.restart(subject, images, goal, &clean, &streams, restart, standing, &mut found)?;
        }
        Ok(subject.finish(images, found.images, found.success, Some(found.loss), self.ball.norm))
    }
}

/// The best of the restarts so far, of the whole batch.
struct Found {
    images: Tensor,
    success: Tensor,
    loss: Tensor,
}

impl Found {
    fn new(images: &Tensor) -> Self {
        let count = images.size()[0];
        Self {
            images: images.copy(),
            success: Tensor::zeros([count], (Kind::Bool, images.device())),
            loss: Tensor::full([count], f64::NEG_INFINITY, (images.kind(), images.device())),
        }
    }

    /// Takes over the examples at `standing` that succeed, or whose loss is higher than in earlier restarts.
    fn finish(&mut self, standing: &Standing, images: &Tensor, success: &Tensor, loss: &Tensor) {
        let better = success.logical_or(&loss.gt_tensor(&standing.rows(&self.loss)));
        self.take(standing, images, success, loss, &better);
    }

    /// Takes over the examples at `standing` that are true in `chosen`.
    fn take(&mut self, standing: &Standing, images: &Tensor, success: &Tensor, loss: &Tensor, chosen: &Tensor) {
        let chosen = places_of(chosen);
        let places = standing.places().index_select(0, &chosen);
        let _ = self.images.index_copy_(0, &places, &images.index_select(0, &chosen));
        let _ = self.loss.index_copy_(0, &places, &loss.index_select(0, &chosen));
        let _ = self.success.index_copy_(0, &places, &success.index_select(0, &chosen));
    }
}

impl Pgd {
    #[allow(clippy::too_many_arguments)]
    fn restart(
        &self,
        subject: &Subject,
        images: &Tensor,
        goal: &Goal,
        clean: &Tensor,
        streams: &Streams,
        restart: usize,
        mut standing: Standing,
        found: &mut Found,
    ) -> Result<()> {
        let places = Vec::<i64>::try_from(standing.places().to_device(tch::Device::Cpu))?;
        let mut ascent = self.ascent(&standing.rows(images), &streams.select(&places), restart)?;
        let mut goal_now = goal.select(standing.places());
        let mut clean_now = standing.rows(clean);
        for step in 0..self.steps {
            let loss = |logits: &Tensor| self.loss.values(logits, &goal_now, &clean_now);
            let Evaluation { mut logits, loss: value, mut gradient } = subject.evaluate(ascent.point(), step, loss)?;
            for _ in 1..self.passes {
                let next = subject.evaluate(ascent.point(), step, loss)?;
                // Not in place: that of a sum over pixels is one number spread over all of them.
                gradient = &gradient + next.gradient;
                logits = next.logits;
            }
            let reached = self.early_stop.then(|| goal_now.reached(&logits));
            if let Some(reached) = reached.filter(any) {
                found.take(&standing, ascent.point(), &reached, &value, &reached);
                let stay = standing.drop(&reached);
                if standing.len() == 0 {
                    return Ok(());
                }
                ascent.keep(&stay);
                goal_now = goal_now.select(&stay);
                clean_now = clean_now.index_select(0, &stay);
                gradient = gradient.index_select(0, &stay);
            }
            ascent.step(gradient)?;
        }
        let reached = ascent.point();
        let logits = subject.logits(reached, self.steps)?;
        let loss = subject.loss_value(&logits, &self.loss, &goal_now, &clean_now)?;
        found.finish(&standing, reached, &goal_now.reached(&logits), &loss);
        Ok(())
    }
}
