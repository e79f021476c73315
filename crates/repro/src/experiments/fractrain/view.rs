//! A case with its results: what claims, tables and curves read.

use super::PAPER;
use super::arms::{Arm, TrainParams};
use super::cases::Case;
use crate::{Finished, Results, Run, Samples};

/// In percent, after the last epoch.
pub(super) const ACCURACY: &str = "test_accuracy";
/// Cost as the paper counts it, of the quantised layers alone, in percent of full precision. Logged epoch by epoch, too.
pub(super) const CP: &str = "cp";
/// Cost with everything counted: layers in full precision and gates too.
pub(super) const EVERYTHING: &str = "effective_macs";

/// A case with its results.
pub(super) struct View<'a> {
    pub(super) case: &'a Case,
    pub(super) results: &'a Results,
}

impl View<'_> {
    pub(super) fn is(&self, run: &Run, arm: &Arm) -> bool {
        run.paper == PAPER && run.params::<TrainParams>().is_ok_and(|params| params == self.case.params(arm))
    }

    pub(super) fn metric(&self, name: &str, arm: &Arm) -> anyhow::Result<Samples> {
        Ok(self.results.samples(name, |run| self.is(run, arm))?)
    }

    /// A metric of an arm over that of another.
    pub(super) fn ratio(&self, name: &str, arm: &Arm, to: &Arm) -> anyhow::Result<Samples> {
        Ok(self.metric(name, arm)?.over(&self.metric(name, to)?))
    }

    /// Points of accuracy by which an arm is ahead of another.
    pub(super) fn ahead(&self, arm: &Arm, of: &Arm) -> anyhow::Result<Samples> {
        Ok(self.metric(ACCURACY, arm)?.minus(&self.metric(ACCURACY, of)?))
    }

    /// Points of accuracy by which an arm is ahead of static training at the arm's own cost, by this measure of cost.
    pub(super) fn gain(&self, cost: &str, arm: &Arm) -> anyhow::Result<Samples> {
        let mut points = Vec::new();
        for fixed in self.case.statics() {
            points.push((self.metric(cost, &fixed)?, self.metric(ACCURACY, &fixed)?));
        }
        Ok(self.metric(ACCURACY, arm)?.minus(&height(&frontier(points), &self.metric(cost, arm)?)))
    }

    /// Mean cost over the second half of a training, by seed.
    pub(super) fn second_half(&self, arm: &Arm) -> anyhow::Result<Samples> {
        let half = self.case.recipe.epochs / 2;
        let of_run = |finished: &Finished| {
            let rows = finished.rows.iter().filter(|row| row.epoch > half).filter_map(|row| row.values.get(CP));
            let values: Vec<f64> = rows.copied().collect();
            (finished.run.seed, values.iter().sum::<f64>() / values.len().max(1) as f64)
        };
        let halves = Samples::of(self.results.finished(|run| self.is(run, arm)).map(of_run));
        // The runs, and the reasons for those that are missing, come with the metric.
        Ok(self.metric(CP, arm)?.combine(&halves, |_, half| half))
    }

    /// The distance of [`second_half`](Self::second_half) from the target, by seed the largest of those targets that it was
    /// steered to.
    pub(super) fn controller_errors(&self) -> anyhow::Result<Samples> {
        let mut errors = Vec::new();
        for arm in self.case.steered() {
            let target = arm.gates().map_or(0.0, |dfq| dfq.target.percent());
            errors.push(self.second_half(&arm)?.map(|cp| (cp - target).abs()));
        }
        Ok(Samples::of_largest(&errors))
    }
}

