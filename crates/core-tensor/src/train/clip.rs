//! Clipping between the backward pass and the step.

use super::{Observer, StepContext};
use crate::Result;
use crate::optim::{Optimizer, clip_gradient_norm};

/// Scales gradients so that their joint L2 norm is at most this, above 0: [`clip_gradient_norm`] before each step. BERT
/// is trained with 1.
///
/// Add it after what masks gradients: dead entries would count in the norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipNorm(pub f64);

impl Observer for ClipNorm {
    fn name(&self) -> &str {
        "clip"
    }

    fn after_backward(&mut self, _: &mut StepContext, optimizer: &mut dyn Optimizer) -> Result<()> {
        clip_gradient_norm(optimizer.parameters(), self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::BatchSource;
    use crate::optim::{Schedule, Sgd, SgdConfig, parameters};
    use crate::train::{Loss, Objective, Progress, TrainConfig, Trainer};
    use tch::{Device, Tensor, nn};

    /// One batch of nothing.
    struct Once;

    impl BatchSource for Once {
        type Batch = ();

        fn batches_per_epoch(&self) -> u64 {
            1
        }

        fn epoch(&self, _: u64) -> Result<Box<dyn Iterator<Item = Result<()>> + '_>> {
            Ok(Box::new(std::iter::once(Ok(()))))
        }
    }

    /// A gradient of (3, 4).
    struct Slope(Tensor);

    impl Objective<()> for Slope {
        fn loss(&mut self, (): &(), _: &Progress) -> Result<Loss> {
            let slope = Tensor::from_slice(&[3_f32, 4.0]);
            Ok(Loss::single("slope", (&self.0 * slope).sum(tch::Kind::Float)))
        }
    }

    #[test]
    fn a_step_is_no_longer_than_the_norm_allows() {
        // 5 is above 1, and below 10.
        for (clip, expected) in [(1.0, [-0.6, -0.8]), (10.0, [-3.0, -4.0])] {
            let store = nn::VarStore::new(Device::Cpu);
            let weight = store.root().zeros("w", &[2]);
            let mut objective = Slope(weight.shallow_clone());
            let mut optimizer =
                Sgd::new(parameters(&store, 0.0), SgdConfig { momentum: 0.0, ..SgdConfig::default() }).unwrap();
            let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 1.0 } };
            let mut clip = ClipNorm(clip);
            let mut trainer = Trainer::new(config, &mut objective, &mut optimizer).unwrap();
            trainer.observe(&mut clip);
            trainer.fit(&Once).unwrap();
            let found: Vec<f32> = weight.detach().try_into().unwrap();
            assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5), "{found:?}");
        }
    }
}
