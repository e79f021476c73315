//! Score sets by their role, and thresholds by where they come from.

use super::scored::Scored;
use super::sorted::{EerRule, Scores, below};
use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

/// Scores of a development set: people and recordings that are neither trained on nor tested.
#[derive(Debug, Clone)]
pub struct DevScores(pub(crate) Checked);

/// Scores of a test set. Nothing that is reported as a detector's error chooses anything on them.
#[derive(Debug, Clone)]
pub struct TestScores(pub(crate) Checked);

/// Scores with a sample of both classes.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) all: Vec<Scored>,
    pub(crate) scores: Scores,
    /// Presentations without a finite score.
    pub(crate) failures: usize,
}

impl Checked {
    fn new(all: Vec<Scored>, allow_failures: bool) -> Result<Self> {
        if let Some((index, scored)) = all.iter().enumerate().find(|(_, s)| !allow_failures && !s.score.is_finite()) {
            return Err(Error::NonFiniteScore { index, value: scored.score });
        }
        let of = |bona_fide: bool| -> Vec<f64> {
            let finite = all.iter().filter(|scored| scored.bona_fide == bona_fide && scored.score.is_finite());
            finite.map(|scored| scored.score).collect()
        };
        let scores = Scores::new(of(true), of(false))?;
        let failures = all.iter().filter(|scored| !scored.score.is_finite()).count();
        Ok(Self { all, scores, failures })
    }

    /// Attack scores by species, ascending; none where all attacks of a species failed to be acquired.
    pub(crate) fn by_species(&self, level: usize) -> BTreeMap<String, Vec<f64>> {
        let mut species: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for scored in self.all.iter().filter(|scored| !scored.bona_fide) {
            let finite = scored.score.is_finite().then_some(scored.score);
            species.entry(scored.species_at(level)).or_default().extend(finite);
        }
        species.values_mut().for_each(|scores| scores.sort_unstable_by(f64::total_cmp));
        species
    }

    pub(crate) fn subjects(&self) -> BTreeSet<u32> {
        self.all.iter().filter_map(|scored| scored.subject).collect()
    }
}

/// How a threshold is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Equal error rate.
    Eer,
    /// Least half total error; of several, the largest threshold.
    MinHter,
    /// The smallest threshold whose worst species, by their full names, has an APCER of at most this: 0.10, 0.05 and
    /// 0.01 for BPCER10, 20, 100.
    AtApcer(f64),
    /// The largest threshold with a BPCER of at most this.
    AtBpcer(f64),
    /// Given from outside.
    Fixed(f64),
}

/// Where a threshold comes from.
pub trait Source: Clone + std::fmt::Debug {
    /// As reports write it.
    const NAME: &'static str;
}

/// Chosen on a development set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dev;

/// Chosen on the very set that it is applied to: what a detector cannot do in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetOracle;

impl Source for Dev {
    const NAME: &'static str = "development set";
}

impl Source for TargetOracle {
    const NAME: &'static str = "target oracle";
}

/// A threshold with its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold<S: Source> {
    value: f64,
    criterion: Criterion,
    pub(crate) subjects: BTreeSet<u32>,
    pub(crate) species: BTreeSet<String>,
    source: PhantomData<S>,
}

impl<S: Source> Threshold<S> {
    /// Scores of at least this are accepted.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// How it was chosen.
    pub fn criterion(&self) -> Criterion {
        self.criterion
    }
}

impl Threshold<Dev> {
    /// A threshold that was chosen earlier, such as one read from a saved detector.
    ///
    /// # Errors
    /// [`Error::BadParam`] for NaN.
    pub fn saved(value: f64, criterion: Criterion) -> Result<Self> {
        if value.is_nan() {
            return Err(Error::BadParam { name: "threshold", expected: "a number", value });
        }
        let (subjects, species) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { value, criterion, subjects, species, source: PhantomData })
    }
}

impl DevScores {
    /// Checks scores.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] and [`Error::NonFiniteScore`].
    pub fn new(scores: Vec<Scored>) -> Result<Self> {
        Checked::new(scores, false).map(Self)
    }

