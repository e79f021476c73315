//! When to go on to the next stage.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Debug;

/// Looks at the losses of epochs and says when a stage is over. A door for rules of one's own.
pub trait StageIndicator: Debug {
    /// Takes the mean training loss of an epoch just finished; true if the next stage begins.
    ///
    /// # Errors
    /// A loss that is not a number.
    fn end_of_epoch(&mut self, loss: f64) -> Result<bool>;

    /// How many stages it ends at most, where that is limited. [`Pfq`](super::Pfq) and
    /// [`FollowTarget`](super::FollowTarget) refuse stages that would never begin.
    fn turning_points(&self) -> Option<usize> {
        None
    }

    /// Everything that the next answers depend on.
    fn state(&self) -> Vec<f64>;

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// Numbers that do not fit.
    fn load_state(&mut self, state: &[f64]) -> Result<()>;
}

/// Refuses an indicator that never lets the last of so many stages begin.
pub(super) fn check_reach(indicator: &impl StageIndicator, stages: usize) -> Result<()> {
    match indicator.turning_points() {
        Some(found) if found.saturating_add(1) < stages => {
            let expected = format!("at least {}, for the last of {stages} stages to begin", stages - 1);
            Err(Error::config("turning_points", expected, found))
        }
        _ => Ok(()),
    }
}

/// Settings of [`PlateauIndicator`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlateauConfig {
    /// Largest relative difference of losses that counts as standing still, in the first stage. Published: 0.05 for about
    /// 160 epochs; shorter trainings need more.
    pub threshold: f64,
    /// Multiplies the threshold at each switch. Published: 0.3.
    pub decay: f64,
    /// Losses compared, at least 2; a stage lasts at least as many epochs. Published: 5.
    pub window: usize,
    /// Epochs over which the mean loss is taken as the scale. Published: 10.
    pub scale_epochs: u64,
    /// Switches at most: one less than stages. Published: 3.
    pub turning_points: usize,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { threshold: 0.05, decay: 0.3, window: 5, scale_epochs: 10, turning_points: 3 }
    }
}

/// The reference code's rule: a stage is over when the last `window` losses lie within `threshold` of the newest, relative
/// to the mean loss of the first epochs.
///
/// ```
/// use quant::fractrain::{PlateauConfig, PlateauIndicator, StageIndicator};
///
/// let mut indicator = PlateauIndicator::new(PlateauConfig::default())?;
/// // A constant loss ends a stage as soon as the window is full.
/// let switches: Vec<bool> = (0..10).map(|_| indicator.end_of_epoch(1.0)).collect::<Result<_, _>>()?;
/// assert_eq!(switches, [false, false, false, false, true, false, false, false, false, true]);
/// # Ok::<(), quant::fractrain::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PlateauIndicator {
    config: PlateauConfig,
    threshold: f64,
    history: VecDeque<f64>,
    switches: usize,
    epochs: u64,
    sum: f64,
    scale: f64,
}

impl PlateauIndicator {
    /// An indicator that has seen nothing.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn new(config: PlateauConfig) -> Result<Self> {
        let PlateauConfig { threshold, decay, window, scale_epochs, .. } = config;
        if !(threshold.is_finite() && threshold > 0.0) {
            return Err(Error::config("threshold", "above 0", threshold));
        }
        if !(decay > 0.0 && decay <= 1.0) {
            return Err(Error::config("decay", "above 0 and at most 1", decay));
        }
        if window < 2 {
            return Err(Error::config("window", "at least 2", window));
        }
        if scale_epochs == 0 {
            return Err(Error::config("scale_epochs", "at least 1", scale_epochs));
        }
        Ok(Self { config, threshold, history: VecDeque::new(), switches: 0, epochs: 0, sum: 0.0, scale: 0.0 })
    }

    /// The threshold now.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The mean loss that differences are relative to.
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

