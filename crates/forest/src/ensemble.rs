//! What classifier and regressor share: encoder, trees, kernel, training phases, files.

use std::path::Path;

use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;
use crate::error::{ForestError, Result};
use crate::kernel::{Evaluation, Folding, Kernel, Prediction};
use crate::params::{LeafModel, LeafUpdate, SoftForestParams, require};
use crate::store;
use crate::topology::Topology;
use crate::train::{self, Epoch, Plan, Targets, TrainingSet};
use crate::tree::Tree;

#[derive(Clone, Debug)]
pub(crate) struct Ensemble {
    pub(crate) params: SoftForestParams,
    pub(crate) encoder: Encoder,
    pub(crate) trees: Vec<Tree>,
    pub(crate) outputs: usize,
    /// Scale and offset of each regression output; `None` for classification.
    pub(crate) target: Option<Vec<(f32, f32)>>,
    pub(crate) inverse_temperature: f32,
    pub(crate) hardened: bool,
    /// That of the trees just before they were hardened, if they were.
    pub(crate) ambiguity: Option<f32>,
    pub(crate) history: Vec<Epoch>,
    pub(crate) kernel: Kernel,
}

/// Rows with their weights, ready to learn from.
pub(crate) struct Samples<'a> {
    pub(crate) x: ArrayView2<'a, f32>,
    pub(crate) targets: Targets,
    pub(crate) weights: Vec<f32>,
    pub(crate) tree_weights: Option<Array2<u8>>,
    /// Number of forests that the trees make, as many trees each: the joint loss is that of each forest's mean.
    pub(crate) forests: usize,
}

impl Ensemble {
    /// Fits everything: encoder, trees, then the hard shape and its fine-tuning.
    pub(crate) fn fit(
        params: &SoftForestParams,
        samples: Samples,
        outputs: usize,
        target: Option<Vec<(f32, f32)>>,
    ) -> Result<Self> {
        params.validate()?;
        let encoder = Encoder::fit(samples.x, params)?;
        if let Some(augment) = params.augment {
            require(
                encoder.is_plain() && augment.height.checked_mul(augment.width) == Some(encoder.width()),
                "augment",
                "height x width equal to the number of columns, all numeric and present",
                &augment,
            )?;
        }
        let trees = train::fresh_trees(params, encoder.inputs(), outputs);
        let kernel = Kernel::new(
            &[],
            &Folding {
                encoder: &encoder,
                gate: params.gate,
                inverse_temperature: 1.0,
                mix: params.mix,
                target: target.as_deref(),
            },
        );
        let mut ensemble = Self {
            params: params.clone(),
            encoder,
            trees,
            outputs,
            target,
            inverse_temperature: params.inverse_temperature,
            hardened: !train::learns_shape(params),
            ambiguity: None,
            history: Vec::new(),
            kernel,
        };
        ensemble.learn(samples, true)?;
        Ok(ensemble)
    }

    /// One more pass over new samples, at the configured rate without decay.
    pub(crate) fn partial_fit(&mut self, samples: Samples) -> Result<()> {
        self.learn(samples, false)
    }

    fn learn(&mut self, samples: Samples, whole: bool) -> Result<()> {
        let mut params = self.params.clone();
        if !whole {
            // The closed form is what these rows say alone: of a chunk it would leave nothing of the rows before.
            params.leaf_update = LeafUpdate::Gradient;
        }
        let encoder = self.encoder.clone();
        let expanded = encoder.expand(samples.x)?;
        let set = TrainingSet {
            x: expanded.view(),
            targets: samples.targets,
            weights: samples.weights,
            tree_weights: samples.tree_weights,
            forests: samples.forests,
        };
        let rows = set.x.nrows();
        let first = params.inverse_temperature;
        let last = params.anneal_to.unwrap_or(first);
        let mut plan = Plan {
            epochs: if whole { params.epochs } else { 1 },
            rows: (0..rows).collect(),
            rate_factor: 1.0,
            decay: whole,
            learn_shape: !self.hardened,
            inverse_temperature: if whole { [first, last] } else { [self.inverse_temperature; 2] },
            first_epoch: self.history.len(),
            bag: self.history.len(),
            validate: None,
        };
        if let (true, Some(stop)) = (whole, params.early_stopping) {
            require(rows >= 2, "early_stopping", "at least 2 rows", &rows)?;
            let (training, held) = train::holdout(rows, stop.fraction, params.seed);
            let x = set.x.select(Axis(0), &held);
            let targets = set.targets.select(&held);
            let score = self.scorer(x, targets);
            plan.rows = training;
            plan.validate = Some((stop.patience, Box::new(score)));
        }
        // A copy: training that diverges leaves the model as it was.
        let mut trees = self.trees.clone();
        let mut trained = train::train(&mut trees, &set, &encoder, &params, &plan)?;
        if whole && params.harden && params.epochs > 0 {
            if !self.hardened {
                self.ambiguity = Some(mean_ambiguity(&trees));
                trees = trees.iter().map(Tree::hardened).collect();
                self.hardened = true;
            }
            plan.epochs = params.fine_tune;
            plan.rate_factor = 0.1;
            plan.learn_shape = false;
            plan.inverse_temperature = [trained.inverse_temperature; 2];
            plan.first_epoch = self.history.len() + trained.history.len();
            let tuned = train::train(&mut trees, &set, &encoder, &params, &plan)?;
            trained.history.extend(tuned.history);
        }
        self.inverse_temperature = trained.inverse_temperature;
        self.history.extend(trained.history);
        self.trees = trees;
        self.compile();
        Ok(())
    }

