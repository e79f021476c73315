//! Claims on soft routing, learned shape and size, as inequalities.

use super::models::{FIXED, HARD_CASCADE, LEARNED, ONE_GREEDY, ONE_SOFT, RANDOM, SOFT_CASCADE, arms};
use super::{ImageSet, PAPER, Params, Setting};
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
        ],
        ..Section::default()
    };
    for (index, &set) in setting.sets.iter().enumerate() {
        let view = View { setting, set, results };
        section.claims.extend(view.claims(index > 0)?);
        section.tables.push(view.table()?);
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

    /// `named`: whether claims say which set they are about.
    fn claims(&self, named: bool) -> anyhow::Result<Vec<JudgedClaim>> {
        let accuracy = |arm| self.metric(arm, "test_accuracy");
        let seconds = |arm: &str| self.results.timings("fit_seconds", |run| self.is(run, arm));
        let (learned, fixed) = (accuracy(LEARNED)?, accuracy(FIXED)?);
        let nodes = self.metric(LEARNED, "nodes_per_tree")?.over(&self.metric(FIXED, "nodes_per_tree")?);
        let scalars = self.metric(LEARNED, "scalars")?.over(&self.metric(HARD_CASCADE, "scalars")?);
        let claim = |id: &str, statement: &str, paper: &str, formula: &str, relation: Relation, unit: &str| {
            let (id, statement) = if named {
                (format!("{id}-{}", self.set.name().to_lowercase()), format!("{statement} ({})", self.set.name()))
            } else {
                (id.into(), statement.into())
            };
            Claim::new(&id, &statement).paper(paper, ABSTRACT).test(Test::mean(formula, relation), unit)
        };
        let layers = claim(
            "F4",
            "A cascade that stops by itself is no worse than its first layer",
            "deep forests stack layers",
            "A(cascade) − A(its first layer)",
            Relation::AtLeast(0.0),
            "points",
        );
        Ok(vec![
            claim(
                "F1",
                "One tree trained as a whole beats one grown greedily",
                "growing greedily is inefficient",
                "A(1 soft tree) − A(1 greedy tree)",
                Relation::AtLeast(3.0),
                "points",
            )
            .judge(&accuracy(ONE_SOFT)?.minus(&accuracy(ONE_GREEDY)?))?,
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
                "The learned shape beats a random one of the same size",
                "not in the paper: a control",
                "A(learned) − A(random shape)",
                Relation::Above(0.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(RANDOM)?))?,
            claim(
                "F3a",
                &format!("15 soft trees come within a point of 2 layers of {} hard trees", self.setting.hard_trees),
                "1 layer of 15 soft trees is comparable to 2 layers of 2000 hard ones (MNIST)",
                "A(15 soft) − A(2 hard layers)",
                Relation::AtLeast(-1.0),
                "points",
            )
            .judge(&learned.minus(&accuracy(HARD_CASCADE)?))?,
            claim(
                "F3b",
                "They need at most a tenth of the stored numbers",
                "a much smaller model",
                "numbers(15 soft) / numbers(2 hard layers)",
                Relation::AtMost(0.1),
                "",
            )
            .judge(&scalars)?,
            if self.setting.soft_cascade {
                let first = self.metric(SOFT_CASCADE, "layer1_accuracy")?;
                layers.judge(&self.metric(SOFT_CASCADE, "test_accuracy")?.minus(&first))?
            } else {
                layers.not_run("eight times the work of one layer: needs --tier standard")
            },
            claim(
                "F5",
                "One path a tree explains most of a decision",
                "the trees stay interpretable",
                "mass of the likeliest path of each tree",
                Relation::AtLeast(0.5),
                "",
            )
            .judge(&self.metric(LEARNED, "explained_mass")?)?,
            claim(
                "F6",
                "15 soft trees train faster than 2 layers of hard trees",
                "deep forests grow efficiently",
                "seconds(15 soft) / seconds(2 hard layers)",
                Relation::Below(1.0),
                "",
            )
            .timed()
            .judge(&seconds(LEARNED)?.over(&seconds(HARD_CASCADE)?))?,
        ])
    }

    fn table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for (arm, _) in arms(self.setting) {
            let nodes = if [HARD_CASCADE, SOFT_CASCADE].contains(&arm) {
                "–".into()
            } else {
                cell(&self.metric(arm, "nodes_per_tree")?.values(), 1)
            };
            rows.push(vec![
                arm.into(),
                cell(&self.metric(arm, "test_accuracy")?.values(), 2),
                cell(&self.metric(arm, "scalars")?.values(), 0),
                nodes,
            ]);
        }
        let header = ["model", "test accuracy (%)", "stored numbers", "nodes a tree"];
        Ok(Table {
            title: format!("Accuracy and size: {}", self.set.name()),
            caption: "Mean ± half the 95 % interval over seeds.".into(),
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
