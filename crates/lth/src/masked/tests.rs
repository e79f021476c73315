use super::*;
use crate::criterion::{Criterion, Magnitude, Random};
use crate::prunable::Prunable;
use crate::selector::{Amount, Selector};
use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Adam, AdamConfig, Schedule, Sgd, SgdConfig, clip_gradient_norm, parameters};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
use proptest::prelude::*;
use tch::Device;

/// Numbers that look random but do not come from libtorch's generator, which tests running beside this one also seed.
fn wave(shape: &[i64], seed: i64) -> Tensor {
    let count: i64 = shape.iter().product();
    let places = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.7 + seed;
    (places.square() * 0.37).sin().to_kind(Kind::Float).view(shape)
}

/// A few fixed batches of noise.
struct Noise;

impl BatchSource for Noise {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        3
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        Ok(Box::new((0..3).map(move |batch| {
            let input = wave(&[8, 1, 28, 28], (3 * epoch + batch) as i64);
            Ok(Batch { input, target: Tensor::arange(8, (Kind::Int64, Device::Cpu)), index: (0..8).collect() })
        })))
    }
}

/// Weights that no other test has a hand in.
pub(crate) fn lenet() -> (nn::VarStore, Box<dyn Network>) {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard).unwrap();
    for (place, (_, mut variable)) in (0..).zip(trainable_variables(&store)) {
        let values = wave(&variable.size(), 100 + place) * 0.1;
        no_grad(|| variable.copy_(&values));
    }
    (store, network)
}

fn random_mask(weights: &[NamedTensor], seed: u64) -> MaskSet {
    Selector::global().prune(&Random { seed }.score(weights, None).unwrap(), Amount::Rate(0.7), None).unwrap()
}

fn optimizer(kind: &str, store: &nn::VarStore) -> Box<dyn Optimizer> {
    let parameters = parameters(store, 0.01);
    let sgd = |momentum| SgdConfig { momentum, nesterov: false };
    match kind {
        "sgd" => Box::new(Sgd::new(parameters, sgd(0.0)).unwrap()),
        "momentum" => Box::new(Sgd::new(parameters, sgd(0.9)).unwrap()),
        _ => Box::new(Adam::new(parameters, AdamConfig::default()).unwrap()),
    }
}

/// Masks weights after each step and leaves gradients alone.
struct WeightsOnly(MaskObserver);

impl Observer for WeightsOnly {
    fn name(&self) -> &str {
        "weights only"
    }

    fn after_step(&mut self, step: &StepContext, optimizer: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        self.0.after_step(step, optimizer)
    }
}

/// Trains two epochs with some observer and returns the variables and the optimizer's state.
fn train(kind: &str, observer: impl FnOnce(&nn::VarStore) -> Option<Box<dyn Observer>>) -> Vec<NamedTensor> {
    let (store, network) = lenet();
    let mut observer = observer(&store);
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = optimizer(kind, &store);
    let config = TrainConfig { epochs: 2, seed: 0, schedule: Schedule::Constant { peak: 0.01 } };
    let mut trainer = Trainer::new(config, &mut objective, optimizer.as_mut()).unwrap();
    if let Some(observer) = &mut observer {
        trainer.observe(observer.as_mut());
    }
    trainer.fit(&Noise).unwrap();
    drop(trainer);
    let mut all = trainable_variables(&store);
    all.extend(optimizer.state().into_iter().map(|(name, tensor)| (format!("state/{name}"), tensor.copy())));
    all
}

fn find<'a>(tensors: &'a [NamedTensor], name: &str) -> &'a Tensor {
    &tensors.iter().find(|(found, _)| found == name).unwrap().1
}

/// Whether all values at dropped places are +0 to the bit.
fn dropped_are_zero(mask: &Mask, tensor: &Tensor) -> bool {
    let values = Vec::<f32>::try_from(tensor.detach().view(-1)).unwrap();
    values.iter().zip(mask.bits().iter()).all(|(value, kept)| kept || value.to_bits() == 0)
}

#[test]
fn weights_and_optimizer_state_stay_zero_where_the_mask_is() {
    for kind in ["sgd", "momentum", "adam"] {
        let mut mask = None;
        let trained = train(kind, |store| {
            let found = random_mask(&Prunable::default().select_from(store).unwrap(), 1);
            let observer = MaskObserver::new(&found, store).unwrap();
            mask = Some(found);
            Some(Box::new(observer))
        });
        let states: &[&str] = match kind {
            "sgd" => &[],
            "momentum" => &["momentum"],
            _ => &["mean", "square"],
        };
        for (name, layer) in mask.unwrap().iter() {
            assert!(dropped_are_zero(layer, find(&trained, name)), "{kind}: {name}");
            for state in states {
                assert!(
                    dropped_are_zero(layer, find(&trained, &format!("state/{name}.{state}"))),
                    "{kind}: {name}.{state}"
                );
            }
        }
    }
}

