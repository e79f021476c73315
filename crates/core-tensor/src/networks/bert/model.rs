//! Embeddings, encoder, pooler.

use super::layer::{Layer, dropout};
use super::{BertConfig, BertInput};
use crate::nn::{EmbeddingConfig, Init, LayerFactory, LayerNormConfig, LinearConfig, Module};
use crate::{Error, Result};
use tch::nn::Path;
use tch::{Kind, Tensor};

/// The encoder. Parameters lie directly under its path: `embeddings.…`, `encoder.layer.{i}.…`, `pooler.dense.…`.
#[derive(Debug)]
pub struct Bert {
    config: BertConfig,
    words: Module,
    positions: Module,
    types: Module,
    norm: Module,
    layers: Vec<Layer>,
    pooler: Option<Module>,
    /// The word table, which a masked-word head shares.
    pub(super) word_table: Tensor,
}

/// Which tokens' hidden states are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// All.
    All,
    /// The first token's only. The last layer then computes queries, feed-forward and norms for that token alone, which
    /// changes no value and saves most of a layer.
    First,
}

impl Bert {
    /// Embeddings, encoder and pooler.
    ///
    /// # Errors
    /// A config outside its range.
    pub fn new(path: &Path, factory: &dyn LayerFactory, config: &BertConfig) -> Result<Self> {
        let mut bert = Self::encoder_only(path, factory, config)?;
        let linear = LinearConfig {
            init: Init::Normal { std: config.initializer_range },
            ..LinearConfig::new(config.hidden_size, config.hidden_size)
        };
        bert.pooler = Some(factory.linear(&(path / "pooler" / "dense"), linear));
        Ok(bert)
    }

    /// Without the pooler, as span and masked-word models have it.
    ///
    /// # Errors
    /// A config outside its range, or a factory whose word table has no `weight`.
    pub fn encoder_only(path: &Path, factory: &dyn LayerFactory, config: &BertConfig) -> Result<Self> {
        config.validate()?;
        let embeddings = path / "embeddings";
        let init = Init::Normal { std: config.initializer_range };
        let table = |name: &str, entries, padding| {
            let table = EmbeddingConfig { padding, init, ..EmbeddingConfig::new(entries, config.hidden_size) };
            factory.embedding(&(&embeddings / name), table)
        };
        let words = table("word_embeddings", config.vocab_size, Some(config.pad_token_id));
        let word_table = (&embeddings / "word_embeddings").get("weight");
        let word_table = word_table.ok_or_else(|| Error::tensor("word_embeddings.weight", "a variable", "none"))?;
        let norm = LayerNormConfig { features: config.hidden_size, eps: config.layer_norm_eps };
        let layers = path / "encoder" / "layer";
        Ok(Self {
            words,
            positions: table("position_embeddings", config.max_position_embeddings, None),
            types: table("token_type_embeddings", config.type_vocab_size, None),
            norm: factory.layer_norm(&(&embeddings / "LayerNorm"), norm),
            layers: (0..config.num_hidden_layers)
                .map(|number| Layer::new(&(&layers / number), factory, config, number))
                .collect(),
            pooler: None,
            word_table,
            config: config.clone(),
        })
    }

    /// Its shape.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Hidden states of the last layer, `[batch, tokens, hidden]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    pub fn hidden(&self, input: &BertInput, train: bool) -> Result<Tensor> {
        self.hidden_rows(input, Rows::All, train)
    }

    /// Hidden states of the last layer for the rows wanted, `[batch, rows, hidden]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    pub fn hidden_rows(&self, input: &BertInput, rows: Rows, train: bool) -> Result<Tensor> {
        let seen = input.checked(&self.config)?;
        let mask = input.additive_mask(self.word_table.kind(), seen.padded);
        let kept = self.kept_layers(train);
        let mut x = self.embed(input, seen.tokens, train);
        for (place, layer) in kept.iter().enumerate() {
            let first_only = rows == Rows::First && place + 1 == kept.len();
            let queries = if first_only { x.narrow(1, 0, 1) } else { x.shallow_clone() };
            x = layer.forward(&queries, &x, mask.as_ref(), train);
        }
        Ok(if rows == Rows::First { x.narrow(1, 0, 1) } else { x })
    }

    /// `tanh(W h + b)` of the first token's hidden state, `[batch, hidden]`.
    ///
    /// # Errors
    /// An input that does not fit the network, or a network without a pooler.
    pub fn pooled(&self, input: &BertInput, train: bool) -> Result<Tensor> {
        self.pool(&self.hidden_rows(input, Rows::First, train)?, train)
    }

    /// The pooler on hidden states already computed.
    ///
    /// # Errors
    /// A network without a pooler.
    pub fn pool(&self, hidden: &Tensor, train: bool) -> Result<Tensor> {
        let pooler = self.pooler.as_ref().ok_or_else(|| Error::setting("pooler", "a network with one", "none"))?;
        Ok(pooler.forward_t(&hidden.select(1, 0), train).tanh())
    }

    fn embed(&self, input: &BertInput, tokens: i64, train: bool) -> Tensor {
        let device = self.word_table.device();
        let positions = self.positions.forward_t(&Tensor::arange(tokens, (Kind::Int64, device)), train);
        let types = match &input.types {
            Some(types) => self.types.forward_t(types, train),
            None => self.types.forward_t(&Tensor::zeros([1], (Kind::Int64, device)), train),
        };
        let sum = self.words.forward_t(&input.ids, train) + (positions + types);
        dropout(self.norm.forward_t(&sum, train), self.config.hidden_dropout_prob, train)
    }

    /// All layers, or in training with LayerDrop those that a coin of libtorch's generator keeps; at least the last.
    fn kept_layers(&self, train: bool) -> Vec<&Layer> {
        if !train || self.config.layer_drop == 0.0 {
            return self.layers.iter().collect();
        }
        let coins = Tensor::rand([self.layers.len() as i64], (Kind::Double, tch::Device::Cpu));
        let kept = |number: usize| coins.double_value(&[number as i64]) >= self.config.layer_drop;
        let last = self.layers.len() - 1;
        let mut chosen: Vec<&Layer> = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            if kept(number) || (number == last && chosen.is_empty()) {
                chosen.push(layer);
            }
        }
        chosen
    }
}
