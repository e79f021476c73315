//! Training in SmartDeal form, on data small enough to see.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::{Network, trace_workload};
use core_tensor::optim::{Optimizer, Schedule, Sgd, SgdConfig};
use core_tensor::train::{
    Control, CrossEntropy, EachEpoch, EpochReport, Observer, Progress, StepContext, TrainConfig, Trainer,
};
use tch::{Device, Kind};

use super::*;
use crate::smartdeal::train::{AlternateRetraining, BucketSwitch, CoefficientMode, CoefficientUpdate, UpdateConfig};
use crate::smartdeal::{DecomposeConfig, compress, load_network};

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
    let mut optimizer = Sgd::new(weights.trainable(&store, 5e-4), SgdConfig::default()).unwrap();
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

/// Gradients of one layer's input, pass after pass.
fn input_gradients(gradient_bits: Option<u8>, passes: usize) -> Vec<Vec<f32>> {
    let wave = |count: i64, phase: f64| (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.713 + phase).sin();
    let config = LinearConfig { bias: false, ..LinearConfig::new(12, 4) };
    let dense = VarStore::new(Device::Cpu);
    let _layer = Standard.linear(&(dense.root() / "fc"), config);
    tch::no_grad(|| dense.variables()["fc.weight"].shallow_clone().copy_(&wave(48, 0.0).view([4, 12])));
    let (model, _) = compress(&dense, &CompressPolicy::with_theta(0.02)).unwrap();

    let store = VarStore::new(Device::Cpu);
    let train = SdTrainConfig { gradient_bits, ..SdTrainConfig::for_model(&model, 0.02) };
    let factory = SdTrainingFactory::from_model(&model, train).unwrap();
    let layer = factory.linear(&(store.root() / "fc"), config);
    let weights = factory.finish(&store).unwrap();
    // The count of passes is the training's, not the network's.
    let exported = weights.export(&store).unwrap();
    assert_eq!(exported.records.keys().collect::<Vec<_>>(), ["fc.weight"]);
    let mut input = wave(36, 1.0).view([3, 12]).set_requires_grad(true);
    let upstream = wave(12, 2.0).view([3, 4]);
    let once = |_| {
        input.zero_grad();
        (layer.forward_t(&input, true) * &upstream).sum(Kind::Float).backward();
        floats(&input.grad()).unwrap()
    };
    (0..passes).map(once).collect()
}

#[test]
fn rounded_gradients_are_unbiased_and_every_pass_has_its_own_noise() {
    let passes = 400;
    let (exact, drawn) = (&input_gradients(None, 1)[0], input_gradients(Some(2), passes));
    assert_ne!(drawn[0], drawn[1]);
    assert_eq!(input_gradients(Some(2), 2), drawn[..2]);
    for (index, exact) in exact.iter().enumerate() {
        let values = drawn.iter().map(|pass| f64::from(pass[index]));
        let mean = values.clone().sum::<f64>() / passes as f64;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (passes - 1) as f64;
        // Five standard errors, and single precision's rounding of four products.
        let bound = 5.0 * (variance / passes as f64).sqrt() + 1e-6;
        assert!((mean - f64::from(*exact)).abs() <= bound, "{index}: {mean} against {exact}");
    }
}

#[test]
fn a_value_that_is_not_finite_reaches_the_loss() {
    let bits = SdTrainConfig { activation_bits: Some(8), gradient_bits: Some(8), ..SdTrainConfig::default() };
    let factory = SdTrainingFactory::from_scratch(CompressPolicy::with_theta(0.02), bits).unwrap();
    let store = VarStore::new(Device::Cpu);
    let layer = factory.linear(&(store.root() / "fc"), LinearConfig::new(12, 4));
    let weights = factory.finish(&store).unwrap();
    let input = Tensor::full([2, 12], f64::NAN, (Kind::Float, Device::Cpu));
    let loss = layer.forward_t(&input, true).sum(Kind::Float);
    assert!(loss.double_value(&[]).is_nan());
    loss.backward();
    assert!(weights.to_vec()[0].basis.grad().isnan().any().int64_value(&[]) == 1);
}

