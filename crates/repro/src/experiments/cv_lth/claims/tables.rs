//! Levels behind the claims' differences.

use super::super::settings::Objective;
use super::{View, sparsity};
use crate::section::{Table, cell};

impl View<'_> {
    /// The positive control behind claim T0.
    pub(super) fn own_task_table(&self) -> anyhow::Result<Table> {
        let mut header = ["pre-training", "untrained", "pre-trained"].map(str::to_owned).to_vec();
        let mut metrics = ["source_knn_untrained", "source_knn"].map(str::to_owned).to_vec();
        for round in &self.settings.controls {
            let percent = sparsity(*round);
            header.extend([format!("ticket, {percent:.1} %"), format!("random mask, {percent:.1} %")]);
            metrics.extend([format!("ticket_knn_{round}"), format!("random_knn_{round}")]);
        }
        for round in &self.settings.controls {
            header.push(format!("dense, order of {:.1} %", sparsity(*round)));
            metrics.push(format!("dense_knn_{round}"));
        }
        Ok(Table {
            title: "Tickets on the images they were found on".into(),
            caption: "Nearest neighbours on the source classes, % right: of the dense network before and after pre-training, \
                      and of what one round's training makes of the pre-trained weights under a mask, or without one. The dense \
                      network is trained as long, on the batches of each ticket in their order. Random masks have the ticket's layer \
                      densities."
                .into(),
            header,
            rows: self.pretraining_rows(&metrics, 1.0)?,
        })
    }

    /// The same by each objective's own measure.
    pub(super) fn own_score_table(&self) -> anyhow::Result<Table> {
        let mut header = vec!["pre-training".to_owned()];
        let mut metrics = Vec::new();
        for round in &self.settings.controls {
            let percent = sparsity(*round);
            for (arm, whose) in [("ticket", "ticket"), ("random", "random mask"), ("dense", "dense, order of")] {
                header.push(format!("{whose}, {percent:.1} %"));
                metrics.push(format!("{arm}_score_{round}"));
            }
        }
        header.push("σ of dense".to_owned());
        metrics.push("dense_score_std".to_owned());
        Ok(Table {
            title: "Tickets on the task that they were found on".into(),
            caption: "After one round's training of the pre-trained weights, on the same batches in the same order: test accuracy \
                      (supervised), or how often an image's other view is the nearest of 511, % (SimCLR, MoCo)."
                .into(),
            header,
            rows: self.pretraining_rows(&metrics, 1.0)?,
        })
    }

    /// Whether the search found anything that the pre-trained weights did not say.
    pub(super) fn one_shot_table(&self) -> anyhow::Result<Table> {
        let rounds = self.settings.controls.iter();
        let mut header = vec!["pre-training".to_owned()];
        let mut metrics = Vec::new();
        for (metric, whose) in [("one_shot", "pre-trained"), ("untrained", "untrained")] {
            header.extend(rounds.clone().map(|round| format!("{whose}, {:.1} %", sparsity(*round))));
            metrics.extend(rounds.clone().map(|round| format!("{metric}_{round}")));
        }
        Ok(Table {
            title: "Iterative pruning beside one-shot pruning".into(),
            caption: "Share of a ticket's weights, %, that pruning by magnitude at once, to the same sparsity, keeps too: of the \
                      pre-trained weights, and of the untrained ones that these began as. At 100 beside the former the search's \
                      trainings add nothing to one-shot pruning, beside the latter pre-training adds nothing either; masks that \
                      have nothing to do with each other share about their density."
                .into(),
            header,
            rows: self.pretraining_rows(&metrics, 100.0)?,
        })
    }

    /// For each objective its name, and metrics of its pre-training times `scale`.
    fn pretraining_rows(&self, metrics: &[String], scale: f64) -> anyhow::Result<Vec<Vec<String>>> {
        let row = |objective: Objective| -> anyhow::Result<Vec<String>> {
            let mut row = vec![objective.name().to_owned()];
            for metric in metrics {
                let samples = self.pretraining(objective, metric)?.map(|value| scale * value);
                row.push(cell(&samples.values(), 1));
            }
            Ok(row)
        };
        self.settings.objectives.iter().copied().map(row).collect()
    }

    /// What claim T2b's gaps owe to the weights alone.
    pub(super) fn weights_table(&self) -> anyhow::Result<Table> {
        let found = self.settings.found.iter();
        let mut header = vec!["pre-training".to_owned(), "dense".to_owned()];
        header.extend(found.clone().map(|round| format!("m_T, {:.1} %", sparsity(*round))));
        let mut metrics = vec!["dense".to_owned()];
        metrics.extend(found.map(|round| format!("own_{round}")));
        let mut rows = Vec::new();
        for objective in self.settings.transfers.iter().copied() {
            let mut row = vec![objective.name().to_owned()];
            for metric in &metrics {
                row.push(cell(&self.gain(objective, metric)?.values(), 1));
            }
            rows.push(row);
        }
        Ok(Table {
            title: "What pre-trained weights add, dense and sparse".into(),
            caption: "A(θ_P) − A(θ_0) in points, of the dense network and of the task's own tickets, each mask found on the \
                      weights that it is tried on. Where a ticket's gap, which claim T2b tests, is no wider than the dense \
                      one, it is the weights' and says nothing of masks."
                .into(),
            header,
            rows,
        })
    }

    pub(super) fn transfer_table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for objective in self.settings.transfers.iter().copied() {
            let of = |metric: &str| self.transfer(objective, metric).map(|samples| samples.values());
            let scale = |values: Vec<f64>| values.into_iter().map(|value| 100.0 * value).collect::<Vec<_>>();
            rows.push(vec![
                objective.name().to_owned(),
                cell(&of("dense")?, 1),
                cell(&of("dense_std")?, 1),
                cell(&self.difference(objective, "ticket_3", "dense")?.values(), 1),
                cell(&self.difference(objective, "ticket_5", "dense")?.values(), 1),
                cell(&scale(of("matching")?), 1),
                cell(&scale(of("failing")?), 1),
                cell(&of("own_barrier")?, 1),
                cell(&self.fresh("own_barrier")?.values(), 1),
            ]);
        }
        let header = [
            "pre-training",
            "dense, %",
            "σ(dense)",
            "ticket of 48.8 % less dense",
            "ticket of 67.2 % less dense",
            "largest matching sparsity, %",
            "next one tried",
            "barrier at θ_P",
            "barrier at θ_0",
        ];
        Ok(Table {
            title: "Pre-trainings and their tickets".into(),
            caption: "Tickets less dense, points, on the same draws of labels. Largest matching sparsity, by each seed's own \
                      σ(dense): 0 where no ticket matches; the next one tried fails, 100 where the sparsest one matches. Barrier: rise of the test error between two fine-tunings of \
                      the task's own ticket that differ in the order of their data."
                .into(),
            header: header.map(str::to_owned).to_vec(),
            rows,
        })
    }

    /// Levels behind claim C3.
    pub(super) fn scenes_table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for (task, name) in [("miou", "segmentation, mIoU"), ("ap50", "detection, AP50")] {
            let mut row = vec![name.to_owned()];
            for figure in ["dense", "ticket", "dense_std"] {
                row.push(cell(&self.scene(&format!("{task}_{figure}"))?.values(), 1));
            }
            rows.push(row);
        }
        Ok(Table {
            title: "Dense prediction on generated scenes".into(),
            caption: "Of 100 points; the supervised ticket of 48.8 %. Heads look at the backbone's last feature map, so that \
                      every pruned layer is in use."
                .into(),
            header: ["task", "dense", "ticket", "σ(dense)"].map(str::to_owned).to_vec(),
            rows,
        })
    }
}
