//! The curves and the table beside the claims.

use super::View;
use crate::Samples;
use crate::experiments::kd_ticket::arms::Arm;
use crate::section::{Axis, Curve, Level, Point, Series, Table, cell};

impl View<'_> {
    pub(super) fn curve(&self) -> anyhow::Result<Curve> {
        let mut densities = self.case.curve.clone();
        densities.push(self.case.density);
        densities.sort_by(f64::total_cmp);
        let mut series = Vec::new();
        for arm in self.case.curve_arms() {
            let mut points = Vec::new();
            for density in &densities {
                let samples = self.accuracy(arm, *density)?.values();
                points.extend(Point::of(100.0 * density, &samples));
            }
            series.push(Series { name: short(arm), points });
        }
        let dense = self.dense()?.values();
        let dense = Point::of(0.0, &dense).map(|point| Level { name: "dense".into(), y: point.mean });
        Ok(Curve {
            title: format!("{}: accuracy against density", self.case.network),
            caption: "Test accuracy after the last epoch; bands are 95 % t-intervals over seeds.".into(),
            x: Axis::log("density (% of prunable weights kept)"),
            y: Axis::linear("test accuracy (%)"),
            series,
            levels: dense.into_iter().collect(),
        })
    }

    pub(super) fn table(&self) -> anyhow::Result<Table> {
        let dense = cell(&self.dense()?.values(), 2);
        let mut rows = vec![vec!["dense".into(), "100".into(), "100".into(), dense, "–".into()]];
        let original = Arm::Original.label();
        for ticket in self.case.tickets(0) {
            let of = |metric: &str| self.results.samples(metric, |run| self.is(run, &ticket));
            let percent = |samples: Samples| cell(&samples.map(|share| 100.0 * share).values(), 2);
            let accuracy = of("test_accuracy")?;
            let gain = accuracy.minus(&self.accuracy(Arm::Original, ticket.density)?);
            rows.push(vec![
                ticket.label.clone(),
                format!("{:.2}", 100.0 * ticket.density),
                percent(of("sparse_macs_share")?),
                cell(&accuracy.values(), 2),
                if ticket.label == original { "–".into() } else { cell(&gain.values(), 2) },
            ]);
        }
        let header = ["re-training", "density (%)", "MACs left (%)", "test accuracy (%)", "above LT (points)"];
        Ok(Table {
            title: format!("{}: every arm", self.case.network),
            caption: "Mean ± half the 95 % interval over seeds; above LT: the same of the differences from the original ticket \
                      of the same seed and density. MACs are those with a non-zero weight. Redrawn: weights of the same \
                      initialisation with another seed; reinit: of a variance that counts live weights, as in the reference \
                      code. Of classes: each image gets its true class's mean soft label; uniform off-class: the teacher's \
                      mean confidence in the true class, all other classes alike."
                .into(),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }
}

/// An arm's name in a legend, without the settings that all arms share.
fn short(arm: Arm) -> String {
    match arm {
        Arm::Kd(_) => "KD ticket".into(),
        Arm::WeightRewind(_) => "WR".into(),
        Arm::LearningRateRewind(_) => "LRR".into(),
        Arm::KdWeightRewind(..) => "KD + WR".into(),
        Arm::KdLearningRateRewind(..) => "KD + LRR".into(),
        other => other.label(),
    }
}
