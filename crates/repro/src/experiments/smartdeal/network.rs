//! A trained network compressed in one shot, beside its rivals, and re-trained.

use super::blobs::{Blobs, Mlp};
use super::blocks::round_largest;
use crate::{Metrics, RunContext};
use core_tensor::checkpoint::{Header, state_of, write_safetensors};
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, Observer, TrainConfig, Trainer, evaluate};
use quant::smartdeal::train::AlternateRetraining;
use quant::smartdeal::{Baseline, CompressPolicy, CompressReport, CompressedFactory, LayerShape, SdzModel, compress};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) train: usize,
    pub(super) test: usize,
    pub(super) epochs: u64,
    pub(super) peak: f64,
    pub(super) thetas: Vec<f64>,
    pub(super) retraining_epochs: u64,
    pub(super) retraining_peak: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            train: 4000,
            test: 2000,
            epochs: 20,
            peak: 0.05,
            thetas: vec![0.1, 0.2],
            retraining_epochs: 6,
            retraining_peak: 0.02,
        }
    }
}

impl Params {
    /// Epochs of re-training and their learning rate.
    fn retraining(&self) -> (u64, f64) {
        (self.retraining_epochs, self.retraining_peak)
    }
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let device = context.device().into();
    let (train_set, test_set) = Blobs::splits(params.train, params.test, seed);
    let (train_set, test_set) = (train_set.on(device), test_set.on(device));
    let (store, network) = dense(&train_set, params.epochs, params.peak, seed)?;
    let accuracy = |network: &Mlp| -> anyhow::Result<f64> { Ok(evaluate(network, &test_set)?.accuracy) };
    let continued = continue_dense(&store, &train_set, params, seed)?;
    let mut metrics =
        Metrics::from([("dense".into(), accuracy(&network)?), ("dense_continued".into(), accuracy(&continued)?)]);
    let header = Header::new("repro.weights", 1, ());
    let state = state_of(&store);
    context.save_artifact("dense.safetensors", |path| Ok(write_safetensors(path, &state, &header.to_metadata()?)?))?;
    let dense_bytes = length_of(context, "dense.safetensors")?;
    for (done, theta) in params.thetas.iter().enumerate() {
        let policy = CompressPolicy::with_theta(*theta);
        let (model, report) = compress(&store, &policy)?;
        let key = |name: &str| format!("{name}_{theta}");
        metrics.insert(key("zeros"), 100.0 * report.element_sparsity());
        let file = format!("theta-{theta}.sdz");
        context.save_artifact(&file, |path| Ok(model.write(path, None).map(drop)?))?;
        metrics.insert(key("file_ratio"), dense_bytes / length_of(context, &file)?);
        let model = SdzModel::read(&saved(context, &file)?)?;

        let exact = CompressPolicy { basis_bits: None, ..policy.clone() };
        let (exact, _) = with_model(&store, &compress(&store, &exact)?.0)?;
        metrics.insert(key("one_shot_float_basis"), accuracy(&exact)?);
        let (one_shot, compressed) = with_model(&store, &model)?;
        metrics.insert(key("one_shot"), accuracy(&one_shot)?);
        metrics.insert(key("agreement"), agreement(&one_shot, &compressed, test_set.input()));
        let rounded = with_weights(&store, &report, |name, weights, _| {
            let kept = model.layer(name).map_or(0, |layer| layer.stats().non_zeros);
            Ok(round_largest(weights.iter().map(|w| f64::from(*w)), kept).iter().map(|w| *w as f32).collect())
        })?;
        metrics.insert(key("rounded"), accuracy(&rounded)?);
        for (rival, baseline) in rivals().into_iter().chain(alone()) {
            let network = with_weights(&store, &report, |name, weights, shape| {
                let layer = report.layers.iter().find(|layer| layer.name == name);
                let budget = layer.map_or(0, |layer| layer.storage.total_bits());
                Ok(baseline.approximate(weights, &shape, budget)?.weights)
            })?;
            metrics.insert(key(rival), accuracy(&network)?);
        }

        let retrained = retrain(&store, &train_set, &policy, params, seed)?;
        metrics.insert(key("retrained"), accuracy(&retrained)?);
        context.progress(done as u64 + 1, params.thetas.len() as u64, "");
    }
    Ok(metrics)
}

