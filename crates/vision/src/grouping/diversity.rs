//! The loss that keeps groups from becoming copies of each other.

use super::{Error, GroupEmbedding, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Two groups of one image are a pair that should be dissimilar, by binomial deviance:
///
/// ```text
/// L_div = 1/(G−1) · Σ_{i<j} mean over images of ln(1 + exp(α · Cₙ · (cos(e_i, e_j) − μ)))
/// ```
///
/// The factor is `1/(G−1)`, not one over the number of pairs, so it is G/2 times the mean over pairs. It is 0 for one
/// group, and practically 0 once cosines are below 0.4: groups are asked to differ, not to be orthogonal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiversityConfig {
    /// Its weight λ in the total loss. Published: 0.01 to 0.03 by data set; what is right depends on the loss beside it.
    pub weight: f64,
    /// Slope. Published: 2.
    pub alpha: f64,
    /// The cosine at which the slope is half its steepest. Published: 0.5.
    pub mu: f64,
    /// Cost of a negative pair. Published: 25.
    pub negative_cost: f64,
}

impl Default for DiversityConfig {
    fn default() -> Self {
        Self { weight: 0.02, alpha: 2.0, mu: 0.5, negative_cost: 25.0 }
    }
}

impl DiversityConfig {
    /// The published shape with another weight.
    pub fn weighted(weight: f64) -> Self {
        Self { weight, ..Self::default() }
    }

    /// # Errors
    /// A weight, slope or cost that is negative or not finite.
    pub fn validate(&self) -> Result<()> {
        let settings = [
            ("diversity.weight", self.weight),
            ("diversity.alpha", self.alpha),
            ("diversity.negative_cost", self.negative_cost),
        ];
        for (setting, value) in settings {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(setting, "finite and at least 0", value));
            }
        }
        if !self.mu.is_finite() {
            return Err(Error::setting("diversity.mu", "finite", self.mu));
        }
        Ok(())
    }
}

/// The diversity loss of a batch, a scalar without its weight. See [`DiversityConfig`].
pub fn diversity_loss(embedding: &GroupEmbedding, config: &DiversityConfig) -> Tensor {
    let groups = embedding.groups();
    let count = groups.size()[1];
    if count < 2 {
        return groups.sum(groups.kind()) * 0.0;
    }
    let cosines = groups.matmul(&groups.transpose(1, 2));
    let steepness = config.alpha * config.negative_cost;
    let costs = ((cosines - config.mu) * steepness).softplus().triu(1);
    costs.sum_dim_intlist([1_i64, 2].as_slice(), false, None::<Kind>).mean(groups.kind()) / (count - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn embedding(rows: &[&[[f64; 2]]]) -> GroupEmbedding {
        let flat: Vec<f64> = rows.iter().flat_map(|groups| groups.iter().flatten()).copied().collect();
        let tensor = Tensor::from_slice(&flat).view([rows.len() as i64, rows[0].len() as i64, 2]);
        GroupEmbedding::normalised(&tensor, None).unwrap()
    }

    fn loss(rows: &[&[[f64; 2]]]) -> f64 {
        diversity_loss(&embedding(rows), &DiversityConfig::default()).double_value(&[])
    }

    #[test]
    fn worked_cases() {
        let (east, north, sixty) = ([1.0, 0.0], [0.0, 1.0], [0.5, 0.75_f64.sqrt()]);
        // ln(1 + e^25) = 25 + 1.4e-11; libtorch's softplus is linear above 20.
        assert!((loss(&[&[east, east]]) - 25.0).abs() < 1e-9);
        assert!((loss(&[&[east, sixty]]) - std::f64::consts::LN_2).abs() < 1e-9);
        // ln(1 + e^-25)
        assert!((loss(&[&[east, north]]) - 1.388_794e-11).abs() < 1e-16);
        // Three pairs of 25, divided by G − 1 = 2.
        assert!((loss(&[&[east, east, east]]) - 37.5).abs() < 1e-9);
        assert!((loss(&[&[east, east], &[east, north]]) - 12.5).abs() < 1e-9);
    }

    #[test]
    fn one_group_costs_nothing_and_has_no_gradient() {
        let raw = Tensor::from_slice(&[3.0_f64, 4.0]).view([1, 1, 2]).set_requires_grad(true);
        let one = GroupEmbedding::normalised(&raw, None).unwrap();
        let loss = diversity_loss(&one, &DiversityConfig::default());
        loss.backward();
        assert_eq!(loss.double_value(&[]), 0.0);
        assert_eq!(raw.grad().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        assert!(DiversityConfig::weighted(-1.0).validate().unwrap_err().to_string().contains("diversity.weight"));
        assert!(DiversityConfig { mu: f64::NAN, ..Default::default() }.validate().is_err());
        assert!(DiversityConfig::default().validate().is_ok());
    }

    proptest! {
        #[test]
        fn swapping_groups_changes_nothing(angles in prop::collection::vec(0.0..std::f64::consts::TAU, 3)) {
            let point = |angle: f64| [angle.cos(), angle.sin()];
            let [a, b, c] = [point(angles[0]), point(angles[1]), point(angles[2])];
            let (one, other) = (loss(&[&[a, b, c]]), loss(&[&[c, a, b]]));
            // Sums of three terms up to 25 in another order.
            prop_assert!((one - other).abs() < 1e-12);
        }
    }
}
