//! `report.md`: the report for a repository or a review.

use std::fmt::Write;

use super::{ArtifactKind, PaperReport, Report, measured, number};
use crate::claim::{JudgedClaim, Over};
use crate::section::{Curve, Table};

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_report(report, &mut out);
    out
}

fn write_report(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "# {}\n", report.headline())?;
    writeln!(out, "Tier {}, device {}. Made again by `{}`.\n", report.tier, report.device, report.command)?;
    for paper in &report.papers {
        write_paper(paper, out)?;
    }
    writeln!(out, "## Environment\n")?;
    writeln!(out, "- commit {}", report.commit.as_deref().unwrap_or("unknown"))?;
    writeln!(out, "- {}", report.machine)?;
    for line in report.elsewhere() {
        writeln!(out, "- {line}")?;
    }
    for (name, version) in &report.versions {
        writeln!(out, "- {name} {version}")?;
    }
    writeln!(out, "- {:.0} s of work in all", report.timing.seconds)
}

fn write_paper(paper: &PaperReport, out: &mut String) -> std::fmt::Result {
    writeln!(out, "## {}: {}\n", paper.paper, paper.title)?;
    writeln!(out, "{}\n\n{}\n", paper.reference, paper.idea)?;
    if let Some(error) = &paper.error {
        writeln!(out, "**Could not be judged:** {error}\n")?;
    }
    if !paper.claims.is_empty() {
        writeln!(out, "| id | claim | paper | test | measured | per seed | verdict |\n|---|---|---|---|---|---|---|")?;
    }
    for claim in &paper.claims {
        let judged = &claim.judged;
        let (value, source) = judged.paper();
        let samples: Vec<String> = judged.samples().map(|(_, sample)| number(sample)).collect();
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | **{}**: {} |",
            escape(judged.id()),
            escape(judged.statement()),
            escape(&if source.is_empty() { value.to_string() } else { format!("{value} ({source})") }),
            escape(format!("{} {}", judged.test(), judged.unit()).trim_end()),
            escape(&with_its_interval(judged)),
            samples.join(" "),
            judged.verdict(),
            escape(judged.reason()),
        )?;
    }
    if let Some(claim) = paper.claims.first() {
        writeln!(out, "\nTier {}; data: {}.\n", claim.tier, claim.data)?;
    }
    for note in &paper.notes {
        writeln!(out, "> {note}\n")?;
    }
    for curve in &paper.curves {
        write_curve(curve, out)?;
    }
    for table in &paper.tables {
        write_table(table, out)?;
    }
    for artifact in &paper.artifacts {
        let mark = if artifact.kind == ArtifactKind::File { "" } else { "!" };
        writeln!(out, "{mark}[{}]({})\n", artifact.title, artifact.path)?;
    }
    for run in paper.runs.iter().filter(|run| run.reason.is_some()) {
        let reason = run.reason.as_deref().unwrap_or_default();
        writeln!(out, "- run {} ({} seed {}) {}: {reason}", run.id, run.kind, run.seed, run.status)?;
    }
    writeln!(out)
}

/// What was measured, and what its interval is.
fn with_its_interval(claim: &JudgedClaim) -> String {
    match (claim.interval(), claim.test().over) {
        (None, _) => measured(claim),
        (Some(_), Over::Mean) => format!("{} (95 %)", measured(claim)),
        (Some(_), Over::Every | Over::Exact) => format!("{} (range)", measured(claim)),
    }
}

/// Rows of a curve's table at most; the page and `report.json` have every point.
const ROWS: usize = 24;

/// A curve as a table: a row a position, a column a series.
fn write_curve(curve: &Curve, out: &mut String) -> std::fmt::Result {
    let mut positions: Vec<f64> = curve.series.iter().flat_map(|series| &series.points).map(|point| point.x).collect();
    positions.sort_by(f64::total_cmp);
    positions.dedup();
    let step = positions.len().div_ceil(ROWS).max(1);
    // Counted from the end, so that the last stays.
    positions = positions.into_iter().rev().step_by(step).collect();
    positions.reverse();
    let mut header = vec![curve.x.label.clone()];
    header.extend(curve.series.iter().map(|series| series.name.clone()));
    let row = |&x: &f64| {
        let cell = |series: &crate::section::Series| {
            let point = series.points.iter().find(|point| point.x == x);
            point.map_or_else(String::new, |point| match point.interval {
                Some(interval) => format!("{} ± {}", number(point.mean), number((interval.hi - interval.lo) / 2.0)),
                None => number(point.mean),
            })
        };
        std::iter::once(number(x)).chain(curve.series.iter().map(cell)).collect()
    };
    let levels: Vec<String> = curve.levels.iter().map(|level| format!("{}: {}", level.name, number(level.y))).collect();
    let caption = [format!("Values: {}.", curve.y.label), curve.caption.clone(), levels.join("; ")].join(" ");
    let rows = positions.iter().map(row).collect();
    write_table(&Table { title: curve.title.clone(), caption, header, rows }, out)
}

fn write_table(table: &Table, out: &mut String) -> std::fmt::Result {
    writeln!(out, "### {}\n\n{}\n", table.title, table.caption.trim())?;
    let line =
        |cells: &[String]| format!("| {} |", cells.iter().map(|cell| escape(cell)).collect::<Vec<_>>().join(" | "));
    writeln!(out, "{}\n|{}", line(&table.header), "---|".repeat(table.header.len()))?;
    for row in &table.rows {
        writeln!(out, "{}", line(row))?;
    }
    writeln!(out)
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
