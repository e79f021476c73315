//! What training minimises.

use super::mining::AttributeMiner;
use super::network::{Proxy, ProxyFas, ProxyOut};
use super::set::FasBatch;
use crate::fas::error::{Error, Result};
use core_tensor::train::{Loss, Objective, Progress};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// What is true about a batch.
#[derive(Debug)]
pub struct ProxyTargets {
    /// `[batch]`, 1 live and 0 attack.
    pub live: Tensor,
    /// `[batch, channels, height, width]` a cue; shares of classes for material.
    pub maps: IndexMap<Proxy, Tensor>,
}

/// How the terms are added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By fixed weights.
    #[default]
    Fixed,
    /// `½ e^−s L + ½ s` with a learned `s` a term, in place of the weights of liveness and cues.
    Heteroscedastic,
}

/// Weights of the terms, each finite and at least 0. The paper's own are not known to us; these are this project's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossWeights {
    /// Of the depth map. Default 5.
    pub depth: f64,
    /// Of the reflection map. Default 2.5.
    pub reflection: f64,
    /// Of the material map. Default 0.3.
    pub material: f64,
    /// Of the attention's distance to its prior, [`ProxyOut::kl`]. Default 1e-3.
    pub kl: f64,
    /// Of mined negatives. Default 0.3.
    pub mining: f64,
    /// Whether depth is compared by contrasts to its neighbours as well. Default true.
    pub contrastive_depth: bool,
    /// How the terms are added up.
    pub balance: Balance,
}

impl Default for LossWeights {
    fn default() -> Self {
        Self {
            depth: 5.0,
            reflection: 2.5,
            material: 0.3,
            kl: 1e-3,
            mining: 0.3,
            contrastive_depth: true,
            balance: Balance::Fixed,
        }
    }
}

impl LossWeights {
    /// Checks that each weight is a finite number of at least 0.
    ///
    /// # Errors
    /// [`Error::BadParam`].
    pub fn validate(&self) -> Result<()> {
        let Self { depth, reflection, material, kl, mining, .. } = *self;
        let named =
            [("depth", depth), ("reflection", reflection), ("material", material), ("kl", kl), ("mining", mining)];
        for (name, value) in named {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::BadParam { name, expected: "finite and at least 0", value });
            }
        }
        Ok(())
    }
}

/// Mean squared difference of the eight contrasts "neighbour minus centre" of two maps `[batch, 1, height, width]`, inner
/// pixels only. Adding a constant to a map changes nothing.
///
/// # Errors
/// [`Error::BadShape`] for maps of other shapes, or without an inner pixel.
pub fn contrastive_depth(predicted: &Tensor, target: &Tensor) -> Result<Tensor> {
    let size = predicted.size();
    if !matches!(*size, [_, 1, height, width] if height.min(width) >= 3) || target.size() != size {
        let (expected, found) =
            ("[batch, 1, 3 or more, 3 or more]".into(), format!("{size:?} and {:?}", target.size()));
        return Err(Error::BadShape { what: "two depth maps", expected, found });
    }
    let mut kernels = [0.0_f32; 72];
    for (which, neighbour) in [0, 1, 2, 3, 5, 6, 7, 8].into_iter().enumerate() {
        kernels[which * 9 + neighbour] = 1.0;
        kernels[which * 9 + 4] = -1.0;
    }
    let kernels =
        Tensor::from_slice(&kernels).view([8, 1, 3, 3]).to_kind(predicted.kind()).to_device(predicted.device());
    let contrasts = (predicted - target).f_conv2d(&kernels, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1)?;
    Ok(contrasts.square().mean(predicted.kind()))
}

/// `½ e^−s L + ½ s`: what a term costs at log-variance `s` (Kendall et al., arXiv 1705.07115).
pub fn heteroscedastic(loss: &Tensor, log_variance: &Tensor) -> Tensor {
    (-log_variance).exp() * loss * 0.5 + log_variance * 0.5
}

