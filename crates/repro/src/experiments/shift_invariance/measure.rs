//! Trains a network, then moves objects over the frame.

use super::Net;
use super::network::{self, SIDE, SmallVgg};
use super::page::{self, LAYERS};
use super::placed::{OBJECT, Placed, centred, sprites};
use crate::{Metrics, RunContext};
use core_tensor::checkpoint::{Metadata, write_safetensors};
use core_tensor::data::{Batch, BatchSource, Dataset, OnDevice};
use core_tensor::nn::{Conv2dConfig, LayerFactory, Network};
use core_tensor::optim::{Adam, AdamConfig, Schedule, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};
use vision::invariance::{
    Anchor, AntiAlias, AntiAliasConfig, Borders, Folds, Halves, LinearSvm, NetworkProbe, Picture, Placer, Reduction,
    ShiftGrid, ShiftStudy, Sprite, arithmetic, circular_consistency, roll_change,
};

/// The layer whose features are compared.
pub(super) const FEATURE: &str = "fc6";
/// Pixels of the input in one step of the last map.
pub(super) const TOTAL_STRIDE: usize = 8;

/// Trains and measures.
pub(super) fn net(params: &Net, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let splits = params.data.load(context.data(), params.train_images)?;
    let device: Device = context.device().into();
    let (store, network) = network::build(params.head, params.pool, seed, device)?;
    let placed = OnDevice::new(Placed::new(&splits.train, params.batch, seed)?, device);
    train(params, seed, context, (&store, &network), &placed)?;

    let mut metrics = Metrics::new();
    let test = splits.test.take(params.test_images)?;
    let images = centred(&test)?.to_device(device);
    let logits = no_grad(|| network.forward(&images, false));
    let hits =
        logits.argmax(1, false).eq_tensor(&test.labels().to_device(device)).to_kind(Kind::Float).mean(Kind::Float);
    metrics.insert("accuracy_centre".into(), hits.double_value(&[]));

    let mut classify = |images: &Tensor| Ok(no_grad(|| network.forward(images, false)));
    let consistency = circular_consistency(&images, 3, 8, &mut classify, seed)?;
    let rolls = roll_change(&images.narrow(0, 0, 40.min(images.size()[0])), 3, 40, &mut classify)?;
    metrics.insert("consistency".into(), consistency);
    metrics.insert("roll_agreement".into(), rolls.agreement);
    metrics.insert("roll_change".into(), rolls.largest);
    over_the_frame(params, &network, &splits.test, seed, context, &mut metrics)?;
    Ok(metrics)
}

fn train(
    params: &Net,
    seed: u64,
    context: &mut RunContext,
    (store, network): (&VarStore, &SmallVgg),
    data: &dyn BatchSource<Batch = Batch>,
) -> anyhow::Result<()> {
    let mut objective = CrossEntropy::new(network);
    let mut optimizer = Adam::new(parameters(store, 0.0), AdamConfig::default())?;
    let steps = params.epochs * data.batches_per_epoch();
    let schedule = Schedule::OneCycle { peak: params.peak, steps, rise: 0.3 };
    let config = TrainConfig { epochs: params.epochs, seed, schedule };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer)?;
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), store)?;
    }
    while trainer.progress().epoch < params.epochs {
        let (_, report) = trainer.fit_epoch(data)?;
        let epoch = report.epoch + 1;
        let row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        context.log(epoch, &row)?;
        context.save_checkpoint(epoch, |path| Ok(trainer.save(path, store, &())?))?;
        context.progress(epoch, params.epochs + 2, "");
    }
    Ok(())
}

/// The first so many objects of each class.
pub(super) fn objects(test: &Dataset, count: usize) -> anyhow::Result<Vec<(Sprite, i64)>> {
    sprites(&test.balanced(count.div_ceil(10))?)
}

/// The grid of the study: 21 × 21 positions.
pub(super) fn study() -> anyhow::Result<ShiftStudy> {
    let grid = ShiftGrid::new([SIDE; 2], [OBJECT; 2], 1)?;
    Ok(ShiftStudy::new(grid, Placer::on_colour(vec![0.0])).classified_by("logits"))
}

