//! When the plateau rule ended its stages, and what other thresholds and decays would have done.

use super::arms::{self, Arm, PLATEAU, SMALL_PLATEAU, TrainParams};
use super::cases::{self, Case};
use super::{PAPER, REVISION};
use crate::experiments::images::ImageSet;
use crate::section::{Table, cell};
use crate::{Ask, Plan, Results, Row, Run, Tier};
use quant::fractrain::PlateauConfig;
use std::collections::BTreeMap;

/// Thresholds of the ablation, the published one first.
const THRESHOLDS: [f64; 4] = [PLATEAU.threshold, 0.1, SMALL_PLATEAU.threshold, 0.3];
/// The one seed of it.
const SEED: u64 = 0;

/// In a sentence, after which epochs an arm with a plateau rule went on to its next stage, beside the earliest that the
/// rule's window allows; nothing for other arms and without runs.
pub(super) fn sentence(results: &Results, arm: &Arm, is: impl Fn(&Run) -> bool) -> String {
    let Some((plateau, metric)) = rule(arm) else { return String::new() };
    let by_seed = results.finished(is).map(|finished| (finished.run.seed, ends(&finished.rows, metric)));
    phrase(&arm.label(), plateau, by_seed)
}

/// For statements: that an arm's plateau rule never waited, where it has one and no run of it did.
pub(super) fn in_effect(results: &Results, arm: &Arm, is: impl Fn(&Run) -> bool) -> &'static str {
    let Some((plateau, metric)) = rule(arm) else { return "" };
    let runs = results.finished(is).map(|finished| ends(&finished.rows, metric));
    if never_waited(plateau, runs) { " (a fixed schedule in effect)" } else { "" }
}

/// Whether there are runs, and all of them ended their stages as early as the rule's window allows.
fn never_waited(plateau: &PlateauConfig, mut runs: impl Iterator<Item = Vec<u64>>) -> bool {
    let earliest = earliest(plateau);
    runs.next().is_some_and(|first| first == earliest) && runs.all(|ends| ends == earliest)
}

/// The rule that ends an arm's stages, and what it logs that is another number in every stage.
fn rule(arm: &Arm) -> Option<(&PlateauConfig, &'static str)> {
    match arm {
        Arm::Pfq(_, plateau) => Some((plateau, "forward_bits")),
        Arm::FracTrain(.., plateau) => Some((plateau, "target_cp")),
        _ => None,
    }
}

/// Epochs, from 1, after which a metric changed.
fn ends(rows: &[Row], metric: &str) -> Vec<u64> {
    let values: Vec<(u64, f64)> =
        rows.iter().filter_map(|row| row.values.get(metric).map(|value| (row.epoch, *value))).collect();
    values.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[0].0).collect()
}

fn phrase(label: &str, plateau: &PlateauConfig, by_seed: impl Iterator<Item = (u64, Vec<u64>)>) -> String {
    let mut seeds = BTreeMap::<Vec<u64>, Vec<u64>>::new();
    by_seed.for_each(|(seed, ends)| seeds.entry(ends).or_default().push(seed));
    if seeds.is_empty() {
        return String::new();
    }
    let earliest = earliest(plateau);
    let found = seeds.iter().map(|(ends, seeds)| format!("{} (seed {})", list(ends), list(seeds)));
    let found = found.collect::<Vec<_>>().join("; ");
    let fixed = match seeds.len() == 1 && seeds.contains_key(&earliest) {
        true => ": a fixed schedule in effect",
        false => "",
    };
    format!("Stages of {label} ended after epochs {found}, at the earliest after {}{fixed}.", list(&earliest))
}

/// The epochs after which stages end if the loss never moves.
fn earliest(plateau: &PlateauConfig) -> Vec<u64> {
    (1..=plateau.turning_points as u64).map(|turn| turn * plateau.window as u64).collect()
}

