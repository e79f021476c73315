//! NT-Xent, the normalised temperature-scaled cross-entropy of SimCLR, in little memory.

use super::error::{Error, Result, check_temperature};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Where the two views of an image lie in a batch of `2 · images` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Image `k` has rows `k` and `images + k`: all first views, then all second views.
    #[default]
    Stacked,
    /// Image `k` has rows `2k` and `2k + 1`.
    Interleaved,
}

/// Rows of the similarity matrix that exist at a time, if it has more than [`WHOLE`]. 128 rows of 2,048 `f32` are 1 MB,
/// which a core's cache holds.
const BLOCK: i64 = 128;

/// Matrices of up to so many rows are one block: they are no larger, and starting an operation costs more than doing it.
const WHOLE: i64 = 512;

/// Norms below this are taken for it, as PyTorch's cosine similarity does.
const SMALLEST_NORM: f64 = 1e-8;

/// Exponents up to this need no shift: `exp(±40)` and sums of them are far inside the range of `f32`.
const SAFE_EXPONENT: f64 = 40.0;

/// NT-Xent over two views of every image of a batch (Chen et al., *SimCLR*, arXiv 2002.05709, equation 1).
///
/// With the cosine similarities `s_ij = ⟨z_i, z_j⟩ / (‖z_i‖·‖z_j‖·τ)` of `N = 2 · images` embeddings and the other view
/// `p(i)` of row `i`'s image,
///
/// ```text
/// L = −1/N · Σ_i [ s_{i,p(i)} − log Σ_{k≠i} exp(s_ik) ]
/// ```
///
/// `embeddings` are `[N, features]`, `f32` or `f64`; the loss is a scalar with a gradient to them.
///
/// Value and gradient come from one sweep over blocks of 128 rows of the similarity matrix, so that memory grows with `N`,
/// not with `N²`. Of up to 512 rows the one block is the whole matrix, at most 1 MB of `f32`. Since the gradient is
/// computed with the value, the loss can be differentiated once; [`nt_xent_plain`] can be differentiated again.
///
/// ```
/// use contrast::learn::{Layout, nt_xent};
/// use tch::{Kind, Tensor};
///
/// // Two images; the views of each agree, the images are orthogonal: log(1 + 2·e^(−1/τ)).
/// let views = Tensor::from_slice(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]).view([4, 2]).set_requires_grad(true);
/// let loss = nt_xent(&views, 0.5, Layout::Stacked)?;
/// assert!((loss.double_value(&[]) - 0.23954476622).abs() < 1e-10);
/// loss.backward();
/// assert_eq!(views.grad().size(), [4, 2]);
/// # Ok::<(), contrast::learn::Error>(())
/// ```
///
/// # Errors
/// [`Error::ViewsLayout`] for fewer than two images (there would be no negatives) or an odd number of rows,
/// [`Error::InvalidTemperature`].
pub fn nt_xent(embeddings: &Tensor, temperature: f64, layout: Layout) -> Result<Tensor> {
    check(embeddings, temperature)?;
    let wanted = embeddings.requires_grad();
    let (value, gradient) = no_grad(|| sweep(&embeddings.detach(), temperature, layout, wanted))?;
    let Some(gradient) = gradient else { return Ok(value) };
    // A linear function with the loss's value and gradient: `x − x` is 0 exactly.
    let linear = (embeddings * gradient).f_sum(embeddings.kind())?;
    Ok(&linear - linear.detach() + value)
}

/// The same loss in whole-matrix operations, as it is usually written: several `N × N` matrices, differentiable any
/// number of times. What [`nt_xent`] is tested and timed against.
///
/// # Errors
/// As [`nt_xent`].
pub fn nt_xent_plain(embeddings: &Tensor, temperature: f64, layout: Layout) -> Result<Tensor> {
    let rows = check(embeddings, temperature)?;
    let unit = embeddings / embeddings.norm_scalaropt_dim(2, [-1], true).f_clamp_min(SMALLEST_NORM)?;
    let diagonal = Tensor::f_eye(rows, (Kind::Bool, embeddings.device()))?;
    let similarity = (unit.f_mm(&unit.f_tr()?)? / temperature).f_masked_fill(&diagonal, f64::NEG_INFINITY)?;
    let partner = partners(rows, layout, embeddings.device())?;
    Ok(similarity.f_cross_entropy_loss(&partner, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)?)
}

