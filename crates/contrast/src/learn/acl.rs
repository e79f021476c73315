//! Adversarial contrastive learning: the adversary is one more augmentation.

use super::dual_norm::{Branch, BranchSwitch};
use super::error::{Error, Result, check_temperature};
use super::nt_xent::{Layout, nt_xent};
use super::projector::{Embed, Projector, projected};
use super::views::ViewBatch;
use crate::attack::{Ball, Pgd};
use core_tensor::nn::Network;
use core_tensor::seed::{Purpose, derive};
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

/// Where the adversary enters (Jiang et al., *ACL*, arXiv 2010.13337, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "formulation", rename_all = "snake_case", deny_unknown_fields)]
pub enum Formulation {
    /// Nowhere: SimCLR, in the normal branch.
    StandardToStandard,
    /// Both views are perturbed, and go through the adversarial branch.
    AdversarialToAdversarial,
    /// The first view is perturbed and goes through the adversarial branch, the second stays clean in the normal one.
    AdversarialToStandard,
    /// Both of the first two, as separate streams: `((2 − w)·L(clean) + w·L(adversarial)) / 2`. The streams never meet in one
    /// similarity matrix; they share all weights but the norms'. The paper's best.
    DualStream {
        /// `w` in `[0, 2]`. ACL: 1; DynACL raises it from 1.
        adversarial_weight: f64,
    },
}

impl Formulation {
    /// The dual stream with equal weights.
    pub const DUAL_STREAM: Self = Self::DualStream { adversarial_weight: 1.0 };
}

/// Settings of [`Acl`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclConfig {
    /// Where the adversary enters. Default: the dual stream with equal weights.
    pub formulation: Formulation,
    /// Temperature τ, above 0. Default, and the reference code: 0.5.
    pub temperature: f64,
    /// The perturbation, made against the contrastive loss. Default, and the reference code: 5 steps of 2/255 within an Linf
    /// ball of 8/255 from a random start.
    pub attack: Pgd,
}

impl Default for AclConfig {
    fn default() -> Self {
        let attack = Pgd::new(Ball::linf(8.0 / 255.0)).with_step_size(2.0 / 255.0).with_steps(5);
        Self { formulation: Formulation::DUAL_STREAM, temperature: 0.5, attack }
    }
}

impl AclConfig {
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        if let Formulation::DualStream { adversarial_weight } = self.formulation
            && !(0.0..=2.0).contains(&adversarial_weight)
        {
            return Err(Error::setting("adversarial_weight", "in [0, 2]", adversarial_weight));
        }
        Ok(self.attack.validate()?)
    }
}

/// Pre-trains an encoder without labels so that its features resist perturbations.
///
/// In each step the batch's views are moved, within the attack's ball, to where their contrastive loss is highest (in
/// evaluation mode, so that no statistics change, and without any gradient to weights); then the loss of the
/// formulation is minimised. Images are in `[0, 1]`; a network that wants them normalised does so itself.
///
/// Parts: `clean` and `adversarial` (the NT-Xent of each stream) or `mixed`.
///
/// The network and its head are built with [`DualBatchNorm`](super::DualBatchNorm) on `switch`. Afterwards
/// [`extract`](super::extract) keeps one branch: the adversarial one for adversarial fine-tuning and linear probes, the
/// normal one for standard fine-tuning and pseudo-labels.
///
/// ```
/// use contrast::attack::{Ball, Pgd};
/// use contrast::learn::{
///     Acl, AclConfig, BranchSwitch, DualBatchNorm, Projector, ProjectorConfig, SimClrAugmentation, TwoViews,
/// };
/// use core_tensor::{data::{LoaderConfig, ShapeGenerator}, networks::{Architecture, ConvNetConfig}};
/// use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
/// use core_tensor::train::{TrainConfig, Trainer};
/// use tch::{Device, nn::VarStore};
///
/// let switch = BranchSwitch::default();
/// let (store, layers) = (VarStore::new(Device::Cpu), DualBatchNorm::new(&switch));
/// let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8], classes: 10 };
/// let network = Architecture::ConvNet(config).build(&store.root(), &layers)?;
/// let projector = Projector::new(&(store.root() / "projector"), &layers, 8, &ProjectorConfig::acl(8))?;
///
/// let images = ShapeGenerator::fashion_mnist().splits(16, 1, 0)?.train;
/// let views = SimClrAugmentation::small_grey([28, 28]).transforms(1);
/// let views = TwoViews::new(images, &views, LoaderConfig::training(8), 0)?;
/// let config = AclConfig { attack: Pgd::new(Ball::linf(8.0 / 255.0)).with_steps(2), ..AclConfig::default() };
/// let mut objective = Acl::new((network.as_ref(), &projector), &switch, config, 0)?;
/// let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default())?;
/// let training = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
/// Trainer::new(training, &mut objective, &mut optimizer)?.fit(&views)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Acl<'a> {
    embed: Embed<'a>,
    switch: BranchSwitch,
    config: AclConfig,
    seed: u64,
}

