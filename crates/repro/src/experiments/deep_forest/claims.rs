//! Claims on soft routing, learned shape and size, as inequalities.

use super::held_out::{Candidates, Chosen, FULL, leaved, priced};
use super::models::{
    FEW_HARD, FIXED, HARD_CASCADE, LEARNED, LINEAR, Model, ONE_GREEDY, ONE_SOFT, RANDOM, SOFT_CASCADE, arms,
};
use super::{ImageSet, PAPER, Params, SETTINGS, Setting};
use crate::section::{Media, Picture, Table, cell};
use crate::{Claim, JudgedClaim, Relation, Results, Run, Samples, Section, Test};

const ABSTRACT: &str = "arXiv 2012.14878, abstract";

pub(super) fn judge(setting: &Setting, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section {
        notes: vec![
            "The paper reports MNIST and gives no accuracy in its abstract, the only part at hand; orderings are tested, on \
             Fashion-MNIST and, in larger tiers, on MNIST. The equations are those of budding trees, which the abstract's two ideas \
             describe."
                .into(),
            "A soft gate stores as many numbers as there are pixels, a hard split about four: trees alone compare nothing, \
             so sizes are compared in stored numbers."
                .into(),
            "Both layers of a cascade are grown, and the second is dropped when it gains nothing out of fold: then the cascade \
             is its first layer, and its time holds both. A cascade keeps one copy of a forest for each of 3 folds and predicts \
             with their mean. F3b counts one copy, and a leaf of one class as that class's number; tables count all three, and a \
             share for each class of a leaf, as files do. Forests pass on one class distribution a forest, as in gcForest, and not \
             one a tree."
                .into(),
            "All seeds share the test images: intervals say how far seeds differ, on these images.".into(),
            "Step sizes, epochs and the leafness that training starts from were found on Fashion-MNIST, its test images included, \
             and hard trees have customary settings: claims on MNIST are free of that."
                .into(),
        ],
        ..Section::default()
    };
    if setting.chosen {
        section.notes.push(
            "The price of a node and the rows of a greedy tree's leaf are chosen once a set, on held-out rows. All seeds share the \
             choice, and intervals leave it out; F2b asks whether the price holds on test images, and F6 leaves out the fits that \
             chose it."
                .into(),
        );
    } else {
        section.notes.push("So was the price of a node, which larger tiers choose on held-out training rows.".into());
    }
    for (index, &set) in setting.sets.iter().enumerate() {
        let view = View { setting, set, results };
        section.claims.extend(view.claims(index)?);
        section.tables.push(view.table()?);
        section.tables.extend(view.settings()?);
        if index == 0 {
            section.pictures = view.tree()?;
        }
    }
    Ok(section)
}

/// What was found on one data set.
struct View<'a> {
    setting: &'a Setting,
    set: ImageSet,
    results: &'a Results,
}

