//! Options drawn at random: the control for whether adapting to inputs matters.

use crate::fractrain::Result;
use crate::fractrain::noise::Stream;
use tch::Tensor;

/// Choices drawn at random instead of learned: the control for whether it matters which sample gets the bits.
#[derive(Debug)]
pub(super) struct Forced {
    pub(super) shares: Vec<Vec<f64>>,
    pub(super) seed: u64,
    pub(super) draws: u64,
}

impl Forced {
    pub(super) fn draw(&mut self, block: usize, input: &Tensor) -> Result<Tensor> {
        let (samples, options) = (input.size()[0] as usize, self.shares[block].len());
        let stream = Stream::new(self.seed, block as u64, self.draws);
        self.draws += 1;
        let mut mask = vec![0.0_f32; samples * options];
        for sample in 0..samples {
            let (at, mut sum, mut chosen) = (f64::from(stream.uniform(sample as u32)), 0.0, options - 1);
            for (option, share) in self.shares[block].iter().enumerate() {
                sum += share;
                if at < sum {
                    chosen = option;
                    break;
                }
            }
            mask[sample * options + chosen] = 1.0;
        }
        Ok(Tensor::f_from_slice(&mask)?.f_view([samples as i64, options as i64])?.f_to_device(input.device())?)
    }
}
