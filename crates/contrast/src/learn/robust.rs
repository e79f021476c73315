//! Training a classifier to resist attacks: PGD adversarial training, TRADES, MART, Gaussian noise.

use super::Scope;
use super::error::{Error, Result};
use crate::attack::{Ball, Pgd, Start, gaussian};
use core_tensor::data::Batch;
use core_tensor::nn::Network;
use core_tensor::seed::{Purpose, derive};
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, no_grad};

/// What a classifier learns from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "defence", rename_all = "snake_case", deny_unknown_fields)]
pub enum Defence {
    /// Cross-entropy on clean images.
    None,
    /// Cross-entropy on attacked images (Madry et al., arXiv 1706.06083).
    PgdAt,
    /// [`trades_loss`] (Zhang et al., arXiv 1901.08573): images are attacked through the divergence that the loss contains.
    Trades {
        /// Weight β of robustness, at least 0. TRADES and ACL: 6.
        beta: f64,
    },
    /// [`mart_loss`] (Wang et al., ICLR 2020): images are attacked through cross-entropy.
    Mart {
        /// Weight λ of robustness, at least 0. The reference code: 6.
        lambda: f64,
    },
    /// Cross-entropy on images under Gaussian noise, drawn anew at every step and not clipped: what randomised smoothing
    /// certifies (Cohen et al., arXiv 1902.02918, section 3.3). Nothing is attacked.
    Noise {
        /// Standard deviation in the units of the pixels, at least 0.
        deviation: f64,
    },
}

/// Settings of [`RobustTraining`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustConfig {
    /// What is learned from. Default, and ACL's adversarial full fine-tuning: TRADES with β 6.
    pub defence: Defence,
    /// The attack on training images, where the defence has one; its loss is the defence's. Default, as TRADES's reference
    /// code: 10 steps of 2/255 within an Linf ball of 8/255, from next to the image.
    pub attack: Pgd,
}

impl Default for RobustConfig {
    fn default() -> Self {
        Self::trades(8.0 / 255.0)
    }
}

impl RobustConfig {
    /// Cross-entropy on clean images.
    pub fn standard() -> Self {
        Self { defence: Defence::None, ..Self::default() }
    }

    /// Cross-entropy under Gaussian noise of a deviation, for [`Smoothed`](crate::attack::smoothing::Smoothed) of the same.
    pub fn noisy(deviation: f64) -> Self {
        Self { defence: Defence::Noise { deviation }, ..Self::default() }
    }

    /// PGD adversarial training: 10 steps of a quarter of the radius from a random start.
    pub fn pgd_at(radius: f64) -> Self {
        Self { defence: Defence::PgdAt, attack: Pgd::new(Ball::linf(radius)).with_steps(10) }
    }

    /// Fast adversarial training (Wong et al., arXiv 2001.03994): one step of 1.25 of the radius from a random start.
    pub fn fast_at(radius: f64) -> Self {
        let attack = Pgd::new(Ball::linf(radius)).with_steps(1).with_step_size(1.25 * radius);
        Self { defence: Defence::PgdAt, attack }
    }

    /// TRADES with β 6: 10 steps of a quarter of the radius from next to the image.
    pub fn trades(radius: f64) -> Self {
        let attack = Pgd::new(Ball::linf(radius)).with_steps(10).with_start(Start::Nearby);
        Self { defence: Defence::Trades { beta: 6.0 }, attack }
    }

    /// MART with λ 6: 10 steps of a quarter of the radius from next to the image.
    pub fn mart(radius: f64) -> Self {
        Self { defence: Defence::Mart { lambda: 6.0 }, ..Self::trades(radius) }
    }

    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let weight = |setting, value: f64| {
            let fine = value >= 0.0 && value.is_finite();
            if fine { Ok(()) } else { Err(Error::setting(setting, "finite and at least 0", value)) }
        };
        match self.defence {
            Defence::None | Defence::PgdAt => {}
            Defence::Trades { beta } => weight("beta", beta)?,
            Defence::Mart { lambda } => weight("lambda", lambda)?,
            Defence::Noise { deviation } => weight("deviation", deviation)?,
        }
        if matches!(self.defence, Defence::Trades { .. }) && self.attack.start == Start::Image {
            let expected = "random or nearby for TRADES, whose divergence has no gradient at the image";
            return Err(Error::setting("attack.start", expected, "image"));
        }
        Ok(self.attack.validate()?)
    }
}

/// A robust loss and its two terms, scalars.
#[derive(Debug)]
pub struct RobustLoss {
    /// What is minimised: `accuracy + weight · robustness`.
    pub total: Tensor,
    /// The term of the labels.
    pub accuracy: Tensor,
    /// The term that compares clean and attacked logits.
    pub robustness: Tensor,
}

