//! Mean and standard deviation of a set's channels.

use super::{ImageShape, Transform};

/// Per-channel mean and standard deviation of pixels scaled to `[0, 1]`.
///
/// The constants are the ones that published training scripts use, so that a published weight sees the input it was
/// trained on. For another set, [`Dataset::statistics`](super::Dataset::statistics) measures them.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// One a channel.
    pub mean: Vec<f32>,
    /// One a channel, above 0.
    pub std: Vec<f32>,
}

impl ChannelStatistics {
    /// MNIST: 0.1307, 0.3081.
    pub fn mnist() -> Self {
        Self { mean: vec![0.1307], std: vec![0.3081] }
    }

    /// Fashion-MNIST: 0.2860, 0.3530.
    pub fn fashion_mnist() -> Self {
        Self { mean: vec![0.2860], std: vec![0.3530] }
    }

    /// CIFAR-10: (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616).
    pub fn cifar10() -> Self {
        Self { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] }
    }

    /// CIFAR-100: (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762).
    pub fn cifar100() -> Self {
        Self { mean: vec![0.5071, 0.4865, 0.4409], std: vec![0.2673, 0.2564, 0.2762] }
    }

    /// ImageNet, as torchvision's weights expect: (0.485, 0.456, 0.406), (0.229, 0.224, 0.225).
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// The transform that subtracts the mean and divides by the standard deviation.
    pub fn normalise(self) -> Transform {
        Transform::Normalise { mean: self.mean, std: self.std }
    }

    /// Over all images of one shape that lie one after the other. A constant channel gets the standard deviation of
    /// rounding to 256 levels, so that dividing by it is safe.
    pub(super) fn measure(pixels: &[u8], shape: ImageShape) -> Self {
        let plane = shape.height * shape.width;
        let mut histogram = vec![[0_u64; 256]; shape.channels];
        for (position, pixels) in pixels.chunks_exact(plane).enumerate() {
            let counts = &mut histogram[position % shape.channels];
            pixels.iter().for_each(|&pixel| counts[usize::from(pixel)] += 1);
        }
        let moments = histogram.iter().map(|counts| {
            let total = counts.iter().sum::<u64>() as f64;
            let level = |pixel: usize| pixel as f64 / 255.0;
            let mean = counts.iter().enumerate().map(|(p, &n)| n as f64 * level(p)).sum::<f64>() / total;
            let square = |p: usize| (level(p) - mean).powi(2);
            let variance = counts.iter().enumerate().map(|(p, &n)| n as f64 * square(p)).sum::<f64>() / total;
            (mean as f32, variance.sqrt().max(ROUNDING) as f32)
        });
        let (mean, std) = moments.unzip();
        Self { mean, std }
    }
}

/// Standard deviation of a uniform error of one level: 1 / (255 √12).
const ROUNDING: f64 = 0.001_132_058;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_scaled_pixels() {
        // Channel 0 is 0, 255, 255, 0: mean 1/2, deviation 1/2. Channel 1 is 51 throughout: mean 1/5, deviation floored.
        let pixels = [0, 255, 51, 51, 255, 0, 51, 51];
        let found = ChannelStatistics::measure(&pixels, ImageShape::new(2, 1, 2));
        assert_eq!(found.mean, [0.5, 0.2]);
        assert_eq!(found.std, [0.5, ROUNDING as f32]);
    }
}
