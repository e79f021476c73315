//! What is proved of a network under noise, and what an attack leaves of it.

use super::evaluate::Subject;
use crate::Metrics;
use contrast::attack::smoothing::{Smoothed, SmoothingConfig, certified_accuracy};
use contrast::attack::{Attack, Ball, Goal, Pgd};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Noisy images at a time, but for attacks: those send as many an image as the attack sees draws.
const BATCH: usize = 500;

/// How a network is smoothed, certified and attacked; part of a run's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certified {
    /// So many of the attacked images.
    pub(super) images: usize,
    /// Deviation of the noise.
    pub(super) sigma: f64,
    pub(super) smoothing: SmoothingConfig,
    /// L2 radii at which certified accuracy is asked.
    pub(super) radii: Vec<f64>,
    /// L2 radii within which smoothed and bare network are attacked.
    pub(super) attacked: Vec<f64>,
    /// Steps of PGD, each of a quarter of the radius.
    pub(super) steps: usize,
    /// Draws of noise that the attack sees.
    pub(super) passes: usize,
    /// Draws of noise by which the smoothed network answers for what was found.
    pub(super) predictions: u64,
}

/// The metric of how often, over images and radii, an attack took an image from a class that is certified as far or farther.
pub(super) const BROKEN: &str = "smoothed/broken";

/// The metric of certified accuracy (%) at a radius.
pub(super) fn certified_name(radius: f64) -> String {
    format!("smoothed/certified {radius:.2}")
}

/// The metric of the smoothed network's accuracy (%) under attack within a radius; abstaining is no answer.
pub(super) fn standing_name(radius: f64) -> String {
    format!("smoothed/attacked {radius:.2}")
}

/// The metric of the bare network's.
pub(super) fn bare_name(radius: f64) -> String {
    format!("bare/attacked {radius:.2}")
}

impl Certified {
    /// Images that go through the network, roughly; backward passes count twice.
    pub(super) fn passes(&self) -> f64 {
        let certified = self.smoothing.selection + self.smoothing.certification;
        let attacked = self.attacked.len() as f64 * (3.0 * (self.steps * self.passes) as f64 + self.predictions as f64);
        self.images as f64 * (certified as f64 + attacked)
    }

    pub(super) fn measure(&self, subject: &Subject, seed: u64) -> anyhow::Result<Metrics> {
        let model = |images: &Tensor| (subject.logits)(images);
        let smoothed = Smoothed::new(&model, self.sigma, BATCH)?;
        let (images, labels) = subject.attacked(0, self.images);
        let targets = Vec::<i64>::try_from(&labels)?;
        let places = 0..self.images as i64;
        let certificates = places.clone().map(|place| smoothed.certify(&images.get(place), &self.smoothing, seed));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let mut metrics = Metrics::new();
        for &radius in &self.radii {
            let accuracy = 100.0 * certified_accuracy(&certificates, &targets, radius)?;
            metrics.insert(certified_name(radius), accuracy);
        }
        let soft = smoothed.soft(self.passes, seed)?;
        let mut broken = 0;
        for &radius in &self.attacked {
            let attack = Pgd::new(Ball::l2(radius)).with_steps(self.steps);
            let found = attack.run(&soft, &images, &Goal::untargeted(&labels), seed)?.images;
            let answers = places
                .clone()
                .map(|place| smoothed.predict(&found.get(place), self.predictions, self.smoothing.alpha, seed));
            let answers = answers.collect::<Result<Vec<_>, _>>()?;
            let right = answers.iter().zip(&targets).filter(|(answer, label)| **answer == Some(**label)).count();
            metrics.insert(standing_name(radius), 100.0 * right as f64 / self.images as f64);
            let held = certificates.iter().map(|certificate| certificate.filter(|one| one.radius >= radius));
            let held = held.map(|certificate| certificate.map(|one| one.class));
            broken += taken(held, &answers, &targets);
            metrics.insert(bare_name(radius), subject.robust(&attack, self.images, seed)?);
        }
        metrics.insert(BROKEN.into(), broken as f64);
        Ok(metrics)
    }
}

/// Images of which the label is certified and another class answered.
fn taken(certified: impl Iterator<Item = Option<i64>>, answers: &[Option<i64>], labels: &[i64]) -> usize {
    let seen = certified.zip(answers).zip(labels);
    seen.filter(|((certified, answer), label)| {
        *certified == Some(**label) && answer.is_some_and(|answer| answer != **label)
    })
    .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_taken_where_its_label_was_certified_and_another_class_is_answered() {
        let certified = [Some(0), Some(0), Some(0), Some(1), None];
        let answers = [Some(0), Some(1), None, Some(2), Some(2)];
        // Kept, taken, abstained, certified as a wrong class, not certified.
        assert_eq!(taken(certified.into_iter(), &answers, &[0; 5]), 1);
    }
}
