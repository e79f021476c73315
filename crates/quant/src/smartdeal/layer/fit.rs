//! Weights to layer: filter by filter, block by block.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::{Basis, SdLayer, check_weights};
use crate::smartdeal::decompose::{Scratch, decompose_plain};
use crate::smartdeal::ladder::code_of_rung;
use crate::smartdeal::{DecomposeConfig, LayerShape, Layout, Projection};
use crate::{Error, Result};

impl SdLayer {
    /// Decomposes a layer's weights (row-major, the shape's dimensions), its filters in parallel. The result does
    /// not depend on the number of threads.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting outside its range, or [`Projection::Real`], which has no codes; as
    /// [`Layout::new`] for a shape that has no cut; [`Error::Shape`] or [`Error::NotFinite`] for weights that do not
    /// fit the shape or are not finite, and [`Error::NotFinite`] for a basis beyond single precision.
    pub fn decompose(weights: &[f32], shape: LayerShape, config: &DecomposeConfig) -> Result<Self> {
        config.validate()?;
        let layout = Layout::new(shape, config.block_rule)?;
        check_weights(weights, &shape)?;
        if let Projection::Real = config.projection {
            return Err(Error::Config {
                name: "projection",
                expected: "powers of two (a layer is stored as codes)",
                found: "real".into(),
            });
        }
        let mut codes = vec![0i8; layout.entries()];
        let basis_per_filter = layout.blocks_per_filter() * layout.basis_len();
        let mut basis = vec![0f32; layout.shape.filters() * basis_per_filter];
        if !weights.is_empty() {
            codes
                .par_chunks_mut(layout.filter_entries())
                .zip(basis.par_chunks_mut(basis_per_filter))
                .zip(weights.par_chunks(shape.filter_len()))
                .try_for_each_init(Scratch::default, |scratch, ((codes, basis), weights)| {
                    decompose_filter(weights, &layout, config, scratch, codes, basis)
                })?;
        }
        Ok(Self { layout, codes, basis: Basis::Float(basis) })
    }
}

fn decompose_filter(
    weights: &[f32],
    layout: &Layout,
    config: &DecomposeConfig,
    scratch: &mut Scratch,
    codes: &mut [i8],
    basis: &mut [f32],
) -> Result<()> {
    let columns = layout.columns;
    // Padding is zero.
    let mut padded;
    let weights = if weights.len() == layout.filter_entries() {
        weights
    } else {
        padded = vec![0f32; layout.filter_entries()];
        padded[..weights.len()].copy_from_slice(weights);
        &padded[..]
    };
    for (block, basis) in basis.chunks_exact_mut(layout.basis_len()).enumerate() {
        let rows = layout.block_range(block);
        let entries = rows.start * columns..rows.end * columns;
        let (w, codes) = (&weights[entries.clone()], &mut codes[entries]);
        if columns == 3 && config.scale.is_none() {
            scratch.load(rows.len(), |i, j| f64::from(w[i * 3 + j]));
            let outcome = scratch.fit(config);
            for (row, codes) in codes.chunks_exact_mut(3).enumerate() {
                for (j, code) in codes.iter_mut().enumerate() {
                    *code = code_of_rung(scratch.coefficient(row, j));
                }
            }
            for (to, from) in basis.iter_mut().zip(outcome.basis.as_flattened()) {
                *to = *from as f32;
            }
        } else {
            let w: Vec<f64> = w.iter().map(|v| f64::from(*v)).collect();
            let view = ArrayView2::from_shape((rows.len(), columns), &w).map_err(|e| Error::Shape {
                what: "block".into(),
                expected: format!("{} × {columns}", rows.len()),
                found: e.to_string(),
            })?;
            let factors = decompose_plain(&view, config)?;
            codes.copy_from_slice(&factors.codes(config)?);
            for (to, from) in basis.iter_mut().zip(&factors.basis) {
                *to = *from as f32;
            }
        }
        if let Some(position) = basis.iter().position(|b| !b.is_finite()) {
            return Err(Error::NotFinite { what: "basis".into(), position, value: f64::from(basis[position]) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::layer::tests::random_weights;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn threads_do_not_change_a_layer(seed in any::<u64>()) {
            let shape = LayerShape::Conv { out_channels: 7, in_channels: 5, kernel: [3, 3] };
            let weights = random_weights(seed, shape.weights());
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.02)).unwrap())
            };
            prop_assert_eq!(run(1), run(3));
        }
    }

    #[test]
    fn bad_weights_are_refused() {
        let shape = LayerShape::Linear { out_features: 2, in_features: 9 };
        let config = DecomposeConfig::default();
        assert!(matches!(SdLayer::decompose(&[0.0; 17], shape, &config), Err(Error::Shape { .. })));
        let mut weights = [0.1; 18];
        weights[4] = f32::INFINITY;
        assert!(matches!(SdLayer::decompose(&weights, shape, &config), Err(Error::NotFinite { position: 4, .. })));
        let real = DecomposeConfig { projection: Projection::Real, ..config };
        assert!(matches!(SdLayer::decompose(&[0.1; 18], shape, &real), Err(Error::Config { .. })));
    }
}
