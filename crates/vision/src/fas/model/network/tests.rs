use super::*;
use crate::fas::model::{DeepPixBis, PlainBackbone};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Optimizer};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tch::Device;
use tch::nn::VarStore;

fn network(attention: Attention) -> (VarStore, ProxyFas) {
    let store = VarStore::new(Device::Cpu);
    let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 4));
    let config = ProxyConfig { attention, features: 8, ..ProxyConfig::default() };
    let network = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap();
    (store, network)
}

fn pictures(count: i64) -> Tensor {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let values: Vec<f32> = (0..count * 3 * 16 * 16).map(|_| random.random()).collect();
    Tensor::from_slice(&values).view([count, 3, 16, 16])
}

/// Hands on what it is fed.
#[derive(Debug)]
struct Through;

/// The same of pictures less a half.
#[derive(Debug)]
struct Centred;

impl Backbone for Through {
    fn forward_t(&self, input: &Tensor, _: bool) -> Tensor {
        input.shallow_clone()
    }

    fn channels(&self) -> i64 {
        3
    }

    fn stride(&self) -> i64 {
        1
    }
}

impl Backbone for Centred {
    fn normalised(&self, pictures: &Tensor) -> Tensor {
        pictures - 0.5
    }

    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        Through.forward_t(input, train)
    }

    fn channels(&self) -> i64 {
        Through.channels()
    }

    fn stride(&self) -> i64 {
        Through.stride()
    }
}

#[test]
fn a_backbone_says_how_its_pictures_are_normalised() {
    let input = pictures(2);
    let vector = |backbone: Box<dyn Backbone>, input: &Tensor| {
        let store = VarStore::new(Device::Cpu);
        let network = ProxyFas::new(&store.root(), &Standard, backbone, ProxyConfig::default()).unwrap();
        // The same weights for either backbone, which have none.
        tch::no_grad(|| {
            for (name, mut weight) in store.variables().into_iter().filter(|(name, _)| name.ends_with("conv.weight")) {
                let angles = Tensor::arange(weight.numel() as i64, (Kind::Float, Device::Cpu)) + name.len() as f64;
                weight.copy_(&(angles.sin() * 0.1).view_as(&weight));
            }
        });
        network.branches(input, false).unwrap().vectors.swap_remove(&Task::Live).unwrap()
    };
    // (x − .45) · 4 = (4 x − 1.3) − .5.
    let [usual, moved, own] = [
        vector(Box::new(Through), &input),
        vector(Box::new(Centred), &(&input * 4.0 - 1.3)),
        vector(Box::new(Centred), &input),
    ];
    assert!(usual.allclose(&moved, 1e-4, 1e-5, false) && !usual.allclose(&own, 1e-1, 1e-3, false));

    let map = |backbone: Box<dyn Backbone>| {
        let store = VarStore::new(Device::Cpu);
        let rival = DeepPixBis::new(&store.root(), &Standard, backbone);
        for (name, value) in [("map.weight", 1.0), ("map.bias", 0.0)] {
            let _ = tch::no_grad(|| store.variables()[name].shallow_clone().fill_(value));
        }
        rival.forward(&input, false).0
    };
    let sum = input.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float);
    assert!(map(Box::new(Through)).allclose(&((&sum - 1.35) * 4.0), 1e-4, 1e-5, false));
    assert!(map(Box::new(Centred)).allclose(&(&sum - 1.5), 1e-4, 1e-5, false));
}

