//! Curves and tables of real sentences and generated questions.

use super::super::claims::samples;
use super::super::fine_tuning::Arm;
use super::super::spans;
use super::{fine_tuning_kind, pre_training_kind, tuned};
use crate::Results;
use crate::section::{Axis, Curve, Level, Series, Table, cell};
use core_tensor::text::glue::Task;
use lth::structured::chance_distance;

/// Every arm of SST-2.
pub(super) fn arms(results: &Results) -> anyhow::Result<Table> {
    let arms = Arm::ALL.into_iter().filter(|arm| *arm != Arm::Watch);
    table(
        results,
        Task::Sst2,
        arms,
        "Seconds hold search and training, without evaluation; the score is the accuracy in percent, majority class \
         50.9. Full trains for three epochs, every other arm for two. Fewer layers: two of four, of a network that was not \
         trained with dropped ones.",
    )
}

/// Every arm of a task: what it costs and what it reaches.
pub(super) fn table(
    results: &Results,
    task: Task,
    arms: impl IntoIterator<Item = Arm>,
    caption: &str,
) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for arm in arms {
        let kind = fine_tuning_kind(task, arm);
        let mut row = vec![arm.shown()];
        row.extend(costs(results, &kind)?);
        for (metric, decimals) in [("dev_score", 2), ("dev_loss", 3)] {
            row.push(cell(&samples(results, &kind, metric)?.values(), decimals));
        }
        rows.push(row);
    }
    let header = ["arm", "MACs a step, share", "MACs saved", "seconds", "dev score", "dev loss"];
    Ok(Table {
        title: format!("{}, full and as tickets", task.name()),
        caption: format!("Mean ± half the 95 % interval over seeds. {caption}"),
        header: header.map(String::from).to_vec(),
        rows,
    })
}

/// What the runs of a kind cost: multiply-accumulates of a step and saved in all, as shares, and seconds.
fn costs(results: &Results, kind: &str) -> anyhow::Result<[String; 3]> {
    let of = |metric: &str| -> anyhow::Result<String> { Ok(cell(&samples(results, kind, metric)?.values(), 3)) };
    let seconds = results.timings("total_seconds", |run| run.kind == kind)?;
    Ok([of("macs_share")?, of("saved_macs")?, cell(&seconds.values(), 1)])
}

/// What half of the heads costs before any re-training.
pub(super) fn cut(results: &Results) -> anyhow::Result<Table> {
    let row = |label: &str, metric: &str| -> anyhow::Result<Vec<String>> {
        Ok(vec![label.to_owned(), cell(&tuned(results, Arm::Watch, metric)?.values(), 4)])
    };
    Ok(Table {
        title: "SST-2, half of the heads cut without re-training".into(),
        caption:
            "Of the network after an epoch of search, ranked by the coefficients at its end, which are then folded into the weights. Mean ± \
                  half the 95 % interval over seeds."
                .into(),
        header: ["heads kept", "dev loss"].map(String::from).to_vec(),
        rows: vec![
            row("all", "uncut_loss")?,
            row("the half that the search ranks highest", "cut_loss_early_bird")?,
            row("a random half, mean of four", "cut_loss_random")?,
            row("the half that the search ranks lowest", "cut_loss_inverse")?,
        ],
    })
}

/// Labels of the arms of pre-training.
const PRE_TRAINED: [&str; 3] = ["full", "early-bird", "random"];

/// What pre-training reaches, in full and as tickets.
pub(super) fn masked_words(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for label in PRE_TRAINED {
        let kind = pre_training_kind(label);
        let mut row = vec![label.replace('-', " ")];
        row.extend(costs(results, &kind)?);
        row.push(cell(&samples(results, &kind, "validation_loss")?.values(), 4));
        rows.push(row);
    }
    let search = samples(results, &pre_training_kind("early-bird"), "search_loss")?;
    let header = ["arm", "MACs a step, share", "MACs saved", "seconds", "validation loss"];
    Ok(Table {
        title: "Masked words, from random weights".into(),
        caption: format!(
            "Nats a masked word: the mean of batches of 32, over the shortest 1,280 of the first 1,600 sequences of WikiText-2's \
             validation part, each arm after as many steps; \
             mean ± half the 95 % interval over seeds. Seconds are by the clock, whatever ran beside, and carry no claim. In its last \
             ten steps the search's own loss, on books, was {}.",
            cell(&search.values(), 3)
        ),
        header: header.map(String::from).to_vec(),
        rows,
    })
}

