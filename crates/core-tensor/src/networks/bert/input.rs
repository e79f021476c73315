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
        let Checked { batch, tokens, .. } = self.checked(config)?;
        Ok((batch, tokens))
    }

    /// [`check`](Self::check), and what it saw, with one transfer off the device.
    pub(super) fn checked(&self, config: &BertConfig) -> Result<Checked> {
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
        let ones =
            |mask: &Tensor| if mask.kind() == Kind::Bool { mask.to_kind(Kind::Int64) } else { mask.shallow_clone() };
        let all = [
            ("ids", Some(self.ids.shallow_clone()), config.vocab_size),
            ("types", self.types.as_ref().map(Tensor::shallow_clone), config.type_vocab_size),
            ("mask", self.mask.as_ref().map(ones), 2),
        ];
        let (mut fitting, mut misfit) = (Vec::new(), Ok(()));
        for (name, tensor, entries) in all {
            let Some(tensor) = tensor else { continue };
            misfit = integers(name, &tensor, &shape);
            if misfit.is_err() {
                break;
            }
            fitting.push((name, tensor, entries));
        }
        let tensors: Vec<&Tensor> = fitting.iter().map(|(_, tensor, _)| tensor).collect();
        let mut padded = false;
        // Before the misfit: what comes first is named first.
        for ((name, _, entries), (low, high)) in fitting.iter().zip(extremes(&tensors)?) {
            within(name, (low, high), 0, *entries)?;
            padded |= *name == "mask" && low == 0;
        }
        misfit?;
        Ok(Checked { batch, tokens, padded })
    }

    /// What is added to attention scores, `[batch, 1, 1, tokens]`: 0 for a token, the least finite number of `kind` for
    /// padding. Nothing unless it is [`padded`](Checked::padded).
    pub(super) fn additive_mask(&self, kind: Kind, padded: bool) -> Option<Tensor> {
        let mask = self.mask.as_ref().filter(|_| padded)?;
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

/// What an input turned out to be.
#[derive(Debug)]
pub(super) struct Checked {
    batch: i64,
    pub(super) tokens: i64,
    /// Whether its mask hides something.
    pub(super) padded: bool,
}

/// Whether `tensor` is `i64` of `shape` with numbers below `entries`.
pub(in crate::networks) fn in_table(name: &str, tensor: &Tensor, shape: &[i64], entries: i64) -> Result<()> {
    integers(name, tensor, shape)?;
    within(name, extremes(&[tensor])?[0], 0, entries)
}

/// Whether `tensor` is `i64` of `shape`.
fn integers(name: &str, tensor: &Tensor, shape: &[i64]) -> Result<()> {
    if tensor.kind() != Kind::Int64 || tensor.size() != shape {
        let found = format!("{:?} {:?}", tensor.kind(), tensor.size());
        return Err(Error::tensor(name, format!("Int64 {shape:?}"), found));
    }
    Ok(())
}

/// The smallest and the largest of each `i64` tensor, none empty, with one transfer: a device has to finish for each.
pub(super) fn extremes(tensors: &[&Tensor]) -> Result<Vec<(i64, i64)>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let device = first.device();
    let both = tensors.iter().flat_map(|tensor| [tensor.min(), tensor.max()]);
    let both: Vec<Tensor> = both.map(|value| value.to_device(device)).collect();
    let values = Vec::<i64>::try_from(Tensor::f_stack(&both, 0)?)?;
    Ok(values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Whether [`extremes`] lie in `[low, end)`.
pub(super) fn within(name: &str, (smallest, largest): (i64, i64), low: i64, end: i64) -> Result<()> {
    if smallest < low || largest >= end {
        let found = if smallest < low { smallest } else { largest };
        return Err(Error::tensor(name, format!("numbers in [{low}, {end})"), format!("{found}")));
    }
    Ok(())
}
