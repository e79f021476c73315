//! Pre-training, interrupted and not; from an encoder to a classifier.

use contrast::attack::{Attack, Ball, EvalMode, Goal, Pgd};
use contrast::learn::{
    Acl, AclConfig, Branch, BranchSwitch, DualBatchNorm, Features, ProbeConfig, Projector, ProjectorConfig,
    RobustConfig, RobustTraining, Scope, SemiConfig, SemiLoader, SemiSplit, SemiSupervised, SimClrAugmentation,
    TwoViews, extract, fine_tuned, linear_probe, pseudo_labels,
};
use core_tensor::checkpoint::{LoadPolicy, Tolerance, load_state, state_of};
use core_tensor::data::{Augmentation, Dataset, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{NamedTensors, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{TrainConfig, Trainer};
use std::path::Path;
use tch::{Device, Tensor, nn::VarStore};

const RADIUS: f64 = 8.0 / 255.0;

struct Model {
    switch: BranchSwitch,
    store: VarStore,
    network: Box<dyn Network>,
    projector: Projector,
}

fn architecture() -> Architecture {
    Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![3, 6], classes: 10 })
}

fn model(start: Option<&NamedTensors>) -> Model {
    let switch = BranchSwitch::default();
    let (store, layers) = (VarStore::new(Device::Cpu), DualBatchNorm::new(&switch));
    let network = architecture().build(&store.root(), &layers).unwrap();
    let projector = Projector::new(&(store.root() / "projector"), &layers, 6, &ProjectorConfig::acl(6)).unwrap();
    if let Some(start) = start {
        load_state(&store, start, &LoadPolicy::strict()).unwrap();
    }
    Model { switch, store, network, projector }
}

fn weights(store: &VarStore) -> NamedTensors {
    state_of(store).into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
}

fn images() -> Dataset {
    ShapeGenerator::fashion_mnist().splits(40, 1, 0).unwrap().train
}

fn schedule() -> Schedule {
    Schedule::Constant { peak: 0.1 }
}

/// Pre-trains up to an epoch, going on from `file` if it is there.
fn pretrain(model: &Model, until: u64, file: &Path) {
    let views = SimClrAugmentation::small_grey([28, 28]).transforms(1);
    let views = TwoViews::new(images(), &views, LoaderConfig::training(8), 5).unwrap();
    let attack = Pgd::new(Ball::linf(RADIUS)).with_steps(2);
    let config = AclConfig { attack, ..AclConfig::default() };
    let mut objective = Acl::new((model.network.as_ref(), &model.projector), &model.switch, config, 5).unwrap();
    let mut optimizer = Sgd::new(parameters(&model.store, 1e-4), SgdConfig::default()).unwrap();
    let training = TrainConfig { epochs: until, seed: 5, schedule: schedule() };
    let mut trainer = Trainer::new(training, &mut objective, &mut optimizer).unwrap();
    trainer.restore_if_present::<()>(file, &model.store).unwrap();
    trainer.fit(&views).unwrap();
    trainer.save(file, &model.store, &()).unwrap();
}

#[test]
fn an_interrupted_pre_training_is_bit_for_bit_the_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = model(None);
    let start = weights(&whole.store);
    pretrain(&whole, 2, &folder.path().join("whole.safetensors"));
    let file = folder.path().join("parts.safetensors");
    pretrain(&model(Some(&start)), 1, &file);
    // What the second process starts with does not matter.
    let rest = model(None);
    pretrain(&rest, 2, &file);
    let (whole, rest) = (weights(&whole.store), weights(&rest.store));
    for (name, tensor) in &whole {
        assert!(tensor.equal(&rest[name]), "{name}");
    }
    assert!(whole.iter().any(|(name, tensor)| !tensor.equal(&start[name])));
}

#[test]
fn from_encoder_to_robust_classifier_with_few_labels() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = model(None);
    pretrain(&encoder, 1, &folder.path().join("encoder.safetensors"));
    let set = images();
    let loader = |config| Loader::new(set.clone(), &Augmentation::default(), config, 0).unwrap();
    let evaluation = loader(LoaderConfig::evaluation(20));

    // A probe on the adversarial branch separates what it was fitted to better than chance.
    let encode =
        |images: &Tensor| encoder.switch.during(Branch::Adversarial, || encoder.network.features(images, false));
    let features = Features::extract(encode, &evaluation).unwrap();
    let head = linear_probe(&features, 10, ProbeConfig::default()).unwrap();
    assert!(head.accuracy(&features).unwrap() > 10.0);

    // Standard fine-tuning of the normal branch, whose guesses then serve as labels.
    let plain = |branch| {
        let store = VarStore::new(Device::Cpu);
        let network = architecture().build(&store.root(), &Standard).unwrap();
        // The head of pre-training is left behind.
        let policy = LoadPolicy { unexpected: Tolerance::Under(vec!["projector.".into()]), ..LoadPolicy::strict() };
        load_state(&store, &extract(&encoder.store, branch).unwrap(), &policy).unwrap();
        (store, network)
    };
    let (store, guesser) = plain(Branch::Normal);
    let mut optimizer =
        Sgd::new(fine_tuned(&store, guesser.as_ref(), Scope::Full, 0.0).unwrap(), SgdConfig::default()).unwrap();
    let mut objective = RobustTraining::tuning(guesser.as_ref(), Scope::Full, RobustConfig::standard(), 0).unwrap();
    let training = || TrainConfig { epochs: 1, seed: 0, schedule: schedule() };
    Trainer::new(training(), &mut objective, &mut optimizer).unwrap().fit(&loader(LoaderConfig::training(20))).unwrap();
    let soft = pseudo_labels(|images| guesser.forward(images, false), &evaluation).unwrap();

    // The robust network learns from two labels a class and the guesses.
    let (store, network) = plain(Branch::Adversarial);
    let mut optimizer =
        Sgd::new(fine_tuned(&store, network.as_ref(), Scope::Full, 0.0).unwrap(), SgdConfig::default()).unwrap();
    let split = SemiSplit::draw(&set, 2, 0).unwrap();
    let source = SemiLoader::new(set.clone(), split, &soft, &Augmentation::default(), [5, 10], 0).unwrap();
    let config = SemiConfig { attack: Pgd::new(Ball::linf(RADIUS)).with_steps(2), ..SemiConfig::default() };
    let mut objective = SemiSupervised::new(network.as_ref(), config, 0).unwrap();
    Trainer::new(training(), &mut objective, &mut optimizer).unwrap().fit(&source).unwrap();

    // And can be attacked like any other.
    let clean = set.images().narrow(0, 0, 4).to_kind(tch::Kind::Float) / 255.0;
    let goal = Goal::untargeted(&set.labels().narrow(0, 0, 4));
    let attack = Pgd::new(Ball::linf(RADIUS)).with_steps(2);
    let found = attack.run(&EvalMode(network.as_ref()), &clean, &goal, 0).unwrap();
    assert!((found.images - clean).abs().max().double_value(&[]) <= RADIUS + 1e-6);
}
