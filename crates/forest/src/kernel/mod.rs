//! Prediction without a framework: trees flattened into contiguous arrays, scaling and temperature folded into the gates, but
//! for means far from 0, which are taken from the rows.
//!
//! Three ways through a tree. *Exact* evaluates every gate as one matrix product per block of samples, then mixes the nodes;
//! *in integers* it does the same with rounded inputs and weights and bounds what rounding changed.
//! *Skipping* walks only where a sample's mass goes: a child that would get less than a chosen mass hands it to its sibling,
//! and the mass moved that way bounds the error. It too can go in integers.

mod dense;
mod dot;
mod integer;
mod skip;

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::encoder::Encoder;
use crate::error::{ForestError, Result};
use crate::gate::Gate;
use crate::params::Mix;
use crate::simd::{sigmoid, smooth_step};
use crate::topology::GateNode;
use crate::tree::{Tree, softmax_rows};

/// Samples of one block: 4 AVX-512 registers, 8 AVX2 ones.
pub(crate) const LANES: usize = 64;
/// Gates of one tile of the matrix product.
pub(crate) const TILE: usize = 6;

/// How much of each tree a prediction evaluates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Evaluation {
    /// Everything.
    #[default]
    Exact,
    /// Everything, with inputs rounded to 8 bits and weights to 16, summed exactly: for batches, faster than
    /// [`Exact`](Self::Exact) where the machine has integer dot products. Not for linear leaves.
    Integer,
    /// A child that would receive less than this mass of a sample is skipped, and its mass goes to its sibling.
    Skip {
        /// Smallest mass worth following, in [0, 1].
        below: f32,
    },
    /// [`Skip`](Self::Skip) with the gates' scores as in [`Integer`](Self::Integer): the fastest for single rows, and for
    /// batches where a threshold spares most gates. Not for linear leaves.
    IntegerSkip {
        /// Smallest mass worth following, in [0, 1]; at 1 only the likelier child is.
        below: f32,
    },
    /// At every gate only the likelier child: one path a tree.
    Hard,
}

impl Evaluation {
    fn threshold(self) -> f32 {
        match self {
            Self::Exact | Self::Integer => 0.0,
            Self::Skip { below } | Self::IntegerSkip { below } => below,
            Self::Hard => f32::INFINITY,
        }
    }

    fn in_integers(self) -> bool {
        matches!(self, Self::Integer | Self::IntegerSkip { .. })
    }
}

/// Predictions with a bound on what skipping changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// `[rows, outputs]`: class probabilities, or values for regression.
    pub output: Array2<f32>,
    /// Per row, an upper bound on the distance to the exact prediction: of the sum of absolute differences of the class
    /// probabilities, or of the largest absolute difference of the values. 0 for exact evaluation. Rounding (about 1e-6) is
    /// not counted.
    pub bounds: Vec<f32>,
}

/// Inputs whose training mean is so many of their training deviations from 0 are centred before the gates see them: folded
/// into the bias, the mean would leave of each score what single precision tells apart at its own size.
const FAR: f32 = 16.0;

/// A forest compiled for prediction.
#[derive(Clone, Debug)]
pub struct Kernel {
    inputs: usize,
    outputs: usize,
    gate: Gate,
    /// Softmax of each tree's mixture.
    softmax: bool,
    /// Whether node values are distributions already.
    mixes_distributions: bool,
    /// What is taken from each input first; empty for nothing.
    centre: Vec<f32>,
    /// `[gates, inputs]`, temperature and scaling folded in; also cut into tiles `[inputs][TILE]`.
    weights: Vec<f32>,
    tiles: Vec<f32>,
    bias: Vec<f32>,
    trees: Vec<KernelTree>,
    /// `None` with linear leaves.
    integer: Option<integer::Integer>,
}

#[derive(Clone, Debug)]
struct KernelTree {
    first_gate: usize,
    gates: Vec<GateNode>,
    leafness: Vec<f32>,
    /// Gate number of each node, or `LEAF`.
    gate_of: Vec<u32>,
    /// `[nodes, outputs]`; unused by linear leaves.
    values: Vec<f32>,
    /// With linear leaves, the first of each node's rows of `weights` and `bias`; empty otherwise.
    rows_of: Vec<Option<usize>>,
    /// Largest distance between two nodes' values in one output.
    range: f32,
}

const LEAF: u32 = u32::MAX;

