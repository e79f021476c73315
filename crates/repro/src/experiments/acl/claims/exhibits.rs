//! Curves, tables and pictures beside the claims.

use super::super::PICTURE;
use super::super::cases::{DUAL, RANDOM, SEMI, SIMCLR, tuning_label};
use super::super::fine_tune::GUESSED;
use super::super::pretrain::CONVERGED;
use super::{Figures, View};
use crate::section::{Axis, Curve, Media, Picture, Point, Series, Table, cell};

impl View<'_> {
    /// What every rung leaves standing.
    pub(super) fn ladders(&self) -> anyhow::Result<Table> {
        let ladders = self.ladder_runs();
        let longest = ladders.iter().map(|(_, ladder)| ladder.rungs()).max_by_key(Vec::len).unwrap_or_default();
        let mut rows = Vec::new();
        for (label, _) in &ladders {
            let mut row = vec![label.trim_start_matches("pre-training ").to_owned()];
            for rung in &longest {
                row.push(cell(&self.rung(label, rung)?.values(), 1));
            }
            rows.push(row);
        }
        let images = ladders.iter().map(|(_, ladder)| ladder.images).max().unwrap_or_default();
        let mut header = vec!["network".to_owned()];
        header.extend(longest.iter().map(|rung| format!("{} (%)", rung.trim_start_matches("ladder/"))));
        Ok(Table {
            title: format!("{}: stronger and stronger attacks", self.case.network),
            caption: format!(
                "What stands at 8/255 of {images} of a seed's attacked images, linear probes on frozen features first; mean ± half the \
                 95 % interval over seeds."
            ),
            header,
            rows,
        })
    }

    /// Says how many probes were cut off before their optimum, if any were.
    pub(super) fn unfinished_probes(&self) -> anyhow::Result<Option<String>> {
        let (mut cut, mut all) = (0, 0);
        for pretraining in &self.case.pretrainings {
            for (branch, _) in pretraining.params.branches() {
                let converged = self.probe(&pretraining.label, branch).metric(CONVERGED)?.values();
                all += converged.len();
                cut += converged.iter().filter(|&&one| one == 0.0).count();
            }
        }
        Ok((cut > 0).then(|| format!("{cut} of {all} probes were cut off before their optimum.")))
    }

    pub(super) fn budgets(&self) -> anyhow::Result<Curve> {
        let mut series = Vec::new();
        let line = |name: &str, figures: Figures| -> anyhow::Result<Series> {
            let mut points: Vec<Point> = Point::of(0.0, &figures.clean()?.values()).into_iter().collect();
            for &budget in &self.case.setting.measure.budgets {
                points.extend(Point::of(255.0 * budget, &figures.robust(budget)?.values()));
            }
            Ok(Series { name: name.into(), points })
        };
        series.push(line("SimCLR, probe", self.probe(SIMCLR, "normal"))?);
        series.push(line("ACL, probe, adversarial branch", self.probe(DUAL, "adversarial"))?);
        series.push(line("ACL, probe, normal branch", self.probe(DUAL, "normal"))?);
        for (name, encoder) in [("from scratch", RANDOM), ("from SimCLR", SIMCLR), ("from ACL", DUAL)] {
            let label = tuning_label("AFF", encoder, self.few());
            if self.case.tunings.iter().any(|fine| fine.label == label) {
                series.push(line(
                    &format!("TRADES {name}, {} labels", self.few()),
                    self.tuned("AFF", encoder, self.few()),
                )?);
            }
        }
        Ok(Curve {
            title: format!("{}: robust accuracy against the budget", self.case.network),
            caption: "PGD on cross-entropy in Linf; the first point is clean accuracy. Bands are 95 % t-intervals over seeds."
                .into(),
            x: Axis::linear("ε (in 255ths of the pixel range)"),
            y: Axis::linear("accuracy (%)"),
            series,
            levels: Vec::new(),
        })
    }

    pub(super) fn pretrainings(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for pretraining in &self.case.pretrainings {
            for (branch, _) in pretraining.params.branches() {
                let name = pretraining.label.trim_start_matches("pre-training ");
                rows.push(self.row(&format!("{name}; {branch} branch"), &self.probe(&pretraining.label, branch))?);
            }
        }
        let title = format!("{}: linear probes on frozen features", self.case.network);
        Ok(self.table(title, "pre-training", rows))
    }

    pub(super) fn tunings(&self) -> anyhow::Result<Table> {
        let tuned = |label: &str| Figures { results: self.results, label: label.into(), prefix: "tuned".into() };
        let rows = self.case.tunings.iter().map(|fine| self.row(&fine.label, &tuned(&fine.label)));
        let rows = rows.collect::<anyhow::Result<_>>()?;
        let mut table = self.table(format!("{}: fine-tuned networks", self.case.network), "training", rows);
        let guesses = |encoder| {
            let label = tuning_label(SEMI, encoder, self.few());
            anyhow::Ok(self.results.samples(GUESSED, |run| self.is(run, &label))?.values())
        };
        let (from_acl, from_scratch) = (guesses(DUAL)?, guesses(RANDOM)?);
        if !from_acl.is_empty() {
            let [acl, scratch] = [from_acl, from_scratch].map(|values| cell(&values, 1));
            table
                .caption
                .push_str(&format!(" Pseudo-labels were right on {acl} % from ACL, {scratch} % from scratch."));
        }
        Ok(table)
    }

    fn row(&self, name: &str, figures: &Figures) -> anyhow::Result<Vec<String>> {
        let mut row = vec![name.to_owned(), cell(&figures.clean()?.values(), 1)];
        for &budget in &self.case.setting.measure.budgets {
            row.push(cell(&figures.robust(budget)?.values(), 1));
        }
        Ok(row)
    }

    fn table(&self, title: String, first: &str, rows: Vec<Vec<String>>) -> Table {
        let mut header = vec![first.to_owned(), "clean (%)".to_owned()];
        let budgets = &self.case.setting.measure.budgets;
        header.extend(budgets.iter().map(|budget| format!("ε = {:.1}/255 (%)", 255.0 * budget)));
        Table { title, caption: "Mean ± half the 95 % interval over seeds.".into(), header, rows }
    }

    pub(super) fn shifts(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for shift in &self.case.setting.measure.shifts {
            let of = |label, branch| -> anyhow::Result<String> {
                Ok(cell(&self.probe(label, branch).metric(&shift.name())?.values(), 1))
            };
            rows.push(vec![shift.name(), of(SIMCLR, "normal")?, of(DUAL, "adversarial")?]);
        }
        Ok(Table {
            title: format!("{}: other attacks, and shifts of the image", self.case.network),
            caption: "No attack of training was in another norm, and no view was noisy or blurred; contrast and brightness are changed in views, \
                      less. Accuracy (%) of linear probes; mean ± half the 95 % interval over seeds.".into(),
            header: ["shift", "SimCLR", "ACL, dual stream"].map(String::from).to_vec(),
            rows,
        })
    }

    /// One seed's pictures.
    pub(super) fn pictures(&self) -> anyhow::Result<Vec<Picture>> {
        let labels = [SIMCLR, DUAL].into_iter().map(String::from);
        let tuned = self.case.tunings.iter().filter(|fine| fine.params.ladder.is_some()).map(|fine| fine.label.clone());
        let mut pictures = Vec::new();
        for label in labels.chain(tuned) {
            let Some(run) = self.results.finished(|run| self.is(run, &label)).next() else { continue };
            pictures.push(Picture {
                title: format!("What an attacker does to {}", label.trim_start_matches("pre-training ")),
                caption: "Top: test images. Middle: after PGD-20 within 8/255. Bottom: the difference, from −8/255 (black) to \
                          8/255 (white)."
                    .into(),
                alt: "three rows of ten images: clean, attacked, amplified difference".into(),
                media: Media::Png(std::fs::read(run.artifact(PICTURE)?)?),
            });
        }
        Ok(pictures)
    }
}
