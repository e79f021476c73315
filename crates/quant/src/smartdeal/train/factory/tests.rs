//! Training in SmartDeal form, on data small enough to see.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::Network;
use core_tensor::optim::{Schedule, Sgd, SgdConfig};
use core_tensor::train::{Control, CrossEntropy, EachEpoch, EpochReport, TrainConfig, Trainer};
use tch::{Device, Kind};

use super::*;
use crate::smartdeal::train::{AlternateRetraining, BucketSwitch, CoefficientMode, CoefficientUpdate, UpdateConfig};
use crate::smartdeal::{compress, load_network};

/// Four classes of 6×6 images, each a blurred corner.
struct Corners;

impl Corners {
    /// Drawn by a generator of its own: libtorch's is shared with the tests that run at the same time.
    fn batch(seed: u64, count: i64) -> Batch {
        use rand::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let target = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(4);
        let noise: Vec<f32> = (0..count * 36).map(|_| random.random_range(-0.85..0.85)).collect();
        let input = Tensor::from_slice(&noise).view([count, 1, 6, 6]);
        for i in 0..count {
            let class = i % 4;
            let _ = input.get(i).get(0).narrow(0, class / 2 * 3, 3).narrow(1, class % 2 * 3, 3).g_add_scalar_(1.0);
        }
        Batch { input, target, index: (0..count).map(|i| i as _).collect() }
    }
}

impl BatchSource for Corners {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        Ok(Box::new((0..4).map(move |i| Ok(Self::batch(epoch * 4 + i, 32)))))
    }
}

fn architecture() -> Architecture {
    Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![8, 12], classes: 4 })
}

fn train_config(epochs: u64) -> TrainConfig {
    TrainConfig { epochs, seed: 1, schedule: Schedule::Constant { peak: 0.05 } }
}

fn accuracy(network: &dyn Network) -> f64 {
    let batch = Corners::batch(1000, 200);
    let logits = tch::no_grad(|| network.forward(&batch.input, false));
    logits.argmax(1, false).eq_tensor(&batch.target).to_kind(Kind::Float).mean(Kind::Float).double_value(&[])
}

fn dense() -> (VarStore, Box<dyn Network>) {
    tch::manual_seed(5);
    let store = VarStore::new(Device::Cpu);
    let network = architecture().build(&store.root(), &Standard).unwrap();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default()).unwrap();
    Trainer::new(train_config(10), &mut objective, &mut optimizer).unwrap().fit(&Corners).unwrap();
    (store, network)
}

/// Trains in SmartDeal form and checks the format after every epoch; returns the accuracy before and after.
fn train_in_form(mode: CoefficientMode, config: SdTrainConfig) -> (f64, f64) {
    let (store, _) = dense();
    let policy = CompressPolicy::with_theta(0.06);
    let (model, _) = compress(&store, &policy).unwrap();
    let store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_model(&model, config.clone()).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    let weights = factory.finish(&store).unwrap();
    assert!(!weights.is_empty());
    let start = accuracy(network.as_ref());
    let masks: Vec<Vec<f32>> = weights.to_vec().iter().map(|w| floats(&w.mask).unwrap()).collect();

    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(trainable_without_coefficients(&store, 5e-4), SgdConfig::default()).unwrap();
    let mut update = CoefficientUpdate::new(&weights, UpdateConfig { mode, ..UpdateConfig::default() }).unwrap();
    let mut format = FormatCheck { weights: weights.to_vec(), masks, ladder: config.ladder, steps: 0 };
    let mut trainer = Trainer::new(train_config(4), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut update).observe(&mut format);
    trainer.fit(&Corners).unwrap();
    drop(trainer);
    assert_eq!(format.steps, 16);
    let end = accuracy(network.as_ref());

    // What was trained can be written, loaded, and runs the same from codes.
    let exported = weights.export(&store).unwrap();
    let compressed = load_network(&exported, &architecture(), &VarStore::new(Device::Cpu)).unwrap();
    let input = Corners::batch(7, 5).input;
    let far = tch::no_grad(|| {
        if config.activation_bits.is_some() {
            return 0.0;
        }
        let (a, b) = (network.forward(&input, false), compressed.forward(&input, false));
        ((&a - b).abs().max() / a.abs().max()).double_value(&[])
    });
    assert!(far < 1e-4, "{far}");
    (start, end)
}

/// After every step: coefficients on the ladder, and zero wherever the mask is.
struct FormatCheck {
    weights: Vec<SdWeight>,
    masks: Vec<Vec<f32>>,
    ladder: Ladder,
    steps: usize,
}

impl core_tensor::train::Observer for FormatCheck {
    fn name(&self) -> &str {
        "format"
    }

    fn after_step(
        &mut self,
        _: &core_tensor::train::StepContext,
        _: &mut dyn core_tensor::optim::Optimizer,
    ) -> core_tensor::Result<Control> {
        for (weight, mask) in self.weights.iter().zip(&self.masks) {
            for (c, m) in floats(&weight.coefficient).unwrap().iter().zip(mask) {
                assert_eq!(self.ladder.project(f64::from(*c)), f64::from(*c));
                assert!(*m == 1.0 || *c == 0.0);
            }
        }
        self.steps += 1;
        Ok(Control::Continue)
    }
}

