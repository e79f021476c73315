//! What a gate decided.

use super::DfqOption;
use std::sync::Arc;
use tch::Tensor;

/// What a gate decided for a batch.
#[derive(Debug)]
pub(in crate::fractrain) struct Decision {
    /// `[batch, options]`: one-hot, with the gradient of the probabilities.
    pub(in crate::fractrain) mask: Tensor,
    /// The chosen option of each sample.
    pub(in crate::fractrain) choice: Arc<[usize]>,
    pub(in crate::fractrain) options: Arc<[DfqOption]>,
}

impl Clone for Decision {
    fn clone(&self) -> Self {
        let mask = self.mask.shallow_clone();
        Self { mask, choice: self.choice.clone(), options: self.options.clone() }
    }
}

impl Decision {
    /// 1 for samples that compute and 0 for those that skip, shaped to multiply `like`; none if nothing can be skipped.
    /// Carries the gates' gradient.
    pub(in crate::fractrain) fn keep(&self, like: &Tensor) -> Option<Tensor> {
        let computes: Vec<f32> =
            self.options.iter().map(|option| f32::from(u8::from(*option != DfqOption::Skip))).collect();
        if computes.iter().all(|computes| *computes == 1.0) {
            return None;
        }
        let mut shape = vec![1; like.dim()];
        shape[0] = -1;
        let computes = Tensor::from_slice(&computes).to_device(self.mask.device()).to_kind(self.mask.kind());
        Some(self.mask.mv(&computes).view(&shape[..]).to_kind(like.kind()))
    }
}
