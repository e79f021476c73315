//! Few labels of other classes: dense networks, transferred tickets, tickets of the task itself, random and perturbed masks.

use super::learning::{Length, Model, train};
use super::pretraining::{WEIGHTS, load_backbone, mask_file, prunable};
use super::settings::{Objective, Settings};
use crate::{Device, Metrics, RunContext};
use core_tensor::checkpoint::{read_state, state_of};
use core_tensor::data::{Augmentation, Dataset, Loader, LoaderConfig, OnDevice};
use core_tensor::optim::NamedTensors;
use core_tensor::train::{CrossEntropy, Observer, evaluate};
use lth::criterion::Magnitude;
use lth::transfer::{LinearPath, Matching, Perturbation, largest_matching};
use lth::{Imp, ImpConfig, MaskObserver, MaskSet, copies, restore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The run's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) settings: Settings,
    /// What the backbone was pre-trained by; nothing for fresh weights, which have no masks but the task's own.
    pub(super) objective: Option<Objective>,
}

/// The kind of a run that starts from fresh weights.
pub(super) const FRESH: &str = "transfer from fresh weights";
/// What the task's own mask of the first round found is exchanged for.
const PERTURBATIONS: [(&str, Perturbation); 3] =
    [("flip", Perturbation::Flip(0.1)), ("complement", Perturbation::Complement), ("random", Perturbation::Random)];

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let settings = &params.settings;
    let device = context.device();
    let mut masks = BTreeMap::<u32, MaskSet>::new();
    let backbone = if params.objective.is_some() {
        let source = context.needed("source")?;
        for &round in &settings.transferred {
            masks.insert(round, MaskSet::load(&source.artifact(&mask_file(round))?)?.0);
        }
        read_state(&source.artifact(WEIGHTS)?)?
    } else {
        fresh(settings, seed, device)?
    };
    let [labelled, test] = settings.images_of(context.data(), &settings.target)?;
    let test = Settings::some(&test, settings.test_images)?;
    let bench = Bench { settings, test, device: device.into() };
    let start = |draw: u64| -> anyhow::Result<(Model, NamedTensors)> {
        let model = started(settings, &backbone, seed * 1000 + draw, device)?;
        let start = copies(&state_of(&model.store));
        Ok((model, start))
    };

    // The task's own masks come from a draw of labels that no score is taken on.
    let own = {
        let (model, begin) = start(1_000_000)?;
        bench.search(&model, &begin, &settings.draw(&labelled, seed, 1_000_000)?, seed)?
    };
    let mut scores = BTreeMap::<String, Vec<f64>>::new();
    for draw in 0..settings.draws {
        let labels = settings.draw(&labelled, seed, draw)?;
        let (model, begin) = start(draw)?;
        let mut score = |name: String, mask: &MaskSet| -> anyhow::Result<()> {
            scores.entry(name).or_default().push(bench.fine_tuned(&model, &begin, mask, &labels, draw)?);
            Ok(())
        };
        score("dense".into(), &MaskSet::ones_like(&prunable().select_from(&model.store)?))?;
        for (round, mask) in &masks {
            score(format!("ticket_{round}"), mask)?;
            score(format!("random_{round}"), &mask.shuffle_within_layers(seed * 100 + draw))?;
        }
        for (round, mask) in &own {
            score(format!("own_{round}"), mask)?;
        }
        if let Some(mask) = own.values().next() {
            for (label, perturbation) in PERTURBATIONS {
                score(format!("own_{label}"), &perturbation.apply(mask, seed * 100 + draw)?)?;
            }
        }
        context.progress(draw + 1, settings.draws, "");
    }

    let mut metrics = Metrics::new();
    for (name, values) in &scores {
        metrics.insert(name.clone(), values.iter().sum::<f64>() / values.len() as f64);
    }
    let labels = settings.draw(&labelled, seed, 0)?;
    let (model, begin) = start(0)?;
    if let Some(mask) = own.values().next() {
        metrics.insert("own_barrier".into(), bench.barrier(&model, &begin, mask, &labels)?);
    }
    if params.objective.is_some() {
        matching(&masks, &scores, &mut metrics)?;
        // A mask that keeps everything is no mask: the same training without one.
        let without = bench.trained(&model, &begin, None, &labels, 0)?;
        metrics.insert("identity".into(), without - scores["dense"][0]);
    }
    Ok(metrics)
}

/// The weights θ_0 that are nobody's: one backbone a seed.
fn fresh(settings: &Settings, seed: u64, device: Device) -> anyhow::Result<NamedTensors> {
    Ok(copies(&state_of(&Model::new(settings, 8_000_000 + seed * 1000, device)?.store)))
}

/// A network with the backbone that every draw and the search share, since a mask belongs to the weights it was found on. Its
/// head depends on the draw alone, so that all runs of a seed are paired.
fn started(settings: &Settings, backbone: &NamedTensors, draw: u64, device: Device) -> anyhow::Result<Model> {
    let model = Model::new(settings, 7_000_000 + draw, device)?;
    load_backbone(backbone, &model.store)?;
    Ok(model)
}