#[test]
fn a_models_ladder_begins_at_the_threshold_or_at_its_lowest_rung() {
    let (store, _) = dense();
    let (model, _) = compress(&store, &CompressPolicy::with_theta(0.06)).unwrap();
    let lowest = model.layers().flat_map(|(_, layer)| layer.exponents()).min().map(i32::from).unwrap();
    // log2 of 0.06 is −4.06, of 0.001 −9.97.
    for (theta, first) in [(0.25, -2), (0.06, -4), (0.001, -9), (0.0, -63)] {
        let config = SdTrainConfig::for_model(&model, theta);
        assert_eq!((config.ladder.p_min, config.ladder.p_max), (first.min(lowest), 5), "{theta}");
        config.validate().unwrap();
    }
}

#[test]
fn a_network_learns_from_scratch_in_this_form() {
    tch::manual_seed(2);
    let store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_scratch(CompressPolicy::with_theta(0.02), SdTrainConfig::default()).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    let weights = factory.finish(&store).unwrap();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(weights.trainable(&store, 5e-4), SgdConfig::default()).unwrap();
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
fn without_a_score_the_file_holds_the_network_that_the_last_epoch_left() {
    let (store, network) = dense();
    let policy = CompressPolicy::with_theta(0.1);
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default()).unwrap();
    let mut retraining = AlternateRetraining::new(&store, policy).unwrap();
    let mut trainer = Trainer::new(train_config(2), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut retraining).fit(&Corners).unwrap();
    drop(trainer);
    let (_, model, _) = retraining.best().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("network.sdz");
    model.write(&file, None).unwrap();

    let read = VarStore::new(Device::Cpu);
    let from_file = architecture().build(&read.root(), &Standard).unwrap();
    SdzModel::read(&file).unwrap().write_into(&read).unwrap();
    let found = read.variables();
    for (name, variable) in store.variables() {
        assert!(variable.equal(&found[&name]), "{name}");
    }
    assert_eq!(accuracy(from_file.as_ref()), accuracy(network.as_ref()));
}

