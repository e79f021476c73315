//! One training with its cost.

use super::arms::{Arm, TrainParams};
use super::hardware;
use crate::experiments::training::{self, Length, Loaders, Model, Recipe, final_metrics};
use crate::{Finished, Metrics, RunContext};
use core_tensor::checkpoint::{Header, LoadPolicy, Tolerance, load_state, read_state, state_of, write_safetensors};
use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Standard, trace_workload};
use core_tensor::optim::NamedTensors;
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::train::{CrossEntropy, Objective, Observer, evaluate};
use quant::fractrain::{
    AtEpochs, Bits, CostLedger, FollowTarget, Gates, Int8Model, Pfq, PlateauIndicator, Precision, PrecisionController,
    QuantConfig, QuantFactory, QuantHandle, WithGateCost, export_int8,
};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Where the learned gates' shares are kept for the random control.
const SHARES: &str = "option-shares.safetensors";

/// The file of a network in full precision, and of one in integers.
const WEIGHTS: &str = "weights.safetensors";
const INTEGERS: &str = "int8.safetensors";

/// A network whose layers are quantised, and what steers them.
pub(super) struct Quantised {
    pub(super) model: Model,
    pub(super) handle: QuantHandle,
    pub(super) gates: Option<Gates>,
}

/// The recipe's network as an arm quantises it, with this seed's initial weights.
pub(super) fn build(recipe: &Recipe, arm: &Arm, seed: u64, context: &RunContext) -> anyhow::Result<Quantised> {
    let mut net = on_cpu(&recipe.architecture, arm, seed)?;
    net.model.store.set_device(context.device().into());
    Ok(net)
}

/// The network on the CPU. Under every arm it starts from the weights that the plain network has with this seed.
fn on_cpu(architecture: &Architecture, arm: &Arm, seed: u64) -> anyhow::Result<Quantised> {
    // Gates draw from numbers of their own, and the weights drawn between them are replaced.
    seed_libtorch(seed, Purpose::Initialisation, u64::from(arm.gates().is_some()));
    let store = VarStore::new(tch::Device::Cpu);
    let (network, handle, gates) = {
        let config = QuantConfig {
            full_precision_stem: matches!(arm, Arm::SingleOption(..)),
            seed: derive(seed, Purpose::Noise, 0),
            ..QuantConfig::default()
        };
        let factory = match arm.gates() {
            Some(dfq) => QuantFactory::gated(config, dfq.clone(), store.root() / "gates")?,
            None => QuantFactory::new(config, Precision::FULL)?,
        };
        let network = architecture.build(&store.root(), &factory)?;
        (network, factory.handle(), factory.gates())
    };
    if gates.is_some() {
        let plain = VarStore::new(tch::Device::Cpu);
        seed_libtorch(seed, Purpose::Initialisation, 0);
        drop(architecture.build(&plain.root(), &Standard)?);
        start_alike(&store, &plain)?;
    }
    Ok(Quantised { model: Model { store, network }, handle, gates })
}

/// Copies a plain network's weights into one with gates, by name. Gates and ranges, which the plain one has not, keep what they
/// have.
fn start_alike(gated: &VarStore, plain: &VarStore) -> core_tensor::Result<()> {
    let policy = LoadPolicy { missing: Tolerance::Anywhere, ..LoadPolicy::strict() };
    load_state(gated, &state_of(plain), &policy).map(drop)
}

/// Trains under an arm; the metrics of the last epoch, with the training's cost and the ledger that has it.
pub(super) fn fit(
    context: &mut RunContext,
    (recipe, arm): (&Recipe, &Arm),
    net: &Quantised,
    loaders: &Loaders,
    seed: u64,
) -> anyhow::Result<(Metrics, CostLedger)> {
    let Quantised { model, handle, gates } = net;
    let Some(batch) = loaders.test.epoch(0)?.next() else { anyhow::bail!("the test set is empty") };
    let sample = batch?.input.size()[1..].to_vec();
    let workload = trace_workload("trained", model.network.as_ref(), &sample, context.device().into())?;
    let mut ledger = CostLedger::new(&workload, handle, gates.as_ref())?;
    let mut steering = steering(arm, handle, gates.as_ref())?;
    if let (Arm::RandomGates(_), Some(gates)) = (arm, gates) {
        gates.draw_at_random(read_shares(context)?, derive(seed, Purpose::Noise, 1))?;
    }

    let mut plain = CrossEntropy::new(model.network.as_ref());
    let mut costly;
    let objective: &mut dyn Objective<Batch> = match gates {
        Some(gates) => {
            costly = WithGateCost::new(&mut plain, gates);
            &mut costly
        }
        None => &mut plain,
    };
    let mut optimizer = recipe.optimizer(&model.store)?;
    let length = Length { steps: recipe.steps(), schedule: recipe.schedule() };
    let observers: Vec<&mut dyn Observer> = vec![&mut *steering, &mut ledger];
    let seen =
        training::train(context, recipe, (model, loaders), (objective, &mut optimizer), observers, (length, seed))?;
    let mut metrics = final_metrics(seen);
    metrics.extend([
        ("cp".into(), ledger.cp()),
        ("reference_macs".into(), ledger.reference_macs()),
        ("effective_macs".into(), ledger.effective_macs()),
    ]);
    Ok((metrics, ledger))
}

