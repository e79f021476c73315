//! A causal language model: a Transformer's decoder without an encoder to look at.

use super::bert::{dropout, in_table};
use crate::nn::{EmbeddingConfig, Init, LayerFactory, LayerNormConfig, LinearConfig, Module, record, trace};
use crate::text::corpus::LanguageBatch;
use crate::workload::{Operator, Workload};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Reduction, Tensor};

/// The shape of a [`LanguageModel`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelConfig {
    /// Words.
    pub vocabulary: i64,
    /// Length of a word's vector, an even multiple of the heads. Base: 512.
    pub width: i64,
    /// Layers. Base: 6.
    pub layers: usize,
    /// Attention heads of a layer. Base: 8.
    pub heads: i64,
    /// Neurons of a feed-forward layer. Base: 2,048.
    pub neurons: i64,
    /// Dropout after the embedding and before each residual sum, in `[0, 1)`. Published: 0.1.
    pub dropout: f64,
}

impl LanguageModelConfig {
    /// As large as the base Transformer (Vaswani et al., arXiv 1706.03762).
    pub fn base(vocabulary: i64) -> Self {
        Self { vocabulary, width: 512, layers: 6, heads: 8, neurons: 2048, dropout: 0.1 }
    }

    /// Two layers of 64 with 4 heads and 256 neurons, without dropout: for a minute of a CPU.
    pub fn small(vocabulary: i64) -> Self {
        Self { vocabulary, width: 64, layers: 2, heads: 4, neurons: 256, dropout: 0.0 }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<()> {
        let positive = [
            ("vocabulary", self.vocabulary),
            ("width", self.width),
            ("layers", self.layers as i64),
            ("heads", self.heads),
            ("neurons", self.neurons),
        ];
        if let Some((setting, found)) = positive.into_iter().find(|(_, value)| *value < 1) {
            return Err(Error::setting(setting, "at least 1", found));
        }
        if self.width % self.heads != 0 || self.width % 2 != 0 {
            return Err(Error::setting("width", format!("an even multiple of the {} heads", self.heads), self.width));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::setting("dropout", "in [0, 1)", self.dropout));
        }
        Ok(())
    }
}

/// Predicts each word from those before it. Layers normalise their input (as Baevski and Auli do for WikiText-103, arXiv
/// 1809.10853); positions are the published sines; the output layer is the table of words.
///
/// Names: `words`, `layers.{i}.attention.{query, key, value, output}`, `layers.{i}.{attention_norm, inner, outer, norm}`,
/// `norm`.
///
/// ```
/// use core_tensor::networks::{LanguageModel, LanguageModelConfig};
/// use core_tensor::nn::Standard;
/// use core_tensor::seed::{Purpose, seed_libtorch};
/// use tch::{Device, Tensor, nn};
///
/// seed_libtorch(0, Purpose::Initialisation, 0);
/// let store = nn::VarStore::new(Device::Cpu);
/// let model = LanguageModel::new(&store.root(), &Standard, LanguageModelConfig::small(100))?;
/// let words = Tensor::from_slice(&[3_i64, 1, 4, 1, 5]).view([1, 5]);
/// assert_eq!(model.forward(&words, false)?.size(), [1, 5, 100]);
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct LanguageModel {
    config: LanguageModelConfig,
    words: Module,
    table: Tensor,
    layers: Vec<Layer>,
    norm: Module,
}

impl LanguageModel {
    /// # Errors
    /// A config outside its range, or a factory whose table of words has no `weight`.
    pub fn new(path: &Path, factory: &dyn LayerFactory, config: LanguageModelConfig) -> Result<Self> {
        config.validate()?;
        let init = Init::Normal { std: (config.width as f64).powf(-0.5) };
        let embedding = EmbeddingConfig { init, ..EmbeddingConfig::new(config.vocabulary, config.width) };
        let words = factory.embedding(&(path / "words"), embedding);
        let table = (path / "words").get("weight");
        let layers = path / "layers";
        Ok(Self {
            words,
            table: table.ok_or_else(|| Error::tensor("words.weight", "a variable", "none"))?,
            layers: (0..config.layers).map(|layer| Layer::new(&(&layers / layer), factory, &config)).collect(),
            norm: factory.layer_norm(&(path / "norm"), LayerNormConfig::new(config.width)),
            config,
        })
    }

