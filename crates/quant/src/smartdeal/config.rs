//! How a matrix is decomposed.

use serde::{Deserialize, Serialize};

use super::Ladder;
use crate::{Error, Result};

/// The grid that coefficients are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// Signed powers of two: the method.
    PowersOfTwo(Ladder),
    /// No rounding: the ablation that shows what the powers of two cost. Such a result has no codes.
    Real,
}

/// How a layer's matrices are cut into blocks, each with a basis of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockRule {
    /// The published code's factorisation rule and padding table; a prime number of rows stays one block.
    Reference,
    /// Equal pieces of at most this many rows a basis column (64 gives at most 192 × 3), the last one shorter.
    MaxRows(usize),
}

/// Settings of the alternating fit. The defaults are the published code's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecomposeConfig {
    /// Coefficients below this magnitude become zero; absolute, not relative to the weights. Published: 4e-3.
    pub theta: f64,
    /// Most iterations, the last projection and fit counted as one; at least 2. Published: 30.
    pub max_iterations: usize,
    /// Stop when the projected coefficients move by no more than this (Frobenius norm). Published: 1e-10.
    pub tolerance: f64,
    /// Singular values below this fraction of the largest count as zero. Published: 1e-10.
    pub rcond: f64,
    /// Zero a whole row whose absolute sum is below `5·theta` (vector-wise sparsity). Published: 3×3 convolutions
    /// only, off by default.
    pub row_threshold: bool,
    /// Scale each column of coefficients onto the ladder before projecting; the value is the factor by which
    /// `theta` shrinks when a column dies and the fit starts again. Published: off (`None`); 0.5 in its scripts.
    pub scale: Option<f64>,
    /// The grid of the coefficients. Published: powers of two, at most 32, ties down.
    pub projection: Projection,
    /// How matrices are cut. Published: [`BlockRule::Reference`]; the default here covers every shape.
    pub block_rule: BlockRule,
}

impl Default for DecomposeConfig {
    fn default() -> Self {
        Self {
            theta: 4e-3,
            max_iterations: 30,
            tolerance: 1e-10,
            rcond: 1e-10,
            row_threshold: false,
            scale: None,
            projection: Projection::PowersOfTwo(Ladder::default()),
            block_rule: BlockRule::MaxRows(64),
        }
    }
}

impl DecomposeConfig {
    /// The published settings with another threshold.
    pub fn with_theta(theta: f64) -> Self {
        Self { theta, ..Self::default() }
    }

    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`] for the first setting outside its range; a `theta` above the highest rung is one.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, name: &'static str, expected: &'static str, found: String| {
            if ok { Ok(()) } else { Err(Error::Config { name, expected, found }) }
        };
        check(self.theta >= 0.0 && self.theta.is_finite(), "theta", "a finite number ≥ 0", self.theta.to_string())?;
        check(self.max_iterations >= 2, "max_iterations", "at least 2", self.max_iterations.to_string())?;
        check(
            self.tolerance >= 0.0 && self.tolerance.is_finite(),
            "tolerance",
            "a finite number ≥ 0",
            self.tolerance.to_string(),
        )?;
        check((0.0..1.0).contains(&self.rcond), "rcond", "0 ≤ rcond < 1", self.rcond.to_string())?;
        if let Some(decay) = self.scale {
            check(decay > 0.0 && decay < 1.0, "scale", "0 < decay < 1", decay.to_string())?;
        }
        if let Projection::PowersOfTwo(ladder) = self.projection {
            ladder.validate()?;
            check(
                self.theta <= 2f64.powi(ladder.p_max),
                "theta",
                "no more than the highest rung 2^p_max",
                format!("{} with p_max = {}", self.theta, ladder.p_max),
            )?;
        }
        if let BlockRule::MaxRows(rows) = self.block_rule {
            check(rows >= 1, "block_rule", "at least 1 row a basis column", rows.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let name = |config: DecomposeConfig| match config.validate() {
            Err(Error::Config { name, .. }) => name,
            other => panic!("expected a config error, got {other:?}"),
        };
        let base = DecomposeConfig::default();
        assert_eq!(name(DecomposeConfig::with_theta(f64::NAN)), "theta");
        assert_eq!(name(DecomposeConfig::with_theta(-1.0)), "theta");
        assert_eq!(name(DecomposeConfig::with_theta(33.0)), "theta");
        assert_eq!(name(DecomposeConfig { max_iterations: 1, ..base.clone() }), "max_iterations");
        assert_eq!(name(DecomposeConfig { tolerance: f64::NAN, ..base.clone() }), "tolerance");
        assert_eq!(name(DecomposeConfig { rcond: 1.0, ..base.clone() }), "rcond");
        assert_eq!(name(DecomposeConfig { scale: Some(1.0), ..base.clone() }), "scale");
        assert_eq!(name(DecomposeConfig { block_rule: BlockRule::MaxRows(0), ..base }), "block_rule");
    }

    #[test]
    fn a_config_survives_json() {
        let config = DecomposeConfig { scale: Some(0.5), block_rule: BlockRule::Reference, ..Default::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<DecomposeConfig>(&json).unwrap(), config);
    }
}
