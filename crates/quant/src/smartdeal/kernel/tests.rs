//! The kernels against dense products with the rebuilt weights, in f64.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::*;
use crate::smartdeal::{Basis, BlockRule, Layout};

/// A layer with the given share of zero rows.
fn layer(shape: LayerShape, seed: u64, zero_rows: f64) -> SdLayer {
    let layout = Layout::new(shape, BlockRule::MaxRows(7)).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut codes = vec![0i8; layout.entries()];
    for row in codes.chunks_mut(layout.columns) {
        if !rng.random_bool(zero_rows) {
            row.fill_with(|| [0, 57, 60, -61, -58, 62][rng.random_range(0..6)]);
        }
    }
    let basis = (0..layout.blocks() * layout.basis_len()).map(|_| rng.random_range(-1f32..1.0)).collect();
    SdLayer::from_parts(layout, codes, Basis::Float(basis)).unwrap()
}

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1f32..1.0)).collect()
}

/// Compares against a dense sum, relative to the sum of magnitudes: f32 addition in another order.
fn assert_close(found: &[f32], expected: &[(f64, f64)], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, (e, scale))) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*f) - e).abs() <= 1e-5 * scale + 1e-12, "{what} at {i}: {f} against {e}");
    }
}

fn dense_linear(weights: &[f32], inputs: &[f32], in_features: usize, bias: &[f32]) -> Vec<(f64, f64)> {
    inputs
        .chunks(in_features)
        .flat_map(|x| {
            weights.chunks(in_features).zip(bias).map(move |(w, b)| {
                let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                products.fold((f64::from(*b), f64::from(b.abs())), |(sum, scale), p| (sum + p, scale + p.abs()))
            })
        })
        .collect()
}

