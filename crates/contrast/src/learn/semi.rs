//! Robust fine-tuning with few labels: the pre-trained network labels the rest.

use super::error::{Error, Result, check_temperature};
use super::evaluate::check_finite;
use super::robust::{Logits, attack_labels, divergence};
use crate::attack::{Ball, Pgd};
use core_tensor::data::{Augmentation, Batch, BatchSource, Dataset, Draw, Pipeline, Samples, ToDevice, prefetch};
use core_tensor::nn::Network;
use core_tensor::seed::{Purpose, derive, generator};
use core_tensor::train::{Loss, Objective, Progress};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

/// Which images of a set have labels, by position. Save it with results: another draw is another experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemiSplit {
    /// Positions whose labels are used.
    pub labelled: Vec<usize>,
    /// Positions whose labels are not looked at.
    pub unlabelled: Vec<usize>,
}

impl SemiSplit {
    /// `per_class` labelled images of every class, drawn by `seed`; all others are unlabelled.
    ///
    /// # Errors
    /// A class with fewer images, or no image left without a label.
    pub fn draw(set: &Dataset, per_class: usize, seed: u64) -> Result<Self> {
        let mut order: Vec<usize> = (0..set.len()).collect();
        order.shuffle(&mut generator(seed, Purpose::Data, 0));
        let mut taken = vec![0; set.classes().len()];
        let (mut labelled, mut unlabelled) = (Vec::new(), Vec::new());
        for index in order {
            // A data set checks its labels when it is made.
            let count = &mut taken[set.label(index) as usize];
            if *count < per_class {
                *count += 1;
                labelled.push(index);
            } else {
                unlabelled.push(index);
            }
        }
        if let Some(class) = taken.iter().position(|count| *count < per_class) {
            let found = format!("{} of `{}`", taken[class], set.classes()[class]);
            return Err(Error::setting("per_class", format!("{per_class} images of every class"), found));
        }
        labelled.sort_unstable();
        unlabelled.sort_unstable();
        let split = Self { labelled, unlabelled };
        split.validate(set.len())?;
        Ok(split)
    }

    /// Checks that both parts are there, disjoint, and within a set of `images`.
    ///
    /// # Errors
    /// [`Error::SplitOverlap`], or an empty part, or a position outside the set.
    pub fn validate(&self, images: usize) -> Result<()> {
        for (setting, part) in [("labelled", &self.labelled), ("unlabelled", &self.unlabelled)] {
            if part.is_empty() {
                return Err(Error::setting(setting, "at least one image", 0));
            }
            if let Some(outside) = part.iter().find(|index| **index >= images) {
                return Err(Error::setting(setting, format!("positions below {images}"), outside));
            }
        }
        let labelled: HashSet<usize> = self.labelled.iter().copied().collect();
        match self.unlabelled.iter().find(|index| labelled.contains(index)) {
            Some(&index) => Err(Error::SplitOverlap { index }),
            None => Ok(()),
        }
    }
}

/// What a network says about every image of a set, as logits `[images, classes]`: soft labels for those without a label.
///
/// # Errors
/// Data that cannot be read; a source that is not in the set's order; logits that are not `[images, classes]`, or not
/// finite.
pub fn pseudo_labels(logits: impl Fn(&Tensor) -> Tensor, source: &dyn BatchSource<Batch = Batch>) -> Result<Tensor> {
    let mut all = Vec::new();
    let mut next = 0;
    for batch in source.epoch(0)? {
        let batch = batch?;
        for &index in &batch.index {
            if index != next {
                let expected = "unshuffled: soft labels are kept by position";
                return Err(Error::setting("source", expected, format!("image {index} at place {next}")));
            }
            next += 1;
        }
        all.push(no_grad(|| logits(&batch.input)));
    }
    if all.is_empty() {
        return Err(Error::setting("source", "at least one batch", "an empty one"));
    }
    let all = Tensor::f_cat(&all, 0)?;
    if all.dim() != 2 || all.size()[0] != next as i64 {
        let found = format!("{:?}", all.size());
        return Err(Error::mismatch("pseudo-labels", format!("[{next}, classes]"), found));
    }
    check_finite("pseudo-labels", &all)?;
    Ok(all)
}

