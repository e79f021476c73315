//! Random points of the ball: what an attack must beat to be called one.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::rows::broadcast;
use super::run::{Adversarial, Attack, Standing, Subject, any, in_parts, places_of};
use super::streams::Streams;
use super::{Ball, Error, Goal, Result};

/// Tries random points of ball and box until one fools the model. The image itself is not tried unless the budget is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RandomPoints {
    /// What the attacker may do.
    pub ball: Ball,
    /// Points tried for every example, at least 1.
    pub points: usize,
}

impl RandomPoints {
    /// So many points in a ball.
    pub fn new(ball: Ball, points: usize) -> Self {
        Self { ball, points }
    }
}

impl Attack for RandomPoints {
    fn name(&self) -> String {
        format!("random-{}-{}", self.points, self.ball.norm.name())
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn with_radius(&self, radius: f64) -> Box<dyn Attack> {
        Box::new(Self { ball: self.ball.with_radius(radius), ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        if self.points == 0 {
            return Err(Error::setting("points", "at least 1", self.points));
        }
        self.ball.validate()
    }

    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        self.check()?;
        in_parts(model, &self.ball, images, goal, |subject, images, goal| self.attack(subject, images, goal, seed))
    }
}

impl RandomPoints {
    fn attack(&self, subject: &Subject, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        let streams = Streams::new(seed, images)?;
        let mut found = images.copy();
        let mut success = Tensor::zeros([images.size()[0]], (Kind::Bool, images.device()));
        for point in 0..self.points {
            let standing = Standing::without(&success);
            if standing.len() == 0 {
                break;
            }
            let places = Vec::<i64>::try_from(standing.places().to_device(tch::Device::Cpu))?;
            let clean = standing.rows(images);
            let tried = self.ball.random_point(&clean, &streams.select(&places), point as u64)?;
            let reached = goal.select(standing.places()).reached(&subject.logits(&tried, point)?);
            if any(&reached) {
                let at = standing.places().index_select(0, &places_of(&reached));
                let _ = found.index_copy_(0, &at, &tried.index_select(0, &places_of(&reached)));
                let _ = success.index_fill_(0, &at, 1);
            }
        }
        let found = found.where_self(&broadcast(&success, images.dim()), images);
        Ok(subject.finish(images, found, success, None, self.ball.norm))
    }
}
