//! A test set's error rates at a threshold.

use super::bootstrap::{Ordered, Replicate, percentiles};
use super::calibration::{Calibration, calibration};
use super::sorted::{Eer, EerRule, below};
use super::threshold::{Criterion, Dev, Source, TargetOracle, TestScores, Threshold};
use crate::fas::error::{Error, Result};
use serde::Serialize;
use std::fmt;
use std::marker::PhantomData;

/// What to compute besides the rates.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Parts of a species' name that count: with 1, `print/laser` and `print/inkjet` are both `print`. 0 for all.
    pub species_level: usize,
    /// Resampled sets behind intervals. Default 1000; 0 for none.
    pub bootstrap: usize,
    /// Fixes the resampling.
    pub seed: u64,
    /// Whether scores are probabilities, so that their calibration can be measured. Default false.
    pub probabilities: bool,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { species_level: 1, bootstrap: 1000, seed: 0, probabilities: false }
    }
}

/// An attack species' share accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeciesRate {
    /// The species.
    pub species: String,
    /// Its attacks with a score.
    pub attacks: usize,
    /// Share accepted as bona fide; 0 where none has a score, as what is not acquired is rejected.
    pub apcer: f64,
    /// Wilson's 95 % interval.
    pub interval: [f64; 2],
    /// Fewer than 30 attacks.
    pub small_sample: bool,
}

/// 95 % intervals by resampling people (or samples, where people are not known).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Intervals {
    /// Of the half total error rate.
    pub hter: [f64; 2],
    /// Of the area under the ROC.
    pub auc: [f64; 2],
    /// Of the average classification error rate.
    pub acer: [f64; 2],
    /// Of the share of bona fide presentations rejected.
    pub bpcer: [f64; 2],
    /// Of the equal error rate.
    pub eer: [f64; 2],
}

/// Error rates. Failures to acquire count as rejected: `FAR' = FAR (1 − FTA)`, `FRR' = FTA + FRR (1 − FTA)`, with one FTA
/// over presentations of both classes together. Intervals are moved in the same way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PadReport<S: Source> {
    /// Scores of at least this were accepted.
    pub threshold: f64,
    /// Where it comes from.
    pub threshold_source: &'static str,
    /// How it was chosen.
    pub criterion: Criterion,
    /// By species, in the order of their names.
    pub species: Vec<SpeciesRate>,
    /// The worst species'.
    pub apcer: f64,
    /// Share of bona fide presentations rejected.
    pub bpcer: f64,
    /// `(APCER + BPCER) / 2`.
    pub acer: f64,
    /// Share of all attacks accepted.
    pub far: f64,
    /// Half total error, `(FAR + FRR) / 2`.
    pub hter: f64,
    /// Area under the ROC.
    pub auc: f64,
    /// The set's own equal error rate: an oracle figure whatever the threshold.
    pub target_eer: f64,
    /// Share of presentations without a score, bona fide and attacks pooled.
    pub failures_to_acquire: f64,
    /// Bona fide presentations with a score.
    pub bona_fide: usize,
    /// Attacks with a score.
    pub attacks: usize,
    /// 95 % intervals, if asked for and possible.
    pub intervals: Option<Intervals>,
    /// Of scores that are probabilities.
    pub calibration: Option<Calibration>,
    /// What a reader should know: species that the development set had and this one lacks, and those without a score.
    pub warnings: Vec<String>,
    #[serde(skip)]
    source: PhantomData<S>,
}

/// Rates at a threshold from a development set.
///
/// # Errors
/// [`Error::IdentityLeak`] where both sets hold the same people, [`Error::BadParam`] for scores that are no probabilities
/// although the options say so.
pub fn evaluate(test: &TestScores, threshold: &Threshold<Dev>, options: &EvalOptions) -> Result<PadReport<Dev>> {
    let shared: Vec<String> = test.0.subjects().intersection(&threshold.subjects).map(u32::to_string).collect();
    if !shared.is_empty() {
        return Err(Error::IdentityLeak { ids: shared });
    }
    rates(test, threshold, options)
}

/// Rates at the test set's own equal error threshold, as many papers report them.
///
/// # Errors
/// As [`evaluate`], without people to leak.
pub fn evaluate_oracle(test: &TestScores, options: &EvalOptions) -> Result<PadReport<TargetOracle>> {
    rates(test, &test.oracle_threshold()?, options)
}

