//! One number a seed out of one training an unseen domain.

use super::cases::{LeftOut, Model, TierPlan, kind};
use crate::{Relation, Results, Samples};
use vision::fas::synth::Domain;

/// Where a model is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// With this domain unseen.
    In(Domain),
    /// With the one domain unseen that is a seed's turn.
    OfTheSeed,
}

/// The trainings of a tier.
///
/// Where a seed leaves out every domain, one a training, these trainings share its people and are no independent numbers: what
/// is claimed of a mean takes their mean, and what is claimed of every seed takes the worst. Where seeds take turns, each has
/// one training. Domains are designed and few: an interval over seeds is about people and trainings in these domains, and
/// says nothing of others.
pub(super) struct Folds<'a> {
    pub(super) tier: &'a TierPlan,
    pub(super) results: &'a Results,
}

impl Folds<'_> {
    /// A metric of a model in a place.
    pub(super) fn measured(&self, metric: &str, model: Model, place: Place) -> anyhow::Result<Samples> {
        let kinds: Vec<String> = match place {
            Place::In(target) => vec![kind(model, target)],
            Place::OfTheSeed => self.tier.targets.iter().map(|&target| kind(model, target)).collect(),
        };
        Ok(self.results.samples(metric, |run| kinds.contains(&run.kind))?)
    }

    /// The mean over a seed's unseen domains, of seeds that have them all.
    pub(super) fn mean(&self, metric: &str, model: Model) -> anyhow::Result<Samples> {
        let count = self.places().len() as f64;
        let sum = self.together(|place| self.measured(metric, model, place), |a, b| a + b)?;
        Ok(sum.map(|sum| sum / count))
    }

    /// How far the mean of one model lies above that of another.
    pub(super) fn gap(&self, metric: &str, [model, other]: [Model; 2]) -> anyhow::Result<Samples> {
        Ok(self.mean(metric, model)?.minus(&self.mean(metric, other)?))
    }

    /// In the unseen domain that keeps to a relation least, of seeds that have them all.
    pub(super) fn worst(
        &self,
        relation: Relation,
        of: impl Fn(Place) -> anyhow::Result<Samples>,
    ) -> anyhow::Result<Samples> {
        self.together(of, |a, b| if room(relation, b) < room(relation, a) { b } else { a })
    }

    /// Where each seed has a training.
    pub(super) fn places(&self) -> Vec<Place> {
        match self.tier.left_out {
            LeftOut::Every => self.tier.targets.iter().copied().map(Place::In).collect(),
            LeftOut::InTurn => vec![Place::OfTheSeed],
        }
    }

    fn together(
        &self,
        of: impl Fn(Place) -> anyhow::Result<Samples>,
        f: impl Fn(f64, f64) -> f64,
    ) -> anyhow::Result<Samples> {
        let mut places = self.places().into_iter().map(of);
        let first = places.next().transpose()?.unwrap_or_default();
        places.try_fold(first, |all, own| -> anyhow::Result<Samples> { Ok(all.combine(&own?, &f)) })
    }
}

/// How far a number lies on the right side of a relation; below 0 on the wrong one.
fn room(relation: Relation, x: f64) -> f64 {
    match relation {
        Relation::Above(bound) | Relation::AtLeast(bound) => x - bound,
        Relation::Below(bound) | Relation::AtMost(bound) => bound - x,
        Relation::Within(band) => (x - band.lo).min(band.hi - x),
    }
}

/// The share of what a probe reads beyond chance that is gone; 0 where it reads nothing beyond chance, so that there is nothing
/// to remove.
pub(super) fn removed(before: &Samples, after: &Samples, chance: &Samples) -> Samples {
    let share = |lost: f64, readable: f64| if readable > 0.0 { lost / readable } else { 0.0 };
    before.minus(after).combine(&before.minus(chance), share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::finished_runs::finished;
    use crate::statistics::Interval;
    use crate::{DeviceKind, Metrics, Outcome, Run, Tier};

    /// A model's AUC by seed and unseen domain; `None` for a training that failed.
    fn trainings(tier: &TierPlan, auc: impl Fn(u64, Domain) -> Option<f64>) -> Results {
        let mut entries = Vec::new();
        for seed in 0..3 {
            for target in tier.targets_of(seed) {
                let run = Run::new("fas", &kind(Model::Full, target), seed, &(), DeviceKind::Cpu).unwrap();
                let failed = || Outcome::Failed { reason: "exit status 1".into(), log_tail: String::new() };
                let outcome =
                    auc(seed, target).map_or_else(failed, |auc| finished(&run, &Metrics::from([("auc".into(), auc)])));
                entries.push((run, outcome));
            }
        }
        Results::new(entries)
    }

    #[test]
    fn a_seed_has_one_number_however_many_domains_it_left_out() {
        let tier = TierPlan::of(Tier::Paper);
        let auc = |seed: u64, target: Domain| {
            let lacking = seed == 1 && target == Domain::Webcam;
            (!lacking).then(|| seed as f64 + f64::from(target as u8))
        };
        let results = trainings(&tier, auc);
        let folds = Folds { tier: &tier, results: &results };
        // Domains count 0, 1, 2, 3; the seed that lacks one has no mean, and says so.
        let mean = folds.mean("auc", Model::Full).unwrap();
        assert_eq!((mean.seeds(), mean.values()), (vec![0, 2], vec![1.5, 3.5]));
        assert_eq!(mean.runs().len(), 8);
        assert_eq!(mean.missing(), ["fas full → webcam seed 1 failed: exit status 1"]);
        let worst = |relation| {
            let worst = folds.worst(relation, |place| folds.measured("auc", Model::Full, place));
            worst.unwrap().values()
        };
        assert_eq!(worst(Relation::Above(0.5)), [0.0, 2.0]);
        assert_eq!(worst(Relation::AtMost(0.5)), [3.0, 5.0]);
        assert_eq!(worst(Relation::Within(Interval { lo: 0.5, hi: 4.5 })), [0.0, 5.0]);
        let none = folds.gap("auc", [Model::Full, Model::Binary]).unwrap();
        assert!(none.values().is_empty());
    }

    #[test]
    fn a_seed_in_turn_has_the_number_of_the_domain_that_it_leaves_out() {
        let tier = TierPlan::of(Tier::Standard);
        // Seeds 0, 1, 2 leave out domains 0, 1, 2; the training of seed 1 failed.
        let results = trainings(&tier, |seed, target| (seed != 1).then(|| 10.0 * f64::from(target as u8)));
        let folds = Folds { tier: &tier, results: &results };
        let mean = folds.mean("auc", Model::Full).unwrap();
        assert_eq!((mean.seeds(), mean.values()), (vec![0, 2], vec![0.0, 20.0]));
        assert_eq!(mean.missing(), ["fas full → webcam seed 1 failed: exit status 1"]);
        let worst = folds.worst(Relation::Above(0.5), |place| folds.measured("auc", Model::Full, place)).unwrap();
        assert_eq!(worst.values(), [0.0, 20.0]);
        assert_eq!(tier.targets_of(5), [Domain::ALL[1]]);
    }

    #[test]
    fn what_is_removed_is_a_share_of_what_was_there() {
        let of = |values: [f64; 2]| Samples::of([(0, values[0]), (1, values[1])]);
        // Of 80 − 30 points, 10; of nothing beyond chance, nothing.
        let share = removed(&of([80.0, 30.0]), &of([70.0, 20.0]), &of([30.0, 30.0]));
        assert_eq!(share.values(), [0.2, 0.0]);
    }
}
