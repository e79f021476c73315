//! A weight kept as coefficients and bases while it learns.

use core_tensor::autograd::straight_through;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::smartdeal::model::{floats, tensor_of};
use crate::smartdeal::{Basis, Ladder, Layout, SdLayer, Tie, decode_coefficient, encode_coefficient};
use crate::{Error, Result};

/// Coefficients `[blocks, rows of a block, columns]`, bases `[blocks, columns, columns]`, and which coefficients may be
/// other than zero.
///
/// The weight of a forward pass is `Q(C)·mask·B`; the gradient reaches `C` straight through the projection `Q`.
/// Rows that fill up a shorter last block, and padding, are masked out.
#[derive(Debug)]
pub struct SdWeight {
    name: String,
    layout: Layout,
    ladder: Ladder,
    /// Trainable, named `coefficient`.
    pub coefficient: Tensor,
    /// Trainable, named `basis`.
    pub basis: Tensor,
    /// 0 or 1, not trained, named `mask`.
    pub mask: Tensor,
}

impl SdWeight {
    /// Puts a compressed layer under `path`. The mask is where the layer has coefficients.
    ///
    /// # Errors
    /// A ladder that is empty or lacks a rung that the layer uses; what libtorch refuses.
    pub fn new(path: &Path, layer: &SdLayer, ladder: Ladder) -> Result<Self> {
        ladder.validate()?;
        if let Some(exponent) = layer.exponents().into_iter().find(|p| {
            let p = i32::from(*p);
            p < ladder.p_min || p > ladder.p_max
        }) {
            let value = 2f64.powi(i32::from(exponent));
            return Err(Error::OffLadder { value, p_min: ladder.p_min, p_max: ladder.p_max });
        }
        let layout = *layer.layout();
        let values: Vec<f32> = blocks_of(layer).map(decode_coefficient).collect();
        let columns = layout.columns;
        let dims = [layout.blocks(), layout.block_rows, columns];
        let coefficient = tensor_of(&values, &dims)?;
        let mask = coefficient.f_ne(0.0)?.f_to_kind(Kind::Float)?;
        let basis = tensor_of(&layer.basis().to_floats(), &[layout.blocks(), columns, columns])?;
        let dims = dims.map(|d| d as i64);
        let zeros = Init::Const(0.0);
        let made = Self {
            name: path.components().collect::<Vec<_>>().join("."),
            layout,
            ladder,
            coefficient: path.f_var("coefficient", &dims, zeros)?,
            basis: path.f_var("basis", &basis.size(), zeros)?,
            mask: path.f_zeros_no_train("mask", &dims)?,
        };
        tch::no_grad(|| -> Result<()> {
            made.coefficient.shallow_clone().f_copy_(&coefficient)?;
            made.basis.shallow_clone().f_copy_(&basis)?;
            made.mask.shallow_clone().f_copy_(&mask)?;
            Ok(())
        })?;
        Ok(made)
    }

    /// Another handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            layout: self.layout,
            ladder: self.ladder,
            coefficient: self.coefficient.shallow_clone(),
            basis: self.basis.shallow_clone(),
            mask: self.mask.shallow_clone(),
        }
    }

    /// Whether a tensor is this weight's coefficients.
    pub(super) fn has_coefficients(&self, tensor: &Tensor) -> bool {
        // Tensors without a value share a null pointer.
        tensor.numel() > 0 && self.coefficient.data_ptr() == tensor.data_ptr()
    }

    /// The path it lives under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rungs.
    pub fn ladder(&self) -> Ladder {
        self.ladder
    }

    /// The dense weight, with gradients to coefficients and bases.
    ///
    /// # Errors
    /// [`Error::Torch`] for what libtorch refuses, memory for instance.
    pub fn weight(&self) -> Result<Tensor> {
        let projected = straight_through(&self.coefficient, &project(&self.coefficient.detach(), &self.ladder)?);
        let product = (projected * &self.mask).f_bmm(&self.basis)?;
        let filters = self.layout.shape.filters() as i64;
        let dims: Vec<i64> = self.layout.shape.dims().iter().map(|d| *d as i64).collect();
        let len = self.layout.shape.filter_len() as i64;
        Ok(product.f_reshape([filters, -1])?.f_narrow(1, 0, len)?.f_reshape(dims)?)
    }

    /// The layer as it stands, bases at full precision.
    ///
    /// # Errors
    /// A basis that is not finite.
    pub fn to_layer(&self) -> Result<SdLayer> {
        let values = floats(&(project(&self.coefficient.detach(), &self.ladder)? * &self.mask))?;
        let all: Vec<i8> =
            values.iter().map(|v| encode_coefficient(f64::from(*v), &self.ladder)).collect::<Result<_>>()?;
        let layout = self.layout;
        let block = layout.block_rows * layout.columns;
        let mut codes = Vec::with_capacity(layout.entries());
        for (i, codes_of_block) in all.chunks_exact(block.max(1)).enumerate() {
            let rows = layout.block_range(i % layout.blocks_per_filter()).len();
            codes.extend_from_slice(&codes_of_block[..rows * layout.columns]);
        }
        SdLayer::from_parts(layout, codes, Basis::Float(floats(&self.basis)?))
    }
}