impl StageIndicator for PlateauIndicator {
    fn end_of_epoch(&mut self, loss: f64) -> Result<bool> {
        if !loss.is_finite() {
            return Err(Error::config("loss", "a finite number", loss));
        }
        self.epochs += 1;
        if self.epochs <= self.config.scale_epochs {
            self.sum += loss;
            self.scale = self.sum / self.epochs as f64;
        }
        if self.switches >= self.config.turning_points {
            return Ok(false);
        }
        self.history.push_back(loss);
        if self.history.len() > self.config.window {
            self.history.pop_front();
        }
        // Multiplied out, so that a scale of zero divides nothing.
        let bound = self.threshold * self.scale.abs();
        let still = self.history.iter().all(|earlier| (earlier - loss).abs() <= bound);
        if self.history.len() < self.config.window || !still {
            return Ok(false);
        }
        self.switches += 1;
        // The last stage needs no threshold.
        if self.switches < self.config.turning_points {
            self.threshold *= self.config.decay;
        }
        self.history.clear();
        Ok(true)
    }

    fn turning_points(&self) -> Option<usize> {
        Some(self.config.turning_points)
    }

    fn state(&self) -> Vec<f64> {
        let mut state = vec![self.threshold, self.switches as f64, self.epochs as f64, self.sum, self.scale];
        state.extend(&self.history);
        state
    }

    fn load_state(&mut self, state: &[f64]) -> Result<()> {
        let [threshold, switches, epochs, sum, scale, history @ ..] = state else {
            return Err(Error::shape("state of a plateau indicator", "at least 5 numbers", state.len()));
        };
        (self.threshold, self.switches, self.epochs) = (*threshold, *switches as usize, *epochs as u64);
        (self.sum, self.scale, self.history) = (*sum, *scale, history.iter().copied().collect());
        Ok(())
    }
}

/// Switches after fixed epochs, whatever the loss.
///
/// ```
/// use quant::fractrain::{AtEpochs, StageIndicator};
///
/// let mut at = AtEpochs::new(vec![1, 3])?;
/// let switches: Vec<bool> = (0..4).map(|_| at.end_of_epoch(0.0)).collect::<Result<_, _>>()?;
/// assert_eq!(switches, [true, false, true, false]);
/// # Ok::<(), quant::fractrain::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtEpochs {
    after: Vec<u64>,
    #[serde(skip)]
    epochs: u64,
}

impl AtEpochs {
    /// A new stage after each of these many epochs.
    ///
    /// # Errors
    /// [`Error::Config`] unless the epochs increase from 1 on.
    pub fn new(after: Vec<u64>) -> Result<Self> {
        if after.first() == Some(&0) || after.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::config("after", "increasing from 1 on", format!("{after:?}")));
        }
        Ok(Self { after, epochs: 0 })
    }
}

impl StageIndicator for AtEpochs {
    fn end_of_epoch(&mut self, _: f64) -> Result<bool> {
        self.epochs += 1;
        Ok(self.after.contains(&self.epochs))
    }

    fn turning_points(&self) -> Option<usize> {
        Some(self.after.len())
    }

    fn state(&self) -> Vec<f64> {
        vec![self.epochs as f64]
    }

