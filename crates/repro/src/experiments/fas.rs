//! Face anti-spoofing from physical cues (arXiv 2011.14054), on generated faces.
//!
//! ```text
//! a seed's people in all domains ──► a training for each model and domain left out ──► one number a seed ──► claims
//! ```

mod cases;
mod claims;
mod figures;
mod folds;
mod maps;
mod measure;
mod probe;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section};
use cases::{FoldParams, PHYSICAL, PictureParams, TierPlan, kind};
use vision::fas::model::FasData;
use vision::fas::synth::{Generator, Rendered};

const PAPER: &str = "fas";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 6;
const SET: &str = "pictures.safetensors";

/// The experiment.
pub(super) struct Fas;

impl Experiment for Fas {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "Uncertainty-Aware Physically-Guided Proxy Tasks for Unseen Domain Face Anti-spoofing"
    }

    fn reference(&self) -> &'static str {
        "Wu, Yu, Liu, Wang, Chandraker, 2020, arXiv 2011.14054"
    }

    fn idea(&self) -> &'static str {
        "A living face is the same physically everywhere: it has a face's depth, mirrors little light, and is made of \
         skin. So a liveness network also predicts depth, reflection and material, and an attention that knows its \
         uncertainty weighs each cue by itself. Hard negatives that share a person's attributes keep the rest out."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let tier = TierPlan::of(ask.tier);
        let set = format!(
            "generated faces and attacks, {} domains × {} people, others with each seed",
            tier.pictures.population.domains.len(),
            tier.pictures.population.identities
        );
        plan.data.push(DataUse { set, source: DataSource::Generator });
        let real = "OULU-NPU, SiW, CASIA-MFSD, Replay-Attack, MSU-MFSD, CelebA-Spoof (each needs a signed licence)";
        plan.data.push(DataUse { set: real.into(), source: DataSource::Absent });
        let rendering = 0.012 * tier.pictures.population.specs().len() as f64;
        for seed in ask.seeds(tier.seeds) {
            let pictures = ask.run(PAPER, "pictures", seed, &tier.pictures)?.at_revision(REVISION);
            let pictures = plan.add_weighted(pictures, rendering);
            for target in tier.targets_of(seed) {
                for &model in &tier.models {
                    let params = FoldParams { target, model, recipe: tier.recipe.of(model) };
                    let run = ask.run(PAPER, &kind(model, target), seed, &params)?.at_revision(REVISION);
                    plan.add_weighted(run.needing("pictures", &pictures), tier.recipe.effort(model));
                }
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if run.needs.is_empty() {
            return make_pictures(&run.params()?, run.seed, context);
        }
        let pictures = FasData::load(&context.needed("pictures")?.artifact(SET)?)?;
        measure::fold(&run.params()?, run.seed, pictures, context)
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

/// Renders a seed's people and keeps them, with maps as they physically are, for all its trainings.
fn make_pictures(params: &PictureParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let generator = Generator::new(seed, params.config)?;
    let specs = params.population.specs();
    let mut pictures = Vec::with_capacity(specs.len());
    let start = std::time::Instant::now();
    for part in specs.chunks(256) {
        // Whole frames, which nothing here reads, would be most of the memory.
        let cropped = |picture: Rendered| Rendered { frame: Vec::new(), ..picture };
        pictures.extend(generator.render_all(part)?.into_iter().map(cropped));
        context.progress(pictures.len() as u64, specs.len() as u64, "pictures");
    }
    context.measured("pictures_per_second", specs.len() as f64 / start.elapsed().as_secs_f64())?;
    let data = FasData::from_rendered(&pictures, params.config, PHYSICAL)?;
    context.save_artifact(SET, |path| Ok(data.save(path)?))?;
    Ok(Metrics::from([("pictures".into(), data.len() as f64)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device, Tier};
    use std::collections::BTreeSet;

    #[test]
    fn every_training_has_the_people_of_its_seed() {
        let empty = tempfile::tempdir().unwrap();
        let ask = |tier| Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        // Two seeds of four models and a domain, eight of ten and a domain each, five of nineteen and four.
        for (tier, runs) in [(Tier::Quick, 2 * 5), (Tier::Standard, 8 * 11), (Tier::Paper, 5 * 77)] {
            let plan = Fas.plan(&ask(tier)).unwrap();
            let ids: BTreeSet<_> = plan.runs.iter().map(|planned| planned.run.id()).collect();
            assert_eq!((ids.len(), plan.runs.len()), (runs, runs), "{tier}");
            for planned in plan.runs.iter().filter(|planned| !planned.run.needs.is_empty()) {
                let needed = |id| plan.runs.iter().find(|other| other.run.id() == id).unwrap();
                assert!(planned.run.needs.values().all(|id| needed(id.clone()).run.seed == planned.run.seed));
            }
        }
        let plan = Fas.plan(&ask(Tier::Quick)).unwrap();
        assert!(plan.runs.iter().map(|planned| planned.effort).sum::<f64>() < 150.0);
    }

    #[test]
    fn a_report_without_results_leaves_no_claim_out() {
        let empty = tempfile::tempdir().unwrap();
        let ask = |tier| Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let of = |tier| Fas.judge(&ask(tier), &Results::new(Vec::new())).unwrap();
        let mut ids = Vec::new();
        for tier in [Tier::Quick, Tier::Standard, Tier::Paper] {
            let section = of(tier);
            let own: BTreeSet<_> = section.claims.iter().map(|claim| claim.id().to_owned()).collect();
            assert_eq!(own.len(), section.claims.len());
            assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
            for table in &section.tables {
                assert!(table.rows.iter().all(|row| row.len() == table.header.len()), "{}", table.title);
            }
            ids.push(own);
        }
        assert!(ids[0] == ids[1] && ids[1] == ids[2]);
        let reason = |section: &Section, id: &str| {
            let claim = section.claims.iter().find(|claim| claim.id() == id).unwrap();
            claim.reason().to_owned()
        };
        assert_eq!(reason(&of(Tier::Quick), "C4-nll"), "needs the arm `softmax` of the standard tier");
        assert_eq!(reason(&of(Tier::Standard), "C2-depth"), "needs the arm `depth-only` of the paper tier");
        assert_eq!(reason(&of(Tier::Paper), "C2-depth"), "nothing measures it");
    }
}
