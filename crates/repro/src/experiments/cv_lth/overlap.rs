//! Masks of two objectives, compared round by round.

use super::pretraining::mask_file;
use super::settings::{Objective, Settings};
use crate::{Metrics, RunContext};
use lth::MaskSet;
use lth::transfer::{MaskComparison, Profile};
use serde::{Deserialize, Serialize};

/// The run's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) settings: Settings,
}

pub(super) fn measure(params: &Params, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    let settings = &params.settings;
    let mask = |objective: Objective, round: u32| -> anyhow::Result<MaskSet> {
        Ok(MaskSet::load(&context.needed(objective.name())?.artifact(&mask_file(round))?)?.0)
    };
    let (first, rest) = settings.objectives.split_first().ok_or_else(|| anyhow::anyhow!("no objective"))?;
    let mut profile = String::new();
    for round in 1..=settings.rounds {
        let base = mask(*first, round)?;
        metrics.insert(format!("zero_kernels_{}_{round}", first.name()), Profile::of(&base).zero_kernels().1 as f64);
        for other in rest {
            let mask = mask(*other, round)?;
            let comparison = MaskComparison::new(&base, &mask)?;
            metrics.insert(format!("jaccard_{}_{round}", other.name()), comparison.jaccard());
            metrics.insert(format!("chance_{}_{round}", other.name()), comparison.jaccard_by_chance());
            metrics
                .insert(format!("zero_kernels_{}_{round}", other.name()), Profile::of(&mask).zero_kernels().1 as f64);
            if round == settings.rounds {
                append(&mut profile, &format!("{}-{}", first.name(), other.name()), &comparison.to_csv());
            }
        }
    }
    context.save_artifact("layers.csv", |path| Ok(std::fs::write(path, &profile)?))?;
    Ok(metrics)
}

/// One table of all pairs: their name in front of each row, the header once.
fn append(table: &mut String, pair: &str, csv: &str) {
    for (number, line) in csv.lines().enumerate() {
        let front = if number == 0 { "pair" } else { pair };
        if number > 0 || table.is_empty() {
            table.push_str(&format!("{front},{line}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_several_pairs_has_one_header() {
        let mut table = String::new();
        append(&mut table, "supervised-simclr", "layer,jaccard\nconv2,0.5\n");
        append(&mut table, "supervised-moco", "layer,jaccard\nconv2,0.25\n");
        assert_eq!(table, "pair,layer,jaccard\nsupervised-simclr,conv2,0.5\nsupervised-moco,conv2,0.25\n");
    }
}
