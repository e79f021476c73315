//! What a BERT reads.

use super::BertConfig;
use crate::data::ToDevice;
use crate::text::TokenBatch;
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Token sequences, all of one length.
#[derive(Debug)]
pub struct BertInput {
    /// `[batch, tokens]`, `i64`: word pieces.
    pub ids: Tensor,
    /// `[batch, tokens]`, `i64`: the segment of each token; all 0 when absent.
    pub types: Option<Tensor>,
    /// `[batch, tokens]`, `i64` or `bool`: 1 for a token, 0 for padding; all 1 when absent.
    pub mask: Option<Tensor>,
}

impl ToDevice for BertInput {
    fn to_device(self, device: Device) -> Self {
        let to = |tensor: Tensor| tensor.to_device(device);
        Self { ids: to(self.ids), types: self.types.map(to), mask: self.mask.map(to) }
    }
}

impl BertInput {
    /// One segment, no padding.
    pub fn new(ids: Tensor) -> Self {
        Self { ids, types: None, mask: None }
    }

    /// With segments.
    #[must_use]
    pub fn with_types(self, types: Tensor) -> Self {
        Self { types: Some(types), ..self }
    }

    /// With padding.
    #[must_use]
    pub fn with_mask(self, mask: Tensor) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// `[batch, tokens]`, once everything fits the network.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming the tensor: another kind or shape, a sequence longer than the position table, a word or
    /// segment outside its table.
    pub fn check(&self, config: &BertConfig) -> Result<(i64, i64)> {
        let shape = self.ids.size();
        let &[batch, tokens] = shape.as_slice() else {
            return Err(Error::tensor("ids", "[batch, tokens]", format!("{shape:?}")));
        };
        let positions = config.max_position_embeddings;
        if batch < 1 || !(1..=positions).contains(&tokens) {
            return Err(Error::tensor(
                "ids",
                format!("1 to {positions} tokens (the position table)"),
                format!("{shape:?}"),
            ));
        }
        in_table("ids", &self.ids, &shape, config.vocab_size)?;
        if let Some(types) = &self.types {
            in_table("types", types, &shape, config.type_vocab_size)?;
        }
        if let Some(mask) = &self.mask {
            in_table(
                "mask",
                &mask.to_kind(if mask.kind() == Kind::Bool { Kind::Int64 } else { mask.kind() }),
                &shape,
                2,
            )?;
        }
        Ok((batch, tokens))
    }

    /// What is added to attention scores, `[batch, 1, 1, tokens]`: 0 for a token, the least finite number of `kind` for
    /// padding. Nothing when there is no padding.
    pub(super) fn additive_mask(&self, kind: Kind) -> Option<Tensor> {
        let mask = self.mask.as_ref()?;
        if mask.to_kind(Kind::Int64).min().int64_value(&[]) == 1 {
            return None;
        }
        // −∞ would make NaN of 0 · −∞ here, and of a row that is all padding.
        let least = match kind {
            Kind::Half => -65_504.0,
            // −(2 − 2⁻⁷) · 2¹²⁷.
            Kind::BFloat16 => -3.389_531_389_251_535_5e38,
            _ => f64::from(f32::MIN),
        };
        let padding = mask.eq(0).to_kind(kind) * least;
        Some(padding.unsqueeze(1).unsqueeze(1))
    }
}

impl From<&TokenBatch> for BertInput {
    /// The same tensors, not copied.
    fn from(batch: &TokenBatch) -> Self {
        Self {
            ids: batch.ids.shallow_clone(),
            types: Some(batch.types.shallow_clone()),
            mask: Some(batch.mask.shallow_clone()),
        }
    }
}

/// Whether `tensor` is `i64` of `shape` with numbers below `entries`.
pub(in crate::networks) fn in_table(name: &str, tensor: &Tensor, shape: &[i64], entries: i64) -> Result<()> {
    if tensor.kind() != Kind::Int64 || tensor.size() != shape {
        let found = format!("{:?} {:?}", tensor.kind(), tensor.size());
        return Err(Error::tensor(name, format!("Int64 {shape:?}"), found));
    }
    let (low, high) = (tensor.min().int64_value(&[]), tensor.max().int64_value(&[]));
    if low < 0 || high >= entries {
        let found = if low < 0 { low } else { high };
        return Err(Error::tensor(name, format!("numbers in [0, {entries})"), format!("{found}")));
    }
    Ok(())
}
