//! The forest as one libtorch computation: all trees of a layer in one batched product, level by level.
//!
//! It exists for GPUs, and as an independent witness: libtorch's automatic differentiation must find the gradients that this
//! crate derives by hand.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use tch::{Device, Kind, TchError, Tensor};

use crate::classifier::{SoftForest, check_range, check_rows};
use crate::error::{ForestError, Result};
use crate::gate::Gate;
use crate::params::{
    ClassWeights, LeafModel, LeafUpdate, Leafness, Loss, Mix, Regularisers, SoftForestParams, require,
};
use crate::topology::Topology;
use crate::tree::Tree;

/// Numbers that each of the handful of buffers `[rows, trees, nodes]` holds at a time: 16 MB.
const AT_A_TIME: i64 = 4 << 20;

type Torch<T> = std::result::Result<T, TchError>;

/// Trees of a classifier as tensors, padded to full trees of one depth: what does not exist lies below a closed gate.
#[derive(Debug)]
pub struct TorchForest {
    depth: usize,
    gate: Gate,
    mix: Mix,
    loss: Loss,
    inverse_temperature: f64,
    /// Heap slot of each gate and each node, per tree.
    slots: Vec<(Vec<usize>, Vec<usize>)>,
    topologies: Vec<Topology>,
    /// `[inputs, trees x gates]`
    weights: Tensor,
    /// `[trees x gates]`
    bias: Tensor,
    /// Leafness itself, `[trees, gates]`.
    leafness: Tensor,
    /// 1 for the gates that the trees have, 0 for padding, `[trees, gates]`.
    real: Tensor,
    /// `[trees, nodes, outputs]`
    responses: Tensor,
}

/// Gradients of the batch loss for one tree, in the layout of [`Tree`].
#[derive(Clone, Debug, PartialEq)]
pub struct TreeGradients {
    /// `[gates, inputs]`
    pub weights: Vec<f32>,
    /// `[gates]`
    pub bias: Vec<f32>,
    /// `[gates]`
    pub leafness: Vec<f32>,
    /// `[nodes, outputs]`
    pub responses: Vec<f32>,
}