#[test]
fn every_attention_gives_a_score_maps_and_weights() {
    for attention in Attention::ALL {
        let (_store, network) = network(attention);
        let out = network.forward(&pictures(2), false).unwrap();
        assert_eq!(out.logit.size(), [2]);
        assert_eq!(out.maps[&Proxy::Depth].size(), [2, 1, 4, 4]);
        assert_eq!(out.maps[&Proxy::Material].size(), [2, 7, 4, 4]);
        assert_eq!(out.embedding.size(), [2, 32]);
        assert_eq!((out.weights.len(), out.sigma.len()), (4, if attention.knows_uncertainty() { 4 } else { 0 }));
        let sums = out.maps[&Proxy::Material].exp().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn without_noise_the_answer_is_always_the_same() {
    let (_store, network) = network(Attention::LogitNormal);
    let input = pictures(2);
    let logits = || network.forward(&input, false).unwrap().logit;
    assert_eq!(logits(), logits());
}

#[test]
fn training_reaches_the_variance_of_every_branch() {
    for attention in [Attention::LogitNormal, Attention::Precision] {
        let (store, network) = network(attention);
        let out = network.forward(&pictures(4), true).unwrap();
        (out.logit.square().sum(Kind::Float) + &out.kl).backward();
        for task in ["live", "depth", "reflection", "material"] {
            let slope = store.variables()[&format!("attention.{task}.log_variance.weight")].grad();
            assert!(slope.abs().sum(Kind::Float).double_value(&[]) > 0.0, "{attention:?} {task}");
        }
    }
}

/// A softmax's weights share one unit by definition, and the others do not: no measurement is needed to know it.
#[test]
fn only_softmax_lets_a_branch_change_the_others_weights() {
    for attention in [Attention::Softmax, Attention::Sigmoid, Attention::LogitNormal, Attention::Precision] {
        let (_store, network) = network(attention);
        let weight = |shift: f64| {
            let mut branches = network.branches(&pictures(2), false).unwrap();
            let depth = branches.vectors.get_mut(&Task::Proxy(Proxy::Depth)).unwrap();
            *depth = &*depth + shift;
            network.fuse(branches, false).unwrap().weights.swap_remove(&Task::Live).unwrap()
        };
        assert_eq!(weight(0.0) == weight(5.0), attention != Attention::Softmax, "{attention:?}");
    }
}

/// Of means of 2 and σ = 1, ½ (4 + 1 − 1 − 0) = 2 nats, whatever the weights are made of.
#[test]
fn weights_with_and_without_uncertainty_have_the_same_prior_on_their_means() {
    for (attention, expected) in
        [(Attention::Concat, 0.0), (Attention::Softmax, 2.0), (Attention::Sigmoid, 2.0), (Attention::LogitNormal, 2.0)]
    {
        let (store, network) = network(attention);
        tch::no_grad(|| {
            for (name, mut tensor) in store.variables().into_iter().filter(|(name, _)| name.starts_with("attention")) {
                let _ = tensor.fill_(if name.ends_with("mean.bias") { 2.0 } else { 0.0 });
            }
        });
        let kl = network.forward(&pictures(2), true).unwrap().kl;
        assert!((kl.double_value(&[]) - expected).abs() < 1e-6, "{attention:?}: {kl:?}");
        if [Attention::Softmax, Attention::Sigmoid].contains(&attention) {
            // A mean over tasks, samples and features: each of 4 · 8 biases has a slope of 2 / 32.
            kl.backward();
            let slope = store.variables()["attention.depth.mean.bias"].grad();
            assert!((slope - 2.0 / 32.0).abs().max().double_value(&[]) < 1e-6, "{attention:?}");
        }
    }
}

#[test]
fn cues_can_be_left_out() {
    let store = VarStore::new(Device::Cpu);
    let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 4));
    let config = ProxyConfig { proxies: Vec::new(), attention: Attention::Concat, ..ProxyConfig::default() };
    let binary = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap();
    let out = binary.forward(&pictures(1), false).unwrap();
    assert!(out.maps.is_empty() && out.depth_score().is_none());
    assert_eq!(out.embedding.size(), [1, 32]);
}

#[test]
fn pictures_that_do_not_fit_are_refused() {
    let (_store, network) = network(Attention::Concat);
    let cpu = (Kind::Float, Device::Cpu);
    for size in [vec![1, 1, 16, 16], vec![1, 3, 18, 16], vec![1, 3, 16, 0], vec![3, 16, 16]] {
        let refused = network.forward(&Tensor::zeros(&size, cpu), false);
        assert!(matches!(refused, Err(Error::BadShape { .. })), "{size:?}");
    }
    assert!(network.forward(&Tensor::zeros([1, 3, 16, 16], (Kind::Double, Device::Cpu)), false).is_err());
    let mut branches = network.branches(&pictures(1), false).unwrap();
    branches.vectors.reverse();
    assert!(matches!(network.fuse(branches, false), Err(Error::BadShape { what: "branches", .. })));
    let mut branches = network.branches(&pictures(1), false).unwrap();
    branches.vectors.shift_remove(&Task::Proxy(Proxy::Depth));
    assert!(matches!(network.fuse(branches, false), Err(Error::BadShape { what: "branches", .. })));
    for (task, size, kind) in [
        (Task::Live, vec![8], Kind::Float),
        (Task::Proxy(Proxy::Depth), vec![2, 8], Kind::Float),
        (Task::Proxy(Proxy::Material), vec![1, 7], Kind::Float),
        (Task::Proxy(Proxy::Depth), vec![1, 8], Kind::Double),
    ] {
        let mut branches = network.branches(&pictures(1), false).unwrap();
        branches.vectors.insert(task, Tensor::zeros(&size, (kind, Device::Cpu)));
        let refused = network.fuse(branches, false);
        assert!(matches!(refused, Err(Error::BadShape { what: "branches", .. })), "{task:?} {size:?}");
    }
    let twice = ProxyConfig { proxies: vec![Proxy::Depth, Proxy::Depth], ..ProxyConfig::default() };
    assert!(matches!(twice.validate(), Err(Error::BadParam { name: "proxies", .. })));
}

