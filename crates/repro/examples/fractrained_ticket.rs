//! A structured ticket trained with few bits: half of each layer's channels are cut out for good, and what is left is
//! trained from its first weights with precision that gates choose for every image, towards a cost that rises (FracTrain).
//!
//! ```text
//! dense ConvNet ──1 epoch──► scales of channels ──draw──► ticket ──cut out of the first weights──► smaller ConvNet
//!                                                                      ──FracTrain──► accuracy beside the ledger's cost
//! ```
//!
//! cargo run --release -p repro --example fractrained_ticket

use core_tensor::checkpoint::{LoadPolicy, load_state, state_of};
use core_tensor::data::{Augmentation, Batch, ChannelStatistics, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::{Gated, Standard, trace_workload};
use core_tensor::optim::{NamedTensors, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{CrossEntropy, Objective, Observer, TrainConfig, Trainer, evaluate};
use lth::Scope;
use lth::structured::{Cut, DrawConfig, Follower, Scores, SlimGroup, prune};
use quant::fractrain::{
    CostLedger, CpTarget, DfqConfig, FollowTarget, PlateauConfig, PlateauIndicator, Precision, PrecisionController,
    QuantConfig, QuantFactory, WithGateCost,
};
use tch::{Device, nn::VarStore};

type Failure = Box<dyn std::error::Error>;

const SEED: u64 = 1;
const IMAGES: usize = 2_048;
const BATCH: usize = 64;
const SEARCH_EPOCHS: u64 = 1;
const EPOCHS: u64 = 10;

fn main() -> Result<(), Failure> {
    tch::set_num_threads(1);
    let normalise = || Augmentation::new([ChannelStatistics::fashion_mnist().normalise()]);
    let splits = ShapeGenerator::fashion_mnist().splits(IMAGES, 1_000, SEED)?;
    let train = Loader::new(splits.train, &normalise(), LoaderConfig::training(BATCH), SEED)?;
    let test = Loader::new(splits.test, &normalise(), LoaderConfig::evaluation(500), SEED)?;
    let data = (&train, &test);

    // The dense network's first weights, and a short training that tells its channels apart.
    let dense = ConvNetConfig { in_channels: 1, widths: vec![16, 32, 64, 64], classes: 10 };
    seed_libtorch(SEED, Purpose::Initialisation, 0);
    let store = VarStore::new(Device::Cpu);
    let network = Architecture::ConvNet(dense.clone()).build(&store.root(), &Standard)?;
    let first = lth::copies(&state_of(&store));
    fit(&store, &mut CrossEntropy::new(network.as_ref()), &mut [], &train, SEARCH_EPOCHS)?;

    // Half of each layer's channels, those with the smaller scales in their norms, cut out of the first weights.
    let groups = channels(&dense);
    let trained = state_of(&store);
    let scale =
        |group: &SlimGroup| (group.coefficient.clone(), trained[&format!("bn{}.weight", group.layer + 1)].abs());
    let scores = Scores::of(&groups, &groups.iter().map(scale).collect::<Vec<_>>())?;
    let half = DrawConfig { neurons: Cut { scope: Scope::PerLayer, ratio: 0.5 }, ..DrawConfig::default() };
    let ticket = half.draw(&scores)?.mask;
    let (first_of_ticket, report) = prune(&first, &groups, &ticket)?;
    let small = ConvNetConfig { widths: report.cuts.iter().map(|cut| cut.kept as i64).collect(), ..dense.clone() };
    println!("ticket: {:?} of {:?} channels\n", small.widths, dense.widths);

    // Costs relative to the dense network in full precision.
    let (dense_accuracy, dense_cost) = static_bits(&dense, &first, Precision::FULL, data)?;
    let row = |name: &str, accuracy: f64, cost: Cost| {
        let (quantised, all) = (cost.quantised / dense_cost.quantised, cost.all / dense_cost.all);
        println!("{name:28} {accuracy:10.1} {:18.2} {:16.2}", 100.0 * quantised, 100.0 * all);
    };
    println!("{:28} {:>10} {:>18} {:>16}", "", "accuracy/%", "quantised cost/%", "whole cost/%");
    row("dense, full precision", dense_accuracy, dense_cost);
    let eight = Precision::new(8, 8)?;
    let (accuracy, cost) = static_bits(&dense, &first, eight, data)?;
    row("dense, static 8/8", accuracy, cost);
    let (accuracy, cost) = static_bits(&small, &first_of_ticket, eight, data)?;
    row("ticket, static 8/8", accuracy, cost);
    let (accuracy, cost) = fractrain(&small, &first_of_ticket, data)?;
    row("ticket, FracTrain", accuracy, cost);
    println!(
        "\nThe whole cost holds what stays in full precision too: classifier, gates, and a gated network's first layer."
    );
    Ok(())
}

/// A group a block: a channel is a filter, its norm, and what the next layer makes of it.
fn channels(config: &ConvNetConfig) -> Vec<SlimGroup> {
    let of_block = |(index, &width): (usize, &i64)| {
        let number = index + 1;
        let norm = ["weight", "bias", "running_mean", "running_var"];
        let reader = match number < config.widths.len() {
            true => format!("conv{}.weight", number + 1),
            false => "fc.weight".into(),
        };
        let mut followers = vec![Follower::new(format!("conv{number}.weight"), 0, 1)];
        followers.extend(norm.map(|part| Follower::new(format!("bn{number}.{part}"), 0, 1)));
        followers.push(Follower::new(reader, 1, 1));
        SlimGroup {
            coefficient: format!("channels{number}"),
            layer: index,
            gated: Gated::Neurons,
            units: width as usize,
            followers,
        }
    };
    config.widths.iter().enumerate().map(of_block).collect()
}

/// A ledger's two sums, in full-precision multiply-accumulates.
#[derive(Clone, Copy)]
struct Cost {
    /// Of quantised layers, as the paper counts.
    quantised: f64,
    all: f64,
}

impl Cost {
    fn of(ledger: &CostLedger) -> Self {
        Self { quantised: ledger.reference_macs(), all: ledger.effective_macs() }
    }
}

/// Trains from these weights at one precision; accuracy in percent and cost.
fn static_bits(
    net: &ConvNetConfig,
    first: &NamedTensors,
    precision: Precision,
    (train, test): (&Loader, &Loader),
) -> Result<(f64, Cost), Failure> {
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), precision)?;
    let network = Architecture::ConvNet(net.clone()).build(&store.root(), &factory)?;
    load_state(&store, first, &LoadPolicy::overlap())?;
    let handle = factory.handle();
    let workload = trace_workload("net", network.as_ref(), &[1, 28, 28], Device::Cpu)?;
    let mut ledger = CostLedger::new(&workload, &handle, None)?;
    let mut control = PrecisionController::new(&handle, precision);
    let mut objective = CrossEntropy::new(network.as_ref());
    fit(&store, &mut objective, &mut [&mut control, &mut ledger], train, EPOCHS)?;
    Ok((evaluate(network.as_ref(), test)?.accuracy, Cost::of(&ledger)))
}

