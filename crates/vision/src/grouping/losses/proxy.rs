//! Losses that compare items with a learned representative of each class.

use super::margin::check_labels;
use super::{MetricLoss, check_finite, check_positive, log_one_plus_sum_exp, masked_mean};
use crate::grouping::embedded::directions;
use crate::grouping::{Embedded, Error, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, nn};

/// What a [`ProxyNca`] looks like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyNcaConfig {
    /// Classes.
    pub classes: i64,
    /// Numbers in an embedding.
    pub dim: i64,
    /// Multiplies squared distances. 1 in the formula.
    pub scale: f64,
    /// Whether the own proxy is among those that the sum runs over. The original leaves it out; libraries often do not.
    pub own_in_sum: bool,
}

impl ProxyNcaConfig {
    /// Scale 1, the own proxy left out, as in the paper.
    pub fn new(classes: i64, dim: i64) -> Self {
        Self { classes, dim, scale: 1.0, own_in_sum: false }
    }
}

/// `−ln(exp(−‖x − p_y‖²) / Σ_{z≠y} exp(−‖x − p_z‖²))` on unit vectors (Movshovitz-Attias et al., arXiv 1703.07464).
#[derive(Debug)]
pub struct ProxyNca {
    config: ProxyNcaConfig,
    /// `[classes, dim]`.
    pub proxies: Tensor,
}

impl ProxyNca {
    /// Creates `proxies` under `path`.
    ///
    /// # Errors
    /// Fewer than two classes, vectors without a number, a scale that is not above 0.
    pub fn new(path: &nn::Path, config: ProxyNcaConfig) -> Result<Self> {
        check_positive("scale", config.scale)?;
        Ok(Self { proxies: proxies(path, config.classes, config.dim)?, config })
    }
}

impl MetricLoss for ProxyNca {
    fn loss(&self, batch: &Embedded, _: Option<&Mined>) -> Result<Tensor> {
        let cosines = to_proxies(batch, &self.proxies)?;
        let logits = (cosines - 1.0) * (2.0 * self.config.scale);
        let own = one_hot(batch, self.config.classes);
        let to_own = logits.where_self(&own, &logits.zeros_like()).sum_dim_intlist(1, false, None::<Kind>);
        let summed = if self.config.own_in_sum { logits } else { logits.masked_fill(&own, f64::NEG_INFINITY) };
        Ok((summed.logsumexp([1_i64].as_slice(), false) - to_own).mean(None::<Kind>))
    }
}

/// What a [`ProxyAnchor`] looks like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyAnchorConfig {
    /// Classes.
    pub classes: i64,
    /// Numbers in an embedding.
    pub dim: i64,
    /// Sharpness α. Published: 32.
    pub alpha: f64,
    /// Margin δ. Published: 0.1.
    pub margin: f64,
}

impl ProxyAnchorConfig {
    /// Published settings.
    pub fn new(classes: i64, dim: i64) -> Self {
        Self { classes, dim, alpha: 32.0, margin: 0.1 }
    }
}

/// Proxies are the anchors (Kim, Kim, Cho and Kwak, arXiv 2003.13911): the mean over proxies with positives in the batch of
/// `ln(1 + Σ_pos exp(−α(s − δ)))`, plus the mean over all proxies of `ln(1 + Σ_neg exp(α(s + δ)))`.
#[derive(Debug)]
pub struct ProxyAnchor {
    config: ProxyAnchorConfig,
    /// `[classes, dim]`.
    pub proxies: Tensor,
}

impl ProxyAnchor {
    /// Creates `proxies` under `path`.
    ///
    /// # Errors
    /// Fewer than two classes, vectors without a number, an α that is not above 0, a margin that is not finite.
    pub fn new(path: &nn::Path, config: ProxyAnchorConfig) -> Result<Self> {
        check_positive("alpha", config.alpha)?;
        check_finite("margin", config.margin)?;
        Ok(Self { proxies: proxies(path, config.classes, config.dim)?, config })
    }
}

impl MetricLoss for ProxyAnchor {
    fn loss(&self, batch: &Embedded, _: Option<&Mined>) -> Result<Tensor> {
        let ProxyAnchorConfig { alpha, margin, classes, .. } = self.config;
        let cosines = to_proxies(batch, &self.proxies)?;
        let own = one_hot(batch, classes);
        let positive = log_one_plus_sum_exp(&((&cosines - margin) * -alpha), &own, 0)?;
        let negative = log_one_plus_sum_exp(&((&cosines + margin) * alpha), &own.logical_not(), 0)?;
        Ok(masked_mean(&positive, &own.any_dim(0, false)) + negative.mean(None::<Kind>))
    }
}

/// Cross-entropy on cosines to one unit vector a class, divided by a temperature (Zhai and Wu, arXiv 1811.12649).
#[derive(Debug)]
pub struct NormalisedSoftmax {
    temperature: f64,
    /// `[classes, dim]`.
    pub proxies: Tensor,
}

impl NormalisedSoftmax {
    /// Creates `proxies` under `path`. The published temperature is 0.05.
    ///
    /// # Errors
    /// Fewer than two classes, vectors without a number, a temperature that is not above 0.
    pub fn new(path: &nn::Path, classes: i64, dim: i64, temperature: f64) -> Result<Self> {
        check_positive("temperature", temperature)?;
        Ok(Self { temperature, proxies: proxies(path, classes, dim)? })
    }
}

impl MetricLoss for NormalisedSoftmax {
    fn loss(&self, batch: &Embedded, _: Option<&Mined>) -> Result<Tensor> {
        let logits = to_proxies(batch, &self.proxies)? / self.temperature;
        let labels = Tensor::from_slice(batch.labels()).to_device(logits.device());
        Ok(logits.f_cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
    }
}

/// Random directions: a normal distribution, Kaiming's for the number of classes as the published code has it.
fn proxies(path: &nn::Path, classes: i64, dim: i64) -> Result<Tensor> {
    if classes < 2 {
        return Err(Error::setting("classes", "at least 2", classes));
    }
    if dim < 1 {
        return Err(Error::setting("dim", "at least 1", dim));
    }
    let stdev = (2.0 / classes as f64).sqrt();
    Ok(path.var("proxies", &[classes, dim], nn::Init::Randn { mean: 0.0, stdev }))
}

/// Cosines `[n, classes]`.
fn to_proxies(batch: &Embedded, proxies: &Tensor) -> Result<Tensor> {
    let (dim, expected) = (batch.dim(), proxies.size()[1]);
    if dim != expected {
        return Err(Error::shape("embeddings", format!("[n, {expected}], as the proxies"), format!("[n, {dim}]")));
    }
    check_labels(batch.labels(), proxies.size()[0])?;
    Ok(directions(batch.anchors())?.matmul(&directions(proxies)?.tr()))
}

/// `[n, classes]`, true at each item's class.
fn one_hot(batch: &Embedded, classes: i64) -> Tensor {
    let device = batch.anchors().device();
    let labels = Tensor::from_slice(batch.labels()).to_device(device);
    labels.unsqueeze(1).eq_tensor(&Tensor::arange(classes, (Kind::Int64, device)).unsqueeze(0))
}