#[test]
fn vectors_without_length_or_of_gigabytes_are_refused_before_anything_is_built() {
    for features in [i64::MIN, 0, 4097, i64::MAX] {
        let store = VarStore::new(Device::Cpu);
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 1));
        let config = ProxyConfig { features, ..ProxyConfig::default() };
        let refused = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap_err().to_string();
        assert_eq!(refused, format!("`features`: expected 1 to 4096, found {}", features as f64));
        assert!(store.variables().keys().all(|name| name.starts_with("backbone")));
    }
    for features in [1, 4096] {
        assert!(ProxyConfig { features, ..ProxyConfig::default() }.validate().is_ok(), "{features}");
    }
}

/// What has no gradient must not move: decay is not what teaches an uncertainty.
#[test]
fn a_step_without_gradients_leaves_uncertainties_alone_and_shrinks_weights() {
    let (store, _network) = network(Attention::LogitNormal);
    let value = |name: &str| store.variables()[name].copy().set_requires_grad(false);
    let attention = ["mean.weight", "log_variance.bias"].map(|name| format!("attention.depth.{name}"));
    let before = attention.each_ref().map(|name| value(name));
    let classifier = value("classifier.weight");
    let mut zero = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for tensor in store.variables().values().filter(|tensor| tensor.requires_grad()) {
        zero += tensor.sum(Kind::Float) * 0.0;
    }
    zero.backward();
    let mut optimizer = Adam::new(weight_decay(&store, 5e-4), AdamConfig::default()).unwrap();
    optimizer.step(0.01).unwrap();
    for (name, before) in attention.iter().zip(before) {
        assert_eq!(value(name), before, "{name}");
    }
    assert_ne!(value("classifier.weight"), classifier);
}

/// A cue that is sometimes noise, and then looks a little different, is trusted less where it is noise.
#[test]
fn a_cue_replaced_by_noise_gets_less_weight() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let count = 256;
    let (mut cue, mut other, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..count {
        let label = f32::from(u8::from(random.random::<bool>()));
        let noisy = at % 2 == 1;
        let said = if noisy { f32::from(u8::from(random.random::<bool>())) } else { label };
        // Channel 0 answers, channel 1 shows that something is off.
        cue.extend([2.0 * said - 1.0, if noisy { 2.0 } else { 0.0 }]);
        other.extend([0.5 * (2.0 * label - 1.0) + 1.5 * (random.random::<f32>() - 0.5), 0.0]);
        labels.push(label);
    }
    let tensor = |values: &[f32]| Tensor::from_slice(values).view([count, 2]);
    let labels = Tensor::from_slice(&labels);
    for attention in [Attention::LogitNormal, Attention::Sigmoid] {
        let store = VarStore::new(Device::Cpu);
        let backbone = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 2));
        let config = ProxyConfig { proxies: vec![Proxy::Depth], attention, features: 2, per_channel: false };
        let network = ProxyFas::new(&store.root(), &Standard, backbone, config).unwrap();
        let branches = || Branches {
            vectors: IndexMap::from([(Task::Live, tensor(&other)), (Task::Proxy(Proxy::Depth), tensor(&cue))]),
            maps: IndexMap::new(),
        };
        let mut optimizer = nn::OptimizerConfig::build(nn::Adam::default(), &store, 0.03).unwrap();
        for _ in 0..250 {
            let out = network.fuse(branches(), true).unwrap();
            let loss = out.logit.binary_cross_entropy_with_logits::<Tensor>(&labels, None, None, tch::Reduction::Mean);
            optimizer.backward_step(&loss);
        }
        let out = network.fuse(branches(), false).unwrap();
        let weight = Vec::<f32>::try_from(&out.weights[&Task::Proxy(Proxy::Depth)].view([count])).unwrap();
        let mean = |noisy: usize| weight.iter().skip(noisy).step_by(2).sum::<f32>() / (count / 2) as f32;
        assert!(mean(1) < 0.8 * mean(0), "{attention:?}: {} with noise, {} without", mean(1), mean(0));
    }
}
