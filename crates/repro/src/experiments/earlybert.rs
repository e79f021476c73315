//! EarlyBERT: structured early-bird tickets for BERT (arXiv 2101.00063).
//!
//! ```text
//! planted    dead heads and neurons hidden in fresh weights ──search──► found?
//! recall     pre-training ──► few-shot task ──search of 20 steps──► tickets ──re-training──► who learns best?
//! step-time  a small BERT, full and cut, on the clock
//! ```

mod claims;
mod planted;
mod recall;
mod step_time;
mod training;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section};

const PAPER: &str = "earlybert";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 1;

/// The experiment.
pub(super) struct EarlyBert;

impl Experiment for EarlyBert {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "EarlyBERT: Efficient BERT Training via Early-bird Lottery Tickets"
    }

    fn reference(&self) -> &'static str {
        "Chen, Cheng, Wang, Gan, Wang, Liu, ACL 2021, arXiv 2101.00063"
    }

    fn idea(&self) -> &'static str {
        "Put a learned coefficient on every attention head and feed-forward neuron, train for a small part of the way, \
         and see which coefficients sink. Cut those heads and neurons out for real, go back to the weights before, and \
         train the smaller dense model instead: less time for comparable results, with no sparse kernels."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        for set in ["token counting with planted dead heads and neurons", "key-value recall"] {
            plan.data.push(DataUse { set: set.into(), source: DataSource::Generator });
        }
        for seed in ask.seeds(5) {
            let mut add = |run: Run, effort: f64| plan.add_weighted(run.at_revision(REVISION), effort);
            add(ask.run(PAPER, "planted", seed, &planted::Params::default())?, 4.0);
            add(ask.run(PAPER, "recall", seed, &recall::Params::default())?, 8.0);
            if seed < 2 {
                add(ask.run(PAPER, "step-time", seed, &step_time::Params::default())?, 4.0);
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "planted" => planted::measure(&run.params()?, run.seed),
            "recall" => recall::measure(&run.params()?, run.seed, context),
            "step-time" => step_time::measure(&run.params()?, run.seed, context),
            other => anyhow::bail!("no run of kind `{other}`"),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}