/// TRADES (Zhang et al., arXiv 1901.08573, equation 5):
///
/// ```text
/// CE(f(x), y) + β/B · Σ_i KL( softmax f(x_i) ‖ softmax f(x'_i) )
/// ```
///
/// Logits are `[batch, classes]`, labels `[batch]`. Gradients flow to both logits.
///
/// # Errors
/// Shapes that do not fit.
pub fn trades_loss(clean: &Tensor, attacked: &Tensor, labels: &Tensor, beta: f64) -> Result<RobustLoss> {
    let accuracy = cross_entropy(clean, labels)?;
    let robustness = divergence(clean, attacked)?.f_mean(clean.kind())?;
    Ok(RobustLoss { total: &accuracy + &robustness * beta, accuracy, robustness })
}

/// MART (Wang et al., ICLR 2020): with `p = softmax f(x)`, `p' = softmax f(x')` and the most likely wrong class `c` of `p'`,
///
/// ```text
/// CE(f(x'), y) − mean log(1.0001 − p'_c) + λ/B · Σ_i KL(p_i ‖ p'_i) · (1 − p_{i,y})
/// ```
///
/// with the small constants of the reference code, which keep the logarithms finite.
///
/// # Errors
/// Shapes that do not fit.
pub fn mart_loss(clean: &Tensor, attacked: &Tensor, labels: &Tensor, lambda: f64) -> Result<RobustLoss> {
    let column = labels.f_unsqueeze(1)?;
    let probabilities = attacked.f_softmax(1, attacked.kind())?;
    // Probabilities are above −1, so this leaves the label out, whatever ties there are.
    let wrong = probabilities.f_scatter_value(1, &column, -1.0)?.f_amax([1].as_slice(), false)?;
    let confusion = (wrong.f_neg()? + 1.0001 + 1e-12).f_log()?.f_mean(clean.kind())?;
    let accuracy = cross_entropy(attacked, labels)? - confusion;
    let own = clean.f_softmax(1, clean.kind())?.f_gather(1, &column, false)?.f_squeeze_dim(1)?;
    let robustness = (divergence(clean, attacked)? * (own.f_neg()? + 1.000_000_1)).f_mean(clean.kind())?;
    Ok(RobustLoss { total: &accuracy + &robustness * lambda, accuracy, robustness })
}

/// `KL(softmax clean ‖ softmax attacked)` of each example, `[batch]`.
pub(crate) fn divergence(clean: &Tensor, attacked: &Tensor) -> Result<Tensor> {
    if clean.size() != attacked.size() || clean.size().len() != 2 {
        let expected = format!("[batch, classes], as the clean {:?}", clean.size());
        return Err(Error::mismatch("attacked logits", expected, format!("{:?}", attacked.size())));
    }
    let (expected, found) = (clean.f_log_softmax(1, clean.kind())?, attacked.f_log_softmax(1, clean.kind())?);
    Ok((expected.f_exp()? * (&expected - found)).f_sum_dim_intlist([1].as_slice(), false, clean.kind())?)
}

fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(logits.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
}

/// Images and training mode → logits `[batch, classes]`.
pub type Logits<'a> = Box<dyn Fn(&Tensor, bool) -> Tensor + 'a>;

/// Trains a classifier on attacked or noisy images, as a [`Defence`] says.
///
/// Attacks are made in evaluation mode. Then clean and attacked images go through the network in training mode, in this order, so
/// that batch norms see both. Parts: `cross_entropy` (or the term that stands for it), `robustness` where the defence has such a
/// term, `train_accuracy` (%, of what the labels are compared with).
///
/// With [`fine_tuned`](super::fine_tuned) parameters and [`RobustTraining::tuning`] this is standard or adversarial linear
/// fine-tuning, or adversarial full fine-tuning of a pre-trained encoder.
pub struct RobustTraining<'a> {
    logits: Logits<'a>,
    config: RobustConfig,
    seed: u64,
}