#[test]
fn every_mode_keeps_the_format_at_every_step_and_learns() {
    let modes =
        [CoefficientMode::Frozen, CoefficientMode::Requantise, CoefficientMode::Switch(BucketSwitch::default())];
    for mode in modes {
        let (start, end) = train_in_form(mode, SdTrainConfig::default());
        // Chance is 0.25; the dense network reaches nearly 1.
        assert!(end > 0.8 && end >= start - 0.05, "{mode:?}: {start} to {end}");
    }
}

#[test]
fn low_precision_activations_and_gradients_learn_too() {
    let config = SdTrainConfig { activation_bits: Some(8), gradient_bits: Some(8), ..SdTrainConfig::default() };
    let (_, end) = train_in_form(CoefficientMode::Frozen, config);
    assert!(end > 0.8, "{end}");
}

#[test]
fn a_network_learns_from_scratch_in_this_form() {
    tch::manual_seed(2);
    let store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_scratch(CompressPolicy::with_theta(0.02), SdTrainConfig::default()).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    let weights = factory.finish(&store).unwrap();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(trainable_without_coefficients(&store, 5e-4), SgdConfig::default()).unwrap();
    let config = UpdateConfig { mode: CoefficientMode::Requantise, ..UpdateConfig::default() };
    let mut update = CoefficientUpdate::new(&weights, config).unwrap();
    let mut trainer = Trainer::new(train_config(25), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut update).fit(&Corners).unwrap();
    assert!(accuracy(network.as_ref()) > 0.8, "{}", accuracy(network.as_ref()));
}

#[test]
fn retraining_projects_every_epoch_and_keeps_the_best() {
    let (store, network) = dense();
    let policy = CompressPolicy::with_theta(0.1);
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default()).unwrap();
    let mut retraining = AlternateRetraining::new(&store, policy).unwrap().scored_by(|| Ok(accuracy(network.as_ref())));
    let mut check = EachEpoch("check", |report: &mut EpochReport| {
        assert!(report.metrics["smartdeal/compression_ratio"] > 1.0);
        Ok(Control::Continue)
    });
    let mut trainer = Trainer::new(train_config(3), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut retraining).observe(&mut check).fit(&Corners).unwrap();
    drop(trainer);
    let (score, model, compressed) = retraining.best().unwrap();
    assert!(score > 0.8, "{score}");
    assert!(compressed.element_sparsity() > 0.1);
    let loaded = load_network(model, &architecture(), &VarStore::new(Device::Cpu)).unwrap();
    // The best model is the network that was scored; sums run in another order.
    assert!((accuracy(loaded.as_ref()) - score).abs() <= 0.01);
}

#[test]
fn a_resumed_training_goes_on_where_it_stopped() {
    let (store, _) = dense();
    let (model, _) = compress(&store, &CompressPolicy::with_theta(0.06)).unwrap();
    let build = || {
        let store = VarStore::new(Device::Cpu);
        let factory = SdTrainingFactory::from_model(&model, SdTrainConfig::default()).unwrap();
        let network = architecture().build(&store.root(), &factory).unwrap();
        let weights = factory.finish(&store).unwrap();
        (store, network, weights)
    };
    let run = |path: Option<(&std::path::Path, bool)>, epochs: u64| {
        let (store, network, weights) = build();
        let mut objective = CrossEntropy::new(network.as_ref());
        let mut optimizer = Sgd::new(trainable_without_coefficients(&store, 5e-4), SgdConfig::default()).unwrap();
        let mut update = CoefficientUpdate::new(&weights, UpdateConfig::default()).unwrap();
        let mut trainer = Trainer::new(train_config(epochs), &mut objective, &mut optimizer).unwrap();
        trainer.observe(&mut update);
        if let Some((path, true)) = path {
            trainer.restore::<()>(path, &store).unwrap();
        }
        trainer.fit(&Corners).unwrap();
        if let Some((path, false)) = path {
            trainer.save(path, &store, &()).unwrap();
        }
        drop(trainer);
        weights.export(&store).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    run(Some((&path, false)), 2);
    assert_eq!(run(Some((&path, true)), 4), run(None, 4));
}

#[test]
fn bad_settings_are_named() {
    let config = SdTrainConfig { activation_bits: Some(1), ..SdTrainConfig::default() };
    let refused = SdTrainingFactory::from_scratch(CompressPolicy::default(), config);
    assert!(matches!(refused, Err(Error::Config { name: "activation_bits", .. })));
    // A rung that the training's ladder lacks is found when the network is built.
    let (store, _) = dense();
    let (model, _) = compress(&store, &CompressPolicy::with_theta(0.01)).unwrap();
    let narrow = SdTrainConfig { ladder: Ladder::new(-2, 5), ..SdTrainConfig::default() };
    let factory = SdTrainingFactory::from_model(&model, narrow).unwrap();
    let store = VarStore::new(Device::Cpu);
    let _network = architecture().build(&store.root(), &factory).unwrap();
    assert!(matches!(factory.finish(&store), Err(Error::OffLadder { .. })));
}
