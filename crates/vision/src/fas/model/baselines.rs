//! Losses and heads of published detectors, for comparison.

use super::backbone::Backbone;
use super::set::FasBatch;
use crate::fas::error::{Error, Result};
use core_tensor::nn::{Conv2dConfig, LayerFactory, LinearConfig, Module};
use core_tensor::train::{Loss, Objective, Progress};
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};

/// A binary map and a score from one feature (George and Marcel, arXiv 1907.04047), on any backbone.
#[derive(Debug)]
pub struct DeepPixBis {
    backbone: Box<dyn Backbone>,
    map: Module,
    score: Module,
}

impl DeepPixBis {
    /// Heads built by `factory` under `path`.
    pub fn new(path: &Path, factory: &dyn LayerFactory, backbone: Box<dyn Backbone>) -> Self {
        let channels = backbone.channels();
        let head = Conv2dConfig { bias: true, ..Conv2dConfig::new(channels, 1, 1, 1) };
        Self {
            map: factory.conv2d(&(path / "map"), head),
            score: factory.linear(&(path / "score"), LinearConfig::new(channels, 1)),
            backbone,
        }
    }

    /// Logits of the map `[batch, 1, height, width]` and of the score `[batch]`, of pictures with values in [0, 1].
    pub fn forward(&self, input: &Tensor, train: bool) -> (Tensor, Tensor) {
        let feature = self.backbone.forward_t(&self.backbone.normalised(input), train);
        let pooled = feature.mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        (self.map.forward_t(&feature, train), self.score.forward_t(&pooled, train).squeeze_dim(1))
    }
}

impl Objective<FasBatch> for &DeepPixBis {
    fn loss(&mut self, batch: &FasBatch, _: &Progress) -> core_tensor::Result<Loss> {
        let (map, score) = self.forward(&batch.input, true);
        let live = &batch.targets.live;
        let everywhere = live.view([-1, 1, 1, 1]).expand_as(&map);
        let pixel = map.f_binary_cross_entropy_with_logits::<Tensor>(&everywhere, None, None, Reduction::Mean)?;
        let binary = score.f_binary_cross_entropy_with_logits::<Tensor>(live, None, None, Reduction::Mean)?;
        let parts = vec![("pixel", pixel.detach()), ("live", binary.detach())];
        Ok(Loss { total: (pixel + binary) * 0.5, parts })
    }
}

/// The value, with its gradient turned round and scaled by `coefficient`.
pub fn reverse_gradient(value: &Tensor, coefficient: f64) -> Tensor {
    value * -coefficient + (value * (1.0 + coefficient)).detach()
}

/// `2 / (1 + e^(−10 step / steps)) − 1`: how reversal sets in (Ganin and Lempitsky, arXiv 1409.7495).
/// No `steps` count as one.
pub fn reversal_coefficient(step: u64, steps: u64) -> f64 {
    2.0 / (1.0 + (-10.0 * step as f64 / steps.max(1) as f64).exp()) - 1.0
}

/// A vector over `√(2 ‖f‖)`, as the published code of SSDG has it: the norm becomes `√(‖f‖ / 2)`, not 1. Norms below
/// 1e-12 count as that, so that a vector of zeros stays one and has a gradient.
///
/// Features `[…, features]` of `f32` or `f64`.
pub fn ssdg_scale(features: &Tensor) -> Tensor {
    let squares = features.square().sum_dim_intlist([-1_i64].as_slice(), true, features.kind());
    // Before the root, whose slope at 0 is infinite.
    let norm = squares.clamp_min(1e-24).sqrt();
    features / (norm * 2.0).sqrt()
}

