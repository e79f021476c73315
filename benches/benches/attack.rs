//! PGD-20 on 1 000 images: on a network as it is trained, with its batch norms folded, and with fooled images dropped.
//!
//! The peers are `peers/attack_pgd.py` (torchattacks and foolbox): same network, weights and images, which this bench
//! leaves for them in `target/attack_pgd.safetensors`. AutoAttack takes minutes, so it is no criterion bench: see
//! `peers/attack_autoattack.py`.

// The macros of criterion make items without documentation.
#![allow(missing_docs)]

mod case;

use std::time::Duration;

use benches::record;
use contrast::attack::{Attack, Ball, EvalMode, Goal, Pgd, Start};
use core_tensor::checkpoint::state_of;
use core_tensor::networks::{Architecture, BlockKind, ResNetConfig, Shortcut, Stem};
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use criterion::{Criterion, criterion_group, criterion_main};
use tch::{Device, Kind, Tensor, nn};

fn pgd(criterion: &mut Criterion) {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let config = ResNetConfig {
        in_channels: 1,
        stem: Stem::Cifar,
        block: BlockKind::Basic,
        widths: vec![8, 16, 32],
        blocks: vec![1, 1, 1],
        shortcut: Shortcut::Projection,
        classes: 10,
    };
    let architecture = Architecture::ResNet(config);
    let network = architecture.build(&store.root(), &Standard).expect("a legal network");
    let images = Tensor::rand([1000, 1, 28, 28], (Kind::Float, Device::Cpu));
    // Statistics that fit the images, and labels that the network agrees with.
    (0..40).for_each(|_| drop(tch::no_grad(|| network.forward(&images, true))));
    let labels = tch::no_grad(|| network.forward(&images, false)).argmax(-1, false);
    case::leave("attack_pgd", state_of(&store), &[("images", &images), ("labels", &labels)]);

    let model = EvalMode(network.as_ref());
    let folded = architecture.folded(&state_of(&store)).expect("the network's own state");
    let goal = Goal::untargeted(&labels);
    let plain = Pgd::new(Ball::linf(8.0 / 255.0)).with_start(Start::Image);
    // Whichever is attacked, the network with its norms is the judge.
    let standing = |model: &EvalMode| {
        let found = plain.run(model, &images, &goal, 0).expect("a legal attack").images;
        let right = tch::no_grad(|| network.forward(&found, false)).argmax(-1, false).eq_tensor(&labels);
        right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    };
    record("attack/pgd20_resnet8_1000", "robust_accuracy", standing(&model));
    record("attack/pgd20_resnet8_1000_folded", "robust_accuracy", standing(&EvalMode(folded.as_ref())));
    let mut group = criterion.benchmark_group("attack");
    group.sample_size(10).measurement_time(Duration::from_secs(30));
    group.bench_function("pgd20_resnet8_1000", |bencher| {
        bencher.iter(|| plain.run(&model, &images, &goal, 0).expect("a legal attack"));
    });
    group.bench_function("pgd20_resnet8_1000_folded", |bencher| {
        bencher.iter(|| plain.run(&EvalMode(folded.as_ref()), &images, &goal, 0).expect("a legal attack"));
    });
    let eager = plain.clone().stopping_early();
    group.bench_function("pgd20_resnet8_1000_stopping_early", |bencher| {
        bencher.iter(|| eager.run(&model, &images, &goal, 0).expect("a legal attack"));
    });
    group.finish();
}

criterion_group!(benches, pgd);
criterion_main!(benches);
