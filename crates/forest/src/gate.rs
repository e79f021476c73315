//! How a node turns its score into the probability of going left.

use serde::{Deserialize, Serialize};

/// The routing function p(z) of a gate with score z = inverse temperature x (w . x + b).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Gate {
    /// p = 1 / (1 + exp(-z)): never exactly 0 or 1.
    #[default]
    Sigmoid,
    /// The cubic step of the tree ensemble layer (Hazimeh et al. 2020): 0 below -width/2, 1 above width/2, and
    /// -2 z^3 / width^3 + 3 z / (2 width) + 1/2 between. Exact zeros let training and prediction skip subtrees.
    SmoothStep {
        /// Width of the region in which routing is soft.
        width: f32,
    },
}

impl Gate {
    /// Probability of the left child and its derivative with respect to the score.
    #[must_use]
    pub fn evaluate(self, z: f64) -> (f64, f64) {
        match self {
            Self::Sigmoid => {
                let p = 1.0 / (1.0 + (-z).exp());
                (p, p * (1.0 - p))
            }
            Self::SmoothStep { width } => {
                let width = f64::from(width);
                let t = z / width;
                if t <= -0.5 {
                    (0.0, 0.0)
                } else if t >= 0.5 {
                    (1.0, 0.0)
                } else {
                    (-2.0 * t * t * t + 1.5 * t + 0.5, (1.5 - 6.0 * t * t) / width)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the cubic at quarter points, by hand.
    #[test]
    fn smooth_step_matches_hand_computed_values() {
        let gate = Gate::SmoothStep { width: 1.0 };
        for (z, p) in [(-0.5, 0.0), (-0.25, 0.156_25), (0.0, 0.5), (0.1, 0.648), (0.25, 0.843_75), (0.5, 1.0)] {
            assert!((gate.evaluate(z).0 - p).abs() < 1e-12);
        }
        let wide = Gate::SmoothStep { width: 2.0 };
        assert!((wide.evaluate(0.25).0 - 0.683_593_75).abs() < 1e-12);
    }

    #[test]
    fn derivatives_match_central_differences() {
        for gate in [Gate::Sigmoid, Gate::SmoothStep { width: 1.5 }] {
            for step in -8..=8 {
                let z = f64::from(step) * 0.17;
                let h = 1e-6;
                let numeric = (gate.evaluate(z + h).0 - gate.evaluate(z - h).0) / (2.0 * h);
                // A central difference errs by h^2 f''' and by rounding 1e-16 / h.
                assert!((numeric - gate.evaluate(z).1).abs() < 1e-8);
            }
        }
    }
}
