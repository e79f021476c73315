//! What contrastive learning costs beyond its network passes.
//!
//! | bench | target |
//! |---|---|
//! | `contrast/nt_xent_*` | no slower than `contrast/nt_xent_plain_*` and PyTorch's tensor operations (`peers/nt_xent.py`) |
//! | `contrast/acl_step` | 3 % above its network passes alone: `cargo run --release -p contrast --example acl_share -- 100` |
//!
//! Peak memory of NT-Xent: `cargo run --release -p contrast --example nt_xent_memory -- blocks 2048` (or `plain 2048`).

// Criterion's macro makes a public function without a word.
#![allow(missing_docs)]

mod case;

use benches::record;
use contrast::learn::{
    Acl, AclConfig, BranchSwitch, DualBatchNorm, Layout, Projector, ProjectorConfig, ViewBatch, nt_xent, nt_xent_plain,
};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::train::{Objective, Progress};
use criterion::{Criterion, criterion_group, criterion_main};
use indexmap::IndexMap;
use std::hint::black_box;
use tch::{Device, Kind, Tensor, nn};

fn loss(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contrast");
    group.sample_size(20);
    // 1,024 rows, and two views of 1,024 images.
    let [few, many] = [1024, 2048].map(|rows| Tensor::randn([rows, 128], (Kind::Float, Device::Cpu)));
    case::leave("nt_xent", IndexMap::new(), &[("few", &few), ("many", &many)]);
    for embeddings in [few, many] {
        let (rows, embeddings) = (embeddings.size()[0], embeddings.set_requires_grad(true));
        type Loss = fn(&Tensor, f64, Layout) -> contrast::learn::Result<Tensor>;
        for (name, loss) in [("nt_xent", nt_xent as Loss), ("nt_xent_plain", nt_xent_plain as Loss)] {
            let value = loss(&embeddings, 0.5, Layout::Stacked).unwrap();
            record(&format!("contrast/{name}_{rows}x128"), "loss", value.double_value(&[]));
            group.bench_function(format!("{name}_{rows}x128"), |bencher| {
                bencher.iter(|| {
                    let value = loss(&embeddings, 0.5, Layout::Stacked).unwrap();
                    black_box(Tensor::run_backward(&[value], &[&embeddings], false, false))
                });
            });
        }
    }
    group.finish();
}

/// A dual-stream step, forward and backward: five passes forward and backward to the images, two forward and one backward to
/// the weights, and what is around them.
fn step(criterion: &mut Criterion) {
    let switch = BranchSwitch::default();
    let store = nn::VarStore::new(Device::Cpu);
    let layers = DualBatchNorm::new(&switch);
    let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![16, 32, 64], classes: 10 });
    let network = architecture.build(&store.root(), &layers).unwrap();
    let projector = Projector::new(&(store.root() / "projector"), &layers, 64, &ProjectorConfig::acl(64)).unwrap();
    let views = Tensor::rand([256, 1, 28, 28], (Kind::Float, Device::Cpu));
    let config = AclConfig::default();
    let mut acl = Acl::new((network.as_ref(), &projector), &switch, config, 0).unwrap();
    let batch = ViewBatch { views: views.shallow_clone(), index: (0..128).collect() };
    let mut group = criterion.benchmark_group("contrast");
    group.sample_size(10);
    group.bench_function("acl_step", |bencher| {
        bencher.iter(|| {
            acl.loss(&batch, &Progress::default()).unwrap().total.backward();
            store.variables().values_mut().for_each(Tensor::zero_grad);
        });
    });
    group.finish();
}

criterion_group!(benches, loss, step);
criterion_main!(benches);
