//! Trains a model on all domains but one, and measures it there.

use super::cases::{FoldParams, Model, Recipe};
use super::maps::{self, Compared, FaceByFace};
use super::probe::{Probed, probe};
use crate::{Metrics, RunContext};
use core_tensor::data::{OnDevice, ToDevice, shuffled};
use core_tensor::nn::{LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, Schedule};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Objective, TrainConfig, Trainer};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use vision::fas::Panel;
use vision::fas::metrics::{Criterion, DevScores, EerRule, EvalOptions, Scored, TestScores, evaluate, evaluate_oracle};
use vision::fas::model::{
    Backbone, Branches, CentralDifference, Columns, DeepPixBis, FasBatch, FasData, FasSource, PlainBackbone, Proxy,
    ProxyFas, ProxyObjective, Task, WithContext, weight_decay,
};

/// A network of either kind.
enum Network {
    Proxy(Box<ProxyFas>),
    PixBis(DeepPixBis),
}

/// Development people are every sixth of a source domain.
const DEV_SHARE: i64 = 6;

/// `pictures` have their maps as they physically are.
pub(super) fn fold(
    params: &FoldParams,
    seed: u64,
    pictures: FasData,
    context: &mut RunContext,
) -> anyhow::Result<Metrics> {
    let target = params.target as i64;
    let data = pictures.labelled(params.recipe.policies);
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
    learn(&network, &store, &train, &params.recipe, seed, context)?;
    let mut metrics = measure(&network, [&train, &dev, &test], params.model, seed, context)?;
    let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
    metrics.insert("parameters".into(), parameters as f64);
    Ok(metrics)
}

fn build(store: &VarStore, model: Model, recipe: &Recipe) -> anyhow::Result<Network> {
    let difference = CentralDifference::default();
    let factory: &dyn LayerFactory = if model == Model::CentralDifference { &difference } else { &Standard };
    let path = store.root() / "backbone";
    let plain = Box::new(PlainBackbone::new(&path, factory, recipe.width));
    let backbone: Box<dyn Backbone> =
        if recipe.context { Box::new(WithContext::new(&(&path / "context"), factory, plain)) } else { plain };
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
    recipe: &Recipe,
    seed: u64,
    context: &mut RunContext,
) -> anyhow::Result<()> {
    let (mut proxies, mut pixels);
    let objective: &mut dyn Objective<FasBatch> = match network {
        Network::Proxy(network) => {
            proxies = ProxyObjective::new(network, recipe.weights.clone(), recipe.miner.clone());
            &mut proxies
        }
        Network::PixBis(network) => {
            pixels = network;
            &mut pixels
        }
    };
    let steps = (recipe.batch, recipe.steps_per_epoch());
    let source = FasSource::new(train, steps, (recipe.sampling, recipe.augment), seed)?;
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
    let known = dev.scored(&on_dev.scores)?;
    let by_species = errors_by_species(&known)?;
    let dev_scores = DevScores::new(known)?;
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
    metrics.extend(by_species.into_iter().map(|(species, error)| (format!("dev_eer_{species}"), 100.0 * error)));
    if let Some(calibration) = report.calibration {
        metrics.insert("ece".into(), calibration.ece);
        metrics.insert("overconfidence".into(), calibration.overconfidence);
        metrics.insert("nll".into(), calibration.nll);
    }
    if let Network::Proxy(network) = network {
        predictions(network, [train, dev], device, &mut metrics)?;
        attention(network, [dev, test], device, &mut metrics)?;
        if !network.config().proxies.is_empty() {
            metrics.extend(corrupted(network, test, device, (report.auc, seed))?);
        }
        if !network.config().proxies.is_empty() {
            // Seven hit living faces and every species of the sets that tiers render.
            let shown: Vec<i64> = spread(test, 7);
            let batch = test.batch(&shown).to_device(device);
            let out = tch::no_grad(|| network.forward(&batch.input, false))?;
            let png = Panel::comparing(&batch, &out, 64)?.png()?;
            context.save_artifact("maps.png", |path| Ok(std::fs::write(path, &png)?))?;
        }
    }
    // Living faces alone: mining asks nothing of attacks.
    let faces = train.subset(&train.positions_where(|_, sample| sample.bona_fide));
    if let Some(embedding) = answers(network, model, &faces, device)?.embedding {
        for (name, column) in [("identity", Columns::Identity), ("domain", Columns::Camera)] {
            let Probed { accuracy, chance } = probe(&embedding, &faces, column)?;
            metrics.insert(format!("probe_{name}"), 100.0 * accuracy);
            metrics.insert(format!("probe_{name}_chance"), 100.0 * chance);
        }
    }
    Ok(metrics)
}

