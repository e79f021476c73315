//! What the paper's abstract claims, as inequalities on small counterparts.

use super::{planted, recall, sentences};
use crate::section::{Axis, Curve, Level, Series, Table, cell};
use crate::{Ask, Claim, Relation, Results, Samples, Section, Test, Tier};
use lth::structured::chance_distance;

pub(super) const ABSTRACT: &str = "arXiv 2101.00063, abstract";
const OURS: &str = "ours";
const POINTS: &str = "points";
/// Why no claim is tested at the paper's own scale.
pub(super) const NEEDS: &str = "needs bert-base weights, full GLUE and SQuAD, and a GPU";

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let of = |kind: &'static str| move |metric: &str| results.samples(metric, move |run| run.kind == kind);
    let (planted, recall) = (of("planted"), of("recall"));
    let (settings, downstream) = (planted::Params::default(), recall::Params::default());
    let (early, late) = (settings.early, settings.late);
    let every = |quantity: &str, relation| Test::every(quantity, relation);
    let mean = |quantity: &str, relation| Test::mean(quantity, relation);
    let exists = "structured winning tickets can be identified early in training";
    let comparable = "comparable performance on GLUE and SQuAD";
    let claims: Vec<(Claim, Samples)> = vec![
        (
            Claim::new("Q1a", "A search of 100 steps tells every dead head from every live one")
                .paper(exists, ABSTRACT)
                .test(every("share of heads on the right side", Relation::AtLeast(1.0)), ""),
            planted(&format!("majority_heads_{early}"))?,
        ),
        (
            Claim::new("Q1b", "It tells at least 97 % of dead neurons from live ones")
                .paper(exists, ABSTRACT)
                .test(every("share of neurons on the right side", Relation::AtLeast(0.97)), ""),
            planted(&format!("majority_neurons_{early}"))?,
        ),
        (
            Claim::new("Q1c", "Later is worse: once an easy task is learned, only the penalty is left")
                .paper("not in the abstract: why early", OURS)
                .test(mean("neurons right after 200 steps − after 100, easy task", Relation::Below(0.0)), ""),
            planted(&format!("contains_neurons_{late}"))?.minus(&planted(&format!("contains_neurons_{early}"))?),
        ),
        (
            Claim::new("Q1d", "A penalty a hundred times as heavy blurs instead of sharpening")
                .paper("not in the abstract: what the penalty is for", OURS)
                .test(mean("neurons right at λ = 1e-2 − at 1e-4", Relation::Below(0.0)), ""),
            planted(&format!("heavy_neurons_{early}"))?.minus(&planted(&format!("majority_neurons_{early}"))?),
        ),
        (
            Claim::new(
                "Q2a",
                "Re-trained from the rewound weights, the early-bird ticket beats random ones of its size",
            )
            .paper("not in the abstract; a baseline of the reference code", "VITA-Group/EarlyBERT")
            .test(
                mean("A(early bird) − mean A(three random), 3/4 of heads and neurons pruned", Relation::AtLeast(5.0)),
                POINTS,
            ),
            recall("early_bird_0")?.minus(&recall("random_0")?),
        ),
        (
            Claim::new("Q2b", "It stays within five points of the full model")
                .paper(comparable, ABSTRACT)
                .test(mean("A(early bird) − A(full), 3/4 pruned", Relation::AtLeast(-5.0)), POINTS),
            recall("early_bird_0")?.minus(&recall("full")?),
        ),
        (
            Claim::new("Q2c", "Keeping what the search ranks lowest is worse than chance")
                .paper("not in the abstract: a control", OURS)
                .test(mean("A(inverse) − mean A(three random), 3/4 pruned", Relation::Below(0.0)), POINTS),
            recall("inverse_0")?.minus(&recall("random_0")?),
        ),
        (
            Claim::new("Q2d", "It beats random ones with 7/8 of heads and 9/10 of neurons pruned too")
                .paper("not in the abstract; a baseline of the reference code", "VITA-Group/EarlyBERT")
                .test(mean("A(early bird) − mean A(three random)", Relation::AtLeast(5.0)), POINTS),
            recall("early_bird_1")?.minus(&recall("random_1")?),
        ),
        (
            Claim::new("Q2e", "The signed gradient ranks, not the penalty: without it the ticket is as good")
                .paper("not in the abstract: the mechanism", OURS)
                .test(mean("A(λ = 0) − A(λ = 1e-4)", Relation::Within(crate::Interval { lo: -5.0, hi: 5.0 })), POINTS),
            recall("no_penalty_0")?.minus(&recall("early_bird_0")?),
        ),
        (
            Claim::new("Q3a", "Masks settle early: from step 4 on they are within 0.15 of the one after 20 steps")
                .paper("tickets emerge early in training", ABSTRACT)
                .test(every("largest distance from step 4 on, heads and neurons", Relation::AtMost(0.15)), ""),
            recall("largest_distance")?,
        ),
        (
            Claim::new("Q3b", "In the last quarter of the search hardly a neuron changes sides")
                .paper("tickets emerge early in training", ABSTRACT)
                .test(every("largest distance of neurons", Relation::AtMost(0.03)), ""),
            recall("last_quarter_distance")?,
        ),
        (
            Claim::new("Q4", "A model without half of its heads and 40 % of its neurons trains faster by the clock")
                .paper("35 to 45 % less training time", ABSTRACT)
                .test(every("time ratio − ratio of multiply-accumulates", Relation::AtMost(0.15)), "")
                .timed(),
            results
                .timings("time_ratio", |run| run.kind == "step-time")?
                .minus(&results.samples("macs_ratio", |run| run.kind == "step-time")?),
        ),
    ];
    let mut section = Section::default();
    for (claim, samples) in claims {
        let judged = if ask.tier == Tier::Paper { claim.not_run(NEEDS) } else { claim.judge(&samples)? };
        section.claims.push(judged);
    }
    let sentences = sentences::judge(ask, results)?;
    section.claims.extend(sentences.claims);
    if ask.tier == Tier::Paper {
        section.notes.push(
            "Published weights load by name into `core_tensor::networks::bert`, and readers of GLUE and SQuAD are in \
             `core_tensor::text`. Nothing of this tier has been run."
                .into(),
        );
        return Ok(section);
    }
    section.curves.push(stability(results));
    section.curves.extend(sentences.curves);
    section.notes.extend(sentences.notes);
    section.tables.extend(sentences.tables);
    section.tables.push(arms(results, &downstream)?);
    section.tables.push(recovery(results, early, late)?);
    section.notes.extend([
        "Thresholds are ours; the paper's figures are those of its abstract.".into(),
        "The tasks of claims Q are generated: counting tokens with planted dead heads and neurons, and key-value recall. \
         No sentence enters them."
            .into(),
        "Multiply-accumulates are those of the encoder stack; a backward pass is taken for two forward passes; \
         embeddings, norms and softmax are left out."
            .into(),
        format!(
            "Two random masks with half of everything pruned are {:.2} apart: read distances against that. With two \
             layers of eight heads one swapped pair is 0.125.",
            chance_distance(0.5)
        ),
    ]);
    Ok(section)
}

