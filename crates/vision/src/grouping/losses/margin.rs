//! Margin loss with a learned boundary for each class.

use super::{MetricLoss, check_finite};
use crate::grouping::{Embedded, Error, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

/// What a [`Margin`] looks like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarginConfig {
    /// Half the width of the strip around the boundary that costs something. Published: 0.2.
    #[serde(default = "margin")]
    pub margin: f64,
    /// Where every boundary starts. Published: 1.2.
    #[serde(default = "beta")]
    pub beta: f64,
    /// Classes, each with a boundary of its own.
    pub classes: i64,
    /// Whether boundaries are learned. The published recipe learns them at five times the rate of the weights, without
    /// decay.
    #[serde(default = "yes")]
    pub learned: bool,
}

fn margin() -> f64 {
    0.2
}

fn beta() -> f64 {
    1.2
}

fn yes() -> bool {
    true
}

impl MarginConfig {
    /// Published settings for these classes.
    pub fn new(classes: i64) -> Self {
        Self { margin: margin(), beta: beta(), classes, learned: true }
    }
}

/// A boundary β between near and far, learned for the anchor's class y (Wu, Manmatha, Smola and Krähenbühl,
/// arXiv 1706.07567):
///
/// ```text
/// pos = max(0, D_ap − β_y + m)      neg = max(0, β_y − D_an + m)
/// loss = Σ (pos + neg) / #{costs above 0, positive and negative counted apart}
/// ```
///
/// Made for triplets of the [`DistanceWeighted`](crate::grouping::DistanceWeighted) miner. One instance a group gives each
/// group boundaries of its own.
#[derive(Debug)]
pub struct Margin {
    config: MarginConfig,
    /// `[classes]`.
    pub beta: Tensor,
}

impl Margin {
    /// Creates `beta` under `path`.
    ///
    /// # Errors
    /// No class, a margin that is negative or not finite, a boundary that is not finite.
    pub fn new(path: &nn::Path, config: MarginConfig) -> Result<Self> {
        if config.classes < 1 {
            return Err(Error::setting("classes", "at least 1", config.classes));
        }
        if !(config.margin >= 0.0 && config.margin.is_finite()) {
            return Err(Error::setting("margin", "finite and at least 0", config.margin));
        }
        check_finite("beta", config.beta)?;
        let shape = [config.classes];
        let beta = if config.learned {
            path.var("beta", &shape, nn::Init::Const(config.beta))
        } else {
            let mut fixed = path.zeros_no_train("beta", &shape);
            fixed.fill_(config.beta)
        };
        Ok(Self { config, beta })
    }
}

impl MetricLoss for Margin {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_labels(batch.labels(), self.config.classes)?;
        let triplets = batch.triplets(mined)?;
        let (positive, negative) = triplets.pick(&batch.distances());
        let beta = self.beta.index_select(0, &triplets.anchor_labels);
        let near = (positive - &beta + self.config.margin).relu();
        let far = (beta - negative + self.config.margin).relu();
        let kind = near.kind();
        let count = |costs: &Tensor| costs.detach().gt(0.0).sum(Kind::Int64);
        let counted = (count(&near) + count(&far)).clamp_min(1).to_kind(kind);
        Ok((near.sum(kind) + far.sum(kind)) / counted)
    }
}

/// Refuses labels outside a table of classes.
pub(super) fn check_labels(labels: &[i64], classes: i64) -> Result<()> {
    match labels.iter().position(|label| !(0..classes).contains(label)) {
        Some(position) => Err(Error::Label { label: labels[position], position, classes }),
        None => Ok(()),
    }
}
