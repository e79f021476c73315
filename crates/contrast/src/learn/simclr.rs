//! SimCLR: two views of an image agree, views of different images do not.

use super::error::{Result, check_temperature};
use super::evaluate::retrieval_top1;
use super::nt_xent::{Layout, nt_xent};
use super::projector::{Embed, Projector, projected};
use super::views::ViewBatch;
use core_tensor::nn::Network;
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};

/// Settings of [`SimClr`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimClrConfig {
    /// Temperature τ, above 0. Default 0.5: SimCLR on CIFAR-10, and ACL.
    pub temperature: f64,
}

impl Default for SimClrConfig {
    fn default() -> Self {
        Self { temperature: 0.5 }
    }
}

impl SimClrConfig {
    /// # Errors
    /// A temperature that is not finite and above 0.
    pub fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)
    }
}

/// Minimises [`nt_xent`] over both views (Chen et al., *SimCLR*, arXiv 2002.05709); ACL's standard-to-standard form.
///
/// Parts: `nt_xent` and `retrieval`, the share (%) of views whose nearest other view is their image's.
///
/// ```
/// use contrast::learn::{Projector, ProjectorConfig, SimClr, SimClrAugmentation, SimClrConfig, TwoViews};
/// use core_tensor::{data::{LoaderConfig, ShapeGenerator}, networks::{Architecture, ConvNetConfig}, nn::Standard};
/// use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
/// use core_tensor::train::{TrainConfig, Trainer};
/// use tch::{Device, nn::VarStore};
///
/// let store = VarStore::new(Device::Cpu);
/// let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8], classes: 10 };
/// let network = Architecture::ConvNet(config).build(&store.root(), &Standard)?;
/// let head = ProjectorConfig::plain(network.feature_size(), 16);
/// let projector = Projector::new(&(store.root() / "projector"), &Standard, network.feature_size(), &head)?;
///
/// let images = ShapeGenerator::fashion_mnist().splits(32, 1, 0)?.train;
/// let views = SimClrAugmentation::small_grey([28, 28]).transforms(1);
/// let views = TwoViews::new(images, &views, LoaderConfig::training(16), 0)?;
/// let mut objective = SimClr::new(network.as_ref(), &projector, SimClrConfig::default())?;
/// let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default())?;
/// let training = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
/// Trainer::new(training, &mut objective, &mut optimizer)?.fit(&views)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SimClr<'a> {
    embed: Embed<'a>,
    config: SimClrConfig,
}

impl std::fmt::Debug for SimClr<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("SimClr").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> SimClr<'a> {
    /// A network seen through a head.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(network: &'a dyn Network, projector: &'a Projector, config: SimClrConfig) -> Result<Self> {
        Self::embedding(projected(network, projector), config)
    }

    /// Any function from images to embeddings.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn embedding(embed: Embed<'a>, config: SimClrConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { embed, config })
    }
}

impl Objective<ViewBatch> for SimClr<'_> {
    fn loss(&mut self, batch: &ViewBatch, _progress: &Progress) -> core_tensor::Result<Loss> {
        let embeddings = (self.embed)(&batch.views, true);
        let loss = |embeddings| -> Result<Loss> {
            let total = nt_xent(embeddings, self.config.temperature, Layout::Stacked)?;
            let retrieval = retrieval_top1(embeddings, Layout::Stacked)?;
            let parts = vec![("nt_xent", total.detach()), ("retrieval", retrieval)];
            Ok(Loss { total, parts })
        };
        loss(&embeddings).map_err(super::Error::in_step)
    }
}
