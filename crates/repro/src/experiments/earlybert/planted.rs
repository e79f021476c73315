//! Planted dead structures: does a search of a hundred steps find which heads and neurons can do nothing?

use super::training::{Drawn, Model, Shape, Tokens};
use crate::{Metrics, RunContext};
use core_tensor::networks::bert::BertConfig;
use core_tensor::nn::{Gated, Standard};
use core_tensor::optim::{NamedTensors, Schedule};
use lth::structured::{DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, TicketMask, bert_groups, coefficients};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor, no_grad};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) batch: usize,
    pub(super) learning_rate: f64,
    pub(super) lambda: f64,
    /// A penalty that blurs.
    pub(super) heavy_lambda: f64,
    /// Steps at which the mask is compared with the planted one; the last is too late for the easy task.
    pub(super) early: u64,
    pub(super) late: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { batch: 64, learning_rate: 1e-3, lambda: 1e-4, heavy_lambda: 1e-2, early: 100, late: 200 }
    }
}

const LENGTH: usize = 16;
const WORDS: i64 = 64;

fn shape() -> BertConfig {
    BertConfig {
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 128,
        max_position_embeddings: LENGTH as i64,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::tiny(WORDS)
    }
}

/// Whether more than seven of the fifteen tokens after the first are above 34.
fn majority(tokens: &[i64]) -> bool {
    tokens[1..].iter().filter(|token| **token > 34).count() > 7
}

/// Whether token 7 or 9 is there: learned in a few steps.
fn contains(tokens: &[i64]) -> bool {
    tokens.iter().any(|token| *token == 7 || *token == 9)
}

fn draw(batch: usize, label: fn(&[i64]) -> bool) -> impl Fn(&mut ChaCha8Rng) -> Tokens {
    move |random| {
        let ids: Vec<i64> = (0..batch * LENGTH).map(|_| random.random_range(5..WORDS)).collect();
        let classes: Vec<i64> = ids.chunks(LENGTH).map(|row| i64::from(label(row))).collect();
        Tokens::new(&ids, &classes)
    }
}

pub(super) fn measure(params: &Params, seed: u64, context: &RunContext) -> anyhow::Result<Metrics> {
    let (config, device) = (shape(), context.device().into());
    // The ticket that a perfect search would draw; half of everything is dead, layer by layer.
    let mut by_layer = DrawConfig::ratios(0.5, 0.5);
    by_layer.neurons.scope = lth::Scope::PerLayer;
    let planted = by_layer.random(&bert_groups(&config, "bert."), seed)?;
    let mut metrics = Metrics::new();
    let runs = [
        ("majority", majority as fn(&[i64]) -> bool, params.lambda, params.late, false),
        ("contains", contains, params.lambda, params.late, false),
        ("heavy", majority, params.heavy_lambda, params.early, false),
        ("pooled", majority, params.lambda, params.late, true),
    ];
    for (name, label, lambda, steps, pooled) in runs {
        let head = Shape { labels: 2, pooled };
        let model = Model::slimmed(&config, head, &plant(&config, head, &planted, seed)?, device)?;
        let groups = model.groups();
        let live = coefficients(&model.store, &groups)?;
        let draw_config = DrawConfig::ratios(0.5, 0.5);
        let search = SearchConfig {
            draw: draw_config.clone(),
            rule: DrawRule::AtStep(steps),
            every: params.early,
            ..SearchConfig::default()
        };
        let mut search = Search::new(&groups, &live, search)?;
        let source = Drawn { draw: draw(params.batch, label), steps, seed };
        let schedule = Schedule::Constant { peak: params.learning_rate };
        let slim = SlimConfig { lambda_heads: lambda, lambda_neurons: lambda };
        model.train(&source, (1, schedule, seed), Some(slim), vec![&mut search])?;
        for step in [params.early, params.late].into_iter().filter(|step| *step <= steps) {
            let drawn = draw_config.draw(&search.trace().scores(step, &groups)?)?;
            let [heads, neurons] = drawn.mask.distance(&planted)?;
            metrics.insert(format!("{name}_heads_{step}"), 1.0 - heads);
            metrics.insert(format!("{name}_neurons_{step}"), 1.0 - neurons);
        }
    }
    Ok(metrics)
}

/// Fresh weights in which everything that `alive` drops can do nothing, now or after training: what feeds it and what
/// reads it is zero, and so are the gradients of both.
fn plant(config: &BertConfig, head: Shape, alive: &TicketMask, seed: u64) -> anyhow::Result<NamedTensors> {
    let model = Model::fresh(&Standard, config, head, (seed, Device::Cpu))?;
    let weights = model.weights();
    for group in model.groups() {
        let kept = alive.kept(&group)?;
        let dead = (0..group.units as i64).filter(|unit| !kept.contains(&(*unit as usize)));
        let dead: Vec<i64> = dead.collect();
        for follower in &group.followers {
            if group.gated == Gated::Heads && !follower.tensor.contains("value") && follower.axis == 0 {
                continue;
            }
            let slices: Vec<i64> = dead
                .iter()
                .flat_map(|unit| (0..follower.width).map(move |slice| unit * follower.width + slice))
                .collect();
            let mut tensor = weights[&follower.tensor].shallow_clone();
            let _ = no_grad(|| tensor.index_fill_(follower.axis, &Tensor::from_slice(&slices), 0.0));
        }
    }
    Ok(weights)
}
