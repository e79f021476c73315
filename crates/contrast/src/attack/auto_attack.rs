//! AutoAttack: attacks without settings, each on what the others have left.

use std::time::Instant;

use core_tensor::seed::{Purpose, derive};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::run::{Adversarial, Attack, Standing, Subject, each_once};
use super::{Apgd, ApgdTargeted, Ball, Error, Fab, Goal, Norm, Result, Square};

/// AutoAttack (Croce and Hein 2020, arXiv 2003.01690): the ensemble that RobustBench ranks by. Images that the model gets
/// wrong by itself count as broken, and an image leaves as soon as one attack has broken it.
#[derive(Debug)]
pub struct AutoAttack {
    ball: Ball,
    /// None for an ensemble of somebody's own.
    version: Option<Version>,
    attacks: Vec<Box<dyn Attack>>,
    batch: usize,
}

/// Which attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// APGD with cross-entropy, targeted APGD with DLR, targeted FAB, Square with 5000 queries.
    Standard,
    /// APGD with cross-entropy and with the untargeted DLR loss and untargeted FAB, five restarts each; Square with 5000
    /// queries, targeted APGD, targeted FAB. Nine targets in every norm.
    Plus,
    /// For a random model: APGD with either loss, gradients averaged over 20 passes.
    Random,
}

/// What one attack of the ensemble did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The attack.
    pub attack: String,
    /// Examples before.
    pub before: usize,
    /// Examples left.
    pub after: usize,
    /// Images that went forward through the model.
    pub forward: u64,
    /// Images that went backward through it.
    pub backward: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl AutoAttack {
    /// What robust accuracies are published with. In the L1 ball APGD takes five restarts and targeted APGD five targets, as
    /// their authors do there. Needs a model of at least four classes.
    pub fn standard(ball: Ball) -> Self {
        Self::new(ball, Version::Standard)
    }

    /// Any version.
    pub fn new(ball: Ball, version: Version) -> Self {
        let attacks: Vec<Box<dyn Attack>> = match version {
            Version::Standard => {
                let (restarts, targets) = if ball.norm == Norm::L1 { (5, 5) } else { (1, 9) };
                vec![
                    Box::new(Apgd::new(ball).with_restarts(restarts)),
                    Box::new(ApgdTargeted { targets, ..ApgdTargeted::new(ball) }),
                    Box::new(Fab::new(ball)),
                    Box::new(Square::new(ball)),
                ]
            }
            Version::Plus => vec![
                Box::new(Apgd::new(ball).with_restarts(5)),
                Box::new(Apgd::dlr(ball).with_restarts(5)),
                Box::new(Fab { restarts: 5, ..Fab::untargeted(ball) }),
                Box::new(Square::new(ball)),
                Box::new(ApgdTargeted::new(ball)),
                Box::new(Fab::new(ball)),
            ],
            Version::Random => {
                vec![Box::new(Apgd { passes: 20, ..Apgd::new(ball) }), Box::new(Apgd { passes: 20, ..Apgd::dlr(ball) })]
            }
        };
        Self { ball, version: Some(version), attacks, batch: 250 }
    }

    /// An ensemble of one's own choice, all in `ball`. It is called `ensemble-…`: only the published ones are AutoAttack.
    ///
    /// # Errors
    /// [`Error::Setting`] when an attack has another ball.
    pub fn of(ball: Ball, attacks: Vec<Box<dyn Attack>>) -> Result<Self> {
        if let Some(other) = attacks.iter().find(|attack| attack.ball() != ball) {
            let found = format!("{:?} in `{}`", other.ball(), other.name());
            return Err(Error::setting("ball", "the ensemble's in every attack", found));
        }
        Ok(Self { ball, version: None, attacks, batch: 250 })
    }

    /// Images that go through the model at a time. 250 by default; any other number gives the same result but for the
    /// rounding of another batch size.
    pub fn with_batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// The ensemble's attacks in their order.
    pub fn attacks(&self) -> &[Box<dyn Attack>] {
        &self.attacks
    }

    /// Runs the ensemble and tells what each attack contributed.
    ///
    /// # Errors
    /// As [`Attack::run`]; a setting of any attack outside its range before the first one runs.
    pub fn run_in_stages(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        goal: &Goal,
        seed: u64,
    ) -> Result<(Adversarial, Vec<Stage>)> {
        self.check()?;
        let subject = Subject::new(model, &self.ball, images, goal)?;
        let images = images.detach();
        let count = images.size()[0];
        let mut found = images.copy();
        let mut success = Tensor::zeros([count], (Kind::Bool, images.device()));
        let mut stages = Vec::new();
        if images.numel() == 0 {
            return Ok((subject.finish(&images, found, success, None, self.ball.norm), stages));
        }
        let (mut forward, mut backward) = (0, 0);
        for start in (0..count).step_by(self.batch) {
            let length = (count - start).min(i64::try_from(self.batch).unwrap_or(i64::MAX));
            let places = Tensor::arange_start(start, start + length, (Kind::Int64, images.device()));
            let reached = goal.select(&places).reached(&subject.logits(&images.narrow(0, start, length), 0)?);
            success.narrow(0, start, length).copy_(&reached);
        }
        for (index, attack) in self.attacks.iter().enumerate() {
            let began = Instant::now();
            let standing = Standing::without(&success);
            let mut stage = Stage {
                attack: attack.name(),
                before: standing.len() as usize,
                after: 0,
                forward: 0,
                backward: 0,
                seconds: 0.0,
            };
            for start in (0..standing.len()).step_by(self.batch) {
                let length = (standing.len() - start).min(i64::try_from(self.batch).unwrap_or(i64::MAX));
                let places = standing.places().narrow(0, start, length);
                let chunk = images.index_select(0, &places);
                let part =
                    attack.run(model, &chunk, &goal.select(&places), derive(seed, Purpose::Noise, index as u64))?;
                let broken = super::run::places_of(&part.success);
                let at = places.index_select(0, &broken);
                let _ = found.index_copy_(0, &at, &part.images.index_select(0, &broken));
                let _ = success.index_fill_(0, &at, 1);
                stage.forward += part.forward;
                stage.backward += part.backward;
            }
            stage.after = Standing::without(&success).len() as usize;
            stage.seconds = began.elapsed().as_secs_f64();
            (forward, backward) = (forward + stage.forward, backward + stage.backward);
            stages.push(stage);
        }
        let mut result = subject.finish(&images, found, success, None, self.ball.norm);
        result.forward += forward;
        result.backward += backward;
        Ok((result, stages))
    }
}

