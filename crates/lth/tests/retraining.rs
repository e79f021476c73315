//! From a dense training to re-trained tickets, and the identities that tie the arms together.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{NamedTensors, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{CrossEntropy, Objective, Observer, TrainConfig, Trainer};
use lth::criterion::Magnitude;
use lth::{
    DistillConfig, Distillation, MaskRecord, MaskSet, Prunable, PruningSchedule, Rewind, Selector, Snapshots, Ticket,
    copies, restore,
};
use tch::{Device, Kind, Tensor, nn, no_grad};

const EPOCHS: u64 = 4;
const STEPS_PER_EPOCH: u64 = 3;
const TOTAL: u64 = EPOCHS * STEPS_PER_EPOCH;

/// The same few batches in every epoch. Not from libtorch's generator, which other tests seed too.
struct Waves;

fn wave(shape: &[i64], seed: i64) -> Tensor {
    let places = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) * 1.7 + seed;
    (places.square() * 0.37).sin().to_kind(Kind::Float).view(shape)
}

impl BatchSource for Waves {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        STEPS_PER_EPOCH
    }

    fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        Ok(Box::new((0..STEPS_PER_EPOCH as i64).map(|seed| {
            let target = Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2, 0, 1]);
            Ok(Batch { input: wave(&[8, 3, 8, 8], seed), target, index: (0..8).collect() })
        })))
    }
}

/// A residual network, whose batch norms have running statistics to rewind.
fn resnet() -> (nn::VarStore, Box<dyn Network>) {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(8, 3).unwrap().build(&store.root(), &Standard).unwrap();
    for (place, (_, mut weight)) in (0..).zip(Prunable::conv_and_linear().select_from(&store).unwrap()) {
        let scale = (2.0 / weight.size()[1..].iter().product::<i64>() as f64).sqrt();
        no_grad(|| weight.copy_(&(wave(&weight.size(), place) * scale)));
    }
    (store, network)
}

fn schedule() -> Schedule {
    Schedule::Step { peak: 0.05, milestones: vec![6, 9], gamma: 0.1 }
}

fn train(
    store: &nn::VarStore,
    objective: &mut dyn Objective<Batch>,
    schedule: Schedule,
    steps: u64,
    observer: Option<&mut dyn Observer>,
) -> NamedTensors {
    let mut optimizer = Sgd::new(parameters(store, 1e-3), SgdConfig::default()).unwrap();
    let config = TrainConfig { epochs: steps / STEPS_PER_EPOCH, seed: 0, schedule };
    let mut trainer = Trainer::new(config, objective, &mut optimizer).unwrap();
    if let Some(observer) = observer {
        trainer.observe(observer);
    }
    trainer.fit(&Waves).unwrap();
    copies(&store.variables().into_iter().collect::<NamedTensors>())
}

fn same(a: &NamedTensors, b: &NamedTensors) -> bool {
    a.len() == b.len() && a.iter().all(|(name, tensor)| tensor.equal(&b[name]))
}

/// Dense training with snapshots at the start, after two epochs and at the end.
fn dense() -> (nn::VarStore, Box<dyn Network>, Snapshots) {
    let (store, network) = resnet();
    let mut snapshots = Snapshots::new(&store, [0, 6, TOTAL]);
    train(&store, &mut CrossEntropy::new(network.as_ref()), schedule(), TOTAL, Some(&mut snapshots));
    (store, network, snapshots)
}

fn mask(store: &nn::VarStore, density: f64) -> MaskSet {
    let weights = Prunable::conv_only().select_from(store).unwrap();
    PruningSchedule::OneShot { density }.prune(&weights, &Magnitude, &Selector::global()).unwrap()
}

/// Re-trains a mask from a rewinding point and returns all variables.
fn retrain(mask: &MaskSet, rewind: Rewind, snapshots: &Snapshots, teacher: Option<&dyn Network>) -> NamedTensors {
    let plan = rewind.plan(&schedule(), TOTAL).unwrap();
    let start = snapshots.get(plan.weights_from).unwrap();
    let ticket = Ticket::new(mask.clone(), start, MaskRecord::default(), rewind, plan.start_step).unwrap();
    let (store, network) = resnet();
    let mut masked = ticket.apply(&store).unwrap();
    let mut objective: Box<dyn Objective<Batch>> = match teacher {
        Some(teacher) => Box::new(Distillation::new(network.as_ref(), teacher, DistillConfig::default()).unwrap()),
        None => Box::new(CrossEntropy::new(network.as_ref())),
    };
    train(&store, objective.as_mut(), plan.schedule, plan.steps, Some(&mut masked))
}

#[test]
fn rewinding_to_step_zero_is_the_original_ticket() {
    let (store, _network, snapshots) = dense();
    let mask = mask(&store, 0.3);
    let original = retrain(&mask, Rewind::Init, &snapshots, None);
    assert!(same(&retrain(&mask, Rewind::Step(0), &snapshots, None), &original));
    assert!(!same(&retrain(&mask, Rewind::Step(6), &snapshots, None), &original));
}