#[test]
fn masking_gradients_equals_masking_weights_to_the_bit_for_element_wise_optimizers() {
    for kind in ["sgd", "momentum", "adam"] {
        let make = |store: &nn::VarStore| {
            MaskObserver::new(&random_mask(&Prunable::default().select_from(store).unwrap(), 1), store).unwrap()
        };
        let gradients = train(kind, |store| Some(Box::new(make(store))));
        let weights = train(kind, |store| Some(Box::new(WeightsOnly(make(store)))));
        for (name, tensor) in gradients.iter().filter(|(name, _)| !name.starts_with("state/")) {
            assert!(tensor.equal(find(&weights, name)), "{kind}: {name}");
        }
    }
}

#[test]
fn a_mask_that_keeps_everything_is_dense_training_to_the_bit() {
    let dense = train("momentum", |_| None);
    let masked = train("momentum", |store| {
        let ones = MaskSet::ones_like(&Prunable::default().select_from(store).unwrap());
        Some(Box::new(MaskObserver::new(&ones, store).unwrap()))
    });
    assert!(dense.iter().all(|(name, tensor)| tensor.equal(find(&masked, name))));
}

#[test]
fn norms_taken_after_the_mask_see_live_gradients_only() {
    let (store, _network) = lenet();
    let weights = Prunable::default().select_from(&store).unwrap();
    let mask = random_mask(&weights, 2);
    let mut observer = MaskObserver::new(&mask, &store).unwrap();
    let loss = weights.iter().map(|(_, weight)| weight.sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
    loss.backward();
    // Every gradient is 1, so the norm is the root of the number of gradients that count.
    let norm = || clip_gradient_norm(&parameters(&store, 0.0), f64::INFINITY);
    assert!((norm() - (mask.weights() as f64).sqrt()).abs() < 1e-2);
    observer.mask_gradients().unwrap();
    assert!((norm() - (mask.survivors() as f64).sqrt()).abs() < 1e-2);
}

#[test]
fn momentum_from_before_the_mask_is_cleared() {
    let (store, network) = lenet();
    let weights = Prunable::default().select_from(&store).unwrap();
    let mut optimizer = optimizer("momentum", &store);
    network.forward(&Tensor::ones([2, 784], (Kind::Float, Device::Cpu)), true).sum(Kind::Float).backward();
    optimizer.step(0.01).unwrap();
    let mask = Selector::global().prune(&Magnitude.score(&weights, None).unwrap(), Amount::Rate(0.5), None).unwrap();
    let mut observer = MaskObserver::new(&mask, &store).unwrap();
    observer.before_epoch(Progress::default(), optimizer.as_mut()).unwrap();
    for (name, layer) in mask.iter() {
        assert!(dropped_are_zero(layer, &optimizer.state()[&format!("{name}.momentum")]), "{name}");
    }
}

#[test]
fn nan_gradients_of_dropped_weights_are_cleared_too() {
    let weight = Tensor::from_slice(&[1_f32, 2.0, 3.0]).set_requires_grad(true);
    let mask = MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1_u8, 0, 1]))]).unwrap();
    let mut observer = MaskObserver::on(&mask, &[("w".into(), weight.shallow_clone())]).unwrap();
    (&weight * Tensor::from_slice(&[1.0, f32::NAN, 1.0])).sum(Kind::Float).backward();
    observer.mask_gradients().unwrap();
    assert_eq!(Vec::<f32>::try_from(weight.grad()).unwrap(), [1.0, 0.0, 1.0]);
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let (mut store, _network) = lenet();
    let mask = MaskSet::from_tensors(&[("fc1.weight".into(), Tensor::from_slice(&[1_u8, 0]))]).unwrap();
    let refused = MaskObserver::new(&mask, &store).unwrap_err().to_string();
    assert!(refused.contains("`fc1.weight`: expected a tensor of shape [2], found [300, 784]"), "{refused}");
    store.freeze();
    let refused = MaskObserver::new(&mask, &store).unwrap_err().to_string();
    assert!(refused.contains("`fc1.weight`: expected a trainable variable, found a frozen one"), "{refused}");
}

proptest! {
    #[test]
    fn every_layout_and_kind_is_masked_alike(
        bits in prop::collection::vec(0_u8..2, 120),
        order in Just(vec![0_i64, 1, 2, 3]).prop_shuffle(),
        double: bool,
        gaps: bool,
    ) {
        let shape = [2_i64, 3, 4, 5];
        let mask = MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&bits).view(shape))]).unwrap();
        let kind = if double { Kind::Double } else { Kind::Float };
        let dense = Tensor::arange_start(1, 121, (kind, Device::Cpu)).view(shape) * -1.0;
        let back: Vec<i64> = (0..4).map(|axis| order.iter().position(|a| *a == axis).unwrap() as i64).collect();
        let mut laid = dense.permute(&order).contiguous().permute(&back);
        if gaps {
            // Every second element of a tensor twice as wide.
            let wide = Tensor::stack(&[&laid, &laid], -1).contiguous();
            laid = wide.select(-1, 0);
        }
        MaskObserver::on(&mask, &[("w".into(), laid.shallow_clone())]).unwrap();
        let expected = dense.masked_fill(&mask["w"].to_tensor((Kind::Bool, Device::Cpu)).logical_not(), 0.0);
        prop_assert!(laid.equal(&expected));
    }
}
