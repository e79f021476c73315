//! Learning in SmartDeal form: a network trained on one half of the data goes on learning on the other.

use super::blobs::{Blobs, Mlp};
use super::network::{copy_of, dense};
use crate::{Metrics, RunContext};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{CrossEntropy, EachEpoch, TrainConfig, Trainer, evaluate};
use quant::smartdeal::train::{
    BucketSwitch, CoefficientMode, CoefficientUpdate, SdTrainConfig, SdTrainingFactory, UpdateConfig,
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
    let continued = continue_dense(&store, &target, params, seed)?;
    metrics.insert("dense_continued".into(), evaluate(&continued, &test_set)?.accuracy);
    // Training keeps the bases at full precision.
    let policy = CompressPolicy { basis_bits: None, ..CompressPolicy::with_theta(params.theta) };
    let (model, _) = compress(&store, &policy)?;
    for (done, (name, mode)) in params.modes.iter().enumerate() {
        let learned = learn(&model, *mode, (&target, &test_set), params, seed)?;
        metrics.insert("start".into(), learned.start);
        metrics.insert(name.clone(), learned.end);
        metrics.insert(format!("{name}_zeros_kept"), f64::from(u8::from(learned.zeros_kept)));
        metrics.insert(format!("{name}_moved"), learned.moved);
        context.progress(done as u64 + 1, params.modes.len() as u64, name);
    }
    Ok(metrics)
}

/// A copy of a dense network, trained on as every arm is: as long, on the same batches, at the same rate.
fn continue_dense(store: &VarStore, target: &Blobs, params: &Params, seed: u64) -> anyhow::Result<Mlp> {
    let (copy, network) = copy_of(store)?;
    let mut objective = CrossEntropy::new(&network);
    let mut optimizer = Sgd::new(parameters(&copy, WEIGHT_DECAY), SgdConfig::default())?;
    Trainer::new(course(params, seed), &mut objective, &mut optimizer)?.fit(target)?;
    Ok(network)
}

/// How long and how fast the second half is learned, in whatever form.
fn course(params: &Params, seed: u64) -> TrainConfig {
    TrainConfig { epochs: params.epochs, seed, schedule: Schedule::Constant { peak: params.peak } }
}

const WEIGHT_DECAY: f64 = 5e-4;

/// What a training in SmartDeal form came to.
struct Learned {
    /// Accuracy before and after, in percent.
    start: f64,
    end: f64,
    /// Whether every zero of the start was still zero after every epoch.
    zeros_kept: bool,
    /// See [`moved`].
    moved: f64,
}

/// Of the coefficients that were not zero at the start, those that have another value in the end, in percent.
pub(super) fn moved(start: &SdzModel, end: &SdzModel) -> anyhow::Result<f64> {
    let (mut all, mut changed) = (0_usize, 0_usize);
    for (name, before) in start.layers() {
        let Some(after) = end.layer(name) else { anyhow::bail!("no layer `{name}` in the end") };
        let codes = before.codes().iter().zip(after.codes()).filter(|(before, _)| **before != 0);
        for (before, after) in codes {
            all += 1;
            changed += usize::from(before != after);
        }
    }
    Ok(100.0 * changed as f64 / all.max(1) as f64)
}

/// How many coefficients were zero at the start and are not in the end.
pub(super) fn zeros_lost(start: &SdzModel, end: &SdzModel) -> anyhow::Result<usize> {
    let mut lost = 0;
    for (name, before) in start.layers() {
        let Some(after) = end.layer(name) else { anyhow::bail!("no layer `{name}` in the end") };
        lost +=
            before.codes().iter().zip(after.codes()).filter(|(before, after)| **before == 0 && **after != 0).count();
    }
    Ok(lost)
}

