//! ACL: adversarial contrastive learning, robust features without labels (arXiv 2010.13337).
//!
//! ```text
//! pre-training (SimCLR, ACL in four forms) ──encoder──► linear probe, attacks, shifts       (in the same run)
//!                                          └──────────► fine-tuning with few labels ──► attacks
//! ```

mod cases;
mod certify;
mod claims;
mod evaluate;
mod fine_tune;
mod picture;
mod pretrain;

use crate::{Ask, Experiment, Metrics, Plan, Results, Run, RunContext, Section};

const PAPER: &str = "acl";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 6;
/// The same for fine-tunings on pseudo-labels.
const PSEUDO_REVISION: u32 = 7;
/// The artifact that fine-tuning reads.
const ENCODER: &str = "encoder.safetensors";
/// Attacked images, and how the model saw them.
const PICTURE: &str = "attacked.png";

/// The experiment.
pub(super) struct AclExperiment;

impl Experiment for AclExperiment {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "Robust Pre-Training by Adversarial Contrastive Learning"
    }

    fn reference(&self) -> &'static str {
        "Jiang, Chen, Chen, Wang, NeurIPS 2020, arXiv 2010.13337"
    }

    fn idea(&self) -> &'static str {
        "Contrastive learning makes two augmentations of an image alike, but a perturbation that nobody sees still moves its \
         features far. The adversary becomes one more augmentation: a perturbation that makes the contrastive loss as \
         large as it can, in a stream of its own with batch norms of its own. The features are then robust without labels, \
         and robust training on top of them needs few."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let Some(case) = cases::of(ask)? else { return Ok(Plan::default()) };
        let mut plan = Plan { data: vec![case.describe_data()], ..Plan::default() };
        for seed in ask.seeds(case.seeds) {
            let mut encoders = Vec::new();
            for pretraining in &case.pretrainings {
                let run = ask.run(PAPER, &pretraining.label, seed, &pretraining.params)?.at_revision(REVISION);
                encoders.push(plan.add_weighted(run, pretraining.params.effort()));
            }
            for tuning in &case.tunings {
                let pseudo = matches!(tuning.params.tuning, fine_tune::Tuning::Semi { .. });
                let revision = if pseudo { PSEUDO_REVISION } else { REVISION };
                let mut run = ask.run(PAPER, &tuning.label, seed, &tuning.params)?.at_revision(revision);
                if let Some(encoder) = tuning.encoder {
                    run = run.needing("encoder", &encoders[encoder]);
                }
                plan.add_weighted(run, tuning.params.effort());
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if cases::is_pretraining(&run.kind) {
            pretrain::run(&run.params()?, run.seed, context)
        } else {
            fine_tune::run(&run.params()?, run.seed, context)
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

#[cfg(test)]
mod tests;
