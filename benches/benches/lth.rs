//! What pruning costs.
//!
//! | bench | target |
//! |---|---|
//! | `lth/global_magnitude_resnet50` | 0.3 s |
//! | `lth/global_magnitude_resnet50_applied` | a tenth of `torch.nn.utils.prune.global_unstructured` (`peers/lth_prune.py`) |
//! | `lth/mask_resnet20` | 2 % of `lth/step_resnet20`, the training step that it is added to |

// Criterion's macro makes a public function without a word.
#![allow(missing_docs)]

use benches::record;
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Optimizer, Sgd, SgdConfig, parameters};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lth::criterion::{Criterion as _, Magnitude};
use lth::{Amount, EmptyLayer, MaskObserver, MaskSet, NamedTensor, Prunable, Selector};
use std::hint::black_box;
use tch::{Device, Kind, Tensor, nn};

fn build(architecture: &Architecture) -> (nn::VarStore, Box<dyn Network>) {
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let network = architecture.build(&store.root(), &Standard).unwrap();
    (store, network)
}

fn prune(weights: &[NamedTensor], within: Option<&MaskSet>) -> MaskSet {
    // Untrained weights: whole layers may go, as torch lets them.
    let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
    let scores = Magnitude.score(weights, within).unwrap();
    selector.prune(&scores, Amount::Rate(0.8), within).unwrap()
}

fn selection(criterion: &mut Criterion) {
    let (store, _network) = build(&Architecture::imagenet_resnet(50, 1000).unwrap());
    let weights = Prunable::conv_and_linear().select_from(&store).unwrap();
    let mut group = criterion.benchmark_group("lth");
    group.sample_size(20);
    group.bench_function("global_magnitude_resnet50", |bencher| bencher.iter(|| black_box(prune(&weights, None))));
    let earlier = prune(&weights, None);
    for name in ["global_magnitude_resnet50", "global_magnitude_resnet50_applied"] {
        record(&format!("lth/{name}"), "kept", earlier.survivors() as f64);
    }
    let fresh: Vec<Tensor> = weights.iter().map(|(_, weight)| weight.detach().copy()).collect();
    let restore = || {
        let put_back = |((_, weight), fresh): (&NamedTensor, &Tensor)| weight.shallow_clone().copy_(fresh);
        tch::no_grad(|| weights.iter().zip(&fresh).for_each(put_back));
    };
    group.bench_function("global_magnitude_resnet50_applied", |bencher| {
        let pruned = |()| {
            let masks = prune(&weights, None);
            masks.apply(&weights).unwrap();
            masks
        };
        bencher.iter_batched(restore, pruned, BatchSize::PerIteration);
    });
    restore();
    group
        .bench_function("second_round_resnet50", |bencher| bencher.iter(|| black_box(prune(&weights, Some(&earlier)))));
    group.finish();
}

fn masking(criterion: &mut Criterion) {
    let (store, network) = build(&Architecture::cifar_resnet(20, 10).unwrap());
    let weights = Prunable::conv_only().select_from(&store).unwrap();
    let mut observer = MaskObserver::new(&prune(&weights, None), &store).unwrap();
    let mut optimizer = Sgd::new(parameters(&store, 2e-4), SgdConfig::default()).unwrap();
    let images = Tensor::randn([128, 3, 32, 32], (Kind::Float, Device::Cpu));
    let labels = Tensor::randint(10, [128], (Kind::Int64, Device::Cpu));
    let mut step = || {
        optimizer.zero_grad().unwrap();
        network.forward(&images, true).cross_entropy_for_logits(&labels).backward();
        optimizer.step(0.01).unwrap();
    };
    step();
    let mut group = criterion.benchmark_group("lth");
    group.bench_function("mask_resnet20", |bencher| {
        bencher.iter(|| {
            observer.mask_gradients().unwrap();
            observer.mask_weights().unwrap();
        });
    });
    group.sample_size(10);
    group.bench_function("step_resnet20", |bencher| bencher.iter(&mut step));
    group.finish();
}

criterion_group!(benches, selection, masking);
criterion_main!(benches);
