//! What the standard tier says about real sentences and generated questions.

mod figures;

use super::claims::{self, ABSTRACT, EARLY_BIRD, Measured, OURS, POINTS, samples};
use super::fine_tuning::Arm;
use crate::{Ask, Claim, JudgedClaim, Relation, Results, Samples, Section, Test, Tier};
use core_tensor::text::glue::Task;

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
    let needs = |below: &'static str| if ask.tier == Tier::Paper { claims::NEEDS } else { below };
    let on_sentences = [tuned_claims(results)?, pre_trained_claims(results)?].concat();
    let mut section = Section::default();
    section.claims.extend(judged(on_sentences, ran, needs(NEEDS))?);
    section.claims.extend(judged(span_claims(results)?, asked, needs("needs the standard tier"))?);
    if ran {
        section.tables.push(figures::arms(results)?);
        section.tables.push(figures::cut(results)?);
        for (task, _, caption) in SHOWN {
            let caption =
                format!("Shown, no claim: the score is {caption}. Full trains for three epochs, the others for two.");
            section.tables.push(figures::table(results, task, SHOWN_ARMS, &caption)?);
        }
        section.tables.push(figures::masked_words(results)?);
        section.curves.extend([figures::stability(results), figures::pre_training(results)]);
        section.notes.extend(notes());
    }
    if asked {
        section.tables.push(figures::questions(results)?);
        section.curves.push(figures::search_on_questions(results));
        section.notes.push(
            "S3b compares with a full model after 800 steps, which need not have learned the task where the one of S3a, after 1,000, \
             has: there a difference says when a plateau is left, and not what a ticket loses. The table has both, and how far \
             the network had come that the ticket was drawn from."
                .into(),
        );
    }
    Ok(section)
}

fn judged(claims: Vec<Measured>, ran: bool, needs: &str) -> anyhow::Result<Vec<JudgedClaim>> {
    let judge = |(claim, samples): Measured| -> anyhow::Result<JudgedClaim> {
        Ok(if ran { claim.judge(&samples)? } else { claim.not_run(needs) })
    };
    claims.into_iter().map(judge).collect()
}

fn notes() -> [String; 4] {
    [
        "All seeds of claims S1 start from one pre-trained checkpoint and are scored on the same 872 sentences: their \
         intervals leave out what another pre-training or other sentences would change."
            .into(),
        "The arms that S1c and S1f compare are runs of their own, two at a time on two cores: what slows one arm and \
         not the other is part of their ratio. The ticket has two epochs after its search, the full model three in S1c \
         and two in S1f."
            .into(),
        "S1d and S1g rank heads by the coefficients at the end of an epoch of search (the last tenth step, which is \
         recorded), in the network that this epoch has trained. The ticket of S1a to S1c is drawn after a fifth of the \
         epoch: of its ranking they say nothing."
            .into(),
        "The search of S2 begins at random weights and ends 200 steps after the warm-up. Where its loss has not clearly left \
         the level of word frequencies by then, early-bird tickets in pre-training are not shown at this scale. Nor are they by \
         S2b alone: a random ticket may meet its line as well, which S2 tells."
            .into(),
    ]
}

/// A metric of an arm of SST-2.
fn tuned(results: &Results, arm: Arm, metric: &str) -> anyhow::Result<Samples> {
    samples(results, &fine_tuning_kind(Task::Sst2, arm), metric)
}

/// Share of an arm's seconds on SST-2 that the early bird saves, search included.
fn saved_seconds(results: &Results, arm: Arm) -> anyhow::Result<Samples> {
    let seconds = |arm| results.timings("total_seconds", |run| run.kind == fine_tuning_kind(Task::Sst2, arm));
    Ok(seconds(Arm::EarlyBird)?.over(&seconds(arm)?).map(|ratio| 1.0 - ratio))
}

