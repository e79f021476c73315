//! Learning from a teacher's soft labels.

use crate::{Error, Result};
use core_tensor::data::Batch;
use core_tensor::nn::Network;
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// How the loss of a KD ticket mixes soft and hard labels.
///
/// With `p_s = softmax(z_s/τ)` and `p_t = softmax(z_t/τ)` of student and teacher logits,
///
/// ```text
/// L = α·τ²·KL(p_t ‖ p_s) + (1 − α)·CE(z_s, y)
/// ```
///
/// (Hinton et al., arXiv 1503.02531; Ma et al., arXiv 2101.03255.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// Temperature τ, above 0. Default 4; the reference code of KD tickets takes 5 on CIFAR, 4 on ImageNet.
    pub temperature: f64,
    /// Weight α of the soft labels, in `[0, 1]`. Default and reference code: 0.9.
    pub alpha: f64,
    /// What the divergence is averaged over. Default: the batch.
    #[serde(default)]
    pub reduction: Reduction,
    /// From this epoch on plain cross-entropy with weight 1. Counted from 0 at the start of the training that the
    /// objective serves: a re-training from a rewinding point at epoch `k` of its schedule takes `k` less. Default:
    /// never; the reference code takes 60 of its schedule's 90 epochs on ImageNet.
    #[serde(default)]
    pub until_epoch: Option<u64>,
}

/// What the Kullback-Leibler divergence is averaged over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The samples of the batch: the divergence as it is defined.
    #[default]
    BatchMean,
    /// Samples *and* classes, PyTorch's default, which the reference code uses on CIFAR: the weight of the soft labels
    /// is then `α·τ²/C`.
    ElementMean,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self { temperature: 4.0, alpha: 0.9, reduction: Reduction::BatchMean, until_epoch: None }
    }
}

impl DistillConfig {
    /// Checks temperature and mixing.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        match self.outside() {
            Some((setting, range, found)) => Err(Error::setting(setting, range, found)),
            None => Ok(()),
        }
    }

    /// The first setting outside its range, with the range and its value.
    fn outside(&self) -> Option<(&'static str, &'static str, f64)> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Some(("temperature", "finite and above 0", self.temperature));
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return Some(("alpha", "in [0, 1]", self.alpha));
        }
        None
    }

    /// The loss for logits `[batch, classes]` of student and teacher and labels `[batch]`. No gradient flows to the
    /// teacher. Parts: `cross_entropy`, `divergence` (the KL term before weighting), `train_accuracy` (%).
    ///
    /// # Errors
    /// [`core_tensor::Error::Setting`] for the first setting outside its range, [`core_tensor::Error::Tensor`] for
    /// logits of different shapes, or what libtorch refuses.
    pub fn loss(&self, student: &Tensor, teacher: &Tensor, target: &Tensor) -> core_tensor::Result<Loss> {
        if let Some((setting, range, found)) = self.outside() {
            return Err(core_tensor::Error::setting(setting, range, found));
        }
        if student.size() != teacher.size() {
            let expected = format!("{:?} as the student's", student.size());
            return Err(core_tensor::Error::tensor("teacher logits", expected, format!("{:?}", teacher.size())));
        }
        let soften = |logits: &Tensor| logits.f_div_scalar(self.temperature)?.f_log_softmax(-1, None::<Kind>);
        let (log_student, log_teacher) = (soften(student)?, soften(&teacher.detach())?);
        let divergence = log_student.f_kl_div(&log_teacher, tch::Reduction::Sum, true)?;
        let (samples, classes) = student.size2()?;
        let elements = match self.reduction {
            Reduction::BatchMean => samples,
            Reduction::ElementMean => samples * classes,
        };
        let divergence = divergence / elements as f64;
        let hard = hard_loss(student, target)?;
        let soft_weight = self.alpha * self.temperature * self.temperature;
        let total = &divergence * soft_weight + &hard.total * (1.0 - self.alpha);
        let mut parts = hard.parts;
        parts.insert(1, ("divergence", divergence.detach()));
        Ok(Loss { total, parts })
    }
}

fn hard_loss(student: &Tensor, target: &Tensor) -> core_tensor::Result<Loss> {
    let loss = student.f_cross_entropy_loss(target, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)?;
    let correct = student.argmax(-1, false).f_eq_tensor(target)?.to_kind(Kind::Float).mean(Kind::Float);
    let parts = vec![("cross_entropy", loss.detach()), ("train_accuracy", correct * 100.0)];
    Ok(Loss { total: loss, parts })
}

/// Logits from an input and whether it trains.
type Student<'a> = Box<dyn Fn(&Tensor, bool) -> Tensor + 'a>;