fn weight_of(weights: &LossWeights, proxy: Proxy) -> f64 {
    match proxy {
        Proxy::Depth => weights.depth,
        Proxy::Reflection => weights.reflection,
        Proxy::Material => weights.material,
    }
}

/// The terms by name, unweighted: `live`, then the cues that the network predicts, then `kl`.
///
/// # Errors
/// [`Error::MapShape`], [`Error::NotADistribution`], [`Error::BadLabel`], and [`Error::BadShape`] where there is no
/// label, a cue has no target or a depth map has no contrasts.
pub fn proxy_loss(out: &ProxyOut, targets: &ProxyTargets, contrasts: bool) -> Result<IndexMap<&'static str, Tensor>> {
    check_labels(&targets.live)?;
    let mut terms = IndexMap::new();
    let live = out.logit.f_binary_cross_entropy_with_logits::<Tensor>(&targets.live, None, None, Reduction::Mean)?;
    terms.insert("live", live);
    for (&proxy, predicted) in &out.maps {
        let missing = || Error::BadShape { what: "target maps", expected: proxy.name().into(), found: "none".into() };
        let target = targets.maps.get(&proxy).ok_or_else(missing)?;
        if predicted.size() != target.size() {
            return Err(Error::MapShape { map: proxy.name(), want: predicted.size(), got: target.size() });
        }
        let term = match proxy {
            Proxy::Depth if contrasts => {
                predicted.mse_loss(target, Reduction::Mean) + contrastive_depth(predicted, target)?
            }
            Proxy::Depth | Proxy::Reflection => predicted.mse_loss(target, Reduction::Mean),
            Proxy::Material => {
                check_distribution(target)?;
                -(target * predicted).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).mean(Kind::Float)
            }
        };
        terms.insert(proxy.name(), term);
    }
    terms.insert("kl", out.kl.shallow_clone());
    Ok(terms)
}

fn check_labels(live: &Tensor) -> Result<()> {
    if live.dim() != 1 || live.numel() == 0 {
        let (expected, found) = ("[batch], at least one".into(), format!("{:?}", live.size()));
        return Err(Error::BadShape { what: "labels", expected, found });
    }
    let wrong = live.ne(0.0).logical_and(&live.ne(1.0));
    if wrong.any().int64_value(&[]) != 0 {
        let index = wrong.to_kind(Kind::Int64).argmax(0, false).int64_value(&[]);
        return Err(Error::BadLabel { index: index as usize, value: live.double_value(&[index]) });
    }
    Ok(())
}

/// Sums over classes within 1e-3 of 1.
fn check_distribution(target: &Tensor) -> Result<()> {
    let sums = target.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
    let distance = (&sums - 1.0).abs().flatten(1, -1);
    let worst = distance.amax([1_i64].as_slice(), false);
    let index = worst.argmax(0, false).int64_value(&[]);
    // A NaN compares as false, and is no distribution.
    if worst.double_value(&[index]) <= 1e-3 {
        return Ok(());
    }
    let pixel = distance.get(index).argmax(0, false).int64_value(&[]);
    Err(Error::NotADistribution { index: index as usize, sum: sums.flatten(1, -1).double_value(&[index, pixel]) })
}

/// The whole loss as an objective of the trainer.
#[derive(Debug)]
pub struct ProxyObjective<'a> {
    network: &'a ProxyFas,
    weights: LossWeights,
    miner: Option<AttributeMiner>,
    log_variances: IndexMap<&'static str, Tensor>,
}

impl<'a> ProxyObjective<'a> {
    /// For a network; with a miner, its loss is added. Weights, and a margin, out of their range are refused by the first
    /// loss, by name; [`LossWeights::validate`] refuses the weights earlier.
    pub fn new(network: &'a ProxyFas, weights: LossWeights, miner: Option<AttributeMiner>) -> Self {
        Self { network, weights, miner, log_variances: IndexMap::new() }
    }