    /// Accuracy, or R^2, of trees on held-out rows.
    fn scorer(&self, x: Array2<f32>, targets: Targets) -> impl Fn(&[Tree], f32) -> Result<f64> + Sync + 'static {
        let encoder = self.encoder.clone();
        let (gate, mix) = (self.params.gate, self.params.mix);
        // Targets are on the training scale here, so values are not scaled back.
        let unit: Option<Vec<(f32, f32)>> = self.target.as_ref().map(|t| vec![(1.0, 0.0); t.len()]);
        move |trees, inverse_temperature| {
            let folding = Folding { encoder: &encoder, gate, inverse_temperature, mix, target: unit.as_deref() };
            let output = Kernel::new(trees, &folding).predict(x.view(), Evaluation::Exact)?.output;
            Ok(match &targets {
                Targets::Classes(labels) => {
                    let hits = output
                        .rows()
                        .into_iter()
                        .zip(labels)
                        .filter(|(row, label)| arg_max(row.iter().copied()) == **label)
                        .count();
                    hits as f64 / labels.len() as f64
                }
                Targets::Values(values) => {
                    let (residual, total) = sums_of_squares(output.view(), values.view());
                    // Without variation there is no R^2, but still a nearest.
                    if total > 0.0 { 1.0 - residual / total } else { -residual }
                }
            })
        }
    }

    /// Makes shapes binary, without further training.
    pub(crate) fn harden(&mut self) {
        if !self.hardened {
            self.ambiguity = self.ambiguity();
            self.trees = self.trees.iter().map(Tree::hardened).collect();
            self.hardened = true;
            self.compile();
        }
    }

    /// Of the trees as they are, or as they were just before they were hardened.
    pub(crate) fn ambiguity(&self) -> Option<f32> {
        if self.hardened { self.ambiguity } else { Some(mean_ambiguity(&self.trees)) }
    }

    pub(crate) fn compile(&mut self) {
        self.kernel = Kernel::new(
            &self.trees,
            &Folding {
                encoder: &self.encoder,
                gate: self.params.gate,
                inverse_temperature: self.inverse_temperature,
                mix: self.params.mix,
                target: self.target.as_deref(),
            },
        );
    }

    pub(crate) fn predict(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<Prediction> {
        let expanded = self.encoder.expand(x)?;
        self.kernel.predict(expanded.view(), evaluation)
    }

    /// One row without building tables; `output` gets the prediction.
    pub(crate) fn predict_one(&self, row: &[f32], evaluation: Evaluation, output: &mut [f32]) -> Result<f32> {
        let table = ArrayView2::from_shape((1, row.len()), row)
            .map_err(|_| ForestError::Width { expected: self.encoder.width(), found: row.len() })?;
        let expanded = self.encoder.expand(table)?;
        let row = expanded.row(0);
        match row.as_slice() {
            Some(row) => self.kernel.predict_one(row, evaluation, output),
            None => self.kernel.predict_one(&row.to_vec(), evaluation, output),
        }
    }

    pub(crate) fn to_bytes(&self, kind: &'static str) -> Result<Vec<u8>> {
        let (stored, numbers) = self.parts();
        store::to_bytes(kind, &stored, &numbers)
    }

    pub(crate) fn from_bytes(kind: &'static str, bytes: &[u8]) -> Result<Self> {
        let (stored, numbers): (Stored, _) = store::from_bytes(kind, bytes)?;
        let mut numbers = store::Numbers(&numbers);
        let ensemble = Self::from_parts(stored, &mut numbers)?;
        numbers.finish()?;
        Ok(ensemble)
    }

    pub(crate) fn load(kind: &'static str, path: &Path) -> Result<Self> {
        Self::from_bytes(kind, &store::read(path)?)
    }

    /// Header and numbers of a file.
    pub(crate) fn parts(&self) -> (Stored, Vec<f32>) {
        let stored = Stored {
            params: self.params.clone(),
            encoder: self.encoder.clone(),
            inputs: self.encoder.inputs(),
            outputs: self.outputs,
            targets: self.target.as_ref().map(Vec::len),
            hardened: self.hardened,
            ambiguity: self.ambiguity,
            history: self.history.clone(),
            trees: self.trees.iter().map(|t| t.topology.clone()).collect(),
        };
        let mut numbers = vec![self.inverse_temperature];
        numbers.extend(self.encoder.mean());
        numbers.extend(self.encoder.inverse_scale());
        for (scale, offset) in self.target.iter().flatten() {
            numbers.extend([scale, offset]);
        }
        for tree in &self.trees {
            for part in [&tree.weights, &tree.bias, &tree.leafness, &tree.responses] {
                numbers.extend(part);
            }
            // The slopes of nodes where nothing stops say nothing.
            for (node, _) in tree.stops().into_iter().enumerate().filter(|(_, stops)| *stops) {
                numbers.extend(tree.slope(node));
            }
        }
        (stored, numbers)
    }

    pub(crate) fn from_parts(stored: Stored, numbers: &mut store::Numbers) -> Result<Self> {
        let malformed = |what: &str| ForestError::Malformed(what.to_owned());
        stored.params.validate()?;
        let inverse_temperature = numbers.take(1)?[0];
        if !(inverse_temperature.is_finite() && inverse_temperature > 0.0) {
            return Err(malformed("inverse temperature is not a positive number"));
        }
        let (inputs, outputs) = (stored.inputs, stored.outputs);
        if inputs == 0 || outputs == 0 || stored.trees.is_empty() {
            return Err(malformed("no inputs, no outputs, or no trees"));
        }
        let (mean, scale) = (numbers.take(inputs)?, numbers.take(inputs)?);
        let encoder =
            stored.encoder.with_scaling(mean, scale).ok_or_else(|| malformed("scaling does not fit the columns"))?;
        let target = match stored.targets {
            None => None,
            Some(count) if count == outputs => {
                Some((0..count).map(|_| Ok((numbers.take(1)?[0], numbers.take(1)?[0]))).collect::<Result<Vec<_>>>()?)
            }
            Some(_) => return Err(malformed("target scales do not fit the outputs")),
        };
        if stored.ambiguity.is_some_and(|part| !(0.0..=1.0).contains(&part)) {
            return Err(malformed("ambiguity is no part of a whole"));
        }
        let mut trees = Vec::with_capacity(stored.trees.len());
        for topology in stored.trees {
            let linear = stored.params.leaf == LeafModel::Linear;
            trees.push(read_tree(topology, inputs, outputs, linear, numbers)?);
        }
        let kernel = Kernel::new(
            &trees,
            &Folding {
                encoder: &encoder,
                gate: stored.params.gate,
                inverse_temperature,
                mix: stored.params.mix,
                target: target.as_deref(),
            },
        );
        Ok(Self {
            params: stored.params,
            encoder,
            trees,
            outputs,
            target,
            inverse_temperature,
            hardened: stored.hardened,
            ambiguity: stored.ambiguity,
            history: stored.history,
            kernel,
        })
    }
}

