use super::*;
use crate::criterion::Magnitude;
use crate::masked::tests::lenet;
use core_tensor::checkpoint::state_of;
use core_tensor::data::{Augmentation, Batch, Dataset, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};

/// Twelve batches of eight images an epoch.
fn loader() -> Loader {
    let images: Dataset = ShapeGenerator::fashion_mnist().splits(96, 1, 0).unwrap().train;
    Loader::new(images, &Augmentation::default(), LoaderConfig::training(8), 0).unwrap()
}

/// Cubic to three quarters in three steps of two, after one: sparsities 0, 0.5278, 0.7222, 0.75 after 1, 3, 5 and 7 steps.
fn config() -> GradualConfig {
    GradualConfig {
        schedule: PruningSchedule::Cubic { initial_sparsity: 0.0, final_sparsity: 0.75, rounds: 3 },
        first_step: 1,
        every: 2,
        prunable: Prunable::default(),
        selector: Selector::global(),
    }
}

/// Notes the density after each step, as it is in the weights.
struct Densities<'a>(Vec<f64>, &'a [NamedTensor]);

impl Observer for Densities<'_> {
    fn name(&self) -> &str {
        "densities"
    }

    fn after_step(&mut self, _: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let count = |of: fn(&Tensor) -> i64| self.1.iter().map(|(_, weight)| of(weight)).sum::<i64>() as f64;
        self.0
            .push(count(|weight| weight.count_nonzero(None).int64_value(&[])) / count(|weight| weight.numel() as i64));
        Ok(Control::Continue)
    }
}

fn training() -> TrainConfig {
    TrainConfig { epochs: 2, seed: 0, schedule: Schedule::Constant { peak: 0.05 } }
}

fn sgd(store: &nn::VarStore) -> Sgd {
    Sgd::new(parameters(store, 0.0), SgdConfig { momentum: 0.9, nesterov: false }).unwrap()
}

#[test]
fn weights_go_when_the_schedule_says_and_as_many_as_it_says() {
    let (store, network) = lenet();
    let mut gradual = GradualPruner::new(config(), &store, &Magnitude).unwrap();
    let weights = Prunable::default().select_from(&store).unwrap();
    let mut seen = Densities(Vec::new(), &weights);
    let (mut objective, mut optimizer) = (CrossEntropy::new(network.as_ref()), sgd(&store));
    let mut trainer = Trainer::<Batch>::new(training(), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut gradual);
    trainer.observe(&mut seen);
    trainer.fit(&loader()).unwrap();
    drop(trainer);
    // By hand: 0.75 (1 − (2/3)³) and 0.75 (1 − (1/3)³).
    let expected = |step: usize| match step {
        1 | 2 => 1.0,
        3 | 4 => 1.0 - 0.75 * 19.0 / 27.0,
        5 | 6 => 1.0 - 0.75 * 26.0 / 27.0,
        _ => 0.25,
    };
    let all = weights.iter().map(|(_, weight)| weight.numel()).sum::<usize>() as f64;
    for (step, density) in (1..).zip(&seen.0) {
        assert!((density - expected(step)).abs() <= 0.5 / all, "step {step}: {density}, expected {}", expected(step));
    }
    assert_eq!(seen.0.len(), 24);
    assert!(gradual.is_finished() && (gradual.mask().density() - 0.25).abs() <= 0.5 / all);
    // Momentum of what is gone is gone.
    for (name, tensor) in optimizer.state() {
        let Some((_, mask)) = gradual.mask().iter().find(|(layer, _)| name.starts_with(&format!("{layer}."))) else {
            continue;
        };
        let dropped = mask.to_tensor((Kind::Bool, Device::Cpu)).logical_not();
        assert_eq!(tensor.masked_select(&dropped).abs().max().double_value(&[]), 0.0, "{name}");
    }
}

