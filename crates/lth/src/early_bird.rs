//! Noticing that a mask has stopped changing.

use crate::mask::MaskSet;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// When masks count as settled (You et al., arXiv 1909.11957, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyBirdConfig {
    /// Masks compared, the newest included, at least 2. Default and reference code: 5.
    pub window: usize,
    /// Largest normalised Hamming distance between the newest and each other mask of the window, in `[0, 1]`. Default
    /// and paper: 0.1.
    pub threshold: f64,
}

impl Default for EarlyBirdConfig {
    fn default() -> Self {
        Self { window: 5, threshold: 0.1 }
    }
}

/// Detects an early-bird ticket from the masks drawn in the course of a training, one an epoch in the paper.
///
/// Draw them with any criterion; the paper ranks the scales of all batch norms together, with
/// [`Magnitude`](crate::criterion::Magnitude). In a ResNet of torchvision's names they are
/// [`Prunable::matching(["*bn*.weight", "*downsample.1.weight"])`](crate::Prunable::matching), the second for the norms of
/// shortcuts. Its reference code lets a layer lose all its channels: [`EmptyLayer::Allow`](crate::EmptyLayer::Allow).
#[derive(Debug)]
pub struct EarlyBird {
    config: EarlyBirdConfig,
    older: VecDeque<MaskSet>,
}

/// What the detector made of a mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Normalised Hamming distances of the mask to the older ones in the window, oldest first.
    pub distances: Vec<f64>,
    /// Whether the window is full and no distance is above the threshold: the mask is the ticket.
    pub found: bool,
}

impl EarlyBird {
    /// A detector that has seen nothing.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(config: EarlyBirdConfig) -> Result<Self> {
        if config.window < 2 {
            return Err(Error::setting("window", "at least 2", config.window));
        }
        if !(0.0..=1.0).contains(&config.threshold) {
            return Err(Error::setting("threshold", "in [0, 1]", config.threshold));
        }
        Ok(Self { config, older: VecDeque::new() })
    }

    /// Compares a new mask with the older ones of the window, then takes it in.
    ///
    /// # Errors
    /// A mask of other tensors than the older ones.
    pub fn see(&mut self, mask: MaskSet) -> Result<Sighting> {
        let distances = self.older.iter().map(|older| mask.hamming(older)).collect::<Result<Vec<_>>>()?;
        let full = distances.len() + 1 == self.config.window;
        let found = full && distances.iter().all(|distance| *distance <= self.config.threshold);
        self.older.push_back(mask);
        if self.older.len() == self.config.window {
            self.older.pop_front();
        }
        Ok(Sighting { distances, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn mask(bits: [u8; 8]) -> MaskSet {
        MaskSet::from_tensors(&[("bn.weight".into(), Tensor::from_slice(&bits))]).unwrap()
    }

    #[test]
    fn identical_masks_are_a_ticket_at_the_fifth_and_not_before() {
        let mut detector = EarlyBird::new(EarlyBirdConfig::default()).unwrap();
        let found: Vec<bool> = (0..6).map(|_| detector.see(mask([1, 1, 0, 0, 1, 0, 1, 0])).unwrap().found).collect();
        assert_eq!(found, [false, false, false, false, true, true]);
    }

    #[test]
    fn one_mask_that_strays_keeps_the_window_from_settling_until_it_has_left() {
        let config = EarlyBirdConfig { window: 3, threshold: 0.1 };
        let mut detector = EarlyBird::new(config).unwrap();
        let (usual, stray) = ([1, 1, 0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 1, 1, 0]);
        let masks = [usual, usual, stray, usual, usual, usual];
        let found: Vec<bool> = masks.map(|bits| detector.see(mask(bits)).unwrap().found).into();
        assert_eq!(found, [false, false, false, false, false, true]);
    }

    #[test]
    fn distances_are_normalised_and_oldest_first() {
        let mut detector = EarlyBird::new(EarlyBirdConfig::default()).unwrap();
        detector.see(mask([1, 1, 0, 0, 1, 0, 1, 0])).unwrap();
        detector.see(mask([1, 0, 0, 0, 1, 1, 1, 0])).unwrap();
        // Against the first: places 1 and 5 of 8 differ. Against the second: none.
        assert_eq!(detector.see(mask([1, 0, 0, 0, 1, 1, 1, 0])).unwrap().distances, [0.25, 0.0]);
    }

    #[test]
    fn two_patterns_choose_every_batch_norm_of_a_residual_network() {
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let network = core_tensor::networks::Architecture::cifar_resnet(8, 10).unwrap();
        network.build(&store.root(), &core_tensor::nn::Standard).unwrap();
        let chosen = |patterns: &[&str]| -> Vec<String> {
            let prunable = crate::Prunable::matching(patterns.iter().copied());
            prunable.select_from(&store).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        let mut norms = chosen(&["*bn*.weight", "*downsample.1.weight"]);
        // As many as have running statistics.
        let mut expected: Vec<_> = store.variables().into_keys().collect();
        expected.retain(|name| name.ends_with(".running_mean"));
        expected.iter_mut().for_each(|name| *name = name.replace("running_mean", "weight"));
        norms.sort();
        expected.sort();
        assert_eq!(norms.len(), 9);
        assert_eq!(norms, expected);
        assert_eq!(chosen(&["*bn*.weight"]).len(), 7);
    }

    #[test]
    fn settings_and_masks_that_do_not_fit_are_refused() {
        assert!(EarlyBird::new(EarlyBirdConfig { window: 1, threshold: 0.1 }).is_err());
        assert!(EarlyBird::new(EarlyBirdConfig { window: 5, threshold: f64::NAN }).is_err());
        let mut detector = EarlyBird::new(EarlyBirdConfig::default()).unwrap();
        detector.see(mask([1; 8])).unwrap();
        let other = MaskSet::from_tensors(&[("bn.weight".into(), Tensor::from_slice(&[1_u8, 0]))]).unwrap();
        assert!(matches!(detector.see(other), Err(Error::Mismatch { .. })));
    }
}
