use super::*;
use crate::data::Batch;
use crate::networks::Architecture;
use crate::nn::Standard;
use crate::optim::{Sgd, SgdConfig, parameters};
use crate::train::{CrossEntropy, EachEpoch, Loss};
use tch::{Device, Kind, Tensor, nn};

/// Four batches of eight noisy vectors whose class is their largest entry; other numbers in every epoch.
struct Vectors;

impl BatchSource for Vectors {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        Ok(Box::new((0..4).map(move |step| {
            let grid = Tensor::arange(8 * 784, (Kind::Float, Device::Cpu)) + (epoch * 4 + step) as f64;
            let input = (grid * 0.37).sin().view([8, 1, 28, 28]);
            let target = input.flatten(1, -1).slice(1, 0, 10, 1).argmax(-1, false);
            Ok(Batch { input, target, index: (0..8).collect() })
        })))
    }
}

fn lenet() -> (nn::VarStore, Box<dyn crate::nn::Network>) {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard).unwrap();
    (store, network)
}

fn config(epochs: u64) -> TrainConfig {
    TrainConfig { epochs, seed: 3, schedule: Schedule::Step { peak: 0.05, milestones: vec![6], gamma: 0.1 } }
}

fn weights(store: &nn::VarStore) -> Vec<Tensor> {
    crate::optim::named_trainable(store).into_iter().map(|(_, tensor)| tensor.detach().copy()).collect()
}

#[test]
fn a_resumed_run_is_bit_identical_to_an_undisturbed_one() {
    // Copied and not seeded twice: libtorch's generator is shared with the tests that run at the same time.
    let ((whole, network), (mut first, first_network)) = (lenet(), lenet());
    first.copy(&whole).unwrap();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&whole, 1e-3), SgdConfig::default()).unwrap();
    Trainer::new(config(4), &mut objective, &mut optimizer).unwrap().fit(&Vectors).unwrap();

    let mut objective = CrossEntropy::new(first_network.as_ref());
    let mut optimizer = Sgd::new(parameters(&first, 1e-3), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config(2), &mut objective, &mut optimizer).unwrap();
    trainer.fit(&Vectors).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("training.safetensors");
    trainer.save(&file, &first, &"kept").unwrap();

    let (second, network) = lenet();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&second, 1e-3), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config(4), &mut objective, &mut optimizer).unwrap();
    let nothing = trainer.restore_if_present::<String>(&folder.path().join("absent"), &second).unwrap();
    assert_eq!(nothing, None);
    assert_eq!(trainer.restore::<String>(&file, &second).unwrap(), "kept");
    assert_eq!(trainer.fit(&Vectors).unwrap(), Progress { epoch: 4, step: 16 });
    assert!(weights(&whole).iter().zip(weights(&second)).all(|(a, b)| a.equal(&b)));
}

#[test]
fn a_loss_that_is_not_a_number_stops_with_its_step_and_part() {
    struct Breaks;
    impl Objective<Batch> for Breaks {
        fn loss(&mut self, _: &Batch, progress: &Progress) -> Result<Loss> {
            let value = if progress.step == 2 { f64::NAN } else { 1.0 };
            let total = Tensor::from(value).set_requires_grad(true);
            let parts = vec![("fine", Tensor::from(1.0)), ("broken", Tensor::from(value))];
            Ok(Loss { total, parts })
        }
    }
    let store = nn::VarStore::new(Device::Cpu);
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
    let error = Trainer::new(config(1), &mut Breaks, &mut optimizer).unwrap().fit(&Vectors).unwrap_err();
    assert!(matches!(&error, Error::NotFinite { step: 2, part, .. } if part == "broken"), "{error}");
}

#[test]
fn a_total_or_a_part_that_is_not_one_value_is_refused_by_name() {
    /// The shapes of the total and of its part.
    struct Shaped(Vec<i64>, Vec<i64>);
    impl Objective<Batch> for Shaped {
        fn loss(&mut self, _: &Batch, _: &Progress) -> Result<Loss> {
            let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
            Ok(Loss { total: ones(&self.0).set_requires_grad(true), parts: vec![("each", ones(&self.1))] })
        }
    }
    let fit = |total: &[i64], part: &[i64]| {
        let store = nn::VarStore::new(Device::Cpu);
        let mut objective = Shaped(total.to_vec(), part.to_vec());
        let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
        let mut trainer = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap();
        trainer.fit(&Vectors)
    };
    assert_eq!(fit(&[8], &[]).unwrap_err().to_string(), "`total`: expected a loss of one value, found [8]");
    assert_eq!(fit(&[], &[2, 3]).unwrap_err().to_string(), "`each`: expected a loss of one value, found [2, 3]");
    assert_eq!(fit(&[], &[0]).unwrap_err().to_string(), "`each`: expected a loss of one value, found [0]");
    // One value in a vector is one value.
    assert_eq!(fit(&[1], &[1, 1]).unwrap(), Progress { epoch: 1, step: 4 });
}

#[test]
fn targets_that_are_no_class_numbers_are_an_error() {
    let (_store, network) = lenet();
    // Shares of the classes: cross-entropy takes them, accuracy cannot, least of all for as many rows as classes or for one.
    for rows in [8, 10, 1] {
        let input = Tensor::zeros([rows, 1, 28, 28], (Kind::Float, Device::Cpu));
        let target = Tensor::full([rows, 10], 0.1, (Kind::Float, Device::Cpu));
        let batch = Batch { input, target, index: (0..rows as usize).collect() };
        let refused = CrossEntropy::new(network.as_ref()).loss(&batch, &Progress::default());
        assert!(matches!(refused, Err(Error::Tensor { .. })), "{refused:?}");
    }
}

