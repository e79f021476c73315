//! The control every criterion has to beat.

use super::{Criterion, Rank, Scores};
use crate::Result;
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use tch::Tensor;

/// Every weight is as likely to survive as any other.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// Fixes the scores.
    pub seed: u64,
}

impl Criterion for Random {
    fn name(&self) -> String {
        "random".into()
    }

    fn score(&self, weights: &[NamedTensor], _mask: Option<&MaskSet>) -> Result<Scores> {
        let mut random = generator(self.seed, Purpose::Mask, 3);
        let draw = |(_, weight): &NamedTensor| {
            // Any non-negative finite float: 2^31 equally likely values, where [0, 1) has but 2^24 and many ties.
            let draws: Vec<f32> =
                (0..weight.numel()).map(|_| f32::from_bits(random.random_range(0..0x7F80_0000))).collect();
            Tensor::from_slice(&draws)
        };
        let values: Vec<Tensor> = weights.iter().map(draw).collect();
        Ok(Scores::of(weights, values, Rank::Value))
    }

    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        Some(1)
    }
}