/// Equal error rates of living faces against each species of attack by itself.
fn errors_by_species(scored: &[Scored]) -> anyhow::Result<BTreeMap<String, f64>> {
    let species: BTreeSet<&str> = scored.iter().filter_map(|one| one.species.as_deref()).collect();
    let error = |name: &str| -> anyhow::Result<(String, f64)> {
        let among = |one: &&Scored| one.bona_fide || one.species.as_deref() == Some(name);
        let scores = DevScores::new(scored.iter().filter(among).cloned().collect())?;
        Ok((name.into(), scores.scores().eer(EerRule::Exact).value))
    };
    species.into_iter().map(error).collect()
}

/// `count` positions spread evenly over a set.
fn spread(data: &FasData, count: usize) -> Vec<i64> {
    (0..count).map(|at| ((2 * at + 1) * data.len() / (2 * count)) as i64).collect()
}

/// How well the development set's maps are predicted, beside what the training part's would do in their place.
///
/// Depth is compared on living faces and reflection on attacks, where the literature's labels are not 0 by definition.
fn predictions(
    network: &ProxyFas,
    [train, dev]: [&FasData; 2],
    device: Device,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    let proxies = &network.config().proxies;
    if proxies.is_empty() {
        return Ok(());
    }
    let parts = over(dev, device, |batch| Ok(network.forward(&batch.input, false)?.maps))?;
    let [known, truth] = [train, dev].map(|data| data.targets(&positions(data)));
    for &proxy in proxies {
        let predicted = Tensor::cat(&parts.iter().map(|maps| &maps[&proxy]).collect::<Vec<_>>(), 0);
        let predicted = predicted.to_device(Device::Cpu);
        let on = [&known, &truth];
        let (names, Compared { network, blind }) = match proxy {
            Proxy::Depth => {
                let FaceByFace { median, flat } = maps::depth_face_by_face(&predicted, on);
                metrics.insert("depth_face_median_mse".into(), median.network);
                metrics.insert("depth_mean_face_median_mse".into(), median.blind);
                metrics.insert("depth_flat_faces".into(), 100.0 * flat);
                (["depth_face_mse", "depth_mean_face_mse"], maps::error_within(true, proxy, &predicted, on))
            }
            Proxy::Reflection => (
                ["reflection_attack_mse", "reflection_mean_attack_mse"],
                maps::error_within(false, proxy, &predicted, on),
            ),
            Proxy::Material => {
                let Compared { network, blind } = maps::material(&predicted, on);
                let percent = Compared { network: 100.0 * network, blind: 100.0 * blind };
                (["material_accuracy", "material_template_accuracy"], percent)
            }
        };
        metrics.extend(names.map(String::from).into_iter().zip([network, blind]));
    }
    Ok(())
}

/// Weights and uncertainties in the sources and in the unseen domain.
fn attention(
    network: &ProxyFas,
    [dev, test]: [&FasData; 2],
    device: Device,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    if network.config().proxies.is_empty() {
        return Ok(());
    }
    for (place, data) in [("source", dev), ("target", test)] {
        let outs = over(data, device, |batch| Ok(network.forward(&batch.input, false)?))?;
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
    }
    Ok(())
}

/// What of the unseen domain's AUC is lost when every sample has another one's vector of a cue, cue by cue.
fn corrupted(
    network: &ProxyFas,
    test: &FasData,
    device: Device,
    (auc, seed): (f64, u64),
) -> anyhow::Result<Vec<(String, f64)>> {
    let parts = over(test, device, |batch| Ok(network.branches(&batch.input, false)?.vectors))?;
    let whole = |task: &Task| Tensor::cat(&parts.iter().map(|vectors| &vectors[task]).collect::<Vec<_>>(), 0);
    let tasks = parts.first().map(|vectors| vectors.keys().copied().collect::<Vec<Task>>()).unwrap_or_default();
    let vectors: Vec<(Task, Tensor)> = tasks.into_iter().map(|task| (task, whole(&task))).collect();
    let others = Tensor::from_slice(&somebody_else(test.len(), seed)).to_device(device);
    let lost = |&proxy: &Proxy| {
        let given = |(task, vector): &(Task, Tensor)| {
            let swapped = *task == Task::Proxy(proxy);
            (*task, if swapped { vector.index_select(0, &others) } else { vector.shallow_clone() })
        };
        let branches = Branches { vectors: vectors.iter().map(given).collect(), maps: Default::default() };
        let scores = tch::no_grad(|| network.fuse(branches, false))?.score();
        let scores = Vec::<f64>::try_from(scores.to_kind(Kind::Double).to_device(Device::Cpu))?;
        let without = TestScores::new(test.scored(&scores)?)?.scores().auc();
        Ok((format!("auc_lost_without_{}", proxy.name()), auc - without))
    };
    network.config().proxies.iter().map(lost).collect()
}

