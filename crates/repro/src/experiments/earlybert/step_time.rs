//! What cutting saves on the clock: training steps of a small BERT, full and cut, beside its multiply-accumulates.

use super::training::{Classify, Model, Shape, Tokens};
use crate::{Metrics, RunContext};
use core_tensor::data::ToDevice;
use core_tensor::networks::bert::BertConfig;
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Optimizer};
use core_tensor::train::{Objective, Progress};
use lth::structured::{DrawConfig, slim_parameters};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tch::{Cuda, Device};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) batch: usize,
    pub(super) tokens: usize,
    /// Steps timed of each model, in turns, so that a busy machine slows both.
    pub(super) rounds: usize,
    pub(super) heads: f64,
    pub(super) neurons: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { batch: 16, tokens: 64, rounds: 7, heads: 0.5, neurons: 0.4 }
    }
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let config = BertConfig::tiny(1000);
    let device: Device = context.device().into();
    let full = Model::fresh(&Standard, &config, Shape { labels: 2, pooled: true }, (seed, device))?;
    let draw = DrawConfig::ratios(params.heads, params.neurons);
    let cut = full.cut(&full.weights(), &draw.random(&full.groups(), seed)?)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let ids: Vec<i64> = (0..params.batch * params.tokens).map(|_| random.random_range(5..1000)).collect();
    let classes: Vec<i64> = (0..params.batch).map(|_| random.random_range(0..2)).collect();
    let batch = Tokens::new(&ids, &classes).to_device(device);
    let mut optimizers = Vec::new();
    for model in [&full, &cut] {
        optimizers.push((model, Adam::new(slim_parameters(&model.store, 0.0), AdamConfig::decoupled())?, Vec::new()));
    }
    for _ in 0..=params.rounds {
        for (model, optimizer, seconds) in &mut optimizers {
            let start = Instant::now();
            optimizer.zero_grad()?;
            Classify(&model.network).loss(&batch, &Progress::default())?.total.backward();
            optimizer.step(1e-5)?;
            // A GPU returns before it is done.
            if let Device::Cuda(index) = device {
                Cuda::synchronize(index as i64);
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let median = |seconds: &[f64]| {
        // The first step of each warms up.
        let mut sorted = seconds[1..].to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let [full_seconds, cut_seconds] = [median(&optimizers[0].2), median(&optimizers[1].2)];
    context.measured("full_step", full_seconds)?;
    context.measured("cut_step", cut_seconds)?;
    context.measured("time_ratio", cut_seconds / full_seconds)?;
    let macs = |config: &BertConfig| -> anyhow::Result<f64> {
        Ok(config.workload("step", params.tokens as i64)?.macs()? as f64)
    };
    Ok(Metrics::from([("macs_ratio".into(), macs(&cut.config)? / macs(&full.config)?)]))
}
