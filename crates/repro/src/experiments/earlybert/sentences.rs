//! What the standard tier says about real sentences.

use super::claims::{self, ABSTRACT};
use super::fine_tuning::Arm;
use crate::section::{Axis, Curve, Level, Series, Table, cell};
use crate::{Ask, Claim, JudgedClaim, Relation, Results, Samples, Section, Test, Tier};
use core_tensor::text::glue::Task;
use lth::structured::chance_distance;

const POINTS: &str = "points";
/// Why a claim about sentences was not tested.
pub(super) const NEEDS: &str =
    "needs the standard tier and, in the data root, books, wikitext-2 and glue (SST-2, CoLA, MRPC)";

/// The kind of a run of fine-tuning.
pub(super) fn fine_tuning_kind(task: Task, arm: Arm) -> String {
    format!("{} {}", task.name().to_lowercase(), arm.label())
}

/// The tasks on which a network of this size hardly leaves the floor: their figures are shown and support no claim.
/// With each, the rows to train on, its metric and what the majority class scores.
pub(super) const SHOWN: [(Task, usize, &str); 2] = [
    (Task::Cola, 8551, "Matthews' correlation × 100, majority class 0"),
    (Task::Mrpc, 3668, "accuracy in percent, majority class 68.4"),
];
/// Their arms.
pub(super) const SHOWN_ARMS: [Arm; 3] = [Arm::Full, Arm::EarlyBird, Arm::Random];

/// A kind that [`fine_tuning_kind`] makes.
pub(super) fn is_fine_tuning(kind: &str) -> bool {
    Task::ALL
        .iter()
        .any(|task| kind.strip_prefix(&task.name().to_lowercase()).is_some_and(|rest| rest.starts_with(' ')))
}

/// The kind of a run of pre-training.
pub(super) fn pre_training_kind(label: &str) -> String {
    format!("masked-words {label}")
}

/// The claims, tested or not.
pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let planned = |kind: &str| ask.tier != Tier::Paper && results.runs().any(|(run, _)| run.kind.starts_with(kind));
    let (ran, asked) = (planned("sst-2 "), planned("spans"));
    let needs = if ask.tier == Tier::Paper { claims::NEEDS } else { NEEDS };
    let of = |kind: String| move |metric: &str| results.samples(metric, |run| run.kind == kind);
    let tuned = |arm: Arm, metric: &str| of(fine_tuning_kind(Task::Sst2, arm))(metric);
    let pre = |label: &str, metric: &str| of(pre_training_kind(label))(metric);
    let seconds = |arm: Arm| results.timings("total_seconds", |run| run.kind == fine_tuning_kind(Task::Sst2, arm));
    let early = Arm::EarlyBird;
    let mut section = Section::default();
    let mut add = |claim: Claim, samples: &dyn Fn() -> anyhow::Result<Samples>| -> anyhow::Result<()> {
        let judged: JudgedClaim = if ran { claim.judge(&samples()?)? } else { claim.not_run(needs) };
        section.claims.push(judged);
        Ok(())
    };
    let mean = |quantity: &str, relation| Test::mean(quantity, relation);
    add(
        Claim::new("S1a", "Fine-tuned on SST-2, the early-bird ticket stays within 2.5 points of the full model")
            .paper("comparable performance on GLUE and SQuAD", ABSTRACT)
            .test(mean("A(early bird) − A(full)", Relation::AtLeast(-2.5)), POINTS),
        &|| Ok(tuned(early, "dev_score")?.minus(&tuned(Arm::Full, "dev_score")?)),
    )?;
    add(
        Claim::new("S1c", "Search and re-training take at least 35 % less time by the clock")
            .paper("35 to 45 % less training time", ABSTRACT)
            .test(mean("1 − (search + re-training) / full, seconds", Relation::AtLeast(0.35)), "")
            .timed(),
        &|| Ok(seconds(early)?.over(&seconds(Arm::Full)?).map(|ratio| 1.0 - ratio)),
    )?;
    add(
        Claim::new("S1d", "Cut without re-training, half of the heads cost less loss than random halves do")
            .paper("structured winning tickets exist", ABSTRACT)
            .test(mean("loss(early bird) − mean loss(four random)", Relation::Below(0.0)), "nats"),
        &|| Ok(tuned(Arm::Watch, "cut_loss_early_bird")?.minus(&tuned(Arm::Watch, "cut_loss_random")?)),
    )?;
    add(
        Claim::new(
            "S1e",
            "From the draw to the end of the epoch the mask is never further than 0.15 from the one drawn",
        )
        .paper("tickets emerge early in training", ABSTRACT)
        .test(Test::every("largest distance, heads and neurons", Relation::AtMost(0.15)), ""),
        &|| {
            let heads = tuned(Arm::Watch, "largest_heads_distance")?;
            Ok(heads.combine(&tuned(Arm::Watch, "largest_neurons_distance")?, f64::max))
        },
    )?;
    add(
        Claim::new(
            "S2",
            "Pre-trained from random weights, the ticket's loss is at most 0.02 nats above a random one's",
        )
        .paper("the method applies to pre-training", ABSTRACT)
        .test(mean("loss(early bird) − loss(random)", Relation::AtMost(0.02)), "nats"),
        &|| Ok(pre("early-bird", "validation_loss")?.minus(&pre("random", "validation_loss")?)),
    )?;
    let spans = |metric: &str| results.samples(metric, |run| run.kind == "spans");
    let needs = if ask.tier == Tier::Paper { needs } else { "needs the standard tier" };
    let claims = [
        (
            Claim::new("S3a", "A small BERT learns generated questions through the whole SQuAD path")
                .paper("not in the abstract: a precondition", "ours")
                .test(mean("exact match of the full model after 1,000 steps", Relation::AtLeast(85.0)), "%"),
            spans("full_exact_match")?,
        ),
        (
            Claim::new("S3b", "A ticket drawn while the loss is still at chance beats a random one")
                .paper("comparable performance on GLUE and SQuAD", ABSTRACT)
                .test(mean("EM(early bird) − EM(random), 3/4 pruned", Relation::Above(0.0)), POINTS),
            spans("early_bird_exact_match")?.minus(&spans("random_exact_match")?),
        ),
    ];
    for (claim, samples) in claims {
        section.claims.push(if asked { claim.judge(&samples)? } else { claim.not_run(needs) });
    }
    if ran {
        section.tables.push(arms(results)?);
        for (task, _, caption) in SHOWN {
            section.tables.push(table(
                results,
                task,
                SHOWN_ARMS,
                &format!("Shown, no claim: the score is {caption}."),
            )?);
        }
        section.curves.push(stability(results));
    }
    Ok(section)
}

