//! KD tickets: re-training a lottery ticket on the dense network's soft labels (arXiv 2101.03255).
//!
//! ```text
//! dense run ──weights at steps 0, k, T──► ticket runs (one an arm and density) ──► claims
//! ```

mod arms;
mod cases;
mod claims;
mod class_teacher;

use super::training::{self, Length, Recipe, final_metrics};
use crate::{Ask, Experiment, Metrics, Plan, Results, Run, RunContext, Section};
use arms::{Start, Teacher, TicketParams};
use cases::{Case, Part};
use class_teacher::ClassTeacher;
use core_tensor::checkpoint::{Header, read_state, write_safetensors};
use core_tensor::optim::NamedTensors;
use core_tensor::seed::{Purpose, derive};
use core_tensor::train::CrossEntropy;
use core_tensor::workload::Pass;
use lth::criterion::Magnitude;
use lth::{Distillation, MaskObserver, MaskSet, Prunable, PruningSchedule, Selector, Snapshots, reinitialise, restore};
use serde::{Deserialize, Serialize};
use std::path::Path;

const PAPER: &str = "kd-ticket";
/// Counted up whenever the code computes something else from the same parameters of a dense training.
const DENSE_REVISION: u32 = 1;
/// The same of a re-training.
const TICKET_REVISION: u32 = 2;

/// The experiment.
pub(super) struct KdTicket;

/// A dense training and the steps whose weights it keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DenseParams {
    recipe: Recipe,
    keep: Vec<u64>,
}

