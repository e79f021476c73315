//! Pre-training a backbone, and the masks that iterative pruning finds on the same task.

use super::learning::{Length, Model, train};
use super::settings::{Objective, Settings};
use crate::{Device, Metrics, RunContext};
use contrast::learn::{
    Features, KnnConfig, Layout, MoCo, MoCoConfig, Projector, ProjectorConfig, SimClr, SimClrAugmentation,
    SimClrConfig, Tower, TwoViews, knn_accuracy, retrieval_top1,
};
use core_tensor::checkpoint::{Header, read_state, state_of, write_safetensors};
use core_tensor::data::{Augmentation, BatchSource, Dataset, Loader, LoaderConfig, OnDevice};
use core_tensor::nn::Standard;
use core_tensor::optim::NamedTensors;
use core_tensor::train::{CrossEntropy, Observer, evaluate};
use lth::criterion::{Criterion, Magnitude};
use lth::transfer::Matching;
use lth::{
    Amount, EmptyLayer, FirstRound, Imp, ImpConfig, MaskObserver, MaskRecord, MaskSet, NamedTensor, Prunable, Selector,
    copies, restore,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::nn::VarStore;

/// The run's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) settings: Settings,
    pub(super) objective: Objective,
}

/// The artifact with the pre-trained weights.
pub(super) const WEIGHTS: &str = "weights.safetensors";
/// Numbers of an embedding.
const EMBEDDING: i64 = 32;
/// Images among whose views an image's other view is looked for, as in the reference code.
const SEARCHED: usize = 256;

/// The artifact with the mask of a round.
pub(super) fn mask_file(round: u32) -> String {
    format!("mask-{round}.safetensors")
}

/// Every convolution but the first, as the paper; heads are never pruned.
pub(super) fn prunable() -> Prunable {
    Prunable::conv_only().except(["conv1.weight"])
}

/// Pre-trains, prunes round by round, then trains the controls. A run that is killed goes on from the pre-trained weights,
/// which its checkpoint holds, and from the last round in its folder.
pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let Params { settings, objective } = params;
    // Starts of their own: objectives that share one find masks that overlap more for that reason alone.
    let start_seed = seed * 10 + *objective as u64;
    let task = Task::new(settings, *objective, start_seed, context)?;
    let untrained = prunable().select(&named(&copies(&state_of(&task.model.store))))?;
    let mut metrics = Metrics::from([("source_knn_untrained".to_owned(), task.knn(settings)?)]);
    let folder = context.dir().join("rounds");
    let weights = match context.checkpoint() {
        Some(checkpoint) => read_state(&checkpoint.path)?,
        None => {
            // Rounds of an attempt without a checkpoint start from other weights where training is not exact to the bit.
            if folder.exists() {
                std::fs::remove_dir_all(&folder)?;
            }
            task.train(Length::cosine(settings.pretraining_steps, 0.1, start_seed), None)?;
            let weights = copies(&state_of(&task.model.store));
            let header = Header::new("repro.weights", 1, serde_json::json!({ "objective": objective.name() }));
            let metadata = header.to_metadata()?;
            let save = |path: &Path| -> anyhow::Result<()> { Ok(write_safetensors(path, &weights, &metadata)?) };
            // The artifact first: a checkpoint keeps what was there before it.
            context.save_artifact(WEIGHTS, save)?;
            context.save_checkpoint(0, save)?;
            weights
        }
    };
    restore(&weights, &task.model.store)?;
    metrics.insert("source_knn".to_owned(), task.knn(settings)?);

    let config = ImpConfig {
        rounds: settings.rounds,
        prunable: prunable(),
        first_round: FirstRound::PruneImmediately,
        ..ImpConfig::default()
    };
    std::fs::create_dir_all(&folder)?;
    let mut imp = Imp::new(config, &task.model.store, &weights, &Magnitude)?.in_folder(folder);
    let rounds = Rounds { task: &task, settings, start: &weights, seed: start_seed };
    let total = u64::from(settings.rounds) + settings.controls.len() as u64;
    let (mut round, mut controlled) = (0, BTreeMap::<u32, MaskSet>::new());
    // What the search trains a round's ticket to, on its way to the next round.
    let mut trained = BTreeMap::<u32, Worth>::new();
    let mut search = |number: u32, mask: &MaskSet| -> anyhow::Result<()> {
        rounds.train(number, mask)?;
        if settings.controls.contains(&number) {
            trained.insert(number, task.worth(settings)?);
        }
        Ok(())
    };
    while let Some(ticket) = imp.next_round(&mut search)? {
        round += 1;
        let record =
            MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable: prunable(), source: None };
        context.save_artifact(&mask_file(round), |path| Ok(ticket.mask().save(path, &record)?))?;
        metrics.insert(format!("sparsity_{round}"), ticket.mask().sparsity());
        if settings.controls.contains(&round) {
            controlled.insert(round, ticket.mask().clone());
        }
        context.progress(u64::from(round), total, "");
    }

    let pretrained = prunable().select(&named(&weights))?;
    let whole = MaskSet::ones_like(&pretrained);
    let mut dense_scores = Vec::new();
    for (done, (&number, mask)) in (1_u32..).zip(&controlled) {
        // The last round is nowhere trained yet, nor is one that was read from the folder.
        let ticket = match trained.get(&number) {
            Some(&worth) => worth,
            None => rounds.worth(number, mask)?,
        };
        let random = mask.shuffle_within_layers(start_seed * 100 + u64::from(number));
        metrics.insert(format!("one_shot_{number}"), agreement_with_one_shot(mask, &pretrained)?);
        metrics.insert(format!("untrained_{number}"), agreement_with_one_shot(mask, &untrained)?);
        // All three on the same batches in the same order.
        for (arm, worth) in
            [("ticket", ticket), ("random", rounds.worth(number, &random)?), ("dense", rounds.worth(number, &whole)?)]
        {
            metrics.insert(format!("{arm}_knn_{number}"), worth.knn);
            metrics.insert(format!("{arm}_score_{number}"), worth.score);
            dense_scores.extend((arm == "dense").then_some(worth.score));
        }
        context.progress(u64::from(settings.rounds + done), total, "");
    }
    metrics.insert("dense_score_std".to_owned(), Matching::new(&dense_scores, &dense_scores)?.dense_std);
    Ok(metrics)
}

