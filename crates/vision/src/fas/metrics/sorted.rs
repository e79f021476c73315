//! Two sorted lists of scores, and everything that depends on their order alone.

use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Scores of bona fide presentations and of attacks, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub(crate) live: Vec<f64>,
    pub(crate) attack: Vec<f64>,
}

/// How to break ties of the equal error rate; the rules of published codes differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EerRule {
    /// Candidates are all scores and +∞; least |FAR − FRR|, then least mean, then the larger threshold. Exact in integers.
    #[default]
    Exact,
    /// The first vertex of the ROC, from the highest threshold down, with the least |TPR + FPR − 1|; the rate is its FPR.
    /// Vertices are those of scikit-learn's `roc_curve`: +∞, the highest and the lowest score, and of the scores between
    /// those at which the curve's next step is another than its last. As in CDCN and SSAN.
    RocFirst,
    /// Thresholds `i / 10000` and 1.1; the last with the least |FAR − FRR|. As in SSDG and FLIP.
    Grid10001,
}

/// An equal error rate and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Eer {
    /// The rate.
    pub value: f64,
    /// The threshold.
    pub threshold: f64,
}

impl Scores {
    /// Sorts two lists.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] and [`Error::NonFiniteScore`] (counting through the live scores first).
    pub fn new(live: impl Into<Vec<f64>>, attack: impl Into<Vec<f64>>) -> Result<Self> {
        let (mut live, mut attack) = (live.into(), attack.into());
        for (class, scores) in [("bona fide", &live), ("attack", &attack)] {
            if scores.is_empty() {
                return Err(Error::EmptyClass { class });
            }
        }
        if let Some((index, &value)) = live.iter().chain(&attack).enumerate().find(|(_, score)| !score.is_finite()) {
            return Err(Error::NonFiniteScore { index, value });
        }
        live.sort_unstable_by(f64::total_cmp);
        attack.sort_unstable_by(f64::total_cmp);
        Ok(Self { live, attack })
    }

    /// From scores and labels, 1 for live and 0 for attack.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::BadLabel`], and those of [`new`](Self::new).
    pub fn from_labels(scores: &[f64], labels: &[f64]) -> Result<Self> {
        if scores.len() != labels.len() {
            return Err(Error::LengthMismatch { what: "scores and labels", left: scores.len(), right: labels.len() });
        }
        if let Some((index, &value)) = labels.iter().enumerate().find(|(_, label)| **label != 0.0 && **label != 1.0) {
            return Err(Error::BadLabel { index, value });
        }
        let of = |class: f64| -> Vec<f64> {
            scores.iter().zip(labels).filter(|(_, label)| **label == class).map(|(score, _)| *score).collect()
        };
        Self::new(of(1.0), of(0.0))
    }

    /// Share of attacks accepted at a threshold.
    pub fn far(&self, threshold: f64) -> f64 {
        (self.attack.len() - below(&self.attack, threshold)) as f64 / self.attack.len() as f64
    }

    /// Share of bona fide presentations rejected at a threshold.
    pub fn frr(&self, threshold: f64) -> f64 {
        below(&self.live, threshold) as f64 / self.live.len() as f64
    }

    /// `(FAR + FRR) / 2`.
    pub fn hter(&self, threshold: f64) -> f64 {
        0.5 * (self.far(threshold) + self.frr(threshold))
    }

    /// `P(live > attack) + ½ P(live = attack)`.
    pub fn auc(&self) -> f64 {
        let (mut lower, mut not_higher, mut twice) = (0, 0, 0_u128);
        for &live in &self.live {
            while lower < self.attack.len() && self.attack[lower] < live {
                lower += 1;
            }
            while not_higher < self.attack.len() && self.attack[not_higher] <= live {
                not_higher += 1;
            }
            twice += (lower + not_higher) as u128;
        }
        twice as f64 / (2.0 * self.live.len() as f64 * self.attack.len() as f64)
    }

    /// The equal error rate.
    pub fn eer(&self, rule: EerRule) -> Eer {
        match rule {
            EerRule::Exact => self.exact_eer(),
            EerRule::RocFirst => self.first_vertex(),
            EerRule::Grid10001 => self.grid(),
        }
    }

