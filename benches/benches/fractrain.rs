//! FracTrain: rounding, a training step at 8/8/8 bits, and what controller and ledger add to a step.
//!
//! | bench | target |
//! |---|---|
//! | `fractrain/step/static_8_8` | 1.35 × `fractrain/step/full_precision` |
//! | `fractrain/step/static_8_8` | the peer's step ÷ 1.5: `peers/fractrain_step.py` |
//! | `fractrain/stochastic_10m/kernel` | a third of `fractrain/stochastic_10m/tensor_operations` |
//! | `fractrain/observers` | 0.5 % of `fractrain/step/static_8_8` |

// The macros of criterion make items without documentation.
#![allow(missing_docs)]

mod case;

use benches::record;
use core_tensor::checkpoint::state_of;
use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, trace_workload};
use core_tensor::optim::{Optimizer, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, EpochReport, Observer, Progress, StepContext, TrainConfig, Trainer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quant::fractrain::{
    Affine, Bits, CostLedger, DfqConfig, Gates, Pfq, PlateauConfig, PlateauIndicator, Precision, PrecisionController,
    QuantConfig, QuantFactory, QuantHandle, Rounding, WithGateCost,
};
use std::hint::black_box;
use std::time::Duration;
use tch::{Device, Kind, Tensor, nn};

/// The same batch, once an epoch, so that an epoch is a step.
struct OneBatch(Tensor, Tensor);

impl BatchSource for OneBatch {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        1
    }

    fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let (input, target) = (self.0.shallow_clone(), self.1.shallow_clone());
        Ok(Box::new(std::iter::once(Ok(Batch { input, target, index: (0..128).collect() }))))
    }
}

fn batch() -> OneBatch {
    let images = Tensor::randn([128, 3, 32, 32], (Kind::Float, Device::Cpu));
    OneBatch(images, Tensor::randint(10, [128], (Kind::Int64, Device::Cpu)))
}

struct Net {
    store: nn::VarStore,
    network: Box<dyn Network>,
    handle: QuantHandle,
    gates: Option<Gates>,
}

/// ResNet-20 with everything at one precision, or with gates.
fn resnet20(precision: Option<Precision>) -> Net {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let (network, handle, gates) = {
        let config = QuantConfig::default();
        let factory = match precision {
            Some(precision) => QuantFactory::new(config, precision),
            None => QuantFactory::gated(config, DfqConfig::default(), store.root() / "gates"),
        };
        let factory = factory.expect("default settings");
        let network = Architecture::cifar_resnet(20, 10).and_then(|net| net.build(&store.root(), &factory));
        (network.expect("a depth that is there"), factory.handle(), factory.gates())
    };
    Net { store, network, handle, gates }
}

fn step(criterion: &mut Criterion) {
    let source = batch();
    let eight = Precision::new(8, 8).expect("bits in range");
    let bits = |width: u32| Some(Bits::new(width).expect("bits in range"));
    let bifurcated = Precision { weight_gradient: bits(16), ..eight };
    let mut group = criterion.benchmark_group("fractrain/step");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    let arms = [
        ("full_precision", Some(Precision::FULL)),
        ("static_8_8", Some(eight)),
        ("bifurcated_8_8_16", Some(bifurcated)),
        ("gated", None),
    ];
    for (name, precision) in arms {
        let net = resnet20(precision);
        if name == "static_8_8" {
            let mut state = state_of(&net.store);
            // Moving averages for evaluation, which the peer has none of.
            state.retain(|name, _| !name.ends_with("input_range"));
            case::leave("fractrain_step", state, &[("images", &source.0), ("labels", &source.1)]);
            let logits = tch::no_grad(|| net.network.forward(&source.0, true));
            let loss = logits.cross_entropy_for_logits(&source.1).double_value(&[]);
            record("fractrain/step/static_8_8", "loss", loss);
        }
        let mut plain = CrossEntropy::new(net.network.as_ref());
        let mut costly;
        let objective: &mut dyn core_tensor::train::Objective<Batch> = match &net.gates {
            Some(gates) => {
                costly = WithGateCost::new(&mut plain, gates);
                &mut costly
            }
            None => &mut plain,
        };
        let mut optimizer = Sgd::new(parameters(&net.store, 1e-4), SgdConfig::default()).expect("settings in range");
        let config = TrainConfig { epochs: u64::MAX, seed: 0, schedule: Schedule::Constant { peak: 0.01 } };
        let mut trainer = Trainer::new(config, objective, &mut optimizer).expect("settings in range");
        group.bench_function(name, |bencher| bencher.iter(|| trainer.fit_epoch(&source).expect("a finite loss")));
    }
    group.finish();
}

