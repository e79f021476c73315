//! Lottery tickets of pre-trained vision models (arXiv 2012.06908).
//!
//! ```text
//! pre-training (supervised, SimCLR, MoCo) ──► θ_p ──IMP on the same task──► masks m_P
//!      │                                       └──► few labels of other classes: who transfers, up to which sparsity?
//!      │                                       └──► scenes: segmentation and detection
//!      └──► masks of two objectives, compared
//! ```

mod claims;
mod learning;
mod overlap;
mod pretraining;
mod scenes;
mod settings;
mod transfer;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section};
use settings::{Objective, Seconds, Settings};

const PAPER: &str = "cv-lth";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 7;

/// The experiment.
pub(super) struct CvLth;

impl Experiment for CvLth {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "The Lottery Tickets Hypothesis for Supervised and Self-supervised Pre-training in Computer Vision Models"
    }

    fn reference(&self) -> &'static str {
        "Chen, Frankle, Chang, Liu, Zhang, Carbin, Wang, CVPR 2021, arXiv 2012.06908"
    }

    fn idea(&self) -> &'static str {
        "A backbone is pre-trained once and fine-tuned many times. Take its pre-trained weights as the start of the \
         lottery-ticket procedure: prune on the pre-training task, go back to the pre-trained weights, and see whether the \
         sparse network transfers to other tasks as well as the dense one."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let Some(settings) = Settings::of(ask)? else { return Ok(plan) };
        plan.data.push(settings.describe_data());
        if settings.scenes.is_some() {
            let set = "scenes of shapes on band-limited noise, for segmentation and detection".into();
            plan.data.push(DataUse { set, source: DataSource::Generator });
        }
        let seconds = Seconds::of(ask.tier);
        for seed in ask.seeds(settings::seeds(ask.tier)) {
            let mut sources = Vec::new();
            for objective in settings.objectives.iter().copied() {
                let params = pretraining::Params { settings: settings.clone(), objective };
                let run = ask.run(PAPER, objective.pretraining(), seed, &params)?.at_revision(REVISION);
                let source = plan.add_weighted(run, seconds.pretraining[objective as usize]);
                if settings.transfers.contains(&objective) {
                    let params = transfer::Params { settings: settings.clone(), objective: Some(objective) };
                    let run = ask.run(PAPER, objective.transfer(), seed, &params)?.at_revision(REVISION);
                    plan.add_weighted(run.needing("source", &source), seconds.transfer);
                }
                if objective == Objective::Supervised && settings.scenes.is_some() {
                    let params = scenes::Params { settings: settings.clone() };
                    let run = ask.run(PAPER, "scenes", seed, &params)?.at_revision(REVISION);
                    plan.add_weighted(run.needing("source", &source), seconds.scenes);
                }
                sources.push((objective, source));
            }
            let params = transfer::Params { settings: settings.clone(), objective: None };
            plan.add_weighted(ask.run(PAPER, transfer::FRESH, seed, &params)?.at_revision(REVISION), seconds.fresh);
            let params = overlap::Params { settings: settings.clone() };
            let mut run = ask.run(PAPER, "overlap", seed, &params)?.at_revision(REVISION);
            for (objective, source) in &sources {
                run = run.needing(objective.name(), source);
            }
            plan.add_weighted(run, 0.1);
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "overlap" => overlap::measure(&run.params()?, context),
            "scenes" => scenes::measure(&run.params()?, run.seed, context),
            kind if kind == transfer::FRESH || Objective::ALL.iter().any(|objective| objective.transfer() == kind) => {
                transfer::measure(&run.params()?, run.seed, context)
            }
            _ => pretraining::measure(&run.params()?, run.seed, context),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::finished_runs::finished;
    use crate::{DataRoot, Device, Tier};
    use std::collections::BTreeSet;

    #[test]
    fn plans_pair_every_transfer_with_the_pre_training_of_its_seed() {
        let empty = tempfile::tempdir().unwrap();
        let ask = |tier| Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        // Three seeds of two objectives, a transfer, one from fresh weights, overlap; then six of three objectives and their
        // transfers, with scenes.
        for (tier, runs) in [(Tier::Quick, 3 * 5), (Tier::Standard, 6 * 9), (Tier::Paper, 0)] {
            let plan = CvLth.plan(&ask(tier)).unwrap();
            let ids: BTreeSet<_> = plan.runs.iter().map(|planned| planned.run.id()).collect();
            assert_eq!((ids.len(), plan.runs.len()), (runs, runs), "{tier}");
            for planned in plan.runs.iter().filter(|planned| !planned.run.needs.is_empty()) {
                let needed = |id| plan.runs.iter().find(|other| other.run.id() == id).unwrap();
                assert!(planned.run.needs.values().all(|id| needed(id.clone()).run.seed == planned.run.seed));
            }
        }
        let plan = CvLth.plan(&ask(Tier::Quick)).unwrap();
        assert!(plan.data[0].set.contains("generated shapes"), "a substitute must be named: {:?}", plan.data);
    }

    #[test]
    fn a_report_without_results_leaves_no_claim_out() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let section = CvLth.judge(&ask, &Results::new(Vec::new())).unwrap();
        let ids: BTreeSet<_> = section.claims.iter().map(|claim| claim.id().to_owned()).collect();
        assert_eq!(ids.len(), section.claims.len());
        assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
        // MoCo is the standard tier's, and so is what is said of its kernels.
        let of = |tier| CvLth.judge(&Ask { tier, ..ask.clone() }, &Results::new(Vec::new())).unwrap();
        let reason = |section: &Section| {
            let claim = section.claims.iter().find(|claim| claim.id() == "C4-simclr").unwrap();
            claim.reason().to_owned()
        };
        assert!(reason(&of(Tier::Quick)).contains("standard tier") && !reason(&of(Tier::Standard)).contains("tier"));
        // What independent starts settle beforehand, no tier judges.
        for section in [of(Tier::Quick), of(Tier::Standard)] {
            let beforehand: Vec<_> = section.claims.iter().filter(|claim| claim.id().starts_with("T3")).collect();
            assert!(
                !beforehand.is_empty() && beforehand.iter().all(|claim| claim.reason().contains("independent starts"))
            );
        }
    }

    #[test]
    fn tickets_and_complements_are_held_against_the_tasks_own_ticket_at_fresh_weights() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let runs = CvLth.plan(&ask).unwrap().runs.into_iter().map(|planned| planned.run);
        let runs = runs.filter(|run| run.kind == transfer::FRESH || run.kind == Objective::Supervised.transfer());
        let metric = |run: &Run, name: &str| {
            let fresh = run.kind == transfer::FRESH;
            match name {
                "ticket_10" => 52.0,
                "own_10" => {
                    if fresh {
                        50.0
                    } else {
                        60.0
                    }
                }
                "own_complement" => {
                    if fresh {
                        30.0
                    } else {
                        48.0
                    }
                }
                "own_6" => {
                    if fresh {
                        49.0
                    } else {
                        40.0
                    }
                }
                _ => 45.0,
            }
        };
        let mut names: Vec<String> =
            ["dense", "dense_std", "own_6", "own_10", "own_barrier", "matching", "failing", "identity"]
                .map(str::to_owned)
                .to_vec();
        names.extend(["flip", "complement", "random"].map(|change| format!("own_{change}")));
        names.extend(["ticket", "random"].iter().flat_map(|arm| [3, 5, 10].map(|round| format!("{arm}_{round}"))));
        let results = runs.map(|run| {
            let metrics: Metrics = names.iter().map(|name| (name.clone(), metric(&run, name))).collect();
            let outcome = finished(&run, &metrics);
            (run, outcome)
        });
        let section = CvLth.judge(&ask, &Results::new(results.collect())).unwrap();
        for (id, difference) in [("T2c-supervised", 2.0), ("T4-complement-fresh-supervised", -1.0)] {
            let claim = section.claims.iter().find(|claim| claim.id() == id).unwrap();
            assert_eq!((claim.mean(), claim.verdict().as_str()), (Some(difference), "reproduced"), "{id}");
        }
    }

    #[test]
    fn every_objective_has_a_control_on_its_own_task() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Standard, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let section = CvLth.judge(&ask, &Results::new(Vec::new())).unwrap();
        for objective in Objective::ALL {
            let name = objective.name();
            for id in [format!("T0-{name}"), format!("C1-{name}"), format!("C1-{name}-random")] {
                assert!(section.claims.iter().any(|claim| claim.id() == id), "{id}");
            }
        }
    }

    #[test]
    fn tickets_are_held_against_the_dense_network_and_a_random_mask_at_their_own_round() {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let settings = Settings::of(&ask).unwrap().unwrap();
        let runs = CvLth.plan(&ask).unwrap().runs.into_iter().map(|planned| planned.run);
        let runs = runs.filter(|run| Objective::ALL.iter().any(|objective| objective.pretraining() == run.kind));
        // 67.2 % is the fifth round, 59.0 % the fourth; every other round has another order of the three.
        let of = |run: &Run, arm: &str, round: u32| {
            let own = if run.kind == Objective::Supervised.pretraining() { 5 } else { 4 };
            match arm {
                _ if round != own => 10.0 * f64::from(round) + arm.len() as f64,
                "ticket" => 60.0,
                "dense" => 61.0,
                _ => 55.0,
            }
        };
        let results = runs.map(|run| {
            let mut metrics = Metrics::from([("dense_score_std".to_owned(), 2.0)]);
            metrics.extend(["source_knn_untrained", "source_knn"].map(|name| (name.to_owned(), 40.0)));
            for (round, arm) in
                settings.controls.iter().flat_map(|round| ["ticket", "random", "dense"].map(|arm| (*round, arm)))
            {
                metrics.insert(format!("{arm}_score_{round}"), of(&run, arm, round));
                metrics.insert(format!("{arm}_knn_{round}"), 50.0);
                metrics.extend(["one_shot", "untrained"].map(|name| (format!("{name}_{round}"), 0.9)));
            }
            let outcome = finished(&run, &metrics);
            (run, outcome)
        });
        let section = CvLth.judge(&ask, &Results::new(results.collect())).unwrap();
        for name in ["supervised", "simclr"] {
            // 60 − 61 + 2, and 60 − 55.
            for (id, expected) in [(format!("C1-{name}"), 1.0), (format!("C1-{name}-random"), 5.0)] {
                let claim = section.claims.iter().find(|claim| claim.id() == id).unwrap();
                assert_eq!((claim.mean(), claim.verdict().as_str()), (Some(expected), "reproduced"), "{id}");
            }
        }
    }

    #[test]
    fn every_tier_tries_the_rounds_that_its_claims_are_about() {
        let empty = tempfile::tempdir().unwrap();
        for tier in [Tier::Quick, Tier::Standard] {
            let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
            let settings = Settings::of(&ask).unwrap().unwrap();
            let own = settings.objectives.iter().map(|objective| claims::own_round(*objective));
            assert!(own.into_iter().all(|round| settings.controls.contains(&round)), "{tier}");
        }
    }
}