impl View<'_> {
    fn is(&self, run: &Run, arm: &str) -> bool {
        let set = || run.params::<Params>().is_ok_and(|params| params.data == self.set);
        run.paper == PAPER && run.kind == arm && set()
    }

    fn metric(&self, arm: &str, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, |run| self.is(run, arm))?)
    }

    /// The claims on the data set of this number; where there are several, they say which they are about.
    fn claims(&self, index: usize) -> anyhow::Result<Vec<JudgedClaim>> {
        let accuracy = |arm| self.metric(arm, "test_accuracy");
        let seconds = |arm: &str| self.results.timings("fit_seconds", |run| self.is(run, arm));
        let (learned, fixed) = (accuracy(LEARNED)?, accuracy(FIXED)?);
        let nodes = self.metric(LEARNED, "nodes_per_tree")?.over(&self.metric(FIXED, "nodes_per_tree")?);
        let scalars = self.metric(LEARNED, "scalars")?.over(&self.metric(HARD_CASCADE, "least_scalars_a_fold")?);
        let cascade = format!("a cascade of up to 2 layers of {} hard trees, 3 folds", self.setting.hard_trees);
        let claim = |id: &str, statement: &str, paper: &str, formula: &str, relation: Relation, unit: &str| {
            let name = self.set.name();
            let id = if index > 0 { format!("{id}-{}", name.to_lowercase()) } else { id.into() };
            let statement =
                if self.setting.sets.len() > 1 { format!("{statement} ({name})") } else { statement.into() };
            Claim::new(&id, &statement).paper(paper, ABSTRACT).test(Test::mean(formula, relation), unit)
        };
        let layers = claim(
            "F4",
            "A second layer of 15 soft trees is no worse than the first",
            "deep forests stack layers",
            "out-of-fold A(layer 2) − A(layer 1)",
            Relation::AtLeast(0.0),
            "points",
        );
        Ok(vec![
            claim(
                "F1",
                "One tree of soft gates, trained as a whole, beats one of single features grown greedily",
                "growing greedily is inefficient",
                "A(1 soft tree) − A(1 greedy tree)",
                Relation::AtLeast(3.0),
                "points",
            )
            .judge(&accuracy(ONE_SOFT)?.minus(&accuracy(ONE_GREEDY)?))?,
            claim(
                "F1b",
                "… and it beats a linear model of the pixels, which has no tree at all",
                "not in the paper: a control",
                "A(1 soft tree) − A(linear model)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&accuracy(ONE_SOFT)?.minus(&accuracy(LINEAR)?))?,
            claim(
                "F1c",
                "… as 15 soft trees of a learned shape do",
                "not in the paper: a control",
                "A(15 soft) − A(linear model)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(LINEAR)?))?,
            claim(
                "F2a",
                "The learned shape has at most half the nodes of the full one",
                "the connectivity is learned",
                "nodes(learned) / nodes(full)",
                Relation::AtMost(0.5),
                "",
            )
            .judge(&nodes)?,
            claim(
                "F2b",
                "The learned shape costs at most half a point",
                "the connectivity is learned",
                "A(learned) − A(full)",
                Relation::AtLeast(-0.5),
                "points",
            )
            .judge(&learned.minus(&fixed))?,
            claim(
                "F2c",
                "The learned shape beats a random one of the same size, trained as long",
                "not in the paper: a control",
                "A(learned) − A(random shape)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(RANDOM)?))?,
            claim(
                "F3a",
                &format!("15 soft trees come within a point of {cascade}"),
                "1 layer of 15 soft trees is comparable to 2 layers of 2000 hard ones (MNIST)",
                "A(15 soft) − A(hard cascade)",
                Relation::AtLeast(-1.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(HARD_CASCADE)?))?,
            claim(
                "F3b",
                "They need at most a tenth of the numbers of one of the cascade's 3 copies, whose leaves of one class count as one",
                "a much smaller model",
                "numbers(15 soft) / numbers(a copy of the hard cascade)",
                Relation::AtMost(0.1),
                "",
            )
            .judge(&scalars)?,
            claim(
                "F3c",
                "15 soft trees beat 15 hard ones, whatever either stores",
                "not in the paper: a control",
                "A(15 soft) − A(15 hard trees)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(FEW_HARD)?))?,
            if self.setting.soft_cascade {
                layers.judge(&self.second_layer_gain(SOFT_CASCADE)?)?
            } else {
                layers.not_run("six to seven times the work of one layer: needs --tier standard")
            },
            claim(
                "F5",
                "One path a tree explains most of a decision, on 200 test images",
                "the trees stay interpretable",
                "mass of the likeliest path of each tree",
                Relation::AtLeast(0.5),
                "",
            )
            .judge(&self.metric(LEARNED, "explained_mass")?)?,
            claim(
                "F5b",
                "Masking 20 pixels that explanations name lowers the class's probability more than masking the 20 others that are \
                 farthest from their mean, on 200 test images",
                "the trees stay interpretable",
                "P(class, others masked) − P(class, named masked)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&self.metric(LEARNED, "deletion_gap")?)?,
            claim(
                "F6",
                &format!("15 soft trees train faster than {cascade}"),
                "deep forests grow efficiently",
                "seconds(15 soft) / seconds(hard cascade)",
                Relation::Below(1.0),
                "",
            )
            .timed()
            .judge(&seconds(LEARNED)?.over(&seconds(HARD_CASCADE)?))?,
        ])
    }

    /// What a cascade's second layer adds out of fold, in points, whether it was kept or not.
    fn second_layer_gain(&self, arm: &str) -> anyhow::Result<Samples> {
        Ok(self.metric(arm, "layer2_out_of_fold")?.minus(&self.metric(arm, "layer1_out_of_fold")?))
    }

    /// What held-out training rows said of every setting.
    fn settings(&self) -> anyhow::Result<Option<Table>> {
        let candidates = Candidates::new(self.set, self.setting.train_images);
        let mine = |run: &Run| run.kind == SETTINGS && run.params::<Candidates>().is_ok_and(|own| own == candidates);
        let Some(run) = self.results.finished(mine).next().filter(|_| self.setting.chosen) else { return Ok(None) };
        let chosen = Chosen::of(|name| run.metric(name))?;
        let percent = |name: &str| Ok::<_, anyhow::Error>(format!("{:.2}", run.metric(name)?));
        let mark = |this: bool| String::from(if this { "chosen" } else { "" });
        let mut rows = vec![vec!["full shape".into(), percent(FULL)?, "127.0".into(), String::new()]];
        for &price in &candidates.prices {
            rows.push(vec![
                format!("learned shape, price of a node {price}"),
                percent(&priced(price, "accuracy"))?,
                format!("{:.1}", run.metric(&priced(price, "nodes a tree"))?),
                mark(price == chosen.size),
            ]);
        }
        for &leaf in &candidates.leaves {
            rows.push(vec![
                format!("1 greedy tree, at least {leaf} rows a leaf"),
                percent(&leaved(leaf))?,
                "–".into(),
                mark(leaf == chosen.min_samples_leaf),
            ]);
        }
        Ok(Some(Table {
            title: format!("Chosen on training rows held out: {}", self.set.name()),
            caption: format!(
                "Fits on the first {} training rows, accuracy on the {} after them, one seed that no other run has. Of the prices \
                 the largest is chosen up to which all cost at most {} points against the full shape, 0 if that costs more; of \
                 the leaves the most accurate.",
                candidates.train_images - candidates.held_out,
                candidates.held_out,
                candidates.tolerance
            ),
            header: ["model", "accuracy (%)", "nodes a tree", ""].map(String::from).to_vec(),
            rows,
        }))
    }

    fn table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for (arm, model) in arms(self.setting) {
            let shown = |metric: &str, decimals: usize| {
                Ok::<_, anyhow::Error>(cell(&self.metric(arm, metric)?.values(), decimals))
            };
            let none = || String::from("–");
            let soft = matches!(model, Model::Soft(_) | Model::RandomShape(_));
            let cascade = matches!(model, Model::Cascade(_));
            let bytes =
                if soft || cascade { self.metric(arm, "bytes")?.map(|bytes| bytes / 1e6) } else { Samples::default() };
            let microseconds = self.results.timings("predict_us_a_row", |run| self.is(run, arm))?;
            rows.push(vec![
                arm.into(),
                shown("test_accuracy", 2)?,
                if soft { shown("one_path_accuracy", 2)? } else { none() },
                if cascade { shown("layers", 1)? } else { none() },
                if cascade { cell(&self.second_layer_gain(arm)?.values(), 2) } else { none() },
                shown("scalars", 0)?,
                cell(&bytes.values(), 2),
                if cascade { none() } else { shown("nodes_per_tree", 1)? },
                cell(&microseconds.values(), 1),
            ]);
        }
        let header = [
            "model",
            "test accuracy (%)",
            "one path a tree (%)",
            "layers kept",
            "second layer's gain out of fold (points)",
            "stored numbers",
            "file (MB)",
            "nodes a tree",
            "prediction (µs a row)",
        ];
        Ok(Table {
            title: format!("Accuracy and size: {}", self.set.name()),
            caption:
                "Mean ± half the 95 % interval over seeds. One path a tree: at every gate only the likelier child. \
                      Prediction: all test rows at once by the clock, exact evaluation."
                    .into(),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }

    /// A drawing of the first tree of the first seed.
    fn tree(&self) -> anyhow::Result<Vec<Picture>> {
        let mut finished = self.results.finished(|run| self.is(run, LEARNED) && run.seed == 0);
        let Some(run) = finished.next() else { return Ok(Vec::new()) };
        Ok(vec![Picture {
            title: "A tree that chose its shape".into(),
            caption: "The first of the fifteen trees, seed 0, after hardening.".into(),
            alt: "A drawing of a binary tree whose branches end at different depths.".into(),
            media: Media::Svg(std::fs::read_to_string(run.artifact("tree.svg")?)?),
        }])
    }
}
