//! Hard negatives by attributes: the same person, camera or light on the other side of the line.

use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// For every live anchor `i`, `[max over P(i) − min over N(i) + margin]₊` on distances of normalised embeddings.
///
/// `P(i)` holds live samples that differ in every mined attribute; `N(i)` holds attacks that agree in all of them. So
/// what is left to tell `N(i)` from the anchor is liveness, and what is left to be shared with `P(i)` is liveness too.
/// Attacks are no anchors: they are not asked to resemble one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeMiner {
    /// Columns of the attribute table that are mined; none makes it a plain hardest-triplet loss.
    pub keys: Vec<i64>,
    /// How much farther a negative should be, finite and at least 0. Default 0.3.
    pub margin: f64,
}

impl Default for AttributeMiner {
    fn default() -> Self {
        Self { keys: vec![0], margin: 0.3 }
    }
}

/// How many anchors took part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiningStats {
    /// Live samples in the batch.
    pub live: i64,
    /// Of these, with a positive and a negative.
    pub anchors: i64,
    /// Of these, with a loss above zero.
    pub active: i64,
}

impl AttributeMiner {
    /// The mean over anchors (0 without any) of embeddings `[batch, features]`, labels `[batch]` (1 live, 0 attack) and
    /// whole-numbered attributes `[batch, columns]`.
    ///
    /// # Errors
    /// [`Error::BadShape`] for tables that do not fit one another or have no row, [`Error::BadParam`] for a column that
    /// does not exist or a margin out of range.
    pub fn loss(&self, embedding: &Tensor, live: &Tensor, attributes: &Tensor) -> Result<(Tensor, MiningStats)> {
        let batch = live.size().first().copied().unwrap_or(0);
        if live.dim() != 1
            || batch == 0
            || embedding.dim() != 2
            || embedding.size()[0] != batch
            || attributes.dim() != 2
            || attributes.size()[0] != batch
        {
            return Err(Error::BadShape {
                what: "embeddings, labels and attributes",
                expected: "[batch, features], [batch] and [batch, columns], at least one row".into(),
                found: format!("{:?}, {:?} and {:?}", embedding.size(), live.size(), attributes.size()),
            });
        }
        if let Some(&key) = self.keys.iter().find(|key| !(0..attributes.size()[1]).contains(*key)) {
            return Err(Error::BadParam { name: "keys", expected: "columns of the attributes", value: key as f64 });
        }
        if !(self.margin >= 0.0 && self.margin.is_finite()) {
            return Err(Error::BadParam { name: "margin", expected: "finite and at least 0", value: self.margin });
        }
        let unit =
            embedding / (embedding.square().sum_dim_intlist([1_i64].as_slice(), true, embedding.kind()) + 1e-12).sqrt();
        let gaps = unit.unsqueeze(0) - unit.unsqueeze(1);
        let distance = (gaps.square().sum_dim_intlist([2_i64].as_slice(), false, unit.kind()) + 1e-12).sqrt();

        let is_live = live.gt(0.5);
        let mut agree = Tensor::ones([batch, batch], (Kind::Bool, live.device()));
        let mut differ = Tensor::eye(batch, (Kind::Bool, live.device())).logical_not();
        for &key in &self.keys {
            let column = attributes.select(1, key);
            let same = column.unsqueeze(0).eq_tensor(&column.unsqueeze(1));
            agree = agree.logical_and(&same);
            differ = differ.logical_and(&same.logical_not());
        }
        let positive = differ.logical_and(&is_live.unsqueeze(0));
        let negative = agree.logical_and(&is_live.logical_not().unsqueeze(0));
        let farthest = distance.masked_fill(&positive.logical_not(), f64::NEG_INFINITY).amax([1_i64].as_slice(), false);
        let nearest = distance.masked_fill(&negative.logical_not(), f64::INFINITY).amin([1_i64].as_slice(), false);
        let usable = is_live.logical_and(&positive.any_dim(1, false)).logical_and(&negative.any_dim(1, false));
        let anchors = usable.sum(Kind::Int64).int64_value(&[]);
        let losses = (farthest.masked_select(&usable) - nearest.masked_select(&usable) + self.margin).relu();
        let active = losses.gt(0.0).sum(Kind::Int64).int64_value(&[]);
        let total = losses.sum(embedding.kind()) / anchors.max(1) as f64;
        Ok((total, MiningStats { live: is_live.sum(Kind::Int64).int64_value(&[]), anchors, active }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two live and two attacks, of keys A and B, on the unit circle.
    fn batch() -> (Tensor, Tensor, Tensor) {
        let embedding = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0]).view([4, 2]);
        (embedding, Tensor::from_slice(&[1.0_f64, 1.0, 0.0, 0.0]), Tensor::from_slice(&[0_i64, 1, 0, 1]).view([4, 1]))
    }

    #[test]
    fn anchors_worked_by_hand() {
        let (embedding, live, attributes) = batch();
        let (loss, stats) = AttributeMiner::default().loss(&embedding, &live, &attributes).unwrap();
        // √2 − √.8 + .3 = .819786 and √2 − √2 + .3 = .3.
        assert!((loss.double_value(&[]) - 0.559893).abs() < 1e-6, "{loss:?}");
        assert_eq!(stats, MiningStats { live: 2, anchors: 2, active: 2 });
        let plain = AttributeMiner { keys: Vec::new(), margin: 0.3 };
        // The second anchor's nearest attack of all: √2 − √.4 + .3 = 1.081758.
        let (loss, _) = plain.loss(&embedding, &live, &attributes).unwrap();
        assert!((loss.double_value(&[]) - 0.950772).abs() < 1e-6, "{loss:?}");
    }

    #[test]
    fn anchors_without_a_partner_are_skipped_and_counted() {
        let (embedding, live, _) = batch();
        let alone = Tensor::from_slice(&[0_i64, 1, 2, 1]).view([4, 1]);
        let (loss, stats) = AttributeMiner::default().loss(&embedding, &live, &alone).unwrap();
        assert_eq!((stats.live, stats.anchors), (2, 1));
        assert!((loss.double_value(&[]) - 0.3).abs() < 1e-6);
        let nobody = Tensor::zeros([4], (Kind::Double, tch::Device::Cpu));
        let (loss, stats) = AttributeMiner::default().loss(&embedding, &nobody, &alone).unwrap();
        assert_eq!((loss.double_value(&[]), stats.anchors), (0.0, 0));
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let (embedding, live, attributes) = batch();
        // Away from ties.
        let embedding = embedding + Tensor::from_slice(&[0.1, 0.05, -0.07, 0.2, 0.02, -0.1, 0.03, 0.11]).view([4, 2]);
        let value = |e: &Tensor| AttributeMiner::default().loss(e, &live, &attributes).unwrap().0;
        let at = embedding.copy().set_requires_grad(true);
        value(&at).backward();
        for which in 0..8 {
            let moved = |by: f64| {
                let shifted = embedding.copy();
                let _ = shifted.view([8]).get(which).g_add_scalar_(by);
                value(&shifted).double_value(&[])
            };
            let (expected, found) = ((moved(1e-6) - moved(-1e-6)) / 2e-6, at.grad().view([8]).double_value(&[which]));
            assert!((expected - found).abs() < 1e-5 * expected.abs().max(1.0), "{found} against {expected}");
        }
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let (embedding, live, attributes) = batch();
        let short = AttributeMiner::default().loss(&embedding.narrow(0, 0, 3), &live, &attributes);
        assert!(matches!(short, Err(Error::BadShape { .. })));
        let single = AttributeMiner::default().loss(&embedding, &live.get(0), &attributes);
        assert!(matches!(single, Err(Error::BadShape { .. })));
        let none = |table: &Tensor| table.narrow(0, 0, 0);
        let empty = AttributeMiner::default().loss(&none(&embedding), &none(&live), &none(&attributes));
        assert!(matches!(empty, Err(Error::BadShape { .. })));
        let absent = AttributeMiner { keys: vec![4], margin: 0.3 }.loss(&embedding, &live, &attributes);
        assert!(matches!(absent, Err(Error::BadParam { name: "keys", .. })));
    }

    #[test]
    fn margins_that_are_none_are_refused() {
        let (embedding, live, attributes) = batch();
        for margin in [-0.1, f64::NAN, f64::INFINITY] {
            let miner = AttributeMiner { margin, ..AttributeMiner::default() };
            let refused = miner.loss(&embedding, &live, &attributes).unwrap_err().to_string();
            assert_eq!(refused, format!("`margin`: expected finite and at least 0, found {margin}"));
        }
        let closest = AttributeMiner { margin: 0.0, ..AttributeMiner::default() };
        assert!(closest.loss(&embedding, &live, &attributes).is_ok());
    }
}
