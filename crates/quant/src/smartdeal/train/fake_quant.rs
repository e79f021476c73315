//! Rounding a tensor to a few bits, as low-precision training does.

use core_tensor::autograd::straight_through;
use tch::Tensor;

use crate::Result;

/// Uniform between the tensor's least and greatest value, the gradient passed straight through.
pub(super) fn fake_quant(tensor: &Tensor, bits: u8) -> Result<Tensor> {
    Ok(straight_through(tensor, &round_to_bits(&tensor.detach(), bits)?))
}

/// The nearest of 2^`bits` values spread evenly from the least to the greatest.
pub(super) fn round_to_bits(tensor: &Tensor, bits: u8) -> Result<Tensor> {
    if tensor.numel() == 0 {
        return Ok(tensor.shallow_clone());
    }
    let (low, high) = (tensor.f_min()?, tensor.f_max()?);
    // A constant tensor has no step; any positive one leaves it as it is.
    let step = (high - &low).f_div_scalar((1u64 << bits) as f64 - 1.0)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    Ok(tensor.f_sub(&low)?.f_div(&step)?.f_round()?.f_mul(&step)?.f_add(&low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn four_levels_of_two_bits() {
        let x = Tensor::from_slice(&[0.0f32, 0.4, 0.6, 1.4, 1.6, 3.0]);
        let rounded = Vec::<f32>::try_from(round_to_bits(&x, 2).unwrap()).unwrap();
        assert_eq!(rounded, [0.0, 0.0, 1.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn a_constant_stays_and_gradients_pass() {
        let x = Tensor::from_slice(&[0.7f32, 0.7]).set_requires_grad(true);
        let rounded = fake_quant(&x, 8).unwrap();
        assert_eq!(Vec::<f32>::try_from(&rounded.detach()).unwrap(), [0.7, 0.7]);
        (rounded * 3.0).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [3.0, 3.0]);
    }
}