impl std::fmt::Debug for Acl<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Acl").field("config", &self.config).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl<'a> Acl<'a> {
    /// A network seen through a head, both with the norms of `switch`. `seed` fixes the attack's random starts.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(
        (network, projector): (&'a dyn Network, &'a Projector),
        switch: &BranchSwitch,
        config: AclConfig,
        seed: u64,
    ) -> Result<Self> {
        Self::embedding(projected(network, projector), switch, config, seed)
    }

    /// Any function from images to embeddings whose norms follow `switch`.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn embedding(embed: Embed<'a>, switch: &BranchSwitch, config: AclConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { embed, switch: switch.clone(), config, seed })
    }

    /// The views of a batch as the attack leaves them in a step: `[2 · images, …]`. Under
    /// [`Formulation::AdversarialToStandard`] the second half is bit for bit what it was, under
    /// [`Formulation::StandardToStandard`] all of it.
    ///
    /// # Errors
    /// Images outside the attack's box, a loss that is not finite.
    pub fn perturb(&self, batch: &ViewBatch, step: u64) -> Result<Tensor> {
        let seed = derive(self.seed, Purpose::Noise, step);
        match self.config.formulation {
            Formulation::StandardToStandard => Ok(batch.views.shallow_clone()),
            Formulation::AdversarialToStandard => {
                let (first, second) = batch.pairs()?;
                // The clean half does not move and its branch is in evaluation mode: one pass serves all steps.
                let clean = no_grad(|| self.embed(&second, Branch::Normal, false));
                let loss = |views: &Tensor| {
                    let moved = self.embed(views, Branch::Adversarial, false);
                    self.nt_xent(&Tensor::f_cat(&[&moved, &clean], 0)?)
                };
                let moved = self.config.attack.perturb(&first, loss, seed)?;
                Ok(Tensor::f_cat(&[moved, second], 0)?)
            }
            Formulation::AdversarialToAdversarial | Formulation::DualStream { .. } => {
                let loss = |views: &Tensor| self.nt_xent(&self.embed(views, Branch::Adversarial, false));
                self.config.attack.perturb(&batch.views, loss, seed)
            }
        }
    }

    fn step(&self, batch: &ViewBatch, step: u64) -> Result<Loss> {
        let views = self.perturb(batch, step)?;
        let (adversarial, normal) = (Branch::Adversarial, Branch::Normal);
        match self.config.formulation {
            Formulation::StandardToStandard => {
                Ok(Loss::single("clean", self.nt_xent(&self.embed(&views, normal, true))?))
            }
            Formulation::AdversarialToAdversarial => {
                Ok(Loss::single("adversarial", self.nt_xent(&self.embed(&views, adversarial, true))?))
            }
            Formulation::AdversarialToStandard => {
                let images = views.size()[0] / 2;
                let moved = self.embed(&views.narrow(0, 0, images), adversarial, true);
                let clean = self.embed(&views.narrow(0, images, images), normal, true);
                Ok(Loss::single("mixed", self.nt_xent(&Tensor::f_cat(&[moved, clean], 0)?)?))
            }
            Formulation::DualStream { adversarial_weight: weight } => {
                let moved = self.nt_xent(&self.embed(&views, adversarial, true))?;
                let clean = self.nt_xent(&self.embed(&batch.views, normal, true))?;
                let total = (&clean * (2.0 - weight) + &moved * weight) / 2.0;
                Ok(Loss { total, parts: vec![("clean", clean.detach()), ("adversarial", moved.detach())] })
            }
        }
    }

    fn embed(&self, views: &Tensor, branch: Branch, train: bool) -> Tensor {
        self.switch.during(branch, || (self.embed)(views, train))
    }

    fn nt_xent(&self, embeddings: &Tensor) -> Result<Tensor> {
        nt_xent(embeddings, self.config.temperature, Layout::Stacked)
    }
}

impl Objective<ViewBatch> for Acl<'_> {
    fn loss(&mut self, batch: &ViewBatch, progress: &Progress) -> core_tensor::Result<Loss> {
        self.step(batch, progress.step).map_err(Error::in_step)
    }
}

#[cfg(test)]
mod tests;
