//! Between [`ndarray`] and libtorch: the same values in the same order, or a typed refusal.
//!
//! tch converts as well, but silently changes kinds (integers become floats that no longer hold them) and refuses
//! arrays that are views. Here the kind must be the array's own, and any layout will do.
//!
//! ```
//! use core_tensor::bridge::{to_array, to_tensor};
//! use ndarray::{Array2, array};
//!
//! # fn main() -> core_tensor::Result<()> {
//! let scores = array![[1.0_f32, 2.0], [3.0, 4.0]];
//! let tensor = to_tensor(&scores.t())?;
//! let back: Array2<f32> = to_array("scores", &tensor)?;
//! assert_eq!(back, scores.t());
//! # Ok(())
//! # }
//! ```

use ndarray::{Array, ArrayBase, ArrayD, Data, Dimension};
use tch::{Tensor, kind};

use crate::{Error, Result};

/// Elements that cross the bridge: `f32`, `i64` and `u8`.
pub trait Element: kind::Element + Copy + sealed::Sealed {}

impl Element for f32 {}
impl Element for i64 {}
impl Element for u8 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for i64 {}
    impl Sealed for u8 {}
}

/// Copies an array of any layout into a contiguous tensor on the CPU.
///
/// # Errors
/// [`Error::Torch`] when libtorch cannot allocate it.
pub fn to_tensor<T: Element, D: Dimension>(array: &ArrayBase<impl Data<Elem = T>, D>) -> Result<Tensor> {
    let shape: Vec<i64> = array.shape().iter().map(|&length| length as i64).collect();
    let rows_first = array.as_standard_layout();
    let values = rows_first.as_slice().expect("the standard layout is a slice");
    Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?)
}

/// Copies a tensor, on any device and of any strides, into an array with its last index varying fastest.
///
/// # Errors
/// [`Error::Tensor`] under `name` when the tensor's kind is not `T`'s or its number of dimensions is not `D`'s
/// (`ndarray::IxDyn` takes any).
pub fn to_array<T: Element, D: Dimension>(name: &str, tensor: &Tensor) -> Result<Array<T, D>> {
    let kind = tensor.f_kind()?;
    if kind != T::KIND {
        return Err(Error::tensor(name, format!("kind {:?}", T::KIND), format!("{kind:?}")));
    }
    let shape: Vec<usize> = tensor.size().iter().map(|&length| length as usize).collect();
    if let Some(dimensions) = D::NDIM
        && dimensions != shape.len()
    {
        return Err(Error::tensor(name, format!("{dimensions} dimensions"), format!("shape {shape:?}")));
    }
    let mut values = vec![T::ZERO; tensor.numel()];
    if !values.is_empty() {
        tensor.f_copy_data(&mut values, tensor.numel())?;
    }
    let refused = |error: ndarray::ShapeError| Error::tensor(name, "an array's shape", format!("{shape:?}: {error}"));
    ArrayD::from_shape_vec(shape.as_slice(), values).and_then(ArrayD::into_dimensionality).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array0, Array1, Array2, Array3, Axis, IxDyn, Slice, array};
    use proptest::prelude::*;
    use tch::{Device, Kind};

    #[test]
    fn values_and_shapes_cross_both_ways() {
        let integers = array![[1_i64, -2, i64::MAX], [4, 5, i64::MIN]];
        let tensor = to_tensor(&integers).unwrap();
        assert_eq!((tensor.kind(), tensor.size()), (Kind::Int64, vec![2, 3]));
        assert_eq!(tensor.int64_value(&[0, 2]), i64::MAX);
        assert_eq!(to_array::<i64, ndarray::Ix2>("integers", &tensor).unwrap(), integers);
        let bytes = array![0_u8, 128, 255];
        assert_eq!(to_array::<u8, ndarray::Ix1>("bytes", &to_tensor(&bytes).unwrap()).unwrap(), bytes);
    }

    #[test]
    fn scalars_and_empty_arrays_cross() {
        let scalar = Array0::from_elem((), 2.5_f32);
        assert_eq!(to_array::<f32, ndarray::Ix0>("scalar", &to_tensor(&scalar).unwrap()).unwrap(), scalar);
        let empty = Array2::<f32>::zeros((0, 3));
        let tensor = to_tensor(&empty).unwrap();
        assert_eq!(tensor.size(), [0, 3]);
        assert_eq!(to_array::<f32, ndarray::Ix2>("empty", &tensor).unwrap(), empty);
    }

    #[test]
    fn views_of_either_side_keep_their_meaning() {
        let matrix = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let backwards = matrix.slice_axis(Axis(1), Slice::new(0, None, -2));
        let tensor = to_tensor(&backwards).unwrap();
        assert_eq!(to_array::<f32, ndarray::Ix2>("backwards", &tensor).unwrap(), array![[3.0, 1.0], [6.0, 4.0]]);
        let column = to_tensor(&matrix).unwrap().select(1, 1);
        assert_eq!(to_array::<f32, ndarray::Ix1>("column", &column).unwrap(), array![2.0, 5.0]);
    }

    #[test]
    fn another_kind_or_number_of_dimensions_is_refused_by_name() {
        let tensor = Tensor::zeros([2, 3], (Kind::Double, Device::Cpu));
        let error = to_array::<f32, IxDyn>("logits", &tensor).unwrap_err().to_string();
        assert_eq!(error, "`logits`: expected kind Float, found Double");
        let error = to_array::<f32, ndarray::Ix1>("logits", &tensor.to_kind(Kind::Float)).unwrap_err().to_string();
        assert_eq!(error, "`logits`: expected 1 dimensions, found shape [2, 3]");
    }

    proptest! {
        #[test]
        fn any_array_and_any_permutation_of_it_come_back(shape in (0_usize..4, 0_usize..4, 0_usize..4), bits in any::<u32>(), order in Just([0_usize, 1, 2]).prop_shuffle()) {
            // Every bit pattern counts, those of NaNs too, so bits are compared.
            let array = Array3::from_shape_fn(shape, |(a, b, c)| f32::from_bits(bits.wrapping_add((a * 16 + b * 4 + c) as u32)));
            let view = array.view().permuted_axes(order);
            let back: ndarray::Array3<f32> = to_array("array", &to_tensor(&view).unwrap()).unwrap();
            prop_assert_eq!(back.mapv(f32::to_bits), view.mapv(f32::to_bits));
            let flat: Array1<f32> = to_array("flat", &to_tensor(&view).unwrap().reshape([-1])).unwrap();
            prop_assert!(flat.iter().zip(view.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