/// The asymmetric triplet loss of SSDG (Jia et al., arXiv 2004.14043): all live samples are one class, each domain's
/// attacks are a class of their own; the mean over violating triplets of `d(a, p) − d(a, n) + margin`, 0 without any.
/// Distances are Euclidean and not squared, as in the published code; those below 1e-12 count as that, so that equal
/// features have a gradient.
///
/// Features `[batch, features]`, labels `[batch]` (1 live), domains `[batch]` of whole numbers from 0.
///
/// # Errors
/// [`Error::BadParam`] for a margin that is not finite or below 0 and for a domain below 0, [`Error::BadShape`] for
/// tables that do not fit one another.
pub fn asymmetric_triplet(features: &Tensor, live: &Tensor, domains: &Tensor, margin: f64) -> Result<Tensor> {
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(Error::BadParam { name: "margin", expected: "finite and at least 0", value: margin });
    }
    let sizes = [features.size(), live.size(), domains.size()];
    if !matches!(*sizes[0], [batch, _] if sizes[1] == [batch] && sizes[2] == [batch]) {
        return Err(Error::BadShape {
            what: "features, labels and domains",
            expected: "[batch, features], [batch] and [batch]".into(),
            found: format!("{:?}, {:?} and {:?}", sizes[0], sizes[1], sizes[2]),
        });
    }
    // Wide enough for the next number of any other kind.
    let domains = domains.to_kind(Kind::Int64);
    // One below 0 would make its attacks live.
    if domains.lt(0_i64).any().int64_value(&[]) != 0 {
        let value = domains.min().double_value(&[]);
        return Err(Error::BadParam { name: "domains", expected: "at least 0", value });
    }
    let class = (domains + 1_i64) * live.lt(0.5).to_kind(Kind::Int64);
    let gaps = features.unsqueeze(0) - features.unsqueeze(1);
    // Before the root, whose slope at 0 is infinite.
    let distance = gaps.square().sum_dim_intlist([2_i64].as_slice(), false, features.kind()).clamp_min(1e-24).sqrt();
    let same = class.unsqueeze(0).eq_tensor(&class.unsqueeze(1));
    let itself = Tensor::eye(features.size()[0], (Kind::Bool, features.device()));
    let positive = same.logical_and(&itself.logical_not());
    let triplets = distance.unsqueeze(2) - distance.unsqueeze(1) + margin;
    let valid = positive.unsqueeze(2).logical_and(&same.logical_not().unsqueeze(1));
    let violating = triplets.masked_select(&valid.logical_and(&triplets.gt(0.0)));
    let count = violating.size()[0].max(1) as f64;
    Ok(violating.sum(features.kind()) / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::model::{PlainBackbone, ProxyTargets};
    use core_tensor::nn::Standard;
    use indexmap::IndexMap;
    use tch::nn::VarStore;
    use tch::{Device, no_grad};

    #[test]
    fn a_map_and_a_score_share_the_loss() {
        let store = VarStore::new(Device::Cpu);
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 1));
        let network = DeepPixBis::new(&store.root(), &Standard, backbone);
        // The map says live everywhere, the score attack.
        for (name, value) in [("map.weight", 0.0), ("map.bias", 100.0), ("score.weight", 0.0), ("score.bias", -100.0)] {
            let _ = no_grad(|| store.variables()[name].shallow_clone().fill_(value));
        }
        let batch = FasBatch {
            input: Tensor::zeros([3, 3, 16, 16], (Kind::Float, Device::Cpu)),
            targets: ProxyTargets { live: Tensor::from_slice(&[1.0_f32, 1.0, 0.0]), maps: IndexMap::new() },
            attributes: Tensor::zeros([3, 5], (Kind::Int64, Device::Cpu)),
        };
        let (map, score) = network.forward(&batch.input, false);
        assert_eq!((map.size(), score.size()), (vec![3, 1, 4, 4], vec![3]));
        let mut objective = &network;
        let Loss { total, parts } = objective.loss(&batch, &Progress::default()).unwrap();
        // A logit of 100 costs as much where its sign is wrong: the map's for one of three, the score's for two.
        let found = [&parts[0].1, &parts[1].1, &total].map(|value| value.double_value(&[]));
        let expected = [100.0 / 3.0, 200.0 / 3.0, 50.0];
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn reversal_sets_in_along_its_curve_and_turns_gradients_round() {
        assert_eq!([reversal_coefficient(0, 100), reversal_coefficient(0, 0)], [0.0; 2]);
        // tanh(½).
        assert!((reversal_coefficient(10, 100) - 0.462117).abs() < 1e-6);
        let x = Tensor::from(2.0_f64).set_requires_grad(true);
        let y = reverse_gradient(&x, 0.5);
        assert!((y.double_value(&[]) - 2.0).abs() < 1e-12);
        (y * 3.0).backward();
        assert!((x.grad().double_value(&[]) + 1.5).abs() < 1e-12);
    }

    #[test]
    fn the_published_scaling_of_three_four() {
        let found = Vec::<f64>::try_from(ssdg_scale(&Tensor::from_slice(&[3.0_f64, 4.0]))).unwrap();
        assert!((found[0] - 0.948683).abs() < 1e-6 && (found[1] - 1.264911).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn a_vector_of_zeros_stays_one_and_has_a_gradient() {
        let features = Tensor::from_slice(&[0.0_f32, 0.0, 3.0, 4.0]).view([2, 2]).set_requires_grad(true);
        let scaled = ssdg_scale(&features);
        assert_eq!(Vec::<f32>::try_from(scaled.get(0)).unwrap(), [0.0, 0.0]);
        scaled.square().sum(Kind::Float).backward();
        // The squared norm is ‖f‖ / 2, of slope f / (2 ‖f‖), and at zeros 0.
        let slopes = Vec::<f32>::try_from(features.grad().view([4])).unwrap();
        for (found, expected) in slopes.iter().zip([0.0, 0.0, 0.3, 0.4]) {
            assert!((found - expected).abs() < 1e-6, "{slopes:?}");
        }
    }

    #[test]
    fn a_triplet_worked_by_hand() {
        let features = Tensor::from_slice(&[0.0_f64, 1.0, 1.2, 3.0]).view([4, 1]);
        let live = Tensor::from_slice(&[1.0_f64, 1.0, 0.0, 0.0]);
        let domains = Tensor::from_slice(&[0_i64, 1, 0, 1]);
        // Anchor 0, positive 1 (1): attack at 1.2 is far enough by .2 ≥ .1, at 3 too. Anchor 1, positive 0 (1): attack
        // at 1.2 (.2) violates by 1 − .2 + .1 = .9; at 3 (2) not. Attacks of two domains have no positive.
        let found = asymmetric_triplet(&features, &live, &domains, 0.1).unwrap().double_value(&[]);
        assert!((found - 0.9).abs() < 1e-9, "{found}");
        // Compared with NaN no triplet violates: a loss of 0 would look like success.
        let refused = asymmetric_triplet(&features, &live, &domains, f64::NAN).unwrap_err().to_string();
        assert_eq!(refused, "`margin`: expected finite and at least 0, found NaN");
        let short = asymmetric_triplet(&features, &live.narrow(0, 0, 3), &domains, 0.1).unwrap_err().to_string();
        let (expected, found) = ("[batch, features], [batch] and [batch]", "[4, 1], [3] and [4]");
        assert_eq!(short, format!("features, labels and domains: expected {expected}, found {found}"));
        let below = asymmetric_triplet(&features, &live, &(&domains - 1_i64), 0.1).unwrap_err().to_string();
        assert_eq!(below, "`domains`: expected at least 0, found -1");
        // The number after 255 is no other class than the live one in 8 bits.
        let last = asymmetric_triplet(&features, &live, &(&domains + 254_i64).to_kind(Kind::Uint8), 0.1).unwrap();
        assert!((last.double_value(&[]) - 0.9).abs() < 1e-9, "{last:?}");
    }

    #[test]
    fn faces_that_coincide_have_a_gradient() {
        // The triplet of the two living faces at 0 and the attack at .05: 0 − .05 + .1, of either anchor.
        let features = Tensor::from_slice(&[0.0_f32, 0.0, 0.05]).view([3, 1]).set_requires_grad(true);
        let (live, domains) = (Tensor::from_slice(&[1.0_f32, 1.0, 0.0]), Tensor::from_slice(&[0_i64, 0, 0]));
        let loss = asymmetric_triplet(&features, &live, &domains, 0.1).unwrap();
        assert!((loss.double_value(&[]) - 0.05).abs() < 1e-6, "{loss:?}");
        loss.backward();
        let slopes = Vec::<f32>::try_from(features.grad().view([3])).unwrap();
        for (found, expected) in slopes.iter().zip([0.5, 0.5, -1.0]) {
            assert!((found - expected).abs() < 1e-6, "{slopes:?}");
        }
    }
}
