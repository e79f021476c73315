//! Curves and tables of the generated tasks.

use super::super::{planted, recall};
use super::samples;
use crate::Results;
use crate::section::{Axis, Curve, Level, Series, Table, cell};
use lth::structured::chance_distance;

/// How far the masks of a search of key-value recall are from the last one.
pub(super) fn stability(results: &Results) -> Curve {
    mask_curve(
        results,
        "How far each step's mask is from the last one's",
        "Half of heads and neurons pruned; normalised Hamming distance; bands are 95 % t-intervals over seeds.",
        ["heads_distance", "neurons_distance"],
    )
}

/// How far they are from those just before, which is what the detector of You et al. looks at.
pub(super) fn window(results: &Results) -> Curve {
    let caption = format!(
        "The largest distance of a step's mask to the {} before it. The detector of You et al. takes a ticket once that is \
         at most 0.1 for masks an epoch apart; here they are a step apart. The first point compares with the mask of the first step, \
         which ties draw: every coefficient has moved by one learning rate. Bands are 95 % t-intervals over seeds.",
        recall::WINDOW - 1
    );
    let mut curve = mask_curve(
        results,
        "How far each step's mask is from those just before it",
        &caption,
        ["heads_window", "neurons_window"],
    );
    curve.levels.push(Level { name: "the detector's line".into(), y: 0.1 });
    curve
}

fn mask_curve(results: &Results, title: &str, caption: &str, [heads, neurons]: [&str; 2]) -> Curve {
    let history = |metric: &str| results.history(metric, |run| run.kind == "recall");
    Curve {
        title: title.into(),
        caption: caption.into(),
        x: Axis::linear("optimizer steps of the search"),
        y: Axis::linear("mask distance"),
        series: vec![Series::over_epochs("heads", &history(heads)), Series::over_epochs("neurons", &history(neurons))],
        levels: vec![Level { name: "two random masks".into(), y: chance_distance(0.5) }],
    }
}

/// Tickets of key-value recall.
pub(super) fn arms(results: &Results) -> anyhow::Result<Table> {
    let params = recall::Params::default();
    let of = |metric: &str, decimals| -> anyhow::Result<String> {
        Ok(cell(&samples(results, "recall", metric)?.values(), decimals))
    };
    let mut rows = vec![vec!["full model".into(), "1".into(), of("full", 1)?]];
    for (index, (heads, neurons)) in params.ratios.iter().enumerate() {
        let share = of(&format!("macs_share_{index}"), 3)?;
        let arms: &[(&str, &str)] = match index {
            0 => &[
                ("early bird", "early_bird"),
                ("early bird, no penalty", "no_penalty"),
                ("late: after the whole training", "late"),
                ("magnitude", "magnitude"),
                ("random, as many a layer", "matched"),
                ("random, mean of three", "random"),
                ("inverse", "inverse"),
            ],
            _ => &[("early bird", "early_bird"), ("random, mean of three", "random"), ("inverse", "inverse")],
        };
        for (label, metric) in arms {
            let label = format!("{label} (heads −{:.1} %, neurons −{:.0} %)", 100.0 * heads, 100.0 * neurons);
            rows.push(vec![label, share.clone(), of(&format!("{metric}_{index}"), 1)?]);
        }
    }
    rows.push(vec!["every other layer".into(), format!("{:.3}", recall::layer_drop_share()?), of("layer_drop", 1)?]);
    Ok(Table {
        title: "Key-value recall after re-training".into(),
        caption: format!(
            "Test accuracy in percent, {} training examples; mean ± half the 95 % interval over seeds. Chance: 25. Search \
             and re-training of the first early bird take {} of the multiply-accumulates of as long a training of the full \
             model.",
            params.examples,
            cell(&spent(results)?, 3),
        ),
        header: ["ticket", "MACs, share of full", "accuracy (%)"].map(String::from).to_vec(),
        rows,
    })
}

/// Search and re-training, in multiply-accumulates of full training.
fn spent(results: &Results) -> anyhow::Result<Vec<f64>> {
    Ok(samples(results, "recall", "saved_macs_0")?.map(|saved| 1.0 - saved).values())
}

/// Planted dead structures found.
pub(super) fn recovery(results: &Results) -> anyhow::Result<Table> {
    let planted::Params { early, late, .. } = planted::Params::default();
    let of = |metric: String| -> anyhow::Result<String> {
        let samples = samples(results, "planted", &metric)?;
        Ok(cell(&samples.map(|share| 100.0 * share).values(), 1))
    };
    let row = |label: &str, run: &str, step: u64| -> anyhow::Result<Vec<String>> {
        let both = [of(format!("{run}_heads_{step}"))?, of(format!("{run}_neurons_{step}"))?];
        Ok([vec![label.to_owned(), step.to_string()], both.to_vec()].concat())
    };
    Ok(Table {
        title: "Planted dead structures found".into(),
        caption:
            "Percent of heads and neurons on the right side of the draw; half of them are dead. Without the pooler but \
                  where it is named."
                .into(),
        header: ["task", "steps", "heads", "neurons"].map(String::from).to_vec(),
        rows: vec![
            row("majority", "majority", early)?,
            row("majority", "majority", late)?,
            row("majority, λ = 1e-2", "heavy", early)?,
            row("majority, through the pooler", "pooled", early)?,
            row("majority, through the pooler", "pooled", late)?,
            row("easy", "contains", early)?,
            row("easy", "contains", late)?,
        ],
    })
}
