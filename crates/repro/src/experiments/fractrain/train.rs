//! One training with its cost.

use super::arms::{Arm, TrainParams};
use super::hardware;
use crate::experiments::training::{self, Length, Loaders, Model, final_metrics};
use crate::{Metrics, RunContext};
use core_tensor::checkpoint::{Header, read_state, write_safetensors};
use core_tensor::data::{Batch, BatchSource};
use core_tensor::nn::trace_workload;
use core_tensor::optim::NamedTensors;
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::train::{CrossEntropy, Objective, Observer};
use quant::fractrain::{
    AtEpochs, CostLedger, FollowTarget, Gates, Pfq, PlateauIndicator, Precision, PrecisionController, QuantConfig,
    QuantFactory, QuantHandle, WithGateCost,
};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// Where the learned gates' shares are kept for the random control.
const SHARES: &str = "option-shares.safetensors";

pub(super) fn train(params: &TrainParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let TrainParams { recipe, halved, arm } = params;
    seed_libtorch(seed, Purpose::Initialisation, 0);
    let mut store = VarStore::new(tch::Device::Cpu);
    let (network, handle, gates) = {
        let config = QuantConfig { seed: derive(seed, Purpose::Noise, 0), ..QuantConfig::default() };
        let factory = match arm.gates() {
            Some(dfq) => QuantFactory::gated(config, dfq.clone(), store.root() / "gates")?,
            None => QuantFactory::new(config, Precision::FULL)?,
        };
        let network = recipe.architecture.build(&store.root(), &factory)?;
        (network, factory.handle(), factory.gates())
    };
    store.set_device(context.device().into());
    let model = Model { store, network };
    let Loaders { train, test } = recipe.loaders(context, seed)?;
    let loaders = match halved {
        true => Loaders { train: Box::new(Halved(train)), test: Box::new(Halved(test)) },
        false => Loaders { train, test },
    };
    let Some(batch) = loaders.test.epoch(0)?.next() else { anyhow::bail!("the test set is empty") };
    let sample = batch?.input.size()[1..].to_vec();
    let workload = trace_workload("trained", model.network.as_ref(), &sample, context.device().into())?;
    let mut ledger = CostLedger::new(&workload, &handle, gates.as_ref())?;
    let mut steering = steering(arm, &handle, gates.as_ref())?;
    if let (Arm::RandomGates(_), Some(gates)) = (arm, &gates) {
        gates.draw_at_random(read_shares(context)?, derive(seed, Purpose::Noise, 1))?;
    }

    let mut plain = CrossEntropy::new(model.network.as_ref());
    let mut costly;
    let objective: &mut dyn Objective<Batch> = match &gates {
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
        training::train(context, recipe, (&model, &loaders), (objective, &mut optimizer), observers, (length, seed))?;

    let mut metrics = final_metrics(seen);
    let mut add = |name: &str, value: f64| {
        metrics.insert(name.into(), value);
    };
    add("cp", ledger.cp());
    add("reference_macs", ledger.reference_macs());
    add("effective_macs", ledger.effective_macs());
    if *arm != Arm::FullPrecision {
        let batch = recipe.batch_size as u64;
        let (joules, seconds) = hardware::cost_of_run(&workload, &handle.layers(), (&ledger, gates.as_ref()), batch)?;
        let saved = hardware::saving_of("resnet74-cifar", &hardware::shares(&ledger, arm.gates()))?;
        add("accelerator_joules", joules);
        add("accelerator_seconds", seconds);
        add("resnet74_macs_saved", 100.0 * saved.effective_macs);
        add("resnet74_energy_saved", 100.0 * saved.energy);
        add("resnet74_latency_saved", 100.0 * saved.latency);
    }
    if let Arm::Dfq(_) = arm {
        save_shares(context, &ledger.option_shares())?;
    }
    Ok(metrics)
}

/// The observer that changes precision or target.
fn steering(arm: &Arm, handle: &QuantHandle, gates: Option<&Gates>) -> anyhow::Result<Box<dyn Observer>> {
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
