//! Trains attentive groups on generated shapes, half of the classes held out, and writes what the groups look at and who is
//! near whom among classes never seen.
//!
//! `cargo run --release -p vision --example grouping_train -- --out pictures`

use clap::Parser;
use core_tensor::data::{Augmentation, ShapeGenerator, Transform};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Schedule, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{TrainConfig, Trainer};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor, nn};
use vision::grouping::data::class_split;
use vision::grouping::{
    AttentiveGrouping, AttentiveGroupingConfig, Conv4, Distance, DiversityConfig, Evaluator, GroupLoss, GroupingHead,
    GroupingObjective, MetricLoss, MultiSimilarity, Padding, PkLoader, PkSampler, RetrievalIndex, attention_sheet,
    neighbour_sheet,
};

#[derive(Parser)]
struct Args {
    /// Where the two pictures go.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Passes over the training classes.
    #[arg(long, default_value_t = 3)]
    epochs: u64,
    /// Weight of the diversity loss.
    #[arg(long, default_value_t = 0.02)]
    lambda: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let generated = ShapeGenerator::fashion_mnist().splits(2000, 1000, 0)?;
    let train = class_split(&generated.train, 5)?.train;
    let test = class_split(&generated.test, 5)?.test;

    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let backbone = Conv4::new(&(store.root() / "backbone"), &Standard, 1, Padding::Zeros);
    let config = AttentiveGroupingConfig { reduction: 4, ..AttentiveGroupingConfig::new(Conv4::CHANNELS, 4, 64) };
    let head = AttentiveGrouping::new(&(store.root() / "head"), config)?;
    let make = |_| Ok(Box::new(MultiSimilarity { beta: 10.0, ..Default::default() }) as Box<dyn MetricLoss>);
    let loss = GroupLoss::new(4, DiversityConfig::weighted(args.lambda), make)?;

    let shifts = Augmentation::new([Transform::PadCrop { padding: 2 }]);
    let source = PkLoader::new(train, &shifts, PkSampler::new(5, 16), 0)?;
    let maps = |images: &Tensor| Ok(backbone.forward(images, true));
    let mut objective = GroupingObjective::new(&maps, &head, &loss, 0);
    let mut optimizer = Adam::new(parameters(&store, 1e-4), AdamConfig::default())?;
    let config = TrainConfig { epochs: args.epochs, seed: 0, schedule: Schedule::Constant { peak: 2e-3 } };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer)?;
    while trainer.progress().epoch < args.epochs {
        let (_, report) = trainer.fit_epoch(&source)?;
        println!("epoch {}: {:?}", report.epoch, report.metrics);
    }

    let images = test.images().to_kind(Kind::Float) / 255.0;
    let seen = tch::no_grad(|| head.forward(&backbone.forward(&images, false)))?;
    let report = Evaluator::new([1, 8]).evaluate(&seen.concat(), test.targets())?;
    println!("classes never seen: Recall@1 {:.3}, MAP@R {:.3}", report.recall[0].1, report.map_at_r);
    std::fs::create_dir_all(&args.out)?;
    if let Some(attention) = seen.attention() {
        let sheet = attention_sheet(&images.narrow(0, 0, 8), &attention.narrow(0, 0, 8), 3)?;
        std::fs::write(args.out.join("attention.png"), sheet)?;
    }
    let neighbours = RetrievalIndex::exact(&seen.concat(), Distance::Euclidean)?.search_itself(8)?;
    let queries: Vec<usize> = (0..8).collect();
    std::fs::write(
        args.out.join("neighbours.png"),
        neighbour_sheet(&images, test.targets(), &neighbours, &queries, 2)?,
    )?;
    Ok(())
}
