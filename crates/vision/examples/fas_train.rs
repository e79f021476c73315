//! Trains a detector on generated faces, tests it in an unseen domain and saves it:
//! `cargo run --release -p vision --example fas_train -- detector.safetensors`.

use clap::Parser;
use core_tensor::optim::{Adam, AdamConfig, Schedule};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{TrainConfig, Trainer};
use std::path::PathBuf;
use tch::Tensor;
use vision::fas::data::Protocol;
use vision::fas::metrics::{Criterion, DevScores, EvalOptions, TestScores, evaluate};
use vision::fas::model::{
    Augment, FasData, FasSource, LossWeights, Policies, ProxyConfig, ProxyObjective, Sampling, weight_decay,
};
use vision::fas::synth::{Domain, Generator, GeneratorConfig, Population};
use vision::fas::{Detector, DetectorConfig};

#[derive(Parser)]
struct Arguments {
    /// Where the detector goes.
    out: PathBuf,
    /// Epochs of 50 steps.
    #[arg(long, default_value_t = 6)]
    epochs: u64,
    /// Fixes everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { out, epochs, seed } = Arguments::parse();
    let sizes = GeneratorConfig::quick();
    let specs = Population::quick().specs();
    let pictures = Generator::new(seed, sizes)?.render_all(&specs)?;
    let plan = Protocol::LeaveOneDomainOut(Domain::DimTablet).split(&specs)?;
    let all = FasData::from_rendered(&pictures, sizes, Policies::default())?;
    let part = |places: &[usize]| all.subset(&places.iter().map(|&at| at as i64).collect::<Vec<_>>());
    let (train, dev, test) = (part(plan.train()), part(plan.dev()), part(plan.test()));

    seed_libtorch(seed, Purpose::Initialisation, 0);
    let mut detector = Detector::new(DetectorConfig {
        network: ProxyConfig::default(),
        width: 12,
        context: true,
        size: sizes.crop as u32,
        crop_scale: 1.1,
        threshold: 0.5,
        criterion: Criterion::Fixed(0.5),
        development_set: String::new(),
        smallest_face: 64.0,
        brightness: [0.05, 0.95],
        least_sharpness: 1e-5,
        most_uncertainty: None,
    })?;
    let source = FasSource::new(&train, (48, 50), (Sampling::Balanced, Augment::default()), seed)?;
    let mut objective = ProxyObjective::new(detector.network(), LossWeights::default(), None);
    let mut optimizer = Adam::new(weight_decay(detector.store(), 5e-4), AdamConfig::default())?;
    let schedule = Schedule::OneCycle { peak: 6e-3, steps: 50 * epochs, rise: 0.3 };
    let mut trainer = Trainer::new(TrainConfig { epochs, seed, schedule }, &mut objective, &mut optimizer)?;
    while trainer.progress().epoch < epochs {
        let (_, report) = trainer.fit_epoch(&source)?;
        println!("epoch {}: loss {:.4}", report.epoch + 1, report.metrics["loss"]);
    }
    drop(trainer);

    let scores = |data: &FasData| -> anyhow::Result<_> {
        let all: Vec<i64> = (0..data.len() as i64).collect();
        let out = tch::no_grad(|| detector.network().forward(&data.batch(&all).input, false))?;
        let scores: Tensor = out.score().to_kind(tch::Kind::Double);
        Ok(data.scored(&Vec::<f64>::try_from(scores)?)?)
    };
    let threshold = DevScores::new(scores(&dev)?)?.threshold(Criterion::Eer)?;
    let options = EvalOptions { probabilities: true, ..EvalOptions::default() };
    println!("{}", evaluate(&TestScores::new(scores(&test)?)?, &threshold, &options)?);
    detector.set_threshold(threshold, "held-out people of two generated domains");
    detector.save(&out)?;
    Ok(())
}
