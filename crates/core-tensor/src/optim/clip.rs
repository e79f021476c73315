//! Gradient clipping.

use super::Parameter;
use tch::Tensor;

/// Scales all gradients so that their joint L2 norm is at most `max_norm`, as `torch.nn.utils.clip_grad_norm_` does
/// (with its 1e-6). Returns the norm before clipping; 0 where nothing has a gradient.
///
/// `max_norm` is above 0; infinity only measures. It is not checked: 0 clears the gradients, a number below turns them
/// round, NaN leaves them as they are.
///
/// Mask gradients first: dead entries would count in the norm.
pub fn clip_gradient_norm(parameters: &[Parameter], max_norm: f64) -> f64 {
    let gradients: Vec<Tensor> =
        parameters.iter().map(|parameter| parameter.tensor.grad()).filter(Tensor::defined).collect();
    if gradients.is_empty() {
        return 0.0;
    }
    let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
    let total = Tensor::stack(&norms, 0).norm().double_value(&[]);
    let scale = max_norm / (total + 1e-6);
    if scale < 1.0 {
        for mut gradient in gradients {
            let _ = gradient.g_mul_scalar_(scale);
        }
    }
    total
}