fn dense_conv(
    weights: &[f32],
    inputs: &[f32],
    batch: usize,
    size: [usize; 2],
    out_size: [usize; 2],
    conv: &SdConv2dKernel,
) -> Vec<(f64, f64)> {
    let SdConv2dKernel { out_channels, in_channels, kernel, geometry, .. } = conv;
    let channels = in_channels * geometry.groups;
    let mut out = Vec::new();
    for n in 0..batch {
        for o in 0..*out_channels {
            let group = o / (out_channels / geometry.groups);
            for y in 0..out_size[0] {
                for x in 0..out_size[1] {
                    let (mut sum, mut scale) = (0.0, 0.0);
                    for i in 0..*in_channels {
                        for r in 0..kernel[0] {
                            for c in 0..kernel[1] {
                                let yy = (y * geometry.stride[0] + r * geometry.dilation[0])
                                    .wrapping_sub(geometry.padding[0]);
                                let xx = (x * geometry.stride[1] + c * geometry.dilation[1])
                                    .wrapping_sub(geometry.padding[1]);
                                if yy < size[0] && xx < size[1] {
                                    let w = weights[((o * in_channels + i) * kernel[0] + r) * kernel[1] + c];
                                    let v = inputs
                                        [((n * channels + group * in_channels + i) * size[0] + yy) * size[1] + xx];
                                    sum += f64::from(w) * f64::from(v);
                                    scale += (f64::from(w) * f64::from(v)).abs();
                                }
                            }
                        }
                    }
                    out.push((sum, scale));
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_linear_layer_from_codes_is_the_dense_product(
        seed in any::<u64>(), out_features in 0usize..9, in_features in 7usize..500, batch in 0usize..70, zero_rows in 0f64..=1.0,
    ) {
        let layer = layer(LayerShape::Linear { out_features, in_features }, seed, zero_rows);
        let (inputs, bias) = (values(seed ^ 1, batch * in_features), values(seed ^ 2, out_features));
        let found = SdLinearKernel::new(&layer).unwrap().forward(&inputs, Some(&bias)).unwrap();
        assert_close(&found, &dense_linear(&layer.rebuild(), &inputs, in_features, &bias), "linear");
    }

    #[test]
    fn every_instruction_set_gives_the_dot_product(seed in any::<u64>(), in_features in 7usize..700, zero_rows in 0f64..=1.0) {
        let layer = layer(LayerShape::Linear { out_features: 3, in_features }, seed, zero_rows);
        let inputs = values(seed ^ 1, in_features);
        let mut quads = vec![[0f32; 4]; layer.layout().rows];
        for (quad, x) in quads.iter_mut().zip(inputs.chunks(3)) {
            quad[..x.len()].copy_from_slice(x);
        }
        let expected = dense_linear(&layer.rebuild(), &inputs, in_features, &[0.0; 3]);
        let packed = Packed::new(&layer);
        for (name, dot) in gemv::every_dot() {
            let found: Vec<f32> = (0..3).map(|filter| dot(&packed, filter, &quads)).collect();
            assert_close(&found, &expected, name);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_tiles(seed in any::<u64>(), zero_rows in 0f64..=1.0, points in 1usize..150) {
        let layer = layer(LayerShape::Linear { out_features: 3, in_features: 100 }, seed, zero_rows);
        let rows = Packed::new(&layer).expand(100);
        let row_starts: Vec<usize> = (0..34).map(|row| 3 * row * points).collect();
        let operand = Operand {
            values: &values(seed, 34 * 3 * points + TILE), row_starts: &row_starts, column_stride: points,
            group_stride: 0, filters_per_group: 3, points,
        };
        let plain = spmm::multiply(&rows, &operand, spmm::tile_scalar);
        for (name, tile) in spmm::every_tile() {
            let found = spmm::multiply(&rows, &operand, tile);
            for (f, p) in found.as_flattened().iter().zip(plain.as_flattened()) {
                // 102 products of at most 4 each, fused or not.
                prop_assert!((f - p).abs() < 1e-3, "{}", name);
            }
        }
    }

    #[test]
    fn a_convolution_from_codes_is_the_dense_convolution(
        seed in any::<u64>(), filters in 1usize..4, in_channels in 1usize..8, kernel in prop_oneof![Just(1usize), Just(3), Just(3), Just(5)],
        groups in 1usize..3, height in 1usize..12, width in 1usize..12, stride in 1usize..3, dilation in 1usize..3,
        padding in 0usize..3, batch in 0usize..4, zero_rows in 0f64..=1.0,
    ) {
        // A 1×1 kernel needs enough channels for a matrix.
        let in_channels = if kernel == 1 { in_channels + 7 } else if kernel == 5 { in_channels.max(2) } else { in_channels };
        let shape = LayerShape::Conv { out_channels: filters * groups, in_channels, kernel: [kernel; 2] };
        let layer = layer(shape, seed, zero_rows);
        let geometry = ConvGeometry { stride: [stride, 3 - stride], padding: [padding, 2 - padding], dilation: [dilation, 3 - dilation], groups };
        let conv = SdConv2dKernel::new(&layer, geometry).unwrap();
        let size = [height, width];
        let inputs = values(seed ^ 1, batch * in_channels * groups * height * width);
        match conv.output_size(size) {
            None => {
                let refused = matches!(conv.forward(&inputs, batch, size, None), Err(Error::Shape { .. }));
                prop_assert!(refused);
            }
            Some(out_size) => {
                let found = conv.forward(&inputs, batch, size, None).unwrap();
                assert_close(&found, &dense_conv(&layer.rebuild(), &inputs, batch, size, out_size, &conv), "conv");
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let linear = layer(LayerShape::Linear { out_features: 2, in_features: 9 }, 1, 0.5);
    let kernel = SdLinearKernel::new(&linear).unwrap();
    assert!(matches!(kernel.forward(&[0.0; 10], None), Err(Error::Shape { .. })));
    assert!(matches!(kernel.forward(&[0.0; 9], Some(&[0.0])), Err(Error::Shape { .. })));
    assert!(matches!(SdConv2dKernel::new(&linear, ConvGeometry::default()), Err(Error::Shape { .. })));
    let conv = layer(LayerShape::Conv { out_channels: 2, in_channels: 2, kernel: [3, 3] }, 1, 0.5);
    assert!(matches!(SdLinearKernel::new(&conv), Err(Error::Shape { .. })));
    let bad = ConvGeometry { groups: 3, ..ConvGeometry::default() };
    assert!(matches!(SdConv2dKernel::new(&conv, bad), Err(Error::Config { name: "geometry", .. })));
    let kernel = SdConv2dKernel::new(&conv, ConvGeometry::default()).unwrap();
    assert!(matches!(kernel.forward(&[0.0; 7], 1, [4, 4], None), Err(Error::Shape { .. })));
}

/// A layer cut as no rule of this crate cuts it, but a file may.
fn foreign(shape: LayerShape, rows: usize, columns: usize) -> SdLayer {
    let layout = Layout { shape, rows, columns, block_rows: rows };
    let codes = (0..layout.entries()).map(|i| [64, 0, -63, 65][i % 4]).collect();
    let basis = Basis::Float(values(3, layout.blocks() * layout.basis_len()));
    SdLayer::from_parts(layout, codes, basis).unwrap()
}

#[test]
fn cuts_that_no_product_follows_are_refused() {
    let linear = LayerShape::Linear { out_features: 2, in_features: 10 };
    assert!(matches!(SdLinearKernel::new(&foreign(linear, 2, 5)), Err(Error::Shape { .. })));
    // More rows of padding than needed do no harm.
    let padded = foreign(linear, 6, 3);
    let (inputs, bias) = (values(4, 10), [0.5, -0.5]);
    let found = SdLinearKernel::new(&padded).unwrap().forward(&inputs, Some(&bias)).unwrap();
    assert_close(&found, &dense_linear(&padded.rebuild(), &inputs, 10, &bias), "padded");
    let conv = LayerShape::Conv { out_channels: 2, in_channels: 2, kernel: [3, 3] };
    for (rows, columns) in [(9, 2), (7, 3), (3, 6)] {
        let refused = SdConv2dKernel::new(&foreign(conv, rows, columns), ConvGeometry::default());
        assert!(matches!(refused, Err(Error::Shape { .. })), "{rows} rows of {columns}");
    }
}

#[test]
fn kernels_of_one_column_and_vectors_of_any_are_convolved() {
    for (kernel, rows, columns) in [([3, 1], 6, 1), ([1, 1], 1, 2), ([1, 1], 1, 5)] {
        let layer = foreign(LayerShape::Conv { out_channels: 2, in_channels: 2, kernel }, rows, columns);
        for stride in [1, 2] {
            let geometry = ConvGeometry { stride: [stride; 2], padding: [1, 0], ..ConvGeometry::default() };
            let conv = SdConv2dKernel::new(&layer, geometry).unwrap();
            let (inputs, out_size) = (values(5, 2 * 2 * 5 * 4), conv.output_size([5, 4]).unwrap());
            let found = conv.forward(&inputs, 2, [5, 4], None).unwrap();
            assert_close(&found, &dense_conv(&layer.rebuild(), &inputs, 2, [5, 4], out_size, &conv), "foreign");
        }
    }
}
