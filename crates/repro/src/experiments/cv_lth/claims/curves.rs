//! Accuracy, overlap and empty kernels by sparsity; densities by depth.

use super::super::overlap;
use super::super::settings::Objective;
use super::{View, sparsity};
use crate::Samples;
use crate::section::{Axis, Curve, Level, Point, Series};

impl View<'_> {
    /// Accuracy by sparsity after one objective.
    pub(super) fn curve(&self, objective: Objective) -> anyhow::Result<Curve> {
        let line =
            |name: &str, rounds: &[u32], of: &dyn Fn(u32) -> anyhow::Result<Samples>| -> anyhow::Result<Series> {
                let mut points = Vec::new();
                for round in rounds {
                    let values = of(*round)?.values();
                    points.extend(Point::of(sparsity(*round), &values));
                }
                Ok(Series { name: name.into(), points })
            };
        let level = |name: &str, samples: Samples| {
            Point::of(0.0, &samples.values()).map(|point| Level { name: name.into(), y: point.mean })
        };
        let arm = |arm: &'static str| move |round: u32| self.transfer(objective, &format!("{arm}_{round}"));
        let (transferred, found) = (&self.settings.transferred, &self.settings.found);
        let dense = level("dense, pre-trained", self.transfer(objective, "dense")?);
        let levels = [dense, level("dense, fresh", self.fresh("dense")?)];
        Ok(Curve {
            title: format!("Few labels after {} pre-training", objective.name()),
            caption: "Test accuracy on other classes; bands are 95 % intervals over pre-trainings.".into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("accuracy, %"),
            series: vec![
                line("(m_P, θ_P)", transferred, &arm("ticket"))?,
                line("(random, θ_P)", transferred, &arm("random"))?,
                line("(m_T, θ_P)", found, &arm("own"))?,
                line("(m_T, θ_0)", found, &|round| self.fresh(&format!("own_{round}")))?,
            ],
            levels: levels.into_iter().flatten().collect(),
        })
    }

    pub(super) fn overlap_curve(&self) -> anyhow::Result<Curve> {
        let mut series = Vec::new();
        for other in self.settings.objectives.iter().skip(1).map(|objective| objective.name()) {
            for (prefix, name) in [("jaccard", "supervised and"), ("chance", "chance,")] {
                let mut points = Vec::new();
                for round in 1..=self.settings.rounds {
                    let metric = format!("{prefix}_{other}_{round}");
                    let values = self.results.samples(&metric, |run| run.kind == "overlap")?.values();
                    points.extend(Point::of(sparsity(round), &values));
                }
                series.push(Series { name: format!("{name} {other}"), points });
            }
        }
        Ok(Curve {
            title: "Overlap of masks of different pre-trainings".into(),
            caption: "Jaccard similarity of the kept weights, beside that of independent masks with the same layer densities. \
                      Starts are independent, so that nothing beyond chance is to be expected: claims T3a and T3b are not \
                      judged by it."
                .into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("Jaccard similarity"),
            series,
            levels: Vec::new(),
        })
    }

    pub(super) fn kernels_curve(&self) -> anyhow::Result<Curve> {
        let mut series = Vec::new();
        for objective in self.settings.objectives.iter().copied() {
            let mut points = Vec::new();
            for round in 1..=self.settings.rounds {
                points.extend(Point::of(sparsity(round), &self.zero_kernels(objective, round)?.values()));
            }
            series.push(Series { name: objective.name().into(), points });
        }
        Ok(Curve {
            title: "Empty kernels of the masks".into(),
            caption:
                "Kernels of more than one weight of which nothing is kept; bands are 95 % intervals over pre-trainings."
                    .into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("empty kernels"),
            series,
            levels: Vec::new(),
        })
    }

    /// From the tables of the runs that compared masks, one a seed.
    pub(super) fn depth_curve(&self, tables: &[String]) -> anyhow::Result<Curve> {
        let tables = tables.iter().map(|table| overlap::densities(table)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut series = Vec::new();
        for objective in self.settings.objectives.iter().map(|objective| objective.name()) {
            let mut layers: Vec<Vec<f64>> = Vec::new();
            for densities in tables.iter().filter_map(|table| table.get(objective)) {
                layers.resize(layers.len().max(densities.len()), Vec::new());
                layers.iter_mut().zip(densities).for_each(|(layer, (_, density))| layer.push(100.0 * density));
            }
            let points = layers.iter().enumerate().filter_map(|(depth, values)| Point::of((depth + 1) as f64, values));
            series.push(Series { name: objective.into(), points: points.collect() });
        }
        Ok(Curve {
            title: "Where the weights that are kept lie".into(),
            caption: "Density of each pruned layer after the last round; bands are 95 % intervals over pre-trainings."
                .into(),
            x: Axis::linear("pruned layer, counted from the input"),
            y: Axis::linear("weights kept, %"),
            series,
            levels: Vec::new(),
        })
    }
}