#[test]
fn a_backward_pass_that_fails_is_an_error_and_moves_nothing() {
    struct Breaks(Tensor);
    impl Objective<Batch> for Breaks {
        fn loss(&mut self, _: &Batch, _: &Progress) -> Result<Loss> {
            let value = &self.0 * 2.0;
            crate::autograd::register_hook(&value, |_| panic!("no gradient for you"))?;
            Ok(Loss { total: value.sum(Kind::Float), parts: Vec::new() })
        }
    }
    let store = nn::VarStore::new(Device::Cpu);
    let mut objective = Breaks(store.root().ones("weight", &[3]));
    let mut optimizer = Sgd::new(parameters(&store, 0.1), SgdConfig::default()).unwrap();
    let error = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap().fit(&Vectors).unwrap_err();
    assert!(matches!(error, Error::Torch(_)) && error.to_string().contains("hook panicked"), "{error}");
    assert_eq!(Vec::<f32>::try_from(&objective.0).unwrap(), [1.0; 3]);
}

#[test]
fn observers_see_every_point_in_order_and_can_stop() {
    #[derive(Default)]
    struct Diary(Vec<String>);
    impl Observer for Diary {
        fn name(&self) -> &str {
            "diary"
        }
        fn before_epoch(&mut self, progress: Progress, _: &mut dyn Optimizer) -> Result<()> {
            self.0.push(format!("epoch {}", progress.epoch));
            Ok(())
        }
        fn after_backward(&mut self, step: &mut StepContext, optimizer: &mut dyn Optimizer) -> Result<()> {
            assert!(optimizer.parameters()[0].tensor.grad().defined());
            self.0.push(format!("backward {}", step.progress.step));
            Ok(())
        }
        fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> Result<Control> {
            Ok(if step.progress.step == 4 { Control::Stop } else { Control::Continue })
        }
    }
    let (store, network) = lenet();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
    let (mut diary, mut reports) = (Diary::default(), Vec::new());
    let mut log = EachEpoch("log", |report: &mut EpochReport| {
        reports.push((report.epoch, report.step, report.metrics.keys().cloned().collect::<Vec<_>>()));
        Ok(Control::Continue)
    });
    let mut trainer = Trainer::new(config(9), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut diary).observe(&mut log);
    // The first step of the second epoch asks to stop: that epoch still gets its report.
    assert_eq!(trainer.fit(&Vectors).unwrap(), Progress { epoch: 2, step: 5 });
    assert_eq!(diary.0, ["epoch 0", "backward 0", "backward 1", "backward 2", "backward 3", "epoch 1", "backward 4"]);
    let names = ["loss", "cross_entropy", "train_accuracy"].map(String::from).to_vec();
    assert_eq!(reports, [(0, 4, names.clone()), (1, 5, names)]);
}

#[test]
fn a_report_has_the_epochs_means_and_the_rate_that_was_used() {
    /// Losses of 1, 2, 3, 4, each with a part of half of it.
    struct Counts;
    impl Objective<Batch> for Counts {
        fn loss(&mut self, _: &Batch, progress: &Progress) -> Result<Loss> {
            let value = progress.step as f64 + 1.0;
            let total = Tensor::from(value).set_requires_grad(true);
            Ok(Loss { total, parts: vec![("half", Tensor::from(value / 2.0))] })
        }
    }
    struct Halves;
    impl Observer for Halves {
        fn name(&self) -> &str {
            "halves"
        }
        fn after_backward(&mut self, step: &mut StepContext, _: &mut dyn Optimizer) -> Result<()> {
            step.learning_rate /= 2.0;
            Ok(())
        }
    }
    let store = nn::VarStore::new(Device::Cpu);
    let (mut objective, mut halves) = (Counts, Halves);
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut halves);
    let (_, report) = trainer.fit_epoch(&Vectors).unwrap();
    let metrics: Vec<(String, f64)> = report.metrics.into_iter().collect();
    assert_eq!(metrics, [("loss".to_owned(), 2.5), ("half".to_owned(), 1.25)]);
    // The schedule says 0.05.
    assert_eq!(report.learning_rate, 0.025);
}

#[test]
fn a_state_with_foreign_entries_is_refused() {
    let (store, network) = lenet();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap();
    let mut state = trainer.state();
    state.insert("observer/mask/x".into(), Tensor::from(1.0));
    let error = trainer.resume(Progress::default(), &state).unwrap_err().to_string();
    assert!(error.contains("observer/mask/x"), "{error}");
}

#[test]
fn two_observers_that_would_keep_their_state_under_one_name_are_refused() {
    struct Counter;
    impl Observer for Counter {
        fn name(&self) -> &str {
            "counter"
        }
        fn state(&self) -> NamedTensors {
            NamedTensors::from_iter([("count".to_owned(), Tensor::from(1.0))])
        }
    }
    let (store, network) = lenet();
    let mut objective = CrossEntropy::new(network.as_ref());
    let mut optimizer = Sgd::new(parameters(&store, 0.0), SgdConfig::default()).unwrap();
    let mut trainer = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("training.safetensors");
    let (mut one, mut another) = (Counter, Counter);
    trainer.observe(&mut one);
    trainer.save(&file, &store, &()).unwrap();
    trainer.observe(&mut another);
    let error = trainer.save(&file, &store, &()).unwrap_err().to_string();
    assert_eq!(error, "observers is counter, expected a name of its own for each that keeps state");

    // One that keeps nothing would be handed the other's.
    let (mut one, mut stateless) = (Counter, EachEpoch("counter", |_: &mut EpochReport| Ok(Control::Continue)));
    let mut trainer = Trainer::new(config(1), &mut objective, &mut optimizer).unwrap();
    trainer.observe(&mut one).observe(&mut stateless);
    assert_eq!(trainer.save(&file, &store, &()).unwrap_err().to_string(), error);
}
