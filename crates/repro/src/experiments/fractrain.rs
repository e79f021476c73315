//! FracTrain (arXiv 2012.13113): what precision that grows along training costs on an accelerator.
//!
//! So far the hardware half only: a published precision schedule priced by `hw-sim`'s bit-composable array, set beside
//! static 8-bit training. Nothing is trained, so the claims on accuracy are not run.

use crate::section::Table;
use crate::{Ask, Claim, Experiment, Metrics, Plan, Relation, Results, Run, RunContext, Samples, Section, Test};
use hw_sim::networks::builtin;
use hw_sim::published::{FRACTRAIN, FRACTRAIN_SOURCE};
use hw_sim::training::{Precision, Saving, precision_schedule};
use hw_sim::{Accelerator, HwError};

/// The experiment.
pub(super) struct FracTrain;

/// Progressive precision against static 8/8: `[weight, activation, gradient]` bits of the four stages, as the reference
/// code trains ResNet-74. The switching points depend on the loss; here every stage takes a quarter of the steps.
const STAGES: [[u8; 3]; 4] = [[3, 3, 6], [4, 4, 6], [6, 6, 8], [8, 8, 8]];
const STATIC: [u8; 3] = [8, 8, 8];
/// Name in `hw-sim`, name in text, suffix of claims.
const NETWORKS: [(&str, &str, char); 2] = [("resnet38-cifar", "ResNet-38", 'a'), ("resnet74-cifar", "ResNet-74", 'b')];
const BATCH: u64 = 128;

impl Experiment for FracTrain {
    fn paper(&self) -> &'static str {
        "fractrain"
    }

    fn title(&self) -> &'static str {
        "FracTrain: Fractionally Squeezing Bit Savings Both Temporally and Spatially for Efficient DNN Training"
    }

    fn reference(&self) -> &'static str {
        "Fu, You, Zhao, Wang, Li, Gopalakrishnan, Wang, Lin, NeurIPS 2020, arXiv 2012.13113"
    }

    fn idea(&self) -> &'static str {
        "Early training tolerates far fewer bits than late training, and easy inputs fewer than hard ones. Precision \
         therefore grows along training when the loss stops falling (PFQ), and small gates choose it for each input and \
         layer (DFQ). Together they cut the cost of training without losing accuracy."
    }

    fn plan(&self, _: &Ask) -> anyhow::Result<Plan> {
        Ok(Plan::default())
    }

    fn execute(&self, run: &Run, _: &mut RunContext) -> anyhow::Result<Metrics> {
        anyhow::bail!("{}: this experiment plans no runs", run.label())
    }

    fn judge(&self, _: &Ask, _: &Results) -> anyhow::Result<Section> {
        let mut section = Section { notes: notes(), tables: vec![published_table()], ..Section::default() };
        for (network, name, suffix) in NETWORKS {
            let saved = saving(network)?;
            let exact = |value: f64| Samples::of([(0, 100.0 * value)]);
            let claim = |id: &str, statement: &str, formula: &str| {
                let paper = published_saving(network);
                Claim::new(&format!("{id}{suffix}"), &format!("{statement} ({name}, modelled)"))
                    .paper(&paper, FRACTRAIN_SOURCE)
                    .test(Test::every(formula, Relation::Above(0.0)), "%")
            };
            section.claims.extend([
                claim("H1", "Progressive precision saves energy over static 8-bit training", "energy saved")
                    .judge(&exact(saved.energy))?,
                claim("H2", "It saves latency too", "latency saved").judge(&exact(saved.latency))?,
                claim(
                    "H3",
                    "A bit-composable array turns less than all saved bit operations into energy",
                    "effective MACs saved − energy saved",
                )
                .judge(&exact(saved.effective_macs - saved.energy))?,
            ]);
            let row = |value: f64| format!("{:.1}", 100.0 * value);
            modelled(&mut section).rows.push(vec![
                name.into(),
                row(saved.effective_macs),
                row(saved.energy),
                row(saved.latency),
            ]);
        }
        section.claims.push(
            Claim::new("A1", "FracTrain loses no accuracy against static 8-bit training")
                .paper("92.97 % against 93.04 % (ResNet-74, CIFAR-10)", FRACTRAIN_SOURCE)
                .test(Test::mean("A(FracTrain) − A(static 8-bit)", Relation::AtLeast(-0.5)), "points")
                .not_run("training with fractional precision is not implemented yet"),
        );
        Ok(section)
    }
}

