//! Masks of two objectives, compared round by round.

use super::pretraining::mask_file;
use super::settings::{Objective, Settings};
use crate::{Metrics, RunContext};
use lth::MaskSet;
use lth::transfer::{MaskComparison, Profile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// Names and densities of layers, from the input on, by objective, as the run's table `layers.csv` has them.
///
/// # Errors
/// A row that is none of the table's.
pub(super) fn densities(table: &str) -> anyhow::Result<BTreeMap<String, Vec<(String, f64)>>> {
    let mut found = BTreeMap::<String, Vec<(String, f64)>>::new();
    for line in table.lines().skip(1) {
        let strange = || anyhow::anyhow!("`{line}` is no row of a table of layers");
        let mut cells = line.split(',');
        let [pair, layer, _, first, second] = [(); 5].map(|()| cells.next());
        let (first_name, second_name) = pair.and_then(|pair| pair.split_once('-')).ok_or_else(strange)?;
        let layer = layer.ok_or_else(strange)?;
        for (name, density) in [(first_name, first), (second_name, second)] {
            let layers = found.entry(name.to_owned()).or_default();
            // The first objective is in every pair.
            if layers.iter().all(|(known, _)| known != layer) {
                layers.push((layer.to_owned(), density.ok_or_else(strange)?.parse()?));
            }
        }
    }
    Ok(found)
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

    #[test]
    fn densities_are_read_back_by_objective_and_depth() {
        let mask = |bits: [u8; 4]| {
            let tensors = [("conv3", [bits[0], bits[1]]), ("conv2", [bits[2], bits[3]])];
            MaskSet::from_tensors(&tensors.map(|(name, bits)| (name.to_owned(), tch::Tensor::from_slice(&bits))))
                .unwrap()
        };
        let [supervised, simclr, moco] = [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1]].map(mask);
        let mut table = String::new();
        for (pair, other) in [("supervised-simclr", simclr), ("supervised-moco", moco)] {
            append(&mut table, pair, &MaskComparison::new(&supervised, &other).unwrap().to_csv());
        }
        let layers = |conv3, conv2| vec![("conv3".to_owned(), conv3), ("conv2".to_owned(), conv2)];
        let expected = [("supervised", layers(1.0, 0.5)), ("simclr", layers(0.5, 0.0)), ("moco", layers(0.0, 1.0))];
        let expected = BTreeMap::from(expected.map(|(name, layers)| (name.to_owned(), layers)));
        assert_eq!(densities(&table).unwrap(), expected);
        for bad in ["pair\nsupervised,conv2,1,1,1\n", "pair\na-b,conv2,1\n", "pair\na-b,conv2,1,x,1\n"] {
            assert!(densities(bad).is_err(), "{bad}");
        }
        assert!(densities("").unwrap().is_empty());
    }
}