impl TorchForest {
    /// Copies a classifier's trees to a device; a regressor's responses would be read as logits. Rows given to it must
    /// be scaled as in training ([`SoftForest::scaled`] does it). [`SoftForest::with_trees`] makes
    /// [`trees`](Self::trees) a model again.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] without trees or for trees of different widths; [`ForestError::Libtorch`] when it refuses;
    /// [`ForestError::Setting`] for linear leaves and trees of more than 16 levels.
    pub fn new(trees: &[Tree], params: &SoftForestParams, inverse_temperature: f32, device: Device) -> Result<Self> {
        let first = trees.first().ok_or_else(|| ForestError::Malformed("no trees".to_owned()))?;
        let (inputs, outputs) = (first.inputs, first.outputs);
        if trees.iter().any(|t| (t.inputs, t.outputs) != (inputs, outputs)) {
            return Err(ForestError::Malformed("trees differ in width".to_owned()));
        }
        require(
            trees.iter().all(|t| t.slopes.is_empty()),
            "leaf",
            "constant leaves in the libtorch form",
            &params.leaf,
        )?;
        let depth = trees.iter().flat_map(|t| t.topology.depths()).max().unwrap_or(0);
        // Padded to full trees: no memory holds those of a long chain.
        require(depth <= 16, "depth", "at most 16 levels in the libtorch form", &depth)?;
        let (gates, nodes) = ((1usize << depth) - 1, (2usize << depth) - 1);
        let count = trees.len();
        let mut weights = vec![0.0f32; inputs * count * gates];
        let mut bias = vec![0.0f32; count * gates];
        let mut leafness = vec![1.0f32; count * gates];
        let mut real = vec![0.0f32; count * gates];
        let mut responses = vec![0.0f32; count * nodes * outputs];
        let mut slots = Vec::with_capacity(count);
        for (t, tree) in trees.iter().enumerate() {
            let (gate_slots, node_slots) = heap_slots(&tree.topology);
            for (gate, &slot) in gate_slots.iter().enumerate() {
                let column = t * gates + slot;
                for (j, &w) in tree.gate_weights(gate).iter().enumerate() {
                    weights[j * count * gates + column] = w;
                }
                bias[column] = tree.bias[gate];
                leafness[column] = tree.leafness[gate];
                real[column] = 1.0;
            }
            for (node, &slot) in node_slots.iter().enumerate() {
                let at = (t * nodes + slot) * outputs;
                responses[at..at + outputs].copy_from_slice(tree.response(node));
            }
            slots.push((gate_slots, node_slots));
        }
        let tensor = |values: &[f32], shape: &[i64]| -> Result<Tensor> {
            let tensor =
                Tensor::f_from_slice(values).and_then(|t| t.f_reshape(shape)).and_then(|t| t.f_to_device(device));
            Ok(tensor.map_err(refused)?.set_requires_grad(true))
        };
        let (count, gates, nodes) = (count as i64, gates as i64, nodes as i64);
        Ok(Self {
            depth,
            gate: params.gate,
            mix: params.mix,
            loss: params.loss,
            inverse_temperature: f64::from(inverse_temperature),
            slots,
            topologies: trees.iter().map(|t| t.topology.clone()).collect(),
            weights: tensor(&weights, &[inputs as i64, count * gates])?,
            bias: tensor(&bias, &[count * gates])?,
            leafness: tensor(&leafness, &[count, gates])?,
            real: tensor(&real, &[count, gates])?.set_requires_grad(false),
            responses: tensor(&responses, &[count, nodes, outputs as i64])?,
        })
    }

    /// Output of every tree, `[rows, trees, outputs]`: class probabilities.
    fn each(&self, x: &Tensor) -> Torch<Tensor> {
        let rows = x.size()[0];
        let (trees, gates) = self.leafness.size2()?;
        let z = x.f_matmul(&self.weights)?.f_add(&self.bias)?.f_mul_scalar(self.inverse_temperature)?;
        let p = match self.gate {
            Gate::Sigmoid => z.f_sigmoid()?,
            Gate::SmoothStep { width } => {
                // (3/2 - 2 t^2) t + 1/2
                let t = z.f_div_scalar(f64::from(width))?.f_clamp(-0.5, 0.5)?;
                t.f_square()?.f_mul_scalar(-2.0)?.f_add_scalar(1.5)?.f_mul(&t)?.f_add_scalar(0.5)?
            }
        }
        .f_view([rows, trees, gates])?;
        // Padding is closed, and without a gradient, whatever its leafness says: mass that went below it would leave
        // the tree.
        let leafness = self.leafness.f_mul(&self.real)?.f_add(&self.real.f_rsub_scalar(1.0)?)?;
        let mut reach = Tensor::f_ones([rows, trees, 1], (Kind::Float, x.device()))?;
        let mut stops = Vec::with_capacity(self.depth + 1);
        for level in 0..self.depth as u32 {
            let (start, width) = ((1i64 << level) - 1, 1i64 << level);
            let g = leafness.f_narrow(1, start, width)?;
            let p = p.f_narrow(2, start, width)?;
            stops.push(reach.f_mul(&g)?);
            let through = reach.f_mul(&g.f_rsub_scalar(1.0)?)?;
            let left = through.f_mul(&p)?;
            let right = through.f_sub(&left)?;
            reach = Tensor::f_stack(&[left, right], -1)?.f_view([rows, trees, 2 * width])?;
        }
        stops.push(reach);
        let stop = Tensor::f_cat(&stops, -1)?;
        let mixed_first = self.mix == Mix::Probabilities;
        let values =
            if mixed_first { self.responses.f_softmax(-1, Kind::Float)? } else { self.responses.shallow_clone() };
        // [rows, trees, nodes] x [trees, nodes, outputs], one product a tree in a batch.
        let out = stop.f_transpose(0, 1)?.f_matmul(&values)?.f_transpose(0, 1)?;
        if mixed_first { Ok(out) } else { out.f_softmax(-1, Kind::Float) }
    }

