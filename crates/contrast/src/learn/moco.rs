//! MoCo: a queue of keys from a slowly moving copy of the encoder.

use super::error::{Error, Result, check_temperature};
use super::projector::{Embed, Projector, projected};
use super::views::ViewBatch;
use core_tensor::nn::Network;
use core_tensor::optim::NamedTensors;
use core_tensor::train::{Loss, Objective, Observer, Progress};
use rand::Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Kind, Reduction, Tensor, no_grad};

/// Settings of [`MoCo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoCoConfig {
    /// Temperature τ, above 0. Default 0.1, MoCo on CIFAR-10; on ImageNet 0.07 (v1) and 0.2 (v2).
    pub temperature: f64,
    /// Momentum μ of the key encoder, in `[0, 1]`: `θ_k ← μ·θ_k + (1 − μ)·θ_q`. Default 0.99, MoCo on CIFAR-10; on
    /// ImageNet 0.999.
    pub momentum: f64,
    /// Keys kept as negatives, a multiple of those that a step adds: the batch size, or twice that if symmetric. Default
    /// 4,096, MoCo on CIFAR-10; on ImageNet 65,536.
    pub queue: i64,
    /// Whether each view is a query once; otherwise the first view is the query and the second the key. Default: no.
    pub symmetric: bool,
}

impl Default for MoCoConfig {
    fn default() -> Self {
        Self { temperature: 0.1, momentum: 0.99, queue: 4096, symmetric: false }
    }
}

impl MoCoConfig {
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(Error::setting("momentum", "in [0, 1]", self.momentum));
        }
        if self.queue < 1 {
            return Err(Error::setting("queue", "at least 1 key", self.queue));
        }
        Ok(())
    }
}

/// InfoNCE of queries against one positive key each and the keys of a queue (He et al., *MoCo*, arXiv 1911.05722,
/// equation 1):
///
/// ```text
/// L = −1/B · Σ_i log [ exp(q_i·k_i/τ) / ( exp(q_i·k_i/τ) + Σ_j exp(q_i·queue_j/τ) ) ]
/// ```
///
/// `queries` and `keys` are `[batch, features]` of unit length, `queue` is `[keys, features]`.
///
/// # Errors
/// Shapes that do not fit, a temperature that is not finite and above 0.
pub fn info_nce(queries: &Tensor, keys: &Tensor, queue: &Tensor, temperature: f64) -> Result<Tensor> {
    let logits = contrast_logits(queries, keys, queue, temperature)?;
    let first = Tensor::f_zeros([queries.size()[0]], (Kind::Int64, queries.device()))?;
    Ok(logits.f_cross_entropy_loss(&first, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
}

/// `[batch, 1 + queue]`: the positive's similarity first.
fn contrast_logits(queries: &Tensor, keys: &Tensor, queue: &Tensor, temperature: f64) -> Result<Tensor> {
    check_temperature(temperature)?;
    let size = queries.size();
    if size.len() != 2 || keys.size() != size {
        return Err(Error::mismatch("keys", format!("the queries' [batch, features] {size:?}"), shape(keys)));
    }
    if queue.size().len() != 2 || queue.size()[1] != size[1] {
        return Err(Error::mismatch("queue", format!("[keys, {}]", size[1]), shape(queue)));
    }
    let positive = (queries * keys).f_sum_dim_intlist([1].as_slice(), true, queries.kind())?;
    Ok(Tensor::f_cat(&[positive, queries.f_mm(&queue.f_tr()?)?], 1)? / temperature)
}

/// Momentum contrast (He et al., arXiv 1911.05722; v2, arXiv 2003.04297).
///
/// Before each step's keys are computed, every trainable variable of the key encoder moves towards the query encoder's of
/// the same name; its batch-norm statistics are its own. Afterwards the step's keys replace the oldest of the queue.
///
/// Parts: `info_nce`, and `contrast_accuracy`, the share (%) of queries that are nearest to their own key among all.
///
/// The key encoder, the queue and its place are live tensors: [`MoCo::keeper`] is an observer that saves them with a
/// training, and takes them back.
pub struct MoCo<'a> {
    query: Embed<'a>,
    key: Embed<'a>,
    config: MoCoConfig,
    state: State,
}

/// Shallow clones share their storage, so that a clone of this is another handle on the same state.
struct State {
    /// Query and key variable of each name.
    moving: Vec<(String, Tensor, Tensor)>,
    /// All variables of the key encoder, statistics included.
    key: Vec<(String, Tensor)>,
    /// `[queue, features]` of unit length.
    queue: Tensor,
    /// `[1]`, `i64`: the row that is overwritten next.
    place: Tensor,
}

impl std::fmt::Debug for MoCo<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("MoCo").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A network, its head, and the store that holds the variables of both.
#[derive(Debug, Clone, Copy)]
pub struct Tower<'a> {
    /// The encoder.
    pub network: &'a dyn Network,
    /// Its head.
    pub projector: &'a Projector,
    /// Where both have their variables.
    pub store: &'a VarStore,
}

