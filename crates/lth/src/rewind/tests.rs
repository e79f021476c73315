use super::*;
use crate::MaskSet;
use core_tensor::optim::Optimizer;
use core_tensor::train::{Observer, Progress, StepContext};
use tch::{Device, Kind, nn, no_grad};

/// The reference scripts' schedule: 182 epochs, milestones 90 and 135; one step an epoch here.
fn whole() -> Schedule {
    Schedule::Step { peak: 0.1, milestones: vec![90, 135], gamma: 0.1 }
}

#[test]
fn rewinding_gives_the_lengths_rates_and_milestones_of_the_reference_scripts() {
    // (rewound to, epochs left, milestones left, first rate), from the scripts' command lines.
    let rows: [(u64, u64, &[u64], f64); 9] = [
        (13, 169, &[77, 122], 0.1),
        (33, 149, &[57, 102], 0.1),
        (53, 129, &[37, 82], 0.1),
        (73, 109, &[17, 62], 0.1),
        (93, 89, &[42], 0.01),
        (113, 69, &[22], 0.01),
        (133, 49, &[2], 0.01),
        (153, 29, &[], 0.001),
        (173, 9, &[], 0.001),
    ];
    for (k, steps, milestones, rate) in rows {
        for (rewind, weights_from) in [(Rewind::Step(k), k), (Rewind::LearningRate(k), 182)] {
            let plan = rewind.plan(&whole(), 182).unwrap();
            assert_eq!((plan.weights_from, plan.start_step, plan.steps), (weights_from, k, steps));
            assert!((plan.schedule.learning_rate(0) - rate).abs() < 1e-12 * rate);
            let drops = |step: &u64| plan.schedule.learning_rate(*step) < 0.99 * plan.schedule.learning_rate(step - 1);
            assert_eq!((1..steps).filter(drops).collect::<Vec<_>>(), milestones);
        }
    }
}

#[test]
fn the_original_ticket_fine_tuning_and_fractions() {
    assert_eq!(Rewind::Step(0).plan(&whole(), 182).unwrap(), Rewind::Init.plan(&whole(), 182).unwrap());
    let tune = Rewind::FineTune.plan(&whole(), 182).unwrap();
    assert_eq!((tune.weights_from, tune.start_step, tune.steps), (182, 0, 182));
    assert!((0..182).all(|step| (tune.schedule.learning_rate(step) - 0.001).abs() < 1e-15));
    // 18 % of 182 epochs is 32.76.
    assert_eq!(Rewind::Fraction(0.18).plan(&whole(), 182).unwrap(), Rewind::Step(33).plan(&whole(), 182).unwrap());
}

#[test]
fn rewinding_to_the_end_leaves_nothing_to_train() {
    for rewind in [Rewind::Step(182), Rewind::LearningRate(182), Rewind::Fraction(1.0)] {
        let plan = rewind.plan(&whole(), 182).unwrap();
        assert_eq!((plan.weights_from, plan.steps), (182, 0));
    }
}

#[test]
fn points_beyond_the_training_are_refused() {
    let refuse = |rewind: Rewind| rewind.plan(&whole(), 182).unwrap_err().to_string();
    assert_eq!(refuse(Rewind::Step(183)), "rewind step is 183, expected at most the 182 of the training");
    assert!(refuse(Rewind::LearningRate(u64::MAX)).contains("rewind step"));
    for fraction in [-0.1, 1.1, f64::NAN] {
        assert!(refuse(Rewind::Fraction(fraction)).contains("rewind fraction"));
    }
}

/// A parameter and a running statistic, and an optimizer that adds 1 to the parameter in each step.
fn model() -> (nn::VarStore, [Tensor; 2]) {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let variables = [root.zeros("weight", &[2]), root.zeros_no_train("running_mean", &[2])];
    (store, variables)
}

#[derive(Debug)]
struct Nothing;

impl Optimizer for Nothing {
    fn step(&mut self, _: f64) -> core_tensor::Result<()> {
        Ok(())
    }
    fn parameters(&self) -> &[core_tensor::optim::Parameter] {
        &[]
    }
    fn parameters_mut(&mut self) -> &mut [core_tensor::optim::Parameter] {
        &mut []
    }
    fn state(&self) -> NamedTensors {
        NamedTensors::new()
    }
    fn load_state(&mut self, _: &NamedTensors) -> core_tensor::Result<()> {
        Ok(())
    }
}