impl Attack for AutoAttack {
    fn name(&self) -> String {
        let version = match self.version {
            Some(Version::Standard) => "autoattack-standard",
            Some(Version::Plus) => "autoattack-plus",
            Some(Version::Random) => "autoattack-random",
            None => "ensemble",
        };
        format!("{version}-{}", self.ball.norm.name())
    }

    fn ball(&self) -> Ball {
        self.ball
    }

    fn with_radius(&self, radius: f64) -> Box<dyn Attack> {
        let attacks = self.attacks.iter().map(|attack| attack.with_radius(radius)).collect();
        Box::new(Self { ball: self.ball.with_radius(radius), version: self.version, attacks, batch: self.batch })
    }

    fn check(&self) -> Result<()> {
        if self.batch == 0 {
            return Err(Error::setting("batch", "at least 1", self.batch));
        }
        self.ball.validate()?;
        self.attacks.iter().try_for_each(|attack| attack.check())
    }

    fn advice(&self, images: &Tensor) -> Vec<String> {
        each_once(self.attacks.iter().flat_map(|attack| attack.advice(images)))
    }

    fn run(&self, model: &dyn Classifier, images: &Tensor, goal: &Goal, seed: u64) -> Result<Adversarial> {
        Ok(self.run_in_stages(model, images, goal, seed)?.0)
    }
}
