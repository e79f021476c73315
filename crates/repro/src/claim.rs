//! A claim is data; its verdict is computed.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::run::RunId;
use crate::samples::Samples;
use crate::statistics::{self, Interval};

/// What a paper says, as an inequality that measurements can break.
///
/// ```
/// use repro::{Claim, Relation, Samples, Test};
/// let gain = Samples::of([(0, 0.88), (1, 0.68), (2, 0.88)]);
/// let judged = Claim::new("T2", "Distillation lifts a ticket above hard labels")
///     .paper("on par with or better than rewinding", "arXiv 2101.03255v2, abstract")
///     .test(Test::mean("accuracy(KD) − accuracy(LT)", Relation::Above(0.0)), "points")
///     .judge(&gain)?;
/// assert_eq!(judged.verdict().as_str(), "reproduced");
/// # Ok::<(), repro::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    id: String,
    statement: String,
    paper_value: String,
    paper_source: String,
    #[serde(serialize_with = "as_text")]
    test: Test,
    unit: String,
    /// Whether the samples are wall-clock time, which no two executions share.
    timed: bool,
}

/// The inequality.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// What is measured, as a formula.
    pub quantity: String,
    /// Where it has to lie.
    pub relation: Relation,
    /// Whether the mean over seeds has to, every seed, or a property that no seed decides.
    pub over: Over,
}

/// Where a quantity has to lie. A margin of non-inferiority is `AtLeast(−margin)` on a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Relation {
    /// `x > bound`
    Above(f64),
    /// `x ≥ bound`
    AtLeast(f64),
    /// `x < bound`
    Below(f64),
    /// `x ≤ bound`
    AtMost(f64),
    /// `lo ≤ x ≤ hi`
    Within(Interval),
}

/// Over what an inequality is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The mean over seeds, by its 95 % t-interval. Needs two seeds at least.
    Mean,
    /// Every seed by itself: one counter-example refutes. Needs two seeds at least to be reproduced.
    Every,
    /// A property that no draw decides, such as an identity, a count or a cost: one sample is enough, and one that breaks
    /// it refutes.
    Exact,
}

/// `reproduced`, `not reproduced`, `inconclusive` or `not run`. Only [`Claim::judge`] and [`Claim::not_run`] make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reproduced,
    NotReproduced,
    Inconclusive,
    NotRun,
}

/// A claim with what was measured and what follows.
#[derive(Debug, Clone, Serialize)]
pub struct JudgedClaim {
    #[serde(flatten)]
    claim: Claim,
    seeds: Vec<u64>,
    samples: Vec<f64>,
    mean: Option<f64>,
    interval: Option<Interval>,
    verdict: Verdict,
    /// Why the verdict is what it is, in words.
    reason: String,
    runs: Vec<RunId>,
}

impl Claim {
    /// A claim without a test yet. `id` is unique within the paper.
    pub fn new(id: &str, statement: &str) -> Self {
        Self {
            id: id.into(),
            statement: statement.into(),
            paper_value: String::new(),
            paper_source: String::new(),
            test: Test::mean("", Relation::Above(0.0)),
            unit: String::new(),
            timed: false,
        }
    }

    /// The paper's figure, and the table, section or file that it stands in.
    #[must_use]
    pub fn paper(mut self, value: &str, source: &str) -> Self {
        self.paper_value = value.into();
        self.paper_source = source.into();
        self
    }

    /// The inequality, and the unit of the quantity (empty for none).
    #[must_use]
    pub fn test(mut self, test: Test, unit: &str) -> Self {
        self.test = test;
        self.unit = unit.into();
        self
    }

    /// Marks samples that are wall-clock time.
    #[must_use]
    pub fn timed(mut self) -> Self {
        self.timed = true;
        self
    }