fn named(tensors: &NamedTensors) -> Vec<NamedTensor> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Share of a mask's weights that pruning `weights` by magnitude at once, to the same density, keeps too: 1 where training
/// between rounds changed nothing.
fn agreement_with_one_shot(mask: &MaskSet, weights: &[NamedTensor]) -> anyhow::Result<f64> {
    // Nothing is trained under this mask, so a layer may be left empty.
    let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
    let dropped = Amount::Count(mask.weights() - mask.survivors());
    let one_shot = selector.prune(&Magnitude.score(weights, None)?, dropped, None)?;
    Ok(mask.overlap(&one_shot)? as f64 / mask.survivors() as f64)
}

/// The trainings of iterative pruning, each from the pre-trained weights.
struct Rounds<'a> {
    task: &'a Task,
    settings: &'a Settings,
    start: &'a NamedTensors,
    seed: u64,
}

impl Rounds<'_> {
    /// Trains the model as it is, under the mask of a round.
    fn train(&self, round: u32, mask: &MaskSet) -> anyhow::Result<()> {
        let Settings { round_steps, round_rate, .. } = self.settings;
        let seed = self.seed + 1000 * (1 + u64::from(round));
        self.task.train(Length::constant(*round_steps, *round_rate, seed), Some(mask))
    }

    /// After such a training of the pre-trained weights.
    fn worth(&self, round: u32, mask: &MaskSet) -> anyhow::Result<Worth> {
        restore(self.start, &self.task.model.store)?;
        self.train(round, mask)?;
        self.task.worth(self.settings)
    }
}

/// What a network is worth on the images that it is pre-trained on, in percent.
#[derive(Debug, Clone, Copy)]
struct Worth {
    /// Nearest neighbours, one yardstick for all objectives.
    knn: f64,
    /// By the objective's own measure: accuracy, or how often an image's other view is the nearest of all views.
    score: f64,
}

/// A network and what it is pre-trained on.
struct Task {
    model: Model,
    projector: Option<Projector>,
    /// MoCo's encoder of keys, in a store of its own.
    key: Option<(Model, Projector)>,
    train: Dataset,
    test: Dataset,
    batch_size: usize,
    device: tch::Device,
}

impl Task {
    fn new(settings: &Settings, objective: Objective, seed: u64, context: &RunContext) -> anyhow::Result<Self> {
        let tower = || -> anyhow::Result<(Model, Projector)> {
            // On the CPU until the head is drawn too, so that a seed means the same weights on every device.
            let mut model = Model::new(settings, seed, Device::Cpu)?;
            let features = model.network.feature_size();
            let head = ProjectorConfig::plain(features, EMBEDDING);
            let projector = Projector::new(&(model.store.root() / "projector"), &Standard, features, &head)?;
            model.store.set_device(context.device().into());
            Ok((model, projector))
        };
        let (model, projector) = match objective {
            Objective::Supervised => (Model::on(settings, seed, context)?, None),
            Objective::SimClr | Objective::MoCo => tower().map(|(model, projector)| (model, Some(projector)))?,
        };
        let key = if objective == Objective::MoCo { Some(tower()?) } else { None };
        let [train, test] = settings.images_of(context.data(), &settings.source)?;
        let train = Settings::some(&train, settings.source_images)?;
        let test = Settings::some(&test, settings.test_images)?;
        let (batch_size, device) = (settings.batch_size, context.device().into());
        Ok(Self { model, projector, key, train, test, batch_size, device })
    }