/// The deviation of the dense scores, and the largest sparsity whose ticket matches by it.
fn matching(
    masks: &BTreeMap<u32, MaskSet>,
    scores: &BTreeMap<String, Vec<f64>>,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    let dense = &scores["dense"];
    metrics.insert("dense_std".into(), Matching::new(dense, dense)?.dense_std);
    let mut curve = Vec::new();
    for (round, mask) in masks {
        metrics.insert(format!("sparsity_{round}"), mask.sparsity());
        curve.push((mask.sparsity(), scores[&format!("ticket_{round}")].clone()));
    }
    let bracket = largest_matching(&curve, dense)?;
    // 0: not even the densest ticket matches. 1: the sparsest one does.
    metrics.insert("matching".into(), bracket.matching.unwrap_or(0.0));
    metrics.insert("failing".into(), bracket.failing.unwrap_or(1.0));
    Ok(())
}

/// What every training of a run shares.
struct Bench<'a> {
    settings: &'a Settings,
    test: Dataset,
    device: tch::Device,
}

impl Bench<'_> {
    fn fine_tune(&self, model: &Model, mask: Option<&MaskSet>, labels: &Dataset, seed: u64) -> anyhow::Result<()> {
        let mut held = mask.map(|mask| MaskObserver::new(mask, &model.store)).transpose()?;
        let observers: Vec<&mut dyn Observer> = held.iter_mut().map(|held| held as &mut dyn Observer).collect();
        // Two batches an epoch, or batches of 32.
        let size = (labels.targets().len() / 2).clamp(1, 32);
        let config = LoaderConfig { prefetch: 0, drop_last: true, ..LoaderConfig::training(size) };
        let loader = OnDevice::new(Loader::new(labels.clone(), &Augmentation::default(), config, seed)?, self.device);
        let length = Length::cosine(self.settings.fine_steps, 0.05, seed);
        Ok(train(&mut CrossEntropy::new(model.network.as_ref()), &model.store, &loader, observers, length)?)
    }

    fn accuracy(&self, model: &Model) -> anyhow::Result<f64> {
        let config = LoaderConfig { prefetch: 0, ..LoaderConfig::evaluation(500) };
        let loader = OnDevice::new(Loader::new(self.test.clone(), &Augmentation::default(), config, 0)?, self.device);
        Ok(evaluate(model.network.as_ref(), &loader)?.accuracy)
    }

    /// Test accuracy (%) after fine-tuning from `start`, under a mask or without.
    fn trained(
        &self,
        model: &Model,
        start: &NamedTensors,
        mask: Option<&MaskSet>,
        labels: &Dataset,
        seed: u64,
    ) -> anyhow::Result<f64> {
        restore(start, &model.store)?;
        self.fine_tune(model, mask, labels, seed)?;
        self.accuracy(model)
    }

    fn fine_tuned(
        &self,
        model: &Model,
        start: &NamedTensors,
        mask: &MaskSet,
        labels: &Dataset,
        seed: u64,
    ) -> anyhow::Result<f64> {
        self.trained(model, start, Some(mask), labels, seed)
    }

    /// Iterative pruning on the downstream task: the masks of the rounds asked for.
    fn search(
        &self,
        model: &Model,
        start: &NamedTensors,
        labels: &Dataset,
        seed: u64,
    ) -> anyhow::Result<BTreeMap<u32, MaskSet>> {
        let rounds = self.settings.found.iter().copied().max().unwrap_or(0);
        let config = ImpConfig { rounds, prunable: prunable(), ..ImpConfig::default() };
        let mut imp = Imp::new(config, &model.store, start, &Magnitude)?;
        let (mut found, mut round) = (BTreeMap::new(), 0);
        let mut fit =
            |number: u32, mask: &MaskSet| self.fine_tune(model, Some(mask), labels, seed * 1000 + u64::from(number));
        while let Some(ticket) = imp.next_round(&mut fit)? {
            round += 1;
            if self.settings.found.contains(&round) {
                found.insert(round, ticket.mask().clone());
            }
        }
        Ok(found)
    }

    /// How much the test error rises on the line between two trainings that differ in the order of their data.
    fn barrier(&self, model: &Model, start: &NamedTensors, mask: &MaskSet, labels: &Dataset) -> anyhow::Result<f64> {
        let mut ends = Vec::new();
        for seed in [101, 102] {
            self.fine_tuned(model, start, mask, labels, seed)?;
            ends.push(copies(&state_of(&model.store)));
        }
        let error = || {
            let accuracy =
                self.accuracy(model).map_err(|error| lth::Error::Training { round: 0, source: error.into() })?;
            Ok(100.0 - accuracy)
        };
        Ok(LinearPath::between(&ends[0], &ends[1], &model.store, 5, error)?.barrier())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, DataRoot, Tier};

    #[test]
    fn draws_and_the_search_share_fresh_backbones_but_not_heads() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let settings = Settings::of(&ask).unwrap().unwrap();
        let [first, second] = [0, 1].map(|seed| fresh(&settings, seed, Device::Cpu).unwrap());
        assert!(!first["conv2.weight"].equal(&second["conv2.weight"]), "seeds have weights of their own");
        let [draw, search] =
            [0, 1_000_000].map(|draw| state_of(&started(&settings, &first, draw, Device::Cpu).unwrap().store));
        for (name, weights) in first.iter().filter(|(name, _)| *name != "fc.bias") {
            let shared = draw[name].equal(&search[name]) && draw[name].equal(weights);
            assert_eq!(shared, name != "fc.weight", "{name}");
        }
    }
}
