//! SmartDeal: weights as a small basis times sparse powers of two (arXiv 2101.01163, 2005.03403).
//!
//! ```text
//! blocks    random matrices: the joint fit against rounding alone
//! network   dense training ──► one-shot compression, rivals at equal bits, re-training, the file
//!                          └─► dense training, as long as re-training
//! learning  dense training on one half ──► training in SmartDeal form on the other
//!                                      └─► dense training on it
//! energy    a compressed ResNet-20 on the accelerator model; what weights of two ResNets take while they learn
//! training-energy  a training step of two ResNets on it
//! trained   (standard tier) a network on images ──► retrained: compressed at three shares of zeros, two epochs of alternation
//!                                               ├─► learned: at the first share, six epochs in SmartDeal form
//!                                               └─► continued: dense, as long as either and under its learning rates
//! ```

mod blobs;
mod blocks;
mod claims;
mod energy;
mod images;
mod learning;
mod network;
mod training_energy;
mod training_storage;

use super::training::DataChoice;
use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use quant::smartdeal::train::{CoefficientMode, UpdateConfig};
use tch::Device;
use tch::nn::VarStore;

const PAPER: &str = "smartdeal";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 1;
/// The same for the small network that is compressed and re-trained.
const NETWORK_REVISION: u32 = 3;
/// The same for networks on images that are judged by what their file holds.
const FILE_REVISION: u32 = 2;
/// The same for trainings that move coefficients.
const MOVING_REVISION: u32 = 6;
/// The same for those of the network on images.
const MOVING_IMAGES_REVISION: u32 = 6;
/// The same for inference and for training priced on accelerator models.
const PRICE_REVISION: u32 = 4;
const TRAINING_PRICE_REVISION: u32 = 3;

/// Seeds of the small network that learns in form; of all else there are three.
const LEARNING_SEEDS: u64 = 8;

/// The experiment.
pub(super) struct SmartDeal;

impl Experiment for SmartDeal {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "SmartDeal: Re-Modeling Deep Network Weights for Efficient Inference and Training"
    }

    fn reference(&self) -> &'static str {
        "Chen, Zhao, Wang, Li, Guan, Xu, You, Wang, Lin, 2021, arXiv 2101.01163; SmartExchange, arXiv 2005.03403"
    }

    fn idea(&self) -> &'static str {
        "Fetching weights costs more energy than computing with them. A weight matrix is written as a tiny dense basis \
         times a sparse matrix of signed powers of two: few bits to fetch, and shifts and adds to rebuild. Pruning, \
         decomposition and quantisation are fitted together instead of one after the other, and a network can keep the \
         form while it learns."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        plan.data.push(DataUse { set: "Gaussian matrices of 192 × 3".into(), source: DataSource::Generator });
        plan.data.push(DataUse { set: blobs::DESCRIPTION.into(), source: DataSource::Generator });
        let defaults = (
            blocks::Params::default(),
            network::Params::default(),
            learning::Params::default(),
            energy::Params::default(),
            training_energy::Params::default(),
        );
        for seed in ask.seeds(3) {
            let mut add = |run: Run, revision: u32, effort: f64| plan.add_weighted(run.at_revision(revision), effort);
            add(ask.run(PAPER, "blocks", seed, &defaults.0)?, REVISION, 0.02);
            add(ask.run(PAPER, "network", seed, &defaults.1)?, NETWORK_REVISION, 1.1);
            add(ask.run(PAPER, "energy", seed, &defaults.3)?, PRICE_REVISION, 10.0);
            add(ask.run(PAPER, "training-energy", seed, &defaults.4)?, TRAINING_PRICE_REVISION, 1.5);
        }
        for seed in ask.seeds(LEARNING_SEEDS) {
            let run = ask.run(PAPER, "learning", seed, &defaults.2)?.at_revision(MOVING_REVISION);
            plan.add_weighted(run, 1.2);
        }
        if ask.tier == Tier::Standard {
            plan_images(ask, &mut plan)?;
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "blocks" => blocks::measure(&run.params()?, run.seed),
            "network" => network::measure(&run.params()?, run.seed, context),
            "learning" => learning::measure(&run.params()?, run.seed, context),
            "energy" => energy::measure(&run.params()?, run.seed),
            "training-energy" => training_energy::measure(&run.params()?, run.seed),
            "trained" => images::train(&run.params()?, run.seed, context),
            "learned" => images::learn(&run.params()?, run.seed, context),
            "retrained" => images::retrain(&run.params()?, run.seed, context),
            "continued" => images::continue_dense(&run.params()?, run.seed, context),
            other => anyhow::bail!("no run of kind `{other}`"),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask.tier, results)
    }
}

/// A network's first random weights, on the CPU.
fn first_weights(architecture: &Architecture, seed: u64) -> anyhow::Result<VarStore> {
    seed_libtorch(seed, Purpose::Initialisation, 0);
    let store = VarStore::new(Device::Cpu);
    architecture.build(&store.root(), &Standard)?;
    Ok(store)
}