/// Methods that get the same bits for every layer.
pub(super) fn rivals() -> [(&'static str, Baseline); 4] {
    [
        ("k_means", Baseline::PruneKMeans { bits: 4 }),
        ("uniform", Baseline::PruneUniform { bits: 8 }),
        ("powers_of_two", Baseline::PrunePowersOfTwo { bits: 4 }),
        ("low_rank", Baseline::LowRank),
    ]
}

/// Of the three that SmartDeal joins each alone, with the same bits.
pub(super) fn alone() -> [(&'static str, Baseline); 3] {
    [("prune", Baseline::Prune), ("quantise", Baseline::Uniform), ("low_rank", Baseline::LowRank)]
}

/// Where an artifact of this run lies.
pub(super) fn saved(context: &RunContext, artifact: &str) -> anyhow::Result<PathBuf> {
    context.artifact(artifact).ok_or_else(|| anyhow::anyhow!("artifact {artifact} was not saved"))
}

fn length_of(context: &RunContext, artifact: &str) -> anyhow::Result<f64> {
    Ok(std::fs::metadata(saved(context, artifact)?)?.len() as f64)
}

/// Trains a dense network, on the device of the data.
pub(super) fn dense(data: &Blobs, epochs: u64, peak: f64, seed: u64) -> anyhow::Result<(VarStore, Mlp)> {
    seed_libtorch(seed, Purpose::Initialisation, 0);
    // Drawn on the CPU, so that a seed means the same weights on every device.
    let mut store = VarStore::new(Device::Cpu);
    let network = Mlp::new(&store.root(), &Standard);
    store.set_device(data.input().device());
    fit(&store, &network, data, (epochs, peak), seed, &mut [])?;
    Ok((store, network))
}

/// SGD with momentum; the last third of the epochs at a quarter of the rate.
fn fit(
    store: &VarStore,
    network: &Mlp,
    data: &Blobs,
    (epochs, peak): (u64, f64),
    seed: u64,
    observers: &mut [&mut dyn Observer],
) -> anyhow::Result<()> {
    use core_tensor::data::BatchSource;
    let milestones = vec![(epochs - epochs / 3) * data.batches_per_epoch()];
    let config = TrainConfig { epochs, seed, schedule: Schedule::Step { peak, milestones, gamma: 0.25 } };
    let mut objective = CrossEntropy::new(network);
    let mut optimizer = Sgd::new(parameters(store, 5e-4), SgdConfig::default())?;
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer)?;
    for observer in observers {
        trainer.observe(*observer);
    }
    trainer.fit(data)?;
    Ok(())
}

/// A copy of a network with other weights.
pub(super) fn copy_of(store: &VarStore) -> anyhow::Result<(VarStore, Mlp)> {
    let mut copy = VarStore::new(Device::Cpu);
    let network = Mlp::new(&copy.root(), &Standard);
    copy.copy(store)?;
    copy.set_device(store.device());
    Ok((copy, network))
}

/// The network with rebuilt weights, and the one that runs from codes, on the CPU.
fn with_model(store: &VarStore, model: &SdzModel) -> anyhow::Result<(Mlp, Mlp)> {
    let (copy, rebuilt) = copy_of(store)?;
    model.write_into(&copy)?;
    let factory = CompressedFactory::new(model);
    let own = VarStore::new(Device::Cpu);
    let compressed = Mlp::new(&own.root(), &factory);
    factory.finish(&own)?;
    Ok((rebuilt, compressed))
}

/// The network with each compressed layer's weights replaced.
fn with_weights(
    store: &VarStore,
    report: &CompressReport,
    replace: impl Fn(&str, &[f32], LayerShape) -> anyhow::Result<Vec<f32>>,
) -> anyhow::Result<Mlp> {
    let (copy, network) = copy_of(store)?;
    let variables = copy.variables();
    for layer in &report.layers {
        let Some(variable) = variables.get(&layer.name) else { anyhow::bail!("no weight `{}`", layer.name) };
        let weights = Vec::<f32>::try_from(variable.detach().flatten(0, -1))?;
        let replaced = Tensor::from_slice(&replace(&layer.name, &weights, layer.shape)?).view_as(variable);
        tch::no_grad(|| variable.shallow_clone().f_copy_(&replaced))?;
    }
    Ok(network)
}

fn retrain(store: &VarStore, data: &Blobs, policy: &CompressPolicy, params: &Params, seed: u64) -> anyhow::Result<Mlp> {
    let (copy, network) = copy_of(store)?;
    let mut retraining = AlternateRetraining::new(&copy, policy.clone())?;
    retraining.project()?;
    fit(&copy, &network, data, params.retraining(), seed, &mut [&mut retraining])?;
    Ok(network)
}

/// A copy of the dense network, trained on as the re-trained one is.
fn continue_dense(store: &VarStore, data: &Blobs, params: &Params, seed: u64) -> anyhow::Result<Mlp> {
    let (copy, network) = copy_of(store)?;
    fit(&copy, &network, data, params.retraining(), seed, &mut [])?;
    Ok(network)
}

/// Share of equal predictions; `b` runs on the CPU.
fn agreement(a: &Mlp, b: &Mlp, input: &Tensor) -> f64 {
    let predict = |network: &Mlp, input: &Tensor| tch::no_grad(|| network.forward(input, false)).argmax(1, false);
    let (a, b) = (predict(a, input).to_device(Device::Cpu), predict(b, &input.to_device(Device::Cpu)));
    a.eq_tensor(&b).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
}
