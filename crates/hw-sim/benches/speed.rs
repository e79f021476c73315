//! The crate's speed, a row of its README's table a function. Memory of the mapping search is printed once.

#![expect(missing_docs, reason = "criterion_group! makes an item without a comment")]

// The file that benches of the torch crates have as a library: this crate builds without libtorch.
#[allow(unreachable_pub, unused_imports, reason = "elsewhere it is a library with tests")]
#[path = "../../../benches/src/lib.rs"]
mod results;

use std::hint::black_box;
use std::path::Path;

use core_tensor::workload::Pass;
use criterion::{Criterion, criterion_group, criterion_main};
use hw_sim::Accelerator;
use hw_sim::bitfusion::{BitFusion, FusionLayer};
use hw_sim::comparison::Sweep;
use hw_sim::networks::{builtin, with_bits};
use hw_sim::scalesim::{self, Interface, ScaleSimConfig, Topology};
use hw_sim::systolic::{Dataflow, Gemm, SystolicArray, emulate};
use hw_sim::task::Task;
use results::record;

fn closed_form(c: &mut Criterion) {
    let net = builtin("resnet50").unwrap();
    let gemms: Vec<Gemm> =
        Task::of_workload(&net, &[Pass::Forward]).unwrap().iter().map(|task| task.shape.gemm()).collect();
    let array = SystolicArray::new(128, 128, Dataflow::OutputStationary);
    c.bench_function("resnet50 on 128x128 os, closed form, a network", |b| {
        b.iter(|| black_box(&gemms).iter().map(|&gemm| array.cost("l", gemm).unwrap().cycles).sum::<u64>());
    });
    let tpu = Accelerator::preset("tpu-like").unwrap();
    let net = with_bits(net, [8, 8, 8]);
    c.bench_function("resnet50 on tpu-like, cycles, traffic and energy, a network", |b| {
        b.iter(|| tpu.cost(black_box(&net)).unwrap())
    });
}

/// What `benches/peers/hw_sim_scalesim.py` has SCALE-Sim do with the layers that are left in `target/hw_sim_resnet18.csv`.
fn beside_scalesim(c: &mut Criterion) {
    let net = builtin("resnet18").unwrap();
    let topology = Topology::from_workload(&net).unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../hw_sim_resnet18.csv");
    std::fs::write(path, topology.to_csv()).unwrap();
    let array = SystolicArray::new(32, 32, Dataflow::OutputStationary);
    let config = ScaleSimConfig {
        run_name: "peer".into(),
        array,
        buffer_kb: [64; 3],
        interface: Interface::Calc,
        sparsity: None,
    };
    let tasks = Task::of_workload(&net, &[Pass::Forward]).unwrap();
    let gemms: Vec<Gemm> = tasks.iter().map(|task| task.shape.gemm()).collect();
    let cycles = |gemms: &[Gemm]| gemms.iter().map(|&gemm| array.cost("l", gemm).unwrap().cycles).sum::<u64>();
    let (accelerator, net) = (config.to_accelerator().unwrap(), with_bits(net, [8, 8, 8]));
    let emulated = scalesim::run(&config, &topology).unwrap();
    // A report has the index of a layer's last cycle, one less than how many there are.
    let emulated_cycles = emulated.total_cycles() + emulated.layers.len() as u64;
    let reads = emulated.layers.iter().map(|layer| layer.streams.input.dram_reads + layer.streams.weight.dram_reads);
    let id = |name: &str| format!("resnet18 on 32x32 os/{name}");
    record(&id("cycles in closed form"), "compute_cycles", cycles(&gemms) as f64);
    let cost = accelerator.cost(&net).unwrap();
    let computing = cost.cycles() - cost.stall_cycles();
    record(&id("cycles, traffic and energy in closed form"), "compute_cycles", computing as f64);
    record(&id("emulated reports"), "cycles", emulated_cycles as f64);
    record(&id("emulated reports"), "dram_reads", reads.sum::<u64>() as f64);

    let mut group = c.benchmark_group("resnet18 on 32x32 os");
    group.bench_function("cycles in closed form", |b| b.iter(|| cycles(black_box(&gemms))));
    group.bench_function("cycles, traffic and energy in closed form", |b| {
        b.iter(|| accelerator.cost(black_box(&net)).unwrap())
    });
    group.sample_size(10);
    group.bench_function("emulated reports", |b| {
        b.iter(|| scalesim::run(black_box(&config), &topology).unwrap().files())
    });
    group.finish();
}

