//! The plain layers of networks over sequences.

use super::{EmbeddingConfig, LayerNormConfig};
use tch::nn::{Init as TchInit, Module, Path};
use tch::{Tensor, no_grad};

/// A table of vectors with its parameter in reach.
#[derive(Debug)]
pub struct Embedding {
    padding: i64,
    /// `[entries, features]`.
    pub weight: Tensor,
}

impl Embedding {
    /// Creates `weight` under `path`; the padding row, if any, is zero.
    ///
    /// # Panics
    /// A padding row that the table does not have.
    pub fn new(path: &Path, config: EmbeddingConfig) -> Self {
        let shape = [config.entries, config.features];
        let weight = path.var("weight", &shape, config.init.for_weight(&shape));
        if let Some(padding) = config.padding {
            let rows = config.entries;
            assert!((0..rows).contains(&padding), "padding row {padding} of a table of {rows} rows, counted from 0");
            let _ = no_grad(|| weight.get(padding).zero_());
        }
        // libtorch's "no padding row" is -1.
        Self { padding: config.padding.unwrap_or(-1), weight }
    }
}

impl Module for Embedding {
    fn forward(&self, input: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, input, self.padding, false, false)
    }
}

/// `(x − mean)/√(variance + eps) · weight + bias` over the last axis.
#[derive(Debug)]
pub struct LayerNorm {
    config: LayerNormConfig,
    /// `[features]`, the learned scale.
    pub weight: Tensor,
    /// `[features]`, the learned shift.
    pub bias: Tensor,
}

impl LayerNorm {
    /// Creates `weight` (1) and `bias` (0) under `path`.
    pub fn new(path: &Path, config: LayerNormConfig) -> Self {
        let shape = [config.features];
        Self {
            config,
            weight: path.var("weight", &shape, TchInit::Const(1.0)),
            bias: path.var("bias", &shape, TchInit::Const(0.0)),
        }
    }
}

impl Module for LayerNorm {
    fn forward(&self, input: &Tensor) -> Tensor {
        input.layer_norm([self.config.features], Some(&self.weight), Some(&self.bias), self.config.eps, false)
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{EmbeddingConfig, GateConfig, Gated, LayerFactory, LayerNormConfig, Standard};
    use crate::seed::{Purpose, seed_libtorch};
    use tch::{Device, Kind, Tensor, nn};

    #[test]
    fn a_padding_row_starts_at_zero_and_stays_there() {
        seed_libtorch(0, Purpose::Initialisation, 0);
        let store = nn::VarStore::new(Device::Cpu);
        let config = EmbeddingConfig { padding: Some(2), ..EmbeddingConfig::new(5, 3) };
        let table = Standard.embedding(&(store.root() / "word"), config);
        let numbers = Tensor::from_slice(&[2_i64, 0, 2, 4]).view([2, 2]);
        let looked_up = table.forward_t(&numbers, true);
        assert_eq!(looked_up.size(), [2, 2, 3]);
        assert_eq!(looked_up.get(0).get(0).abs().max().double_value(&[]), 0.0);
        assert!(looked_up.get(0).get(1).abs().max().double_value(&[]) > 0.0);
        looked_up.sum(Kind::Float).backward();
        let gradient = store.variables()["word.weight"].grad().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        // One look-up of rows 0 and 4 each, with gradient 1 an entry; none of the padding row.
        assert_eq!(Vec::<f32>::try_from(gradient).unwrap(), [3.0, 0.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn a_padding_row_that_is_not_there_is_refused() {
        for padding in [-1, 5] {
            let store = nn::VarStore::new(Device::Cpu);
            let config = EmbeddingConfig { padding: Some(padding), ..EmbeddingConfig::new(5, 3) };
            let make = std::panic::AssertUnwindSafe(|| Standard.embedding(&(store.root() / "word"), config));
            assert!(std::panic::catch_unwind(make).is_err());
            // The panic left gradients on.
            assert!((&store.variables()["word.weight"] * 2.0).requires_grad());
        }
    }

    #[test]
    fn a_layer_norm_is_its_formula() {
        let store = nn::VarStore::new(Device::Cpu);
        let norm = Standard.layer_norm(&(store.root() / "norm"), LayerNormConfig { features: 4, eps: 0.0 });
        // Mean 3, variance 5.
        let out = norm.forward_t(&Tensor::from_slice(&[0_f32, 2.0, 4.0, 6.0]).view([1, 4]), true);
        let expected = [-3.0_f64, -1.0, 1.0, 3.0].map(|deviation| deviation / 5_f64.sqrt());
        for (found, expected) in Vec::<f32>::try_from(out.view(-1)).unwrap().into_iter().zip(expected) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
        }
        let mut names: Vec<String> = store.variables().into_keys().collect();
        names.sort();
        assert_eq!(names, ["norm.bias", "norm.weight"]);
    }

    #[test]
    fn the_standard_factory_gates_nothing() {
        let store = nn::VarStore::new(Device::Cpu);
        assert!(Standard.gate(&store.root(), GateConfig { gated: Gated::Heads, units: 4 }).is_none());
        assert!(store.variables().is_empty());
    }
}
