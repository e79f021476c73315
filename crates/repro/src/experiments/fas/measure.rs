//! Trains a model on all domains but one, and measures it there.

use super::cases::{FoldParams, Model, Recipe};
use crate::{Metrics, RunContext};
use core_tensor::data::{OnDevice, ToDevice};
use core_tensor::nn::{LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, Schedule};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Objective, TrainConfig, Trainer};
use std::time::{Duration, Instant};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use vision::fas::Panel;
use vision::fas::metrics::{Criterion, DevScores, EerRule, EvalOptions, TestScores, evaluate, evaluate_oracle};
use vision::fas::model::{
    AttributeMiner, CentralDifference, Columns, DeepPixBis, FasBatch, FasData, FasSource, PlainBackbone, Proxy,
    ProxyFas, ProxyObjective, Sampling, Task, weight_decay,
};

/// A network of either kind.
enum Network {
    Proxy(Box<ProxyFas>),
    PixBis(DeepPixBis),
}

/// Development people are every sixth of a source domain.
const DEV_SHARE: i64 = 6;

pub(super) fn fold(
    params: &FoldParams,
    seed: u64,
    data: &FasData,
    context: &mut RunContext,
) -> anyhow::Result<Metrics> {
    let target = params.target as i64;
    let split = |domain_is_target: bool, dev: bool| {
        data.subset(&data.positions_where(|at, _| {
            let is_dev = data.attribute(at, Columns::Identity) % DEV_SHARE == 0;
            (data.attribute(at, Columns::Camera) == target) == domain_is_target && (domain_is_target || is_dev == dev)
        }))
    };
    let (train, dev, test) = (split(false, false), split(false, true), split(true, false));
    // Drawn on the CPU, so that a seed means the same weights on every device.
    let mut store = VarStore::new(Device::Cpu);
    seed_libtorch(seed, Purpose::Initialisation, 0);
    let network = build(&store, params.model, &params.recipe)?;
    store.set_device(context.device().into());
    learn(&network, &store, &train, params, seed, context)?;
    measure(&network, [&train, &dev, &test], params.model, seed, context)
}

fn build(store: &VarStore, model: Model, recipe: &Recipe) -> anyhow::Result<Network> {
    let difference = CentralDifference::default();
    let factory: &dyn LayerFactory = if model == Model::CentralDifference { &difference } else { &Standard };
    let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), factory, recipe.width));
    Ok(if model == Model::DeepPixBis {
        Network::PixBis(DeepPixBis::new(&store.root(), factory, backbone))
    } else {
        Network::Proxy(Box::new(ProxyFas::new(&store.root(), factory, backbone, model.config(recipe.features))?))
    })
}

fn learn(
    network: &Network,
    store: &VarStore,
    train: &FasData,
    params: &FoldParams,
    seed: u64,
    context: &mut RunContext,
) -> anyhow::Result<()> {
    let recipe = &params.recipe;
    let miner = match params.model {
        Model::Mined => Some(AttributeMiner::default()),
        Model::Triplet => Some(AttributeMiner { keys: Vec::new(), ..AttributeMiner::default() }),
        _ => None,
    };
    let paired = matches!(params.model, Model::Paired | Model::Mined | Model::Triplet);
    let sampling = if paired { Sampling::Pairs } else { Sampling::Balanced };
    let (mut proxies, mut pixels);
    let objective: &mut dyn Objective<FasBatch> = match network {
        Network::Proxy(network) => {
            proxies = ProxyObjective::new(network, recipe.weights.clone(), miner);
            &mut proxies
        }
        Network::PixBis(network) => {
            pixels = network;
            &mut pixels
        }
    };
    let source = FasSource::new(train, (recipe.batch, recipe.steps_per_epoch()), (sampling, recipe.augment), seed)?;
    let source = OnDevice::new(source, context.device().into());
    let mut optimizer = Adam::new(weight_decay(store, recipe.weight_decay), AdamConfig::default())?;
    let epochs = recipe.steps / recipe.steps_per_epoch();
    let schedule = Schedule::OneCycle { peak: recipe.peak, steps: recipe.steps, rise: 0.3 };
    let mut trainer = Trainer::new(TrainConfig { epochs, seed, schedule }, objective, &mut optimizer)?;
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), store)?;
    }
    let mut saved = Instant::now();
    while trainer.progress().epoch < epochs {
        let (_, report) = trainer.fit_epoch(&source)?;
        let epoch = report.epoch + 1;
        let row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        context.log(epoch, &row)?;
        if epoch < epochs && saved.elapsed() > Duration::from_secs(10) {
            context.save_checkpoint(epoch, |path| Ok(trainer.save(path, store, &())?))?;
            saved = Instant::now();
        }
        context.progress(epoch, epochs, "");
    }
    Ok(())
}

