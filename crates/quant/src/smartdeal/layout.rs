//! How a layer's weights are cut into blocks.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::BlockRule;
use crate::{Error, Result};

/// A layer's weight, as far as its shape goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerShape {
    /// A convolution weight `[out_channels, in_channels, height, width]`; `in_channels` is that of one group,
    /// so a depthwise convolution has 1.
    Conv {
        /// Filters.
        out_channels: usize,
        /// Input channels a filter sees.
        in_channels: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
    },
    /// A linear weight `[out_features, in_features]`.
    Linear {
        /// Neurons.
        out_features: usize,
        /// Inputs a neuron sees.
        in_features: usize,
    },
}

impl LayerShape {
    /// The shape of a weight tensor: 2 dimensions are linear, a table of embeddings too, 4 a convolution; anything else
    /// has no shape here.
    pub fn of_weight(dims: &[usize]) -> Option<Self> {
        match *dims {
            [out_features, in_features] => Some(Self::Linear { out_features, in_features }),
            [out_channels, in_channels, height, width] => {
                Some(Self::Conv { out_channels, in_channels, kernel: [height, width] })
            }
            _ => None,
        }
    }

    /// The weight tensor's dimensions.
    pub fn dims(&self) -> Vec<usize> {
        match *self {
            Self::Conv { out_channels, in_channels, kernel: [height, width] } => {
                vec![out_channels, in_channels, height, width]
            }
            Self::Linear { out_features, in_features } => vec![out_features, in_features],
        }
    }

    /// Filters or neurons: each is decomposed by itself.
    pub fn filters(&self) -> usize {
        self.dims()[0]
    }

    /// Weights of one filter or neuron.
    pub fn filter_len(&self) -> usize {
        self.dims()[1..].iter().product()
    }

    /// All weights.
    pub fn weights(&self) -> usize {
        self.filters() * self.filter_len()
    }

    /// Columns of a filter's matrix, or why it has no useful one.
    ///
    /// A K×K kernel gives `(in_channels·K) × K`, everything else is read as rows of 3. A matrix with no more rows
    /// than columns (a depthwise filter, a very short vector) would need a basis as large as itself.
    fn columns(&self) -> std::result::Result<usize, String> {
        let (columns, rows) = match *self {
            Self::Conv { kernel: [1, 1], in_channels: len, .. } | Self::Linear { in_features: len, .. } => {
                (VECTOR_COLUMNS, len.div_ceil(VECTOR_COLUMNS))
            }
            Self::Conv { kernel: [height, width], in_channels, .. } => {
                if !(2..=12).contains(&width) {
                    return Err(format!("kernel {height}×{width} is neither 1×1 nor 2 to 12 columns wide"));
                }
                (width, in_channels * height)
            }
        };
        if self.weights() > 0 && rows < columns {
            return Err(format!("a filter gives {rows} rows of {columns}: the basis would outweigh it"));
        }
        Ok(columns)
    }
}

/// 1×1 kernels and linear rows are read as rows of three.
const VECTOR_COLUMNS: usize = 3;

/// The cut of one layer: `filters` matrices of `rows × columns`, each in blocks of `block_rows` rows, the last
/// block of a filter perhaps shorter. Row-major, so a filter's matrix is its weights followed by padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The layer.
    pub shape: LayerShape,
    /// Rows of a filter's matrix, padding included.
    pub rows: usize,
    /// Columns of a filter's matrix; a basis is `columns × columns`.
    pub columns: usize,
    /// Rows of a block.
    pub block_rows: usize,
}

impl Layout {
    /// Cuts `shape` by `rule`.
    ///
    /// # Errors
    /// [`Error::NotDecomposable`] for a kernel of no column, one (unless it is 1×1) or more than 12, and for filters of
    /// fewer rows than columns; [`Error::Shape`] for more entries than can be counted.
    pub fn new(shape: LayerShape, rule: BlockRule) -> Result<Self> {
        let columns = shape
            .columns()
            .map_err(|reason| Error::NotDecomposable { layer: format!("{:?}", shape.dims()), reason })?;
        let len = shape.filter_len();
        let is_vector = matches!(shape, LayerShape::Linear { .. } | LayerShape::Conv { kernel: [1, 1], .. });
        let rows = match rule {
            BlockRule::Reference if is_vector => reference_vector_rows(len).unwrap_or(len.div_ceil(columns)),
            _ => len.div_ceil(columns),
        };
        let block_rows = match rule {
            BlockRule::Reference => reference_block_rows(rows, columns),
            BlockRule::MaxRows(most) => {
                let pieces = rows.div_ceil(most.saturating_mul(columns).max(1)).max(1);
                rows.div_ceil(pieces)
            }
        };
        Self::checked(shape, rows, columns, block_rows.max(1))
    }

