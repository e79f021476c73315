use super::*;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use proptest::prelude::*;
use tch::{Device, nn};

fn student() -> Tensor {
    Tensor::from_slice(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]).view([2, 3])
}

fn teacher() -> Tensor {
    Tensor::from_slice(&[2.0, 1.0, 0.0, 1.0, -1.0, 0.0]).view([2, 3])
}

fn target() -> Tensor {
    Tensor::from_slice(&[0_i64, 2])
}

fn config(temperature: f64, alpha: f64, reduction: Reduction) -> DistillConfig {
    DistillConfig { temperature, alpha, reduction, until_epoch: None }
}

fn loss(config: DistillConfig, student: &Tensor, teacher: &Tensor) -> f64 {
    config.loss(student, teacher, &target()).unwrap().total.double_value(&[])
}

#[test]
fn the_loss_is_that_of_pytorch_in_double_precision() {
    // F.kl_div(log_softmax(zs/τ), softmax(zt/τ)) and F.cross_entropy of PyTorch 2.11 in f64, printed to ten digits.
    let cases = [
        (1.0, 1.0, Reduction::BatchMean, 0.7083187360),
        (1.0, 1.0, Reduction::ElementMean, 0.2361062453),
        (4.0, 0.9, Reduction::BatchMean, 0.9168353740),
        (5.0, 0.9, Reduction::ElementMean, 0.4234938014),
        (1.0, 0.0, Reduction::BatchMean, 1.7531091266),
        (7.0, 0.0, Reduction::ElementMean, 1.7531091266),
    ];
    for (temperature, alpha, reduction, expected) in cases {
        let found = loss(config(temperature, alpha, reduction), &student(), &teacher());
        assert!((found - expected).abs() < 1e-10, "τ {temperature}, α {alpha}: {found} instead of {expected}");
    }
}

#[test]
fn the_gradient_is_the_closed_form() {
    let student = student().set_requires_grad(true);
    config(4.0, 0.9, Reduction::BatchMean).loss(&student, &teacher(), &target()).unwrap().total.backward();
    let found = Vec::<f64>::try_from(student.grad().view(-1)).unwrap();
    // [α·τ·(p_s − p_t) + (1 − α)·(softmax(z_s) − onehot(y))] / N, printed to eight digits.
    let expected = [-0.34241520, 0.01223642, 0.33017878, -0.13794545, 0.15897128, -0.02102584];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-8, "{found} instead of {expected}");
    }
}

#[test]
fn high_temperatures_match_logits() {
    // τ²·KL → mean ‖centred z_s − centred z_t‖² / 2C = (8 + 2)/2 / 6.
    assert!((loss(config(10.0, 1.0, Reduction::BatchMean), &student(), &teacher()) - 0.83181).abs() < 5e-6);
    // The next term of the expansion is of order 1/τ; 0.002/τ·10 by the value at 10.
    assert!((loss(config(1e4, 1.0, Reduction::BatchMean), &student(), &teacher()) - 5.0 / 6.0).abs() < 1e-5);
}

#[test]
fn a_student_that_equals_its_teacher_has_nothing_to_learn() {
    let student = student().set_requires_grad(true);
    let loss = config(4.0, 1.0, Reduction::BatchMean).loss(&student, &student.detach(), &target()).unwrap().total;
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    // p_s − p_t, computed twice in different ways: a few roundings apart.
    assert!(student.grad().abs().max().double_value(&[]) < 1e-15);
}

