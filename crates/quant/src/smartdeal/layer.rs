//! A whole layer in compressed form.

use ndarray::ArrayView2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decompose::{Scratch, decompose_plain};
use super::ladder::{code_of_rung, decode_coefficient, exponent_of_code};
use super::{DecomposeConfig, LayerShape, Layout, Projection};
use crate::{Error, Result};

/// The bases of a layer's blocks, `[blocks, columns, columns]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Basis {
    /// Full precision: 32 bits an entry.
    Float(Vec<f32>),
    /// Fixed point: entry = `scale` · value.
    Fixed {
        /// Width of a value in the file, 2 to 16 bits.
        bits: u8,
        /// One step.
        scale: f32,
        /// Signed values within `±(2^(bits−1) − 1)`.
        values: Vec<i16>,
    },
}

impl Basis {
    /// Entries of all bases: `N_B`.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Fixed { values, .. } => values.len(),
        }
    }

    /// Whether there is no block at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits of an entry: `b_B`.
    pub fn bits(&self) -> u32 {
        match self {
            Self::Float(_) => 32,
            Self::Fixed { bits, .. } => u32::from(*bits),
        }
    }

    /// The entries as numbers.
    pub fn to_floats(&self) -> Vec<f32> {
        match self {
            Self::Float(values) => values.clone(),
            Self::Fixed { scale, values, .. } => values.iter().map(|v| f32::from(*v) * scale).collect(),
        }
    }

    /// Rounds to symmetric fixed point with one scale for the layer, the largest magnitude being full scale.
    pub fn quantised(&self, bits: u8) -> Result<Self> {
        if !(2..=16).contains(&bits) {
            return Err(Error::Config { name: "basis_bits", expected: "2 to 16, or 32", found: bits.to_string() });
        }
        let floats = self.to_floats();
        let largest = floats.iter().fold(0f32, |m, v| m.max(v.abs()));
        let top = ((1i32 << (bits - 1)) - 1) as f32;
        let scale = if largest == 0.0 { 1.0 } else { largest / top };
        let values = floats.iter().map(|v| (v / scale).round().clamp(-top, top) as i16).collect();
        Ok(Self::Fixed { bits, scale, values })
    }
}

/// How sparse a layer is, and how far from its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStats {
    /// Coefficients, padding included.
    pub entries: usize,
    /// Non-zero coefficients.
    pub non_zeros: usize,
    /// Coefficient rows ("vectors").
    pub rows: usize,
    /// Rows without a non-zero.
    pub zero_rows: usize,
    /// Input channels (or input features, where a row of three counts as one) that no filter reads.
    pub zero_channels: usize,
    /// Distinct non-zero magnitudes: `K`.
    pub magnitudes: usize,
}

impl LayerStats {
    /// Zeros among the coefficients.
    pub fn element_sparsity(&self) -> f64 {
        1.0 - ratio(self.non_zeros, self.entries)
    }

    /// Zero rows among the rows.
    pub fn vector_sparsity(&self) -> f64 {
        ratio(self.zero_rows, self.rows)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// One layer: a code for every coefficient, a basis for every block.
///
/// ```
/// use quant::smartdeal::{DecomposeConfig, LayerShape, SdLayer};
/// let weights: Vec<f32> = (0..8 * 30).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let shape = LayerShape::Linear { out_features: 8, in_features: 30 };
/// let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.01))?;
/// assert!(layer.relative_error(&weights)? < 0.2);
/// # Ok::<(), quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SdLayer {
    layout: Layout,
    codes: Vec<i8>,
    basis: Basis,
}

impl SdLayer {
    /// Decomposes a layer's weights (row-major, the shape's dimensions), its filters in parallel. The result does
    /// not depend on the number of threads.
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