    /// The forest as a layer: class probabilities `[rows, classes]`, the mean over trees, of scaled rows `x` `[rows,
    /// inputs]` in single precision on the forest's device. They are part of libtorch's graph: a loss of them has
    /// gradients with respect to [`parameters`](Self::parameters) and, where `x` has them, to `x`. All rows go at once.
    ///
    /// # Errors
    /// [`ForestError::Width`] for another number of inputs, and [`ForestError::Libtorch`] when it refuses, as it does
    /// another kind, device or number of dimensions.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check_width(x.size2().map_err(refused)?.1 as usize)?;
        self.each(x).and_then(|out| out.f_mean_dim(1, false, Kind::Float)).map_err(refused)
    }

    /// What can be trained: weights `[inputs, trees x gates]`, biases `[trees x gates]`, leafness `[trees, gates]`, and
    /// responses before softmax `[trees, nodes, classes]`; all trees padded to full ones of one depth, nodes level by
    /// level. Each asks for its gradient, which for padding is 0. Whoever moves them by other means than
    /// [`train`](Self::train) keeps leafness in [0, 1], without which [`trees`](Self::trees) refuses.
    pub fn parameters(&self) -> [&Tensor; 4] {
        [&self.weights, &self.bias, &self.leafness, &self.responses]
    }

    /// Mean over trees, `[rows, classes]`, of scaled rows `[rows, inputs]`.
    ///
    /// # Errors
    /// [`ForestError::Width`] for another number of inputs, and [`ForestError::Libtorch`] when it refuses.
    pub fn predict_proba(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        self.check_width(x.ncols())?;
        self.predict_in(self.rows_at_a_time().map_err(refused)?, x)
    }

    /// The same of so many rows at a time.
    fn predict_in(&self, at_a_time: i64, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        let (_, _, classes) = self.responses.size3().map_err(refused)?;
        let mut out = Array2::zeros((x.nrows(), classes as usize));
        let chunks = out.axis_chunks_iter_mut(Axis(0), at_a_time as usize);
        for (mut out, x) in chunks.zip(x.axis_chunks_iter(Axis(0), at_a_time as usize)) {
            let found = tch::no_grad(|| self.forward(&self.table(x)?))?;
            out.iter_mut().zip(numbers(&found).map_err(refused)?).for_each(|(out, p)| *out = p);
        }
        Ok(out)
    }

    /// Rows whose buffers are of bearable size.
    fn rows_at_a_time(&self) -> Torch<i64> {
        let (trees, nodes, outputs) = self.responses.size3()?;
        Ok((AT_A_TIME / (trees * nodes.max(outputs))).max(1))
    }

    /// The batch's loss as a scalar tensor: the mean over rows of the sum over trees of each tree's negative log-likelihood,
    /// or of the forest's. Needs at least one row, and as many labels below the number of outputs.
    fn loss(&self, x: &Tensor, y: &Tensor) -> Torch<Tensor> {
        let out = self.each(x)?;
        if self.loss == Loss::Joint {
            let label = out.f_mean_dim(1, false, Kind::Float)?.f_gather(1, &y.f_unsqueeze(1)?, false)?;
            return label.f_clamp_min(1e-7)?.f_log()?.f_mean(Kind::Float)?.f_neg();
        }
        let (rows, trees, _) = out.size3()?;
        let y = y.f_view([rows, 1, 1])?.f_expand([rows, trees, 1], false)?;
        let label = out.f_gather(2, &y, false)?;
        label.f_clamp_min(1e-7)?.f_log()?.f_sum(Kind::Float)?.f_neg()?.f_div_scalar(rows as f64)
    }

    /// Loss and gradients of some rows.
    fn backward(&self, x: &Tensor, y: &Tensor) -> Torch<(Tensor, Vec<Tensor>)> {
        let loss = self.loss(x, y)?;
        let found = Tensor::f_run_backward(&[&loss], &self.parameters(), false, false)?;
        Ok((loss.f_detach()?, found))
    }

    /// Loss and gradients of all rows, so many at a time.
    fn backward_in(&self, at_a_time: i64, x: &Tensor, y: &Tensor) -> Torch<(f64, Vec<Tensor>)> {
        let rows = x.size()[0];
        let mut total = 0.0;
        let mut sums = self.parameters().map(Tensor::f_zeros_like).into_iter().collect::<Torch<Vec<_>>>()?;
        for start in (0..rows).step_by(at_a_time as usize) {
            let length = at_a_time.min(rows - start);
            let (loss, found) = self.backward(&x.f_narrow(0, start, length)?, &y.f_narrow(0, start, length)?)?;
            // Losses are means over rows.
            let share = length as f64 / rows as f64;
            total += share * loss.f_double_value(&[])?;
            for (sum, gradient) in sums.iter_mut().zip(&found) {
                *sum = sum.f_add(&gradient.f_mul_scalar(share)?)?;
            }
        }
        Ok((total, sums))
    }

    /// Loss and gradients by automatic differentiation, on scaled rows.
    ///
    /// # Errors
    /// No rows, another number of labels, a label out of range, [`Loss::LeafCrossEntropy`], and [`ForestError::Libtorch`] when
    /// libtorch refuses.
    pub fn gradients(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<(f64, Vec<TreeGradients>)> {
        let (x, y) = self.labelled(x, y)?;
        let at_a_time = self.rows_at_a_time().map_err(refused)?;
        let (loss, found) = self.backward_in(at_a_time, &x, &y).map_err(refused)?;
        let flat = found.iter().map(numbers).collect::<Torch<Vec<_>>>().map_err(refused)?;
        let [weights, bias, leafness, responses] = &flat[..] else {
            return Err(ForestError::Libtorch("gradients are missing".to_owned()));
        };
        let (inputs, columns) = self.weights.size2().map_err(refused)?;
        let (_, nodes, outputs) = self.responses.size3().map_err(refused)?;
        let gates = columns as usize / self.slots.len();
        let (nodes, outputs) = (nodes as usize, outputs as usize);
        let gradients = self
            .slots
            .iter()
            .enumerate()
            .map(|(t, (gate_slots, node_slots))| {
                let columns_of = |slot: &usize| t * gates + slot;
                TreeGradients {
                    weights: gate_slots
                        .iter()
                        .flat_map(|slot| {
                            let column = columns_of(slot);
                            (0..inputs as usize).map(move |j| weights[j * columns as usize + column])
                        })
                        .collect(),
                    bias: gate_slots.iter().map(|s| bias[columns_of(s)]).collect(),
                    leafness: gate_slots.iter().map(|s| leafness[columns_of(s)]).collect(),
                    responses: node_slots
                        .iter()
                        .flat_map(|slot| {
                            let at = (t * nodes + slot) * outputs;
                            responses[at..at + outputs].iter().copied()
                        })
                        .collect(),
                }
            })
            .collect();
        Ok((loss, gradients))
    }

    /// Trains in place with Adam on batches of scaled rows, at a constant rate; returns the mean loss of each epoch. Batches are
    /// taken in the order of the rows. Leafness is projected on [0, 1] after each step, and left alone with
    /// [`Leafness::Fixed`] and [`Leafness::Random`]. What concerns the time before and after is not looked at: trees, depth,
    /// first leafness, scaling, missing values and categories, hardening, fine-tuning, and the seed, as nothing is drawn.
    ///
    /// # Errors
    /// A setting out of range, another loss, gate, mix or inverse temperature than those given to [`new`](Self::new), a setting
    /// that only the forest's own training knows (linear leaves, penalties, weight decay, bagging, feature subsets, class
    /// weights, augmentation, annealing, early stopping, closed-form updates); what [`gradients`](Self::gradients) refuses;
    /// [`ForestError::Diverged`], naming the step though it is seen at the end of its epoch, which the forest is left with.
    pub fn train(&mut self, x: ArrayView2<f32>, y: ArrayView1<usize>, params: &SoftForestParams) -> Result<Vec<f64>> {
        self.check(params)?;
        let (x, y) = self.labelled(x, y)?;
        let movable = match params.leafness {
            Leafness::Logit { .. } | Leafness::Clamped { .. } => self.real.shallow_clone(),
            Leafness::Fixed | Leafness::Random { .. } => self.real.zeros_like(),
        };
        let rows = x.size()[0];
        let batch = i64::try_from(params.batch).map_or(rows, |batch| batch.min(rows));
        let mut moments = self
            .parameters()
            .map(|p| Ok((p.f_zeros_like()?, p.f_zeros_like()?)))
            .into_iter()
            .collect::<Torch<Vec<(Tensor, Tensor)>>>()
            .map_err(refused)?;
        let mut history = Vec::with_capacity(params.epochs);
        let mut steps = 0;
        for epoch in 0..params.epochs {
            let mut losses = Vec::new();
            for start in (0..rows).step_by(batch as usize) {
                let length = batch.min(rows - start);
                steps += 1;
                let rates = [f64::from(params.optimiser.rate), f64::from(params.optimiser.leafness_factor)];
                let loss = self.step((&x, &y), (start, length), rates, steps, &movable, &mut moments);
                losses.push(loss.map_err(refused)?);
            }
            // Read once an epoch: a device stands still whenever it is read.
            let losses = Tensor::f_stack(&losses, 0).and_then(|losses| numbers(&losses)).map_err(refused)?;
            let mut total = 0.0;
            for (step, (loss, start)) in losses.into_iter().zip((0..rows).step_by(batch as usize)).enumerate() {
                let loss = f64::from(loss);
                if !loss.is_finite() {
                    return Err(ForestError::Diverged { epoch, step, loss });
                }
                total += loss * batch.min(rows - start) as f64;
            }
            history.push(total / rows as f64);
        }
        Ok(history)
    }

    /// One step of Adam on some rows, of this number from 1; returns their loss from before it. `rates` are that of the
    /// parameters and the factor of the leafness, which goes where `movable` is 1.
    fn step(
        &self,
        (x, y): (&Tensor, &Tensor),
        (start, length): (i64, i64),
        [rate, leafness_factor]: [f64; 2],
        steps: i32,
        movable: &Tensor,
        moments: &mut [(Tensor, Tensor)],
    ) -> Torch<Tensor> {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let (loss, found) = self.backward(&x.f_narrow(0, start, length)?, &y.f_narrow(0, start, length)?)?;
        tch::no_grad(|| {
            for (k, (gradient, (first, second))) in found.iter().zip(moments).enumerate() {
                *first = first.f_mul_scalar(beta1)?.f_add(&gradient.f_mul_scalar(1.0 - beta1)?)?;
                *second = second.f_mul_scalar(beta2)?.f_add(&gradient.f_mul_scalar(1.0 - beta2)?.f_mul(gradient)?)?;
                let first = first.f_div_scalar(1.0 - f64::powi(beta1, steps))?;
                let second = second.f_div_scalar(1.0 - f64::powi(beta2, steps))?;
                let step = first.f_mul_scalar(rate)?.f_div(&second.f_sqrt()?.f_add_scalar(epsilon)?)?;
                let mut parameter = self.parameters()[k].shallow_clone();
                if k == 2 {
                    let _ = parameter.f_sub_(&step.f_mul_scalar(leafness_factor)?.f_mul(movable)?)?;
                    let _ = parameter.f_clamp_(0.0, 1.0)?;
                } else {
                    let _ = parameter.f_sub_(&step)?;
                }
            }
            Ok(loss)
        })
    }

    /// The trees as they are now.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] when a parameter is no longer a finite number.
    pub fn trees(&self) -> Result<Vec<Tree>> {
        let [weights, bias, leafness, responses] = self.parameters().map(|tensor| numbers(tensor).map_err(refused));
        let (weights, bias, leafness, responses) = (weights?, bias?, leafness?, responses?);
        let (inputs, columns) = self.weights.size2().map_err(refused)?;
        let (inputs, columns) = (inputs as usize, columns as usize);
        let (_, nodes, outputs) = self.responses.size3().map_err(refused)?;
        let (nodes, outputs) = (nodes as usize, outputs as usize);
        let gates = columns / self.slots.len();
        self.slots
            .iter()
            .zip(&self.topologies)
            .enumerate()
            .map(|(t, ((gate_slots, node_slots), topology))| {
                let at = |slot: &usize| t * gates + slot;
                Tree::from_parts(
                    topology.clone(),
                    inputs,
                    outputs,
                    gate_slots
                        .iter()
                        .flat_map(|s| (0..inputs).map(|j| weights[j * columns + at(s)]).collect::<Vec<_>>())
                        .collect(),
                    gate_slots.iter().map(|s| bias[at(s)]).collect(),
                    gate_slots.iter().map(|s| leafness[at(s)]).collect(),
                    node_slots
                        .iter()
                        .flat_map(|s| {
                            let at = (t * nodes + s) * outputs;
                            responses[at..at + outputs].to_vec()
                        })
                        .collect(),
                    Vec::new(),
                )
                .ok_or_else(|| ForestError::Malformed("a tree is out of range".to_owned()))
            })
            .collect()
    }

    fn check_width(&self, found: usize) -> Result<()> {
        let (inputs, _) = self.weights.size2().map_err(refused)?;
        if found == inputs as usize {
            return Ok(());
        }
        Err(ForestError::Width { expected: inputs as usize, found })
    }

    fn table(&self, x: ArrayView2<f32>) -> Result<Tensor> {
        let flat: Vec<f32> = x.iter().copied().collect();
        Tensor::f_from_slice(&flat)
            .and_then(|t| t.f_reshape([x.nrows() as i64, x.ncols() as i64]))
            .and_then(|t| t.f_to_device(self.weights.device()))
            .map_err(refused)
    }

    /// Rows with their labels, both checked.
    fn labelled(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<(Tensor, Tensor)> {
        let (_, _, outputs) = self.responses.size3().map_err(refused)?;
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        self.check_width(x.ncols())?;
        check_rows("labels", x.nrows(), y.len())?;
        check_range(y, outputs as usize)?;
        require(self.loss != Loss::LeafCrossEntropy, "loss", "PerTree or Joint in the libtorch form", &self.loss)?;
        let labels: Vec<i64> = y.iter().map(|&l| l as i64).collect();
        let labels =
            Tensor::f_from_slice(&labels).and_then(|t| t.f_to_device(self.weights.device())).map_err(refused)?;
        Ok((self.table(x)?, labels))
    }

    /// Refuses settings that [`train`](Self::train) would not follow.
    fn check(&self, params: &SoftForestParams) -> Result<()> {
        params.validate()?;
        require(params.loss == self.loss, "loss", "the one that the libtorch form was made with", &params.loss)?;
        require(params.gate == self.gate, "gate", "the one that the libtorch form was made with", &params.gate)?;
        require(params.mix == self.mix, "mix", "the one that the libtorch form was made with", &params.mix)?;
        require(
            f64::from(params.inverse_temperature) == self.inverse_temperature,
            "inverse_temperature",
            "the one that the libtorch form was made with",
            &params.inverse_temperature,
        )?;
        let optimiser = &params.optimiser;
        let defaults: [(bool, &'static str, &dyn std::fmt::Debug); 10] = [
            (params.leaf == LeafModel::Constant, "leaf", &params.leaf),
            (params.regularisers == Regularisers::default(), "regularisers", &params.regularisers),
            (optimiser.weight_decay == 0.0, "optimiser.weight_decay", &optimiser.weight_decay),
            (params.leaf_update == LeafUpdate::Gradient, "leaf_update", &params.leaf_update),
            (params.class_weights == ClassWeights::Uniform, "class_weights", &params.class_weights),
            (!params.bagging, "bagging", &params.bagging),
            (params.feature_fraction == 1.0, "feature_fraction", &params.feature_fraction),
            (params.augment.is_none(), "augment", &params.augment),
            (params.anneal_to.is_none(), "anneal_to", &params.anneal_to),
            (params.early_stopping.is_none(), "early_stopping", &params.early_stopping),
        ];
        for (holds, name, found) in defaults {
            require(holds, name, "the default in the libtorch form", &found)?;
        }
        Ok(())
    }
}

impl SoftForest {
    /// This forest on a libtorch device, and the given rows scaled for it; [`scaled`](Self::scaled) does so with more
    /// of them.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and [`ForestError::Libtorch`] when it refuses.
    pub fn torch(&self, x: ArrayView2<f32>, device: Device) -> Result<(TorchForest, Array2<f32>)> {
        let scaled = self.scaled(x)?;
        let beta = self.ensemble.inverse_temperature;
        let forest = TorchForest::new(self.trees(), self.params(), beta, device)?;
        Ok((forest, scaled))
    }
}

/// Heap slot of every gate and node.
fn heap_slots(topology: &Topology) -> (Vec<usize>, Vec<usize>) {
    let mut nodes = vec![0; topology.nodes()];
    let mut gates = Vec::with_capacity(topology.gates().len());
    for gate in topology.gates() {
        let slot = nodes[gate.node as usize];
        gates.push(slot);
        nodes[gate.left as usize] = 2 * slot + 1;
        nodes[gate.right as usize] = 2 * slot + 2;
    }
    (gates, nodes)
}

/// A tensor's numbers, row by row.
fn numbers(tensor: &Tensor) -> Torch<Vec<f32>> {
    Vec::try_from(tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?.f_flatten(0, -1)?)
}

fn refused(error: TchError) -> ForestError {
    ForestError::Libtorch(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::blobs;
    use ndarray::aview1;

    #[test]
    fn rows_taken_a_few_at_a_time_are_as_all_at_once() -> Result<()> {
        let (x, y) = blobs(50, 4, 3, 2.0, 1);
        for loss in [Loss::PerTree, Loss::Joint] {
            let params = SoftForestParams::default().trees(3).depth(3).loss(loss).epochs(1).harden(false);
            let (forest, scaled) = params.fit(x.view(), aview1(&y))?.torch(x.view(), Device::Cpu)?;
            let (rows, labels) = forest.labelled(scaled.view(), aview1(&y))?;
            let whole = numbers(&forest.forward(&rows)?).map_err(refused)?;
            // Seven blocks of seven rows, and one row.
            for (p, whole) in forest.predict_in(7, scaled.view())?.iter().zip(whole) {
                assert!((p - whole).abs() < 1e-6, "{p} {whole}");
            }
            let (wanted, whole) = forest.backward(&rows, &labels).map_err(refused)?;
            let (found, parts) = forest.backward_in(7, &rows, &labels).map_err(refused)?;
            // Sums over 50 rows in another order.
            assert!((found - wanted.double_value(&[])).abs() < 1e-5);
            for (part, whole) in parts.iter().zip(&whole) {
                assert!((part - whole).abs().max().double_value(&[]) < 1e-6);
            }
        }
        Ok(())
    }
}
