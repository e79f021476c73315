//! Face anti-spoofing from physical cues (arXiv 2011.14054), on generated faces.
//!
//! ```text
//! pictures of all domains ──► one training a model and unseen domain ──► claims
//! ```

mod cases;
mod claims;
mod measure;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section};
use cases::{FoldParams, PictureParams, TierPlan};
use vision::fas::model::FasData;
use vision::fas::synth::Generator;

const PAPER: &str = "fas";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 3;
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
            "generated faces and attacks, {} domains × {} people",
            tier.pictures.population.domains.len(),
            tier.pictures.population.identities
        );
        plan.data.push(DataUse { set, source: DataSource::Generator });
        let real = "OULU-NPU, SiW, CASIA-MFSD, Replay-Attack, MSU-MFSD, CelebA-Spoof (each needs a signed licence)";
        plan.data.push(DataUse { set: real.into(), source: DataSource::Absent });
        let pictures = ask.run(PAPER, "pictures", 0, &tier.pictures)?.at_revision(REVISION);
        let pictures = plan.add_weighted(pictures, 0.012 * tier.pictures.population.specs().len() as f64);
        for seed in ask.seeds(tier.seeds) {
            for &target in &tier.targets {
                for &model in &tier.models {
                    let params = FoldParams { target, model, recipe: tier.recipe.clone() };
                    let kind = format!("{} → {}", model.name(), target.name());
                    let run = ask.run(PAPER, &kind, seed, &params)?.at_revision(REVISION);
                    plan.add_weighted(run.needing("pictures", &pictures), tier.recipe.effort());
                }
            }
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if run.needs.is_empty() {
            return make_pictures(&run.params()?, context);
        }
        let data = FasData::load(&context.needed("pictures")?.artifact(SET)?)?;
        measure::fold(&run.params()?, run.seed, &data, context)
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

/// Renders the tier's pictures and keeps them for all trainings.
fn make_pictures(params: &PictureParams, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let generator = Generator::new(params.seed, params.config)?;
    let specs = params.population.specs();
    let mut pictures = Vec::with_capacity(specs.len());
    let start = std::time::Instant::now();
    for part in specs.chunks(256) {
        pictures.extend(generator.render_all(part)?);
        context.progress(pictures.len() as u64, specs.len() as u64, "pictures");
    }
    context.measured("pictures_per_second", specs.len() as f64 / start.elapsed().as_secs_f64())?;
    let data = FasData::from_rendered(&pictures, params.config, params.policies)?;
    context.save_artifact(SET, |path| Ok(data.save(path)?))?;
    Ok(Metrics::from([("pictures".into(), data.len() as f64)]))
}
