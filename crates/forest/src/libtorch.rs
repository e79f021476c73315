//! The forest as one libtorch computation: all trees of a layer in one batched product, level by level.
//!
//! It exists for GPUs, and as an independent witness: libtorch's automatic differentiation must find the gradients that this
//! crate derives by hand.

use ndarray::{Array2, ArrayView1, ArrayView2};
use tch::{Device, Kind, Tensor};

use crate::classifier::{SoftForest, check_range, check_rows};
use crate::error::{ForestError, Result};
use crate::gate::Gate;
use crate::params::{
    ClassWeights, LeafModel, LeafUpdate, Leafness, Loss, Mix, Regularisers, SoftForestParams, require,
};
use crate::topology::Topology;
use crate::tree::Tree;

/// Trees as tensors, padded to full trees of one depth: what does not exist lies below a closed gate.
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
    /// Copies trees to a device. Rows given to it must be scaled as in training ([`SoftForest::torch`] does it).
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

    /// Output of every tree, `[rows, trees, outputs]`: class probabilities, or values when `classification` is off.
    fn forward(&self, x: &Tensor, classification: bool) -> Result<Tensor> {
        let rows = x.size()[0];
        let (trees, gates) = self.leafness.size2().map_err(refused)?;
        let z = (x.f_matmul(&self.weights).map_err(refused)? + &self.bias) * self.inverse_temperature;
        let p = match self.gate {
            Gate::Sigmoid => z.sigmoid(),
            Gate::SmoothStep { width } => {
                let t = (z / f64::from(width)).clamp(-0.5, 0.5);
                (1.5 - 2.0 * &t * &t) * t + 0.5
            }
        }
        .view([rows, trees, gates]);
        let mut reach = Tensor::ones([rows, trees, 1], (Kind::Float, x.device()));
        let mut stops = Vec::with_capacity(self.depth + 1);
        for level in 0..self.depth as u32 {
            let (start, width) = ((1i64 << level) - 1, 1i64 << level);
            let g = self.leafness.narrow(1, start, width);
            let p = p.narrow(2, start, width);
            stops.push(&reach * &g);
            let through = &reach * (1.0 - g);
            let left = &through * p;
            let right = through - &left;
            reach = Tensor::stack(&[left, right], -1).view([rows, trees, 2 * width]);
        }
        stops.push(reach);
        let stop = Tensor::cat(&stops, -1);
        let mixed_first = classification && self.mix == Mix::Probabilities;
        let values = if mixed_first { self.responses.softmax(-1, Kind::Float) } else { self.responses.shallow_clone() };
        // [rows, trees, nodes] x [trees, nodes, outputs], one product a tree in a batch.
        let out = stop.transpose(0, 1).matmul(&values).transpose(0, 1);
        Ok(if classification && !mixed_first { out.softmax(-1, Kind::Float) } else { out })
    }

    /// Mean over trees, `[rows, outputs]`, of scaled rows.
    ///
    /// # Errors
    /// [`ForestError::Libtorch`] when it refuses.
    pub fn predict_proba(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        let x = self.table(x)?;
        let out = tch::no_grad(|| self.forward(&x, true))?.mean_dim(1, false, Kind::Float);
        let (rows, columns) = out.size2().map_err(refused)?;
        let flat: Vec<f32> = Vec::try_from(out.to_device(Device::Cpu).flatten(0, -1)).map_err(refused)?;
        Array2::from_shape_vec((rows as usize, columns as usize), flat)
            .map_err(|e| ForestError::Malformed(e.to_string()))
    }

    /// The batch's loss as a scalar tensor: the mean over rows of the sum over trees of each tree's negative log-likelihood,
    /// or of the forest's. Needs at least one row, and as many labels below the number of outputs.
    fn loss(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let out = self.forward(x, true)?;
        let (rows, trees, classes) = out.size3().map_err(refused)?;
        if self.loss == Loss::Joint {
            let label = out.mean_dim(1, false, Kind::Float).gather(1, &y.unsqueeze(1), false);
            return Ok(-label.clamp_min(1e-7).log().mean(Kind::Float));
        }
        let y = y.view([rows, 1, 1]).expand([rows, trees, 1], false);
        let label = out.view([rows, trees, classes]).gather(2, &y, false);
        Ok(-label.clamp_min(1e-7).log().sum(Kind::Float) / rows as f64)
    }

    /// Loss and gradients by automatic differentiation, on scaled rows.
    ///
    /// # Errors
    /// No rows, another number of labels, a label out of range, [`Loss::LeafCrossEntropy`], and [`ForestError::Libtorch`] when
    /// libtorch refuses.
    pub fn gradients(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<(f64, Vec<TreeGradients>)> {
        let (x, y) = self.labelled(x, y)?;
        let loss = self.loss(&x, &y)?;
        let found = Tensor::f_run_backward(
            &[&loss],
            &[&self.weights, &self.bias, &self.leafness, &self.responses],
            false,
            false,
        )
        .map_err(refused)?;
        let flat = found
            .iter()
            .map(|t| Vec::<f32>::try_from(t.to_device(Device::Cpu).contiguous().flatten(0, -1)).map_err(refused))
            .collect::<Result<Vec<_>>>()?;
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
        Ok((loss.double_value(&[]), gradients))
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
    /// [`ForestError::Diverged`].
    pub fn train(&mut self, x: ArrayView2<f32>, y: ArrayView1<usize>, params: &SoftForestParams) -> Result<Vec<f64>> {
        self.check(params)?;
        let (x, y) = self.labelled(x, y)?;
        let movable = match params.leafness {
            Leafness::Logit { .. } | Leafness::Clamped { .. } => self.real.shallow_clone(),
            Leafness::Fixed | Leafness::Random { .. } => self.real.zeros_like(),
        };
        let rows = x.size()[0];
        let batch = i64::try_from(params.batch).map_or(rows, |batch| batch.min(rows));
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        let mut moments: Vec<(Tensor, Tensor)> = self.parameters().map(|p| (p.zeros_like(), p.zeros_like())).into();
        let mut history = Vec::with_capacity(params.epochs);
        let mut steps = 0;
        for epoch in 0..params.epochs {
            let mut total = 0.0;
            for (index, start) in (0..rows).step_by(batch as usize).enumerate() {
                let length = batch.min(rows - start);
                let loss = self.loss(&x.narrow(0, start, length), &y.narrow(0, start, length))?;
                let value = loss.double_value(&[]);
                if !value.is_finite() {
                    return Err(ForestError::Diverged { epoch, step: index, loss: value });
                }
                total += value * length as f64;
                let parameters = self.parameters();
                let found = Tensor::f_run_backward(&[&loss], &parameters, false, false).map_err(refused)?;
                steps += 1;
                let rate = f64::from(params.optimiser.rate);
                tch::no_grad(|| {
                    for (k, (gradient, (first, second))) in found.iter().zip(&mut moments).enumerate() {
                        *first = beta1 * &*first + (1.0 - beta1) * gradient;
                        *second = beta2 * &*second + (1.0 - beta2) * gradient * gradient;
                        let first = &*first / (1.0 - f64::powi(beta1, steps));
                        let second = &*second / (1.0 - f64::powi(beta2, steps));
                        let step = rate * first / (second.sqrt() + epsilon);
                        let mut parameter = parameters[k].shallow_clone();
                        if k == 2 {
                            // What is padding stays closed: mass that went below it would leave the tree.
                            parameter -= f64::from(params.optimiser.leafness_factor) * step * &movable;
                            let _ = parameter.clamp_(0.0, 1.0);
                        } else {
                            parameter -= step;
                        }
                    }
                });
            }
            history.push(total / rows as f64);
        }
        Ok(history)
    }

    /// The trees as they are now.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] when a parameter is no longer a finite number.
    pub fn trees(&self) -> Result<Vec<Tree>> {
        let flat = self
            .parameters()
            .map(|t| Vec::<f32>::try_from(t.detach().to_device(Device::Cpu).contiguous().flatten(0, -1)));
        let [weights, bias, leafness, responses] = flat;
        let read = |v: std::result::Result<Vec<f32>, tch::TchError>| v.map_err(refused);
        let (weights, bias) = (read(weights)?, read(bias)?);
        let (leafness, responses) = (read(leafness)?, read(responses)?);
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

    fn parameters(&self) -> [&Tensor; 4] {
        [&self.weights, &self.bias, &self.leafness, &self.responses]
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
        let (inputs, _) = self.weights.size2().map_err(refused)?;
        let (_, _, outputs) = self.responses.size3().map_err(refused)?;
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        if x.ncols() != inputs as usize {
            return Err(ForestError::Width { expected: inputs as usize, found: x.ncols() });
        }
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
    /// This forest on a libtorch device, and the given rows scaled for it.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and [`ForestError::Libtorch`] when it refuses.
    pub fn torch(&self, x: ArrayView2<f32>, device: Device) -> Result<(TorchForest, Array2<f32>)> {
        let encoder = &self.ensemble.encoder;
        let mut scaled = encoder.expand(x)?.into_owned();
        for mut row in scaled.rows_mut() {
            for ((v, m), s) in row.iter_mut().zip(encoder.mean()).zip(encoder.inverse_scale()) {
                *v = (*v - m) * s;
            }
        }
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

fn refused(error: tch::TchError) -> ForestError {
    ForestError::Libtorch(error.to_string())
}