fn stability(results: &Results) -> Curve {
    let history = |metric: &str| results.history(metric, |run| run.kind == "recall");
    Curve {
        title: "How far each step's mask is from the last one's".into(),
        caption:
            "Half of heads and neurons pruned; normalised Hamming distance; bands are 95 % t-intervals over seeds."
                .into(),
        x: Axis::linear("optimizer steps of the search"),
        y: Axis::linear("mask distance"),
        series: vec![
            Series::over_epochs("heads", &history("heads_distance")),
            Series::over_epochs("neurons", &history("neurons_distance")),
        ],
        levels: vec![Level { name: "two random masks".into(), y: chance_distance(0.5) }],
    }
}

fn arms(results: &Results, params: &recall::Params) -> anyhow::Result<Table> {
    let of = |metric: &str, decimals| -> anyhow::Result<String> {
        let samples = results.samples(metric, |run| run.kind == "recall")?;
        Ok(cell(&samples.values(), decimals))
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
            "Test accuracy in percent, {} training examples; mean ± half the 95 % interval over seeds. Chance: 25. Search and \
             re-training of the first early bird take {} of the multiply-accumulates of as long a training of the full model.",
            params.examples,
            cell(&recall_saved(results)?, 3),
        ),
        header: ["ticket", "MACs, share of full", "accuracy (%)"].map(String::from).to_vec(),
        rows,
    })
}

/// Search and re-training, in multiply-accumulates of full training.
fn recall_saved(results: &Results) -> anyhow::Result<Vec<f64>> {
    Ok(results.samples("saved_macs_0", |run| run.kind == "recall")?.map(|saved| 1.0 - saved).values())
}

fn recovery(results: &Results, early: u64, late: u64) -> anyhow::Result<Table> {
    let of = |metric: String| -> anyhow::Result<String> {
        let samples = results.samples(&metric, |run| run.kind == "planted")?;
        Ok(cell(&samples.map(|share| 100.0 * share).values(), 1))
    };
    let row = |label: &str, run: &str, step: u64| -> anyhow::Result<Vec<String>> {
        let both = [of(format!("{run}_heads_{step}"))?, of(format!("{run}_neurons_{step}"))?];
        Ok([vec![label.to_owned(), step.to_string()], both.to_vec()].concat())
    };
    Ok(Table {
        title: "Planted dead structures found".into(),
        caption: "Percent of heads and neurons on the right side of the draw; half of them are dead.".into(),
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
