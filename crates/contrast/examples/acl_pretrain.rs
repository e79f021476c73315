//! Pre-trains a small encoder against an adversary on generated shapes, and says what its features are worth:
//!
//! ```text
//! cargo run --release -p contrast --example acl_pretrain
//! ```

use contrast::attack::{Attack, Ball, Goal, Pgd};
use contrast::learn::{
    Acl, AclConfig, Branch, BranchSwitch, DualBatchNorm, Features, Formulation, KnnConfig, ProbeConfig, Projector,
    ProjectorConfig, SimClrAugmentation, TwoViews, knn_accuracy, linear_probe,
};
use core_tensor::data::{Augmentation, Dataset, Loader, LoaderConfig, ShapeGenerator};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Control, EachEpoch, EpochReport, TrainConfig, Trainer};
use tch::{Device, Kind, Tensor, nn::VarStore};

const RADIUS: f64 = 8.0 / 255.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let splits = ShapeGenerator::fashion_mnist().splits(2000, 500, 0)?;
    for (name, formulation, branch) in [
        ("SimCLR", Formulation::StandardToStandard, Branch::Normal),
        ("ACL", Formulation::DUAL_STREAM, Branch::Adversarial),
    ] {
        seed_libtorch(0, Purpose::Initialisation, 0);
        let switch = BranchSwitch::default();
        let (store, layers) = (VarStore::new(Device::Cpu), DualBatchNorm::new(&switch));
        let network = ConvNetConfig { in_channels: 1, widths: vec![8, 16, 32], classes: 10 };
        let network = Architecture::ConvNet(network).build(&store.root(), &layers)?;
        let projector = Projector::new(&(store.root() / "projector"), &layers, 32, &ProjectorConfig::plain(32, 64))?;

        let views = SimClrAugmentation::small_grey([28, 28]).transforms(1);
        let views = TwoViews::new(splits.train.clone(), &views, LoaderConfig::training(64), 0)?;
        let attack = Pgd::new(Ball::linf(RADIUS)).with_steps(5);
        let config = AclConfig { formulation, attack, ..AclConfig::default() };
        let mut objective = Acl::new((network.as_ref(), &projector), &switch, config, 0)?;
        let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default())?;
        let cosine = Schedule::Cosine { peak: 0.2, last: 0.0, steps: 3 * 31 };
        let training = TrainConfig { epochs: 3, seed: 0, schedule: cosine };
        let mut show = EachEpoch("show", |report: &mut EpochReport| {
            println!("{name}, epoch {}: loss {:.3}", report.epoch + 1, report.metrics["loss"]);
            Ok(Control::Continue)
        });
        Trainer::new(training, &mut objective, &mut optimizer)?.observe(&mut show).fit(&views)?;

        let encode = |images: &Tensor| switch.during(branch, || network.features(images, false));
        let of = |set: &Dataset| -> Result<Features, Box<dyn std::error::Error>> {
            let loader = Loader::new(set.clone(), &Augmentation::default(), LoaderConfig::evaluation(500), 0)?;
            Ok(Features::extract(encode, &loader)?)
        };
        let (train, test) = (of(&splits.train)?, of(&splits.test)?);
        let head = linear_probe(&train, 10, ProbeConfig::default())?;
        let neighbours = knn_accuracy(&train, &test, 10, KnnConfig { neighbours: 20, ..KnnConfig::default() })?;

        let images = splits.test.images().narrow(0, 0, 200).to_kind(Kind::Float) / 255.0;
        let goal = Goal::untargeted(&splits.test.labels().narrow(0, 0, 200));
        let model = |images: &Tensor| head.logits(&encode(images));
        let robust = Pgd::new(Ball::linf(RADIUS)).run(&model, &images, &goal, 0)?.survivors();
        println!(
            "{name}: linear probe {:.1} %, neighbours {neighbours:.1} %, under PGD-20 at 8/255 {:.1} %",
            head.accuracy(&test)?,
            100.0 * robust
        );
    }
    Ok(())
}