fn rates<S: Source>(test: &TestScores, threshold: &Threshold<S>, options: &EvalOptions) -> Result<PadReport<S>> {
    let set = &test.0;
    let value = threshold.value();
    let fta = set.failures as f64 / set.all.len() as f64;
    let by_species = set.by_species(options.species_level);
    let species: Vec<SpeciesRate> = by_species
        .iter()
        .map(|(name, scores)| {
            let accepted = scores.len() - below(scores, value);
            SpeciesRate {
                species: name.clone(),
                attacks: scores.len(),
                apcer: accepted as f64 / scores.len().max(1) as f64 * (1.0 - fta),
                interval: wilson(accepted, scores.len()).map(|rate| rate * (1.0 - fta)),
                small_sample: scores.len() < 30,
            }
        })
        .collect();
    let full_names = set.by_species(0);
    let lacking = threshold.species.iter().filter(|name| !full_names.contains_key(*name));
    let lacking = lacking.map(|name| format!("the development set has attacks of species `{name}`, this set has none"));
    let failed = full_names.iter().filter(|(_, scores)| scores.is_empty());
    let failed = failed.map(|(name, _)| format!("this set has attacks of species `{name}`, none with a score"));
    let (far, frr) = (set.scores.far(value) * (1.0 - fta), fta + set.scores.frr(value) * (1.0 - fta));
    let apcer = species.iter().map(|rate| rate.apcer).fold(0.0, f64::max);
    let calibrated = if options.probabilities {
        let finite = || set.all.iter().filter(|scored| scored.score.is_finite());
        let (scores, live): (Vec<f64>, Vec<bool>) = finite().map(|scored| (scored.score, scored.bona_fide)).unzip();
        Some(calibration(&scores, &live)?)
    } else {
        None
    };
    let Eer { value: target_eer, .. } = set.scores.eer(EerRule::Exact);
    Ok(PadReport {
        threshold: value,
        threshold_source: S::NAME,
        criterion: threshold.criterion(),
        apcer,
        bpcer: frr,
        acer: 0.5 * (apcer + frr),
        far,
        hter: 0.5 * (far + frr),
        auc: set.scores.auc(),
        target_eer,
        failures_to_acquire: fta,
        bona_fide: set.scores.live.len(),
        attacks: set.scores.attack.len(),
        intervals: intervals(test, (value, fta), options),
        calibration: calibrated,
        warnings: lacking.chain(failed).collect(),
        species,
        source: PhantomData,
    })
}

/// At a threshold, with a share of failures to acquire.
fn intervals(test: &TestScores, (threshold, fta): (f64, f64), options: &EvalOptions) -> Option<Intervals> {
    let ordered = Ordered::new(&test.0.all, threshold, options.species_level);
    let replicates = ordered.replicates(options.bootstrap, options.seed);
    let of = |rate: fn(&Replicate) -> f64| percentiles(replicates.iter().map(rate).collect());
    let half_rejected = |rate: f64| rate * (1.0 - fta) + 0.5 * fta;
    Some(Intervals {
        hter: of(|r| r.hter)?.map(half_rejected),
        auc: of(|r| r.auc)?,
        acer: of(|r| r.acer)?.map(half_rejected),
        bpcer: of(|r| r.bpcer)?.map(|rate| fta + rate * (1.0 - fta)),
        eer: of(|r| r.eer)?,
    })
}

/// Wilson's 95 % interval of `hits` out of `count`.
pub fn wilson(hits: usize, count: usize) -> [f64; 2] {
    const Z: f64 = 1.959_963_984_540_054;
    if count == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (count as f64, hits as f64 / count as f64);
    let denominator = 1.0 + Z * Z / n;
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [((centre - half) / denominator).max(0.0), ((centre + half) / denominator).min(1.0)]
}

impl<S: Source> fmt::Display for PadReport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |value: f64| format!("{:6.2} %", 100.0 * value);
        let between = |interval: Option<[f64; 2]>| {
            interval.map_or(String::new(), |[lo, hi]| format!("  [{:.2}, {:.2}]", 100.0 * lo, 100.0 * hi))
        };
        let interval = self.intervals;
        writeln!(f, "threshold {:.6} from the {} ({:?})", self.threshold, self.threshold_source, self.criterion)?;
        for rate in &self.species {
            let mark = if rate.small_sample { "  small sample" } else { "" };
            let name = format!("APCER {}", rate.species);
            writeln!(
                f,
                "{name:<20}{}{}  of {}{mark}",
                percent(rate.apcer),
                between(Some(rate.interval)),
                rate.attacks
            )?;
        }
        writeln!(f, "{:<20}{}", "APCER (worst)", percent(self.apcer))?;
        let bpcer = between(interval.map(|i| i.bpcer));
        writeln!(f, "{:<20}{}{bpcer}  of {}", "BPCER", percent(self.bpcer), self.bona_fide)?;
        writeln!(f, "{:<20}{}{}", "ACER", percent(self.acer), between(interval.map(|i| i.acer)))?;
        writeln!(f, "{:<20}{}{}", "HTER", percent(self.hter), between(interval.map(|i| i.hter)))?;
        writeln!(f, "{:<20}{}{}", "AUC", percent(self.auc), between(interval.map(|i| i.auc)))?;
        writeln!(f, "{:<20}{}{}", "EER (target oracle)", percent(self.target_eer), between(interval.map(|i| i.eer)))?;
        if self.failures_to_acquire > 0.0 {
            writeln!(f, "{:<20}{}", "failed to acquire", percent(self.failures_to_acquire))?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "{warning}"))
    }
}