/// Labelled and unlabelled images with soft labels for all of them.
#[derive(Debug)]
pub struct SemiBatch {
    /// `[labelled + unlabelled, channels, height, width]`, the labelled ones first.
    pub input: Tensor,
    /// `[labelled]`, class numbers.
    pub target: Tensor,
    /// `[labelled + unlabelled, classes]`, the logits of [`pseudo_labels`].
    pub soft: Tensor,
}

impl ToDevice for SemiBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, target, soft } = self;
        Self { input: input.to_device(device), target: target.to_device(device), soft: soft.to_device(device) }
    }
}

/// Settings of [`SemiSupervised`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemiConfig {
    /// Share `a` of the soft labels for labelled images, in `[0, 1]`. Default, and ACL: 0.5.
    pub alpha: f64,
    /// Temperature T of the soft labels, above 0. Default, and ACL: 1.
    pub temperature: f64,
    /// Weight r of the soft labels, at least 0. Default, and ACL: 1.
    pub soft_weight: f64,
    /// Weight β of the divergence between clean and attacked, at least 0. Default, and ACL: 6.
    pub beta: f64,
    /// The attack on training images. Default, and ACL: 10 steps of 2/255 within an Linf ball of 8/255.
    pub attack: Pgd,
}

impl Default for SemiConfig {
    fn default() -> Self {
        let attack = Pgd::new(Ball::linf(8.0 / 255.0)).with_steps(10);
        Self { alpha: 0.5, temperature: 1.0, soft_weight: 1.0, beta: 6.0, attack }
    }
}

impl SemiConfig {
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(Error::setting("alpha", "in [0, 1]", self.alpha));
        }
        for (setting, value) in [("soft_weight", self.soft_weight), ("beta", self.beta)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(setting, "finite and at least 0", value));
            }
        }
        Ok(self.attack.validate()?)
    }

    /// The loss of a batch of `B` rows, of which the first are labelled (ACL's reference code):
    ///
    /// ```text
    /// 1/B · [ (1 − a)·Σ_labelled CE(f(x'), y) + a·T²·r·Σ_labelled H(q, f(x')) + T²·r·Σ_unlabelled H(q, f(x')) ]
    ///   + β/B · Σ_all KL( softmax f(x) ‖ softmax f(x') ),     H(q, o) = −Σ_c softmax(q/T)_c · log softmax(o/T)_c
    /// ```
    ///
    /// Parts: `labelled`, `unlabelled` (the terms in brackets) and `robustness` (the divergence before weighting).
    ///
    /// # Errors
    /// A setting outside its range, or shapes that do not fit.
    pub fn loss(&self, clean: &Tensor, attacked: &Tensor, target: &Tensor, soft: &Tensor) -> Result<Loss> {
        self.validate()?;
        let rows_of = |tensor: &Tensor| tensor.size().first().copied().unwrap_or(0);
        let (rows, labelled) = (rows_of(clean), rows_of(target));
        if soft.size() != clean.size() || labelled > rows {
            let expected = format!("{:?} as the logits, of which at most all are labelled", clean.size());
            return Err(Error::mismatch("soft labels", expected, format!("{:?} and {labelled} labels", soft.size())));
        }
        let divergence = divergence(clean, attacked)?.f_mean(clean.kind())?;
        let temperature = self.temperature;
        let soft = (soft.detach() / temperature).f_softmax(1, clean.kind())?;
        let found = (attacked / temperature).f_log_softmax(1, clean.kind())?;
        let soft = (soft * found).f_sum_dim_intlist([1].as_slice(), false, clean.kind())?.f_neg()?;
        let soft = soft * (temperature * temperature * self.soft_weight);
        let hard =
            attacked.narrow(0, 0, labelled).f_cross_entropy_loss(target, None::<Tensor>, Reduction::Sum, -100, 0.0)?;
        let labelled_soft = soft.narrow(0, 0, labelled).f_sum(clean.kind())?;
        let unlabelled = soft.narrow(0, labelled, rows - labelled).f_sum(clean.kind())? / rows as f64;
        let labelled = (hard * (1.0 - self.alpha) + labelled_soft * self.alpha) / rows as f64;
        let total = &labelled + &unlabelled + &divergence * self.beta;
        let parts = vec![
            ("labelled", labelled.detach()),
            ("unlabelled", unlabelled.detach()),
            ("robustness", divergence.detach()),
        ];
        Ok(Loss { total, parts })
    }
}