impl std::fmt::Debug for RobustTraining<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("RobustTraining").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<'a> RobustTraining<'a> {
    /// A network as [`fine_tuned`](super::fine_tuned) with the same scope has readied it: under [`Scope::Linear`] it runs in
    /// evaluation mode throughout, so that not even the encoder's statistics move. `seed` fixes the attack's random starts.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn tuning(network: &'a dyn Network, scope: Scope, config: RobustConfig, seed: u64) -> Result<Self> {
        match scope {
            Scope::Linear => Self::linear(network, config, seed),
            Scope::Full => Self::full(network, config, seed),
        }
    }

    /// All of a network. `seed` fixes the attack's random starts.
    ///
    /// It runs in training mode, which moves the statistics of batch norms even where no parameter is trained: for an encoder
    /// that is to stay as it is, [`RobustTraining::tuning`].
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn full(network: &'a dyn Network, config: RobustConfig, seed: u64) -> Result<Self> {
        Self::of(Box::new(|images, train| network.forward(images, train)), config, seed)
    }

    /// A network whose encoder is frozen: it runs in evaluation mode throughout, so that not even its statistics move.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn linear(network: &'a dyn Network, config: RobustConfig, seed: u64) -> Result<Self> {
        Self::of(Box::new(|images, _| network.forward(images, false)), config, seed)
    }

    /// Any function from images to logits.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn of(logits: Logits<'a>, config: RobustConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self { logits, config, seed })
    }

    fn step(&self, batch: &Batch, step: u64) -> Result<Loss> {
        let Batch { input, target, .. } = batch;
        let seed = derive(self.seed, Purpose::Noise, step);
        let logits = |images: &Tensor| (self.logits)(images, true);
        match self.config.defence {
            Defence::None => {
                let clean = logits(input);
                reported(cross_entropy(&clean, target)?, Vec::new(), (&clean, target))
            }
            Defence::Noise { deviation } => {
                let (size, kind) = (input.size(), input.f_kind()?);
                let floating = matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
                let Some(&rows) = size.first().filter(|_| floating) else {
                    let expected = "[batch, ...] of a floating-point kind".to_owned();
                    return Err(Error::mismatch("images", expected, format!("{size:?} of kind {kind:?}")));
                };
                let noisy = logits(&(input + gaussian(input, rows as usize, deviation, seed, 0)));
                reported(cross_entropy(&noisy, target)?, Vec::new(), (&noisy, target))
            }
            Defence::PgdAt => {
                let attacked = logits(&attack_labels(&self.logits, &self.config.attack, input, target, seed)?);
                reported(cross_entropy(&attacked, target)?, Vec::new(), (&attacked, target))
            }
            Defence::Trades { beta } => {
                let attacked = attack_divergence(&self.logits, &self.config.attack, input, seed)?;
                let (clean, attacked) = (logits(input), logits(&attacked));
                let RobustLoss { total, accuracy, robustness } = trades_loss(&clean, &attacked, target, beta)?;
                let parts = vec![("cross_entropy", accuracy.detach()), ("robustness", robustness.detach())];
                reported(total, parts, (&clean, target))
            }
            Defence::Mart { lambda } => {
                let attacked = attack_labels(&self.logits, &self.config.attack, input, target, seed)?;
                let (clean, attacked) = (logits(input), logits(&attacked));
                let RobustLoss { total, accuracy, robustness } = mart_loss(&clean, &attacked, target, lambda)?;
                let parts = vec![("cross_entropy", accuracy.detach()), ("robustness", robustness.detach())];
                reported(total, parts, (&attacked, target))
            }
        }
    }
}

impl Objective<Batch> for RobustTraining<'_> {
    fn loss(&mut self, batch: &Batch, progress: &Progress) -> core_tensor::Result<Loss> {
        self.step(batch, progress.step).map_err(Error::in_step)
    }
}

/// With the accuracy, and the total as `cross_entropy` where there are no terms.
fn reported(total: Tensor, terms: Vec<(&'static str, Tensor)>, (logits, target): (&Tensor, &Tensor)) -> Result<Loss> {
    let hits = logits.argmax(-1, false).f_eq_tensor(target)?.to_kind(Kind::Float).mean(Kind::Float) * 100.0;
    let mut parts = if terms.is_empty() { vec![("cross_entropy", total.detach())] } else { terms };
    parts.push(("train_accuracy", hits));
    Ok(Loss { total, parts })
}

/// Images moved to where the cross-entropy with `labels` is highest.
pub(crate) fn attack_labels(
    logits: &Logits,
    attack: &Pgd,
    images: &Tensor,
    labels: &Tensor,
    seed: u64,
) -> Result<Tensor> {
    let loss = |images: &Tensor| -> Result<Tensor> {
        let found = logits(images, false);
        Ok(found.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::None, -100, 0.0)?)
    };
    attack.perturb(images, loss, seed)
}

/// Images moved to where the logits diverge most from those of the clean images. At the image itself this divergence has no
/// gradient, so the attack must start elsewhere.
pub(crate) fn attack_divergence(logits: &Logits, attack: &Pgd, images: &Tensor, seed: u64) -> Result<Tensor> {
    let clean = no_grad(|| logits(images, false));
    attack.perturb(images, |moved: &Tensor| divergence(&clean, &logits(moved, false)), seed)
}

#[cfg(test)]
mod tests;