    /// Its shape.
    pub fn config(&self) -> &LanguageModelConfig {
        &self.config
    }

    /// Logits of each next word, `[batch, tokens, vocabulary]`.
    ///
    /// # Errors
    /// Words that are not `i64 [batch, tokens]` or not in the vocabulary.
    pub fn forward(&self, words: &Tensor, train: bool) -> Result<Tensor> {
        let size = words.size();
        if size.len() != 2 || words.numel() == 0 {
            return Err(Error::tensor("words", "[batch, tokens]", format!("{size:?}")));
        }
        in_table("words", words, &size, self.config.vocabulary)?;
        let LanguageModelConfig { width, dropout: rate, .. } = self.config;
        let embedded = self.words.forward_t(words, train) * (width as f64).sqrt();
        // Single-precision sines would make singles of halves, which the layers then refuse.
        let places = positions(size[1], width, self.table.device()).to_kind(self.table.kind());
        let mut x = dropout(embedded + places, rate, train);
        for layer in &self.layers {
            x = layer.forward(&x, train);
        }
        let x = self.norm.forward_t(&x, train);
        record("words", || Operator::Linear {
            in_features: width as u64,
            out_features: self.config.vocabulary as u64,
            rows: size[1] as u64,
        });
        Ok(x.linear(&self.table, None::<&Tensor>))
    }

    /// The mean cross-entropy of the words that follow, in nats; its exponential is the perplexity.
    ///
    /// # Errors
    /// Inputs or targets that do not fit.
    pub fn loss(&self, batch: &LanguageBatch, train: bool) -> Result<Tensor> {
        let logits = self.forward(&batch.input, train)?;
        in_table("target", &batch.target, &batch.input.size(), self.config.vocabulary)?;
        let logits = logits.view([-1, self.config.vocabulary]);
        Ok(logits.f_cross_entropy_loss(&batch.target.reshape([-1]), None::<Tensor>, Reduction::Mean, -100, 0.0)?)
    }

    /// Multiply-accumulates of one sequence of `tokens`, layer by layer:
    /// `tokens · (4·width² + 2·width·neurons) + 2·tokens²·width` a layer, and `tokens · width · vocabulary`. Attention is
    /// counted whole, although half of it is masked.
    ///
    /// # Errors
    /// No token.
    pub fn workload(&self, name: &str, tokens: i64) -> Result<Workload> {
        let words = Tensor::f_zeros([1, tokens], (Kind::Int64, self.table.device()))?;
        let mut outcome = Ok(());
        let workload = trace(name, || outcome = self.forward(&words, false).map(drop));
        outcome.and(workload)
    }
}

/// `x → x + attention(norm(x)) → · + feed-forward(norm(·))`.
#[derive(Debug)]
struct Layer {
    name: String,
    heads: i64,
    dropout: f64,
    attention_norm: Module,
    /// Query, key, value.
    inputs: [Module; 3],
    output: Module,
    norm: Module,
    inner: Module,
    outer: Module,
}