/// The last of ACL's three stages: pre-train on all images, fine-tune the normal branch on the few labels and let it label the
/// rest ([`pseudo_labels`]), then train the adversarial branch on both with this objective.
pub struct SemiSupervised<'a> {
    logits: Logits<'a>,
    config: SemiConfig,
    seed: u64,
}

impl std::fmt::Debug for SemiSupervised<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("SemiSupervised").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> SemiSupervised<'a> {
    /// All of a network. `seed` fixes the attack's random starts.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(network: &'a dyn Network, config: SemiConfig, seed: u64) -> Result<Self> {
        Self::of(Box::new(|images, train| network.forward(images, train)), config, seed)
    }

    /// Any function from images to logits.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn of(logits: Logits<'a>, config: SemiConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { logits, config, seed })
    }

    fn step(&self, batch: &SemiBatch, step: u64) -> Result<Loss> {
        let (rows, soft) = (batch.input.size().first().copied().unwrap_or(0), batch.soft.size());
        let labelled = batch.target.size().first().copied().unwrap_or(0);
        if batch.target.dim() != 1 || soft.len() != 2 || soft[0] != rows || labelled > rows {
            let expected = format!("[{rows}, classes], of which at most all are labelled");
            let found = format!("{soft:?} and labels {:?}", batch.target.size());
            return Err(Error::mismatch("soft labels", expected, found));
        }
        // What the attack moves away from: labels where there are any, else the most likely pseudo-label.
        let guessed = batch.soft.f_argmax(1, false)?;
        let rest = guessed.narrow(0, labelled, guessed.size()[0] - labelled);
        let labels = Tensor::f_cat(&[&batch.target, &rest], 0)?;
        let seed = derive(self.seed, Purpose::Noise, step);
        let attacked = attack_labels(&self.logits, &self.config.attack, &batch.input, &labels, seed)?;
        let (clean, attacked) = ((self.logits)(&batch.input, true), (self.logits)(&attacked, true));
        self.config.loss(&clean, &attacked, &batch.target, &batch.soft)
    }
}

impl Objective<SemiBatch> for SemiSupervised<'_> {
    fn loss(&mut self, batch: &SemiBatch, progress: &Progress) -> core_tensor::Result<Loss> {
        self.step(batch, progress.step).map_err(Error::in_step)
    }
}

/// Batches of a fixed number of labelled and unlabelled images. An epoch passes once through the unlabelled ones; the labelled
/// ones come round as often as needed, in a new order and augmented anew each time.
#[derive(Debug)]
pub struct SemiLoader {
    set: Arc<Dataset>,
    split: Arc<SemiSplit>,
    soft: Tensor,
    pipeline: Arc<Pipeline>,
    sizes: [usize; 2],
    seed: u64,
}

impl SemiLoader {
    /// `sizes` are the labelled and unlabelled images of a batch (ACL: 2 and 198 at 1 % labels, 25 and 225 at 10 %); `soft` are
    /// the [`pseudo_labels`] of the whole set.
    ///
    /// # Errors
    /// A split that does not fit the set, soft labels of another number of images, sizes of 0 or above what there is.
    pub fn new(
        set: impl Into<Arc<Dataset>>,
        split: SemiSplit,
        soft: &Tensor,
        augmentation: &Augmentation,
        sizes: [usize; 2],
        seed: u64,
    ) -> Result<Self> {
        let set = set.into();
        split.validate(set.len())?;
        if soft.size().first() != Some(&(set.len() as i64)) || soft.dim() != 2 {
            let found = format!("{:?}", soft.size());
            return Err(Error::mismatch("soft labels", format!("[{}, classes]", set.len()), found));
        }
        let limits = [("labelled_size", split.labelled.len()), ("unlabelled_size", split.unlabelled.len())];
        for ((setting, limit), size) in limits.into_iter().zip(sizes) {
            if !(1..=limit).contains(&size) {
                return Err(Error::setting(setting, format!("1 to {limit}"), size));
            }
        }
        let pipeline = Arc::new(augmentation.prepare(set.channels(), set.size())?);
        let soft = soft.detach().to_device(Device::Cpu);
        Ok(Self { set, split: Arc::new(split), soft, pipeline, sizes, seed })
    }

