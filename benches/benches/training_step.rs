//! One training step of ResNet-20 on a batch of 128 CIFAR-sized images: our `Trainer`, everything included.
//!
//! The peer is `peers/training_step.py`: the same network, batch and optimizer in PyTorch's eager loop, from the same
//! weights, which this bench leaves in `target/training_step.safetensors`.

mod case;

use benches::record;
use core_tensor::checkpoint::state_of;
use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
use criterion::{Criterion, criterion_group, criterion_main};
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

fn resnet20_step(criterion: &mut Criterion) {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(20, 10).and_then(|net| net.build(&store.root(), &Standard)).unwrap();
    let images = Tensor::randn([128, 3, 32, 32], (Kind::Float, Device::Cpu));
    let labels = Tensor::randint(10, [128], (Kind::Int64, Device::Cpu));
    case::leave("training_step", state_of(&store), &[("images", &images), ("labels", &labels)]);
    let loss = tch::no_grad(|| network.forward(&images, true).cross_entropy_for_logits(&labels));
    record("training_step/resnet20_batch128", "loss", loss.double_value(&[]));

    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default()).unwrap();
    let config = TrainConfig { epochs: u64::MAX, seed: 0, schedule: Schedule::Constant { peak: 0.1 } };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer).unwrap();
    let source = OneBatch(images, labels);
    let mut group = criterion.benchmark_group("training_step");
    group.sample_size(10).measurement_time(std::time::Duration::from_secs(8));
    group.bench_function("resnet20_batch128", |bencher| bencher.iter(|| trainer.fit_epoch(&source).unwrap()));
    group.finish();
}

criterion_group!(benches, resnet20_step);
criterion_main!(benches);
