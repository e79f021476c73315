//! EarlyBERT: structured early-bird tickets for BERT (arXiv 2101.00063).
//!
//! ```text
//! planted    dead heads and neurons hidden in fresh weights ──search──► found?
//! recall     pre-training ──► few-shot task ──search of 20 steps──► tickets ──re-training──► who learns best?
//! step-time  a small BERT, full and cut, on the clock
//!
//! standard: spans, questions in SQuAD's format, full, early bird, random
//!           masked words on books, full, early bird, random, from random weights
//!                   └► the full one: SST-2, full, early bird, random, fewer layers
//!                                    CoLA and MRPC, full, early bird, random: shown
//!
//! paper: nothing is run
//! ```

mod claims;
mod fine_tuning;
mod planted;
mod pre_training;
mod recall;
mod sentences;
mod spans;
mod step_time;
mod training;

use crate::{Ask, DataSource, DataUse, Experiment, Metrics, Plan, Results, Run, RunContext, Section, Tier};
use core_tensor::text::glue::Task;

const PAPER: &str = "earlybert";
/// Counted up whenever the code computes something else from the same parameters.
const REVISION: u32 = 3;

/// Training phrases of SST-2 used.
const PHRASES: usize = 20_000;

/// The experiment.
pub(super) struct EarlyBert;

impl Experiment for EarlyBert {
    fn paper(&self) -> &'static str {
        PAPER
    }

    fn title(&self) -> &'static str {
        "EarlyBERT: Efficient BERT Training via Early-bird Lottery Tickets"
    }

    fn reference(&self) -> &'static str {
        "Chen, Cheng, Wang, Gan, Wang, Liu, ACL 2021, arXiv 2101.00063"
    }

    fn idea(&self) -> &'static str {
        "Put a learned coefficient on every attention head and feed-forward neuron, train for a small part of the way, \
         and see which coefficients sink. Cut those heads and neurons out for real, go back to the weights before, and \
         train the smaller dense model instead: less time for comparable results, with no sparse kernels."
    }

    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        if ask.tier == Tier::Paper {
            let set = "bert-base-uncased weights, GLUE and SQuAD".into();
            plan.data.push(DataUse { set, source: DataSource::Absent });
            return Ok(plan);
        }
        for set in ["token counting with planted dead heads and neurons", "key-value recall"] {
            plan.data.push(DataUse { set: set.into(), source: DataSource::Generator });
        }
        let mut add = |run: Run, effort: f64| plan.add_weighted(run.at_revision(REVISION), effort);
        for seed in ask.seeds(5) {
            add(ask.run(PAPER, "planted", seed, &planted::Params::default())?, 9.0);
            if seed < 2 {
                add(ask.run(PAPER, "step-time", seed, &step_time::Params::default())?, 4.0);
            }
        }
        for seed in ask.seeds(recall_seeds(ask.tier)) {
            add(ask.run(PAPER, "recall", seed, &recall::Params::default())?, 14.0);
        }
        plan_sentences(ask, &mut plan)?;
        Ok(plan)
    }

    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
        match run.kind.as_str() {
            "planted" => planted::measure(&run.params()?, run.seed, context),
            "recall" => recall::measure(&run.params()?, run.seed, context),
            "step-time" => step_time::measure(&run.params()?, run.seed, context),
            "spans" => spans::measure(&run.params()?, run.seed, context),
            kind if kind.starts_with("masked-words ") => pre_training::measure(&run.params()?, run.seed, context),
            kind if sentences::is_fine_tuning(kind) => fine_tuning::measure(&run.params()?, run.seed, context),
            other => anyhow::bail!("no run of kind `{other}`"),
        }
    }

    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section> {
        claims::judge(ask, results)
    }
}

/// Seeds of key-value recall: what 64 examples leave to chance is as large as the effects.
fn recall_seeds(tier: Tier) -> u64 {
    if tier == Tier::Quick { 5 } else { 15 }
}