    /// A layout read from outside, refused where its numbers contradict one another.
    pub(crate) fn checked(shape: LayerShape, rows: usize, columns: usize, block_rows: usize) -> Result<Self> {
        let filter_len = shape.dims()[1..].iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        let fits = (1..=12).contains(&columns)
            && block_rows >= 1
            && rows.checked_mul(columns).is_some_and(|padded| filter_len.is_some_and(|length| padded >= length))
            && shape.filters().checked_mul(rows).and_then(|r| r.checked_mul(columns)).is_some();
        if !fits {
            return Err(Error::Shape {
                what: format!("blocks of {:?}", shape.dims()),
                expected: "1 to 12 columns and rows that hold a whole filter".into(),
                found: format!("{rows} rows of {columns} in blocks of {block_rows}"),
            });
        }
        Ok(Self { shape, rows, columns, block_rows })
    }

    /// Entries of one filter's matrix, padding included.
    pub fn filter_entries(&self) -> usize {
        self.rows * self.columns
    }

    /// Coefficients of the layer, padding included: `N_C`.
    pub fn entries(&self) -> usize {
        self.shape.filters() * self.filter_entries()
    }

    /// Coefficient rows of the layer: `N_row`.
    pub fn total_rows(&self) -> usize {
        self.shape.filters() * self.rows
    }

    /// Blocks of one filter.
    pub fn blocks_per_filter(&self) -> usize {
        if self.shape.filter_len() == 0 { 0 } else { self.rows.div_ceil(self.block_rows) }
    }

    /// Blocks of the layer.
    pub fn blocks(&self) -> usize {
        self.shape.filters() * self.blocks_per_filter()
    }

    /// Entries of one block's basis.
    pub fn basis_len(&self) -> usize {
        self.columns * self.columns
    }

    /// The rows of a filter's matrix that belong to its block number `block`.
    pub fn block_range(&self, block: usize) -> Range<usize> {
        let start = block * self.block_rows;
        start..(start + self.block_rows).min(self.rows)
    }
}

/// Padded rows of vectors whose length is in the published table (`splits · rows`).
fn reference_vector_rows(len: usize) -> Option<usize> {
    const TABLE: [(usize, usize); 19] = [
        (4096, 8 * 171),
        (2048, 4 * 171),
        (1280, 3 * 143),
        (1024, 2 * 171),
        (960, 2 * 160),
        (576, 192),
        (512, 171),
        (384, 128),
        (320, 107),
        (256, 86),
        (192, 64),
        (160, 54),
        (144, 48),
        (128, 43),
        (96, 32),
        (64, 22),
        (32, 11),
        (24, 8),
        (16, 6),
    ];
    TABLE.iter().find(|(d, _)| *d == len).map(|(_, rows)| *rows)
}

/// The published rule: a matrix of few rows, or of a prime number of them, is one block; otherwise the largest
/// product of a suffix of the ascending prime factors that stays within `64·columns` rows. Three counts are fixed.
fn reference_block_rows(rows: usize, columns: usize) -> usize {
    match (rows, columns) {
        (3072, 3) => return 192,
        (1638, 3) => return 171,
        (8364, 3) => return 204,
        _ => {}
    }
    let factors = prime_factors(rows);
    if rows <= 64 * columns || factors.len() <= 1 {
        return rows;
    }
    let mut product = 1;
    for factor in factors.iter().rev() {
        if product * factor > 64 * columns {
            break;
        }
        product *= factor;
    }
    // A largest factor beyond the limit leaves no admissible suffix; the matrix then stays whole, as a prime does.
    if product == 1 { rows } else { product }
}

