//! Products straight from codes: a linear layer and a convolution whose weights stay compressed in memory.
//!
//! One input vector runs on [`gemv`]'s trick and never rebuilds a weight. Many vectors, and convolutions, rebuild the
//! kept rows once a call and multiply those only; zero vectors cost neither memory nor arithmetic either way. AVX-512,
//! AVX2 and plain versions are chosen when a layer is loaded.

mod gemv;
mod packed;
mod spmm;

use packed::{Packed, Rows};
use rayon::prelude::*;
use spmm::{Operand, TILE};

use super::{LayerShape, SdLayer};
use crate::{Error, Result};

/// Up to this many input vectors run one by one; more share the rebuilt rows.
const FEW_VECTORS: usize = 4;

/// A linear layer that computes from codes.
///
/// ```
/// use quant::smartdeal::{DecomposeConfig, LayerShape, SdLayer, SdLinearKernel};
/// let weights: Vec<f32> = (0..4 * 9).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let shape = LayerShape::Linear { out_features: 4, in_features: 9 };
/// let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.01))?;
/// let y = SdLinearKernel::new(&layer)?.forward(&[1.0; 9], None)?;
/// let expected: Vec<f32> = layer.rebuild().chunks(9).map(|row| row.iter().sum()).collect();
/// assert!(y.iter().zip(&expected).all(|(y, e)| (y - e).abs() < 1e-6));
/// # Ok::<(), quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SdLinearKernel {
    in_features: usize,
    out_features: usize,
    rows: usize,
    packed: Packed,
}

impl SdLinearKernel {
    /// Packs a linear layer.
    ///
    /// # Errors
    /// [`Error::Shape`] for a convolution, and for a layer that is not cut into rows of three.
    pub fn new(layer: &SdLayer) -> Result<Self> {
        let LayerShape::Linear { out_features, in_features } = layer.shape() else {
            return Err(wrong_shape("linear layer", "[out, in]", layer));
        };
        check_cut(layer, layer.layout().rows, 3)?;
        Ok(Self { in_features, out_features, rows: layer.layout().rows, packed: Packed::new(layer) })
    }

    /// Bytes of packed weights that one product reads.
    pub fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    /// `[batch, in_features]` → `[batch, out_features]`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] for a bias of another length, or inputs that are no whole number of vectors.
    pub fn forward(&self, inputs: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        check_len("bias", bias.map_or(self.out_features, <[f32]>::len), self.out_features)?;
        let batch = inputs.len().checked_div(self.in_features).unwrap_or(0);
        check_len("input vectors", inputs.len(), batch * self.in_features)?;
        if batch * self.out_features == 0 {
            return Ok(Vec::new());
        }
        let mut out = if batch <= FEW_VECTORS { self.one_by_one(inputs) } else { self.together(inputs, batch) };
        if let Some(bias) = bias {
            for row in out.chunks_exact_mut(self.out_features) {
                row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
            }
        }
        Ok(out)
    }

    fn one_by_one(&self, inputs: &[f32]) -> Vec<f32> {
        let dot = gemv::detect();
        let mut out = vec![0f32; inputs.len() / self.in_features * self.out_features];
        for (x, out) in inputs.chunks_exact(self.in_features).zip(out.chunks_exact_mut(self.out_features)) {
            let mut quads = vec![[0f32; 4]; self.rows];
            for (quad, x) in quads.iter_mut().zip(x.chunks(3)) {
                quad[..x.len()].copy_from_slice(x);
            }
            out.par_iter_mut()
                .with_min_len(64)
                .enumerate()
                .for_each(|(filter, y)| *y = dot(&self.packed, filter, &quads));
        }
        out
    }

    fn together(&self, inputs: &[f32], batch: usize) -> Vec<f32> {
        let mut values = vec![0f32; self.rows * 3 * batch + TILE];
        for (n, x) in inputs.chunks_exact(self.in_features).enumerate() {
            for (i, x) in x.iter().enumerate() {
                values[i * batch + n] = *x;
            }
        }
        let row_starts: Vec<usize> = (0..self.rows).map(|row| 3 * row * batch).collect();
        let operand = Operand {
            values: &values,
            row_starts: &row_starts,
            column_stride: batch,
            group_stride: 0,
            filters_per_group: self.out_features,
            points: batch,
        };
        let tiles = spmm::multiply(&self.packed.expand(self.in_features), &operand, spmm::detect());
        let mut out = vec![0f32; batch * self.out_features];
        for (n, row) in out.chunks_exact_mut(self.out_features).enumerate() {
            for (filter, o) in row.iter_mut().enumerate() {
                *o = tiles[n / TILE * self.out_features + filter][n % TILE];
            }
        }
        out
    }
}

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Step, vertical and horizontal.
    pub stride: [usize; 2],
    /// Zeros added on each side.
    pub padding: [usize; 2],
    /// Distance of kernel taps.
    pub dilation: [usize; 2],
    /// Independent groups.
    pub groups: usize,
}