    /// Every threshold that changes a decision, ascending, with the number of live rejected and attacks accepted.
    pub(crate) fn operating_points(&self) -> impl Iterator<Item = (f64, usize, usize)> {
        let (mut i, mut j) = (0, 0);
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let next = match (self.live.get(i), self.attack.get(j)) {
                (Some(&a), Some(&b)) => a.min(b),
                (Some(&a), None) => a,
                (None, Some(&b)) => b,
                (None, None) => {
                    done = true;
                    return Some((f64::INFINITY, self.live.len(), 0));
                }
            };
            let point = (next, i, self.attack.len() - j);
            while self.live.get(i) == Some(&next) {
                i += 1;
            }
            while self.attack.get(j) == Some(&next) {
                j += 1;
            }
            Some(point)
        })
    }

    fn exact_eer(&self) -> Eer {
        let (lives, attacks) = (self.live.len() as i128, self.attack.len() as i128);
        let mut best = None;
        for (threshold, rejected, accepted) in self.operating_points() {
            let (frr, far) = (rejected as i128 * attacks, accepted as i128 * lives);
            let key = ((far - frr).abs(), far + frr);
            if best.is_none_or(|(least, _)| key <= least) {
                best = Some((key, threshold));
            }
        }
        let ((_, sum), threshold) = best.unwrap_or(((0, 0), f64::INFINITY));
        Eer { value: sum as f64 / (2 * lives * attacks) as f64, threshold }
    }

    fn first_vertex(&self) -> Eer {
        let mut best = Eer { value: 0.0, threshold: f64::INFINITY };
        let mut least = f64::INFINITY;
        let mut points: Vec<_> = self.operating_points().collect();
        points.reverse();
        let vertex = |at: usize| {
            at < 2 || at + 1 == points.len() || {
                let [(_, above, fewer), (_, rejected, accepted), (_, below, more)] =
                    [points[at - 1], points[at], points[at + 1]];
                above - rejected != rejected - below || accepted - fewer != more - accepted
            }
        };
        for (_, &(threshold, rejected, accepted)) in points.iter().enumerate().filter(|(at, _)| vertex(*at)) {
            let tpr = (self.live.len() - rejected) as f64 / self.live.len() as f64;
            let fpr = accepted as f64 / self.attack.len() as f64;
            let distance = (tpr + fpr - 1.0).abs();
            if distance < least {
                (least, best) = (distance, Eer { value: fpr, threshold });
            }
        }
        best
    }

    fn grid(&self) -> Eer {
        let mut best = Eer { value: 0.0, threshold: 0.0 };
        let mut least = f64::INFINITY;
        for threshold in (0..=10_000).map(|i| f64::from(i) / 10_000.0).chain([1.1]) {
            let (far, frr) = (self.far(threshold), self.frr(threshold));
            let distance = (far - frr).abs();
            if distance <= least {
                (least, best) = (distance, Eer { value: 0.5 * (far + frr), threshold });
            }
        }
        best
    }

    /// Live as the positive class: the largest `1 − FRR` at a pooled FAR of at most `fpr`. As in FLIP. 0 where `fpr` is
    /// no rate in [0, 1].
    pub fn tpr_at_fpr(&self, fpr: f64) -> f64 {
        if !(0.0..=1.0).contains(&fpr) {
            return 0.0;
        }
        let allowed = |accepted: usize| accepted as f64 / self.attack.len() as f64 <= fpr;
        let rejected = self.operating_points().find(|(_, _, accepted)| allowed(*accepted)).map_or(0, |point| point.1);
        1.0 - rejected as f64 / self.live.len() as f64
    }

    /// Spoof as the positive class: the largest `1 − FAR` at an FRR of at most `fpr`. As in CelebA-Spoof. 0 where `fpr`
    /// is no rate in [0, 1].
    pub fn recall_at_fpr(&self, fpr: f64) -> f64 {
        if !(0.0..=1.0).contains(&fpr) {
            return 0.0;
        }
        let allowed = |rejected: usize| rejected as f64 / self.live.len() as f64 <= fpr;
        let last = self.operating_points().take_while(|(_, rejected, _)| allowed(*rejected)).last();
        1.0 - last.map_or(self.attack.len(), |point| point.2) as f64 / self.attack.len() as f64
    }
}

/// How many of an ascending list lie below a threshold.
pub(crate) fn below(ascending: &[f64], threshold: f64) -> usize {
    ascending.partition_point(|&score| score < threshold)
}
