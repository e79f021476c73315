//! What stands on top of the encoder.

use super::input::{extremes, within};
use super::layer::dropout;
use super::{Bert, BertConfig, BertInput};
use crate::nn::{Init, LayerFactory, LayerNormConfig, LinearConfig, Module, record};
use crate::workload::Operator;
use crate::{Error, Result};
use tch::nn::{Init as TchInit, Path};
use tch::{Kind, Reduction, Tensor};

pub use crate::text::masked::IGNORED;

/// Classes of sentences or sentence pairs, or one number: parameters under `bert` and `classifier`.
#[derive(Debug)]
pub struct BertForSequenceClassification {
    bert: Bert,
    classifier: Module,
    labels: i64,
}

impl BertForSequenceClassification {
    /// `labels` classes; 1 makes it a regression.
    ///
    /// # Errors
    /// A config outside its range, or no label.
    pub fn new(path: &Path, factory: &dyn LayerFactory, config: &BertConfig, labels: i64) -> Result<Self> {
        if labels < 1 {
            return Err(Error::setting("labels", "at least 1", labels));
        }
        let bert = Bert::new(&(path / "bert"), factory, config)?;
        let classifier = linear(&(path / "classifier"), factory, config, labels);
        Ok(Self { bert, classifier, labels })
    }

    /// The encoder.
    pub fn bert(&self) -> &Bert {
        &self.bert
    }

    /// Number of classes; 1 for a regression.
    pub fn labels(&self) -> i64 {
        self.labels
    }

    /// `[batch, labels]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    pub fn forward(&self, input: &BertInput, train: bool) -> Result<Tensor> {
        let pooled = self.bert.pooled(input, train)?;
        let pooled = dropout(pooled, self.bert.config().hidden_dropout_prob, train);
        Ok(self.classifier.forward_t(&pooled, train))
    }

    /// Mean cross-entropy of classes (`i64`), or mean squared error of numbers (`f32`) for a regression.
    ///
    /// # Errors
    /// Logits of another shape, targets of another kind or length, or classes outside the range.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let size = logits.size();
        let batch = match *size.as_slice() {
            [batch, labels] if batch > 0 && labels == self.labels => batch,
            _ => return Err(Error::tensor("logits", format!("[batch, {}]", self.labels), format!("{size:?}"))),
        };
        check_labels("targets", targets, if self.labels == 1 { Kind::Float } else { Kind::Int64 }, batch)?;
        if self.labels == 1 {
            return Ok(logits.squeeze_dim(1).f_mse_loss(targets, Reduction::Mean)?);
        }
        check_classes("targets", targets, 0, self.labels)?;
        Ok(logits.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, IGNORED, 0.0)?)
    }
}

/// Answer spans in a passage: parameters under `bert` (no pooler) and `qa_outputs`.
#[derive(Debug)]
pub struct BertForQuestionAnswering {
    bert: Bert,
    outputs: Module,
}

impl BertForQuestionAnswering {
    /// # Errors
    /// A config outside its range.
    pub fn new(path: &Path, factory: &dyn LayerFactory, config: &BertConfig) -> Result<Self> {
        let bert = Bert::encoder_only(&(path / "bert"), factory, config)?;
        Ok(Self { bert, outputs: linear(&(path / "qa_outputs"), factory, config, 2) })
    }

    /// The encoder.
    pub fn bert(&self) -> &Bert {
        &self.bert
    }

    /// Logits of each token being the answer's first, and its last: two of `[batch, tokens]`.
    ///
    /// # Errors
    /// An input that does not fit the network.
    pub fn forward(&self, input: &BertInput, train: bool) -> Result<[Tensor; 2]> {
        let both = self.outputs.forward_t(&self.bert.hidden(input, train)?, train);
        Ok([both.select(2, 0), both.select(2, 1)])
    }

    /// The mean of the two cross-entropies. Positions at or beyond the end of the sequence enter no loss.
    ///
    /// # Errors
    /// Logits of another shape, positions of another kind or length, negative ones, or none within the sequence.
    pub fn loss(&self, [start, end]: [&Tensor; 2], [first, last]: [&Tensor; 2]) -> Result<Tensor> {
        let one = |name: &str, logits: &Tensor, positions: &Tensor| -> Result<Tensor> {
            let size = logits.size();
            let (batch, tokens) = match *size.as_slice() {
                [batch, tokens] if batch > 0 && tokens > 0 => (batch, tokens),
                _ => return Err(Error::tensor(format!("{name}'s logits"), "[batch, tokens]", format!("{size:?}"))),
            };
            check_labels(name, positions, Kind::Int64, batch)?;
            let (nearest, furthest) = extremes(&[positions])?[0];
            within(name, (nearest, furthest), 0, i64::MAX)?;
            // The mean over no position is NaN.
            if nearest >= tokens {
                return Err(Error::tensor(name, format!("a position below {tokens}"), "none"));
            }
            let positions = positions.clamp_max(tokens);
            Ok(logits.f_cross_entropy_loss(&positions, None::<Tensor>, Reduction::Mean, tokens, 0.0)?)
        };
        Ok((one("first", start, first)? + one("last", end, last)?) / 2.0)
    }
}

/// Masked words and, with a pooler, next sentences: parameters under `bert` and `cls`. The decoder's weight is the word
/// table itself.
#[derive(Debug)]
pub struct BertForPreTraining {
    bert: Bert,
    transform: Module,
    norm: Module,
    decoder_bias: Tensor,
    next: Option<Module>,
}

