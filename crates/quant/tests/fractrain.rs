//! Whole trainings through `core-tensor`'s trainer: precision switches, costs add up, a resumed run is the same run, and
//! gates go where they are steered.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::{Network, trace_workload};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, named_trainable, parameters};
use core_tensor::train::{
    Control, CrossEntropy, EachEpoch, EpochReport, Loss, Objective, Progress, TrainConfig, Trainer,
};
use quant::fractrain::{
    AtEpochs, ByProgress, CostController, CostLedger, CpTarget, Cyclic, DfqConfig, DfqOption, FollowTarget, Gates,
    GridKind, Pfq, Precision, PrecisionController, QuantConfig, QuantFactory, QuantHandle, StageIndicator,
    WithGateCost, export_int8,
};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor, nn};

/// Four batches of eight wavy 8 × 8 images whose class is which quarter is brightest; others in every epoch.
struct Images;

impl BatchSource for Images {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        Ok(Box::new((0..4).map(move |step| {
            let grid = Tensor::arange(8 * 64, (Kind::Float, Device::Cpu)) + (epoch * 4 + step) as f64 * 17.0;
            let input = (&grid * grid.sqrt() * 0.37).sin().view([8, 1, 8, 8]);
            let target = input.avg_pool2d([4, 4], [4, 4], [0, 0], false, true, None).flatten(1, -1).argmax(-1, false);
            Ok(Batch { input, target, index: (0..8).collect() })
        })))
    }
}

fn architecture() -> Architecture {
    Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 6, 8], classes: 4 })
}

/// Weights that depend on nothing but their shape, since libtorch's generator is shared between threads.
fn fill(store: &nn::VarStore) {
    // Layers this small are slower on several threads.
    tch::set_num_threads(1);
    tch::no_grad(|| {
        for (name, mut variable) in named_trainable(store) {
            let count = variable.numel() as i64;
            if variable.dim() > 1 {
                let wave = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.713 + name.len() as f64).sin();
                let fan_in = variable.size()[1..].iter().product::<i64>() as f64;
                let values = wave.view(&variable.size()[..]) * (2.0 / fan_in.sqrt());
                variable.copy_(&values);
            } else if name.contains("bias") {
                let _ = variable.zero_();
            }
        }
    });
}

struct Plain {
    store: nn::VarStore,
    network: Box<dyn Network>,
    handle: QuantHandle,
}

fn plain() -> Plain {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(QuantConfig::default(), Precision::FULL).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    fill(&store);
    Plain { store, network, handle: factory.handle() }
}

fn train_config(epochs: u64) -> TrainConfig {
    TrainConfig { epochs, seed: 3, schedule: Schedule::Constant { peak: 0.05 } }
}

fn weights(store: &nn::VarStore) -> Vec<Tensor> {
    let mut named: Vec<_> = store.variables().into_iter().collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.into_iter().map(|(_, tensor)| tensor.detach().copy()).collect()
}

fn pfq() -> Pfq {
    Pfq::new(&[(3, 6), (4, 6), (8, 8)], AtEpochs::new(vec![1, 3]).unwrap()).unwrap()
}