/// A set's answers, batch by batch put together, on the CPU.
struct Answers {
    scores: Vec<f64>,
    embedding: Option<Tensor>,
}

fn positions(data: &FasData) -> Vec<i64> {
    (0..data.len() as i64).collect()
}

/// Runs `see` over a set in batches on `device`, without gradients.
fn over<T>(
    data: &FasData,
    device: Device,
    mut see: impl FnMut(&FasBatch) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    positions(data).chunks(200).map(|part| tch::no_grad(|| see(&data.batch(part).to_device(device)))).collect()
}

fn answers(network: &Network, model: Model, data: &FasData, device: Device) -> anyhow::Result<Answers> {
    let parts = over(data, device, |batch| {
        Ok(match network {
            Network::PixBis(network) => {
                let (map, score) = network.forward(&batch.input, false);
                let pixels = map.sigmoid().mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float);
                ((pixels + score.sigmoid()) * 0.5, None)
            }
            Network::Proxy(network) => {
                let out = network.forward(&batch.input, false)?;
                let by_depth = out.depth_score().filter(|_| model == Model::CentralDifference);
                (by_depth.unwrap_or_else(|| out.score()), Some(out.embedding))
            }
        })
    })?;
    let (scores, embeddings): (Vec<Tensor>, Vec<Option<Tensor>>) = parts.into_iter().unzip();
    let embeddings: Vec<Tensor> = embeddings.into_iter().flatten().collect();
    Ok(Answers {
        scores: Vec::<f64>::try_from(Tensor::cat(&scores, 0).to_kind(Kind::Double))?,
        embedding: (!embeddings.is_empty()).then(|| Tensor::cat(&embeddings, 0).to_device(Device::Cpu)),
    })
}