/// A layer's codes block by block, short blocks filled up with zeros.
fn blocks_of(layer: &SdLayer) -> impl Iterator<Item = i8> {
    let layout = *layer.layout();
    let block = layout.block_rows * layout.columns;
    layer.codes().chunks(layout.filter_entries().max(1)).flat_map(move |filter| {
        filter
            .chunks(block)
            .flat_map(move |rows| rows.iter().copied().chain(std::iter::repeat_n(0, block - rows.len())))
    })
}

/// [`Ladder::project`] on a float tensor, bit for bit, wherever it lives.
pub(super) fn project(tensor: &Tensor, ladder: &Ladder) -> Result<Tensor> {
    let half = match ladder.tie {
        Tie::Down => 0x003f_ffff,
        Tie::Up => 0x0040_0000i64,
    };
    let bits = tensor.f_abs()?.f_view_dtype(Kind::Int)?;
    let magnitude = bits.f_add_scalar(half)?.f_bitwise_and(0x7f80_0000i64)?.f_view_dtype(Kind::Float)?;
    let clipped = magnitude.f_clamp_max(2f64.powi(ladder.p_max))?;
    let kept = clipped.f_ge(2f64.powi(ladder.p_min))?;
    Ok(clipped.f_mul(&kept.f_to_kind(Kind::Float)?)?.f_mul(&tensor.f_sign()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{BlockRule, DecomposeConfig, LayerShape};
    use proptest::prelude::*;
    use tch::{Device, nn};

    fn layer() -> SdLayer {
        let shape = LayerShape::Linear { out_features: 3, in_features: 23 };
        let weights: Vec<f32> = (0..69).map(|k| (((37 * k + 11) % 101) as f32 - 50.0) / 500.0).collect();
        let config = DecomposeConfig { block_rule: BlockRule::MaxRows(1), ..DecomposeConfig::with_theta(0.02) };
        SdLayer::decompose(&weights, shape, &config).unwrap()
    }

    const LADDER: Ladder = Ladder { p_min: -7, p_max: 2, tie: Tie::Down };

    proptest! {
        #[test]
        fn tensors_are_projected_as_numbers_are(
            values in prop::collection::vec(prop_oneof![-9f32..9.0, -0.02f32..0.02], 1..30), up in any::<bool>(), p_max in -3i32..4,
        ) {
            let ladder = Ladder { p_min: -7, p_max, tie: if up { Tie::Up } else { Tie::Down } };
            let found = floats(&project(&Tensor::from_slice(&values), &ladder).unwrap()).unwrap();
            let expected: Vec<f32> = values.iter().map(|v| ladder.project(f64::from(*v)) as f32).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_layer_goes_in_and_comes_out() {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = SdWeight::new(&(store.root() / "fc"), &layer(), LADDER).unwrap();
        assert_eq!(weight.to_layer().unwrap(), layer());
        let rebuilt = floats(&weight.weight().unwrap()).unwrap();
        // Three products; libtorch may fuse them.
        assert!(rebuilt.iter().zip(layer().rebuild()).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn a_ladder_without_the_layers_rungs_is_refused() {
        let store = nn::VarStore::new(Device::Cpu);
        let refused = SdWeight::new(&store.root(), &layer(), Ladder::new(-2, 2));
        assert!(matches!(refused, Err(Error::OffLadder { .. })));
    }

    /// Finite differences of a loss against the gradients of bases and of the rebuilt weight in the coefficients.
    #[test]
    fn gradients_are_those_of_the_product() {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = SdWeight::new(&(store.root() / "fc"), &layer(), LADDER).unwrap();
        let probe = Tensor::from_slice(&(0..69).map(|i| ((i * 7 % 13) as f32 - 6.0) / 6.0).collect::<Vec<_>>());
        let loss = || (weight.weight().unwrap().flatten(0, -1) * &probe).sum(Kind::Float);
        loss().backward();
        let gradient = floats(&weight.basis.grad()).unwrap();
        // The loss is linear in B, so that a step of any size gives the exact difference, but for f32's rounding.
        for (i, expected) in gradient.iter().enumerate().step_by(5) {
            let nudge = |by: f64| {
                tch::no_grad(|| {
                    let mut entry = weight.basis.view([-1]).get(i as i64);
                    let _ = entry.g_add_scalar_(by);
                    loss().double_value(&[])
                })
            };
            let (up, down) = (nudge(0.5), nudge(-1.0));
            nudge(0.5);
            assert!(((up - down) - f64::from(*expected)).abs() < 1e-4, "{i}: {} against {expected}", up - down);
        }
        // dC = dW·Bᵀ under the mask: a filter's dW, padded, is eight rows of three in blocks of three rows.
        let [found, basis, mask, probe] =
            [&weight.coefficient.grad(), &weight.basis, &weight.mask, &probe].map(|tensor| floats(tensor).unwrap());
        assert_eq!(found.len(), 3 * 3 * 9);
        for (at, found) in found.iter().enumerate() {
            let (block, row, column) = (at / 9, at % 9 / 3, at % 3);
            let (filter, first) = (block / 3, (block % 3 * 3 + row) * 3);
            let dw = |k: usize| if first + k < 23 { f64::from(probe[filter * 23 + first + k]) } else { 0.0 };
            let product: f64 = (0..3).map(|k| dw(k) * f64::from(basis[block * 9 + column * 3 + k])).sum();
            let expected = product * f64::from(mask[at]);
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{at}: {found} against {expected}");
        }
        assert!(mask.contains(&0.0) && found.iter().any(|gradient| *gradient != 0.0));
    }
}