    /// A layer from its parts, refused where they do not fit one another.
    pub fn from_parts(layout: Layout, codes: Vec<i8>, basis: Basis) -> Result<Self> {
        let mismatch = |what: &str, expected: usize, found: usize| Error::Shape {
            what: format!("{what} of {:?}", layout.shape.dims()),
            expected: expected.to_string(),
            found: found.to_string(),
        };
        if codes.len() != layout.entries() {
            return Err(mismatch("coefficients", layout.entries(), codes.len()));
        }
        let basis_len = layout.blocks() * layout.basis_len();
        if basis.len() != basis_len {
            return Err(mismatch("basis entries", basis_len, basis.len()));
        }
        if let Some(position) = codes.iter().position(|c| *c == i8::MIN) {
            return Err(Error::OffLadder { value: f64::from(codes[position]), p_min: -63, p_max: 63 });
        }
        let floats = basis.to_floats();
        if let Some(position) = floats.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { what: "basis".into(), position, value: f64::from(floats[position]) });
        }
        Ok(Self { layout, codes, basis })
    }

    /// The same layer with its bases rounded to `bits` (2 to 16) of fixed point. SmartExchange keeps 8.
    pub fn with_basis_bits(self, bits: u8) -> Result<Self> {
        Ok(Self { basis: self.basis.quantised(bits)?, ..self })
    }

    /// The cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layer's shape.
    pub fn shape(&self) -> LayerShape {
        self.layout.shape
    }

    /// The codes, `[filters, rows, columns]`, see [`decode_coefficient`].
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The bases.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

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

    /// `‖W − Ce·B‖_F / ‖W‖_F` against the given weights.
    pub fn relative_error(&self, weights: &[f32]) -> Result<f64> {
        check_weights(weights, &self.shape())?;
        let (mut rest, mut whole) = (0.0, 0.0);
        for (w, r) in weights.iter().zip(self.rebuild()) {
            rest += f64::from(w - r).powi(2);
            whole += f64::from(*w).powi(2);
        }
        Ok(if whole == 0.0 { 0.0 } else { (rest / whole).sqrt() })
    }

    /// Counts zeros, zero rows, zero channels and magnitudes.
    pub fn stats(&self) -> LayerStats {
        let columns = self.layout.columns;
        let kernel_rows = match self.shape() {
            LayerShape::Conv { kernel: [height, width], .. } if width > 1 => height,
            _ => 1,
        };
        let mut row_in_use = vec![false; self.layout.rows];
        let (mut non_zeros, mut zero_rows) = (0, 0);
        for (row, codes) in self.codes.chunks_exact(columns).enumerate() {
            let count = codes.iter().filter(|c| **c != 0).count();
            non_zeros += count;
            zero_rows += usize::from(count == 0);
            row_in_use[row % self.layout.rows] |= count > 0;
        }
        let zero_channels = row_in_use.chunks(kernel_rows).filter(|rows| rows.iter().all(|in_use| !in_use)).count();
        LayerStats {
            entries: self.codes.len(),
            non_zeros,
            rows: self.layout.total_rows(),
            zero_rows,
            zero_channels,
            magnitudes: self.exponents().len(),
        }
    }

    /// The exponents in use, ascending.
    pub fn exponents(&self) -> Vec<i8> {
        let mut seen = [false; 128];
        for code in &self.codes {
            seen[usize::from(code.unsigned_abs()) & 127] = true;
        }
        (1..=127i8).filter(|c| seen[*c as usize]).filter_map(exponent_of_code).collect()
    }
}

pub(crate) fn check_weights(weights: &[f32], shape: &LayerShape) -> Result<()> {
    if weights.len() != shape.weights() {
        return Err(Error::Shape {
            what: "weights".into(),
            expected: format!("{:?}", shape.dims()),
            found: format!("{} values", weights.len()),
        });
    }
    match weights.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => {
            Err(Error::NotFinite { what: "weights".into(), position, value: f64::from(weights[position]) })
        }
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
    use crate::smartdeal::BlockRule;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    fn random_weights(seed: u64, count: usize) -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| ((0..6).map(|_| rng.random::<f32>()).sum::<f32>() - 3.0) * 0.08).collect()
    }

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

        #[test]
        fn a_rounded_basis_is_within_half_a_step(seed in any::<u64>(), bits in 2u8..=16) {
            let basis = Basis::Float(random_weights(seed, 45));
            let Basis::Fixed { scale, .. } = basis.quantised(bits).unwrap() else { panic!("fixed point expected") };
            // Half a step; division and product round numbers of up to 2^(bits − 1) steps once each, by 2^-24 of them.
            let bound = f64::from(scale) * (0.5 + f64::from(1u32 << (bits - 1)) * 2f64.powi(-23));
            for (rounded, exact) in basis.quantised(bits).unwrap().to_floats().iter().zip(basis.to_floats()) {
                prop_assert!((f64::from(*rounded) - f64::from(exact)).abs() <= bound);
            }
        }
    }

    #[test]
    fn the_quick_table_of_values_is_the_definition() {
        for code in -127i8..=127 {
            assert_eq!(VALUES[code as u8 as usize].to_bits(), decode_coefficient(code).to_bits(), "{code}");
        }
    }

    #[test]
    fn statistics_count_rows_and_channels() {
        // One filter of two channels, 3 × 3: only the first channel's middle row is in use.
        let shape = LayerShape::Conv { out_channels: 1, in_channels: 2, kernel: [3, 3] };
        let mut weights = vec![0f32; 18];
        weights[3..6].copy_from_slice(&[0.5, 0.0, -0.25]);
        let stats = SdLayer::decompose(&weights, shape, &DecomposeConfig::default()).unwrap().stats();
        assert_eq!((stats.entries, stats.rows, stats.zero_rows, stats.zero_channels), (18, 6, 5, 1));
        // A single row of rank one: its two coefficients stand for themselves.
        assert_eq!((stats.non_zeros, stats.magnitudes), (2, 2));
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

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let layout = Layout::new(LayerShape::Linear { out_features: 1, in_features: 9 }, BlockRule::Reference).unwrap();
        let basis = || Basis::Float(vec![0.0; 9]);
        assert!(SdLayer::from_parts(layout, vec![0; 9], basis()).is_ok());
        assert!(matches!(SdLayer::from_parts(layout, vec![0; 8], basis()), Err(Error::Shape { .. })));
        assert!(matches!(SdLayer::from_parts(layout, vec![0; 9], Basis::Float(vec![])), Err(Error::Shape { .. })));
        assert!(matches!(SdLayer::from_parts(layout, vec![i8::MIN; 9], basis()), Err(Error::OffLadder { .. })));
        let nan = Basis::Float(vec![f32::NAN; 9]);
        assert!(matches!(SdLayer::from_parts(layout, vec![0; 9], nan), Err(Error::NotFinite { .. })));
    }
}
