//! The models that are compared.

use super::Setting;
use crate::Metrics;
use forest::{
    DeepForest, DeepForestParams, Forest, HardForest, HardForestParams, HardKind, Leafness, Regularisers, Scaling,
    SoftForest, SoftForestParams,
};
use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

/// A model with its settings; the seed comes from the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Model {
    /// One layer of soft trees.
    Soft(Box<SoftForestParams>),
    /// The same with random shapes of as many nodes as the learned ones have.
    RandomShape(Box<SoftForestParams>),
    /// One layer of hard trees.
    Hard(HardForestParams),
    /// A cascade.
    Cascade(Box<DeepForestParams>),
}

pub(super) const LEARNED: &str = "15 soft trees, learned shape";
pub(super) const FIXED: &str = "15 soft trees, full shape";
pub(super) const RANDOM: &str = "15 soft trees, random shape";
pub(super) const ONE_SOFT: &str = "1 soft tree, full shape";
pub(super) const ONE_GREEDY: &str = "1 greedy tree";
pub(super) const HARD_CASCADE: &str = "up to 2 layers of hard trees";
pub(super) const SOFT_CASCADE: &str = "up to 2 layers of 15 soft trees";

/// A fitted model.
pub(super) enum Fitted {
    Soft(Box<SoftForest>),
    Hard(HardForest),
    Cascade(DeepForest),
}

/// The arms of a tier; the learned shape comes first because the random one needs its size.
pub(super) fn arms(setting: &Setting) -> Vec<(&'static str, Model)> {
    let soft = |trees, leafness, size| {
        let params = SoftForestParams {
            trees,
            leafness,
            scaling: Scaling::Centre,
            batch: if setting.train_images > 20_000 { 256 } else { 128 },
            regularisers: Regularisers { size, ..Regularisers::default() },
            ..SoftForestParams::default()
        };
        Box::new(params)
    };
    let learned = soft(15, Leafness::Logit { init: 0.0 }, 1e-3);
    let random_forest = HardForestParams { trees: setting.hard_trees, ..HardForestParams::default() };
    // At most two layers, as in the paper's comparison; the second is dropped unless it gains out of fold.
    let two_layers = |forest| {
        let params = DeepForestParams { max_layers: 2, forests: vec![forest], ..DeepForestParams::default() };
        Model::Cascade(Box::new(params))
    };
    let mut arms = vec![
        (LEARNED, Model::Soft(learned.clone())),
        (FIXED, Model::Soft(soft(15, Leafness::Fixed, 0.0))),
        (RANDOM, Model::RandomShape(soft(15, Leafness::Fixed, 0.0))),
        (ONE_SOFT, Model::Soft(soft(1, Leafness::Fixed, 0.0))),
        (ONE_GREEDY, Model::Hard(HardForestParams { trees: 1, kind: HardKind::Greedy, ..HardForestParams::default() })),
        (HARD_CASCADE, two_layers(Forest::Hard(random_forest))),
    ];
    if setting.soft_cascade {
        arms.push((SOFT_CASCADE, two_layers(Forest::Soft(learned))));
    }
    arms
}

impl Model {
    /// Relative duration.
    pub(super) fn effort(&self) -> f64 {
        match self {
            Self::Soft(params) | Self::RandomShape(params) => params.trees as f64,
            Self::Hard(params) => params.trees as f64 / 5.0,
            Self::Cascade(params) => match &params.forests[..] {
                [Forest::Soft(soft)] => 8.0 * soft.trees as f64,
                _ => 30.0,
            },
        }
    }

    /// Fits with this seed; `nodes` a tree for a random shape.
    pub(super) fn fit(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        seed: u64,
        nodes: usize,
    ) -> forest::Result<Fitted> {
        let soft = |params: &SoftForestParams, leafness| SoftForestParams { seed, leafness, ..params.clone() };
        Ok(match self {
            Self::Soft(params) => Fitted::Soft(Box::new(soft(params, params.leafness).fit(x, y)?)),
            Self::RandomShape(params) => Fitted::Soft(Box::new(soft(params, Leafness::Random { nodes }).fit(x, y)?)),
            Self::Hard(params) => Fitted::Hard(HardForestParams { seed, ..params.clone() }.fit(x, y)?),
            Self::Cascade(params) => {
                let mut params = DeepForestParams { seed, ..(**params).clone() };
                for forest in &mut params.forests {
                    match forest {
                        Forest::Soft(soft) => soft.seed = seed,
                        Forest::Hard(hard) => hard.seed = seed,
                    }
                }
                Fitted::Cascade(params.fit(x, y)?)
            }
        })
    }
}

impl Fitted {
    /// Accuracy and size, and for soft trees how much of a decision one path a tree explains.
    pub(super) fn metrics(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> anyhow::Result<Metrics> {
        let mut metrics = Metrics::new();
        let mut put = |name: &str, value: f64| {
            metrics.insert(name.into(), value);
        };
        match self {
            Self::Soft(forest) => {
                let size = forest.complexity();
                put("test_accuracy", 100.0 * forest.score(x, y)?);
                put("scalars", size.scalars as f64);
                put("nodes_per_tree", (size.gates + size.leaves) as f64 / size.trees as f64);
                put("explained_mass", explained_mass(forest, x)?);
            }
            Self::Hard(forest) => {
                put("test_accuracy", 100.0 * forest.score(x, y)?);
                put("scalars", forest.scalars() as f64);
                put("nodes_per_tree", forest.nodes() as f64 / forest.trees() as f64);
            }
            Self::Cascade(forest) => {
                put("scalars", forest.scalars() as f64);
                put("layers", forest.layers() as f64);
                for (layer, votes) in forest.predict_layers(x)?.iter().enumerate() {
                    let best = |row: ndarray::ArrayView1<f32>| {
                        let better = |best: (usize, f32), (class, vote): (usize, &f32)| {
                            if *vote > best.1 { (class, *vote) } else { best }
                        };
                        row.iter().enumerate().fold((0, f32::MIN), better).0
                    };
                    let hits = votes.rows().into_iter().zip(y).filter(|(row, label)| best(*row) == **label).count();
                    let accuracy = 100.0 * hits as f64 / y.len() as f64;
                    put(&format!("layer{}_accuracy", layer + 1), accuracy);
                    put("test_accuracy", accuracy);
                }
            }
        }
        Ok(metrics)
    }
}

/// The mass that the likeliest path of each tree carries, averaged over the first test rows.
fn explained_mass(forest: &SoftForest, x: ArrayView2<f32>) -> forest::Result<f64> {
    let rows = x.nrows().min(200);
    let mass = |row: usize| forest.explain(&x.row(row).to_vec(), 0).map(|explanation| explanation.explained_mass);
    let all = (0..rows).map(mass).collect::<forest::Result<Vec<f64>>>()?;
    Ok(all.iter().sum::<f64>() / rows as f64)
}