impl Default for ConvGeometry {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// A convolution that computes from codes.
#[derive(Debug, Clone)]
pub struct SdConv2dKernel {
    out_channels: usize,
    /// Of one group.
    in_channels: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
    rows: usize,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// Three columns: kept rows are rebuilt from codes at each call.
    Codes(Packed),
    /// Other kernels: kept rows rebuilt when the layer is loaded.
    Rebuilt(Rows),
}

impl SdConv2dKernel {
    /// Packs a convolution.
    ///
    /// # Errors
    /// [`Error::Shape`] for a linear layer, and for kernels that are not cut into their own rows; [`Error::Config`] for
    /// a stride, a dilation or groups of 0, and for groups that do not divide the filters.
    pub fn new(layer: &SdLayer, geometry: ConvGeometry) -> Result<Self> {
        let LayerShape::Conv { out_channels, in_channels, kernel } = layer.shape() else {
            return Err(wrong_shape("convolution", "[out, in, height, width]", layer));
        };
        let ConvGeometry { stride, dilation, groups, .. } = geometry;
        if stride.contains(&0) || dilation.contains(&0) || groups == 0 || !out_channels.is_multiple_of(groups) {
            return Err(Error::Config {
                name: "geometry",
                expected: "stride, dilation and groups of at least 1, groups dividing the filters",
                found: format!("{geometry:?} for {out_channels} filters"),
            });
        }
        if kernel != [1, 1] {
            check_cut(layer, in_channels * kernel[0], kernel[1])?;
        }
        let form = match layer.layout().columns {
            3 => Form::Codes(Packed::new(layer)),
            _ => Form::Rebuilt(Rows::of_layer(layer)),
        };
        Ok(Self { out_channels, in_channels, kernel, geometry, rows: layer.layout().rows, form })
    }

    /// Output height and width for an input of the given size, `None` where the kernel does not fit.
    pub fn output_size(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let ConvGeometry { stride, padding, dilation, .. } = self.geometry;
        let along = |d: usize| {
            let reach = dilation[d] * (self.kernel[d].checked_sub(1)?) + 1;
            Some((size[d] + 2 * padding[d]).checked_sub(reach)? / stride[d] + 1)
        };
        Some([along(0)?, along(1)?])
    }

    /// `[batch, groups·in_channels, height, width]` → `[batch, out_channels, out_height, out_width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for images or a bias of another length, and for images that the kernel does not fit into.
    pub fn forward(&self, inputs: &[f32], batch: usize, size: [usize; 2], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let channels = self.in_channels * self.geometry.groups;
        check_len("images", inputs.len(), batch * channels * size[0] * size[1])?;
        check_len("bias", bias.map_or(self.out_channels, <[f32]>::len), self.out_channels)?;
        let Some(out_size) = self.output_size(size) else {
            return Err(Error::Shape {
                what: "images".into(),
                expected: format!("at least the kernel's reach, {:?} with {:?}", self.kernel, self.geometry),
                found: format!("{size:?}"),
            });
        };
        let image = channels * size[0] * size[1];
        let out_image = self.out_channels * out_size[0] * out_size[1];
        let mut out = vec![0f32; batch * out_image];
        if out.is_empty() {
            return Ok(out);
        }
        let expanded;
        let rows = match &self.form {
            Form::Codes(packed) => {
                expanded = packed.expand(self.in_channels * self.kernel[0] * self.kernel[1]);
                &expanded
            }
            Form::Rebuilt(rows) => rows,
        };
        // Small images share tiles; large ones go one by one.
        let together = TILE.div_ceil(out_size[0] * out_size[1]).min(batch);
        out.par_chunks_mut(together * out_image).enumerate().for_each(|(i, out)| {
            let images = out.len() / out_image;
            let inputs = &inputs[i * together * image..][..images * image];
            self.some_images(rows, inputs, images, size, out_size, bias, out);
        });
        Ok(out)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site, every argument a fact of the batch at hand")]
    fn some_images(
        &self,
        rows: &Rows,
        inputs: &[f32],
        images: usize,
        size: [usize; 2],
        out_size: [usize; 2],
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let columns = Columns::new(self, rows.columns, images, size, out_size);
        let values = columns.gather(inputs);
        let row_starts: Vec<usize> = (0..self.rows).map(|row| columns.row_start(row)).collect();
        let operand = Operand {
            values: &values,
            row_starts: &row_starts,
            column_stride: columns.column_stride,
            group_stride: columns.group_stride,
            filters_per_group: self.out_channels / self.geometry.groups,
            points: columns.points,
        };
        let tiles = spmm::multiply(rows, &operand, spmm::detect());
        let mut out = out.chunks_exact_mut(out_size[1]);
        // Points run row, image, column; the result is wanted image, filter, row, column.
        for n in 0..images {
            for filter in 0..self.out_channels {
                let bias = bias.map_or(0.0, |b| b[filter]);
                for y in 0..out_size[0] {
                    let first = (y * images + n) * out_size[1];
                    for (x, o) in out.next().into_iter().flatten().enumerate() {
                        let point = first + x;
                        *o = tiles[point / TILE * self.out_channels + filter][point % TILE] + bias;
                    }
                }
            }
        }
    }
}

/// The input laid out so that every (row, column) of a filter's matrix is one run of consecutive values, a point being
/// (output row, image, output column). With a vertical stride of 1 the taps of a kernel column share one plane,
/// shifted by whole rows; otherwise each tap has a plane of its own.
struct Columns<'a> {
    conv: &'a SdConv2dKernel,
    matrix_columns: usize,
    images: usize,
    size: [usize; 2],
    out_size: [usize; 2],
    points: usize,
    /// Values of one output row.
    row_values: usize,
    /// Rows of a plane.
    plane_rows: usize,
    column_stride: usize,
    group_stride: usize,
    shared: bool,
}

impl<'a> Columns<'a> {
    fn new(
        conv: &'a SdConv2dKernel,
        matrix_columns: usize,
        images: usize,
        size: [usize; 2],
        out_size: [usize; 2],
    ) -> Self {
        let shared = conv.geometry.stride[0] == 1 && conv.kernel[1] > 1;
        let reach = conv.geometry.dilation[0] * (conv.kernel[0] - 1);
        let plane_rows = if shared { out_size[0] + reach } else { out_size[0] };
        let row_values = images * out_size[1];
        let column_stride = plane_rows * row_values;
        let planes = if shared { conv.in_channels } else { conv.rows };
        Self {
            conv,
            matrix_columns,
            images,
            size,
            out_size,
            points: out_size[0] * row_values,
            row_values,
            plane_rows,
            column_stride,
            group_stride: planes * matrix_columns * column_stride,
            shared,
        }
    }

