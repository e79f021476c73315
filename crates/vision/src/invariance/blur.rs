//! Anti-aliased downsampling: a fixed binomial blur before every second pixel is taken.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor, nn};

/// A blur pool's kernel and border (Zhang, *Making Convolutional Networks Shift-Invariant Again*, arXiv 1904.11486).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlurConfig {
    /// Side of the kernel, 1 (plain subsampling) to 7. Default 4, the published package's; the shift-invariance study
    /// uses 5.
    pub kernel: usize,
    /// How the border is filled. Default reflect, as published.
    pub padding: BlurPadding,
    /// Every how many pixels one is kept: 1 or 2. Default 2.
    pub stride: i64,
}

/// How the border is filled before blurring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlurPadding {
    /// Mirrored without repeating the edge. Needs a side larger than the padding.
    Reflect,
    /// The edge, repeated.
    Replicate,
    /// Zeros. Darkens the border.
    Zeros,
    /// The opposite side. Exact for circular shifts.
    Circular,
}

impl Default for BlurConfig {
    fn default() -> Self {
        Self { kernel: 4, padding: BlurPadding::Reflect, stride: 2 }
    }
}

/// The binomial coefficients of one axis, divided by their sum: `[1 3 3 1] / 8` for a kernel of 4.
///
/// # Errors
/// A kernel outside 1 to 7.
pub fn binomial_taps(kernel: usize) -> Result<Vec<f64>> {
    if !(1..=7).contains(&kernel) {
        return Err(Error::setting("blur kernel", "1 to 7", kernel));
    }
    let mut taps = vec![1.0];
    for _ in 1..kernel {
        let shifted = std::iter::once(0.0).chain(taps.iter().copied());
        taps = taps.iter().copied().chain(std::iter::once(0.0)).zip(shifted).map(|(a, b)| a + b).collect();
    }
    // A row of Pascal's triangle sums to a power of two, so that this division is exact.
    let sum: f64 = taps.iter().sum();
    Ok(taps.into_iter().map(|tap| tap / sum).collect())
}

/// `pad → depthwise binomial convolution → every second pixel`, without parameters.
///
/// The padding is `⌊(k−1)/2⌋` left and above, `⌈(k−1)/2⌉` right and below, so that a side of n becomes `⌈n/2⌉`. Even kernels
/// keep even maps aligned; odd ones drift by half a pixel a level.
#[derive(Debug)]
pub struct BlurPool2d {
    config: BlurConfig,
    channels: i64,
    /// `[channels, 1, kernel, kernel]`, double precision, on the CPU.
    kernel: Tensor,
    /// The same where it was used, by device and kind.
    copies: RefCell<Vec<(Device, Kind, Tensor)>>,
}

impl BlurPool2d {
    /// A blur pool for maps of so many channels.
    ///
    /// # Errors
    /// A kernel outside 1 to 7, a stride other than 1 or 2, or no channel.
    pub fn new(channels: i64, config: BlurConfig) -> Result<Self> {
        if channels < 1 {
            return Err(Error::setting("channels", "at least 1", channels));
        }
        if !(1..=2).contains(&config.stride) {
            return Err(Error::setting("blur stride", "1 or 2", config.stride));
        }
        let taps = Tensor::from_slice(&binomial_taps(config.kernel)?);
        let side = config.kernel as i64;
        let kernel = taps.f_outer(&taps)?.view([1, 1, side, side]).repeat([channels, 1, 1, 1]);
        Ok(Self { config, channels, kernel, copies: RefCell::default() })
    }

    /// The kernel where and as `input` is, made once.
    fn kernel_for(&self, input: &Tensor) -> Result<Tensor> {
        let (device, kind) = (input.device(), input.kind());
        let mut copies = self.copies.borrow_mut();
        if let Some((.., known)) = copies.iter().find(|copy| (copy.0, copy.1) == (device, kind)) {
            return Ok(known.shallow_clone());
        }
        let kernel = self.kernel.f_to_kind(kind)?.f_to_device(device)?;
        copies.push((device, kind, kernel.shallow_clone()));
        Ok(kernel)
    }