/// What one thread needs, each part once something needs it.
#[derive(Default)]
struct Buffers {
    centred: Vec<f32>,
    scratch: Option<dense::Scratch>,
    walk: skip::Walk,
    rounded: integer::Rounded,
}

/// What the kernel has to know besides the trees.
pub(crate) struct Folding<'a> {
    pub(crate) encoder: &'a Encoder,
    pub(crate) gate: Gate,
    pub(crate) inverse_temperature: f32,
    pub(crate) mix: Mix,
    /// `None` for classification; else scale and offset of each output.
    pub(crate) target: Option<&'a [(f32, f32)]>,
}

impl Folding<'_> {
    /// What is taken from each input before the gates see it; empty for nothing.
    fn centre(&self) -> Vec<f32> {
        let scaling = self.encoder.mean().iter().zip(self.encoder.inverse_scale());
        let centre: Vec<f32> =
            scaling.map(|(&mean, &scale)| if (mean * scale).abs() > FAR { mean } else { 0.0 }).collect();
        if centre.iter().all(|&c| c == 0.0) { Vec::new() } else { centre }
    }

    /// Mean and inverse scale of each input, the mean less what is taken before: what is folded into gates and leaves.
    fn scaling(&self, centre: &[f32]) -> Vec<(f32, f32)> {
        let scaling = self.encoder.mean().iter().copied().zip(self.encoder.inverse_scale().iter().copied());
        let centre = centre.iter().copied().chain(std::iter::repeat(0.0));
        scaling.zip(centre).map(|((mean, scale), centre)| (mean - centre, scale)).collect()
    }
}

impl Kernel {
    pub(crate) fn new(trees: &[Tree], folding: &Folding) -> Self {
        let inputs = folding.encoder.inputs();
        let outputs = trees.first().map_or(0, |t| t.outputs);
        let classification = folding.target.is_none();
        let centre = folding.centre();
        let scaling = folding.scaling(&centre);
        let mut kernel = Self {
            inputs,
            outputs,
            gate: folding.gate,
            softmax: classification && folding.mix == Mix::Logits,
            mixes_distributions: classification && folding.mix == Mix::Probabilities,
            centre,
            weights: Vec::new(),
            tiles: Vec::new(),
            bias: Vec::new(),
            trees: Vec::with_capacity(trees.len()),
            integer: None,
        };
        // A smooth step of width w is the one of width 1 at z / w.
        let scale = match folding.gate {
            Gate::Sigmoid => folding.inverse_temperature,
            Gate::SmoothStep { width } => folding.inverse_temperature / width,
        };
        for tree in trees {
            let first_gate = kernel.bias.len();
            for (gate, &bias) in tree.bias.iter().enumerate() {
                let mut offset = f64::from(bias);
                for (&w, &(m, s)) in tree.gate_weights(gate).iter().zip(&scaling) {
                    kernel.weights.push(scale * w * s);
                    offset -= f64::from(w) * f64::from(s) * f64::from(m);
                }
                kernel.bias.push((f64::from(scale) * offset) as f32);
            }
            let mut values = if kernel.mixes_distributions {
                softmax_rows(&tree.responses, outputs)
            } else {
                tree.responses.clone()
            };
            if let Some(target) = folding.target {
                for row in values.chunks_exact_mut(outputs) {
                    for (v, (scale, offset)) in row.iter_mut().zip(target) {
                        *v = *v * scale + offset;
                    }
                }
            }
            let rows_of = kernel.push_linear_leaves(tree, &scaling, folding.target);
            kernel.trees.push(KernelTree {
                rows_of,
                first_gate,
                gates: tree.topology.gates().to_vec(),
                leafness: tree.leafness.clone(),
                gate_of: tree.topology.gate_of().into_iter().map(|g| g.map_or(LEAF, |g| g as u32)).collect(),
                range: if tree.slopes.is_empty() {
                    (0..outputs)
                        .map(|k| {
                            let column = || values.iter().skip(k).step_by(outputs.max(1));
                            let max = column().copied().fold(f32::NEG_INFINITY, f32::max);
                            let min = column().copied().fold(f32::INFINITY, f32::min);
                            max - min
                        })
                        .fold(0.0, f32::max)
                } else {
                    f32::INFINITY
                },
                values,
            });
        }
        kernel.tiles = kernel.cut_tiles();
        if kernel.trees.iter().all(|tree| tree.rows_of.is_empty()) {
            kernel.integer = Some(integer::Integer::new(&kernel, scaling));
        }
        kernel
    }

