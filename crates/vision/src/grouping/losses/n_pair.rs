//! N-pair loss.

use super::{MetricLoss, check_finite};
use crate::grouping::{Embedded, Error, Mined, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Reduction, Tensor};

/// One anchor and one positive of every class, the positives of the other classes as negatives:
/// `−ln(exp(a·p) / (exp(a·p) + Σ_n exp(a·n)))`, averaged over classes (Sohn 2016). What a miner chose is ignored.
///
/// Inner products are taken as they are: on unit vectors they lie in `[−1, 1]` and the loss has a floor well above 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NPair {
    /// Weight of the mean squared length of the embeddings, which keeps unnormalised ones from growing. The original uses
    /// one; it is constant, hence 0 by default, on unit vectors.
    pub length_penalty: f64,
}

impl MetricLoss for NPair {
    fn loss(&self, batch: &Embedded, _: Option<&Mined>) -> Result<Tensor> {
        check_finite("length_penalty", self.length_penalty)?;
        let references = batch.reference_labels();
        let mut chosen = BTreeMap::new();
        for (anchor, &label) in batch.labels().iter().enumerate() {
            if chosen.contains_key(&label) {
                continue;
            }
            if let Some(positive) = (0..references.len()).find(|&other| batch.is_positive(anchor, other)) {
                chosen.insert(label, (anchor as i64, positive as i64));
            }
        }
        if chosen.len() < 2 {
            let reason = "fewer than two classes have an anchor and a positive";
            return Err(Error::NothingMined { kind: "N-pair", reason });
        }
        let (anchors, positives): (Vec<i64>, Vec<i64>) = chosen.into_values().unzip();
        let device = batch.anchors().device();
        let rows = |all: &Tensor, picks: &[i64]| all.index_select(0, &Tensor::from_slice(picks).to_device(device));
        let logits = rows(batch.anchors(), &anchors).matmul(&rows(batch.references(), &positives).tr());
        let own = Tensor::arange(anchors.len() as i64, (Kind::Int64, device));
        let loss = logits.f_cross_entropy_loss(&own, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        if self.length_penalty == 0.0 {
            return Ok(loss);
        }
        let lengths = batch.anchors().square().sum_dim_intlist(-1, false, None::<Kind>).mean(None::<Kind>);
        Ok(loss + lengths * self.length_penalty)
    }
}
