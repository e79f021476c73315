//! Losses that pull items of a class together and push classes apart.
//!
//! All are a [`MetricLoss`]. Some compare items of the batch ([`Contrastive`], [`Triplet`], [`Margin`],
//! [`MultiSimilarity`], [`BinomialDeviance`], [`NPair`], [`Lifted`]), some own a learned representative of each class
//! ([`ProxyNca`], [`ProxyAnchor`], [`NormalisedSoftmax`]). Below s is a cosine and D a Euclidean distance.

mod contrastive;
mod deviance;
mod lifted;
mod margin;
mod multi_similarity;
mod n_pair;
mod proxy;
mod triplet;

pub use contrastive::Contrastive;
pub use deviance::BinomialDeviance;
pub use lifted::Lifted;
pub use margin::{Margin, MarginConfig};
pub use multi_similarity::MultiSimilarity;
pub use n_pair::NPair;
pub use proxy::{NormalisedSoftmax, ProxyAnchor, ProxyAnchorConfig, ProxyNca, ProxyNcaConfig};
pub use triplet::Triplet;

use super::{Embedded, Error, Mined, Result};
use core_tensor::autograd::with_backward;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// A loss on embeddings with class labels.
pub trait MetricLoss: std::fmt::Debug {
    /// A scalar. `mined` says which pairs or triplets count, all of them by default; losses with proxies have none and
    /// ignore it.
    ///
    /// # Errors
    /// Nothing to compare, a direction of a vector without one, a label outside a table of classes.
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor>;
}

/// A setting that must be a number.
fn check_finite(setting: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::setting(setting, "finite", value)) }
}

/// A sharpness: what it multiplies must count, and it is divided by.
fn check_positive(setting: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Error::setting(setting, "finite and above 0", value)) }
}

/// Over what a sum of hinges is averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Averaging {
    /// Every pair or triplet.
    All,
    /// Those that cost something, so that the gradient does not vanish as more and more are satisfied.
    #[default]
    NonZero,
}

impl Averaging {
    /// The mean of non-negative costs where `counted` (all when `None`); 0 of nothing.
    fn mean(self, costs: &Tensor, counted: Option<&Tensor>) -> Tensor {
        let kind = costs.kind();
        let costs = match counted {
            Some(mask) => costs * mask,
            None => costs.shallow_clone(),
        };
        let count = match (self, counted) {
            (Self::NonZero, _) => costs.detach().gt(0.0).sum(kind).clamp_min(1.0),
            (Self::All, Some(mask)) => mask.sum(kind).clamp_min(1.0),
            (Self::All, None) => Tensor::from(costs.numel().max(1) as f64).to_kind(kind).to_device(costs.device()),
        };
        costs.sum(kind) / count
    }
}

/// `ln(1 + Σ exp(logit))` over the entries of `mask` along `dim`; 0 where there is none. Its gradient is each entry's share of what
/// is in the logarithm, kept from the way forward.
fn log_one_plus_sum_exp(logits: &Tensor, mask: &Tensor, dim: i64) -> Result<Tensor> {
    let (shares, value) = no_grad(|| {
        let kept = logits.f_masked_fill(&mask.f_logical_not()?, f64::NEG_INFINITY)?;
        let largest = kept.f_amax([dim], true)?.f_clamp_min(0.0)?;
        let mut shares = kept.f_sub(&largest)?;
        let _ = shares.f_exp_()?;
        let total = shares.f_sum_dim_intlist([dim].as_slice(), true, None::<Kind>)? + (-&largest).f_exp()?;
        let value = (largest + total.f_log()?).f_squeeze_dim(dim)?;
        Ok::<_, Error>((shares.f_div_(&total)?, value))
    })?;
    Ok(with_backward(&[logits], &value, move |gradient| vec![Some(gradient.unsqueeze(dim) * &shares)])?)
}

/// The mean of `values` where `mask`, 0 of nothing.
fn masked_mean(values: &Tensor, mask: &Tensor) -> Tensor {
    let kind = values.kind();
    values.where_self(mask, &values.zeros_like()).sum(kind) / mask.sum(kind).clamp_min(1.0)
}

#[cfg(test)]
fn scalar(tensor: &Tensor) -> f64 {
    tensor.to_kind(tch::Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests;
