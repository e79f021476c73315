//! Pixel grids and halftone screens, and the moiré that a camera makes of them, without super-sampling.

/// A periodic pattern on a surface.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Periodic {
    /// Period, mm.
    pub(crate) pitch: f32,
    pub(crate) kind: Pattern,
    /// Phases in turns of the two axes.
    pub(crate) phase: [f32; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Red, green and blue stripes in square cells.
    Stripes,
    /// Three ink screens at 15°, 75° and 0°.
    Halftone,
}

/// A cosine over the surface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Harmonic {
    /// Turns per mm along x and y.
    frequency: [f32; 2],
    phase: f32,
    /// Amplitude by channel as cosine and sine parts.
    cosine: [f32; 3],
    sine: [f32; 3],
}

/// `sin(πx) / (πx)`.
fn sinc(x: f32) -> f32 {
    if x.abs() < 1e-6 { 1.0 } else { (std::f32::consts::PI * x).sin() / (std::f32::consts::PI * x) }
}

/// What is left of a pattern of `frequency` cycles per output pixel behind optics of spread `point_spread` sensor
/// pixels and a photosite, of which only every `sub_sampling`th is read: `exp(−2π² (σ/D)² f²) · sinc(f/D)`.
pub(crate) fn attenuation(frequency: f32, sub_sampling: f32, point_spread: f32) -> f32 {
    let per_sensor_pixel = frequency / sub_sampling;
    let optics = (-2.0 * (std::f32::consts::PI * point_spread * per_sensor_pixel).powi(2)).exp();
    optics * sinc(per_sensor_pixel)
}

impl Periodic {
    /// The harmonics that a camera with `footprint` mm per output pixel still sees.
    ///
    /// Sampling them at pixel centres aliases them as the camera would.
    pub(crate) fn seen(&self, footprint: f32, sub_sampling: f32, point_spread: f32) -> Vec<Harmonic> {
        let mut seen = Vec::new();
        let mut push = |frequency: [f32; 2], gain: f32, phase: f32, shifts: [f32; 3], weights: [f32; 3]| {
            let cycles = frequency[0].hypot(frequency[1]) * footprint;
            let gain = gain * attenuation(cycles, sub_sampling, point_spread);
            if gain.abs() > 2e-3 {
                let tau = std::f32::consts::TAU;
                let cosine = std::array::from_fn(|c| gain * weights[c] * (tau * shifts[c]).cos());
                let sine = std::array::from_fn(|c| gain * weights[c] * (tau * shifts[c]).sin());
                seen.push(Harmonic { frequency, phase, cosine, sine });
            }
        };
        let unit = 1.0 / self.pitch;
        match self.kind {
            Pattern::Stripes => {
                let across = |k: f32| 2.0 * sinc(0.27 * k);
                let down = |l: f32| 2.0 * sinc(0.8 * l);
                // A stripe of a third of the cell by channel.
                let shifts = |k: f32| [-k / 3.0, 0.0, k / 3.0];
                for k in [1.0, 2.0] {
                    push([k * unit, 0.0], across(k), k * self.phase[0], shifts(k), [1.0; 3]);
                    push([0.0, k * unit], down(k), k * self.phase[1], [0.0; 3], [1.0; 3]);
                }
                for l in [-1.0, 1.0] {
                    let gain = 0.5 * across(1.0) * down(1.0);
                    push([unit, l * unit], gain, self.phase[0] + l * self.phase[1], shifts(1.0), [1.0; 3]);
                }
            }
            Pattern::Halftone => {
                // Cyan takes red light, magenta green, yellow blue.
                for (ink, (degrees, gain)) in [(15.0_f32, 0.35), (75.0, 0.30), (0.0, 0.22)].into_iter().enumerate() {
                    let (sin, cos) = degrees.to_radians().sin_cos();
                    let weights = std::array::from_fn(|c| if c == ink { 1.0 } else { 0.15 });
                    let phase = self.phase[0] + ink as f32 * 0.37;
                    push([cos * unit, sin * unit], gain, phase, [0.0; 3], weights);
                    push([-sin * unit, cos * unit], gain, self.phase[1] - phase, [0.0; 3], weights);
                }
            }
        }
        seen
    }
}

/// The sum of harmonics at a point (mm), by channel.
pub(crate) fn pattern_at(harmonics: &[Harmonic], x: f32, y: f32) -> [f32; 3] {
    let mut sum = [0.0; 3];
    for harmonic in harmonics {
        let turns = harmonic.frequency[0] * x + harmonic.frequency[1] * y + harmonic.phase;
        let (sin, cos) = (std::f32::consts::TAU * (turns - turns.round())).sin_cos();
        for (c, sum) in sum.iter_mut().enumerate() {
            *sum += harmonic.cosine[c] * cos + harmonic.sine[c] * sin;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_skipping_lets_a_monitors_grid_through() {
        // exp(−2π² (σ/D)² f²) sinc(f/D) by hand at m = .977 mm, pitch .265 mm, σ = .45.
        let f = 0.977 / 0.265;
        assert!((attenuation(f, 3.0, 0.45).abs() - 4.1e-4).abs() < 5e-5);
        assert!((attenuation(f, 8.0, 0.45) - 0.293).abs() < 1e-3);
    }

    #[test]
    fn equal_frequency_per_sensor_pixel_is_equally_blurred() {
        assert!((attenuation(2.2, 4.0, 0.4) - attenuation(4.4, 8.0, 0.4)).abs() < 1e-7);
    }

    #[test]
    fn eleven_tenths_of_a_cycle_a_pixel_beat_over_ten_pixels() {
        let grid = Periodic { pitch: 1.0 / 1.1, kind: Pattern::Stripes, phase: [0.0; 2] };
        let harmonics: Vec<Harmonic> = grid.seen(1.0, 8.0, 0.0).into_iter().take(1).collect();
        let samples: Vec<f32> = (0..20).map(|x| pattern_at(&harmonics, x as f32, 0.0)[1]).collect();
        // Phases of tens of turns in f32.
        assert!(samples.iter().zip(&samples[10..]).all(|(a, b)| (a - b).abs() < 1e-3));
        let (low, high) = (samples[5], samples[0]);
        assert!((high + low).abs() < 1e-3 && high > 1.0, "{low} {high}");
    }
}
