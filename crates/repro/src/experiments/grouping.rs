//! Attentive grouping for deep metric learning (arXiv 2011.08877).
//!
//! ```text
//! train       a small network on some characters; retrieval among characters never seen ──► gains, diversity, attention,
//!             moved queries
//! invariance  permuted positions and shifted images, random weights
//! ```

mod arms;
mod attended;
mod claims;
mod glyphs;
mod invariance;
mod learning;
mod moved;
mod scenes;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};
use arms::{Source, Study};

const PAPER: &str = "grouping";
/// Counted up whenever the code computes something else from the same parameters. Constants that are no parameters are
/// covered by nothing else: the split's and the scenes' seeds, sizes of scraps, shifts of queries, settings of losses, keys
/// and the schedule's rise.
const REVISION: u32 = 2;

/// The experiment.
pub(super) struct Grouping;

impl Experiment for Grouping {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "Towards Improved and Interpretable Deep Metric Learning via Attentive Grouping"
    }

    fn reference(&self) -> &'static str {
        "Xu, Wang, Deng, Yuan, Ji, 2021, arXiv 2011.08877"
    }

    fn idea(&self) -> &'static str {
        "An embedding split into groups that are pushed to differ retrieves better than one of the same length. Each group \
         gets a learned query that attends over the positions of the last feature map, in place of average pooling. The \
         attention says what each group looks at, and the embedding does not depend on where in the map it stands."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        if ask.tier == Tier::Paper {
            let set = "CUB-200-2011, Cars-196, Stanford Online Products and In-Shop".into();
            plan.data.push(DataUse { set, source: DataSource::Absent });
            return Ok(plan);
        }
        for seed in ask.seeds(if ask.tier == Tier::Quick { 2 } else { 3 }) {
            let run = ask.run(PAPER, "invariance", seed, &invariance::Params::default())?.at_revision(REVISION);
            plan.add_weighted(run, 0.1);
        }
        let Some(source) = Source::at_hand(ask)? else {
            plan.data.push(DataUse { set: "Omniglot".into(), source: DataSource::Absent });
            return Ok(plan);
        };
        plan.data.push(source.describe());
        let study = Study::of(ask.tier, source);
        for (params, seeds) in &study.arms {
            for seed in ask.seeds(*seeds) {
                let run = ask.run(PAPER, &params.label(), seed, params)?.at_revision(REVISION);
                plan.add_weighted(run, params.effort());
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "invariance" => invariance::measure(&run.params()?, run.seed, context.device().into()),
            _ => learning::measure(&run.params()?, run.seed, context),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}
