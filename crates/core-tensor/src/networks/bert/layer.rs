//! One encoder layer: attention, feed-forward, a norm after each (post-LN).

use super::BertConfig;
use crate::nn::{GateConfig, Gated, Init, LayerFactory, LayerNormConfig, LinearConfig, Module, record};
use crate::workload::Operator;
use tch::Tensor;
use tch::nn::Path;

/// `x → LN(x + attention(x)) → LN(· + feed-forward(·))`.
#[derive(Debug)]
pub(super) struct Layer {
    name: String,
    query: Module,
    key: Module,
    value: Module,
    head_gate: Option<Module>,
    attention_output: Module,
    attention_norm: Module,
    intermediate: Module,
    neuron_gate: Option<Module>,
    output: Module,
    output_norm: Module,
    heads: i64,
    head_size: i64,
    hidden_dropout: f64,
    attention_dropout: f64,
}

impl Layer {
    pub(super) fn new(path: &Path, factory: &dyn LayerFactory, config: &BertConfig, number: usize) -> Self {
        let heads = config.heads(number).len() as i64;
        let neurons = config.neurons(number).len() as i64;
        let (hidden, attended) = (config.hidden_size, heads * config.head_size());
        let init = Init::Normal { std: config.initializer_range };
        let linear = |path: &Path, inputs, outputs| {
            factory.linear(path, LinearConfig { init, ..LinearConfig::new(inputs, outputs) })
        };
        let norm = |path: &Path| {
            factory.layer_norm(&(path / "LayerNorm"), LayerNormConfig { features: hidden, eps: config.layer_norm_eps })
        };
        let attention = path / "attention";
        let inner = &attention / "self";
        let attention_output = &attention / "output";
        let output = path / "output";
        Self {
            name: inner.components().collect::<Vec<_>>().join("."),
            query: linear(&(&inner / "query"), hidden, attended),
            key: linear(&(&inner / "key"), hidden, attended),
            value: linear(&(&inner / "value"), hidden, attended),
            head_gate: factory.gate(&inner, GateConfig { gated: Gated::Heads, units: heads }),
            attention_output: linear(&(&attention_output / "dense"), attended, hidden),
            attention_norm: norm(&attention_output),
            intermediate: linear(&(path / "intermediate" / "dense"), hidden, neurons),
            neuron_gate: factory.gate(path, GateConfig { gated: Gated::Neurons, units: neurons }),
            output: linear(&(&output / "dense"), neurons, hidden),
            output_norm: norm(&output),
            heads,
            head_size: config.head_size(),
            hidden_dropout: config.hidden_dropout_prob,
            attention_dropout: config.attention_probs_dropout_prob,
        }
    }

    /// The layer's output for `queries`, which are rows of `x`: all of them, or only those whose output is wanted.
    pub(super) fn forward(&self, queries: &Tensor, x: &Tensor, mask: Option<&Tensor>, train: bool) -> Tensor {
        let attended = self.attend(queries, x, mask, train);
        let attended = dropout(self.attention_output.forward_t(&attended, train), self.hidden_dropout, train);
        let a = self.attention_norm.forward_t(&sum(attended, queries), train);
        let mut hidden = gelu(self.intermediate.forward_t(&a, train));
        if let Some(gate) = &self.neuron_gate {
            hidden = gate.forward_t(&hidden, train);
        }
        let hidden = dropout(self.output.forward_t(&hidden, train), self.hidden_dropout, train);
        self.output_norm.forward_t(&sum(hidden, &a), train)
    }

    /// `softmax(q kᵀ / √d + mask) v`, heads side by side: `[batch, queries, heads · head size]`.
    fn attend(&self, queries: &Tensor, x: &Tensor, mask: Option<&Tensor>, train: bool) -> Tensor {
        let split = |projected: Tensor| {
            let size = projected.size();
            projected.view([size[0], size[1], self.heads, self.head_size]).transpose(1, 2)
        };
        let q = split(self.query.forward_t(queries, train));
        let k = split(self.key.forward_t(x, train));
        let v = split(self.value.forward_t(x, train));
        let (rows, tokens) = (queries.size()[1], x.size()[1]);
        let product =
            |n: i64, k: i64| Operator::MatMul { m: rows as u64, n: n as u64, k: k as u64, count: self.heads as u64 };
        record(&format!("{}.scores", self.name), || product(tokens, self.head_size));
        record(&format!("{}.context", self.name), || product(self.head_size, tokens));
        let rate = if train { self.attention_dropout } else { 0.0 };
        let mut context = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, rate, false, None, false);
        if let Some(gate) = &self.head_gate {
            context = gate.forward_t(&context, train);
        }
        let joined = context.transpose(1, 2).contiguous();
        joined.view([queries.size()[0], rows, self.heads * self.head_size])
    }
}