#[test]
fn a_progressive_training_switches_costs_what_it_should_and_resumes_to_the_bit() {
    let whole = plain();
    let workload = trace_workload("net", whole.network.as_ref(), &[1, 8, 8], Device::Cpu).unwrap();
    let mut objective = CrossEntropy::new(whole.network.as_ref());
    let mut optimizer = Sgd::new(parameters(&whole.store, 1e-4), SgdConfig::default()).unwrap();
    let mut control = PrecisionController::new(&whole.handle, pfq());
    let mut ledger = CostLedger::new(&workload, &whole.handle, None).unwrap();
    let mut bits = Vec::new();
    let mut watch = EachEpoch("watch", |report: &mut EpochReport| {
        bits.push(["forward_bits", "switched", "cp"].map(|name| report.metrics[name]));
        Ok(Control::Continue)
    });
    let mut trainer = Trainer::new(train_config(4), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut control).observe(&mut ledger).observe(&mut watch).fit(&Images).unwrap();
    let percent = |forward, gradient| Precision::new(forward, gradient).unwrap().cost_percent();
    let (low, middle, high) = (percent(3, 6), percent(4, 6), percent(8, 8));
    assert_eq!(bits, [[3.0, 1.0, low], [4.0, 0.0, middle], [4.0, 1.0, middle], [8.0, 0.0, high]]);
    assert_eq!(control.switches(), [0, 2]);
    // Equal numbers of samples: the mean of the four epochs.
    assert!((ledger.cp() - (low + 2.0 * middle + high) / 4.0).abs() < 1e-12);
    assert_eq!(ledger.phases().map(|(_, samples)| samples).collect::<Vec<_>>(), [32.0, 64.0, 32.0]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("training.safetensors");
    let first = plain();
    {
        let mut objective = CrossEntropy::new(first.network.as_ref());
        let mut optimizer = Sgd::new(parameters(&first.store, 1e-4), SgdConfig::default()).unwrap();
        let mut control = PrecisionController::new(&first.handle, pfq());
        let mut ledger = CostLedger::new(&workload, &first.handle, None).unwrap();
        let mut trainer = Trainer::new(train_config(3), &mut objective, &mut optimizer).unwrap();
        trainer.observe(&mut control).observe(&mut ledger).fit(&Images).unwrap();
        trainer.save(&file, &first.store, &()).unwrap();
    }
    let second = plain();
    let mut objective = CrossEntropy::new(second.network.as_ref());
    let mut optimizer = Sgd::new(parameters(&second.store, 1e-4), SgdConfig::default()).unwrap();
    let mut control = PrecisionController::new(&second.handle, pfq());
    let mut again = CostLedger::new(&workload, &second.handle, None).unwrap();
    let mut trainer = Trainer::new(train_config(4), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut control).observe(&mut again);
    trainer.restore::<()>(&file, &second.store).unwrap();
    // An evaluation now is one of the network that was trained; only the next step has 8/8.
    assert_eq!(second.handle.precision(), Precision::new(4, 6).unwrap());
    trainer.fit(&Images).unwrap();
    assert_eq!(again.effective_macs(), ledger.effective_macs());
    assert_eq!(control.switches(), [0, 2]);
    assert!(weights(&second.store).iter().zip(weights(&whole.store)).all(|(a, b)| a.equal(&b)));
}

#[test]
fn a_cycle_is_evaluated_at_the_precision_of_its_epochs_last_step() {
    let net = plain();
    let mut objective = CrossEntropy::new(net.network.as_ref());
    let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
    let cyclic = Cyclic { low: 3, high: 8, gradient: 8, steps: 8, cycles: 2 };
    let mut control = PrecisionController::new(&net.handle, cyclic);
    let mut trainer = Trainer::new(train_config(1), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut control).fit(&Images).unwrap();
    assert_eq!(net.handle.precision(), Precision::new(cyclic.forward_bits(3), 8).unwrap());
    assert!(cyclic.forward_bits(3) > 6);
}

#[test]
fn a_cycle_that_cannot_run_is_refused_before_the_first_step() {
    let cyclic = Cyclic { low: 3, high: 8, gradient: 8, steps: 8, cycles: 2 };
    for (broken, named) in [
        (Cyclic { cycles: 0, ..cyclic }, "`cycles`"),
        (Cyclic { cycles: 9, ..cyclic }, "`cycles`"),
        (Cyclic { low: 9, ..cyclic }, "`low`"),
        (Cyclic { high: 99, ..cyclic }, "99 bits"),
        (Cyclic { gradient: 0, ..cyclic }, "0 bits"),
    ] {
        let net = plain();
        let mut objective = CrossEntropy::new(net.network.as_ref());
        let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
        let mut control = PrecisionController::new(&net.handle, broken);
        let mut trainer = Trainer::new(train_config(1), &mut objective, &mut optimizer).unwrap();
        let error = trainer.observe(&mut control).fit(&Images).unwrap_err().to_string();
        assert!(error.starts_with("observer `precision`") && error.contains(named), "{broken:?}: {error}");
        assert_eq!(trainer.progress(), Progress::default());
    }
}

#[test]
fn a_precision_that_a_grid_cannot_have_is_refused_before_its_step() {
    let store = nn::VarStore::new(Device::Cpu);
    let symmetric = QuantConfig { activation_grid: GridKind::Symmetric, ..QuantConfig::default() };
    let factory = QuantFactory::new(symmetric, Precision::FULL).unwrap();
    let network = architecture().build(&store.root(), &factory).unwrap();
    fill(&store);
    let two = Precision::new(2, 8).unwrap();
    let one = Precision::new(1, 8).unwrap();
    // One bit from the third step on, or from the first.
    for (first, last_step, last) in [(2, 1, two), (0, 0, one)] {
        let handle = factory.handle();
        let schedule = ByProgress(move |progress: Progress| if progress.step < first { two } else { one });
        let mut control = PrecisionController::new(&handle, schedule);
        let mut objective = CrossEntropy::new(network.as_ref());
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let mut trainer = Trainer::new(train_config(1), &mut objective, &mut optimizer).unwrap();
        let error = trainer.observe(&mut control).fit(&Images).unwrap_err().to_string();
        let expected = "observer `precision`: `activation_grid`: expected 2 bits at least on a symmetric grid";
        assert_eq!(error, format!("{expected}, found 1"));
        assert_eq!((trainer.progress().step, handle.precision()), (last_step, last));
    }
}

#[test]
fn a_weight_that_is_not_finite_stops_the_training() {
    let net = plain();
    let mut objective = CrossEntropy::new(net.network.as_ref());
    let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
    let mut control = PrecisionController::new(&net.handle, Precision::new(4, 8).unwrap());
    let _ = tch::no_grad(|| net.store.variables().remove("conv2.weight").unwrap().get(0).fill_(f64::INFINITY));
    let mut trainer = Trainer::new(train_config(1), &mut objective, &mut optimizer).unwrap();
    let error = trainer.observe(&mut control).fit(&Images).unwrap_err().to_string();
    // The weight passes unrounded, so that the loss breaks first; the handle knows where it came from.
    assert!(error.contains("cross_entropy"), "{error}");
    assert!(net.handle.check_finite(0).unwrap_err().to_string().contains("weight at `conv2`"));
}

struct Gated {
    store: nn::VarStore,
    network: Box<dyn Network>,
    handle: QuantHandle,
    gates: Gates,
}

fn gated(config: DfqConfig) -> Gated {
    let store = nn::VarStore::new(Device::Cpu);
    let (network, handle, gates) = {
        let factory = QuantFactory::gated(QuantConfig::default(), config, store.root() / "gates").unwrap();
        let network = architecture().build(&store.root(), &factory).unwrap();
        (network, factory.handle(), factory.gates().unwrap())
    };
    fill(&store);
    Gated { store, network, handle, gates }
}

fn dfq(target: f64, beta: f64) -> DfqConfig {
    let options = [(3, 6), (4, 8), (6, 12)].map(|(a, g)| DfqOption::bits(a, g).unwrap()).to_vec();
    let target = CpTarget::new(target).unwrap();
    DfqConfig { options, hidden: 8, embedding: 8, target, beta, ..DfqConfig::default() }
}

/// The mean cp of a training's last epochs, and the target at its end.
fn mean_cp(net: &Gated, mut follow: FollowTarget, epochs: u64, last: usize) -> (f64, f64) {
    let mut inner = CrossEntropy::new(net.network.as_ref());
    let mut objective = WithGateCost::new(&mut inner, &net.gates);
    let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
    let (mut cps, mut target) = (Vec::new(), 0.0);
    let mut watch = EachEpoch("watch", |report: &mut EpochReport| {
        cps.push(report.metrics["cp"]);
        target = report.metrics["target_cp"];
        Ok(Control::Continue)
    });
    let mut trainer = Trainer::new(train_config(epochs), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut follow).observe(&mut watch).fit(&Images).unwrap();
    let tail = &cps[cps.len() - last..];
    (tail.iter().sum::<f64>() / tail.len() as f64, target)
}

#[test]
fn gates_go_to_the_cheapest_and_to_the_dearest_option_when_told_to() {
    // W4: (3,6) costs 100·54/3072 %, (6,12) 100·144/3072 %. A target at an end is reached and kept by every sample.
    for target in [100.0 * 54.0 / 3072.0, 100.0 * 144.0 / 3072.0] {
        let net = gated(dfq(target, 1.0));
        let follow = FollowTarget::constant(&net.gates);
        let (cp, _) = mean_cp(&net, follow, 40, 4);
        assert!((cp - target).abs() < 0.1, "target {target}: {cp}");
    }
}

#[test]
fn the_realised_cost_converges_to_a_target_between_and_a_staged_target_is_followed() {
    // Eight samples and two blocks make a step's cost a multiple of about 0.1 %; the bands leave room for a chatter of
    // a few samples around the target.
    let net = gated(dfq(3.0, 0.5));
    let follow = FollowTarget::constant(&net.gates);
    let (cp, _) = mean_cp(&net, follow, 50, 25);
    assert!((cp - 3.0).abs() < 0.25, "{cp}");

    let net = gated(dfq(3.0, 0.5));
    let targets = [2.0, 3.5].map(|target| CpTarget::new(target).unwrap()).to_vec();
    let follow = FollowTarget::staged(&net.gates, targets, AtEpochs::new(vec![20]).unwrap()).unwrap();
    assert_eq!(net.gates.config().target.percent(), 2.0);
    let (cp, target) = mean_cp(&net, follow, 50, 15);
    assert_eq!(target, 3.5);
    assert!((cp - 3.5).abs() < 0.4, "{cp}");
}

/// What a staged training leaves after so many epochs: its weights, and the target in force. It goes on from a file, or
/// leaves one. With `shares`, options are drawn instead of chosen.
fn steered(epochs: u64, shares: Option<&[Vec<f64>]>, from: Option<&Path>, to: Option<&Path>) -> (Vec<Tensor>, f64) {
    let net = gated(dfq(3.0, 0.5));
    if let Some(shares) = shares {
        net.gates.draw_at_random(shares.to_vec(), 7).unwrap();
    }
    let targets = [2.0, 3.5].map(|target| CpTarget::new(target).unwrap()).to_vec();
    let mut follow = FollowTarget::staged(&net.gates, targets, AtEpochs::new(vec![2]).unwrap()).unwrap();
    let mut inner = CrossEntropy::new(net.network.as_ref());
    let mut objective = WithGateCost::new(&mut inner, &net.gates);
    let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(train_config(epochs), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut follow);
    if let Some(file) = from {
        trainer.restore::<()>(file, &net.store).unwrap();
    }
    trainer.fit(&Images).unwrap();
    if let Some(file) = to {
        trainer.save(file, &net.store, &()).unwrap();
    }
    drop(trainer);
    (weights(&net.store), net.gates.config().target.percent())
}

#[test]
fn a_steered_training_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("training.safetensors");
    let shares = [vec![0.25, 0.5, 0.25], vec![0.5, 0.25, 0.25]];
    for shares in [None, Some(&shares[..])] {
        let (whole, target) = steered(4, shares, None, None);
        assert_eq!(steered(2, shares, None, Some(&file)).1, 3.5);
        let (resumed, again) = steered(4, shares, Some(&file), None);
        assert_eq!((target, again), (3.5, 3.5));
        assert!(resumed.iter().zip(&whole).all(|(a, b)| a.equal(b)), "drawn: {}", shares.is_some());
    }
}