fn emulation(c: &mut Criterion) {
    let net = Topology::from_workload(&builtin("resnet18").unwrap()).unwrap();
    let mut group = c.benchmark_group("resnet18 at 32x32, exact DRAM reads, one core");
    group.sample_size(10);
    for dataflow in Dataflow::ALL {
        let array = SystolicArray::new(32, 32, dataflow);
        group.bench_function(dataflow.short_name(), |b| {
            b.iter(|| {
                let reads = net.layers.iter().map(|layer| emulate("l", &array, &layer.operands(), [64; 3]).unwrap());
                reads.map(|found| found.input.dram_reads + found.weight.dram_reads).sum::<u64>()
            });
        });
    }
    group.finish();
}

fn tiling(c: &mut Criterion) {
    let array = BitFusion::default();
    let net = with_bits(builtin("resnet18").unwrap(), [4, 4, 8]);
    let tasks = Task::of_workload(&net, &[Pass::Forward]).unwrap();
    let layers: Vec<FusionLayer> = tasks
        .iter()
        .map(|task| FusionLayer {
            kernel: [task.shape.r, task.shape.s],
            output: [task.shape.y, task.shape.x],
            stride: task.shape.stride[0],
            in_channels: task.shape.c,
            out_channels: task.shape.k,
            batch: 16,
            input_bits: 4,
            weight_bits: 4,
            im2col: task.shape.c < 16,
        })
        .collect();
    let name = format!("resnet18 bit-composable tiling search, {} layers at batch 16", layers.len());
    c.bench_function(&name, |b| {
        b.iter(|| layers.iter().map(|layer| array.search("l", black_box(layer)).unwrap().total_cycles).sum::<u64>());
    });
}

fn mapping(c: &mut Criterion) {
    let accelerator = Accelerator::preset("eyeriss-mapped").unwrap();
    let net = with_bits(builtin("resnet50").unwrap(), [8, 8, 8]);
    let mut group = c.benchmark_group("mapping");
    group.sample_size(10);
    group.bench_function("resnet50, 10 000 candidates a layer, 3 levels", |b| {
        b.iter(|| accelerator.cost(black_box(&net)).unwrap())
    });
    group.finish();
    // Linux: the most memory that this process ever held.
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(line) = status.lines().find(|line| line.starts_with("VmHWM"))
    {
        println!("peak memory of this process: {}", line.trim_start_matches("VmHWM:").trim());
    }
}

fn sweep(c: &mut Criterion) {
    let accelerator = Accelerator::preset("tpu-like").unwrap();
    let net = builtin("resnet50").unwrap();
    let sides = [8, 12, 16, 24, 32, 48, 64, 96, 128, 256];
    let sweep = Sweep {
        arrays: sides.iter().flat_map(|&a| sides.map(|b| [a, b])).collect(),
        buffer_scales: vec![0.125, 0.25, 0.5, 1.0, 2.0],
        bits: vec![[8, 8], [4, 4]],
        densities: Vec::new(),
    };
    let mut group = c.benchmark_group("sweep");
    group.sample_size(20);
    group.bench_function("1000 configurations x resnet50, closed form", |b| {
        b.iter(|| {
            let points = sweep.run(&accelerator, black_box(&net)).unwrap();
            assert_eq!(points.len(), 1000);
            points
        });
    });
    group.finish();
}

criterion_group!(benches, closed_form, beside_scalesim, emulation, tiling, mapping, sweep);
criterion_main!(benches);