#[test]
fn a_dense_ticket_without_steps_left_is_the_trained_network() {
    let (store, _network, snapshots) = dense();
    let ones = MaskSet::ones_like(&Prunable::conv_only().select_from(&store).unwrap());
    let trained = copies(&store.variables().into_iter().collect::<NamedTensors>());
    for rewind in [Rewind::Step(TOTAL), Rewind::LearningRate(TOTAL)] {
        assert!(same(&retrain(&ones, rewind, &snapshots, None), &trained));
    }
}

#[test]
fn learning_rate_rewinding_of_a_dense_ticket_is_going_on_from_the_end() {
    let (store, network, snapshots) = dense();
    let ones = MaskSet::ones_like(&Prunable::conv_only().select_from(&store).unwrap());
    let rewound = retrain(&ones, Rewind::LearningRate(6), &snapshots, None);
    let mut objective = CrossEntropy::new(network.as_ref());
    let gone_on = train(&store, &mut objective, schedule().starting_at(6), TOTAL - 6, None);
    assert!(same(&rewound, &gone_on));
}

#[test]
fn every_arm_keeps_its_mask_and_a_teacher_makes_a_difference() {
    let (store, network, snapshots) = dense();
    let mask = mask(&store, 0.1);
    let before = copies(&store.variables().into_iter().collect::<NamedTensors>());
    for rewind in [Rewind::Init, Rewind::Step(6), Rewind::LearningRate(6), Rewind::FineTune] {
        let hard = retrain(&mask, rewind, &snapshots, None);
        let taught = retrain(&mask, rewind, &snapshots, Some(network.as_ref()));
        assert!(!same(&hard, &taught));
        for (name, layer) in mask.iter() {
            let dropped = layer.to_tensor((Kind::Bool, Device::Cpu)).logical_not();
            for arm in [&hard, &taught] {
                assert_eq!(arm[name].masked_select(&dropped).abs().sum(Kind::Float).double_value(&[]), 0.0, "{name}");
            }
        }
    }
    // Teaching changes nothing about the teacher.
    assert!(same(&before, &store.variables().into_iter().collect()));
}

#[test]
fn a_student_that_is_its_teacher_has_no_gradient_in_evaluation_mode_only() {
    let (store, network) = resnet();
    let batch = Waves.epoch(0).unwrap().next().unwrap().unwrap();
    let config = DistillConfig { alpha: 1.0, ..DistillConfig::default() };
    let gradient = |loss: Tensor| {
        store.trainable_variables().iter_mut().for_each(Tensor::zero_grad);
        loss.backward();
        store.variables()["conv1.weight"].grad().abs().max().double_value(&[])
    };
    let teacher = no_grad(|| network.forward(&batch.input, false));
    let student = network.forward(&batch.input, false);
    let evaluating = gradient(config.loss(&student, &teacher, &batch.target).unwrap().total);
    // In training mode batch norm uses the batch's statistics, so the logits differ.
    let mut objective = Distillation::new(network.as_ref(), network.as_ref(), config).unwrap();
    let training = gradient(objective.loss(&batch, &core_tensor::train::Progress::default()).unwrap().total);
    // p_s − p_t is a rounding error of single precision, carried back through eight layers.
    assert!(evaluating < 1e-5 && training > 1e-3, "{evaluating} and {training}");
}

#[test]
fn snapshots_taken_before_a_resume_are_there_after_it() {
    let (store, network) = resnet();
    let config = TrainConfig { epochs: EPOCHS, seed: 0, schedule: schedule() };
    let mut snapshots = Snapshots::new(&store, [0, TOTAL]);
    let start = copies(&store.variables().into_iter().collect::<NamedTensors>());
    let (progress, state) = {
        let mut objective = CrossEntropy::new(network.as_ref());
        let mut optimizer = Sgd::new(parameters(&store, 1e-3), SgdConfig::default()).unwrap();
        let mut trainer = Trainer::new(config.clone(), &mut objective, &mut optimizer).unwrap();
        trainer.observe(&mut snapshots);
        trainer.fit_epoch(&Waves).unwrap();
        (trainer.progress(), copies(&trainer.state()))
    };
    let halfway = copies(&store.variables().into_iter().collect::<NamedTensors>());

    let (again, network) = resnet();
    restore(&halfway, &again).unwrap();
    let mut snapshots = Snapshots::new(&again, [0, TOTAL]);
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&again, 1e-3), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut snapshots);
    trainer.resume(progress, &state).unwrap();
    trainer.fit(&Waves).unwrap();
    drop(trainer);
    assert!(same(snapshots.get(0).unwrap(), &start));
    assert!(same(snapshots.get(TOTAL).unwrap(), &again.variables().into_iter().collect()));
}
