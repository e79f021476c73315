//! Randomised smoothing: a classifier whose robustness in L2 is proved rather than tested.

use core_tensor::seed::{Purpose, derive};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::beta_reg;
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

use super::classifier::Classifier;
use super::gaussian::gaussian;
use super::pgd::check_finite;
use super::{Error, Result};

/// A model that answers with the class its base most often gives under Gaussian noise (Cohen et al. 2019,
/// arXiv 1902.02918). No perturbation shorter than a certificate's radius changes that answer.
#[derive(Clone, Copy)]
pub struct Smoothed<'a> {
    model: &'a dyn Classifier,
    sigma: f64,
    batch: usize,
}

impl std::fmt::Debug for Smoothed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smoothed").field("sigma", &self.sigma).field("batch", &self.batch).finish_non_exhaustive()
    }
}

/// How many noisy passes, and how sure a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SmoothingConfig {
    /// Passes that choose the class. The paper's 100 by default.
    pub selection: u64,
    /// Passes that certify it, at least as many. The paper's 100 000 by default.
    pub certification: u64,
    /// The probability that a certificate is wrong, in `(0, 1)`. The paper's 0.001 by default.
    pub alpha: f64,
}

impl Default for SmoothingConfig {
    fn default() -> Self {
        Self { selection: 100, certification: 100_000, alpha: 0.001 }
    }
}

impl SmoothingConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        if self.selection == 0 {
            return Err(Error::setting("selection", "at least 1 pass", self.selection));
        }
        if self.certification < self.selection {
            return Err(Error::setting("certification", "at least as many passes as selection", self.certification));
        }
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return Err(Error::setting("alpha", "in (0, 1)", self.alpha));
        }
        Ok(())
    }
}

/// A class and the L2 radius within which the smoothed model keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The class.
    pub class: i64,
    /// The radius.
    pub radius: f64,
}

impl<'a> Smoothed<'a> {
    /// Noise of standard deviation `sigma` in the units of the pixels, `batch` noisy images at a time.
    ///
    /// The model must be in evaluation mode, which is not checked: statistics of a noisy batch would void a certificate.
    ///
    /// # Errors
    /// A `sigma` that is not a finite number above 0, or an empty batch.
    pub fn new(model: &'a dyn Classifier, sigma: f64, batch: usize) -> Result<Self> {
        if !(sigma > 0.0 && sigma.is_finite()) {
            return Err(Error::setting("sigma", "a finite number above 0", sigma));
        }
        if batch == 0 {
            return Err(Error::setting("batch", "at least 1", batch));
        }
        Ok(Self { model, sigma, batch })
    }

    /// Certifies one image (without a batch dimension); `None` abstains (algorithm CERTIFY).
    ///
    /// # Errors
    /// Settings outside their range, an image of another kind than single or double precision, or logits that are not
    /// finite.
    pub fn certify(&self, image: &Tensor, config: &SmoothingConfig, seed: u64) -> Result<Option<Certificate>> {
        config.validate()?;
        let first = self.counts(image, config.selection, stream(seed, 0))?;
        let class = largest(&first);
        // Fresh noise: a class chosen and counted on the same passes would be certified too easily.
        let counts = self.counts(image, config.certification, stream(seed, 1))?;
        let radius = certified_radius(counts[class], config.certification, config.alpha, self.sigma);
        Ok(radius.map(|radius| Certificate { class: class as i64, radius }))
    }

    /// The smoothed model's class of one image; `None` abstains, where a coin might have decided (algorithm PREDICT).
    ///
    /// # Errors
    /// As [`Smoothed::certify`].
    pub fn predict(&self, image: &Tensor, passes: u64, alpha: f64, seed: u64) -> Result<Option<i64>> {
        SmoothingConfig { selection: passes, certification: passes, alpha }.validate()?;
        let mut counts = self.counts(image, passes, stream(seed, 2))?;
        let class = largest(&counts);
        let first = std::mem::take(&mut counts[class]);
        let second = counts[largest(&counts)];
        Ok((two_sided_binomial(first, first + second) <= alpha).then_some(class as i64))
    }

