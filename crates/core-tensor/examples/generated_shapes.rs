//! Trains a small convolutional net on generated images, with the loader and a padded crop; needs no data set.
//!
//! `cargo run --release -p core-tensor --example generated_shapes`

use core_tensor::data::{Augmentation, BatchSource, Loader, LoaderConfig, ShapeGenerator, Transform};
use tch::nn::{self, Module, ModuleT, OptimizerConfig};
use tch::{Device, Kind};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let epochs: u64 = std::env::args().nth(1).map_or(Ok(3), |count| count.parse())?;
    let sets = ShapeGenerator::fashion_mnist().splits(20_000, 2_000, 0)?;
    let normalise = || sets.train.statistics().normalise();
    println!("{}: {} classes of {}", sets.train.origin(), sets.train.classes().len(), sets.train.shape());

    let augmentation = Augmentation::new([Transform::PadCrop { padding: 2 }, normalise()]);
    let train = Loader::new(sets.train.clone(), &augmentation, LoaderConfig::training(64), 0)?;
    let test = Loader::new(sets.test.clone(), &Augmentation::new([normalise()]), LoaderConfig::evaluation(500), 0)?;

    core_tensor::seed::seed_libtorch(0, core_tensor::seed::Purpose::Initialisation, 0);
    let weights = nn::VarStore::new(Device::Cpu);
    let root = weights.root();
    let net = nn::seq()
        .add(nn::conv2d(&root / "conv1", 1, 16, 5, Default::default()))
        .add_fn(|x| x.max_pool2d_default(2).relu())
        .add(nn::conv2d(&root / "conv2", 16, 32, 5, Default::default()))
        .add_fn(|x| x.max_pool2d_default(2).relu().flat_view())
        .add(nn::linear(&root / "fc1", 512, 128, Default::default()))
        .add_fn(|x| x.relu())
        .add(nn::linear(&root / "fc2", 128, 10, Default::default()));
    let mut optimizer = nn::Adam::default().build(&weights, 1e-3)?;

    for epoch in 0..epochs {
        for batch in train.epoch(epoch)? {
            let batch = batch?;
            optimizer.backward_step(&net.forward(&batch.input).cross_entropy_for_logits(&batch.target));
        }
        let mut right = 0;
        for batch in test.epoch(0)? {
            let batch = batch?;
            let guess = tch::no_grad(|| net.forward_t(&batch.input, false)).argmax(1, false);
            right += guess.eq_tensor(&batch.target).sum(Kind::Int64).int64_value(&[]);
        }
        println!("epoch {epoch}: {:.1} % of {} test images", right as f64 / 20.0, sets.test.targets().len());
    }
    Ok(())
}
