//! What face anti-spoofing costs.
//!
//! | bench | target, 2 cores |
//! |---|---|
//! | `fas/generate_64` | 64 pictures of 64 × 64 with all maps: 200 a second, so 0.32 s |
//! | `fas/infer_128` | 16 pictures of 128 × 128 through the standard network: 60 a second, so 0.27 s |
//! | `fas/bootstrap_100k` | all metrics with 1000 resampled sets of 100,000 scores: 1 s, and a fifth of `peers/fas_metrics.py` |
//! | `fas/metrics_1m` | all metrics without resampling of 1,000,000 scores, on one core: 0.5 s |
//!
//! Metrics start from scores in no order, so that sorting counts, as it does for the peer.

// Criterion's macro makes a public function without a word.
#![allow(missing_docs)]

mod case;

use benches::record;
use core_tensor::nn::Standard;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use indexmap::IndexMap;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::hint::black_box;
use tch::{Device, Kind, Tensor, nn};
use vision::fas::metrics::{self, Dev, EvalOptions, PadReport, Scored, TestScores, Threshold, evaluate};
use vision::fas::model::{PlainBackbone, ProxyConfig, ProxyFas, WithContext};
use vision::fas::synth::{Generator, GeneratorConfig, Population};

fn generate(criterion: &mut Criterion) {
    let generator = Generator::new(1, GeneratorConfig::default()).unwrap();
    // People of two domains with all their pictures, live and attacks in the default mixture.
    let specs: Vec<_> = Population::default().specs().into_iter().skip(700).take(64).collect();
    let mut group = criterion.benchmark_group("fas");
    group.sample_size(10);
    group.bench_function("generate_64", |bencher| bencher.iter(|| black_box(generator.render_all(&specs).unwrap())));
    group.finish();
}

fn infer(criterion: &mut Criterion) {
    let store = nn::VarStore::new(Device::Cpu);
    let path = store.root() / "backbone";
    let backbone = Box::new(PlainBackbone::new(&path, &Standard, 24));
    let backbone = Box::new(WithContext::new(&(&path / "context"), &Standard, backbone));
    let network = ProxyFas::new(&store.root(), &Standard, backbone, ProxyConfig::default()).unwrap();
    let pictures = Tensor::rand([16, 3, 128, 128], (Kind::Float, Device::Cpu));
    let mut group = criterion.benchmark_group("fas");
    group.sample_size(10);
    group.bench_function("infer_128", |bencher| {
        bencher.iter(|| tch::no_grad(|| network.forward(&pictures, false).unwrap().score().double_value(&[0])));
    });
    group.finish();
}

/// Half live, half attacks of three species, overlapping.
fn scores(count: usize) -> Vec<Scored> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut draw = |shift: f64| shift + (0..4).map(|_| random.random::<f64>()).sum::<f64>();
    let one = |at: usize| match at % 6 {
        0 | 2 | 4 => Scored::live(draw(0.8)),
        1 => Scored::attack(draw(0.0), "print"),
        3 => Scored::attack(draw(0.2), "replay"),
        _ => Scored::attack(draw(0.4), "mask"),
    };
    (0..count).map(one).collect()
}

/// The same scores for the peer, species numbered.
fn leave(scores: &[Scored]) {
    let (live, attacks): (Vec<&Scored>, Vec<&Scored>) = scores.iter().partition(|scored| scored.bona_fide);
    let values = |some: &[&Scored]| Tensor::from_slice(&some.iter().map(|scored| scored.score).collect::<Vec<f64>>());
    let number = |scored: &&Scored| match scored.species.as_deref() {
        Some("print") => 0,
        Some("replay") => 1,
        _ => 2,
    };
    let species: Vec<i64> = attacks.iter().map(number).collect();
    let tensors = [values(&live), values(&attacks), Tensor::from_slice(&species)];
    let named: Vec<_> = ["live", "attack", "species"].into_iter().zip(&tensors).collect();
    case::leave("fas_scores", IndexMap::new(), &named);
}

fn measure(criterion: &mut Criterion) {
    let threshold = Threshold::saved(2.4, metrics::Criterion::Fixed(2.4)).unwrap();
    // The set is given back, so that taking it down is not timed.
    let report = |scores: Vec<Scored>, options: &EvalOptions| -> (TestScores, PadReport<Dev>) {
        let test = TestScores::new(scores).unwrap();
        let report = evaluate(&test, &threshold, options).unwrap();
        (test, report)
    };
    let mut group = criterion.benchmark_group("fas");
    group.sample_size(10);
    let (some, options) = (scores(100_000), EvalOptions::default());
    leave(&some);
    let (_, found) = report(some.clone(), &options);
    let intervals = found.intervals.expect("a thousand resampled sets");
    for (name, rate, [low, high]) in [
        ("hter", found.hter, intervals.hter),
        ("acer", found.acer, intervals.acer),
        ("bpcer", found.bpcer, intervals.bpcer),
        ("auc", found.auc, intervals.auc),
        ("eer", found.target_eer, intervals.eer),
    ] {
        for (name, value) in [(name.to_owned(), rate), (format!("{name}_low"), low), (format!("{name}_high"), high)] {
            record("fas/bootstrap_100k", &name, value);
        }
    }
    group.bench_function("bootstrap_100k", |bencher| {
        bencher.iter_batched(|| some.clone(), |scores| black_box(report(scores, &options)), BatchSize::PerIteration);
    });
    let (many, plain) = (scores(1_000_000), EvalOptions { bootstrap: 0, ..EvalOptions::default() });
    group.bench_function("metrics_1m", |bencher| {
        bencher.iter_batched(|| many.clone(), |scores| black_box(report(scores, &plain)), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, generate, infer, measure);
criterion_main!(benches);