    /// What to attack in the smoothed model's place, which is piecewise constant: the base's mean probabilities under `passes`
    /// draws of noise, as [`SoftSmoothed`]. 16 and more are usual. Each image goes through the base as often, all at a time.
    ///
    /// # Errors
    /// No pass.
    pub fn soft(&self, passes: usize, seed: u64) -> Result<SoftSmoothed<'a>> {
        if passes == 0 {
            return Err(Error::setting("passes", "at least 1", passes));
        }
        let noise = RefCell::new(None);
        Ok(SoftSmoothed { model: self.model, sigma: self.sigma, passes, seed: stream(seed, 3), noise })
    }

    /// How often the base gives each class in `passes` noisy passes. Every pass has a generator of its own, so the batch
    /// size changes nothing.
    fn counts(&self, image: &Tensor, passes: u64, seed: u64) -> Result<Vec<u64>> {
        let kind = image.f_kind()?;
        if !matches!(kind, Kind::Float | Kind::Double) {
            let expected = "single or double precision".to_owned();
            return Err(Error::Images { expected, found: format!("{kind:?}") });
        }
        let image = image.detach().unsqueeze(0);
        let mut counts: Vec<u64> = Vec::new();
        for start in (0..passes).step_by(self.batch) {
            let count = (passes - start).min(self.batch as u64) as usize;
            let noise = gaussian(&image, count, self.sigma, seed, start);
            let logits = tch::no_grad(|| self.model.logits(&(&image + noise)));
            let found = logits.size();
            let known = (!counts.is_empty()).then_some(counts.len() as i64);
            if found.len() != 2
                || found[0] != count as i64
                || found[1] < 1
                || known.is_some_and(|known| known != found[1])
            {
                let expected = format!("[{count}, classes]");
                return Err(Error::LogitsShape { expected, found: format!("{found:?}") });
            }
            check_finite("logits", &logits, start as usize)?;
            counts.resize(found[1] as usize, 0);
            let classes = Vec::<i64>::try_from(logits.argmax(-1, false).to_kind(Kind::Int64).to_device(Device::Cpu))?;
            classes.iter().for_each(|&class| counts[class as usize] += 1);
        }
        Ok(counts)
    }
}

/// The log of a base's mean probabilities under a few fixed draws of noise: a classifier like any other, and random only where its
/// base is, so that every attack takes it. Cross-entropy on it is what SmoothAdv (Salman et al. 2019, arXiv 1906.04584) maximises.
///
/// What such an attack finds is to be judged by [`Smoothed::predict`], with noise of its own.
///
/// ```
/// use contrast::attack::{Attack, Ball, Error, Goal, Pgd, smoothing::Smoothed};
/// use tch::{Kind, Tensor};
///
/// let weights = Tensor::from_slice(&[1_f32, -1.0, 0.5, -1.0, 1.0, -0.5]).reshape([2, 3]);
/// let model = |x: &Tensor| x.matmul(&weights.tr());
/// let smoothed = Smoothed::new(&model, 0.1, 64)?;
/// let (images, labels) = (Tensor::from_slice(&[0.6_f32, 0.4, 0.5]).reshape([1, 3]), Tensor::from_slice(&[0_i64]));
/// let attack = Pgd::new(Ball::l2(0.5));
/// let found = attack.run(&smoothed.soft(16, 0)?, &images, &Goal::untargeted(&labels), 0)?;
/// assert_eq!(smoothed.predict(&images.get(0), 500, 0.001, 0)?, Some(0));
/// assert_eq!(smoothed.predict(&found.images.get(0), 500, 0.001, 0)?, Some(1));
/// # Ok::<(), Error>(())
/// ```
pub struct SoftSmoothed<'a> {
    model: &'a dyn Classifier,
    sigma: f64,
    passes: usize,
    seed: u64,
    /// `[passes, ...]`, as it was last wanted: an attack asks for the same a hundred times.
    noise: RefCell<Option<Tensor>>,
}

impl std::fmt::Debug for SoftSmoothed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sigma, passes, seed, .. } = self;
        f.debug_struct("SoftSmoothed")
            .field("sigma", sigma)
            .field("passes", passes)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