/// Four steps in two epochs, each adding 1 to all variables.
fn watch(snapshots: &mut Snapshots, variables: &mut [Tensor; 2]) {
    for step in 0..4 {
        let progress = Progress { epoch: step / 2, step };
        if step % 2 == 0 {
            snapshots.before_epoch(progress, &mut Nothing).unwrap();
        }
        no_grad(|| variables.iter_mut().for_each(|variable| drop(variable.f_add_scalar_(1.0).unwrap())));
        let context = StepContext { progress, steps_per_epoch: 2, loss: 0.0, learning_rate: 0.1 };
        snapshots.after_step(&context, &mut Nothing).unwrap();
    }
}

#[test]
fn snapshots_hold_weights_and_running_statistics_of_the_steps_asked_for() {
    let (store, mut variables) = model();
    let mut snapshots = Snapshots::new(&store, [0, 3, 4]);
    watch(&mut snapshots, &mut variables);
    for step in [0, 3, 4] {
        let taken = snapshots.get(step).unwrap();
        for name in ["weight", "running_mean"] {
            assert_eq!(Vec::<f32>::try_from(&taken[name]).unwrap(), [step as f32; 2]);
            assert!(!taken[name].requires_grad());
        }
    }
    let missing = snapshots.get(2).unwrap_err().to_string();
    assert_eq!(missing, "no snapshot of step 2; there are snapshots of [0, 3, 4]");
}

#[test]
fn snapshots_survive_being_saved_and_refuse_what_does_not_fit() {
    let (store, mut variables) = model();
    let mut snapshots = Snapshots::new(&store, [0, 3]);
    watch(&mut snapshots, &mut variables);
    let state = snapshots.state();
    let mut resumed = Snapshots::new(&store, [0, 3]);
    resumed.load_state(&state).unwrap();
    assert!(resumed.get(3).unwrap()["weight"].equal(&snapshots.get(3).unwrap()["weight"]));

    let mut refuse = |change: &dyn Fn(&mut NamedTensors)| {
        let mut state: NamedTensors = state.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        change(&mut state);
        resumed.load_state(&state).unwrap_err().to_string()
    };
    assert!(refuse(&|state| drop(state.shift_remove("3/weight"))).contains("3/weight"));
    let zeros = |size| Tensor::zeros([size], (Kind::Float, Device::Cpu));
    assert!(refuse(&|state| drop(state.insert("3/other".into(), zeros(2)))).contains("3/other"));
    assert!(refuse(&|state| drop(state.insert("x/weight".into(), zeros(2)))).contains("x/weight"));
    assert!(refuse(&|state| drop(state.insert("3/weight".into(), zeros(5)))).contains("[5]"));
}

#[test]
fn reinitialised_weights_have_the_variance_of_live_fan_out() {
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let start =
        NamedTensors::from([("conv".to_owned(), zeros(&[64, 32, 3, 3])), ("bias".to_owned(), zeros(&[64]) + 7.0)]);
    let kept = Tensor::from_slice(&(0..64 * 32 * 9).map(|i| u8::from(i % 4 == 0)).collect::<Vec<_>>());
    let mask = MaskSet::from_tensors(&[("conv".into(), kept.view([64, 32, 3, 3]))]).unwrap();
    let fresh = reinitialise(&start, &mask, 5).unwrap();
    assert!(fresh["bias"].equal(&start["bias"]));
    // n_eff = 64·9/4 = 144, so the standard deviation is √(2/144); 18,432 draws know it to about 0.5 %.
    let std = fresh["conv"].std(true).double_value(&[]);
    assert!((std / (2.0_f64 / 144.0).sqrt() - 1.0).abs() < 0.03, "{std}");
    assert!(fresh["conv"].equal(&reinitialise(&start, &mask, 5).unwrap()["conv"]));
    assert!(!fresh["conv"].equal(&reinitialise(&start, &mask, 6).unwrap()["conv"]));

    let refuse = |mask: &MaskSet| reinitialise(&start, mask, 0).unwrap_err().to_string();
    let of = |name: &str, bits: Tensor| MaskSet::from_tensors(&[(name.to_owned(), bits)]).unwrap();
    assert!(refuse(&of("fc", Tensor::from_slice(&[1_u8]))).contains("`fc`"));
    assert!(refuse(&of("conv", Tensor::from_slice(&[1_u8]))).contains("[64, 32, 3, 3]"));
    assert!(refuse(&of("bias", Tensor::zeros([64], (Kind::Uint8, Device::Cpu)))).contains("no weight of 64"));
}