/// A loss of one, whatever the network says, under a name that nobody knows.
struct One<'a>(&'a dyn Network);

impl Objective<Batch> for One<'_> {
    fn loss(&mut self, batch: &Batch, _: &Progress) -> core_tensor::Result<Loss> {
        Ok(Loss::single("other", self.0.forward(&batch.input, true).sum(Kind::Float) * 0.0 + 1.0))
    }
}

/// Keeps the losses that it is given.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<f64>>>);

impl StageIndicator for Seen {
    fn end_of_epoch(&mut self, loss: f64) -> quant::fractrain::Result<bool> {
        self.0.lock().unwrap().push(loss);
        Ok(false)
    }

    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    fn load_state(&mut self, _: &[f64]) -> quant::fractrain::Result<()> {
        Ok(())
    }
}

#[test]
fn indicators_of_targets_see_the_loss_without_its_cost() {
    // Whether the task's loss is called cross-entropy or not.
    for known in [false, true] {
        let net = gated(dfq(3.0, 0.5));
        let (mut other, mut cross_entropy) = (One(net.network.as_ref()), CrossEntropy::new(net.network.as_ref()));
        let inner: &mut dyn Objective<Batch> = if known { &mut cross_entropy } else { &mut other };
        let mut objective = WithGateCost::new(inner, &net.gates);
        let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
        let (seen, mut metrics) = (Seen::default(), Vec::new());
        let mut watch = EachEpoch("watch", |report: &mut EpochReport| {
            metrics.push(report.metrics.clone());
            Ok(Control::Continue)
        });
        let targets = [2.0, 3.5].map(|target| CpTarget::new(target).unwrap()).to_vec();
        let mut follow = FollowTarget::staged(&net.gates, targets, seen.clone()).unwrap();
        let mut trainer = Trainer::new(train_config(3), &mut objective, &mut optimizer).unwrap();
        trainer.observe(&mut follow).observe(&mut watch).fit(&Images).unwrap();
        let seen = seen.0.lock().unwrap().clone();
        if known {
            let losses: Vec<f64> = metrics.iter().map(|epoch| epoch["cross_entropy"]).collect();
            assert_eq!(seen, losses);
        } else {
            assert_eq!(seen, [1.0; 3]);
        }
        // The cost moves the sum; a loss that has a name is not told twice.
        assert!(metrics.iter().zip(&seen).all(|(epoch, seen)| epoch["loss"] != *seen));
        assert!(metrics.iter().all(|epoch| epoch.contains_key("task_loss") != known));
    }
}

