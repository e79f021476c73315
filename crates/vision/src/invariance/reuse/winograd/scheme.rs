//! One axis of a convolution with three taps by fewer multiplications.

use std::f64::consts::SQRT_2;

/// A convolution of three taps along one axis, stride 1 and one zero at each end, as `output · ((weight · taps) ∘ (input · window))` for each
/// tile. All three are rows.
#[derive(Clone)]
pub(super) struct Scheme {
    /// `[points, window]`.
    pub(super) input: Vec<Vec<f64>>,
    /// `[points, 3]`.
    pub(super) weight: Vec<Vec<f64>>,
    /// `[tile, points]`.
    pub(super) output: Vec<Vec<f64>>,
    /// Whether the first window begins with the zero before the first cell.
    pub(super) padded: bool,
}

impl Scheme {
    /// Those that an axis of so many cells can choose from.
    pub(super) fn all(cells: usize) -> Vec<Self> {
        let mut schemes = vec![Self::three(), Self::six()];
        schemes.iter_mut().for_each(|scheme| scheme.leave_zeros_out(cells));
        if cells == 3 {
            schemes.push(Self::whole());
        }
        schemes
    }

    /// Three outputs from five inputs. Small integers as points keep rounding within ten times that of the plain sum.
    pub(super) fn three() -> Self {
        Self::at_points(&[0.0, 1.0, -1.0, 2.0], 3)
    }

    /// Six outputs from eight inputs. Rounds about four times as coarsely as [`three`](Self::three).
    pub(super) fn six() -> Self {
        Self::at_points(&[0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5], 6)
    }

    /// A window's polynomial is known by its values at these points and, at ∞, by its leading coefficient.
    fn at_points(points: &[f64], tile: usize) -> Self {
        let powers = |count: usize| {
            let finite = points.iter().map(|point| (0..count as i32).map(|power| point.powi(power)).collect());
            let infinite = (1..=count).map(|power| f64::from(u8::from(power == count))).collect();
            finite.chain([infinite]).collect::<Vec<Vec<f64>>>()
        };
        let (mut input, mut weight) = (Vec::new(), powers(3));
        for (index, point) in points.iter().enumerate() {
            let others = [&points[..index], &points[index + 1..]].concat();
            let divisor: f64 = others.iter().map(|other| point - other).product();
            weight[index].iter_mut().for_each(|value| *value /= divisor);
            input.push(vanishing_at(&others, points.len() + 1));
        }
        input.push(vanishing_at(points, points.len() + 1));
        let powers = powers(tile);
        let output = (0..tile).map(|place| powers.iter().map(|row| row[place]).collect()).collect();
        Self { input, weight, output, padded: true }
    }

    /// An axis of three cells, whole.
    ///
    /// There a convolution with taps `(a, b, c)` is the matrix `a·N + b·I + c·Nᵀ` with the shift `N`. `N` and `Nᵀ` do not commute, but with a
    /// row and a column more they can: `N` with the column `(1, 0, −1)` and the row `(2, 0, −2)`, `Nᵀ` with `(−1, 0, 1/2)` and `(−1, 0, 2)`. Both
    /// then have the same four real eigenvectors, with values `t` where `t⁴ − 4t² + 2 = 0`, and `(1 − t²)/t`. Four products are the least there can be
    /// (Strassen's bound: 3 and half of the commutator's rank), and these points round hardly worse than the plain sum.
    pub(super) fn whole() -> Self {
        let squares = [2.0 + SQRT_2, 2.0 - SQRT_2];
        let values = squares.map(f64::sqrt).into_iter().flat_map(|value| [value, -value]);
        let mut scheme = Self { input: vec![], weight: vec![], output: vec![vec![]; 3], padded: false };
        for value in values {
            let other = (1.0 - value * value) / value;
            let right = [value, 1.0, other];
            // The left eigenvector times the right one.
            let length = 4.0 - 4.0 * value * value;
            scheme.input.push(vec![other, 1.0, value]);
            scheme.weight.push(right.map(|entry| entry / length).to_vec());
            scheme.output.iter_mut().zip(right).for_each(|(row, entry)| row.push(entry));
        }
        scheme
    }

    /// Where one tile is the whole axis, the zeros at its ends need no basis.
    fn leave_zeros_out(&mut self, cells: usize) {
        if self.padded && cells == self.tile() {
            self.input.iter_mut().for_each(|row| *row = row[1..=cells].to_vec());
            self.padded = false;
        }
    }

    pub(super) fn tile(&self) -> usize {
        self.output.len()
    }

    pub(super) fn window(&self) -> usize {
        self.input[0].len()
    }

    pub(super) fn points(&self) -> usize {
        self.input.len()
    }
}

/// The coefficients, lowest first, of the polynomial with these zeros.
fn vanishing_at(zeros: &[f64], count: usize) -> Vec<f64> {
    let mut polynomial = vec![0.0; count];
    polynomial[0] = 1.0;
    for zero in zeros {
        for power in (0..count).rev() {
            let lower = if power > 0 { polynomial[power - 1] } else { 0.0 };
            polynomial[power] = lower - zero * polynomial[power];
        }
    }
    polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In double precision each scheme is the convolution itself, whatever the other axis does.
    #[test]
    fn every_scheme_is_the_convolution() {
        let taps = [0.3, -1.1, 0.7];
        for cells in 1..14 {
            let axis: Vec<f64> = (0..cells).map(|cell| ((cell * cell + 1) as f64).sin()).collect();
            let at = |cell: usize| if (1..=cells).contains(&cell) { axis[cell - 1] } else { 0.0 };
            for scheme in Scheme::all(cells) {
                let dot = |row: &[f64], values: &[f64]| row.iter().zip(values).map(|(a, b)| a * b).sum::<f64>();
                for start in (0..cells).step_by(scheme.tile()) {
                    let first = start + usize::from(!scheme.padded);
                    let window: Vec<f64> = (first..first + scheme.window()).map(at).collect();
                    let products: Vec<f64> = (0..scheme.points())
                        .map(|point| dot(&scheme.weight[point], &taps) * dot(&scheme.input[point], &window))
                        .collect();
                    for place in 0..scheme.tile().min(cells - start) {
                        let exact = dot(&taps, &[0, 1, 2].map(|tap| at(start + place + tap)));
                        let found = dot(&scheme.output[place], &products);
                        assert!((found - exact).abs() < 1e-13, "{cells} cells, place {place}: {found}, {exact}");
                    }
                }
            }
        }
    }
}