/// Of points that ascend in cost, those that no cheaper one reaches in accuracy, by means over seeds: nobody would train at
/// the others. Points of no seed stay, with their reasons.
pub(super) fn frontier(points: Vec<(Samples, Samples)>) -> Vec<(Samples, Samples)> {
    let mut best = f64::NEG_INFINITY;
    let mut ahead = |(_, accuracy): &(Samples, Samples)| {
        let Some(mean) = crate::statistics::mean(&accuracy.values()) else { return true };
        let ahead = mean > best;
        best = best.max(mean);
        ahead
    };
    points.into_iter().filter(|point| ahead(point)).collect()
}

/// Seed by seed, the height of a curve at `x`: linear between points that ascend in `x`, level outside them.
pub(super) fn height(points: &[(Samples, Samples)], x: &Samples) -> Samples {
    let first = points.first().map(|point| point.1.clone()).unwrap_or_default();
    // A sum of ramps, each as high as one point is above the one before.
    points.windows(2).fold(first, |height, pair| {
        let (low, high) = (&pair[0], &pair[1]);
        let share = x.minus(&low.0).over(&high.0.minus(&low.0)).map(|share| share.clamp(0.0, 1.0));
        let rise = high.1.minus(&low.1).combine(&share, |rise, share| rise * share);
        height.combine(&rise, |height, rise| height + rise)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: [f64; 2]) -> Samples {
        Samples::of([(0, values[0]), (1, values[1])])
    }

    #[test]
    fn a_curve_is_linear_between_its_points_and_level_outside_them() {
        let points = [
            (of([1.0, 1.0]), of([10.0, 20.0])),
            (of([2.0, 2.0]), of([30.0, 20.0])),
            (of([4.0, 4.0]), of([20.0, 24.0])),
        ];
        // At 1.5 half of the first rise of 20; at 3 all of it and half of the fall of 10, or half of the second seed's rise of 4.
        for (x, expected) in [
            ([0.5, 1.0], [10.0, 20.0]),
            ([1.5, 3.0], [20.0, 22.0]),
            ([3.0, 4.0], [25.0, 24.0]),
            ([2.0, 9.0], [30.0, 24.0]),
        ] {
            assert_eq!(height(&points, &of(x)).values(), expected);
        }
    }

    #[test]
    fn a_point_that_a_cheaper_one_reaches_is_on_no_frontier() {
        let point = |cost: f64, accuracy: [f64; 2]| (of([cost, cost]), of(accuracy));
        // In the mean 10, 30, 29, 30 and 31: the third is behind the second, the fourth level with it.
        let rows = [[10.0, 10.0], [20.0, 40.0], [29.0, 29.0], [30.0, 30.0], [31.0, 31.0]];
        let points: Vec<_> = rows.iter().zip(1..).map(|(&accuracy, cost)| point(f64::from(cost), accuracy)).collect();
        let kept = frontier(points);
        assert_eq!(kept.iter().map(|(cost, _)| cost.values()[0]).collect::<Vec<_>>(), [1.0, 2.0, 5.0]);
        // At 3 a third of the way from 20 to 31, and from 40 to 31.
        assert_eq!(height(&kept, &of([3.0, 3.0])).values(), [20.0 + 11.0 / 3.0, 37.0]);
        let mut missing = (Samples::default(), Samples::default());
        missing.1.miss("static 4/6 failed");
        let kept = frontier(vec![point(1.0, [1.0, 1.0]), missing, point(3.0, [0.0, 0.0])]);
        assert_eq!((kept.len(), kept[1].1.missing()), (2, &["static 4/6 failed".to_owned()][..]));
    }

    #[test]
    fn a_seed_without_one_of_the_points_has_no_height_and_the_reason_is_kept() {
        let mut low = (Samples::of([(0, 1.0)]), Samples::of([(0, 10.0)]));
        low.1.miss("static 3/6 seed 1 failed");
        let found = height(&[low, (of([2.0, 2.0]), of([30.0, 20.0]))], &of([1.5, 1.5]));
        assert_eq!((found.seeds(), found.values()), (vec![0], vec![20.0]));
        assert_eq!(found.missing(), ["static 3/6 seed 1 failed"]);
    }
}
