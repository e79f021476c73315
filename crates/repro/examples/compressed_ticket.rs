//! Three methods in one pipeline: a lottery ticket trained by distillation, compressed to SmartDeal form, priced on three
//! accelerators.
//!
//! ```text
//! dense LeNet-5 ──mask──► ticket ──KD from the dense one──► accurate and sparse ──SmartDeal──► .sdz ──hw-sim──► energy
//! ```
//!
//! cargo run --release -p repro --example compressed_ticket

use core_tensor::checkpoint::state_of;
use core_tensor::data::{Augmentation, ChannelStatistics, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, Objective, Observer, TrainConfig, Trainer, evaluate};
use core_tensor::workload::{Pass, Workload};
use hw_sim::Accelerator;
use hw_sim::engine::Engine;
use hw_sim::task::Task;
use lth::criterion::Magnitude;
use lth::{DistillConfig, Distillation, MaskRecord, Prunable, PruningSchedule, Rewind, Selector, Ticket};
use quant::smartdeal::{CompressPolicy, compress, compressed_workload, hardware_stats};
use tch::{Device, nn::VarStore};

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 1;
const EPOCHS: u64 = 4;
const ARCHITECTURE: Architecture = Architecture::LeNet5 { classes: 10 };

fn main() -> Result<(), Failure> {
    let normalise = || Augmentation::new([ChannelStatistics::fashion_mnist().normalise()]);
    let splits = ShapeGenerator::fashion_mnist().splits(6000, 1000, SEED)?;
    let train = Loader::new(splits.train, &normalise(), LoaderConfig::training(100), SEED)?;
    let test = Loader::new(splits.test, &normalise(), LoaderConfig::evaluation(500), SEED)?;
    let accuracy = |network: &dyn Network| -> Result<f64, Failure> { Ok(evaluate(network, &test)?.accuracy) };

    // The dense network, its first weights kept.
    seed_libtorch(SEED, Purpose::Initialisation, 0);
    let dense_store = VarStore::new(Device::Cpu);
    let dense = ARCHITECTURE.build(&dense_store.root(), &Standard)?;
    let first = lth::copies(&state_of(&dense_store));
    fit(&dense_store, &mut CrossEntropy::new(dense.as_ref()), &train, &mut [])?;
    println!("dense: {:.1} % of the test images", accuracy(dense.as_ref())?);

    // One weight in five, on the first weights, taught by the dense network.
    let prunable = Prunable::default();
    let mask = PruningSchedule::OneShot { density: 0.2 }.prune(
        &prunable.select_from(&dense_store)?,
        &Magnitude,
        &Selector::global(),
    )?;
    let record = MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable, source: None };
    let ticket = Ticket::new(mask, &first, record, Rewind::Init, 0)?;
    let store = VarStore::new(Device::Cpu);
    let student = ARCHITECTURE.build(&store.root(), &Standard)?;
    let mut masks = ticket.apply(&store)?;
    let mut lesson = Distillation::new(student.as_ref(), dense.as_ref(), DistillConfig::default())?;
    fit(&store, &mut lesson, &train, &mut [&mut masks])?;
    println!(
        "KD ticket, {:.0} % of the weights gone: {:.1} %",
        100.0 * ticket.mask().sparsity(),
        accuracy(student.as_ref())?
    );

    // The ticket in SmartDeal form. The threshold is small against the surviving weights: the mask already did the pruning.
    let (model, report) = compress(&store, &CompressPolicy::with_theta(0.01))?;
    let folder = tempfile::tempdir()?;
    let bytes = model.write(&folder.path().join("ticket.sdz"), None)?;
    model.write_into(&store)?;
    println!(
        "compressed: {:.1} %, {:.0} % of the coefficients zero, file {:.1} times smaller than the dense weights",
        accuracy(student.as_ref())?,
        100.0 * report.element_sparsity(),
        model.dense_bytes() as f64 / bytes as f64
    );

    // What that means in hardware, against the dense network at 8 bits on the same chip.
    let dense_cost = at_8_bits(ARCHITECTURE.workload("LeNet-5", &[1, 28, 28])?);
    let cheap_cost = compressed_workload(&dense_cost, &model, 8)?;
    println!("\n{:18} {:>12} {:>12} {:>8}", "accelerator", "dense, µJ", "ticket, µJ", "saved");
    for name in ["tpu-like", "cambricon-x-like", "smartdeal"] {
        let chip = Accelerator::preset(name)?;
        let (dense, cheap) = (chip.cost(&dense_cost)?.energy_pj(), chip.cost(&cheap_cost)?.energy_pj());
        println!("{name:18} {:12.2} {:12.2} {:7.2}×", dense * 1e-6, cheap * 1e-6, dense / cheap);
    }

    // Of densities the chip knows what layers store on average. Measured, it is told the bits of each in the file, and how full
    // its kept rows are.
    let (stats, mut measured) = (hardware_stats(&model)?, 0.0);
    for mut task in Task::of_workload(&cheap_cost, &[Pass::Forward])? {
        let mut chip = Accelerator::preset("smartdeal")?;
        // Layers that stayed dense have no statistics.
        let own = stats.iter().find(|own| own.name == task.name);
        if let (Some(own), Engine::SmartDeal(engine)) = (own, &mut chip.engine) {
            (task.stored_weight_bits, engine.row_fill) = (Some(own.stored_bits), own.row_fill);
        }
        measured += chip.cost_tasks("LeNet-5", &[task])?.energy_pj();
    }
    let dense = Accelerator::preset("smartdeal")?.cost(&dense_cost)?.energy_pj();
    println!("{:18} {:12.2} {:12.2} {:7.2}×", "… as measured", dense * 1e-6, measured * 1e-6, dense / measured);
    Ok(())
}

/// A short training; observers act between its steps.
fn fit(
    store: &VarStore,
    objective: &mut dyn Objective<core_tensor::data::Batch>,
    train: &Loader,
    observers: &mut [&mut dyn Observer],
) -> Result<(), Failure> {
    let config = TrainConfig { epochs: EPOCHS, seed: SEED, schedule: Schedule::Constant { peak: 0.02 } };
    let mut optimizer = Sgd::new(parameters(store, 5e-4), SgdConfig::default())?;
    let mut trainer = Trainer::new(config, objective, &mut optimizer)?;
    for observer in observers {
        trainer.observe(*observer);
    }
    trainer.fit(train)?;
    Ok(())
}

fn at_8_bits(mut workload: Workload) -> Workload {
    for layer in &mut workload.layers {
        (layer.weight.bits, layer.activation.bits) = (8, 8);
    }
    workload
}