    /// Computes the verdict.
    ///
    /// Of a mean: `reproduced` when the whole 95 % interval satisfies the inequality, `not reproduced` when no point of
    /// it does, `inconclusive` otherwise and for fewer than two seeds. Of every seed: `not reproduced` when one breaks it,
    /// `reproduced` when two or more satisfy it, `inconclusive` for one that does. Of an exact property the same, and one
    /// sample is enough. Without any sample: `not run`, with the samples' reasons.
    ///
    /// Where a sample is missing, because its run failed or was not run, nothing is reproduced: what would be is
    /// `inconclusive`. Those that are left may have been spared by what ended the others.
    ///
    /// # Errors
    /// A sample that is NaN or infinite.
    pub fn judge(self, samples: &Samples) -> Result<JudgedClaim> {
        let values = samples.values();
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            let place = format!("claim {}", self.id);
            return Err(Error::NotFinite { place, name: self.test.quantity, value });
        }
        if values.is_empty() {
            let reasons = samples.missing().join("; ");
            return Ok(self.not_run(if reasons.is_empty() { "nothing measures it".into() } else { reasons }));
        }
        let (interval, mut kind, mut reason) = match self.test.over {
            Over::Mean => self.test.relation.judge_mean(&values),
            Over::Every => self.test.relation.judge_each(&values, 2),
            Over::Exact => self.test.relation.judge_each(&values, 1),
        };
        if !samples.missing().is_empty() {
            reason = format!("{reason}; missing: {}", samples.missing().join("; "));
            if kind == Kind::Reproduced {
                kind = Kind::Inconclusive;
            }
        }
        Ok(JudgedClaim {
            seeds: samples.seeds(),
            mean: statistics::mean(&values),
            samples: values,
            interval,
            verdict: Verdict(kind),
            reason,
            runs: samples.runs(),
            claim: self,
        })
    }

    /// Says what the claim would need: data, a GPU, a larger tier.
    pub fn not_run(self, reason: impl Into<String>) -> JudgedClaim {
        JudgedClaim {
            claim: self,
            seeds: Vec::new(),
            samples: Vec::new(),
            mean: None,
            interval: None,
            verdict: Verdict(Kind::NotRun),
            reason: reason.into(),
            runs: Vec::new(),
        }
    }
}

impl Test {
    /// The mean of `quantity` over seeds satisfies `relation`.
    pub fn mean(quantity: &str, relation: Relation) -> Self {
        Self { quantity: quantity.into(), relation, over: Over::Mean }
    }

    /// `quantity` satisfies `relation` for every seed, of which there are two at least. For what is trained or drawn.
    pub fn every(quantity: &str, relation: Relation) -> Self {
        Self { quantity: quantity.into(), relation, over: Over::Every }
    }

    /// `quantity` satisfies `relation` whatever the seed: identities, counts, costs. One sample is enough.
    pub fn exact(quantity: &str, relation: Relation) -> Self {
        Self { quantity: quantity.into(), relation, over: Over::Exact }
    }
}

impl Relation {
    /// Whether a single number satisfies it.
    pub fn holds(self, x: f64) -> bool {
        match self {
            Self::Above(bound) => x > bound,
            Self::AtLeast(bound) => x >= bound,
            Self::Below(bound) => x < bound,
            Self::AtMost(bound) => x <= bound,
            Self::Within(band) => band.lo <= x && x <= band.hi,
        }
    }

    /// The numbers at which it turns.
    pub fn bounds(self) -> Vec<f64> {
        match self {
            Self::Above(bound) | Self::AtLeast(bound) | Self::Below(bound) | Self::AtMost(bound) => vec![bound],
            Self::Within(band) => vec![band.lo, band.hi],
        }
    }

    /// Whether some point of `interval` satisfies it: an end does, or a band lies inside.
    fn touches(self, interval: Interval) -> bool {
        match self {
            Self::Within(band) => interval.lo <= band.hi && band.lo <= interval.hi,
            _ => self.holds(interval.lo) || self.holds(interval.hi),
        }
    }