    /// Appends the rows of a tree's linear leaves, scaling and target units folded in: `outputs` rows for each node where
    /// something can stop.
    fn push_linear_leaves(
        &mut self,
        tree: &Tree,
        scaling: &[(f32, f32)],
        target: Option<&[(f32, f32)]>,
    ) -> Vec<Option<usize>> {
        if tree.slopes.is_empty() {
            return Vec::new();
        }
        let mut rows_of = Vec::new();
        for (node, stops) in tree.stops().into_iter().enumerate() {
            rows_of.push(stops.then_some(self.bias.len()));
            if !stops {
                continue;
            }
            let slopes = tree.slope(node).chunks_exact(tree.inputs);
            for (k, (slope, &constant)) in slopes.zip(tree.response(node)).enumerate() {
                let (scale, shift) = target.map_or((1.0, 0.0), |target| target[k]);
                let mut offset = f64::from(constant);
                for (&w, &(m, s)) in slope.iter().zip(scaling) {
                    self.weights.push(scale * w * s);
                    offset -= f64::from(w) * f64::from(s) * f64::from(m);
                }
                self.bias.push((f64::from(scale) * offset + f64::from(shift)) as f32);
            }
        }
        rows_of
    }

    fn cut_tiles(&self) -> Vec<f32> {
        let gates = self.bias.len();
        let mut tiles = vec![0.0; gates.div_ceil(TILE) * TILE * self.inputs];
        for (gate, row) in self.weights.chunks_exact(self.inputs.max(1)).enumerate() {
            let tile = &mut tiles[gate / TILE * TILE * self.inputs..][..TILE * self.inputs];
            for (j, &w) in row.iter().enumerate() {
                tile[j * TILE + gate % TILE] = w;
            }
        }
        tiles
    }

