//! One number a seed out of one training an unseen domain.

use super::cases::{Model, TierPlan, kind};
use crate::{Relation, Results, Samples};
use vision::fas::synth::Domain;

/// The trainings of a tier.
///
/// Trainings of one seed share its people and differ by the domain that is left out, so they are no independent numbers: what
/// is claimed of a mean takes their mean, and what is claimed of every seed takes the worst. Domains are designed and few: an
/// interval over seeds is about people and trainings in these domains, and says nothing of others.
pub(super) struct Folds<'a> {
    pub(super) tier: &'a TierPlan,
    pub(super) results: &'a Results,
}

impl Folds<'_> {
    /// A metric of a model with one domain unseen.
    pub(super) fn measured(&self, metric: &str, model: Model, target: Domain) -> anyhow::Result<Samples> {
        let kind = kind(model, target);
        Ok(self.results.samples(metric, |run| run.kind == kind)?)
    }

    /// The mean over unseen domains, of seeds that have them all.
    pub(super) fn mean(&self, metric: &str, model: Model) -> anyhow::Result<Samples> {
        let count = self.tier.targets.len() as f64;
        let sum = self.together(|target| self.measured(metric, model, target), |a, b| a + b)?;
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
        of: impl Fn(Domain) -> anyhow::Result<Samples>,
    ) -> anyhow::Result<Samples> {
        self.together(of, |a, b| if room(relation, b) < room(relation, a) { b } else { a })
    }

    fn together(
        &self,
        of: impl Fn(Domain) -> anyhow::Result<Samples>,
        f: impl Fn(f64, f64) -> f64,
    ) -> anyhow::Result<Samples> {
        let mut domains = self.tier.targets.iter().map(|&target| of(target));
        let first = domains.next().transpose()?.unwrap_or_default();
        domains.try_fold(first, |all, own| -> anyhow::Result<Samples> { Ok(all.combine(&own?, &f)) })
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
            for &target in &tier.targets {
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
        let tier = TierPlan::of(Tier::Standard);
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
            let worst = folds.worst(relation, |target| folds.measured("auc", Model::Full, target));
            worst.unwrap().values()
        };
        assert_eq!(worst(Relation::Above(0.5)), [0.0, 2.0]);
        assert_eq!(worst(Relation::AtMost(0.5)), [3.0, 5.0]);
        assert_eq!(worst(Relation::Within(Interval { lo: 0.5, hi: 4.5 })), [0.0, 5.0]);
        let none = folds.gap("auc", [Model::Full, Model::Binary]).unwrap();
        assert!(none.values().is_empty());
    }

    #[test]
    fn what_is_removed_is_a_share_of_what_was_there() {
        let of = |values: [f64; 2]| Samples::of([(0, values[0]), (1, values[1])]);
        // Of 80 − 30 points, 10; of nothing beyond chance, nothing.
        let share = removed(&of([80.0, 30.0]), &of([70.0, 20.0]), &of([30.0, 30.0]));
        assert_eq!(share.values(), [0.2, 0.0]);
    }
}
