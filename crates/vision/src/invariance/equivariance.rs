//! Whether a layer's maps move as the image does.

use super::{Error, Result};
use tch::{Kind, Tensor};

/// How far a layer is from moving its maps by one cell where the image moves by `stride` pixels, on both axes at once:
///
/// ```text
/// ‖F(x₁)[i, j] − F(x₀)[i + 1, j + 1]‖ / ‖F(x₀)[i + 1, j + 1]‖   over all images, channels and cells of the interior
/// ```
///
/// `x₀` is an image without its last `stride` rows and columns, `x₁` without its first, so that nothing is filled in. `layer` gives maps
/// `[count, channels, height, width]`, `stride` is its total stride in pixels, and `margin` cells are left out along every border: where
/// they see padding, as many as the receptive field reaches beyond. 0 is a layer that is equivariant there.
///
/// # Errors
/// A stride below 1 or a negative margin; images that are not `[count, channels, height, width]`, at least one, or too small; maps of
/// another form, of other sizes for `x₀` and `x₁`, without an interior, that are not finite, or 0 throughout; and those of `layer`.
///
/// ```
/// use tch::{Kind, Tensor};
/// use vision::invariance::equivariance_error;
///
/// let images = Tensor::arange(256, (Kind::Float, tch::Device::Cpu)).sin().view([1, 1, 16, 16]);
/// let mut pooled = |x: &Tensor| Ok(x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false));
/// // By its stride pooling moves with the image, by a pixel it does not.
/// assert_eq!(equivariance_error(&images, &mut pooled, 2, 0)?, 0.0);
/// assert!(equivariance_error(&images, &mut pooled, 1, 0)? > 0.1);
/// # Ok::<(), vision::invariance::Error>(())
/// ```
pub fn equivariance_error(
    images: &Tensor,
    layer: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
    stride: i64,
    margin: i64,
) -> Result<f64> {
    if stride < 1 || margin < 0 {
        let found = format!("stride {stride}, margin {margin}");
        return Err(Error::setting("equivariance", "a stride of at least 1 and a margin of at least 0", found));
    }
    let size = images.size();
    if size.len() != 4 || size[0] < 1 || size[2] <= stride || size[3] <= stride {
        let expected = format!("[count, channels, more than {stride}, more than {stride}]");
        return Err(Error::shape("images to move", expected, format!("{size:?}")));
    }
    let window = |first: i64| -> Result<Tensor> {
        let rows = images.f_narrow(2, first, size[2] - stride)?;
        Ok(rows.f_narrow(3, first, size[3] - stride)?.f_contiguous()?)
    };
    let (still, moved) = (layer(&window(0)?)?, layer(&window(stride)?)?);
    let [_, _, height, width] = still.size()[..] else {
        let found = format!("{:?}", still.size());
        return Err(Error::shape("maps", "[count, channels, height, width]", found));
    };
    if moved.size() != still.size() {
        return Err(Error::shape("maps", format!("{:?}", still.size()), format!("{:?}", moved.size())));
    }
    let inside = |side: i64| side.saturating_sub(margin.saturating_mul(2)).saturating_sub(1);
    let (rows, columns) = (inside(height), inside(width));
    if rows < 1 || columns < 1 {
        let expected =
            format!("more than {} cells a side, the margins and a step", margin.saturating_mul(2).saturating_add(1));
        return Err(Error::shape("maps", expected, format!("{:?}", still.size())));
    }
    let interior = |maps: &Tensor, first: i64| -> Result<Tensor> {
        Ok(maps.f_narrow(2, first, rows)?.f_narrow(3, first, columns)?.f_to_kind(Kind::Double)?)
    };
    let (reference, moved) = (interior(&still, margin + 1)?, interior(&moved, margin)?);
    let norm = |maps: &Tensor| -> Result<f64> { Ok(maps.f_norm()?.f_double_value(&[])?) };
    let (gap, whole) = (norm(&(moved - &reference))?, norm(&reference)?);
    if !gap.is_finite() || !whole.is_finite() || whole == 0.0 {
        return Err(Error::shape("maps", "finite numbers, not all 0", format!("norms {gap} and {whole}")));
    }
    Ok(gap / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn images(side: i64) -> Tensor {
        (Tensor::arange(2 * side * side, (Kind::Double, Device::Cpu)).square() * 0.37).sin().view([2, 1, side, side])
    }

    fn convolved(x: &Tensor, padding: i64) -> Tensor {
        let kernel = Tensor::from_slice(&[1.0, -2.0, 0.5, 3.0, 1.5, -1.0, 0.25, 2.0, 1.0]).view([1, 1, 3, 3]);
        x.conv2d(&kernel, None::<Tensor>, [2, 2], [padding, padding], [1, 1], 1)
    }

    #[test]
    fn a_strided_convolution_moves_with_its_stride_where_it_sees_no_padding() {
        let error = |padding, stride, margin| {
            equivariance_error(&images(19), &mut |x| Ok(convolved(x, padding)), stride, margin).unwrap()
        };
        assert!(error(0, 2, 0) < 1e-14);
        assert!(error(1, 2, 1) < 1e-14, "a cell at the border sees padding, those within do not");
        assert!(error(1, 2, 0) > 0.01, "padding does not move");
        assert!(error(0, 1, 0) > 0.5 && error(0, 3, 0) > 0.5, "nor do maps by a part of a cell");
    }

    #[test]
    fn the_error_of_a_layer_that_knows_where_it_is_is_its_share() {
        // Maps of the value 3 plus the row: from 3 to 7; moved by a pixel each should be one less than it is.
        let mut located = |x: &Tensor| {
            let rows = Tensor::arange(x.size()[2], (Kind::Double, Device::Cpu)).view([1, 1, -1, 1]);
            Ok(x.zeros_like() + 3.0 + rows)
        };
        let found = equivariance_error(&images(6), &mut located, 1, 0).unwrap();
        // Rows 1 to 4 of five have 4, 5, 6 and 7, each beside one less.
        let expected = (4.0_f64 / (16.0 + 25.0 + 36.0 + 49.0)).sqrt();
        assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let refuse = |images: &Tensor, layer: &mut dyn FnMut(&Tensor) -> Result<Tensor>, stride, margin| {
            equivariance_error(images, layer, stride, margin).unwrap_err().to_string()
        };
        let mut same = |x: &Tensor| Ok(x.shallow_clone());
        for (stride, margin) in [(0, 0), (-1, 0), (1, -1)] {
            assert!(refuse(&images(6), &mut same, stride, margin).contains("a stride of at least 1"));
        }
        assert!(refuse(&images(6), &mut same, 6, 0).contains("more than 6"));
        assert!(refuse(&images(6).get(0), &mut same, 1, 0).contains("images to move"));
        assert!(refuse(&images(6), &mut same, 1, 2).contains("more than 5 cells a side"));
        assert!(refuse(&images(6), &mut same, 1, i64::MAX).contains("cells a side"));
        assert!(refuse(&images(6), &mut |x| Ok(x.flatten(1, -1)), 1, 0).contains("[count, channels, height, width]"));
        assert!(refuse(&images(6), &mut |x| Ok(x.zeros_like()), 1, 0).contains("not all 0"));
        assert!(refuse(&images(6), &mut |x| Ok(x * f64::NAN), 1, 0).contains("finite"));
        let mut calls = 0;
        let mut other = |x: &Tensor| {
            calls += 1;
            Ok(x.narrow(2, 0, 5 - calls))
        };
        assert!(refuse(&images(6), &mut other, 1, 0).contains("expected [2, 1, 4, 5]"));
    }
}