/// A file's header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    params: SoftForestParams,
    encoder: Encoder,
    inputs: usize,
    outputs: usize,
    targets: Option<usize>,
    hardened: bool,
    /// Not in files of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ambiguity: Option<f32>,
    history: Vec<Epoch>,
    trees: Vec<Topology>,
}

fn mean_ambiguity(trees: &[Tree]) -> f32 {
    trees.iter().map(Tree::ambiguity).sum::<f32>() / trees.len() as f32
}

fn read_tree(
    topology: Topology,
    inputs: usize,
    outputs: usize,
    linear: bool,
    numbers: &mut store::Numbers,
) -> Result<Tree> {
    let gates = topology.gates().len();
    let too_big = || ForestError::Malformed("a tree is larger than memory".to_owned());
    let weights = numbers.take(gates.checked_mul(inputs).ok_or_else(too_big)?)?;
    let bias = numbers.take(gates)?;
    let leafness = numbers.take(gates)?;
    let responses = numbers.take(topology.nodes().checked_mul(outputs).ok_or_else(too_big)?)?;
    let mut tree = Tree::from_parts(topology, inputs, outputs, weights, bias, leafness, responses, Vec::new())
        .ok_or_else(|| ForestError::Malformed("a tree's numbers are out of range".to_owned()))?;
    if linear {
        let width = outputs * inputs;
        for stops in tree.stops() {
            let slope = if stops { numbers.take(width)? } else { vec![0.0; width] };
            if !slope.iter().all(|v| v.is_finite()) {
                return Err(ForestError::Malformed("a slope is not a finite number".to_owned()));
            }
            tree.slopes.extend(slope);
        }
    }
    Ok(tree)
}

/// Position of the largest value; the first one among equals.
pub(crate) fn arg_max(values: impl Iterator<Item = f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// 1 - residual / total sum of squares, over all outputs; 0 when the targets do not vary.
pub(crate) fn r_squared(predicted: ArrayView2<f32>, values: ArrayView2<f32>) -> f64 {
    let (residual, total) = sums_of_squares(predicted, values);
    if total > 0.0 { 1.0 - residual / total } else { 0.0 }
}

/// Residual and total, over all outputs.
fn sums_of_squares(predicted: ArrayView2<f32>, values: ArrayView2<f32>) -> (f64, f64) {
    let mut residual = 0.0;
    let mut total = 0.0;
    for (p, v) in predicted.columns().into_iter().zip(values.columns()) {
        let mean = v.iter().map(|&v| f64::from(v)).sum::<f64>() / v.len().max(1) as f64;
        for (&p, &v) in p.iter().zip(v) {
            residual += (f64::from(p) - f64::from(v)).powi(2);
            total += (f64::from(v) - mean).powi(2);
        }
    }
    (residual, total)
}
