//! Learning in SmartDeal form: a network trained on one half of the data goes on learning on the other.

use super::blobs::{Blobs, Mlp};
use super::network::dense;
use crate::{Metrics, RunContext};
use core_tensor::optim::{Schedule, Sgd, SgdConfig};
use core_tensor::train::{CrossEntropy, EachEpoch, TrainConfig, Trainer, evaluate};
use quant::smartdeal::train::{
    BucketSwitch, CoefficientMode, CoefficientUpdate, SdTrainConfig, SdTrainingFactory, UpdateConfig,
    trainable_without_coefficients,
};
use quant::smartdeal::{CompressPolicy, SdzModel, compress};
use serde::{Deserialize, Serialize};
use tch::Device;
use tch::nn::VarStore;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) train: usize,
    pub(super) test: usize,
    pub(super) dense_epochs: u64,
    pub(super) dense_peak: f64,
    pub(super) theta: f64,
    pub(super) epochs: u64,
    pub(super) peak: f64,
    pub(super) modes: Vec<(String, CoefficientMode)>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            train: 4000,
            test: 2000,
            dense_epochs: 20,
            dense_peak: 0.05,
            theta: 0.15,
            epochs: 6,
            peak: 0.01,
            modes: vec![
                ("frozen".into(), CoefficientMode::Frozen),
                ("requantise".into(), CoefficientMode::Requantise),
                ("switch".into(), CoefficientMode::Switch(BucketSwitch::default())),
            ],
        }
    }
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let device = context.device().into();
    let (train_set, test_set) = Blobs::splits(params.train, params.test, seed);
    let (train_set, test_set) = (train_set.on(device), test_set.on(device));
    let (source, target) = train_set.halves();
    let (store, network) = dense(&source, params.dense_epochs, params.dense_peak, seed)?;
    let mut metrics = Metrics::from([("dense".into(), evaluate(&network, &test_set)?.accuracy)]);
    // Training keeps the bases at full precision.
    let policy = CompressPolicy { basis_bits: None, ..CompressPolicy::with_theta(params.theta) };
    let (model, _) = compress(&store, &policy)?;
    for (done, (name, mode)) in params.modes.iter().enumerate() {
        let (start, end, zeros_kept) = learn(&model, *mode, (&target, &test_set), params, seed)?;
        metrics.insert("start".into(), start);
        metrics.insert(name.clone(), end);
        metrics.insert(format!("{name}_zeros_kept"), f64::from(u8::from(zeros_kept)));
        context.progress(done as u64 + 1, params.modes.len() as u64, name);
    }
    Ok(metrics)
}

/// Accuracy before and after, and whether every zero of the start was still zero after every epoch.
fn learn(
    model: &SdzModel,
    mode: CoefficientMode,
    (target, test_set): (&Blobs, &Blobs),
    params: &Params,
    seed: u64,
) -> anyhow::Result<(f64, f64, bool)> {
    let mut store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_model(model, SdTrainConfig::default())?;
    let network = Mlp::new(&store.root(), &factory);
    let weights = factory.finish(&store)?;
    store.set_device(target.input().device());
    let start = evaluate(&network, test_set)?.accuracy;
    let mut objective = CrossEntropy::new(&network);
    let mut optimizer = Sgd::new(trainable_without_coefficients(&store, 5e-4), SgdConfig::default())?;
    let mut update = CoefficientUpdate::new(&weights, UpdateConfig { mode, ..UpdateConfig::default() })?;
    let mut zeros_kept = true;
    let mut watch = EachEpoch("zeros", |_: &mut core_tensor::train::EpochReport| {
        for weight in weights.to_vec() {
            let outside = weight.coefficient.detach().masked_select(&weight.mask.eq(0.0));
            zeros_kept &= outside.abs().sum(tch::Kind::Double).double_value(&[]) == 0.0;
        }
        Ok(core_tensor::train::Control::Continue)
    });
    let config = TrainConfig { epochs: params.epochs, seed, schedule: Schedule::Constant { peak: params.peak } };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer)?;
    trainer.observe(&mut update).observe(&mut watch);
    trainer.fit(target)?;
    drop(trainer);
    Ok((start, evaluate(&network, test_set)?.accuracy, zeros_kept))
}
