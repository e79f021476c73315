use super::*;

#[test]
fn numbers_are_short_and_keep_what_matters() {
    for (x, text) in [
        (0.0, "0"),
        (81.594, "81.59"),
        (-0.5, "−0.5"),
        (100.0, "100"),
        (0.01152, "0.0115"),
        (12345.6, "12346"),
        (3.2e-7, "3.20e−7"),
        (2.5e9, "2.50e9"),
        (1.0, "1"),
    ] {
        assert_eq!(number(x), text);
    }
}

fn report(section: Section) -> Report {
    use crate::context::RunContext;
    use crate::{DataRoot, Device, Plan, Run};

    struct Fixed(Section);
    impl Experiment for Fixed {
        fn paper(&self) -> &'static str {
            "paper"
        }
        fn title(&self) -> &'static str {
            "<Title> & more"
        }
        fn reference(&self) -> &'static str {
            "Author, 2021"
        }
        fn idea(&self) -> &'static str {
            "An idea."
        }
        fn plan(&self, _: &Ask) -> anyhow::Result<Plan> {
            Ok(Plan::default())
        }
        fn execute(&self, _: &Run, _: &mut RunContext) -> anyhow::Result<Metrics> {
            Ok(Metrics::new())
        }
        fn judge(&self, _: &Ask, _: &Results) -> anyhow::Result<Section> {
            Ok(self.0.clone())
        }
    }

    let ask = Ask { tier: Tier::Quick, seeds: None, device: Device::Cpu, data: DataRoot::at(Path::new("data")) };
    let frame = Frame { commit: None, machine: Machine::default(), command: "repro".into(), versions: BTreeMap::new() };
    let mut report = Report::new(frame, &ask);
    report.add(&Fixed(section), &ask, Vec::new(), &Results::default());
    report
}

fn claim(id: &str, samples: &[f64]) -> JudgedClaim {
    use crate::{Claim, Relation, Samples, Test};
    Claim::new(id, "a < b | c")
        .test(Test::mean("b − a", Relation::Above(0.0)), "points")
        .judge(&Samples::of((0..).zip(samples.iter().copied())))
        .unwrap()
}

#[test]
fn markup_and_table_bars_in_texts_are_escaped() {
    let report = report(Section { claims: vec![claim("C1", &[1.0, 1.5])], ..Section::default() });
    let page = html::render(&report);
    assert!(page.contains("&lt;Title&gt; &amp; more") && !page.contains("<Title>"));
    assert!(page.contains("a &lt; b | c"));
    assert!(markdown::render(&report).contains("| a < b \\| c |"));
}

#[test]
fn runs_of_other_machines_are_told() {
    let mut report = report(Section::default());
    report.timing.machines.insert(report.machine.to_string(), 2);
    assert!(report.elsewhere().is_empty());
    report.timing.machines.insert("linux x86_64, X, 16 cores, Y".into(), 3);
    assert!(markdown::render(&report).contains("3 on linux x86_64, X, 16 cores, Y"));
    assert!(html::render(&report).contains("3 on linux x86_64, X, 16 cores, Y"));
}

#[test]
fn an_interval_says_what_it_is_and_a_single_sample_has_none() {
    use crate::{Claim, Relation, Samples, Test};
    let of = |id: &str, test: Test, samples: &[f64]| {
        let samples = Samples::of((0..).zip(samples.iter().copied()));
        Claim::new(id, "c").test(test, "points").judge(&samples).unwrap()
    };
    let above = Relation::Above(0.0);
    let claims = vec![
        of("C1", Test::mean("x", above), &[1.0, 1.0]),
        of("C2", Test::every("x", above), &[1.0, 2.0]),
        of("C3", Test::exact("x", above), &[3.0]),
    ];
    let text = markdown::render(&report(Section { claims, ..Section::default() }));
    let cells: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| C")).filter_map(|line| line.split(" | ").nth(4)).collect();
    assert_eq!(cells, ["1 points [1, 1] (95 %)", "1.5 points [1, 2] (range)", "3 points"]);
}

#[test]
fn runs_of_other_commits_are_told() {
    let mut report = report(Section::default());
    report.commit = Some("abc".into());
    for digit in ["a", "b", "c"] {
        let run = RunTiming { seconds: 1.0, attempts: 1, measured: Metrics::new() };
        report.timing.runs.insert(RunId::try_from(digit.repeat(16)).unwrap(), run);
    }
    report.timing.commits.insert("abc".into(), 3);
    assert!(report.elsewhere().is_empty());
    report.timing.commits = [("abc".to_owned(), 1), ("def-dirty".to_owned(), 1)].into();
    assert_eq!(report.elsewhere(), ["runs: 1 of commit abc; 1 of commit def-dirty; 1 of a commit that was not noted"]);
    report.commit = None;
    report.timing.commits.clear();
    assert!(report.elsewhere().is_empty());
}

#[test]
fn verdicts_are_counted_once_each() {
    let samples: [&[f64]; 4] = [&[1.0, 1.1], &[-1.0, -1.1], &[1.0], &[]];
    let claims = ["C1", "C2", "C3", "C4"].iter().zip(samples).map(|(id, samples)| claim(id, samples)).collect();
    let report = report(Section { claims, ..Section::default() });
    assert_eq!(report.headline(), "1 of 4 claims reproduced, 1 not reproduced, 1 inconclusive, 1 not run");
    assert!(report.is_complete());
}

#[test]
fn long_curves_are_thinned_in_markdown_and_keep_their_end() {
    use crate::section::{Axis, Curve, Series};
    let history: Vec<(u64, Vec<f64>)> = (1..=100).map(|epoch| (epoch, vec![1.0, 2.0])).collect();
    let curve = Curve {
        title: "t".into(),
        caption: String::new(),
        x: Axis::linear("epoch"),
        y: Axis::linear("loss"),
        series: vec![Series::over_epochs("s", &history)],
        levels: Vec::new(),
    };
    let text = markdown::render(&report(Section { curves: vec![curve], ..Section::default() }));
    let rows: Vec<&str> = text.lines().filter(|line| line.ends_with("± 6.353 |")).collect();
    assert_eq!((rows.len(), rows[19]), (20, "| 100 | 1.5 ± 6.353 |"));
}

#[test]
fn a_section_that_cannot_be_drawn_becomes_an_error_in_the_report() {
    let table = Table { title: "t".into(), caption: String::new(), header: vec!["a".into()], rows: vec![vec![]] };
    let report = report(Section { tables: vec![table], claims: vec![claim("C1", &[1.0, 2.0])], ..Section::default() });
    assert!(!report.is_complete());
    assert!(report.papers[0].error.as_ref().unwrap().contains("table row is 0 cells"));
    assert!(html::render(&report).contains("Could not be judged."));
}
