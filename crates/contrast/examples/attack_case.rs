//! A small residual net attacked here and, with the same weights and images, by Python's libraries.
//!
//! ```text
//! cargo run --release -p contrast --example attack_case -- train FASHION_MNIST_FOLDER CASE.safetensors
//! cargo run --release -p contrast --example attack_case -- attack CASE.safetensors OURS.safetensors
//! cargo run --release -p contrast --example attack_case -- autoattack CASE.safetensors OURS.safetensors 500
//! ```
//!
//! `train` trains adversarially (PGD-5 in an Linf ball of 0.1) and writes weights, statistics, 1 000 test images and labels.
//! `attack` and `autoattack` write what they found and print one JSON line an attack: robust accuracy, wall and CPU seconds.
//! `benches/peers/attack_parity.py` and `attack_autoattack.py` do the same in Python and compare.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use contrast::attack::{Apgd, Attack, AutoAttack, Ball, Classifier, CwL2, Error as AttackError, Goal, Pgd, Start};
use core_tensor::checkpoint::{LoadPolicy, Metadata, load_state, read_safetensors, state_of, write_safetensors};
use core_tensor::data::fashion_mnist;
use core_tensor::networks::{Architecture, BlockKind, ResNetConfig, Shortcut, Stem};
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Optimizer, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, generator, seed_libtorch};
use rand::Rng;
use tch::{Device, Kind, Tensor, nn};

const RADIUS: f64 = 0.1;
const STEPS: u64 = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["train", data, case] => train(data.as_ref(), case.as_ref()),
        ["attack", case, ours] => attack(case.as_ref(), ours.as_ref()),
        ["autoattack", case, ours, count] => {
            count.parse().map_err(Into::into).and_then(|count| auto_attack(case.as_ref(), ours.as_ref(), count))
        }
        _ => {
            eprintln!("usage: attack_case train DATA CASE | attack CASE OURS | autoattack CASE OURS COUNT");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A ResNet-8 of widths 8, 16, 32 on images halved to 14 × 14 inside the model: small enough for AutoAttack on a laptop.
struct Halved(Box<dyn Network>);

impl Halved {
    fn new() -> Result<(nn::VarStore, Self), Box<dyn Error>> {
        seed_libtorch(0, Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let network = Self::architecture().build(&store.root(), &Standard)?;
        Ok((store, Self(network)))
    }

    fn architecture() -> Architecture {
        Architecture::ResNet(ResNetConfig {
            in_channels: 1,
            stem: Stem::Cifar,
            block: BlockKind::Basic,
            widths: vec![8, 16, 32],
            blocks: vec![1, 1, 1],
            shortcut: Shortcut::Projection,
            classes: 10,
        })
    }

    fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        self.0.forward(&images.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None), train)
    }
}

impl Classifier for Halved {
    fn logits(&self, images: &Tensor) -> Tensor {
        self.forward(images, false)
    }
}

fn unit(images: &Tensor) -> Tensor {
    images.to_kind(Kind::Float) / 255.0
}

fn train(data: &Path, case: &Path) -> Result<(), Box<dyn Error>> {
    let splits = fashion_mnist(data)?;
    let (images, labels) = (splits.train.images(), splits.train.labels());
    let (store, net) = Halved::new()?;
    let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default())?;
    let mut rng = generator(0, Purpose::Order, 0);
    let inner = Pgd::new(Ball::linf(RADIUS)).with_steps(5).with_step_size(0.03);
    for step in 0..STEPS {
        let places: Vec<i64> = (0..128).map(|_| rng.random_range(0..images.size()[0])).collect();
        let places = Tensor::from_slice(&places);
        let (x, y) = (unit(&images.index_select(0, &places)), labels.index_select(0, &places));
        let loss = |x: &Tensor| Ok::<_, AttackError>(net.logits(x).cross_entropy_for_logits(&y));
        let adversarial = inner.perturb(&x, loss, step)?;
        optimizer.parameters_mut().iter_mut().for_each(|parameter| parameter.tensor.zero_grad());
        net.forward(&adversarial, true).cross_entropy_for_logits(&y).backward();
        let turn = std::f64::consts::PI * step as f64 / STEPS as f64;
        optimizer.step(0.1 * (0.5 + 0.5 * turn.cos()))?;
    }
    let mut state = state_of(&store);
    state.insert("images".to_owned(), unit(&splits.test.images().narrow(0, 0, 1000)));
    state.insert("labels".to_owned(), splits.test.labels().narrow(0, 0, 1000));
    write_safetensors(case, &state, &Metadata::new())?;
    Ok(())
}

