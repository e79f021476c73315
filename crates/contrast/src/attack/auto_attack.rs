//! AutoAttack: attacks without settings, each on what the others have left.

use std::time::Instant;

use core_tensor::seed::{Purpose, derive};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::classifier::Classifier;
use super::run::{Adversarial, Attack, Standing, Subject, each_once, places_of};
use super::{Apgd, ApgdTargeted, Ball, Error, Fab, Goal, Norm, Result, Square};

/// AutoAttack (Croce and Hein 2020, arXiv 2003.01690): the ensemble that RobustBench ranks by. Images that the model gets
/// wrong by itself count as broken, and an image leaves as soon as one attack has broken it.
///
/// A random model is asked once more after each attack, as by the authors' code, and an image leaves only if it is wrong then
/// too: success at one of an attack's many looks may be luck. Of an example that stands the last image that fooled at one
/// look is returned.
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
    /// The attack's name.
    pub attack: String,
    /// The attack with all its settings, as its `Debug` writes it: to be read, not parsed. Empty in stages of before it was
    /// stored.
    #[serde(default)]
    pub settings: String,
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

/// What an ensemble knows after some of its attacks: what [`AutoAttack::run_resumable`] goes on from.
#[derive(Debug)]
pub struct Interim {
    /// The attacks that are done.
    pub stages: Vec<Stage>,
    /// As [`Adversarial::images`].
    pub images: Tensor,
    /// As [`Adversarial::success`].
    pub success: Tensor,
}

impl Interim {
    /// With tensors of its own. What a callback gets, the ensemble writes on.
    pub fn copy(&self) -> Self {
        let (images, success) = (self.images.detach().copy(), self.success.copy());
        Self { stages: self.stages.clone(), images, success }
    }
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
        self.run_resumable(model, images, goal, seed, None, |_| Ok::<_, Error>(()))
    }

    /// As [`AutoAttack::run_in_stages`], with `after` called after every attack: what is known then may be stored, and a
    /// later run with the same images, goal and seed goes on `from` it, so that no attack is lost to one that fails later.
    /// What `after` returns as an error ends the run.
    ///
    /// Stages count the passes of the run that made them, the result all of theirs and what this run looked at besides.
    ///
    /// # Errors
    /// As [`AutoAttack::run_in_stages`]; [`Error::Setting`] for stages that are not those of the ensemble's first attacks,
    /// [`Error::Images`] for interim images or successes of another shape or kind than these images', or outside their ball;
    /// whatever `after` returns.
    pub fn run_resumable<E: From<Error>>(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        goal: &Goal,
        seed: u64,
        from: Option<&Interim>,
        mut after: impl FnMut(&Interim) -> Result<(), E>,
    ) -> Result<(Adversarial, Vec<Stage>), E> {
        self.check()?;
        let subject = Subject::new(model, &self.ball, images, goal)?;
        let images = images.detach();
        let mut now = match from {
            Some(from) => self.resumed(from, &images)?,
            None => self.begin(&subject, &images, goal)?,
        };
        // On no images there is nothing to run.
        let done = if images.numel() == 0 { self.attacks.len() } else { now.stages.len() };
        for (index, attack) in self.attacks.iter().enumerate().skip(done) {
            let seed = derive(seed, Purpose::Noise, index as u64);
            self.stage(attack.as_ref(), &subject, model, (&images, goal), seed, &mut now)?;
            after(&now)?;
        }
        let mut result = subject.finish(&images, now.images, now.success, None, self.ball.norm);
        result.forward += now.stages.iter().map(|stage| stage.forward).sum::<u64>();
        result.backward += now.stages.iter().map(|stage| stage.backward).sum::<u64>();
        Ok((result, now.stages))
    }

    /// Before the first attack: what the model gets wrong by itself.
    fn begin(&self, subject: &Subject, images: &Tensor, goal: &Goal) -> Result<Interim> {
        let count = images.size()[0];
        let success = Tensor::zeros([count], (Kind::Bool, images.device()));
        for (start, length) in self.chunks(if images.numel() == 0 { 0 } else { count }) {
            let goal = goal.narrow(start, length);
            let reached = goal.reached(&subject.logits(&images.narrow(0, start, length), 0)?);
            success.narrow(0, start, length).copy_(&reached);
        }
        Ok(Interim { stages: Vec::new(), images: images.copy(), success })
    }

    /// One attack on what stands.
    fn stage(
        &self,
        attack: &dyn Attack,
        subject: &Subject,
        model: &dyn Classifier,
        (images, goal): (&Tensor, &Goal),
        seed: u64,
        now: &mut Interim,
    ) -> Result<()> {
        let began = Instant::now();
        let standing = Standing::without(&now.success);
        let (mut forward, mut backward) = (0, 0);
        for (start, length) in self.chunks(standing.len()) {
            let places = standing.places().narrow(0, start, length);
            let goal = goal.select(&places);
            let part = attack.run(model, &images.index_select(0, &places), &goal, seed)?;
            let fooled = places_of(&part.success);
            let at = places.index_select(0, &fooled);
            let _ = now.images.index_copy_(0, &at, &part.images.index_select(0, &fooled));
            let broken = if model.is_random() {
                // Once more, on what may have been luck.
                let again = goal.reached(&subject.logits(&part.images, 0)?);
                places.index_select(0, &places_of(&part.success.logical_and(&again)))
            } else {
                at
            };
            let _ = now.success.index_fill_(0, &broken, 1);
            (forward, backward) = (forward + part.forward, backward + part.backward);
        }
        now.stages.push(Stage {
            attack: attack.name(),
            settings: format!("{attack:?}"),
            before: standing.len() as usize,
            after: Standing::without(&now.success).len() as usize,
            forward,
            backward,
            seconds: began.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// What a run goes on from, as far as can be told of the same images and attacks.
    fn resumed(&self, from: &Interim, images: &Tensor) -> Result<Interim> {
        let known = |(index, stage): (usize, &Stage)| {
            let attack = self.attacks.get(index);
            attack.is_some_and(|attack| stage.attack == attack.name() && stage.settings == format!("{attack:?}"))
        };
        if let Some((_, unknown)) = from.stages.iter().enumerate().find(|&stage| !known(stage)) {
            return Err(Error::setting("stages", "those of the ensemble's first attacks", &unknown.settings));
        }
        let expected = (images.size(), images.f_kind()?, vec![images.size()[0]], Kind::Bool);
        let found = (from.images.size(), from.images.f_kind()?, from.success.size(), from.success.f_kind()?);
        if found != expected {
            let expected = format!("interim images and successes {expected:?}");
            return Err(Error::Images { expected, found: format!("{found:?}") });
        }
        let (to, own) = (images.device(), from.copy());
        let own = Interim { images: own.images.to_device(to), success: own.success.to_device(to), ..own };
        let size = self.ball.norm.size(&(&own.images - images));
        let largest = if size.numel() == 0 { 0.0 } else { size.max().double_value(&[]) };
        // What every attack promises of its images.
        if largest.is_nan() || largest > self.ball.radius * (1.0 + 1e-6) + 1e-6 {
            let expected = format!("interim images within {} of the clean ones", self.ball.radius);
            return Err(Error::Images { expected, found: largest.to_string() });
        }
        Ok(own)
    }

    /// Starts and lengths of what goes through the model at a time, of so many images.
    fn chunks(&self, count: i64) -> impl Iterator<Item = (i64, i64)> {
        let batch = i64::try_from(self.batch).unwrap_or(i64::MAX);
        (0..count).step_by(self.batch).map(move |start| (start, (count - start).min(batch)))
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