pub(super) fn train(params: &TrainParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let TrainParams { recipe, halved, arm } = params;
    let net = build(recipe, arm, seed, context)?;
    let Loaders { train, test } = recipe.loaders(context, seed)?;
    let loaders = match halved {
        true => Loaders { train: Box::new(Halved(train)), test: Box::new(Halved(test)) },
        false => Loaders { train, test },
    };
    let (mut metrics, ledger) = fit(context, (recipe, arm), &net, &loaders, seed)?;
    if *arm != Arm::FullPrecision {
        let saved = hardware::saving_of("resnet74-cifar", &hardware::shares(&ledger, arm.gates()))?;
        metrics.extend([
            ("resnet74_macs_saved".into(), 100.0 * saved.effective_macs),
            ("resnet74_energy_saved".into(), 100.0 * saved.energy),
            ("resnet74_latency_saved".into(), 100.0 * saved.latency),
        ]);
    }
    match arm {
        Arm::Dfq(_) => save_shares(context, &ledger.option_shares())?,
        Arm::FullPrecision => {
            let bytes = save_weights(context, &net.model.store)?;
            metrics.insert("file_bytes".into(), bytes);
        }
        Arm::Static(8, 8) => metrics.extend(in_integers(context, recipe, &net, loaders.test.as_ref())?),
        _ => {}
    }
    Ok(metrics)
}

/// Saves a network's weights without the ranges that quantised layers keep; the file's length.
pub(super) fn save_weights(context: &mut RunContext, store: &VarStore) -> anyhow::Result<f64> {
    let mut tensors = state_of(store);
    tensors.retain(|name, _| !name.ends_with(".input_range"));
    let header = Header::new("repro.weights", 1, ()).to_metadata()?;
    context.save_artifact(WEIGHTS, |path| Ok(write_safetensors(path, &tensors, &header)?))?;
    length_of(context, WEIGHTS)
}

/// The weights that [`save_weights`] left in a finished run.
pub(super) fn read_weights(finished: &Finished) -> anyhow::Result<NamedTensors> {
    Ok(read_state(&finished.artifact(WEIGHTS)?)?)
}

/// Accuracy and file length of the network written as integers, read back, and run on the CPU.
fn in_integers(
    context: &mut RunContext,
    recipe: &Recipe,
    net: &Quantised,
    test: &dyn BatchSource<Batch = Batch>,
) -> anyhow::Result<Metrics> {
    let exported = export_int8(&net.model.store, &net.handle)?;
    context.save_artifact(INTEGERS, |path| Ok(exported.write(path)?))?;
    let file = context.artifact(INTEGERS).ok_or_else(|| anyhow::anyhow!("{INTEGERS} was not saved"))?;
    let store = VarStore::new(tch::Device::Cpu);
    let network = Int8Model::read(&file)?.build(&recipe.architecture, &store)?;
    let seen = evaluate(network.as_ref(), &OnCpu(test))?;
    let bytes = length_of(context, INTEGERS)?;
    Ok(Metrics::from([("int8_accuracy".into(), seen.accuracy), ("int8_bytes".into(), bytes)]))
}

fn length_of(context: &RunContext, artifact: &str) -> anyhow::Result<f64> {
    let file = context.artifact(artifact).ok_or_else(|| anyhow::anyhow!("{artifact} was not saved"))?;
    Ok(std::fs::metadata(file)?.len() as f64)
}

/// The observer that changes precision or target.
pub(super) fn steering(arm: &Arm, handle: &QuantHandle, gates: Option<&Gates>) -> anyhow::Result<Box<dyn Observer>> {
    Ok(match (arm, gates) {
        (Arm::Pfq(stages, plateau), _) => {
            Box::new(PrecisionController::new(handle, Pfq::new(stages, PlateauIndicator::new(*plateau)?)?))
        }
        (Arm::Fixed(stages, after), _) => {
            Box::new(PrecisionController::new(handle, Pfq::new(stages, AtEpochs::new(after.clone())?)?))
        }
        (Arm::Static(forward, gradient), _) => {
            Box::new(PrecisionController::new(handle, Precision::new(*forward, *gradient)?))
        }
        (Arm::SingleOption(weight, activation, gradient), _) => {
            Box::new(PrecisionController::new(handle, option(*weight, *activation, *gradient)?))
        }
        (Arm::Cyclic(cyclic), _) => {
            cyclic.validate()?;
            Box::new(PrecisionController::new(handle, *cyclic))
        }
        (Arm::FracTrain(_, targets, plateau), Some(gates)) => {
            Box::new(FollowTarget::staged(gates, targets.clone(), PlateauIndicator::new(*plateau)?)?)
        }
        (Arm::Dfq(_) | Arm::RandomGates(_), Some(gates)) => Box::new(FollowTarget::constant(gates)),
        _ => Box::new(PrecisionController::new(handle, Precision::FULL)),
    })
}

