//! FracTrain (arXiv 2012.13113): accuracy against the cost of training, for precision that grows over time (PFQ), adapts
//! to inputs (DFQ), or both, and what it costs on an accelerator.
//!
//! ```text
//! arms      a network from random weights under every method; (standard tier) a second, small one with more seeds
//! transfer  (standard tier) one half of the data in full precision ──► the other under static precisions and two methods
//! language  (standard tier) a Transformer language model under five methods
//! stages    the small network under other settings of the plateau rule
//! ```

mod arms;
mod cases;
mod claims;
mod hardware;
mod language;
mod stages;
mod tables;
mod train;
mod transfer;
mod view;

use crate::{Ask, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};

const PAPER: &str = "fractrain";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 2;
/// The same for cyclic schedules alone.
const CYCLIC_REVISION: u32 = 3;
/// The same for the trainings that leave a file.
const EXPORT_REVISION: u32 = 3;
/// The same for networks with gates.
const GATED_REVISION: u32 = 3;

/// The experiment.
pub(super) struct FracTrain;

impl Experiment for FracTrain {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "FracTrain: Fractionally Squeezing Bit Savings Both Temporally and Spatially for Efficient DNN Training"
    }

    fn reference(&self) -> &'static str {
        "Fu, You, Zhao, Wang, Li, Gopalakrishnan, Wang, Lin, NeurIPS 2020, arXiv 2012.13113"
    }

    fn idea(&self) -> &'static str {
        "Early training tolerates far fewer bits than late training, and easy inputs fewer than hard ones. Precision \
         therefore grows along training when the loss stops falling (PFQ), and small gates choose it for each input and \
         layer (DFQ). Together they cut the cost of training without losing accuracy."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        for case in cases::cases(ask)? {
            plan_case(ask, &case, &mut plan)?;
        }
        stages::plan(ask, &mut plan)?;
        if ask.tier == Tier::Standard {
            transfer::plan(ask, &mut plan)?;
            language::plan(ask, &mut plan)?;
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if transfer::owns(run) {
            return transfer::train(&run.params()?, run.seed, context);
        }
        if language::owns(run) {
            return language::train(&run.params()?, run.seed, context);
        }
        train::train(&run.params()?, run.seed, context)
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

fn plan_case(ask: &Ask, case: &cases::Case, plan: &mut Plan) -> anyhow::Result<()> {
    plan.data.push(case.describe_data());
    // All arms of a seed before the next, so that a run cut short has whole pairs.
    for seed in ask.seeds(case.order_seeds) {
        let mut dfq = None;
        for arm in case.arms(seed) {
            let params = case.params(&arm);
            let kind = format!("{} {}", case.network, arm.label());
            let mut run = ask.run(PAPER, &kind, seed, &params)?.at_revision(arm.revision());
            if let (arms::Arm::RandomGates(_), Some(learned)) = (&arm, &dfq) {
                run = run.needing("dfq", learned);
            }
            let run = plan.add_weighted(run, case.effort(&arm));
            if arm == case.dfq_arm() {
                dfq = Some(run);
            }
        }
    }
    Ok(())
}