fn measure(
    network: &Network,
    [train, dev, test]: [&FasData; 3],
    model: Model,
    seed: u64,
    context: &mut RunContext,
) -> anyhow::Result<Metrics> {
    let device: Device = context.device().into();
    let (on_dev, on_test) = (answers(network, model, dev, device)?, answers(network, model, test, device)?);
    let dev_scores = DevScores::new(dev.scored(&on_dev.scores)?)?;
    let threshold = dev_scores.threshold(Criterion::Eer)?;
    let test_scores = TestScores::new(test.scored(&on_test.scores)?)?;
    // The central-difference network's scores are means of depth maps.
    let probabilities = model != Model::CentralDifference;
    let options = EvalOptions { probabilities, bootstrap: 1000, seed, ..EvalOptions::default() };
    let report = evaluate(&test_scores, &threshold, &options)?;
    let oracle = evaluate_oracle(&test_scores, &EvalOptions { bootstrap: 0, ..options.clone() })?;
    context.save_artifact("report.txt", |path| Ok(std::fs::write(path, report.to_string())?))?;
    let mut metrics = Metrics::from([
        ("dev_auc".into(), dev_scores.scores().auc()),
        ("dev_eer".into(), 100.0 * dev_scores.scores().eer(EerRule::Exact).value),
        ("auc".into(), report.auc),
        ("hter".into(), 100.0 * report.hter),
        ("target_eer".into(), 100.0 * oracle.target_eer),
        ("bpcer".into(), 100.0 * report.bpcer),
        ("acer".into(), 100.0 * report.acer),
    ]);
    for species in &report.species {
        metrics.insert(format!("apcer_{}", species.species), 100.0 * species.apcer);
    }
    if let Some(calibration) = report.calibration {
        metrics.insert("ece".into(), calibration.ece);
        metrics.insert("nll".into(), calibration.nll);
    }
    if let Network::Proxy(network) = network {
        maps(network, dev, device, &mut metrics)?;
        attention(network, [dev, test], device, report.auc, &mut metrics)?;
        if !network.config().proxies.is_empty() {
            let shown: Vec<i64> = spread(test, 6);
            let batch = test.batch(&shown).to_device(device);
            let out = tch::no_grad(|| network.forward(&batch.input, false))?;
            let png = Panel::comparing(&batch, &out, 64)?.png()?;
            context.save_artifact("maps.png", |path| Ok(std::fs::write(path, &png)?))?;
        }
    }
    if let (Some(embedding), Network::Proxy(_)) = (answers(network, model, train, device)?.embedding, network) {
        metrics.insert("probe_domain".into(), 100.0 * probe(&embedding, train, Columns::Camera)?);
        metrics.insert("probe_identity".into(), 100.0 * probe(&embedding, train, Columns::Identity)?);
    }
    Ok(metrics)
}

/// `count` positions spread evenly over a set.
fn spread(data: &FasData, count: usize) -> Vec<i64> {
    (0..count).map(|at| ((2 * at + 1) * data.len() / (2 * count)) as i64).collect()
}

/// How well the development set's maps are predicted, beside what a constant would do.
fn maps(network: &ProxyFas, dev: &FasData, device: Device, metrics: &mut Metrics) -> anyhow::Result<()> {
    if network.config().proxies.is_empty() {
        return Ok(());
    }
    let whole = dev.batch(&positions(dev));
    let parts = over(dev, device, |batch| Ok(network.forward(&batch.input, false)?.maps))?;
    for &proxy in &network.config().proxies {
        let predicted = Tensor::cat(&parts.iter().map(|maps| &maps[&proxy]).collect::<Vec<_>>(), 0);
        let predicted = predicted.to_device(Device::Cpu);
        let target = &whole.targets.maps[&proxy];
        if proxy == Proxy::Material {
            let (found, truth) = (predicted.argmax(1, false), target.argmax(1, false));
            let correct = found.eq_tensor(&truth).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            let counts = truth.flatten(0, -1).bincount::<Tensor>(None, 7).to_kind(Kind::Double);
            let majority = counts.max().double_value(&[]) / counts.sum(Kind::Double).double_value(&[]);
            metrics.insert("material_accuracy".into(), 100.0 * correct);
            metrics.insert("material_majority".into(), 100.0 * majority);
        } else {
            let error = (predicted - target).square().mean(Kind::Double).double_value(&[]);
            let constant = (target - target.mean(Kind::Float)).square().mean(Kind::Double).double_value(&[]);
            metrics.insert(format!("{}_mse", proxy.name()), error);
            metrics.insert(format!("{}_constant_mse", proxy.name()), constant);
        }
    }
    Ok(())
}