    fn train(&self, length: Length, mask: Option<&MaskSet>) -> anyhow::Result<()> {
        let (store, seed) = (&self.model.store, length.seed);
        let mut held = mask.map(|mask| MaskObserver::new(mask, store)).transpose()?;
        let mut observers: Vec<&mut dyn Observer> = held.iter_mut().map(|held| held as &mut dyn Observer).collect();
        let config = LoaderConfig { drop_last: true, ..LoaderConfig::training(self.batch_size) };
        let network = self.model.network.as_ref();
        let Some(projector) = &self.projector else {
            let loader = Loader::new(self.train.clone(), &Augmentation::default(), config, seed)?;
            let loader = OnDevice::new(loader, self.device);
            train(&mut CrossEntropy::new(network), store, &loader, observers, length)?;
            return Ok(());
        };
        let views = TwoViews::new(self.train.clone(), &self.views(), config, seed)?;
        let views = OnDevice::new(views, self.device);
        match &self.key {
            None => {
                let mut objective = SimClr::new(network, projector, SimClrConfig { temperature: 0.5 })?;
                train(&mut objective, store, &views, observers, length)?;
            }
            Some((key, key_projector)) => {
                let query = Tower { network, projector, store };
                let key = Tower { network: key.network.as_ref(), projector: key_projector, store: &key.store };
                let config = MoCoConfig { temperature: 0.2, momentum: 0.99, queue: 1024, symmetric: false };
                // A new queue and a key encoder equal to the (masked) query's.
                let mut objective = MoCo::new(query, key, EMBEDDING, config, seed)?;
                let mut keeper = objective.keeper();
                observers.push(&mut keeper);
                train(&mut objective, store, &views, observers, length)?;
            }
        }
        Ok(())
    }

    fn views(&self) -> Augmentation {
        let shape = self.train.shape();
        let size = [shape.height, shape.width];
        let grey = shape.channels == 1;
        let views = if grey { SimClrAugmentation::small_grey(size) } else { SimClrAugmentation::cifar(size) };
        views.transforms(shape.channels)
    }

    fn worth(&self, settings: &Settings) -> anyhow::Result<Worth> {
        Ok(Worth { knn: self.knn(settings)?, score: self.score()? })
    }

    fn score(&self) -> anyhow::Result<f64> {
        let network = self.model.network.as_ref();
        if self.projector.is_none() {
            let loader = Loader::new(self.test.clone(), &Augmentation::default(), LoaderConfig::evaluation(500), 0)?;
            return Ok(evaluate(network, &OnDevice::new(loader, self.device))?.accuracy);
        }
        // The same views of the test images whoever is asked.
        let config = LoaderConfig { drop_last: true, ..LoaderConfig::training(SEARCHED) };
        let views = OnDevice::new(TwoViews::new(self.test.clone(), &self.views(), config, 0)?, self.device);
        let mut found = 0.0;
        for batch in views.epoch(0)? {
            let batch = batch?;
            let features = tch::no_grad(|| network.features(&batch.views, false));
            found += retrieval_top1(&features, Layout::Stacked)?.double_value(&[]);
        }
        Ok(found / views.batches_per_epoch() as f64)
    }

    /// Accuracy of nearest neighbours on the source classes.
    fn knn(&self, settings: &Settings) -> anyhow::Result<f64> {
        let features = |set: Dataset| -> anyhow::Result<Features> {
            let loader = Loader::new(set, &Augmentation::default(), LoaderConfig::evaluation(500), 0)?;
            let encode = |images: &tch::Tensor| {
                self.model.network.features(&images.to_device(self.device), false).to_device(tch::Device::Cpu)
            };
            Ok(Features::extract(encode, &loader)?)
        };
        let bank = features(Settings::some(&self.train, 2000)?)?;
        let config = KnnConfig { neighbours: 20, ..KnnConfig::default() };
        Ok(knn_accuracy(&bank, &features(self.test.clone())?, settings.source.len() as i64, config)?)
    }
}

/// Sets a fresh network's backbone to pre-trained weights, its classifier left new.
pub(super) fn load_backbone(weights: &NamedTensors, store: &VarStore) -> anyhow::Result<()> {
    let report = lth::transfer::Pretrained::SimClr.load_state(weights, store, ["fc."])?;
    anyhow::ensure!(report.missing.is_empty() && report.mismatched.is_empty(), "the backbone is not whole: {report:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn a_mask_agrees_with_one_shot_pruning_by_what_both_keep() {
        let name = || "conv2.weight".to_owned();
        let weights = [(name(), Tensor::from_slice(&[4.0_f32, -3.0, 2.0, 1.0]))];
        // Two of four at once: 4 and −3. One: 4.
        let cases: [([u8; 4], f64); 5] =
            [([1, 1, 0, 0], 1.0), ([1, 0, 0, 1], 0.5), ([0, 0, 1, 1], 0.0), ([0, 1, 0, 0], 0.0), ([1, 1, 1, 1], 1.0)];
        for (bits, share) in cases {
            let mask = MaskSet::from_tensors(&[(name(), Tensor::from_slice(&bits))]).unwrap();
            assert_eq!(agreement_with_one_shot(&mask, &weights).unwrap(), share, "{bits:?}");
        }
    }
}