/// Trains a student on a teacher's soft labels: with a ticket as the student and the finished dense network as the
/// teacher, the KD ticket.
///
/// The teacher runs in evaluation mode, without gradients, on the same augmented view as the student.
///
/// A plain tch model learns by [`from_closures`](Self::from_closures), in a loop of one's own if need be:
///
/// ```
/// use core_tensor::{data::Batch, train::{Objective, Progress}};
/// use lth::{DistillConfig, Distillation, MaskObserver, Prunable, PruningSchedule, Selector, criterion::Magnitude};
/// use tch::{Device, Kind, Tensor, nn, nn::{ModuleT, OptimizerConfig}};
///
/// let build = |store: &nn::VarStore| {
///     let root = store.root();
///     nn::seq_t()
///         .add(nn::linear(&root / "fc1", 20, 16, Default::default()))
///         .add_fn(|x| x.relu())
///         .add(nn::linear(&root / "fc2", 16, 3, Default::default()))
/// };
/// let (dense_store, store) = (nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu));
/// let (dense, student) = (build(&dense_store), build(&store));
/// let weights = Prunable::default().select_from(&dense_store)?;
/// let mask = PruningSchedule::OneShot { density: 0.2 }.prune(&weights, &Magnitude, &Selector::global())?;
/// let mut masked = MaskObserver::new(&mask, &store)?;
///
/// let mut objective = Distillation::from_closures(
///     |input, train| student.forward_t(input, train),
///     |batch: &Batch| dense.forward_t(&batch.input, false),
///     DistillConfig::default(),
/// )?;
/// let mut optimizer = nn::Sgd::default().build(&store, 0.05)?;
/// # let input = Tensor::ones([4, 20], (Kind::Float, Device::Cpu));
/// # let batches = vec![Batch { input, target: Tensor::from_slice(&[0_i64, 1, 2, 0]), index: (0..4).collect() }];
/// for (step, batch) in (0..).zip(&batches) {
///     optimizer.zero_grad();
///     objective.loss(batch, &Progress { epoch: 0, step })?.total.backward();
///     masked.mask_gradients()?;
///     optimizer.step();
///     masked.mask_weights()?;
/// }
/// let dropped = store.variables()["fc1.weight"].eq(0.0).sum(Kind::Int64).int64_value(&[]);
/// assert_eq!(dropped as usize, mask.weights() - mask.survivors());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Distillation<'a> {
    student: Student<'a>,
    teacher: Box<dyn Fn(&Batch) -> Tensor + 'a>,
    config: DistillConfig,
}

impl std::fmt::Debug for Distillation<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Distillation").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> Distillation<'a> {
    /// A student and the network that teaches it.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(student: &'a dyn Network, teacher: &'a dyn Network, config: DistillConfig) -> Result<Self> {
        Self::from_logits(student, move |input| teacher.forward(input, false), config)
    }

    /// A student and any function from inputs to logits: an ensemble, a network of another kind, a control.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn from_logits(
        student: &'a dyn Network,
        teacher: impl Fn(&Tensor) -> Tensor + 'a,
        config: DistillConfig,
    ) -> Result<Self> {
        Self::from_batches(student, move |batch| teacher(&batch.input), config)
    }

    /// A student and any function from batches to logits: a teacher that knows the labels too, such as one of classes.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn from_batches(
        student: &'a dyn Network,
        teacher: impl Fn(&Batch) -> Tensor + 'a,
        config: DistillConfig,
    ) -> Result<Self> {
        Self::from_closures(move |input, train| student.forward(input, train), teacher, config)
    }

    /// Any two functions to logits `[batch, classes]`: the student's from an input and whether it trains, which here is
    /// always so, the teacher's from a batch. For models that are no [`Network`].
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn from_closures(
        student: impl Fn(&Tensor, bool) -> Tensor + 'a,
        teacher: impl Fn(&Batch) -> Tensor + 'a,
        config: DistillConfig,
    ) -> Result<Self> {
        config.validate()?;
        Ok(Self { student: Box::new(student), teacher: Box::new(teacher), config })
    }
}

impl Objective<Batch> for Distillation<'_> {
    fn loss(&mut self, batch: &Batch, progress: &Progress) -> core_tensor::Result<Loss> {
        if self.config.until_epoch.is_some_and(|epoch| progress.epoch >= epoch) {
            return hard_loss(&(self.student)(&batch.input, true), &batch.target);
        }
        let teacher = no_grad(|| (self.teacher)(batch));
        let student = (self.student)(&batch.input, true);
        self.config.loss(&student, &teacher, &batch.target)
    }
}

#[cfg(test)]
mod tests;