/// Weights and uncertainties in the sources and in the unseen domain, and what the decision loses when a branch is given
/// another sample's vector.
fn attention(
    network: &ProxyFas,
    [dev, test]: [&FasData; 2],
    device: Device,
    auc: f64,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    if network.config().proxies.is_empty() {
        return Ok(());
    }
    for (place, data) in [("source", dev), ("target", test)] {
        let outs = over(data, device, |batch| Ok(network.forward(&batch.input, false)?))?;
        let per_sample = |tensor: &Tensor| tensor.mean_dim([1_i64].as_slice(), false, Kind::Float);
        let mut totals = Vec::new();
        for out in &outs {
            let sums = out.weights.values().map(&per_sample).reduce(|a, b| a + b);
            totals.extend(sums);
        }
        for task in outs.first().map(|out| out.weights.keys().copied().collect::<Vec<Task>>()).unwrap_or_default() {
            let mean = |of: &dyn Fn(&vision::fas::model::ProxyOut) -> Option<Tensor>| {
                let parts: Vec<Tensor> = outs.iter().filter_map(of).collect();
                (!parts.is_empty()).then(|| Tensor::cat(&parts, 0).mean(Kind::Double).double_value(&[]))
            };
            if let Some(weight) = mean(&|out| out.weights.get(&task).map(Tensor::shallow_clone)) {
                metrics.insert(format!("weight_{}_{place}", task.name()), weight);
            }
            if let Some(sigma) = mean(&|out| out.sigma.get(&task).map(Tensor::shallow_clone)) {
                metrics.insert(format!("sigma_{}_{place}", task.name()), sigma);
            }
        }
        let totals = Tensor::cat(&totals, 0).to_kind(Kind::Double);
        metrics.insert(format!("weight_total_spread_{place}"), totals.std(true).double_value(&[]));
    }
    for &proxy in &network.config().proxies {
        let scores = over(test, device, |batch| {
            let mut branches = network.branches(&batch.input, false)?;
            if let Some(vector) = branches.vectors.get_mut(&Task::Proxy(proxy)) {
                // Half a batch further on there is somebody else.
                *vector = vector.roll([batch.input.size()[0] / 2 + 1].as_slice(), [0_i64].as_slice());
            }
            Ok(network.fuse(branches, false)?.score())
        })?;
        let scores = Vec::<f64>::try_from(Tensor::cat(&scores, 0).to_kind(Kind::Double))?;
        let without = TestScores::new(test.scored(&scores)?)?.scores().auc();
        metrics.insert(format!("auc_lost_without_{}", proxy.name()), auc - without);
    }
    Ok(())
}

/// Class numbers 0, 1, … of a column.
fn labels(data: &FasData, column: Columns) -> Vec<i64> {
    let raw: Vec<i64> = (0..data.len()).map(|at| data.attribute(at, column)).collect();
    let mut known = raw.clone();
    known.sort_unstable();
    known.dedup();
    raw.iter().map(|value| known.partition_point(|other| other < value) as i64).collect()
}

/// Accuracy of a ridge classifier on every other recording, fitted on the rest: how much of a label is in an embedding.
fn probe(embedding: &Tensor, data: &FasData, column: Columns) -> anyhow::Result<f64> {
    let labels = &labels(data, column);
    let count = labels.len() as i64;
    let features = embedding.to_kind(Kind::Double);
    let centred = &features - features.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let scale = centred.square().mean_dim([0_i64].as_slice(), true, Kind::Double).sqrt() + 1e-6;
    let bias = Tensor::ones([count, 1], (Kind::Double, Device::Cpu));
    let features = Tensor::cat(&[centred / scale, bias], 1);
    let truth = Tensor::from_slice(labels);
    let classes = labels.iter().max().map_or(1, |largest| largest + 1);
    let targets = truth.one_hot(classes).to_kind(Kind::Double);
    let side = |which: u64| {
        Tensor::from_slice(&data.positions_where(|_, sample| sample.video.is_some_and(|video| video % 2 == which)))
    };
    let (fit, held_out) = (features.index_select(0, &side(0)), features.index_select(0, &side(1)));
    let width = features.size()[1];
    let gram = fit.tr().matmul(&fit) + Tensor::eye(width, (Kind::Double, Device::Cpu)) * 1.0;
    let weights = Tensor::f_linalg_solve(&gram, &fit.tr().matmul(&targets.index_select(0, &side(0))), true)?;
    let found = held_out.matmul(&weights).argmax(1, false);
    let correct = found.eq_tensor(&truth.index_select(0, &side(1)));
    Ok(correct.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
}
