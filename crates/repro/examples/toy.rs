//! A paper of one's own, outside this crate: what an [`Experiment`] needs, and the whole program around it.
//!
//! The "paper" says that momentum helps gradient descent on badly scaled problems. Everything is arithmetic on eight
//! numbers, so it runs in an instant:
//!
//! ```text
//! cargo run -p repro --example toy -- run
//! ```

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use repro::section::{Axis, Curve, Level, Media, Picture, Series, Table, cell};
use repro::{
    Ask, Claim, DataSource, DataUse, Experiment, Metrics, Plan, Registry, Relation, Results, Run, RunContext, Section,
    Test, Tier,
};
use serde::{Deserialize, Serialize};

fn main() -> ExitCode {
    repro::main_with(&Registry {
        experiments: vec![Box::new(Momentum), Box::new(Broken)],
        // `|| tch::set_num_threads(1)` where libtorch computes.
        prepare_worker: || {},
        program: "cargo run -p repro --example toy -- run",
        versions: vec![("toy", "1".into())],
    })
}

/// What a run of [`Momentum`] is made of.
#[derive(Clone, Serialize, Deserialize)]
struct Settings {
    epochs: u64,
    learning_rate: f64,
    momentum: f64,
    noise: f64,
}

/// What a checkpoint holds: position and velocity.
#[derive(Serialize, Deserialize)]
struct State {
    x: [f64; 8],
    v: [f64; 8],
}

struct Momentum;

impl Experiment for Momentum {
    fn paper(&self) -> &'static str {
        "momentum"
    }

    fn title(&self) -> &'static str {
        "Some methods of speeding up the convergence of iteration methods"
    }

    fn reference(&self) -> &'static str {
        "B. T. Polyak, 1964. USSR Computational Mathematics and Mathematical Physics 4(5)"
    }

    fn idea(&self) -> &'static str {
        "Gradient descent crawls along the flat directions of a badly scaled problem, because its step must be small \
         enough for the steep ones. Keeping a part of the last step lets small gradients of one sign add up. The cost is \
         one more vector."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let epochs = if ask.tier == Tier::Quick { 12 } else { 24 };
        let mut plan = Plan::default();
        plan.data.push(DataUse { set: "noisy quadratic in 8 dimensions".into(), source: DataSource::Generator });
        for seed in ask.seeds(3) {
            let settings = Settings { epochs, learning_rate: 0.01, momentum: 0.0, noise: 0.5 };
            let plain = plan.add(ask.run(self.paper(), "plain", seed, &settings)?);
            let heavy = Settings { momentum: 0.8, ..settings.clone() };
            plan.add(ask.run(self.paper(), "momentum", seed, &heavy)?);
            // Goes on from the weights that the plain run ends with.
            plan.add(ask.run(self.paper(), "continued", seed, &settings)?.needing("start", &plain));
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        let settings: Settings = run.params()?;
        let (mut state, done) = match context.checkpoint() {
            Some(checkpoint) => (serde_json::from_slice(&fs::read(&checkpoint.path)?)?, checkpoint.epoch),
            None if run.needs.is_empty() => (State { x: [1.0; 8], v: [0.0; 8] }, 0),
            None => (serde_json::from_slice(&fs::read(context.needed("start")?.artifact("final.json")?)?)?, 0),
        };
        let mut loss = state.loss();
        for epoch in done + 1..=settings.epochs {
            let since = Instant::now();
            state.epoch(&settings, run.seed, epoch);
            context.measured("epoch_seconds", since.elapsed().as_secs_f64())?;
            loss = state.loss();
            context.log(epoch, &[("loss", loss)])?;
            context.save_checkpoint(epoch, |path| Ok(fs::write(path, serde_json::to_vec(&state)?)?))?;
            context.progress(epoch, settings.epochs, &format!("loss {loss:.4}"));
            dawdle()?;
        }
        context.save_artifact("final.json", |path| Ok(fs::write(path, serde_json::to_vec(&state)?)?))?;
        Ok(Metrics::from([("loss".into(), loss)]))
    }

    fn judge(&self, _: &Ask, results: &Results) -> anyhow::Result<Section> {
        let loss = |kind: &'static str| results.samples("loss", move |run| run.kind == kind);
        let [plain, heavy, continued] = [loss("plain")?, loss("momentum")?, loss("continued")?];
        let claims = vec![
            Claim::new("M1", "Momentum ends lower than plain descent after as many steps.")
                .paper("√κ against κ steps", "theorem 9")
                .test(Test::mean("loss(plain) − loss(momentum)", Relation::Above(0.0)), "")
                .judge(&plain.minus(&heavy))?,
            Claim::new("M2", "Plain descent catches up when it may go on for as long again.")
                .test(Test::mean("loss(continued) − loss(momentum)", Relation::AtMost(0.0)), "")
                .judge(&continued.minus(&heavy))?,
            Claim::new("M3", "Going on lowers the loss for every seed.")
                .test(Test::every("loss(continued) / loss(plain)", Relation::Below(1.0)), "")
                .judge(&continued.over(&plain))?,
            Claim::new("M4", "An epoch takes less than a tenth of a second.")
                .test(Test::every("seconds per epoch", Relation::Below(0.1)), "s")
                .timed()
                .judge(&results.timings("epoch_seconds", |run| run.kind == "momentum")?)?,
            Claim::new("M5", "The same holds in a million dimensions.")
                .paper("independent of the dimension", "section 3")
                .test(Test::mean("loss(plain) − loss(momentum)", Relation::Above(0.0)), "")
                .not_run("needs --tier paper"),
            Claim::new("M6", "Going on removes at least 99 % of what loss is left, for every seed.")
                .test(Test::every("loss(continued) / loss(plain)", Relation::AtMost(0.01)), "")
                .judge(&continued.over(&plain))?,
        ];
        let series = ["plain", "momentum", "continued"]
            .map(|kind| Series::over_epochs(kind, &results.history("loss", |run| run.kind == kind)));
        let curves = vec![Curve {
            title: "Loss over epochs".into(),
            caption: "Bands are 95 % t-intervals over seeds.".into(),
            x: Axis::linear("epoch"),
            y: Axis::log("loss"),
            series: series.into(),
            levels: vec![Level { name: "aim".into(), y: 0.01 }],
        }];
        let row = |kind: &str, samples: &repro::Samples| vec![kind.to_string(), cell(&samples.values(), 4)];
        let tables = vec![Table {
            title: "Final loss".into(),
            caption: "Mean ± half width of the 95 % interval.".into(),
            header: vec!["method".into(), "loss".into()],
            rows: vec![row("plain", &plain), row("momentum", &heavy), row("continued", &continued)],
        }];
        let pictures = vec![Picture {
            title: "The valley".into(),
            caption: "Level lines of two of the dimensions.".into(),
            alt: "Nested flat ellipses".into(),
            media: Media::Svg(valley()),
        }];
        let notes = vec!["Noise is added to every gradient, which Polyak does not do.".into()];
        Ok(Section { claims, curves, tables, pictures, notes, ..Section::default() })
    }
}