#[test]
fn large_logits_stay_finite() {
    let student = (student() * 1e4).set_requires_grad(true);
    let loss = config(1.0, 0.5, Reduction::BatchMean).loss(&student, &(teacher() * -1e4), &target()).unwrap().total;
    loss.backward();
    assert!(loss.double_value(&[]).is_finite());
    assert!(student.grad().isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn settings_and_logits_that_do_not_fit_are_refused() {
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = config(temperature, 0.9, Reduction::BatchMean).validate().unwrap_err().to_string();
        assert!(refused.contains("temperature"), "{refused}");
    }
    for alpha in [-0.1, 1.1, f64::NAN] {
        assert!(config(4.0, alpha, Reduction::BatchMean).validate().unwrap_err().to_string().contains("alpha"));
    }
    let more_classes = Tensor::zeros([2, 4], (Kind::Double, Device::Cpu));
    let refused = DistillConfig::default().loss(&student(), &more_classes, &target()).unwrap_err().to_string();
    assert!(refused.contains("expected [2, 3] as the student's, found [2, 4]"), "{refused}");
}

#[test]
fn a_loss_of_settings_outside_their_range_is_refused() {
    let refuse = |temperature, alpha| {
        let config = config(temperature, alpha, Reduction::BatchMean);
        let refused = config.loss(&student(), &teacher(), &target()).unwrap_err();
        assert!(matches!(refused, core_tensor::Error::Setting { .. }));
        refused.to_string()
    };
    assert_eq!(refuse(0.0, 0.9), "temperature is 0, expected finite and above 0");
    assert_eq!(refuse(f64::NAN, 0.9), "temperature is NaN, expected finite and above 0");
    assert_eq!(refuse(4.0, 1.5), "alpha is 1.5, expected in [0, 1]");
}

fn resnet() -> (nn::VarStore, Box<dyn Network>) {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(8, 3).unwrap().build(&store.root(), &Standard).unwrap();
    (store, network)
}

fn batch() -> Batch {
    tch::manual_seed(3);
    let input = Tensor::randn([4, 3, 8, 8], (Kind::Float, Device::Cpu));
    Batch { input, target: Tensor::from_slice(&[0_i64, 1, 2, 0]), index: (0..4).collect() }
}

#[test]
fn the_teacher_stays_in_evaluation_mode_and_without_gradients() {
    let ((_student_store, student), (teacher_store, teacher)) = (resnet(), resnet());
    let copies = |store: &nn::VarStore| store.variables().into_iter().map(|(n, t)| (n, t.copy())).collect::<Vec<_>>();
    let before = copies(&teacher_store);
    let mut objective = Distillation::new(student.as_ref(), teacher.as_ref(), DistillConfig::default()).unwrap();
    objective.loss(&batch(), &Progress::default()).unwrap().total.backward();
    let after = teacher_store.variables();
    assert!(before.iter().all(|(name, tensor)| tensor.equal(&after[name])));
    assert!(after.values().all(|tensor| !tensor.grad().defined()));
}

#[test]
fn the_teacher_sees_the_students_own_view() {
    let (_store, student) = resnet();
    let batch = batch();
    let seen = std::cell::RefCell::new(None);
    let watch = |input: &Tensor| {
        *seen.borrow_mut() = Some(input.copy());
        Tensor::zeros([4, 3], (Kind::Float, Device::Cpu))
    };
    let mut objective = Distillation::from_logits(student.as_ref(), watch, DistillConfig::default()).unwrap();
    objective.loss(&batch, &Progress::default()).unwrap();
    drop(objective);
    assert!(seen.into_inner().is_some_and(|seen| seen.equal(&batch.input)));
}

#[test]
fn a_teacher_of_batches_sees_their_labels() {
    let (_store, student) = resnet();
    let batch = batch();
    let seen = std::cell::RefCell::new(None);
    let watch = |batch: &Batch| {
        *seen.borrow_mut() = Some((batch.input.copy(), batch.target.copy()));
        Tensor::zeros([4, 3], (Kind::Float, Device::Cpu))
    };
    let mut objective = Distillation::from_batches(student.as_ref(), watch, DistillConfig::default()).unwrap();
    objective.loss(&batch, &Progress::default()).unwrap();
    drop(objective);
    let (input, target) = seen.into_inner().unwrap();
    assert!(input.equal(&batch.input) && target.equal(&batch.target));
}

#[test]
fn a_student_that_is_a_function_is_trained_as_a_network_is() {
    let (_store, network) = resnet();
    let (batch, config) = (batch(), DistillConfig::default());
    let teacher = |_: &Batch| Tensor::ones([4, 3], (Kind::Float, Device::Cpu)).cumsum(1, Kind::Float);
    let modes = std::cell::RefCell::new(Vec::new());
    let student = |input: &Tensor, train| {
        modes.borrow_mut().push(train);
        network.forward(input, train)
    };
    let loss =
        |mut objective: Distillation| objective.loss(&batch, &Progress::default()).unwrap().total.double_value(&[]);
    let function = loss(Distillation::from_closures(student, teacher, config).unwrap());
    assert_eq!(function, loss(Distillation::from_batches(network.as_ref(), teacher, config).unwrap()));
    assert_eq!(*modes.borrow(), [true]);
    let invalid = DistillConfig { alpha: 2.0, ..config };
    assert!(Distillation::from_closures(|input, _| input.shallow_clone(), teacher, invalid).is_err());
}

#[test]
fn from_its_last_epoch_on_distillation_is_plain_cross_entropy() {
    let (_store, student) = resnet();
    let config = DistillConfig { until_epoch: Some(2), ..DistillConfig::default() };
    let teacher = |_: &Tensor| Tensor::ones([4, 3], (Kind::Float, Device::Cpu)).cumsum(1, Kind::Float);
    let mut objective = Distillation::from_logits(student.as_ref(), teacher, config).unwrap();
    let batch = batch();
    let mut names = |epoch| {
        let loss = objective.loss(&batch, &Progress { epoch, step: 0 }).unwrap();
        loss.parts.iter().map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(names(1), ["cross_entropy", "divergence", "train_accuracy"]);
    assert_eq!(names(2), ["cross_entropy", "train_accuracy"]);
}

fn logits() -> impl Strategy<Value = Tensor> {
    prop::collection::vec(-5.0..5.0_f64, 6).prop_map(|values| Tensor::from_slice(&values).view([2, 3]))
}

proptest! {
    #[test]
    fn adding_a_constant_to_logits_changes_nothing(
        s in logits(), t in logits(), shift in -100.0..100.0_f64, temperature in 0.5..20.0_f64, alpha in 0.0..=1.0_f64,
    ) {
        let config = config(temperature, alpha, Reduction::BatchMean);
        let (plain, shifted) = (loss(config, &s, &t), loss(config, &(&s + shift), &(&t - shift)));
        // Shifting by up to 100 costs two digits of sixteen, times τ² up to 400.
        prop_assert!((plain - shifted).abs() < 1e-10 * (1.0 + plain.abs()) * temperature.powi(2).max(1.0));
    }

    #[test]
    fn gradients_sum_to_zero_over_classes(s in logits(), t in logits(), temperature in 0.5..20.0_f64, alpha in 0.0..=1.0_f64) {
        let s = s.set_requires_grad(true);
        config(temperature, alpha, Reduction::ElementMean).loss(&s, &t, &target()).unwrap().total.backward();
        let sums = s.grad().sum_dim_intlist(1_i64, false, Kind::Double);
        // Sums of three numbers of size at most τ, in f64.
        prop_assert!(sums.abs().max().double_value(&[]) < 1e-13);
    }
}