#[test]
fn a_schedule_of_a_network_with_gates_sees_the_loss_without_its_cost_too() {
    let net = gated(dfq(3.0, 0.5));
    let mut one = One(net.network.as_ref());
    let mut objective = WithGateCost::new(&mut one, &net.gates);
    let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
    let seen = Seen::default();
    let stages = Pfq::new(&[(3, 6)], seen.clone()).unwrap();
    let mut control = PrecisionController::new(&net.handle, stages);
    let mut trainer = Trainer::new(train_config(3), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut control).fit(&Images).unwrap();
    assert_eq!(*seen.0.lock().unwrap(), [1.0; 3]);
}

/// Batches of forty 8 × 8 images of stripes under waves of their own, four an epoch and others in every epoch. The class is the
/// direction of the stripes.
struct Stripes;

impl BatchSource for Stripes {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let ramp = |count: i64| Tensor::arange(count, (Kind::Float, Device::Cpu));
        Ok(Box::new((0..4).map(move |step| {
            let image = ramp(40) + (epoch * 4 + step) as f64 * 40.0;
            let target = ramp(40).remainder(4).to_kind(Kind::Int64);
            let [down, across] = [[1.0_f32, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, -1.0]]
                .map(|parts| Tensor::from_slice(&parts).index_select(0, &target).view([40, 1, 1]));
            let angle = down * ramp(8).view([1, 8, 1]) + across * ramp(8).view([1, 1, 8]);
            let stripes = (angle * 1.3 + (&image * 0.77).view([40, 1, 1])).sin();
            let noise = ((ramp(64).view([1, 8, 8]) + 3.0) * (image + 1.0).sqrt().view([40, 1, 1]) * 7.1).sin() * 0.5;
            Ok(Batch { input: (stripes + noise).unsqueeze(1), target, index: (0..40).collect() })
        })))
    }
}