impl Experiment for KdTicket {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "Good Students Play Big Lottery Better"
    }

    fn reference(&self) -> &'static str {
        "Ma, Chen, Hu, You, Xie, Wang, 2021, arXiv 2101.03255 (versions 1 and 2)"
    }

    fn idea(&self) -> &'static str {
        "A pruned network put back to its first weights often fails to train to the dense accuracy, and the known \
         remedies rewind weights or learning rate to an early point that must be searched for. The finished dense \
         network is a teacher that costs nothing more. Re-training the ticket on the teacher's soft labels helps as \
         much as rewinding, and the two add up."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        for case in cases::of(ask)? {
            plan.data.push(case.describe_data());
            // What answers the main claims comes first for all seeds, so that a run cut short still has pairs.
            for part in [Part::Core, Part::Rest] {
                for seed in ask.seeds(case.seeds) {
                    let dense = case.dense_params();
                    let dense = ask.run(PAPER, &case.dense_kind(), seed, &dense)?.at_revision(DENSE_REVISION);
                    let dense = plan.add_weighted(dense, case.recipe.steps() as f64 * case.recipe.step_seconds());
                    for ticket in case.tickets_of(part, seed) {
                        let kind = format!("{} {} at {:.2} %", case.network, ticket.label, 100.0 * ticket.density);
                        let effort = ticket.effort(&case.recipe);
                        let run = ask.run(PAPER, &kind, seed, &ticket)?.at_revision(TICKET_REVISION);
                        plan.add_weighted(run.needing("dense", &dense), effort);
                    }
                }
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if run.needs.is_empty() {
            train_dense(&run.params()?, run.seed, context)
        } else {
            train_ticket(&run.params()?, run.seed, context)
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

fn train_dense(params: &DenseParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let DenseParams { recipe, keep } = params;
    let model = recipe.build(context, seed)?;
    let loaders = recipe.loaders(context, seed)?;
    let mut snapshots = Snapshots::new(&model.store, keep.iter().copied());
    let mut objective = CrossEntropy::new(model.network.as_ref());
    let mut optimizer = recipe.optimizer(&model.store)?;
    let length = Length { steps: recipe.steps(), schedule: recipe.schedule() };
    let (learner, observers) = ((&mut objective as _, &mut optimizer as _), vec![&mut snapshots as _]);
    let seen = training::train(context, recipe, (&model, &loaders), learner, observers, (length, seed))?;
    for step in keep {
        let weights = snapshots.get(*step)?;
        context.save_artifact(&weights_file(*step), |path| save_weights(path, weights, *step))?;
    }
    Ok(final_metrics(seen))
}

fn train_ticket(params: &TicketParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let TicketParams { recipe, density, .. } = params;
    let dense = |step: u64| -> anyhow::Result<NamedTensors> {
        Ok(read_state(&context.needed("dense")?.artifact(&weights_file(step))?)?)
    };
    let teacher = recipe.build(context, seed)?;
    restore(&dense(recipe.steps())?, &teacher.store)?;
    let mask = draw_mask(params, &teacher, seed)?;

    let retraining = params.rewind.plan(&recipe.schedule(), recipe.steps())?;
    let model = starting_model(params, &dense(retraining.weights_from)?, &mask, seed, context)?;
    let mut masked = MaskObserver::new(&mask, &model.store)?;
    let order = retraining_seed(seed);
    let loaders = recipe.loaders(context, order)?;
    let mut optimizer = recipe.optimizer(&model.store)?;
    let length = Length { steps: retraining.steps, schedule: retraining.schedule };

    let student = model.network.as_ref();
    let (mut hard, mut soft);
    let objective: &mut dyn core_tensor::train::Objective<_> = match params.teacher {
        Teacher::None => {
            hard = CrossEntropy::new(student);
            &mut hard
        }
        Teacher::Dense(config) => {
            soft = Distillation::new(student, teacher.network.as_ref(), config)?;
            &mut soft
        }
        Teacher::OfClasses(config) => {
            let means = ClassTeacher::of_means(teacher.network.as_ref(), loaders.train.as_ref(), config.temperature)?;
            soft = Distillation::from_batches(student, move |batch| means.logits(batch), config)?;
            &mut soft
        }
        Teacher::Uniform(config) => {
            let uniform = ClassTeacher::uniform(teacher.network.as_ref(), loaders.train.as_ref(), config.temperature)?;
            soft = Distillation::from_batches(student, move |batch| uniform.logits(batch), config)?;
            &mut soft
        }
    };
    let observers = vec![&mut masked as _];
    let seen =
        training::train(context, recipe, (&model, &loaders), (objective, &mut optimizer), observers, (length, order))?;

    let mut metrics = final_metrics(seen);
    metrics.insert("density".into(), mask.density());
    metrics.insert("survivors".into(), mask.survivors() as f64);
    metrics.insert("sparse_macs_share".into(), macs_share(recipe, &loaders, &mask)?);
    anyhow::ensure!((mask.density() - density).abs() < 1e-3, "asked for density {density}, got {}", mask.density());
    Ok(metrics)
}

/// The network to re-train, with the weights that its arm starts from, not masked yet.
fn starting_model(
    params: &TicketParams,
    rewound: &NamedTensors,
    mask: &MaskSet,
    seed: u64,
    context: &RunContext,
) -> anyhow::Result<training::Model> {
    let initial = if params.start == Start::Redrawn { redrawn_seed(seed) } else { seed };
    let model = params.recipe.build(context, initial)?;
    match params.start {
        Start::Rewound => restore(rewound, &model.store)?,
        Start::Redrawn => {}
        Start::Reinitialised => restore(&reinitialise(rewound, mask, seed)?, &model.store)?,
    }
    Ok(model)
}

/// The seed of the order and the augmentation of re-training: another than the dense training's, and the same for all arms.
fn retraining_seed(seed: u64) -> u64 {
    derive(seed, Purpose::Order, u64::MAX)
}

/// The seed of an initialisation that has nothing to do with the dense network's.
fn redrawn_seed(seed: u64) -> u64 {
    derive(seed, Purpose::Initialisation, u64::MAX)
}

/// Global magnitude over the dense network's final weights, shuffled within each layer for the random control.
fn draw_mask(params: &TicketParams, dense: &training::Model, seed: u64) -> anyhow::Result<MaskSet> {
    let weights = Prunable::conv_and_linear().except(params.unpruned.iter().cloned()).select_from(&dense.store)?;
    let mask = PruningSchedule::OneShot { density: params.density }.prune(&weights, &Magnitude, &Selector::global())?;
    Ok(if params.shuffle_mask { mask.shuffle_within_layers(seed) } else { mask })
}

/// MACs that a machine skipping every zero weight would do, as a share of the dense network's.
fn macs_share(recipe: &Recipe, loaders: &training::Loaders, mask: &MaskSet) -> anyhow::Result<f64> {
    let Some(batch) = loaders.test.epoch(0)?.next() else { anyhow::bail!("the test set is empty") };
    let sample = batch?.input.size()[1..].to_vec();
    let mut workload = recipe.architecture.workload("ticket", &sample)?;
    let dense = workload.nonzero_macs(Pass::Forward)?;
    let densities = mask.layer_densities();
    for layer in &mut workload.layers {
        if let Some(density) = densities.get(&format!("{}.weight", layer.name)) {
            layer.weight.density = *density;
        }
    }
    Ok(workload.nonzero_macs(Pass::Forward)? / dense)
}

fn weights_file(step: u64) -> String {
    format!("weights-{step}.safetensors")
}

fn save_weights(path: &Path, weights: &NamedTensors, step: u64) -> anyhow::Result<()> {
    let header = Header::new("repro.weights", 1, serde_json::json!({ "step": step }));
    Ok(write_safetensors(path, weights, &header.to_metadata()?)?)
}

impl Case {
    fn dense_kind(&self) -> String {
        format!("{} dense", self.network)
    }

    fn dense_params(&self) -> DenseParams {
        let mut keep: Vec<u64> = self.rewind_steps();
        keep.extend([0, self.recipe.steps()]);
        keep.sort_unstable();
        keep.dedup();
        DenseParams { recipe: self.recipe.clone(), keep }
    }
}

#[cfg(test)]
mod tests;