/// Another position for each: the next one along a random round of all. A set lists its classes in a pattern, person by
/// person, so that a shift by a fixed number would give most living faces a living face's vector.
fn somebody_else(count: usize, seed: u64) -> Vec<i64> {
    let round = shuffled(count, seed, 0);
    let mut others = vec![0; count];
    for (at, &position) in round.iter().enumerate() {
        others[position] = round[(at + 1) % count] as i64;
    }
    others
}

#[cfg(test)]
mod tests {
    use super::super::cases::PHYSICAL;
    use super::*;
    use vision::fas::synth::{Domain, Generator, GeneratorConfig, Population};

    #[test]
    fn everybody_has_somebody_elses_vector_whatever_the_order_of_classes() {
        // The quick tier's unseen domain: 16 people with 8 living pictures and 9 attacks each.
        let live = |at: usize| f64::from(u8::from(at % 17 < 8));
        let count = 16 * 17;
        let correlation = |others: &[usize]| {
            let mean = (0..count).map(live).sum::<f64>() / count as f64;
            let together = |other: &dyn Fn(usize) -> usize| -> f64 {
                (0..count).map(|at| (live(at) - mean) * (live(other(at)) - mean)).sum()
            };
            together(&|at| others[at]) / together(&|at| at)
        };
        for seed in 0..8 {
            let others: Vec<usize> = somebody_else(count, seed).into_iter().map(|at| at as usize).collect();
            assert!((0..count).all(|at| others[at] != at));
            assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), count);
            // Of independent labels, a standard deviation of 0.06.
            assert!(correlation(&others).abs() < 0.15, "seed {seed}: {}", correlation(&others));
        }
        // What half a batch of 200 further on gave.
        let rolled: Vec<usize> = (0..count).map(|at| (at + count - 101) % count).collect();
        assert!(correlation(&rolled).abs() > 0.3, "{}", correlation(&rolled));
    }

    #[test]
    fn what_a_decision_by_depth_alone_loses_is_what_exchanged_scores_lose() {
        let config = GeneratorConfig { raster: 24, crop: 16, map: 4 };
        let population =
            Population { domains: vec![Domain::Webcam], identities: 3, live: 2, print: 1, replay: 1, mask: 1 };
        let pictures = Generator::new(2, config).unwrap().render_all(&population.specs()).unwrap();
        let data = FasData::from_rendered(&pictures, config, PHYSICAL).unwrap();
        let store = VarStore::new(Device::Cpu);
        seed_libtorch(0, Purpose::Initialisation, 0);
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 4));
        let network = ProxyFas::new(&store.root(), &Standard, backbone, Model::Concat.config(8)).unwrap();
        // Liveness, depth, reflection, material of eight numbers each: only depth counts.
        let mut weight = store.variables()["classifier.weight"].shallow_clone();
        let counts = Tensor::arange(32, (Kind::Int64, Device::Cpu)).floor_divide_scalar(8).eq(1);
        tch::no_grad(|| weight.copy_(&(weight.copy() * counts)));
        let network = Network::Proxy(Box::new(network));
        let scores = answers(&network, Model::Concat, &data, Device::Cpu).unwrap().scores;
        let auc = |scores: &[f64]| TestScores::new(data.scored(scores).unwrap()).unwrap().scores().auc();
        let exchanged: Vec<f64> = somebody_else(data.len(), 5).iter().map(|&at| scores[at as usize]).collect();
        let Network::Proxy(network) = network else { unreachable!() };
        let lost = corrupted(&network, &data, Device::Cpu, (auc(&scores), 5)).unwrap();
        let expected = [("depth", auc(&scores) - auc(&exchanged)), ("reflection", 0.0), ("material", 0.0)];
        assert!(expected[0].1 != 0.0);
        for ((name, lost), (cue, expected)) in lost.into_iter().zip(expected) {
            assert_eq!(name, format!("auc_lost_without_{cue}"));
            // One pair of 54 may fall otherwise where scores round.
            assert!((lost - expected).abs() < 0.02, "{cue}: {lost} against {expected}");
        }
    }

    #[test]
    fn every_species_has_an_error_of_its_own() {
        let live = [0.9, 0.8, 0.7, 0.6].map(Scored::live);
        let attacks = [(0.1, "print"), (0.2, "print"), (0.65, "mask"), (0.85, "mask")];
        let all: Vec<Scored> =
            live.into_iter().chain(attacks.map(|(score, species)| Scored::attack(score, species))).collect();
        let errors = errors_by_species(&all).unwrap();
        assert_eq!(errors.keys().collect::<Vec<_>>(), ["mask", "print"]);
        // No print passes for a face; at 0.8 one of two masks does, and two of four faces are refused.
        assert_eq!((errors["print"], errors["mask"]), (0.0, 0.5));
    }
}
