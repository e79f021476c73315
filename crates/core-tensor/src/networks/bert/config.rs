//! The shape of a BERT, as Hugging Face's `config.json` has it.

use crate::workload::Workload;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor, nn};

/// The shape of a BERT: the keys of `config.json` that decide what is computed. Other keys are ignored when read.
///
/// Heads and neurons can be missing layer by layer. `pruned_heads` is Hugging Face's own key; there is none for neurons,
/// so `pruned_neurons` is ours, in the same form. Both list *original* numbers, counted before anything was pruned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Word pieces. bert-base-uncased: 30,522.
    pub vocab_size: i64,
    /// Length of a token's vector, a multiple of the heads. bert-base: 768.
    pub hidden_size: i64,
    /// Encoder layers. bert-base: 12.
    pub num_hidden_layers: usize,
    /// Attention heads of an unpruned layer. bert-base: 12.
    pub num_attention_heads: usize,
    /// Neurons of an unpruned feed-forward layer. bert-base: 3,072.
    pub intermediate_size: usize,
    /// The activation; only the exact `gelu` is known.
    pub hidden_act: String,
    /// Dropout after embeddings and before each residual sum, in `[0, 1)`. Published: 0.1.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities, in `[0, 1)`. Published: 0.1.
    pub attention_probs_dropout_prob: f64,
    /// The longest sequence. Published: 512.
    pub max_position_embeddings: i64,
    /// Kinds of segments. Published: 2.
    pub type_vocab_size: i64,
    /// Standard deviation of the initial weights. Published: 0.02.
    pub initializer_range: f64,
    /// Added to the variance in layer norms. Published: 1e-12.
    pub layer_norm_eps: f64,
    /// The padding token, whose vector is zero at the start.
    pub pad_token_id: i64,
    /// Pruned heads by layer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pruned_heads: BTreeMap<usize, Vec<usize>>,
    /// Pruned feed-forward neurons by layer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pruned_neurons: BTreeMap<usize, Vec<usize>>,
    /// Probability that training skips a layer, in `[0, 1)`: LayerDrop (Fan et al., arXiv 1909.11556: 0.2). Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub layer_drop: f64,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self::base()
    }
}