/// Shares of zeros at which networks on images are compressed.
const ZEROS: [f64; 3] = [0.5, 0.7, 0.85];

fn plan_images(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    let recipe = images::recipe(ask)?;
    if let DataChoice::Plain(set) | DataChoice::Augmented(set) = recipe.data {
        plan.data.push(set.describe(recipe.train_images));
    }
    // Epochs of re-training, and of learning in form.
    let (few, many) = (2, 6);
    let seconds = |epochs: u64| (epochs * recipe.steps_per_epoch()) as f64 * recipe.step_seconds();
    for seed in ask.seeds(3) {
        let dense = ask.run(PAPER, "trained", seed, &images::Trained { recipe: recipe.clone() })?;
        let dense = plan.add_weighted(dense.at_revision(REVISION), seconds(recipe.epochs));
        let retrained = |zeros| images::Retrained { recipe: recipe.clone(), zeros, epochs: few, rate: 0.01 };
        for zeros in ZEROS {
            let run = ask.run(PAPER, "retrained", seed, &retrained(zeros))?.at_revision(FILE_REVISION);
            plan.add_weighted(run.needing("trained", &dense), seconds(few));
        }
        let learned = |mode: CoefficientMode| {
            let update = UpdateConfig { mode, ..UpdateConfig::default() };
            images::Learned { recipe: recipe.clone(), zeros: ZEROS[0], epochs: many, peak: 0.05, update }
        };
        let switch = CoefficientMode::Switch(images::switch(&recipe));
        let modes = [(switch, MOVING_IMAGES_REVISION), (CoefficientMode::Frozen, REVISION)];
        for (mode, revision) in modes {
            let run = ask.run(PAPER, "learned", seed, &learned(mode))?.at_revision(revision);
            plan.add_weighted(run.needing("trained", &dense), seconds(many));
        }
        // Arms of a kind differ in what is zero and in what moves, not in how long and how fast they train.
        let courses = [(retrained(ZEROS[0]).course(), few), (learned(CoefficientMode::Frozen).course(), many)];
        for (course, epochs) in courses {
            let params = images::Continued { recipe: recipe.clone(), course };
            let run = ask.run(PAPER, "continued", seed, &params)?.at_revision(REVISION);
            plan.add_weighted(run.needing("trained", &dense), seconds(epochs));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device};
    use std::collections::BTreeSet;

    fn ask(tier: Tier, data: &std::path::Path) -> Ask {
        Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(data) }
    }

    fn of<'a>(plan: &'a Plan, kind: &str) -> Vec<&'a Run> {
        plan.runs.iter().map(|planned| &planned.run).filter(|run| run.kind == kind).collect()
    }

    #[test]
    fn the_dense_network_goes_on_as_long_as_every_arm_does() {
        let empty = tempfile::tempdir().unwrap();
        // Eight seeds of a small network that learns in form, three of four other kinds; and three of a training, of three
        // that re-train, two that learn in form, two that go on dense.
        for (tier, runs) in [(Tier::Quick, 8 + 3 * 4), (Tier::Standard, 8 + 3 * (4 + 1 + 3 + 2 + 2))] {
            let plan = SmartDeal.plan(&ask(tier, empty.path())).unwrap();
            let ids: BTreeSet<_> = plan.runs.iter().map(|planned| planned.run.id()).collect();
            assert_eq!((ids.len(), plan.runs.len()), (runs, runs), "{tier}");
        }
        let plan = SmartDeal.plan(&ask(Tier::Standard, empty.path())).unwrap();
        let course = |run: &Run| match run.kind.as_str() {
            "retrained" => run.params::<images::Retrained>().unwrap().course(),
            "learned" => run.params::<images::Learned>().unwrap().course(),
            _ => run.params::<images::Continued>().unwrap().course,
        };
        let dense = of(&plan, "continued");
        for arm in of(&plan, "retrained").into_iter().chain(of(&plan, "learned")) {
            let pairs = dense.iter().filter(|run| run.needs == arm.needs && course(run) == course(arm));
            assert_eq!(pairs.count(), 1, "{}", arm.label());
        }
    }

    #[test]
    fn a_report_without_results_leaves_no_claim_out() {
        let empty = tempfile::tempdir().unwrap();
        for tier in [Tier::Quick, Tier::Standard] {
            let section = SmartDeal.judge(&ask(tier, empty.path()), &Results::new(Vec::new())).unwrap();
            let ids: BTreeSet<_> = section.claims.iter().map(|claim| claim.id().to_owned()).collect();
            assert_eq!(ids.len(), section.claims.len());
            assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
            for table in &section.tables {
                assert!(table.rows.iter().all(|row| row.len() == table.header.len()), "{}", table.title);
            }
        }
    }
}