    /// The images of each batch of an epoch, labelled ones first: position, and stream of the augmentation. A labelled
    /// image's is its round, so that it does not come round again in an epoch as the same picture; others have 0.
    fn order(&self, epoch: u64) -> Vec<Vec<(usize, u64)>> {
        let [labelled, unlabelled] = self.sizes;
        let batches = self.split.unlabelled.len() / unlabelled;
        let mut rng = generator(self.seed, Purpose::Order, epoch);
        let mut rest = self.split.unlabelled.clone();
        rest.shuffle(&mut rng);
        let rest: Vec<(usize, u64)> = rest.into_iter().map(|position| (position, 0)).collect();
        let rounds = (batches * labelled).div_ceil(self.split.labelled.len()) as u64;
        let mut few: Vec<(usize, u64)> = Vec::new();
        for round in 0..rounds {
            let mut positions = self.split.labelled.clone();
            positions.shuffle(&mut rng);
            few.extend(positions.into_iter().map(|position| (position, round)));
        }
        few.chunks(labelled).zip(rest.chunks_exact(unlabelled)).map(|(few, rest)| [few, rest].concat()).collect()
    }
}

impl BatchSource for SemiLoader {
    type Batch = SemiBatch;

    fn batches_per_epoch(&self) -> u64 {
        (self.split.unlabelled.len() / self.sizes[1]) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<SemiBatch>> + '_>> {
        let (set, pipeline, soft) = (self.set.clone(), self.pipeline.clone(), self.soft.shallow_clone());
        let (labelled, seed) = (self.sizes[0], self.seed);
        let work = self.order(epoch).into_iter().map(move |rows| {
            // A draw has one stream: rows of the same are drawn together.
            let parts = rows.chunk_by(|(_, a), (_, b)| a == b).map(|part| {
                let index: Vec<usize> = part.iter().map(|&(position, _)| position).collect();
                pipeline.batch(&*set, &index, Draw { seed, epoch, stream: part[0].1 })
            });
            let input = Tensor::f_cat(&parts.collect::<core_tensor::Result<Vec<_>>>()?, 0)?;
            let target: Vec<i64> = rows[..labelled].iter().map(|&(position, _)| set.label(position)).collect();
            let places: Vec<i64> = rows.iter().map(|&(position, _)| position as i64).collect();
            let soft = soft.f_index_select(0, &Tensor::from_slice(&places))?;
            Ok(SemiBatch { input, target: Tensor::from_slice(&target), soft })
        });
        Ok(Box::new(prefetch(2, work)?))
    }
}

/// Share (%) of soft labels whose most likely class is the true one, over the given positions.
///
/// # Errors
/// No position, or one outside the set.
pub fn pseudo_label_accuracy(soft: &Tensor, set: &Dataset, positions: &[usize]) -> Result<f64> {
    if positions.is_empty() {
        return Err(Error::setting("positions", "at least one", 0));
    }
    if let Some(outside) = positions.iter().find(|position| **position >= set.len()) {
        return Err(Error::setting("positions", format!("below {}", set.len()), outside));
    }
    let places: Vec<i64> = positions.iter().map(|&position| position as i64).collect();
    let guessed = soft.f_argmax(1, false)?.f_index_select(0, &Tensor::from_slice(&places).to_device(soft.device()))?;
    let truth: Vec<i64> = positions.iter().map(|&position| set.label(position)).collect();
    let hits = guessed.to_device(Device::Cpu).f_eq_tensor(&Tensor::from_slice(&truth))?;
    Ok(100.0 * hits.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
}

#[cfg(test)]
mod tests;
