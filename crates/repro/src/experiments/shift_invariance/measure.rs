//! Trains a network, then moves objects over the frame.

use super::Net;
use super::network::{self, SIDE, SmallVgg};
use super::page::{self, LAYERS};
use super::placed::{CENTRE, OBJECT, Placed, centred, sprites};
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
    ShiftGrid, ShiftMaps, ShiftStudy, Sprite, arithmetic, bootstrap_interval, circular_consistency, roll_change,
};

/// The layer whose features are compared.
pub(super) const FEATURE: &str = "fc6";
/// Pixels of the input in one step of the last map.
const TOTAL_STRIDE: usize = 8;
/// The same of each stage's map.
const STRIDES: [usize; 3] = [2, 4, TOTAL_STRIDE];

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
        note("repetition", map.repetition(TOTAL_STRIDE));
        for (period, share) in STRIDES.iter().zip(map.stride_spectrum(&STRIDES)) {
            note(&format!("spectrum_{period}"), share);
        }
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
        let [centre, frame] = accuracies(&maps, label)?;
        note("accuracy_centre_objects", centre);
        note("accuracy_grid", frame);
        if number < page::OBJECTS {
            let tensors = LAYERS.iter().map(|layer| Ok(((*layer).to_owned(), maps.features(layer)?.contiguous())));
            let tensors = tensors.collect::<anyhow::Result<_>>()?;
            context.save_artifact(&page::artifact(number), |path| {
                Ok(write_safetensors(path, &tensors, &Metadata::default())?)
            })?;
        }
        features.push(maps.features(FEATURE)?.shallow_clone());
    }
    let [low, _] = bootstrap_interval(&sums["repetition"], 1000, seed)?;
    metrics.insert("repetition_low".into(), low);
    for (name, values) in sums {
        metrics.insert(name, values.iter().sum::<f64>() / values.len() as f64);
    }
    context.progress(params.epochs + 1, params.epochs + 2, "position");
    let features: Vec<&Tensor> = features.iter().collect();
    let svm = LinearSvm::default();
    for (name, halves) in [("top_bottom", Halves::TopBottom), ("left_right", Halves::LeftRight)] {
        let apart = svm.separability(&features, &study.grid, halves, Folds::LeaveObjectsOut(5))?;
        metrics.insert(format!("{name}_left_out"), apart.accuracy);
        let own = svm.separability(&features, &study.grid, halves, Folds::Contiguous(5))?;
        metrics.insert(name.into(), own.accuracy);
    }
    let sum = arithmetic(&features, &study.grid, 1000, seed)?;
    metrics.insert("arithmetic".into(), sum.difference);
    metrics.insert("arithmetic_low".into(), sum.interval[0]);
    Ok(())
}

/// Whether an object of class `label` is recognised at the centre of the frame, where the network was trained (1 or 0), and the
/// share of all positions at which it is.
fn accuracies(maps: &ShiftMaps, label: i64) -> anyhow::Result<[f64; 2]> {
    let found = maps.predictions().ok_or_else(|| anyhow::anyhow!("the study has no classifier"))?;
    // A position is a pixel. (`Anchor::Centre` is the published one, a pixel up and to the left.)
    let centre = maps.grid().index(Anchor::At([CENTRE; 2]))?;
    Ok([f64::from(u8::from(found.classes[centre] == label)), found.accuracy(label)])
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

#[cfg(test)]
mod tests {
    use super::super::network::{Head, Pool};
    use super::*;
    use core_tensor::data::ShapeGenerator;

    #[test]
    fn an_invariant_network_is_as_accurate_over_the_frame_as_at_the_centre() {
        let (_store, network) = network::build(Head::Average, Pool::Polyphase, 0, Device::Cpu).unwrap();
        let test = ShapeGenerator::fashion_mnist().splits(10, 10, 0).unwrap().test;
        let (object, _) = sprites(&test).unwrap().swap_remove(0);
        let probe = NetworkProbe::new(&network, &["logits"], [1, SIDE as i64, SIDE as i64]).unwrap();
        let maps = study().unwrap().run(&probe, &object).unwrap();
        let found: Vec<[f64; 2]> = (0..10).map(|label| accuracies(&maps, label).unwrap()).collect();
        assert!(found.iter().all(|[centre, frame]| centre == frame), "{found:?}");
        // Without training too it takes every object for something.
        assert_eq!(found.iter().map(|[centre, _]| centre).sum::<f64>(), 1.0);
    }

    #[test]
    fn the_centre_is_where_networks_are_trained() {
        let test = ShapeGenerator::fashion_mnist().splits(10, 10, 0).unwrap().test;
        let (study, (object, _)) = (study().unwrap(), sprites(&test).unwrap().swap_remove(0));
        let place = study.grid.index(Anchor::At([CENTRE; 2])).unwrap();
        let moved = study.placer.images(&object, &study.grid, place..place + 1).unwrap();
        assert_eq!(moved, centred(&test).unwrap().narrow(0, 0, 1));
        // A network that knows the object there and nowhere else.
        let mut logits = [1.0_f32, 0.0].repeat(study.grid.len());
        logits[2 * place..2 * place + 2].reverse();
        let logits = Tensor::from_slice(&logits).view([-1, 2]);
        let features = [("logits".to_owned(), logits)].into_iter().collect();
        let maps = ShiftMaps::new(study.grid, features, study.similarity, Some("logits")).unwrap();
        assert_eq!(accuracies(&maps, 1).unwrap(), [1.0, 1.0 / 441.0]);
    }
}