impl<'a> MoCo<'a> {
    /// A query tower, and a key tower of the same architecture in a store of its own, whose variables are overwritten with
    /// the query's. `seed` fixes the queue's first content: random unit vectors.
    ///
    /// # Errors
    /// A setting outside its range, or towers whose variables differ or are the same.
    pub fn new(query: Tower<'a>, key: Tower<'a>, features: i64, config: MoCoConfig, seed: u64) -> Result<Self> {
        let embeds = (projected(query.network, query.projector), projected(key.network, key.projector));
        Self::embedding(embeds, (query.store, key.store), features, config, seed)
    }

    /// Any query and key function, with the stores of their variables; embeddings have `features` numbers.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn embedding(
        (query, key): (Embed<'a>, Embed<'a>),
        (query_store, key_store): (&VarStore, &VarStore),
        features: i64,
        config: MoCoConfig,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        if features < 1 {
            return Err(Error::setting("features", "at least 1", features));
        }
        let state = State {
            moving: Vec::new(),
            key: sorted(key_store),
            queue: random_unit_rows(config.queue, features, seed, query_store.device()),
            place: Tensor::from_slice(&[0_i64]),
        };
        let mut moco = Self { query, key, config, state };
        moco.pair_up(&sorted(query_store))?;
        Ok(moco)
    }

    /// Copies the query encoder's variables to the key encoder and remembers which belong together. Variables that do not
    /// fit are refused before any is copied.
    fn pair_up(&mut self, query: &[(String, Tensor)]) -> Result<()> {
        let names = |all: &[(String, Tensor)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if names(query) != names(&self.state.key) {
            let (missing, unexpected) = (difference(query, &self.state.key), difference(&self.state.key, query));
            return Err(core_tensor::Error::Names { missing, unexpected }.into());
        }
        for ((name, source), (_, target)) in query.iter().zip(&self.state.key) {
            if source.size() != target.size() {
                return Err(Error::mismatch(name, format!("the query's {:?}", source.size()), shape(target)));
            }
            // It would be frozen with the key encoder.
            if source.numel() > 0 && source.data_ptr() == target.data_ptr() {
                return Err(Error::mismatch(name, "a variable of the key encoder's own", "the query's"));
            }
        }
        self.state.moving.clear();
        for ((name, source), (_, target)) in query.iter().zip(&self.state.key) {
            no_grad(|| target.shallow_clone().f_copy_(source).map(drop))?;
            let _ = target.set_requires_grad(false);
            if source.requires_grad() {
                self.state.moving.push((name.clone(), source.shallow_clone(), target.shallow_clone()));
            }
        }
        Ok(())
    }

    /// Starts over from the query encoder's present variables with a new queue: what rewinding a ticket asks for.
    ///
    /// # Errors
    /// Variables that differ from the key encoder's, or what libtorch refuses.
    pub fn restart(&mut self, query_store: &VarStore, seed: u64) -> Result<()> {
        let (rows, features) = self.state.queue.size2()?;
        let fresh = random_unit_rows(rows, features, seed, self.state.queue.device());
        self.pair_up(&sorted(query_store))?;
        no_grad(|| -> Result<()> {
            self.state.queue.f_copy_(&fresh)?;
            let _ = self.state.place.f_zero_()?;
            Ok(())
        })
    }

    /// The observer that keeps queue, place and key encoder with a training. Add it to the trainer.
    pub fn keeper(&self) -> MomentumState {
        MomentumState { state: self.state.handle() }
    }

    /// The keys that are negatives now, `[queue, features]`; live.
    pub fn queue(&self) -> &Tensor {
        &self.state.queue
    }

    /// `θ_k ← μ·θ_k + (1 − μ)·θ_q` for every trainable variable.
    fn move_key_encoder(&mut self) -> Result<()> {
        let momentum = self.config.momentum;
        no_grad(|| {
            for (_, query, key) in &mut self.state.moving {
                let _ = key.f_mul_scalar_(momentum)?.f_add_(&(&*query * (1.0 - momentum)))?;
            }
            Ok(())
        })
    }

    fn enqueue(&mut self, keys: &Tensor) -> Result<()> {
        let (batch, capacity) = (keys.size()[0], self.config.queue);
        let place = self.state.place.int64_value(&[0]);
        no_grad(|| -> Result<()> {
            self.state.queue.narrow(0, place, batch).f_copy_(keys)?;
            let _ = self.state.place.f_fill_((place + batch) % capacity)?;
            Ok(())
        })
    }

    fn step(&mut self, batch: &ViewBatch) -> Result<Loss> {
        let (first, second) = batch.pairs()?;
        let rows = first.size()[0] * if self.config.symmetric { 2 } else { 1 };
        if rows == 0 {
            return Err(Error::mismatch("views", "at least one image", shape(&batch.views)));
        }
        if self.config.queue % rows != 0 {
            let expected = format!("a multiple of the {rows} keys a step");
            return Err(Error::setting("queue", expected, self.config.queue));
        }
        // After batches of another size.
        let place = self.state.place.int64_value(&[0]);
        if place % rows != 0 {
            return Err(Error::mismatch("place", format!("a multiple of the {rows} keys a step"), place.to_string()));
        }
        self.move_key_encoder()?;
        let unit = |embeddings: &Tensor| unit_rows(embeddings);
        let keys = no_grad(|| unit(&(self.key)(&second, true)))?;
        let queries = unit(&(self.query)(&first, true))?;
        let (queries, keys, positives) = if self.config.symmetric {
            let other_keys = no_grad(|| unit(&(self.key)(&first, true)))?;
            let other_queries = unit(&(self.query)(&second, true))?;
            let positives = Tensor::f_cat(&[&keys, &other_keys], 0)?;
            (Tensor::f_cat(&[queries, other_queries], 0)?, positives.shallow_clone(), positives)
        } else {
            (queries, keys.shallow_clone(), keys)
        };
        // A copy, since the queue changes before the backward pass reads it.
        let logits = contrast_logits(&queries, &positives, &self.state.queue.copy(), self.config.temperature)?;
        let own = Tensor::f_zeros([rows], (Kind::Int64, queries.device()))?;
        let total = logits.f_cross_entropy_loss(&own, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        let nearest = logits.argmax(1, false).f_eq_tensor(&own)?.to_kind(Kind::Float).mean(Kind::Float) * 100.0;
        self.enqueue(&keys)?;
        let parts = vec![("info_nce", total.detach()), ("contrast_accuracy", nearest)];
        Ok(Loss { total, parts })
    }
}

impl Objective<ViewBatch> for MoCo<'_> {
    fn loss(&mut self, batch: &ViewBatch, _progress: &Progress) -> core_tensor::Result<Loss> {
        self.step(batch).map_err(Error::in_step)
    }
}

