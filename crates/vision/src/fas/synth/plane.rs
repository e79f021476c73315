//! Rasters of numbers: filtering, sampling.

/// A raster in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raster<T> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<T>,
}

/// Linear RGB.
pub(crate) type Rgb = [f32; 3];

/// What can be mixed linearly.
pub(crate) trait Mix: Copy + Default {
    /// How many numbers a value holds.
    const LANES: usize;
    fn add_scaled(self, other: Self, weight: f32) -> Self;
    fn numbers(values: &[Self]) -> &[f32];
    fn numbers_mut(values: &mut [Self]) -> &mut [f32];
}

impl Mix for f32 {
    const LANES: usize = 1;

    fn numbers(values: &[Self]) -> &[f32] {
        values
    }

    fn numbers_mut(values: &mut [Self]) -> &mut [f32] {
        values
    }

    fn add_scaled(self, other: Self, weight: f32) -> Self {
        self + other * weight
    }
}

impl<const N: usize> Mix for [f32; N]
where
    Self: Default,
{
    const LANES: usize = N;

    fn add_scaled(mut self, other: Self, weight: f32) -> Self {
        self.iter_mut().zip(other).for_each(|(value, other)| *value += other * weight);
        self
    }

    fn numbers(values: &[Self]) -> &[f32] {
        values.as_flattened()
    }

    fn numbers_mut(values: &mut [Self]) -> &mut [f32] {
        values.as_flattened_mut()
    }
}

impl<T: Copy> Raster<T> {
    pub(crate) fn filled(width: usize, height: usize, value: T) -> Self {
        Self { width, height, data: vec![value; width * height] }
    }

    /// The value at the nearest pixel inside.
    pub(crate) fn clamped(&self, x: isize, y: isize) -> T {
        let column = x.clamp(0, self.width as isize - 1) as usize;
        let row = y.clamp(0, self.height as isize - 1) as usize;
        self.data[row * self.width + column]
    }

    /// The nearest pixel's value at continuous pixel coordinates, whose integers are pixel centres.
    pub(crate) fn nearest(&self, x: f32, y: f32) -> T {
        // Truncation after a shift that keeps coordinates down to −64 positive.
        self.clamped((x + 64.5) as isize - 64, (y + 64.5) as isize - 64)
    }
}

impl<T: Mix> Raster<T> {
    /// Bilinear interpolation at continuous pixel coordinates, whose integers are pixel centres; clamped to the border.
    pub(crate) fn sample(&self, x: f32, y: f32) -> T {
        self.mixed(between(x, self.width), between(y, self.height))
    }

    /// As [`sample`](Self::sample), with the neighbours along each axis from [`between`].
    #[inline]
    pub(crate) fn mixed(&self, (column, fx): (usize, f32), (row, fy): (usize, f32)) -> T {
        let at = row * self.width + column;
        let (right, below) = (usize::from(self.width > 1), if self.height > 1 { self.width } else { 0 });
        T::default()
            .add_scaled(self.data[at], (1.0 - fx) * (1.0 - fy))
            .add_scaled(self.data[at + right], fx * (1.0 - fy))
            .add_scaled(self.data[at + below], (1.0 - fx) * fy)
            .add_scaled(self.data[at + below + right], fx * fy)
    }

    /// Bilinear resize to twice the size, pixel areas aligned: every pixel is ¾ of its own and ¼ of the next.
    pub(crate) fn doubled(&self) -> Self {
        let (width, height) = (2 * self.width, 2 * self.height);
        let mut wide = Self::filled(width, self.height, T::default());
        for (source, target) in self.data.chunks_exact(self.width).zip(wide.data.chunks_exact_mut(width)) {
            for (i, &own) in source.iter().enumerate() {
                let (left, right) = (source[i.saturating_sub(1)], source[(i + 1).min(self.width - 1)]);
                let most = T::default().add_scaled(own, 0.75);
                target[2 * i] = most.add_scaled(left, 0.25);
                target[2 * i + 1] = most.add_scaled(right, 0.25);
            }
        }
        let mut out = Self::filled(width, height, T::default());
        for (j, target) in out.data.chunks_exact_mut(width).enumerate() {
            let own = j / 2;
            let other = if j % 2 == 0 { own.saturating_sub(1) } else { (own + 1).min(self.height - 1) };
            let row = |row: usize| T::numbers(&wide.data[row * width..(row + 1) * width]);
            for ((value, own), other) in T::numbers_mut(target).iter_mut().zip(row(own)).zip(row(other)) {
                *value = 0.75 * own + 0.25 * other;
            }
        }
        out
    }

    /// Gaussian blur of standard deviation `sigma` pixels, borders repeated.
    pub(crate) fn blurred(mut self, sigma: f32) -> Self {
        let mut spare = Self { width: self.width, height: self.height, data: Vec::new() };
        self.blur(sigma, &mut spare);
        self
    }

    /// As [`blurred`](Self::blurred), in place; `spare` is overwritten.
    pub(crate) fn blur(&mut self, sigma: f32, spare: &mut Self) {
        if sigma < 0.05 {
            return;
        }
        let kernel = gaussian(sigma);
        self.convolve(&kernel, true, spare);
        spare.convolve(&kernel, false, self);
    }