    /// Number of unscaled inputs a row must have.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of a prediction.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Predicts a table of inputs `[rows, inputs]`, blocks of rows in parallel. Rows may be split among threads in any way:
    /// each row's result is the same. Numbers that are not finite are for [`SoftForest`](crate::SoftForest)
    /// to refuse; here nobody looks for them.
    ///
    /// # Errors
    /// [`ForestError::Width`] for a wrong number of columns, [`ForestError::Setting`] for a threshold outside [0, 1] or
    /// integers with linear leaves.
    pub fn predict(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<Prediction> {
        self.check(x.ncols(), evaluation)?;
        let mut output = Array2::zeros((x.nrows(), self.outputs));
        let mut bounds = vec![0.0; x.nrows()];
        let block = match evaluation {
            Evaluation::Exact | Evaluation::Integer => LANES,
            // The more rows arrive at a gate together, the less often its weights are read; but every thread wants some.
            _ => (x.nrows() / (4 * rayon::current_num_threads())).clamp(LANES, 4 * LANES),
        };
        output
            .axis_chunks_iter_mut(Axis(0), block)
            .into_par_iter()
            .zip(x.axis_chunks_iter(Axis(0), block).into_par_iter())
            .zip(bounds.par_chunks_mut(block))
            .for_each_init(Buffers::default, |buffers, ((mut output, x), bounds)| {
                let copy;
                let rows = match x.as_slice() {
                    Some(rows) => rows,
                    None => {
                        copy = x.iter().copied().collect::<Vec<f32>>();
                        &copy
                    }
                };
                if let Some(output) = output.as_slice_mut() {
                    self.evaluate_block(rows, evaluation, output, bounds, buffers);
                }
            });
        Ok(Prediction { output, bounds })
    }

    /// Evaluates a block of rows, of up to `LANES` unless it skips; returns the number of gates that a walk visited.
    fn evaluate_block(
        &self,
        rows: &[f32],
        evaluation: Evaluation,
        output: &mut [f32],
        bounds: &mut [f32],
        buffers: &mut Buffers,
    ) -> usize {
        let Buffers { centred, scratch, walk, rounded } = buffers;
        let rows = self.centred(rows, centred);
        let threshold = evaluation.threshold();
        match (evaluation, &self.integer) {
            (Evaluation::Exact, _) => {
                self.dense_block(rows, output, scratch.get_or_insert_with(|| dense::Scratch::new(self)));
            }
            (Evaluation::Integer, Some(integer)) => {
                let scratch = scratch.get_or_insert_with(|| dense::Scratch::new(self));
                self.integer_block(integer, rows, output, bounds, scratch, rounded);
            }
            (Evaluation::IntegerSkip { .. }, Some(integer)) => {
                integer.round(rows, self.inputs, rounded);
                let signpost = integer::Coarse { integer, rounded };
                return self.skip_block(rows, &signpost, threshold, output, bounds, walk);
            }
            _ => {
                let signpost = skip::Plain { kernel: self, rows };
                return self.skip_block(rows, &signpost, threshold, output, bounds, walk);
            }
        }
        0
    }

    /// Rows with what is taken from their inputs first; as they are where that is nothing.
    fn centred<'a>(&self, rows: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        if self.centre.is_empty() {
            return rows;
        }
        buffer.clear();
        for row in rows.chunks_exact(self.inputs) {
            buffer.extend(row.iter().zip(&self.centre).map(|(x, c)| x - c));
        }
        buffer
    }

    /// Predicts one row into `output`; returns the bound of [`Prediction::bounds`]. A single row that skips nothing gains
    /// nothing from integers, so [`Evaluation::Integer`] is exact here.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); also when `output` has the wrong length.
    pub fn predict_one(&self, row: &[f32], evaluation: Evaluation, output: &mut [f32]) -> Result<f32> {
        self.check(row.len(), evaluation)?;
        if output.len() != self.outputs {
            return Err(ForestError::Width { expected: self.outputs, found: output.len() });
        }
        let evaluation = match evaluation {
            Evaluation::Exact | Evaluation::Integer => Evaluation::Skip { below: 0.0 },
            other => other,
        };
        let mut bound = [0.0];
        self.evaluate_block(row, evaluation, output, &mut bound, &mut Buffers::default());
        Ok(bound[0])
    }

    /// Every single tree's prediction of each row, `[rows, trees x outputs]`: the per-tree class vectors of a cascade.
    ///
    /// # Errors
    /// [`ForestError::Width`] for a wrong number of columns.
    pub fn predict_trees(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        self.check(x.ncols(), Evaluation::Exact)?;
        let mut out = Array2::zeros((x.nrows(), self.trees.len() * self.outputs));
        out.axis_chunks_iter_mut(Axis(0), LANES)
            .into_par_iter()
            .zip(x.axis_chunks_iter(Axis(0), LANES).into_par_iter())
            .for_each_init(
                || (Vec::new(), dense::Scratch::new(self)),
                |(centred, scratch), (mut out, x)| {
                    let rows: Vec<f32> = x.iter().copied().collect();
                    if let Some(out) = out.as_slice_mut() {
                        self.dense_block_trees(self.centred(&rows, centred), out, scratch);
                    }
                },
            );
        Ok(out)
    }

    /// Mean number of gates evaluated per row and tree when skipping with the given threshold.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn gates_visited(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<f64> {
        self.check(x.ncols(), evaluation)?;
        let evaluation = match evaluation {
            Evaluation::Exact => Evaluation::Skip { below: 0.0 },
            Evaluation::Integer => Evaluation::IntegerSkip { below: 0.0 },
            other => other,
        };
        let visited: usize = x
            .axis_chunks_iter(Axis(0), LANES)
            .into_par_iter()
            .map_init(Buffers::default, |buffers, x| {
                let rows: Vec<f32> = x.iter().copied().collect();
                let mut output = vec![0.0; x.nrows() * self.outputs];
                let mut bounds = vec![0.0; x.nrows()];
                self.evaluate_block(&rows, evaluation, &mut output, &mut bounds, buffers)
            })
            .sum();
        Ok(visited as f64 / (x.nrows() * self.trees.len()).max(1) as f64)
    }

    fn check(&self, width: usize, evaluation: Evaluation) -> Result<()> {
        if let Evaluation::Skip { below } | Evaluation::IntegerSkip { below } = evaluation {
            crate::params::require((0.0..=1.0).contains(&below), "evaluation.below", "a mass in [0, 1]", &below)?;
        }
        if evaluation.in_integers() && self.integer.is_none() {
            return Err(ForestError::Setting {
                name: "evaluation",
                expected: "constant leaves for integers",
                found: format!("{evaluation:?}"),
            });
        }
        if width == self.inputs {
            return Ok(());
        }
        Err(ForestError::Width { expected: self.inputs, found: width })
    }

    /// Gate probability from a folded score.
    #[inline(always)]
    fn probability(gate: Gate, z: f32) -> f32 {
        match gate {
            Gate::Sigmoid => sigmoid(z),
            Gate::SmoothStep { .. } => smooth_step(z),
        }
    }
}

#[cfg(test)]
mod tests;