    /// The blurred and thinned map of `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// Another number of channels, integers, or a side that the padding cannot be filled from.
    pub fn pool(&self, input: &Tensor) -> Result<Tensor> {
        let size = input.size();
        if size.len() != 4 || size[1] != self.channels {
            let expected = format!("[batch, {}, height, width]", self.channels);
            return Err(Error::shape("input of a blur pool", expected, format!("{size:?}")));
        }
        if !input.is_floating_point() {
            // The kernel's taps are below 1.
            let found = format!("{:?}", input.kind());
            return Err(Error::shape("input of a blur pool", "floating-point numbers", found));
        }
        let stride = self.config.stride;
        if self.config.kernel == 1 {
            return Ok(input.f_slice(2, None, None, stride)?.f_slice(3, None, None, stride)?);
        }
        let reach = self.config.kernel as i64 - 1;
        let padded = self.config.padding.pad(input, [reach / 2, reach - reach / 2])?;
        let kernel = self.kernel_for(input)?;
        Ok(padded.f_conv2d(&kernel, None::<Tensor>, [stride; 2], [0, 0], [1, 1], self.channels)?)
    }
}

impl BlurPadding {
    /// Adds `[before, after]` pixels on both axes.
    pub(crate) fn pad(self, input: &Tensor, [before, after]: [i64; 2]) -> Result<Tensor> {
        let (mode, name, needed) = match self {
            Self::Reflect => ("reflect", "reflect", after.max(before) + 1),
            Self::Replicate => ("replicate", "replicate", 1),
            Self::Zeros => ("constant", "zero", 1),
            Self::Circular => ("circular", "circular", after.max(before)),
        };
        let size = input.size();
        if let Some(&found) = size[2..].iter().find(|side| **side < needed) {
            return Err(Error::Padding { mode: name, padding: after.max(before), needed, found });
        }
        if before == 0 && after == 0 {
            return Ok(input.shallow_clone());
        }
        Ok(input.f_pad([before, after, before, after], mode, None)?)
    }
}

