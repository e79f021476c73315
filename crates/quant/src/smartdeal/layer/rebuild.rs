//! Layer to weights: coefficients times basis.

use rayon::prelude::*;

use super::SdLayer;
use crate::smartdeal::Layout;
use crate::smartdeal::ladder::decode_coefficient;

impl SdLayer {
    /// The weights `Ce·B`, row-major in the shape's dimensions, padding dropped.
    pub fn rebuild(&self) -> Vec<f32> {
        let mut weights = vec![0f32; self.shape().weights()];
        let len = self.shape().filter_len();
        if weights.is_empty() {
            return weights;
        }
        let basis = self.basis.to_floats();
        let per_filter = self.layout.blocks_per_filter() * self.layout.basis_len();
        weights
            .par_chunks_mut(len)
            .zip(self.codes.par_chunks(self.layout.filter_entries()))
            .zip(basis.par_chunks(per_filter))
            .for_each(|((weights, codes), basis)| rebuild_filter(weights, codes, basis, &self.layout));
        weights
    }
}

/// The value of every code, indexed by the code's byte.
static VALUES: [f32; 256] = {
    let mut values = [0f32; 256];
    let mut code = 1;
    while code < 128 {
        // ±2^(code − 64) in f32's own encoding.
        values[code] = f32::from_bits((code as u32 + 63) << 23);
        values[256 - code] = f32::from_bits((code as u32 + 63) << 23 | 0x8000_0000);
        code += 1;
    }
    values
};

fn rebuild_filter(weights: &mut [f32], codes: &[i8], basis: &[f32], layout: &Layout) {
    let columns = layout.columns;
    for (block, basis) in basis.chunks_exact(layout.basis_len()).enumerate() {
        let rows = layout.block_range(block);
        let entries = rows.start * columns..(rows.end * columns).min(weights.len());
        if entries.is_empty() {
            continue;
        }
        let codes = &codes[rows.start * columns..rows.end * columns];
        if columns == 3 {
            rebuild_three(&mut weights[entries], codes, basis);
        } else {
            rebuild_rows(&mut weights[entries], codes, basis, columns);
        }
    }
}

/// Any number of columns; the plain twin of [`rebuild_three`].
fn rebuild_rows(weights: &mut [f32], codes: &[i8], basis: &[f32], columns: usize) {
    for (out, row) in weights.chunks_mut(columns).zip(codes.chunks_exact(columns)) {
        out.fill(0.0);
        for (code, basis_row) in row.iter().zip(basis.chunks_exact(columns)) {
            if *code != 0 {
                let c = decode_coefficient(*code);
                for (o, b) in out.iter_mut().zip(basis_row) {
                    *o += c * b;
                }
            }
        }
    }
}

/// Three columns: a row is three scaled vectors of four lanes; the fourth lane is overwritten by the next row.
fn rebuild_three(weights: &mut [f32], codes: &[i8], basis: &[f32]) {
    let lane = |k: usize| [basis[3 * k], basis[3 * k + 1], basis[3 * k + 2], 0.0];
    let b = [lane(0), lane(1), lane(2)];
    let whole = weights.len().saturating_sub(1) / 3;
    let row_values = |row: &[i8]| {
        let c: [f32; 3] = std::array::from_fn(|k| VALUES[row[k] as u8 as usize]);
        std::array::from_fn::<f32, 4, _>(|j| c[0] * b[0][j] + c[1] * b[1][j] + c[2] * b[2][j])
    };
    for (row, codes) in codes.chunks_exact(3).take(whole).enumerate() {
        weights[3 * row..3 * row + 4].copy_from_slice(&row_values(codes));
    }
    for (out, codes) in weights[3 * whole..].chunks_mut(3).zip(codes[3 * whole..].chunks_exact(3)) {
        out.copy_from_slice(&row_values(codes)[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::layer::tests::random_weights;
    use crate::smartdeal::{BlockRule, DecomposeConfig, LayerShape};
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = LayerShape> {
        prop_oneof![
            (0usize..6, 7usize..400)
                .prop_map(|(out_features, in_features)| LayerShape::Linear { out_features, in_features }),
            (0usize..6, 7usize..90).prop_map(|(o, i)| LayerShape::Conv {
                out_channels: o,
                in_channels: i,
                kernel: [1, 1]
            }),
            (0usize..6, 1usize..80).prop_map(|(o, i)| LayerShape::Conv {
                out_channels: o,
                in_channels: i,
                kernel: [3, 3]
            }),
            (0usize..4, 1usize..9, 2usize..8).prop_map(|(o, i, k)| LayerShape::Conv {
                out_channels: o,
                in_channels: i,
                kernel: [k, k]
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rebuilt_weights_are_coefficients_times_basis(shape in shapes(), seed in any::<u64>(), reference in any::<bool>()) {
            let config = DecomposeConfig {
                block_rule: if reference { BlockRule::Reference } else { BlockRule::MaxRows(5) },
                ..DecomposeConfig::with_theta(0.02)
            };
            let weights = random_weights(seed, shape.weights());
            let layer = SdLayer::decompose(&weights, shape, &config).unwrap();
            let (layout, basis) = (*layer.layout(), layer.basis().to_floats());
            let rebuilt = layer.rebuild();
            let n = layout.columns;
            for (i, value) in rebuilt.iter().enumerate() {
                let (filter, offset) = (i / shape.filter_len(), i % shape.filter_len());
                let (row, column) = (offset / n, offset % n);
                let block = filter * layout.blocks_per_filter() + row / layout.block_rows;
                let mut expected = 0f64;
                let mut scale = 0f64;
                for k in 0..n {
                    let c = f64::from(decode_coefficient(layer.codes()[filter * layout.filter_entries() + row * n + k]));
                    let product = c * f64::from(basis[block * n * n + k * n + column]);
                    expected += product;
                    scale += product.abs();
                }
                // Products with powers of two are exact; n − 1 additions round once each.
                prop_assert!((f64::from(*value) - expected).abs() <= scale * n as f64 * f64::from(f32::EPSILON));
            }
        }
    }

    #[test]
    fn the_quick_table_of_values_is_the_definition() {
        for code in -127i8..=127 {
            assert_eq!(VALUES[code as u8 as usize].to_bits(), decode_coefficient(code).to_bits(), "{code}");
        }
    }
}