fn prime_factors(mut number: usize) -> Vec<usize> {
    let mut factors = Vec::new();
    let mut divisor = 2;
    while divisor * divisor <= number {
        while number.is_multiple_of(divisor) {
            factors.push(divisor);
            number /= divisor;
        }
        divisor += 1;
    }
    if number > 1 {
        factors.push(number);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conv(out_channels: usize, in_channels: usize, k: usize) -> LayerShape {
        LayerShape::Conv { out_channels, in_channels, kernel: [k, k] }
    }

    #[test]
    fn the_published_rule_on_its_worked_examples() {
        for (channels, block) in [(16, 48), (32, 96), (64, 192), (128, 192), (512, 192)] {
            let layout = Layout::new(conv(1, channels, 3), BlockRule::Reference).unwrap();
            assert_eq!((layout.rows, layout.block_rows), (channels * 3, block), "{channels} channels");
        }
        let linear = |in_features| LayerShape::Linear { out_features: 1, in_features };
        let layout = Layout::new(linear(784), BlockRule::Reference).unwrap();
        assert_eq!((layout.rows, layout.block_rows, layout.blocks()), (262, 131, 2));
        let layout = Layout::new(linear(25088), BlockRule::Reference).unwrap();
        assert_eq!((layout.rows, layout.block_rows), (8363, 8363));
        let layout = Layout::new(linear(4096), BlockRule::Reference).unwrap();
        assert_eq!((layout.rows, layout.block_rows, layout.blocks()), (8 * 171, 171, 8));
    }

    #[test]
    fn whole_networks_have_the_coefficients_and_basis_entries_of_the_published_rule() {
        let linear = |out_features, in_features| LayerShape::Linear { out_features, in_features };
        let stage = |from, to, blocks: usize| {
            let mut layers = vec![conv(to, from, 3)];
            layers.resize(2 * blocks, conv(to, to, 3));
            layers
        };
        // Without projections on its shortcuts, and with them.
        let resnet20 =
            [vec![conv(16, 3, 3)], stage(16, 16, 3), stage(16, 32, 3), stage(32, 64, 3), vec![linear(10, 64)]].concat();
        let widths = [(64, 64), (64, 128), (128, 256), (256, 512)];
        let mut resnet18 = vec![conv(64, 3, 3), linear(10, 512)];
        resnet18.extend(widths.iter().flat_map(|(from, to)| stage(*from, *to, 2)));
        resnet18.extend(widths[1..].iter().map(|(from, to)| conv(*to, *from, 1)));
        let mlp = vec![linear(300, 784), linear(100, 300), linear(10, 100)];
        for (layers, weights, coefficients, entries) in [
            (resnet20, 268_336, 268_356, 6_282),
            (resnet18, 11_164_352, 11_165_898, 180_378),
            (mlp, 266_200, 266_820, 6_390),
        ] {
            let layouts: Vec<Layout> =
                layers.iter().map(|shape| Layout::new(*shape, BlockRule::Reference).unwrap()).collect();
            assert_eq!(layers.iter().map(LayerShape::weights).sum::<usize>(), weights);
            assert_eq!(layouts.iter().map(Layout::entries).sum::<usize>(), coefficients);
            assert_eq!(layouts.iter().map(|layout| layout.blocks() * layout.basis_len()).sum::<usize>(), entries);
        }
    }

    #[test]
    fn equal_pieces_cover_what_the_published_rule_leaves_whole() {
        let shape = LayerShape::Linear { out_features: 2, in_features: 25088 };
        let layout = Layout::new(shape, BlockRule::MaxRows(64)).unwrap();
        assert_eq!((layout.rows, layout.block_rows, layout.blocks_per_filter()), (8363, 191, 44));
        assert_eq!(layout.block_range(43), 43 * 191..8363);
    }

    #[test]
    fn a_depthwise_filter_is_cut_into_one_square_block() {
        let layout = Layout::new(conv(32, 1, 3), BlockRule::MaxRows(64)).unwrap();
        assert_eq!((layout.rows, layout.columns, layout.blocks()), (3, 3, 32));
    }

    #[test]
    fn a_filter_of_more_weights_than_can_be_counted_is_refused() {
        let most = usize::MAX / 2 + 1;
        // Twice `most` wraps around to 0, and three rows would seem to hold such a filter.
        let shape = LayerShape::Conv { out_channels: 1, in_channels: most, kernel: [2, 1] };
        assert!(matches!(Layout::checked(shape, 3, 3, 3), Err(Error::Shape { .. })));
    }

    #[test]
    fn layers_without_a_useful_matrix_say_why() {
        let short = LayerShape::Linear { out_features: 4, in_features: 5 };
        assert!(matches!(Layout::new(short, BlockRule::Reference), Err(Error::NotDecomposable { .. })));
        assert!(matches!(Layout::new(conv(4, 4, 13), BlockRule::Reference), Err(Error::NotDecomposable { .. })));
        for kernel in [[3, 1], [3, 0]] {
            let narrow = LayerShape::Conv { out_channels: 1, in_channels: 8, kernel };
            assert!(matches!(Layout::new(narrow, BlockRule::Reference), Err(Error::NotDecomposable { .. })));
        }
    }

    proptest! {
        #[test]
        fn blocks_cover_every_row_once(filters in 0usize..5, len in 7usize..9000, most in 1usize..80, reference in any::<bool>()) {
            let rule = if reference { BlockRule::Reference } else { BlockRule::MaxRows(most) };
            let shape = LayerShape::Linear { out_features: filters, in_features: len };
            let layout = Layout::new(shape, rule).unwrap();
            prop_assert!(layout.filter_entries() >= len);
            let mut next = 0;
            for block in 0..layout.blocks_per_filter() {
                let range = layout.block_range(block);
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty());
                if !reference { prop_assert!(range.len() <= most * 3); }
                next = range.end;
            }
            prop_assert_eq!(next, layout.rows);
        }
    }
}