/// The precision of one of the gates' options, for all inputs.
fn option(weight: u32, activation: u32, gradient: u32) -> quant::fractrain::Result<Precision> {
    Ok(Precision {
        weight: Some(Bits::new(weight)?),
        activation: Some(Bits::new(activation)?),
        gradient: Some(Bits::new(gradient)?),
        weight_gradient: None,
    })
}

fn save_shares(context: &mut RunContext, shares: &[Vec<f64>]) -> anyhow::Result<()> {
    let columns = shares.first().map_or(0, Vec::len) as i64;
    let tensor = Tensor::from_slice(&shares.concat()).view([shares.len() as i64, columns]);
    let header = Header::new("repro.option-shares", 1, serde_json::json!({}));
    let tensors = NamedTensors::from([("shares".to_owned(), tensor)]);
    context.save_artifact(SHARES, |path| Ok(write_safetensors(path, &tensors, &header.to_metadata()?)?))
}

fn read_shares(context: &RunContext) -> anyhow::Result<Vec<Vec<f64>>> {
    let tensors = read_state(&context.needed("dfq")?.artifact(SHARES)?)?;
    let shares = tensors.get("shares").ok_or_else(|| anyhow::anyhow!("{SHARES} holds no shares"))?;
    Ok(Vec::<Vec<f64>>::try_from(shares.to_kind(Kind::Double))?)
}

/// Images averaged down to half their sides.
struct Halved(Box<dyn BatchSource<Batch = Batch>>);

impl BatchSource for Halved {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.0.batches_per_epoch()
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let halve = |batch: Batch| {
            let input = batch.input.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
            Batch { input, ..batch }
        };
        Ok(Box::new(self.0.epoch(epoch)?.map(move |batch| batch.map(halve))))
    }
}

/// Batches on the CPU, wherever they were.
struct OnCpu<'a>(&'a dyn BatchSource<Batch = Batch>);

impl BatchSource for OnCpu<'_> {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.0.batches_per_epoch()
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let fetch = |Batch { input, target, index }: Batch| Batch {
            input: input.to_device(tch::Device::Cpu),
            target: target.to_device(tch::Device::Cpu),
            index,
        };
        Ok(Box::new(self.0.epoch(epoch)?.map(move |batch| batch.map(fetch))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::arms;
    use super::*;
    use core_tensor::networks::ConvNetConfig;

    #[test]
    fn networks_with_gates_start_from_the_plain_networks_weights() {
        let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 6, 6], classes: 3 });
        let gated = on_cpu(&architecture, &arms::fractrain(arms::SMALL_HIDDEN, arms::SMALL_PLATEAU), 3).unwrap();
        let gated = gated.model.store;
        let gates = |store: &VarStore| -> Vec<Tensor> {
            let state = state_of(store).into_iter().filter(|(name, _)| name.starts_with("gates."));
            state.map(|(_, tensor)| tensor.copy()).collect()
        };
        let before = gates(&gated);
        let plain = VarStore::new(tch::Device::Cpu);
        architecture.build(&plain.root(), &Standard).unwrap();
        start_alike(&gated, &plain).unwrap();
        let state = state_of(&gated);
        for (name, weight) in state_of(&plain) {
            assert!(weight.equal(&state[name.as_str()]), "{name}");
        }
        let after = gates(&gated);
        assert!(!before.is_empty() && before.iter().zip(&after).all(|(before, after)| before.equal(after)));
    }

    #[test]
    fn a_single_option_costs_what_its_bits_say_and_leaves_the_stem_out() {
        let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 6], classes: 3 });
        let layers = |arm: &Arm| on_cpu(&architecture, arm, 0).unwrap().handle.layers().len();
        assert_eq!((layers(&Arm::SingleOption(4, 6, 8)), layers(&Arm::Static(8, 8))), (1, 2));
        // (4·6 + 4·8 + 6·8) / (3·1024).
        assert!((option(4, 6, 8).unwrap().cost_percent() - 100.0 * 104.0 / 3072.0).abs() < 1e-9);
        assert!(option(0, 6, 8).is_err());
    }
}
