//! The models that are compared.

use super::Setting;
use super::held_out::Chosen;
use crate::Metrics;
use forest::{
    ClassVector, DeepForest, DeepForestParams, Evaluation, Forest, HardForest, HardForestParams, HardKind, LeafModel,
    Leafness, Mix, Regularisers, Scaling, SoftForest, SoftForestParams,
};
use ndarray::{Array2, ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

/// A model with its settings; the seed comes from the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Model {
    /// One layer of soft trees.
    Soft(Box<SoftForestParams>),
    /// The same with random shapes of about as many nodes as the learned ones have.
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
pub(super) const LINEAR: &str = "a linear model";
pub(super) const FEW_HARD: &str = "15 hard trees";
pub(super) const HARD_CASCADE: &str = "up to 2 layers of hard trees";
pub(super) const SOFT_CASCADE: &str = "up to 2 layers of 15 soft trees";

/// A fitted model.
pub(super) enum Fitted {
    Soft(Box<SoftForest>),
    Hard(HardForest),
    /// With its number of folds, as many copies of every forest.
    Cascade(DeepForest, usize),
}

/// Rows that are explained.
const EXPLAINED: usize = 200;
/// Features a gate that an explanation names, and columns in all that are masked because of it.
const TERMS: usize = 10;
const MASKED: usize = 20;

/// One layer of soft trees, which pay `size` for every node.
pub(super) fn soft(train_images: usize, trees: usize, leafness: Leafness, size: f32) -> SoftForestParams {
    SoftForestParams {
        trees,
        leafness,
        scaling: Scaling::Centre,
        batch: if train_images > 20_000 { 256 } else { 128 },
        regularisers: Regularisers { size, ..Regularisers::default() },
        ..SoftForestParams::default()
    }
}

/// A tree grown greedily, whose leaves hold at least so many rows.
pub(super) fn greedy(min_samples_leaf: usize) -> HardForestParams {
    HardForestParams { trees: 1, kind: HardKind::Greedy, min_samples_leaf, ..HardForestParams::default() }
}

/// The learned shape starts from gates that are leaves as likely as not.
pub(super) const UNDECIDED: Leafness = Leafness::Logit { init: 0.0 };

/// The arms of a tier; the learned shape comes first because the random one needs its size.
pub(super) fn arms(setting: &Setting) -> Vec<(&'static str, Model)> {
    let soft = |trees, leafness, size| Box::new(soft(setting.train_images, trees, leafness, size));
    let learned = soft(15, UNDECIDED, 1e-3);
    // A tree of one node, whose response is linear in the pixels: no gate at all.
    let linear =
        SoftForestParams { mix: Mix::Logits, leaf: LeafModel::Linear, ..*soft(1, Leafness::Random { nodes: 1 }, 0.0) };
    let random_forest = HardForestParams { trees: setting.hard_trees, ..HardForestParams::default() };
    // At most two layers, as in the paper's comparison; both are grown, and the second is dropped unless it gains out of fold.
    let two_layers = |forest, class_vector| {
        let forests = vec![forest];
        Model::Cascade(Box::new(DeepForestParams {
            max_layers: 2,
            class_vector,
            forests,
            ..DeepForestParams::default()
        }))
    };
    let mut arms = vec![
        (LEARNED, Model::Soft(learned.clone())),
        (FIXED, Model::Soft(soft(15, Leafness::Fixed, 0.0))),
        (RANDOM, Model::RandomShape(soft(15, Leafness::Fixed, 0.0))),
        (ONE_SOFT, Model::Soft(soft(1, Leafness::Fixed, 0.0))),
        (LINEAR, Model::Soft(Box::new(linear))),
        (ONE_GREEDY, Model::Hard(greedy(1))),
        (FEW_HARD, Model::Hard(HardForestParams { trees: 15, ..HardForestParams::default() })),
        // Votes of single trees, by the hundred, would be most of what the second layer sees.
        (HARD_CASCADE, two_layers(Forest::Hard(random_forest), ClassVector::PerForest)),
    ];
    if setting.soft_cascade {
        arms.push((SOFT_CASCADE, two_layers(Forest::Soft(learned), ClassVector::PerTree)));
    }
    arms
}

impl Model {
    /// Whether held-out rows choose its settings.
    pub(super) fn is_chosen(&self) -> bool {
        self.with(&Chosen { size: -1.0, min_samples_leaf: usize::MAX }) != *self
    }

    /// The same with what held-out rows chose: the price of a node where a shape is learned, the rows of a leaf where a single
    /// tree is grown.
    pub(super) fn with(&self, chosen: &Chosen) -> Self {
        let priced = |params: &mut SoftForestParams| {
            if params.leafness == UNDECIDED {
                params.regularisers.size = chosen.size;
            }
        };
        let mut model = self.clone();
        match &mut model {
            Self::Soft(params) => priced(params),
            Self::RandomShape(_) => {}
            Self::Hard(params) if params.kind == HardKind::Greedy => params.min_samples_leaf = chosen.min_samples_leaf,
            Self::Hard(_) => {}
            Self::Cascade(params) => {
                for forest in &mut params.forests {
                    if let Forest::Soft(params) = forest {
                        priced(params);
                    }
                }
            }
        }
        model
    }

    /// Whether several layers are grown.
    pub(super) fn is_cascade(&self) -> bool {
        matches!(self, Self::Cascade(_))
    }

    /// Seconds on one core for so many training rows, roughly.
    pub(super) fn effort(&self, rows: usize) -> f64 {
        let soft = |params: &SoftForestParams| 0.5 + 0.3 * params.trees as f64;
        let hard = |params: &HardForestParams| match params.kind {
            HardKind::Greedy => 1.2 * params.trees as f64,
            _ => 0.04 * params.trees as f64,
        };
        let of_5000 = match self {
            Self::Soft(params) => soft(params),
            Self::RandomShape(params) => 0.5 * soft(params),
            Self::Hard(params) => hard(params),
            // Two layers of three copies each. Hard ones see two thirds of the rows; soft ones are fitted on all at once.
            Self::Cascade(params) => {
                let forest = |forest: &Forest| match forest {
                    Forest::Soft(soft_params) => 6.5 * soft(soft_params),
                    Forest::Hard(hard_params) => 4.0 * hard(hard_params),
                };
                params.forests.iter().map(forest).sum::<f64>()
            }
        };
        of_5000 * rows as f64 / 5000.0
    }

    /// Fits with this seed; a random shape has about `nodes` nodes a tree.
    pub(super) fn fit(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        seed: u64,
        nodes: f64,
    ) -> forest::Result<Fitted> {
        let soft = |params: &SoftForestParams, leafness| SoftForestParams { seed, leafness, ..params.clone() };
        Ok(match self {
            Self::Soft(params) => Fitted::Soft(Box::new(soft(params, params.leafness).fit(x, y)?)),
            Self::RandomShape(params) => {
                let leafness = Leafness::Random { nodes: nearest_odd(nodes) };
                Fitted::Soft(Box::new(soft(params, leafness).fit(x, y)?))
            }
            Self::Hard(params) => Fitted::Hard(HardForestParams { seed, ..params.clone() }.fit(x, y)?),
            Self::Cascade(params) => {
                let mut params = DeepForestParams { seed, ..(**params).clone() };
                for forest in &mut params.forests {
                    match forest {
                        Forest::Soft(soft) => soft.seed = seed,
                        Forest::Hard(hard) => hard.seed = seed,
                    }
                }
                Fitted::Cascade(params.fit(x, y)?, params.folds)
            }
        })
    }
}

/// The size of a tree nearest to `nodes`: every gate has two children.
fn nearest_odd(nodes: f64) -> usize {
    2 * ((nodes - 1.0) / 2.0).round().max(0.0) as usize + 1
}

impl Fitted {
    /// Class probabilities `[rows, classes]` of every layer, the first one first; one table for what has no layers.
    pub(super) fn predict(&self, x: ArrayView2<f32>) -> forest::Result<Vec<Array2<f32>>> {
        Ok(match self {
            Self::Soft(forest) => vec![forest.predict_proba(x)?],
            Self::Hard(forest) => vec![forest.predict_proba(x)?],
            Self::Cascade(forest, _) => forest.predict_layers(x)?,
        })
    }

    /// Accuracy (%) of its last word.
    pub(super) fn accuracy(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> forest::Result<f64> {
        Ok(self.predict(x)?.last().map_or(0.0, |votes| accuracy(votes, y)))
    }

    /// Gates and leaves, of a mean tree; 0 for cascades.
    pub(super) fn nodes_per_tree(&self) -> f64 {
        match self {
            Self::Soft(forest) => {
                let size = forest.complexity();
                (size.gates + size.leaves) as f64 / size.trees as f64
            }
            Self::Hard(forest) => forest.nodes() as f64 / forest.trees() as f64,
            Self::Cascade(..) => 0.0,
        }
    }

    /// Accuracy of the layers' predictions on the test rows, and size; for soft trees also accuracy of one path a tree, and
    /// how far explanations hold. `mean` is that of the training rows.
    pub(super) fn metrics(
        &self,
        layers: &[Array2<f32>],
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        mean: ArrayView1<f32>,
    ) -> anyhow::Result<Metrics> {
        let mut metrics = Metrics::new();
        let mut put = |name: &str, value: f64| {
            metrics.insert(name.into(), value);
        };
        let accuracies: Vec<f64> = layers.iter().map(|votes| accuracy(votes, y)).collect();
        if let Some(last) = accuracies.last() {
            put("test_accuracy", *last);
        }
        match self {
            Self::Soft(forest) => {
                let size = forest.complexity();
                put("scalars", size.scalars as f64);
                put("bytes", size.bytes as f64);
                put("nodes_per_tree", self.nodes_per_tree());
                put("one_path_accuracy", accuracy(&forest.evaluate(x, Evaluation::Hard)?.output, y));
                let (mass, gap) = explained(forest, x, mean)?;
                put("explained_mass", mass);
                put("deletion_gap", gap);
            }
            Self::Hard(forest) => {
                put("scalars", forest.scalars() as f64);
                put("nodes_per_tree", self.nodes_per_tree());
            }
            Self::Cascade(forest, folds) => {
                put("scalars", forest.scalars() as f64);
                put("least_scalars_a_fold", forest.least_scalars() as f64 / *folds as f64);
                put("bytes", forest.to_bytes()?.len() as f64);
                put("layers", forest.layers() as f64);
                for (layer, accuracy) in accuracies.iter().enumerate() {
                    put(&format!("layer{}_accuracy", layer + 1), *accuracy);
                }
                // Of every layer that was grown, kept or not.
                for (layer, score) in forest.layer_scores().iter().enumerate() {
                    put(&format!("layer{}_out_of_fold", layer + 1), 100.0 * score);
                }
            }
        }
        Ok(metrics)
    }
}

/// Percentage of rows whose label gets the most of the votes, the first class among equals.
fn accuracy(votes: &Array2<f32>, y: ArrayView1<usize>) -> f64 {
    let best = |row: ArrayView1<f32>| {
        let better = |best: (usize, f32), (class, vote): (usize, &f32)| {
            if *vote > best.1 { (class, *vote) } else { best }
        };
        row.iter().enumerate().fold((0, f32::MIN), better).0
    };
    let hits = votes.rows().into_iter().zip(y).filter(|(row, label)| best(*row) == **label).count();
    100.0 * hits as f64 / y.len() as f64
}

/// Of the explanations of test rows that are spread over all: the mass that the likeliest path of each tree carries, and by how
/// many points more the class's probability falls when the columns named first are set to their mean than when those others are
/// that are farthest from theirs: what is at its mean already, as the rim of most pictures is, could not be missed.
fn explained(forest: &SoftForest, x: ArrayView2<f32>, mean: ArrayView1<f32>) -> forest::Result<(f64, f64)> {
    let count = x.nrows().min(EXPLAINED);
    let (mut mass, mut gap) = (0.0, 0.0);
    let mut probabilities = vec![0.0; forest.classes()];
    let spread = (x.nrows() / count.max(1)).max(1);
    for row in x.rows().into_iter().step_by(spread).take(count) {
        let row = row.to_vec();
        let explanation = forest.explain(&row, TERMS)?;
        mass += explanation.explained_mass;
        let mut named = explanation.columns();
        named.truncate(MASKED);
        let mut others: Vec<usize> = (0..row.len()).filter(|column| !named.contains(column)).collect();
        let moved = |&column: &usize| (row[column] - mean[column]).abs();
        others.sort_by(|a, b| moved(b).total_cmp(&moved(a)));
        others.truncate(named.len());
        let mut without = |columns: &[usize]| -> forest::Result<f64> {
            let mut masked = row.clone();
            columns.iter().for_each(|&column| masked[column] = mean[column]);
            forest.predict_one(&masked, Evaluation::Exact, &mut probabilities)?;
            Ok(f64::from(probabilities[explanation.class]))
        };
        gap += without(&others)? - without(&named)?;
    }
    Ok((mass / count as f64, 100.0 * gap / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forest::synthetic::{blobs, oblique_xor};
    use ndarray::{Axis, aview1};

    #[test]
    fn a_random_shape_gets_the_nearest_size_that_a_tree_can_have() {
        for (nodes, odd) in [(1.0, 1), (34.7, 35), (35.9, 35), (36.1, 37), (127.0, 127)] {
            assert_eq!(nearest_odd(nodes), odd);
        }
    }

    #[test]
    fn columns_that_decide_are_named_and_missed_when_masked() -> anyhow::Result<()> {
        // Two of the sixty columns carry the label.
        let (x, y) = blobs(400, 60, 2, 4.0, 1);
        let params = SoftForestParams {
            epochs: 20,
            batch: 32,
            optimiser: forest::Optimiser { rate: 0.05, ..forest::Optimiser::default() },
            ..SoftForestParams::default()
        };
        let forest = params.fit(x.view(), aview1(&y))?;
        let mean = x.mean_axis(Axis(0)).unwrap_or_default();
        let (mass, gap) = explained(&forest, x.view(), mean.view())?;
        assert!((0.0..=1.0).contains(&mass), "{mass}");
        assert!(gap > 1.0, "{gap}");
        Ok(())
    }

    /// A second layer that is dropped leaves its out-of-fold score behind, and sizes count every fold's copy.
    #[test]
    fn a_cascade_reports_every_layer_it_grew() -> anyhow::Result<()> {
        let (x, y) = oblique_xor(120, 4, 0.6, 1);
        let forest = Forest::Hard(HardForestParams { trees: 3, ..HardForestParams::default() });
        let params = DeepForestParams { max_layers: 2, forests: vec![forest], ..DeepForestParams::default() };
        let fitted = Model::Cascade(Box::new(params)).fit(x.view(), aview1(&y), 0, 0.0)?;
        let (layers, mean) = (fitted.predict(x.view())?, x.row(0));
        let metrics = fitted.metrics(&layers, x.view(), aview1(&y), mean)?;
        assert_eq!(metrics["layers"], layers.len() as f64);
        assert!((0.0..=100.0).contains(&metrics["layer2_out_of_fold"]));
        // Every leaf of a tree that is grown to the end has one class, whose number is stored and not two shares.
        assert!(3.0 * metrics["least_scalars_a_fold"] < metrics["scalars"]);
        assert!(metrics["bytes"] > 4.0 * metrics["scalars"]);
        assert_eq!(metrics["test_accuracy"], metrics[&format!("layer{}_accuracy", layers.len())]);
        Ok(())
    }
}