impl SoftSmoothed<'_> {
    /// The same noise for every image, of the kind and on the device of `images`.
    fn noise(&self, images: &Tensor) -> Tensor {
        let wanted = |noise: &Tensor| {
            let alike = (noise.kind(), noise.device()) == (images.kind(), images.device());
            alike && noise.size()[1..] == images.size()[1..]
        };
        let mut kept = self.noise.borrow_mut();
        let noise = kept.take().filter(wanted);
        let noise = noise.unwrap_or_else(|| gaussian(images, self.passes, self.sigma, self.seed, 0));
        kept.insert(noise).shallow_clone()
    }
}

impl Classifier for SoftSmoothed<'_> {
    fn logits(&self, images: &Tensor) -> Tensor {
        let noisy = images.unsqueeze(0) + self.noise(images).unsqueeze(1);
        let logits = self.model.logits(&noisy.flatten(0, 1));
        let (passes, count) = (self.passes as i64, images.size()[0]);
        let classes = match logits.size()[..] {
            [rows, classes] if rows == passes * count => classes,
            // No logits: who asked for them will see that.
            _ => return logits,
        };
        let probabilities = logits.log_softmax(-1, logits.kind()).reshape([passes, count, classes]);
        probabilities.logsumexp([0].as_slice(), false) - (passes as f64).ln()
    }

    fn is_random(&self) -> bool {
        self.model.is_random()
    }
}

/// Seeds of the four uses that noise has here, apart from those that training under noise derives from the same seed, a step each:
/// a base must not have learned from the noise that certifies it.
fn stream(seed: u64, of: u64) -> u64 {
    derive(derive(seed, Purpose::Noise, u64::MAX), Purpose::Noise, of)
}

fn largest(counts: &[u64]) -> usize {
    (0..counts.len()).rev().max_by_key(|&class| counts[class]).unwrap_or(0)
}

/// The radius `σ Φ⁻¹(p)` with `p` the lower confidence bound of the class's probability; `None` when `p < 1/2`.
///
/// `alpha` lies in `(0, 1)`, and `sigma` is a finite number above 0. Others certify nothing: `None`.
pub fn certified_radius(count: u64, passes: u64, alpha: f64, sigma: f64) -> Option<f64> {
    if !(sigma > 0.0 && sigma.is_finite()) {
        return None;
    }
    let bound = lower_confidence_bound(count, passes, alpha);
    (bound >= 0.5).then(|| sigma * Normal::standard().inverse_cdf(bound))
}

/// The one-sided Clopper-Pearson bound: the probability `p` at which `count` or more of `passes` are as rare as `alpha`.
///
/// `alpha` lies in `(0, 1)` and `count` is at most `passes`. Others bound nothing: 0.
pub fn lower_confidence_bound(count: u64, passes: u64, alpha: f64) -> f64 {
    if count == 0 || count > passes || !(alpha > 0.0 && alpha < 1.0) {
        return 0.0;
    }
    let (a, b) = (count as f64, (passes - count) as f64 + 1.0);
    // The regularised incomplete beta function rises in p; 60 halvings leave 1e-18.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if beta_reg(a, b, middle) < alpha { low = middle } else { high = middle }
    }
    low
}

/// The probability that a fair coin is at least as far from even as `count` of `passes`; 0 where `count` is more than all.
pub fn two_sided_binomial(count: u64, passes: u64) -> f64 {
    if count > passes {
        return 0.0;
    }
    let most = count.max(passes - count);
    if 2 * most == passes {
        return 1.0;
    }
    (2.0 * beta_reg(most as f64, (passes - most) as f64 + 1.0, 0.5)).min(1.0)
}

/// The share of examples that keep their label within `radius`, in `[0, 1]`.
///
/// # Errors
/// [`Error::LabelMismatch`] unless there is one label a certificate.
pub fn certified_accuracy(certificates: &[Option<Certificate>], labels: &[i64], radius: f64) -> Result<f64> {
    if certificates.len() != labels.len() {
        let expected = format!("{} labels, one a certificate", certificates.len());
        return Err(Error::LabelMismatch { expected, found: labels.len().to_string() });
    }
    let certified = certificates.iter().zip(labels).filter(|(certificate, label)| {
        certificate.is_some_and(|certificate| certificate.class == **label && certificate.radius >= radius)
    });
    Ok(certified.count() as f64 / labels.len().max(1) as f64)
}