fn learn(
    model: &SdzModel,
    mode: CoefficientMode,
    (target, test_set): (&Blobs, &Blobs),
    params: &Params,
    seed: u64,
) -> anyhow::Result<Learned> {
    let mut store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_model(model, SdTrainConfig::for_model(model, params.theta))?;
    let network = Mlp::new(&store.root(), &factory);
    let weights = factory.finish(&store)?;
    store.set_device(target.input().device());
    let start = evaluate(&network, test_set)?.accuracy;
    let mut objective = CrossEntropy::new(&network);
    let mut optimizer = Sgd::new(weights.trainable(&store, WEIGHT_DECAY), SgdConfig::default())?;
    let mut update = CoefficientUpdate::new(&weights, UpdateConfig { mode, ..UpdateConfig::default() })?;
    let mut zeros_kept = true;
    let mut watch = EachEpoch("zeros", |_: &mut core_tensor::train::EpochReport| {
        for weight in weights.to_vec() {
            let outside = weight.coefficient.detach().masked_select(&weight.mask.eq(0.0));
            zeros_kept &= outside.abs().sum(tch::Kind::Double).double_value(&[]) == 0.0;
        }
        Ok(core_tensor::train::Control::Continue)
    });
    let mut trainer = Trainer::new(course(params, seed), &mut objective, &mut optimizer)?;
    trainer.observe(&mut update).observe(&mut watch);
    trainer.fit(target)?;
    drop(trainer);
    let end = evaluate(&network, test_set)?.accuracy;
    Ok(Learned { start, end, zeros_kept, moved: moved(model, &weights.export(&store)?)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::{Network, Standard};
    use quant::smartdeal::{Record, SdLayer};

    #[test]
    fn the_dense_network_goes_on_in_a_copy_on_the_data_that_the_arms_see() {
        let params = Params { epochs: 1, ..Params::default() };
        let (train, _) = Blobs::splits(400, 100, 0);
        let (source, target) = train.halves();
        let (store, _) = dense(&source, 1, 0.05, 0).unwrap();
        let before = core_tensor::optim::named_trainable(&store).into_iter().map(|(_, own)| own.copy());
        let before: Vec<_> = before.collect();
        let logits = |data: &Blobs, epochs| {
            let network = continue_dense(&store, data, &Params { epochs, ..params.clone() }, 0).unwrap();
            Vec::<f32>::try_from(tch::no_grad(|| network.forward(target.input(), false)).flatten(0, -1)).unwrap()
        };
        assert_eq!(logits(&target, 1), logits(&target, 1));
        assert_ne!(logits(&target, 1), logits(&source, 1));
        assert_ne!(logits(&target, 1), logits(&target, 2));
        let after = core_tensor::optim::named_trainable(&store);
        assert!(after.iter().zip(&before).all(|((_, after), before)| after.equal(before)));
    }

    #[test]
    fn moved_coefficients_are_counted_among_those_that_were_not_zero_and_lost_zeros_apart() {
        let store = VarStore::new(Device::Cpu);
        let _network = Mlp::new(&store.root(), &Standard);
        let (start, _) = compress(&store, &CompressPolicy::with_theta(0.15)).unwrap();
        assert_eq!(moved(&start, &start).unwrap(), 0.0);
        let mut end = start.clone();
        let Some(Record::Layer(layer)) = end.records.get_mut("fc2.weight") else { panic!("no such layer") };
        // A zero that became something does not count; of the others two change.
        let mut codes = layer.codes().to_vec();
        let zero = codes.iter().position(|code| *code == 0).unwrap();
        codes[zero] = 64;
        codes
            .iter_mut()
            .enumerate()
            .filter(|(at, code)| *at != zero && **code != 0)
            .take(2)
            .for_each(|(_, code)| *code = -*code);
        *layer = SdLayer::from_parts(*layer.layout(), codes, layer.basis().clone()).unwrap();
        let all: usize = start.layers().map(|(_, layer)| layer.stats().non_zeros).sum();
        assert!((moved(&start, &end).unwrap() - 200.0 / all as f64).abs() < 1e-12);
        assert_eq!((zeros_lost(&start, &start).unwrap(), zeros_lost(&start, &end).unwrap()), (0, 1));
    }
}