    /// With log-variances learned under `path`, for [`Balance::Heteroscedastic`], which is refused without them.
    #[must_use]
    pub fn learning_balance(mut self, path: &tch::nn::Path) -> Self {
        let names = std::iter::once("live").chain(self.network.config().proxies.iter().map(|proxy| proxy.name()));
        self.log_variances = names.map(|name| (name, path.zeros(name, &[]))).collect();
        self
    }

    fn total(&self, batch: &FasBatch) -> Result<Loss> {
        self.weights.validate()?;
        let out = self.network.forward(&batch.input, true)?;
        let terms = proxy_loss(&out, &batch.targets, self.weights.contrastive_depth)?;
        let mut total = &terms["kl"] * self.weights.kl;
        let mut parts: Vec<(&'static str, Tensor)> = Vec::new();
        for (&name, term) in terms.iter().filter(|(name, _)| **name != "kl") {
            let proxy = Proxy::ALL.into_iter().find(|proxy| proxy.name() == name);
            total += match (self.weights.balance, self.log_variances.get(name)) {
                (Balance::Heteroscedastic, Some(log_variance)) => heteroscedastic(term, log_variance),
                (Balance::Heteroscedastic, None) => {
                    let found = "none: the objective is made without `learning_balance`".into();
                    return Err(Error::BadShape { what: "learned log-variances", expected: name.into(), found });
                }
                (Balance::Fixed, _) => term * proxy.map_or(1.0, |proxy| weight_of(&self.weights, proxy)),
            };
            parts.push((name, term.detach()));
        }
        if let Some(miner) = self.miner.as_ref().filter(|_| self.weights.mining > 0.0) {
            let (mined, stats) = miner.loss(&out.embedding, &batch.targets.live, &batch.attributes)?;
            parts.push(("mining", mined.detach()));
            parts.push(("anchors", Tensor::from(stats.anchors as f64)));
            total += mined * self.weights.mining;
        }
        Ok(Loss { total, parts })
    }
}

impl Objective<FasBatch> for ProxyObjective<'_> {
    fn loss(&mut self, batch: &FasBatch, _: &Progress) -> core_tensor::Result<Loss> {
        self.total(batch).map_err(|error| match error {
            Error::Core(error) => error,
            Error::BadParam { name, expected, value } => core_tensor::Error::setting(name, expected, value),
            other => core_tensor::Error::setting("batch", "pictures with matching targets", other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::small;
    use super::*;
    use crate::fas::model::{Attention, PlainBackbone, Policies, ProxyConfig};
    use core_tensor::nn::Standard;

    fn close(found: &Tensor, expected: f64) {
        let found = found.double_value(&[]);
        assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
    }

    fn map() -> Tensor {
        Tensor::from_slice(&[0.0_f64, 0.2, 0.4, 0.1, 0.5, 0.3, 0.2, 0.6, 0.9]).view([1, 1, 3, 3])
    }

    #[test]
    fn contrasts_worked_by_hand_and_blind_to_constants() {
        let zeros = map().zeros_like();
        // Σ (neighbour − .5)² / 8 = .81 / 8.
        close(&contrastive_depth(&map(), &zeros).unwrap(), 0.10125);
        close(&map().mse_loss(&zeros, Reduction::Mean), 0.195556);
        close(&contrastive_depth(&(map() + 3.0), &zeros).unwrap(), 0.10125);
        let flat = map().narrow(2, 0, 2);
        assert!(matches!(contrastive_depth(&flat, &flat), Err(Error::BadShape { .. })));
    }

    #[test]
    fn learned_balance_costs_what_the_formula_says_and_is_least_at_the_logarithm() {
        let at = |s: f64| heteroscedastic(&Tensor::from(0.3), &Tensor::from(s));
        close(&at(0.0), 0.15);
        close(&at(0.3_f64.ln()), -0.101986);
        close(&at(1.0), 0.555182);
        let s = Tensor::from(0.3_f64.ln()).set_requires_grad(true);
        heteroscedastic(&Tensor::from(0.3), &s).backward();
        close(&s.grad(), 0.0);
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let target = map().flip([2_i64].as_slice());
        let at = map().set_requires_grad(true);
        contrastive_depth(&at, &target).unwrap().backward();
        for which in 0..9 {
            let moved = |by: f64| {
                let shifted = map();
                let _ = shifted.view([9]).get(which).g_add_scalar_(by);
                contrastive_depth(&shifted, &target).unwrap().double_value(&[])
            };
            let (expected, found) = ((moved(1e-5) - moved(-1e-5)) / 2e-5, at.grad().view([9]).double_value(&[which]));
            assert!((expected - found).abs() < 1e-5 * expected.abs().max(1.0), "{found} against {expected}");
        }
    }

    fn out(maps: IndexMap<Proxy, Tensor>) -> ProxyOut {
        let cpu = (Kind::Float, tch::Device::Cpu);
        ProxyOut {
            logit: Tensor::zeros([2], cpu),
            maps,
            weights: IndexMap::new(),
            sigma: IndexMap::new(),
            embedding: Tensor::zeros([2, 4], cpu),
            kl: Tensor::zeros([], cpu),
        }
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() {
        let cpu = (Kind::Float, tch::Device::Cpu);
        let live = || Tensor::from_slice(&[1.0_f32, 0.0]);
        let with = |proxy, target| ProxyTargets { live: live(), maps: IndexMap::from([(proxy, target)]) };
        let depth = || out(IndexMap::from([(Proxy::Depth, Tensor::zeros([2, 1, 4, 4], cpu))]));
        let larger = proxy_loss(&depth(), &with(Proxy::Depth, Tensor::zeros([2, 1, 8, 8], cpu)), true);
        assert!(matches!(larger, Err(Error::MapShape { map: "depth", .. })));
        let absent = proxy_loss(&depth(), &with(Proxy::Reflection, Tensor::zeros([2, 1, 4, 4], cpu)), true);
        assert!(matches!(absent, Err(Error::BadShape { .. })));
        let material = out(IndexMap::from([(Proxy::Material, Tensor::zeros([2, 7, 4, 4], cpu))]));
        let uneven = proxy_loss(&material, &with(Proxy::Material, Tensor::full([2, 7, 4, 4], 0.2, cpu)), true);
        assert!(matches!(uneven, Err(Error::NotADistribution { .. })), "{uneven:?}");
        let labels = ProxyTargets { live: Tensor::from_slice(&[1.0_f32, 0.5]), maps: IndexMap::new() };
        let odd = proxy_loss(&out(IndexMap::new()), &labels, true);
        assert!(matches!(odd, Err(Error::BadLabel { index: 1, .. })));
        for live in [live().narrow(0, 0, 0), live().view([2, 1]), live().get(0)] {
            let refused = proxy_loss(&out(IndexMap::new()), &ProxyTargets { live, maps: IndexMap::new() }, true);
            assert!(matches!(refused, Err(Error::BadShape { what: "labels", .. })), "{refused:?}");
        }
    }

    /// A binary network, with two pictures.
    fn binary(store: &tch::nn::VarStore) -> (ProxyFas, FasBatch) {
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 2));
        let config = ProxyConfig { proxies: Vec::new(), features: 2, ..ProxyConfig::default() };
        let network = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap();
        let cpu = (Kind::Float, tch::Device::Cpu);
        let batch = FasBatch {
            input: Tensor::zeros([2, 3, 16, 16], cpu),
            targets: ProxyTargets { live: Tensor::from_slice(&[1.0_f32, 0.0]), maps: IndexMap::new() },
            attributes: Tensor::zeros([2, 5], (Kind::Int64, tch::Device::Cpu)),
        };
        (network, batch)
    }

    #[test]
    fn weights_and_margins_out_of_range_are_refused_by_name() {
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let (network, batch) = binary(&store);
        let refused = |weights: LossWeights, miner: Option<AttributeMiner>| {
            let mut objective = ProxyObjective::new(&network, weights, miner);
            objective.loss(&batch, &Progress::default()).unwrap_err().to_string()
        };
        let plain = LossWeights::default;
        for (weights, expected) in [
            (LossWeights { depth: -1.0, ..plain() }, "depth is -1, expected finite and at least 0"),
            (LossWeights { reflection: f64::NAN, ..plain() }, "reflection is NaN, expected finite and at least 0"),
            (LossWeights { material: f64::INFINITY, ..plain() }, "material is inf, expected finite and at least 0"),
            (LossWeights { kl: -0.5, ..plain() }, "kl is -0.5, expected finite and at least 0"),
            (LossWeights { mining: f64::NAN, ..plain() }, "mining is NaN, expected finite and at least 0"),
        ] {
            assert_eq!(refused(weights, None), expected);
        }
        let miner = AttributeMiner { margin: f64::NAN, ..AttributeMiner::default() };
        assert_eq!(refused(plain(), Some(miner)), "margin is NaN, expected finite and at least 0");
        let nothing = LossWeights { depth: 0.0, reflection: 0.0, material: 0.0, kl: 0.0, mining: 0.0, ..plain() };
        assert!(nothing.validate().is_ok() && plain().validate().is_ok());
    }

    #[test]
    fn a_learned_balance_needs_something_to_learn() {
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let (network, batch) = binary(&store);
        let weights = LossWeights { balance: Balance::Heteroscedastic, ..LossWeights::default() };
        let objective = ProxyObjective::new(&network, weights, None);
        assert!(matches!(objective.total(&batch), Err(Error::BadShape { what: "learned log-variances", .. })));
        assert!(objective.learning_balance(&(store.root() / "balance")).total(&batch).is_ok());
    }

    #[test]
    fn the_total_is_the_weighted_sum_of_the_parts() {
        let batch = small(Policies::default()).batch(&(0..15).collect::<Vec<i64>>());
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 4));
        // Without noise, so that a second pass gives what the first did.
        let config = ProxyConfig { attention: Attention::Sigmoid, features: 8, ..ProxyConfig::default() };
        let network = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap();
        // The means of the attention start small.
        let weights =
            LossWeights { depth: 2.0, reflection: 3.0, material: 5.0, kl: 1e4, mining: 7.0, ..LossWeights::default() };
        let kl = network.forward(&batch.input, true).unwrap().kl.double_value(&[]);
        for (balance, [live, depth, reflection, material]) in
            [(Balance::Fixed, [1.0, 2.0, 3.0, 5.0]), (Balance::Heteroscedastic, [0.5; 4])]
        {
            let weights = LossWeights { balance, ..weights.clone() };
            let objective = ProxyObjective::new(&network, weights, Some(AttributeMiner::default()));
            // Log-variances of 0, so that each term counts half.
            let objective = objective.learning_balance(&(store.root() / format!("{balance:?}")));
            let Loss { total, parts } = objective.total(&batch).unwrap();
            let part = |wanted: &str| {
                let (_, value) = parts.iter().find(|(name, _)| *name == wanted).unwrap();
                value.double_value(&[])
            };
            let cues = depth * part("depth") + reflection * part("reflection") + material * part("material");
            let expected = live * part("live") + cues + 1e4 * kl + 7.0 * part("mining");
            assert!(kl > 0.0 && part("mining") > 0.0 && part("anchors") > 0.0);
            // Sums of 32-bit numbers.
            let found = total.double_value(&[]);
            assert!((found - expected).abs() < 1e-5 * expected, "{balance:?}: {found} against {expected}");
        }
    }

    #[test]
    fn an_undecided_network_pays_the_logarithm_of_two() {
        let targets = ProxyTargets { live: Tensor::from_slice(&[1.0_f32, 0.0]), maps: IndexMap::new() };
        close(&proxy_loss(&out(IndexMap::new()), &targets, true).unwrap()["live"], 2.0_f64.ln());
    }
}