impl State {
    /// `½ Σ a_i x_i²` with curvatures 1, 8, 15, … 50.
    fn loss(&self) -> f64 {
        self.x.iter().zip(curvatures()).map(|(x, a)| 0.5 * a * x * x).sum()
    }

    /// Ten steps; the noise depends on nothing but seed, epoch and step.
    fn epoch(&mut self, settings: &Settings, seed: u64, epoch: u64) {
        let mut noise = ChaCha8Rng::seed_from_u64(seed << 32 | epoch);
        for _ in 0..10 {
            for ((x, v), a) in self.x.iter_mut().zip(&mut self.v).zip(curvatures()) {
                let gradient = a * *x + settings.noise * noise.random_range(-1.0..1.0);
                *v = settings.momentum * *v - settings.learning_rate * gradient;
                *x += *v;
            }
        }
    }
}

fn curvatures() -> impl Iterator<Item = f64> {
    (0..8).map(|i| 1.0 + 7.0 * f64::from(i))
}

fn valley() -> String {
    let ellipses: String = (1..6)
        .map(|i| {
            format!(r##"<ellipse cx="200" cy="60" rx="{}" ry="{}" fill="none" stroke="#1f5fa8"/>"##, i * 36, i * 10)
        })
        .collect();
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 120" width="400" height="120">{ellipses}</svg>"#
    )
}

/// Makes epochs as slow as `TOY_EPOCH_MS` says, to have time to watch the bars.
fn dawdle() -> anyhow::Result<()> {
    if let Ok(milliseconds) = std::env::var("TOY_EPOCH_MS") {
        std::thread::sleep(Duration::from_millis(milliseconds.parse().context("TOY_EPOCH_MS")?));
    }
    Ok(())
}

/// A paper whose runs go wrong, to see what that looks like: one fails, one needs it, one crashes, one diverges.
struct Broken;

impl Experiment for Broken {
    fn paper(&self) -> &'static str {
        "broken"
    }

    fn title(&self) -> &'static str {
        "Everything that can go wrong"
    }

    fn reference(&self) -> &'static str {
        "Murphy, 1949"
    }

    fn idea(&self) -> &'static str {
        "What can go wrong goes wrong. It should take nothing else along. The report says what and why."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let fails = plan.add(ask.run(self.paper(), "fails", 0, &())?);
        plan.add(ask.run(self.paper(), "depends", 0, &())?.needing("weights", &fails));
        plan.add(ask.run(self.paper(), "crashes", 0, &())?);
        plan.add(ask.run(self.paper(), "diverges", 0, &())?);
        for seed in ask.seeds(2) {
            plan.add(ask.run(self.paper(), "fine", seed, &())?);
        }
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        println!("{} speaks on standard output", run.kind);
        match run.kind.as_str() {
            "fails" => anyhow::bail!("the optimizer caught fire"),
            "crashes" => std::process::abort(),
            "diverges" => context.log(1, &[("loss", f64::NAN)])?,
            _ => {}
        }
        Ok(Metrics::from([("fine".into(), 1.0 + run.seed as f64)]))
    }

    fn judge(&self, _: &Ask, results: &Results) -> anyhow::Result<Section> {
        let metric = |kind: &'static str| results.samples("fine", move |run| run.kind == kind);
        let claims = vec![
            Claim::new("B1", "What fails is measured.")
                .test(Test::mean("fine(fails)", Relation::Above(0.0)), "")
                .judge(&metric("fails")?)?,
            Claim::new("B2", "What is fine is below zero.")
                .test(Test::every("fine(fine)", Relation::Below(0.0)), "")
                .judge(&metric("fine")?)?,
        ];
        Ok(Section { claims, ..Section::default() })
    }
}