#[test]
fn a_trained_network_in_integers_names_the_classes_that_it_names_rounded() {
    for activation_grid in [GridKind::MinMax, GridKind::IntegerZeroPoint] {
        let store = nn::VarStore::new(Device::Cpu);
        let config = QuantConfig { activation_grid, ..QuantConfig::default() };
        let factory = QuantFactory::new(config, Precision::new(8, 8).unwrap()).unwrap();
        let network = architecture().build(&store.root(), &factory).unwrap();
        fill(&store);
        let mut objective = CrossEntropy::new(network.as_ref());
        let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default()).unwrap();
        Trainer::new(train_config(40), &mut objective, &mut optimizer).unwrap().fit(&Stripes).unwrap();
        let exported = export_int8(&store, &factory.handle()).unwrap();
        let integers = exported.build(&architecture(), &nn::VarStore::new(Device::Cpu)).unwrap();
        let classes = |network: &dyn Network, batch: &Batch| {
            Vec::<i64>::try_from(tch::no_grad(|| network.forward(&batch.input, false)).argmax(-1, false)).unwrap()
        };
        let (mut agree, mut right, mut images) = (0, 0, 0);
        // Epochs that the training did not come to.
        for batch in (100..103).flat_map(|epoch| Stripes.epoch(epoch).unwrap()).map(Result::unwrap) {
            let (ours, theirs) = (classes(integers.as_ref(), &batch), classes(network.as_ref(), &batch));
            let target = Vec::<i64>::try_from(&batch.target).unwrap();
            images += target.len();
            agree += ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
            right += theirs.iter().zip(&target).filter(|(a, b)| a == b).count();
        }
        assert!(images == 480 && 3 * right > 2 * images, "{right} of {images} are right, a quarter by chance");
        assert!(1_000 * agree >= 995 * images, "{activation_grid:?}: {agree} of {images} agree");
    }
}

#[test]
fn without_weight_the_cost_changes_nothing() {
    let train = |config: DfqConfig, with_cost: bool| {
        let net = gated(config);
        let mut inner = CrossEntropy::new(net.network.as_ref());
        let mut optimizer = Sgd::new(parameters(&net.store, 0.0), SgdConfig::default()).unwrap();
        if with_cost {
            let mut objective = WithGateCost::new(&mut inner, &net.gates);
            Trainer::new(train_config(2), &mut objective, &mut optimizer).unwrap().fit(&Images).unwrap();
        } else {
            Trainer::new(train_config(2), &mut inner, &mut optimizer).unwrap().fit(&Images).unwrap();
        }
        weights(&net.store)
    };
    let free = DfqConfig { controller: CostController::Sign { band: 0.0 }, ..dfq(2.0, 0.0) };
    let (with, without) = (train(free.clone(), true), train(free, false));
    for (a, b) in with.iter().zip(&without) {
        assert!(a.equal(b), "{:?} differs by {}", a.size(), (a - b).abs().max().double_value(&[]));
    }
}
