//! Ink on paper: from a photograph's colours to a print's reflectance.

use super::plane::Rgb;

/// What a printer does to colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Printer {
    /// Dot gain: dots spread by `4 g a (1 − a)`.
    pub(crate) gain: f32,
    /// Yule–Nielsen exponent: light scattering between dots.
    pub(crate) n: f32,
    /// Share of grey taken over by black ink.
    pub(crate) under_colour_removal: f32,
    /// Pitch of the halftone screen, mm.
    pub(crate) pitch: f32,
}

/// Laser, inkjet, photo.
pub(crate) const PRINTERS: [Printer; 3] = [
    Printer { gain: 0.10, n: 1.8, under_colour_removal: 0.3, pitch: 0.25 },
    Printer { gain: 0.16, n: 2.0, under_colour_removal: 0.5, pitch: 0.21 },
    Printer { gain: 0.07, n: 1.7, under_colour_removal: 0.2, pitch: 0.17 },
];

/// Reflectance of the eight overprints of cyan, magenta, yellow: W C M Y CM CY MY CMY.
const PRIMARIES: [Rgb; 8] = [
    [0.87, 0.86, 0.84],
    [0.06, 0.35, 0.60],
    [0.58, 0.07, 0.20],
    [0.82, 0.72, 0.07],
    [0.08, 0.06, 0.22],
    [0.06, 0.30, 0.09],
    [0.55, 0.07, 0.05],
    [0.06, 0.055, 0.05],
];
const BLACK: f32 = 0.035;

/// Bare paper.
pub(crate) const PAPER: Rgb = PRIMARIES[0];

/// A printer with the powers of its primaries.
#[derive(Debug)]
pub(crate) struct Press {
    printer: Printer,
    roots: [Rgb; 8],
    black: f32,
    power: Power,
}

impl Press {
    pub(crate) fn new(printer: Printer) -> Self {
        let root = |reflectance: f32| reflectance.powf(1.0 / printer.n);
        Self {
            printer,
            roots: PRIMARIES.map(|primary| primary.map(root)),
            black: root(BLACK),
            power: Power::new(|x| x.powf(printer.n)),
        }
    }

    /// The print of a linear colour, contrast compressed by `lin^0.92` as printer drivers do.
    #[cfg(test)]
    pub(crate) fn print(&self, linear: Rgb) -> Rgb {
        self.print_driven(linear.map(|value| value.clamp(0.0, 1.0).powf(0.92)))
    }

    /// The print of a linear colour that went through the driver.
    pub(crate) fn print_driven(&self, driven: Rgb) -> Rgb {
        let cmy = driven.map(|value| 1.0 - value);
        let black = self.printer.under_colour_removal * cmy[0].min(cmy[1]).min(cmy[2]);
        let left = (1.0 - black).max(1e-6);
        self.ink(cmy.map(|ink| (ink - black) / left), black)
    }

    /// Reflectance of nominal dot areas: dot gain, Demichel's overprint weights, Yule–Nielsen–Neugebauer mixing.
    pub(crate) fn ink(&self, cmy: Rgb, black: f32) -> Rgb {
        let gain = |area: f32| (area + 4.0 * self.printer.gain * area * (1.0 - area)).clamp(0.0, 1.0);
        let ([c, m, y], k) = (cmy.map(gain), gain(black));
        let (nc, nm, ny) = (1.0 - c, 1.0 - m, 1.0 - y);
        let weights =
            [nc * nm * ny, c * nm * ny, nc * m * ny, nc * nm * y, c * m * ny, c * nm * y, nc * m * y, c * m * y];
        std::array::from_fn(|channel| {
            let mixed: f32 = weights.iter().zip(&self.roots).map(|(weight, root)| weight * root[channel]).sum();
            self.power.at(mixed * (1.0 - k) + k * self.black)
        })
    }
}

/// A smooth function on [0, 1] by a table of 2048 chords: for powers from 0.4 up within 1e-4, from 1.5 up within 1e-6.
#[derive(Debug)]
pub(crate) struct Power(Vec<f32>);

impl Power {
    pub(crate) fn new(f: impl Fn(f32) -> f32) -> Self {
        Self((0..=2048).map(|i| f(i as f32 / 2048.0)).collect())
    }

    pub(crate) fn at(&self, x: f32) -> f32 {
        let position = x.clamp(0.0, 1.0) * 2048.0;
        let index = (position as usize).min(2047);
        let (from, to) = (self.0[index], self.0[index + 1]);
        from + (position - index as f32) * (to - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: Rgb, expected: Rgb) {
        // Powers and sums in f32 of numbers below 1.
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 5e-6), "{found:?} against {expected:?}");
    }

    fn printer(gain: f32, n: f32, under_colour_removal: f32) -> Press {
        Press::new(Printer { gain, n, under_colour_removal, pitch: 0.2 })
    }

    #[test]
    fn bare_paper_and_full_ink_are_the_primaries() {
        for n in [1.0, 1.7, 2.0] {
            assert_close(printer(0.1, n, 0.0).print([1.0; 3]), [0.87, 0.86, 0.84]);
            assert_close(printer(0.1, n, 0.0).print([0.0; 3]), [0.06, 0.055, 0.05]);
            assert_close(printer(0.1, n, 1.0).print([0.0; 3]), [0.035; 3]);
        }
    }

    #[test]
    fn half_cyan_mixes_as_computed_by_hand() {
        // a = .5 + 4 · .1 · .25 = .6; (.4 √W + .6 √C)² by channel.
        assert_close(printer(0.10, 2.0, 0.0).ink([0.5, 0.0, 0.0], 0.0), [0.270467, 0.526945, 0.691166]);
    }

    #[test]
    fn mid_grey_is_darker_in_print() {
        // c = m = y = .5 before black removal: k = .15, (.5 − .15)/.85, dot gain on all four inks.
        let press = printer(0.1, 1.8, 0.3);
        let k = 0.3 * 0.5;
        let expected = [0.229091, 0.187676, 0.161559];
        assert_close(press.ink([(0.5 - k) / (1.0 - k); 3], k), expected);
    }
}
