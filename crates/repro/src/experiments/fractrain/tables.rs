//! Tables and curves of a case.

use super::arms::Arm;
use super::cases;
use super::view::{ACCURACY, CP, EVERYTHING, View};
use crate::section::{Axis, Curve, Point, Series, Table, cell};

impl View<'_> {
    pub(super) fn controllers(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        let mut arms = self.case.steered();
        arms.extend(self.case.sign_rule());
        for arm in arms {
            let gain = self.gain(CP, &arm)?.values();
            rows.push(vec![arm.label(), cell(&self.second_half(&arm)?.values(), 3), cell(&gain, 2)]);
        }
        Ok(Table {
            title: format!("{}: steering the cost", self.case.network),
            caption:
                "Mean cost of the quantised layers over the second half of the training, in percent of full precision, and accuracy \
                 over static precision at the whole training's cost."
                    .into(),
            header: ["method", "mean cp (%)", "over static at its cost (points)"].map(String::from).to_vec(),
            rows,
        })
    }

    pub(super) fn integers(&self) -> anyhow::Result<Table> {
        let (full, eight) = (Arm::FullPrecision, Arm::Static(8, 8));
        let row = |label: &str, arm: &Arm, accuracy: &str, bytes: &str| -> anyhow::Result<Vec<String>> {
            let bytes = match bytes {
                "" => "–".into(),
                bytes => cell(&self.metric(bytes, arm)?.values(), 0),
            };
            Ok(vec![label.to_owned(), cell(&self.metric(accuracy, arm)?.values(), 2), bytes])
        };
        Ok(Table {
            title: "Inference in integers".into(),
            caption:
                "Convolutions in 8-bit integers; norms and classifier in full precision. Mean ± half the 95 % interval \
                      over seeds."
                    .into(),
            header: ["network", "test accuracy (%)", "bytes of the file"].map(String::from).to_vec(),
            rows: vec![
                row("trained and run in full precision", &full, ACCURACY, "file_bytes")?,
                row("static 8/8, rounded in floating point", &eight, ACCURACY, "")?,
                row("static 8/8, exported and run in integers", &eight, "int8_accuracy", "int8_bytes")?,
            ],
        })
    }

    pub(super) fn table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        let eight = Arm::Static(8, 8);
        for arm in self.case.arms(0) {
            let saved = |name: &str| match &arm {
                Arm::FullPrecision => Ok("–".into()),
                arm => self.metric(name, arm).map(|samples| cell(&samples.values(), 1)),
            };
            rows.push(vec![
                arm.label(),
                cell(&self.metric(ACCURACY, &arm)?.values(), 2),
                cell(&self.metric(CP, &arm)?.values(), 2),
                cell(&self.ratio(CP, &arm, &eight)?.values(), 2),
                cell(&self.ratio(EVERYTHING, &arm, &eight)?.values(), 2),
                saved("resnet74_macs_saved")?,
                saved("resnet74_energy_saved")?,
                saved("resnet74_latency_saved")?,
            ]);
        }
        let header = [
            "method",
            "test accuracy (%)",
            "cost of quantised layers (% of full precision)",
            "÷ static 8/8",
            "everything counted ÷ static 8/8",
            "bit operations saved on ResNet-74 (%)",
            "energy saved (%)",
            "latency saved (%)",
        ];
        Ok(Table {
            title: format!("{}: accuracy and cost of training", self.case.network),
            caption: format!(
                "Mean ± half the 95 % interval over seeds, after the last epoch: {} of them, {} of fixed stages, {} of other \
                 targets. Everything: layers in full precision and gates too, on both sides. Savings: the run's precisions and \
                 their shares on ResNet-74, modelled, over static 8/8; on its first convolution too, which gated networks keep in \
                 full precision (0.26 % of its products).",
                self.case.seeds,
                self.case.order_seeds,
                cases::TARGET_SEEDS
            ),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }

    /// Accuracy against cost.
    pub(super) fn trade(&self) -> anyhow::Result<Curve> {
        let case = self.case;
        let line = |name: &str, arms: &[Arm]| -> anyhow::Result<Option<Series>> {
            let mut points = Vec::new();
            for arm in arms {
                let cost = self.metric(CP, arm)?.values();
                let mean = cost.iter().sum::<f64>() / cost.len().max(1) as f64;
                points.extend(Point::of(mean, &self.metric(ACCURACY, arm)?.values()).filter(|_| mean > 0.0));
            }
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Ok((!points.is_empty()).then(|| Series { name: name.into(), points }))
        };
        let lines = [
            line("static", &case.statics())?,
            line("one option", case.single_option().as_slice())?,
            line("PFQ", &[case.pfq()])?,
            line("fixed stages", &[case.fixed()])?,
            line("CPT", &[case.cyclic()])?,
            line("DFQ", &[case.dfq_arm()])?,
            line("random gates", &[case.random_gates()])?,
            line("FracTrain", &[case.fractrain()])?,
        ];
        Ok(Curve {
            title: format!("{}: accuracy against the cost of training", case.network),
            caption: "Test accuracy after the last epoch; bands are 95 % t-intervals over seeds. Cost is that of the quantised \
                      layers."
                .into(),
            x: Axis::log("cost (% of full precision)"),
            y: Axis::linear("test accuracy (%)"),
            series: lines.into_iter().flatten().collect(),
            levels: Vec::new(),
        })
    }

    /// Cost epoch by epoch.
    pub(super) fn over_time(&self) -> Curve {
        let case = self.case;
        let line = |name: &str, arm: Arm| {
            let history = self.results.history(CP, |run| self.is(run, &arm));
            Series::over_epochs(name, &history)
        };
        Curve {
            title: format!("{}: cost epoch by epoch", case.network),
            caption: "Mean over seeds and steps.".into(),
            x: Axis::linear("epoch"),
            y: Axis::linear("cost (% of full precision)"),
            series: vec![
                line("PFQ", case.pfq()),
                line("fixed stages", case.fixed()),
                line("DFQ", case.dfq_arm()),
                line("FracTrain", case.fractrain()),
            ],
            levels: Vec::new(),
        }
    }
}
