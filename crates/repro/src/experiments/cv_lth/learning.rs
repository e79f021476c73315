//! Training for a number of steps, whatever the batches.

use super::settings::Settings;
use crate::experiments::training::StopAfter;
use crate::{Device, RunContext};
use core_tensor::data::BatchSource;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Objective, Observer, TrainConfig, Trainer};
use tch::nn::VarStore;

/// L2 decay of every training.
const WEIGHT_DECAY: f64 = 1e-4;

/// A network with its variables.
pub(super) struct Model {
    pub(super) store: VarStore,
    pub(super) network: Box<dyn Network>,
}

impl Model {
    /// With this seed's initial weights.
    pub(super) fn new(settings: &Settings, seed: u64, device: Device) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        let mut store = VarStore::new(tch::Device::Cpu);
        let network = settings.architecture.build(&store.root(), &Standard)?;
        store.set_device(device.into());
        Ok(Self { store, network })
    }

    /// The same on a run's device.
    pub(super) fn on(settings: &Settings, seed: u64, context: &RunContext) -> anyhow::Result<Self> {
        Self::new(settings, seed, context.device())
    }
}

/// How long to train, how fast, with which noise.
pub(super) struct Length {
    pub(super) steps: u64,
    pub(super) schedule: Schedule,
    pub(super) seed: u64,
}

impl Length {
    /// From `peak` along half a cosine to 0.
    pub(super) fn cosine(steps: u64, peak: f64, seed: u64) -> Self {
        Self { steps, schedule: Schedule::Cosine { peak, last: 0.0, steps }, seed }
    }

    /// Always as fast.
    pub(super) fn constant(steps: u64, peak: f64, seed: u64) -> Self {
        Self { steps, schedule: Schedule::Constant { peak }, seed }
    }
}

/// Trains all variables of a store by SGD with momentum 0.9, a fresh optimizer each time.
pub(super) fn train<B>(
    objective: &mut dyn Objective<B>,
    store: &VarStore,
    source: &dyn BatchSource<Batch = B>,
    observers: Vec<&mut dyn Observer>,
    length: Length,
) -> core_tensor::Result<()> {
    let mut optimizer = Sgd::new(parameters(store, WEIGHT_DECAY), SgdConfig::default())?;
    let mut limit = StopAfter(length.steps);
    let epochs = length.steps.div_ceil(source.batches_per_epoch());
    let config = TrainConfig { epochs, seed: length.seed, schedule: length.schedule };
    let mut trainer = Trainer::new(config, objective, &mut optimizer)?;
    for observer in observers {
        trainer.observe(observer);
    }
    trainer.observe(&mut limit);
    trainer.fit(source)?;
    Ok(())
}
