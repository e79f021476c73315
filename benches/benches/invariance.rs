//! What exhaustive shifts cost.
//!
//! | bench | target |
//! |---|---|
//! | `invariance/resnet18_shifts` | a third of the naive batched evaluation in PyTorch (`peers/invariance_shifts.py`) |
//! | `invariance/resnet18_shifts_naive` | the same evaluated plainly here, for comparison |
//! | `invariance/blur_pool` | no more than `antialiased_cnns.BlurPool` (`peers/invariance_blur_pool.py`) |

// Criterion's macro makes a public function without a word.
#![allow(missing_docs)]

mod case;

use benches::record;
use core_tensor::checkpoint::state_of;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use tch::{Device, Kind, Tensor, nn};
use vision::invariance::reuse::ConvProgram;
use vision::invariance::{BlurConfig, BlurPool2d, NetworkProbe, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};

fn object() -> Tensor {
    tch::manual_seed(0);
    Tensor::rand([3, 32, 32], (Kind::Float, Device::Cpu))
}

/// 32 × 32 on 96 × 96, every pixel: 65 × 65 positions, or those of some rows.
fn study(rows: usize) -> (ShiftStudy, Sprite) {
    let grid = ShiftGrid::new([96, 96], [32, 32], 1).unwrap();
    let grid = grid.window([0, 0], [rows, 65]).unwrap();
    let object = Sprite::opaque(Picture::from_tensor(&object()).unwrap());
    (ShiftStudy { batch: 128, ..ShiftStudy::new(grid, Placer::white_imagenet()) }, object)
}

/// What is timed is the same: features of all positions with reuse against some rows of them evaluated plainly.
fn equal(program: &ConvProgram, probe: &NetworkProbe) {
    let (all, object) = study(65);
    let saved = program.savings(&all, &object).unwrap();
    println!(
        "multiply-accumulates: {:.2} times fewer, {} steps shared",
        saved.naive / saved.reused,
        saved.shared_steps
    );
    let reused = program.run(&all, &object, &["avgpool"]).unwrap();
    let mean = reused.features("avgpool").unwrap().mean(Kind::Double).double_value(&[]);
    record("invariance/resnet18_shifts", "mean_feature", mean);
    for row in [0, 31, 64] {
        let some = ShiftStudy { grid: all.grid.window([row, 0], [1, 65]).unwrap(), ..study(1).0 };
        let naive = some.run(probe, &object).unwrap();
        let same = reused.features("avgpool").unwrap().narrow(0, 65 * row as i64, 65);
        let gap = (same - naive.features("avgpool").unwrap()).abs().max().double_value(&[]);
        println!("row {row}: largest difference {gap:.1e}");
        assert!(gap <= 1e-4);
    }
}

fn shifts(criterion: &mut Criterion) {
    let architecture = Architecture::imagenet_resnet(18, 1000).unwrap();
    tch::manual_seed(0);
    let store = nn::VarStore::new(Device::Cpu);
    let network = architecture.build(&store.root(), &Standard).unwrap();
    case::leave("invariance_shifts", state_of(&store), &[("object", &object())]);
    let program = ConvProgram::from_state(&architecture, &state_of(&store)).unwrap();
    let probe = NetworkProbe::new(network.as_ref(), &["avgpool"], [3, 96, 96]).unwrap();
    let mut group = criterion.benchmark_group("invariance");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    let (all, object) = study(65);
    let mut compared = false;
    group.bench_function("resnet18_shifts", |bencher| {
        // Only now, so that a filter that leaves this out need not wait.
        if !std::mem::replace(&mut compared, true) {
            equal(&program, &probe);
        }
        bencher.iter(|| black_box(program.run(&all, &object, &["avgpool"]).unwrap()));
    });
    // A thirteenth of the positions: the plain evaluation does not care which.
    let (some, object) = study(5);
    group.bench_function("resnet18_shifts_naive_thirteenth", |bencher| {
        bencher.iter(|| black_box(some.run(&probe, &object).unwrap()));
    });
    group.finish();
}

fn pooling(criterion: &mut Criterion) {
    // The peer makes the same one: at place p, 48271 p mod 2147483647 mod 1000 thousandths.
    let places = Tensor::arange(32 * 64 * 56 * 56, (Kind::Int64, Device::Cpu));
    let map = ((places * 48_271).remainder(2_147_483_647).remainder(1000) / 1000).view([32, 64, 56, 56]);
    let pool = BlurPool2d::new(64, BlurConfig::default()).unwrap();
    let mean_square = pool.pool(&map).unwrap().to_kind(Kind::Double).square().mean(Kind::Double).double_value(&[]);
    record("invariance/blur_pool", "mean_square", mean_square);
    let mut group = criterion.benchmark_group("invariance");
    group.sample_size(20);
    group.bench_function("blur_pool", |bencher| bencher.iter(|| black_box(pool.pool(&map).unwrap())));
    group.finish();
}

criterion_group!(benches, shifts, pooling);
criterion_main!(benches);