fn tuned_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let score = |arm| tuned(results, arm, "dev_score");
    let watched = |metric: &str| tuned(results, Arm::Watch, metric);
    Ok(vec![
        (
            Claim::new("S1a", "Fine-tuned on SST-2, the early-bird ticket stays within 2.5 points of the full model")
                .paper("comparable performance on GLUE and SQuAD; the margin is ours", ABSTRACT)
                .test(Test::mean("A(early bird) − A(full)", Relation::AtLeast(-2.5)), POINTS),
            score(Arm::EarlyBird)?.minus(&score(Arm::Full)?),
        ),
        (
            Claim::new("S1b", "It beats a random ticket of its size")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("A(early bird) − A(random)", Relation::Above(0.0)), POINTS),
            score(Arm::EarlyBird)?.minus(&score(Arm::Random)?),
        ),
        (
            Claim::new(
                "S1c",
                "Search and two epochs of re-training take at least 35 % less time by the clock than three epochs of \
                 the full model",
            )
            .paper("35 to 45 % less training time, of how many epochs it does not say", ABSTRACT)
            .test(Test::mean("1 − (search + re-training) / full, seconds", Relation::AtLeast(0.35)), "")
            .timed(),
            saved_seconds(results, Arm::Full)?,
        ),
        (
            Claim::new("S1f", "They take less time than two epochs of the full model, too: as many as the ticket has")
                .paper("not in the abstract: the saving without the epoch left out", OURS)
                .test(Test::mean("1 − (search + re-training) / full, two epochs, seconds", Relation::Above(0.0)), "")
                .timed(),
            saved_seconds(results, Arm::FullShort)?,
        ),
        (
            Claim::new(
                "S1d",
                "Ranked after an epoch of search and cut without re-training, half of the heads cost less loss than random \
                 halves do",
            )
                .paper("not in the abstract, whose tickets are trained again", OURS)
                .test(Test::mean("loss(higher-ranked half) − mean loss(four random)", Relation::Below(0.0)), "nats"),
            watched("cut_loss_early_bird")?.minus(&watched("cut_loss_random")?),
        ),
        (
            Claim::new(
                "S1g",
                "Keeping the half of the heads that an epoch of search ranks lowest costs more loss than random halves do",
            )
            .paper("not in the abstract: a control", OURS)
            .test(Test::mean("loss(lower-ranked half) − mean loss(four random)", Relation::Above(0.0)), "nats"),
            watched("cut_loss_inverse")?.minus(&watched("cut_loss_random")?),
        ),
        (
            Claim::new(
                "S1e",
                "From the draw to the end of the epoch, every tenth step, the mask is never further than 0.15 from the one drawn",
            )
            .paper("masks settle early in training; the line is ours", EARLY_BIRD)
            .test(Test::every("largest distance, heads and neurons", Relation::AtMost(0.15)), ""),
            watched("largest_heads_distance")?.combine(&watched("largest_neurons_distance")?, f64::max),
        ),
    ])
}

fn pre_trained_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let loss = |label: &str| samples(results, &pre_training_kind(label), "validation_loss");
    Ok(vec![
        (
            Claim::new("S2", "Pre-trained from random weights, the early-bird ticket's loss is below a random one's")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("loss(early bird) − loss(random)", Relation::Below(0.0)), "nats"),
            loss("early-bird")?.minus(&loss("random")?),
        ),
        (
            Claim::new("S2b", "Its loss is at most 0.02 nats above that of the full model after as many steps")
                .paper("the method applies to pre-training; the margin is ours", ABSTRACT)
                .test(Test::mean("loss(early bird) − loss(full)", Relation::AtMost(0.02)), "nats"),
            loss("early-bird")?.minus(&loss("full")?),
        ),
    ])
}

fn span_claims(results: &Results) -> anyhow::Result<Vec<Measured>> {
    let exact = |arm: &str| samples(results, "spans", &format!("{arm}_exact_match"));
    Ok(vec![
        (
            Claim::new("S3a", "A small BERT learns generated questions through the whole SQuAD path")
                .paper("not in the abstract: a precondition", OURS)
                .test(Test::every("exact match of the full model after 1,000 steps", Relation::AtLeast(85.0)), "%"),
            exact("full")?,
        ),
        (
            Claim::new(
                "S3b",
                "A ticket drawn by 400 steps of search from random weights stays within 2.5 points of the full model",
            )
            .paper("not in the abstract, which fine-tunes: a search from random weights", OURS)
            .test(Test::mean("EM(early bird) − EM(full), 800 steps each, 3/4 pruned", Relation::AtLeast(-2.5)), POINTS),
            exact("early_bird")?.minus(&exact("full_short")?),
        ),
        (
            Claim::new("S3c", "It beats random ones of its size")
                .paper("not in the abstract: a control", OURS)
                .test(Test::mean("EM(early bird) − mean EM(three random), 3/4 pruned", Relation::Above(0.0)), POINTS),
            exact("early_bird")?.minus(&exact("random")?),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_fine_tuning_are_told_from_others() {
        for arm in Arm::ALL {
            assert!(is_fine_tuning(&fine_tuning_kind(Task::Sst2, arm)));
        }
        assert!(!is_fine_tuning(&pre_training_kind("full")) && !is_fine_tuning("spans"));
    }

    #[test]
    fn claims_are_judged_only_where_their_runs_were_planned() {
        let measured = || -> Vec<Measured> {
            let claim = Claim::new("S3c", "It beats random ones of its size")
                .test(Test::mean("EM(early bird) − EM(random)", Relation::Above(0.0)), POINTS);
            vec![(claim, Samples::of([(0, 2.0), (1, 2.0)]))]
        };
        let of = |ran| judged(measured(), ran, "needs the standard tier").unwrap().remove(0);
        assert_eq!((of(true).verdict().as_str(), of(true).mean()), ("reproduced", Some(2.0)));
        assert_eq!((of(false).verdict().as_str(), of(false).reason()), ("not run", "needs the standard tier"));
    }
}