/// The losses of pre-training, step by step.
pub(super) fn pre_training(results: &Results) -> Curve {
    let of = |label: &str, metric: &str| {
        let kind = pre_training_kind(label);
        results.history(metric, |run| run.kind == kind)
    };
    let mut series = vec![Series::over_epochs("search, on books", &of("early-bird", "search_loss"))];
    for label in PRE_TRAINED {
        series.push(Series::over_epochs(&label.replace('-', " "), &of(label, "validation_loss")));
    }
    Curve {
        title: "Masked words: losses".into(),
        caption:
            "The search on the books it trains on, the arms on the shorter sequences from the beginning of WikiText-2's validation \
                  part; the early bird's steps count those of its search. Bands are 95 % t-intervals over seeds."
                .into(),
        x: Axis::linear("optimizer steps, search included"),
        y: Axis::linear("nats a masked word"),
        series,
        levels: Vec::new(),
    }
}

/// How far the masks of a search on SST-2 are from the one drawn.
pub(super) fn stability(results: &Results) -> Curve {
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

/// Generated questions, in full and as tickets, and how far the network of the search had come.
pub(super) fn questions(results: &Results) -> anyhow::Result<Table> {
    let params = spans::Params::default();
    let of = |metric: &str, decimals| -> anyhow::Result<String> {
        Ok(cell(&samples(results, "spans", metric)?.values(), decimals))
    };
    let pruned = of("macs_share", 3)?;
    let arms = [
        ("full", params.steps, "1", "full"),
        ("full, as long as a ticket", params.ticket_steps, "1", "full_short"),
        ("early bird, 3/4 pruned", params.ticket_steps, pruned.as_str(), "early_bird"),
        ("random, 3/4 pruned, mean of three", params.ticket_steps, pruned.as_str(), "random"),
        ("full, with coefficients, when the ticket is drawn", params.search_steps, "1", "searched"),
    ];
    let mut rows = Vec::new();
    for (label, steps, share, arm) in arms {
        let scores = [of(&format!("{arm}_exact_match"), 1)?, of(&format!("{arm}_f1"), 1)?];
        rows.push([vec![label.to_owned(), steps.to_string(), share.to_owned()], scores.to_vec()].concat());
    }
    Ok(Table {
        title: "Generated questions, full and as tickets".into(),
        caption: format!(
            "Percent of {} questions a seed; mean ± half the 95 % interval over seeds. A guess among the four entities of \
             a context: 25. In its last {} steps the search's loss was {} nats, where pointing at any word of an entity, whatever \
             is asked, has {:.2}.",
            params.test,
            spans::STRETCH,
            of("search_loss", 3)?,
            spans::any_entity_word()
        ),
        header: ["arm", "steps", "MACs, share of full", "exact match", "F1"].map(String::from).to_vec(),
        rows,
    })
}

/// The loss of the search on generated questions.
pub(super) fn search_on_questions(results: &Results) -> Curve {
    let history = results.history("search_loss", |run| run.kind == "spans");
    Curve {
        title: "Generated questions: loss of the search".into(),
        caption: format!(
            "Without the penalty, means over {} steps; the ticket is drawn after the last. Bands are 95 % t-intervals \
             over seeds.",
            spans::STRETCH
        ),
        x: Axis::linear("optimizer steps of the search"),
        y: Axis::linear("nats a question"),
        series: vec![Series::over_epochs("search", &history)],
        levels: vec![Level { name: "any word of an entity".into(), y: spans::any_entity_word() }],
    }
}