fn list(numbers: &[u64]) -> String {
    match numbers {
        [] => "–".into(),
        numbers => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What is compared: four thresholds with the small network's decay; beyond the quick tier with the published one too.
fn settings(tier: Tier) -> Vec<PlateauConfig> {
    let decays = match tier {
        Tier::Quick => vec![SMALL_PLATEAU.decay],
        Tier::Standard => vec![SMALL_PLATEAU.decay, PLATEAU.decay],
        Tier::Paper => Vec::new(),
    };
    let with = |decay: f64| THRESHOLDS.map(|threshold| PlateauConfig { threshold, decay, ..SMALL_PLATEAU });
    decays.into_iter().flat_map(with).collect()
}

fn small(ask: &Ask) -> anyhow::Result<Case> {
    Ok(cases::small(ImageSet::grey(&ask.data)?))
}

pub(super) fn plan(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    let case = small(ask)?;
    if ask.tier == Tier::Standard {
        let mut data = case.describe_data();
        data.set.push_str(" (other settings of the plateau rule)");
        plan.data.push(data);
    }
    for plateau in settings(ask.tier) {
        let arm = arms::pfq(plateau);
        let mut kind = format!("{} {}", case.network, arm.label());
        // The small network's own rule is an arm of the quick tier, and the same run.
        if plateau != SMALL_PLATEAU {
            kind = format!("{kind}, threshold {}, decay {}", plateau.threshold, plateau.decay);
        }
        let run = ask.run(PAPER, &kind, SEED, &case.params(&arm))?.at_revision(REVISION);
        plan.add_weighted(run, case.effort(&arm));
    }
    Ok(())
}

/// The ablation, where it ran.
pub(super) fn table(ask: &Ask, results: &Results) -> anyhow::Result<Option<Table>> {
    let case = small(ask)?;
    let mut rows = Vec::new();
    for plateau in settings(ask.tier) {
        let arm = arms::pfq(plateau);
        let params = case.params(&arm);
        let same = |run: &Run| run.params::<TrainParams>().is_ok_and(|found| found == params);
        let is = |run: &Run| run.seed == SEED && run.paper == PAPER && same(run);
        let Some(finished) = results.finished(is).next() else { continue };
        let ends = ends(&finished.rows, "forward_bits");
        let last = match ends.last().filter(|_| ends.len() == plateau.turning_points) {
            Some(epoch) => format!("{:.0}", 100.0 * *epoch as f64 / case.recipe.epochs as f64),
            None => "never".into(),
        };
        rows.push(vec![
            plateau.threshold.to_string(),
            plateau.decay.to_string(),
            list(&ends),
            last,
            cell(&[finished.metric("test_accuracy")?], 2),
            cell(&[finished.metric("cp")?], 2),
        ]);
    }
    let header = ["threshold ε", "decay α", "stages ended after epochs", "last stage from (% of epochs)"];
    let header = header.into_iter().chain(["test accuracy (%)", "cost (% of full precision)"]);
    Ok((!rows.is_empty()).then(|| Table {
        title: "Other settings of the plateau rule".into(),
        caption: format!(
            "{}, {} images, {} epochs, one seed: the spread between seeds is larger than most differences here. Stages end after \
             epochs {} at the earliest.",
            case.network,
            case.recipe.train_images,
            case.recipe.epochs,
            list(&earliest(&SMALL_PLATEAU))
        ),
        header: header.map(String::from).collect(),
        rows,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn a_stage_ends_where_the_logged_number_changes() {
        let row = |(epoch, bits): (u64, f64)| Row { epoch, values: Metrics::from([("forward_bits".into(), bits)]) };
        let rows: Vec<Row> = [(1, 3.0), (2, 3.0), (3, 4.0), (4, 6.0), (5, 6.0)].map(row).into();
        assert_eq!(ends(&rows, "forward_bits"), [2, 3]);
        assert_eq!(ends(&rows, "target_cp"), [0; 0]);
    }

    #[test]
    fn switches_are_told_beside_the_earliest() {
        let plateau = PlateauConfig { window: 2, turning_points: 3, ..PLATEAU };
        let tell =
            |ends: &[(u64, &[u64])]| phrase("PFQ", &plateau, ends.iter().map(|(seed, ends)| (*seed, ends.to_vec())));
        assert_eq!(
            tell(&[(0, &[2, 4, 6]), (1, &[2, 4, 6])]),
            "Stages of PFQ ended after epochs 2, 4, 6 (seed 0, 1), at the earliest after 2, 4, 6: a fixed schedule in effect."
        );
        assert_eq!(
            tell(&[(0, &[3, 5]), (1, &[])]),
            "Stages of PFQ ended after epochs – (seed 1); 3, 5 (seed 0), at the earliest after 2, 4, 6."
        );
        assert_eq!(tell(&[]), "");
    }

    #[test]
    fn a_rule_that_waits_once_is_no_fixed_schedule() {
        let plateau = PlateauConfig { window: 3, turning_points: 2, ..PLATEAU };
        let never = |runs: &[&[u64]]| never_waited(&plateau, runs.iter().map(|ends| ends.to_vec()));
        assert!(never(&[&[3, 6]]) && never(&[&[3, 6], &[3, 6]]));
        assert!(!never(&[&[3, 6], &[3, 7]]) && !never(&[&[4, 7]]) && !never(&[&[]]) && !never(&[]));
    }

    #[test]
    fn the_small_networks_own_rule_is_among_the_settings() {
        assert!(settings(Tier::Quick).contains(&SMALL_PLATEAU));
        assert_eq!((settings(Tier::Quick).len(), settings(Tier::Standard).len()), (4, 8));
    }
}