/// The exact GELU; in place where no gradient will ask for its input, which spares a large allocation.
fn gelu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.gelu("none") } else { x.gelu_("none") }
}

/// `a + b`, in place where no gradient is recorded.
fn sum(mut a: Tensor, b: &Tensor) -> Tensor {
    if a.requires_grad() || b.requires_grad() { a + b } else { a.g_add_(b) }
}

/// Dropout that costs nothing when there is none.
pub(in crate::networks) fn dropout(x: Tensor, rate: f64, train: bool) -> Tensor {
    if train && rate > 0.0 { x.dropout(rate, true) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{BatchNormConfig, Conv2dConfig, Standard};
    use tch::{Device, Kind, nn};

    /// Standard layers, and heads scaled by 0.5 and 0.
    struct Scaled;

    impl LayerFactory for Scaled {
        fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
            Standard.conv2d(path, config)
        }

        fn linear(&self, path: &Path, config: LinearConfig) -> Module {
            Standard.linear(path, config)
        }

        fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
            Standard.batch_norm2d(path, config)
        }

        fn gate(&self, _: &Path, config: GateConfig) -> Option<Module> {
            let scale = || Tensor::from_slice(&[0.5_f32, 0.0]).view([1, 2, 1, 1]);
            (config.gated == Gated::Heads).then(|| Box::new(nn::func(move |heads| heads * scale())) as Module)
        }
    }

    #[test]
    fn attention_with_identity_projections_is_the_one_worked_by_hand() {
        // Head 0 attends softmax([1, 0]/√2) = 0.6698, 0.3302 and mirrored; head 1 softmax([4, 0]/√2) = 0.9442, 0.0558
        // and softmax([0, 1]/√2).
        let expected = [0.6698, 0.3302, 1.8884, -0.0558, 0.3302, 0.6698, 0.6605, -0.6698];
        let gated = [0.3349, 0.1651, 0.0, 0.0, 0.1651, 0.3349, 0.0, 0.0];
        for (factory, expected) in [(&Standard as &dyn LayerFactory, expected), (&Scaled, gated)] {
            let attended = attended_by_hand(factory);
            for (found, expected) in attended.into_iter().zip(expected) {
                assert!((found - expected).abs() < 6e-5, "{found} {expected}");
            }
        }
    }

    fn attended_by_hand(factory: &dyn LayerFactory) -> Vec<f32> {
        let config = BertConfig {
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 4,
            ..BertConfig::nano(10)
        };
        let store = nn::VarStore::new(Device::Cpu);
        let layer = Layer::new(&store.root(), factory, &config, 0);
        for name in ["query", "key", "value"] {
            let mut weight = store.variables().remove(&format!("attention.self.{name}.weight")).unwrap();
            tch::no_grad(|| weight.copy_(&Tensor::eye(4, (Kind::Float, Device::Cpu))));
        }
        let x = Tensor::from_slice(&[1_f32, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, -1.0]).view([1, 2, 4]);
        layer.attend(&x, &x, None, false).view(-1).try_into().unwrap()
    }

    #[test]
    fn the_gelu_is_the_exact_one_with_a_gradient_and_without() {
        for gradient in [false, true] {
            let x = Tensor::from_slice(&[-1_f32, 0.5, 1.0, 2.0]).set_requires_grad(gradient);
            let found: Vec<f32> = gelu(x).detach().try_into().unwrap();
            // x·Φ(x). The form with tanh has −0.158808, 0.345714, 0.841192 and 1.954598.
            for (found, expected) in found.into_iter().zip([-0.158655, 0.345731, 0.841345, 1.9545]) {
                assert!((found - expected).abs() < 2e-6, "{found} {expected}");
            }
        }
    }
}