/// The row of each row's other view.
pub(crate) fn partners(rows: i64, layout: Layout, device: tch::Device) -> Result<Tensor> {
    let own = Tensor::f_arange(rows, (Kind::Int64, device))?;
    Ok(match layout {
        Layout::Stacked => own.f_roll([rows / 2], [0])?,
        Layout::Interleaved => own.f_bitwise_xor(1)?,
    })
}

/// The number of rows, if they are two views of at least two images.
pub(crate) fn check(embeddings: &Tensor, temperature: f64) -> Result<i64> {
    check_temperature(temperature)?;
    match embeddings.size()[..] {
        [rows, features] if rows >= 4 && rows % 2 == 0 && features > 0 => Ok(rows),
        _ => Err(Error::ViewsLayout { found: embeddings.size() }),
    }
}

/// Rows of a similarity matrix of so many that exist at a time.
pub(crate) fn rows_at_a_time(rows: i64) -> i64 {
    if rows <= WHOLE { rows } else { BLOCK }
}

/// Value and, if wanted, gradient with respect to the embeddings.
///
/// With `P_ij = exp(s_ij) / Σ_{k≠i} exp(s_ik)` (0 on the diagonal), unit rows `u` and the partner permutation `Π`,
///
/// ```text
/// ∂L/∂u = (P + Pᵀ − 2Π)·u / (τ·N),     ∂L/∂z_i = (g_i − ⟨g_i, u_i⟩·u_i) / ‖z_i‖,  g = ∂L/∂u
/// ```
///
/// `P` is `exp(s)`, which is symmetric, over its row sums `r`, so one block gives `P + Pᵀ` as `exp(s_ij) · (1/r_i + 1/r_j)`.
fn sweep(embeddings: &Tensor, temperature: f64, layout: Layout, wanted: bool) -> Result<(Tensor, Option<Tensor>)> {
    let rows = embeddings.size()[0];
    let options = (embeddings.kind(), embeddings.device());
    let norm = embeddings.norm_scalaropt_dim(2, [1], true);
    let floored = norm.f_clamp_min(SMALLEST_NORM)?;
    let unit = embeddings / &floored;
    let transposed = unit.f_tr()?;
    let partner = unit.f_index_select(0, &partners(rows, layout, embeddings.device())?)?;
    let agreement = (&unit * &partner).f_sum(embeddings.kind())? / temperature;

    let most = rows_at_a_time(rows);
    let buffer = Tensor::f_empty([most, rows], options)?;
    let mut gradient = if wanted { Some(partner.f_mul_scalar(-2.0)?) } else { None };
    let mut log_sums = Tensor::f_zeros([1], options)?;
    for start in (0..rows).step_by(most as usize) {
        let count = most.min(rows - start);
        let block = unit.narrow(0, start, count);
        let mut weights = buffer.narrow(0, 0, count);
        let _ = (&block / temperature).f_mm_out(&weights, &transposed)?;
        let _ = weights.f_diagonal(start, 0, 1)?.f_fill_(f64::NEG_INFINITY)?;
        let shift = if 1.0 / temperature <= SAFE_EXPONENT { None } else { Some(weights.f_amax([1], true)?) };
        if let Some(shift) = &shift {
            let _ = weights.f_sub_(shift)?;
            log_sums += shift.f_sum(embeddings.kind())?;
        }
        let _ = weights.f_exp_()?;
        let sums = weights.f_sum_dim_intlist([1].as_slice(), true, embeddings.kind())?;
        log_sums += sums.f_log()?.f_sum(embeddings.kind())?;
        if let Some(gradient) = &mut gradient {
            if count == rows && shift.is_none() {
                let shares = sums.f_reciprocal()?;
                let _ = weights.f_mul_(&(&shares + shares.f_tr()?))?;
                let _ = gradient.f_addmm_(&weights, &unit)?;
                continue;
            }
            // The division of P by its row sums is done on the short sides.
            let towards = weights.f_mm(&unit)? / &sums;
            let _ = gradient.narrow(0, start, count).f_add_(&towards)?;
            let _ = gradient.f_addmm_(&weights.f_tr()?, &(&block / &sums))?;
        }
    }
    let value = (log_sums.f_squeeze()? - agreement) / rows as f64;
    let gradient = match gradient {
        None => None,
        Some(gradient) => {
            let gradient = gradient / (temperature * rows as f64);
            let along = (&gradient * &unit).f_sum_dim_intlist([1].as_slice(), true, embeddings.kind())?;
            // Where the norm is floored, the direction is not normalised and nothing is projected out.
            let along = along * norm.f_ge(SMALLEST_NORM)?;
            Some((gradient - along * &unit) / floored)
        }
    };
    Ok((value, gradient))
}

#[cfg(test)]
mod tests;