fn rounding(criterion: &mut Criterion) {
    let values = Tensor::randn([10_000_000], (Kind::Float, Device::Cpu));
    let affine = Affine::per_tensor(Bits::new(8).expect("bits in range"));
    let mut group = criterion.benchmark_group("fractrain/stochastic_10m");
    group.sample_size(10).measurement_time(Duration::from_secs(4)).throughput(Throughput::Elements(10_000_000));
    let mut seed = 0;
    group.bench_function("kernel", |bencher| {
        bencher.iter(|| {
            seed += 1;
            black_box(affine.round(&values, Rounding::Stochastic { seed }).expect("finite values"))
        });
    });
    group.bench_function("kernel_nearest", |bencher| {
        bencher.iter(|| black_box(affine.round(&values, Rounding::Nearest).expect("finite values")));
    });
    group.bench_function("tensor_operations", |bencher| {
        bencher.iter(|| {
            let (low, high) = (values.min(), values.max());
            let scale = (high - &low) / 255.0;
            let noise = values.rand_like() - 0.5;
            let level = ((&values - &low) / &scale + noise).clamp(0.0, 255.0).round();
            black_box(level * &scale + &low)
        });
    });
    group.finish();
}

/// Controller and ledger alone, as they are called in a step that costs nothing.
fn observers(criterion: &mut Criterion) {
    let net = resnet20(Some(Precision::new(8, 8).expect("bits in range")));
    let workload = trace_workload("net", net.network.as_ref(), &[3, 32, 32], Device::Cpu).expect("a valid network");
    let stages = [(3, 6), (4, 6), (6, 8), (8, 8)];
    let indicator = PlateauIndicator::new(PlateauConfig::default()).expect("default settings");
    let mut control = PrecisionController::new(&net.handle, Pfq::new(&stages, indicator).expect("bits in range"));
    let mut ledger = CostLedger::new(&workload, &net.handle, None).expect("its own workload");
    let mut optimizer = Sgd::new(parameters(&net.store, 1e-4), SgdConfig::default()).expect("settings in range");
    let optimizer: &mut dyn Optimizer = &mut optimizer;
    criterion.bench_function("fractrain/observers", |bencher| {
        bencher.iter(|| {
            let progress = Progress::default();
            let mut step = StepContext { progress, steps_per_epoch: 1, loss: 1.0, learning_rate: 0.1 };
            control.before_epoch(progress, optimizer).expect("nothing to refuse");
            for observer in [&mut control as &mut dyn Observer, &mut ledger] {
                observer.after_backward(&mut step, optimizer).expect("nothing to refuse");
                observer.after_step(&step, optimizer).expect("nothing to refuse");
            }
            let metrics = [("cross_entropy".to_owned(), 1.0)].into_iter().collect();
            let mut report = EpochReport { epoch: 0, step: 1, learning_rate: 0.1, metrics };
            for observer in [&mut control as &mut dyn Observer, &mut ledger] {
                observer.after_epoch(&mut report, optimizer).expect("nothing to refuse");
            }
            black_box(report)
        });
    });
}

criterion_group!(benches, step, rounding, observers);
criterion_main!(benches);