fn arms(results: &Results) -> anyhow::Result<Table> {
    let arms = Arm::ALL.into_iter().filter(|arm| *arm != Arm::Watch);
    table(
        results,
        Task::Sst2,
        arms,
        "Seconds hold search and training, without evaluation; the score is the accuracy in percent, majority class 50.9.",
    )
}

/// Every arm of a task: what it costs and what it reaches.
fn table(results: &Results, task: Task, arms: impl IntoIterator<Item = Arm>, caption: &str) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for arm in arms {
        let kind = fine_tuning_kind(task, arm);
        let of = |metric: &str, decimals| -> anyhow::Result<String> {
            Ok(cell(&results.samples(metric, |run| run.kind == kind)?.values(), decimals))
        };
        let seconds = cell(&results.timings("total_seconds", |run| run.kind == kind)?.values(), 1);
        rows.push(vec![
            arm.label().replace('-', " "),
            of("macs_share", 3)?,
            of("saved_macs", 3)?,
            seconds,
            of("dev_score", 2)?,
            of("dev_loss", 3)?,
        ]);
    }
    let header = ["arm", "MACs a step, share", "MACs saved", "seconds", "dev score", "dev loss"];
    Ok(Table {
        title: format!("{}, full and as tickets", task.name()),
        caption: format!("Mean ± half the 95 % interval over seeds. {caption}"),
        header: header.map(String::from).to_vec(),
        rows,
    })
}

fn stability(results: &Results) -> Curve {
    let kind = fine_tuning_kind(Task::Sst2, Arm::Watch);
    let history = |metric: &str| results.history(metric, |run| run.kind == kind);
    Curve {
        title: "SST-2: distance of the mask to the one drawn".into(),
        caption: "An epoch of search; the draw is where the distance is 0. Bands are 95 % t-intervals over seeds."
            .into(),
        x: Axis::linear("optimizer steps of the search"),
        y: Axis::linear("mask distance"),
        series: vec![
            Series::over_epochs("heads", &history("heads_distance")),
            Series::over_epochs("neurons", &history("neurons_distance")),
        ],
        levels: vec![Level { name: "two random masks, 40 % pruned".into(), y: chance_distance(0.4) }],
    }
}