/// Questions, and real sentences where the data are there, in tiers above the quick one.
fn plan_sentences(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    if ask.tier == Tier::Quick {
        return Ok(());
    }
    let set = "questions in SQuAD's format whose answer is one hop away".into();
    plan.data.push(DataUse { set, source: DataSource::Generator });
    for seed in ask.seeds(5) {
        let run = ask.run(PAPER, "spans", seed, &spans::Params::default())?;
        plan.add_weighted(run.at_revision(REVISION), 90.0);
    }
    let books = pre_training::books(&ask.data)?;
    let is_there = |set: &str, files: &[&str]| ask.data.find(set, files).map(|folder| folder.is_some());
    let sets = [
        ("books, public domain", !books.is_empty()),
        ("WikiText-2, validation", is_there(pre_training::WIKITEXT, &["valid.txt"])?),
        ("SST-2, first 20,000 training phrases", is_there("glue/SST-2", &["train.tsv", "dev.tsv"])?),
        ("CoLA", is_there("glue/CoLA", &["train.tsv", "dev.tsv"])?),
        ("MRPC", is_there("glue/MRPC", &["train.tsv", "dev.tsv"])?),
    ];
    let complete = sets.iter().all(|(_, is_there)| *is_there);
    for (set, is_there) in sets {
        let source = if is_there { DataSource::Files } else { DataSource::Absent };
        plan.data.push(DataUse { set: set.into(), source });
    }
    if !complete {
        return Ok(());
    }
    let pre = |arm, label: &str, seed| -> anyhow::Result<Run> {
        let kind = sentences::pre_training_kind(label);
        Ok(ask.run(PAPER, &kind, seed, &pre_training::Params::small(arm, &books))?.at_revision(REVISION))
    };
    // What every fine-tuning starts from, and the first of the models that tickets of masked words are compared with.
    let words = plan.add_weighted(pre(pre_training::Arm::Full, "full", 0)?, 600.0);
    for seed in ask.seeds(3) {
        plan.add_weighted(pre(pre_training::Arm::Full, "full", seed)?, 600.0);
        plan.add_weighted(pre(pre_training::Arm::EarlyBird, "early-bird", seed)?, 560.0);
        plan.add_weighted(pre(pre_training::Arm::Random, "random", seed)?, 430.0);
    }
    let tuned = |task, arm, rows: usize, seed| -> anyhow::Result<Run> {
        let params = fine_tuning::Params::small(task, arm, rows);
        let run = ask.run(PAPER, &sentences::fine_tuning_kind(task, arm), seed, &params)?;
        Ok(run.at_revision(REVISION).needing("masked-words", &words))
    };
    for seed in ask.seeds(5) {
        for arm in fine_tuning::Arm::ALL {
            plan.add_weighted(tuned(Task::Sst2, arm, PHRASES, seed)?, arm.seconds());
        }
    }
    for seed in ask.seeds(3) {
        for (task, rows, _) in sentences::SHOWN {
            for arm in sentences::SHOWN_ARMS {
                plan.add_weighted(tuned(task, arm, rows, seed)?, arm.seconds() * rows as f64 / PHRASES as f64);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device};
    use std::collections::BTreeSet;

    /// Data sets as far as planning looks: files under their names, empty.
    fn with_data() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str| {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        ["books/a.txt", "wikitext-2/valid.txt"].into_iter().for_each(write);
        for task in ["SST-2", "CoLA", "MRPC"] {
            write(&format!("glue/{task}/train.tsv"));
            write(&format!("glue/{task}/dev.tsv"));
        }
        folder
    }

    #[test]
    fn what_is_compared_has_as_many_seeds() {
        let folder = with_data();
        let ask = |tier| Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(folder.path()) };
        let plan = EarlyBert.plan(&ask(Tier::Standard)).unwrap();
        let of = |kind: &str| -> Vec<&crate::Planned> {
            plan.runs.iter().filter(|planned| planned.run.kind == kind).collect()
        };
        for kind in ["masked-words full", "masked-words early-bird", "masked-words random"] {
            assert_eq!(of(kind).len(), 3, "{kind}");
        }
        for arm in fine_tuning::Arm::ALL {
            let runs = of(&sentences::fine_tuning_kind(Task::Sst2, arm));
            assert!(runs.len() == 5 && runs.iter().all(|planned| planned.effort == arm.seconds()));
            assert!(
                runs.iter().all(|planned| planned.run.needs["masked-words"] == of("masked-words full")[0].run.id())
            );
        }
        assert_eq!((of("recall").len(), of("spans").len(), of("planted").len()), (15, 5, 5));
        let quick = EarlyBert.plan(&ask(Tier::Quick)).unwrap();
        assert_eq!(quick.runs.iter().filter(|planned| planned.run.kind == "recall").count(), 5);
    }

    #[test]
    fn the_papers_own_scale_runs_nothing_and_says_what_it_needs() {
        let empty = tempfile::tempdir().unwrap();
        let ask = |tier| Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let plan = EarlyBert.plan(&ask(Tier::Paper)).unwrap();
        assert!(plan.runs.is_empty());
        assert!(plan.data.iter().all(|used| used.source == DataSource::Absent) && !plan.data.is_empty());
        // The same claims as on every tier, none of them by what toy models did.
        let of = |tier| EarlyBert.judge(&ask(tier), &Results::default()).unwrap();
        let paper = of(Tier::Paper);
        assert!(paper.curves.is_empty() && paper.tables.is_empty());
        assert!(
            paper.claims.iter().all(|claim| claim.verdict().as_str() == "not run" && claim.reason() == claims::NEEDS)
        );
        let ids = |section: &Section| -> BTreeSet<String> {
            section.claims.iter().map(|claim| claim.id().to_owned()).collect()
        };
        assert_eq!(ids(&paper), ids(&of(Tier::Quick)));
        assert!(!EarlyBert.plan(&ask(Tier::Quick)).unwrap().runs.is_empty());
    }
}