/// Trains from these weights with gates whose target cost rises when the loss stands still.
fn fractrain(
    net: &ConvNetConfig,
    first: &NamedTensors,
    (train, test): (&Loader, &Loader),
) -> Result<(f64, Cost), Failure> {
    let targets = [2.0, 2.33, 2.67, 3.0].map(CpTarget::new).into_iter().collect::<Result<Vec<_>, _>>()?;
    let plateau = PlateauConfig { threshold: 0.3, decay: 0.5, window: 2, ..PlateauConfig::default() };
    let dfq = DfqConfig { hidden: 8, embedding: 8, block_depth: 1, ..DfqConfig::default() };

    seed_libtorch(SEED, Purpose::Initialisation, 1);
    let store = VarStore::new(Device::Cpu);
    let factory = QuantFactory::gated(QuantConfig::default(), dfq, store.root() / "gates")?;
    let network = Architecture::ConvNet(net.clone()).build(&store.root(), &factory)?;
    load_state(&store, first, &LoadPolicy::overlap())?;
    let (handle, Some(gates)) = (factory.handle(), factory.gates()) else { return Err("no gates".into()) };
    let workload = trace_workload("net", network.as_ref(), &[1, 28, 28], Device::Cpu)?;
    let mut ledger = CostLedger::new(&workload, &handle, Some(&gates))?;
    let mut follow = FollowTarget::staged(&gates, targets, PlateauIndicator::new(plateau)?)?;
    let mut task = CrossEntropy::new(network.as_ref());
    let mut objective = WithGateCost::new(&mut task, &gates);
    fit(&store, &mut objective, &mut [&mut follow, &mut ledger], train, EPOCHS)?;
    Ok((evaluate(network.as_ref(), test)?.accuracy, Cost::of(&ledger)))
}

/// A short training with two drops of the learning rate; observers act between its steps.
fn fit(
    store: &VarStore,
    objective: &mut dyn Objective<Batch>,
    observers: &mut [&mut dyn Observer],
    train: &Loader,
    epochs: u64,
) -> Result<(), Failure> {
    let steps = epochs * IMAGES.div_ceil(BATCH) as u64;
    let schedule = Schedule::Step { peak: 0.1, milestones: vec![steps / 2, steps * 3 / 4], gamma: 0.1 };
    let config = TrainConfig { epochs, seed: SEED, schedule };
    let mut optimizer = Sgd::new(parameters(store, 1e-4), SgdConfig::default())?;
    let mut trainer = Trainer::new(config, objective, &mut optimizer)?;
    for observer in observers {
        trainer.observe(*observer);
    }
    trainer.fit(train)?;
    Ok(())
}
