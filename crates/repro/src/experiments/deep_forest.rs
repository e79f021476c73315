//! Deep forests with soft routing and learned shape (arXiv 2012.14878), beside greedy trees and cascades of them.

mod claims;
mod held_out;
mod models;

use super::images::ImageSet;
use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};
use core_tensor::data::Dataset;
use held_out::{Candidates, Chosen};
use models::{Fitted, Model};
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};
use std::time::Instant;

const PAPER: &str = "deep-forest";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 5;
/// The kind of the run that chooses settings on held-out training rows.
const SETTINGS: &str = "settings";

/// The experiment.
pub(super) struct DeepForestExperiment;

/// One model on one data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    data: ImageSet,
    train_images: usize,
    model: Model,
    /// The name among the arms.
    arm: String,
}

/// What a tier runs.
struct Setting {
    /// The first one's claims come first.
    sets: Vec<ImageSet>,
    train_images: usize,
    /// Hard trees in each of two layers.
    hard_trees: usize,
    /// Whether the soft cascade, six to seven times the work of one layer, is run.
    soft_cascade: bool,
    /// Whether held-out rows choose the price of a node and the size of a greedy tree's leaves.
    chosen: bool,
    /// Seeds of single layers, and of cascades, which take most of the time.
    seeds: [u64; 2],
}

fn setting(ask: &Ask) -> anyhow::Result<Setting> {
    let fashion = ImageSet::grey(&ask.data)?;
    let both = || Ok::<_, anyhow::Error>([fashion].into_iter().chain(ImageSet::digits(&ask.data)?).collect::<Vec<_>>());
    Ok(match ask.tier {
        Tier::Quick => Setting {
            sets: vec![fashion],
            train_images: 5_000,
            hard_trees: 100,
            soft_cascade: false,
            chosen: false,
            seeds: [3, 3],
        },
        Tier::Standard => Setting {
            sets: both()?,
            train_images: 60_000,
            hard_trees: 300,
            soft_cascade: true,
            chosen: true,
            seeds: [6, 3],
        },
        Tier::Paper => Setting {
            sets: both()?,
            train_images: 60_000,
            hard_trees: 2_000,
            soft_cascade: true,
            chosen: true,
            seeds: [6, 3],
        },
    })
}

impl Experiment for DeepForestExperiment {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "Growing Deep Forests Efficiently with Soft Routing and Learned Connectivity"
    }

    fn reference(&self) -> &'static str {
        "Shen, Wang, Wang, ICDM Workshops 2018, arXiv 2012.14878"
    }

    fn idea(&self) -> &'static str {
        "Trees of a deep forest are usually grown greedily, by hard splits on single features, so a good forest needs very \
         many. Here every node routes softly and carries a learned probability of being a leaf, and all of it is trained \
         together by gradients. A single layer of fifteen such trees then stands beside layers of thousands of hard ones."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let setting = setting(ask)?;
        let mut plan = Plan::default();
        for set in &setting.sets {
            plan.data.push(set.describe(setting.train_images));
            let candidates = Candidates::new(*set, setting.train_images);
            // Once for all seeds: a setting is part of the method.
            let settings = if setting.chosen {
                let run = ask.run(PAPER, SETTINGS, 0, &candidates)?.at_revision(REVISION);
                Some(plan.add_weighted(run, candidates.effort()))
            } else {
                None
            };
            let [all_seeds, cascade_seeds] = setting.seeds;
            for seed in ask.seeds(all_seeds) {
                let cascades = ask.seeds(cascade_seeds).any(|own| own == seed);
                let mut learned: Option<Run> = None;
                for (arm, model) in
                    models::arms(&setting).into_iter().filter(|(_, model)| cascades || !model.is_cascade())
                {
                    let needs_shape = matches!(model, Model::RandomShape(_));
                    let effort = model.effort(setting.train_images);
                    let needs_settings = model.is_chosen();
                    let params = Params { data: *set, train_images: setting.train_images, model, arm: arm.into() };
                    let mut run = ask.run(PAPER, arm, seed, &params)?.at_revision(REVISION);
                    if let (true, Some(learned)) = (needs_shape, &learned) {
                        run = run.needing("learned", learned);
                    }
                    if let (true, Some(settings)) = (needs_settings, &settings) {
                        run = run.needing(SETTINGS, settings);
                    }
                    let run = plan.add_weighted(run, effort);
                    if arm == models::LEARNED {
                        learned = Some(run);
                    }
                }
            }
        }
        if ask.tier != Tier::Quick && !setting.sets.contains(&ImageSet::Mnist) {
            plan.data.push(DataUse { set: "MNIST".into(), source: DataSource::Absent });
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        if run.kind == SETTINGS {
            let candidates: Candidates = run.params()?;
            let (x, y) = table(&candidates.data.load(context.data(), candidates.train_images)?.train)?;
            return candidates.run(&x, &y, |done, all| context.progress(done, all, ""));
        }
        let mut params: Params = run.params()?;
        if let Ok(settings) = context.needed(SETTINGS) {
            params.model = params.model.with(&Chosen::of(|name| settings.metric(name))?);
        }
        let splits = params.data.load(context.data(), params.train_images)?;
        let ((x, y), (test_x, test_y)) = (table(&splits.train)?, table(&splits.test)?);
        let nodes = match params.model {
            Model::RandomShape(_) => context.needed("learned")?.metric("nodes_per_tree")?,
            _ => 0.0,
        };
        let started = Instant::now();
        let fitted = params.model.fit(x.view(), y.view(), run.seed, nodes)?;
        context.measured("fit_seconds", started.elapsed().as_secs_f64())?;
        let started = Instant::now();
        let layers = fitted.predict(test_x.view())?;
        context.measured("predict_us_a_row", 1e6 * started.elapsed().as_secs_f64() / test_y.len() as f64)?;
        let mean = x.mean_axis(Axis(0)).unwrap_or_default();
        let mut metrics = fitted.metrics(&layers, test_x.view(), test_y.view(), mean.view())?;
        if let (Fitted::Soft(forest), models::LEARNED, 0) = (&fitted, params.arm.as_str(), run.seed) {
            let picture = forest.tree_svg(0, &forest::Drawing::default())?;
            context.save_artifact("tree.svg", |path| Ok(std::fs::write(path, &picture)?))?;
        }
        metrics.insert("train_images".into(), y.len() as f64);
        Ok(metrics)
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(&setting(ask)?, results)
    }
}

/// Images as rows of pixels in `[0, 1]`, and labels.
fn table(set: &Dataset) -> anyhow::Result<(Array2<f32>, Array1<usize>)> {
    let pixels: Vec<f32> = set.pixels().iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
    let labels: Array1<usize> = set.targets().iter().map(|label| *label as usize).collect();
    let columns = pixels.len() / labels.len();
    Ok((Array2::from_shape_vec((labels.len(), columns), pixels)?, labels))
}