impl Layer {
    fn new(path: &Path, factory: &dyn LayerFactory, config: &LanguageModelConfig) -> Self {
        let LanguageModelConfig { width, neurons, heads, dropout, .. } = *config;
        let attention = path / "attention";
        let linear = |path: Path, inputs, outputs| factory.linear(&path, LinearConfig::new(inputs, outputs));
        let norm = |name: &str| factory.layer_norm(&(path / name), LayerNormConfig::new(width));
        Self {
            name: attention.components().collect::<Vec<_>>().join("."),
            heads,
            dropout,
            attention_norm: norm("attention_norm"),
            inputs: ["query", "key", "value"].map(|name| linear(&attention / name, width, width)),
            output: linear(&attention / "output", width, width),
            norm: norm("norm"),
            inner: linear(path / "inner", width, neurons),
            outer: linear(path / "outer", neurons, width),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let attended = self.attend(&self.attention_norm.forward_t(x, train), train);
        let x = x + dropout(attended, self.dropout, train);
        let hidden = self.inner.forward_t(&self.norm.forward_t(&x, train), train).relu();
        x + dropout(self.outer.forward_t(&hidden, train), self.dropout, train)
    }

    fn attend(&self, x: &Tensor, train: bool) -> Tensor {
        let size = x.size();
        let (tokens, head) = (size[1], size[2] / self.heads);
        let [query, key, value] =
            [0, 1, 2].map(|input| self.inputs[input].forward_t(x, train).view([size[0], tokens, self.heads, head]));
        let [query, key, value] = [query, key, value].map(|projected| projected.transpose(1, 2));
        let product =
            |n: i64, k: i64| Operator::MatMul { m: tokens as u64, n: n as u64, k: k as u64, count: self.heads as u64 };
        record(&format!("{}.scores", self.name), || product(tokens, head));
        record(&format!("{}.context", self.name), || product(head, tokens));
        let none = None::<&Tensor>;
        let context = Tensor::scaled_dot_product_attention(&query, &key, &value, none, 0.0, true, None, false);
        self.output.forward_t(&context.transpose(1, 2).reshape(size), train)
    }
}

/// `sin` and `cos` of `position / 10000^(2i / width)`, `[tokens, width]`, sines first.
fn positions(tokens: i64, width: i64, device: tch::Device) -> Tensor {
    let place = Tensor::arange(tokens, (Kind::Float, device)).unsqueeze(1);
    let rate = (Tensor::arange(width / 2, (Kind::Float, device)) * (-2.0 * 10_000_f64.ln() / width as f64)).exp();
    let angle = place * rate;
    Tensor::cat(&[angle.sin(), angle.cos()], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Standard;
    use crate::optim::{Adam, AdamConfig, Optimizer, parameters};
    use crate::seed::{Purpose, seed_libtorch};
    use tch::{Device, nn};

    const TINY: LanguageModelConfig =
        LanguageModelConfig { vocabulary: 11, width: 8, layers: 2, heads: 2, neurons: 12, dropout: 0.0 };

    fn model(config: LanguageModelConfig) -> (nn::VarStore, LanguageModel) {
        seed_libtorch(3, Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let model = LanguageModel::new(&store.root(), &Standard, config).unwrap();
        (store, model)
    }

    fn words(rows: i64, tokens: i64, shift: i64) -> Tensor {
        let count = Tensor::arange(rows * tokens, (Kind::Int64, Device::Cpu)) + shift;
        (count * 7).remainder(11).view([rows, tokens])
    }

    #[test]
    fn windows_of_one_text_are_a_batch() {
        let (_store, model) = model(TINY);
        let text = words(3, 10, 0);
        let (input, target) = (text.narrow(1, 0, 9), text.narrow(1, 1, 9));
        let copies = LanguageBatch { input: input.contiguous(), target: target.contiguous() };
        let loss = |batch: &LanguageBatch| model.loss(batch, false).unwrap().double_value(&[]);
        assert_eq!(loss(&LanguageBatch { input, target }), loss(&copies));
    }

    #[test]
    fn a_word_depends_on_none_after_it() {
        let (_store, model) = model(TINY);
        let (one, other) = (words(2, 6, 0), words(2, 6, 0));
        other.narrow(1, 4, 2).copy_(&words(2, 2, 5));
        let [one, other] = [one, other].map(|words| model.forward(&words, false).unwrap());
        let apart = (&one - &other).abs().amax([0, 2], false);
        // Same sums over the same prefix; rounding may depend on how many rows a kernel blocks together.
        assert!(apart.narrow(0, 0, 4).max().double_value(&[]) < 1e-5);
        assert!(apart.narrow(0, 4, 2).min().double_value(&[]) > 1e-3);
    }

    #[test]
    fn parameters_and_work_are_counted_by_hand() {
        let (store, model) = model(TINY);
        // Words 11·8; a layer: two norms 4·8, four projections 4·(64 + 8), feed-forward 96 + 12 + 96 + 8; a last norm 16.
        let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(parameters, 88 + 2 * (32 + 288 + 212) + 16);
        // 5 tokens: a layer 5·(4·64 + 2·96) + 2·25·8, and 5·8·11.
        let workload = model.workload("tiny", 5).unwrap();
        assert_eq!(workload.macs().unwrap(), 2 * (2240 + 400) + 440);
        assert!(workload.layers.iter().any(|layer| layer.name == "layers.1.attention.query"));
    }

    #[test]
    fn positions_are_the_published_sines() {
        let table = positions(3, 4, Device::Cpu);
        // Rates 1 and 10000^(−1/2) = 0.01.
        for (place, column, expected) in
            [(2, 0, 2_f64.sin()), (2, 1, 0.02_f64.sin()), (1, 2, 1_f64.cos()), (1, 3, 0.01_f64.cos())]
        {
            assert!((table.double_value(&[place, column]) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn half_precision_stays_half_behind_the_positions() {
        let (mut store, model) = model(TINY);
        let single = model.forward(&words(2, 6, 0), false).unwrap();
        store.bfloat16();
        let half = model.forward(&words(2, 6, 0), false).unwrap();
        assert_eq!(half.kind(), Kind::BFloat16);
        // Logits of order 1 behind a dozen roundings to 8 bits.
        let apart = (half.to_kind(Kind::Float) - single).abs().max().double_value(&[]);
        assert!(apart < 0.25, "{apart}");
    }

    #[test]
    fn it_starts_near_chance_and_learns_a_cycle() {
        let (store, model) = model(TINY);
        // Seven is a generator of the integers modulo 11, so that each word has one successor.
        let batch = LanguageBatch { input: words(4, 11, 0), target: words(4, 11, 1) };
        let start = model.loss(&batch, true).unwrap().double_value(&[]);
        // Normalised features on rows of variance 1/8 give logits of variance 1, which add half a nat to ln 11 = 2.40.
        assert!((start - 2.9).abs() < 0.5, "{start}");
        let mut optimizer = Adam::new(parameters(&store, 0.0), AdamConfig::default()).unwrap();
        for _ in 0..60 {
            optimizer.zero_grad().unwrap();
            model.loss(&batch, true).unwrap().backward();
            optimizer.step(0.02).unwrap();
        }
        let end = model.loss(&batch, false).unwrap().double_value(&[]);
        assert!(end < 0.2, "{end}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |config: LanguageModelConfig| config.validate().unwrap_err().to_string();
        assert!(refused(LanguageModelConfig { heads: 3, ..TINY }).contains("width"));
        assert!(refused(LanguageModelConfig { width: 9, heads: 3, ..TINY }).contains("even"));
        assert!(refused(LanguageModelConfig { layers: 0, ..TINY }).contains("layers"));
        assert!(refused(LanguageModelConfig { dropout: 1.0, ..TINY }).contains("dropout"));
        assert!(LanguageModelConfig::base(100).validate().is_ok());
        let (_store, model) = model(TINY);
        for wrong in [words(1, 3, 0) + 11, words(1, 3, 0).to_kind(Kind::Float), words(1, 3, 0).view(3)] {
            assert!(model.forward(&wrong, false).unwrap_err().to_string().contains("words"));
        }
        let batch = LanguageBatch { input: words(1, 3, 0), target: words(1, 2, 0) };
        assert!(model.loss(&batch, false).unwrap_err().to_string().contains("target"));
        assert!(model.workload("none", 0).is_err());
    }
}
