//! Two papers meet: does an encoder that was pre-trained against an adversary also change less when an object shifts?
//!
//! ```text
//! images without labels ──SimCLR or ACL──► encoder ──either batch norm──► features at every position ──► similarity maps
//! ```
//!
//! ACL's encoder keeps two sets of batch norms, and so is probed twice: as it sees clean and as it sees attacked images.
//!
//! cargo run --release -p repro --example probed_encoder

use contrast::attack::{Ball, Pgd};
use contrast::learn::{
    Acl, AclConfig, Branch, BranchSwitch, DualBatchNorm, Formulation, Projector, ProjectorConfig, SimClrAugmentation,
    TwoViews,
};
use core_tensor::data::{Dataset, LoaderConfig, ShapeGenerator};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{TrainConfig, Trainer};
use tch::{Device, Kind, Tensor, nn::VarStore};
use vision::invariance::{Anchor, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};

type Failure = Box<dyn std::error::Error>;

const EPOCHS: u64 = 5;
const IMAGES: usize = 2000;
const BATCH: usize = 64;
const OBJECTS: i64 = 10;

fn main() -> Result<(), Failure> {
    let splits = ShapeGenerator::fashion_mnist().splits(IMAGES, 100, 0)?;
    let objects = objects(&splits.test)?;
    // Objects of 28 x 28 at every position of a frame of 42 x 42, on black as they were trained.
    let study = ShiftStudy::new(ShiftGrid::new([42, 42], [28, 28], 1)?, Placer::on_colour(vec![0.0]));
    println!("{:34} {:>12} {:>14}", "cosine of features lost by moving", "1 pixel", "over the frame");
    for (name, formulation, branches) in [
        ("SimCLR", Formulation::StandardToStandard, &[("clean", Branch::Normal)][..]),
        ("ACL", Formulation::DUAL_STREAM, &[("clean", Branch::Normal), ("attacked", Branch::Adversarial)]),
    ] {
        seed_libtorch(0, Purpose::Initialisation, 0);
        let (switch, store) = (BranchSwitch::default(), VarStore::new(Device::Cpu));
        let layers = DualBatchNorm::new(&switch);
        let config = ConvNetConfig { in_channels: 1, widths: vec![8, 16, 32], classes: 10 };
        let encoder = Architecture::ConvNet(config).build(&store.root(), &layers)?;
        let projector = Projector::new(&(store.root() / "projector"), &layers, 32, &ProjectorConfig::plain(32, 64))?;

        let augmentation = SimClrAugmentation::small_grey([28, 28]).transforms(1);
        let views = TwoViews::new(splits.train.clone(), &augmentation, LoaderConfig::training(BATCH), 0)?;
        let attack = Pgd::new(Ball::linf(8.0 / 255.0)).with_steps(5);
        let config = AclConfig { formulation, attack, ..AclConfig::default() };
        let mut objective = Acl::new((encoder.as_ref(), &projector), &switch, config, 0)?;
        let mut optimizer = Sgd::new(parameters(&store, 1e-4), SgdConfig::default())?;
        let schedule = Schedule::Cosine { peak: 0.2, last: 0.0, steps: EPOCHS * (IMAGES / BATCH) as u64 };
        Trainer::new(TrainConfig { epochs: EPOCHS, seed: 0, schedule }, &mut objective, &mut optimizer)?.fit(&views)?;

        for &(norms, branch) in branches {
            let features = |images: &Tensor| {
                let features = tch::no_grad(|| switch.during(branch, || encoder.features(images, false)));
                Ok(vec![("features".to_owned(), features)])
            };
            let (mut near, mut far) = (0.0, 0.0);
            for object in &objects {
                let map = study.run(&features, object)?.similarity("features", Anchor::Centre)?;
                near += map.local_drop(1) / objects.len() as f64;
                far += map.global_drop() / objects.len() as f64;
            }
            println!("{:34} {near:12.5} {far:14.5}", format!("{name}, batch norms of {norms} images"));
        }
    }
    Ok(())
}

/// The first images of a set as opaque objects.
fn objects(set: &Dataset) -> Result<Vec<Sprite>, Failure> {
    (0..OBJECTS)
        .map(|at| {
            let image = set.images().get(at).to_kind(Kind::Float) / 255.0;
            Ok(Sprite::opaque(Picture::from_tensor(&image)?))
        })
        .collect()
}