/// What the four stages, a quarter of the steps each, save against static 8-bit training.
fn saving(network: &str) -> Result<Saving, HwError> {
    let array = Accelerator::preset("bitfusion-training")?;
    let mut workload = builtin(network)?;
    workload.batch = BATCH;
    let staged = STAGES.map(|bits| Precision { bits, share: 0.25 });
    let ours = precision_schedule(&array, &workload, &staged)?;
    let theirs = precision_schedule(&array, &workload, &[Precision { bits: STATIC, share: 1.0 }])?;
    Ok(ours.saving(&theirs))
}

/// The published savings of whole FracTrain (with input-adaptive precision) over SBM on CIFAR-10.
fn published_saving(network: &str) -> String {
    let of = |method: &str| {
        FRACTRAIN.iter().find(|run| run.network == network && run.data == "CIFAR-10" && run.method == method)
    };
    let (Some(ours), Some(theirs)) = (of("FracTrain"), of("SBM")) else { return "none".into() };
    let saved = |ours: f64, theirs: f64| 100.0 * (1.0 - ours / theirs);
    format!(
        "FracTrain (with input-adaptive gates) over static 8-bit: {:.1} % MACs, {:.1} % energy, {:.1} % latency",
        saved(ours.effective_macs, theirs.effective_macs),
        saved(ours.kilojoules, theirs.kilojoules),
        saved(ours.minutes, theirs.minutes)
    )
}

/// The table of our own figures, made when first asked for.
fn modelled(section: &mut Section) -> &mut Table {
    let title = "Modelled: progressive precision over static 8-bit training";
    let known = section.tables.iter().position(|table| table.title == title);
    let index = known.unwrap_or_else(|| {
        let header = ["network", "effective MACs saved (%)", "energy saved (%)", "latency saved (%)"];
        section.tables.push(Table {
            title: title.into(),
            caption: "Bits 3/6, 4/6, 6/8, 8/8 (forward/gradient), a quarter of the steps each, batch 128.".into(),
            header: header.map(String::from).to_vec(),
            rows: Vec::new(),
        });
        section.tables.len() - 1
    });
    &mut section.tables[index]
}

fn published_table() -> Table {
    let header = ["network", "data", "method", "accuracy (%)", "effective MACs", "energy (kJ)", "latency (min)"];
    let row = |run: &hw_sim::published::TrainingRun| {
        vec![
            run.network.into(),
            run.data.into(),
            run.method.into(),
            format!("{:.2}", run.accuracy),
            format!("{:.2e}", run.effective_macs),
            format!("{:.2}", run.kilojoules),
            format!("{:.2}", run.minutes),
        ]
    };
    Table {
        title: "Published".into(),
        caption: format!("Not measured here. {FRACTRAIN_SOURCE}."),
        header: header.map(String::from).to_vec(),
        rows: FRACTRAIN.iter().map(row).collect(),
    }
}

fn notes() -> Vec<String> {
    vec![
        "The bits are the reference code's, the equal stages are assumed: where the loss would switch is not known \
         without training. Figures therefore show a direction, and are not the paper's."
            .into(),
        "The array is modelled on BitFusion, whose operands round up to 2, 4, 8 or 16 bits; that is why savings in energy \
         stay behind savings in bit operations, here as in the published tables."
            .into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stages_save_the_share_of_effective_macs_worked_by_hand() {
        // Per stage, in percent of full precision: 1.4648, 2.0833, 4.2969, 6.25; static: 6.25. Their mean saves 43.6 %,
        // a little less or more where the first layer has no input gradient.
        let saved = saving("resnet38-cifar").unwrap().effective_macs;
        assert!((saved - 0.436).abs() < 0.002, "{saved}");
    }

    #[test]
    fn published_savings_are_those_of_the_tables() {
        // ResNet-74: 1 − 5.85/26.2 = 77.7 %, 1 − 33.40/75.01 = 55.5 %, 1 − 321.98/692.29 = 53.5 %.
        let text = published_saving("resnet74-cifar");
        assert!(text.contains("77.7 % MACs, 55.5 % energy, 53.5 % latency"), "{text}");
    }
}
