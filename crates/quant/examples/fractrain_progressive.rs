//! Trains a small network on generated shapes at static 8/8 bits and progressively, and prints accuracy and cost of both.
//!
//! `cargo run --release -p quant --example fractrain_progressive`

use core_tensor::data::{Augmentation, ChannelStatistics, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::trace_workload;
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer, evaluate};
use quant::fractrain::{
    CostLedger, Pfq, PlateauConfig, PlateauIndicator, Precision, PrecisionController, PrecisionSchedule, QuantConfig,
    QuantFactory,
};
use tch::{Device, nn};

const EPOCHS: u64 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(1);
    report("static 8/8", Precision::new(8, 8)?)?;
    let plateau = PlateauConfig { threshold: 0.3, decay: 0.5, window: 2, ..PlateauConfig::default() };
    let stages = [(3, 6), (4, 6), (6, 8), (8, 8)];
    report("progressive", Pfq::new(&stages, PlateauIndicator::new(plateau)?)?)
}

fn report(name: &str, schedule: impl PrecisionSchedule) -> Result<(), Box<dyn std::error::Error>> {
    let splits = ShapeGenerator::fashion_mnist().splits(1_024, 1_024, 0)?;
    let normalise = Augmentation::new([ChannelStatistics::fashion_mnist().normalise()]);
    let train = Loader::new(splits.train, &normalise, LoaderConfig::training(64), 0)?;
    let test = Loader::new(splits.test, &normalise, LoaderConfig::evaluation(256), 0)?;

    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::FULL)?;
    let net = ConvNetConfig { in_channels: 1, widths: vec![8, 16, 32], classes: 10 };
    let network = Architecture::ConvNet(net).build(&store.root(), &factory)?;
    let handle = factory.handle();
    let workload = trace_workload("net", network.as_ref(), &[1, 28, 28], Device::Cpu)?;

    let mut precision = PrecisionController::new(&handle, schedule);
    let mut ledger = CostLedger::new(&workload, &handle, None)?;
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default())?;
    let steps = EPOCHS * 16;
    let schedule = Schedule::Step { peak: 0.1, milestones: vec![steps / 2, steps * 3 / 4], gamma: 0.1 };
    let config = TrainConfig { epochs: EPOCHS, seed: 0, schedule };
    Trainer::new(config, &mut objective, &mut optimizer)?.observe(&mut precision).observe(&mut ledger).fit(&train)?;
    let accuracy = evaluate(network.as_ref(), &test)?.accuracy;
    println!("{name:12} {accuracy:.1} % correct at {:.2} % of the cost of full precision", ledger.cp());
    for (precision, samples) in ledger.phases() {
        println!("{:12} {:.0} samples at {:?} bits", "", samples, precision.widths());
    }
    Ok(())
}