#[test]
fn with_nothing_before_it_the_first_pruning_is_done_before_training() {
    let (store, network) = lenet();
    let one_shot = GradualConfig { schedule: PruningSchedule::OneShot { density: 0.5 }, first_step: 0, ..config() };
    let mut gradual = GradualPruner::new(one_shot, &store, &Magnitude).unwrap();
    let expected = PruningSchedule::OneShot { density: 0.5 };
    let expected = expected.prune(&gradual.weights, &Magnitude, &Selector::global()).unwrap();
    let (mut objective, mut optimizer) = (CrossEntropy::new(network.as_ref()), sgd(&store));
    let mut trainer = Trainer::<Batch>::new(training(), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut gradual);
    trainer.fit(&loader()).unwrap();
    drop(trainer);
    assert!(*gradual.mask() == expected, "of the weights that training had not touched");
}

#[test]
fn a_resumed_training_ends_as_the_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    // The last prunings come in the second epoch.
    let late = || GradualConfig { first_step: 9, ..config() };
    let run = |stop_after: Option<u64>, resume: bool| {
        let (store, network) = lenet();
        let mut gradual = GradualPruner::new(late(), &store, &Magnitude).unwrap();
        let (mut objective, mut optimizer) = (CrossEntropy::new(network.as_ref()), sgd(&store));
        let mut trainer = Trainer::<Batch>::new(training(), &mut objective, &mut optimizer).unwrap();
        trainer.observe(&mut gradual);
        if resume {
            trainer.restore::<()>(&path, &store).unwrap();
        }
        while trainer.progress().epoch < stop_after.unwrap_or(2) {
            trainer.fit_epoch(&loader()).unwrap();
        }
        if stop_after.is_some() {
            trainer.save(&path, &store, &()).unwrap();
        }
        drop(trainer);
        (
            state_of(&store).into_iter().map(|(name, value)| (name, value.copy())).collect::<Vec<_>>(),
            gradual.done,
            gradual.mask,
        )
    };
    let (whole, done, mask) = run(None, false);
    let (_, half_done, half) = run(Some(1), false);
    assert_eq!((half_done, done), (2, 4), "prunings after 9 and 11 of 12 steps, then after 13 and 15");
    assert!(half.survivors() > mask.survivors());
    let (resumed, done_again, mask_again) = run(None, true);
    assert!(done_again == done && mask_again == mask);
    for ((name, value), (_, again)) in whole.iter().zip(&resumed) {
        assert!(value.equal(again), "{name}");
    }
}

#[test]
fn settings_and_states_that_do_not_fit_are_refused() {
    let (store, _) = lenet();
    let refuse = |config: GradualConfig| GradualPruner::new(config, &store, &Magnitude).unwrap_err().to_string();
    assert_eq!(refuse(GradualConfig { every: 0, ..config() }), "every is 0, expected at least 1 step");
    let last = PruningSchedule::Cubic { initial_sparsity: 0.0, final_sparsity: 1.0, rounds: 3 };
    assert!(refuse(GradualConfig { schedule: last, ..config() }).contains("final_sparsity"));
    let pattern = GradualConfig { selector: Selector::n_of_m(2, 4), ..config() };
    assert!(refuse(pattern).contains("`AsScoped` with so many of a group"));
    let mut gradual = GradualPruner::new(config(), &store, &Magnitude).unwrap();
    let state = gradual.state();
    let mut without = gradual.state();
    without.shift_remove("done");
    let mut beyond = gradual.state();
    beyond.insert("done".into(), Tensor::from(5_i64));
    for (state, part) in [(without, "nothing"), (beyond, "does not have"), (NamedTensors::new(), "nothing")] {
        let error = gradual.load_state(&state).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    gradual.load_state(&state).unwrap();
}

#[test]
fn a_weight_that_is_called_a_mask_keeps_its_name() {
    let store = nn::VarStore::new(Device::Cpu);
    let _ = store.root().ones("gate_mask", &[4, 4]);
    let _ = store.root().ones("gate", &[4, 4]);
    let (prunable, selector) = (Prunable::matching(["gate*"]), Selector::per_layer());
    let config = GradualConfig { prunable, selector, ..config() };
    let mut gradual = GradualPruner::new(config, &store, &Magnitude).unwrap();
    gradual.prune_after(3).unwrap();
    let (state, mask) = (gradual.state(), gradual.mask().clone());
    gradual.prune_after(100).unwrap();
    gradual.load_state(&state).unwrap();
    assert!(*gradual.mask() == mask && mask.get("gate_mask").is_some() && gradual.done == 2);
}