/// The net with the case's weights, as it was trained or with its batch norms folded, the case's images and labels.
fn read(case: &Path, folded: bool) -> Result<(Halved, Tensor, Tensor), Box<dyn Error>> {
    let mut state = read_safetensors(case)?;
    let missing = || format!("{}: no images or labels", case.display());
    let images = state.shift_remove("images").ok_or_else(missing)?;
    let labels = state.shift_remove("labels").ok_or_else(missing)?;
    if folded {
        return Ok((Halved(Halved::architecture().folded(&state)?), images, labels));
    }
    let (store, net) = Halved::new()?;
    load_state(&store, &state, &LoadPolicy::strict())?;
    Ok((net, images, labels))
}

fn cpu_seconds() -> f64 {
    // utime and stime, fields 14 and 15, in hundredths of a second; Linux only.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.split_whitespace().skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

fn report(name: &str, began: Instant, cpu: f64, standing: f64) {
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{{\"attack\": \"{name}\", \"robust_accuracy\": {standing:.4}, \"seconds\": {wall:.3}, \"cpu_seconds\": {cpu:.2}}}"
    );
}

fn attack(case: &Path, ours: &Path) -> Result<(), Box<dyn Error>> {
    let (net, images, labels) = read(case, false)?;
    let goal = Goal::untargeted(&labels);
    let linf = Ball::linf(RADIUS);
    // The clean image is the start, so that everybody takes the same steps.
    let attacks: [(&str, Box<dyn Attack>); 6] = [
        ("fgsm", Box::new(Pgd::fgsm(linf))),
        ("pgd1", Box::new(Pgd::bim(linf, 1))),
        ("pgd20", Box::new(Pgd::bim(linf, 20))),
        ("pgd20_l2", Box::new(Pgd::bim(Ball::l2(1.0), 20))),
        ("mifgsm10", Box::new(Pgd::momentum(linf))),
        ("pgd20_random", Box::new(Pgd::new(linf).with_start(Start::Random))),
    ];
    let mut found = vec![("logits".to_owned(), tch::no_grad(|| net.logits(&images)))];
    for (name, attack) in attacks {
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let result = attack.run(&net, &images, &goal, 0)?;
        report(name, began, cpu, result.survivors());
        found.push((name.to_owned(), result.images));
    }
    let apgd = Apgd::new(linf);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let result = apgd.run(&net, &images, &goal, 0)?;
    report("apgd_ce", began, cpu, result.survivors());
    found.push(("apgd_ce".to_owned(), result.images));
    // Carlini and Wagner's needs thousands of passes: the first fifty images.
    let (few, goal) = (images.narrow(0, 0, 50), Goal::untargeted(&labels.narrow(0, 0, 50)));
    let cw = CwL2 { steps: 100, search_steps: 4, initial_constant: 1.0, ..CwL2::new(28.0) };
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let result = cw.run(&net, &few, &goal, 0)?;
    report("cw_l2", began, cpu, result.survivors());
    found.push(("cw_l2".to_owned(), result.images));
    write_safetensors(ours, &found.into_iter().collect(), &Metadata::new())?;
    Ok(())
}

fn auto_attack(case: &Path, ours: &Path, count: i64) -> Result<(), Box<dyn Error>> {
    // Tens of thousands of passes: the norms are folded away, which changes logits by rounding alone.
    let (net, images, labels) = read(case, true)?;
    let count = count.clamp(0, images.size()[0]);
    let (images, labels) = (images.narrow(0, 0, count), labels.narrow(0, 0, count));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let ensemble = AutoAttack::standard(Ball::linf(RADIUS));
    let (result, stages) = ensemble.run_in_stages(&net, &images, &Goal::untargeted(&labels), 0)?;
    report("autoattack", began, cpu, result.survivors());
    for stage in stages {
        println!("{}", serde_json::to_string(&stage)?);
    }
    let success = result.success.to_kind(Kind::Uint8);
    let found = [("autoattack".to_owned(), result.images), ("autoattack_success".to_owned(), success)];
    write_safetensors(ours, &found.into_iter().collect(), &Metadata::new())?;
    Ok(())
}