    fn judge_mean(self, values: &[f64]) -> (Option<Interval>, Kind, String) {
        let Some(interval) = statistics::t_interval(values) else {
            return (None, Kind::Inconclusive, "one seed has no interval".into());
        };
        let (kind, reason) = if self.holds(interval.lo) && self.holds(interval.hi) {
            (Kind::Reproduced, "the whole interval satisfies the inequality")
        } else if self.touches(interval) {
            (Kind::Inconclusive, "the interval crosses the line")
        } else {
            (Kind::NotReproduced, "no point of the interval satisfies the inequality")
        };
        (Some(interval), kind, reason.into())
    }

    /// Of at least one value: each has to satisfy it, and `least` of them to be there.
    fn judge_each(self, values: &[f64], least: usize) -> (Option<Interval>, Kind, String) {
        let held = values.iter().filter(|&&value| self.holds(value)).count();
        let mut reason = format!("holds for {held} of {}", values.len());
        let kind = if held < values.len() {
            Kind::NotReproduced
        } else if held < least {
            reason += ", which is too few to say so of every seed";
            Kind::Inconclusive
        } else {
            Kind::Reproduced
        };
        (statistics::range(values).filter(|_| values.len() > 1), kind, reason)
    }
}

impl Verdict {
    /// The four, in the order in which reports count them.
    pub const ALL: [Self; 4] =
        [Self(Kind::Reproduced), Self(Kind::NotReproduced), Self(Kind::Inconclusive), Self(Kind::NotRun)];

    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            Kind::Reproduced => "reproduced",
            Kind::NotReproduced => "not reproduced",
            Kind::Inconclusive => "inconclusive",
            Kind::NotRun => "not run",
        }
    }

    /// The one verdict that `--strict` fails on.
    pub fn is_refutation(self) -> bool {
        self.0 == Kind::NotReproduced
    }
}

impl JudgedClaim {
    /// The claim's name within its paper.
    pub fn id(&self) -> &str {
        &self.claim.id
    }

    /// What the paper says, in a sentence.
    pub fn statement(&self) -> &str {
        &self.claim.statement
    }

    /// The paper's own figure, and where it stands.
    pub fn paper(&self) -> (&str, &str) {
        (&self.claim.paper_value, &self.claim.paper_source)
    }

    /// The inequality.
    pub fn test(&self) -> &Test {
        &self.claim.test
    }

    /// The unit of samples, mean and interval.
    pub fn unit(&self) -> &str {
        &self.claim.unit
    }

    /// Whether the samples are wall-clock time.
    pub fn is_timed(&self) -> bool {
        self.claim.timed
    }

    /// Seeds and what was measured with each.
    pub fn samples(&self) -> impl Iterator<Item = (u64, f64)> {
        self.seeds.iter().copied().zip(self.samples.iter().copied())
    }

    /// The samples' mean.
    pub fn mean(&self) -> Option<f64> {
        self.mean
    }

    /// The mean's 95 % interval, or the range of the samples when each is tested; `None` of a single one.
    pub fn interval(&self) -> Option<Interval> {
        self.interval
    }

    /// What follows.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why, in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.over {
            Over::Mean => write!(f, "mean[{}] {}", self.quantity, self.relation),
            Over::Every => write!(f, "every seed: {} {}", self.quantity, self.relation),
            Over::Exact => write!(f, "exact: {} {}", self.quantity, self.relation),
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |x: f64| x.to_string().replace('-', "−");
        match *self {
            Self::Above(bound) => write!(f, "> {}", signed(bound)),
            Self::AtLeast(bound) => write!(f, "≥ {}", signed(bound)),
            Self::Below(bound) => write!(f, "< {}", signed(bound)),
            Self::AtMost(bound) => write!(f, "≤ {}", signed(bound)),
            Self::Within(band) => write!(f, "in [{}, {}]", signed(band.lo), signed(band.hi)),
        }
    }
}

fn as_text<S: Serializer>(test: &Test, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(test)
}

#[cfg(test)]
mod tests;