impl BertConfig {
    /// bert-base-uncased: 109,482,240 parameters with the pooler.
    pub fn base() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            pruned_heads: BTreeMap::new(),
            pruned_neurons: BTreeMap::new(),
            layer_drop: 0.0,
        }
    }

    /// bert-large: 24 layers of 1,024 with 16 heads.
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            ..Self::base()
        }
    }

    /// Four layers of 256 with 8 heads and 1,024 neurons, up to 128 tokens: for a CPU.
    pub fn tiny(vocab_size: i64) -> Self {
        Self {
            vocab_size,
            hidden_size: 256,
            num_hidden_layers: 4,
            num_attention_heads: 8,
            intermediate_size: 1024,
            max_position_embeddings: 128,
            ..Self::base()
        }
    }

    /// Four layers of 128 with 8 heads and 512 neurons, up to 128 tokens: for a minute of a CPU.
    pub fn nano(vocab_size: i64) -> Self {
        Self { hidden_size: 128, intermediate_size: 512, ..Self::tiny(vocab_size) }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read or is no JSON of these types, or values outside their range.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        let config: Self = serde_json::from_str(&text)
            .map_err(|error| Error::malformed(path, byte_of(&text, error.line(), error.column()), error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<()> {
        let heads = self.num_attention_heads as i64;
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers as i64),
            ("num_attention_heads", heads),
            ("intermediate_size", self.intermediate_size as i64),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((setting, found)) = positive.into_iter().find(|(_, value)| *value < 1) {
            return Err(Error::setting(setting, "at least 1", found));
        }
        if self.hidden_size % heads != 0 {
            return Err(Error::setting("hidden_size", format!("a multiple of the {heads} heads"), self.hidden_size));
        }
        if self.hidden_act != "gelu" {
            return Err(Error::setting("hidden_act", "`gelu`", format!("`{}`", self.hidden_act)));
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("layer_drop", self.layer_drop),
        ];
        if let Some((setting, found)) = probabilities.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err(Error::setting(setting, "in [0, 1)", found));
        }
        for (setting, value) in [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::setting(setting, "finite and at least 0", value));
            }
        }
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            return Err(Error::setting("pad_token_id", format!("in [0, {})", self.vocab_size), self.pad_token_id));
        }
        self.check_pruned("pruned_heads", &self.pruned_heads, self.num_attention_heads)?;
        self.check_pruned("pruned_neurons", &self.pruned_neurons, self.intermediate_size)
    }

    fn check_pruned(&self, setting: &'static str, pruned: &BTreeMap<usize, Vec<usize>>, count: usize) -> Result<()> {
        for (layer, numbers) in pruned {
            if *layer >= self.num_hidden_layers {
                return Err(Error::setting(setting, format!("layers below {}", self.num_hidden_layers), layer));
            }
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            if let Some(beyond) = sorted.last().filter(|last| **last >= count) {
                let found = format!("{beyond} in layer {layer}");
                return Err(Error::setting(setting, format!("numbers below {count}"), found));
            }
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::setting(
                    setting,
                    "each number once",
                    format!("{} twice in layer {layer}", twice[0]),
                ));
            }
            if sorted.len() == count {
                return Err(Error::setting(setting, "something left in every layer", format!("layer {layer} emptied")));
            }
        }
        Ok(())
    }

    /// Length of a head's vectors; pruning does not change it.
    pub fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads as i64
    }

    /// Original numbers of the heads that a layer still has, ascending.
    pub fn heads(&self, layer: usize) -> Vec<usize> {
        left(self.num_attention_heads, self.pruned_heads.get(&layer))
    }

    /// Original numbers of the neurons that a layer still has, ascending.
    pub fn neurons(&self, layer: usize) -> Vec<usize> {
        left(self.intermediate_size, self.pruned_neurons.get(&layer))
    }

    /// Multiply-accumulates of one sequence of `tokens` through the encoder stack, layer by layer, from a traced
    /// throw-away encoder: `tokens · (4·H·A·d + 2·tokens·A·d + 2·H·I)` a layer, with its own heads `A` and neurons `I`.
    /// Embeddings, norms and softmax are left out, and so is the pooler. The copy's weights are drawn from libtorch's
    /// generator: seed that after this, not before.
    ///
    /// # Errors
    /// A config outside its range, or more tokens than positions.
    pub fn workload(&self, name: &str, tokens: i64) -> Result<Workload> {
        self.validate()?;
        if tokens < 1 || tokens > self.max_position_embeddings {
            return Err(Error::setting("tokens", format!("in [1, {}]", self.max_position_embeddings), tokens));
        }
        // The vocabulary does not enter the count; a small one keeps the throw-away copy small.
        let config = Self { vocab_size: self.pad_token_id + 1, ..self.clone() };
        let store = nn::VarStore::new(Device::Cpu);
        let encoder = super::Bert::encoder_only(&store.root(), &crate::nn::Standard, &config)?;
        let input = super::BertInput::new(Tensor::zeros([1, tokens], (Kind::Int64, Device::Cpu)));
        let mut outcome = Ok(());
        let workload = crate::nn::trace(name, || outcome = encoder.hidden(&input, false).map(drop));
        outcome.and(workload)
    }
}

fn left(count: usize, pruned: Option<&Vec<usize>>) -> Vec<usize> {
    let gone = |number: &usize| pruned.is_some_and(|pruned| pruned.contains(number));
    let mut left: Vec<usize> = (0..count).collect();
    if pruned.is_some() {
        left.retain(|number| !gone(number));
    }
    left
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn byte_of(text: &str, line: usize, column: usize) -> u64 {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)) as u64
}