    fn load_state(&mut self, state: &[f64]) -> Result<()> {
        let [epochs] = state else {
            return Err(Error::shape("state of fixed switches", "1 number", state.len()));
        };
        self.epochs = *epochs as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOSSES: [f64; 21] = [
        2.0, 1.6, 1.3, 1.1, 1.0, 0.95, 0.92, 0.90, 0.89, 0.88, 0.875, 0.87, 0.868, 0.866, 0.865, 0.864, 0.8635, 0.863,
        0.8628, 0.8626, 0.8625,
    ];

    /// Epochs, from 1, after which a stage ends.
    fn switches(indicator: &mut dyn StageIndicator, losses: &[f64]) -> Vec<usize> {
        let ends = losses.iter().enumerate().filter(|(_, loss)| indicator.end_of_epoch(**loss).unwrap());
        ends.map(|(epoch, _)| epoch + 1).collect()
    }

    fn plateau(config: PlateauConfig) -> PlateauIndicator {
        PlateauIndicator::new(config).unwrap()
    }

    #[test]
    fn the_hand_made_loss_curve_switches_where_worked_by_hand() {
        // The first ten losses sum to 11.54. Window 5: at epoch 11 the largest difference is 0.92 − 0.875 = 0.045 ≤
        // 0.05·1.154; at 16 with 0.015: 0.87 − 0.864; at 21 with 0.0045: 0.8635 − 0.8625.
        let mut indicator = plateau(PlateauConfig::default());
        assert_eq!(switches(&mut indicator, &LOSSES[..11]), [11]);
        assert!((indicator.scale() - 1.154).abs() < 1e-12 && (indicator.threshold() - 0.015).abs() < 1e-12);
        assert_eq!(switches(&mut indicator, &LOSSES[11..]), [5, 10]);
        assert!((indicator.threshold() - 0.0045).abs() < 1e-12);
        assert!(switches(&mut indicator, &[0.8625; 50]).is_empty());
    }

    #[test]
    fn a_constant_loss_switches_whenever_the_window_is_full() {
        assert_eq!(switches(&mut plateau(PlateauConfig::default()), &[1.0; 40]), [5, 10, 15]);
    }

    #[test]
    fn shifting_all_losses_moves_the_switches() {
        let shifted = LOSSES.map(|loss| loss + 10.0);
        let found = switches(&mut plateau(PlateauConfig::default()), &shifted);
        assert_ne!(found, [11, 16, 21]);
    }

    #[test]
    fn settings_outside_their_range_and_losses_that_are_none_are_refused() {
        let default = PlateauConfig::default();
        for (bad, name) in [
            (PlateauConfig { threshold: 0.0, ..default }, "threshold"),
            (PlateauConfig { threshold: f64::NAN, ..default }, "threshold"),
            (PlateauConfig { decay: 0.0, ..default }, "decay"),
            (PlateauConfig { decay: 1.5, ..default }, "decay"),
            (PlateauConfig { window: 1, ..default }, "window"),
            (PlateauConfig { scale_epochs: 0, ..default }, "scale_epochs"),
        ] {
            assert!(PlateauIndicator::new(bad).unwrap_err().to_string().contains(name));
        }
        assert!(plateau(default).end_of_epoch(f64::NAN).is_err());
        assert!(AtEpochs::new(vec![3, 3]).is_err() && AtEpochs::new(vec![0, 3]).is_err());
        assert!(plateau(default).load_state(&[1.0]).is_err());
    }

    proptest! {
        #[test]
        fn scaling_losses_changes_nothing_and_stages_last_a_window(
            losses in proptest::collection::vec(0.1_f64..3.0, 1..60), exponent in -8_i32..8, threshold in 0.01_f64..1.0,
        ) {
            let config = PlateauConfig { threshold, ..PlateauConfig::default() };
            let found = switches(&mut plateau(config), &losses);
            // Powers of two scale without rounding, so that comparisons come out the same to the bit.
            let scaled: Vec<f64> = losses.iter().map(|loss| loss * 2_f64.powi(exponent)).collect();
            prop_assert_eq!(&found, &switches(&mut plateau(config), &scaled));
            prop_assert!(found.len() <= config.turning_points);
            let starts = std::iter::once(0).chain(found.iter().copied());
            prop_assert!(starts.zip(&found).all(|(start, end)| end - start >= config.window));
        }

        #[test]
        fn a_restored_indicator_goes_on_alike(losses in proptest::collection::vec(0.1_f64..1.0, 2..60), cut in 0_usize..60) {
            let config = PlateauConfig { threshold: 0.4, ..PlateauConfig::default() };
            let cut = cut.min(losses.len());
            let mut whole = plateau(config);
            switches(&mut whole, &losses[..cut]);
            let mut restored = plateau(config);
            restored.load_state(&whole.state()).unwrap();
            prop_assert_eq!(&restored, &whole);
            prop_assert_eq!(switches(&mut restored, &losses[cut..]), switches(&mut whole, &losses[cut..]));
        }
    }
}