/// Saves a [`MoCo`]'s key encoder and queue with a training; see [`MoCo::keeper`].
pub struct MomentumState {
    state: State,
}

impl std::fmt::Debug for MomentumState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("MomentumState").field("queue", &self.state.queue.size()).finish_non_exhaustive()
    }
}

impl Observer for MomentumState {
    fn name(&self) -> &str {
        "moco"
    }

    fn state(&self) -> NamedTensors {
        self.state.tensors().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
    }

    fn load_state(&mut self, state: &NamedTensors) -> core_tensor::Result<()> {
        let own = self.state.tensors();
        let missing: Vec<String> = own.keys().filter(|name| !state.contains_key(*name)).cloned().collect();
        let unexpected: Vec<String> = state.keys().filter(|name| !own.contains_key(*name)).cloned().collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            return Err(core_tensor::Error::Names { missing, unexpected });
        }
        for (name, tensor) in &own {
            let found = &state[name];
            if found.size() != tensor.size() {
                return Err(core_tensor::Error::tensor(name, format!("{:?}", tensor.size()), shape(found)));
            }
        }
        let (place, queue) = (state["place"].to_kind(Kind::Int64).int64_value(&[0]), self.state.queue.size()[0]);
        if !(0..queue).contains(&place) {
            return Err(core_tensor::Error::tensor(
                "place",
                format!("a row of the queue, 0..{queue}"),
                place.to_string(),
            ));
        }
        no_grad(|| {
            for (name, mut tensor) in own {
                tensor.f_copy_(&state[&name])?;
            }
            Ok(())
        })
    }
}

impl State {
    fn handle(&self) -> Self {
        let key = self.key.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let (queue, place) = (self.queue.shallow_clone(), self.place.shallow_clone());
        Self { moving: Vec::new(), key, queue, place }
    }

    fn tensors(&self) -> NamedTensors {
        let key = self.key.iter().map(|(name, tensor)| (format!("key/{name}"), tensor.shallow_clone()));
        let queue = [("queue".into(), self.queue.shallow_clone()), ("place".into(), self.place.shallow_clone())];
        key.chain(queue).collect()
    }
}

fn sorted(store: &VarStore) -> Vec<(String, Tensor)> {
    let mut all: Vec<_> = store.variables().into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Names in `of` and not in `and`.
fn difference(of: &[(String, Tensor)], and: &[(String, Tensor)]) -> Vec<String> {
    of.iter().map(|(name, _)| name).filter(|name| !and.iter().any(|(other, _)| other == *name)).cloned().collect()
}

fn shape(tensor: &Tensor) -> String {
    format!("{:?}", tensor.size())
}

/// Rows of length 1; a zero row stays zero.
pub(crate) fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    Ok(rows / rows.norm_scalaropt_dim(2, [-1], true).f_clamp_min(1e-12)?)
}

fn random_unit_rows(rows: i64, features: i64, seed: u64, device: tch::Device) -> Tensor {
    let mut rng = core_tensor::seed::generator(seed, core_tensor::seed::Purpose::Noise, 0);
    let values: Vec<f32> = (0..rows * features).map(|_| rng.sample(StandardNormal)).collect();
    let noise = Tensor::from_slice(&values).view([rows, features]);
    (&noise / noise.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12)).to_device(device)
}

#[cfg(test)]
mod tests;