/// The two parts of the pre-training loss.
#[derive(Debug)]
pub struct PreTrainingLosses {
    /// Mean cross-entropy of the masked words, in nats.
    pub masked_words: Tensor,
    /// Mean cross-entropy of "does the second sentence follow the first".
    pub next_sentence: Option<Tensor>,
}

impl BertForPreTraining {
    /// With masked words only, or with next sentences too.
    ///
    /// # Errors
    /// A config outside its range.
    pub fn new(path: &Path, factory: &dyn LayerFactory, config: &BertConfig, next_sentence: bool) -> Result<Self> {
        let root = path / "bert";
        let bert = match next_sentence {
            true => Bert::new(&root, factory, config)?,
            false => Bert::encoder_only(&root, factory, config)?,
        };
        let predictions = path / "cls" / "predictions";
        let transform = &predictions / "transform";
        let norm = LayerNormConfig { features: config.hidden_size, eps: config.layer_norm_eps };
        Ok(Self {
            bert,
            transform: linear(&(&transform / "dense"), factory, config, config.hidden_size),
            norm: factory.layer_norm(&(&transform / "LayerNorm"), norm),
            decoder_bias: predictions.var("bias", &[config.vocab_size], TchInit::Const(0.0)),
            next: next_sentence.then(|| linear(&(path / "cls" / "seq_relationship"), factory, config, 2)),
        })
    }

    /// The encoder.
    pub fn bert(&self) -> &Bert {
        &self.bert
    }

    /// Word logits from hidden states `[…, hidden]`: `[…, vocabulary]`.
    pub fn words(&self, hidden: &Tensor, train: bool) -> Tensor {
        let transformed = self.transform.forward_t(hidden, train).gelu("none");
        let transformed = self.norm.forward_t(&transformed, train);
        record("cls.predictions.decoder", || {
            let rows = transformed.size().iter().rev().skip(1).product::<i64>() as u64;
            let [out_features, in_features] = [0, 1].map(|axis| self.bert.word_table.size()[axis] as u64);
            Operator::Linear { in_features, out_features, rows }
        });
        transformed.linear(&self.bert.word_table, Some(&self.decoder_bias))
    }

    /// Word logits of every token, `[batch, tokens, vocabulary]`, and next-sentence logits `[batch, 2]` (0: it follows).
    ///
    /// # Errors
    /// An input that does not fit the network.
    pub fn forward(&self, input: &BertInput, train: bool) -> Result<(Tensor, Option<Tensor>)> {
        let hidden = self.bert.hidden(input, train)?;
        Ok((self.words(&hidden, train), self.next_logits(&hidden, train)?))
    }

    /// The losses, from word logits of the masked tokens alone: `labels` (`[batch, tokens]`) is a word, or
    /// [`IGNORED`]. `next` (`[batch]`) is 0 where the second sentence follows, 1 where it does not.
    ///
    /// # Errors
    /// An input, labels or `next` that do not fit, or a batch without any masked word.
    pub fn losses(
        &self,
        input: &BertInput,
        labels: &Tensor,
        next: Option<&Tensor>,
        train: bool,
    ) -> Result<PreTrainingLosses> {
        if labels.size() != input.ids.size() || labels.kind() != Kind::Int64 {
            let found = format!("{:?} {:?}", labels.kind(), labels.size());
            return Err(Error::tensor("labels", format!("Int64 {:?}", input.ids.size()), found));
        }
        let flat = labels.reshape([-1]);
        let places = flat.not_equal(IGNORED).nonzero().squeeze_dim(1);
        if places.numel() == 0 {
            return Err(Error::tensor("labels", "a masked word", "none"));
        }
        let targets = flat.index_select(0, &places);
        check_classes("labels", &targets, 0, self.bert.config().vocab_size)?;
        let hidden = self.bert.hidden(input, train)?;
        let masked = hidden.view([-1, self.bert.config().hidden_size]).index_select(0, &places);
        let cross_entropy = |logits: &Tensor, targets: &Tensor| {
            logits.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, IGNORED, 0.0)
        };
        let masked_words = cross_entropy(&self.words(&masked, train), &targets)?;
        let next_sentence = match (next, self.next_logits(&hidden, train)?) {
            (Some(next), Some(logits)) => {
                check_labels("next", next, Kind::Int64, logits.size()[0])?;
                check_classes("next", next, 0, 2)?;
                Some(cross_entropy(&logits, next)?)
            }
            (Some(_), None) => return Err(Error::setting("next_sentence", "a network built with it", "none")),
            (None, _) => None,
        };
        Ok(PreTrainingLosses { masked_words, next_sentence })
    }

    fn next_logits(&self, hidden: &Tensor, train: bool) -> Result<Option<Tensor>> {
        let Some(next) = &self.next else { return Ok(None) };
        Ok(Some(next.forward_t(&self.bert.pool(hidden, train)?, train)))
    }
}

fn linear(path: &Path, factory: &dyn LayerFactory, config: &BertConfig, outputs: i64) -> Module {
    let init = Init::Normal { std: config.initializer_range };
    factory.linear(path, LinearConfig { init, ..LinearConfig::new(config.hidden_size, outputs) })
}

fn check_labels(name: &str, labels: &Tensor, kind: Kind, batch: i64) -> Result<()> {
    if labels.size() != [batch] || labels.kind() != kind {
        let found = format!("{:?} {:?}", labels.kind(), labels.size());
        return Err(Error::tensor(name, format!("{kind:?} [{batch}]"), found));
    }
    Ok(())
}

fn check_classes(name: &str, labels: &Tensor, low: i64, end: i64) -> Result<()> {
    within(name, extremes(&[labels])?[0], low, end)
}