    fn row_start(&self, row: usize) -> usize {
        let plane = self.matrix_columns * self.column_stride;
        if !self.shared {
            return row * plane;
        }
        let [height, _] = self.conv.kernel;
        row / height * plane + row % height * self.conv.geometry.dilation[0] * self.row_values
    }

    fn gather(&self, inputs: &[f32]) -> Vec<f32> {
        let groups = self.conv.geometry.groups;
        let mut values = vec![0f32; groups * self.group_stride + TILE];
        let [height, width] = self.conv.kernel;
        let planes = values.par_chunks_mut(self.column_stride).take(groups * self.group_stride / self.column_stride);
        planes.enumerate().for_each(|(i, plane)| {
            let per_group = self.group_stride / self.column_stride;
            let (group, within) = (i / per_group, i % per_group);
            // Which channel and tap this plane shows.
            let (channel, tap) = if self.shared {
                (within / width, [0, within % width])
            } else {
                (within / (width * height), [within / width % height, within % width])
            };
            if channel < self.conv.in_channels {
                self.fill(plane, inputs, group * self.conv.in_channels + channel, tap);
            }
        });
        values
    }

    /// Copies one channel as one tap sees it.
    fn fill(&self, plane: &mut [f32], inputs: &[f32], channel: usize, tap: [usize; 2]) {
        let ConvGeometry { stride, padding, dilation, groups } = self.conv.geometry;
        let [height, width] = self.size;
        let channels = self.conv.in_channels * groups;
        let offset = (tap[1] * dilation[1]) as isize - padding[1] as isize;
        for row in 0..self.plane_rows {
            let y = (row * stride[0] + tap[0] * dilation[0]).checked_sub(padding[0]).filter(|y| *y < height);
            let Some(y) = y else { continue };
            for n in 0..self.images {
                let from = &inputs[((n * channels + channel) * height + y) * width..][..width];
                let to = &mut plane[row * self.row_values + n * self.out_size[1]..][..self.out_size[1]];
                for (x, to) in to.iter_mut().enumerate() {
                    let place = (x * stride[1]) as isize + offset;
                    if let Some(value) = usize::try_from(place).ok().and_then(|place| from.get(place)) {
                        *to = *value;
                    }
                }
            }
        }
    }
}

fn wrong_shape(what: &str, expected: &str, layer: &SdLayer) -> Error {
    Error::Shape { what: what.into(), expected: expected.into(), found: format!("{:?}", layer.shape().dims()) }
}

/// Refuses filters in other rows and columns than products follow: a file may have them in any.
fn check_cut(layer: &SdLayer, rows: usize, columns: usize) -> Result<()> {
    let layout = layer.layout();
    if (layout.rows, layout.columns) == (rows, columns) {
        return Ok(());
    }
    let matrix = |rows: usize, columns: usize| format!("{rows} rows of {columns}");
    Err(Error::Shape {
        what: format!("a filter's matrix of {:?}", layer.shape().dims()),
        expected: matrix(rows, columns),
        found: matrix(layout.rows, layout.columns),
    })
}

fn check_len(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what: what.into(), expected: format!("{expected} values"), found: format!("{found} values") })
}

#[cfg(test)]
mod tests;