fn over_the_frame(
    params: &Net,
    network: &SmallVgg,
    test: &Dataset,
    seed: u64,
    context: &mut RunContext,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    let study = study()?;
    let probe = NetworkProbe::on(context.device().into(), network, &LAYERS, [1, SIDE as i64, SIDE as i64])?;
    let mut sums = std::collections::BTreeMap::<String, Vec<f64>>::new();
    let mut note = |name: &str, value: f64| sums.entry(name.into()).or_default().push(value);
    let mut features = Vec::new();
    for (number, (sprite, label)) in objects(test, params.objects)?.into_iter().enumerate() {
        let maps = study.run(&probe, &sprite)?;
        let map = maps.similarity(FEATURE, Anchor::Centre)?;
        note("local_drop", map.local_drop(1));
        note("local_drop_2", map.local_drop(2));
        note("global_drop", map.global_drop());
        note("jaggedness", map.jaggedness());
        note("spectrum", map.stride_spectrum(&[2, 4, 8]).iter().sum());
        note("aperiodicity", map.aperiodicity(TOTAL_STRIDE));
        for point in map.profile() {
            note(&format!("profile_{}", point.distance), point.mean);
        }
        for anchor in [Anchor::TopLeft, Anchor::BottomRight] {
            note(&format!("mean_{}", anchor.label()), maps.similarity(FEATURE, anchor)?.mean());
        }
        for layer in LAYERS {
            let map = maps.similarity(layer, Anchor::Centre)?;
            note(&format!("local_drop_{layer}"), map.local_drop(1));
            note(&format!("global_drop_{layer}"), map.global_drop());
        }
        let changes = maps.one_step_changes(label as usize)?;
        note("top1_change", changes.top1_change);
        note("mean_absolute_change", changes.mean_absolute_change);
        note("accuracy_grid", maps.predictions().map_or(0.0, |found| found.accuracy(label)));
        if number < page::OBJECTS {
            let tensors = LAYERS.iter().map(|layer| Ok(((*layer).to_owned(), maps.features(layer)?.contiguous())));
            let tensors = tensors.collect::<anyhow::Result<_>>()?;
            context.save_artifact(&page::artifact(number), |path| {
                Ok(write_safetensors(path, &tensors, &Metadata::default())?)
            })?;
        }
        features.push(maps.features(FEATURE)?.shallow_clone());
    }
    for (name, values) in sums {
        metrics.insert(name, values.iter().sum::<f64>() / values.len() as f64);
    }
    context.progress(params.epochs + 1, params.epochs + 2, "position");
    let features: Vec<&Tensor> = features.iter().collect();
    let svm = LinearSvm::default();
    for (name, halves) in [("top_bottom", Halves::TopBottom), ("left_right", Halves::LeftRight)] {
        let apart = svm.separability(&features, &study.grid, halves, Folds::LeaveObjectsOut(5))?;
        metrics.insert(format!("{name}_left_out"), apart);
        metrics.insert(name.into(), svm.separability(&features, &study.grid, halves, Folds::Contiguous(5))?);
    }
    let sum = arithmetic(&features, &study.grid, 1000, seed)?;
    metrics.insert("arithmetic".into(), sum.difference);
    metrics.insert("arithmetic_low".into(), sum.interval[0]);
    Ok(())
}

/// One convolution with random weights and ReLU, summed over all places: how much the sums of an object differ over the frame,
/// relative to their largest value.
pub(super) fn borders(seed: u64, device: Device) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    for (name, borders) in [("same", Borders::Zeros), ("full", Borders::Full)] {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let factory = AntiAlias::new(AntiAliasConfig { reduction: Reduction::Plain, borders, stem: false })?;
        let conv = factory.conv2d(&store.root(), Conv2dConfig::new(1, 8, 3, 1));
        let object = Tensor::rand([1, 6, 6], (Kind::Float, Device::Cpu));
        store.set_device(device);
        let object = Sprite::opaque(Picture::from_tensor(&object)?);
        let study = ShiftStudy::new(ShiftGrid::new([20, 20], [6, 6], 1)?, Placer::on_colour(vec![0.0]));
        let sums = |images: &Tensor| {
            let map = no_grad(|| conv.forward_t(&images.to_device(device), false).relu());
            Ok(vec![("sum".to_owned(), map.sum_dim_intlist([2_i64, 3].as_slice(), false, Kind::Float))])
        };
        let maps = study.run(&sums, &object)?;
        let sums = maps.features("sum")?;
        let spread = sums.amax([0_i64], false) - sums.amin([0_i64], false);
        metrics.insert(name.into(), spread.max().double_value(&[]) / sums.abs().max().double_value(&[]));
    }
    Ok(metrics)
}
