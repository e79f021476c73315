//! Products of many rows with weights that were laid out for them beforehand.
//!
//! libtorch lays both sides of a product out anew each time, which for matrices as small as these is a fourth of the work.

use super::basis::{LANES, Lanes};
use super::kernel;
use super::scheme::Scheme;
use rayon::prelude::*;

/// Weights of a convolution in the basis of two schemes.
pub(super) struct Panels {
    points: usize,
    inputs: usize,
    /// `[panels, points, inputs]`, in each panel some outputs side by side.
    values: Vec<Lanes>,
}

impl Panels {
    /// From a weight `[outputs, inputs, 3, 3]`.
    pub(super) fn new(weight: &[f32], [outputs, inputs]: [usize; 2], schemes: &[Scheme; 2]) -> Self {
        let points = schemes.iter().map(Scheme::points).product();
        let mut values = vec![[0.0; LANES]; outputs.div_ceil(LANES) * points * inputs];
        values.par_chunks_exact_mut(points * inputs).enumerate().for_each(|(panel, values)| {
            let first = panel * LANES;
            for input in 0..inputs {
                let mut taps = [[0.0_f64; LANES]; 9];
                for (lane, output) in (first..outputs.min(first + LANES)).enumerate() {
                    for (taps, tap) in taps.iter_mut().zip(&weight[(output * inputs + input) * 9..]) {
                        taps[lane] = f64::from(*tap);
                    }
                }
                let mut point = 0;
                for row in &schemes[0].weight {
                    let half = [0, 1, 2].map(|column| sum_of(row, |tap| &taps[3 * tap + column]));
                    for column in &schemes[1].weight {
                        values[point * inputs + input] = sum_of(column, |tap| &half[tap]).map(|value| value as f32);
                        point += 1;
                    }
                }
            }
        });
        Self { points, inputs, values }
    }

    pub(super) fn points(&self) -> usize {
        self.points
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs, with those that only fill the last panel.
    pub(super) fn width(&self) -> usize {
        self.values.len() / (self.points * self.inputs) * LANES
    }

    /// `values`, `[points, rows, inputs]`, times the weights: `[points, rows, width]`.
    pub(super) fn multiply(&self, values: &[f32], products: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the instructions that the function asks for were just found.
                return unsafe { self.multiply_avx512(values, products) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                return unsafe { self.multiply_avx2(values, products) };
            }
        }
        self.multiply_plain(values, products);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn multiply_avx512(&self, values: &[f32], products: &mut [f32]) {
        // 16 sums in 32 registers.
        self.blocks(values, products, [8, 32], |Block { whole, rows, panel, first, width }, products| {
            if whole {
                kernel::avx512::<8>(rows, panel, first, products, width);
            } else {
                kernel::avx512::<1>(rows, panel, first, products, width);
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn multiply_avx2(&self, values: &[f32], products: &mut [f32]) {
        // 12 sums in 16 registers.
        self.blocks(values, products, [6, 16], |Block { whole, rows, panel, first, width }, products| {
            if whole {
                kernel::avx2::<6>(rows, panel, first, products, width);
            } else {
                kernel::avx2::<1>(rows, panel, first, products, width);
            }
        });
    }

    fn multiply_plain(&self, values: &[f32], products: &mut [f32]) {
        self.blocks(values, products, [4, 8], |Block { whole, rows, panel, first, width }, products| {
            if whole {
                kernel::plain::<4>(rows, panel, first, products, width);
            } else {
                kernel::plain::<1>(rows, panel, first, products, width);
            }
        });
    }

    /// Cuts the product into blocks of rows and columns; rows that are left are blocks by themselves.
    fn blocks(&self, values: &[f32], products: &mut [f32], size: [usize; 2], times: impl Fn(Block, &mut [f32])) {
        let (inputs, width) = (self.inputs, self.width());
        let count = values.len() / (self.points * inputs);
        let whole = count / size[0] * size[0];
        let starts = || (0..whole).step_by(size[0]).map(|row| (row, size[0])).chain((whole..count).map(|row| (row, 1)));
        for point in 0..self.points {
            for (index, panel) in self.values.chunks_exact(self.points * inputs).enumerate() {
                let panel = &panel[point * inputs..][..inputs];
                for first in (0..LANES).step_by(size[1]) {
                    for (row, rows) in starts() {
                        let start = point * count + row;
                        let products = &mut products[start * width + index * LANES + first..];
                        let values = &values[start * inputs..][..rows * inputs];
                        times(Block { whole: rows == size[0], rows: values, panel, first, width }, products);
                    }
                }
            }
        }
    }
}

/// Rows times some columns of a panel.
struct Block<'a> {
    /// As many rows as are done at a time, or one.
    whole: bool,
    rows: &'a [f32],
    panel: &'a [Lanes],
    /// The first of the columns.
    first: usize,
    /// From one row of products to the next.
    width: usize,
}

/// Lanes weighed by three numbers.
fn sum_of<'a>(weights: &[f64], lanes: impl Fn(usize) -> &'a [f64; LANES]) -> [f64; LANES] {
    let [first, second, third] = [0, 1, 2].map(lanes);
    std::array::from_fn(|lane| weights[0] * first[lane] + weights[1] * second[lane] + weights[2] * third[lane])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_whatever_the_processor() {
        let number = |place: usize| (place as f32 * 0.37).sin();
        for (outputs, inputs, rows) in [(1, 1, 1), (40, 5, 13), (64, 3, 16), (33, 7, 0)] {
            let weight: Vec<f32> = (0..outputs * inputs * 9).map(number).collect();
            let panels = Panels::new(&weight, [outputs, inputs], &[Scheme::three(), Scheme::six()]);
            let (points, width) = (panels.points(), panels.width());
            assert_eq!([points, width], [5 * 8, outputs.div_ceil(32) * 32]);
            let values: Vec<f32> = (0..points * rows * inputs).map(|place| number(place + 5)).collect();
            let mut found = vec![vec![f32::NAN; points * rows * width]; 2];
            panels.multiply(&values, &mut found[0]);
            panels.multiply_plain(&values, &mut found[1]);
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(vec![f32::NAN; points * rows * width]);
                // SAFETY: the instructions that the function asks for were just found.
                unsafe { panels.multiply_avx2(&values, &mut found[2]) };
            }
            let [three, six] = [Scheme::three(), Scheme::six()].map(|scheme| scheme.weight);
            for place in 0..points * rows * width {
                let (point, row, output) = (place / width / rows, place / width % rows, place % width);
                let at = |input: usize| {
                    let taps = &weight[(output * inputs + input) * 9..][..9];
                    let taps = taps
                        .iter()
                        .enumerate()
                        .map(|(tap, value)| three[point / 8][tap / 3] * six[point % 8][tap % 3] * f64::from(*value));
                    taps.sum::<f64>() * f64::from(values[(point * rows + row) * inputs + input])
                };
                let exact = if output < outputs { (0..inputs).map(at).sum::<f64>() } else { 0.0 };
                for found in &found {
                    // Seven products of order 10, rounded.
                    assert!((f64::from(found[place]) - exact).abs() < 1e-4, "{place}: {}, {exact}", found[place]);
                }
            }
        }
    }
}