    /// Convolution along rows or columns with a symmetric kernel of odd length, borders repeated.
    pub(crate) fn convolved(&self, kernel: &[f32], along_rows: bool) -> Self {
        let mut out = Self { width: self.width, height: self.height, data: Vec::new() };
        self.convolve(kernel, along_rows, &mut out);
        out
    }

    /// As [`convolved`](Self::convolved), into a raster whose memory is used again.
    pub(crate) fn convolve(&self, kernel: &[f32], along_rows: bool, out: &mut Self) {
        let radius = kernel.len() / 2;
        let (width, height) = (self.width, self.height);
        (out.width, out.height) = (width, height);
        // Where nothing is summed into, what was there before must go.
        out.data.clear();
        out.data.resize(width * height, T::default());
        let mut padded = vec![T::default(); width + 2 * radius];
        for j in 0..height {
            let target = T::numbers_mut(&mut out.data[j * width..(j + 1) * width]);
            if along_rows {
                let source = &self.data[j * width..(j + 1) * width];
                padded[..radius].fill(source[0]);
                padded[radius..radius + width].copy_from_slice(source);
                padded[radius + width..].fill(source[width - 1]);
            }
            let source = |k: usize| {
                if along_rows {
                    &T::numbers(&padded)[k * T::LANES..]
                } else {
                    let row = (j + k).saturating_sub(radius).min(height - 1);
                    T::numbers(&self.data[row * width..(row + 1) * width])
                }
            };
            weighted(target, kernel, source);
        }
    }
}

/// `target[i] = Σ_k kernel[k] · source(k)[i]`, some numbers at a time, so that sums stay in registers.
fn weighted<'a>(target: &mut [f32], kernel: &[f32], source: impl Fn(usize) -> &'a [f32]) {
    const BLOCK: usize = 16;
    let (blocks, rest) = target.as_chunks_mut::<BLOCK>();
    for (block, sums) in blocks.iter_mut().enumerate() {
        let mut values = [0.0_f32; BLOCK];
        for (k, &weight) in kernel.iter().enumerate() {
            let others = &source(k)[block * BLOCK..][..BLOCK];
            values.iter_mut().zip(others).for_each(|(value, &other)| *value += weight * other);
        }
        *sums = values;
    }
    let start = blocks.len() * BLOCK;
    for (k, &weight) in kernel.iter().enumerate() {
        rest.iter_mut().zip(&source(k)[start..]).for_each(|(value, &other)| *value += weight * other);
    }
}

/// Where bilinear interpolation at a coordinate looks along an axis: the first of two neighbours, and the second's weight.
#[inline]
pub(crate) fn between(coordinate: f32, length: usize) -> (usize, f32) {
    let coordinate = coordinate.clamp(0.0, length as f32 - 1.0);
    let first = (coordinate as usize).min(length.saturating_sub(2));
    (first, coordinate - first as f32)
}

/// A normalised Gaussian kernel reaching to three standard deviations.
pub(crate) fn gaussian(sigma: f32) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil().max(1.0) as i32;
    let weights: Vec<f32> = (-radius..=radius).map(|k| (-0.5 * (k as f32 / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_meets_pixels_at_integers_and_their_mean_between() {
        let raster = Raster { width: 2, height: 2, data: vec![0.0, 1.0, 2.0, 3.0] };
        assert_eq!(raster.sample(1.0, 1.0), 3.0);
        assert_eq!(raster.sample(0.5, 0.5), 1.5);
        assert_eq!(raster.sample(-4.0, 9.0), 2.0);
    }

    #[test]
    fn doubling_is_sampling_at_quarters() {
        let raster = Raster { width: 3, height: 2, data: vec![0.0, 1.0, 5.0, 2.0, 3.0, -1.0] };
        let doubled = raster.doubled();
        for j in 0..4 {
            for i in 0..6 {
                let expected = raster.sample(i as f32 / 2.0 - 0.25, j as f32 / 2.0 - 0.25);
                assert!((doubled.data[j * 6 + i] - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn convolution_is_the_sum_over_its_window() {
        // Rows longer and shorter than what is summed at a time.
        for width in [5, 16, 21] {
            let data: Vec<Rgb> = (0..width * 4).map(|at| [at as f32, (at * at % 7) as f32, 1.0]).collect();
            let raster = Raster { width, height: 4, data };
            let kernel = [0.25, 0.5, -1.0];
            for (along_rows, [dx, dy]) in [(true, [1, 0]), (false, [0, 1])] {
                let found = raster.convolved(&kernel, along_rows);
                for (at, value) in found.data.iter().enumerate() {
                    let (x, y) = ((at % width) as isize, (at / width) as isize);
                    let tap = |k: isize| raster.clamped(x + (k - 1) * dx, y + (k - 1) * dy);
                    let expected: Rgb = std::array::from_fn(|c| (0..3).map(|k| kernel[k] * tap(k as isize)[c]).sum());
                    assert_eq!(*value, expected);
                }
            }
        }
    }

    #[test]
    fn blurring_keeps_a_constant_and_the_sum_of_an_inner_spot() {
        let flat = Raster::filled(9, 7, 0.25_f32);
        assert!(flat.clone().blurred(1.3).data.iter().all(|value| (value - 0.25).abs() < 1e-6));
        let mut spot = Raster::filled(31, 31, 0.0_f32);
        spot.data[15 * 31 + 15] = 1.0;
        let sum: f32 = spot.blurred(1.5).data.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}