impl nn::Module for BlurPool2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        self.pool(input).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    fn blur(kernel: usize, padding: BlurPadding) -> BlurPool2d {
        BlurPool2d::new(1, BlurConfig { kernel, padding, stride: 2 }).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().view([-1])).unwrap()
    }

    /// The middle row of the pooled map whose columns are the ramp 0, 1, ….
    fn ramp(length: i64, kernel: usize) -> Vec<f32> {
        let map = Tensor::arange(length, (Kind::Float, Device::Cpu)).view([1, 1, 1, length]).repeat([1, 1, 8, 1]);
        values(&blur(kernel, BlurPadding::Reflect).pool(&map).unwrap().select(2, 1))
    }

    fn close(found: &[f32], expected: &[f32]) {
        let differs = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
        let wrong = found.len() != expected.len() || found.iter().zip(expected).any(differs);
        assert!(!wrong, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn kernels_are_the_published_binomials() {
        let rows: [&[f64]; 7] = [
            &[1.0],
            &[1.0, 1.0],
            &[1.0, 2.0, 1.0],
            &[1.0, 3.0, 3.0, 1.0],
            &[1.0, 4.0, 6.0, 4.0, 1.0],
            &[1.0, 5.0, 10.0, 10.0, 5.0, 1.0],
            &[1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0],
        ];
        for (index, row) in rows.iter().enumerate() {
            let sum: f64 = row.iter().sum();
            let expected: Vec<f64> = row.iter().map(|tap| tap / sum).collect();
            assert_eq!(binomial_taps(index + 1).unwrap(), expected);
        }
        assert!(binomial_taps(0).is_err() && binomial_taps(8).is_err());
    }

    #[test]
    fn integers_are_refused_which_the_kernel_would_make_zeros_of() {
        for padding in [BlurPadding::Reflect, BlurPadding::Replicate, BlurPadding::Zeros, BlurPadding::Circular] {
            let map = Tensor::full([1, 1, 6, 6], 100, (Kind::Int64, Device::Cpu));
            let refused = blur(3, padding).pool(&map).unwrap_err().to_string();
            assert!(refused.contains("floating-point numbers"), "{refused}");
        }
    }

    #[test]
    fn nothing_passes_at_the_nyquist_frequency() {
        for kernel in 2..=7 {
            let taps = binomial_taps(kernel).unwrap();
            let even: f64 = taps.iter().step_by(2).sum();
            let odd: f64 = taps.iter().skip(1).step_by(2).sum();
            assert_eq!((even, odd), (0.5, 0.5), "kernel {kernel}");
        }
    }

    #[test]
    fn ramps_come_out_as_from_the_published_package() {
        // Computed with antialiased-cnns 0.3, reflect padding, interior row.
        close(&ramp(8, 2), &[0.5, 2.5, 4.5, 6.5]);
        close(&ramp(8, 3), &[0.5, 2.0, 4.0, 6.0]);
        close(&ramp(8, 4), &[0.75, 2.5, 4.5, 6.25]);
        close(&ramp(8, 5), &[0.75, 2.0, 4.0, 5.875]);
        close(&ramp(7, 2), &[0.5, 2.5, 4.5, 5.5]);
        close(&ramp(7, 3), &[0.5, 2.0, 4.0, 5.5]);
        close(&ramp(7, 4), &[0.75, 2.5, 4.5, 5.25]);
        close(&ramp(7, 5), &[0.75, 2.0, 4.0, 5.25]);
    }

    #[test]
    fn an_impulse_shows_the_kernel_at_every_second_pixel() {
        // Computed with antialiased-cnns 0.3: unit impulse at (2, 2) of a 6 × 6 map.
        let map = Tensor::zeros([1, 1, 6, 6], (Kind::Float, Device::Cpu));
        let _ = map.get(0).get(0).get(2).get(2).fill_(1.0);
        let out = |kernel| values(&blur(kernel, BlurPadding::Reflect).pool(&map).unwrap());
        close(&out(3), &[0.0, 0.0, 0.0, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]);
        close(&out(4), &[0.015625, 0.046875, 0.0, 0.046875, 0.140625, 0.0, 0.0, 0.0, 0.0]);
        close(
            &out(5),
            &[0.015625, 0.046875, 0.0078125, 0.046875, 0.140625, 0.0234375, 0.0078125, 0.0234375, 0.00390625],
        );
    }

    #[test]
    fn a_kernel_of_six_reaches_two_pixels_back_and_three_ahead() {
        // All rows have a unit at column 5, so that the column's taps sum to 1. What is at 5 is seen from 5 − 3 to 5 + 2.
        let map = Tensor::zeros([1, 1, 12, 12], (Kind::Float, Device::Cpu));
        let _ = map.narrow(3, 5, 1).fill_(1.0);
        let config = BlurConfig { kernel: 6, padding: BlurPadding::Replicate, stride: 1 };
        let row = values(&BlurPool2d::new(1, config).unwrap().pool(&map).unwrap().select(2, 6));
        let taps = [1.0_f32, 5.0, 10.0, 10.0, 5.0, 1.0].map(|tap| tap / 32.0);
        close(&row, &[[0.0; 2].as_slice(), &taps, &[0.0; 4]].concat());
    }

    #[test]
    fn a_kernel_is_made_once_for_each_kind_and_exact_in_all_of_them() {
        let pool = blur(7, BlurPadding::Zeros);
        let map = Tensor::zeros([1, 1, 7, 7], (Kind::Double, Device::Cpu));
        let _ = map.narrow(2, 3, 1).narrow(3, 3, 1).fill_(1.0);
        let exact = pool.pool(&map).unwrap();
        for kind in [Kind::Float, Kind::BFloat16, Kind::Float] {
            // Products of the taps are at most 400 / 4096 with eight binary digits or fewer.
            assert_eq!(pool.pool(&map.to_kind(kind)).unwrap().to_kind(Kind::Double), exact, "{kind:?}");
        }
        let made: Vec<Kind> = pool.copies.borrow().iter().map(|copy| copy.1).collect();
        assert_eq!(made, [Kind::Double, Kind::Float, Kind::BFloat16]);
        let known = |pool: &BlurPool2d| pool.copies.borrow()[1].2.data_ptr();
        let before = known(&pool);
        let _ = pool.pool(&map.to_kind(Kind::Float)).unwrap();
        assert_eq!(known(&pool), before);
    }

    #[test]
    fn ones_stay_ones_but_for_zero_padding() {
        let ones = Tensor::ones([1, 1, 6, 6], (Kind::Float, Device::Cpu));
        for padding in [BlurPadding::Reflect, BlurPadding::Replicate, BlurPadding::Circular] {
            for kernel in 2..=5 {
                close(&values(&blur(kernel, padding).pool(&ones).unwrap()), &[1.0; 9]);
            }
        }
        // Kernel 4 loses an eighth at each border: (7/8)² = .765625 in the corners.
        let zeros = values(&blur(4, BlurPadding::Zeros).pool(&ones).unwrap());
        close(&zeros, &[0.765625, 0.875, 0.765625, 0.875, 1.0, 0.875, 0.765625, 0.875, 0.765625]);
    }

    #[test]
    fn max_then_blur_of_a_square_wave_hardly_depends_on_its_phase() {
        // Zhang's example with circular borders, by hand: max(2, stride 1) of 0 0 1 1 0 0 1 1 is 0 1 1 1 0 1 1 1.
        let pooled = |wave: &[f32], kernel| {
            let map = Tensor::from_slice(wave).view([1, 1, 1, 8]).repeat([1, 1, 8, 1]);
            let padded = map.pad([0, 1, 0, 1], "circular", None);
            let max = padded.max_pool2d([2, 2], [1, 1], [0, 0], [1, 1], false);
            values(&blur(kernel, BlurPadding::Circular).pool(&max).unwrap().select(2, 0))
        };
        let (wave, shifted) = ([0., 0., 1., 1., 0., 0., 1., 1.], [0., 1., 1., 0., 0., 1., 1., 0.]);
        close(&pooled(&wave, 1), &[0.0, 1.0, 0.0, 1.0]);
        close(&pooled(&shifted, 1), &[1.0; 4]);
        close(&pooled(&wave, 3), &[0.5, 1.0, 0.5, 1.0]);
        close(&pooled(&shifted, 3), &[0.75; 4]);
        close(&pooled(&wave, 4), &[0.625, 0.875, 0.625, 0.875]);
        close(&pooled(&wave, 5), &[0.625, 0.875, 0.625, 0.875]);
        close(&pooled(&shifted, 5), &[0.75; 4]);
    }

    #[test]
    fn convolution_and_blur_commute_inside_but_not_through_a_relu() {
        // Interior of 20 × 20, so that no border is seen; 1e-5 is rounding of sums of 81 terms below 1.
        tch::manual_seed(1);
        let map = Tensor::randn([1, 1, 20, 20], (Kind::Float, Device::Cpu));
        let weight = Tensor::randn([1, 1, 3, 3], (Kind::Float, Device::Cpu)) / 3.0;
        let conv = |x: &Tensor| x.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let config = BlurConfig { kernel: 3, padding: BlurPadding::Zeros, stride: 1 };
        let smooth = BlurPool2d::new(1, config).unwrap();
        let inside = |x: Tensor| x.narrow(2, 3, 14).narrow(3, 3, 14);
        let gap = |a: Tensor, b: Tensor| (inside(a) - inside(b)).abs().max().double_value(&[]);
        let (first, last) = (conv(&smooth.pool(&map).unwrap()), smooth.pool(&conv(&map)).unwrap());
        assert!(gap(first.shallow_clone(), last) < 1e-5);
        assert!(gap(first.relu(), smooth.pool(&conv(&map).relu()).unwrap()) > 1e-2);
    }

    #[test]
    fn what_cannot_be_padded_or_pooled_is_refused() {
        let tiny = Tensor::zeros([1, 1, 2, 2], (Kind::Float, Device::Cpu));
        let error = blur(4, BlurPadding::Reflect).pool(&tiny).unwrap_err();
        assert!(matches!(error, Error::Padding { needed: 3, found: 2, .. }), "{error}");
        assert!(blur(4, BlurPadding::Replicate).pool(&tiny).is_ok());
        let error = blur(3, BlurPadding::Zeros).pool(&tiny.repeat([1, 2, 1, 1])).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(BlurPool2d::new(1, BlurConfig { stride: 3, ..BlurConfig::default() }).is_err());
        assert!(BlurPool2d::new(0, BlurConfig::default()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn sizes_halve_upwards_and_stride_one_keeps_them(
            kernel in 1_usize..=7, height in 4_i64..18, width in 4_i64..18, mode in 0..4,
        ) {
            let padding = [BlurPadding::Reflect, BlurPadding::Replicate, BlurPadding::Zeros, BlurPadding::Circular]
                [mode as usize];
            let map = Tensor::rand([2, 3, height, width], (Kind::Float, Device::Cpu));
            let pool = |stride| BlurPool2d::new(3, BlurConfig { kernel, padding, stride }).unwrap().pool(&map).unwrap();
            prop_assert_eq!(pool(2).size(), [2, 3, (height + 1) / 2, (width + 1) / 2]);
            prop_assert_eq!(pool(1).size(), [2, 3, height, width]);
            if kernel == 1 {
                prop_assert_eq!(pool(2), map.slice(2, None, None, 2).slice(3, None, None, 2));
            }
        }
    }
}