    /// As [`new`](Self::new), but scores that are not finite count as failures to acquire.
    ///
    /// # Errors
    /// [`Error::EmptyClass`].
    pub fn with_failures(scores: Vec<Scored>) -> Result<Self> {
        Checked::new(scores, true).map(Self)
    }

    /// The sorted scores.
    pub fn scores(&self) -> &Scores {
        &self.0.scores
    }

    /// Chooses a threshold.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a share outside [0, 1] or a NaN.
    pub fn threshold(&self, criterion: Criterion) -> Result<Threshold<Dev>> {
        choose(&self.0, criterion)
    }
}

impl TestScores {
    /// Checks scores.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] and [`Error::NonFiniteScore`].
    pub fn new(scores: Vec<Scored>) -> Result<Self> {
        Checked::new(scores, false).map(Self)
    }

    /// As [`new`](Self::new), but scores that are not finite count as failures to acquire.
    ///
    /// # Errors
    /// [`Error::EmptyClass`].
    pub fn with_failures(scores: Vec<Scored>) -> Result<Self> {
        Checked::new(scores, true).map(Self)
    }

    /// The sorted scores.
    pub fn scores(&self) -> &Scores {
        &self.0.scores
    }

    /// The test set's own equal error threshold.
    ///
    /// # Errors
    /// None in practice: both classes are there.
    pub fn oracle_threshold(&self) -> Result<Threshold<TargetOracle>> {
        choose(&self.0, Criterion::Eer)
    }

    /// BPCER at the smallest threshold of this set whose worst species has an APCER of at most `apcer`: an oracle figure.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a share outside [0, 1].
    pub fn bpcer_at_apcer(&self, apcer: f64) -> Result<f64> {
        let threshold: Threshold<TargetOracle> = choose(&self.0, Criterion::AtApcer(apcer))?;
        Ok(self.0.scores.frr(threshold.value))
    }
}

fn choose<S: Source>(set: &Checked, criterion: Criterion) -> Result<Threshold<S>> {
    let share = |name, value: f64| {
        let fits = (0.0..=1.0).contains(&value);
        if fits { Ok(value) } else { Err(Error::BadParam { name, expected: "in [0, 1]", value }) }
    };
    let species = set.by_species(0);
    let value = match criterion {
        Criterion::Eer => set.scores.eer(EerRule::Exact).threshold,
        Criterion::MinHter => {
            let (lives, attacks) = (set.scores.live.len() as u128, set.scores.attack.len() as u128);
            let cost =
                |&(_, rejected, accepted): &(f64, usize, usize)| rejected as u128 * attacks + accepted as u128 * lives;
            // `min_by_key` keeps the first of equals, so the largest threshold comes first.
            let mut points: Vec<_> = set.scores.operating_points().collect();
            points.reverse();
            points.iter().min_by_key(|point| cost(point)).map_or(f64::INFINITY, |point| point.0)
        }
        Criterion::AtApcer(limit) => {
            let limit = share("APCER", limit)?;
            let worst = |threshold: f64| {
                let accepted = |s: &Vec<f64>| (s.len() - below(s, threshold)) as f64 / s.len() as f64;
                species.values().filter(|s| !s.is_empty()).map(accepted).fold(0.0, f64::max)
            };
            // APCER falls with the threshold, so the first that fits is found by bisection.
            let points: Vec<_> = set.scores.operating_points().map(|point| point.0).collect();
            points[points.partition_point(|&threshold| worst(threshold) > limit).min(points.len() - 1)]
        }
        Criterion::AtBpcer(limit) => {
            let limit = share("BPCER", limit)?;
            let points = set.scores.operating_points();
            let fits = |point: &(f64, usize, usize)| point.1 as f64 / set.scores.live.len() as f64 <= limit;
            points.take_while(fits).last().map_or(f64::NEG_INFINITY, |point| point.0)
        }
        Criterion::Fixed(value) if value.is_nan() => {
            return Err(Error::BadParam { name: "threshold", expected: "a number", value });
        }
        Criterion::Fixed(value) => value,
    };
    Ok(Threshold {
        value,
        criterion,
        subjects: set.subjects(),
        species: species.into_keys().collect(),
        source: PhantomData,
    })
}
