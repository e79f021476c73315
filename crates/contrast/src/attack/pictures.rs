//! Attacked images for people to look at, and to store in 8 bits.

use tch::{Kind, Tensor};

use super::{Ball, Result};

/// Images of 8 bits, `[count, channels, height, width]` each.
#[derive(Debug)]
pub struct Pictures {
    /// The clean images.
    pub clean: Tensor,
    /// The attacked ones.
    pub attacked: Tensor,
    /// Their difference times the amplification, around a middle grey.
    pub difference: Tensor,
}

impl Pictures {
    /// The first `count` of a batch; `amplification` makes the differences visible (a tenth of the inverse budget, say 10).
    ///
    /// # Errors
    /// Images outside the box, or libtorch's when the shapes differ.
    pub fn new(ball: &Ball, clean: &Tensor, attacked: &Tensor, count: usize, amplification: f64) -> Result<Self> {
        ball.validate()?;
        ball.check_images(clean)?;
        ball.check_images(attacked)?;
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let first = |images: &Tensor| images.narrow(0, 0, images.size()[0].min(count));
        let (clean, attacked) = (first(clean), first(attacked));
        let (clean_bytes, attacked_bytes) = to_bytes(ball, &clean, &attacked)?;
        let width = ball.high - ball.low;
        let difference = (attacked.f_sub(&clean)? * (amplification / width) + 0.5) * 255.0;
        let difference = difference.round().clamp(0.0, 255.0).to_kind(Kind::Uint8);
        Ok(Self { clean: clean_bytes, attacked: attacked_bytes, difference })
    }
}

/// Clean and attacked images in 8 bits, such that the stored pair keeps the budget.
///
/// Rounding each by itself does not: half a level is won or lost on either side. Here the clean image is rounded, and the
/// perturbation is cut to whole levels towards zero. That makes it no larger in any norm, but for what single precision
/// may take from a whole level: a change that misses one by no more, 6e-5 of a level in the box `[0, 1]`, becomes that level.
///
/// # Errors
/// Images outside the box, or libtorch's when the shapes differ.
pub fn to_bytes(ball: &Ball, clean: &Tensor, attacked: &Tensor) -> Result<(Tensor, Tensor)> {
    ball.validate()?;
    ball.check_images(clean)?;
    ball.check_images(attacked)?;
    let levels = 255.0 / (ball.high - ball.low);
    let change = attacked.f_sub(clean)? * levels;
    let clean = ((clean - ball.low) * levels).round();
    // What single precision took from a whole level, when the pixel was moved and here, is given back before cutting.
    let slack = 2.0 * f64::from(f32::EPSILON) * (ball.low.abs() + ball.high.abs()) * levels;
    let change = (change.abs() + slack).floor() * change.sign();
    let attacked = (&clean + change).clamp(0.0, 255.0);
    Ok((clean.to_kind(Kind::Uint8), attacked.to_kind(Kind::Uint8)))
}