#[test]
fn a_resumed_training_goes_on_where_it_stopped() {
    let (store, _) = dense();
    let (model, _) = compress(&store, &CompressPolicy::with_theta(0.06)).unwrap();
    let build = || {
        let store = VarStore::new(Device::Cpu);
        // Rounding draws noise, which must go on too.
        let config = SdTrainConfig { gradient_bits: Some(8), ..SdTrainConfig::default() };
        let factory = SdTrainingFactory::from_model(&model, config).unwrap();
        let network = architecture().build(&store.root(), &factory).unwrap();
        let weights = factory.finish(&store).unwrap();
        (store, network, weights)
    };
    let run = |path: Option<(&std::path::Path, bool)>, epochs: u64| {
        let (store, network, weights) = build();
        let mut objective = CrossEntropy::new(network.as_ref());
        let mut optimizer = Sgd::new(weights.trainable(&store, 5e-4), SgdConfig::default()).unwrap();
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
fn a_compressed_layer_that_the_network_does_not_ask_for_is_named() {
    let config = LinearConfig { bias: false, ..LinearConfig::new(12, 4) };
    let dense = VarStore::new(Device::Cpu);
    let _layer = Standard.linear(&(dense.root() / "fc"), config);
    let (model, _) = compress(&dense, &CompressPolicy::with_theta(0.02)).unwrap();
    for (name, fits) in [("fc", true), ("head", false)] {
        let store = VarStore::new(Device::Cpu);
        let factory = SdTrainingFactory::from_model(&model, SdTrainConfig::for_model(&model, 0.02)).unwrap();
        let _layer = factory.linear(&(store.root() / name), config);
        let finished = factory.finish(&store).map(drop);
        assert_eq!(finished.is_ok(), fits, "{finished:?}");
        assert!(fits || matches!(finished, Err(Error::Missing { name, .. }) if name == "fc.weight"));
    }
}

#[test]
fn an_optimizer_that_owns_coefficients_is_refused_before_the_first_step() {
    let store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_scratch(CompressPolicy::with_theta(0.02), SdTrainConfig::default()).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    let weights = factory.finish(&store).unwrap();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default()).unwrap();
    let mut update = CoefficientUpdate::new(&weights, UpdateConfig::default()).unwrap();
    let mut trainer = Trainer::new(train_config(1), &mut objective, &mut optimizer).unwrap();
    let error = trainer.observe(&mut update).fit(&Corners).unwrap_err().to_string();
    assert!(error.contains(".coefficient`") && error.contains("SdWeights::trainable"), "{error}");
    assert_eq!(trainer.progress().step, 0);
}

#[test]
fn a_layer_of_ones_own_trains_beside_a_variable_that_is_called_as_coefficients_are() {
    // 1 × 7 with holes, which no factory makes, beside a variable of the same last name that is the optimizer's.
    let shape = LayerShape::Conv { out_channels: 4, in_channels: 8, kernel: [1, 7] };
    let wave = |count: usize| (0..count).map(|i| (i as f32 * 0.713).sin() * 0.3).collect::<Vec<_>>();
    let layer = SdLayer::decompose(&wave(shape.weights()), shape, &DecomposeConfig::with_theta(0.02)).unwrap();
    let store = VarStore::new(Device::Cpu);
    let weight = SdWeight::new(&(store.root() / "wide"), &layer, Ladder::new(-6, 5)).unwrap();
    let temperature = store.root().var("coefficient", &[1], nn::Init::Const(1.0));
    let weights = SdWeights::from(vec![weight.shallow_clone()]);
    let trainable = weights.trainable(&store, 0.0);
    assert_eq!(trainable.iter().map(|own| own.name.as_str()).collect::<Vec<_>>(), ["coefficient", "wide.basis"]);

    let mut optimizer = Sgd::new(trainable, SgdConfig::default()).unwrap();
    let mut update = CoefficientUpdate::new(&weights, UpdateConfig::default()).unwrap();
    update.before_epoch(Progress::default(), &mut optimizer).unwrap();
    let input = Tensor::from_slice(&wave(2 * 8 * 32)).view([2, 8, 1, 32]);
    let output = input.f_conv2d(&weight.weight().unwrap(), None::<Tensor>, [1, 1], [0, 6], [1, 2], 1).unwrap();
    (output * &temperature).square().sum(Kind::Float).backward();
    optimizer.step(0.01).unwrap();
    let step = StepContext { progress: Progress::default(), steps_per_epoch: 1, loss: 0.0, learning_rate: 0.01 };
    update.after_step(&step, &mut optimizer).unwrap();
    assert!(temperature.double_value(&[0]) != 1.0);
    let after = weights.export(&store).unwrap();
    let after = after.layer("wide.weight").unwrap();
    assert!(after.shape() == shape && after.basis() != layer.basis());
}

#[test]
fn a_network_in_this_form_computes_what_the_dense_one_does() {
    let dense = VarStore::new(Device::Cpu);
    let network = architecture().build(&dense.root(), &Standard).unwrap();
    let store = VarStore::new(Device::Cpu);
    let factory = SdTrainingFactory::from_scratch(CompressPolicy::with_theta(0.02), SdTrainConfig::default()).unwrap();
    let in_form = architecture().build(&store.root(), &factory).unwrap();
    assert_eq!(factory.finish(&store).unwrap().len(), 2);
    let traced = |network: &dyn Network| trace_workload("net", network, &[1, 6, 6], Device::Cpu).unwrap();
    assert_eq!(traced(in_form.as_ref()), traced(network.as_ref()));
}

#[test]
fn bad_settings_are_named() {
    let config = SdTrainConfig { activation_bits: Some(1), ..SdTrainConfig::default() };
    let refused = SdTrainingFactory::from_scratch(CompressPolicy::default(), config);
    assert!(matches!(refused, Err(Error::Config { name: "activation_bits", .. })));
    // A prefix that fits no layer, and one that does.
    for (prefix, fits) in [("classifier", false), ("fc", true)] {
        let policy = CompressPolicy { keep_dense: vec![prefix.into()], ..CompressPolicy::with_theta(0.02) };
        let factory = SdTrainingFactory::from_scratch(policy, SdTrainConfig::default()).unwrap();
        let store = VarStore::new(Device::Cpu);
        let _network = architecture().build(&store.root(), &factory).unwrap();
        let finished = factory.finish(&store).map(drop);
        assert_eq!(finished.is_ok(), fits, "{finished:?}");
        assert!(fits || matches!(finished, Err(Error::Config { name: "keep_dense", .. })));
    }
    // A rung that the training's ladder lacks is found when the network is built.
    let (store, _) = dense();
    let (model, _) = compress(&store, &CompressPolicy::with_theta(0.01)).unwrap();
    let narrow = SdTrainConfig { ladder: Ladder::new(-2, 5), ..SdTrainConfig::default() };
    let factory = SdTrainingFactory::from_model(&model, narrow).unwrap();
    let store = VarStore::new(Device::Cpu);
    let _network = architecture().build(&store.root(), &factory).unwrap();
    assert!(matches!(factory.finish(&store), Err(Error::OffLadder { .. })));
}
